"""Dialogues about one clip whose emotion changes: each turn asks on from the answer before it. The prompt and the scheme are our own."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from undertone.chat import read_json
from undertone.generate.protocol import Candidate, Request
from undertone.generate.strategies.base import OnEvidence, askable_kinds, drawing, emotion_path, whole_clip
from undertone.generate.strategies.cpqa import WrittenPair, candidate
from undertone.lexicon import EMOTION_WORDS, GENDER_WORDS
from undertone.records import Clip, Turn

TurnKind = Literal["C", "CE", "CG"]


class WrittenTurn(WrittenPair):
    """One turn as the model writes it."""

    kind: TurnKind


class WrittenDialogue(BaseModel):
    """The reply that is asked for."""

    model_config = ConfigDict(extra="ignore")

    turns: list[WrittenTurn]


class MultiTurn(OnEvidence):
    """Two to four turns of questions about one clip whose emotion changes, each a pair with the turns before it as history.

    Clips in which one emotion is heard throughout are passed over.

    Attributes:
        min_turns, max_turns: How many turns a dialogue has, drawn for each clip.
    """

    name: ClassVar[str] = "multi_turn"
    templates: ClassVar[tuple[str, ...]] = ("multi_turn.jinja", "clip.jinja")
    replies: ClassVar[tuple[type[BaseModel], ...]] = (WrittenDialogue,)

    min_turns: int = Field(default=2, ge=2, le=4)
    max_turns: int = Field(default=4, ge=2, le=4)

    @field_validator("max_turns")
    @classmethod
    def _in_order(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_turns", 0)
        if value < least:
            raise ValueError(f"expected at least min_turns, {least}")
        return value

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """One request for the whole dialogue."""
        path = emotion_path(clip)
        kinds = [one for one in askable_kinds(clip) if one in ("C", "CE", "CG")]
        if len(path) < 2 or "CE" not in kinds:
            return []
        turns = drawing(self, clip, seed).randint(self.min_turns, self.max_turns)
        prompt = self.rendered(
            clip, turns=turns, kinds=kinds, facts=whole_clip(clip), emotions=list(EMOTION_WORDS), genders=list(GENDER_WORDS)
        )
        return [Request(prompt=prompt, schema=WrittenDialogue, about={"turns": str(turns), "kinds": " ".join(kinds)})]

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """The turns; of more than were asked for, the first.

        Raises:
            ValueError: The reply does not fit, is no dialogue, has a turn of a kind that was not asked for, or none about emotion.
        """
        turns = read_json(reply, WrittenDialogue).turns[: int(request.about["turns"])]
        if len(turns) < 2:
            raise ValueError(f"the dialogue has {len(turns)} turns; expected {request.about['turns']}")
        others = [one.kind for one in turns if one.kind not in request.about["kinds"].split()]
        if others:
            raise ValueError(f"the dialogue has turns of kind {', '.join(others)}; expected {request.about['kinds']}")
        if not any(one.kind == "CE" for one in turns):
            raise ValueError("no turn of the dialogue is about emotion (CE)")
        said = [Turn(question=one.question, answer=one.answer) for one in turns]
        return [replace(candidate(one), history=tuple(said[:at])) for at, one in enumerate(turns)]
