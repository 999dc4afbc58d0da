"""The one client for every LLM endpoint: OpenAI-compatible chat completions, with a cache on disk.

    >>> at = Endpoint(endpoint="http://127.0.0.1:8000/v1", model="gemma")
    >>> async with ChatClient(at, cache_dir=Path("cache")) as chat:  # doctest: +SKIP
    ...     reply = await chat.ask([Message(role="user", content="Hello")])

A reply comes back as it was said; parsing it (`read_json`) is the caller's second step, so that it can be done again without paying
again. It is on disk before the caller has it and before its place among the requests in flight is free: what a kill can lose of what
was answered are the replies that had not been written yet, at most `Endpoint.concurrency` of them.

Texts of others that go into a prompt go through `as_data` first.

The key is read from the environment (UNDERTONE_API_KEY, else OPENAI_API_KEY) and written nowhere; local servers need none.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
import random
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from undertone import tables
from undertone.errors import ServiceError
from undertone.paths import Location, location
from undertone.records import content_hash

if TYPE_CHECKING:
    from openai import AsyncOpenAI

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

CacheDir = Annotated[Location, BeforeValidator(location), PlainSerializer(str, return_type=str)]
"""The folder of a cache as a setting: a path, or an address of an object store."""

KEY_VARIABLES = ("UNDERTONE_API_KEY", "OPENAI_API_KEY")


class TextPart(BaseModel):
    """A text between sounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["text"] = "text"
    text: str


class InputAudio(BaseModel):
    """A sound file in base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(BaseModel):
    """A sound where it is heard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["input_audio"] = "input_audio"
    input_audio: InputAudio


class Message(BaseModel):
    """One message of a conversation; with sound it has parts, in the order in which they are read and heard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str | tuple[TextPart | AudioPart, ...]


class Reply(BaseModel):
    """What the endpoint said.

    Attributes:
        text: The reply, raw; empty where the model refused through the server's own field.
        finish: "stop", "length" where the reply was cut at the token limit, "content_filter" where somebody stepped in.
        refusal: The refusal, where the server has a field for it and the model used it.
        model: As the server names it.
        prompt_tokens, completion_tokens: As the server counts them.
        cached: Whether it was read from the cache, at no cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    finish: str
    refusal: str | None = None
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False

    @property
    def kind(self) -> Literal["said", "refused", "cut", "empty"]:
        """What it is: a whole text, a refusal, a text that ends at the token limit, or nothing."""
        if self.refusal is not None or self.finish == "content_filter":
            return "refused"
        if self.finish == "length":
            return "cut"
        return "said" if self.text.strip() else "empty"


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """What is read of a chat completion; servers add to it and leave out of it what they like."""

    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: _Usage | None = None

    def reply(self, model: str) -> Reply:
        """The first choice."""
        first, usage = self.choices[0], self.usage or _Usage()
        return Reply(
            text=first.message.content or "",
            finish=first.finish_reason or "stop",
            refusal=first.message.refusal,
            model=self.model or model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )


