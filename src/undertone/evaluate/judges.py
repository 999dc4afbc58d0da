"""Judges: item in, verdict out. The reference judge needs no LLM and is deterministic; the LLM judge grades by a rubric.

What counts as no score: an answer without any word is `unreadable`, one that declines ("I cannot determine ...") and names no class is
`refused`, one that never came what `Answer.unanswered` says, a reference without any word is `no_reference`, a label of an attribute
without keywords is `no_label`. An answer that was read and names no class, several classes or the wrong class is a wrong answer: 0. The LLM
judge's own failures are typed alike: a reply without an offered grade is `unreadable`, a refusal to grade `refused`, silence `timed_out`;
`Verdict.raw` then holds what it did say. What the protocol guarantees against answers that want to steer their judge, and what it cannot,
stands in `undertone.evaluate.judging`.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from undertone.chat import Account, CacheDir, ChatClient, Endpoint
from undertone.errors import ServiceError
from undertone.evaluate import judging, mapping
from undertone.lexicon import meant_words
from undertone.records import Answer, Kind, QAPair, UnscoredReason, Verdict
from undertone.refusals import is_refusal

A = TypeVar("A")
B = TypeVar("B")

WITH_REFERENCE: frozenset[Kind] = frozenset(get_args(Kind)) - {"REPLY"}
"""Kinds whose reference answer says what is right. A reply to a speaker has many good ones, and words in common with one are no measure."""


@dataclass(frozen=True)
class Item:
    """What a judge sees: the question with its reference, and one subject's answer to it.

    `transcript` is what is said in the clip, for judges that need it (`Judge.needs_clips`); None for the others and for unknown clips.
    """

    pair: QAPair
    answer: Answer
    transcript: str | None = None

    @property
    def subject(self) -> str:
        """Whose answer it is."""
        return self.answer.subject


class Judge(Protocol):
    """Scores answers. `name` stands in the verdicts; `runs` is how often each answer is judged (1 for a deterministic judge)."""

    @property
    def name(self) -> str:
        """Identifies the judge, its model and its prompt."""
        ...

    @property
    def runs(self) -> int:
        """How many verdicts each answer gets."""
        ...

    @property
    def kinds(self) -> frozenset[Kind] | None:
        """The question kinds that it scores, None for all; answers to others are left out, which is not the same as unscored."""
        ...

    @property
    def needs_clips(self) -> bool:
        """Whether it needs `Item.transcript`."""
        ...

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        """The verdict on one answer in one run: a score in 0..100 or a typed reason; never raises about what the answer says.

        Raises:
            ServiceError: The judge needs an endpoint that cannot be reached, or that refuses the request.
        """
        ...

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        """`score` for several items, one result for each and in their order; for judges that can work on several at once."""
        ...


class ReferenceJudge(BaseModel):
    """Scores by the reference alone: labelled questions by class (100 or 0), content by F1 of content words, transcripts by token F1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["reference"] = "reference"

    @property
    def name(self) -> str:
        """Stands in the verdicts."""
        return "reference"

    @property
    def runs(self) -> int:
        """One: the judge is deterministic."""
        return 1

    @property
    def kinds(self) -> frozenset[Kind] | None:
        """All but free replies."""
        return WITH_REFERENCE

    needs_clips: ClassVar[bool] = False

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        """The verdict on one answer."""
        mapped = mapped_label(item)
        result = self._result(item, mapped)
        return Verdict(
            judge=self.name,
            subject=item.subject,
            pair_id=item.pair.id,
            run=run,
            score=result if isinstance(result, float) else None,
            unscored=None if isinstance(result, float) else result,
            mapped_label=mapped,
        )

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        """The verdicts on several answers."""
        return [self.score(item, run=run) for item in items]

    def _result(self, item: Item, mapped: str | None) -> float | UnscoredReason:
        reason = unscorable(item, mapped)
        if reason is not None:
            return reason
        if item.pair.label is None:
            score = content_f1 if item.pair.kind == "C" else token_f1
            return 100 * score(item.answer.text, item.pair.answer)
        if item.pair.label_attribute not in mapping.attributes():
            return "no_label"
        return 100.0 if mapped == item.pair.label else 0.0


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no grades")  # although Python counts them as 1 and 0
    return value


class _Graded(BaseModel):
    """The reply to the graded rubric; any other grade than these is no grade."""

    explanation: str
    grade: Annotated[Literal[0, 1, 2, 3, 4, 5], BeforeValidator(_no_truth)]


class _Binary(BaseModel):
    """The reply to the binary rubric."""

    explanation: str
    grade: Annotated[Literal[0, 1], BeforeValidator(_no_truth)]


