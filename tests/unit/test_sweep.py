"""The quality sweep: which arms, how good shown labels are, what they are worth, and the plot; with readers whose curve is known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.unit.test_shown import World, label
from undertone.errors import ConfigError, DataError
from undertone.evaluate import sweep as sweeping
from undertone.evaluate.judges import Item, ReferenceJudge
from undertone.evaluate.sweep import Arm, LabelQuality, Sweep, SweepTable, build, label_quality, quality_of
from undertone.evaluate.sweep_text import plain_text, sentences
from undertone.metadata import MetadataConfig
from undertone.model.examples import SYSTEMS, System, build_examples
from undertone.model.shown import Shown, ShownLabels
from undertone.records import Answer, Clip, Example, QAPair, Segment, Verdict
from undertone.report.sweep import draw, write_page

CONFIG = MetadataConfig()
Reader = Callable[[Example, Arm], str]


def copier(example: Example, arm: Arm) -> str:
    """Says what fills most of the prompt's labels, and "sad" where there are none."""
    spans = re.findall(r"\[([\d.]+)-([\d.]+) s\] (\w+)", example.metadata or "")
    held = Counter[str]()
    for start, end, name in spans:
        held[name] += round(1000 * (float(end) - float(start)))
    return f"They sound {max(sorted(held), key=lambda name: held[name]) if held else 'sad'}."


def deaf_to_labels(example: Example, arm: Arm) -> str:
    """Says "sad", whatever the labels."""
    return "They sound sad."


class Asked(World):
    """One question about each clip, of which the first window is the one that is asked about."""

    def __init__(self, count: int = 60) -> None:
        super().__init__(count)
        self.clips = {f"{clip.recording_id}@0-2000": clip.model_copy(update={"end_ms": 2_000}) for clip in self.clips.values()}
        self.pairs = [self._pair(clip, number) for number, clip in enumerate(self.clips.values())]

    def _pair(self, clip: Clip, number: int) -> QAPair:
        truth = clip.segments[0].of("emotion")[0].category
        return QAPair.model_validate(
            {"clip_id": clip.id, "recording_id": clip.recording_id, "source": "benchmark", "kind": "DE", "generator": "toy@1"}
            | {"split": "test", "question": f"How do they sound, {number}?", "answer": f"They sound {truth}."}
            | {"label_attribute": "emotion", "label": truth, "flags": ("metadata_leak",) if number % 4 == 0 else ()}
        )

    def swept(self, plan: Sweep, reader: Reader, systems: Sequence[System] = SYSTEMS, *, seed: int = 1) -> SweepTable:
        arms = plan.arms(systems)
        verdicts: list[Verdict] = []
        qualities: dict[str, LabelQuality | None] = {}
        by_pair = {pair.id: pair for pair in self.pairs}
        for arm in {one.subject: one for one in arms}.values():
            shown = build_examples(
                self.pairs, self.clips, self.predicted, arm.system, phase="inference", human=self.human, seed=seed
            )
            for one in shown:
                text = reader(one, arm)
                answer = Answer(subject=one.arm, pair_id=one.pair_id, text=text, raw=text)
                verdicts.append(ReferenceJudge().score(Item(pair=by_pair[one.pair_id], answer=answer)))
            qualities[arm.subject] = quality_of(
                arm.system, self.pairs, self.clips, self.predicted, self.human, config=CONFIG, attribute="emotion", seed=seed
            )
        return build(arms, verdicts, self.pairs, qualities, attribute="emotion", resamples=300, seed=seed)


ASKED = Asked()


def at(table: SweepTable, subject: str) -> tuple[float | None, float | None]:
    """Accuracy of the shown labels in per cent, and the score."""
    one = next(point for point in table.points if point.subject == subject)
    return (None if one.labels is None or one.labels.accuracy is None else 100 * one.labels.accuracy), one.panels[
        "overall"
    ].score.mean


# ---- arms -----------------------------------------------------------------------------------------------------------------------


