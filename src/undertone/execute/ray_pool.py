"""Units of work over a Ray cluster, by Ray Data: an actor opens the stage once and commits parts itself; only receipts travel.

The tables are those of the local pool, because the same function runs on the same units; Ray decides only where. A worker that is
killed is started anew and runs its unit again: a unit commits its parts whole or not at all, so it may run twice. Every node must see
the run's folder under the same path (a shared file system, or an object store); docs/cluster.md says how.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Generic, TypeVar

import numpy as np
import ray
import ray.data
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from undertone.errors import ConfigError, DataError, ServiceError
from undertone.execute.pool import MAX_ATTEMPTS, ONE_THREAD, died_each_time, pickled

J = TypeVar("J")
U = TypeVar("U")

_OBJECT_STORE_BYTES = 100 * 2**20
"""Of a cluster started here; only units and receipts pass through it, rows never do."""


@contextmanager
def connected(*, address: str | None = None, workers: int = 0) -> Iterator[None]:
    """Hold a connection to a Ray cluster; one that is started here is stopped at the end, one that was there is left alone.

    Args:
        address: Of a running cluster, such as "10.0.0.1:6379" or "auto"; without one that of the environment (`RAY_ADDRESS`), or a cluster
            of this machine's own is started.
        workers: CPUs of a cluster that is started here; 0 is all of this machine's.

    Raises:
        ConfigError: An address of a form that cannot be used.
        ServiceError: No cluster answers at the address.
    """
    if ray.is_initialized():  # an outer `connected`, or the caller's own: not ours to stop
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" in address:
        raise ConfigError(
            f"--ray-address: got {address!r}, expected host:port or auto. Run the command on a machine of the cluster, "
            "since it writes into the run's folder itself"
        )
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # or its engine prints a remark on every stage's actors
    if address != "local":
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, AuthenticationError) as error:
            # A cluster that wants another token looks to Ray like one that is not there.
            mode = os.environ.get("RAY_AUTH_MODE", "not set")
            raise ServiceError(
                f"no Ray cluster answers at {address}, or its token is another: {error}. RAY_AUTH_MODE is {mode} here; a cluster with a "
                "token wants RAY_AUTH_MODE=token and the token of its head. Start a cluster with: ray start --head; or leave "
                "--ray-address out"
            ) from error
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing that is started here calls home
        ray.init(
            address="local",
            num_cpus=workers or None,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()


def run_units(
    work: Callable[[J, U], None],
    job: J,
    units: Sequence[U],
    *,
    workers: int,
    told: Callable[[U], None],
    gpus: float = 0.0,
    address: str | None = None,
) -> None:
    """Run `work(job, unit)` for every unit in actors of a Ray cluster, in any order; units commit their own output.

    Args:
        work: A function that can be pickled by name.
        job: What all units share.
        units: What to do.
        workers: Number of actors, each on one CPU; 0 is as many as the cluster can hold.
        told: Called here after every finished unit.
        gpus: GPUs (or the share of one) that every actor needs to itself.
        address: See `connected`.

    Raises:
        UndertoneError: What a unit raised, as it raised it.
        ConfigError: The cluster has no such GPUs.
        DataError: Several workers died at one unit, or the cluster was lost.
    """
    if not units:
        return
    with connected(address=address, workers=workers), _quietly(), _attempts() as attempts:
        room = _room(gpus)
        size = min(len(units), workers or room)  # more workers than there is room for wait, or make a cluster grow that can
        rows = [{"index": index, "unit": pickle.dumps(unit)} for index, unit in enumerate(units)]
        receipts = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            fn_constructor_args=(work, job, os.getcwd(), socket.gethostname(), attempts),
            batch_size=1,
            batch_format="numpy",
            # One unit at a time: one that only waits behind another must not be begun again when that one kills the actor.
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=gpus or None,
            runtime_env={"env_vars": ONE_THREAD},
        )
        _follow(receipts, units, told)


def _follow(receipts: ray.data.Dataset, units: Sequence[U], told: Callable[[U], None]) -> None:
    """Tell of every finished unit; raise what the first failed one raised. However it ends, the actors end with it."""
    try:
        batches: Any = iter(receipts.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0))
        with closing(batches):
            for batch in batches:
                for index, error in zip(batch["index"], batch["error"], strict=True):
                    if error:
                        raise pickle.loads(error)
                    told(units[int(index)])
    except RayError as error:
        raise DataError(
            f"the Ray cluster gave up: {str(error).strip().splitlines()[0]}. See its logs; "
            "the same command goes on from there: finished parts are kept"
        ) from error


class Worker(Generic[J, U]):
    """One actor: runs units and answers each with a receipt, its number and the error if there was one (pickled; empty for none).

    Errors travel as values, since Ray would wrap them in its own, and would print them before the command line does.

    Args:
        work, job: See `run_units`. What `work` opens stays open in the actor's process.
        folder: The working folder of the command, so that relative paths mean the same files here.
        host: The machine where the command runs.
        attempts: Counts how often each unit was begun.
    """

    def __init__(self, work: Callable[[J, U], None], job: J, folder: str, host: str, attempts: Any) -> None:
        self.work, self.job, self.folder, self.host, self.attempts = work, job, folder, host, attempts

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the one unit of a batch."""
        index = batch["index"]
        try:
            unit = pickle.loads(batch["unit"][0])
            self._begin(int(index[0]), unit)
            self.work(self.job, unit)
        except Exception as error:  # noqa: BLE001 - the edge of the worker: the command raises it again
            return {"index": index, "error": np.array([pickled(self._placed(error), "In a Ray worker")], dtype=object)}
        return {"index": index, "error": np.array([b""], dtype=object)}

    def _begin(self, index: int, unit: U) -> None:
        if ray.get(self.attempts.begin.remote(index)) > MAX_ATTEMPTS:
            raise DataError(died_each_time(unit, "in Ray, whose logs say how", less="fewer --workers"))
        with suppress(OSError):  # not there: nothing to look for in it, or the file that is looked for is told with the node's name
            os.chdir(self.folder)

    def _placed(self, error: Exception) -> Exception:
        """The error with the node's name where it is about a table and the node is not the one where the command runs."""
        here = socket.gethostname()
        if here == self.host or type(error) is not DataError:
            return error
        return DataError(
            f"{error} (on node {here}; every node must see the run's folder and the audio under the same path as {self.host})"
        )


