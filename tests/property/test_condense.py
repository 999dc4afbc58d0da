"""Condensation: every filter is order- and shard-independent, idempotent, and does what the paper says.

`CutClips` is no filter: it makes clips of consecutive segments, so all segments of a recording must be in one part (the tables of the path
are), and its output cannot be its input.
"""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.property.strategies import clips, timelines
from undertone import tables
from undertone.condense.balance import Balance
from undertone.condense.clips import ClipRule, CutClips, CutReferences
from undertone.condense.consistency import SIGN_OF, Consistency
from undertone.condense.duplicates import Duplicates
from undertone.condense.language import Language
from undertone.condense.occurrence import Occurrence
from undertone.condense.quality import Quality
from undertone.errors import DataError
from undertone.execute import run_stage, write_rows
from undertone.label.fingerprint import SIZE
from undertone.records import EMOTIONS, Clip, Label, Loss, Recording, Segment, Word, category_shares, to_arrow
from undertone.stages import ColumnStage, Dropped, Kept, checked_fates
from undertone.tables import Fingerprint


def emotion_shares(clip: Clip) -> dict[str, float]:
    return category_shares(clip.segments, "emotion")


def dominant_emotion(clip: Clip) -> str | None:
    shares = emotion_shares(clip)
    return max(sorted(shares), key=lambda name: shares[name]) if shares else None


def one(emotion: str, valence: float | None, *, start: int = 0, end: int = 2_000) -> Segment:
    about = {"start_ms": start, "end_ms": end, "labeller": "x@1"}
    labels = [Label(attribute="emotion", category=emotion, **about)]
    if valence is not None:
        labels.append(Label(attribute="valence", number=valence, **about))
    return Segment(recording_id="r0", start_ms=start, end_ms=end, labels=tuple(labels))


@pytest.mark.parametrize(
    ("emotion", "valence", "kept"),
    [
        ("happy", 0.5, True),
        ("happy", 0.49, False),
        ("sad", 0.4, True),
        ("sad", 0.41, False),
        ("angry", 0.9, False),
        ("disgusted", 0.1, True),
        ("fearful", 0.6, False),
        ("neutral", 0.45, True),
        ("neutral", 0.9, False),
        ("neutral", 0.1, False),
        ("surprised", 0.9, True),
        ("surprised", 0.1, True),
        ("sad", None, True),
    ],
)
def test_consistency_is_the_papers_rule(emotion: str, valence: float | None, kept: bool) -> None:
    outcome = Consistency().process([one(emotion, valence)])[0]
    assert isinstance(outcome, Kept) == kept


def test_every_emotion_has_a_sign() -> None:
    assert set(SIGN_OF) | {"surprised", "other", "unknown"} == set(EMOTIONS)


def test_a_contradicted_window_loses_its_emotion_and_says_why() -> None:
    labels = (*one("sad", 0.9).labels, *one("happy", 0.8, start=2_000, end=4_000).labels)
    outcome = Consistency().process([one("sad", 0.9).model_copy(update={"end_ms": 4_000, "labels": labels})])[0]
    assert isinstance(outcome, Kept)
    kept = outcome.rows[0]
    assert kept.category("emotion") == "happy"
    assert [label.reason for label in kept.labels if label.attribute == "emotion"] == ["inconsistent", None]


def test_a_segment_without_emotion_is_dropped_by_name() -> None:
    bare = Segment(recording_id="r0", start_ms=0, end_ms=10)
    assert Consistency().process([bare]) == [Dropped("no_emotion", "every labeller abstained")]


@pytest.mark.parametrize("emotion", ["surprised", "other", "unknown"])
def test_the_sign_of_the_doubtful_emotions_is_configured(emotion: str) -> None:
    row = one(emotion, 0.2)
    assert isinstance(Consistency().process([row])[0], Kept)
    rule = Consistency.model_validate({emotion: "positive"})
    assert rule.process([row]) == [Dropped("inconsistent", f"{emotion} at valence 0.2")]
    assert isinstance(rule.process([one(emotion, 0.7)])[0], Kept)


