"""The figures of the report as inline SVG: text stays text, and every colour is a variable of the page's style sheet.

matplotlib draws with one stand-in colour per role; the finished SVG names the role's CSS variable instead, so that one figure is right
on a light screen, on a dark one and on paper. Emotion colours are Paul Tol's "muted" scheme, which colour-blind readers can tell
apart (https://personal.sron.nl/~pault/); no figure relies on colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from pydantic import BaseModel, ConfigDict, FiniteFloat

from undertone.records import EMOTIONS

_ROLES = ("ink", "muted", "line", "accent", "bar", "control", "soft", *(f"e-{one}" for one in EMOTIONS))
STAND_IN = {role: f"#0b{index:02x}f0" for index, role in enumerate(_ROLES, start=1)}
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": STAND_IN["line"],
    "axes.labelcolor": STAND_IN["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": STAND_IN["line"],
    "grid.linewidth": 0.6,
    "text.color": STAND_IN["ink"],
    "xtick.color": STAND_IN["line"],
    "xtick.labelcolor": STAND_IN["muted"],
    "ytick.color": STAND_IN["line"],
    "ytick.labelcolor": STAND_IN["ink"],
}


class Bar(BaseModel):
    """One score with its interval, 0..100; `low` and `high` are None where no interval could be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


class BarRow(BaseModel):
    """One system or control and its score in each panel; a panel without a score is missing from `bars`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    control: bool = False
    bars: dict[str, Bar]


def study_bars(rows: Sequence[BarRow], panels: Sequence[str], *, title: str) -> str:
    """Draw one panel per question kind with one bar per system, so that the eye runs down a kind and across a system.

    Args:
        rows: Systems, then controls (drawn grey, below a gap).
        panels: Names of the panels in order; the first is drawn wider and carries the values.
        title: What the figure shows, for readers who do not see it.
    """
    places = _places(rows)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(11.4, 0.62 + 0.34 * (max(places, default=0) + 1)))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=[1.8] + [1.0] * (len(panels) - 1))[0]
        for index, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
            _bar_panel(axis, rows, places, panel, wide=index == 0)
        axes[0].set_yticks(places, [row.name for row in rows])
        axes[0].set_ylim(max(places, default=0) + 0.55, -0.55)
        widest = max((name.get_window_extent().width for name in axes[0].get_yticklabels()), default=0.0)
        left = min(max(0.118, 1.06 * widest / figure.bbox.width + 0.01), 0.4)  # a name of many words must not be cut off
        figure.subplots_adjust(left=left, right=0.998, top=0.9, bottom=0.11, wspace=0.15)
        return svg(figure, name="study", title=title)


def _places(rows: Sequence[BarRow]) -> list[float]:
    """Heights of the rows: one apart, with a gap where the controls begin."""
    gap = 0.0
    made: list[float] = []
    for index, row in enumerate(rows):
        if index and row.control and not rows[index - 1].control:
            gap += 0.5
        made.append(index + gap)
    return made


def _bar_panel(axis: Axes, rows: Sequence[BarRow], places: Sequence[float], panel: str, *, wide: bool) -> None:
    for row, place in zip(rows, places, strict=True):
        bar = row.bars.get(panel)
        if bar is None:
            axis.text(2, place, "no score", va="center", fontsize=8.5, color=STAND_IN["muted"])
            continue
        axis.barh(place, bar.mean, height=0.62, color=STAND_IN["control" if row.control else "bar"], linewidth=0)
        reach = bar.mean
        if bar.low is not None and bar.high is not None:
            axis.plot([bar.low, bar.high], [place, place], color=STAND_IN["ink"], linewidth=1.3, solid_capstyle="butt")
            reach = max(bar.mean, bar.high)
        if wide:
            axis.text(reach + 1.5, place, f"{bar.mean:.1f}", va="center", fontsize=9.5)
    axis.set_xlim(0, 114 if wide else 101)
    axis.set_xticks([0, 50, 100])
    sides: tuple[Literal["left", "center", "right"], ...] = ("left", "center", "center" if wide else "right")
    for label, side in zip(axis.get_xticklabels(), sides, strict=True):
        label.set_horizontalalignment(side)
    axis.tick_params(axis="x", length=0, labelsize=9)
    axis.tick_params(axis="y", length=0, pad=6)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    axis.spines["bottom"].set_visible(False)
    axis.set_title(panel, loc="left", fontsize=10.5, fontweight="bold", pad=6)


class Stacked(BaseModel):
    """One step of the condensation: what it kept, and of that what has a known emotion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hours: FiniteFloat
    emotion_hours: dict[str, FiniteFloat] = {}
    segments: int | None = None
    emotion_segments: dict[str, int] = {}


class Lost(BaseModel):
    """What one rule took: rows of a unit, and their hours where they are known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    unit: str
    hours: FiniteFloat | None = None


def funnel(steps: Sequence[Stacked], *, title: str) -> str:
    """Draw the hours (left) and segments (right) that each condensation step kept, stacked by emotion; an outline is what has none.

    Args:
        steps: In order.
        title: What the figure shows, for readers who do not see it.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(11.4, 0.75 + 0.42 * len(steps)))
        hours, segments = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1.0])
        digits = 2 if max((one.hours for one in steps), default=0.0) >= 10 else 3
        _stack(hours, [(one.hours, one.emotion_hours, f"{one.hours:.{digits}f}") for one in steps])
        _stack(
            segments,
            [(one.segments or 0, one.emotion_segments, "" if one.segments is None else f"{one.segments:,}") for one in steps],
        )
        hours.set_yticks(range(len(steps)), [one.name for one in steps])
        hours.set_ylim(len(steps) - 0.45, -0.55)
        hours.set_xlabel("hours of speech", fontsize=9)
        segments.set_xlabel("segments", fontsize=9)
        segments.xaxis.set_major_formatter(FuncFormatter(_thousands))
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.118, right=0.995, top=0.98, bottom=0.5 / height, wspace=0.06)
        return svg(figure, name="funnel", title=title)


