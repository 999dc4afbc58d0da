"""A whole study, tiny: the path runs end to end, twice the same, after kills the same, and no gold label leaks into training."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from undertone import recipe, tables
from undertone.errors import ConfigError, DataError, ModelError, ResumeMismatch
from undertone.evaluate.study_table import StudyTable
from undertone.evaluate.sweep import SweepTable
from undertone.execute import write_rows
from undertone.label.protocol import LABELLERS
from undertone.records import HUMAN, Answer, Clip, Example, QAPair, Recording, Segment, Verdict
from undertone.study import Study, load_study

pytest.importorskip("espeakng_loader", reason="the demonstration corpus needs the extra demo")
pytest.importorskip("torch", reason="training needs the extra train")

TINY = [
    "corpora.0.train=6",
    "corpora.0.test=3",
    "parts=4",
    "train.steps=6",
    "train.batch_size=8",
    "train.reading.clips=20",
    "train.reading.steps=4",
    "train.align.steps=3",
    "evaluate.resamples=100",
    "evaluate.direct.share=1.0",
    "evaluate.max_new_tokens=8",
]
TABLES: dict[str, type] = {
    "corpus": Recording,
    "label": Segment,
    "references": Clip,
    "condense/consistency": Segment,
    "condense/clips": Clip,
    "condense/occurrence": Clip,
    "condense": Clip,
    "generate/asr": QAPair,
    "generate/pqa": QAPair,
    "generate/pqa_star": QAPair,
    "generate/cpqa": QAPair,
    "generate/base": QAPair,
    "generate/contextual": QAPair,
    "evaluate/benchmark": QAPair,
    "evaluate/answers/S10": Answer,
    "evaluate/answers/S31": Answer,
    "evaluate/answers/S32": Answer,
    "evaluate/answers/words-only": Answer,
    "evaluate/answers/majority-answer": Answer,
    "evaluate/verdicts": Verdict,
}


def study(*overrides: str) -> Study:
    return load_study("demo", [*TINY, *overrides])


def run(out: Path, made: Study, *, workers: int = 1, steps: str = "everything", **more: object) -> list[str]:
    said: list[str] = []
    with recipe.running(made, out, workers=workers, command=["undertone"], **more) as one:  # type: ignore[arg-type]
        one.say = said.append
        for step in steps.split():
            getattr(recipe, step)(one)
    return said


def digests(out: Path) -> dict[str, str]:
    return {name: tables.open_table(out / name, record).digest for name, record in TABLES.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    said = run(out, study(), workers=2)
    (out / "said.txt").write_text("\n".join(said))
    return out


def test_every_table_is_there_and_accounts_for_its_rows(whole: Path) -> None:
    for name, record in TABLES.items():
        counts = tables.open_table(whole / name, record).done.counts
        assert counts.kept + counts.dropped + counts.failed == counts.inputs > 0, name
    said = (whole / "said.txt").read_text()
    for name in ("corpus", "label", "condense", "generate/contextual", "evaluate/verdicts"):
        assert f"\n{name}: " in said
    assert " kept + " in said


def test_the_report_and_the_card_are_there(whole: Path) -> None:
    page = (whole / "report" / "index.html").read_text()
    for part in ("S10", "S32", "words only", "majority answer", "<audio", "2508.07273"):
        assert part in page
    assert (whole / "report" / "DATASET.md").read_text().startswith("---\n")


def test_the_study_table_has_all_systems_and_controls(whole: Path) -> None:
    table = StudyTable.from_json((whole / "evaluate" / "study.json").read_text())
    assert [row.subject for row in table.rows] == [
        "S10", "S20", "S30", "S31", "S32", "words only", "metadata only", "majority answer"
    ]  # fmt: skip
    assert {"C", "DE", "DG", "CE"} <= set(table.kinds)
    for row in table.rows:
        for kind in table.kinds:
            cell = row.kinds[kind]
            assert cell.pairs == cell.score.n + sum(cell.unscored.values())


def test_a_sweep_of_the_run_asks_with_better_and_worse_labels_and_goes_on_where_it_was(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    few = [f"evaluate.sweep.{key}" for key in ("systems=[S32]", "noise=[0.5]", "oracle_noise=[]", "partial=[]", "shuffled=false")]
    run(out, study(*few), steps="sweep")
    table = SweepTable.from_json((out / "sweep" / "sweep.json").read_text())
    assert [one.subject for one in table.points] == ["S30 none", "S32 none", "S32 oracle", "S32 predicted", "S32 noise 0.5"]
    oracle = next(one.labels for one in table.points if one.human)
    assert oracle is not None
    assert oracle.accuracy == 1.0
    prompts = {
        name: [one.prompt for one in tables.open_table(out / folder, Example).rows()]
        for name, folder in (("study", "evaluate/examples/S32"), ("sweep", "sweep/examples/S32-predicted"))
    }
    assert prompts["study"] == prompts["sweep"]
    assert "S32 oracle" in (out / "sweep" / "index.html").read_text()
    again = run(out, study(*few), steps="sweep")
    assert all("already done" in line for line in again if line.startswith("sweep/") and " in = " in line)
    assert SweepTable.from_json((out / "sweep" / "sweep.json").read_text()) == table
    assert digests(out) == digests(whole)


def test_a_sweep_that_cannot_be_measured_or_asked_says_so_before_it_trains(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    with recipe.running(study("evaluate.sweep.attribute=gender"), out, workers=1, command=["undertone"]) as one:
        one.say = lambda line: None
        with pytest.raises(ConfigError, match=r"evaluate\.sweep\.attribute: 'gender' is not in model\.metadata\.attributes"):
            recipe.sweep(one, anew=True)
    (out / "train" / "S32" / "_done.json").unlink()
    with recipe.running(study(), out, workers=1, command=["undertone"]) as one:
        one.say = lambda line: None
        with pytest.raises(DataError, match=r"S32 is not there or not finished; make it with: undertone train .* --system S32"):
            recipe.sweep(one, anew=True)
    assert not (out / "sweep").exists()


def test_a_sweep_trained_anew_shows_its_labels_in_training_too(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    few = [f"evaluate.sweep.{key}" for key in ("systems=[S32]", "noise=[]", "oracle_noise=[]", "partial=[]", "shuffled=false")]
    made = study(*few)
    with recipe.running(made, out, workers=1, command=["undertone"]) as one:
        one.say = lambda line: None
        recipe.sweep(one, anew=True)
    trained = {row.pair_id: row for row in tables.open_table(out / "sweep/train/examples/S32-anew-oracle", Example).rows()}
    usual = {row.pair_id: row for row in tables.open_table(out / "train/examples/S32", Example).rows()}
    assert trained.keys() == usual.keys()
    assert any(trained[key].metadata != usual[key].metadata for key in trained)
    table = SweepTable.from_json((out / "sweep" / "sweep.json").read_text())
    assert {one.subject for one in table.points if one.curve == "S32 anew"} == {"S30 none", "S32 anew oracle", "S32 predicted"}


def test_the_same_study_elsewhere_with_other_workers_gives_the_same_tables(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, study(), workers=1)
    assert digests(tmp_path) == digests(whole)
    weights = "train/S32/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_second_run_does_nothing_again(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("part-*.parquet")}
    run(whole, study(), workers=2)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("part-*.parquet")} == before


def test_another_configuration_is_refused_and_redo_is_told(whole: Path) -> None:
    with pytest.raises(
        ResumeMismatch, match=r"config\.pairs_per_kind 4, now 1\. Choose a new --out, or start it over with --redo cpqa"
    ):
        run(whole, study("generate.sources.cpqa.pairs_per_kind=1"), steps="generate")


def test_no_gold_label_reaches_what_the_method_predicts(whole: Path) -> None:
    """All human emotions and genders turned round: predicted labels, condensed clips, their questions and all metadata stay the same."""
    out = whole.parent / "flipped"
    corpus = tables.open_table(whole / "corpus", Recording)
    flipped = [_flipped(row) for row in corpus.rows()]
    write_rows(out / "corpus", flipped, record=Recording, fingerprint=corpus.done.fingerprint, parts=4)
    run(out, study(), steps="label condense generate")
    for name in ("label", "condense", "generate/pqa_star", "generate/cpqa", "generate/contextual"):
        assert tables.open_table(out / name, TABLES[name]).digest == tables.open_table(whole / name, TABLES[name]).digest, name
    assert tables.open_table(out / "references", Clip).digest != tables.open_table(whole / "references", Clip).digest
    for name in ("S31", "S32"):
        rows = list(tables.open_table(whole / "evaluate" / "examples" / name, Example).rows())
        assert any(row.metadata for row in rows)


def _flipped(row: Recording) -> Recording:
    turned = {"female": "male", "male": "female", "happy": "sad"}
    references = tuple(
        one.model_copy(
            update={
                "labels": tuple(
                    label.model_copy(update={"category": turned.get(label.category or "", "happy")})
                    if label.labeller == HUMAN
                    else label
                    for label in one.labels
                )
            }
        )
        for one in row.references
    )
    return row.model_copy(update={"references": references})


def test_no_speaker_recording_or_wording_is_on_both_sides(whole: Path) -> None:
    recordings = list(tables.open_table(whole / "corpus", Recording).rows())
    speakers = {side: {one for row in recordings if row.split == side for one in row.speakers} for side in ("train", "test")}
    assert speakers["train"]
    assert speakers["test"]
    assert not speakers["train"] & speakers["test"]
    trained = {pair.recording_id for name in ("base", "contextual") for pair in _pairs(whole / "generate" / name)}
    asked = {pair.recording_id for pair in _pairs(whole / "evaluate" / "benchmark")}
    assert not trained & asked
    questions = {pair.question for name in ("base", "contextual") for pair in _pairs(whole / "generate" / name)}
    assert not questions & {pair.question for pair in _pairs(whole / "evaluate" / "benchmark")}


def _pairs(folder: Path) -> Iterator[QAPair]:
    return iter(tables.open_table(folder, QAPair).rows())


def test_an_encoder_that_heard_a_test_speaker_is_refused_whatever_labels(whole: Path) -> None:
    heard = sorted(LABELLERS.get("affect-small").heard_speakers)
    rows = [_spoken_by(row, heard[0]) for row in tables.open_table(whole / "corpus", Recording).rows() if row.split == "test"]
    out = whole.parent / "encoder"
    write_rows(out / "corpus", rows, record=Recording, fingerprint=tables.open_table(whole / "corpus", Recording).done.fingerprint)
    with pytest.raises(ConfigError, match="the labeller was trained on 1 test speakers"):
        run(out, study("label.labellers=[prosody]"), steps="label")


def test_a_heard_speaker_in_a_corpus_of_another_name_is_warned_of(whole: Path) -> None:
    heard = sorted(LABELLERS.get("affect-small").heard_speakers)
    tests = [row for row in tables.open_table(whole / "corpus", Recording).rows() if row.split == "test"]
    rows = [_spoken_by(tests[0], "other/" + heard[0].split("/")[1]), _spoken_by(tests[1], None)]
    out = whole.parent / "renamed"
    write_rows(out / "corpus", rows, record=Recording, fingerprint=tables.open_table(whole / "corpus", Recording).done.fingerprint)
    said = "\n".join(run(out, study(), steps="label"))
    assert f"WARNING: test speakers {heard[0].split('/')[1]} have names that the labeller was trained on" in said
    assert "WARNING: 1 test recordings have no speaker" in said


def _spoken_by(row: Recording, speaker: str | None) -> Recording:
    return row.model_copy(update={"references": tuple(one.model_copy(update={"speaker": speaker}) for one in row.references)})


def test_a_labeller_that_heard_a_test_speaker_is_refused(whole: Path) -> None:
    heard = sorted(LABELLERS.get("affect-small").heard_speakers)
    tested = next(row for row in tables.open_table(whole / "corpus", Recording).rows() if row.split == "test")
    forged = _spoken_by(tested, heard[0])
    out = whole.parent / "heard"
    write_rows(
        out / "corpus", [forged], record=Recording, fingerprint=tables.open_table(whole / "corpus", Recording).done.fingerprint
    )
    with pytest.raises(ConfigError, match=re.escape(f"the labeller was trained on 1 test speakers of this study ({heard[0]})")):
        run(out, study(), steps="label")
    assert any(
        "WARNING: the labeller was trained on" in line for line in run(out, study("allow_heard_test_speakers=true"), steps="label")
    )


def test_a_corpus_without_test_split_says_so_at_evaluation(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the benchmark is empty: no recording of split test"):
        run(tmp_path, study("corpora.0.test=0", "corpora.0.train=2"), steps="corpora label condense generate train evaluate")


def test_a_trained_system_answers_about_a_file(whole: Path) -> None:
    file = Path(next(iter(tables.open_table(whole / "corpus", Recording).rows())).uri)
    for system in ("S30", "S32", "metadata-only"):
        assert all(isinstance(one, str) for one in recipe.ask(whole / "train" / system, file, "How does the speaker feel?"))
    with pytest.raises(ModelError, match="reads transcripts and cannot hear a file; choose a system that hears speech"):
        list(recipe.ask(whole / "train" / "words-only", file, "How does the speaker feel?"))


@pytest.mark.slow
def test_kill_nine_at_any_moment_then_the_same_command_gives_the_unbroken_run(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "broken"
    command = [sys.executable, "-m", "undertone.cli", "run", "demo", "--out", str(out), "--workers", "2"]
    command += [word for setting in TINY for word in ("--set", setting)]
    rng = random.Random(11)
    for _ in range(8):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(2, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1)
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert digests(out) == digests(whole)


def test_run_json_tells_what_made_the_folder(whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_text())
    assert facts["study"]["corpora"][0]["train"] == 6
    assert facts["seed"] == 2
    assert {"command", "created", "machine", "packages", "python", "undertone"} <= set(facts)
    assert recipe.recorded_study(whole) == study()
