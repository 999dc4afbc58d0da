"""What evidence is before it is text: stretches of speech in time order, each with its words and how it sounds.

Each word inherits, attribute by attribute, the label of the window that it overlaps most; of two windows that it overlaps equally
it takes the earlier, and a word outside all windows has none. Words in a row with the same labels share a stretch.

The labels are those that stand in the clip's segments and nothing else: predicted ones in a predicted clip, human ones in a
reference clip. Times count from the start of the clip.
"""

from __future__ import annotations

import itertools
import statistics
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.generate.evidence.levels import PITCH_HZ, PITCH_OVERALL_HZ, SPEED_HZ, VOLUME_DB, Level, level
from undertone.records import DIMENSIONS, Clip, Segment

Grain = Literal["tone", "category", "segment"]
"""What a stretch is: words with the same emotion, gender and V/A/D; with the same emotion and gender; a whole segment."""


@dataclass(frozen=True)
class Tone:
    """How a stretch of speech sounds; None for what nobody labelled. V/A/D in 0..1."""

    emotion: str | None = None
    gender: str | None = None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Voice(_Part):
    """How the segment of a stretch was measured (labeller `prosody`); None for what was not.

    Attributes:
        pitch_hz: Mean F0.
        pitch: Its level among all voices.
        pitch_in_gender: Its level among voices of the stretch's gender.
        pitch_range_st: 5th to 95th percentile of F0 in semitones.
        volume_db: RMS level re full scale.
        volume: Its level among the clip's segments; absolute levels differ with the recording by more than with the voice.
        speed_hz: Syllable nuclei per second of speech, pauses left out where they were measured.
        speed: Its level.
        pause_share: Share of silences, 0..1.
    """

    pitch_hz: float | None = None
    pitch: Level | None = None
    pitch_in_gender: Level | None = None
    pitch_range_st: float | None = None
    volume_db: float | None = None
    volume: Level | None = None
    speed_hz: float | None = None
    speed: Level | None = None
    pause_share: float | None = None


class Line(_Part):
    """One stretch of speech.

    Attributes:
        start_ms, end_ms: From the start of the clip.
        speaker: 1 for the first to be heard; None where the clip has no two known speakers.
        tone: Its labels.
        voice: The measurements of its segment.
        text: Its words; None where they are not known.
    """

    start_ms: int = Field(ge=0)
    end_ms: int = Field(ge=0)
    speaker: int | None = Field(default=None, ge=1)
    tone: Tone = Tone()
    voice: Voice = Voice()
    text: str | None = None

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end_ms < self.start_ms:
            raise ValueError(f"a stretch ends before it starts; got {self.start_ms}-{self.end_ms} ms")
        return self

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms


class Gap(_Part):
    """Speech that was left out for want of room.

    Attributes:
        ms: How much.
        neutral: Whether all of it was labelled neutral.
    """

    ms: int = Field(ge=0)
    neutral: bool = False


class Evidence(_Part):
    """A clip as a generator reads it."""

    parts: tuple[Line | Gap, ...] = ()

    @property
    def lines(self) -> tuple[Line, ...]:
        """The stretches that are told."""
        return tuple(one for one in self.parts if isinstance(one, Line))

    @property
    def left_out_ms(self) -> int:
        """How much speech is not told."""
        return sum(one.ms for one in self.parts if isinstance(one, Gap))


_LAST_TONES: OrderedDict[int, tuple[Segment, tuple[Tone, ...]]] = OrderedDict()
_LAST = 64


def tones(segment: Segment) -> tuple[Tone, ...]:
    """The tone of each word of a segment, in the order of its words (`Segment.with_labels`).

    Those of the last segments are kept: evidence, questions and pairs of one clip ask for them four times over.
    """
    held = _LAST_TONES.get(id(segment))
    if held is None or held[0] is not segment:
        words = segment.with_labels(segment.labels).words
        made = tuple(Tone(one.emotion, one.gender, one.valence, one.arousal, one.dominance) for one in words)
        held = _LAST_TONES[id(segment)] = (segment, made)
        if len(_LAST_TONES) > _LAST:
            _LAST_TONES.popitem(last=False)
    return held[1]


def whole_tone(segment: Segment) -> Tone:
    """The tone of a segment as a whole: the categories that fill most of its time, the means of the numbers."""
    return Tone(segment.category("emotion"), segment.category("gender"), *(segment.number(name) for name in DIMENSIONS))


def lines_of(clip: Clip, grain: Grain) -> tuple[Line, ...]:
    """All stretches of a clip; a segment without word times is one, whatever the grain."""
    order = list(dict.fromkeys(one.speaker for one in clip.segments if one.speaker))
    levels_db = [db for one in clip.segments if (db := one.number("energy_db")) is not None]
    typical_db = statistics.median(levels_db) if len(levels_db) > 1 else None
    made = []
    for segment in clip.segments:
        speaker = order.index(segment.speaker) + 1 if segment.speaker and len(order) > 1 else None
        for start_ms, end_ms, tone, text in _stretches(segment, grain):
            made.append(
                Line(
                    start_ms=max(0, start_ms - clip.start_ms),
                    end_ms=max(0, end_ms - clip.start_ms),
                    speaker=speaker,
                    tone=tone,
                    voice=_voice(segment, tone.gender, typical_db),
                    text=text or None,
                )
            )
    return tuple(made)


def _stretches(segment: Segment, grain: Grain) -> Iterator[tuple[int, int, Tone, str | None]]:
    if grain == "segment" or not segment.words:
        text = segment.transcript or " ".join(one.text for one in segment.words)
        yield segment.start_ms, segment.end_ms, whole_tone(segment), text
        return
    shown = [one if grain == "tone" else Tone(one.emotion, one.gender) for one in tones(segment)]
    for tone, run in itertools.groupby(zip(segment.words, shown, strict=True), key=lambda pair: pair[1]):
        words = [word for word, _ in run]
        # An aligner may put a word before its neighbour.
        start_ms, end_ms = min(one.start_ms for one in words), max(one.end_ms for one in words)
        yield start_ms, end_ms, tone, " ".join(word.text for word in words)


def _voice(segment: Segment, gender: str | None, typical_db: float | None) -> Voice:
    hz, db, pauses = segment.number("pitch_mean_hz"), segment.number("energy_db"), segment.number("pause_share")
    rate = segment.number("speech_rate_hz")
    if rate is not None and pauses is not None:
        # Utterances of a corpus may begin and end in silence, condensed ones do not: only without it are they comparable.
        rate = rate / (1 - pauses) if pauses < 1 else None
    return Voice(
        pitch_hz=hz,
        pitch=None if hz is None else level(round(hz), PITCH_OVERALL_HZ),
        pitch_in_gender=None if hz is None or gender is None or gender not in PITCH_HZ else level(round(hz), PITCH_HZ[gender]),
        pitch_range_st=segment.number("pitch_range_st"),
        volume_db=db,
        volume=None if db is None or typical_db is None else level(db - typical_db, VOLUME_DB),
        speed_hz=rate,
        speed=None if rate is None else level(round(rate, 1), SPEED_HZ),
        pause_share=pauses,
    )
