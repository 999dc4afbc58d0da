"""Whether a reply suits how the speaker feels, read from the wordings that the grammar of replies has for each emotion.

EPITOME's levels say how empathetic a reply is, not whether it takes a sad speaker for an angry one. The wordings of `frames.replies` belong to
one emotion each (a few to two or more), so a model that has learnt to reply from them shows by its words which emotion it replies to. This
holds for such models alone: what another model writes has none of these wordings, claims no emotion here, and counts as unsuited.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from undertone.errors import ServiceError
from undertone.evaluate.judges import Item
from undertone.generate.frames import replies
from undertone.generate.strategies import think
from undertone.records import Kind, UnscoredReason, Verdict

NAME = "manner"


class MannerJudge(BaseModel):
    """100 where the reply's wordings are those for the emotion that people heard, 0 where they are another's, several's or nobody's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["manner"] = "manner"

    needs_clips: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """With the digest of the wordings."""
        return f"{NAME}@{replies.digest()[:8]}"

    @property
    def runs(self) -> int:
        """One: it is deterministic."""
        return 1

    @property
    def kinds(self) -> frozenset[Kind] | None:
        """Replies."""
        return frozenset({"REPLY"})

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        """The verdict on one reply."""
        said = think.split(item.answer.text).reply
        heard = manner_of(said)
        reason: UnscoredReason | None = item.answer.unanswered or (None if re.search(r"\w", said) else "unreadable")
        if reason is None and item.pair.label is None:
            reason = "no_label"
        return Verdict(
            judge=self.name,
            subject=item.subject,
            pair_id=item.pair.id,
            run=run,
            score=None if reason else 100.0 * (heard == item.pair.label),
            unscored=reason,
            mapped_label=heard,
        )

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        """The verdicts on several replies."""
        return [self.score(item, run=run) for item in items]


def manner_of(reply: str) -> str | None:
    """The emotion whose wordings a reply has most of; None where it has none, or as many of two.

    A wording of several emotions counts in part for each, one that is part of a longer one that stands there not at all.

    >>> manner_of("I'm on your side. What would put things right with the train?")
    'angry'
    """
    flat = " ".join(reply.casefold().split())
    votes: dict[str, float] = defaultdict(float)
    found = [(match.span(), emotions) for pattern, emotions in _wordings() if (match := pattern.search(flat)) is not None]
    for (start, end), emotions in found:
        inside = any(first <= start and end <= last and last - first > end - start for (first, last), _ in found)
        for one in emotions if not inside else ():
            votes[one] += 1 / len(emotions)
    best = max(votes.values(), default=0.0)
    named = [one for one, count in votes.items() if count == best]
    return named[0] if len(named) == 1 else None


@functools.cache
def _wordings() -> tuple[tuple[re.Pattern[str], frozenset[str]], ...]:
    """Each wording as a pattern, with the emotions that it stands for."""
    owners: dict[str, set[str]] = defaultdict(set)
    for emotion, wording in _each():
        owners[" ".join(wording.casefold().split())].add(emotion)
    found = []
    for wording, emotions in sorted(owners.items()):
        body = ".+?".join(re.escape(part) for part in wording.split("{topic}"))
        found.append((re.compile(rf"(?<!\w){body}(?!\w)"), frozenset(emotions)))
    return tuple(found)


def _each() -> Iterator[tuple[str, str]]:
    for manners in replies.MANNERS.values():
        for emotion, manner in manners.items():
            for part in (manner.reaction, manner.interpretation, manner.exploration):
                yield from ((emotion, wording) for wording in (*part.weak, *part.strong))
