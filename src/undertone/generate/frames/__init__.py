"""The wordings of the grammar: every question and answer that it can write stands in this package.

A form is one way to ask for one thing ("C.fact": a content question from a known fact). Its train and test questions are disjoint,
so that a benchmark never repeats a question that a model has been taught, and test questions use the words of train questions, so
that it does not test rare vocabulary either (both are tested).

Slots of questions: {anchor} "the train" (in the forms ".word" and ".time" a word to quote), {time} "first" or "last", {stem} "when
does the train leave", {Stem} the same with a capital, {context}, {before} and {after} words to quote, {does} "mentions the train" and
{place} "the mention of the train" of one anchor, {also} and {other} of a second one, {mood} "sad". Of answers also: {answer}, {Answer},
{transcript}, {emotion} "very sad", {noun} "sadness", {person} "woman", {adjective} "female", {who} "the woman" or "the speaker", {count}
"is one person", {people} "one person", {voices} "one voice", {first} and {second}: what is heard at the one anchor and at the other.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType

from undertone.generate.frames import content, direct, emotion, gender, speakers, words
from undertone.generate.frames.form import Form, FrameSet
from undertone.generate.frames.words import COUNTS, EMOTION_ADJECTIVES, GENDERS, canonical, coloured
from undertone.records import content_hash

__all__ = [
    "COUNTS",
    "EMOTION_ADJECTIVES",
    "FORMS",
    "GENDERS",
    "OPENERS",
    "Form",
    "FrameSet",
    "canonical",
    "coloured",
    "digest",
]

FORMS: Mapping[str, Form] = MappingProxyType({**direct.FORMS, **content.FORMS, **emotion.FORMS, **gender.FORMS, **speakers.FORMS})

OPENERS: tuple[str, ...] = (
    "Listen closely.",
    "Play the clip and answer.",
    "Please pay attention.",
    "Take your time.",
    "Answer briefly.",
    "Think about what you hear.",
)
"""What some questions of strategy "grammar" begin with; no test question begins so."""


@functools.cache
def digest() -> str:
    """Changes with every wording: the grammar's `prompt_digest`."""
    table = {
        "forms": {name: asdict(form) for name, form in FORMS.items()},
        "openers": OPENERS,
        "adjectives": [dict(EMOTION_ADJECTIVES), dict(words.RICH_ADJECTIVES)],
        "nouns": dict(words.EMOTION_NOUNS),
        "genders": dict(GENDERS),
        "counts": [dict(COUNTS), words.NUMBERS],
        "moments": dict(words.MOMENTS),
        "arousal": [words.HIGH_AROUSAL, words.LOW_AROUSAL, sorted(words.QUIET)],
        "strengths": [words.STRONG, words.WEAK, words.STRONG_NOUN, words.WEAK_NOUN],
    }
    return content_hash(json.dumps(table, sort_keys=True, ensure_ascii=False))
