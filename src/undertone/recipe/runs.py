"""One run of a study in one folder: its tables, its record in run.json, what it needs installed."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from rich.console import Console

from undertone import __version__, settings, tables
from undertone.errors import ConfigError, DataError, DependencyError
from undertone.execute import StageReport, run_stage
from undertone.execute.pool import Execution, Stopped
from undertone.execute.run import Progress
from undertone.paths import Location
from undertone.progress import shown
from undertone.stages import Stage
from undertone.study import Study
from undertone.tables import Fingerprint, Table


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
            record(made)
        try:
            yield made
            if until:
                raise ConfigError(f"--until {until}: this command writes no such table; it is done")
        except Stopped as stopped:
            made.say(str(stopped))
        for name in sorted(set(redo) - made.redone):
            made.say(f"WARNING: --redo {name} named no table that this command writes; nothing was started over for it")
        if made.reports:  # nothing but a look (a report drawn again) leaves the record as it is
            record(made)


RUN_FILE = "run.json"


_PACKAGES = ("numpy", "onnxruntime", "polars", "pyarrow", "pydantic", "scikit-learn", "soundfile", "soxr", "torch", "transformers")


def record(run: Run) -> None:
    """Write run.json: what made the folder, with every command so far."""
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


def need(*packages: str, extra: str, what: str) -> None:
    """Raise DependencyError unless packages are installed, before any work is done."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyError(f'{what} needs {", ".join(missing)}: pip install "undertone[{extra}]"')
