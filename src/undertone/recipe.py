"""The recipe: corpora, label, condense, generate, train, evaluate, report, in this order.

Each step reads tables of the run's folder and writes tables there, so a user may run one step alone, replace a table by one of
their own, or leave the path anywhere. Nothing here is science: a step names its stage, its inputs and its output.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from rich.console import Console

from undertone import __version__, audio, settings, tables
from undertone.condense.leaks import check_splits, transcript_leakage
from undertone.condense.tune import TUNING, tune
from undertone.corpora.plan import Planned, speakers_on_both_sides
from undertone.corpora.stage import Deduplicate, ReadCorpus, plan_of
from undertone.errors import ConfigError, DataError, DependencyError
from undertone.evaluate import study_table
from undertone.evaluate import sweep as sweeping
from undertone.evaluate.judges import LLMJudge
from undertone.evaluate.majority import SUBJECT as MAJORITY
from undertone.evaluate.majority import majority_answers
from undertone.evaluate.stage import JudgeStage
from undertone.evaluate.study_table import StudyTable
from undertone.execute import StageReport, run_stage, write_rows
from undertone.execute.artefact import artefact_digest
from undertone.execute.pool import Execution, Stopped, run_units
from undertone.execute.run import Progress
from undertone.generate.ask import ask_ahead_of, dry_run
from undertone.generate.ask import explain as explained
from undertone.generate.card import Ingredient, write_outputs
from undertone.generate.checks import METADATA_LEAK, WORDS_ONLY, CheckStage
from undertone.generate.protocol import Material
from undertone.generate.stage import GenerateStage, MergeStage
from undertone.label.one_file import labelled
from undertone.label.protocol import LABELLERS
from undertone.label.selftest import one_sided
from undertone.metadata import MetadataConfig
from undertone.model.config import AFFECT_SMALL
from undertone.model.encode import EncodeStage
from undertone.model.examples import System, build_examples, slug
from undertone.model.shown import human_segments
from undertone.paths import Location, local_folder
from undertone.progress import shown
from undertone.records import Answer, Clip, Example, Loss, QAPair, Recording, Segment, Verdict, content_hash
from undertone.stages import Stage
from undertone.study import Study
from undertone.tables import Fingerprint, Table
from undertone.train.card import with_scores
from undertone.train.job import START, Frames, TrainJob, at_once, steps_done, train_one, train_start


@dataclass(kw_only=True)
class Run:
    """One run of a study in one folder.

    Attributes:
        study: What to do.
        out: The run's folder.
        workers: Processes; 0 is one per core of the machine, or of the cluster.
        execution: Where they are, and which parts are this job's.
        until: The command ends when this table is there ("corpus/plan").
        limit: At most so many recordings of each split of each corpus.
        row_limit: At most so many rows of each stage's input.
        redo: Folders to start over ("generate/cpqa", or "generate" for all in it). What comes after them is begun anew by itself
            where it may: a table that was made from another version of its input is refused, so name it too.
        say: Prints one line.
        progress: Told how far a stage is.
    """

    study: Study
    out: Location
    workers: int = 1
    execution: Execution = field(default_factory=Execution)
    until: str | None = None
    limit: int | None = None
    row_limit: int | None = None
    redo: tuple[str, ...] = ()
    say: Callable[[str], None] = print
    progress: Progress | None = None
    command: tuple[str, ...] = ()
    reports: list[StageReport] = field(default_factory=list)
    redone: set[str] = field(default_factory=set)

    def path(self, name: str) -> Location:
        """The folder of a table."""
        return self.out / name

    def table(self, name: str, record: type[Any]) -> Table[Any]:
        """A finished table of this run."""
        return tables.open_table(self.path(name), record)

    def again(self, name: str) -> bool:
        """Whether --redo names this table: whole ("generate/cpqa"), by a folder above it ("generate"), by its last part ("cpqa").

        With "/." at the end the table alone is meant, without those that lie inside its folder ("label/." but not "label/raw").
        """
        found = False
        for given in self.redo:
            one = given.removesuffix("/.").strip("/")
            named = name == one if given.endswith("/.") else f"{name}/".startswith(f"{one}/") or f"/{name}".endswith(f"/{one}")
            if named:
                found = True
                self.redone.add(given)
        return found

    def stage(
        self, stage: Stage[Any, Any], sources: Sequence[str], out: str, *, sides: dict[str, str] | None = None
    ) -> StageReport:
        """Run one stage between tables of this run and print its accounting."""
        report = run_stage(
            stage,
            [self.path(one) for one in sources],
            self.path(out),
            sides={name: self.path(one) for name, one in (sides or {}).items()},
            seed=self.study.seed,
            workers=self.workers,
            execution=self.execution,
            limit=self.row_limit,
            redo=self.again(out),
            max_failed_share=self.study.max_failed_share,
            progress=self.progress,
        )
        return self.told(report, out)

    def told(self, report: StageReport, out: str) -> StageReport:
        """Print and keep a report."""
        self.reports.append(report)
        self.say(report.line().replace(f"{report.stage}:", f"{out}:", 1))
        if out == self.until:
            raise Stopped(f"{out} is there (--until)")
        return report

    def fingerprint(self, stage: str, config: dict[str, Any], inputs: dict[str, str], *, version: str = "1") -> Fingerprint:
        """The fingerprint of something that this run writes without a stage."""
        return Fingerprint(stage=stage, version=version, seed=self.study.seed, config=config, inputs=inputs)


@contextmanager
def running(
    study: Study,
    out: Location,
    *,
    workers: int,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    until: str | None = None,
    redo: tuple[str, ...] = (),
    limit: int | None = None,
    row_limit: int | None = None,
    command: Sequence[str] = (),
) -> Iterator[Run]:
    """A run with its progress on the terminal; run.json tells what made the folder, from the first step on."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    with shown(console) as progress, execution.connected(workers=workers):
        made = Run(
            study=study,
            out=out,
            workers=workers,
            execution=execution,
            until=until.strip("/") if until else None,
            limit=limit,
            row_limit=row_limit,
            redo=redo,
            say=console.print,
            progress=progress,
            command=tuple(command),
        )
        if not (out / RUN_FILE).exists():
            _record(made)
        try:
            yield made
            if until:
                raise ConfigError(f"--until {until}: this command writes no such table; it is done")
        except Stopped as stopped:
            made.say(str(stopped))
        for name in sorted(set(redo) - made.redone):
            made.say(f"WARNING: --redo {name} named no table that this command writes; nothing was started over for it")
        if made.reports:  # nothing but a look (a report drawn again) leaves the record as it is
            _record(made)


