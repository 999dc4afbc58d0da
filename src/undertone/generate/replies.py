"""Replies to a speaker without an LLM: told the emotion, what is said is answered in the wordings of `frames.replies`.

They stand in for an LLM's where there is none, so that a study of replies runs offline. They are as good as their wordings: what is said
comes in as a topic alone, so a reply suits the tone and may miss the point.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from undertone.generate.askable import anchors
from undertone.generate.frames import FrameSet
from undertone.generate.frames.replies import ANYTHING, MANNERS
from undertone.records import Clip

LEVELS = tuple(levels for levels in itertools.product(range(3), repeat=3) if levels.count(0) < 2)
"""How strong reaction, interpretation and exploration are (EPITOME: 0 none, 1 weak, 2 strong); every reply has at least two of them."""


@dataclass(frozen=True, kw_only=True)
class WrittenReply:
    """A reply, and how strong each of EPITOME's mechanisms in it was meant to be (0 none, 1 weak, 2 strong)."""

    text: str
    reaction: int
    interpretation: int
    exploration: int


def in_english(clip: Clip) -> bool:
    """Whether a clip may be answered in English wordings: it is English, or nobody knows."""
    code = (clip.language or "").casefold().replace("_", "-").split("-")[0]
    return code in ("", "en", "eng", "english", "unknown", "und")


def topics(clip: Clip) -> tuple[str, ...]:
    """What a reply can say that the speaker spoke of, as objects of a sentence: "the train", "your sister", else a word that was said."""
    found = [one for index in range(len(clip.segments)) for one in anchors(clip, index)]
    # Others speak of "their sister"; who answers the speaker says "your".
    phrases = [
        f"your {one.text.removeprefix('their ')}" if one.text.startswith("their ") else one.text for one in found if not one.suffix
    ]
    return tuple(dict.fromkeys(phrases or (f'the word "{one.text}"' for one in found))) or (ANYTHING,)


def write_reply(clip: Clip, emotion: str, rng: random.Random, *, frames: FrameSet = "train") -> WrittenReply:
    """One or two sentences to a speaker.

    Args:
        clip: What is said; none of its labels is looked at.
        emotion: That the speaker is heard in, one of `lexicon.EMOTION_WORDS`.
        rng: All randomness is from here.
        frames: Whose wordings.

    Raises:
        KeyError: Nobody is replied to in that emotion ("other", "unknown").
    """
    manner = MANNERS[frames][emotion]
    reaction, interpretation, exploration = rng.choice(LEVELS)
    if not manner.reaction.strong:
        reaction = min(reaction, 1)
    topic = rng.choice(topics(clip))
    said = ""
    if reaction:
        said = rng.choice(manner.reaction.of(reaction))
    if interpretation:
        joint = ("", ", ", ", and ")[reaction]
        said += joint + rng.choice(manner.interpretation.of(interpretation))
    sentences = [f"{said[:1].upper()}{said[1:]}."]
    if exploration:
        sentences.append(rng.choice(manner.exploration.of(exploration)))
    return WrittenReply(
        text=" ".join(sentences).replace("{topic}", topic),
        reaction=reaction,
        interpretation=interpretation,
        exploration=exploration,
    )
