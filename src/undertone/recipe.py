"""The recipe: corpora, label, condense, generate, train, evaluate, report, in this order.

Each step reads tables of the run's folder and writes tables there, so a user may run one step alone, replace a table by one of
their own, or leave the path anywhere. Nothing here is science: a step names its stage, its inputs and its output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from undertone import tables
from undertone.corpora.plan import Planned, speakers_on_both_sides
from undertone.corpora.stage import Deduplicate, ReadCorpus
from undertone.errors import ConfigError
from undertone.execute import StageReport, run_stage, write_rows
from undertone.execute.run import Progress
from undertone.label.protocol import LABELLERS
from undertone.records import Clip, QAPair, Recording, Segment, content_hash
from undertone.stages import Stage
from undertone.study import Study
from undertone.tables import Fingerprint, Table


@dataclass(kw_only=True)
class Run:
    """One run of a study in one folder.

    Attributes:
        study: What to do.
        out: The run's folder.
        workers: Processes.
        limit: At most so many recordings of each corpus.
        redo: Tables to start over, by folder ("generate/cpqa", or "generate" for all of them) and all that come after are begun anew
            by themselves only where their input changed; so name them too, or use another folder.
        say: Prints one line.
        progress: Told how far a stage is.
    """

    study: Study
    out: Path
    workers: int = 1
    limit: int | None = None
    redo: tuple[str, ...] = ()
    say: Callable[[str], None] = print
    progress: Progress | None = None
    reports: list[StageReport] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """The folder of a table."""
        return self.out / name

    def table(self, name: str, record: type[Any]) -> Table[Any]:
        """A finished table of this run."""
        return tables.open_table(self.path(name), record)

    def again(self, name: str) -> bool:
        """Whether --redo names this table or a folder above it."""
        return any(name == one or name.startswith(one.rstrip("/") + "/") for one in self.redo)

    def stage(self, stage: Stage[Any, Any], sources: Sequence[str], out: str, *, sides: dict[str, str] | None = None, workers: int = 0) -> StageReport:
        """Run one stage between tables of this run and print its accounting."""
        report = run_stage(
            stage,
            [self.path(one) for one in sources],
            self.path(out),
            sides={name: self.path(one) for name, one in (sides or {}).items()},
            seed=self.study.seed,
            workers=workers or self.workers,
            redo=self.again(out),
            max_failed_share=self.study.max_failed_share,
            progress=self.progress,
        )
        return self.told(report, out)

    def told(self, report: StageReport, out: str) -> StageReport:
        """Print and keep a report."""
        self.reports.append(report)
        self.say(report.line().replace(f"{report.stage}:", f"{out}:", 1))
        return report

    def fingerprint(self, stage: str, config: dict[str, Any], inputs: dict[str, str], *, version: str = "1") -> Fingerprint:
        """The fingerprint of something that this run writes without a stage."""
        return Fingerprint(stage=stage, version=version, seed=self.study.seed, config=config, inputs=inputs)


def corpora(run: Run) -> None:
    """Plan, read or render, and deduplicate all corpora into corpus/; warn of speakers on both sides of the split."""
    study = run.study
    planned: list[Planned] = []
    for corpus in study.corpora:
        rows = corpus.plan(seed=study.seed)
        planned += rows if run.limit is None else _limited(rows, run.limit)
    config = {"corpora": [json.loads(one.model_dump_json()) for one in study.corpora], "limit": run.limit, "parts": study.parts}
    rows_report = write_rows(
        run.path("corpus/plan"),
        planned,
        record=Planned,
        fingerprint=run.fingerprint("plan", config, {"rows": _digest_of(planned)}),
        parts=study.parts,
        redo=run.again("corpus"),
    )
    run.told(rows_report, "corpus/plan")
    run.stage(ReadCorpus(), ["corpus/plan"], "corpus/read")
    run.stage(Deduplicate(), ["corpus/read"], "corpus")
    _warn_of_leaks(run)


def _limited(rows: Sequence[Planned], limit: int) -> list[Planned]:
    """The first `limit` recordings of each split, so that a small run still has something to test on."""
    counts: dict[str | None, int] = {}
    kept = []
    for row in rows:
        counts[row.split] = counts.get(row.split, 0) + 1
        if counts[row.split] <= limit:
            kept.append(row)
    return kept


def _digest_of(planned: Sequence[Planned]) -> str:
    return content_hash(*(row.id for row in planned))


def _warn_of_leaks(run: Run) -> None:
    splits: dict[str, set[str]] = {}
    for row in run.table("corpus", Recording).rows():
        splits.setdefault(row.split or "none", set()).update(row.speakers)
    for speaker, where in speakers_on_both_sides(splits).items():
        run.say(f"WARNING: speaker {speaker} stands on both sides of the split ({' and '.join(where)}): scores will flatter")


def label(run: Run) -> None:
    """Predict labels for all recordings into label/; refuse a labeller that has heard a test speaker."""
    _check_heard(run)
    run.stage(run.study.label, ["corpus"], "label")


def _check_heard(run: Run) -> None:
    heard = heard_speakers(run.study)
    tested = {one for row in run.table("corpus", Recording).rows() if row.split == "test" for one in row.speakers}
    both = sorted(heard & tested)
    if not both:
        return
    message = f"the labeller was trained on {len(both)} test speakers of this study ({', '.join(both[:5])}), so its labels of them are too good"
    if not run.study.allow_heard_test_speakers:
        raise ConfigError(f"{message}. Hold out other speakers, use another labeller, or set allow_heard_test_speakers: true")
    run.say(f"WARNING: {message}")


def heard_speakers(study: Study) -> frozenset[str]:
    """Speakers that the study's labellers say they were trained on."""
    return frozenset(one for name in study.label.labellers for one in LABELLERS.get(name).heard_speakers)


