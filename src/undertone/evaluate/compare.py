"""Several runs of one study beside each other: does a result stand under another seed, or what does one changed setting do?

Two things vary: which recordings are in the test set, and what a training comes to. The bootstrap draws both, runs and recordings (Owen,
2007, "The pigeonhole bootstrap"): a recording that several runs were asked about is drawn for all of them at once, because what it contributes
to one run it contributes to the others. Of few runs a bootstrap shows too little spread, by sqrt((N-1)/N), and three runs can be drawn in only
ten ways. So the t interval over the runs' own means stands beside it; that one in turn does not know that all runs share their recordings.
Where the two differ, the wider one is to be believed, and a sentence is made only of what both say. (Of runs that were asked about recordings
of their own the bootstrap is rather too wide, since whoever draws runs draws their recordings with them.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.errors import ConfigError, DataError
from undertone.evaluate import metrics
from undertone.evaluate.metrics import Floats, Interval, Resampled, interval_of
from undertone.evaluate.study_table import CONTRASTS, Sheet, StudyTable, in_order, kinds_of, of_one_judge, sheet_of
from undertone.evaluate.verdicts import verdicts_on_questions
from undertone.paths import Location
from undertone.records import QAPair, Verdict

OVERALL, UAS, UNFLAGGED = "overall", "UAS", "unflagged"

_ALIKE = frozenset({"name", "parts", "max_failed_share", "evaluate.resamples"})
"""Settings that no score depends on."""


@dataclass(frozen=True)
class StudiedRun:
    """A finished run: its settings as a tree, and the scores of one judge. `order` are its subjects in the table's order."""

    name: str
    settings: Mapping[str, Any]
    judge: str
    sheet: Sheet

    @property
    def seed(self) -> int:
        """The study's seed."""
        return int(self.settings.get("seed", 0))


class OverRuns(BaseModel):
    """A figure over several runs.

    Attributes:
        values: Of each run, None where it has none.
        sd: Standard deviation (n - 1) over the runs; None with fewer than two.
        interval: The mean over runs, with the interval of the bootstrap over runs and recordings.
        t_low: Lower bound of the t interval over the runs' values; None with fewer than two.
        t_high: Its upper bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: tuple[float | None, ...]
    sd: float | None
    interval: Interval
    t_low: float | None
    t_high: float | None

    @property
    def same_sign(self) -> int:
        """In how many runs the value has the sign of the mean."""
        mean = self.interval.mean
        return sum(one is not None and mean is not None and one * mean > 0 for one in self.values)


class RunFacts(BaseModel):
    """One of the runs that are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label: str
    seed: int
    pairs: int
    recordings: int


class SystemRow(BaseModel):
    """One system under one value of the setting.

    Its scores are by kind, the two means over all kinds (`overall`, `UAS`), and that of questions without
    a flag (`unflagged`) where any run has questions with one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    label: str
    scores: dict[str, OverRuns]

    @property
    def name(self) -> str:
        """As it stands in a table."""
        return _named(self.subject, self.label)


class RunContrast(BaseModel):
    """First minus second in points, in every run and over all: two systems of a run, or one system under two values of the setting.

    `values` of the difference are of single runs, or where runs of two settings have the same seeds of pairs of runs; else there are none.
    `unflagged` is the same over the questions without a flag; None where no question of any run has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    difference: OverRuns
    unflagged: OverRuns | None = None


class Comparison(BaseModel):
    """All that a comparison of runs found.

    Attributes:
        runs: What was compared.
        by: The setting that the runs differ in on purpose; None where only seeds differ.
        differ: Further settings that differ, with their value in each run: only where the user wanted them compared anyway.
        judge: Whose scores.
        kinds: Kinds of questions.
        recordings: Test recordings of all runs together.
        shared: Those that all runs share.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.
        rows: Systems.
        contrasts: Comparisons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: tuple[RunFacts, ...]
    by: str | None
    differ: dict[str, tuple[str, ...]]
    judge: str
    kinds: tuple[str, ...]
    recordings: int
    shared: int
    resamples: int
    seed: int
    rows: tuple[SystemRow, ...]
    contrasts: tuple[RunContrast, ...]

    def to_json(self) -> str:
        """The comparison as JSON; `from_json` reads it back to an equal object."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A comparison from its JSON."""
        return cls.model_validate_json(text)

    def plain_text(self, *, width: int = 100) -> str:
        """The comparison for a terminal."""
        from undertone.evaluate.compare_text import plain_text

        return plain_text(self, width=width)


