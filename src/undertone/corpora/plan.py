"""What a corpus is before any audio is touched: a list of planned recordings, each with all that is needed to read or render it."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import DataError
from undertone.records import HUMAN, Label, Record, Segment, Split, Word, content_hash


class Planned(Record):
    """One recording to read (`file`) or to render (`assembled`, `demo`); `spec` is the reader's own JSON.

    `stamp` tells the state of the files that it is made from, so that a changed file is noticed; None where there are none.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"stamp"})

    corpus: str
    key: str
    reader: Literal["file", "assembled", "demo"]
    spec: str
    split: Split | None = None
    language: str | None = None
    licence: str | None = None
    stamp: str | None = None

    @property
    def id(self) -> str:
        return content_hash(self.corpus, self.key, self.reader, self.spec, self.split or "")


class Spoken(BaseModel):
    """What the manifest says about one utterance. `start_ms` and `end_ms` are None where it fills its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speaker: str | None = None
    text: str | None = None
    emotion: str | None = None
    gender: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None

    def segment(self, recording_id: str, start_ms: int, end_ms: int, *, words: Sequence[Word] | None = None) -> Segment:
        """The reference segment at a place in a recording; words are spread over the place where their times are not known."""
        given = {"emotion": self.emotion, "gender": self.gender}
        labels = tuple(
            Label(attribute=name, category=value, start_ms=start_ms, end_ms=end_ms, labeller=HUMAN)
            for name, value in given.items()
            if value
        )
        placed = tuple(words) if words is not None else spread(self.text or "", start_ms, end_ms)
        return Segment(
            recording_id=recording_id,
            start_ms=start_ms,
            end_ms=end_ms,
            speaker=self.speaker,
            transcript=self.text or None,
            words=placed,
            labels=labels,
        )


class SplitRule(BaseModel):
    """Which speakers are held out. Named speakers first; then a share of the rest, drawn by a hash of the speaker's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_speakers: tuple[str, ...] = ()
    dev_speakers: tuple[str, ...] = ()
    test_share: float = Field(default=0.0, ge=0, lt=1)

    def of(self, speaker: str | None) -> Split:
        """The split of a speaker (given without the corpus' name); an unknown speaker trains."""
        if speaker is None:
            return "train"
        if speaker in self.test_speakers:
            return "test"
        if speaker in self.dev_speakers:
            return "dev"
        drawn = int(hashlib.sha256(speaker.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        return "test" if drawn < self.test_share else "train"

    def check(self, known: Iterable[str]) -> None:
        """Raise DataError where a held-out speaker is not in the corpus: a typing error would put them into training unseen."""
        absent = sorted({*self.test_speakers, *self.dev_speakers} - set(known))
        if absent:
            raise DataError(
                f"held-out speakers {', '.join(absent)} are not in the corpus; its speakers are {', '.join(sorted(set(known))[:30])}"
            )


def spread(text: str, start_ms: int, end_ms: int) -> tuple[Word, ...]:
    """Word times by share of letters between two bounds, for text that came without times.

    An estimate with an error of about a word; no confidence is claimed (`confidence` is None). Forced alignment replaces it where it
    is at hand.

    >>> [(word.text, word.start_ms, word.end_ms) for word in spread("so it is", 1000, 1900)]
    [('so', 1000, 1300), ('it', 1300, 1600), ('is', 1600, 1900)]
    """
    tokens = text.split()
    if not tokens or end_ms <= start_ms:
        return ()
    weights = [len(token) + 1 for token in tokens]
    total, passed, placed = sum(weights), 0, []
    for token, weight in zip(tokens, weights, strict=True):
        begin = start_ms + (end_ms - start_ms) * passed // total
        passed += weight
        placed.append(Word(text=token, start_ms=begin, end_ms=start_ms + (end_ms - start_ms) * passed // total))
    return tuple(placed)


def speakers_on_both_sides(splits: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Speakers that stand in more than one split, and in which.

    >>> speakers_on_both_sides({"train": ["a", "b"], "test": ["b"]})
    {'b': ('test', 'train')}

    Args:
        splits: Speakers by split.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    for split, speakers in splits.items():
        for speaker in speakers:
            seen[speaker].add(split)
    return {speaker: tuple(sorted(where)) for speaker, where in sorted(seen.items()) if len(where) > 1}


def rng_of(*parts: object) -> random.Random:
    """A random generator that is a function of its arguments alone, on every platform and Python."""
    return random.Random(content_hash(*(str(part) for part in parts)))


def stamp_of(path: Path) -> str | None:
    """Size and time of change of a file, which differ after it was replaced; None where it cannot be found."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a name from a manifest that no file can have
        return None
    return f"{found.st_size}-{found.st_mtime_ns}"


def as_split(value: str, where: str) -> Split:
    """A split's name from a manifest."""
    if value not in ("train", "dev", "test"):
        raise DataError(f"{where}: split is {value!r}, expected train, dev or test")
    return cast(Split, value)
