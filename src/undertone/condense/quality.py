"""Quality: segments that are too quiet, too noisy, clipped, or hardly speech go, by what the labeller `quality` measured."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
import pyarrow as pa
from pydantic import Field

from undertone.condense.nested import LABEL_LEAVES, labels_in, spread
from undertone.records import Segment
from undertone.stages import ColumnStage, Fates

_MEASURED = ("level_db", "snr_db", "clipped_share", "speech_share")


class Quality(ColumnStage[Segment, Segment]):
    """Drop segments by level, signal-to-noise ratio, clipping and share of speech; each bound may be off (None).

    Without the labeller `quality` nothing is measured and every segment passes, unless `unmeasured` says "drop". A segment that offends
    several bounds is dropped by the first in the order of the fields; its detail tells all.

    Attributes:
        min_level_db: Least level of the speech, dB relative to full scale: "too_quiet".
        min_snr_db: Least ratio of speech to noise: "too_noisy".
        max_clipped_share: Largest share of samples at the peak: "clipped".
        min_speech_share: Least share of time near a voice: "too_little_speech".
        unmeasured: What becomes of a segment without one of the measurements that a bound asks for; "drop" gives "not_measured".
    """

    name: ClassVar[str] = "quality"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Segment]] = Segment
    looks_at: ClassVar = LABEL_LEAVES
    borrows: ClassVar[bool] = True

    min_level_db: float | None = Field(default=-60.0, ge=-120, le=0)
    min_snr_db: float | None = Field(default=5.0, ge=-10, le=40)
    max_clipped_share: float | None = Field(default=0.005, ge=0, le=1)
    min_speech_share: float | None = Field(default=0.4, ge=0, le=1)
    unmeasured: Literal["keep", "drop"] = "keep"

    def fates(self, columns: pa.Table) -> Fates:
        lost = self.judged(measured(columns)).filter(pl.col("reason").is_not_null())
        return Fates(reason=spread(lost, "row", "reason", len(columns)), detail=spread(lost, "row", "detail", len(columns)))

    def judged(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of `measured` with the `reason` why they go (null where they stay), and a `detail` for people."""
        rules: list[tuple[str, str, pl.Expr]] = []
        if self.min_level_db is not None:
            rules.append(("too_quiet", "level_db", pl.col("level_db") < self.min_level_db))
        if self.min_snr_db is not None:
            rules.append(("too_noisy", "snr_db", pl.col("snr_db") < self.min_snr_db))
        if self.max_clipped_share is not None:
            rules.append(("clipped", "clipped_share", pl.col("clipped_share") > self.max_clipped_share))
        if self.min_speech_share is not None:
            rules.append(("too_little_speech", "speech_share", pl.col("speech_share") < self.min_speech_share))
        told = [
            pl.when(offends).then(pl.format(name + " {}", pl.col(name).round(4)))
            for _, name, offends in rules  # a null comparison is neither true nor an offence
        ]
        if self.unmeasured == "drop":
            missing = pl.any_horizontal([pl.col(name).is_null() for _, name, _ in rules] or [pl.lit(False)])
            rules.append(("not_measured", "row", missing))
        reasons = [pl.when(offends).then(pl.lit(code)) for code, _, offends in rules]
        none = pl.lit(None, pl.String)
        return rows.with_columns(
            reason=pl.coalesce(*reasons, none), detail=pl.concat_str(told, separator=", ", ignore_nulls=True) if told else none
        )


def measured(columns: pa.Table) -> pl.DataFrame:
    """The four measurements of every segment, null where there is none.

    Args:
        columns: With a column `labels`.

    Returns:
        row, level_db, snr_db, clipped_share, speech_share; the mean by duration where a segment has several of one.
    """
    labels = labels_in(columns["labels"], *_MEASURED).drop_nulls("number")
    length_ms = (pl.col("end_ms") - pl.col("start_ms")).clip(lower_bound=1)
    means = [
        ((pl.col("number") * length_ms).filter(attribute=name).sum() / length_ms.filter(attribute=name).sum()).alias(name)
        for name in _MEASURED
    ]
    every = pl.DataFrame({"row": pl.int_range(len(columns), eager=True)})
    return every.join(labels.group_by("row").agg(means).fill_nan(None), on="row", how="left", maintain_order="left")
