"""Decisions: what the labellers said about a segment becomes one label per attribute and span, and the words inherit them.

`label/raw` keeps what every model said in its own words; this stage maps classes into ours, lets an ensemble vote, refuses
hallucinated transcripts, and splits segments where a diariser heard another speaker. It runs no model, so a rule or a threshold can change
without labelling again.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from undertone.corpora.emotions import to_emotion
from undertone.corpora.folder import GENDERS
from undertone.errors import ConfigError, DataError
from undertone.label.events import EVENTS, to_event
from undertone.label.protocol import Category, Labeller, Scalar
from undertone.label.texts import nearest
from undertone.label.transcripts import Hallucination
from undertone.records import DIMENSIONS, EMOTIONS, Label, Segment, Word
from undertone.stages import Kept, Outcome, Stage

Rule = Literal["majority", "unanimity", "mean_posterior"]
Span = tuple[int, int]

TRAITS = ("gender", "age", "accent")
"""Attributes of a person: all windows of a segment are heard together."""

_VOCABULARY: dict[str, tuple[str, ...]] = {"emotion": EMOTIONS, "gender": ("female", "male"), "event": EVENTS}
_MIN_TURN_MS = 500  # a shorter stretch of another speaker (a backchannel) does not split a segment
_MOSTLY = 0.75  # of a label's time must lie in a piece of a segment to be about its speaker
_NOT_OF_ONE = {"category": None, "number": None, "distribution": None, "reason": "several_speakers"}


class Decision(NamedTuple):
    """The class (None without one), the mean posterior over classes, and why there is no class (None where there is)."""

    category: str | None
    posterior: dict[str, float]
    reason: str | None


@dataclass(frozen=True)
class Ballot:
    """One labeller's vote: its class, and its probabilities over our classes (1 for its class where it gives none)."""

    labeller: str
    category: str
    posterior: Mapping[str, float]


