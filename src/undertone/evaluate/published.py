"""The numbers that the paper prints: the only typed-in results in the package, kept apart from all that a run measures.

Source: arXiv 2508.07273 (ASRU 2025), human-annotated CPQA set, GPT-4o as judge, 0..100. They were measured on other data and with models
a thousand times larger, so they stand beside a run's table for the shape of the result and never in it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class PublishedScore(BaseModel):
    """One system of the paper: overall score, relative gain over S10 in percent, and scores per question kind where printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    overall: float | None = None
    gain_percent: float | None = None
    kinds: dict[str, float] = {}


class Published(BaseModel):
    """A paper's results and what they were measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    test_set: str
    judge: str
    note: str
    scores: tuple[PublishedScore, ...]

    def of(self, system: str) -> PublishedScore | None:
        """The paper's numbers for one system, None where it gives none."""
        return next((one for one in self.scores if one.system == system), None)


PAPER = Published(
    source="arXiv 2508.07273",
    test_set="human-annotated CPQA (480 clips of 30-60 s)",
    judge="GPT-4o, 0-100",
    note="the paper's, on other data and models",
    scores=(
        PublishedScore(system="S10", overall=41.0, kinds={"C": 44.86, "CE": 37.56, "CG": 49.77}),
        PublishedScore(system="S20", overall=52.06, gain_percent=26.98),
        PublishedScore(system="S30", overall=56.75, gain_percent=38.41, kinds={"C": 60.29, "CE": 53.86, "CG": 63.86}),
        PublishedScore(system="S32", overall=59.87, gain_percent=46.02),
    ),
)