def test_the_papers_systems_are_swept_with_their_own_weights_and_compared_with_the_one_without_labels() -> None:
    plan = Sweep(noise=(0.5,), oracle_noise=(0.4,), partial=(0.25,))
    arms = plan.arms(SYSTEMS)
    assert [(one.curve, one.subject) for one in arms] == [
        ("S31", "S30 none"),
        ("S31", "S31 oracle"),
        ("S31", "S31 oracle noise 0.4"),
        ("S31", "S31 predicted"),
        ("S31", "S31 noise 0.5"),
        ("S31", "S31 partial 0.25"),
        ("S31", "S31 shuffled"),
        ("S32", "S30 none"),
        ("S32", "S32 none"),
        ("S32", "S32 oracle"),
        ("S32", "S32 oracle noise 0.4"),
        ("S32", "S32 predicted"),
        ("S32", "S32 noise 0.5"),
        ("S32", "S32 partial 0.25"),
        ("S32", "S32 shuffled"),
    ]
    assert {one.system.weights_of for one in arms if one.curve == "S31"} == {"S30"}
    assert {one.system.weights_of for one in arms if one.curve == "S32"} == {"S30", "S32"}
    assert {one.baseline for one in arms} == {"S30 none"}
    assert all(("oracle" in one.subject) == one.system.oracle for one in arms)


def test_anew_trains_one_system_for_each_kind_of_labels_that_has_none_yet() -> None:
    s32 = next(one for one in SYSTEMS if one.name == "S32")
    arms = Sweep(systems=("S32",), noise=(0.5,), oracle_noise=(), partial=()).arms(SYSTEMS, anew=True)
    anew = [one for one in arms if one.curve == "S32 anew"]
    assert [(one.subject, one.system.weights_of) for one in anew] == [
        ("S30 none", "S30"),
        ("S32 anew oracle", None),
        ("S32 predicted", "S32"),
        ("S32 anew noise 0.5", None),
        ("S32 anew shuffled", None),
    ]
    trained = [one.system for one in anew if one.system.weights_of is None]
    assert {one.metadata for one in trained} == {"train_and_inference"}
    assert {one.data for one in trained} == {s32.data}
    dropping = s32.model_copy(update={"name": "S33", "labels": ShownLabels(dropout=0.3)})
    again = Sweep(systems=("S33",), noise=(), oracle_noise=(), partial=()).arms([*SYSTEMS, dropping], anew=True)
    assert {one.subject: one.system.labels.dropout for one in again if one.curve == "S33 anew"} == {
        "S30 none": 0.0, "S33 anew oracle": 0.3, "S33 predicted": 0.0, "S33 anew shuffled": 0.3
    }  # fmt: skip
    assert all(one.curve == "S30" for one in Sweep(systems=("S30",)).arms(SYSTEMS))


def test_anew_trains_as_the_system_is_trained_and_compares_with_one_that_was_too() -> None:
    own = {"model": {"adapter": {"kind": "conv"}}, "train": {"align": {"steps": 0}}}
    plain, same = (System(name=name, data=("asr",), **more) for name, more in (("plain", {}), ("conv plain", own)))  # type: ignore[arg-type]
    shown = System(name="conv", data=("asr",), metadata="train_and_inference", **own)
    arms = Sweep(systems=("conv",), noise=(0.5,), oracle_noise=(), partial=()).arms([plain, same, shown], anew=True)
    assert {one.baseline for one in arms} == {"conv plain none"}
    for one in arms:
        trained = one.system.weights_of is None
        assert (one.system.model, one.system.train) == ((own["model"], own["train"]) if trained else ({}, {}))
    assert any(one.system.weights_of is None for one in arms)


def test_an_arm_of_two_curves_is_asked_once_and_stands_in_both() -> None:
    arms = Sweep(systems=("S32",), noise=(0.5,), oracle_noise=(), partial=()).arms(SYSTEMS, anew=True)
    shared = {one.subject for one in arms if one.curve == "S32"} & {one.subject for one in arms if one.curve == "S32 anew"}
    assert shared == {"S30 none", "S32 predicted"}
    asked = sweeping.unique(arms)
    assert len(asked) == len(arms) - 2
    content = [one.model_dump_json(exclude={"name"}) for one in asked]
    assert len(set(content)) == len(content)  # no two that differ in their name only


