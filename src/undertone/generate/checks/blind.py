"""Checks of whether a question needs the voice: who knows the words only, or the injected labels only, tries to answer it.

What is answered right without hearing teaches nothing about hearing. Both checks have a reader without an LLM, which abstains wherever it is
not told one class plainly, and one with an LLM, which may abstain as well ("cannot tell"). Dropping what a reader gets right has a price: where
the words name an emotion, those pairs stay in which the voice says something else. So the reader of words without an LLM claims a gender only
where speakers name their own: a "he" that is spoken of is no evidence, and pairs dropped by chance would teach the opposite of the chance.

The metadata leak is the confound of 2508.07273 (its LLM-written test questions about emotion were answered by the injected emotion labels).
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from undertone.chat import ChatClient, Endpoint, Message, as_data, read_json
from undertone.errors import ServiceError
from undertone.generate.askable import DOMINANT_SHARE
from undertone.generate.checks.agreement import anchored
from undertone.lexicon import ATTRIBUTE_OF_KIND, LABEL_WORDS, labels_in, plain
from undertone.metadata import MetadataConfig, items, render
from undertone.paths import Location, StoreError
from undertone.records import Clip, QAPair, Segment, content_hash
from undertone.refusals import is_refusal

CANNOT_TELL = "cannot tell"

_SELF = re.compile(r"\b(?:(?:i am|i'm) (?:\w+ )?(?:a|an|your|the)|(?:as|being) an?) (\w+(?: \w+)?)\b(?!')")


class Blind(BaseModel):
    """Who answers without hearing.

    Attributes:
        llm: An endpoint; None for the reader that needs none.
        times: How often it is asked, with a seed of its own each time; right is what it gets right more than half of the times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: ClassVar[str]

    llm: Endpoint | None = None
    times: int = Field(default=1, ge=1)

    @property
    def digest(self) -> str | None:
        """Of the LLM's prompt, where there is one."""
        return None if self.llm is None else content_hash(_template(self.prompt))


class WordsOnly(Blind):
    """Reads what is said: for a question in context the segment that it leads to, where that can be told, else the whole clip."""

    prompt: ClassVar[str] = "words_only.jinja"

    def asked(self, pair: QAPair, clip: Clip) -> Asked | None:
        """What is to be answered; None for a pair that needs no voice, has no one right class, or a clip without words."""
        right = right_class(pair)
        if right is None or not clip.transcript.strip():
            return None
        segment = anchored(pair.question, clip) if pair.kind[0] == "C" else None
        shown = clip.transcript if segment is None else segment.transcript or ""
        return Asked(pair, *right, shown=shown, part=segment is not None, guess=words_guess(shown, right[0]))


class MetadataLeak(Blind):
    """Reads the label string that the explicit method shows (`metadata.render`), and nothing else.

    Attributes:
        format: Of the string; None for that of the study's model, which `CheckStage.showing` hands in, else the default one.
    """

    prompt: ClassVar[str] = "metadata_leak.jinja"

    format: MetadataConfig | None = None

    def asked(self, pair: QAPair, clip: Clip, predicted: Sequence[Segment]) -> Asked | None:
        """What is to be answered; None where the string says nothing of what is asked for."""
        config, right = self.format or MetadataConfig(), right_class(pair)
        if right is None or right[0] not in config.attributes:
            return None
        shown = render(predicted, start_ms=clip.start_ms, end_ms=clip.end_ms, config=config)
        if shown is None:
            return None
        held: dict[str, int] = {}
        for one in items(predicted, right[0], start_ms=clip.start_ms, end_ms=clip.end_ms, config=config):
            held[one.label] = held.get(one.label, 0) + one.end_ms - one.start_ms
        return Asked(pair, *right, shown=shown, part=False, guess=string_guess(held, direct=pair.kind[0] == "D"))


