from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from undertone.errors import DataError
from undertone.evaluate.significance import compare, signed_rank


def by_enumeration(gaps: np.ndarray) -> float:
    """Two-sided p over all sign patterns of the ranks, from the definition."""
    ranks = stats.rankdata(np.abs(gaps))
    whole = ranks.sum()
    seen = ranks[gaps > 0].sum()
    sums = [sum(rank for rank, up in zip(ranks, signs, strict=True) if up) for signs in itertools.product((0, 1), repeat=len(gaps))]
    far = abs(seen - whole / 2)
    return float(np.mean([abs(one - whole / 2) >= far - 1e-9 for one in sums]))


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_scipy_on_random_levels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 3, size=(2, int(rng.integers(500, 900)))).astype(float)
    for zeros in ("wilcox", "pratt"):
        found = signed_rank(first, second, zeros=zeros)
        wanted = stats.wilcoxon(first, second, zero_method=zeros, method="approx")
        assert (found.statistic, found.method) == (wanted.statistic, "normal")
        assert found.p == pytest.approx(wanted.pvalue)
        assert (found.zeros, found.higher, found.lower) == ((first == second).sum(), (first > second).sum(), (first < second).sum())


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_scipy_where_no_differences_are_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.normal(rng.normal(), size=int(rng.integers(5, 48)))
    found, wanted = signed_rank(gaps, np.zeros(len(gaps))), stats.wilcoxon(gaps, method="exact")
    assert found.method == "exact"
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.statistic == pytest.approx(wanted.statistic)


@pytest.mark.parametrize("seed", range(20))
def test_is_exact_with_ties_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.choice([-2, -1, 1, 2], size=int(rng.integers(1, 12)), p=[0.1, 0.2, 0.4, 0.3]).astype(float)
    found = signed_rank(gaps, np.zeros(len(gaps)))
    assert found.method == "exact"
    assert found.p == pytest.approx(by_enumeration(gaps))


def test_few_equal_differences_prove_little() -> None:
    assert signed_rank([1, 1, 1, 1], [0, 0, 0, 0]).p == pytest.approx(1 / 8)


def test_the_exact_p_meets_the_approximation_where_it_ends() -> None:
    gaps = np.random.default_rng(0).choice([-2, -1, 1, 2], size=300, p=[0.2, 0.25, 0.3, 0.25]).astype(float)
    found, near = signed_rank(gaps, np.zeros(300)), stats.wilcoxon(gaps, method="approx")
    assert found.method == "exact"
    assert found.p == pytest.approx(near.pvalue, rel=0.05)


def test_pratt_ranks_the_zeros_and_leaves_them_out_of_the_sums() -> None:
    gaps = np.array([0.0, 0.0, 1.0, -2.0, 3.0])
    found = signed_rank(gaps, np.zeros(5), zeros="pratt")
    assert (found.statistic, found.zeros, found.n) == (4, 2, 5)  # ranks 3 and 5 against 4
    assert found.effect == pytest.approx(4 / 12)
    assert found.p == pytest.approx(6 / 8)  # of the sums 0 3 4 5 7 8 9 12 only 5 and 7 are nearer to 6 than 4 and 8 are


def test_swapping_the_systems_turns_the_effect_and_keeps_p() -> None:
    first, second = np.random.default_rng(3).integers(0, 3, size=(2, 60))
    one, other = signed_rank(first, second), signed_rank(second, first)
    assert one.effect is not None
    assert other.effect == pytest.approx(-one.effect)
    assert (one.p, one.higher) == (pytest.approx(other.p), other.lower)


def test_effect_is_one_where_one_system_is_always_higher() -> None:
    assert signed_rank([2, 2, 1, 2], [0, 1, 0, 2]).effect == 1
    assert signed_rank([0, 1, 0, 2], [2, 2, 1, 2]).effect == -1


def test_rank_biserial_by_hand() -> None:
    # |gaps| 1, 2, 3 have ranks 1, 2, 3; the second is negative: (1 + 3 - 2) / 6
    assert signed_rank([1, 0, 3], [0, 2, 0]).effect == pytest.approx(1 / 3)


def test_unscored_pairs_are_left_out() -> None:
    whole = signed_rank([1, 2, 0, 2], [0, 0, 1, 1])
    holes = signed_rank([1, 2, np.nan, 0, 2, 1], [0, 0, 2, 1, 1, np.nan])
    assert holes == whole
    assert holes.n == 4


def test_no_difference_is_no_evidence_and_no_pairs_are_no_test() -> None:
    same = signed_rank([1, 1, 2], [1, 1, 2])
    assert (same.p, same.effect, same.statistic, same.zeros) == (1.0, None, None, 3)
    assert signed_rank([np.nan], [1.0]).p is None


def test_clusters_count_once_however_many_replies_they_hold() -> None:
    first, second = [2.0, 1.0, 2.0, 0.0, 1.5], [1.0, 0.0, 0.0, 1.0, 0.0]
    once = signed_rank(first, second)
    repeated = [np.repeat(one, 7) for one in (first, second)]
    clusters = [name for name in "abcde" for _ in range(7)]
    assert signed_rank(*repeated, clusters=clusters) == once
    blind = signed_rank(*repeated)
    assert blind.p is not None
    assert once.p is not None
    assert blind.p < once.p


def test_ties_between_clusters_survive_the_averaging() -> None:
    gaps = np.array([0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.2, 0.2, 0.2])
    found = signed_rank(gaps, np.zeros(9), clusters=list("aaabbbccc"))
    assert found.statistic == 0
    assert found.p == pytest.approx(1 / 4)


def test_comparisons_are_corrected_together() -> None:
    rng = np.random.default_rng(1)
    scores = {name: rng.normal(shift, size=40) for name, shift in (("a", 0.0), ("b", 0.5), ("c", 1.0))}
    found = compare(scores, [("b", "a"), ("c", "a"), ("c", "b")])
    raw = sorted(one.p for one in found if one.p is not None)
    assert [(one.first, one.second) for one in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert min(one.holm_p for one in found if one.holm_p is not None) == pytest.approx(3 * raw[0])
    assert all(one.holm_p is not None and one.p is not None and one.holm_p >= one.p for one in found)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(DataError, match=r"two scores for each item, got shapes \(2,\) and \(3,\)"):
        signed_rank([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="and 1 clusters"):
        signed_rank([1, 2], [1, 3], clusters=["a"])
    with pytest.raises(DataError, match="no scores of z; there are some of a, b"):
        compare({"a": [1], "b": [2]}, [("a", "z")])
