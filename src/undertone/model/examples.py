"""Systems of the study, and the examples that each one is trained and asked with (2508.07273: S10 to S32, and the controls)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from undertone.errors import DataError
from undertone.metadata import MetadataConfig
from undertone.model import prompts
from undertone.model.shown import Shown, ShownLabels
from undertone.records import Clip, Example, QAPair, Segment

MetadataMode = Literal["none", "inference_only", "train_and_inference", "train_only"]
Phase = Literal["train", "inference"]


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
        hears: The speech, its transcript in place of it, or nothing (then it must go by metadata and habit).
        weights_of: The system whose checkpoint it uses, instead of a training of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Came after studies had been run; see `MetadataConfig.grown`.
    grown: ClassVar[frozenset[str]] = frozenset({"labels"})

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    data: tuple[str, ...] = Field(min_length=1)
    metadata: MetadataMode = "none"
    labels: ShownLabels = ShownLabels()
    hears: Literal["speech", "words", "nothing"] = "speech"
    weights_of: str | None = None

    @model_serializer(mode="wrap")
    def _as_it_was(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {key: value for key, value in made.items() if key not in self.grown or getattr(self, key) != fields[key].default}

    @model_validator(mode="after")
    def _trains_what_it_says(self) -> Self:
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
                f"{self.name}: is shown human labels, which no system has; its name must hold the word {ORACLE!r}, so that every table "
                f"says so: {self.name + ' ' + ORACLE!r}"
            )
        return self

    @property
    def oracle(self) -> bool:
        """Whether it is shown what people said: an upper bound, and no system."""
        return self.labels.of == "human"

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

    Returns:
        Examples in the order of the pairs.

    Raises:
        DataError: A pair's clip is not there, a test pair is used for training, a label is human and the system no oracle, or an oracle
            got no human labels.
    """
    config = metadata or MetadataConfig()
    wanted = [pair for pair in pairs if phase == "inference" or pair.source in system.data]
    about = [_clip_of(pair, clips, system, phase) for pair in wanted]
    shown = None
    if system.shows_metadata(phase):
        shown = Shown(system.labels, about, predicted=predicted, human=human, config=config, seed=seed)
    made = []
    for pair, clip in zip(wanted, about, strict=True):
        dropped = phase == "train" and system.labels.drops(pair.id, seed=seed)
        text = None if shown is None or dropped else shown.text(clip)
        made.append(
            Example(
                arm=system.name,
                pair_id=pair.id,
                clip_id=clip.id,
                source=pair.source,
                kind=pair.kind,
                metadata=text,
                prompt=prompts.build(
                    pair.question, metadata=text, place=config.place, speech=_speech(system, clip), history=pair.history
                ),
                target=pair.answer,
            )
        )
    return made


def _clip_of(pair: QAPair, clips: Mapping[str, Clip], system: System, phase: Phase) -> Clip:
    if phase == "train" and pair.split == "test":
        raise DataError(
            f"pair {pair.id} ({pair.source}) is of split test and must not train {system.name}; pass generate/base and generate/contextual"
        )
    clip = clips.get(pair.clip_id)
    if clip is None:
        raise DataError(f"pair {pair.id} asks about clip {pair.clip_id}, which is not among the {len(clips)} clips passed")
    return clip


def _speech(system: System, clip: Clip) -> str:
    if system.hears == "speech":
        return prompts.AUDIO
    return prompts.words(clip.transcript) if system.hears == "words" else ""
