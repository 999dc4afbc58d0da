"""What a labeller is: sound in, labels with recording times out; and the registry that every labeller enters by one door.

The author writes a function from a wave to values, or a class with a model and the method `judge`. The base does the rest: the rate,
durations that are too short or too long, recording times, the signature, scores that are not finite, attributes without a value.

    @labeller("loudness", version="1", emits=[Scalar("energy_db", unit="dB")])
    def loudness(wave: Wave) -> list[Value]:
        return [scalar("energy_db", rms_db(wave))]

    LABELLERS.get("loudness").label(wave, start_ms=0)

What a labeller hears at once is its own choice: a window of two seconds with its context, a segment of speech, or (through a
`Listener`) the speech of a whole recording as it streams by. What it says is kept as it is, in its own classes; `label.decide` maps
classes into ours and settles what several labellers disagree about, so that a rule or threshold changes without a model run.

A package adds labellers under the entry-point group `undertone.labellers`: the entry's name is the labeller's, its object is the
decorated function or class.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args, get_type_hints

import soxr
from pydantic import TypeAdapter, ValidationError

from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.records import HUMAN, Label, Word

ENTRY_POINTS = "undertone.labellers"

_BUILT_IN = {
    "affect-small": "undertone.label.affect_labeller",
    "audeering-dim": "undertone.label.audeering",
    "audeering-age-gender": "undertone.label.audeering",
    "audio-classification": "undertone.label.audio_classification",
    "ecapa-gender": "undertone.label.ecapa",
    "emotion2vec": "undertone.label.emotion2vec",
    "fingerprint": "undertone.label.fingerprint",
    "faster-whisper": "undertone.label.faster_whisper",
    "meralion-ser": "undertone.label.meralion_ser",
    "pocketsphinx": "undertone.label.sphinx",
    "prosody": "undertone.label.prosody",
    "quality": "undertone.label.quality",
    "pyannote": "undertone.label.diarise",
    "resemblyzer-speakers": "undertone.label.resemblyzer",
    "speaker-change": "undertone.label.speaker_change",
}


@dataclass(frozen=True)
class Scalar:
    """Declares a numeric attribute; `low` and `high` are its scale where it has one."""

    attribute: str
    unit: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Category:
    """Declares a categorical attribute and its classes, in the model's own words; empty where any text may come."""

    attribute: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """Declares that the labeller hears words: the category is the text, `Value.words` are its words with times."""

    attribute: str = "transcript"


Emission = Scalar | Category | Transcript
Hears = Literal["window", "segment", "recording"]


@dataclass(frozen=True, kw_only=True)
class Value:
    """One judgement as a labeller gives it: times count from the start of the wave that it heard, None for the span it was asked about."""

    attribute: str
    category: str | None = None
    number: float | None = None
    distribution: Mapping[str, float] | None = None
    reason: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    words: tuple[Word, ...] = ()


def scalar(attribute: str, number: float, *, start_ms: int | None = None, end_ms: int | None = None) -> Value:
    """A number, for the whole wave or a part of it."""
    return Value(attribute=attribute, number=float(number), start_ms=start_ms, end_ms=end_ms)


def category(attribute: str, distribution: Mapping[str, float], *, start_ms: int | None = None, end_ms: int | None = None) -> Value:
    """The most probable class (ties to the first) with the raw scores of all."""
    if not distribution:
        return abstain(attribute, "no_value", start_ms=start_ms, end_ms=end_ms)
    best = max(distribution, key=lambda name: distribution[name])
    return Value(attribute=attribute, category=best, distribution=dict(distribution), start_ms=start_ms, end_ms=end_ms)


def abstain(attribute: str, reason: str, *, start_ms: int | None = None, end_ms: int | None = None) -> Value:
    """No value, and why: a short code such as "too_little_speech"."""
    return Value(attribute=attribute, reason=reason, start_ms=start_ms, end_ms=end_ms)


_ROUNDING = 1e-4  # a softmax in half precision sums to a little more than 1


class Asked(NamedTuple):
    """A stretch to judge: its sound with whatever context, where in the recording that sound begins, and the span that is asked about."""

    wave: Wave
    origin_ms: int
    span: tuple[int, int]


class Heard(NamedTuple):
    """What a labeller said about one wave, signed and in recording times; `words` are those of its transcript."""

    labels: list[Label]
    words: tuple[Word, ...] = ()


