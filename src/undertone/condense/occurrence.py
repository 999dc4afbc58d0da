"""Occurrence: a clip stays only where an emotion fills enough of it to speak about it (2505.13338, sec. 2)."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
import pyarrow as pa
from pydantic import Field

from undertone.condense.nested import HELD_LEAVES, clip_labels, spread, time_held
from undertone.records import Clip
from undertone.stages import ColumnStage, Fates

NOT_AN_EMOTION = ("unknown", "other")


class Occurrence(ColumnStage[Clip, Clip]):
    """Keep a clip in which some emotion holds at least `min_share` of the labelled time."""

    name: ClassVar[str] = "occurrence"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Clip]] = Clip
    writes: ClassVar[type[Clip]] = Clip
    looks_at: ClassVar = HELD_LEAVES
    borrows: ClassVar[bool] = True

    min_share: float = Field(default=0.25, ge=0, le=1)

    def fates(self, columns: pa.Table) -> Fates:
        held = time_held(clip_labels(columns["segments"], "emotion"))
        most = held.filter(~pl.col("category").is_in(NOT_AN_EMOTION)).unique("row", keep="first", maintain_order=True)
        rare = most.filter(pl.col("share") < self.min_share)
        every = pl.DataFrame({"row": pl.int_range(len(columns), eager=True)})
        lost = pl.concat(
            [
                every.join(most, on="row", how="anti").select("row", reason=pl.lit("no_emotion"), detail=pl.lit(None, pl.String)),
                rare.select(
                    "row",
                    reason=pl.lit("emotion_too_rare"),
                    detail=pl.format("{} fills {}", "category", pl.col("share").round(2)),
                ),
            ]
        )
        return Fates(reason=spread(lost, "row", "reason", len(columns)), detail=spread(lost, "row", "detail", len(columns)))
