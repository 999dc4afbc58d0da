"""Balance: no emotion may outnumber the median emotion by more than a factor; neutral is the usual surplus in the wild."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import ClassVar

from pydantic import Field, PrivateAttr

from undertone.condense.occurrence import dominant_emotion
from undertone.records import Clip, content_hash
from undertone.stages import Context, Dropped, Kept, Outcome, Stage


class Balance(Stage[Clip, Clip]):
    """Cap the clips of each dominant emotion at `max_ratio` times the median emotion's number.

    Which clips go is drawn by a hash of seed and clip, so it depends neither on order nor on shards.
    """

    name: ClassVar[str] = "balance"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Clip]] = Clip
    writes: ClassVar[type[Clip]] = Clip
    scope: ClassVar = "table"

    max_ratio: float = Field(default=1.5, ge=1)

    _seed: int = PrivateAttr(default=0)

    def open(self, context: Context) -> None:
        self._seed = context.seed

    def process(self, rows: Sequence[Clip]) -> Sequence[Outcome[Clip]]:
        cells: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            cells[dominant_emotion(row) or "unknown"].append(row.id)
        if not cells:
            return []
        cap = max(1, int(self.max_ratio * median(len(members) for members in cells.values())))
        kept = {one for members in cells.values() for one in sorted(members, key=self._draw)[:cap]}
        return [Kept((row,)) if row.id in kept else Dropped("surplus", dominant_emotion(row)) for row in rows]

    def _draw(self, clip_id: str) -> str:
        return content_hash(str(self._seed), clip_id)
