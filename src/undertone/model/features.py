"""Frames of clips, computed once per clip and encoder and shared by all systems: one .npy file each, float16."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from undertone.errors import DataError
from undertone.model.encoders import RATE_HZ, Encoder
from undertone.paths import Location
from undertone.records import Clip, content_hash
from undertone.tables import write_bytes

StoredFrames = npt.NDArray[np.float16]


class Features(Protocol):
    """Where training and answering take a clip's frames from: a cache, or a dict in tests."""

    def __getitem__(self, clip_id: str, /) -> npt.NDArray[np.floating]:
        """Frames (T, D), or (T, layers, D), of a clip."""
        ...


def encode(samples: npt.NDArray[np.float32], encoder: Encoder, *, max_audio_s: float) -> StoredFrames:
    """Encode 16 kHz samples, at most the first `max_audio_s` seconds, into frames of float16 (as all models see them)."""
    return encoder.frames(samples[: int(max_audio_s * RATE_HZ)]).astype(np.float16)


def clip_frames(clip: Clip, encoder: Encoder, *, max_audio_s: float) -> StoredFrames:
    """Decode a clip's audio and encode it; a pure function of the clip.

    Raises:
        AudioError: The audio cannot be decoded.
    """
    from undertone.audio import load  # late: an encoder can be tested without the audio package

    wave = load(clip.uri, rate_hz=RATE_HZ, start_ms=clip.start_ms, end_ms=clip.end_ms)
    return encode(wave.samples, encoder, max_audio_s=max_audio_s)


class FeatureCache:
    """Frames on disk under `root/FINGERPRINT/CLIP_ID.npy`; files are complete or absent, so that workers may share a cache."""

    def __init__(self, root: Location, *, encoder: str, max_audio_s: float) -> None:
        """Store the configuration; nothing is read yet.

        Args:
            root: Folder of the cache.
            encoder: The encoder's fingerprint.
            max_audio_s: Where speech was cut.
        """
        self.folder = root / content_hash(encoder, repr(float(max_audio_s)))

    def path(self, clip_id: str) -> Location:
        """Where a clip's frames are or will be."""
        return self.folder / f"{clip_id}.npy"

    def __contains__(self, clip_id: str) -> bool:
        return self.path(clip_id).is_file()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in self.folder.glob("*.npy")))

    def __getitem__(self, clip_id: str) -> StoredFrames:
        """Frames (T, D) of a clip, or (T, layers, D) where layers are tapped.

        Raises:
            DataError: The clip was not encoded, or its file is damaged.
        """
        path = self.path(clip_id)
        try:
            frames: StoredFrames = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"no frames of clip {clip_id} in {path}: {error}; encode it first (undertone train), or delete the file"
            ) from error
        return frames

    def put(self, clip_id: str, frames: npt.NDArray[np.floating]) -> None:
        """Store frames, time first, as float16: written aside, then renamed."""
        path = self.path(clip_id)
        content = io.BytesIO()
        np.save(content, frames.astype(np.float16), allow_pickle=False)
        write_bytes(path, content.getvalue())