RUN_FILE = "run.json"
_PACKAGES = ("numpy", "onnxruntime", "polars", "pyarrow", "pydantic", "scikit-learn", "soundfile", "soxr", "torch", "transformers")


def _record(run: Run) -> None:
    file = run.out / RUN_FILE
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    line = shlex.join(["undertone", *run.command[1:]])
    facts = {
        "study": run.study.model_dump(mode="json"),
        "command": before.get("command", line),
        "commands": list(dict.fromkeys([*before.get("commands", []), line])),
        "created": before.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
        "seed": run.study.seed,
        "undertone": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: version for name in _PACKAGES if (version := _version_of(name))},
    }
    tables.write_bytes(file, json.dumps(facts, indent=1).encode())


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def recorded_study(out: Location, overrides: Sequence[str] = ()) -> Study:
    """The study that a run's folder was made with, with settings of the command line over it.

    Raises:
        DataError: The folder is no run's.
        ConfigError: A setting is wrong.
    """
    file = out / RUN_FILE
    if not file.is_file():
        raise DataError(f"{out} is not a run's folder (no {RUN_FILE}). Begin with: undertone label FOLDER --out {out}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))["study"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is damaged ({type(error).__name__}: {error}). Write it anew with: undertone label FOLDER --out {out}"
        ) from error
    try:
        return settings.validated(Study, settings.override(content, overrides), where=str(file))
    except ConfigError as error:
        if overrides:
            raise
        raise ConfigError(f"{error}. An earlier version wrote it, or somebody's hand: make the run again in a new --out") from None


def check_installed(study: Study) -> None:
    """Raise DependencyError before any work is done where a labeller's weights or the demonstration's voices are not installed."""
    study.label.check()
    labellers = study.label.made()
    for one in labellers:
        one.version, one.revision  # noqa: B018 - reads the card of the weights
    study.decide.check(labellers)
    if any(corpus.kind == "demo" for corpus in study.corpora):
        need("espeakng_loader", extra="demo", what="the demonstration corpus")


