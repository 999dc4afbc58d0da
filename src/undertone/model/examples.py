"""Systems of the study, and the examples that each one is trained and asked with (2508.07273: S10 to S32, and the controls)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.errors import DataError
from undertone.metadata import MetadataConfig, render
from undertone.model import prompts
from undertone.records import Clip, Example, QAPair, Segment

MetadataMode = Literal["none", "inference_only", "train_and_inference"]
Phase = Literal["train", "inference"]


def slug(name: str) -> str:
    """A system's name as a folder's."""
    return name.replace(" ", "-")


class System(BaseModel):
    """One arm of the study: what it is trained on and what it is shown.

    Attributes:
        name: Also the name of its checkpoint and of its answers.
        data: Sources of its training pairs (keys of `generate.sources`).
        metadata: When predicted labels stand in the prompt.
        hears: The speech, its transcript in place of it, or nothing (then it must go by metadata and habit).
        weights_of: The system whose checkpoint it uses, instead of a training of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    data: tuple[str, ...] = Field(min_length=1)
    metadata: MetadataMode = "none"
    hears: Literal["speech", "words", "nothing"] = "speech"
    weights_of: str | None = None

    @model_validator(mode="after")
    def _trains_what_it_says(self) -> Self:
        if self.weights_of is not None and self.metadata == "train_and_inference":
            raise ValueError(
                f"{self.name}: weights_of={self.weights_of!r} means no training; metadata cannot be train_and_inference"
            )
        return self

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint that answers for this system."""
        return self.weights_of or self.name

    def shows_metadata(self, phase: Phase) -> bool:
        """Whether prompts of a phase carry metadata."""
        return self.metadata == "train_and_inference" or (self.metadata == "inference_only" and phase == "inference")


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
) -> list[Example]:
    """Turn pairs into what one system is shown.

    Args:
        pairs: For training, those of other sources than the system's are left out; for inference all are used.
        clips: The pairs' clips by id.
        predicted: Segments with predicted labels by recording id (the table label/).
        system: The arm.
        phase: "train" or "inference".
        metadata: Format; None is the default one.

    Returns:
        Examples in the order of the pairs.

    Raises:
        DataError: A pair's clip is not there, a test pair is used for training, or a label is human.
    """
    config = metadata or MetadataConfig()
    shown: dict[str, str | None] = {}
    made = []
    for pair in pairs:
        if phase == "train" and pair.source not in system.data:
            continue
        if phase == "train" and pair.split == "test":
            raise DataError(
                f"pair {pair.id} ({pair.source}) is of split test and must not train {system.name}; pass generate/base and generate/contextual"
            )
        clip = clips.get(pair.clip_id)
        if clip is None:
            raise DataError(f"pair {pair.id} asks about clip {pair.clip_id}, which is not among the {len(clips)} clips passed")
        if system.shows_metadata(phase) and clip.id not in shown:
            segments = predicted.get(clip.recording_id, ())
            shown[clip.id] = render(segments, start_ms=clip.start_ms, end_ms=clip.end_ms, config=config)
        text = shown.get(clip.id)
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


def _speech(system: System, clip: Clip) -> str:
    if system.hears == "speech":
        return prompts.AUDIO
    return prompts.words(clip.transcript) if system.hears == "words" else ""
