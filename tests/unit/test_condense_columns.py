"""Stages over columns: the law holds by construction, memory does not grow with the table, and leaks are told by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from tests.toy import recordings, source
from undertone import tables
from undertone.condense.balance import Balance
from undertone.condense.leaks import check_splits, sentence_leak, transcript_leakage
from undertone.condense.nested import labels_in, time_held, with_fields
from undertone.errors import DataError, ResumeMismatch
from undertone.execute import run_stage, write_rows
from undertone.execute.run import write_columns
from undertone.records import Clip, Label, Recording, Segment, category_shares, from_arrow, to_arrow
from undertone.stages import ColumnStage, Dropped, Fates, Kept
from undertone.tables import Fingerprint

MADE = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})


class Loud(ColumnStage[Recording, Recording]):
    """Drops recordings with an odd number of samples, the dozen lines that a filter is."""

    name: ClassVar[str] = "loud"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Recording]] = Recording

    broken: int | None = None

    def fates(self, columns: pa.Table) -> Fates:
        if self.broken is not None and self.broken in columns["samples"].to_pylist():
            raise ValueError(f"{self.broken} is broken")
        odd = pc.equal(pc.bit_wise_and(columns["samples"], 1), 1)
        return Fates(reason=pc.if_else(odd, "odd", None), detail=columns["samples"].cast(pa.string()))


class Largest(ColumnStage[Recording, Recording]):
    """Keeps the `most` largest of the table; looks at one column, and writes down how many rows it saw at once."""

    name: ClassVar[str] = "largest"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Recording]] = Recording
    scope: ClassVar = "table"
    looks_at: ClassVar = ("samples",)

    most: int = 10
    log: str | None = None

    def keys(self, columns: pa.Table) -> pa.Table:
        if self.log:
            with Path(self.log).open("a") as log:
                log.write(f"{columns.num_rows}x{columns.num_columns}\n")
        return columns

    def fates(self, columns: pa.Table) -> Fates:
        rank = pc.rank(columns["samples"], sort_keys="descending")
        return Fates(reason=pc.if_else(pc.greater(rank, self.most), "small", None))


class Wrong(Loud):
    """Gives what it is told to give, for tests of what the base refuses."""

    name: ClassVar[str] = "wrong"
    scope: ClassVar = "part"

    how: str

    def fates(self, columns: pa.Table) -> Fates:
        none, every = pa.nulls(len(columns), pa.string()), pa.array(["no"] * len(columns))
        return {
            "few": Fates(reason=none.slice(1)),
            "detail": Fates(reason=none, detail=none.slice(1)),
            "unsaid": Fates(reason=none, rows=columns.slice(1)),
            "resurrected": Fates(reason=every, rows=columns, origin=pa.array(range(len(columns)))),
        }[self.how]


def rows_of(folder: Path) -> list[Recording]:
    return list(tables.open_table(folder, Recording).rows())


def test_a_filter_accounts_for_every_row_and_its_table_is_that_of_records(tmp_path: Path) -> None:
    report = run_stage(Loud(), [source(tmp_path / "in", 20)], tmp_path / "out")
    table = tables.open_table(tmp_path / "out", Recording)
    assert (report.counts.inputs, report.counts.kept, report.counts.dropped) == (20, 10, 10)
    assert report.counts.reasons == {"odd": 10}
    assert [(one.stage, one.reason, one.detail) for one in table.dropped()] == [
        ("loud", "odd", str(16_001 + n)) for n in range(0, 20, 2)
    ]
    by_records = [row for one in Loud().process(recordings(20)) if isinstance(one, Kept) for row in one.rows]
    assert list(table.rows()) == by_records == recordings(20)[::2]
    same = write_columns(tmp_path / "same", [to_arrow(by_records, Recording)], record=Recording, fingerprint=MADE)
    rows = write_rows(tmp_path / "rows", by_records, record=Recording, fingerprint=MADE, parts=1)
    assert same.digest == rows.digest


@pytest.mark.parametrize("stage", [Loud(), Largest()])
def test_workers_and_shards_do_not_change_the_rows(tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("undertone.execute.run._LIGHT_COLUMN_ROWS", 0)
    one = run_stage(stage, [source(tmp_path / "in", 24)], tmp_path / "one", workers=1)
    two = run_stage(stage, [source(tmp_path / "in", 24)], tmp_path / "two", workers=2)
    assert (one.digest, one.counts) == (two.digest, two.counts)
    run_stage(stage, [source(tmp_path / "shards", 24, parts=2)], tmp_path / "other")
    assert rows_of(tmp_path / "other") == rows_of(tmp_path / "one")


def test_a_bad_row_costs_itself_only(tmp_path: Path) -> None:
    run_stage(Loud(broken=16_004), [source(tmp_path / "in", 10)], tmp_path / "out")
    table = tables.open_table(tmp_path / "out", Recording)
    assert [one.detail for one in table.failed()] == ["ValueError: 16004 is broken"]
    assert [row.samples for row in table.rows()] == [16_000, 16_002, 16_006, 16_008]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("few", "gave 3 to 3 fates for 4 rows"),
        ("detail", "gave 3 to 4 fates for 4 rows"),
        ("unsaid", "gave 3 rows for 4 kept ones without saying which is whose"),
        ("resurrected", "made rows of a row that it dropped"),
    ],
)
def test_a_stage_that_breaks_the_law_is_a_bug_and_is_said(tmp_path: Path, how: str, message: str) -> None:
    with pytest.raises(DataError, match=f"stage wrong {message}"):
        run_stage(Wrong(how=how), [source(tmp_path / "in", 4, parts=1)], tmp_path / "out")
    with pytest.raises(DataError, match=f"stage wrong {message}"):
        Wrong(how=how).process(recordings(4))


def test_a_decision_about_the_table_reads_its_keys_part_by_part_and_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stage = Largest(most=7, log=str(log))
    report = run_stage(stage, [source(tmp_path / "in", 20, parts=5)], tmp_path / "out")
    assert log.read_text().split() == ["4x1"] * 5
    assert (report.counts.kept, report.counts.dropped, report.parts) == (7, 13, 5)
    assert {row.samples for row in rows_of(tmp_path / "out")} == set(range(16_013, 16_020))
    assert not (tmp_path / "out" / "_work").exists()


def test_a_broken_decision_goes_on_from_the_keys_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    folder = source(tmp_path / "in", 20, parts=5)
    stage = Largest(log=str(log))
    whole = run_stage(Largest(log=str(log)), [folder], tmp_path / "whole")
    log.unlink()
    with monkeypatch.context() as broken:
        broken.setattr("undertone.execute.run._decide", lambda job, units: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_stage(stage, [folder], tmp_path / "out")
    with monkeypatch.context() as broken:
        broken.setattr("undertone.tables.finish", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_stage(stage, [folder], tmp_path / "out")
    (tmp_path / "out" / "part-00003.parquet").unlink()
    again = run_stage(stage, [folder], tmp_path / "out")
    assert len(log.read_text().split()) == 5
    assert (again.resumed, again.digest, again.counts) == (4, whole.digest, whole.counts)
    with pytest.raises(ResumeMismatch, match=r"config\.most 10, now 3"):
        run_stage(Largest(most=3, log=str(log)), [folder], tmp_path / "out")


def test_a_limit_takes_the_first_rows_of_a_table_too(tmp_path: Path) -> None:
    report = run_stage(Largest(most=3), [source(tmp_path / "in", 20)], tmp_path / "out", limit=9)
    assert report.counts.inputs == 9
    assert [row.samples for row in rows_of(tmp_path / "out")] == [16_006, 16_007, 16_008]


def test_an_empty_table_stays_empty(tmp_path: Path) -> None:
    for name, stage in (("a", Loud()), ("b", Largest())):
        assert run_stage(stage, [source(tmp_path / "in", 0)], tmp_path / name).counts.rows == 0


# ---- labels in columns ---------------------------------------------------------------------------------------------------------


def label(attribute: str, category: str | None, start: int, end: int, labeller: str = "a@1") -> Label:
    reason = None if category else "too_short"
    return Label(
        attribute=attribute,
        category=category,
        reason=reason,
        start_ms=start,
        end_ms=end,
        labeller=labeller,
        distribution={"x": 1.0},
    )


def segment(*labels: Label, speaker: str | None = None, text: str | None = None) -> Segment:
    return Segment(recording_id="r0", start_ms=0, end_ms=4_000, speaker=speaker, transcript=text, labels=labels)


def test_labels_come_in_the_order_of_records_and_maps_pass_untouched() -> None:
    rows = [
        segment(
            label("emotion", "sad", 2_000, 4_000), label("gender", "male", 0, 4_000), label("emotion", "happy", 0, 2_000, "b@1")
        ),
        segment(),
        segment(label("emotion", None, 0, 2_000), label("emotion", "angry", 0, 1_000)),
    ]
    columns = to_arrow(rows, Segment)
    found = labels_in(columns["labels"], "emotion")
    expected = [(index, one.category) for index, row in enumerate(rows) for one in row.of("emotion")]
    assert list(found.select("row", "category").iter_rows()) == expected
    assert len(labels_in(columns["labels"], "emotion", abstentions=True)) == len(expected) + 1
    shares = {(row, name): share for row, name, _, share in time_held(found).iter_rows()}
    assert shares == {
        (index, name): share for index, row in enumerate(rows) for name, share in category_shares([row], "emotion").items()
    }
    signed = with_fields(columns["labels"], labeller=pa.array(["c@1"] * 5))
    renamed = from_arrow(
        columns.set_column(columns.schema.get_field_index("labels"), columns.schema.field("labels"), signed), Segment
    )
    assert renamed == [
        row.model_copy(update={"labels": tuple(one.model_copy(update={"labeller": "c@1"}) for one in row.labels)}) for row in rows
    ]


# ---- balance -------------------------------------------------------------------------------------------------------------------


def clip(number: int, emotion: str, *, gender: str = "female", seconds: int = 10, speaker: str | None = None) -> Clip:
    end = seconds * 1_000
    labels = (label("emotion", emotion, 0, end), label("gender", gender, 0, end))
    inner = Segment(recording_id=f"r{number}", start_ms=0, end_ms=end, speaker=speaker, labels=labels)
    return Clip(recording_id=f"r{number}", uri="a.wav", source="s", start_ms=0, end_ms=end, segments=(inner,))


def clips(**counts: int) -> list[Clip]:
    made: list[Clip] = []
    for name, count in counts.items():
        emotion, _, gender = name.partition("_")
        made += [clip(len(made) + number, emotion, gender=gender or "female") for number in range(count)]
    return made


def kept(rows: list[Clip], **config: Any) -> Counter[str]:
    outcomes = Balance.model_validate(config).process(rows)
    stay = [row for one in outcomes if isinstance(one, Kept) for row in one.rows]
    return Counter("_".join(str(row.segments[0].category(name)) for name in ("emotion", "gender")) for row in stay)


def test_joint_cells_are_capped_by_the_median_cell() -> None:
    rows = clips(sad_female=2, sad_male=4, happy_female=10, neutral_male=40)
    assert kept(rows, cells=["emotion", "gender"], max_ratio=1) == {
        "sad_female": 2,
        "sad_male": 4,
        "happy_female": 4,
        "neutral_male": 4,
    }
    assert kept(rows, cells=["emotion", "gender"], exact=True) == dict.fromkeys(
        ("sad_female", "sad_male", "happy_female", "neutral_male"), 2
    )


def test_named_shares_are_met_exactly_where_that_is_asked() -> None:
    rows = clips(sad_female=30, happy_female=30, neutral_female=60, angry_female=9)
    assert kept(rows, target={"sad": 2, "happy": 1, "neutral": 1}, exact=True) == {
        "sad_female": 30,
        "happy_female": 15,
        "neutral_female": 15,
    }
    outcomes = Balance(target={"sad": 1.0}).process(rows)
    assert Counter((one.reason, one.detail) for one in outcomes if isinstance(one, Dropped)) == {
        ("surplus", "angry"): 9, ("surplus", "happy"): 30, ("surplus", "neutral"): 60,
    }  # fmt: skip


def test_a_target_without_any_clip_names_the_cells_that_there_are() -> None:
    with pytest.raises(
        DataError, match=r"condense\.balance\.target \(sad/men\).*The cells \(emotion/gender\) of this table are sad/female"
    ):
        kept(clips(sad_female=2), cells=["emotion", "gender"], target={"sad/men": 1})
    with pytest.raises(ValidationError, match="emotoin"):
        Balance.model_validate({"cells": ["emotoin"]})


def test_neutral_is_held_down_to_its_share() -> None:
    rows = clips(neutral_female=60, neutral_male=20, sad_male=10, happy_male=10)
    left = kept(rows, cells=["emotion", "gender"], target="natural", neutral_max=0.5)
    assert left == {"neutral_female": 15, "neutral_male": 5, "sad_male": 10, "happy_male": 10}


def test_a_budget_of_hours_takes_from_all_cells_alike() -> None:
    rows = clips(neutral_female=60, sad_female=30, happy_female=10)  # 10 s each
    assert kept(rows, target="natural", hours=0.5 * 100 * 10 / 3600) == {"neutral_female": 30, "sad_female": 15, "happy_female": 5}
    reasons = Counter(one.reason for one in Balance(target="natural", hours=0.1).process(rows) if isinstance(one, Dropped))
    assert set(reasons) == {"over_budget"}


def test_speakers_and_recordings_are_capped_and_the_unknown_are_not() -> None:
    rows = [clip(number, "sad", speaker="x" if number < 8 else None) for number in range(12)]
    rows += [rows[0].model_copy(update={"start_ms": 1, "recording_id": "r0"})]
    reasons = Counter(
        one.reason for one in Balance(clips_per_speaker=3, clips_per_recording=1).process(rows) if isinstance(one, Dropped)
    )
    assert reasons == {"recording_cap": 1, "speaker_cap": 5}


# ---- leaks ---------------------------------------------------------------------------------------------------------------------


def recording(number: int, split: str | None, *spoken: Segment, source_: str = "s") -> Recording:
    about = {"uri": "a.wav", "rate_hz": 16_000, "samples": 90_000, "source": source_, "split": split}
    key = f"{number:016x}"
    references = tuple(one.model_copy(update={"recording_id": key}) for one in spoken)
    return Recording.model_validate({**about, "sha256": key + "0" * 48, "references": references})


def corpus(folder: Path, *rows: Recording) -> tables.Table[Recording]:
    write_rows(folder, rows, record=Recording, fingerprint=MADE)
    return tables.open_table(folder, Recording)


def test_a_split_that_leaks_is_refused_by_name(tmp_path: Path) -> None:
    rows = [recording(0, "train", segment(speaker="s/a")), recording(1, "test", segment(speaker="s/b"), segment(speaker="s/a"))]
    with pytest.raises(DataError, match=r"1 speaker on both sides \(s/a in test and train\).*--redo corpus"):
        check_splits(corpus(tmp_path / "leaky", *rows))
    sound = corpus(
        tmp_path / "sound", rows[0], recording(1, "test", segment(speaker="s/b")), recording(2, None, segment(speaker="s/a"))
    )
    check_splits(sound)
    stray = clip(0, "sad").model_copy(update={"recording_id": rows[0].id, "split": "test"})
    write_rows(tmp_path / "clips", [stray], record=Clip, fingerprint=MADE)
    with pytest.raises(DataError, match=rf"1 recording on both sides \({rows[0].id} in test and train\)"):
        check_splits(sound, tables.open_table(tmp_path / "clips", Clip))


def test_sentences_that_tell_the_label_are_measured(tmp_path: Path) -> None:
    def said(text: str, emotion: str) -> Segment:
        return segment(label("emotion", emotion, 0, 4_000), text=text)

    told = [
        said("I am so sad.", "sad"),
        said("i am so SAD", "sad"),
        said("Hooray!", "happy"),
        said("hooray", "happy"),
        said("hm", "sad"),
    ]
    acted = [said(text, emotion) for text in ("kids are talking", "dogs are sitting") for emotion in ("sad", "happy", "angry")]
    silent = segment(label("emotion", "sad", 0, 4_000))
    table = corpus(
        tmp_path / "c", recording(0, "train", *told, silent, source_="told"), recording(1, "test", *acted, source_="acted")
    )
    by_source = {one.source: one for one in transcript_leakage(table)}
    leak = by_source["told"]
    assert (leak.utterances, leak.sentences, leak.repeated, leak.majority, leak.leave_one_out, leak.chance) == (
        5,
        3,
        4,
        1.0,
        0.8,
        0.6,
    )
    leak = by_source["acted"]
    assert (leak.majority, leak.leave_one_out, leak.chance) == (pytest.approx(1 / 3), 0.0, pytest.approx(1 / 3))
    assert by_source[None].utterances == 11
    assert (
        "acted: emotion told by the sentence alone: leave-one-out 0.0%, majority 33.3%, chance 33.3%" in by_source["acted"].line()
    )
    assert "no utterance has both" in sentence_leak({}, attribute="emotion", source="x").line()
