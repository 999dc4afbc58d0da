"""`affect-small`: emotion, valence/arousal/dominance, gender and vocal events from a voice, through onnxruntime, without torch.

The network is trained by `recipes/affect_small`; what it heard, under which licences and how well it does on
speakers it never heard is in `models/affect-small/README.md`, and the same numbers are in `model.json` beside it.
It is also the frozen frame encoder of the toy speech-LLM (`AffectSmall.frames`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from undertone.errors import DependencyError, ModelError
from undertone.label.embedding import Embedding
from undertone.label.features import HOP_SAMPLES, MELS, RATE_HZ, Features, functionals, log_mel

MODEL_NAME = "affect-small"
MODELS_VARIABLE = "UNDERTONE_MODELS"
MIN_SECONDS = 0.3
SILENCE_DB = -70.0  # the quietest ravdess clip speaks at about -60 dB re full scale
# Share of samples at the peak (99.9 % of it) above which a wave counts as clipped. Clean speech has under 0.01 %, a pure tone
# 2.8 %; speech driven 12-18 dB into the limit reaches 10 %, and by then the top of every syllable is flat.
CLIPPED_SHARE = 0.10
NO_VOICE_EVENTS = ("music", "noise")
FRAME_RATE_HZ = 50
HIDDEN = 128
FRAME_DIM = HIDDEN + 2 * MELS + 4
EMBEDDING_DIM = 2 * HIDDEN + 7 + 3
_STRIDE = 4  # feature rows per frame of the trunk (25 per second)

Array = npt.NDArray[np.float32]
Reason = Literal["too_short", "silence", "clipped", "no_voice"]


@dataclasses.dataclass(frozen=True)
class AffectScores:
    """What one stretch of voice sounds like.

    Attributes:
        emotion: probability per emotion (angry, disgusted, fearful, happy, neutral, sad, surprised); sums to 1.
        valence: 0 (unpleasant) to 1 (pleasant).
        arousal: 0 (calm) to 1 (excited).
        dominance: 0 (submissive) to 1 (in control).
        gender: probability of female and male; sums to 1.
        event: probability per vocal event, "speech" among them (`ModelCard.events`); sums to 1.
    """

    emotion: dict[str, float]
    valence: float
    arousal: float
    dominance: float
    gender: dict[str, float]
    event: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Abstained:
    """Why a stretch got no scores.

    Attributes:
        reason: "too_short" (below 0.3 s), "silence", "clipped" (a tenth of the samples sits at the peak), or "no_voice"
            (music or noise is what was heard).
        event: probability per event where the network ran (for "no_voice"), else None.
    """

    reason: Reason
    event: dict[str, float] | None = None


class ModelCard(pydantic.BaseModel):
    """The part of `model.json` that inference reads; the rest of that file is for people."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")

    name: str
    version: str
    licence: str
    sha256: str
    emotions: tuple[str, ...]
    genders: tuple[str, ...]
    events: tuple[str, ...]
    no_voice_above: float
    heard_speakers: frozenset[str]


