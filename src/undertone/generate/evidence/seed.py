"""The seed transcript of DeSTA2 and DeSTA2.5: words first, then what is known of the voice, in brackets.

    [00:00-00:03] I took the train (Gender: male, Emotion: sad, Pitch: high, Volume: low, Speed: medium)

Attributes that are not known are left out, and the brackets where none is. Pitch is the level within the gender where that is known,
among all voices elsewhere; it, volume and speed are those of the whole segment that the words stand in.

Rounding: the start down and the end up to a second; from an hour on a time is hh:mm:ss. Levels only, no Hz and no dB.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from undertone.generate.evidence.escape import escape_label, unescape
from undertone.generate.evidence.form import Form, from_spoken, spoken
from undertone.generate.evidence.lines import Grain, Line, Tone, Voice

_TIME = r"(?:[0-9]{2,}:)?[0-9]{2}:[0-9]{2}"
# The words hold no bracket before a name and a colon (`escape`), so the first one opens the attributes.
_LINE = re.compile(rf"\[({_TIME})-({_TIME})\] (.*?)(?: \(([A-Z][a-z]*: .*)\))?")
_TONE, _VOICE = ("Gender", "Emotion"), ("Pitch", "Volume", "Speed")


class Seed(Form):
    """A transcript with attributes behind each line."""

    name: ClassVar[str] = "seed"
    legend: ClassVar[str] = (
        "Each line is a stretch of speech: its time in minutes and seconds, the words, and in brackets who speaks where that is known, and how "
        "the voice sounds; levels from very low to very high say how its pitch compares with that of voices of its gender, its volume with the "
        "rest of the clip, and its speed with that of other speech."
    )
    grain: ClassVar[Grain] = "category"

    def write(self, line: Line) -> str:
        """`[mm:ss-mm:ss] words (Name: value, ...)`."""
        known: dict[str, str | int | None] = {
            "Speaker": line.speaker,
            "Gender": line.tone.gender,
            "Emotion": line.tone.emotion,
            "Pitch": line.voice.pitch_in_gender or line.voice.pitch,
            "Volume": line.voice.volume,
            "Speed": line.voice.speed,
        }
        told = ", ".join(f"{name}: {escape_label(str(value))}" for name, value in known.items() if value is not None)
        times = f"{_clock(line.start_ms // 1000)}-{_clock(-(-line.end_ms // 1000))}"
        return f"[{times}] {spoken(line.text)}{f' ({told})' if told else ''}"

    def read(self, text: str) -> Line:
        """The inverse of `write`; the pitch becomes `Voice.pitch`, whatever it was compared with."""
        found = _LINE.fullmatch(text)
        if found is None:
            raise ValueError("expected [00:00-00:03] words (Name: value, ...)")
        start, end, words, told = found.groups()
        known = dict(_attribute(one) for one in told.split(", ")) if told else {}
        voice: dict[str, Any] = {name.lower(): known[name] for name in _VOICE if name in known}
        return Line(
            start_ms=_from_clock(start),
            end_ms=_from_clock(end),
            speaker=int(known["Speaker"]) if "Speaker" in known else None,
            tone=Tone(emotion=known.get("Emotion"), gender=known.get("Gender")),
            voice=Voice(**voice),
            text=from_spoken(words),
        )


def _attribute(written: str) -> tuple[str, str]:
    name, colon, value = written.partition(": ")
    if not colon or name not in ("Speaker", *_TONE, *_VOICE):
        raise ValueError(f"got {written!r} for an attribute, expected one of Speaker, {', '.join((*_TONE, *_VOICE))} and its value")
    return name, unescape(value)


def _clock(seconds: int) -> str:
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours:02}:{minutes % 60:02}:{seconds % 60:02}" if hours else f"{minutes:02}:{seconds % 60:02}"


def _from_clock(text: str) -> int:
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return 1000 * total