def corpora(run: Run) -> None:
    """Plan, read or render, and deduplicate all corpora into corpus/; warn of speakers on both sides of the split."""
    study = run.study
    planned: list[Planned] = []
    dropped: list[Loss] = []
    for corpus in study.corpora:
        plan = plan_of(corpus, seed=study.seed)
        planned += plan.rows if run.limit is None else _limited(plan.rows, run.limit)
        dropped += plan.dropped
        if plan.note:
            run.say(plan.note)
    config = {"corpora": [json.loads(one.model_dump_json()) for one in study.corpora], "limit": run.limit, "parts": study.parts}
    inputs = {"rows": content_hash(*(row.id for row in planned)), "files": content_hash(*(row.stamp or "" for row in planned))}
    rows_report = write_rows(
        run.path("corpus/plan"),
        planned,
        record=Planned,
        losses=dropped,
        fingerprint=run.fingerprint("plan", config, inputs),
        parts=study.parts,
        redo=run.again("corpus/plan"),
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


def _warn_of_leaks(run: Run) -> None:
    splits: dict[str, set[str]] = {}
    for row in run.table("corpus", Recording).rows():
        splits.setdefault(row.split or "none", set()).update(row.speakers)
    for speaker, where in speakers_on_both_sides(splits).items():
        run.say(f"WARNING: speaker {speaker} stands on both sides of the split ({' and '.join(where)}): scores will flatter")


def label(run: Run) -> None:
    """Ask all labellers into label/raw/ and decide what holds into label/; refuse one that has heard a test speaker."""
    check_heard(run)
    run.study.decide.check(run.study.label.made())
    run.stage(run.study.label, ["corpus"], "label/raw")
    for warning in one_sided(run.table("label/raw", Segment)):
        run.say(f"WARNING: {warning}")
    run.stage(run.study.decide, ["label/raw"], "label")


def check_heard(run: Run) -> None:
    """Raise ConfigError where a labeller or the encoder was trained on a test speaker; warn where that cannot be told."""
    learned = [
        *run.study.label.made(),
        *([LABELLERS.get(AFFECT_SMALL)] if run.study.model.encoder.name == AFFECT_SMALL else []),
    ]
    heard = frozenset(speaker for one in learned for speaker in one.heard_speakers)
    rows = [row for row in run.table("corpus", Recording).rows() if row.split == "test"]
    tested = {one for row in rows for one in row.speakers}
    nameless = sum(not row.speakers for row in rows)
    if nameless and heard:
        run.say(
            f"WARNING: {nameless} test recordings have no speaker in their manifest: whether the labeller has heard them cannot be told"
        )
    both = sorted(heard & tested)
    if not both:
        bare = sorted({one.split("/")[-1] for one in heard} & {one.split("/")[-1] for one in tested})
        if bare:
            run.say(
                f"WARNING: test speakers {', '.join(bare[:5])} have names that the labeller was trained on in a corpus of another name; "
                "if it is the same corpus, give it the name that the labeller's card uses"
            )
        return
    message = f"the labeller was trained on {len(both)} test speakers of this study ({', '.join(both[:5])}), so its labels of them are too good"
    if not run.study.allow_heard_test_speakers:
        raise ConfigError(f"{message}. Hold out other speakers, use another labeller, or set allow_heard_test_speakers: true")
    run.say(f"WARNING: {message}")


CLIP_TABLES = ("condense", "references/utterances", "references")


def condense(run: Run) -> None:
    """Cut clips from references; filter predicted segments and the clips made of them into condense/."""
    steps = run.study.condense
    run.stage(run.study.references.utterances, ["corpus"], "references/utterances")
    run.stage(run.study.references.context, ["corpus"], "references")
    check_splits(run.table("corpus", Recording), *(run.table(name, Clip) for name in CLIP_TABLES[1:]))
    for leak in transcript_leakage(run.table("corpus", Recording)):
        run.say(leak.line())
    segments = "label"
    for name, stage in steps.named().items():
        run.stage(stage, [segments], f"condense/{name}", sides=dict.fromkeys(stage.sides, "corpus"))
        segments = f"condense/{name}"
    run.stage(steps.consistency, [segments], "condense/consistency")
    run.stage(steps.clips, ["condense/consistency"], "condense/clips", sides={"recordings": "corpus"})
    run.stage(steps.occurrence, ["condense/clips"], "condense/occurrence")
    run.stage(steps.balance, ["condense/occurrence"], "condense")


def tune_consistency(run: Run) -> None:
    """Search the consistency filter's thresholds against human labels, and go on with the best (2505.13338, fig. 3): tune.json, run.json."""
    if run.execution.shards is not None:
        raise ConfigError("--tune and --shards: the search is over all rows. Run --tune once, then the shards without it")
    heard = frozenset(speaker for one in run.study.label.made() for speaker in one.heard_speakers)
    found = tune(
        run.table("label", Segment), run.table("corpus", Recording), consistency=run.study.condense.consistency, heard=heard
    )
    tables.write_bytes(run.path(TUNING), found.model_dump_json(indent=1).encode())
    run.say(found.line())
    content = settings.override(run.study.model_dump(mode="json"), found.settings())
    run.study = settings.validated(Study, content, where="the tuned study")
    run.redo = (*run.redo, "condense/consistency", "condense/clips", "condense/occurrence", "condense/.")
    _record(run)  # at once: whatever ends this command, the folder's study is the one that its tables are begun with


PAIR_TABLES = ("generate/base", "generate/contextual")
"""Checked training pairs: of reference utterances, and of condensed clips."""

ABOUT: dict[Material, str] = {"utterances": "references/utterances", "clips": "condense"}
"""The clips that each kind of material is."""


def pair_tables(study: Study) -> dict[str, tuple[str, list[str]]]:
    """The tables of checked pairs that a study makes: the clips that each is about, and the sources in it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for (material, clips), table in zip(ABOUT.items(), PAIR_TABLES, strict=True):
        names = [name for name, stage in study.generate.sources.items() if stage.material == material]
        if names:
            found[table] = (clips, names)
    return found


def generate(run: Run) -> None:
    """Write the training pairs of all sources and check them."""
    made = run.study.generate
    sources = _sources(run)
    for name, stage in sources.items():
        _write(run, stage, ABOUT[stage.material], f"generate/{name}")
    checks = _checks(run)
    for table, (clips, names) in pair_tables(run.study).items():
        written = any(sources[name].llm is not None for name in names)
        checked = f"{table}/checked" if written else table  # only what an LLM wrote can repeat itself
        run.stage(checks, [f"generate/{name}" for name in names], checked, sides={"clips": clips, "predicted": "label"})
        if written:
            run.stage(made.repeats, [checked], table)
    heard = [Ingredient(name=one.name, licence=one.licence, used_for="labels") for one in run.study.label.made() if one.licence]
    if outputs := write_outputs(run.out, name=run.study.name, seed=run.study.seed, code_version=__version__, labellers=heard):
        run.say(f"{outputs.pairs:,} pairs: {outputs.jsonl}; their card: {outputs.card}")


CHAT = "chat"
"""Replies of LLMs, so that nothing is paid for twice, whatever is started over."""


def _sources(run: Run) -> dict[str, GenerateStage]:
    """The stages of all sources."""
    return {name: _keeping(run, one) for name, one in run.study.generate.made().items()}


def _benchmark(run: Run) -> dict[str, tuple[GenerateStage, str]]:
    """The stages that write the benchmark's questions, and the clips that each is about."""
    made = run.study.evaluate
    return {
        "direct": (_keeping(run, made.direct), "references/utterances"),
        "context": (_keeping(run, made.context), "references"),
    }


def _keeping(run: Run, stage: GenerateStage) -> GenerateStage:
    """The stage with the run's cache of replies, if an LLM writes and the study names no other."""
    return stage.model_copy(update={"cache_dir": run.path(CHAT)}) if stage.llm and not stage.cache_dir else stage


def _checks(run: Run) -> CheckStage:
    """The checks for the prompts of the study's model, with the run's cache of replies."""
    checks = run.study.generate.checks.showing(run.study.model.metadata)
    asks = checks.words_only.llm or checks.metadata_leak.llm
    return checks.model_copy(update={"cache_dir": run.path(CHAT)}) if asks and not checks.cache_dir else checks


def _judge(run: Run) -> JudgeStage:
    """The judge, one that is an LLM with the run's cache of replies."""
    stage = run.study.evaluate.judge
    if not isinstance(stage.judge, LLMJudge) or stage.judge.cache_dir:
        return stage
    return stage.model_copy(update={"judge": stage.judge.model_copy(update={"cache_dir": run.path(CHAT)})})


def _write(run: Run, stage: GenerateStage, about: str, out: str) -> None:
    """Write a table of pairs about a table of clips; an LLM is asked ahead."""
    _ask_ahead(run, stage, about, out)
    run.stage(stage, [about], out)


def _ask_ahead(run: Run, stage: GenerateStage, about: str, out: str) -> None:
    """Keep the endpoint busy over all clips; the stage then finds the replies.

    Workers of a cluster, or jobs of an array, ask by themselves.
    """
    shared = run.execution.executor != "local" or run.execution.shards is not None
    if stage.llm is None or shared or (tables.finished(run.path(out)) is not None and not run.again(out)):
        return
    told = run.progress
    total = len(run.table(about, Clip)) if run.row_limit is None else run.row_limit
    account = ask_ahead_of(
        stage,
        run.path(about),
        seed=run.study.seed,
        limit=run.row_limit,
        workers=run.workers or os.cpu_count() or 1,
        progress=(lambda done: told(f"{out}: replies", done, total, done)) if told else None,
    )
    run.say(account.line(out, stage.llm.prices))


def foresee(run: Run) -> None:
    """Print what the LLM would be asked for each source and the benchmark, and what that may cost; nothing is sent."""
    asked = {f"generate.sources.{name}": (one, ABOUT[one.material]) for name, one in _sources(run).items()}
    asked |= {f"evaluate.{name}": one for name, one in _benchmark(run).items()}
    for name, (stage, about) in asked.items():
        if stage.llm is None:
            run.say(f"{name}: the grammar writes it, nothing is sent")
        else:
            clips = itertools.islice(run.table(about, Clip).rows(), run.row_limit)
            run.say(f"{name}\n{dry_run(stage, clips, seed=run.study.seed).text()}")
    checks = run.study.generate.checks
    asking = {WORDS_ONLY: checks.words_only.llm, METADATA_LEAK: checks.metadata_leak.llm}
    later = [name for name, llm in asking.items() if llm is not None and name in checks.on]
    later += ["judge"] if isinstance(run.study.evaluate.judge.judge, LLMJudge) else []
    if later:
        run.say(f"not counted here: what the LLM of {', '.join(later)} is asked, because it depends on the pairs and answers")


def explain(run: Run, clip_id: str) -> None:
    """Print evidence, prompts, raw replies and the fate of every pair of one clip.

    Raises:
        DataError: No source asks about a clip of that id.
    """
    found, ways = False, _ways(run)
    for stage, about, own, later in ways:
        clip = next((one for one in run.table(about, Clip).rows() if one.id == clip_id), None)
        if clip is None:
            continue
        found = True
        there = [one for one in later if tables.finished(run.path(one)) is not None]
        written = list(run.table(own, QAPair).rows()) if tables.finished(run.path(own)) is not None else []
        checked = list(run.table(there[-1], QAPair).rows()) if there else []
        losses = [loss for one in (own, *there) if written for loss in _losses(run.table(one, QAPair))]
        run.say(explained(clip, stage, seed=run.study.seed, written=written, checked=checked, losses=losses))
    if not found:
        tables_of_clips = " and ".join(dict.fromkeys(about for _, about, _, _ in ways))
        raise DataError(f"--explain {clip_id}: no source asks about such a clip; ids stand in {tables_of_clips}")


def _ways(run: Run) -> list[tuple[GenerateStage, str, str, tuple[str, ...]]]:
    """Of each source, and of the benchmark where an LLM writes it: stage, clips, its pairs, and the tables that these come into."""
    after = {name: table for table, (_, names) in pair_tables(run.study).items() for name in names}
    sources = _sources(run).items()
    written = [(stage, about, name) for name, (stage, about) in _benchmark(run).items() if stage.llm]
    return [
        *((one, ABOUT[one.material], f"generate/{name}", (f"{after[name]}/checked", after[name])) for name, one in sources),
        *((one, about, f"evaluate/benchmark/{name}/asked", (f"evaluate/benchmark/{name}",)) for one, about, name in written),
    ]


def _losses(table: Table[Any]) -> list[Loss]:
    return [*table.dropped(), *table.failed()]


FEATURES = "train/features"


def train(run: Run, only: Sequence[str] = ()) -> None:
    """Encode all clips once, then train every system that has weights of its own into train/SYSTEM/.

    Args:
        run: The run.
        only: Names of systems; all if empty.

    Raises:
        ConfigError: A name in `only` is no system that trains.
    """
    need("torch", "transformers", "tokenizers", "safetensors", extra="train", what="training")
    names = _trained(run, only)
    run.stage(
        EncodeStage(
            encoder=run.study.model.encoder, max_audio_s=run.study.model.max_audio_s, inputs=run.study.model.encoder_inside
        ),
        CLIP_TABLES,
        FEATURES,
    )
    if run.execution.shards is not None:
        raise Stopped(
            "features are there; training is not shared by parts: run the same command without --shards (--system NAME for one job per system)"
        )
    job = _train_job(run, names)
    if job.start is not None:
        run.say("train/start: a new decoder learns to read, the adapter to hear words; all systems start from it")
        total = run.study.train.reading.steps
        run_units(
            train_start, job, [START], workers=1, told=lambda _: None, tick=_ticker(run, "train/start", job.out, [START], total)
        )
    _train_all(run, job, names, "train")


def _train_all(run: Run, job: TrainJob, names: Sequence[str], out: str) -> None:
    """Train systems of a job side by side, told as those of a folder of the run."""
    run.say(f"{out}: {', '.join(names)}, {run.study.train.steps} steps each")
    run_units(
        train_one,
        job,
        names,
        workers=run.workers or at_once(run.study.train),
        told=lambda name: run.say(f"{out}/{slug(name)}: done"),
        tick=_ticker(run, out, job.out, names, run.study.train.steps * len(names)),
    )


def _train_job(run: Run, names: Sequence[str], *, systems: tuple[System, ...] = (), out: str = "train") -> TrainJob:
    """What trains systems (the study's, if none are given) into a folder of the run."""
    starts = run.study.model.decoder.name is None and run.study.train.reading.clips > 0
    return TrainJob(
        pairs=tuple(run.path(name) for name in pair_tables(run.study)),
        clips=tuple(run.path(name) for name in CLIP_TABLES),
        label=run.path("label"),
        corpus=run.path("corpus"),
        features=run.path(FEATURES),
        out=run.path(out),
        start=run.path(f"train/{START}") if starts else None,
        systems=systems or run.study.systems,
        model=run.study.model,
        train=run.study.train.model_copy(update={"seed": run.study.seed}),
        seed=run.study.seed,
        redo=tuple(name for name in (START, *names) if run.again(f"{out}/{slug(name)}")),
    )


def _ticker(run: Run, what: str, out: Location, names: Sequence[str], total: int) -> Callable[[], None]:
    """Tells the progress of trainings by what they have logged."""

    def tick() -> None:
        if run.progress is not None:
            run.progress(what, min(total, steps_done(out, names)), total, 0)

    return tick


def _trained(run: Run, only: Sequence[str]) -> list[str]:
    trained = [one.name for one in run.study.systems if one.weights_of is None]
    unknown = sorted(set(only) - set(trained))
    if unknown:
        raise ConfigError(f"--system {', '.join(unknown)}: expected some of {', '.join(trained)}")
    return [name for name in trained if not only or name in only]


def evaluate(run: Run) -> None:
    """Ask every system and control the benchmark's questions, judge the answers, make the study table."""
    need("torch", "transformers", extra="train", what="answering with trained systems")
    check_heard(run)
    for name, (stage, about) in _benchmark(run).items():
        _write(run, stage, about, f"evaluate/benchmark/{name}/asked")
        run.stage(
            _checks(run),
            [f"evaluate/benchmark/{name}/asked"],
            f"evaluate/benchmark/{name}",
            sides={"clips": about, "predicted": "label"},
        )
    run.stage(MergeStage(), ["evaluate/benchmark/direct", "evaluate/benchmark/context"], "evaluate/benchmark")
    pairs = list(run.table("evaluate/benchmark", QAPair).rows())
    if not pairs:
        raise DataError(
            "the benchmark is empty: no recording of split test with human labels gave a question. Hold out speakers in the corpus' "
            "settings (hold_out: {test_speakers: [...]}) and give emotions in its manifest"
        )
    given = _given(run, pairs, human=any(system.oracle for system in run.study.systems))
    answered = [_ask_system(run, system, given) for system in run.study.systems]
    answered.append(_ask_majority(run, pairs))
    run.stage(_judge(run), answered, "evaluate/verdicts", sides={"pairs": "evaluate/benchmark"})
    verdicts = run.table("evaluate/verdicts", Verdict).rows()
    subjects = [*(one.name for one in run.study.systems), MAJORITY]
    table = study_table.build(verdicts, pairs, subjects=subjects, resamples=run.study.evaluate.resamples, seed=run.study.seed)
    tables.write_bytes(run.path("evaluate/study.json"), table.to_json().encode())
    _write_cards(run, table)
    run.say(table.plain_text(width=100))


@dataclass(frozen=True)
class Given:
    """What systems are asked, and what may be shown to them: predicted labels, and to an oracle human ones, by recording."""

    pairs: Sequence[QAPair]
    clips: Mapping[str, Clip]
    predicted: Mapping[str, Sequence[Segment]]
    human: Mapping[str, Sequence[Segment]] | None
    features: Frames


def _given(run: Run, pairs: Sequence[QAPair], *, human: bool) -> Given:
    return Given(
        pairs=pairs,
        clips=all_clips(run),
        predicted=predicted_segments(run),
        human=human_segments(run.table("corpus", Recording).rows()) if human else None,
        features=Frames(run.path(FEATURES), max_audio_s=run.study.model.max_audio_s),
    )


def _checkpoint(run: Run, system: System, trained: str = "train") -> tuple[Location, str]:
    """The folder of the checkpoint that answers for a system, and its digest; DataError with the command that makes it."""
    checkpoint = run.path(f"{trained}/{slug(system.checkpoint)}")
    made_by = f"undertone train {run.out} --system {shlex.quote(system.checkpoint)}"
    return checkpoint, artefact_digest(checkpoint, made_by=made_by)


def _trained_format(checkpoint: Location) -> MetadataConfig:
    """How metadata was written when a checkpoint was trained, whatever the study says now."""
    from undertone.model.checkpoint import read_checkpoint  # torch

    return read_checkpoint(local_folder(checkpoint)).model.metadata


def _write_cards(run: Run, table: StudyTable) -> None:
    """The trained systems' model cards with their scores: beside the evaluation, because a checkpoint's digest covers its own card."""
    for system in run.study.systems:
        card = run.path(f"train/{slug(system.name)}") / "README.md"
        row = table.row(system.name)
        if row is not None and system.weights_of is None and card.is_file():
            cells = {"all": row.overall, **row.kinds}
            scores = {name: f"{cell.score.mean:.1f}" for name, cell in cells.items() if cell.score.mean is not None}
            text = with_scores(card.read_text(encoding="utf-8"), scores)
            tables.write_bytes(run.path(f"evaluate/cards/{slug(system.name)}.md"), text.encode())


def _ask_system(run: Run, system: System, given: Given, *, trained: str = "train", into: str = "evaluate") -> str:
    """Write a system's examples and let its checkpoint (a folder in `trained`) answer them; the name of the answers' table."""
    from undertone.evaluate.answer import AnswerStage  # torch

    checkpoint, digest = _checkpoint(run, system, trained)
    shown = build_examples(
        given.pairs,
        given.clips,
        given.predicted,
        system,
        phase="inference",
        metadata=_trained_format(checkpoint),
        human=given.human,
        seed=run.study.seed,
    )
    examples, answers = f"{into}/examples/{slug(system.name)}", f"{into}/answers/{slug(system.name)}"
    inputs = {"rows": content_hash(*(text for one in shown for text in (one.id, one.prompt, one.target)))}
    made = run.fingerprint("examples", {"system": system.model_dump(mode="json")}, inputs)
    write_rows(run.path(examples), shown, record=Example, fingerprint=made, parts=4, smallest=64, redo=run.again(examples))
    stage = AnswerStage(
        checkpoint=checkpoint,
        checkpoint_digest=digest,
        features=given.features.cache.folder.parent,
        encoder=given.features.encoder,
        max_audio_s=run.study.model.max_audio_s,
        max_new_tokens=run.study.evaluate.max_new_tokens,
    )
    run.stage(stage, [examples], answers)
    return answers


def _ask_majority(run: Run, pairs: Sequence[QAPair]) -> str:
    name = "evaluate/answers/majority-answer"
    rows = majority_answers(training_pairs(run), pairs)
    inputs = {one: run.table(one, QAPair).digest for one in (*pair_tables(run.study), "evaluate/benchmark")}
    made = run.fingerprint("majority", {}, inputs)
    run.told(write_rows(run.path(name), rows, record=Answer, fingerprint=made, redo=run.again(name)), name)
    return name


SWEEP = "sweep"


def sweep(run: Run, only: Sequence[str] = (), *, anew: bool = False) -> Location:
    """Ask trained systems the benchmark's questions with better and worse labels than the labeller's: how good must they be?

    Args:
        run: A run that has been evaluated.
        only: Names of systems; those of `evaluate.sweep.systems` if empty.
        anew: Train a system for each kind of labels too.

    Returns:
        The page with the plot; the table lies beside it.
    """
    need("torch", "transformers", "tokenizers", "safetensors", extra="train", what="answering with trained systems")
    from undertone.report.sweep import write_page  # matplotlib

    plan = run.study.evaluate.sweep
    plan = plan.model_copy(update={"systems": tuple(only)}) if only else plan
    arms = plan.arms(run.study.systems, anew=anew)
    systems = sweeping.unique(arms)
    given = _given(run, list(run.table("evaluate/benchmark", QAPair).rows()), human=True)
    # Before anything is trained or asked: a checkpoint that is not there, or labels that cannot be measured, are told now.
    qualities = {
        system.name: sweeping.quality_of(
            system,
            given.pairs,
            given.clips,
            given.predicted,
            given.human or {},
            config=_trained_format(_checkpoint(run, system)[0]) if system.weights_of else run.study.model.metadata,
            attribute=plan.attribute,
            seed=run.study.seed,
        )
        for system in systems
    }
    _train_sweep(run, tuple(one for one in systems if one.weights_of is None))
    answered = [
        _ask_system(run, system, given, trained="train" if system.weights_of else f"{SWEEP}/train", into=SWEEP)
        for system in systems
    ]
    judged = [one.replace("/answers/", "/verdicts/") for one in answered]
    for answers, verdicts in zip(answered, judged, strict=True):
        run.stage(_judge(run), [answers], verdicts, sides={"pairs": "evaluate/benchmark"})
    table = sweeping.build(
        arms,
        itertools.chain.from_iterable(run.table(one, Verdict).rows() for one in judged),
        given.pairs,
        qualities,
        attribute=plan.attribute,
        resamples=run.study.evaluate.resamples,
        seed=run.study.seed,
    )
    tables.write_bytes(run.path(f"{SWEEP}/sweep.json"), table.to_json().encode())
    run.say(table.plain_text())
    page = write_page(table, run.path(SWEEP), name=run.study.name)
    run.say(f"sweep: {page}")
    return page


def _train_sweep(run: Run, systems: tuple[System, ...]) -> None:
    """Train systems that are no arms of the study, from where its own started."""
    if not systems:
        return
    out = f"{SWEEP}/train"
    names = [one.name for one in systems]
    _train_all(run, _train_job(run, names, systems=systems, out=out), names, out)


def report(run: Run) -> Location:
    """Draw report/index.html from the run's tables, and the data set's card beside it."""
    from undertone.report.gather import gather  # matplotlib: only where something is drawn

    page = gather(run.out, run.study)
    run.say(f"report: {page}")
    return page


def everything(run: Run) -> None:
    """The whole path; `check_installed` says beforehand whether all is there."""
    need("torch", "transformers", "tokenizers", "safetensors", extra="train", what="training")
    for step in (corpora, label, condense, generate, train, evaluate, report):
        run.say(f"\n== {step.__name__}")
        step(run)


def ask(checkpoint: Location, file: Location, question: str) -> Iterator[str]:
    """Answer one question about one audio file, piece by piece; it is labelled first where the checkpoint's prompts hold predicted labels."""
    need("torch", "transformers", "tokenizers", "safetensors", extra="train", what="asking a checkpoint")
    from undertone.model.ask import ask_in_pieces as answer  # torch
    from undertone.model.ask import shows_metadata

    predicted: tuple[Segment, ...] = ()
    if shows_metadata(checkpoint):
        out = checkpoint.resolve().parent.parent  # RUN/train/SYSTEM; a checkpoint that was copied away is asked with the defaults
        study = recorded_study(out) if (out / RUN_FILE).is_file() else None
        predicted = labelled(file, label=study.label, decide=study.decide) if study else labelled(file)
    yield from answer(checkpoint, audio.load(file, rate_hz=16_000), question, predicted)


def need(*packages: str, extra: str, what: str) -> None:
    """Raise DependencyError unless packages are installed, before any work is done."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyError(f'{what} needs {", ".join(missing)}: pip install "undertone[{extra}]"')


def all_clips(run: Run) -> dict[str, Clip]:
    """All clips by id; where a predicted and a reference clip have the same bounds, the reference."""
    return {clip.id: clip for name in CLIP_TABLES for clip in run.table(name, Clip).rows()}


def training_pairs(run: Run) -> list[QAPair]:
    """All checked training pairs."""
    return [pair for name in pair_tables(run.study) for pair in run.table(name, QAPair).rows()]


def predicted_segments(run: Run) -> dict[str, list[Segment]]:
    """Segments with predicted labels by recording."""
    found: dict[str, list[Segment]] = {}
    for segment in run.table("label", Segment).rows():
        found.setdefault(segment.recording_id, []).append(segment)
    return found
