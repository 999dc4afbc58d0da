"""What a labeller is: sound in, labels with recording times out; and the registry that every labeller enters by one door.

The author writes a function from a wave to values, or a class with a model and the method `judge`. The base does the rest: the rate,
durations that are too short or too long, recording times, the signature, scores that are not finite, attributes without a value.

    @labeller("loudness", version="1", emits=[Scalar("energy_db", unit="dB")])
    def loudness(wave: Wave) -> list[Value]:
        return [scalar("energy_db", rms_db(wave))]

    LABELLERS.get("loudness").label(wave, start_ms=0)

A package adds labellers under the entry-point group `undertone.labellers`: the entry's name is the labeller's, its object is the
decorated function or class.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, cast

import soxr

from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.records import Label

ENTRY_POINTS = "undertone.labellers"

_BUILT_IN = {"prosody": "undertone.label.prosody", "affect-small": "undertone.label.affect_labeller"}


@dataclass(frozen=True)
class Scalar:
    """Declares a numeric attribute; `low` and `high` are its scale where it has one."""

    attribute: str
    unit: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Category:
    """Declares a categorical attribute and its classes."""

    attribute: str
    classes: tuple[str, ...] = ()


Emission = Scalar | Category


@dataclass(frozen=True, kw_only=True)
class Value:
    """One judgement as a labeller gives it: times are relative to its wave, None for the wave's own ends."""

    attribute: str
    category: str | None = None
    number: float | None = None
    distribution: Mapping[str, float] | None = None
    reason: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None


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


class Labeller:
    """Base of all labellers; a subclass implements `judge`, its constructor arguments are its configuration and load nothing.

    Attributes:
        name, version: Stand in every label as "name@version"; the version changes whenever the same sound would get other labels.
        emits: The attributes it gives.
        rate_hz: The rate it wants; a wave at another rate is resampled.
        min_ms, max_ms: Durations that it can judge; outside of them it abstains.
        licence: Of its weights, where it has any.
    """

    name: str
    version: str
    emits: Sequence[Emission] = ()
    rate_hz: int = 16_000
    min_ms: int = 0
    max_ms: int | None = None
    licence: str | None = None

    @property
    def heard_speakers(self) -> frozenset[str]:
        """Speakers that a learned labeller was trained on, as "corpus/speaker"; results on them are not fair."""
        return frozenset()

    @property
    def card(self) -> Path | None:
        """The model card of a learned labeller, as a file; None where there is none."""
        return None

    def judge(self, wave: Wave) -> Sequence[Value]:
        """Judge one wave at `rate_hz` whose duration is allowed."""
        raise NotImplementedError(f"labeller {self.name} does not implement judge")

    def label(self, wave: Wave, *, start_ms: int) -> list[Label]:
        """Label a stretch of a recording.

        Args:
            wave: The sound.
            start_ms: Where in its recording the sound begins; added to all times.

        Returns:
            At least one label for each attribute that the labeller emits, abstentions included.

        Raises:
            ModelError: The labeller gave an attribute that it does not declare.
        """
        if wave.duration_ms < self.min_ms:
            values: Sequence[Value] = [abstain(one.attribute, "too_short") for one in self.emits]
        elif self.max_ms is not None and wave.duration_ms > self.max_ms:
            values = [abstain(one.attribute, "too_long") for one in self.emits]
        else:
            values = self.judge(_at_rate(wave, self.rate_hz))
        declared = [one.attribute for one in self.emits]
        given = {value.attribute for value in values}
        if unknown := sorted(given - set(declared)):
            raise ModelError(f"labeller {self.name!r} gave {', '.join(unknown)}; it declares {', '.join(declared) or 'nothing'}")
        missing = [abstain(name, "no_value") for name in declared if name not in given]
        return [self._signed(value, wave, start_ms) for value in [*values, *missing]]

    def _signed(self, value: Value, wave: Wave, start_ms: int) -> Label:
        numbers = [*(value.distribution or {}).values(), *([] if value.number is None else [value.number])]
        if not all(math.isfinite(number) for number in numbers):
            value = abstain(value.attribute, "not_finite", start_ms=value.start_ms, end_ms=value.end_ms)
        return Label(
            attribute=value.attribute,
            category=value.category,
            number=value.number,
            distribution=None if value.distribution is None else {name: float(p) for name, p in value.distribution.items()},
            reason=value.reason,
            start_ms=start_ms + (value.start_ms or 0),
            end_ms=start_ms + (wave.duration_ms if value.end_ms is None else min(value.end_ms, wave.duration_ms)),
            labeller=f"{self.name}@{self.version}",
        )