_RUBRICS: dict[str, tuple[type[_Graded] | type[_Binary], float]] = {"graded": (_Graded, 20.0), "binary": (_Binary, 100.0)}
"""Rubric to its reply and to the points of one grade (AudioBench: 0-5 x 20, 0/1 x 100)."""


class JudgingEndpoint(Endpoint):
    """An LLM that judges, behind an OpenAI-compatible endpoint.

    Fields, beside those of the endpoint (`chat.Endpoint`):
        wording: The prompt: "plain" asks for agreement with the reference in all its details, as AudioBench does; "paralinguistic" for what
            the question asks about words and voice, without a penalty on brevity (Prompt 2 of 2505.13338 is described so).
        runs: How often each is judged. With `temperature` above 0 the verdicts differ, and their mean is steadier (CP-Bench takes five).
        cache_dir: Where replies are kept, so that what was answered is never asked again; None for nowhere.
    """

    wording: Literal["plain", "paralinguistic"] = "paralinguistic"
    runs: int = Field(default=1, ge=1)
    max_tokens: int | None = Field(default=512, gt=0)
    cache_dir: CacheDir | None = None

    needs_clips: ClassVar[bool] = False

    @property
    def kinds(self) -> frozenset[Kind] | None:
        """All but free replies."""
        return WITH_REFERENCE

    async def each(
        self, work: Callable[[ChatClient, A], Awaitable[B]], given: Iterable[A], told: Callable[[int, B], None]
    ) -> Account:
        """Do something with each of the given, as many at once as `concurrency` allows, and tell what came of it; the account of replies.

        Twice as many are begun as requests may be in flight, since some wait before they try again.
        """
        async with ChatClient(self, cache_dir=self.cache_dir) as chat:

            async def one(what: A) -> B:
                return await work(chat, what)

            await judging.worked_off(one, given, told, at_once=2 * self.concurrency)
            return chat.account

    async def ahead(
        self, work: Callable[[ChatClient, A], Awaitable[B]], given: Iterable[A], told: Callable[[int], None]
    ) -> Account:
        """Like `each`, for what is done to fill the cache; ends where the endpoint turns out to be down.

        Raises:
            ServiceError: The first requests got no reply, and none did.
        """

        async def one(chat: ChatClient, what: A) -> B:
            made = await work(chat, what)
            if isinstance(made, ServiceError) and chat.nobody_there(made):
                raise made
            return made

        done = 0

        def count(number: int, made: B) -> None:
            nonlocal done
            done += 1
            told(done)

        return await self.each(one, given, count)

    @property
    def name(self) -> str:
        """Model, prompt, temperature, digest of the prompt: judges that differ in one of these give other scores for the same answers."""
        heat = "t-server" if self.temperature is None else f"t{self.temperature:g}"
        return f"llm:{self.model}:{self.template}:{heat}@{judging.prompt_digest(self.template, self.replies)}"

    @property
    def template(self) -> str:
        """The file of `evaluate/prompts/` that is shown, without its ending."""
        raise NotImplementedError(f"{type(self).__name__} names no template")

    @property
    def replies(self) -> type[BaseModel]:
        """What may be replied."""
        raise NotImplementedError(f"{type(self).__name__} names no schema of replies")


class LLMJudge(JudgingEndpoint):
    """Grades with an LLM by a rubric of `evaluate/prompts/`: "graded" (0-5, x 20) or "binary" (0/1, x 100)."""

    kind: Literal["llm"] = "llm"
    rubric: Literal["graded", "binary"] = "graded"

    @property
    def template(self) -> str:
        """Rubric and wording."""
        return f"{self.rubric}-{self.wording}"

    @property
    def replies(self) -> type[_Graded] | type[_Binary]:
        """What may be replied."""
        return _RUBRICS[self.rubric][0]

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        """The verdict on one answer in one run."""
        found = self.score_many([item], run=run)[0]
        if isinstance(found, ServiceError):
            raise found
        return found

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        """The verdicts on several answers, asked for `concurrency` at a time."""
        found: dict[int, Verdict | ServiceError] = {}
        asyncio.run(self.each(self._one, ((item, run) for item in items), found.__setitem__))
        return [found[number] for number in range(len(items))]

    def ask_ahead(self, items: Iterable[Item], *, told: Callable[[int], None] = lambda done: None) -> Account:
        """Ask about all items in all runs, so that `score` and `score_many` find the replies in the cache and send nothing.

        Args:
            items: Read as they are needed; memory does not grow with their number.
            told: Told how many verdicts are done.

        Raises:
            ServiceError: The endpoint is down or refuses the key.
        """
        return asyncio.run(self.ahead(self._one, ((item, run) for item in items for run in range(self.runs)), told))

    def prompt(self, item: Item) -> str:
        """What the judge is shown. The marks around the answer carry a hash of it, which no answer can foresee and so none can forge."""
        return judging.rendered(self.template, question=asked(item.pair), reference=item.pair.answer, answer=item.answer.text)

    async def _one(self, chat: ChatClient, what: tuple[Item, int]) -> Verdict | ServiceError:
        item, run = what
        mapped = mapped_label(item)

        def verdict(*, score: float | None = None, unscored: UnscoredReason | None = None, raw: str | None = None) -> Verdict:
            common: dict[str, Any] = {"judge": self.name, "subject": item.subject, "pair_id": item.pair.id, "run": run}
            return Verdict(**common, score=score, unscored=unscored, mapped_label=mapped, raw=raw)

        reason = unscorable(item, mapped)
        if reason is not None:
            return verdict(unscored=reason)
        found = await judging.heard(chat, self.prompt(item), self.replies, rereads=self.rereads, seed=run)
        if found.error is not None:
            return found.error
        if found.verdict is None:
            return verdict(unscored=found.unscored, raw=found.raw)
        return verdict(score=_RUBRICS[self.rubric][1] * found.verdict.grade, raw=found.raw)