class Prices(BaseModel):
    """What a million tokens cost, in any currency; nothing is assumed where nothing is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def money(amount: float) -> str:
    """An amount with two decimals, small ones with two digits.

    >>> money(3.6), money(0.004), money(0), money(1e-7)
    ('3.60', '0.004', '0.00', 'less than 0.0001')
    """
    if amount == 0 or amount >= 0.1:
        return f"{amount:.2f}"
    return f"{amount:.2g}" if amount >= 1e-4 else "less than 0.0001"


class Endpoint(BaseModel):
    """Where an LLM is reached, and how it is asked.

    Attributes:
        endpoint: Base URL, up to and with "/v1".
        model: Name of the model there.
        temperature: None to leave it to the server.
        max_tokens: Of a reply; None to leave it to the server.
        timeout_s: Seconds for one attempt, from the first byte sent to the last received.
        retries: How often an attempt that failed on the way, or with 408, 409, 429 or 5xx, is made again.
        rereads: How often a reply that cannot be read is asked for again.
        concurrency: How many requests at a time, in one process.
        prices: For the account of costs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    model: str = Field(min_length=1)
    temperature: float | None = Field(default=0.0, ge=0)
    max_tokens: int | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)
    retries: int = Field(default=4, ge=0)
    rereads: int = Field(default=1, ge=0)
    concurrency: int = Field(default=8, ge=1)
    prices: Prices | None = None

    unlike: ClassVar[frozenset[str]] = frozenset({"endpoint", "timeout_s", "retries", "concurrency", "prices"})
    """Settings that change no reply, since a model is the same wherever it runs: no part of a stage's identity."""

    @model_validator(mode="before")
    @classmethod
    def _without_a_key(cls, value: Any) -> Any:
        given = [name for name in ("api_key", "key", "token") if isinstance(value, Mapping) and name in value]
        if given:
            raise ValueError(f"{given[0]}: a study holds no keys; take it out and type: export {KEY_VARIABLES[0]}=...")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        if re.match(r"https?://[^/]", value):
            return value
        host = re.sub(r"^[a-z]*:?/+", "", value).rstrip("/") or "127.0.0.1:8000"
        raise ValueError(f"expected http://{host if '/' in host else host + '/v1'}")


@dataclass
class Account:
    """What a job's replies cost. Cached replies bring the tokens that they once cost, so it is the same whenever the job is run again.

    Attempts that were given up are in no account: whether their tokens are charged is between the server and its owner.

    Attributes:
        replies: Given to callers; `cached` of them at no cost.
        refused, cut, empty: Of the replies, see `Reply.kind`.
        sent_again: Attempts that failed on the way and were made again.
        failed: Questions that got no reply.
        prompt_tokens, completion_tokens: Of all replies.
        new_prompt_tokens, new_completion_tokens: Of those that were not cached.
    """

    replies: int = 0
    cached: int = 0
    refused: int = 0
    cut: int = 0
    empty: int = 0
    sent_again: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    new_prompt_tokens: int = 0
    new_completion_tokens: int = 0

    def __add__(self, other: Account) -> Account:
        theirs = asdict(other)
        return Account(**{name: value + theirs[name] for name, value in asdict(self).items()})

    def add(self, reply: Reply) -> None:
        """Enter one reply."""
        self.replies += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        if reply.cached:
            self.cached += 1
        else:
            self.new_prompt_tokens += reply.prompt_tokens
            self.new_completion_tokens += reply.completion_tokens
        if reply.kind != "said":
            setattr(self, reply.kind, getattr(self, reply.kind) + 1)

    def line(self, name: str, prices: Prices | None = None) -> str:
        """The account on one line.

        >>> Account(replies=812, cached=790, prompt_tokens=1_200_000, completion_tokens=300_000).line("cpqa", Prices(prompt=2, completion=4))
        'cpqa: 812 replies (790 cached), 1.2 M + 0.3 M tokens, 3.60 at the given prices (0.00 of it now)'
        """
        parts = [
            f"{name}: {self.replies} replies ({self.cached} cached)",
            f"{_short(self.prompt_tokens)} + {_short(self.completion_tokens)} tokens",
        ]
        if prices is not None:
            now = prices.of(self.new_prompt_tokens, self.new_completion_tokens)
            whole = prices.of(self.prompt_tokens, self.completion_tokens)
            parts.append(f"{money(whole)} at the given prices ({money(now)} of it now)")
        told = {"refused": self.refused, "cut": self.cut, "empty": self.empty, "sent again": self.sent_again, "failed": self.failed}
        return ", ".join(parts + [f"{count} {what}" for what, count in told.items() if count])


def _short(tokens: int) -> str:
    """A number of tokens as people say it."""
    if tokens >= 100_000:
        return f"{tokens / 1e6:.1f} M"
    return f"{tokens / 1e3:.1f} k" if tokens >= 1000 else str(tokens)


