"""OSUM-EChat's dual think: the target thinks about the words, then about the voice, and then replies (`think`).

In the form with labels the thought is composed from the clip's own transcript and labels, and the LLM adds the emotion of the reply and the
reply; in the form with paragraphs the LLM writes the thought too.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from undertone.chat import read_json
from undertone.generate.askable import dominant_emotion, only_gender, shares, speaker_count
from undertone.generate.protocol import Candidate, Request, prompt_lines
from undertone.generate.strategies import think
from undertone.generate.strategies.base import EmotionClass, OnEvidence, drawing, usable_reply
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


class DualThinkStrategy(OnEvidence):
    """The target thinks about the words, then about the voice, then replies (OSUM-EChat); the question hides what the voice shows.

    Clips whose voice has no label that can be thought about are passed over, and those in which several people are known to speak.

    Attributes:
        form: Of the thought: "labels", "paragraphs", or "mixed", drawn for each clip.
        think_dropped: Share of the clips whose target is the reply alone, with a question that asks for no thought.
        words_dropped: Share of the thoughts with labels that leave out the words, so that the labels are also learnt by themselves.
    """

    name: ClassVar[str] = "dual_think"
    templates: ClassVar[tuple[str, ...]] = ("dual_think.jinja", "clip.jinja", "think_questions.jinja", "reply_questions.jinja")
    replies: ClassVar[tuple[type[BaseModel], ...]] = (WrittenReply, WrittenThought)

    form: Literal["labels", "paragraphs", "mixed"] = "labels"
    think_dropped: float = Field(default=0.0, ge=0, le=1)
    words_dropped: float = Field(default=0.0, ge=0, le=1)
    evidence_form: str = "seed"
    language: str | None = None

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """One request; what was drawn for the clip is in `about`."""
        known = cues(clip)
        if not known or not clip.transcript.strip() or (speaker_count(clip) or 1) > 1:
            return []
        form = drawing(self, clip, seed, "form").choice(("labels", "paragraphs")) if self.form == "mixed" else self.form
        dropped = drawing(self, clip, seed, "think").random() < self.think_dropped
        bare = drawing(self, clip, seed, "words").random() < self.words_dropped
        pool = prompt_lines("reply_questions.jinja" if dropped else "think_questions.jinja")
        question = drawing(self, clip, seed, "question").choice(pool)
        prompt = self.rendered(clip, paragraphs=form == "paragraphs", cues=known, emotions=list(EMOTION_WORDS))
        about = {"question": question, "form": form, "target": "reply" if dropped else "labels alone" if bare else "all"}
        return [Request(prompt=prompt, schema=WrittenThought if form == "paragraphs" else WrittenReply, about=about)]

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """The target, composed of the thought and the reply.

        Raises:
            ValueError: The reply does not fit, refuses, or its thought contradicts what the voice is labelled as.
        """
        known, about = cues(clip), request.about
        written = read_json(reply, WrittenThought if about["form"] == "paragraphs" else WrittenReply)
        said = usable_reply(written.reply)
        thought: think.Thought
        if isinstance(written, WrittenThought):
            _agrees(written.voice, known)
            thought = think.ParagraphThought(words=written.words, voice=written.voice, answer=written.answer)
        else:
            words = None if about["target"] == "labels alone" else clip.transcript
            thought = think.LabelThought(words=words, **known, reply_emotion=written.reply_emotion)
        emotion = known.get("emotion")
        return [
            Candidate(
                kind="REPLY",
                question=about["question"],
                answer=think.compose(None if about["target"] == "reply" else thought, said),
                label_attribute="emotion" if emotion else None,
                label=emotion,
            )
        ]


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
