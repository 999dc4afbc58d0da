"""Whatever is deleted, cut or flipped in a table's folder: the same table after the same command, or a refusal that names the file."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest

from tests.toy import Cut, source
from undertone import tables
from undertone.errors import DataError, DiskFull, ResumeMismatch
from undertone.execute import run_stage
from undertone.records import Recording, Segment
from undertone.tables import Fingerprint

ROWS, PARTS = 24, 3
PART = "part-00001.parquet"
WORK = ("_work/00001.dropped.parquet", "_work/00001.failed.parquet")


class Stops(Cut):
    """Like `Cut`, but the run ends at row `at`, as if the process were killed there."""

    name: ClassVar[str] = "cut"
    at: int = ROWS

    def identity(self) -> dict[str, object]:
        return Cut().identity()

    def _one(self, row):  # type: ignore[no-untyped-def]
        if int(row.sha256[:16], 16) >= self.at:
            raise MemoryError("here the run ends")
        return super()._one(row)


class Made:
    """An input, the table of an unbroken run, and one that was broken off after two of three parts."""

    def __init__(self, folder: Path) -> None:
        self.input = source(folder / "in", ROWS, parts=PARTS)
        self.whole = folder / "whole"
        self.done = run_stage(Cut(), [self.input], self.whole, max_failed_share=1)
        self.contents = contents(self.whole)
        self.broken = folder / "broken"
        with pytest.raises(MemoryError):
            run_stage(Stops(at=ROWS * 2 // 3), [self.input], self.broken, max_failed_share=1)
        assert (self.broken / PART).exists()
        assert not (self.broken / "part-00002.parquet").exists()

    def again(self, folder: Path, *, length_ms: int = 100) -> str:
        """The same command over a harmed folder: "same", or the refusal's text. Whatever else fails the test."""
        try:
            report = run_stage(Cut(length_ms=length_ms), [self.input], folder, max_failed_share=1)
            found = contents(folder)
        except DataError as error:
            return str(error)
        assert report.digest == self.done.digest
        assert report.counts == self.done.counts
        assert found == self.contents
        return "same"


def contents(folder: Path) -> tuple[object, ...]:
    table = tables.open_table(folder, Segment)
    return list(table.rows()), table.dropped(), table.failed(), table.arrow(columns=["id", "start_ms"]).to_pydict()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def harmed(made: Made, tmp_path: Path) -> Callable[[Path], Path]:
    numbers = itertools.count()

    def copied(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / f"out{next(numbers)}"))

    return copied


def delete(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path, at: int | None = None) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3 if at is None else at] ^= 1 << random.Random(at).randrange(8)
    file.write_bytes(content)


HARMS: list[Callable[[Path], None]] = [delete, cut, empty, flip]
FINISHED = ("_plan.json", "_done.json", "part-00000.parquet", PART, "dropped.parquet", "failed.parquet")
UNFINISHED = ("_plan.json", "part-00000.parquet", PART, *WORK)


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for size in range(1, len(names) + 1):
        yield from itertools.combinations(names, size)


@pytest.mark.parametrize("harm", HARMS, ids=lambda one: one.__name__)
@pytest.mark.parametrize(("state", "names"), [("whole", FINISHED), ("broken", UNFINISHED)], ids=["finished", "unfinished"])
def test_harm_to_any_set_of_files_is_mended_or_refused_by_name(
    made: Made, harmed: Callable[[Path], Path], harm: Callable[[Path], None], state: str, names: tuple[str, ...]
) -> None:
    told: dict[tuple[str, ...], str] = {}
    for chosen in subsets(names):
        folder = harmed(getattr(made, state))
        for name in chosen:
            harm(folder / name)
        told[chosen] = made.again(folder)
        if told[chosen] != "same":
            assert any(name in told[chosen] for name in (*chosen, "was written with")), told[chosen]
    assert len(told) == 2 ** len(names) - 1
    for (name, *more), outcome in told.items():
        if not more and state == "broken" and name != "_plan.json":
            assert outcome == "same", f"{name}: {outcome}"
        if not more and state == "whole" and name != "_done.json" and harm is not flip:  # a flipped byte may say nothing
            assert outcome != "same", name
    if harm is delete:
        assert told[("_done.json",) if state == "whole" else names] == "same"


