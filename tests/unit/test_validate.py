"""Validation of a judge: its figures against others' arithmetic, other suites' files in their own layouts, and what is said about them."""

from __future__ import annotations

import csv
import json
import random
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

from undertone.errors import ConfigError, DataError
from undertone.evaluate.validate import Judged, JudgedTable, Scale, Validation, plain_text, read_judged, sentences, validate
from undertone.evaluate.validate.checks import levels_of, spearman_p
from undertone.evaluate.validate.labels import choices, labelled, offered
from undertone.evaluate.validate.result import ALL
from undertone.execute import write_rows
from undertone.records import Answer, QAPair, Record, Verdict
from undertone.report.validation import write
from undertone.tables import Fingerprint

EMOTIONS = ("angry", "happy", "sad")


def table_of(rows: Sequence[Judged]) -> JudgedTable:
    return JudgedTable(source="test", format="csv", rows=rows)


def emotion_rows(systems: int = 6, items: int = 40, *, seed: int = 1, honest: bool = True, judge: str = "j") -> list[Judged]:
    """Systems of rising accuracy; an honest judge gives right answers 60 to 100 and wrong ones 0 to 60, another one whatever comes."""
    draw = random.Random(seed)
    made = []
    for system in range(systems):
        for item in range(items):
            label = EMOTIONS[item % 3]
            mapped = label if draw.random() < (system + 1) / (systems + 1) else EMOTIONS[(item + 1) % 3]
            right = mapped == label
            grade = draw.choice((60, 80, 100) if right else (0, 20, 40, 60)) if honest else draw.choice((0, 20, 40, 60, 80, 100))
            made.append(
                Judged(
                    dataset="moods",
                    item=f"q{item}",
                    recording=f"r{item // 2}",
                    system=f"s{system}",
                    judge=judge,
                    answer=mapped,
                    score=grade,
                    attribute="emotion",
                    label=label,
                    mapped=mapped,
                )
            )
    return made


# ---- figures -------------------------------------------------------------------------------------------------------------------


def test_an_honest_judge_rises_and_orders_systems_as_right_answers_do() -> None:
    rows = emotion_rows()
    found = validate(table_of(rows), resamples=200)
    (curve,) = found.calibration
    scores, right = [row.score for row in rows], [row.mapped == row.label for row in rows]
    assert curve.auc.mean == pytest.approx(roc_auc_score(right, scores))
    assert curve.rises == "yes"
    assert [one.low for one in curve.bins] == [0, 20, 40, 60, 80, 100]
    for one in curve.bins:
        held = [hit for hit, score in zip(right, scores, strict=True) if score == one.low]
        assert (one.n, one.correct.mean) == (len(held), pytest.approx(np.mean(held)))
    assert (curve.bins[0].correct.mean, curve.bins[-1].correct.mean, curve.off_isotonic) == (0, 1, 0)
    by_wa, by_f1 = found.ranks
    assert (by_wa.measure, by_f1.measure) == ("WA", "macro F1")
    for index, name in enumerate(by_f1.agreement.systems):
        mine = [row for row in rows if row.system == name]
        labels, mapped = [row.label for row in mine], [row.mapped for row in mine]
        assert by_f1.agreement.second[index] == pytest.approx(100 * f1_score(labels, mapped, average="macro"))
        assert by_f1.agreement.first[index] == pytest.approx(by_wa.agreement.first[index])
        assert by_wa.agreement.second[index] == pytest.approx(100 * np.mean([row.label == row.mapped for row in mine]))
    for one in (by_wa.agreement, by_f1.agreement):
        assert one.spearman.mean is not None
        assert one.spearman.mean > 0.8
        assert one.spearman.low is not None
        assert one.p is not None
        assert one.p < 0.1
    assert any("rises with the score" in line for line in sentences(found))
    assert found.warnings == ()


def test_a_judge_that_draws_its_grades_is_found_out() -> None:
    found = validate(table_of(emotion_rows(honest=False)), resamples=200)
    (curve,) = found.calibration
    assert curve.rises != "yes"
    assert curve.auc.low is not None
    assert curve.auc.low < 0.5 < (curve.auc.high or 0)


def test_a_share_that_falls_between_two_grades_is_named() -> None:
    shares = {0.0: 0.2, 20.0: 0.9, 40.0: 0.1, 60.0: 0.95}
    rows = [
        Judged(item=f"{grade}-{index}", score=grade, correct=index < 60 * share)
        for grade, share in shares.items()
        for index in range(60)
    ]
    (curve,) = validate(table_of(rows), resamples=200).calibration
    assert (curve.rises, curve.falls) == ("no", ("20 to 40",))
    # The best rising curve through 20, 90, 10, 95 is 20, 50, 50, 95.
    assert curve.off_isotonic == pytest.approx(40)
    assert curve.attribute == "right or wrong"


