"""The labeller `fingerprint`: by which the same sound is found again in another file, whatever its codec, level, or beginning.

The loudest local peaks of a spectrogram survive codecs, levels and some noise, and a constellation of a few (their frequencies and the
times between them) does not depend on where the file begins: Wang (2003), "An industrial-strength audio search algorithm", ISMIR. Here a
landmark is four peaks rather than two, so that among millions of segments few have one in common by chance. Of all landmarks the 32 with
the smallest hashes are kept: the share of these that two sounds have in common estimates the share of all that they have in common (Broder
1997, "On the resemblance and containment of documents"), at 128 bytes for a segment of any length.

The label's category is text: the sorted hashes, 8 hexadecimal digits each. `condense.duplicates` reads them; how well it tells copies from
other takes of a sentence stands there.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from undertone.audio import Wave
from undertone.label.protocol import Category, Value, abstain, labeller

RATE_HZ = 16_000
SIZE = 32
"""Hashes in a fingerprint; 8 hexadecimal digits each."""

_WINDOW, _HOP = 1024, 64  # 64 ms every 4 ms: at 16 ms a copy that begins 8 ms later shares next to nothing
_LOW, _HIGH = 13, 256  # bins of 15.6 Hz: 200 Hz to 4 kHz, which every codec for speech keeps
_PEAK_FRAMES, _PEAK_BINS = 12, 6  # a peak is the highest point within 48 ms and 94 Hz to each side
_PEAKS_PER_S = 15
_RANGE_DB = 45.0  # below the highest peak
_PEAKS = 4  # of a landmark: one, and three of the next six
_NEXT = 6
_NEAREST, _FARTHEST = 7, 128  # frames after the first
_REACH = 64  # bins from the first
_COARSE_FRAMES, _COARSE_BINS = 6, 3  # 24 ms and 47 Hz count as one, since codecs and another beginning move peaks a little

Hashes = npt.NDArray[np.uint32]


@labeller("fingerprint", version="1", emits=[Category("fingerprint")], rate_hz=RATE_HZ, min_ms=300)
def fingerprint(wave: Wave) -> list[Value]:
    """Take the fingerprint of a segment; abstains from less than 32 landmarks, about half a second of speech."""
    found = hashes(wave)
    if len(found) < SIZE:
        return [abstain("fingerprint", "too_little_structure")]
    return [Value(attribute="fingerprint", category=found.astype(">u4").tobytes().hex())]


def hashes(wave: Wave) -> Hashes:
    """The smallest hashes of a wave's landmarks, sorted, shape (at most 32,).

    Args:
        wave: At 16 kHz.
    """
    frame, band = _peaks(wave.samples)
    made: list[int] = []
    for first in range(len(frame)):
        apart, up = frame[first + 1 :] - frame[first], band[first + 1 :] - band[first]
        near = np.flatnonzero((apart >= _NEAREST) & (apart < _FARTHEST) & (np.abs(up) < _REACH))[:_NEXT]
        far = (apart[near] + _COARSE_FRAMES // 2) // _COARSE_FRAMES
        high = (up[near] + _REACH + _COARSE_BINS // 2) // _COARSE_BINS
        steps = (high << 6 | far).tolist()  # 12 bits each
        for chosen in itertools.combinations(steps, _PEAKS - 1):
            landmark = int(band[first]) // _COARSE_BINS
            for step in chosen:
                landmark = landmark << 12 | step
            made.append(landmark)
    return np.unique(_mixed(np.array(made, dtype=np.uint64)))[:SIZE]


def _peaks(samples: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Frames and bands of the loudest local peaks in time order, shapes (peaks,); none in silence."""
    padded = np.pad(samples, (0, max(0, _WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32), axis=1))[:, _LOW:_HIGH]
    level = 20.0 * np.log10(spectrum + 1e-9)
    highest = maximum_filter(level, size=(2 * _PEAK_FRAMES + 1, 2 * _PEAK_BINS + 1))
    frame, band = np.nonzero((level == highest) & (level > max(level.max() - _RANGE_DB, -100.0)))
    most = max(_PEAKS, _PEAKS_PER_S * len(samples) // RATE_HZ)
    loudest = np.sort(np.argsort(-level[frame, band], kind="stable")[:most])
    return frame[loudest], band[loudest]


def _mixed(values: npt.NDArray[np.uint64]) -> Hashes:
    """32 well mixed bits of each value: a step of SplitMix64 (Steele et al. 2014), whose products wrap around on purpose."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (values >> np.uint64(32)).astype(np.uint32)
