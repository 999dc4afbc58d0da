"""The one client for every LLM endpoint: OpenAI-compatible chat completions, with a cache on disk.

    >>> async with ChatClient(endpoint="http://127.0.0.1:8000/v1", model="gemma", cache_dir=Path("cache")) as chat:  # doctest: +SKIP
    ...     reply = await chat.ask([Message(role="user", content="Hello")])

A reply comes back as it was said; parsing it (`read_json`) is the caller's second step, so that it can be done again without paying
again. The key is read from the environment (UNDERTONE_API_KEY, else OPENAI_API_KEY) and written nowhere; local servers need none.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from undertone.errors import ConfigError, ServiceError
from undertone.records import content_hash

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

M = TypeVar("M", bound=BaseModel)

KEY_VARIABLES = ("UNDERTONE_API_KEY", "OPENAI_API_KEY")


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class Reply(BaseModel):
    """What the endpoint said.

    Attributes:
        text: The reply, raw; empty where the model refused through the server's own field.
        finish: "stop", or "length" where the reply was cut at the token limit.
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


class ChatClient:
    """An async context manager; use one inside one event loop and share it between tasks."""

    def __init__(
        self,
        *,
        endpoint: str,
        model: str,
        cache_dir: Path | None = None,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        retries: int = 4,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
    ) -> None:
        """Configure the client.

        Args:
            endpoint: Base URL, up to and with "/v1".
            model: Name of the model.
            cache_dir: Folder of the cache; None for none.
            concurrency: How many requests at a time.
            timeout_s: Seconds for one attempt.
            retries: How often an attempt that failed on the way, or with 408, 409, 429 or 5xx, is made again.
            temperature: None to leave it to the server.
            max_tokens: Of a reply; None to leave it to the server.
        """
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint: got {endpoint!r}, expected a base URL such as http://127.0.0.1:8000/v1")
        self.endpoint = endpoint.rstrip("/")
        self.model = model
        self.cache_dir = cache_dir
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.retries = retries
        self.temperature = temperature
        self.max_tokens = max_tokens
        self._openai: AsyncOpenAI | None = None
        self._plain_json = False

    async def __aenter__(self) -> Self:
        from openai import AsyncOpenAI  # slow to import, and most commands ask no LLM

        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "none")
        self._openai = AsyncOpenAI(base_url=self.endpoint, api_key=key, timeout=self.timeout_s, max_retries=self.retries)
        self._slots = asyncio.Semaphore(self.concurrency)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._openai is not None:
            await self._openai.close()
            self._openai = None

    async def ask(
        self, messages: Sequence[Message], *, schema: type[BaseModel] | None = None, seed: int | None = None, attempt: int = 0
    ) -> Reply:
        """The reply to a conversation, from the cache where it has been asked before.

        Args:
            messages: The conversation.
            schema: Ask for JSON of this schema; an endpoint that refuses `response_format` is asked in words. The reply may not fit.
            seed: Sent along; many servers honour it.
            attempt: Another number asks again although the cache has a reply, as after one that could not be read.

        Raises:
            ServiceError: The endpoint does not answer, answers with an error, or with something that is no chat completion.
        """
        request: dict[str, Any] = {"model": self.model, "messages": [one.model_dump() for one in messages]}
        options = {"temperature": self.temperature, "max_tokens": self.max_tokens, "seed": seed}
        request |= {name: value for name, value in options.items() if value is not None}
        shape = schema.model_json_schema() if schema else None
        key = content_hash(json.dumps([request, shape, attempt], sort_keys=True))
        stored = self._stored(key)
        if stored is not None:
            return stored
        async with self._slots:
            reply = await self._shaped(request, shape)
        self._store(key, reply)
        return reply

    async def _shaped(self, request: dict[str, Any], shape: dict[str, Any] | None) -> Reply:
        import openai

        if shape is None:
            return await self._send(request)
        if not self._plain_json:
            formatted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": shape, "strict": False}}
            try:
                return await self._send({**request, "response_format": formatted})
            except ServiceError as error:
                if not isinstance(error.__cause__, (openai.BadRequestError, openai.UnprocessableEntityError)):
                    raise
        # In the last message: chat templates such as Gemma's take no second message of the same role.
        *before, last = request["messages"]
        words = f"Reply with one JSON object and nothing else. It must fit this JSON schema: {json.dumps(shape)}"
        last = {**last, "content": f"{last['content']}\n\n{words}"}
        reply = await self._send({**request, "messages": [*before, last]})
        # Only a reply in words proves that the format was the trouble; from then on it is not tried again.
        self._plain_json = True
        return reply

    async def _send(self, request: dict[str, Any]) -> Reply:
        import openai

        if self._openai is None:
            raise RuntimeError("ChatClient is used outside 'async with'")
        try:
            made: ChatCompletion = await self._openai.chat.completions.create(**request)
        except openai.APITimeoutError as error:
            raise ServiceError(
                f"{self.endpoint} did not answer within {self.timeout_s:g} s; raise the timeout or {self._look}"
            ) from error
        except openai.APIConnectionError as error:
            raise ServiceError(f"{self.endpoint} does not answer ({error.__cause__ or error}); {self._look}") from error
        except openai.AuthenticationError as error:
            raise ServiceError(f"{self.endpoint} refuses the key ({error.message}); type: export {KEY_VARIABLES[0]}=...") from error
        except openai.APIStatusError as error:
            raise ServiceError(
                f"{self.endpoint} answered {error.status_code} for model {self.model!r}: {error.message}; {self._look}"
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise ServiceError(f"{self.endpoint} answered with something that is no JSON ({error}); {self._look}") from error
        choices = getattr(made, "choices", None)
        if not choices or choices[0].message is None:
            raise ServiceError(f"{self.endpoint} answered with something that is no chat completion; {self._look}")
        message = choices[0].message
        return Reply(
            text=message.content or "",
            finish=choices[0].finish_reason or "stop",
            refusal=message.refusal,
            model=made.model or self.model,
            prompt_tokens=made.usage.prompt_tokens if made.usage else 0,
            completion_tokens=made.usage.completion_tokens if made.usage else 0,
        )

    @property
    def _look(self) -> str:
        return f"see what runs there: curl {self.endpoint}/models"

    def _stored(self, key: str) -> Reply | None:
        if self.cache_dir is None:
            return None
        try:
            return Reply.model_validate_json((self.cache_dir / f"{key}.json").read_text()).model_copy(update={"cached": True})
        except (FileNotFoundError, ValidationError):
            return None  # an entry of another version is as good as none

    def _store(self, key: str, reply: Reply) -> None:
        if self.cache_dir is None:
            return
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.cache_dir, suffix=".tmp", delete=False) as file:
            file.write(reply.model_dump_json())
        os.replace(file.name, self.cache_dir / f"{key}.json")


def read_json(text: str, schema: type[M]) -> M:
    """The object that a reply holds, be it fenced or wrapped in words.

    Raises:
        ValueError: There is none, or it does not fit the schema; says which.
    """
    fenced = re.search(r"```(?:json)?\s*(\{.*\})\s*```", text, re.DOTALL)
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError(f"no JSON object in the reply {text[:80]!r}")
    try:
        return schema.model_validate_json(fenced.group(1) if fenced else text[start : end + 1])
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise ValueError(f"the reply does not fit {schema.__name__}: {faults}") from error
