"""What every filter of condensation does to labels that can be checked: to their precision, to the emotional time that is kept, and to hours.

    python recipes/condense_shown.py --data ../shared/data --out /tmp/shown

Acted utterances of RAVDESS and TESS are assembled into recordings of minutes: several speakers, an emotion that holds for some turns, pauses,
much neutral speech, rooms and noise; some recordings clipped, faint, drowned in noise, in another language (nEMO), or the same as another
one, cut and as MP3. Where each utterance lies is known to the millisecond, so every predicted window can be checked. Only speakers that the
labeller never heard are counted; the thresholds are tuned on other speakers than those that are counted. Prints Markdown for docs/log.md.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from scipy.signal import fftconvolve

from undertone import audio, tables
from undertone.condense.balance import Balance
from undertone.condense.clips import ClipRule, CutClips
from undertone.condense.consistency import Consistency
from undertone.condense.duplicates import Duplicates
from undertone.condense.funnel import At, funnel
from undertone.condense.language import Language
from undertone.condense.nested import clip_labels, in_one_piece, time_held
from undertone.condense.occurrence import Occurrence
from undertone.condense.quality import Quality
from undertone.condense.tune import Grid, predicted_windows, true_emotions, truth_of, tune
from undertone.corpora.emotions import to_emotion
from undertone.corpora.folder import speech_bounds
from undertone.execute import run_stage, write_rows
from undertone.label.decide import Decide
from undertone.label.protocol import LABELLERS
from undertone.label.stage import LabellerSpec, LabelStage
from undertone.records import HUMAN, Clip, Label, Recording, Segment
from undertone.report.funnel import funnel_markdown, tuning_markdown
from undertone.stages import Stage
from undertone.tables import Fingerprint

RATE_HZ = 16_000
TURNS = 36
SPEECH_RMS = 0.05
COUNTED = ("ravdess/rav19", "ravdess/rav20", "tess/YAF")
TUNED_ON = ("ravdess/rav17", "ravdess/rav18")
OTHER_LANGUAGE = ("nemo/MP0",)
LICENCES = {"ravdess": "CC BY-NC-SA 4.0", "tess": "CC BY-NC-ND 4.0", "nemo": "CC BY-NC-SA 4.0"}
CONDITIONS = ("close", "room", "noise 20 dB", "room, noise 10 dB", "noise 0 dB", "clipped", "faint")


@dataclass(frozen=True)
class Utterance:
    """One acted sentence."""

    file: Path
    corpus: str
    speaker: str
    emotion: str


@dataclass(frozen=True)
class Made:
    """A recording and under what conditions it was made."""

    row: Recording
    condition: str
    of: str | None = None
    """The recording that it is a copy of."""


# ---- recordings ----------------------------------------------------------------------------------------------------------------


def utterances(data: Path, speakers: Iterable[str], rng: random.Random) -> list[Utterance]:
    """All utterances of some speakers in random order; of TESS a quarter, but all that are neutral, for speech in the wild is mostly that."""
    found = []
    for corpus in sorted({one.split("/")[0] for one in speakers}):
        for row in csv.DictReader((data / corpus / "manifest.csv").open(encoding="utf-8")):
            speaker = f"{corpus}/{row['speaker']}"
            emotion = to_emotion(row["emotion"])
            if speaker in speakers and emotion and (corpus == "ravdess" or emotion == "neutral" or rng.random() < 1 / 4):
                found.append(Utterance(data / corpus / row["file"], corpus, speaker, emotion))
    return rng.sample(found, len(found))


def deal(pool: Sequence[Utterance], rng: random.Random) -> Iterator[list[Utterance]]:
    """Utterances in recordings of some 36 turns, in which an emotion holds for one to four turns."""
    left: dict[str, list[Utterance]] = {}
    for one in pool:
        left.setdefault(one.emotion, []).append(one)
    turns: list[Utterance] = []
    while left:
        emotion = rng.choices(sorted(left), [len(left[name]) for name in sorted(left)])[0]
        run_length = rng.randint(1, 4)
        turns += left[emotion][:run_length]
        left[emotion] = left[emotion][run_length:]
        if not left[emotion]:
            del left[emotion]
        if len(turns) >= TURNS:
            yield turns
            turns = []
    if turns:
        yield turns


def placed(turns: Sequence[Utterance], rng: random.Random) -> tuple[np.ndarray, list[tuple[Utterance, int, int]]]:
    """The utterances one after the other with pauses of 0.2 to 2 s, and the milliseconds that each fills."""
    pieces: list[np.ndarray] = []
    spans = []
    length = 0
    for one in turns:
        wave = audio.load(one.file, rate_hz=RATE_HZ)
        speech = wave.cut(*speech_bounds(wave)).samples
        pause = np.zeros(RATE_HZ * rng.randint(200, 2_000) // 1000, np.float32)
        level = SPEECH_RMS * 10 ** (rng.uniform(-3, 3) / 20) / (float(np.sqrt(np.mean(np.square(speech)))) or 1.0)
        pieces += [pause, speech * np.float32(level)]
        start = length + len(pause)
        length = start + len(speech)
        spans.append((one, start * 1000 // RATE_HZ, length * 1000 // RATE_HZ))
    return np.concatenate([*pieces, np.zeros(RATE_HZ, np.float32)]), spans


def under(
    condition: str, dry: np.ndarray, rooms: Sequence[np.ndarray], noises: Sequence[audio.Wave], rng: random.Random
) -> np.ndarray:
    """The recording as it sounds under a condition; the direct sound of a room stays where it was."""
    made = dry
    if "room" in condition:
        response = rng.choice(rooms)
        onset = int(np.abs(response).argmax())
        made = fftconvolve(dry, response / np.abs(response).max())[onset : onset + len(dry)]
        made *= np.sqrt(np.mean(np.square(dry)) / np.mean(np.square(made)))
    if "noise" in condition:
        snr = float(condition.split()[-2])
        return audio.mix(audio.Wave(made.astype(np.float32), RATE_HZ), rng.choice(noises), snr).samples
    if condition == "clipped":
        top = np.quantile(np.abs(made[np.abs(made) > 1e-3]), 0.96)
        made = np.clip(made, -top, top) / top
    if condition == "faint":
        made = made * 10 ** (-40 / 20)
    return np.clip(made, -1, 1).astype(np.float32)


def record(
    file: Path, wave: np.ndarray, spans: Sequence[tuple[Utterance, int, int]], *, language: str, split: str, source: str
) -> Recording:
    """Write a recording and say what is in it."""
    audio.write(file, audio.Wave(wave, RATE_HZ))
    return described(file, spans, language=language, split=split, source=source)


def described(file: Path, spans: Sequence[tuple[Utterance, int, int]], *, language: str, split: str, source: str) -> Recording:
    """The record of a file."""
    probe = audio.probe(file)
    key = probe.sha256[:16]
    references = []
    for one, start, end in spans:
        label = Label(attribute="emotion", category=one.emotion, start_ms=start, end_ms=end, labeller=HUMAN)
        references.append(Segment(recording_id=key, start_ms=start, end_ms=end, speaker=one.speaker, labels=(label,)))
    licences = sorted({LICENCES[one.corpus] for one, _, _ in spans})
    about = {"rate_hz": probe.rate_hz, "samples": probe.samples, "channels": probe.channels, "sha256": probe.sha256}
    return Recording.model_validate(
        {"uri": str(file), "source": source, "language": language, "split": split, "licence": " and ".join(licences)}
        | {"references": tuple(references)}
        | about
    )


def cut_and_coded(file: Path, out: Path, *, cut_ms: int) -> Path:
    """The same recording without its beginning, softer, as MP3 of 64 kbit/s."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-ss",
        f"{cut_ms / 1000}",
        "-i",
        str(file),
        "-af",
        "volume=-9dB",
        "-b:a",
        "64k",
        str(out),
    ]
    subprocess.run(command, check=True)
    return out


