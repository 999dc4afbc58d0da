"""The validation of a judge on one page that opens offline: what it found, two figures, and every table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from undertone import tables
from undertone.evaluate.validate import Rater, Validation
from undertone.evaluate.validate.checks import bin_name
from undertone.evaluate.validate.result import ALL, Calibration, Consistency, JudgeFacts, RankAgreement, WholeSet
from undertone.evaluate.validate.text import p_value, plain_text, raters, sentences
from undertone.paths import Location
from undertone.report.figures import RC, STAND_IN, svg
from undertone.report.shipped import rendered, shipped

PAGE = "index.html"
_ACROSS = 4
_MOST_PANELS = 24
_MARKERS = "osD^vPX*"

_Named = Calibration | Consistency | JudgeFacts | RankAgreement | WholeSet


def write(found: Validation, out: Location) -> Location:
    """Write `validation.json`, `validation.txt` and the page; the path of the page."""
    tables.write_bytes(out / "validation.json", found.to_json().encode())
    tables.write_bytes(out / "validation.txt", plain_text(found).encode())
    return write_page(found, out, name=found.source)


def write_page(found: Validation, out: Location, *, name: str) -> Location:
    """Write the page as `index.html` and return its path; equal validations give equal pages."""
    names = raters(found)

    def letter_of(one: _Named) -> str:
        rater = str(Rater(one.judge, one.prompt))
        return names.get(rater, rater)

    page = rendered(
        "validation.html.jinja",
        {
            "name": name,
            "css": Markup(shipped("page.css")),
            "found": found,
            "names": names,
            "letter_of": letter_of,
            "p_value": p_value,
            "said": sentences(found),
            "curves": Markup(draw_curves(found.calibration, names)) if found.calibration else "",
            "scatter": Markup(draw_systems(found.ranks, names)) if found.ranks else "",
        },
    )
    tables.write_bytes(out / PAGE, page.encode())
    return out / PAGE


def draw_curves(curves: Sequence[Calibration], names: Mapping[str, str]) -> str:
    """A panel for each judge and set: the share of right answers at each score."""
    shown = sorted(curves, key=lambda one: (one.dataset != ALL, one.dataset, one.judge, one.prompt))[:_MOST_PANELS]
    with matplotlib.rc_context(RC):
        figure, panels = _grid(len(shown), height=1.75)
        for axis, one in zip(panels, shown, strict=True):
            _curve(axis, one)
            axis.set_title(
                f"{names[str(Rater(one.judge, one.prompt))]}: {one.dataset}", loc="left", fontsize=9, fontweight="bold", pad=4
            )
        return svg(figure, name="curves", title="Share of right answers by the judge's score, a panel for each judge and set")


def _curve(axis: Axes, one: Calibration) -> None:
    most = max(each.n for each in one.bins)
    for place, each in enumerate(one.bins):
        correct = each.correct
        if correct.mean is None:
            continue
        axis.bar(place, 100 * correct.mean, width=0.2 + 0.65 * each.n / most, color=STAND_IN["bar"], linewidth=0)
        if correct.low is not None and correct.high is not None:
            axis.plot([place, place], [100 * correct.low, 100 * correct.high], color=STAND_IN["ink"], linewidth=1.2)
        axis.text(place, 104, f"{each.n}", ha="center", va="bottom", fontsize=7.5, color=STAND_IN["muted"])
    axis.set_xticks(range(len(one.bins)), [bin_name(each) for each in one.bins])
    axis.set_xlim(-0.6, len(one.bins) - 0.4)
    axis.set_ylim(0, 116)
    axis.set_yticks([0, 50, 100])
    axis.tick_params(length=0, labelsize=8, pad=3)
    axis.grid(axis="y")
    axis.set_axisbelow(True)


def draw_systems(ranks: Sequence[RankAgreement], names: Mapping[str, str]) -> str:
    """A panel for each set: share right (across) and mean score (up) of each system, a marker for each judge."""
    panels: defaultdict[str, list[RankAgreement]] = defaultdict(list)
    for one in ranks:
        if one.measure == "WA":
            panels[one.dataset].append(one)
    shown = sorted(panels.items())[:_MOST_PANELS]
    with matplotlib.rc_context(RC):
        figure, axes = _grid(len(shown), height=2.35)
        for axis, (dataset, found) in zip(axes, shown, strict=True):
            for index, one in enumerate(found):
                points = [
                    (right, score)
                    for score, right in zip(one.agreement.first, one.agreement.second, strict=True)
                    if score is not None and right is not None
                ]
                axis.plot(
                    [right for right, _ in points],
                    [score for _, score in points],
                    linestyle="none",
                    marker=_MARKERS[index % len(_MARKERS)],
                    markersize=5.5,
                    color=STAND_IN["accent" if index == 0 else "ink"],
                    markerfacecolor=STAND_IN["accent"] if index == 0 else "none",
                    label=names[str(Rater(one.judge, one.prompt))],
                )
            alone = f"{names[str(Rater(found[0].judge, found[0].prompt))]}: " if len(found) == 1 else ""
            axis.set_title(f"{alone}{dataset}", loc="left", fontsize=9, fontweight="bold", pad=4)
            axis.set_xlim(-3, 103)
            axis.set_ylim(-3, 103)
            axis.set_xticks([0, 50, 100])
            axis.set_yticks([0, 50, 100])
            axis.set_xlabel("right, %", fontsize=8)
            axis.tick_params(length=0, labelsize=8, pad=3)
            axis.grid()
            axis.set_axisbelow(True)
            if len(found) > 1:  # framed, or its markers would be taken for systems
                axis.legend(loc="best", title="judge", title_fontsize=8, fontsize=8, handletextpad=0.2)
        axes[0].set_ylabel("mean score", fontsize=8)
        return svg(figure, name="systems", title="Mean score of the judge and share of right answers, a point for each system")


def _grid(panels: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """Panels in rows of four, in inches; the places that are left over stay empty."""
    across = min(_ACROSS, max(1, panels))
    down = -(-panels // across)
    figure = Figure(figsize=(2.85 * across, 0.2 + height * down))
    grid = figure.subplots(down, across, squeeze=False)
    for axis in grid.flat[panels:]:
        axis.set_visible(False)
    tall = figure.get_figheight()
    figure.subplots_adjust(
        left=0.45 / figure.get_figwidth(),
        right=0.99,
        top=1 - 0.36 / tall,
        bottom=0.45 / tall,
        wspace=0.22,
        hspace=0.85 / (height - 0.8),
    )
    return figure, list(grid.flat[:panels])
