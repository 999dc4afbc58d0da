"""Systems of the study, and the examples that each one is trained and asked with (2508.07273: S10 to S32, and the controls)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from undertone.errors import DataError
from undertone.generate.askable import dominant_emotion
from undertone.metadata import MetadataConfig
from undertone.model import prompts
from undertone.model.shown import Shown, ShownLabels
from undertone.records import DIMENSIONS, Clip, Example, Label, QAPair, Segment, Turn

MetadataMode = Literal["none", "inference_only", "train_and_inference", "train_only"]
Phase = Literal["train", "inference"]
Tells = Literal["emotion", "nothing"]
"""What a teacher's text says besides the words."""


ORACLE = "oracle"
"""Stands in the name of every system that is shown human labels, and so in every table and figure about it."""


def slug(name: str) -> str:
    """A system's name as a folder's."""
    return name.replace(" ", "-")


class System(BaseModel):
    """One arm of the study: what it is trained on and what it is shown.

    Attributes:
        name: Also the name of its checkpoint and of its answers.
        data: Sources of its training pairs (keys of `generate.sources`).
        metadata: When labels stand in the prompt.
        labels: Whose labels, and what is done to them first; without more the labeller's, as they are.
        targets: The same for what is not shown but learnt from: what heads beside the decoder learn and a teacher is told
            (`train.objective`). Worse and worse labels here tell how much the quality of a reply hangs on theirs.
        hears: The speech, its transcript in place of it, or nothing (then it must go by metadata and habit).
        history: What becomes of the earlier turns of a dialogue that were spoken: they are heard, or their words stand in the prompt.
        weights_of: The system whose checkpoint it uses, instead of a training of its own.
        model: What differs from the study's `model` for this system: `{adapter: {kind: conv}}`.
        train: What differs from the study's `train`: `{align: {steps: 0}}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Came after studies had been run; see `MetadataConfig.grown`.
    grown: ClassVar[frozenset[str]] = frozenset({"labels", "targets", "history", "model", "train"})

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    data: tuple[str, ...] = Field(min_length=1)
    metadata: MetadataMode = "none"
    labels: ShownLabels = ShownLabels()
    targets: ShownLabels = ShownLabels()
    hears: Literal["speech", "words", "nothing"] = "speech"
    history: Literal["speech", "text"] = "speech"
    weights_of: str | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _as_it_was(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        usual = {key: fields[key].get_default(call_default_factory=True) for key in self.grown}
        return {key: value for key, value in made.items() if key not in usual or getattr(self, key) != usual[key]}

    @model_validator(mode="after")
    def _trains_what_it_says(self) -> Self:
        if self.weights_of is not None and (self.model or self.train):
            raise ValueError(
                f"{self.name}: weights_of={self.weights_of!r} means no training; model and train are those of that system"
            )
        if self.weights_of is not None and self.shows_metadata("train"):
            raise ValueError(f"{self.name}: weights_of={self.weights_of!r} means no training; metadata cannot be {self.metadata}")
        return self

    @model_validator(mode="after")
    def _shows_what_it_says(self) -> Self:
        if self.labels != ShownLabels() and self.metadata == "none":
            raise ValueError(f"{self.name}: labels says which labels are shown, but metadata is none; set metadata as well")
        if self.labels.dropout and not self.shows_metadata("train"):
            raise ValueError(
                f"{self.name}: labels.dropout={self.labels.dropout} is of training examples, but metadata is {self.metadata}; expected "
                "train_and_inference or train_only"
            )
        if self.oracle and ORACLE not in self.name.casefold():
            raise ValueError(
                f"{self.name}: is shown human labels or learns from them, which no system has; its name must hold the word {ORACLE!r}, "
                f"so that every table says so: {self.name + ' ' + ORACLE!r}"
            )
        return self

    @property
    def oracle(self) -> bool:
        """Whether it is shown what people said, or learns from it: an upper bound, and no system."""
        return "human" in (self.labels.of, self.targets.of)

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint that answers for this system."""
        return self.weights_of or self.name

    def shows_metadata(self, phase: Phase) -> bool:
        """Whether prompts of a phase carry metadata."""
        return self.metadata == "train_and_inference" or self.metadata == f"{phase}_only"


