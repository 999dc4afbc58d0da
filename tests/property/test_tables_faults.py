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

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.toy import Cut, source
from undertone import parquet, paths, tables
from undertone.errors import DataError, DiskFull, ResumeMismatch
from undertone.execute import run_stage
from undertone.execute.run import Job, Read, Unit, run_unit, write_columns
from undertone.records import Recording, Segment
from undertone.stages import ColumnStage, Fates
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
        with parquet.atomic(tmp_path / "f") as draft:
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


# ---- works of other fingerprints ---------------------------------------------------------------------------------------------


def unit(made: Made, out: Path, mark: Fingerprint, index: int, *, length_ms: int) -> None:
    """One unit of a run under fingerprint `mark`, as a worker does it that nobody told to stop."""
    take = tables.open_table(made.input, Recording).done.parts[index].rows
    job = Job(stage=Cut(length_ms=length_ms), sources=(made.input,), sides={}, out=out, seed=0, made_by=mark.digest)
    run_unit(job, Unit(reads=(Read(source=0, source_part=index, take=take, part=index),)))


@pytest.mark.parametrize("late", ["part", "losses", "both"])
def test_a_late_writer_of_another_configuration_is_refused_and_what_it_wrote_is_made_again(
    made: Made, harmed: Callable[[Path], Path], late: str
) -> None:
    """A worker of an older run, which a --redo did not end, writes the part of its own configuration into the run that came after."""
    folder = harmed(made.broken)
    mark = tables.begun(folder)
    assert mark is not None
    other = mark.model_copy(update={"config": {**mark.config, "length_ms": 200}})
    unit(made, folder, mark, 2, length_ms=100)
    files = {name: (folder / name).read_bytes() for name in (PART, *WORK)}
    unit(made, folder, other, 1, length_ms=200)
    for name in {"part": WORK, "losses": (PART,), "both": ()}[late]:  # the two wrote at once, and of these files it wrote first
        (folder / name).write_bytes(files[name])
    with pytest.raises(DataError, match=r"00001.*parquet was written by a run with another configuration or other inputs"):
        tables.finish(folder, mark, record=Segment, parts=PARTS)
    assert made.again(folder) == "same"


class Middle(ColumnStage[Recording, Recording]):
    """Keeps what is near the mean of the table."""

    name: ClassVar[str] = "middle"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Recording]] = Recording
    scope: ClassVar = "table"
    looks_at: ClassVar = ("samples",)

    within: float = 3.0
    scale: float = 1.0

    def keys(self, columns: pa.Table) -> pa.Table:
        return pa.table({"samples": pc.multiply(columns["samples"].cast(pa.float64()), self.scale)})

    def fates(self, columns: pa.Table) -> Fates:
        far = pc.abs(pc.subtract(columns["samples"], pc.mean(columns["samples"])))
        return Fates(reason=pc.if_else(pc.greater(far, self.within), "far", None))