@st.composite
def spoken(draw: st.DrawFn) -> Segment:
    """A segment with labels of two labellers on windows that may overlap, and words that inherit them."""
    start = draw(st.integers(0, 5_000))
    made, words = [], []
    for _ in range(draw(st.integers(0, 7))):
        begin = start + 500 * draw(st.integers(0, 6))
        attribute = draw(st.sampled_from(["emotion", "emotion", "valence", "valence", "arousal", "gender", "event"]))
        about = {
            "attribute": attribute,
            "start_ms": begin,
            "end_ms": begin + 500 * draw(st.integers(1, 3)),
            "labeller": draw(st.sampled_from(["a@1", "b@1"])),
            "distribution": draw(st.none() | st.just({"sad": 0.3, "happy": 0.7})),
        }
        if draw(st.integers(0, 4)) == 0:
            made.append(Label(reason="too_short", **about))
        elif attribute in ("valence", "arousal"):
            made.append(Label(number=draw(st.sampled_from([0.0, 0.3, 0.4, 0.45, 0.5, 0.6, 1.0])), **about))
        else:
            made.append(Label(category=draw(st.sampled_from(EMOTIONS)), **about))
    for _ in range(draw(st.integers(0, 4))):
        begin = start + 250 * draw(st.integers(0, 18))
        words.append(Word(text="w", start_ms=begin, end_ms=begin + 250 * draw(st.integers(0, 3))))
    bare = Segment(recording_id=draw(st.sampled_from(["r0", "r1"])), start_ms=start, end_ms=start + 4_500, words=tuple(words))
    return bare.with_labels(made)


def consistent(rule: Consistency, segment: Segment) -> Segment | str:
    """The rule for one record, as the paper's method reads: what the segment becomes, or why it goes."""
    emotions = segment.of("emotion")
    valence = {(label.start_ms, label.end_ms): label.number for label in segment.of("valence")}
    wrong = []
    for label in emotions:
        value = valence.get((label.start_ms, label.end_ms))
        sign = SIGN_OF.get(label.category or "", "any")
        agrees = {
            "positive": lambda v: v >= rule.positive_min,
            "negative": lambda v: v <= rule.negative_max,
            "neutral": lambda v: rule.negative_max - rule.neutral_slack < v < rule.positive_min + rule.neutral_slack,
            "any": lambda v: True,
        }[sign]
        if value is not None and not agrees(value):
            wrong.append(id(label))
    if len(wrong) == len(emotions):
        return "inconsistent" if emotions else "no_emotion"
    withdrawn = {"category": None, "reason": "inconsistent"}
    return segment.with_labels(one.model_copy(update=withdrawn) if id(one) in wrong else one for one in segment.labels)


@given(st.lists(spoken(), max_size=6))
@settings(max_examples=200)
def test_consistency_by_columns_is_the_rule_for_records(rows: list[Segment]) -> None:
    rule = Consistency()
    for outcome, row in zip(rule.process(rows), rows, strict=True):
        expected = consistent(rule, row)
        if isinstance(outcome, Dropped):
            assert outcome.reason == expected
        else:
            assert isinstance(outcome, Kept)
            assert outcome.rows == (expected,)


@given(st.lists(spoken(), max_size=6))
def test_consistency_is_idempotent(run: list[Segment]) -> None:
    kept = [row for outcome in Consistency().process(run) if isinstance(outcome, Kept) for row in outcome.rows]
    again = [row for outcome in Consistency().process(kept) if isinstance(outcome, Kept) for row in outcome.rows]
    assert again == kept


