"""Reading an age: words, numbers, decades and ranges become a span of years, and the span a class.

The classes are our bands: child below 13, teenager to 19, young adult to 39, middle-aged to 59, elderly from 60. A span belongs to
the class that holds at least two thirds of it: "thirty to forty" is a young adult, "35 to 45" and "an adult" are none. A question may
offer other classes ("twenties", "30-39", "adult"), which are read as spans by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from undertone.errors import ConfigError
from undertone.evaluate.mapping.keywords import CLAIMING, Match, Token, clean, roles, table_of, tokens_of, word_set
from undertone.evaluate.mapping.numbers import number_at

Years = tuple[float, float]
"""From (included) to (excluded)."""

OLDEST = 110.0

BANDS: Mapping[str, Years] = MappingProxyType(
    {"child": (0, 13), "teenager": (13, 20), "young adult": (20, 40), "middle-aged": (40, 60), "elderly": (60, OLDEST)}
)

_SHARE = 2 / 3
_FEW_YEARS = 3
"""A bare number below this is no age: "2" may be a list mark or a count."""

SPANS: Mapping[Years, tuple[str, ...]] = MappingProxyType(
    {
        (0, 2): ("baby", "infant", "newborn"),
        (1, 4): ("toddler",),
        (3, 6): ("preschooler",),
        (0, 13): (
            *(
                "child",
                "children",
                "kid",
                "kids",
                "childhood",
                "little girl",
                "little boy",
                "small child",
                "young child",
                "young girl",
            ),
            *("young boy", "small girl", "small boy", "childlike", "schoolchild", "preteen", "minor child"),
        ),
        (13, 20): ("teenager", "teenagers", "teen", "teens", "teenage", "adolescent", "adolescence", "teenaged", "teenage years"),
        (20, 40): (
            *(
                "young adult",
                "young adults",
                "young man",
                "young men",
                "young woman",
                "young women",
                "young lady",
                "young gentleman",
            ),
            *("young guy", "young male", "young female", "young person", "young adulthood", "twentysomething", "younger adult"),
            *("younger man", "younger woman"),
        ),
        (18, 26): ("college student", "university student", "college age"),
        (40, 60): ("middle aged", "middle age", "midlife", "middle aged adult"),
        (20, 60): ("adult", "adults", "grown man", "grown woman", "grown up", "adulthood", "grown person"),
        (60, OLDEST): (
            *(
                "elderly",
                "senior",
                "seniors",
                "senior citizen",
                "senior citizens",
                "pensioner",
                "retiree",
                "geriatric",
                "aged person",
            ),
            *(
                "older adult",
                "older adults",
                "older man",
                "older woman",
                "older person",
                "older lady",
                "older gentleman",
                "old age",
            ),
            *("older male", "older female", "advanced age", "old adult", "advanced in years", "aged man", "aged woman"),
        ),
        (70, 80): ("septuagenarian",),
        (80, 90): ("octogenarian",),
    }
)
"""Span of years -> its words. "young" and "older" alone are none: one says so of a child and of a woman of thirty."""

_OLD_OF = word_set("man woman men women lady gentleman person people guy male female fellow age folk folks")
_NOT_OLD = word_set("year years yr yrs how month months that")
_PARTS: Mapping[str, tuple[float, float]] = MappingProxyType({"early": (0, 4), "mid": (3, 7), "middle": (3, 7), "late": (6, 10)})
_DECADES = {f"{word}": float(start) for start, word in zip(range(20, 100, 10), (
    "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"), strict=True)}  # fmt: skip
_DURING = word_set("for since last past after within every")
_YEARS = word_set("year years yr yrs yo")
_ABOVE = frozenset({("over",), ("above",), ("more", "than"), ("older", "than"), ("at", "least"), ("beyond",), ("past",)})
_BELOW = frozenset({("under",), ("below",), ("less", "than"), ("younger", "than"), ("at", "most"), ("up", "to"), ("not", "yet")})
_JOINTS = word_set("to and or")
_ENDS = word_set(". , ; : ! ? ) ( ] } + but or and")


@dataclass(frozen=True)
class _Found:
    start: int
    end: int
    years: Years


def read_age(text: str, classes: Mapping[str, Years]) -> tuple[str | None, tuple[Match, ...]]:
    """The class of age that an answer claims, and what it was read from; a match's label is its span of years."""
    tokens = tokens_of(_prepared(text))
    found = _found(tokens)
    by_start = {tokens[one.start].start: one.years for one in found}
    matches = tuple(roles(tokens, [(one.start, one.end, _shown(one.years)) for one in found if not _of_another(tokens, one.start)]))
    for role in CLAIMING:
        spans = [by_start[match.start] for match in matches if match.role == role]
        if spans:
            # "A young adult, about 25": claims that agree narrow each other.
            low, high = max(one[0] for one in spans), min(one[1] for one in spans)
            return (class_of((low, high), classes) if low < high else _common(spans, classes)), matches
    return None, matches


