"""How far two measurements agree: rank correlations, kappa, alpha, AUC, each with an interval bootstrapped over recordings.

Everything here is a function of plain arrays. NaN means "not scored" and drops the pair of values (for alpha: the one rating); None as a result
means that the figure is not defined, as a correlation is not where one side never varies. A figure over *systems* rests on few points: its
interval says how it would move with other recordings, not with other systems, and `permutation_p` says how few the systems are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError
from undertone.evaluate.metrics import Floats, Interval, interval_of, resampled_means

Level = Literal["nominal", "ordinal", "interval"]

_ROWS_AT_ONCE = 2_000
"""Rows of the sign matrix of Kendall's tau that are in memory at once."""

_EXACT_UP_TO = 8
"""Systems up to which all orders are counted (8! = 40,320)."""


def pearson(x: ArrayLike, y: ArrayLike) -> float | None:
    """Pearson's correlation of the pairs that have both values; None for fewer than two, or where one side does not vary."""
    left, right = _pairs(x, y)
    return _correlation(left, right)


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Spearman's rank correlation: Pearson's of the mid-ranks, so that ties are handled as in scipy."""
    left, right = _pairs(x, y)
    return _correlation(midranks(left), midranks(right))


def kendall(x: ArrayLike, y: ArrayLike) -> float | None:
    """Kendall's tau-b (Kendall, 1945: corrected for ties on either side), by counting all pairs: quadratic in the number of items."""
    left, right = _pairs(x, y)
    apart = left_apart = right_apart = 0.0
    for start in range(0, len(left), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        signs = np.sign(left[rows, None] - left[None, :])
        others = np.sign(right[rows, None] - right[None, :])
        apart += float((signs * others).sum())
        left_apart += float(np.abs(signs).sum())
        right_apart += float(np.abs(others).sum())
    return apart / math.sqrt(left_apart * right_apart) if left_apart and right_apart else None


def quadratic_kappa(a: ArrayLike, b: ArrayLike, levels: Sequence[float]) -> float | None:
    """Cohen's kappa with quadratic weights (Cohen, 1968) of two raters' grades.

    Args:
        a: Grades of one rater, NaN where none.
        b: Grades of the other about the same items.
        levels: All grades that can be given, in order. The distance of two grades is their distance in this list.

    Raises:
        DataError: A grade is not one of `levels`.
    """
    left, right = _pairs(a, b)
    order = np.asarray(sorted(set(levels)), dtype=float)
    strange = sorted({float(one) for one in np.concatenate([left, right])} - {float(one) for one in order})
    if strange:
        raise DataError(f"quadratic kappa: grade {strange[0]:g} is not one of the levels {', '.join(f'{one:g}' for one in order)}")
    if not len(left):
        return None
    first, second = np.searchsorted(order, left), np.searchsorted(order, right)
    seen = float(((first - second) ** 2).sum())
    # Expected distance of independent raters with these marginals: E(a-b)^2 over all pairings of the two lists.
    size = len(first)
    by_chance = float(size * (first**2).sum() + size * (second**2).sum() - 2 * first.sum() * second.sum()) / size
    return 1 - seen / by_chance if by_chance else None


def krippendorff_alpha(ratings: ArrayLike, *, level: Level) -> float | None:
    """Krippendorff's alpha (Krippendorff, 2011, "Computing Krippendorff's alpha-reliability").

    All three distances are squared Euclidean ones: of the values (interval), of their mid-ranks among all pairable ratings (ordinal), of
    indicator vectors (nominal). So the disagreements are variances and no table of value pairs is needed.

    Args:
        ratings: Shape (raters, items), NaN where a rater gave none. An item with fewer than two ratings is left out.
        level: How far apart two different values are.

    Returns:
        None without an item that two raters rated, or where all ratings are one value.

    Raises:
        DataError: `ratings` is not two-dimensional.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        raise DataError(f"krippendorff_alpha: ratings must be of shape (raters, items), got shape {table.shape}")
    given = ~np.isnan(table)
    held = given & (given.sum(axis=0) >= 2)
    items = np.broadcast_to(np.arange(table.shape[1]), table.shape)[held]
    values = table[held]
    if not len(values):
        return None
    places = _places(values, level)
    total = len(values)
    of_item = np.bincount(items, minlength=table.shape[1]).astype(float)
    seen = expected = 0.0
    for column in places.T:
        centred = column - column.mean()
        sums = np.bincount(items, centred, minlength=len(of_item))
        squares = np.bincount(items, centred**2, minlength=len(of_item))
        several = of_item >= 2
        seen += float(((of_item * squares - sums**2)[several] / (of_item[several] - 1)).sum())
        expected += float(total * (centred**2).sum()) / (total - 1)
    return 1 - seen / expected if expected > 0 else None


def auc(score: ArrayLike, correct: ArrayLike) -> float | None:
    """The chance that a correct answer scores above a wrong one, ties counting half (area under the ROC curve).

    Args:
        score: Scores, NaN where none.
        correct: 1 or True where the answer is right, 0 or False where it is wrong, NaN where that is not known.

    Returns:
        None where no answer, or every one, is correct.
    """
    scores, right = _pairs(score, correct)
    hits = right > 0
    above, below = int(hits.sum()), int((~hits).sum())
    if not above or not below:
        return None
    return float(midranks(scores)[hits].sum() - above * (above + 1) / 2) / (above * below)


def clustered(
    fn: Callable[..., float | None],
    columns: Sequence[ArrayLike],
    clusters: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Any figure of paired columns with its cluster-bootstrap interval.

    Args:
        fn: Takes the columns, returns the figure or None where it is not defined for them.
        columns: Arrays of shape (items, ...); NaN where an item has no value.
        clusters: The cluster (recording id) of each item.
        resamples: How many resamples.
        seed: Seed of the draws.
        level: Of the interval.

    Returns:
        The figure over all items as `mean`; `n` counts the items with a value in every column, `clusters` the clusters they lie in.

    Raises:
        DataError: A column is not as long as `clusters`.
    """
    tables = [np.asarray(one, dtype=np.float64) for one in columns]
    for index, one in enumerate(tables):
        if len(one) != len(clusters):
            raise DataError(f"clustered: column {index} has {len(one)} items, but there are {len(clusters)} cluster names")
    names, owner = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    whole = np.ones(len(clusters), dtype=bool)
    for one in tables:
        whole &= ~np.isnan(one).reshape(len(one), -1).all(axis=1)
    held = len(np.unique(owner[whole]))
    value = fn(*tables)
    draws = np.full(resamples, np.nan)
    if value is not None and held > 1:
        rng = np.random.default_rng(seed)
        by_cluster = np.argsort(owner, kind="stable")
        sizes = np.bincount(owner, minlength=len(names))
        starts = np.cumsum(sizes) - sizes
        for index in range(resamples):
            drawn = rng.integers(0, len(names), size=len(names))
            lengths = sizes[drawn]
            rows = by_cluster[np.repeat(starts[drawn] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())]
            found = fn(*(one[rows] for one in tables))
            draws[index] = np.nan if found is None else found
    return interval_of(value, draws, int(whole.sum()), held, level=level)


# ---- over systems ----------------------------------------------------------------------------------------------------------------


class SystemAgreement(BaseModel):
    """How two measurements of the same systems agree: two test sets under one judge, or two judges (or a judge and a label) on one set.

    `first` and `second` are the systems' means. Intervals come from resampled recordings. `p` is that of the Spearman correlation if all
    orders of the systems were equally likely (two-sided), which no number of recordings can make small: five systems in the same order
    have p = 0.017.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    systems: tuple[str, ...]
    first: tuple[float | None, ...]
    second: tuple[float | None, ...]
    spearman: Interval
    kendall: Interval
    pearson: Interval
    p: float | None


def over_systems(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence[str],
    systems: Sequence[str],
    *,
    second_clusters: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int,
    level: float = 0.95,
) -> SystemAgreement:
    """Agreement of two measurements over systems.

    A recording in both measurements is drawn for both at once, so that what they share does not pass for noise.

    Args:
        first: Scores, shape (items, systems), NaN where unscored.
        second: The other measurement of the same systems, on the same items or (`second_clusters`) on others.
        clusters: Recording id of each item of `first`.
        systems: Names of the columns.
        second_clusters: Recording id of each item of `second`; those of `first` where left out.
        resamples: Bootstrap resamples.
        seed: Seed of the draws.
        level: Of the intervals.

    Raises:
        DataError: The shapes do not fit the systems.
    """
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    same = second_clusters is None
    others = clusters if second_clusters is None else second_clusters
    width = len(systems)
    if left.shape != (len(clusters), width) or right.shape != (len(others), width):
        raise DataError(
            f"agreement over {width} systems needs scores of shape ({len(clusters)}, {width}) and ({len(others)}, {width}), "
            f"got {left.shape} and {right.shape}"
        )
    start = 0 if same else len(left)
    table = np.full((start + len(right), 2 * width), np.nan)
    table[: len(left), :width], table[start:, width:] = left, right
    owners = list(clusters) if same else [*clusters, *others]
    draws = resampled_means(table, owners, resamples=resamples, seed=seed)
    means = np.array([float(one[~np.isnan(one)].mean()) if (~np.isnan(one)).any() else np.nan for one in table.T])
    scored = ~np.isnan(table).all(axis=1)
    n, held = int(scored.sum()), len({name for name, has in zip(owners, scored, strict=True) if has})

    def figure(fn: Callable[[ArrayLike, ArrayLike], float | None]) -> Interval:
        drawn = np.array([np.nan if (one := fn(row[:width], row[width:])) is None else one for row in draws], dtype=float)
        return interval_of(fn(means[:width], means[width:]), drawn, n, held, level=level)

    return SystemAgreement(
        systems=tuple(systems),
        first=tuple(None if np.isnan(one) else float(one) for one in means[:width]),
        second=tuple(None if np.isnan(one) else float(one) for one in means[width:]),
        spearman=figure(spearman),
        kendall=figure(kendall),
        pearson=figure(pearson),
        p=permutation_p(spearman, means[:width], means[width:], seed=seed),
    )


def permutation_p(
    fn: Callable[[ArrayLike, ArrayLike], float | None], x: ArrayLike, y: ArrayLike, *, resamples: int = 10_000, seed: int = 0
) -> float | None:
    """Two-sided p of a correlation if every order of `y` were equally likely: exact up to 8 values, else over random orders."""
    left, right = _pairs(x, y)
    value = fn(left, right)
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    exact = len(left) <= _EXACT_UP_TO
    orders = itertools.permutations(range(len(left))) if exact else (rng.permutation(len(left)) for _ in range(resamples))
    found = [abs(fn(left, right[list(order)]) or 0.0) >= abs(value) - 1e-12 for order in orders]
    return sum(found) / len(found) if exact else (sum(found) + 1) / (len(found) + 1)


# ---- parts -----------------------------------------------------------------------------------------------------------------------


def midranks(values: ArrayLike) -> Floats:
    """Ranks from 1, ties sharing the mean of theirs; shape as given (items,)."""
    column = np.asarray(values, dtype=np.float64)
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[place]
    return ranks


def _places(values: Floats, level: Level) -> Floats:
    """Where each rating lies, shape (ratings, dimensions), so that squared distances are alpha's (times a constant)."""
    if level == "interval":
        return values[:, None]
    if level == "ordinal":
        return midranks(values)[:, None]
    different, place = np.unique(values, return_inverse=True)
    made: Floats = np.eye(len(different))[place]
    return made


def _correlation(left: Floats, right: Floats) -> float | None:
    if len(left) < 2 or _constant(left) or _constant(right):
        return None
    first, second = left - left.mean(), right - right.mean()
    found = float((first * second).sum() / math.sqrt(float((first**2).sum()) * float((second**2).sum())))
    return min(1.0, max(-1.0, found))


def _constant(values: Floats) -> bool:
    return bool((values == values[0]).all())


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """The two columns without the places where either has no value."""
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise DataError(f"agreement needs two columns of the same length, got shapes {left.shape} and {right.shape}")
    both: NDArray[np.bool_] = ~(np.isnan(left) | np.isnan(right))
    return left[both], right[both]
