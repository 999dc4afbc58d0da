"""A stretch of mono sound, and the few things that are measured and done with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from undertone.errors import AudioError

Samples = npt.NDArray[np.float32]

FLOOR_DB = -120.0
"""What digital silence measures; the least level that `rms_db` returns."""


@dataclass(frozen=True, eq=False)
class Wave:
    """Mono sound: float32 samples in -1..1, shape (n,), at `rate_hz` samples per second."""

    samples: Samples
    rate_hz: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise AudioError(f"a Wave holds float32 samples of shape (n,); got {self.samples.dtype} of shape {self.samples.shape}")
        if self.rate_hz <= 0:
            raise AudioError(f"a Wave has a sampling rate above 0; got {self.rate_hz}")

    @property
    def duration_ms(self) -> int:
        """Whole milliseconds, rounded down as in `Recording.duration_ms`."""
        return len(self.samples) * 1000 // self.rate_hz

    def cut(self, start_ms: int, end_ms: int | None = None) -> Wave:
        """The part from `start_ms` to `end_ms` (a view; clamped at the end, like a slice).

        Raises:
            AudioError: The part is empty or begins outside the wave.
        """
        start = sample_at(start_ms, self.rate_hz)
        end = len(self.samples) if end_ms is None else min(len(self.samples), sample_at(end_ms, self.rate_hz))
        if start < 0 or end <= start:
            raise AudioError(f"no sound between {start_ms} and {end_ms} ms; the wave is {self.duration_ms} ms long")
        return Wave(self.samples[start:end], self.rate_hz)


def sample_at(time_ms: int, rate_hz: int) -> int:
    """The index of the first sample at or before a time."""
    return time_ms * rate_hz // 1000


def join(waves: Sequence[Wave]) -> Wave:
    """One wave after the other.

    Raises:
        AudioError: There are none, or their rates differ.
    """
    rates = {one.rate_hz for one in waves}
    if len(rates) != 1:
        raise AudioError(f"cannot join {len(waves)} waves at rates {sorted(rates)}; expected one rate")
    return Wave(np.concatenate([one.samples for one in waves]), rates.pop())


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def rms_db(wave: Wave) -> float:
    """Root mean square level in dB relative to full scale, at least -120."""
    return max(FLOOR_DB, 20.0 * float(np.log10(max(_rms(wave.samples), 1e-12))))


def normalise(wave: Wave, *, rms: float = 0.05) -> Wave:
    """Scale to an RMS amplitude (0.05 is -26 dB, the active speech level of ITU-T P.56 practice), less where a peak would clip.

    Silence stays silence.
    """
    if not 0 < rms <= 1:
        raise AudioError(f"rms: got {rms}, expected above 0 and at most 1 (a linear amplitude, not dB)")
    level = _rms(wave.samples)
    if level == 0:
        return wave
    return Wave((wave.samples * np.float32(min(rms / level, 1.0 / _peak(wave.samples)))).astype(np.float32), wave.rate_hz)


def mix(a: Wave, b: Wave, snr_db: float) -> Wave:
    """Add `b` (noise) to `a` (speech) so that `a` is `snr_db` above it; the result is as long as `a`.

    `b` is repeated or cut to that length and measured on what is used. The sum is scaled down where it would clip. Where either
    is silent there is no ratio, and `a` comes back unchanged.

    Raises:
        AudioError: The rates differ, or one of the two is empty.
    """
    if a.rate_hz != b.rate_hz:
        raise AudioError(f"cannot mix {a.rate_hz} Hz with {b.rate_hz} Hz; load both with the same rate_hz")
    if not len(a.samples) or not len(b.samples):
        raise AudioError("cannot mix an empty wave")
    noise = np.resize(b.samples, len(a.samples))
    speech_rms, noise_rms = _rms(a.samples), _rms(noise)
    if speech_rms == 0 or noise_rms == 0:
        return a
    total = a.samples + noise * np.float32(speech_rms / noise_rms * 10 ** (-snr_db / 20))
    return Wave((total / np.float32(max(1.0, _peak(total)))).astype(np.float32), a.rate_hz)


def _peak(samples: Samples) -> float:
    return float(np.abs(samples).max())
