"""The study's result: verdicts in, one typed table out, with intervals for everything that is compared.

Scores are means over questions, 0..100, with intervals bootstrapped over recordings. What has no score is counted by reason and enters no
mean; the *strict* mean beside it counts an answer that was refused, unreadable, timed out or never came as 0, so that no system
gains by refusing. Class metrics (WA, UA, macro-F1) are strict by nature.

Two means stand beside each other: over all questions (micro) and over the kinds' means (UAS: every kind weighs the same, 2509.16589), the
latter for each group of kinds too. Systems are compared on the questions that both have a score for, and the tests of one table are corrected
as one family (`paired`).

Questions may carry flags: checks that they did not pass but stayed for (`QAPair.flags`). A question that the injected labels alone answer
("metadata_leak") rewards copying, which was the confound of 2508.07273's LLM-written test set; so each score and each comparison stands a
second time over the unflagged questions alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from undertone.errors import ConfigError, DataError
from undertone.evaluate import metrics
from undertone.evaluate.metrics import ClassMetrics, Difference, Floats, Interval, Resampled
from undertone.evaluate.paired import ALPHA, PairedTest, paired_tests
from undertone.evaluate.published import PAPER, Published
from undertone.records import QAPair, Verdict

SYSTEMS = ("S10", "S20", "S30", "S31", "S32")
CONTROLS = ("words only", "metadata only", "majority answer")
KINDS = ("ASR", "C", "DE", "DG", "DS", "CE", "CG", "CS")
BASELINE = "S10"

GROUPS: Mapping[str, tuple[str, ...]] = {"C": ("C",), "DP": ("DE", "DG", "DS"), "CP": ("CE", "CG", "CS")}
"""CP-Bench's groups of kinds: content, direct and contextual paralinguistic."""

_IF_SCORED = "OPEN"
_APART = frozenset({"REPLY"})
"""Kinds that are no question about the speech: a reply has no right answer that a judge of answers could know."""

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
    """One system on one kind of question (or on all of them).

    `run_sd` is the standard deviation (n - 1) of the score over the judge's runs; None with fewer than two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Interval
    pairs: int
    strict_mean: float | None
    unscored: dict[str, int]
    unmapped: int
    run_sd: float | None = None


class SubjectRow(BaseModel):
    """One system or control: scores by kind, over all questions, and as plain mean over kinds (UAS of 2509.16589).

    `unflagged` is over the questions without a flag; None where no question of the benchmark has one. `groups` are UAS of the groups of kinds.
    UAS has no value where the system has no score at all of some kind, because a mean over the other kinds would be of something else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    control: bool
    kinds: dict[str, Cell]
    overall: Cell
    unflagged: Cell | None = None
    uas: Interval
    groups: dict[str, Interval] = {}
    gain_percent: Interval | None
    classes: dict[str, ClassMetrics]


class Contrast(PairedTest):
    """A paired test of two systems.

    `unflagged` is the difference over the questions without a flag; None where no question of the benchmark has one.
    """

    unflagged: Difference | None = None


