"""How far the work is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from undertone.execute.run import Progress as Told

_QUIET_S = 10.0
"""Plain lines come at least this far apart."""


@contextmanager
def shown(console: Console) -> Iterator[Told]:
    """A progress callback for the stages of one command."""
    if console.is_terminal:
        with _bar(console) as told:
            yield told
    else:
        yield _lines(console)


@contextmanager
def _bar(console: Console) -> Iterator[Told]:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, int] = {}

        def told(stage: str, done: int, total: int, rows: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]
            if done >= total:
                progress.remove_task(tasks.pop(stage))  # type: ignore[arg-type]

        yield told


def _lines(console: Console) -> Told:
    last: dict[str, float] = {}

    def told(stage: str, done: int, total: int, rows: int) -> None:
        now = time.monotonic()
        if done < total and now - last.setdefault(stage, now) >= _QUIET_S:
            last[stage] = now
            console.print(f"  {stage}: {done} of {total}", highlight=False)

    return told
