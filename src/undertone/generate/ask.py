"""What an LLM is going to be asked, asked ahead, counted beforehand, or shown for one clip.

A stage that works part by part lets the endpoint idle at the end of each of them: the last slow reply of sixty-four clips keeps all
others waiting. `ask_ahead` keeps the endpoint busy over all clips and puts the replies into the cache; the stage that runs afterwards
finds them there and sends nothing.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.chat import Account, ChatClient, Prices, Reply, money
from undertone.errors import ConfigError, ServiceError
from undertone.generate.llm import LLMGenerator, Put, quoted
from undertone.generate.stage import GenerateStage
from undertone.paths import Location
from undertone.records import Clip, Loss, QAPair, iter_arrow
from undertone.stages import Context

CHARACTERS_PER_TOKEN = 4.0
"""Of English prose under the usual tokenizers, roughly; an estimate of costs, and no more."""

Progress = Callable[[int], None]
"""Told how many clips are done."""


def ask_ahead(stage: GenerateStage, clips: Iterable[Clip], *, seed: int, progress: Progress | None = None) -> Account:
    """Ask all that a stage is going to ask about clips, so that it finds the replies in its cache; not to be called inside an event loop.

    Replies that cannot be read are asked for again as the stage would, and kept too. What failed on the way (an endpoint that turned a
    request away each time, or did not answer) is in no cache: the stage asks once more. Twice as many clips are worked on as requests may
    be in flight, since some wait before they try again; memory does not grow with the number of clips.

    Args:
        stage: With an endpoint and a cache.
        clips: Of the stage's input; read as they are needed.
        seed: That of the stage.
        progress: Told after every clip.

    Returns:
        The account of all replies, those that were in the cache before among them.

    Raises:
        ConfigError: The stage has no endpoint, or no cache.
        ServiceError: The endpoint is down or refuses the key: the first requests got no reply, and none did.
        StoreError: The cache is in an object store that does not answer.
        DiskFull: There is no room for the replies.
    """
    generator = _generator(stage)
    if stage.cache_dir is None:
        raise ConfigError(
            f"source {generator.source}: asking ahead needs cache_dir, got none; without it the replies would be lost"
        )
    return asyncio.run(_ask_all(generator, _asked_about(stage, clips, seed), seed, progress or (lambda done: None)))


_IN_FLIGHT = 25
"""Requests that one process keeps up with: reading clips, making prompts and reading replies take it some 4 ms each."""


def ask_ahead_of(
    stage: GenerateStage,
    clips: Location,
    *,
    seed: int,
    limit: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Account:
    """`ask_ahead` for a table of clips, in several processes where the endpoint takes more requests at once than one keeps up with.

    Args:
        stage: With an endpoint and a cache.
        clips: Folder of the table.
        seed: That of the stage.
        limit: Only so many clips, in one process.
        workers: At most so many processes; all of them together have `concurrency` requests in flight.
        progress: Told how many clips are done, now and then.

    Raises:
        What `ask_ahead` does.
    """
    generator, table = _generator(stage), tables.open_table(clips, Clip)
    count = min(workers, generator.at.concurrency // _IN_FLIGHT, len(table.done.parts))
    if count < 2 or limit is not None:
        return ask_ahead(stage, itertools.islice(table.rows(), limit), seed=seed, progress=progress)
    shares = [
        _Share(stage.model_copy(update={"llm": generator.at.model_copy(update={"concurrency": one})}), clips, seed, index, count)
        for index, one in enumerate(_split(generator.at.concurrency, count))
    ]
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_share_counter, initargs=(done,)) as pool:
        asked = [pool.submit(_ask_share, one) for one in shares]
        while wait(asked, timeout=0.5).not_done:
            if progress is not None:
                progress(done.value)
        return sum((one.result() for one in asked), Account())


class _Share(NamedTuple):
    """What one of several processes asks: every `shares`th part of a table, from `first` on."""

    stage: GenerateStage
    clips: Location
    seed: int
    first: int
    shares: int


_COUNTER: dict[str, Any] = {}


def _share_counter(done: Any) -> None:
    _COUNTER["done"] = done
    gc.set_threshold(50_000, 20, 100)  # clips and prompts hold no cycles, and looking for them takes a tenth of the time


def _ask_share(share: _Share) -> Account:
    table = tables.open_table(share.clips, Clip)
    rows = (row for part in table.done.parts[share.first :: share.shares] for row in iter_arrow(table.read(part), Clip))

    def told(_: int) -> None:
        with _COUNTER["done"].get_lock():
            _COUNTER["done"].value += 1

    return ask_ahead(share.stage, rows, seed=share.seed, progress=told)


def _split(total: int, count: int) -> list[int]:
    return [total // count + (index < total % count) for index in range(count)]


async def _ask_all(generator: LLMGenerator, clips: Iterator[Clip], seed: int, progress: Progress) -> Account:
    done = 0

    async def work(chat: ChatClient) -> None:
        nonlocal done
        for clip in clips:  # one iterator for all workers, so that each clip is taken once
            got = await generator.ask_one(chat, clip, seed=seed)
            if isinstance(got, ServiceError) and _nobody_there(got, chat.account):
                raise got
            done += 1
            progress(done)

    try:
        async with generator.client() as chat, asyncio.TaskGroup() as workers:
            for _ in range(2 * generator.at.concurrency):
                workers.create_task(work(chat))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # a full disk, say, which all workers meet
    return chat.account


_ENOUGH_FAILED = 8
"""Requests without a reply, and no reply at all, after which an endpoint counts as down; each was tried as often as its settings say."""


def _nobody_there(error: ServiceError, account: Account) -> bool:
    """Whether every other clip would meet the same error: so far nothing came but replies of the cache, and the request is not to blame."""
    of_the_request = getattr(error.__cause__, "status_code", None) in (400, 413, 422)
    return account.replies == account.cached and account.failed >= _ENOUGH_FAILED and not of_the_request


def _generator(stage: GenerateStage) -> LLMGenerator:
    made = stage.made()
    if not isinstance(made, LLMGenerator):
        raise ConfigError(f"source {made.source}: the grammar writes it; expected a source with llm: {{endpoint: ..., model: ...}}")
    return made


def _asked_about(stage: GenerateStage, clips: Iterable[Clip], seed: int) -> Iterator[Clip]:
    opened = stage.model_copy()
    opened.open(Context(out_dir=Path(), seed=seed, sides={}))
    return (clip for clip in clips if opened.passed_over(clip) is None)


class DryRun(BaseModel):
    """What a stage is going to ask, and what that may cost.

    Attributes:
        source: Of the pairs.
        prompt: The first prompt; None where nothing is asked.
        clips: About which something is asked.
        requests: Each once; those whose reply cannot be read are asked again (`rereads`).
        cached: Of them, answered already.
        prompt_tokens: Of those that are not, by four characters a token.
        completion_tokens: Of those, at the token limit; None where the study sets none.
        prices: By which `cost` reckons.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    prompt: str | None
    clips: int
    requests: int
    cached: int
    prompt_tokens: int
    completion_tokens: int | None
    prices: Prices | None = None

    @property
    def cost(self) -> float | None:
        """At most so much, replies that have to be asked for again aside; None without prices or a token limit."""
        if self.prices is None or self.completion_tokens is None:
            return None
        return self.prices.of(self.prompt_tokens, self.completion_tokens)

    def text(self) -> str:
        """All of it for people."""
        if self.prompt is None:
            return f"{self.source}: nothing is asked"
        replies = "replies of unknown length (set max_tokens for a bound)"
        if self.completion_tokens is not None:
            replies = f"at most {self.completion_tokens} in replies"
        cost = "; no prices are set"
        if self.prices is not None:
            cost = f"; {money(self.prices.of(self.prompt_tokens, 0))} for the prompts, the replies unknown"
        if self.cost is not None:
            cost = f"; at most {money(self.cost)} at the given prices"
        return (
            f"{self.source}: {self.requests} requests about {self.clips} clips, {self.cached} of them answered already\n"
            f"estimate for the others (4 characters a token): {self.prompt_tokens} tokens in prompts, {replies}{cost}\n\n"
            f"The first prompt:\n\n{self.prompt}\n"
        )


