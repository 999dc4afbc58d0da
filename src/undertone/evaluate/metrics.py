"""Means with cluster-bootstrap intervals, and class metrics that never lose an answer.

Questions about one recording share its speaker, its noise and its moods, so they are not independent: the bootstrap draws whole
*recordings* with replacement (Field & Welsh, 2007, "Bootstrapping clustered data"). A resample is a vector of counts, one per cluster, and
every mean is a ratio of two products with it; so all systems and question kinds are evaluated on the same resamples in one matrix
product (`resample`), which is also what makes their differences paired.

NaN in a score array means "not scored": it enters no mean. Intervals are percentile intervals.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError

Floats = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)

UNMAPPED = "unmapped"
"""The confusion column of answers that were read as no class, whatever the reason."""

_CHUNK_DRAWS = 4_000_000
"""Cluster draws held in memory at once (about 100 MB at 24 bytes each)."""

_MIN_FINITE_SHARE = 0.5
"""Below this share of resamples with a value, an interval is not given."""

NoInterval = Literal["no_items", "one_cluster", "zero_baseline", "undefined"]


class Interval(BaseModel):
    """A point value with its bootstrap interval, or the reason why there is none.

    `mean` is None without items; `low` and `high` are None with fewer than two clusters too, because one recording says nothing about the
    spread over recordings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    level: float = 0.95
    missing: NoInterval | None = None


class Difference(Interval):
    """A paired difference: `mean` and interval in the unit of the scores, and a two-sided bootstrap p value for "no difference".

    The p value inverts the percentile interval: it is below 0.05 where the 95 % interval leaves out 0 (up to the resampling grain).
    """

    p: float | None


