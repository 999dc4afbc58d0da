"""The generator that needs no LLM: it asks what can be asked (`askable`) in the wordings of `frames`.

    >>> GrammarGenerator(strategy="cpqa", frames="train").write(clip, seed=0)  # doctest: +SKIP

Strategies, after the parts of the training mix of 2508.07273:

    asr        write down what is said
    pqa        template questions for emotion, gender and number of speakers with short answers, one for each attribute, in one of at
               least ten paraphrases, some of which list the options
    pqa_star   the same in many wordings, and content; no question needs a context
    cpqa       all of that, and emotion and gender in context; answers say how strong an emotion is where arousal is known
    grammar    all seven kinds in the richest wordings, each thing asked once; also changes between two moments. More than a small decoder
               learns: the shipped studies train on cpqa
    benchmark  the kinds of cpqa, with plain answers as references; its default wordings are the test ones
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from undertone.errors import ConfigError
from undertone.generate import askable
from undertone.generate.askable import Anchor, Draft
from undertone.generate.evidence import render
from undertone.generate.frames import (
    COUNTS,
    EMOTION_ADJECTIVES,
    FORMS,
    GENDERS,
    OPENERS,
    FrameSet,
    canonical,
    coloured,
    digest,
    words,
)
from undertone.generate.protocol import Generator
from undertone.lexicon import content_words
from undertone.records import Clip, Kind, QAPair

GrammarStrategy = Literal["asr", "pqa", "pqa_star", "cpqa", "grammar", "benchmark"]

STRATEGY_KINDS: Mapping[GrammarStrategy, tuple[Kind, ...]] = MappingProxyType(
    {
        "asr": ("ASR",),
        "pqa": ("DE", "DG", "DS"),
        "pqa_star": ("C", "DE", "DG"),
        "cpqa": ("C", "DE", "DG", "CE", "CG"),
        "grammar": ("C", "DE", "DG", "DS", "CE", "CG", "CS"),
        "benchmark": ("C", "DE", "DG", "CE", "CG"),
    }
)
"""The kinds that each strategy asks unless told otherwise."""

_REPEATED = frozenset({"pqa_star", "cpqa"})
"""Strategies that ask a direct question in several wordings, and whose answers vary."""

_COLOURED = frozenset({"cpqa", "grammar"})
"""Strategies whose answers say how strong an emotion is."""


class GrammarGenerator(Generator):
    """Writes pairs from a table of wordings; the same clip, seed and configuration give the same pairs."""

    name = "grammar"
    version = "2"

    def __init__(
        self,
        *,
        strategy: GrammarStrategy,
        source: str | None = None,
        frames: FrameSet | None = None,
        kinds: Sequence[Kind] | None = None,
        pairs_per_kind: int = 2,
        require_contrast: bool = True,
    ) -> None:
        """Configure the generator.

        Args:
            strategy: See the module.
            source: Of the pairs; None for the strategy's name.
            frames: Which wordings; None for the test wordings in a benchmark and the train wordings elsewhere.
            kinds: Kinds to ask, in this order; None for those of the strategy. A kind that a clip has no answer for is left out.
            pairs_per_kind: At most so many pairs for each kind and clip. Direct questions and transcription are asked once, except in
                pqa_star and cpqa, which ask a direct question in several wordings.
            require_contrast: Ask CE, CG and CS only about clips whose segments differ in emotion, gender or speaker.

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
        self.strategy: GrammarStrategy = strategy
        self.source = source or strategy
        self.frames: FrameSet = frames or ("test" if strategy == "benchmark" else "train")
        self.kinds = tuple(kinds) if kinds is not None else STRATEGY_KINDS[strategy]
        self.pairs_per_kind = pairs_per_kind
        self.require_contrast = require_contrast
        self._rich = strategy == "grammar"
        self._varied = self._rich or strategy in _REPEATED

    def write(self, clip: Clip, *, seed: int) -> list[QAPair]:
        """The pairs of one clip, kind by kind; no question occurs twice."""
        evidence = render(clip)
        return [pair for kind in self.kinds for pair in self._of_kind(kind, clip, seed, evidence)]

    def _of_kind(self, kind: Kind, clip: Clip, seed: int, evidence: str) -> list[QAPair]:
        # A generator of its own for each kind: what one kind draws does not move the others.
        rng = random.Random(f"{seed}|{self.strategy}|{clip.id}|{kind}")
        drafts = askable.drafts(kind, clip, rng, require_contrast=self.require_contrast, rich=self._rich)
        if kind in ("DE", "DG", "DS") and self.strategy in _REPEATED:
            drafts = drafts * self.pairs_per_kind
        made = []
        asked: set[str] = set()
        for draft in drafts[: self.pairs_per_kind]:
            question = self._question(draft, rng, asked)
            if question is None:
                continue
            answer = self._answer(draft, rng)
            if draft.outcome is not None and draft.label is None and _holds(question, answer):
                continue
            asked.add(question)
            made.append(
                QAPair(
                    clip_id=clip.id,
                    recording_id=clip.recording_id,
                    split=clip.split,
                    source=self.source,
                    kind=kind,
                    question=question,
                    answer=answer,
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
        wordings = form.train
        if self.frames == "test":
            wordings = form.test
        elif self._rich:
            wordings = form.every_train
        elif self.strategy == "pqa":
            wordings = form.template or form.train
        slots, answer = _slots(draft), draft.slots.get("answer", "")
        fresh = [text for one in wordings if (text := one.format(**slots)) not in asked and not _holds(text, answer)]
        if not fresh:
            return None
        question = rng.choice(fresh)
        if not self._rich or self.frames == "test" or rng.random() >= _OPENED:
            return question
        openers = [one for one in OPENERS if one.split()[0] != question.split()[0] and not _holds(f"{one} {question}", answer)]
        return f"{rng.choice(openers)} {question}"

    def _answer(self, draft: Draft, rng: random.Random) -> str:
        form = FORMS[draft.form]
        slots = {**_slots(draft), **self._heard(draft, rng)}
        slots |= {_capital(name): _capital(text) for name, text in slots.items()}
        answers = form.rich_answers if self._rich and form.rich_answers else form.answers
        if draft.outcome is not None:
            answers = form.outcomes[draft.outcome]
        return (rng.choice(answers) if self._varied else answers[0]).format(**slots)

    def _heard(self, draft: Draft, rng: random.Random) -> dict[str, str]:
        """What fills the slots of an answer alone: what the voice gives away."""
        slots = {}
        if draft.attribute == "emotion" and draft.label:
            arousal = draft.arousal if self.strategy in _COLOURED else None
            slots["emotion"] = self._adjective(draft.label, arousal, rng)
            if self._rich:
                slots["noun"] = words.coloured_noun(draft.label, arousal, rng)
                named = GENDERS.get(draft.gender or "") if rng.random() < _NAMED else None
                slots["who"] = f"the {named[0]}" if named else "the speaker"
        elif draft.attribute == "gender" and draft.label:
            slots["person"], slots["adjective"] = GENDERS[draft.label]
        elif draft.attribute == "speakers" and draft.label:
            number, several = words.NUMBERS[int(draft.label) - 1], draft.label != "1"
            slots["count"] = COUNTS[draft.label]
            slots["people"] = f"{number} people" if several else f"{number} person"
            slots["voices"] = f"{number} voices" if several else f"{number} voice"
        for name, heard in zip(("first", "second"), draft.heard, strict=False):
            # Of two moments that sound the same the strength may still differ.
            arousal = heard.arousal if draft.outcome != "same" else None
            slots[name] = GENDERS[heard.label][0] if heard.label in GENDERS else self._adjective(heard.label, arousal, rng)
        return slots

    def _adjective(self, emotion: str, arousal: float | None, rng: random.Random) -> str:
        if self._rich:
            return coloured(rng.choice(words.RICH_ADJECTIVES[emotion]), emotion, arousal, rng)
        return coloured(rng.choice(EMOTION_ADJECTIVES[emotion]) if self._varied else canonical(emotion), emotion, arousal)


_OPENED = 0.25
"""Share of the questions of strategy "grammar" that begin with one of `OPENERS`."""

_NAMED = 0.5
"""Share of its answers about an emotion that say "the woman" or "the man" where that is known."""


def _slots(draft: Draft) -> dict[str, str]:
    """What fills the slots of question and answer alike."""
    slots = {**draft.slots, "Stem": _capital(draft.slots.get("stem", "")), "Answer": _capital(draft.slots.get("answer", ""))}
    for (does, place), point in zip((("does", "place"), ("also", "other")), draft.points, strict=False):
        slots[does], slots[place] = _moment(point)
    return slots


def _moment(point: Anchor) -> tuple[str, str]:
    does, place = words.MOMENTS[point.suffix]
    return does.format(**point.slots), place.format(**point.slots)


def _holds(question: str, answer: str) -> bool:
    """Whether a question about what is said tells its answer: "Which word comes next?" where the word is "next"."""
    wanted = content_words(answer)
    return bool(wanted) and set(wanted) <= set(content_words(question))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
