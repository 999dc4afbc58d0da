"""From a run's folder to the report: whatever tables are there are shown, a run may have stopped anywhere.

A run may have millions of rows of which the page shows a dozen: columns are read where those suffice, and records are made only of the
rows that are shown or compared, one part in memory at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Set
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from undertone import tables
from undertone.condense.funnel import At, Funnel, funnel
from undertone.condense.tune import TUNING, read_tuning
from undertone.evaluate.empathy_table import EmpathyTable
from undertone.evaluate.labeller_report import labeller_report
from undertone.evaluate.study_table import StudyTable
from undertone.generate.card import CARD
from undertone.model.examples import SYSTEMS as PAPER
from undertone.model.examples import System, slug
from undertone.paths import Location, Remote
from undertone.records import Answer, Clip, QAPair, Record, Recording, Segment, Verdict, from_arrow
from undertone.report.build import build
from undertone.report.choose import choose_clips
from undertone.report.funnel import funnel_markdown
from undertone.report.inputs import SYSTEMS, ClipView, LossCurve, ReportInputs, RunFacts, SourceRow
from undertone.report.pairs import pairs_page
from undertone.study import Study
from undertone.tables import Table

R = TypeVar("R", bound=Record)


def gather(out: Location, study: Study) -> Location:
    """Write report/index.html of a run, report/pairs.html where pairs were generated, and report/DATASET.md.

    Args:
        out: The run's folder.
        study: The run's study.

    Returns:
        The page.
    """
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    corpus, label = _table(out / "corpus", Recording), _table(out / "label", Segment)
    referenced = list(_where(corpus, lambda rows: pc.greater(pc.list_value_length(rows["references"]), 0)))
    heard = frozenset(speaker for one in study.label.made() for speaker in one.heard_speakers)
    study_file, empathy_file = out / "evaluate" / "study.json", out / "evaluate" / "empathy.json"
    found, pairs = _funnel(out, study), pairs_page(out)
    inputs = ReportInputs(
        run=RunFacts(
            name=study.name,
            created=facts["created"],
            seed=study.seed,
            code_version=facts["undertone"],
            command=facts["command"],
            machine=facts["machine"],
            packages=facts["packages"],
        ),
        study=StudyTable.from_json(study_file.read_text(encoding="utf-8")) if study_file.is_file() else None,
        empathy=EmpathyTable.from_json(empathy_file.read_text(encoding="utf-8")) if empathy_file.is_file() else None,
        labeller=labeller_report(referenced, _of(label, "recording_id", {row.id for row in referenced}), heard=heard)
        if referenced and label
        else None,
        labeller_card=_card(study, out / "report"),
        funnel=found,
        tuning=read_tuning(out / TUNING),
        losses=tuple(_losses(out / "train", study)),
        clips=_clips(out, label, study.seed),
        systems={one.name: described(one) for one in study.systems if one not in PAPER} | SYSTEMS,
        notes=tuple(_notes(out, study)),
        sources=tuple(_sources(corpus, study)),
        pairs_page=pairs.name if pairs else None,
        sweep_page="../sweep/index.html" if (out / "sweep" / "index.html").is_file() else None,
    )
    page = build(inputs, out / "report")
    _write_card(out, inputs, found)
    return page


def _table(path: Location, record: type[R]) -> Table[R] | None:
    return tables.open_table(path, record) if (path / "_done.json").exists() else None


def _rows(path: Location, record: type[R]) -> Iterable[R]:
    table = _table(path, record)
    return table.rows() if table else ()


def _where(table: Table[R] | None, wanted: Callable[[pa.Table], pa.ChunkedArray]) -> Iterator[R]:
    """The rows that are wanted, a mask over columns; records are made of no others."""
    if table:
        for part in table.done.parts:
            rows = table.read(part)
            yield from from_arrow(rows.filter(wanted(rows)), table.record)


def _of(table: Table[R] | None, column: str, values: Set[str]) -> Iterator[R]:
    """The rows with one of some values in a column."""
    some = pa.array(sorted(values), pa.string())
    return _where(table, lambda rows: pc.is_in(rows[column], value_set=some))


def _card(study: Study, page: Location) -> str | None:
    """The labeller's model card as a link from the page; None where no labeller has one."""
    cards = [card for one in study.label.made() if (card := one.card)]
    return os.path.relpath(cards[0], page) if cards and not isinstance(page, Remote) else None


