"""Run a stage over tables: parts as units of work, resumed where a run was broken off, every row accounted for."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.errors import ConfigError, DataError, TooManyFailures
from undertone.execute.pool import Execution, Stopped
from undertone.parquet import one_array, taken
from undertone.paths import Location
from undertone.records import Loss, Record, arrow_schema, from_arrow
from undertone.stages import (
    NOT_THE_ROWS_FAULT,
    ColumnStage,
    Context,
    Dropped,
    Failed,
    Fates,
    Kept,
    Outcome,
    Stage,
    borrowing,
    checked_fates,
    made_rows,
    outcomes_of,
)
from undertone.tables import Counts, Fingerprint, Table

_WORKER: dict[str, Any] = {}
"""The opened stage of this worker process, so that models load once in each."""


_LIGHT_ROWS = 20_000
_LIGHT_COLUMN_ROWS = 400_000
"""Rows of work (of records, of columns) that are done here sooner than processes start."""


class Progress(Protocol):
    """Told how far a stage is: finished units of all units, and the input rows in them."""

    def __call__(self, stage: str, done: int, total: int, rows: int) -> None: ...


class StageReport(BaseModel):
    """What one stage did. `resumed` counts parts that an earlier run had finished."""

    model_config = ConfigDict(frozen=True)

    stage: str
    folder: Location
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
    """What a worker does at once: one part, or in a table-scoped stage of records all. Every input part becomes an output part."""

    model_config = ConfigDict(frozen=True)

    reads: tuple[Read, ...]

    def __str__(self) -> str:
        first, last = self.reads[0].part, self.reads[-1].part
        return f"part {first}" if first == last else f"parts {first} to {last}"

    @property
    def rows(self) -> int:
        return sum(read.take for read in self.reads)


class Job(BaseModel):
    """All that a worker needs to run any unit of a stage."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    stage: Any
    sources: tuple[Location, ...]
    sides: dict[str, Location]
    out: Location
    seed: int
    made_by: str | None = None
    """Digest of the fingerprint; None for that which the folder was begun with."""


