"""What a benchmark is reported by: strict figures, and beside them what its own scorer would have printed for the same verdicts.

Strict: means over the verdicts that have a score, those without counted by reason. Compat: AudioBench's arithmetic, in which a verdict that
could not be read is 0 and only lowers the "success rate". Intervals and tests between systems stand in the study table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from undertone.errors import ConfigError
from undertone.evaluate import mapping, metrics
from undertone.evaluate.benchmarks.protocol import Benchmark
from undertone.evaluate.dimensions import dimension_metrics
from undertone.evaluate.study_table import GROUPS, MISSING
from undertone.records import Answer, QAPair, Verdict

OVERALL, UAS = "overall", "UAS"
CLASSES = ("WA", "UA", "macro F1")
VALUES = ("CCC", "MAE")


class Figure(BaseModel):
    """One figure of one subject.

    Attributes:
        name: "overall" (mean over questions), a kind, "UAS" or "UAS CP" (plain mean over kinds), "WA emotion", "CCC valence", ...
        value: The strict figure, 0..100 for scores and class metrics, -1..1 for CCC, 0..1 for MAE; None where it has none.
        compat: What the set's own scorer would have said; None where it has no such figure.
        n: Questions that it is of.
        unscored: Those of them without a score (a class, a value), by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float | None
    compat: float | None = None
    n: int
    unscored: dict[str, int] = {}


class SubjectFigures(BaseModel):
    """All figures of one subject, the quoted one first; `success_rate` is AudioBench's share of verdicts that could be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    figures: tuple[Figure, ...]
    success_rate: float | None

    def __getitem__(self, name: str) -> Figure:
        """The figure of a name."""
        return next(one for one in self.figures if one.name == name)


class Summary(BaseModel):
    """A benchmark's figures for all subjects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    mode: str
    judge: str
    runs: int
    subjects: tuple[SubjectFigures, ...]

    def of(self, subject: str) -> SubjectFigures:
        """The figures of one subject."""
        return next(one for one in self.subjects if one.subject == subject)

    def quoted(self, subject: str) -> float | None:
        """The first figure, by the mode."""
        first = self.of(subject).figures[0]
        return first.compat if self.mode == "compat" else first.value

    def plain_text(self) -> str:
        """The figures for a terminal, with what the two ways to count differ by."""
        lines = [f"{self.benchmark} ({self.mode}), judge {self.judge or 'none'}, runs {self.runs}"]
        for one in self.subjects:
            lines.append(one.subject)
            for figure in one.figures:
                told = "none" if figure.value is None else f"{figure.value:.2f}"
                lost = f", unscored {_counts(figure.unscored)}" if figure.unscored else ""
                lines.append(f"  {figure.name:<16} {told:>8}   n {figure.n}{lost}")
                if figure.compat is not None and figure.value is not None and abs(figure.compat - figure.value) > 1e-9:
                    lines.append(
                        f"  {'':<16} {figure.compat:>8.2f}   as its own scorer counts: {figure.compat - figure.value:+.2f} points, "
                        "from counting what has no score as 0"
                    )
        return "\n".join(lines) + "\n"


