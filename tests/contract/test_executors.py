"""One contract for all executors: the same units give the same table, whoever runs them, is killed, or shares the work."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.toy import Cut, source
from undertone import audio, tables
from undertone.errors import ConfigError, DataError, DependencyError, DiskFull, ResumeMismatch, ServiceError, UndertoneError
from undertone.execute.pool import Execution, Shards, Stopped, run_units
from undertone.execute.run import Job, Read, StageReport, Unit, run_stage, run_unit
from undertone.records import Recording, Segment
from undertone.tables import Done, Fingerprint

pytestmark = pytest.mark.timeout(180)

RAY = Execution(executor="ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster that was there before: two CPUs and, so that stages can ask for it, a GPU that nothing uses."""
    ray = pytest.importorskip("ray", reason="the extra ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, num_gpus=1, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    yield
    assert ray.is_initialized(), "a run stopped a cluster that it had not started"
    ray.shutdown()


def job(tmp: Path, stage: Cut | None = None, *, parts: int = 5, out: str = "out") -> tuple[Job, list[Unit]]:
    """What run_stage makes of a stage over 40 recordings: the job and its units."""
    folder = tmp / f"in-{parts}"
    opened = tables.open_table(source(folder, 40, parts=parts), Recording)
    infos = enumerate(opened.done.parts)
    units = [Unit(reads=(Read(source=0, source_part=index, take=info.rows, part=index),)) for index, info in infos]
    return Job(stage=stage or Cut(), sources=(folder,), sides={}, out=tmp / out, seed=3), units


def table(execution: Execution, made: Job, units: list[Unit], *, workers: int = 2) -> tuple[Done, list[Unit]]:
    """Write a table with an executor, as run_stage does; the finished table and the units in the order in which they were told."""
    order: list[Unit] = []
    fingerprint = Fingerprint(stage="cut", version="1", seed=made.seed, config={}, inputs={})
    with tables.locked(made.out):
        tables.begin(made.out, fingerprint, redo_hint="")
        execution.run_units(run_unit, made, units, workers=workers, told=order.append)
        return tables.finish(made.out, fingerprint, record=Segment, parts=len(units)), order


@pytest.fixture
def expected(tmp_path: Path) -> Done:
    return table(Execution(), *job(tmp_path, out="local"), workers=1)[0]


# ---- the same tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("execution", "workers"), [(Execution(), 2), (Execution(), 0), (RAY, 2), (RAY, 0), (RAY, 4)])
def test_every_executor_writes_the_same_table_and_tells_every_unit(
    tmp_path: Path, expected: Done, execution: Execution, workers: int, request: pytest.FixtureRequest
) -> None:
    if execution.executor == "ray":
        request.getfixturevalue("cluster")
    made, units = job(tmp_path)
    done, told = table(execution, made, units, workers=workers)
    assert (done.digest, done.counts) == (expected.digest, expected.counts)
    assert sorted(unit.reads[0].part for unit in told) == [0, 1, 2, 3, 4]


def test_a_relative_folder_means_the_same_in_a_ray_worker(
    cluster: None, tmp_path: Path, expected: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, units = job(tmp_path)
    relative = made.model_copy(update={"out": Path("out"), "sources": (Path("in-5"),)})
    assert table(RAY, relative, units)[0].digest == expected.digest


def test_a_ray_actor_opens_the_stage_once(cluster: None, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    table(RAY, *job(tmp_path, Cut(count_opens=str(opened)), parts=10))
    pids = opened.read_text().split()
    assert 1 <= len(pids) <= 2
    assert len(set(pids)) == len(pids)
    assert str(os.getpid()) not in pids


def visible_gpus(made: Job, unit: Unit) -> None:
    (made.out / f"gpu-{unit.reads[0].part}").write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ['OMP_NUM_THREADS']}")


def test_a_ray_worker_gets_the_gpu_and_the_one_thread_that_it_asked_for(cluster: None, tmp_path: Path) -> None:
    made, units = job(tmp_path)
    made.out.mkdir()
    RAY.run_units(visible_gpus, made, units, workers=2, told=lambda _: None, gpus=0.5)
    assert [(made.out / f"gpu-{part}").read_text() for part in range(5)] == ["0 1"] * 5
    with pytest.raises(ConfigError, match="needs 64 GPU and the Ray cluster has 1"):
        RAY.run_units(visible_gpus, made, units, workers=0, told=lambda _: None, gpus=64)
    with pytest.raises(ConfigError, match="needs 64 GPU and the Ray cluster has 1"):
        RAY.run_units(visible_gpus, made, units, workers=2, told=lambda _: None, gpus=64)


# ---- killed workers and errors -----------------------------------------------------------------------------------------------


def logged(made: Job, unit: Unit) -> None:
    """run_unit that says which unit it begins, and where."""
    with (made.out / "begun").open("a") as log:
        log.write(f"{unit.reads[0].part} {os.getpid()}\n")
    run_unit(made, unit)


@pytest.fixture(params=[Execution(), RAY], ids=["local", "ray"])
def execution(request: pytest.FixtureRequest) -> Execution:
    """Where workers run; the cluster is there when it is needed."""
    if request.param.executor == "ray":
        request.getfixturevalue("cluster")
    return request.param


def begun(made: Job) -> list[tuple[int, int]]:
    """Which parts were begun, and in which process."""
    lines = [line.split() for line in (made.out / "begun").read_text().splitlines()]
    return [(int(part), int(pid)) for part, pid in lines]


def test_a_worker_killed_in_mid_run_costs_its_unit_only(tmp_path: Path, expected: Done, execution: Execution) -> None:
    made, units = job(tmp_path, Cut(pause_s=0.1))
    killed: list[int] = []
    fingerprint = Fingerprint(stage="cut", version="1", seed=3, config={}, inputs={})
    tables.begin(made.out, fingerprint, redo_hint="")

    def kill_one(unit: Unit) -> None:
        busy = [pid for part, pid in begun(made) if tables.finished_part(made.out, part) is None]
        if busy and not killed:
            os.kill(busy[0], signal.SIGKILL)
            killed.append(busy[0])

    execution.run_units(logged, made, units, workers=2, told=kill_one)
    done = tables.finish(made.out, fingerprint, record=Segment, parts=5)
    assert killed
    assert (done.digest, done.counts) == (expected.digest, expected.counts)
    parts = [part for part, _ in begun(made)]
    assert len(parts) == 6
    assert set(parts) == set(range(5))


def deadly(made: Job, unit: Unit) -> None:
    """run_unit that the third part kills."""
    with (made.out / "begun").open("a") as log:
        log.write(f"{unit.reads[0].part} {os.getpid()}\n")
    if unit.reads[0].part == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    run_unit(made, unit)


def test_a_unit_that_kills_every_worker_is_named_and_costs_the_others_nothing(tmp_path: Path, execution: Execution) -> None:
    made, units = job(tmp_path)
    made.out.mkdir()
    told: list[Unit] = []
    with pytest.raises(
        DataError, match=r"part[ =]2\b.*: 3 workers died at it.*when memory runs out.*Run the same command again with"
    ):
        execution.run_units(deadly, made, units, workers=2, told=told.append)
    parts = [part for part, _ in begun(made)]
    assert sorted(parts) == [0, 1, 2, 2, 2, 3, 4]
    assert {part for part in range(5) if tables.finished_part(made.out, part) is not None} == {0, 1, 3, 4}


def killing_all(made: Job, unit: Unit) -> None:
    """run_unit whose worker is killed at every unit, but only once at each."""
    mark = made.out / f"begun-{unit.reads[0].part}"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    run_unit(made, unit)


def test_a_worker_may_be_killed_at_every_unit(tmp_path: Path, expected: Done) -> None:
    made, units = job(tmp_path)
    fingerprint = Fingerprint(stage="cut", version="1", seed=3, config={}, inputs={})
    tables.begin(made.out, fingerprint, redo_hint="")
    Execution().run_units(killing_all, made, units, workers=2, told=lambda _: None)
    done = tables.finish(made.out, fingerprint, record=Segment, parts=5)
    assert (done.digest, done.counts) == (expected.digest, expected.counts)


def test_idle_workers_that_are_killed_cost_nothing(tmp_path: Path, expected: Done) -> None:
    """The worker of the first finished unit has none, for a moment, while that is told."""
    made, units = job(tmp_path)
    fingerprint = Fingerprint(stage="cut", version="1", seed=3, config={}, inputs={})
    tables.begin(made.out, fingerprint, redo_hint="")

    def kill_its_worker(unit: Unit) -> None:
        (pid,) = [pid for part, pid in begun(made) if part == unit.reads[0].part]
        os.kill(pid, signal.SIGKILL)

    Execution().run_units(logged, made, units, workers=2, told=kill_its_worker)
    done = tables.finish(made.out, fingerprint, record=Segment, parts=5)
    assert (done.digest, done.counts) == (expected.digest, expected.counts)


def quitting(made: Job, unit: Unit) -> None:
    os._exit(3)


def test_how_a_worker_ended_is_told(tmp_path: Path) -> None:
    made, units = job(tmp_path)
    for work, how in ((quitting, "with exit code 3"), (killed_by_itself, r"by signal 9 \(SIGKILL\)")):
        with pytest.raises(DataError, match=f"3 workers died at it, the last {how}"):
            Execution().run_units(work, made, units[:2], workers=2, told=lambda _: None)


def killed_by_itself(made: Job, unit: Unit) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_unit_that_takes_long_runs_in_a_process_of_its_own_beside_the_clock(tmp_path: Path) -> None:
    made, units = job(tmp_path, Cut(pause_s=0.1))
    made.out.mkdir()
    ticks: list[bool] = []
    run_units(logged, made, units[:1], workers=1, told=lambda _: None, tick=lambda: ticks.append((made.out / "begun").exists()))
    assert len(ticks) >= 2
    assert ticks[-1]
    assert [part for part, pid in begun(made) if pid != os.getpid()] == [0]


class Odd(Exception):
    """Cannot be unpickled: its constructor wants more than its message."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


ERRORS: dict[int, Exception] = {
    0: DiskFull("cannot write x: No space left on device"),
    1: DependencyError("labeller 'y' needs torch"),
    2: OSError(errno.EIO, "bad disk"),
    3: Odd("this", "that"),
}


def raising(made: Job, unit: Unit) -> None:
    raise ERRORS[unit.reads[0].part]


@pytest.mark.parametrize(
    ("part", "kind", "text"),
    [
        (0, DiskFull, "cannot write x: No space left on device"),
        (1, DependencyError, "labeller 'y' needs torch"),
        (2, OSError, "[Errno 5] bad disk"),
        (3, RuntimeError, "this and that"),
    ],
)
def test_what_a_unit_raises_arrives_with_its_type_and_message(
    tmp_path: Path, execution: Execution, part: int, kind: type[Exception], text: str
) -> None:
    made, units = job(tmp_path)
    with pytest.raises(kind) as raised:
        execution.run_units(raising, made, [units[part]] * 2, workers=2, told=lambda _: None)
    if issubclass(kind, UndertoneError):
        assert (type(raised.value), str(raised.value)) == (kind, text)
    else:  # a bug: it takes the worker's traceback along
        assert text in str(raised.value)
        assert "in raising" in "".join([str(raised.value), *getattr(raised.value, "__notes__", [])])


def test_files_that_another_node_does_not_see_are_told_with_its_name(tmp_path: Path) -> None:
    ray_pool = pytest.importorskip("undertone.execute.ray_pool", reason="the extra ray")
    worker = ray_pool.Worker(run_unit, None, str(tmp_path), "head-node", None)
    placed = worker._placed(DataError("table x does not exist"))
    assert type(placed) is DataError
    assert "must see the run's folder and the audio under the same path as head-node" in str(placed)
    for error in (DependencyError("no torch"), DiskFull("cannot write x")):
        assert worker._placed(error) is error


# ---- beginnings and ends of clusters -----------------------------------------------------------------------------------------


def alive(pids: list[int]) -> list[int]:
    shown = subprocess.run(["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, pids))], capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in shown.stdout.splitlines() if not line.split()[1].startswith("Z")]


def ended(pids: list[int], *, within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(pids)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as a terminal has it: a shell that starts tests in the background turns it off for them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_run_and_its_workers_and_leaves_a_cluster_that_was_there(
    tmp_path: Path, execution: Execution, interruptible: None
) -> None:
    made, units = job(tmp_path, Cut(pause_s=0.2))
    made.out.mkdir()

    def interrupted(unit: Unit) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        execution.run_units(logged, made, units, workers=2, told=interrupted)
    assert ended([pid for _, pid in begun(made)])
    assert len(list(made.out.glob("part-*.parquet"))) < 5


OWN_CLUSTER = """
import os, signal, sys
from pathlib import Path
import undertone.execute.pool as pool
assert "ray" not in sys.modules
from tests.contract.test_executors import RAY, job, logged
from tests.toy import Cut

class Interrupted(BaseException):
    pass

def interrupt(signum, frame):
    raise Interrupted

signal.signal(signal.SIGINT, interrupt)  # as the command line does
made, units = job(Path(sys.argv[1]), Cut(pause_s=0.2))
made.out.mkdir()
import ray
try:
    with RAY.connected(workers=2):
        print("children", *os.popen(f"ps -o pid= --ppid {os.getpid()}").read().split(), flush=True)
        RAY.run_units(logged, made, units, workers=2, told=lambda unit: print("told", flush=True))
except Interrupted:
    print("interrupted", ray.is_initialized())
"""


def test_a_cluster_of_ones_own_starts_with_the_run_and_stops_with_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray")
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_CLUSTER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()[1:]]
    assert process.stdout.readline() == "told\n"
    workers = [int(line.split()[1]) for line in (tmp_path / "out" / "begun").read_text().splitlines()]
    assert alive(children)
    assert alive(workers)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and all that it started
    said, _ = process.communicate(timeout=60)
    assert said.splitlines()[-1] == "interrupted False"
    assert ended([*children, *workers])


def test_addresses_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    client = Execution(executor="ray", address="ray://head:10001")
    with (
        pytest.raises(ConfigError, match="--ray-address: got 'ray://head:10001', expected host:port or auto"),
        client.connected(workers=1),
    ):
        pass

    def refused(**settings: object) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(ray, "init", refused)
    nobody = Execution(executor="ray", address="10.0.0.1:6379")
    with (
        pytest.raises(
            ServiceError,
            match=r"10\.0\.0\.1:6379, or its token is another: no answer.*RAY_AUTH_MODE=token.*ray start",
        ),
        nobody.connected(workers=1),
    ):
        pass


# ---- a real cluster: what docs/cluster.md tells to type, on one machine ---------------------------------------------------------


@contextmanager
def ray_node(*flags: str, env: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A machine of a cluster, with one CPU: its process and what it said when it was up. It ends here, and all that it started."""
    command = [str(Path(sys.executable).parent / "ray"), "start", *flags, "--block", "--num-cpus", "1"]
    command += ["--object-store-memory", str(100 * 2**20)]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        said = ""
        while "block forever" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        yield process, said
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str], subprocess.Popen[str]]]:
    """A cluster of two machines (of one CPU each) that wants a token: its address, the environment with the token, the second machine."""
    pytest.importorskip("ray", reason="the extra ray")
    token = tmp_path_factory.mktemp("token") / "auth_token"
    token.write_text("5eed" * 16)
    env = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # paths of sockets may have 107 bytes
        head = ["--head", "--port", "0", "--node-ip-address", "127.0.0.1", "--include-dashboard", "false", "--temp-dir", short]
        with ray_node(*head, env=env) as (_, said):
            found = re.search(r"--address='([\d.]+:\d+)'", said)
            assert found, said
            with ray_node("--address", found[1], env=env) as (second, _):
                yield found[1], env, second