class Vote(BaseModel):
    """How an ensemble decides on a class.

    Attributes:
        rule: "majority": most votes, ties by the mean posterior of those tied; "unanimity": all agree, or nobody decides;
            "mean_posterior": the class of the highest mean probability. A class that a labeller does not know has probability 0
            with it. What remains equal goes to the class that comes first in the alphabet.
        min_voters: With fewer labellers that do not abstain there is no decision.
        min_posterior: A decision whose mean posterior is lower is an abstention, "unsure".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Rule = "majority"
    min_voters: int = Field(default=1, ge=1)
    min_posterior: float = Field(default=0.0, ge=0, le=1)

    def decide(self, ballots: Sequence[Ballot]) -> Decision:
        """What the ensemble decides; a function of the set of ballots, whatever their order."""
        if len(ballots) < self.min_voters:
            return Decision(None, {}, "too_few_voters" if ballots else "no_vote")
        classes = sorted({name for one in ballots for name in one.posterior})
        # fsum rounds once, so that the mean does not depend on the order of the voters.
        mean = {name: math.fsum(one.posterior.get(name, 0.0) for one in ballots) / len(ballots) for name in classes}
        votes = Counter(one.category for one in ballots)
        if self.rule == "unanimity" and len(votes) > 1:
            return Decision(None, mean, "no_agreement")
        tied = classes if self.rule == "mean_posterior" else [name for name in sorted(votes) if votes[name] == max(votes.values())]
        best = max(tied, key=lambda name: mean.get(name, 0.0))
        return Decision(None, mean, "unsure") if mean.get(best, 0.0) < self.min_posterior else Decision(best, mean, None)


class Decide(Stage[Segment, Segment]):
    """Turn raw labels into decided ones.

    Emotion is decided for every window, traits (gender, age, accent) for the whole segment from all its windows, valence, arousal and
    dominance are the mean of those that give them. An event stands for every window in which a labeller gives it `event_min` or more; of
    several labellers that hear it at the same time, the surest speaks. Measurements (pitch, rate, ...) pass unchanged. A label that one
    labeller alone decided keeps its signature; one of an ensemble is signed "rule(labeller, labeller)".

    A segment in which a diariser heard another speaker take the turn is split first. A label that lies mostly outside a piece is none of
    that piece's speaker, and becomes an abstention, "several_speakers".

    Attributes:
        emotion, traits: How ensembles decide.
        event_min: Least probability of an event.
        transcript: Which recognised transcripts are taken for hallucinated; their words are dropped and the label says why.
        classes: For a labeller whose class words are not known, what they mean: {labeller: {word: ours}}; None as ours leaves a
            class out.
    """

    name: ClassVar[str] = "decide"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Segment]] = Segment
    batch_rows: ClassVar[int] = 1_000

    emotion: Vote = Vote()
    traits: Vote = Vote(rule="mean_posterior")
    event_min: float = Field(default=0.5, gt=0, le=1)
    transcript: Hallucination = Hallucination()
    classes: dict[str, dict[str, str | None]] = Field(default_factory=dict)

    def process(self, rows: Sequence[Segment]) -> Sequence[Outcome[Segment]]:
        return [Kept(tuple(self.decided(row))) for row in rows]

    def decided(self, segment: Segment) -> list[Segment]:
        """The segment with decided labels; several where different speakers take turns in it."""
        return [self._piece(piece) for piece in _by_speaker(segment)]

    def _piece(self, segment: Segment) -> Segment:
        by_attribute: dict[str, list[Label]] = {}
        for label in segment.labels:
            by_attribute.setdefault(label.attribute, []).append(label)
        labels: list[Label] = []
        for attribute, found in by_attribute.items():
            if attribute == "emotion":
                labels += [self._vote(self.emotion, attribute, votes, span) for span, votes in _windows(found)]
            elif attribute in TRAITS:
                labels += self._trait(attribute, found, (segment.start_ms, segment.end_ms))
            elif attribute in DIMENSIONS:
                labels += [_mean(attribute, votes, span) for span, votes in _windows(found)]
            elif attribute == "event":
                labels += self._events(found)
            elif attribute == "transcript":
                labels += [self._believed(one) for one in found]
            else:
                labels += found
        refused = [one for one in labels if one.attribute == "transcript" and one.category is None]
        if refused:
            words = tuple(word for word in segment.words if not any(_inside(word, one) for one in refused))
            text = " ".join(word.text for word in words) or None
            segment = segment.model_copy(update={"words": words, "transcript": text})
        return segment.with_labels(labels)

    def ours(self, labeller: str, attribute: str, word: str) -> str | None:
        """Our name for a labeller's class; None for a class that says nothing in our vocabulary.

        Args:
            labeller: The name that it signs with, without version.
            attribute: "emotion", "gender", "event" or another, whose classes are taken as they are, in lower case.
            word: The class in the labeller's own words.

        Raises:
            DataError: Nobody said what the word means.
        """
        own = self.classes.get(labeller, {})
        if word in own:
            return own[word]
        if attribute == "emotion":
            return to_emotion(word)
        if attribute == "gender":
            return GENDERS.get(word.strip().lower())
        return to_event(word) if attribute == "event" else word.strip().lower()

    def check(self, labellers: Iterable[Labeller]) -> None:
        """Raise ConfigError where the classes of a labeller do not map into ours, `classes` says so wrongly, or a scale is not ours."""
        made = list(labellers)
        names = [one.name for one in made]
        if stray := sorted(set(self.classes) - set(names)):
            raise ConfigError(f"decide.classes: {', '.join(stray)} is no labeller of this study; it has {', '.join(sorted(names))}")
        for one in made:
            for emitted in one.emits:
                if isinstance(emitted, Category) and emitted.attribute in _VOCABULARY:
                    self._check_classes(one.name, emitted)
                if isinstance(emitted, Scalar) and emitted.attribute in DIMENSIONS and (emitted.low, emitted.high) != (0, 1):
                    raise ConfigError(
                        f"labeller {one.name!r} declares {emitted.attribute} from {emitted.low} to {emitted.high}; valence, arousal and "
                        "dominance are 0 to 1, converted where they enter: Scalar(..., low=0, high=1)"
                    )
            self._check_own(one)

    def _check_classes(self, name: str, emitted: Category) -> None:
        """The classes of one attribute: every emotion is known, and at least one gender or event is."""
        known, unknown = [], []
        for word in emitted.classes:
            try:
                known.append(self.ours(name, emitted.attribute, word))
            except DataError:
                unknown.append(word)
        if emitted.classes and not any(known):
            unknown = list(emitted.classes)
        if unknown:
            example = ", ".join(f"{word}: ..." for word in unknown[:3])
            raise ConfigError(
                f"labeller {name!r} has {emitted.attribute} classes that are not known: {', '.join(unknown)}. Say in the study what they "
                f"mean: decide: {{classes: {{{name}: {{{example}}}}}}}, each one of {', '.join(_VOCABULARY[emitted.attribute])}, or null "
                "to leave it out"
            )

    def _check_own(self, labeller: Labeller) -> None:
        """What the study says about a labeller's classes: of classes that it has, in words that are ours."""
        has = {word: emitted.attribute for emitted in labeller.emits if isinstance(emitted, Category) for word in emitted.classes}
        for word, ours in self.classes.get(labeller.name, {}).items():
            where = f"decide.classes.{labeller.name}"
            if has and word not in has:
                raise ConfigError(f"{where}: the labeller has no class {word!r}; it has {', '.join(has)}")
            allowed = _VOCABULARY.get(has.get(word, ""), ())
            if ours is not None and allowed and ours not in allowed:
                raise ConfigError(f"{where}.{word}: got {ours!r}, expected one of {', '.join(allowed)}, or null")

    def _vote(self, rule: Vote, attribute: str, votes: Sequence[Label], span: Span) -> Label:
        ballots, voters, reasons = [], [], []
        for label in votes:
            ballot = self._ballot(attribute, label)
            if isinstance(ballot, Ballot):
                ballots.append(ballot)
                voters.append(label)
            else:
                reasons.append(ballot)
        decision = rule.decide(ballots)
        why = reasons[0] if decision.reason == "no_vote" and reasons else decision.reason
        labeller, revision = _signature(voters or votes, rule.rule)
        return Label(
            attribute=attribute,
            category=decision.category,
            distribution=decision.posterior or None,
            reason=why,
            start_ms=span[0],
            end_ms=span[1],
            labeller=labeller,
            revision=revision,
        )

    def _ballot(self, attribute: str, label: Label) -> Ballot | str:
        """The label as a vote in our classes, or why it is none.

        The probabilities of our classes are divided by their sum, so that independent ones (of a sigmoid) weigh no more than others.
        """
        if label.category is None:
            return label.reason or "no_value"
        labeller = label.labeller.split("@")[0]
        shares: dict[str | None, list[float]] = {}
        for word, probability in (label.distribution or {label.category: 1.0}).items():
            shares.setdefault(self.ours(labeller, attribute, word), []).append(probability)
        left_out = math.fsum(shares.pop(None, []))
        posterior = {name: math.fsum(found) for name, found in shares.items() if name is not None}
        total = math.fsum(posterior.values())
        # After the merge of classes that mean the same, another may lead: the vote is for the highest of ours.
        category = max(sorted(posterior), key=lambda name: posterior[name], default=None)
        if category is None or total <= 0 or left_out > posterior[category]:
            return "no_class_of_ours"
        return Ballot(label.labeller, category, {name: share / total for name, share in posterior.items()})

    def _trait(self, attribute: str, found: Sequence[Label], span: Span) -> list[Label]:
        """One decision for the segment; numbers (an age in years) pass."""
        numbers = [one for one in found if one.number is not None]
        classes = [one for one in found if one.number is None]
        voted = [self._vote(self.traits, attribute, _pooled(classes), span)] if classes else []
        return [*numbers, *(one for one in voted if one.category is not None or not numbers)]

    def _events(self, found: Sequence[Label]) -> list[Label]:
        """What was heard, the surest first to speak; and an abstention for every span in which all labellers abstained."""
        heard: list[Label] = []
        for label in found:
            if label.category is None:
                continue
            for word, probability in (label.distribution or {label.category: 1.0}).items():
                name = self.ours(label.labeller.split("@")[0], "event", word)
                if name is not None and probability >= self.event_min:
                    heard.append(label.model_copy(update={"category": name, "distribution": {name: probability}}))
        heard.sort(key=lambda one: (-max((one.distribution or {}).values()), one.labeller, one.start_ms, one.end_ms))
        kept: list[Label] = []
        for one in heard:
            if not any(other.category == one.category and _same_time(other, one) for other in kept):
                kept.append(one)
        judged = [one for one in found if one.category is not None]
        for one in found:
            if one.category is None and not any(_same_time(one, other) for other in judged):
                kept.append(one)
                judged.append(one)
        return sorted(kept, key=lambda one: (one.start_ms, one.end_ms, one.category or ""))

    def _believed(self, label: Label) -> Label:
        why = None if label.category is None else self.transcript.refusal(label)
        return label if why is None else label.model_copy(update={"category": None, "reason": why})


