"""Corpora: manifests read with care, assembled recordings with exact truth, nothing lost on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from undertone import audio, tables
from undertone.corpora.assemble import AssembledCorpus
from undertone.corpora.emotions import FROM_CORPUS, to_emotion
from undertone.corpora.folder import FileSpec, FolderCorpus, speech_bounds, speech_bounds_of
from undertone.corpora.plan import Planned, SplitRule, Spoken, speakers_on_both_sides, spread
from undertone.corpora.stage import Deduplicate, ReadCorpus
from undertone.errors import DataError
from undertone.execute import run_stage, write_rows
from undertone.records import EMOTIONS, HUMAN, Label, Recording, Word
from undertone.tables import Fingerprint

RATE = 16_000


def tone(path: Path, *, hz: float = 220.0, seconds: float = 1.0, lead: float = 0.2, level: float = 0.3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    at = np.arange(int(RATE * seconds)) / RATE
    silence = np.zeros(int(RATE * lead), np.float32)
    audio.write(path, audio.Wave(np.concatenate([silence, level * np.sin(2 * np.pi * hz * at).astype(np.float32), silence]), RATE))
    return path


def corpus(folder: Path, rows: Iterable[dict[str, str]], *, audio_too: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(row.get(name, "") for name in names) for row in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines))
    if audio_too:
        for number, row in enumerate(rows):
            tone(folder / row["file"], hz=150 + 7 * number)
    return folder


def speakers(count: int = 4, each: int = 6) -> list[dict[str, str]]:
    emotions = ["happy", "sad", "angry", "neutral"]
    return [
        {
            "file": f"s{s}-{n}.flac",
            "speaker": f"s{s}",
            "text": f"word number {n}",
            "emotion": emotions[(s + n) % 4],
            "gender": "f" if s % 2 else "m",
        }
        for s in range(count)
        for n in range(each)
    ]


def read(planned: list[Planned], out: Path) -> list[Recording]:
    made = Fingerprint(stage="plan", version="1", seed=0, config={}, inputs={})
    write_rows(out / "plan", planned, record=Planned, fingerprint=made, parts=3)
    run_stage(ReadCorpus(), [out / "plan"], out / "read")
    return list(tables.open_table(out / "read", Recording).rows())


def test_a_manifest_becomes_references(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "mine", speakers(1, 2))
    rows = read(FolderCorpus(path=folder, language="en", licence="CC0").plan(seed=0), tmp_path / "out")
    first = rows[0].references[0]
    assert (first.speaker, first.transcript, first.category("emotion"), first.category("gender")) == (
        "mine/s0",
        "word number 0",
        "happy",
        "male",
    )
    assert (first.start_ms, first.end_ms) == (200, 1200)
    assert {label.labeller for label in first.labels} == {HUMAN}
    assert (rows[0].language, rows[0].licence, rows[0].source, rows[0].split) == ("en", "CC0", "mine", "train")
    assert [word.text for word in first.words] == ["word", "number", "0"]


def test_a_folder_without_manifest_is_raw_speech(tmp_path: Path) -> None:
    tone(tmp_path / "raw" / "a" / "one.wav")
    tone(tmp_path / "raw" / "two.flac")
    (tmp_path / "raw" / "notes.txt").write_text("no audio")
    rows = read(FolderCorpus(path=tmp_path / "raw").plan(seed=0), tmp_path / "out")
    assert [Path(row.uri).name for row in rows] == ["one.wav", "two.flac"]
    assert all(row.references == () for row in rows)


def test_jsonl_manifests_and_renamed_columns(tmp_path: Path) -> None:
    tone(tmp_path / "c" / "x.wav", seconds=3)
    row = {"path": "x.wav", "who": "p1", "start_s": 0.5, "end_s": 2.25, "feeling": "joy", "text": "hello"}
    (tmp_path / "c" / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    settings = FolderCorpus(path=tmp_path / "c", columns={"file": "path", "speaker": "who", "emotion": "feeling"})
    reference = read(settings.plan(seed=0), tmp_path / "out")[0].references[0]
    assert (reference.start_ms, reference.end_ms, reference.category("emotion"), reference.speaker) == (500, 2250, "happy", "c/p1")


def test_several_utterances_in_one_file_make_one_recording(tmp_path: Path) -> None:
    tone(tmp_path / "c" / "x.wav", seconds=3)
    rows = [
        {"file": "x.wav", "speaker": "a", "start_s": "2", "end_s": "3", "text": "later"},
        {"file": "x.wav", "speaker": "b", "start_s": "0", "end_s": "1.5", "text": "sooner"},
    ]
    found = read(FolderCorpus(path=corpus(tmp_path / "c", rows, audio_too=False)).plan(seed=0), tmp_path / "out")
    assert [one.transcript for one in found[0].references] == ["sooner", "later"]


@pytest.mark.parametrize(
    ("header", "row", "settings", "message"),
    [
        ("path,text", "x.wav,hi", {}, r"lacks the column file \(as 'file'\); it has path, text\. Name its columns"),
        ("file,emotion", "x.wav,furious", {}, r"emotions 'furious' are not known; expected angry.*emotions: \{furious: neutral\}"),
        ("file,text", "x.wav,hi", {"columns": {"text": "words"}}, r"lacks the column text \(as 'words'\)"),
        (
            "file,speaker",
            "x.wav,a",
            {"hold_out": {"test_speakers": ["b"]}},
            r"held-out speakers b are not in the corpus; its speakers are a",
        ),
        ("file,split", "x.wav,validation", {}, r"split is 'validation', expected train, dev or test"),
        ("file,start_s,end_s", "x.wav,zero,1", {}, r"is 'zero', expected seconds"),
        ("file,text", ",hi", {}, r"rows without a file: lines 2"),
        ("file,start_s,end_s", "x.wav,0,inf", {}, r"x\.wav: a time in the manifest is 'inf', expected seconds as a finite"),
        ("file,start_s,end_s", "x.wav,nan,1", {}, r"is 'nan', expected seconds as a finite"),
        ("file,start_s,end_s", "x.wav,0,1e308", {}, r"is '1e308', expected seconds as a finite"),
        ("file,start_s,end_s", "x.wav,0.5,", {}, r"start_s '0.5' and end_s None; give both or none"),
        ("file,end_s", "x.wav,2", {}, r"start_s None and end_s '2'; give both or none"),
        ("file,gender", "x.wav,alien\ny.wav,F\nz.wav,\nw.wav,?", {}, r"genders '\?', 'alien' are not known; expected f, female"),
        ("file,text", "", {}, r"manifest\.csv has no rows; expected a row per utterance"),
        ("path,text", "x.wav,hi, there", {}, r"more cells than its header: lines 2; expected 2 cells\. Put text"),
        ("path,text", "x.wav,hi,,", {}, r"lacks the column file \(as 'file'\); it has path, text\. Name"),
        ("file,text", 'x.wav,"' + "never closed " * 20_000, {}, r"manifest\.csv line \d+ is not CSV: field larger"),
    ],
)
def test_bad_manifests_say_what_is_wrong(tmp_path: Path, header: str, row: str, settings: dict[str, object], message: str) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(DataError, match=message):
        FolderCorpus.model_validate({"path": tmp_path / "c", **settings}).plan(seed=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.csv", "file,text\nx.wav,café\n".encode("latin-1"), r"csv is not UTF-8: byte 0xe9 at position 19; expected"),
        ("manifest.jsonl", '{"file": "é"}'.encode("latin-1"), r"jsonl is not UTF-8: byte 0xe9 at position 10; expected"),
        ("manifest.jsonl", b'{"file": "x.wav"}\n["y.wav"]\n', r"line 2 is '\[\"y\.wav\"\]'; expected one JSON object per line"),
        ("manifest.jsonl", b'{"file": "x.wav", "start_s": 1' + b"0" * 5_000 + b"}", r"line 1 is not JSON: .*expected one object"),
        ("manifest.jsonl", b"\n", r"manifest\.jsonl has no rows"),
        ("manifest.csv", b"", r"manifest\.csv has no rows"),
    ],
)
def test_unreadable_manifests_say_what_is_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        FolderCorpus(path=tmp_path).plan(seed=0)


def test_gender_words_are_ours_or_empty(tmp_path: Path) -> None:
    words = ["f", "Female", "woman", "M", "male", " man ", ""]
    rows = [{"file": f"{number}.wav", "speaker": "a", "gender": word} for number, word in enumerate(words)]
    found = FolderCorpus(path=corpus(tmp_path / "c", rows, audio_too=False)).utterances()
    assert [spoken[0].gender for _, spoken, _ in found] == ["female"] * 3 + ["male"] * 3 + [None]


def test_a_line_separator_inside_a_json_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(
        json.dumps({"file": "x.wav", "text": "a\u2028b"}, ensure_ascii=False), encoding="utf-8"
    )
    assert FolderCorpus(path=tmp_path).utterances()[0][1][0].text == "a\u2028b"


def test_a_changed_file_changes_the_stamp_and_not_the_id(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "acted", speakers())
    settings: list[FolderCorpus | AssembledCorpus] = [FolderCorpus(path=folder), assembled(tmp_path)]
    before = [one.plan(seed=1) for one in settings]
    assert [one.plan(seed=1) for one in settings] == before
    for file in folder.glob("*.flac"):
        os.utime(file, ns=(0, 1_000))
    after = [one.plan(seed=1) for one in settings]
    assert after[0][0].stamp == f"{(folder / after[0][0].key).stat().st_size}-1000"
    for old, new in zip(before, after, strict=True):
        assert [row.id for row in old] == [row.id for row in new]
        assert all(a.stamp and b.stamp and a.stamp != b.stamp for a, b in zip(old, new, strict=True))
    (folder / after[0][0].key).unlink()
    assert FolderCorpus(path=folder).plan(seed=1)[0].stamp is None
    assert "stamp" in Planned.volatile


def test_missing_and_empty_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        FolderCorpus(path=tmp_path / "none").plan(seed=0)
    with pytest.raises(DataError, match="holds no audio: expected files ending in"):
        FolderCorpus(path=tmp_path).plan(seed=0)


def test_corrupt_and_missing_files_fail_alone(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "c", speakers(1, 4))
    (folder / "s0-1.flac").write_bytes(b"not audio at all")
    (folder / "s0-2.flac").unlink()
    made = Fingerprint(stage="plan", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "plan", FolderCorpus(path=folder).plan(seed=0), record=Planned, fingerprint=made)
    report = run_stage(ReadCorpus(), [tmp_path / "plan"], tmp_path / "out")
    assert (report.counts.kept, report.counts.failed) == (2, 2)
    details = [one.detail or "" for one in tables.open_table(tmp_path / "out", Recording).failed()]
    assert "s0-1.flac" in details[0]
    assert "s0-2.flac" in details[1]


def test_equal_files_are_one_recording(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    tone(folder / "a.wav")
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes())
    read(FolderCorpus(path=folder).plan(seed=0), tmp_path)
    report = run_stage(Deduplicate(), [tmp_path / "read"], tmp_path / "once")
    assert (report.counts.kept, report.counts.reasons) == (1, {"duplicate_audio": 1})


def test_what_a_corpus_knows_becomes_human_labels() -> None:
    votes = {"happy": 0.75, "neutral": 0.25}
    spoken = Spoken(
        emotion="happy", emotion_votes=votes, gender="male", valence=0.9, arousal=0.0, dominance=0.5, age=31, intensity="strong"
    )
    said = {"start_ms": 10, "end_ms": 90, "labeller": HUMAN}
    assert spoken.segment("r", 10, 90).labels == (
        Label(attribute="emotion", category="happy", distribution=votes, **said),
        Label(attribute="gender", category="male", **said),
        Label(attribute="intensity", category="strong", **said),
        Label(attribute="valence", number=0.9, **said),
        Label(attribute="arousal", number=0.0, **said),
        Label(attribute="dominance", number=0.5, **said),
        Label(attribute="age", number=31, **said),
    )
    assert Spoken().segment("r", 0, 5).labels == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"emotion": "happy", "emotion_votes": {"joy": 1.0}}, r"got \{'joy': 1\.0\}, expected shares of angry.* that sum to 1"),
        ({"emotion": "happy", "emotion_votes": {"happy": 0.5}}, r"got \{'happy': 0\.5\}, expected shares"),
        ({"emotion_votes": {"happy": 1.0}}, r'emotion_votes stand without an emotion; give "unknown"'),
        ({"valence": 1.01}, r"valence\n.*less than or equal to 1"),
        ({"arousal": float("nan")}, r"arousal\n.*finite number"),
        ({"age": 0}, r"age\n.*greater than 0"),
    ],
)
def test_what_no_corpus_can_know_is_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spoken.model_validate(content)


def test_aligned_words_go_where_their_file_goes(tmp_path: Path) -> None:
    spoken = Spoken(text="so it is", words=(Word(text="so", start_ms=40, end_ms=300), Word(text="is", start_ms=310, end_ms=1500)))
    placed = spoken.segment("r", 1_000, 2_000, origin_ms=900)
    assert [(word.text, word.start_ms, word.end_ms) for word in placed.words] == [("so", 1000, 1200), ("is", 1210, 2000)]
    assert [word.start_ms for word in spoken.segment("r", 0, 300, words=[Word(text="x", start_ms=7, end_ms=9)]).words] == [7]
    path = tone(tmp_path / "x.wav")  # sounds from 200 to 1200 ms of 1400
    planned = Planned(corpus="c", key="x.wav", reader="file", spec="")
    found = FileSpec(path=path, utterances=(spoken,)).read(planned, tmp_path).references[0]
    assert (found.start_ms, found.end_ms, found.words[-1].end_ms) == (40, 1400, 1400)
    inside = spoken.model_copy(update={"words": (Word(text="so", start_ms=300, end_ms=400),)})
    found = FileSpec(path=path, utterances=(inside,)).read(planned, tmp_path).references[0]
    assert (found.start_ms, found.end_ms) == (200, 1200)


def test_a_spec_says_only_what_is_known(tmp_path: Path) -> None:
    row = FolderCorpus(path=corpus(tmp_path / "c", [{"file": "a.wav", "speaker": "s", "text": "hi"}], audio_too=False)).plan(
        seed=0
    )[0]
    assert json.loads(row.spec) == {"path": str(tmp_path / "c" / "a.wav"), "utterances": [{"speaker": "c/s", "text": "hi"}]}


@given(st.text(min_size=1, max_size=40), st.integers(0, 1000), st.integers(0, 5000))
def test_spread_words_are_in_order_inside_the_bounds(text: str, start: int, length: int) -> None:
    words = spread(text, start, start + length)
    edges = [edge for word in words for edge in (word.start_ms, word.end_ms)]
    assert edges == sorted(edges)
    if length and text.split():
        assert (edges[0], edges[-1]) == (start, start + length)
    assert [word.text for word in words] == (text.split() if length else [])


def test_speech_bounds_find_the_tone() -> None:
    wave = audio.Wave(np.concatenate([np.zeros(3_200), 0.5 * np.ones(8_000), np.zeros(1_600)]).astype(np.float32), RATE)
    assert speech_bounds(wave) == (200, 700)


def test_speech_bounds_of_a_file_are_found_without_holding_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tone(tmp_path / "long.wav", seconds=2.0, lead=29.493)
    whole = audio.load(path)
    expected = speech_bounds(whole)
    assert expected[0] < 30_000 < expected[1]
    for chunk_ms in (7, 33, 1_000, 30_000):
        assert speech_bounds_of(audio.stream(path, chunk_ms=chunk_ms)) == expected
    assert speech_bounds_of([whole.cut(0, 4), whole.cut(4, 7)]) == speech_bounds(whole.cut(0, 7)) == (0, 7)
    monkeypatch.setattr(audio, "load", lambda *_, **__: pytest.fail("the whole file was loaded"))
    planned = Planned(corpus="c", key="long.wav", reader="file", spec="")
    found = FileSpec(path=path, utterances=(Spoken(text="hello"),)).read(planned, tmp_path).references[0]
    assert (found.start_ms, found.end_ms) == expected


def test_emotion_words_map_into_ours_once() -> None:
    assert set(FROM_CORPUS) == set(EMOTIONS)
    words = [word for row in FROM_CORPUS.values() for word in row]
    assert len(words) == len(set(words))
    assert to_emotion(" Calm ") == "neutral"


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=20), st.floats(0, 0.9))
def test_the_split_is_by_speaker_and_stable(names: list[str], share: float) -> None:
    rule = SplitRule(test_share=share)
    assert [rule.of(name) for name in names] == [rule.of(name) for name in names]
    assert rule.of(None) == "train"
    assert SplitRule(test_speakers=tuple(names)).of(names[0] if names else None) == ("test" if names else "train")


def test_speakers_on_both_sides_are_found() -> None:
    assert speakers_on_both_sides({"train": ["a", "b"], "test": ["b", "c"]}) == {"b": ("test", "train")}


def assembled(tmp_path: Path, **settings: object) -> AssembledCorpus:
    folder = tmp_path / "acted"
    if not folder.exists():
        corpus(folder, speakers())
    return AssembledCorpus.model_validate(
        {
            "of": [{"kind": "folder", "path": folder, "licence": "CC0", "hold_out": {"test_speakers": ["s3"]}}],
            "turns": [3, 4],
            **settings,
        }
    )


def test_assembled_recordings_keep_exact_truth_and_never_mix_splits(tmp_path: Path) -> None:
    rows = read(assembled(tmp_path).plan(seed=1), tmp_path / "out")
    assert {row.split for row in rows} == {"train", "test"}
    for row in rows:
        assert all((speaker == "acted/s3") == (row.split == "test") for speaker in row.speakers)
        assert 3 <= len(row.references) <= 4
        wave = audio.load(Path(row.uri))
        for before, after in zip(row.references, row.references[1:], strict=False):
            pause = wave.cut(before.end_ms + 5, after.start_ms - 5)
            assert float(np.abs(pause.samples).max()) < 1e-3
            assert before.category("emotion") != after.category("emotion") or len(row.speakers) == 1
        for one in row.references:
            level = np.sqrt(np.mean(np.square(wave.cut(one.start_ms, one.end_ms).samples)))
            assert level == pytest.approx(0.05, rel=0.05)


def test_each_utterance_is_used_once_and_the_plan_is_a_function_of_the_seed(tmp_path: Path) -> None:
    plan = assembled(tmp_path).plan(seed=1)
    used = [turn["path"] for row in plan for turn in json.loads(row.spec)["turns"]]
    assert len(used) == len(set(used))
    assert [row.id for row in plan] == [row.id for row in assembled(tmp_path).plan(seed=1)]
    assert [row.id for row in plan] != [row.id for row in assembled(tmp_path).plan(seed=2)]
    assert len(assembled(tmp_path, recordings={"train": 2}).plan(seed=1)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"turns": [5, 4]}, r"turns\n.*got \[5, 4\], expected \[low, high\] with 1 <= low <= high"),
        ({"turns": [0, 4]}, r"turns\n.*got \[0, 4\]"),
        ({"voices": [0, 0]}, r"voices\n.*got \[0, 0\]"),
        ({"voices": [2, 1]}, r"voices\n.*got \[2, 1\]"),
        ({"pause_ms": [-1, 5]}, r"pause_ms\n.*got \[-1, 5\], expected \[low, high\] with 0 <= low <= high"),
        ({"pause_ms": [6, 5]}, r"pause_ms\n.*got \[6, 5\]"),
        ({"name": "../up"}, r"name\n.*should match pattern"),
        ({"name": ""}, r"name\n.*should match pattern"),
    ],
)
def test_assembly_settings_that_cannot_be_met_are_refused(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AssembledCorpus.model_validate({"of": [{"path": tmp_path}], **settings})


def test_the_smallest_ranges_and_plain_names_are_taken(tmp_path: Path) -> None:
    made = AssembledCorpus(name="a-1.b_c", of=(FolderCorpus(path=tmp_path),), turns=(1, 1), voices=(1, 1), pause_ms=(0, 0))
    assert (made.title, made.turns, made.voices, made.pause_ms) == ("a-1.b_c", (1, 1), (1, 1), (0, 0))


@pytest.mark.parametrize("name", ["a/b", ".hidden", "a b", "é"])
def test_a_folder_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        FolderCorpus(path=tmp_path, name=name)


def test_assembling_needs_one_utterance_with_a_speaker_per_file(tmp_path: Path) -> None:
    tone(tmp_path / "raw" / "a.wav")
    with pytest.raises(DataError, match=r"a\.wav cannot be assembled: expected one utterance with a speaker"):
        AssembledCorpus(of=(FolderCorpus(path=tmp_path / "raw"),)).plan(seed=0)
