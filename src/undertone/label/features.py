"""The log-mel and pitch front end that `affect-small` hears through, in numpy only.

Training and inference call the same function, so a difference between the two cannot exist. The front end is
loudness-normalised, because recording levels differ between corpora by up to 20 dB and a network that sees the
level learns the corpus instead of the voice.

One row every 10 ms, centred at `(t + 0.5) * 10 ms`, with 66 columns:

- 0..63: log-mel power of a 25 ms Hann window through 64 triangular filters from 60 to 7,600 Hz (HTK scale), in dB
  relative to the speech level of the utterance, clipped to -60..+30, then divided by 20;
- 64: fundamental frequency in octaves above 200 Hz (0 where unvoiced);
- 65: voicing, the height of the normalised autocorrelation peak, 0..1 (0 in frames 45 dB below the speech level).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from undertone.errors import AudioError

FRONT_END_VERSION = "1"
"""Changes whenever equal samples would give other features: part of what encoded frames are a function of."""

RATE_HZ = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
MELS = 64
FEATURES = MELS + 2
FLOOR_DB, CEILING_DB, DB_SCALE = -60.0, 30.0, 20.0

_FFT = 512
_MEL_LOW_HZ, _MEL_HIGH_HZ = 60.0, 7_600.0
_PITCH_WINDOW = 640  # 40 ms: two and a half periods at the lowest pitch that is searched
_PITCH_FFT = 1024  # at least window + longest lag, so that the circular autocorrelation does not wrap
_PITCH_LOW_HZ, _PITCH_HIGH_HZ = 65.0, 600.0  # shouted acted speech reaches 600 Hz
_OCTAVE_COST = 0.02  # favours the higher of two equally strong candidates (Boersma, 1993, eq. 26)
_SPEECH_RANGE_DB = 25.0  # frames this far below the loud ones are pauses and do not count towards the level

Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Features:
    """What the front end hears in one utterance.

    Attributes:
        values: float32 of shape (frames, 66), 100 frames per second; see the module docstring for the columns.
        speech_level_db: mean power of the frames that are not pauses, dB relative to full scale (about -120 for
            digital silence).
    """

    values: Array
    speech_level_db: float


def log_mel(samples: npt.NDArray[np.floating]) -> Features:
    """Turn mono 16 kHz samples into loudness-normalised log-mel and pitch features.

    Args:
        samples: float waveform in -1..1, shape (n,).

    Returns:
        Features of `n // 160` frames; zero rows for an input shorter than one hop.

    Raises:
        AudioError: the array is not one-dimensional, or holds NaN or infinity.
    """
    wave = np.asarray(samples, dtype=np.float32)
    if wave.ndim != 1:
        raise AudioError(f"samples: got shape {wave.shape}, expected one dimension (mono, 16 kHz)")
    if not bool(np.isfinite(wave).all()):
        raise AudioError("samples: holds NaN or infinity, expected finite floats in -1..1")
    frames = wave.shape[0] // HOP_SAMPLES
    if frames == 0:
        return Features(np.zeros((0, FEATURES), dtype=np.float32), -120.0)
    windows = _frame(wave, frames, WINDOW_SAMPLES)
    level_db = _speech_level_db(windows)
    hann = _hann(WINDOW_SAMPLES)
    power = np.abs(np.fft.rfft(windows * hann, n=_FFT)).astype(np.float32) ** 2
    # Divided by the window's energy, so that white noise of power p reads p in every bin, as the level does.
    mel = (power / np.float32(np.sum(hann**2))) @ _mel_filters()
    mel_db = 10.0 * np.log10(mel + 1e-12) - level_db
    values = np.empty((frames, FEATURES), dtype=np.float32)
    values[:, :MELS] = np.clip(mel_db, FLOOR_DB, CEILING_DB) / DB_SCALE
    values[:, MELS:] = _pitch(_frame(wave, frames, _PITCH_WINDOW), level_db)
    return Features(values, level_db)


def _frame(wave: Array, frames: int, width: int) -> Array:
    """Cut overlapping windows of `width` samples whose centres lie at (t + 0.5) hops; shape (frames, width)."""
    left = (width - HOP_SAMPLES) // 2
    padded = np.pad(wave, (left, width))
    return np.lib.stride_tricks.sliding_window_view(padded, width)[::HOP_SAMPLES][:frames]


def _speech_level_db(windows: Array) -> float:
    """Mean power of the windows within 25 dB of the 95th percentile, dB re full scale."""
    power = np.mean(windows.astype(np.float64) ** 2, axis=1) + 1e-12
    loud = np.percentile(power, 95)
    return float(10.0 * np.log10(np.mean(power[power >= loud * 10 ** (-_SPEECH_RANGE_DB / 10)])))


@functools.cache
def _hann(width: int) -> Array:
    return np.hanning(width + 1)[:-1].astype(np.float32)


@functools.cache
def _mel_filters() -> Array:
    """Triangular filters on the HTK mel scale, each normalised to sum 1; shape (257, 64)."""

    def to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 2595.0 * np.log10(1.0 + hz / 700.0)

    low, high = to_mel(np.array([_MEL_LOW_HZ, _MEL_HIGH_HZ]))
    edges = np.linspace(low, high, MELS + 2)
    bins = to_mel(np.arange(_FFT // 2 + 1) * RATE_HZ / _FFT)
    rise = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    empty = filters.sum(axis=0) == 0  # narrow low filters can fall between two FFT bins
    nearest = np.abs(bins[:, None] - edges[None, 1:-1]).argmin(axis=0)
    filters[nearest[empty], np.flatnonzero(empty)] = 1.0
    result: Array = (filters / filters.sum(axis=0)).astype(np.float32)
    return result


def _pitch(windows: Array, level_db: float) -> Array:
    """Pitch by the window-corrected autocorrelation of Boersma (1993); shape (frames, 2): octaves re 200 Hz, voicing."""
    hann = _hann(_PITCH_WINDOW)
    centred = (windows - windows.mean(axis=1, keepdims=True)) * hann
    spectrum = np.fft.rfft(centred, n=_PITCH_FFT)
    auto = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, n=_PITCH_FFT).astype(np.float32)
    lags = np.arange(int(RATE_HZ / _PITCH_HIGH_HZ), int(RATE_HZ / _PITCH_LOW_HZ) + 1)
    strength = auto[:, lags[0] - 1 : lags[-1] + 2] / (auto[:, :1] + 1e-9) / _window_autocorrelation()[None, :]
    inner = strength[:, 1:-1]
    # Only local maxima are periods: at the shortest lag a smooth low-frequency signal is high without one.
    peaks = (inner >= strength[:, :-2]) & (inner > strength[:, 2:])
    score = np.where(peaks, inner - _OCTAVE_COST * np.log2(lags / lags[0]), -1.0)
    best = score.argmax(axis=1)
    rows = np.arange(len(best))
    height = np.where(peaks[rows, best], inner[rows, best], 0.0)
    before, after = strength[rows, best], strength[rows, best + 2]
    bend = before - 2.0 * inner[rows, best] + after
    shift = np.where(np.abs(bend) > 1e-6, 0.5 * (before - after) / np.where(bend == 0, 1.0, bend), 0.0)
    hz = RATE_HZ / (lags[best] + np.clip(shift, -0.5, 0.5))
    power_db = 10.0 * np.log10(np.mean(windows**2, axis=1) + 1e-12)
    voicing = np.clip(height, 0.0, 1.0) * (power_db > level_db - 45.0)
    octaves = np.log2(hz / 200.0) * np.clip((voicing - 0.35) / 0.2, 0.0, 1.0)
    return np.stack([octaves, voicing], axis=1).astype(np.float32)


@functools.cache
def _window_autocorrelation() -> Array:
    """Autocorrelation of the pitch window itself at the searched lags and one beyond each end, normalised to lag 0."""
    spectrum = np.fft.rfft(_hann(_PITCH_WINDOW).astype(np.float64), n=2 * _PITCH_FFT)
    auto = np.fft.irfft(np.abs(spectrum) ** 2)
    low, high = int(RATE_HZ / _PITCH_HIGH_HZ) - 1, int(RATE_HZ / _PITCH_LOW_HZ) + 1
    result: Array = (auto[low : high + 1] / auto[0]).astype(np.float32)
    return result
