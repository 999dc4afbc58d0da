"""Judges: item in, verdict out. The reference judge needs no LLM and is deterministic; the LLM judge grades by a rubric.

What counts as no score: an answer without any word is `unreadable`, one that declines ("I cannot determine ...") and names no class is
`refused`, a reference without any word is `no_reference`, a label of an attribute without keywords is `no_label`. An answer that was read
and names no class, several classes or the wrong class is a wrong answer: 0. The LLM judge's own failures are typed alike: a reply without an
offered grade is `unreadable`, a refusal to grade `refused`, silence `timed_out`; `Verdict.raw` then holds what it did say.
"""

from __future__ import annotations

import asyncio
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, Protocol

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from undertone.chat import CacheDir, ChatClient, Endpoint, Message, as_data, read_json
from undertone.errors import ServiceError
from undertone.evaluate import mapping
from undertone.lexicon import meant_words
from undertone.paths import StoreError
from undertone.records import Answer, QAPair, UnscoredReason, Verdict, content_hash
from undertone.refusals import is_refusal


@dataclass(frozen=True)
class Item:
    """What a judge sees: the question with its reference, and one subject's answer to it."""

    pair: QAPair
    answer: Answer

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


class _Graded(BaseModel):
    """The reply to the graded rubric; any other grade than these is no grade."""

    explanation: str
    grade: Literal[0, 1, 2, 3, 4, 5]


class _Binary(BaseModel):
    """The reply to the binary rubric."""

    explanation: str
    grade: Literal[0, 1]


_RUBRICS: dict[str, tuple[type[_Graded] | type[_Binary], float]] = {"graded": (_Graded, 20.0), "binary": (_Binary, 100.0)}
"""Rubric to its reply and to the points of one grade (AudioBench: 0-5 x 20, 0/1 x 100)."""


class LLMJudge(Endpoint):
    """Grades with an LLM behind an OpenAI-compatible endpoint, by a rubric of `evaluate/prompts/`.

    Fields, beside those of the endpoint (`chat.Endpoint`):
        rubric: "graded" (0-5, x 20) or "binary" (0/1, x 100).
        runs: Verdicts per answer. With `temperature` above 0 they differ, and their mean is steadier (CP-Bench takes five).
        cache_dir: Where replies are kept; None for nowhere.
    """

    kind: Literal["llm"] = "llm"
    rubric: Literal["graded", "binary"] = "graded"
    runs: int = Field(default=1, ge=1)
    max_tokens: int | None = Field(default=512, gt=0)
    cache_dir: CacheDir | None = None

    @property
    def name(self) -> str:
        """Model, rubric and digest of its prompt: judges that differ in one of these give other scores for the same answers."""
        return f"llm:{self.model}:{self.rubric}@{content_hash(_template(self.rubric))[:8]}"

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        """The verdict on one answer in one run."""
        found = self.score_many([item], run=run)[0]
        if isinstance(found, ServiceError):
            raise found
        return found

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        """The verdicts on several answers, asked for `concurrency` at a time."""
        return asyncio.run(self._score_all(items, run))

    def prompt(self, item: Item) -> str:
        """What the judge is shown. The marks around the answer carry a hash of it, which no answer can foresee and so none can forge."""
        given = {"question": item.pair.question, "reference": item.pair.answer, "answer": item.answer.text}
        texts = {name: as_data(text, lines=True) for name, text in given.items()}
        return _compiled(self.rubric).render(**texts, fence=content_hash(*texts.values())[:8])

    async def _score_all(self, items: Sequence[Item], run: int) -> list[Verdict | ServiceError]:
        async with ChatClient(self, cache_dir=self.cache_dir) as chat:
            return list(await asyncio.gather(*(self._one(chat, item, run) for item in items)))

    async def _one(self, chat: ChatClient, item: Item, run: int) -> Verdict | ServiceError:
        mapped = mapped_label(item)

        def verdict(*, score: float | None = None, unscored: UnscoredReason | None = None, raw: str | None = None) -> Verdict:
            common: dict[str, Any] = {"judge": self.name, "subject": item.subject, "pair_id": item.pair.id, "run": run}
            return Verdict(**common, score=score, unscored=unscored, mapped_label=mapped, raw=raw)

        reason = unscorable(item, mapped)
        if reason is not None:
            return verdict(unscored=reason)
        schema, points = _RUBRICS[self.rubric]
        messages, said = [Message(role="user", content=self.prompt(item))], ""
        for attempt in range(1 + self.rereads):
            try:
                reply = await chat.ask(messages, schema=schema, seed=run, attempt=attempt)
            except StoreError:
                raise  # the cache's store, which every other item would meet as well
            except ServiceError as error:
                return verdict(unscored="timed_out", raw=said or None) if _timed_out(error) else error
            said = reply.refusal or reply.text
            if reply.kind == "refused":
                return verdict(unscored="refused", raw=said)
            try:
                return verdict(score=points * read_json(said, schema, alone=True).grade, raw=said)
            except ValueError:
                continue
        return verdict(unscored="refused" if is_refusal(said) else "unreadable", raw=said)


@functools.cache
def _template(rubric: str) -> str:
    return (resources.files("undertone.evaluate") / "prompts" / f"{rubric}.jinja").read_text(encoding="utf-8")


@functools.cache
def _compiled(rubric: str) -> jinja2.Template:
    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(_template(rubric))


def _timed_out(error: ServiceError) -> bool:
    import openai

    return isinstance(error.__cause__, (openai.APITimeoutError, TimeoutError))


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