def dry_run(stage: GenerateStage, clips: Iterable[Clip], *, seed: int) -> DryRun:
    """Count what a stage is going to ask about clips, without asking.

    Raises:
        ConfigError: The stage has no endpoint.
    """
    generator = _generator(stage)
    chat = generator.client()
    prompt: str | None = None
    about = requests = cached = characters = 0
    for clip in _asked_about(stage, clips, seed):
        puts = generator.puts(clip, seed=seed)
        about += bool(puts)
        for put in puts:
            prompt = put.request.prompt if prompt is None else prompt
            requests += 1
            if generator.stored(chat, put):
                cached += 1
            else:
                characters += sum(len(one.content) for one in put.messages)
    limit = generator.at.max_tokens
    return DryRun(
        source=generator.source,
        prompt=prompt,
        clips=about,
        requests=requests,
        cached=cached,
        prompt_tokens=round(characters / CHARACTERS_PER_TOKEN),
        completion_tokens=None if limit is None else limit * (requests - cached),
        prices=generator.at.prices,
    )


def explain(
    clip: Clip,
    stage: GenerateStage,
    *,
    seed: int,
    written: Sequence[QAPair] = (),
    checked: Sequence[QAPair] = (),
    losses: Iterable[Loss] = (),
) -> str:
    """Evidence, prompts and raw replies of one clip, and what became of each pair.

    Args:
        clip: The clip.
        stage: That asks, or asked, about it.
        seed: That of the stage.
        written: Pairs as the stage wrote them (generate/NAME); those of other clips and sources are left out.
        checked: Pairs that passed the checks.
        losses: What the stage and the checks dropped or failed.
    """
    made = stage.made()
    lost = {one.row_id: one for one in losses}
    parts_of_it = {clip.id, *(one.id for one in clip.segments)}  # a dialogue's pairs are about its utterances
    mine = [one for one in written if one.clip_id in parts_of_it and one.source == made.source]
    parts = [f"clip {clip.id}, source {made.source}"]
    if isinstance(made, LLMGenerator):
        parts += _exchange(made, clip, seed, mine)
    else:
        parts += [_titled("evidence", one) for one in dict.fromkeys(pair.evidence for pair in mine) if one]
    if clip.id in lost:
        parts.append(f"no pairs: {_why(lost[clip.id])}")
    passed = {one.id: one for one in checked}
    parts += [_fate(one, passed.get(one.id), lost.get(one.id)) for one in mine]
    return "\n\n".join(parts) + "\n"


