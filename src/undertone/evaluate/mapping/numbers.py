"""Numbers as answers write them: digits and English words."""

from __future__ import annotations

from collections.abc import Sequence

from undertone.evaluate.mapping.keywords import Token

_UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen""".split()  # noqa: SIM905 - a list literal of this would be unreadable
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * value for value, word in enumerate(_TENS, start=2)}


def number_at(tokens: Sequence[Token], at: int) -> tuple[int, int] | None:
    """The whole number that begins at a token, and the token after it: "35", "thirty five"; None where there is none."""
    word = tokens[at].text if at < len(tokens) else ""
    if word.isascii() and word.isdecimal() and len(word) <= 3:
        return int(word), at + 1
    if word not in _VALUES:
        return None
    value = _VALUES[word]
    if word in _TENS and at + 1 < len(tokens) and 1 <= _VALUES.get(tokens[at + 1].text, 0) <= 9:
        return value + _VALUES[tokens[at + 1].text], at + 2
    return value, at + 1
