"""Does a generated test set order systems as a human-written one does? (2505.13338 validates its generated set so.)

The same systems answer both sets, one judge scores both, and the systems' means are correlated; for every judge that judged both, because a
judge may favour the style of one set. Controls are left out unless they are named: they lie far below the systems, and would correlate any two
sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.errors import ConfigError, DataError
from undertone.evaluate.agreement import SystemAgreement, over_systems
from undertone.evaluate.compare import differences, told
from undertone.evaluate.metrics import Interval
from undertone.evaluate.study_table import CONTROLS, Sheet, StudyTable, in_order, kinds_of, sheet_of
from undertone.evaluate.verdicts import verdicts_on_questions
from undertone.paths import Location
from undertone.records import QAPair, Verdict

OVERALL = "overall"


@dataclass(frozen=True)
class JudgedSet:
    """A test set and all verdicts on answers to it; `controls` of those who answered are left out, as the study table's own are."""

    name: str
    pairs: Sequence[QAPair]
    verdicts: Sequence[Verdict]
    controls: frozenset[str] = frozenset()


class SetAgreement(BaseModel):
    """How alike two test sets order the systems: by judge, then over all questions ("overall") and for each kind that both hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    judges: dict[str, dict[str, SystemAgreement]]

    def plain_text(self) -> str:
        """The agreement for a terminal."""
        lines = [f"{self.first} against {self.second}: correlation of the systems' means (95 % interval over recordings)"]
        for judge, panels in self.judges.items():
            systems = next(iter(panels.values())).systems
            lines += ["", f"Judge {judge}, {len(systems)} systems: {', '.join(systems)}"]
            for panel, found in panels.items():
                figures = (("Spearman", found.spearman), ("Kendall", found.kendall), ("Pearson", found.pearson))
                cells = "   ".join(f"{name} {_said(one)}" for name, one in figures)
                p = "" if found.p is None else f"   p {found.p:.3f}"
                lines.append(f"  {panel:8} {cells}{p}")
            overall = panels[OVERALL]
            for system, one, other in zip(overall.systems, overall.first, overall.second, strict=True):
                lines.append(f"    {system}: {_number(one)} and {_number(other)}")
        lines += ["", "The intervals are over recordings; p is over orders of the systems, and few systems cannot make it small."]
        return "\n".join(lines) + "\n"


def agreement_of_sets(
    first: JudgedSet, second: JudgedSet, *, systems: Sequence[str] = (), resamples: int = 2000, seed: int = 0
) -> SetAgreement:
    """Correlate the systems' scores on two test sets.

    Args:
        first: Such as the generated one.
        second: Such as the human-written one.
        systems: Which; all that answered both, without controls, where none are named.
        resamples: Bootstrap resamples of recordings; one that both sets are about is drawn for both.
        seed: Of the bootstrap.

    Raises:
        DataError: No judge judged both, or fewer than three systems answered both.
    """
    names = [sorted({one.judge for one in each.verdicts}) for each in (first, second)]
    both = [one for one in names[0] if one in names[1]]
    if not both:
        raise DataError(
            f"{first.name} and {second.name} have no judge in common: {', '.join(names[0]) or 'none'} and {', '.join(names[1]) or 'none'}; "
            "two sets can be compared under one judge only"
        )
    return SetAgreement(
        first=first.name,
        second=second.name,
        judges={judge: _under(judge, first, second, systems, resamples=resamples, seed=seed) for judge in both},
    )


def of_runs(
    folders: Sequence[Location],
    settings: Sequence[Mapping[str, Any]],
    *,
    anyway: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> SetAgreement:
    """Correlate the systems' scores on the test sets of two runs, which differ in how they evaluate and in nothing else.

    Args:
        folders: The two runs' folders.
        settings: Their studies as trees.
        anyway: Also where something else differs, so that the systems are not the same ones.
        resamples: Bootstrap resamples of recordings.
        seed: Of the bootstrap.

    Raises:
        ConfigError: There are not two runs, or their systems are not the same.
        DataError: As `agreement_of_sets`, or a run is not evaluated.
    """
    if len(folders) != 2:
        raise ConfigError(f"two test sets are compared by two runs, got {len(folders)}")
    differ = {key: said for key, said in differences(settings).items() if not key.startswith("evaluate.")}
    seeds = tuple(str(one.get("seed")) for one in settings)
    if len(set(seeds)) > 1:
        differ["seed"] = seeds
    if differ and not anyway:
        raise ConfigError(
            f"the systems of {folders[0]} and {folders[1]} are not the same: {told(differ)}. Two test sets are compared by the same systems; "
            "--anyway takes systems of the same name for the same"
        )
    first, second = (_set_of(folder) for folder in folders)
    return agreement_of_sets(first, second, resamples=resamples, seed=seed)


def _set_of(folder: Location) -> JudgedSet:
    file = folder / "evaluate" / "study.json"
    if not file.is_file():
        raise DataError(
            f"{folder} has no evaluate/study.json: it is not evaluated yet. Finish it with: undertone evaluate {folder}"
        )
    pairs = tables.open_table(folder / "evaluate" / "benchmark", QAPair).rows()
    verdicts = verdicts_on_questions(folder)
    rows = StudyTable.from_json(file.read_text(encoding="utf-8")).rows
    return JudgedSet(str(folder), list(pairs), list(verdicts), frozenset(row.subject for row in rows if row.control))


def _under(
    judge: str, first: JudgedSet, second: JudgedSet, systems: Sequence[str], *, resamples: int, seed: int
) -> dict[str, SystemAgreement]:
    left, right = (sheet_of([one for one in each.verdicts if one.judge == judge], each.pairs) for each in (first, second))
    answered = left.scores.keys() & right.scores.keys()
    chosen = list(systems) or in_order(answered - {*CONTROLS, *first.controls, *second.controls})
    absent = [one for one in chosen if one not in answered]
    if absent or len(chosen) < 3:
        raise DataError(
            f"a correlation over systems needs at least three that answered both {first.name} and {second.name} under judge {judge}, got "
            f"{', '.join(chosen) or 'none'}" + (f" of which {', '.join(absent)} did not answer both" if absent else "")
        )
    panels = [OVERALL, *(kind for kind in kinds_of(left.pairs) if kind in kinds_of(right.pairs))]
    return {
        panel: over_systems(
            _scores(left, chosen, panel),
            _scores(right, chosen, panel),
            left.clusters,
            chosen,
            second_clusters=right.clusters,
            resamples=resamples,
            seed=seed,
        )
        for panel in panels
    }


def _scores(sheet: Sheet, systems: Sequence[str], panel: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Shape (pairs, systems), NaN where unscored or of another kind."""
    held = np.array([panel in (OVERALL, pair.kind) for pair in sheet.pairs], dtype=bool)
    return np.stack([np.where(held, sheet.scores[one], np.nan) for one in systems], axis=1)


def _said(found: Interval) -> str:
    if found.mean is None:
        return "not defined"
    return f"{found.mean:.2f}" + ("" if found.low is None or found.high is None else f" ({found.low:.2f} to {found.high:.2f})")


def _number(value: float | None) -> str:
    return "no score" if value is None else f"{value:.1f}"
