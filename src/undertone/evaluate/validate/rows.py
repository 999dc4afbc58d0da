"""What a validation reads: verdicts as plain rows, whoever judged, and what a log says of a whole set without showing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Reason = Literal["unreadable", "refused", "timed_out", "no_reference", "no_label", "failed"]
"""Why a verdict has no score: those of `records.UnscoredReason`, and "failed" for a call that came to nothing, as far as a log can tell."""


class Rater(NamedTuple):
    """Who scored: a judge with a prompt. Two prompts of one model are two raters, since they give other scores for the same answers."""

    judge: str
    prompt: str = ""

    def __str__(self) -> str:
        return f"{self.judge} ({self.prompt})" if self.prompt else self.judge


class AnswerKey(NamedTuple):
    """One answer to one question. Two systems, or one system asked twice, have answers of their own even where the item is the same."""

    dataset: str
    item: str
    system: str
    question: str
    answer: str


class Judged(BaseModel):
    """One verdict of one judge on one answer, in one run.

    Attributes:
        dataset: The set that the question is from.
        item: The question, the same for all systems that were asked it.
        recording: What it is about. Rows of one recording are drawn together by the bootstrap; the item where it is not known.
        system: Whose answer it is.
        judge, prompt, run: Who scored, by which prompt or rubric, and in which repetition.
        question, reference, answer: The texts that the judge saw.
        score: 0 to 100; None with a reason.
        unscored: Why there is no score.
        counted_as: What the suite counts for this row where that is not `score`, such as 0 for a reply that it could not read. None where the
            suite counts the score, or leaves an unscored row out.
        reread: The grade that stands in a reply which the suite could not read, 0 to 100.
        attribute, label: The class that is right, and what it is a class of.
        mapped: The class that the answer was read as; None for none.
        correct: Whether the answer is right, where that is known without a class.
        human: Score by people, 0 to 100.
        tokens, cost: Of this verdict; the unit of money is the table's.
        raw: What the judge replied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = "set"
    item: str = Field(min_length=1)
    recording: str = ""
    system: str = "system"
    judge: str = "judge"
    prompt: str = ""
    run: int = Field(default=0, ge=0)
    question: str = ""
    reference: str = ""
    answer: str = ""
    score: float | None = Field(default=None, ge=0, le=100)
    unscored: Reason | None = None
    counted_as: float | None = Field(default=None, ge=0, le=100)
    reread: float | None = Field(default=None, ge=0, le=100)
    attribute: str | None = None
    label: str | None = None
    mapped: str | None = None
    correct: bool | None = None
    human: float | None = Field(default=None, ge=0, le=100)
    tokens: int | None = Field(default=None, ge=0)
    cost: float | None = Field(default=None, ge=0)
    raw: str | None = None

    @model_validator(mode="after")
    def _score_or_reason(self) -> Self:
        if (self.score is None) == (self.unscored is None):
            raise ValueError("a row has either a score or a reason why it is unscored")
        return self

    @property
    def rater(self) -> Rater:
        """Judge and prompt."""
        return Rater(self.judge, self.prompt)

    @property
    def key(self) -> AnswerKey:
        """The answer that was judged."""
        return AnswerKey(self.dataset, self.item, self.system, self.question, self.answer)

    @property
    def cluster(self) -> str:
        """What the bootstrap draws."""
        return f"{self.dataset}/{self.recording or self.item}"

    @property
    def right(self) -> bool | None:
        """Whether the answer is right; an answer that was read as no class is wrong. None where nobody knows."""
        if self.correct is not None:
            return self.correct
        return None if self.label is None else self.mapped == self.label


class Header(BaseModel):
    """What a log says of one judge, one system and one whole set, while it shows only some of the rows.

    Attributes:
        score: The suite's own mean, 0 to 100.
        success_rate: Share of verdicts that the suite could read; None where it does not say.
        n: Rows of the whole set; None where the log does not say.
        n_multiple_of: What `n` must be a multiple of for `score` and `success_rate` to be shares of it.
        kept: Rows that the log shows.
        failures_as_zero: Whether the suite counts an unread verdict as 0.
        order: In which order, or of which set, the rows are: headers of other orders may be of other rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str
    system: str
    judge: str
    prompt: str = ""
    score: float = Field(ge=0, le=100)
    success_rate: float | None = Field(default=None, ge=0, le=1)
    n: int | None = None
    n_multiple_of: int | None = None
    kept: int
    failures_as_zero: bool = False
    order: int = 0

    @property
    def rater(self) -> Rater:
        """Judge and prompt."""
        return Rater(self.judge, self.prompt)

    @property
    def honest(self) -> float | None:
        """The mean over the verdicts that were read: exact, since the others add 0 to the sum; None where the log does not allow it."""
        if not self.failures_as_zero:
            return self.score
        if not self.success_rate:
            return None
        return min(100.0, self.score / self.success_rate)


@dataclass(frozen=True)
class JudgedTable:
    """All rows and headers of what was read.

    `notes` say what the format does not hold, and so what no validation can find in it.
    """

    source: str
    format: str
    rows: Sequence[Judged] = ()
    headers: Sequence[Header] = ()
    notes: Sequence[str] = ()
