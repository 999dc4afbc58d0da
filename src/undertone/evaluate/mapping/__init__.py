"""Read the class that a free-text answer claims: "not angry but sad" claims sad.

First by keywords (`undertone.lexicon`, `mapping.words`), numbers and ages. Each one found has a role:

    main      singled out: "mostly sad with some anger", "the answer is sad", "fear is the dominant emotion"
    claimed   said plainly
    hedged    weakened: "maybe angry", "a hint of anger"
    context   said of something else: in a subordinate clause ("because she was happy before", "when she mentions the angry man"), inside
              double quotes, in a question or a list of options that the answer repeats, or taken back ("at first I thought of fear, but")
    other     of a person whom the speaker deals with: "a man is calling his wife"
    rejected  under a negation or a comparison: "not angry", "no sign of anger", "rather than angry", "more sad than angry"

The answer claims the class that stands alone in the strongest role present (in the order above, without the last two). Two classes in that
role are a list, and a list is no answer: the text is unmapped, also where the first one is right, so that naming several classes cannot
pay. A rejected class implies nothing about the others ("not a man" is unmapped). Words that only show a class (tears, "mother", "she")
count where no word names one.

Where no keyword is found at all, similarity may decide (`nearest.Nearest`), if one is handed in. What neither can read is unmapped, with
the reason; it is never guessed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from undertone.errors import ConfigError
from undertone.evaluate.mapping.ages import BANDS, SPANS, offered, read_age
from undertone.evaluate.mapping.closed import Layers, offered_layers
from undertone.evaluate.mapping.embedders import AnyEmbedder, Characters, Checkpoint, Embedder
from undertone.evaluate.mapping.keywords import (
    Match,
    Phrase,
    Role,
    Token,
    bare,
    claims,
    clean,
    decide,
    find_keywords,
    foreign,
    stated,
    table_of,
    tokens_of,
)
from undertone.evaluate.mapping.nearest import Near, Nearest
from undertone.evaluate.mapping.speakers import read_genders, read_speakers
from undertone.evaluate.mapping.values import Scale, Value, to_value
from undertone.evaluate.mapping.words import EMOTION_FINER, LAYERS, Words
from undertone.lexicon import LABEL_WORDS, MEANT_WORDS, STOP_WORDS
from undertone.records import content_hash
from undertone.refusals import is_refusal

__all__ = [
    "AnyEmbedder",
    "Characters",
    "Checkpoint",
    "Embedder",
    "Mapped",
    "Match",
    "Near",
    "Nearest",
    "Role",
    "Scale",
    "Value",
    "attributes",
    "classes",
    "keyword_digest",
    "to_label",
    "to_value",
]

RULES = "2"
"""Version of how words are read, beside the words themselves: raise it with every change that may read an answer otherwise."""

Why = Literal["nothing_found", "rejected", "several", "not_offered", "below_threshold", "no_margin", "negated", "other_language"]

_GENDERS = ("female", "male", "both", "female, male", "male, female")
_COUNTS = tuple(str(number) for number in range(1, 21))
_WITH_PERSONS = ("gender",)

_NEUTRAL = re.compile(
    r"\b(?:(?:no|without|lack of|lacks|lacking|absence of|devoid of|free of|little|(?:not|hardly) (?:much|any))(?: \w+){0,3}"
    r" (?:emotions?|feelings?)"
    r"|(?:not (?:show|express|convey|display|carry|have|reveal)|shows little|(?:with|has) little)(?: \w+){0,2} (?:emotions?|feelings?)"
    r"|(?:not(?: \w+){0,2}|nothing) emotional)\b"
    r"(?! (?:state|cues?|tone of)\b| (?:is|are|was|were|can|could|has|have)(?: be| been)? (?:not )?(?:be )?"
    r"(?:given|mentioned|specified|stated|determined|inferred|identified|detected|discerned|recogni[sz]ed|provided|told))"
)
"""Absence of emotion, which is a claim of "neutral" though it looks like a negation; that none can be determined is no such claim."""


@dataclass(frozen=True)
class Mapped:
    """The class an answer claims, or None.

    Attributes:
        label: The class: one of `classes(attribute)`, or of those offered.
        how: By what means it was read.
        matches: All that was found for keywords, in order (by similarity: the words taken for keywords).
        reason: Why there is no class.
        nearest: The two nearest classes, where similarity was asked.
    """

    label: str | None
    how: Literal["keyword", "embedding", "unmapped"]
    matches: tuple[Match, ...] = ()
    reason: Why | None = None
    nearest: tuple[Near, ...] = ()


def attributes() -> tuple[str, ...]:
    """The attributes that `to_label` can read without being told the classes."""
    return (*LABEL_WORDS, "age", "event", "genders")


def classes(attribute: str) -> tuple[str, ...]:
    """The classes of an attribute that answers are read as.

    >>> classes("age")
    ('child', 'teenager', 'young adult', 'middle-aged', 'elderly')
    """
    known = {"age": tuple(BANDS), "speakers": _COUNTS, "genders": _GENDERS}
    if attribute in known:
        return known[attribute]
    _known(attribute)
    return tuple(LAYERS[attribute][0])


def to_label(text: str, attribute: str, *, among: Sequence[str] | None = None, nearest: Nearest | None = None) -> Mapped:
    """The class of `attribute` that an answer claims.

    Args:
        text: The answer, any text.
        attribute: One of `attributes()`: "emotion", "gender", "genders" (of several speakers), "age", "speakers", "event". With `among` any.
        among: The classes that the question offers; None for ours. An answer that claims another class is then unmapped.
        nearest: Decides by similarity where no keyword is found; None for keywords alone.

    Raises:
        ConfigError: There is no keyword table for the attribute, or the offered classes cannot be told apart.
    """
    if among is None:
        _known(attribute)
    said = stated(text, attribute)
    tokens = tokens_of(clean(said))
    if foreign(tokens):
        return Mapped(None, "unmapped", reason="other_language")
    if attribute == "age":
        label, matches = read_age(said, BANDS if among is None else offered(among))
        return _mapped(label, matches, None)
    if attribute in ("speakers", "genders"):
        label, matches = read_speakers(said) if attribute == "speakers" else read_genders(said)
        return _mapped(label, matches, None if among is None else tuple(among))
    layers = LAYERS[attribute] if among is None else offered_layers(attribute, tuple(among))
    matches = _by_words(said, attribute, tokens, layers)
    label = decide(matches)
    if matches or nearest is None or is_refusal(text):
        return _mapped(label, matches, None if among is None else tuple(among))
    words = {name: layers[0].get(name, (name,)) for name in (among or classes(attribute))}
    found = nearest.find(said, tokens, words)
    return Mapped(found.label, "embedding" if found.label else "unmapped", found.matches, found.reason, found.nearest)


def _by_words(text: str, attribute: str, tokens: Sequence[Token], layers: Layers) -> tuple[Match, ...]:
    if attribute == "gender" and bare(text) in ("f", "m"):
        return (Match({"f": "female", "m": "male"}[bare(text)], bare(text), 0, "claimed"),)
    found: list[Match] = []
    for depth, layer in enumerate(layers):
        last = attribute == "gender" and depth == 2
        persons = attribute in _WITH_PERSONS and not last
        more = find_keywords(tokens, _table(layer), inflected=attribute == "emotion", persons=persons)
        if attribute == "emotion" and depth == 0:
            more = _with_absence(clean(text), more, layer)
        found += more
        if claims(found):
            break
    return tuple(found)


def _with_absence(cleaned: str, found: Sequence[Match], words: Words) -> list[Match]:
    """The keywords and the places that say there is no emotion."""
    neutral = next((name for name, some in words.items() if "neutral" in some), "neutral")
    hits = [hit for hit in _NEUTRAL.finditer(cleaned) if not any(hit.start() <= match.start < hit.end() for match in found)]
    return sorted([*found, *(Match(neutral, hit.group(), hit.start(), "claimed") for hit in hits)], key=lambda match: match.start)


def _mapped(label: str | None, matches: tuple[Match, ...], among: tuple[str, ...] | None) -> Mapped:
    if label is not None and (among is None or label in among):
        return Mapped(label, "keyword", matches)
    if label is not None:
        return Mapped(None, "unmapped", matches, "not_offered")
    return Mapped(None, "unmapped", matches, "several" if claims(matches) else "rejected" if matches else "nothing_found")


@functools.lru_cache(maxsize=64)
def _cached_table(items: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[Phrase, str]:
    return table_of(dict(items))


def _table(layer: Words) -> dict[Phrase, str]:
    return _cached_table(tuple(layer.items()))


def _known(attribute: str) -> None:
    if attribute not in attributes():
        raise ConfigError(f"answers cannot be mapped to classes of {attribute!r}; there are keywords for {', '.join(attributes())}")


def keyword_digest() -> str:
    """A hash of all word tables and of the version of the rules that answers are read and scored with.

    Verdicts of two runs compare only where it is equal.
    """
    tables = [*((name, table) for name, table in LABEL_WORDS.items()), ("finer", EMOTION_FINER)]
    tables += [(f"{name}.{depth}", layer) for name, layers in LAYERS.items() for depth, layer in enumerate(layers)]
    return content_hash(
        f"rules|{RULES}",
        *(f"{name}|{label}|{word}" for name, table in tables for label, words in table.items() for word in words),
        *(f"age|{low:g}|{high:g}|{word}" for (low, high), words in SPANS.items() for word in words),
        *(f"stop|{word}" for word in sorted(STOP_WORDS)),
        *(f"meant|{word}" for word in sorted(MEANT_WORDS)),
    )
