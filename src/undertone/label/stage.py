"""The label stage: recordings in, segments with what every labeller said out; each recording is decoded once.

Nothing is decided here. The segments of `label/raw` hold the raw labels of all labellers, in the models' own words and with their
names, versions and revisions; `label.decide` makes `label/` of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from undertone import audio
from undertone.audio import Wave
from undertone.corpora.plan import spread
from undertone.errors import ConfigError
from undertone.label import vad as speech
from undertone.label.hub import needs
from undertone.label.protocol import LABELLERS, Asked, Heard, Labeller, Transcript
from undertone.label.texts import Texts, nearest
from undertone.records import HUMAN, Label, Recording, Segment, Word
from undertone.stages import NOT_THE_ROWS_FAULT, Context, Dropped, Failed, Kept, Outcome, Stage

RATE_HZ = 16_000


class Windows(BaseModel):
    """Windows over a segment and the context that each is heard in (2505.13338: 2 s with 1 s on each side)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length_ms: int = Field(default=2_000, ge=100)
    context_ms: int = Field(default=1_000, ge=0)

    def over(self, total_ms: int) -> list[tuple[int, int]]:
        """Windows without gaps over a duration; a remainder shorter than half a window joins the last one.

        >>> Windows().over(4_999), Windows().over(5_000)
        ([(0, 2000), (2000, 4999)], [(0, 2000), (2000, 4000), (4000, 5000)])
        """
        count = max(1, total_ms // self.length_ms + (2 * (total_ms % self.length_ms) >= self.length_ms))
        edges = [index * self.length_ms for index in range(count)]
        return list(zip(edges, [*edges[1:], total_ms], strict=True))

    def cut(self, wave: Wave) -> Iterator[tuple[tuple[int, int], int, Wave]]:
        """Each window of a segment, where its sound begins, and that sound, context included as far as the segment has it."""
        for start, end in self.over(wave.duration_ms):
            origin = max(0, start - self.context_ms)
            yield (start, end), origin, wave.cut(origin, end + self.context_ms)


class LabellerSpec(BaseModel):
    """One labeller of a study: which, with what configuration, and the name that it signs with.

    A study file may write the name alone, or `{use: audio-classification, name: my-ser, config: {model: ./my-ser}}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    use: str
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    config: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _is_no_persons(cls, value: str | None) -> str | None:
        if value == HUMAN:
            raise ValueError(f"people's labels are signed {HUMAN!r}; give the labeller another name")
        return value

    @property
    def title(self) -> str:
        """The name that it signs with."""
        return self.name or self.use

    def make(self) -> Labeller:
        """The labeller, with nothing loaded."""
        return LABELLERS.get(self.use, self.config, sign=self.name)


class LabelStage(Stage[Recording, Segment]):
    """Find the speech of a recording and let every labeller hear it.

    Of what people said about the recording only the words are used (text and times, as an ASR would give them); speakers and human
    labels do not pass. A word belongs to the segment that it overlaps most, or else to the nearest within a second. Where an utterance
    came with text, its words are that text's, and a labeller that transcribes is not asked about it.

    Attributes:
        labellers: What to ask, in this order; at most one may transcribe and at most one may name speakers.
        windows: For labellers that hear windows.
        vad: How speech is found.
        align: Times for the words of texts that came without: "letters" spreads them over the speech of the utterance by their
            length (an estimate), "pocketsphinx" aligns English text with the sound and falls back to letters where that fails.
        max_segment_ms: Longer speech is cut at its quietest point.
        chunk_ms: How much sound is decoded at once.
        share_batches: Let windows of several recordings share a model's batch: faster for short recordings on a GPU, but the last digits
            of a score may then depend on the number of parts.
    """

    name: ClassVar[str] = "label"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Segment]] = Segment
    batch_rows: ClassVar[int] = 16  # so that a model's batch can hold windows of several short recordings
    heavy: ClassVar[bool] = True

    labellers: tuple[LabellerSpec, ...] = (LabellerSpec(use="affect-small"), LabellerSpec(use="prosody"))
    windows: Windows = Windows()
    vad: speech.Method = "energy"
    align: Literal["letters", "pocketsphinx"] = "letters"
    max_segment_ms: int = Field(default=15_000, ge=1_000)
    chunk_ms: int = Field(default=30_000, ge=1_000)
    share_batches: bool = False

    _open_labellers: list[Labeller] = PrivateAttr(default_factory=list)

    @field_validator("labellers")
    @classmethod
    def _names_are_unique(cls, value: tuple[LabellerSpec, ...]) -> tuple[LabellerSpec, ...]:
        titles = [one.title for one in value]
        if twice := sorted({one for one in titles if titles.count(one) > 1}):
            raise ValueError(f"the labeller {twice[0]!r} stands twice; give each a name of its own: {{use: {twice[0]}, name: ...}}")
        return value

    @property
    def gpus(self) -> float:
        """As many as the labellers' devices name: a worker holds all of them, and a cluster numbers those it gives from 0."""
        devices = [str(getattr(one, "device", "cpu")) for one in self.made()]
        return float(max((int(one.partition(":")[2] or 0) + 1 for one in devices if one.startswith("cuda")), default=0))

    def made(self) -> list[Labeller]:
        """The labellers, with nothing loaded.

        Raises:
            ConfigError: An unknown labeller or configuration, or several that transcribe or name speakers.
        """
        made = [one.make() for one in self.labellers]
        for what, does in (("transcribe", _transcribes), ("name speakers", _names_speakers)):
            names = [one.name for one in made if does(one)]
            if len(names) > 1:
                raise ConfigError(f"label.labellers: {' and '.join(names)} both {what}; expected at most one")
        for one in made:
            if one.hears == "recording" and _transcribes(one):
                raise ConfigError(f"labeller {one.name!r} transcribes whole recordings; expected hears 'segment' or 'window'")
        return made

    def check(self) -> None:
        """Raise before any work where a labeller, or what it runs on, is not there; loads no model."""
        if self.align == "pocketsphinx":
            needs("label.align: pocketsphinx", "pocketsphinx", extra="asr")
        for one in self.made():
            one.check()

    def open(self, context: Context) -> None:
        self.check()
        self._open_labellers = self.made()
        for one in self._open_labellers:
            one.open()

    def identity(self) -> dict[str, object]:
        # A labeller of another version or with other weights gives other labels: both belong to what the table is a function of.
        return {**super().identity(), "signed": [f"{one.name}@{one.version} {one.revision or ''}".strip() for one in self.made()]}

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Segment]]:
        queues = [_Queue(labeller) for labeller in self._open_labellers]
        heard = []
        for row in rows:
            heard.append(self._hear(row, queues))
            if not self.share_batches:
                _flush(queues)
        _flush(queues)
        return [one.outcome() for one in heard]

    def _hear(self, recording: Recording, queues: Sequence[_Queue]) -> _Hearing:
        hearing = _Hearing(recording, self._open_labellers)
        try:
            texts = Texts(recording, align=self.align)
            chunks = texts.listening(audio.stream(recording.uri, rate_hz=RATE_HZ, chunk_ms=self.chunk_ms))
            listeners = {
                index: one.listen()
                for index, one in enumerate(self._open_labellers)
                if one.hears == "recording" and hearing.knows(one)
            }
            for region, wave in speech.segments(chunks, method=self.vad, max_segment_ms=self.max_segment_ms):
                draft = hearing.draft(region.start_ms, region.end_ms, has_text=texts.covers(region.start_ms, region.end_ms))
                for index, queue in enumerate(queues):
                    self._ask(queue, wave, draft, partial(hearing.keep, draft, index), hearing)
                for index, listener in listeners.items():
                    listener.hear(self._open_labellers[index].at_rate(wave), region.start_ms)
            for index, listener in listeners.items():
                whole = self._open_labellers[index].signed(listener.finish(), (0, recording.duration_ms), origin_ms=0)
                hearing.share(index, whole.labels)
            hearing.place(texts.words([(one.start_ms, one.end_ms) for one in hearing.drafts]))
        except NOT_THE_ROWS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of the worker: one bad recording must not cost its batch
            hearing.fail(error)
        return hearing

    def _ask(self, queue: _Queue, wave: Wave, draft: _Draft, keep: Callable[[Heard], None], hearing: _Hearing) -> None:
        labeller, span = queue.labeller, (draft.start_ms, draft.end_ms)
        if draft.has_text and _transcribes(labeller):
            return
        if not hearing.knows(labeller):
            keep(labeller.signed(labeller.abstentions("other_language"), span, origin_ms=draft.start_ms))
        elif labeller.hears == "segment":
            queue.add(_Waiting(Asked(wave, draft.start_ms, span), keep, hearing.fail))
        elif labeller.hears == "window":
            for (start, end), origin, sound in self.windows.cut(wave):
                asked = Asked(sound, draft.start_ms + origin, (draft.start_ms + start, draft.start_ms + end))
                queue.add(_Waiting(asked, keep, hearing.fail))


