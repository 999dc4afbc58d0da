"""The nouns: everything that Undertone knows is one of these typed, frozen records.

A recording holds what was recorded and what people said about it. A segment is one stretch of one speaker. A clip is what a
question is about. Pairs, examples, answers and verdicts follow. Times are integer milliseconds from the start of the *recording*
everywhere, valence, arousal and dominance are floats in 0..1 and stand in that order.

Each record class is also an Arrow schema (`arrow_schema`), so that a table is nothing but a list of records. `id` is derived from
the content and written as the first column of the table; it is checked when a row is read back.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from undertone.errors import DataError

HUMAN = "human"
"""The `labeller` of a label that a person gave (or, for synthetic speech, that the synthesiser was told)."""

Emotion = Literal["angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown"]
EMOTIONS: tuple[Emotion, ...] = get_args(Emotion)
DIMENSIONS = ("valence", "arousal", "dominance")
Split = Literal["train", "dev", "test"]

Kind = Literal["ASR", "C", "DE", "DG", "DS", "CE", "CG", "CS", "OPEN", "REPLY"]
"""What a question asks: transcription; content; direct emotion, gender, speaker count; the same three in context; anything that an
instruction asks for (DeSTA2); a reply to the speaker, who is heard and not asked about (BLSP-Emo, RE-LLM)."""

UnscoredReason = Literal["unreadable", "refused", "timed_out", "no_reference", "no_label"]
Unanswered = Literal["refused", "timed_out"]


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields, one Arrow schema per class."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    volatile: ClassVar[frozenset[str]] = frozenset()
    """Fields that differ between two equal runs (times, absolute paths); left out of a table's digest."""

    grown: ClassVar[frozenset[str]] = frozenset()
    """Fields with a default that came after tables had been written; a table without such a column is read all the same."""

    @property
    def id(self) -> str:
        """The record's key: a function of its content."""
        raise NotImplementedError(f"{type(self).__name__} has no key of its own")


R = TypeVar("R", bound=Record)


class Word(Record):
    """One spoken word, when it was spoken, and how it sounds: the labels of the window that it falls in (`Segment.with_labels`).

    `confidence` is that of an aligner, a recogniser or (1.0) a synthesiser; None for times that are only an estimate.
    """

    text: str
    start_ms: int = Field(ge=0)
    end_ms: int = Field(ge=0)
    confidence: float | None = None
    emotion: str | None = None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    gender: str | None = None
    events: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end_ms < self.start_ms:
            raise ValueError(f"a word ends before it starts; got {self.text!r} at {self.start_ms}-{self.end_ms} ms")
        return self

    def moved(self, by_ms: int) -> Word:
        """The same word, so much later (or earlier)."""
        return self.model_copy(update={"start_ms": self.start_ms + by_ms, "end_ms": self.end_ms + by_ms})


class Label(Record):
    """One judgement about a span of speech by one labeller, or its abstention with a reason.

    Exactly one of `category` (emotion, gender, event, ...) and `number` (valence, F0 in Hz, ...) is set, or neither and `reason` says
    why the labeller abstained. `distribution` keeps the raw scores, so that a decision can be taken again later. `labeller` is "name@version",
    `revision` the exact weights where it has any.
    """

    attribute: str
    category: str | None = None
    number: float | None = None
    distribution: dict[str, float] | None = None
    start_ms: int = Field(ge=0)
    end_ms: int = Field(ge=0)
    labeller: str
    revision: str | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if [self.category is None, self.number is None, self.reason is None].count(False) != 1:
            raise ValueError("a label has exactly one of category, number and (for an abstention) reason")
        if self.end_ms < self.start_ms:
            raise ValueError(f"a label ends before it starts; got {self.attribute} at {self.start_ms}-{self.end_ms} ms")
        return self