def recordings(data: Path, out: Path, *, seed: int) -> list[Made]:
    """Assemble all recordings: those that are counted, those to tune on, in another language, and copies."""
    rng = random.Random(seed)
    rooms = [audio.load(one, rate_hz=RATE_HZ).samples for one in sorted((data / "acoustics" / "rooms").iterdir())]
    noises = [audio.load(one, rate_hz=RATE_HZ) for one in sorted((data / "acoustics" / "noises").glob("noise*.flac"))]
    made: list[Made] = []
    for split, language, speakers in (("train", "en", COUNTED), ("dev", "en", TUNED_ON), ("train", "pl", OTHER_LANGUAGE)):
        for number, turns in enumerate(deal(utterances(data, speakers, rng)[: 3 * TURNS if language == "pl" else None], rng)):
            condition = CONDITIONS[number % len(CONDITIONS)] if split == "train" and language == "en" else CONDITIONS[number % 3]
            dry, spans = placed(turns, rng)
            file = out / "audio" / f"{split}-{language}-{number:02d}.flac"
            file.parent.mkdir(parents=True, exist_ok=True)
            about = {"language": language, "split": split}
            wave = under(condition, dry, rooms, noises, rng)
            row = record(file, wave, spans, source="assembled" if language == "en" else "assembled-pl", **about)
            made.append(Made(row, condition if language == "en" else "Polish"))
            if split == "train" and language == "en" and number < 2:
                copy = cut_and_coded(file, file.with_suffix(".mp3"), cut_ms=200)
                moved = [(one, max(0, start - 200), end - 200) for one, start, end in spans]
                made.append(Made(described(copy, moved, source="reposted", **about), "copy", of=row.id))
    return made


