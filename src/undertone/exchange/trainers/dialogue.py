"""What a trainer is given: the sound of a clip and a conversation about it that ends in the answer to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from undertone.exchange.items import Item
from undertone.records import QAPair, Turn

Prompt = Callable[[QAPair], str]
"""Writes the last question of a pair, predicted labels included; it must give the same text for the same pair."""

ORIGIN = ("clip", "pair", "kind", "source", "question")


class Dialogue(BaseModel):
    """One line of a trainer's file.

    Attributes:
        audio: The clip's sound, relative to the folder of the export.
        duration_ms: Its length; None where the format does not say.
        transcript: What is said in it; None where nobody knows, or the format does not say.
        history: The turns before the question, which the answer builds on and which are not to be learned.
        prompt: The question as the model reads it, labels included.
        answer: What it learns to say.
        clip: The clip's key in the export; None in a file that another tool wrote, as for the following.
        pair: The pair's id.
        kind: The pair's kind.
        source: The pair's source.
        question: The question alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: str = Field(min_length=1)
    duration_ms: int | None = None
    transcript: str | None = None
    history: tuple[Turn, ...] = ()
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    clip: str | None = None
    pair: str | None = None
    kind: str | None = None
    source: str | None = None
    question: str | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns, the one to learn last."""
        return (*self.history, Turn(question=self.prompt, answer=self.answer))

    @property
    def origin(self) -> dict[str, str]:
        """Where a line came from. Every value is text in every line: a JSON reader that takes types from the first lines then finds one."""
        return {name: getattr(self, name) or "" for name in ORIGIN}

    def texts(self) -> Iterator[str]:
        """Everything that a trainer puts between its own markers."""
        for turn in self.turns:
            yield turn.question
            yield turn.answer


def of_pair(
    item: Item, pair: QAPair, *, prompt: Prompt | None, audio: str, duration_ms: int | None, transcript: str | None
) -> Dialogue:
    """A pair about an item as a dialogue."""
    return Dialogue(
        audio=audio,
        duration_ms=duration_ms,
        transcript=transcript,
        history=pair.history,
        prompt=pair.question if prompt is None else prompt(pair),
        answer=pair.answer,
        clip=item.key,
        pair=pair.id,
        kind=pair.kind,
        source=pair.source,
        question=pair.question,
    )


def with_origin(turns: list[Turn], origin: Any, **about: Any) -> Dialogue:
    """A dialogue that was read: its turns, what the line says of its origin (nothing in another tool's file) and of its sound.

    Raises:
        ValueError: There is no turn, or an empty text.
    """
    if not turns:
        raise ValueError("no question and answer")
    known = {name: origin.get(name) or None for name in ORIGIN} if isinstance(origin, dict) else {}
    last = turns[-1]
    return Dialogue(history=tuple(turns[:-1]), prompt=last.question, answer=last.answer, **known, **about)
