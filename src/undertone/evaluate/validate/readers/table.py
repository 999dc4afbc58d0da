"""A table of one's own: CSV, JSON lines or Parquet with a row for each verdict.

    item,system,judge,score,label,answer
    clip7-q2,S30,my-judge,80,sad,She sounds sad.

Needed are `item` and `score` (0 to 100, or grades with points given); all other fields of `Judged` are read where there is a
column of their name. An empty score is a verdict that failed, with the reason in `unscored` where that column says it; it is
never 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pydantic

from undertone.errors import DataError
from undertone.evaluate.validate.readers.files import csv_rows, first_row, json_lines
from undertone.evaluate.validate.rows import Judged, JudgedTable
from undertone.parquet import read_parquet
from undertone.paths import Location

NAME = "csv"
LIKE = "a CSV, JSON-lines or Parquet file with columns item and score"

_NEEDED = ("item", "score")
_NUMBERS = ("score", "human", "counted_as", "reread", "cost")
_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclasses.dataclass(frozen=True)
class Scale:
    """Points, 0 to 100, of one grade in the table's column `score`, and of one in `human`."""

    score: float = 1.0
    human: float = 1.0


def mine(file: Location) -> bool:
    """Whether a file has the columns that are needed."""
    if file.suffix == ".parquet":
        return set(_NEEDED) <= set(read_parquet(file).column_names)
    return file.suffix in (".csv", ".jsonl") and set(_NEEDED) <= first_row(file).keys()


def read(files: Sequence[Location], source: str, scale: Scale | None = None) -> JudgedTable:
    """All rows of all files.

    Raises:
        DataError: A column is missing, or a cell does not fit; the message names file, row and column.
    """
    rows: list[Judged] = []
    ignored: set[str] = set()
    for file in files:
        for number, cells in _cells(file):
            missing = [one for one in _NEEDED if one not in cells]
            if missing:
                raise DataError(
                    f"{file}: no column {missing[0]!r}, there are {', '.join(map(str, cells))}; expected item and score at least"
                )
            ignored |= {str(one) for one in cells if one not in Judged.model_fields}
            rows.append(_row(cells, scale or Scale(), f"{file}: row {number}"))
    scores = [row.score for row in rows if row.score is not None]
    notes = [f"Columns that are not read: {', '.join(sorted(ignored))}."] if ignored else []
    if scores and max(scores) <= 10:
        notes.append(f"No score is above {max(scores):g}: if these are grades, give their points (--points 20 for 0-5).")
    return JudgedTable(source=source, format=NAME, rows=rows, notes=notes)


def _cells(file: Location) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.suffix == ".parquet":
        return iter(enumerate(read_parquet(file).to_pylist(), start=1))
    return iter(csv_rows(file)) if file.suffix == ".csv" else json_lines(file)


def _row(cells: dict[str, Any], scale: Scale, where: str) -> Judged:
    given: dict[str, Any] = {}
    for name, value in cells.items():
        if name not in Judged.model_fields or _empty(value):
            continue
        given[name] = _number(value, name, where) if name in _NUMBERS else value
        if name in ("score", "human"):
            given[name] *= scale.score if name == "score" else scale.human
        elif name in ("run", "tokens"):
            given[name] = int(_number(value, name, where))
        elif name == "correct":
            if str(value).lower() not in _TRUTHS:
                raise DataError(f"{where}: correct: got {value!r}, expected 1 or 0")
            given[name] = _TRUTHS[str(value).lower()]
        elif name not in _NUMBERS:
            given[name] = str(value)
    if "score" not in given:
        given.setdefault("unscored", "failed")
    try:
        return Judged(**given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        shown = f"{name}: got {given.get(name)!r}, " if name else ""
        raise DataError(f"{where}: {shown}{first['msg']}") from None


def _empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _number(value: Any, name: str, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name}: got {value!r}, expected a number") from None
