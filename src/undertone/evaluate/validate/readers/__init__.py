"""Which suite a folder's files are from, and their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from undertone.errors import ConfigError, DataError
from undertone.evaluate.validate.readers import au_harness, audiobench, inspect, kimi, lmms_eval, run, table, voicebench
from undertone.evaluate.validate.readers.table import Scale
from undertone.evaluate.validate.rows import JudgedTable
from undertone.paths import Location, location

__all__ = ["FORMATS", "Scale", "read_judged"]


@dataclasses.dataclass(frozen=True)
class _Reader:
    """`like` says what its files look like."""

    like: str
    mine: Callable[[Location], bool]
    read: Callable[[Sequence[Location], str], JudgedTable]


_READERS = {
    one.NAME: _Reader(one.LIKE, one.mine, one.read) for one in (audiobench, au_harness, lmms_eval, voicebench, kimi, inspect)
} | {table.NAME: _Reader(table.LIKE, table.mine, table.read)}
"""In the order in which they are asked; the formats that are known by name come before those that are known by columns."""

FORMATS = ("auto", *_READERS, run.NAME)
_ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".eval")


def read_judged(paths: Sequence[str], *, format: str = "auto", scale: Scale | None = None) -> JudgedTable:
    """Read result files of one suite, or a table of one's own.

    Args:
        paths: Files or folders; several are read as one table, such as two runs of the same answers under two judges.
        format: One of `FORMATS`; "auto" looks at names and columns.
        scale: Points of one grade, for tables of one's own.

    Raises:
        ConfigError: The format is not known, or files of several are there.
        DataError: Nothing is there, nothing fits, or a file is damaged.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format: got {format!r}, expected one of {', '.join(FORMATS)}")
    found = [_of_path(path, format, scale) for path in paths]
    kinds = sorted({one.format for one in found})
    if len(kinds) > 1:
        raise ConfigError(f"{', '.join(paths)}: results of {' and '.join(kinds)}; give those of one suite at a time")
    if not found:
        raise ConfigError("give the files or the folder of a suite's results")
    return JudgedTable(
        source=", ".join(one.source for one in found),
        format=kinds[0],
        rows=[row for one in found for row in one.rows],
        headers=[header for one in found for header in one.headers],
        notes=list(dict.fromkeys(note for one in found for note in one.notes)),
    )


def _of_path(path: str, format: str, scale: Scale | None) -> JudgedTable:
    where = location(path)
    if not where.exists():
        raise DataError(f"{path}: nothing lies there; expected a file or folder of results")
    ours = where.is_dir() and (run.mine(where) or (where / "run.json").is_file())
    if format == run.NAME or (format == "auto" and ours):
        if not run.mine(where):
            raise DataError(f"{path}: no finished evaluate/verdicts in it; undertone evaluate {path} makes them")
        return run.read(where)
    files = [where] if where.is_file() else sorted((one for one in where.rglob("*") if one.suffix in _ENDINGS), key=str)
    wanted = [format] if format != "auto" else list(_READERS)
    by_format: dict[str, list[Location]] = {}
    for file in files:
        name = next((name for name in wanted if _READERS[name].mine(file)), None)
        if name is not None:
            by_format.setdefault(name, []).append(file)
    if format != "auto" and where.is_file():
        by_format = {format: [where]}  # a file that was named is that, or its reader says what it lacks
    if not by_format:
        known = "; ".join(f"{name}: {_READERS[name].like}" for name in wanted)
        raise DataError(f"{path}: none of its {len(files)} files is a result that can be read. Expected {known}")
    if len(by_format) > 1:
        counts = ", ".join(f"{name} ({len(some)} files)" for name, some in by_format.items())
        raise ConfigError(f"{path}: results of {counts}; choose one by --format")
    name, some = next(iter(by_format.items()))
    return table.read(some, path, scale) if name == table.NAME else _READERS[name].read(some, path)
