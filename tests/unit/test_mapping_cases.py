"""The labelled answers that the mapping is measured on: whole, told apart, and read right."""

from collections import Counter

import pytest

from undertone.evaluate import mapping
from undertone.evaluate.mapping.cases import Part, accuracy, cases
from undertone.records import DIMENSIONS

LEAST = 0.95


@pytest.mark.parametrize("part", ["development", "held_out"])
def test_answers_are_read_as_labelled(part: Part) -> None:
    found = {one.attribute: one for one in accuracy(cases(part))}
    assert found["all"].share > LEAST
    assert found["all"].wrong <= 2  # to be read as another class is worse than to be missed
    for name in ("emotion", "gender", "age", "speakers", "event"):
        assert found[name].share > LEAST, found[name]


def test_there_are_enough_answers_and_more_than_half_are_held_out() -> None:
    development, held_out = cases("development"), cases("held_out")
    assert len(development) + len(held_out) >= 400
    assert len(held_out) / (len(development) + len(held_out)) == pytest.approx(0.6, abs=0.01)
    both = Counter((one.attribute, one.text, one.among, one.scale) for one in (*development, *held_out))
    assert max(both.values()) == 1


@pytest.mark.parametrize("part", ["development", "held_out"])
def test_every_label_can_be_given(part: Part) -> None:
    for case in cases(part):
        if case.label == "unmapped":
            continue
        if case.attribute in DIMENSIONS:
            assert 0 <= float(case.label) <= 1
        else:
            assert case.label in (case.among or mapping.classes(case.attribute)), case


def test_every_attribute_has_answers_without_a_class() -> None:
    without = {one.attribute for one in cases("held_out") if one.label == "unmapped"}
    assert without == {*mapping.attributes(), *DIMENSIONS}


def test_accuracy_tells_wrong_from_missed() -> None:
    some = cases("development")
    sad = next(one for one in some if one.text == "Sadness")
    wrong, missed = (type(sad)("emotion", text, "happy", "", None, sad.scale) for text in ("Sadness", "The weather"))
    (emotion, everything) = accuracy([sad, wrong, missed])
    assert (emotion.n, emotion.right, emotion.wrong, emotion.missed) == (3, 1, 1, 1)
    assert everything.share == pytest.approx(1 / 3)