def test_many_different_scores_fall_into_tenths() -> None:
    rows = [Judged(item=str(index), score=index / 2, correct=index > 100) for index in range(201)]
    (curve,) = validate(table_of(rows), resamples=50).calibration
    assert [(one.low, one.high, one.n) for one in curve.bins][:2] == [(0, 10, 20), (10, 20, 20)]
    assert (curve.bins[-1].low, curve.bins[-1].n) == (90, 21)  # 100 is in it
    assert (curve.auc.mean, levels_of([0.5])) == (1, None)


def test_two_judges_agree_only_about_the_same_answers() -> None:
    first = emotion_rows(seed=1, judge="a")
    second = [row.model_copy(update={"judge": "b", "score": min(100.0, (row.score or 0) + 20)}) for row in first]
    second[7] = second[7].model_copy(update={"answer": "something else"})
    second[8] = second[8].model_copy(update={"score": None, "unscored": "failed"})
    found = validate(table_of([*first, *second]), resamples=100)
    (both,) = found.agreement
    kept = [index for index in range(len(first)) if index not in (7, 8)]
    left, right = [first[index].score for index in kept], [second[index].score for index in kept]
    assert (both.kind, both.first, both.second, both.n, both.other_answers) == ("judges", "a", "b", len(kept), 1)
    assert both.same == pytest.approx(np.mean(np.array(left) == np.array(right)))
    assert both.kappa.mean == pytest.approx(cohen_kappa_score(left, right, labels=[0, 20, 40, 60, 80, 100], weights="quadratic"))
    assert both.difference.mean == pytest.approx(np.mean(left) - np.mean(right))
    assert any("moods 1 of 239" in line for line in found.warnings)


def test_two_prompts_of_one_model_people_and_costs() -> None:
    base = emotion_rows(systems=3)
    plain = [row.model_copy(update={"prompt": "plain", "human": row.score, "tokens": 100, "cost": 0.25}) for row in base]
    kind = [row.model_copy(update={"prompt": "kind", "score": 100.0}) for row in base]
    found = validate(table_of([*plain, *kind]), resamples=100)
    kinds = {(one.kind, one.first, one.second): one for one in found.agreement}
    assert set(kinds) == {("prompts", "j (kind)", "j (plain)"), ("human", "j (plain)", "human")}
    people = kinds["human", "j (plain)", "human"]
    assert (people.same, people.kappa.mean, people.alpha.mean, people.difference.mean) == (1, 1, 1, 0)
    facts = {one.prompt: one for one in found.judges}
    assert (facts["plain"].tokens, facts["plain"].cost, facts["plain"].priced) == (12000, 30.0, 120)
    assert facts["kind"].cost is None
    said = " ".join([*sentences(found), *found.warnings])
    assert "B cost 12,000 tokens and 30 in money for 120 verdicts, 0.25 each." in said
    assert "j (kind): every score is 100; nothing can agree with a judge that never varies." in said
    assert "3 systems only; with fewer than 5" in said


def test_runs_are_compared_answer_by_answer() -> None:
    rows = [
        Judged(item=f"q{item}", score=score, run=run)
        for item, scores in enumerate([(80, 80, 80), (0, 20, 40), (100, 100, 60)])
        for run, score in enumerate(scores)
    ]
    (one,) = validate(table_of(rows), resamples=100).consistency
    assert (one.runs, one.answers, one.same.mean) == (3, 3, pytest.approx(1 / 3))
    assert one.sd.mean == pytest.approx((0 + 20 + np.std([100, 100, 60], ddof=1)) / 3)


def test_failures_are_no_zeros_and_are_shown_as_such() -> None:
    rows = [
        Judged(item="a", score=80),
        Judged(item="b", unscored="unreadable", counted_as=0, reread=60),
        Judged(item="c", unscored="failed", counted_as=0),
        Judged(item="d", unscored="refused"),
    ]
    (one,) = validate(table_of(rows), resamples=50).judges
    assert (one.scored, one.unscored) == (1, {"failed": 1, "refused": 1, "unreadable": 1})
    assert (one.mean.mean, one.as_zero.mean, one.reread) == (80, 20, 70)
    assert one.as_counted.mean == pytest.approx(80 / 3)


