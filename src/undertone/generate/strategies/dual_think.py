"""OSUM-EChat's dual think: the target thinks about the words, then about the voice, and then replies (`think`).

In the form with labels the thought is composed from the clip's own transcript and labels, and the LLM (or the grammar) adds the emotion of the
reply and the reply; in the form with paragraphs the LLM writes the thought too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.chat import read_json
from undertone.generate.askable import dominant_emotion, only_gender, shares, speaker_count
from undertone.generate.frames.replies import MOODS
from undertone.generate.protocol import Candidate, Request
from undertone.generate.replies import in_english, write_reply
from undertone.generate.strategies import think
from undertone.generate.strategies.base import EmotionClass, OnEvidence, drawing, usable_reply
from undertone.generate.strategies.replying import Replying
from undertone.lexicon import EMOTION_WORDS, labels_in
from undertone.records import Clip

CHILD_UNTIL_YEARS, OLD_FROM_YEARS = 13, 60
"""Age in years as child, adult or old, the classes of OSUM-EChat; it does not say where it draws the lines, so these are ours."""


_NO_EVENT = ("speech", "other", "unknown")
_EVENT = re.compile(r"[a-z]+([ _-][a-z]+)?", re.IGNORECASE)
"""One or two words: a corpus may name its events as it likes, and a name stands in the prompt outside the fence."""


class WrittenReply(BaseModel):
    """The reply to a request for the form with labels."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    reply_emotion: EmotionClass
    reply: str = Field(min_length=1)


class WrittenThought(WrittenReply):
    """The reply to a request for the form with paragraphs."""

    words: str = Field(min_length=1)
    voice: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class DualThinkStrategy(OnEvidence, Replying):
    """The target thinks about the words, then about the voice, then replies (OSUM-EChat); the question hides what the voice shows.

    Clips whose voice has no label that can be thought about are passed over, and those in which several people are known to speak; by the
    grammar also those without one prevailing emotion, and those that are known not to be in English.

    Attributes:
        form: Of the thought: "labels", "paragraphs", or "mixed", drawn for each clip.
        think_dropped: Share of the clips whose target is the reply alone, with a question that asks for no thought.
        asks_for_thought: Whether the questions of the others ask for the thought; if not, whoever learns from them thinks before any reply.
        words_dropped: Share of the thoughts with labels that leave out the words, so that the labels are also learnt by themselves.
    """

    name: ClassVar[str] = "dual_think"
    offline: ClassVar[bool] = True
    templates: ClassVar[tuple[str, ...]] = ("dual_think.jinja", "clip.jinja", "think_questions.jinja", "reply_questions.jinja")
    replies: ClassVar[tuple[type[BaseModel], ...]] = (WrittenReply, WrittenThought)

    form: Literal["labels", "paragraphs", "mixed"] = "labels"
    think_dropped: float = Field(default=0.0, ge=0, le=1)
    asks_for_thought: bool = True
    words_dropped: float = Field(default=0.0, ge=0, le=1)
    evidence_form: str = "seed"
    language: str | None = None

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        if (self.instruction == "empty" or not self.asks_for_thought) and 0 < self.think_dropped < 1:
            raise ValueError(
                f"think_dropped={self.think_dropped} makes targets of two sorts, which the question tells apart; expected instruction: drawn "
                "and asks_for_thought, or think_dropped 0 or 1"
            )
        return self

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """One request; what was drawn for the clip is in `about`."""
        known, about = cues(clip), self._drawn(clip, seed)
        if not known or not _one_speaks(clip):
            return []
        paragraphs = about["form"] == "paragraphs"
        prompt = self.rendered(clip, paragraphs=paragraphs, cues=known, emotions=list(EMOTION_WORDS))
        return [Request(prompt=prompt, schema=WrittenThought if paragraphs else WrittenReply, about=about)]

    def _drawn(self, clip: Clip, seed: int) -> dict[str, str]:
        """The question, the form of the thought, and how much of it stands in the target."""
        form = drawing(self, clip, seed, "form").choice(("labels", "paragraphs")) if self.form == "mixed" else self.form
        dropped = drawing(self, clip, seed, "think").random() < self.think_dropped
        bare = drawing(self, clip, seed, "words").random() < self.words_dropped
        question = self.question(clip, seed, "reply" if dropped or not self.asks_for_thought else "think", "question")
        return {"question": question, "form": form, "target": "reply" if dropped else "labels alone" if bare else "all"}

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """The target, composed of the thought and the reply.

        Raises:
            ValueError: The reply does not fit, refuses, or its thought contradicts what the voice is labelled as.
        """
        known, about = cues(clip), request.about
        written = read_json(reply, WrittenThought if about["form"] == "paragraphs" else WrittenReply)
        said = usable_reply(written.reply)
        if isinstance(written, WrittenThought):
            _agrees(written.voice, known)
            thought = think.ParagraphThought(words=written.words, voice=written.voice, answer=written.answer)
            return [_candidate(about, thought, said, known)]
        return [_candidate(about, _of_labels(clip, about, known, written.reply_emotion), said, known)]

    def written(self, clip: Clip, *, seed: int) -> list[Candidate]:
        """The thought from the clip's transcript and labels, and the grammar's reply."""
        known, about = cues(clip), self._drawn(clip, seed)
        if "emotion" not in known or not _one_speaks(clip) or not in_english(clip):
            return []
        told = self.told(clip, known["emotion"], seed)
        said = write_reply(clip, told, drawing(self, clip, seed, "reply"), frames=self.frames)
        return [_candidate(about, _of_labels(clip, about, {**known, "emotion": told}, MOODS[told]), said.text, known)]

    @property
    def needs_llm(self) -> str | None:
        """To write paragraphs."""
        return None if self.form == "labels" else f"form: {self.form}"


