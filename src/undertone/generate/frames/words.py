"""The words that fill the slots of wordings: adjectives and nouns of emotions, genders, counts, and how a moment is spoken of."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from undertone.lexicon import EMOTION_WORDS, GENDER_WORDS

EMOTION_ADJECTIVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "angry": ("angry", "annoyed"),
        "disgusted": ("disgusted",),
        "fearful": ("fearful", "frightened"),
        "happy": ("happy", "cheerful"),
        "neutral": ("neutral", "calm"),
        "sad": ("sad", "unhappy"),
        "surprised": ("surprised",),
    }
)
"""The adjectives that varied answers choose from; few, so that a small model can learn them. All stand in `EMOTION_WORDS`."""

RICH_ADJECTIVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "angry": ("angry", "annoyed", "irritated", "frustrated"),
        "disgusted": ("disgusted", "repulsed", "revolted"),
        "fearful": ("fearful", "frightened", "afraid", "scared", "anxious"),
        "happy": ("happy", "cheerful", "glad", "pleased", "joyful"),
        "neutral": ("neutral", "calm", "composed", "unemotional", "matter-of-fact"),
        "sad": ("sad", "unhappy", "sorrowful", "gloomy", "downcast"),
        "surprised": ("surprised", "astonished", "amazed", "startled"),
    }
)
"""Those that the answers of strategy "grammar" choose from."""

EMOTION_NOUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "angry": ("anger", "irritation"),
        "disgusted": ("disgust", "revulsion"),
        "fearful": ("fear", "anxiety"),
        "happy": ("happiness", "joy"),
        "neutral": ("no particular emotion", "no strong emotion"),
        "sad": ("sadness", "sorrow"),
        "surprised": ("surprise", "astonishment"),
    }
)

GENDERS: Mapping[str, tuple[str, str]] = MappingProxyType({label: (words[0], words[1]) for label, words in GENDER_WORDS.items()})
"""Gender -> ({person}, {adjective})."""

NUMBERS = ("one", "two", "three", "four", "five", "six")
COUNTS: Mapping[str, str] = MappingProxyType(
    {"1": "is one person", **{str(at): f"are {word} people" for at, word in enumerate(NUMBERS[1:], start=2)}}
)
"""Number of speakers -> {count}."""

MOMENTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "": ("mentions {anchor}", "the mention of {anchor}"),
        ".word": ('says "{anchor}"', 'the word "{anchor}"'),
        ".time": ('says "{anchor}" for the {time} time', 'the {time} "{anchor}"'),
    }
)
"""Sort of anchor -> what someone does there, and that moment; for questions that name two."""

HIGH_AROUSAL, LOW_AROUSAL = 0.7, 0.35
"""Arousal (0..1) from which an answer says "very", and below which it says "a little"."""

QUIET = frozenset({"sad", "disgusted"})
"""Emotions of which low arousal is no sign of weakness; they are never "a little"."""

STRONG, WEAK = ("very", "really", "intensely"), ("a little", "slightly", "somewhat", "mildly")
"""What an adjective is coloured with; the first is the plain one."""
STRONG_NOUN, WEAK_NOUN = ("strong", "intense"), ("a touch of", "a hint of", "mild")


def canonical(emotion: str) -> str:
    """The plain adjective of an emotion class."""
    return EMOTION_WORDS[emotion][0]


def strength(emotion: str, arousal: float | None) -> int:
    """1 where an emotion is heard to be strong, -1 where it is weak, else 0; a neutral voice is never very neutral.

    Args:
        emotion: The class.
        arousal: 0..1, or None where it is not known.
    """
    if arousal is None or emotion == "neutral":
        return 0
    return 1 if arousal >= HIGH_AROUSAL else -int(arousal < LOW_AROUSAL and emotion not in QUIET)


def coloured(adjective: str, emotion: str, arousal: float | None, rng: random.Random | None = None) -> str:
    """The adjective with its strength as heard: "very angry", "a little happy"; the class stays what it is (2508.07273).

    Args:
        adjective: One of the class's adjectives.
        emotion: The class.
        arousal: 0..1, or None where it is not known.
        rng: Chooses between words of strength; None for the plain ones.
    """
    return _with_strength(adjective, strength(emotion, arousal), STRONG, WEAK, rng)


def coloured_noun(emotion: str, arousal: float | None, rng: random.Random) -> str:
    """A noun of the emotion with its strength as heard: "strong anger", "a touch of joy"."""
    return _with_strength(rng.choice(EMOTION_NOUNS[emotion]), strength(emotion, arousal), STRONG_NOUN, WEAK_NOUN, rng)


def _with_strength(word: str, heard: int, strong: Sequence[str], weak: Sequence[str], rng: random.Random | None) -> str:
    if not heard:
        return word
    degrees = strong if heard > 0 else weak
    return f"{rng.choice(degrees) if rng else degrees[0]} {word}"
