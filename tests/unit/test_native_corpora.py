"""Readers of published corpora: tiny trees of each one's layout, everything accounted for; the real ones where they lie beside us."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from undertone import audio, tables
from undertone.corpora.emotions import to_emotion
from undertone.corpora.folder import FileSpec, FolderCorpus
from undertone.corpora.native import (
    CremaDCorpus,
    EmodbCorpus,
    EsdCorpus,
    IemocapCorpus,
    MeldCorpus,
    MspPodcastCorpus,
    NativeCorpus,
    NemoCorpus,
    RavdessCorpus,
    TessCorpus,
)
from undertone.corpora.native import __all__ as exported
from undertone.corpora.native.base import Survey, Utterance, scaled
from undertone.corpora.plan import Planned, SplitRule
from undertone.corpora.stage import Corpus, ReadCorpus, plan_of
from undertone.errors import DataError
from undertone.execute import run_stage, write_rows
from undertone.records import HUMAN, Label, Recording
from undertone.tables import Fingerprint

RATE = 16_000
READERS = [
    CremaDCorpus,
    EmodbCorpus,
    EsdCorpus,
    IemocapCorpus,
    MeldCorpus,
    MspPodcastCorpus,
    NemoCorpus,
    RavdessCorpus,
    TessCorpus,
]


def say(root: Path, *files: str) -> None:
    """A second of a tone with silence around it for each file, each at a pitch of its own."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        hz = 150 + sum(file.encode()) % 300
        tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)
        silence = np.zeros(RATE // 10)
        audio.write(path, audio.Wave(np.concatenate([silence, tone, silence]).astype(np.float32), RATE))


def write(root: Path, file: str, text: str | bytes) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def by_key(survey: Survey) -> dict[str, Utterance]:
    return {one.key: one for _, one in survey.found}


def reasons(survey: Survey) -> dict[str, str]:
    return {loss.row_id: loss.reason for loss in survey.losses}


def splits(corpus: NativeCorpus) -> dict[str, str | None]:
    return {Path(row.key).stem: row.split for row in corpus.plan(seed=0)}


def read(corpus: NativeCorpus, out: Path) -> list[Recording]:
    made = Fingerprint(stage="plan", version="1", seed=0, config={}, inputs={})
    write_rows(out / "plan", corpus.plan(seed=0), record=Planned, fingerprint=made)
    report = run_stage(ReadCorpus(), [out / "plan"], out / "read")
    assert report.counts.failed == 0
    return list(tables.open_table(out / "read", Recording).rows())


def labels_of(recording: Recording) -> dict[str, Any]:
    return {
        one.attribute: one.category if one.category is not None else one.number
        for one in recording.references[0].labels
        if one.labeller == HUMAN
    }


# ---- one corpus after the other ------------------------------------------------------------------------------------------------


def test_ravdess(tmp_path: Path) -> None:
    say(tmp_path, "Actor_01/03-01-01-01-01-01-01.wav", "Actor_02/03-01-06-02-02-01-02.wav")
    for name in (
        "03-02-03-01-01-01-01.wav",
        "02-01-06-01-01-01-02.mp4",
        "01-01-06-02-02-01-02.mp4",
        "._03-01.wav",
        "03-01-09-01.wav",
    ):
        write(tmp_path, f"Actor_01/{name}", b"")
    corpus = RavdessCorpus(path=tmp_path)
    found = corpus.survey()
    assert reasons(found) == {
        "Actor_01/03-02-03-01-01-01-01.wav": "song",
        "Actor_01/02-01-06-01-01-01-02.mp4": "no_sound",
        "Actor_01/01-01-06-02-02-01-02.mp4": "duplicate",
        "Actor_01/._03-01.wav": "hidden_file",
        "Actor_01/03-01-09-01.wav": "unknown_name",
    }
    assert found.line == "ravdess: 2 read, 5 skipped (duplicate 1, hidden_file 1, no_sound 1, song 1, unknown_name 1)"
    first, second = read(corpus, tmp_path / "out")
    assert labels_of(first) == {"emotion": "neutral", "gender": "male", "intensity": "normal"}
    assert labels_of(second) == {"emotion": "fearful", "gender": "female", "intensity": "strong"}
    assert (second.speakers, second.references[0].transcript) == (("ravdess/rav02",), "Dogs are sitting by the door.")
    assert (second.source, second.language, second.licence) == ("ravdess", "en", "CC BY-NC-SA 4.0")
    assert (first.references[0].start_ms, first.references[0].end_ms) == (100, 1100)


def test_tess(tmp_path: Path) -> None:
    say(
        tmp_path,
        "OAF_neutral/OA_bite_neutral.wav",
        "YAF_pleasant_surprised/YAF_back_ps.wav",
        "TESS/YAF_back_ps.wav",
        "OAF_x_bored.wav",
    )
    found = TessCorpus(path=tmp_path).survey()
    assert reasons(found) == {"OAF_x_bored.wav": "unknown_name", "YAF_pleasant_surprised/YAF_back_ps.wav": "duplicate"}
    bite, back = by_key(found)["OAF_bite_neutral"].spoken, by_key(found)["YAF_back_ps"].spoken
    assert (bite.speaker, bite.text, bite.emotion, bite.gender, bite.age) == ("OAF", "Say the word bite.", "neutral", "female", 64)
    assert (back.speaker, back.emotion, back.age) == ("YAF", "surprised", 26)


NEMO = """file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage
EB0_anger_1.wav\tanger\tLubię "czytać przed snem.\tlubię czytać przed snem\t        EB0\tfemale\t27
TP0_surprised_2.wav\tsurprised\tNie waśńmy się.\tnie waśńmy się\t        TP0\tmale\t26
MK0_fear_3.wav\tfear\tChodźmy w tango.\tchodźmy w tango\t        MK0\tfemale\t23
"""


def test_nemo(tmp_path: Path) -> None:
    say(tmp_path, "samples/EB0_anger_1.wav", "samples/TP0_surprised_2.wav", "samples/XX0_anger_4.wav")
    write(tmp_path, "data.tsv", NEMO)
    corpus = NemoCorpus(path=tmp_path, hold_out=SplitRule(test_speakers=("TP0",)))
    found = corpus.survey()
    assert reasons(found) == {"samples/XX0_anger_4.wav": "no_label", "MK0_fear_3": "no_audio"}
    assert by_key(found)["EB0_anger_1"].spoken.model_dump(exclude_defaults=True) == {
        "speaker": "EB0",
        "text": 'Lubię "czytać przed snem.',
        "emotion": "angry",
        "gender": "female",
        "age": 27,
    }
    assert splits(corpus) == {"EB0_anger_1": "train", "TP0_surprised_2": "test"}
    assert corpus.plan(seed=0)[0].language == "pl"


def test_emodb(tmp_path: Path) -> None:
    say(tmp_path, "wav/03a01Fa.wav", "wav/08b09Ab.wav", "wav/16a07L.wav", "wav/04a01Fa.wav", "wav/03a03Fa.wav")
    found = EmodbCorpus(path=tmp_path).survey()
    assert reasons(found) == {"wav/04a01Fa.wav": "unknown_name", "wav/03a03Fa.wav": "unknown_name"}
    said = {key: (one.spoken.speaker, one.spoken.emotion, one.spoken.gender, one.spoken.age) for key, one in by_key(found).items()}
    assert said == {
        "03a01Fa": ("03", "happy", "male", 31),
        "08b09Ab": ("08", "fearful", "female", 34),
        "16a07L": ("16", "other", "female", 31),
    }
    assert by_key(found)["08b09Ab"].spoken.text == "Ich will das eben wegbringen und dann mit Karl was trinken gehen."


VOTES = """"","A","D","F","H","N","S","fileName","numResponses"
"100001",3,0,0,0,1,0,"1001_IEO_ANG_HI",4
"200001",0,4,0,0,0,0,"1001_IEO_ANG_HI",4
"300001",4,0,0,0,0,0,"1001_IEO_ANG_HI",4
"100002",0,2,0,0,2,1,"1002_DFA_NEU_XX",5
"""


def crema_d(root: Path) -> Path:
    say(root, "AudioWAV/1001_IEO_ANG_HI.wav", "AudioWAV/1002_DFA_NEU_XX.wav", "AudioWAV/1040_ITH_SAD_X.wav")
    say(root, "AudioMP3/1001_IEO_ANG_HI.flac")
    write(root, "VideoDemographics.csv", '"ActorID","Age","Sex","Race"\n1001,51,"Male","x"\n1002,21,"Female","x"\n')
    write(root, "processedResults/tabulatedVotes.csv", VOTES)
    return root


def test_crema_d_votes_are_distributions(tmp_path: Path) -> None:
    corpus = CremaDCorpus(path=crema_d(tmp_path))
    found = corpus.survey()
    assert (dict(found.without), reasons(found)) == ({"no_votes": 1, "no_demographics": 1}, {})
    label = read(corpus, tmp_path / "out")[0].references[0].of("emotion")[0]
    assert label == Label(
        attribute="emotion",
        category="angry",
        distribution={"angry": 0.75, "neutral": 0.25},
        start_ms=100,
        end_ms=1100,
        labeller=HUMAN,
    )
    neutral = by_key(found)["1002_DFA_NEU_XX"].spoken
    assert (neutral.emotion, neutral.intensity, neutral.age) == ("neutral", None, 21)
    assert by_key(found)["1040_ITH_SAD_X"].spoken.emotion_votes is None


def test_crema_d_can_take_what_raters_heard_or_saw(tmp_path: Path) -> None:
    voted = by_key(CremaDCorpus(path=crema_d(tmp_path), label="voted").survey())
    assert [one.spoken.emotion for one in voted.values()] == ["angry", "unknown", "unknown"]
    assert voted["1002_DFA_NEU_XX"].spoken.emotion_votes == {"disgusted": 0.4, "neutral": 0.4, "sad": 0.2}
    seen = by_key(CremaDCorpus(path=tmp_path, votes="audiovisual").survey())
    assert seen["1001_IEO_ANG_HI"].spoken.emotion_votes == {"angry": 1.0}
    (tmp_path / "processedResults" / "tabulatedVotes.csv").unlink()
    with pytest.raises(DataError, match=r"tabulatedVotes\.csv does not exist; expected CREMA-D's votes, or votes: none"):
        CremaDCorpus(path=tmp_path).survey()
    assert CremaDCorpus(path=tmp_path, votes="none").survey().without == {"no_demographics": 1}
    with pytest.raises(DataError, match="label: voted needs votes"):
        CremaDCorpus(path=tmp_path, votes="none", label="voted").survey()


def esd(root: Path) -> Path:
    say(root, "0001/Happy/train/0001_000701.wav", "0003/Sad/test/0003_001051.wav", "0011/Angry/evaluation/0011_000351.wav")
    say(root, "0016/Surprise/train/0016_001401.wav", "0020/Neutral/0020_000001.wav", "0011/Calm/0011_000001.wav")
    write(root, "0001/0001.txt", "0001_000701\t打远一看，\t快乐\n".encode("gb2312"))
    write(root, "0003/0003.txt", "0003_001051\t打远一看，\t伤心\n".encode("utf-16"))
    write(root, "0011/0011.txt", "0011_000351\tThe nine the eggs, I keep.\tAngry\n\nbroken line\n")
    write(root, "0016/0016.txt", "0016_001401\tA café.\tSurprise\n".encode("latin-1"))
    return root


def test_esd_in_all_its_encodings(tmp_path: Path) -> None:
    corpus = EsdCorpus(path=esd(tmp_path), hold_out=SplitRule(test_speakers=("0016",)))
    found = corpus.survey()
    assert (reasons(found), dict(found.without)) == ({"0011/Calm/0011_000001.wav": "unknown_name"}, {"no_transcript": 1})
    said = {key: (one.spoken.text, one.spoken.emotion, one.spoken.gender, one.language) for key, one in by_key(found).items()}
    assert said == {
        "0001_000701": ("打远一看，", "happy", "female", "zh"),
        "0003_001051": ("打远一看，", "sad", "female", "zh"),
        "0011_000351": ("The nine the eggs, I keep.", "angry", "male", "en"),
        "0016_001401": ("A café.", "surprised", "female", "en"),
        "0020_000001": (None, "neutral", "male", "en"),
    }
    assert {row.language for row in corpus.plan(seed=0)} == {"zh", "en"}
    assert splits(corpus)["0016_001401"] == "test"


def test_esd_by_its_own_partition_and_by_language(tmp_path: Path) -> None:
    corpus = EsdCorpus(path=esd(tmp_path), partition="official", languages=("en",))
    assert splits(corpus) == {"0011_000351": "dev", "0016_001401": "train"}
    assert Counter(reasons(corpus.survey()).values()) == {"other_language": 2, "no_partition": 1, "unknown_name": 1}


def meld(root: Path) -> Path:
    head = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    write(
        root,
        "train/train_sent_emo.csv",
        head + "1,my company\x92s car,Chandler,joy,positive,0,0,8,21,a,b\n2,Hey!,All,anger,n,0,1,8,21,a,b\n",
    )
    write(root, "test_sent_emo.csv", head + "1,What?,Ross,disgust,negative,0,0,8,21,a,b\n2,Gone.,Ross,sadness,n,7,1,8,21,a,b\n")
    for name in ("train/train_splits/dia0_utt0.mp4", "train/train_splits/dia0_utt1.mp4", "dev/dev_splits_complete/dia5_utt0.mp4"):
        write(root, name, b"")
    say(root, "test/output_repeated_splits_test/dia0_utt0.wav")
    write(root, "test/output_repeated_splits_test/final_videos_testdia0_utt0.mp4", b"")
    return root


def test_meld(tmp_path: Path) -> None:
    corpus = MeldCorpus(path=meld(tmp_path), partition="official")
    found = corpus.survey()
    assert reasons(found) == {
        "dev/dev_splits_complete/dia5_utt0.mp4": "no_label",
        "test/output_repeated_splits_test/final_videos_testdia0_utt0.mp4": "unknown_name",
        "test/dia7_utt1": "no_audio",
    }
    assert dict(found.without) == {"several_speakers": 1}
    first = by_key(found)["train/dia0_utt0"].spoken
    assert (first.text, first.speaker, first.emotion) == ("my company’s car", "Chandler", "happy")
    assert by_key(found)["train/dia0_utt1"].spoken.speaker is None
    assert [(row.key.split("/")[0], row.split) for row in corpus.plan(seed=0)] == [
        ("test", "test"),
        ("train", "train"),
        ("train", "train"),
    ]
    by_speaker = MeldCorpus(path=tmp_path, hold_out=SplitRule(dev_speakers=("Chandler",)))
    assert [row.split for row in by_speaker.plan(seed=0)] == ["train", "dev", "train"]
    with pytest.raises(DataError, match=r"holds none of train_sent_emo\.csv"):
        MeldCorpus(path=tmp_path / "test").survey()


MSP = """FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
MSP-PODCAST_0001_0001.wav,C,4.0,1.0,7.0,12,Female,Train
MSP-PODCAST_0001_0002.wav,X,2.5,8.0,4.0,Unknown,Unknown,Development
MSP-PODCAST_0001_0003.wav,H,2.5,6.0,4.0,13,Male,Test2
"""
DETAILED = """FileName,EmoDetail
MSP-PODCAST_0001_0001.wav,"WORKER00000001; Contempt; Contempt,Annoyed; A:4.000000; V:1.000000; D:7.000000;"
MSP-PODCAST_0001_0001.wav,"WORKER00000002; Other-Curious; A:4.000000; V:1.000000; D:7.000000;"
MSP-PODCAST_0001_0001.wav,"WORKER00000003; Neutral; Neutral; A:4.000000; V:1.000000; D:7.000000;"
MSP-PODCAST_0001_0001.wav,"WORKER00000004; Contempt; A:4.000000; V:1.000000; D:7.000000;"
"""


def msp_podcast(root: Path, *, labels: str = "labels_consensus.csv") -> Path:
    say(root, "Audios/MSP-PODCAST_0001_0001.wav", "Audios/MSP-PODCAST_0001_0002.wav", "Audios/MSP-PODCAST_0009_0001.wav")
    write(root, f"Labels/{labels}", MSP)
    write(root, "Labels/labels_detailed.csv", DETAILED)
    write(root, "Transcripts/MSP-PODCAST_0001_0001.txt", "Well, sure.\n")
    return root


def test_msp_podcast(tmp_path: Path) -> None:
    corpus = MspPodcastCorpus(path=msp_podcast(tmp_path))
    found = corpus.survey()
    assert reasons(found) == {"Audios/MSP-PODCAST_0009_0001.wav": "no_label", "MSP-PODCAST_0001_0003": "no_audio"}
    assert dict(found.without) == {"no_speaker": 1, "no_transcript": 1, "no_votes": 1, "off_scale": 1}
    first, second = read(corpus, tmp_path / "out")
    assert labels_of(first) == {"emotion": "disgusted", "gender": "female", "valence": 0.0, "arousal": 0.5, "dominance": 1.0}
    assert first.references[0].of("emotion")[0].distribution == {"disgusted": 0.5, "other": 0.25, "neutral": 0.25}
    assert (first.references[0].transcript, first.speakers, first.split) == ("Well, sure.", ("msp_podcast/12",), "train")
    assert labels_of(second) == {"emotion": "unknown", "arousal": 0.25, "dominance": 0.5}
    assert (second.speakers, second.split) == ((), "dev")


def test_older_releases_of_msp_podcast(tmp_path: Path) -> None:
    root = msp_podcast(tmp_path, labels="labels_concensus.csv")
    lines = [line.rsplit(",", 1)[0] for line in MSP.splitlines()]
    write(root, "Labels/labels_concensus.csv", "\n".join(lines))
    (root / "Labels" / "labels_detailed.csv").unlink()
    with pytest.raises(DataError, match=r"holds neither Partitions\.txt nor Partition\.txt"):
        MspPodcastCorpus(path=root).survey()
    write(root, "Partitions.txt", "\nTest1; MSP-PODCAST_0001_0001.wav\n Validation; MSP-PODCAST_0001_0002.wav\n")
    corpus = MspPodcastCorpus(path=root)
    assert splits(corpus) == {"MSP-PODCAST_0001_0001": "test", "MSP-PODCAST_0001_0002": "dev"}
    assert corpus.survey().without["no_votes"] == 2
    write(root, "Partitions.txt", "Test9; MSP-PODCAST_0001_0001.wav\n")
    with pytest.raises(DataError, match=r"MSP-PODCAST_0001_0001 is in set 'Test9', expected one of Train.*partition: speaker"):
        corpus.survey()
    by_speaker = MspPodcastCorpus(path=root, partition="speaker", hold_out=SplitRule(test_speakers=("12",)), votes=False)
    assert splits(by_speaker) == {"MSP-PODCAST_0001_0001": "test", "MSP-PODCAST_0001_0002": "train"}
    assert "no_votes" not in by_speaker.survey().without
    write(root, "Labels/labels_detailed.csv", "FileName,EmoDetail\nMSP-PODCAST_0001_0001.wav,Neutral\n")
    with pytest.raises(DataError, match=r"labels_detailed\.csv line 2 is 'MSP-PODCAST_0001_0001\.wav,Neutral'; expected FILE and"):
        corpus.survey()


EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 5.0000]
C-E2:\tNeutral state;\t()
C-E3:\tNeutral state; Frustration;\t()
C-E4:\tExcited;\t(eager)
C-F1:\tSadness;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[5.5000, 3.0000, 1.0000]
C-E2:\tOther;\t(hopeful)

