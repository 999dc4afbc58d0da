"""BLSP-Emo and RE-LLM, step 1: the LLM is told what was said and in what emotion, and goes on from there.

The training question names no emotion: the model that is trained has to hear it. Targets are free text, because step 2 aligns a model
with the very distribution that they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from undertone.generate.askable import dominant_emotion, speaker_count
from undertone.generate.evidence import escape
from undertone.generate.protocol import Candidate, Request
from undertone.generate.replies import in_english, write_reply
from undertone.generate.strategies.base import OnEvidence, drawing, usable_reply
from undertone.generate.strategies.replying import Replying
from undertone.records import Clip

PLAIN = "plain"
"""The evidence form that is the words alone: the emotion is told in the instruction, as in both papers."""


class Continuation(OnEvidence, Replying):
    """The LLM, told the emotion, replies to the speaker or speaks on; the training question hides the emotion (BLSP-Emo, RE-LLM).

    Clips without one prevailing emotion are passed over, and those in which several people are known to speak. The grammar replies, in English
    and to clips in English alone; it does not speak on.

    Attributes:
        mode: "reply" to the speaker as an empathetic listener, or "continue" in the speaker's place.
        max_words: What the LLM is asked to keep to (the papers cut at 48 tokens, which breaks sentences off).
    """

    name: ClassVar[str] = "continuation"
    offline: ClassVar[bool] = True
    templates: ClassVar[tuple[str, ...]] = ("continuation.jinja", "clip.jinja", "reply_questions.jinja", "continue_questions.jinja")

    own_forms: ClassVar[Mapping[str, str]] = MappingProxyType(
        {PLAIN: "In brackets stands the emotion of the voice, and behind them the words."}
    )

    mode: Literal["reply", "continue"] = "reply"
    max_words: int = Field(default=40, ge=5)
    evidence_form: str = PLAIN
    language: str | None = None

    @field_validator("evidence_tokens")
    @classmethod
    def _has_lines_to_leave_out(cls, value: int | None, info: ValidationInfo) -> int | None:
        if info.data.get("evidence_form") == PLAIN and value is not None:
            raise ValueError("the words alone have no budget; give an evidence_form too, such as words")
        return value

    def evidence(self, clip: Clip) -> str:
        """The words and the emotion that is told with them, or the chosen form."""
        if self.evidence_form != PLAIN:
            return super().evidence(clip)
        return f"({dominant_emotion(clip) or 'no one emotion'}) {escape(' '.join(clip.transcript.split()))}"

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """One request, with the question that the trained model will be asked drawn from the pool of the mode."""
        emotion = _told(clip)
        if emotion is None:
            return []
        question = self.question(clip, seed, self.mode)
        prompt = self.rendered(clip, mode=self.mode, emotion=emotion, max_words=self.max_words)
        return [Request(prompt=prompt, about={"question": question, "emotion": emotion})]

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """The reply, with the emotion that was told as its label.

        Raises:
            ValueError: It is empty, refuses, or speaks of itself as a machine.
        """
        return [_replied(request.about["question"], usable_reply(reply), request.about["emotion"])]

    def written(self, clip: Clip, *, seed: int) -> list[Candidate]:
        """The grammar's reply."""
        emotion = _told(clip)
        if emotion is None or not in_english(clip):
            return []
        said = write_reply(clip, self.told(clip, emotion, seed), drawing(self, clip, seed, "reply"), frames=self.frames)
        return [_replied(self.question(clip, seed, self.mode), said.text, emotion)]

    @property
    def needs_llm(self) -> str | None:
        """To speak on."""
        return None if self.mode == "reply" else f"mode: {self.mode}"


def _told(clip: Clip) -> str | None:
    """The emotion that is told of a clip; None of one that is passed over."""
    alone = (speaker_count(clip) or 1) == 1
    return dominant_emotion(clip) if alone and clip.transcript.strip() else None


def _replied(question: str, said: str, emotion: str) -> Candidate:
    return Candidate(kind="REPLY", question=question, answer=said, label_attribute="emotion", label=emotion)
