"""The generator that asks an LLM: it puts a strategy's requests to an endpoint and makes pairs of the replies.

What the model says is kept raw: in the cache as soon as it is there, and in every pair. A reply that cannot be read is asked for again
(`Endpoint.rereads`); a clip of which one request got nothing usable is a `ServiceError`, which the stage keeps as a failed row.

Strategies write their prompts from the clip as `quoted` gives it, so that no renderer of evidence need think of what speakers may have
said. They read replies with the clip as it is: what they put into a pair of their own is what was said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from undertone.chat import ChatClient, Endpoint, Message, Reply, as_data
from undertone.errors import ServiceError
from undertone.generate.protocol import Candidate, Generator, Request, Strategy
from undertone.paths import Location, StoreError
from undertone.records import Clip, Label, QAPair, Segment, Word, content_hash


@dataclass(frozen=True)
class Put:
    """A request as it is put to the endpoint."""

    request: Request
    messages: tuple[Message, ...]
    seed: int


@dataclass(frozen=True)
class Got:
    """A usable reply and what it holds."""

    reply: Reply
    candidates: tuple[Candidate, ...]


class LLMGenerator(Generator):
    """Asks an OpenAI-compatible endpoint for pairs; as deterministic as the endpoint, and entirely so with a cache."""

    name = "llm"
    version = "4"

    def __init__(self, strategy: Strategy, *, at: Endpoint, source: str | None = None, cache_dir: Location | None = None) -> None:
        """Configure the generator.

        Args:
            strategy: What is asked, and how replies are read.
            at: The endpoint.
            source: Of the pairs; None for the strategy's name.
            cache_dir: Where replies are kept.
        """
        self.strategy = strategy
        self.at = at
        self.source = source or strategy.name
        self.cache_dir = cache_dir

    def client(self) -> ChatClient:
        """A client of its endpoint with its cache, to be opened by the caller."""
        return ChatClient(self.at, cache_dir=self.cache_dir)

    def write(self, clip: Clip, *, seed: int) -> list[QAPair]:
        """The pairs that the model writes about a clip; not to be called inside a running event loop.

        Raises:
            ServiceError: The endpoint failed, refused, or its replies could not be read.
        """
        (made,) = self.write_many([clip], seed=seed)
        if isinstance(made, ServiceError):
            raise made
        return made

    def write_many(self, clips: Sequence[Clip], *, seed: int) -> list[list[QAPair] | ServiceError]:
        """`write` for several clips at a time."""
        return asyncio.run(self._write_all(clips, seed))

    async def _write_all(self, clips: Sequence[Clip], seed: int) -> list[list[QAPair] | ServiceError]:
        async with self.client() as chat:
            return list(await asyncio.gather(*(self.write_one(chat, clip, seed=seed) for clip in clips)))

    async def write_one(self, chat: ChatClient, clip: Clip, *, seed: int) -> list[QAPair] | ServiceError:
        """The pairs of one clip, or why there are none; one request that fails fails the clip, so that none is half asked."""
        got = await self.ask_one(chat, clip, seed=seed)
        if isinstance(got, ServiceError):
            return got
        evidence = self.strategy.evidence(quoted(clip)) if any(one.candidates for one in got) else ""
        return [self._pair(candidate, clip, evidence, one.reply) for one in got for candidate in one.candidates]

    async def ask_one(self, chat: ChatClient, clip: Clip, *, seed: int) -> list[Got] | ServiceError:
        """The usable replies to all requests about a clip, or the first error."""
        asked = [self._ask(chat, clip, put) for put in self.puts(clip, seed=seed)]
        # One alone is not worth a task.
        replies = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
        error = next((one for one in replies if isinstance(one, ServiceError)), None)
        return error or [one for one in replies if isinstance(one, Got)]

    def puts(self, clip: Clip, *, seed: int) -> list[Put]:
        """All requests about a clip, in the order of the strategy, each with a seed of its own, and another one in each source."""

        def drawn(number: int) -> int:
            return int(content_hash(str(seed), self.source, clip.id, str(number))[:7], 16)

        asked = enumerate(self.strategy.requests(quoted(clip), seed=seed))
        return [Put(one, (Message(role="user", content=one.prompt),), drawn(number)) for number, one in asked]

    def stored(self, chat: ChatClient, put: Put) -> list[Reply]:
        """The replies to a request that the cache holds, in the order in which they were asked for."""
        found = []
        for attempt in range(1 + self.at.rereads):
            reply = chat.stored(put.messages, schema=put.request.schema, seed=put.seed + attempt, attempt=attempt)
            if reply is None:
                break
            found.append(reply)
        return found

    def read(self, clip: Clip, put: Put, reply: Reply) -> Got:
        """What a reply holds.

        Raises:
            ValueError: It holds nothing usable; says why.
        """
        if reply.kind == "refused":
            raise ValueError(f"it refused: {reply.refusal or reply.finish}")
        if reply.kind == "empty":
            raise ValueError("it said nothing")
        if reply.kind == "cut" and put.request.schema is None:  # an object that is whole is usable wherever the reply ends
            raise ValueError("it was cut at the token limit")
        try:
            return Got(reply, tuple(self.strategy.read(clip, put.request, reply.text)))
        except ValueError as error:
            raise ValueError(f"{error}" + (" (cut at the token limit)" if reply.kind == "cut" else "")) from error

    async def _ask(self, chat: ChatClient, clip: Clip, put: Put) -> Got | ServiceError:
        fault: ValueError | None = None
        for attempt in range(1 + self.at.rereads):
            try:
                reply = await chat.ask(put.messages, schema=put.request.schema, seed=put.seed + attempt, attempt=attempt)
                return self.read(clip, put, reply)
            except StoreError:
                raise  # the cache's store, which every other clip would meet as well
            except ServiceError as error:
                return error
            except ValueError as error:
                fault = error
        return ServiceError(
            f"model {self.at.model!r} at {self.at.endpoint} wrote nothing usable about clip {clip.id} in {1 + self.at.rereads} attempts: "
            f"{fault}; try another model, or no llm (the grammar writes)"
        )

    def _pair(self, made: Candidate, clip: Clip, evidence: str, reply: Reply) -> QAPair:
        return made.pair(
            clip,
            source=self.source,
            evidence=evidence,
            generator=f"{self.strategy.name}@{self.strategy.version}",
            model=self.at.model,
            prompt_digest=self.strategy.digest,
            raw=reply.text,
        )


def quoted(clip: Clip) -> Clip:
    """The clip with every text of others in it (words, transcripts, names, labels) as `chat.as_data` makes it; mostly the clip itself."""
    if all(as_data(text) == text for one in clip.segments for text in _texts(one)):
        return clip
    return clip.model_copy(update={"segments": tuple(_quoted(one) for one in clip.segments)})


def _texts(segment: Segment) -> Iterator[str]:
    yield from (one for one in (segment.transcript, segment.speaker) if one)
    yield " ".join(one.text for one in segment.words)
    yield from (one.category for one in segment.labels if one.category)


def _quoted(segment: Segment) -> Segment:
    return segment.model_copy(
        update={
            "transcript": _or_none(segment.transcript),
            "speaker": _or_none(segment.speaker),
            "words": tuple(_quoted_word(one) for one in segment.words),
            "labels": tuple(_quoted_label(one) for one in segment.labels),
        }
    )


def _quoted_word(word: Word) -> Word:
    events = tuple(as_data(one) for one in word.events)
    heard = {"emotion": _or_none(word.emotion), "gender": _or_none(word.gender), "events": events}
    return word.model_copy(update={"text": as_data(word.text), **heard})


def _quoted_label(label: Label) -> Label:
    return label.model_copy(update={"category": _or_none(label.category)})


def _or_none(text: str | None) -> str | None:
    return None if text is None else as_data(text)
