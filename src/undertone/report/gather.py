"""From a run's folder to the report: whatever tables are there are shown, a run may have stopped anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

from undertone import tables
from undertone.condense.funnel import At, Funnel, funnel
from undertone.condense.tune import TUNING, read_tuning
from undertone.evaluate.labeller_report import labeller_report
from undertone.evaluate.study_table import StudyTable
from undertone.paths import Location, Remote
from undertone.records import Answer, Clip, QAPair, Record, Recording, Segment, Verdict
from undertone.report.build import build
from undertone.report.cards import CardFacts, dataset_card
from undertone.report.choose import choose_clips
from undertone.report.funnel import funnel_markdown, funnel_steps
from undertone.report.inputs import ClipView, LossCurve, ReportInputs, RunFacts, SourceRow
from undertone.study import Study
from undertone.tables import Table

R = TypeVar("R", bound=Record)
_MS_PER_HOUR = 3_600_000


def gather(out: Location, study: Study) -> Location:
    """Write report/index.html (and report/DATASET.md where pairs were generated) of a run.

    Args:
        out: The run's folder.
        study: The run's study.

    Returns:
        The page.
    """
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    recordings = list(_rows(out / "corpus", Recording))
    segments = list(_rows(out / "label", Segment))
    heard = frozenset(speaker for one in study.label.made() for speaker in one.heard_speakers)
    referenced = any(row.references for row in recordings)
    study_file = out / "evaluate" / "study.json"
    found = _funnel(out, study)
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
        labeller=labeller_report(recordings, segments, heard=heard) if referenced and segments else None,
        labeller_card=_card(study, out / "report"),
        funnel=funnel_steps(found) if found else (),
        tuning=read_tuning(out / TUNING),
        losses=tuple(_losses(out / "train")),
        clips=_clips(out, segments, study.seed),
        notes=tuple(_notes(out, study)),
        sources=tuple(_sources(recordings, study)),
    )
    page = build(inputs, out / "report")
    _write_card(out, inputs, found)
    return page


def _table(path: Location, record: type[R]) -> Table[R] | None:
    return tables.open_table(path, record) if (path / "_done.json").exists() else None


def _rows(path: Location, record: type[R]) -> Iterable[R]:
    table = _table(path, record)
    return table.rows() if table else ()


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


def _losses(train: Location) -> Iterable[LossCurve]:
    files: list[Location] = [*train.glob("*/losses.jsonl")]
    for file in sorted(files, key=str):
        if file.parent.name == "start":  # no system; its losses, of reading from new weights, would set the scale for all
            continue
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        yield LossCurve(system=file.parent.name, points=tuple((line["step"], line["loss"]) for line in lines))


def _clips(out: Location, segments: Sequence[Segment], seed: int) -> tuple[ClipView, ...]:
    folders: list[Location] = [*(out / "evaluate" / "answers").glob("*")]
    answers = [row for folder in sorted(folders, key=str) for row in _rows(folder, Answer)]
    return choose_clips(
        pairs=_rows(out / "evaluate" / "benchmark", QAPair),
        clips=_rows(out / "references", Clip),  # the clips with a context; single utterances show nothing that these do not
        predicted=segments,
        answers=answers,
        verdicts=_rows(out / "evaluate" / "verdicts", Verdict),
        seed=seed,
    )


def _sources(recordings: Sequence[Recording], study: Study) -> Iterable[SourceRow]:
    seen: dict[tuple[str, str], list[Recording]] = {}
    for row in recordings:
        seen.setdefault((row.source, row.licence or "not stated"), []).append(row)
    for (source, licence), rows in sorted(seen.items()):
        hours = sum(row.duration_ms for row in rows) / _MS_PER_HOUR
        splits = ", ".join(sorted({row.split or "none" for row in rows}))
        yield SourceRow(name=source, licence=licence, used_for=f"speech ({splits})", recordings=len(rows), hours=hours)
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
    folders = [out / "generate" / name for name in ("base", "contextual")]
    found = [table for folder in folders if (table := _table(folder, QAPair))]
    if not inputs.sources:
        return
    if not found:  # condensed and no questions asked yet: what was kept, of what, under which licences
        if condensed and condensed.steps:
            card = f"# {inputs.run.name}\n\n{funnel_markdown(condensed)}"
            tables.write_bytes(out / "report" / "DATASET.md", card.encode())
        return
    losses = [loss for table in found for loss in (*table.dropped(), *table.failed())]
    facts = CardFacts.count((pair for table in found for pair in table.rows()), losses)
    run = inputs.run
    text = dataset_card(
        facts, name=run.name, created=run.created, code_version=run.code_version, seed=run.seed, sources=inputs.sources
    )
    if condensed:
        text = f"{text.rstrip()}\n\n{funnel_markdown(condensed)}"
    tables.write_bytes(out / "report" / "DATASET.md", text.encode())