def test_the_order_of_rows_changes_nothing_and_all_of_it_goes_through_json() -> None:
    rows = emotion_rows(systems=5, items=12)
    shuffled = random.Random(3).sample(rows, len(rows))
    found = validate(table_of(rows), resamples=100)
    assert validate(table_of(shuffled), resamples=100) == found
    assert Validation.from_json(found.to_json()) == found


def test_the_page_and_the_text_hold_what_was_found_and_escape_what_was_read(tmp_path: Path) -> None:
    rows = [row.model_copy(update={"dataset": "<b>moods"}) for row in emotion_rows(systems=5)]
    found = validate(table_of(rows), resamples=50)
    page = write(found, tmp_path).read_text()
    assert "<b>moods" not in page
    assert "&lt;b&gt;moods" in page
    assert page.count("<svg") == 2
    assert Validation.from_json((tmp_path / "validation.json").read_text()) == found
    text = plain_text(found)
    assert (tmp_path / "validation.txt").read_text() == text
    for title in ("Judges", "Right answers by score", "Order of systems"):
        assert title in text


def test_orders_of_systems_are_counted_exactly() -> None:
    assert spearman_p([1, 2, 3, 4, 5], [10, 20, 30, 40, 50], seed=0) == pytest.approx(2 / 120)
    assert spearman_p([1, 2, 3], [5, 5, 5], seed=0) is None
    many = spearman_p(list(range(12)), list(range(12)), seed=0)
    assert many is not None
    assert 0 < many < 0.001


def test_nobody_judges_an_answer_twice_in_one_run() -> None:
    with pytest.raises(DataError, match="judged one answer of system to item a of set twice in run 0; number repetitions"):
        validate(table_of([Judged(item="a", score=1), Judged(item="a", score=2)]))
    with pytest.raises(DataError, match="no verdicts in it"):
        validate(table_of([]))


# ---- labels --------------------------------------------------------------------------------------------------------------------


def test_classes_are_read_from_references_options_and_letters() -> None:
    question = "What is felt (frustration, anger, neutral)?"
    assert offered(question) == ("frustration", "anger", "neutral")
    assert choices("Who? Choices: (A) Man (B) Woman") == ("A", "Man", "B", "Woman")
    lettered = "Who speaks? (A) A man (B) A woman (C) A young woman"
    rows = [
        Judged(
            dataset="x_emotion_test", item="1", question=question, reference="It is anger.", answer="She is frustrated.", score=1
        ),
        Judged(dataset="x_gender", item="1", reference="Female", answer="a woman speaks", score=1),
        Judged(dataset="mcq", item="1", question=lettered, reference="(C) A young woman", answer="It is a young woman.", score=1),
        Judged(dataset="mcq", item="2", question=lettered, reference="(B) A woman", answer="The answer is (A).", score=1),
        Judged(dataset="mcq", item="3", question=lettered, reference="(B) A woman", answer="(A) or (B).", score=1),
        Judged(dataset="other", item="1", reference="Because it rains.", answer="Rain.", score=1),
    ]
    made = {(row.dataset, row.item): (row.label, row.mapped) for row in labelled(rows).rows}
    assert made == {
        ("x_emotion_test", "1"): ("anger", "frustration"),
        ("x_gender", "1"): ("female", "female"),
        ("mcq", "1"): ("C", "C"),
        ("mcq", "2"): ("B", "A"),
        ("mcq", "3"): ("B", None),
        ("other", "1"): (None, None),
    }
    found = labelled(rows[-1:], "emotion")
    assert found.unread == {("other", "emotion"): 1}
    with pytest.raises(ConfigError, match="--attribute: got 'mood', expected one of emotion"):
        labelled(rows, "mood")


# ---- other suites' files, each in its own layout -------------------------------------------------------------------------------


def audiobench_log(folder: Path, system: str, judge: str, rates: Sequence[float], **more: Any) -> None:
    questions = more.get("questions", [f"What is felt in {index} (anger, sad, neutral)?" for index in range(len(rates))])
    details = [
        {
            "question": question,
            "reference": f"It is {('anger', 'sad', 'neutral')[index % 3]}.",
            "model_prediction": f"{('anger', 'sad', 'neutral')[index % 3] if rate else 'surprise'}",
            "judge_response": f"Explanation: so.\n\nRating: {rate:g}",
            "rate_score": rate,
            "success": 1,
        }
        for index, (question, rate) in enumerate(zip(questions, rates, strict=True))
    ]
    for index in more.get("failed", ()):
        details[index] |= {"judge_response": "Rating: 1\n\n(It is right.)", "rate_score": 0.0, "success": 0}
    if more.get("reverse"):
        details.reverse()
    head = {"judge_score": more["score"], "success_rate": more.get("rate", 1.0)}
    (folder / system).mkdir(parents=True, exist_ok=True)
    name = f"{more.get('dataset', 'iemocap_emotion_test')}_{judge}_score.json"
    (folder / system / name).write_text(json.dumps({judge: head, "details": details}))