def read_run(folder: Location, settings: Mapping[str, Any] | None = None, *, judge: str | None = None) -> StudiedRun:
    """Read what a finished run found.

    Args:
        folder: The run's folder.
        settings: Its study as a tree with all defaults, so that runs of two versions compare; what run.json holds where left out.
        judge: Which judge, where several judged; that of the study table where left out.

    Raises:
        DataError: The folder is no run's, or its evaluation is not finished.
        ConfigError: Several judges judged and `judge` is none of them.
    """
    record, result = folder / "run.json", folder / "evaluate" / "study.json"
    if not record.is_file():
        raise DataError(f"{folder} is not a run's folder (no run.json); expected one that undertone run has finished")
    if not result.is_file():
        raise DataError(
            f"{folder} has no evaluate/study.json: it is not evaluated yet. Finish it with: undertone evaluate {folder}"
        )
    pairs = list(tables.open_table(folder / "evaluate" / "benchmark", QAPair).rows())
    asked = judge is not None  # without a name it is the judge of the study table
    verdicts = verdicts_on_questions(folder) if asked else tables.open_table(folder / "evaluate" / "verdicts", Verdict).rows()
    table = StudyTable.from_json(result.read_text(encoding="utf-8"))
    chosen, name = of_one_judge(verdicts, judge)
    found = settings if settings is not None else json.loads(record.read_text(encoding="utf-8"))["study"]
    return StudiedRun(str(folder), found, name, sheet_of(chosen, pairs, [row.subject for row in table.rows]))


