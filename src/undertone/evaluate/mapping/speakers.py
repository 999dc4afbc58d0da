"""Reading how many people speak, and of what gender several speakers are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from undertone.evaluate.mapping.keywords import (
    Match,
    Token,
    bare,
    clean,
    decide,
    find_keywords,
    roles,
    table_of,
    tokens_of,
    word_set,
)
from undertone.evaluate.mapping.numbers import number_at
from undertone.evaluate.mapping.words import GENDER_ALSO, KIN
from undertone.lexicon import GENDER_WORDS

MOST = 20
"""More speakers than this are no answer to a question about a clip."""

BOUND = "bound"
"""The label of a match like "at least three", which names no number."""

_PERSONS = word_set(
    """speaker speakers people person persons voice voices individual individuals participant participants talker talkers
    party parties adult adults human humans interlocutor interlocutors"""
)
_TELLING = word_set("different distinct separate main other single individual clear unique human adult only more or less")
_BEFORE_BARE = word_set(
    """are is were was hear heard detect count counted of only exactly about around be speakers people voices number total
    : = answer probably likely roughly approximately see identify distinguish"""
)
_BOUNDS = (
    *(("more", "than"), ("less", "than"), ("fewer", "than"), ("at", "least"), ("at", "most"), ("up", "to"), ("not", "just")),
    *(("not", "only"), ("minimum", "of"), ("maximum", "of"), ("over",), ("upwards", "of")),
)
_ENDS = word_set(". , ; : ! ? ) ( } ] in here there and throughout overall total speaking talking or")
_ALONE = table_of({"1": ("monologue", "speaks alone", "is alone", "talks alone", "alone", "by himself", "by herself", "by themselves",
                         "same person", "same speaker", "same voice", "no one else", "nobody else", "solo speaker", "soliloquy")})  # fmt: skip
_PAIR = table_of({"2": ("dialogue", "dialog", "duologue", "both speakers", "both people", "both of them", "both voices", "both persons",
                        "both participants", "couple of speakers", "couple of people", "couple of voices", "pair of speakers",
                        "pair of people", "different people", "different speakers", "different voices", "two way conversation")})  # fmt: skip
_ORDINALS = table_of({"2": ("second speaker", "second person", "second voice", "second one", "speaker 2", "speaker two", "speaker b",
                            "the other speaker", "the other is", "the other person", "another speaker", "another person"),
                      "3": ("third speaker", "third person", "third voice", "speaker 3", "speaker three", "speaker c"),
                      "4": ("fourth speaker", "fourth person", "fourth voice", "speaker 4", "speaker four", "speaker d")})  # fmt: skip

_LINKING = word_set("and , a an the one his her their another plus speaker voice two three four 2 3 4 young old")

_NOUNS = {label: tuple(word for word in words if word not in ("she", "her", "hers", "herself", "he", "him", "his", "himself"))
          for label, words in GENDER_WORDS.items()}  # fmt: skip
_GENDERED = table_of({label: (*_NOUNS[label], *KIN[label]) for label in _NOUNS})
_GENDERS = table_of({label: (*_NOUNS[label], *GENDER_ALSO[label]) for label in _NOUNS})


def read_speakers(text: str) -> tuple[str | None, tuple[Match, ...]]:
    """The number of speakers that an answer claims, as digits.

    A number of people said outright comes first ("two people: a man and a woman"), then the people that it lists ("a man and two women" are
    three), then what implies a number (a monologue, a second speaker).
    """
    core = bare(text)
    if re.fullmatch(r"\d{1,2}", core):
        core_text = f"{core} speakers"
        text = core_text if 0 < int(core) <= MOST else ""
    flat = clean(re.sub(r"(?<=\d)\s*[-\u2013]\s*(?=\d)", " or ", text))
    tokens = tokens_of(flat)
    spans, ordinals = _counted(tokens), find_keywords(tokens, _ORDINALS, inflected=False)
    if any(one.role in ("main", "claimed") for one in ordinals):
        # "One speaker is male, the other female": "one" counts off here and says no number.
        spans = [one for one in spans if one[2] != "1"]
    said = roles(tokens, spans)
    layers = [
        said,
        find_keywords(tokens, _ALONE, inflected=False),
        _summed(tokens) if not said else [],
        find_keywords(tokens, _PAIR, inflected=False),
        [max(ordinals, key=lambda one: one.label)] if ordinals else [],
    ]
    kept: list[Match] = []
    for found in layers:
        kept += found
        if any(one.role in ("main", "claimed", "hedged", "context") for one in found):
            label = decide(found)
            return (None if label == BOUND else label), tuple(kept)
    return None, tuple(kept)


def read_genders(text: str) -> tuple[str | None, tuple[Match, ...]]:
    """The genders of several speakers: "female", "male", "both" (in no order), "female, male" or "male, female" (the first speaker's first)."""
    # "Speaker 1 is male, while speaker 2 is female": the second half claims as much as the first.
    flat = re.sub(r"\b(?:while|whereas)\b", ",", clean(text))
    tokens = tokens_of(flat)
    found = find_keywords(tokens, _GENDERS, inflected=False, persons=True)
    claimed = [one for one in found if one.role in ("main", "claimed")] or [
        one for one in found if one.role in ("hedged", "context")
    ]
    labels = [one.label for one in claimed]
    if not labels:
        return None, tuple(found)
    if len(set(labels)) == 1:
        return labels[0], tuple(found)
    ordered = _in_order(flat, claimed)
    return ordered or "both", tuple(found)


_FIRST = re.compile(r"\bfirst (?:speaker|person|one|voice|is|being)\b|\b(?:speaker|person|voice) (?:1|one|a)\b")
_SECOND = re.compile(r"\bsecond (?:speaker|person|one|voice|is|being)\b|\b(?:speaker|person|voice) (?:2|two|b)\b|\bthe second\b")


def _in_order(flat: str, claimed: Sequence[Match]) -> str | None:
    """The genders of a first and a second speaker, where each has the keyword that follows it."""
    first, second = _FIRST.search(flat), _SECOND.search(flat)
    if first is None or second is None:
        return None
    named = []
    for at in (first.end(), second.end()):
        after = [one for one in claimed if one.start >= at]
        if not after:
            return None
        named.append(after[0].label)
    return ", ".join(named) if len(set(named)) == 2 else None


def _counted(tokens: Sequence[Token]) -> list[tuple[int, int, str]]:
    """Numbers of people: "two different voices", "there are three", "at least four speakers" (a bound)."""
    made: list[tuple[int, int, str]] = []
    at = 0
    while at < len(tokens):
        number = _amount(tokens, at)
        if number is None or not 0 < number[0] <= MOST:
            at += 1
            continue
        value, end = number
        noun = end
        while noun < len(tokens) and tokens[noun].text in _TELLING and noun - end < 3:
            noun += 1
        of_persons = noun < len(tokens) and tokens[noun].text in _PERSONS
        listed = end + 1 < len(tokens) and tokens[end].text in ("or", "to") and number_at(tokens, end + 1) is not None
        if of_persons or (tokens[at].text not in ("single", "sole") and (listed or _bare_number(tokens, at, end))):
            after = tuple(token.text for token in tokens[end : end + 2])
            start = at
            for phrase in _BOUNDS:
                size = len(phrase)
                if tuple(token.text for token in tokens[max(0, at - size) : at]) == phrase:
                    start = at - size
            bounded = start < at or after == ("or", "more") or after[:1] == ("+",)
            # The bound's own words ("not just") are no negation of it.
            made.append((start, noun + 1 if of_persons else end, BOUND if bounded else str(value)))
        at = end
    return made


def _amount(tokens: Sequence[Token], at: int) -> tuple[int, int] | None:
    if tokens[at].text in ("single", "sole"):
        return 1, at + 1
    return number_at(tokens, at)


def _bare_number(tokens: Sequence[Token], at: int, end: int) -> bool:
    """Whether a number without a noun counts people: nothing else is counted, and it stands at the start or after what leads to it."""
    if end < len(tokens) and tokens[end].text not in _ENDS:
        return False
    return (
        at == 0
        or tokens[at - 1].text in _BEFORE_BARE
        or (at > 1 and tokens[at - 1].text in ("or", "to") and _is_number(tokens, at - 2))
    )


def _is_number(tokens: Sequence[Token], at: int) -> bool:
    return number_at(tokens, at) is not None


def _summed(tokens: Sequence[Token]) -> list[Match]:
    """People that are listed: "a man and two women" are three. The first list alone counts, and only with an "and" in it."""
    found = [one for one in find_keywords(tokens, _GENDERED, inflected=False) if one.role in ("main", "claimed", "hedged")]
    index = {token.start: at for at, token in enumerate(tokens)}
    total, last, joined = 0, None, False
    for one in found:
        at = index[one.start]
        between = [] if last is None else [token.text for token in tokens[last + 1 : at]]
        if last is not None and (not {"and", ","} & {*between} or not all(word in _LINKING for word in between)):
            break
        joined = joined or "and" in between
        total += _number_before(tokens, at)
        last = at + len(one.text.split()) - 1
    return [Match(str(total), "sum", found[0].start, "claimed")] if total > 1 and (joined or len(found) == 1) else []


def _number_before(tokens: Sequence[Token], at: int) -> int:
    for back in (1, 2):
        if at - back >= 0:
            number = number_at(tokens, at - back)
            if number is not None:
                return number[0]
    plural = tokens[at].text in ("women", "men", "ladies", "gentlemen", "girls", "boys", "females", "males", "guys")
    return 2 if plural and at > 0 and tokens[at - 1].text == "both" else 1