def test_audiobench_headers_and_rows_are_kept_apart(tmp_path: Path) -> None:
    rates = [1.0, 0.0, 1.0] * 6 + [1.0, 0.0]
    audiobench_log(tmp_path, "m1", "llama_judge", rates, score=50.0, rate=0.999, failed=[1])
    audiobench_log(tmp_path, "m2", "llama_judge", rates, score=100 * 300 / 1000)
    audiobench_log(tmp_path, "m1", "gpt_judge", rates, score=40.0)
    audiobench_log(tmp_path, "m2", "gpt_judge", rates, score=100 * 100 / 300, reverse=True)
    table = read_judged([str(tmp_path)])
    assert (table.format, len(table.rows), len(table.headers)) == ("audiobench", 80, 4)
    first = next(row for row in table.rows if (row.system, row.judge, row.item) == ("m1", "llama_judge", "0001"))
    assert (first.score, first.unscored, first.counted_as, first.reread) == (None, "unreadable", 0, 100)
    header = next(one for one in table.headers if (one.system, one.judge) == ("m1", "llama_judge"))
    assert (header.prompt, header.n_multiple_of, header.kept) == ("binary 0/1", 1000, 20)
    assert header.honest == pytest.approx(50 / 0.999)
    found = validate(table, resamples=50)
    said = " ".join([*found.notes, *found.warnings])
    assert "gpt_judge on m2: rows are in another order" in said
    assert "divisible by 3, the others' over one divisible by 1000: not the same rows" in said
    assert "1 kept replies could not be read by AudioBench and count as 0 there; 1 of them hold a rating further up" in said
    whole = next(one for one in found.whole if (one.system, one.judge) == ("m1", "llama_judge"))
    assert (whole.score, whole.kept_score) == (50, pytest.approx(100 * 13 / 20))
    assert whole.kept_honest == pytest.approx(100 * 13 / 19)
    # The judge that saw the rows in another order shares none with the other.
    (both,) = (one for one in found.agreement if one.dataset == "iemocap_emotion_test")
    assert (both.n, both.same) == (19, 1)


def test_audiobench_rubrics_are_told_by_rows_and_by_arithmetic(tmp_path: Path) -> None:
    audiobench_log(tmp_path, "m1", "j_judge", [1.0, 0.0] * 10, score=100 * 1000 / 4874, rate=4873 / 4874)
    # All kept rows are 0 or 1, but 2291.6 hits among 4874 rows there cannot be: grades, times 20.
    audiobench_log(tmp_path, "m2", "j_judge", [1.0, 0.0] * 10, score=20 * 11458 / 4874)
    audiobench_log(tmp_path, "m3", "j_judge", [1.0, 5.0] * 10, score=60.0)
    table = read_judged([str(tmp_path)])
    assert {one.system: one.prompt for one in table.headers} == {"m1": "binary 0/1", "m2": "graded 0-5", "m3": "graded 0-5"}
    assert {row.score for row in table.rows if row.system == "m2"} == {0, 20}
    warned = validate(table, resamples=50).warnings
    assert any("graded some systems by another prompt than others (binary 0/1: m1; graded 0-5: m2, m3)" in one for one in warned)


AU_COLUMNS = (
    *("instruction", "reference", "candidate", "score", "explanation", "response_code", "raw_response_type", "wait_time"),
    *("error_rate_limit", "error_connection", "error_api", "error_timeout", "error_server", "error_other", "is_final_score"),
)


