"""A clip as text: what is said, with how each stretch of it sounds, for a generator to read (2505.13338, 2508.07273).

Each word inherits, attribute by attribute, the label of the window that it overlaps most; of two windows that it overlaps equally
it takes the earlier, and a word outside all windows has none. Words in a row with the same labels share a line:

    [0.0-2.1 s] man, sad, valence 0.31, arousal 0.20, dominance 0.40: I took the train

The labels are those that stand in the clip's segments and nothing else: predicted ones in a predicted clip, human ones in a
reference clip. Times count from the start of the clip.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from undertone.lexicon import GENDER_WORDS
from undertone.records import DIMENSIONS, Clip, Segment


@dataclass(frozen=True)
class Tone:
    """How a stretch of speech sounds; None for what nobody labelled. V/A/D in 0..1."""

    emotion: str | None = None
    gender: str | None = None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None

    def __str__(self) -> str:
        named = [GENDER_WORDS.get(self.gender or "", (self.gender,))[0], self.emotion]
        numbers = [f"{name} {value:.2f}" for name in DIMENSIONS if (value := getattr(self, name)) is not None]
        return ", ".join([one for one in named if one] + numbers) or "no labels"


def tones(segment: Segment) -> tuple[Tone, ...]:
    """The tone of each word of a segment, in the order of its words (`Segment.with_labels`)."""
    words = segment.with_labels(segment.labels).words
    return tuple(Tone(one.emotion, one.gender, one.valence, one.arousal, one.dominance) for one in words)


def whole_tone(segment: Segment) -> Tone:
    """The tone of a segment as a whole: the categories that fill most of its time, the means of the numbers."""
    return Tone(segment.category("emotion"), segment.category("gender"), *(segment.number(name) for name in DIMENSIONS))


def render(clip: Clip) -> str:
    """The evidence of a clip, a line for each run of words that sound alike; a segment without word times is one line.

    Where the clip has several known speakers, each line also says which one speaks ("speaker 1" is the first to be heard).
    """
    order = list(dict.fromkeys(one.speaker for one in clip.segments if one.speaker))
    lines = []
    for segment in clip.segments:
        who = f"speaker {order.index(segment.speaker) + 1}, " if segment.speaker and len(order) > 1 else ""
        for start_ms, end_ms, tone, text in _runs(segment):
            lines.append(f"[{(start_ms - clip.start_ms) / 1000:.1f}-{(end_ms - clip.start_ms) / 1000:.1f} s] {who}{tone}: {text}")
    return "\n".join(lines)


def _runs(segment: Segment) -> list[tuple[int, int, Tone, str]]:
    if not segment.words:
        return [(segment.start_ms, segment.end_ms, whole_tone(segment), segment.transcript or "(no words)")]
    made = []
    for tone, run in itertools.groupby(zip(segment.words, tones(segment), strict=True), key=lambda pair: pair[1]):
        words = [word for word, _ in run]
        made.append((words[0].start_ms, words[-1].end_ms, tone, " ".join(word.text for word in words)))
    return made
