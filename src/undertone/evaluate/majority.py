"""The control that never listens: for each kind of question, the answer that was most frequent in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from undertone.records import Answer, QAPair

SUBJECT = "majority answer"


def majority_texts(train: Iterable[QAPair]) -> dict[str, str]:
    """The blind answer for each kind: among pairs with a label the most frequent answer of the most frequent label, else the most frequent
    answer. Ties go to the one that comes first in the alphabet.
    """
    counts: dict[str, Counter[tuple[str, str]]] = {}
    for pair in train:
        counts.setdefault(pair.kind, Counter())[(pair.label or "", pair.answer)] += 1
    return {kind: _most_frequent(found) for kind, found in counts.items()}


def majority_answers(train: Iterable[QAPair], test: Iterable[QAPair]) -> list[Answer]:
    """Answers of the control to test pairs, in their order.

    A kind that training never saw has no majority answer and gets none; the study table counts it as missing.
    """
    texts = majority_texts(train)
    return [
        Answer(subject=SUBJECT, pair_id=pair.id, text=texts[pair.kind], raw=texts[pair.kind], seconds=0.0)
        for pair in test
        if pair.kind in texts
    ]


def _most_frequent(counts: Mapping[tuple[str, str], int]) -> str:
    labels: Counter[str] = Counter()
    for (label, _), count in counts.items():
        labels[label] += count
    labelled = {label: count for label, count in labels.items() if label} or labels
    top = min(labelled, key=lambda label: (-labelled[label], label))
    answers = {answer: count for (label, answer), count in counts.items() if label == top}
    return min(answers, key=lambda answer: (-answers[answer], answer))
