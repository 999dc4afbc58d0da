"""The figures about pairs, on pairs whose figures are known."""

from __future__ import annotations

import math

import pytest

from tests.unit.test_grammar import DEMO, MIXED, ask, spoken
from undertone.generate.checks import ALL_CHECKS, CHECKS
from undertone.generate.measure import (
    FILTERS,
    Lengths,
    Measures,
    Rate,
    distinct,
    effective,
    filters,
    markdown,
    measure,
    question_type,
    silent,
    variety,
)
from undertone.records import Clip, Loss, QAPair


def pair(question: str, answer: str = "They sound sad.", **fields: object) -> QAPair:
    given = {"kind": "C", "clip_id": MIXED.id, "recording_id": MIXED.recording_id, "source": "cpqa", "generator": "x@1", **fields}
    return QAPair.model_validate({"question": question, "answer": answer, **given})


def lost(of: QAPair, reason: str) -> Loss:
    return Loss(row_id=of.id, stage="checks", reason=reason)


def figures(asked: list[QAPair], *losses: Loss, truth: Clip | None = None, about: Clip = MIXED) -> Measures:
    gone = {one.row_id for one in losses}
    kept = [one for one in asked if one.id not in gone]
    people = None if truth is None else {about.id: truth}
    return measure(asked, kept, losses=losses, clips={about.id: about}, truth=people)


def test_each_filter_counts_what_reached_it() -> None:
    asked = [pair(f"What is said about {name}?") for name in ("the mill", "dinner", "the letter", "the train")]
    found = figures(asked, lost(asked[0], "schema"), lost(asked[1], "too_long"), lost(pair("Of another source?"), "schema"))
    by = {one.name: one for one in found.filters}
    assert tuple(by) == FILTERS
    assert (by["schema"].reached, by["schema"].stopped) == (4, 1)
    assert by["too_long"].accepted == Rate(hits=2, of=3)
    assert by[FILTERS[-1]].reached == found.kept == 2
    assert silent([found]) == [one for one in FILTERS if one not in ("schema", "too_long")]


def test_a_pair_that_could_not_be_checked_passed_and_failed_nothing() -> None:
    asked = [pair("How is it?"), pair("How was it?")]
    found = figures(asked, lost(asked[0], "error"))
    assert (found.failed, found.kept, found.filters[0].reached) == (1, 1, 1)


def test_a_flagged_pair_stays_and_has_not_passed() -> None:
    flagged = filters(10, {"metadata_leak": 1, "of_my_own": 2}, {"metadata_leak": 3})
    by = {one.name: one.accepted for one in flagged}
    assert by["metadata_leak"] == Rate(hits=6, of=10)
    assert by["duplicate_in_clip"] == Rate(hits=9, of=9)
    assert flagged[-1].name == "of_my_own"
    assert by["of_my_own"] == Rate(hits=7, of=9)


def test_words_that_name_the_emotion_are_counted_of_pairs_that_need_the_voice() -> None:
    about = spoken(("I am so happy today.", "happy", "female"), (DEMO[1], "sad", "female"))
    fields = {"clip_id": about.id, "kind": "CE", "label_attribute": "emotion"}
    asked = [
        pair("How do they sound when they say so happy today?", "They sound happy.", label="happy", **fields),
        pair("How does the mention of dinner on weekdays sound?", "They sound sad.", label="sad", **fields),
        pair("What is at eight?", "Dinner.", clip_id=about.id),
    ]
    found = figures(asked, about=about)
    assert found.words_only == Rate(hits=1, of=2)
    assert found.metadata_leak.share is None, "no predicted labels were given: no share, and not 0"
    assert found.supported == Rate(hits=2, of=2)
    assert found.true == {}


