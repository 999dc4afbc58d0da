"""The labeller `speaker-change`: whether somebody else speaks, within a segment or since the one before; measured and not learned.

It is a light check for whoever has no diariser. It says nothing about how many speakers there are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave
from undertone.errors import ConfigError
from undertone.label.features import DB_SCALE, MELS, log_mel
from undertone.label.protocol import Category, Labeller, Listener, Value, abstain, category, labeller

Floats = npt.NDArray[np.float64]

_CEPSTRA = 12
_ACTIVE_DB = 29.0  # frames this far below the loud ones are pauses
_SILENCE_DB = -70.0
_STEP = 10  # frames of 10 ms between the places where a change is looked for
_FLOOR = 1e-3  # added to variances (of the order of 0.1), so that a held tone has a determinant


@labeller("speaker-change", version="1", emits=[Category("speaker_change", ("yes", "no"))], hears="recording", rate_hz=16_000)
class SpeakerChangeLabeller(Labeller):
    """Compares statistics of cepstra by their generalised likelihood ratio, in units of the penalty of the BIC.

    Chen & Gopalakrishnan (1998), "Speaker, environment and channel change detection and clustering via the Bayesian information
    criterion": one Gaussian with full covariance for both stretches against one for each. Their change is a ratio of more than
    1 (their lambda). A segment is compared at every 100 ms with itself, and with the speech since the last change; its score is the
    greater. The distribution is "yes": score / (score + threshold).

    Measured by `benchmarks/bench_speakers.py` (2026-11-20) on acted dialogues of two speakers in any emotion, for speakers that nothing
    was chosen on: recall of changes 0.82 to 1.00 at a precision of 0.49 to 0.70. On 30 s cuts of AMI (chosen on; speech by `energy`,
    `silero`) precision is 0.76 and 0.85 where chance has 0.44 and 0.67, recall 0.57 and 0.48: turns are short there and overlap, so
    that "always yes" has the better F1 with `silero`. It is a hint.

    Pitch is not compared, nor are voiced frames alone: neither helped on acted speech, because emotion moves pitch as much as another
    speaker does. What one speaker says differs from moment to moment, so that the ratio is above 1 without a change; hence the default
    threshold.
    """

    def __init__(self, *, threshold: float = 1.7, least_ms: int = 900, memory_ms: int = 10_000) -> None:
        """Store the configuration.

        Args:
            threshold: Ratio from which on it is a change; chosen on acted pairs and on the cuts of AMI that are not the test's.
            least_ms: Speech without pauses on each side of a change; segments with less abstain ("too_short").
            memory_ms: Speech before a segment that it is compared with, at most; older speech fades.
        """
        if threshold <= 0 or least_ms < 200 or memory_ms < least_ms:
            raise ConfigError(
                f"labeller 'speaker-change': got threshold {threshold}, least_ms {least_ms}, memory_ms {memory_ms}; expected a threshold "
                "above 0, at least 200 ms, and a memory that is not shorter"
            )
        self.threshold = threshold
        self.least_ms = least_ms
        self.memory_ms = memory_ms

    def listen(self) -> Listener:
        """Begin to hear a recording."""
        return _Comparison(self.threshold, self.least_ms // 10, self.memory_ms // 10)


class _Comparison(Listener):
    """Keeps the statistics of the speech since the last change; no sound."""

    def __init__(self, threshold: float, least: int, memory: int) -> None:
        self._threshold = threshold
        self._least = least
        self._memory = memory
        self._before: Statistics | None = None
        self._values: list[Value] = []

    def hear(self, wave: Wave, start_ms: int) -> None:
        self._values.append(self._judge(cepstra(wave), start_ms, start_ms + wave.duration_ms))

    def finish(self) -> Sequence[Value]:
        return self._values

    def _judge(self, frames: Floats, start_ms: int, end_ms: int) -> Value:
        whole = statistics(frames)
        inside, split = self._inside(frames)
        if len(frames) < self._least or (self._before is None and split is None):
            if self._before is None and len(frames) >= self._least:
                self._before = whole
            return abstain("speaker_change", "too_short", start_ms=start_ms, end_ms=end_ms)
        changed = split is not None and inside >= self._threshold
        first = statistics(frames[:split]) if changed else whole
        between = 0.0 if self._before is None else ratio(self._before, first)
        if changed:
            self._before = statistics(frames[split:])
        elif self._before is None or between >= self._threshold:
            self._before = whole
        else:
            self._before = self._before.plus(whole)
        self._before = self._before.faded(self._memory)
        score = max(inside, between, 0.0)
        yes = score / (score + self._threshold)
        return category("speaker_change", {"yes": yes, "no": 1.0 - yes}, start_ms=start_ms, end_ms=end_ms)

    def _inside(self, frames: Floats) -> tuple[float, int | None]:
        """The best place for a change, and its ratio; None where the segment is too short for one."""
        places = range(self._least, len(frames) - self._least + 1, _STEP)
        scores = [ratio(statistics(frames[:at]), statistics(frames[at:])) for at in places]
        return (max(scores), places[int(np.argmax(scores))]) if scores else (0.0, None)


class Statistics(NamedTuple):
    """What is kept of some frames: how many, their sum (d,) and the sum of their outer products (d, d)."""

    frames: float
    total: Floats
    outer: Floats

    def plus(self, other: Statistics) -> Statistics:
        """Of the frames of both."""
        return Statistics(self.frames + other.frames, self.total + other.total, self.outer + other.outer)

    def faded(self, most: float) -> Statistics:
        """The same Gaussian as if of at most so many frames."""
        share = min(1.0, most / self.frames) if self.frames else 1.0
        return Statistics(share * self.frames, share * self.total, share * self.outer)

    @property
    def log_determinant(self) -> float:
        """Of the covariance."""
        mean = self.total / self.frames
        covariance = self.outer / self.frames - np.outer(mean, mean)
        return float(np.linalg.slogdet(covariance + _FLOOR * np.eye(len(mean)))[1])


def statistics(frames: Floats) -> Statistics:
    """Of frames of shape (n, d)."""
    return Statistics(float(len(frames)), frames.sum(axis=0), frames.T @ frames)


def ratio(first: Statistics, second: Statistics) -> float:
    """Log likelihood ratio of two Gaussians against one, over the BIC's penalty for the second; 0 where one is empty."""
    if not first.frames or not second.frames:
        return 0.0
    both = first.plus(second)
    gain = both.frames * both.log_determinant - first.frames * first.log_determinant - second.frames * second.log_determinant
    width = len(first.total)
    return gain / ((width + width * (width + 1) / 2) * float(np.log(both.frames)))


def cepstra(wave: Wave) -> Floats:
    """Cepstra 1 to 12 of the frames that are not pauses, shape (frames, 12), of a wave at 16 kHz; none of silence."""
    heard = log_mel(wave.samples)
    mel = heard.values[:, :MELS].astype(np.float64)
    if not len(mel) or heard.speech_level_db < _SILENCE_DB:
        return np.zeros((0, _CEPSTRA))
    power_db = 10.0 * np.log10(np.mean(10.0 ** (mel * DB_SCALE / 10.0), axis=1))
    found: Floats = mel[power_db > np.percentile(power_db, 95) - _ACTIVE_DB] @ _cosines()
    return found


@functools.cache
def _cosines() -> Floats:
    """Orthonormal cosine transform from mel bands to those cepstra."""
    bands = (np.arange(MELS) + 0.5)[:, None] * np.arange(1, _CEPSTRA + 1)[None, :]
    return np.asarray(np.cos(np.pi * bands / MELS) * np.sqrt(2.0 / MELS))
