"""The command line: thin. Heavy imports happen inside the commands, so that `undertone --help` is quick."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undertone import __version__
from undertone.errors import ConfigError, UndertoneError

if TYPE_CHECKING:
    from undertone.execute.pool import Execution
    from undertone.study import Study

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Teach speech language models to hear how something is said as well as what is said, and measure whether they do.\n\n"
    "The path: corpora -> label -> condense -> generate -> train -> evaluate -> report. `undertone run` walks all of it from one study "
    "file; each other command does one step in a run's folder.",
)

Out = Annotated[
    str,
    typer.Option("--out", "-o", help="The run's folder, here or in a bucket (s3://, gs://): every table and the report go here."),
]
RunFolder = Annotated[str, typer.Argument(help="A run's folder, as made by `undertone label` or `undertone run`.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting: key=value, as in the study file. Repeatable.")
]
Workers = Annotated[int, typer.Option("--workers", "-j", min=0, help="Processes; 0 is one per core. Results do not depend on it.")]
Executor = Annotated[
    str, typer.Option("--executor", help="Where processes run: local (this machine) or ray (a cluster; extra ray).")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help="A running Ray cluster, host:port or auto; without one, a local one is started.")
]
ShardsOf = Annotated[
    str | None,
    typer.Option("--shards", help="i/n: do only this job's parts of the next unfinished table, then stop; see docs/cluster.md."),
]
Until = Annotated[str | None, typer.Option("--until", help="Stop when this table is there, such as corpus.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything that is drawn; overrides the study's.")]
Redo = Annotated[
    list[str] | None,
    typer.Option(
        "--redo", help="Start a table over, such as generate or generate/cpqa; label/. is label without label/raw. Repeatable."
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use only the first so many recordings of each split of each corpus.")
]
RowLimit = Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first so many rows of each input table.")]


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A study file, or the name of a shipped one: demo.")],
    out: Annotated[str | None, typer.Option("--out", "-o", help="The run's folder; runs/NAME of the study if not given.")] = None,
    limit: Limit = None,
    seed: Seed = None,
    workers: Workers = 0,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    shards: ShardsOf = None,
    until: Until = None,
    set_: Settings = None,
    redo: Redo = None,
    show: Annotated[bool, typer.Option("--show", help="Print the study file with all settings filled in, and stop.")] = False,
) -> None:
    """Walk the whole path: speech in, a study with a verdict out.

    The same command again goes on where it was broken off. Example: undertone run demo
    """
    from undertone import recipe
    from undertone.study import load_study, shipped_studies, shipped_text

    if show and set_ is None and seed is None and study in shipped_studies():
        typer.echo(shipped_text(study), nl=False)
        return
    loaded = load_study(study, _overrides(set_, seed))
    if show:
        typer.echo(_as_yaml(loaded), nl=False)
        return
    recipe.check_installed(loaded)
    with _running(
        loaded,
        out or f"runs/{loaded.name}",
        workers=workers,
        execution=_where(executor, ray_address, shards),
        until=until,
        redo=redo,
        limit=limit,
    ) as made:
        recipe.everything(made)


@app.command()
def label(
    speech: Annotated[str, typer.Argument(help="Folder of audio, here or in a bucket (manifest.csv or not), or a study file.")],
    out: Out,
    limit: Limit = None,
    seed: Seed = None,
    workers: Workers = 0,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    shards: ShardsOf = None,
    until: Until = None,
    set_: Settings = None,
    redo: Redo = None,
) -> None:
    """Find the speech in recordings and label it: emotion, valence/arousal/dominance, gender, events, prosody, words.

    Writes corpus/, label/raw/ (what every labeller said) and label/ (what was decided) into the run's folder. Example:
    undertone label my-speech --out runs/mine

    Other labellers: --set label.labellers='[affect-small, prosody, pocketsphinx]'; see `undertone labellers`. Another decision costs no
    model run: --set decide.emotion.rule=unanimity --redo label/.
    """
    from undertone import recipe
    from undertone.paths import Remote, location
    from undertone.study import load_study, study_of_folder

    folder = location(speech)
    if isinstance(folder, Remote) and not folder.is_dir():
        raise ConfigError(f"{speech}: nothing lies there; expected a folder of speech (a study file is on this machine)")
    loaded = study_of_folder(folder, _overrides(set_, seed)) if folder.is_dir() else load_study(speech, _overrides(set_, seed))
    recipe.check_installed(loaded)
    with _running(
        loaded, out, workers=workers, execution=_where(executor, ray_address, shards), until=until, redo=redo, limit=limit
    ) as made:
        recipe.corpora(made)
        recipe.label(made)


@app.command()
def condense(
    run: RunFolder,
    limit: RowLimit = None,
    seed: Seed = None,
    workers: Workers = 0,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    shards: ShardsOf = None,
    until: Until = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="First search the consistency thresholds against human labels of train and dev, and take the best."
        ),
    ] = False,
    set_: Settings = None,
    redo: Redo = None,
) -> None:
    """Keep emotion-rich, consistent, balanced clips: label/ -> condense/, and cut reference clips into references/.

    With --tune the search is written into tune.json, its best point into the run's study, and condense/ is made anew.
    """
    from undertone import recipe

    where = _where(executor, ray_address, shards)
    study = _study_of_run(run, set_, seed)
    with _running(study, run, workers=workers, execution=where, until=until, redo=redo, row_limit=limit) as made:
        if tune:
            recipe.tune_consistency(made)
        recipe.condense(made)


@app.command()
def generate(
    run: RunFolder,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what an LLM would be asked, how often, and what that may cost; send nothing.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="CLIP", help="Print a clip's evidence, prompts, raw replies and the fate of its pairs."),
    ] = None,
    limit: RowLimit = None,
    seed: Seed = None,
    workers: Workers = 0,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    shards: ShardsOf = None,
    until: Until = None,
    set_: Settings = None,
    redo: Redo = None,
) -> None:
    """Write question-answer pairs about the clips and check them: condense/, references/ -> generate/.

    With an LLM: --set generate.llm.endpoint=http://127.0.0.1:8000/v1 --set generate.llm.model=NAME
    """
    if dry_run or explain:
        from undertone import recipe
        from undertone.paths import location

        looked = recipe.Run(study=_study_of_run(run, set_, seed), out=location(run), row_limit=limit, say=typer.echo)
        if explain:
            recipe.explain(looked, explain)
        else:
            recipe.foresee(looked)
        return
    _one_step("generate", run, limit, seed, workers, set_, redo, _where(executor, ray_address, shards), until)


@app.command()
def benchmarks(name: Annotated[str | None, typer.Argument(help="Describe this one.")] = None) -> None:
    """List the published benchmarks that a study can name, or describe one."""
    from undertone.evaluate.benchmarks import BENCHMARKS, describe

    if name is not None:
        typer.echo(describe(name))
        return
    for one, made in BENCHMARKS.items():
        typer.echo(f"{one:30} {(made.__doc__ or '').splitlines()[0]}")


@app.command()
def strategies() -> None:
    """List the strategies that a study's sources can name, and who writes them."""
    from undertone.generate.grammar import STRATEGY_KINDS
    from undertone.generate.strategies import STRATEGIES

    for name, made in STRATEGIES.items():
        who = "LLM or grammar" if name in STRATEGY_KINDS or made.offline else "LLM"
        typer.echo(f"{name:16} {who:15} {(made.__doc__ or '').splitlines()[0]}")
    for written, kinds in STRATEGY_KINDS.items():
        if written not in STRATEGIES:
            typer.echo(f"{written:16} {'grammar':15} Questions of the kinds {' '.join(kinds)}.")


