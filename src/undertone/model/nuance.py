"""The emotion nuance module of RE-LLM (2602.10716): a frozen emotion encoder whose embeddings stand behind the speech encoder's frames.

Joined where speech is encoded, the frames are only wider: cache, collation and adapters know nothing of it. Where the speech encoder is
trained inside the model, its inputs get rows behind them that hold the embedding (`model.speech_encoder.beside_rows`).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.label.embedding import Embedding, Embeds
from undertone.label.protocol import LABELLERS
from undertone.model.config import NuanceConfig
from undertone.model.encoders import RATE_HZ, Encoder, Frames, HuggingFaceInputs, Windowed, encoded, windows
from undertone.records import content_hash

Samples = npt.NDArray[np.float32]


def with_nuance(encoder: Encoder, nuance: NuanceConfig | None) -> Encoder:
    """The encoder, or its inputs, with the embeddings of an emotion encoder beside what it gives.

    Args:
        encoder: Of `load_encoder`, or of `load_inputs` for a model that has the encoder inside.
        nuance: Which emotion encoder, and what of it; None leaves the encoder as it is.

    Raises:
        ConfigError: There is no labeller of that name, or it has no such configuration.
        DependencyError: Its weights, or what it runs on, are not there.
        ModelError: It has no embeddings, or hears another rate, or they are of another width than expected.
    """
    if nuance is None:
        return encoder
    if isinstance(encoder, HuggingFaceInputs):
        return InputsWithNuance(encoder, EmotionEncoder(nuance))
    if not hasattr(encoder, "stretch"):
        raise ModelError(
            f"nuance cannot be joined to the frames of a {type(encoder).__name__}; expected an encoder of load_encoder"
        )
    speech: Any = encoder
    return FusedEncoder(speech, EmotionEncoder(nuance))


def beside(embedding: Samples, width: int) -> Frames:
    """An embedding as rows of as many numbers, the last filled with zeros."""
    return np.pad(embedding, (0, -len(embedding) % width)).reshape(-1, width)


class EmotionEncoder:
    """A labeller's embeddings, with a width for sounds of any length.

    Attributes:
        config: Which labeller, and what is taken of it.
        width: Numbers in the embedding of an utterance.
        frame_width: Numbers in that of a frame; 0 where `config.frames` is false.
        fingerprint: Of its name, version and weights; the device changes nothing.
    """

    def __init__(self, config: NuanceConfig) -> None:
        """Load the labeller, and let it hear a second of noise to see what it gives."""
        self.config = config
        made: Any = LABELLERS.get(config.encoder, config.config)
        if not isinstance(made, Embeds):
            raise ModelError(
                f"nuance.encoder: labeller {config.encoder!r} has no embeddings; expected affect-small, audeering-dim, audio-classification, "
                "emotion2vec, meralion-ser, or a labeller with a method embed(wave)"
            )
        if made.rate_hz != RATE_HZ:
            raise ModelError(
                f"nuance.encoder: labeller {config.encoder!r} hears {made.rate_hz} Hz, but the speech encoder is given {RATE_HZ} Hz; expected "
                "an emotion encoder of the same rate"
            )
        self._labeller: Embeds = made
        noise = np.random.default_rng(0).normal(scale=0.1, size=RATE_HZ).astype(np.float32)
        probe = made.embed(Wave(noise, RATE_HZ))
        self.width = len(probe.utterance)
        if config.width not in (None, self.width):
            raise ModelError(
                f"nuance.width={config.width}, but an embedding of labeller {config.encoder!r} has {self.width} numbers; set nuance.width to "
                f"{self.width}, or name the emotion encoder that is meant"
            )
        if config.frames and probe.frames is None:
            raise ModelError(
                f"nuance.frames: labeller {config.encoder!r} has no embedding of frames, only of the whole; set nuance.frames to false"
            )
        self.frame_width = probe.frames.shape[1] if config.frames and probe.frames is not None else 0
        self.fingerprint = content_hash(config.encoder, str(made.version), str(made.revision))

    def embed(self, samples: Samples) -> Embedding:
        """Embeddings of a sound; zeros of a sound shorter than the labeller's shortest, about which it can say nothing."""
        wave = Wave(samples, RATE_HZ)
        if not len(samples) or wave.duration_ms < self._labeller.min_ms:
            return Embedding(np.zeros(self.width, np.float32), np.zeros((0, self.frame_width), np.float32))
        made = self._labeller.embed(wave)
        if len(made.utterance) != self.width:
            raise ModelError(
                f"nuance.encoder: labeller {self.config.encoder!r} gave {len(made.utterance)} numbers for {wave.duration_ms} ms, expected "
                f"{self.width} as for all others"
            )
        return made


