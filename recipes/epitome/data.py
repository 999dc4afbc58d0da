"""EPITOME's Reddit part: pairs of posts, their levels, the split by seeker, and which sentences the annotators marked."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from undertone.evaluate.epitome import MECHANISMS, split_all, tokens

FILES = {
    "emotional_reaction": "emotional-reactions.csv",
    "interpretation": "interpretations.csv",
    "exploration": "explorations.csv",
}
TEST_SHARE = 0.2
FOLDS = 5
SHARED_WORDS = 3
"""Words in a row that a sentence and a rationale must share where neither holds the other: annotators marked across sentence ends."""


@dataclass(frozen=True)
class Posts:
    """Pairs of posts in the order of the files, each pair once.

    Attributes:
        levels: int of shape (pairs, 3 mechanisms).
        rationales: What annotators marked, per mechanism and pair: parts joined by "|".
        place: A number in 0..1 from the hash of the seeker's id; below 0.8 trains, and its fifths are the folds.
    """

    seekers: list[str]
    ids: list[str]
    responses: list[str]
    levels: NDArray[np.int64]
    rationales: list[list[str]]
    place: NDArray[np.float64]

    @property
    def test(self) -> NDArray[np.bool_]:
        """The pairs that nothing learned from and nothing was chosen on."""
        return np.asarray(self.place >= 1 - TEST_SHARE)

    @property
    def fold(self) -> NDArray[np.int64]:
        """The fold of each pair in training; FOLDS for those of the test."""
        return np.minimum((self.place / (1 - TEST_SHARE) * FOLDS).astype(int), FOLDS)


def read(folder: Path) -> Posts:
    """Read the three files; a pair that was annotated twice counts once, with its first annotation."""
    rows: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for mechanism, name in FILES.items():
        with (folder / name).open(newline="", encoding="utf-8") as file:
            found: dict[tuple[str, str], dict[str, str]] = {}
            for row in csv.DictReader(file):
                found.setdefault((row["sp_id"], row["rp_id"]), row)
        rows[mechanism] = found
    keys = list(rows[MECHANISMS[0]])
    if any(list(found) != keys for found in rows.values()):
        raise SystemExit(f"{folder}: the three files are about different pairs of posts; expected the same pairs in the same order")
    first = rows[MECHANISMS[0]]
    return Posts(
        seekers=[first[key]["seeker_post"] for key in keys],
        ids=[key[0] for key in keys],
        responses=[first[key]["response_post"] for key in keys],
        levels=np.array([[int(rows[one][key]["level"]) for one in MECHANISMS] for key in keys]),
        rationales=[[rows[one][key]["rationales"] or "" for key in keys] for one in MECHANISMS],
        place=np.array([_place(key[0]) for key in keys]),
    )


def _place(seeker_id: str) -> float:
    """By seeker, so that no seeker's post is in two parts."""
    return int(hashlib.sha256(f"epitome:{seeker_id}".encode()).hexdigest()[:8], 16) / 2**32


@dataclass(frozen=True)
class Sentences:
    """All sentences of the responses: whose they are, their text, and (sentences, 3) the level of those that a rationale touches, else 0."""

    owner: NDArray[np.int64]
    texts: list[str]
    levels: NDArray[np.int64]


def marked_sentences(posts: Posts) -> Sentences:
    """The rationales as labels of sentences; where no sentence is recognised in a rationale, all of the response have its level."""
    owners, texts = split_all(posts.responses)
    owner = np.array(owners)
    words = [" ".join(tokens(one)) for one in texts]
    levels = np.zeros((len(texts), len(MECHANISMS)), dtype=np.int64)
    for column in range(len(MECHANISMS)):
        for pair in np.flatnonzero(posts.levels[:, column]):
            own = np.flatnonzero(owner == pair)
            parts = [part for raw in posts.rationales[column][pair].split("|") if (part := tokens(raw))]
            touched = [index for index in own if any(_touches(words[index], part) for part in parts)]
            levels[touched or own, column] = posts.levels[pair, column]
    return Sentences(owner=owner, texts=texts, levels=levels)


def _touches(sentence: str, rationale: list[str]) -> bool:
    whole = f" {sentence} "
    if f" {' '.join(rationale)} " in whole or whole.strip() in " ".join(rationale):
        return True
    starts = range(len(rationale) - SHARED_WORDS + 1)
    return any(f" {' '.join(rationale[start : start + SHARED_WORDS])} " in whole for start in starts)