# ---- the path ------------------------------------------------------------------------------------------------------------------


def chain(consistency: Consistency) -> list[tuple[str, Stage]]:
    """The filters in the order in which they run."""
    return [
        ("quality", Quality()),
        ("language", Language(wanted=("en",))),
        ("duplicates", Duplicates()),
        ("consistency", consistency),
        ("clips", CutClips(rule=ClipRule(min_ms=10_000, max_ms=60_000))),
        ("occurrence", Occurrence()),
        ("balance", Balance()),
    ]


def run(out: Path, stage: Stage, source: Path, name: str) -> Path:
    """One stage from a table to `out/NAME`."""
    sides = dict.fromkeys(stage.sides, out / "corpus")
    print(run_stage(stage, [source], out / name, sides=sides, seed=1, redo=True).line(), file=sys.stderr)
    return out / name


def windows_of(folder: Path, row: type[Segment] | type[Clip]) -> pl.DataFrame:
    """The emotions that a table still has: recording_id, start_ms, end_ms, category."""
    table = tables.open_table(folder, row)
    columns = table.arrow()
    if row is Clip:
        lists = in_one_piece(columns["segments"])
        ids = in_one_piece(columns["recording_id"]).take(pc.list_parent_indices(lists))
        columns = pa.table({"recording_id": ids, "labels": pc.struct_field(lists.flatten(), "labels")})
    return predicted_windows(columns)


