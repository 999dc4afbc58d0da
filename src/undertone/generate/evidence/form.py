"""A form of evidence: how one stretch of speech is written, and how it is read back. A new form is one class."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import ValidationError

from undertone.errors import DataError
from undertone.generate.evidence.escape import escape, unescape
from undertone.generate.evidence.lines import Evidence, Gap, Grain, Line

_NO_WORDS = "(no words)"
_GAP = re.compile(r"\[\.\.\. ([0-9.]+) s of (neutral )?speech left out\]")


class Form:
    """Base of all forms; an author gives the class attributes, `write` and `read`.

    No stretch may hold the `separator`, be empty, or begin with "[...", which is how a mark for speech that was left out begins. What
    `write` shows, `read` gives back at the rounding that the form states.

    Attributes:
        name: As studies name it.
        legend: How to read it, for the prompt of an LLM; whole sentences.
        grain: What one stretch is.
        separator: Between stretches.
    """

    name: ClassVar[str]
    legend: ClassVar[str]
    grain: ClassVar[Grain] = "tone"
    separator: ClassVar[str] = "\n"

    def write(self, line: Line) -> str:
        """One stretch as text; what came from the clip is escaped (`spoken`, `escape.escape_label`)."""
        raise NotImplementedError(f"form {self.name} does not implement write")

    def read(self, text: str) -> Line:
        """The stretch that was written.

        Raises:
            ValueError: It was not written so; says what was expected.
        """
        raise NotImplementedError(f"form {self.name} does not implement read")

    def text(self, evidence: Evidence) -> str:
        """Evidence as text; speech that was left out is marked by its length."""
        return self.separator.join(self.write(one) if isinstance(one, Line) else _mark(one) for one in evidence.parts)

    def parse(self, text: str) -> Evidence:
        """The evidence that a text of this form holds.

        Raises:
            DataError: It is no such text; says which stretch, and what was expected.
        """
        parts: list[Line | Gap] = []
        for number, stretch in enumerate(text.split(self.separator) if text else [], 1):
            try:
                part = self._part(stretch)
                again = self.text(Evidence(parts=(part,)))
                if again != stretch:
                    raise ValueError(f"expected {again!r} for what it says")
            except ValueError as error:
                why = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else error
                raise DataError(
                    f"evidence, stretch {number}: got {_short(stretch)}, which form {self.name!r} does not write: {why}; "
                    f"parse it in the form that it was rendered in"
                ) from error
            parts.append(part)
        return Evidence(parts=tuple(parts))

    def _part(self, stretch: str) -> Line | Gap:
        if found := _GAP.fullmatch(stretch):
            return Gap(ms=from_seconds(found[1]), neutral=bool(found[2]))
        return self.read(stretch)


def _mark(gap: Gap) -> str:
    return f"[... {seconds(gap.ms)} s of {'neutral ' if gap.neutral else ''}speech left out]"


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:120]}...")


def spoken(text: str | None) -> str:
    """The words of a stretch, escaped; "(no words)" where they are not known."""
    return _NO_WORDS if text is None else escape(text)


def from_spoken(text: str) -> str | None:
    """The inverse of `spoken`."""
    return None if text == _NO_WORDS else unescape(text)


def seconds(ms: int) -> str:
    """A time in seconds, rounded to tenths, halves up."""
    tenths = (ms + 50) // 100
    return f"{tenths // 10}.{tenths % 10}"


def from_seconds(text: str) -> int:
    """The inverse of `seconds`, in ms.

    Raises:
        ValueError: It is no number with one decimal.
    """
    whole, dot, tenth = text.partition(".")
    if not (dot and whole.isascii() and whole.isdigit() and tenth.isascii() and tenth.isdigit() and len(tenth) == 1):
        raise ValueError(f"got {text!r} for a time, expected seconds with one decimal")
    return int(whole) * 1000 + int(tenth) * 100
