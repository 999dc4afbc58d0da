"""Replies without an LLM: the grammar's wordings, the strategies that use them, dialogues, and what a benchmark asks for."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from tests.unit.test_grammar import DEMO, clip, segment, spoken
from undertone.chat import Endpoint
from undertone.errors import ConfigError, ServiceError, TooManyFailures
from undertone.execute import run_stage, write_rows
from undertone.generate.ask import explain
from undertone.generate.checks import CHECKS, CheckStage
from undertone.generate.frames import FrameSet
from undertone.generate.frames import replies as frames
from undertone.generate.frames.replies import ANYTHING, MANNERS, MOODS, TEST_QUESTIONS, Manner
from undertone.generate.llm import LLMGenerator
from undertone.generate.offline import OfflineGenerator
from undertone.generate.protocol import prompt_lines
from undertone.generate.replies import LEVELS, WrittenReply, in_english, topics, write_reply
from undertone.generate.stage import GenerateStage
from undertone.generate.strategies import think
from undertone.generate.strategies.base import usable_reply
from undertone.generate.strategies.continuation import Continuation
from undertone.generate.strategies.cpqa import CPQA
from undertone.generate.strategies.dialogue import Dialogue, one_turn
from undertone.generate.strategies.dual_think import DualThinkStrategy
from undertone.lexicon import EMOTION_WORDS, labels_in
from undertone.records import Clip, QAPair, Segment, Turn, from_arrow, to_arrow
from undertone.tables import Fingerprint, open_table
from undertone.testing.fake_endpoint import FakeEndpoint, Told

SAD = spoken((DEMO[0], "sad", "female"))
TALK = spoken(*zip((*DEMO, *DEMO[:2]), ("sad", "sad", "happy", "angry", "neutral"), ("female",) * 5, strict=True))
"""Five turns of one voice."""


def reply(emotion: str, seed: int, *, about: Clip = SAD, which: FrameSet = "train") -> WrittenReply:
    return write_reply(about, emotion, random.Random(seed), frames=which)


def parts(manner: Manner) -> list[str]:
    mechanisms = (manner.reaction, manner.interpretation, manner.exploration)
    return [text for one in mechanisms for text in (*one.weak, *one.strong)]


# ---- wordings --------------------------------------------------------------------------------------------------------------------


def test_every_emotion_that_is_asked_about_has_a_manner_and_a_mood() -> None:
    assert set(MANNERS["train"]) == set(MANNERS["test"]) == set(MOODS) == set(EMOTION_WORDS)
    assert set(MOODS.values()) <= set(EMOTION_WORDS)


def test_train_and_test_share_no_wording_of_an_emotion_and_no_question() -> None:
    for emotion in EMOTION_WORDS:
        train, test = (parts(MANNERS[which][emotion]) for which in ("train", "test"))
        assert not {one.casefold() for one in train} & {one.casefold() for one in test}, emotion
        assert len(train) == len(set(train)) >= 19
        assert len(test) == len(set(test)) >= 12
    for sort, asked in TEST_QUESTIONS.items():
        assert not set(asked) & set(prompt_lines(f"{sort}_questions.jinja"))


@pytest.mark.parametrize("which", ["train", "test"])
def test_wordings_fit_where_they_stand(which: FrameSet) -> None:
    for manner in MANNERS[which].values():
        for text in (*manner.reaction.weak, *manner.reaction.strong):
            assert (text[0].isupper(), text[-1].isalpha()) == (True, True), text
        for text in (*manner.interpretation.weak, *manner.interpretation.strong):
            assert text[0].islower() or text.startswith("I "), text
            assert text[-1] not in ".,!?", text
        for text in (*manner.exploration.weak, *manner.exploration.strong):
            assert (text[0].isupper(), text[-1]) == (True, "?"), text
        for one in (manner.interpretation, manner.exploration):
            assert all("{topic}" in text for text in one.strong)
            assert not any("{topic}" in text for text in one.weak)


@pytest.mark.parametrize("which", ["train", "test"])
def test_no_wording_names_another_emotion_or_a_gender(which: FrameSet) -> None:
    for emotion, manner in MANNERS[which].items():
        for text in parts(manner):
            assert labels_in(text, "emotion") <= {emotion}, text
            assert not labels_in(text, "gender"), text
    for text in itertools.chain(*TEST_QUESTIONS.values()):
        assert not labels_in(text, "emotion") | labels_in(text, "gender"), text


# ---- the grammar -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emotion", EMOTION_WORDS)
def test_replies_are_one_or_two_sentences_of_all_three_mechanisms_at_all_strengths(emotion: str) -> None:
    made = [reply(emotion, seed) for seed in range(400)]
    for one in made:
        assert one.text[0].isupper()
        assert one.text[-1] in ".?"
        assert one.text.count(". ") <= 1
        assert "{" not in one.text
        assert ("?" in one.text) == (one.exploration > 0)
        assert [one.reaction, one.interpretation, one.exploration].count(0) < 2
        assert 2 <= len(one.text.split()) <= 40
    most = 1 if emotion == "neutral" else 2
    for name, levels in (("reaction", set(range(most + 1))), ("interpretation", {0, 1, 2}), ("exploration", {0, 1, 2})):
        assert {getattr(one, name) for one in made} == levels
    assert len({one.text for one in made}) > 150


def test_replies_differ_by_emotion_and_between_train_and_test() -> None:
    said = {
        (emotion, which): {reply(emotion, seed, which=which).text for seed in range(300)}
        for emotion in EMOTION_WORDS
        for which in MANNERS
    }
    for (one, these), (other, those) in itertools.combinations(said.items(), 2):
        shared = these & those
        assert len(shared) <= 0.02 * len(these), (one, other, sorted(shared)[:3])


def test_two_strong_mechanisms_speak_of_what_was_said() -> None:
    strong = [one for one in (reply("sad", seed) for seed in range(200)) if one.interpretation == one.exploration == 2]
    assert strong
    assert all("the train" in one.text or "the mill" in one.text for one in strong)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("My sister reads the letter.", {"your sister", "the letter"}),
        ("Say the word gaze.", {'the word "gaze"'}),
        ("Hm.", {ANYTHING}),
        ("Oh no.", {ANYTHING}),
    ],
)
def test_topics_are_what_the_speaker_spoke_of(said: str, expected: set[str]) -> None:
    assert set(topics(spoken((said, "sad", "female")))) <= expected
    assert set(topics(spoken((said, "sad", "female")))) & expected


def test_nobody_is_replied_to_in_an_emotion_that_is_none() -> None:
    with pytest.raises(KeyError, match="other"):
        reply("other", 0)


@pytest.mark.parametrize(
    ("language", "english"), [(None, True), ("en", True), ("en-GB", True), ("unknown", True), ("de", False), ("zh", False)]
)
def test_the_grammar_replies_to_english_alone(language: str | None, english: bool) -> None:
    about = SAD.model_copy(update={"language": language})
    assert in_english(about) is english
    for strategy in (Continuation(), DualThinkStrategy(), Dialogue()):
        talk = TALK.model_copy(update={"language": language}) if strategy.name == "dialogue" else about
        assert bool(strategy.written(talk, seed=0)) is english


def test_every_reply_passes_the_refusal_filter_and_every_check() -> None:
    for which, emotion, seed in itertools.product(MANNERS, EMOTION_WORDS, range(150)):
        about = spoken((DEMO[seed % 3], emotion, "female"))
        said = reply(emotion, seed, about=about, which=which).text
        assert usable_reply(said) == said
        pair = (
            GenerateStage(strategy="continuation", frames=which)
            .made()
            .write(about, seed=seed)[0]
            .model_copy(update={"answer": said})
        )
        assert {name: fault for name, check in CHECKS.items() if (fault := check(pair, about))} == {}


# ---- the strategies --------------------------------------------------------------------------------------------------------------


def offline(strategy: str, about: Clip, *, seed: int = 0, which: FrameSet | None = None, **settings: Any) -> list[QAPair]:
    return GenerateStage(strategy=strategy, frames=which, settings=settings).made().write(about, seed=seed)


def test_a_reply_says_who_wrote_it_and_to_what_emotion() -> None:
    (pair,) = offline("continuation", SAD)
    assert (pair.kind, pair.label_attribute, pair.label) == ("REPLY", "emotion", "sad")
    assert (pair.generator, pair.model, pair.raw) == ("reply-grammar@1", None, None)
    assert pair.evidence == f"(sad) {DEMO[0]}"
    assert pair.question in prompt_lines("reply_questions.jinja")


def test_a_test_question_is_none_of_training_and_may_be_empty() -> None:
    assert {offline("continuation", SAD, seed=seed, which="test")[0].question for seed in range(60)} == set(TEST_QUESTIONS["reply"])
    (pair,) = offline("continuation", SAD, which="test", instruction="empty")
    assert pair.question == ""
    assert CHECKS["schema"](pair, SAD) is None
    assert from_arrow(to_arrow([pair], QAPair), QAPair) == [pair]


def test_an_empty_question_is_for_replies_alone() -> None:
    (pair,) = offline("continuation", SAD)
    with pytest.raises(ValidationError, match="a pair of kind C has a question"):
        QAPair.model_validate({**pair.model_dump(), "kind": "C", "question": ""})
    with pytest.raises(ValidationError, match="spoken in a clip; got no clip_id"):
        Turn(question="", answer="Oh no.")


@pytest.mark.parametrize("strategy", ["continuation", "dual_think"])
def test_clips_that_nobody_can_reply_to_are_passed_over(strategy: str) -> None:
    two = clip(segment(DEMO[0], 0, "sad", "female", speaker="a"), segment(DEMO[1], 4000, "sad", "female", speaker="b"))
    mute = clip(segment("Hm", 0, "sad", None, words=False).model_copy(update={"transcript": " "}))
    for about in (two, mute, spoken((DEMO[0], None, "female")), spoken((DEMO[0], "other", "female"))):
        assert offline(strategy, about) == []


def test_dual_think_offline_thinks_the_clips_labels() -> None:
    (pair,) = offline("dual_think", SAD)
    thought, said = think.split(pair.answer)
    assert isinstance(thought, think.LabelThought)
    assert thought.words == DEMO[0]
    assert thought.labels == {"gender": "female", "emotion": "sad", "reply_emotion": MOODS["sad"]}
    assert usable_reply(said) == said
    assert pair.question in prompt_lines("think_questions.jinja")
    assert offline("dual_think", SAD, which="test")[0].question in TEST_QUESTIONS["think"]


def test_the_arm_without_thought_asks_for_none_and_replies_the_same() -> None:
    (thinks,), (not_,) = offline("dual_think", SAD), offline("dual_think", SAD, think_dropped=1.0)
    assert think.split(not_.answer) == (None, think.split(thinks.answer).reply)
    assert not_.question in prompt_lines("reply_questions.jinja")
    many = [offline("dual_think", SAD, seed=seed, think_dropped=0.5, words_dropped=0.5)[0].answer for seed in range(60)]
    sorts = Counter("reply" if not one.startswith(think.BEGIN) else "all" if "Words:" in one else "labels" for one in many)
    assert min(sorts[name] for name in ("reply", "all", "labels")) >= 5


@pytest.mark.parametrize(
    ("answer", "fault", "said"),
    [
        ("Oh no.", None, "Oh no."),
        ("", None, ""),
        ("<think>Emotion: <sad><think end>Oh no.", None, "Oh no."),
        ("<think>Emotion: <sad>", "without an end", ""),
        ("<think>Hm.</think>Oh no.", "labels or three paragraphs", "Oh no."),
        ("<think></think>Oh no.", "labels or three paragraphs", "Oh no."),
        ("<THINK>Words:  </think> Oh no. ", "holds words or a label", "Oh no."),
    ],
)
def test_an_answer_splits_into_thought_and_reply_whatever_it_is(answer: str, fault: str | None, said: str) -> None:
    thought, reply_ = think.split(answer)
    assert reply_ == said
    assert isinstance(thought, think.Unreadable) is (fault is not None)
    if isinstance(thought, think.Unreadable):
        assert str(fault) in thought.fault


def test_a_thought_may_come_before_a_reply_that_nobody_asked_to_think_about() -> None:
    (asked,), (silent,) = (offline("dual_think", SAD, asks_for_thought=asks) for asks in (True, False))
    assert asked.answer.startswith("<think>")
    assert silent.answer == asked.answer
    assert asked.question in prompt_lines("think_questions.jinja")
    assert silent.question in prompt_lines("reply_questions.jinja")
    with pytest.raises(ConfigError, match=r"think_dropped=0.5 makes targets of two sorts"):
        offline("dual_think", SAD, asks_for_thought=False, think_dropped=0.5)


def test_a_share_of_replies_may_be_to_a_wrong_emotion_and_more_of_them_hold_the_fewer() -> None:
    def thought(seed: int, wrong: float) -> str:
        (pair,) = offline("dual_think", SAD, seed=seed, wrong=wrong)
        assert pair.label == "sad"
        return think.parse(pair.answer).labels["emotion"]

    some, most = ([thought(seed, wrong) for seed in range(200)] for wrong in (0.25, 0.75))
    assert 0.15 < sum(one != "sad" for one in some) / 200 < 0.35
    assert 0.65 < sum(one != "sad" for one in most) / 200 < 0.85
    assert all(one in ("sad", other) for one, other in zip(some, most, strict=True))
    assert len(set(most)) == 7
    assert offline("continuation", SAD, wrong=1.0)[0].answer != offline("continuation", SAD)[0].answer
    at = Endpoint(endpoint="http://127.0.0.1:9/v1", model="fake")
    with pytest.raises(ConfigError, match=r"settings.wrong=0.5 is of the grammar's replies"):
        GenerateStage(strategy="continuation", llm=at, settings={"wrong": 0.5})


@pytest.mark.parametrize(
    ("strategy", "settings", "fault"),
    [
        ("continuation", {"mode": "continue"}, "source x: mode: continue needs an LLM"),
        ("dual_think", {"form": "mixed"}, "source x: form: mixed needs an LLM"),
        ("dual_think", {"instruction": "empty", "think_dropped": 0.5}, "targets of two sorts"),
        ("dialogue", {"min_turns": 3, "max_turns": 2}, "expected at least min_turns, 3"),
        ("dialogue", {"max_turns": 5}, "max_turns"),
        ("continuation", {"frames": "test"}, "give frames there"),
        ("multi_turn", {}, "strategy 'multi_turn' needs an LLM"),
    ],
)
def test_what_the_grammar_cannot_do_is_said(strategy: str, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        GenerateStage(strategy=strategy, source="x", settings=settings).made()


def test_a_strategy_that_asks_is_not_carried_out_offline() -> None:
    with pytest.raises(ConfigError, match="strategy 'cpqa' needs an LLM"):
        OfflineGenerator(CPQA())


def test_the_stages_identity_knows_wordings_and_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Endpoint(endpoint="http://127.0.0.1:9/v1", model="fake")
    stages = [GenerateStage(strategy="continuation", llm=llm, frames=which) for llm in (None, at) for which in (None, "test")]
    before = [one.identity() for one in stages]
    assert len({json.dumps(one, sort_keys=True) for one in before}) == 4
    monkeypatch.setattr(frames, "digest", lambda: "0" * 16)
    changed = [old["prompt_digest"] != new.identity()["prompt_digest"] for old, new in zip(before, stages, strict=True)]
    assert changed == [True, True, False, True]  # an LLM's training pairs hold none of these wordings


# ---- dialogues -------------------------------------------------------------------------------------------------------------------


def test_each_turn_is_an_utterance_of_the_clip_with_the_turns_before_it() -> None:
    pairs = offline("dialogue", TALK, min_turns=4)
    assert [one.clip_id for one in pairs] == [one.id for one in TALK.segments[:4]]
    assert [one.label for one in pairs] == ["sad", "sad", "happy", "angry"]
    for at, pair in enumerate(pairs):
        assert [(turn.clip_id, turn.answer) for turn in pair.history] == [(one.clip_id, one.answer) for one in pairs[:at]]
        assert {turn.question for turn in pair.history} <= {pair.question}
    assert len({one.answer for one in pairs}) == 4
    assert len({one.id for one in pairs}) == 4


def test_a_dialogue_is_of_one_voice_and_breaks_where_nothing_is_heard() -> None:
    def held(*given: Segment) -> list[tuple[int, ...]]:
        return Dialogue(max_turns=4).dialogues(clip(*given), seed=0)

    def turn(
        at: int, emotion: str | None = "sad", gender: str | None = None, speaker: str | None = None, text: str = DEMO[0]
    ) -> Segment:
        return segment(text, 4_000 * at, emotion, gender, speaker=speaker)

    assert held(turn(0), turn(1)) == [(0, 1)]
    assert held(turn(0)) == []
    assert held(turn(0), turn(1, None), turn(2)) == []
    assert held(turn(0, gender="female"), turn(1, gender="male"), turn(2, gender="male")) == [(1, 2)]
    assert held(turn(0, speaker="a"), turn(1, speaker="b"), turn(2, speaker="b")) == [(1, 2)]
    assert held(turn(0, gender="female"), turn(1), turn(2, gender="male")) == [(0, 1)]
    assert held(turn(0), turn(1, text="Hm"), turn(2), turn(3)) == [(2, 3)]  # 400 ms are no turn


def test_a_turn_is_the_clip_that_a_table_of_utterances_has() -> None:
    alone = one_turn(TALK, TALK.segments[1])
    assert alone.id == TALK.segments[1].id
    assert (alone.split, alone.uri, alone.segments) == (TALK.split, TALK.uri, TALK.segments[1:2])


def told(body: dict[str, Any]) -> str:
    prompt = body["messages"][0]["content"]
    turns = int(prompt.split("with exactly ")[1].split()[0])
    return json.dumps({"replies": [f"Oh, I see. And number {at}?" for at in range(turns)]})


def test_an_llm_writes_a_whole_dialogue_in_one_request() -> None:
    with FakeEndpoint(told) as server:
        at = Endpoint(endpoint=server.url, model="fake")
        pairs = LLMGenerator(Dialogue(min_turns=4), at=at, source="dialogues").write(TALK, seed=0)
        assert len(server.requests) == 1
    assert [one.answer for one in pairs] == [f"Oh, I see. And number {at}?" for at in range(4)]
    assert [len(one.history) for one in pairs] == [0, 1, 2, 3]
    assert {one.model for one in pairs} == {"fake"}
    assert [one.clip_id for one in pairs] == [one.clip_id for one in offline("dialogue", TALK, min_turns=4)]


@pytest.mark.parametrize(
    ("replies", "fault"),
    [
        (["Oh no.", "I see.", "And then?"], "ends with the assistant speaking twice: 3 replies to 2 turns"),
        (["Oh no.", " "], "at least 1 character"),
        (["Oh no."], "at least 2 items"),
        (["Oh no.", "I'm sorry, but I can't assist with that."], "it refused"),
    ],
)
def test_a_dialogue_that_does_not_end_with_the_user_is_refused(replies: list[str], fault: str) -> None:
    answers: list[Told] = [json.dumps({"replies": replies})] * 2
    about = spoken(*[(one, "sad", "female") for one in DEMO[:2]])
    with FakeEndpoint(answers) as server:
        writer = LLMGenerator(Dialogue(max_turns=2), at=Endpoint(endpoint=server.url, model="fake", retries=0))
        with pytest.raises(ServiceError, match=fault):
            writer.write(about, seed=0)


def test_an_empty_reply_of_an_llm_is_no_pair() -> None:
    with FakeEndpoint(["...", "..."]) as server, pytest.raises(ServiceError, match="holds no words"):
        LLMGenerator(Continuation(), at=Endpoint(endpoint=server.url, model="fake", retries=0)).write(SAD, seed=0)
    blank = offline("continuation", SAD)[0].model_copy(update={"answer": " ... "})
    assert CHECKS["schema"](blank, SAD) == "the answer has no words"


def test_a_dialogue_is_explained_by_the_clip_that_it_was_made_of() -> None:
    made = GenerateStage(strategy="dialogue", settings={"min_turns": 4})
    text = explain(TALK, made, seed=0, written=made.made().write(TALK, seed=0))
    assert text.count("REPLY: not checked yet") == 4


# ---- as tables -------------------------------------------------------------------------------------------------------------------


def table(folder: Path, rows: list[Clip] | list[Segment] | list[QAPair], record: type[Any]) -> Path:
    made = Fingerprint(stage="toy", version="1", seed=0, config={}, inputs={})
    write_rows(folder, rows, record=record, fingerprint=made, parts=2, smallest=1)
    return folder


def test_dialogues_pass_the_checks_by_the_clips_that_hold_their_turns(tmp_path: Path) -> None:
    other = TALK.model_copy(update={"split": "test", "recording_id": "s" * 16})
    clips = table(tmp_path / "clips", [TALK, other, SAD.model_copy(update={"recording_id": "t" * 16})], Clip)
    report = run_stage(GenerateStage(strategy="dialogue", source="dialogues"), [clips], tmp_path / "written", seed=3)
    assert report.line().startswith("generate: 3 in = 1 kept + 2 dropped + 0 failed (nothing_to_ask 1, other_split 1)")
    sides = {"clips": clips, "predicted": table(tmp_path / "label", [], Segment)}
    run_stage(CheckStage(), [tmp_path / "written"], tmp_path / "checked", sides=sides, seed=3)
    kept = open_table(tmp_path / "checked", QAPair)
    assert kept.done.counts.rows == kept.done.counts.inputs >= 4
    assert {one.split for one in kept.rows()} == {"train"}
    assert any(turn.clip_id for one in kept.rows() for turn in one.history)


def test_a_pair_about_no_utterance_of_the_clips_fails(tmp_path: Path) -> None:
    clips = table(tmp_path / "clips", [TALK], Clip)
    stray = offline("dialogue", TALK)[0].model_copy(update={"clip_id": "r" * 16 + "@7-9"})
    sides = {"clips": clips, "predicted": table(tmp_path / "label", [], Segment)}
    pairs = table(tmp_path / "pairs", [stray], QAPair)
    with pytest.raises(TooManyFailures, match="about clip rrrrrrrrrrrrrrrr@7-9, which the clips table does not have"):
        run_stage(CheckStage(), [pairs], tmp_path / "checked", sides=sides, seed=0)


def test_tables_from_before_turns_had_clips_are_read() -> None:
    pair = offline("dialogue", TALK)[1].model_copy(update={"history": (Turn(question="Reply.", answer="Oh no."),)})
    now = to_arrow([pair], QAPair)
    turns = [{"question": "Reply.", "answer": "Oh no."}]
    kind = pa.list_(pa.struct([pa.field("question", pa.string()), pa.field("answer", pa.string())]))
    then = now.set_column(now.column_names.index("history"), "history", pa.array([turns], kind))
    assert from_arrow(then, QAPair) == [pair]


def test_levels_leave_out_one_mechanism_at_most() -> None:
    assert len(LEVELS) == 20
    assert (0, 0, 2) not in LEVELS
