"""The funnel: what every filter of condensation was given and what it left, in rows, hours and emotions, and what went in under which licence.

Everything is read from a run's tables, columns only: counts from the done markers, lost hours from the spans in `dropped.parquet`, hours and
emotions from the rows that are left. Hours are hours of speech (of segments); pauses inside a clip count in `row_hours` alone, so that
joining segments into clips does not look like a gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.condense.nested import CLIP_LABEL_LEAVES, LABEL_LEAVES, in_one_piece, labels_in, time_held
from undertone.paths import Location
from undertone.records import EMOTIONS, Clip, Recording, Segment
from undertone.tables import Table

_MS_PER_HOUR = 3_600_000
_FIRST_STAGE = "label"  # the one that reads recordings
_SPAN = ("recording_id", "start_ms", "end_ms")
_IN_CLIP = ("segments.list.element.start_ms", "segments.list.element.end_ms")


class At(NamedTuple):
    """A table of the path: the name of its step, its folder, and what its rows are."""

    name: str
    path: Location
    record: type[Segment] | type[Clip]


class Step(BaseModel):
    """What one step was given and left.

    Attributes:
        name: Of the step.
        unit_in, unit: What its input and its output rows are.
        rows_in, kept, failed: Fates of its input rows; with `dropped` they add up.
        dropped: Input rows by reason.
        lost_hours: Hours of dropped rows by reason, where their ids are spans.
        rows, row_hours: Output rows, and their length with pauses.
        segments, hours: The segments in them, and their length.
        emotion_segments: Segments by the emotion that fills most of their labelled time.
        emotion_hours: Hours by emotion, each segment's divided as its labelled time is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit_in: str
    unit: str
    rows_in: int
    kept: int
    dropped: dict[str, int]
    failed: int
    lost_hours: dict[str, float]
    rows: int
    row_hours: float
    segments: int
    hours: float
    emotion_segments: dict[str, int]
    emotion_hours: dict[str, float]


class Source(BaseModel):
    """One corpus under one licence: what went in, and what of it is left after the last step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    licence: str
    recordings_in: int
    hours_in: float
    recordings: int
    hours: float


class Funnel(BaseModel):
    """All steps in order, and all sources by name; `recording_hours` is what the first step was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recordings: int
    recording_hours: float
    steps: tuple[Step, ...]
    sources: tuple[Source, ...]

    @property
    def emotions(self) -> list[str]:
        """The emotions of any step, by name."""
        return sorted({name for step in self.steps for name in step.emotion_hours})