def digests(out: Path) -> dict[str, str]:
    made = [(name, tables.open_table(out / name, record)) for name, record in (("label/raw", Segment), ("label", Segment))]
    return {name: table.digest for name, table in made}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_runs_on_a_cluster_that_others_started(
    two_nodes: tuple[str, dict[str, str], subprocess.Popen[str]], speech: Path, tmp_path: Path
) -> None:
    address, env, _ = two_nodes
    command = ["label", str(speech), "--set", "parts=4"]
    cluster = ["--executor", "ray", "--ray-address", address]
    ran = undertone(*command, "--out", str(tmp_path / "ray"), *cluster, env=env)
    assert ran.returncode == 0, ran.stderr
    assert undertone(*command, "--out", str(tmp_path / "local")).returncode == 0
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    # As Ray has it, a command that names an address looks for no token by itself, unlike `ray start --head`.
    unasked = {name: value for name, value in env.items() if name != "RAY_AUTH_MODE"}
    refused = undertone(*command, "--out", str(tmp_path / "other"), *cluster, env=unasked)
    assert refused.returncode == ServiceError.exit_code
    assert "RAY_AUTH_MODE is not set here; a cluster with a token wants RAY_AUTH_MODE=token" in refused.stderr


def waiting_for_both(made: Job, unit: Unit) -> None:
    """run_unit of which the first two are begun at the same time, wherever they are; then the others wait until a machine was lost."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (made.out / f"on-{node}").touch()
    while len(list(made.out.glob("on-*"))) < 2:
        time.sleep(0.05)
    with (made.out / "begun").open("a") as log:
        log.write(f"{unit.reads[0].part} {node}\n")
    while (made.out / "hold").exists():
        time.sleep(0.05)
    run_unit(made, unit)


LOST_MACHINE = """
import sys
from pathlib import Path
from tests.contract.test_executors import Execution, job, table, waiting_for_both
import tests.contract.test_executors as contract
contract.run_unit = waiting_for_both
print(table(Execution(executor="ray", address=sys.argv[2]), *job(Path(sys.argv[1])))[0].digest)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_machine_that_is_lost_in_mid_run_costs_its_units_only(
    two_nodes: tuple[str, dict[str, str], subprocess.Popen[str]], tmp_path: Path, expected: Done
) -> None:
    address, env, second = two_nodes
    out = tmp_path / "out"
    out.mkdir()
    (out / "hold").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", LOST_MACHINE, str(tmp_path), address], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    while not (out / "begun").exists() or len({line.split()[1] for line in (out / "begun").read_text().splitlines()}) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(second.pid, signal.SIGKILL)
    (out / "hold").unlink()
    said, _ = process.communicate()
    assert process.returncode == 0
    assert said.splitlines()[-1] == expected.digest