def _stack(axis: Axes, bars: Sequence[tuple[float, Mapping[str, float], str]]) -> None:
    """One panel: a bar for each (whole, parts by emotion, text at its end)."""
    most = max((max(whole, sum(parts.values())) for whole, parts, _ in bars), default=0.0) or 1.0
    for place, (whole, parts, text) in enumerate(bars):
        left = 0.0
        for emotion in (one for one in EMOTIONS if parts.get(one)):
            axis.barh(place, parts[emotion], left=left, height=0.62, color=STAND_IN[f"e-{emotion}"], linewidth=0)
            left += parts[emotion]
        if whole > left:  # an outline: a grey would pass for neutral
            axis.barh(place, whole - left, left=left, height=0.6, facecolor="none", edgecolor=STAND_IN["control"], linewidth=0.9)
        axis.text(max(whole, left) + most * 0.015, place, text, va="center", fontsize=9)
    _only_grid(axis, most * 1.16)


def lost(rows: Sequence[Lost], *, title: str) -> str:
    """Draw the hours that each rule took, with its rows in words; a rule whose hours are not known has the words alone.

    Args:
        rows: In the order of the path.
        title: What the figure shows, for readers who do not see it.
    """
    most = max((one.hours or 0.0 for one in rows), default=0.0) or 1.0
    digits = 2 if most >= 10 else 3
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.2, 0.6 + 0.34 * len(rows)))
        axis = figure.subplots()
        for place, one in enumerate(rows):
            axis.barh(place, one.hours or 0.0, height=0.6, color=STAND_IN["bar"], linewidth=0)
            hours = "" if one.hours is None else f"{one.hours:.{digits}f} h, "
            axis.text((one.hours or 0.0) + most * 0.015, place, f"{hours}{one.rows:,} {one.unit}", va="center", fontsize=9)
        axis.set_yticks(range(len(rows)), [one.name for one in rows])
        axis.set_ylim(len(rows) - 0.45, -0.55)
        axis.set_xlabel("hours lost", fontsize=9)
        _only_grid(axis, most * 1.45)
        names = 0.2 + 0.083 * max((len(one.name) for one in rows), default=0)  # inches that the longest name takes
        width, height = figure.get_size_inches()
        figure.subplots_adjust(left=min(0.6, names / width), right=0.99, top=0.98, bottom=0.48 / height)
        return svg(figure, name="lost", title=title)


def _only_grid(axis: Axes, reach: float) -> None:
    """Bars to the right on a grid that nothing else frames."""
    axis.set_xlim(0, reach)
    axis.tick_params(axis="both", length=0, pad=6)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    axis.spines["bottom"].set_visible(False)


def loss_curves(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, title: str) -> str:
    """Draw the training loss of each system as small multiples on shared scales, raw values behind their running mean.

    Args:
        curves: Name of the system and its (step, loss) points.
        title: What the figure shows, for readers who do not see it.
    """
    across = min(4, max(1, len(curves)))
    down = -(-len(curves) // across)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(2.85 * across, 0.35 + 1.75 * down))
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axis, (name, points) in zip(grid.flat, curves, strict=False):
            steps, losses = [step for step, _ in points], [loss for _, loss in points]
            axis.plot(steps, losses, color=STAND_IN["soft"], linewidth=0.8)
            axis.plot(steps, _smooth(losses), color=STAND_IN["accent"], linewidth=1.7)
            axis.set_title(name, loc="left", fontsize=10, fontweight="bold", pad=5)
            if losses:
                axis.set_title(f"{_smooth(losses)[-1]:.2f}", loc="right", fontsize=9, color=STAND_IN["muted"], pad=5)
        for axis in grid.flat[len(curves) :]:
            axis.set_visible(False)
        for axis in grid.flat[: len(curves)]:
            axis.tick_params(length=0, labelsize=8.5, pad=4, labelbottom=True)
            axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axis.xaxis.set_major_formatter(FuncFormatter(_thousands))
            axis.yaxis.set_major_locator(MaxNLocator(4))
            axis.set_ylim(bottom=0)
            axis.grid(axis="y")
        height = figure.get_figheight()
        left = 0.42 / figure.get_figwidth()
        figure.subplots_adjust(left=left, right=0.985, top=1 - 0.3 / height, bottom=0.3 / height, wspace=0.12, hspace=0.42)
        return svg(figure, name="loss", title=title)


def _smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, over a twentieth of the curve on either side."""
    reach = max(1, len(values) // 20)
    return [sum(part) / len(part) for part in (values[max(0, index - reach) : index + reach + 1] for index in range(len(values)))]


def _thousands(value: float, _: Any) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def svg(figure: Figure, *, name: str, title: str) -> str:
    """The figure as an SVG element to stand in an HTML page: no prologue, no ids that another figure could have, variables for colours."""
    out = io.StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    for role, colour in STAND_IN.items():
        text = text.replace(colour, f"var(--{role})")
    text = re.sub(r"'?DejaVu Sans'?(?:, [^;\"]*)?", "var(--sans)", text)
    width, height = (float(one) for one in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    head = f'<svg class="figure" role="img" aria-label="{_attribute(title)}" viewBox="0 0 {width:g} {height:g}" style="--width:{width:g}">'
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)).strip()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
