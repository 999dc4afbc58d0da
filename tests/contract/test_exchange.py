"""Other tools' formats: out, through the peer's own library, and in again with nothing changed that the format has room for."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.strategies import segments as random_segments
from undertone import audio, tables
from undertone.corpora.plan import Plan, SplitRule
from undertone.errors import AudioError, ConfigError, DataError, DiskFull
from undertone.exchange import (
    AudiofolderCorpus,
    ExchangeCorpus,
    HfDatasetCorpus,
    LabelStudioCorpus,
    LhotseCorpus,
    NemoManifestCorpus,
    PackedSpec,
    RttmCorpus,
    WebDatasetCorpus,
    export,
)
from undertone.exchange.items import Tally, relative
from undertone.exchange.items import items as items_of
from undertone.exchange.rows import row_of, row_schema, segment_row, view
from undertone.execute import write_rows
from undertone.records import HUMAN, Clip, Label, QAPair, Record, Recording, Segment, Word
from undertone.tables import Fingerprint

MODEL = "affect-small@1"
CORPORA: dict[str, type[ExchangeCorpus]] = {
    "hf-dataset": HfDatasetCorpus,
    "audiofolder": AudiofolderCorpus,
    "nemo-manifest": NemoManifestCorpus,
    "lhotse": LhotseCorpus,
    "webdataset": WebDatasetCorpus,
    "rttm": RttmCorpus,
    "label-studio": LabelStudioCorpus,
}
WHOLE = [name for name in CORPORA if name not in ("rttm", "label-studio")]
"""Formats that hold everything."""


# ---- a small run ---------------------------------------------------------------------------------------------------------------


def sound(path: Path, *, seconds: float, rate_hz: int = 16_000, channels: int = 1, hz: float = 220.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), rate_hz)
    return path


def label(attribute: str, value: str | float, start_ms: int, end_ms: int, **more: Any) -> Label:
    kind = "category" if isinstance(value, str) else "number"
    return Label(**{"attribute": attribute, kind: value, "start_ms": start_ms, "end_ms": end_ms, "labeller": HUMAN, **more})


def segment(recording: str, start_ms: int, end_ms: int, text: str, speaker: str | None, *labels: Label) -> Segment:
    tokens = text.split()
    step = (end_ms - start_ms) // max(1, len(tokens))
    words = tuple(
        Word(text=token, start_ms=start_ms + n * step, end_ms=start_ms + (n + 1) * step - 7, confidence=0.5, emotion="sad")
        for n, token in enumerate(tokens)
    )
    return Segment(
        recording_id=recording,
        start_ms=start_ms,
        end_ms=end_ms,
        speaker=speaker,
        transcript=text or None,
        words=words,
        labels=labels,
    )


def human(start_ms: int, end_ms: int, emotion: str, valence: float) -> tuple[Label, ...]:
    return (
        label("emotion", emotion, start_ms, end_ms, distribution={emotion: 0.75, "neutral": 0.25}),
        label("gender", "female", start_ms, end_ms),
        label("valence", valence, start_ms, end_ms),
        label("arousal", 0.25, start_ms, end_ms),
        label("dominance", 0.5, start_ms, end_ms),
    )


def table(folder: Path, rows: Sequence[Record]) -> Path:
    made = Fingerprint(stage="test", version="1", seed=0, config={}, inputs={})
    write_rows(folder, rows, record=type(rows[0]), fingerprint=made, parts=2)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings (one stereo at 44.1 kHz), four clips of two splits, predicted and human labels, questions."""
    run = tmp_path_factory.mktemp("run")
    first = sound(run / "speech" / "a b.wav", seconds=12)
    second = sound(run / "speech" / "b.flac", seconds=8, rate_hz=44_100, channels=2)
    third = sound(run / "speech" / "c.wav", seconds=3, hz=330)
    recordings, clips = [], []
    for path, split, spans in (
        (first, "train", [(1_003, 4_507), (5_001, 9_999)]),
        (second, "test", [(513, 3_777)]),
        (third, "train", []),
    ):
        probe = audio.probe(path)
        key = probe.sha256[:16]
        said = [
            segment(
                key,
                start,
                end,
                f"so it's «{path.stem}» {n}, naïve",
                f"mine/s{n} x" if n else "mine/s0",
                *human(start, end, "happy", 0.7 + n / 10),
            )
            for n, (start, end) in enumerate(spans)
        ]
        recordings.append(
            Recording(
                uri=str(path),
                sha256=probe.sha256,
                rate_hz=probe.rate_hz,
                samples=probe.samples,
                channels=probe.channels,
                source="mine",
                language="en",
                licence="CC0",
                split=split,
                references=tuple(said),
            )
        )
        about = {"recording_id": key, "uri": str(path), "source": "mine", "language": "en", "licence": "CC0", "split": split}
        for one in said:
            window = label(
                "emotion", "angry", one.start_ms + 200, one.end_ms - 200, labeller=MODEL, revision="r1", distribution={"angry": 1.0}
            )
            both = one.model_copy(
                update={"labels": (*one.labels, window, label("valence", 0.125, one.start_ms, one.end_ms, labeller=MODEL))}
            )
            clips.append(Clip(**about, start_ms=one.start_ms - 301, end_ms=one.end_ms + 202, segments=(both,)))
    table(run / "corpus", recordings)
    table(run / "label", [one.model_copy(update={"labels": ()}) for row in recordings for one in row.references])
    clips.append(
        clips[0].model_copy(update={"start_ms": 900, "end_ms": 10_500, "segments": (clips[0].segments[0], clips[1].segments[0])})
    )
    table(run / "clips", clips)
    pairs = [
        QAPair(
            clip_id=clips[index].id,
            recording_id=clips[index].recording_id,
            source="cpqa",
            kind="CE",
            question=f"How does she feel, {n}?",
            answer="Glad.\nVery.",
            label_attribute="emotion",
            label="happy",
            generator="test@1",
        )
        for index, n in ((0, 1), (0, 2), (2, 3))
    ]
    table(run / "pairs", pairs)
    return run


def read(corpus: ExchangeCorpus, out: Path) -> list[Recording]:
    return [PackedSpec.model_validate_json(one.spec).read(one, out) for one in corpus.plan(seed=0)]


