"""Clips as small mp3 sounds inside the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import soundfile as sf

from undertone.audio import Wave

_COMPRESSION = 0.8
"""40 kbit/s at 16 kHz with libsndfile's constant bitrate (measured); below it the decoder no longer returns the exact length."""


def mp3_data_uri(wave: Wave) -> str:
    """Encode a mono wave as an mp3 of about 5 kB a second and return it as a data URI.

    Args:
        wave: Mono samples in -1..1; 16 kHz gives 40 kbit/s.
    """
    out = io.BytesIO()
    how: dict[str, Any] = {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "compression_level": _COMPRESSION,
        "bitrate_mode": "CONSTANT",
    }
    sf.write(out, wave.samples, wave.rate_hz, **how)
    return "data:audio/mpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
