"""The class whose words are nearest to an answer that names none, or none where that is not clear.

Asked only where no keyword was found: an answer that lists classes, or that only says what it is not, has been read and claims nothing, which
no similarity may undo. Word by word (`Embedder.unit`), the word found gets a role like any keyword, so "not agressive" claims nothing;
of a whole text nobody knows what a negation reaches, so a text with one stays unmapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from undertone.errors import ConfigError
from undertone.evaluate.mapping.embedders import Embedder, Vectors
from undertone.evaluate.mapping.keywords import Match, Token, decide, negated, roles
from undertone.lexicon import STOP_WORDS

SENTENCE = "The speaker sounds {word}."
"""How a class's word is put for an embedder of whole texts."""

_LETTERS = 5
"""Shorter words are too alike to tell apart by their letters (said, sad; made, mad)."""


@dataclass(frozen=True)
class Near:
    """How near the text, or one word of it, is to a class: the cosine to the nearest of its words."""

    label: str
    similarity: float
    text: str


@dataclass(frozen=True)
class Found:
    """What similarity says: a class or the reason for none, the words taken for keywords, the two nearest classes."""

    label: str | None
    reason: Literal["below_threshold", "no_margin", "negated", "rejected", "several"] | None
    matches: tuple[Match, ...] = ()
    nearest: tuple[Near, ...] = ()


@dataclass
class Nearest:
    """The fallback by similarity.

    Attributes:
        embedder: Makes the vectors.
        threshold: Least cosine at which a class is claimed. It depends on the embedder, so there is no default: measure it on the
            development part of the labelled answers (`mapping.cases`).
        margin: By how much the nearest class must be nearer than the next.
    """

    embedder: Embedder
    threshold: float
    margin: float = 0.05
    _known: dict[tuple[str, ...], Vectors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1 or not 0 <= self.margin <= 2:
            raise ConfigError(
                f"a threshold is a cosine in -1..1 and a margin a difference of two in 0..2, got {self.threshold} and {self.margin}"
            )

    def find(self, text: str, tokens: Sequence[Token], words: Mapping[str, Sequence[str]]) -> Found:
        """The class of an answer without keywords.

        Args:
            text: The answer.
            tokens: Its words and marks.
            words: The classes and their words.
        """
        if self.embedder.unit == "text":
            if negated(tokens):
                return Found(None, "negated")
            near = self._nearest([text], {label: [SENTENCE.format(word=one) for one in some] for label, some in words.items()})[0]
            reason = self._reason(near)
            return Found(None if reason else near[0].label, reason, nearest=near)
        return self._by_words(tokens, words)

    def _by_words(self, tokens: Sequence[Token], words: Mapping[str, Sequence[str]]) -> Found:
        at = [
            index
            for index, one in enumerate(tokens)
            if len(one.text) >= _LETTERS and one.text.isalpha() and one.text not in STOP_WORDS
        ]
        single = {label: [one for one in some if " " not in one] for label, some in words.items()}
        if not at or not any(single.values()):
            return Found(None, "below_threshold")
        found = self._nearest([tokens[index].text for index in at], single)
        clear = [(index, near) for index, near in zip(at, found, strict=True) if self._reason(near) is None]
        if not clear:
            best = max(found, key=lambda near: near[0].similarity)
            return Found(None, self._reason(best), nearest=best)
        matches = roles(tokens, [(index, index + 1, near[0].label) for index, near in clear])
        label = decide(matches)
        best = max((near for _, near in clear), key=lambda near: near[0].similarity)
        claimed = any(one.role != "rejected" for one in matches)
        return Found(label, None if label else "several" if claimed else "rejected", tuple(matches), best)

    def _reason(self, near: Sequence[Near]) -> Literal["below_threshold", "no_margin"] | None:
        if near[0].similarity < self.threshold:
            return "below_threshold"
        return "no_margin" if len(near) > 1 and near[0].similarity - near[1].similarity < self.margin else None

    def _nearest(self, texts: Sequence[str], words: Mapping[str, Sequence[str]]) -> list[tuple[Near, ...]]:
        """For each text its two nearest classes, the nearer first."""
        labels = [label for label, some in words.items() for _ in some]
        alike = _unit(self.embedder.embed(list(texts))) @ self._vectors(tuple(one for some in words.values() for one in some)).T
        made: list[tuple[Near, ...]] = []
        for text, row in zip(texts, alike, strict=True):
            best: dict[str, float] = {}
            for label, cosine in zip(labels, row, strict=True):
                best[label] = max(best.get(label, -1.0), float(cosine))
            made.append(tuple(Near(label, best[label], text) for label in sorted(best, key=lambda name: -best[name])[:2]))
        return made

    def _vectors(self, words: tuple[str, ...]) -> Vectors:
        if words not in self._known:
            self._known[words] = _unit(self.embedder.embed(list(words)))
        return self._known[words]


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
