"""The statistics of a study: 10,000 resamples on 10,000 questions x 5 systems, and our figures against scipy, scikit-learn and krippendorff.

python benchmarks/bench_statistics.py [--items 10000] [--systems 5] [--resamples 10000]

Needs the package krippendorff (the extra bench; GPL-3, so nothing of ours imports it). Three tables of the same size: 500 recordings with 20
questions each, 2,000 with 5, and as many recordings as questions, which is the worst case because a resample is a count for each recording.
The whole table is timed too: eight kinds, groups, UAS, relative gains, all paired tests with both p values, their corrections and detectable
differences.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

import krippendorff
import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from undertone.evaluate import agreement, metrics, study_table
from undertone.records import QAPair, Verdict

SEED = 7
SYSTEMS = study_table.SYSTEMS
KINDS = ("C", "DE", "DG", "DS", "CE", "CG", "CS")


def timed(what: str, made: Callable[[], object]) -> None:
    started, busy = time.perf_counter(), time.process_time()
    made()
    print(f"{what:<66} {time.perf_counter() - started:6.2f} s {time.process_time() - busy:6.2f} core s")


def study(items: int, recordings: int, systems: Sequence[str]) -> tuple[list[Verdict], list[QAPair]]:
    rng = np.random.default_rng(SEED)
    pairs = [
        QAPair(
            clip_id=f"clip {number}",
            recording_id=f"recording {number % recordings}",
            source="benchmark",
            kind=KINDS[number % len(KINDS)],
            question=f"Question {number}?",
            answer="Sad.",
            label_attribute="emotion",
            label="sad",
            generator="bench@1",
        )
        for number in range(items)
    ]
    ids = [one.id for one in pairs]
    right = rng.random((items, len(systems))) < 0.5
    verdicts = [
        Verdict(judge="bench", subject=system, pair_id=key, score=100.0 * hit, mapped_label="sad" if hit else "happy")
        for system, column in zip(systems, right.T, strict=True)
        for key, hit in zip(ids, column, strict=True)
    ]
    return verdicts, pairs


def speed(items: int, systems: int, resamples: int) -> None:
    names = [*SYSTEMS, *(f"other {index}" for index in range(systems))][:systems]
    scores = np.random.default_rng(SEED).integers(0, 2, size=(items, systems)) * 100.0
    print(f"{resamples:,} resamples, {items:,} questions, {systems} systems, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)")
    for recordings in (items // 20, items // 5, items):
        clusters = [f"recording {number % recordings}" for number in range(items)]
        timed(
            f"means and intervals of all systems, {recordings:,} recordings",
            lambda clusters=clusters: metrics.bootstrap_means(scores, clusters, resamples=resamples, seed=SEED),
        )
        verdicts, pairs = study(items, recordings, names)
        timed(
            f"the whole study table, all pairs of systems, {recordings:,} recordings",
            lambda verdicts=verdicts, pairs=pairs: study_table.build(
                verdicts, pairs, contrasts="all", resamples=resamples, seed=SEED
            ),
        )


def agreement_with_others(tables: int) -> None:
    """The largest difference to the reference programs over random tables with ties and gaps."""
    rng = np.random.default_rng(SEED)
    worst: dict[str, float] = {}

    def compared(name: str, ours: float | None, theirs: float) -> None:
        if ours is not None and np.isfinite(theirs):
            worst[name] = max(worst.get(name, 0.0), abs(ours - theirs))

    for _ in range(tables):
        size, levels = int(rng.integers(4, 60)), int(rng.integers(2, 8))
        x, y = rng.integers(0, levels, size).astype(float), rng.integers(0, levels, size).astype(float)
        if len(set(x)) < 2 or len(set(y)) < 2:
            continue
        compared("pearson, scipy", agreement.pearson(x, y), stats.pearsonr(x, y)[0])
        compared("spearman, scipy", agreement.spearman(x, y), stats.spearmanr(x, y)[0])
        compared("kendall, scipy", agreement.kendall(x, y), stats.kendalltau(x, y)[0])
        compared(
            "quadratic kappa, scikit-learn",
            agreement.quadratic_kappa(x, y, range(levels)),
            cohen_kappa_score(x, y, labels=list(range(levels)), weights="quadratic"),
        )
        right = rng.integers(0, 2, size)
        if 0 < right.sum() < size:
            compared("AUC, scikit-learn", agreement.auc(x, right), roc_auc_score(right, x))
        ratings = rng.integers(0, levels, size=(4, size)).astype(float)
        ratings[rng.random(ratings.shape) < 0.3] = np.nan
        for level in ("nominal", "ordinal", "interval"):
            if len(np.unique(ratings[~np.isnan(ratings)])) < 2:
                continue  # krippendorff refuses these, ours is None
            compared(
                f"alpha ({level}), krippendorff",
                agreement.krippendorff_alpha(ratings, level=level),
                krippendorff.alpha(ratings, level_of_measurement=level),
            )
    print(f"largest difference on {tables:,} random tables with ties and gaps")
    for name, most in worst.items():
        print(f"{name:<66} {most:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--systems", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--tables", type=int, default=2_000)
    given = parser.parse_args()
    speed(given.items, given.systems, given.resamples)
    agreement_with_others(given.tables)


if __name__ == "__main__":
    main()
