"""Properties of generated pairs over random conversations: right, unleaked, reproducible, and disjoint between train and test."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_grammar import clip, segment, template_pattern
from undertone.corpora.scripts import conversation
from undertone.evaluate.mapping import to_label
from undertone.generate import askable
from undertone.generate.checks import CHECKS, same_question
from undertone.generate.frames import FORMS
from undertone.generate.grammar import STRATEGY_KINDS, GrammarGenerator
from undertone.lexicon import tokens
from undertone.records import EMOTIONS, Clip, Segment

GENDERS = ("female", "male")
TRAIN = [template_pattern(one) for form in FORMS.values() for one in form.every_train]
VOCABULARY = (
    "the",
    "my",
    "old",
    "boat",
    "sat",
    "by",
    "a",
    "dog",
    "and",
    "label",
    "happy",
    "woman",
    "ran",
    "there",
    "I",
    "seven,",
    "Lo.",
    "-",
)


def talk(seed: int, lines: int, speakers: int) -> Clip:
    """A conversation of the demonstration corpus with random arousal, as a clip."""
    rng = np.random.default_rng(seed)
    made: list[Segment] = []
    for turn in conversation(rng, lines=lines, speakers=speakers):
        start_ms = made[-1].end_ms + 300 if made else 0
        gender = GENDERS[(turn.speaker_index + seed) % 2]
        made.append(
            segment(turn.line.text, start_ms, turn.emotion, gender, arousal=float(rng.random()), speaker=f"s{turn.speaker_index}")
        )
    return clip(*made).model_copy(update={"recording_id": f"{seed:016x}"})


@st.composite
def babble(draw: st.DrawFn) -> Clip:
    """A clip of random words with random labels, some missing."""
    made: list[Segment] = []
    for _ in range(draw(st.integers(1, 5))):
        words = draw(st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=8))
        emotion, gender = draw(st.none() | st.sampled_from(EMOTIONS)), draw(st.none() | st.sampled_from(GENDERS))
        start_ms = made[-1].end_ms + 300 if made else 0
        made.append(segment(" ".join(words), start_ms, emotion, gender, words=draw(st.booleans())))
    return clip(*made)


talks = st.builds(talk, st.integers(0, 10_000), st.integers(4, 9), st.integers(1, 2))
strategies = st.sampled_from(sorted(STRATEGY_KINDS))


@given(talks | babble(), strategies, st.integers(0, 99), st.booleans())
def test_every_pair_passes_every_check(about: Clip, strategy: str, seed: int, contrast: bool) -> None:
    generator = GrammarGenerator(strategy=strategy, pairs_per_kind=3, require_contrast=contrast)  # type: ignore[arg-type]
    pairs = generator.write(about, seed=seed)
    assert [(one.question, one.answer, name) for one in pairs for name, check in CHECKS.items() if check(one, about)] == []
    assert len({same_question(one) for one in pairs}) == len(pairs)


@given(talks, st.sampled_from(["pqa", "cpqa", "benchmark"]), st.integers(0, 99))
def test_answers_are_one_short_sentence_that_is_read_as_its_label(about: Clip, strategy: str, seed: int) -> None:
    for one in GrammarGenerator(strategy=strategy).write(about, seed=seed):  # type: ignore[arg-type]
        assert 1 <= len(tokens(one.answer)) <= 14
        assert one.answer.endswith(".")
        assert one.answer.count(".") == 1
        if one.label_attribute is not None:
            assert to_label(one.answer, one.label_attribute).label == one.label, one.answer


@given(talks, st.integers(0, 99))
def test_rich_answers_are_one_or_two_sentences_that_are_read_as_their_label(about: Clip, seed: int) -> None:
    pairs = GrammarGenerator(strategy="grammar", pairs_per_kind=4).write(about, seed=seed)
    assert {one.kind for one in pairs} >= {"C", "DS"}
    for one in pairs:
        assert 1 <= len(tokens(one.answer)) <= 24, one.answer
        assert one.answer.endswith(".")
        assert one.answer.count(".") <= 2
        assert one.answer[0].isupper()
        assert "{" not in one.question + one.answer
        if one.label_attribute is not None:
            assert to_label(one.answer, one.label_attribute).label == one.label, one.answer


@given(st.lists(talks, min_size=2, max_size=4, unique_by=lambda one: one.id), strategies, st.integers(0, 99))
def test_pairs_depend_on_clip_seed_and_configuration_only(clips: list[Clip], strategy: str, seed: int) -> None:
    def write(order: list[Clip]) -> dict[str, list[str]]:
        generator = GrammarGenerator(strategy=strategy)  # type: ignore[arg-type]
        return {one.id: [pair.model_dump_json() for pair in generator.write(one, seed=seed)] for one in order}

    assert write(clips) == write(clips[::-1])


@given(talks, st.integers(0, 99))
def test_no_benchmark_question_can_be_asked_in_training(about: Clip, seed: int) -> None:
    questions = [one.question for one in GrammarGenerator(strategy="benchmark", pairs_per_kind=4).write(about, seed=seed)]
    assert questions
    assert [one for one in questions if any(pattern.fullmatch(one) for pattern in TRAIN)] == []


@given(talks, st.integers(0, 99))
def test_emotion_labels_move_only_what_is_asked_about_emotion(about: Clip, seed: int) -> None:
    def flipped(one: Segment) -> Segment:
        labels = (
            label.model_copy(update={"category": EMOTIONS[-1 - EMOTIONS.index(label.category)]})
            if label.attribute == "emotion"
            else label
            for label in one.labels
        )
        return one.model_copy(update={"labels": tuple(labels)})

    def other_kinds(one: Clip) -> list[tuple[str, str]]:
        made = GrammarGenerator(strategy="cpqa").write(one, seed=seed)
        return [(pair.question, pair.answer) for pair in made if pair.kind in ("C", "DG", "CG")]

    changed = about.model_copy(update={"segments": tuple(flipped(one) for one in about.segments)})
    assert other_kinds(about) == other_kinds(changed)


@given(talks | babble(), st.integers(0, 99))
def test_an_anchor_leads_to_its_segment_and_no_other(about: Clip, seed: int) -> None:
    for index in range(len(about.segments)):
        for anchor in askable.anchors(about, index):
            head = tokens(anchor.text)[-1]
            holds = [at for at, one in enumerate(about.segments) if head in tokens(one.transcript or "")]
            assert {"": holds, "first": holds[:1], "last": holds[-1:]}[anchor.time] == [index]


def test_the_prevailing_emotion_alone_answers_at_most_half_of_the_questions_in_context() -> None:
    answered: Counter[bool] = Counter()
    for seed in range(200):
        about = talk(seed, 4 + seed % 6, 1 + seed % 2)
        prevailing = next(iter(askable.shares(about, "emotion")))
        for one in GrammarGenerator(strategy="benchmark", kinds=("CE",)).write(about, seed=0):
            answered[one.label == prevailing] += 1
    assert answered.total() > 300
    assert answered[True] / answered.total() < 0.5
    assert answered[True] > 0  # nor is its absence the answer
