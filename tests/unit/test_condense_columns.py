"""Stages over columns: the law holds by construction, memory does not grow with the table, and leaks are told by name."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tests.toy import recordings, source
from undertone import tables
from undertone.condense.balance import Balance
from undertone.condense.clips import CutClips
from undertone.condense.leaks import check_splits, sentence_leak, transcript_leakage
from undertone.condense.nested import labels_in, time_held, with_fields
from undertone.condense.occurrence import Occurrence
from undertone.errors import DataError, ResumeMismatch
from undertone.execute import run_stage, write_rows
from undertone.execute.pool import Execution, Shards, Stopped
from undertone.execute.run import write_columns
from undertone.records import Clip, Label, Recording, Segment, arrow_schema, category_shares, from_arrow, to_arrow
from undertone.stages import ColumnStage, Context, Dropped, Fates, Kept
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


class Lent(Loud):
    """The same filter, which leaves the rows where they are and looks at one column."""

    name: ClassVar[str] = "lent"
    looks_at: ClassVar = ("samples",)
    borrows: ClassVar[bool] = True

    broken: int | None = None
    most: int | None = None

    def fates(self, columns: pa.Table) -> Fates:
        assert columns.column_names == ["id", "samples"] or columns.column_names == list(arrow_schema(Recording).names)
        if self.most is None:
            return super().fates(columns)
        return Fates(reason=pc.if_else(pc.greater(columns["samples"], self.most), "large", None))


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
            "members": Fates(reason=none, rows=columns, members=pa.array([[0]] * len(columns))),
            "unlisted": Fates(reason=none, rows=columns.drop_columns(["references"]), members=pa.array([[0]])),
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


@pytest.mark.parametrize("stage", [Loud(), Largest(), Lent()])
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
        ("members", "gave members of its rows, so the rows must lack one column of Recording"),
        ("unlisted", "gave members of its rows, so the rows must lack one column of Recording"),
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


# ---- rows that stay where they are -----------------------------------------------------------------------------------------------


def test_a_filter_that_borrows_leaves_the_table_of_one_that_copies_in_a_file_of_numbers(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 20)
    copied, lent = run_stage(Loud(), [folder], tmp_path / "copied"), run_stage(Lent(), [folder], tmp_path / "lent")
    assert rows_of(tmp_path / "lent") == rows_of(tmp_path / "copied") == recordings(20)[::2]
    assert lent.counts == copied.counts
    table = tables.open_table(tmp_path / "lent", Recording)
    assert table.arrow(columns=["samples"]).to_pydict() == {"samples": list(range(16_000, 16_020, 2))}
    assert [one.id for one in table.part(1)] == [one.id for one in recordings(20)[4:8:2]]
    assert table.losses("dropped", ["reason"]).to_pydict() == {"reason": ["odd"] * 10}
    file = pq.read_table(tmp_path / "lent" / "part-00001.parquet")
    assert file.to_pydict() == {"rows_in_source": [0, 2]}
    assert file.schema.metadata[b"undertone.note"] == (
        b"row n is row rows_in_source[n] (counted from 0) of ../in/part-00001.parquet; undertone.tables.open_table reads them"
    )


def test_a_row_that_fails_costs_itself_only_where_rows_are_borrowed_too(tmp_path: Path) -> None:
    run_stage(Lent(broken=16_004), [source(tmp_path / "in", 10)], tmp_path / "out")
    table = tables.open_table(tmp_path / "out", Recording)
    assert [one.detail for one in table.failed()] == ["ValueError: 16004 is broken"]
    assert [row.samples for row in table.rows()] == [16_000, 16_002, 16_006, 16_008]
    assert table.arrow(columns=["samples"])["samples"].to_pylist() == [16_000, 16_002, 16_006, 16_008]


def chain(folder: Path, *, count: int = 20) -> Path:
    """in -> lent -> again: a filter of a filter, both of which borrow."""
    run_stage(Lent(), [source(folder / "in", count)], folder / "lent")
    run_stage(Lent(most=16_010), [folder / "lent"], folder / "again")
    return folder


def test_borrowed_rows_are_found_through_several_tables_and_after_all_were_moved(tmp_path: Path) -> None:
    expected = recordings(20)[:11:2]
    before = chain(tmp_path / "run")
    assert rows_of(before / "again") == expected
    before.rename(tmp_path / "moved")
    assert rows_of(tmp_path / "moved" / "again") == expected
    run_stage(Loud(), [tmp_path / "moved" / "again"], tmp_path / "taken", limit=5)
    shutil.rmtree(tmp_path / "moved")
    assert rows_of(tmp_path / "taken") == expected[:5]  # what does not borrow needs nothing but itself


def test_a_source_that_is_gone_or_has_become_another_is_refused_by_name(tmp_path: Path) -> None:
    run = chain(tmp_path)
    expected = rows_of(run / "again")
    shutil.move(run / "in", run / "elsewhere")
    with pytest.raises(
        DataError, match=r"lent/part-00000\.parquet holds numbers of rows of .*/in, which is not there.*--redo lent"
    ):
        rows_of(run / "again")
    with pytest.raises(DataError, match="which is not there or not finished"):
        run_stage(Loud(), [run / "again"], run / "copied")
    source(run / "in", 20, parts=4)
    with pytest.raises(DataError, match=r"rows of .*/in/part-00000\.parquet, whose content has become another: in was made again"):
        rows_of(run / "lent")
    shutil.rmtree(run / "in")
    source(run / "in", 20)  # made again as it was
    assert rows_of(run / "again") == expected
    run_stage(Lent(most=16_004), [run / "in"], run / "lent", redo=True)
    with pytest.raises(DataError, match=r"again/part-00000\.parquet holds numbers.*lent was made again.*--redo again"):
        rows_of(run / "again")
    with pytest.raises(ResumeMismatch, match=r"inputs\.source0"):
        run_stage(Lent(most=16_010), [run / "lent"], run / "again")


def test_jobs_that_share_a_table_of_borrowed_rows_write_the_same(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", 20)
    whole = run_stage(Lent(), [folder], tmp_path / "whole")
    for shard in ("1/2", "2/2"):
        with pytest.raises(Stopped):
            run_stage(Lent(), [folder], tmp_path / "out", execution=Execution(shards=Shards.parse(shard)))
    done = run_stage(Lent(), [folder], tmp_path / "out")
    assert (done.digest, done.counts, done.resumed) == (whole.digest, whole.counts, 5)
    assert rows_of(tmp_path / "out") == recordings(20)[::2]


def test_a_digest_of_borrowed_rows_tells_which_rows_of_what(tmp_path: Path) -> None:
    def digest(name: str, count: int, **config: int) -> str:
        return run_stage(Lent(**config), [source(tmp_path / f"in-{name}", count)], tmp_path / name).digest

    assert digest("a", 20) == digest("b", 20)
    assert len({digest("c", 20), digest("d", 19), digest("e", 20, most=16_010), digest("f", 20, most=16_018)}) == 4


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


# ---- the path ------------------------------------------------------------------------------------------------------------------


def spoken(number: int) -> list[Segment]:
    """Segments of one recording: two of 3 s that make a clip, one that is too short for one."""
    times = [(0, 3_000), (3_500, 6_500), (20_000, 21_000)]
    names = ["happy", "sad", "angry"] if number % 3 else ["unknown"] * 3
    return [
        Segment(recording_id=f"{number:016x}", start_ms=start, end_ms=end, labels=(label("emotion", name, start, end),))
        for (start, end), name in zip(times, names, strict=True)
    ]


def test_only_what_is_taken_away_is_written_out_and_all_else_is_what_records_would_be(tmp_path: Path) -> None:
    rows = [one for number in range(9) for one in spoken(number)]
    about = [recording(number, "train") for number in range(9)]
    write_rows(tmp_path / "corpus", about, record=Recording, fingerprint=MADE)
    write_rows(tmp_path / "label", rows, record=Segment, fingerprint=MADE, parts=3)
    cut = CutClips()
    run_stage(cut, [tmp_path / "label"], tmp_path / "clips", sides={"recordings": tmp_path / "corpus"})
    run_stage(Occurrence(), [tmp_path / "clips"], tmp_path / "occurrence")
    run_stage(Balance(target="natural"), [tmp_path / "occurrence"], tmp_path / "balance")

    whole = CutClips()
    whole.open(Context(out_dir=tmp_path, seed=0, sides={"recordings": tables.open_table(tmp_path / "corpus", Recording)}))
    clips = [row for one in whole.process(rows) if isinstance(one, Kept) for row in one.rows]
    assert [len(one.segments) for one in clips] == [2] * 9
    table = tables.open_table(tmp_path / "clips", Clip)
    assert list(table.rows()) == clips
    assert table.arrow().schema.equals(arrow_schema(Clip))
    leaf = "segments.list.element.labels.list.element.category"
    some = table.arrow(columns=["start_ms", leaf])
    assert some.column_names == ["start_ms", "segments"]
    assert [[label["category"] for one in row for label in one["labels"]] for row in some["segments"].to_pylist()] == [
        [label.category for one in clip.segments for label in one.labels] for clip in clips
    ]
    assert table.arrow(columns=["id"]).to_pydict() == {"id": [one.id for one in clips]}
    assert pq.read_schema(tmp_path / "clips" / "part-00000.parquet").names[-1] == "rows_in_source"

    expected = [one for one in clips if int(one.recording_id, 16) % 3]
    assert list(tables.open_table(tmp_path / "occurrence", Clip).rows()) == expected
    for name in ("corpus", "label", "clips", "occurrence"):
        shutil.rmtree(tmp_path / name)
    assert list(tables.open_table(tmp_path / "balance", Clip).rows()) == expected
    assert pq.read_schema(tmp_path / "balance" / "part-00000.parquet").equals(arrow_schema(Clip))


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
