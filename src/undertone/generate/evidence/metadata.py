"""The metadata block of LTU-AS: one block for each segment, with what was measured and how that compares.

    [0.0-3.2 s]
    words: I took the train
    gender: male
    pitch: 118 Hz, very low overall, low within gender
    pitch range: 6.1 semitones
    volume: -21 dB, medium within the clip
    speed: 4.2 syllables/s, high
    pauses: 12 %
    emotion: sad

What is not known is left out, the level of a volume where the clip has no second segment to compare with. Blocks stand apart by an empty line.

Rounding: times and speed to 0.1, pitch range to 0.1 semitones, pitch to 1 Hz, volume to 1 dB, pauses to 1 %.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from undertone.generate.evidence.escape import escape_label, unescape
from undertone.generate.evidence.form import Form, from_seconds, from_spoken, seconds, spoken
from undertone.generate.evidence.levels import LEVELS
from undertone.generate.evidence.lines import Grain, Line, Tone, Voice

_HEAD = re.compile(r"\[([0-9.]+)-([0-9.]+) s\]")
_LEVEL = f"({'|'.join(LEVELS)})"
_NUMBER = r"(-?[0-9]+(?:\.[0-9])?)"


def _graded(value: str, *grades: tuple[str | None, str]) -> str:
    return ", ".join([value, *(f"{level}{against}" for level, against in grades if level is not None)])


def _written(line: Line) -> dict[str, str]:
    voice, made = line.voice, {"words": spoken(line.text)}
    if line.speaker is not None:
        made["speaker"] = str(line.speaker)
    if line.tone.gender is not None:
        made["gender"] = escape_label(line.tone.gender)
    if voice.pitch_hz is not None:
        made["pitch"] = _graded(f"{voice.pitch_hz:.0f} Hz", (voice.pitch, " overall"), (voice.pitch_in_gender, " within gender"))
    if voice.pitch_range_st is not None:
        made["pitch range"] = f"{voice.pitch_range_st:.1f} semitones"
    if voice.volume_db is not None:
        made["volume"] = _graded(f"{voice.volume_db:.0f} dB", (voice.volume, " within the clip"))
    if voice.speed_hz is not None:
        made["speed"] = _graded(f"{voice.speed_hz:.1f} syllables/s", (voice.speed, ""))
    if voice.pause_share is not None:
        made["pauses"] = f"{100 * voice.pause_share:.0f} %"
    if line.tone.emotion is not None:
        made["emotion"] = escape_label(line.tone.emotion)
    return made


_MEASURED: dict[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    "pitch": (
        re.compile(rf"{_NUMBER} Hz(?:, {_LEVEL} overall)?(?:, {_LEVEL} within gender)?"),
        ("pitch_hz", "pitch", "pitch_in_gender"),
    ),
    "pitch range": (re.compile(rf"{_NUMBER} semitones"), ("pitch_range_st",)),
    "volume": (re.compile(rf"{_NUMBER} dB(?:, {_LEVEL} within the clip)?"), ("volume_db", "volume")),
    "speed": (re.compile(rf"{_NUMBER} syllables/s(?:, {_LEVEL})?"), ("speed_hz", "speed")),
    "pauses": (re.compile(rf"{_NUMBER} %"), ("pause_share",)),
}
"""Name of a row -> how it is written, and the fields of `Voice` that it holds: a number, then levels."""


class Metadata(Form):
    """A block of named values for each segment."""

    name: ClassVar[str] = "metadata"
    legend: ClassVar[str] = (
        "Each block is a stretch of speech: its time, the words, who speaks, and how the voice sounds; levels from very low to very high say "
        "how its pitch compares with that of all voices and of voices of its gender, its volume with the rest of the clip, and its speed with "
        "that of other speech."
    )
    grain: ClassVar[Grain] = "segment"
    separator: ClassVar[str] = "\n\n"

    def write(self, line: Line) -> str:
        """The time, and a row for each thing that is known."""
        rows = (f"{name}: {value}" for name, value in _written(line).items())
        return "\n".join([f"[{seconds(line.start_ms)}-{seconds(line.end_ms)} s]", *rows])

    def read(self, text: str) -> Line:
        """The inverse of `write`."""
        head, *rows = text.split("\n")
        found = _HEAD.fullmatch(head)
        if found is None:
            raise ValueError("expected [0.0-3.2 s] and rows such as 'words: ...' below it")
        named = dict(_row(one) for one in rows)
        voice: dict[str, Any] = {}
        for name in _MEASURED.keys() & named.keys():
            voice |= _measured(name, named[name])
        plain: dict[str, Callable[[str], Any]] = {"gender": unescape, "emotion": unescape}
        return Line(
            start_ms=from_seconds(found[1]),
            end_ms=from_seconds(found[2]),
            speaker=int(named["speaker"]) if "speaker" in named else None,
            tone=Tone(**{name: read(named[name]) for name, read in plain.items() if name in named}),
            voice=Voice(**voice),
            text=from_spoken(named.get("words", "")),
        )


def _row(written: str) -> tuple[str, str]:
    name, colon, value = written.partition(": ")
    if not colon or name not in ("words", "speaker", "gender", "emotion", *_MEASURED):
        raise ValueError(f"got the row {written!r}, expected one of words, speaker, gender, emotion, {', '.join(_MEASURED)}")
    return name, value


def _measured(name: str, written: str) -> dict[str, float | str | None]:
    pattern, fields = _MEASURED[name]
    found = pattern.fullmatch(written)
    if found is None:
        raise ValueError(f"got {written!r} for {name}, expected a number with its unit, and its level")
    number, *levels = found.groups()
    value = float(number) / 100 if name == "pauses" else float(number)
    return {fields[0]: value, **dict(zip(fields[1:], levels, strict=True))}
