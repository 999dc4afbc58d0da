"""Write a wave to a file: whole or not at all, and the same bytes every time."""

from __future__ import annotations

import io
import os
import struct
import zlib
from uuid import uuid4

import numpy as np
import soundfile

from undertone.audio.wave import Wave
from undertone.errors import AudioError
from undertone.paths import Location, Remote, location

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "OPUS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def write(path: str | Location, wave: Wave) -> None:
    """Write a wave as 16-bit WAV or FLAC, Opus in Ogg, or MP3, by the suffix of `path`.

    The bytes go to a temporary name in the same folder, to disk, then to `path`, so that a file under that name is always whole.
    Equal waves give equal bytes (of one libsndfile version). The folder must exist. In an object store it is one PUT.

    Raises:
        AudioError: Unknown suffix, an empty wave, NaN or infinity, or a rate that the format does not have.
        OSError: The folder is missing, read-only or full; nothing is left behind.
    """
    path = location(path)
    if path.suffix.lower() not in _FORMATS:
        raise AudioError(f"{path}: cannot write '{path.suffix}', expected one of {', '.join(_FORMATS)}")
    if not len(wave.samples):
        raise AudioError(f"{path}: cannot write a wave of 0 samples")
    if not np.isfinite(wave.samples).all():
        raise AudioError(
            f"{path}: cannot write NaN or infinity (at {int(np.argmin(np.isfinite(wave.samples))) / wave.rate_hz:.3f} s)"
        )
    kind, subtype = _FORMATS[path.suffix.lower()]
    if subtype == "OPUS" and wave.rate_hz not in _OPUS_RATES_HZ:
        raise AudioError(
            f"{path}: Opus has no {wave.rate_hz} Hz, expected one of {', '.join(map(str, _OPUS_RATES_HZ))}; resample first"
        )
    buffer = io.BytesIO()  # in memory first: soundfile reports a full disk by a failed assert
    try:
        soundfile.write(buffer, wave.samples, wave.rate_hz, format=kind, subtype=subtype)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: {kind} cannot hold {wave.rate_hz} Hz: {error.error_string}") from error
    encoded = buffer.getvalue()
    _write_atomic(path, _with_fixed_serial(encoded) if kind == "OGG" else encoded)


def _write_atomic(path: Location, content: bytes) -> None:
    if isinstance(path, Remote):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _with_fixed_serial(ogg: bytes) -> bytes:
    """Replace the random serial number of an Ogg stream by 1 and renew the checksums of its pages (RFC 3533, section 6)."""
    pages = bytearray(ogg)
    at = 0
    while at < len(pages):
        lacing = pages[at + 26]
        end = at + 27 + lacing + sum(pages[at + 27 : at + 27 + lacing])
        struct.pack_into("<I", pages, at + 14, 1)
        struct.pack_into("<I", pages, at + 22, 0)
        struct.pack_into("<I", pages, at + 22, _ogg_crc(bytes(pages[at:end])))
        at = end
    return bytes(pages)


def _ogg_crc(page: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, most significant bit first, start and final value 0: zlib's, with the bits reversed."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
