"""The words for what a voice conveys: one table that the generator writes with and the evaluation reads answers with.

The first entry of each class is its canonical adjective or noun, which the grammar uses; the others are what people and models
say for the same class. A word that is common in another sense ("down", "even", "cross") stands only inside a phrase, and a word that
fits two classes ("upset": sad or angry) stands in none, so that reading an answer errs on the side of not understanding it.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

EMOTION_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "angry": (
            *(
                "angry",
                "anger",
                "angrily",
                "mad",
                "furious",
                "furiously",
                "fury",
                "rage",
                "enraged",
                "outraged",
                "annoyed",
                "annoyance",
            ),
            *(
                "irritated",
                "irritation",
                "frustrated",
                "frustration",
                "irate",
                "livid",
                "hostile",
                "hostility",
                "aggressive",
                "indignant",
            ),
            *("indignation", "resentful", "bad-tempered", "in a temper", "fed up"),
        ),
        "disgusted": (
            *("disgusted", "disgust", "disgustedly", "disgusting", "repulsed", "repulsion", "revolted", "revulsion", "repelled"),
            *("sickened", "nauseated", "contempt", "contemptuous", "distaste", "aversion", "grossed out", "put off"),
        ),
        "fearful": (
            *(
                "fearful",
                "fear",
                "fearfully",
                "afraid",
                "scared",
                "frightened",
                "fright",
                "terrified",
                "terror",
                "anxious",
                "anxiously",
            ),
            *(
                "anxiety",
                "nervous",
                "nervously",
                "nervousness",
                "worried",
                "worry",
                "panicked",
                "panicky",
                "panic",
                "alarmed",
                "uneasy",
            ),
            *("unease", "apprehensive", "apprehension", "dread"),
        ),
        "happy": (
            *(
                "happy",
                "happiness",
                "happily",
                "glad",
                "gladly",
                "joy",
                "joyful",
                "joyfully",
                "cheerful",
                "cheerfully",
                "cheery",
                "pleased",
            ),
            *(
                "delighted",
                "delight",
                "excited",
                "excitedly",
                "excitement",
                "elated",
                "enthusiastic",
                "enthusiasm",
                "upbeat",
                "merry",
            ),
            *("jolly", "amused", "amusement", "thrilled", "contented", "in good spirits", "in high spirits", "in a good mood"),
        ),
        "neutral": (
            *("neutral", "neutrally", "neutrality", "calm", "calmly", "calmness", "matter-of-fact", "unemotional", "emotionless"),
            *(
                "composed",
                "impassive",
                "indifferent",
                "even-toned",
                "even tone",
                "even voice",
                "flat tone",
                "flat voice",
                "level tone",
            ),
            *(
                "level voice",
                "plain tone",
                "plain voice",
                "no emotion",
                "no particular emotion",
                "no strong emotion",
                "no clear emotion",
            ),
            *("without emotion", "without any emotion"),
        ),
        "sad": (
            *(
                "sad",
                "sadness",
                "sadly",
                "unhappy",
                "unhappily",
                "unhappiness",
                "sorrowful",
                "sorrow",
                "gloomy",
                "gloom",
                "gloomily",
            ),
            *("melancholy", "melancholic", "mournful", "mournfully", "grief", "grieving", "depressed", "depression", "dejected"),
            *(
                "miserable",
                "misery",
                "downcast",
                "heartbroken",
                "tearful",
                "tearfully",
                "disappointed",
                "disappointment",
                "low spirits",
            ),
            *("feel down", "feels down", "feeling down", "sound down", "sounds down", "sounding down", "seems down", "a bit down"),
        ),
        "surprised": (
            *(
                "surprised",
                "surprise",
                "surprisedly",
                "astonished",
                "astonishment",
                "amazed",
                "amazement",
                "startled",
                "shocked",
                "shock",
            ),
            *("stunned", "disbelief", "taken aback", "caught off guard"),
        ),
    }
)
"""Emotion class -> its words. "other" and "unknown" have none: nobody is asked about them and no answer is read as them."""

GENDER_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "female": (
            *("woman", "female", "women", "females", "lady", "ladies", "girl", "girls", "feminine", "womanly"),
            *("she", "her", "hers", "herself"),
        ),
        "male": (
            *("man", "male", "men", "males", "gentleman", "gentlemen", "guy", "guys", "boy", "boys", "masculine", "manly"),
            *("he", "him", "his", "himself"),
        ),
    }
)

COUNT_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "1": ("one", "1", "single", "alone", "a monologue"),
        "2": ("two", "2", "a pair", "a couple"),
        "3": ("three", "3"),
        "4": ("four", "4"),
        "5": ("five", "5"),
        "6": ("six", "6"),
    }
)
"""Number of speakers as a class -> its words."""

LABEL_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"emotion": EMOTION_WORDS, "gender": GENDER_WORDS, "speakers": COUNT_WORDS}
)
"""Attribute (`QAPair.label_attribute`) -> class -> words."""

ATTRIBUTE_OF_KIND: Mapping[str, str] = MappingProxyType(
    {"DE": "emotion", "CE": "emotion", "DG": "gender", "CG": "gender", "DS": "speakers", "CS": "speakers"}
)
"""Kind of question (`records.Kind`) that needs the voice -> what its label is a value of."""

STOP_WORDS: frozenset[str] = frozenset(
    """
    a about after again all also am an and another any anybody anyone anything are around as ask at away back be because been before being
    both but by can could did do does done down during each either else ever every for from get gets getting go goes going gone got
    had has have having he her here hers herself him himself his how i i'll i'm i've if in into is it it's its itself just know last
    let like made make many may me mean might mine more most much must my myself never no nor not now of off on once one only onto or
    other our ours out over own put quite rather really said same saw say saying says see seen she should since so some something
    somewhere still such take taken tell than that that's the their theirs them themselves then there there's these they thing things
    think this those though through to told too took under until up upon us very was we well went were what when where which while who
    whom whose why will with without word words would yes yet you you're your yours yourself speaker speakers voice sound sounds
    don't didn't can't won't isn't wasn't couldn't wouldn't doesn't i'd we're we've they're he's she's what's let's
    """.split()  # noqa: SIM905 - a list literal of this would be unreadable
)
"""English words that carry no content of their own; also those that frame an answer ("the speaker says ...")."""

MEANT_WORDS: frozenset[str] = frozenset(
    """
    one once first last before after during until since over under up down off out again away back behind between through with without
    no not never yes all both more most
    """.split()  # noqa: SIM905 - as above
)
"""Stop words that can be the answer ("before work", "at one"): they count where answers are scored. "in", "on", "at", "by", "to" and
"of" do not, so that "at noon" has nothing right about "at nine"."""

_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


def plain(text: str) -> str:
    """A text as it looks: one way to write each letter and apostrophe, and nothing that is not seen (soft hyphens, zero-width spaces)."""
    seen = "".join(one for one in unicodedata.normalize("NFKC", text) if unicodedata.category(one) != "Cf")
    return seen.replace("’", "'").replace("‘", "'")


def tokens(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; "matter-of-fact" and "don't" are one word each."""
    return [one.replace("’", "'") for one in _TOKEN.findall(text.lower())]


