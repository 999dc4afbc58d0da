"""The study's result: verdicts in, one typed table out, with intervals for everything that is compared.

Scores are means over questions, 0..100, with intervals bootstrapped over recordings. What has no score is counted by reason and enters no
mean; the *strict* mean beside it counts an answer that was refused, unreadable, timed out or never came as 0, so that no system
gains by refusing. Class metrics (WA, UA, macro-F1) are strict by nature.

Questions may carry flags: checks that they did not pass but stayed for (`QAPair.flags`). A question that the injected labels alone answer
("metadata_leak") rewards copying, which was the confound of 2508.07273's LLM-written test set; so each score and each comparison stands a
second time over the unflagged questions alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from undertone.errors import ConfigError, DataError
from undertone.evaluate import metrics
from undertone.evaluate.metrics import ClassMetrics, Difference, Floats, Interval
from undertone.evaluate.published import PAPER, Published
from undertone.records import QAPair, Verdict

SYSTEMS = ("S10", "S20", "S30", "S31", "S32")
CONTROLS = ("words only", "metadata only", "majority answer")
KINDS = ("ASR", "C", "DE", "DG", "DS", "CE", "CG", "CS")
BASELINE = "S10"

CONTRASTS = (
    ("S30", "S10"),
    ("S20", "S10"),
    ("S30", "S20"),
    ("S32", "S30"),
    ("S30", "words only"),
    ("S32", "metadata only"),
    ("S30", "majority answer"),
)
"""First minus second: the paper's comparisons, then each method against the control that could explain it away."""

MISSING = "missing"
"""Counted where a pair has no verdict of a subject at all (its answer failed)."""

_PAIR_AT_FAULT = frozenset({"no_reference", "no_label"})
"""Reasons that lie in the question and not in the answer; the strict mean leaves these out as well."""


class Cell(BaseModel):
    """One system on one kind of question (or on all of them)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Interval
    pairs: int
    strict_mean: float | None
    unscored: dict[str, int]
    unmapped: int


class SubjectRow(BaseModel):
    """One system or control: scores by kind, over all questions, and as plain mean over kinds (UAS of 2509.16589).

    `unflagged` is over the questions without a flag; None where no question of the benchmark has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    control: bool
    kinds: dict[str, Cell]
    overall: Cell
    unflagged: Cell | None = None
    uas: Interval
    gain_percent: Interval | None
    classes: dict[str, ClassMetrics]


class Contrast(BaseModel):
    """The paired difference first minus second in points, over the questions that both have a score for.

    `unflagged` is the same over the questions without a flag; None where no question of the benchmark has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    difference: Difference
    unflagged: Difference | None = None


class StudyTable(BaseModel):
    """All that a study found, and the paper's numbers in a block of their own.

    `flagged` is the number of questions with any flag, `flags` that of each flag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    runs: int
    resamples: int
    seed: int
    pairs: int
    recordings: int
    flagged: int = 0
    flags: dict[str, int] = {}
    kinds: tuple[str, ...]
    rows: tuple[SubjectRow, ...]
    contrasts: tuple[Contrast, ...]
    published: Published = PAPER

    def row(self, subject: str) -> SubjectRow | None:
        """The row of one subject, None where the study has none."""
        return next((one for one in self.rows if one.subject == subject), None)

    def to_json(self) -> str:
        """The table as JSON; `from_json` reads it back to an equal object."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A table from its JSON."""
        return cls.model_validate_json(text)

    def plain_text(self, *, width: int = 100) -> str:
        """The table for a terminal of at least 100 columns."""
        from undertone.evaluate.study_text import plain_text

        return plain_text(self, width=width)


@dataclass(frozen=True)
class _Sheet:
    """Scores of all subjects: arrays of shape (pairs,), NaN where unscored, and the verdict of the first run beside them."""

    pairs: Sequence[QAPair]
    clusters: Sequence[str]
    scores: Mapping[str, Floats]
    reasons: Mapping[str, Sequence[str | None]]
    mapped: Mapping[str, Sequence[str | None]]


