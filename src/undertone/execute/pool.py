"""Where units of work run: here, over processes, or over a Ray cluster; and which of them, where several jobs share a table.

Processes are spawned, never forked (polars and onnxruntime hold locks), and a killed worker costs its unit only.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import ConfigError, DataError, DependencyError, UndertoneError

J = TypeVar("J")
U = TypeVar("U")

MAX_ATTEMPTS = 3
"""Workers that may die at one unit before the run gives up: a unit that kills each of them would go on for ever."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
"""The environment of every worker: the processes are the parallelism, and sums over another number of threads round otherwise."""


class Shards(BaseModel):
    """One job's share of a table's parts, where several jobs without a cluster between them write one table: `index` of `of`, from 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=1)
    of: int = Field(ge=1)

    @classmethod
    def parse(cls, text: str) -> Shards:
        """Read "3/16".

        Raises:
            ConfigError: The text is not of this form, or there is no such share.

        >>> [part for part in range(8) if Shards.parse("2/3").holds(part)]
        [1, 4, 7]
        """
        left, slash, right = text.partition("/")
        if not (slash and left.isdecimal() and right.isdecimal() and 1 <= int(left) <= int(right)):
            raise ConfigError(f"--shards: got {text!r}, expected i/n with 1 <= i <= n, such as 3/16 for the third of sixteen jobs")
        return cls(index=int(left), of=int(right))

    def holds(self, part: int) -> bool:
        """Whether a part of the table, counted from 0, is this job's."""
        return part % self.of == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


class Stopped(Exception):
    """No error: the command ends here, as it was told to, because what comes next is not this job's to do."""