def test_what_cannot_be_swept_is_refused_with_what_can() -> None:
    with pytest.raises(
        ConfigError, match=r"S99, words only cannot be swept; expected some of S10, S20, S30, S31, S32, metadata only"
    ):
        Sweep(systems=("words only", "S99")).arms(SYSTEMS)
    with pytest.raises(ConfigError, match="no system of the study shows labels when it is asked; name one for the sweep"):
        Sweep().arms(SYSTEMS[:3])
    with pytest.raises(ConfigError, match="--anew: of S31 none trains with labels"):
        Sweep(systems=("S31",)).arms(SYSTEMS, anew=True)
    with pytest.raises(ValidationError, match="partial"):
        Sweep(partial=(1.0,))


# ---- quality --------------------------------------------------------------------------------------------------------------------


def measured(predicted: Sequence[Segment], human: Sequence[Segment]) -> LabelQuality:
    clip = Clip(recording_id="r", uri="", source="toy", start_ms=1_000, end_ms=9_000, segments=tuple(human))
    shown = Shown(ShownLabels(), [clip], predicted={"r": predicted}, config=CONFIG, seed=1)
    return label_quality(shown, [clip, clip], {"r": human}, attribute="emotion")


def test_quality_is_time_that_is_right_of_time_that_is_labelled() -> None:
    said = [
        Segment(
            recording_id="r",
            start_ms=0,
            end_ms=9_000,
            labels=(label("sad", 0, 5_000, "human"), label("happy", 5_000, 9_000, "human")),
        )
    ]
    guess = [Segment(recording_id="r", start_ms=0, end_ms=9_000, labels=(label("sad", 0, 6_000), label("angry", 8_000, 9_000)))]
    found = measured(guess, said)
    # From 1 s on: right 4 s; sad for happy 1 s; angry for happy 1 s; 2 s of happy without a label.
    assert (found.accuracy, found.coverage, found.human_ms, found.clips) == (4 / 6, 6 / 8, 8_000, 1)


def test_contradicting_labels_cost_accuracy_and_cover_their_time_once() -> None:
    said = [Segment(recording_id="r", start_ms=0, end_ms=9_000, labels=(label("sad", 1_000, 9_000, "human"),))]
    guess = [Segment(recording_id="r", start_ms=0, end_ms=9_000, labels=(label("sad", 1_000, 9_000), label("happy", 1_000, 5_000)))]
    found = measured(guess, said)
    assert (found.accuracy, found.coverage) == (8 / 12, 1.0)


def test_time_whose_truth_is_no_class_does_not_count() -> None:
    said = [
        Segment(
            recording_id="r",
            start_ms=0,
            end_ms=9_000,
            labels=(label("other", 0, 5_000, "human"), label("sad", 5_000, 9_000, "human")),
        )
    ]
    guess = [Segment(recording_id="r", start_ms=0, end_ms=9_000, labels=(label("sad", 0, 9_000),))]
    assert measured(guess, said) == LabelQuality(accuracy=1.0, coverage=1.0, human_ms=4_000, clips=1)
    assert measured([], said) == LabelQuality(accuracy=None, coverage=0.0, human_ms=4_000, clips=1)
    with pytest.raises(DataError, match="no recording of these clips has a human emotion"):
        measured(guess, [Segment(recording_id="r", start_ms=0, end_ms=9_000)])


def test_an_attribute_that_is_not_in_the_prompts_has_no_quality() -> None:
    arm = Sweep().arms(SYSTEMS)[1].system
    with pytest.raises(ConfigError, match=r"'gender' is not in model.metadata.attributes \['emotion'\]"):
        quality_of(arm, ASKED.pairs, ASKED.clips, ASKED.predicted, ASKED.human, config=CONFIG, attribute="gender", seed=1)


# ---- the sweep ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copied() -> SweepTable:
    return ASKED.swept(Sweep(systems=("S32",), noise=(0.5,), partial=(0.5,)), copier)