def decided(source_: Path, out: Path, stage: Middle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is broken off when all is decided and nothing is written."""
    with monkeypatch.context() as broken:
        broken.setattr("undertone.execute.run.run_unit", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_stage(stage, [source_], out)
    assert len(list(out.glob("_work/*.fates.parquet"))) == PARTS
    return out


@pytest.mark.parametrize("kinds", [("keys",), ("fates",), ("keys", "fates")])
def test_decisions_of_another_configuration_are_not_taken_over(
    made: Made, tmp_path: Path, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_stage(Middle(), [made.input], tmp_path / "whole")
    out = decided(made.input, tmp_path / "out", Middle(), monkeypatch)
    other = decided(made.input, tmp_path / "other", Middle(within=9, scale=0.1), monkeypatch)
    for file in list(out.glob("_work/*")):
        if file.name.split(".")[1] in kinds:
            shutil.copy(other / "_work" / file.name, file)
        elif "fates" not in kinds:
            file.unlink()
    again = run_stage(Middle(), [made.input], out)
    assert (again.digest, again.counts) == (whole.digest, whole.counts)


@pytest.mark.parametrize("harm", HARMS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("kind", ["keys", "fates"])
def test_a_damaged_decision_is_taken_again(
    made: Made, tmp_path: Path, kind: str, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_stage(Middle(), [made.input], tmp_path / "whole")
    out = decided(made.input, tmp_path / "out", Middle(), monkeypatch)
    harm(out / "_work" / f"00001.{kind}.parquet")
    if kind == "keys":
        (out / "_work" / "00002.fates.parquet").unlink()
    again = run_stage(Middle(), [made.input], out)
    assert (again.digest, again.counts) == (whole.digest, whole.counts)


def test_losses_as_columns_are_read_by_their_seal(made: Made, harmed: Callable[[Path], Path]) -> None:
    folder = harmed(made.whole)
    table = tables.open_table(folder, Segment)
    assert table.losses("dropped", ["reason"]).to_pydict() == {"reason": [one.reason for one in table.dropped()]}
    assert len(table.losses("failed")) == table.done.counts.failed > 0
    shutil.copy(folder / "failed.parquet", folder / "dropped.parquet")
    with pytest.raises(DataError, match=r"dropped\.parquet has .* than|but _done\.json says"):
        table.losses("dropped", ["reason"])


# ---- rows of other tables ----------------------------------------------------------------------------------------------------


class Short(Middle):
    """Like `Middle`, but leaves rows where they are."""

    name: ClassVar[str] = "short"
    borrows: ClassVar[bool] = True


@pytest.mark.parametrize("harm", HARMS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", ["in/_done.json", f"in/{PART}", f"out/{PART}", "out/_done.json"])
def test_harm_to_a_borrower_or_to_its_source_is_mended_or_refused_by_name(
    tmp_path: Path, harm: Callable[[Path], None], name: str
) -> None:
    run_stage(Short(), [source(tmp_path / "in", ROWS, parts=PARTS)], tmp_path / "out")
    expected = list(tables.open_table(tmp_path / "out", Recording).rows())
    assert 0 < len(expected) < ROWS
    harm(tmp_path / name)
    told = ""
    try:
        run_stage(Short(), [tmp_path / "in"], tmp_path / "out")
        assert list(tables.open_table(tmp_path / "out", Recording).rows()) == expected
    except DataError as error:
        told = str(error)
    if told:
        assert name.split("/")[1] in told
    else:
        assert (name, harm) == ("out/_done.json", delete) or harm is flip  # a flipped byte may say nothing


def test_a_borrower_that_was_broken_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source(tmp_path / "in", ROWS, parts=PARTS)
    whole = run_stage(Short(), [folder], tmp_path / "whole")
    with monkeypatch.context() as broken:
        broken.setattr("undertone.tables.finish", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_stage(Short(), [folder], tmp_path / "out")
    flip(tmp_path / "out" / PART)
    again = run_stage(Short(), [folder], tmp_path / "out")
    assert again.digest == whole.digest
    assert 1 < again.resumed <= PARTS


# ---- two that begin at once ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[paths.Remote]:
    pytest.importorskip("moto", reason="the S3 server of these tests is not installed: pip install 'undertone[dev]'")
    pytest.importorskip("flask_cors", reason="the S3 server of these tests is not installed: pip install 'undertone[dev]'")
    from tests.object_store import make_bucket, s3_server

    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        make_bucket(server, "begin")
        for key, value in (settings | {"AWS_ENDPOINT_URL": server}).items():
            patch.setenv(key, value)
        paths._filesystem.cache_clear()
        yield paths.Remote("s3", "begin")
        paths._filesystem.cache_clear()


@pytest.mark.parametrize("where", ["disk", "store"])
def test_of_two_that_begin_at_once_with_other_configurations_at_most_one_does(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    """Jobs of one array hold a folder together (`--shards`), so their plans must tell them apart."""
    root: paths.Location = tmp_path if where == "disk" else request.getfixturevalue("bucket")
    winners = 0
    for number in range(12):
        folder = root / f"t{number}"
        marks = [Fingerprint(stage="s", version="1", seed=seed, config={}, inputs={}) for seed in (1, 2)]
        if isinstance(folder, Path):
            folder.mkdir()
        begun: list[Fingerprint] = []
        refused: list[Exception] = []
        ready = threading.Barrier(2)

        def start(mark: Fingerprint, folder: paths.Location = folder, ready: threading.Barrier = ready) -> None:
            ready.wait()
            try:
                tables.begin(folder, mark, redo_hint="start over")
                begun.append(mark)  # noqa: B023 - joined below
            except ResumeMismatch as error:
                refused.append(error)  # noqa: B023

        threads = [threading.Thread(target=start, args=(mark,)) for mark in marks]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert len(begun) + len(refused) == 2
        assert len(begun) <= 1
        assert all(tables.begun(folder) == mark for mark in begun)
        assert all("Choose a new --out" in str(error) for error in refused)
        winners += len(begun)
        assert [one.name for one in folder.iterdir() if not one.name.startswith("_lock")] == ["_plan.json"] * len(begun)
    assert winners > 6


def test_two_of_one_configuration_begin_at_once(bucket: paths.Remote) -> None:
    mark = Fingerprint(stage="s", version="1", seed=1, config={}, inputs={})
    folder = bucket / "same"
    threads = [threading.Thread(target=tables.begin, args=(folder, mark), kwargs={"redo_hint": ""}) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert tables.begun(folder) == mark
    assert [one.name for one in folder.iterdir()] == ["_plan.json"]


def test_borrowed_rows_are_found_in_a_store(bucket: paths.Remote, tmp_path: Path) -> None:
    local = source(tmp_path / "in", ROWS, parts=PARTS)
    table = tables.open_table(local, Recording)
    write_columns(bucket / "run" / "in", map(table.read, table.done.parts), record=Recording, fingerprint=table.done.fingerprint)
    there = run_stage(Short(), [bucket / "run" / "in"], bucket / "run" / "out")
    here = run_stage(Short(), [local], bucket / "other" / "out")  # of a source in another store
    rows = list(tables.open_table(bucket / "run" / "out", Recording).rows())
    assert there.digest == here.digest
    assert 0 < len(rows) < ROWS
    assert rows == list(tables.open_table(bucket / "other" / "out", Recording).rows())
    paths.remove_tree(bucket / "run" / "in")
    with pytest.raises(DataError, match="holds numbers of rows of s3://begin/run/in, which is not there"):
        list(tables.open_table(bucket / "run" / "out", Recording).rows())
