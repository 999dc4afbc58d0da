"""Consistency: a window whose emotion category and valence contradict each other loses its emotion (2505.13338, sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from undertone.records import Label, Segment
from undertone.stages import Dropped, Kept, Outcome, Stage

Sign = Literal["positive", "negative", "neutral", "any"]

SIGN_OF: dict[str, Sign] = {
    "happy": "positive",
    "angry": "negative",
    "disgusted": "negative",
    "fearful": "negative",
    "sad": "negative",
    "neutral": "neutral",
    # Surprise may be pleasant or not; the paper does not say how it treats it. It passes at any valence.
    "surprised": "any",
    "other": "any",
    "unknown": "any",
}


class Consistency(Stage[Segment, Segment]):
    """Keep a segment while at least one of its windows has an emotion that its valence does not contradict.

    `positive_min` is the paper's x (0.5), `negative_max` its y (0.4): a positive category wants valence >= x, a negative one <= y. a neutral
    one lies between them, with `neutral_slack` to either side (the paper's bounds leave a band of 0.1, narrower than the error of any
    valence model).
    """

    name: ClassVar[str] = "consistency"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Segment]] = Segment
    batch_rows: ClassVar[int] = 1_000

    positive_min: float = Field(default=0.5, ge=0, le=1)
    negative_max: float = Field(default=0.4, ge=0, le=1)
    neutral_slack: float = Field(default=0.1, ge=0, le=1)

    def process(self, rows: Sequence[Segment]) -> Sequence[Outcome[Segment]]:
        return [self._one(row) for row in rows]

    def _one(self, segment: Segment) -> Outcome[Segment]:
        emotions = segment.of("emotion")
        if not emotions:
            return Dropped("no_emotion", "every labeller abstained")
        valence = {(one.start_ms, one.end_ms): one.number for one in segment.of("valence")}
        contradicted = {
            id(one) for one in emotions if not self.agrees(one.category or "unknown", valence.get((one.start_ms, one.end_ms)))
        }
        if len(contradicted) == len(emotions):
            shown = [f"{one.category} at valence {valence[one.start_ms, one.end_ms]:.2f}" for one in emotions[:3]]
            return Dropped("inconsistent", ", ".join(shown))
        labels = tuple(_withdrawn(one) if id(one) in contradicted else one for one in segment.labels)
        return Kept((segment.model_copy(update={"labels": labels}),))

    def agrees(self, category: str, valence: float | None) -> bool:
        """Whether a category and a valence in 0..1 go together; without a valence there is nothing to contradict."""
        if valence is None:
            return True
        match SIGN_OF.get(category, "any"):
            case "positive":
                return valence >= self.positive_min
            case "negative":
                return valence <= self.negative_max
            case "neutral":
                return self.negative_max - self.neutral_slack < valence < self.positive_min + self.neutral_slack
            case _:
                return True


def _withdrawn(label: Label) -> Label:
    return label.model_copy(update={"category": None, "reason": "inconsistent"})
