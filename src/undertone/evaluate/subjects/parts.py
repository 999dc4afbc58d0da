"""A prompt as models with a chat template take it: texts and the speech between them."""

from __future__ import annotations

from collections.abc import Mapping

from undertone.audio import Wave, load
from undertone.chat import as_data
from undertone.errors import DataError
from undertone.model import prompts
from undertone.records import Clip, Example

RATE_HZ = 16_000
"""What every native audio LLM of `model.native` hears, and what is sent to endpoints."""


def parts_of(example: Example, clips: Mapping[str, Clip], *, instruction: str = "") -> list[str | Clip]:
    """The texts of a prompt and the clips between them, in their order; without the answer marker, since a chat says whose turn it is.

    Texts hold what speakers said and labellers wrote, so none of them keeps a token of a chat template.

    Raises:
        DataError: A clip that is heard is not among those passed, or there is nothing at all.
    """
    heard = prompts.heard(example)
    if missing := [one for one in heard if one not in clips]:
        raise DataError(
            f"example {example.id} hears clip {missing[0]}, which is not among the {len(clips)} clips of the side table"
        )
    marked = example.prompt.removesuffix(prompts.ANSWER).rstrip("\n")
    texts = [as_data(text.strip("\n"), lines=True) for text in prompts.places(marked)]
    if instruction:
        texts[-1] = f"{texts[-1]}\n{instruction}"
    made: list[str | Clip] = []
    for text, clip in zip(texts, (None, *(clips[one] for one in heard)), strict=True):
        made += ([] if clip is None else [clip]) + ([text] if text else [])
    if not made:
        raise DataError(f"example {example.id} hears nothing and is asked nothing: a reply to speech needs hears: speech or words")
    return made


def wave_of(clip: Clip) -> Wave:
    """A clip's sound.

    Raises:
        AudioError: It cannot be decoded.
    """
    return load(clip.uri, rate_hz=RATE_HZ, start_ms=clip.start_ms, end_ms=clip.end_ms)
