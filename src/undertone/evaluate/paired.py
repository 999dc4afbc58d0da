"""Paired tests between systems that were asked the same questions, corrected for how many there are, and what such a test could find.

The unit is the recording, as in `metrics`. Two p values stand beside each difference: that of the cluster bootstrap (`Difference.p`, which
inverts the interval) and that of a sign-flip permutation test, which is exact for few recordings, where the bootstrap is too confident. The
corrections are of the latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError
from undertone.evaluate.metrics import Difference, Floats

K = TypeVar("K", bound=Hashable)

ALPHA, POWER = 0.05, 0.8
"""Of `detectable`."""

_CHUNK_FLIPS = 8_000_000
"""Signs in memory at once (64 MB as floats)."""


class PairedTest(BaseModel):
    """First minus second in points, and whether that can be chance.

    Attributes:
        first: A system.
        second: Another.
        difference: With interval and bootstrap p, over the questions that both have a score for.
        flip_p: Of the sign-flip permutation test.
        holm_p: `flip_p` corrected so that the chance of any false difference among all tests of the table stays below the level.
        fdr_p: `flip_p` corrected so that the expected share of false ones among the differences found does (Benjamini & Hochberg, 1995).
        detectable: The smallest true difference that a set like this one would find in four of five times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    difference: Difference
    flip_p: float | None = None
    holm_p: float | None = None
    fdr_p: float | None = None
    detectable: float | None = None


def sign_flip_p(gaps: Mapping[K, ArrayLike], clusters: Sequence[str], *, resamples: int = 2000, seed: int) -> dict[K, float | None]:
    """Two-sided p values of "no difference" by flipping the sign of whole clusters.

    If two systems are the same, each recording's sum of differences could as well have the other sign. The p is the share of such sign
    patterns whose sum is at least as far from 0; all 2^clusters of them where those are no more than `resamples`, else a random sample. With G
    clusters no p can be below 2 / 2^G.

    Args:
        gaps: Paired differences by name, arrays of shape (items,), NaN where either has no score.
        clusters: The cluster (recording id) of each item.
        resamples: How many patterns.
        seed: Seed of the random patterns; all gaps are tested on the same.

    Returns:
        None for a gap with fewer than two clusters.
    """
    names, owner = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    keys = list(gaps)
    sums, several = np.zeros((len(names), len(keys))), []
    for column, key in enumerate(keys):
        values = _column(gaps[key], clusters)
        held = ~np.isnan(values)
        sums[:, column] = np.bincount(owner[held], values[held], minlength=len(names))
        several.append(len(np.unique(owner[held])) > 1)
    whole = sums.sum(axis=0)
    # Sums of the same numbers in another order differ in the last digits, and ties must count.
    limit = np.abs(whole) - 1e-9 * np.abs(sums).sum(axis=0)
    exact = len(names) <= math.log2(max(1, resamples))
    count, patterns = np.zeros(len(keys)), 0
    for flips in _all_flips(len(names)) if exact else _random_flips(len(names), resamples, seed):
        patterns += len(flips)
        count += (np.abs(2 * (flips @ sums) - whole) >= limit).sum(axis=0)
    p = count / patterns if exact else (count + 1) / (patterns + 1)
    return {key: float(one) if able else None for key, one, able in zip(keys, p, several, strict=True)}


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P values corrected by Holm (1979): the smallest times their number, the next times one less, never below the one before.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    return _stepwise(p, lambda rank, count: count - rank, falling=False)


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """P values corrected by Benjamini & Hochberg (1995): each times their number over its rank, never above the next.

    >>> benjamini_hochberg([0.01, 0.04, None, 0.03])
    [0.03, 0.04, None, 0.04]
    """
    return _stepwise(p, lambda rank, count: count / (rank + 1), falling=True)