class FunctionLabeller(Labeller):
    """A labeller whose `judge` is a function, with the values of its keyword arguments."""

    def __init__(self, function: Callable[..., Sequence[Value]], *, config: Mapping[str, Any] | None = None) -> None:
        self.function = function
        self.config = dict(config or {})

    def judge(self, wave: Wave) -> Sequence[Value]:
        return self.function(wave, **self.config)


def _at_rate(wave: Wave, rate_hz: int) -> Wave:
    return wave if wave.rate_hz == rate_hz else Wave(soxr.resample(wave.samples, wave.rate_hz, rate_hz), rate_hz)


class Registry:
    """The labellers by name: the built-in ones and those of installed packages, each imported when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Callable[..., Labeller]] = {}

    def add(self, name: str, make: Callable[..., Labeller]) -> None:
        """Register a labeller; `make` takes its configuration as keywords.

        Raises:
            ConfigError: Another labeller has that name.
        """
        if name in self._made:
            raise ConfigError(f"labeller {name!r} is registered twice; choose another name")
        self._made[name] = make

    def remove(self, name: str) -> None:
        """Forget a labeller (for tests)."""
        self._made.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """All known names, sorted; imports none of them."""
        return tuple(sorted({*self._made, *_BUILT_IN, *entry_points(group=ENTRY_POINTS).names}))

    def get(self, name: str, config: Mapping[str, Any] | None = None) -> Labeller:
        """The labeller of that name with that configuration.

        Raises:
            ConfigError: Unknown name (the message lists the known ones) or an unknown configuration key.
            DependencyError: The plugin does not import.
        """
        if name not in self._made:
            self._import(name)
        try:
            return self._made[name](**(config or {}))
        except TypeError as error:
            raise ConfigError(f"labeller {name!r} does not take this configuration: {error}") from error

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


LABELLERS = Registry()

Author = TypeVar("Author", bound=Callable[..., Any])


def labeller(
    name: str,
    *,
    emits: Sequence[Emission],
    version: str | None = None,
    rate_hz: int = 16_000,
    min_ms: int = 0,
    max_ms: int | None = None,
    licence: str | None = None,
) -> Callable[[Author], Author]:
    """Register a function `(wave, *, keyword configuration) -> list[Value]`, or a subclass of `Labeller`, under a name.

    The function or class comes back unchanged, `LABELLERS.get(name)` gives the labeller.

    Args:
        name: Stands in labels, study files and messages.
        emits: The attributes that it gives.
        version: Changes whenever the same sound would get other labels; a class may leave it out and have a property `version`
            (for weights that carry their own).
        rate_hz: The rate that it wants.
        min_ms: Shorter waves get abstentions with reason "too_short".
        max_ms: Longer waves get abstentions with reason "too_long".
        licence: Of its weights.

    Raises:
        ConfigError: The name is taken, or a function has no version.
    """
    settings = {"name": name, "emits": tuple(emits), "rate_hz": rate_hz, "min_ms": min_ms, "max_ms": max_ms, "licence": licence}
    if version is not None:
        settings["version"] = version

    def register(author: Author) -> Author:
        if isinstance(author, type) and issubclass(author, Labeller):
            _settle(author, settings)
            LABELLERS.add(name, author)
            return author
        if version is None:
            raise ConfigError(f"labeller {name!r}: a function has no version of its own; expected version=...")
        signature = inspect.signature(author)

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
        if key != "licence" or value is not None:  # a class may know its licence from its weights
            setattr(target, key, value)
