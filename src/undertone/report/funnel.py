"""The funnel and the threshold search of condensation for the page and for the dataset card."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from undertone.condense.funnel import Funnel, Step
from undertone.condense.tune import Point, Tuning
from undertone.report.figures import _RC, _STAND_IN, _svg, funnel
from undertone.report.inputs import FunnelStep, SourceRow


def funnel_figure(found: Funnel) -> str:
    """Draw the hours of speech after each step by emotion, the recordings' hours first (SVG for the page)."""
    steps = [("recordings", found.recording_hours, {}), *((one.name, one.hours, one.emotion_hours) for one in found.steps)]
    return funnel(steps, title="Hours that each step of the condensation kept, by emotion")


def funnel_steps(found: Funnel) -> tuple[FunnelStep, ...]:
    """The steps as the page's table shows them."""
    return tuple(
        FunnelStep(
            name=one.name,
            unit=one.unit_in,
            rows_in=one.rows_in,
            kept=one.kept,
            dropped=one.dropped,
            failed=one.failed,
            hours=one.hours,
            emotion_hours=one.emotion_hours,
        )
        for one in found.steps
    )


def funnel_sources(found: Funnel) -> tuple[SourceRow, ...]:
    """What went in, with its licence, as the page and the dataset card show it."""
    return tuple(
        SourceRow(
            name=one.name,
            licence=one.licence,
            used_for=f"speech; {one.hours:.2f} h of {one.recordings:,} recordings are left after condensation",
            recordings=one.recordings_in,
            hours=one.hours_in,
        )
        for one in found.sources
    )


def funnel_markdown(found: Funnel) -> str:
    """The section "Condensation" of the dataset card: every step's rows and hours, why rows went, hours by emotion, licences."""
    emotions = found.emotions
    rows = [
        "| step | rows in | kept | dropped | failed | rows out | segments | hours | hours lost |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        f"| recordings | | | | | {found.recordings:,} | | {found.recording_hours:.2f} | |",
    ]
    by_emotion = [f"| step | {' | '.join(emotions)} |", f"|---|{'---:|' * len(emotions)}"]
    for index, one in enumerate(found.steps):
        before = found.steps[index - 1].hours if index else found.recording_hours
        rows.append(
            f"| {one.name} | {one.rows_in:,} {one.unit_in} | {one.kept:,} | {sum(one.dropped.values()):,} | {one.failed:,} | "
            f"{one.rows:,} {one.unit} | {one.segments:,} | {one.hours:.2f} | {before - one.hours:.2f} |"
        )
        cells = [f"{one.emotion_hours.get(name, 0.0):.2f} h, {one.emotion_segments.get(name, 0):,}" for name in emotions]
        by_emotion.append(f"| {one.name} | {' | '.join(cells)} |")
    reasons = ["| step | reason | rows | hours |", "|---|---|---:|---:|", *(line for one in found.steps for line in _reasons(one))]
    sources = ["| source | licence | recordings in | hours in | recordings left | hours left |", "|---|---|---:|---:|---:|---:|"]
    sources += [
        f"| {_cell(one.name)} | {_cell(one.licence)} | {one.recordings_in:,} | {one.hours_in:.2f} | {one.recordings:,} | {one.hours:.2f} |"
        for one in found.sources
    ]
    return "\n\n".join(
        [
            "## Condensation",
            "What each step was given and what it left. Hours are hours of speech; emotions are the labeller's.",
            "\n".join(rows),
            "Why rows went:",
            "\n".join(reasons),
            "Hours and segments by emotion after each step:",
            "\n".join(by_emotion),
            "What went in, and what is left of it; its licences hold for what is left:",
            "\n".join(sources),
        ]
    )


def tuning_figure(found: Tuning) -> str:
    """Draw the threshold search as a heat map: the unweighted accuracy at each point, its coverage below, the best point framed (SVG)."""
    xs = sorted({one.positive_min for one in found.points})
    ys = sorted({one.negative_max for one in found.points})
    scores = [one.uwa for one in found.points if one.uwa is not None]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(1.3 + 0.62 * len(xs), 0.9 + 0.46 * len(ys)))
        axis = figure.subplots()
        for one in found.points:
            place = (xs.index(one.positive_min), ys.index(one.negative_max))
            strength = 0.0 if one.uwa is None else 0.08 + 0.62 * (one.uwa - low) / ((high - low) or 1.0)
            corner = (place[0] - 0.5, place[1] - 0.5)
            axis.add_patch(Rectangle(corner, 1, 1, facecolor=_STAND_IN["accent"], alpha=strength, linewidth=0))
            axis.text(*place, "none" if one.uwa is None else f"{100 * one.uwa:.1f}", ha="center", va="bottom", fontsize=8.5)
            axis.text(
                place[0], place[1] - 0.06, f"{one.coverage:.0%}", ha="center", va="top", fontsize=6.5, color=_STAND_IN["muted"]
            )
            if _same(one, found.best):
                axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=_STAND_IN["ink"], linewidth=1.6, zorder=3))
            if _same(one, found.published):
                frame = Rectangle(corner, 1, 1, fill=False, edgecolor=_STAND_IN["muted"], linewidth=1.2, linestyle="--", zorder=2)
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
        return _svg(figure, name="tuning", title="Unweighted accuracy of the emotions that survive, by the thresholds of valence")


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


def _reasons(one: Step) -> list[str]:
    def hours(reason: str) -> str:
        return f"{one.lost_hours[reason]:.2f}" if reason in one.lost_hours else ""

    return [f"| {one.name} | {reason} | {count:,} | {hours(reason)} |" for reason, count in one.dropped.items()]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
