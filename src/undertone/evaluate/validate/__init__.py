"""Is a judge to be relied on? Checked against classes, other judges, people and itself, from our runs or other suites' result files."""

from undertone.evaluate.validate.readers import FORMATS, Scale, read_judged
from undertone.evaluate.validate.result import Validation
from undertone.evaluate.validate.rows import Header, Judged, JudgedTable, Rater
from undertone.evaluate.validate.text import plain_text, sentences
from undertone.evaluate.validate.validating import validate

__all__ = [
    "FORMATS",
    "Header",
    "Judged",
    "JudgedTable",
    "Rater",
    "Scale",
    "Validation",
    "plain_text",
    "read_judged",
    "sentences",
    "validate",
]