def content_words(text: str) -> list[str]:
    """The words of a text that carry content, in order: what an answer must share with its reference to be right."""
    return [one for one in tokens(text) if one not in STOP_WORDS]


def meant_words(text: str) -> list[str]:
    """The words of a text that an answer is scored by, in order: content words and `MEANT_WORDS`; "didn't" counts as "not"."""
    found = ("not" if one.endswith("n't") else one for one in tokens(text))
    return [one for one in found if one not in STOP_WORDS or one in MEANT_WORDS]


@functools.cache
def _pattern(attribute: str) -> re.Pattern[str]:
    words = {word for group in LABEL_WORDS[attribute].values() for word in group}
    # The longest first: "no emotion" before a word inside it, "unhappy" is kept from "happy" by the word boundary.
    ordered = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, ordered)) + r")(?![\w-])")


@functools.cache
def _class_of(attribute: str) -> dict[str, str]:
    return {word: label for label, group in LABEL_WORDS[attribute].items() for word in group}


def labels_in(text: str, attribute: str) -> frozenset[str]:
    """The classes of an attribute whose words occur in a text, negated or not.

    Args:
        text: Any text.
        attribute: One of the keys of `LABEL_WORDS`.
    """
    # "a man's voice" names the class as "a man" does.
    plain = text.lower().replace("’", "'").replace("'s", "")
    return frozenset(_class_of(attribute)[found] for found in _pattern(attribute).findall(plain))
