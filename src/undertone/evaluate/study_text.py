"""The study table as text for a terminal: scores with intervals, then what stands behind them, then the paper's numbers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from undertone.evaluate.metrics import Interval

if TYPE_CHECKING:
    from rich.table import Table

    from undertone.evaluate.study_table import StudyTable


def plain_text(table: StudyTable, *, width: int = 100) -> str:
    """All of the study table as plain text without colours, at most `width` columns wide."""
    from rich.console import Console

    from undertone.evaluate.study_table import verdict_sentences

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(
            f"Judge: {table.judge}, {table.runs} run(s); {table.pairs} questions on {table.recordings} recordings; "
            f"95 % intervals from {table.resamples} resamples of recordings"
        )
        if table.flagged:
            counts = ", ".join(f"{name} {count}" for name, count in table.flags.items())
            console.print(
                f'Flagged: {table.flagged} questions ({counts}); the column "unflagged" is the overall score without them'
            )
        console.print(_scores(table))
        console.print(_behind(table))
        console.print(_paper(table))
        console.print(f"{table.published.source}: {table.published.test_set}, judge {table.published.judge}\n")
        for sentence in verdict_sentences(table):
            console.print(f"- {sentence}")
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _frame(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(
        title=title, box=SIMPLE_HEAD, title_justify="left", title_style="", header_style="", padding=(0, 1), pad_edge=False
    )
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return made


def _scores(table: StudyTable) -> Table:
    apart = ("unflagged",) if table.flagged else ()
    made = _frame("Scores, 0-100", "system", *table.kinds, "overall", *apart, "UAS", "vs S10, %")
    for row in table.rows:
        cells = [row.kinds[kind].score for kind in table.kinds] + [row.overall.score]
        cells += [row.unflagged.score] if row.unflagged is not None else []
        made.add_row(row.subject, *(_two_lines(one) for one in (*cells, row.uas)), _gain(row.gain_percent))
    return made


def _behind(table: StudyTable) -> Table:
    attributes = sorted({name for row in table.rows for name in row.classes})
    heads = [f"{name}\nWA/UA/F1" for name in attributes]
    made = _frame("Behind the scores", "system", "scored", "strict\nmean", "un-\nmapped", "unscored\nby reason", *heads)
    for row in table.rows:
        cell = row.overall
        reasons = "\n".join(f"{name} {count}" for name, count in cell.unscored.items()) or "none"
        read = [row.classes.get(name) for name in attributes]
        made.add_row(
            row.subject,
            f"{cell.score.n}/{cell.pairs}",
            _number(cell.strict_mean),
            str(cell.unmapped),
            reasons,
            *(
                "-"
                if one is None
                else "/".join(_number(None if value is None else 100 * value) for value in (one.wa, one.ua, one.macro_f1))
                for one in read
            ),
        )
    return made


def _paper(table: StudyTable) -> Table:
    paper = table.published
    kinds = [kind for kind in table.kinds if any(kind in one.kinds for one in paper.scores)]
    made = _frame(f"Published ({paper.note})", "system", *kinds, "overall", "vs S10, %")
    for one in paper.scores:
        gain = "-" if one.gain_percent is None else f"{one.gain_percent:+.2f}"
        made.add_row(one.system, *(_number(one.kinds.get(kind), digits=2) for kind in kinds), _number(one.overall, digits=2), gain)
    return made


def _number(value: float | None, *, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _two_lines(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return _number(interval.mean)
    return f"{_number(interval.mean)}\n{interval.low:.0f}-{interval.high:.0f}"


def _gain(interval: Interval | None) -> str:
    if interval is None or interval.mean is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.1f}"
    return f"{interval.mean:+.1f}\n{interval.low:+.0f}..{interval.high:+.0f}"