class Segment(Record):
    """One stretch of one recording by one speaker."""

    recording_id: str
    start_ms: int = Field(ge=0)
    end_ms: int = Field(ge=0)
    speaker: str | None = None
    transcript: str | None = None
    words: tuple[Word, ...] = ()
    labels: tuple[Label, ...] = ()

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end_ms <= self.start_ms:
            raise ValueError(f"a segment ends after it starts; got {self.start_ms}-{self.end_ms} ms")
        return self

    @property
    def id(self) -> str:
        return f"{self.recording_id}@{self.start_ms}-{self.end_ms}"

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms

    def with_labels(self, labels: Iterable[Label]) -> Segment:
        """The segment with these labels in place of its own; its words inherit them anew (`inherited`)."""
        made = self.model_copy(update={"labels": tuple(labels)})
        by_attribute = {name: _in_time(one for one in made.labels if one.attribute == name) for name in _OF_A_WORD}
        events = made.of("event")
        words = []
        for word in self.words:
            sound: dict[str, Any] = {}
            for name, found in by_attribute.items():
                label = inherited(word, found)
                sound[name] = None if label is None else label.number if name in DIMENSIONS else label.category
            names = (one.category for one in events if one.category and _holds(one, word))
            words.append(word.model_copy(update={**sound, "events": tuple(dict.fromkeys(names))}))
        return made.model_copy(update={"words": tuple(words)})

    def of(self, attribute: str) -> tuple[Label, ...]:
        """The labels of one attribute that carry a value, in time order."""
        return _in_time(one for one in self.labels if one.attribute == attribute and one.reason is None)

    def category(self, attribute: str) -> str | None:
        """The segment's category for an attribute: the one that fills most of its time, ties to the earlier; None without one."""
        shares = category_shares([self], attribute)
        return max(shares, key=lambda name: shares[name]) if shares else None

    def number(self, attribute: str) -> float | None:
        """The segment's value for a numeric attribute: the mean over its labels weighted by their duration; None without one."""
        found = [(one.number, max(1, one.end_ms - one.start_ms)) for one in self.of(attribute) if one.number is not None]
        total = sum(weight for _, weight in found)
        return sum(value * weight for value, weight in found) / total if found else None


_OF_A_WORD = ("emotion", *DIMENSIONS, "gender")


def _in_time(labels: Iterable[Label]) -> tuple[Label, ...]:
    return tuple(sorted(labels, key=lambda one: (one.start_ms, one.end_ms, one.labeller)))


def inherited(word: Word, labels: Sequence[Label]) -> Label | None:
    """The label of the window that a word overlaps most; of two that it overlaps equally, the earlier; None where it overlaps none.

    Args:
        word: A word; one of no length counts as one millisecond.
        labels: All labels of one attribute in time order, abstentions too: a word in a window that nobody judged has no label,
            rather than its neighbour's.
    """
    end_ms = max(word.end_ms, word.start_ms + 1)
    best: Label | None = None
    best_ms = 0
    for one in labels:
        overlap_ms = min(end_ms, one.end_ms) - max(word.start_ms, one.start_ms)
        if overlap_ms > best_ms:
            best, best_ms = one, overlap_ms
    return best


def _holds(event: Label, word: Word) -> bool:
    """Whether most of a word lies inside an event; of a word that lies half in it, the beginning."""
    length_ms = max(1, word.end_ms - word.start_ms)
    overlap_ms = min(word.start_ms + length_ms, event.end_ms) - max(word.start_ms, event.start_ms)
    return 2 * overlap_ms > length_ms or (2 * overlap_ms == length_ms and event.start_ms <= word.start_ms)


def category_shares(segments: Iterable[Segment], attribute: str) -> dict[str, float]:
    """Share of the labelled time that each category of an attribute fills, in order of appearance; empty where nothing is labelled.

    A label without extent counts as 1 ms.
    """
    held: dict[str, int] = {}
    for label in (label for segment in segments for label in segment.of(attribute)):
        if label.category is not None:
            held[label.category] = held.get(label.category, 0) + max(1, label.end_ms - label.start_ms)
    total = sum(held.values())
    return {name: length / total for name, length in held.items()}