class ClassMetrics(BaseModel):
    """How well answers, read as classes, match the references.

    `wa` is the share of right answers ("weighted accuracy" in speech emotion work), `ua` the plain mean of the recalls of the classes that
    occur in the references. An answer that maps to no class, that was refused or never came is wrong in all of them and stands in the
    last column of `confusion` (rows `classes`, columns `columns`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    unmapped: int
    wa: float | None
    ua: float | None
    macro_f1: float | None
    weighted_f1: float | None
    recall: dict[str, float]
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


def resampled_means(values: ArrayLike, clusters: Sequence[str], *, resamples: int = 2000, seed: int) -> Floats:
    """Means of each column over bootstrap resamples of whole clusters.

    Args:
        values: Scores, shape (items,) or (items, columns); NaN where an item has none.
        clusters: The cluster (recording id) of each item. Their order of appearance does not matter.
        resamples: How many resamples.
        seed: Seed of the draws.

    Returns:
        Shape (resamples, columns); NaN where a resample holds no scored item of the column.
    """
    table = _columns(values, clusters)
    names, owner = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    groups, width = len(names), table.shape[1]
    scored = ~np.isnan(table)
    weights = np.zeros((groups, 2 * width))
    np.add.at(weights, owner, np.concatenate([np.where(scored, table, 0.0), scored], axis=1))
    rng = np.random.default_rng(seed)
    means = np.full((resamples, width), np.nan)
    step = max(1, _CHUNK_DRAWS // max(1, groups))
    for start in range(0, resamples if groups else 0, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups)) + (np.arange(rows) * groups)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)
        totals = counts.astype(np.float64) @ weights
        np.divide(totals[:, :width], totals[:, width:], out=means[start : start + rows], where=totals[:, width:] > 0)
    return means


@dataclass(frozen=True)
class Resampled(Generic[K]):
    """Means of named columns of scores over one set of resamples, and every figure that is made of such means.

    `means` is None for a column without a score; `draws` are arrays of shape (resamples,); `support` is the number of scored items and of
    clusters that hold one.
    """

    means: Mapping[K, float | None]
    draws: Mapping[K, Floats]
    support: Mapping[K, tuple[int, int]]
    level: float

    def interval(self, key: K) -> Interval:
        """The mean of a column with its interval."""
        return interval_of(self.means[key], self.draws[key], *self.support[key], level=self.level)

    def unweighted(self, keys: Sequence[K], *, over: K) -> Interval:
        """The plain mean of several columns' means; `over` is the column that holds the items of all of them.

        It has no value where a column has no score: a mean over the other columns would be of something else. A resample without an item of
        some column is left out.
        """
        means = [one for one in (self.means[key] for key in keys) if one is not None]
        if not keys or len(means) < len(keys):
            return interval_of(None, np.empty(0), *self.support[over], level=self.level)
        return interval_of(
            float(np.mean(means)), np.mean([self.draws[key] for key in keys], axis=0), *self.support[over], level=self.level
        )

    def gain(self, system: K, baseline: K, *, over: K) -> Interval:
        """(system - baseline) / baseline in percent; `over` is the column of their differences.

        A bound that runs off because the baseline's mean is 0 in too many resamples is None, with `missing` "zero_baseline".
        """
        n, held = self.support[over]
        top, bottom = self.means[system], self.means[baseline]
        if top is None or bottom is None:
            return interval_of(None, np.empty(0), n, held, level=self.level)
        if bottom <= 0:
            return Interval(mean=None, low=None, high=None, n=n, clusters=held, level=self.level, missing="zero_baseline")
        with np.errstate(divide="ignore", invalid="ignore"):
            gains = (self.draws[system] / self.draws[baseline] - 1) * 100
        return interval_of((top / bottom - 1) * 100, gains, n, held, level=self.level)

    def difference(self, key: K) -> Difference:
        """The mean of a column of paired differences, with its p value."""
        found = self.interval(key)
        drawn = self.draws[key]
        finite = drawn[np.isfinite(drawn)]
        p = None
        if found.low is not None:
            tail = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
            p = min(1.0, 2 * (tail + 1) / (len(finite) + 1))
        return Difference(**found.model_dump(), p=p)


def resample(
    columns: Mapping[K, ArrayLike], clusters: Sequence[str], *, resamples: int = 2000, seed: int, level: float = 0.95
) -> Resampled[K]:
    """Draw clusters once for many columns of scores.

    Args:
        columns: Scores of shape (items,) by any name; NaN where an item has none.
        clusters: The cluster (recording id) of each item.
        resamples: How many resamples.
        seed: Seed of the draws.
        level: Of the intervals.
    """
    keys = list(columns)
    table = _columns(np.stack([np.asarray(columns[key], float) for key in keys], axis=1) if keys else np.empty((0, 0)), clusters)
    drawn = resampled_means(table, clusters, resamples=resamples, seed=seed)
    _, owner = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return Resampled(
        means={key: _mean(column) for key, column in zip(keys, table.T, strict=True)},
        draws={key: np.ascontiguousarray(column) for key, column in zip(keys, drawn.T, strict=True)},
        support={key: _support(column, owner) for key, column in zip(keys, table.T, strict=True)},
        level=level,
    )


def bootstrap_means(
    values: ArrayLike, clusters: Sequence[str], *, resamples: int = 2000, seed: int, level: float = 0.95
) -> list[Interval]:
    """The mean and interval of each column of scores (items, columns), all on the same resamples."""
    table = _columns(values, clusters)
    found = resample(dict(enumerate(table.T)), clusters, resamples=resamples, seed=seed, level=level)
    return [found.interval(index) for index in range(table.shape[1])]


def unweighted_mean(
    scores: ArrayLike, groups: Sequence[str], clusters: Sequence[str], *, resamples: int = 2000, seed: int, level: float = 0.95
) -> Interval:
    """The plain mean over groups of the groups' means (UAS of CP-Bench, 2509.16589: each question kind weighs the same).

    Groups without a score are left out; a resample that holds no item of some group is, too.
    """
    column = _columns(scores, clusters)[:, 0]
    kinds = np.asarray(groups, dtype=str)
    present = sorted({str(kind) for kind in kinds[~np.isnan(column)]})
    columns = {"": column, **{f"of {kind}": np.where(kinds == kind, column, np.nan) for kind in present}}
    found = resample(columns, clusters, resamples=resamples, seed=seed, level=level)
    return found.unweighted([f"of {kind}" for kind in present], over="")


def relative_gain(
    system: ArrayLike, baseline: ArrayLike, clusters: Sequence[str], *, resamples: int = 2000, seed: int, level: float = 0.95
) -> Interval:
    """(mean of the system - mean of the baseline) / mean of the baseline in percent, over the same resamples, each over its scored items.

    A bound that runs off because the baseline's mean is 0 in too many resamples is None, with `missing` "zero_baseline".
    """
    first, second = np.asarray(system, float), np.asarray(baseline, float)
    columns = {"system": first, "baseline": second, "gap": first - second}
    found = resample(columns, clusters, resamples=resamples, seed=seed, level=level)
    return found.gain("system", "baseline", over="gap")


def paired_difference(
    first: ArrayLike, second: ArrayLike, clusters: Sequence[str], *, resamples: int = 2000, seed: int, level: float = 0.95
) -> Difference:
    """Mean of first minus second over the items that both have a score for, with interval and two-sided p value."""
    gap = np.asarray(first, float) - np.asarray(second, float)
    return resample({"gap": gap}, clusters, resamples=resamples, seed=seed, level=level).difference("gap")


def class_metrics(references: Sequence[str], predictions: Sequence[str | None]) -> ClassMetrics:
    """Accuracy, recall and F1 of classes read from answers; None among the predictions is an answer that was read as no class.

    Macro figures run over the classes that occur in the references.

    Raises:
        DataError: There are not as many predictions as references.
    """
    if len(references) != len(predictions):
        raise DataError(f"class metrics need one prediction per reference, got {len(references)} and {len(predictions)}")
    classes = tuple(sorted(set(references)))
    extra = sorted({one for one in predictions if one is not None} - set(classes))
    columns = (*classes, *extra, UNMAPPED)
    unmapped = sum(one is None for one in predictions)
    if not references:
        return ClassMetrics(
            n=0, unmapped=0, wa=None, ua=None, macro_f1=None, weighted_f1=None, recall={}, classes=(), columns=columns, confusion=()
        )
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

    guesses = [UNMAPPED if one is None else one for one in predictions]
    table = confusion_matrix(references, guesses, labels=list(columns))[: len(classes)]
    recalls = recall_score(references, guesses, labels=list(classes), average=None, zero_division=0)
    return ClassMetrics(
        n=len(references),
        unmapped=unmapped,
        wa=float(accuracy_score(references, guesses)),
        ua=float(np.mean(recalls)),
        macro_f1=float(f1_score(references, guesses, labels=list(classes), average="macro", zero_division=0)),
        weighted_f1=float(f1_score(references, guesses, labels=list(classes), average="weighted", zero_division=0)),
        recall={name: float(value) for name, value in zip(classes, recalls, strict=True)},
        classes=classes,
        columns=columns,
        confusion=tuple(tuple(int(cell) for cell in row) for row in table),
    )


def _columns(values: ArrayLike, clusters: Sequence[str]) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or len(table) != len(clusters):
        raise DataError(
            f"a bootstrap needs one row of scores per cluster name, got scores of shape {table.shape} and {len(clusters)} names"
        )
    return table


def _mean(column: Floats) -> float | None:
    scored = column[~np.isnan(column)]
    return float(scored.mean()) if len(scored) else None


def _support(column: Floats, owner: NDArray[np.intp]) -> tuple[int, int]:
    """How many items have a score, and in how many clusters they lie."""
    held = ~np.isnan(column)
    return int(held.sum()), len(np.unique(owner[held]))


def interval_of(mean: float | None, draws: Floats, n: int, clusters: int, *, level: float = 0.95) -> Interval:
    """The percentile interval of draws; infinite draws (a gain over a mean of 0) count, NaN ones (nothing drawn) do not.

    A `mean` of None although there are items (`n`) is a figure that is not defined for them.
    """
    if mean is None or clusters < 2:
        missing: NoInterval = "one_cluster" if mean is not None else "undefined" if n else "no_items"
        return Interval(mean=mean, low=None, high=None, n=n, clusters=clusters, level=level, missing=missing)
    drawn = np.sort(draws[~np.isnan(draws)])
    if len(drawn) < max(1.0, _MIN_FINITE_SHARE * len(draws)):
        return Interval(mean=mean, low=None, high=None, n=n, clusters=clusters, level=level, missing="no_items")
    tail = (1 - level) / 2
    # Order statistics instead of interpolation: interpolating next to an infinite draw gives NaN.
    low, high = (float(drawn[round(share * (len(drawn) - 1))]) for share in (tail, 1 - tail))
    return Interval(
        mean=mean,
        low=low if np.isfinite(low) else None,
        high=high if np.isfinite(high) else None,
        n=n,
        clusters=clusters,
        level=level,
        missing=None if np.isfinite(low) and np.isfinite(high) else "zero_baseline",
    )