def build(
    verdicts: Iterable[Verdict],
    pairs: Sequence[QAPair],
    *,
    subjects: Sequence[str] = (),
    judge: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> StudyTable:
    """Compute the study table of one judge.

    Args:
        verdicts: Verdicts of all subjects; several runs of one judge are averaged per answer first.
        pairs: The whole benchmark; a pair without a verdict of some subject counts as missing there.
        subjects: Who was asked: these have a row even where no verdict is about them, with every pair missing. Others may have verdicts.
        judge: Which judge, where the verdicts are of several.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ConfigError: The verdicts are of several judges and `judge` is not one of them.
        DataError: A verdict is about a pair that is not in the benchmark, or the benchmark holds one pair twice.
    """
    found = list(verdicts)
    judges = sorted({one.judge for one in found})
    if (judge is None and len(judges) > 1) or (judge is not None and judge not in judges):
        raise ConfigError(
            f"one study table is of one judge, got judge={judge!r}; the verdicts are by {', '.join(judges) or 'none'}"
        )
    chosen = [one for one in found if judge in (None, one.judge)]
    sheet = _sheet(chosen, pairs, subjects)
    present = {pair.kind for pair in pairs}
    kinds = tuple(kind for kind in KINDS if kind in present)
    return StudyTable(
        judge=judge or (judges[0] if judges else ""),
        runs=max((one.run + 1 for one in chosen), default=0),
        resamples=resamples,
        seed=seed,
        pairs=len(pairs),
        recordings=len(set(sheet.clusters)),
        flagged=sum(bool(pair.flags) for pair in pairs),
        flags=dict(sorted(Counter(flag for pair in pairs for flag in set(pair.flags)).items())),
        kinds=kinds,
        rows=tuple(_row(sheet, subject, kinds, resamples=resamples, seed=seed) for subject in _ordered(sheet.scores)),
        contrasts=tuple(
            _contrast(sheet, first, second, resamples=resamples, seed=seed)
            for first, second in CONTRASTS
            if first in sheet.scores and second in sheet.scores
        ),
    )


def verdict_sentences(table: StudyTable) -> list[str]:
    """What the study shows in plain words: one sentence per comparison, decided by its interval and by nothing else."""
    said = [_contrast_sentence(one) for one in table.contrasts]
    if table.flagged:
        counts = ", ".join(f"{name} {count}" for name, count in table.flags.items())
        said.append(f"{table.flagged} of {table.pairs} questions are flagged ({counts}); this is what is left without them.")
        said += [
            _contrast_sentence(one.model_copy(update={"difference": one.unflagged}), start="Without flagged questions: ")
            for one in table.contrasts
            if one.unflagged is not None
        ]
    for row in table.rows:
        paper = table.published.of(row.subject)
        if row.gain_percent is None or row.gain_percent.mean is None or paper is None or paper.gain_percent is None:
            continue
        said.append(
            f"{row.subject} gains {row.gain_percent.mean:+.1f} % over {BASELINE}{_bounds(row.gain_percent, unit=' %')}; "
            f"the paper reports {paper.gain_percent:+.2f} % on other data and models."
        )
    return said


def _contrast_sentence(contrast: Contrast, *, start: str = "") -> str:
    first, second, gap = contrast.first, contrast.second, contrast.difference
    if gap.mean is None:
        said = f"{first} and {second} cannot be compared: no question has a score of both."
    elif gap.low is None or gap.high is None:
        said = f"{first} and {second} differ by {gap.mean:+.1f} points on {gap.clusters} recording(s): too few for an interval."
    elif gap.low <= 0 <= gap.high:
        between = "between" if start else "Between"
        said = f"{between} {first} and {second} no difference can be told: {gap.mean:+.1f} points{_bounds(gap)}."
    else:
        side = "above" if gap.mean > 0 else "below"
        said = f"{first} is {side} {second} by {abs(gap.mean):.1f} points{_bounds(gap, flip=gap.mean < 0)}."
    return f"{start}{said}"


def _bounds(interval: Interval, *, unit: str = "", flip: bool = False) -> str:
    """' (95 % interval 8.0 to 16.2)', or that there is none; `flip` gives the bounds of the negated value."""
    if interval.low is None or interval.high is None:
        return " (no interval)"
    low, high = (-interval.high, -interval.low) if flip else (interval.low, interval.high)
    return f" ({interval.level * 100:.0f} % interval {low:.1f}{unit} to {high:.1f}{unit})"


def _ordered(subjects: Iterable[str]) -> list[str]:
    """Systems in the paper's order, then any others by name, then the controls."""
    known = {name: (0, index) for index, name in enumerate(SYSTEMS)} | {name: (2, index) for index, name in enumerate(CONTROLS)}
    return sorted(subjects, key=lambda name: (*known.get(name, (1, 0)), name))


def _sheet(verdicts: Sequence[Verdict], pairs: Sequence[QAPair], subjects: Sequence[str]) -> _Sheet:
    place = {pair.id: index for index, pair in enumerate(pairs)}
    if len(place) != len(pairs):
        raise DataError(f"the benchmark holds {len(pairs)} pairs but only {len(place)} different ones; a pair may stand in it once")
    runs: dict[str, dict[int, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    for one in verdicts:
        if one.pair_id not in place:
            raise DataError(
                f"verdict {one.id} is about pair {one.pair_id}, which is not in the benchmark: the verdicts are of another run; "
                "judge again with undertone evaluate"
            )
        runs[one.subject][place[one.pair_id]].append(one)
    scores: dict[str, Floats] = {}
    reasons: dict[str, list[str | None]] = {}
    mapped: dict[str, list[str | None]] = {}
    for subject in {*runs, *subjects}:
        scores[subject] = np.full(len(pairs), np.nan)
        reasons[subject] = [MISSING] * len(pairs)
        mapped[subject] = [None] * len(pairs)
        for index, judged in runs.get(subject, {}).items():
            judged.sort(key=lambda one: one.run)
            given = [one.score for one in judged if one.score is not None]
            scores[subject][index] = np.mean(given) if given else np.nan
            reasons[subject][index] = None if given else judged[0].unscored
            mapped[subject][index] = judged[0].mapped_label
    return _Sheet(pairs, [pair.recording_id for pair in pairs], scores, reasons, mapped)


def _contrast(sheet: _Sheet, first: str, second: str, *, resamples: int, seed: int) -> Contrast:
    def gap(scores: Floats) -> Difference:
        return metrics.paired_difference(scores, sheet.scores[second], sheet.clusters, resamples=resamples, seed=seed)

    flagged = np.array([bool(pair.flags) for pair in sheet.pairs], dtype=bool)
    return Contrast(
        first=first,
        second=second,
        difference=gap(sheet.scores[first]),
        # A question without a score of one of the two is in neither mean.
        unflagged=gap(np.where(flagged, np.nan, sheet.scores[first])) if flagged.any() else None,
    )


def _row(sheet: _Sheet, subject: str, kinds: Sequence[str], *, resamples: int, seed: int) -> SubjectRow:
    scores = sheet.scores[subject]
    of_kind = np.array([pair.kind for pair in sheet.pairs], dtype=str)
    clean = np.array([not pair.flags for pair in sheet.pairs], dtype=bool)
    by_kind = (np.where(of_kind == kind, scores, np.nan) for kind in kinds)
    columns = np.stack([scores, np.where(clean, scores, np.nan), *by_kind], axis=1)
    found = metrics.bootstrap_means(columns, sheet.clusters, resamples=resamples, seed=seed)
    everything = range(len(sheet.pairs))
    gain = None
    if subject != BASELINE and BASELINE in sheet.scores:
        gain = metrics.relative_gain(scores, sheet.scores[BASELINE], sheet.clusters, resamples=resamples, seed=seed)
    return SubjectRow(
        subject=subject,
        control=subject in CONTROLS,
        kinds={
            kind: _cell(sheet, subject, interval, [index for index in everything if of_kind[index] == kind])
            for kind, interval in zip(kinds, found[2:], strict=True)
        },
        overall=_cell(sheet, subject, found[0], list(everything)),
        unflagged=None if clean.all() else _cell(sheet, subject, found[1], [index for index in everything if clean[index]]),
        uas=metrics.unweighted_mean(scores, list(of_kind), sheet.clusters, resamples=resamples, seed=seed),
        gain_percent=gain,
        classes=_classes(sheet, subject),
    )


def _cell(sheet: _Sheet, subject: str, score: Interval, indices: Sequence[int]) -> Cell:
    reasons, scores, mapped = sheet.reasons[subject], sheet.scores[subject], sheet.mapped[subject]
    counted = [index for index in indices if reasons[index] not in _PAIR_AT_FAULT]
    return Cell(
        score=score,
        pairs=len(indices),
        strict_mean=float(np.nansum(scores[counted]) / len(counted)) if counted else None,
        unscored=dict(sorted(Counter(reason for index in indices if (reason := reasons[index])).items())),
        unmapped=sum(
            sheet.pairs[index].label is not None and reasons[index] is None and mapped[index] is None for index in indices
        ),
    )


def _classes(sheet: _Sheet, subject: str) -> dict[str, ClassMetrics]:
    """Class metrics per attribute over all pairs with a label of it; refused and missing answers are unmapped predictions."""
    held: dict[str, tuple[list[str], list[str | None]]] = defaultdict(lambda: ([], []))
    for pair, read in zip(sheet.pairs, sheet.mapped[subject], strict=True):
        if pair.label is not None and pair.label_attribute is not None:
            held[pair.label_attribute][0].append(pair.label)
            held[pair.label_attribute][1].append(read)
    return {attribute: metrics.class_metrics(*held[attribute]) for attribute in sorted(held)}