@pytest.mark.parametrize("name", ["_plan.json", "_done.json", PART, "dropped.parquet"])
def test_no_flipped_byte_passes_for_another_table(made: Made, harmed: Callable[[Path], Path], name: str) -> None:
    folder = harmed(made.whole)
    size = (folder / name).stat().st_size
    whole = (folder / name).read_bytes()
    step = max(1, size // 400)
    for at in range(0, size, step):
        flip(folder / name, at)
        outcome = made.again(folder)
        if outcome == "same":  # a byte that says nothing, such as a space in JSON or padding in Parquet
            assert contents(folder) == made.contents
        (folder / name).write_bytes(whole)
    assert made.again(folder) == "same"


def test_no_flipped_byte_of_a_part_survives_a_resumed_run(made: Made) -> None:
    whole = (made.broken / PART).read_bytes()
    found = tables.finished_part(made.broken, 1, record=Segment)
    assert found is not None
    tried, kept, rows = 0, 0, pq.read_table(made.whole / PART)
    for at in range(0, len(whole), max(1, len(whole) // 400)):
        flip(made.broken / PART, at)
        tried += 1
        now = tables.finished_part(made.broken, 1, record=Segment)
        if now is not None:
            kept += 1
            assert now.model_copy(update={"footer": found.footer}) == found
            assert tables.read_parquet(made.broken / PART).equals(rows), at
        (made.broken / PART).write_bytes(whole)
    assert kept < tried / 2  # of a part this small a third is names, padding and statistics in its footer


@pytest.mark.parametrize("state", ["whole", "broken"])
@pytest.mark.parametrize("plan", ["kept", "deleted"])
def test_a_changed_configuration_is_refused_whatever_was_deleted(
    made: Made, harmed: Callable[[Path], Path], state: str, plan: str
) -> None:
    folder = harmed(getattr(made, state))
    if plan == "deleted":
        (folder / "_plan.json").unlink()
    with pytest.raises(ResumeMismatch, match=r"config\.length_ms 100, now 200|holds parts but no _plan\.json"):
        run_stage(Cut(length_ms=200), [made.input], folder)
    if plan == "deleted":
        for part in folder.glob("part-*"):
            part.unlink()
        if state == "whole":  # the done marker alone still tells
            with pytest.raises(ResumeMismatch, match=r"config\.length_ms 100, now 200"):
                run_stage(Cut(length_ms=200), [made.input], folder)


def test_parts_that_changed_places_are_noticed(made: Made, harmed: Callable[[Path], Path]) -> None:
    for state in ("whole", "broken"):
        folder = harmed(getattr(made, state))
        (folder / "part-00000.parquet").rename(folder / "x")
        (folder / PART).rename(folder / "part-00000.parquet")
        (folder / "x").rename(folder / PART)
        outcome = made.again(folder)
        assert outcome == "same" if state == "broken" else "part-0000" in outcome


def test_a_disk_that_fills_at_any_write_leaves_no_table_and_loses_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The k-th file meets a full disk, for every k; then there is space again."""
    writes = itertools.count()
    full_at = {"k": -1}
    real = os.fsync

    def fsync(handle: int) -> None:
        if next(writes) == full_at["k"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(tables.os, "fsync", fsync)
    run_stage(Cut(), [made.input], tmp_path / "count", max_failed_share=1)
    count = next(writes)
    assert count == 1 + 3 * PARTS + 3  # plan, a part with its losses each, dropped, failed, done
    for k in range(count):
        folder = tmp_path / f"full{k}"
        writes, full_at["k"] = itertools.count(), k
        with pytest.raises(DiskFull, match="Free some space and run the same command again"):
            run_stage(Cut(), [made.input], folder, max_failed_share=1)
        assert not list(folder.rglob("*.draft"))
        with pytest.raises(DataError, match="is not finished"):
            tables.open_table(folder, Segment)
        full_at["k"] = -1
        assert made.again(folder) == "same"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_write_that_the_kernel_refuses_is_a_full_disk(tmp_path: Path) -> None:
    """A draft that leads to /dev/full meets the kernel's own error, through Python and through Arrow's C++."""
    table = tables.read_parquet(source(tmp_path / "in", 4) / "part-00000.parquet")

    def fill(write: Callable[[Path], object]) -> None:
        with tables.atomic(tmp_path / "f") as draft:
            draft.symlink_to("/dev/full")
            write(draft)

    for write in (lambda draft: draft.open("wb", buffering=0).write(b"x"), lambda draft: pq.write_table(table, draft)):
        with pytest.raises(DiskFull, match="No space left"):
            fill(write)
    assert not (tmp_path / "f").exists()


def test_writers_of_other_parts_share_a_folder_and_nobody_else_does(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    with tables.locked(folder, shared=True):
        with tables.locked(folder, shared=True):
            pass
        with pytest.raises(DataError, match="is being written by another run"), tables.locked(folder):
            pass
    with tables.locked(folder):
        for shared in (True, False):
            with pytest.raises(DataError, match="is being written by another run"), tables.locked(folder, shared=shared):
                pass


def test_two_that_write_one_part_at_once_leave_one_whole_part(tmp_path: Path, made: Made) -> None:
    record = Recording
    rows = list(tables.open_table(made.input, record).rows())
    mark = Fingerprint(stage="s", version="1", seed=0, config={}, inputs={})
    tables.begin(tmp_path, mark, redo_hint="")
    threads = [
        threading.Thread(
            target=tables.write_part,
            args=(tmp_path, 0),
            kwargs={"record": record, "rows": rows, "inputs": ROWS, "kept": ROWS, "losses": []},
        )
        for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert tables.finished_part(tmp_path, 0, record=record) is not None
    tables.finish(tmp_path, mark, record=record, parts=1)
    assert list(tables.open_table(tmp_path, record).rows()) == rows
