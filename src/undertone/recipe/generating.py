"""Training pairs and the benchmark's questions, and looks at how they are written."""

from __future__ import annotations

import itertools
import os
from typing import Any

from undertone import __version__, tables
from undertone.errors import DataError
from undertone.evaluate.judges import LLMJudge
from undertone.generate.ask import ask_ahead_of, dry_run
from undertone.generate.ask import explain as explained
from undertone.generate.card import Ingredient, write_outputs
from undertone.generate.checks import METADATA_LEAK, WORDS_ONLY, CheckStage
from undertone.generate.protocol import Material
from undertone.generate.stage import GenerateStage
from undertone.recipe.condensing import UTTERANCES
from undertone.recipe.runs import Run
from undertone.records import Clip, Loss, QAPair
from undertone.study import Study
from undertone.tables import Table

PAIR_TABLES = ("generate/base", "generate/contextual", "generate/single")
"""Checked training pairs: of reference utterances, of condensed clips, and of their segments."""


ABOUT: dict[Material, str] = {"utterances": "references/utterances", "clips": "condense", "segments": UTTERANCES}
"""The clips that each kind of material is."""


def pair_tables(study: Study) -> dict[str, tuple[str, list[str]]]:
    """The tables of checked pairs that a study makes: the clips that each is about, and the sources in it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for (material, clips), table in zip(ABOUT.items(), PAIR_TABLES, strict=True):
        names = [name for name, stage in study.generate.sources.items() if stage.material == material]
        if names:
            found[table] = (clips, names)
    return found


CHAT = "chat"
"""Replies of LLMs, so that nothing is paid for twice, whatever is started over."""


def generate(run: Run) -> None:
    """Write the training pairs of all sources and check them."""
    made = run.study.generate
    sources = _sources(run)
    for name, stage in sources.items():
        write_pairs(run, stage, ABOUT[stage.material], f"generate/{name}")
    checks = checks_of(run)
    for table, (clips, names) in pair_tables(run.study).items():
        written = any(sources[name].llm is not None for name in names)
        checked = f"{table}/checked" if written else table  # only what an LLM wrote can repeat itself
        run.stage(checks, [f"generate/{name}" for name in names], checked, sides={"clips": clips, "predicted": "label"})
        if written:
            run.stage(made.repeats, [checked], table)
    heard = [Ingredient(name=one.name, licence=one.licence, used_for="labels") for one in run.study.label.made() if one.licence]
    if outputs := write_outputs(run.out, name=run.study.name, seed=run.study.seed, code_version=__version__, labellers=heard):
        run.say(f"{outputs.pairs:,} pairs: {outputs.jsonl}; their card: {outputs.card}")


def _sources(run: Run) -> dict[str, GenerateStage]:
    """The stages of all sources."""
    return {name: _keeping(run, one) for name, one in run.study.generate.made().items()}


def benchmark_stages(run: Run) -> dict[str, tuple[GenerateStage, str]]:
    """The stages that write the benchmark's questions, and the clips that each is about."""
    made = run.study.evaluate
    found = {
        "direct": (_keeping(run, made.direct), "references/utterances"),
        "context": (_keeping(run, made.context), "references"),
    }
    if made.replies is not None:
        about = "references" if made.replies.material == "clips" else "references/utterances"
        found["replies"] = (_keeping(run, made.replies), about)
    return found


def _keeping(run: Run, stage: GenerateStage) -> GenerateStage:
    """The stage with the run's cache of replies, if an LLM writes and the study names no other."""
    return stage.model_copy(update={"cache_dir": run.path(CHAT)}) if stage.llm and not stage.cache_dir else stage


def checks_of(run: Run) -> CheckStage:
    """The checks for the prompts of the study's model, with the run's cache of replies."""
    checks = run.study.generate.checks.showing(run.study.model.metadata)
    asks = checks.words_only.llm or checks.metadata_leak.llm
    return checks.model_copy(update={"cache_dir": run.path(CHAT)}) if asks and not checks.cache_dir else checks


def write_pairs(run: Run, stage: GenerateStage, about: str, out: str) -> None:
    """Write a table of pairs about a table of clips; an LLM is asked ahead."""
    _ask_ahead(run, stage, about, out)
    run.stage(stage, [about], out)


def asks_ahead(run: Run, out: str) -> bool:
    """Whether an LLM is asked before the stage that makes a table; workers of a cluster, or jobs of an array, ask by themselves."""
    shared = run.execution.executor != "local" or run.execution.shards is not None
    return not shared and (tables.finished(run.path(out)) is None or run.again(out))


def _ask_ahead(run: Run, stage: GenerateStage, about: str, out: str) -> None:
    """Keep the endpoint busy over all clips; the stage then finds the replies."""
    if stage.llm is None or not asks_ahead(run, out):
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
    asked |= {f"evaluate.{name}": one for name, one in benchmark_stages(run).items()}
    for name, (stage, about) in asked.items():
        if stage.llm is None:
            run.say(f"{name}: the grammar writes it, nothing is sent")
        else:
            clips = itertools.islice(run.table(about, Clip).rows(), run.row_limit)
            run.say(f"{name}\n{dry_run(stage, clips, seed=run.study.seed).text()}")
    checks = run.study.generate.checks
    asking = {WORDS_ONLY: checks.words_only.llm, METADATA_LEAK: checks.metadata_leak.llm}
    later = [name for name, llm in asking.items() if llm is not None and name in checks.on]
    judges = (run.study.evaluate.judge.judge, *run.study.evaluate.judges)
    later += ["judges"] if any(isinstance(one, LLMJudge) for one in judges) else []
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
    written = [(stage, about, name) for name, (stage, about) in benchmark_stages(run).items() if stage.llm]
    return [
        *((one, ABOUT[one.material], f"generate/{name}", (f"{after[name]}/checked", after[name])) for name, one in sources),
        *((one, about, f"evaluate/benchmark/{name}/asked", (f"evaluate/benchmark/{name}",)) for one, about, name in written),
    ]


def _losses(table: Table[Any]) -> list[Loss]:
    return [*table.dropped(), *table.failed()]