def run_stage(
    stage: Stage[Any, Any],
    sources: Sequence[Location],
    out: Location,
    *,
    sides: Mapping[str, Location] | None = None,
    seed: int = 0,
    workers: int = 1,
    execution: Execution = Execution(),  # noqa: B008 - frozen
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
        execution: Where the processes are, and which parts are this job's.
        limit: Use only the first so many input rows.
        redo: Start over rather than resume.
        max_failed_share: More failed rows than this share of the input end the command.
        progress: Told after every unit.

    Raises:
        ResumeMismatch: `out` was written from other inputs or by another configuration.
        Stopped: This job's share of the parts is there; the table waits for the others' and for a run without shards.
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
    if execution.shards is not None:
        _can_be_shared(stage, out, redo=redo)
    with tables.locked(out, shared=execution.shards is not None or _only_looked_at(out, redo=redo)):
        if redo:
            tables.clear(out)
        tables.begin(out, fingerprint, redo_hint=_redo_hint(out))
        done = tables.finished(out)
        parts = sum(len(unit.reads) for unit in units)
        resumed = parts if done else 0
        if done is None:
            made_by = fingerprint.digest
            mine = [unit for unit in units if execution.shards is None or execution.shards.holds(unit.reads[0].part)]
            todo = [
                unit
                for unit in mine
                if any(tables.finished_part(out, read.part, record=stage.writes, made_by=made_by) is None for read in unit.reads)
            ]
            resumed = sum(len(unit.reads) for unit in mine) - sum(len(unit.reads) for unit in todo)
            job = Job(stage=stage, sources=tuple(sources), sides=side_paths, out=out, seed=seed, made_by=made_by)
            light = _LIGHT_COLUMN_ROWS if isinstance(stage, ColumnStage) else _LIGHT_ROWS
            if not stage.heavy and sum(unit.rows for unit in todo) < light:
                workers, execution = 1, Execution(shards=execution.shards)  # starting processes would take longer than the work
            # Arrow's allocator in the workers to come keeps the pages of one part for the next: fetching them again is a sixth of the time.
            os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
            if isinstance(stage, ColumnStage) and stage.scope == "table" and not _there(job, "fates", todo):
                keyless = [unit for unit in units if not _there(job, "keys", [unit])]
                execution.run_units(write_keys, job, keyless, workers=workers, told=lambda _: None)
                _decide(job, units)
            told = _teller(stage, progress, parts, resumed)
            execution.run_units(run_unit, job, todo, workers=workers, told=told, gpus=stage.gpus)
            if execution.shards is not None:
                raise Stopped(
                    f"{out}: shard {execution.shards} is done ({len(todo)} of {parts} parts were left to it). "
                    "When all shards are done, the same command without --shards goes on from here"
                )
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


def _can_be_shared(stage: Stage[Any, Any], out: Location, *, redo: bool) -> None:
    if redo:
        raise ConfigError(f"--redo {out.name} and --shards: one job would clear what the others write. Clear it first, in one job")
    if stage.scope == "table" and tables.finished(out) is None:
        raise ConfigError(
            f"--shards: {out} is decided over all rows at once ({stage.name}), so it cannot be shared. "
            f"Run the same command once without --shards (with --until to go no further than this table)"
        )


def _only_looked_at(out: Location, *, redo: bool) -> bool:
    """Whether a table is finished and stays so: several jobs may come by at once."""
    return (out / "_done.json").exists() and not redo


def _redo_hint(out: Location) -> str:
    """How to start a table over; "label/." is the table alone where others lie inside it."""
    return f"start it over with --redo {out.name}{'/.' if tables.holds_others(out) else ''}"


def _enough_left(report: StageReport, max_failed_share: float) -> None:
    counts = report.counts
    if counts.inputs and counts.failed / counts.inputs > max_failed_share:
        first = from_arrow(tables.read_parquet(report.folder / "failed.parquet"), Loss)[0]
        raise TooManyFailures(
            f"{report.stage}: {counts.failed} of {counts.inputs} rows failed, more than max_failed_share = {max_failed_share}. "
            f"The first, {first.row_id}: {first.detail}. All are in {report.folder / 'failed.parquet'}. "
            f"When the cause is mended, {_redo_hint(report.folder).replace('start it over', 'run it again')}"
        )


def _units(stage: Stage[Any, Any], opened: Sequence[Table[Any]], limit: int | None) -> list[Unit]:
    """One unit per input part (one for all in a table-scoped stage of records), cut off after `limit` rows."""
    left = sum(len(table) for table in opened) if limit is None else limit
    reads: list[Read] = []
    for source, table in enumerate(opened):
        for index, part in enumerate(table.done.parts):
            take = min(part.rows, left)
            left -= take
            if take or part.rows == 0:
                reads.append(Read(source=source, source_part=index, take=take, part=len(reads)))
    together = stage.scope == "table" and not isinstance(stage, ColumnStage)
    return [Unit(reads=tuple(reads))] if together else [Unit(reads=(read,)) for read in reads]


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
    if isinstance(stage, ColumnStage):
        for read in unit.reads:
            _run_columns(job, stage, opened, read)
        return
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
    tables.write_part(
        job.out, part, record=stage.writes, rows=kept, inputs=len(rows), kept=count, losses=losses, made_by=job.made_by
    )


# ---- stages that see columns ---------------------------------------------------------------------------------------------------


def _run_columns(job: Job, stage: ColumnStage[Any, Any], opened: Sequence[Table[Any]], read: Read) -> None:
    looks_at = stage.looks_at if stage.scope != "table" else ()
    names = None if looks_at is None else tuple(dict.fromkeys(("id", *looks_at)))
    columns = _columns(opened, read, names)
    if stage.scope == "table":
        told = _work(job, read, "fates")
        fates = Fates(reason=one_array(told["reason"]), detail=one_array(told["detail"]))
    else:
        try:
            fates = checked_fates(stage, columns)
        except NOT_THE_ROWS_FAULT:
            raise
        except Exception:
            if stage.scope != "row":
                raise
            # Rows that do not depend on each other are tried again as records, so that a bad one costs itself only.
            rows = from_arrow(_columns(opened, read), stage.reads)
            _commit(job, stage, read.part, rows, outcomes_of(stage, rows))
            return
    source, part = opened[read.source], opened[read.source].done.parts[read.source_part]
    borrowed = borrowing(stage, fates) if stage.borrows else None
    if borrowed is not None:
        own, inside = borrowed
        lends = tables.borrowed_from(job.sources[read.source], part, seen_from=job.out, inside=inside)
    else:
        whole = names is None  # then all of the source's columns are here

        def lend(asked: Sequence[str] | None, rows: pa.Array) -> pa.Table:
            return taken(columns, rows) if whole else source.read(part, asked, rows=rows)

        own, lends = made_rows(stage, fates, lend), None
    lost = pa.table({"id": columns["id"], "reason": fates.reason, "detail": _detail_of(fates)}).filter(fates.reason.is_valid())
    signed = pa.array([stage.name], pa.string()).take(pa.array([0] * len(lost), pa.int8()))
    tables.write_part_columns(
        job.out,
        read.part,
        record=stage.writes,
        rows=own,
        inputs=len(columns),
        kept=fates.kept.true_count,
        dropped=pa.table([lost["id"], lost["id"], signed, lost["reason"], lost["detail"]], schema=arrow_schema(Loss)),
        made_by=job.made_by,
        source=lends,
    )


def _detail_of(fates: Fates) -> pa.Array:
    return pa.nulls(len(fates.reason), pa.string()) if fates.detail is None else fates.detail


def _columns(opened: Sequence[Table[Any]], read: Read, names: Sequence[str] | None = None) -> pa.Table:
    """A part's rows, each column in one piece."""
    source = opened[read.source]
    return source.read(source.done.parts[read.source_part], names).slice(0, read.take).combine_chunks()


def _there(job: Job, kind: str, units: Sequence[Unit]) -> bool:
    """Whether all parts have such a file of this very run's; one that is damaged or another run's is made again."""
    parts = [read.part for unit in units for read in unit.reads]
    return all(tables.read_work(job.out, part, kind, made_by=job.made_by or "") is not None for part in parts)


def _work(job: Job, read: Read, kind: str) -> pa.Table:
    found = tables.read_work(job.out, read.part, kind, made_by=job.made_by or "")
    if found is None or len(found) != read.take:
        file = tables.work_file(job.out, read.part, kind)
        raise DataError(f"{file} was removed or changed while the run went on; run the same command again: it is made again")
    return found


def write_keys(job: Job, unit: Unit) -> None:
    """Reduce a part to what the decision about the table needs of it. Runs in a worker."""
    opened_stage, opened = _open(job)
    stage = cast(ColumnStage[Any, Any], opened_stage)
    for read in unit.reads:
        keys = stage.keys(_columns(opened, read, stage.looks_at))
        if len(keys) != read.take:
            raise DataError(f"stage {stage.name} gave {len(keys)} keys for {read.take} rows; it must give one each")
        tables.write_work(job.out, read.part, "keys", keys, made_by=job.made_by or "")


def _decide(job: Job, units: Sequence[Unit]) -> None:
    """Take the decision about the whole table from the keys of its parts; every part finds its fates in a file."""
    stage = cast(ColumnStage[Any, Any], _open(job)[0])
    reads = [read for unit in units for read in unit.reads]
    if not reads:
        return
    keys = pa.concat_tables([_work(job, read, "keys") for read in reads])
    fates = checked_fates(stage, keys)
    told = pa.table({"reason": fates.reason, "detail": _detail_of(fates)})
    begin = 0
    for read in reads:
        tables.write_work(job.out, read.part, "fates", told.slice(begin, read.take), made_by=job.made_by or "")
        begin += read.take


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
    out: Location,
    rows: Sequence[Record],
    *,
    record: type[Record],
    fingerprint: Fingerprint,
    losses: Sequence[Loss] = (),
    parts: int = 64,
    smallest: int = 4,
    redo: bool = False,
) -> StageReport:
    """Write rows that were made here (a corpus' plan, say) as a table of at most `parts` parts of at least `smallest` rows.

    `losses` are what was left out, and why.
    """
    started = time.monotonic()
    size = max(smallest, -(-len(rows) // parts))
    slices = [rows[start : start + size] for start in range(0, len(rows), size)] or [[]]
    with tables.locked(out, shared=_only_looked_at(out, redo=redo)):
        if redo:
            tables.clear(out)
        tables.begin(out, fingerprint, redo_hint=_redo_hint(out))
        done = tables.finished(out)
        resumed = len(slices) if done else 0
        if done is None:
            made_by = fingerprint.digest
            for index, piece in enumerate(slices):
                lost = [(False, one) for one in losses] if index == 0 else []
                inputs = len(piece) + len(lost)
                tables.write_part(
                    out, index, record=record, rows=piece, inputs=inputs, kept=len(piece), losses=lost, made_by=made_by
                )
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


def write_columns(out: Location, parts: Iterable[pa.Table], *, record: type[Record], fingerprint: Fingerprint) -> StageReport:
    """Write columns that were made here (by an importer, say) as a table, each of `parts` as one of its parts.

    Args:
        out: Folder of the table.
        parts: Columns of `record`, "id" included; taken one at a time.
        record: Class of the rows.
        fingerprint: What the table is a function of.
    """
    started = time.monotonic()
    with tables.locked(out):
        tables.begin(out, fingerprint, redo_hint=_redo_hint(out))
        done = tables.finished(out)
        resumed = len(done.parts) if done else 0
        if done is None:
            count, made_by = 0, fingerprint.digest
            for count, rows in enumerate(parts, start=1):
                tables.write_part_columns(
                    out, count - 1, record=record, rows=rows, inputs=len(rows), kept=len(rows), made_by=made_by
                )
            done = tables.finish(out, fingerprint, record=record, parts=count)
    return StageReport(
        stage=fingerprint.stage,
        folder=out,
        counts=done.counts,
        digest=done.digest,
        resumed=resumed,
        parts=len(done.parts),
        seconds=time.monotonic() - started,
    )
