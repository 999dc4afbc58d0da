"""Several runs beside each other, and two test sets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from undertone import tables
from undertone.errors import ConfigError, DataError
from undertone.evaluate import study_table
from undertone.evaluate.compare import OVERALL, UAS, Comparison, StudiedRun, compare, differences, read_run
from undertone.evaluate.compare_text import sentences
from undertone.evaluate.judges import JudgeCard
from undertone.evaluate.study_table import StudyTable, sheet_of
from undertone.evaluate.two_sets import JudgedSet, agreement_of_sets, of_runs
from undertone.execute import write_rows
from undertone.records import QAPair, Record, Verdict
from undertone.tables import Fingerprint

SETTINGS: dict[str, Any] = {
    "name": "demo",
    "seed": 1,
    "train": {"steps": 500, "seed": 1},
    "model": {"adapter": {"kind": "mlp", "stack": 15}},
    "systems": [{"name": "S10", "data": ["asr"]}, {"name": "S30", "data": ["asr", "cpqa"]}],
}


def pairs_of(recordings: int, *, first: int = 0, each: int = 4) -> list[QAPair]:
    made: dict[str, Any] = {"source": "benchmark", "generator": "x@1", "question": "How?", "answer": "Sad."}
    return [
        QAPair(clip_id=f"c{number}-{index}", recording_id=f"r{number}", kind="CE" if index % 2 else "C", **made)
        for number in range(first, first + recordings)
        for index in range(each)
    ]


def verdicts_of(pairs: Sequence[QAPair], scores: Mapping[str, Sequence[float | None]], judge: str = "j") -> list[Verdict]:
    return [
        Verdict(judge=judge, subject=subject, pair_id=one.id, score=score, unscored=None if score is not None else "refused")
        for subject, column in scores.items()
        for one, score in zip(pairs, column, strict=True)
    ]


def studied(run: str, seed: int, scores: Mapping[str, float], /, *, first: int = 0, noise: int = 0, **settings: Any) -> StudiedRun:
    """A run whose systems have these means exactly: every question the same, or `noise` up and down."""
    pairs = pairs_of(20, first=first)
    swing = [noise * (-1) ** (index // 2) for index in range(len(pairs))]
    verdicts = verdicts_of(pairs, {subject: [mean + one for one in swing] for subject, mean in scores.items()})
    return StudiedRun(run, {**SETTINGS, "seed": seed, **settings}, "j", sheet_of(verdicts, pairs))


def three(*pairs: tuple[float, float], **more: Any) -> list[StudiedRun]:
    return [
        studied(f"run{seed}", seed, {"S10": low, "S30": high}, noise=10, **more) for seed, (low, high) in enumerate(pairs, start=1)
    ]


def test_means_over_runs_and_their_t_interval_are_by_the_book() -> None:
    found = compare(three((40, 50), (42, 55), (44, 51)), resamples=300)
    row = next(one for one in found.rows if one.subject == "S30")
    overall = row.scores[OVERALL]
    assert overall.values == (50, 55, 51)
    assert overall.interval.mean == pytest.approx(52)
    assert overall.sd == pytest.approx(np.std([50, 55, 51], ddof=1))
    low, high = stats.t.interval(0.95, 2, loc=52, scale=stats.sem([50, 55, 51]))
    assert (overall.t_low, overall.t_high) == (pytest.approx(low), pytest.approx(high))
    assert row.scores[UAS].interval.mean == pytest.approx(52)
    assert set(row.scores) == {"C", "CE", OVERALL, UAS}
    (gap,) = found.contrasts
    assert (gap.first, gap.second, gap.difference.values) == ("S30", "S10", (10, 13, 7))
    assert gap.difference.same_sign == 3
    assert Comparison.from_json(found.to_json()) == found


def test_the_bootstrap_draws_runs_as_well_as_recordings() -> None:
    """Within a run every recording says the same of the difference, so all its spread is that of the runs."""
    found = compare(three((40, 50), (40, 60), (40, 40)), resamples=4000)
    gap = found.contrasts[0].difference
    # Of 27 draws of three runs one is all worst and one all best: more than 2.5 % each.
    assert (gap.interval.low, gap.interval.high) == (pytest.approx(0), pytest.approx(20))
    alike = compare(three((40, 50), (40, 50), (40, 50)), resamples=300).contrasts[0].difference
    assert (alike.interval.low, alike.interval.high, alike.sd) == (pytest.approx(10), pytest.approx(10), 0)


def test_recordings_that_all_runs_share_are_drawn_together() -> None:
    """The same recordings in three runs are no more evidence than in one; others are."""

    def width(shared: bool) -> float:
        rng = np.random.default_rng(0)
        runs: list[StudiedRun] = []
        drawn = np.empty(0)
        for seed in (1, 2, 3):
            pairs = pairs_of(40, first=0 if shared else 40 * seed, each=1)
            drawn = rng.normal(size=40) if not runs or not shared else drawn
            column = 50 + 10 * (drawn - drawn.mean()) / drawn.std()
            verdicts = verdicts_of(pairs, {"S10": [float(one) for one in column]})
            runs.append(StudiedRun(f"run{seed}", {**SETTINGS, "seed": seed}, "j", sheet_of(verdicts, pairs)))
        found = compare(runs, resamples=2000)
        assert (found.recordings, found.shared) == ((40, 40) if shared else (120, 0))
        interval = found.rows[0].scores[OVERALL].interval
        assert interval.low is not None
        assert interval.high is not None
        return interval.high - interval.low

    single = 2 * 1.96 * 10 / math.sqrt(40)
    assert width(True) == pytest.approx(single, rel=0.1)
    # Three runs drawn from three weigh (c1, c2, c3) / 3 with E(sum c^2) = 5: the variance is 5/9 of one run's.
    assert width(False) == pytest.approx(single * math.sqrt(5 / 9), rel=0.1)


def test_a_sentence_needs_both_intervals() -> None:
    def said(*pairs: tuple[float, float]) -> str:
        return sentences(compare(three(*pairs), resamples=500))[0]

    assert said((40, 50), (40, 51), (40, 49)).startswith("S30 is above S10 by 10.0 points (95 % interval ")
    assert "same sign in 3 of 3" in said((40, 50), (40, 51), (40, 49))
    assert said((50, 40), (51, 40), (49, 40)).startswith("S30 is below S10 by 10.0 points (95 % interval 9.")
    assert "it is not settled: +11.0 points" in said((40, 42), (40, 50), (40, 61))
    assert said((40, 42), (40, 50), (40, 61)).endswith("only the bootstrap leaves out 0.")
    assert said((40, 50), (40, 30), (40, 41)).startswith("Between S30 and S10 no difference can be told: +0.3 points")


def test_runs_of_other_studies_are_refused_by_name_of_what_differs() -> None:
    runs = [
        studied("a", 1, {"S10": 40}),
        studied("b", 2, {"S10": 50}, name="other", parts=9, train={"steps": 900, "seed": 2}),
    ]
    with pytest.raises(ConfigError, match=r"different studies: train\.steps: 500 \| 900\. .* --by KEY, and --anyway"):
        compare(runs)
    found = compare(runs, anyway=True, resamples=100)
    assert found.differ == {"train.steps": ("500", "900")}
    assert "WARNING: the runs also differ in train.steps: 500 | 900" in found.plain_text()


def test_what_differs_names_systems_and_leaves_out_what_no_score_depends_on() -> None:
    other = [{"name": "S10", "data": ["asr", "pqa"]}, {"name": "S30", "data": ["asr", "cpqa"]}]
    runs = [studied("a", 1, {"S10": 40}, parts=4), studied("b", 2, {"S10": 40}, parts=8, systems=other)]
    assert differences([one.settings for one in runs]) == {"systems.S10.data": ('["asr"]', '["asr", "pqa"]')}


def test_a_run_counts_once() -> None:
    one = studied("a", 1, {"S10": 40})
    with pytest.raises(ConfigError, match="a is given twice"):
        compare([one, one])
    with pytest.raises(ConfigError, match=r"a and b both have seed 1: .* --seed N"):
        compare([one, studied("b", 1, {"S10": 41})])
    with pytest.raises(ConfigError, match="at least two runs, got 1"):
        compare([one])


def adapters(*scores: tuple[str, int, float]) -> list[StudiedRun]:
    other = {"conv": {"kind": "conv", "kernel": 5}, "mlp": {"kind": "mlp", "stack": 15}}
    return [
        studied(f"{kind}{seed}", seed, {"S10": 40, "S30": mean}, noise=10, model={"adapter": other[kind]})
        for kind, seed, mean in scores
    ]


def test_runs_by_a_setting_have_rows_of_their_own_and_are_compared_by_seed() -> None:
    runs = adapters(("mlp", 1, 50), ("conv", 1, 56), ("mlp", 2, 52), ("conv", 2, 60))
    with pytest.raises(ConfigError, match=r"model\.adapter\.kind: mlp \| conv \| mlp \| conv"):
        compare(runs)
    found = compare(runs, by="model.adapter.kind", resamples=300)
    assert [one.name for one in found.rows] == ["S10 (mlp)", "S10 (conv)", "S30 (mlp)", "S30 (conv)"]
    gaps = {(one.first, one.second): one.difference for one in found.contrasts}
    assert list(gaps) == [
        ("S30 (mlp)", "S10 (mlp)"),
        ("S30 (conv)", "S10 (conv)"),
        ("S10 (conv)", "S10 (mlp)"),
        ("S30 (conv)", "S30 (mlp)"),
    ]
    assert gaps["S30 (conv)", "S30 (mlp)"].values == (6, 8)
    assert gaps["S30 (mlp)", "S10 (mlp)"].values == (10, 12)
    assert "S30 (conv)" in found.plain_text()


def test_settings_with_other_seeds_are_compared_without_pairing() -> None:
    found = compare(adapters(("mlp", 1, 50), ("mlp", 2, 52), ("conv", 3, 60)), by="model.adapter.kind", resamples=300)
    gap = next(one.difference for one in found.contrasts if (one.first, one.second) == ("S30 (conv)", "S30 (mlp)"))
    assert (gap.values, gap.t_low, gap.interval.mean) == ((), None, pytest.approx(9))
    assert (gap.interval.low, gap.interval.high) == (pytest.approx(8), pytest.approx(10))
    text = found.plain_text()
    assert "WARNING: one run only of some row" in text
    said = next(one for one in sentences(found) if one.startswith("S30 (conv) is above S30 (mlp) by 9.0 points"))
    assert said.endswith("Their seeds are not the same, so no run is paired with another.")


def test_a_setting_that_is_none_is_refused_with_its_neighbours() -> None:
    with pytest.raises(
        ConfigError, match=r"--by model\.adapter: mlp1 has no such setting; expected one such as model\.adapter\.kind"
    ):
        compare(adapters(("mlp", 1, 50), ("conv", 1, 60)), by="model.adapter")


def test_what_is_flagged_stands_apart() -> None:
    """The second system is better on flagged questions alone."""
    pairs = [
        one.model_copy(update={"flags": ("metadata_leak",) if index % 4 == 0 else ()}) for index, one in enumerate(pairs_of(20))
    ]
    columns = {"S30": [50.0] * 80, "S32": [90.0 if one.flags else 50.0 for one in pairs]}
    runs = [
        StudiedRun(f"run{seed}", {**SETTINGS, "seed": seed}, "j", sheet_of(verdicts_of(pairs, columns), pairs)) for seed in range(3)
    ]
    found = compare(runs, resamples=100)
    (gap,) = found.contrasts
    assert gap.unflagged is not None
    assert (gap.difference.values, gap.unflagged.values) == ((10, 10, 10), (0, 0, 0))
    assert found.rows[1].scores["unflagged"].interval.mean == 50
    assert found.rows[1].scores[UAS].interval.mean == pytest.approx(60)
    said = sentences(found)
    assert said[0].startswith("S32 is above S30 by 10.0 points")
    assert said[1].startswith("Without flagged questions: between S32 and S30 no difference can be told: +0.0 points")
    assert compare(three((40, 50), (42, 55)), resamples=100).contrasts[0].unflagged is None


def test_text_fits_a_hundred_columns_and_says_what_is_missing() -> None:
    runs = [
        studied(f"run{seed}", seed, dict.fromkeys((*study_table.SYSTEMS, *study_table.CONTROLS), 40.0 + seed), noise=10)
        for seed in range(8)
    ]
    text = compare(runs, resamples=100).plain_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for word in ("8 runs", "seed 7", *study_table.SYSTEMS, *study_table.CONTROLS, "S30 - majority answer"):
        assert word in text


def test_a_system_that_was_refused_everywhere_has_no_number() -> None:
    pairs = pairs_of(5)
    runs = [
        StudiedRun(
            name, {**SETTINGS, "seed": seed}, "j", sheet_of(verdicts_of(pairs, {"S10": [50.0] * 20, "S30": [None] * 20}), pairs)
        )
        for seed, name in enumerate("ab")
    ]
    found = compare(runs, resamples=100)
    row = next(one for one in found.rows if one.subject == "S30")
    assert row.scores[OVERALL].values == (None, None)
    assert (row.scores[OVERALL].interval.mean, row.scores[UAS].interval.mean) == (None, None)
    assert sentences(found) == ["S30 and S10 cannot be compared: no run has a score of both."]


# ---- from a folder -------------------------------------------------------------------------------------------------------------


def written(folder: Path, pairs: list[QAPair], verdicts: list[Verdict]) -> Path:
    def write(name: str, rows: Sequence[Record], record: type[Record]) -> None:
        made = Fingerprint(stage=name, version="1", seed=1, config={}, inputs={})
        write_rows(folder / "evaluate" / name, rows, record=record, fingerprint=made, parts=2, redo=False)

    write("benchmark", pairs, QAPair)
    write("verdicts", verdicts, Verdict)
    table = study_table.build(verdicts, pairs, subjects=["S10", "S30"], resamples=100)
    tables.write_bytes(folder / "evaluate" / "study.json", table.to_json().encode())
    tables.write_bytes(folder / "run.json", json.dumps({"study": SETTINGS}).encode())
    return folder


def test_a_run_is_read_with_all_that_was_asked(tmp_path: Path) -> None:
    pairs = pairs_of(3)
    folder = written(tmp_path / "run", pairs, verdicts_of(pairs, {"S10": [50.0] * 12}))
    found = read_run(folder)
    assert (found.seed, found.judge, found.settings) == (1, "j", SETTINGS)
    assert set(found.sheet.scores) == {"S10", "S30"}
    assert np.isnan(found.sheet.scores["S30"]).all()
    assert read_run(folder, {"seed": 7}).seed == 7
    kinds = {"j": "reference", "m": "manner", "k": "llm"}
    cards = [JudgeCard(name=name, kind=kind, runs=1, settings={}).model_dump(mode="json") for name, kind in kinds.items()]
    (folder / "evaluate" / "judges.json").write_text(json.dumps(cards))
    for number, name in ((2, "m"), (3, "k"), (4, "of a study before")):
        made = Fingerprint(stage="judge", version="1", seed=1, config={}, inputs={})
        rows = verdicts_of(pairs, {"S10": [20.0] * 12}, name)
        write_rows(folder / "evaluate" / f"verdicts-{number}", rows, record=Verdict, fingerprint=made)
    assert read_run(folder).judge == "j"
    assert (read_run(folder, judge="k").judge, read_run(folder, judge="k").sheet.scores["S10"][0]) == ("k", 20.0)
    with pytest.raises(ConfigError, match="got judge='m'; the verdicts are by j, k"):
        read_run(folder, judge="m")


def test_a_folder_without_a_result_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a run's folder \(no run\.json\)"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match=rf"not evaluated yet. Finish it with: undertone evaluate {tmp_path}"):
        read_run(tmp_path)


# ---- two test sets -------------------------------------------------------------------------------------------------------------


def judged(name: str, first: int, means: Mapping[str, float], judges: Sequence[str] = ("j",)) -> JudgedSet:
    pairs = pairs_of(20, first=first)
    rng = np.random.default_rng(first)
    scores = {system: [float(one) for one in mean + rng.normal(0, 1, len(pairs))] for system, mean in means.items()}
    return JudgedSet(name, pairs, [one for judge in judges for one in verdicts_of(pairs, scores, judge)])


MEANS = {"S10": 41.0, "S20": 52.0, "S30": 57.0, "S32": 60.0, "majority answer": 10.0}


def test_two_sets_that_order_systems_alike_for_every_judge_of_both() -> None:
    made = judged("generated", 0, MEANS, ("j", "k", "only here"))
    human = judged("human", 100, {name: 20 + mean / 2 for name, mean in MEANS.items()}, ("k", "j"))
    found = agreement_of_sets(made, human, resamples=200)
    assert list(found.judges) == ["j", "k"]
    overall = found.judges["j"][OVERALL]
    assert overall.systems == ("S10", "S20", "S30", "S32")
    assert (overall.spearman.mean, overall.p) == (pytest.approx(1), pytest.approx(2 / 24))
    assert set(found.judges["j"]) == {OVERALL, "C", "CE"}
    assert "Spearman 1.00" in found.plain_text()
    turned = agreement_of_sets(made, judged("human", 100, {name: 100 - mean for name, mean in MEANS.items()}), resamples=200)
    assert turned.judges["j"][OVERALL].kendall.mean == pytest.approx(-1)


def test_two_sets_need_a_judge_and_three_systems_in_common() -> None:
    made = judged("generated", 0, MEANS)
    with pytest.raises(DataError, match="no judge in common: j and k"):
        agreement_of_sets(made, judged("human", 100, MEANS, ("k",)))
    with pytest.raises(DataError, match="at least three that answered both"):
        agreement_of_sets(made, judged("human", 100, {"S10": 40.0, "S20": 50.0}))
    with pytest.raises(DataError, match="of which S99 did not answer both"):
        agreement_of_sets(made, judged("human", 100, MEANS), systems=["S10", "S20", "S99"])


def test_two_runs_of_the_same_systems_compare_their_test_sets(tmp_path: Path) -> None:
    sets = [judged("generated", 0, MEANS), judged("human", 100, MEANS)]
    folders = [written(tmp_path / one.name, list(one.pairs), list(one.verdicts)) for one in sets]
    studies = [{**SETTINGS, "evaluate": {"share": share}} for share in (0.3, 1.0)]
    found = of_runs(folders, studies, resamples=100)
    assert found.judges["j"][OVERALL].spearman.mean == pytest.approx(1)
    file = folders[0] / "evaluate" / "study.json"
    table = StudyTable.from_json(file.read_text())
    rows = [row.model_copy(update={"control": row.subject in ("S20", "majority answer")}) for row in table.rows]
    file.write_text(table.model_copy(update={"rows": tuple(rows)}).to_json())
    assert of_runs(folders, studies, resamples=100).judges["j"][OVERALL].systems == ("S10", "S30", "S32")
    with pytest.raises(ConfigError, match=r"are not the same: seed: 1 \| 2\. .* --anyway"):
        of_runs(folders, [studies[0], {**studies[1], "seed": 2}])
    assert of_runs(folders, [studies[0], {**studies[1], "seed": 2}], anyway=True, resamples=100).judges
    with pytest.raises(ConfigError, match="by two runs, got 1"):
        of_runs(folders[:1], studies[:1])
    (folders[1] / "evaluate" / "study.json").unlink()
    with pytest.raises(DataError, match="not evaluated yet"):
        of_runs(folders, studies)
