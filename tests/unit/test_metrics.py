"""Means with intervals, class metrics, the study table and what surrounds it, on numbers that can be checked by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from undertone.errors import ConfigError, DataError
from undertone.evaluate import metrics, study_table
from undertone.evaluate.benchmark import describe, leakage
from undertone.evaluate.labeller_report import labeller_report
from undertone.evaluate.majority import majority_answers
from undertone.evaluate.study_table import StudyTable, build, verdict_sentences
from undertone.evaluate.study_text import p_text
from undertone.records import Clip, Label, QAPair, Recording, Segment, Verdict
from undertone.report.scores import study_view

NAN = math.nan


def pair(
    number: int, kind: str = "CE", *, label: str | None = "sad", recording: int | None = None, answer: str | None = None
) -> QAPair:
    attribute = None if label is None else "gender" if label in ("female", "male") else "emotion"
    where = f"{number if recording is None else recording:016d}"
    return QAPair(
        clip_id=f"{where}@0-5000",
        recording_id=where,
        source="benchmark",
        kind=kind,
        question=f"Question {number}?",
        answer=answer or f"The speaker is {label}.",
        label_attribute=attribute,
        label=label,
        generator="test@1",
    )


def verdict(one: QAPair, subject: str, score: float | None, **more: object) -> Verdict:
    why = more.pop("unscored", "refused")
    reason = None if score is not None else why
    mapped = one.label if score == 100 and one.label else None
    return Verdict.model_validate(
        {
            "judge": "reference",
            "subject": subject,
            "pair_id": one.id,
            "score": score,
            "unscored": reason,
            "mapped_label": mapped,
            **more,
        }
    )


# ---- intervals -----------------------------------------------------------------------------------------------------------------


def test_mean_leaves_unscored_items_out() -> None:
    (found,) = metrics.bootstrap_means([100, NAN, 0, 100], ["a", "b", "c", "d"], seed=1)
    assert found.mean == pytest.approx(200 / 3)
    assert (found.n, found.clusters) == (3, 3)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.mean <= found.high <= 100


@pytest.mark.parametrize(
    ("scores", "clusters", "mean", "missing"),
    [([], [], None, "no_items"), ([NAN, NAN], ["a", "b"], None, "no_items"), ([10.0, 30.0], ["a", "a"], 20.0, "one_cluster")],
)
def test_degenerate_input_gives_a_typed_reason(scores: list[float], clusters: list[str], mean: float | None, missing: str) -> None:
    (found,) = metrics.bootstrap_means(scores, clusters, seed=1)
    assert (found.mean, found.low, found.high, found.missing) == (mean, None, None, missing)
    gap = metrics.paired_difference(scores, scores, clusters, seed=1)
    assert (gap.low, gap.high, gap.p) == (None, None, None)
    assert metrics.relative_gain(scores, scores, clusters, seed=1).low is None
    assert metrics.unweighted_mean(scores, ["C"] * len(scores), clusters, seed=1).low is None


def test_interval_of_independent_items_matches_theory() -> None:
    scores = np.random.default_rng(0).normal(50, 10, size=2_000)
    (found,) = metrics.bootstrap_means(scores, [str(one) for one in range(2_000)], resamples=4_000, seed=3)
    half = 1.96 * scores.std() / math.sqrt(2_000)
    assert found.mean is not None
    assert found.low == pytest.approx(found.mean - half, abs=0.08)
    assert found.high == pytest.approx(found.mean + half, abs=0.08)


def test_clusters_widen_the_interval() -> None:
    scores = np.repeat(np.random.default_rng(0).integers(0, 2, 40) * 100.0, 10)
    (alone,) = metrics.bootstrap_means(scores, [str(one) for one in range(400)], seed=1)
    (grouped,) = metrics.bootstrap_means(scores, [str(one // 10) for one in range(400)], seed=1)
    assert alone.low is not None
    assert alone.high is not None
    assert grouped.low is not None
    assert grouped.high is not None
    # Ten copies of one item carry no more than the item: the standard error grows by sqrt(10).
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(10), rel=0.15)


def test_paired_difference_sees_through_what_is_shared() -> None:
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 30, 200)
    first, second = 50 + hard + rng.normal(0, 1, 200) + 2, 50 + hard + rng.normal(0, 1, 200)
    names = [str(one) for one in range(200)]
    found = metrics.paired_difference(first, second, names, seed=2)
    assert found.low is not None
    assert found.p is not None
    assert found.mean == pytest.approx(2, abs=0.3)
    assert found.low > 1.5
    assert found.p < 0.01
    none = metrics.paired_difference(first, first, names, seed=2)
    assert (none.mean, none.low, none.high, none.p) == (0, 0, 0, 1)


def test_paired_difference_uses_the_items_that_both_have() -> None:
    found = metrics.paired_difference([100, 100, NAN, 0], [0, NAN, 100, 0], list("abcd"), seed=2)
    assert (found.mean, found.n) == (50, 2)


def test_relative_gain_is_the_papers_arithmetic() -> None:
    found = metrics.relative_gain([56.75] * 4, [41.0] * 4, list("abcd"), seed=1)
    assert found.mean == pytest.approx(38.41, abs=0.01)
    assert found.low == pytest.approx(found.mean)
    assert metrics.relative_gain([50.0] * 4, [0.0] * 4, list("abcd"), seed=1).missing == "zero_baseline"


def test_relative_gain_over_a_rarely_right_baseline_has_no_upper_bound() -> None:
    found = metrics.relative_gain([100.0] * 5, [100.0, 0, 0, 0, 0], list("abcde"), seed=1)
    assert found.mean == pytest.approx(400)
    assert found.low is not None
    assert (found.high, found.missing) == (None, "zero_baseline")


def test_unweighted_mean_weighs_kinds_alike() -> None:
    scores, kinds = [100.0] * 6 + [0.0] * 2, ["C"] * 6 + ["CE"] * 2
    found = metrics.unweighted_mean(scores, kinds, list("abcdefab"), seed=1)
    assert found.mean == 50


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="one row of scores per cluster name"):
        metrics.bootstrap_means([1.0, 2.0], ["a"], seed=0)
    with pytest.raises(DataError, match="got 1 and 2"):
        metrics.class_metrics(["sad"], ["sad", "happy"])


def test_all_figures_of_one_table_are_of_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(50, 10, 60), rng.normal(40, 10, 60)
    names = [str(one // 3) for one in range(60)]
    found = metrics.resample({"a": first, "b": second, "a-b": first - second}, names, resamples=300, seed=4)
    assert found.draws["a"] - found.draws["b"] == pytest.approx(found.draws["a-b"])
    assert found.interval("a") == metrics.bootstrap_means(first, names, resamples=300, seed=4)[0]
    assert found.difference("a-b") == metrics.paired_difference(first, second, names, resamples=300, seed=4)
    assert found.gain("a", "b", over="a-b") == metrics.relative_gain(first, second, names, resamples=300, seed=4)


def test_a_mean_over_kinds_has_no_value_where_a_kind_has_no_score() -> None:
    found = metrics.resample({"C": [1.0, 2], "CE": [NAN, NAN], "all": [1.0, 2]}, ["a", "b"], seed=1)
    one = found.unweighted(["C", "CE"], over="all")
    assert (one.mean, one.missing, one.n) == (None, "undefined", 2)
    assert found.unweighted(["C"], over="all").mean == 1.5


# ---- classes -------------------------------------------------------------------------------------------------------------------


def test_class_metrics_by_hand() -> None:
    found = metrics.class_metrics(["sad", "sad", "sad", "happy"], ["sad", "angry", None, "happy"])
    assert found.classes == ("happy", "sad")
    assert found.columns == ("happy", "sad", "angry", "unmapped")
    assert found.confusion == ((1, 0, 0, 0), (0, 1, 1, 1))
    assert (found.n, found.unmapped) == (4, 1)
    assert found.wa == 0.5
    assert found.recall == {"happy": 1.0, "sad": pytest.approx(1 / 3)}
    assert found.ua == pytest.approx(2 / 3)
    assert found.macro_f1 == pytest.approx((1 + 0.5) / 2)
    assert found.weighted_f1 == pytest.approx((1 + 3 * 0.5) / 4)


def test_class_metrics_of_nothing() -> None:
    found = metrics.class_metrics([], [])
    assert (found.n, found.wa, found.ua, found.macro_f1) == (0, None, None, None)


# ---- the study table -----------------------------------------------------------------------------------------------------------


def small_study() -> tuple[list[Verdict], list[QAPair]]:
    pairs = [pair(number, "CE", recording=number // 2) for number in range(20)]
    pairs += [pair(number, "C", label=None, answer="the train", recording=number % 10) for number in range(20, 30)]
    made: list[Verdict] = []
    for index, one in enumerate(pairs):
        made.append(verdict(one, "S10", 100 if index % 4 == 0 else 0))
        made.append(verdict(one, "S30", None if index == 29 else 100 if index % 4 else 0))
        made.append(verdict(one, "majority answer", 0))
        if index < 25:
            made.append(verdict(one, "other", 50))
    return made, pairs


def test_table_counts_everything() -> None:
    verdicts, pairs = small_study()
    table = build(verdicts, pairs, resamples=500)
    assert [row.subject for row in table.rows] == ["S10", "S30", "other", "majority answer"]
    assert [row.control for row in table.rows] == [False, False, False, True]
    assert table.kinds == ("C", "CE")
    assert (table.pairs, table.recordings, table.runs, table.judge) == (30, 10, 1, "reference")
    s30, other = table.row("S30"), table.row("other")
    assert s30 is not None
    assert other is not None
    assert s30.overall.unscored == {"refused": 1}
    assert s30.overall.score.n == 29
    right = sum(1 for index in range(29) if index % 4)
    assert s30.overall.score.mean == pytest.approx(100 * right / 29)
    assert s30.overall.strict_mean == pytest.approx(100 * right / 30)
    assert s30.kinds["CE"].unmapped == 5
    assert s30.classes["emotion"].wa == pytest.approx(0.75)
    assert other.kinds["C"].unscored == {"missing": 5}
    assert other.kinds["C"].strict_mean == 25
    assert s30.uas.mean == pytest.approx((s30.kinds["C"].score.mean + s30.kinds["CE"].score.mean) / 2)  # type: ignore[operator]


def test_table_compares_and_says_so() -> None:
    verdicts, pairs = small_study()
    table = build(verdicts, pairs, resamples=500)
    assert [(one.first, one.second) for one in table.contrasts] == [("S30", "S10"), ("S30", "majority answer")]
    gap = table.contrasts[0].difference
    assert gap.low is not None
    assert gap.low > 0
    sentences = verdict_sentences(table)
    assert sentences[0].startswith(f"S30 is above S10 by {gap.mean:.1f} points (95 % interval {gap.low:.1f} to {gap.high:.1f})")
    assert "the paper reports +38.41 % on other data and models" in sentences[-1]
    row = table.row("S30")
    assert row is not None
    assert row.gain_percent is not None
    assert row.gain_percent.mean is not None
    assert table.row("S10").gain_percent is None  # type: ignore[union-attr]


def test_comparisons_are_tested_and_corrected_together() -> None:
    verdicts, pairs = small_study()
    table = build(verdicts, pairs, resamples=500)
    assert all(one.flip_p is not None and one.holm_p is not None and one.fdr_p is not None for one in table.contrasts)
    assert all(one.flip_p <= one.fdr_p <= one.holm_p for one in table.contrasts)  # type: ignore[operator]
    everything = build(verdicts, pairs, contrasts="all", resamples=500)
    assert [(one.first, one.second) for one in everything.contrasts] == [
        ("S30", "S10"), ("other", "S10"), ("other", "S30"),
        ("S10", "majority answer"), ("S30", "majority answer"), ("other", "majority answer"),
    ]  # fmt: skip
    text = table.plain_text()
    assert "Paired tests (2 comparisons)" in text
    assert "Holm and BH (Benjamini-Hochberg) correct" in text.replace("\n", " ")
    (chosen,) = build(verdicts, pairs, contrasts=[("other", "S10"), ("S99", "S10")], resamples=50).contrasts
    assert chosen.first == "other"


def test_the_page_shows_groups_and_tests() -> None:
    verdicts, pairs = small_study()
    table = build(verdicts, pairs, resamples=500)
    view = study_view(table)
    assert view.by_group.columns[:4] == ("C: content", "CP: contextual", "UAS, all kinds", "all questions")
    s30 = next(row for row in view.by_group.rows if row.name == "S30")
    uas = table.row("S30").uas  # type: ignore[union-attr]
    assert s30.cells[2] == f"{uas.mean:.1f} ({uas.low:.1f}–{uas.high:.1f})"
    assert [row.name for row in view.tests.rows] == ["S30 – S10", "S30 – majority answer"]
    assert view.tests.rows[0].cells[3] == p_text(table.contrasts[0].holm_p)
    assert view.tests_note.startswith("2 comparisons. p: bootstrap over recordings")


def test_a_difference_that_many_comparisons_take_back_is_said_to_be() -> None:
    rng = np.random.default_rng(1)
    pairs = [pair(number) for number in range(40)]
    base = rng.uniform(20, 40, 40)
    noise = rng.normal(0, 10, 40)
    # Just beyond what one test finds: 2.2 standard errors.
    slightly = base + noise - noise.mean() + 2.2 * noise.std() / math.sqrt(40)
    columns = {"S10": base, "S20": base + rng.normal(0, 5, 40), "S30": slightly, "majority answer": base + rng.normal(0, 5, 40)}
    made = [verdict(one, name, float(score)) for name, column in columns.items() for one, score in zip(pairs, column, strict=True)]
    table = build(made, pairs, resamples=2000)
    gap = table.contrasts[0]
    assert gap.difference.low is not None
    assert gap.difference.low > 0
    assert gap.flip_p is not None
    assert gap.flip_p < 0.05 < gap.holm_p  # type: ignore[operator]
    said = verdict_sentences(table)
    assert said[0].endswith(f"It does not stand once all 4 comparisons are counted (p {gap.holm_p:.2f}, sign-flip test, Holm).")
    other = next(one for one in said if one.startswith("Between S20 and S10"))
    assert f"A true difference of {table.contrasts[1].detectable:.1f} points would be found in 80 % of such studies." in other


def contrast_of(first: Sequence[float], second: Sequence[float], recordings: int) -> str:
    pairs = [pair(number, recording=number % recordings) for number in range(len(first))]
    made = [verdict(one, "S30", score) for one, score in zip(pairs, first, strict=True)]
    made += [verdict(one, "S10", score) for one, score in zip(pairs, second, strict=True)]
    return verdict_sentences(build(made, pairs, resamples=500))[0]


def test_sentences_follow_the_interval() -> None:
    assert contrast_of([0, 100, 0, 100], [100, 0, 100, 0], 4).startswith(
        "Between S30 and S10 no difference can be told: +0.0 points (95 %"
    )
    assert contrast_of([0.0] * 6, [50.0] * 6, 6) == "S30 is below S10 by 50.0 points (95 % interval 50.0 to 50.0)."
    assert "too few for an interval" in contrast_of([50.0] * 3, [10.0] * 3, 1)


def test_every_kind_weighs_the_same_in_its_group_and_in_uas() -> None:
    means = {"C": 80.0, "DE": 50.0, "DG": 100.0, "CE": 20.0, "CG": 40.0, "CS": 60.0}
    counts = {"C": 9, "DE": 2, "DG": 6, "CE": 3, "CG": 3, "CS": 2}
    pairs = [pair(100 * at + one, kind) for at, kind in enumerate(means) for one in range(counts[kind])]
    (row,) = build([verdict(one, "S10", means[one.kind]) for one in pairs], pairs, resamples=50).rows
    assert {name: one.mean for name, one in row.groups.items()} == {"C": 80, "DP": 75, "CP": 40}
    assert row.uas.mean == pytest.approx(sum(means.values()) / 6)
    assert row.overall.score.mean == pytest.approx(sum(means[kind] * counts[kind] for kind in means) / 25)


def test_who_refuses_a_whole_kind_has_no_mean_over_kinds() -> None:
    pairs = [pair(number, "DE" if number % 2 else "DG") for number in range(8)]
    made = [verdict(one, "S10", 50) for one in pairs]
    made += [verdict(one, "S30", 90 if one.kind == "DE" else None) for one in pairs]
    table = build(made, pairs, resamples=50)
    row = table.row("S30")
    assert row is not None
    assert (row.uas.mean, row.uas.missing, row.groups["DP"].mean) == (None, "undefined", None)
    assert (row.overall.score.mean, row.overall.strict_mean) == (90, 45)
    assert table.row("S10").uas.mean == 50  # type: ignore[union-attr]
    # A kind that the judge could score of nobody costs nobody the mean.
    nobody = [verdict(one, "S10", 50 if one.kind == "DE" else None, unscored="no_reference") for one in pairs]
    assert build(nobody, pairs, resamples=50).rows[0].uas.mean == 50


def test_replies_and_open_questions_without_a_score_stand_apart() -> None:
    pairs = [pair(0), pair(1), pair(2, "REPLY", label=None, answer="Oh."), pair(3, "OPEN", label=None, answer="Yes.")]
    made = [verdict(one, "S10", {"CE": 100, "REPLY": 10}.get(one.kind), unscored="no_reference") for one in pairs]
    table = build(made, pairs, resamples=50)
    assert (table.kinds, table.pairs, table.apart) == (("CE",), 2, {"OPEN": 1, "REPLY": 1})
    assert (table.rows[0].overall.score.mean, table.rows[0].overall.pairs) == (100, 2)
    assert "In no score: OPEN 1, REPLY 1" in table.plain_text()
    scored = [verdict(one, "S10", 40) for one in pairs]
    table = build(scored, pairs, resamples=50)
    assert (table.kinds, table.apart) == (("CE", "OPEN"), {"REPLY": 1})


def test_spread_over_the_judges_runs() -> None:
    pairs = [pair(0), pair(1), pair(2, "C", label=None, answer="tea")]
    scores = {0: (40.0, 60.0, 80.0), 1: (60.0, 60.0, None), 2: (50.0, 90.0, None)}
    made = [verdict(one, "S10", score, run=run) for run, given in scores.items() for one, score in zip(pairs, given, strict=True)]
    (row,) = build(made, pairs, resamples=50).rows
    assert row.kinds["CE"].run_sd == pytest.approx(np.std([50, 60, 70], ddof=1))
    assert row.kinds["C"].run_sd is None
    text = build(made, pairs, resamples=50).plain_text()
    assert "Standard deviation of scores over the judge's runs" in " ".join(text.split())
    assert row.overall.run_sd == pytest.approx(np.std([60, 60, 70], ddof=1))


def test_runs_are_averaged_and_round_trip() -> None:
    pairs = [pair(0), pair(1)]
    made = [verdict(one, "S10", score, run=run) for one in pairs for run, score in enumerate((40.0, 60.0, None))]
    table = build(made, pairs, resamples=50)
    assert table.rows[0].overall.score.mean == 50
    assert table.rows[0].overall.unscored == {}
    assert table.runs == 3
    assert StudyTable.from_json(table.to_json()) == table


def test_controls_of_subjects_are_controls_and_stand_behind_the_systems() -> None:
    verdicts, pairs = small_study()
    verdicts += [verdict(one, "A words", 10) for one in pairs]
    table = build(
        verdicts, pairs, controls=("A words", "A gold oracle"), subjects=("A gold oracle",), contrasts="all", resamples=50
    )
    order = ["S10", "S30", "other", "A gold oracle", "A words", "majority answer"]
    assert [(row.subject, row.control) for row in table.rows] == [(name, place > 2) for place, name in enumerate(order)]
    assert {("other", "A words"), ("S30", "A words"), ("other", "S30")} <= {(one.first, one.second) for one in table.contrasts}
    assert [[row.name for row in group] for group in study_view(table).groups] == [order[:3], order[3:]]


def test_questions_at_fault_cost_nobody() -> None:
    pairs = [pair(0), pair(1)]
    table = build([verdict(pairs[0], "S10", 100), verdict(pairs[1], "S10", None, unscored="no_reference")], pairs, resamples=50)
    assert table.rows[0].overall.strict_mean == 100
    assert table.rows[0].overall.unscored == {"no_reference": 1}


@pytest.mark.parametrize("kinds", [("C", "DE", "DG", "CE", "CG"), ("C", "DE", "DG", "DS", "CE", "CG", "CS")])
@pytest.mark.parametrize("flags", [(), ("metadata_leak",)])
def test_text_fits_a_hundred_columns(kinds: Sequence[str], flags: tuple[str, ...]) -> None:
    labels = {"DE": "sad", "CE": "sad", "DG": "male", "CG": "male"}
    pairs = [
        pair(number, kind, label=labels.get(kind), answer="x", recording=number % 9).model_copy(
            update={"flags": flags[: number % 2]}
        )
        for number, kind in enumerate(kinds * 14)
    ]
    made = [
        verdict(one, subject, (index * 37 + len(subject) + run) % 2 * 100.0 if index % 9 else None, run=run)
        for subject in (*study_table.SYSTEMS, *study_table.CONTROLS)
        for index, one in enumerate(pairs)
        for run in range(2)
    ]
    table = build(made, pairs, resamples=200)
    text = table.plain_text()
    assert max(map(len, text.splitlines())) <= 100
    for word in (
        *study_table.SYSTEMS,
        *study_table.CONTROLS,
        *table.kinds,
        "56.75",
        "the paper's, on other data and models",
        "refused",
    ):
        assert word in text
    assert "…" not in text


def test_empty_study_does_not_crash() -> None:
    table = build([], [])
    assert table.rows == ()
    assert "0 questions" in table.plain_text()
    assert verdict_sentences(table) == []


def test_a_subject_without_any_verdict_has_a_row_of_missing() -> None:
    pairs = [pair(number, kind) for number, kind in enumerate(("C", "CE", "CE"))]
    verdicts = [verdict(one, "S10", 100.0) for one in pairs]
    assert build(verdicts, pairs, resamples=50).row("S30") is None
    table = build(verdicts, pairs, subjects=("S30", "S10"), resamples=50)
    assert [one.subject for one in table.rows] == ["S10", "S30"]
    row = table.row("S30")
    assert row is not None
    assert row.overall.unscored == {"missing": 3}
    assert row.kinds["CE"].unscored == {"missing": 2}
    assert (row.overall.score.mean, row.overall.strict_mean) == (None, 0.0)
    assert "S30 and S10 cannot be compared: no question has a score of both." in verdict_sentences(table)
    assert "S30" in table.plain_text()
    assert StudyTable.from_json(table.to_json()) == table


def test_verdicts_of_another_benchmark_are_refused() -> None:
    with pytest.raises(DataError, match="not in the benchmark"):
        build([verdict(pair(1), "S10", 0)], [pair(2)])
    with pytest.raises(DataError, match="2 pairs but only 1"):
        build([], [pair(1), pair(1)])
    mixed = [verdict(pair(1), "S10", 0), verdict(pair(1), "S10", 0, judge="llm")]
    with pytest.raises(ConfigError, match="by llm, reference"):
        build(mixed, [pair(1)])
    assert build(mixed, [pair(1)], judge="llm").judge == "llm"


# ---- around it -----------------------------------------------------------------------------------------------------------------


def segment(
    recording: str, start: int, end: int, *, emotion: str | None, gender: str | None, who: str | None, labeller: str = "human"
) -> Segment:
    values = {"emotion": emotion, "gender": gender}
    labels = tuple(
        Label(attribute=name, category=value, start_ms=start, end_ms=end, labeller=labeller)
        for name, value in values.items()
        if value
    )
    return Segment(recording_id=recording, start_ms=start, end_ms=end, speaker=who, labels=labels)


def test_describe_gives_blind_scores() -> None:
    pairs = [
        pair(0, label="sad"),
        pair(1, label="sad"),
        pair(2, label="happy", recording=0),
        pair(3, "C", label=None, answer="tea"),
    ]
    found = describe(pairs)
    assert found["CE"].labels == {"happy": 1, "sad": 2}
    assert (found["CE"].pairs, found["CE"].recordings) == (3, 2)
    assert found["CE"].chance == 50
    assert found["CE"].majority == pytest.approx(200 / 3)
    assert (found["C"].labelled, found["C"].chance, found["C"].majority) == (0, None, None)


def test_leakage_compares_with_what_fills_the_clip() -> None:
    key = f"{0:016d}"
    clip = Clip(
        recording_id=key,
        uri="x.wav",
        source="demo",
        start_ms=0,
        end_ms=5000,
        segments=(
            segment(key, 0, 1000, emotion="happy", gender=None, who=None),
            segment(key, 1000, 4000, emotion="sad", gender=None, who=None),
        ),
    )
    pairs = [pair(0, label="sad", recording=0), pair(1, label="happy", recording=0), pair(2, label="sad", recording=9)]
    found = leakage(pairs, [clip])["CE"]
    assert (found.compared, found.equal, found.undecided, found.share) == (2, 1, 1, 0.5)


def test_majority_answer_is_the_most_frequent_label_in_its_most_frequent_words() -> None:
    train = [pair(0, answer="Sad."), pair(1, answer="Sad."), pair(2, answer="She is sad.")]
    train += [pair(number, label="happy", answer=f"Happy {number}.") for number in (3, 4)]
    train += [pair(number, "C", label=None, answer=text) for number, text in ((5, "tea"), (6, "tea"), (7, "a bus"))]
    test = [pair(10, label="happy"), pair(11, "C", label=None, answer="rain"), pair(12, "CG", label="male")]
    found = majority_answers(train, test)
    assert [(one.subject, one.pair_id, one.text) for one in found] == [
        ("majority answer", test[0].id, "Sad."),
        ("majority answer", test[1].id, "tea"),
    ]


def test_labeller_report_by_overlap_and_by_speaker() -> None:
    sha = "0" * 64
    key = sha[:16]
    references = (
        segment(key, 0, 2000, emotion="sad", gender="female", who="demo/one"),
        segment(key, 2000, 4000, emotion="happy", gender="male", who="demo/two"),
        segment(key, 6000, 8000, emotion="angry", gender="male", who="demo/two"),
        segment(key, 8000, 9000, emotion="other", gender="male", who=None),
    )
    recording = Recording(uri="x.wav", sha256=sha, rate_hz=16000, samples=160000, source="demo", references=references)
    predicted = [
        segment(key, 0, 2500, emotion="sad", gender="female", who=None, labeller="affect@1"),
        segment(key, 2500, 4000, emotion="happy", gender="female", who=None, labeller="affect@1"),
    ]
    found = labeller_report([recording], predicted, heard=frozenset({"demo/one"}))
    assert found.labellers == ("affect@1",)
    assert (found.everything.utterances, found.everything.without_class) == (4, 1)
    assert found.everything.emotion.wa == pytest.approx(2 / 3)
    assert found.everything.emotion.unmapped == 1
    assert found.heard.emotion.wa == 1
    assert found.unheard.emotion.recall == {"angry": 0.0, "happy": 1.0}
    assert found.unheard.emotion.ua == 0.5
    assert (found.unheard.speakers, found.unheard.gender.wa) == (1, 0)
