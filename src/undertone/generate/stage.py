"""Generation as a stage: clips become candidate pairs, which `checks.CheckStage` then looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import Field, PrivateAttr, model_validator

from undertone import settings
from undertone.chat import CacheDir, Endpoint
from undertone.errors import ConfigError, ServiceError
from undertone.generate.frames import FrameSet, digest
from undertone.generate.grammar import STRATEGY_KINDS, GrammarGenerator, GrammarStrategy
from undertone.generate.llm import LLMGenerator
from undertone.generate.offline import OfflineGenerator
from undertone.generate.protocol import Generator, Material, expected_one_of
from undertone.generate.strategies import STRATEGIES
from undertone.generate.strategies.dialogue import Dialogue
from undertone.generate.strategies.replying import Replying
from undertone.records import Clip, Kind, QAPair, Record, Split, content_hash
from undertone.stages import Context, Dropped, Failed, Kept, Outcome, Stage


class GenerateStage(Stage[Clip, QAPair]):
    """Writes candidate pairs about clips; a clip about which nothing can be asked is dropped with `nothing_to_ask`.

    Attributes:
        strategy: What is written: one of `strategies.STRATEGIES` by an LLM (those that are `offline` by the grammar too), one of
            `grammar.STRATEGY_KINDS` without one.
        source: Name of the pairs' source in the training mix; None for the strategy's.
        about: Single utterances, condensed clips or their segments; None for what the strategy asks about.
        llm: The endpoint that writes; None for the grammar.
        settings: Of the strategy, as its class documents them; those of `grammar.STRATEGY_KINDS` have none.
        kinds: Kinds of question; None for those of the strategy.
        pairs_per_kind: At most so many for each clip and kind.
        frames: Wordings of the grammar, and of the questions that ask for a reply; None for test wordings in strategy "benchmark" and train
            wordings elsewhere.
        require_contrast: Ask in context only where segments differ (grammar).
        cache_dir: Where LLM replies are kept, so that they are paid for once; None for nowhere. No part of the identity.
        splits: Clips of other splits are dropped with `other_split`.
        share: Share of the clips that are asked about, drawn by a hash of seed and clip; the others are dropped with `not_drawn`.
    """

    name: ClassVar[str] = "generate"
    reads: ClassVar[type[Record]] = Clip
    writes: ClassVar[type[Record]] = QAPair

    strategy: str
    source: str | None = None
    about: Material | None = None
    llm: Endpoint | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    kinds: tuple[Kind, ...] | None = None
    pairs_per_kind: int = Field(default=2, ge=1)
    frames: FrameSet | None = None
    require_contrast: bool = True
    cache_dir: CacheDir | None = None
    splits: tuple[Split | None, ...] = ("train", None)
    share: float = Field(default=1.0, gt=0, le=1)

    _generator: Generator = PrivateAttr()
    _seed: int = PrivateAttr()

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        known = {*STRATEGIES, *STRATEGY_KINDS}
        if self.strategy not in known:
            raise ValueError(f"strategy: got {self.strategy!r}, {expected_one_of(self.strategy, known)}")
        if self.llm is not None and self.strategy not in STRATEGIES:
            raise ValueError(
                f"strategy {self.strategy!r} is written without an LLM; expected no llm, or one of {', '.join(STRATEGIES)}"
            )
        if self.llm is not None or self.strategy not in STRATEGIES:  # else a study's Generate may still give it its endpoint
            self.made()
        return self

    @property
    def material(self) -> Material:
        """What is asked about."""
        with_llm = STRATEGIES[self.strategy].about if self.strategy in STRATEGIES else "clips"
        return self.about or ("utterances" if self.strategy in ("asr", "pqa") else with_llm)

    @property
    def by_segment(self) -> bool:
        """Whether its pairs are about single segments, which must then be clips of their own."""
        return self.material == "segments" or self.strategy == Dialogue.name

    def identity(self) -> dict[str, Any]:
        """The configuration and the digest of the wordings, without what changes no pair."""
        made = self.made()
        if isinstance(made, LLMGenerator | OfflineGenerator):
            written_by = made.digest if isinstance(made, OfflineGenerator) else made.strategy.digest
            made_by = {"prompt_digest": written_by, "generator_version": f"{made.version}/{made.strategy.version}"}
        else:
            made_by = {"prompt_digest": digest(), "generator_version": made.version}
        config = self.model_dump(mode="json", exclude={"cache_dir": True, "llm": set(Endpoint.unlike)})
        return {**config, **made_by}

    def open(self, context: Context) -> None:
        """Make the generator."""
        self._seed = context.seed
        self._generator = self.made()

    def made(self) -> GrammarGenerator | OfflineGenerator | LLMGenerator:
        """The generator, which has done no work yet.

        Raises:
            ConfigError: A setting is wrong.
        """
        source = f"source {self.source}: " if self.source else ""
        by_grammar = self.llm is None and self.strategy in STRATEGY_KINDS
        if by_grammar and self.settings:
            mend = "give llm: {endpoint: http://127.0.0.1:8000/v1, model: NAME}, or take them out"
            raise ConfigError(
                f"{source}settings ({', '.join(self.settings)}) are an LLM's, and the grammar writes strategy {self.strategy!r} here; "
                f"{mend if self.strategy in STRATEGIES else 'take them out'}"
            )
        if by_grammar:
            return GrammarGenerator(
                strategy=cast(GrammarStrategy, self.strategy),
                source=self.source,
                frames=self.frames,
                kinds=self.kinds,
                pairs_per_kind=self.pairs_per_kind,
                require_contrast=self.require_contrast,
            )
        kind = STRATEGIES[self.strategy]
        if "frames" in self.settings:
            raise ConfigError(f"{source}settings.frames: whose wordings are used stands beside settings; give frames there")
        common = {
            "kinds": self.kinds,
            "pairs_per_kind": self.pairs_per_kind,
            "require_contrast": self.require_contrast,
            "frames": self.frames,
        }
        given = {name: value for name, value in common.items() if name in kind.model_fields and value is not None}
        strategy = settings.validated(kind, {**given, **self.settings}, where=f"{source}strategy {self.strategy}")
        if self.llm is None:
            try:
                return OfflineGenerator(strategy, source=self.source)
            except ConfigError as error:
                raise ConfigError(f"{source}{error}") from None
        if isinstance(strategy, Replying) and strategy.wrong:
            raise ConfigError(f"{source}settings.wrong={strategy.wrong} is of the grammar's replies; expected no llm, or no wrong")
        return LLMGenerator(strategy, at=self.llm, source=self.source, cache_dir=self.cache_dir)

    def process(self, rows: Sequence[Clip]) -> Sequence[Outcome[QAPair]]:
        """One outcome for each clip: its pairs, or why there are none."""
        asked = [row for row in rows if self.passed_over(row) is None]
        made = dict(zip((row.id for row in asked), self._generator.write_many(asked, seed=self._seed), strict=True))
        return [self.passed_over(row) or _outcome(made[row.id]) for row in rows]

    def passed_over(self, clip: Clip) -> Dropped | None:
        """Why a clip is not asked about; None for one that is. To be called once opened."""
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
