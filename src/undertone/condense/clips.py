"""Clips: consecutive segments of one recording, cut from predicted segments (training) or from human references (test)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from undertone.condense.nested import as_lists, spread
from undertone.errors import DataError
from undertone.records import Clip, Recording, Segment, Split, arrow_schema
from undertone.stages import ColumnStage, Context, Dropped, Fates, Kept, Outcome, Stage


class ClipRule(BaseModel):
    """How segments are joined; the same for clips from predicted segments and from references."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_ms: int = Field(default=4_000, gt=0)
    max_ms: int = Field(default=15_000, gt=0)
    max_gap_ms: int = Field(default=2_000, ge=0)
    max_segments: int | None = Field(default=None, ge=1)

    def begins(self, recordings: Iterable[object], start_ms: Iterable[int], end_ms: Iterable[int]) -> list[bool]:
        """Which segments begin a clip, where segments are joined greedily: as long as fits, broken at long gaps.

        Args:
            recordings: Of each segment its recording, equal ones side by side.
            start_ms, end_ms: Its times; in time order within each recording.
        """
        made: list[bool] = []
        here: object = None
        first_start = first_end = last_end = joined = 0
        for recording, start, end in zip(recordings, start_ms, end_ms, strict=True):
            fits = (
                bool(made)
                and recording == here
                and start - last_end <= self.max_gap_ms
                # A first segment that is too long by itself is dropped, and must not take those inside it along.
                and max(end, first_end) - first_start <= self.max_ms
                and joined != self.max_segments
            )
            if not fits:
                here, first_start, first_end, joined = recording, start, end, 0
            made.append(not fits)
            last_end = end
            joined += 1
        return made

    def join(self, segments: Iterable[Segment]) -> Iterator[tuple[Segment, ...]]:
        """The segments of one recording as runs that become clips, in time order."""
        ordered = sorted(segments, key=lambda one: (one.start_ms, one.end_ms))
        begins = self.begins(itertools.repeat(None, len(ordered)), *([getattr(one, key) for one in ordered] for key in _TIMES))
        edges = [index for index, begin in enumerate(begins) if begin] + [len(ordered)]
        for start, end in itertools.pairwise(edges):
            yield tuple(ordered[start:end])

    def refusal(self, duration_ms: int) -> str | None:
        """Why a clip of this length is none by this rule; None where it is."""
        return "clip_too_short" if duration_ms < self.min_ms else "clip_too_long" if duration_ms > self.max_ms else None


_TIMES = ("start_ms", "end_ms")
_ABOUT = ("uri", "source", "language", "licence", "split")
"""What a clip repeats of its recording."""


