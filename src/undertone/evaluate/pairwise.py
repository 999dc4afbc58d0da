"""Which of two answers is better: asked in both orders, because judges favour the answer that comes first (or last).

A preference counts only where both orders agree on it. Where they do not, it is a tie, and `Preference.consistent` says that the judge
contradicted itself. Two answers of the same words are a tie that nobody is asked about. An answer that is none (empty, a refusal) is not
compared: the preference is unscored, and `at_fault` names whose answer it was.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, model_validator

from undertone import tables
from undertone.chat import Account, ChatClient
from undertone.errors import ServiceError
from undertone.evaluate import judging
from undertone.evaluate.judges import Item, JudgingEndpoint, asked, mapped_label, normalised_tokens, unscorable
from undertone.evaluate.mapping import keyword_digest
from undertone.evaluate.stage import OTHER_KIND
from undertone.paths import Location
from undertone.records import Answer, QAPair, Record, UnscoredReason
from undertone.stages import Context, Dropped, Failed, Kept, Outcome, Stage

Winner = Literal["first", "second", "tie"]


class Preference(Record):
    """Which of two subjects answered a question better, by one judge in one run; or a typed reason why that is not known.

    Attributes:
        first, second: The subjects. The names say nothing about the order in which their answers were shown: both orders were.
        winner: The one that both orders agree on, else "tie"; None without a verdict.
        consistent: Whether both orders gave the same; None without a verdict.
        shown_first: What the judge said where the answer of `first` came first; None where it was not asked, or its reply was no verdict.
        shown_second: The same where the answer of `first` came second.
        unscored: Why there is no winner.
        at_fault: The subject whose answer is the reason; None where it is the judge, or the reference.
        raw: Replies to the first order and to the second.
    """

    judge: str
    first: str
    second: str
    pair_id: str
    run: int = Field(default=0, ge=0)
    winner: Winner | None = None
    consistent: bool | None = None
    shown_first: Winner | None = None
    shown_second: Winner | None = None
    unscored: UnscoredReason | None = None
    at_fault: str | None = None
    raw: str | None = None
    raw_swapped: str | None = None

    @model_validator(mode="after")
    def _winner_or_reason(self) -> Self:
        if (self.winner is None) == (self.unscored is None) or (self.winner is None) != (self.consistent is None):
            raise ValueError("a preference has either a winner (and whether both orders agree) or a reason why it is unscored")
        return self

    @property
    def id(self) -> str:
        return f"{self.judge}:{self.first}:{self.second}:{self.pair_id}:{self.run}"


@dataclass(frozen=True)
class Two:
    """What a pairwise judge sees: two answers to one question."""

    pair: QAPair
    first: Answer
    second: Answer

    @property
    def items(self) -> tuple[Item, Item]:
        """Each answer with the question."""
        return Item(pair=self.pair, answer=self.first), Item(pair=self.pair, answer=self.second)

    @property
    def swapped(self) -> Two:
        """The other order."""
        return Two(pair=self.pair, first=self.second, second=self.first)


class _Better(BaseModel):
    """The reply; anything else is no verdict."""

    explanation: str
    better: Literal["A", "B", "tie"]


class PairwiseJudge(JudgingEndpoint):
    """Compares two answers with an LLM, in both orders."""

    kind: Literal["pairwise"] = "pairwise"

    @property
    def template(self) -> str:
        """By wording."""
        return f"pair-{self.wording}"

    @property
    def replies(self) -> type[_Better]:
        """What may be replied."""
        return _Better

    def prompt(self, two: Two) -> str:
        """What the judge is shown; the first answer as A."""
        texts = {"question": asked(two.pair), "reference": two.pair.answer, "a": two.first.text, "b": two.second.text}
        return judging.rendered(self.template, **texts)

    def compare(self, two: Two, *, run: int = 0) -> Preference:
        """The preference between two answers in one run.

        Raises:
            ServiceError: The endpoint cannot be reached, or refuses the request.
        """
        found = self.compare_many([two], run=run)[0]
        if isinstance(found, ServiceError):
            raise found
        return found

    def compare_many(self, given: Sequence[Two], *, run: int = 0) -> list[Preference | ServiceError]:
        """The preferences between several pairs of answers, asked for `concurrency` at a time."""
        found: dict[int, Preference | ServiceError] = {}
        asyncio.run(self.each(self._one, ((two, run) for two in given), found.__setitem__))
        return [found[number] for number in range(len(given))]

    def ask_ahead(self, given: Iterable[Two], *, told: Callable[[int], None] = lambda done: None) -> Account:
        """Ask about all in all runs, so that `compare_many` finds the replies in the cache; see `LLMJudge.ask_ahead`."""
        return asyncio.run(self.ahead(self._one, ((two, run) for two in given for run in range(self.runs)), told))

    async def _one(self, chat: ChatClient, what: tuple[Two, int]) -> Preference | ServiceError:
        two, run = what
        common: dict[str, Any] = {"judge": self.name, "first": two.first.subject, "second": two.second.subject}
        common |= {"pair_id": two.pair.id, "run": run}
        for item in two.items:
            reason = unscorable(item, mapped_label(item))
            if reason is not None:
                return Preference(**common, unscored=reason, at_fault=None if reason == "no_reference" else item.subject)
        if normalised_tokens(two.first.text) == normalised_tokens(two.second.text):
            return Preference(**common, winner="tie", consistent=True)
        # The orders one after the other: as a pair they would be two requests in the place of one.
        straight = await judging.heard(chat, self.prompt(two), _Better, rereads=self.rereads, seed=run)
        if straight.error is not None:
            return straight.error
        other = await judging.heard(chat, self.prompt(two.swapped), _Better, rereads=self.rereads, seed=run)
        if other.error is not None:
            return other.error
        common |= {"raw": straight.raw, "raw_swapped": other.raw}
        common |= {"shown_first": _winner(straight, "first", "second"), "shown_second": _winner(other, "second", "first")}
        reason = straight.unscored or other.unscored
        if reason is not None:
            return Preference(**common, unscored=reason)
        agreed = common["shown_first"] == common["shown_second"]
        return Preference(**common, winner=common["shown_first"] if agreed else "tie", consistent=agreed)


def _winner(heard: judging.Heard[_Better], a: Winner, b: Winner) -> Winner | None:
    said = heard.verdict
    return None if said is None else "tie" if said.better == "tie" else a if said.better == "A" else b


class PairwiseStage(Stage[Answer, Preference]):
    """Compares the answers of one subject with those of another, which stand in the side table "against".

    An answer whose question the other was not asked is dropped (`no_counterpart`).
    """

    name: ClassVar[str] = "pairwise"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Record]] = Answer
    writes: ClassVar[type[Record]] = Preference
    sides: ClassVar[Mapping[str, type[Record]]] = {"pairs": QAPair, "against": Answer}

    judge: PairwiseJudge

    _pairs: dict[str, QAPair] = PrivateAttr(default_factory=dict)
    _against: dict[str, Answer] = PrivateAttr(default_factory=dict)

    def open(self, context: Context) -> None:
        """Load the pairs and the other subject's answers."""
        self._pairs.update((pair.id, pair) for pair in context.sides["pairs"].rows())
        self._against.update((one.pair_id, one) for one in context.sides["against"].rows())

    def process(self, rows: Sequence[Answer]) -> Sequence[Outcome[Preference]]:
        """One outcome for each answer."""
        given = list(self._twos(rows, self._pairs, self._against))
        runs = [self.judge.compare_many(given, run=run) for run in range(self.judge.runs)]
        judged = {two.first.id: found for two, *found in zip(given, *runs, strict=True)}
        return [self._outcome(one, judged.get(one.id)) for one in rows]

    def identity(self) -> dict[str, Any]:
        """The judge's configuration, its name, and the keywords by which refusals are told from answers."""
        return {"judge": judging.settings_of(self.judge), "judge_name": self.judge.name, "keywords": keyword_digest()}

    def ask_ahead(
        self,
        sources: Sequence[Location],
        *,
        sides: Mapping[str, Location],
        limit: int | None = None,
        told: Callable[[int], None] = lambda done: None,
    ) -> Account | None:
        """Keep the judge's endpoint busy over all answers, so that the stage finds the replies; None without a cache to keep them."""
        if self.judge.cache_dir is None:
            return None
        pairs = {pair.id: pair for pair in tables.open_table(sides["pairs"], QAPair).rows()}
        against = {one.pair_id: one for one in tables.open_table(sides["against"], Answer).rows()}
        answers = itertools.islice((row for folder in sources for row in tables.open_table(folder, Answer).rows()), limit)
        return self.judge.ask_ahead(self._twos(answers, pairs, against), told=told)

    def _twos(self, rows: Iterable[Answer], pairs: Mapping[str, QAPair], against: Mapping[str, Answer]) -> Iterator[Two]:
        for one in rows:
            pair, other = pairs.get(one.pair_id), against.get(one.pair_id)
            if pair is not None and other is not None and (self.judge.kinds is None or pair.kind in self.judge.kinds):
                yield Two(pair=pair, first=one, second=other)

    def _outcome(self, answer: Answer, found: Sequence[Preference | ServiceError] | None) -> Outcome[Preference]:
        if found is None:
            pair = self._pairs.get(answer.pair_id)
            if pair is None:
                return Failed(f"answer {answer.id} is to pair {answer.pair_id}, which is not in the benchmark")
            if answer.pair_id not in self._against:
                return Dropped("no_counterpart", "the other subject has no answer to the same question")
            return Dropped(OTHER_KIND, f"{self.judge.name} compares no {pair.kind}")
        error = next((one for one in found if isinstance(one, ServiceError)), None)
        return Failed(str(error)) if error else Kept(tuple(one for one in found if isinstance(one, Preference)))
