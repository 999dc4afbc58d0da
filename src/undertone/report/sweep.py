"""The plot of the quality sweep: how good shown labels are against what the system scores with them, on one page that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from undertone import tables
from undertone.evaluate.sweep import Family, SweepPoint, SweepTable
from undertone.evaluate.sweep_text import accuracy_of, sentences
from undertone.paths import Location
from undertone.report.figures import RC, STAND_IN, svg
from undertone.report.listen import KIND_NAMES
from undertone.report.shipped import rendered, shipped

PAGE = "index.html"


@dataclass(frozen=True)
class _Look:
    """How a family is drawn; shapes differ, so that no colour is needed to tell them apart."""

    name: str
    families: tuple[Family, ...]
    marker: str
    colour: str
    hollow: bool = False
    line: bool = False


_LOOKS = (
    _Look("human labels, with errors (no system has them)", ("oracle", "oracle noise"), "o", "accent", hollow=True, line=True),
    _Look("the labeller's labels, with errors", ("predicted", "noise"), "o", "ink", line=True),
    _Look("a part of the labeller's labels", ("partial",), "^", "e-other"),
    _Look("labels of another recording", ("shuffled",), "X", "e-angry"),
)


def write_page(table: SweepTable, out: Location, *, name: str) -> Location:
    """Write the sweep's page as `index.html` and return its path; equal tables give equal pages.

    Args:
        table: What the sweep found.
        out: The folder.
        name: Of the study.
    """
    values = {
        "name": name,
        "css": Markup(shipped("page.css")),
        "table": table,
        "kinds": KIND_NAMES,
        "said": {curve: [one.removeprefix(f"{curve}, ") for one in sentences(table, curve)] for curve in table.curves},
        "figure": Markup(draw(table)),
        "accuracy": accuracy_of,
    }
    page = rendered("sweep.html.jinja", values)
    tables.write_bytes(out / PAGE, page.encode())
    return out / PAGE


def draw(table: SweepTable) -> str:
    """The plot as SVG: a row for each curve, a panel for each kind of score.

    The horizontal line is the score without labels, with its interval as a band; a dashed one is the same weights without labels where they
    were trained with some.
    """
    panels, curves = list(table.panels), table.curves
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(11.4, 0.75 + 2.75 * len(curves)))
        grid = figure.subplots(len(curves), len(panels), sharex=True, sharey=True, squeeze=False)
        for axes, curve in zip(grid, curves, strict=True):
            points = [one for one in table.points if one.curve == curve]
            for axis, panel in zip(axes, panels, strict=True):
                _panel(axis, points, panel)
                axis.set_title(f"{curve}: {panel}", loc="left", fontsize=10, fontweight="bold", pad=5)
            axes[0].set_ylabel("score", fontsize=9)
        for axis in grid[-1]:
            axis.set_xlabel(f"shown {table.attribute} labels that are right, %", fontsize=9)
        height = figure.get_figheight()
        figure.legend(
            handles=[_handle(look) for look in _LOOKS if any(one.family in look.families for one in table.points)],
            loc="lower center",
            ncols=len(_LOOKS),
            frameon=False,
            fontsize=8.5,
            handletextpad=0.4,
            columnspacing=1.6,
        )
        figure.subplots_adjust(
            left=0.05, right=0.995, top=1 - 0.28 / height, bottom=0.85 / height, wspace=0.08, hspace=0.28 if len(curves) > 1 else 0
        )
        return svg(
            figure, name="sweep", title="Score against the accuracy of the labels that are shown, by system and kind of question"
        )


def _handle(look: _Look) -> Line2D:
    colour = STAND_IN[look.colour]
    return Line2D(
        [],
        [],
        marker=look.marker,
        color=colour,
        linestyle="-" if look.line else "none",
        linewidth=0.9,
        markersize=6,
        markerfacecolor="none" if look.hollow else colour,
        label=look.name,
    )


def _panel(axis: Axes, points: Sequence[SweepPoint], panel: str) -> None:
    for one in (point for point in points if point.family == "none"):
        found = one.panels[panel].score
        if found.mean is None:
            continue
        own = one.subject != one.baseline
        axis.axhline(
            found.mean, color=STAND_IN["control" if own else "muted"], linewidth=1.1, linestyle="--" if own else "-", zorder=1
        )
        if not own and found.low is not None and found.high is not None:
            axis.axhspan(found.low, found.high, color=STAND_IN["soft"], alpha=0.35, linewidth=0, zorder=0)
    for look in _LOOKS:
        _family(axis, look, [one for one in points if one.family in look.families], panel)
    axis.set_xlim(-4, 104)
    axis.set_ylim(0, 104)
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.set_yticks([0, 25, 50, 75, 100])
    axis.tick_params(length=0, labelsize=8.5, pad=4)
    axis.grid(axis="y")
    axis.set_axisbelow(True)


def _family(axis: Axes, look: _Look, points: Sequence[SweepPoint], panel: str) -> None:
    colour = STAND_IN[look.colour]
    drawn = sorted(
        (
            (100 * accuracy, score.mean, score)
            for one in points
            if (accuracy := accuracy_of(one)) is not None and (score := one.panels[panel].score).mean is not None
        ),
        key=lambda point: point[:2],
    )
    if look.line:
        axis.plot([x for x, _, _ in drawn], [y for _, y, _ in drawn], color=colour, linewidth=0.9, zorder=2)
    for x, y, score in drawn:
        if score.low is not None and score.high is not None:
            axis.plot([x, x], [score.low, score.high], color=colour, linewidth=0.8, zorder=2)
        face = STAND_IN["line"] if look.hollow else colour
        axis.plot([x], [y], marker=look.marker, markersize=6, color=colour, markerfacecolor=face, linestyle="none", zorder=3)
