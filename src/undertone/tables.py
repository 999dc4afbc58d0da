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

A filter of columns may leave the rows that it keeps where they are (`ColumnStage.borrows`): its parts then hold numbers of rows of the
source's parts, in a column `rows_in_source`, and whoever opens the table reads those. Such a table needs its source, and says so when the
source is gone or has become another.

Damage is noticed wherever it falls: pages of a part carry checksums, `_done.json` holds size and digest of every file's footer, and markers
are sealed with a digest of themselves. A damaged part of an unfinished table is made again; a damaged finished table is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import posixpath
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, Literal, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from undertone.errors import DataError, ResumeMismatch
from undertone.markers import Begun, Done, PartInfo, Source, read_marker, refuse_other
from undertone.markers import Counts as Counts
from undertone.markers import Fingerprint as Fingerprint
from undertone.parquet import DISK_FULL as DISK_FULL
from undertone.parquet import ROWS, FileSeal, changed, content_digest, filled, read_sealed, seal_of, taken, write_table
from undertone.parquet import disk_full as disk_full
from undertone.parquet import read_parquet as read_parquet
from undertone.parquet import write_bytes as write_bytes
from undertone.paths import Claim, Location, Remote, StoreError, is_claim, location, open_parquet, remove_tree
from undertone.records import Loss, Record, arrow_schema, from_arrow, iter_arrow, to_arrow

R = TypeVar("R", bound=Record)

LOCK = "_lock"
_META_KEY = b"undertone.part"
_MADE_BY_KEY = b"undertone.made_by"
_AT_ONCE = 16
"""Files looked at together: an object store answers in tens of milliseconds, whatever it is asked."""

_HELD: dict[Remote, Claim] = {}
"""Claims of this process, so that `finish` can tell that one was lost."""


