"""What a stage is: one method from a batch of rows to one outcome per row; the base does everything else.

The author of a stage writes `process` (the science). Loading, batching, isolation of a bad row, counting, writing and resuming
are done by `execute.run_stage`, which holds the law of the house: kept + dropped + failed = input, one `Outcome` for each row.

A stage is a pydantic model: its constructor arguments are its configuration, typed, keyword-only and serialisable, and a study file
holds them under the stage's name. Constructors do no work; models and side tables are loaded in `open`, once in each worker.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError, DependencyError, DiskFull
from undertone.records import Record

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

    out_dir: Path
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

    def open(self, context: Context) -> None:
        """Load models and side tables; called once in each worker before the first batch."""

    def process(self, rows: Sequence[In]) -> Sequence[Outcome[Out]]:
        """Turn rows into outcomes, one for each row and in their order."""
        raise NotImplementedError(f"stage {self.name} does not implement process")

    def identity(self) -> dict[str, Any]:
        """What makes two stages of one name and version different, beside their input: goes into the fingerprint."""
        return self.model_dump(mode="json")


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


NOT_THE_ROWS_FAULT = (DiskFull, DependencyError, MemoryError)
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