class Execution(BaseModel):
    """Where the units of a stage run, and which of them. No table depends on it.

    Attributes:
        executor: "local" is this machine, "ray" a Ray cluster (the extra ray).
        address: Of a running Ray cluster; without one, that of the environment (`RAY_ADDRESS`), or a cluster is started and stopped here.
        shards: This job's share of the parts; without one, all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["local", "ray"] = "local"
    address: str | None = None
    shards: Shards | None = None

    def connected(self, *, workers: int) -> AbstractContextManager[None]:
        """Hold the cluster, if there is one to hold, so that it is started once and not for every stage.

        Args:
            workers: CPUs of a cluster that is started here; 0 is all of this machine's.

        Raises:
            DependencyError: Ray is not installed.
            ServiceError: No cluster answers at `address`.
        """
        if self.executor == "local":
            return nullcontext()
        return _ray_pool().connected(address=self.address, workers=workers)  # type: ignore[no-any-return]

    def run_units(
        self,
        work: Callable[[J, U], None],
        job: J,
        units: Sequence[U],
        *,
        workers: int,
        told: Callable[[U], None],
        gpus: float = 0.0,
    ) -> None:
        """Run `work(job, unit)` for every unit, wherever that is; units commit their own output.

        Args:
            work: A function that can be pickled by name.
            job: What all units share.
            units: What to do, in any order.
            workers: Processes; 0 is one for each core of this machine, or of the cluster.
            told: Called here after every finished unit.
            gpus: GPUs (or the share of one) that every worker needs to itself; only Ray hands them out.

        Raises:
            UndertoneError: What a unit raised.
            DataError: Several workers died at one unit.
        """
        if self.executor == "ray":
            _ray_pool().run_units(work, job, units, workers=workers, told=told, gpus=gpus, address=self.address)
        else:
            run_units(work, job, units, workers=workers or os.cpu_count() or 1, told=told)


def _ray_pool() -> ModuleType:
    try:
        from undertone.execute import ray_pool  # ray, which the bare install lacks
    except ImportError as error:
        raise DependencyError(
            f'--executor ray needs {error.name}: pip install "undertone[ray]"; or leave --executor out to run on this machine'
        ) from error
    return ray_pool


def run_units(
    work: Callable[[J, U], None],
    job: J,
    units: Sequence[U],
    *,
    workers: int,
    told: Callable[[U], None],
    tick: Callable[[], None] | None = None,
) -> None:
    """Run `work(job, unit)` for every unit, here or in spawned processes; units commit their own output.

    A unit whose worker is killed runs again on another; the other workers go on meanwhile.

    Args:
        work: A function that can be pickled by name.
        job: What all units share.
        units: What to do; in order with one worker, in any order with more.
        workers: Number of processes.
        told: Called here after every finished unit.
        tick: Called here now and then while units run, for those that take long; it makes even one worker a process of its own.

    Raises:
        UndertoneError: What a unit raised. Units that others had begun are finished first.
        DataError: Several workers died at one unit; the message names it.
    """
    if tick is None and (workers <= 1 or len(units) <= 1):
        for unit in units:
            work(job, unit)
            told(unit)
        return
    waiting, attempts = deque(range(len(units))), Counter[int]()
    with _pool(work, job, min(max(1, workers), len(units))) as pool:
        while waiting or any(worker.unit is not None for worker in pool):
            for worker in pool:
                if waiting and worker.unit is None:
                    worker.begin(waiting.popleft(), units)
            heard = multiprocessing.connection.wait([worker.pipe for worker in pool], timeout=0.2)
            if tick is not None:
                tick()
            for place, worker in enumerate(pool):
                if worker.pipe not in heard:
                    continue
                if worker.answered():
                    index, worker.unit = worker.unit, None
                    told(units[cast(int, index)])
                    continue
                how, pool[place] = worker.death(), _Worker(work, job)
                if worker.unit is None:
                    continue
                attempts[worker.unit] += 1
                if attempts[worker.unit] == MAX_ATTEMPTS:
                    raise DataError(died_each_time(units[worker.unit], how, less="--workers 1"))
                waiting.append(worker.unit)  # behind the others: where memory is short, there may be more of it then


def died_each_time(unit: object, how: str, *, less: str) -> str:
    """The message for a unit that every worker died at; `less` is the flag that leaves each of them more memory."""
    return (
        f"{unit}: {MAX_ATTEMPTS} workers died at it, the last {how}. A worker is killed so when memory runs out: look for 'Out of memory' in "
        f"dmesg. Run the same command again with {less}, or where there is more memory; finished parts are kept"
    )


class _Worker:
    """One spawned process and the pipe to it: units go in, and for each comes None, or what it raised (pickled)."""

    def __init__(self, work: Callable[[J, U], None], job: J) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.unit: int | None = None
        self._send((work, job))

    def begin(self, index: int, units: Sequence[U]) -> None:
        self.unit = index
        self._send(units[index])

    def answered(self) -> bool:
        """Whether the unit is finished: False where the process has died. Raises what the unit raised."""
        try:
            error = self.pipe.recv()
        except (EOFError, OSError):
            return False
        if error is not None:
            raise pickle.loads(error)
        return True

    def death(self) -> str:
        """How a process ended that did so by itself."""
        self.pipe.close()
        self.process.join()
        code = self.process.exitcode or 0
        return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"

    def _send(self, what: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died: `answered` will say so
            self.pipe.send(what)


@contextmanager
def _pool(work: Callable[[J, U], None], job: J, size: int) -> Iterator[list[_Worker]]:
    """Workers, all of which have ended at the end: after their unit, but at once after Ctrl-C, since a unit may take minutes."""
    pool = [_Worker(work, job) for _ in range(size)]
    try:
        try:
            yield pool
        except Exception:
            _end(pool)
            raise
        _end(pool)
    finally:
        for worker in pool:
            worker.process.kill()
            worker.process.join()


def _end(pool: Sequence[_Worker]) -> None:
    for worker in pool:
        worker.pipe.close()
    for worker in pool:
        worker.process.join()


def _work(pipe: Connection) -> None:
    """What a worker process does: units, until the pipe is closed."""
    _single_threaded()  # before the job is read, which imports the libraries that look at it
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        work, job = pipe.recv()
        while True:
            unit = pipe.recv()
            try:
                work(job, unit)
            except Exception as error:  # noqa: BLE001 - the edge of the worker: the command raises it again
                pipe.send(pickled(error, "In a worker process"))
            else:
                pipe.send(None)


def pickled(error: Exception, where: str) -> bytes:
    """The error as bytes; one that is no refusal of ours (a bug) takes its traceback with it, under the words `where`."""
    if not isinstance(error, UndertoneError):
        error.add_note(f"{where}:\n{''.join(traceback.format_exception(error))}")
    try:
        raw = pickle.dumps(error)
        pickle.loads(raw)
    except Exception:  # noqa: BLE001 - other people's exceptions need not be picklable
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
    return raw


def _end_with_parent() -> None:
    """End this worker when its parent is killed: it would go on writing, and hold locks, beside the run that resumes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _single_threaded() -> None:
    """Libraries in a worker use one thread. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(ONE_THREAD)