def shifted(one: Segment, by_ms: int) -> Segment:
    """A segment as an import should give it: in the time of its clip, without what its words inherited."""
    words = tuple(
        Word(text=word.text, start_ms=word.start_ms - by_ms, end_ms=word.end_ms - by_ms, confidence=word.confidence)
        for word in one.words
    )
    labels = tuple(la.model_copy(update={"start_ms": la.start_ms - by_ms, "end_ms": la.end_ms - by_ms}) for la in one.labels)
    return one.model_copy(
        update={
            "recording_id": "",
            "start_ms": one.start_ms - by_ms,
            "end_ms": one.end_ms - by_ms,
            "words": words,
            "labels": labels,
        }
    )


def comparable(one: Segment) -> dict[str, Any]:
    made = one.model_dump(exclude={"recording_id"})
    made["labels"] = sorted(made["labels"], key=lambda row: (row["attribute"], row["labeller"], row["start_ms"]))
    return made


def utterances(recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    found = [comparable(one) for row in recordings for one in row.references]
    return sorted(found, key=lambda one: (one["transcript"] or "", one["start_ms"], one["end_ms"], one["speaker"] or ""))


def expected(clips: Sequence[Clip], *, relative_to_clip: bool = True) -> list[dict[str, Any]]:
    found = [comparable(shifted(one, clip.start_ms if relative_to_clip else 0)) for clip in clips for one in clip.segments]
    return sorted(found, key=lambda one: (one["transcript"] or "", one["start_ms"], one["end_ms"], one["speaker"] or ""))


def clips_of(run: Path) -> list[Clip]:
    return list(tables.open_table(run / "clips", Clip).rows())


# ---- round trips ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", WHOLE)
def test_everything_comes_back(run: Path, tmp_path: Path, format_: Any) -> None:
    report = export(run / "clips", tmp_path / "out", format=format_, pairs=[run / "pairs"])
    assert (report.items, report.written, report.lost, report.skipped) == (4, 4, {}, {})
    assert report.held == {"segments": 5, "transcripts": 5, "words": 29, "labels": 35, "pairs": 3}
    corpus = CORPORA[format_](path=tmp_path / "out", name="again", labellers=(HUMAN, MODEL))
    plan = corpus.plan_all()
    assert (plan.dropped, plan.note) == ((), "")
    back = read(corpus, tmp_path / "read")
    assert utterances(back) == expected(clips_of(run))
    assert sorted((row.split, row.language, row.licence, row.source) for row in back) == [
        ("test", "en", "CC0", "again"),
        *[("train", "en", "CC0", "again")] * 3,
    ]
    for row in back:
        assert audio.probe(row.uri).sha256 == row.sha256


@pytest.mark.parametrize("format_", WHOLE)
def test_the_cut_sound_is_the_clip(run: Path, tmp_path: Path, format_: Any) -> None:
    export(run / "clips", tmp_path / "out", format=format_)
    back = {
        one.references[0].transcript: one
        for one in read(CORPORA[format_](path=tmp_path / "out"), tmp_path / "read")
        if len(one.references) == 1
    }
    clips = [one for one in clips_of(run) if len(one.segments) == 1]
    assert len(back) == len(clips) == 3
    for clip in clips:
        row = back[clip.segments[0].transcript]
        assert row.rate_hz == audio.probe(clip.uri).rate_hz
        assert abs(row.duration_ms - clip.duration_ms) <= 1
        whole = audio.load(clip.uri, rate_hz=row.rate_hz, start_ms=clip.start_ms, end_ms=clip.end_ms)
        np.testing.assert_allclose(audio.load(row.uri, rate_hz=row.rate_hz).samples, whole.samples, atol=1 / 32_000)


@pytest.mark.parametrize("format_", WHOLE)
def test_only_people_are_believed_unless_told(run: Path, tmp_path: Path, format_: Any) -> None:
    export(run / "clips", tmp_path / "out", format=format_)
    corpus = CORPORA[format_](path=tmp_path / "out")
    back = read(corpus, tmp_path / "read")
    assert {one.labeller for row in back for said in row.references for one in said.labels} == {HUMAN}
    assert {word.emotion for row in back for said in row.references for word in said.words} == {None}
    assert corpus.plan_all().note == f"labels left out, because labellers does not name their labeller: 10 of {MODEL}"


@pytest.mark.parametrize("format_", list(CORPORA))
def test_whole_recordings_are_the_same_recordings(run: Path, tmp_path: Path, format_: Any) -> None:
    report = export(run / "corpus", tmp_path / "out", format=format_)
    assert (report.items, report.written, report.seconds) == (3, 3, 23.0)
    back = read(CORPORA[format_](path=tmp_path / "out"), tmp_path / "read")
    before = list(tables.open_table(run / "corpus", Recording).rows())
    with_turns = [row for row in before if row.references] if format_ in ("rttm", "label-studio") else before
    assert {row.id for row in back} == {row.id for row in with_turns}
    for row in back:
        was = next(one for one in before if one.id == row.id)
        assert [(one.start_ms, one.end_ms) for one in row.references] == [(one.start_ms, one.end_ms) for one in was.references]


@pytest.mark.parametrize("format_", ["nemo-manifest", "lhotse", "label-studio"])
def test_audio_may_stay_where_it_is(run: Path, tmp_path: Path, format_: Any) -> None:
    export(run / "clips", tmp_path / "out", format=format_, audio="reference")
    assert not list((tmp_path / "out").rglob("*.flac"))
    back = read(CORPORA[format_](path=tmp_path / "out", labellers=(HUMAN,)), tmp_path / "read")
    assert {row.uri for row in back} == {clip.uri for clip in clips_of(run)}
    spans = {(one.transcript, one.start_ms, one.end_ms) for row in back for one in row.references}
    assert spans == {(one.transcript, one.start_ms, one.end_ms) for clip in clips_of(run) for one in clip.segments}
    timed = {(word.text, word.start_ms) for row in back for one in row.references for word in one.words}
    assert timed == {(word.text, word.start_ms) for clip in clips_of(run) for one in clip.segments for word in one.words}


@pytest.mark.parametrize("format_", list(CORPORA))
def test_equal_tables_give_equal_bytes_and_segments_need_recordings(run: Path, tmp_path: Path, format_: Any) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report = export(run / "label", tmp_path / name / "out", format=format_)
        assert (report.items, report.held["segments"]) == (2, 3)
    files = sorted(
        one.relative_to(tmp_path / "one") for one in (tmp_path / "one").rglob("*") if one.is_file() and one.name[0] != "."
    )
    assert files
    for file in files:
        if format_ != "lhotse" or "cuts" not in file.name:  # lhotse's paths are absolute
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with pytest.raises(DataError, match=r"segments need the table of their recordings: .*recordings=RUN/corpus"):
        export(run / "label", tmp_path / "no", format=format_, recordings=tmp_path / "absent")
    assert not (tmp_path / "no").exists()


# ---- the peers' own libraries --------------------------------------------------------------------------------------------------


def test_datasets_reads_our_parquet_and_we_read_theirs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    export(run / "clips", tmp_path / "out", format="hf-dataset", pairs=[run / "pairs"])
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 3, "test": 1}
    assert isinstance(loaded["train"].features["audio"], datasets.Audio)
    rows = loaded["train"].cast_column("audio", datasets.Audio(decode=False))
    clip = clips_of(run)[0]
    row = next(one for one in rows if one["id"] == clip.id.replace("@", "-"))
    samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    assert abs(1000 * len(samples) / rate - clip.duration_ms) <= 1
    assert (row["text"], row["speaker"], row["emotion"]) == (clip.transcript, "mine/s0", "happy")
    assert row["segments"][0]["words"][0]["text"] == "so"
    assert [one["answer"] for one in row["qa"]] == ["Glad.\nVery."] * 2
    rows.to_parquet(tmp_path / "theirs" / "train.parquet")
    again = read(HfDatasetCorpus(path=tmp_path / "theirs", labellers=(HUMAN, MODEL)), tmp_path / "read")
    assert utterances(again) == expected([one for one in clips_of(run) if one.split == "train"])


