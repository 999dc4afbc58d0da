"""The funnel and the threshold search of condensation for the page and for the dataset card."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from undertone.condense.funnel import Funnel
from undertone.condense.tune import Point, Tuning
from undertone.records import EMOTIONS
from undertone.report.figures import RC, STAND_IN, Lost, Stacked, funnel, lost, svg

ABOUT = (
    "Hours are hours of speech (of whole recordings in the first row), so joining segments into clips is no gain. Emotions are the "
    "labeller's: an hour belongs to the emotions that it is labelled with, a segment to the one that fills most of it."
)


class Sheet(NamedTuple):
    """A table of the page and of the card alike; a line break in a cell parts a number from what explains it."""

    title: str
    words: int  # so many columns, from the left, are words
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table for the card."""
        rule = ["---"] * self.words + ["---:"] * (len(self.columns) - self.words)
        lines = [self.columns, rule, *([_cell(", ".join(one.split("\n"))) for one in row] for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" if line is not rule else f"|{'|'.join(rule)}|" for line in lines)


def funnel_figures(found: Funnel) -> tuple[str, str]:
    """Draw hours and segments after each step by emotion, the recordings' hours first, and below it what each reason took (two SVGs)."""
    steps = [
        Stacked(name="recordings", hours=found.recording_hours),
        *(
            Stacked(
                name=one.name,
                hours=one.hours,
                emotion_hours=one.emotion_hours,
                segments=one.segments,
                emotion_segments=one.emotion_segments,
            )
            for one in found.steps
        ),
    ]
    losses = [
        Lost(name=f"{one.name}: {_spaced(reason)}", rows=count, unit=one.unit_in, hours=one.lost_hours.get(reason))
        for one in found.steps
        for reason, count in one.dropped.items()
    ]
    return (
        funnel(steps, title="Hours and segments that each step of the condensation kept, by emotion"),
        lost(losses, title="Hours that each rule of the condensation took") if losses else "",
    )


def funnel_sheets(found: Funnel) -> tuple[Sheet, Sheet, Sheet, Sheet]:
    """What the page and the card say of a funnel: the steps, the reasons, the emotions, the sources."""
    hours = _hours(found)
    befores = [found.recording_hours, *(one.hours for one in found.steps)]
    steps = [("recordings", "", "", "", "", f"{found.recordings:,} recordings", "", hours(found.recording_hours), "")]
    steps += [
        (
            one.name,
            f"{one.rows_in:,} {one.unit_in}",
            f"{one.kept:,}",
            f"{sum(one.dropped.values()):,}",
            f"{one.failed:,}",
            f"{one.rows:,} {one.unit}",
            f"{one.segments:,}",
            hours(one.hours),
            hours(before - one.hours),
        )
        for before, one in zip(befores, found.steps, strict=False)
    ]
    reasons = [
        (one.name, _spaced(reason), f"{count:,} {one.unit_in}", hours(one.lost_hours[reason]) if reason in one.lost_hours else "")
        for one in found.steps
        for reason, count in one.dropped.items()
    ]
    names: list[str] = [one for one in EMOTIONS if one in found.emotions]
    emotions = [
        (one.name, *(f"{hours(one.emotion_hours.get(name, 0.0))} h\n{one.emotion_segments.get(name, 0):,}" for name in names))
        for one in found.steps
    ]
    if unlabelled(found):
        emotions = [
            (*row, f"{hours(one.hours - sum(one.emotion_hours.values()))} h\n{one.segments - sum(one.emotion_segments.values()):,}")
            for row, one in zip(emotions, found.steps, strict=True)
        ]
        names.append("no label")
    sources = [
        (one.name, one.licence, f"{one.recordings_in:,}", hours(one.hours_in), f"{one.recordings:,}", hours(one.hours))
        for one in found.sources
    ]
    return (
        Sheet(
            "What each step was given and what it left",
            1,
            ("step", "in", "kept", "dropped", "failed", "out", "segments", "hours", "hours lost"),
            tuple(steps),
        ),
        Sheet("Why rows went (hours of clips with their pauses)", 2, ("step", "reason", "dropped", "hours"), tuple(reasons)),
        Sheet("Hours and segments by emotion after each step", 1, ("step", *names), tuple(emotions)),
        Sheet(
            "What went in, and what is left of it; its licences hold for what is left",
            2,
            ("source", "licence", "recordings in", "hours in", "recordings left", "hours left"),
            tuple(sources),
        ),
    )


def unlabelled(found: Funnel) -> bool:
    """Whether any step left segments without an emotion."""
    return any(one.segments > sum(one.emotion_segments.values()) for one in found.steps)


def funnel_markdown(found: Funnel) -> str:
    """The section "Condensation" of the dataset card: every step's rows and hours, why rows went, hours by emotion, licences."""
    told = [part for sheet in funnel_sheets(found) for part in (f"{sheet.title}:", sheet.markdown())]
    return "\n\n".join(["## Condensation", ABOUT, *told])


def _hours(found: Funnel) -> Callable[[float], str]:
    """Hours as text, with as many digits as the smaller ones want; all of one funnel with the same, so that columns can be compared."""
    digits = 2 if found.recording_hours >= 10 else 3
    return lambda hours: f"{round(hours, digits) + 0.0:.{digits}f}"  # never "-0.000"


def tuning_figure(found: Tuning) -> str:
    """Draw the threshold search as a heat map: the unweighted accuracy at each point, its coverage below, the best point framed (SVG)."""
    xs = sorted({one.positive_min for one in found.points})
    ys = sorted({one.negative_max for one in found.points})
    scores = [one.uwa for one in found.points if one.uwa is not None]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(1.3 + 0.62 * len(xs), 0.9 + 0.46 * len(ys)))
        axis = figure.subplots()
        for one in found.points:
            place = (xs.index(one.positive_min), ys.index(one.negative_max))
            strength = 0.0 if one.uwa is None else 0.08 + 0.62 * (one.uwa - low) / ((high - low) or 1.0)
            corner = (place[0] - 0.5, place[1] - 0.5)
            axis.add_patch(Rectangle(corner, 1, 1, facecolor=STAND_IN["accent"], alpha=strength, linewidth=0))
            axis.text(*place, "none" if one.uwa is None else f"{100 * one.uwa:.1f}", ha="center", va="bottom", fontsize=8.5)
            axis.text(
                place[0], place[1] - 0.06, f"{one.coverage:.0%}", ha="center", va="top", fontsize=6.5, color=STAND_IN["muted"]
            )
            if _same(one, found.best):
                axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=STAND_IN["ink"], linewidth=1.6, zorder=3))
            if _same(one, found.published):
                frame = Rectangle(corner, 1, 1, fill=False, edgecolor=STAND_IN["muted"], linewidth=1.2, linestyle="--", zorder=2)
                axis.add_patch(frame)
        axis.set_xlim(-0.55, len(xs) - 0.45)
        axis.set_ylim(-0.55, len(ys) - 0.45)
        axis.set_xticks(range(len(xs)), [f"{one:g}" for one in xs])
        axis.set_yticks(range(len(ys)), [f"{one:g}" for one in ys])
        axis.tick_params(length=0, pad=5, labelsize=9)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("x: a positive emotion wants at least this valence", fontsize=9)
        axis.set_ylabel("y: a negative one at most this", fontsize=9)
        figure.tight_layout(pad=0.3)
        return svg(figure, name="tuning", title="Unweighted accuracy of the emotions that survive, by the thresholds of valence")


def tuning_markdown(found: Tuning) -> str:
    """The search in a table for the log or the card: the best, the published, the former thresholds, and no filter at all."""
    named = [("best", found.best), ("published", found.published), ("before", found.now), ("no filter", found.unfiltered)]
    emotions = list(found.emotions)
    lines = [
        f"| thresholds | x | y | UWA | coverage | {' | '.join(emotions)} |",
        f"|---|---:|---:|---:|---:|{'---:|' * len(emotions)}",
    ]
    for name, one in named:
        recall = " | ".join("none" if e not in one.recall else f"{100 * one.recall[e]:.1f}" for e in emotions)
        bounds = " | " if one is found.unfiltered else f"{one.positive_min:g} | {one.negative_max:g}"
        uwa = "none" if one.uwa is None or one.error is None else f"{100 * one.uwa:.1f} ± {100 * one.error:.1f}"
        lines.append(f"| {name} | {bounds} | {uwa} | {one.coverage:.0%} | {recall} |")
    return "\n".join(lines)


def _same(one: Point, other: Point) -> bool:
    return (one.positive_min, one.negative_max) == (other.positive_min, other.negative_max)


def _spaced(reason: str) -> str:
    return reason.replace("_", " ")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
