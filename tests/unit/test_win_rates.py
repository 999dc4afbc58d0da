"""Win rates and Bradley-Terry strengths against closed forms, against a general optimiser, and where there is nothing to compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertone.errors import DataError
from undertone.evaluate.pairwise import Preference
from undertone.evaluate.win_rates import PRIOR_WINS, WinTable, bradley_terry, win_table


def preference(pair: int, winner: Any, *, first: str = "S10", second: str = "S30", run: int = 0, **more: Any) -> Preference:
    base: dict[str, Any] = {"judge": "j", "first": first, "second": second, "pair_id": f"p{pair}", "run": run}
    return Preference(**{**base, "winner": winner, "consistent": True, **more})


RECORDINGS = {f"p{number}": f"r{number // 2}" for number in range(200)}


def test_two_systems_have_a_closed_form() -> None:
    wins = np.array([[0.0, 13.0], [6.5, 0.0]])
    assert np.diff(bradley_terry(wins)[::-1])[0] == pytest.approx(np.log((13 + PRIOR_WINS) / (6.5 + PRIOR_WINS)))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_strengths_are_the_most_likely_ones(size: int, seed: int) -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 20, (size, size)) + 0.5 * rng.integers(0, 3, (size, size))
    np.fill_diagonal(wins, 0)
    wins[0, 1:] += 1  # everybody met the first
    games = wins + wins.T
    prior = wins + PRIOR_WINS * (games > 0)

    def unlikely(free: np.ndarray) -> float:
        logs = np.append(free, -free.sum())
        return float((prior * np.logaddexp(0, logs[None, :] - logs[:, None])).sum())

    best = minimize(unlikely, np.zeros(size - 1), method="BFGS", options={"gtol": 1e-8}).x
    assert bradley_terry(wins) == pytest.approx(np.append(best, -best.sum()), abs=1e-4)


def test_a_system_that_always_wins_has_a_finite_strength_and_one_that_met_nobody_none() -> None:
    assert np.isfinite(bradley_terry(np.array([[0.0, 9.0], [0.0, 0.0]]))).all()
    apart = np.zeros((4, 4))
    apart[0, 1] = apart[2, 3] = 5
    assert np.isnan(bradley_terry(apart)).all()


def test_win_rates_count_ties_as_half_and_keep_the_rest_apart() -> None:
    given = [preference(number, "first") for number in range(6)] + [preference(number, "second") for number in (6, 7)]
    given += [preference(8, "tie"), preference(9, "tie", consistent=False, shown_first="first", shown_second="second")]
    given += [
        preference(10, None, consistent=None, unscored="refused", at_fault="S30"),
        preference(11, None, consistent=None, unscored="timed_out"),
    ]
    table = win_table(given, RECORDINGS, resamples=500)
    (match,) = table.matches
    assert (match.wins, match.losses, match.ties, match.inconsistent) == (6, 2, 2, 1)
    assert match.win_rate.mean == pytest.approx(0.7)
    assert match.unscored == {"refused by S30": 1, "timed_out": 1}
    assert (match.win_rate.n, match.win_rate.clusters) == (10, 5)
    low, high = match.win_rate.low, match.win_rate.high
    assert low is not None
    assert high is not None
    assert low < 0.7 < high
    strengths = {one.subject: one.score.mean for one in table.strengths}
    assert strengths["S10"] == pytest.approx(np.log(7.5 / 3.5) / 2)
    assert strengths["S30"] == pytest.approx(-np.log(7.5 / 3.5) / 2)
    assert WinTable.model_validate_json(table.model_dump_json()) == table
    said = table.plain_text()
    assert "S10 against S30: wins 70.0 %" in said
    assert "2 ties (1 of them because the orders disagree), refused by S30 1" in said


def test_who_is_named_first_does_not_matter() -> None:
    given = [preference(number, winner) for number, winner in enumerate(["first", "first", "tie", "second", "first", "tie"])]
    turned = {"first": "second", "second": "first", "tie": "tie"}
    swapped = [preference(n, turned[str(one.winner)], first="S30", second="S10") for n, one in enumerate(given)]
    assert win_table(given, RECORDINGS) == win_table(swapped, RECORDINGS) == win_table(reversed(given), RECORDINGS)


def test_the_place_that_a_judge_favours_is_told() -> None:
    always_a = [preference(n, "tie", consistent=False, shown_first="first", shown_second="second") for n in range(8)]
    fair = [preference(n, "first", shown_first="first", shown_second="first") for n in range(8)]
    unasked = [preference(n, "tie") for n in range(8)]
    assert [win_table(one, RECORDINGS).matches[0].shown_first for one in (always_a, fair, unasked)] == [1.0, 0.5, None]


def test_runs_are_averaged_before_questions_are_drawn() -> None:
    given = [preference(n, "first" if run or n < 10 else "second", run=run) for n in range(20) for run in range(2)]
    (match,) = win_table(given, RECORDINGS).matches
    assert match.win_rate.mean == pytest.approx(0.75)
    assert match.win_rate.n == 20
    assert match.wins == 30


def test_intervals_hold_what_they_promise_under_clusters() -> None:
    """Of 200 samples in which a true 60 % of recordings are won, about 95 % have it in the interval."""
    rng, held = np.random.default_rng(0), 0
    for sample in range(200):
        won = rng.random(40) < 0.6
        given = [preference(n, "first" if won[n // 2] else "second") for n in range(80)]
        rate = win_table(given, RECORDINGS, resamples=300, seed=sample).matches[0].win_rate
        assert rate.low is not None
        assert rate.high is not None
        held += rate.low <= 0.6 <= rate.high
    assert 0.9 <= held / 200 <= 0.99


def test_one_recording_gives_no_interval_and_nothing_gives_nothing() -> None:
    table = win_table([preference(0, "first"), preference(1, "tie")], RECORDINGS)
    assert (table.matches[0].win_rate.low, table.strengths[0].score.low, table.strengths[0].score.missing) == (
        None,
        None,
        "one_cluster",
    )
    lost = win_table([preference(0, None, consistent=None, unscored="refused")], RECORDINGS)
    assert (lost.matches[0].win_rate.mean, lost.strengths[0].score.mean) == (None, None)
    assert win_table([], RECORDINGS).matches == ()


def test_judges_are_not_mixed_and_strays_are_told() -> None:
    other = preference(1, "tie").model_copy(update={"judge": "k"})
    with pytest.raises(DataError, match="by j, k"):
        win_table([preference(0, "tie"), other], RECORDINGS)
    with pytest.raises(DataError, match="p0, which is not in the benchmark"):
        win_table([preference(0, "tie")], {})
