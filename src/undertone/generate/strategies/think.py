"""Dual think (OSUM-EChat): a target that thinks about the words, then about the voice, and then replies. Composer and parser; no LLM.

    <think>Words: I missed the train
    Gender: <female>
    Emotion: <sad>
    Reply emotion: <neutral><think end>Oh no. When is the next one?

is the form with labels. In the form with paragraphs the thought has three lines: what the words mean, what the voice shows, how to answer.

`parse(compose(thought, reply))` gives both again whatever they hold: inside the thought "&", "<" and ">" are written as in HTML and white
space is one space, so that no transcript can forge a label or the end of the thought. The reply stands as it is. The parser also reads what
a model makes of it: other letter case, spaces around values, "</think>" as the end, no thought at all. `split` reads the rest too, so that
an answer is judged by its reply even where its thought cannot be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from undertone.lexicon import labels_in

BEGIN = "<think>"
END = "<think end>"
_END = re.compile(r"<think end>|</think>", re.IGNORECASE)


def _one_line(text: str | None) -> str | None:
    return " ".join(text.split()) or None if text is not None else None


def _value(text: str | None) -> str | None:
    return _one_line(text.lower()) if text is not None else None


Line = Annotated[str | None, AfterValidator(_one_line)]
"""Text on one line; nothing but white space is None."""
Value = Annotated[str | None, AfterValidator(_value)]
"""A label in lower case."""

_VALUES = {
    "age": "Age",
    "gender": "Gender",
    "emotion": "Emotion",
    "event": "Sound event",
    "reply_emotion": "Reply emotion",
}
"""Field -> its name in the text, in the order in which they stand there."""
_FIELD = {name.lower(): field for field, name in _VALUES.items()}
_LABEL = re.compile(rf"\s*({'|'.join(_VALUES.values())})\s*:\s*<([^<>]*)>\s*", re.IGNORECASE)
_WORDS = re.compile(r"\s*Words\s*:(.*)", re.IGNORECASE)


class LabelThought(BaseModel):
    """A thought as labels: the speaker's words, what the voice shows, and the emotion to reply in; None for what is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: Line = None
    age: Value = None
    gender: Value = None
    emotion: Value = None
    event: Value = None
    reply_emotion: Value = None

    @model_validator(mode="after")
    def _something(self) -> LabelThought:
        if self.words is None and not self.labels:
            raise ValueError("a thought holds words or a label; got none")
        return self

    @property
    def labels(self) -> dict[str, str]:
        """Attribute -> label, `reply_emotion` among them."""
        return {name: value for name in _VALUES if (value := getattr(self, name)) is not None}

    def __str__(self) -> str:
        words = [] if self.words is None else [f"Words: {_escaped(self.words)}"]
        return "\n".join([*words, *(f"{_VALUES[name]}: <{_escaped(value)}>" for name, value in self.labels.items())])


class ParagraphThought(BaseModel):
    """A thought in sentences: what the words mean, what the voice shows, how to answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: Annotated[str, AfterValidator(lambda text: " ".join(text.split()))]
    voice: Annotated[str, AfterValidator(lambda text: " ".join(text.split()))]
    answer: Annotated[str, AfterValidator(lambda text: " ".join(text.split()))]

    @model_validator(mode="after")
    def _complete(self) -> ParagraphThought:
        if not (self.words and self.voice and self.answer):
            raise ValueError("a thought in paragraphs has three: words, voice and answer")
        return self

    @property
    def labels(self) -> dict[str, str]:
        """Emotion and gender where the paragraph about the voice names one class of each, and the reply's emotion alike."""
        places = {"gender": (self.voice, "gender"), "emotion": (self.voice, "emotion"), "reply_emotion": (self.answer, "emotion")}
        found = {name: labels_in(text, attribute) for name, (text, attribute) in places.items()}
        return {name: next(iter(labels)) for name, labels in found.items() if len(labels) == 1}

    def __str__(self) -> str:
        return "\n".join(map(_escaped, (self.words, self.voice, self.answer)))


Thought = LabelThought | ParagraphThought


class DualThink(BaseModel):
    """A target or a model's output, taken apart; `thought` is None where it replies at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    thought: Thought | None = None
    reply: str

    @property
    def labels(self) -> dict[str, str]:
        """What the thought says about the voice and about the reply; empty without a thought."""
        return self.thought.labels if self.thought else {}


def compose(thought: Thought | None, reply: str) -> str:
    """The target text.

    Raises:
        ValueError: The reply has no words, or begins like a thought although there is none.
    """
    said = reply.strip()
    if not said:
        raise ValueError("the reply is empty")
    if thought is None and said.lower().startswith(BEGIN):
        raise ValueError(f"a reply without a thought begins with {BEGIN}: {said[:60]!r}")
    return said if thought is None else f"{BEGIN}{thought}{END}{said}"


def parse(text: str) -> DualThink:
    """Take a target, or what a model made of it, apart.

    Raises:
        ValueError: A thought begins and does not end (as in an output that was cut), or is of neither form; says which.
    """
    whole = text.strip()
    if not whole.lower().startswith(BEGIN):
        return DualThink(reply=whole)
    thought, *rest = _END.split(whole[len(BEGIN) :], maxsplit=1)
    if not rest:
        raise ValueError(f"a thought without an end ({END}): {whole[:80]!r}")
    return DualThink(thought=_thought(thought), reply=rest[0].strip())


@dataclass(frozen=True)
class Unreadable:
    """A thought that is none of either form: what is wrong with it, and what stood there."""

    fault: str
    text: str


class Parts(NamedTuple):
    """A model's answer, taken apart; no thought where it replies at once, no reply ("") where the thought has no end."""

    thought: Thought | Unreadable | None
    reply: str


def split(answer: str) -> Parts:
    """Take a model's answer apart, whatever it is: what it says to the speaker, and what it thought before it.

    >>> split("<think>Emotion: <sad><think end>Oh no.").reply
    'Oh no.'
    >>> split("<think>Hm.</think>Oh no.").thought
    Unreadable(fault="a thought is labels or three paragraphs; got 1 lines: 'Hm.'", text='Hm.')
    """
    try:
        read = parse(answer)
    except ValueError as error:
        thought, *rest = _END.split(answer.strip()[len(BEGIN) :], maxsplit=1)
        return Parts(Unreadable(str(error), thought), rest[0].strip() if rest else "")
    return Parts(read.thought, read.reply)


def _thought(text: str) -> Thought:
    lines = [one for one in text.split("\n") if one.strip()]
    fields: dict[str, str] = {}
    for at, line in enumerate(lines):
        label, words = _LABEL.fullmatch(line), _WORDS.fullmatch(line)
        name, value = (_FIELD[label[1].lower()], label[2]) if label else ("words", words[1]) if words and at == 0 else ("", "")
        if not name or name in fields:
            break
        fields[name] = _unescaped(value)
    else:
        if fields:
            return LabelThought.model_validate(fields)
    if len(lines) != 3:
        raise ValueError(f"a thought is labels or three paragraphs; got {len(lines)} lines: {text[:80]!r}")
    words_, voice, answer = map(_unescaped, lines)
    return ParagraphThought(words=words_, voice=voice, answer=answer)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
