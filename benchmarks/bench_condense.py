"""Condensation at scale: rows per second, core time of every stage, peak memory, linearity, and the same rules in pandas, in one run.

python benchmarks/bench_condense.py [--rows 1000000 10000000] [--workers 2] [--folder FOLDER]

Needs pandas and psutil (the extra bench), and 7 GB of disk for 10 M rows.

Segments have the schema of label/ and the size of real ones: one to three windows with emotion (and the posterior of nine classes), valence,
arousal and dominance, a gender, three words that inherit them. Valence follows emotion with noise, so that about one window in five is
inconsistent. pandas gets its rows in memory and writes once, at the end; what comes out of both is compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from undertone.condense.balance import Balance
from undertone.condense.clips import CutClips
from undertone.condense.consistency import SIGN_OF, Consistency
from undertone.condense.occurrence import NOT_AN_EMOTION, Occurrence
from undertone.execute.run import run_stage, write_columns
from undertone.records import EMOTIONS, Clip, Recording, Segment, arrow_schema, content_hash
from undertone.tables import Fingerprint, open_table

if __name__ != "__mp_main__":  # worker processes import this file too, and need none
    import pandas as pd

PART_ROWS = 50_000
SEGMENTS_PER_RECORDING = 50
STEPS = {"consistency": Consistency(), "clips": CutClips(), "occurrence": Occurrence(), "balance": Balance()}
SHARES = (0.08, 0.03, 0.04, 0.15, 0.45, 0.03, 0.14, 0.05, 0.03)  # of EMOTIONS, as in the wild: neutral leads
VALENCES = {"positive": 0.7, "negative": 0.3, "neutral": 0.45}
WINDOW_MS = 2_000
SEED = 7


# ---- rows ----------------------------------------------------------------------------------------------------------------------


def choice(names: tuple[str, ...], codes: np.ndarray, *, null: np.ndarray | None = None) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=null), pa.array(names)).cast(pa.string())


def offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


@dataclass
class Windows:
    """What is drawn: windows per segment, their emotions, valences, the genders of segments, and the times."""

    count: np.ndarray
    emotion: np.ndarray
    vad: np.ndarray
    gender: np.ndarray
    start_ms: np.ndarray
    end_ms: np.ndarray


def drawn(rng: np.random.Generator, rows: int) -> Windows:
    count = rng.integers(1, 4, rows)
    step = count * WINDOW_MS + rng.integers(0, 3_000, rows)
    begin = np.cumsum(step) - step
    start = begin - np.repeat(begin[::SEGMENTS_PER_RECORDING], SEGMENTS_PER_RECORDING)[:rows]
    emotion = rng.choice(len(EMOTIONS), count.sum(), p=SHARES)
    usual = np.array([VALENCES.get(SIGN_OF.get(name, ""), 0.5) for name in EMOTIONS])
    vad = np.stack([usual[emotion], np.full(len(emotion), 0.5), np.full(len(emotion), 0.5)], axis=1)
    vad = np.clip(vad + rng.normal(0, 0.13, vad.shape), 0, 1)
    return Windows(count, emotion, vad, rng.integers(0, 2, rows), start, start + count * WINDOW_MS)


def labels_of(rng: np.random.Generator, w: Windows) -> pa.Array:
    """Emotion, valence, arousal and dominance of every window, then the segment's gender."""
    lengths = 4 * w.count + 1
    at = offsets(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(at[-1]) - at[row]
    gender, kind, total = place == lengths[row] - 1, place % 4, len(row)
    window = np.minimum(offsets(w.count)[row] + place // 4, len(w.emotion) - 1)
    emotion = (kind == 0) & ~gender
    start = w.start_ms[row] + np.where(gender, 0, place // 4 * WINDOW_MS)
    end = np.where(gender, w.end_ms[row], start + WINDOW_MS)
    category = np.where(gender, len(EMOTIONS) + w.gender[row], w.emotion[window])
    number = w.vad[window, np.maximum(kind - 1, 0)]
    scores = np.where(emotion, len(EMOTIONS), np.where(gender, 2, 0))
    keys = np.arange(scores.sum()) - np.repeat(offsets(scores)[:-1], scores) + np.repeat(np.where(gender, len(EMOTIONS), 0), scores)
    spread = pa.MapArray.from_arrays(
        pa.array(offsets(scores), pa.int32(), mask=np.append(scores == 0, False)),
        choice((*EMOTIONS, "female", "male"), keys),
        pa.array(rng.random(len(keys))),
    )
    none = pa.nulls(total, pa.string())
    columns = [
        choice(("emotion", "valence", "arousal", "dominance", "gender"), np.where(gender, 4, kind)),
        choice((*EMOTIONS, "female", "male"), category, null=~(emotion | gender)),
        pa.array(number, mask=emotion | gender),
        spread,
        pa.array(start),
        pa.array(end),
        choice(("majority(emotion2vec@1, affect-small@3)", "ecapa-gender@1"), gender.astype(int)),
        none,
        none,
    ]
    kind_of = arrow_schema(Segment).field("labels").type
    return pa.ListArray.from_arrays(at, pa.StructArray.from_arrays(columns, fields=list(kind_of.value_type)), type=kind_of)


def words_of(rng: np.random.Generator, w: Windows) -> pa.Array:
    """Three words in every segment, with the labels of their windows."""
    rows = len(w.count)
    row, place = np.repeat(np.arange(rows), 3), np.tile(np.arange(3), rows)
    start = w.start_ms[row] + place * 600
    window = offsets(w.count)[row]  # all three lie in the first
    columns = [
        choice(tuple(f"word{number}" for number in range(3_000)), rng.integers(0, 3_000, len(row))),
        pa.array(start),
        pa.array(start + 500),
        pa.array(rng.random(len(row))),
        choice(EMOTIONS, w.emotion[window]),
        *(pa.array(w.vad[window, index]) for index in range(3)),
        choice(("female", "male"), w.gender[row]),
        pa.ListArray.from_arrays(np.zeros(len(row) + 1, np.int32), pa.array([], pa.string())),
    ]
    kind = arrow_schema(Segment).field("words").type
    return pa.ListArray.from_arrays(
        offsets(np.full(rows, 3)), pa.StructArray.from_arrays(columns, fields=list(kind.value_type)), type=kind
    )


def segments(rows: int) -> Iterator[pa.Table]:
    """Parts of segments: the same speech in all, in other recordings."""
    rng = np.random.default_rng(SEED)
    w = drawn(rng, PART_ROWS)
    said = choice(tuple(f"and so they said, {number} times" for number in range(2_000)), rng.integers(0, 2_000, PART_ROWS))
    rest = [pa.array(w.start_ms), pa.array(w.end_ms), pa.nulls(PART_ROWS, pa.string()), said, words_of(rng, w), labels_of(rng, w)]
    span = pc.binary_join_element_wise(rest[0].cast(pa.string()), rest[1].cast(pa.string()), "-")
    for begin in range(0, rows, PART_ROWS):
        names = tuple(
            key(number) for number in range(begin // SEGMENTS_PER_RECORDING, (begin + PART_ROWS) // SEGMENTS_PER_RECORDING)
        )
        recording = choice(names, np.arange(PART_ROWS) // SEGMENTS_PER_RECORDING)
        ids = pc.binary_join_element_wise(recording, span, "@")
        yield pa.table([ids, recording, *rest], schema=arrow_schema(Segment)).slice(0, rows - begin)


def key(recording: int) -> str:
    return f"{recording:016x}"


def recordings(rows: int) -> pa.Table:
    """The recordings of so many segments, all of split train."""
    names = [key(number) for number in range(-(-rows // SEGMENTS_PER_RECORDING))]
    held = {
        "id": names,
        "uri": [f"{name}.flac" for name in names],
        "sha256": [name + "0" * 48 for name in names],
        "source": ["bench"] * len(names),
        "split": ["train"] * len(names),
        "rate_hz": [16_000] * len(names),
        "samples": [10_000_000] * len(names),
        "channels": [1] * len(names),
        "references": [[]] * len(names),
    }
    schema = arrow_schema(Recording)
    return pa.table(
        {name: pa.array(held.get(name, [None] * len(names)), schema.field(name).type) for name in schema.names}, schema=schema
    )


# ---- measured ------------------------------------------------------------------------------------------------------------------


@contextmanager
def memory() -> Iterator[list[float]]:
    """The peak of the resident memory of this process and all below it, in GiB; pages that they share count in each."""
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not over.wait(0.05):
            total = 0
            for one in (me, *me.children(recursive=True)):
                try:
                    total += one.memory_info().rss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total / 2**30)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def written(folder: Path, rows: int) -> None:
    made = Fingerprint(stage="bench", version="1", seed=SEED, config={"rows": rows}, inputs={})
    write_columns(folder / "label", segments(rows), record=Segment, fingerprint=made)
    write_columns(folder / "corpus", [recordings(rows)], record=Recording, fingerprint=made)


def core_s() -> float:
    """Processor seconds of this process and of those of its children that have ended: what other programs do at the time is not in it."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def condensed(folder: Path, rows: int, *, workers: int) -> float:
    """Seconds of the whole condensation; each step's line is printed, with its core time for each of `rows`."""
    began, began_core, source = time.perf_counter(), core_s(), folder / "label"
    for name, stage in STEPS.items():
        sides, before = {"recordings": folder / "corpus"} if name == "clips" else {}, core_s()
        report = run_stage(stage, [source], folder / name, sides=sides, seed=SEED, workers=workers)
        print(f"    {report.seconds:6.1f} s {(core_s() - before) / rows * 1e6:6.2f} core-us a segment  {report.line()}", flush=True)
        source = folder / name
    print(f"  {(core_s() - began_core) / rows * 1e6:.1f} core-us a segment in all stages")
    return time.perf_counter() - began


# ---- the same in pandas --------------------------------------------------------------------------------------------------------


def of(row: pd.Series, attribute: str) -> list[dict]:
    found = [one for one in row.labels if one["attribute"] == attribute and one["reason"] is None]
    return sorted(found, key=lambda one: (one["start_ms"], one["end_ms"], one["labeller"]))


def agrees(rule: Consistency, category: str, valence: float | None) -> bool:
    sign = SIGN_OF.get(category, "any")
    if valence is None or sign == "any":
        return True
    if sign == "positive":
        return valence >= rule.positive_min
    if sign == "negative":
        return valence <= rule.negative_max
    return rule.negative_max - rule.neutral_slack < valence < rule.positive_min + rule.neutral_slack


def consistent(row: pd.Series) -> pd.Series:
    """The row with contradicted labels withdrawn and its words' emotions anew; its labels None where nothing is left."""
    emotions = of(row, "emotion")
    valence = {(one["start_ms"], one["end_ms"]): one["number"] for one in of(row, "valence")}
    wrong = [
        one for one in emotions if not agrees(STEPS["consistency"], one["category"], valence.get((one["start_ms"], one["end_ms"])))
    ]
    if len(wrong) == len(emotions):
        return pd.Series({"words": None, "labels": None})
    if not wrong:
        return pd.Series({"words": row.words, "labels": row.labels})
    labels = [one | {"category": None, "reason": "inconsistent"} if any(one is bad for bad in wrong) else one for one in row.labels]
    left = [one for one in emotions if not any(one is bad for bad in wrong)]
    words = []
    for word in row.words:
        shared = [min(word["end_ms"], one["end_ms"]) - max(word["start_ms"], one["start_ms"]) for one in left]
        best = max(range(len(left)), key=lambda index: shared[index])
        words.append(word | {"emotion": left[best]["category"] if shared[best] > 0 else None})
    return pd.Series({"words": words, "labels": labels})


def joined(frame: pd.DataFrame) -> pd.DataFrame:
    rule, clips = STEPS["clips"].rule, []
    for recording, group in frame.sort_values(["recording_id", "start_ms", "end_ms"]).groupby("recording_id", sort=False):
        run: list = []
        for row in group.itertuples(index=False):
            longest = max(row.end_ms, run[0].end_ms) - run[0].start_ms if run else 0
            if run and (row.start_ms - run[-1].end_ms > rule.max_gap_ms or longest > rule.max_ms):
                clips.append((recording, run))
                run = []
            run.append(row)
        clips.append((recording, run))
    made = pd.DataFrame(
        {
            "id": [f"{recording}@{run[0].start_ms}-{max(one.end_ms for one in run)}" for recording, run in clips],
            "ms": [max(one.end_ms for one in run) - run[0].start_ms for _, run in clips],
            "segments": [[one._asdict() for one in run] for _, run in clips],
        }
    )
    return made[(made["ms"] >= rule.min_ms) & (made["ms"] <= rule.max_ms)]


def shares(row: pd.Series) -> dict[str, float]:
    held: dict[str, int] = {}
    for label in (label for segment in row.segments for label in segment["labels"]):
        if label["attribute"] == "emotion" and label["reason"] is None:
            held[label["category"]] = held.get(label["category"], 0) + label["end_ms"] - label["start_ms"]
    return {name: length / sum(held.values()) for name, length in held.items()}


def balanced(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.assign(
        cell=frame["shares"].apply(lambda one: max(sorted(one), key=lambda name: one[name])),
        draw=frame["id"].apply(lambda one: content_hash(str(SEED), one)),
    ).sort_values("draw")
    cap = int(np.ceil(STEPS["balance"].max_ratio * median_low(frame["cell"].value_counts().tolist())))
    return frame[frame.groupby("cell").cumcount() < cap]


def in_pandas(folder: Path, out: Path) -> tuple[float, set[str]]:
    """Seconds that the rules take as row operations, and the ids of the clips that stay."""
    rows = open_table(folder / "label", Segment).arrow().to_pylist(maps_as_pydicts="strict")
    frame = pd.DataFrame(rows)
    began = time.perf_counter()
    frame[["words", "labels"]] = frame.apply(consistent, axis=1)
    clips = joined(frame[frame["labels"].notna()])
    clips["shares"] = clips.apply(shares, axis=1)
    told = clips["shares"].apply(lambda one: max((share for name, share in one.items() if name not in NOT_AN_EMOTION), default=-1))
    kept = balanced(clips[told >= STEPS["occurrence"].min_share])
    kept[["id", "ms", "segments"]].to_parquet(out, compression="zstd")
    return time.perf_counter() - began, set(kept["id"])


def main() -> None:
    """Measure in one run."""
    given = argparse.ArgumentParser()
    given.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    given.add_argument("--workers", type=int, default=2)
    given.add_argument("--sample", type=int, default=20_000, help="rows that pandas gets")
    given.add_argument("--folder", type=Path, help="where to write; a temporary folder if left out")
    options = given.parse_args()
    print(f"{os.cpu_count()} cores, {options.workers} workers, parts of {PART_ROWS:,} rows")
    per_row = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            began = time.perf_counter()
            written(Path(name), rows)
            print(f"\n{rows:,} rows, written in {time.perf_counter() - began:.0f} s")
            with memory() as peak:
                seconds = condensed(Path(name), rows, workers=options.workers)
            per_row[rows] = seconds / rows
            print(f"  {seconds:.1f} s, {rows / seconds:,.0f} rows/s, peak {peak[0]:.2f} GiB in all processes")
    small, large = min(per_row), max(per_row)
    print(f"\ntime per row at {large:,} rows is {per_row[large] / per_row[small]:.2f} times that at {small:,} (1 is linear)")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        written(Path(name), options.sample)
        condensed(Path(name), options.sample, workers=1)
        seconds, ids = in_pandas(Path(name), Path(name) / "pandas.parquet")
        same = ids == set(open_table(Path(name) / "balance", Clip).arrow(columns=["id"])["id"].to_pylist())
    each = seconds / options.sample
    print(f"pandas row operations: {each * 1e6:.0f} us a row ({options.sample:,} rows), {each * large:,.0f} s for {large:,}")
    print(f"{each / per_row[large]:.1f} times as long as columns on {options.workers} workers; the same clips stay: {same}")


if __name__ == "__main__":
    main()
