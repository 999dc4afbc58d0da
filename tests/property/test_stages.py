"""The law of the house: kept + dropped + failed = input, whatever the workers, the shards, the kills."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy import Cut, Short, recordings, source
from undertone import tables
from undertone.errors import ConfigError, DataError, DiskFull, ResumeMismatch, TooManyFailures
from undertone.execute import StageReport, run_stage
from undertone.records import Recording, Segment
from undertone.stages import Dropped, Kept, Outcome, outcomes_of


def run(tmp: Path, *, count: int = 40, parts: int = 5, workers: int = 1, out: str = "out", **settings: object) -> StageReport:
    stage = Cut.model_validate(settings)
    return run_stage(stage, [source(tmp / f"in{count}-{parts}", count, parts=parts)], tmp / out, seed=3, workers=workers)


@given(count=st.integers(0, 40), parts=st.integers(1, 9))
@settings(max_examples=15)
def test_every_row_is_accounted_for_and_the_table_does_not_depend_on_shards(count: int, parts: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        report = run(Path(name), count=count, parts=parts)
        table = tables.open_table(report.folder, Segment)
        counts = report.counts
        assert counts.kept + counts.dropped + counts.failed == counts.inputs == count
        ids = {row.id for row in recordings(count)}
        lost = [one.row_id for one in table.dropped()] + [one.row_id for one in table.failed()]
        assert set(lost) <= ids
        assert len(lost) == counts.dropped + counts.failed
        one_shard = run(Path(name), count=count, parts=1, out="one")
        assert list(table.rows()) == list(tables.open_table(one_shard.folder, Segment).rows())


def test_workers_do_not_change_the_table(tmp_path: Path) -> None:
    one, two = run(tmp_path), run(tmp_path, workers=2, out="two")
    assert one.digest == two.digest
    assert one.counts == two.counts


def test_a_bad_row_costs_itself_only(tmp_path: Path) -> None:
    report = run(tmp_path)
    failed = tables.open_table(report.folder, Segment).failed()
    assert [one.detail for one in failed] == [f"ValueError: row {n} is broken" for n in range(40) if n % 7 == 6]


def test_a_stage_that_loses_a_row_is_a_bug_and_is_said(tmp_path: Path) -> None:
    outcomes = outcomes_of(Short(), recordings(1))
    assert "gave 0 outcomes for 1 rows" in outcomes[0].error  # type: ignore[union-attr]


def test_too_many_failures_end_the_run_but_keep_the_table(tmp_path: Path) -> None:
    with pytest.raises(
        TooManyFailures, match=r"5 of 40 rows failed, more than max_failed_share = 0\.1\. The first, .*: ValueError: row 6"
    ):
        run_stage(Cut(), [source(tmp_path / "in", 40)], tmp_path / "out", max_failed_share=0.1)
    assert len(tables.open_table(tmp_path / "out", Segment).failed()) == 5


def test_a_second_run_does_nothing_and_another_configuration_is_refused(tmp_path: Path) -> None:
    first, again = run(tmp_path), run(tmp_path)
    assert (again.resumed, again.digest) == (again.parts, first.digest)
    with pytest.raises(ResumeMismatch, match=r"config\.length_ms 100, now 200"):
        run(tmp_path, length_ms=200)


def test_another_input_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ResumeMismatch, match=r"inputs\.source0"):
        run_stage(Cut(), [source(tmp_path / "other", 39)], tmp_path / "out", seed=3)


def test_an_unfinished_input_is_refused(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 4)
    (folder / "_done.json").unlink()
    with pytest.raises(DataError, match="is not finished"):
        run_stage(Cut(), [folder], tmp_path / "out")


def test_limit_uses_the_first_rows(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 40)
    report = run_stage(Cut(), [folder], tmp_path / "out", limit=13)
    assert report.counts.inputs == 13
    with pytest.raises(ResumeMismatch, match="limit 13, now 14"):
        run_stage(Cut(), [folder], tmp_path / "out", limit=14)


def test_two_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 10)
    report = run_stage(Cut(), [folder, folder], tmp_path / "out")
    assert report.counts.inputs == 20


def test_a_killed_worker_costs_its_unit_only(tmp_path: Path) -> None:
    killed = run_stage(
        Cut(kill_once=str(tmp_path / "killed")),
        [source(tmp_path / "in", 40)],
        tmp_path / "out",
        seed=3,
        workers=2,
        max_failed_share=1,
    )
    assert (tmp_path / "killed").exists()
    assert killed.digest == run(tmp_path, out="whole").digest


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_nine_then_the_same_command_gives_the_unbroken_table(tmp_path: Path, workers: int) -> None:
    whole = run(tmp_path, pause_s=0.02)
    folder, out = tmp_path / "in40-5", tmp_path / "broken"
    command = [sys.executable, "-m", "tests.toy", str(folder), str(out), str(workers)]
    rng = random.Random(workers)
    for _ in range(3):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
        wait_for_parts(out, process)
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done_before = len(list(out.glob("part-*.parquet")))
    assert done_before > 0
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    table = tables.open_table(out, Segment)
    assert table.digest == whole.digest
    assert table.done.counts == whole.counts
    assert not list(out.glob(".*draft"))


def wait_for_parts(out: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not list(out.glob("part-*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_side_tables_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs side tables \[\], got \['clips'\]"):
        run_stage(Cut(), [source(tmp_path / "in", 4)], tmp_path / "out", sides={"clips": tmp_path})


def test_unknown_settings_of_a_stage_are_refused() -> None:
    with pytest.raises(ValueError, match="length_mss"):
        Cut.model_validate({"length_mss": 3})
    assert ConfigError.exit_code == 2
    assert Recording.volatile == {"uri"}


def test_running_leaves_the_given_stage_as_it_was(tmp_path: Path) -> None:
    stage = Cut()
    run_stage(stage, [source(tmp_path / "in", 4)], tmp_path / "out", seed=5)
    assert stage == Cut()


def test_a_stage_is_opened_once_in_each_worker(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    run_stage(Cut(count_opens=str(opened)), [source(tmp_path / "in", 40, parts=8)], tmp_path / "out", workers=2)
    assert 1 <= len(opened.read_text().split()) <= 2


class Half(Cut):
    """Sees the whole table: keeps the rows whose number is at most half of the largest."""

    name: ClassVar[str] = "half"
    scope: ClassVar = "table"
    writes: ClassVar[type[Recording]] = Recording

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Recording]]:  # type: ignore[override]
        largest = max((row.samples for row in rows), default=0)
        return [Kept((row,)) if row.samples * 2 <= largest + 16_000 else Dropped("large") for row in rows]


def test_a_table_scoped_stage_sees_all_rows_and_keeps_the_parts(tmp_path: Path) -> None:
    whole = run_stage(Half(), [source(tmp_path / "one", 40, parts=1)], tmp_path / "a")
    parts = run_stage(Half(), [source(tmp_path / "five", 40, parts=5)], tmp_path / "b")
    assert (whole.parts, parts.parts) == (1, 5)
    rows = [list(tables.open_table(report.folder, Recording).rows()) for report in (whole, parts)]
    assert rows[0] == rows[1] == recordings(40)[:20]


def test_workers_end_with_their_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.toy", str(source(tmp_path / "in", 40)), str(tmp_path / "out"), "2"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    wait_for_parts(tmp_path / "out", process)
    workers = children_of(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(alive(one) for one in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [one for one in workers if alive(one)]


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(one) for one in listed.split()]


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")


class NoSpace(Cut):
    """Every row meets a full disk."""

    name: ClassVar[str] = "no-space"

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Segment]]:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_inside_a_stage_ends_the_run_and_fails_no_row(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="Free some space and run the same command again"):
        run_stage(NoSpace(), [source(tmp_path / "in", 4)], tmp_path / "out")
    assert not list((tmp_path / "out").glob("part-*"))


def test_redo_with_another_seed_in_one_process_uses_that_seed(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 10)
    run_stage(Cut(), [folder], tmp_path / "out", seed=1)
    again = run_stage(Cut(), [folder], tmp_path / "out", seed=2, redo=True)
    assert again.digest == run_stage(Cut(), [folder], tmp_path / "fresh", seed=2).digest


def test_redo_does_not_break_the_lock(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 4)
    run_stage(Cut(), [folder], tmp_path / "out")
    with tables.locked(tmp_path / "out"), pytest.raises(DataError, match="is being written by another run"):
        run_stage(Cut(), [folder], tmp_path / "out", redo=True)
    assert len(tables.open_table(tmp_path / "out", Segment).done.parts) > 0


def test_an_output_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot make the folder .*Choose another --out"):
        run_stage(Cut(), [source(tmp_path / "in", 4)], tmp_path / "file" / "out")


def test_a_damaged_marker_says_so(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 4)
    (folder / "_done.json").write_text("{")
    with pytest.raises(DataError, match=r"_done\.json is damaged"):
        run_stage(Cut(), [folder], tmp_path / "out")
