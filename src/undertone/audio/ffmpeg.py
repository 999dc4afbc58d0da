"""The door to formats that libsndfile does not read (AAC, video, ...): the `ffmpeg` program where it is installed, through a pipe."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from undertone.audio.wave import Samples
from undertone.errors import AudioError

_FLOAT32 = 6  # the encoding number of the AU header
_INCOMPLETE = re.compile(r"ended prematurely|partial file|truncat", re.IGNORECASE)


class FfmpegSource:
    """An ffmpeg process that decodes one file to float32 at the file's own rate and channels.

    The stream is AU (Sun audio), whose 24-byte header is the simplest that tells rate and channels. The pipe blocks ffmpeg while
    nobody reads, so memory is bounded. `frames` is unknown before the end.
    """

    frames: int | None = None

    def __init__(self, path: Path, *, start_s: int = 0, why: str = "this format") -> None:
        program = shutil.which("ffmpeg")
        if program is None:
            raise AudioError(
                f"{path}: {why} needs the ffmpeg program, which is not on PATH; install it (apt install ffmpeg, brew install ffmpeg) "
                "or convert the file to flac, wav, ogg or mp3"
            )
        self._path = path
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close(); a pipe could fill up and block ffmpeg
        seek = ["-ss", str(start_s)] if start_s else []
        # A local file only: without the prefix ffmpeg would read a name such as "http:x.mp4" as an address.
        source = ["-i", f"file:{path}", "-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
        self._process = subprocess.Popen(
            [program, "-nostdin", "-v", "error", "-xerror", *seek, *source],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        header = self._take(24)
        if len(header) < 24:
            self._finish(seconds=float(start_s))
            self.close()
            raise AudioError(f"{path}: nothing to decode at {start_s} s")
        magic, offset, _, encoding, self.rate_hz, self.channels = struct.unpack(">4s5I", header)
        self._take(offset - 24)
        self._at_s = float(start_s)
        if magic != b".snd" or encoding != _FLOAT32:
            self.close()
            raise AudioError(f"{path}: ffmpeg gave {header!r}, expected an AU header of float32")

    def read(self, frames: int) -> Samples:
        """The next frames, shape (n, channels); empty at the end.

        Raises:
            AudioError: ffmpeg ended with an error, or says that the file ends too early.
        """
        width = 4 * self.channels
        raw = self._take(frames * width)
        usable = len(raw) - len(raw) % width
        self._at_s += usable / width / self.rate_hz
        if not usable:
            self._finish(seconds=self._at_s)
        return np.frombuffer(raw[:usable], dtype=">f4").astype(np.float32).reshape(-1, self.channels)

    def close(self) -> None:
        """End the process, wherever it is."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _take(self, size: int) -> bytes:
        return self._process.stdout.read(size) if self._process.stdout is not None else b""

    def _finish(self, *, seconds: float) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        if code != 0 or _INCOMPLETE.search(said):
            self.close()
            last = said.splitlines()[0] if said else "no message"
            raise AudioError(f"{self._path}: truncated or damaged: ffmpeg stops at {seconds:.3f} s with code {code}: {last}")
