"""The study table and the labeller's accuracy as the template draws them."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from undertone.evaluate.labeller_report import LabellerReport
from undertone.evaluate.metrics import ClassMetrics, Interval
from undertone.evaluate.study_table import BASELINE, Cell, StudyTable, SubjectRow, verdict_sentences
from undertone.evaluate.study_text import GROUP_NAMES, TESTS_NOTE, p_text
from undertone.report import figures
from undertone.report.listen import KIND_NAMES

_MISSING = {
    "no_items": "no scored answer",
    "one_cluster": "one recording",
    "zero_baseline": "baseline is 0",
    "undefined": "a kind has no score",
}


@dataclass(frozen=True)
class Column:
    """A column of scores: its name and what it means."""

    name: str
    what: str


@dataclass(frozen=True)
class Number:
    """A value with its interval, or the reason why there is none."""

    mean: float | None
    low: float | None
    high: float | None
    why: str
    title: str = ""


@dataclass(frozen=True)
class StudyRow:
    """One system of the study table; the published numbers are None where the paper gives none."""

    name: str
    cells: tuple[Number | None, ...]
    gain: Number | None
    unscored: str
    unmapped: str
    published: str | None
    published_gain: str | None


@dataclass(frozen=True)
class TextRow:
    """A row whose cells are already text."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are already text."""

    columns: tuple[str, ...]
    rows: tuple[TextRow, ...]


@dataclass(frozen=True)
class StudyView:
    """The study as the template draws it; `groups` are systems and, where there are any, controls."""

    verdict: tuple[str, ...]
    judge: str
    baseline: str
    interval_name: str
    basis: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[StudyRow, ...], ...]
    behind: TextTable
    by_group: TextTable
    tests: TextTable
    tests_note: str
    published: TextTable
    published_source: str
    figure: Markup


@dataclass(frozen=True)
class MatrixCell:
    """One cell of a confusion matrix: count, and share of its row in per cent (0..100)."""

    count: int
    share: str
    percent: str
    hit: bool


@dataclass(frozen=True)
class MatrixRow:
    """One known class and how its utterances were labelled."""

    name: str
    total: str
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix, rows known, columns predicted."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True)
class LabellerView:
    """The labeller's accuracy as the template draws it; `empty` names the groups without utterances."""

    lead: str
    facts: TextTable
    matrices: tuple[Matrix, ...]
    empty: tuple[str, ...]


def study_view(table: StudyTable) -> StudyView:
    """Turn the study table into what the template draws; numbers keep their reasons where they are missing."""
    systems = tuple(_row(table, row) for row in table.rows if not row.control)
    controls = tuple(_row(table, row) for row in table.rows if row.control)
    level = table.rows[0].overall.score.level if table.rows else 0.95
    paper = table.published
    return StudyView(
        verdict=tuple(verdict_sentences(table)),
        judge=table.judge or "a judge without a name",
        baseline=BASELINE,
        interval_name=f"{level * 100:.0f} % interval",
        basis=f"{table.pairs:,} questions about {table.recordings:,} recordings; {_count(table.runs, 'run')} of the judge {table.judge}; "
        f"intervals from {table.resamples:,} bootstrap resamples of whole recordings.{_flagged(table)}",
        columns=(Column("overall", "all questions"), *(Column(kind, KIND_NAMES.get(kind, "")) for kind in table.kinds)),
        groups=tuple(group for group in (systems, controls) if group),
        behind=_behind(table),
        by_group=_by_group(table),
        tests=_tests(table),
        tests_note=f"{len(table.contrasts)} comparisons. {TESTS_NOTE}",
        published=_published(table),
        published_source=f"As published: {paper.note}. {paper.source}, Table of human CPQA: {paper.test_set}; judge {paper.judge}.",
        figure=Markup(_figure(table)),
    )


def _flagged(table: StudyTable) -> str:
    """How many questions stand apart, and why; nothing where none does."""
    if not table.flagged:
        return ""
    counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in table.flags.items())
    return f" {_count(table.flagged, 'question')} flagged ({counts}): scores without them stand behind the scores."