def test_support_is_by_the_clips_labels_and_truth_by_peoples() -> None:
    direct = {"kind": "DG", "label_attribute": "gender"}
    about = spoken((DEMO[0], "sad", "female"), (DEMO[1], "sad", "female"))
    asked = [
        pair("Who speaks?", "A woman.", clip_id=about.id, label="female", **direct),
        pair("Which voice is it?", "A man's.", clip_id=about.id, label="male", **direct),
    ]
    people = about.model_copy(update={"segments": spoken((DEMO[0], "sad", "male"), (DEMO[1], "sad", "male")).segments})
    found = figures(asked, truth=people, about=about)
    assert found.supported == Rate(hits=1, of=2)
    assert found.true == {"gender": Rate(hits=1, of=2)}
    assert figures(asked[:1], truth=people, about=about).true == {"gender": Rate(hits=0, of=1)}
    two = pair("Do the voices differ?", "A woman's first, then a man's.", clip_id=about.id, kind="CG")
    assert figures([two], truth=people, about=about).true == {}, "an answer of two classes is right or wrong in parts"


def test_the_grammar_is_supported_by_its_own_labels() -> None:
    asked = [one for strategy in ("cpqa", "grammar") for seed in range(20) for one in ask(strategy, MIXED, seed=seed)]
    found = figures(list({one.id: one for one in asked}.values()))
    assert found.written > 100
    assert found.supported.share == 1
    assert set(found.types) > {"what", "how", "which"}


def test_distinct_n_is_the_share_of_different_n_grams() -> None:
    assert distinct(["a b a b"], 1) == 0.5
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct(["a b", "b a"], 2) == 1
    assert distinct(["a"], 2) is None
    assert variety([]) is None


def test_variety_is_of_equally_many_texts_in_whatever_order() -> None:
    texts = [f"How is it at {number}?" for number in range(300)] + ["How is it?"] * 100
    found = variety(texts, drawn=50)
    assert found is not None
    assert found.drawn == 50
    assert found == variety(texts[::-1], drawn=50)
    assert found.different == Rate(hits=301, of=400)
    whole = variety(texts, drawn=400)
    assert whole is not None
    assert whole.distinct[0] < found.distinct[0], "which is why only equally many texts are compared"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How does it end?", "how"),
        ("At the mention of dinner, in what mood is the speaker?", "what"),
        ("Listen to the voice. Is it a man or a woman?", "yes or no"),
        ("Say how the speaker sounds.", "instruction"),
        ("Name the emotion.", "instruction"),
        ("Where's the mill?", "where"),
        ("And the second speaker?", "other"),
        ("?!", "other"),
    ],
)
def test_types_of_question(question: str, expected: str) -> None:
    assert question_type(question) == expected


def test_the_effective_number_lies_between_one_and_the_number_of_classes() -> None:
    assert effective({"a": 5, "b": 5, "c": 5}) == pytest.approx(3)
    assert effective({"a": 7}) == pytest.approx(1)
    assert effective({"a": 9, "b": 1}) == pytest.approx(math.exp(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1))))
    assert effective({}) is None


def test_lengths_are_in_words_with_nearest_ranks() -> None:
    found = Lengths.of([" ".join("a" * count) for count in range(1, 101)])
    assert found == Lengths(mean=50.5, low=5, median=50, high=95)
    assert Lengths.of([]) is None


def test_the_table_has_a_column_for_each_source_and_a_row_where_something_happened() -> None:
    asked = [pair("What is said about the mill?"), pair("Say what is said about dinner.")]
    text = markdown({"one": figures(asked, lost(asked[0], "too_long")), "none": figures([])})
    lines = dict(line.strip("| ").split(" | ", 1) for line in text.splitlines()[2:])
    assert lines["pairs written, about clips"] == "2, 1 | 0, 0"
    assert lines["passes `schema`"] == "100.0 % of 2 | –"
    assert lines["passes `too_long`"] == "50.0 % of 2 | –"
    assert lines["types of question"] == "instruction 100 % | –"
    assert not [one for one in CHECKS if one not in ("schema", "too_long") and f"`{one}`" in text]
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_all_filters_are_known() -> None:
    assert set(ALL_CHECKS) < set(FILTERS)
