"""The quality sweep in words: how good labels must be, and the table for a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from undertone.evaluate.sweep import OVERALL, WHOLE_FAMILIES, Panel, SweepPoint, SweepTable


def sentences(table: SweepTable, curve: str | None = None) -> list[str]:
    """How good labels must be, in plain words: for each curve (or one) and panel, decided by intervals and by nothing else."""
    curves = table.curves if curve is None else (curve,)
    return [said for one in curves for panel in table.panels for said in _said(table, one, panel)]


def _said(table: SweepTable, curve: str, panel: str) -> Iterator[str]:
    where = f"{curve}, {panel}"
    points = [one for one in table.points if one.curve == curve]
    own = next((one for one in points if one.family == "predicted"), None)
    if own is not None and accuracy_of(own) is not None:
        quality = f"{table.attribute} {_at(own)}"
        yield f"{where}: the labeller's labels ({quality}) {_worth(own, panel)}."
    whole = [one for one in points if one.family in WHOLE_FAMILIES and accuracy_of(one) is not None]
    ranked = sorted(whole, key=lambda one: (-(accuracy_of(one) or 0.0), one.subject))
    helping = list(itertools.takewhile(lambda one: _sign(one, panel) > 0, ranked))
    if not ranked:
        return
    if not helping and (others := [one for one in ranked if _sign(one, panel) > 0]):
        yield (
            f"{where}: it is not the better labels that help: those that are {_at(others[0])} {_worth(others[0], panel)}, but the best "
            f"({_at(ranked[0])}) {_worth(ranked[0], panel)}."
        )
        return
    if not helping:
        yield f"{where}: no gain can be told at any quality; the best labels ({_at(ranked[0])}) {_worth(ranked[0], panel)}."
        return
    said = f"{where}: labels help from {_at(helping[-1])} on"
    if len(helping) < len(ranked):
        below = ranked[len(helping)]
        yield f"{said}; next below, at {_at(below)}, they {_worth(below, panel)}."
    else:
        yield f"{said}, the worst that was tried."


def accuracy_of(point: SweepPoint) -> float | None:
    """How much of what is shown is right; None where nothing is."""
    return None if point.labels is None else point.labels.accuracy


def _at(point: SweepPoint) -> str:
    return f"{100 * (accuracy_of(point) or 0.0):.0f} % right"


def _sign(point: SweepPoint, panel: str) -> int:
    """Whether the gain is above (1) or below (-1) nothing, or that cannot be told (0)."""
    gain = point.panels[panel].gain
    if gain is None or gain.low is None or gain.high is None:
        return 0
    return 1 if gain.low > 0 else -1 if gain.high < 0 else 0


def _worth(point: SweepPoint, panel: str) -> str:
    gain = point.panels[panel].gain
    if gain is None or gain.mean is None:
        return "have no score to compare"
    verb = {1: "help", -1: "harm", 0: "make no difference that can be told"}[_sign(point, panel)]
    bounds = (
        "" if gain.low is None or gain.high is None else f", {gain.level * 100:.0f} % interval {gain.low:+.1f} to {gain.high:+.1f}"
    )
    return f"{verb}: {gain.mean:+.1f} points over {point.baseline}{bounds}, on {gain.n:,} question{'s' if gain.n != 1 else ''}"


def plain_text(table: SweepTable) -> str:
    """The table for a terminal; oracles are marked, for they are shown what no system has."""
    names = [f"{'* ' if one.human else '  '}{one.subject}" for one in table.points]
    width = max((len(one) for one in names), default=0)
    panels = list(table.panels)
    heads = f"{'':{width}}  {'right':>6} {'shown':>6}  " + " ".join(f"{name:>15}" for name in panels)
    lines = [f"Quality of shown labels ({table.attribute}) and score, with its gain over no labels", "", heads]
    curve = ""
    for name, one in zip(names, table.points, strict=True):
        if one.curve != curve:
            curve = one.curve
            lines.append(f"{curve}:")
        cells = " ".join(f"{_cell(one.panels[panel]):>15}" for panel in panels)
        lines.append(
            f"{name:{width}}  {_percent(accuracy_of(one)):>6} {_percent(one.labels.coverage if one.labels else None):>6}  {cells}"
        )
    lines += ["", "* shown human labels: an upper bound, no system"]
    unscored = {one.subject: one.panels[OVERALL].unscored for one in table.points}
    lines += [
        f"{subject}: {count:,} of {table.panels[OVERALL]:,} answers have no score and enter no mean"
        for subject, count in unscored.items()
        if count
    ]
    lines += [
        f"{one.subject}: its gain is of the {gain.n:,} of {table.panels[OVERALL]:,} questions on which {one.baseline} has a score too"
        for one in table.points
        if (gain := one.panels[OVERALL].gain) is not None and gain.n < table.panels[OVERALL]
    ]
    lines += ["", *sentences(table)]
    return "\n".join(lines)


def _cell(panel: Panel) -> str:
    if panel.score.mean is None:
        return "no score"
    return f"{panel.score.mean:.1f}" + ("" if panel.gain is None or panel.gain.mean is None else f" ({panel.gain.mean:+.1f})")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
