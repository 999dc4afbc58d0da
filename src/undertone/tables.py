"""Tables on disk: sharded Parquet in which presence means complete, and which know what made them.

    FOLDER/
      _plan.json          what is being written: fingerprint and number of parts; the first file of a run
      part-00000.parquet  kept rows; written under another name, then renamed, so that a part that is there is whole
      dropped.parquet     rows that a rule dropped, with its reason
      failed.parquet      rows that raised, with the error
      _done.json          counts, digests, fingerprint; the last file of a run: without it the table is not there yet
      _work/              losses of single parts while the run goes on

A digest is over the rows' content without their volatile fields (absolute paths, seconds), so two runs of one study in two
folders have equal digests. A fingerprint (stage, version, configuration, seed, digests of inputs) that does not match refuses to
resume and names the key that differs.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import DataError, DiskFull, ResumeMismatch
from undertone.records import Loss, Record, from_arrow, iter_arrow, to_arrow

R = TypeVar("R", bound=Record)
M = TypeVar("M", bound=BaseModel)

LOCK = "_lock"
_META_KEY = b"undertone.part"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Fingerprint(BaseModel):
    """What a table is a function of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: str
    seed: int
    config: dict[str, Any]
    inputs: dict[str, str]
    limit: int | None = None

    def flat(self) -> dict[str, str]:
        """Dotted keys to printable values, for the comparison of two fingerprints."""
        found: dict[str, str] = {}

        def walk(prefix: str, value: Any) -> None:
            if isinstance(value, dict) and value:
                for key, one in value.items():
                    walk(f"{prefix}.{key}" if prefix else str(key), one)
            else:
                found[prefix] = json.dumps(value, sort_keys=True)

        walk("", json.loads(self.model_dump_json()))
        return found


class PartInfo(BaseModel):
    """What one part holds: input rows and their fates, output rows, content digest, size of the file in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    inputs: int
    kept: int
    dropped: int
    failed: int
    rows: int
    digest: str
    bytes: int = 0


class Counts(BaseModel):
    """Fates of a table's input rows; `kept + dropped + failed == inputs` always. `rows` counts output rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int
    kept: int
    dropped: int
    failed: int
    rows: int
    reasons: dict[str, int] = Field(default_factory=dict)


class Done(BaseModel):
    """The content of `_done.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: str
    fingerprint: Fingerprint
    counts: Counts
    digest: str
    parts: tuple[PartInfo, ...]


def _read_marker(marker: Path, model: type[M]) -> M:
    try:
        return model.model_validate_json(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{marker} is damaged: {error}. Delete {marker.parent} and run the same command again") from error


class Table(Generic[R]):
    """A finished table, opened for reading."""

    def __init__(self, path: Path, record: type[R], done: Done) -> None:
        self.path, self.record, self.done = path, record, done

    @property
    def digest(self) -> str:
        return self.done.digest

    def __len__(self) -> int:
        return self.done.counts.rows

    def arrow(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as one Arrow table, or some columns of it."""
        return pa.concat_tables([self._read(part, columns) for part in self.done.parts])

    def part(self, index: int) -> list[R]:
        """The rows of one part."""
        return from_arrow(self._read(self.done.parts[index], None), self.record)

    def rows(self) -> Iterator[R]:
        """All rows in order, one part in memory at a time."""
        for part in self.done.parts:
            yield from iter_arrow(self._read(part, None), self.record)

    def dropped(self) -> list[Loss]:
        """The rows that a rule dropped."""
        return from_arrow(read_parquet(self.path / "dropped.parquet"), Loss)

    def failed(self) -> list[Loss]:
        """The rows that raised."""
        return from_arrow(read_parquet(self.path / "failed.parquet"), Loss)

    def _read(self, part: PartInfo, columns: Sequence[str] | None) -> pa.Table:
        file = self.path / part.file
        size = file.stat().st_size if file.exists() else -1
        if size != part.bytes:
            was = "is missing" if size < 0 else f"has {size} bytes"
            raise DataError(
                f"{file} {was}, but {self.path.name}/_done.json says {part.bytes} bytes: it was changed by hand. "
                f"Delete {self.path} and run the same command again"
            )
        return read_parquet(file, columns=columns)