# ---- what is measured ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What the labels of one table are worth.

    Attributes:
        hours: Of windows that have an emotion.
        windows: Their number.
        right: Share of them whose emotion is that of the utterance that they overlap most; one over no utterance is wrong.
        right_by: The same by predicted emotion.
        kept: Share of the time of truly emotional (not neutral) utterances that lies in such windows.
        kept_by: The same by true emotion, neutral too.
        found: Share of that time that lies in windows that say the right emotion.
    """

    hours: float
    windows: int
    right: float
    right_by: dict[str, float]
    kept: float
    kept_by: dict[str, float]
    found: float


def result(windows: pl.DataFrame, truth: pl.DataFrame) -> Result:
    """Check windows against the truth."""
    keys = ["recording_id", "start_ms", "end_ms"]
    known = truth_of(windows, truth).select(*keys, "truth")
    windows = windows.join(known, on=keys, how="left").with_columns(
        ms=pl.col("end_ms") - pl.col("start_ms"), ok=(pl.col("category") == pl.col("truth")).fill_null(False)
    )
    overlap = pl.min_horizontal("end_ms", "end_ms_right") - pl.max_horizontal("start_ms", "start_ms_right")
    both = truth.join(windows, on="recording_id").with_columns(held=overlap.clip(lower_bound=0))
    total = truth.group_by("truth").agg(all=(pl.col("end_ms") - pl.col("start_ms")).sum())
    held = both.group_by("truth").agg(pl.col("held").sum(), said=pl.col("held").filter(pl.col("category") == pl.col("truth")).sum())
    by = total.join(held, on="truth", how="left").fill_null(0).sort("truth")
    felt = by.filter(pl.col("truth") != "neutral").sum()
    return Result(
        hours=windows["ms"].sum() / 3.6e6,
        windows=len(windows),
        right=windows["ok"].mean() or 0.0,
        right_by=dict(windows.group_by("category").agg(pl.col("ok").mean()).iter_rows()),
        kept=felt["held"][0] / felt["all"][0],
        kept_by={name: held / all_ms for name, all_ms, held, _ in by.iter_rows()},
        found=felt["said"][0] / felt["all"][0],
    )


def percent(value: float | None) -> str:
    """A share for a table."""
    return "-" if value is None else f"{100 * value:.1f}"


def shown(title: str, results: dict[str, Result]) -> str:
    """A Markdown table of results by step, and one by emotion."""
    emotions = sorted({name for one in results.values() for name in (*one.kept_by, *one.right_by)})
    lines = [
        f"\n**{title}**\n",
        "| after | hours | windows | label right, % | emotional time kept, % | kept with the right label, % |",
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, one in results.items():
        numbers = f"{one.hours:.3f} | {one.windows:,} | {percent(one.right)} | {percent(one.kept)} | {percent(one.found)}"
        lines.append(f"| {name} | {numbers} |")
    lines += [
        "",
        f"By emotion, label right / time kept, %:\n\n| after | {' | '.join(emotions)} |",
        f"|---|{'---:|' * len(emotions)}",
    ]
    for name, one in results.items():
        cells = [f"{percent(one.right_by.get(emotion))} / {percent(one.kept_by.get(emotion))}" for emotion in emotions]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def worth(folder: Path, stage: Stage | None, truth: pl.DataFrame, counted: Sequence[str]) -> Result:
    """What the labels of a table are worth, of the counted recordings."""
    windows = windows_of(folder, Clip if stage and stage.writes is Clip else Segment)
    return result(windows.filter(pl.col("recording_id").is_in(counted)), truth)


def filtered(out: Path, name: str, consistency: Consistency, truth: pl.DataFrame, counted: Sequence[str]) -> dict[str, Result]:
    """Run the whole chain into out/NAME and check the labels after every filter."""
    source, results = out / "label", {"label": worth(out / "label", None, truth, counted)}
    for step, stage in chain(consistency):
        source = run(out, stage, source, f"{name}/{step}")
        results[step] = worth(source, stage, truth, counted)
    return results


def alone(out: Path, truth: pl.DataFrame, counted: Sequence[str]) -> dict[str, Result]:
    """Each filter of segments by itself, and each bound of quality."""
    off = Quality(min_level_db=None, min_snr_db=None, max_clipped_share=None, min_speech_share=None)
    bounds = {name: getattr(Quality(), name) for name in ("min_level_db", "min_snr_db", "max_clipped_share", "min_speech_share")}
    stages = {name: stage for name, stage in chain(Consistency()) if stage.writes is Segment and stage.reads is Segment}
    stages |= {f"{name} {bound:g}": off.model_copy(update={name: bound}) for name, bound in bounds.items()}
    made = {name: worth(run(out, stage, out / "label", f"alone/{name}"), stage, truth, counted) for name, stage in stages.items()}
    return {"label": worth(out / "label", None, truth, counted), **made}


def by_condition(out: Path, made: Sequence[Made], truth: pl.DataFrame) -> str:
    """How good the labels are under each condition, and what quality leaves of it."""
    lines = ["\n**By condition**\n", "| recordings | windows | label right, % | left by quality, % |", "|---|---:|---:|---:|"]
    before, after = windows_of(out / "label", Segment), windows_of(out / "alone" / "quality", Segment)
    for condition in dict.fromkeys(one.condition for one in made if one.row.split == "train"):
        ids = [one.row.id for one in made if one.condition == condition and one.row.split == "train"]
        found, left = (frame.filter(pl.col("recording_id").is_in(ids)) for frame in (before, after))
        if len(found):
            right = result(found, truth.filter(pl.col("recording_id").is_in(ids))).right
            lines.append(f"| {condition} ({len(ids)}) | {len(found)} | {percent(right)} | {percent(len(left) / len(found))} |")
    return "\n".join(lines)


def occurrence_checked(out: Path, truth: pl.DataFrame) -> str:
    """What the least share of occurrence does: whether the emotion of a clip is the one that people would give it."""
    lines = [
        "\n**Occurrence by `min_share`, on the chain's clips**\n",
        "| min_share | clips | hours | emotion of the clip right, % |",
    ]
    lines.append("|---|---:|---:|---:|")
    for least in (0.0, 0.25, 0.5, 0.75, 0.9):
        folder = run(out, Occurrence(min_share=least), out / "published" / "clips", f"occurrence/{least:g}")
        columns = tables.open_table(folder, Clip).arrow()
        said = time_held(clip_labels(columns["segments"], "emotion")).unique("row", keep="first", maintain_order=True)
        spans = columns.select(["recording_id", "start_ms", "end_ms"])
        both = pl.DataFrame(spans).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64)).join(truth, on="recording_id")
        held = pl.min_horizontal("end_ms", "end_ms_right") - pl.max_horizontal("start_ms", "start_ms_right")
        most = both.with_columns(held=held).filter(pl.col("held") > 0).group_by("row", "truth").agg(pl.col("held").sum())
        most = most.sort("row", "held", "truth", descending=[False, True, False]).unique("row", keep="first", maintain_order=True)
        right = said.join(most, on="row", how="inner").select((pl.col("category") == pl.col("truth")).mean()).item()
        hours = (pc.sum(columns["end_ms"]).as_py() or 0) - (pc.sum(columns["start_ms"]).as_py() or 0)
        lines.append(f"| {least:g} | {len(columns)} | {hours / 3.6e6:.3f} | {percent(right)} |")
    return "\n".join(lines)


def duplicates_checked(out: Path, made: Sequence[Made]) -> str:
    """How many segments that were dropped as duplicates are of a copied pair of recordings, and how many such pairs of segments there are."""
    copies = {one.row.id for one in made if one.condition == "copy"}
    originals = {one.of for one in made if one.of}
    table = tables.open_table(out / "alone" / "duplicates", Segment)
    pairs = [(one.row_id.split("@")[0], (one.detail or "").split()[-1].split("@")[0]) for one in table.dropped()]
    right = sum(len({*pair} & copies) == 1 and len({*pair} & originals) == 1 for pair in pairs)
    rows = tables.open_table(out / "label", Segment).arrow(columns=["recording_id"])["recording_id"].to_pylist()
    segments = sum(one in copies for one in rows)
    return f"\nDuplicates: {len(pairs)} segments dropped, {right} of them rightly; {segments} segments of {len(rows)} are copies."


def main() -> None:
    """Assemble, label, filter, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="a folder for the recordings and tables")
    parser.add_argument("--labeller", default="affect-small")
    parser.add_argument("--vad", default="energy", choices=["energy", "silero"])
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    if not (told.data / "ravdess").is_dir():
        sys.exit(f"{told.data} has no folder ravdess; give the folder of the corpora with --data")
    heard = LABELLERS.get(told.labeller).heard_speakers
    if both := sorted(heard & {*COUNTED, *TUNED_ON}):
        sys.exit(f"{told.labeller} was trained on {', '.join(both)}: choose other speakers for COUNTED and TUNED_ON")
    out: Path = told.out
    made = recordings(told.data, out, seed=told.seed)
    fingerprint = Fingerprint(stage="shown", version="1", seed=told.seed, config={}, inputs={one.row.id: "" for one in made})
    write_rows(out / "corpus", [one.row for one in made], record=Recording, fingerprint=fingerprint, redo=True)
    labellers = tuple(LabellerSpec(use=name) for name in (told.labeller, "quality", "fingerprint"))
    run(out, LabelStage(labellers=labellers, vad=told.vad), out / "corpus", "label/raw")
    run(out, Decide(), out / "label" / "raw", "label")

    corpus, label = tables.open_table(out / "corpus", Recording), tables.open_table(out / "label", Segment)
    counted = [one.row.id for one in made if one.row.split == "train" and not heard & {*one.row.speakers}]
    truth = true_emotions(corpus, splits=["train"]).filter(pl.col("recording_id").is_in(counted))
    found = tune(label, corpus, consistency=Consistency(), grid=Grid(splits=("dev",)), heard=heard)
    best = Consistency(positive_min=found.best.positive_min, negative_max=found.best.negative_max)
    print(f"Labeller {told.labeller}, speech found by {told.vad}, {len(counted)} recordings of {', '.join(COUNTED)} counted.")
    print(shown("Each filter alone", alone(out, truth, counted)))
    print(shown("The chain, published thresholds", filtered(out, "published", Consistency(), truth, counted)))
    print(by_condition(out, made, true_emotions(corpus, splits=["train"])))
    print(duplicates_checked(out, made))
    print(occurrence_checked(out, truth))
    print(f"\n**Thresholds tuned on {', '.join(TUNED_ON)}** ({found.line()})\n\n{tuning_markdown(found)}")
    tuned = filtered(out, "tuned", best, truth, counted)
    print(
        shown(
            "The chain, tuned thresholds",
            {name: tuned[name] for name in ("duplicates", "consistency", "clips", "occurrence", "balance")},
        )
    )
    steps = [At(name, out / "published" / name, Clip if stage.writes is Clip else Segment) for name, stage in chain(Consistency())]
    print("\n" + funnel_markdown(funnel(corpus, [At("label", out / "label", Segment), *steps])))


if __name__ == "__main__":
    main()
