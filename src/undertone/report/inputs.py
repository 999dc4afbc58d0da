"""What the report is made of, as typed records: gathered by the study, drawn by `build`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from undertone.condense.funnel import Funnel
from undertone.condense.tune import Tuning
from undertone.evaluate.empathy_table import EmpathyTable
from undertone.evaluate.labeller_report import LabellerReport
from undertone.evaluate.study_table import StudyTable
from undertone.records import Answer, Clip, QAPair, Segment, Verdict

SYSTEMS = {
    "S10": "Trained on ASR-QA and direct questions about gender and emotion. No metadata.",
    "S20": "S10's data and PQA*: further direct questions, written from the labeller's output. No metadata.",
    "S30": "S20's data and CPQA: questions that need the words and the voice together (the implicit method). No metadata.",
    "S31": "The checkpoint of S30, shown time-stamped predicted emotion labels in the prompt at inference only.",
    "S32": "S30's data with time-stamped predicted emotion labels in the prompt, at training and at inference (the explicit method).",
    "words only": "Control: the same decoder trained on the same mix, with the transcript in place of the speech.",
    "metadata only": "Control: the same decoder trained on the same mix, with the predicted labels in place of the speech.",
    "majority answer": "Control: always gives the most frequent training answer for the question's kind.",
}
"""What each system and control of the first study is, in a sentence; a study with other systems gives its own."""


class Part(BaseModel):
    """Base of the report's parts: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunFacts(Part):
    """How the run was made; `created` is text as it should stand on the page, so that two builds of one run are equal."""

    name: str
    created: str
    seed: int
    code_version: str
    command: str
    machine: str
    packages: dict[str, str] = {}


class LossCurve(Part):
    """The training loss of one system as (step, loss) points in order."""

    system: str
    points: tuple[tuple[int, FiniteFloat], ...] = ()


class AnswerView(Part):
    """One system's answer and its verdicts (several judges or runs; none where it was not judged)."""

    answer: Answer
    verdicts: tuple[Verdict, ...] = ()

    @property
    def score(self) -> float | None:
        """The mean over the verdicts that have a score; None without one."""
        scores = [one.score for one in self.verdicts if one.score is not None]
        return sum(scores) / len(scores) if scores else None

    @property
    def mark(self) -> str:
        """How the page marks the answer: right (100), wrong (0), partly, or unscored."""
        if self.score is None:
            return "unscored"
        return {100.0: "right", 0.0: "wrong"}.get(self.score, "partly")

    @property
    def why(self) -> str:
        """The reasons why there is no score, for the reader."""
        reasons = sorted({one.unscored for one in self.verdicts if one.unscored})
        return ", ".join(reasons).replace("_", " ") or "not judged"


class QuestionView(Part):
    """One question of the benchmark and what the systems answered."""

    pair: QAPair
    answers: tuple[AnswerView, ...] = ()


class ClipView(Part):
    """One clip to play: its reference segments (human labels), the labeller's segments inside it, and some questions."""

    clip: Clip
    predicted: tuple[Segment, ...] = ()
    questions: tuple[QuestionView, ...] = ()


class SourceRow(Part):
    """One corpus, model or text that went into the run, and under what licence."""

    name: str
    licence: str
    used_for: str
    recordings: int | None = Field(default=None, ge=0)
    hours: FiniteFloat | None = Field(default=None, ge=0)
    link: str | None = None


class ReportInputs(Part):
    """Everything that the page shows. A part left empty is named on the page as empty."""

    run: RunFacts
    study: StudyTable | None = None
    empathy: EmpathyTable | None = None
    labeller: LabellerReport | None = None
    labeller_card: str | None = None
    funnel: Funnel | None = None
    tuning: Tuning | None = None
    losses: tuple[LossCurve, ...] = ()
    clips: tuple[ClipView, ...] = ()
    systems: dict[str, str] = SYSTEMS
    notes: tuple[str, ...] = ()
    sources: tuple[SourceRow, ...] = ()
    pairs_page: str | None = None
    sweep_page: str | None = None
