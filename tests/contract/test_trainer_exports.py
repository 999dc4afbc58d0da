"""Exports for other trainers: every pair comes back as it went, and the files keep the rules that each trainer's own code checks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.contract.test_exchange import label, segment, sound, table
from tests.contract.test_remote_paths import folder, proxy  # noqa: F401
from undertone import audio, tables
from undertone.cli import app
from undertone.errors import ConfigError, DataError, DiskFull
from undertone.exchange import FORMATS, export
from undertone.exchange.items import Item, Tally
from undertone.exchange.trainers import LAYOUTS, Dialogue, asked, dialogues, layout_of, with_labels, with_labels_of
from undertone.metadata import MetadataConfig
from undertone.paths import Remote
from undertone.records import Clip, QAPair, Recording, Segment, Turn

MODEL = "affect-small@1"
TRAINERS = list(LAYOUTS)
NO_ROOM = {
    "messages": {"segments", "words", "labels", "transcripts"},
    "sharegpt": {"segments", "words", "labels", "transcripts"},
    "nemo-salm": {"segments", "words", "labels", "transcripts"},
    "desta": {"segments", "words", "labels"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips: one with two questions and a dialogue, one of another split and another rate, one that nobody asks about."""
    run = tmp_path_factory.mktemp("run")
    clips, recordings, predicted = [], [], []
    for name, rate_hz, split, spans in (
        ("a b", 16_000, "train", [(1_000, 4_250), (5_000, 8_000)]),
        ("c", 44_100, "test", [(500, 3_700)]),
    ):
        file = sound(run / "speech" / f"{name}.wav", seconds=9, rate_hz=rate_hz)
        probe = audio.probe(file)
        recording = Recording(
            uri=str(file), sha256=probe.sha256, rate_hz=rate_hz, samples=probe.samples, source="mine", split=split
        )
        recordings.append(recording)
        for n, (start, end) in enumerate(spans):
            said = segment(recording.id, start, end, f"naïve «{n}» 好", "mine/s", label("emotion", "sad", start, end))
            predicted.append(
                said.model_copy(update={"labels": (label("emotion", "sad", start, end, labeller=MODEL, revision="r1"),)})
            )
            about = {"recording_id": recording.id, "uri": str(file), "source": "mine", "split": split}
            clips.append(Clip(**about, start_ms=start, end_ms=end, segments=(said,)))
    table(run / "corpus", recordings)
    table(run / "label", predicted)
    table(run / "clips", clips)

    def pair(clip: Clip, question: str, answer: str, history: tuple[Turn, ...] = ()) -> QAPair:
        return QAPair(
            clip_id=clip.id,
            recording_id=clip.recording_id,
            split=clip.split,
            source="cpqa",
            kind="CE",
            question=question,
            answer=answer,
            history=history,
            generator="test@1",
        )

    talked = (Turn(question="Who speaks?", answer="A woman."), Turn(question="Where?", answer="At sea;\nit «blows»."))
    first, _, other = clips
    table(
        run / "pairs",
        [
            pair(first, "How does she feel?", "Sad.\nVery sad."),
            pair(first, " Why, «then»? ", "Because 他走了.", talked),
            pair(other, "And he?", "<neutral>"),
        ],
    )
    return run


def clips_of(run: Path) -> dict[str, Clip]:
    return {one.id.replace("@", "-"): one for one in tables.open_table(run / "clips", Clip).rows()}


def pairs_of(run: Path) -> dict[str, QAPair]:
    return {one.id: one for one in tables.open_table(run / "pairs", QAPair).rows()}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


# ---- round trips ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", TRAINERS)
def test_every_pair_comes_back_with_its_clip(run: Path, tmp_path: Path, format_: Any) -> None:
    report = export(run / "clips", tmp_path / "out", format=format_, pairs=[run / "pairs"])
    assert (report.items, report.written, report.skipped) == (3, 2, {"no_question": 1})
    assert report.held["pairs"] == 3
    assert set(report.lost) == NO_ROOM[format_]
    back = list(dialogues(tmp_path / "out", format=format_))
    given_ = pairs_of(run)
    assert {one.pair for one in back} == set(given_)
    for one in back:
        pair = given_[one.pair or ""]
        assert (one.clip, one.history, one.prompt, one.question, one.answer) == (
            pair.clip_id.replace("@", "-"),
            pair.history,
            pair.question,
            pair.question,
            pair.answer,
        )
        assert (one.kind, one.source) == (pair.kind, pair.source)
        clip = clips_of(run)[one.clip or ""]
        heard = soundfile.info(tmp_path / "out" / one.audio)
        assert round(1000 * heard.frames / heard.samplerate) == clip.duration_ms
        if format_ == "nemo-salm":
            assert one.duration_ms == clip.duration_ms
        if format_ == "desta":
            assert one.transcript == clip.transcript


