"""A published benchmark in place of questions about the study's own test clips: read, labelled and encoded apart from what training sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from undertone import tables
from undertone.evaluate.benchmarks import Benchmark, summary
from undertone.execute import write_rows
from undertone.recipe.runs import Run
from undertone.recipe.training import encoding, features_of
from undertone.records import Answer, Clip, Loss, QAPair, Recording, Segment, Verdict, content_hash

NATIVE = "evaluate/native"


def read_benchmark(run: Run, named: Benchmark) -> None:
    """Read a named benchmark; label and encode its recordings as the study's own are."""
    content = named.read(run.path(NATIVE))
    run.say(f"{named.title}: {content.line}")
    for note in content.notes:
        run.say(note)
    config = json.loads(named.model_dump_json(exclude={"mode"}))

    def write(name: str, rows: Sequence[Any], record: type[Any], losses: Sequence[Loss] = ()) -> None:
        made = run.fingerprint("named-benchmark", config, {"rows": content_hash(*(one.id for one in rows))})
        run.told(write_rows(run.path(name), rows, record=record, losses=losses, fingerprint=made, redo=run.again(name)), name)

    write(f"{NATIVE}/corpus", content.recordings, Recording)
    write(f"{NATIVE}/clips", content.clips, Clip)
    write("evaluate/benchmark", content.pairs, QAPair, content.dropped)
    run.stage(run.study.label, [f"{NATIVE}/corpus"], f"{NATIVE}/label/raw")
    run.stage(run.study.decide, [f"{NATIVE}/label/raw"], f"{NATIVE}/label")
    for table, model in {features_of(run, one): one for one in map(run.study.model_of, run.study.systems)}.items():
        run.stage(encoding(model), [f"{NATIVE}/clips"], f"{NATIVE}/{table}")


def predicted_of(run: Run) -> dict[str, list[Segment]]:
    """Segments of the benchmark's recordings with predicted labels, by recording."""
    found: dict[str, list[Segment]] = {}
    for segment in run.table(f"{NATIVE}/label", Segment).rows():
        found.setdefault(segment.recording_id, []).append(segment)
    return found


def write_figures(run: Run, named: Benchmark, pairs: Sequence[QAPair], answered: Sequence[str]) -> None:
    """The figures that the benchmark is reported by, into evaluate/benchmark.json."""
    said = (answer for table in answered for answer in run.table(table, Answer).rows())
    found = summary(named, pairs, said, run.table("evaluate/verdicts", Verdict).rows())
    tables.write_bytes(run.path("evaluate/benchmark.json"), found.model_dump_json(indent=1).encode())
    run.say(found.plain_text())
