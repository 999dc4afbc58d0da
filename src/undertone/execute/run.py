"""Run a stage over tables: parts as units of work, resumed where a run was broken off, every row accounted for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.errors import DataError, TooManyFailures
from undertone.execute.pool import run_units
from undertone.records import Loss, Record, from_arrow
from undertone.stages import Context, Dropped, Failed, Kept, Outcome, Stage, outcomes_of
from undertone.tables import Counts, Fingerprint, Table

_WORKER: dict[str, Any] = {}
"""The opened stage of this worker process, so that models load once in each."""


_LIGHT_ROWS = 20_000


class Progress(Protocol):
    """Told how far a stage is: finished units of all units, and the input rows in them."""

    def __call__(self, stage: str, done: int, total: int, rows: int) -> None: ...


class StageReport(BaseModel):
    """What one stage did. `resumed` counts parts that an earlier run had finished."""

    model_config = ConfigDict(frozen=True)

    stage: str
    folder: Path
    counts: Counts
    digest: str
    resumed: int
    parts: int
    seconds: float

    def line(self) -> str:
        """The accounting of the stage on one line."""
        c = self.counts
        reasons = ", ".join(f"{reason} {count}" for reason, count in c.reasons.items())
        tail = f" ({reasons})" if reasons else ""
        state = f"  [{self.resumed} of {self.parts} parts were already done]" if self.resumed else ""
        return (
            f"{self.stage}: {c.inputs} in = {c.kept} kept + {c.dropped} dropped + {c.failed} failed{tail} -> {c.rows} rows{state}"
        )


class Read(BaseModel):
    """What one output part is made of: the first `take` rows of a part of a source; `part` is the output's number."""

    model_config = ConfigDict(frozen=True)

    source: int
    source_part: int
    take: int
    part: int


class Unit(BaseModel):
    """What a stage sees at once: one part, or in a table-scoped stage all of them. Every input part becomes an output part."""

    model_config = ConfigDict(frozen=True)

    reads: tuple[Read, ...]

    @property
    def rows(self) -> int:
        return sum(read.take for read in self.reads)


class Job(BaseModel):
    """All that a worker needs to run any unit of a stage."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    stage: Any
    sources: tuple[Path, ...]
    sides: dict[str, Path]
    out: Path
    seed: int


def run_stage(
    stage: Stage[Any, Any],
    sources: Sequence[Path],
    out: Path,
    *,
    sides: Mapping[str, Path] | None = None,
    seed: int = 0,
    workers: int = 1,
    limit: int | None = None,
    redo: bool = False,
    max_failed_share: float = 0.5,
    progress: Progress | None = None,
) -> StageReport:
    """Run a stage over one or more tables of its input record and write one table; resume what a broken run left.

    Args:
        stage: The stage, unopened.
        sources: Folders of finished tables of `stage.reads`, read one after the other.
        out: Folder of the table to write.
        sides: Folders of the side tables that the stage declares.
        seed: The study's seed.
        workers: Processes; 1 runs here. The result does not depend on it.
        limit: Use only the first so many input rows.
        redo: Start over rather than resume.
        max_failed_share: More failed rows than this share of the input end the command.
        progress: Told after every unit.

    Raises:
        ResumeMismatch: `out` was written from other inputs or by another configuration.
        TooManyFailures: See `max_failed_share`; the table is complete on disk all the same.
        DataError: An input is missing, or the disk is full.
    """
    started = time.monotonic()
    _WORKER.clear()  # of an earlier call in this process: its seed or side tables may have been others
    opened = [tables.open_table(path, stage.reads) for path in sources]
    side_paths = dict(sides or {})
    if set(side_paths) != set(stage.sides):
        raise DataError(f"stage {stage.name} needs side tables {sorted(stage.sides)}, got {sorted(side_paths)}")
    inputs = {f"source{index}": table.digest for index, table in enumerate(opened)}
    inputs |= {name: tables.open_table(path, stage.sides[name]).digest for name, path in side_paths.items()}
    fingerprint = Fingerprint(
        stage=stage.name, version=stage.version, seed=seed, config=stage.identity(), inputs=inputs, limit=limit
    )
    units = _units(stage, opened, limit)
    with tables.locked(out):
        if redo:
            tables.clear(out)
        tables.begin(out, fingerprint, redo_hint=f"start it over with --redo {out.name}")
        done = tables.finished(out)
        parts = sum(len(unit.reads) for unit in units)
        resumed = parts if done else 0
        if done is None:
            todo = [unit for unit in units if any(tables.finished_part(out, read.part) is None for read in unit.reads)]
            resumed = parts - sum(len(unit.reads) for unit in todo)
            job = Job(stage=stage, sources=tuple(sources), sides=side_paths, out=out, seed=seed)
            if not stage.heavy and sum(unit.rows for unit in todo) < _LIGHT_ROWS:
                workers = 1  # starting processes would take longer than the work
            run_units(run_unit, job, todo, workers=workers, told=_teller(stage, progress, parts, resumed))
            done = tables.finish(out, fingerprint, record=stage.writes, parts=parts)
    report = StageReport(
        stage=stage.name,
        folder=out,
        counts=done.counts,
        digest=done.digest,
        resumed=resumed,
        parts=parts,
        seconds=time.monotonic() - started,
    )
    _enough_left(report, max_failed_share)
    return report


def _enough_left(report: StageReport, max_failed_share: float) -> None:
    counts = report.counts
    if counts.inputs and counts.failed / counts.inputs > max_failed_share:
        first = from_arrow(tables.read_parquet(report.folder / "failed.parquet"), Loss)[0]
        raise TooManyFailures(
            f"{report.stage}: {counts.failed} of {counts.inputs} rows failed, more than max_failed_share = {max_failed_share}. "
            f"The first, {first.row_id}: {first.detail}. All are in {report.folder / 'failed.parquet'}. "
            f"When the cause is mended, run it again with --redo {report.folder.name}"
        )


def _units(stage: Stage[Any, Any], opened: Sequence[Table[Any]], limit: int | None) -> list[Unit]:
    """One unit per input part (one for all in a table-scoped stage), cut off after `limit` rows."""
    left = sum(len(table) for table in opened) if limit is None else limit
    reads: list[Read] = []
    for source, table in enumerate(opened):
        for index, part in enumerate(table.done.parts):
            take = min(part.rows, left)
            left -= take
            if take or part.rows == 0:
                reads.append(Read(source=source, source_part=index, take=take, part=len(reads)))
    return [Unit(reads=tuple(reads))] if stage.scope == "table" else [Unit(reads=(read,)) for read in reads]


def _teller(stage: Stage[Any, Any], progress: Progress | None, total: int, resumed: int) -> Callable[[Unit], None]:
    state = {"done": resumed, "rows": 0}

    def told(unit: Unit) -> None:
        state["done"] += len(unit.reads)
        state["rows"] += unit.rows
        if progress is not None:
            progress(stage.name, state["done"], total, state["rows"])

    return told


def run_unit(job: Job, unit: Unit) -> None:
    """Read a unit's rows, run the stage, commit a part for every part read. Runs in a worker."""
    stage, opened = _open(job)
    rows = [opened[read.source].part(read.source_part)[: read.take] for read in unit.reads]
    outcomes = iter(outcomes_of(stage, [row for part in rows for row in part]))
    for read, part in zip(unit.reads, rows, strict=True):
        _commit(job, stage, read.part, part, list(itertools.islice(outcomes, len(part))))


