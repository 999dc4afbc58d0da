"""The generator that asks an LLM: evidence and instructions in, question-answer pairs out (2505.13338, 2508.07273).

The papers' prompts are not published; `prompts/cpqa.jinja` follows what is said of them: words with category, V/A/D and gender, a mix
of simple and complex questions, and for PQA* the same prompt without the kinds in context. All of the prompt is one user message,
because not every chat template has a system role. What the model says is kept raw in every pair.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from undertone.chat import ChatClient, Message, read_json
from undertone.errors import ConfigError, ServiceError
from undertone.generate.evidence import render
from undertone.generate.grammar import STRATEGY_KINDS, Strategy
from undertone.generate.protocol import Generator
from undertone.lexicon import EMOTION_WORDS, GENDER_WORDS, LABEL_WORDS, labels_in
from undertone.records import Clip, Kind, QAPair, content_hash

_ATTRIBUTES = {"DE": "emotion", "CE": "emotion", "DG": "gender", "CG": "gender", "DS": "speakers"}
_ATTEMPTS = 2
"""How often a reply that cannot be read is asked for again, the first time included."""


class WrittenPair(BaseModel):
    """One pair as the model writes it."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    kind: Kind
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    label: str | None = None


class Written(BaseModel):
    """The reply that is asked for."""

    model_config = ConfigDict(extra="ignore")

    pairs: list[WrittenPair]


@functools.cache
def _prompt_text() -> str:
    return resources.files("undertone.generate").joinpath("prompts/cpqa.jinja").read_text(encoding="utf-8")


@functools.cache
def prompt_digest() -> str:
    """Changes with the prompt and with the schema of the reply."""
    return content_hash(_prompt_text(), json.dumps(Written.model_json_schema(), sort_keys=True))


class LLMGenerator(Generator):
    """Asks an OpenAI-compatible endpoint for pairs; as deterministic as the endpoint, and entirely so with a cache."""

    name = "llm"
    version = "1"

    def __init__(
        self,
        *,
        endpoint: str,
        model: str,
        strategy: Strategy = "cpqa",
        kinds: Sequence[Kind] | None = None,
        pairs_per_kind: int = 2,
        cache_dir: Path | None = None,
        concurrency: int = 8,
        temperature: float | None = 0.7,
        retries: int = 4,
        timeout_s: float = 120.0,
    ) -> None:
        """Configure the generator; see `ChatClient` for what concerns the endpoint.

        Args:
            endpoint: Base URL.
            model: Name of the model there.
            strategy: "pqa_star", "cpqa" or "benchmark"; the others need no LLM.
            kinds: Kinds to ask for; None for those of the strategy.
            pairs_per_kind: At most so many are asked for, for each kind and clip.
            cache_dir: Where replies are kept.
            concurrency: How many clips at a time.
            temperature: Of the model; questions want some variety.
            retries: Of one request on the way.
            timeout_s: Of one request.

        Raises:
            ConfigError: A strategy or kind that this generator does not write.
        """
        if strategy not in ("pqa_star", "cpqa", "benchmark"):
            raise ConfigError(
                f"strategy: generator 'llm' does not write {strategy!r}; use generator 'grammar', or pqa_star, cpqa, benchmark"
            )
        self.kinds: tuple[Kind, ...] = tuple(kinds) if kinds is not None else STRATEGY_KINDS[strategy]
        unknown = [one for one in self.kinds if one != "C" and one not in _ATTRIBUTES]
        if unknown:
            raise ConfigError(
                f"kinds: generator 'llm' cannot ask {', '.join(unknown)}; expected some of C, {', '.join(_ATTRIBUTES)}"
            )
        self.strategy: Strategy = strategy
        self.endpoint = endpoint
        self.model = model
        self.pairs_per_kind = pairs_per_kind
        self.cache_dir = cache_dir
        self.concurrency = concurrency
        self.temperature = temperature
        self.retries = retries
        self.timeout_s = timeout_s

    def prompt(self, clip: Clip) -> str:
        """The prompt for a clip. The clip's words stand between two lines that they cannot contain."""
        evidence = render(clip)
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(_prompt_text()).render(
            fence=f"=== clip {content_hash(evidence)} ===",
            evidence=evidence,
            kinds=self.kinds,
            pairs_per_kind=self.pairs_per_kind,
            emotions=list(EMOTION_WORDS),
            genders=list(GENDER_WORDS),
        )

    def write(self, clip: Clip, *, seed: int) -> list[QAPair]:
        """The pairs that the model writes about a clip; not to be called inside a running event loop.

        Raises:
            ServiceError: The endpoint failed, refused, or its reply could not be read twice.
        """
        (made,) = self.write_many([clip], seed=seed)
        if isinstance(made, ServiceError):
            raise made
        return made

    def write_many(self, clips: Sequence[Clip], *, seed: int) -> list[list[QAPair] | ServiceError]:
        """`write` for several clips at a time."""
        return asyncio.run(self._write_all(clips, seed))

    async def _write_all(self, clips: Sequence[Clip], seed: int) -> list[list[QAPair] | ServiceError]:
        client = ChatClient(
            endpoint=self.endpoint,
            model=self.model,
            cache_dir=self.cache_dir,
            concurrency=self.concurrency,
            temperature=self.temperature,
            retries=self.retries,
            timeout_s=self.timeout_s,
        )
        async with client as chat:
            return list(await asyncio.gather(*(self._write_one(chat, clip, seed) for clip in clips)))

    async def _write_one(self, chat: ChatClient, clip: Clip, seed: int) -> list[QAPair] | ServiceError:
        messages = [Message(role="user", content=self.prompt(clip))]
        drawn = int(content_hash(str(seed), clip.id)[:7], 16)
        fault = ""
        for attempt in range(_ATTEMPTS):
            try:
                reply = await chat.ask(messages, schema=Written, seed=drawn + attempt, attempt=attempt)
            except ServiceError as error:
                return error
            if reply.refusal is not None:
                fault = f"it refused: {reply.refusal}"
                continue
            try:
                written = read_json(reply.text, Written)
            except ValueError as error:
                fault = f"{error}" + (" (cut at the token limit)" if reply.finish == "length" else "")
                continue
            return [self._pair(one, clip, reply.text) for one in written.pairs if one.kind in self.kinds]
        return ServiceError(
            f"model {self.model!r} at {self.endpoint} wrote nothing usable about clip {clip.id} in {_ATTEMPTS} attempts: {fault}; "
            "try another model, or generator: grammar"
        )

    def _pair(self, written: WrittenPair, clip: Clip, raw: str) -> QAPair:
        attribute = _ATTRIBUTES.get(written.kind)
        label = _known_label(written.label, attribute)
        return QAPair(
            clip_id=clip.id,
            recording_id=clip.recording_id,
            split=clip.split,
            source=self.strategy,
            kind=written.kind,
            question=written.question,
            answer=written.answer,
            label_attribute=attribute if label else None,
            label=label,
            evidence=render(clip),
            generator=f"{self.name}@{self.version}",
            prompt_digest=prompt_digest(),
            raw=raw,
        )


def _known_label(said: str | None, attribute: str | None) -> str | None:
    """The class that the model's label names; None where it names none or several."""
    if said is None or attribute is None:
        return None
    if said in LABEL_WORDS[attribute]:
        return said
    found = labels_in(said, attribute)
    return next(iter(found)) if len(found) == 1 else None