def test_datasets_reads_our_audiofolder(run: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("torchcodec", reason="datasets makes audio columns with it only", exc_type=Exception)
    export(run / "clips", tmp_path / "out", format="audiofolder", pairs=[run / "pairs"])
    loaded = datasets.load_dataset("audiofolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 3, "test": 1}
    row = loaded["test"].cast_column("audio", datasets.Audio(decode=False))[0]
    clip = next(one for one in clips_of(run) if one.split == "test")
    assert abs(soundfile.info(row["audio"]["path"]).duration * 1000 - clip.duration_ms) <= 1
    assert (row["text"], len(row["segments"][0]["labels"]), row["qa"][0]["question"]) == (
        clip.transcript,
        7,
        "How does she feel, 3?",
    )


@pytest.mark.parametrize("where", ["cut", "reference"])
def test_lhotse_reads_our_cuts_and_we_read_theirs(run: Path, tmp_path: Path, where: Any) -> None:
    lhotse = pytest.importorskip("lhotse")
    export(run / "clips", tmp_path / "out", format="lhotse", pairs=[run / "pairs"], audio=where)
    cuts = list(lhotse.CutSet.from_jsonl_lazy(tmp_path / "out" / "cuts_train.jsonl.gz"))
    clips = [one for one in clips_of(run) if one.split == "train"]
    assert len(cuts) == len(clips) == 3
    for cut, clip in zip(cuts, clips, strict=True):
        lhotse.qa.validate(cut)
        assert abs(cut.load_audio().shape[1] / cut.sampling_rate * 1000 - clip.duration_ms) <= 1
        for sup, one in zip(cut.supervisions, clip.segments, strict=True):
            assert round(sup.start * 1000) == one.start_ms - clip.start_ms
            assert (sup.text, sup.speaker, sup.gender) == (one.transcript, one.speaker, "female")
            words = [(word.symbol, round(word.start * 1000), word.score) for word in sup.alignment["word"]]
            assert words == [
                (word.text, word.start_ms - (clip.start_ms if where == "cut" else 0), word.confidence) for word in one.words
            ]
        one_word = cut.trim_to_alignments("word")[0]
        assert round(one_word.start * 1000) == round(cut.start * 1000) + clip.segments[0].words[0].start_ms - clip.start_ms
    assert cuts[0].custom["undertone"]["qa"][0]["kind"] == "CE"
    (tmp_path / "theirs").mkdir()
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "theirs" / "cuts.jsonl.gz")
    again = read(LhotseCorpus(path=tmp_path / "theirs", labellers=(HUMAN, MODEL)), tmp_path / "read")
    if where == "cut":
        assert utterances(again) == expected(clips)
    else:
        assert {one["transcript"]: one for one in utterances(again)} == {
            one["transcript"]: one for one in expected(clips, relative_to_clip=False)
        }


def test_lhotse_cuts_of_a_stereo_file_are_of_all_its_channels(run: Path, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    export(run / "corpus", tmp_path / "out", format="lhotse")
    (cut,) = lhotse.CutSet.from_jsonl_lazy(tmp_path / "out" / "cuts_test.jsonl.gz")
    lhotse.qa.validate(cut)
    assert cut.load_audio().shape == (2, 8 * 44_100)


def test_webdataset_and_datasets_read_our_tars(run: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    export(run / "clips", tmp_path / "out", format="webdataset", pairs=[run / "pairs"])
    samples = list(webdataset.WebDataset(str(tmp_path / "out" / "train-{000000..000000}.tar"), shardshuffle=False))
    clips = [one for one in clips_of(run) if one.split == "train"]
    assert [one["__key__"] for one in samples] == [clip.id.replace("@", "-") for clip in clips]
    for sample, clip in zip(samples, clips, strict=True):
        assert abs(soundfile.info(io.BytesIO(sample["flac"])).duration * 1000 - clip.duration_ms) <= 1
        assert json.loads(sample["json"])["text"] == clip.transcript
    datasets = pytest.importorskip("datasets")
    files = {"train": [str(tmp_path / "out" / "train-000000.tar")]}
    loaded = datasets.load_dataset("webdataset", data_files=files, streaming=True, split="train")
    row = next(iter(loaded.cast_column("flac", datasets.Audio(decode=False))))
    assert (row["json"]["speaker"], row["json"]["segments"][0]["words"][0]["text"]) == ("mine/s0", "so")


def test_we_read_what_webdataset_writes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    sound(tmp_path / "x.flac", seconds=1)
    (tmp_path / "d").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "d" / "val-%06d.tar"), maxcount=1, verbose=0) as sink:
        for name in ("sub/one", "two"):
            sink.write(
                {
                    "__key__": name,
                    "flac": (tmp_path / "x.flac").read_bytes(),
                    "txt": f"text of {name}",
                    "json": {"speaker": "p", "emotion": "joy"},
                }
            )
    back = read(WebDatasetCorpus(path=tmp_path / "d"), tmp_path / "read")
    assert [
        (row.references[0].transcript, row.references[0].speaker, row.references[0].category("emotion"), row.split) for row in back
    ] == [
        ("text of sub/one", "d/p", "happy", "dev"),
        ("text of two", "d/p", "happy", "dev"),
    ]


def test_rttm_is_read_by_pyannote_and_lhotse(run: Path, tmp_path: Path) -> None:
    util = pytest.importorskip("pyannote.database.util")
    report = export(run / "clips", tmp_path / "out", format="rttm", pairs=[run / "pairs"])
    assert report.held == {"segments": 5}
    assert report.lost == {"labels": 35, "pairs": 3, "speaker_names_with_blanks": 2, "transcripts": 5, "words": 29}
    found = util.load_rttm(tmp_path / "out" / "speakers.rttm")
    for clip in clips_of(run):
        turns = [
            (round(turn.start * 1000), round(turn.end * 1000), who)
            for turn, _, who in found[clip.id.replace("@", "-")].itertracks(yield_label=True)
        ]
        assert turns == [
            (one.start_ms - clip.start_ms, one.end_ms - clip.start_ms, one.speaker.replace(" ", "_")) for one in clip.segments
        ]
    lhotse = pytest.importorskip("lhotse")
    assert len(lhotse.SupervisionSet.from_rttm(tmp_path / "out" / "speakers.rttm")) == 5
    back = read(RttmCorpus(path=tmp_path / "out"), tmp_path / "read")
    assert sorted((one.start_ms, one.end_ms, one.speaker) for row in back for one in row.references) == sorted(
        (one.start_ms - clip.start_ms, one.end_ms - clip.start_ms, one.speaker.replace(" ", "_"))
        for clip in clips_of(run)
        for one in clip.segments
    )


def test_label_studio_accepts_our_tasks(run: Path, tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    export(run / "clips", tmp_path / "out", format="label-studio", pairs=[run / "pairs"], url_prefix="/data/local-files/?d=mine/")
    config = interface.LabelInterface((tmp_path / "out" / "config.xml").read_text())
    config.validate()
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert len(tasks) == 4
    for task in tasks:
        assert config.validate_task({"data": task["data"]})
        assert len(task["annotations"]) == len(task["predictions"]) == 1
        for one in task["annotations"]:
            assert config.validate_annotation(one)
        for one in task["predictions"]:
            assert config.validate_prediction(one)
    broken = {"model_version": "m", "result": [{**tasks[0]["predictions"][0]["result"][0], "from_name": "nothing"}]}
    assert not config.validate_prediction(broken)


def test_label_studio_tasks_come_back(run: Path, tmp_path: Path) -> None:
    report = export(
        run / "clips", tmp_path / "out", format="label-studio", pairs=[run / "pairs"], url_prefix="/data/local-files/?d=mine/"
    )
    assert report.lost == {"distributions": 10, "revisions": 5}
    back = read(LabelStudioCorpus(path=tmp_path / "out", labellers=(HUMAN, MODEL)), tmp_path / "read")
    bare = [
        {**one, "labels": [{**la, "distribution": None, "revision": None} for la in one["labels"]]}
        for one in expected(clips_of(run))
    ]
    assert utterances(back) == bare


def test_a_correction_in_label_studio_counts(run: Path, tmp_path: Path) -> None:
    export(run / "clips", tmp_path / "out", format="label-studio")
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    before = tasks[0]["annotations"][0]
    after = json.loads(json.dumps(before))
    for result in after["result"]:
        if result["from_name"] == "emotion":
            result["value"]["choices"] = ["sad"]
        if result["from_name"] == "transcript":
            result["value"]["text"] = ["something else was said"]
    tasks[0]["annotations"] = [before, {**after, "ground_truth": False}, {**before, "was_cancelled": True}]
    tasks[1]["annotations"] = []
    tasks.append("no task")
    tasks.append({"data": {"audio": "a.wav"}, "annotations": [{"result": [{"id": "r", "value": {"start": "now", "end": 1}}]}]})
    (tmp_path / "out" / "tasks.json").write_text(json.dumps(tasks))
    corpus = LabelStudioCorpus(path=tmp_path / "out")
    plan = corpus.plan_all()
    assert [(one.row_id, one.reason) for one in plan.dropped] == [
        ("tasks.json task 0", "other_annotation"),
        ("tasks.json task 1", "not_annotated"),
        ("tasks.json task 4", "bad_row"),
        ("tasks.json task 5", "bad_row"),
    ]
    said = next(
        one for row in read(corpus, tmp_path / "read") for one in row.references if one.transcript == "something else was said"
    )
    assert said.category("emotion") == "sad"
    assert [word.text for word in said.words] == ["something", "else", "was", "said"]
    assert {word.confidence for word in said.words} == {None}  # the times of other words are not theirs


def test_label_studio_projects_of_others(tmp_path: Path) -> None:
    sound(tmp_path / "files" / "talk 1.wav", seconds=4)
    region = {"id": "x", "to_name": "audio", "original_length": 4.0}
    result = [
        {**region, "from_name": "who", "type": "labels", "value": {"start": 0.5, "end": 2.25, "labels": ["Ann"]}},
        {
            **region,
            "from_name": "transcription",
            "type": "textarea",
            "value": {"start": 0.5, "end": 2.25, "text": ["hello", "there"]},
        },
        {**region, "from_name": "mood", "type": "choices", "value": {"start": 0.5, "end": 2.25, "choices": ["joy"]}},
        {**region, "from_name": "noisy", "type": "choices", "value": {"start": 0.5, "end": 2.25, "choices": ["yes"]}},
        {"id": "y", "from_name": "overall", "to_name": "audio", "type": "choices", "value": {"choices": ["good"]}},
    ]
    task = {"id": 7, "data": {"sound": "/data/upload/3/0a1b2c3d-talk%201.wav"}, "annotations": [{"id": 1, "result": result}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    corpus = LabelStudioCorpus(
        path=tmp_path / "export.json", name="talks", columns={"audio": "sound", "emotion": "mood"}, audio_root=tmp_path / "files"
    )
    with pytest.raises(DataError, match=r"lacks the column gender \(as 'sex'\); it has sound, who, transcription, mood"):
        corpus.model_copy(update={"columns": {"audio": "sound", "gender": "sex"}}).plan(seed=0)
    (row,) = read(corpus, tmp_path)
    (one,) = row.references
    assert (one.start_ms, one.end_ms, one.speaker, one.transcript) == (500, 2_250, "talks/Ann", "hello there")
    assert (one.category("emotion"), one.category("noisy")) == ("happy", "yes")


def test_nemo_lines_are_what_nemo_reads(run: Path, tmp_path: Path) -> None:
    export(run / "clips", tmp_path / "out", format="nemo-manifest", pairs=[run / "pairs"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "train_manifest.json").read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        # What nemo.collections.common.parts.preprocessing.manifest asks of a line, and that the stretch lies in its file.
        assert isinstance(line["text"], str)
        info = soundfile.info(tmp_path / "out" / line["audio_filepath"])
        assert 0 <= line["offset"] < line["offset"] + line["duration"] <= info.duration + 0.001
    talks = [json.loads(line) for line in (tmp_path / "out" / "conversations.json").read_text().splitlines()]
    assert [[turn["type"] for turn in talk["conversations"]] for talk in talks] == [["audio", "text", "text"]] * 3
    assert (tmp_path / "out" / talks[0]["conversations"][0]["value"]).is_file()


# ---- datasets of others --------------------------------------------------------------------------------------------------------


def hf(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    file: str = "data/train-00000-of-00001.parquet",
    classes: dict[str, list[str]] | None = None,
) -> Path:
    for number, row in enumerate(rows):
        if "audio" not in row:
            content = sound(folder / "tmp.wav", seconds=1 + number / 10).read_bytes()
            row["audio"] = {"bytes": content, "path": None}
    made = pa.Table.from_pylist(rows)
    if classes:
        features = {name: {"names": words, "_type": "ClassLabel"} for name, words in classes.items()}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, folder / file, row_group_size=2)
    return folder


def test_a_usual_dataset_of_the_hub(tmp_path: Path) -> None:
    rows = [{"sentence": f"text {n}", "who": n % 2, "label": n % 2, "valence": n / 4, "extra": "x"} for n in range(4)]
    hf(tmp_path / "d", rows, classes={"label": ["joy", "wut"]})
    settings_ = {"path": tmp_path / "d", "name": "hub", "columns": {"text": "sentence", "speaker": "who", "emotion": "label"}}
    with pytest.raises(DataError, match=r"emotions 'wut' \(2 rows\) are not known; .*emotions: \{wut: neutral\}"):
        HfDatasetCorpus.model_validate(settings_).plan(seed=0)
    corpus = HfDatasetCorpus.model_validate({**settings_, "emotions": {"wut": "angry"}, "hold_out": {"test_speakers": ["1"]}})
    back = read(corpus, tmp_path / "read")
    said = [row.references[0] for row in back]
    assert [(one.transcript, one.speaker, one.category("emotion"), one.number("valence")) for one in said] == [
        ("text 0", "hub/0", "happy", 0.0),
        ("text 1", "hub/1", "angry", 0.25),
        ("text 2", "hub/0", "happy", 0.5),
        ("text 3", "hub/1", "angry", 0.75),
    ]
    assert [row.split for row in back] == ["train", "test", "train", "test"]
    assert sorted({row.duration_ms for row in back}) == [1_000, 1_100, 1_200, 1_300]


def test_bad_rows_are_counted_and_the_others_read(tmp_path: Path) -> None:
    rows = [
        {"text": "good", "valence": 0.5, "start_s": None, "end_s": None},
        {"text": "too much", "valence": 7.0, "start_s": None, "end_s": None},
        {"text": "half", "valence": None, "start_s": 0.1, "end_s": None},
        {"text": "backwards", "valence": None, "start_s": 0.5, "end_s": 0.1},
        {"text": "endless", "valence": None, "start_s": 0.5, "end_s": float("inf")},
        {"text": None, "valence": float("nan"), "start_s": None, "end_s": None},
    ]
    plan = HfDatasetCorpus(path=hf(tmp_path / "d", rows)).plan_all()
    assert [one.reason for one in plan.dropped] == ["bad_row"] * 4
    assert plan.note == "4 rows left out: 4 bad_row"
    details = " | ".join(one.detail or "" for one in plan.dropped)
    for part in ("valence: got 7.0", "only one of start_s and end_s", "from 500 to 100 ms", "end_s is inf"):
        assert part in details
    assert [len(PackedSpec.model_validate_json(one.spec).utterances) for one in plan.rows] == [1, 0]


def test_unreadable_sound_fails_alone(tmp_path: Path) -> None:
    rows = [
        {"audio": {"bytes": b"no audio", "path": "x.wav"}},
        {"audio": {"bytes": None, "path": None}},
        {"audio": {"bytes": None, "path": "gone.wav"}},
    ]
    planned = HfDatasetCorpus(path=hf(tmp_path / "d", rows)).plan(seed=0)
    for one, message in zip(planned, ["cannot be decoded", "neither bytes nor path", "gone.wav: no such file"], strict=True):
        with pytest.raises(AudioError, match=message):
            PackedSpec.model_validate_json(one.spec).read(one, tmp_path / "read")


def test_an_edit_beside_the_segments_never_goes_unnoticed(run: Path, tmp_path: Path) -> None:
    export(run / "clips", tmp_path / "out", format="audiofolder")
    file = tmp_path / "out" / "test" / "metadata.parquet"
    edited = pq.read_table(file).to_pylist()
    edited[0]["emotion"] = "sad"
    pq.write_table(pa.Table.from_pylist(edited, schema=pq.read_schema(file)), file)
    plan = AudiofolderCorpus(path=tmp_path / "out").plan_all()
    assert [(one.reason, (one.detail or "")[:27]) for one in plan.dropped] == [("bad_row", "emotion differ from segment")]
    bare = pq.read_table(file).drop_columns(["segments"])
    pq.write_table(bare, file)
    back = read(AudiofolderCorpus(path=tmp_path / "out"), tmp_path / "read")
    assert [row.references[0].category("emotion") for row in back if row.split == "test"] == ["sad"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_audiofolders_written_by_hand(tmp_path: Path, name: str) -> None:
    rows = [
        {"file_name": "x.wav", "text": "so, it is", "speaker": "p1", "start_s": 0.5, "end_s": 1.25},
        {"file_name": "x.wav", "text": "later", "speaker": "p2", "start_s": 2, "end_s": 3},
        {"file_name": "", "text": "no file", "speaker": "p1", "start_s": 0, "end_s": 1},
    ]
    sound(tmp_path / "d" / "dev" / "x.wav", seconds=4)
    if name.endswith("csv"):
        lines = [
            "file_name,text,speaker,start_s,end_s",
            *(f'{r["file_name"]},"{r["text"]}",{r["speaker"]},{r["start_s"]},{r["end_s"]}' for r in rows),
        ]
    else:
        lines = [*(json.dumps(row) for row in rows), "{broken", "[1]"]
    (tmp_path / "d" / "dev" / name).write_text("\n".join(lines))
    corpus = AudiofolderCorpus(path=tmp_path / "d")
    (row,) = read(corpus, tmp_path / "read")
    assert row.split == "dev"
    assert [(one.start_ms, one.end_ms, one.speaker, one.transcript) for one in row.references] == [
        (500, 1_250, "d/p1", "so, it is"),
        (2_000, 3_000, "d/p2", "later"),
    ]
    reasons = [one.reason for one in corpus.plan_all().dropped]
    assert reasons == (["no_file"] if name.endswith("csv") else ["no_file", "not_json", "not_an_object"])


def test_folders_of_an_audiofolder_are_labels(tmp_path: Path) -> None:
    for emotion in ("angry", "joy"):
        sound(tmp_path / "d" / "train" / emotion / "x.wav", seconds=1)
    back = read(AudiofolderCorpus(path=tmp_path / "d", columns={"emotion": "label"}), tmp_path / "read")
    assert [(row.references[0].category("emotion"), row.split) for row in back] == [("angry", "train"), ("happy", "train")]


def test_nemo_manifests_of_others(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "wav" / "x.wav", seconds=2)
    lines = [
        {"audio_filepath": "wav/x.wav", "duration": 2.0, "text": "all of it", "speaker": 3, "pred_text": "ignored"},
        {"audio_filepath": str(tmp_path / "d" / "wav" / "y.wav"), "offset": 0.25, "duration": 0.5, "text": "a part"},
        {"text": "no file"},
        {"audio_filepath": "wav/x.wav", "offset": "soon", "duration": 1},
    ]
    sound(tmp_path / "d" / "wav" / "y.wav", seconds=1)
    (tmp_path / "d" / "dev_manifest.json").write_text("\n".join(map(json.dumps, lines)))
    corpus = NemoManifestCorpus(path=tmp_path / "d", language="pl")
    plan = corpus.plan_all()
    assert [(one.row_id, one.reason) for one in plan.dropped] == [
        ("dev_manifest.json line 3", "no_audio_filepath"),
        ("dev_manifest.json line 4", "bad_row"),
    ]
    back = {Path(row.uri).name: row for row in read(corpus, tmp_path / "read")}
    assert {name: (row.split, row.language) for name, row in back.items()} == {"x.wav": ("dev", "pl"), "y.wav": ("dev", "pl")}
    assert (back["x.wav"].references[0].speaker, back["y.wav"].references[0].start_ms, back["y.wav"].references[0].end_ms) == (
        "d/3",
        250,
        750,
    )


def test_lhotse_manifests_of_others(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(sound(tmp_path / "x.wav", seconds=6))
    words = [lhotse.supervision.AlignmentItem("hi", 3.1, 0.3), lhotse.supervision.AlignmentItem("you", 3.5, 0.4)]
    sup = lhotse.SupervisionSegment(
        "s", recording.id, 3.0, 1.5, text="hi you", speaker="p", gender="M", alignment={"word": words}, custom={"emotion": "hap"}
    )
    whole = lhotse.MonoCut("c", 0, 6, 0, recording=recording, supervisions=[sup])
    part = whole.truncate(offset=2.0, duration=3.0)
    cuts = [whole.pad(8.0), part, whole.perturb_speed(1.1)]
    (tmp_path / "d").mkdir()
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "d" / "my_cuts_test.jsonl")
    corpus = LhotseCorpus(path=tmp_path / "d")
    assert [one.reason for one in corpus.plan_all().dropped] == ["not_a_cut_of_one_recording", "audio_not_in_a_file"]
    with pytest.raises(DataError, match=r"lacks the column emotion \(as 'mood'\); it has emotion"):
        LhotseCorpus(path=tmp_path / "d", columns={"emotion": "mood"}).plan(seed=0)
    (row,) = read(corpus, tmp_path / "read")
    (one,) = row.references
    assert (row.split, one.start_ms, one.end_ms, one.category("gender"), one.category("emotion")) == (
        "test",
        3_000,
        4_500,
        "male",
        "happy",
    )
    assert [(word.text, word.start_ms, word.end_ms) for word in one.words] == [("hi", 3_100, 3_400), ("you", 3_500, 3_900)]


@pytest.mark.parametrize("kind", sorted(CORPORA))
def test_what_is_missing_is_said(tmp_path: Path, kind: str) -> None:
    corpus = CORPORA[kind]
    assert corpus.model_fields["kind"].default == kind
    with pytest.raises(DataError, match=f"does not exist; expected a dataset of kind {kind}"):
        corpus(path=tmp_path / "absent").plan(seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no|does not exist"):
        corpus(path=tmp_path / "empty").plan(seed=0)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    hf(tmp_path / "d", [{"text": "x"}])
    with pytest.raises(DataError, match=r"has no column 'sound'; it has text, audio\. Name the column"):
        HfDatasetCorpus(path=tmp_path / "d", audio="sound").plan(seed=0)
    with pytest.raises(DataError, match=r"column 'text' is string, expected \{bytes, path\}"):
        HfDatasetCorpus(path=tmp_path / "d", audio="text").plan(seed=0)
    with pytest.raises(DataError, match=r"lacks the column text \(as 'sentence'\); it has text"):
        HfDatasetCorpus(path=tmp_path / "d", columns={"text": "sentence"}).plan(seed=0)
    with pytest.raises(DataError, match="held-out speakers nobody are not in the corpus"):
        HfDatasetCorpus(path=tmp_path / "d", hold_out=SplitRule(test_speakers=("nobody",))).plan(seed=0)
    for name, corpus, message in (
        ("x.parquet", HfDatasetCorpus, "cannot be read as Parquet"),
        ("x.tar", WebDatasetCorpus, "cannot be read as an uncompressed tar"),
        ("tasks.json", LabelStudioCorpus, "is not JSON"),
        ("manifest.json", NemoManifestCorpus, "is not a NeMo manifest"),
        ("cuts.jsonl.gz", LhotseCorpus, "cannot be read"),
    ):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match=message):
            corpus(path=tmp_path / name).plan(seed=0)
    (tmp_path / "whole.tar.gz").write_bytes(gzip.compress(b"x" * 2_000))
    with pytest.raises(DataError, match="unpack its compression first: gunzip"):
        WebDatasetCorpus(path=tmp_path / "whole.tar.gz").plan(seed=0)


def test_tars_are_not_trusted(tmp_path: Path) -> None:
    content = sound(tmp_path / "x.wav", seconds=1).read_bytes()
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        for name, data in (
            ("../../evil.wav", content),
            ("a.json", b"[1]"),
            ("a.wav", content),
            ("b.json", b"{}"),
            ("c", b"x"),
            ("d.wav", content),
            ("f.json", b"{}"),
            ("d.wav", content[:100]),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("e.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    corpus = WebDatasetCorpus(path=tmp_path / "d.tar")
    plan = corpus.plan_all()
    assert sorted(one.reason for one in plan.dropped) == ["bad_row", "no_audio", "no_audio", "no_audio", "same_key"]
    back = read(corpus, tmp_path / "read")
    assert len(back) == 2
    assert {Path(row.uri).parent for row in back} == {tmp_path / "read" / "audio"}
    assert not list(tmp_path.parent.glob("evil*"))


def test_a_truncated_tar_or_a_changed_file_fails_alone(run: Path, tmp_path: Path) -> None:
    export(run / "clips", tmp_path / "out", format="webdataset")
    file = tmp_path / "out" / "train-000000.tar"
    planned = WebDatasetCorpus(path=file).plan(seed=0)
    file.write_bytes(file.read_bytes()[:2_000])
    with pytest.raises(AudioError, match=r"truncated: .* should have"):
        PackedSpec.model_validate_json(planned[-1].spec).read(planned[-1], tmp_path / "read")
    with pytest.raises(DataError, match="cannot be read as an uncompressed tar"):
        WebDatasetCorpus(path=file).plan(seed=0)


def test_one_recording_is_on_one_side(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "x.wav", seconds=3)
    sound(tmp_path / "d" / "y.wav", seconds=3)
    line = "SPEAKER {} 1 {} 1 <NA> <NA> {} <NA> <NA>"
    turns = [("x", 0, "a"), ("x", 1, "b"), ("y", 0, "a"), ("y", "1e400", "a"), ("z", 0, "a")]
    (tmp_path / "d" / "t.rttm").write_text(
        "\n".join([";; a comment", *(line.format(*one) for one in turns), "LEXEME x 1 0 1 hi lex a <NA> <NA>", "x"])
    )
    plan = RttmCorpus(path=tmp_path / "d", hold_out=SplitRule(test_speakers=("b",))).plan_all()
    assert sorted(one.reason for one in plan.dropped) == ["bad_row", "bad_row", "no_audio", "not_a_speaker_line", "two_splits"]
    assert [(one.key, one.split) for one in plan.rows] == [("y.wav", "train")]


# ---- writing -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", list(CORPORA))
def test_a_folder_is_written_whole_or_not_at_all(run: Path, tmp_path: Path, format_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report = export(run / "clips", tmp_path / "out", format=format_)
    assert json.loads((tmp_path / "out" / ".undertone-export.json").read_text()) == json.loads(report.model_dump_json())
    before = sorted((one.relative_to(tmp_path), one.stat().st_size) for one in tmp_path.rglob("*"))
    with pytest.raises(DataError, match="exists already; choose another folder, or say overwrite"):
        export(run / "clips", tmp_path / "out", format=format_)

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(audio, "write", fails)
        with pytest.raises(DiskFull, match="No space left on device"):
            export(run / "clips", tmp_path / "out", format=format_, overwrite=True)
    assert sorted((one.relative_to(tmp_path), one.stat().st_size) for one in tmp_path.rglob("*")) == before
    assert export(run / "corpus", tmp_path / "out", format=format_, overwrite=True).written == 3
    assert len(list(tmp_path.iterdir())) == 1


def test_only_an_export_is_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "letters").mkdir(parents=True)
    with pytest.raises(DataError, match=r"is not an export of undertone .* and is not replaced"):
        export(run / "clips", tmp_path / "home", format="lhotse", overwrite=True)
    assert (tmp_path / "home" / "letters").is_dir()


def test_wrong_requests_are_refused_before_any_work(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format 'csv' is not known; expected one of hf-dataset, audiofolder"):
        export(run / "clips", tmp_path / "out", format="csv")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="webdataset holds its audio and cannot reference it"):
        export(run / "clips", tmp_path / "out", format="webdataset", audio="reference")
    with pytest.raises(DataError, match=r"holds QAPair rows; expected a table of Clip, Recording or Segment rows"):
        export(run / "pairs", tmp_path / "out", format="lhotse")
    with pytest.raises(DataError, match="does not exist"):
        export(run / "nothing", tmp_path / "out", format="lhotse")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_counted(run: Path, tmp_path: Path) -> None:
    clips = clips_of(run)
    gone = clips[0].model_copy(update={"uri": str(tmp_path / "gone.wav"), "end_ms": 4_999})
    table(tmp_path / "clips", [gone, clips[1], clips[1], clips[2]])
    report = export(tmp_path / "clips", tmp_path / "out", format="nemo-manifest", pairs=[run / "pairs"])
    assert (report.items, report.written) == (4, 2)
    assert report.skipped == {"same_key": 1, "unreadable_audio": 1}
    assert report.lost == {"pairs_about_no_exported_clip": 2}
    assert "gone.wav: no such file" in report.problems[0]
    table(tmp_path / "none", [gone])
    with pytest.raises(DataError, match=r"nothing of .* could be exported: .*gone\.wav"):
        export(tmp_path / "none", tmp_path / "out2", format="hf-dataset")
    assert not (tmp_path / "out2").exists()


def test_shards_end_where_they_are_full(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from undertone.exchange import hf_dataset, webdataset_tar

    monkeypatch.setattr(hf_dataset, "ROW_GROUP_BYTES", 1)
    monkeypatch.setattr(hf_dataset, "SHARD_BYTES", 1)
    monkeypatch.setattr(webdataset_tar, "SHARD_ITEMS", 2)
    export(run / "clips", tmp_path / "hf", format="hf-dataset")
    assert sorted(one.name for one in (tmp_path / "hf" / "data").iterdir()) == [
        "test-00000-of-00001.parquet",
        *[f"train-0000{n}-of-00003.parquet" for n in range(3)],
    ]
    export(run / "clips", tmp_path / "tar", format="webdataset")
    assert sorted(one.name for one in (tmp_path / "tar").glob("*.tar")) == [
        "test-000000.tar",
        "train-000000.tar",
        "train-000001.tar",
    ]
    for name, corpus in (("hf", HfDatasetCorpus), ("tar", WebDatasetCorpus)):
        back = read(corpus(path=tmp_path / name, labellers=(HUMAN, MODEL)), tmp_path / f"read-{name}")
        assert utterances(back) == expected(clips_of(run))


# ---- random clips --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sound(tmp_path_factory.mktemp("sound") / "long.wav", seconds=22, rate_hz=8_000)


@pytest.mark.parametrize("format_", WHOLE)
@settings(max_examples=12)
@given(said=st.lists(random_segments(), min_size=1, max_size=4), start=st.integers(0, 500))
def test_random_clips_come_back(
    long_sound: Path, tmp_path_factory: pytest.TempPathFactory, format_: Any, said: list[Segment], start: int
) -> None:
    tmp = tmp_path_factory.mktemp("random")
    said = list({(one.start_ms, one.end_ms): one for one in said}.values())
    clip = Clip(recording_id="r0", uri=str(long_sound), source="x", start_ms=start, end_ms=21_000, segments=tuple(said))
    table(tmp / "clips", [clip])
    report = export(tmp / "clips", tmp / "out", format=format_)
    (item,) = items_of(tmp / "clips", recordings=None, pairs=[], tally=Tally())
    inside = relative(item, offset_ms=start, end_ms=21_000, tally=Tally())
    assert report.held.get("segments", 0) + report.lost.get("segments_outside_the_audio", 0) == len(said)
    corpus = CORPORA[format_](path=tmp / "out", name="x", labellers=("random@1",))
    (back,) = read(corpus, tmp / "read")
    assert [(one.start_ms, one.end_ms, one.transcript) for one in back.references] == [
        (one.start_ms, one.end_ms, (one.transcript or "").strip() or None)
        for one in sorted(inside, key=lambda one: (one.start_ms, one.end_ms))
    ]
    for one, was in zip(back.references, sorted(inside, key=lambda one: (one.start_ms, one.end_ms)), strict=True):
        assert {la.model_dump_json() for la in one.labels} == {la.model_dump_json() for la in was.labels}
        assert [word.text for word in one.words] == [word.text for word in was.words] or not was.words


@given(st.lists(random_segments(), max_size=4))
def test_rows_fit_their_schema_and_their_own_view(said: list[Segment]) -> None:
    from undertone.exchange.items import Item

    item = Item(
        key="k", uri=Path("x"), recording_id="r0", source="s", language=None, licence=None, split=None, segments=tuple(said)
    )
    row = row_of(item, said, duration_ms=1_000)
    again = pa.Table.from_pylist([row], schema=row_schema()).to_pylist()[0]
    assert again == row
    assert {name: again[name] for name in view([])} == view(again["segments"])


def test_plain_columns_sum_up_by_time() -> None:
    said = [
        segment("", 0, 1_000, "so", "a", label("emotion", "happy", 0, 1_000), label("valence", 1.0, 0, 1_000)),
        segment("", 1_000, 4_000, "it is", "b", label("emotion", "sad", 1_000, 4_000), label("valence", 0.0, 1_000, 4_000)),
    ]
    rows = [segment_row(one) for one in said]
    nothing = {"gender": None, "arousal": None, "dominance": None}
    assert view(rows) == {"text": "so it is", "speaker": None, "emotion": "sad", "valence": 0.25, **nothing}
    assert view(rows[:1]) == {"text": "so", "speaker": "a", "emotion": "happy", "valence": 1.0, **nothing}


def test_no_format_loads_its_tool() -> None:
    heavy = ("torch", "datasets", "lhotse", "webdataset", "pyannote", "label_studio_sdk", "transformers", "pandas")
    code = f"import sys, undertone.exchange; print([one for one in {heavy!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_is_small(run: Path, tmp_path: Path) -> None:
    """Planning reads no sound: the bytes of a row group's audio stay on disk."""
    export(run / "clips", tmp_path / "out", format="hf-dataset")
    plan: Plan = HfDatasetCorpus(path=tmp_path / "out").plan_all()
    assert max(len(one.spec) for one in plan.rows) < 6_000
