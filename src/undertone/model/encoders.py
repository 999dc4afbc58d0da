"""Frozen speech encoders: 16 kHz samples in, frames (T, D) out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from undertone.errors import DependencyError, ModelError
from undertone.model.config import AFFECT_SMALL, EncoderConfig
from undertone.records import content_hash

if TYPE_CHECKING:
    from undertone.label.affect import AffectSmall

RATE_HZ = 16_000
Frames = npt.NDArray[np.float32]


class Encoder(Protocol):
    """A frozen encoder.

    Attributes:
        dim: Width D of a frame.
        fingerprint: Changes whenever equal samples would give other frames.
    """

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def frames(self, samples: npt.NDArray[np.float32]) -> Frames:
        """Encode mono samples at 16 kHz, shape (n,), into frames (T, D)."""
        ...


def load_encoder(config: EncoderConfig) -> Encoder:
    """The encoder of a configuration, weights loaded.

    Raises:
        DependencyError: affect-small's weights are not there, or a package is missing.
        ModelError: The named model does not load.
    """
    return AffectEncoder() if config.name == AFFECT_SMALL else HuggingFaceEncoder(config)


class AffectEncoder:
    """`affect-small`: 50 frames per second of affect, log-mel and pitch."""

    def __init__(self) -> None:
        """Find the model."""
        from undertone.label.affect import FRAME_DIM, AffectSmall  # late: needed with this encoder only
        from undertone.label.features import FRONT_END_VERSION

        self._model: AffectSmall = AffectSmall()
        self.dim: int = FRAME_DIM
        self.fingerprint = content_hash(AFFECT_SMALL, self._model.card.sha256, FRONT_END_VERSION)

    def frames(self, samples: npt.NDArray[np.float32]) -> Frames:
        """50 frames per second."""
        return self._model.frames(samples)


class HuggingFaceEncoder:
    """Any audio model of transformers; of an encoder-decoder such as Whisper, its encoder.

    Whisper pads to 30 s, so that it always gives 1500 frames.
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Load or build the model."""
        try:
            import torch
            import transformers

            library: Any = transformers
        except ImportError as error:
            raise DependencyError('this encoder needs torch and transformers: pip install "undertone[train]"') from error
        if config.name is not None:
            try:
                model = library.AutoModel.from_pretrained(config.name)
                self._features: Any = library.AutoFeatureExtractor.from_pretrained(config.name, return_attention_mask=False)
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"encoder {config.name!r} does not load: {error}. Expected '{AFFECT_SMALL}', a Hugging Face id or a folder with a "
                    f"model and preprocessor_config.json; try: hf download {config.name}"
                ) from error
        else:
            model, self._features = _new_whisper(config.config or {})
        self._torch = torch
        self._model = (model.get_encoder() if model.config.is_encoder_decoder else model).eval().requires_grad_(False)
        self.dim: int = int(model.config.hidden_size)
        self.fingerprint = content_hash(str(config.name), _digest(self._model))

    def frames(self, samples: npt.NDArray[np.float32]) -> Frames:
        """The encoder's last hidden state."""
        inputs = self._features(samples, sampling_rate=RATE_HZ, return_tensors="pt")
        with self._torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state[0]
        made: Frames = hidden.float().numpy()
        return made


def _new_whisper(config: dict[str, Any]) -> tuple[Any, Any]:
    """A Whisper with random weights (seed 0) and its feature extractor, whose window fits the encoder's positions."""
    import torch
    import transformers

    if config["model_type"] != "whisper":
        raise ModelError(
            f"an encoder by configuration is a 'whisper', got model_type {config['model_type']!r}; give others by name"
        )
    library: Any = transformers
    settings = library.AutoConfig.for_model(**config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = library.AutoModel.from_config(settings)
    # 2 mel frames of 10 ms per encoder position
    window_s = settings.max_source_positions // 50
    return model, library.WhisperFeatureExtractor(feature_size=settings.num_mel_bins, chunk_length=window_s)


def _digest(model: Any) -> str:
    """Hash of the weights, so that a renamed or retrained folder is not taken for the old one."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
