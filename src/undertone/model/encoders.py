"""Frozen speech encoders: 16 kHz samples in, frames (T, D) out, or (T, layers, D) of tapped layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from undertone.errors import DependencyError
from undertone.model.config import AFFECT_SMALL, EncoderConfig
from undertone.records import content_hash

if TYPE_CHECKING:
    from undertone.label.affect import AffectSmall

RATE_HZ = 16_000
WINDOW_S = 30.0
"""Seconds per window where an encoder has none of its own and audio is cut into windows."""

_SHORTEST_S = 0.1
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
        """Encode mono samples at 16 kHz, shape (n,), into frames (T, D) or (T, layers, D): time comes first."""
        ...


class Windowed(Encoder, Protocol):
    """An encoder to whose frames something can be joined window by window.

    Attributes:
        config: What it was made of.
        window_s: Seconds that it takes at once.
        covers_s: Seconds that the frames of a window cover, however short the sound (Whisper pads); None: those of the sound.
        in_time: Whether frames come in the order of time; those of an AST are patches of time and frequency.
    """

    @property
    def config(self) -> EncoderConfig: ...

    @property
    def window_s(self) -> float: ...

    @property
    def covers_s(self) -> float | None: ...

    @property
    def in_time(self) -> bool: ...

    def stretch(self, samples: npt.NDArray[np.float32]) -> Frames:
        """Frames of one window, before any are averaged (`EncoderConfig.pool`)."""
        ...


def load_encoder(config: EncoderConfig) -> Encoder:
    """The encoder of a configuration, weights loaded.

    Raises:
        DependencyError: affect-small's weights are not there, or a package is missing.
        ModelError: The named model does not load.
    """
    return AffectEncoder(config) if config.name == AFFECT_SMALL else HuggingFaceEncoder(config)


def load_inputs(config: EncoderConfig) -> Encoder:
    """What the encoder reads in the place of its frames, for a model that runs it inside (`SpeechLLMConfig.encoder_inside`).

    Raises:
        DependencyError: A package is missing.
        ModelError: The feature extractor does not load.
    """
    return HuggingFaceInputs(config)


class AffectEncoder:
    """`affect-small`: 50 frames per second of affect, log-mel and pitch."""

    def __init__(self, config: EncoderConfig) -> None:
        """Find the model."""
        from undertone.label.affect import FRAME_DIM, AffectSmall  # late: needed with this encoder only
        from undertone.label.features import FRONT_END_VERSION

        self.config = config
        self.window_s = WINDOW_S
        self.covers_s: float | None = None
        self.in_time = True
        self._model: AffectSmall = AffectSmall()
        self.dim: int = FRAME_DIM
        self.fingerprint = content_hash(AFFECT_SMALL, self._model.card.sha256, FRONT_END_VERSION, *_options(config))

    def frames(self, samples: npt.NDArray[np.float32]) -> Frames:
        """50 frames per second, or fewer with `pool`."""
        return encoded(samples, self.stretch, self.config, window_s=self.window_s)

    def stretch(self, samples: npt.NDArray[np.float32]) -> Frames:
        """50 frames per second."""
        return self._model.frames(samples)


class HuggingFaceEncoder:
    """Any audio model of transformers; of an encoder-decoder such as Whisper, its encoder.

    Whisper pads to 30 s, so that it always gives 1500 frames.
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Load or build the model."""
        import_torch()
        from undertone.model.speech_encoder import feature_extractor, read_encoder  # torch

        self.config = config
        self._features: Any = feature_extractor(config)
        self.window_s, self.covers_s = window_s(self._features), covers_s(self._features)
        model, whole = read_encoder(config)
        self.dim: int = int(whole.hidden_size)
        self._model: Any = model.eval().requires_grad_(False)
        self.in_time = self._model.config.model_type != "audio-spectrogram-transformer"
        self.fingerprint = content_hash(str(config.name), _digest(self._model), *_options(config))

    def frames(self, samples: npt.NDArray[np.float32]) -> Frames:
        """The encoder's last hidden state (T, D), or the tapped ones (T, layers, D)."""
        return encoded(samples, self.stretch, self.config, window_s=self.window_s)

    def stretch(self, samples: npt.NDArray[np.float32]) -> Frames:
        """Of one window; Whisper leaves out what lies beyond its own."""
        import torch

        from undertone.model.speech_encoder import tapped

        inputs = self._features(samples, sampling_rate=RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            hidden = tapped(self._model, self.config.taps, **inputs)[0]
        made: Frames = hidden.float().numpy()
        return made


class HuggingFaceInputs:
    """What an audio model of transformers reads, time first: log-mel (2 T, mels) or samples (n, 1)."""

    def __init__(self, config: EncoderConfig) -> None:
        """Load the feature extractor."""
        import_torch()
        from undertone.model.speech_encoder import feature_extractor  # torch

        self.config = config
        self._features: Any = feature_extractor(config)
        self.covers_s = covers_s(self._features)
        self.dim: int = int(self._features.feature_size)
        self.fingerprint = content_hash(
            "inputs", json.dumps(self._features.to_dict(), sort_keys=True, default=str), config.long_audio
        )

    def frames(self, samples: npt.NDArray[np.float32]) -> Frames:
        """Inputs of each window, in a row."""
        chunks = windows(samples, window_s(self._features)) if self.config.long_audio == "chunk" else [samples]
        return np.concatenate([self._inputs(one) for one in chunks])

    def _inputs(self, samples: npt.NDArray[np.float32]) -> Frames:
        made = self._features(samples, sampling_rate=RATE_HZ, return_tensors="np")
        if "input_features" in made:
            return np.ascontiguousarray(made["input_features"][0].T, dtype=np.float32)
        return np.asarray(made["input_values"][0], dtype=np.float32)[:, None]


def windows(samples: npt.NDArray[np.float32], seconds: float) -> list[npt.NDArray[np.float32]]:
    """Samples cut into stretches of as many seconds; a last one too short for a word is left out."""
    size = round(seconds * RATE_HZ)
    made = [samples[start : start + size] for start in range(0, max(1, len(samples)), size)]
    return made[:-1] if len(made) > 1 and len(made[-1]) < _SHORTEST_S * RATE_HZ else made


def window_s(features: Any) -> float:
    """Seconds that a feature extractor takes at once: Whisper's window, else 30."""
    return float(getattr(features, "chunk_length", None) or WINDOW_S)


def covers_s(features: Any) -> float | None:
    """Seconds that frames cover however short the sound: Whisper's window, to which it is padded; None where nothing is."""
    length = getattr(features, "chunk_length", None)
    return float(length) if length else None


def encoded(
    samples: npt.NDArray[np.float32], frames: Callable[[npt.NDArray[np.float32]], Frames], config: EncoderConfig, *, window_s: float
) -> Frames:
    """Frames of samples of any length, as `config.long_audio` and `config.pool` say.

    Args:
        samples: Mono at 16 kHz, shape (n,).
        frames: Encodes one window.
        config: Of the encoder.
        window_s: Seconds that it takes at once.
    """
    made = np.concatenate([frames(one) for one in windows(samples, window_s)]) if config.long_audio == "chunk" else frames(samples)
    if config.pool == 1 or not len(made):
        return made
    starts = np.arange(0, len(made), config.pool)
    # The last frame may be of fewer.
    sizes = np.diff([*starts, len(made)]).reshape(-1, *[1] * (made.ndim - 1))
    pooled: Frames = (np.add.reduceat(made, starts, axis=0) / sizes).astype(np.float32)
    return pooled


def _options(config: EncoderConfig) -> tuple[str, ...]:
    """What changes frames beside the weights; nothing where all of it has its default, so that frames made before it came are found."""
    changed = {key: value for key, value in config.model_dump(mode="json").items() if key in EncoderConfig.grown}
    return (json.dumps(changed, sort_keys=True),) if changed else ()


def import_torch() -> None:
    """Check for the packages.

    Raises:
        DependencyError: torch or transformers is missing.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise DependencyError('this encoder needs torch and transformers: pip install "undertone[train]"') from error


def _digest(model: Any) -> str:
    """Hash of the weights, so that a renamed or retrained folder is not taken for the old one."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