@app.command()
def train(
    run: RunFolder,
    system: Annotated[list[str] | None, typer.Option("--system", help="Train only this system, such as S30. Repeatable.")] = None,
    seed: Seed = None,
    workers: Workers = 0,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    shards: ShardsOf = None,
    until: Until = None,
    set_: Settings = None,
    redo: Redo = None,
) -> None:
    """Train the systems of the study: generate/ -> train/SYSTEM/ (config.json, model.safetensors, tokenizer.json)."""
    from undertone import recipe

    with _running(
        _study_of_run(run, set_, seed),
        run,
        workers=workers,
        execution=_where(executor, ray_address, shards),
        until=until,
        redo=redo,
    ) as made:
        recipe.train(made, tuple(system or ()))


@app.command()
def evaluate(
    run: RunFolder,
    limit: RowLimit = None,
    seed: Seed = None,
    workers: Workers = 0,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    shards: ShardsOf = None,
    until: Until = None,
    set_: Settings = None,
    redo: Redo = None,
) -> None:
    """Ask all systems the benchmark's questions, judge the answers and print the study table: train/ -> evaluate/."""
    _one_step("evaluate", run, limit, seed, workers, set_, redo, _where(executor, ray_address, shards), until)


@app.command()
def sweep(
    run: RunFolder,
    system: Annotated[
        list[str] | None,
        typer.Option("--system", help="Sweep this system, such as S30; those that show labels if not given. Repeatable."),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Also train a system for each kind of labels; a training each, as long as the study's.")
    ] = False,
    seed: Seed = None,
    workers: Workers = 0,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    until: Until = None,
    set_: Settings = None,
    redo: Redo = None,
) -> None:
    """How good must labels be before it helps to show them? Ask an evaluated run's systems with better and worse ones -> sweep/.

    Labels of people, the same with errors, the labeller's, the same with errors or gaps, those of another recording, and none. Other
    rates: --set evaluate.sweep.noise='[0.1, 0.3]'; what was asked before is not asked again.
    """
    from undertone import recipe

    where = _where(executor, ray_address, None)
    with _running(_study_of_run(run, set_, seed), run, workers=workers, execution=where, until=until, redo=redo) as made:
        recipe.sweep(made, tuple(system or ()), anew=anew)


