"""The generator that carries out an LLM's strategy without one: the strategy writes its pairs from a table of wordings (`Strategy.written`)."""

from __future__ import annotations

from undertone.errors import ConfigError
from undertone.generate.frames import replies
from undertone.generate.protocol import Generator, Strategy, prompt_text
from undertone.records import Clip, QAPair, content_hash


class OfflineGenerator(Generator):
    """Writes what a strategy has to say of a clip by itself; the same clip, seed and settings give the same pairs."""

    name = "reply-grammar"
    version = "1"

    def __init__(self, strategy: Strategy, *, source: str | None = None) -> None:
        """Configure the generator.

        Args:
            strategy: Which is `offline`.
            source: Of the pairs; None for the strategy's name.

        Raises:
            ConfigError: The strategy, or a setting of it, needs an LLM.
        """
        fault = f"strategy {strategy.name!r}" if not strategy.offline else strategy.needs_llm
        if fault is not None:
            raise ConfigError(f"{fault} needs an LLM: give llm: {{endpoint: http://127.0.0.1:8000/v1, model: NAME}}")
        self.strategy = strategy
        self.source = source or strategy.name

    @property
    def digest(self) -> str:
        """Changes with each wording that it writes with; not with the prompt, which nobody reads."""
        pools = (prompt_text(name) for name in self.strategy.templates if name.endswith("_questions.jinja"))
        return content_hash(replies.digest(), *pools)

    def write(self, clip: Clip, *, seed: int) -> list[QAPair]:
        """The pairs of one clip."""
        made = self.strategy.written(clip, seed=seed)
        evidence = self.strategy.evidence(clip) if made else ""
        by = f"{self.name}@{self.version}"
        return [one.pair(clip, source=self.source, evidence=evidence, generator=by, prompt_digest=self.digest) for one in made]
