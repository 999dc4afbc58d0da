"""The figures of a validation, each a function of rows: agreement, calibration, ranks, consistency."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from undertone.evaluate import agreement, metrics
from undertone.evaluate.agreement import SystemAgreement
from undertone.evaluate.metrics import Floats, Interval, interval_of
from undertone.evaluate.validate.result import (
    ALL,
    Bin,
    Calibration,
    Consistency,
    JudgeFacts,
    RankAgreement,
    RaterAgreement,
)
from undertone.evaluate.validate.rows import AnswerKey, Judged, Rater

_SCALES = ((0, 100), (0, 20, 40, 60, 80, 100), (0, 25, 50, 75, 100), tuple(range(0, 101, 10)))
"""Grades that judges use, in points; the first scale that holds all scores of two raters is theirs."""

_MOST_BINS = 11
_HUMAN = "human"

Grouped = Mapping[str, Sequence[Judged]]


class Draws:
    """How often to draw, and from which seed."""

    def __init__(self, *, resamples: int, seed: int) -> None:
        self.resamples, self.seed = resamples, seed

    def of(self, fn: Callable[..., float | None], columns: Sequence[ArrayLike], clusters: Sequence[str]) -> Interval:
        """A figure of paired columns with its interval."""
        return agreement.clustered(fn, columns, clusters, resamples=self.resamples, seed=self.seed)

    def mean(self, column: ArrayLike, clusters: Sequence[str]) -> Interval:
        """The mean of a column with its interval."""
        return metrics.bootstrap_means(column, clusters, resamples=self.resamples, seed=self.seed)[0]


def by_set(rows: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Rows by dataset, and all together where there are several."""
    found: defaultdict[str, list[Judged]] = defaultdict(list)
    for row in rows:
        found[row.dataset].append(row)
    together = {ALL: list(rows)} if len(found) > 1 else {}
    return together | dict(sorted(found.items()))


def by_rater(rows: Sequence[Judged]) -> dict[Rater, list[Judged]]:
    """Rows by judge and prompt."""
    found: defaultdict[Rater, list[Judged]] = defaultdict(list)
    for row in rows:
        found[row.rater].append(row)
    return dict(sorted(found.items()))


# ---- one judge -------------------------------------------------------------------------------------------------------------------


def facts(rater: Rater, rows: Sequence[Judged], draws: Draws) -> JudgeFacts:
    """How much a judge scored, and what its mean would be if failures were counted otherwise."""
    clusters = [row.cluster for row in rows]
    scores = np.array([math.nan if row.score is None else row.score for row in rows])
    counted = np.array([one if row.counted_as is None else row.counted_as for one, row in zip(scores, rows, strict=True)])
    zeros = np.nan_to_num(scores, nan=0.0)
    read = np.array([row.reread if row.reread is not None else one for one, row in zip(scores, rows, strict=True)], dtype=float)
    found = metrics.bootstrap_means(
        np.stack([scores, counted, zeros], axis=1), clusters, resamples=draws.resamples, seed=draws.seed
    )
    grades = Counter(float(one) for one in scores[~np.isnan(scores)])
    tokens = [row.tokens for row in rows if row.tokens is not None]
    costs = [row.cost for row in rows if row.cost is not None]
    return JudgeFacts(
        judge=rater.judge,
        prompt=rater.prompt,
        sets=len({row.dataset for row in rows}),
        systems=len({row.system for row in rows}),
        verdicts=len(rows),
        scored=int((~np.isnan(scores)).sum()),
        unscored=dict(sorted(Counter(row.unscored for row in rows if row.unscored is not None).items())),
        grades={f"{one:g}": grades[one] for one in sorted(grades)} if len(grades) <= _MOST_BINS else {},
        mean=found[0],
        as_counted=found[1],
        as_zero=found[2],
        reread=float(np.nanmean(read)) if any(row.reread is not None for row in rows) else None,
        tokens=sum(tokens) if tokens else None,
        cost=math.fsum(costs) if costs else None,
        priced=max(len(tokens), len(costs)),
    )


