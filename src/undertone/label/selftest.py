"""Is a labeller broken? One that answers the same for everything, or next to nothing, says nothing about the speech."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from undertone.records import DIMENSIONS, Segment
from undertone.tables import Table

LEAST_LABELS = 20
_NEARLY_ALL = 0.98
_SAME_NUMBER = 1e-3  # no measurement of different sounds agrees so well
_NOT_LOOKED_AT = frozenset({"event", "speaker", "speaker_change", "transcript"})
"""No event for hours, or one speaker who says nothing that is understood, may be the truth."""

_ONE_PERSONS = frozenset({"gender", "age", "accent"})


@dataclass
class _Said:
    """What one labeller said about one attribute."""

    recordings: set[str] = field(default_factory=set)
    categories: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    numbers: int = 0
    learned: bool = False
    low: float = math.inf
    high: float = -math.inf


def one_sided(raw: Table[Segment]) -> Iterator[str]:
    """A sentence for each labeller and attribute that has one answer for nearly everything, or none for nearly everything.

    A wrong order of classes, a head of random weights or input at a wrong scale look like this. Looked at are attributes with at least
    20 labels, those of persons (gender, age, accent) with labels in at least 20 recordings. A measurement that is always the same (no
    pause in any segment) may be true; valence, arousal and dominance are not.

    Args:
        raw: The table of `label/raw`; one part is in memory at a time.
    """
    for (labeller, attribute), said in sorted(_heard(raw).items()):
        answers = said.categories.total() + said.numbers
        total = answers + said.reasons.total()
        if total < LEAST_LABELS or (attribute in _ONE_PERSONS and len(said.recordings) < LEAST_LABELS):
            continue
        if answers < (1 - _NEARLY_ALL) * total:
            yield (
                f"{labeller} gives no {attribute} for {total - answers} of {total} stretches, mostly because of "
                f"{said.reasons.most_common(1)[0][0]!r}: is this the kind of sound that it knows?"
            )
        elif (same := _same(said, answers)) is not None:
            only = " This is right only if they are all one person's." if attribute in _ONE_PERSONS else ""
            yield (
                f"{labeller} gives {attribute} = {same} of the {answers} stretches that it judged: a wrong order of classes, a head "
                f"without its weights or sound at another scale would look like this. Look at label/raw before you go on.{only}"
            )


def _same(said: _Said, answers: int) -> str | None:
    """The answer that is given to nearly everything, and to how much."""
    if said.categories:
        name, count = said.categories.most_common(1)[0]
        return f"{name} for {count}" if count >= _NEARLY_ALL * answers else None
    return f"{said.low:.4g} for all" if said.learned and said.high - said.low < _SAME_NUMBER else None


def _heard(raw: Table[Segment]) -> dict[tuple[str, str], _Said]:
    found: dict[tuple[str, str], _Said] = defaultdict(_Said)
    for batch in raw.columns(["recording_id", "labels"]):
        for recording, labels in zip(batch["recording_id"].to_pylist(), batch["labels"].to_pylist(), strict=True):
            for label in labels:
                if label["attribute"] in _NOT_LOOKED_AT:
                    continue
                said = found[label["labeller"], label["attribute"]]
                said.learned = label["attribute"] in DIMENSIONS
                said.recordings.add(recording)
                if label["category"] is not None:
                    said.categories[label["category"]] += 1
                elif label["number"] is not None:
                    said.numbers += 1
                    said.low, said.high = min(said.low, label["number"]), max(said.high, label["number"])
                else:
                    said.reasons[label["reason"]] += 1
    return found
