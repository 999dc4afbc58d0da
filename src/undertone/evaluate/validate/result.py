"""What a validation found: figures with their intervals, and what could not be found."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from undertone.evaluate.agreement import SystemAgreement
from undertone.evaluate.metrics import Interval

ALL = "all sets"
FEW_SYSTEMS = 5
"""Below so many systems a rank correlation says next to nothing: three can be ordered in six ways."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class JudgeFacts(_Part):
    """One judge with one prompt: how much it scored, what failures do to its mean, and what it cost.

    Attributes:
        unscored: Verdicts without a score, by reason.
        grades: How often each grade was given; empty where there are more than eleven different ones.
        mean: Over the verdicts with a score.
        as_counted: As the suite counts: with its own value for what it could not read, and without what it leaves out.
        as_zero: With 0 for every verdict without a score.
        reread: With the grade that stands in a reply which the suite could not read; None where there is none to read.
        tokens, cost: Sums over the verdicts that say so.
        priced: How many verdicts say what they cost.
    """

    judge: str
    prompt: str
    sets: int
    systems: int
    verdicts: int
    scored: int
    unscored: dict[str, int]
    grades: dict[str, int]
    mean: Interval
    as_counted: Interval
    as_zero: Interval
    reread: float | None
    tokens: int | None
    cost: float | None
    priced: int


class RankAgreement(_Part):
    """Does the judge order systems as right and wrong answers do? `measure` is WA (share right) or macro F1 of the answers as classes."""

    judge: str
    prompt: str
    dataset: str
    attribute: str
    measure: Literal["WA", "macro F1"]
    items: int
    agreement: SystemAgreement


class Bin(_Part):
    """Answers of one grade, or of a tenth of the scale: how many, and which share of them is right.

    `unmapped` of them were read as no class, which counts as wrong, though it may be the reading that failed.
    """

    low: float
    high: float
    n: int
    unmapped: int
    correct: Interval


class Calibration(_Part):
    """Does the share of right answers rise with the score (2508.07273, V.B.4)?

    Attributes:
        bins: In the order of the scores.
        auc: The chance that a right answer scores above a wrong one.
        slope: Points of the share correct, 0 to 100, gained over the whole scale, by a line through all answers.
        falls: Neighbouring bins between which the share falls by more than its interval.
        off_isotonic: Largest distance of a bin's share from the best rising curve, in points.
        rises: "yes" where the slope's interval is above 0 and no step falls; "no" where the slope's is below 0 or a step falls.
    """

    judge: str
    prompt: str
    dataset: str
    attribute: str
    n: int
    bins: tuple[Bin, ...]
    auc: Interval
    slope: Interval
    falls: tuple[str, ...]
    off_isotonic: float | None
    rises: Literal["yes", "no", "cannot be told"]


class RaterAgreement(_Part):
    """Two raters on the same answers, run by run: two judges, two prompts of one judge, or a judge and people.

    Attributes:
        n: Pairs of verdicts with a score from both.
        other_answers: Questions to one system that both judged, but with different words in the answer or the question; these say nothing
            about agreement and are left out.
        same: Share of pairs with the same score.
        kappa: Cohen's, quadratic weights on the grades; undefined where there are no common grades.
        alpha: Krippendorff's, ordinal.
        pearson: Of the scores.
        difference: First minus second, in points.
    """

    kind: Literal["judges", "prompts", "human"]
    first: str
    second: str
    dataset: str
    n: int
    other_answers: int
    same: float | None
    kappa: Interval
    alpha: Interval
    pearson: Interval
    difference: Interval


class Consistency(_Part):
    """One judge over its runs of the same answers. `sd` is the mean of the answers' standard deviations, in points."""

    judge: str
    prompt: str
    dataset: str
    runs: int
    answers: int
    sd: Interval
    same: Interval
    alpha: Interval


class WholeSet(_Part):
    """A header beside the rows that its log shows.

    `score` is the suite's own figure over the whole set and `honest` the same without its failures, both from the header; `kept_score` and
    `kept_honest` are recomputed from the kept rows. `right` is the share of kept answers that are right by their class.
    """

    dataset: str
    system: str
    judge: str
    prompt: str
    score: float
    honest: float | None
    success_rate: float | None
    n: int | None
    n_multiple_of: int | None
    kept: int
    kept_score: float | None
    kept_honest: float | None
    right: float | None
    order: int


class WholeAgreement(_Part):
    """Two figures of the same systems, at least one of them from headers: over the systems of one set, or over all systems and sets.

    No rows stand behind a header, so there is no interval over items; `p` is that of the Spearman correlation if every order were equally
    likely. `gap` is the mean of first minus second in points, `spread` the standard deviation of the differences.
    """

    dataset: str
    first: str
    second: str
    n: int
    spearman: float | None
    kendall: float | None
    pearson: float | None
    p: float | None
    gap: float | None
    spread: float | None


class Validation(_Part):
    """All of it; `notes` say what the files do not hold, `warnings` what in the figures is not to be relied on."""

    source: str
    format: str
    seed: int
    resamples: int
    verdicts: int
    answers: int
    recordings: int
    systems: tuple[str, ...]
    datasets: tuple[str, ...]
    attributes: dict[str, str]
    judges: tuple[JudgeFacts, ...]
    ranks: tuple[RankAgreement, ...]
    calibration: tuple[Calibration, ...]
    agreement: tuple[RaterAgreement, ...]
    consistency: tuple[Consistency, ...]
    whole: tuple[WholeSet, ...]
    whole_agreement: tuple[WholeAgreement, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the text of `to_json`."""
        return cls.model_validate_json(text)
