r"""Kimi-Audio-Evalkit: eval_result/MODEL/DATASET/MODEL_DATASET_JUDGE_judge.jsonl.

    {"index": 3, "audio_path": "data/MELD/3.wav", "question": "What is the emotion? A. anger B. joy", "answer": "anger", "subset": "emotion",
     "prediction": "The speaker is angry.", "real_prompt": "...", "judge_result": "Both mean the same.\nyes"}

All rows are there. Most sets are judged by "yes" or "no" in the last line of the reply, where the Evalkit looks for the letters
only: a "no" inside "cannot" counts as No. Replies that it cannot read, and calls that failed, it leaves out of the mean. Open
questions are graded 1 to 5, and OpenAudioBench has four forms of its own. With method vb-mcq an unreadable choice is answered by
a random one, which cannot be told in the file. For open questions the Evalkit writes the rows of the last subset only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from undertone.errors import DataError
from undertone.evaluate.validate.readers.files import json_lines
from undertone.evaluate.validate.rows import Judged, JudgedTable
from undertone.paths import Location

NAME = "kimi"
LIKE = "MODEL_DATASET_JUDGE_judge.jsonl in MODEL/DATASET"

_ENDING = "_judge"
_FAILED = "failed to obtain answer via api"
_WORDS = re.compile(r"\b(yes|no)\b")
_FORMS = {
    "alpaca_eval": (re.compile(r"\[\[(\d+)\]\]"), 10.0),
    "reasoning_qa": (re.compile(r"\[([0-5])\]"), 20.0),
}
"""Subsets of OpenAudioBench with grades, and the points of one."""

_CORRECT = re.compile(r"score is \[(correct|incorrect)\]", re.IGNORECASE)


def mine(file: Location) -> bool:
    """Whether a file is such a log, by its name."""
    return file.name.endswith(f"{_ENDING}.jsonl")


def read(files: Sequence[Location], source: str) -> JudgedTable:
    """All judged rows.

    Raises:
        DataError: A row has no reply of a judge.
    """
    rows: list[Judged] = []
    for file in files:
        dataset, system = file.parent.name, file.parent.parent.name
        judge = file.stem.removesuffix(_ENDING).removeprefix(f"{system}_{dataset}").strip("_") or "judge"
        for number, given in json_lines(file):
            missing = [key for key in ("prediction", "judge_result") if key not in given]
            if missing:
                raise DataError(f"{file}: line {number}: lacks {', '.join(missing)}")
            rows.append(_row(given, dataset, system, judge, number))
    notes = ["Replies that the Evalkit cannot read, and failed calls, it leaves out of its mean, as is done here."]
    if any(row.judge == "vb-mcq" for row in rows):
        notes.append("vb-mcq: an unreadable choice is answered by a random one, which the file does not show: scores hold luck.")
    if any(row.prompt == "open" for row in rows):
        notes.append("Open questions: the Evalkit writes the rows of one subset only, the last.")
    other = sum(row.score is not None and row.counted_as is not None for row in rows)
    if other:
        notes.append(f"In {other} replies the Evalkit's rule reads another verdict than the word that stands in the last line.")
    return JudgedTable(source=source, format=NAME, rows=rows, notes=notes)


def _row(given: dict[str, Any], dataset: str, system: str, judge: str, number: int) -> Judged:
    raw = str(given["judge_result"] or "")
    subset = str(given.get("subset") or "")
    form, score, counted = _read(raw, dataset, subset, asked=given.get("answer") not in (None, ""))
    failed = not raw.strip() or raw.strip().lower().startswith(_FAILED)
    audio = given.get("audio_path")
    return Judged(
        dataset=f"{dataset}-{subset}" if subset and subset != dataset else dataset,
        item=str(given.get("index", number)),
        recording=str(audio[0] if isinstance(audio, list) and audio else audio or "").replace("\\", "/").rsplit("/", 1)[-1],
        system=system,
        judge=judge,
        prompt=form,
        question=str(given.get("question") or given.get("audio_content") or ""),
        reference=str(given.get("answer") or ""),
        answer=str(given["prediction"]),
        score=None if failed else score,
        unscored="failed" if failed else "unreadable" if score is None else None,
        counted_as=None if failed or counted == score else counted,
        raw=raw or None,
    )


def _read(raw: str, dataset: str, subset: str, *, asked: bool) -> tuple[str, float | None, float | None]:
    """The form of the verdict, its score, and what the Evalkit counts (None where it leaves the row out)."""
    if dataset == "OpenAudioBench" and subset in _FORMS:
        pattern, points = _FORMS[subset]
        found = pattern.findall(raw)
        score = points * float(found[0 if subset == "alpaca_eval" else -1]) if found else None
        return subset, None if score is None or score > 100 else score, score
    if dataset == "OpenAudioBench":
        said = _CORRECT.search(raw)
        verdict = said[1].lower() if said else _judgment(raw)
        score = {"correct": 100.0, "incorrect": 0.0}.get(verdict)
        return "correct or not", score, score
    if not asked:
        boxed = re.search(r"\[\[(\d+)\]\]", raw)
        text = boxed[1] if boxed else raw.strip()
        grade = float(text) if re.fullmatch(r"\d+(?:\.\d+)?", text) else None
        score = None if grade is None or not 1 <= grade <= 5 else 20 * grade
        return "open", score, score
    last = raw.strip().split("\n")[-1].strip().lower()
    words = set(_WORDS.findall(last))
    counted = 100.0 if "yes" in last else 0.0 if "no" in last else None
    return "yes or no", ({"yes": 100.0, "no": 0.0}[words.pop()] if len(words) == 1 else None), counted


def _judgment(raw: str) -> str:
    """Of {"analysis": ..., "judgment": "correct"} somewhere in a reply; "" where there is none."""
    found = re.search(r"\{.*?\}", raw, re.DOTALL)
    try:
        made = json.loads(found[0]) if found else {}
    except json.JSONDecodeError:
        return ""
    return str(made.get("judgment", "")).lower() if isinstance(made, dict) else ""
