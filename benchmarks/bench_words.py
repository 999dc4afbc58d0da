"""Words offline: how well pocketsphinx hears, how well it aligns text that is known, and how fast.

python benchmarks/bench_words.py DATA [CLIPS]

DATA holds read-speech/, ravdess/ and tess/ with a manifest.csv each; CLIPS (100) are drawn from each with a fixed seed. Word times of
people are not known there, so alignment is measured on the demonstration voices, which tell when they say each word, beside words
spread by letters over the same sound. Synthetic voices are harder for the aligner than people: see how many it refuses of either.
"""

from __future__ import annotations

import csv
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from undertone import audio
from undertone.audio import Wave
from undertone.corpora.plan import spread
from undertone.corpora.voices import PROSODY, VOICES, speak
from undertone.label.protocol import LABELLERS
from undertone.label.sphinx import RATE_HZ, align
from undertone.records import Word

CORPORA = ("read-speech", "ravdess", "tess")
EDGE_MS = 300
SENTENCES = (
    "The meeting starts at ten tomorrow morning, and the report is ready.",
    "She bought three apples, two pears and a bottle of milk.",
    "I left the keys on the kitchen table before the train arrived.",
    "My neighbour walks her dog by the river every evening.",
    "We will paint the fence green as soon as the rain stops.",
    "The new library opens on Monday and closes at eight.",
)


def clips(data: Path, corpus: str, count: int) -> list[tuple[Wave, str]]:
    with (data / corpus / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["text"]]
    random.Random(0).shuffle(rows)
    return [(audio.load(data / corpus / row["file"], rate_hz=RATE_HZ), row["text"]) for row in rows[:count]]


def plain(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower().replace("-", " "))


def edits(heard: Sequence[str], said: Sequence[str]) -> int:
    """Least number of substitutions, insertions and deletions."""
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(said, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def recognise(found: Sequence[tuple[Wave, str]]) -> str:
    labeller = LABELLERS.get("pocketsphinx")
    labeller.open()
    wrong = words = empty = 0
    began = time.perf_counter()
    for wave, text in found:
        (value,) = labeller.judge(wave)
        empty += value.category is None
        wrong += edits(plain(value.category or ""), plain(text))
        words += len(plain(text))
    speed = sum(wave.duration_ms for wave, _ in found) / 1000 / (time.perf_counter() - began)
    return f"WER {wrong / words:.3f} ({words} words, {empty} of {len(found)} clips without any), {speed:.1f}x real time"


def aligned(found: Sequence[tuple[Wave, str]], others: Sequence[str]) -> str:
    """How many texts are refused: those that are said, and others that are not."""
    draw = random.Random(0)
    began = time.perf_counter()
    refused = sum(align(wave, text) is None for wave, text in found)
    speed = sum(wave.duration_ms for wave, _ in found) / 1000 / (time.perf_counter() - began)
    wrong = sum(align(wave, draw.choice(others)) is None for wave, _ in found)
    return f"refused {refused} of {len(found)} texts that are said, {wrong} of {len(found)} that are not; {speed:.0f}x real time"


def demonstration(count: int) -> Iterator[tuple[Wave, str, list[tuple[int, int]]]]:
    """Utterances between faint noise, and when each word begins and ends."""
    draw = random.Random(0)
    for seed in range(count):
        text = draw.choice(SENTENCES)
        said = speak(text, draw.choice(VOICES), draw.choice(sorted(PROSODY)), seed=seed)
        edge = (1e-4 * np.random.default_rng(seed).standard_normal(EDGE_MS * RATE_HZ // 1000)).astype(np.float32)
        wave = Wave(np.concatenate([edge, said.samples, edge]), said.rate_hz)
        yield wave, text, [(word.start_ms + EDGE_MS, word.end_ms + EDGE_MS) for word in said.words]


def errors_ms(found: Sequence[Word], truth: Sequence[tuple[int, int]]) -> list[int]:
    return [abs(word.start_ms - begin) for word, (begin, _) in zip(found, truth, strict=True)]


def main() -> None:
    """Measure in one run."""
    data, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    found = {corpus: clips(data, corpus, count) for corpus in CORPORA}
    for corpus in CORPORA:
        others = [text for other in CORPORA if other != corpus for _, text in found[other]]
        print(f"{corpus}: hears {recognise(found[corpus])}; aligns: {aligned(found[corpus], others)}", flush=True)
    errors: dict[str, list[int]] = {
        "aligned": [],
        "spread by letters over the speech": [],
        "spread over the speech and its edges": [],
    }
    refused = 0
    for wave, text, truth in demonstration(count):
        words = align(wave, text, min_confidence=0.0)
        if words is None:
            refused += 1
            continue
        errors["aligned"] += errors_ms(words, truth)
        errors["spread by letters over the speech"] += errors_ms(spread(text, EDGE_MS, wave.duration_ms - EDGE_MS), truth)
        errors["spread over the speech and its edges"] += errors_ms(spread(text, 0, wave.duration_ms), truth)
    print(f"demonstration voices: {refused} of {count} do not align at any confidence; error of a word's start on the others:")
    for name, values in errors.items():
        median, most = np.percentile(values, [50, 90])
        print(f"  {name}: median {median:.0f} ms, 90 % below {most:.0f} ms ({len(values)} words)")


if __name__ == "__main__":
    main()