def test_who_copies_the_labels_scores_what_they_are_worth(copied: SweepTable) -> None:
    assert at(copied, "S32 oracle") == (100.0, 100.0)
    for subject in [one.subject for one in copied.points if one.family in sweeping.WHOLE_FAMILIES]:
        accuracy, score = at(copied, subject)
        assert score == pytest.approx(accuracy)  # one window, one question: right where the label is
    quality = [at(copied, f"S32 oracle{noise}")[0] or 0.0 for noise in ("", " noise 0.2", " noise 0.4", " noise 0.6", " noise 0.8")]
    assert quality == sorted(quality, reverse=True)
    assert quality[0] - quality[-1] > 60
    assert at(copied, "S30 none")[0] is None
    partial = next(one.labels for one in copied.points if one.family == "partial")
    assert partial is not None
    assert 0.3 < partial.coverage < 0.7


def test_gains_are_over_the_system_without_labels_and_the_sentences_go_by_their_intervals(copied: SweepTable) -> None:
    none, best = (next(one for one in copied.points if one.subject == name) for name in ("S30 none", "S32 oracle"))
    assert none.panels["overall"].gain is None
    gain = best.panels["overall"].gain
    assert gain is not None
    assert gain.mean == pytest.approx(100 - (none.panels["overall"].score.mean or 0))
    assert (gain.low or 0) > 0
    said = [one for one in sentences(copied) if one.startswith("S32, overall: ")]
    assert len(said) == 2
    assert "S32, overall: the labeller's labels (emotion 0 % right) harm: -" in said[0]
    helps = re.search(r"labels help from (\d+) % right on; next below, at (\d+) % right, they (make no difference|harm)", said[1])
    assert helps is not None
    assert int(helps[1]) > int(helps[2])


def test_who_does_not_read_labels_gains_by_none() -> None:
    table = ASKED.swept(Sweep(systems=("S32",), noise=(0.5,), partial=()), deaf_to_labels)
    assert {one.panels["overall"].gain.mean for one in table.points if one.panels["overall"].gain} == {0.0}
    assert any(
        "no gain can be told at any quality; the best labels (100 % right) make no difference that can be told: +0.0" in one
        for one in sentences(table)
    )


def test_where_worse_labels_help_and_the_best_do_not_no_quality_is_said_to_suffice(copied: SweepTable) -> None:
    none = next(one.panels for one in copied.points if one.subject == "S32 none")
    points = [one.model_copy(update={"panels": none}) if one.subject == "S32 oracle" else one for one in copied.points]
    said = [one for one in sentences(copied.model_copy(update={"points": tuple(points)})) if one.startswith("S32, overall: ")]
    assert "it is not the better labels that help: those that are" in said[1]
    assert "but the best (100 % right) harm" in said[1] or "but the best (100 % right) make no difference" in said[1]
    assert "no gain can be told" not in said[1]


def test_flagged_questions_stand_apart_and_every_question_is_counted(copied: SweepTable) -> None:
    assert copied.panels == {"overall": 60, "unflagged": 45, "DE": 60}
    for one in copied.points:
        for name, count in copied.panels.items():
            assert one.panels[name].score.n + one.panels[name].unscored == count


def test_unscored_answers_enter_no_mean() -> None:
    table = ASKED.swept(
        Sweep(systems=("S32",), noise=(), oracle_noise=(), partial=()), lambda one, arm: "" if arm.family == "oracle" else "Sad."
    )
    panel = next(one.panels["overall"] for one in table.points if one.family == "oracle")
    assert (panel.score.mean, panel.score.n, panel.unscored) == (None, 0, 60)
    assert "no score" in plain_text(table)
    assert "S32 oracle: 60 of 60 answers have no score and enter no mean" in plain_text(table).splitlines()
    assert "S32 oracle: its gain is of the 0 of 60 questions on which S30 none has a score too" in plain_text(table).splitlines()


