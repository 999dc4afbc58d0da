"""The labelling stage: its speed beside the bare models', one and two workers, one decode per recording, memory on long files.

    python benchmarks/bench_label.py [--minutes 10] [--recordings 16] [--hours 3]

Real speech from ../shared/data where it is there, synthetic voices otherwise, joined with pauses into recordings of real lengths. Everything is
measured in this one run, with one numeric thread per process; "bare" is the same labellers on the same windows and segments without
stage, records and tables.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from threadpoolctl import threadpool_limits

from undertone import audio
from undertone.audio import Wave
from undertone.execute import run_stage, write_rows
from undertone.label import stage as label_stage
from undertone.label import vad
from undertone.label.protocol import Labeller
from undertone.label.stage import LabelStage
from undertone.records import Recording
from undertone.tables import Fingerprint

RATE = 16_000
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def clips() -> list[np.ndarray]:
    """Some hundred utterances."""
    files = sorted((SHARED / "ravdess" / "audio").glob("*.opus"))[::6] + sorted((SHARED / "nemo" / "audio").glob("*.opus"))[::30]
    if files:
        return [audio.load(file, rate_hz=RATE).samples for file in files]
    from undertone.corpora.voices import VOICES, speak

    said = (
        speak("The clerk returned two tickets before lunch.", voice, emotion, seed=n)
        for n, voice in enumerate(VOICES)
        for emotion in ("sad", "angry")
    )
    return [audio.join([Wave(np.asarray(one.samples, np.float32), one.rate_hz)]).samples for one in said]


def recordings(folder: Path, spoken: list[np.ndarray], *, count: int, minutes: float) -> list[Recording]:
    """Recordings of one length; each of its own draw of utterances and pauses."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        file = folder / f"{number:03d}-{minutes:g}.flac"
        with soundfile.SoundFile(file, "w", RATE, 1) as out:
            while out.frames < minutes * 60 * RATE:
                out.write(spoken[rng.integers(len(spoken))])
                out.write(rng.normal(0, 1e-4, int(rng.uniform(0.3, 2.0) * RATE)).astype(np.float32))
        probe = audio.probe(file)
        made.append(Recording(uri=str(file), sha256=probe.sha256, rate_hz=RATE, samples=probe.samples, source="benchmark"))
    return made


def sounds(rows: list[Recording], stage: LabelStage) -> Iterator[tuple[Wave, list[Wave]]]:
    """Every segment and its windows."""
    for row in rows:
        for _, wave in vad.segments(audio.stream(row.uri, rate_hz=RATE), max_segment_ms=stage.max_segment_ms):
            yield wave, [sound for _, _, sound in stage.windows.cut(wave)]


def ask(labellers: list[Labeller], heard: Iterator[tuple[Wave, list[Wave]]]) -> float:
    """Seconds that the labellers' models take."""
    began = time.perf_counter()
    for wave, windows in heard:
        for one in labellers:
            one.judge_many(windows if one.hears == "window" else [wave])
    return time.perf_counter() - began


def speed(folder: Path, rows: list[Recording]) -> None:
    """The stage beside the models, in alternation, and with two workers."""
    stage = LabelStage()
    labellers = stage.made()
    ask(labellers, sounds(rows[:1], stage))  # loads the weights
    hours = sum(row.duration_ms for row in rows) / 3_600_000
    held = list(sounds(rows, stage))
    made = Fingerprint(stage="benchmark", version="1", seed=0, config={}, inputs={})
    write_rows(folder / "corpus", rows, record=Recording, fingerprint=made, smallest=1)
    taken: dict[str, list[float]] = {}
    decodes = {"count": 0}
    real = audio.stream

    def counted(*args: object, **more: object) -> Iterator[Wave]:
        decodes["count"] += 1
        return real(*args, **more)  # type: ignore[arg-type]

    for turn in range(2):
        taken.setdefault("models alone, sound in memory", []).append(ask(labellers, iter(held)))
        taken.setdefault("models, decoding and speech detection", []).append(ask(labellers, sounds(rows, stage)))
        label_stage.audio.stream = counted
        for workers in (1, 2):
            began = time.perf_counter()
            run_stage(stage, [folder / "corpus"], folder / f"label-{turn}-{workers}", workers=workers)
            taken.setdefault(f"label stage, {workers} worker(s)", []).append(time.perf_counter() - began)
        label_stage.audio.stream = real
    best = {name: min(seconds) for name, seconds in taken.items()}
    models, everything, one, two = best.values()
    windows = sum(len(cut) for _, cut in held)
    print(f"{len(rows)} recordings, {hours:.2f} h, {windows} windows; labellers {', '.join(one.name for one in labellers)}")
    for name, seconds in best.items():
        print(f"  {name}: {3600 * hours / seconds:.0f}x real time")
    print(f"  the stage reaches {100 * models / one:.0f} % of the models alone,")
    print(f"  {100 * everything / one:.0f} % of the models with decoding and speech detection")
    print(f"  two workers are {one / two:.2f}x one ({os.cpu_count()} cores)")
    print(f"  decodes by one worker: {decodes['count']} for {2 * len(rows)} recordings labelled here")


def memory(folder: Path, spoken: list[np.ndarray], lengths_h: tuple[float, ...]) -> None:
    """Peak memory of a process that labels one file of each length."""
    for hours in lengths_h:
        (row,) = recordings(folder, spoken, count=1, minutes=60 * hours)
        found = subprocess.run(
            [sys.executable, __file__, "--one", row.model_dump_json()], capture_output=True, text=True, check=True
        )
        print(f"  {hours:g} h file: {found.stdout.strip()}")


def one_file(row: Recording) -> None:
    """Label one file here and print the peak memory."""
    from undertone.stages import Context

    stage = LabelStage()
    stage.open(Context(out_dir=Path(), seed=0, sides={}))
    began = time.perf_counter()
    stage.process([row])
    print(f"peak memory {_peak_mib():.0f} MiB, {row.duration_ms / 1000 / (time.perf_counter() - began):.0f}x real time")


def _peak_mib() -> float:
    """Of this process alone: the kernel's ru_maxrss begins with what the parent had when it forked."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main() -> None:
    """Measure in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hours", type=float, default=3.0, help="the longest file for the measure of memory")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_file(Recording.model_validate_json(args.one))
        return
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        spoken = clips()
        speed(Path(name), recordings(Path(name), spoken, count=args.recordings, minutes=args.minutes))
        memory(Path(name), spoken, (1 / 6, args.hours))


if __name__ == "__main__":
    main()