class _Attempts:
    """Counts how often each unit was begun. A unit that is begun again was on a worker that died."""

    def __init__(self) -> None:
        self.count: Counter[int] = Counter()

    def begin(self, index: int) -> int:
        self.count[index] += 1
        return self.count[index]


@contextmanager
def _attempts() -> Iterator[Any]:
    """A counter that all workers see, on the node where the command runs: it is lost only when the run is."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    counter: Any = ray.remote(_Attempts).options(num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield counter
    finally:
        ray.kill(counter)


def _room(gpus: float) -> int:
    """How many workers the cluster can hold at once.

    Raises:
        ConfigError: Not one, for want of GPUs: the run would wait for ever.
    """
    resources: Any = ray.cluster_resources
    cpus, found = int(resources().get("CPU", 0)), float(resources().get("GPU", 0))
    if found < gpus:
        raise ConfigError(
            f"a worker of this stage needs {gpus:g} GPU and the Ray cluster has {found:g}. "
            "Add a node with one, or set the labellers' device to cpu"
        )
    return max(1, min(cpus, int(found / gpus)) if gpus else cpus)


@contextmanager
def _quietly() -> Iterator[None]:
    """Ray Data without progress bars and messages of its own: the command line shows progress. Its warnings stay."""
    context = ray.data.DataContext.get_current()
    shown = context.enable_progress_bars, context.print_on_execution_start
    levels = {"ray.data": logging.WARNING, "ray.data._internal.progress": logging.ERROR}  # the latter says that bars are off
    before = {name: logging.getLogger(name).level for name in levels}
    context.enable_progress_bars = context.print_on_execution_start = False
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = shown
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