def compare(
    runs: Sequence[StudiedRun],
    *,
    by: str | None = None,
    anyway: bool = False,
    contrasts: Sequence[tuple[str, str]] = CONTRASTS,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Put the runs beside each other.

    Args:
        runs: At least two.
        by: A setting that they may differ in, as in the study file ("model.adapter.kind"); runs with the same value are runs of one row.
        anyway: Compare runs that differ in more than their seeds and `by`; what differs is kept in the result.
        contrasts: Pairs of systems that are compared within each value of `by`.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Raises:
        ConfigError: There are fewer than two runs, one stands there twice, `by` is no setting, or they are of different studies.
    """
    if len(runs) < 2:
        raise ConfigError(f"a comparison is of at least two runs, got {len(runs)}")
    names = [run.name for run in runs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{twice[0]} is given twice; a run counts once")
    labels = [_label(run, by) for run in runs]
    differ = differences([{**run.settings, "judge": run.judge} for run in runs], but=by)
    if differ and not anyway:
        raise ConfigError(
            f"these runs are of different studies: {told(differ)}. Runs that differ in nothing but their seed can be compared; one setting "
            "that they differ in on purpose is named with --by KEY, and --anyway compares whatever differs"
        )
    if not anyway:
        _refuse_copies(runs, labels)
    drawn = _draw(runs, contrasts, resamples=resamples, seed=seed)
    kinds = tuple(dict.fromkeys(kind for run in runs for kind in kinds_of(run.sheet.pairs)))
    places = {label: [index for index, one in enumerate(labels) if one == label] for label in dict.fromkeys(labels)}
    flagged = any(pair.flags for run in runs for pair in run.sheet.pairs)
    maker = _Maker(runs=runs, drawn=drawn, places=places, seed=seed, flagged=flagged)
    panels = (*kinds, OVERALL, *((UNFLAGGED,) if flagged else ()), UAS)
    subjects = in_order({subject for run in runs for subject in run.sheet.scores})
    recordings = [set(run.sheet.clusters) for run in runs]
    return Comparison(
        runs=tuple(
            RunFacts(name=run.name, label=label, seed=run.seed, pairs=len(run.sheet.pairs), recordings=len(held))
            for run, label, held in zip(runs, labels, recordings, strict=True)
        ),
        by=by,
        differ=differ if anyway else {},
        judge=" | ".join(dict.fromkeys(run.judge for run in runs)),
        kinds=kinds,
        recordings=len(set.union(*recordings)),
        shared=len(set.intersection(*recordings)),
        resamples=resamples,
        seed=seed,
        rows=tuple(
            SystemRow(
                subject=subject,
                label=label,
                scores={name: maker.over_runs(label, (subject, name)) for name in panels},
            )
            for subject in subjects
            for label in places
            if any(subject in runs[index].sheet.scores for index in places[label])
        ),
        contrasts=tuple(maker.contrasts(subjects, contrasts)),
    )


def differences(settings: Sequence[Mapping[str, Any]], *, but: str | None = None) -> dict[str, tuple[str, ...]]:
    """The settings that differ between studies, with their value in each; seeds, and what no score depends on, are left out.

    Args:
        settings: Studies as trees.
        but: A setting that may differ. Where it says what kind a section is of ("model.adapter.kind"), so may the rest of the section.
    """
    flat = [dict(_leaves(one)) for one in settings]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {key: tuple(_said(one.get(key, "-")) for one in flat) for key in keys if not _may_differ(key, but)}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def told(differ: Mapping[str, Sequence[str]], *, most: int = 8) -> str:
    """Differences in a sentence's middle: "train.steps: 500 | 900; ..."."""
    said = "; ".join(f"{key}: {' | '.join(values)}" for key, values in list(differ.items())[:most])
    return said + (f"; and {len(differ) - most} more" if len(differ) > most else "")


def _refuse_copies(runs: Sequence[StudiedRun], labels: Sequence[str]) -> None:
    """Refuse a run that is another one made again: same study, same seed, same tables."""
    seen: dict[tuple[str, int], str] = {}
    for run, label in zip(runs, labels, strict=True):
        before = seen.setdefault((label, run.seed), run.name)
        if before != run.name:
            raise ConfigError(
                f"{before} and {run.name} both have seed {run.seed}: one study with one seed is one run, however often it is made. "
                "Make another with: undertone run STUDY --seed N (--anyway counts both)"
            )


def _label(run: StudiedRun, by: str | None) -> str:
    if by is None:
        return ""
    flat = dict(_leaves(run.settings))
    if by not in flat:
        below = [key for key in flat if key.startswith(f"{by}.")]
        near = (
            below or [key for key in flat if key.startswith(by.split(".")[0] + ".")] or sorted({key.split(".")[0] for key in flat})
        )
        raise ConfigError(f"--by {by}: {run.name} has no such setting; expected one such as {', '.join(near[:8])}")
    return _said(flat[by])


def _may_differ(key: str, but: str | None) -> bool:
    if key in _ALIKE or key == "seed" or key.endswith(".seed") or key == but:
        return True
    section, _, last = (but or "").rpartition(".")
    return last in ("kind", "name") and key.startswith(f"{section}.")


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a tree by dotted path; the members of a list of named sections by their names."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list) and tree and all(isinstance(one, Mapping) and "name" in one for one in tree):
        for one in tree:
            yield from _leaves(one, f"{path}.{one['name']}")
    else:
        yield path, tree


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _named(subject: str, label: str) -> str:
    return f"{subject} ({label})" if label else subject


Key = tuple[str, ...]


def _draw(runs: Sequence[StudiedRun], contrasts: Sequence[tuple[str, str]], *, resamples: int, seed: int) -> list[Resampled[Key]]:
    """The means of every run over the same draws of recordings.

    A run that lacks some of them is given a row without scores for each, so that all runs draw from one list of names.
    """
    everything = sorted({name for run in runs for name in run.sheet.clusters})
    made = []
    for run in runs:
        sheet = run.sheet
        absent = sorted(set(everything) - set(sheet.clusters))
        of_kind = np.array([pair.kind for pair in sheet.pairs], dtype=str)
        clean = np.array([not pair.flags for pair in sheet.pairs], dtype=bool)
        columns: dict[Key, Floats] = {}
        for subject, scores in sheet.scores.items():
            columns[subject, OVERALL] = scores
            columns[subject, UNFLAGGED] = np.where(clean, scores, np.nan)
            for kind in kinds_of(sheet.pairs):
                columns[subject, kind] = np.where(of_kind == kind, scores, np.nan)
        for first, second in contrasts:
            if first in sheet.scores and second in sheet.scores:
                gap = sheet.scores[first] - sheet.scores[second]
                columns["gap", first, second] = gap
                columns["clean gap", first, second] = np.where(clean, gap, np.nan)
        padded = {key: np.concatenate([column, np.full(len(absent), np.nan)]) for key, column in columns.items()}
        made.append(metrics.resample(padded, [*sheet.clusters, *absent], resamples=resamples, seed=seed))
    return made


@dataclass(frozen=True)
class _Maker:
    """Figures over runs. `places` are the runs of each value of the setting; `flagged` is whether any question has a flag."""

    runs: Sequence[StudiedRun]
    drawn: Sequence[Resampled[Key]]
    places: Mapping[str, Sequence[int]]
    seed: int
    flagged: bool

    def over_runs(self, label: str, key: Key) -> OverRuns:
        """One figure of the runs of one label."""
        return self._over([self._of(index, key) for index in self.places[label]])

    def contrasts(self, subjects: Sequence[str], wanted: Sequence[tuple[str, str]]) -> Iterator[RunContrast]:
        """Systems within each label, then each system between labels."""
        for label, indices in self.places.items():
            for first, second in wanted:
                inside = [index for index in indices if {first, second} <= set(self.runs[index].sheet.scores)]
                if inside:
                    found, clean = (
                        self._over([self._of(index, (gap, first, second)) for index in inside]) for gap in ("gap", "clean gap")
                    )
                    names = {"first": _named(first, label), "second": _named(second, label)}
                    yield RunContrast(**names, difference=found, unflagged=clean if self.flagged else None)
        labels = list(self.places)
        for index, one in enumerate(labels):
            for other in labels[index + 1 :]:
                for subject in subjects:
                    if all(subject in self.runs[at].sheet.scores for label in (one, other) for at in self.places[label]):
                        found, clean = (self._between((subject, panel), other, one) for panel in (OVERALL, UNFLAGGED))
                        names = {"first": _named(subject, other), "second": _named(subject, one)}
                        yield RunContrast(**names, difference=found, unflagged=clean if self.flagged else None)

    def _between(self, key: Key, first: str, second: str) -> OverRuns:
        """One figure of a system under two values of the setting; runs of the same seed belong together."""
        one, other = ({self.runs[at].seed: at for at in self.places[label]} for label in (first, second))
        paired = one.keys() == other.keys() and len(one) == len(self.places[first]) == len(self.places[second])
        if paired:
            both = [(self._of(one[seed], key), self._of(other[seed], key)) for seed in sorted(one)]
            return self._over([_minus(left, right) for left, right in both])
        left, right = ([self._of(at, key) for at in self.places[label]] for label in (first, second))
        means = [_mean([run.value for run in side]) for side in (left, right)]
        gap = None if means[0] is None or means[1] is None else means[0] - means[1]
        draws = np.empty(0) if gap is None else self._drawn_runs(left, 1) - self._drawn_runs(right, 2)
        return OverRuns(values=(), sd=None, interval=self._interval(gap, draws, [*left, *right]), t_low=None, t_high=None)

    def _of(self, index: int, key: Key) -> _Figure:
        """A figure of one run and its draws of recordings; without a value where the run has no score."""
        drawn = self.drawn[index]
        subject, panel = key[0], key[-1]
        if panel == UAS:
            kinds = [one for one in drawn.means if one[0] == subject and len(one) == 2 and one[1] not in (OVERALL, UNFLAGGED)]
            scored = [
                one for one in kinds if any(drawn.means[other, one[1]] is not None for other in self.runs[index].sheet.scores)
            ]
            found = drawn.unweighted(scored, over=(subject, OVERALL)) if (subject, OVERALL) in drawn.means else None
            if found is None or found.mean is None:
                return _NOTHING
            return _Figure(found.mean, np.mean([drawn.draws[one] for one in scored], axis=0), drawn.support[subject, OVERALL])
        if drawn.means.get(key) is None:
            return _NOTHING
        return _Figure(drawn.means[key], drawn.draws[key], drawn.support[key])

    def _over(self, figures: Sequence[_Figure]) -> OverRuns:
        """Mean over runs with both intervals."""
        values = [one.value for one in figures]
        known = [one for one in values if one is not None]
        mean = _mean(values)
        sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
        t_low = t_high = None
        if sd is not None and mean is not None:
            from scipy.stats import t

            half = float(t.ppf(0.975, len(known) - 1)) * sd / len(known) ** 0.5
            t_low, t_high = mean - half, mean + half
        return OverRuns(
            values=tuple(values),
            sd=sd,
            interval=self._interval(mean, self._drawn_runs(figures, 0), figures),
            t_low=t_low,
            t_high=t_high,
        )

    def _drawn_runs(self, figures: Sequence[_Figure], stream: int) -> Floats:
        """The mean over drawn runs of every draw of recordings, shape (resamples,)."""
        held = [one.draws for one in figures if one.value is not None]
        if not held:
            return np.empty(0)
        table = np.stack(held)
        picks = np.random.default_rng([self.seed, stream]).integers(0, len(held), size=table.shape)
        means: Floats = np.take_along_axis(table, picks, axis=0).mean(axis=0)
        return means

    def _interval(self, mean: float | None, draws: Floats, figures: Sequence[_Figure]) -> Interval:
        """`n` counts the answers of all runs, `clusters` the recordings of the run that has most."""
        n = sum(one.support[0] for one in figures)
        return interval_of(mean, draws, n, max((one.support[1] for one in figures), default=0))


@dataclass(frozen=True)
class _Figure:
    value: float | None
    draws: Floats
    support: tuple[int, int]


_NOTHING = _Figure(None, np.empty(0), (0, 0))


def _minus(left: _Figure, right: _Figure) -> _Figure:
    if left.value is None or right.value is None:
        return _NOTHING
    support = (min(left.support[0], right.support[0]), min(left.support[1], right.support[1]))
    return _Figure(left.value - right.value, left.draws - right.draws, support)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return float(np.mean(known)) if known else None
