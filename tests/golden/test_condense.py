"""Condensation by the command line: all filters, the threshold search, the leak check, the report's figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from undertone import tables
from undertone.condense.tune import read_tuning
from undertone.records import Clip, Segment

pytest.importorskip("espeakng_loader", reason="the demonstration corpus needs espeak")

FILTERS = ["condense.quality={}", "condense.language={wanted: [en]}", "condense.duplicates={}"]
LABELLERS = "label.labellers=[affect-small, quality, fingerprint]"


def undertone(*args: str) -> str:
    ran = subprocess.run([sys.executable, "-m", "undertone.cli", *args], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("condense") / "run"
    settings = [LABELLERS, *FILTERS, "corpora.0.train=8", "corpora.0.test=2"]
    options = [part for one in settings for part in ("--set", one)]
    undertone("run", "demo", "--out", str(out), "--workers", "1", "--until", "label", *options)
    return out


def test_every_filter_is_a_table_and_every_row_is_accounted_for(run: Path) -> None:
    said = undertone("condense", str(run), "--workers", "1")
    before = len(tables.open_table(run / "label", Segment))
    for name in ("quality", "language", "duplicates", "consistency"):
        done = tables.open_table(run / "condense" / name, Segment).done.counts
        assert done.inputs == before
        assert done.inputs == done.kept + done.dropped + done.failed
        assert f"condense/{name}: {before} in" in said
        before = done.rows
    assert len(tables.open_table(run / "condense", Clip)) > 0
    assert "emotion told by the sentence alone" in said


def test_the_search_is_written_down_used_and_drawn(run: Path) -> None:
    said = undertone("condense", str(run), "--tune", "--workers", "1")
    found = read_tuning(run / "tune.json")
    assert found is not None
    assert "test" not in found.splits
    assert said.startswith("best x ")
    used = json.loads((run / "run.json").read_text())["study"]["condense"]["consistency"]
    assert (used["positive_min"], used["negative_max"]) == (found.best.positive_min, found.best.negative_max)
    fingerprint = tables.open_table(run / "condense/consistency", Segment).done.fingerprint
    assert fingerprint.config["positive_min"] == found.best.positive_min
    undertone("report", str(run))
    page = (run / "report/index.html").read_text()
    assert "Thresholds of the consistency filter" in page
    assert page.count("<svg") >= 2


def test_a_filter_without_its_labeller_is_refused_before_any_work(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "undertone.cli", "run", "demo", "--out", str(tmp_path / "r"), "--set", "condense.duplicates={}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "condense.duplicates needs the labeller 'fingerprint'; add it to label.labellers" in ran.stderr
    assert not (tmp_path / "r").exists()


def test_a_redo_that_names_nothing_is_told(run: Path) -> None:
    said = undertone("condense", str(run), "--workers", "1", "--redo", "consistancy")
    assert "WARNING: --redo consistancy named no table that this command writes" in said
    assert "WARNING: --redo" not in undertone("condense", str(run), "--workers", "1", "--redo", "condense/.")