_PER_POOL = 8
"""Requests in flight for each pool of connections."""


def timed_out(error: ServiceError) -> bool:
    """Whether an endpoint was given up because it said nothing."""
    import openai

    return isinstance(error.__cause__, (openai.APITimeoutError, TimeoutError))


_ENOUGH_FAILED = 8
"""Questions without a reply, and no reply at all, after which an endpoint counts as down; each was tried as often as its settings say."""


class ChatClient:
    """An async context manager; use one inside one event loop and share it between tasks.

    Attributes:
        account: Of the replies that it gave so far.
    """

    def __init__(self, at: Endpoint, *, cache_dir: Location | None = None) -> None:
        """Configure the client.

        Args:
            at: Where, and how.
            cache_dir: Folder of the cache; None for none.
        """
        self.at = at
        self.cache_dir = cache_dir
        self.account = Account()
        self._sdks: list[AsyncOpenAI] = []
        self._sent = 0
        self._disk: ThreadPoolExecutor | None = None
        self._plain_json = False

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(self.at.concurrency)
        # A disk that syncs, or an object store, takes milliseconds, in which the event loop has replies of others to read.
        self._disk = ThreadPoolExecutor(max_workers=min(32, self.at.concurrency), thread_name_prefix="replies")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one in self._sdks:
            await one.close()
        self._sdks = []
        if self._disk is not None:
            self._disk.shutdown()
            self._disk = None

    async def ask(
        self, messages: Sequence[Message], *, schema: type[BaseModel] | None = None, seed: int | None = None, attempt: int = 0
    ) -> Reply:
        """The reply to a conversation, from the cache where it has been asked before.

        Args:
            messages: The conversation.
            schema: Ask for JSON of this schema; an endpoint that refuses `response_format` is asked in words. The reply may not fit.
            seed: Sent along; many servers honour it.
            attempt: Another number asks again although the cache has a reply, as after one that could not be read. From the second
                attempt on the schema is told in words too, because some servers ignore `response_format` without saying so.

        Raises:
            ServiceError: The endpoint does not answer, answers with an error, or with something that is no chat completion.
            StoreError: The cache is in an object store that does not answer.
            DiskFull: There is no room for the reply.
        """
        if self._disk is None:
            raise RuntimeError("ChatClient is used outside 'async with'")
        request, key = self._request(messages, schema, seed, attempt)
        # A look at a local disk is sooner done than handed over.
        reply = self._read(key) if isinstance(self.cache_dir, Path) else await self._off_loop(lambda: self._read(key))
        if reply is None:
            reply = await self._retried(key, request, schema, in_words=attempt > 0)
        self.account.add(reply)
        return reply

    def stored(
        self, messages: Sequence[Message], *, schema: type[BaseModel] | None = None, seed: int | None = None, attempt: int = 0
    ) -> Reply | None:
        """The reply that the cache holds, None where there is none; sends nothing, enters no account, and works outside `async with`."""
        return self._read(self._request(messages, schema, seed, attempt)[1])

    def nobody_there(self, error: ServiceError) -> bool:
        """Whether every other question would meet the same error: nothing came but replies of the cache, and the request is not to blame.

        Who goes on with a broken run sends just those questions that failed before. So where somebody listens (silence, an error of the
        server) more must fail than the cache has replies to.
        """
        status = getattr(error.__cause__, "status_code", None)
        listens = timed_out(error) or (status is not None and status >= 500)
        account = self.account
        enough = max(_ENOUGH_FAILED, account.cached + 1) if listens else _ENOUGH_FAILED
        return account.replies == account.cached and account.failed >= enough and status not in (400, 413, 422)

    def _request(
        self, messages: Sequence[Message], schema: type[BaseModel] | None, seed: int | None, attempt: int
    ) -> tuple[dict[str, Any], str]:
        """What is sent, and its key in the cache."""
        request: dict[str, Any] = {"model": self.at.model, "messages": [one.model_dump() for one in messages]}
        options = {"temperature": self.at.temperature, "max_tokens": self.at.max_tokens, "seed": seed}
        request |= {name: value for name, value in options.items() if value is not None}
        shape = None if schema is None else json_schema(schema)
        return request, content_hash(json.dumps([request, shape, attempt], sort_keys=True))

    async def _retried(self, key: str, request: dict[str, Any], schema: type[BaseModel] | None, *, in_words: bool) -> Reply:
        """The reply, on disk; attempts that fail in passing are made again, and count as in flight only while they are."""
        for taken in range(self.at.retries + 1):
            try:
                async with self._slots:
                    reply = await self._shaped(request, schema, in_words=in_words)
                await self._off_loop(lambda reply=reply: self._write(key, reply))  # type: ignore[misc]
                return reply
            except ServiceError as error:
                wait_s = pause_s(error.__cause__, taken=taken)
                if wait_s is None or taken == self.at.retries:
                    self.account.failed += 1
                    raise
            self.account.sent_again += 1
            await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    async def _shaped(self, request: dict[str, Any], schema: type[BaseModel] | None, *, in_words: bool) -> Reply:
        import openai

        if schema is None:
            return await self._send(request)
        shape = json_schema(schema)
        # In the last message: chat templates such as Gemma's take no second message of the same role.
        *before, last = request["messages"]
        words = f"Reply with one JSON object and nothing else. It must fit this JSON schema: {json.dumps(shape)}"
        said = last["content"]
        more = f"{said}\n\n{words}" if isinstance(said, str) else [*said, TextPart(text=words).model_dump()]
        told = {**request, "messages": [*before, {**last, "content": more}]}
        if not self._plain_json:
            formatted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": shape, "strict": False}}
            try:
                return await self._send({**(told if in_words else request), "response_format": formatted})
            except ServiceError as error:
                if not isinstance(error.__cause__, (openai.BadRequestError, openai.UnprocessableEntityError)):
                    raise
        reply = await self._send(told)
        # Only a reply in words proves that the format was the trouble; from then on it is not tried again.
        self._plain_json = True
        return reply

    async def _send(self, request: dict[str, Any]) -> Reply:
        import openai

        client = self._sdk()
        try:
            # The SDK's time-out is between two bytes, so that a server which dribbles would never be given up.
            async with asyncio.timeout(self.at.timeout_s):
                # Not `chat.completions.create`, which walks through prompt and schema again for each request.
                made = await client.post("/chat/completions", cast_to=object, body=request)
        except (openai.APITimeoutError, TimeoutError) as error:
            raise ServiceError(
                f"{self.at.endpoint} did not answer within {self.at.timeout_s:g} s; raise the timeout or {self._look}"
            ) from error
        except openai.APIConnectionError as error:
            raise ServiceError(f"{self.at.endpoint} does not answer ({error.__cause__ or error}); {self._look}") from error
        except openai.AuthenticationError as error:
            raise ServiceError(
                f"{self.at.endpoint} refuses the key ({error.message}); type: export {KEY_VARIABLES[0]}=..."
            ) from error
        except openai.APIStatusError as error:
            raise ServiceError(
                f"{self.at.endpoint} answered {error.status_code} for model {self.at.model!r}: {error.message}; {self._look}"
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise ServiceError(f"{self.at.endpoint} answered with something that is no JSON ({error}); {self._look}") from error
        try:
            return _Completion.model_validate(made).reply(self.at.model)
        except ValidationError as error:
            raise ServiceError(f"{self.at.endpoint} answered with something that is no chat completion; {self._look}") from error

    def _sdk(self) -> AsyncOpenAI:
        """The SDK, made when something is sent: where all replies are cached, its import and its certificates would take most of the time.

        There are several, in turn: a connection pool looks at each of its connections for every request.
        """
        self._sent += 1
        if len(self._sdks) * _PER_POOL < self.at.concurrency:
            from openai import AsyncOpenAI  # slow to import, and most commands ask no LLM

            key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "none")
            # Retries are `_retried`'s: the SDK's own keep their place among the requests in flight while they wait, and go uncounted.
            made = AsyncOpenAI(base_url=self.at.endpoint.rstrip("/"), api_key=key, timeout=self.at.timeout_s, max_retries=0)
            self._sdks.append(made)
            return made
        return self._sdks[self._sent % len(self._sdks)]

    @property
    def _look(self) -> str:
        return f"see what runs there: curl {self.at.endpoint}/models"

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Do what waits for a disk beside the event loop; nothing where there is no cache."""
        return work() if self.cache_dir is None else await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _file(self, folder: Location, key: str) -> Location:
        """In sub-folders: file systems, and people, do badly with a million files in one."""
        return folder / key[:2] / f"{key}.json"

    def _read(self, key: str) -> Reply | None:
        if self.cache_dir is None:
            return None
        try:
            raw = self._file(self.cache_dir, key).read_bytes()
            return Reply.model_validate_json(raw).model_copy(update={"cached": True})
        except (FileNotFoundError, ValidationError):
            return None  # an entry of another version is as good as none

    def _write(self, key: str, reply: Reply) -> None:
        if self.cache_dir is not None:
            tables.write_bytes(self._file(self.cache_dir, key), reply.model_dump_json().encode(), synced=False)


LONGEST_PAUSE_S = 120.0
"""Servers that ask for longer are believed, and not waited for."""


def pause_s(error: BaseException | None, *, taken: int) -> float | None:
    """Seconds to wait before the next attempt, None for an error that will be the same next time.

    Connections that break, time-outs, 408, 409, 429 and 5xx pass. A server that says how long (Retry-After, in seconds or as a date, or
    retry-after-ms) or whether at all (x-should-retry) is heeded; else the wait doubles from half a second to eight, less up to a quarter
    by chance, so that requests which failed together do not come back together.

    Args:
        error: What the SDK raised.
        taken: Retries so far.
    """
    import openai

    headers: Mapping[str, str] = {}
    if isinstance(error, openai.APIStatusError):
        headers = error.response.headers
        passes = error.status_code in (408, 409, 429) or error.status_code >= 500
        if headers.get("x-should-retry", str(passes).lower()) != "true":
            return None
    elif not isinstance(error, (openai.APIConnectionError, TimeoutError)):
        return None
    asked_s = _retry_after_s(headers)
    if asked_s is not None:
        return asked_s if asked_s <= LONGEST_PAUSE_S else None
    return float(min(0.5 * 2**taken, 8.0) * (1 - 0.25 * random.random()))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            asked_s = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if math.isfinite(asked_s) and asked_s >= 0:
            return asked_s
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


@functools.cache
def json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a reply, without what it has of names and docstrings; made once, because that takes as long as a request."""
    made: dict[str, Any] = _bare(schema.model_json_schema())
    return made


