"""The empathy table as a figure, a block of the report, and a page of its own that opens offline."""

from __future__ import annotations

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from undertone import tables
from undertone.evaluate.empathy import SHORT
from undertone.evaluate.empathy_table import EmpathyTable, Levels, sentences
from undertone.evaluate.epitome import Mechanism
from undertone.paths import Location
from undertone.report.figures import RC, STAND_IN, svg
from undertone.report.shipped import shipped

PAGE = "index.html"
NAMES: dict[Mechanism, str] = {
    "emotional_reaction": "emotional reaction",
    "interpretation": "interpretation",
    "exploration": "exploration",
}
_FACES = ("line", "soft", "bar")
"""Of the levels 0, 1 and 2; each share is also written into its part of the bar where it fits."""

_WIDE_ENOUGH = 0.12


def write_page(table: EmpathyTable, out: Location, *, name: str) -> Location:
    """Write the table's page as `index.html` and return its path; equal tables give equal pages."""
    page = _environment().from_string(_PAGE).render(name=name, css=Markup(shipped("page.css")), block=block(table))
    tables.write_bytes(out / PAGE, page.encode())
    return out / PAGE


def block(table: EmpathyTable) -> Markup:
    """Figure, table and sentences as HTML to stand in a section of a page that has the report's style."""
    return Markup(
        _environment()
        .from_string(shipped("empathy.html.jinja"))
        .render(table=table, figure=Markup(draw(table)), said=sentences(table), short=SHORT, names=NAMES)
    )


def draw(table: EmpathyTable) -> str:
    """One panel for each mechanism, one bar for each system: the shares of levels 0, 1 and 2, with the mean level beside it.

    Where it is known which replies suit the speaker's emotion, a last panel has their share with its interval.
    """
    panels = list(table.judges)
    suited = any(row.suited is not None for row in table.rows)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(11.4, 0.95 + 0.36 * max(1, len(table.rows))))
        axes = figure.subplots(1, len(panels) + suited, sharey=True, squeeze=False)[0]
        if suited:
            _suited(axes[-1], table)
        for axis, panel in zip(axes, panels, strict=False):
            for place, row in enumerate(table.rows):
                _bar(axis, place, row.levels[panel])
            axis.set_title(f"{NAMES[panel]} ({SHORT[panel]})", loc="left", fontsize=10, fontweight="bold", pad=5)
            axis.set_xlim(0, 1.3)
            axis.set_xticks([])
            axis.spines["bottom"].set_visible(False)
            axis.tick_params(length=0)
        axes[0].set_yticks(range(len(table.rows)), [row.subject for row in table.rows])
        axes[0].set_ylim(len(table.rows) - 0.45, -0.55)
        height = figure.get_figheight()
        figure.legend(
            handles=[Patch(color=STAND_IN[face], label=f"level {level}") for level, face in enumerate(_FACES)],
            loc="lower center",
            ncols=len(_FACES),
            frameon=False,
            fontsize=8.5,
        )
        figure.subplots_adjust(left=0.12, right=0.995, top=1 - 0.3 / height, bottom=0.42 / height, wspace=0.06)
        return svg(figure, name="empathy", title="Shares of empathy levels by system and mechanism, and mean levels")


def _suited(axis: Axes, table: EmpathyTable) -> None:
    for place, row in enumerate(table.rows):
        if row.suited is None or row.suited.mean is None:
            continue
        axis.barh(place, row.suited.mean, height=0.62, color=STAND_IN["soft"], linewidth=0)
        if row.suited.low is not None and row.suited.high is not None:
            axis.plot([row.suited.low, row.suited.high], [place, place], color=STAND_IN["muted"], linewidth=1.2)
        axis.text(103, place, f"{row.suited.mean:.0f} %", va="center", fontsize=9, fontweight="bold")
    axis.set_title("suits the speaker's emotion", loc="left", fontsize=10, fontweight="bold", pad=5)
    axis.set_xlim(0, 130)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    axis.tick_params(length=0)


def _bar(axis: Axes, place: int, cell: Levels) -> None:
    if cell.shares is None or cell.mean.mean is None:
        axis.text(0.01, place, "no level", va="center", fontsize=8.5, color=STAND_IN["muted"])
        return
    left = 0.0
    for share, face in zip(cell.shares, _FACES, strict=True):
        axis.barh(place, share, left=left, height=0.62, color=STAND_IN[face], linewidth=0)
        if share >= _WIDE_ENOUGH:
            axis.text(left + share / 2, place, f"{100 * share:.0f} %", ha="center", va="center", fontsize=8)
        left += share
    axis.text(1.03, place, f"{cell.mean.mean:.2f}", va="center", fontsize=9, fontweight="bold")


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Empathy · {{ name }} · Undertone</title>
<link rel="icon" href="data:,">
<style>{{ css }}</style>
</head>
<body>
<header><p class="eyebrow">Undertone · empathy</p><h1>How empathetic are the replies?</h1><p class="meta">{{ name }}</p></header>
<main><section>{{ block }}</section></main>
</body>
</html>
"""
