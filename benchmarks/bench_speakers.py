"""Speakers, scored on the meeting cuts (AMI) and on acted speech put together: diarisation beside "one speaker", changes beside chance.

python benchmarks/bench_speakers.py DATA          (the folder that holds meetings/, ravdess/, nemo/ and tess/)

Settings were chosen on the cuts dev* and trn*, ravdess actors 1-10 and four speakers of nemo; the rest was used for nothing.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from undertone import audio
from undertone.audio import Wave
from undertone.evaluate.diarisation import COLLAR_MS, Turn, changes, diarisation_error, matches, read_rttm, total
from undertone.label import vad
from undertone.label.protocol import Labeller, Value
from undertone.label.speaker_change import SpeakerChangeLabeller

TOLERANCE_MS = 500
CHANCE_DRAWS = 200
CHOSEN_ON = {*(f"ravdess/rav{n:02d}" for n in range(1, 11)), *(f"nemo/{name}" for name in ("EB0", "KD0", "KS0", "TP0"))}


class Piece(NamedTuple):
    """A segment as speech detection gives it, and whether the speaker really changes in it or since the one before."""

    start_ms: int
    wave: Wave
    changed: bool = False

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.wave.duration_ms


def heard(labeller: Labeller, pieces: Sequence[Piece]) -> list[Value]:
    listener = labeller.listen()
    for piece in pieces:
        listener.hear(piece.wave, piece.start_ms)
    return list(listener.finish())


def share(number: float | None) -> str:
    return "  -  " if number is None else f"{number:5.3f}"


def diarisation(cuts: dict[str, list[Piece]], reference: dict[str, tuple[Turn, ...]], labeller: Labeller | None) -> str:
    """One row: the error rate without and with NIST's collar, its parts, and speakers counted wrongly."""
    rows = []
    for collar_ms in (0, COLLAR_MS):
        found = {
            name: [Turn(piece.start_ms, piece.end_ms, "one") for piece in pieces]
            if labeller is None
            else [Turn(v.start_ms or 0, v.end_ms or 0, v.category) for v in heard(labeller, pieces) if v.category]
            for name, pieces in cuts.items()
        }
        rows.append(total(diarisation_error(reference.get(name, ()), found[name], collar_ms=collar_ms) for name in cuts))
    bare, lenient = rows
    parts = [bare.missed_ms, bare.false_alarm_ms, bare.confusion_ms]
    return (
        f"DER {share(bare.rate)} (miss, false alarm, confusion {', '.join(share(part / bare.speech_ms) for part in parts)}); "
        f"with collar {share(lenient.rate)}; count wrong by {bare.count_error} in {bare.recordings} cuts ({bare.speakers} speakers)"
    )


def change_points(cuts: dict[str, list[Piece]], reference: dict[str, tuple[Turn, ...]], labeller: Labeller) -> str:
    """Precision, recall and F1 of "yes" segments (from the end of the one before), of the same number drawn at random, and of all."""
    spans, truth, said = {}, {}, {}
    for name, pieces in cuts.items():
        ends = [piece.end_ms for piece in pieces]
        spans[name] = list(zip([piece.start_ms for piece in pieces[:1]] + ends[:-1], ends, strict=True))
        truth[name] = changes(reference.get(name, ()))
        said[name] = np.array([value.category == "yes" for value in heard(labeller, pieces)], bool)

    def score(yes: dict[str, np.ndarray]) -> tuple[float, float, float]:
        rows = [matches(truth[n], [s for s, y in zip(spans[n], yes[n], strict=True) if y], tolerance_ms=TOLERANCE_MS) for n in cuts]
        joined = type(rows[0])(**{key: sum(getattr(row, key) for row in rows) for key in type(rows[0]).model_fields})
        return joined.precision or 0.0, joined.recall or 0.0, joined.f1 or 0.0

    rng = np.random.default_rng(0)
    flat = np.concatenate(list(said.values()))
    edges = np.cumsum([len(one) for one in said.values()])[:-1]
    chance = np.mean(
        [score(dict(zip(cuts, np.split(rng.permutation(flat), edges), strict=True))) for _ in range(CHANCE_DRAWS)], axis=0
    )
    every = score({name: np.ones_like(one) for name, one in said.items()})
    shown = {"found": score(said), "chance": tuple(chance), "always": every}
    return f"{int(flat.sum())} of {len(flat)} segments say yes; precision, recall, F1: " + "; ".join(
        f"{name} {' '.join(share(one) for one in row)}" for name, row in shown.items()
    )