class FusedEncoder:
    """Frames (T, D + E), or (T, layers, D + E) of tapped layers, each of which the embeddings stand behind.

    In the order of channels: the speech encoder's, the embedding of the whole, the embedding of the frame. The whole is all that the
    speech encoder hears (of a Whisper that truncates, its window), or each window (`NuanceConfig.span`).
    """

    def __init__(self, speech: Windowed, emotion: EmotionEncoder) -> None:
        """Put the two together."""
        self._speech, self._emotion = speech, emotion
        nuance = emotion.config
        if nuance.frames and not speech.in_time:
            raise ModelError(
                f"nuance.frames: the frames of encoder {speech.config.name} are not in the order of time, so that nothing can be joined "
                "to them frame by frame; set nuance.frames to false"
            )
        self.dim = speech.dim + (emotion.width if nuance.utterance else 0) + emotion.frame_width
        options = nuance.model_dump_json(include={"utterance", "frames", "span"})
        self.fingerprint = content_hash("nuance", speech.fingerprint, emotion.fingerprint, options)

    def frames(self, samples: Samples) -> Frames:
        """Frames of both, in the speech encoder's number."""
        nuance, config = self._emotion.config, self._speech.config
        whole = None
        if nuance.utterance and nuance.span == "heard":
            heard = samples if config.long_audio == "chunk" else _within(samples, self._speech.covers_s)
            whole = self._emotion.embed(heard).utterance
        return encoded(samples, functools.partial(self._stretch, whole=whole), config, window_s=self._speech.window_s)

    def _stretch(self, samples: Samples, *, whole: Samples | None) -> Frames:
        speech, nuance = self._speech.stretch(samples), self._emotion.config
        if not len(speech):
            return np.zeros((*speech.shape[:-1], self.dim), np.float32)
        samples = _within(samples, self._speech.covers_s)
        own = self._emotion.embed(samples) if nuance.frames or whole is None else None
        joined = [speech]
        if nuance.utterance:
            said = whole if whole is not None or own is None else own.utterance
            joined.append(np.broadcast_to(np.asarray(said), (*speech.shape[:-1], self._emotion.width)))
        if nuance.frames and own is not None and own.frames is not None:
            seconds = len(samples) / RATE_HZ
            at = resampled(own.frames, len(speech), seconds=seconds, covers_s=self._speech.covers_s or seconds)
            joined.append(np.broadcast_to(at.reshape(len(at), *[1] * (speech.ndim - 2), -1), (*speech.shape[:-1], at.shape[1])))
        return np.concatenate(joined, axis=-1, dtype=np.float32)


class InputsWithNuance:
    """What an encoder inside the model reads, and behind it, in rows of the same width, the embedding of the whole."""

    def __init__(self, inputs: HuggingFaceInputs, emotion: EmotionEncoder) -> None:
        """Put the two together."""
        self._inputs, self._emotion = inputs, emotion
        self.dim = inputs.dim
        self.fingerprint = content_hash("nuance", inputs.fingerprint, emotion.fingerprint)

    def frames(self, samples: Samples) -> Frames:
        """Inputs, then the rows of `beside`; nothing at all where there are no inputs."""
        made = self._inputs.frames(samples)
        if not len(made):
            return made
        heard = samples if self._inputs.config.long_audio == "chunk" else _within(samples, self._inputs.covers_s)
        return np.concatenate([made, beside(self._emotion.embed(heard).utterance, self.dim)], dtype=np.float32)


def resampled(frames: Frames, count: int, *, seconds: float, covers_s: float) -> Frames:
    """Frames at the times of others, by linear interpolation between their middles; zeros where those lie behind the sound.

    Args:
        frames: (T, F), of a sound of `seconds`.
        count: Number of the others, which cover `covers_s`.
        seconds: Length of the sound.
        covers_s: As long or longer, where the others go on over padding.

    Returns:
        (count, F).
    """
    at = (np.arange(count) + 0.5) * covers_s / count
    if not len(frames):
        return np.zeros((count, frames.shape[1]), np.float32)
    place = np.clip(at / seconds * len(frames) - 0.5, 0, len(frames) - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(frames) - 1)
    share = (place - below)[:, None]
    made: Frames = np.where((at < seconds)[:, None], (1 - share) * frames[below] + share * frames[above], 0.0).astype(np.float32)
    return made


def _within(samples: Samples, seconds: float | None) -> Samples:
    return samples if seconds is None else windows(samples, seconds)[0]
