"""MELD: utterances of dialogues of a television series, seven emotions by the vote of three raters (Poria et al. 2019).

Layout, as in MELD.Raw.tar.gz: train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv (here or in the split's folder; columns Utterance,
Speaker, Emotion, Dialogue_ID, Utterance_ID, ...) and dia0_utt0.mp4 in train_splits/, dev_splits_complete/, output_repeated_splits_test/.
Audio that was extracted under the same names will do.
The official partition holds the main speakers on all sides, which condensation refuses; gender is not given.

Without: `several_speakers` (said by "All", say; no speaker is given).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Skip, Utterance, table, unknown_name
from undertone.corpora.plan import Spoken
from undertone.errors import DataError
from undertone.records import Split

_FOLDERS: dict[str, Split] = {
    "train_splits": "train",
    "dev_splits_complete": "dev",
    "output_repeated_splits_test": "test",
    "train": "train",
    "dev": "dev",
    "test": "test",
}
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
_NAME = re.compile(r"dia(\d+)_utt(\d+)")
_SEVERAL = re.compile(r"\b(all|both|everyone|everybody)\b|\band\b|[,/&]", re.IGNORECASE)
# Apostrophes and dashes of train_sent_emo.csv are bytes of Windows-1252 that were taken for code points.
_REPAIRED = {code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)}


class MeldCorpus(NativeCorpus):
    """Settings of MELD. Speakers are the roles' names; a role such as "Waiter" is not one person throughout."""

    kind: Literal["meld"] = "meld"
    partition: Literal["speaker", "official"] = "speaker"
    language: str | None = "en"
    licence: str | None = "GPL-3.0 (annotations); the audio is that of a television series"

    def _open(self) -> Opened:
        rows = self._rows()

        def describe(file: PurePosixPath) -> Utterance:
            numbers = _NAME.fullmatch(file.stem)
            split = next((_FOLDERS[one.name] for one in file.parents if one.name in _FOLDERS), None)
            if numbers is None or split is None:
                raise unknown_name(file, "train_splits/dia0_utt0.mp4")
            key = _key(split, *numbers.groups())
            row = rows.get(key)
            if row is None:
                raise Skip("no_label", f"{split}_sent_emo.csv has no row for {file.stem}")
            several = _SEVERAL.search(row["Speaker"]) is not None
            spoken = Spoken(
                speaker=None if several else row["Speaker"] or None,
                text=row["Utterance"].translate(_REPAIRED) or None,
                emotion=self._emotion(row["Emotion"]),
            )
            return Utterance(
                key=key,
                spoken=spoken,
                split=split if self.partition == "official" else None,
                without=("several_speakers",) if several else (),
            )

        return Opened(describe=describe, labelled=rows)

    def _rows(self) -> dict[str, dict[str, str]]:
        rows = {}
        for split in _SPLITS:
            name = f"{split}_sent_emo.csv"
            file = next((one for one in (self.path / name, self.path / split / name) if one.is_file()), None)
            if file is not None:
                for row in table(file, _COLUMNS, what="MELD's annotations"):
                    rows[_key(split, row["Dialogue_ID"], row["Utterance_ID"])] = row
        if not rows:
            raise DataError(f"{self.path} holds none of train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv; expected MELD.Raw")
        return rows


def _key(split: Split, dialogue: str, utterance: str) -> str:
    return f"{split}/dia{dialogue}_utt{utterance}"