def consistency(rater: Rater, dataset: str, rows: Sequence[Judged], draws: Draws) -> Consistency | None:
    """How much a judge differs from itself over its runs; None where no answer has two scores."""
    runs = sorted({row.run for row in rows})
    by_answer: defaultdict[AnswerKey, dict[int, float]] = defaultdict(dict)
    cluster: dict[AnswerKey, str] = {}
    for row in rows:
        if row.score is not None:
            by_answer[row.key][row.run] = row.score
            cluster[row.key] = row.cluster
    several = [key for key, scores in by_answer.items() if len(scores) > 1]
    if not several:
        return None
    table = np.array([[by_answer[key].get(run, math.nan) for run in runs] for key in several])
    clusters = [cluster[key] for key in several]
    spread = np.array([float(np.std(row[~np.isnan(row)], ddof=1)) for row in table])
    alike = np.array([float(np.ptp(row[~np.isnan(row)]) == 0) for row in table])
    # `clustered` leaves out rows with a gap when it counts, so that alpha's count is that of the answers with all runs.
    alpha = draws.of(lambda drawn: agreement.krippendorff_alpha(drawn.T, level="ordinal"), [table], clusters)
    return Consistency(
        judge=rater.judge,
        prompt=rater.prompt,
        dataset=dataset,
        runs=len(runs),
        answers=len(several),
        sd=draws.mean(spread, clusters),
        same=draws.mean(alike, clusters),
        alpha=alpha,
    )


# ---- right and wrong -------------------------------------------------------------------------------------------------------------


def calibration(rater: Rater, dataset: str, attribute: str, rows: Sequence[Judged], draws: Draws) -> Calibration | None:
    """How right and wrong answers score; None without a scored answer that is known to be right or wrong."""
    known = [row for row in rows if row.score is not None and row.right is not None]
    if not known:
        return None
    scores = np.array([row.score for row in known], dtype=float)
    right = np.array([float(row.right or False) for row in known])
    clusters = [row.cluster for row in known]
    edges = _edges(scores)
    place = np.searchsorted([low for low, _ in edges], scores, side="right") - 1
    columns = {index: np.where(place == index, right, math.nan) for index in range(len(edges))}
    drawn = metrics.resample(columns, clusters, resamples=draws.resamples, seed=draws.seed)
    unmapped = np.array([row.label is not None and row.mapped is None for row in known])
    bins = tuple(
        Bin(low=low, high=high, n=int(held.sum()), unmapped=int(unmapped[held].sum()), correct=drawn.interval(index))
        for index, (low, high) in enumerate(edges)
        for held in [place == index]
    )
    slope = draws.of(_slope, [scores, right], clusters)
    falls = tuple(_falls(bins, drawn))
    rises: Literal["yes", "no", "cannot be told"] = "cannot be told"
    if slope.low is not None and slope.high is not None:
        rises = "no" if falls or slope.high < 0 else "yes" if slope.low > 0 else "cannot be told"
    return Calibration(
        judge=rater.judge,
        prompt=rater.prompt,
        dataset=dataset,
        attribute=attribute,
        n=len(known),
        bins=bins,
        auc=draws.of(agreement.auc, [scores, right], clusters),
        slope=slope,
        falls=falls,
        off_isotonic=_off_isotonic(bins),
        rises=rises,
    )


def _edges(scores: Floats) -> list[tuple[float, float]]:
    """One bin for each grade, or tenths of the scale where there are more than eleven."""
    grades = np.unique(scores)
    if len(grades) <= _MOST_BINS:
        return [(float(one), float(one)) for one in grades]
    tenths = [(float(low), float(low + 10)) for low in range(0, 100, 10)]
    return [(low, high) for low, high in tenths if ((scores >= low) & ((scores < high) | (high == 100))).any()]


def _slope(scores: Floats, right: Floats) -> float | None:
    """Of the least-squares line, over 100 points of score, in points of the share correct."""
    spread = scores - scores.mean() if len(scores) else scores
    total = float((spread**2).sum())
    return 1e4 * float((spread * right).sum()) / total if total > 0 else None


def _falls(bins: Sequence[Bin], drawn: metrics.Resampled[int]) -> Iterator[str]:
    """Steps from one bin to the next where less is right, told by the interval of the difference on the same resamples."""
    for index, (lower, upper) in enumerate(itertools.pairwise(bins)):
        first, second = lower.correct.mean, upper.correct.mean
        if first is None or second is None:
            continue
        gap = interval_of(
            second - first,
            drawn.draws[index + 1] - drawn.draws[index],
            lower.n + upper.n,
            min(lower.correct.clusters, upper.correct.clusters),
        )
        if gap.high is not None and gap.high < 0:
            yield f"{bin_name(lower)} to {bin_name(upper)}"


def bin_name(one: Bin) -> str:
    """A grade, or a range of scores."""
    return f"{one.low:g}" if one.low == one.high else f"{one.low:g}-{one.high:g}"


