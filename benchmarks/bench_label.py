"""The labelling stage against its bare models on the same recordings and threads, in one run; one and two workers.

python benchmarks/bench_label.py [RECORDINGS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from undertone import audio, recipe
from undertone.execute import run_stage
from undertone.label import vad
from undertone.label.protocol import LABELLERS
from undertone.label.stage import LabelStage
from undertone.records import Recording
from undertone.study import load_study
from undertone.tables import open_table


def bare(recordings: list[Recording], names: tuple[str, ...]) -> float:
    """Seconds that decoding, speech detection and the labellers take without stage, tables and records."""
    labellers = [LABELLERS.get(name) for name in names]
    began = time.perf_counter()
    for recording in recordings:
        for _, wave in vad.segments(audio.stream(Path(recording.uri))):
            for one in labellers:
                one.judge(wave)
    return time.perf_counter() - began


def main() -> None:
    """Measure in one run."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = load_study("demo", [f"corpora.0.train={count}", "corpora.0.test=0"])
        with recipe.running(study, folder, workers=2) as run:
            recipe.corpora(run)
        recordings = list(open_table(folder / "corpus", Recording).rows())
        hours = sum(row.duration_ms for row in recordings) / 3_600_000
        stage = LabelStage()
        bare(recordings[:1], stage.labellers)  # loads the weights
        alone = bare(recordings, stage.labellers)
        print(f"{count} recordings, {hours:.2f} h; bare models: {3600 * hours / alone:.0f}x real time")
        for workers in (1, 2):
            began = time.perf_counter()
            run_stage(stage, [folder / "corpus"], folder / f"label{workers}", workers=workers)
            seconds = time.perf_counter() - began
            print(
                f"label stage, {workers} worker(s): {3600 * hours / seconds:.0f}x real time, {alone / seconds:.2f} of the bare models"
            )


if __name__ == "__main__":
    main()
