"""Numbers as words: the one table of thresholds that evidence uses.

A value that equals a threshold belongs to the upper side. Levels are taken of values as they are shown, so that no text contradicts itself.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, get_args

from undertone.lexicon import EMOTION_WORDS

Level = Literal["very low", "low", "medium", "high", "very high"]
LEVELS: tuple[Level, ...] = get_args(Level)

PITCH_HZ: Mapping[str, tuple[int, int, int, int]] = MappingProxyType({"male": (95, 120, 135, 180), "female": (160, 200, 220, 270)})
"""Mean F0 within a gender (LTU-AS)."""

PITCH_OVERALL_HZ = tuple(sum(pair) / 2 for pair in zip(*PITCH_HZ.values(), strict=True))
"""Mean F0 among all voices: half-way between the genders' thresholds, since LTU-AS publishes none."""

SPEED_HZ = (2.7, 3.5, 4.3, 4.9)
"""Syllable nuclei per second of speech, pauses left out: fifths of 720 utterances, 240 each of RAVDESS, TESS and nEMO (2026-11-20)."""

VOLUME_DB = (-3.0, -1.0, 1.0, 3.5)
"""RMS level against the median of the clip's segments: fifths of the same utterances against the median of their speaker."""

Intensity = Literal["mild", "strong"]

STRONG_AROUSAL, MILD_AROUSAL = 0.7, 0.35
"""Arousal (0..1) from which an emotion is strong, and below which it is mild: those from which the grammar says "very", "a little"."""

QUIET_EMOTIONS = frozenset({"sad", "disgusted"})
"""Emotions of which low arousal is no sign of weakness; they are never mild."""


def level(value: float, thresholds: Sequence[float]) -> Level:
    """The level of a value among four thresholds in ascending order."""
    return LEVELS[bisect.bisect_right(thresholds, value)]


def intensity(emotion: str | None, arousal: float | None) -> Intensity | None:
    """How strong an emotion is heard; None for ordinary strength, and where nothing is known or there is nothing to grade.

    Args:
        emotion: The category; neutral, other and unknown have no strength.
        arousal: 0..1.
    """
    if arousal is None or emotion == "neutral" or emotion not in EMOTION_WORDS:
        return None
    if arousal >= STRONG_AROUSAL:
        return "strong"
    return "mild" if arousal < MILD_AROUSAL and emotion not in QUIET_EMOTIONS else None
