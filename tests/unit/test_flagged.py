"""Questions that carry flags are reported apart: in the study table, its text, the summary of a benchmark, and the page."""

from __future__ import annotations

from typing import Any

import pytest

from undertone.evaluate import study_table
from undertone.evaluate.benchmark import describe
from undertone.evaluate.study_table import StudyTable, verdict_sentences
from undertone.records import QAPair, Verdict
from undertone.report.scores import study_view

LEAK = "metadata_leak"


def pair(number: int, *flags: str, kind: str = "CE") -> QAPair:
    made: dict[str, Any] = {"clip_id": f"c{number}", "recording_id": f"r{number}", "source": "benchmark", "generator": "x@1"}
    return QAPair(**made, kind=kind, question="How?", answer="Sad.", label_attribute="emotion", label="sad", flags=flags)


PAIRS = [pair(number, LEAK, kind="DE") for number in range(20)] + [pair(number) for number in range(20, 40)]


def study(pairs: list[QAPair], *subjects: str) -> StudyTable:
    """S32 copies the injected labels: right on every flagged question, else wrong; S30 is right on every second of all."""

    def score(subject: str, number: int, one: QAPair) -> float:
        return 100.0 * (bool(one.flags) if subject == "S32" else number % 2)

    verdicts = [
        Verdict(judge="j", subject=subject, pair_id=one.id, score=score(subject, number, one))
        for subject in subjects
        for number, one in enumerate(pairs)
    ]
    return study_table.build(verdicts, pairs, resamples=200, seed=1)


def test_scores_and_comparisons_stand_a_second_time_without_flagged_questions() -> None:
    table = study(PAIRS, "S30", "S32")
    assert (table.pairs, table.flagged, table.flags) == (40, 20, {LEAK: 20})
    row = table.row("S32")
    assert row is not None
    assert row.unflagged is not None
    assert (row.overall.score.mean, row.unflagged.score.mean, row.unflagged.pairs) == (50.0, 0.0, 20)
    (contrast,) = table.contrasts
    assert contrast.unflagged is not None
    assert (contrast.difference.mean, contrast.unflagged.mean) == (0.0, -50.0)
    assert contrast.unflagged.clusters == 20
    said = verdict_sentences(table)
    assert said[0].startswith("Between S32 and S30 no difference can be told")
    assert said[1] == "20 of 40 questions are flagged (metadata_leak 20); this is what is left without them."
    assert said[2].startswith("Without flagged questions: S32 is below S30 by 50.0 points")
    assert StudyTable.from_json(table.to_json()) == table


def test_the_text_has_a_column_of_its_own_only_where_something_is_flagged() -> None:
    text = study(PAIRS, "S30", "S32").plain_text(width=100)
    assert "Flagged: 20 questions (metadata_leak 20)" in text
    assert "unflagged" in text.split("Scores, 0-100")[1].splitlines()[2]
    assert all(len(line) <= 100 for line in text.splitlines())
    clean = study(PAIRS[20:], "S30", "S32")
    assert "flagged" not in clean.plain_text()
    assert clean.rows[0].unflagged is None


def test_all_questions_may_be_flagged() -> None:
    table = study(PAIRS[:20], "S30", "S32")
    row = table.rows[0]
    assert row.unflagged is not None
    assert (row.unflagged.pairs, row.unflagged.score.mean) == (0, None)
    assert "Without flagged questions: S32 and S30 cannot be compared" in table.plain_text().replace("\n", " ")


def test_a_table_of_an_older_run_still_loads() -> None:
    old = study(PAIRS[20:], "S30", "S32").model_dump(
        mode="json", exclude={"flagged": True, "flags": True, "rows": {"__all__": {"unflagged"}}}
    )
    assert StudyTable.model_validate(old).flagged == 0


def test_the_page_shows_them_behind_the_scores() -> None:
    view = study_view(study(PAIRS, "S30", "S32"))
    assert "20 questions flagged (metadata leak 20)" in view.basis
    column = view.behind.columns.index("without flagged questions")
    assert {row.name: row.cells[column] for row in view.behind.rows}["S32"] == "0.0 (0.0–0.0) of 20"
    clean = study_view(study(PAIRS[20:], "S30", "S32"))
    assert "without flagged questions" not in clean.behind.columns
    assert all(len(row.cells) == len(clean.behind.columns) for row in clean.behind.rows)


@pytest.mark.parametrize(("kind", "flags"), [("DE", {LEAK: 20}), ("CE", {})])
def test_a_benchmark_counts_its_flags(kind: str, flags: dict[str, int]) -> None:
    assert describe(PAIRS)[kind].flags == flags
