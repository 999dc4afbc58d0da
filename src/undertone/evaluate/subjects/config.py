"""Subjects as a study names them: what is heard, what is shown, who answers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.chat import Endpoint
from undertone.execute.artefact import files_digest
from undertone.metadata import MetadataConfig
from undertone.model.examples import ORACLE
from undertone.model.shown import ShownLabels

Hears = Literal["speech", "other_speech", "words", "recognised_words", "nothing"]
Control = Literal["words", "metadata", "other_audio", "gold"]

CONTROLS: Mapping[Control, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "words": ("words", {"hears": "words", "labels": None}),
        "metadata": ("metadata", {"hears": "nothing", "labels": ShownLabels()}),
        "other_audio": ("other audio", {"hears": "other_speech"}),
        "gold": (f"gold {ORACLE}", {"hears": "words", "labels": ShownLabels(of="human")}),
    }
)
"""The ready-made controls: what stands behind the subject's name, and what differs from the subject."""


class Asked(BaseModel):
    """What every subject has: what it hears and what it is shown.

    Attributes:
        name: Of the subject, in every table and figure.
        hears: The clip's speech; that of a clip of another recording, which tells whether anybody listens; the words that the corpus has for
            it; the words that the study's labellers recognised (with an LLM that only reads: a cascade); or nothing.
        labels: Whose labels stand in the prompt, and what is done to them first; None for no labels.
        metadata: How labels are written; None for the study's `model.metadata` (a checkpoint reads what it was trained with).
        instruction: Stands behind every question, such as "Answer in one sentence."; "" asks the bare question.
        controls: Controls of this subject, as subjects of their own beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    hears: Hears = "speech"
    labels: ShownLabels | None = None
    metadata: MetadataConfig | None = None
    instruction: str = ""
    controls: tuple[Control, ...] = ()

    @model_validator(mode="after")
    def _says_what_it_shows(self) -> Self:
        if self.labels is not None and self.labels.dropout:
            raise ValueError(f"{self.name}: labels.dropout={self.labels.dropout} is of training examples; leave it out")
        if self.oracle and ORACLE not in self.name.casefold():
            raise ValueError(
                f"{self.name}: is shown human labels, which no system has; its name must hold the word {ORACLE!r}, so that every table says "
                f"so: {self.name + ' ' + ORACLE!r}"
            )
        if len(set(self.controls)) < len(self.controls):
            raise ValueError(f"{self.name}: controls names one twice: {', '.join(self.controls)}")
        return self

    @property
    def oracle(self) -> bool:
        """Whether it is shown what people said: an upper bound, and no system."""
        return self.labels is not None and self.labels.of == "human"


_CONDITION = frozenset(Asked.model_fields) - {"instruction"}
"""What the examples hold already: they are the stage's input, so it is no part of its identity a second time."""


class TrainedSubject(Asked):
    """A system of the study, asked in another way than it was trained for. Its own row in the study table is the system's.

    Attributes:
        system: Whose checkpoint answers.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    system: str

    @model_validator(mode="before")
    @classmethod
    def _is_named_after_its_system(cls, value: Any) -> Any:
        return {"name": value["system"], **value} if isinstance(value, dict) and "system" in value else value

    @model_validator(mode="after")
    def _says_what_differs(self) -> Self:
        if self.instruction or self.metadata is not None:
            raise ValueError(
                f"{self.name}: a checkpoint reads the prompts that it was trained with; leave out instruction and metadata"
            )
        if not self.controls and self.name == self.system:
            raise ValueError(f"{self.name}: is what the system itself is asked; give controls, or another name and what differs")
        return self


class NativeSubject(Asked):
    """A native audio LLM of transformers (`model.native`).

    Attributes:
        model: A name on the hub, a folder, or the folder of a LoRA (`NativeAudioLLM.save`).
        revision: Commit or tag of a hub's model. Name one: without it nobody can tell later what answered.
        dtype: Of the weights, such as "bfloat16"; "auto" is the checkpoint's.
        device_map: As accelerate reads it; None takes the GPUs that there are, else the CPU.
        long_audio: What becomes of a clip that is longer than the model hears: its questions fail, or only its start is heard.
        batch_size: Questions at once.
        max_new_tokens: Longest answer.
    """

    kind: Literal["native"] = "native"
    model: str = Field(min_length=1)
    revision: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    long_audio: Literal["refuse", "truncate"] = "refuse"
    batch_size: int = Field(default=8, ge=1)
    max_new_tokens: int = Field(default=128, ge=1)

    def identity(self) -> dict[str, Any]:
        """What changes an answer; a folder goes by its files, wherever it lies."""
        settings = self.model_dump(mode="json", exclude={*_CONDITION, "model", "revision", "device_map", "batch_size"})
        return {**settings, "weights": weights_of(self.model, self.revision)}


class EndpointSubject(Endpoint, Asked):
    """A model behind an OpenAI-compatible endpoint; what it hears is sent as `input_audio`, 16 kHz WAV."""

    kind: Literal["endpoint"] = "endpoint"
    max_tokens: int | None = Field(default=256, gt=0)

    def identity(self) -> dict[str, Any]:
        """What changes an answer."""
        return self.model_dump(mode="json", exclude={*_CONDITION, *Endpoint.unlike, "rereads"})


AnySubject = Annotated[TrainedSubject | NativeSubject | EndpointSubject, Field(discriminator="kind")]
"""A subject as a study names it."""

ChatSubject = Annotated[NativeSubject | EndpointSubject, Field(discriminator="kind")]
"""Those with a chat template of their own."""


def arms(subjects: Iterable[AnySubject]) -> list[AnySubject]:
    """All subjects with their controls behind them, each a subject of its own.

    >>> [one.name for one in arms([EndpointSubject(name="GPT", endpoint="http://x/v1", model="m", controls=("words", "gold"))])]
    ['GPT', 'GPT words', 'GPT gold oracle']
    """
    made: list[AnySubject] = []
    for one in subjects:
        if not isinstance(one, TrainedSubject) or one.name != one.system:
            made.append(one.model_copy(update={"controls": ()}))
        for control in one.controls:
            suffix, differs = CONTROLS[control]
            content = {**{name: getattr(one, name) for name in type(one).model_fields}, "controls": (), **differs}
            made.append(type(one).model_validate({**content, "name": f"{one.name} {suffix}"}))
    return made


def control_names(subjects: Iterable[AnySubject]) -> frozenset[str]:
    """The subjects of `arms` that are controls: those of `controls`, and any that does not hear its clip or is shown what people said.

    >>> sorted(control_names([EndpointSubject(name="GPT", endpoint="http://x/v1", model="m", controls=("words", "gold"))]))
    ['GPT gold oracle', 'GPT words']
    """
    asked = tuple(subjects)
    named = {one.name for one in asked}
    return frozenset(
        one.name for one in arms(asked) if one.name not in named or one.oracle or one.hears in ("other_speech", "nothing")
    )


@functools.lru_cache
def weights_of(model: str, revision: str | None) -> str:
    """Which weights answer: a hub's name with its revision, or the digest of a folder's files (of a LoRA's, which name what they adapt)."""
    folder = Path(model)
    return files_digest(folder) if folder.is_dir() else f"{model}@{revision or 'unpinned'}"
