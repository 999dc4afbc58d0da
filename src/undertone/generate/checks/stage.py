"""The checks as a stage: candidate pairs become pairs that passed, and losses with reason codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from pydantic import PrivateAttr, field_validator, model_validator

from undertone.chat import CacheDir, Endpoint
from undertone.errors import ServiceError
from undertone.generate.checks.agreement import unsupported
from undertone.generate.checks.blind import Asked, MetadataLeak, WordsOnly, answered
from undertone.generate.checks.form import other_language, schema
from undertone.generate.checks.limits import Check, Limits, off_by_name
from undertone.generate.checks.wording import (
    answer_in_question,
    mentions_labels,
    presupposes_transcript,
    too_long,
    unanswerable_phrase,
)
from undertone.lexicon import LABEL_WORDS, tokens
from undertone.metadata import MetadataConfig
from undertone.records import Clip, QAPair, Record, Segment, content_hash
from undertone.stages import Context, Dropped, Failed, Kept, Outcome, Stage

_OF_ONE_PAIR = (
    schema,
    other_language,
    answer_in_question,
    presupposes_transcript,
    mentions_labels,
    too_long,
    unanswerable_phrase,
    unsupported,
)

CHECKS: Mapping[str, Check] = MappingProxyType({one.__name__: one for one in _OF_ONE_PAIR})
"""The checks that look at one pair and its clip, by name, in the order in which they run. The name is the reason code."""

WORDS_ONLY, METADATA_LEAK = "words_only", "metadata_leak"
"""Names and reason codes of the checks that try to answer without hearing (`blind`)."""

DUPLICATE = "duplicate_in_clip"
"""Name and reason code of the check that needs the other pairs of a clip: the same question again, letter case and punctuation aside."""

_SHOWN = 200  # characters of a transcript or label string in the detail of a loss

ALL_CHECKS: tuple[str, ...] = (*CHECKS, WORDS_ONLY, METADATA_LEAK, DUPLICATE)


class CheckStage(Stage[QAPair, QAPair]):
    """Drops candidate pairs with the reason code of the first check that they do not pass; the others carry the names of those passed.

    A check that could not be made, because its LLM did not answer, fails the pair.

    Attributes:
        off: Names of checks that are not made.
        flag: Names of checks that drop no pair: one that does not pass carries the name in `flags`, and is reported apart in evaluation.
        limits: What the checks measure by.
        words_only: Who answers from the words alone.
        metadata_leak: Who answers from the injected label string alone.
        cache_dir: Where LLM replies are kept, so that they are paid for once; None for nowhere. No part of the identity.
    """

    name: ClassVar[str] = "checks"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Record]] = QAPair
    writes: ClassVar[type[Record]] = QAPair
    scope: ClassVar[Literal["row", "part", "table"]] = "part"
    sides: ClassVar[Mapping[str, type[Record]]] = {"clips": Clip, "predicted": Segment}

    off: tuple[str, ...] = ()
    flag: tuple[str, ...] = (METADATA_LEAK,)
    limits: Limits = Limits()
    words_only: WordsOnly = WordsOnly()
    metadata_leak: MetadataLeak = MetadataLeak()
    cache_dir: CacheDir | None = None

    _clips: dict[str, Clip] = PrivateAttr(default_factory=dict)
    _holding: dict[str, Clip] | None = PrivateAttr(default=None)
    _predicted: dict[str, list[Segment]] = PrivateAttr(default_factory=dict)
    _seed: int = PrivateAttr(default=0)

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        return off_by_name(value)

    @field_validator("off", "flag")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [one for one in value if one not in ALL_CHECKS]
        if unknown:
            raise ValueError(f"no check {', '.join(map(repr, unknown))}; expected some of {', '.join(ALL_CHECKS)}")
        return value

    @model_validator(mode="after")
    def _can_be_flagged(self) -> Self:
        if DUPLICATE in self.flag and DUPLICATE not in self.off:
            raise ValueError(
                f"{DUPLICATE} cannot be a flag: two rows of a table cannot be the same pair; turn it off or let it drop"
            )
        return self

    @property
    def on(self) -> tuple[str, ...]:
        """The checks that are made, in order."""
        return tuple(name for name in ALL_CHECKS if name not in self.off)

    def showing(self, config: MetadataConfig) -> CheckStage:
        """The same checks for models whose prompts show labels in this format, unless the study gives the leak check a format of its own."""
        if self.metadata_leak.format is not None:
            return self
        return self.model_copy(update={"metadata_leak": self.metadata_leak.model_copy(update={"format": config})})

    def identity(self) -> dict[str, Any]:
        """The configuration, the prompts and the words that texts are read by, without what changes no outcome."""
        unlike = {"llm": set(Endpoint.unlike)}
        config = self.model_dump(mode="json", exclude={"cache_dir": True, WORDS_ONLY: unlike, METADATA_LEAK: unlike})
        words = (
            f"{name}|{label}|{word}" for name, table in LABEL_WORDS.items() for label, group in table.items() for word in group
        )
        return {**config, "prompts": [self.words_only.digest, self.metadata_leak.digest], "keywords": content_hash(*words)}

    def open(self, context: Context) -> None:
        """Read the clips, and the predicted labels of their recordings that a prompt could show."""
        self._seed = context.seed
        self._clips.update((clip.id, clip) for clip in context.sides["clips"].rows())
        if METADATA_LEAK in self.off:
            return
        wanted = {clip.recording_id for clip in self._clips.values()}
        shown = (self.metadata_leak.format or MetadataConfig()).attributes
        for segment in context.sides["predicted"].rows():
            if segment.recording_id in wanted:
                labels = tuple(one for one in segment.labels if one.attribute in shown)
                bare = segment.model_copy(update={"words": (), "transcript": None, "labels": labels})
                self._predicted.setdefault(segment.recording_id, []).append(bare)

    def process(self, rows: Sequence[QAPair]) -> Sequence[Outcome[QAPair]]:
        """One outcome for each pair; of two that ask the same about a clip the first that passes the other checks is kept."""
        ends: dict[int, Outcome[QAPair]] = {}
        flags: dict[int, list[str]] = {index: [] for index in range(len(rows))}
        for index, pair in enumerate(rows):
            clip = self._clips.get(pair.clip_id) or self._utterance(pair.clip_id)
            if clip is None:
                ends[index] = Failed(
                    f"pair {pair.id} is about clip {pair.clip_id}, which the clips table does not have; give its own clips table"
                )
                continue
            self._settle(
                index, pair, ((name, CHECKS[name](pair, clip, self.limits)) for name in self.on if name in CHECKS), ends, flags
            )
        for name in (WORDS_ONLY, METADATA_LEAK):
            if name in self.on:
                self._without_hearing(name, rows, ends, flags)
        asked: set[tuple[str, ...]] = set()
        outcomes: list[Outcome[QAPair]] = []
        for index, pair in enumerate(rows):
            if index not in ends and DUPLICATE in self.on and same_question(pair) in asked:
                ends[index] = Dropped(DUPLICATE, pair.question)
            elif index not in ends:
                asked.add(same_question(pair))
            outcomes.append(ends.get(index) or self._kept(pair, flags[index]))
        return outcomes

    def _utterance(self, clip_id: str) -> Clip | None:
        """A segment of one of the clips, as a clip that is asked about from then on: the turn of a dialogue."""
        if self._holding is None:
            self._holding = {one.id: clip for clip in self._clips.values() for one in clip.segments}
        whole = self._holding.get(clip_id)
        if whole is None:
            return None
        segment = next(one for one in whole.segments if one.id == clip_id)
        times = {"start_ms": segment.start_ms, "end_ms": segment.end_ms}
        self._clips[clip_id] = whole.model_copy(update={"segments": (segment,), **times})
        return self._clips[clip_id]

    def _kept(self, pair: QAPair, flags: Sequence[str]) -> Kept[QAPair]:
        passed = tuple(name for name in self.on if name not in flags)
        return Kept((pair.model_copy(update={"checks": passed, "flags": tuple(flags)}),))

    def _settle(
        self,
        index: int,
        pair: QAPair,
        found: Iterable[tuple[str, str | None]],
        ends: dict[int, Outcome[QAPair]],
        flags: dict[int, list[str]],
    ) -> None:
        """Take the faults found in a pair, in order, up to the first that drops it."""
        for name, fault in found:
            if fault is not None and name in self.flag:
                flags[index].append(name)
            elif fault is not None:
                ends[index] = Dropped(name, f"{pair.question} ({fault})")
                return

    def _without_hearing(
        self, name: str, rows: Sequence[QAPair], ends: dict[int, Outcome[QAPair]], flags: dict[int, list[str]]
    ) -> None:
        """Let who cannot hear answer the pairs that have come so far."""
        asked: dict[int, Asked] = {}
        for index, pair in enumerate(rows):
            if index not in ends and (one := self._asked(name, pair)) is not None:
                asked[index] = one
        by = self.words_only if name == WORDS_ONLY else self.metadata_leak
        told = answered(list(asked.values()), by, seed=self._seed, cache_dir=self.cache_dir)
        for (index, one), right in zip(asked.items(), told, strict=True):
            if isinstance(right, ServiceError):
                ends[index] = Failed(f"ServiceError: check {name}: {right}")
            else:
                fault = f"{one.right} without hearing, from {one.shown[:_SHOWN]!r}" if right else None
                self._settle(index, one.pair, [(name, fault)], ends, flags)

    def _asked(self, name: str, pair: QAPair) -> Asked | None:
        clip = self._clips[pair.clip_id]
        if name == WORDS_ONLY:
            return self.words_only.asked(pair, clip)
        return self.metadata_leak.asked(pair, clip, self._predicted.get(clip.recording_id, ()))


def same_question(pair: QAPair) -> tuple[str, ...]:
    """A key that two pairs share when they ask the same of the same clip, after the same turns, in the same part of the training mix."""
    before = (" ".join(tokens(text)) for turn in pair.history for text in (turn.question, turn.answer))
    return pair.source, pair.clip_id, *before, " ".join(tokens(pair.question))
