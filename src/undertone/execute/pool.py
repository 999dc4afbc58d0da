"""Where units of work run: here, over processes, or over a Ray cluster; and which of them, where several jobs share a table.

Processes are spawned, never forked (polars and onnxruntime hold locks), and a killed worker costs its unit only.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import ConfigError, DataError, DependencyError

J = TypeVar("J")
U = TypeVar("U")

_MAX_BREAKS = 3
"""Times that a broken pool is built again before the run gives up: a unit that kills its worker each time would go on for ever."""

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
            DataError: Workers were killed again and again.
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

    Args:
        work: A function that can be pickled by name.
        job: What all units share.
        units: What to do; in order with one worker, in any order with more.
        workers: Number of processes.
        told: Called here after every finished unit.
        tick: Called here now and then while units run, for those that take long; it makes even one worker a process of its own.

    Raises:
        DataError: Workers were killed again and again.
    """
    if tick is None and (workers <= 1 or len(units) <= 1):
        for unit in units:
            work(job, unit)
            told(unit)
        return
    left, breaks = list(range(len(units))), 0
    while left:
        before = len(left)
        try:
            _one_pool(work, job, units, left, max(1, workers), told, tick)
        except BrokenProcessPool as error:
            breaks = 1 if len(left) < before else breaks + 1  # a run of weeks may lose a worker now and then
            if breaks > _MAX_BREAKS:
                raise DataError(
                    f"a worker process was killed {breaks} times ({len(left)} units are left): out of memory? "
                    "Run the same command again with --workers 1; finished parts are kept"
                ) from error


def _one_pool(
    work: Callable[[J, U], None],
    job: J,
    units: Sequence[U],
    left: list[int],
    workers: int,
    told: Callable[[U], None],
    tick: Callable[[], None] | None,
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(left)), mp_context=context, initializer=_single_threaded) as pool:
        futures = {pool.submit(work, job, units[index]): index for index in left}
        pending = set(futures)
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
                if tick is not None:
                    tick()
                # Finished units leave the list before an exception is raised, so that a rebuilt pool does only the rest.
                broken = None
                for future in finished:
                    if future.exception() is None:
                        left.remove(futures[future])
                        told(units[futures[future]])
                    else:
                        broken = broken or future.exception()
                if broken is not None:
                    raise broken
        except BaseException as error:
            for future in pending:
                future.cancel()
            if not isinstance(error, Exception):  # Ctrl-C: do not wait for units that may take minutes
                for process in list((pool._processes or {}).values()):
                    process.kill()
            raise


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
