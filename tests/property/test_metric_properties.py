"""What holds for every score table: bounds, order, missing values, and the reading of answers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertone.evaluate import metrics
from undertone.evaluate.judges import normalised_tokens, token_f1
from undertone.evaluate.mapping import attributes, classes, to_label
from undertone.lexicon import LABEL_WORDS

SCORE = st.one_of(st.just(math.nan), st.floats(0, 100))
ROWS = st.lists(st.tuples(SCORE, SCORE, st.sampled_from("abcdefgh")), max_size=40)
CLASS = st.sampled_from(["angry", "happy", "neutral", "sad"])


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_intervals_hold_their_mean_within_the_scores(rows: list[tuple[float, float, str]]) -> None:
    scores, names = [row[0] for row in rows], [row[2] for row in rows]
    (found,) = metrics.bootstrap_means(scores, names, resamples=200, seed=1)
    scored = [one for one in scores if not math.isnan(one)]
    assert found.n == len(scored)
    if not scored:
        assert (found.mean, found.missing) == (None, "no_items")
        return
    assert found.mean is not None
    assert min(scored) - 1e-9 <= found.mean <= max(scored) + 1e-9
    if found.low is not None and found.high is not None:
        assert min(scored) - 1e-9 <= found.low <= found.high <= max(scored) + 1e-9


@settings(max_examples=60, deadline=None)
@given(ROWS, st.randoms())
def test_order_of_items_does_not_matter(rows: list[tuple[float, float, str]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = [
        metrics.paired_difference([a for a, _, _ in some], [b for _, b, _ in some], [c for _, _, c in some], resamples=100, seed=4)
        for some in (rows, shuffled)
    ]
    for name in ("mean", "low", "high"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_difference_is_antisymmetric(rows: list[tuple[float, float, str]]) -> None:
    first, second, names = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    there = metrics.paired_difference(first, second, names, resamples=201, seed=4)
    back = metrics.paired_difference(second, first, names, resamples=201, seed=4)
    assert there.p == back.p
    if there.low is None or back.high is None:
        assert (there.low, back.high) == (None, None)
        return
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.p is not None
    assert 0 < there.p <= 1


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 5))
def test_chunks_do_not_change_the_draws(rows: list[tuple[float, float, str]], chunk: int) -> None:
    values, names = np.array([row[:2] for row in rows]).reshape(-1, 2), [row[2] for row in rows]
    whole = metrics.resampled_means(values, names, resamples=23, seed=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK_DRAWS", chunk * 8)
        pieces = metrics.resampled_means(values, names, resamples=23, seed=9)
    np.testing.assert_allclose(whole, pieces)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CLASS, st.one_of(st.none(), CLASS, st.just("surprised"))), max_size=30))
def test_class_metrics_lose_nothing(rows: list[tuple[str, str | None]]) -> None:
    found = metrics.class_metrics([row[0] for row in rows], [row[1] for row in rows])
    assert sum(map(sum, found.confusion)) == found.n == len(rows)
    assert sum(row[-1] for row in found.confusion) == found.unmapped == sum(one is None for _, one in rows)
    for value in (found.wa, found.ua, found.macro_f1, found.weighted_f1):
        assert value is None if not rows else 0 <= value <= 1
    if rows:
        recalls = [np.mean([guess == name for truth, guess in rows if truth == name]) for name in {truth for truth, _ in rows}]
        assert found.ua == pytest.approx(float(np.mean(recalls)))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_token_f1_is_bounded_symmetric_and_one_for_itself(first: str, second: str) -> None:
    assert 0 <= token_f1(first, second) <= 1
    assert token_f1(first, second) == pytest.approx(token_f1(second, first))
    assert token_f1(first, first) == 1
    assert normalised_tokens(first.upper().lower()) == normalised_tokens(" " + first.upper().lower() + " ")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    for attribute in attributes():
        found = to_label(text, attribute)
        assert (found.label is None) == (found.how == "unmapped")
        assert found.label is None or found.label in classes(attribute)


@pytest.mark.parametrize("attribute", ["emotion", "gender"])
def test_every_keyword_reads_as_its_class(attribute: str) -> None:
    tried = 0
    for label, words in LABEL_WORDS[attribute].items():
        for word in words:
            tried += 1
            assert to_label(f"I would say: {word}.", attribute).label == label, word
    assert tried > 20


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_naming_two_classes_is_no_answer(data: st.DataObject) -> None:
    words = LABEL_WORDS["emotion"]
    first, second = data.draw(st.lists(st.sampled_from(sorted(words)), min_size=2, max_size=2, unique=True))
    join = data.draw(st.sampled_from([" and ", " or ", ", ", "; ", " and also "]))
    assert to_label(f"{words[first][0]}{join}{words[second][0]}", "emotion").label is None
    assert to_label(f"not {words[first][0]} but {words[second][0]}", "emotion").label == second
