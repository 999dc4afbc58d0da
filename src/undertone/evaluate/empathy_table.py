"""The empathy table: mean levels of EPITOME's mechanisms per system, gains over baselines, and the class that the system names.

As in RE-LLM (2602.10716): gain in percent of the baseline's mean level, significance by Wilcoxon's signed-rank test, emotion recognition as
unweighted accuracy of the word that the same system generates. Levels go from 0 to 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError
from undertone.evaluate import metrics
from undertone.evaluate.empathy import POINTS, SHORT, mechanism_of
from undertone.evaluate.epitome import LEVELS, MECHANISMS, Mechanism
from undertone.evaluate.manner import NAME as MANNER
from undertone.evaluate.metrics import ClassMetrics, Floats, Interval
from undertone.evaluate.significance import SignedRank, corrected, signed_rank
from undertone.records import QAPair, Verdict

ALPHA = 0.05


class Levels(BaseModel):
    """One system's levels of one mechanism.

    Attributes:
        mean: Mean level with its interval over recordings.
        shares: Of the levels 0, 1 and 2 among scored replies.
        unscored: Replies without a level; they enter no mean.
        gains: Percent over each baseline, by its role.
        tests: Against each baseline, by its role; corrected over the whole table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Interval
    shares: tuple[float, float, float] | None
    unscored: int
    gains: dict[str, Interval]
    tests: dict[str, SignedRank]


class EmpathyRow(BaseModel):
    """One system.

    Attributes:
        subject: Its name.
        levels: Of each mechanism.
        named: How right the class is that it names in direct emotion questions; None without such questions.
        suited: Percent of its replies that are in the manner for the speaker's emotion (`manner.MannerJudge`); None where nobody judged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    levels: dict[Mechanism, Levels]
    named: ClassMetrics | None
    suited: Interval | None = None


class EmpathyTable(BaseModel):
    """All systems.

    Attributes:
        judges: The judge of each mechanism.
        baselines: The subject in each role ("text only", "speech LLM").
        replies, recordings: How many replies each system should give, and to how many recordings.
        questions: Direct emotion questions with a label.
        grouped: Whether the tests rank one difference for each recording rather than for each reply.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judges: dict[Mechanism, str]
    baselines: dict[str, str]
    replies: int
    recordings: int
    questions: int
    grouped: bool
    resamples: int
    seed: int
    rows: tuple[EmpathyRow, ...]

    def row(self, subject: str) -> EmpathyRow | None:
        """The row of a system."""
        return next((one for one in self.rows if one.subject == subject), None)

    def to_json(self) -> str:
        """The table as JSON; `from_json` reads it back to an equal object."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A table from its JSON."""
        return cls.model_validate_json(text)

    def plain_text(self) -> str:
        """The table for a terminal."""
        return "\n".join([*_sheet(self), "", *sentences(self)])


