"""Small stages for tests of the machinery; importable by name, since workers are spawned."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import PrivateAttr

from undertone.execute import run_stage, write_rows
from undertone.records import Recording, Segment
from undertone.stages import Context, Dropped, Kept, Outcome, Stage
from undertone.tables import Fingerprint


def recordings(count: int) -> list[Recording]:
    return [
        Recording(uri=f"{n}.wav", sha256=f"{n:016x}{n:048x}", rate_hz=16_000, samples=16_000 + n, source="toy")
        for n in range(count)
    ]


def source(folder: Path, count: int, *, parts: int = 5) -> Path:
    made = Fingerprint(stage="toy", version="1", seed=0, config={"count": count}, inputs={})
    write_rows(folder, recordings(count), record=Recording, fingerprint=made, parts=parts, smallest=1)
    return folder


class Cut(Stage[Recording, Segment]):
    """Recording n becomes n % 3 segments; every fifth is dropped, every seventh raises."""

    name: ClassVar[str] = "cut"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Segment]] = Segment
    batch_rows: ClassVar[int] = 4
    heavy: ClassVar[bool] = True

    length_ms: int = 100
    pause_s: float = 0.0
    kill_once: str | None = None
    count_opens: str | None = None

    _seed: int = PrivateAttr(default=0)

    def open(self, context: Context) -> None:
        self._seed = context.seed
        if self.count_opens:
            with Path(self.count_opens).open("a") as log:
                log.write(f"{os.getpid()}\n")

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Segment]]:
        return [self._one(row) for row in rows]

    def _one(self, row: Recording) -> Outcome[Segment]:
        time.sleep(self.pause_s)
        number = int(row.sha256[:16], 16)
        if self.kill_once and number == 11 and not Path(self.kill_once).exists():
            Path(self.kill_once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number % 7 == 6:
            raise ValueError(f"row {number} is broken")
        if number % 5 == 4:
            return Dropped("fifth", f"row {number}")
        starts = [self._seed + index * self.length_ms for index in range(number % 3)]
        return Kept(tuple(Segment(recording_id=row.id, start_ms=start, end_ms=start + self.length_ms) for start in starts))


class Short(Cut):
    """Gives one outcome too few."""

    name: ClassVar[str] = "short"

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Segment]]:
        return list(super().process(rows))[:-1]


if __name__ == "__main__":
    run_stage(Cut(pause_s=0.02), [Path(sys.argv[1])], Path(sys.argv[2]), seed=3, workers=int(sys.argv[3]))