def _commit(job: Job, stage: Stage[Any, Any], part: int, rows: Sequence[Record], outcomes: Sequence[Outcome[Any]]) -> None:
    kept: list[Record] = []
    losses: list[tuple[bool, Loss]] = []
    count = 0
    for row, outcome in zip(rows, outcomes, strict=True):
        match outcome:
            case Kept(rows=made):
                count += 1
                kept.extend(made)
            case Dropped(reason=reason, detail=detail):
                losses.append((False, Loss(row_id=row.id, stage=stage.name, reason=reason, detail=detail)))
            case Failed(error=error):
                losses.append((True, Loss(row_id=row.id, stage=stage.name, reason="error", detail=error)))
    tables.write_part(job.out, part, record=stage.writes, rows=kept, inputs=len(rows), kept=count, losses=losses)


def _open(job: Job) -> tuple[Stage[Any, Any], list[Table[Any]]]:
    # By configuration, not by equality: an opened stage differs from its unopened copy in its private attributes.
    key = (job.out, type(job.stage), job.stage.model_dump_json())
    if _WORKER.get("key") != key:
        # A copy: opening fills private attributes, and the stage given may be a study's own (or a default that studies share).
        stage = type(job.stage).model_validate(job.stage.model_dump())
        sides = {name: tables.open_table(path, stage.sides[name]) for name, path in job.sides.items()}
        stage.open(Context(out_dir=job.out, seed=job.seed, sides=sides))
        _WORKER.update(key=key, stage=stage, sources=[tables.open_table(path, stage.reads) for path in job.sources])
    return _WORKER["stage"], _WORKER["sources"]


def write_rows(
    out: Path,
    rows: Sequence[Record],
    *,
    record: type[Record],
    fingerprint: Fingerprint,
    parts: int = 64,
    smallest: int = 4,
    redo: bool = False,
) -> StageReport:
    """Write rows that were made here (a corpus' plan, say) as a table of at most `parts` parts of at least `smallest` rows."""
    started = time.monotonic()
    size = max(smallest, -(-len(rows) // parts))
    slices = [rows[start : start + size] for start in range(0, len(rows), size)] or [[]]
    with tables.locked(out):
        if redo:
            tables.clear(out)
        tables.begin(out, fingerprint, redo_hint=f"start it over with --redo {out.name}")
        done = tables.finished(out)
        resumed = len(slices) if done else 0
        if done is None:
            for index, piece in enumerate(slices):
                tables.write_part(out, index, record=record, rows=piece, inputs=len(piece), kept=len(piece), losses=[])
            done = tables.finish(out, fingerprint, record=record, parts=len(slices))
    return StageReport(
        stage=fingerprint.stage,
        folder=out,
        counts=done.counts,
        digest=done.digest,
        resumed=resumed,
        parts=len(slices),
        seconds=time.monotonic() - started,
    )