def read_parquet(file: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file as an Arrow table; a DataError that names the file where it cannot be read."""
    try:
        return pq.read_table(file, columns=list(columns) if columns is not None else None, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}. Delete its folder and run the same command again") from error


def open_table(path: Path, record: type[R]) -> Table[R]:
    """Open a finished table.

    Raises:
        DataError: There is no finished table of this record class at `path`.
    """
    marker = path / "_done.json"
    if not marker.exists():
        state = "is not finished; run the same command again to finish it" if path.exists() else "does not exist"
        raise DataError(f"table {path} {state} (no {marker.name})")
    done = _read_marker(marker, Done)
    if done.record != record.__name__:
        raise DataError(f"table {path} holds {done.record} rows, expected {record.__name__}")
    return Table(path, record, done)


# ---- writing -------------------------------------------------------------------------------------------------------------------


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        DataError: The disk is full; nothing that was complete is lost.
    """
    with atomic(file) as draft:
        draft.write_bytes(content)


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A draft path to write to; renamed to `file` on success, removed on error.

    Raises:
        DataError: The disk (or a quota) is full; nothing that was complete is lost.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with draft.open("rb") as handle:
            os.fsync(handle.fileno())
        draft.replace(file)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if error.errno in DISK_FULL:
            raise disk_full(file, error) from error
        raise DataError(f"cannot write {file}: {error.strerror or error}. Choose another --out, or mend its folder") from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def disk_full(file: Path, error: OSError) -> DiskFull:
    """The error for a full disk: what is complete stays, so freeing space and the same command go on from there."""
    cause = os.strerror(error.errno or errno.ENOSPC)
    return DiskFull(f"cannot write {file}: {cause}. Free some space and run the same command again: finished parts are kept")


def content_digest(table: pa.Table, record: type[Record]) -> str:
    """sha256 over the rows' content, volatile fields left out. Independent of chunking."""
    stable = table.drop_columns([name for name in record.volatile if name in table.column_names]).combine_chunks()
    sink = hashlib.sha256()
    sink.update(repr(stable.schema.names).encode())
    for batch in stable.to_batches() or []:
        # Through IPC rather than the raw buffers: IPC normalises offsets and drops slack behind the data.
        sink.update(batch.serialize())
    return sink.hexdigest()


def write_part(
    folder: Path,
    index: int,
    *,
    record: type[Record],
    rows: Sequence[Record],
    inputs: int,
    kept: int,
    losses: Sequence[tuple[bool, Loss]],
) -> PartInfo:
    """Commit one part: its losses first, its rows last, so that a part that is there is accounted for.

    Args:
        folder: The table's folder.
        index: Number of the part.
        record: Class of the rows.
        rows: Output rows.
        inputs: Number of input rows.
        kept: Number of input rows that were kept.
        losses: `(failed, loss)` for every other input row.
    """
    for kind in ("dropped", "failed"):
        chosen = [loss for failed, loss in losses if failed == (kind == "failed")]
        _write_table(folder / "_work" / f"{index:05d}.{kind}.parquet", to_arrow(chosen, Loss))
    table = to_arrow(rows, record)
    failed_count = sum(failed for failed, _ in losses)
    info = PartInfo(
        file=f"part-{index:05d}.parquet",
        inputs=inputs,
        kept=kept,
        dropped=len(losses) - failed_count,
        failed=failed_count,
        rows=len(rows),
        digest=content_digest(table, record),
    )
    if info.kept + info.dropped + info.failed != inputs:
        raise DataError(
            f"{folder.name} part {index}: {kept} kept + {info.dropped} dropped + {failed_count} failed is not {inputs} input rows"
        )
    _write_table(folder / info.file, table.replace_schema_metadata({_META_KEY: info.model_dump_json().encode()}))
    return info


def _write_table(file: Path, table: pa.Table) -> None:
    with atomic(file) as draft:
        pq.write_table(table, draft, compression="zstd")


def finished_part(folder: Path, index: int) -> PartInfo | None:
    """What a committed part says of itself, or None where it is not there (or is not readable, then it is removed)."""
    file = folder / f"part-{index:05d}.parquet"
    if not file.exists():
        return None
    try:
        metadata = pq.read_schema(file).metadata or {}
        info = PartInfo.model_validate_json(metadata[_META_KEY])
        if not all((folder / "_work" / f"{index:05d}.{kind}.parquet").exists() for kind in ("dropped", "failed")):
            return None
    except (OSError, pa.ArrowException, KeyError, ValueError):
        file.unlink(missing_ok=True)
        return None
    return info.model_copy(update={"bytes": file.stat().st_size})


def begin(folder: Path, fingerprint: Fingerprint, *, redo_hint: str) -> None:
    """Claim a folder for a fingerprint, or refuse because it holds the work of another one.

    Args:
        folder: The table's folder.
        fingerprint: What is about to be written.
        redo_hint: The command that starts this stage over, for the message.

    Raises:
        ResumeMismatch: The folder was begun with another fingerprint; the message names the first keys that differ.
    """
    plan = folder / "_plan.json"
    if plan.exists():
        refuse_other(folder, _read_marker(plan, Fingerprint), fingerprint, redo_hint=redo_hint)
        return
    if folder.exists() and any(folder.glob("part-*.parquet")):
        raise ResumeMismatch(
            f"{folder} holds parts but no _plan.json, so it cannot be told what made them. Choose a new --out, or {redo_hint}"
        )
    write_bytes(plan, fingerprint.model_dump_json(indent=1).encode())


def refuse_other(folder: Path, before: Fingerprint, now: Fingerprint, *, redo_hint: str) -> None:
    """Raise ResumeMismatch, naming the keys, unless the two fingerprints are equal."""
    old, new = before.flat(), now.flat()
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not differ:
        return
    shown = "; ".join(f"{key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in differ[:3])
    more = f" and {len(differ) - 3} more keys" if len(differ) > 3 else ""
    raise ResumeMismatch(f"{folder} was written with {shown}{more}. Choose a new --out, or {redo_hint}")


def _short(value: str | None) -> str:
    return "(absent)" if value is None else value if len(value) <= 60 else value[:28] + "..." + value[-28:]


def finish(folder: Path, fingerprint: Fingerprint, *, record: type[Record], parts: int) -> Done:
    """Gather the losses, write `_done.json` last, remove the work folder."""
    infos = []
    for index in range(parts):
        info = finished_part(folder, index)
        if info is None:
            raise DataError(f"{folder}: part {index} vanished while the run was going on; is another run using this folder?")
        infos.append(info)
    reasons: dict[str, int] = {}
    for kind in ("dropped", "failed"):
        pieces = [read_parquet(folder / "_work" / f"{index:05d}.{kind}.parquet") for index in range(parts)]
        losses = pa.concat_tables([*pieces, to_arrow([], Loss)])
        for reason in losses.column("reason").to_pylist():
            reasons[reason] = reasons.get(reason, 0) + 1
        _write_table(folder / f"{kind}.parquet", losses)
    done = Done(
        record=record.__name__,
        fingerprint=fingerprint,
        counts=Counts(
            inputs=sum(one.inputs for one in infos),
            kept=sum(one.kept for one in infos),
            dropped=sum(one.dropped for one in infos),
            failed=sum(one.failed for one in infos),
            rows=sum(one.rows for one in infos),
            reasons=dict(sorted(reasons.items())),
        ),
        digest=hashlib.sha256("".join(one.digest for one in infos).encode()).hexdigest(),
        parts=tuple(infos),
    )
    write_bytes(folder / "_done.json", done.model_dump_json(indent=1).encode())
    shutil.rmtree(folder / "_work", ignore_errors=True)
    for draft in folder.rglob(".*.draft"):  # of processes that were killed
        draft.unlink(missing_ok=True)
    return done


def finished(folder: Path) -> Done | None:
    """The done marker of a folder, or None."""
    marker = folder / "_done.json"
    return _read_marker(marker, Done) if marker.exists() else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one writer; the lock ends with the process, however it ends.

    Raises:
        DataError: Another process is writing into the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}. Choose another --out") from error
    with (folder / LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{folder} is being written by another run; wait for it, or choose a new --out") from error
        yield


def clear(folder: Path) -> None:
    """Remove a table and all that goes with it, but not the tables in folders below it."""
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.name == LOCK:  # whoever clears a folder holds it
            continue
        if child.is_dir() and any(child.rglob("_plan.json")):
            continue
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
