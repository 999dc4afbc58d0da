r"""lmms-eval with --log_samples: MODEL/TIME_samples_TASK.jsonl.

    {"doc_id": 0, "target": "To make sushi at home ...", "filtered_resps": "Sushi is made of ...", "doc_hash": "9b1c...",
     "input": "\nPlease ...",
     "gpt_eval": {"eval_answer": "Explanation: The reference answer is ...\nRating: 3", "model_name": "gpt-4o-2024-11-20"}}

All rows are there. `eval_answer` is "" where the judge's call failed in all attempts; the tasks alpaca_audio, openhermes and
clotho_aqa count that as 0, and take the first digit from 0 to 5 anywhere in a reply for the grade, so that "2 of 3 facts ...
Rating: 4" counts as 2. wavcaps takes a rating at the end of the reply only. air_bench_chat asks twice, with the answers swapped.
The tasks of voicebench keep no reply: an `llm_as_judge_eval` of 0 is a failure (its scale starts at 1), a `gpt4_score` of 0 may
be one or a "No".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from undertone.errors import DataError
from undertone.evaluate.validate.readers.files import json_lines, text_of
from undertone.evaluate.validate.rows import Judged, JudgedTable, Reason
from undertone.paths import Location

NAME = "lmms-eval"
LIKE = "TIME_samples_TASK.jsonl in a folder of each model"

_FILE = re.compile(r"^(?P<time>.*?)_?samples_(?P<task>.+)\.jsonl$")
_RATING = re.compile(r"rating\W{0,6}?([0-5])(?![\d./])", re.IGNORECASE)
_JUDGED = ("gpt_eval", "llm_as_judge_eval", "gpt4_score")
_AT_END = re.compile(r"Rating:\s*([0-5])\s*$")
_NUMBERS = re.compile(r"\b(?:[1-9]|10)\b")


def mine(file: Location) -> bool:
    """Whether a file is such a log, by its name."""
    return _FILE.match(file.name) is not None


def read(files: Sequence[Location], source: str) -> JudgedTable:
    """All samples that a judge scored.

    Raises:
        DataError: No sample of any file was scored by a judge.
    """
    rows: list[Judged] = []
    skipped: dict[str, str] = {}
    for file in files:
        named = _FILE.match(file.name)
        task = named["task"] if named else file.stem
        made = [
            row for number, sample in json_lines(file) for row in _rows(sample, task, file.parent.name, f"{file}: line {number}")
        ]
        rows += made
        if not made:
            skipped[file.name] = ", ".join(next((sample for _, sample in json_lines(file)), {}))
    if not rows:
        told = "; ".join(f"{name} has {keys or 'no rows'}" for name, keys in skipped.items())
        raise DataError(f"{source}: no sample with a judge's {', '.join(_JUDGED)}: {told}")
    notes = ["lmms-eval names no recordings: each document counts as one of its own."]
    other = [row for row in rows if row.score is not None and row.counted_as is not None]
    if other:
        notes.append(f"In {len(other)} replies lmms-eval's rule finds another number than the rating that stands in them.")
    if any(row.prompt == "gpt4_score" for row in rows):
        notes.append("gpt4_score: a failed call counts as 0 and cannot be told from a No.")
    if skipped:
        notes.append(f"Not by a judge, left out: {', '.join(sorted(skipped))}.")
    return JudgedTable(source=source, format=NAME, rows=rows, notes=notes)


def _rows(sample: dict[str, Any], task: str, system: str, where: str) -> Iterator[Judged]:
    if "doc_id" not in sample:
        raise DataError(f"{where}: no doc_id; expected a sample of lmms-eval")
    common: dict[str, Any] = {
        "dataset": task,
        "item": str(sample["doc_id"]),
        "system": system,
        "question": text_of(sample.get("input")),
        "reference": text_of(sample.get("target")),
        "answer": text_of(sample.get("filtered_resps", sample.get("resps"))),
    }
    found = sample.get("gpt_eval")
    if isinstance(found, dict) and "eval_answer" in found:
        common |= {"judge": str(found.get("model_name") or "gpt_eval"), "prompt": "gpt_eval"}
        replies = found["eval_answer"]
        if isinstance(replies, list):
            yield from (_swapped(str(raw or ""), run, common) for run, raw in enumerate(replies[:2]))
        else:
            yield _graded(str(replies or ""), task, common)
    for key, points in (("llm_as_judge_eval", 20.0), ("gpt4_score", 100.0)):
        if isinstance(sample.get(key), (int, float)):
            score = float(sample[key]) * points
            failed = key == "llm_as_judge_eval" and score == 0
            yield Judged(
                **common | {"judge": key, "prompt": key},
                score=None if failed else score,
                unscored="unreadable" if failed else None,
                counted_as=0.0 if failed else None,
            )


def _graded(raw: str, task: str, common: dict[str, Any]) -> Judged:
    ratings = {float(one) for one in _RATING.findall(raw)} or ({float(raw)} if re.fullmatch(r"\s*[0-5]\s*", raw) else set())
    by_suite = _AT_END.search(raw) if task.startswith(("wavcaps", "song_describer")) else re.search(r"[0-5]", raw)
    counted = 20 * float(by_suite[0][-1] if by_suite[0].isdigit() else by_suite[1]) if by_suite else 0.0
    if len(ratings) == 1:
        score = 20 * ratings.pop()
        return Judged(**common, score=score, counted_as=None if counted == score else counted, raw=raw)
    reason: Reason = "unreadable" if raw.strip() else "failed"
    return Judged(**common, unscored=reason, counted_as=counted, raw=raw or None)


def _swapped(raw: str, run: int, common: dict[str, Any]) -> Judged:
    """One of the two orders of air_bench_chat: the reference's score and the answer's, then the other way round; each 1 to 10."""
    numbers = _NUMBERS.findall(raw.strip().replace(".", ""))
    if len(numbers) >= 2:
        return Judged(**common, run=run, score=10 * float(numbers[1 - run]), raw=raw)
    # Its sum goes on without the row, its divisor does not.
    return Judged(**common, run=run, unscored="unreadable" if raw.strip() else "failed", counted_as=0.0, raw=raw or None)
