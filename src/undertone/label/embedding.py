"""What a labeller's network has of a voice before it decides: an embedding of all of it, and one per frame.

A labeller that has such embeddings implements `embed` beside `judge`; `model.nuance` joins them to the frames of a speech-LLM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave

Floats = npt.NDArray[np.float32]


class Embedding(NamedTuple):
    """Embeddings of one wave.

    Attributes:
        utterance: Of the whole, shape (E,).
        frames: In the order of time, shape (T, F); frame k of T is of the k-th T-th of the wave. None where the network has no such.
    """

    utterance: Floats
    frames: Floats | None = None


@runtime_checkable
class Embeds(Protocol):
    """A labeller that has embeddings."""

    name: str
    rate_hz: int
    min_ms: int

    @property
    def version(self) -> str:
        """Of the labeller."""
        ...

    @property
    def revision(self) -> str | None:
        """Of its weights."""
        ...

    def embed(self, wave: Wave) -> Embedding:
        """Embed a wave at `rate_hz`, `min_ms` long at least; a wave longer than the network hears at once is embedded piece by piece."""
        ...


def mean_of(frames: Floats) -> Embedding:
    """Frames (T, F) and their mean, which is what a network that pools by averaging has of the whole."""
    return Embedding(frames.mean(axis=0, dtype=np.float32), frames)


def in_pieces(wave: Wave, embed: Callable[[Wave], Embedding], *, longest_ms: int | None) -> Embedding:
    """Embed pieces of equal length, none longer than `longest_ms`: embeddings of the whole are averaged, frames follow one another."""
    count = 1 if longest_ms is None else max(1, -(-wave.duration_ms // longest_ms))
    # Equal pieces: a short last one would weigh as much as the others, or be too short to be heard.
    pieces = [embed(Wave(piece, wave.rate_hz)) for piece in np.array_split(wave.samples, count)]
    frames = [one.frames for one in pieces if one.frames is not None]
    utterance: Floats = np.stack([one.utterance for one in pieces]).mean(axis=0, dtype=np.float32)
    return Embedding(utterance, np.concatenate(frames) if len(frames) == len(pieces) else None)
