"""Valence, arousal and dominance: read from answers, and compared with references."""

import math

import numpy as np
import pytest

from undertone.errors import ConfigError, DataError
from undertone.evaluate.dimensions import concordance, dimension_metrics
from undertone.evaluate.mapping import to_value

READ = [
    ("0.3", "valence", (0, 1), 0.3),
    ("valence of 4 on a scale from 1 to 5", "valence", (0, 1), 0.75),
    ("4 out of 5", "valence", (1, 5), 0.75),
    ("4 out of 5", "valence", (0, 1), 0.8),
    ("The arousal is 80 %.", "arousal", (0, 1), 0.8),
    ("medium to high", "arousal", (0, 1), 0.6),
    ("not low but high", "arousal", (0, 1), 0.7),
    ("V: 0.2, A: 0.9, D: 0.4", "dominance", (0, 1), 0.4),
    ("a very negative valence", "valence", (0, 1), 0.1),
    ("-1", "valence", (-1, 1), 0.0),
]
UNREAD = [
    ("", "valence", "nothing_read"),
    ("She talks about her 2 dogs", "valence", "nothing_read"),
    ("6", "valence", "off_scale"),
    ("7 out of 5", "valence", "off_scale"),
    ("0.2 or 0.4", "valence", "several"),
    ("low or high", "arousal", "several"),
    ("The arousal is 0.4", "valence", "other_dimension"),
    ("neither low nor high", "arousal", "nothing_read"),
]


@pytest.mark.parametrize(("text", "dimension", "scale", "value"), READ)
def test_values_are_read(text: str, dimension: str, scale: tuple[float, float], value: float) -> None:
    found = to_value(text, dimension, scale=scale)
    assert found.value == pytest.approx(value), found
    assert found.how in ("number", "words")
    assert found.evidence


@pytest.mark.parametrize(("text", "dimension", "reason"), UNREAD)
def test_what_says_no_value_is_unmapped_with_a_reason(text: str, dimension: str, reason: str) -> None:
    found = to_value(text, dimension)
    assert (found.value, found.how, found.reason) == (None, "unmapped", reason), found


def test_a_wrong_dimension_or_scale_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'pitch'.*to_label"):
        to_value("0.5", "pitch")
    with pytest.raises(ConfigError, match=r"rise, got 5\.\.1"):
        to_value("0.5", "valence", scale=(5, 1))


def test_concordance_is_lins() -> None:
    rng = np.random.default_rng(3)
    first = rng.random(200)
    second = 0.5 * first + 0.1 + 0.05 * rng.standard_normal(200)
    # Lin (1989): the correlation times how near the line lies to the diagonal.
    r = np.corrcoef(first, second)[0, 1]
    scale = first.std() / second.std()
    shift = (first.mean() - second.mean()) / math.sqrt(first.std() * second.std())
    assert concordance(first, second) == pytest.approx(r * 2 / (scale + 1 / scale + shift**2))
    assert concordance(first, first) == pytest.approx(1)
    assert concordance([0.5, 0.5], [0.5, 0.5]) is None


def test_unmapped_values_are_counted_and_enter_no_figure() -> None:
    found = dimension_metrics([0.1, 0.5, 0.9], [0.2, None, 0.9])
    assert (found.n, found.unmapped) == (3, 1)
    assert found.mae == pytest.approx(0.05)
    assert found.ccc == concordance([0.1, 0.9], [0.2, 0.9])
    nothing = dimension_metrics([0.1], [None])
    assert (nothing.unmapped, nothing.ccc, nothing.mae) == (1, None, None)


def test_unequal_lengths_and_infinite_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="got 1 and 2"):
        dimension_metrics([0.1], [0.1, 0.2])
    with pytest.raises(DataError, match="got nan"):
        dimension_metrics([0.1], [math.nan])
