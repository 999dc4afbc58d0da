"""Several runs beside each other, as text for a terminal and as sentences."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from undertone.evaluate.compare import OVERALL, UAS, UNFLAGGED, Comparison, OverRuns, RunContrast
from undertone.evaluate.study_text import frame, number

if TYPE_CHECKING:
    from rich.table import Table


def sentences(table: Comparison) -> list[str]:
    """What the runs show together: a sentence for each contrast, made only of what both intervals say; and one without flagged questions."""
    said = [_sentence(one) for one in table.contrasts]
    apart = [one.model_copy(update={"difference": one.unflagged}) for one in table.contrasts if one.unflagged is not None]
    return said + [f"Without flagged questions: {_sentence(one)}".replace(": Between", ": between", 1) for one in apart]


def plain_text(table: Comparison, *, width: int = 100) -> str:
    """All of the comparison as plain text without colours, at most `width` columns wide."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, highlight=False, markup=False)
    labels = list(dict.fromkeys(one.label for one in table.runs))
    with console.capture() as capture:
        console.print(
            f"{len(table.runs)} runs, judge {table.judge}; {table.recordings} test recordings, {table.shared} of them in all runs"
        )
        for one in table.runs:
            setting = f", {table.by} {one.label}" if table.by else ""
            console.print(f"  {one.name}: seed {one.seed}{setting}, {one.pairs} questions on {one.recordings} recordings")
        for key, values in table.differ.items():
            console.print(f"WARNING: the runs also differ in {key}: {' | '.join(values)}")
        if any(sum(one.label == label for one in table.runs) < 2 for label in labels):
            console.print(
                "WARNING: one run only of some row: its intervals do not know how much one training differs from the next"
            )
        console.print(_scores(table))
        if any(row.scores[OVERALL].sd is not None for row in table.rows):
            console.print(_figures({row.name: row.scores[OVERALL] for row in table.rows}, "Overall score in the runs", "system"))
        gaps = {f"{one.first} - {one.second}": one.difference for one in table.contrasts}
        apart = {f"{one.first} - {one.second}": one.unflagged for one in table.contrasts if one.unflagged is not None}
        for found, where in ((gaps, ""), (apart, ", without flagged questions")):
            if found:
                console.print(_figures(found, f"Differences in points{where}", "first - second"))
        shares = (
            "but does not know that they share recordings"
            if table.shared
            else "and here, where they share no recording, is the one to trust"
        )
        console.print(f"{NOTE.format(resamples=table.resamples, shares=shares)}\n")
        for sentence in sentences(table):
            console.print(f"- {sentence}")
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


NOTE = (
    "Intervals: 95 %, from {resamples} resamples of runs and recordings. t: over the runs' own values, which makes up for how few runs there "
    "are {shares}. Where they differ, believe the wider. sd is over the runs."
)


def _scores(table: Comparison) -> Table:
    apart = [UNFLAGGED] if any(UNFLAGGED in row.scores for row in table.rows) else []
    panels = (*table.kinds, UAS, *apart, OVERALL)
    made = frame("Scores, 0-100: mean over runs", "system", *table.kinds, UAS, *("un-\nflagged" for _ in apart), OVERALL)
    for row in table.rows:
        made.add_row(row.name, *(_above(row.scores[name]) for name in panels))
    return made


def _figures(figures: Mapping[str, OverRuns], title: str, what: str) -> Table:
    """One figure a row, with what every run says of it; differences have a sign."""
    gaps = what != "system"
    made = frame(title, what, "mean", "interval", "t", "sd", *(("same\nsign",) if gaps else ()), "of each run")
    made.columns[-1].no_wrap = False

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:+.1f}" if gaps else f"{value:.1f}"

    for name, one in figures.items():
        made.add_row(
            name,
            shown(one.interval.mean),
            _range(one.interval.low, one.interval.high),
            _range(one.t_low, one.t_high),
            number(one.sd),
            *((f"{one.same_sign}/{len(one.values)}" if one.values else "-",) if gaps else ()),
            " ".join(shown(value) for value in one.values),
        )
    return made


def _sentence(contrast: RunContrast) -> str:
    gap = contrast.difference
    first, second, mean, inside = contrast.first, contrast.second, gap.interval.mean, gap.interval
    if mean is None:
        return f"{first} and {second} cannot be compared: no run has a score of both."
    if inside.low is None or inside.high is None:
        return f"{first} and {second} differ by {mean:+.1f} points on {inside.clusters} recording(s): too few for an interval."
    several = gap.t_low is not None
    drawn, over = inside.low > 0 or inside.high < 0, _leaves_out_zero(gap)
    if not drawn and not over:
        return f"Between {first} and {second} no difference can be told: {mean:+.1f} points{_bounds(gap)}."
    if several and drawn != over:
        which = "bootstrap" if drawn else "t interval"
        return f"Between {first} and {second} it is not settled: {mean:+.1f} points{_bounds(gap)}; only the {which} leaves out 0."
    alone = {
        0: " Their seeds are not the same, so no run is paired with another.",
        1: " One run each: how much one training differs from the next is not in this interval.",
    }.get(len(gap.values), "")
    side = "above" if mean > 0 else "below"
    return f"{first} is {side} {second} by {abs(mean):.1f} points{_bounds(gap, flip=mean < 0)}.{alone}"


def _bounds(gap: OverRuns, *, flip: bool = False) -> str:
    """Both intervals and the count of signs, in brackets; `flip` gives the bounds of the negated difference."""
    low, high, t_low, t_high = gap.interval.low, gap.interval.high, gap.t_low, gap.t_high
    if low is None or high is None:
        return ""
    shown = f"{-high:.1f} to {-low:.1f}" if flip else f"{low:.1f} to {high:.1f}"
    said = f" ({gap.interval.level * 100:.0f} % interval {shown}"
    if t_low is None or t_high is None:
        return f"{said})"
    shown = f"{-t_high:.1f} to {-t_low:.1f}" if flip else f"{t_low:.1f} to {t_high:.1f}"
    return f"{said}; t over the runs {shown}; same sign in {gap.same_sign} of {len(gap.values)})"


def _leaves_out_zero(gap: OverRuns) -> bool:
    return gap.t_low is not None and gap.t_high is not None and (gap.t_low > 0 or gap.t_high < 0)


def _above(found: OverRuns) -> str:
    one = found.interval
    if one.low is None or one.high is None:
        return number(one.mean)
    return f"{number(one.mean)}\n{one.low:.0f}-{one.high:.0f}"


def _range(low: float | None, high: float | None, *, digits: int = 1) -> str:
    return "-" if low is None or high is None else f"{low:.{digits}f}..{high:.{digits}f}"