_S10: tuple[str, ...] = ("asr", "pqa")
_S20: tuple[str, ...] = (*_S10, "pqa_star")
_S30: tuple[str, ...] = (*_S20, "cpqa")

SYSTEMS: tuple[System, ...] = (
    System(name="S10", data=_S10),
    System(name="S20", data=_S20),
    System(name="S30", data=_S30),
    System(name="S31", data=_S30, metadata="inference_only", weights_of="S30"),
    System(name="S32", data=_S30, metadata="train_and_inference"),
    System(name="words only", data=_S30, hears="words"),
    System(name="metadata only", data=_S30, metadata="train_and_inference", hears="nothing"),
)
"""The paper's systems and the two controls that need training."""


def build_examples(
    pairs: Sequence[QAPair],
    clips: Mapping[str, Clip],
    predicted: Mapping[str, Sequence[Segment]],
    system: System,
    *,
    phase: Phase,
    metadata: MetadataConfig | None = None,
    human: Mapping[str, Sequence[Segment]] | None = None,
    seed: int = 0,
    targets: bool = False,
) -> list[Example]:
    """Turn pairs into what one system is shown.

    Args:
        pairs: For training, those of other sources than the system's are left out; for inference all are used.
        clips: The pairs' clips by id.
        predicted: Segments with predicted labels by recording id (the table label/).
        system: The arm.
        phase: "train" or "inference".
        metadata: Format; None is the default one.
        human: Segments with human labels by recording id (`shown.human_segments`); no system but an oracle is shown anything of them.
        seed: Of what is drawn: which labels are wrong, withheld or another clip's, and which examples show none.
        targets: Add what heads beside the decoder learn and what a teacher reads (`TrainConfig.learns_targets`).

    Returns:
        Examples in the order of the pairs.

    Raises:
        DataError: A pair's clip or one of its dialogue is not there, a dialogue ends with the assistant, a test pair is used for training,
            a label is human and the system no oracle, or an oracle got no human labels.
    """
    config = metadata or MetadataConfig()
    wanted = [pair for pair in pairs if phase == "inference" or pair.source in system.data]
    about = [_clip_of(pair, clips, system, phase) for pair in wanted]
    shown = None
    if system.shows_metadata(phase):
        shown = Shown(system.labels, about, predicted=predicted, human=human, config=config, seed=seed)
    learnt = Targets(system, clips, predicted=predicted, human=human, seed=seed) if targets else None
    made = []
    for pair, clip in zip(wanted, about, strict=True):
        dropped = phase == "train" and system.labels.drops(pair.id, seed=seed)
        text = None if shown is None or dropped else shown.text(clip)
        before = _before(pair, clips, system)
        try:
            prompt = prompts.build(
                pair.question,
                metadata=text,
                place=config.place,
                speech=_speech(system, clip),
                history=pair.history,
                spoken=partial(_earlier, system, before),
            )
        except DataError as error:
            raise DataError(f"pair {pair.id} ({pair.source}): {error}") from error
        made.append(
            Example(
                arm=system.name,
                pair_id=pair.id,
                clip_id=clip.id,
                source=pair.source,
                kind=pair.kind,
                metadata=text,
                prompt=prompt,
                target=pair.answer,
                earlier=pair.clips[:-1] if system.hears == "speech" and system.history == "speech" else (),
                **({} if learnt is None else learnt.of(pair, clip)),
            )
        )
    return made


