"""What the strategies share: their settings of evidence and language, what a clip gives to ask about, drawing, reading replies."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, field_validator

from undertone.errors import ConfigError
from undertone.generate.askable import dominant_emotion, only_gender, speaker_count
from undertone.generate.evidence import form_named, known_forms, render, tones, whole_tone
from undertone.generate.protocol import Strategy, expected_one_of
from undertone.lexicon import COUNT_WORDS, EMOTION_WORDS, GENDER_WORDS, LABEL_WORDS, labels_in, plain
from undertone.records import Clip, content_hash
from undertone.refusals import is_refused_reply

PairKind = Literal["C", "DE", "DG", "DS", "CE", "CG", "CS"]
"""The kinds that a question can be written for."""

_K = TypeVar("_K")


class OnEvidence(Strategy):
    """A strategy whose LLM reads the clip as evidence.

    Attributes:
        evidence_form: How the clip is written down for the LLM, one of `evidence.FORMS`; each strategy's default is that of its paper.
        evidence_tokens: At most about so many tokens of it (`evidence.budget`); None for all.
        language: Of questions and answers, as an English word; None for the language that is spoken.
    """

    own_forms: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Forms that the strategy writes itself: how each is to be read."""

    evidence_form: str = "dimensional"
    evidence_tokens: int | None = Field(default=None, ge=32)
    language: str | None = "English"

    @field_validator("evidence_form")
    @classmethod
    def _known_form(cls, value: str) -> str:
        if value not in cls.own_forms:
            try:
                form_named(value)
            except ConfigError:
                raise ValueError(expected_one_of(value, {*cls.own_forms, *known_forms()})) from None
        return value

    def evidence(self, clip: Clip) -> str:
        """The clip in the chosen form."""
        return render(clip, self.evidence_form, budget=self.evidence_tokens)

    def rendered(self, clip: Clip, **values: Any) -> str:
        """The prompt."""
        return super().rendered(clip, form=self.evidence_form, legend=self.legend, language=self.language, **values)

    @property
    def legend(self) -> str:
        """How the evidence is to be read, for the prompt."""
        return self.own_forms.get(self.evidence_form) or form_named(self.evidence_form).legend

    @property
    def digest(self) -> str:
        """Changes with the legend too, which is a part of the prompt."""
        return content_hash(super().digest, self.legend)


# ---- what a clip gives -----------------------------------------------------------------------------------------------------------


def emotion_path(clip: Clip) -> tuple[str, ...]:
    """The emotions of a clip in the order in which they are heard, each stretch once; other, unknown and unlabelled speech aside."""
    return _path(clip, "emotion", EMOTION_WORDS)


def _path(clip: Clip, attribute: str, known: Mapping[str, Any]) -> tuple[str, ...]:
    heard = [getattr(tone, attribute) for one in clip.segments for tone in (tones(one) if one.words else (whole_tone(one),))]
    named = [one for one in heard if one in known]
    return tuple(one for at, one in enumerate(named) if at == 0 or named[at - 1] != one)


def askable_kinds(clip: Clip, *, require_contrast: bool = True) -> tuple[PairKind, ...]:
    """The kinds of question that a clip has an answer for.

    Args:
        clip: Its labels are the truth, whoever gave them.
        require_contrast: Ask in context only where the answer differs within the clip; elsewhere the clip as a whole answers.
    """
    count = speaker_count(clip)
    least = 2 if require_contrast else 1
    spoken = bool(clip.transcript.strip())
    can: dict[PairKind, bool] = {
        "C": spoken,
        "DE": dominant_emotion(clip) is not None,
        "DG": only_gender(clip) is not None,
        "DS": str(count) in COUNT_WORDS,
        "CE": spoken and len(set(emotion_path(clip))) >= least,
        "CG": spoken and len(set(_path(clip, "gender", GENDER_WORDS))) >= least,
        # The evidence says who speaks by segment, so every segment must have a speaker of its own.
        "CS": spoken and str(count) in COUNT_WORDS and (count or 0) >= 2 and all(one.speaker for one in clip.segments),
    }
    return tuple(kind for kind, possible in can.items() if possible)


def whole_clip(clip: Clip, *, in_order: bool = True) -> tuple[str, ...]:
    """What holds for a clip as a whole, in words for a prompt: its emotions, the one gender, the number of speakers, where known.

    Args:
        clip: Its labels are the truth.
        in_order: Also in which order the emotions are heard.
    """
    path, overall, gender, count = emotion_path(clip), dominant_emotion(clip), only_gender(clip), speaker_count(clip)
    facts = []
    if overall:
        facts.append(f"the voice is mostly {overall}")
    if in_order and len(path) > 1:
        facts.append(f"the emotions in order are {', '.join(path)}")
    if gender:
        facts.append(f"all of it is spoken by {'one' if count == 1 else 'a'} {gender} voice" + ("" if count in (None, 1) else "s"))
    if count:
        facts.append("one person speaks" if count == 1 else f"{count} people speak")
    return tuple(facts)


# ---- drawing ---------------------------------------------------------------------------------------------------------------------


def drawing(strategy: Strategy, clip: Clip, seed: int, what: str = "") -> random.Random:
    """Randomness that depends on nothing but the seed, the strategy, the clip and what is drawn."""
    return random.Random(f"{seed}|{strategy.name}|{clip.id}|{what}")


