"""What preferences add up to: win rates of two subjects against each other, and one scale for all of them (Bradley & Terry, 1952)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError
from undertone.evaluate import metrics
from undertone.evaluate.metrics import Floats, Interval
from undertone.evaluate.pairwise import Preference

_POINTS = {"first": 1.0, "tie": 0.5, "second": 0.0}

PRIOR_WINS = 0.5
"""Wins that each of two compared subjects is given over the other beforehand, as if one tie had been seen. Without it a subject that won
every time would have no finite strength. For two subjects the score is then the log odds with Haldane's and Anscombe's correction (1956)."""


class Match(BaseModel):
    """Two subjects against each other.

    Attributes:
        wins, losses, ties: Of `first`; runs of the judge count one by one. `inconsistent` are those of the ties in which the judge chose
            one answer in one order and not in the other.
        win_rate: Share of wins, a tie counted as half, with an interval over recordings; the mean over runs is taken first.
        shown_first: Share of the judge's decisions for the answer that was shown first, ties aside: 0.5 without a bias of position.
        unscored: Comparisons without a winner, by reason; "refused by S10" where the answer of a subject was none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    inconsistent: int
    win_rate: Interval
    shown_first: float | None
    unscored: dict[str, int]


class Strength(BaseModel):
    """A subject's Bradley-Terry score: a log-odds scale with mean 0, so that a difference of 1 means odds of 2.72 to 1.

    `score` has a bootstrap interval over recordings; it has no value where the subject was compared with none of the others, not even by
    way of third ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    score: Interval


class WinTable(BaseModel):
    """All matches and strengths by one judge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    runs: int
    matches: tuple[Match, ...]
    strengths: tuple[Strength, ...]

    def plain_text(self) -> str:
        """The table for a terminal."""
        lines = [f"Judge: {self.judge}, {self.runs} run(s); ties count as half a win"]
        for one in self.matches:
            rate = "none" if one.win_rate.mean is None else f"{100 * one.win_rate.mean:.1f} %{_bounds(one.win_rate, 100)}"
            bias = "" if one.shown_first is None else f"; decisions for the answer shown first {100 * one.shown_first:.0f} %"
            lost = "".join(f", {reason} {count}" for reason, count in one.unscored.items())
            lines.append(
                f"{one.first} against {one.second}: wins {rate}; {one.wins} won, {one.losses} lost, {one.ties} ties "
                f"({one.inconsistent} of them because the orders disagree){lost}{bias}"
            )
        lines.append("Strength (Bradley-Terry, log odds):")
        for strength in sorted(self.strengths, key=lambda one: -(one.score.mean if one.score.mean is not None else -np.inf)):
            mean = strength.score.mean
            lines.append(f"  {strength.subject}: {'none' if mean is None else f'{mean:+.2f}{_bounds(strength.score, 1)}'}")
        return "\n".join(lines) + "\n"


def _bounds(interval: Interval, unit: float) -> str:
    if interval.low is None or interval.high is None:
        return " (no interval)"
    return f" ({interval.level * 100:.0f} % interval {unit * interval.low:.2f} to {unit * interval.high:.2f})"


def win_table(
    preferences: Iterable[Preference], recordings: Mapping[str, str], *, resamples: int = 2000, seed: int = 0
) -> WinTable:
    """Compute win rates and strengths.

    Args:
        preferences: Of one judge.
        recordings: The recording of each pair, by the pair's id: preferences about one recording are drawn together.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        DataError: The preferences are of several judges, or about a pair without a recording.
    """
    found = list(preferences)
    judges = sorted({one.judge for one in found})
    if len(judges) > 1:
        raise DataError(f"one table of wins is of one judge, but the preferences are by {', '.join(judges)}; make one for each")
    stray = next((one.pair_id for one in found if one.pair_id not in recordings), None)
    if stray is not None:
        raise DataError(f"a preference is about pair {stray}, which is not in the benchmark: the preferences are of another run")
    met: dict[tuple[str, str], list[Preference]] = defaultdict(list)
    for one in found:
        met[min((one.first, one.second), (one.second, one.first))].append(one)
    matches = tuple(_match(*names, held, recordings, resamples, seed) for names, held in sorted(met.items()))
    return WinTable(
        judge=judges[0] if judges else "",
        runs=max((one.run + 1 for one in found), default=0),
        matches=matches,
        strengths=_strengths(found, recordings, resamples, seed),
    )


def _points_of(one: Preference, subject: str) -> float | None:
    """What a preference is worth to one of its two subjects."""
    if one.winner is None:
        return None
    return _POINTS[one.winner] if one.first == subject else 1 - _POINTS[one.winner]