def _off_isotonic(bins: Sequence[Bin]) -> float | None:
    from sklearn.isotonic import IsotonicRegression

    shares = np.array([one.correct.mean for one in bins if one.correct.mean is not None])
    if len(shares) < 2:
        return None
    weights = np.array([one.n for one in bins if one.correct.mean is not None])
    fitted = IsotonicRegression().fit_transform(np.arange(len(shares)), shares, sample_weight=weights)
    return 100 * float(np.abs(fitted - shares).max())


def ranks(rater: Rater, dataset: str, attribute: str, rows: Sequence[Judged], draws: Draws) -> list[RankAgreement]:
    """How a judge orders systems beside the order by share right and by macro F1; nothing for fewer than three systems."""
    known = [row for row in rows if row.right is not None]
    systems = sorted({row.system for row in known if row.score is not None})
    if len(systems) < 3:
        return []
    cells: defaultdict[tuple[str, str], dict[str, list[Judged]]] = defaultdict(dict)
    for row in known:
        if row.system in systems:
            cells[row.dataset, row.item].setdefault(row.system, []).append(row)
    clusters = [next(iter(one.values()))[0].cluster for one in cells.values()]
    score = np.array([[_mean([row.score for row in one.get(name, ())]) for name in systems] for one in cells.values()])
    right = np.array([[_mean([row.right for row in one.get(name, ())]) for name in systems] for one in cells.values()])
    common = {"judge": rater.judge, "prompt": rater.prompt, "dataset": dataset, "attribute": attribute, "items": len(cells)}
    found = agreement.over_systems(score, 100 * right, clusters, systems, resamples=draws.resamples, seed=draws.seed)
    made = [RankAgreement.model_validate({**common, "measure": "WA", "agreement": found})]
    if all(row.label is not None for row in known):
        by_f1 = _with_f1(score, list(cells.values()), clusters, systems, draws)
        made.append(RankAgreement.model_validate({**common, "measure": "macro F1", "agreement": by_f1}))
    return made


def _mean(values: Sequence[float | bool | None]) -> float:
    known = [float(one) for one in values if one is not None]
    return sum(known) / len(known) if known else math.nan


def _with_f1(
    score: Floats, cells: Sequence[Mapping[str, Sequence[Judged]]], clusters: Sequence[str], systems: Sequence[str], draws: Draws
) -> SystemAgreement:
    """Like `agreement.over_systems`, with macro F1 as the other side: no mean over items, so its counts are resampled instead."""
    labels = sorted({row.label for one in cells for some in one.values() for row in some if row.label is not None})
    names, owner = np.unique(np.asarray(clusters), return_inverse=True)
    # Per cluster, system and class: right, claimed, due. Runs of a judge judge the same answer, so one row of them is enough.
    counts = np.zeros((len(names), len(systems), len(labels), 3))
    sums, given = np.zeros((len(names), len(systems))), np.zeros((len(names), len(systems)))
    for index, one in enumerate(cells):
        for column, name in enumerate(systems):
            for row in one.get(name, ())[:1]:
                for place, label in enumerate(labels):
                    due, claimed = row.label == label, row.mapped == label
                    counts[owner[index], column, place] += (due and claimed, claimed, due)
            if not np.isnan(score[index, column]):
                sums[owner[index], column] += score[index, column]
                given[owner[index], column] += 1
    rng = np.random.default_rng(draws.seed)
    weights = np.stack(
        [np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)) for _ in range(draws.resamples)]
    ).astype(float)
    means, f1 = _ratio(sums.sum(0), given.sum(0)), _macro_f1(counts.sum(0))
    drawn_means = _ratio(weights @ sums, weights @ given)
    drawn_f1 = _macro_f1((weights @ counts.reshape(len(names), -1)).reshape(draws.resamples, *counts.shape[1:]))

    def figure(fn: Callable[[ArrayLike, ArrayLike], float | None]) -> Interval:
        values = [fn(first, second) for first, second in zip(drawn_means, drawn_f1, strict=True)]
        return interval_of(
            fn(means, f1),
            np.array([math.nan if one is None else one for one in values]),
            int(given.sum(1).astype(bool).sum()),
            len(names),
        )

    return SystemAgreement(
        systems=tuple(systems),
        first=tuple(None if np.isnan(one) else float(one) for one in means),
        second=tuple(None if np.isnan(one) else 100 * float(one) for one in f1),
        spearman=figure(agreement.spearman),
        kendall=figure(agreement.kendall),
        pearson=figure(agreement.pearson),
        p=spearman_p(means, f1, seed=draws.seed),
    )