def offered(names: Sequence[str]) -> dict[str, Years]:
    """The spans of the classes that a question offers.

    Raises:
        ConfigError: A name says no age.
    """
    made: dict[str, Years] = {}
    for name in names:
        tokens = tokens_of(_prepared(name))
        spans = [one.years for one in _found(tokens)]
        if not spans and clean(name).strip() in ("old", "young"):
            spans = [BANDS["elderly"] if "old" in name.casefold() else (0, 40)]
        if len(spans) != 1:
            raise ConfigError(
                f"an offered class of age must say years or a word like 'adult', got {name!r}; try one of {', '.join(BANDS)}"
            )
        made[name] = spans[0]
    return made


def class_of(years: Years, classes: Mapping[str, Years] = BANDS) -> str | None:
    """The class that holds at least two thirds of a span of years.

    >>> class_of((25, 35)), class_of((35, 45)), class_of((61, 62))
    ('young adult', None, 'elderly')
    """
    low, high = years
    share = {name: (min(high, end) - max(low, start)) / (high - low) for name, (start, end) in classes.items()}
    best = max(share, key=lambda name: share[name])
    return best if share[best] >= _SHARE - 1e-9 and list(share.values()).count(share[best]) == 1 else None


def _common(spans: Sequence[Years], classes: Mapping[str, Years]) -> str | None:
    named = {class_of(one, classes) for one in spans}
    return named.pop() if len(named) == 1 else None


def _prepared(text: str) -> str:
    """Ranges with their dash as "to", without decimals and shares, and "middle-aged" as its words."""
    flat = re.sub(r"\d+\.\d+|\d+\s*(?:%|percent)", " ", text)
    flat = re.sub(r"(?<=\d)\s*(?:-|\u2013|\u2014|~)\s*(?=\d)", " to ", flat)
    flat = re.sub(r"(?<=\d)[\u2019']s\b", "s", flat)
    return clean(flat)


def _found(tokens: Sequence[Token]) -> list[_Found]:
    made: list[_Found] = []
    at = 0
    while at < len(tokens):
        one = _decade(tokens, at) or _range(tokens, at) or _number(tokens, at) or _word(tokens, at)
        if one is not None:
            made.append(one)
        at = one.end if one is not None else at + 1
    return made


def _decade(tokens: Sequence[Token], at: int) -> _Found | None:
    """A decade: "mid thirties", "40s", "late teens", "early to mid 20s", "fifties or sixties" (two of them)."""
    parts: list[tuple[float, float]] = []
    here = at
    while here < len(tokens) and tokens[here].text in {*_PARTS, "to", "or"}:
        if tokens[here].text in _PARTS:
            parts.append(_PARTS[tokens[here].text])
        elif not parts:
            return None
        here += 1
    word = tokens[here].text if here < len(tokens) else ""
    start = _DECADES.get(word)
    if start is None and re.fullmatch(r"[1-9]0s", word):
        start = float(word[:-1])
    if word in ("teens", "teen") and parts:
        low, high = 13 + 0.7 * min(one[0] for one in parts), 13 + 0.7 * max(one[1] for one in parts)
        return _Found(at, here + 1, (low, high))
    if start is None:
        return None
    low = min((one[0] for one in parts), default=0.0)
    high = max((one[1] for one in parts), default=10.0)
    return _Found(at, here + 1, (start + low, start + high))


