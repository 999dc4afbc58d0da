"""Where somebody speaks: voice activity detection over a stream, in memory bounded by the longest segment.

A detector turns sound into one score per frame; everything after that is shared: hysteresis, least durations, padding, and cutting of
long speech at its quietest point. Frames and blocks are counted from the start of the recording, so that the regions do not depend on
how the sound arrives in chunks.

The two detectors, by F1 over frames of 10 ms with the default padding (2026-11-20):

| | needs | 14 meeting cuts (AMI) | the same + white noise, 10 dB | demonstration corpus | taken for speech in 72 noises and scenes |
|---|---|---|---|---|---|
| `energy` | numpy | 0.815 | 0.787 | 0.964 | 34 % of the time |
| `silero` | its package, onnxruntime | 0.924 | 0.863 | 0.922 | 1 % |

`energy` is the default because it is always there and cuts turns of one close speaker most exactly; for rooms, noise and distant
speakers take `silero` (https://github.com/snakers4/silero-vad, MIT, a recurrent network of 2 MB).
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave
from undertone.audio.wave import Samples
from undertone.errors import AudioError, ConfigError, DependencyError

RATE_HZ = 16_000
Floats = npt.NDArray[np.float64]
Method = Literal["energy", "silero"]


class Region(NamedTuple):
    """Milliseconds from the start of the recording in which somebody speaks."""

    start_ms: int
    end_ms: int


class _Frames(NamedTuple):
    """Scores of consecutive frames, and how loud each is (for finding a quiet point to cut at)."""

    score: Floats
    level_db: Floats


class _Heard(NamedTuple):
    """Per frame of 10 ms: level in the band of speech, and the height of the autocorrelation peak at the periods of a voice."""

    level_db: Floats
    periodicity: Floats


class _Detector(Protocol):
    """Blocks of `block` samples in (the last may be shorter), frames of `hop` samples out, possibly later than the block.

    A region opens at a score of `on` or more and stays open while scores are `off` or more.
    """

    hop: int
    block: int
    on: float
    off: float

    def frames(self, block: Samples) -> Iterator[_Frames]: ...

    def rest(self) -> Iterator[_Frames]: ...


def regions(
    chunks: Iterable[Wave],
    *,
    method: Method = "energy",
    min_speech_ms: int = 250,
    min_silence_ms: int = 300,
    pad_ms: int = 100,
    max_segment_ms: int = 15_000,
) -> Iterator[Region]:
    """Find speech in a stream of waves.

    Args:
        chunks: Consecutive waves of one recording at 16 kHz, of any lengths, as `audio.stream` gives them.
        method: "energy" (numpy alone) or "silero" (better in rooms and noise; needs its package).
        min_speech_ms: Shorter bursts (clicks, coughs) are left out.
        min_silence_ms: Shorter gaps belong to the speech around them.
        pad_ms: Added on both sides, so that soft onsets are inside; at most half of `min_silence_ms`, so that regions cannot overlap.
        max_segment_ms: Longer speech is cut at its quietest point in the second half of that length.

    Yields:
        Regions in order, without overlap, none longer than `max_segment_ms`.

    Raises:
        AudioError: A wave is not at 16 kHz.
        ConfigError: A duration is out of its range, or the method is unknown.
        DependencyError: `silero` without its package.
    """
    found = segments(
        chunks,
        method=method,
        min_speech_ms=min_speech_ms,
        min_silence_ms=min_silence_ms,
        pad_ms=pad_ms,
        max_segment_ms=max_segment_ms,
    )
    return (region for region, _ in found)


def segments(
    chunks: Iterable[Wave],
    *,
    method: Method = "energy",
    min_speech_ms: int = 250,
    min_silence_ms: int = 300,
    pad_ms: int = 100,
    max_segment_ms: int = 15_000,
) -> Iterator[tuple[Region, Wave]]:
    """Like `regions`, each with its sound: a recording is decoded once, and only what is still undecided is held in memory."""
    rules = _Rules(min_speech_ms=min_speech_ms, min_silence_ms=min_silence_ms, pad_ms=pad_ms, max_segment_ms=max_segment_ms)
    detector = _detector(method)
    return _segments(chunks, detector, _Grouping(detector, rules))


def _segments(chunks: Iterable[Wave], detector: _Detector, grouping: _Grouping) -> Iterator[tuple[Region, Wave]]:
    held, origin, total = np.zeros(0, np.float32), 0, 0

    def cut(region: Region) -> tuple[Region, Wave]:
        start, end = (ms * RATE_HZ // 1000 - origin for ms in region)
        return region, Wave(held[start:end].copy(), RATE_HZ)

    for block in _blocks(chunks, detector.block):
        total += len(block)
        held = np.concatenate([held, block])
        for frames in detector.frames(block):
            for region in grouping.add(frames):
                yield cut(region)
        keep = min(total, grouping.needed_ms * RATE_HZ // 1000)
        held, origin = held[keep - origin :], keep
    for frames in detector.rest():
        for region in grouping.add(frames):
            yield cut(region)
    for region in grouping.rest(total * 1000 // RATE_HZ):
        yield cut(region)


def _blocks(chunks: Iterable[Wave], size: int) -> Iterator[Samples]:
    """The same sound in blocks of `size` samples; the last may be shorter."""
    held: list[Samples] = []
    count = 0
    for wave in chunks:
        if wave.rate_hz != RATE_HZ:
            raise AudioError(
                f"voice activity detection: got {wave.rate_hz} Hz, expected {RATE_HZ}; use stream(path, rate_hz={RATE_HZ})"
            )
        held.append(wave.samples)
        count += len(wave.samples)
        if count >= size:
            joined = np.concatenate(held)
            whole = count - count % size
            yield from joined[:whole].reshape(-1, size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


@dataclass(frozen=True, kw_only=True)
class _Rules:
    min_speech_ms: int
    min_silence_ms: int
    pad_ms: int
    max_segment_ms: int

    def __post_init__(self) -> None:
        problems = []
        if self.min_speech_ms < 0:
            problems.append(f"min_speech_ms: got {self.min_speech_ms}, expected at least 0")
        if not 0 <= 2 * self.pad_ms <= self.min_silence_ms:
            problems.append(f"pad_ms: got {self.pad_ms}, expected 0 to half of min_silence_ms ({self.min_silence_ms})")
        if self.max_segment_ms < 1000 + 2 * self.pad_ms:
            problems.append(f"max_segment_ms: got {self.max_segment_ms}, expected at least 1000 plus twice pad_ms")
        if problems:
            raise ConfigError("voice activity detection: " + "; ".join(problems))


class _Grouping:
    """Frame scores to regions: a small state machine over frames."""

    def __init__(self, detector: _Detector, rules: _Rules) -> None:
        def in_frames(ms: int) -> int:
            return max(1, round(ms * RATE_HZ / 1000 / detector.hop))

        self._detector = detector
        self._rules = rules
        self._min_speech = in_frames(rules.min_speech_ms)
        self._min_silence = in_frames(rules.min_silence_ms)
        # Rounded down: a padded segment must not be longer than max_segment_ms.
        self._max = (rules.max_segment_ms - 2 * rules.pad_ms) * RATE_HZ // 1000 // detector.hop
        self._at = 0
        self._start: int | None = None  # first frame of the open region
        self._last = 0  # one past its last frame of speech
        self._joined = False  # the open region continues one that was cut
        self._levels: list[float] = []  # of the frames from _start on

    @property
    def needed_ms(self) -> int:
        """Sound before this time cannot be part of a region any more."""
        first = self._at if self._start is None else self._start
        return max(0, self._ms(first) - self._rules.pad_ms)

    def add(self, frames: _Frames) -> Iterator[Region]:
        """Take the next frames; yields regions that are certain."""
        for score, level in zip(frames.score.tolist(), frames.level_db.tolist(), strict=True):
            self._at += 1
            if self._start is None:
                if score < self._detector.on:
                    continue
                self._start, self._last, self._joined, self._levels = self._at - 1, self._at, False, []
            self._levels.append(level)
            if score >= self._detector.off:
                self._last = self._at
                if self._last - self._start > self._max:
                    yield self._split()
            elif self._at - self._last >= self._min_silence:
                yield from self._close(None)

    def rest(self, total_ms: int) -> Iterator[Region]:
        """End of the recording, which is `total_ms` long."""
        if self._start is not None:
            yield from self._close(total_ms)

    def _ms(self, frame: int) -> int:
        return frame * self._detector.hop * 1000 // RATE_HZ

    def _begin_ms(self, start: int) -> int:
        return max(0, self._ms(start) - (0 if self._joined else self._rules.pad_ms))

    def _close(self, total_ms: int | None) -> Iterator[Region]:
        start, self._start = self._start, None
        if start is None or self._last - start < (1 if self._joined else self._min_speech):
            return
        end_ms = self._ms(self._last) + self._rules.pad_ms
        end_ms = end_ms if total_ms is None else min(end_ms, total_ms)
        if end_ms > self._begin_ms(start):
            yield Region(self._begin_ms(start), end_ms)

    def _split(self) -> Region:
        """Cut the open region at the quietest 100 ms of the second half of its allowed length, short of its last tenth.

        The tenth keeps what remains long enough to be worth a segment of its own.
        """
        start = self._start or 0
        low, high = self._max // 2, self._max - self._max // 10
        width = max(1, round(0.1 * RATE_HZ / self._detector.hop))
        smooth = np.convolve(self._levels[: high + width], np.ones(width) / width, mode="same")
        at = low + int(np.argmin(smooth[low:high]))
        region = Region(self._begin_ms(start), self._ms(start + at))
        self._start, self._levels, self._joined = start + at, self._levels[at:], True
        return region


def _detector(name: Method) -> _Detector:
    if name == "energy":
        return _Energy()
    if name == "silero":
        return _Silero()
    raise ConfigError(f"voice activity detection: method: got {name!r}, expected 'energy' or 'silero'")


def _level_db(frames: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(10.0 * np.log10(np.mean(np.square(frames, dtype=np.float64), axis=1) + 1e-12))


class _Energy:
    """Level in the band of speech against the noise around it, near voiced sound, in frames of 10 ms.

    The noise floor of a second is the 10th percentile of the levels of the five seconds before and after it, speech level their
    95th: speech pauses every few seconds. The score is dB above the floor, as a share of a threshold that is at least 6 dB and grows
    with the range between the two; it is 0 where nothing within 250 ms is periodic like a voice (rain, clatter, stationary noise).
    """

    hop = 160
    block = 16_000
    on = 1.0
    off = 0.6

    _AROUND = 5  # blocks before and after
    _WINDOW, _FFT = 640, 1024  # 40 ms: three periods at 75 Hz
    _LAGS = slice(32, 214)  # 500 to 75 Hz
    _LEAST_DB = 6.0
    _SHARE = 0.5  # of the range between floor and speech level
    _SILENCE_DB = -75.0  # below this nothing is speech, whatever the range
    _PERIODIC = 0.7  # mean height of the autocorrelation peak over 90 ms
    _REACH = 25  # frames from a voiced one: the consonants around a vowel

    def __init__(self) -> None:
        self._recent: deque[_Heard] = deque(maxlen=2 * self._AROUND + 1)
        self._waiting = 0  # blocks whose right-hand neighbours are still to come
        self._tail = np.zeros(self._WINDOW - self.hop, np.float32)
        self._hann = np.hanning(self._WINDOW).astype(np.float32)
        spectrum = np.abs(np.fft.rfft(self._hann, n=self._FFT)) ** 2
        self._hann_autocorrelation = np.fft.irfft(spectrum)[self._LAGS] / np.fft.irfft(spectrum)[0]

    def frames(self, block: Samples) -> Iterator[_Frames]:
        self._recent.append(self._hear(block))
        self._waiting += 1
        if self._waiting > self._AROUND:
            yield self._next()

    def rest(self) -> Iterator[_Frames]:
        while self._waiting:
            yield self._next()

    def _hear(self, block: Samples) -> _Heard:
        """Each frame looks back over 40 ms, so that none waits for the next block."""
        padded = np.concatenate([self._tail, block, np.zeros(-len(block) % self.hop, np.float32)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, self._WINDOW)[:: self.hop]
        self._tail = padded[len(padded) - len(self._tail) :]
        spectrum = np.fft.rfft(windows * self._hann, n=self._FFT)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float64)
        power[:, :6] = power[:, 256:] = 0.0  # 94 to 4,000 Hz
        level_db = 10.0 * np.log10(power.sum(axis=1) * 2 / self._FFT / float(np.sum(self._hann**2)) + 1e-12)
        auto = np.fft.irfft(power, n=self._FFT)
        peak = (auto[:, self._LAGS] / self._hann_autocorrelation).max(axis=1) / (auto[:, 0] + 1e-12)
        return _Heard(level_db, peak)

    def _next(self) -> _Frames:
        """Score the oldest block that waits, seen with its neighbours."""
        around = list(self._recent)[-(self._waiting + self._AROUND) :]
        index = len(around) - self._waiting
        self._waiting -= 1
        start = sum(len(one.level_db) for one in around[:index])
        here = slice(start, start + len(around[index].level_db))
        level = np.concatenate([one.level_db for one in around])
        floor, loud = np.percentile(level, [10, 95])
        periodic = np.convolve(np.concatenate([one.periodicity for one in around]), np.ones(9) / 9, mode="same") > self._PERIODIC
        near_voice = np.convolve(periodic, np.ones(2 * self._REACH + 1), mode="same")[here] > 0.5
        above = (level[here] - floor) / max(self._LEAST_DB, self._SHARE * (loud - floor))
        return _Frames(np.where(near_voice & (level[here] > self._SILENCE_DB), above, 0.0), level[here])


class _Silero:
    """The Silero network: probability of speech in frames of 32 ms, each seen with the last 4 ms before it."""

    hop = 512
    block = 512 * 32
    on = 0.3  # of the network's 0.5: speakers across a room are in the recording too
    off = 0.2

    def __init__(self) -> None:
        spec = importlib.util.find_spec("silero_vad")  # finds the folder without running the package, which imports torch
        path = Path(spec.origin).parent / "data" / "silero_vad.onnx" if spec and spec.origin else None
        if path is None or not path.is_file():
            raise DependencyError(
                "voice activity detection 'silero' needs its model file: pip install --no-deps silero-vad; or use the built-in 'energy'"
            )
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers are processes
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._state = np.zeros((2, 1, 128), np.float32)
        self._context = np.zeros((1, 64), np.float32)
        self._rate = np.array(RATE_HZ, np.int64)

    def frames(self, block: Samples) -> Iterator[_Frames]:
        rows = np.pad(block, (0, -len(block) % self.hop)).reshape(-1, self.hop)
        score = np.empty(len(rows))
        for index, row in enumerate(rows):
            heard = np.concatenate([self._context, row[None, :]], axis=1)
            output, self._state = self._session.run(None, {"input": heard, "state": self._state, "sr": self._rate})
            score[index] = output[0, 0]
            self._context = heard[:, -64:]
        yield _Frames(score, _level_db(rows))

    def rest(self) -> Iterator[_Frames]:
        return iter(())
