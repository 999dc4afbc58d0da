"""Every error that Undertone raises on purpose, and the exit code each one ends the command with.

    UndertoneError            1
    ├── ConfigError           2   a study file, an option or a constructor argument is wrong
    ├── DataError             3   an input table, manifest or file is wrong
    │   ├── AudioError        3   one audio file cannot be decoded
    │   ├── DiskFull          3   the disk, or a quota, is full
    │   └── ResumeMismatch    3   the output folder was written by another configuration or input
    ├── DependencyError       4   an optional package, its data or a small model is missing
    ├── ServiceError          5   an endpoint does not answer, or answers nonsense
    ├── ModelError            6   a checkpoint does not load or does not fit
    └── TooManyFailures       7   more rows failed than the study allows

A message says what is wrong, the offending value, what was expected, and the next command to type. Only the command line
catches these broadly; it prints the message without a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class UndertoneError(Exception):
    """Base of all errors that are about the user's input or environment and not about a bug."""

    exit_code: ClassVar[int] = 1


class ConfigError(UndertoneError):
    """A configuration key or value is wrong; the message lists all problems at once."""

    exit_code = 2


class DataError(UndertoneError):
    """An input table, manifest or file is missing or does not hold what it should."""

    exit_code = 3


class AudioError(DataError):
    """One audio file cannot be decoded to speech; the rest of the run goes on."""


class DiskFull(DataError):
    """There is no space left to write; what was finished is kept, and the same command goes on from there."""


class ResumeMismatch(DataError):
    """The output folder holds the work of another configuration or input."""


class DependencyError(UndertoneError):
    """An optional package or a model file is not installed; the message carries the command that installs it."""

    exit_code = 4


class ServiceError(UndertoneError):
    """An LLM endpoint could not be reached, or its replies could not be used."""

    exit_code = 5


class ModelError(UndertoneError):
    """A model checkpoint does not load, or does not fit its configuration."""

    exit_code = 6


class TooManyFailures(UndertoneError):
    """More rows of a stage failed than `max_failed_share` allows."""

    exit_code = 7
