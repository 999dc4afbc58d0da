r"""ESD: the published split of 350 sentences by ten Mandarin and ten English speakers in five emotions.

A real row, of 0011/0011.txt (file, text, emotion; read by `corpora.native.esd`):

    0011_000351\tThe nine the eggs, I keep.\tAngry

whose file is 0011/Angry/evaluation/0011_000351.wav. Of each speaker and emotion 20 sentences are for evaluation (our dev), 30 for test, 300 for
training, and all speakers are on all sides: figures say nothing of speakers that were not heard. Copies without the folders train, evaluation
and test are split by the number of the sentence, which is the same partition (`partition: numbered`).

ESD has no ratings: valence, arousal and dominance, which RE-LLM trains on, are its teacher's estimates. RE-LLM does not say in what language it
is tested; the default is English.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from undertone.corpora.native import EsdCorpus
from undertone.evaluate.benchmarks.speech_emotion import FIVE, SpeechEmotion
from undertone.records import Emotion


class Esd(SpeechEmotion):
    """ESD's test part.

    Attributes:
        languages: Whose speakers.
        partition: "official" by the folders of the release, "numbered" by the number of the sentence.
    """

    name: Literal["esd"] = "esd"
    classes: tuple[Emotion, ...] = Field(default=FIVE, min_length=2)
    languages: tuple[Literal["zh", "en"], ...] = ("en",)
    partition: Literal["official", "numbered"] = "official"

    ABOUT: ClassVar[str] = (
        "ESD (Zhou et al. 2021): the published split, 30 test sentences of each speaker and emotion; angry, happy, neutral, sad, surprised."
    )
    LICENCE: ClassVar[str | None] = "ESD licence, research only"

    def corpus(self) -> EsdCorpus:
        return EsdCorpus(path=self.path, partition=self.partition, languages=self.languages)
