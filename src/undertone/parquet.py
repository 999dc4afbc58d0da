"""Single Parquet files: read as what they were sealed to be, written whole or not at all, and the digest of what they hold.

Damage is noticed: pages carry checksums, and a `FileSeal` holds a file's size and a digest of its footer. How columns are encoded, and what
is content and what is not, is decided here; what files are to each other is decided in `tables`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError, DiskFull
from undertone.paths import Location, Remote, open_parquet
from undertone.records import Record

ROWS = "rows_in_source"
"""The column of a file that borrows rows: which rows of another file."""

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TAIL = 1 << 16


class FileSeal(BaseModel):
    """Size of a Parquet file in bytes, and digest of its footer; the footer knows its pages, which carry checksums."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = 0
    footer: str = ""


def read_parquet(file: Location, *, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file as an Arrow table; a DataError that names the file where it cannot be read.

    Args:
        file: The file.
        columns: Columns, or leaves of them ("segments.list.element.speaker"); all if None.
    """
    return read_sealed(file, None, columns=columns)


def read_sealed(file: Location, seal: FileSeal | None, *, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file that must be what its seal says; page checksums are verified while it is read."""
    try:
        with open_parquet(file) as source:
            if seal is not None and source.size() != seal.bytes:
                raise changed(file, f"has {source.size()} bytes, but _done.json says {seal.bytes} bytes")
            if seal is not None and seal.footer and seal_of(source).footer != seal.footer:
                raise changed(file, "has another footer than _done.json says")
            source.seek(0)
            with pq.ParquetFile(source, page_checksum_verification=True) as opened:
                return opened.read(columns=list(columns) if columns is not None else None)
    except FileNotFoundError as error:
        if seal is not None:
            raise changed(file, "is missing, but _done.json lists it") from error
        raise DataError(f"{file} is missing. Delete its folder and run the same command again") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}. Delete its folder and run the same command again") from error


def changed(file: Location, how: str) -> DataError:
    """The error for a file that is not what was written."""
    return DataError(f"{file} {how}: it was changed by hand. Delete {file.parent} and run the same command again")


def seal_of(source: pa.NativeFile) -> FileSeal:
    """Size and digest of the footer of an open Parquet file; a file without one gets the digest of its end."""
    size = source.size()
    source.seek(max(0, size - _TAIL))
    tail = source.read(min(size, _TAIL))
    length = 8 + int.from_bytes(tail[-8:-4], "little")
    if len(tail) < length <= size:
        source.seek(size - length)
        tail = source.read(length)
    return FileSeal(bytes=size, footer=hashlib.sha256(tail[-length:]).hexdigest()[:16])


class Lend(Protocol):
    """Gives columns (all if None) of some rows, by their numbers."""

    def __call__(self, columns: Sequence[str] | None, rows: pa.Array, /) -> pa.Table: ...


def filled(own: pa.Table, inside: str | None, columns: Sequence[str] | None, lend: Lend) -> pa.Table:
    """What a file that borrows rows stands for.

    Args:
        own: The columns of its own, and `ROWS`: a number of a row of the source, or with `inside` a list of them, for each row.
        inside: The column of lists whose elements the source's rows are (without their ids); None where they are the rows themselves.
        columns: Columns that are asked for, or leaves of them; all if None.
        lend: Gives such columns of such rows of the source.
    """
    numbers = one_array(own[ROWS])
    if inside is None:
        return lend(columns, numbers)
    own = own.drop_columns([ROWS])
    if columns is not None:
        own = own.select([name for name in own.column_names if name in {one.split(".")[0] for one in columns}])
        start = f"{inside}.list.element."
        columns = None if inside in columns else [one.removeprefix(start) for one in columns if one.startswith(start)]
        if columns == []:
            return own
    lent = lend(columns, numbers.flatten())
    fields = [field for field in lent.schema if field.name != "id"]
    structs = pa.StructArray.from_arrays([one_array(lent[field.name]) for field in fields], fields=fields)
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(numbers).to_numpy())])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)
    return own.append_column(pa.field(inside, lists.type, nullable=False), lists)


def taken(table: pa.Table, rows: pa.Array | None) -> pa.Table:
    """Some rows of a table by their numbers, all if None."""
    if rows is None or np.array_equal(rows.to_numpy(), np.arange(len(table))):
        return table
    return table.take(rows)


# ---- writing -------------------------------------------------------------------------------------------------------------------


def write_bytes(file: Location, content: bytes, *, synced: bool = True) -> None:
    """Write a file so that it is there whole or not at all.

    Args:
        file: The file.
        content: Of it.
        synced: See `atomic`.

    Raises:
        DataError: The disk is full; nothing that was complete is lost.
    """
    with atomic(file, synced=synced) as draft:
        draft.write_bytes(content)


@contextmanager
def atomic(file: Location, *, synced: bool = True) -> Iterator[Path]:
    """A draft path to write to; renamed (or put) to `file` on success, removed on error.

    Args:
        file: The file.
        synced: On the disk itself before it is renamed, so that a machine which loses power has it too. A killed process loses nothing
            without it.

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
            if synced:
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
    """xxh3 of 128 bits over the rows' content, volatile fields left out.

    The same for equal rows, however they are chunked, wherever they were made, and before and after a file: what lies in memory under a
    null is not content, nor is what a file adds to the schema. It tells accidents, not forgeries; sha256 took a tenth of all condensation.
    """
    names = [name for name in table.column_names if name not in record.volatile]
    digest = xxhash.xxh3_128(repr(names).encode())
    for name in names:
        for leaf in _flat(one_array(table.column(name))):
            # Through IPC rather than the raw buffers: IPC normalises offsets and drops slack behind the data.
            digest.update(pa.record_batch([leaf], names=["leaf"]).serialize())
    return digest.hexdigest()


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column without chunks."""
    if isinstance(column, pa.Array):
        return column
    joined = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies even one
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
