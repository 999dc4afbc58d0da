"""What a generator is: a clip in, candidate question-answer pairs out; and what a strategy is that an LLM carries out."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, ClassVar, Literal, Protocol

import jinja2
from pydantic import BaseModel, ConfigDict

from undertone.chat import json_schema
from undertone.errors import ServiceError
from undertone.records import Clip, Kind, QAPair, Turn, content_hash

Material = Literal["utterances", "clips", "segments"]
"""What is asked about: single human-labelled utterances, as conventional corpora have them; condensed clips; or their segments, each as a clip
of its own with the labeller's labels."""


class Generator(Protocol):
    """Writes question-answer pairs about a clip; implementations subclass this and implement `write`.

    The pairs are a function of the clip's content, the seed and the generator's own configuration. They do not depend on which clips
    came before: whatever is random is drawn from `seed` together with `clip.id`.

    Attributes:
        name: Of the generator; `name@version` stands in `QAPair.generator`.
        version: Changes whenever the same clip and seed would give other pairs.
    """

    name: str
    version: str

    def write(self, clip: Clip, *, seed: int) -> list[QAPair]:
        """The candidate pairs of one clip, unchecked; empty where nothing can be asked.

        Raises:
            ServiceError: The generator needs an endpoint that did not answer or whose answer could not be read.
        """
        ...

    def write_many(self, clips: Sequence[Clip], *, seed: int) -> list[list[QAPair] | ServiceError]:
        """`write` for several clips, one result for each and in their order; for generators that can work on several at once."""
        made: list[list[QAPair] | ServiceError] = []
        for clip in clips:
            try:
                made.append(self.write(clip, seed=seed))
            except ServiceError as error:
                made.append(error)
        return made


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing that an LLM is asked about a clip.

    Attributes:
        prompt: All of it: one user message, because not every chat template has a system role.
        schema: Of the reply; None for free text.
        about: What the strategy needs to know to read the reply, such as the question that was put.
    """

    prompt: str
    schema: type[BaseModel] | None = None
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One pair as a strategy reads it out of a reply; the rest of a `QAPair` is the same for all strategies.

    `clip_id` is the utterance that the pair is about, where that is a segment of the clip and not all of it.
    """

    kind: Kind
    question: str
    answer: str
    label_attribute: str | None = None
    label: str | None = None
    history: tuple[Turn, ...] = ()
    clip_id: str | None = None

    def pair(
        self,
        clip: Clip,
        *,
        source: str,
        evidence: str,
        generator: str,
        prompt_digest: str,
        model: str | None = None,
        raw: str | None = None,
    ) -> QAPair:
        """The pair about a clip; the rest is who wrote it and how (`QAPair`)."""
        return QAPair(
            clip_id=self.clip_id or clip.id,
            recording_id=clip.recording_id,
            split=clip.split,
            source=source,
            kind=self.kind,
            question=self.question,
            answer=self.answer,
            label_attribute=self.label_attribute,
            label=self.label,
            history=self.history,
            evidence=evidence,
            generator=generator,
            model=model,
            prompt_digest=prompt_digest,
            raw=raw,
        )


class Strategy(BaseModel):
    """What an LLM is asked about a clip, and how its replies are read; its fields are its settings in a study.

    Whoever writes one implements `requests` and `read`; asking, asking again, keeping the raw replies and making pairs of candidates is
    `llm.LLMGenerator`'s. One that can do without an LLM is `offline` and implements `written` too.

    Class attributes:
        name: In a study.
        version: Changes whenever the same replies would give other pairs.
        about: What it asks about unless the study says otherwise.
        templates: Files in `prompts/` that its prompts are made of, the prompt itself first; also those that it includes or draws lines from.
        replies: Schemas of the replies that it asks for; none for free text.
        offline: Whether the grammar writes it where no LLM is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    about: ClassVar[Material] = "clips"
    templates: ClassVar[tuple[str, ...]]
    replies: ClassVar[tuple[type[BaseModel], ...]] = ()
    offline: ClassVar[bool] = False

    def evidence(self, clip: Clip) -> str:
        """The clip as the LLM reads it."""
        raise NotImplementedError(f"strategy {self.name} does not implement evidence")

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """What is asked about a clip, in a fixed order; empty where nothing can be asked. Random choices are drawn from seed and clip.id."""
        raise NotImplementedError(f"strategy {self.name} does not implement requests")

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """The pairs that a reply holds; empty for one that is usable and holds none.

        Args:
            clip: As it is; `requests` saw it with its texts made harmless for a prompt (`llm.quoted`).
            request: That was put.
            reply: What the model said.

        Raises:
            ValueError: It cannot be read, and is worth asking for again; says why.
        """
        raise NotImplementedError(f"strategy {self.name} does not implement read")

    def written(self, clip: Clip, *, seed: int) -> list[Candidate]:
        """The pairs that the grammar writes about a clip; empty where it has nothing to say. Random choices are drawn from seed and clip.id."""
        raise NotImplementedError(f"strategy {self.name} does not implement written")

    @property
    def needs_llm(self) -> str | None:
        """The setting that the grammar cannot carry out, for an error; None where it can carry out all of them."""
        return None

    @property
    def digest(self) -> str:
        """Changes with each file that a prompt is made of and with the schemas of the replies."""
        return _digest(self.templates, self.replies)

    def rendered(self, clip: Clip, **values: Any) -> str:
        """The prompt; `clip.jinja`, which it includes, shows the clip's evidence between two lines `fence` that it cannot contain."""
        evidence = self.evidence(clip)
        fence = f"=== clip {content_hash(evidence)} ==="
        return _prompts().get_template(self.templates[0]).render(fence=fence, evidence=evidence, **values).strip()


def expected_one_of(given: str, known: Iterable[str]) -> str:
    """What an error says of a name that is none of the known ones, the nearest first.

    >>> expected_one_of("cqpa", ["asr", "cpqa"])
    "did you mean 'cpqa'? expected one of asr, cpqa"
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"expected one of {', '.join(names)}"


@functools.cache
def prompt_text(name: str) -> str:
    """The text of a file in `prompts/`."""
    return resources.files("undertone.generate").joinpath(f"prompts/{name}").read_text(encoding="utf-8")


def prompt_lines(name: str) -> tuple[str, ...]:
    """The lines of a file in `prompts/` that is a pool to draw from."""
    return tuple(line for line in map(str.strip, prompt_text(name).splitlines()) if line)


@functools.cache
def _prompts() -> jinja2.Environment:
    # Kept: it caches the compiled templates, which would else be compiled anew for every clip.
    loader = jinja2.FunctionLoader(prompt_text)
    return jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )


@functools.cache
def _digest(templates: tuple[str, ...], replies: tuple[type[BaseModel], ...]) -> str:
    shapes = [json.dumps(json_schema(one), sort_keys=True) for one in replies]
    return content_hash(*map(prompt_text, templates), *shapes)