def _signature(voters: Sequence[Label], rule: str) -> tuple[str, str | None]:
    """Who decided, and the revision of its weights: the labeller itself where it was alone."""
    names = list(dict.fromkeys(one.labeller for one in voters))
    return (names[0], voters[0].revision) if len(names) == 1 else (f"{rule}({', '.join(names)})", None)


def _shared_ms(one: Label, span: Span) -> int:
    return min(one.end_ms, span[1]) - max(one.start_ms, span[0])


def _same_time(one: Label, other: Label) -> bool:
    """Whether two labels share most of the shorter one's time."""
    shorter = max(1, min(one.end_ms - one.start_ms, other.end_ms - other.start_ms))
    return 2 * _shared_ms(one, (other.start_ms, other.end_ms)) >= shorter


def _windows(found: Sequence[Label]) -> list[tuple[Span, list[Label]]]:
    """The windows to decide on, each with one label of every labeller that overlaps it: the one that overlaps it most.

    They are the windows of the labeller that has most of them; where it has none, those of the labeller with most of what is left.
    """
    by_labeller: dict[str, list[Label]] = {}
    for label in found:
        by_labeller.setdefault(label.labeller, []).append(label)
    grid: list[Span] = []
    for labels in sorted(by_labeller.values(), key=len, reverse=True):
        for label in labels:
            grid += _uncovered((label.start_ms, label.end_ms), grid)
    made = []
    for span in sorted(dict.fromkeys(grid)):
        best = [max(labels, key=lambda one: _shared_ms(one, span)) for labels in by_labeller.values()]
        made.append((span, [one for one in best if _shared_ms(one, span) > 0 or (one.start_ms, one.end_ms) == span]))
    return made


