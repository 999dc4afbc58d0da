"""Benchmark definitions on tiny trees of their own layouts: reading, judging, figures, and what bad input is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.conftest import ROOT
from undertone.errors import ConfigError, DataError
from undertone.evaluate.benchmarks import BENCHMARKS, AudioBench, ClassJudge, CpBench, Iemocap, describe, made, summary
from undertone.evaluate.benchmarks.audiobench_logs import check_log, plain_text, read_compat, read_strict
from undertone.evaluate.benchmarks.types import WORDS, kind_of
from undertone.evaluate.judges import Item, LLMJudge, ReferenceJudge
from undertone.records import Answer, QAPair, Recording, Verdict, from_arrow, to_arrow

LOGS = ROOT.parent / "shared" / "data" / "audiobench-logs"
SOUND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def wave(seed: int, seconds: float = 0.5) -> bytes:
    held = io.BytesIO()
    samples = np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    soundfile.write(held, samples, 16_000, format="WAV", subtype="PCM_16")
    return held.getvalue()


def parquet(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema, *, split: str = "test") -> Path:
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return folder


FLAT = pa.schema([("context", SOUND), ("instruction", pa.string()), ("answer", pa.string()), ("question_type", pa.string())])


def flat(seed: int, question: str | None, answer: str | None, kind: str | None = None) -> dict[str, Any]:
    return {
        "context": {"bytes": wave(seed), "path": f"{seed}.wav"},
        "instruction": question,
        "answer": answer,
        "question_type": kind,
    }


SEVEN = [
    flat(1, "What is she late for?", "The train.", "C"),
    flat(1, "How does she feel?", "She sounds angry.", "direct_emotion"),
    flat(1, "Is it a man or a woman?", "A woman.", "DG"),
    flat(2, "How many people speak?", "Two people.", "DS"),
    flat(2, "How does she feel about the rain?", "She is sad about it.", "Contextual + Emotion"),
    flat(2, "Who is annoyed by the rain?", "The woman.", "CG"),
    flat(3, "Who of the two speaks of the rain?", "Both.", "CS"),
]


def answers(pairs: list[QAPair], text: str, subject: str = "model") -> list[Answer]:
    return [Answer(subject=subject, pair_id=one.id, text=text, raw=text) for one in pairs]


def verdict(pair: QAPair, score: float | None, *, run: int = 0, judge: str = "j") -> Verdict:
    return Verdict(
        judge=judge, subject="model", pair_id=pair.id, run=run, score=score, unscored=None if score is not None else "unreadable"
    )


def test_cp_bench_long_with_all_seven_types(tmp_path: Path) -> None:
    benchmark = made({"name": "cp-bench-long", "path": parquet(tmp_path / "set", SEVEN, FLAT)})
    content = benchmark.read(tmp_path / "out")
    assert [one.kind for one in content.pairs] == ["C", "DE", "DG", "DS", "CE", "CG", "CS"]
    assert [(one.label_attribute, one.label) for one in content.pairs[:5]] == [
        (None, None),
        ("emotion", "angry"),
        ("gender", "female"),
        ("speakers", "2"),
        (None, None),
    ]
    assert len(content.recordings) == len(content.clips) == 3, "rows about one sound share its recording"
    assert {one.duration_ms for one in content.clips} == {500}
    assert from_arrow(to_arrow(content.recordings, Recording), Recording) == list(content.recordings)
    assert len(list((tmp_path / "out" / "audio").iterdir())) == 3
    assert content.line == "7 questions about 3 recordings; 0 rows left out"


def test_uas_weighs_types_alike_and_a_type_without_score_leaves_it_without_value(tmp_path: Path) -> None:
    rows = [*SEVEN, flat(4, "What does he drink?", "Tea.", "C"), flat(4, "What does he eat?", "Bread.", "C")]
    benchmark = made({"name": "cp-bench-short", "path": parquet(tmp_path / "set", rows, FLAT)})
    pairs = list(benchmark.read(tmp_path / "out").pairs)
    scores = {"C": 90.0, "DE": 60.0, "DG": 30.0, "DS": 0.0, "CE": 60.0, "CG": 30.0, "CS": 0.0}
    given = [verdict(one, scores[one.kind], run=run) for one in pairs for run in range(5)]
    found = summary(benchmark, pairs, answers(pairs, "No idea."), given)
    model = found.of("model")
    assert found.runs == 5
    assert (model["UAS C"].value, model["UAS DP"].value, model["UAS CP"].value) == (90.0, 30.0, 30.0)
    assert model["UAS"].value == pytest.approx(270 / 7)
    assert model["overall"].value == pytest.approx(450 / 9)
    assert found.quoted("model") == model["UAS"].value
    assert model["UAS"].compat is None
    left = summary(benchmark, pairs, [], [one for one in given if one.pair_id != next(p.id for p in pairs if p.kind == "CS")])
    assert left.of("model")["UAS"].value is None
    assert left.of("model")["UAS"].unscored == {"missing": 1}
    with pytest.raises(ConfigError, match="are of one judge; the verdicts are by j, other"):
        summary(benchmark, pairs, [], [given[0], verdict(pairs[1], 1.0, judge="other")])


def test_the_judge_is_the_sets_as_far_as_the_study_does_not_say_its_own(tmp_path: Path) -> None:
    long = CpBench(name="cp-bench-long", path=tmp_path)
    plain = LLMJudge(endpoint="http://localhost:1/v1", model="m")
    chosen = long.judge(plain)
    assert isinstance(chosen, LLMJudge)
    assert (chosen.runs, chosen.rubric, chosen.wording) == (5, "graded", "paralinguistic")
    kept = long.judge(LLMJudge(endpoint="http://localhost:1/v1", model="m", runs=2))
    assert isinstance(kept, LLMJudge)
    assert (kept.runs, kept.model) == (2, "m")
    assert long.judge() == ReferenceJudge() == long.judge(ReferenceJudge())
    gender = made({"name": "audiobench-voxceleb-gender", "path": tmp_path}).judge(plain)
    assert isinstance(gender, LLMJudge)
    assert (gender.rubric, gender.wording) == ("binary", "plain")
    with pytest.raises(ConfigError, match=r"audiobench-voxceleb-accent needs an LLM judge: .* Set evaluate\.judge\.judge"):
        made({"name": "audiobench-voxceleb-accent", "path": tmp_path}).judge()
    with pytest.raises(ConfigError, match="cp-bench-long has no mode compat: no defect of its own scorer is known"):
        made({"name": "cp-bench-long", "path": tmp_path, "mode": "compat"})


def test_cpqa_as_save_to_disk_left_it(tmp_path: Path) -> None:
    """Written by the datasets package itself, with the empty `_format_kwargs` at which the viewer fails."""
    datasets = pytest.importorskip("datasets")
    text = {"text": datasets.Value("string")}
    features = datasets.Features(
        {
            "context": {**text, "audio": datasets.Audio(decode=False)},
            "instruction": text,
            "answer": text,
            "other_attributes": {"question_type": datasets.Value("string")},
        }
    )
    rows = [
        {
            "context": {"text": "I missed it.", "audio": {"bytes": wave(seed), "path": None}},
            "instruction": {"text": question},
            "answer": {"text": answer},
            "other_attributes": {"question_type": kind},
        }
        for seed, question, answer, kind in (
            (1, "Why is she upset?", "Because she missed the train.", "CE"),
            (1, "What did she miss?", "The train.", "C"),
            (2, "Who is late?", "", "CG"),
        )
    ]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / "set"))
    assert json.loads((tmp_path / "set" / "state.json").read_text())["_format_kwargs"] == {}
    content = made({"name": "cpqa-human", "path": tmp_path / "set"}).read(tmp_path / "out")
    assert [(one.kind, one.question) for one in content.pairs] == [("CE", "Why is she upset?"), ("C", "What did she miss?")]
    assert [(one.reason, one.row_id.split()[-1]) for one in content.dropped] == [("no_answer", "2")]
    assert content.clips[0].transcript == "I missed it."
    assert len(content.clips) == 1, "nothing is asked about the second sound"
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows[:1], features=features)}).save_to_disk(str(tmp_path / "dict"))
    assert len(made({"name": "cpqa-generated", "path": tmp_path / "dict"}).read(tmp_path / "out").pairs) == 1


def test_a_set_without_types_is_asked_and_says_so(tmp_path: Path) -> None:
    schema = pa.schema([("sound", SOUND), ("q", pa.string()), ("a", pa.string())])
    row = {"sound": {"bytes": wave(1), "path": None}, "q": "Why?", "a": "Because of the rain."}
    folder = parquet(tmp_path / "set", [row], schema)
    columns = {"audio": "sound", "question": "q", "answer": "a"}
    content = made({"name": "cpqa-human", "path": folder, "columns": columns}).read(tmp_path / "out")
    assert content.pairs[0].kind == "OPEN"
    assert "1 rows: no column with the type" in content.notes[0]
    with pytest.raises(
        DataError,
        match=r"no column of the audio \(context\.audio, context, audio\); it has sound, q, a\. Name it .*columns: \{audio",
    ):
        made({"name": "cpqa-human", "path": folder}).read(tmp_path / "out")
    with pytest.raises(DataError, match=r"no column of the answer \(label\)"):
        made({"name": "cpqa-human", "path": folder, "columns": {**columns, "answer": "label"}}).read(tmp_path / "out")


def test_rows_that_cannot_be_asked_are_left_out_with_a_reason(tmp_path: Path) -> None:
    rows = [
        *SEVEN[:2],
        SEVEN[0],
        flat(5, "Why?", None, "C"),
        flat(5, "  ", "Yes.", "C"),
        {**flat(6, "What?", "Tea.", "C"), "context": {"bytes": b"RIFF no sound", "path": "6.wav"}},
        {**flat(6, "What?", "Tea.", "C"), "context": {"bytes": None, "path": "gone.wav"}},
        {**flat(6, "What?", "Tea.", "C"), "context": None},
    ]
    benchmark = made({"name": "cp-bench-long", "path": parquet(tmp_path / "set", rows, FLAT)})
    content = benchmark.read(tmp_path / "out")
    assert [one.reason for one in content.dropped] == [
        "duplicate",
        "no_answer",
        "no_question",
        "bad_audio",
        "bad_audio",
        "no_audio",
    ]
    assert len(content.pairs) + len(content.dropped) == len(rows)
    strange = parquet(tmp_path / "strange", [flat(1, "Why?", "So.", "sarcasm")], FLAT)
    with pytest.raises(DataError, match=r"row 0: the question's type is 'sarcasm'.* types: \{'sarcasm': CE\}"):
        made({"name": "cp-bench-long", "path": strange}).read(tmp_path / "out")
    mapped = made({"name": "cp-bench-long", "path": strange, "types": {"sarcasm": "CE"}}).read(tmp_path / "out")
    assert mapped.pairs[0].kind == "CE"
    empty = parquet(tmp_path / "empty", [flat(1, "Why?", None, "C")], FLAT)
    with pytest.raises(DataError, match=r"holds no question of cp-bench-long that can be asked: .*no_answer"):
        made({"name": "cp-bench-long", "path": empty}).read(tmp_path / "out")


def test_folders_of_another_kind_are_told(tmp_path: Path) -> None:
    one = {"name": "cp-bench-long", "path": tmp_path / "gone"}
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        made(one).read(tmp_path / "out")
    (tmp_path / "gone").mkdir()
    with pytest.raises(DataError, match="holds neither Parquet files"):
        made(one).read(tmp_path / "out")
    for split in ("train", "validation"):
        parquet(tmp_path / "gone", SEVEN[:1], FLAT, split=split)
    with pytest.raises(DataError, match="holds the splits train, validation, not 'test'; name one in the settings: split"):
        made(one).read(tmp_path / "out")
    assert len(made({**one, "split": "validation"}).read(tmp_path / "out").pairs) == 1
    (tmp_path / "gone" / "data" / "validation-00000-of-00001.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match="cannot be read"):
        made({**one, "split": "validation"}).read(tmp_path / "out")
    with pytest.raises(ConfigError, match="no benchmark 'cpqa'; there are cpqa-human, cpqa-generated"):
        made({"name": "cpqa", "path": tmp_path})


SENTENCES = [
    ("The speaker's tone sounds excited.", "The speaker is thrilled.", 100.0),
    ("From the speaker's speech, it seems they are in a frustration state.", "The speaker sounds angry.", 0.0),
    ("Based on the auditory cues, it sounds like the speaker is anger.", "The speaker sounds angry.", 100.0),
    ("From the speaker's speech, it seems they are in a neutral state state.", "I cannot determine that.", None),
]


def iemocap_of_audiobench(folder: Path) -> Path:
    schema = pa.schema([("context", SOUND), ("instruction", pa.string()), ("answer", pa.string())])
    return parquet(folder, [{**flat(n, None, one[0])} for n, one in enumerate(SENTENCES)], schema)


def test_audiobench_emotions_are_judged_among_its_own_seven_classes(tmp_path: Path) -> None:
    benchmark = made({"name": "audiobench-iemocap-emotion", "path": iemocap_of_audiobench(tmp_path / "set")})
    pairs = list(benchmark.read(tmp_path / "out").pairs)
    assert all("frustration, anger, excited, neutral, happiness, surprise or sad?" in one.question for one in pairs)
    assert [one.question for one in benchmark.read(tmp_path / "again").pairs] == [one.question for one in pairs]
    assert {one.label for one in pairs} == {None}, "frustration is none of our emotions"
    judge = benchmark.judge()
    assert isinstance(judge, ClassJudge)
    said = [
        Answer(subject="model", pair_id=one.id, text=text, raw=text) for one, (_, text, _) in zip(pairs, SENTENCES, strict=True)
    ]
    verdicts = [judge.score(Item(pair=pair, answer=answer)) for pair, answer in zip(pairs, said, strict=True)]
    assert [one.score for one in verdicts] == [score for *_, score in SENTENCES]
    assert [one.mapped_label for one in verdicts] == ["excited", "anger", "anger", None]
    assert verdicts[3].unscored == "refused"
    found = summary(benchmark, pairs, said, verdicts)
    overall = found.of("model")["overall"]
    assert overall.value == pytest.approx(200 / 3)
    assert overall.compat == 50.0
    assert overall.unscored == {"refused": 1}
    assert found.of("model").success_rate == 0.75
    assert found.of("model")["WA emotion"].value == 50.0
    assert found.of("model")["UA emotion"].value == 50.0
    assert "as its own scorer counts: -16.67 points" in found.plain_text()
    compat = benchmark.model_copy(update={"mode": "compat"})
    assert summary(compat, pairs, said, verdicts).quoted("model") == 50.0
    own = made({"name": benchmark.title, "path": benchmark.path, "wordings": ["What is heard ({0})?"]}).read(tmp_path / "out")
    assert own.pairs[0].question.startswith("What is heard (frustration, anger")


def test_every_audiobench_set_has_a_name_and_reads_its_labels(tmp_path: Path) -> None:
    schema = pa.schema([("context", SOUND), ("instruction", pa.string()), ("answer", pa.string())])
    references = {
        "meld-emotion": ("It sounds like joy.", ("emotion", "happy")),
        "meld-sentiment": ("The sentiment is positive.", (None, None)),
        "iemocap-gender": ("The speaker is a woman.", ("gender", "female")),
        "voxceleb-gender": ("Male.", ("gender", "male")),
        "voxceleb-accent": ("From the audio, I guess the speaker is from USA.", (None, None)),
        "imda-gr-sentence": ("The speaker is female.", ("gender", "female")),
        "imda-gr-dialogue": ("The first speaker is female, and the second speaker is male.", ("genders", "female, male")),
        "imda-ar-sentence": ("A Malay accent.", (None, None)),
        "imda-ar-dialogue": ("Both speak with a Singapore accent.", (None, None)),
    }
    names = {name.removeprefix("audiobench-") for name, one in BENCHMARKS.items() if one is AudioBench}
    assert names == {*references, "iemocap-emotion"}
    for name, (reference, label) in references.items():
        asked = "What is the gender of the speakers?" if name.startswith("imda") else None
        folder = parquet(tmp_path / name, [flat(1, asked, reference)], schema)
        pair = made({"name": f"audiobench-{name}", "path": folder}).read(tmp_path / "out").pairs[0]
        assert (pair.label_attribute, pair.label) == label
        assert pair.question == asked if asked else "{" not in pair.question
        assert pair.answer == ("USA." if name == "voxceleb-accent" else reference)


def iemocap(root: Path) -> Path:
    for session in range(1, 6):
        lines, texts = [], []
        for turn, (word, rated) in enumerate(
            [("ang", "1.0, 5.0, 3.0"), ("exc", "5.0, 4.0, 2.0"), ("fru", "2.0, 3.0, 3.0"), ("sur", "3.0, 3.0, 3.0")]
        ):
            name = f"Ses0{session}F_impro01_{'FM'[turn % 2]}00{turn}"
            lines.append(f"[{turn}.0 - {turn}.5]\t{name}\t{word}\t[{', '.join(rated.split(', '))}]\n")
            texts.append(f"{name} [{turn}.0-{turn}.5]: Excuse me.\n")
            file = root / f"Session{session}" / "sentences" / "wav" / f"Ses0{session}F_impro01" / f"{name}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(wave(10 * session + turn))
        for kind, content in (("EmoEvaluation", lines), ("transcriptions", texts)):
            file = root / f"Session{session}" / "dialog" / kind / f"Ses0{session}F_impro01.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(content))
    return root


def test_iemocap_leaves_one_session_out(tmp_path: Path) -> None:
    root = iemocap(tmp_path / "IEMOCAP_full_release")
    fold = Iemocap(path=root)
    content = fold.read(tmp_path / "out")
    assert {speaker for one in content.recordings for speaker in one.speakers} == {"iemocap/Ses05F", "iemocap/Ses05M"}
    assert [one.label for one in content.pairs] == ["angry", "happy"], "excited counts as happy"
    assert {one.reason for one in content.dropped} == {"other_class"}
    assert len(content.dropped) == 2
    assert "angry, happy, neutral or sad" in content.pairs[0].question
    held = [{s for one in each.read(tmp_path / "out").recordings for s in one.speakers} for each in fold.folds()]
    assert [sorted(one)[0] for one in held] == [f"iemocap/Ses0{n}F" for n in range(1, 6)]
    five = made({"name": "iemocap", "path": root, "classes": ["angry", "happy", "neutral", "sad", "surprised"], "excited": "apart"})
    assert [one.label for one in five.read(tmp_path / "out").pairs] == ["angry", "surprised"]
    splits = [one.split for one in Iemocap(path=root, dev=True).corpus().plan_all().rows]
    assert (splits.count("train"), splits.count("dev"), splits.count("test")) == (12, 4, 4)
    with pytest.raises(ConfigError, match="benchmark iemocap: fold: Input should be 1, 2, 3, 4 or 5"):
        made({"name": "iemocap", "path": root, "fold": 6})


def test_dimensions_are_asked_on_the_corpus_scale_and_compared_in_ours(tmp_path: Path) -> None:
    benchmark = Iemocap(path=iemocap(tmp_path / "corpus"), dimensions=True)
    pairs = list(benchmark.read(tmp_path / "out").pairs)
    valence = [one for one in pairs if one.label_attribute == "valence"]
    assert [one.answer for one in valence] == ["1", "5"]
    assert "from 1 (very unpleasant) to 5" in valence[0].question
    exact = [Answer(subject="exact", pair_id=one.id, text=one.answer, raw=one.answer) for one in pairs]
    middle = [Answer(subject="middle", pair_id=one.id, text="3", raw="3") for one in valence[:1]]
    found = summary(benchmark, pairs, [*exact, *middle], [])
    assert found.of("exact")["CCC valence"].value == pytest.approx(1.0)
    assert found.of("exact")["MAE arousal"].value == pytest.approx(0.0)
    assert found.of("exact")["WA emotion"].value == 100.0
    assert found.of("middle")["MAE valence"].value == pytest.approx(0.5)
    assert found.of("middle")["MAE valence"].unscored == {"unmapped": 1}
    with pytest.raises(ConfigError, match="esd has no ratings of valence"):
        made({"name": "esd", "path": tmp_path, "dimensions": True})


def test_esd_by_its_folders_or_by_the_sentences_numbers(tmp_path: Path) -> None:
    root = tmp_path / "ESD"
    for number, folder in ((351, "evaluation"), (371, "test"), (400, "test"), (401, "train")):
        for place, base in ((root / "0011" / "Angry" / folder, 0), (tmp_path / "flat" / "0011" / "Angry", 0)):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"0011_{number + base:06}.wav").write_bytes(wave(number))
    by_folder = made({"name": "esd", "path": root}).read(tmp_path / "out")
    assert sorted(Path(one.uri).name for one in by_folder.recordings) == ["0011_000371.wav", "0011_000400.wav"]
    assert {one.label for one in by_folder.pairs} == {"angry"}
    assert "surprised" in by_folder.pairs[0].question
    numbered = made({"name": "esd", "path": tmp_path / "flat", "partition": "numbered"}).read(tmp_path / "out")
    assert [one.id for one in numbered.recordings] == [one.id for one in by_folder.recordings]
    with pytest.raises(DataError, match="holds no question of esd"):
        made({"name": "esd", "path": tmp_path / "flat"}).read(tmp_path / "out")


def test_msp_podcast_test_sets(tmp_path: Path) -> None:
    root = tmp_path / "MSP"
    head = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
    rows = [(1, "N", "Test1"), (2, "H", "Test2"), (3, "C", "Test2"), (4, "X", "Test2"), (5, "A", "Train")]
    (root / "Labels").mkdir(parents=True)
    (root / "Audios").mkdir()
    lines = [f"MSP-PODCAST_0001_000{n}.wav,{emotion},4.0,7.0,1.0,{n},Female,{part}\n" for n, emotion, part in rows]
    (root / "Labels" / "labels_consensus.csv").write_text(head + "".join(lines))
    for n, *_ in rows:
        (root / "Audios" / f"MSP-PODCAST_0001_000{n}.wav").write_bytes(wave(n))
    first = made({"name": "msp-podcast-test1", "path": root}).read(tmp_path / "out")
    assert [one.label for one in first.pairs] == ["neutral"]
    asked = {"name": "msp-podcast-test2", "path": root, "classes": ["happy", "disgusted"], "dimensions": True}
    second = made(asked).read(tmp_path / "out")
    assert [one.label for one in second.pairs if one.kind == "DE"] == ["happy", "disgusted"]
    assert {one.label_attribute: one.answer for one in second.pairs if one.kind == "OPEN"} == {
        "valence": "7",
        "arousal": "4",
        "dominance": "1",
    }
    apart = made({**asked, "contempt": "other"}).read(tmp_path / "out")
    assert [one.label for one in apart.pairs if one.kind == "DE"] == ["happy"]
    assert "other_test_set 1" in second.notes[0]


def test_types_by_their_names() -> None:
    assert {kind_of(word, {}, "row") for word in ("C", "DE", "dg", "Direct Speaker Count", "contextual-gender", "CS", "CE")} == set(
        WORDS.values()
    )


def test_each_definition_says_what_it_is() -> None:
    assert len(BENCHMARKS) == 18
    for name in BENCHMARKS:
        assert f"evaluate: {{benchmark: {{name: {name}, path: FOLDER}}}}" in describe(name)
    assert "LLM judge: rubric graded, wording paralinguistic, runs 5." in describe("cp-bench-long")


def test_audiobench_grades_read_its_way_and_ours() -> None:
    last = "Rating: 2 (Explanation: it recognises the topic.)"
    assert (read_compat(last), read_strict(last, top=5)) == ((0.0, False), 2)
    assert (read_compat("Rating: 4"), read_strict("Rating: 4", top=1)) == ((4.0, True), None)
    assert (read_compat("nan"), read_strict("I rate it 3", top=5))[1] is None
    assert read_strict("Rating: 1 ... Rating: 5", top=5) is None
    assert read_strict("**Rating**: 3", top=5) == 3
    assert read_compat("") == (0.0, False)
    assert read_strict("Rating: 4.5", top=5) is None


def test_a_log_is_read_again_as_it_was_counted(tmp_path: Path) -> None:
    replies = ["Explanation: same.\n\nRating: 1", "Rating: 1 (same meaning.)", "Rating: 0"]
    rows = [
        {"judge_response": text, "rate_score": score, "success": ok}
        for text, score, ok in zip(replies, (1.0, 0.0, 0.0), (1, 0, 1), strict=True)
    ]
    file = tmp_path / "set_llama3_70b_judge_score.json"
    file.write_text(json.dumps({"llama3_70b_judge": {"judge_score": 100 / 3, "success_rate": 2 / 3}, "details": rows}))
    found = check_log(file)
    assert (found.kept, found.same, found.failed, found.recovered, found.sizes[0]) == (3, 3, 1, 1, 3)
    assert found.compat == pytest.approx(found.header)
    assert found.strict == pytest.approx(200 / 3)
    assert "3 read as the log has them; these give 33.3 its way, 66.7 ours" in plain_text([found])
    file.write_text(json.dumps({"wer": 0.1}))
    with pytest.raises(DataError, match=r"is no AudioBench log with a judge's replies .*; expected \*_judge_score\.json"):
        check_log(file)


@pytest.mark.skipif(not LOGS.is_dir(), reason="the shared logs are not here")
def test_audiobenchs_real_logs_come_out_as_they_were_counted() -> None:
    found = [check_log(file) for file in sorted(LOGS.glob("*/*_judge_score.json"))]
    kept = sum(one.kept for one in found)
    assert len(found) == 256
    assert kept == 5090
    assert sum(one.same for one in found) == kept
    assert (sum(one.failed for one in found), sum(one.recovered for one in found)) == (11, 11)
    emotion = next(one for one in found if one.name.startswith("SALMONN_7B/iemocap_emotion_test_llama3"))
    assert 1004 in emotion.sizes
    assert emotion.header == pytest.approx(23.80, abs=0.01)
