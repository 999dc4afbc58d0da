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


# ---------------------------------------------------------------------------------------------------------------------
# Functionals: one vector of utterance statistics

_BANDS = 16
_CEPSTRA = 12
_VOICED = 0.5
_ACTIVE_DB = 30.0  # frames this far below the loud ones are pauses
_LOUD, _TILT, _HARMONIC, _PITCH = 28, 29, 30, 31  # tracks after the 16 bands and 12 cepstra
_FEW = 6  # statistics over fewer frames than this are of the next larger set of frames


@functools.cache
def _cosines() -> Array:
    """Orthonormal cosine transform from 64 mel bands to cepstra 1..12; shape (64, 12)."""
    bands = (np.arange(MELS) + 0.5)[:, None] * np.arange(1, _CEPSTRA + 1)[None, :]
    result: Array = (np.cos(np.pi * bands / MELS) * np.sqrt(2.0 / MELS)).astype(np.float32)
    return result


def functionals(values: Array) -> Array:
    """Summarise an utterance in one vector: what classical paralinguistics measures, from the rows of `log_mel`.

    In order: mean and standard deviation of 32 tracks (16 bands, cepstra 1-12, loudness, tilt, harmonicity, pitch) over
    voiced frames; percentiles 5, 20, 50, 80, 95 of eight of them; means over unvoiced frames; mean change over 20, 50 and
    120 ms; slopes of the tracks along loudness and along pitch; trends; loudness, tilt and pitch in thirds; rhythm. After the
    families of eGeMAPS (Eyben et al., 2016), computed anew from the log-mel and pitch rows.

    Args:
        values: rows of `log_mel`, shape (frames, 66), at least one.

    Returns:
        float32 of shape (FUNCTIONALS,); finite for any input.
    """
    tracks = _tracks(values)
    frames = len(values)
    loud = tracks[:, _LOUD]
    active = loud > np.sort(loud)[int(0.95 * (frames - 1))] - _ACTIVE_DB / DB_SCALE
    voiced = active & (values[:, MELS + 1] > _VOICED)
    if voiced.sum() < _FEW:
        voiced = active
    unvoiced = active & ~voiced
    if unvoiced.sum() < _FEW:
        unvoiced = active
    spoken = tracks[voiced]
    mean, std = spoken.mean(axis=0), spoken.std(axis=0)
    ranked = np.sort(spoken[:, [16, 17, 18, 19, _LOUD, _TILT, _HARMONIC, _PITCH]], axis=0)
    tails = ranked[[int(q * (len(ranked) - 1)) for q in (0.05, 0.2, 0.5, 0.8, 0.95)]]
    centred = spoken - mean
    along = [
        (centred * centred[:, [one]]).sum(axis=0) / ((centred[:, one] ** 2).sum() + 0.05)  # slopes; 0.05 keeps flat voices finite
        for one in (_LOUD, _PITCH)
    ]
    parts = [
        mean,
        std,
        tails.ravel(),
        tracks[unvoiced].mean(axis=0)[:30],
        *_changes(tracks, active),
        *along,
        *_course(spoken, mean, np.flatnonzero(voiced)),
        _rhythm(values[:, MELS], loud, active, voiced),
    ]
    found: Array = np.nan_to_num(np.concatenate(parts)).astype(np.float32)
    return found


FUNCTIONALS = 32 + 32 + 40 + 30 + 3 * 31 + 32 + 32 + 16 + 9 + 12
"""Length of the vector of `functionals`."""


def _tracks(values: Array) -> Array:
    """What statistics are taken of, frame by frame; shape (frames, 32)."""
    mel, clean = values[:, :MELS], np.clip(values[:, MELS + 1], 0.05, 0.995)
    bands = mel.reshape(len(values), _BANDS, MELS // _BANDS).mean(axis=2)
    # 0.115 is ln(10) / 20 up to rounding: between power and amplitude, so that no single band decides.
    loud = np.log(np.mean(np.exp(mel * np.float32(DB_SCALE * 0.115)), axis=1)) / np.float32(0.115 * DB_SCALE)
    tilt = bands[:, 8:].mean(axis=1) - bands[:, :8].mean(axis=1)
    harmonic = np.log10(clean / (1.0 - clean))
    return np.concatenate([bands, mel @ _cosines(), np.stack([loud, tilt, harmonic, values[:, MELS]], axis=1)], axis=1)


def _changes(tracks: Array, active: npt.NDArray[np.bool_]) -> list[Array]:
    """Mean absolute change of all tracks but pitch over 20, 50 and 120 ms, between frames that sound."""
    inside = active[:, None].astype(np.float32)
    found = []
    for lag in (2, 5, 12):
        if len(tracks) > lag:
            both = inside[lag:] * inside[:-lag]
            found.append((np.abs(tracks[lag:, :31] - tracks[:-lag, :31]) * both).sum(axis=0) / (both.sum() + 1.0))
        else:
            found.append(np.zeros(31, dtype=np.float32))
    return found


def _course(spoken: Array, mean: Array, where: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """Slopes over the utterance, from its first voiced frame (-1) to its last (1), and loudness, tilt and pitch in thirds."""
    time = (2.0 * (where - where.mean()) / max(1.0, float(np.ptp(where)))).astype(np.float32)
    trend = ((spoken - mean) * time[:, None]).sum(axis=0)[16:] / ((time**2).sum() + 0.05)
    some = [_LOUD, _TILT, _PITCH]
    thirds = [part[:, some].mean(axis=0) if len(part) else mean[some] for part in np.array_split(spoken, 3)]
    return trend, np.concatenate(thirds) - np.tile(mean[some], 3)


def _rhythm(pitch: Array, loud: Array, active: npt.NDArray[np.bool_], voiced: npt.NDArray[np.bool_]) -> Array:
    """Voiced share, pauses, voiced stretches and loudness peaks per second, pitch and loudness steps; scaled to about 1."""
    run = voiced[1:] & voiced[:-1]
    moves = np.diff(pitch)[run]
    steps = np.sort(np.abs(moves)) if len(moves) else np.zeros(1, dtype=np.float32)
    small = moves[np.abs(moves) < 0.15]  # larger steps are octave errors
    smooth = np.convolve(loud, np.full(7, 1 / 7, dtype=np.float32), mode="same")[: len(loud)]
    peaks = (smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:]) & active[1:-1]
    stretches = np.count_nonzero(np.diff(np.concatenate([[False], voiced]).astype(np.int8)) == 1)
    seconds = max(0.1, float(active.sum()) / 100.0)
    whole = np.ptp(np.flatnonzero(active)) + 1 if active.any() else 1
    swell = np.diff(loud)[active[1:]]
    return np.array(
        [
            voiced.sum() / max(1, active.sum()), active.sum() / whole,
            stretches / seconds, voiced.sum() / max(1, stretches) / 100.0, peaks.sum() / seconds, np.log(seconds),
            steps[len(steps) // 2] * 10, steps[int(0.9 * (len(steps) - 1))] * 10,
            *(20 * x for x in _ups_and_downs(small)), *_ups_and_downs(swell),
        ],
        dtype=np.float32,
    )  # fmt: skip


def _ups_and_downs(steps: Array) -> tuple[float, float]:
    """Mean of the rising part and of the falling part."""
    if not len(steps):
        return 0.0, 0.0
    return float(np.clip(steps, 0, None).mean()), float(np.clip(steps, None, 0).mean())