class Targets:
    """What the speech side must come to know without being told, from the labels that the system learns from."""

    def __init__(
        self,
        system: System,
        clips: Mapping[str, Clip],
        *,
        predicted: Mapping[str, Sequence[Segment]],
        human: Mapping[str, Sequence[Segment]] | None,
        seed: int,
    ) -> None:
        """Store them; arguments are those of `build_examples`."""
        self._system, self._clips, self._seed = system, clips, seed
        table = human if system.targets.of == "human" and human is not None else predicted
        there = {label.attribute for rows in table.values() for segment in rows for label in segment.labels}
        known = tuple(name for name in ("emotion", *DIMENSIONS) if name in there)
        self._labels = (
            Shown(
                system.targets,
                clips.values(),
                predicted=predicted,
                human=human,
                config=MetadataConfig(attributes=known),
                seed=seed,
            )
            if known
            else None
        )
        self._of_clips: dict[str, tuple[Label, ...]] = {}

    def of(self, pair: QAPair, clip: Clip) -> dict[str, Any]:
        """The fields of `Example` that are targets."""
        if self._system.targets.drops(pair.id, seed=self._seed):
            return {}
        emotion = self._emotion(clip)
        if pair.kind == "REPLY" and pair.label_attribute == "emotion" and self._system.targets == ShownLabels():
            emotion = pair.label  # which the reply was written for
        return {"category": emotion, "dimensions": self._dimensions(clip), "teacher": self._teacher(pair, clip, emotion)}

    def _found(self, clip: Clip) -> tuple[Label, ...]:
        if clip.id not in self._of_clips:
            self._of_clips[clip.id] = self._labels.labels_of(clip) if self._labels is not None else ()
        return self._of_clips[clip.id]

    def _emotion(self, clip: Clip) -> str | None:
        """The one that prevails, as a writer of replies is told it (`dominant_emotion`)."""
        if not (found := self._found(clip)):
            return None
        whole = Segment(recording_id=clip.recording_id, start_ms=clip.start_ms, end_ms=clip.end_ms, labels=found)
        return dominant_emotion(clip.model_copy(update={"segments": (whole,)}))

    def _dimensions(self, clip: Clip) -> dict[str, float] | None:
        """Means over the labelled time of each."""
        found = self._found(clip)
        whole = Segment(recording_id=clip.recording_id, start_ms=clip.start_ms, end_ms=clip.end_ms, labels=found)
        means = {name: value for name in DIMENSIONS if (value := whole.number(name)) is not None}
        return means or None

    def _teacher(self, pair: QAPair, clip: Clip, emotion: str | None) -> dict[str, str] | None:
        """What a teacher reads; only to a reply are words and emotion all that is needed."""
        if pair.kind != "REPLY" or not clip.transcript.strip():
            return None
        before = _before(pair, self._clips, self._system)
        ways: dict[str, bool] = {"nothing": False} | ({"emotion": True} if emotion is not None else {})
        return {
            way: prompts.build(
                pair.question,
                speech=prompts.told(clip.transcript, emotion if names else None),
                history=pair.history,
                spoken=partial(self._told, before, names),
            )
            for way, names in ways.items()
        }

    def _told(self, before: Mapping[str, Clip], names: bool, turn: Turn) -> str:
        clip = before[turn.clip_id or ""]
        return prompts.told(clip.transcript, self._emotion(clip) if names else None)


def _before(pair: QAPair, clips: Mapping[str, Clip], system: System) -> dict[str, Clip]:
    """The clips of a dialogue's earlier turns, in their order."""
    named = pair.clips[:-1]
    if missing := [one for one in named if one not in clips]:
        raise DataError(
            f"pair {pair.id} ({pair.source}), shown to {system.name}: an earlier turn was spoken in clip {missing[0]}, which is not among the "
            f"{len(clips)} clips passed"
        )
    if not pair.question and pair.history and pair.history[-1].clip_id == pair.clip_id:
        raise DataError(
            f"pair {pair.id} ({pair.source}): the dialogue ends with the assistant: clip {pair.clip_id} is answered already"
        )
    return {one: clips[one] for one in named}


def _clip_of(pair: QAPair, clips: Mapping[str, Clip], system: System, phase: Phase) -> Clip:
    if phase == "train" and pair.split == "test":
        raise DataError(
            f"pair {pair.id} ({pair.source}) is of split test and must not train {system.name}; pass generate/base and generate/contextual"
        )
    clip = clips.get(pair.clip_id)
    if clip is None:
        raise DataError(f"pair {pair.id} asks about clip {pair.clip_id}, which is not among the {len(clips)} clips passed")
    return clip


def _earlier(system: System, before: Mapping[str, Clip], turn: Turn) -> str:
    """What stands for the speech of an earlier turn."""
    clip = before[turn.clip_id or ""]
    if system.hears == "speech" and system.history == "text":
        return prompts.words(clip.transcript)
    return _speech(system, clip)


def _speech(system: System, clip: Clip) -> str:
    if system.hears == "speech":
        return prompts.AUDIO
    return prompts.words(clip.transcript) if system.hears == "words" else ""