def _range(tokens: Sequence[Token], at: int) -> _Found | None:
    """A range: "25 to 35", "between forty and fifty years"."""
    first = number_at(tokens, at)
    if first is None or first[1] >= len(tokens) or tokens[first[1]].text not in _JOINTS:
        return None
    second = number_at(tokens, first[1] + 1)
    if second is None or second[0] <= first[0] or second[0] >= OLDEST:
        return None
    end = _years_end(tokens, second[1])
    if not _is_age(tokens, at, second[1], second[0]):
        return None
    return _Found(at, end, (float(first[0]), float(second[0])))


def _number(tokens: Sequence[Token], at: int) -> _Found | None:
    """One number: "25 years old", "aged 40", "over sixty", "60+", and a number that stands alone."""
    found = number_at(tokens, at)
    if found is None or found[0] >= OLDEST or not _is_age(tokens, at, found[1], found[0]):
        return None
    years, end = float(found[0]), _years_end(tokens, found[1])
    before = tuple(token.text for token in tokens[max(0, at - 2) : at])
    follows = tuple(token.text for token in tokens[end : end + 2])
    # The bound belongs to the find, so that its "than" is not taken for a comparison.
    above, below = ((one for one in bounds if before[len(before) - len(one) :] == one) for bounds in (_ABOVE, _BELOW))
    over, under = next(above, None), next(below, None)
    if over or follows[:1] in (("+",), ("plus",)) or follows in (("or", "older"), ("or", "above")):
        # Open upwards: says a class only where all of what lies above is one.
        wide = (years, OLDEST) if years >= BANDS["elderly"][0] else (years, 2 * OLDEST)
        return _Found(at - len(over or ()), end, wide)
    if under or follows in (("or", "younger"), ("or", "less")):
        return _Found(at - len(under or ()), end, (0.0, years))
    return _Found(at, end, (years, years + 1))


def _is_age(tokens: Sequence[Token], at: int, end: int, years: int) -> bool:
    """Whether a number is an age: it says so ("25 years old", "aged 25"), or stands where nothing else is counted."""
    before = [token.text for token in tokens[max(0, at - 3) : at]]
    follows = [token.text for token in tokens[end : end + 3]]
    if any(word in _DURING for word in before[-2:]):
        return False
    if follows[:1] and follows[0] in _YEARS:
        return follows[1:2] != ["of"] or follows[2:3] == ["age"] if follows[1:2] in (["of"], ["ago"]) else True
    if "age" in before or "aged" in before:
        return True
    return years >= _FEW_YEARS and (
        not follows or follows[0] in _ENDS or follows[0] in ("ish", "something", "plus", "to", "maybe", "i")
    )


def _years_end(tokens: Sequence[Token], end: int) -> int:
    """The token after "years old", "years of age"."""
    for phrase in (("years", "of", "age"), ("years", "old"), ("year", "old"), ("years",), ("year",), ("yo",), ("yrs",)):
        if tuple(token.text for token in tokens[end : end + len(phrase)]) == phrase:
            return end + len(phrase)
    return end


_TABLE = table_of({f"{low:g}|{high:g}": words for (low, high), words in SPANS.items()})
_LONGEST = max(map(len, _TABLE))


def _word(tokens: Sequence[Token], at: int) -> _Found | None:
    for size in range(min(_LONGEST, len(tokens) - at), 0, -1):
        label = _TABLE.get(tuple(token.text for token in tokens[at : at + size]))
        if label is not None:
            low, high = label.split("|")
            return _Found(at, at + size, (float(low), float(high)))
    if tokens[at].text == "old" and (at == 0 or tokens[at - 1].text not in _NOT_OLD):
        follower = tokens[at + 1].text if at + 1 < len(tokens) else "."
        if follower in _OLD_OF or follower in _ENDS:
            return _Found(at, at + 1, BANDS["elderly"])
    return None


def _of_another(tokens: Sequence[Token], at: int) -> bool:
    """Whether an age is of somebody else: "her teenage son", "a man talking to a child"."""
    before = [token.text for token in tokens[max(0, at - 4) : at]]
    if before[-1:] and before[-1] in ("his", "her", "their", "my") and before[-2:-1] != ["in"]:
        return True
    return any(word in ("to", "with", "about") for word in before[-2:]) and any(
        word in ("talking", "speaking", "talks", "speaks", "spoken", "talk", "speak") for word in before
    )


def _shown(years: Years) -> str:
    return f"{years[0]:g}-{years[1]:g}"
