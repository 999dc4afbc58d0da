"""Audio files in and out: decode, resample, cut, measure, write.

`load` and `stream` decode to mono float32 at one rate; `probe` tells what a file is; `write` is atomic. A file that is truncated,
empty or holds NaN raises `AudioError` and is never taken for what can be read of it.
"""

from undertone.audio.decode import Probe, load, probe, stream
from undertone.audio.encode import write
from undertone.audio.wave import Wave, join, mix, normalise, rms_db
from undertone.errors import AudioError

__all__ = ["AudioError", "Probe", "Wave", "join", "load", "mix", "normalise", "probe", "rms_db", "stream", "write"]
