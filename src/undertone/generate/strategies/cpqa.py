"""CPQA and PQA*: an LLM writes questions about a clip from its words and how they sound (2505.13338, 2508.07273).

The papers' prompts are not published; `prompts/cpqa.jinja` follows what is said of them: words with category, V/A/D and gender, a mix
of simple and complex questions, and for PQA* the same prompt without the kinds in context. The seven kinds are those of CP-Bench
(2509.16589).
"""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from undertone.chat import read_json
from undertone.generate.protocol import Candidate, Request
from undertone.generate.strategies.base import (
    OnEvidence,
    PairKind,
    askable_kinds,
    drawing,
    known_label,
    rounded,
    whole_clip,
)
from undertone.lexicon import ATTRIBUTE_OF_KIND, COUNT_WORDS, EMOTION_WORDS, GENDER_WORDS
from undertone.records import Clip

_REASONED: frozenset[PairKind] = frozenset({"C", "CE", "CG", "CS"})
"""Kinds that leave room for a step of thought; who speaks in what mood overall is simply heard."""


_IN_CONTEXT: frozenset[PairKind] = frozenset({"CE", "CG", "CS"})
"""Kinds that lead to one point of a clip. A strategy that asks none of them says so in its prompt: else it would send what the
other sends about a clip in which nothing changes, and a mix of both would hold the same pairs twice."""

_EXPLAINED = re.compile(r"\s*[(:-].*\Z", re.DOTALL)
"""What follows a kind's code where a model repeats the prompt's words for it: "CE (emotion in context)"."""


class WrittenPair(BaseModel):
    """One pair as the model writes it."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    kind: PairKind
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    label: str | None = None

    @field_validator("kind", mode="before")
    @classmethod
    def _code_alone(cls, value: object) -> object:
        return _EXPLAINED.sub("", value).strip().upper() if isinstance(value, str) else value


class Written(BaseModel):
    """The reply that is asked for."""

    model_config = ConfigDict(extra="ignore")

    pairs: list[WrittenPair]


class CPQA(OnEvidence):
    """Questions and answers of seven kinds about a clip, those that need its words and its voice together among them.

    How many of each kind: `pairs_per_kind` of each, or with `proportions` as many of each as these weights say, `pairs_per_clip` in all,
    drawn for each clip so that the weights hold over many clips. A kind that a clip has no answer for is not asked; its share goes to the
    others.

    Attributes:
        kinds: What may be asked.
        pairs_per_kind: At most so many for each kind and clip, without proportions.
        proportions: Weights of kinds, such as {CE: 3, C: 1}; a kind that is not named is not asked.
        pairs_per_clip: With proportions; 7 is the mean of 2508.07273 (32,960 pairs about 4,740 clips).
        complex_share: Share of the questions of content and in context that need a step of thought.
        require_contrast: Ask in context only where the answer differs within the clip.
    """

    name: ClassVar[str] = "cpqa"
    version: ClassVar[str] = "2"
    templates: ClassVar[tuple[str, ...]] = ("cpqa.jinja", "clip.jinja")
    replies: ClassVar[tuple[type[BaseModel], ...]] = (Written,)

    kinds: tuple[PairKind, ...] = ("C", "DE", "DG", "DS", "CE", "CG", "CS")
    pairs_per_kind: int = Field(default=2, ge=1)
    proportions: dict[PairKind, float] | None = None
    pairs_per_clip: int = Field(default=7, ge=1)
    complex_share: float = Field(default=0.5, ge=0, le=1)
    require_contrast: bool = True

    @field_validator("kinds", mode="before")
    @classmethod
    def _askable(cls, value: object) -> object:
        unknown = (
            [str(one) for one in value if one != "C" and one not in ATTRIBUTE_OF_KIND] if isinstance(value, list | tuple) else []
        )
        if unknown:
            raise ValueError(f"an LLM cannot be asked for {', '.join(unknown)}; expected some of C, {', '.join(ATTRIBUTE_OF_KIND)}")
        return value

    @field_validator("proportions")
    @classmethod
    def _weighs_what_it_asks(cls, value: dict[PairKind, float] | None, info: ValidationInfo) -> dict[PairKind, float] | None:
        kinds = info.data.get("kinds", ())
        outside = [one for one in value or () if one not in kinds]
        if outside and kinds:
            raise ValueError(f"got {', '.join(outside)}, expected some of kinds: {', '.join(kinds)}")
        if value is not None and (any(weight < 0 for weight in value.values()) or not any(value.values())):
            raise ValueError("expected weights of 0 or more, one of them above 0")
        return value

    def plan(self, clip: Clip, *, seed: int) -> dict[PairKind, int]:
        """How many questions of each kind are asked about a clip; kinds with none left out."""
        asked = [one for one in askable_kinds(clip, require_contrast=self.require_contrast) if one in self.kinds]
        if self.proportions is None:
            return {one: self.pairs_per_kind for one in self.kinds if one in asked}
        weights = {one: self.proportions[one] for one in asked if self.proportions.get(one)}
        scale = self.pairs_per_clip / (sum(weights.values()) or 1)
        counts = rounded({one: weight * scale for one, weight in weights.items()}, drawing(self, clip, seed, "plan"))
        return {one: count for one, count in counts.items() if count}

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """One request for all pairs of a clip; none where no kind can be asked."""
        plan = self.plan(clip, seed=seed)
        if not plan:
            return []
        share = {one: count * self.complex_share for one, count in plan.items() if one in _REASONED}
        prompt = self.rendered(
            clip,
            plan=plan,
            reasoned=rounded(share, drawing(self, clip, seed, "complex")),
            facts=whole_clip(clip, in_order="CE" in plan),
            emotions=list(EMOTION_WORDS),
            genders=list(GENDER_WORDS),
            counts=list(COUNT_WORDS),
            whole=not any(one in _IN_CONTEXT for one in self.kinds),
        )
        return [Request(prompt=prompt, schema=Written, about={kind: str(count) for kind, count in plan.items()})]

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """The pairs that were asked for; of more than were asked, the first.

        Raises:
            ValueError: The reply does not fit, or has pairs and none of a kind that was asked for.
        """
        written = read_json(reply, Written).pairs
        left = {kind: int(count) for kind, count in request.about.items()}
        made = []
        for one in written:
            if left.get(one.kind, 0) > 0:
                left[one.kind] -= 1
                made.append(candidate(one))
        if written and not made:
            kinds = ", ".join(dict.fromkeys(one.kind for one in written))
            raise ValueError(f"the reply has pairs of kind {kinds} only; expected {', '.join(request.about)}")
        return made


class PQAStar(CPQA):
    """Questions and answers about words and about voice, none of which needs a context (PQA* of 2508.07273)."""

    name: ClassVar[str] = "pqa_star"

    kinds: tuple[PairKind, ...] = ("C", "DE", "DG", "DS")


class Benchmark(CPQA):
    """CPQA as test questions."""

    name: ClassVar[str] = "benchmark"


def candidate(written: WrittenPair) -> Candidate:
    """A pair as it was written; a label that names no class is none, which the checks then look at."""
    attribute = ATTRIBUTE_OF_KIND.get(written.kind)
    label = known_label(written.label, attribute)
    return Candidate(
        kind=written.kind,
        question=written.question,
        answer=written.answer,
        label_attribute=attribute if label else None,
        label=label,
    )
