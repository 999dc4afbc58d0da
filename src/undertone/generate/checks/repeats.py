"""Checks that need all pairs at once: questions that say the same again in other words, and floods of "why does the speaker feel X".

Both are what 2505.13338 (section 3.2) reports of LLM-written questions. Here they concern those alone: templates repeat by nature.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, ImportString, PrivateAttr, field_validator, model_validator

from undertone.generate.checks.limits import off_by_name
from undertone.generate.checks.minhash import candidates, jaccard, word_hashes
from undertone.lexicon import labels_in, meant_words, plain, tokens
from undertone.records import QAPair, Record, content_hash
from undertone.stages import ColumnStage, Context, Fates

Embed = Callable[[Sequence[str]], NDArray[np.floating[Any]]]
"""Texts to vectors of shape (texts, dimensions), of any length but 0."""

IN_CLIP, IN_CORPUS, WHY = "paraphrase_in_clip", "paraphrase_in_corpus", "why_flood"
REPEAT_CHECKS: tuple[str, ...] = (IN_CLIP, IN_CORPUS, WHY)
"""Names and reason codes."""

_OF_EVERY_CLIP = frozenset({"ASR", "DE", "DG", "DS"})
"""Kinds that are asked of every clip in the same few ways."""
_FROM_A_POOL = frozenset({"OPEN", "REPLY"})
"""Kinds whose prompts a study draws from a list."""
_BLOCK = 1024  # questions whose vectors are compared at once with all others

_REASON = re.compile(
    r"\bwhy\b|\bhow come\b|\bwhat (?:\w+ ){0,2}(?:makes?|made|making|caus(?:es?|ed|ing)|leads?|led|triggers?|triggered|prompts?|prompted)\b"
    r"|\b(?:reasons?|causes?|explanations?) (?:for|of|behind|why)\b|\bfor what reason\b|\bwhat (?:is|are|might be) behind\b"
)
_FEELING = re.compile(
    r"\b(?:feel(?:s|ing|ings)?|felt|sounds?|sounding|seems?|emotions?|emotional|emotionally|mood|tone|react(?:s|ed|ion)?)\b"
)


class RepeatStage(ColumnStage[QAPair, QAPair]):
    """Drops LLM-written pairs that repeat others; the first by id stays. Pairs that no LLM wrote, and turns of a dialogue, stay.

    Two questions are alike when the words that mean something in them (`lexicon.meant_words`) are nearly the same: how they are asked counts
    little, at what and when counts. MinHash finds candidates, which are compared exactly. Real paraphrases ("in what mood", "how do they feel")
    share few words; for those give `embed`.

    Each source is looked at by itself: what one part of a training mix holds must not depend on what another asks.

    Attributes:
        off: Names of checks that are not made.
        similarity: From which Jaccard similarity of words (or cosine, with `embed`) on two questions are alike.
        copies: So many clips may share a question. Direct questions may be asked of every clip, and prompts from a pool; content and
            context ought to be about the clip.
        embed: Makes vectors of questions, as "module:function". All are then compared with all, which is quadratic: for some 100,000.
        why_per_clip: So many questions for the reason of a feeling for each clip.
        why_share: Largest share of them among the LLM-written pairs of a source that stay (one may stay in any case).
    """

    name: ClassVar[str] = "repeats"
    reads: ClassVar[type[Record]] = QAPair
    writes: ClassVar[type[Record]] = QAPair
    scope: ClassVar[Literal["row", "part", "table"]] = "table"
    looks_at: ClassVar[tuple[str, ...] | None] = ("id", "source", "clip_id", "kind", "question", "history", "model")

    off: tuple[str, ...] = ()
    similarity: float = Field(default=0.8, gt=0, le=1)
    copies: int = Field(default=3, ge=1)
    embed: ImportString[Embed] | None = None
    why_per_clip: int = Field(default=1, ge=0)
    why_share: float = Field(default=0.1, ge=0, lt=1)

    _seed: int = PrivateAttr(default=0)

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        return off_by_name(value)

    @field_validator("off")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [one for one in value if one not in REPEAT_CHECKS]
        if unknown:
            raise ValueError(f"no check {', '.join(map(repr, unknown))}; expected some of {', '.join(REPEAT_CHECKS)}")
        return value

    def open(self, context: Context) -> None:
        """Take the seed, by which questions are drawn that may stay."""
        self._seed = context.seed

    def keys(self, columns: pa.Table) -> pa.Table:
        """What is compared, of the rows that an LLM wrote; null for the others."""
        seed = str(self._seed)
        names = ("id", "source", "clip", "kind", "words", "draw", "why", "text")
        rows = zip(*(columns[name].to_pylist() for name in self.looks_at or ()), strict=True)
        made: list[dict[str, Any]] = []
        for key, source, clip, kind, question, history, model in rows:
            if model is None:
                made.append(dict.fromkeys(names))
                continue
            compared = not history and kind not in _FROM_A_POOL
            made.append(
                {
                    "words": sorted(word_hashes(_meant(question))) if compared else [],
                    "source": source,
                    "clip": clip,
                    "kind": kind,
                    "draw": int(content_hash(seed, key), 16),
                    "why": asks_why(question),
                    "text": question if compared and self.embed is not None else None,
                    "id": key,
                }
            )
        kinds = {"words": pa.list_(pa.uint32()), "draw": pa.uint64(), "why": pa.bool_()}
        return pa.table({name: pa.array([one[name] for one in made], kinds.get(name, pa.string())) for name in names})

    def fates(self, columns: pa.Table) -> Fates:
        """Paraphrases go first; floods are counted among what is left."""
        reasons: list[str | None] = [None] * len(columns)
        details: list[str | None] = [None] * len(columns)
        written = columns.append_column("row", pa.array(np.arange(len(columns)))).filter(pc.is_valid(columns["id"])).sort_by("id")
        for source in pc.unique(written["source"]).to_pylist():
            ours = written.filter(pc.equal(written["source"], source))
            rows, clips, ids = ours["row"].to_pylist(), ours["clip"].to_pylist(), ours["id"].to_pylist()
            gone: set[int] = set()
            for index, (reason, first) in self._paraphrases(ours, clips).items():
                reasons[rows[index]], details[rows[index]] = reason, f"like {ids[first]}"
                gone.add(index)
            if WHY not in self.off:
                for index in self._floods(ours, clips, gone):
                    reasons[rows[index]] = WHY
        return Fates(reason=pa.array(reasons, pa.string()), detail=pa.array(details, pa.string()))

    def _paraphrases(self, ours: pa.Table, clips: Sequence[str]) -> dict[int, tuple[str, int]]:
        """Which rows repeat earlier ones: where, and the first of these."""
        kinds = ours["kind"].to_pylist()
        alike: dict[int, list[int]] = defaultdict(list)
        for later, earlier in self._alike(ours):
            alike[later].append(earlier)
        found: dict[int, tuple[str, int]] = {}
        for later in sorted(alike):
            kept = sorted(one for one in alike[later] if one not in found)
            within = [one for one in kept if clips[one] == clips[later]]
            beyond = {clips[one]: one for one in reversed(kept) if clips[one] != clips[later] and kinds[one] not in _OF_EVERY_CLIP}
            if within and IN_CLIP not in self.off:
                found[later] = (IN_CLIP, within[0])
            elif len(beyond) >= self.copies and kinds[later] not in _OF_EVERY_CLIP and IN_CORPUS not in self.off:
                found[later] = (IN_CORPUS, min(beyond.values()))
        return found

    def _alike(self, ours: pa.Table) -> set[tuple[int, int]]:
        """All pairs (later, earlier) of rows whose questions are alike."""
        if self.embed is not None:
            return set(_near(ours["text"].to_pylist(), self.embed, self.similarity))
        words = [frozenset(one) for one in ours["words"].to_pylist()]
        clips: dict[str, list[int]] = defaultdict(list)
        for index, clip in enumerate(ours["clip"].to_pylist()):
            clips[clip].append(index)
        # Those of one clip are few: all with all, so that none is left to chance.
        within = ((later, earlier) for group in clips.values() for place, later in enumerate(group) for earlier in group[:place])
        pairs = {*within, *candidates(words)}
        return {(later, earlier) for later, earlier in pairs if jaccard(words[later], words[earlier]) >= self.similarity}

    def _floods(self, ours: pa.Table, clips: Sequence[str], gone: set[int]) -> Iterator[int]:
        why, draws = ours["why"].to_pylist(), ours["draw"].to_pylist()
        asked = sorted((index for index in range(len(ours)) if why[index] and index not in gone), key=lambda index: draws[index])
        others = len(ours) - len(gone) - len(asked)
        most = max(1, int(self.why_share / (1 - self.why_share) * others + 1e-9))
        stay, of_clip = 0, dict.fromkeys(clips, 0)
        for index in asked:
            if of_clip[clips[index]] >= self.why_per_clip or stay >= most:
                yield index
            else:
                of_clip[clips[index]] += 1
                stay += 1


def asks_why(question: str) -> bool:
    """Whether a question asks for the reason of a feeling."""
    text = plain(question).casefold()
    return bool(_REASON.search(text)) and bool(_FEELING.search(text) or labels_in(text, "emotion"))


def _meant(question: str) -> list[str]:
    text = plain(question)
    return meant_words(text) or tokens(text)


def _near(texts: Sequence[str | None], embed: Embed, least: float) -> Iterator[tuple[int, int]]:
    known = [index for index, one in enumerate(texts) if one is not None]
    if len(known) < 2:
        return
    vectors = np.asarray(embed([one for one in texts if one is not None]), np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for start in range(0, len(known), _BLOCK):
        near = unit[start : start + _BLOCK] @ unit.T >= least - 1e-6
        for row, column in zip(*(axis.tolist() for axis in np.nonzero(near)), strict=True):
            if column < start + row:
                yield known[start + row], known[column]
