"""Wilcoxon's signed-rank test on paired replies: did two systems answer the same clips with different levels?

What RE-LLM (2602.10716) reports for empathy levels. It holds for independent pairs. Replies to clips of one recording share its speaker and
its mood; given `clusters`, the differences of a cluster are averaged first and the test ranks one difference for each. Without them, with
several clips of a recording, the p values are too small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy import stats

from undertone.errors import DataError
from undertone.evaluate.paired import holm

Zeros = Literal["wilcox", "pratt"]
"""Pairs without a difference: "wilcox" leaves them out (Wilcoxon, 1945; scipy's default), "pratt" ranks them first (Pratt, 1959)."""

EXACT_AT_MOST = 300
"""Differences up to which p is exact. Levels of 0 to 2 tie all the time, and with few of them the normal approximation promises too much: four
equal differences cannot have a p below 1/8, and it says 0.046."""


class SignedRank(BaseModel):
    """One comparison, first minus second.

    Attributes:
        n: Pairs (or clusters) that both have a score for.
        zeros: Those without a difference, however they were handled.
        higher, lower: Those where the first, or the second, has more.
        statistic: The smaller of the two sums of ranks; None where no pair differs.
        p: Two-sided; None without pairs, 1 where no pair differs.
        effect: Matched-pairs rank-biserial correlation: (sum of ranks in favour of the first - of the second) / their sum, -1..1 (Kerby,
            2014).
        method: How p was computed: "exact" over all signs that the differences could have, with the ranks as they are, ties included; "normal"
            approximation, corrected for ties; "none" where no pair differs.
        holm_p: `p` corrected by Holm (1979) over all comparisons that were made together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first: str
    second: str
    n: int
    zeros: int
    higher: int
    lower: int
    statistic: float | None
    p: float | None
    effect: float | None
    method: Literal["exact", "normal", "none"]
    handled: Zeros
    holm_p: float | None = None


def signed_rank(
    first: ArrayLike,
    second: ArrayLike,
    *,
    clusters: Sequence[str] | None = None,
    zeros: Zeros = "wilcox",
    names: tuple[str, str] = ("first", "second"),
) -> SignedRank:
    """Test whether paired scores differ, two-sided.

    Args:
        first: Scores, shape (items,), NaN where an item has none.
        second: Scores of the other, in the same order.
        clusters: The cluster (recording id) of each item; None takes the items for independent.
        zeros: What becomes of pairs without a difference.
        names: Of the two.

    Raises:
        DataError: The lengths differ.
    """
    gaps = _gaps(first, second, clusters)
    found = gaps[gaps != 0]
    common = {
        "first": names[0],
        "second": names[1],
        "n": len(gaps),
        "zeros": len(gaps) - len(found),
        "higher": int((found > 0).sum()),
        "lower": int((found < 0).sum()),
        "handled": zeros,
    }
    if not len(found):
        return SignedRank(**common, statistic=None, p=1.0 if len(gaps) else None, effect=None, method="none")
    ranked = gaps if zeros == "pratt" else found
    ranks = stats.rankdata(np.abs(ranked))
    up, down = float(ranks[ranked > 0].sum()), float(ranks[ranked < 0].sum())
    exact = len(found) <= EXACT_AT_MOST
    p = _exact_p(ranks[ranked != 0], up) if exact else float(stats.wilcoxon(gaps, zero_method=zeros, method="approx").pvalue)
    return SignedRank(
        **common,
        statistic=min(up, down),
        p=p,
        effect=(up - down) / (up + down),
        method="exact" if exact else "normal",
    )


def compare(
    scores: Mapping[str, ArrayLike],
    pairs: Sequence[tuple[str, str]],
    *,
    clusters: Sequence[str] | None = None,
    zeros: Zeros = "wilcox",
) -> list[SignedRank]:
    """Several comparisons between named systems, corrected for their number.

    Raises:
        DataError: A system has no scores, or lengths differ.
    """
    unknown = sorted({name for pair in pairs for name in pair} - set(scores))
    if unknown:
        raise DataError(f"no scores of {', '.join(unknown)}; there are some of {', '.join(sorted(scores)) or 'nobody'}")
    return corrected(
        [signed_rank(scores[one], scores[other], clusters=clusters, zeros=zeros, names=(one, other)) for one, other in pairs]
    )


def corrected(tests: Sequence[SignedRank]) -> list[SignedRank]:
    """The same tests with `holm_p`, as one family."""
    return [one.model_copy(update={"holm_p": p}) for one, p in zip(tests, holm([one.p for one in tests]), strict=True)]


def _exact_p(ranks: NDArray[np.float64], up: float) -> float:
    """The share of sign patterns whose sum of positive ranks is at least as far from its middle; counted sum by sum, for ranks are halves."""
    doubled = np.rint(2 * ranks).astype(int)
    total = int(doubled.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for one in doubled:
        moved = np.zeros_like(chances)
        moved[one:] = chances[:-one]
        chances = (chances + moved) / 2
    far = abs(2 * np.arange(total + 1) - total) >= abs(4 * up - total) - 0.5
    return min(1.0, float(chances[far].sum()))


def _gaps(first: ArrayLike, second: ArrayLike, clusters: Sequence[str] | None) -> NDArray[np.float64]:
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape or (clusters is not None and len(clusters) != len(one)):
        more = "" if clusters is None else f" and {len(clusters)} clusters"
        raise DataError(f"a paired test needs two scores for each item, got shapes {one.shape} and {other.shape}{more}")
    gaps = one - other
    held = ~np.isnan(gaps)
    if clusters is None:
        return gaps[held]
    _, owner = np.unique(np.asarray(clusters, dtype=str)[held], return_inverse=True)
    counts = np.bincount(owner)
    means = np.bincount(owner, gaps[held]) / np.maximum(counts, 1)
    return np.asarray(np.round(means, 12))  # sums in another order differ in their last digits, and ties must stay ties