def _flush(queues: Iterable[_Queue]) -> None:
    for queue in queues:
        queue.flush()


def _transcribes(labeller: Labeller) -> bool:
    return any(isinstance(one, Transcript) for one in labeller.emits)


def _names_speakers(labeller: Labeller) -> bool:
    return any(one.attribute == "speaker" for one in labeller.emits)


@dataclass(frozen=True)
class _Waiting:
    """A stretch that waits to be judged, and who wants to know."""

    asked: Asked
    keep: Callable[[Heard], None]
    fail: Callable[[Exception], None]


class _Queue:
    """What one labeller is still to hear: sorted by length and judged in batches once enough waits for full ones."""

    def __init__(self, labeller: Labeller) -> None:
        self.labeller = labeller
        self._waiting: list[_Waiting] = []
        self._enough = labeller.batch if labeller.batch == 1 else 4 * labeller.batch

    def add(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        if len(self._waiting) >= self._enough:
            self.flush()

    def flush(self) -> None:
        waiting = sorted(self._waiting, key=lambda one: len(one.asked.wave.samples))
        self._waiting = []
        for start in range(0, len(waiting), self.labeller.batch):
            self._judge(waiting[start : start + self.labeller.batch])

    def _judge(self, batch: Sequence[_Waiting]) -> None:
        try:
            answers = self.labeller.heard([one.asked for one in batch])
        except NOT_THE_ROWS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - a batch that raises is judged one by one, and only the culprit's recording fails
            if len(batch) == 1:
                batch[0].fail(error)
            else:
                for one in batch:
                    self._judge([one])
            return
        for one, answer in zip(batch, answers, strict=True):
            one.keep(answer)


@dataclass
class _Draft:
    """A segment in the making; `labels` are those of each labeller, in no order yet."""

    start_ms: int
    end_ms: int
    has_text: bool
    labels: list[list[Label]]
    words: list[Word] = field(default_factory=list)


class _Hearing:
    """What has been heard of one recording so far."""

    def __init__(self, recording: Recording, labellers: Sequence[Labeller]) -> None:
        self.recording = recording
        self.drafts: list[_Draft] = []
        self._labellers = labellers
        self._error: Exception | None = None

    def knows(self, labeller: Labeller) -> bool:
        """Whether a labeller understands the recording's language, as far as that is known."""
        language = self.recording.language
        return labeller.languages is None or language is None or language.split("-")[0] in labeller.languages

    def draft(self, start_ms: int, end_ms: int, *, has_text: bool) -> _Draft:
        """Begin a segment."""
        made = _Draft(start_ms, end_ms, has_text, [[] for _ in self._labellers])
        self.drafts.append(made)
        return made

    def fail(self, error: Exception) -> None:
        """Give the recording up; the first error stands."""
        self._error = self._error or error

    def keep(self, draft: _Draft, index: int, heard: Heard) -> None:
        """Take one labeller's answer about a window or a segment; recognised text without word times is spread over its span."""
        draft.labels[index] += heard.labels
        draft.words += heard.words
        for label in heard.labels:
            if label.attribute == "transcript" and label.category and not heard.words:
                draft.words += spread(label.category, label.start_ms, label.end_ms)

    def share(self, index: int, labels: Sequence[Label]) -> None:
        """Give labels of the whole recording to the segments that they overlap, each its part; a segment without any abstains."""
        ends = [one.end_ms for one in self.drafts]
        for label in labels:
            for draft in self.drafts[bisect_right(ends, label.start_ms) :]:
                if draft.start_ms >= label.end_ms:
                    break
                span = {"start_ms": max(label.start_ms, draft.start_ms), "end_ms": min(label.end_ms, draft.end_ms)}
                draft.labels[index].append(label.model_copy(update=span))
        labeller = self._labellers[index]
        for draft in self.drafts:
            if not draft.labels[index]:
                draft.labels[index] += labeller.signed([], (draft.start_ms, draft.end_ms), origin_ms=0).labels

    def place(self, words: Sequence[Word]) -> None:
        """Give the words of the recording's texts to its segments."""
        for word, index in zip(words, nearest(words, [(one.start_ms, one.end_ms) for one in self.drafts]), strict=True):
            if index is not None:
                self.drafts[index].words.append(word)

    def outcome(self) -> Outcome[Segment]:
        """The recording's segments, or why there are none."""
        if self._error is not None:
            return Failed(f"{type(self._error).__name__}: {self._error}")
        made = tuple(self._segment(one) for one in self.drafts)
        return Kept(made) if made else Dropped("no_speech")

    def _segment(self, draft: _Draft) -> Segment:
        # Batches answer in any order; a labeller's own order of attributes within one span stays.
        labels = (one for labels in draft.labels for one in sorted(labels, key=lambda label: (label.start_ms, label.end_ms)))
        words = sorted(draft.words, key=lambda word: (word.start_ms, word.end_ms))
        return Segment(
            recording_id=self.recording.id,
            start_ms=draft.start_ms,
            end_ms=draft.end_ms,
            transcript=" ".join(word.text for word in words) or None,
            words=tuple(words),
            labels=tuple(labels),
        )