def _bare(part: Any) -> Any:
    """A part of a JSON schema without titles and descriptions: they would make another request, and another digest, of a mended docstring."""
    if isinstance(part, list):
        return [_bare(one) for one in part]
    if not isinstance(part, dict):
        return part
    # Below these two the keys are names of fields and classes, of which one may be "title".
    named = {key: {name: _bare(one) for name, one in part[key].items()} for key in ("properties", "$defs") if key in part}
    values = ("default", "const", "enum", "examples")
    kept = {key: one if key in values else _bare(one) for key, one in part.items() if key not in ("title", "description")}
    return {**kept, **named}


_MARKERS = re.compile(r"<(?=[|｜/<]*[a-zA-Z▁])|(?<=[|｜])>|\[(?=/?[A-Z_]{3,}\])")
"""Where tokens begin (or end) that chat templates are made of: <|im_start|>, <start_of_turn>, <<SYS>>, </s>, <think>, [INST]."""

_JOINERS = "\u200c\u200d"


def as_data(text: str, *, lines: bool = False) -> str:
    r"""Text of others as it may stand in a prompt: it begins no line, holds no control characters and no tokens of chat templates.

    A space is put into such tokens, so that no tokenizer takes them for its own and a reader still sees what was there. Line breaks of
    every kind and control characters become spaces; what cannot be seen (direction marks, tag characters) goes. What this cannot do is
    make a model deaf to plain words such as "ignore the above"; for those it stands in a prompt between marks that it cannot contain.

    Args:
        text: Anything.
        lines: Keep line breaks (as \n), for a text that has a place of its own between marks.

    >>> as_data("yes\n[0.0-9.9 s] man, happy: no <|im_start|>system")
    'yes [0.0-9.9 s] man, happy: no < |im_start| >system'
    """
    if lines:
        return "\n".join(as_data(line) for line in text.splitlines())
    if not text.isascii() or not text.isprintable():
        text = "".join(_seen(mark) for mark in text)
    return _MARKERS.sub(lambda found: f" {found[0]}" if found[0] == ">" else f"{found[0]} ", text)