@app.command("validate-judge")
def validate_judge(
    paths: Annotated[
        list[str],
        typer.Argument(help="Result files or folders of one suite, runs of ours, or a table of verdicts; all read as one."),
    ],
    format_: Annotated[
        str,
        typer.Option("--format", help="auto, audiobench, au-harness, lmms-eval, voicebench, kimi, inspect, undertone or csv."),
    ] = "auto",
    attribute: Annotated[
        str | None,
        typer.Option("--attribute", help="What the references are classes of, such as emotion; by name and options if not given."),
    ] = None,
    points: Annotated[float, typer.Option("--points", min=0, help="csv: points of one grade, 20 for grades 0-5.")] = 1.0,
    human_points: Annotated[float, typer.Option("--human-points", min=0, help="csv: points of one grade by people.")] = 1.0,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Also write validation.json, validation.txt and index.html here.")
    ] = None,
    resamples: Annotated[int, typer.Option("--resamples", min=1, help="Bootstrap resamples of recordings.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")] = 0,
) -> None:
    """Is a judge to be relied on? Check its verdicts against classes, other judges, people and itself; asks no model.

    Reads other suites' result files as well as our runs; see docs/validate-judge.md. Example: undertone validate-judge runs/demo
    """
    from undertone.evaluate.validate import Scale, plain_text, read_judged, validate

    table = read_judged(paths, format=format_, scale=Scale(score=points, human=human_points))
    found = validate(table, attribute=attribute, resamples=resamples, seed=seed)
    typer.echo(plain_text(found), nl=False)
    if out is not None:
        from undertone.paths import location
        from undertone.report.validation import write

        typer.echo(f"-> {write(found, location(out))}")


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Folders of finished runs, two or more.")],
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="KEY",
            help="A setting that the runs differ in, such as model.adapter.kind: each value has rows of its own.",
        ),
    ] = None,
    test_sets: Annotated[
        bool, typer.Option("--test-sets", help="Whether the test sets of two runs of the same systems order these alike.")
    ] = False,
    judge: Annotated[str | None, typer.Option("--judge", help="Whose scores, where several judged.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare runs that differ in more; what differs is printed.")] = False,
    to: Annotated[str | None, typer.Option("--to", help="Also write what was found to this file, as JSON.")] = None,
) -> None:
    """Put runs of one study beside each other: mean over seeds, intervals over runs and recordings, in how many runs a result holds.

    Example: undertone compare runs/seed-1 runs/seed-2 runs/seed-3
    """
    from undertone.evaluate import compare as over_runs
    from undertone.evaluate import two_sets
    from undertone.parquet import write_bytes
    from undertone.paths import location
    from undertone.recipe import recorded_study

    folders = [location(one) for one in runs]
    studies = [recorded_study(one).model_dump(mode="json") for one in folders]
    found: over_runs.Comparison | two_sets.SetAgreement
    if test_sets:
        if by or judge:
            raise ConfigError("--test-sets compares under every judge of both runs and by no setting; leave out --by and --judge")
        found = two_sets.of_runs(folders, studies, anyway=anyway)
    else:
        read = [over_runs.read_run(folder, study, judge=judge) for folder, study in zip(folders, studies, strict=True)]
        found = over_runs.compare(read, by=by, anyway=anyway)
    typer.echo(found.plain_text(), nl=False)
    if to is not None:
        write_bytes(location(to), found.model_dump_json(indent=1).encode())


