"""The search for the thresholds of consistency: what it counts, what wins, and that it never looks at the test split."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from undertone import settings, tables
from undertone.condense.consistency import Consistency
from undertone.condense.tune import PUBLISHED, Grid, Tuning, judged_windows, read_tuning, tune
from undertone.errors import ConfigError, DataError
from undertone.execute import write_rows
from undertone.records import EMOTIONS, HUMAN, Label, Recording, Segment
from undertone.report.funnel import tuning_figure, tuning_markdown
from undertone.study import Study
from undertone.tables import Fingerprint, Table

Window = tuple[str, float | None, str]
"""Predicted emotion, predicted valence, true emotion."""


def key(number: int) -> str:
    return f"{number:016x}"


def label(attribute: str, value: str | float | None, start: int, *, by: str = "t@1", length: int = 2_000) -> Label:
    about = {"attribute": attribute, "start_ms": start, "end_ms": start + length, "labeller": by}
    return Label.model_validate(about | ({"category": value} if isinstance(value, str) else {"number": value}))


def segment(number: int, windows: list[Window]) -> Segment:
    """One segment of consecutive windows of 2 s."""
    labels = []
    for index, (emotion, valence, _) in enumerate(windows):
        labels.append(label("emotion", emotion, 2_000 * index))
        if valence is not None:
            labels.append(label("valence", valence, 2_000 * index))
    return Segment(recording_id=key(number), start_ms=0, end_ms=2_000 * len(windows), labels=tuple(labels))


def recording(number: int, windows: list[Window], *, split: str | None = "dev", speaker: str = "t/a") -> Recording:
    references = [
        Segment(
            recording_id=key(number),
            start_ms=2_000 * index,
            end_ms=2_000 * index + 2_000,
            speaker=speaker,
            labels=(label("emotion", truth, 2_000 * index, by=HUMAN),),
        )
        for index, (_, _, truth) in enumerate(windows)
    ]
    return Recording.model_validate(
        {"uri": "a.wav", "sha256": key(number) + "0" * 48, "rate_hz": 16_000, "samples": 10**6, "source": "t", "split": split}
        | {"references": tuple(references)}
    )


def written(
    folder: Path, segments: list[Segment], recordings: list[Recording], *, parts: int = 1
) -> tuple[Table[Segment], Table[Recording]]:
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(folder / "label", segments, record=Segment, fingerprint=made, parts=parts, smallest=1)
    write_rows(folder / "corpus", recordings, record=Recording, fingerprint=made, parts=parts, smallest=1)
    return tables.open_table(folder / "label", Segment), tables.open_table(folder / "corpus", Recording)


def one_of(folder: Path, windows: list[Window], **about: str) -> tuple[Table[Segment], Table[Recording]]:
    return written(folder, [segment(1, windows)], [recording(1, windows, **about)])


EASY: list[Window] = [
    *[("happy", 0.7, "happy")] * 3,
    ("happy", 0.55, "sad"),
    *[("sad", 0.2, "sad")] * 3,
    ("sad", 0.45, "happy"),
]
"""Right above 0.6 and below 0.4, wrong between."""

WIDE = Grid(positive_min=(0.4, 0.5, 0.6), negative_max=(0.3, 0.4, 0.5), least_coverage=0.0)


def test_the_point_that_drops_what_is_wrong_wins(tmp_path: Path) -> None:
    found = tune(*one_of(tmp_path, EASY), consistency=Consistency(), grid=WIDE)
    assert (found.best.positive_min, found.best.negative_max) == (0.6, 0.4)
    assert found.best.uwa == 1.0
    assert (found.best.windows, found.best.coverage) == (6, 0.75)
    assert found.unfiltered.uwa == pytest.approx(0.75)
    assert found.published.uwa == pytest.approx((1.0 + 3 / 4) / 2)
    assert found.published.error == pytest.approx((0.75 * 0.25 / 4) ** 0.5 / 2)
    assert found.published == found.now
    assert found.emotions == {"happy": 4, "sad": 4}
    assert found.settings() == ["condense.consistency.positive_min=0.6", "condense.consistency.negative_max=0.4"]
    assert "best x 0.6, y 0.4: UWA 1.000 ± 0.000 of 75% of the windows" in found.line()


def test_the_best_point_can_be_written_into_a_study(tmp_path: Path) -> None:
    found = tune(*one_of(tmp_path, EASY), consistency=Consistency(), grid=WIDE)
    content = {"corpora": [{"kind": "folder", "path": "speech"}]}
    study = settings.validated(Study, settings.override(content, found.settings()), where="t")
    assert (study.condense.consistency.positive_min, study.condense.consistency.negative_max) == (0.6, 0.4)


def test_equal_accuracies_go_to_coverage_then_to_the_published_point(tmp_path: Path) -> None:
    right: list[Window] = [("happy", 0.55, "happy"), ("happy", 0.9, "happy"), ("sad", 0.1, "sad"), ("sad", 0.1, "sad")]
    grid = Grid(positive_min=(0.45, 0.5, 0.55, 0.6), negative_max=(0.3, 0.4, 0.45), least_coverage=0.0)
    found = tune(*one_of(tmp_path, right), consistency=Consistency(), grid=grid)
    assert {one.uwa for one in found.points} == {1.0}
    assert (found.best.positive_min, found.best.negative_max) == PUBLISHED
    assert found.best.coverage == 1.0


def test_a_point_needs_coverage_and_some_window_of_every_emotion(tmp_path: Path) -> None:
    windows: list[Window] = [
        *[("happy", 0.55, "happy")] * 2,
        *[("happy", 0.55, "sad")] * 4,
        ("sad", 0.1, "sad"),
        ("happy", 0.9, "happy"),
    ]
    grid = Grid(positive_min=(0.5, 0.6), negative_max=(0.4,), least_coverage=0.0)
    label_, corpus = one_of(tmp_path, windows)
    assert tune(label_, corpus, consistency=Consistency(), grid=grid).best.positive_min == 0.6
    strict = grid.model_copy(update={"least_coverage": 0.5})
    assert tune(label_, corpus, consistency=Consistency(), grid=strict).best.positive_min == 0.5
    gone = Grid(positive_min=(0.95,), negative_max=(0.4,), least_coverage=0.0)
    with pytest.raises(ConfigError, match="none of 1 points leaves 0% of 8 windows and some of every emotion"):
        tune(label_, corpus, consistency=Consistency(), grid=gone)


def test_a_lost_emotion_has_no_accuracy_rather_than_a_good_one(tmp_path: Path) -> None:
    grid = Grid(positive_min=(0.5, 0.95), negative_max=(0.4,), least_coverage=0.0)
    found = tune(*one_of(tmp_path, [("happy", 0.9, "happy"), ("sad", 0.1, "sad")]), consistency=Consistency(), grid=grid)
    assert [one.uwa for one in found.points] == [1.0, None]
    assert found.points[1].recall == {"sad": 1.0}


def test_every_point_leaves_what_the_filter_leaves(tmp_path: Path) -> None:
    rng = random.Random(4)
    windows: list[Window] = [
        (
            rng.choice(EMOTIONS),
            rng.choice([None, *(round(0.05 * step, 2) for step in range(21))]),
            rng.choice(["happy", "sad", "neutral"]),
        )
        for _ in range(120)
    ]
    base = Consistency(neutral_slack=0.05, surprised="positive")
    found = tune(*one_of(tmp_path, windows), consistency=base, grid=Grid(least_coverage=0.0))
    assert len(found.points) == len(Grid().points()) == 66
    for point in found.points[::7]:
        rule = base.model_copy(update={"positive_min": point.positive_min, "negative_max": point.negative_max})
        (outcome,) = rule.process([segment(1, windows)])
        left = outcome.rows[0].of("emotion")  # type: ignore[union-attr]
        assert point.windows == len(left)
        truth = {2_000 * index: one[2] for index, one in enumerate(windows)}
        recall = {}
        for name in found.emotions:
            asked = [one.category == name for one in left if truth[one.start_ms] == name]
            recall[name] = sum(asked) / len(asked)
        assert point.recall == pytest.approx(recall)
    assert found.without_valence == sum(one[1] is None for one in windows)


def test_the_test_split_is_never_looked_at(tmp_path: Path) -> None:
    wrong: list[Window] = [("happy", 0.9, "sad"), ("sad", 0.1, "happy")] * 5
    splits = [("dev", EASY), ("test", wrong), (None, wrong)]
    segments = [segment(number, windows) for number, (_, windows) in enumerate(splits)]
    recordings = [recording(number, windows, split=split) for number, (split, windows) in enumerate(splits)]
    found = tune(*written(tmp_path, segments, recordings, parts=3), consistency=Consistency(), grid=WIDE)
    assert found.unfiltered.windows == len(EASY)
    alone = tune(*one_of(tmp_path / "alone", EASY), consistency=Consistency(), grid=WIDE)
    assert found == alone


def test_the_test_split_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="Input should be 'train' or 'dev'"):
        Grid.model_validate({"splits": ["train", "test"]})
    with pytest.raises(ConfigError, match="tuned on split train and dev only; got 'test'"):
        judged_windows(*one_of(tmp_path, EASY), splits=["test"])  # type: ignore[list-item]


def test_without_human_labels_the_message_says_what_to_do(tmp_path: Path) -> None:
    label_, corpus = written(tmp_path, [segment(1, EASY)], [recording(1, EASY, split="test")])
    with pytest.raises(ConfigError, match=r"nothing to tune on: no window of split train or dev .* Add a human-labelled corpus"):
        tune(label_, corpus, consistency=Consistency())


def test_the_truth_is_what_overlaps_a_window_longest_and_names_an_emotion(tmp_path: Path) -> None:
    row = recording(1, [])
    spans = [(0, 900, "sad"), (900, 2_000, "happy"), (2_500, 3_500, "other"), (4_000, 5_000, "sad"), (5_000, 6_000, "happy")]
    references = tuple(
        Segment(recording_id=key(1), start_ms=a, end_ms=b, labels=(label("emotion", truth, a, by=HUMAN, length=b - a),))
        for a, b, truth in spans
    )
    windows: list[Window] = [("happy", 0.9, ""), ("happy", 0.9, ""), ("sad", 0.1, ""), ("sad", 0.1, "")]
    tables_ = written(tmp_path, [segment(1, windows)], [row.model_copy(update={"references": references})])
    frame, without = judged_windows(*tables_, splits=["dev"])
    assert frame.select("start_ms", "truth").rows() == [(0, "happy"), (4_000, "sad")]
    assert without == 2


def test_windows_of_heard_speakers_are_counted(tmp_path: Path) -> None:
    pair = one_of(tmp_path, EASY, speaker="t/b")
    assert tune(*pair, consistency=Consistency(), grid=WIDE, heard=frozenset({"t/b"})).heard_windows == len(EASY)
    assert tune(*pair, consistency=Consistency(), grid=WIDE, heard=frozenset({"t/c"})).heard_windows == 0


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"positive_min": [1.2]}, "positive_min: got 1.2, expected valences from 0 to 1"),
        ({"positive_min": [0.2], "negative_max": [0.4]}, "have no point with negative_max <= positive_min"),
        ({"least_coverage": 2}, "less than or equal to 1"),
    ],
)
def test_a_grid_that_cannot_be_searched_says_why(grid: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Grid.model_validate(grid)


def test_the_search_is_read_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    found = tune(*one_of(tmp_path, EASY), consistency=Consistency(), grid=WIDE)
    file = tmp_path / "tune.json"
    assert read_tuning(file) is None
    file.write_text(found.model_dump_json(indent=1))
    assert read_tuning(file) == found
    file.write_text("{}")
    with pytest.raises(DataError, match=r"(?s)tune\.json is damaged: .* undertone condense .* --tune"):
        read_tuning(file)


def test_the_heat_map_shows_every_point_and_frames_the_best(tmp_path: Path) -> None:
    found = tune(*one_of(tmp_path, EASY), consistency=Consistency(), grid=WIDE)
    drawn = tuning_figure(found)
    assert drawn.startswith("<svg")
    assert drawn.count("%</text>") == len(found.points) == 8
    assert "100.0</text>" in drawn
    assert drawn.count("stroke-dasharray") >= 1
    assert "#" not in drawn.replace("url(#", "").replace('href="#', "").replace("&#", "")
    table = tuning_markdown(found)
    assert "| best | 0.6 | 0.4 | 100.0 ± 0.0 | 75% | 100.0 | 100.0 |" in table
    assert "| no filter |  |  | 75.0 ± 15.3 | 100% | 75.0 | 75.0 |" in table


def test_a_search_depends_neither_on_order_nor_on_parts(tmp_path: Path) -> None:
    rng = random.Random(1)
    runs: list[list[Window]] = [
        [(rng.choice(["happy", "sad", "angry"]), rng.random(), rng.choice(["happy", "sad", "angry"])) for _ in range(6)]
        for _ in range(9)
    ]
    found: list[Tuning] = []
    for name, order, parts in (("a", range(9), 1), ("b", rng.sample(range(9), 9), 4)):
        pair = written(tmp_path / name, [segment(n, runs[n]) for n in order], [recording(n, runs[n]) for n in order], parts=parts)
        found.append(tune(*pair, consistency=Consistency(), grid=Grid(least_coverage=0.0)))
    assert found[0] == found[1]
