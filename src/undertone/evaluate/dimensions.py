"""How well values read from answers match the references: valence, arousal, dominance, in 0..1.

An answer without a readable value enters neither figure and is counted; report `unmapped` beside them, since a subject that answers only
what is easy scores better than one that answers everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError


class DimensionMetrics(BaseModel):
    """Agreement of read values with references.

    `ccc` is Lin's concordance correlation coefficient (1989), None for fewer than two values or where neither side varies around one
    value; `mae` the mean absolute error, None without values. `n` counts the items, `unmapped` those without a value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n: int
    unmapped: int
    ccc: float | None
    mae: float | None


def dimension_metrics(references: Sequence[float], predictions: Sequence[float | None]) -> DimensionMetrics:
    """CCC and MAE of predictions against references; None among the predictions is an answer that was read as no value.

    Raises:
        DataError: There are not as many predictions as references, or a number is not finite.
    """
    if len(references) != len(predictions):
        raise DataError(f"dimension metrics need one prediction per reference, got {len(references)} and {len(predictions)}")
    pairs = [(truth, guess) for truth, guess in zip(references, predictions, strict=True) if guess is not None]
    bad = next((one for one in (*references, *(guess for _, guess in pairs)) if not math.isfinite(one)), None)
    if bad is not None:
        raise DataError(f"dimension metrics need finite numbers, got {bad}; give None for an answer without a value")
    truths, guesses = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return DimensionMetrics(
        n=len(references),
        unmapped=len(references) - len(pairs),
        ccc=concordance(truths, guesses),
        mae=float(np.abs(truths - guesses).mean()) if pairs else None,
    )


def concordance(truths: ArrayLike, guesses: ArrayLike) -> float | None:
    """Lin's concordance correlation: 2 cov / (var + var + squared difference of means), with population moments; None without spread."""
    first, second = np.asarray(truths, dtype=np.float64), np.asarray(guesses, dtype=np.float64)
    if len(first) < 2:
        return None
    below = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    if below == 0:
        return None
    return float(2 * ((first - first.mean()) * (second - second.mean())).mean() / below)