@pytest.mark.parametrize("format_", TRAINERS)
def test_a_split_has_its_own_file_and_a_clip_one_sound(run: Path, tmp_path: Path, format_: Any) -> None:
    export(run / "clips", tmp_path / "out", format=format_, pairs=[run / "pairs"])
    made = {one.name for one in (tmp_path / "out").glob("*.jsonl")}
    assert made == {"train.jsonl", "test.jsonl"}
    assert [one.question for one in dialogues(tmp_path / "out" / "test.jsonl", format=format_)] == ["And he?"]
    assert len(list((tmp_path / "out" / "audio").iterdir())) == 2


@pytest.mark.parametrize("format_", TRAINERS)
def test_predicted_labels_stand_before_the_last_question_only(run: Path, tmp_path: Path, format_: Any) -> None:
    prompt = with_labels_of(run / "clips", run / "label")
    export(run / "clips", tmp_path / "out", format=format_, pairs=[run / "pairs"], prompt=prompt)
    back = {one.question: one for one in dialogues(tmp_path / "out", format=format_)}
    assert back["How does she feel?"].prompt == "Emotion: [0.0-3.2 s] sad\nHow does she feel?"
    assert back[" Why, «then»? "].prompt == "Emotion: [0.0-3.2 s] sad\n Why, «then»? "
    assert [turn.question for turn in back[" Why, «then»? "].history] == ["Who speaks?", "Where?"]


def test_labels_may_stand_after_the_question_and_are_never_peoples(run: Path) -> None:
    known = list(clips_of(run).values())
    predicted: dict[str, list[Segment]] = {}
    for one in tables.open_table(run / "label", Segment).rows():
        predicted.setdefault(one.recording_id, []).append(one)
    asked_ = next(one for one in pairs_of(run).values() if one.question == "And he?")
    after = with_labels(known, predicted, MetadataConfig(place="after"))
    assert after(asked_) == "And he?\nEmotion: [0.0-3.2 s] sad"
    assert with_labels(known, {})(asked_) == "And he?"
    with pytest.raises(DataError, match="which is not among the 0 clips"):
        with_labels([], predicted)(asked_)
    human = label("emotion", "sad", 500, 3_700)
    gold = {key: [one.model_copy(update={"labels": (human,)}) for one in some] for key, some in predicted.items()}
    with pytest.raises(DataError, match="human label"):
        with_labels(known, gold)(asked_)


TEXT = st.text(min_size=1, max_size=30).filter(
    lambda text: not any(mark in text for one in LAYOUTS.values() for mark in one.reserved)
)
TURNS = st.lists(st.builds(Turn, question=TEXT, answer=TEXT), max_size=3).map(tuple)


@given(history=TURNS, prompt=TEXT, answer=TEXT, transcript=st.none() | TEXT.filter(str.strip), name=st.sampled_from(TRAINERS))
def test_any_text_comes_back(history: tuple[Turn, ...], prompt: str, answer: str, transcript: str | None, name: str) -> None:
    layout = layout_of(name)
    one = Dialogue(
        audio="audio/k.flac",
        duration_ms=3_217 if name == "nemo-salm" else None,
        transcript=transcript if layout.transcripts else None,
        history=history,
        prompt=prompt,
        answer=answer,
        clip="k",
        pair="p",
        kind="CE",
        source="cpqa",
        question="?",
    )
    assert layout.dialogue(json.loads(json.dumps(layout.row(one)))) == one


# ---- what the trainers' own code asks of a file --------------------------------------------------------------------------------


def exported(run: Path, to: Path, format_: Any) -> list[dict[str, Any]]:
    export(run / "clips", to, format=format_, pairs=[run / "pairs"])
    return [row for file in sorted(to.glob("*.jsonl")) for row in lines(file)]


