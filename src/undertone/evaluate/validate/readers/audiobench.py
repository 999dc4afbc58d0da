r"""AudioBench: log/MODEL/DATASET_JUDGE_score.json.

    {"gpt4o_judge": {"judge_score": 37.45019920318725, "success_rate": 1.0},
     "details": [{"question": "What emotional cues can you pick up from the speaker's speech (frustration, anger, ..., sad)?",
                  "reference": "The speaker's tone sounds excited.", "model_prediction": "Excited.",
                  "judge_response": "Explanation: The reference answer is ...\n\nRating: 1", "rate_score": 1.0, "success": 1}, ...]}

The header is about the whole set, the details are its first 20 rows. The grade is the last word of the reply read as a number; a
reply that ends in another word is "success": 0 and counts as 0, although it usually holds its rating further up. Which of the two
rubrics was used (0-5 or 0/1) does not stand in the log. Rows above 1 show the first, and so does a header that is no whole number
of hits among as many rows as the success rates of the set's logs are shares of; else the set's name tells what AudioBench uses
now. Nor do the recordings stand there, the size of the set, or the order of its rows, which is not the same in all logs of a set.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from undertone.errors import DataError
from undertone.evaluate.validate.readers.files import json_object
from undertone.evaluate.validate.rows import Header, Judged, JudgedTable, Reason
from undertone.paths import Location

NAME = "audiobench"
LIKE = "DATASET_JUDGE_score.json in a folder of each model"

GRADED, BINARY = "graded 0-5", "binary 0/1"
_POINTS = {GRADED: 20.0, BINARY: 100.0}
_OF_NOW = re.compile(r"emotion|gender|accent|sentiment|_mcq_|^imda_(?:ar|gr)_|mmau|muchomusic")
"""Sets that AudioBench's own code judges 0/1 (commit e991641); older logs of them may be graded."""

_RATING = re.compile(r"rating\W{0,6}?([0-5])(?![\d./])", re.IGNORECASE)
_KEPT = 20
_ALIKE = 0.8
"""Share of positions with the same reference from which on two logs are in one order."""

_MAX_ROWS = 50_000
_FIELDS = ("question", "reference", "model_prediction", "judge_response", "rate_score", "success")


@dataclass(frozen=True)
class _Log:
    file: Location
    dataset: str
    system: str
    judge: str
    head: dict[str, Any]
    rows: Sequence[dict[str, Any]]

    @property
    def references(self) -> list[str]:
        return [str(one["reference"]) for one in self.rows]

    @property
    def score(self) -> float:
        return float(self.head["judge_score"])

    @property
    def rate(self) -> float:
        return float(self.head["success_rate"])


def mine(file: Location) -> bool:
    """Whether a file is such a log, by its name."""
    return file.name.endswith("_score.json") and "judge" in file.name


def read(files: Sequence[Location], source: str) -> JudgedTable:
    """All logs: rows that are kept, headers, and what neither says.

    Raises:
        DataError: A file is not of this form.
    """
    by_set: defaultdict[str, list[_Log]] = defaultdict(list)
    for file in files:
        log = _log(file)
        by_set[log.dataset].append(log)
    rows: list[Judged] = []
    headers: list[Header] = []
    notes = [
        "AudioBench's logs name no recordings: each row counts as one of its own, so intervals are too narrow where questions share one."
    ]
    for _, logs in sorted(by_set.items()):
        orders: list[list[str]] = []
        placed = [(log, _order(log.references, orders)) for log in logs]
        size = math.lcm(*(_denominator(log.rate) for log, order in placed if order == 0))
        for log, order in placed:
            prompt = _prompt(log, size if order == 0 else 1)
            rows += [_row(log, prompt, index, order, orders[order]) for index in range(len(log.rows))]
            headers.append(_header(log, prompt, order))
    notes += [*_orders(headers), *_whole(headers)]
    reread = [row for row in rows if row.unscored is not None and row.reread is not None]
    lost = sum(row.unscored is not None for row in rows)
    if lost:
        notes.append(
            f"{lost} kept replies could not be read by AudioBench and count as 0 there; {len(reread)} of them hold a rating further up."
        )
    return JudgedTable(source=source, format=NAME, rows=rows, headers=headers, notes=notes)


def _log(file: Location) -> _Log:
    found = json_object(file)
    judge = next((key for key, value in found.items() if isinstance(value, dict) and "judge_score" in value), None)
    details = found.get("details")
    if judge is None or not isinstance(details, list):
        raise DataError(
            f"{file}: no log of AudioBench: expected a judge's {{judge_score, success_rate}} and details, got {', '.join(found) or 'nothing'}"
        )
    for number, row in enumerate(details, start=1):
        missing = [key for key in _FIELDS if key not in row]
        if missing:
            raise DataError(f"{file}: details, row {number}: lacks {', '.join(missing)}")
    dataset = file.name.removesuffix(f"_{judge}_score.json").removesuffix("_score.json")
    return _Log(file, dataset, file.parent.name, judge, found[judge], details)


