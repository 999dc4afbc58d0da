"""The labeller `prosody`: pitch, loudness, speech rate and pauses of a segment, measured and not learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave, rms_db
from undertone.label.protocol import Scalar, Value, abstain, labeller, scalar

Floats = npt.NDArray[np.float64]

RATE_HZ = 16_000
_HOP = 160  # 10 ms
_SEMITONES_PER_OCTAVE = 12

_F0_WINDOW = 640  # 40 ms: three periods of the lowest pitch
_F0_FFT = 1024  # window + longest lag, so that the circular autocorrelation does not wrap around
_F0_LOW_HZ, _F0_HIGH_HZ = 75.0, 500.0
_VOICED = 0.5  # height of the autocorrelation peak; Praat's voicing threshold is 0.45
_OCTAVE_COST = 0.03  # per octave, in favour of the higher of equal candidates; Praat's is 0.01
_VOICED_RANGE_DB = 30.0  # frames this far below the loud ones are not the voice
_BEST_RANGE_ST = 9.0  # around the median; more is an octave error

_NUCLEUS_DIP_DB = 2.0  # de Jong & Wempe (2009): a nucleus stands 2 dB above the dips around it
_SILENCE_DB = -25.0  # de Jong & Wempe (2009): relative to the 99th percentile of the intensity
_MIN_PAUSE_FRAMES = 20  # shorter silences are closures of stops
_LEAST_DB = -70.0


@dataclass(frozen=True)
class Pitch:
    """Fundamental frequency every 10 ms: `hz` where `voiced` (0 elsewhere), both of shape (frames,)."""

    hz: Floats
    voiced: npt.NDArray[np.bool_]


@labeller(
    "prosody",
    version="1",
    emits=[
        Scalar("pitch_mean_hz", unit="Hz"),
        Scalar("pitch_range_st", unit="semitones"),
        Scalar("energy_db", unit="dB re full scale"),
        Scalar("speech_rate_hz", unit="syllable nuclei/s"),
        Scalar("pause_share", low=0.0, high=1.0),
    ],
    rate_hz=RATE_HZ,
    min_ms=100,
)
def prosody(wave: Wave, *, min_voiced_ms: int = 100) -> list[Value]:
    """Measure mean pitch, its range (5th to 95th percentile), level, syllable nuclei per second, and the share of pauses.

    Pitch and rate abstain where less than `min_voiced_ms` is voiced.
    """
    found = pitch(wave)
    intensity = _intensity_db(wave)
    values = [scalar("energy_db", rms_db(wave)), scalar("pause_share", _pause_share(intensity))]
    if 10 * int(found.voiced.sum()) < min_voiced_ms:
        return [*values, *(abstain(name, "too_little_voice") for name in ("pitch_mean_hz", "pitch_range_st", "speech_rate_hz"))]
    hz = found.hz[found.voiced]
    low, high = np.percentile(hz, [5, 95])
    return [
        *values,
        scalar("pitch_mean_hz", float(hz.mean())),
        scalar("pitch_range_st", _SEMITONES_PER_OCTAVE * float(np.log2(high / low))),
        scalar("speech_rate_hz", len(nuclei(intensity, found.voiced)) * 1000 / wave.duration_ms),
    ]


def pitch(wave: Wave) -> Pitch:
    """Fundamental frequency by the autocorrelation method of Boersma (1993), vectorised over frames.

    "Accurate short-term analysis of the fundamental frequency", IFA Proceedings 17: the autocorrelation of a windowed frame divided
    by that of the window, its highest peak refined by a parabola. In place of the path search, candidates further than 9 semitones
    from the wave's median pitch are searched again within that distance, or else are unvoiced.

    Args:
        wave: At 16 kHz; frame t is centred at (t + 0.5) * 10 ms.
    """
    count = len(wave.samples) // _HOP
    if count == 0:
        return Pitch(np.zeros(0), np.zeros(0, bool))
    frames = _frames(wave.samples, count, _F0_WINDOW)
    power = np.mean(np.square(frames), axis=1) + 1e-12
    power_db = 10.0 * np.log10(power)
    loud = power_db > max(_LEAST_DB, float(np.percentile(power_db, 95)) - _VOICED_RANGE_DB)
    hann = np.hanning(_F0_WINDOW).astype(np.float32)
    strength = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * hann) / _autocorrelation(hann[None, :])
    lags = np.arange(int(RATE_HZ / _F0_HIGH_HZ), int(RATE_HZ / _F0_LOW_HZ) + 1)
    hz, height = _best_lag(strength, lags)
    voiced = loud & (height > _VOICED)
    if voiced.any():
        median = float(np.median(hz[voiced]))
        factor = 2 ** (_BEST_RANGE_ST / _SEMITONES_PER_OCTAVE)
        near = np.arange(max(lags[0], int(RATE_HZ / median / factor)), min(lags[-1], int(RATE_HZ / median * factor)) + 1)
        hz, height = _best_lag(strength, near)
        voiced = loud & (height > _VOICED)
    return Pitch(np.where(voiced, hz, 0.0), voiced)


def _frames(samples: npt.NDArray[np.float32], count: int, width: int) -> npt.NDArray[np.float32]:
    """Overlapping windows centred at (t + 0.5) * 10 ms, shape (count, width)."""
    left = (width - _HOP) // 2
    return np.lib.stride_tricks.sliding_window_view(np.pad(samples, (left, width)), width)[::_HOP][:count]


def _autocorrelation(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Normalised to 1 at lag 0; shape (frames, 512)."""
    spectrum = np.fft.rfft(frames, n=_F0_FFT)
    auto = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, n=_F0_FFT)[:, : _F0_FFT // 2]
    return np.asarray(auto / (auto[:, :1] + 1e-9), dtype=np.float32)


def _best_lag(strength: npt.NDArray[np.float32], lags: npt.NDArray[np.int_]) -> tuple[Floats, Floats]:
    """Frequency and height of the best local maximum among consecutive lags; height 0 where there is none."""
    inner = strength[:, lags]
    before, after = strength[:, lags - 1], strength[:, lags + 1]
    peak = (inner >= before) & (inner > after)
    score = np.where(peak, inner - _OCTAVE_COST * np.log2(lags / lags[0]), -np.inf)
    best = score.argmax(axis=1)
    rows = np.arange(len(best))
    left, middle, right = before[rows, best], inner[rows, best], after[rows, best]
    bend = left - 2.0 * middle + right
    shift = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), 0.0)
    return RATE_HZ / (lags[best] + np.clip(shift, -0.5, 0.5)).astype(np.float64), np.where(peak[rows, best], middle, 0.0)