class StudyTable(BaseModel):
    """All that a study found, and the paper's numbers in a block of their own.

    `flagged` is the number of questions with any flag, `flags` that of each flag. `apart` counts the benchmark's pairs of kinds that enter no
    score here: replies, and open questions where the judge scored none.
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
    apart: dict[str, int] = {}
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
class Sheet:
    """Scores of all subjects: arrays of shape (pairs,), NaN where unscored, and the verdict of the first run beside them.

    `runs` are the scores before they were averaged, shape (runs, pairs).
    """

    pairs: Sequence[QAPair]
    clusters: Sequence[str]
    scores: Mapping[str, Floats]
    runs: Mapping[str, Floats]
    reasons: Mapping[str, Sequence[str | None]]
    mapped: Mapping[str, Sequence[str | None]]

    def where(self, kinds: Collection[str]) -> list[int]:
        """The places of the questions of some kinds."""
        return [index for index, pair in enumerate(self.pairs) if pair.kind in kinds]


def build(
    verdicts: Iterable[Verdict],
    pairs: Sequence[QAPair],
    *,
    subjects: Sequence[str] = (),
    controls: Collection[str] = (),
    judge: str | None = None,
    contrasts: Literal["named", "all"] | Sequence[tuple[str, str]] = "named",
    resamples: int = 2000,
    seed: int = 0,
) -> StudyTable:
    """Compute the study table of one judge.

    Args:
        verdicts: Verdicts of all subjects; several runs of one judge are averaged per answer first.
        pairs: The whole benchmark; a pair without a verdict of some subject counts as missing there.
        subjects: Who was asked: these have a row even where no verdict is about them, with every pair missing. Others may have verdicts.
        controls: Which of the subjects are controls, beside `CONTROLS`.
        judge: Which judge, where the verdicts are of several.
        contrasts: What is tested: `CONTRASTS`, every pair of rows, or these. More tests cost each of them power.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ConfigError: The verdicts are of several judges and `judge` is not one of them.
        DataError: A verdict is about a pair that is not in the benchmark, or the benchmark holds one pair twice.
    """
    chosen, name = of_one_judge(verdicts, judge)
    sheet = sheet_of(chosen, pairs, subjects)
    kinds = kinds_of(sheet.pairs)
    order = in_order(sheet.scores, controls)
    blind = {*CONTROLS, *controls}
    tested = [(first, second) for first, second in _contrasts(order, contrasts, blind) if {first, second} <= set(order)]
    clean = np.array([not pair.flags for pair in sheet.pairs], dtype=bool)
    drawn = metrics.resample(_columns(sheet, order, kinds, tested, clean), sheet.clusters, resamples=resamples, seed=seed)
    tests = paired_tests(
        {(first, second): sheet.scores[first] - sheet.scores[second] for first, second in tested},
        {(first, second): drawn.difference(("gap", first, second)) for first, second in tested},
        sheet.clusters,
        resamples=resamples,
        seed=seed,
    )
    return StudyTable(
        judge=name,
        runs=max((one.run + 1 for one in chosen), default=0),
        resamples=resamples,
        seed=seed,
        pairs=len(sheet.pairs),
        recordings=len(set(sheet.clusters)),
        flagged=int((~clean).sum()),
        flags=dict(sorted(Counter(flag for pair in sheet.pairs for flag in set(pair.flags)).items())),
        apart=dict(sorted((Counter(pair.kind for pair in pairs) - Counter(pair.kind for pair in sheet.pairs)).items())),
        kinds=kinds,
        rows=tuple(_row(sheet, subject, kinds, drawn, clean, control=subject in blind) for subject in order),
        contrasts=tuple(
            Contrast(
                **dict(one),
                unflagged=None if clean.all() else drawn.difference(("clean gap", one.first, one.second)),
            )
            for one in tests
        ),
    )


def of_one_judge(verdicts: Iterable[Verdict], judge: str | None) -> tuple[list[Verdict], str]:
    """The verdicts of one judge, and its name; "" without verdicts.

    Raises:
        ConfigError: The verdicts are of several judges and `judge` is not one of them.
    """
    found = list(verdicts)
    judges = sorted({one.judge for one in found})
    if (judge is None and len(judges) > 1) or (judge is not None and judge not in judges):
        raise ConfigError(
            f"one study table is of one judge, got judge={judge!r}; the verdicts are by {', '.join(judges) or 'none'}"
        )
    return [one for one in found if judge in (None, one.judge)], judge or (judges[0] if judges else "")


def verdict_sentences(table: StudyTable) -> list[str]:
    """What the study shows in plain words: one sentence per comparison, decided by its interval and by nothing else."""
    family = sum(one.holm_p is not None for one in table.contrasts)
    said = [_contrast_sentence(one) + _corrected(one, family) for one in table.contrasts]
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


def _corrected(contrast: Contrast, family: int) -> str:
    """What the correction for many comparisons, or the size of the test set, adds to a sentence; nothing where it changes nothing."""
    gap = contrast.difference
    if gap.low is None or gap.high is None:
        return ""
    if gap.low <= 0 <= gap.high:
        found = contrast.detectable
        return "" if not found else f" A true difference of {found:.1f} points would be found in 80 % of such studies."
    if contrast.holm_p is None or contrast.holm_p < ALPHA:
        return ""
    return f" It does not stand once all {family} comparisons are counted (p {contrast.holm_p:.2f}, sign-flip test, Holm)."


def _bounds(interval: Interval, *, unit: str = "", flip: bool = False) -> str:
    """' (95 % interval 8.0 to 16.2)', or that there is none; `flip` gives the bounds of the negated value."""
    if interval.low is None or interval.high is None:
        return " (no interval)"
    low, high = (-interval.high, -interval.low) if flip else (interval.low, interval.high)
    return f" ({interval.level * 100:.0f} % interval {low:.1f}{unit} to {high:.1f}{unit})"


def in_order(subjects: Iterable[str], controls: Collection[str] = ()) -> list[str]:
    """Systems in the paper's order, then any others by name, then the controls: those of subjects by name, then `CONTROLS`."""
    known = dict.fromkeys(controls, (2, -1)) | {name: (0, index) for index, name in enumerate(SYSTEMS)}
    known |= {name: (2, index) for index, name in enumerate(CONTROLS)}
    return sorted(subjects, key=lambda name: (*known.get(name, (1, 0)), name))


