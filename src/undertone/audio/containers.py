"""Whether an audio file is whole: checks that libsndfile leaves to its caller.

libsndfile takes what is left of a truncated WAV, AIFF or Ogg file as the whole, and guesses the length of an MP3 that has no length
header (for variable bit rates it then stops reading at the guess). FLAC needs nothing here: its decoder reports what is missing.
What cannot be seen: a WAV written to a pipe (length unknown in its header) or a headerless MP3 that were cut exactly between frames.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_OGG_PAGE_MAX = 65_307
_OGG_LAST = 0x04

_MP3_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),  # MPEG 1, layer III
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),  # MPEG 2 and 2.5, layer III
}
_MP3_HZ = {3: (44_100, 48_000, 32_000, 0), 2: (22_050, 24_000, 16_000, 0), 0: (11_025, 12_000, 8_000, 0)}
_LENGTH_HEADERS = (b"Xing", b"Info", b"VBRI")


def missing_part(path: Path, kind: str, log: str) -> str | None:
    """What a container promises and the file does not hold, as a phrase; None where nothing is known to be missing.

    Args:
        path: The file.
        kind: libsndfile's name of the major format.
        log: libsndfile's account of the header (for formats that have no check of their own here).
    """
    with path.open("rb") as file:
        if kind in ("WAV", "WAVEX", "RF64", "AIFF"):
            short = _chunk_shortfall(file)
            return f"its data end {short} bytes before the length in its header" if short > 0 else None
        if kind == "OGG":
            return None if _ogg_is_finished(file) else "its last Ogg page is cut or not marked as the last"
    found = re.search(r"(?:Data Size|riff|data)\s*:\s*(\d+) \(should be (\d+)\)", log)
    if found and int(found[1]) > int(found[2]):
        return f"its header promises {found[1]} bytes of data and {found[2]} are there"
    return None


def _length_is_unknown(size: int) -> bool:
    """Writers to a pipe cannot go back to fill in the length; ffmpeg and sox leave these."""
    return size == 0 or 0x7FFF_F000 <= size <= 0x8000_0000 or size >= 0xFFFF_F000


def _chunk_shortfall(file: BinaryIO) -> int:
    """How many bytes the sound chunk of a RIFF or AIFF file lacks."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    form = file.read(4)
    header = ">4sI" if form in (b"FORM", b"RIFX") else "<4sI"
    at, long_length = 12, None
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack(header, file.read(8))
        if name == b"ds64":  # RF64 (EBU Tech 3306): the length of a data chunk beyond 4 GiB
            long_length = struct.unpack("<8xQ", file.read(16))[0]
        if name in (b"data", b"SSND"):
            if long_length is None and _length_is_unknown(length):
                return 0
            return int(at + 8 + (long_length or length) - size)
        at += 8 + length + length % 2
    return 0


def _ogg_is_finished(file: BinaryIO) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _OGG_PAGE_MAX))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return False
    lacing = tail[at + 27 : at + 27 + tail[at + 26]]
    complete = len(lacing) == tail[at + 26] and at + 27 + len(lacing) + sum(lacing) <= len(tail)
    return complete and bool(tail[at + 5] & _OGG_LAST)


@dataclass(frozen=True)
class Mp3Length:
    """What walking over the frame headers of an MP3 shows.

    `samples` counts per channel, encoder delay and padding included; `has_header` says whether the file states its own length.
    """

    samples: int
    has_header: bool
    last_frame_whole: bool


def mp3_states_length(path: Path) -> bool:
    """Whether the first frame of an MP3 is a Xing, Info or VBRI header."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = _after_id3(data)
        return any(mark in data[at : at + 200] for mark in _LENGTH_HEADERS)


def mp3_length(path: Path) -> Mp3Length | None:
    """Count the frames of a layer III file from their headers alone, without decoding; None for what is not layer III."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = first = _after_id3(data)
        samples, whole = 0, True
        while at + 4 <= len(data):
            frame = _mp3_frame(data[at : at + 4])
            if frame is None:
                if data[at : at + 3] == b"TAG" or data[at : at + 8] == b"APETAGEX":
                    break
                at = data.find(b"\xff", at + 1)
                if at < 0:
                    break
                continue
            length, count = frame
            samples += count
            whole = at + length <= len(data)
            at += length
        if not samples:
            return None
        has_header = any(mark in data[first : first + 200] for mark in _LENGTH_HEADERS)
        return Mp3Length(samples, has_header, whole)


def _after_id3(data: mmap.mmap) -> int:
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if data[5] & 0x10 else 0)


def _mp3_frame(header: bytes) -> tuple[int, int] | None:
    """Bytes and samples of the layer III frame that a header begins; None where it is no such header (ISO 11172-3, 2.4.2.3)."""
    if header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3
    if version not in _MP3_HZ:
        return None
    kbps, hz = _MP3_KBPS[version == 3][header[2] >> 4], _MP3_HZ[version][header[2] >> 2 & 3]
    if not kbps or not hz:
        return None
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbps * 1000 // hz + (header[2] >> 1 & 1), samples
