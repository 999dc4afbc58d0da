"""Decode any speech file to mono at one rate, in bounded memory, and never a part of a file as if it were the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr

from undertone.audio import containers, ffmpeg
from undertone.audio.wave import Samples, Wave, sample_at
from undertone.errors import AudioError
from undertone.paths import Location, ObjectError, local_copy, location

FFMPEG_SUFFIXES = frozenset(
    (
        ".m4a",
        ".m4b",
        ".mp4",
        ".aac",
        ".webm",
        ".mkv",
        ".mka",
        ".mov",
        ".wma",
        ".amr",
        ".3gp",
        ".avi",
        ".ac3",
        ".m4v",
        ".wmv",
        ".flv",
        ".ts",
    )
)

_LOUDEST = 8.0  # 18 dB above full scale: more than overshoot, so integers stored as floats
_MARGIN_S = 1  # what a cut decodes before and after itself: codecs and the resampler have settled after far less
_MP3_SLACK = 8 * 1152  # encoder delay, padding and the header frame lie between counted and promised samples
_UNKNOWN_FRAMES = 2**61  # libsndfile's "unknown" is just below 2**63


@dataclass(frozen=True)
class Probe:
    """What a file is, before anybody decodes it.

    `samples` counts per channel at the file's own `rate_hz`; `sha256` is over the bytes of the file, in hex.
    """

    rate_hz: int
    samples: int
    channels: int
    sha256: str

    @property
    def duration_ms(self) -> int:
        """Whole milliseconds, rounded down."""
        return self.samples * 1000 // self.rate_hz


class _Source(Protocol):
    """An open decoder: blocks of shape (n, channels), an empty one at the end."""

    rate_hz: int
    channels: int
    frames: int | None

    def read(self, frames: int) -> Samples: ...

    def close(self) -> None: ...


def probe(path: str | Location) -> Probe:
    """Read a file's rate, length, channels and content hash, without decoding it where its header tells the length.

    The length of WAV, AIFF, FLAC and Ogg comes from the header (for Ogg, from its last page), that of MP3 from its length header
    checked against a walk over the frame headers. Only what ffmpeg has to open is decoded to be counted.

    Raises:
        AudioError: Not a readable audio file, no sound in it, or part of it missing. A FLAC that was cut off is found by decoding
            only (`load`, `stream`), because its header is all that is read here.
    """
    with _local(path) as file, closing(_open(file)) as source:
        frames = source.frames
        if frames is None:
            frames = 0
            while len(block := source.read(source.rate_hz)):
                frames += len(block)
        if frames == 0:
            raise AudioError(f"{file}: holds no sound (0 samples)")
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return Probe(source.rate_hz, frames, source.channels, digest)


def stream(path: str | Location, *, rate_hz: int = 16_000, chunk_ms: int = 30_000) -> Iterator[Wave]:
    """Decode a file chunk by chunk: mono (the mean of the channels), resampled, in memory bounded by the chunk.

    The chunks joined are exactly `load(path)`, whatever `chunk_ms` is; all but the last are `chunk_ms` long. Their total is the
    file's samples times the ratio of the rates, to within one sample. Samples beyond -1..1 (overshoot of lossy codecs and of the
    resampler) are clipped.

    Args:
        path: Audio, here or in an object store, in any format that libsndfile reads, or that ffmpeg reads where that program is installed.
        rate_hz: Rate of the waves.
        chunk_ms: Length of one wave.

    Raises:
        AudioError: As in `load`; a damaged file may raise after good chunks, so that only an iteration that ends is the whole file.
    """
    size = sample_at(chunk_ms, rate_hz)
    if size <= 0:
        raise AudioError(f"chunk_ms: got {chunk_ms}, expected above 0")
    held: list[Samples] = []
    count = 0
    with _local(path) as file:
        for block in _mono(file, rate_hz):
            held.append(block)
            count += len(block)
            while count >= size:
                joined = np.concatenate(held)
                yield Wave(joined[:size].copy(), rate_hz)
                held, count = [joined[size:]], count - size
    if count:
        yield Wave(np.concatenate(held), rate_hz)


def load(path: str | Location, *, rate_hz: int = 16_000, start_ms: int = 0, end_ms: int | None = None) -> Wave:
    """Decode a file, or the part of it from `start_ms` to `end_ms`, to mono at `rate_hz`.

    A part is found by seeking and costs about its own length. It equals the same part of the whole to 1e-6 where the format is
    lossless or MP3 or Vorbis, and to 0.01 in Opus, whose decoder carries its state further; what ffmpeg opens may be shifted by up
    to 20 ms, because it seeks in MP4 and WebM by packets. `end_ms` beyond the end is clamped.

    Raises:
        AudioError: The file is missing, a folder, empty, not audio, truncated, holds NaN, infinity or samples far beyond -1..1, needs
            ffmpeg where there is none, or `start_ms` lies beyond its end. The message names the file and the place.
    """
    with _local(path) as file:
        return _load(file, rate_hz, start_ms, end_ms)


def _load(path: Path, rate_hz: int, start_ms: int, end_ms: int | None) -> Wave:
    if start_ms < 0 or (end_ms is not None and end_ms <= start_ms):
        raise AudioError(f"{path}: cannot cut from {start_ms} to {end_ms} ms; expected 0 <= start_ms < end_ms")
    if start_ms == 0 and end_ms is None:
        return Wave(np.concatenate(list(_mono(path, rate_hz))), rate_hz)
    # On a whole second the resampler stands in the same phase as at the start of the file, whatever the two rates are.
    start_s = max(0, start_ms // 1000 - _MARGIN_S)
    end_s = None if end_ms is None else -(-end_ms // 1000) + _MARGIN_S
    joined = np.concatenate(list(_mono(path, rate_hz, start_s=start_s, end_s=end_s)))
    offset = start_s * rate_hz
    end = len(joined) if end_ms is None else sample_at(end_ms, rate_hz) - offset
    part = joined[sample_at(start_ms, rate_hz) - offset : end].copy()
    if not len(part):
        raise AudioError(
            f"{path}: start_ms {start_ms} lies beyond the end of the file ({(offset + len(joined)) * 1000 // rate_hz} ms)"
        )
    return Wave(part, rate_hz)


@contextmanager
def _local(path: str | Location) -> Iterator[Path]:
    """The file on this machine; of one in an object store a copy (`paths.local_copy`), which messages call by its address.

    Copies rather than streams: libsndfile and ffmpeg seek, the checks of a container read its end, and cuts of one recording come together.
    """
    where = location(path)
    with ExitStack() as held:
        try:
            file = held.enter_context(local_copy(where))
        except FileNotFoundError as error:
            raise AudioError(f"{where}: no such object, expected an audio file") from error
        except ObjectError as error:
            raise AudioError(str(error)) from error
        try:
            yield file
        except AudioError as error:
            if file == where:
                raise
            raise AudioError(str(error).replace(str(file), str(where))) from error


def _mono(path: Path, rate_hz: int, *, start_s: int = 0, end_s: int | None = None) -> Iterator[Samples]:
    """Mono blocks at `rate_hz`, from one whole second to another; the block size is fixed, so that results do not depend on it."""
    if rate_hz <= 0:
        raise AudioError(f"rate_hz: got {rate_hz}, expected above 0")
    with closing(_open(path, start_s=start_s, is_cut=end_s is not None)) as source:
        resampler = soxr.ResampleStream(source.rate_hz, rate_hz, 1, dtype="float32") if source.rate_hz != rate_hz else None
        made = 0
        for block in _blocks(path, source, start_s, end_s):
            part = block if resampler is None else resampler.resample_chunk(block)
            made += len(part)
            if len(part):
                yield np.clip(part, -1.0, 1.0)
        if resampler is not None:
            part = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            made += len(part)
            if len(part):
                yield np.clip(part, -1.0, 1.0)
        if made == 0:
            where = "" if start_s == 0 else f" after {start_s} s"
            raise AudioError(f"{path}: holds no sound{where} (0 samples at {rate_hz} Hz)")


def _blocks(path: Path, source: _Source, start_s: int, end_s: int | None) -> Iterator[Samples]:
    """Checked mono blocks of one second at the file's own rate."""
    at = start_s * source.rate_hz
    end = None if end_s is None else end_s * source.rate_hz
    while end is None or at < end:
        try:
            block = source.read(source.rate_hz)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{path}: truncated or damaged: the decoder stops at {at / source.rate_hz:.3f} s ({error.error_string}); copy the file again"
            ) from error
        if not len(block):
            break
        _check_values(path, block, at, source.rate_hz)
        yield block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else np.ascontiguousarray(block[:, 0])
        at += len(block)
    expected = source.frames if end is None or source.frames is None else min(end, source.frames)
    if expected is not None and at < expected:
        raise AudioError(
            f"{path}: truncated: its header promises {expected / source.rate_hz:.3f} s and {at / source.rate_hz:.3f} s can be decoded; "
            "copy the file again"
        )


