"""Agreement on numbers that can be checked by hand or stand in print, and over systems."""

from __future__ import annotations

import math

import numpy as np
import pytest

from undertone.errors import DataError
from undertone.evaluate import agreement
from undertone.evaluate.agreement import (
    auc,
    clustered,
    kendall,
    krippendorff_alpha,
    over_systems,
    pearson,
    permutation_p,
    quadratic_kappa,
    spearman,
)

NAN = math.nan

PRINTED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]
"""The four observers and twelve units of Krippendorff (2011), part C."""


@pytest.mark.parametrize(("level", "printed"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_printed_example(level: agreement.Level, printed: float) -> None:
    assert krippendorff_alpha(PRINTED, level=level) == pytest.approx(printed, abs=0.0005)


def test_alpha_is_none_where_nothing_can_disagree() -> None:
    assert krippendorff_alpha([[1, NAN], [NAN, 2]], level="nominal") is None
    assert krippendorff_alpha([[3, 3], [3, 3]], level="interval") is None
    with pytest.raises(DataError, match=r"shape \(raters, items\), got shape \(3,\)"):
        krippendorff_alpha([1, 2, 3], level="nominal")


def test_correlations_by_hand() -> None:
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [1, 4, 9, 100]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 1, 2]) == pytest.approx(-0.5)
    assert kendall([1, 2, 3], [3, 1, 2]) == pytest.approx(-1 / 3)
    # One tie on the left: tau-b = (2 - 0) / sqrt(2 * 3).
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))


@pytest.mark.parametrize("figure", [pearson, spearman, kendall])
def test_what_has_no_score_drops_out_and_a_constant_has_no_correlation(figure: object) -> None:
    assert callable(figure)
    assert figure([1, 2, NAN, 3], [1, 2, 9, 3]) == pytest.approx(1)
    assert figure([1, 1, 1], [1, 2, 3]) is None
    assert figure([1], [2]) is None
    assert figure([NAN, 1], [2, NAN]) is None
    with pytest.raises(DataError, match="same length"):
        figure([1, 2], [1])


def test_kendall_in_blocks_is_kendall(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 50), rng.integers(0, 9, 50)
    whole = kendall(x, y)
    monkeypatch.setattr(agreement, "_ROWS_AT_ONCE", 7)
    assert kendall(x, y) == pytest.approx(whole)


def test_kappa_by_hand() -> None:
    # Weights are squared distances: seen 1 of 4 items one step apart; by chance, from marginals (2, 2) and (1, 3), 4 * (1*.5*.75 + 1*.5*.25).
    assert quadratic_kappa([0, 0, 1, 1], [0, 1, 1, 1], levels=(0, 1)) == pytest.approx(1 - 1 / 2)
    assert quadratic_kappa([0, 5, NAN], [0, 5, 3], levels=range(6)) == 1
    assert quadratic_kappa([2, 2], [2, 2], levels=range(6)) is None
    assert quadratic_kappa([], [], levels=range(6)) is None
    with pytest.raises(DataError, match=r"grade 2\.5 is not one of the levels 0, 1, 2, 3"):
        quadratic_kappa([0, 2.5], [0, 1], levels=range(4))


def test_kappa_counts_steps_and_not_values() -> None:
    assert quadratic_kappa([0, 20, 100], [20, 20, 100], levels=(0, 20, 100)) == quadratic_kappa(
        [0, 1, 2], [1, 1, 2], levels=(0, 1, 2)
    )


def test_auc_by_hand() -> None:
    assert auc([1, 2, 3, 4], [0, 0, 1, 1]) == 1
    assert auc([4, 3, 2, 1], [0, 0, 1, 1]) == 0
    assert auc([1, 1, 1], [0, 1, 1]) == 0.5
    assert auc([1, 2, NAN, 9], [0, 1, 1, NAN]) == 1
    assert auc([1, 2], [1, 1]) is None


# ---- intervals -----------------------------------------------------------------------------------------------------------------


