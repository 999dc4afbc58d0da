"""Judging as a stage: answers in, verdicts out, one for each run of the judge."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from undertone import tables
from undertone.chat import Account
from undertone.errors import ServiceError
from undertone.evaluate import judging
from undertone.evaluate.benchmarks.class_judge import ClassJudge
from undertone.evaluate.empathy import EmpathyJudge
from undertone.evaluate.judges import Item, LLMJudge, ReferenceJudge
from undertone.evaluate.manner import MannerJudge
from undertone.evaluate.mapping import keyword_digest
from undertone.paths import Location
from undertone.records import Answer, Clip, QAPair, Record, Verdict
from undertone.stages import Context, Dropped, Failed, Kept, Outcome, Stage

OTHER_KIND = "other_kind"
"""Why an answer is dropped whose question is of a kind that the judge does not score (`Judge.kinds`)."""


AnyJudge = Annotated[ReferenceJudge | LLMJudge | EmpathyJudge | MannerJudge | ClassJudge, Field(discriminator="kind")]
"""A judge as a study names it."""


class JudgeStage(Stage[Answer, Verdict]):
    """Scores answers against the pairs of the side table "pairs"; an answer to a pair that is not there fails with its id.

    A judge that needs the clips' words finds them in the side table "clips"; for the others there is no such table.
    """

    name: ClassVar[str] = "judge"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Record]] = Answer
    writes: ClassVar[type[Record]] = Verdict

    judge: AnyJudge = Field(default_factory=ReferenceJudge)

    _pairs: dict[str, QAPair] = PrivateAttr(default_factory=dict)
    _said: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sides(self) -> Mapping[str, type[Record]]:  # type: ignore[override]
        """Which tables there must be depends on the judge, so that a table of clips is no input where nobody looks at it."""
        return {"pairs": QAPair, "clips": Clip} if self.judge.needs_clips else {"pairs": QAPair}

    def open(self, context: Context) -> None:
        """Load the pairs, and what is said in their clips where the judge needs it."""
        self._pairs.update((pair.id, pair) for pair in context.sides["pairs"].rows())
        if self.judge.needs_clips:
            self._said.update(said_in(self._pairs.values(), context.sides["clips"].rows()))

    def process(self, rows: Sequence[Answer]) -> Sequence[Outcome[Verdict]]:
        """One outcome for each answer."""
        items = list(self._items(rows, self._pairs, self._said))
        runs = [self.judge.score_many(items, run=run) for run in range(self.judge.runs)]
        judged = {item.answer.id: found for item, *found in zip(items, *runs, strict=True)}
        return [self._outcome(one, judged.get(one.id)) for one in rows]

    def identity(self) -> dict[str, Any]:
        """The judge's configuration, its name (which holds the digest of its prompt), and the keywords by which answers are read."""
        return {"judge": judging.settings_of(self.judge), "judge_name": self.judge.name, "keywords": keyword_digest()}

    def ask_ahead(
        self,
        sources: Sequence[Location],
        *,
        sides: Mapping[str, Location],
        limit: int | None = None,
        told: Callable[[int], None] = lambda done: None,
    ) -> Account | None:
        """Keep the judge's endpoint busy over all answers, so that the stage finds the replies; None where no LLM judges.

        A stage works batch by batch, and the last slow reply of sixty-four would keep all others waiting.

        Args:
            sources: Folders of tables of answers.
            sides: Folders of the side tables.
            limit: Only the first so many answers.
            told: Told how many verdicts are done.

        Raises:
            ServiceError: The endpoint is down or refuses the key.
        """
        if not isinstance(self.judge, LLMJudge) or self.judge.cache_dir is None:
            return None
        pairs = {pair.id: pair for pair in tables.open_table(sides["pairs"], QAPair).rows()}
        answers = itertools.islice((row for folder in sources for row in tables.open_table(folder, Answer).rows()), limit)
        return self.judge.ask_ahead(self._items(answers, pairs, {}), told=told)

    def _items(self, rows: Iterable[Answer], pairs: Mapping[str, QAPair], said: Mapping[str, str]) -> Iterator[Item]:
        """What there is to judge."""
        for one in rows:
            pair = pairs.get(one.pair_id)
            if pair is not None and (self.judge.kinds is None or pair.kind in self.judge.kinds):
                yield Item(pair=pair, answer=one, transcript=said.get(pair.clip_id))

    def _outcome(self, answer: Answer, found: Sequence[Verdict | ServiceError] | None) -> Outcome[Verdict]:
        if found is None and (pair := self._pairs.get(answer.pair_id)) is not None:
            return Dropped(OTHER_KIND, f"{self.judge.name} scores no {pair.kind}")
        if found is None:
            return Failed(f"answer {answer.id} is to pair {answer.pair_id}, which is not in the benchmark")
        error = next((one for one in found if isinstance(one, ServiceError)), None)
        return Failed(str(error)) if error else Kept(tuple(one for one in found if isinstance(one, Verdict)))


def said_in(pairs: Iterable[QAPair], clips: Iterable[Clip]) -> Iterator[tuple[str, str]]:
    """The words of the clips that pairs are about, by the clip's id."""
    wanted = {pair.clip_id for pair in pairs}
    return ((clip.id, clip.transcript) for clip in clips if clip.id in wanted)