def spearman_p(x: ArrayLike, y: ArrayLike, *, resamples: int = 10_000, seed: int) -> float | None:
    """Two-sided p of the rank correlation if every order were equally likely, like `agreement.permutation_p` but all orders at once."""
    if agreement.spearman(x, y) is None:
        return None
    both = ~(np.isnan(np.asarray(x, dtype=float)) | np.isnan(np.asarray(y, dtype=float)))
    left, right = agreement.midranks(np.asarray(x)[both]), agreement.midranks(np.asarray(y)[both])
    left, right, size = left - left.mean(), right - right.mean(), int(both.sum())
    exact = size <= 8
    if exact:
        orders = np.array(list(itertools.permutations(range(size))))
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(size), (resamples, 1)), axis=1)
    as_far = int((np.abs(right[orders] @ left) >= abs(float(left @ right)) - 1e-9).sum())
    return as_far / len(orders) if exact else (as_far + 1) / (len(orders) + 1)


def _macro_f1(counts: Floats) -> Floats:
    """Of counts (..., classes, 3): the mean F1 of the classes that are due somewhere; NaN without any."""
    right, claimed, due = counts[..., 0], counts[..., 1], counts[..., 2]
    f1 = np.where(due > 0, 2 * right / np.maximum(claimed + due, 1), math.nan)
    return _ratio(np.nansum(f1, axis=-1), (due > 0).sum(axis=-1).astype(float))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    made: Floats = np.divide(top, bottom, out=np.full(np.shape(top), math.nan), where=np.asarray(bottom) > 0)
    return made


# ---- two raters ------------------------------------------------------------------------------------------------------------------


def agreements(rows: Sequence[Judged], dataset: str, draws: Draws) -> Iterator[RaterAgreement]:
    """All pairs of raters that scored the same answers, and each rater beside people."""
    raters = by_rater(rows)
    scored = {rater: {(row.key, row.run): row for row in some} for rater, some in raters.items()}
    for first, second in itertools.combinations(raters, 2):
        kind: Literal["judges", "prompts"] = "prompts" if first.judge == second.judge else "judges"
        mine, theirs = scored[first], scored[second]
        shared = [key for key in mine if key in theirs]
        asked = {(key.dataset, key.item, key.system) for key, _ in mine} & {
            (key.dataset, key.item, key.system) for key, _ in theirs
        }
        other = len(asked - {(key.dataset, key.item, key.system) for key, _ in shared})
        pairs = [(mine[key].score, theirs[key].score, mine[key].cluster) for key in shared]
        found = _agreement(kind, str(first), str(second), dataset, pairs, other, draws)
        if found is not None:
            yield found
    for rater, some in raters.items():
        pairs = [(row.score, row.human, row.cluster) for row in some]
        found = _agreement("human", str(rater), _HUMAN, dataset, pairs, 0, draws)
        if found is not None and found.n:
            yield found


def _agreement(
    kind: Literal["judges", "prompts", "human"],
    first: str,
    second: str,
    dataset: str,
    pairs: Sequence[tuple[float | None, float | None, str]],
    other: int,
    draws: Draws,
) -> RaterAgreement | None:
    """None where the two have nothing in common, not even a question."""
    both = [(one, two, cluster) for one, two, cluster in pairs if one is not None and two is not None]
    if not both and not other:
        return None
    left, right = np.array([one for one, _, _ in both]), np.array([two for _, two, _ in both])
    clusters = [cluster for _, _, cluster in both]
    levels = levels_of(np.concatenate([left, right])) if both else None

    def kappa(one: Floats, two: Floats) -> float | None:
        return None if levels is None else agreement.quadratic_kappa(one, two, levels)

    return RaterAgreement(
        kind=kind,
        first=first,
        second=second,
        dataset=dataset,
        n=len(both),
        other_answers=other,
        same=float((left == right).mean()) if both else None,
        kappa=draws.of(kappa, [left, right], clusters),
        alpha=draws.of(
            lambda one, two: agreement.krippendorff_alpha(np.stack([one, two]), level="ordinal"), [left, right], clusters
        ),
        pearson=draws.of(agreement.pearson, [left, right], clusters),
        difference=draws.mean(left - right, clusters),
    )


def levels_of(scores: ArrayLike) -> tuple[float, ...] | None:
    """The grades that scores can be taken for; None for scores between grades."""
    seen = {float(one) for one in np.asarray(scores, dtype=float)}
    return next((tuple(map(float, scale)) for scale in _SCALES if seen <= set(map(float, scale))), None)
