"""A folder of someone's own speech: no manifest, one corrupt file, one silent one; label, condense, generate, report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from undertone import audio, tables
from undertone.records import HUMAN, Clip, QAPair, Recording, Segment

pytest.importorskip("espeakng_loader", reason="the speech of this test is synthesised by the extra demo")

from undertone.corpora.demo import plan, render


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mine")
    for number, one in enumerate(plan(seed=3, recordings_per_split={"train": 4})):
        audio.write(made / f"talk-{number}.wav", audio.Wave(render(one).samples, 16_000))
    (made / "broken.wav").write_bytes(b"RIFF but not really")
    audio.write(made / "silence.flac", audio.Wave(np.zeros(48_000, np.float32), 16_000))
    return made


def undertone(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "undertone.cli", *args], capture_output=True, text=True, check=False)


def test_raw_speech_goes_as_far_as_questions_and_a_report(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    labelled = undertone("label", str(folder), "--out", str(out), "--workers", "2")
    assert labelled.returncode == 0, labelled.stderr
    assert "corpus/read: 6 in = 5 kept + 0 dropped + 1 failed (error 1) -> 5 rows" in labelled.stdout
    assert "label/raw: 5 in = 4 kept + 1 dropped + 0 failed (no_speech 1)" in labelled.stdout
    for step in ("condense", "generate", "report"):
        ran = undertone(step, str(out))
        assert ran.returncode == 0, ran.stderr
    failed = tables.open_table(out / "corpus" / "read", Recording).failed()
    assert "broken.wav" in (failed[0].detail or "")
    segments = list(tables.open_table(out / "label", Segment).rows())
    assert {label.labeller for one in segments for label in one.labels}.isdisjoint({HUMAN})
    assert {"emotion", "valence", "arousal", "dominance", "gender", "pitch_mean_hz"} <= {
        label.attribute for label in segments[0].labels
    }
    clips = {clip.id for clip in tables.open_table(out / "condense", Clip).rows()}
    pairs = list(tables.open_table(out / "generate" / "contextual", QAPair).rows())
    assert pairs
    assert {pair.clip_id for pair in pairs} <= clips
    # Without words nothing can be asked about what is said.
    assert {pair.kind for pair in pairs} <= {"DE", "DG"}
    page = (out / "report" / "index.html").read_text()
    assert "funnel" in page.lower()
    trained = undertone("train", str(out), "--set", "train.steps=2", "--set", "train.reading.clips=0")
    assert trained.returncode == 3
    assert "DataError: no training example for S10: its sources gave no pair" in trained.stderr


def test_a_second_run_into_the_folder_of_other_speech_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert undertone("label", str(folder), "--out", str(out), "--limit", "3").returncode == 0
    again = undertone("label", str(folder), "--out", str(out), "--limit", "4")
    assert again.returncode == 3
    assert "ResumeMismatch: " in again.stderr
    assert "Choose a new --out, or start it over with --redo" in again.stderr