class Recording(Record):
    """One audio file, and what people have said about it (`references`; empty for raw speech).

    The key is the content: the same file in two folders is the same recording. `speakers` of its references, qualified by the
    corpus ("ravdess/rav01"), decide the split.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"uri"})

    uri: str
    sha256: str = Field(min_length=64, max_length=64)
    rate_hz: int = Field(gt=0)
    samples: int = Field(gt=0)
    channels: int = Field(default=1, gt=0)
    source: str
    language: str | None = None
    licence: str | None = None
    split: Split | None = None
    references: tuple[Segment, ...] = ()

    @property
    def id(self) -> str:
        return self.sha256[:16]

    @property
    def duration_ms(self) -> int:
        return self.samples * 1000 // self.rate_hz

    @property
    def speakers(self) -> tuple[str, ...]:
        """The known speakers, sorted."""
        return tuple(sorted({one.speaker for one in self.references if one.speaker}))


class Clip(Record):
    """What a question is about: consecutive segments of one recording. Audio is `uri` from `start_ms` to `end_ms`."""

    volatile: ClassVar[frozenset[str]] = frozenset({"uri"})

    recording_id: str
    uri: str
    source: str
    language: str | None = None
    licence: str | None = None
    split: Split | None = None
    start_ms: int = Field(ge=0)
    end_ms: int = Field(ge=0)
    segments: tuple[Segment, ...]

    @property
    def id(self) -> str:
        return f"{self.recording_id}@{self.start_ms}-{self.end_ms}"

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms

    @property
    def transcript(self) -> str:
        """What is said in the clip, segment by segment."""
        return " ".join(one.transcript for one in self.segments if one.transcript)


class Turn(Record):
    """What the user asked or said before, and its answer.

    `clip_id` is the clip in which the user spoke this turn, where each turn of a dialogue was spoken by itself; None where all turns are
    about one clip.
    """

    question: str
    answer: str = Field(min_length=1)
    clip_id: str | None = None

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not self.question and self.clip_id is None:
            raise ValueError("a turn without a question is spoken in a clip; got no clip_id")
        return self


class QAPair(Record):
    """A question about a clip, its answer, and how both came about.

    `label` is the deterministic answer where there is one ("sad" for a DE question, "female" for DG), `label_attribute` what it is a
    value of. The question of a reply (kind REPLY) may be empty: the speech is all that is given. `history` are the turns before it in a
    dialogue. `evidence` is the text that the generator saw, `raw` what it replied, `model` the LLM that wrote it. `checks` are those that the
    pair passed, `flags` those that it did not pass but stays for, to be reported apart.
    """

    clip_id: str
    recording_id: str
    split: Split | None = None
    source: str
    kind: Kind
    question: str
    answer: str = Field(min_length=1)
    label_attribute: str | None = None
    label: str | None = None
    history: tuple[Turn, ...] = ()
    evidence: str | None = None
    generator: str
    model: str | None = None
    prompt_digest: str | None = None
    raw: str | None = None
    checks: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not self.question and self.kind != "REPLY":
            raise ValueError(f"a pair of kind {self.kind} has a question; got an empty one, which is for REPLY alone")
        return self

    @property
    def id(self) -> str:
        before = [text for turn in self.history for text in (turn.question, turn.answer, turn.clip_id) if text is not None]
        return content_hash(self.source, self.clip_id, self.kind, *before, self.question, self.answer)

    @property
    def clips(self) -> tuple[str, ...]:
        """The clips that the user speaks in, in their order; the last is the one that it is about."""
        return (*(turn.clip_id for turn in self.history if turn.clip_id is not None), self.clip_id)


class Example(Record):
    """One training or test item of one arm: what the model is shown besides the audio, and what it should say.

    `prompt` is the whole text as the model reads it, metadata included; `metadata` repeats the metadata part alone (None where the arm
    shows none). `earlier` are the clips that it hears before `clip_id`, those of the earlier turns of a spoken dialogue. `teacher` is what
    a teacher that does not hear reads in place of `prompt`, by what it is told ("emotion", "nothing"). `category` and `dimensions` (by
    name, 0..1) are what heads beside the decoder learn.
    """

    grown: ClassVar[frozenset[str]] = frozenset({"earlier", "teacher", "category", "dimensions"})

    arm: str
    pair_id: str
    clip_id: str
    source: str
    kind: Kind
    metadata: str | None = None
    prompt: str
    target: str
    earlier: tuple[str, ...] = ()
    teacher: dict[str, str] | None = None
    category: str | None = None
    dimensions: dict[str, float] | None = None

    @property
    def id(self) -> str:
        return f"{self.pair_id}:{self.arm}"

    @property
    def content(self) -> tuple[str, ...]:
        """All that training sees of it, as texts; what is not there adds none."""
        held: list[str] = [self.id, self.prompt, self.target, *self.earlier]
        for name, mapping in (("teacher", self.teacher), ("dimensions", self.dimensions)):
            held += [f"{name}:{key}={value}" for key, value in sorted((mapping or {}).items())]
        return (*held, *([f"category={self.category}"] if self.category is not None else []))


class Answer(Record):
    """What a subject (a model under test or a control) answered.

    `unanswered` says why there is no answer where a server declined or said nothing in time; `text` is then empty, and every judge has that
    reason in place of a score, so that all tables count it as what it is.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})
    grown: ClassVar[frozenset[str]] = frozenset({"unanswered"})

    subject: str
    pair_id: str
    text: str
    raw: str
    seconds: float | None = None
    unanswered: Unanswered | None = None

    @model_validator(mode="after")
    def _text_or_reason(self) -> Self:
        if self.unanswered is not None and self.text:
            raise ValueError(f"an answer that is none ({self.unanswered}) has no text, got {self.text!r}")
        return self

    @property
    def id(self) -> str:
        return f"{self.subject}:{self.pair_id}"


