"""MSP-Podcast: spontaneous speech of podcasts, each turn rated by five people or more (Lotfian & Busso 2019; Busso et al. 2025).

Layout, as its readme.txt (release 1.12) has it: Audios/MSP-PODCAST_0001_0008.wav, Labels/labels_consensus.csv (labels_concensus.csv in
older releases) with columns FileName, EmoClass, EmoAct, EmoVal, EmoDom and mostly SpkrID, Gender, Split_Set; Labels/labels_detailed.csv with
a row per rater, "WORKER...; Neutral; Neutral,Concerned; A:4.000000; V:4.000000; D:4.000000;"; Partitions.txt (or Partition.txt) with lines
"Test1; FILE"; Transcripts/FILE.txt. Ratings are from 1 to 7 and become 0..1.

The labels of Test3 are not published: its audio is dropped as `no_label`. Dropped too: `other_test_set` (of a set that is not in `test_sets`).
Without: `no_transcript`, `no_speaker` (SpkrID is "Unknown"), `no_votes`, `off_scale` (a rating outside 1..7 is left out).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Skip, Utterance, gender_of, number, scaled, table, text_of
from undertone.corpora.plan import Spoken
from undertone.errors import DataError
from undertone.paths import Location, local_copy
from undertone.records import Split

EMOTIONS = {
    "A": "anger",
    "S": "sadness",
    "H": "happiness",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "no agreement",
}
_SETS: dict[str, Split] = {
    "Train": "train",
    "Development": "dev",
    "Validation": "dev",
    "Test": "test",
    "Test1": "test",
    "Test2": "test",
    "Test3": "test",
}
_RATED = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}
_LABELS = ("labels_consensus.csv", "labels_concensus.csv")
_PARTITIONS = ("Partitions.txt", "Partition.txt")
LOWEST, HIGHEST = 1.0, 7.0


class MspPodcastCorpus(NativeCorpus):
    """Settings of MSP-Podcast. Speakers are the numbers of SpkrID; `votes: false` leaves the raters' single votes unread.

    `test_sets` are those of the official partition that are read; turns of others are dropped.
    """

    kind: Literal["msp_podcast"] = "msp_podcast"
    partition: Literal["official", "speaker"] = "official"
    test_sets: tuple[Literal["Test", "Test1", "Test2", "Test3"], ...] = ("Test", "Test1", "Test2", "Test3")
    votes: bool = True
    language: str | None = "en"
    licence: str | None = "MSP-Podcast licence (University of Texas at Dallas), not to be passed on"

    def _audio_folders(self) -> tuple[Location, ...]:
        return (self.path / "Audios",)

    def _open(self) -> Opened:
        file = _one_of(self.path / "Labels", _LABELS)
        rows = {
            Path(row["FileName"]).stem: row for row in table(file, ("FileName", "EmoClass", *_RATED.values()), what="its labels")
        }
        sets = self._sets() if self.partition == "official" and "Split_Set" not in next(iter(rows.values())) else {}
        votes = self._votes() if self.votes else {}
        folder = self.path / "Transcripts"
        transcripts = {one.name for one in folder.iterdir()} if folder.is_dir() else set()

        def describe(audio: PurePosixPath) -> Utterance:
            name = audio.stem
            row = rows.get(name)
            if row is None:
                raise Skip("no_label", f"{file.name} has no row for {audio.name}")
            text = text_of(folder / f"{name}.txt", "utf-8-sig", "cp1252").strip() if f"{name}.txt" in transcripts else ""
            rated = {ours: scaled(number(row[theirs], file), LOWEST, HIGHEST) for ours, theirs in _RATED.items() if row[theirs]}
            speaker = row.get("SpkrID", "")
            known = speaker not in ("", "Unknown")
            shares = self._shares(votes.get(name, ()))
            spoken = Spoken(
                speaker=speaker if known else None,
                text=text or None,
                emotion=self._emotion(EMOTIONS.get(row["EmoClass"], row["EmoClass"])),
                emotion_votes=shares,
                gender=gender_of(row.get("Gender", "")),
                **rated,
            )
            lacks = {
                "no_transcript": not text,
                "no_speaker": not known,
                "no_votes": self.votes and shares is None,
                "off_scale": None in rated.values(),
            }
            split = self._set(name, row.get("Split_Set") or sets.get(name)) if self.partition == "official" else None
            return Utterance(key=name, spoken=spoken, split=split, without=tuple(one for one, holds in lacks.items() if holds))

        return Opened(describe=describe, labelled=rows)

    def _set(self, name: str, word: str | None) -> Split:
        if word not in _SETS:
            raise DataError(
                f"{self.path}: {name} is in set {word!r}, expected one of {', '.join(_SETS)} (column Split_Set, or {_PARTITIONS[0]}). "
                "Set partition: speaker to split by speaker"
            )
        if _SETS[word] == "test" and word not in self.test_sets:
            raise Skip("other_test_set", f"of {word}; test_sets are {', '.join(self.test_sets)}", key=name)
        return _SETS[word]

    def _sets(self) -> dict[str, str]:
        lines = text_of(_one_of(self.path, _PARTITIONS), "utf-8-sig").splitlines()
        pairs = [[cell.strip() for cell in line.split(";")] for line in lines if ";" in line]
        return {Path(name).stem: word for word, name, *_ in pairs}

    def _votes(self) -> dict[str, list[tuple[str, float]]]:
        """The raters' primary emotions by file; one who wrote their own word for "Other" ("Other-Curious") voted for other."""
        file = self.path / "Labels" / "labels_detailed.csv"
        votes: dict[str, list[tuple[str, float]]] = defaultdict(list)
        if not file.is_file():
            return votes
        with local_copy(file) as copy, copy.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            rows = csv.reader(lines)
            next(rows, None)
            for number, row in enumerate(rows, start=2):
                cells = [cell.strip() for cell in row[1].split(";")] if len(row) > 1 else []
                if len(cells) < 2:
                    raise DataError(f"{file} line {number} is {','.join(row)[:60]!r}; expected FILE and 'WORKER; EMOTION; ...'")
                votes[Path(row[0]).stem].append(("other" if cells[1].lower().startswith("other") else cells[1], 1.0))
        return votes


def _one_of(folder: Location, names: tuple[str, ...]) -> Location:
    """The first of several names of a file that is there.

    Raises:
        DataError: None is.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise DataError(
            f"{folder} holds neither {' nor '.join(names)}; set path to MSP-Podcast's folder, which holds Audios/ and Labels/"
        )
    return found
