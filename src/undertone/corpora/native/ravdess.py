"""RAVDESS: two sentences by 24 actors in eight emotions and two intensities (Livingstone & Russo 2018).

Layout, as on Zenodo (record 1188976): folders Actor_01..Actor_24 with files of seven numbers, 03-01-06-01-02-01-12.wav:
modality (01 audio and video, 02 video only, 03 audio only), channel (01 speech, 02 song), emotion, intensity, statement, repetition,
actor (odd male, even female).

Dropped: `no_sound` (video only), `song`. A video with sound is the same utterance as its audio file.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Skip, Utterance, unknown_name
from undertone.corpora.plan import Spoken

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
_NAME = re.compile(r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")


class RavdessCorpus(NativeCorpus):
    """Settings of RAVDESS. Speakers are rav01 to rav24."""

    kind: Literal["ravdess"] = "ravdess"
    language: str | None = "en"
    licence: str | None = "CC BY-NC-SA 4.0"

    def _open(self) -> Opened:
        return Opened(describe=self._describe)

    def _describe(self, file: PurePosixPath) -> Utterance:
        parts = _NAME.fullmatch(file.stem)
        if parts is None:
            raise unknown_name(file, "03-01-06-01-02-01-12.wav")
        modality, channel, emotion, intensity, statement, _, actor = parts.groups()
        key = file.stem[3:]
        if modality == "02":
            raise Skip("no_sound", "modality 02 is video without sound", key=key)
        if channel == "02":
            raise Skip("song", "vocal channel 02 is song", key=key)
        spoken = Spoken(
            speaker=f"rav{actor}",
            text=STATEMENTS[statement],
            emotion=self._emotion(EMOTIONS[emotion]),
            gender="male" if int(actor) % 2 else "female",
            intensity=INTENSITIES[intensity],
        )
        return Utterance(key=key, spoken=spoken)
