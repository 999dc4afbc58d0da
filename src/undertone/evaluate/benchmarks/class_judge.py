"""A judge for closed sets whose classes are not ours: the class that an answer claims, among those that the question offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import ServiceError
from undertone.evaluate import mapping
from undertone.evaluate.judges import Item, unscorable
from undertone.records import Kind, UnscoredReason, Verdict


class ClassJudge(BaseModel):
    """Scores 100 where answer and reference claim the same of the offered classes, else 0; needs no LLM.

    The reference's class is read from its words, so `QAPair.label` need not be set. A reference that claims no class is `no_label`. Questions
    of kinds other than the direct ones are left out: the classes say nothing of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["classes"] = "classes"
    attribute: str
    classes: tuple[str, ...] = Field(min_length=2)

    needs_clips: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Says what is read, among how many classes."""
        return f"classes:{self.attribute}:{len(self.classes)}"

    @property
    def runs(self) -> int:
        """One: the judge is deterministic."""
        return 1

    @property
    def kinds(self) -> frozenset[Kind] | None:
        """Direct questions."""
        return frozenset({"DE", "DG", "DS"})

    def read(self, text: str) -> str | None:
        """The class that a text claims."""
        return mapping.to_label(text, self.attribute, among=self.classes).label

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        """The verdict on one answer."""
        read = self.read(item.answer.text)
        result = self._result(item, read)
        return Verdict(
            judge=self.name,
            subject=item.subject,
            pair_id=item.pair.id,
            run=run,
            score=result if isinstance(result, float) else None,
            unscored=None if isinstance(result, float) else result,
            mapped_label=read,
        )

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        """The verdicts on several answers."""
        return [self.score(item, run=run) for item in items]

    def _result(self, item: Item, read: str | None) -> float | UnscoredReason:
        reason = unscorable(item, read)
        if reason is not None:
            return reason
        right = item.pair.label if item.pair.label in self.classes else self.read(item.pair.answer)
        return "no_label" if right is None else 100.0 if read == right else 0.0