def condense(run: Run) -> None:
    """Cut reference clips; filter predicted segments and the clips made of them into condense/."""
    steps = run.study.condense
    run.stage(run.study.references, ["corpus"], "references")
    run.stage(steps.consistency, ["label"], "condense/consistency")
    run.stage(steps.clips, ["condense/consistency"], "condense/clips", sides={"recordings": "corpus"})
    run.stage(steps.occurrence, ["condense/clips"], "condense/occurrence")
    run.stage(steps.balance, ["condense/occurrence"], "condense")


PAIR_TABLES = ("generate/base", "generate/contextual")
"""Checked training pairs: of reference clips, and of condensed clips."""


def generate(run: Run) -> None:
    """Write the training pairs of all sources and check them."""
    made = run.study.generate
    run.stage(made.asr, ["references"], "generate/asr")
    run.stage(made.pqa, ["references"], "generate/pqa")
    run.stage(made.pqa_star, ["condense"], "generate/pqa_star")
    run.stage(made.cpqa, ["condense"], "generate/cpqa")
    run.stage(made.checks, ["generate/asr", "generate/pqa"], PAIR_TABLES[0], sides={"clips": "references"})
    run.stage(made.checks, ["generate/pqa_star", "generate/cpqa"], PAIR_TABLES[1], sides={"clips": "condense"})


# TRAIN EVALUATE REPORT


def all_clips(run: Run) -> dict[str, Clip]:
    """Reference and condensed clips by id."""
    return {clip.id: clip for name in ("condense", "references") for clip in run.table(name, Clip).rows()}


def training_pairs(run: Run) -> list[QAPair]:
    """All checked training pairs."""
    return [pair for name in PAIR_TABLES for pair in run.table(name, QAPair).rows()]


def predicted_segments(run: Run) -> dict[str, list[Segment]]:
    """Segments with predicted labels by recording."""
    found: dict[str, list[Segment]] = {}
    for segment in run.table("label", Segment).rows():
        found.setdefault(segment.recording_id, []).append(segment)
    return found
