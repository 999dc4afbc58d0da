"""The text that stands around the speech: placeholder, metadata, question, answer marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from undertone.records import Turn

AUDIO = "<audio>"
"""Placeholder at the start of a prompt; the tokeniser's audio token, once per speech embedding."""

ANSWER = "Answer:"
"""The last word of every prompt; the model continues behind it."""


def build(
    question: str,
    *,
    metadata: str | None = None,
    place: Literal["before", "after"] = "before",
    speech: str = AUDIO,
    history: Sequence[Turn] = (),
) -> str:
    """Build one prompt.

    Args:
        question: The question, one line.
        metadata: Rendered labels (`metadata.render`), or None.
        place: Metadata before or after the question.
        speech: `AUDIO`, `words(transcript)` for a model that reads instead of hearing, or "" for one that does neither.
        history: Turns of the dialogue before this question; they stand behind the speech, each answer behind the answer marker.
    """
    before = [line for turn in history for line in (turn.question, f"{ANSWER} {turn.answer}")]
    around = (metadata, question) if place == "before" else (question, metadata)
    return "\n".join(part for part in (speech, *before, *around, ANSWER) if part)


def words(transcript: str) -> str:
    """The transcript in place of the speech (the control "words only")."""
    return f"Transcript: {transcript}"
