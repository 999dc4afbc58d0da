"""Conversations for models with a chat template: who says what, and where a wave is heard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from undertone.audio import Wave
from undertone.errors import DataError
from undertone.model.prompts import ANSWER, AUDIO
from undertone.records import Turn

Role = Literal["system", "user", "assistant"]
Part: TypeAlias = str | Wave


@dataclass(frozen=True)
class Message:
    """One message; in a user's, each `prompts.AUDIO` in `content` is where one wave is heard (as in ms-swift's rows)."""

    role: Role
    content: str


Prompt: TypeAlias = str | Sequence[Message]
"""A question alone, or a conversation that ends with the user's."""

Heard: TypeAlias = Wave | Sequence[Wave] | None
"""What a prompt's placeholders stand for, in their order."""


@dataclass(frozen=True)
class Said:
    """A message with its waves in place: texts and waves in the order in which the model reads and hears them."""

    role: Role
    parts: tuple[Part, ...]


def dialogue(
    question: str, *, history: Sequence[Turn] = (), system: str | None = None, waves: int = 1, speech: str | None = None
) -> list[Message]:
    """A conversation about sound: what is heard stands before the first question, as in `prompts.build`.

    Args:
        question: Asked last.
        history: Questions that were asked before, with their answers.
        system: The system message; None leaves it to the model's template, which may have one of its own.
        waves: How many are heard.
        speech: Text in place of sound (the control that reads), before the first question too.
    """
    asked = [*(turn.question for turn in history), question]
    asked[0] = AUDIO * waves + (f"{speech}\n" if speech else "") + asked[0]
    messages = [Message("system", system)] if system else []
    for text, turn in zip(asked, history, strict=False):
        messages += [Message("user", text), Message("assistant", turn.answer)]
    return [*messages, Message("user", asked[-1])]


def without_marker(prompt: str) -> str:
    """A prompt of `prompts.build` without the answer marker at its end: a chat template says by itself whose turn it is."""
    return prompt.removesuffix(ANSWER).rstrip("\n")


def spoken(prompt: Prompt, heard: Heard, *, name: str = "this row") -> list[Said]:
    """Put the waves into a prompt; where it has no placeholder, they come before the first text of the user.

    Args:
        prompt: What is asked.
        heard: One wave per placeholder.
        name: Of the row, for errors.

    Raises:
        DataError: Placeholders and waves do not fit each other, or the user does not speak last.
    """
    waves = [] if heard is None else [heard] if isinstance(heard, Wave) else list(heard)
    messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    if not messages or messages[-1].role != "user":
        last = messages[-1].role if messages else "nobody"
        raise DataError(f"{name}: the user speaks last in a prompt, got {last!r}; the answer to learn is given apart, as target")
    places = sum(one.content.count(AUDIO) for one in messages if one.role == "user")
    if not places and waves:
        first = next(index for index, one in enumerate(messages) if one.role == "user")
        messages[first] = Message("user", AUDIO * len(waves) + messages[first].content)
        places = len(waves)
    if places != len(waves):
        raise DataError(f"{name}: the user's messages have {places} {AUDIO} for {len(waves)} waves; expected one each")
    left = iter(waves)
    return [Said(one.role, _parts(one, left)) for one in messages]


def _parts(message: Message, waves: Iterator[Wave]) -> tuple[Part, ...]:
    if message.role != "user":
        return (message.content,)
    parts: list[Part] = []
    for index, text in enumerate(message.content.split(AUDIO)):
        if index:
            parts.append(next(waves))
        if text.strip("\n"):
            parts.append(text.strip("\n"))
    return tuple(parts)