def _intensity_db(wave: Wave) -> Floats:
    """Level every 10 ms over 64 ms (Praat's intensity at a pitch floor of 50 Hz), smooth enough that a period is no peak."""
    count = len(wave.samples) // _HOP
    if count == 0:
        return np.zeros(0)
    hann = np.hanning(1024)
    power = np.square(_frames(wave.samples, count, 1024), dtype=np.float64) @ (hann / hann.sum())
    return np.asarray(10.0 * np.log10(power + 1e-12))


def _silence_db(intensity: Floats) -> float:
    return max(_LEAST_DB, float(np.percentile(intensity, 99)) + _SILENCE_DB)


def _pause_share(intensity: Floats) -> float:
    """Share of the time in silences of at least 200 ms."""
    quiet = np.concatenate([[False], intensity < _silence_db(intensity), [False]]) if len(intensity) else np.zeros(2, bool)
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= _MIN_PAUSE_FRAMES].sum() / max(1, len(intensity)))


def nuclei(intensity: Floats, voiced: npt.NDArray[np.bool_]) -> npt.NDArray[np.int_]:
    """Frames of syllable nuclei: voiced peaks of intensity with dips of 2 dB around them.

    De Jong & Wempe (2009), "Praat script to detect syllable nuclei and measure speech rate automatically", Behavior Research Methods
    41(2).

    Args:
        intensity: dB every 10 ms, shape (frames,).
        voiced: Of the same shape.
    """
    inner = intensity[1:-1]
    peaks = np.flatnonzero((inner >= intensity[:-2]) & (inner > intensity[2:]) & (inner > _silence_db(intensity))) + 1
    kept: list[int] = []
    for peak in peaks.tolist():
        # A dip that is too shallow joins two peaks: the higher one stands for both.
        if kept and intensity[kept[-1] : peak].min() > min(intensity[kept[-1]], intensity[peak]) - _NUCLEUS_DIP_DB:
            if intensity[peak] > intensity[kept[-1]]:
                kept[-1] = peak
        else:
            kept.append(peak)
    return np.array([peak for peak in kept if voiced[peak]], dtype=int)
