"""Empathy of replies: scorers of EPITOME's three mechanisms, and a judge that scores a reply by one of them.

EPITOME (Sharma et al., 2020) asks of a reply to somebody who seeks support how strongly (0 none, 1 weak, 2 strong) it reacts emotionally,
interprets what the other feels, and explores it by asking. RE-LLM (2602.10716) scores spoken dialogue so: the seeker's text is what was said
in the clip, the response is the model's reply, and a system's score is its mean level.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import ConfigError, DependencyError, ModelError, ServiceError
from undertone.evaluate.epitome import (
    LEVELS,
    MECHANISMS,
    MODEL_NAME,
    EmpathyScores,
    EpitomeSmall,
    Floats,
    Mechanism,
    from_chances,
    same_length,
    unscored_reply,
)
from undertone.evaluate.judges import Item
from undertone.generate.strategies import think
from undertone.label.hub import is_local, needs, revision_of
from undertone.records import Kind, UnscoredReason, Verdict
from undertone.refusals import is_refused_reply

SHORT: Mapping[Mechanism, str] = {"emotional_reaction": "ER", "interpretation": "IP", "exploration": "EX"}
"""What the papers call the mechanisms."""

POINTS = 50.0
"""Of one level in a verdict, whose scores run from 0 to 100."""


class EmpathyScorer(Protocol):
    """Reads how empathetic replies are.

    `name` and `revision` say which one exactly; `mechanisms` which it can read.
    """

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def revision(self) -> str:
        """Which weights."""
        ...

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """Those that it reads; the columns of the others are unscored."""
        ...

    def score(self, seeker: Sequence[str], response: Sequence[str]) -> EmpathyScores:
        """Levels of each response to what the seeker of the same place said.

        Raises:
            DataError: There are not as many seekers as responses.
        """
        ...


class RobertaEmpathy:
    """Scores with sequence classifiers of the RoBERTa type, one for each mechanism, that read seeker and response as a pair.

    Class k of a checkpoint must be level k. EPITOME's own network reads the two posts apart and attends from one to the other; checkpoints of
    that form are not of this one.
    """

    name = "roberta"

    def __init__(
        self,
        models: Mapping[Mechanism, str],
        *,
        revisions: Mapping[Mechanism, str] | None = None,
        device: str = "cpu",
        batch: int = 16,
        max_length: int = 128,
    ) -> None:
        """Store the configuration; checkpoints load at the first use.

        Args:
            models: For each mechanism a folder or a name on the Hugging Face hub.
            revisions: Commit or tag of each that is on a hub.
            device: Of torch.
            batch: Pairs that run at once.
            max_length: Tokens of a pair; of what is longer, the longer of the two texts loses its end.

        Raises:
            ConfigError: A mechanism is unknown, none is given, a path holds nothing, or a hub's model has no revision.
        """
        unknown = [one for one in models if one not in MECHANISMS]
        if unknown or not models:
            got = f"got {', '.join(map(repr, unknown))}" if unknown else "got none"
            raise ConfigError(f"empathy scorer {self.name!r}: models: {got}, expected some of {', '.join(MECHANISMS)}")
        self.models = dict(models)
        self.revisions = dict(revisions or {})
        self.device = device
        self.batch = batch
        self.max_length = max_length
        for one, model in self.models.items():
            if not is_local(model) and one not in self.revisions:
                raise ConfigError(
                    f"empathy scorer {self.name!r}: {one}: {model!r} is no folder here; a model of a hub needs a revision (a commit or tag), "
                    "so that it cannot change under the study"
                )
            if is_local(model) and not Path(model).expanduser().exists():
                raise ConfigError(
                    f"empathy scorer {self.name!r}: {one}: {model!r}: nothing is there; expected a folder with a checkpoint"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_loaded", "revision")}

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """Those that a checkpoint was given for."""
        return tuple(one for one in MECHANISMS if one in self.models)

    @cached_property
    def revision(self) -> str:
        """Digests of local folders, or names and revisions."""
        return ",".join(revision_of(self.name, self.models[one], self.revisions.get(one)) for one in self.mechanisms)

    @cached_property
    def _loaded(self) -> dict[Mechanism, tuple[Any, Any]]:
        """Tokenizer and network of each mechanism.

        Raises:
            DependencyError: torch or transformers is absent, or a model is not on this machine.
            ModelError: A checkpoint does not load, or does not tell three levels apart.
        """
        needs(self.name, "torch", "transformers", extra="label", instead=MODEL_NAME)
        return {one: self._load(one) for one in self.mechanisms}

    def _load(self, mechanism: Mechanism) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model, revision = self.models[mechanism], self.revisions.get(mechanism)
        place = str(Path(model).expanduser()) if is_local(model) else model
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
            network, told = AutoModelForSequenceClassification.from_pretrained(place, revision=revision, output_loading_info=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if is_local(model):
                raise ModelError(
                    f"empathy scorer {self.name!r}: {mechanism}: the checkpoint in {model} does not load ({said})"
                ) from error
            raise DependencyError(
                f"empathy scorer {self.name!r}: {mechanism}: {model} is not on this machine and could not be fetched ({said}). "
                f"Fetch it where there is a network: hf download {model} --revision {revision} --local-dir DIR, and give DIR"
            ) from error
        if lacking := sorted(told["missing_keys"]):
            raise ModelError(
                f"empathy scorer {self.name!r}: {mechanism}: {model} has no weights for {', '.join(lacking)}; expected a trained classifier, "
                "and this is an encoder without one"
            )
        if network.config.num_labels != LEVELS:
            raise ModelError(
                f"empathy scorer {self.name!r}: {mechanism}: {model} tells {network.config.num_labels} classes apart, expected the levels "
                "0 none, 1 weak, 2 strong"
            )
        return tokenizer, network.to(self.device).eval()

    def score(self, seeker: Sequence[str], response: Sequence[str]) -> EmpathyScores:
        """The levels of each response."""
        same_length(seeker, response)
        reasons = tuple(unscored_reply(one) for one in response)
        kept = [index for index, reason in enumerate(reasons) if reason is None]
        chances = np.full((len(response), len(MECHANISMS), LEVELS), np.nan)
        for one in self.mechanisms if kept else ():
            pairs = [(seeker[index], response[index]) for index in kept]
            chances[kept, MECHANISMS.index(one)] = self._chances(one, pairs)
        return from_chances(chances, reasons)

    def _chances(self, mechanism: Mechanism, pairs: Sequence[tuple[str, str]]) -> Floats:
        import torch

        tokenizer, network = self._loaded[mechanism]
        found = []
        for start in range(0, len(pairs), self.batch):
            first, second = (list(texts) for texts in zip(*pairs[start : start + self.batch], strict=True))
            inputs = tokenizer(first, second, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt")
            with torch.inference_mode():
                logits = network(**inputs.to(self.device)).logits
            found.append(logits.double().softmax(dim=-1).cpu().numpy())
        return np.concatenate(found)


class EmpathyJudge(BaseModel):
    """Scores replies by one mechanism of EPITOME: 50 points for each level, so that the mean score over 50 is the papers' mean level.

    Of an answer that thinks first (`strategies.think`) the reply alone is scored.

    A reply without any word is `unreadable`, one that declines to reply `refused`, one to a clip of which nobody knows what was said
    `no_reference`; none of them is level 0. `Verdict.raw` holds the mean of the levels under the scorer's probabilities.

    Fields:
        mechanism: Which of the three.
        model: "epitome-small", or a checkpoint for `RobertaEmpathy`: a folder, or a name on a hub.
        revision: Commit or tag of a hub's model.
        device: Of torch, for a checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["epitome"] = "epitome"
    mechanism: Mechanism
    model: str = Field(default=MODEL_NAME, min_length=1)
    revision: str | None = None
    device: str = "cpu"

    needs_clips: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Mechanism, model and digest of its weights."""
        return f"{self.kind}:{self.mechanism}:{self.model}@{self.scorer.revision}"

    @property
    def runs(self) -> int:
        """One: the scorer is deterministic."""
        return 1

    @property
    def kinds(self) -> frozenset[Kind] | None:
        """Replies to the speaker; an answer to a question about the voice is neither empathetic nor not."""
        return frozenset({"REPLY"})

    @property
    def scorer(self) -> EmpathyScorer:
        """Loaded once in a process, however many judges name it."""
        return _scorer(self.mechanism, self.model, self.revision, self.device)

    def score(self, item: Item, *, run: int = 0) -> Verdict:
        """The verdict on one reply."""
        return self._verdicts([item], run)[0]

    def score_many(self, items: Sequence[Item], *, run: int = 0) -> list[Verdict | ServiceError]:
        """The verdicts on several replies."""
        return list(self._verdicts(items, run))

    def _verdicts(self, items: Sequence[Item], run: int) -> list[Verdict]:
        name = self.name
        replies = [think.split(one.answer.text).reply for one in items]
        found = self.scorer.score([one.transcript or "" for one in items], replies)
        column = MECHANISMS.index(self.mechanism)
        verdicts = []
        for index, item in enumerate(items):
            reason = item.answer.unanswered or found.unscored[index] or _unscored(item)
            level, expected = int(found.levels[index, column]), float(found.expected[index, column])
            verdicts.append(
                Verdict(
                    judge=name,
                    subject=item.subject,
                    pair_id=item.pair.id,
                    run=run,
                    score=None if reason else POINTS * level,
                    unscored=reason,
                    raw=None if reason else json.dumps({"expected_level": round(expected, 4)}),
                )
            )
        return verdicts


def mechanism_of(judge: str) -> Mechanism | None:
    """The mechanism that the name of a judge says that it scores by, None for other judges.

    >>> mechanism_of("epitome:exploration:epitome-small@0f"), mechanism_of("reference")
    ('exploration', None)
    """
    head, _, rest = judge.partition(":")
    name = rest.partition(":")[0]
    return next((one for one in get_args(Mechanism) if head == "epitome" and one == name), None)


def _unscored(item: Item) -> UnscoredReason | None:
    if is_refused_reply(item.answer.text):
        return "refused"  # "I'm sorry, but I can't help with that" would read as an emotional reaction
    return None if item.transcript and item.transcript.strip() else "no_reference"


@functools.lru_cache(maxsize=8)
def _scorer(mechanism: Mechanism, model: str, revision: str | None, device: str) -> EmpathyScorer:
    if model == MODEL_NAME:
        return _small()
    return RobertaEmpathy({mechanism: model}, revisions={mechanism: revision} if revision else None, device=device)


@functools.lru_cache(maxsize=1)
def _small() -> EpitomeSmall:
    return EpitomeSmall()