[20.0 - 21.0]\tSes01F_impro01_F001\tfru\t[2.0000, 3.0000, 3.0000]
[22.0 - 23.0]\tSes01F_impro01_F002\txxx\t[2.0000, 3.0000, 3.0000]
"""
ALIGNED = "\n".join(
    [
        "\t SFrm  EFrm    SegAScr Word",
        "\t    0     4   -117721 <s>",
        "\t    5    34  -1052907 EXCUSE(2)",
        "\t   35    40     -1029 ++BREATH++",
        "\t   41   110       -99 ME",
        "\t  111   119        -1 </s>",
        "Total score:  -1",
    ]
)


def iemocap(root: Path) -> Path:
    turns = ("F000", "M000", "F002", "FXX0", "M009")
    say(root, *(f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_{turn}.wav" for turn in turns))
    say(root, "Session2/sentences/wav/Ses02M_script01_1/Ses02M_script01_1_M000.wav", "Session1/dialog/wav/Ses01F_impro01.wav")
    write(root, "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", EVALUATION)
    write(root, "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt", b"\x00\x05\x16\x81")
    write(root, "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt", "Ses01F_impro01_F000 :Anger; ()")
    write(
        root, "Session2/dialog/EmoEvaluation/Ses02M_script01_1.txt", "[0.1 - 1.2]\tSes02M_script01_1_M000\thap\t[4.0, 3.0, 3.0]\n"
    )
    write(
        root,
        "Session1/dialog/transcriptions/Ses01F_impro01.txt",
        "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\nM: no turn\nSes01F_impro01_M000 [010.0100-011.3925]: Yeah, let's go.\n",
    )
    for turn in ("F000", "M000"):
        write(root, f"Session1/sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_{turn}.wdseg", ALIGNED)
    (root / "Session3").mkdir()
    return root


def test_iemocap(tmp_path: Path) -> None:
    corpus = IemocapCorpus(path=iemocap(tmp_path), test_sessions=(2,))
    found = corpus.survey()
    scene = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01"
    assert reasons(found) == {
        "Session3": "empty_session",
        f"{scene}_FXX0.wav": "unknown_name",
        f"{scene}_M009.wav": "no_label",
        "Ses01F_impro01_F001": "no_audio",
    }
    assert dict(found.without) == {"no_alignment": 2, "no_transcript": 2, "no_votes": 2, "off_scale": 1}
    recordings = {Path(one.uri).stem: one for one in read(corpus, tmp_path / "out")}
    excuse = recordings["Ses01F_impro01_F000"].references[0]
    assert labels_of(recordings["Ses01F_impro01_F000"]) == {
        "emotion": "neutral",
        "gender": "female",
        "valence": 0.375,
        "arousal": 0.375,
        "dominance": 1.0,
    }
    assert excuse.of("emotion")[0].distribution == pytest.approx({"neutral": 0.5, "happy": 1 / 3, "other": 1 / 6})
    assert [(word.text, word.start_ms, word.end_ms) for word in excuse.words] == [("Excuse", 50, 350), ("me.", 410, 1110)]
    assert (excuse.start_ms, excuse.end_ms, excuse.speaker) == (50, 1110, "iemocap/Ses01F")
    other = recordings["Ses01F_impro01_M000"].references[0]
    assert [word.text for word in other.words] == ["excuse", "me"]
    assert labels_of(recordings["Ses01F_impro01_M000"]) == {"emotion": "happy", "gender": "male", "arousal": 0.5, "dominance": 0.0}
    assert recordings["Ses01F_impro01_F002"].references[0].category("emotion") == "unknown"
    assert {name: one.split for name, one in recordings.items() if one.split != "train"} == {"Ses02M_script01_1_M000": "test"}


def test_four_classes_of_iemocap_with_and_without_excited(tmp_path: Path) -> None:
    root = iemocap(tmp_path)
    merged = IemocapCorpus(path=root, classes=4).survey()
    assert {key: one.spoken.emotion for key, one in by_key(merged).items()} == {
        "Ses01F_impro01_F000": "neutral",
        "Ses01F_impro01_M000": "happy",
        "Ses02M_script01_1_M000": "happy",
    }
    assert Counter(reasons(merged).values())["not_of_the_4_classes"] == 1
    assert "Ses01F_impro01_F002" not in reasons(merged)
    apart = IemocapCorpus(path=root, classes=4, excited_is_happy=False, word_times=False).survey()
    assert "Ses01F_impro01_M000" not in by_key(apart)
    assert by_key(apart)["Ses01F_impro01_F000"].spoken.emotion_votes == pytest.approx({"neutral": 0.5, "other": 0.5})
    assert by_key(apart)["Ses01F_impro01_F000"].spoken.words == ()
    assert "no_alignment" not in apart.without
    everything = IemocapCorpus(path=root, excited_is_happy=False).survey()
    assert by_key(everything)["Ses01F_impro01_M000"].spoken.emotion == "other"
    (root / "alone" / "Session4").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no labels in Session\*/dialog/EmoEvaluation"):
        IemocapCorpus(path=root / "alone").survey()
    with pytest.raises(DataError, match="holds no folder Session1 to Session5"):
        IemocapCorpus(path=root / "Session1").survey()


# ---- what all readers share ----------------------------------------------------------------------------------------------------


def test_every_reader_is_a_kind_of_corpus_in_a_study(tmp_path: Path) -> None:
    assert sorted(one.__name__ for one in READERS) == sorted(set(exported) - {"NativeCorpus"})
    adapter: TypeAdapter[Any] = TypeAdapter(Corpus)
    for reader in READERS:
        kind = reader.model_fields["kind"].default
        made = adapter.validate_python({"kind": kind, "path": str(tmp_path)})
        assert type(made) is reader
        assert made.title == kind
        assert made.licence
        assert adapter.validate_json(made.model_dump_json()) == made
        assert adapter.validate_python({"kind": kind, "path": str(tmp_path), "name": "mine"}).title == "mine"


@pytest.mark.parametrize("reader", READERS)
def test_missing_and_empty_folders_are_said(reader: type[NativeCorpus], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none does not exist or is not a folder"):
        reader(path=tmp_path / "none").plan(seed=0)
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(DataError, match=r"no audio below .*Set path|does not exist; expected|holds n(o|either)"):
        reader(path=tmp_path).plan(seed=0)


def test_planning_opens_no_audio(tmp_path: Path) -> None:
    for corpus in (
        RavdessCorpus(path=tmp_path / "ravdess"),
        TessCorpus(path=tmp_path / "tess"),
        EmodbCorpus(path=tmp_path / "emodb"),
    ):
        name = {"ravdess": "03-01-05-01-01-01-11", "tess": "YAF_gaze_ps", "emodb": "14b10Td"}[corpus.title]
        for count, (suffix, best) in enumerate((("aac", "aac"), ("flac", "flac"), ("mp3", "flac"), ("WAV", "WAV"))):
            write(corpus.path, f"{name}.{suffix}", b"this is no audio")
            found = corpus.survey()
            assert [file for file, _ in found.found] == [f"{name}.{best}"]
            assert Counter(reasons(found).values()) == Counter({"duplicate": count})


def test_a_held_out_speaker_who_is_not_there_and_two_ways_to_split_are_refused(tmp_path: Path) -> None:
    say(tmp_path, "03a01Fa.wav")
    with pytest.raises(DataError, match="held-out speakers 3 are not in the corpus; its speakers are 03"):
        EmodbCorpus(path=tmp_path, hold_out=SplitRule(test_speakers=("3",))).plan(seed=0)
    with pytest.raises(ValidationError, match=r"partition: official and hold_out both split"):
        MeldCorpus(path=tmp_path, partition="official", hold_out=SplitRule(test_share=0.1))
    with pytest.raises(ValidationError, match=r"should match pattern"):
        EmodbCorpus(path=tmp_path, name="a/b")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        EmodbCorpus.model_validate({"path": tmp_path, "speakers": ["03"]})


def test_settings_may_map_a_corpus_own_words(tmp_path: Path) -> None:
    say(tmp_path, "03a01La.wav")
    assert EmodbCorpus(path=tmp_path, emotions={"boredom": "sad"}).utterances()[0][1][0].emotion == "sad"
    with pytest.raises(ValidationError, match=r"emotions\.boredom"):
        EmodbCorpus.model_validate({"path": tmp_path, "emotions": {"boredom": "dull"}})


def test_an_emotion_word_that_no_table_knows_is_said(tmp_path: Path) -> None:
    say(tmp_path, "samples/EB0_anger_1.wav")
    write(tmp_path, "data.tsv", NEMO.replace("\tanger\t", "\tfurious\t"))
    with pytest.raises(DataError, match="emotion 'furious' is not one that Undertone knows"):
        NemoCorpus(path=tmp_path).survey()
    assert NemoCorpus(path=tmp_path, emotions={"furious": "angry"}).survey().found[0][1].spoken.emotion == "angry"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "file_id\temotion\nEB0_anger_1.wav\tanger\n",
            r"is not the table of the corpus: its columns are file_id, emotion; expected .*raw_text",
        ),
        ("file_id\temotion\n", r"is not the table of the corpus: it has no rows; expected file_id"),
        (NEMO.encode("utf-16"), r"data\.tsv is not UTF-8"),
    ],
)
def test_a_wrong_label_table_is_said(tmp_path: Path, content: str | bytes, message: str) -> None:
    write(tmp_path, "data.tsv", content)
    with pytest.raises(DataError, match=message):
        NemoCorpus(path=tmp_path).survey()


def test_a_cell_that_is_no_number_is_said(tmp_path: Path) -> None:
    crema = CremaDCorpus(path=crema_d(tmp_path / "crema"))
    write(crema.path, "processedResults/tabulatedVotes.csv", VOTES.replace('"100001",3', '"100001",NA'))
    with pytest.raises(DataError, match=r"tabulatedVotes\.csv holds 'NA' where a number is expected"):
        crema.survey()
    msp = MspPodcastCorpus(path=msp_podcast(tmp_path / "msp"))
    write(msp.path, "Labels/labels_consensus.csv", MSP.replace("4.0,1.0", "4.0,high"))
    with pytest.raises(DataError, match=r"labels_consensus\.csv holds 'high' where a number is expected"):
        msp.survey()


def test_the_plan_of_a_corpus_tells_what_was_left_out(tmp_path: Path) -> None:
    say(tmp_path, "03a01Fa.wav", "else.wav")
    native = plan_of(EmodbCorpus(path=tmp_path), seed=0)
    assert ([row.key for row in native.rows], [loss.reason for loss in native.dropped]) == (["03a01Fa.wav"], ["unknown_name"])
    assert (native.dropped[0].row_id, native.dropped[0].stage) == ("else.wav", "plan")
    assert native.note == "emodb: 1 read, 1 skipped (unknown_name 1)"
    folder = plan_of(FolderCorpus(path=tmp_path), seed=0)
    assert (len(folder.rows), folder.dropped, folder.note) == (2, (), "")


def test_a_planned_row_is_a_file_as_any_other(tmp_path: Path) -> None:
    say(tmp_path, "03a01Fa.wav")
    row = EmodbCorpus(path=tmp_path).plan(seed=0)[0]
    spec = FileSpec.model_validate_json(row.spec)
    assert (row.reader, row.key, spec.path, spec.utterances[0].speaker) == (
        "file",
        "03a01Fa.wav",
        tmp_path / "03a01Fa.wav",
        "emodb/03",
    )
    assert row.stamp
    assert row.id == EmodbCorpus(path=tmp_path).plan(seed=7)[0].id


def test_scales_become_ours() -> None:
    assert [scaled(value, 1, 7) for value in (1, 4, 7, 0.9, 7.1)] == [0.0, 0.5, 1.0, None, None]
    assert scaled(2.5, 1, 5) == 0.375


def test_the_readers_need_no_heavy_package() -> None:
    code = "import sys, undertone.corpora.stage; print([n for n in ('torch', 'transformers', 'datasets', 'lhotse') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# ---- the real ones -------------------------------------------------------------------------------------------------------------


def manifest(folder: Path) -> list[dict[str, str]]:
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no {folder}: the shared corpora are not on this machine")
    with (folder / "manifest.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def facts(row: dict[str, str]) -> tuple[str, ...]:
    return (row["speaker"], to_emotion(row["emotion"]), row["gender"], row["text"], row["intensity"], row["age"])


def told(one: Utterance) -> tuple[str, ...]:
    spoken = one.spoken
    years = f"{spoken.age:.0f}" if spoken.age else ""
    return (*(value or "" for value in (spoken.speaker, spoken.emotion, spoken.gender, spoken.text, spoken.intensity)), years)


@pytest.mark.parametrize("reader", [RavdessCorpus, TessCorpus])
def test_the_reader_agrees_with_the_manifest_of_the_shared_corpus(reader: type[NativeCorpus], shared_data: Path) -> None:
    folder = shared_data / str(reader.model_fields["kind"].default)
    rows = {row["file"]: facts(row) for row in manifest(folder)}
    found = reader(path=folder).survey()
    assert found.losses == ()
    assert {file: told(one) for file, one in found.found} == rows
    assert len(rows) >= 1000


def test_nemo_agrees_with_the_manifest_of_the_shared_corpus(shared_data: Path, tmp_path: Path) -> None:
    """The shared copy lacks data.tsv; one with its columns is made of the manifest, so what is tested is the way through the table."""
    rows = manifest(shared_data / "nemo")
    (tmp_path / "samples").symlink_to(shared_data / "nemo" / "audio")
    lines = ["file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"]
    for row in rows:
        name = f"{Path(row['file']).stem}.wav"
        lines.append("\t".join([name, row["emotion"], row["text"], "", f"        {row['speaker']}", row["gender"], row["age"]]))
    write(tmp_path, "data.tsv", "\n".join(lines))
    found = NemoCorpus(path=tmp_path).survey()
    assert found.losses == ()
    assert {key: told(one) for key, one in by_key(found).items()} == {Path(row["file"]).stem: facts(row) for row in rows}
    for key, one in by_key(found).items():
        speaker, emotion, _ = key.split("_")
        assert (one.spoken.speaker, one.spoken.emotion) == (speaker, to_emotion(emotion))


def test_shared_speech_is_read_through_the_native_reader(shared_data: Path, tmp_path: Path) -> None:
    manifest(shared_data / "ravdess")
    made = Fingerprint(stage="plan", version="1", seed=0, config={}, inputs={})
    rows = RavdessCorpus(path=shared_data / "ravdess").plan(seed=0)[::400]
    write_rows(tmp_path / "plan", rows, record=Planned, fingerprint=made)
    run_stage(ReadCorpus(), [tmp_path / "plan"], tmp_path / "read")
    recordings = list(tables.open_table(tmp_path / "read", Recording).rows())
    assert len(recordings) == len(rows) == 3
    for one in recordings:
        assert 0 <= one.references[0].start_ms < one.references[0].end_ms <= one.duration_ms
        assert labels_of(one)["intensity"] in ("normal", "strong")
