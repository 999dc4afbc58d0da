"""Words with the labels of their windows (2505.13338), and the same with V/A/D and intensity (2508.07273).

    [0.0-2.1 s] man, sad, valence 0.31, arousal 0.20, dominance 0.40: I took the train

The papers give each word its window's labels; words in a row with the same labels share a line here, which says the same in fewer
tokens. Where the clip has several known speakers, each line also says which one speaks ("speaker 1" is the first to be heard). An
emotion with its arousal ends in "intensity strong" or "intensity mild" where it is one (`levels.intensity`).

Rounding: times to 0.1 s, V/A/D to 0.01.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from undertone.generate.evidence.escape import escape_label, unescape
from undertone.generate.evidence.form import Form, from_seconds, from_spoken, seconds, spoken
from undertone.generate.evidence.levels import intensity
from undertone.generate.evidence.lines import Grain, Line, Tone
from undertone.lexicon import GENDER_WORDS
from undertone.records import DIMENSIONS

_LINE = re.compile(r"\[([0-9.]+)-([0-9.]+) s\] ([^:]*): (.*)")
_PLAIN = re.compile(r"[\w-]+")
_NUMBER = re.compile(r"-?[0-9]+\.[0-9]{2}")
_NO_LABELS = "no labels"
_NOUN_OF = {gender: words[0] for gender, words in GENDER_WORDS.items()}
_GENDER_OF = {noun: gender for gender, noun in _NOUN_OF.items()}


class Words(Form):
    """Words with emotion and gender."""

    name: ClassVar[str] = "words"
    legend: ClassVar[str] = (
        "Each line is a stretch of speech: its time, who speaks where that is known, the gender and the emotion of the voice, and after the "
        "colon the words."
    )
    grain: ClassVar[Grain] = "category"
    numbers: ClassVar[tuple[str, ...]] = ()

    def write(self, line: Line) -> str:
        """`[start-end s] speaker, gender, emotion: words`; what is not known is left out."""
        who = "" if line.speaker is None else f"speaker {line.speaker}, "
        labels = ", ".join(self._labels(line.tone)) or _NO_LABELS
        return f"[{seconds(line.start_ms)}-{seconds(line.end_ms)} s] {who}{labels}: {spoken(line.text)}"

    def read(self, text: str) -> Line:
        """The inverse of `write`."""
        found = _LINE.fullmatch(text)
        if found is None:
            raise ValueError("expected [0.0-2.1 s] labels: words")
        start, end, head, words = found.groups()
        speaker = None
        labels: dict[str, Any] = {}
        for item in head.split(", "):
            name, value = _read_item(item)
            if name == "speaker":
                speaker = int(value)
            elif name is not None:
                labels[name] = value
        tone = Tone(**labels)
        return Line(start_ms=from_seconds(start), end_ms=from_seconds(end), speaker=speaker, tone=tone, text=from_spoken(words))

    def _labels(self, tone: Tone) -> list[str]:
        made = []
        if tone.gender is not None:
            made.append(_NOUN_OF.get(tone.gender) or f"gender {escape_label(tone.gender)}")
        if tone.emotion is not None:
            is_plain = _PLAIN.fullmatch(tone.emotion) and tone.emotion not in _GENDER_OF
            made.append(tone.emotion if is_plain else f"emotion {escape_label(tone.emotion)}")
        shown = {name: value for name in self.numbers if (value := getattr(tone, name)) is not None}
        made += [f"{name} {value:.2f}" for name, value in shown.items()]
        strength = intensity(tone.emotion, round(shown["arousal"], 2) if "arousal" in shown else None)
        return [*made, f"intensity {strength}"] if strength else made


def _read_item(item: str) -> tuple[str | None, Any]:
    """The attribute that one item of a head is about, and its value; none for "no labels", and for the intensity, which follows."""
    if item in _GENDER_OF:
        return "gender", _GENDER_OF[item]
    name, space, value = item.partition(" ")
    if not space:
        return "emotion", item
    if name in ("emotion", "gender"):
        return name, unescape(value)
    if name in DIMENSIONS and _NUMBER.fullmatch(value):
        return name, float(value)
    if name == "speaker" and value.isascii() and value.isdigit():
        return name, int(value)
    if name == "intensity" or item == _NO_LABELS:
        return None, None
    raise ValueError(f"got {item!r} among the labels, expected such as 'speaker 1', 'woman', 'sad' or 'valence 0.31'")


class Dimensional(Words):
    """Words with emotion, gender, V/A/D and intensity."""

    name: ClassVar[str] = "dimensional"
    legend: ClassVar[str] = (
        "Each line is a stretch of speech: its time, who speaks where that is known, the gender and the emotion of the voice, then its "
        "valence, arousal and dominance from 0 to 1 (how pleasant, how agitated, and how much in control it sounds), whether the emotion is "
        "strong or mild where it is one, and after the colon the words."
    )
    grain: ClassVar[Grain] = "tone"
    numbers: ClassVar[tuple[str, ...]] = DIMENSIONS