@pytest.mark.parametrize(
    ("format_", "key", "role", "text"),
    [("messages", "messages", "role", "content"), ("sharegpt", "conversations", "from", "value")],
)
def test_llama_factory_finds_its_columns_tags_files_and_placeholders(
    run: Path, tmp_path: Path, format_: str, key: str, role: str, text: str
) -> None:
    rows = exported(run, tmp_path / "out", format_)
    index = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert set(index) == {"undertone_train", "undertone_test"}
    for one in index.values():
        assert one["formatting"] == "sharegpt"
        assert one["columns"] == {"messages": key, "audios": "audios"}
        assert (tmp_path / "out" / one["file_name"]).is_file()
        tags = one["tags"]
        assert (tags["role_tag"], tags["content_tag"]) == (role, text)
    assert len(rows) == 3
    for row in rows:  # SharegptDatasetConverter: user and assistant alternate; mm_plugin._validate_messages: as many tags as files
        assert [one[role] for one in row[key]] == [tags["user_tag"], tags["assistant_tag"]] * (len(row[key]) // 2)
        assert sum(one[text].count("<audio>") for one in row[key]) == len(row["audios"]) == 1
        assert all(os.path.isfile(os.path.join(tmp_path / "out", name)) for name in row["audios"])


@pytest.mark.parametrize(("format_", "key"), [("messages", "messages"), ("sharegpt", "conversations")])
def test_ms_swift_learns_the_last_answer_only(run: Path, tmp_path: Path, format_: str, key: str) -> None:
    for row in exported(run, tmp_path / "out", format_):
        learned = [one["loss"] for one in row[key] if "loss" in one]
        assert learned == [False] * (len(learned) - 1) + [True]
        assert not {"label", "channel", "images", "videos", "tools", "objects", "system"} & set(row)  # keys that mean more to it


def test_nemo_reads_a_sharegpt_line_too(run: Path, tmp_path: Path) -> None:
    rows = exported(run, tmp_path / "out", "sharegpt")
    assert {row["id"] for row in rows} == set(pairs_of(run))
    for row in rows:
        assert row["sound"] == row["audios"][0]
        assert {one["from"] for one in row["conversations"]} == {"human", "gpt"}


def test_nemo_salm_has_the_sound_as_a_turn_of_its_own(run: Path, tmp_path: Path) -> None:
    rows = exported(run, tmp_path / "out", "nemo-salm")
    for row in rows:
        sound_, *spoken = row["conversations"]
        assert (sound_["type"], sound_["from"]) == ("audio", "User")
        assert "offset" not in sound_  # its reader would not see it, and play the whole file
        assert {one["type"] for one in spoken} == {"text"}
        assert {key for one in spoken for key in one} == {"type", "from", "value"}
        assert [one["from"] for one in spoken] == ["User", "Assistant"] * (len(spoken) // 2)
    assert max(len(row["conversations"]) for row in rows) == 7  # a sound and three turns


def test_desta_finds_a_mark_per_sound_and_text_beside_it(run: Path, tmp_path: Path) -> None:
    rows = exported(run, tmp_path / "out", "desta")
    for row in rows:
        heard = [one for message in row["messages"] for one in message.get("audios") or ()]
        assert sum(one["content"].count("<|AUDIO|>") for one in row["messages"]) == len(heard) == 1
        assert row["messages"][0]["content"].startswith("<start_audio><|AUDIO|><end_audio>\n")
        assert row["messages"][-1]["role"] == "user"
        assert heard[0]["text"]


def test_desta_gives_a_blank_where_nobody_knows_what_is_said() -> None:
    one = Dialogue(audio="audio/k.flac", prompt="?", answer="!")
    assert layout_of("desta").row(one)["messages"][0]["audios"] == [{"audio": "audio/k.flac", "text": " "}]


@pytest.mark.parametrize("format_", TRAINERS)
def test_hugging_face_datasets_gives_the_same_rows(run: Path, tmp_path: Path, format_: Any) -> None:
    datasets = pytest.importorskip("datasets")
    rows = exported(run, tmp_path / "out", format_)
    files = [str(one) for one in sorted((tmp_path / "out").glob("*.jsonl"))]
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert [without_nulls(row) for row in loaded] == [without_nulls(row) for row in rows]
    assert [layout_of(format_).dialogue(row) for row in loaded] == list(dialogues(tmp_path / "out", format=format_))


def without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


# ---- what another tool wrote ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "row"),
    [
        (
            "messages",
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "<audio>What?"},
                    {"role": "assistant", "content": "Rain."},
                ],
                "audios": ["a/1.wav"],
            },
        ),
        (
            "sharegpt",
            {
                "conversations": [{"from": "human", "value": "<audio>What?"}, {"from": "gpt", "value": "Rain."}],
                "audios": ["a/1.wav"],
            },
        ),
        (
            "nemo-salm",
            {
                "id": "1",
                "conversations": [
                    {"type": "audio", "from": "user", "value": "a/1.wav", "duration": 2.5},
                    {"type": "text", "from": "user", "value": "What?"},
                    {"type": "text", "from": "assistant", "value": "Rain."},
                ],
            },
        ),
        (
            "desta",
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {
                        "role": "user",
                        "content": "<start_audio><|AUDIO|><end_audio>\nWhat?",
                        "audios": [{"audio": "a/1.wav", "text": " "}],
                    },
                ],
                "response": "Rain.",
            },
        ),
    ],
)
def test_a_line_without_our_origin_is_read(tmp_path: Path, format_: str, row: dict[str, Any]) -> None:
    file = tmp_path / "theirs.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (one,) = dialogues(file, format=format_)
    assert (one.audio, one.prompt, one.answer, one.history, one.pair) == ("a/1.wav", "What?", "Rain.", (), None)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"messages": []}', "line 1 is not a line of messages: it has no 'audios'"),
        ('{"messages": [], "audios": ["a"]}', "no question and answer"),
        (
            '{"messages": [{"role": "user", "content": "<audio>?"}], "audios": ["a"]}',
            "the roles are user; expected user and assistant in turn",
        ),
        (
            '{"messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "."}], "audios": ["a"]}',
            r"the first text is 'Hm\?'; expected it to begin with '<audio>'",
        ),
        ("{", "theirs.jsonl line 1: .*; expected a line of messages"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "theirs.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=says):
        list(dialogues(file, format="messages"))


def test_a_folder_without_lines_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.jsonl file; expected the folder of an export"):
        list(dialogues(tmp_path, format="desta"))
    with pytest.raises(ConfigError, match="'llava' is not a trainer's; expected one of messages, sharegpt, nemo-salm, desta"):
        list(dialogues(tmp_path, format="llava"))


# ---- the door ------------------------------------------------------------------------------------------------------------------


def test_every_trainers_format_is_an_export() -> None:
    assert len(TRAINERS) == 4
    assert set(TRAINERS) <= set(FORMATS)


@pytest.mark.parametrize("format_", TRAINERS)
def test_text_that_the_trainer_would_take_for_a_sound_is_left_out_and_counted(format_: str) -> None:
    layout = layout_of(format_)
    base = {"clip_id": "k", "recording_id": "r", "source": "cpqa", "kind": "CE", "generator": "g"}
    good = QAPair(**base, question="What?", answer="Rain.")
    for mark in layout.reserved:
        bad = [
            QAPair(**base, question=f"What {mark}?", answer="Rain."),
            QAPair(**base, question="What?", answer=f"{mark} rain."),
            QAPair(**base, question="What?", answer="Rain.", history=(Turn(question=mark, answer="Rain."),)),
        ]
        item = Item(
            key="k",
            uri=Path("k.wav"),
            recording_id="r",
            source="s",
            language=None,
            licence=None,
            split=None,
            segments=(),
            pairs=(good, *bad),
        )
        tally = Tally()
        (kept,) = asked([item], layout, prompt=None, tally=tally)
        assert kept.pairs == (good,)
        assert tally.lost == {"pairs_with_a_placeholder_in_their_text": 3}
        labelled = Tally()
        assert list(asked([item], layout, prompt=lambda pair, mark=mark: f"{mark} {pair.question}", tally=labelled)) == []
        assert labelled.skipped == {"no_usable_question": 1}


def test_pairs_that_a_line_cannot_hold_are_left_out_and_counted() -> None:
    base = {"clip_id": "k", "recording_id": "r", "source": "replies", "kind": "REPLY", "generator": "g", "answer": "Oh no."}
    good = QAPair(**base, question="Reply to me.")
    earlier = Turn(question="Reply to me.", answer="I see.", clip_id="j")
    spoken, silent = QAPair(**base, question="Reply to me.", history=(earlier,)), QAPair(**base, question="")
    about = {
        "uri": Path("k.wav"),
        "recording_id": "r",
        "source": "s",
        "language": None,
        "licence": None,
        "split": None,
        "segments": (),
    }
    tally = Tally()
    (kept,) = asked([Item(key="k", pairs=(good, spoken, silent), **about)], layout_of("messages"), prompt=None, tally=tally)
    assert kept.pairs == (good,)
    assert tally.lost == {"pairs_with_several_sounds": 1, "pairs_without_a_question": 1}


def test_a_trainer_needs_questions_and_its_own_sound(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none were named; name their table: --pairs RUN/generate/cpqa"):
        export(run / "clips", tmp_path / "out", format="desta")
    with pytest.raises(ConfigError, match="holds its audio and cannot reference it"):
        export(run / "clips", tmp_path / "out", format="desta", pairs=[run / "pairs"], audio="reference")
    with pytest.raises(ConfigError, match="a prompt is for messages, sharegpt, nemo-salm, desta"):
        export(run / "clips", tmp_path / "out", format="rttm", prompt=lambda pair: pair.question)
    others = r"could be exported: no_question 2; 3 pairs are about clips of another table, such as RUN/references/utterances \(asr, pqa\)"
    with pytest.raises(DataError, match=others):
        export(run / "corpus", tmp_path / "out", format="desta", pairs=[run / "pairs"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format_", TRAINERS)
def test_equal_tables_give_equal_bytes_and_nothing_is_left_of_half_an_export(
    run: Path, tmp_path: Path, format_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    for to in (once, again):
        export(run / "clips", to, format=format_, pairs=[run / "pairs"])
    names = sorted(str(one.relative_to(once)) for one in once.rglob("*") if one.is_file() and one.name != ".undertone-export.json")
    assert names == sorted(str(one.relative_to(again)) for one in again.rglob("*") if one.is_file() and one.name[0] != ".")
    assert all((once / name).read_bytes() == (again / name).read_bytes() for name in names)

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audio, "write", fails)
    with pytest.raises(DiskFull, match="No space left on device"):
        export(run / "clips", tmp_path / "third", format=format_, pairs=[run / "pairs"])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["again", "once"]


@pytest.mark.parametrize("format_", TRAINERS)
def test_an_export_in_a_bucket_is_read_and_half_of_one_is_not(run: Path, tmp_path: Path, folder: Remote, format_: Any) -> None:  # noqa: F811
    for to in (folder, tmp_path / "here"):
        export(run / "clips", to, format=format_, pairs=[run / "pairs"])
    assert list(dialogues(folder, format=format_)) == list(dialogues(tmp_path / "here", format=format_))
    (folder / ".undertone-export.unfinished").write_bytes(b"")
    with pytest.raises(DataError, match="was not written to its end"):
        list(dialogues(folder, format=format_))


def test_sound_that_cannot_be_read_leaves_its_questions_out(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    clips = [one.model_copy(update={"uri": str(broken)}) if one.split == "test" else one for one in clips_of(run).values()]
    table(tmp_path / "clips", clips)
    report = export(tmp_path / "clips", tmp_path / "out", format="messages", pairs=[run / "pairs"])
    assert report.skipped == {"no_question": 1, "unreadable_audio": 1}
    assert report.held["pairs"] == 2
    assert [one.split for one in clips].count("test") == 1
    assert sorted(one.name for one in (tmp_path / "out").glob("*.jsonl")) == ["train.jsonl"]


def test_the_command_writes_labels_before_the_questions(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--to", str(out), "--format", "messages", "--pairs", str(run / "pairs"), "--labels", str(run / "label")]
    made = CliRunner().invoke(app, ["export", str(run / "clips"), *options])
    assert made.exit_code == 0, made.output
    assert "messages: 3 in, 2 written" in made.output
    (row,) = lines(out / "test.jsonl")
    assert row["messages"][0] == {"role": "user", "content": "<audio>Emotion: [0.0-3.2 s] sad\nAnd he?"}
