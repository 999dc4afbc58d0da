"""The filters on candidate pairs, and the two stages of generation on real tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.test_grammar import DEMO, MIXED, clip, segment, spoken
from undertone.execute import run_stage, write_rows
from undertone.generate.checks import ALL_CHECKS, CHECKS
from undertone.generate.frames import FORMS
from undertone.generate.stage import CheckStage, GenerateStage
from undertone.records import Clip, QAPair, Record
from undertone.tables import Fingerprint, open_table
from undertone.testing.fake_endpoint import FakeEndpoint, Fault

SAD = spoken((DEMO[0], "sad", "female"), (DEMO[1], "sad", "female"), (DEMO[2], "happy", "male"))


def pair(question: str = "How do they feel?", answer: str = "They sound sad.", **fields: Any) -> QAPair:
    given = {"kind": "C", "clip_id": SAD.id, "recording_id": SAD.recording_id, "source": "cpqa", "generator": "x@1", **fields}
    return QAPair(question=question, answer=answer, **given)


def labelled(kind: str, label: str, question: str = "How is it?", answer: str | None = None) -> QAPair:
    attribute = {"E": "emotion", "G": "gender", "S": "speakers"}[kind[1]]
    return pair(question, answer or f"It is {label}.", kind=kind, label=label, label_attribute=attribute)


CASES: list[tuple[str, QAPair, str | None]] = [
    ("answer_in_question", labelled("CE", "sad", "Why do they sound unhappy at dinner?"), "answer_in_question"),
    ("answer_in_question", labelled("CE", "sad", "Are they happy or sad at dinner?"), None),
    ("answer_in_question", labelled("CE", "sad", "Are they happy at dinner?"), None),
    ("answer_in_question", labelled("CG", "male", "Is it a man or a woman?"), None),
    ("answer_in_question", labelled("CG", "male", "What does his voice tell you?"), "answer_in_question"),
    ("answer_in_question", pair("Where near the old mill does it stop?", "Near the mill."), "answer_in_question"),
    ("answer_in_question", pair("Where does it stop?", "Near the mill."), None),
    ("answer_in_question", pair("Who is it?", "It is so."), None),  # no content word: nothing to find
    ("presupposes_transcript", pair("What emotion does the transcript show?"), "presupposes_transcript"),
    ("presupposes_transcript", pair("According to the text, where are they?"), "presupposes_transcript"),
    ("presupposes_transcript", pair("What language is the letter written in?"), None),
    ("mentions_labels", pair("What is the valence at the start?"), "mentions_labels"),
    ("mentions_labels", pair(answer="They are tagged as sad."), "mentions_labels"),
    ("mentions_labels", pair("How do they sound at 2.5 s?"), "mentions_labels"),
    ("mentions_labels", pair("How do they sound at the table?"), None),
    ("too_long", pair("what " * 41), "too_long"),
    ("too_long", pair("what " * 40, "sad " * 60), None),
    ("too_long", pair(answer="sad " * 61), "too_long"),
    ("too_long", pair(answer="sad " * 61, kind="ASR"), None),
    ("unanswerable_phrase", pair(answer="It is not mentioned."), "unanswerable_phrase"),
    ("unanswerable_phrase", pair(answer="I’m sorry, I can’t tell."), "unanswerable_phrase"),
    ("unanswerable_phrase", pair(answer="The mood cannot be determined."), "unanswerable_phrase"),
    ("unanswerable_phrase", pair(answer="They do not like dinner."), None),
    ("supported", labelled("DE", "sad"), None),
    ("supported", labelled("DE", "happy"), "unsupported"),
    ("supported", labelled("CE", "happy"), None),
    ("supported", labelled("CE", "angry"), "unsupported"),
    ("supported", labelled("CE", "sad", answer="They sound sorrowful."), None),
    ("supported", labelled("CE", "sad", answer="They sound happy."), "unsupported"),
    ("supported", labelled("DG", "female"), "unsupported"),
    ("supported", labelled("CG", "female"), None),
    ("supported", labelled("DS", "2"), "unsupported"),
    ("supported", pair("What is said?", " ".join(DEMO), kind="ASR"), None),
    ("supported", pair("What is said?", DEMO[0], kind="ASR"), "unsupported"),
    ("supported", pair("Why is she sad?", "Because of the letter.", kind="CE"), None),
]


@pytest.mark.parametrize(("check", "candidate", "reason"), CASES)
def test_check(check: str, candidate: QAPair, reason: str | None) -> None:
    assert CHECKS[check](candidate, SAD) == reason


def test_every_check_has_a_case_that_passes_and_one_that_does_not() -> None:
    for name in CHECKS:
        reasons = [reason for check, _, reason in CASES if check == name]
        assert None in reasons, name
        assert any(reasons), name


def test_a_word_of_the_clip_is_no_mention_of_a_label() -> None:
    about = spoken(("The label on the jar is green.", "sad", "male"))
    asked = pair("What colour is the label on the jar?", "The label is green.", clip_id=about.id)
    assert CHECKS["mentions_labels"](asked, about) is None
    assert CHECKS["mentions_labels"](asked, SAD) == "mentions_labels"


def test_no_wording_of_the_grammar_trips_a_check() -> None:
    wordings = [one for form in FORMS.values() for one in (*form.train, *form.template, *form.test)]
    names = ("presupposes_transcript", "mentions_labels", "too_long", "unanswerable_phrase")
    assert len(wordings) > 200
    tripped = [(name, one) for one in wordings for name in names if CHECKS[name](pair(one, one), SAD)]
    assert tripped == []


# ---- stages ----------------------------------------------------------------------------------------------------------------------


def table(folder: Path, rows: Sequence[Record], record: type[Record]) -> Path:
    made = Fingerprint(stage="test", version="1", seed=0, config={"folder": folder.name}, inputs={})
    write_rows(folder, rows, record=record, fingerprint=made, parts=1)
    return folder


def test_pairs_are_generated_and_checked_into_tables(tmp_path: Path) -> None:
    silent = clip(segment("Hm", 0, None, None)).model_copy(update={"recording_id": "s" * 16})
    clips = table(tmp_path / "clips", [MIXED, silent], Clip)
    made = run_stage(GenerateStage(strategy="cpqa", kinds=("C", "DE", "CE", "CG")), [clips], tmp_path / "cpqa", seed=5)
    assert (made.counts.kept, made.counts.reasons) == (1, {"nothing_to_ask": 1})
    checked = run_stage(CheckStage(), [tmp_path / "cpqa"], tmp_path / "pairs", sides={"clips": clips}, seed=5)
    pairs = list(open_table(tmp_path / "pairs", QAPair).rows())
    assert checked.counts.kept == len(pairs) == made.counts.rows == 8
    assert {one.checks for one in pairs} == {ALL_CHECKS}


def test_clips_of_another_split_are_not_asked_about(tmp_path: Path) -> None:
    held_out = MIXED.model_copy(update={"recording_id": "t" * 16, "split": "test"})
    clips = table(tmp_path / "clips", [MIXED, held_out], Clip)
    train = run_stage(GenerateStage(strategy="asr"), [clips], tmp_path / "asr")
    test = run_stage(GenerateStage(strategy="benchmark", splits=("test",)), [clips], tmp_path / "benchmark")
    assert train.counts.reasons == test.counts.reasons == {"other_split": 1}
    assert {one.split for one in open_table(tmp_path / "benchmark", QAPair).rows()} == {"test"}


def test_dropped_pairs_carry_their_reason_and_unknown_clips_fail(tmp_path: Path) -> None:
    clips = table(tmp_path / "clips", [SAD], Clip)
    rows = [
        pair("Where does the train stop?", "Near the mill."),
        pair("where does the  train stop", "Near the old mill."),
        pair("Where does the train stop?", "Near the mill.", source="pqa_star"),
        pair("What does the text say?", "Near the mill."),
        pair("Where is it?", "Near the mill.", clip_id="elsewhere"),
    ]
    done = run_stage(CheckStage(), [table(tmp_path / "raw", rows, QAPair)], tmp_path / "out", sides={"clips": clips})
    assert done.counts.reasons == {"duplicate_in_clip": 1, "error": 1, "presupposes_transcript": 1}
    assert (done.counts.inputs, done.counts.kept, done.counts.dropped, done.counts.failed) == (5, 2, 2, 1)
    (lost,) = open_table(tmp_path / "out", QAPair).failed()
    assert "is about clip elsewhere, which the clips table does not have" in (lost.detail or "")


def test_a_duplicate_of_a_dropped_pair_is_kept(tmp_path: Path) -> None:
    clips = table(tmp_path / "clips", [SAD], Clip)
    rows = [pair("Where does it stop?", "It is not mentioned."), pair("Where does it stop?", "Near the mill.")]
    done = run_stage(CheckStage(), [table(tmp_path / "raw", rows, QAPair)], tmp_path / "out", sides={"clips": clips})
    assert done.counts.reasons == {"unanswerable_phrase": 1}
    assert [one.answer for one in open_table(tmp_path / "out", QAPair).rows()] == ["Near the mill."]


def test_only_enabled_checks_run_and_are_recorded(tmp_path: Path) -> None:
    clips = table(tmp_path / "clips", [SAD], Clip)
    rows = [pair("What does the text say?", "Near the mill.")]
    run_stage(CheckStage(enabled=("too_long",)), [table(tmp_path / "raw", rows, QAPair)], tmp_path / "out", sides={"clips": clips})
    assert [one.checks for one in open_table(tmp_path / "out", QAPair).rows()] == [("too_long",)]


def test_wrong_stage_fields_are_named() -> None:
    with pytest.raises(ValidationError, match="no check 'to_long'; expected some of answer_in_question"):
        CheckStage(enabled=("to_long",))
    with pytest.raises(ValidationError, match="generator 'llm' needs endpoint and model"):
        GenerateStage(strategy="cpqa", generator="llm")


def test_a_stage_serialises_to_itself_and_names_its_wordings() -> None:
    stage = GenerateStage(strategy="cpqa", kinds=("CE",), pairs_per_kind=3)
    assert GenerateStage.model_validate(stage.model_dump()) == stage
    assert stage.identity()["prompt_digest"] != GenerateStage(**LLM).identity()["prompt_digest"]
    assert "cache_dir" not in stage.identity()


LLM: dict[str, Any] = {"strategy": "cpqa", "generator": "llm", "endpoint": "http://127.0.0.1:9/v1", "model": "m"}


def test_the_llm_generator_runs_as_a_stage_and_a_fault_costs_one_row(tmp_path: Path) -> None:
    other = MIXED.model_copy(update={"recording_id": "s" * 16, "segments": (segment("Bad luck again.", 0),)})
    clips = table(tmp_path / "clips", [MIXED, other], Clip)
    said = (
        '{"pairs": [{"kind": "CE", "question": "How do they sound at dinner?", "answer": "They sound happy.", "label": "happy"}]}'
    )

    def reply(body: dict[str, Any]) -> str | Fault:
        return Fault(status=400, message="no") if "Bad luck" in body["messages"][0]["content"] else said

    with FakeEndpoint(reply) as server:
        stage = GenerateStage(**{**LLM, "endpoint": server.url})
        done = run_stage(stage, [clips], tmp_path / "out")
    assert (done.counts.kept, done.counts.failed, done.counts.rows) == (1, 1, 1)
    (made,) = open_table(tmp_path / "out", QAPair).rows()
    assert (made.generator, made.label, made.raw) == ("llm@1", "happy", said)
    (lost,) = open_table(tmp_path / "out", QAPair).failed()
    assert f"ServiceError: {server.url} answered 400" in (lost.detail or "")