def test_interval_of_a_correlation_matches_fishers() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=400)
    y = x + rng.normal(size=400)
    found = clustered(pearson, [x, y], [str(one) for one in range(400)], resamples=1000, seed=1)
    assert found.mean is not None
    z, half = math.atanh(found.mean), 1.96 / math.sqrt(397)
    assert (found.low, found.high) == (pytest.approx(math.tanh(z - half), abs=0.02), pytest.approx(math.tanh(z + half), abs=0.02))
    assert (found.n, found.clusters) == (400, 400)


def test_copies_of_a_recording_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    once = clustered(spearman, [x, y], [str(one) for one in range(40)], resamples=500, seed=1)
    copied = clustered(spearman, [np.repeat(x, 5), np.repeat(y, 5)], [str(one // 5) for one in range(200)], resamples=500, seed=1)
    assert (copied.n, copied.clusters) == (200, 40)
    assert once.low is not None
    assert once.high is not None
    assert copied.low == pytest.approx(once.low, abs=0.05)
    assert copied.high == pytest.approx(once.high, abs=0.05)


def test_intervals_that_there_are_not_have_a_reason() -> None:
    assert clustered(pearson, [[1, 2], [1, 2]], ["a", "a"], seed=1).missing == "one_cluster"
    assert clustered(pearson, [[1, 1], [1, 2]], ["a", "b"], seed=1).missing == "undefined"
    assert clustered(pearson, [[NAN, NAN], [1, 2]], ["a", "b"], seed=1).missing == "no_items"
    with pytest.raises(DataError, match="column 1 has 3 items, but there are 2 cluster names"):
        clustered(pearson, [[1, 2], [1, 2, 3]], ["a", "b"], seed=1)


# ---- over systems --------------------------------------------------------------------------------------------------------------


def two_sets(noise: float, *, shared: bool) -> agreement.SystemAgreement:
    rng = np.random.default_rng(0)
    truth = np.array([40.0, 45, 55, 60, 70])
    first = truth + rng.normal(0, noise, size=(60, 5))
    second = truth + 10 + rng.normal(0, noise, size=(30, 5))
    names = [f"r{index // 2}" for index in range(60)]
    others = [f"{'r' if shared else 'other '}{index}" for index in range(30)]
    return over_systems(first, second, names, list("abcde"), second_clusters=others, resamples=300, seed=1)


@pytest.mark.parametrize("shared", [True, False])
def test_two_test_sets_that_order_the_systems_alike(shared: bool) -> None:
    found = two_sets(1.0, shared=shared)
    assert (found.spearman.mean, found.kendall.mean) == (pytest.approx(1), pytest.approx(1))
    assert found.spearman.low == pytest.approx(1)
    assert found.spearman.clusters == (30 if shared else 60)
    # Of 120 orders of five systems two are as extreme.
    assert found.p == pytest.approx(2 / 120)


def test_noisy_test_sets_have_wide_intervals() -> None:
    found = two_sets(60.0, shared=False)
    assert found.spearman.low is not None
    assert found.spearman.high is not None
    assert found.spearman.high - found.spearman.low > 0.3


def test_one_set_and_two_measurements_may_leave_gaps() -> None:
    judge = np.array([[80.0, NAN], [60, 20], [NAN, 40]])
    label = np.array([[1.0, 0], [1, 0], [1, NAN]])
    found = over_systems(judge, label, ["a", "b", "c"], ["S10", "S20"], resamples=200, seed=1)
    assert found.first == (70.0, 30.0)
    assert found.second == (1.0, 0.0)
    assert (found.pearson.mean, found.pearson.n, found.pearson.clusters) == (pytest.approx(1), 3, 3)
    with pytest.raises(DataError, match=r"shape \(3, 3\)"):
        over_systems(judge, label, ["a", "b", "c"], ["S10", "S20", "S30"], seed=1)


def test_permutation_p_counts_orders() -> None:
    assert permutation_p(spearman, [1, 2, 3], [1, 2, 3]) == pytest.approx(2 / 6)
    many = permutation_p(spearman, range(12), range(12), resamples=200, seed=3)
    assert many == pytest.approx(1 / 201)
    assert permutation_p(spearman, [1, 1], [1, 2]) is None
