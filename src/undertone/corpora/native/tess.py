"""TESS: 200 words in one carrier phrase by an older and a younger actress in seven emotions (Pichora-Fuller & Dupuis 2020).

Layout, as on the Toronto repository (doi:10.5683/SP2/E8H2MF): files OAF_back_angry.wav in one folder or in a folder per speaker and
emotion; "ps" is pleasant surprise. One file of the release is misnamed OA_bite_neutral.wav. Some archives hold the set twice.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Utterance, unknown_name
from undertone.corpora.plan import Spoken

AGES = {"OAF": 64.0, "YAF": 26.0}
_NAME = re.compile(r"(OAF?|YAF)_([A-Za-z]+)_(angry|disgust|fear|happy|neutral|ps|sad)")


class TessCorpus(NativeCorpus):
    """Settings of TESS. Speakers are OAF and YAF."""

    kind: Literal["tess"] = "tess"
    language: str | None = "en"
    licence: str | None = "CC BY-NC-ND 4.0"

    def _open(self) -> Opened:
        return Opened(describe=self._describe)

    def _describe(self, file: PurePosixPath) -> Utterance:
        parts = _NAME.fullmatch(file.stem)
        if parts is None:
            raise unknown_name(file, "OAF_back_angry.wav")
        speaker, word, emotion = parts.groups()
        speaker = "OAF" if speaker == "OA" else speaker
        spoken = Spoken(
            speaker=speaker,
            text=f"Say the word {word}.",
            emotion=self._emotion(emotion),
            gender="female",
            age=AGES[speaker],
        )
        return Utterance(key=f"{speaker}_{word}_{emotion}", spoken=spoken)