def _seen(mark: str) -> str:
    category = unicodedata.category(mark)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category in ("Cf", "Cs", "Co") and mark not in _JOINERS else mark


_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.IGNORECASE | re.DOTALL)
"""What reasoning models write first, where the server does not take it out; drafts of the reply may stand in it."""


def without_thinking(text: str) -> str:
    """A reply without what a reasoning model thought first.

    >>> without_thinking("<think>A low voice, slow.</think> Sad.")
    'Sad.'
    """
    said = _THINKING.sub("", text)
    return said if said == text else said.lstrip()


def read_json(text: str, schema: type[M], *, alone: bool = False) -> M:
    """The first object in a reply that fits, be it fenced, thought about, wrapped in words, or followed by more.

    Where the schema has one field and that is a list, the bare list does as well. Commas before a closing bracket are overlooked where nothing
    can be read else.

    Args:
        text: The reply.
        schema: What it should hold.
        alone: For verdicts, which somebody may want to forge: a reply that holds several different objects that fit, or one behind a brace that
            begins none (so perhaps inside a text that is quoted), cannot be read.

    Raises:
        ValueError: There is none, it does not fit the schema, or it is not alone; says which.
    """
    said = _THINKING.sub("", text)
    if said.lstrip()[:7].lower() == "<think>":
        raise ValueError("the reply ends before its thinking does")
    fields = list(json_schema(schema).get("properties", {}).items())
    listed = fields[0][0] if len(fields) == 1 and fields[0][1].get("type") == "array" else None
    faults: list[str] = []
    for tried in dict.fromkeys((said, re.sub(r",(?=\s*[}\]])", "", said))):
        fit: list[M] = []
        for value, clear in _values(tried, "{" if listed is None else "{["):
            try:
                made = schema.model_validate_json(json.dumps({listed: value} if isinstance(value, list) and listed else value))
            except ValidationError as error:
                found = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
                faults.append(f"the reply does not fit {schema.__name__}: {'; '.join(found)}")
                continue
            if not alone:
                return made
            if not clear or (fit and made != fit[0]):
                raise ValueError(f"the reply holds more than one {schema.__name__}, or one inside something else: {text[:80]!r}")
            fit.append(made)
        if fit:
            return fit[0]
    raise ValueError(faults[0] if faults else f"no JSON object in the reply {text[:80]!r}")


def _values(text: str, openings: str) -> Iterator[tuple[Any, bool]]:
    """The JSON values of a text that begin with these brackets, none inside another; and whether all brackets before it began one too."""
    decoder, at, clear = json.JSONDecoder(strict=False), 0, True
    opening = re.compile(f"[{re.escape(openings)}]")
    while found := opening.search(text, at):
        try:
            value, at = decoder.raw_decode(text, found.start())
        except RecursionError:  # "[[[[[[", which some models end in
            return
        except ValueError:
            at, clear = found.end(), clear and found[0] != "{"
            continue
        if value:
            yield value, clear
