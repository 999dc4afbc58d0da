"""The text that stands around the speech: placeholder, metadata, question, answer marker."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from undertone.errors import DataError
from undertone.records import Example, Turn

AUDIO = "<audio>"
"""Placeholder at the start of a prompt, or alone on a line: the tokeniser's audio token, once per speech embedding."""

ANSWER = "Answer:"
"""The last word of every prompt; the model continues behind it."""

_PLACE = re.compile(rf"\A{AUDIO}|^{AUDIO}$", re.MULTILINE)


def build(
    question: str,
    *,
    metadata: str | None = None,
    place: Literal["before", "after"] = "before",
    speech: str = AUDIO,
    history: Sequence[Turn] = (),
    spoken: Callable[[Turn], str] | None = None,
) -> str:
    """Build one prompt.

    Args:
        question: The question, one line; "" where the speech says all.
        metadata: Rendered labels (`metadata.render`), or None.
        place: Metadata before or after the question.
        speech: `AUDIO`, `words(transcript)` for a model that reads instead of hearing, or "" for one that does neither.
        history: Turns of the dialogue before this question, each answer behind the answer marker. Where all turns are about one clip, they
            stand behind the speech.
        spoken: What a turn that was spoken by itself (`Turn.clip_id`) has in front of its question, as `speech` stands in front of the
            last; not needed where no turn was.

    Raises:
        DataError: The dialogue ends with the assistant: nothing is said or asked behind the last answer.
    """
    each = any(turn.clip_id is not None for turn in history)
    if history and not question and not (each and (speech or metadata)):
        raise DataError(
            f"this dialogue ends with the assistant ({history[-1].answer!r}), so that there is nothing to answer; end it with what the "
            "user says: a question, or speech"
        )
    if each and spoken is None:
        raise DataError("this dialogue has turns that were spoken by themselves; say with spoken=... what stands in front of each")
    before: list[str] = []
    for turn in history:
        heard = spoken(turn) if spoken is not None and turn.clip_id is not None else ""
        before += [heard, _text(turn.question), _text(f"{ANSWER} {turn.answer}")]
    around = (metadata, _text(question)) if place == "before" else (_text(question), metadata)
    parts = (*before, speech, *around, ANSWER) if each else (speech, *before, *around, ANSWER)
    return "\n".join(part for part in parts if part)


def words(transcript: str) -> str:
    """The transcript in place of the speech (the control "words only", and a teacher, which does not hear)."""
    return _text(f"Transcript: {transcript}")


def told(transcript: str, emotion: str | None) -> str:
    """What a teacher reads in place of the speech: the words, behind the emotion of the voice in brackets."""
    return words(transcript if emotion is None else f"({emotion}) {transcript}")


def places(prompt: str) -> list[str]:
    """The texts before, between and behind the placeholders of a prompt; one text where it has none."""
    return _PLACE.split(prompt)


def heard(example: Example) -> tuple[str, ...]:
    """The clips that an example hears, in the order of its placeholders."""
    count = len(places(example.prompt)) - 1
    return (*example.earlier, example.clip_id)[-count:] if count else ()


def _text(text: str) -> str:
    """A text none of whose lines is taken for a placeholder."""
    return re.sub(rf"^{AUDIO}$", f" {AUDIO}", text, flags=re.MULTILINE) if AUDIO in text else text