class AffectSmall:
    """Hears emotion, V/A/D, gender and vocal events; loads its few MB of weights at the first use.

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

    def score(self, samples: npt.NDArray[np.floating]) -> AffectScores | Abstained:
        """Score one stretch of voice, best 1-6 s long.

        Args:
            samples: float mono waveform at 16 kHz in -1..1, shape (n,).

        Returns:
            The scores, or why there are none: below 0.3 s, silence, hard clipping, music or noise instead of a voice.

        Raises:
            AudioError: the samples are not one-dimensional or not finite.
            DependencyError: the model is not installed.
        """
        features = log_mel(samples)
        if len(features.values) * HOP_SAMPLES < MIN_SECONDS * RATE_HZ:
            return Abstained("too_short")
        if features.speech_level_db < SILENCE_DB:
            return Abstained("silence")
        if clipped_share(samples) > CLIPPED_SHARE:
            return Abstained("clipped")
        emotion, vad, gender, event = (row[0] for row in self._run(features, ["emotion", "vad", "gender", "event"]))
        heard = _named(self.card.events, event)
        if sum(heard[name] for name in NO_VOICE_EVENTS) > self.card.no_voice_above:
            return Abstained("no_voice", heard)
        valence, arousal, dominance = (float(x) for x in vad)
        return AffectScores(
            emotion=_named(self.card.emotions, emotion),
            valence=valence,
            arousal=arousal,
            dominance=dominance,
            gender=_named(self.card.genders, gender),
            event=heard,
        )

    def score_many(self, samples: Sequence[npt.NDArray[np.floating]]) -> list[AffectScores | Abstained]:
        """Score several stretches; each result is bit for bit what `score` gives.

        They run one after another: in a batch of more than one, onnxruntime adds in another order and the last bits of a
        result would depend on what else is in the batch.
        """
        return [self.score(one) for one in samples]

    def frames(self, samples: npt.NDArray[np.floating]) -> Array:
        """Encode voice frame by frame for a speech-LLM: how it is said beside what is said.

        Columns 0..127 are the trunk's hidden state (affect; standardised, context about one second; 25 per second, each
        given twice, and a function of the whole stretch, whose mean spectrum is taken off), 128..255 two
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
        hidden = np.repeat(self._run(features, ["hidden"])[0][0], 2, axis=0)[:count]
        return np.concatenate([hidden, mel, pitch], axis=1).astype(np.float32)

    def embed(self, samples: npt.NDArray[np.floating]) -> Embedding:
        """Embed voice as a whole and frame by frame (the emotion encoder of `model.nuance` where nothing else is installed).

        Args:
            samples: float mono waveform at 16 kHz, shape (n,), 0.3 s at least. Silence is embedded like anything else.

        Returns:
            Of the whole, shape (266,): mean and standard deviation over time of the trunk's hidden state, then what the network makes
            of it with its other members: the probabilities of seven emotions, valence, arousal and dominance. Of frames, shape
            (n / 640 rounded up, 128): the hidden state, 25 per second.
        """
        features = log_mel(samples)
        emotion, vad, hidden = (row[0] for row in self._run(features, ["emotion", "vad", "hidden"]))
        hidden = hidden[: -(-len(features.values) // _STRIDE)]
        return Embedding(np.concatenate([hidden.mean(0), hidden.std(0), emotion, vad]).astype(np.float32), hidden)

    def _run(self, features: Features, outputs: list[str]) -> list[Array]:
        """Run the network; each output has a leading batch axis of 1. The last rows are repeated up to a multiple of four."""
        rows = features.values
        missing = -len(rows) % _STRIDE
        padded = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
        result: list[Array] = self._load().run(outputs, {"features": padded[None], "functionals": functionals(rows)[None]})
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
    f"or train it: python recipes/affect_small --data DATA --out models/{MODEL_NAME}"
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


def clipped_share(samples: npt.NDArray[np.floating]) -> float:
    """Share of the samples that sit at the peak: within 0.1 % of the largest magnitude; 0 for silence."""
    size = np.abs(np.asarray(samples, dtype=np.float32))
    peak = float(size.max(initial=0.0))
    return float(np.mean(size >= 0.999 * peak)) if peak > 0 else 0.0


def _named(names: tuple[str, ...], values: Array) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def probe_wave() -> Array:
    """Two seconds of a gliding, pulsing buzz: the fixed input whose scores `model.json` keeps to detect a changed model."""
    seconds = np.arange(2 * RATE_HZ) / RATE_HZ
    phase = 2 * np.pi * (140.0 * seconds + 25.0 * seconds**2)
    buzz = sum((np.sin(k * phase) / k for k in range(1, 13)), np.zeros_like(seconds))
    pulses = 0.15 * (0.6 - 0.4 * np.cos(2 * np.pi * 3.0 * seconds))
    wave: Array = (buzz * pulses).astype(np.float32)
    return wave