def rounded(expected: Mapping[_K, float], rng: random.Random) -> dict[_K, int]:
    """Whole numbers near the expected ones, with the same sum (rounded at random) and the same mean over many draws.

    Systematic sampling (Madow, 1949): each number is its expectation rounded down or up.
    """
    start, before, total = rng.random(), 0, 0.0
    made: dict[_K, int] = {}
    for key, value in expected.items():
        total += value
        # 1e-9: a sum of thirds falls short of the whole number that it stands for.
        upto = math.floor(total + start + 1e-9)
        made[key], before = upto - before, upto
    return made


# ---- reading ---------------------------------------------------------------------------------------------------------------------


def known_label(said: str | None, attribute: str | None) -> str | None:
    """The class that the model's label names; None where it names none or several."""
    if said is None or attribute is None:
        return None
    if said in LABEL_WORDS[attribute]:
        return said
    found = labels_in(said, attribute)
    return next(iter(found)) if len(found) == 1 else None


def _emotion(said: Any) -> Any:
    return (known_label(said, "emotion") or said) if isinstance(said, str) else said


EmotionClass = Annotated[
    Literal["angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"], BeforeValidator(_emotion)
]
"""An emotion that a model names, in whatever word of the class."""

_REASONING = re.compile(r"\A<think>.*?</think>\s*", re.IGNORECASE | re.DOTALL)
"""Reasoning models write their own thinking first, where the server does not take it out."""
_PREFACE = re.compile(r"\A(?:sure|certainly|of course|okay|ok|here(?:'s| is| are))\b[^\n]{0,120}:[ \t]*\n+", re.IGNORECASE)
_SPEAKER = re.compile(r"\A(?:\*\*)?(?:assistant|listener|reply|response|answer|continuation)(?:\*\*)?:(?:\*\*)?\s*", re.IGNORECASE)
_TAG = re.compile(r"\A<[a-z]{3,12}>\s*", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "«": "»"}


def plain_reply(text: str) -> str:
    """A free-text reply without what models put around it: their thinking, "Sure, here it is:", "Reply:", an emotion tag, quotation marks.

    Raises:
        ValueError: Nothing is left, all of it is a model's thinking, or the reply repeats the fence of the prompt.
    """
    kept = _REASONING.sub("", text.strip())
    if kept.lower().startswith("<think>"):
        raise ValueError("the reply ends before its thinking does")
    kept = _PREFACE.sub("", kept)
    kept = _TAG.sub("", _SPEAKER.sub("", kept)).strip()
    closing = _QUOTES.get(kept[:1])
    if closing and kept.endswith(closing) and not set(kept[1:-1]) & {kept[0], closing}:
        kept = kept[1:-1].strip()
    if not re.search(r"\w", kept):
        raise ValueError(f"the reply {text[:80]!r} holds no words")
    if re.search(r"^=== clip [0-9a-f]{16} ===", kept, re.MULTILINE):
        raise ValueError("the reply repeats the prompt")
    return kept


_SORRY = r"(?:(?:i'm |i am )?(?:very |so |really )?(?:sorry|afraid),? (?:but |that )?|unfortunately,? )"
_CANNOT = r"i(?: ?(?:can ?not|can't|won't|will not|could not|couldn't)|(?: am|'m) (?:unable|not able) to) (?:\w+ )?"
_TASK = (
    r"\b[^.!?]{0,30}\b(?:request|prompt|content|text|sentence|story|dialogue|conversation|topic|transcript|task|instructions?)\b"
)
_WRITES_NOT = re.compile(
    rf"\A{_SORRY}?{_CANNOT}(?:generate|fulfil+|comply|engage)\b"
    rf"|\A{_SORRY}?{_CANNOT}(?:continue|create|produce|write|complete|discuss|respond to){_TASK}"
    rf"|\A{_SORRY}{_CANNOT}(?:continue|create|produce|write|complete|discuss|respond to) (?:this|that|it)\b"
    rf"|\A{_SORRY}?{_CANNOT}help (?:you )?with (?:this|that)\b"
    r"|\bas an? (?:ai|artificial|(?:large )?language model|text-based|virtual assistant)\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (?:artificial intelligence|ai|(?:large )?language model|virtual assistant|chatbot)\b"
    r"|\A(?:i'm |i am )(?:really )?not (?:quite )?sure (?:what (?:you|is|the|this)|how (?:to|i can)|i (?:understand|follow))\b"
    r"|\A(?:could you |can you )?(?:please )?(?:provide|give) (?:me )?(?:with )?(?:more|the|some)"
    r" (?:context|information|details|text|sentence|transcript)\b"
)
"""Beside `refusals.is_refused_reply`: what declines to write rather than to listen, and what asks for the task over again. Bound to the
task where a person says the same: "I can't continue like this" is a continuation."""


def usable_reply(text: str) -> str:
    """`plain_reply`, and one that does what was asked.

    Raises:
        ValueError: There is none, it declines, or it asks for the task.
    """
    said = plain_reply(text)
    if is_refused_reply(said) or _WRITES_NOT.search(" ".join(plain(said).lower().split())):
        raise ValueError(f"it refused: {said[:120]!r}")
    return said