def _row(table: StudyTable, row: SubjectRow) -> StudyRow:
    paper = table.published.of(row.subject)
    return StudyRow(
        name=row.subject,
        cells=tuple(_cell(one) for one in (row.overall, *(row.kinds.get(kind) for kind in table.kinds))),
        gain=_number(row.gain_percent) if row.gain_percent else None,
        unscored=f"{sum(row.overall.unscored.values()):,}",
        unmapped=f"{row.overall.unmapped:,}",
        published=None if paper is None or paper.overall is None else f"{paper.overall:.2f}",
        published_gain=None if paper is None or paper.gain_percent is None else f"{paper.gain_percent:+.2f} %",
    )


def _number(interval: Interval, title: str = "") -> Number:
    why = _MISSING.get(interval.missing or "", "no score")
    return Number(mean=interval.mean, low=interval.low, high=interval.high, why=why, title=title)


def _cell(cell: Cell | None) -> Number | None:
    if cell is None:
        return None
    parts = [f"{cell.score.n:,} of {_count(cell.pairs, 'question')} scored"]
    if cell.strict_mean is not None:
        parts.append(f"strict mean {cell.strict_mean:.1f}")
    parts.extend(f"{reason.replace('_', ' ')} {count:,}" for reason, count in cell.unscored.items())
    if cell.unmapped:
        parts.append(f"unmapped {cell.unmapped:,}")
    return _number(cell.score, title="; ".join(parts))


def _behind(table: StudyTable) -> TextTable:
    """What stands behind the overall scores: how many were scored, the strict mean, the mean over kinds, and class metrics."""
    attributes = sorted({name for row in table.rows for name in row.classes})
    rows = []
    for row in table.rows:
        read = [row.classes.get(name) for name in attributes]
        reasons = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in row.overall.unscored.items())
        rows.append(
            TextRow(
                name=row.subject,
                cells=(
                    f"{row.overall.score.n:,} / {row.overall.pairs:,}",
                    reasons or "none",
                    _plain(row.overall.strict_mean),
                    _plain(row.uas.mean),
                    *(_with_interval(row.unflagged) if table.flagged else ()),
                    *(
                        "–" if one is None else " / ".join(_plain(one_of, scale=100) for one_of in (one.wa, one.ua, one.macro_f1))
                        for one in read
                    ),
                ),
            )
        )
    apart = ("without flagged questions",) if table.flagged else ()
    heads = (
        "scored / asked",
        "unscored",
        "strict mean",
        "mean over kinds",
        *apart,
        *(f"{name}: WA / UA / F1" for name in attributes),
    )
    return TextTable(columns=heads, rows=tuple(rows))


def _with_interval(cell: Cell | None) -> tuple[str]:
    if cell is None or cell.score.mean is None:
        return ("–",)
    return (f"{_bounded(cell.score)} of {cell.pairs:,}",)


def _bounded(found: Interval | None) -> str:
    if found is None or found.mean is None:
        return "–"
    return f"{found.mean:.1f}" + ("" if found.low is None or found.high is None else f" ({found.low:.1f}–{found.high:.1f})")


def _by_group(table: StudyTable) -> TextTable:
    """Means over kinds (UAS) by group and over all kinds beside the mean over questions, and the spread over the judge's runs."""
    names = [name for name in GROUP_NAMES if any(name in row.groups for row in table.rows)]
    spread = any(row.overall.run_sd is not None for row in table.rows)
    kinds = table.kinds if spread else ()
    return TextTable(
        columns=(
            *(f"{name}: {GROUP_NAMES[name]}" for name in names),
            "UAS, all kinds",
            "all questions",
            *(("sd over runs",) if spread else ()),
            *(f"sd {kind}" for kind in kinds),
        ),
        rows=tuple(
            TextRow(
                name=row.subject,
                cells=(
                    *(_bounded(row.groups.get(name)) for name in names),
                    _bounded(row.uas),
                    _bounded(row.overall.score),
                    *((_plain(row.overall.run_sd, digits=2),) if spread else ()),
                    *(_plain(row.kinds[kind].run_sd, digits=2) for kind in kinds),
                ),
            )
            for row in table.rows
        ),
    )


