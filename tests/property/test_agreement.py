"""Agreement figures equal those of scipy, scikit-learn and the krippendorff package on any table with ties and gaps."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from undertone.evaluate.agreement import Level, auc, kendall, krippendorff_alpha, pearson, quadratic_kappa, spearman
from undertone.evaluate.metrics import resampled_means
from undertone.evaluate.paired import benjamini_hochberg, holm, sign_flip_p

grades = st.integers(0, 5)
gappy = st.one_of(grades, st.none())
two_columns = st.lists(st.tuples(gappy, gappy), min_size=2, max_size=40)


def columns(rows: list[tuple[int | None, int | None]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array([[math.nan if one is None else one for one in row] for row in rows], dtype=float)
    return table[:, 0], table[:, 1]


@given(two_columns)
def test_correlations_are_scipys(rows: list[tuple[int | None, int | None]]) -> None:
    x, y = columns(rows)
    both = ~(np.isnan(x) | np.isnan(y))
    defined = both.sum() >= 2 and len(set(x[both])) > 1 and len(set(y[both])) > 1
    for ours, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr), (kendall, stats.kendalltau)):
        found = ours(x, y)
        assert (found is not None) == defined
        if found is not None:
            assert found == pytest.approx(float(theirs(x[both], y[both])[0]), abs=1e-9)
            assert ours(y, x) == pytest.approx(found, abs=1e-12)
            assert -1 - 1e-12 <= found <= 1 + 1e-12


@given(st.lists(st.tuples(grades, grades), min_size=1, max_size=40))
def test_kappa_is_scikit_learns(rows: list[tuple[int, int]]) -> None:
    x, y = columns(rows)  # type: ignore[arg-type]
    found = quadratic_kappa(x, y, range(6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = float(cohen_kappa_score(x.astype(int), y.astype(int), labels=list(range(6)), weights="quadratic"))
    if found is None:
        assert len({*x, *y}) == 1
    else:
        assert found == pytest.approx(theirs, abs=1e-9)


@given(st.lists(st.tuples(grades, st.booleans()), min_size=2, max_size=40))
def test_auc_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    score, right = [one for one, _ in rows], [one for _, one in rows]
    found = auc(score, right)
    if found is None:
        assert len(set(right)) == 1
    else:
        assert found == pytest.approx(float(roc_auc_score(right, score)), abs=1e-12)


@given(
    st.integers(2, 5).flatmap(lambda raters: st.lists(st.lists(gappy, min_size=raters, max_size=raters), min_size=1, max_size=25)),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_alpha_is_that_of_the_krippendorff_package(items: list[list[int | None]], level: Level) -> None:
    krippendorff = pytest.importorskip("krippendorff", reason="GPL-3, so only in the extra bench: pip install 'undertone[bench]'")
    ratings = np.array([[math.nan if one is None else one for one in item] for item in items], dtype=float).T
    pairable = ratings[:, (~np.isnan(ratings)).sum(axis=0) >= 2]
    values = pairable[~np.isnan(pairable)]
    found = krippendorff_alpha(ratings, level=level)
    assert (found is None) == (len(set(values)) < 2)
    if found is not None:
        assert found == pytest.approx(krippendorff.alpha(pairable, level_of_measurement=level), abs=1e-9)


@given(st.lists(st.one_of(st.none(), st.floats(1e-6, 1)), max_size=12))
def test_corrections_are_those_of_scipy_and_the_definition(p: list[float | None]) -> None:
    known = [one for one in p if one is not None]
    strict, mild = holm(p), benjamini_hochberg(p)
    assert [one is None for one in strict] == [one is None for one in p] == [one is None for one in mild]
    if known:
        theirs = list(stats.false_discovery_control(known))
        assert [one for one in mild if one is not None] == pytest.approx(theirs)
    # Holm: reject while the k-th smallest is below alpha / (number left).
    for alpha in (0.01, 0.05, 0.2):
        rejected = 0
        for rank, one in enumerate(sorted(known)):
            if one * (len(known) - rank) > alpha:
                break
            rejected += 1
        assert sum(one <= alpha for one in strict if one is not None) == rejected
    for raw, one, other in zip(p, mild, strict, strict=True):
        if raw is not None:
            assert one is not None
            assert other is not None
            assert raw <= one + 1e-15
            assert one <= other + 1e-15
            assert other <= 1


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8))
def test_sign_flips_of_few_recordings_are_scipys_exact_test(gaps: list[int]) -> None:
    assume(any(gaps))
    names = [str(one) for one in range(len(gaps))]
    found = sign_flip_p({"gap": gaps}, names, seed=0)["gap"]

    def total(values: np.ndarray, axis: int) -> np.ndarray:
        return values.sum(axis=axis)

    theirs = stats.permutation_test(
        (np.array(gaps, float), np.zeros(len(gaps))),
        lambda x, y, axis: total(x - y, axis),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
    )
    # Two-sided in scipy is twice the smaller side, which for a symmetric distribution is the same.
    assert found == pytest.approx(min(1.0, float(theirs.pvalue)), abs=1e-12)


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(0, 100)), st.integers(0, 5)), min_size=1, max_size=30), st.integers(0, 1000)
)
def test_a_resample_is_a_mean_over_drawn_clusters(rows: list[tuple[float | None, int]], seed: int) -> None:
    scores = np.array([math.nan if one is None else one for one, _ in rows])
    owner = [str(one) for _, one in rows]
    drawn = resampled_means(scores, owner, resamples=20, seed=seed)[:, 0]
    names = sorted(set(owner))
    rng = np.random.default_rng(seed)
    for found, picks in zip(drawn, rng.integers(0, len(names), size=(20, len(names))), strict=True):
        held = np.concatenate([scores[[name == names[pick] for name in owner]] for pick in picks])
        held = held[~np.isnan(held)]
        if len(held):
            assert found == pytest.approx(held.mean(), abs=1e-9)
        else:
            assert math.isnan(found)
