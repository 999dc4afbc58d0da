"""The search for the thresholds of consistency (2505.13338, sec. 3.1 and Fig. 3): x and y at which the surviving emotions are right most often.

For every point of a grid over x (`positive_min`) and y (`negative_max`) the windows of human-labelled speech go through `Consistency`, and
the unweighted accuracy (the plain mean of the recalls of the true emotions) is taken of those that survive. Only recordings of split
train and dev count: thresholds chosen on the test split would make the test a rehearsal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.condense.consistency import Consistency
from undertone.condense.nested import in_one_piece, labels_in
from undertone.condense.occurrence import NOT_AN_EMOTION
from undertone.errors import ConfigError, DataError
from undertone.paths import Location
from undertone.records import HUMAN, Recording, Segment
from undertone.tables import Table

PUBLISHED = (0.5, 0.4)
"""x and y that the paper found best on its own data."""


TUNING = "tune.json"
"""The file in a run's folder that holds the last search."""


class Grid(BaseModel):
    """What is searched, and on which recordings.

    Attributes:
        positive_min: Values of x.
        negative_max: Values of y; points with y above x are left out, for neutral lies between.
        splits: Whose references are asked.
        least_coverage: A point that leaves less than this share of the windows cannot be the best: the more is thrown away, the easier
            it is to be right about the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    positive_min: tuple[float, ...] = tuple(round(0.2 + 0.05 * step, 2) for step in range(11))
    negative_max: tuple[float, ...] = tuple(round(0.2 + 0.05 * step, 2) for step in range(11))
    splits: tuple[Literal["train", "dev"], ...] = ("train", "dev")
    least_coverage: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _can_be_searched(self) -> Grid:
        for name, values in (("positive_min", self.positive_min), ("negative_max", self.negative_max)):
            if wrong := [one for one in values if not 0 <= one <= 1]:
                raise ValueError(f"{name}: got {wrong[0]}, expected valences from 0 to 1")
        if not self.points():
            raise ValueError("positive_min and negative_max have no point with negative_max <= positive_min")
        return self

    def points(self) -> list[tuple[float, float]]:
        """All (x, y), by x and then y."""
        return [(x, y) for x in sorted(set(self.positive_min)) for y in sorted(set(self.negative_max)) if y <= x]


class Point(BaseModel):
    """What thresholds do to the windows.

    Attributes:
        windows, coverage: How many survive, and what share of all that is.
        uwa: Their unweighted accuracy; None where the windows of some true emotion are all gone.
        error: The standard error of `uwa` as if windows were independent; those of one recording are not, so it is at least that.
        recall: By true emotion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    positive_min: float
    negative_max: float
    windows: int
    coverage: float
    uwa: float | None
    error: float | None
    recall: dict[str, float] = {}


