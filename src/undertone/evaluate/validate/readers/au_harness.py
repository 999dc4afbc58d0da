"""AU-Harness: run_logs/TIME/TASK/TASK_METRIC_MODEL.csv.

    "instruction","reference","candidate","score","explanation","response_code",...,"is_final_score"
    "What emotion is it?","anger","The speaker is angry.","1.0","The reference answer is anger, while ...","200",...,"False"

All rows are there. A failed call of the judge is written as score 0.0 with an empty explanation and counts as 0 (in
llm_judge_callhome as 10 of 100); a reply that is no JSON object is the same, so the two cannot be told apart.
llm_judge_big_bench_audio leaves the score empty and does not count it. mt_bench_llm_judge writes 0.0 for both and no explanation
at all: there a failure cannot be told from the worst grade. Which model judged, and at which temperature, stands in none of the
files.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from undertone.errors import DataError
from undertone.evaluate.validate.readers.files import csv_rows, first_row
from undertone.evaluate.validate.rows import Judged, JudgedTable
from undertone.paths import Location

NAME = "au-harness"
LIKE = "TASK_METRIC_MODEL.csv in run_logs/TIME/TASK"

_SCALES = {
    "llm_judge_big_bench_audio": (100.0, 0.0),
    "llm_judge_binary": (100.0, 0.0),
    "llm_judge_callhome": (10.0, 10.0),
    "llm_judge_detailed": (20.0, 0.0),
    "llm_judge_redteaming": (100.0, 0.0),
    "mt_bench_llm_judge": (1.0, 0.0),
}
"""Metric to the points of one grade, and to those of grade 0."""

_WITHOUT_REASON = ("llm_judge_big_bench_audio", "mt_bench_llm_judge")


def mine(file: Location) -> bool:
    """Whether a file has the columns of a record log."""
    return file.suffix == ".csv" and {"candidate", "score", "explanation", "is_final_score"} <= first_row(file).keys()


def read(files: Sequence[Location], source: str) -> JudgedTable:
    """All record logs of judges; those of other metrics (WER, BLEU) are named in the notes.

    Raises:
        DataError: A score is no number, or no log is of a judge.
    """
    rows: list[Judged] = []
    skipped: list[str] = []
    metrics: set[str] = set()
    for file in files:
        task = file.parent.name
        rest = file.stem.removeprefix(f"{task}_")
        metric = next((one for one in _SCALES if rest.startswith(f"{one}_")), None)
        if metric is None:
            skipped.append(file.name)
            continue
        metrics.add(metric)
        system = rest.removeprefix(f"{metric}_")
        for number, cells in csv_rows(file):
            if cells.get("is_final_score") != "True":
                rows.append(_row(cells, metric, task, system, number, f"{file}: row {number}"))
    if not rows:
        raise DataError(
            f"{source}: no log of a judge; expected one of {', '.join(sorted(_SCALES))} in a file's name, got {', '.join(skipped)}"
        )
    notes = [
        "AU-Harness does not write which model judged: judges are named by their metric. It names no recordings either.",
        "A score of 0 without an explanation is a call that failed or a reply that was no JSON, which AU-Harness counts as 0.",
    ]
    if "mt_bench_llm_judge" in metrics:
        notes.append("mt_bench_llm_judge: a failed call cannot be told from the worst grade.")
    if skipped:
        notes.append(f"Not by a judge, left out: {', '.join(sorted(skipped))}.")
    return JudgedTable(source=source, format=NAME, rows=rows, notes=notes)


def _row(cells: dict[str, str], metric: str, task: str, system: str, number: int, where: str) -> Judged:
    points, least = _SCALES[metric]
    grade = _grade(cells["score"], where)
    failed = grade is None or (grade == 0 and not cells["explanation"].strip() and metric not in _WITHOUT_REASON)
    score = None if grade is None else grade * points + least
    if score is not None and not 0 <= score <= 100:
        failed, score = True, min(100.0, max(0.0, score))
    return Judged(
        dataset=task,
        item=f"{number:06d}",
        system=system,
        judge=metric,
        question=cells.get("instruction", ""),
        reference=cells.get("reference", ""),
        answer=cells["candidate"],
        score=None if failed else score,
        unscored="unreadable" if failed else None,
        counted_as=score if failed else None,
        raw=cells["explanation"] or None,
    )


def _grade(cell: str, where: str) -> float | None:
    """A number, or the overall of a dialogue's grades ({"turn1": 7.0, "overall": 70.0}); None for an empty cell."""
    if not cell.strip():
        return None
    try:
        found: Any = ast.literal_eval(cell.strip())
        return float(found["overall"] if isinstance(found, dict) else found)
    except (ValueError, SyntaxError, KeyError, TypeError):
        raise DataError(f"{where}: score: got {cell!r}, expected a number") from None
