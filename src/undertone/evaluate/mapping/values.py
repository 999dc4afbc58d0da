"""Reading valence, arousal and dominance from an answer: a number on a scale, or a level in words, as a float in 0..1.

Words stand for the middles of five equal steps: very low 0.1, low 0.3, medium 0.5, high 0.7, very high 0.9; "slightly" and "moderately" lie
between (0.4 and 0.6), and "low to medium" in the middle of the two. "3 out of 5" is 3/5, unless the question's scale ends in 5 and begins
elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from undertone.errors import ConfigError
from undertone.evaluate.mapping.keywords import stated, word_set
from undertone.records import DIMENSIONS

Scale = tuple[float, float]
"""The lowest and the highest value that can be given."""

UNIT: Scale = (0.0, 1.0)

Why = Literal["nothing_read", "several", "other_dimension", "off_scale"]


@dataclass(frozen=True)
class Value:
    """What an answer says of a dimension, in 0..1; `how` it was said, `evidence` the words, and `reason` why there is no value."""

    value: float | None
    how: Literal["number", "words", "unmapped"]
    evidence: str = ""
    reason: Why | None = None


_LEVELS: Mapping[str, float] = MappingProxyType(
    {
        "low": 0.3,
        "lower": 0.3,
        "medium": 0.5,
        "moderate": 0.5,
        "neutral": 0.5,
        "average": 0.5,
        "middle": 0.5,
        "mid": 0.5,
        "high": 0.7,
    }
)
_POLES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "valence": {"negative": 0.3, "unpleasant": 0.3, "positive": 0.7, "pleasant": 0.7},
        "arousal": {"calm": 0.3, "subdued": 0.3, "sleepy": 0.3, "excited": 0.7, "energetic": 0.7, "aroused": 0.7, "agitated": 0.7},
        "dominance": {"submissive": 0.3, "powerless": 0.3, "dominant": 0.7, "assertive": 0.7, "in control": 0.7},
    }
)
_STRONG = "very|extremely|highly|strongly|really|exceptionally"
_WEAK = "slightly|somewhat|moderately|relatively|a bit|a little|mildly|rather"
_NOT = re.compile(r"\b(?:not|no|neither|nor|never|without|hardly|isn't|doesn't)\b(?:\s+(?!but\b)\w+){0,3}\s*$")
_NUMBER = r"[-\u2212]?\d+(?:\.\d+)?"
_SCALE = re.compile(rf"\bscale (?:of|from)? ?({_NUMBER}) ?(?:to|-|\u2013) ?({_NUMBER})")
_FILLER = word_set(
    """not but neither nor a an the i i'd would will rate rating score give it this that is are be of at to as on my answer about around
    roughly approximately level value estimate estimated say think believe maybe perhaps probably likely out speaker
    speaker's speech voice has shows with in and or here so for scale quite fairly percent very extremely highly
    strongly really slightly somewhat moderately relatively rather bit little mildly exceptionally seems appears
    sounds"""
)


def to_value(text: str, dimension: str, *, scale: Scale = UNIT) -> Value:
    """The valence, arousal or dominance that an answer states.

    Args:
        text: The answer, any text.
        dimension: One of `records.DIMENSIONS`.
        scale: The scale that the question asks for; one that the answer itself names comes first.

    Raises:
        ConfigError: No such dimension, or a scale that does not rise.
    """
    if dimension not in DIMENSIONS:
        raise ConfigError(f"values can be read for {', '.join(DIMENSIONS)}, got {dimension!r}; for classes use mapping.to_label")
    if not scale[0] < scale[1]:
        raise ConfigError(f"a scale must rise, got {scale[0]:g}..{scale[1]:g}; give the lowest value first, as in (1, 5)")
    flat = unicodedata.normalize("NFKC", stated(text, dimension)).casefold().replace("\u2212", "-").replace("\u2019", "'")
    flat = re.sub(r"[*_`\"]", "", flat)
    said = _SCALE.search(flat)
    if said is not None and float(said[1]) < float(said[2]):
        scale = (float(said[1]), float(said[2]))
        flat = flat.replace(said.group(), " ")
    own, named = _about(flat, dimension)
    if not own:
        return Value(None, "unmapped", reason="other_dimension" if named else "nothing_read")
    if not named and not _plain(own, dimension):
        return Value(None, "unmapped", reason="nothing_read")
    return _number(own, scale) or _level(own, dimension)


def _about(flat: str, dimension: str) -> tuple[str, bool]:
    """The clauses about a dimension, and whether they name it; empty where only others are named."""
    names = {name: re.compile(rf"\b{name}\b|\b{name[0]}(?= ?[:=])") for name in DIMENSIONS}
    pieces = re.split(r"[,;\n]|\.(?!\d)|\b(?:and|but|while|whereas)\b", flat)
    present = [[name for name in DIMENSIONS if names[name].search(piece)] for piece in pieces]
    if not any(present):
        return flat.strip(), False
    kept: list[str] = []
    current: str | None = None
    for piece, held in zip(pieces, present, strict=True):
        if len(held) > 1:
            return "", True
        current = held[0] if held else current
        if current == dimension:
            kept.append(names[dimension].sub(" ", piece))
    return " ; ".join(kept).strip(), True


def _plain(own: str, dimension: str) -> bool:
    """Whether an answer that names no dimension says little but a number or a level."""
    words = re.findall(r"[a-z']+", own)
    known = {*_FILLER, *_LEVELS, *(word for pole in _POLES[dimension] for word in pole.split())}
    return all(word in known for word in words) and bool(own)


def _number(own: str, scale: Scale) -> Value | None:
    whole = re.search(rf"({_NUMBER})\s*(?:/|out of)\s*(\d+(?:\.\d+)?)", own)
    share = re.search(rf"({_NUMBER})\s*(?:%|percent)", own)
    span = re.search(rf"({_NUMBER})\s*(?:to|-|\u2013)\s*({_NUMBER})", own)
    if whole is not None:
        low, high = scale if scale != UNIT and scale[1] == float(whole[2]) else (0.0, float(whole[2]))
        return _scaled(float(whole[1]), (low, high), whole.group())
    if share is not None:
        return _scaled(float(share[1]), (0.0, 100.0), share.group())
    if span is not None and float(span[1]) < float(span[2]):
        return _scaled((float(span[1]) + float(span[2])) / 2, scale, span.group())
    numbers = re.findall(rf"(?<![\w.]){_NUMBER}(?![\w.]*\w)", own)
    if not numbers:
        return None
    if len({float(one) for one in numbers}) > 1:
        return Value(None, "unmapped", ", ".join(numbers), "several")
    return _scaled(float(numbers[0]), scale, numbers[0])


def _scaled(number: float, scale: Scale, evidence: str) -> Value:
    low, high = scale
    if high <= low or not low <= number <= high:
        return Value(None, "unmapped", evidence, "off_scale")
    return Value((number - low) / (high - low), "number", evidence)


def _level(own: str, dimension: str) -> Value:
    levels = {**_LEVELS, **_POLES[dimension]}
    pattern = re.compile(rf"\b(?:({_STRONG})\s+|({_WEAK})\s+)?({'|'.join(levels)})\b")
    found: list[tuple[float, str, int]] = []
    for hit in pattern.finditer(own):
        if _NOT.search(own[: hit.start()].rsplit(";", 1)[-1]):
            continue
        away = levels[hit[3]] - 0.5
        # One step of 0.2 is plain; half of it is slight, twice is strong.
        found.append((0.5 + away * (2 if hit[1] else 0.5 if hit[2] else 1), hit.group(), hit.end()))
    values = {round(value, 6) for value, _, _ in found}
    evidence = ", ".join(text for _, text, _ in found)
    if not values:
        return Value(None, "unmapped", reason="nothing_read")
    if len(values) == 1:
        return Value(values.pop(), "words", evidence)
    between = own[found[0][2] : found[-1][2] - len(found[-1][1])].strip()
    if len(found) == 2 and between in ("to", "-", "\u2013"):
        return Value(sum(values) / 2, "words", evidence)
    return Value(None, "unmapped", evidence, "several")