def _tests(table: StudyTable) -> TextTable:
    """Every comparison with its p values and what it could have found."""
    return TextTable(
        columns=("points", "p, bootstrap", "p, sign-flip", "Holm", "Benjamini-Hochberg", "detectable"),
        rows=tuple(
            TextRow(
                name=f"{one.first} – {one.second}",
                cells=(
                    _bounded(one.difference),
                    *(p_text(p) for p in (one.difference.p, one.flip_p, one.holm_p, one.fdr_p)),
                    _plain(one.detectable),
                ),
            )
            for one in table.contrasts
        ),
    )


def _published(table: StudyTable) -> TextTable:
    paper = table.published
    kinds = [kind for kind in KIND_NAMES if any(kind in one.kinds for one in paper.scores)]
    return TextTable(
        columns=("overall", "gain", *kinds),
        rows=tuple(
            TextRow(
                name=one.system,
                cells=(
                    _plain(one.overall, digits=2),
                    "–" if one.gain_percent is None else f"{one.gain_percent:+.2f} %",
                    *(_plain(one.kinds.get(kind), digits=2) for kind in kinds),
                ),
            )
            for one in paper.scores
        ),
    )


def _figure(table: StudyTable) -> str:
    rows = []
    for row in table.rows:
        found = {"overall": row.overall.score, **{kind: cell.score for kind, cell in row.kinds.items()}}
        bars = {name: figures.Bar(mean=one.mean, low=one.low, high=one.high) for name, one in found.items() if one.mean is not None}
        rows.append(figures.BarRow(name=row.subject, control=row.control, bars=bars))
    return figures.study_bars(
        rows, ("overall", *table.kinds), title="Scores with intervals of every system, overall and by question kind"
    )


def labeller_view(report: LabellerReport) -> LabellerView:
    """Turn the labeller's report into tables: unheard speakers first, because only they say how good new labels are."""
    groups = (
        ("unheard speakers", report.unheard),
        ("heard in training", report.heard),
        ("all utterances", report.everything),
    )
    matrices = [
        _matrix(f"{attribute}, {name}", metrics)
        for attribute in ("emotion", "gender")
        for name, group in groups[:2]
        if (metrics := group.emotion if attribute == "emotion" else group.gender).n
    ]
    if not matrices and report.everything.emotion.n:
        matrices = [_matrix("emotion, all utterances", report.everything.emotion)]
    return LabellerView(
        lead=f"{', '.join(report.labellers) or 'No labeller'} compared with the corpora's own labels of this run's recordings. "
        "Metadata and generated questions rest on these predictions. Speakers that the labeller heard in its training flatter it; "
        "those it never heard do not.",
        facts=TextTable(
            columns=(
                "speakers",
                "utterances",
                "emotion accuracy",
                "emotion UAR",
                "gender accuracy",
                "gender UAR",
                "no class in corpus",
            ),
            rows=tuple(
                TextRow(
                    name=name,
                    cells=(
                        f"{group.speakers:,}",
                        f"{group.utterances:,}",
                        *(_percent(one) for one in (group.emotion.wa, group.emotion.ua, group.gender.wa, group.gender.ua)),
                        f"{group.without_class:,}",
                    ),
                )
                for name, group in groups
            ),
        ),
        matrices=tuple(matrices),
        empty=tuple(name for name, group in groups if not group.utterances),
    )


def _matrix(title: str, metrics: ClassMetrics) -> Matrix:
    rows = []
    for name, counts in zip(metrics.classes, metrics.confusion, strict=True):
        total = sum(counts)
        cells = tuple(
            MatrixCell(
                count=count,
                share=f"{100 * count / total:.1f}" if total else "0",
                percent=f"{100 * count / total:.0f}" if total else "",
                hit=name == column,
            )
            for column, count in zip(metrics.columns, counts, strict=True)
        )
        rows.append(MatrixRow(name=name, total=f"{total:,}", cells=cells))
    return Matrix(title=title, columns=(*metrics.columns[:-1], "no label"), rows=tuple(row for row in rows if row.total != "0"))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _plain(value: float | None, *, digits: int = 1, scale: float = 1.0) -> str:
    return "–" if value is None else f"{scale * value:.{digits}f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