def _match(first: str, second: str, held: Sequence[Preference], recordings: Mapping[str, str], resamples: int, seed: int) -> Match:
    points: dict[str, list[float]] = defaultdict(list)
    counts, unscored = Counter[float](), Counter[str]()
    for one in held:
        worth = _points_of(one, first)
        if worth is None:
            unscored[f"{one.unscored}{f' by {one.at_fault}' if one.at_fault else ''}"] += 1
        else:
            counts[worth] += 1
            points[one.pair_id].append(worth)
    pairs = sorted(points)
    means = np.array([np.mean(points[pair]) for pair in pairs], dtype=np.float64)
    rate = metrics.bootstrap_means(means, [recordings[pair] for pair in pairs], resamples=resamples, seed=seed)[0]
    ahead = sum((one.shown_first == "first") + (one.shown_second == "second") for one in held)
    behind = sum((one.shown_first == "second") + (one.shown_second == "first") for one in held)
    return Match(
        first=first,
        second=second,
        wins=counts[1.0],
        losses=counts[0.0],
        ties=counts[0.5],
        inconsistent=sum(one.consistent is False for one in held),
        win_rate=rate,
        shown_first=ahead / (ahead + behind) if ahead + behind else None,
        unscored=dict(sorted(unscored.items())),
    )


def _strengths(preferences: Sequence[Preference], recordings: Mapping[str, str], resamples: int, seed: int) -> tuple[Strength, ...]:
    names = sorted({name for one in preferences for name in (one.first, one.second)})
    place = {name: index for index, name in enumerate(names)}
    scored = [one for one in preferences if one.winner is not None]
    clusters = sorted({recordings[one.pair_id] for one in scored})
    row = {name: index for index, name in enumerate(clusters)}
    wins = np.zeros((len(clusters), len(names), len(names)))
    for one in scored:
        a, b, worth = place[one.first], place[one.second], _POINTS[one.winner or "tie"]
        wins[row[recordings[one.pair_id]], a, b] += worth
        wins[row[recordings[one.pair_id]], b, a] += 1 - worth
    whole, drawn = np.full(len(names), np.nan), np.full((resamples, len(names)), np.nan)
    if clusters:
        whole = bradley_terry(wins.sum(axis=0))
        rng = np.random.default_rng(seed)
        times = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=resamples)
        drawn = bradley_terry(np.tensordot(times.astype(float), wins, axes=1))
    return tuple(
        Strength(subject=name, score=_interval(whole[index], drawn[:, index], len(scored), len(clusters)))
        for index, name in enumerate(names)
    )


def _interval(mean: float, drawn: Floats, n: int, clusters: int) -> Interval:
    if not np.isfinite(mean):
        return Interval(mean=None, low=None, high=None, n=n, clusters=clusters, missing="no_items")
    finite = drawn[np.isfinite(drawn)]
    if clusters < 2 or 2 * len(finite) < len(drawn):
        missing = "one_cluster" if clusters < 2 else "no_items"
        return Interval(mean=float(mean), low=None, high=None, n=n, clusters=clusters, missing=missing)
    low, high = np.quantile(finite, (0.025, 0.975))
    return Interval(mean=float(mean), low=float(low), high=float(high), n=n, clusters=clusters)


def bradley_terry(wins: Floats, *, prior: float = PRIOR_WINS, tolerance: float = 1e-9, rounds: int = 5000) -> NDArray[np.float64]:
    """Log strengths, mean 0, of the model P(i beats j) = s_i / (s_i + s_j), by the minorisation of Hunter (2004).

    Args:
        wins: Wins of row over column, shape (..., subjects, subjects); a tie is half a win for each.
        prior: Wins that each of two that met is given over the other.
        tolerance: Largest change of a log strength in the last round.
        rounds: At most so many.

    Returns:
        Shape (..., subjects). NaN for all where not everybody can be compared with everybody, by way of others if need be.
    """
    table = np.asarray(wins, dtype=np.float64)
    played = (table + np.swapaxes(table, -1, -2)) > 0
    table = table + prior * played
    games, won = table + np.swapaxes(table, -1, -2), table.sum(axis=-1)
    logs = np.zeros(won.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(rounds):
            strengths = np.exp(logs)
            after = np.log(won / (games / (strengths[..., :, None] + strengths[..., None, :])).sum(axis=-1))
            after -= after.mean(axis=-1, keepdims=True)
            change = np.abs(after - logs)
            logs = after
            if not np.nanmax(change, initial=0.0) > tolerance:
                break
    logs[~_connected(played)] = np.nan
    return logs


def _connected(played: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether everybody is reached from everybody."""
    size = played.shape[-1]
    reach = played | np.eye(size, dtype=bool)
    for _ in range(size):
        reach = np.asarray((reach.astype(np.int64) @ reach.astype(np.int64)) > 0)
    return np.asarray(reach.all(axis=(-1, -2)))