def _check_values(path: Path, block: Samples, at: int, rate_hz: int) -> None:
    # One pass for the usual case: a comparison with NaN is False.
    if np.abs(block).max() <= _LOUDEST:
        return
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        first = at + int(np.argmin(finite))
        raise AudioError(f"{path}: NaN or infinity at {first / rate_hz:.3f} s; expected finite samples, repair or drop the file")
    first = int(np.argmax(np.abs(block).max(axis=1) > _LOUDEST))
    raise AudioError(
        f"{path}: sample of amplitude {np.abs(block[first]).max():.0f} at {(at + first) / rate_hz:.3f} s, expected -1..1: "
        "integers stored as floats? divide by 32768 and write it again"
    )


class _SoundFileSource:
    """libsndfile behind `_Source`."""

    def __init__(self, file: soundfile.SoundFile, frames: int) -> None:
        self._file = file
        self.rate_hz: int = file.samplerate
        self.channels: int = file.channels
        self.frames: int | None = frames

    def read(self, frames: int) -> Samples:
        block: Samples = self._file.read(frames, dtype="float32", always_2d=True)
        return block

    def close(self) -> None:
        self._file.close()


def _open(path: Path, *, start_s: int = 0, is_cut: bool = False) -> _Source:
    """Open a file at a whole second, after the checks that need no decoding.

    Args:
        path: The file.
        start_s: Where to begin.
        is_cut: Only a part near `start_s` is wanted; the walk over all MP3 frames is left out.
    """
    if not path.is_file():
        raise AudioError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected an audio file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: empty file (0 bytes)")
    if path.suffix.lower() in FFMPEG_SUFFIXES:
        return ffmpeg.FfmpegSource(path, start_s=start_s)
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a .raw file, which says nothing about itself
        detail = getattr(error, "error_string", str(error))
        raise AudioError(
            f"{path}: cannot be decoded: {detail} Expected wav, flac, ogg, opus, mp3 or aiff, or for ffmpeg one of m4a, mp4, webm, ..."
        ) from error
    try:
        frames = _mp3_frames(path, file, is_cut) if file.format == "MP3" else file.frames
        if frames is None or frames > _UNKNOWN_FRAMES:
            file.close()
            return ffmpeg.FfmpegSource(path, start_s=start_s, why=f"{file.format} that does not state its length")
        if missing := containers.missing_part(path, file.format, file.extra_info):
            raise AudioError(f"{path}: truncated: {missing}; copy the file again")
        if start_s * file.samplerate >= frames > 0:
            raise AudioError(f"{path}: nothing at {start_s} s, the file is {frames / file.samplerate:.3f} s long")
        if start_s:
            file.seek(start_s * file.samplerate)
    except soundfile.LibsndfileError as error:
        file.close()
        raise AudioError(f"{path}: damaged: cannot seek to {start_s} s ({error.error_string})") from error
    except AudioError:
        file.close()
        raise
    return _SoundFileSource(file, frames)


def _mp3_frames(path: Path, file: soundfile.SoundFile, is_cut: bool) -> int | None:
    """The samples of an MP3 per channel; None where libsndfile guessed too few and would stop there.

    Raises:
        AudioError: The file holds less than it states, or its last frame is cut.
    """
    promised: int = file.frames
    if is_cut and containers.mp3_states_length(path):
        return promised
    found = containers.mp3_length(path)
    if found is None:
        return promised
    if not found.last_frame_whole or (found.has_header and found.samples < promised):
        raise AudioError(
            f"{path}: truncated: {found.samples / file.samplerate:.3f} s of MP3 frames are there and the last one is "
            f"{'whole' if found.last_frame_whole else 'cut'}, {promised / file.samplerate:.3f} s are promised; copy the file again"
        )
    if found.has_header:
        return promised if found.samples <= promised + _MP3_SLACK else None
    return found.samples if found.samples <= promised else None
