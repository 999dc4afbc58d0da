"""Occurrence: a clip stays only where an emotion fills enough of it to speak about it (2505.13338, sec. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from undertone.records import Clip, category_shares
from undertone.stages import Dropped, Kept, Outcome, Stage

NOT_AN_EMOTION = frozenset({"unknown", "other"})


class Occurrence(Stage[Clip, Clip]):
    """Keep a clip in which some emotion holds at least `min_share` of the labelled time."""

    name: ClassVar[str] = "occurrence"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Clip]] = Clip
    writes: ClassVar[type[Clip]] = Clip
    batch_rows: ClassVar[int] = 1_000

    min_share: float = Field(default=0.25, ge=0, le=1)

    def process(self, rows: Sequence[Clip]) -> Sequence[Outcome[Clip]]:
        return [self._one(row) for row in rows]

    def _one(self, clip: Clip) -> Outcome[Clip]:
        shares = {name: share for name, share in emotion_shares(clip).items() if name not in NOT_AN_EMOTION}
        if not shares:
            return Dropped("no_emotion")
        name, share = max(shares.items(), key=lambda one: one[1])
        return Kept((clip,)) if share >= self.min_share else Dropped("emotion_too_rare", f"{name} fills {share:.2f}")


def emotion_shares(clip: Clip) -> dict[str, float]:
    """Share of the labelled time that each emotion fills; sums to 1, empty where nothing is labelled."""
    return category_shares(clip.segments, "emotion")


def dominant_emotion(clip: Clip) -> str | None:
    """The emotion that fills most of the clip, ties by name; None where nothing is labelled."""
    shares = emotion_shares(clip)
    return max(sorted(shares), key=lambda name: shares[name]) if shares else None