def _exchange(made: LLMGenerator, clip: Clip, seed: int, pairs: Sequence[QAPair]) -> list[str]:
    puts, chat = made.puts(clip, seed=seed), made.client()
    if not puts:
        return ["nothing is asked about it"]
    parts = [_titled("evidence", made.strategy.evidence(quoted(clip)))]
    found = False
    for number, put in enumerate(puts, 1):
        which = f" {number} of {len(puts)}" if len(puts) > 1 else ""
        parts.append(_titled(f"prompt{which}", put.request.prompt))
        for attempt, reply in enumerate(made.stored(chat, put), 1):
            found = True
            tokens = f"{reply.prompt_tokens} + {reply.completion_tokens} tokens"
            head = f"reply{which}, attempt {attempt} ({tokens}): {_read(made, clip, put, reply)}"
            parts.append(_titled(head, reply.refusal or reply.text))
    if not found:  # another cache, or none; the pairs keep what they were read from
        raws = dict.fromkeys(one.raw for one in pairs if one.raw is not None)
        parts += [_titled("reply, as the pairs keep it", one) for one in raws] or [
            "no reply is kept: not asked yet, or failed on the way"
        ]
    return parts


def _read(made: LLMGenerator, clip: Clip, put: Put, reply: Reply) -> str:
    try:
        return f"{len(made.read(clip, put, reply).candidates)} pairs"
    except ValueError as error:
        return f"not usable, {error}"


def _fate(pair: QAPair, passed: QAPair | None, loss: Loss | None) -> str:
    if loss is not None:
        fate = _why(loss)
    elif passed is not None:
        fate = "kept" + (f", flagged {', '.join(passed.flags)}" if passed.flags else "")
    else:
        fate = "not checked yet"
    turns = [line for turn in pair.history for line in (f"  Q: {turn.question}", f"  A: {turn.answer}")]
    label = f" [{pair.label_attribute}: {pair.label}]" if pair.label else ""
    return "\n".join([f"{pair.kind}: {fate}", *turns, f"  Q: {pair.question}", f"  A: {pair.answer}{label}"])


def _why(loss: Loss) -> str:
    detail = f" ({loss.detail})" if loss.detail else ""
    return f"{'failed' if loss.reason == 'error' else 'dropped'} by {loss.stage}: {loss.reason}{detail}"


def _titled(title: str, text: str) -> str:
    return f"--- {title}\n{text}"