class Verdict(Record):
    """One judge's score of one answer in one run: 0..100, or a typed reason why there is none. Never 0 for "could not tell".

    `mapped_label` is the class that the answer was read as, where the pair has a deterministic label.
    """

    judge: str
    subject: str
    pair_id: str
    run: int = Field(default=0, ge=0)
    score: float | None = Field(default=None, ge=0, le=100)
    unscored: UnscoredReason | None = None
    mapped_label: str | None = None
    raw: str | None = None

    @model_validator(mode="after")
    def _score_or_reason(self) -> Self:
        if (self.score is None) == (self.unscored is None):
            raise ValueError("a verdict has either a score or a reason why it is unscored")
        return self

    @property
    def id(self) -> str:
        return f"{self.judge}:{self.subject}:{self.pair_id}:{self.run}"


class Loss(Record):
    """A row that did not make it: dropped by a rule (`reason`) or failed with an error (`error`)."""

    row_id: str
    stage: str
    reason: str
    detail: str | None = None

    @property
    def id(self) -> str:
        return self.row_id


def content_hash(*parts: str) -> str:
    """16 hex digits of sha256 over the parts, unambiguous where one ends and the next begins.

    >>> content_hash("ab", "c") == content_hash("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(f"{len(raw)}:".encode() + raw)
    return digest.hexdigest()[:16]


# ---- records as Arrow ----------------------------------------------------------------------------------------------------------

_PLAIN: dict[type, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """The Arrow type of a field annotation, and whether it may be null."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _arrow_type(args[0])
    if origin in (Union, types.UnionType):
        inner = [one for one in args if one is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"a record field is one type or None, got {annotation}")
        return _arrow_type(inner[0])[0], True
    if origin is Literal:
        return _PLAIN[type(args[0])], False
    if origin is tuple and args[1:] == (Ellipsis,):
        return pa.list_(_arrow_type(args[0])[0]), False
    if origin is dict:
        return pa.map_(_arrow_type(args[0])[0], _arrow_type(args[1])[0]), False
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return pa.struct(_fields(annotation)), False
    if annotation in _PLAIN:
        return _PLAIN[annotation], False
    raise TypeError(f"no Arrow type for a record field of type {annotation}")


def _fields(record: type[Record]) -> list[pa.Field]:
    made = []
    for name, info in record.model_fields.items():
        kind, nullable = _arrow_type(info.annotation)
        made.append(pa.field(name, kind, nullable=nullable))
    return made


@functools.cache
def arrow_schema(record: type[Record]) -> pa.Schema:
    """The Arrow schema of a record class: `id` first, then its fields in order of definition."""
    return pa.schema([pa.field("id", pa.string(), nullable=False), *_fields(record)])


def to_arrow(rows: Sequence[Record], record: type[Record]) -> pa.Table:
    """A table of records, `id` column included.

    Args:
        rows: Records, all of class `record`.
        record: The class, needed for an empty table.
    """
    return pa.Table.from_pylist([{"id": row.id, **row.model_dump()} for row in rows], schema=arrow_schema(record))


def from_arrow(table: pa.Table, record: type[R]) -> list[R]:
    """The records of a table; raises DataError that names the row where one does not validate or its id is not its content's."""
    return list(iter_arrow(table, record))


_AT_ONCE = 32


def iter_arrow(table: pa.Table, record: type[R]) -> Iterator[R]:
    """Like `from_arrow`, one at a time."""
    missing = [name for name in arrow_schema(record).names if name not in table.column_names and name not in record.grown]
    if missing:
        raise DataError(
            f"this table is not a {record.__name__} table: missing columns {', '.join(missing)}; it has {', '.join(table.column_names)}"
        )
    # A few at a time: a whole part at once would be in memory twice, and keep a caller who asks for one row waiting for all.
    some = (table.slice(start, _AT_ONCE) for start in range(0, len(table), _AT_ONCE))
    for index, row in enumerate(row for piece in some for row in piece.to_pylist(maps_as_pydicts="strict")):
        key = row.pop("id")
        try:
            made = record.model_validate(row)
        except ValidationError as error:
            raise DataError(f"row {index} ({key}) is not a valid {record.__name__}: {error}") from error
        if made.id != key:
            raise DataError(
                f"row {index} of a {record.__name__} table has id {key}, but its content gives {made.id}: edited by hand?"
            )
        yield made