@given(st.lists(spoken(), max_size=6), st.lists(clips(), max_size=6), st.randoms(), st.integers(0, 6))
def test_the_fate_of_a_row_depends_on_no_other(rows: list[Segment], more: list[Clip], rng: random.Random, cut: int) -> None:
    for stage, given_rows in ((Consistency(), rows), (Occurrence(min_share=0.6), more)):
        whole = list(stage.process(given_rows))  # type: ignore[arg-type]
        shuffled = rng.sample(range(len(given_rows)), len(given_rows))
        assert list(stage.process([given_rows[index] for index in shuffled])) == [whole[index] for index in shuffled]  # type: ignore[misc]
        assert [*stage.process(given_rows[:cut]), *stage.process(given_rows[cut:])] == whole  # type: ignore[arg-type]


@given(st.lists(clips(), max_size=6))
def test_occurrence_is_idempotent(rows: list[Clip]) -> None:
    stage = Occurrence(min_share=0.6)
    kept = [row for outcome, row in zip(stage.process(rows), rows, strict=True) if isinstance(outcome, Kept)]
    assert [one.rows for one in stage.process(kept) if isinstance(one, Kept)] == [(row,) for row in kept]


@given(timelines(max_size=20), st.integers(1_000, 20_000), st.integers(0, 3_000), st.randoms())
def test_clips_hold_consecutive_segments_within_bounds_whatever_the_order(
    run: list[Segment], longest: int, gap: int, rng: random.Random
) -> None:
    rule = ClipRule(min_ms=1, max_ms=longest, max_gap_ms=gap)
    joined = list(rule.join(run))
    assert [segment for clip in joined for segment in clip] == run
    for clip in joined:
        assert clip[-1].end_ms - clip[0].start_ms <= longest or len(clip) == 1
        assert all(after.start_ms - before.end_ms <= gap for before, after in itertools.pairwise(clip))
    shuffled = rng.sample(run, len(run))
    assert list(rule.join(shuffled)) == joined


@given(clips())
def test_emotion_shares_sum_to_one_and_occurrence_keeps_by_them(clip: Clip) -> None:
    shares = emotion_shares(clip)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[dominant_emotion(clip) or ""] == max(shares.values())
    told = {name: share for name, share in shares.items() if name not in ("other", "unknown")}
    for bound in (0.0, 0.3, 0.7, 1.0):
        outcome = Occurrence(min_share=bound).process([clip])[0]
        assert isinstance(outcome, Kept) == (bool(told) and max(told.values(), default=0) >= bound)


def table_of(folder: Path, rows: list[Clip], parts: int) -> Path:
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(folder, rows, record=Clip, fingerprint=made, parts=parts, smallest=1)
    return folder


def fixed_clips(count: int = 60) -> list[Clip]:
    rng = random.Random(5)
    made = []
    for number in range(count):
        emotion = rng.choices(["neutral", "happy", "sad", "angry"], [70, 10, 12, 8])[0]
        segment = one(emotion, 0.5).model_copy(update={"recording_id": f"r{number}"})
        made.append(
            Clip(recording_id=f"r{number}", uri="a.wav", source="s", split="train", start_ms=0, end_ms=2_000, segments=(segment,))
        )
    return made


def test_balance_caps_the_surplus_whatever_order_and_shards(tmp_path: Path) -> None:
    rows = fixed_clips()
    kept = {}
    for name, order, parts in (("a", rows, 1), ("b", rows[::-1], 7)):
        run_stage(Balance(max_ratio=1.5), [table_of(tmp_path / name, order, parts)], tmp_path / f"out-{name}", seed=4)
        kept[name] = {row.id: row for row in tables.open_table(tmp_path / f"out-{name}", Clip).rows()}
    assert kept["a"] == kept["b"]
    before, after = Counter(map(dominant_emotion, rows)), Counter(map(dominant_emotion, kept["a"].values()))
    median = sorted(before.values())[1]
    assert after["neutral"] == math.ceil(1.5 * median) < before["neutral"]
    assert all(after[name] == before[name] for name in before if name != "neutral")


CELLS = ["emotion", "gender"]


