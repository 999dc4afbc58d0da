"""Fitting: documents and, with a weight, their sentences, in one linear model per mechanism; the weight is chosen by cross-validation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from epitome.data import FOLDS, Posts, Sentences
from undertone.evaluate.epitome import BUCKETS, LEVELS, MECHANISMS, Parts, best_sentence, parts, probabilities, weigh

STRENGTH = 3.0
"""Inverse of the L2 penalty. 10 and 30 were worse or no better in every mechanism (folds, whole replies, n-grams before they were hashed)."""
WEIGHTS = (0.0, 0.5)
"""Weights of a sentence beside a document of 1: none, and EPITOME's weight of its rationale loss.

0.25 was within 0.01 macro-F1 of 0.5 in the two mechanisms that it was tried in."""
STEPS = 150


@dataclass(frozen=True)
class Read:
    """Everything as the models read it."""

    posts: Posts
    sentences: Sentences
    whole: Parts
    each: Parts


def read_all(posts: Posts, sentences: Sentences) -> Read:
    """Hash all responses and all their sentences once."""
    seekers = [posts.seekers[index] for index in sentences.owner]
    return Read(posts, sentences, parts(posts.seekers, posts.responses), parts(seekers, sentences.texts))


@dataclass(frozen=True)
class Fitted:
    """idf (BUCKETS,), coefficients (3, 3, BUCKETS + DENSE), biases (3, 3)."""

    idf: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    biases: NDArray[np.float64]


def fit(data: Read, rows: NDArray[np.bool_], *, weight: float) -> Fitted:
    """Fit on the pairs of `rows`; classes weigh the same, as macro-F1 counts them."""
    idf = _idf(data.whole.hashed[np.flatnonzero(rows)])
    whole, each = _matrix(data.whole, idf), _matrix(data.each, idf)
    owner = data.sentences.owner
    several = np.bincount(owner)[owner] > 1  # the only sentence of a response is that response
    extra = rows[owner] & several if weight else np.zeros(len(owner), dtype=bool)
    inputs = vstack([whole[np.flatnonzero(rows)], each[np.flatnonzero(extra)]]).tocsr()
    coefficients, biases = [], []
    for column in range(len(MECHANISMS)):
        levels = data.posts.levels[rows, column]
        rarity = len(levels) / LEVELS / np.bincount(levels, minlength=LEVELS)
        targets = np.concatenate([levels, data.sentences.levels[extra, column]])
        weights = rarity[targets] * np.concatenate([np.ones(len(levels)), np.full(extra.sum(), weight)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it stops after STEPS by intention: later steps change the third decimal of F1
            model = LogisticRegression(C=STRENGTH, max_iter=STEPS).fit(inputs, targets, sample_weight=weights)
        coefficients.append(model.coef_)
        biases.append(model.intercept_)
    return Fitted(idf, np.stack(coefficients), np.stack(biases))


def predict(data: Read, rows: NDArray[np.bool_], model: Fitted, *, by_sentence: bool = True) -> NDArray[np.float64]:
    """Probabilities (rows, 3, 3), as `EpitomeSmall.chances` makes them."""
    weights = (model.idf, model.coefficients, model.biases)
    chosen = np.flatnonzero(rows)
    whole = probabilities(Parts(data.whole.hashed[chosen], data.whole.dense[chosen]), *weights)
    if not by_sentence:
        return whole
    own = np.flatnonzero(rows[data.sentences.owner])
    each = probabilities(Parts(data.each.hashed[own], data.each.dense[own]), *weights)
    place = np.cumsum(rows) - 1
    return (whole + best_sentence(each, place[data.sentences.owner[own]], len(chosen))) / 2


def cross_validate(data: Read) -> list[dict[str, Any]]:
    """Every weight, with and without sentences at prediction, on the folds of the training part; one row each."""
    found = []
    training = ~data.posts.test
    for weight in WEIGHTS:
        chances = {way: np.full((len(training), len(MECHANISMS), LEVELS), np.nan) for way in (False, True)}
        for fold in range(FOLDS):
            held = data.posts.fold == fold
            model = fit(data, training & ~held, weight=weight)
            for way, table in chances.items():
                table[held] = predict(data, held, model, by_sentence=way)
        for way, table in chances.items():
            levels = table[training].argmax(axis=-1)
            truth, folds = data.posts.levels[training], data.posts.fold[training]
            measured = {name: agreement(truth[:, column], levels[:, column]) for column, name in enumerate(MECHANISMS)}
            two = [
                [agreement(truth[folds == fold, column], levels[folds == fold, column])["macro_f1"] for fold in (0, 1)]
                for column in range(3)
            ]
            mean = float(np.mean([one["macro_f1"] for one in measured.values()]))
            found.append(
                {
                    "weight": weight,
                    "by_sentence": way,
                    "mean_macro_f1": mean,
                    "mechanisms": measured,
                    "first_two_folds": [float(np.mean(one)) for one in two],
                }
            )
            print(f"sentences weigh {weight:g}, read at prediction {way}: macro-F1 {mean:.3f}", flush=True)
    return found


def agreement(truth: NDArray[np.int64], levels: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, macro-F1 over the three levels, and kappa with quadratic weights (0 where both never vary)."""
    kappa = float(cohen_kappa_score(truth, levels, weights="quadratic"))
    return {
        "accuracy": float(accuracy_score(truth, levels)),
        "macro_f1": float(f1_score(truth, levels, average="macro", labels=list(range(LEVELS)), zero_division=0)),
        "kappa": 0.0 if np.isnan(kappa) else kappa,
    }


def _idf(counts: csr_matrix) -> NDArray[np.float64]:
    """Smoothed inverse document frequency; 0 for n-grams of a single document, which teach nothing about others."""
    documents = np.bincount(counts.indices, minlength=BUCKETS)
    return np.where(documents >= 2, np.log((1 + counts.shape[0]) / (1 + documents)) + 1, 0.0)


def _matrix(texts: Parts, idf: NDArray[np.float64]) -> csr_matrix:
    return hstack([weigh(texts.hashed, idf), csr_matrix(texts.dense)]).tocsr()
