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

A folder may lie in an object store (`paths.Remote`): a part is then one PUT, and claims take the place of `_lock`.

Damage is noticed wherever it falls: pages of a part carry checksums, `_done.json` holds size and digest of every file's footer, and markers
are sealed with a digest of themselves. A damaged part of an unfinished table is made again; a damaged finished table is refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, Self, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.errors import DataError, DiskFull, ResumeMismatch
from undertone.paths import Claim, Location, Remote, StoreError, is_claim, open_parquet, remove_tree
from undertone.records import Loss, Record, arrow_schema, from_arrow, iter_arrow, to_arrow

R = TypeVar("R", bound=Record)
M = TypeVar("M", bound=BaseModel)

LOCK = "_lock"
_META_KEY = b"undertone.part"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TAIL = 1 << 16
_AT_ONCE = 16
"""Files looked at together: an object store answers in tens of milliseconds, whatever it is asked."""

_HELD: dict[Remote, Claim] = {}
"""Claims of this process, so that `finish` can tell that one was lost."""


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


class _Sealed(BaseModel):
    """A marker that carries a digest of itself, so that one changed by hand or by a disk does not pass for another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seal: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        content = json.loads(self.model_dump_json(exclude={"seal", *_ADDED_LATER}))
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        if self.seal and self.seal != digest:
            raise ValueError("its content is not what was written")
        object.__setattr__(self, "seal", digest)
        return self


_ADDED_LATER = ("bytes", "footer")


class FileSeal(BaseModel):
    """Size of a Parquet file in bytes, and digest of its footer; the footer knows its pages, which carry checksums."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = 0
    footer: str = ""


class PartInfo(_Sealed):
    """What one part holds: input rows and their fates, output rows, content digest; size and footer as in `FileSeal`."""

    file: str
    inputs: int
    kept: int
    dropped: int
    failed: int
    rows: int
    digest: str
    bytes: int = 0
    footer: str = ""