def test_a_gain_says_on_how_many_questions_it_rests(tmp_path: Path) -> None:
    """One system answers half of the questions, so that its gain is of that half."""
    plan = Sweep(systems=("S32",), noise=(), oracle_noise=(), partial=())
    table = ASKED.swept(plan, lambda one, arm: "" if arm.family == "oracle" and one.pair_id < "8" else copier(one, arm))
    oracle = next(one for one in table.points if one.family == "oracle").panels["overall"]
    assert oracle.gain is not None
    assert 0 < oracle.gain.n == oracle.score.n < 60
    text = plain_text(table).splitlines()
    assert f"S32 oracle: its gain is of the {oracle.gain.n} of 60 questions on which S30 none has a score too" in text
    assert any("points over S30 none, 95 % interval" in one and one.endswith(", on 60 questions.") for one in text)
    assert f"gain on {oracle.gain.n} questions" in write_page(table, tmp_path, name="toy").read_text()


def test_the_same_sweep_gives_the_same_table_and_it_survives_its_file(copied: SweepTable) -> None:
    again = ASKED.swept(Sweep(systems=("S32",), noise=(0.5,), partial=(0.5,)), copier)
    assert again == copied
    assert SweepTable.from_json(copied.to_json()) == copied
    assert ASKED.swept(Sweep(systems=("S32",), noise=(0.5,), partial=(0.5,)), copier, seed=2) != copied


def test_verdicts_of_another_run_or_of_two_judges_are_refused() -> None:
    arms = Sweep().arms(SYSTEMS)
    stray = Verdict(judge="a", subject="S30 none", pair_id="gone", score=1.0)
    with pytest.raises(DataError, match="is about pair gone, which is not in the benchmark"):
        build(arms, [stray], ASKED.pairs, {}, attribute="emotion")
    two = [stray.model_copy(update={"judge": name, "pair_id": ASKED.pairs[0].id}) for name in ("a", "b")]
    with pytest.raises(DataError, match="the verdicts are by a, b"):
        build(arms, two, ASKED.pairs, {}, attribute="emotion")


# ---- shown ----------------------------------------------------------------------------------------------------------------------


def test_oracles_are_marked_in_the_terminals_table(copied: SweepTable) -> None:
    lines = plain_text(copied).splitlines()
    marked = [line.split("  ")[0] for line in lines if line.startswith("* S")]
    assert len(marked) == 5
    assert all("oracle" in one for one in marked)
    assert "* shown human labels: an upper bound, no system" in lines


def test_the_page_has_the_plot_all_points_and_marks_oracles(copied: SweepTable, tmp_path: Path) -> None:
    page = write_page(copied, tmp_path, name="<toy>")
    text = page.read_text()
    for one in copied.points:
        assert f">{one.subject}<" in text
    assert text.count("human labels: a bound, no system") == 5
    assert "&lt;toy&gt;" in text
    assert "<toy>" not in text
    svg = draw(copied)
    assert svg in text
    assert "#0b" not in svg  # every colour is a variable of the page
    for said in ("shown emotion labels that are right, %", "S32: overall", "labels of another recording", "no system has them"):
        assert said in svg
    assert write_page(copied, tmp_path, name="<toy>").read_text() == text


def test_points_of_one_place_with_other_intervals_are_drawn(copied: SweepTable) -> None:
    one = next(point for point in copied.points if point.family == "noise")
    panels = {
        name: panel.model_copy(update={"score": panel.score.model_copy(update={"n": panel.score.n + 1})})
        for name, panel in one.panels.items()
    }
    twice = copied.model_copy(update={"points": (*copied.points, one.model_copy(update={"panels": panels}))})
    assert draw(twice).count("<use") > draw(copied).count("<use")


def test_the_plot_of_two_curves_has_a_row_for_each_and_needs_no_interval() -> None:
    few = Asked(2)
    few.pairs = few.pairs[:1]  # one recording: scores without intervals
    few.pairs[0] = few.pairs[0].model_copy(update={"flags": ()})
    plan = Sweep(noise=(), oracle_noise=(), partial=(), shuffled=False)
    table = few.swept(plan, copier)
    svg = draw(table)
    assert "S31: overall" in svg
    assert "S32: DE" in svg
    assert any("points over S30 none, on 1 question." in one for one in sentences(table))