def _contrasts(
    order: Sequence[str], wanted: Literal["named", "all"] | Sequence[tuple[str, str]], blind: Collection[str]
) -> Sequence[tuple[str, str]]:
    """What is tested; of all pairs the later system first, and a system before a control."""
    if not isinstance(wanted, str):
        return wanted
    if wanted == "named":
        return CONTRASTS
    pairs = [(one, other) for index, other in enumerate(order) for one in order[:index]]
    return [(one, other) if other in blind else (other, one) for one, other in pairs]


def kinds_of(pairs: Sequence[QAPair]) -> tuple[str, ...]:
    """The kinds of some pairs, those of CP-Bench in its order first."""
    present = {pair.kind for pair in pairs}
    return (*(kind for kind in KINDS if kind in present), *sorted(present - set(KINDS)))


def sheet_of(verdicts: Sequence[Verdict], pairs: Sequence[QAPair], subjects: Sequence[str] = ()) -> Sheet:
    """The scores of one judge's verdicts as arrays, over the pairs whose kinds are scored.

    Raises:
        DataError: A verdict is about a pair that is not in the benchmark, or the benchmark holds one pair twice.
    """
    known = {pair.id: pair for pair in pairs}
    if len(known) != len(pairs):
        raise DataError(f"the benchmark holds {len(pairs)} pairs but only {len(known)} different ones; a pair may stand in it once")
    strange = next((one for one in verdicts if one.pair_id not in known), None)
    if strange is not None:
        raise DataError(
            f"verdict {strange.id} is about pair {strange.pair_id}, which is not in the benchmark: the verdicts are of another run; "
            "judge again with undertone evaluate"
        )
    out = set(_APART)
    if not any(one.score is not None and known[one.pair_id].kind == _IF_SCORED for one in verdicts):
        out.add(_IF_SCORED)
    counted = [pair for pair in pairs if pair.kind not in out]
    place = {pair.id: index for index, pair in enumerate(counted)}
    judged: dict[str, list[Verdict]] = defaultdict(list)
    for one in verdicts:
        if one.pair_id in place:
            judged[one.subject].append(one)
    scores: dict[str, Floats] = {}
    by_run: dict[str, Floats] = {}
    reasons: dict[str, list[str | None]] = {}
    mapped: dict[str, list[str | None]] = {}
    for subject in {*judged, *subjects, *(one.subject for one in verdicts)}:
        of_it = sorted(judged[subject], key=lambda one: -one.run)
        given = np.full((max((one.run + 1 for one in of_it), default=0), len(counted)), np.nan)
        reasons[subject] = [MISSING] * len(counted)
        mapped[subject] = [None] * len(counted)
        for one in of_it:  # the first run last, so that its reason and label stay
            index = place[one.pair_id]
            given[one.run, index] = np.nan if one.score is None else one.score
            reasons[subject][index], mapped[subject][index] = one.unscored, one.mapped_label
        held = ~np.isnan(given)
        scores[subject] = np.full(len(counted), np.nan)
        np.divide(np.where(held, given, 0.0).sum(axis=0), held.sum(axis=0), out=scores[subject], where=held.any(axis=0))
        reasons[subject] = [None if has else why for has, why in zip(held.any(axis=0), reasons[subject], strict=True)]
        by_run[subject] = given
    return Sheet(counted, [pair.recording_id for pair in counted], scores, by_run, reasons, mapped)