@st.composite
def heard(draw: st.DrawFn) -> Clip:
    """A clip of one of few emotions, genders, speakers and recordings."""
    start = 1_000 * draw(st.integers(0, 40))
    end = start + 1_000 * draw(st.integers(1, 10))
    about = {"start_ms": start, "end_ms": end, "labeller": "a@1"}
    emotion = draw(st.sampled_from(["neutral", "neutral", "neutral", "sad", "happy"]))
    labels = [Label(attribute="emotion", category=emotion, **about)]
    if draw(st.booleans()):
        labels.append(Label(attribute="gender", category=draw(st.sampled_from(["female", "male"])), **about))
    recording_id = draw(st.sampled_from(["r0", "r1", "r2", "r3"]))
    segment = Segment(
        recording_id=recording_id, start_ms=start, end_ms=end, speaker=draw(st.sampled_from(["x", "y", None])), labels=tuple(labels)
    )
    source = draw(st.sampled_from(["one", "two"]))
    return Clip(recording_id=recording_id, uri="a.wav", source=source, start_ms=start, end_ms=end, segments=(segment,))


TABLES = st.lists(heard(), max_size=40, unique_by=lambda clip: clip.id)
TARGETS = st.sampled_from(
    [
        {},
        {"cells": CELLS, "max_ratio": 1.0},
        {"exact": True, "cells": ["emotion", "source"]},
        {"target": "natural", "hours": 0.01},
        {"target": "natural", "neutral_max": 0.3},
        {"target": {"neutral": 1, "sad": 2}, "max_ratio": 1.0},
        {"target": {"neutral": 0.3, "happy": 0.5, "sad": 0.2}, "exact": True, "hours": 0.02},
        {"neutral_max": 0.25, "hours": 0.015, "clips_per_recording": 5, "clips_per_speaker": 7},
    ]
)


def balanced(rows: Sequence[Clip], config: dict[str, object]) -> list[Clip]:
    rule = Balance.model_validate(config)
    return [row for outcome in rule.process(rows) if isinstance(outcome, Kept) for row in outcome.rows]


@given(TABLES, TARGETS, st.randoms())
@settings(max_examples=150)
def test_balance_holds_its_bounds_in_any_order_and_once_is_enough(
    rows: list[Clip], config: dict[str, object], rng: random.Random
) -> None:
    if isinstance(target := config.get("target"), dict) and not any(dominant_emotion(row) in target for row in rows):
        rows = []
    kept = balanced(rows, config)
    ids = {row.id for row in kept}
    assert {row.id for row in balanced(rng.sample(rows, len(rows)), config)} == ids
    assert {row.id for row in balanced(kept, config)} == ids
    rule = Balance.model_validate(config)
    if rule.hours is not None:
        assert sum(row.duration_ms for row in kept) <= rule.hours * 3_600_000
    if rule.neutral_max is not None and kept:
        assert sum(dominant_emotion(row) == "neutral" for row in kept) <= rule.neutral_max * len(kept) + 1e-9
    for most, of in (
        (rule.clips_per_recording, lambda row: row.recording_id),
        (rule.clips_per_speaker, lambda row: row.segments[0].speaker),
    ):
        if most is not None:
            assert all(count <= most for name, count in Counter(map(of, kept)).items() if name is not None)
    if isinstance(rule.target, dict):
        assert {dominant_emotion(row) for row in kept} <= set(rule.target)


def recording(number: int, split: str, run: list[Segment]) -> Recording:
    key = f"{number:016x}"
    references = tuple(segment.model_copy(update={"recording_id": key}) for segment in run)
    return Recording.model_validate(
        {
            "uri": "a.wav",
            "sha256": key + "0" * 48,
            "rate_hz": 16_000,
            "samples": 1_000_000,
            "source": "s",
            "split": split,
            "references": references,
        }
    )


# ---- every filter, over random tables -----------------------------------------------------------------------------------------

LANGUAGES = ("en-GB", "en, pl", "zh", None)
"""What the corpora state of recordings 0 to 3."""

SOUNDS = [[1_000 * sound + number for number in range(SIZE)] for sound in range(3)]


