"""What the strategy "grammar" asks beyond the others: speakers in context, two moments, from the voice to the words, plain facts."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest

from tests.unit.test_grammar import DEMO, MIXED, ask, clip, segment, spoken
from undertone.evaluate.mapping import to_label
from undertone.generate import askable
from undertone.generate.checks import CHECKS
from undertone.generate.facts import stated
from undertone.generate.frames import FORMS, OPENERS
from undertone.lexicon import labels_in, tokens
from undertone.records import Clip, Kind, Segment


def talking(*parts: tuple[str, str], emotions: tuple[str, ...] = (), arousal: tuple[float, ...] = ()) -> Clip:
    """A clip of (text, speaker) segments."""
    made: list[Segment] = []
    for at, (text, who) in enumerate(parts):
        start_ms = made[-1].end_ms + 500 if made else 0
        level, emotion = arousal[at] if arousal else None, emotions[at] if emotions else None
        made.append(segment(text, start_ms, emotion, None, arousal=level, speaker=who))
    return clip(*made)


# ---- who speaks where ------------------------------------------------------------------------------------------------------------

THREE = talking((DEMO[0], "a"), (DEMO[1], "a"), (DEMO[2], "b"), ("The dog sleeps by the door.", "c"))
WHO = {"the train": "a", "dinner": "a", "the letter": "b", "the dog": "c"}


def test_one_voice_or_two_at_two_moments_and_how_many_by_one() -> None:
    found: Counter[tuple[int, str | None]] = Counter()
    for seed in range(30):
        for one in ask("benchmark", THREE, kinds=("CS",), pairs_per_kind=6, seed=seed):
            named = [topic for topic in WHO if topic in one.question.lower()]
            if len(named) == 2:
                assert one.label == str(len({WHO[topic] for topic in named})), one.question
            else:  # never at the first segment, and never the number of the whole clip
                assert (named, one.label) in ((["dinner"], "1"), (["the letter"], "2")), one.question
            assert one.label_attribute == "speakers"
            assert to_label(one.answer, "speakers").label == one.label
            found[len(named), one.label] += 1
    assert found[2, "1"] == found[2, "2"] > 10
    assert min(found[1, "1"], found[1, "2"]) > 10


def test_the_first_answer_about_speakers_is_as_often_one_as_two() -> None:
    about = talking(*((text, who) for text, who in zip((*DEMO, "The dog sleeps by the door."), "abab", strict=True)))
    first = Counter(ask("grammar", about, "CS", seed=seed, pairs_per_kind=1)[0].label for seed in range(200))
    assert set(first) == {"1", "2"}
    assert 70 < first["1"] < 130


def test_speakers_in_context_need_several_all_of_whom_are_known() -> None:
    monologue = talking((DEMO[0], "a"), (DEMO[1], "a"))
    assert ask("grammar", monologue, "CS") == []
    assert {one.label for one in ask("grammar", monologue, "CS", require_contrast=False)} == {"1"}
    someone = clip(segment(DEMO[0], 0, speaker="a"), segment(DEMO[1], 9000), segment(DEMO[2], 18_000, speaker="b"))
    assert ask("grammar", someone, "CS") == []


def test_a_number_is_no_anchor_of_a_question_about_speakers() -> None:
    counted = talking(("We met three people there.", "a"), ("They saw two dogs.", "b"))
    pairs = [one for seed in range(20) for one in ask("grammar", counted, "CS", seed=seed)]
    assert pairs
    assert not [one.question for one in pairs if '"three"' in one.question or '"two"' in one.question]


# ---- two moments, and from the voice to the words --------------------------------------------------------------------------------


def moments(about: Clip, form: str, kind: Kind = "CE") -> set[tuple[str | None, str | None, tuple[str, ...]]]:
    """Outcome, label and named topics of all drafts of a form."""
    drafts = (one for seed in range(60) for one in askable.drafts(kind, about, random.Random(seed), rich=True))
    return {(one.outcome, one.label, tuple(point.text for point in one.points)) for one in drafts if one.form == form}


def test_the_grammar_asks_all_seven_kinds() -> None:
    about = talking((DEMO[0], "a"), (DEMO[1], "a"), emotions=("sad", "happy"))
    mixed = clip(*(one.model_copy(update={"speaker": str(at)}) for at, one in enumerate(MIXED.segments)))
    assert {one.kind for one in ask("grammar", about)} == {"C", "DS", "CE"}
    assert {one.kind for one in ask("grammar", mixed)} == {"C", "DE", "DS", "CE", "CG", "CS"}
    assert {one.kind for one in ask("grammar", spoken((DEMO[0], "sad", "male"), (DEMO[1], "sad", "male")))} == {"C", "DE", "DG"}


def test_a_change_is_asked_for_where_emotions_differ_and_told_in_order() -> None:
    about = talking(*((text, "a") for text in DEMO), emotions=("sad", "happy", "happy"))
    feels = {"the train": "sad", "dinner": "happy", "the letter": "happy"}
    assert moments(about, "CE.change") == {(None, None, ("the train", "dinner")), (None, None, ("the train", "the letter"))}
    pairs = itertools.combinations(feels, 2)
    assert moments(about, "CE.same") == {("same" if feels[a] == feels[b] else "differs", None, (a, b)) for a, b in pairs}
    asked = [one for seed in range(150) for one in ask("grammar", about, "CE", seed=seed) if "change" in one.question]
    answers = [one.answer for one in asked if not labels_in(one.answer, "emotion") <= {"happy"} and one.label is None]
    told = {tuple(label for word in tokens(one) for label in labels_in(word, "emotion")) for one in answers}
    assert told == {("sad", "happy")}
    assert moments(talking(*((text, "a") for text in DEMO), emotions=("sad",) * 3), "CE.change") == set()


def test_energy_rises_or_falls_only_where_arousal_clearly_does() -> None:
    rising = talking(*((text, "a") for text in DEMO), emotions=("sad", "sad", "happy"), arousal=(0.2, 0.3, 0.6))
    assert moments(rising, "CE.energy") == {("more", None, ("the train", "the letter")), ("more", None, ("dinner", "the letter"))}
    falling = talking(*((text, "a") for text in DEMO[:2]), emotions=("angry", "sad"), arousal=(0.9, 0.3))
    assert moments(falling, "CE.energy") == {("less", None, ("the train", "dinner"))}


def test_a_clip_is_asked_about_two_moments_in_one_way_only() -> None:
    about = talking(*((text, "a") for text in DEMO), emotions=("sad", "happy", "happy"), arousal=(0.1, 0.5, 0.9))
    for seed in range(60):
        forms = [one.form for one in askable.drafts("CE", about, random.Random(seed), rich=True)]
        assert sum(one in ("CE.change", "CE.same", "CE.energy") for one in forms) == 1, forms
        assert forms.count("CE.what") <= 1


def test_what_is_said_in_the_only_part_that_sounds_so() -> None:
    asked = [
        one
        for seed in range(60)
        for one in ask("grammar", MIXED, seed=seed)
        if one.kind in ("CE", "CG") and one.label is None and "mention of" not in one.question
    ]
    reversed_ = [one for one in asked if labels_in(one.question, "emotion") or len(labels_in(one.question, "gender")) == 1]
    assert {one.kind for one in reversed_} == {"CE", "CG"}
    for one in reversed_:  # sad and female is the first segment alone
        assert "the train" in one.answer.lower(), one.question
    unsure = clip(*(one.model_copy(update={"labels": ()}) if at == 1 else one for at, one in enumerate(MIXED.segments)))
    assert moments(unsure, "CE.what") == set()  # the one without labels may sound so too


def test_genders_of_two_moments_are_told_in_order() -> None:
    assert moments(MIXED, "CG.same", "CG") == {
        ("differs", None, ("the train", "dinner")),
        ("differs", None, ("the train", "the letter")),
        ("same", None, ("dinner", "the letter")),
    }


def test_the_grammar_says_how_strong_an_emotion_is_in_many_words() -> None:
    loud = spoken((DEMO[0], "angry", "male"), (DEMO[1], "surprised", "male"), arousal=0.9)
    answers = {one.answer for seed in range(80) for one in ask("grammar", loud, "CE", seed=seed) if one.label}
    assert len(answers) > 40
    assert [one for one in answers if not re.search(r"\b(very|really|intensely|strong|intense)\b", one)] == []


def test_every_question_passes_for_a_question_with_and_without_an_opening() -> None:
    filled = dict.fromkeys(("does", "also"), "mentions the train") | dict.fromkeys(("place", "other"), "the mention of dinner")
    filled |= {"anchor": "the train", "time": "first", "stem": "when is dinner", "Stem": "When is dinner", "context": "at the"}
    filled |= {"before": "the", "after": "near", "mood": "sad", "person": "woman"}
    pair = ask("grammar", MIXED, "C")[0]
    questions = [one.format(**filled) for form in FORMS.values() for one in (*form.every_train, *form.test)]
    asked = [*questions, *(f"{opener} {one}" for opener in OPENERS for one in questions)]
    refused = [one for one in asked if CHECKS["schema"](pair.model_copy(update={"question": one}), MIXED)]
    assert refused == []


def test_wordings_fit_one_thing_and_several() -> None:
    verbs = re.compile(r"\{(?:anchor|answer|topic)\} (?:is|was|comes|has|does)\b|\{(?:anchor|answer)\} that \w+s\b")
    every = [
        one
        for form in FORMS.values()
        for one in (*form.every_train, *form.test, *form.answers, *form.rich_answers)
        if one.count("{")
    ]
    # "the person who brings up {anchor} is" has a subject of its own
    assert [one for one in every if verbs.search(one) and not re.search(r"(?:person|mention).*\{anchor\}", one)] == []


# ---- content ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "facts"),
    [
        (
            "Kids are talking by the door.",
            {
                "who or what are talking by the door": "kids",
                "where are the kids talking": "by the door",
                "what are the kids doing by the door": "talking",
            },
        ),
        ("The airplane is almost full.", {"what is said to be almost full": "the airplane"}),
        ("It's eleven o'clock", {"what time is it": "eleven o'clock"}),
        ("Don’t forget a jacket.", {"what should not be forgotten": "a jacket"}),
        ("I would like a new alarm clock.", {"what is asked for": "a new alarm clock"}),
        ("We'd like some help, please.", {"what is asked for": "some help"}),
        ("We need a plan.", {"what is said to be needed": "a plan"}),  # who needs does not ask
        ("I'm on my way to the meeting.", {"to what is the speaker on the way": "the meeting"}),
        ("We'll stop in a couple of minutes.", {"in how much time will they stop": "a couple of minutes"}),
        ("The letter is written in French", {"in which language is the letter written": "French"}),  # a recogniser writes no stop
        ("They are talking by the door.", {}),  # a pronoun is no answer
        ("Kids are talking by the evening.", {}),
        ("Are the kids sitting by the door?", {}),
        ("The plane is full?", {}),
        ("Maybe kids are talking by the door.", {}),
        ("The woman is waiting at the door.", {}),  # its words would tell a gender
        ("The plane is there.", {}),
    ],
)
def test_plain_sentences_state_facts(sentence: str, facts: dict[str, str]) -> None:
    assert {one.question_stem: one.answer for one in stated(sentence)} == facts


def test_the_grammar_asks_who_and_where_of_plain_sentences_and_then_for_words() -> None:
    kids = spoken(("Kids are talking by the door.", "sad", "male"), ("Say the word hall.", "angry", "male"))
    drafts = askable.drafts("C", kids, random.Random(0), rich=True)
    assert [one.form for one in drafts[:3]] == ["C.fact"] * 3
    cloze = [one.slots["answer"] for one in drafts[3:]]
    assert set(cloze) <= {"word", "hall"}  # what the facts ask for is not asked again
    assert len(cloze) == len(set(cloze)) > 0


def test_a_fact_of_which_a_clip_tells_two_is_not_asked_for() -> None:
    both = spoken(("Kids are talking by the door.", None, None), ("Dogs are talking by the door.", None, None))
    stems = {one.slots.get("stem") for one in askable.drafts("C", both, random.Random(0), rich=True)}
    assert "who or what are talking by the door" not in stems
    assert "where are the kids talking" in stems


def test_a_word_between_two_has_one_answer() -> None:
    twice = spoken(("We saw the boat there. We saw the lake there.", None, None), ("A red bus came.", None, None))
    drafts = askable.drafts("C", twice, random.Random(0), rich=True)
    assert {one.slots["answer"] for one in drafts if one.form == "C.between"} <= {"red", "bus"}