class Listener(ABC):
    """One labeller at one recording: it hears the speech as it streams by and speaks at the end."""

    @abstractmethod
    def hear(self, wave: Wave, start_ms: int) -> None:
        """Hear the next segment of speech; segments come in order and do not overlap.

        Args:
            wave: The segment at the labeller's rate.
            start_ms: Where in the recording it begins.
        """

    @abstractmethod
    def finish(self) -> Sequence[Value]:
        """What was heard: values whose `start_ms` and `end_ms` are given, in times of the recording."""


class Labeller:
    """Base of all labellers; a subclass implements `judge`, its constructor arguments are its configuration and load nothing.

    A labeller that is faster on many waves at once also implements `judge_many` and sets `batch`; one that hears whole recordings
    implements `listen` instead.

    Attributes:
        name, version: Stand in every label as "name@version"; the version changes whenever the same sound would get other labels.
        emits: The attributes it gives; may be a property that reads the model's configuration.
        hears: What it judges at once: a window (with context), a segment of speech, or a recording.
        rate_hz: The rate it wants; a wave at another rate is resampled.
        min_ms, max_ms: Durations that it can judge; outside of them it abstains.
        licence: Of its weights, where it has any.
        languages: Codes of the languages that it understands; None for all. Elsewhere it abstains.
        batch: How many waves `judge_many` likes at once.
    """

    name: str
    version: str
    emits: Sequence[Emission] = ()
    hears: Hears = "segment"
    rate_hz: int = 16_000
    min_ms: int = 0
    max_ms: int | None = None
    licence: str | None = None
    languages: frozenset[str] | None = None
    batch: int = 1

    @property
    def revision(self) -> str | None:
        """Which weights exactly: a commit of their repository or a digest of their files; None for a labeller without weights."""
        return None

    @property
    def heard_speakers(self) -> frozenset[str]:
        """Speakers that a learned labeller was trained on, as "corpus/speaker"; results on them are not fair."""
        return frozenset()

    @property
    def card(self) -> Path | None:
        """The model card of a learned labeller, as a file; None where there is none."""
        return None

    def check(self) -> None:
        """Raise at once, before any work is done, if what it runs on is not there or not allowed; loads nothing."""

    def open(self) -> None:
        """Load the model now rather than with the first wave, so that what is missing ends the run before any work is done."""

    def judge(self, wave: Wave) -> Sequence[Value]:
        """Judge one wave at `rate_hz` whose duration is allowed."""
        raise NotImplementedError(f"labeller {self.name} does not implement judge")

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        """Judge several waves at `rate_hz` whose durations are allowed, sorted by length; one answer each, in their order."""
        return [self.judge(wave) for wave in waves]

    def listen(self) -> Listener:
        """Begin to hear a recording (`hears` is "recording")."""
        raise NotImplementedError(f"labeller {self.name} does not implement listen")

    def at_rate(self, wave: Wave) -> Wave:
        """The wave at the rate that the labeller wants."""
        if wave.rate_hz == self.rate_hz:
            return wave
        return Wave(soxr.resample(wave.samples, wave.rate_hz, self.rate_hz), self.rate_hz)

    def label(self, wave: Wave, *, start_ms: int) -> list[Label]:
        """Label a stretch of a recording.

        Args:
            wave: The sound.
            start_ms: Where in its recording the sound begins; added to all times.

        Returns:
            At least one label for each attribute that the labeller emits, abstentions included.

        Raises:
            ModelError: The labeller gave an attribute or a class that it does not declare.
        """
        return self.heard([Asked(wave, start_ms, (start_ms, start_ms + wave.duration_ms))])[0].labels

    def heard(self, asked: Sequence[Asked]) -> list[Heard]:
        """Label several stretches at once.

        Returns:
            One answer for each, in their order.

        Raises:
            ModelError: The labeller gave an attribute or a class that it does not declare, a number outside its scale, or another
                number of answers.
        """
        allowed = [
            index
            for index, one in enumerate(asked)
            if self.min_ms <= one.wave.duration_ms and (self.max_ms is None or one.wave.duration_ms <= self.max_ms)
        ]
        allowed.sort(key=lambda index: len(asked[index].wave.samples))  # padding is least among equals
        judged = self.judge_many([self.at_rate(asked[index].wave) for index in allowed]) if allowed else []
        if len(judged) != len(allowed):
            raise ModelError(f"labeller {self.name!r} gave {len(judged)} answers for {len(allowed)} waves")
        values = dict(zip(allowed, judged, strict=True))
        return [
            self.signed(values[index] if index in values else self._refused(one.wave), one.span, origin_ms=one.origin_ms)
            for index, one in enumerate(asked)
        ]

    def _refused(self, wave: Wave) -> list[Value]:
        return self.abstentions("too_short" if wave.duration_ms < self.min_ms else "too_long")

    def abstentions(self, reason: str) -> list[Value]:
        """An abstention for everything that it could give."""
        return [abstain(one.attribute, reason) for one in self.emits]

    def signed(self, values: Sequence[Value], span: tuple[int, int], *, origin_ms: int) -> Heard:
        """Values about one span as labels; an attribute without a value becomes an abstention.

        Args:
            values: What the labeller said.
            span: The milliseconds of the recording that it was asked about; values and words outside (in the context) are a neighbour's.
            origin_ms: Where in the recording the sound that it heard begins; the times of values count from there.

        Raises:
            ModelError: An attribute or a class is not declared, or a number is outside its scale.
        """
        declared = {one.attribute: one for one in self.emits}
        given = {value.attribute for value in values}
        if unknown := sorted(given - set(declared)):
            raise ModelError(f"labeller {self.name!r} gave {', '.join(unknown)}; it declares {', '.join(declared) or 'nothing'}")
        labels = []
        for value in values:
            self._refuse_strange(value, declared[value.attribute])
            start_ms = span[0] if value.start_ms is None else max(span[0], origin_ms + value.start_ms)
            end_ms = span[1] if value.end_ms is None else min(span[1], origin_ms + value.end_ms)
            if end_ms > start_ms or span[0] == span[1]:
                labels.append(self._label(value, start_ms, end_ms))
        missing = [name for name in declared if name not in {one.attribute for one in labels}]
        labels += [self._label(abstain(name, "no_value"), *span) for name in missing]
        words = (word.moved(origin_ms) for value in values for word in value.words)
        return Heard(labels, tuple(word for word in words if span[0] <= (word.start_ms + word.end_ms) // 2 <= span[1]))

    def _refuse_strange(self, value: Value, emission: Emission) -> None:
        """Raise ModelError where a value is none that the labeller declares; what is not finite becomes an abstention later."""
        said = f"labeller {self.name!r} gave {value.attribute}"
        if isinstance(emission, Scalar) and value.number is not None:
            low, high = (
                (-math.inf if emission.low is None else emission.low),
                (math.inf if emission.high is None else emission.high),
            )
            if value.number < low - _ROUNDING or value.number > high + _ROUNDING:
                raise ModelError(f"{said} = {value.number:g}, outside of the scale that it declares, {low:g} to {high:g}")
        if isinstance(emission, Category):
            names = [*([] if value.category is None else [value.category]), *(value.distribution or {})]
            if emission.classes and (strange := [name for name in names if name not in emission.classes]):
                raise ModelError(f"{said} {strange[0]!r}, which it does not declare; expected one of {', '.join(emission.classes)}")
            for name, share in (value.distribution or {}).items():
                if share < -_ROUNDING or share > 1 + _ROUNDING:
                    raise ModelError(f"{said} {name!r} with {share:g}; expected a probability, 0 to 1 (logits want a softmax)")

    def _label(self, value: Value, start_ms: int, end_ms: int) -> Label:
        numbers = [*(value.distribution or {}).values(), *([] if value.number is None else [value.number])]
        if not all(math.isfinite(number) for number in numbers):
            value = abstain(value.attribute, "not_finite")
        return Label(
            attribute=value.attribute,
            category=value.category,
            number=value.number,
            distribution=None if value.distribution is None else {name: float(p) for name, p in value.distribution.items()},
            reason=value.reason,
            start_ms=start_ms,
            end_ms=end_ms,
            labeller=f"{self.name}@{self.version}",
            revision=self.revision,
        )


class FunctionLabeller(Labeller):
    """A labeller whose `judge` is a function, with the values of its keyword arguments."""

    def __init__(self, function: Callable[..., Sequence[Value]], *, config: Mapping[str, Any] | None = None) -> None:
        self.function = function
        self.config = dict(config or {})

    def judge(self, wave: Wave) -> Sequence[Value]:
        return self.function(wave, **self.config)


class Registry:
    """The labellers by name: the built-in ones and those of installed packages, each imported when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Callable[..., Labeller]] = {}

    def add(self, name: str, make: Callable[..., Labeller]) -> None:
        """Register a labeller; `make` takes its configuration as keywords.

        Raises:
            ConfigError: Another labeller has that name, or it is people's.
        """
        if name in self._made:
            raise ConfigError(f"labeller {name!r} is registered twice; choose another name")
        if name == HUMAN:
            raise ConfigError(f"no labeller may be called {HUMAN!r}: that is how people's labels are signed")
        self._made[name] = make

    def remove(self, name: str) -> None:
        """Forget a labeller (for tests)."""
        self._made.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """All known names, sorted; imports none of them."""
        return tuple(sorted({*self._made, *_BUILT_IN, *entry_points(group=ENTRY_POINTS).names}))

    def get(self, name: str, config: Mapping[str, Any] | None = None, *, sign: str | None = None) -> Labeller:
        """The labeller of that name with that configuration.

        Args:
            name: As registered.
            config: Its constructor's keyword arguments.
            sign: The name that it signs with, where a study uses one labeller several times; its own if None.

        Raises:
            ConfigError: Unknown name (the message lists the known ones) or an unknown configuration key.
            DependencyError: The plugin does not import.
        """
        maker = self.maker(name)
        try:
            made = maker(**_typed(name, maker, config or {}))
        except TypeError as error:
            raise ConfigError(f"labeller {name!r} does not take this configuration: {error}") from error
        if sign is not None:
            made.name = sign
        return made

    def maker(self, name: str) -> Callable[..., Labeller]:
        """What makes the labeller of that name: its class, or a function that takes its configuration.

        Raises:
            ConfigError: Unknown name.
            DependencyError: The plugin does not import.
        """
        if name not in self._made:
            self._import(name)
        return self._made[name]

    def _import(self, name: str) -> None:
        if name in _BUILT_IN:
            importlib.import_module(_BUILT_IN[name])
            return
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            try:
                entry.load()
            except Exception as error:  # the edge: a plugin may fail in any way, and its user must learn which one
                package = entry.dist.name if entry.dist else entry.value
                raise DependencyError(
                    f"labeller {name!r} of {package} does not load: {type(error).__name__}: {error}; pip install -U {package}"
                ) from error
        if name not in self._made:
            close = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"labeller: got {name!r}, {hint}expected one of {', '.join(self.names())}")


def _typed(name: str, maker: Callable[..., Labeller], config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every value of the type that the labeller's author wrote; ConfigError where one is not."""
    author: Any = inspect.unwrap(maker)
    author = author.__init__ if isinstance(author, type) else author  # type: ignore[misc]
    hints = get_type_hints(author)
    made = {}
    for key, value in config.items():
        try:
            made[key] = TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"labeller {name!r}: config.{key}: got {value!r}; {error.errors()[0]['msg']}") from error
    return made


LABELLERS = Registry()

Author = TypeVar("Author", bound=Callable[..., Any])


def labeller(
    name: str,
    *,
    emits: Sequence[Emission] | None,
    version: str | None = None,
    hears: Hears | None = None,
    rate_hz: int | None = None,
    min_ms: int | None = None,
    max_ms: int | None = None,
    licence: str | None = None,
) -> Callable[[Author], Author]:
    """Register a function `(wave, *, keyword configuration) -> list[Value]`, or a subclass of `Labeller`, under a name.

    The function or class comes back unchanged, `LABELLERS.get(name)` gives the labeller. What is not given is as the class says, or as
    `Labeller` does.

    Args:
        name: Stands in labels, study files and messages.
        emits: The attributes that it gives; None for a class with a property `emits`.
        hears: What it judges at once.
        version: Changes whenever the same sound would get other labels; a class may leave it out and have a property `version`
            (for weights that carry their own).
        rate_hz: The rate that it wants.
        min_ms: Shorter waves get abstentions with reason "too_short".
        max_ms: Longer waves get abstentions with reason "too_long".
        licence: Of its weights.

    Raises:
        ConfigError: The name is taken, or a function has no version.
    """
    if hears not in (None, *get_args(Hears)):
        raise ConfigError(f"labeller {name!r}: hears: got {hears!r}, expected one of {', '.join(get_args(Hears))}")
    known = {"version": version, "hears": hears, "rate_hz": rate_hz, "min_ms": min_ms, "max_ms": max_ms, "licence": licence}
    settings: dict[str, Any] = {"name": name, **{key: value for key, value in known.items() if value is not None}}
    if emits is not None:
        settings["emits"] = tuple(emits)

    def register(author: Author) -> Author:
        if isinstance(author, type) and issubclass(author, Labeller):
            _settle(author, settings)
            LABELLERS.add(name, author)
            return author
        if version is None:
            raise ConfigError(f"labeller {name!r}: a function has no version of its own; expected version=...")
        signature = inspect.signature(author)

        @functools.wraps(author)
        def make(**config: Any) -> Labeller:
            signature.bind(None, **config)
            made: Labeller = FunctionLabeller(cast("Callable[..., Sequence[Value]]", author), config=config)
            _settle(made, settings)
            return made

        LABELLERS.add(name, make)
        return author

    return register


def _settle(target: Labeller | type[Labeller], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        setattr(target, key, value)