class JudgeCard(BaseModel):
    """What judged, for people and for whoever wants to judge so again; `settings` are those that can change a verdict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    runs: int
    settings: dict[str, Any]
    prompt_digest: str | None = None
    prompt: str | None = None


def card_of(judge: Any) -> JudgeCard:
    """The card of a judge, with the wording of its prompt where it has one; a study keeps them in `evaluate/judges.json`."""
    asks = judge if isinstance(judge, JudgingEndpoint) else None
    return JudgeCard(
        name=judge.name,
        kind=judge.kind,
        runs=judge.runs,
        settings=judging.settings_of(judge),
        prompt_digest=asks and judging.prompt_digest(asks.template, asks.replies),
        prompt=asks and judging.prompt_text(asks.template),
    )


def asked(pair: QAPair) -> str:
    """A question as a judge is shown it: after the turns that led to it."""
    turns = [f"(Asked before: {turn.question} Answered: {turn.answer})" for turn in pair.history]
    return "\n".join([*turns, pair.question])


def mapped_label(item: Item) -> str | None:
    """The class that an answer claims, None where the pair has no label or the answer claims none."""
    attribute = item.pair.label_attribute
    if item.pair.label is None or attribute not in mapping.attributes():
        return None
    return mapping.to_label(item.answer.text, attribute).label


def unscorable(item: Item, mapped: str | None) -> UnscoredReason | None:
    """Why an answer cannot be scored whoever judges it, or None where it can.

    An answer that declines and still names a class ("I cannot be sure, but angry") is an answer. So is one whose reference reads like a
    refusal itself ("She says that she cannot help you").
    """
    if not re.search(r"\w", item.pair.answer):
        return "no_reference"
    if item.answer.unanswered is not None:
        return item.answer.unanswered
    if not re.search(r"\w", item.answer.text):
        return "unreadable"
    if mapped is None and is_refusal(item.answer.text) and not is_refusal(item.pair.answer):
        return "refused"
    return None


def token_f1(answer: str, reference: str) -> float:
    """F1 of the bags of words, 0..1: SQuAD's measure (Rajpurkar et al., 2016) with its normalisation."""
    said, wanted = normalised_tokens(answer), normalised_tokens(reference)
    shared = sum((Counter(said) & Counter(wanted)).values())
    if not shared:
        return float(said == wanted)
    return 2 * shared / (len(said) + len(wanted))


def content_f1(answer: str, reference: str) -> float:
    """F1 of the bags of words that mean something (`lexicon.meant_words`), 0..1: "at noon" has nothing right about "at nine".

    A reference that is made of other words alone ("to her") is compared by all its words.

    >>> content_f1("At noon.", "at nine"), content_f1("At nine.", "at nine")
    (0.0, 1.0)
    """
    wanted = " ".join(meant_words(reference))
    return token_f1(" ".join(meant_words(answer)), wanted) if wanted else token_f1(answer, reference)


def normalised_tokens(text: str) -> list[str]:
    """Words in lower case without punctuation and English articles; apostrophes vanish ("it's" is "its"), as in SQuAD."""
    flat = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(" " if mark == "-" else "" if unicodedata.category(mark).startswith("P") else mark for mark in flat)
    return [word for word in bare.split() if word not in ("a", "an", "the")]