class Table(Generic[R]):
    """A finished table, opened for reading."""

    def __init__(self, path: Location, record: type[R], done: Done) -> None:
        self.path, self.record, self.done = path, record, done
        self._lenders: _Lenders = {}

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
        return from_arrow(self.losses("dropped"), Loss)

    def failed(self) -> list[Loss]:
        """The rows that raised."""
        return from_arrow(self.losses("failed"), Loss)

    def losses(self, kind: Literal["dropped", "failed"], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that a rule dropped, or that raised, as columns of `Loss`; some of them, or all."""
        name = f"{kind}.parquet"
        return read_sealed(self.path / name, self.done.losses.get(name), columns=columns)

    def read(self, part: PartInfo, columns: Sequence[str] | None = None, *, rows: pa.Array | None = None) -> pa.Table:
        """The rows of one part as columns.

        Args:
            part: Of `done.parts`.
            columns: Columns, or leaves of them ("segments.list.element.speaker"); all if None.
            rows: Numbers of rows, in the order in which they are wanted; all if None.

        Raises:
            DataError: The part is damaged, or borrows rows of a table that is gone or has become another.
        """
        return _read_part(self.path, part, columns, rows, self._lenders)


_Lenders = dict[Location, dict[str, PartInfo]]
"""Tables that parts borrow rows of, as far as they were opened: their parts by name."""


def _read_part(
    folder: Location, part: PartInfo, columns: Sequence[str] | None, rows: pa.Array | None, lenders: _Lenders
) -> pa.Table:
    file, seal = folder / part.file, FileSeal(bytes=part.bytes, footer=part.footer)
    if part.source is None:
        return taken(read_sealed(file, seal, columns=columns), rows)
    lender, lent = _lender(file, part.source, lenders)
    own = taken(read_sealed(file, seal), rows)
    return filled(own, part.source.inside, columns, lambda names, numbers: _read_part(lender, lent, names, numbers, lenders))


def _lender(file: Location, source: Source, lenders: _Lenders) -> tuple[Location, PartInfo]:
    """The table and the part that a file borrows rows of, if they are there and what they were."""
    folder = _seen_from(file.parent, source.folder)
    if folder not in lenders:
        done = read_marker(folder / "_done.json", Done)
        if done is None:
            raise DataError(
                f"{file} holds numbers of rows of {folder}, which is not there or not finished. Make that table again (the same "
                f"command does), or start this one over with --redo {file.parent.name}"
            )
        lenders[folder] = {one.file: one for one in done.parts}
    found = lenders[folder].get(source.file)
    if found is None or found.digest != source.digest:
        raise DataError(
            f"{file} holds numbers of rows of {folder / source.file}, whose content has become another: {folder.name} was made again. "
            f"Start this table over with --redo {file.parent.name}"
        )
    return folder, found


def borrowed_from(source: Location, part: PartInfo, *, seen_from: Location, inside: str | None = None) -> Source:
    """What a part of the table in folder `seen_from` says of the part of `source` whose rows it borrows."""
    return Source(folder=_relative(source, seen_from), file=part.file, digest=part.digest, inside=inside)


def _relative(folder: Location, start: Location) -> str:
    """A folder as seen from another one, so that both may be moved together."""
    if isinstance(folder, Path) and isinstance(start, Path):
        return Path(os.path.relpath(folder, start)).as_posix()
    if isinstance(folder, Remote) and isinstance(start, Remote) and folder.scheme == start.scheme:
        return posixpath.relpath(f"/{folder.path}", f"/{start.path}")
    return str(folder.absolute() if isinstance(folder, Path) else folder)


def _seen_from(start: Location, text: str) -> Location:
    if "://" in text or os.path.isabs(text):
        return location(text)
    if isinstance(start, Remote):
        return Remote(start.scheme, posixpath.normpath(f"{start.path}/{text}"))
    return Path(os.path.normpath(start / text))


def open_table(path: Location, record: type[R]) -> Table[R]:
    """Open a finished table.

    Raises:
        DataError: There is no finished table of this record class at `path`.
    """
    marker = path / "_done.json"
    done = read_marker(marker, Done)
    if done is None:
        state = "is not finished; run the same command again to finish it" if path.exists() else "does not exist"
        raise DataError(f"table {path} {state} (no {marker.name})")
    if done.record != record.__name__:
        raise DataError(f"table {path} holds {done.record} rows, expected {record.__name__}")
    return Table(path, record, done)


# ---- writing -------------------------------------------------------------------------------------------------------------------


def write_part(
    folder: Location,
    index: int,
    *,
    record: type[Record],
    rows: Sequence[Record],
    inputs: int,
    kept: int,
    losses: Sequence[tuple[bool, Loss]],
    made_by: str | None = None,
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
        made_by: Digest of the fingerprint that it is written under; if None, of that which the folder was begun with, as a caller may
            say who holds the folder alone.
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
        made_by=made_by,
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
    made_by: str | None = None,
    source: Source | None = None,
) -> PartInfo:
    """What `write_part` does, for rows and losses that are columns already; no losses of a kind if None.

    With a `source`, `rows` are the columns of the part's own and `ROWS`, see `parquet.filled`.

    Raises:
        DataError: Kept, dropped and failed rows are not the input rows.
    """
    if made_by is None:
        plan = begun(folder)
        made_by = plan.digest if plan is not None else ""
    schema = _schema(record, source)
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
        digest=_digest(rows, record, source),
        made_by=made_by,
        source=source,
    )
    if info.kept + info.dropped + info.failed != inputs:
        raise DataError(
            f"{folder.name} part {index}: {info.kept} kept + {info.dropped} dropped + {info.failed} failed is not {inputs} input rows"
        )
    for kind, found in losses.items():
        write_work(folder, index, kind, found, made_by=made_by)
    told = {_META_KEY: info.model_dump_json().encode()}
    if source is not None:
        told[b"undertone.note"] = _note(source).encode()
    write_table(folder / info.file, rows.replace_schema_metadata(told))
    return info


def _schema(record: type[Record], source: Source | None) -> pa.Schema:
    """The columns that a part's own file has."""
    if source is None:
        return arrow_schema(record)
    if source.inside is None:
        return pa.schema([pa.field(ROWS, pa.int64(), nullable=False)])
    own = [field for field in arrow_schema(record) if field.name != source.inside]
    return pa.schema([*own, pa.field(ROWS, pa.list_(pa.int64()), nullable=False)])


def _digest(rows: pa.Table, record: type[Record], source: Source | None) -> str:
    """The digest of a part's content; of one that borrows rows, of their numbers and of what they are numbers of."""
    own = content_digest(rows, record)
    return own if source is None else hashlib.sha256(f"{own} of {source.digest}".encode()).hexdigest()[: len(own)]


def _note(source: Source) -> str:
    what = "row n is" if source.inside is None else f"{source.inside} of row n are"
    return f"{what} row {ROWS}[n] (counted from 0) of {source.folder}/{source.file}; undertone.tables.open_table reads them"


def finished_part(
    folder: Location, index: int, *, record: type[Record] | None = None, made_by: str | None = None
) -> PartInfo | None:
    """What a committed part says of itself, or None where it is not there, or is not what was written (then it is removed).

    All of it is read, so that a run which goes on stands on nothing that was damaged meanwhile. What it borrows is read by whoever uses it.

    Args:
        folder: The table's folder.
        index: Number of the part.
        record: Class of the rows; given, the digest of their content is made again as well.
        made_by: Digest of the fingerprint that it must have been written under; any if None.
    """
    try:
        found = _part_info(folder, index)
        if found is None:
            return None
        rows = read_parquet(folder / found.file)
        losses = [len(_read_losses(folder, index, kind, made_by=found.made_by)) for kind in ("dropped", "failed")]
        digest = found.digest
        if record is not None:  # a schema is not content: names and types of nested fields are compared by themselves
            digest = _digest(rows, record, found.source) if rows.schema.equals(_schema(record, found.source)) else ""
        told = [found.digest, found.rows, found.dropped, found.failed, found.made_by if made_by is None else made_by]
        if [digest, len(rows), *losses, found.made_by] == told:
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
            seal = seal_of(source)
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


def write_work(folder: Location, index: int, kind: str, table: pa.Table, *, made_by: str) -> None:
    """Write such a file, with the digest of the fingerprint that it is of."""
    write_table(work_file(folder, index, kind), table.replace_schema_metadata({_MADE_BY_KEY: made_by.encode()}))


def read_work(folder: Location, index: int, kind: str, *, made_by: str) -> pa.Table | None:
    """What `write_work` wrote under the same fingerprint; None where it is not there, was written under another one or is damaged."""
    file = work_file(folder, index, kind)
    try:
        found = read_parquet(file)
    except DataError:
        return None
    return found if (found.schema.metadata or {}).get(_MADE_BY_KEY) == made_by.encode() else None


def begin(folder: Location, fingerprint: Fingerprint, *, redo_hint: str) -> None:
    """Claim a folder for a fingerprint, or refuse because it holds the work of another one.

    Args:
        folder: The table's folder.
        fingerprint: What is about to be written.
        redo_hint: The command that starts this stage over, for the message.

    Raises:
        ResumeMismatch: The folder was begun with another fingerprint; the message names the first keys that differ.
    """
    before = begun(folder)
    done = read_marker(folder / "_done.json", Begun)
    for found in (before, done.fingerprint if done else None):
        if found is not None:
            refuse_other(folder, found, fingerprint, redo_hint=redo_hint)
    if before is not None:
        return
    held = "a _done.json" if done is not None else "parts" if any(folder.glob("part-*.parquet")) else None
    if held is not None and begun(folder) is None:  # looked for again: another job of the same array may have begun meanwhile
        raise ResumeMismatch(
            f"{folder} holds {held} but no _plan.json, so it cannot be told what made them. Choose a new --out, or {redo_hint}"
        )
    plan = fingerprint.model_dump_json(indent=1).encode()
    if isinstance(folder, Remote):
        _propose(folder, fingerprint, plan, redo_hint=redo_hint)
    elif not _link_new(folder / "_plan.json", plan):
        write_bytes(folder / "_plan.json", plan)
    found = begun(folder)
    if found is not None:  # jobs that share the folder's lock may have begun at once: one of them wins
        refuse_other(folder, found, fingerprint, redo_hint=redo_hint)


def begun(folder: Location) -> Fingerprint | None:
    """What a folder was begun with, None where it was not."""
    return read_marker(folder / "_plan.json", Fingerprint)


def _propose(folder: Remote, fingerprint: Fingerprint, plan: bytes, *, redo_hint: str) -> None:
    """Put a plan into a store, unless there is one: pyarrow cannot make a PUT conditional (it drops If-None-Match without a word).

    Announce, then look, as claims do. Whoever begins puts a proposal, whose name holds the fingerprint's digest, then lists the others',
    then looks for the plan; the proposal is taken back after the plan was put. So of two that begin at once at least one sees the other's
    proposal, or the plan that it has become, and no plan is put beside a proposal that differs from it.
    """
    own = f"_plan-{fingerprint.digest}-"
    for last in (False,) * 5 + (True,):
        mine = folder / f"{own}{uuid4().hex}.json"
        mine.write_bytes(plan)
        try:
            others = [one for one in folder.glob("_plan-*.json") if not one.name.startswith(own)]
            if begun(folder) is not None:  # the caller compares it
                return
            if not others:
                (folder / "_plan.json").write_bytes(plan)
                return
        finally:
            mine.unlink(missing_ok=True)
        if not last:
            time.sleep(random.uniform(0.05, 0.5))
    raise ResumeMismatch(
        f"{folder}: another run begins here with another configuration or other inputs ({others[0].name}). Choose a new --out, "
        f"wait for that run, or {redo_hint}"
    )


def _link_new(file: Path, content: bytes) -> bool:
    """Make a file that is not there yet, whole or not at all; leave one that is. False where the file system has no links."""
    draft = file.with_name(f".{file.name}.{uuid4().hex}.draft")  # machines that share a disk have equal process numbers
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


def finish(folder: Location, fingerprint: Fingerprint, *, record: type[Record], parts: int) -> Done:
    """Gather the losses, write `_done.json` last, remove the work folder.

    Raises:
        DataError: A part vanished or was damaged, or another run took the folder over.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        made_by = fingerprint.digest
        infos = list(pool.map(lambda index: _committed(folder, index, made_by), range(parts)))
        reasons: dict[str, int] = {}
        seals = {}
        for kind in ("dropped", "failed"):
            pieces = list(pool.map(lambda index, kind=kind: _read_losses(folder, index, kind, made_by=made_by), range(parts)))
            losses = pa.concat_tables([*pieces, to_arrow([], Loss)]).replace_schema_metadata(None)
            if len(losses) != sum(getattr(one, kind) for one in infos):
                raise DataError(
                    f"{folder}/_work holds {len(losses)} {kind} rows, its parts say {sum(getattr(one, kind) for one in infos)}: it was "
                    f"changed by hand. Delete {folder}/_work and run the same command again"
                )
            for one in pc.value_counts(losses.column("reason")).to_pylist():
                reasons[one["values"]] = reasons.get(one["values"], 0) + one["counts"]
            write_table(folder / f"{kind}.parquet", losses)
            with open_parquet(folder / f"{kind}.parquet") as source:
                seals[f"{kind}.parquet"] = seal_of(source)
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


def _read_losses(folder: Location, index: int, kind: str, *, made_by: str) -> pa.Table:
    """The losses of one part; DataError where they are none any more, or another run's."""
    file = work_file(folder, index, kind)
    found = read_parquet(file)
    if not found.schema.equals(arrow_schema(Loss)):
        raise changed(file, "holds other columns than a part's losses")
    if (found.schema.metadata or {}).get(_MADE_BY_KEY) != made_by.encode():
        raise _of_another_run(file)
    return found


def _committed(folder: Location, index: int, made_by: str) -> PartInfo:
    info = _part_info(folder, index)
    if info is None:
        raise DataError(f"{folder}: part {index} vanished while the run was going on; is another run using this folder?")
    if info.made_by != made_by:
        raise _of_another_run(folder / info.file)
    return info


def _of_another_run(file: Location) -> DataError:
    return DataError(
        f"{file} was written by a run with another configuration or other inputs while this one went on. End that run, then run the same "
        "command again: what it wrote is made again"
    )


def finished(folder: Location) -> Done | None:
    """The done marker of a folder, or None.

    Raises:
        DataError: A file that the marker lists is gone or has another size; what is inside is looked at when it is read.
    """
    done = read_marker(folder / "_done.json", Done)
    if done is None:
        return None
    expected = {part.file: part.bytes for part in done.parts} | {name: seal.bytes for name, seal in done.losses.items()}
    there = folder.sizes() if isinstance(folder, Remote) else {one.name: one.stat().st_size for one in os.scandir(folder)}
    for name, size in expected.items():
        if there.get(name) != size:
            was = f"has {there[name]} bytes" if name in there else "is missing"
            raise changed(folder / name, f"{was}, but _done.json says {size} bytes")
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
