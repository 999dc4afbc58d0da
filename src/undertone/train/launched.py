"""A training on several processes: a study's worker starts them through accelerate, and each of them runs this module."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from undertone.errors import ConfigError, ModelError, UndertoneError
from undertone.train.job import TrainJob, fit

WORKER_GONE = 130
"""Exit code of a process whose worker has ended: that of an interrupt."""


class Task(BaseModel):
    """What each process is told.

    Attributes:
        job: The study's.
        name: Of the system.
        folder: Where its checkpoint goes.
        states: Where its states go.
        logs: Where trackers write.
        alive: Pipe that the study's worker holds open for as long as it lives (`held_open`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: TrainJob
    name: str
    folder: Path
    states: Path
    logs: Path | None
    alive: Path | None = None


def shipped() -> dict[str, Path]:
    """Files of `accelerate config` that come with Undertone, by name."""
    folder = Path(str(resources.files("undertone") / "configs" / "accelerate"))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def launch(task: Task) -> None:
    """Train on several processes and wait for them.

    Raises:
        ConfigError: `train.launch` names no file.
        ModelError: They failed; their own messages are on the terminal.
    """
    train = task.job.ways[task.name].train
    with tempfile.TemporaryDirectory(prefix="undertone-") as place:
        told, alive = Path(place) / "task.json", Path(place) / "alive"
        told.write_text(task.model_copy(update={"alive": alive}).model_dump_json(), encoding="utf-8")
        words = command(train.launch or "", train.processes, told)
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true"} if "torch.distributed.run" in words else dict(os.environ)
        with held_open(alive):
            code = subprocess.run(words, env=environment, check=False).returncode
    if code:
        raise ModelError(f"training {task.name} with train.launch={train.launch} ended with code {code}; see the lines above")


@contextmanager
def held_open(pipe: Path) -> Iterator[None]:
    """Make a named pipe and hold it open; the kernel closes it however this process ends, `kill -9` too."""
    os.mkfifo(pipe)
    writes = os.open(pipe, os.O_RDWR)  # for writing alone it would wait for a reader
    try:
        yield
    finally:
        os.close(writes)


def end_with(pipe: Path) -> None:
    """End this process as soon as nobody holds the pipe open any more.

    A training whose worker was killed would otherwise go on beside the one that the next run of the study starts on the same states.
    """
    # Nobody may hold it open already, and opening it to wait would wait for ever.
    reads = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reads, True)

    def wait() -> None:
        os.read(reads, 1)  # nothing is ever written: it returns when the last writer is gone
        os._exit(WORKER_GONE)

    threading.Thread(target=wait, daemon=True, name="undertone-worker-alive").start()


def command(which: str, processes: int | None, told: Path) -> list[str]:
    """The command line that starts the processes.

    Args:
        which: A shipped file's name, or a file.
        processes: How many; None is what the file says, or one per GPU.
        told: File of a `Task`.

    Raises:
        ConfigError: There is no such file.
    """
    file = shipped().get(which, Path(which))
    if not file.is_file():
        raise ConfigError(f"train.launch={which!r} is no file of accelerate config; expected one, or: {', '.join(shipped())}")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    own = ["-m", __name__, str(told)]
    kind = str(content.get("distributed_type"))
    if content.get("use_cpu") and kind == "FSDP":
        raise ConfigError(
            f"train.launch={which!r}: on a CPU accelerate takes FSDP for plain copies of the model, and says nothing; expected "
            "distributed_type: MULTI_CPU, or use_cpu: false on a machine with GPUs"
        )
    if content.get("use_cpu") and kind != "DEEPSPEED":
        # accelerate starts one process on a CPU, unless there is MPI.
        count = str(processes or content.get("num_processes") or 1)
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *own]
    counted = ["--num_processes", str(processes)] if processes else []
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), *counted, *own]


def main(told: Path) -> int:
    """Run one of the processes; returns its exit code."""
    task = Task.model_validate_json(told.read_text(encoding="utf-8"))
    if task.alive is not None:
        end_with(task.alive)
    try:
        fit(task.job, task.name, task.folder, states=task.states, logs=task.logs)
    except UndertoneError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
