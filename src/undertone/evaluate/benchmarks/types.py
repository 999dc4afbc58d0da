"""The seven types of question of 2509.16589, by the names that a set may give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from undertone.errors import DataError
from undertone.evaluate import mapping
from undertone.records import Kind

SEVEN: tuple[Kind, ...] = ("C", "DE", "DG", "DS", "CE", "CG", "CS")

_ABOUT = {
    "E": ("emotion", "emotional", "emotions"),
    "G": ("gender",),
    "S": ("speaker", "speakers", "speaker count", "number of speakers"),
}
_HOW = {"D": ("direct",), "C": ("contextual", "context", "content")}

WORDS: Mapping[str, Kind] = MappingProxyType(
    {kind.lower(): kind for kind in SEVEN}
    | {"content": "C", "content reasoning": "C", "general": "C"}
    | {
        f"{how} {about}": cast(Kind, first + second)
        for first, hows in _HOW.items()
        for how in hows
        for second, abouts in _ABOUT.items()
        for about in abouts
    }
)
"""Type as a set may write it, in small letters and single spaces -> ours. The paper's abbreviations are known, a set's spelling is not."""

ATTRIBUTES: Mapping[str, str] = MappingProxyType({"DE": "emotion", "DG": "gender", "DS": "speakers"})


def kind_of(word: str, given: Mapping[str, Kind], where: str) -> Kind:
    """Our kind for a set's name of a type.

    >>> kind_of("Contextual_Emotion", {}, "row 1")
    'CE'

    Raises:
        DataError: Neither the settings nor the table know it.
    """
    flat = re.sub(r"[^a-z]+", " ", word.lower()).strip()
    found = given.get(word) or WORDS.get(flat)
    if found is None:
        raise DataError(
            f"{where}: the question's type is {word!r}, expected one of {', '.join(SEVEN)} or their names. Map it in the benchmark's settings: "
            f"types: {{{word!r}: CE}}"
        )
    return found


def label_of(kind: Kind, answer: str) -> tuple[str | None, str | None]:
    """Attribute and class of a direct question, read from its reference; None twice where there is none.

    >>> label_of("DE", "She sounds furious."), label_of("CE", "Because she lost.")
    (('emotion', 'angry'), (None, None))
    """
    attribute = ATTRIBUTES.get(kind)
    label = mapping.to_label(answer, attribute).label if attribute else None
    return (attribute, label) if label is not None else (None, None)
