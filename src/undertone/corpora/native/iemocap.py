r"""IEMOCAP: ten actors in five dyadic sessions, scripted and improvised, each turn rated by three people or more (Busso et al. 2008).

Layout, as released: Session1..Session5, in each
    sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav    session, who wears markers, scene, who speaks, turn
    sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg
    dialog/EmoEvaluation/Ses01F_impro01.txt                 labels and votes
    dialog/transcriptions/Ses01F_impro01.txt                "Ses01F_impro01_F000 [6.2901-8.2357]: Excuse me."

A block of EmoEvaluation begins "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]" (valence, activation, dominance from
1 to 5, which become 0..1); lines "C-E2:\tNeutral state;\t()" are the votes of outside raters. A rater's several emotions share one vote;
what actors say of themselves (C-F1, C-M1) is not counted. A .wdseg line is first and last frame of 10 ms, score, word.

Dropped: `empty_session`, `not_of_the_4_classes`.
Without: `no_transcript`, `no_votes`, `no_alignment`, `off_scale` (a mean rating outside 1..5, left out).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Skip, Utterance, scaled, text_of, unknown_name
from undertone.corpora.plan import Spoken
from undertone.errors import DataError
from undertone.paths import Location
from undertone.records import Emotion, Split, Word

FOUR: tuple[Emotion, ...] = ("angry", "happy", "neutral", "sad")
LOWEST, HIGHEST = 1.0, 5.0
FRAME_MS = 10
_NAME = re.compile(r"(Ses0([1-5]))[FM]_.+_([FM])\d+")
_LABEL = re.compile(r"\[[\d.]+\s*-\s*[\d.]+\]\s+(\S+)\s+(\w+)\s+\[\s*([\d.]+),\s*([\d.]+),\s*([\d.]+)\s*\]")
_VOTE = re.compile(r"C-E\d+:([^(]*)")
_TURN = re.compile(r"(Ses0\S+)\s+\[[^\]]*\]:(.*)")
_ALIGNED = re.compile(r"\s*(\d+)\s+(\d+)\s+-?\d+\s+(\S+)")
_FILLER = re.compile(r"<.*>|\+\+.*\+\+")
_EXCITED = frozenset({"exc", "excited"})


@dataclass
class _Turn:
    """One block of an EmoEvaluation file."""

    word: str
    rated: tuple[float, float, float]
    votes: list[tuple[str, float]] = field(default_factory=list)


class IemocapCorpus(NativeCorpus):
    """Settings of IEMOCAP. Speakers are Ses01F, Ses01M to Ses05M.

    `classes: 4` keeps angry, happy, neutral and sad, as most papers do. `excited_is_happy` merges excited into happy (in labels and votes);
    without, excited is "other", and dropped from four classes. `test_sessions` and `dev_sessions` hold whole sessions out, both speakers of
    each; other speakers follow `hold_out`. `word_times` reads the forced alignments.
    """

    kind: Literal["iemocap"] = "iemocap"
    classes: Literal[4, "all"] = "all"
    excited_is_happy: bool = True
    test_sessions: tuple[Literal[1, 2, 3, 4, 5], ...] = ()
    dev_sessions: tuple[Literal[1, 2, 3, 4, 5], ...] = ()
    word_times: bool = True
    language: str | None = "en"
    licence: str | None = "IEMOCAP release form (University of Southern California), research only"

    def _sessions(self) -> list[Location]:
        found: list[Location] = sorted(one for one in self.path.glob("Session[1-5]") if one.is_dir())
        if not found:
            raise DataError(f"{self.path} holds no folder Session1 to Session5; set path to the folder IEMOCAP_full_release")
        return found

    def _audio_folders(self) -> Sequence[Location]:
        return [one / "sentences" / "wav" for one in self._sessions()]

    def _open(self) -> Opened:
        turns: dict[str, _Turn] = {}
        texts: dict[str, str] = {}
        losses = []
        for session in self._sessions():
            before = len(turns)
            for file in _texts(session / "dialog" / "EmoEvaluation"):
                turns |= _turns(text_of(file, "utf-8-sig", "cp1252"))
            for file in _texts(session / "dialog" / "transcriptions"):
                lines = text_of(file, "utf-8-sig", "cp1252").splitlines()
                texts |= {one[1]: one[2].strip() for line in lines if (one := _TURN.match(line.strip()))}
            if len(turns) == before:
                losses.append((session.name, "empty_session", "no labels in dialog/EmoEvaluation/*.txt"))
        if not turns:
            raise DataError(f"{self.path}: no labels in Session*/dialog/EmoEvaluation/*.txt; expected IEMOCAP_full_release")

        def describe(file: PurePosixPath) -> Utterance:
            name = file.stem
            parts = _NAME.fullmatch(name)
            if parts is None:
                raise unknown_name(file, "Ses01F_impro01_F000.wav")
            if name not in turns:
                raise Skip("no_label", f"no block for {name} in dialog/EmoEvaluation")
            return self._utterance(file, turns[name], texts.get(name), *parts.groups())

        return Opened(describe=describe, labelled=turns, losses=losses)

    def _utterance(self, file: PurePosixPath, turn: _Turn, text: str | None, session: str, number: str, gender: str) -> Utterance:
        name = file.stem
        emotion = self._emotion(turn.word)
        if self.classes == 4 and emotion not in FOUR:
            raise Skip("not_of_the_4_classes", f"labelled {turn.word}", key=name)
        shares = self._shares(turn.votes)
        valence, arousal, dominance = (scaled(value, LOWEST, HIGHEST) for value in turn.rated)
        words = self._words(file, text or "") if self.word_times else ()
        spoken = Spoken(
            speaker=f"{session}{gender}",
            text=text or None,
            emotion=emotion,
            emotion_votes=shares,
            gender="female" if gender == "F" else "male",
            valence=valence,
            arousal=arousal,
            dominance=dominance,
            words=words,
        )
        lacks = {
            "no_transcript": not text,
            "no_votes": shares is None,
            "no_alignment": self.word_times and not words,
            "off_scale": None in (valence, arousal, dominance),
        }
        return Utterance(
            key=name,
            spoken=spoken,
            split=self._held_out(int(number)),
            without=tuple(reason for reason, holds in lacks.items() if holds),
        )

    def _held_out(self, session: int) -> Split | None:
        if session in self.test_sessions:
            return "test"
        return "dev" if session in self.dev_sessions else None

    def _emotion(self, word: str) -> Emotion:
        if not self.excited_is_happy and word.lower() in _EXCITED and word not in self.emotions:
            return "other"
        return super()._emotion(word)

    def _words(self, file: PurePosixPath, text: str) -> tuple[Word, ...]:
        """The turn's words with times; spelt as in the transcript where that has as many words, else as the aligner has them."""
        session, dialogue = file.parts[0], file.parent.name
        aligned = self.path / session / "sentences" / "ForcedAlignment" / dialogue / f"{file.stem}.wdseg"
        try:
            lines = aligned.read_text(encoding="latin-1").splitlines()
        except FileNotFoundError:
            return ()
        found = [
            (int(one[1]), int(one[2]), one[3]) for line in lines if (one := _ALIGNED.match(line)) and not _FILLER.match(one[3])
        ]
        spelt = text.split()
        if len(spelt) != len(found):
            spelt = [re.sub(r"\(\d+\)$", "", word).lower() for _, _, word in found]
        return tuple(
            # The aligner's score is an acoustic likelihood and no confidence.
            Word(text=word, start_ms=first * FRAME_MS, end_ms=(last + 1) * FRAME_MS)
            for word, (first, last, _) in zip(spelt, found, strict=True)
        )


def _texts(folder: Location) -> list[Location]:
    """The text files of a folder, by name."""
    return sorted(folder.glob("[!.]*.txt"), key=str)


def _turns(text: str) -> dict[str, _Turn]:
    """The blocks of an EmoEvaluation file by turn."""
    turns: dict[str, _Turn] = {}
    current: _Turn | None = None
    for line in text.splitlines():
        if label := _LABEL.match(line):
            name, word, *rated = label.groups()
            valence, activation, dominance = (float(value) for value in rated)
            current = turns[name] = _Turn(word=word, rated=(valence, activation, dominance))
        elif current is not None and (vote := _VOTE.match(line)):
            words = [word.strip() for word in vote[1].split(";") if word.strip()]
            current.votes += [(word, 1 / len(words)) for word in words]
    return turns
