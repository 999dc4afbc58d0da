"""The two stages of generation: clips become candidate pairs, candidate pairs are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from undertone.errors import ServiceError
from undertone.generate.checks import ALL_CHECKS, CHECKS, DUPLICATE, same_question
from undertone.generate.frames import FrameSet, digest
from undertone.generate.grammar import GrammarGenerator, Strategy
from undertone.generate.llm import LLMGenerator, prompt_digest
from undertone.generate.protocol import Generator
from undertone.records import Clip, Kind, QAPair, Record, Split, content_hash
from undertone.stages import Context, Dropped, Failed, Kept, Outcome, Stage


class GenerateStage(Stage[Clip, QAPair]):
    """Writes candidate pairs about clips; a clip about which nothing can be asked is dropped with `nothing_to_ask`.

    Attributes:
        generator: "grammar" needs no LLM; "llm" asks an OpenAI-compatible endpoint.
        strategy: What is written (see `grammar`); it becomes the pairs' `source`.
        frames: Wordings of the grammar; None for test wordings in a benchmark and train wordings elsewhere.
        kinds: Kinds of question; None for those of the strategy.
        pairs_per_kind: At most so many for each clip and kind.
        require_contrast: Ask in context only where segments differ (grammar).
        endpoint: Base URL of the LLM endpoint, such as http://127.0.0.1:8000/v1.
        model: Name of the model at the endpoint.
        cache_dir: Where LLM replies are kept, so that they are paid for once; None for nowhere. No part of the identity.
        concurrency: How many requests at a time, in each worker. No part of the identity.
        splits: Clips of other splits are dropped with `other_split`.
        share: Share of the clips that are asked about, drawn by a hash of seed and clip; the others are dropped with `not_drawn`.
    """

    name: ClassVar[str] = "generate"
    reads: ClassVar[type[Record]] = Clip
    writes: ClassVar[type[Record]] = QAPair

    generator: Literal["grammar", "llm"] = "grammar"
    strategy: Strategy
    frames: FrameSet | None = None
    kinds: tuple[Kind, ...] | None = None
    pairs_per_kind: int = Field(default=2, ge=1)
    require_contrast: bool = True
    endpoint: str | None = None
    model: str | None = None
    cache_dir: Path | None = None
    concurrency: int = Field(default=8, ge=1)
    splits: tuple[Split | None, ...] = ("train", None)
    share: float = Field(default=1.0, gt=0, le=1)

    _generator: Generator = PrivateAttr()
    _seed: int = PrivateAttr()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in ("endpoint", "model") if self.generator == "llm" and getattr(self, name) is None]
        if missing:
            raise ValueError(f"generator 'llm' needs {' and '.join(missing)}, for instance endpoint: http://127.0.0.1:8000/v1")
        return self

    def identity(self) -> dict[str, Any]:
        """The configuration and the digest of the wordings, without what changes no pair."""
        grammar = self.generator == "grammar"
        made_by = {
            "prompt_digest": digest() if grammar else prompt_digest(),
            "generator_version": (GrammarGenerator if grammar else LLMGenerator).version,
        }
        return {**self.model_dump(mode="json", exclude={"cache_dir", "concurrency"}), **made_by}

    def open(self, context: Context) -> None:
        """Make the generator."""
        self._seed = context.seed
        self._generator = self._made()

    def _made(self) -> Generator:
        if self.generator == "llm" and self.endpoint and self.model:
            return LLMGenerator(
                endpoint=self.endpoint,
                model=self.model,
                strategy=self.strategy,
                kinds=self.kinds,
                pairs_per_kind=self.pairs_per_kind,
                cache_dir=self.cache_dir,
                concurrency=self.concurrency,
            )
        return GrammarGenerator(
            strategy=self.strategy,
            frames=self.frames,
            kinds=self.kinds,
            pairs_per_kind=self.pairs_per_kind,
            require_contrast=self.require_contrast,
        )

    def process(self, rows: Sequence[Clip]) -> Sequence[Outcome[QAPair]]:
        """One outcome for each clip: its pairs, or why there are none."""
        asked = [row for row in rows if self._passed_over(row) is None]
        made = dict(zip((row.id for row in asked), self._generator.write_many(asked, seed=self._seed), strict=True))
        return [self._passed_over(row) or _outcome(made[row.id]) for row in rows]

    def _passed_over(self, clip: Clip) -> Dropped | None:
        if clip.split not in self.splits:
            return Dropped("other_split", clip.split)
        drawn = int(content_hash("share", str(self._seed), clip.id), 16) / 16**16
        return None if drawn < self.share else Dropped("not_drawn")


def _outcome(made: list[QAPair] | ServiceError) -> Outcome[QAPair]:
    if isinstance(made, ServiceError):
        return Failed(f"ServiceError: {made}")
    return Kept(tuple(made)) if made else Dropped("nothing_to_ask")


class MergeStage(Stage[QAPair, QAPair]):
    """Several tables of pairs as one; a pair that was there before is dropped."""

    name: ClassVar[str] = "merge"
    scope: ClassVar[Literal["row", "part", "table"]] = "table"
    reads: ClassVar[type[Record]] = QAPair
    writes: ClassVar[type[Record]] = QAPair

    def process(self, rows: Sequence[QAPair]) -> Sequence[Outcome[QAPair]]:
        """Every pair as it is, once."""
        first = {row.id: index for index, row in reversed(list(enumerate(rows)))}
        return [Kept((row,)) if first[row.id] == index else Dropped("duplicate") for index, row in enumerate(rows)]


class CheckStage(Stage[QAPair, QAPair]):
    """Drops candidate pairs with the reason code of the first check that they do not pass; the others carry the names of all.

    Attributes:
        enabled: Names of the checks to run.
    """

    name: ClassVar[str] = "checks"
    reads: ClassVar[type[Record]] = QAPair
    writes: ClassVar[type[Record]] = QAPair
    scope: ClassVar[Literal["row", "part", "table"]] = "part"
    sides: ClassVar[Mapping[str, type[Record]]] = {"clips": Clip}

    enabled: tuple[str, ...] = ALL_CHECKS

    _clips: dict[str, Clip] = PrivateAttr()

    @field_validator("enabled")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [one for one in value if one not in ALL_CHECKS]
        if unknown:
            raise ValueError(f"no check {', '.join(map(repr, unknown))}; expected some of {', '.join(ALL_CHECKS)}")
        return value

    def open(self, context: Context) -> None:
        """Read the clips."""
        self._clips = {clip.id: clip for clip in context.sides["clips"].rows()}

    def process(self, rows: Sequence[QAPair]) -> Sequence[Outcome[QAPair]]:
        """One outcome for each pair; of two that ask the same about a clip the first that passes the other checks is kept."""
        kept: set[tuple[str, str, str]] = set()
        outcomes: list[Outcome[QAPair]] = []
        for pair in rows:
            outcome = self._checked(pair, kept)
            if isinstance(outcome, Kept):
                kept.add(same_question(pair))
            outcomes.append(outcome)
        return outcomes

    def _checked(self, pair: QAPair, kept: set[tuple[str, str, str]]) -> Outcome[QAPair]:
        clip = self._clips.get(pair.clip_id)
        if clip is None:
            return Failed(
                f"pair {pair.id} is about clip {pair.clip_id}, which the clips table does not have; give its own clips table"
            )
        for name in self.enabled:
            if name == DUPLICATE:
                reason = DUPLICATE if same_question(pair) in kept else None
            else:
                reason = CHECKS[name](pair, clip)
            if reason is not None:
                return Dropped(reason, pair.question)
        return Kept((pair.model_copy(update={"checks": self.enabled}),))
