"""Decisions: votes, classes in our words, words that inherit, transcripts refused, segments split by speaker."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertone.errors import ConfigError, DataError
from undertone.label.decide import Ballot, Decide, Vote
from undertone.label.protocol import Category, Labeller, Scalar
from undertone.records import DIMENSIONS, EMOTIONS, Label, Segment, Word, inherited


def label(attribute: str, value: str | float | None = None, at: tuple[int, int] = (0, 2000), by: str = "a@1", **more: Any) -> Label:
    kind = {"number": value} if isinstance(value, float) else {"category": value}
    return Label(attribute=attribute, start_ms=at[0], end_ms=at[1], labeller=by, **kind, **more)


def emotion(at: tuple[int, int] = (0, 2000), by: str = "a@1", **posterior: float) -> Label:
    return label("emotion", max(posterior, key=lambda name: posterior[name]), at, by, distribution=posterior)


def segment(*labels: Label, words: tuple[Word, ...] = (), end_ms: int = 4000) -> Segment:
    text = " ".join(word.text for word in words) or None
    return Segment(recording_id="r", start_ms=0, end_ms=end_ms, labels=labels, words=words, transcript=text)


def decided(*labels: Label, decide: Decide | None = None, **more: Any) -> Segment:
    (made,) = (decide or Decide()).decided(segment(*labels, **more))
    return made


def ballot(name: str, **posterior: float) -> Ballot:
    return Ballot(name, max(posterior, key=lambda word: posterior[word]), posterior)


# ---- votes -----------------------------------------------------------------------------------------------------------------------

THREE = [ballot("a", sad=0.9, happy=0.1), ballot("b", happy=0.6, sad=0.4), ballot("c", happy=0.55, sad=0.45)]


def test_the_majority_decides_though_the_mean_says_otherwise():
    category, mean, why = Vote().decide(THREE)
    assert (category, why) == ("happy", None)
    assert mean == pytest.approx({"happy": 1.25 / 3, "sad": 1.75 / 3})
    assert Vote(rule="mean_posterior").decide(THREE)[0] == "sad"
    assert Vote(rule="unanimity").decide(THREE)[::2] == (None, "no_agreement")
    assert Vote(rule="unanimity").decide(THREE[1:])[0] == "happy"


def test_a_tie_goes_to_the_higher_mean_posterior_and_then_to_the_alphabet():
    assert Vote().decide([ballot("a", sad=0.9, angry=0.1), ballot("b", angry=0.6, sad=0.4)])[0] == "sad"
    assert Vote().decide([ballot("a", sad=0.6, angry=0.4), ballot("b", angry=0.6, sad=0.4)])[0] == "angry"


def test_a_class_that_a_labeller_does_not_know_is_improbable_with_it():
    _, mean, _ = Vote(rule="mean_posterior").decide([ballot("a", other=1.0), ballot("b", sad=1.0)])
    assert mean == {"other": 0.5, "sad": 0.5}


def test_thresholds_abstain():
    assert Vote(min_voters=4).decide(THREE)[::2] == (None, "too_few_voters")
    assert Vote(min_posterior=0.5).decide(THREE)[::2] == (None, "unsure")
    assert Vote().decide([]) == (None, {}, "no_vote")


BALLOTS = st.lists(
    st.dictionaries(st.sampled_from(EMOTIONS), st.floats(0.01, 1), min_size=1).map(lambda found: ballot("x", **found)),
    min_size=1,
    max_size=5,
)


@given(BALLOTS, st.sampled_from(["majority", "unanimity", "mean_posterior"]), st.randoms())
def test_the_order_of_votes_does_not_matter_and_the_winner_has_a_vote(ballots: list[Ballot], rule: Any, rng: Any):
    first = Vote(rule=rule).decide(ballots)
    shuffled = rng.sample(ballots, len(ballots))
    again = Vote(rule=rule).decide(shuffled)
    assert first == again
    if rule == "majority":
        assert first[0] in {one.category for one in ballots}
    if rule == "unanimity" and first[0] is not None:
        assert {one.category for one in ballots} == {first[0]}


# ---- classes ---------------------------------------------------------------------------------------------------------------------


def test_classes_of_the_model_become_ours_and_merge_before_the_vote():
    made = decided(emotion(calm=0.3, neutral=0.25, Happiness=0.45))
    (one,) = made.of("emotion")
    assert one.category == "neutral"
    assert one.distribution == pytest.approx({"neutral": 0.55, "happy": 0.45})
    assert one.labeller == "a@1"


def test_an_ensemble_signs_with_its_rule_and_its_labellers():
    made = decided(
        emotion(by="a@1", sad=0.9, happy=0.1), emotion(by="b@2", sad=0.8, happy=0.2), label("emotion", by="c@1", reason="silence")
    )
    (one,) = made.of("emotion")
    assert (one.category, one.labeller) == ("sad", "majority(a@1, b@2)")
    assert one.distribution == pytest.approx({"sad": 0.85, "happy": 0.15})


def test_where_all_abstain_the_decision_says_why():
    made = decided(label("emotion", reason="silence"), label("valence", reason="silence"))
    assert [(one.attribute, one.reason) for one in made.labels] == [("emotion", "silence"), ("valence", "silence")]


def test_a_class_that_nobody_explained_is_refused_and_an_explained_one_counts():
    with pytest.raises(DataError, match="emotion 'LABEL_0' is not one that Undertone knows"):
        decided(emotion(LABEL_0=0.9, LABEL_1=0.1))
    explained = Decide(classes={"a": {"LABEL_0": "sad", "LABEL_1": None}})
    assert decided(emotion(LABEL_0=0.9, LABEL_1=0.1), decide=explained).category("emotion") == "sad"
    left_out = decided(emotion(LABEL_0=0.1, LABEL_1=0.9), decide=explained).labels[0]
    assert left_out.reason == "no_class_of_ours"


def test_unknown_classes_are_named_before_any_model_runs():
    class Odd(Labeller):
        name, version = "odd", "1"
        emits = (Category("emotion", ("sad", "LABEL_1", "LABEL_2")),)

    with pytest.raises(
        ConfigError,
        match=r"'odd' has emotion classes that are not known: LABEL_1, LABEL_2.*decide: \{classes: \{odd: \{LABEL_1: \.\.\.",
    ):
        Decide().check([Odd()])
    Decide(classes={"odd": {"LABEL_1": "happy", "LABEL_2": None}}).check([Odd()])
    with pytest.raises(ConfigError, match=r"decide\.classes: od is no labeller of this study; it has odd"):
        Decide(classes={"od": {}, "odd": {"LABEL_1": "happy", "LABEL_2": None}}).check([Odd()])


def test_gender_is_heard_over_the_whole_segment():
    windows = [
        label("gender", "male", (0, 2000), distribution={"female": 0.45, "male": 0.55}),
        label("gender", "male", (2000, 4000), distribution={"female": 0.45, "male": 0.55}),
        label("gender", "female", (4000, 6000), distribution={"female": 0.9, "male": 0.1}),
    ]
    (one,) = decided(*windows, end_ms=6000).of("gender")
    assert (one.category, one.start_ms, one.end_ms) == ("female", 0, 6000)
    assert one.distribution == pytest.approx({"female": 0.6, "male": 0.4})


def test_dimensions_are_means_and_measurements_pass():
    labels = [
        label("valence", 0.2),
        label("valence", 0.6, by="b@1"),
        label("pitch_mean_hz", 180.0),
        label("pitch_mean_hz", 190.0, by="b@1"),
    ]
    made = decided(*labels)
    assert [one.number for one in made.of("valence")] == [pytest.approx(0.4)]
    assert [one.number for one in made.of("pitch_mean_hz")] == [180.0, 190.0]


def test_labellers_with_other_windows_vote_where_they_overlap_most():
    fine = [emotion((0, 2000), sad=1.0), emotion((2000, 4000), happy=1.0)]
    whole = emotion((0, 4000), by="b@1", happy=1.0)
    late = emotion((3500, 4000), by="c@1", happy=1.0)
    made = decided(*fine, whole, late)
    assert [(one.start_ms, one.category, one.labeller) for one in made.of("emotion")] == [
        (0, "happy", "majority(a@1, b@1)"),  # one each; the alphabet decides
        (2000, "happy", "majority(a@1, b@1, c@1)"),
    ]


def test_events_stand_where_they_are_probable_and_speech_is_none():
    heard = [
        label("event", "Laughter", (0, 2000), distribution={"Laughter": 0.8, "Speech": 0.9, "Cough": 0.3}),
        label("event", "laughter", (0, 2000), by="b@1", distribution={"laughter": 0.9}),
        label("event", "speech", (2000, 4000), by="b@1", distribution={"speech": 0.99}),
    ]
    found = [(one.category, one.start_ms, one.labeller, one.distribution) for one in decided(*heard).of("event")]
    assert found == [("laughter", 0, "b@1", {"laughter": 0.9})]
    coughs = decided(*heard, decide=Decide(event_min=0.25)).of("event")
    assert [one.category for one in coughs] == ["cough", "laughter"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"LABEL_1": "hapy"}, r"decide\.classes\.odd\.LABEL_1: got 'hapy', expected one of angry, disgusted"),
        ({"LABEL_1": "happy", "LABEL_9": "sad"}, r"decide\.classes\.odd: the labeller has no class 'LABEL_9'; it has sad, LABEL_1"),
    ],
)
def test_what_classes_mean_must_be_ours_and_theirs(classes: dict[str, str], message: str):
    class Odd(Labeller):
        name, version = "odd", "1"
        emits = (Category("emotion", ("sad", "LABEL_1")),)

    with pytest.raises(ConfigError, match=message):
        Decide(classes={"odd": classes}).check([Odd()])


def test_genders_and_events_that_all_mean_nothing_and_scales_that_are_not_ours_are_refused():
    class Odd(Labeller):
        name, version = "odd", "1"
        emits = (Category("gender", ("LABEL_0", "LABEL_1")),)

    class Wide(Labeller):
        name, version = "wide", "1"
        emits = (Scalar("arousal", low=1, high=7),)

    with pytest.raises(ConfigError, match="'odd' has gender classes that are not known: LABEL_0, LABEL_1"):
        Decide().check([Odd()])
    Decide(classes={"odd": {"LABEL_0": "female", "LABEL_1": "male"}}).check([Odd()])
    with pytest.raises(ConfigError, match="'wide' declares arousal from 1 to 7; valence, arousal and dominance are 0 to 1"):
        Decide().check([Wide()])


def test_independent_probabilities_weigh_no_more_than_others():
    sure = [emotion(by=f"{name}@1", happy=0.95, sad=0.05) for name in "ab"]
    sigmoid = emotion(by="c@1", sad=0.95, happy=0.9, angry=0.9)
    made = decided(*sure, sigmoid, decide=Decide(emotion=Vote(rule="mean_posterior")))
    (one,) = made.of("emotion")
    assert one.category == "happy"
    assert sum((one.distribution or {}).values()) == pytest.approx(1)


def test_classes_merge_before_what_is_left_out_can_win():
    explained = Decide(classes={"a": {"noise": None}})
    assert decided(emotion(noise=0.4, happy=0.3, joy=0.3), decide=explained).category("emotion") == "happy"
    assert decided(emotion(noise=0.7, happy=0.2, joy=0.1), decide=explained).labels[0].reason == "no_class_of_ours"


def test_what_the_grid_does_not_cover_is_decided_by_those_who_heard_it():
    fine = [emotion((start, start + 1000), sad=1.0) for start in (0, 1000, 2000)]
    late = [emotion((0, 5000), by="b@1", angry=1.0), emotion((5000, 10_000), by="b@1", happy=1.0)]
    made = decided(*fine, *late, end_ms=10_000)
    spans = [(one.start_ms, one.end_ms, one.category) for one in made.of("emotion")]
    assert spans[3:] == [(3000, 5000, "angry"), (5000, 10_000, "happy")]


def test_events_without_probabilities_count_and_silence_about_events_is_kept():
    made = decided(
        label("event", "cough", (0, 1000)),
        label("event", reason="silence", at=(0, 1000), by="b@1"),
        label("event", reason="silence", at=(2000, 4000)),
        label("event", reason="too_short", at=(2000, 4000), by="b@1"),
    )
    assert [(one.category, one.reason, one.start_ms) for one in made.labels] == [("cough", None, 0), (None, "silence", 2000)]


# ---- words -----------------------------------------------------------------------------------------------------------------------


def test_words_inherit_what_their_window_was_given():
    words = tuple(
        Word(text=text, start_ms=start, end_ms=end)
        for text, start, end in [("one", 100, 900), ("two", 1600, 2400), ("three", 2500, 3900)]
    )
    labels = [
        emotion((0, 2000), sad=1.0),
        emotion((2000, 4000), happy=1.0),
        *(label(name, 0.25, (0, 2000)) for name in DIMENSIONS),
        label("gender", "female", (0, 4000), distribution={"female": 1.0, "male": 0.0}),
        label("event", "laughter", (2000, 4000), distribution={"laughter": 1.0}),
    ]
    one, two, three = decided(*labels, words=words).words
    assert (one.emotion, one.valence, one.arousal, one.dominance, one.gender, one.events) == ("sad", 0.25, 0.25, 0.25, "female", ())
    # "two" lies half in either window: a tie goes to the earlier one.
    assert (two.emotion, two.valence, two.events) == ("sad", 0.25, ())
    # No valence was given there, and none is made up.
    assert (three.emotion, three.valence, three.gender, three.events) == ("happy", None, "female", ("laughter",))


def test_a_word_outside_all_windows_inherits_nothing_and_one_without_length_counts():
    found = [emotion((0, 1000), sad=1.0)]
    assert inherited(Word(text="late", start_ms=1000, end_ms=1500), found) is None
    assert inherited(Word(text="dot", start_ms=999, end_ms=999), found) is found[0]


def test_a_word_in_a_window_that_nobody_judged_has_no_label_rather_than_its_neighbours():
    word = Word(text="w", start_ms=1990, end_ms=2990)
    made = decided(emotion((0, 2000), sad=1.0), label("emotion", reason="no_voice", at=(2000, 4000)), words=(word,))
    assert made.words[0].emotion is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6), st.integers(0, 40), st.integers(0, 20))
def test_no_window_overlaps_a_word_more_than_the_one_it_inherits(spans: list[tuple[int, int]], start: int, length: int):
    labels = sorted((emotion((a, a + b), sad=1.0) for a, b in spans), key=lambda one: (one.start_ms, one.end_ms))
    word = Word(text="w", start_ms=start, end_ms=start + length)

    def shared(one: Label) -> int:
        return min(max(word.end_ms, start + 1), one.end_ms) - max(start, one.start_ms)

    found = inherited(word, labels)
    best = max(shared(one) for one in labels)
    assert (found is None) == (best <= 0)
    if found is not None:
        assert shared(found) == best
        assert all(shared(one) < best for one in labels[: labels.index(found)])


def test_a_hallucinated_transcript_loses_its_words_and_says_why():
    words = tuple(Word(text="thanks", start_ms=100 * n, end_ms=100 * n + 100) for n in range(4))
    heard = label("transcript", "thanks thanks thanks thanks", (0, 4000), distribution={"compression_ratio": 9.0, "repeated": 1.0})
    made = decided(heard, words=words)
    assert (made.words, made.transcript) == ((), None)
    assert made.labels[0].reason is not None
    fine = decided(
        label("transcript", "thanks", (0, 4000), distribution={"compression_ratio": 1.0, "repeated": 0.0}), words=words[:1]
    )
    assert (fine.transcript, fine.labels[0].reason) == ("thanks", None)


# ---- speakers --------------------------------------------------------------------------------------------------------------------


def turn(name: str, start_ms: int, end_ms: int) -> Label:
    return label("speaker", name, (start_ms, end_ms), by="diariser@1")


def test_a_segment_is_split_where_another_speaker_takes_the_turn():
    words = tuple(Word(text=text, start_ms=start, end_ms=start + 300) for text, start in [("yes", 100), ("no", 2500)])
    raw = segment(
        turn("A", 0, 1900),
        turn("B", 2100, 4000),
        emotion((0, 2000), sad=1.0),
        emotion((2000, 4000), happy=1.0),
        label("gender", "female", (0, 2000), distribution={"female": 0.97, "male": 0.03}),
        label("gender", "male", (2000, 4000), distribution={"female": 0.02, "male": 0.98}),
        label("pitch_mean_hz", 170.0, (0, 4000)),
        label("transcript", "yes no", (0, 4000), distribution={"repeated": 0.0}),
        words=words,
    )
    pieces = Decide().decided(raw)
    assert [(one.start_ms, one.end_ms, one.speaker, one.transcript) for one in pieces] == [
        (0, 2000, "A", "yes"),
        (2000, 4000, "B", "no"),
    ]
    assert [one.category("emotion") for one in pieces] == ["sad", "happy"]
    assert [one.category("gender") for one in pieces] == ["female", "male"]
    assert [word.gender for one in pieces for word in one.words] == ["female", "male"]
    assert [one.category("transcript") for one in pieces] == ["yes", "no"]
    # The mean pitch of a woman and a man is neither's.
    assert [one.reason for piece in pieces for one in piece.labels if one.attribute == "pitch_mean_hz"] == ["several_speakers"] * 2


def test_short_turns_of_one_speaker_are_one_turn_and_the_only_speaker_of_a_short_segment_is_named():
    turns = [turn("A", 0, 3000), *(turn("B", 3000 + 500 * n, 3490 + 500 * n) for n in range(12))]
    first, second = Decide().decided(segment(*turns, end_ms=9000))
    assert (first.speaker, second.speaker) == ("A", "B")
    (short,) = Decide().decided(segment(turn("A", 0, 400), end_ms=400))
    assert short.speaker == "A"


def test_who_speaks_alone_is_named_and_interjections_do_not_split():
    (alone,) = Decide().decided(segment(turn("A", 0, 4000), turn("B", 1000, 1200)))
    assert alone.speaker == "A"
    (crowd,) = Decide().decided(segment(turn("A", 0, 4000), turn("B", 100, 3900)))
    assert crowd.speaker is None


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 3500), st.integers(1, 4000)), max_size=6))
def test_pieces_cover_the_segment_without_overlap(turns: list[tuple[str, int, int]]):
    pieces = Decide().decided(segment(*(turn(name, start, min(4000, start + length)) for name, start, length in turns)))
    assert pieces[0].start_ms == 0
    assert pieces[-1].end_ms == 4000
    assert all(a.end_ms == b.start_ms and a.speaker != b.speaker for a, b in itertools.pairwise(pieces))
