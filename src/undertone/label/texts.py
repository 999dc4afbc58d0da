"""The text that a recording came with: its words, their times, and the segments that they belong to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from undertone import audio
from undertone.audio import Wave
from undertone.corpora.plan import spread
from undertone.records import Recording, Segment, Word

Align = Literal["letters", "pocketsphinx"]
Span = tuple[int, int]

NEAR_MS = 1_000
"""A word that lies in no segment belongs to the nearest within this distance; farther away it was said in speech that nobody detected."""

_MAX_ALIGN_MS = 60_000  # longer utterances keep estimated word times: their sound would have to be held


class Texts:
    """The words of a recording's texts; where their times are estimates, they are aligned as the sound streams by, or else spread."""

    def __init__(self, recording: Recording, *, align: Align) -> None:
        self._spoken = [one for one in recording.references if one.words]
        self._estimated = {index for index, one in enumerate(self._spoken) if all(word.confidence is None for word in one.words)}
        self._aligned: dict[int, tuple[Word, ...]] = {}
        self._open: dict[int, list[Wave]] = {}
        if align == "pocketsphinx" and (recording.language or "en").startswith("en"):
            self._open = {index: [] for index in sorted(self._estimated) if self._spoken[index].duration_ms <= _MAX_ALIGN_MS}

    def covers(self, start_ms: int, end_ms: int) -> bool:
        """Whether the text of what is said in a stretch is known, in whole or in part."""
        return any(one.start_ms < end_ms and one.end_ms > start_ms for one in self._spoken)

    def words(self, speech: Sequence[Span]) -> list[Word]:
        """All words in time order.

        Args:
            speech: Where speech was found, in order and without overlap; estimated times are spread over it.
        """
        found: list[Word] = []
        for index, one in enumerate(self._spoken):
            if index in self._aligned:
                found += self._aligned[index]
            elif index in self._estimated:
                found += _spread_over(one, speech)
            else:
                found += one.words
        return sorted(found, key=lambda word: (word.start_ms, word.end_ms))

    def listening(self, chunks: Iterable[Wave]) -> Iterator[Wave]:
        """The same chunks; the sound of an utterance is held until it has been heard to its end and then aligned."""
        at_ms = 0
        for chunk in chunks:
            end_ms = at_ms + chunk.duration_ms
            for index in list(self._open):
                self._catch(index, chunk, at_ms, end_ms)
            at_ms = end_ms
            yield chunk
        for index in list(self._open):
            self._align(index)

    def _catch(self, index: int, chunk: Wave, at_ms: int, end_ms: int) -> None:
        one = self._spoken[index]
        start, end = max(0, one.start_ms - at_ms), min(one.end_ms, end_ms) - at_ms
        if end > start:
            self._open[index].append(chunk.cut(start, end))
        if one.end_ms <= end_ms:
            self._align(index)

    def _align(self, index: int) -> None:
        from undertone.label.sphinx import align  # late: an optional package

        parts = self._open.pop(index)
        one = self._spoken[index]
        words = align(audio.join(parts), " ".join(word.text for word in one.words)) if parts else None
        if words:
            self._aligned[index] = tuple(word.moved(one.start_ms) for word in words)


def nearest(words: Sequence[Word], segments: Sequence[Span]) -> list[int | None]:
    """For each word the segment that it overlaps most (ties to the earlier), else the nearest within a second, else None.

    Args:
        words: In any order.
        segments: In order and without overlap.
    """
    ends = [end for _, end in segments]
    found: list[int | None] = []
    for word in words:
        first = bisect_right(ends, word.start_ms)  # the first that ends after the word begins
        near = [index for index in (first - 1, first, first + 1) if 0 <= index < len(segments)]
        while near and near[-1] + 1 < len(segments) and segments[near[-1] + 1][0] < word.end_ms:
            near.append(near[-1] + 1)
        best = max(
            near, key=lambda index: min(word.end_ms, segments[index][1]) - max(word.start_ms, segments[index][0]), default=None
        )
        # The overlap of what does not overlap is the distance, below zero.
        if best is not None and max(word.start_ms, segments[best][0]) - min(word.end_ms, segments[best][1]) > NEAR_MS:
            best = None
        found.append(best)
    return found


def _spread_over(spoken: Segment, speech: Sequence[Span]) -> list[Word]:
    """The words of an utterance by share of letters over the speech that was found in it; over all of it where none was."""
    inside = [(max(start, spoken.start_ms), min(end, spoken.end_ms)) for start, end in speech]
    pieces = [(start, end) for start, end in inside if end > start] or [(spoken.start_ms, spoken.end_ms)]
    text = " ".join(word.text for word in spoken.words)
    total = sum(end - start for start, end in pieces)
    made = []
    for word in spread(text, 0, total):
        start_ms = _place(pieces, word.start_ms, begins=True)
        end_ms = _place(pieces, word.end_ms, begins=False)
        made.append(word.model_copy(update={"start_ms": start_ms, "end_ms": max(start_ms, end_ms)}))
    return made


def _place(pieces: Sequence[Span], at_ms: int, *, begins: bool) -> int:
    """Where in the recording a moment of the joined pieces lies; at a joint, what begins lies in the later piece."""
    for start, end in pieces:
        length = end - start
        if at_ms < length or (at_ms == length and not begins):
            return start + at_ms
        at_ms -= length
    return pieces[-1][1]
