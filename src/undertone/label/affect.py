"""`affect-small`: emotion, valence/arousal/dominance and gender from a voice, through onnxruntime, without torch.

The network is trained by `recipes/affect_small.py`; what it heard, under which licences and how well it does on
speakers it never heard is in `models/affect-small/README.md`, and the same numbers are in `model.json` beside it.
It is also the frozen frame encoder of the toy speech-LLM (`AffectSmall.frames`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydantic

from undertone.errors import DependencyError, ModelError
from undertone.label.features import HOP_SAMPLES, MELS, RATE_HZ, Features, log_mel

MODEL_NAME = "affect-small"
MODELS_VARIABLE = "UNDERTONE_MODELS"
MIN_SECONDS = 0.3
SILENCE_DB = -70.0  # the quietest ravdess clip speaks at about -60 dB re full scale
FRAME_RATE_HZ = 50
HIDDEN = 128
FRAME_DIM = HIDDEN + 2 * MELS + 4

Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class AffectScores:
    """What one stretch of voice sounds like.

    Attributes:
        emotion: probability per emotion (angry, disgusted, fearful, happy, neutral, sad, surprised); sums to 1.
        valence: 0 (unpleasant) to 1 (pleasant).
        arousal: 0 (calm) to 1 (excited).
        dominance: 0 (submissive) to 1 (in control).
        gender: probability of female and male; sums to 1.
    """

    emotion: dict[str, float]
    valence: float
    arousal: float
    dominance: float
    gender: dict[str, float]


class ModelCard(pydantic.BaseModel):
    """The part of `model.json` that inference reads; the rest of that file is for people."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")

    name: str
    version: str
    licence: str
    sha256: str
    emotions: tuple[str, ...]
    genders: tuple[str, ...]
    heard_speakers: frozenset[str]