def acted(data: Path, corpus: str, keep: Callable[[str], bool], *, sequences: int, seed: int) -> list[list[Piece]]:
    """Dialogues of two speakers of a corpus in any emotion: each segment is one clip, or two that follow without a pause."""
    rng = np.random.default_rng(seed)
    with (data / corpus / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if keep(f"{corpus}/{row['speaker']}")]
    files: dict[str, list[str]] = {}
    for row in rows:
        files.setdefault(row["speaker"], []).append(row["file"])
    made = []
    for _ in range(sequences if len(files) > 1 else 0):
        pair = rng.choice(sorted(files), size=2, replace=False)
        turn, pieces, at_ms = 0, [], 0
        for _ in range(8):
            changed = bool(pieces) and rng.random() < 0.35
            turn ^= changed
            sound = [clip(data / corpus / rng.choice(files[pair[turn]]))]
            if rng.random() < 0.3:
                inside = rng.random() < 0.5
                turn ^= inside
                changed |= inside
                sound.append(clip(data / corpus / rng.choice(files[pair[turn]])))
            pieces.append(Piece(at_ms, Wave(np.concatenate(sound), 16_000), changed))
            at_ms = pieces[-1].end_ms + 400
        made.append(pieces)
    return made


def clip(path: Path) -> np.ndarray:
    """Its samples without the silence around the speech."""
    wave = audio.load(path)
    found = list(vad.regions([wave]))
    return wave.cut(found[0].start_ms, found[-1].end_ms).samples if found else wave.samples


def acted_changes(dialogues: Sequence[Sequence[Piece]], labeller: Labeller) -> str:
    """Per segment: precision, recall, F1 and the mean of both classes' recalls; chance says yes as often, at random."""
    pairs = [
        (piece.changed, value.category)
        for pieces in dialogues
        for piece, value in zip(pieces, heard(labeller, pieces), strict=True)
    ]
    told = [(truth, word == "yes") for truth, word in pairs if word is not None]
    true, yes = np.array([a for a, _ in told]), np.array([b for _, b in told])
    precision, recall = (true & yes).sum() / max(1, yes.sum()), (true & yes).sum() / max(1, true.sum())
    both = 0.5 * (recall + (~true & ~yes).sum() / max(1, (~true).sum()))
    chance = 2 * true.mean() * yes.mean() / (true.mean() + yes.mean())
    return (
        f"{len(told)} segments ({len(pairs) - len(told)} too short); precision {share(precision)}, recall {share(recall)}, "
        f"F1 {share(2 * precision * recall / max(1e-9, precision + recall))} (chance {share(chance)}), "
        f"mean recall {share(both)} (chance 0.500)"
    )


def acted_speakers(dialogues: Sequence[Sequence[Piece]], labeller: Labeller | None) -> str:
    """How often a diariser counts the speakers of a dialogue rightly, where each segment is cut at the change by nobody."""
    wrong = []
    for pieces in dialogues:
        truth = 1 + any(piece.changed for piece in pieces)
        found = 1 if labeller is None else len({value.category for value in heard(labeller, pieces) if value.category})
        wrong.append(abs(found - truth))
    return f"speakers counted rightly in {sum(one == 0 for one in wrong)} of {len(wrong)} dialogues, wrong by {sum(wrong)} in all"


def main() -> None:
    """Measure in one run."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = Path(sys.argv[1])
    reference = read_rttm(data / "meetings" / "speakers.rttm")
    change, diariser = SpeakerChangeLabeller(), None
    try:
        from undertone.label.resemblyzer import ResemblyzerLabeller

        diariser = ResemblyzerLabeller()
        diariser.open()
    except Exception as error:  # noqa: BLE001 - a package may be missing, and the rest can be measured
        print(f"without resemblyzer-speakers: {error}")
    for method in get_args(vad.Method):
        for group, kept in (("chosen on (dev, trn)", ("dev", "trn")), ("test (tst)", ("tst",))):
            cuts = {
                path.stem: [Piece(region.start_ms, wave) for region, wave in vad.segments(audio.stream(path), method=method)]
                for path in sorted((data / "meetings").glob("*.opus"))
                if path.stem.startswith(kept)
            }
            print(f"\nmeetings, {group}, speech by {method}")
            print("  one speaker          ", diarisation(cuts, reference, None))
            if diariser is not None:
                began = time.perf_counter()
                print("  resemblyzer-speakers ", diarisation(cuts, reference, diariser))
                speech_s = 2 * sum(piece.wave.duration_ms for pieces in cuts.values() for piece in pieces) / 1000
                print(f"                        {speech_s / (time.perf_counter() - began):.0f}x real time (speech only)")
            print("  speaker-change       ", change_points(cuts, reference, change))
    for corpus in ("ravdess", "nemo", "tess"):
        for group, keep in (("chosen on", CHOSEN_ON.__contains__), ("test", lambda name: name not in CHOSEN_ON)):
            dialogues = acted(data, corpus, keep, sequences=25, seed=7)
            if not dialogues:
                continue
            print(f"\n{corpus}, {group}, {len(dialogues)} dialogues")
            began = time.perf_counter()
            print("  speaker-change       ", acted_changes(dialogues, change))
            speech_s = sum(piece.wave.duration_ms for pieces in dialogues for piece in pieces) / 1000
            print(f"                        {speech_s / (time.perf_counter() - began):.0f}x real time")
            print("  one speaker          ", acted_speakers(dialogues, None))
            if diariser is not None:
                print("  resemblyzer-speakers ", acted_speakers(dialogues, diariser))


if __name__ == "__main__":
    main()
