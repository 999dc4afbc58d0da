"""The sweep over the quality of labels as the recipe does it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from undertone import tables
from undertone.evaluate import sweep as sweeping
from undertone.model.examples import System
from undertone.paths import Location
from undertone.recipe.evaluating import ask_system, checkpoint_of, given, judge_answers, judge_stage, trained_format
from undertone.recipe.runs import Run, need
from undertone.recipe.training import train_all, train_job
from undertone.records import QAPair, Verdict

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
    from undertone.report.gather import gather  # matplotlib
    from undertone.report.sweep import write_page

    plan = run.study.evaluate.sweep
    plan = plan.model_copy(update={"systems": tuple(only)}) if only else plan
    arms = plan.arms(run.study.systems, anew=anew)
    systems = sweeping.unique(arms)
    known = given(run, list(run.table("evaluate/benchmark", QAPair).rows()), human=True)
    # Before anything is trained or asked: a checkpoint that is not there, or labels that cannot be measured, are told now.
    qualities = {
        system.name: sweeping.quality_of(
            system,
            known.pairs,
            known.clips,
            known.predicted,
            known.human or {},
            config=trained_format(checkpoint_of(run, system)[0]) if system.weights_of else run.study.model_of(system).metadata,
            attribute=plan.attribute,
            seed=run.study.seed,
        )
        for system in systems
    }
    _train_sweep(run, tuple(one for one in systems if one.weights_of is None))
    answered = [
        ask_system(run, system, known, trained="train" if system.weights_of else f"{SWEEP}/train", into=SWEEP) for system in systems
    ]
    judged = [one.replace("/answers/", "/verdicts/") for one in answered]
    for answers, verdicts in zip(answered, judged, strict=True):
        judge_answers(run, judge_stage(run), [answers], verdicts)
    table = sweeping.build(
        arms,
        itertools.chain.from_iterable(run.table(one, Verdict).rows() for one in judged),
        known.pairs,
        qualities,
        attribute=plan.attribute,
        resamples=run.study.evaluate.resamples,
        seed=run.study.seed,
    )
    tables.write_bytes(run.path(f"{SWEEP}/sweep.json"), table.to_json().encode())
    run.say(table.plain_text())
    page = write_page(table, run.path(SWEEP), name=run.study.name)
    run.say(f"sweep: {page}")
    if run.path("report/index.html").is_file():
        gather(run.out, run.study)  # the report links the sweep
    return page


def _train_sweep(run: Run, systems: tuple[System, ...]) -> None:
    """Train systems that are no arms of the study, from where its own started."""
    if not systems:
        return
    out = f"{SWEEP}/train"
    names = [one.name for one in systems]
    train_all(run, train_job(run, names, systems=systems, out=out), names, out)