class CutClips(ColumnStage[Segment, Clip]):
    """Join the predicted segments of each recording into clips; rows of split `splits` only.

    The default lengths suit a decoder that hears 15 s; the clips of 2505.13338 are `rule: {min_ms: 10000, max_ms: 60000}`.
    """

    name: ClassVar[str] = "clips"
    version: ClassVar[str] = "3"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Clip]] = Clip
    scope: ClassVar = "part"
    looks_at: ClassVar = ("recording_id", *_TIMES)
    borrows: ClassVar[bool] = True
    sides: ClassVar = {"recordings": Recording}

    rule: ClipRule = ClipRule()
    splits: tuple[Split, ...] = ("train",)

    _recordings: pa.Table = PrivateAttr()

    def open(self, context: Context) -> None:
        self._recordings = context.sides["recordings"].arrow(columns=["id", *_ABOUT]).combine_chunks()

    def fates(self, columns: pa.Table) -> Fates:
        about = self._about(columns["recording_id"])
        segments = pl.DataFrame(columns.select(["recording_id", *_TIMES])).with_columns(
            row=pl.int_range(pl.len()), split=pl.Series(about["split"])
        )
        wanted = segments.filter(pl.col("split").is_in(self.splits)).sort("recording_id", *_TIMES, maintain_order=True)
        begins = self.rule.begins(*(wanted[name].to_list() for name in ("recording_id", *_TIMES)))
        wanted = wanted.with_columns(run=pl.Series(begins, dtype=pl.Boolean).cum_sum())
        runs = wanted.group_by("run", maintain_order=True).agg(
            pl.col("start_ms").first(), pl.col("end_ms").max(), pl.col("row").first().alias("first"), pl.len().alias("segments")
        )
        duration_ms = runs["end_ms"] - runs["start_ms"]
        refusals = pl.Series([self.rule.refusal(one) for one in duration_ms.to_list()], dtype=pl.String)
        runs = runs.with_columns(reason=refusals, detail=pl.format("{} ms", duration_ms))
        other = segments.filter(~pl.col("split").is_in(self.splits).fill_null(False))
        lost = pl.concat(
            [
                other.select("row", reason=pl.lit("other_split"), detail="split"),
                wanted.join(runs.drop_nulls("reason"), on="run").select("row", "reason", "detail"),
            ]
        )
        kept = runs.filter(pl.col("reason").is_null()).sort("first")
        rows = wanted.join(kept.select("run", "first"), on="run").sort("first", maintain_order=True)["row"]
        return Fates(
            reason=spread(lost, "row", "reason", len(columns)),
            detail=spread(lost, "row", "detail", len(columns)),
            rows=_clips(columns["recording_id"], kept, about),
            members=as_lists(rows.to_arrow(), kept["segments"].to_numpy(), pa.list_(pa.int64())),
            # A clip counts with its first segment; the others are kept as parts of it.
            origin=kept["first"].to_arrow(),
        )

    def _about(self, recording_ids: pa.ChunkedArray) -> pa.Table:
        """What is known of the recording of each segment."""
        place = pc.index_in(recording_ids, self._recordings["id"].combine_chunks())
        if place.null_count:
            stray = recording_ids.filter(pc.is_null(place))[0].as_py()
            raise DataError(
                f"the segments are of recording {stray}, which is not among the recordings: they were labelled from another corpus/. "
                "Label again with --redo label"
            )
        return self._recordings.select(_ABOUT).take(place)


def _clips(recording_id: pa.ChunkedArray, runs: pl.DataFrame, about: pa.Table) -> pa.Table:
    """The clips that runs of segments make, without their segments.

    Args:
        recording_id: Of every segment.
        runs: start_ms, end_ms and the row of the `first` segment of each.
        about: The recording of every segment.
    """
    first = runs["first"].to_arrow()
    recording_id, about = recording_id.take(first).combine_chunks(), about.take(first)
    times = {name: runs[name].to_arrow() for name in _TIMES}
    span = pc.binary_join_element_wise(times["start_ms"].cast(pa.string()), times["end_ms"].cast(pa.string()), "-")
    made = {
        "id": pc.binary_join_element_wise(recording_id, span, "@"),
        "recording_id": recording_id,
        **{name: about[name] for name in _ABOUT},
        **times,
    }
    schema = pa.schema([field for field in arrow_schema(Clip) if field.name in made])
    return pa.table([made[name] for name in schema.names], schema=schema)


class CutReferences(Stage[Recording, Clip]):
    """Join the human references of each recording into clips, for conventional training questions and for the benchmark."""

    name: ClassVar[str] = "references"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Clip]] = Clip

    rule: ClipRule = ClipRule()

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Clip]]:
        return [self._cut(row) for row in rows]

    def _cut(self, row: Recording) -> Outcome[Clip]:
        if not row.references:
            return Dropped("no_references")
        about = {name: getattr(row, name) for name in _ABOUT}
        clips = [clip_of(run, **about) for run in self.rule.join(row.references)]
        fit = tuple(clip for clip in clips if self.rule.refusal(clip.duration_ms) is None)
        # Where none fits, the longest speaks for all: it is too short only where all are.
        longest_ms = max(clip.duration_ms for clip in clips)
        refusal = None if fit else self.rule.refusal(longest_ms)
        return Dropped(refusal, f"{longest_ms} ms") if refusal else Kept(fit)


def clip_of(
    run: Sequence[Segment], *, uri: str, source: str, language: str | None, licence: str | None, split: Split | None
) -> Clip:
    """The clip that a run of segments makes."""
    return Clip(
        recording_id=run[0].recording_id,
        uri=uri,
        source=source,
        language=language,
        licence=licence,
        split=split,
        start_ms=run[0].start_ms,
        end_ms=max(one.end_ms for one in run),
        segments=tuple(run),
    )