@st.composite
def measured(draw: st.DrawFn) -> Segment:
    """A segment with what the labellers `quality` and `fingerprint` and one of languages say of it, where they say anything."""
    start = 500 * draw(st.integers(0, 20))
    end = start + 500 * draw(st.integers(1, 20))
    about = {"start_ms": start, "end_ms": end, "labeller": draw(st.sampled_from(["a@1", "b@1"]))}
    values = {
        "level_db": (-80.0, -60.0, -30.0),
        "snr_db": (0.0, 5.0, 20.0),
        "clipped_share": (0.0, 0.005, 0.1),
        "speech_share": (0.4, 0.39),
    }
    made = []
    for name in draw(st.lists(st.sampled_from(sorted(values)), max_size=6)):
        half = {"end_ms": (start + end) // 2} if draw(st.booleans()) else {}
        made.append(Label(attribute=name, number=draw(st.sampled_from(values[name])), **(about | half)))
    if draw(st.booleans()):
        made.append(Label(attribute="language", category=draw(st.sampled_from(["en", "zh-Hans", "pl", "unknown"])), **about))
    if draw(st.integers(0, 3)):
        sound, shared, own = draw(st.sampled_from(SOUNDS)), draw(st.integers(0, SIZE)), draw(st.integers(10_000, 10_200))
        hashes = sorted([*sound[:shared], *(own + number for number in range(SIZE - shared))])
        made.append(Label(attribute="fingerprint", category="".join(f"{one:08x}" for one in hashes), **about))
    recording_id = f"{draw(st.integers(0, 3)):016x}"
    return Segment(recording_id=recording_id, start_ms=start, end_ms=end).with_labels(draw(st.permutations(made)))


FILTERS: dict[str, tuple[Callable[[], ColumnStage[Any, Any]], st.SearchStrategy[Any]]] = {
    "quality": (lambda: Quality(), measured()),
    "quality, strict": (lambda: Quality(unmeasured="drop", min_speech_share=None), measured()),
    "language": (lambda: Language(wanted=("en",)), measured()),
    "language, strict": (lambda: Language(wanted=("en", "zh"), unknown="drop"), measured()),
    "duplicates": (lambda: Duplicates(), measured()),
    "duplicates, strict": (lambda: Duplicates(min_shared=20), measured()),
    "consistency": (lambda: Consistency(), spoken()),
    "occurrence": (lambda: Occurrence(min_share=0.6), heard()),
    "balance": (lambda: Balance(hours=0.02, clips_per_recording=5), heard()),
}


def rows_of(kind: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(kind, max_size=size, unique_by=lambda row: row.id)


def fates_of(stage: ColumnStage[Any, Any], parts: Sequence[Sequence[Any]]) -> dict[str, tuple[str | None, str | None]]:
    """Reason and detail of every row of a table of these parts, by id; as `run_stage` does it, without its files."""
    stage._stated = pl.DataFrame({"id": [f"{number:016x}" for number in range(4)], "language": LANGUAGES})  # type: ignore[attr-defined]
    columns = [to_arrow(part, stage.reads) for part in parts]
    if stage.scope == "table":
        columns = [pa.concat_tables([stage.keys(one) for one in columns])]
    fates = [checked_fates(stage, one) for one in columns]
    reasons = [reason for one in fates for reason in one.reason.to_pylist()]
    details = [detail for one in fates for detail in (one.detail.to_pylist() if one.detail else [None] * len(one.reason))]
    return dict(zip((row.id for part in parts for row in part), zip(reasons, details, strict=True), strict=True))


@pytest.mark.parametrize("name", [name for name in FILTERS if name.split(",")[0] in ("quality", "language", "duplicates")])
@given(data=st.data(), rng=st.randoms(), cuts=st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_neither_order_nor_parts_change_a_fate_and_once_is_enough(
    name: str, data: st.DataObject, rng: random.Random, cuts: tuple[int, int]
) -> None:
    make, kind = FILTERS[name]
    rows = data.draw(rows_of(kind, 20))
    whole = fates_of(make(), [rows])
    shuffled = rng.sample(rows, len(rows))
    first, second = sorted(cuts)
    assert fates_of(make(), [shuffled[:first], shuffled[first:second], shuffled[second:]]) == whole
    kept = [row for row in rows if whole[row.id][0] is None]
    assert {reason for reason, _ in fates_of(make(), [kept]).values()} <= {None}


def through_tables(stage: ColumnStage[Any, Any], rows: Sequence[Any], parts: int) -> tuple[dict[str, Any], dict[str, Loss]]:
    """Run a filter as a study does; the rows that it kept and the losses, by id."""
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spoken_in = [recording(number, "train", []).model_copy(update={"language": one}) for number, one in enumerate(LANGUAGES)]
        write_rows(folder / "corpus", spoken_in, record=Recording, fingerprint=made)
        write_rows(folder / "in", rows, record=stage.reads, fingerprint=made, parts=parts, smallest=1)
        sides = {"recordings": folder / "corpus"} if stage.sides else {}
        run_stage(stage, [folder / "in"], folder / "out", sides=sides, seed=4)
        table = tables.open_table(folder / "out", stage.writes)
        return {row.id: row for row in table.rows()}, {loss.row_id: loss for loss in table.dropped()}


@pytest.mark.parametrize("name", FILTERS)
@given(data=st.data(), rng=st.randoms(), parts=st.integers(2, 5))
@settings(
    max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # to shrink a failure would take as long as all other tests
def test_a_filtered_table_is_the_same_in_any_order_and_parts_and_filtered_again(
    name: str, data: st.DataObject, rng: random.Random, parts: int
) -> None:
    make, kind = FILTERS[name]
    rows = data.draw(rows_of(kind, 12))
    kept, lost = through_tables(make(), rows, 1)
    assert kept.keys() | lost.keys() == {row.id for row in rows}
    assert through_tables(make(), rng.sample(rows, len(rows)), parts) == (kept, lost)
    assert through_tables(make(), list(kept.values()), parts) == (kept, {})


@given(timelines(max_size=20), timelines(recording_id="r1", max_size=6), st.randoms())
@settings(max_examples=40)
def test_clips_by_columns_are_the_runs_of_records(first: list[Segment], second: list[Segment], rng: random.Random) -> None:
    rule = ClipRule(min_ms=3_000, max_ms=12_000, max_segments=4)
    rows = rng.sample([*first, *second], len(first) + len(second))
    stage = CutClips(rule=rule)
    stage._recordings = to_arrow([recording(number, "train", []) for number in (0, 1)], Recording)
    stage._recordings = stage._recordings.set_column(0, "id", [["r0", "r1"]])
    outcomes = dict(zip((row.id for row in rows), stage.process(rows), strict=True))
    for run in (*rule.join(first), *rule.join(second)):
        refusal = rule.refusal(max(one.end_ms for one in run) - run[0].start_ms)
        fates = [outcomes[one.id] for one in run]
        if refusal:
            assert {fate.reason for fate in fates if isinstance(fate, Dropped)} == {refusal}
        else:
            assert [len(fate.rows) for fate in fates if isinstance(fate, Kept)] == [1] + [0] * (len(run) - 1)
            (made,) = fates[0].rows  # type: ignore[union-attr]
            assert made.segments == run
            assert made.split == "train"


def test_clips_of_ten_to_sixty_seconds_are_a_setting(tmp_path: Path) -> None:
    run = [one("sad", 0.2, start=at, end=at + 5_000) for at in range(0, 90_000, 5_500)]
    row = recording(1, "train", run)
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "corpus", [row], record=Recording, fingerprint=made)
    write_rows(tmp_path / "label", row.references, record=Segment, fingerprint=made, parts=1)
    stage = CutClips(rule=ClipRule(min_ms=10_000, max_ms=60_000))
    run_stage(stage, [tmp_path / "label"], tmp_path / "clips", sides={"recordings": tmp_path / "corpus"})
    lengths = [clip.duration_ms for clip in tables.open_table(tmp_path / "clips", Clip).rows()]
    assert lengths == [60_000, 32_500]


def test_segments_of_a_recording_that_is_not_there_are_refused(tmp_path: Path) -> None:
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "corpus", [recording(1, "train", [])], record=Recording, fingerprint=made)
    write_rows(tmp_path / "label", [one("sad", 0.2)], record=Segment, fingerprint=made)
    with pytest.raises(DataError, match=r"of recording r0, which is not among the recordings.*--redo label"):
        run_stage(CutClips(), [tmp_path / "label"], tmp_path / "clips", sides={"recordings": tmp_path / "corpus"})


def test_predicted_clips_are_of_the_training_split_only(tmp_path: Path) -> None:
    runs = [[one("sad", 0.2, start=at, end=at + 2_000) for at in range(0, 12_000, 2_500)] for _ in range(3)]
    recordings = [
        recording(number, split, run) for number, (split, run) in enumerate(zip(["train", "test", "train"], runs, strict=True))
    ]
    segments = [segment for row in recordings for segment in row.references]
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "corpus", recordings, record=Recording, fingerprint=made)
    write_rows(tmp_path / "label", segments, record=Segment, fingerprint=made, parts=1)
    report = run_stage(CutClips(), [tmp_path / "label"], tmp_path / "clips", sides={"recordings": tmp_path / "corpus"})
    rows = list(tables.open_table(tmp_path / "clips", Clip).rows())
    assert {row.split for row in rows} == {"train"}
    assert report.counts.reasons == {"other_split": len(runs[1])}
    assert sum(len(row.segments) for row in rows) == report.counts.kept


def test_a_segment_longer_than_a_clip_may_be_is_dropped_alone(tmp_path: Path) -> None:
    run = [
        one("sad", 0.2, start=0, end=20_000),
        one("sad", 0.2, start=5_000, end=10_000),
        one("sad", 0.2, start=21_000, end=26_000),
    ]
    row = recording(1, "train", run)
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "corpus", [row], record=Recording, fingerprint=made)
    write_rows(tmp_path / "label", row.references, record=Segment, fingerprint=made)
    run_stage(CutClips(), [tmp_path / "label"], tmp_path / "clips", sides={"recordings": tmp_path / "corpus"})
    table = tables.open_table(tmp_path / "clips", Clip)
    assert [(clip.start_ms, clip.end_ms) for clip in table.rows()] == [(5_000, 10_000), (21_000, 26_000)]
    assert [(fate.reason, fate.detail) for fate in table.dropped()] == [("clip_too_long", "20000 ms")]
    assert isinstance(kept := CutReferences().process([row])[0], Kept)
    assert [(clip.start_ms, clip.end_ms) for clip in kept.rows] == [(5_000, 10_000), (21_000, 26_000)]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((20_000,), Dropped("clip_too_long", "20000 ms")),
        ((1_000,), Dropped("clip_too_short", "1000 ms")),
        ((1_000, 20_000), Dropped("clip_too_long", "20000 ms")),
    ],
)
def test_references_without_a_fitting_clip_are_dropped_by_name(lengths: tuple[int, ...], expected: Dropped) -> None:
    run = [one("sad", 0.2, start=30_000 * number, end=30_000 * number + length) for number, length in enumerate(lengths)]
    assert CutReferences().process([recording(1, "test", run)]) == [expected]


def test_reference_clips_keep_the_split_and_drop_raw_speech() -> None:
    labelled = recording(1, "test", [one("sad", 0.2, start=at, end=at + 2_000) for at in (0, 2_500, 5_000)])
    raw = labelled.model_copy(update={"references": ()})
    kept, dropped = CutReferences().process([labelled, raw])
    assert isinstance(kept, Kept)
    assert {clip.split for clip in kept.rows} == {"test"}
    assert dropped == Dropped("no_references")
