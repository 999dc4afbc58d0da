"""ESD, the Emotional Speech Dataset: 350 parallel sentences by ten Mandarin and ten English speakers in five emotions (Zhou et al. 2021).

Layout, as released (HLTSingapore/Emotional-Speech-Data; speakers' genders from its ReadMe.txt): 0011/Angry/train/0011_000351.wav with
folders train, evaluation and test (some copies have none), and 0011/0011.txt with lines of file, text and emotion between tabs. The text
files are in GB 2312, UTF-16, UTF-8 and Latin-1. The official partition holds the same speakers on all sides; where its folders are missing,
the number of the sentence says the same (`partition: numbered`): of the 350 of each emotion, 1 to 20 are evaluation, 21 to 50 test.

Dropped: `no_partition` (partition: official where the release has no such folders), `other_language` (of a speaker outside `languages`).
Without: `no_transcript`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, Self

from pydantic import model_validator

from undertone.corpora.native.base import NativeCorpus, Opened, Skip, Utterance, text_of, unknown_name
from undertone.corpora.plan import SplitRule, Spoken
from undertone.records import Split

EMOTIONS = ("Angry", "Happy", "Neutral", "Sad", "Surprise")
FEMALE = frozenset({"0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019"})
_PARTITION: dict[str, Split] = {"train": "train", "evaluation": "dev", "test": "test"}
_SENTENCES, _EVALUATED, _TESTED = 350, 20, 30
"""Of each speaker and emotion; numbers run on through the emotions (Angry begins at 351)."""
_NAME = re.compile(r"(00(?:0[1-9]|1\d|20))_\d{6}")


class EsdCorpus(NativeCorpus):
    """Settings of ESD. Speakers are 0001 to 0010 (Mandarin) and 0011 to 0020 (English); `languages` chooses among them."""

    kind: Literal["esd"] = "esd"
    partition: Literal["speaker", "official", "numbered"] = "speaker"
    languages: tuple[Literal["zh", "en"], ...] = ("zh", "en")
    licence: str | None = "ESD licence, research only"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.partition == "numbered" and self.hold_out != SplitRule():
            raise ValueError("partition: numbered and hold_out both split the corpus; give one of them (partition: speaker)")
        return self

    def _open(self) -> Opened:
        texts: dict[PurePosixPath, dict[str, str]] = {}

        def describe(file: PurePosixPath) -> Utterance:
            parts = _NAME.fullmatch(file.stem)
            emotion = next((name for name in EMOTIONS if name in file.parts), None)
            if parts is None or emotion is None:
                raise unknown_name(file, "0011/Angry/train/0011_000351.wav")
            speaker = parts[1]
            language: Literal["zh", "en"] = "zh" if speaker <= "0010" else "en"
            if language not in self.languages:
                raise Skip("other_language", f"speaker {speaker} speaks {language}")
            home = next((one for one in file.parents if one.name == speaker), PurePosixPath("."))
            if home not in texts:
                texts[home] = self._texts(home, speaker)
            text = texts[home].get(file.stem)
            spoken = Spoken(
                speaker=speaker,
                text=text,
                emotion=self._emotion(emotion),
                gender="female" if speaker in FEMALE else "male",
            )
            lacks = () if text else ("no_transcript",)
            return Utterance(key=file.stem, spoken=spoken, split=self._side(file), language=language, without=lacks)

        return Opened(describe=describe)

    def _side(self, file: PurePosixPath) -> Split | None:
        if self.partition == "speaker":
            return None
        if self.partition == "numbered":
            sentence = (int(file.stem[-6:]) - 1) % _SENTENCES
            return "dev" if sentence < _EVALUATED else "test" if sentence < _EVALUATED + _TESTED else "train"
        if file.parent.name not in _PARTITION:
            raise Skip("no_partition", f"{file.parent.name} is none of train, evaluation, test; set partition: numbered")
        return _PARTITION[file.parent.name]

    def _texts(self, home: PurePosixPath, speaker: str) -> dict[str, str]:
        """What a speaker says, by file; empty where there is no text file."""
        file = self.path / home / f"{speaker}.txt"
        if not file.is_file():
            return {}
        # UTF-16 is tried first only where a byte order mark says so: any even number of bytes would decode.
        marked = file.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff")
        rest = "gb18030" if speaker <= "0010" else "latin-1"
        lines = text_of(file, *(["utf-16"] if marked else ["utf-8-sig", rest])).splitlines()
        cells = [[cell.strip() for cell in line.split("\t")] for line in lines]
        return {row[0]: row[1] for row in cells if len(row) >= 2 and row[1]}
