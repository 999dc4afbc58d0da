"""Evidence that is too long for a prompt: what is left out, in which order, and how the text says so.

Stretches go whole, because half a sentence invites questions that the clip answers otherwise. First go those that no emotion colours
(neutral, other, unknown, not labelled), the longest first: the words that are left are those at which the voice has something to
tell, and the mark that stands in their place still says that it was neutral there, so that a change remains a change. Then go the others, those
nearest the middle first, so that how the clip begins and how it ends remain. If the last one alone is too long, it keeps its beginning.
In place of each run of stretches that went stands how much speech it was:

    [... 12.3 s of neutral speech left out]
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from undertone.errors import ConfigError
from undertone.generate.evidence.form import Form
from undertone.generate.evidence.lines import Evidence, Gap, Line

Count = Callable[[str], int]
"""Tokens of a text."""

_COLOURLESS = (None, "neutral", "other", "unknown")


def estimated_tokens(text: str) -> int:
    """A quarter of the bytes of UTF-8, rounded up.

    The usual four characters a token for English; in bytes, because a character of other scripts is a token of its own more often.
    """
    return -(-len(text.encode()) // 4)


def fitted(evidence: Evidence, form: Form, budget_tokens: int, count: Count = estimated_tokens) -> Evidence:
    """The evidence with so much left out that its text in a form fits; as it is where it does already.

    Args:
        evidence: Of one clip.
        form: That it will be written in.
        budget_tokens: The most tokens of the text.
        count: How they are counted; a tokenizer's own count where it must be exact.

    Raises:
        ConfigError: Not even the mark that all was left out fits.
    """

    def fits(one: Evidence) -> bool:
        return count(form.text(one)) <= budget_tokens

    if fits(evidence):
        return evidence
    order = _order(evidence)
    nothing = _without(evidence.parts, set(order))
    if not fits(nothing):
        raise ConfigError(
            f"budget_tokens: got {budget_tokens}, expected at least {count(form.text(nothing))} for evidence of which all is left out"
        )
    dropped = _least(1, len(order), lambda number: fits(_without(evidence.parts, set(order[:number]))))
    if dropped < len(order):
        return _without(evidence.parts, set(order[:dropped]))
    if not order:
        return nothing
    *others, last = order
    line = next(one for at, one in enumerate(evidence.parts) if at == last and isinstance(one, Line))

    def with_beginning(less: int) -> Evidence:
        first, rest = _cut(line, less)
        parts = [*evidence.parts[:last], *first, rest, *evidence.parts[last + 1 :]]
        return _without(parts, {at + len(first) if at > last else at for at in others})

    return with_beginning(_least(1, len(line.text or ""), lambda less: fits(with_beginning(less))))


def _least(low: int, most: int, holds: Callable[[int], bool]) -> int:
    """The least number from `low` to `most` (of which it is known) for which something holds, if it does for all that are larger.

    A mark may be longer than the "Hm" that it stands for, so it need not: then what is found holds, and is not the least.
    """
    high = most
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _order(evidence: Evidence) -> list[int]:
    """The stretches in the order in which they go."""
    lines = [(at, one) for at, one in enumerate(evidence.parts) if isinstance(one, Line)]
    if not lines:
        return []
    middle = min(one.start_ms for _, one in lines) + max(one.end_ms for _, one in lines)  # all in half milliseconds

    def rank(pair: tuple[int, Line]) -> tuple[bool, int, int]:
        at, one = pair
        coloured = one.tone.emotion not in _COLOURLESS
        return coloured, abs(one.start_ms + one.end_ms - middle) if coloured else -one.duration_ms, at

    return [at for at, _ in sorted(lines, key=rank)]


def _without(parts: Sequence[Line | Gap], gone: Container[int]) -> Evidence:
    """Gaps in place of the stretches that are gone; neighbouring ones are one."""
    made: list[Line | Gap] = []
    for at, part in enumerate(parts):
        if isinstance(part, Line) and at in gone:
            part = Gap(ms=part.duration_ms, neutral=part.tone.emotion == "neutral")
        if isinstance(part, Gap) and made and isinstance(before := made[-1], Gap):
            made[-1] = Gap(ms=before.ms + part.ms, neutral=before.neutral and part.neutral)
        else:
            made.append(part)
    return Evidence(parts=tuple(made))


def _cut(line: Line, less: int) -> tuple[list[Line], Gap]:
    """A stretch without so many characters at its end, nor the rest of the word that they begin in; and what is left out.

    Where it ends in time is in proportion to its characters: it has one span for all of its words.
    """
    text = line.text or ""
    kept = text[: max(0, len(text) - less)]
    if " " in kept and text[len(kept) : len(kept) + 1].strip():
        kept = kept[: kept.rindex(" ")]
    kept = kept.rstrip()
    shown_ms = line.duration_ms * len(kept) // len(text) if kept else 0
    rest = Gap(ms=line.duration_ms - shown_ms, neutral=line.tone.emotion == "neutral")
    if not kept:
        return [], rest
    return [line.model_copy(update={"text": kept, "end_ms": line.start_ms + shown_ms})], rest