def au_log(folder: Path, task: str, metric: str, model: str, rows: Sequence[tuple[str, str]]) -> None:
    place = folder / "run_logs" / "2026-01-01_00-00-00" / task
    place.mkdir(parents=True, exist_ok=True)
    with (place / f"{task}_{metric}_{model}.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(AU_COLUMNS)
        for index, (score, why) in enumerate(rows):
            writer.writerow([f"Which emotion? {index}", "anger", "She is\nangry.", score, why, "200", *[""] * 8, "False"])


def test_au_harness_failures_are_told_where_its_files_tell_them(tmp_path: Path) -> None:
    au_log(
        tmp_path, "iemocap_emotion_recognition", "llm_judge_binary", "qwen_2", [("1.0", "Same."), ("0.0", "Other."), ("0.0", "")]
    )
    au_log(tmp_path, "sds", "llm_judge_detailed", "qwen_2", [("3.0", "Near.")])
    au_log(tmp_path, "bba", "llm_judge_big_bench_audio", "qwen_2", [("1.0", ""), ("0.0", ""), ("", "")])
    au_log(tmp_path, "call", "llm_judge_callhome", "qwen_2", [("9.0", "All."), ("0.0", "")])
    au_log(tmp_path, "mt", "mt_bench_llm_judge", "qwen_2", [("{'turn1': 7.0, 'overall': 70.0}", "")])
    au_log(tmp_path, "libri", "word_error_rate", "qwen_2", [("0.1", "")])
    table = read_judged([str(tmp_path)])
    assert {(row.system, row.judge) for row in table.rows if row.dataset == "sds"} == {("qwen_2", "llm_judge_detailed")}
    scored = {
        name: [(row.score, row.unscored, row.counted_as) for row in table.rows if row.dataset == name] for name in ("call", "bba")
    }
    assert scored["call"] == [(100, None, None), (None, "unreadable", 10)]
    assert scored["bba"] == [(100, None, None), (0, None, None), (None, "unreadable", None)]
    emotion = [(row.score, row.counted_as) for row in table.rows if row.dataset.startswith("iemocap")]
    assert emotion == [(100, None), (0, None), (None, 0)]
    assert next(row.score for row in table.rows if row.dataset == "mt") == 70
    assert "Not by a judge, left out: libri_word_error_rate_qwen_2.csv." in table.notes
    assert validate(table, resamples=50).attributes["iemocap_emotion_recognition"] == "emotion"


def test_lmms_eval_is_read_and_its_first_digit_rule_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen__Qwen2-Audio"
    folder.mkdir()

    def sample(number: int, **verdict: Any) -> str:
        common = {"doc_id": number, "target": "Tea.", "filtered_resps": [["It is tea."]], "doc_hash": "x", "input": "What?"}
        return json.dumps(common | verdict)

    replies = ["Explanation: 2 of 3 facts are there.\nRating: 4", "", "no idea", "5"]
    graded = [sample(index, gpt_eval={"eval_answer": one, "model_name": "gpt-4o"}) for index, one in enumerate(replies)]
    (folder / "20260101_000000_samples_alpaca_audio.jsonl").write_text("\n".join(graded))
    swapped = sample(0, gpt_eval={"eval_answer": ["8 6", "7 9."], "model_name": "gpt-4o"})
    (folder / "20260101_000000_samples_air_bench_chat_speech.jsonl").write_text(swapped)
    numbers = [sample(0, llm_as_judge_eval=4.0), sample(1, llm_as_judge_eval=0.0)]
    (folder / "20260101_000000_samples_voicebench_alpacaeval.jsonl").write_text("\n".join(numbers))
    (folder / "20260101_000000_samples_mmau.jsonl").write_text(sample(0, accuracy=1.0))
    table = read_judged([str(tmp_path)])
    assert {row.system for row in table.rows} == {"Qwen__Qwen2-Audio"}
    assert {row.answer for row in table.rows} == {"It is tea."}
    alpaca = [(row.score, row.unscored, row.counted_as) for row in table.rows if row.dataset == "alpaca_audio"]
    assert alpaca == [(80, None, 40), (None, "failed", 0), (None, "unreadable", 0), (100, None, None)]
    assert [(row.run, row.score) for row in table.rows if row.dataset.startswith("air")] == [(0, 60), (1, 70)]
    assert [(row.score, row.unscored) for row in table.rows if row.dataset.startswith("voice")] == [
        (80, None),
        (None, "unreadable"),
    ]
    assert "In 1 replies lmms-eval's rule finds another number than the rating that stands in them." in table.notes
    assert validate(table, resamples=50).judges[0].as_counted.mean == pytest.approx((40 + 0 + 0 + 100 + 60 + 70) / 6)


def test_voicebench_replies_are_runs(tmp_path: Path) -> None:
    asked = {"prompt": "Where?", "reference": "Uruguay", "response": "In Uruguay.", "score": ["Yes", "No", "Maybe"]}
    open_ = {"prompt": "How?", "response": "So.", "score": ["4", "[[5]]", "well"]}
    (tmp_path / "result-qwen2-omni-sd-qa-usa-audio.jsonl").write_text(json.dumps(asked))
    (tmp_path / "result-qwen2-alpacaeval-test-audio.jsonl").write_text(json.dumps(open_))
    (tmp_path / "result-qwen2-mmsu-law-audio.jsonl").write_text(json.dumps({"prompt": "?", "response": "A"}))
    table = read_judged([str(tmp_path)])
    assert {(row.dataset, row.system, row.prompt) for row in table.rows} == {
        ("sd-qa-usa", "qwen2-omni", "qa"),
        ("alpacaeval-test", "qwen2", "open"),
    }
    shown: dict[str, list[tuple[Any, ...]]] = {row.prompt: [] for row in table.rows}
    for row in table.rows:
        shown[row.prompt].append((row.run, row.score, row.unscored, row.counted_as))
    assert shown["qa"] == [(0, 100, None, None), (1, 0, None, None), (2, None, "unreadable", 0)]
    assert shown["open"] == [(0, 80, None, None), (1, 100, None, None), (2, None, "unreadable", None)]
    assert {one.runs for one in validate(table, resamples=50).consistency} == {3}


def test_kimi_replies_are_read_by_their_words(tmp_path: Path) -> None:
    def log(dataset: str, rows: Sequence[dict[str, Any]]) -> None:
        place = tmp_path / "Kimi-Audio" / dataset
        place.mkdir(parents=True)
        lines = [
            {"index": index, "audio_path": f"data/{index // 2}.wav", "prediction": "p", **row} for index, row in enumerate(rows)
        ]
        (place / f"Kimi-Audio_{dataset}_gpt-4o-mini_judge.jsonl").write_text("\n".join(map(json.dumps, lines)))

    replies = ["Same.\nyes", "Other.\nNo", "I cannot say", None, "Failed to obtain answer via API. "]
    log("MELD", [{"question": "?", "answer": "anger", "subset": "MELD", "judge_result": one} for one in replies])
    log("commoneval", [{"audio_content": "?", "subset": "commoneval", "judge_result": one} for one in ("4", "[[2]]", "fine")])
    forms = {
        "alpaca_eval": "[[8]]",
        "reasoning_qa": "[3]",
        "llama_questions": "The score is [Correct]",
        "web": '{"judgment": "incorrect"}',
    }
    log("OpenAudioBench", [{"answer": "x", "subset": name, "judge_result": one} for name, one in forms.items()])
    table = read_judged([str(tmp_path)])
    assert {(row.system, row.judge) for row in table.rows} == {("Kimi-Audio", "gpt-4o-mini")}
    meld = [(row.score, row.unscored, row.counted_as) for row in table.rows if row.dataset == "MELD"]
    # The Evalkit reads the "no" of "cannot"; failed calls and unread replies it leaves out.
    assert meld == [(100, None, None), (0, None, None), (None, "unreadable", 0), (None, "failed", None), (None, "failed", None)]
    assert [row.score for row in table.rows if row.dataset == "commoneval"] == [80, 40, None]
    assert [row.score for row in table.rows if row.dataset.startswith("Open")] == [80, 60, 100, 0]
    assert [row.recording for row in table.rows if row.dataset == "MELD"] == ["0.wav", "0.wav", "1.wav", "1.wav", "2.wav"]


def inspect_samples() -> list[dict[str, Any]]:
    values = ["C", "P", "I", "N", float("nan"), "I"]
    grades = [{"value": one, "answer": "Paris.", "explanation": f"GRADE: {one}"} for one in values]
    grades[5]["explanation"] = "Grade not found in model output: well"
    message = {"role": "user", "content": [{"type": "text", "text": "Capital of France?"}, {"type": "audio", "audio": "a.wav"}]}
    return [
        {
            "id": index,
            "epoch": 1,
            "input": [message],
            "target": ["Paris"],
            "output": {"choices": [{"message": {"role": "assistant", "content": "Paris."}}]},
            "scores": {"model_graded_qa": grade, "share": {"value": 0.5}},
            "role_usage": {"grader": {"total_tokens": 40}},
        }
        for index, grade in enumerate(grades)
    ]


HEADER = {"eval": {"task": "capitals", "model": "openai/x", "model_roles": {"grader": {"model": "openai/g"}}}, "status": "success"}


def test_inspect_logs_are_read_from_json_and_zip_and_zstandard(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "log.json").write_text(json.dumps(HEADER | {"samples": inspect_samples()}))
    plain, packed = tmp_path / "plain.eval", tmp_path / "packed.eval"
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(HEADER))
        for one in inspect_samples():
            archive.writestr(f"samples/{one['id']}_epoch_1.json", json.dumps(one))
    write_zstandard(packed, {"header.json": HEADER} | {f"samples/{one['id']}_epoch_1.json": one for one in inspect_samples()})
    tables = [read_judged([str(one)]) for one in (tmp_path / "json", plain, packed)]
    assert tables[0].rows == tables[1].rows == tables[2].rows
    graded = [row for row in tables[0].rows if row.judge == "model_graded_qa:openai/g"]
    assert [(row.score, row.unscored, row.counted_as) for row in graded] == [
        (100, None, None),
        (50, None, None),
        (0, None, None),
        (None, "refused", 0),
        (None, "unreadable", None),
        (None, "unreadable", 0),
    ]
    assert {(row.question, row.reference, row.system, row.dataset) for row in graded} == {
        ("Capital of France?", "Paris", "openai/x", "capitals")
    }
    assert {row.score for row in tables[0].rows if row.judge == "share"} == {50}
    (tmp_path / "broken.eval").write_bytes(plain.read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.eval: no whole log of inspect .* is the evaluation still running"):
        read_judged([str(tmp_path / "broken.eval")])


def write_zstandard(file: Path, members: dict[str, Any]) -> None:
    """As inspect writes since it packs with Zstandard (method 93), which zipfile of Python 3.11 can name but not write."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, pa.Codec("zstd").compress(json.dumps(content).encode(), asbytes=True))
        places = [(one.header_offset, one.filename) for one in archive.infolist()]
        start = archive.start_dir
    content = bytearray(file.read_bytes())
    for offset, _ in places:
        content[offset + 8 : offset + 10] = (93).to_bytes(2, "little")
    for _, name in places:
        at = content.index(name.encode(), start) - 46
        content[at + 10 : at + 12] = (93).to_bytes(2, "little")
    file.write_bytes(bytes(content))


def test_a_run_of_ours_is_read_with_its_answers(tmp_path: Path) -> None:
    pairs = [
        QAPair(
            clip_id=f"c{index}",
            recording_id=f"r{index}",
            source="benchmark",
            generator="x@1",
            kind="DE",
            question="How?",
            answer="Sad.",
            label="sad",
            label_attribute="emotion",
        )
        for index in range(4)
    ]
    answers = [Answer(subject="S10", pair_id=one.id, text="She is sad.", raw="") for one in pairs]
    verdicts = [Verdict(judge="reference", subject="S10", pair_id=one.id, score=100.0, mapped_label="sad") for one in pairs[:3]]
    verdicts.append(Verdict(judge="reference", subject="S10", pair_id=pairs[3].id, unscored="refused"))

    def stored(name: str, rows: Sequence[Record], record: type[Record]) -> None:
        made = Fingerprint(stage=name, version="1", seed=1, config={}, inputs={})
        write_rows(tmp_path / "evaluate" / name, rows, record=record, fingerprint=made, parts=1, redo=False)

    stored("benchmark", pairs, QAPair)
    stored("answers/S10", answers, Answer)
    with pytest.raises(DataError, match="no finished evaluate/verdicts in it; undertone evaluate"):
        read_judged([str(tmp_path)], format="undertone")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match="no finished evaluate/verdicts in it; undertone evaluate"):
        read_judged([str(tmp_path)])
    stored("verdicts", verdicts, Verdict)
    (tmp_path / "evaluate" / "answers" / "unfinished").mkdir()
    table = read_judged([str(tmp_path)])
    assert (table.format, len(table.rows)) == ("undertone", 4)
    assert any("The reference judge scores labelled questions by the very classes" in note for note in table.notes)
    assert {(row.answer, row.dataset, row.recording[0]) for row in table.rows} == {("She is sad.", "DE", "r")}
    (one,) = validate(table, resamples=50).calibration
    assert (one.n, one.bins[0].correct.mean) == (3, 1)
    second = [Verdict(judge="llm:m", subject="S10", pair_id=one.id, score=80.0, mapped_label="sad") for one in pairs]
    stored("verdicts-2", second, Verdict)
    cards = [
        {"name": name, "kind": kind, "runs": 1, "settings": {}} for name, kind in (("reference", "reference"), ("llm:m", "llm"))
    ]
    (tmp_path / "evaluate" / "judges.json").write_text(json.dumps(cards))
    both = read_judged([str(tmp_path)])
    assert Counter(row.judge for row in both.rows) == {"reference": 4, "llm:m": 4}
    (found,) = validate(both, resamples=50).agreement
    assert (found.kind, {found.first, found.second}, found.n) == ("judges", {"reference", "llm:m"}, 3)


# ---- tables of one's own, and errors -------------------------------------------------------------------------------------------


def test_a_table_of_ones_own_is_read_from_csv_jsonl_and_parquet_alike(tmp_path: Path) -> None:
    rows = [
        {
            "item": "a",
            "system": "s",
            "score": 4,
            "label": "sad",
            "attribute": "emotion",
            "answer": "Sadly sad.",
            "run": 1,
            "note": "x",
        },
        {
            "item": "b",
            "system": "s",
            "score": None,
            "label": "sad",
            "attribute": "emotion",
            "answer": "Glad.",
            "run": 0,
            "note": "x",
        },
    ]
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    found = [read_judged([str(tmp_path / f"mine.{ending}")], scale=Scale(score=20)) for ending in ("csv", "jsonl", "parquet")]
    assert found[0].rows == found[1].rows == found[2].rows
    assert [(row.score, row.unscored, row.run) for row in found[0].rows] == [(80, None, 1), (None, "failed", 0)]
    assert "Columns that are not read: note." in found[0].notes
    unscaled = read_judged([str(tmp_path / "mine.csv")])
    assert "No score is above 4: if these are grades, give their points (--points 20 for 0-5)." in unscaled.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item,score\na,high\n", r"row 1: score: got 'high', expected a number"),
        ("item,score\na,180\n", r"row 1: score: got 180\.0, Input should be less than or equal to 100"),
        ("item,score,correct\na,1,perhaps\n", r"row 1: correct: got 'perhaps', expected 1 or 0"),
        ("item,score\na,1,2\n", r"row 1 has not as many cells as the header"),
        ("item,grade\na,1\n", r"no column 'score', there are item, grade; expected item and score at least"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_judged([str(tmp_path / "t.csv")], format="csv")


def test_what_is_no_result_is_told_with_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format: got 'helm', expected one of auto, audiobench"):
        read_judged(["x"], format="helm")
    with pytest.raises(DataError, match="nothing lies there"):
        read_judged([str(tmp_path / "gone")])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"none of its 1 files is a result that can be read\. Expected audiobench: DATASET_JUDGE_score\.json"
    ):
        read_judged([str(tmp_path)])
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x_y_judge_score.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="no log of AudioBench: expected a judge's"):
        read_judged([str(tmp_path)])
    (tmp_path / "t.csv").write_text("item,score\na,1\n")
    with pytest.raises(ConfigError, match=r"results of audiobench \(1 files\), csv \(1 files\); choose one by --format"):
        read_judged([str(tmp_path)])
    assert len(read_judged([str(tmp_path)], format="csv").rows) == 1


# ---- real logs -----------------------------------------------------------------------------------------------------------------


def test_the_real_logs_of_audiobench(shared_data: Path) -> None:
    folder = shared_data / "audiobench-logs"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the logs of AudioBench are not on this machine")
    table = read_judged([str(folder)])
    assert (len(table.rows), len(table.headers)) == (5090, 256)
    unread = [row for row in table.rows if row.unscored]
    assert len(unread) == 11
    assert all(row.counted_as == 0 and row.reread for row in unread)
    rubric = {
        one.system: one.prompt for one in table.headers if (one.dataset, one.judge) == ("voxceleb_accent_test", "llama3_70b_judge")
    }
    assert len(rubric) == 9
    assert list(rubric.values()).count("graded 0-5") == 6
    said = " ".join(table.notes)
    assert (
        "iemocap_emotion_test: the header of gpt4o_judge on Qwen2-Audio-7B-Instruct is over a number of rows divisible by 150"
        in said
    )


@pytest.mark.slow
def test_the_judges_of_the_real_logs(shared_data: Path) -> None:
    folder = shared_data / "audiobench-logs"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the logs of AudioBench are not on this machine")
    found = validate(read_judged([str(folder)]), resamples=20)
    curve = {(one.judge, one.dataset): one for one in found.calibration}["llama3_70b_judge", ALL]
    assert curve.rises == "yes"
    assert curve.auc.mean is not None
    assert curve.auc.mean > 0.85
    assert {one.dataset for one in found.ranks} == {
        "cn_college_listen_mcq_test",
        "iemocap_emotion_test",
        "imda_gr_dialogue",
        "mmau_mini",
    }