def _funnel(out: Location, study: Study) -> Funnel | None:
    corpus = _table(out / "corpus", Recording)
    # The study's own filters only: one that it no longer names may have left its table.
    segments = [At(name, out / "condense" / name, Segment) for name in (*study.condense.named(), "consistency")]
    clips = [At(name, out / "condense" / name, Clip) for name in ("clips", "occurrence")]
    steps = [At("label", out / "label", Segment), *segments, *clips, At("balance", out / "condense", Clip)]
    return funnel(corpus, steps) if corpus else None


def described(system: System) -> str:
    """What a system is, in a line."""
    made = system.model_dump(mode="json", exclude_defaults=True, exclude={"name", "data", "hears"})
    settings = [f"{key}: {json.dumps(value)}" for key, value in made.items()]
    return "; ".join([f"Hears {system.hears}, trained on {', '.join(system.data)}", *settings]) + "."


def _losses(train: Location, study: Study) -> Iterable[LossCurve]:
    # Those of the systems alone: a decoder that learns to read from new weights would set the scale for all.
    for system in sorted((one for one in study.systems if one.weights_of is None), key=lambda one: slug(one.name)):
        file = train / slug(system.name) / "losses.jsonl"
        if not file.is_file():
            continue
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        yield LossCurve(system=slug(system.name), points=tuple((line["step"], line["loss"]) for line in lines))


def _clips(out: Location, label: Table[Segment] | None, seed: int) -> tuple[ClipView, ...]:
    """Chosen first, and then filled: the choice looks at clips and questions only, so answers and labels of no others are read."""
    benchmark = list(_rows(out / "evaluate" / "benchmark", QAPair))
    clips = list(_rows(out / "references", Clip))  # the clips with a context; single utterances show nothing that these do not
    chosen = choose_clips(pairs=benchmark, clips=clips, predicted=(), answers=(), verdicts=(), seed=seed)
    pairs = [question.pair for view in chosen for question in view.questions]
    asked = {pair.id for pair in pairs}
    folders: list[Location] = [*(out / "evaluate" / "answers").glob("*")]
    answers = [row for folder in sorted(folders, key=str) for row in _of(_table(folder, Answer), "pair_id", asked)]
    return choose_clips(
        pairs=pairs,
        clips=[view.clip for view in chosen],
        predicted=_of(label, "recording_id", {view.clip.recording_id for view in chosen}),
        answers=answers,
        verdicts=_of(_table(out / "evaluate" / "verdicts", Verdict), "pair_id", asked),
        seed=seed,
    )


def _sources(corpus: Table[Recording] | None, study: Study) -> Iterable[SourceRow]:
    if corpus:
        rows = pl.DataFrame(corpus.arrow(columns=["source", "licence", "split", "samples", "rate_hz"]))
        by = rows.group_by("source", pl.col("licence").fill_null("not stated")).agg(
            pl.col("split").fill_null("none").unique().sort(),
            pl.len().alias("recordings"),
            (pl.col("samples") / pl.col("rate_hz") / 3600).sum().alias("hours"),
        )
        for row in by.sort("source", "licence").iter_rows(named=True):
            yield SourceRow(
                name=row["source"],
                licence=row["licence"],
                used_for=f"speech ({', '.join(row['split'])})",
                recordings=row["recordings"],
                hours=row["hours"],
            )
    for one in study.label.made():
        if one.licence:
            yield SourceRow(name=one.name, licence=one.licence, used_for="labels")


def _notes(out: Location, study: Study) -> Iterable[str]:
    if study.evaluate.judge.judge.kind != "reference":
        yield f"Answers were scored by {study.evaluate.judge.judge.name}."
    if (out / "train" / "start" / "_done.json").exists():
        yield (
            "The decoder began with random weights. So that systems differ by what they hear and not by how much English they picked "
            "up, all start from one checkpoint (train/start): its decoder learnt to read from text clips with random labels, its "
            "adapter to hear words from the transcripts of the training split."
        )


def _write_card(out: Location, inputs: ReportInputs, condensed: Funnel | None) -> None:
    """report/DATASET.md: what generation says of its pairs (generate/DATASET.md), if there are any, and the path of the speech."""
    pairs = out / CARD
    parts = [pairs.read_text(encoding="utf-8").rstrip()] if pairs.is_file() else [f"# {inputs.run.name}"]
    if condensed and condensed.steps:
        parts.append(funnel_markdown(condensed))
    if inputs.sources and (len(parts) > 1 or pairs.is_file()):
        tables.write_bytes(out / "report" / "DATASET.md", ("\n\n".join(parts) + "\n").encode())
