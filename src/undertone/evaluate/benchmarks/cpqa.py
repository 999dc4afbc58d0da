"""The CPQA evaluation set (2505.13338): questions about 480 Singaporean YouTube clips of 30-60 s, written by people or by an LLM.

The set is on the Hub as MERaLiON/CPQA-Evaluation-Set, written by `Dataset.save_to_disk` and uploaded as it is, so that `load_dataset` and the
viewer fail on it (download the snapshot, give its folder). No row has been published in text and its columns are not known; expected is the
layout of AudioBench (see `cp_bench.py`), as the same group writes its other sets:

    context.audio   {bytes, path}     or  context       {bytes, path}
    instruction.text                  or  instruction   "Why are the men arguing with each other?"
    answer.text                       or  answer        "It is because one of the men has hit his wife ..."

Human and LLM-written pairs stand in two sets (2,647 LLM-written pairs in the paper, 3,396 in 2508.07273); which folder is which, you say by the
name. 2508.07273 reports the overall score (a micro average, as far as its figures tell) and C, CE, CG apart. Direct questions about emotion in
the LLM-written set are answered by injected labels alone: look at them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from undertone.evaluate.benchmarks.cp_bench import Questions


class Cpqa(Questions):
    """The CPQA evaluation set, human or LLM-written pairs."""

    name: Literal["cpqa-human", "cpqa-generated"]

    ABOUT: ClassVar[str] = (
        "CPQA evaluation set (2505.13338): 480 clips of 30-60 s, about 6.5 h; pairs by people, or 2,647 by GPT-4o. Judged 0-5 x 20 by GPT-4o; "
        "relative gain is (score - baseline) / baseline on the overall score of the human set."
    )

    def figures(self) -> tuple[str, ...]:
        return ("overall", "kinds", "UAS", "classes")

    def scoring(self) -> Mapping[str, Any]:
        return {"rubric": "graded", "wording": "paralinguistic", "runs": 1}