class Counts(BaseModel):
    """Fates of a table's input rows; `kept + dropped + failed == inputs` always. `rows` counts output rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int
    kept: int
    dropped: int
    failed: int
    rows: int
    reasons: dict[str, int] = Field(default_factory=dict)


class Done(_Sealed):
    """The content of `_done.json`; `losses` are the seals of dropped.parquet and failed.parquet."""

    record: str
    fingerprint: Fingerprint
    counts: Counts
    digest: str
    parts: tuple[PartInfo, ...]
    losses: dict[str, FileSeal] = Field(default_factory=dict)


class _Begun(BaseModel):
    """What every `_done.json` tells, that of an artefact too."""

    fingerprint: Fingerprint


def _read_marker(marker: Location, model: type[M]) -> M | None:
    """A marker's content, None where it is not there."""
    try:
        return model.model_validate_json(marker.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{marker} is damaged: {error}. Delete {marker.parent} and run the same command again") from error


class Table(Generic[R]):
    """A finished table, opened for reading."""

    def __init__(self, path: Location, record: type[R], done: Done) -> None:
        self.path, self.record, self.done = path, record, done

    @property
    def digest(self) -> str:
        return self.done.digest

    def __len__(self) -> int:
        return self.done.counts.rows

    def arrow(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as one Arrow table, or some columns of it."""
        return pa.concat_tables([self.read(part, columns) for part in self.done.parts])

    def part(self, index: int) -> list[R]:
        """The rows of one part."""
        return from_arrow(self.read(self.done.parts[index], None), self.record)

    def rows(self) -> Iterator[R]:
        """All rows in order, one part in memory at a time."""
        for part in self.done.parts:
            yield from iter_arrow(self.read(part, None), self.record)

    def columns(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of all rows, one part in memory at a time."""
        for part in self.done.parts:
            yield self.read(part, names)

    def dropped(self) -> list[Loss]:
        """The rows that a rule dropped."""
        return self._losses("dropped.parquet")

    def failed(self) -> list[Loss]:
        """The rows that raised."""
        return self._losses("failed.parquet")

    def _losses(self, name: str) -> list[Loss]:
        return from_arrow(_read_sealed(self.path / name, self.done.losses.get(name)), Loss)

    def read(self, part: PartInfo, columns: Sequence[str] | None) -> pa.Table:
        seal = FileSeal(bytes=part.bytes, footer=part.footer)
        return _read_sealed(self.path / part.file, seal, columns=columns)


def read_parquet(file: Location, *, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file as an Arrow table; a DataError that names the file where it cannot be read.

    Args:
        file: The file.
        columns: Columns, or leaves of them ("segments.list.element.speaker"); all if None.
    """
    return _read_sealed(file, None, columns=columns)


def _read_sealed(file: Location, seal: FileSeal | None, *, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file that must be what its seal says; page checksums are verified while it is read."""
    try:
        with open_parquet(file) as source:
            if seal is not None and source.size() != seal.bytes:
                raise _changed(file, f"has {source.size()} bytes, but _done.json says {seal.bytes} bytes")
            if seal is not None and seal.footer and _seal_of(source).footer != seal.footer:
                raise _changed(file, "has another footer than _done.json says")
            source.seek(0)
            with pq.ParquetFile(source, page_checksum_verification=True) as opened:
                return opened.read(columns=list(columns) if columns is not None else None)
    except FileNotFoundError as error:
        if seal is not None:
            raise _changed(file, "is missing, but _done.json lists it") from error
        raise DataError(f"{file} is missing. Delete its folder and run the same command again") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}. Delete its folder and run the same command again") from error


def _changed(file: Location, how: str) -> DataError:
    return DataError(f"{file} {how}: it was changed by hand. Delete {file.parent} and run the same command again")


def _seal_of(source: pa.NativeFile) -> FileSeal:
    """Size and digest of the footer of an open Parquet file; a file without one gets the digest of its end."""
    size = source.size()
    source.seek(max(0, size - _TAIL))
    tail = source.read(min(size, _TAIL))
    length = 8 + int.from_bytes(tail[-8:-4], "little")
    if len(tail) < length <= size:
        source.seek(size - length)
        tail = source.read(length)
    return FileSeal(bytes=size, footer=hashlib.sha256(tail[-length:]).hexdigest()[:16])


def open_table(path: Location, record: type[R]) -> Table[R]:
    """Open a finished table.

    Raises:
        DataError: There is no finished table of this record class at `path`.
    """
    marker = path / "_done.json"
    done = _read_marker(marker, Done)
    if done is None:
        state = "is not finished; run the same command again to finish it" if path.exists() else "does not exist"
        raise DataError(f"table {path} {state} (no {marker.name})")
    if done.record != record.__name__:
        raise DataError(f"table {path} holds {done.record} rows, expected {record.__name__}")
    return Table(path, record, done)


# ---- writing -------------------------------------------------------------------------------------------------------------------


def write_bytes(file: Location, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        DataError: The disk is full; nothing that was complete is lost.
    """
    with atomic(file) as draft:
        draft.write_bytes(content)


@contextmanager
def atomic(file: Location) -> Iterator[Path]:
    """A draft path to write to; renamed (or put) to `file` on success, removed on error.

    Raises:
        DataError: The disk (or a quota) is full; nothing that was complete is lost.
        StoreError: The object store does not take it.
    """
    if isinstance(file, Remote):
        with _disk_errors(file), tempfile.TemporaryDirectory(prefix="undertone-") as folder:
            draft = Path(folder) / file.name
            yield draft
            file.write_bytes(draft.read_bytes())
        return
    draft = file.with_name(f".{file.name}.{os.getpid()}-{uuid4().hex[:8]}.draft")
    try:
        with _disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            with draft.open("rb") as handle:
                os.fsync(handle.fileno())
            draft.replace(file)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


@contextmanager
def _disk_errors(file: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise disk_full(file, error) from error
        raise DataError(f"cannot write {file}: {error.strerror or error}. Choose another --out, or mend its folder") from error


def disk_full(file: Location, error: OSError) -> DiskFull:
    """The error for a full disk: what is complete stays, so freeing space and the same command go on from there."""
    cause = os.strerror(error.errno or errno.ENOSPC)
    return DiskFull(f"cannot write {file}: {cause}. Free some space and run the same command again: finished parts are kept")


def content_digest(table: pa.Table, record: type[Record]) -> str:
    """sha256 over the rows' content, volatile fields left out.

    The same for equal rows, however they are chunked, wherever they were made, and before and after a file: what lies in memory under a
    null is not content, nor is what a file adds to the schema.
    """
    names = [name for name in table.column_names if name not in record.volatile]
    digest = hashlib.sha256(repr(names).encode())
    for name in names:
        for leaf in _flat(_one_array(table.column(name))):
            # Through IPC rather than the raw buffers: IPC normalises offsets and drops slack behind the data.
            digest.update(pa.record_batch([leaf], names=["leaf"]).serialize())
    return digest.hexdigest()


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def _flat(array: pa.Array) -> Iterator[pa.Array]:
    """The content of a nested array as flat arrays without nulls: where it holds something, how long its lists are, its values."""
    yield array.is_valid()
    if pa.types.is_struct(array.type):
        for child in array.flatten():
            yield from _flat(child)
    elif pa.types.is_map(array.type):  # a list of entries, which Arrow's functions know
        yield from _flat(array.cast(pa.list_(pa.struct([array.type.key_field, array.type.item_field]))))
    elif pa.types.is_list(array.type):
        yield pc.fill_null(array.value_lengths(), 0)
        yield from _flat(array.flatten())
    else:
        yield pc.fill_null(array, _ZERO[array.type]) if array.null_count else array


_ZERO: dict[pa.DataType, Any] = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): False}


def write_part(
    folder: Location,
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
    lost = {kind: [loss for failed, loss in losses if failed == (kind == "failed")] for kind in ("dropped", "failed")}
    return write_part_columns(
        folder,
        index,
        record=record,
        rows=to_arrow(rows, record),
        inputs=inputs,
        kept=kept,
        dropped=to_arrow(lost["dropped"], Loss),
        failed=to_arrow(lost["failed"], Loss),
    )


def write_part_columns(
    folder: Location,
    index: int,
    *,
    record: type[Record],
    rows: pa.Table,
    inputs: int,
    kept: int,
    dropped: pa.Table | None = None,
    failed: pa.Table | None = None,
) -> PartInfo:
    """What `write_part` does, for rows and losses that are columns already; no losses of a kind if None.

    Raises:
        DataError: Kept, dropped and failed rows are not the input rows.
    """
    schema = arrow_schema(record)
    rows = rows.select(schema.names).cast(schema)
    lost = {"dropped": dropped, "failed": failed}
    losses = {kind: to_arrow([], Loss) if found is None else found for kind, found in lost.items()}
    info = PartInfo(
        file=_part_name(index),
        inputs=inputs,
        kept=kept,
        dropped=len(losses["dropped"]),
        failed=len(losses["failed"]),
        rows=len(rows),
        digest=content_digest(rows, record),
    )
    if info.kept + info.dropped + info.failed != inputs:
        raise DataError(
            f"{folder.name} part {index}: {kept} kept + {info.dropped} dropped + {info.failed} failed is not {inputs} input rows"
        )
    for kind, found in losses.items():
        write_table(work_file(folder, index, kind), found)
    write_table(folder / info.file, rows.replace_schema_metadata({_META_KEY: info.model_dump_json().encode()}))
    return info


def write_table(file: Location, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all, with checksums of its pages."""
    with atomic(file) as draft:
        pq.write_table(table, draft, compression="zstd", write_page_checksum=True, **_encodings(table.schema))


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """How columns are stored: repeated strings as dictionaries, times as differences, the rest plainly.

    Arrow's default tries a dictionary of every float and every key first, and keeps statistics that nobody reads: a third of the time
    that writing takes, and files a fifth larger.
    """
    leaves = {path: kind for field in schema for path, kind in _leaves(field.name, field.type)}
    return {
        "write_statistics": False,
        "use_dictionary": [path for path, kind in leaves.items() if kind == pa.string() and path not in ("id", "row_id")],
        "column_encoding": {path: "DELTA_BINARY_PACKED" for path, kind in leaves.items() if kind == pa.int64()},
    }


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The leaves of a column under the names that they have in Parquet."""
    if pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind


def finished_part(folder: Location, index: int, *, record: type[Record] | None = None) -> PartInfo | None:
    """What a committed part says of itself, or None where it is not there, or is not what was written (then it is removed).

    All of it is read, so that a run which goes on stands on nothing that was damaged meanwhile.

    Args:
        folder: The table's folder.
        index: Number of the part.
        record: Class of the rows; given, the digest of their content is made again as well.
    """
    try:
        found = _part_info(folder, index)
        if found is None:
            return None
        rows = read_parquet(folder / found.file)
        losses = [len(_read_losses(folder, index, kind)) for kind in ("dropped", "failed")]
        digest = found.digest
        if record is not None:  # a schema is not content: names and types of nested fields are compared by themselves
            digest = content_digest(rows, record) if rows.schema.equals(arrow_schema(record)) else ""
        if [digest, len(rows), *losses] == [found.digest, found.rows, found.dropped, found.failed]:
            return found
    except DataError:
        pass
    (folder / _part_name(index)).unlink(missing_ok=True)
    return None


def _part_info(folder: Location, index: int) -> PartInfo | None:
    """What a part's footer says, with its seal; None where the part is not there.

    Raises:
        DataError: The footer is damaged.
    """
    file = folder / _part_name(index)
    try:
        with open_parquet(file) as source:
            seal = _seal_of(source)
            source.seek(0)
            info = PartInfo.model_validate_json((pq.read_schema(source).metadata or {})[_META_KEY])
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error}. Delete it and run the same command again") from error
    if info.file != file.name:
        raise DataError(f"{file} holds {info.file}: it was moved by hand. Delete it and run the same command again")
    return info.model_copy(update=seal.model_dump())


def _part_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def work_file(folder: Location, index: int, kind: str) -> Location:
    """Where what belongs to a part lies until its table is finished: "dropped" and "failed" rows, or a stage's own."""
    return folder / "_work" / f"{index:05d}.{kind}.parquet"


def begin(folder: Location, fingerprint: Fingerprint, *, redo_hint: str) -> None:
    """Claim a folder for a fingerprint, or refuse because it holds the work of another one.

    Args:
        folder: The table's folder.
        fingerprint: What is about to be written.
        redo_hint: The command that starts this stage over, for the message.

    Raises:
        ResumeMismatch: The folder was begun with another fingerprint; the message names the first keys that differ.
    """
    before = _read_marker(folder / "_plan.json", Fingerprint)
    done = _read_marker(folder / "_done.json", _Begun)
    for found in (before, done.fingerprint if done else None):
        if found is not None:
            refuse_other(folder, found, fingerprint, redo_hint=redo_hint)
    if before is not None:
        return
    if done is not None or any(folder.glob("part-*.parquet")):
        held = "a _done.json" if done is not None else "parts"
        raise ResumeMismatch(
            f"{folder} holds {held} but no _plan.json, so it cannot be told what made them. Choose a new --out, or {redo_hint}"
        )
    plan = fingerprint.model_dump_json(indent=1).encode()
    if isinstance(folder, Remote) or not _link_new(folder / "_plan.json", plan):
        write_bytes(folder / "_plan.json", plan)
    found = _read_marker(folder / "_plan.json", Fingerprint)
    if found is not None:  # jobs that share the folder's lock may have begun at once: one of them wins
        refuse_other(folder, found, fingerprint, redo_hint=redo_hint)


def _link_new(file: Path, content: bytes) -> bool:
    """Make a file that is not there yet, whole or not at all; leave one that is. False where the file system has no links."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    write_bytes(draft, content)
    try:
        os.link(draft, file)
    except FileExistsError:
        pass
    except OSError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def refuse_other(folder: Location, before: Fingerprint, now: Fingerprint, *, redo_hint: str) -> None:
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


def finish(folder: Location, fingerprint: Fingerprint, *, record: type[Record], parts: int) -> Done:
    """Gather the losses, write `_done.json` last, remove the work folder.

    Raises:
        DataError: A part vanished or was damaged, or another run took the folder over.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        infos = list(pool.map(lambda index: _committed(folder, index), range(parts)))
        reasons: dict[str, int] = {}
        seals = {}
        for kind in ("dropped", "failed"):
            pieces = list(pool.map(lambda index, kind=kind: _read_losses(folder, index, kind), range(parts)))
            losses = pa.concat_tables([*pieces, to_arrow([], Loss)])
            if len(losses) != sum(getattr(one, kind) for one in infos):
                raise DataError(
                    f"{folder}/_work holds {len(losses)} {kind} rows, its parts say {sum(getattr(one, kind) for one in infos)}: it was "
                    f"changed by hand. Delete {folder}/_work and run the same command again"
                )
            for one in pc.value_counts(losses.column("reason")).to_pylist():
                reasons[one["values"]] = reasons.get(one["values"], 0) + one["counts"]
            write_table(folder / f"{kind}.parquet", losses)
            with open_parquet(folder / f"{kind}.parquet") as source:
                seals[f"{kind}.parquet"] = _seal_of(source)
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
        losses=seals,
    )
    if isinstance(folder, Remote) and folder in _HELD and _HELD[folder].is_lost:
        raise DataError(f"{folder} was taken over by another run while this one did not renew its claim; wait for that run")
    write_bytes(folder / "_done.json", done.model_dump_json(indent=1).encode())
    with suppress(OSError, StoreError):  # the table is complete; what is left is litter
        remove_tree(folder / "_work")
    for draft in folder.rglob(".*.draft") if isinstance(folder, Path) else ():  # of processes that were killed
        draft.unlink(missing_ok=True)
    return done


def _read_losses(folder: Location, index: int, kind: str) -> pa.Table:
    """The losses of one part; DataError where they are none any more."""
    file = work_file(folder, index, kind)
    found = read_parquet(file)
    if not found.schema.equals(arrow_schema(Loss)):
        raise _changed(file, "holds other columns than a part's losses")
    return found


def _committed(folder: Location, index: int) -> PartInfo:
    info = _part_info(folder, index)
    if info is None:
        raise DataError(f"{folder}: part {index} vanished while the run was going on; is another run using this folder?")
    return info


def finished(folder: Location) -> Done | None:
    """The done marker of a folder, or None.

    Raises:
        DataError: A file that the marker lists is gone or has another size; what is inside is looked at when it is read.
    """
    done = _read_marker(folder / "_done.json", Done)
    if done is None:
        return None
    expected = {part.file: part.bytes for part in done.parts} | {name: seal.bytes for name, seal in done.losses.items()}
    there = folder.sizes() if isinstance(folder, Remote) else {one.name: one.stat().st_size for one in os.scandir(folder)}
    for name, size in expected.items():
        if there.get(name) != size:
            was = f"has {there[name]} bytes" if name in there else "is missing"
            raise _changed(folder / name, f"{was}, but _done.json says {size} bytes")
    return done


@contextmanager
def locked(folder: Location, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder for one writer, or for several that write other parts of one table each; the lock ends with its process.

    On a disk this is `flock` (on a network disk it works as far as the disk carries it between machines), in an object store a
    claim (`paths.Claim`). Whoever finishes the table holds it alone.

    Args:
        folder: The table's folder.
        shared: Others may hold it too, if they share it.

    Raises:
        DataError: Another process is writing into the folder.
    """
    if isinstance(folder, Remote):
        claim = Claim(folder, shared=shared)
        claim.take()
        _HELD[folder] = claim
        try:
            yield
        finally:
            del _HELD[folder]
            with suppress(StoreError):  # it ends by itself
                claim.release()
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}. Choose another --out") from error
    with (folder / LOCK).open("a+") as handle:  # to share a lock over NFS the file must be readable
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder} is being written by another run; wait for it, or choose a new --out") from error
        except OSError as error:
            raise DataError(
                f"cannot lock {folder}: {error.strerror}. Its file system must have locks (Lustre: mount option flock); choose another --out"
            ) from error
        yield


def clear(folder: Location) -> None:
    """Remove a table and all that goes with it, but not the tables in folders below it."""
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.name == LOCK or is_claim(child):  # whoever clears a folder holds it
            continue
        if not child.is_dir():
            child.unlink(missing_ok=True)
        elif not _holds_tables(child):
            remove_tree(child)


def holds_others(folder: Location) -> bool:
    """Whether other tables lie inside a table's folder."""
    return folder.is_dir() and any(child.is_dir() and _holds_tables(child) for child in folder.iterdir())


def _holds_tables(folder: Location) -> bool:
    return any(folder.rglob("_plan.json"))