def _one_speaks(clip: Clip) -> bool:
    return bool(clip.transcript.strip()) and (speaker_count(clip) or 1) == 1


def _of_labels(clip: Clip, about: Mapping[str, str], known: Mapping[str, str], mood: str) -> think.LabelThought:
    words = None if about["target"] == "labels alone" else clip.transcript
    return think.LabelThought.model_validate({"words": words, **known, "reply_emotion": mood})


def _candidate(about: Mapping[str, str], thought: think.Thought, said: str, known: Mapping[str, str]) -> Candidate:
    emotion = known.get("emotion")
    return Candidate(
        kind="REPLY",
        question=about["question"],
        answer=think.compose(None if about["target"] == "reply" else thought, said),
        label_attribute="emotion" if emotion else None,
        label=emotion,
    )


def cues(clip: Clip) -> dict[str, str]:
    """What a clip's voice shows as a whole, where it is known: age, gender, the prevailing emotion, the most frequent event but speech."""
    years = [value for one in clip.segments if (value := one.number("age")) is not None]
    age = None
    if years:
        mean = sum(years) / len(years)
        age = "child" if mean < CHILD_UNTIL_YEARS else "old" if mean >= OLD_FROM_YEARS else "adult"
    event = next((name for name in shares(clip, "event") if _EVENT.fullmatch(name) and name not in _NO_EVENT), None)
    found = {"age": age, "gender": only_gender(clip), "emotion": dominant_emotion(clip), "event": event}
    return {name: value for name, value in found.items() if value is not None}


def _agrees(voice: str, known: dict[str, str]) -> None:
    for attribute in ("emotion", "gender"):
        heard = labels_in(voice, attribute)
        wanted = {known[attribute]} if attribute in known else set()
        if wanted - heard or (attribute == "gender" and heard - wanted):
            named = ", ".join(sorted(heard)) or "none"
            raise ValueError(f"the thought about the voice names {attribute} {named}; expected {known.get(attribute, 'none')}")
