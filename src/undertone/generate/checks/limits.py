"""What a check is, and the numbers that checks measure by."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from undertone.records import Clip, QAPair


class Limits(BaseModel):
    """What the checks of one pair measure by.

    Attributes:
        language: Code of the language that questions and answers are written in; None for English or the language of the clip.
        question_words: Most words of a question.
        answer_words: Most words of an answer.
        reply_words: Most words of a reply, or of what an instruction asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str | None = Field(default=None, pattern=r"^[a-z]{2,3}(-\w+)*$")
    question_words: int = Field(default=40, ge=1)
    answer_words: int = Field(default=60, ge=1)
    reply_words: int = Field(default=200, ge=1)


def off_by_name(value: Any) -> Any:
    """Settings as a YAML file has them, in which `off:` without quotation marks is the value false (YAML 1.1), with "off" in its place."""
    return {"off" if name is False else name: one for name, one in value.items()} if isinstance(value, dict) else value


class Check(Protocol):
    """One check. Its name is the reason code of the pairs that it drops."""

    def __call__(self, pair: QAPair, clip: Clip, limits: Limits = ...) -> str | None:
        """None for a pair that passes, else what is wrong with it, in words; never raises about what a text says."""
        ...
