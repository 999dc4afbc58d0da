"""Which class is right and which an answer claims, for rows that come without: read from reference and answer by keywords."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from undertone.errors import ConfigError
from undertone.evaluate import mapping
from undertone.evaluate.validate.rows import Judged

CHOICE = "choice"
"""The attribute of questions that offer lettered options; their class is the letter."""

_BY_NAME: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"emotion"), "emotion"),
    (re.compile(r"gr_dialogue|gender_dialogue"), "genders"),
    (re.compile(r"gender|gr_sentence"), "gender"),
)
_OFFERED = re.compile(r"\(([^()]+(?:,[^()]+){2,})\)\s*\W*$")
_LETTERED = re.compile(r"\(([A-H])\)\s*(.+?)\s*(?=\([A-H]\)|$)", re.DOTALL)
_NAMED = re.compile(r"\(([A-H])\)|\b([A-H])[).:]|^([A-H])$|\b(?:option|choice|answer is) ([A-H])\b")


@dataclass(frozen=True)
class Labelled:
    """Rows with their classes, and of how many references no class could be read, by dataset and attribute."""

    rows: Sequence[Judged]
    unread: Counter[tuple[str, str]]


def labelled(rows: Iterable[Judged], attribute: str | None = None) -> Labelled:
    """Fill in `attribute`, `label` and `mapped` where they are missing and can be read.

    Args:
        rows: Those with a label keep it; an answer without a class is read once more, which changes nothing where it was read before.
        attribute: What the references are classes of. None takes it from the dataset's name ("emotion", "gender"), or from options with
            letters in the question; rows of other sets stay without.

    Raises:
        ConfigError: There are no keywords for the attribute.
    """
    if attribute is not None and attribute not in (*mapping.attributes(), CHOICE):
        raise ConfigError(f"--attribute: got {attribute!r}, expected one of {', '.join((*mapping.attributes(), CHOICE))}")
    unread: Counter[tuple[str, str]] = Counter()
    made = []
    for row in rows:
        about = row.attribute or attribute or attribute_of(row)
        if about is None or row.correct is not None:
            made.append(row)
            continue
        options = choices(row.question) if about == CHOICE else offered(row.question)
        label = row.label if row.label is not None else read(row.reference, about, options)
        if label is None:
            unread[row.dataset, about] += 1
            made.append(row)
            continue
        mapped = row.mapped if row.mapped is not None else read(row.answer, about, options)
        made.append(row.model_copy(update={"attribute": about, "label": label, "mapped": mapped}))
    return Labelled(tuple(made), unread)


def attribute_of(row: Judged) -> str | None:
    """What the references of a row's set are classes of, as far as name and question tell."""
    found = next((attribute for pattern, attribute in _BY_NAME if pattern.search(row.dataset.lower())), None)
    if found is None and choices(row.question) and _NAMED.search(row.reference.strip()):
        return CHOICE
    return found


@functools.lru_cache(maxsize=4096)
def offered(question: str) -> tuple[str, ...]:
    """The classes that a question lists in brackets at its end.

    >>> offered("What is the emotion (anger, sad, neutral)?")
    ('anger', 'sad', 'neutral')
    """
    found = _OFFERED.search(question)
    return tuple(dict.fromkeys(one.strip() for one in found[1].split(","))) if found else ()


@functools.lru_cache(maxsize=4096)
def choices(question: str) -> tuple[str, ...]:
    """The options that a question offers as (A), (B), ...; letter and text alternate; empty where it does not offer at least two in order.

    >>> choices("Who speaks? Choices: (A) Man (B) Woman")
    ('A', 'Man', 'B', 'Woman')
    """
    found = [(letter, " ".join(text.split()).rstrip(".")) for letter, text in _LETTERED.findall(question)]
    letters = "".join(letter for letter, _ in found)
    return tuple(one for both in found for one in both) if len(found) > 1 and letters == "ABCDEFGH"[: len(found)] else ()


@functools.lru_cache(maxsize=65536)
def read(text: str, attribute: str, options: tuple[str, ...]) -> str | None:
    """The class that a text claims; None for none, or for several."""
    if attribute == CHOICE:
        return _choice(text, dict(zip(options[::2], options[1::2], strict=True)))
    if options and attribute == "emotion":
        try:
            return mapping.to_label(text, attribute, among=options).label
        except ConfigError:
            pass  # a bracket that lists something else than classes which can be told apart
    return mapping.to_label(text, attribute).label if attribute in mapping.attributes() else None


def _choice(text: str, options: dict[str, str]) -> str | None:
    """The letter that is named, or the one option whose words stand in the text."""
    named = {"".join(found) for found in _NAMED.findall(text.strip())} & (options.keys() or set("ABCDEFGH"))
    if named:
        return named.pop() if len(named) == 1 else None
    flat = _plain(text)
    held = [letter for letter, words in options.items() if f" {_plain(words)} " in f" {flat} "]
    # The longer option holds the shorter one's words: "the red car" is not "car".
    longest = [one for one in held if not any(one != other and _plain(options[one]) in _plain(options[other]) for other in held)]
    return longest[0] if len(longest) == 1 else None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
