"""EmoDB, the Berlin database of emotional speech: ten German sentences by ten actors in seven emotions (Burkhardt et al. 2005).

Layout, as on emodb.bilderbar.info: wav/03a01Fa.wav: speaker, sentence, the German emotion word's letter, version. Speakers, sentences and
letters are those of that site's documentation.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Utterance, unknown_name
from undertone.corpora.plan import Spoken

EMOTIONS = {"W": "anger", "L": "boredom", "E": "disgust", "A": "anxiety", "F": "happiness", "T": "sadness", "N": "neutral"}
"""By letter: Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral."""
SPEAKERS = {
    "03": ("male", 31.0),
    "08": ("female", 34.0),
    "09": ("female", 21.0),
    "10": ("male", 32.0),
    "11": ("male", 26.0),
    "12": ("male", 30.0),
    "13": ("female", 32.0),
    "14": ("female", 35.0),
    "15": ("male", 25.0),
    "16": ("female", 31.0),
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_NAME = re.compile(rf"({'|'.join(SPEAKERS)})({'|'.join(SENTENCES)})([{''.join(EMOTIONS)}])[a-z]?")


class EmodbCorpus(NativeCorpus):
    """Settings of EmoDB. Speakers are 03, 08 to 16."""

    kind: Literal["emodb"] = "emodb"
    language: str | None = "de"
    licence: str | None = "none stated; cite Burkhardt et al. 2005"

    def _open(self) -> Opened:
        return Opened(describe=self._describe)

    def _describe(self, file: PurePosixPath) -> Utterance:
        parts = _NAME.fullmatch(file.stem)
        if parts is None:
            raise unknown_name(file, "03a01Fa.wav")
        speaker, sentence, letter = parts.groups()
        gender, age = SPEAKERS[speaker]
        emotion = self._emotion(EMOTIONS[letter])
        spoken = Spoken(speaker=speaker, text=SENTENCES[sentence], emotion=emotion, gender=gender, age=age)
        return Utterance(key=file.stem, spoken=spoken)
