"""What the exported model does on the test split, how it compares, and what it does not see."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score

from epitome.data import Posts
from epitome.fit import agreement
from epitome.probes import BARELY, PROBES
from undertone.evaluate.epitome import LEVELS, MECHANISMS, EpitomeSmall

RESAMPLES = 1000


def on_test(model: EpitomeSmall, posts: Posts, *, seed: int) -> dict[str, Any]:
    """Agreement with the annotators per mechanism, beside the majority level of the training part."""
    rows = np.flatnonzero(posts.test)
    found = model.score([posts.seekers[index] for index in rows], [posts.responses[index] for index in rows])
    report: dict[str, Any] = {}
    for column, mechanism in enumerate(MECHANISMS):
        truth, levels = posts.levels[rows, column], found.levels[:, column].astype(int)
        majority = int(np.bincount(posts.levels[~posts.test, column]).argmax())
        counts = confusion_matrix(truth, levels, labels=list(range(LEVELS)))
        report[mechanism] = {
            **agreement(truth, levels),
            "macro_f1_interval": _interval(truth, levels, [posts.ids[index] for index in rows], seed=seed),
            "recall": [float(one) for one in counts.diagonal() / np.maximum(counts.sum(axis=1), 1)],
            "pairs": counts.sum(axis=1).tolist(),
            "confusion": counts.tolist(),
            "mean_level": {"annotators": float(truth.mean()), "model": float(levels.mean())},
            "majority": {"level": majority, **agreement(truth, np.full(len(truth), majority))},
        }
    return report


def _interval(truth: NDArray[np.int64], levels: NDArray[np.int64], seekers: list[str], *, seed: int) -> list[float]:
    """95 % percentile interval of macro-F1 over resamples of whole seekers."""
    _, owner = np.unique(seekers, return_inverse=True)
    groups = [np.flatnonzero(owner == one) for one in range(owner.max() + 1)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[one] for one in rng.integers(0, len(groups), size=len(groups))])
        drawn.append(f1_score(truth[rows], levels[rows], average="macro", labels=list(range(LEVELS)), zero_division=0))
    return [float(one) for one in np.quantile(drawn, [0.025, 0.975])]


def sensitivity(model: EpitomeSmall, posts: Posts, *, seed: int) -> dict[str, Any]:
    """How levels of test replies change when the seeker's post, the response or the order of its words is another."""
    rows = np.flatnonzero(posts.test)
    seekers, responses = [posts.seekers[index] for index in rows], [posts.responses[index] for index in rows]
    rng = np.random.default_rng(seed)
    moved = np.roll(rng.permutation(len(rows)), 1)
    shuffled = [" ".join(rng.permutation(one.split())) for one in responses]
    own = model.score(seekers, responses).levels
    truth = posts.levels[rows]
    others = {
        "another seeker's post": model.score([seekers[index] for index in moved], responses).levels,
        "no seeker's post": model.score([""] * len(rows), responses).levels,
        "words of the response in random order": model.score(seekers, shuffled).levels,
        "another pair's response": model.score(seekers, [responses[index] for index in moved]).levels,
    }
    changed = {
        name: {
            "same_level": [float(one) for one in (levels == own).mean(axis=0)],
            "mean_level": [float(one) for one in levels.mean(axis=0)],
            "kappa": [agreement(truth[:, column], levels[:, column].astype(int))["kappa"] for column in range(len(MECHANISMS))],
        }
        for name, levels in others.items()
    }
    barely = model.score(["My dog died this morning."] * len(BARELY), list(BARELY)).levels
    probed = model.score([one.seeker for one in PROBES], [one.response for one in PROBES]).levels
    meant = np.array([one.levels for one in PROBES])
    empty = model.score(["My dog died this morning."] * 3, ["", "...", " :( "])
    return {
        "own_mean_level": [float(one) for one in own.mean(axis=0)],
        "changed": changed,
        "barely": {text: [int(one) for one in levels] for text, levels in zip(BARELY, barely, strict=True)},
        "without_words_unscored": sum(one is not None for one in empty.unscored),
        "probes": {
            "count": len(PROBES),
            "same_level": [int(one) for one in (probed == meant).sum(axis=0)],
            "same_presence": [int(one) for one in ((probed > 0) == (meant > 0)).sum(axis=0)],
            "missed": [
                {"response": one.response, "meant": list(one.levels), "read": [int(level) for level in levels]}
                for one, levels in zip(PROBES, probed, strict=True)
                if list(one.levels) != [int(level) for level in levels]
            ],
        },
    }