@dataclass(frozen=True)
class Asked:
    """A question to who cannot hear.

    Attributes:
        pair: The pair.
        attribute, right: What is asked for, and the right class of it.
        shown: All that is known.
        part: Whether that is a part of the clip.
        guess: What the reader without an LLM answers; None where it abstains.
    """

    pair: QAPair
    attribute: str
    right: str
    shown: str
    part: bool
    guess: str | None

    def prompted(self, template: str) -> str:
        """The prompt; data stands between lines that carry a hash of it, which no data can foresee and so none can forge."""
        turns = [f"{one.question}\n{one.answer}" for one in self.pair.history]
        given = {"shown": self.shown, "question": "\n".join([*turns, self.pair.question])}
        values = {name: as_data(text, lines=True) for name, text in given.items()}
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
        fence = f"=== {content_hash(*values.values())} ==="
        classes = list(LABEL_WORDS[self.attribute])
        return environment.from_string(_template(template)).render(fence=fence, classes=classes, part=self.part, **values)

    def read(self, reply: str) -> str | None:
        """The class that a reply gives; None for one that cannot tell.

        Raises:
            ValueError: It gives neither.
        """
        try:
            said = plain(read_json(reply, Guess, alone=True).answer).casefold().strip(" .\"'")
        except ValueError:
            if is_refusal(reply):
                return None
            raise
        if said in LABEL_WORDS[self.attribute]:
            return said
        named = labels_in(said, self.attribute)
        if len(named) == 1 and CANNOT_TELL not in said:
            return next(iter(named))
        if CANNOT_TELL in said or len(named) > 1 or is_refusal(said):
            return None
        raise ValueError(f"{said[:80]!r} is neither one of {', '.join(LABEL_WORDS[self.attribute])} nor {CANNOT_TELL!r}")


class Guess(BaseModel):
    """The reply that is asked for."""

    model_config = ConfigDict(extra="ignore")

    answer: str


def right_class(pair: QAPair) -> tuple[str, str] | None:
    """What a question that needs the voice asks for, and its right class; None for other kinds and answers of no or several classes."""
    attribute = ATTRIBUTE_OF_KIND.get(pair.kind)
    if attribute is None:
        return None
    if pair.label is not None:
        return attribute, pair.label
    named = labels_in(plain(pair.answer), attribute)
    return (attribute, next(iter(named))) if len(named) == 1 else None


def words_guess(words: str, attribute: str) -> str | None:
    """The one emotion that words name, or the gender that speakers say they have; None else, as for numbers of speakers."""
    text = plain(words).casefold()
    if attribute == "emotion":
        named = labels_in(text, attribute)
    elif attribute == "gender":
        named = frozenset(label for one in _SELF.finditer(text) for label in labels_in(one.group(1), attribute))
    else:
        named = frozenset()
    return next(iter(named)) if len(named) == 1 else None


def string_guess(held: dict[str, int], *, direct: bool) -> str | None:
    """The class that a label string gives: for the whole clip the one that fills most of it, in context only one that stands there alone.

    Args:
        held: Milliseconds of each class in the string.
        direct: Whether the question is about the whole clip.
    """
    if not held:
        return None
    most = max(held, key=lambda name: held[name])
    return most if held[most] >= (DOMINANT_SHARE if direct else 1.0) * sum(held.values()) else None


def answered(asked: Sequence[Asked], by: Blind, *, seed: int, cache_dir: Location | None) -> list[bool | ServiceError]:
    """Whether each question is answered right without hearing, or why that could not be found out; not to be called in an event loop."""
    if by.llm is None:
        return [one.guess == one.right for one in asked]
    return asyncio.run(_all(asked, by, by.llm, seed, cache_dir)) if asked else []


async def _all(asked: Sequence[Asked], by: Blind, at: Endpoint, seed: int, cache_dir: Location | None) -> list[bool | ServiceError]:
    async with ChatClient(at, cache_dir=cache_dir) as chat:
        return list(await asyncio.gather(*(_often(chat, one, by, seed) for one in asked)))


async def _often(chat: ChatClient, asked: Asked, by: Blind, seed: int) -> bool | ServiceError:
    found = await asyncio.gather(*(_once(chat, asked, by.prompt, seed, time) for time in range(by.times)))
    error = next((one for one in found if isinstance(one, ServiceError)), None)
    return error or 2 * sum(one == asked.right for one in found) > by.times


async def _once(chat: ChatClient, asked: Asked, template: str, seed: int, time: int) -> str | ServiceError | None:
    prompt = asked.prompted(template)
    drawn = int(content_hash(str(seed), str(time), prompt)[:7], 16)
    fault = ""
    for attempt in range(1 + chat.at.rereads):
        try:
            reply = await chat.ask([Message(role="user", content=prompt)], schema=Guess, seed=drawn + attempt, attempt=attempt)
        except StoreError:
            raise  # the cache's store, which every other pair would meet as well
        except ServiceError as error:
            return error
        if reply.refusal is not None:
            fault = f"it refused: {reply.refusal}"
            continue
        try:
            return asked.read(reply.text)
        except ValueError as error:
            fault = str(error)
    return ServiceError(
        f"model {chat.at.model!r} at {chat.at.endpoint} could not be read about pair {asked.pair.id} in {1 + chat.at.rereads} attempts: "
        f"{fault}; try another model, or no llm"
    )


@functools.cache
def _template(name: str) -> str:
    return resources.files("undertone.generate.checks").joinpath(f"prompts/{name}").read_text(encoding="utf-8")
