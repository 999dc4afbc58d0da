"""Judging as a stage: answers in, verdicts out, one for each run of the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from undertone.chat import Endpoint
from undertone.errors import ServiceError
from undertone.evaluate.judges import Item, LLMJudge, ReferenceJudge
from undertone.evaluate.mapping import keyword_digest
from undertone.records import Answer, QAPair, Record, Verdict
from undertone.stages import Context, Failed, Kept, Outcome, Stage


class JudgeStage(Stage[Answer, Verdict]):
    """Scores answers against the pairs of the side table "pairs"; an answer to a pair that is not there fails with its id."""

    name: ClassVar[str] = "judge"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Record]] = Answer
    writes: ClassVar[type[Record]] = Verdict
    sides: ClassVar[Mapping[str, type[Record]]] = {"pairs": QAPair}

    judge: Annotated[ReferenceJudge | LLMJudge, Field(discriminator="kind")] = Field(default_factory=ReferenceJudge)

    _pairs: dict[str, QAPair] = PrivateAttr(default_factory=dict)

    def open(self, context: Context) -> None:
        """Load the pairs."""
        self._pairs.update((pair.id, pair) for pair in context.sides["pairs"].rows())

    def process(self, rows: Sequence[Answer]) -> Sequence[Outcome[Verdict]]:
        """One outcome for each answer."""
        items = [Item(pair=self._pairs[one.pair_id], answer=one) for one in rows if one.pair_id in self._pairs]
        runs = [self.judge.score_many(items, run=run) for run in range(self.judge.runs)]
        judged = {item.answer.id: found for item, *found in zip(items, *runs, strict=True)}
        return [self._outcome(one, judged.get(one.id)) for one in rows]

    def identity(self) -> dict[str, Any]:
        """The judge's configuration, its name (which holds the digest of its prompt), and the keywords by which answers are read."""
        config = self.model_dump(mode="json", exclude={"judge": {*Endpoint.unlike, "cache_dir"}})
        return {**config, "judge_name": self.judge.name, "keywords": keyword_digest()}

    @staticmethod
    def _outcome(answer: Answer, found: Sequence[Verdict | ServiceError] | None) -> Outcome[Verdict]:
        if found is None:
            return Failed(f"answer {answer.id} is to pair {answer.pair_id}, which is not in the benchmark")
        error = next((one for one in found if isinstance(one, ServiceError)), None)
        return Failed(str(error)) if error else Kept(tuple(one for one in found if isinstance(one, Verdict)))
