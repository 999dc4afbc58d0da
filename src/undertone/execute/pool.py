"""Units of work over processes: spawned, never forked (polars and onnxruntime hold locks), and a killed worker costs its unit only."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from undertone.errors import DataError

J = TypeVar("J")
U = TypeVar("U")

_MAX_BREAKS = 3
"""Times that a broken pool is built again before the run gives up: a unit that kills its worker each time would go on for ever."""


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
        try:
            _one_pool(work, job, units, left, max(1, workers), told, tick)
        except BrokenProcessPool as error:
            breaks += 1
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
    """Libraries in a worker use one thread: the processes are the parallelism. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = "1"