def summary(
    benchmark: Benchmark,
    pairs: Sequence[QAPair],
    answers: Iterable[Answer],
    verdicts: Iterable[Verdict],
    *,
    subjects: Sequence[str] = (),
) -> Summary:
    """The figures of a benchmark.

    Args:
        benchmark: The definition; says which figures there are.
        pairs: Its questions.
        answers: Of all subjects, for figures of classes and values.
        verdicts: Of one judge, in all its runs; of pairs that are not in the benchmark none.
        subjects: Who was asked, besides those that answered.

    Raises:
        ConfigError: The verdicts are of several judges.
    """
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for answer in answers:
        said[answer.subject][answer.pair_id] = answer.text
    judged: dict[str, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    judges, runs = set(), 0
    for one in verdicts:
        judged[one.subject][one.pair_id].append(one)
        judges.add(one.judge)
        runs = max(runs, one.run + 1)
    if len(judges) > 1:
        raise ConfigError(f"a benchmark's figures are of one judge; the verdicts are by {', '.join(sorted(judges))}")
    names = dict.fromkeys([*subjects, *said, *judged])
    return Summary(
        benchmark=benchmark.title,
        mode=benchmark.mode,
        judge=next(iter(judges), ""),
        runs=runs,
        subjects=tuple(_Subject(name, benchmark, pairs, said[name], judged[name], runs).figures() for name in names),
    )


@dataclass(frozen=True)
class _Subject:
    name: str
    benchmark: Benchmark
    pairs: Sequence[QAPair]
    said: Mapping[str, str]
    judged: Mapping[str, Sequence[Verdict]]
    runs: int

    def figures(self) -> SubjectFigures:
        made = [figure for name in self.benchmark.figures() for figure in self._of(name)]
        return SubjectFigures(subject=self.name, figures=tuple(made), success_rate=self._success())

    def _success(self) -> float | None:
        runs = [one for pair in self.pairs for one in self._runs(pair)]
        return sum(one is not None for one in runs) / len(runs) if runs else None

    def _runs(self, pair: QAPair) -> list[float | None]:
        """The scores of a pair in all runs; what is not there is None."""
        found = {one.run: one.score for one in self.judged.get(pair.id, ())}
        return [found.get(run) for run in range(self.runs)]

    def _of(self, name: str) -> list[Figure]:
        what, _, about = name.partition(" ")
        if name == OVERALL:
            return [self._mean(OVERALL, self.pairs)]
        if what == UAS:
            return [self._unweighted(name, GROUPS[about] if about else None)]
        if name == "kinds":
            return [self._mean(kind, self._kind(kind)) for kind in dict.fromkeys(pair.kind for pair in self.pairs)]
        if name == "classes":
            return self._classes()
        return self._values()

    def _kind(self, kind: str) -> list[QAPair]:
        return [pair for pair in self.pairs if pair.kind == kind]

    def _mean(self, name: str, pairs: Sequence[QAPair]) -> Figure:
        means, zeros = [], []
        lost: Counter[str] = Counter()
        for pair in pairs:
            runs = self._runs(pair)
            scored = [one for one in runs if one is not None]
            zeros.append(sum(scored) / len(runs) if runs else 0.0)
            if scored:
                means.append(sum(scored) / len(scored))
            else:
                reasons = [one.unscored for one in self.judged.get(pair.id, ()) if one.unscored]
                lost[reasons[0] if reasons else MISSING] += 1
        compat = float(np.mean(zeros)) if zeros and self.benchmark.DEFECT else None
        return Figure(
            name=name,
            value=float(np.mean(means)) if means else None,
            compat=compat,
            n=len(pairs),
            unscored=dict(sorted(lost.items())),
        )

    def _unweighted(self, name: str, kinds: Sequence[str] | None) -> Figure:
        present = [kind for kind in dict.fromkeys(pair.kind for pair in self.pairs) if kinds is None or kind in kinds]
        of = [self._mean(kind, self._kind(kind)) for kind in present]
        values = [one.value for one in of if one.value is not None]
        lost = sum((Counter(one.unscored) for one in of), Counter[str]())
        return Figure(
            name=name,
            # A mean over the other kinds would be of something else.
            value=float(np.mean(values)) if of and len(values) == len(of) else None,
            n=sum(one.n for one in of),
            unscored=dict(sorted(lost.items())),
        )

    def _classes(self) -> list[Figure]:
        """WA, UA and macro F1 of each attribute with classes, read from the answers in the set's own words; a refusal is wrong."""
        held: dict[str, tuple[list[str], list[str | None]]] = {}
        for pair in self.pairs:
            attribute = pair.label_attribute or self.benchmark.attribute()
            if attribute is None or attribute in self.benchmark.scales() or pair.kind not in ("DE", "DG", "DS"):
                continue
            right = pair.label or self.benchmark.read_class(pair.answer, attribute)
            if right is not None:
                truths, guesses = held.setdefault(attribute, ([], []))
                truths.append(right)
                text = self.said.get(pair.id)
                guesses.append(None if text is None else self.benchmark.read_class(text, attribute))
        made = []
        for attribute, (truths, guesses) in held.items():
            found = metrics.class_metrics(truths, guesses)
            lost = {"unmapped": found.unmapped} if found.unmapped else {}
            for name, value in zip(CLASSES, (found.wa, found.ua, found.macro_f1), strict=True):
                made.append(
                    Figure(name=f"{name} {attribute}", value=None if value is None else 100 * value, n=found.n, unscored=lost)
                )
        return made

    def _values(self) -> list[Figure]:
        made = []
        for attribute, scale in self.benchmark.scales().items():
            pairs = [pair for pair in self.pairs if pair.label_attribute == attribute]
            truths = [mapping.to_value(pair.answer, attribute, scale=scale).value for pair in pairs]
            known = [(pair, truth) for pair, truth in zip(pairs, truths, strict=True) if truth is not None]
            guesses = [
                mapping.to_value(self.said[pair.id], attribute, scale=scale).value if pair.id in self.said else None
                for pair, _ in known
            ]
            if not known:
                continue
            found = dimension_metrics([truth for _, truth in known], guesses)
            lost = {"unmapped": found.unmapped} if found.unmapped else {}
            made += [
                Figure(name=f"{name} {attribute}", value=value, n=found.n, unscored=lost)
                for name, value in zip(VALUES, (found.ccc, found.mae), strict=True)
            ]
        return made


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())
