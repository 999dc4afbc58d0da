"""The generator that needs no LLM: it asks what can be asked (`askable`) in the wordings of `frames`.

    >>> GrammarGenerator(strategy="cpqa", frames="train").write(clip, seed=0)  # doctest: +SKIP

Strategies, after the parts of the training mix of 2508.07273:

    asr        write down what is said
    pqa        template questions for emotion and gender with short answers, one for each attribute
    pqa_star   the same in many wordings, and content; no question needs a context
    cpqa       all of that, and emotion and gender in context; answers say how strong an emotion is where arousal is known
    benchmark  the kinds of cpqa, with plain answers as references; its default wordings are the test ones
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from undertone.errors import ConfigError
from undertone.generate import askable
from undertone.generate.askable import Draft
from undertone.generate.evidence import render
from undertone.generate.frames import COUNTS, EMOTION_ADJECTIVES, FORMS, GENDERS, FrameSet, canonical, coloured, digest
from undertone.generate.protocol import Generator
from undertone.records import Clip, Kind, QAPair

Strategy = Literal["asr", "pqa", "pqa_star", "cpqa", "benchmark"]

STRATEGY_KINDS: Mapping[Strategy, tuple[Kind, ...]] = MappingProxyType(
    {
        "asr": ("ASR",),
        "pqa": ("DE", "DG"),
        "pqa_star": ("C", "DE", "DG"),
        "cpqa": ("C", "DE", "DG", "CE", "CG"),
        "benchmark": ("C", "DE", "DG", "CE", "CG"),
    }
)
"""The kinds that each strategy asks unless told otherwise."""

_VARIED = frozenset({"pqa_star", "cpqa"})
"""Strategies whose answers vary, and which ask a direct question in several wordings."""


class GrammarGenerator(Generator):
    """Writes pairs from a table of wordings; the same clip, seed and configuration give the same pairs."""

    name = "grammar"
    version = "1"

    def __init__(
        self,
        *,
        strategy: Strategy,
        frames: FrameSet | None = None,
        kinds: Sequence[Kind] | None = None,
        pairs_per_kind: int = 2,
        require_contrast: bool = True,
    ) -> None:
        """Configure the generator.

        Args:
            strategy: See the module.
            frames: Which wordings; None for the test wordings in a benchmark and the train wordings elsewhere.
            kinds: Kinds to ask, in this order; None for those of the strategy. A kind that a clip has no answer for is left out.
            pairs_per_kind: At most so many pairs for each kind and clip. Direct questions and transcription are asked once, except in
                pqa_star and cpqa, which ask a direct question in several wordings.
            require_contrast: Ask CE and CG only about clips whose segments differ in emotion or gender.

        Raises:
            ConfigError: An unknown strategy or kind, or no pairs wanted.
        """
        if strategy not in STRATEGY_KINDS:
            raise ConfigError(f"strategy: got {strategy!r}, expected one of {', '.join(STRATEGY_KINDS)}")
        unknown = [one for one in kinds or () if one not in askable.KINDS]
        if unknown:
            raise ConfigError(f"kinds: the grammar cannot ask {', '.join(unknown)}; expected some of {', '.join(askable.KINDS)}")
        if pairs_per_kind < 1:
            raise ConfigError(f"pairs_per_kind: got {pairs_per_kind}, expected at least 1")
        self.strategy: Strategy = strategy
        self.frames: FrameSet = frames or ("test" if strategy == "benchmark" else "train")
        self.kinds = tuple(kinds) if kinds is not None else STRATEGY_KINDS[strategy]
        self.pairs_per_kind = pairs_per_kind
        self.require_contrast = require_contrast

    def write(self, clip: Clip, *, seed: int) -> list[QAPair]:
        """The pairs of one clip, kind by kind; no question occurs twice."""
        evidence = render(clip)
        return [pair for kind in self.kinds for pair in self._of_kind(kind, clip, seed, evidence)]

    def _of_kind(self, kind: Kind, clip: Clip, seed: int, evidence: str) -> list[QAPair]:
        # A generator of its own for each kind: what one kind draws does not move the others.
        rng = random.Random(f"{seed}|{self.strategy}|{clip.id}|{kind}")
        drafts = askable.drafts(kind, clip, rng, require_contrast=self.require_contrast)
        if kind in ("DE", "DG", "DS") and self.strategy in _VARIED:
            drafts = drafts * self.pairs_per_kind
        made = []
        asked: set[str] = set()
        for draft in drafts[: self.pairs_per_kind]:
            question = self._question(draft, rng, asked)
            if question is None:
                continue
            asked.add(question)
            made.append(
                QAPair(
                    clip_id=clip.id,
                    recording_id=clip.recording_id,
                    split=clip.split,
                    source=self.strategy,
                    kind=kind,
                    question=question,
                    answer=self._answer(draft, rng),
                    label_attribute=draft.attribute,
                    label=draft.label,
                    evidence=evidence,
                    generator=f"{self.name}@{self.version}",
                    prompt_digest=digest(),
                )
            )
        return made

    def _question(self, draft: Draft, rng: random.Random, asked: set[str]) -> str | None:
        form = FORMS[draft.form]
        if self.frames == "test":
            wordings = form.test
        else:
            wordings = form.template if self.strategy == "pqa" and form.template else form.train
        slots = {**draft.slots, "Stem": _capital(draft.slots.get("stem", ""))}
        fresh = [text for one in wordings if (text := one.format(**slots)) not in asked]
        return rng.choice(fresh) if fresh else None

    def _answer(self, draft: Draft, rng: random.Random) -> str:
        form = FORMS[draft.form]
        varied = self.strategy in _VARIED
        slots = {**draft.slots, "Answer": _capital(draft.slots.get("answer", ""))}
        if draft.attribute == "emotion" and draft.label:
            adjective = rng.choice(EMOTION_ADJECTIVES[draft.label]) if varied else canonical(draft.label)
            slots["emotion"] = coloured(adjective, draft.label, draft.arousal if self.strategy == "cpqa" else None)
        elif draft.attribute == "gender" and draft.label:
            slots["person"], slots["adjective"] = GENDERS[draft.label]
        elif draft.attribute == "speakers" and draft.label:
            slots["count"] = COUNTS[draft.label]
        return (rng.choice(form.answers) if varied else form.answers[0]).format(**slots)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
