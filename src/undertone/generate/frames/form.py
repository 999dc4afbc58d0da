"""What a form is: one way to ask for one thing, in all its wordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FrameSet = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """The wordings of one form.

    Attributes:
        train: Questions for training, in many wordings.
        test: Questions for the benchmark.
        answers: Answers for training; the first is the plain one, which short template data and the benchmark's references use.
        template: Questions of conventional template-like data (strategy "pqa"); also train questions.
        rich: Further train questions of the strategy "grammar" alone: a small decoder does not learn all of them.
        rich_answers: Its answers; none for `answers`.
        outcomes: Where the answer is one of a few things that can be the case, the answers for each of them; `answers` is then empty.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    answers: tuple[str, ...] = ()
    template: tuple[str, ...] = ()
    rich: tuple[str, ...] = ()
    rich_answers: tuple[str, ...] = ()
    outcomes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def every_train(self) -> tuple[str, ...]:
        """All questions that can be asked in training."""
        return (*self.train, *self.template, *self.rich)
