r"""IEMOCAP: leave one session out, four or five emotions, valence, activation and dominance from 1 to 5.

A real row, of Session1/dialog/EmoEvaluation/Ses01F_impro01.txt (turn, label, valence, activation, dominance; read by `corpora.native.iemocap`):

    [6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]

Five folds, one for each session as the test part (both its speakers); `folds` gives them all, and figures are quoted as their mean. RE-LLM's
code mentions session 5 as held out, which is the default. Four classes are angry, happy with excited, neutral, sad, as most papers have
them; the five of BLSP-Emo and RE-LLM add surprised. `excited: apart` leaves excited out instead of merging it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from undertone.corpora.native import IemocapCorpus
from undertone.corpora.native.iemocap import HIGHEST, LOWEST
from undertone.evaluate.benchmarks.speech_emotion import SpeechEmotion

Session = Literal[1, 2, 3, 4, 5]
SESSIONS: tuple[Session, ...] = (1, 2, 3, 4, 5)


class Iemocap(SpeechEmotion):
    """One fold of IEMOCAP.

    Attributes:
        fold: The session that is tested on.
        dev: Whether the session after it is held out for development.
        excited: "happy" merges excited into it; "apart" leaves excited out.
    """

    name: Literal["iemocap"] = "iemocap"
    fold: Session = 5
    dev: bool = False
    excited: Literal["happy", "apart"] = "happy"

    ABOUT: ClassVar[str] = (
        "IEMOCAP (Busso et al. 2008): one of five sessions is the test part; angry, happy (with excited), neutral, sad, or five classes with "
        "surprised; ratings from 1 to 5 become 0..1."
    )
    LICENCE: ClassVar[str | None] = "IEMOCAP release form (University of Southern California), research only"
    SCALE: ClassVar[tuple[float, float] | None] = (LOWEST, HIGHEST)

    def corpus(self) -> IemocapCorpus:
        after: Session = SESSIONS[self.fold % len(SESSIONS)]
        return IemocapCorpus(
            path=self.path,
            classes="all",
            excited_is_happy=self.excited == "happy",
            test_sessions=(self.fold,),
            dev_sessions=(after,) if self.dev else (),
        )

    def folds(self) -> tuple[Iemocap, ...]:
        """The protocol with each session as the test part."""
        return tuple(self.model_copy(update={"fold": one}) for one in SESSIONS)
