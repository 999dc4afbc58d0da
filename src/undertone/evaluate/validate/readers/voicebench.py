"""VoiceBench: result-MODEL-DATA-SPLIT-MODALITY.jsonl, as api_judge.py writes it.

    {"prompt": "Where was the first world cup?", "reference": "Uruguay", "response": "In Uruguay.", "score": ["Yes", "Yes", "Yes"]}
    {"prompt": "How do I make tea?", "response": "Boil water ...", "score": ["4", "5", "4"]}

All rows are there; three replies of gpt-4o-mini to each are three runs. Rows with a reference are judged Yes or No, and the
majority counts: any other reply counts as No. Open questions are graded 1 to 5, taken times 20 here (so 20 is the least); a reply
without a number stops VoiceBench's own evaluation. Sets of choices and instructions (mmsu, openbookqa, ifeval, bbh, advbench) are
scored without a judge, an unreadable choice by drawing one, and leave no scores in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from undertone.errors import DataError
from undertone.evaluate.validate.readers.files import first_row, json_lines
from undertone.evaluate.validate.rows import Judged, JudgedTable
from undertone.paths import Location

NAME = "voicebench"
LIKE = "result-MODEL-DATA-SPLIT-MODALITY.jsonl"

_SETS = "alpacaeval_full|alpacaeval|commoneval|wildvoice|sd-qa|openbookqa|mmsu|ifeval|bbh|advbench|mtbench"
_KNOWN = re.compile(rf"^result-(?P<model>.+)-(?P<data>{_SETS})-(?P<split>[^-]+)-(?P<modality>audio|text|ttft)$")
_OTHER = re.compile(r"^result-(?P<model>.+)-(?P<data>[^-]+)-(?P<split>[^-]+)-(?P<modality>audio|text|ttft)$")
_JUDGE = "gpt-4o-mini"
_BOXED = re.compile(r"\[\[(\d+)\]\]")


def mine(file: Location) -> bool:
    """Whether a file is such a result, by its name or its first row."""
    if file.suffix != ".jsonl":
        return False
    return file.name.startswith("result-") or {"prompt", "response", "score"} <= first_row(file).keys()


def read(files: Sequence[Location], source: str) -> JudgedTable:
    """All judged rows.

    Raises:
        DataError: No row of any file has a score.
    """
    rows: list[Judged] = []
    skipped: list[str] = []
    for file in files:
        named = _KNOWN.match(file.stem) or _OTHER.match(file.stem)
        system = named["model"] if named else file.stem
        dataset = f"{named['data']}-{named['split']}" if named else file.stem
        made = [
            row for number, given in json_lines(file) for row in _rows(given, dataset, system, number, f"{file}: line {number}")
        ]
        rows += made
        if not made:
            skipped.append(file.name)
    if not rows:
        raise DataError(f"{source}: no row with a score; run VoiceBench's api_judge.py first: {', '.join(skipped)}")
    notes = [
        "VoiceBench names no recordings: each row counts as one of its own. Its judge is gpt-4o-mini unless its code was changed.",
        "Open questions have no reference; their score says nothing about right and wrong.",
    ]
    if skipped:
        notes.append(f"Without a judge's scores, left out: {', '.join(sorted(skipped))}.")
    return JudgedTable(source=source, format=NAME, rows=rows, notes=notes)


def _rows(given: dict[str, Any], dataset: str, system: str, number: int, where: str) -> Iterator[Judged]:
    replies = given.get("score")
    if replies is None:
        return
    missing = [key for key in ("prompt", "response") if key not in given]
    if missing or not isinstance(replies, list):
        raise DataError(f"{where}: expected prompt, response and a list of scores, got {', '.join(given)}")
    asked = given.get("reference") is not None
    for run, reply in enumerate(replies):
        raw = str(reply)
        score = _yes_or_no(raw) if asked else _grade(raw)
        yield Judged(
            dataset=dataset,
            item=f"{number:06d}",
            system=system,
            judge=_JUDGE,
            prompt="qa" if asked else "open",
            run=run,
            question=str(given["prompt"]),
            reference=str(given.get("reference") or ""),
            answer=str(given["response"]),
            score=score,
            unscored=None if score is not None else "unreadable" if raw.strip() else "failed",
            counted_as=0.0 if score is None and asked else None,
            raw=raw,
        )


def _yes_or_no(raw: str) -> float | None:
    return {"yes": 100.0, "no": 0.0}.get(raw.strip().strip(".").lower())


def _grade(raw: str) -> float | None:
    boxed = _BOXED.search(raw)
    try:
        grade = float(boxed[1] if boxed else raw)
    except ValueError:
        return None
    return 20 * grade if 1 <= grade <= 5 else None
