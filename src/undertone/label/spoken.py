"""English text as it is said: words of a pronunciation dictionary for each word as it is written, and sounds for unknown ones.

For forced alignment. The phones are those of CMUdict without stress. There is no learned letter-to-sound model here (those that exist
bring large downloads or a GPL engine); a table of some sixty letter groups guesses, and an aligner forgives a wrong vowel.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple


class Written(NamedTuple):
    """One word as written, with the punctuation around it, and as said: dictionary words, or made-up ones to `pronounce`."""

    text: str
    said: tuple[str, ...]


_SYMBOLS = {"%": "percent", "$": "dollars", "£": "pounds", "€": "euros", "&": "and", "@": "at", "+": "plus", "=": "equals"}
_NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
_ONES, _TENS = _NUMBERS.split()[:20], ["", "", *_NUMBERS.split()[20:]]

# Letters and their phones. Greedy, longest first. Silent "e", doubled consonants, "c" and "g" before "e", "y" at the edges: `_sounds`.
_TABLE = """
tion SH AH N, sion ZH AH N, eigh EY, augh AO, ough AO, igh AY, tch CH, sch SH
ch CH, ck K, gh G, kn N, ng NG, ph F, qu K W, sh SH, th TH, wh W, wr R
ai EY, ay EY, au AO, aw AO, ea IY, ee IY, ei IY, ey IY, ie IY, oa OW, oi OY, oy OY, oo UW, ou AW, ow OW, ue UW, ui UW
ar AA R, er ER, ir ER, or AO R, ur ER
a AE, b B, c K, d D, e EH, f F, g G, h HH, i IH, j JH, k K, l L, m M, n N, o AA, p P, q K, r R, s S, t T, u AH, v V, w W, x K S, y IH, z Z
"""
_SOUNDS = {row.split()[0]: row.split()[1:] for row in re.split(r"[,\n]", _TABLE.strip())}
_LONG = {"a": "EY", "e": "IY", "i": "AY", "o": "OW", "u": "UW", "y": "AY"}
_LONGEST = max(map(len, _SOUNDS))
_HISSES = {"S", "Z", "SH", "ZH", "CH", "JH"}
_VOICELESS = {"P", "T", "K", "F", "TH"}


def written(text: str, known: Callable[[str], bool]) -> tuple[Written, ...]:
    """A text word by word; what has no sound ("-", "...") stays with its neighbour, so that the words joined by spaces are the text.

    Args:
        text: English as written.
        known: Whether the dictionary has a word.

    >>> [(one.text, " ".join(one.said)) for one in written("— In 1963, John F. well-knew", {"in", "john", "f.", "well"}.__contains__)]
    [('— In', 'in'), ('1963,', 'nineteen sixty three'), ('John', 'john'), ('F.', 'f.'), ('well-knew', 'well knew')]
    """
    made: list[Written] = []
    before = ""
    for token in text.split():
        said = tuple(_said(token, known))
        if said:
            made.append(Written(before + token, said))
            before = ""
        elif made:
            made[-1] = Written(f"{made[-1].text} {token}", made[-1].said)
        else:
            before += f"{token} "
    return tuple(made)


def _said(token: str, known: Callable[[str], bool]) -> list[str]:
    plain = unicodedata.normalize("NFKD", token.replace("’", "'"))
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    plain = re.sub(r"([$£€])(\d+(?:[,.]\d+)*)", r"\2\1", plain)  # the sign is said after the number
    said: list[str] = []
    for part in re.findall(r"\d+(?:,\d+)*(?:\.\d+)?|(?:[A-Za-z]\.){2,}|[A-Za-z]+(?:'[A-Za-z]+)*['.]?|'[A-Za-z]+|[%$£€&@+=]", plain):
        if part in _SYMBOLS:
            said.append(_SYMBOLS[part])
        elif part[0].isdigit():
            said += _number(part.replace(",", ""), year="," not in part)
        else:
            said += _word(part, known)
    return said


def _word(part: str, known: Callable[[str], bool]) -> list[str]:
    lower = part.lower()
    bare = lower.strip("'.")
    for form in (bare, lower) if len(bare) > 1 else (lower, bare):
        if known(form):
            return [form]
    spelled = "." in bare or (part.isupper() and len(bare) > 1) or not re.search("[aeiouy]", bare)
    return [f"{letter}." for letter in bare if letter.isalpha()] if spelled else [bare]


def _number(digits: str, *, year: bool = False) -> list[str]:
    """Whole numbers below a million in words, 1100 to 1999 as a year where it may be one, anything else digit by digit."""
    if "." in digits or len(digits) > 6 or (digits[0] == "0" and len(digits) > 1):
        return ["point" if one == "." else _ONES[int(one)] for one in digits]
    number = int(digits)
    if year and 1100 <= number <= 1999 and number % 100:
        low = _number(str(number % 100)) if number % 100 >= 10 else ["oh", _ONES[number % 100]]
        return [*_number(str(number // 100)), *low]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = _number(str(number % size)) if number % size else []
            return [*_number(str(number // size)), name, *rest]
    if number < 20:
        return [_ONES[number]]
    return [_TENS[number // 10], *([_ONES[number % 10]] if number % 10 else [])]


def pronounce(word: str, lookup: Callable[[str], str | None]) -> str:
    """Phones for a word that the dictionary lacks, separated by spaces; a possessive takes those of its noun.

    Args:
        word: Lower-case letters and apostrophes, at least one letter.
        lookup: The dictionary: phones of a word, or None.

    >>> pronounce("zork's", lambda word: None), pronounce("phace", lambda word: None)
    ('Z AO R K S', 'F EY S')
    """
    stem, mark, tail = word.rpartition("'")
    if mark and stem and tail == "s":
        phones = (lookup(stem) or pronounce(stem, lookup)).split()
        last = phones[-1]
        return " ".join([*phones, *(["AH", "Z"] if last in _HISSES else ["S"] if last in _VOICELESS else ["Z"])])
    return " ".join(_sounds(word.replace("'", "")))


def _sounds(word: str) -> list[str]:
    word = re.sub(r"([^aeiou])\1", r"\1", word)
    word = re.sub(r"c(?=[eiy])", "s", re.sub(r"g(?=e$)", "j", word))
    if open_e := re.fullmatch(r"(.*[^aeiouy]|)([aeiouy])([^aeiouy])e", word):  # as in "face"
        return [*_sounds(open_e[1]), _LONG[open_e[2]], *_sounds(open_e[3])]
    word = re.sub(r"(?<=[^aeiouy])e$", "", word) if re.search("[aeiouy].*e$", word) else word
    phones: list[str] = []
    at = 0
    while at < len(word):
        if word[at] == "y" and at in (0, len(word) - 1) and len(word) > 1 and word[at - 1 : at + 1] not in _SOUNDS:
            phones.append("Y" if at == 0 else "IY")
            at += 1
            continue
        group = next(word[at : at + size] for size in range(_LONGEST, 0, -1) if word[at : at + size] in _SOUNDS)
        phones += _SOUNDS[group]
        at += len(group)
    return phones