def test_without_ray_the_command_that_installs_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import undertone.execute

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "undertone.execute.ray_pool", raising=False)
    monkeypatch.delattr(undertone.execute, "ray_pool", raising=False)
    with pytest.raises(DependencyError, match=r'--executor ray needs ray: pip install "undertone\[ray\]"'):
        table(RAY, *job(tmp_path))


# ---- shards: several jobs, no cluster ----------------------------------------------------------------------------------------


@given(parts=st.integers(1, 60), of=st.integers(1, 20))
def test_every_part_is_in_exactly_one_shard(parts: int, of: int) -> None:
    held = [[part for part in range(parts) if Shards(index=index, of=of).holds(part)] for index in range(1, of + 1)]
    assert sorted(part for one in held for part in one) == list(range(parts))
    assert max(map(len, held)) - min(map(len, held)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_shards_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected i/n with 1 <= i <= n, such as 3/16"):
        Shards.parse(text)


def test_a_share_reads_as_it_is_written() -> None:
    assert str(Shards.parse("3/16")) == "3/16"
    assert [part for part in range(40) if Shards.parse("3/16").holds(part)] == [2, 18, 34]


def stage_run(tmp: Path, out: str, shards: str | None = None, **more: object) -> StageReport:
    execution = Execution(shards=Shards.parse(shards) if shards else None)
    folder = tmp / "in"
    source(folder, 40, parts=10)
    return run_stage(more.pop("stage", Cut()), [folder], tmp / out, seed=3, execution=execution, **more)  # type: ignore[arg-type]


def test_jobs_with_shards_leave_the_table_to_a_last_one_without(tmp_path: Path) -> None:
    whole = stage_run(tmp_path, "whole")
    out = tmp_path / "out"
    for index, parts in ((1, 4), (2, 3), (3, 3)):
        before = len(list(out.glob("part-*.parquet")))
        with pytest.raises(Stopped, match=rf"out: shard {index}/3 is done \({parts} of 10 parts were left to it\)"):
            stage_run(tmp_path, "out", f"{index}/3")
        assert len(list(out.glob("part-*.parquet"))) == before + parts
        assert not (out / "_done.json").exists()
    with pytest.raises(Stopped, match=r"shard 2/3 is done \(0 of 10 parts were left to it\)"):
        stage_run(tmp_path, "out", "2/3")
    last = stage_run(tmp_path, "out")
    assert (last.resumed, last.digest, last.counts) == (10, whole.digest, whole.counts)
    assert stage_run(tmp_path, "out", "2/3").digest == whole.digest  # finished: a job with shards passes by


def test_a_last_job_does_what_a_lost_one_left(tmp_path: Path) -> None:
    whole = stage_run(tmp_path, "whole")
    with pytest.raises(Stopped):
        stage_run(tmp_path, "out", "1/3")
    last = stage_run(tmp_path, "out")
    assert (last.resumed, last.digest) == (4, whole.digest)


class Whole(Cut):
    """Sees the whole table."""

    scope: ClassVar = "table"


def test_shards_refuse_what_they_cannot_share(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"--shards: .*out is decided over all rows at once \(cut\).*without --shards.*with --until to go no further",
    ):
        stage_run(tmp_path, "out", "1/2", stage=Whole())
    with pytest.raises(ConfigError, match="--redo out and --shards"):
        stage_run(tmp_path, "out", "1/2", redo=True)
    with pytest.raises(Stopped):
        stage_run(tmp_path, "other", "1/2")
    with pytest.raises(ResumeMismatch, match=r"config\.length_ms 100, now 200"):
        stage_run(tmp_path, "other", "2/2", stage=Cut(length_ms=200))


def test_shards_may_write_at_once_and_a_run_without_may_not_join_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with tables.locked(out, shared=True):
        with pytest.raises(Stopped):
            stage_run(tmp_path, "out", "1/2")
        with pytest.raises(DataError, match="is being written by another run"):
            stage_run(tmp_path, "out")
    with tables.locked(out), pytest.raises(DataError, match="is being written by another run"):
        stage_run(tmp_path, "out", "2/2")


def undertone(*args: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "undertone.cli", *args], env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader", reason="the speech of this test is synthesised by the extra demo")
    from undertone.corpora.demo import plan, render

    folder = tmp_path_factory.mktemp("speech")
    for number, one in enumerate(plan(seed=3, recordings_per_split={"train": 8})):
        audio.write(folder / f"talk-{number}.wav", audio.Wave(render(one).samples, 16_000))
    return folder


QUEUE = """#!/bin/bash
# Stands for SLURM: runs a job at once, the jobs of an array at the same time.
script= ids=
for word in "$@"; do
    case $word in
        --array=*) ids=$(seq "${word#--array=1-}") ;;
        --*) ;;
        *) script=$word; break ;;
    esac
done
while [ "$1" != "$script" ]; do shift; done
shift
if [ -z "$ids" ]; then bash "$script" "$@" >&2 || exit 1; fi
for id in $ids; do SLURM_ARRAY_TASK_ID=$id bash "$script" "$@" >&2 & done
wait
echo 17
"""


def test_the_job_array_of_the_examples(speech: Path, tmp_path: Path) -> None:
    queue = tmp_path / "bin" / "sbatch"
    queue.parent.mkdir()
    queue.write_text(QUEUE)
    queue.chmod(0o755)
    settings = ["--set", "parts=2"]
    env = os.environ | {"PATH": f"{queue.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(ROOT / "examples/slurm/submit-label.sh"), "2", str(speech), "--out", str(tmp_path / "run"), *settings]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "corpus is there (--until)" in ran.stderr
    for share in ("1/2", "2/2"):
        assert f"raw: shard {share} is done (1 of 2 parts were left to it)" in ran.stderr
    (raw,) = [line for line in ran.stderr.splitlines() if line.startswith("label/raw: 8 in = ")]
    assert raw.endswith("[2 of 2 parts were already done]")
    unbroken = undertone("label", str(speech), "--out", str(tmp_path / "whole"), *settings)
    assert unbroken.returncode == 0, unbroken.stderr
    for name in ("label/raw", "label"):
        digests = [tables.open_table(tmp_path / one / name, Segment).digest for one in ("run", "whole")]
        assert digests[0] == digests[1], name


def test_flags_that_are_wrong_are_refused(speech: Path, tmp_path: Path) -> None:
    for flags, said in (
        (["--shards", "3/2"], "ConfigError: --shards: got '3/2', expected i/n"),
        (["--executor", "spark"], "ConfigError: --executor: got 'spark', expected local or ray"),
    ):
        refused = undertone("label", str(speech), "--out", str(tmp_path / "run"), *flags)
        assert refused.returncode == 2
        assert said in refused.stderr


# ---- the whole path --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_table_of_the_path_is_the_same_through_ray(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage, the light ones too (which are usually done here, whatever the executor)."""
    pytest.importorskip("espeakng_loader", reason="the demonstration corpus needs the extra demo")
    pytest.importorskip("torch", reason="training needs the extra train")
    from tests.golden.test_study import run as walk
    from tests.golden.test_study import study

    monkeypatch.setattr("undertone.execute.run._LIGHT_ROWS", 0)
    monkeypatch.setattr("undertone.execute.run._LIGHT_COLUMN_ROWS", 0)
    walk(tmp_path / "ray", study(), workers=2, execution=RAY)
    walk(tmp_path / "local", study(), workers=1)
    made = {
        one: {
            str(marker.parent.relative_to(tmp_path / one)): json.loads(marker.read_text())["digest"]
            for marker in (tmp_path / one).rglob("_done.json")
        }
        for one in ("ray", "local")
    }
    assert len(made["local"]) >= 30
    assert made["ray"] == made["local"]
