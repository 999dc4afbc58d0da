"""Tests between systems: p values, their corrections, standard errors and what a test set can find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from undertone.errors import DataError
from undertone.evaluate.metrics import resampled_means
from undertone.evaluate.paired import benjamini_hochberg, detectable, holm, sign_flip_p, standard_error

NAN = math.nan


def test_sign_flips_by_hand() -> None:
    # Of the 8 sign patterns of (1, 2, 3), 6 and -6 are as far from 0 as 6.
    assert sign_flip_p({"gap": [1, 2, 3]}, list("abc"), seed=0) == {"gap": 2 / 8}
    assert sign_flip_p({"gap": [1, -1, 3]}, list("abc"), seed=0) == {"gap": 6 / 8}
    assert sign_flip_p({"none": [0, 0, 0]}, list("abc"), seed=0) == {"none": 1}


def test_a_recording_flips_as_a_whole() -> None:
    assert sign_flip_p({"gap": [1, 1, 1, 1]}, list("aabb"), seed=0) == {"gap": 2 / 4}
    found = sign_flip_p({"one": [1, 2, NAN], "two": [1, NAN, 2]}, list("aab"), seed=0)
    assert found == {"one": None, "two": 2 / 4}
    assert sign_flip_p({"gap": []}, [], seed=0) == {"gap": None}


def test_sampled_sign_flips_are_near_the_t_test_and_never_zero() -> None:
    rng = np.random.default_rng(2)
    gap = rng.normal(0.3, 1, 60)
    names = [str(one) for one in range(60)]
    found = sign_flip_p({"gap": gap, "far": gap + 10}, names, resamples=10_000, seed=1)
    assert found["gap"] == pytest.approx(stats.ttest_1samp(gap, 0).pvalue, abs=0.01)
    assert found["far"] == 1 / 10_001


def test_sign_flips_of_thousands_of_recordings() -> None:
    gap = np.random.default_rng(2).normal(0, 1, 3000)
    found = sign_flip_p({"gap": gap}, [str(one) for one in range(3000)], resamples=500, seed=1)["gap"]
    assert found == pytest.approx(stats.ttest_1samp(gap, 0).pvalue, abs=0.08)


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Ten questions on each of 12 recordings that differ: items as units would be wrong half of the time."""
    rng = np.random.default_rng(5)
    names = [str(one // 10) for one in range(120)]
    gaps = {str(one): np.repeat(rng.normal(0, 1, 12), 10) + rng.normal(0, 0.3, 120) for one in range(400)}
    found = sign_flip_p(gaps, names, resamples=5000, seed=1)
    assert np.mean([p < 0.05 for p in found.values() if p is not None]) == pytest.approx(0.05, abs=0.025)
    alone = [stats.ttest_1samp(gap, 0).pvalue < 0.05 for gap in gaps.values()]
    assert np.mean(alone) > 0.4


def test_corrections_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert benjamini_hochberg([0.04, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    assert benjamini_hochberg([None, 0.5]) == [None, 0.5]


def test_standard_error_without_clusters_is_the_usual_one() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert standard_error([*values, NAN], [str(one) for one in range(51)]) == pytest.approx(stats.sem(values))


def test_standard_error_of_clusters_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 150)
    names = [str(cluster) for cluster, size in enumerate(sizes) for _ in range(size)]
    values = np.concatenate([rng.normal(0, 1) + rng.normal(0, 0.5, size) for size in sizes])
    drawn = resampled_means(values, names, resamples=4000, seed=1)[:, 0]
    assert standard_error(values, names) == pytest.approx(drawn.std(), rel=0.05)
    assert standard_error([1, 2], ["a", "a"]) is None
    assert standard_error([], []) is None


def test_what_is_detectable_is_detected_in_four_of_five_times() -> None:
    rng = np.random.default_rng(3)
    names = [str(one // 4) for one in range(100)]

    def drawn() -> np.ndarray:
        return np.repeat(rng.normal(0, 5, 25), 4) + rng.normal(0, 5, 100)

    true = np.mean([detectable(drawn(), names) for _ in range(100)])
    gaps = {str(one): drawn() + true for one in range(600)}
    found = sign_flip_p(gaps, names, resamples=2000, seed=1)
    assert np.mean([p < 0.05 for p in found.values() if p is not None]) == pytest.approx(0.8, abs=0.05)
    assert detectable([1.0], ["a"]) is None


def test_detectable_is_its_formula() -> None:
    gap, names = [1.0, 4, 2, 7], list("abcd")
    expected = (stats.t.ppf(0.975, 3) + stats.t.ppf(0.8, 3)) * stats.sem(gap)
    assert detectable(gap, names) == pytest.approx(expected)


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="one difference per cluster name"):
        sign_flip_p({"gap": [1, 2]}, ["a"], seed=0)
