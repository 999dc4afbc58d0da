"""A validation in words, and as text for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from undertone.evaluate.metrics import Interval
from undertone.evaluate.validate.checks import bin_name
from undertone.evaluate.validate.result import (
    ALL,
    Bin,
    Calibration,
    JudgeFacts,
    RankAgreement,
    RaterAgreement,
    Validation,
    WholeAgreement,
)
from undertone.evaluate.validate.rows import Rater

if TYPE_CHECKING:
    from rich.table import Table

_FEWEST = 5
"""Pairs of verdicts below which an agreement is not shown on the terminal; the JSON holds all."""


def sentences(found: Validation) -> list[str]:
    """What was found, in plain words, decided by intervals and by nothing else."""
    names = raters(found)
    return [
        *(_failures(one, names) for one in found.judges if one.scored < one.verdicts),
        *(_rises(one, names) for one in found.calibration if one.dataset == ALL or len(found.attributes) == 1),
        *(_ordered(one, names) for one in found.ranks),
        *(_agreed(one, names) for one in _overall(found) if one.n >= _FEWEST),
        *_repeated(found, names),
        *_costs(found, names),
    ]


def raters(found: Validation) -> dict[str, str]:
    """A letter for each judge with its prompt, since names of judges are long."""
    letters = (chr(65 + index) if index < 26 else f"J{index + 1}" for index in range(len(found.judges)))
    return {str(Rater(one.judge, one.prompt)): letter for one, letter in zip(found.judges, letters, strict=True)}


def _name(one: JudgeFacts | Calibration | RankAgreement, names: Mapping[str, str]) -> str:
    return names[str(Rater(one.judge, one.prompt))]


def _failures(one: JudgeFacts, names: Mapping[str, str]) -> str:
    lost = ", ".join(f"{count} {reason}" for reason, count in one.unscored.items())
    said = f"{_name(one, names)} left {one.verdicts - one.scored} of {one.verdicts} verdicts without a score ({lost}): "
    said += f"mean {number(one.mean.mean, 2)} over the others, {number(one.as_zero.mean, 2)} if these counted as 0"
    if one.as_counted.mean is not None and one.as_counted != one.mean:
        said += f", {number(one.as_counted.mean, 2)} as the suite counts"
    return said + (f", {one.reread:.2f} with the ratings that stand in unread replies." if one.reread is not None else ".")


def _rises(one: Calibration, names: Mapping[str, str]) -> str:
    rises = {
        "yes": "the share of right answers rises with the score",
        "no": "the share of right answers does not rise with the score"
        + (f" (it falls from {', '.join(one.falls)})" if one.falls else ""),
        "cannot be told": "whether the share of right answers rises with the score cannot be told",
    }[one.rises]
    ends = [f"{share(end.correct.mean)} of {end.n} right at {bin_name(end)}" for end in _ends(one.bins)]
    unmapped = sum(each.unmapped for each in one.bins)
    read = f" {unmapped} of {one.n} answers were read as no class, which counts as wrong." if unmapped else ""
    return f"{_name(one, names)}, {one.dataset} ({one.attribute}): {rises}: {', '.join(ends)}; AUC {interval(one.auc)}.{read}"


def _ends(bins: tuple[Bin, ...]) -> tuple[Bin, ...]:
    return bins if len(bins) < 2 else (bins[0], bins[-1])


def _ordered(one: RankAgreement, names: Mapping[str, str]) -> str:
    found = one.agreement
    if found.spearman.mean is None:
        return (
            f"{_name(one, names)}, {one.dataset}: all systems have one {one.measure} or one score; there is no order to agree on."
        )
    sure = "" if found.p is None else f", p {p_value(found.p)} over orders of the systems"
    return (
        f"{_name(one, names)} orders {len(found.systems)} systems on {one.dataset} as {one.measure} does with Spearman "
        f"{interval(found.spearman)}{sure}."
    )


def _agreed(one: RaterAgreement, names: Mapping[str, str]) -> str:
    first, second = names.get(one.first, one.first), names.get(one.second, one.second)
    gap = one.difference.mean or 0.0
    sure = (
        one.difference.low is not None and one.difference.high is not None and (one.difference.low > 0 or one.difference.high < 0)
    )
    side = (
        f"{first} scores {abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
        if sure
        else f"no difference in level ({gap:+.1f} points)"
    )
    return (
        f"{first} and {second}, {one.dataset}: the same score for {share(one.same)} of {one.n} answers; quadratic kappa {interval(one.kappa)}, "
        f"alpha {interval(one.alpha)}; {side}."
    )


def _overall(found: Validation) -> Iterator[RaterAgreement]:
    """Of each pair of raters the figure over all sets, or over the one that they share."""
    together = {(one.first, one.second) for one in found.agreement if one.dataset == ALL}
    return (one for one in found.agreement if one.dataset == ALL or (one.first, one.second) not in together)


def _repeated(found: Validation, names: Mapping[str, str]) -> Iterator[str]:
    several = {one.dataset for one in found.consistency} > {ALL}
    for one in found.consistency:
        if one.dataset == ALL or not several:
            yield (
                f"{names[str(Rater(one.judge, one.prompt))]} over {one.runs} runs: the same score each time for {share(one.same.mean)} of "
                f"{one.answers} answers, standard deviation {number(one.sd.mean)} points, alpha {interval(one.alpha)}."
            )


def _costs(found: Validation, names: Mapping[str, str]) -> Iterator[str]:
    for one in found.judges:
        if one.priced:
            parts = [f"{one.tokens:,} tokens"] if one.tokens is not None else []
            parts += [f"{one.cost:.4g} in money"] if one.cost is not None else []
            each = [f"{one.cost / one.priced:.4g}"] if one.cost is not None else []
            yield f"{_name(one, names)} cost {' and '.join(parts)} for {one.priced} verdicts" + (
                f", {each[0]} each." if each else "."
            )


# ---- as text ---------------------------------------------------------------------------------------------------------------------


def plain_text(found: Validation, *, width: int = 110) -> str:
    """All of it as plain text without colours, at most `width` columns wide."""
    from rich.console import Console

    names = raters(found)
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(
            f"{found.source} ({found.format}): {found.verdicts} verdicts on {found.answers} answers of {len(found.systems)} systems "
            f"to questions about {found.recordings} recordings in {len(found.datasets)} sets; 95 % intervals from {found.resamples} "
            "resamples of recordings"
        )
        for name, letter in names.items():
            console.print(f"  {letter}  {name}")
        for title, lines in (
            ("", sentences(found)),
            ("To be careful about:", found.warnings),
            ("Not in these files:", found.notes),
        ):
            console.print("" if not lines else f"\n{title}" if title else "")
            for line in lines:
                console.print(f"- {line}")
        console.print("")
        for table in _tables(found, names):
            if table.row_count:
                console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _tables(found: Validation, names: Mapping[str, str]) -> Iterator[Table]:
    table = _frame("Judges", "", "verdicts", "scored", "mean", "as the\nsuite", "unscored\nas 0", "grades: how often")
    for one in found.judges:
        grades = " ".join(f"{grade}:{count}" for grade, count in one.grades.items())
        means = (number(mean.mean, 2) for mean in (one.mean, one.as_counted, one.as_zero))
        table.add_row(_name(one, names), str(one.verdicts), str(one.scored), *means, grades)
    yield table
    table = _frame("Right answers by score", "set", "", "n", "share right (n) at each score", "AUC", "rises")
    for curve in found.calibration:
        bins = "  ".join(f"{bin_name(one)}: {share(one.correct.mean)} ({one.n})" for one in curve.bins)
        table.add_row(curve.dataset, _name(curve, names), str(curve.n), bins, interval(curve.auc), curve.rises)
    yield table
    table = _frame(
        "Order of systems: score beside right answers", "set", "", "by", "systems", "Spearman", "Kendall", "Pearson", "p"
    )
    for rank in found.ranks:
        ordered = rank.agreement
        figures = (
            interval(ordered.spearman),
            number(ordered.kendall.mean, 2),
            number(ordered.pearson.mean, 2),
            p_value(ordered.p),
        )
        table.add_row(rank.dataset, _name(rank, names), rank.measure, str(len(ordered.systems)), *figures)
    yield table
    table = _frame("Agreement on the same answers", "set", "raters", "n", "same", "kappa", "alpha", "Pearson", "first - second")
    for pair in found.agreement:
        if pair.n >= _FEWEST:
            both = f"{names.get(pair.first, pair.first)} {names.get(pair.second, pair.second)}"
            figures = (interval(pair.kappa), number(pair.alpha.mean, 2), number(pair.pearson.mean, 2), interval(pair.difference, 1))
            table.add_row(pair.dataset, both, str(pair.n), share(pair.same), *figures)
    yield table
    table = _frame("Runs of one judge", "set", "", "runs", "answers", "same", "sd", "alpha")
    for run in found.consistency:
        letter = names[str(Rater(run.judge, run.prompt))]
        table.add_row(
            run.dataset, letter, str(run.runs), str(run.answers), share(run.same.mean), number(run.sd.mean), interval(run.alpha)
        )
    yield table
    table = _frame(
        "Whole sets by their headers, over systems", "set", "first", "second", "n", "Spearman", "Pearson", "p", "gap (sd)"
    )
    for cells in found.whole_agreement:
        if cells.n >= _FEWEST:
            table.add_row(*_cells(cells, names))
    yield table


def _frame(title: str, *columns: str) -> Table:
    """A table whose text folds and whose numbers do not."""
    from undertone.evaluate.study_text import frame

    made = frame(title, *columns)
    for column, name in zip(made.columns, columns, strict=True):
        column.no_wrap = name not in ("set", "first", "second", "grades: how often", "share right (n) at each score")
        column.overflow = "fold"
    return made


def _cells(one: WholeAgreement, names: Mapping[str, str]) -> tuple[str, ...]:
    gap = "-" if one.gap is None else f"{one.gap:+.1f}" + ("" if one.spread is None else f" ({one.spread:.1f})")
    judge = one.first.removesuffix(", whole set")
    first = f"{names[judge]}, whole set" if judge in names else one.first
    return one.dataset, first, one.second, str(one.n), number(one.spearman, 2), number(one.pearson, 2), p_value(one.p), gap


def number(value: float | None, digits: int = 1) -> str:
    """A number, "-" for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    """A p value to three places."""
    return "<0.001" if value is not None and value < 0.001 else number(value, 3)


def share(value: float | None) -> str:
    """A share in percent, "-" for none."""
    return "-" if value is None else f"{100 * value:.0f} %"


def interval(one: Interval, digits: int = 2) -> str:
    """A figure with its interval, where there is one."""
    if one.mean is None or one.low is None or one.high is None:
        return number(one.mean, digits)
    return f"{one.mean:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"
