"""Filters on candidate pairs, each by its name, which is also the reason code of what it drops."""

from undertone.generate.checks.blind import Blind, MetadataLeak, WordsOnly
from undertone.generate.checks.limits import Check, Limits
from undertone.generate.checks.repeats import REPEAT_CHECKS, RepeatStage
from undertone.generate.checks.stage import ALL_CHECKS, CHECKS, DUPLICATE, METADATA_LEAK, WORDS_ONLY, CheckStage, same_question

__all__ = [
    "ALL_CHECKS",
    "CHECKS",
    "DUPLICATE",
    "METADATA_LEAK",
    "REPEAT_CHECKS",
    "WORDS_ONLY",
    "Blind",
    "Check",
    "CheckStage",
    "Limits",
    "MetadataLeak",
    "RepeatStage",
    "WordsOnly",
    "same_question",
]