def _uncovered(span: Span, grid: Sequence[Span]) -> list[Span]:
    """The parts of a span that no window of the grid covers."""
    left = [span]
    for start, end in grid:
        pieces = [piece for begin, until in left for piece in ((begin, min(start, until)), (max(end, begin), until))]
        left = [piece for piece in pieces if piece[1] > piece[0]]
    return left


def _pooled(found: Sequence[Label]) -> list[Label]:
    """One label for each labeller, over all its windows: the mean of their distributions weighted by duration."""
    made = []
    for _, group in itertools.groupby(sorted(found, key=lambda one: one.labeller), key=lambda one: one.labeller):
        labels = list(group)
        heard = [one for one in labels if one.category is not None]
        if len(heard) < 2:
            made.append((heard or labels)[0])
            continue
        total = sum(max(1, one.end_ms - one.start_ms) for one in heard)
        mean: dict[str, float] = {}
        for one in heard:
            share = max(1, one.end_ms - one.start_ms) / total
            for name, probability in (one.distribution or {one.category or "": 1.0}).items():
                mean[name] = mean.get(name, 0.0) + share * probability
        made.append(heard[0].model_copy(update={"category": max(mean, key=lambda name: mean[name]), "distribution": mean}))
    return made


def _mean(attribute: str, votes: Sequence[Label], span: Span) -> Label:
    """The mean of the numbers; an abstention with the first reason where there are none."""
    heard = [one for one in votes if one.number is not None]
    numbers = [one.number for one in heard if one.number is not None]
    labeller, revision = _signature(heard or votes, "mean")
    return Label(
        attribute=attribute,
        number=math.fsum(numbers) / len(numbers) if numbers else None,
        reason=None if numbers else votes[0].reason or "no_value",
        start_ms=span[0],
        end_ms=span[1],
        labeller=labeller,
        revision=revision,
    )