def _columns(
    sheet: Sheet, order: Sequence[str], kinds: Sequence[str], tested: Sequence[tuple[str, str]], clean: NDArray[np.bool_]
) -> dict[tuple[str, ...], Floats]:
    """Every column of scores that the table has a mean of; all are resampled at once."""
    made: dict[tuple[str, ...], Floats] = {}
    of_kind = np.array([pair.kind for pair in sheet.pairs], dtype=str)
    for subject in order:
        scores = sheet.scores[subject]
        made["all", subject] = scores
        if not clean.all():
            made["clean", subject] = np.where(clean, scores, np.nan)
        for kind in kinds:
            made["kind", subject, kind] = np.where(of_kind == kind, scores, np.nan)
        if BASELINE in sheet.scores:
            made["gap", subject, BASELINE] = scores - sheet.scores[BASELINE]
    for first, second in tested:
        gap = sheet.scores[first] - sheet.scores[second]
        made["gap", first, second] = gap
        if not clean.all():
            made["clean gap", first, second] = np.where(clean, gap, np.nan)
    return made


def _row(
    sheet: Sheet,
    subject: str,
    kinds: Sequence[str],
    drawn: Resampled[tuple[str, ...]],
    clean: NDArray[np.bool_],
    *,
    control: bool,
) -> SubjectRow:
    everything = range(len(sheet.pairs))
    # A kind that nobody has a score of (the judge cannot score it) is in nobody's mean.
    scored = [kind for kind in kinds if any(drawn.means["kind", one, kind] is not None for one in sheet.scores)]

    def uas(of: Sequence[str]) -> Interval:
        return drawn.unweighted([("kind", subject, kind) for kind in of], over=("all", subject))

    groups = {name: [kind for kind in scored if kind in members] for name, members in GROUPS.items()}
    compared = subject != BASELINE and BASELINE in sheet.scores
    return SubjectRow(
        subject=subject,
        control=control,
        kinds={kind: _cell(sheet, subject, drawn.interval(("kind", subject, kind)), sheet.where({kind})) for kind in kinds},
        overall=_cell(sheet, subject, drawn.interval(("all", subject)), everything),
        unflagged=None
        if clean.all()
        else _cell(sheet, subject, drawn.interval(("clean", subject)), [index for index in everything if clean[index]]),
        uas=uas(scored),
        groups={name: uas(of) for name, of in groups.items() if of},
        gain_percent=drawn.gain(("all", subject), ("all", BASELINE), over=("gap", subject, BASELINE)) if compared else None,
        classes=_classes(sheet, subject),
    )


def _cell(sheet: Sheet, subject: str, score: Interval, indices: Sequence[int]) -> Cell:
    reasons, scores, mapped = sheet.reasons[subject], sheet.scores[subject], sheet.mapped[subject]
    counted = [index for index in indices if reasons[index] not in _PAIR_AT_FAULT]
    return Cell(
        score=score,
        pairs=len(indices),
        run_sd=_spread(sheet.runs[subject][:, list(indices)]),
        strict_mean=float(np.nansum(scores[counted]) / len(counted)) if counted else None,
        unscored=dict(sorted(Counter(reason for index in indices if (reason := reasons[index])).items())),
        unmapped=sum(
            sheet.pairs[index].label is not None and reasons[index] is None and mapped[index] is None for index in indices
        ),
    )


def _spread(runs: Floats) -> float | None:
    """The standard deviation over runs of each run's mean; `runs` has shape (runs, items), NaN where unscored."""
    means = [float(one[~np.isnan(one)].mean()) for one in runs if not np.isnan(one).all()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def _classes(sheet: Sheet, subject: str) -> dict[str, ClassMetrics]:
    """Class metrics per attribute over all pairs with a label of it; refused and missing answers are unmapped predictions."""
    held: dict[str, tuple[list[str], list[str | None]]] = defaultdict(lambda: ([], []))
    for pair, read in zip(sheet.pairs, sheet.mapped[subject], strict=True):
        if pair.label is not None and pair.label_attribute is not None:
            held[pair.label_attribute][0].append(pair.label)
            held[pair.label_attribute][1].append(read)
    return {attribute: metrics.class_metrics(*held[attribute]) for attribute in sorted(held)}
