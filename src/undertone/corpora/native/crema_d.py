"""CREMA-D: twelve sentences by 91 actors in six emotions, rated by 2,443 people (Cao et al. 2014).

Layout, as on GitHub (CheyneyComputerScience/CREMA-D): AudioWAV/1001_IEO_ANG_HI.wav (actor, sentence, emotion, level),
VideoDemographics.csv (ActorID, Age, Sex, ...) and processedResults/tabulatedVotes.csv: counts in columns A, D, F, H, N, S for each
fileName. Each clip has three rows there, told apart by the number in the first column alone: 1xxxxx for those who heard the voice, 2xxxxx
for those who saw the face, 3xxxxx for both (tabulateVotesV2.r: 100000 * queryType + clipNum).

Without: `no_votes` (the clip's row is missing), `no_demographics`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Utterance, gender_of, number, table, unknown_name
from undertone.corpora.plan import Spoken
from undertone.errors import DataError
from undertone.paths import Location

SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
VOTES = {"A": "anger", "D": "disgust", "F": "fear", "H": "happy", "N": "neutral", "S": "sad"}
LEVELS = {"LO": "low", "MD": "medium", "HI": "high"}
_STIMULUS = {"voice": "1", "audiovisual": "3"}
# One clip of the release is named 1040_ITH_SAD_X.
_NAME = re.compile(rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_({'|'.join(LEVELS)}|XX?)")


class CremaDCorpus(NativeCorpus):
    """Settings of CREMA-D. Speakers are 1001 to 1091.

    `label` is the emotion that the actor was asked for ("acted"), or what most raters chose ("voted"; "unknown" where two emotions tie).
    `votes` are whose shares become the label's distribution: of those who heard the voice alone, of those who saw the actor too, or of
    none (then the file of votes is not needed).
    """

    kind: Literal["crema_d"] = "crema_d"
    label: Literal["acted", "voted"] = "acted"
    votes: Literal["voice", "audiovisual", "none"] = "voice"
    language: str | None = "en"
    licence: str | None = "ODbL 1.0"

    def _audio_folders(self) -> tuple[Location, ...]:
        released = self.path / "AudioWAV"
        return (released if released.is_dir() else self.path,)

    def _open(self) -> Opened:
        if self.label == "voted" and self.votes == "none":
            raise DataError("crema_d: label: voted needs votes; set votes: voice or audiovisual")
        people = {
            row["ActorID"]: row
            for row in table(
                self.path / "VideoDemographics.csv", ("ActorID", "Age", "Sex"), what="CREMA-D's table of actors, beside AudioWAV/"
            )
        }
        votes = self._votes()

        def describe(file: PurePosixPath) -> Utterance:
            parts = _NAME.fullmatch(file.stem)
            if parts is None:
                raise unknown_name(file, "1001_IEO_ANG_HI.wav")
            actor, sentence, emotion, level = parts.groups()
            person = people.get(actor)
            shares = self._shares(votes.get(file.stem, ()))
            spoken = Spoken(
                speaker=actor,
                text=SENTENCES[sentence],
                emotion=self._emotion(EMOTIONS[emotion]) if self.label == "acted" else _majority(shares),
                emotion_votes=shares,
                gender=gender_of(person["Sex"]) if person else None,
                age=float(person["Age"]) if person and person["Age"].isdecimal() else None,
                intensity=LEVELS.get(level),
            )
            lacks = {"no_votes": self.votes != "none" and shares is None, "no_demographics": person is None}
            return Utterance(key=file.stem, spoken=spoken, without=tuple(reason for reason, holds in lacks.items() if holds))

        return Opened(describe=describe)

    def _votes(self) -> dict[str, list[tuple[str, float]]]:
        """Counts of the raters' words by clip."""
        if self.votes == "none":
            return {}
        file = self.path / "processedResults" / "tabulatedVotes.csv"
        rows = table(file, ("", *VOTES, "fileName"), what="CREMA-D's votes, or votes: none in the corpus' settings")
        return {
            row["fileName"]: [(word, number(row[letter], file)) for letter, word in VOTES.items()]
            for row in rows
            if len(row[""]) == 6 and row[""].startswith(_STIMULUS[self.votes])
        }


def _majority(shares: dict[str, float] | None) -> str:
    """The emotion with most votes; "unknown" for a tie or without votes."""
    best = sorted((shares or {}).values(), reverse=True)
    if shares is None or best[:1] == best[1:2]:
        return "unknown"
    return max(shares, key=lambda name: shares[name])
