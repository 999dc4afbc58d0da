"""What a benchmark holds, and what could be scored on it without listening."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from undertone.records import Clip, QAPair, category_shares


class KindSummary(BaseModel):
    """One kind of question: how many, which labels, and what blind answers score (0..100; None for kinds without labels).

    `chance` is the score of a uniform guess among the labels that occur, `majority` that of always naming the most frequent one *of this
    benchmark*; the control "majority answer" names the most frequent one of the training pairs and can score less. `flags` counts the pairs
    that carry each flag, to be reported apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    recordings: int
    labelled: int
    labels: dict[str, int]
    flags: dict[str, int] = {}
    chance: float | None
    majority: float | None


class Leakage(BaseModel):
    """How far one kind of question is answered by naming the label that fills most of its clip.

    `share` is `equal / compared`; `undecided` pairs have no such label (the clip is not among the clips, or carries no label).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    compared: int
    equal: int
    undecided: int
    share: float | None


def describe(pairs: Iterable[QAPair]) -> dict[str, KindSummary]:
    """Counts, chance and majority scores per kind of question, by kind."""
    return {kind: _summary(group) for kind, group in sorted(_by_kind(pairs).items())}


def leakage(pairs: Iterable[QAPair], clips: Iterable[Clip]) -> dict[str, Leakage]:
    """Share of labelled questions whose label equals the clip's dominant label of that attribute, by kind.

    A contextual question about a clip of one mood is answered by that mood, context or not; so the nearer this share is to 1, the less
    the benchmark asks for. Direct questions have it near 1 by nature.

    Args:
        pairs: Questions; those without a label are left out.
        clips: The clips that they are about, with the labels to compare with (human or predicted).
    """
    known = {clip.id: clip for clip in clips}
    found: dict[str, Leakage] = {}
    for kind, group in sorted(_by_kind(one for one in pairs if one.label is not None and one.kind != "REPLY").items()):
        dominant = [_dominant(known.get(pair.clip_id), pair.label_attribute) for pair in group]
        compared = sum(one is not None for one in dominant)
        equal = sum(pair.label == one for pair, one in zip(group, dominant, strict=True))
        share = equal / compared if compared else None
        found[kind] = Leakage(compared=compared, equal=equal, undecided=len(group) - compared, share=share)
    return found


def _by_kind(pairs: Iterable[QAPair]) -> Mapping[str, list[QAPair]]:
    groups: dict[str, list[QAPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.kind, []).append(pair)
    return groups


def _summary(group: Sequence[QAPair]) -> KindSummary:
    labels = Counter(pair.label for pair in group if pair.label is not None)
    labelled = labels.total()
    # The label of a reply is the speaker's emotion, which nobody is asked for.
    asked = bool(labels) and group[0].kind != "REPLY"
    return KindSummary(
        pairs=len(group),
        recordings=len({pair.recording_id for pair in group}),
        labelled=labelled,
        labels=dict(sorted(labels.items())),
        flags=dict(sorted(Counter(flag for pair in group for flag in set(pair.flags)).items())),
        chance=100 / len(labels) if asked else None,
        majority=100 * max(labels.values()) / labelled if asked else None,
    )


def _dominant(clip: Clip | None, attribute: str | None) -> str | None:
    """The category that fills most of a clip's time, ties to the one that comes first in the alphabet."""
    if clip is None or attribute is None:
        return None
    shares = category_shares(clip.segments, attribute)
    return min(shares, key=lambda name: (-shares[name], name)) if shares else None