class AffectSmall:
    """Hears emotion, V/A/D and gender; loads its 2 MB of weights at the first use.

    Instances pickle to their configuration only, before and after loading, so that they travel to worker processes.
    """

    def __init__(self, path: Path | None = None, *, threads: int = 1) -> None:
        """Store the configuration; nothing is read yet.

        Args:
            path: folder with `model.onnx` and `model.json`; None looks in `$UNDERTONE_MODELS/affect-small`, then in
                `models/affect-small` of the source checkout.
            threads: onnxruntime threads within one call.
        """
        self.path = path
        self.threads = threads
        self._session: Any = None
        self._card: ModelCard | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "threads": self.threads, "_session": None, "_card": None}

    @property
    def card(self) -> ModelCard:
        """The model card as data.

        Raises:
            DependencyError: the model folder is not there.
            ModelError: `model.json` does not read.
        """
        if self._card is None:
            file = find_model(self.path) / "model.json"
            try:
                self._card = ModelCard.model_validate_json(file.read_bytes())
            except (OSError, pydantic.ValidationError) as error:
                raise ModelError(f"{file}: not a model card of {MODEL_NAME}: {error}. {_HOW_TO_GET}") from error
        return self._card

    @property
    def heard_speakers(self) -> frozenset[str]:
        """Speakers of training and of early stopping, as "corpus/speaker"; results on them are not fair."""
        return self.card.heard_speakers

    def score(self, samples: npt.NDArray[np.floating]) -> AffectScores | None:
        """Score one stretch of voice, best 1-6 s long.

        Args:
            samples: float mono waveform at 16 kHz in -1..1, shape (n,).

        Returns:
            The scores, or None (the model abstains) below 0.3 s and for silence.

        Raises:
            AudioError: the samples are not one-dimensional or not finite.
            DependencyError: the model is not installed.
        """
        features = log_mel(samples)
        if len(features.values) * HOP_SAMPLES < MIN_SECONDS * RATE_HZ or features.speech_level_db < SILENCE_DB:
            return None
        emotion, vad, gender = self._run(features, ["emotion", "vad", "gender"])
        return AffectScores(
            emotion={name: float(p) for name, p in zip(self.card.emotions, emotion[0], strict=True)},
            valence=float(vad[0, 0]),
            arousal=float(vad[0, 1]),
            dominance=float(vad[0, 2]),
            gender={name: float(p) for name, p in zip(self.card.genders, gender[0], strict=True)},
        )

    def score_many(self, samples: Sequence[npt.NDArray[np.floating]]) -> list[AffectScores | None]:
        """Score several stretches; each result is bit for bit what `score` gives.

        They run one after another: stretches differ in length, and padding would make a result depend on its batch.
        """
        return [self.score(one) for one in samples]

    def frames(self, samples: npt.NDArray[np.floating]) -> Array:
        """Encode voice frame by frame for a speech-LLM: how it is said beside what is said.

        Columns 0..127 are the trunk's hidden state (affect; standardised, context about one second), 128..255 two
        consecutive log-mel frames of 64 (words; dB/20 re speech level), 256..259 pitch and voicing of those two
        frames (`undertone.label.features`).

        Args:
            samples: float mono waveform at 16 kHz, shape (n,).

        Returns:
            float32 of shape (n // 320, 260): exactly 50 frames per second, frame k centred at (k + 0.5) * 20 ms. Zero
            rows below 20 ms. Silence is encoded like anything else.
        """
        features = log_mel(samples)
        count = len(features.values) // 2
        if count == 0:
            return np.zeros((0, FRAME_DIM), dtype=np.float32)
        pairs = features.values[: 2 * count].reshape(count, 2, -1)
        mel, pitch = pairs[:, :, :MELS].reshape(count, -1), pairs[:, :, MELS:].reshape(count, -1)
        hidden = self._run(features, ["hidden"])[0][0]
        return np.concatenate([hidden, mel, pitch], axis=1).astype(np.float32)

    def _run(self, features: Features, outputs: list[str]) -> list[Array]:
        """Run the network on an even number of feature frames; each output has a leading batch axis of 1."""
        even = len(features.values) // 2 * 2
        result: list[Array] = self._load().run(outputs, {"features": features.values[None, :even]})
        return result

    def _load(self) -> Any:
        if self._session is None:
            import onnxruntime  # late: half a second, and only labelling needs it

            file = find_model(self.path) / "model.onnx"
            weights = file.read_bytes()
            digest = hashlib.sha256(weights).hexdigest()
            if digest != self.card.sha256:
                raise ModelError(
                    f"{file}: sha256 {digest[:12]}, but model.json was written for {self.card.sha256[:12]}. {_HOW_TO_GET}"
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        return self._session


_HOW_TO_GET = (
    f"Take models/{MODEL_NAME} from the source repository and point {MODELS_VARIABLE} at the folder that holds it, "
    f"or train it: python recipes/affect_small.py --data DATA --out models/{MODEL_NAME}"
)


def find_model(path: Path | None = None) -> Path:
    """Find the model folder.

    Args:
        path: the folder itself; None looks in `$UNDERTONE_MODELS`, then in `models/` of the source checkout.

    Raises:
        DependencyError: neither place holds the model; the message says how to get it.
    """
    if path is not None:
        candidates = [Path(path)]
    elif variable := os.environ.get(MODELS_VARIABLE):
        candidates = [Path(variable) / MODEL_NAME]
    else:
        candidates = [Path(__file__).resolve().parents[3] / "models" / MODEL_NAME]
    for folder in candidates:
        if (folder / "model.onnx").is_file():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise DependencyError(f"the weights of '{MODEL_NAME}' are not installed (looked in {looked}). {_HOW_TO_GET}")


def probe_wave() -> Array:
    """Two seconds of a gliding, pulsing buzz: the fixed input whose scores `model.json` keeps to detect a changed model."""
    seconds = np.arange(2 * RATE_HZ) / RATE_HZ
    phase = 2 * np.pi * (140.0 * seconds + 25.0 * seconds**2)
    buzz = sum((np.sin(k * phase) / k for k in range(1, 13)), np.zeros_like(seconds))
    pulses = 0.15 * (0.6 - 0.4 * np.cos(2 * np.pi * 3.0 * seconds))
    wave: Array = (buzz * pulses).astype(np.float32)
    return wave
