"""What a stage is: one method from a batch of rows to one outcome per row; the base does everything else.

The author of a stage writes the science: `process`, from records to outcomes, or in a `ColumnStage` `fates`, from Arrow columns to one
fate per row, where millions of rows go through a rule that models do not wait for. Loading, batching, isolation of a bad row, counting,
writing and resuming are done by `execute.run_stage`, which holds the law of the house: kept + dropped + failed = input.

A stage is a pydantic model: its constructor arguments are its configuration, typed, keyword-only and serialisable, and a study file
holds them under the stage's name. Constructors do no work; models and side tables are loaded in `open`, once in each worker.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError, DependencyError, DiskFull
from undertone.parquet import ROWS, Lend, filled, one_array, taken
from undertone.paths import Location, StoreError
from undertone.records import Record, arrow_schema, from_arrow, to_arrow

if TYPE_CHECKING:
    from undertone.tables import Table

In = TypeVar("In", bound=Record)
Out = TypeVar("Out", bound=Record)


@dataclass(frozen=True)
class Kept(Generic[Out]):
    """The row passed; `rows` are what it became (none for a row that only contributed to another's output)."""

    rows: tuple[Out, ...]


@dataclass(frozen=True)
class Dropped:
    """A rule dropped the row; `reason` is a short code (snake_case), `detail` is for people."""

    reason: str
    detail: str | None = None


@dataclass(frozen=True)
class Failed:
    """The row could not be processed; `error` says why. Failed rows are kept in `failed.parquet`; --redo runs them again."""

    error: str


Outcome = Kept[Out] | Dropped | Failed


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a running stage may use beside its rows.

    `out_dir` is the stage's output folder (for files that go with the table, such as rendered audio), `sides` the side tables that
    the stage declared, `seed` the study's seed.
    """

    out_dir: Location
    seed: int
    sides: Mapping[str, Table[Any]]


class Stage(BaseModel, Generic[In, Out]):
    """Base of all stages.

    Class attributes:
        name: Stands in fingerprints, loss tables and messages.
        version: Changes whenever the same input would give other output.
        reads, writes: The record classes of input and output.
        scope: "row": `process` gets batches of at most `batch_rows` rows and must not let one row depend on another; a batch that
            raises is tried again row by row. "part": `process` gets all rows of one part (all segments of a recording are in one
            part). "table": `process` gets the whole table.
        sides: Names and record classes of side tables.
        heavy: A row takes milliseconds or more (audio, models): worth processes of its own even for few rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Record]]
    writes: ClassVar[type[Record]]
    scope: ClassVar[Literal["row", "part", "table"]] = "row"
    batch_rows: ClassVar[int] = 64
    sides: ClassVar[Mapping[str, type[Record]]] = {}
    heavy: ClassVar[bool] = False

    @property
    def gpus(self) -> float:
        """GPUs, or the share of one, that a worker needs to itself; the Ray executor asks the cluster for them."""
        return 0.0

    def open(self, context: Context) -> None:
        """Load models and side tables; called once in each worker before the first batch."""

    def process(self, rows: Sequence[In]) -> Sequence[Outcome[Out]]:
        """Turn rows into outcomes, one for each row and in their order."""
        raise NotImplementedError(f"stage {self.name} does not implement process")

    def identity(self) -> dict[str, Any]:
        """What makes two stages of one name and version different, beside their input: goes into the fingerprint."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, kw_only=True)
class Fates:
    """What becomes of the rows of some columns. Every row has one fate by construction, so none is lost and none counts twice.

    Attributes:
        reason: For each input row the short code of the rule that dropped it; null where it is kept.
        detail: For each input row something for people; None for none at all.
        rows: What the kept rows became, columns of `writes`; None where they stay as they are.
        origin: For each of `rows` the input row that it counts with, which is a kept one; None where each kept row became one, in order.
        members: For each of `rows` the numbers of the input rows that it is made of, as a clip is of segments: the elements of the one
            column of `writes` that `rows` then lacks.
    """

    reason: pa.Array
    detail: pa.Array | None = None
    rows: pa.Table | None = None
    origin: pa.Array | None = None
    members: pa.ListArray | None = None

    @property
    def kept(self) -> pa.Array:
        """Which rows are kept, as a boolean mask."""
        return pc.is_null(self.reason)


class ColumnStage(Stage[In, Out]):
    """A stage that sees Arrow columns and never makes records of them; its author writes `fates`.

    A filter says why rows go, and no more:

        def fates(self, columns):
            quiet = pc.less(columns["level_db"], self.min_db)
            return Fates(reason=pc.if_else(quiet, "quiet", None))

    In scope "row" and "part" `fates` gets the columns of one part that `looks_at` names. In scope "table" it gets those of `keys` of all
    parts, one after the other, and runs once for the whole table: the parts are read, reduced to their keys, and read again to be filtered,
    one at a time in each worker, so that memory does not grow with them. Such a stage cannot change rows.

    Class attributes:
        looks_at: The columns of `reads`, or leaves of them ("labels.list.element.number"), that the rule needs; None for all. A stage that
            gives rows of its own, without `members`, needs what it gives.
        borrows: Write numbers of the source's rows in place of rows that the stage does not change: a tenth of the time. The table then
            needs its source; leave it off where people may take the table away.
    """

    looks_at: ClassVar[tuple[str, ...] | None] = None
    borrows: ClassVar[bool] = False

    def keys(self, columns: pa.Table) -> pa.Table:
        """What a decision about the whole table must know of the rows of one part: as little as can be, one row for each."""
        return columns

    def fates(self, columns: pa.Table) -> Fates:
        """The fate of every row."""
        raise NotImplementedError(f"stage {self.name} does not implement fates")

    def process(self, rows: Sequence[In]) -> Sequence[Outcome[Out]]:
        """The same as `fates`, for records: one implementation of a rule serves both."""
        columns = to_arrow(rows, self.reads)
        fates = checked_fates(self, self.keys(columns) if self.scope == "table" else columns)
        kept = [index for index, one in enumerate(fates.kept.to_pylist()) if one]
        made: dict[int, list[Any]] = {index: [] if fates.rows is not None else [rows[index]] for index in kept}
        if fates.rows is not None:
            origin = kept if fates.origin is None else fates.origin.to_pylist()
            whole = made_rows(
                self, fates, lambda names, numbers: taken(columns if names is None else columns.select(names), numbers)
            )
            for index, row in zip(origin, from_arrow(whole, self.writes), strict=True):
                made[index].append(row)
        reasons = fates.reason.to_pylist()
        details = [None] * len(rows) if fates.detail is None else fates.detail.to_pylist()
        return [
            Kept(tuple(made[index])) if reason is None else Dropped(reason, detail)
            for index, (reason, detail) in enumerate(zip(reasons, details, strict=True))
        ]


def borrowing(stage: ColumnStage[Any, Any], fates: Fates) -> tuple[pa.Table, str | None] | None:
    """What a file holds that borrows the rows that a stage left as they are, see `parquet.filled`: its own columns, and `inside`.

    None where the stage gave rows that are nowhere else.
    """
    if fates.rows is None:
        return pa.table({ROWS: np.flatnonzero(fates.kept.to_numpy(zero_copy_only=False))}), None
    if fates.members is None:
        return None
    (inside,) = set(arrow_schema(stage.writes).names) - set(fates.rows.column_names)
    return fates.rows.append_column(ROWS, fates.members), inside


def made_rows(stage: ColumnStage[Any, Any], fates: Fates, lend: Lend) -> pa.Table:
    """The rows that a stage made, whole; `lend` gives rows of its input."""
    borrows = borrowing(stage, fates)
    return fates.rows if borrows is None else filled(*borrows, None, lend)


def checked_fates(stage: ColumnStage[Any, Any], columns: pa.Table) -> Fates:
    """The fates that a stage gives to the rows of some columns, as plain arrays of the right types and lengths.

    Raises:
        DataError: There is not one fate for each row, or rows count with one that was dropped (a bug in the stage, never hidden).
    """
    fates = stage.fates(columns)
    reason = _strings(fates.reason)
    detail = None if fates.detail is None else _strings(fates.detail)
    told = {len(reason)} | (set() if detail is None else {len(detail)})
    if told != {columns.num_rows}:
        raise DataError(
            f"stage {stage.name} gave {min(told)} to {max(told)} fates for {columns.num_rows} rows; it must give one each"
        )
    kept = pc.is_null(reason)
    if fates.rows is None:
        return Fates(reason=reason, detail=detail)
    if stage.scope == "table":
        raise DataError(f"stage {stage.name} sees the keys of a whole table, so it can keep and drop rows but not change them")
    names = arrow_schema(stage.writes).names
    if fates.members is not None:
        names = [name for name in names if name in fates.rows.column_names]
        if len(names) != len(arrow_schema(stage.writes)) - 1 or len(fates.members) != len(fates.rows):
            raise DataError(
                f"stage {stage.name} gave members of its rows, so the rows must lack one column of {stage.writes.__name__}, and each must "
                "have a list of members"
            )
    rows = fates.rows.select(names)
    origin = None if fates.origin is None else one_array(fates.origin)
    if len(rows) != (kept.true_count if origin is None else len(origin)):
        raise DataError(f"stage {stage.name} gave {len(rows)} rows for {kept.true_count} kept ones without saying which is whose")
    if origin is not None and not pc.all(kept.take(origin), min_count=0).as_py():
        raise DataError(f"stage {stage.name} made rows of a row that it dropped")
    members = None if fates.members is None else one_array(fates.members)
    return Fates(reason=reason, detail=detail, rows=rows, origin=origin, members=members)


def _strings(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return one_array(column).cast(pa.string())


def outcomes_of(stage: Stage[In, Out], rows: Sequence[In]) -> list[Outcome[Out]]:
    """Run a stage over rows with one outcome per row guaranteed; a row-scoped batch that raises is isolated row by row.

    Raises:
        DataError: The stage returned another number of outcomes than it got rows (a bug in the stage, never hidden).
    """
    if stage.scope != "row":
        return _checked(stage, rows)
    made: list[Outcome[Out]] = []
    for start in range(0, len(rows), stage.batch_rows):
        batch = rows[start : start + stage.batch_rows]
        try:
            made.extend(_checked(stage, batch))
        except NOT_THE_ROWS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of the worker: one bad row must not cost its batch
            _raise_if_disk_full(error)
            made.extend(_alone(stage, row) for row in batch)
    return made


NOT_THE_ROWS_FAULT = (DiskFull, DependencyError, MemoryError, StoreError)
"""Errors that the next row would meet as well: they end the run, which goes on from there, rather than fail the row for good."""


def _raise_if_disk_full(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFull(
            f"no space left: {error}. Free some space and run the same command again: finished parts are kept"
        ) from error


def _checked(stage: Stage[In, Out], rows: Sequence[In]) -> list[Outcome[Out]]:
    made = list(stage.process(rows))
    if len(made) != len(rows):
        raise DataError(f"stage {stage.name} gave {len(made)} outcomes for {len(rows)} rows; it must give one each")
    return made


def _alone(stage: Stage[In, Out], row: In) -> Outcome[Out]:
    try:
        return _checked(stage, [row])[0]
    except NOT_THE_ROWS_FAULT:
        raise
    except Exception as error:  # noqa: BLE001 - the edge of the worker: the row is kept with its error
        _raise_if_disk_full(error)
        return Failed(f"{type(error).__name__}: {error}")