class Tuning(BaseModel):
    """The result of a search; `undertone condense --tune` writes it beside the tables.

    Attributes:
        points: All points of the grid.
        best: The point that won.
        published: The paper's point on the same windows.
        unfiltered: All windows, as if there were no filter: its thresholds are 0 and 1, and it is no point of the grid.
        now: The study's own thresholds before the search.
        emotions: True emotions and their windows.
        splits: Whose references were asked.
        least_coverage: See `Grid`.
        heard_windows: Of the windows, those of speakers that a labeller was trained on: its emotions are too good there, and the
            search is about other labels than those that will be filtered.
        without_truth: Windows that no human label overlaps, or whose human label names no emotion; they were left out.
        without_valence: Windows without valence, which no threshold can drop; they count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: tuple[Point, ...]
    best: Point
    published: Point
    unfiltered: Point
    now: Point
    emotions: dict[str, int]
    splits: tuple[str, ...]
    least_coverage: float
    heard_windows: int
    without_truth: int
    without_valence: int

    def settings(self) -> list[str]:
        """The best thresholds as settings of a study, as `--set` takes them."""
        return [
            f"condense.consistency.positive_min={self.best.positive_min:g}",
            f"condense.consistency.negative_max={self.best.negative_max:g}",
        ]

    def line(self) -> str:
        """The result in a sentence or two."""
        named = (("best", self.best), ("before", self.now), ("published", self.published))
        shown = [f"{name} x {one.positive_min:g}, y {one.negative_max:g}: {_told(one)}" for name, one in named]
        heard = f", {self.heard_windows} of them of speakers that a labeller was trained on" if self.heard_windows else ""
        return f"{'; '.join(shown)}; no filter: {_told(self.unfiltered)} ({self.unfiltered.windows} windows{heard})"


def _told(one: Point) -> str:
    uwa = "none" if one.uwa is None else f"{one.uwa:.3f} ± {one.error:.3f}"
    return f"UWA {uwa} of {one.coverage:.0%} of the windows"


def tune(
    segments: Table[Segment],
    recordings: Table[Recording],
    *,
    consistency: Consistency,
    grid: Grid | None = None,
    heard: frozenset[str] = frozenset(),
) -> Tuning:
    """Search the thresholds of the consistency filter against the human labels of a run.

    Of the points that leave `least_coverage` of the windows and some window of every true emotion, the one with the highest unweighted
    accuracy wins; of equals the one that leaves more, then the one nearest to the published thresholds, then the lower x and y.

    Args:
        segments: The table `label/`, with predicted emotions and valences.
        recordings: The table `corpus/`, with what people said.
        consistency: The filter with its other settings.
        grid: What to search.
        heard: Speakers in the labellers' training data.

    Raises:
        ConfigError: No human-labelled window of the splits, or no point leaves enough.
    """
    grid = grid or Grid()
    windows, without_truth = judged_windows(segments, recordings, splits=grid.splits)
    if not len(windows):
        raise ConfigError(
            f"nothing to tune on: no window of split {' or '.join(grid.splits)} has a predicted emotion and a human one "
            f"({without_truth} windows without). Add a human-labelled corpus to the study, or set condense.consistency.positive_min by hand"
        )

    def at(x: float, y: float) -> Point:
        return _point(windows, consistency, x, y)

    points = tuple(at(x, y) for x, y in grid.points())
    able = [one for one in points if one.uwa is not None and one.coverage >= grid.least_coverage]
    if not able:
        raise ConfigError(
            f"none of {len(points)} points leaves {grid.least_coverage:.0%} of {len(windows)} windows and some of every emotion; the most "
            f"is {max(one.coverage for one in points):.0%}. Lower least_coverage, or search other values"
        )
    counts = windows.group_by("truth").len().sort("truth")
    return Tuning(
        points=points,
        best=min(able, key=_rank),
        published=at(*PUBLISHED),
        unfiltered=_score(windows, windows, 0.0, 1.0),
        now=at(consistency.positive_min, consistency.negative_max),
        emotions=dict(counts.iter_rows()),
        splits=grid.splits,
        least_coverage=grid.least_coverage,
        heard_windows=int(windows["speaker"].is_in(sorted(heard)).sum()),
        without_truth=without_truth,
        without_valence=windows["valence"].null_count(),
    )


def judged_windows(
    segments: Table[Segment], recordings: Table[Recording], *, splits: Iterable[Literal["train", "dev"]]
) -> tuple[pl.DataFrame, int]:
    """The predicted windows of human-labelled speech, and how many windows have no truth.

    Returns:
        A frame of recording_id, start_ms, end_ms, category, valence, truth, speaker, one row for each window, and the count.

    Raises:
        ConfigError: A split is neither train nor dev.
    """
    asked = sorted(set(splits))
    if wrong := [one for one in asked if one not in ("train", "dev")]:
        raise ConfigError(
            f"thresholds are tuned on split train and dev only; got {wrong[0]!r}: on test they would flatter every result"
        )
    references = true_emotions(recordings, splits=asked)
    chosen = references["recording_id"].unique()
    parts = (predicted_windows(columns) for columns in segments.columns(["recording_id", "labels"]))
    windows = pl.concat([one.join(chosen.to_frame(), on="recording_id", how="semi") for one in parts])
    with_truth = truth_of(windows, references).filter(~pl.col("truth").is_in(NOT_AN_EMOTION))
    return with_truth, len(windows) - len(with_truth)


def true_emotions(recordings: Table[Recording], *, splits: Iterable[str]) -> pl.DataFrame:
    """The spans that people gave an emotion to, in recordings of some splits: recording_id, start_ms, end_ms, truth, speaker."""
    wanted = pa.array(sorted(splits), pa.string())
    parts = recordings.columns(["id", "split", "references"])
    return pl.concat([_emotions_said(columns.filter(pc.is_in(columns["split"], wanted))) for columns in parts])


def _emotions_said(columns: pa.Table) -> pl.DataFrame:
    lists = in_one_piece(columns["references"])
    flat = lists.flatten()
    recording = in_one_piece(columns["id"]).take(pc.list_parent_indices(lists))
    about = pl.DataFrame(pa.table({"recording_id": recording, "speaker": pc.struct_field(flat, "speaker")}))
    about = about.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    labels = labels_in(pc.struct_field(flat, "labels"), "emotion").filter(labeller=HUMAN).drop_nulls("category")
    found = labels.join(about, on="row", maintain_order="left")
    return found.select("recording_id", "start_ms", "end_ms", "speaker", truth="category")


def predicted_windows(columns: pa.Table) -> pl.DataFrame:
    """The predicted emotions in columns of segments.

    Args:
        columns: recording_id, labels.

    Returns:
        row (of the segment), recording_id, start_ms, end_ms, category, valence (of the same span; null without), one row for each window.
    """
    labels = labels_in(columns["labels"], "emotion", "valence").filter(pl.col("labeller") != HUMAN)
    emotions = Consistency().judged(labels).drop_nulls("category")
    recording = pl.Series("recording_id", columns["recording_id"].to_pylist(), dtype=pl.String)
    return emotions.with_columns(recording_id=recording.gather(emotions["row"])).select(
        "row", "recording_id", "start_ms", "end_ms", "category", "valence"
    )


def truth_of(windows: pl.DataFrame, references: pl.DataFrame) -> pl.DataFrame:
    """The windows that a reference overlaps, with its `truth` and `speaker`: of the one with most overlap, ties to the earlier.

    Args:
        windows: recording_id, start_ms, end_ms and more.
        references: As `true_emotions` gives them.
    """
    overlap_ms = pl.min_horizontal("end_ms", "end_ms_right") - pl.max_horizontal("start_ms", "start_ms_right")
    both = windows.with_row_index("window").join(references, on="recording_id").with_columns(overlap_ms=overlap_ms)
    order = ["window", "overlap_ms", "start_ms_right", "truth"]
    both = both.filter(pl.col("overlap_ms") > 0).sort(order, descending=[False, True, False, False])
    return both.unique("window", keep="first", maintain_order=True).select(*windows.columns, "truth", "speaker")


def _point(windows: pl.DataFrame, consistency: Consistency, x: float, y: float) -> Point:
    rule = consistency.model_copy(update={"positive_min": x, "negative_max": y})
    return _score(windows.filter(~rule.contradicted()), windows, x, y)


def _score(left: pl.DataFrame, windows: pl.DataFrame, x: float, y: float) -> Point:
    right = (pl.col("category") == pl.col("truth")).mean()
    by = left.group_by("truth").agg(recall=right, count=pl.len()).sort("truth")
    every = windows["truth"].n_unique()
    complete = len(by) == every
    spread = float((by["recall"] * (1 - by["recall"]) / by["count"]).sum()) ** 0.5 / every
    return Point(
        positive_min=x,
        negative_max=y,
        windows=len(left),
        coverage=len(left) / len(windows),
        uwa=by["recall"].sum() / every if complete else None,
        error=spread if complete else None,
        recall=dict(by.select("truth", "recall").iter_rows()),
    )


def _rank(one: Point) -> tuple[float, ...]:
    """Best first; accuracies that differ by rounding alone are equal."""
    x, y = PUBLISHED
    away = abs(one.positive_min - x) + abs(one.negative_max - y)
    return (-round(one.uwa or 0.0, 9), -one.coverage, round(away, 9), one.positive_min, one.negative_max)


def read_tuning(file: Location) -> Tuning | None:
    """The search that a run wrote down; None where there was none.

    Raises:
        DataError: The file is damaged.
    """
    if not file.is_file():
        return None
    try:
        return Tuning.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}. Search again with: undertone condense {file.parent} --tune") from error
