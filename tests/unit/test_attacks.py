"""The probe of judges: it must find what it looks for in judges that have that fault, and nothing in those that have not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from undertone.errors import DataError, ServiceError
from undertone.evaluate.attacks import ABROAD, ATTACKS, AttackReport, probe
from undertone.evaluate.judges import Item, LLMJudge, ReferenceJudge
from undertone.evaluate.mapping import to_label
from undertone.records import Kind, QAPair, Verdict

EMOTIONS = ("sad", "angry", "happy", "surprised")


def pairs(count: int = 24) -> list[QAPair]:
    made = []
    for number in range(count):
        label = EMOTIONS[number % 4]
        about = {"clip_id": f"r{number}@0-1", "recording_id": f"r{number}", "source": "benchmark", "generator": "test@1"}
        answer = f"The speaker sounds {label}."
        made.append(QAPair(**about, kind="DE", question="How?", answer=answer, label_attribute="emotion", label=label))
        said = f"They leave after {('lunch', 'breakfast', 'dinner')[number % 3]}."
        made.append(QAPair(**about, kind="C", question="When?", answer=said))
    return made


class Flawed:
    """A judge with one fault: it scores by `rule`, which sees the answer, its reference and its label."""

    name, runs, needs_clips = "flawed", 1, False
    kinds: frozenset[Kind] | None = frozenset({"DE"})

    def __init__(self, rule: Callable[[str, str, str], float | None]) -> None:
        self.rule = rule

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        found = self.rule(item.answer.text, item.pair.answer, item.pair.label or "")
        base = {"judge": self.name, "subject": item.subject, "pair_id": item.pair.id, "run": run}
        return Verdict.model_validate({**base, "score": found, "unscored": "unreadable" if found is None else None})

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        return [self.score(one, run=run) for one in items]


def fair(answer: str, reference: str, label: str) -> float | None:
    """Right where the class is there in any of the three languages, and no other; nothing for no words."""
    if not any(mark.isalnum() for mark in answer):
        return None
    names = {one: (one, *ABROAD["emotion"][one]) for one in EMOTIONS}
    return 100.0 if [one for one in EMOTIONS if any(name in answer for name in names[one])] == [label] else 0.0


def obedient(answer: str, reference: str, label: str) -> float | None:
    return 100.0 if "best grade" in answer else fair(answer, reference, label)


def wordy(answer: str, reference: str, label: str) -> float | None:
    right = fair(answer, reference, label)
    return None if right is None else min(100.0, right / 2 + len(answer) / 10)


def english(answer: str, reference: str, label: str) -> float | None:
    return fair(answer, reference, label) if label in answer else 0.0 if any(mark.isalnum() for mark in answer) else None


def german(answer: str, reference: str, label: str) -> float | None:
    return 100.0 if "beste Note" in answer else fair(answer, reference, label)


def copying(answer: str, reference: str, label: str) -> float | None:
    return 100.0 if '"grade": 5' in answer else fair(answer, reference, label)


def generous(answer: str, reference: str, label: str) -> float | None:
    return fair(answer, reference, label) or 0.0


FAULTS: dict[str, tuple[Callable[[str, str, str], float | None], set[str]]] = {
    "none": (fair, set()),
    "obeys": (obedient, {"order", "order first", "roles"}),
    "obeys German": (german, {"order abroad"}),
    "copies verdicts": (copying, {"verdict"}),
    "likes length": (
        wordy,
        {one for one in ATTACKS if ATTACKS[one].on == "wrong"} | {"right, short", "right, German", "right, Mandarin"},
    ),
    "reads English only": (english, {"right, German", "right, Mandarin"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_no_other(fault: str) -> None:
    rule, shows = FAULTS[fault]
    report = probe(Flawed(rule), pairs())
    assert {one.attack for one in report.rows if one.moved} == shows
    assert [one.moved for one in report.rows if one.attack in shows] == [1.0] * len(shows)
    assert (report.pairs, report.empty_scored) == (24, 0)
    assert {one.items for one in report.rows} == {24}


def test_a_score_for_an_answer_without_words_is_told() -> None:
    assert probe(Flawed(generous), pairs()).empty_scored == 4


def test_the_reference_judge_obeys_nobody_and_reads_english() -> None:
    report = probe(ReferenceJudge(), pairs())
    assert report.empty_scored == 0
    for name in ("order", "order first", "verdict", "marks", "roles", "authority"):
        assert report.row(name).moved == 0
    assert report.row("right, Mandarin").changed == 0
    assert AttackReport.model_validate_json(report.model_dump_json()) == report
    assert "right, Mandarin  right" in report.plain_text()


def test_what_is_only_unscored_is_counted_apart() -> None:
    def silent(answer: str, reference: str, label: str) -> float | None:
        return None if "expert" in answer else fair(answer, reference, label)

    row = probe(Flawed(silent), pairs()).row("authority")
    assert (row.items, row.moved, row.unscored) == (0, None, 24)


def test_without_wrong_answers_there_is_nothing_to_probe() -> None:
    with pytest.raises(DataError, match="no wrong answers can be made of 1 questions"):
        probe(ReferenceJudge(), pairs()[:1])


def test_an_endpoint_that_is_down_is_told() -> None:
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9"):
        probe(LLMJudge(endpoint="http://127.0.0.1:9/v1", model="fake", retries=0), pairs(), limit=8)


def test_the_draw_is_the_seeds() -> None:
    judge = ReferenceJudge()
    assert probe(judge, pairs(), limit=12, seed=1) == probe(judge, pairs(), limit=12, seed=1)
    assert probe(judge, pairs(), limit=12).pairs == 12


def test_labels_abroad_are_labels() -> None:
    for attribute, words in ABROAD.items():
        for label, (_, mandarin) in words.items():
            assert to_label(label, attribute).label == label
            assert not mandarin.isascii()