def standard_error(values: ArrayLike, clusters: Sequence[str]) -> float | None:
    """The standard error of a mean whose items come in clusters; None with fewer than two clusters.

    The mean is a ratio of two sums over clusters, hence SE^2 = G/(G-1) * sum_g (T_g - mean * n_g)^2 / n^2 with T_g and n_g the sum and the
    number of a cluster's items (Cochran, 1977, "Sampling techniques").
    """
    column = _column(values, clusters)
    held = ~np.isnan(column)
    _, owner = np.unique(np.asarray(clusters, dtype=str)[held], return_inverse=True)
    groups = int(owner.max()) + 1 if held.any() else 0
    if groups < 2:
        return None
    sums, counts = np.bincount(owner, column[held]), np.bincount(owner)
    rest = sums - column[held].mean() * counts
    return float(np.sqrt(groups / (groups - 1) * (rest**2).sum()) / counts.sum())


def detectable(gap: ArrayLike, clusters: Sequence[str], *, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The minimum detectable difference: (t(1 - alpha/2) + t(power)) * SE, t with one degree of freedom less than there are clusters.

    Args:
        gap: Paired differences, shape (items,), NaN where either has no score. Their spread is taken as it is, their mean plays no part.
        clusters: The cluster (recording id) of each item.
        alpha: Level of the two-sided test.
        power: Chance to find such a difference.
    """
    error = standard_error(gap, clusters)
    if error is None:
        return None
    from scipy.stats import t

    held = ~np.isnan(_column(gap, clusters))
    freedom = len(np.unique(np.asarray(clusters, dtype=str)[held])) - 1
    return float((t.ppf(1 - alpha / 2, freedom) + t.ppf(power, freedom)) * error)


def paired_tests(
    gaps: Mapping[tuple[str, str], Floats],
    differences: Mapping[tuple[str, str], Difference],
    clusters: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> list[PairedTest]:
    """All tests of one table, corrected as one family.

    Args:
        gaps: Paired differences of (first, second), shape (items,).
        differences: Their means and intervals.
        clusters: The cluster (recording id) of each item.
        resamples: Sign patterns.
        seed: Seed of them.
    """
    flips = sign_flip_p(gaps, clusters, resamples=resamples, seed=seed)
    order = list(gaps)
    raw = [flips[key] for key in order]
    return [
        PairedTest(
            first=key[0],
            second=key[1],
            difference=differences[key],
            flip_p=flip,
            holm_p=strict,
            fdr_p=mild,
            detectable=detectable(gaps[key], clusters),
        )
        for key, flip, strict, mild in zip(order, raw, holm(raw), benjamini_hochberg(raw), strict=True)
    ]


def _stepwise(p: Sequence[float | None], factor: Callable[[int, int], float], *, falling: bool) -> list[float | None]:
    """Each p times its factor (of rank from 0, and count), made monotone from the smallest up or from the largest down."""
    known = sorted((value, index) for index, value in enumerate(p) if value is not None)
    made: list[float | None] = [None] * len(p)
    steps = [(value * factor(rank, len(known)), index) for rank, (value, index) in enumerate(known)]
    bound = 1.0 if falling else 0.0
    for value, index in reversed(steps) if falling else steps:
        bound = min(bound, value) if falling else max(bound, value)
        made[index] = min(1.0, bound)
    return made


def _all_flips(groups: int) -> Iterator[Floats]:
    patterns = np.arange(2**groups)[:, None] >> np.arange(groups)
    yield (patterns & 1).astype(np.float64)


def _random_flips(groups: int, patterns: int, seed: int) -> Iterator[Floats]:
    """0 and 1 in arrays of shape (some patterns, groups)."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_FLIPS // max(1, groups))
    width = -(-groups // 8)
    for start in range(0, patterns, step):
        rows = min(step, patterns - start)
        bits = np.frombuffer(rng.bytes(rows * width), np.uint8).reshape(rows, width)
        yield np.unpackbits(bits, axis=1, count=groups).astype(np.float64)


def _column(values: ArrayLike, clusters: Sequence[str]) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (len(clusters),):
        raise DataError(
            f"a paired test needs one difference per cluster name, got an array of shape {column.shape} and {len(clusters)} names"
        )
    return column
