"""What the machinery costs: rows per second of a stage that does nothing, against reading and writing the same table bare.

python benchmarks/bench_stages.py [ROWS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from undertone.execute import run_stage, write_rows
from undertone.records import Label, Segment, from_arrow, to_arrow
from undertone.stages import Kept, Outcome, Stage
from undertone.tables import Fingerprint, open_table


class Nothing(Stage[Segment, Segment]):
    """Passes every row."""

    name: ClassVar[str] = "nothing"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Segment]] = Segment
    batch_rows: ClassVar[int] = 1_000

    def process(self, rows: Sequence[Segment]) -> Sequence[Outcome[Segment]]:
        return [Kept((row,)) for row in rows]


def segment(number: int) -> Segment:
    """A segment with the labels of two windows."""
    start = 3_000 * number
    labels = [
        Label(
            attribute=name,
            category="sad" if name == "emotion" else None,
            number=None if name == "emotion" else 0.2,
            start_ms=at,
            end_ms=at + 1,
            labeller="x",
        )
        for at in (start, start + 1)
        for name in ("emotion", "valence", "arousal", "dominance")
    ]
    return Segment(recording_id="r", start_ms=start, end_ms=start + 2_000, labels=tuple(labels))


def main() -> None:
    """Measure in one run."""
    rows = [segment(number) for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)]
    made = Fingerprint(stage="bench", version="1", seed=0, config={}, inputs={})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "in", rows, record=Segment, fingerprint=made, parts=16)
        began = time.perf_counter()
        bare = [row for index in range(16) for row in open_table(folder / "in", Segment).part(index)]
        from_arrow(to_arrow(bare, Segment), Segment)
        bare_s = time.perf_counter() - began
        print(f"bare read, build, read: {len(rows) / bare_s:,.0f} rows/s")
        for workers in (1, 2):
            began = time.perf_counter()
            run_stage(Nothing(), [folder / "in"], folder / f"out{workers}", workers=workers)
            print(f"stage, {workers} worker(s): {len(rows) / (time.perf_counter() - began):,.0f} rows/s")


if __name__ == "__main__":
    main()