def _prompt(log: _Log, size: int) -> str:
    """The rubric; `size` is what the set's size is a multiple of by the success rates, 1 where these are all 1 and say nothing."""
    hits, grades = (_denominator(log.score / points) for points in (_POINTS[BINARY], _POINTS[GRADED]))
    no_hits = size > 1 and size % hits != 0 and size % grades == 0
    if no_hits or any(float(row["rate_score"]) > 1 for row in log.rows):
        return GRADED
    return BINARY if log.judge.endswith("_binary") or _OF_NOW.search(log.dataset) else GRADED


def _order(references: list[str], orders: list[list[str]]) -> int:
    """Which of the orders seen so far the rows are in; a new one is added."""
    for index, known in enumerate(orders):
        same = [one == other for one, other in zip(references, known, strict=False)]
        if same and sum(same) >= _ALIKE * len(same):
            known += references[len(known) :]
            return index
    orders.append(list(references))
    return len(orders) - 1


def _row(log: _Log, prompt: str, index: int, order: int, known: Sequence[str]) -> Judged:
    given = log.rows[index]
    raw, points = str(given["judge_response"] or ""), _POINTS[prompt]
    grade = float(given["rate_score"]) * points
    reason: Reason | None = None
    if not given["success"]:
        # Its client writes "empty" where the call itself failed.
        reason = "failed" if raw.strip() in ("", "empty") else "unreadable"
    elif not 0 <= grade <= 100 or not float(given["rate_score"]).is_integer():
        reason = "unreadable"  # a number at the end of a reply, but no grade that was offered
    place = f"{index:04d}" if order == 0 else f"order{order + 1}-{index:04d}"
    stray = str(given["reference"]) != known[index]
    return Judged(
        dataset=log.dataset,
        item=f"{place}-{log.system}" if stray else place,
        system=log.system,
        judge=log.judge,
        prompt=prompt,
        question=str(given["question"]),
        reference=str(given["reference"]),
        answer=str(given["model_prediction"]),
        score=None if reason else grade,
        unscored=reason,
        counted_as=min(100.0, max(0.0, grade)) if reason else None,
        reread=_reread(raw, points) if reason else None,
        raw=raw,
    )


def _reread(raw: str, points: float) -> float | None:
    """The one rating that a reply holds, in 0..100."""
    found = {float(one) * points for one in _RATING.findall(raw)}
    return found.pop() if len(found) == 1 and max(found) <= 100 else None


def _header(log: _Log, prompt: str, order: int) -> Header:
    return Header(
        dataset=log.dataset,
        system=log.system,
        judge=log.judge,
        prompt=prompt,
        score=log.score,
        success_rate=log.rate,
        n=len(log.rows) if len(log.rows) < _KEPT else None,
        n_multiple_of=math.lcm(_denominator(log.score / _POINTS[prompt]), _denominator(log.rate)),
        kept=len(log.rows),
        failures_as_zero=True,
        order=order,
    )


def _denominator(share: float) -> int:
    """Of the fraction with the smallest one that a mean over at most 50,000 rows can be; 1 where it is none."""
    found = Fraction(share).limit_denominator(_MAX_ROWS)
    return found.denominator if abs(float(found) - share) < 1e-11 else 1


def _orders(headers: Sequence[Header]) -> list[str]:
    """Which logs are in an order of their own."""
    apart: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for one in headers:
        if one.order:
            apart[one.judge, one.system].append(one.dataset)
    return [
        f"{judge} on {system}: rows are in another order than in other logs, or of other items; matched with none: {', '.join(sets)}."
        for (judge, system), sets in sorted(apart.items())
    ]


def _whole(headers: Sequence[Header]) -> list[str]:
    """What the headers say about the sets that they are over."""
    said = []
    for dataset in sorted({one.dataset for one in headers}):
        known = math.lcm(1, *(one.n_multiple_of or 1 for one in headers if one.dataset == dataset and one.order == 0))
        for one in headers:
            apart = one.dataset == dataset and one.order and one.n_multiple_of and known % one.n_multiple_of
            if apart and known <= _MAX_ROWS:
                said.append(
                    f"{dataset}: the header of {one.judge} on {one.system} is over a number of rows divisible by {one.n_multiple_of}, "
                    f"the others' over one divisible by {known}: not the same rows."
                )
    return said
