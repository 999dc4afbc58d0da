"""Consistency: a window whose emotion category and valence contradict each other loses its emotion (2505.13338, sec. 3.1)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from undertone.condense.nested import Mask, in_one_piece, labels_in, spread, with_fields
from undertone.records import Segment
from undertone.stages import ColumnStage, Fates

Sign = Literal["positive", "negative", "neutral", "any"]

SIGN_OF: dict[str, Sign] = {
    "happy": "positive",
    "angry": "negative",
    "disgusted": "negative",
    "fearful": "negative",
    "sad": "negative",
    "neutral": "neutral",
}
"""The valence of the emotions that have one; that of the others is a setting of `Consistency`."""


class Consistency(ColumnStage[Segment, Segment]):
    """Keep a segment while at least one of its windows has an emotion that its valence does not contradict.

    `positive_min` is the paper's x (0.5), `negative_max` its y (0.4): a positive category wants valence >= x, a negative one <= y. a neutral
    one lies between them, with `neutral_slack` to either side (the paper's bounds leave a band of 0.1, narrower than the error of any
    valence model). Without a valence of the same window there is nothing to contradict. `surprised`, `other` and `unknown` say what these
    classes want: surprise may be pleasant or not, and the paper does not say how it treats it, so all three pass at any valence.

    A contradicted window keeps its label as an abstention, "inconsistent", and words that had its emotion inherit anew, as
    `Segment.with_labels` would have it.
    """

    name: ClassVar[str] = "consistency"
    version: ClassVar[str] = "3"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Segment]] = Segment

    positive_min: float = Field(default=0.5, ge=0, le=1)
    negative_max: float = Field(default=0.4, ge=0, le=1)
    neutral_slack: float = Field(default=0.1, ge=0, le=1)
    surprised: Sign = "any"
    other: Sign = "any"
    unknown: Sign = "any"

    def fates(self, columns: pa.Table) -> Fates:
        windows = labels_in(columns["labels"], "emotion", "valence", abstentions=True)
        emotions = self.judged(windows)
        wrong = emotions.filter("contradicted")
        heard, refused = (np.bincount(one["row"].to_numpy(), minlength=len(columns)) for one in (emotions, wrong))
        silent, refuted = heard == 0, (heard > 0) & (heard == refused)
        reason = pc.if_else(silent, "no_emotion", pc.if_else(refuted, "inconsistent", pa.scalar(None, pa.string())))
        detail = pc.if_else(silent, "every labeller abstained", _shown(wrong, refuted))
        mended = _without(columns, windows, wrong["index"].to_numpy(), touched=(refused > 0) & ~refuted)
        return Fates(reason=reason, detail=detail, rows=mended.filter(pc.is_null(reason)))

    def judged(self, windows: pl.DataFrame) -> pl.DataFrame:
        """The emotion labels among `windows` (see `labels_in`), with the `valence` of their window and whether they are `contradicted`."""
        same = ["row", "start_ms", "end_ms"]
        told = windows.filter(pl.col("reason").is_null())
        valence = told.filter(attribute="valence").unique(same, keep="last", maintain_order=True)
        emotions = told.filter(attribute="emotion")
        joined = emotions.join(valence.select(*same, valence="number"), on=same, how="left", maintain_order="left")
        return joined.with_columns(contradicted=self.contradicted())

    def contradicted(self) -> pl.Expr:
        """Whether the columns `category` and `valence` (0..1) contradict each other."""
        valence = pl.col("valence")
        low, high = self.negative_max - self.neutral_slack, self.positive_min + self.neutral_slack
        signs = SIGN_OF | {"surprised": self.surprised, "other": self.other, "unknown": self.unknown}
        sign = pl.col("category").fill_null("unknown").replace_strict(signs, default="any", return_dtype=pl.String)
        agrees = (
            pl.when(sign == "positive")
            .then(valence >= self.positive_min)
            .when(sign == "negative")
            .then(valence <= self.negative_max)
            .when(sign == "neutral")
            .then(valence.is_between(low, high, closed="none"))
        )
        return ~agrees.fill_null(True)


def _shown(wrong: pl.DataFrame, rows: Mask) -> pa.Array:
    """For people: the first three contradictions of each of `rows`."""
    first = wrong.filter(rows[wrong["row"].to_numpy()]).group_by("row", maintain_order=True).head(3)
    said = pl.format("{} at valence {}", "category", pl.col("valence").round(2)).str.join(", ")
    return spread(first.group_by("row", maintain_order=True).agg(said.alias("said")), "row", "said", len(rows))


def _without(columns: pa.Table, windows: pl.DataFrame, wrong: NDArray[np.integer], *, touched: Mask) -> pa.Table:
    """The columns with the labels at the places `wrong` withdrawn, and what the words of the `touched` rows then have."""
    flat = in_one_piece(columns["labels"]).flatten()
    withdrawn = np.zeros(len(flat), dtype=bool)
    withdrawn[wrong] = True
    labels = with_fields(
        columns["labels"],
        category=pc.if_else(withdrawn, pa.scalar(None, pa.string()), pc.struct_field(flat, "category")),
        reason=pc.if_else(withdrawn, "inconsistent", pc.struct_field(flat, "reason")),
    )
    emotions = windows.filter(pl.Series(touched[windows["row"].to_numpy()])).filter(attribute="emotion")
    gone = pl.Series(withdrawn[emotions["index"].to_numpy()], dtype=pl.Boolean)
    left = emotions.with_columns(category=pl.when(~gone).then("category"))
    words = with_fields(columns["words"], emotion=_inherited(columns["words"], left, touched))
    schema = columns.schema
    return pa.table([{"labels": labels, "words": words}.get(name, columns[name]) for name in schema.names], schema=schema)


def _inherited(words: pa.ListArray | pa.ChunkedArray, emotions: pl.DataFrame, touched: Mask) -> pa.Array:
    """The emotion of every word; in the `touched` rows by the rule of `records.inherited` from all their `emotions`."""
    lists = in_one_piece(words)
    flat = lists.flatten()
    row = pc.list_parent_indices(lists).to_numpy()
    again = touched[row]
    index = pa.array(np.flatnonzero(again))
    times = {name: pc.struct_field(flat, f"{name}_ms").take(index) for name in ("start", "end")}
    spoken = pl.DataFrame(pa.table({"word": pa.array(np.arange(len(index))), "row": pa.array(row[again]), **times}))
    end = pl.max_horizontal("end", pl.col("start") + 1)
    overlap_ms = pl.min_horizontal(end, "end_ms") - pl.max_horizontal("start", "start_ms")
    over = spoken.join(emotions, on="row", maintain_order="left_right").with_columns(overlap_ms=overlap_ms)
    best = (
        over.filter(pl.col("overlap_ms") > 0)
        .sort("word", "overlap_ms", descending=[False, True], maintain_order=True)
        .unique("word", keep="first")
    )
    return pc.replace_with_mask(pc.struct_field(flat, "emotion"), pa.array(again), spread(best, "word", "category", len(index)))
