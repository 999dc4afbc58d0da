"""The funnel: what its numbers say must be what the tables hold, and add up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from undertone import tables
from undertone.condense.clips import ClipRule, CutClips
from undertone.condense.consistency import Consistency
from undertone.condense.funnel import At, Funnel, funnel
from undertone.condense.occurrence import Occurrence
from undertone.condense.quality import Quality
from undertone.errors import DataError
from undertone.execute import run_stage, write_rows
from undertone.records import Clip, Label, Recording, Segment, category_shares
from undertone.report.build import render
from undertone.report.funnel import funnel_figures, funnel_markdown, funnel_sheets
from undertone.report.inputs import ReportInputs, RunFacts
from undertone.tables import Fingerprint

HOUR_MS = 3_600_000


def key(number: int) -> str:
    return f"{number:016x}"


def recording(number: int, *, source: str = "a", licence: str | None = "CC BY 4.0") -> Recording:
    about = {"uri": f"{number}.wav", "sha256": key(number) + "0" * 48, "rate_hz": 16_000, "samples": 60 * 16_000, "split": "train"}
    return Recording.model_validate(about | {"source": source, "licence": licence})


def segment(number: int, start_ms: int, *windows: tuple[str, float], snr_db: float = 20.0) -> Segment:
    """Windows of 2 s after each other."""
    end_ms = start_ms + 2_000 * len(windows)
    labels = [Label(attribute="snr_db", number=snr_db, start_ms=start_ms, end_ms=end_ms, labeller="t@1")]
    for index, (emotion, valence) in enumerate(windows):
        span = {"start_ms": start_ms + 2_000 * index, "end_ms": start_ms + 2_000 * index + 2_000, "labeller": "t@1"}
        labels += [Label(attribute="emotion", category=emotion, **span), Label(attribute="valence", number=valence, **span)]
    return Segment(recording_id=key(number), start_ms=start_ms, end_ms=end_ms, labels=tuple(labels))


RECORDINGS = [recording(0), recording(1), recording(2, source="b", licence=None), recording(3, source="b", licence="MIT | own")]
SEGMENTS = [
    segment(0, 0, ("happy", 0.9), ("happy", 0.9)),
    segment(0, 5_000, ("sad", 0.1), ("happy", 0.1)),
    segment(0, 30_000, ("sad", 0.9)),
    segment(1, 0, ("neutral", 0.45), ("neutral", 0.45), ("angry", 0.1), snr_db=0.0),
    segment(1, 8_000, ("neutral", 0.45), ("neutral", 0.45), ("angry", 0.1)),
    segment(2, 0, ("surprised", 0.5)),
    segment(2, 2_000, ("unknown", 0.5), ("unknown", 0.5)),
]


@pytest.fixture(name="run", params=[1, 3])
def _run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    made = Fingerprint(stage="label", version="1", seed=0, config={}, inputs={})
    for name, rows, record in (("corpus", RECORDINGS, Recording), ("label", SEGMENTS, Segment)):
        write_rows(tmp_path / name, rows, record=record, fingerprint=made, parts=request.param, smallest=1)  # type: ignore[arg-type]
    run_stage(Quality(), [tmp_path / "label"], tmp_path / "quality")
    run_stage(Consistency(), [tmp_path / "quality"], tmp_path / "consistency")
    rule = ClipRule(min_ms=2_000, max_ms=20_000, max_gap_ms=2_000)
    run_stage(CutClips(rule=rule), [tmp_path / "consistency"], tmp_path / "clips", sides={"recordings": tmp_path / "corpus"})
    run_stage(Occurrence(min_share=0.6), [tmp_path / "clips"], tmp_path / "occurrence")
    return tmp_path


def steps(run: Path) -> list[At]:
    kinds: dict[str, type[Segment] | type[Clip]] = {"label": Segment, "quality": Segment, "consistency": Segment}
    return [
        At(name, run / name, kinds.get(name, Clip))
        for name in ("label", "quality", "consistency", "clips", "occurrence", "balance")
    ]


def found(run: Path) -> Funnel:
    return funnel(tables.open_table(run / "corpus", Recording), steps(run))


def test_every_number_is_that_of_the_table(run: Path) -> None:
    made = found(run)
    assert [one.name for one in made.steps] == ["label", "quality", "consistency", "clips", "occurrence"]
    for at, step in zip(steps(run), made.steps, strict=False):
        table = tables.open_table(at.path, at.record)
        rows = list(table.rows())
        segments = [one for row in rows for one in (row.segments if isinstance(row, Clip) else (row,))]
        assert step.rows_in == step.kept + sum(step.dropped.values()) + step.failed
        assert (step.rows, step.segments) == (len(rows), len(segments))
        assert step.row_hours == pytest.approx(sum(row.duration_ms for row in rows) / HOUR_MS)
        assert step.hours == pytest.approx(sum(one.duration_ms for one in segments) / HOUR_MS)
        expected: dict[str, float] = {}
        for one in segments:
            for emotion, share in category_shares([one], "emotion").items():
                expected[emotion] = expected.get(emotion, 0.0) + share * one.duration_ms / HOUR_MS
        assert step.emotion_hours == pytest.approx(expected)
        assert sum(step.emotion_segments.values()) == sum(1 for one in segments if one.category("emotion"))


def test_what_a_step_lost_is_what_its_reasons_lost(run: Path) -> None:
    made = found(run)
    for before, step in zip(made.steps, made.steps[1:], strict=False):
        assert (step.rows_in, step.unit_in) == (before.rows, before.unit)
        gone = before.row_hours - step.row_hours if step.unit_in == "clips" else before.hours - step.hours
        assert sum(step.lost_hours.values()) == pytest.approx(gone)
    quality, consistency = made.steps[1:3]
    assert quality.lost_hours == pytest.approx({"too_noisy": 6_000 / HOUR_MS})
    assert consistency.dropped == {"inconsistent": 1}
    assert consistency.emotion_hours["happy"] == pytest.approx(4_000 / HOUR_MS)


def test_the_first_step_is_counted_in_recordings(run: Path) -> None:
    made = found(run)
    assert (made.recordings, made.recording_hours) == (4, pytest.approx(4 * 60_000 / HOUR_MS))
    assert (made.steps[0].unit_in, made.steps[0].unit) == ("recordings", "segments")
    assert [one.unit for one in made.steps] == ["segments", "segments", "segments", "clips", "clips"]


def test_sources_carry_their_licences_and_what_is_left_of_them(run: Path) -> None:
    made = {(one.name, one.licence): one for one in found(run).sources}
    assert set(made) == {("a", "CC BY 4.0"), ("b", "not stated"), ("b", "MIT | own")}
    assert (made["a", "CC BY 4.0"].recordings_in, made["a", "CC BY 4.0"].recordings) == (2, 2)
    unused = made["b", "MIT | own"]
    assert (unused.recordings_in, unused.recordings, unused.hours) == (1, 0, 0.0)
    assert sum(one.hours for one in made.values()) == pytest.approx(found(run).steps[-1].hours)


def test_a_run_that_stopped_shows_what_is_there(run: Path) -> None:
    (run / "clips" / "_done.json").unlink()
    (run / "occurrence" / "_done.json").unlink()
    assert [one.name for one in found(run).steps] == ["label", "quality", "consistency"]
    empty = funnel(tables.open_table(run / "corpus", Recording), [])
    assert empty.steps == ()
    assert {one.hours for one in empty.sources} == {0.0}


def test_another_record_is_refused(run: Path) -> None:
    with pytest.raises(DataError, match="holds Clip rows, expected Segment"):
        funnel(tables.open_table(run / "corpus", Recording), [At("clips", run / "clips", Segment)])


def test_a_funnel_survives_json(run: Path) -> None:
    made = found(run)
    assert Funnel.model_validate_json(made.model_dump_json()) == made


def test_the_card_names_steps_reasons_emotions_and_licences(run: Path) -> None:
    text = funnel_markdown(found(run))
    assert "| recordings |  |  |  |  | 4 recordings |  | 0.067 |  |" in text
    assert "| quality | 7 segments | 6 | 1 | 0 | 6 segments | 6 | 0.006 | 0.002 |" in text
    assert "| quality | too noisy | 1 segments | 0.002 |" in text
    assert "| consistency | inconsistent | 1 segments | 0.001 |" in text
    assert "| a | CC BY 4.0 | 2 | 0.033 | 2 |" in text
    assert "| b | MIT \\| own | 1 | 0.017 | 0 | 0.000 |" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for lines in blocks:
        assert len({line.count("|") - line.count("\\|") for line in lines}) == 1


def test_the_page_and_the_card_say_the_same(run: Path) -> None:
    """Every cell of every table of the card stands on the page, in the same row, and every emotion of every step in the figure."""
    made = found(run)
    page = render(
        ReportInputs(run=RunFacts(name="r", created="c", seed=0, code_version="v", command="c", machine="m"), funnel=made)
    )
    shown = [
        [
            re.sub("<small>", "\n", re.sub("</small>|<(?!small)[^>]*>", "", cell))
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in re.findall(r"<tr>(.*?)</tr>", page)
    ]
    for sheet in funnel_sheets(made):
        for row in (sheet.columns, *sheet.rows):
            assert list(row) in shown
            assert "| " + " | ".join(one.replace("\n", ", ").replace("|", "\\|") for one in row) + " |" in funnel_markdown(made)


def test_hours_and_segments_by_emotion_add_up_to_those_of_the_step(run: Path) -> None:
    made = found(run)
    steps, _, emotions, _ = funnel_sheets(made)
    for step, by_emotion in zip(steps.rows[1:], emotions.rows, strict=True):
        cells = [one.split(" h\n") for one in by_emotion[1:]]
        assert sum(int(segments) for _, segments in cells) == int(step[6])
        assert sum(float(hours) for hours, _ in cells) == pytest.approx(float(step[7]), abs=0.0005 * (len(cells) + 1))


def test_the_figures_show_every_step_and_reason(run: Path) -> None:
    kept, lost = funnel_figures(found(run))
    assert all(f">{name}</text>" in kept for name in ("recordings", "label", "occurrence"))
    assert ">quality: too noisy</text>" in lost
    assert ">0.002 h, 1 segments</text>" in lost
    nothing = found(run).model_copy(update={"steps": found(run).steps[:1]})
    assert funnel_figures(nothing)[1] == ""


def test_words_of_no_emotion_of_ours_are_not_counted_as_one(tmp_path: Path) -> None:
    made = Fingerprint(stage="label", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "corpus", RECORDINGS[:1], record=Recording, fingerprint=made)
    write_rows(tmp_path / "raw", [segment(0, 0, ("hap", 0.9), ("sad", 0.1))], record=Segment, fingerprint=made)
    (step,) = funnel(tables.open_table(tmp_path / "corpus", Recording), [At("raw", tmp_path / "raw", Segment)]).steps
    assert step.emotion_segments == {"sad": 1}