def funnel(recordings: Table[Recording], steps: Sequence[At]) -> Funnel:
    """The funnel of a run.

    Args:
        recordings: The table `corpus/`.
        steps: The path's tables in order; those that are not finished are left out.

    Raises:
        DataError: A table is damaged or holds other records.
    """
    made: list[Step] = []
    left = pl.DataFrame(schema={"recording_id": pl.String, "ms": pl.Int64, "segments": pl.Int64})
    for at in steps:
        if tables.finished(at.path) is not None:
            step, left = _step(at, made[-1].unit if made else None)
            made.append(step)
    corpus = pl.DataFrame(recordings.arrow(columns=["id", "source", "licence", "samples", "rate_hz"]))
    corpus = corpus.with_columns(ms=pl.col("samples") * 1000 // pl.col("rate_hz"))
    return Funnel(
        recordings=len(corpus),
        recording_hours=corpus["ms"].sum() / _MS_PER_HOUR,
        steps=tuple(made),
        sources=tuple(_sources(corpus, left)),
    )


def _step(at: At, unit_before: str | None) -> tuple[Step, pl.DataFrame]:
    """A step, and the milliseconds that it left of each recording."""
    table = tables.open_table(at.path, at.record)
    names = (*_SPAN, *_IN_CLIP, *CLIP_LABEL_LEAVES) if at.record is Clip else (*_SPAN, *LABEL_LEAVES)
    parts = [_part(columns, at.record) for columns in table.columns(names)]
    spoken = pl.concat([one.spoken for one in parts]).group_by("recording_id").sum()
    emotions = pl.concat([one.emotions for one in parts]).group_by("emotion").sum().sort("emotion")
    counts = table.done.counts
    unit = "clips" if at.record is Clip else "segments"
    step = Step(
        name=at.name,
        unit_in=unit_before or ("recordings" if table.done.fingerprint.stage == _FIRST_STAGE else unit),
        unit=unit,
        rows_in=counts.inputs,
        kept=counts.kept,
        dropped={reason: count for reason, count in counts.reasons.items() if reason != "error"},
        failed=counts.failed,
        lost_hours=_lost_hours(table.losses("dropped", ["row_id", "reason"])),
        rows=counts.rows,
        row_hours=sum(one.row_ms for one in parts) / _MS_PER_HOUR,
        segments=spoken["segments"].sum(),
        hours=spoken["ms"].sum() / _MS_PER_HOUR,
        emotion_segments=dict(emotions.select("emotion", "segments").iter_rows()),
        emotion_hours={name: ms / _MS_PER_HOUR for name, ms in emotions.select("emotion", "ms").iter_rows()},
    )
    return step, spoken


class _Part(NamedTuple):
    """Sums over one part: `spoken` by recording_id and `emotions` by emotion, both with ms and segments; length of its rows."""

    spoken: pl.DataFrame
    emotions: pl.DataFrame
    row_ms: int


def _part(columns: pa.Table, record: type[Segment] | type[Clip]) -> _Part:
    row_ms = pc.sum(pc.subtract(columns["end_ms"], columns["start_ms"]), min_count=0).as_py()
    recording = in_one_piece(columns["recording_id"])
    if record is Clip:
        lists = in_one_piece(columns["segments"])
        recording = recording.take(pc.list_parent_indices(lists))
        segments = lists.flatten()
        start, end, labels = (pc.struct_field(segments, name) for name in ("start_ms", "end_ms", "labels"))
    else:
        start, end, labels = (in_one_piece(columns[name]) for name in ("start_ms", "end_ms", "labels"))
    about = pl.DataFrame(pa.table({"recording_id": recording, "ms": pc.subtract(end, start)}))
    number = pl.len().cast(pl.Int64).alias("segments")
    known = labels_in(labels, "emotion").filter(pl.col("category").is_in(EMOTIONS))  # `label/raw` has the models' own words as well
    held = time_held(known).with_columns(of=pl.int_range(pl.len()).over("row"))
    length = about["ms"].gather(held["row"])
    emotions = held.with_columns(ms=pl.col("share") * length).group_by(emotion="category")
    return _Part(
        about.group_by("recording_id").agg(pl.col("ms").sum(), number),
        emotions.agg(pl.col("ms").sum(), segments=(pl.col("of") == 0).sum().cast(pl.Int64)),  # time_held puts the most first
        row_ms,
    )


def _lost_hours(dropped: pa.Table) -> dict[str, float]:
    """Hours of the dropped rows whose ids are spans ("RECORDING@START-END"), by reason."""
    lost = pl.DataFrame(dropped)
    span = pl.col("row_id").str.extract_groups(r"@(?<start>\d+)-(?<end>\d+)$")
    ms = span.struct.field("end").cast(pl.Int64) - span.struct.field("start").cast(pl.Int64)
    sums = lost.with_columns(ms=ms).drop_nulls("ms").group_by("reason").agg(pl.col("ms").sum()).sort("reason")
    return {reason: total / _MS_PER_HOUR for reason, total in sums.iter_rows()}


def _sources(corpus: pl.DataFrame, left: pl.DataFrame) -> list[Source]:
    """What went in and what is left, by source and licence."""
    both = corpus.join(left.select("recording_id", left_ms="ms"), left_on="id", right_on="recording_id", how="left")
    by = both.group_by("source", pl.col("licence").fill_null("not stated")).agg(
        pl.len().alias("recordings_in"), pl.col("ms").sum(), pl.col("left_ms").count().alias("recordings"), pl.col("left_ms").sum()
    )
    return [
        Source(
            name=row["source"],
            licence=row["licence"],
            recordings_in=row["recordings_in"],
            hours_in=row["ms"] / _MS_PER_HOUR,
            recordings=row["recordings"],
            hours=row["left_ms"] / _MS_PER_HOUR,
        )
        for row in by.sort("source", "licence").iter_rows(named=True)
    ]
