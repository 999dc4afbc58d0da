"""Read the class that a free-text answer claims: "not angry but sad" claims sad.

Keywords come from `undertone.lexicon`; words are matched whole (a "woman" is no "man"), emotion words also in their usual endings
("angrily", "sadder"). Each keyword found has a role:

    main      singled out: "mostly sad with some anger", "the answer is sad"
    claimed   said plainly
    hedged    weakened: "maybe angry", "a hint of anger"
    context   said of something else: in a subordinate clause ("because she was happy before", "when she mentions the angry man"), inside
              double quotes, or in a question that the answer repeats
    rejected  under a negation or a comparison: "not angry", "no sign of anger", "rather than angry", "more sad than angry"

The answer claims the label that stands alone in the strongest role present (in the order above, rejected left out). Two labels in that role are
a list, and a list is no answer: the text is unmapped, also where the first one is right, so that naming several classes cannot pay.
A rejected class implies nothing about the others ("not a man" is unmapped). For gender, pronouns count only where no noun is claimed.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from undertone.errors import ConfigError
from undertone.lexicon import LABEL_WORDS, MEANT_WORDS, STOP_WORDS
from undertone.records import content_hash

Role = Literal["main", "claimed", "hedged", "context", "rejected"]

_PRONOUNS = {"she": "female", "her": "female", "hers": "female", "herself": "female"}
_PRONOUNS |= {"he": "male", "him": "male", "his": "male", "himself": "male"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BREAKS = _words(". , ; : ! ? ( ) but however yet instead just")
_NEGATIONS = _words(
    """not no never nothing neither nor without non hardly barely scarcely lack lacks lacking unlike than
    isnt wasnt doesnt dont didnt arent"""
)
_NEGATION_PAIRS = frozenset({("far", "from"), ("instead", "of"), ("opposed", "to"), ("free", "of"), ("fails", "to")})
_NOT_NEGATING = _words("sure certain clear only merely simply doubt question help")
_HEDGES = _words(
    "maybe perhaps possibly might may could hint touch trace tinge slightly somewhat bit little some partly occasionally if"
)
_MAIN = _words("mostly mainly primarily predominantly chiefly largely overall dominant most answer")
_SUBORDINATE = _words(
    "because since although though despite while whereas when after before until whenever about who says mention mentions"
)
_REACH = 4
"""How many words before a keyword a cue may stand."""

_NEUTRAL = re.compile(
    r"\b(?:(?:no|without|lack of|lacks|lacking|shows little|(?:with|has) little|not (?:show|express|convey|display|carry|have))"
    r"(?: \w+){0,2} emotions?|not(?: \w+){0,2} emotional)\b"
)
"""Absence of emotion, which is a claim of "neutral" though it looks like a negation."""


@dataclass(frozen=True)
class Match:
    """One keyword in an answer: the label it stands for, the text as matched, its first character, and its role."""

    label: str
    text: str
    start: int
    role: Role


@dataclass(frozen=True)
class Mapped:
    """The class an answer claims, or None; `how` says by what means, `matches` holds every keyword found, in order."""

    label: str | None
    how: Literal["keyword", "unmapped"]
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    shadow: bool
    """Inside double quotes or in a sentence that ends in a question mark."""


def attributes() -> tuple[str, ...]:
    """The attributes that `to_label` can read."""
    return tuple(LABEL_WORDS)


def to_label(text: str, attribute: str) -> Mapped:
    """The class of `attribute` that an answer claims.

    Args:
        text: The answer, any text.
        attribute: One of `attributes()`: "emotion", "gender", ...

    Raises:
        ConfigError: There is no keyword table for the attribute.
    """
    if attribute not in attributes():
        raise ConfigError(f"answers cannot be mapped to classes of {attribute!r}; there are keywords for {', '.join(attributes())}")
    clean = _clean(text)
    tokens = _tokens(clean)
    found = _keywords(tokens, _table(attribute), inflected=attribute == "emotion")
    if attribute == "emotion":
        hits = [hit for hit in _NEUTRAL.finditer(clean) if not any(hit.start() <= match.start < hit.end() for match in found)]
        found = sorted(
            [*found, *(Match("neutral", hit.group(), hit.start(), "claimed") for hit in hits)], key=lambda match: match.start
        )
    if attribute == "gender" and all(match.role == "rejected" for match in found):
        found += _keywords(tokens, {(word,): label for word, label in _PRONOUNS.items()}, inflected=False)
    label = _decide(found)
    return Mapped(label, "keyword" if label else "unmapped", tuple(found))


def _decide(matches: Sequence[Match]) -> str | None:
    for role in ("main", "claimed", "hedged", "context"):
        labels = {match.label for match in matches if match.role == role}
        if labels:
            return labels.pop() if len(labels) == 1 else None
    return None


def _clean(text: str) -> str:
    """Lower case, plain quotes, "n't" as " not", dashes as commas, hyphens and markdown as spaces, "couldn't be happier" as it is meant."""
    flat = unicodedata.normalize("NFKC", text).casefold()
    flat = re.sub(r"[\u2018\u2019`]", "'", flat)
    flat = re.sub(r"[\u201c\u201d]", '"', flat)
    flat = re.sub(r"\bcan't\b|\bcannot\b", "can not", flat)
    flat = re.sub(r"n't\b", " not", flat)
    flat = re.sub(r"'s\b", "", flat)
    flat = re.sub(r"\bcould not be (?=more\b|\w+er\b)", "is ", flat)
    flat = re.sub(r" [-\u2013] |\u2014", ", ", flat)
    flat = re.sub(r"[-/*_\u2013]", " ", flat)
    return re.sub(r"\s+", " ", flat)


def _tokens(clean: str) -> list[_Token]:
    tokens: list[_Token] = []
    for sentence in re.finditer(r"[^.!?]+[.!?]*", clean):
        asked, quoted = sentence.group().endswith("?"), False
        for piece in re.finditer(r"[\w']+|[^\w\s]", sentence.group()):
            if piece.group() == '"':
                quoted = not quoted
            else:
                tokens.append(_Token(piece.group().strip("'"), sentence.start() + piece.start(), quoted or asked))
    return [token for token in tokens if token.text]


@functools.cache
def _table(attribute: str) -> Mapping[tuple[str, ...], str]:
    """Keyword (as a tuple of words) to label."""
    table: dict[tuple[str, ...], str] = {}
    for label, phrases in LABEL_WORDS[attribute].items():
        for phrase in phrases:
            table.setdefault(tuple(re.findall(r"[\w']+", _clean(phrase))), label)
    if attribute == "gender":
        table = {phrase: label for phrase, label in table.items() if phrase[0] not in _PRONOUNS}
    return table


def _keywords(tokens: Sequence[_Token], table: Mapping[tuple[str, ...], str], *, inflected: bool) -> list[Match]:
    """All keywords, longest phrase first where several begin at one word."""
    longest = max(map(len, table), default=0)
    spans: list[tuple[int, int, str]] = []
    at = 0
    while at < len(tokens):
        for size in range(min(longest, len(tokens) - at), 0, -1):
            label = _lookup(tuple(token.text for token in tokens[at : at + size]), table, inflected=inflected)
            if label is not None and not _discourse(tokens, at):
                spans.append((at, at + size, label))
                at += size
                break
        else:
            at += 1
    inside = {index for start, end, _ in spans for index in range(start, end)}
    return [
        Match(label, " ".join(token.text for token in tokens[start:end]), tokens[start].start, _role(tokens, start, inside))
        for start, end, label in spans
    ]


def _lookup(words: tuple[str, ...], table: Mapping[tuple[str, ...], str], *, inflected: bool) -> str | None:
    if words in table or len(words) > 1:
        return table.get(words)
    forms = _stems(words[0]) if inflected else [words[0].removesuffix("s")]
    return next((table[(form,)] for form in forms if (form,) in table), None)


def _stems(word: str) -> list[str]:
    """What an inflected emotion word may come from: angrily -> angry, sadder -> sad, calmness -> calm."""
    if word == "surprisingly":  # comments on a fact, names no surprise: "sounds surprisingly happy"
        return []
    forms = []
    for ending in ("ly", "ness", "er", "est", "s"):
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            forms += [stem, stem[:-1] + "y" if stem.endswith("i") else stem, stem[:-1] if stem[-1:] == stem[-2:-1] else stem]
    return [form for form in forms if len(form) > 2]


def _discourse(tokens: Sequence[_Token], at: int) -> bool:
    """Whether the word is a comment on its sentence: "Sadly, the recording is short"."""
    opens = at == 0 or tokens[at - 1].text in ".!?"
    return opens and tokens[at].text.endswith("ly") and at + 1 < len(tokens) and tokens[at + 1].text == ","


def _role(tokens: Sequence[_Token], start: int, keywords: set[int]) -> Role:
    """The role of the keyword that begins at token `start`, from the cues before it in its clause."""
    cues = _before(tokens, start, keywords)
    near = cues[:_REACH]
    for index, word in enumerate(near):
        follower = near[index - 1] if index else ""
        if (word in _NEGATIONS and follower not in _NOT_NEGATING) or (word, follower) in _NEGATION_PAIRS:
            return "rejected"
    if tokens[start].shadow or any(word in _SUBORDINATE for word in cues):
        return "context"
    if any(word in _HEDGES for word in near):
        return "hedged"
    return "main" if any(word in _MAIN for word in near) else "claimed"


def _before(tokens: Sequence[_Token], start: int, keywords: set[int]) -> list[str]:
    """The words before a keyword, nearest first, back to the start of its clause; coordinated keywords and their "or" are passed over.

    "and" ends the clause unless it joins two keywords: in "not angry and sad" the negation reaches both, in "is not well and sounds sad"
    it does not reach "sad".
    """
    words: list[str] = []
    at = start - 1
    while at >= 0:
        word = tokens[at].text
        passed = (word == "instead" and words[:1] == ["of"]) or (word == "," and _in_list(tokens, at, keywords))
        if word in _BREAKS and not passed:
            break
        if word == "and" and not (at - 1 in keywords and at + 1 in keywords):
            break
        if at not in keywords and word not in ("and", "or", ","):
            words.append(word)
        at -= 1
    return words


def _in_list(tokens: Sequence[_Token], comma: int, keywords: set[int]) -> bool:
    """Whether a comma stands inside a list that ends in "or": "not anger, fear or sadness"; in "not angry, sad" it ends the clause."""
    if comma - 1 not in keywords:
        return False
    after = comma + 1
    while after < len(tokens) and (after in keywords or tokens[after].text == ","):
        after += 1
    return after < len(tokens) and tokens[after].text == "or"


def keyword_digest() -> str:
    """A hash of all word tables that answers are read and scored with: verdicts of two runs compare only where it is equal."""
    return content_hash(
        *(f"{name}|{label}|{word}" for name in attributes() for label, words in LABEL_WORDS[name].items() for word in words),
        *(f"stop|{word}" for word in sorted(STOP_WORDS)),
        *(f"meant|{word}" for word in sorted(MEANT_WORDS)),
    )