@app.command()
def report(run: RunFolder, set_: Settings = None, redo: Redo = None) -> None:
    """Draw the report of a run: one HTML page that opens offline."""
    _one_step("report", run, None, None, 1, set_, redo)


@app.command()
def export(
    table: Annotated[str, typer.Argument(help="A finished table of clips, recordings or segments, such as runs/mine/condense.")],
    to: Annotated[str, typer.Option("--to", help="The folder to write, here or in a bucket.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="hf-dataset, audiofolder, nemo-manifest, lhotse, webdataset, rttm or label-studio; for trainers messages (ms-swift, "
            "LLaMA-Factory), sharegpt, nemo-salm or desta.",
        ),
    ],
    pairs: Annotated[list[str] | None, typer.Option("--pairs", help="A table of questions about the clips. Repeatable.")] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="For trainers: predicted labels to write before each question, such as runs/mine/label."),
    ] = None,
    recordings: Annotated[
        str | None, typer.Option("--recordings", help="The recordings of segments; corpus/ of the same run if not given.")
    ] = None,
    audio: Annotated[
        str, typer.Option("--audio", help="cut: each item's sound as a file of its own; reference: names the recording's file.")
    ] = "cut",
    url_prefix: Annotated[str, typer.Option("--url-prefix", help="Put before the audio's name, where a server gives it out.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that an export wrote before.")] = False,
) -> None:
    """Write a table in another tool's format, and say what that format could not hold.

    A `corpora` entry of the same kind reads it back. Example: undertone export runs/mine/label --to mine-hf --format hf-dataset
    """
    from undertone.exchange import FORMATS
    from undertone.exchange import export as write
    from undertone.exchange.trainers import with_labels_of
    from undertone.paths import location

    if format_ not in FORMATS:
        raise ConfigError(f"--format: got {format_!r}, expected one of {', '.join(FORMATS)}")
    if audio not in ("cut", "reference"):
        raise ConfigError(f"--audio: got {audio!r}, expected cut or reference")
    report = write(
        location(table),
        location(to),
        format=format_,
        pairs=tuple(map(location, pairs or ())),
        prompt=with_labels_of(location(table), location(labels)) if labels else None,
        recordings=location(recordings) if recordings else None,
        audio=audio,  # type: ignore[arg-type]
        url_prefix=url_prefix,
        overwrite=overwrite,
    )
    typer.echo(f"{report.format}: {report.items} in, {report.written} written -> {report.folder}")
    for title, counts in (("held", report.held), ("not held by this format", report.lost), ("skipped", report.skipped)):
        if counts:
            typer.echo(f"  {title}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    for problem in report.problems[:10]:
        typer.echo(f"  {problem}")


@app.command()
def ask(
    checkpoint: Annotated[str, typer.Argument(help="A trained system, such as runs/demo/train/S32, here or in a bucket.")],
    file: Annotated[str, typer.Argument(help="An audio file, here or in a bucket.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
) -> None:
    """Ask a trained system one question about one audio file.

    Example: undertone ask runs/demo/train/S32 clip.flac "How does the speaker feel?"
    """
    from undertone.paths import location
    from undertone.recipe import ask as answer

    for piece in answer(location(checkpoint), location(file), question):
        typer.echo(piece, nl=False)
    typer.echo()


@app.command()
def labellers(
    name: Annotated[str | None, typer.Argument(help="One of them, to see its classes, bounds, licence and settings.")] = None,
) -> None:
    """List the labellers that a study can name, or describe one: what it hears, what it gives, how it is configured."""
    from undertone.label.catalogue import about, overview

    for line in overview() if name is None else [about(name)]:
        typer.echo(line)


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing and how to get it, and under which licences."""
    from undertone.doctor import lines

    for line in lines():
        typer.echo(line)


def _one_step(
    step: str,
    out: str,
    limit: int | None,
    seed: int | None,
    workers: int,
    set_: list[str] | None,
    redo: list[str] | None,
    execution: Execution | None = None,
    until: str | None = None,
) -> None:
    from undertone import recipe

    study = _study_of_run(out, set_, seed)
    with _running(study, out, workers=workers, execution=execution, until=until, redo=redo, row_limit=limit) as made:
        getattr(recipe, step)(made)


def _where(executor: str, ray_address: str | None, shards: str | None) -> Execution:
    from undertone.execute.pool import Execution, Shards

    if executor not in ("local", "ray"):
        raise ConfigError(f"--executor: got {executor!r}, expected local or ray")
    share = None if shards is None else Shards.parse(shards)
    return Execution(executor="ray" if executor == "ray" else "local", address=ray_address, shards=share)


def _study_of_run(out: str, set_: list[str] | None, seed: int | None) -> Study:
    from undertone.paths import location
    from undertone.recipe import recorded_study

    return recorded_study(location(out), _overrides(set_, seed))


def _overrides(set_: list[str] | None, seed: int | None) -> list[str]:
    return [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]


def _running(
    study: Study,
    out: str,
    *,
    workers: int,
    execution: Execution | None = None,
    until: str | None = None,
    redo: list[str] | None,
    **limits: int | None,
) -> Any:
    """A context that gives the run, shows its progress and keeps run.json."""
    from undertone.execute.pool import Execution
    from undertone.paths import location
    from undertone.recipe import running

    where = execution or Execution()
    if where.executor == "local":
        workers = workers or os.cpu_count() or 1
    return running(
        study,
        location(out),
        workers=workers,
        execution=where,
        until=until,
        redo=tuple(redo or ()),
        command=sys.argv,
        **limits,
    )


def _as_yaml(study: Study) -> str:
    import yaml

    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"undertone {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options before the command."""


class _Interrupted(BaseException):
    """Ctrl-C, under a name of its own: the command line library would turn KeyboardInterrupt into exit code 1."""


def _interrupt(signum: int, frame: Any) -> None:
    # A callback from C (a synthesiser's, say) swallows what is raised in it: ask again until it is heard.
    again = threading.Timer(0.5, os.kill, (os.getpid(), signum))
    again.daemon = True
    again.start()
    raise _Interrupted


def _unless_interrupted(unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, _Interrupted):
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Run the command; errors about input are printed without a traceback and end with their exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _unless_interrupted
    # Before any library loads, here and in the workers that inherit it: sums over another number of threads round otherwise,
    # and the processes are the parallelism.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        app()
    except UndertoneError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except _Interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("interrupted; finished parts are kept: the same command goes on from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
