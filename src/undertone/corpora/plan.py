"""What a corpus is before any audio is touched: a list of planned recordings, each with all that is needed to read or render it."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.errors import DataError
from undertone.paths import Location, Remote, Stat
from undertone.records import DIMENSIONS, EMOTIONS, HUMAN, Label, Loss, Record, Segment, Split, Word, content_hash

Unit = Annotated[float, Field(ge=0, le=1)]
"""A value on our scale of valence, arousal and dominance."""


class Planned(Record):
    """One recording to read (`file`) or to render (`assembled`, `demo`); `spec` is the reader's own JSON.

    `stamp` tells the state of the files that it is made from, so that a changed file is noticed; None where there are none.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"stamp"})

    corpus: str
    key: str
    reader: Literal["file", "assembled", "demo", "packed"]
    spec: str
    split: Split | None = None
    language: str | None = None
    licence: str | None = None
    stamp: str | None = None

    @property
    def id(self) -> str:
        return content_hash(self.corpus, self.key, self.reader, self.spec, self.split or "")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a corpus will be read as: `rows`, what of it is left out and why (`dropped`), and both in one line (`note`; may be empty)."""

    rows: list[Planned]
    dropped: tuple[Loss, ...] = ()
    note: str = ""


class Spoken(BaseModel):
    """What the corpus says about one utterance. `start_ms` and `end_ms` are None where it fills its file.

    `emotion_votes` are the shares that several raters gave to our emotions and sum to 1; `emotion` is the corpus' own verdict, which need
    not be the greatest share (an actor's intention is not what listeners hear). `valence`, `arousal` and `dominance` are in 0..1 whatever
    the corpus' scale, `age` is in years. `words` are times of a forced alignment, from the start of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    speaker: str | None = None
    text: str | None = None
    emotion: str | None = None
    gender: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    emotion_votes: dict[str, Unit] | None = None
    valence: Unit | None = None
    arousal: Unit | None = None
    dominance: Unit | None = None
    age: float | None = Field(default=None, gt=0, lt=130)
    intensity: str | None = None
    words: tuple[Word, ...] = ()

    @model_validator(mode="after")
    def _votes_are_shares_for_a_verdict(self) -> Self:
        if self.emotion_votes is None:
            return self
        strange = sorted(set(self.emotion_votes) - set(EMOTIONS))
        if strange or abs(sum(self.emotion_votes.values()) - 1) > 1e-6:
            raise ValueError(f"emotion_votes: got {self.emotion_votes}, expected shares of {', '.join(EMOTIONS)} that sum to 1")
        if self.emotion is None:
            raise ValueError('emotion_votes stand without an emotion; give "unknown" where the raters found none')
        return self

    def segment(
        self, recording_id: str, start_ms: int, end_ms: int, *, words: Sequence[Word] | None = None, origin_ms: int = 0
    ) -> Segment:
        """The reference segment at a place in a recording.

        Args:
            recording_id: Of the recording.
            start_ms: Where the utterance begins in it.
            end_ms: Where it ends.
            words: Its words with times; None for its own (`words` of the corpus' alignment), or, where it has none, for the words of
                the text spread over the place.
            origin_ms: Where the utterance's file begins in the recording, for utterances that are put into a longer one.
        """
        if words is None:
            words = [_moved(one, origin_ms, start_ms, end_ms) for one in self.words] or spread(self.text or "", start_ms, end_ms)
        return Segment(
            recording_id=recording_id,
            start_ms=start_ms,
            end_ms=end_ms,
            speaker=self.speaker,
            transcript=self.text or None,
            words=tuple(words),
            labels=self._labels(start_ms, end_ms),
        )

    def _labels(self, start_ms: int, end_ms: int) -> tuple[Label, ...]:
        categories = {"emotion": self.emotion, "gender": self.gender, "intensity": self.intensity}
        numbers = {**{name: getattr(self, name) for name in DIMENSIONS}, "age": self.age}
        votes = {"emotion": self.emotion_votes}
        return (
            *(
                Label(
                    attribute=name, category=value, distribution=votes.get(name), start_ms=start_ms, end_ms=end_ms, labeller=HUMAN
                )
                for name, value in categories.items()
                if value
            ),
            *(
                Label(attribute=name, number=value, start_ms=start_ms, end_ms=end_ms, labeller=HUMAN)
                for name, value in numbers.items()
                if value is not None
            ),
        )


def _moved(word: Word, by_ms: int, start_ms: int, end_ms: int) -> Word:
    """The word later by so much, kept between two bounds (an aligner's last frame may end after the file).

    An alignment that came with the corpus is taken at its word (`confidence` 1): None would say that the times are an estimate.
    """
    begin, end = (min(max(at + by_ms, start_ms), end_ms) for at in (word.start_ms, word.end_ms))
    return word.model_copy(
        update={"start_ms": begin, "end_ms": end, "confidence": 1.0 if word.confidence is None else word.confidence}
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


def stamp_of(file: Location) -> str | None:
    """Size and time of change of a file, which differ after it was replaced; None where it cannot be found."""
    return stamps_of([file])[0]


def stamps_of(files: Sequence[Location]) -> list[str | None]:
    """`stamp_of` of many files; where several lie in one folder of an object store, it is listed instead of asked for each."""
    shared = Counter(one.parent for one in files if isinstance(one, Remote))
    listed = {folder: folder.stats() for folder, count in shared.items() if count > 1 and isinstance(folder, Remote)}
    stamps: list[str | None] = []
    for one in files:
        try:
            stat: Stat | os.stat_result = listed[one.parent][one.name] if one.parent in listed else one.stat()
            stamps.append(f"{stat.st_size}-{stat.st_mtime_ns}")
        except (OSError, KeyError, ValueError):  # ValueError: a name from a manifest that no file can have
            stamps.append(None)
    return stamps


def as_split(value: str, where: str) -> Split:
    """A split's name from a manifest."""
    if value not in ("train", "dev", "test"):
        raise DataError(f"{where}: split is {value!r}, expected train, dev or test")
    return cast(Split, value)