def build(
    verdicts: Iterable[Verdict],
    pairs: Sequence[QAPair],
    *,
    baselines: Mapping[str, str] | None = None,
    order: Sequence[str] = (),
    grouped: bool | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> EmpathyTable:
    """Compute the table.

    Args:
        verdicts: Of `EmpathyJudge`, one judge for each mechanism, and of `MannerJudge`, on replies; and of any one other judge, whose
            `mapped_label` says what the systems name in direct emotion questions.
        pairs: The benchmark; replies (REPLY) and direct emotion questions (DE) count.
        baselines: Role to subject.
        order: Subjects in the order of their rows; others follow by name.
        grouped: Whether the tests average the replies to one recording first; None does where a recording has several.
        resamples: Bootstrap resamples of recordings.
        seed: Seed of the bootstrap.

    Raises:
        DataError: There are no verdicts of an empathy judge, several judges share a mechanism, or a baseline has no replies.
    """
    replies = [pair for pair in pairs if pair.kind == "REPLY"]
    asked = [pair for pair in pairs if pair.kind == "DE" and pair.label is not None and pair.label_attribute == "emotion"]
    judges, levels, named, suits = _sorted_out(verdicts, replies, asked)
    roles = dict(baselines or {})
    place = {name: index for index, name in enumerate(order)}
    subjects = sorted(
        {subject for found in levels.values() for subject in found}, key=lambda name: (place.get(name, len(place)), name)
    )
    if lacking := sorted(set(roles.values()) - set(subjects)):
        raise DataError(f"baselines {', '.join(lacking)} gave no replies; those that did: {', '.join(subjects)}")
    clusters = [pair.recording_id for pair in replies]
    by_recording = len(set(clusters)) < len(clusters) if grouped is None else grouped
    missing = np.full(len(replies), np.nan)
    tests: dict[tuple[str, Mechanism, str], SignedRank] = {}
    for subject in subjects:
        for mechanism, found in levels.items():
            for role, baseline in roles.items():
                if subject != baseline:
                    tests[subject, mechanism, role] = signed_rank(
                        found.get(subject, missing),
                        found.get(baseline, missing),
                        clusters=clusters if by_recording else None,
                        names=(subject, baseline),
                    )
    tests = dict(zip(tests, corrected(list(tests.values())), strict=True))

    def cell(subject: str, mechanism: Mechanism) -> Levels:
        own = levels[mechanism].get(subject, missing)
        scored = own[~np.isnan(own)]
        against = {role: other for role, other in roles.items() if other != subject}
        return Levels(
            mean=metrics.bootstrap_means(own, clusters, resamples=resamples, seed=seed)[0],
            shares=_shares(scored),
            unscored=len(own) - len(scored),
            gains={
                role: metrics.relative_gain(own, levels[mechanism].get(other, missing), clusters, resamples=resamples, seed=seed)
                for role, other in against.items()
            },
            tests={role: tests[subject, mechanism, role] for role in against},
        )

    return EmpathyTable(
        judges=judges,
        baselines=roles,
        replies=len(replies),
        recordings=len(set(clusters)),
        questions=len(asked),
        grouped=by_recording,
        resamples=resamples,
        seed=seed,
        rows=tuple(
            EmpathyRow(
                subject=subject,
                levels={mechanism: cell(subject, mechanism) for mechanism in MECHANISMS if mechanism in levels},
                named=_named(named.get(subject), asked),
                suited=metrics.bootstrap_means(suits[subject], clusters, resamples=resamples, seed=seed)[0]
                if subject in suits
                else None,
            )
            for subject in subjects
        ),
    )


def sentences(table: EmpathyTable) -> list[str]:
    """What the comparisons say, in words, and what the figures do not hold."""
    found = [
        _said(row, mechanism, role, test)
        for row in table.rows
        for mechanism, cell in row.levels.items()
        for role, test in cell.tests.items()
        if test.p is not None
    ]
    if found:
        unit = "recording, over which the replies to it are averaged" if table.grouped else "reply"
        found.append(
            f"Wilcoxon signed-rank tests, one difference for each {unit}; pairs without a difference are left out of the ranks; p corrected "
            f"by Holm over {sum(len(cell.tests) for row in table.rows for cell in row.levels.values())} comparisons."
        )
    lacking = {row.subject: max(cell.unscored for cell in row.levels.values()) for row in table.rows}
    if counts := [f"{subject} {count:,}" for subject, count in lacking.items() if count]:
        found.append(f"Replies without a level, of {table.replies:,} each: {', '.join(counts)}.")
    return found


def _said(row: EmpathyRow, mechanism: Mechanism, role: str, test: SignedRank) -> str:
    gain = row.levels[mechanism].gains[role]
    size = "has no gain to give, for the baseline's mean is 0 or unknown" if gain.mean is None else f"{gain.mean:+.1f} %"
    start = f"{row.subject}, {SHORT[mechanism]} over {role} ({test.second}): {size}"
    if test.p is None or test.holm_p is None:
        return f"{start}; no reply of both has a level."
    counts = f"{test.higher:,} higher, {test.lower:,} lower, {test.zeros:,} equal"
    effect = "" if test.effect is None else f", rank-biserial {test.effect:+.2f}"
    sure = "differs" if test.holm_p < ALPHA else "no difference that can be told"
    return f"{start}; {counts}{effect}, p {test.p:.2g}, corrected {test.holm_p:.2g}: {sure}."


def _sheet(table: EmpathyTable) -> list[str]:
    width = max((len(row.subject) for row in table.rows), default=0)
    heads = " ".join(f"{SHORT[one]:>20}" for one in table.judges)
    lines = [
        f"Empathy levels (0 none, 1 weak, 2 strong) of {table.replies:,} replies to {table.recordings:,} recordings",
        "",
        f"{'':{width}} {heads} {'suits':>20} {'UA':>7}",
    ]
    for row in table.rows:
        cells = " ".join(f"{_level(row.levels[one]):>20}" for one in table.judges)
        ua = "-" if row.named is None or row.named.ua is None else f"{100 * row.named.ua:.1f} %"
        lines.append(f"{row.subject:{width}} {cells} {_share(row.suited):>20} {ua:>7}")
    return lines


def _share(suited: Interval | None) -> str:
    if suited is None or suited.mean is None:
        return "-"
    return f"{suited.mean:.1f} %" + ("" if suited.low is None or suited.high is None else f" ({suited.low:.1f}-{suited.high:.1f})")


def _level(cell: Levels) -> str:
    mean = cell.mean
    if mean.mean is None:
        return "no level"
    return f"{mean.mean:.3f}" + ("" if mean.low is None or mean.high is None else f" ({mean.low:.3f}-{mean.high:.3f})")


def _sorted_out(
    verdicts: Iterable[Verdict], replies: Sequence[QAPair], asked: Sequence[QAPair]
) -> tuple[dict[Mechanism, str], dict[Mechanism, dict[str, Floats]], dict[str, dict[str, str | None]], dict[str, Floats]]:
    """The judge of each mechanism; levels (replies,) by mechanism and subject; what subjects name, by subject and question; how their replies
    suit the speaker, 0 or 100 (replies,) by subject.
    """
    place = {pair.id: index for index, pair in enumerate(replies)}
    questions = {pair.id for pair in asked}
    judges: dict[Mechanism, set[str]] = defaultdict(set)
    others: set[str] = set()
    held: dict[Mechanism, dict[str, Floats]] = defaultdict(dict)
    named: dict[str, dict[str, str | None]] = defaultdict(dict)
    suits: dict[str, Floats] = {}
    for one in verdicts:
        mechanism = mechanism_of(one.judge)
        if mechanism is not None and one.pair_id in place:
            judges[mechanism].add(one.judge)
            own = held[mechanism].setdefault(one.subject, np.full(len(replies), np.nan))
            if one.score is not None:
                own[place[one.pair_id]] = one.score / POINTS
        elif one.judge.startswith(f"{MANNER}@") and one.pair_id in place:
            suits.setdefault(one.subject, np.full(len(replies), np.nan))[place[one.pair_id]] = (
                np.nan if one.score is None else one.score
            )
        elif mechanism is None and one.pair_id in questions:
            others.add(one.judge)
            named[one.subject].setdefault(one.pair_id, one.mapped_label)
    several = [found for found in (*judges.values(), others) if len(found) > 1]
    if several:
        raise DataError(f"one table is of one judge for each measure, but there are verdicts by {', '.join(sorted(several[0]))}")
    if not judges:
        raise DataError(
            "there are no verdicts of an empathy judge on replies (kind REPLY); judge them with {kind: epitome, mechanism: ...}"
        )
    order = [one for one in MECHANISMS if one in judges]
    return {one: next(iter(judges[one])) for one in order}, {one: held[one] for one in order}, named, suits


def _named(found: Mapping[str, str | None] | None, asked: Sequence[QAPair]) -> ClassMetrics | None:
    """Over all questions: one that the system did not answer is wrong."""
    if not found:
        return None
    return metrics.class_metrics([pair.label or "" for pair in asked], [found.get(pair.id) for pair in asked])


def _shares(scored: Floats) -> tuple[float, float, float] | None:
    if not len(scored):
        return None
    counts = np.bincount(scored.round().astype(int), minlength=LEVELS)
    none, weak, strong = (float(one) / len(scored) for one in counts)
    return none, weak, strong
