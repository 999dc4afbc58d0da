"""How good the labeller was in this run: its predictions against what people said of the same recordings.

Each human-labelled utterance is compared with the predicted category that overlaps it longest. An utterance that no prediction overlaps
(the voice activity detector missed it, or the labeller abstained) is wrong and stands in the confusion's last column.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from undertone.evaluate.metrics import ClassMetrics, class_metrics
from undertone.records import HUMAN, Label, Recording, Segment

_NO_CLASS = frozenset({"other", "unknown"})
"""Human labels that name no class a labeller could answer with; such utterances are counted in `without_class`."""


class GroupReport(BaseModel):
    """Accuracy on one group of utterances; `wa` is accuracy and `ua` the unweighted average recall (UAR)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    utterances: int
    speakers: int
    without_class: int
    emotion: ClassMetrics
    gender: ClassMetrics


class LabellerReport(BaseModel):
    """The labeller on all utterances, on speakers that its card says it was trained on, and on those it never heard.

    Only `unheard` says how good the labels of new recordings are. Utterances without a speaker are in `everything` alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labellers: tuple[str, ...]
    everything: GroupReport
    heard: GroupReport
    unheard: GroupReport


def labeller_report(recordings: Sequence[Recording], segments: Iterable[Segment], *, heard: frozenset[str]) -> LabellerReport:
    """Compare predicted segments with the recordings' human references.

    Args:
        recordings: Recordings with references.
        segments: Predicted segments of these recordings; human labels in them are ignored.
        heard: Speakers in the labeller's training data, named as in the corpora ("ravdess/rav01").
    """
    predicted: dict[str, dict[str, list[Label]]] = defaultdict(lambda: {"emotion": [], "gender": []})
    names: set[str] = set()
    for segment in segments:
        for label in (*segment.of("emotion"), *segment.of("gender")):
            if label.labeller != HUMAN and label.category is not None:
                predicted[segment.recording_id][label.attribute].append(label)
                names.add(label.labeller)
    utterances = [(one.id, reference) for one in recordings for reference in one.references]

    def group(wanted: Callable[[str | None], bool]) -> GroupReport:
        chosen = [(key, one) for key, one in utterances if wanted(one.speaker)]
        return GroupReport(
            utterances=len(chosen),
            speakers=len({one.speaker for _, one in chosen if one.speaker}),
            without_class=sum(_human(one, "emotion") in _NO_CLASS for _, one in chosen),
            emotion=_compare(chosen, predicted, "emotion"),
            gender=_compare(chosen, predicted, "gender"),
        )

    return LabellerReport(
        labellers=tuple(sorted(names)),
        everything=group(lambda speaker: True),
        heard=group(lambda speaker: speaker in heard),
        unheard=group(lambda speaker: speaker is not None and speaker not in heard),
    )


def _compare(
    utterances: Sequence[tuple[str, Segment]], predicted: dict[str, dict[str, list[Label]]], attribute: str
) -> ClassMetrics:
    references: list[str] = []
    guesses: list[str | None] = []
    for recording, utterance in utterances:
        truth = _human(utterance, attribute)
        if truth is not None and truth not in _NO_CLASS:
            references.append(truth)
            guesses.append(_longest_overlap(utterance, predicted[recording][attribute]))
    return class_metrics(references, guesses)


def _human(segment: Segment, attribute: str) -> str | None:
    return next((one.category for one in segment.of(attribute) if one.labeller == HUMAN), None)


def _longest_overlap(utterance: Segment, labels: Iterable[Label]) -> str | None:
    """The category with most overlap in time, ties to the one that comes first in the alphabet; None without any overlap."""
    held: Counter[str] = Counter()
    for label in labels:
        shared = min(utterance.end_ms, label.end_ms) - max(utterance.start_ms, label.start_ms)
        if shared > 0 and label.category is not None:
            held[label.category] += shared
    return min(held, key=lambda name: (-held[name], name)) if held else None
