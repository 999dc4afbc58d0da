"""The recipe: corpora, label, condense, generate, train, evaluate, report, in this order.

Each step reads tables of the run's folder and writes tables there, so a user may run one step alone, replace a table by one of
their own, or leave the path anywhere. Nothing here is science: a step names its stage, its inputs and its output.
"""

from __future__ import annotations

from undertone.paths import Location
from undertone.recipe.condensing import CLIP_TABLES, check_installed, condense, corpora, label, tune_consistency
from undertone.recipe.evaluating import ask, evaluate
from undertone.recipe.generating import CHAT, explain, foresee, generate
from undertone.recipe.runs import RUN_FILE, Run, need, recorded_study, running
from undertone.recipe.sweeping import sweep
from undertone.recipe.training import FEATURES, train

__all__ = [
    "CHAT",
    "CLIP_TABLES",
    "FEATURES",
    "RUN_FILE",
    "Run",
    "ask",
    "check_installed",
    "condense",
    "corpora",
    "evaluate",
    "everything",
    "explain",
    "foresee",
    "generate",
    "label",
    "need",
    "recorded_study",
    "report",
    "running",
    "sweep",
    "train",
    "tune_consistency",
]


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
