"""The study table as text for a terminal: scores with intervals, then what stands behind them, then the paper's numbers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from undertone.evaluate.metrics import Interval

if TYPE_CHECKING:
    from rich.table import Table

    from undertone.evaluate.study_table import StudyTable


GROUP_NAMES = {"C": "content", "DP": "direct", "CP": "contextual"}

TESTS_NOTE = (
    "p: bootstrap over recordings (it inverts the interval), and sign flips of whole recordings; Holm and BH (Benjamini-Hochberg) correct the "
    "latter for all comparisons of this table. Detectable: the smallest true difference found with 80 % power at p < 0.05, "
    "(t(.975) + t(.8)) x the clustered standard error."
)
"""What stands below the tests, in a terminal and on a page."""


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
        if table.apart:
            counts = ", ".join(f"{kind} {count}" for kind, count in table.apart.items())
            console.print(f"In no score: {counts} (kinds that this judge does not score)")
        console.print(_scores(table))
        if any(row.groups for row in table.rows):
            console.print(_groups(table))
        if any(row.overall.run_sd is not None for row in table.rows):
            console.print(_spread(table))
        console.print(_behind(table))
        if any(one.flip_p is not None for one in table.contrasts):
            console.print(_tests(table))
            console.print(f"{TESTS_NOTE}\n")
        console.print(_paper(table))
        console.print(f"{table.published.source}: {table.published.test_set}, judge {table.published.judge}\n")
        for sentence in verdict_sentences(table):
            console.print(f"- {sentence}")
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def frame(title: str, *columns: str) -> Table:
    """An empty table; its first column is text, the others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(
        title=title, box=SIMPLE_HEAD, title_justify="left", title_style="", header_style="", padding=(0, 1), pad_edge=False
    )
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return made


def _scores(table: StudyTable) -> Table:
    apart = ("unflagged",) if table.flagged and not _crowded(table) else ()
    uas = () if _crowded(table) else ("UAS",)
    gains = ("vs S10, %",) if any(row.gain_percent is not None for row in table.rows) else ()
    made = frame("Scores, 0-100", "system", *table.kinds, "overall", *apart, *uas, *gains)
    for row in table.rows:
        cells = [row.kinds[kind].score for kind in table.kinds] + [row.overall.score]
        cells += [row.unflagged.score] if row.unflagged is not None and apart else []
        cells += [row.uas] if uas else []
        made.add_row(row.subject, *(two_lines(one) for one in cells), *(_gain(row.gain_percent) for _ in gains))
    return made


def _crowded(table: StudyTable) -> bool:
    """Whether so many kinds stand in the table of scores that the means over them must stand in the next one only."""
    return len(table.kinds) > 5


def _groups(table: StudyTable) -> Table:
    names = [name for name in GROUP_NAMES if any(name in row.groups for row in table.rows)]
    apart = ("unflagged\nquestions",) if table.flagged and _crowded(table) else ()
    made = frame(
        "By group: means over kinds (UAS); overall is the mean over questions",
        "system",
        *(f"{name}\n{GROUP_NAMES[name]}" for name in names),
        "UAS\nall kinds",
        "overall\nquestions",
        *apart,
    )
    for row in table.rows:
        found = [row.groups.get(name) for name in names] + [row.uas, row.overall.score]
        found += [row.unflagged.score if row.unflagged is not None else None] if apart else []
        made.add_row(row.subject, *("-" if one is None else two_lines(one) for one in found))
    return made


def _spread(table: StudyTable) -> Table:
    made = frame("Standard deviation of scores over the judge's runs", "system", *table.kinds, "overall")
    for row in table.rows:
        cells = [row.kinds[kind] for kind in table.kinds] + [row.overall]
        made.add_row(row.subject, *(number(one.run_sd, digits=2) for one in cells))
    return made


def _tests(table: StudyTable) -> Table:
    made = frame(
        f"Paired tests ({len(table.contrasts)} comparisons)",
        "first - second",
        "points",
        "interval",
        "p boot-\nstrap",
        "p sign-\nflip",
        "Holm",
        "BH",
        "detect-\nable",
    )
    for one in table.contrasts:
        gap = one.difference
        made.add_row(
            f"{one.first} - {one.second}",
            "-" if gap.mean is None else f"{gap.mean:+.1f}",
            "-" if gap.low is None or gap.high is None else f"{gap.low:.1f}..{gap.high:.1f}",
            *(p_text(p) for p in (gap.p, one.flip_p, one.holm_p, one.fdr_p)),
            number(one.detectable),
        )
    return made


def p_text(p: float | None) -> str:
    """A p value with three digits, "-" where there is none."""
    return "-" if p is None else "<.001" if p < 0.001 else f"{p:.3f}"


def _behind(table: StudyTable) -> Table:
    attributes = sorted({name for row in table.rows for name in row.classes})
    heads = [f"{name}\nWA/UA/F1" for name in attributes]
    made = frame("Behind the scores", "system", "scored", "strict\nmean", "un-\nmapped", "unscored\nby reason", *heads)
    for row in table.rows:
        cell = row.overall
        reasons = "\n".join(f"{name} {count}" for name, count in cell.unscored.items()) or "none"
        read = [row.classes.get(name) for name in attributes]
        made.add_row(
            row.subject,
            f"{cell.score.n}/{cell.pairs}",
            number(cell.strict_mean),
            str(cell.unmapped),
            reasons,
            *(
                "-"
                if one is None
                else "/".join(number(None if value is None else 100 * value) for value in (one.wa, one.ua, one.macro_f1))
                for one in read
            ),
        )
    return made


def _paper(table: StudyTable) -> Table:
    paper = table.published
    kinds = [kind for kind in table.kinds if any(kind in one.kinds for one in paper.scores)]
    made = frame(f"Published ({paper.note})", "system", *kinds, "overall", "vs S10, %")
    for one in paper.scores:
        gain = "-" if one.gain_percent is None else f"{one.gain_percent:+.2f}"
        made.add_row(one.system, *(number(one.kinds.get(kind), digits=2) for kind in kinds), number(one.overall, digits=2), gain)
    return made


def number(value: float | None, *, digits: int = 1) -> str:
    """A number, "-" for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def two_lines(interval: Interval) -> str:
    """A mean above its interval."""
    if interval.low is None or interval.high is None:
        return number(interval.mean)
    return f"{number(interval.mean)}\n{interval.low:.0f}-{interval.high:.0f}"


def _gain(interval: Interval | None) -> str:
    if interval is None or interval.mean is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.1f}"
    return f"{interval.mean:+.1f}\n{interval.low:+.0f}..{interval.high:+.0f}"
