"""What the strategies that reply to a speaker share: which question the trained model is asked, and whose wordings are used."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from undertone.generate.frames import FrameSet, replies
from undertone.generate.protocol import Strategy, prompt_lines
from undertone.generate.strategies.base import drawing
from undertone.lexicon import EMOTION_WORDS
from undertone.records import Clip, content_hash


class Replying(Strategy):
    """A strategy whose answers are replies to the speaker, and whose question hides what the voice shows.

    Attributes:
        frames: Wordings of the question, and of the reply where the grammar writes it. A study's source sets it beside `settings`.
        instruction: "drawn" from a pool, or "empty": the trained model is given the speech and nothing else (RE-LLM asks so when it tests).
        wrong: Share of the utterances to which the grammar replies as to another emotion, drawn evenly: how much do replies hang on the labels'
            quality? With a larger share those stay wrong that were. The pair's label stays the clip's.
    """

    frames: FrameSet = "train"
    instruction: Literal["drawn", "empty"] = "drawn"
    wrong: float = Field(default=0.0, ge=0, le=1)

    def question(self, clip: Clip, seed: int, sort: str, what: str = "") -> str:
        """The question about a clip.

        Args:
            clip: The clip.
            seed: Of the stage.
            sort: "reply", "think" or "continue".
            what: Is drawn, besides the strategy and the clip.
        """
        if self.instruction == "empty":
            return ""
        pool = replies.TEST_QUESTIONS[sort] if self.frames == "test" else prompt_lines(f"{sort}_questions.jinja")
        return drawing(self, clip, seed, what).choice(pool)

    def told(self, clip: Clip, emotion: str, seed: int) -> str:
        """The emotion that the grammar is told of an utterance: that of the clip, unless a wrong one is drawn."""
        rng = drawing(self, clip, seed, "wrong")
        return rng.choice([one for one in EMOTION_WORDS if one != emotion]) if rng.random() < self.wrong else emotion

    @property
    def digest(self) -> str:
        """Changes with the test's questions too, where these are asked."""
        own = super().digest
        return content_hash(own, replies.digest()) if self.frames == "test" else own
