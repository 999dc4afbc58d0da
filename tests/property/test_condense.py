"""Condensation: every filter is order- and shard-independent, idempotent, and does what the paper says."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import clips, timelines
from undertone import tables
from undertone.condense.balance import Balance
from undertone.condense.clips import ClipRule, CutClips, CutReferences
from undertone.condense.consistency import SIGN_OF, Consistency
from undertone.condense.occurrence import Occurrence, dominant_emotion, emotion_shares
from undertone.execute import run_stage, write_rows
from undertone.records import EMOTIONS, Clip, Label, Recording, Segment
from undertone.stages import Dropped, Kept
from undertone.tables import Fingerprint


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
    assert set(SIGN_OF) == set(EMOTIONS)


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


@given(timelines())
def test_consistency_is_idempotent(run: list[Segment]) -> None:
    kept = [row for outcome in Consistency().process(run) if isinstance(outcome, Kept) for row in outcome.rows]
    again = [row for outcome in Consistency().process(kept) if isinstance(outcome, Kept) for row in outcome.rows]
    assert again == kept


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
    median = sorted(before.values())[1:3]
    assert after["neutral"] == int(1.5 * sum(median) / 2) < before["neutral"]
    assert all(after[name] == before[name] for name in before if name != "neutral")


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