def _inside(word: Word, label: Label) -> bool:
    return label.start_ms <= (word.start_ms + word.end_ms) // 2 < label.end_ms


def _by_speaker(segment: Segment) -> list[Segment]:
    """The segment, with its speaker where a diariser named one; split where another takes the turn."""
    turns = _turns(segment)
    if not turns:
        return [segment]
    # Halfway between one turn's end and the next one's beginning.
    cuts = [(a.end_ms + b.start_ms) // 2 for a, b in itertools.pairwise(turns)]
    edges = [segment.start_ms, *cuts, segment.end_ms]
    at_once = any(a.end_ms - b.start_ms >= _MIN_TURN_MS for a, b in itertools.pairwise(turns))
    if at_once or (cuts and any(end - start < _MIN_TURN_MS for start, end in itertools.pairwise(edges))):
        return [segment]  # more than one speaks at a time: the segment stays whole, without one speaker
    spans = list(itertools.pairwise(edges))
    owners = nearest(segment.words, spans)
    pieces = []
    for index, (turn, span) in enumerate(zip(turns, spans, strict=True)):
        words = tuple(word for word, owner in zip(segment.words, owners, strict=True) if owner == index)
        pieces.append(_cut(segment, span, words).model_copy(update={"speaker": turn.category}))
    return pieces


def _turns(segment: Segment) -> list[Label]:
    """Who speaks in turn: neighbouring stretches of one speaker joined, interjections left out (unless there is nothing else)."""

    def joined(labels: Iterable[Label]) -> list[Label]:
        made: list[Label] = []
        for label in labels:
            if made and made[-1].category == label.category:
                made[-1] = made[-1].model_copy(update={"end_ms": max(made[-1].end_ms, label.end_ms)})
            else:
                made.append(label)
        return made

    turns = joined(segment.of("speaker"))
    long = [one for one in turns if one.end_ms - one.start_ms >= _MIN_TURN_MS]
    return joined(long) or sorted(turns, key=lambda one: one.start_ms - one.end_ms)[:1]


def _cut(segment: Segment, span: Span, words: tuple[Word, ...]) -> Segment:
    """A piece of a segment, with the labels that are about it."""
    if span == (segment.start_ms, segment.end_ms):
        return segment
    text = " ".join(word.text for word in words) or None
    labels = []
    for one in segment.labels:
        shared_ms = _shared_ms(one, span)
        if shared_ms <= 0:
            continue
        part = one.model_copy(update={"start_ms": max(one.start_ms, span[0]), "end_ms": min(one.end_ms, span[1])})
        if one.attribute == "transcript" and one.category is not None:
            part = part.model_copy(update={"category": text} if text else _NOT_OF_ONE)
        elif one.attribute != "speaker" and shared_ms < _MOSTLY * (one.end_ms - one.start_ms):
            part = part.model_copy(update=_NOT_OF_ONE)
        labels.append(part)
    update = {"start_ms": span[0], "end_ms": span[1], "labels": tuple(labels), "words": words, "transcript": text}
    return segment.model_copy(update=update)
