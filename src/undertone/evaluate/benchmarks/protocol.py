"""What a benchmark definition is: how a published test set is read, asked, judged and summed up.

A definition is a configuration (`{name: cp-bench-long, path: ...}`) whose class says four things:

    read        the native format as our records: recordings, clips, pairs, and what is left out and why
    wordings    how it is asked where the set leaves that to the evaluator
    judge       the judge that it is scored by, as settings over those of the study's judge
    figures     which figures it is reported by, the first being the one that is quoted

Scores are strict: what has no score is counted beside the mean (`figures`). Where the set's own scorer is known to count otherwise, `DEFECT`
says how, and `mode: compat` reports what it would have printed for the same verdicts; both figures and their difference are always told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.corpora.plan import rng_of
from undertone.evaluate import mapping
from undertone.evaluate.benchmarks.class_judge import ClassJudge
from undertone.evaluate.judges import Judge, LLMJudge, ReferenceJudge
from undertone.paths import Location
from undertone.records import Clip, Loss, QAPair, Recording

Mode = Literal["strict", "compat"]


@dataclass(frozen=True)
class Content:
    """What a benchmark holds, as our records. `dropped` are rows that are left out; `notes` are for people."""

    recordings: Sequence[Recording]
    clips: Sequence[Clip]
    pairs: Sequence[QAPair]
    dropped: Sequence[Loss] = ()
    notes: Sequence[str] = ()

    @property
    def line(self) -> str:
        """The accounting in one line."""
        reasons = sorted({one.reason for one in self.dropped})
        counts = ", ".join(f"{reason} {sum(one.reason == reason for one in self.dropped)}" for reason in reasons)
        lost = f"{len(self.dropped)} rows left out" + (f" ({counts})" if counts else "")
        return f"{len(self.pairs)} questions about {len(self.recordings)} recordings; {lost}"


class Benchmark(BaseModel):
    """Base of all definitions.

    Attributes:
        path: The folder that was downloaded or unpacked.
        mode: Which figures are quoted: "strict" ours, "compat" those of the set's own scorer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Location
    mode: Mode = "strict"

    ABOUT: ClassVar[str] = ""
    """What it asks, from where, how much of it: for `undertone benchmarks`."""
    DEFECT: ClassVar[str | None] = None
    """What the set's own scorer counts in a way that we do not; None where none is known."""
    LICENCE: ClassVar[str | None] = None

    @model_validator(mode="after")
    def _compat_with_something(self) -> Self:
        if self.mode == "compat" and self.DEFECT is None:
            raise ValueError(f"{self.title} has no mode compat: no defect of its own scorer is known; expected mode: strict")
        return self

    @property
    def title(self) -> str:
        """The definition's name."""
        return str(self.name)  # type: ignore[attr-defined]  # every definition has a name

    def read(self, out: Location) -> Content:
        """The benchmark as records; audio that lies inside other files is put into `out/audio`.

        Raises:
            DataError: The folder is missing, of another layout, or holds nothing that can be asked.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it is read")

    def figures(self) -> tuple[str, ...]:
        """Names of the figures that it is reported by (`figures.NAMES`), the quoted one first."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it is reported by")

    def scoring(self) -> Mapping[str, Any]:
        """Settings of an LLM judge that the set is scored by: `rubric`, `wording`, `runs`."""
        return {}

    def reference_judge(self) -> ReferenceJudge | ClassJudge:
        """The judge where no LLM judges.

        Raises:
            ConfigError: The set cannot be scored without one.
        """
        return ReferenceJudge()

    def judge(self, given: Judge | None = None) -> Judge:
        """The judge that scores it: an LLM judge with the set's rubric, wording and runs as far as it does not say its own.

        Args:
            given: The study's judge; None for the one that needs no LLM, which takes the reference judge's place too. Others stay.
        """
        if isinstance(given, LLMJudge):
            return given.model_copy(
                update={key: value for key, value in self.scoring().items() if key not in given.model_fields_set}
            )
        return self.reference_judge() if given is None or isinstance(given, ReferenceJudge) else given

    def attribute(self) -> str | None:
        """What direct questions ask for whose pairs carry no label, because its classes are the set's own; None where all carry one."""
        return None

    def read_class(self, text: str, attribute: str) -> str | None:
        """The class of `attribute` that a text claims, in the words of the set."""
        return mapping.to_label(text, attribute).label if attribute in mapping.attributes() else None

    def scales(self) -> Mapping[str, tuple[float, float]]:
        """Numeric attributes that are asked for, and the scale that answers are on."""
        return {}

    def describe(self) -> str:
        """What the definition says, for people."""
        scored = ", ".join(f"{key} {value}" for key, value in self.scoring().items())
        lines = [self.ABOUT.strip(), f"Reported by: {', '.join(self.figures())}."]
        lines += [f"LLM judge: {scored}."] if scored else []
        lines += [f"Its own scorer (mode: compat): {self.DEFECT}"] if self.DEFECT else []
        lines += [f"Licence: {self.LICENCE}."] if self.LICENCE else []
        return "\n".join(lines)


class Wordings(BaseModel):
    """Several ways to ask for one thing; which row gets which is a function of the row's key, not of a running generator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: tuple[str, ...] = Field(min_length=1)

    def of(self, *key: str) -> str:
        """The wording for a row.

        >>> Wordings(texts=("How does the speaker sound?",)).of("row 1")
        'How does the speaker sound?'
        """
        return self.texts[0] if len(self.texts) == 1 else rng_of(*key).choice(self.texts)
