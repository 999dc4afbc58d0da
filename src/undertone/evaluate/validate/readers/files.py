"""Files of other suites as plain rows, with errors that name the file and the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from undertone.errors import DataError
from undertone.paths import Location


def json_lines(file: Location) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and object of each line.

    Raises:
        DataError: A line is no JSON object.
    """
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if line.strip():
            yield number, _object(line, f"{file}: line {number}")


def json_object(file: Location) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        DataError: It holds none.
    """
    return _object(_text(file), str(file))


def csv_rows(file: Location) -> Iterator[tuple[int, dict[str, str]]]:
    """Number (from 1, below the header) and cells of each row.

    Raises:
        DataError: A row has more or fewer cells than the header.
    """
    csv.field_size_limit(1 << 30)  # an answer that never ended is a cell of more than the default 128 KiB
    for number, cells in enumerate(csv.DictReader(io.StringIO(_text(file), newline="")), start=1):
        if None in cells or None in cells.values():
            raise DataError(f"{file}: row {number} has not as many cells as the header; is it quoted as CSV wants it?")
        yield number, cells


def first_row(file: Location) -> dict[str, Any]:
    """The first row of a CSV or JSON-lines file, to tell formats apart; empty where there is none that can be read."""
    try:
        rows: Iterator[tuple[int, dict[str, Any]]] = csv_rows(file) if file.suffix == ".csv" else json_lines(file)
        return next(rows, (0, {}))[1]
    except DataError:
        return {}


def text_of(value: Any) -> str:
    """A cell as text; a list of texts, as some suites write answers, as its first."""
    while isinstance(value, list) and value:
        value = value[0]
    return "" if value is None or value == [] else str(value)


def _text(file: Location) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: no UTF-8 text ({error.reason} at byte {error.start})") from None


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: no JSON ({error.msg} at character {error.pos})") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: got a JSON {type(found).__name__}, expected an object")
    return found
