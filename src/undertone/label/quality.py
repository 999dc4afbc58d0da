"""The labeller `quality`: level, signal-to-noise ratio, clipping and the share of speech of a segment, measured and not learned.

How far the measurements can be trusted, on 120 utterances of RAVDESS, TESS and nEMO with steady noises added (2026-11-20): the median of
`snr_db` is 3, 6, 10, 14, 18 and 20 dB where 0, 5, 10, 15, 20 and 30 dB were added (above 20 dB it hears the recordings' own
noise), with a standard deviation of 2 to 6 dB. The tenth percentile of the frames' power, the usual noise floor, read 6 and 7 dB at 0 and 5:
a segment cut to speech holds too few pauses to measure noise in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave
from undertone.label.prosody import pitch
from undertone.label.protocol import Scalar, Value, abstain, labeller, scalar

RATE_HZ = 16_000

# ln E|z| - E ln|z| of Gamma(0.4)-distributed speech plus Gaussian noise, every 2.5 dB from -10 to 40 dB: Kim & Stern (2008),
# computed here by quadrature over the speech, in closed form over the noise.
_SNR_DB = np.arange(-10.0, 40.1, 2.5)
_WADA = np.array(
    [
        *(0.4121, 0.4160, 0.4238, 0.4382, 0.4618, 0.4967, 0.5435, 0.6012, 0.6673, 0.7387, 0.8122),
        *(0.8853, 0.9558, 1.0225, 1.0846, 1.1418, 1.1940, 1.2414, 1.2842, 1.3227, 1.3572),
    ]
)
_FRAME = 320  # 20 ms
_ACTIVE_RANGE_DB = 25.0  # of speech below its loud frames
_NEAR_PEAK = 0.99  # codecs and resampling smear a flat top by about that much
_NEAR_VOICE_FRAMES = 15  # 150 ms: consonants and short closures beside a vowel


@labeller(
    "quality",
    version="1",
    emits=[
        Scalar("level_db", unit="dB re full scale"),
        Scalar("snr_db", unit="dB", low=-10.0, high=40.0),
        Scalar("clipped_share", low=0.0, high=1.0),
        Scalar("speech_share", low=0.0, high=1.0),
    ],
    rate_hz=RATE_HZ,
    min_ms=100,
)
def quality(wave: Wave) -> list[Value]:
    """Measure the level of the speech, its ratio to the noise, the share of clipped samples and the share of time near a voice.

    Digital silence has no ratio: `snr_db`, `clipped_share` and `speech_share` abstain.
    """
    level = scalar("level_db", active_level_db(wave))
    if not np.any(wave.samples):
        return [level, *(abstain(name, "silence") for name in ("snr_db", "clipped_share", "speech_share"))]
    return [
        level,
        scalar("snr_db", snr_db(wave)),
        scalar("clipped_share", clipped_share(wave)),
        scalar("speech_share", speech_share(wave)),
    ]


def active_level_db(wave: Wave) -> float:
    """The RMS level of frames of 20 ms at most 25 dB below the loud ones (95th percentile), so that pauses do not count; at least -120."""
    power = _power(wave)
    loud = power >= np.percentile(power, 95) * 10 ** (-_ACTIVE_RANGE_DB / 10)
    return max(-120.0, 10.0 * float(np.log10(power[loud].mean() + 1e-12)))


def snr_db(wave: Wave) -> float:
    """The signal-to-noise ratio by the waveform's amplitude distribution (WADA-SNR), -10 to 40 dB.

    Kim & Stern (2008), "Robust signal-to-noise ratio estimation based on waveform amplitude distribution analysis", Interspeech: speech
    is peaky (Gamma-distributed with shape 0.4), noise is Gaussian; how peaky the sum is tells the ratio.
    """
    amplitude = np.abs(wave.samples.astype(np.float64))
    amplitude = np.maximum(amplitude / amplitude.max(), 1e-10)
    return float(np.interp(np.log(amplitude.mean()) - np.log(amplitude).mean(), _WADA, _SNR_DB))


def clipped_share(wave: Wave) -> float:
    """The share of samples within 1 % of the wave's own peak, so that clipping is found after a change of level as well.

    Speech that is not clipped has one sample in thousands there. A pure tone has 9 %: this is a measure for speech. What was clipped
    before a lossy codec (Opus at 32 kbit/s) is not found: the codec rounds the flat tops off.
    """
    amplitude = np.abs(wave.samples)
    return float(np.mean(amplitude >= _NEAR_PEAK * amplitude.max()))


def speech_share(wave: Wave) -> float:
    """The share of time within 150 ms of a voiced frame: vowels and the consonants around them, but not hiss, rumble or rubbing."""
    voiced = pitch(wave).voiced
    if not len(voiced):
        return 0.0
    near = np.convolve(voiced, np.ones(2 * _NEAR_VOICE_FRAMES + 1))[_NEAR_VOICE_FRAMES:][: len(voiced)]
    return float(np.mean(near > 0.5))


def _power(wave: Wave) -> npt.NDArray[np.float64]:
    """Mean square of each frame of 20 ms, shape (frames,); of the whole wave where it is shorter."""
    count = len(wave.samples) // _FRAME
    squares = np.square(wave.samples, dtype=np.float64)
    return np.asarray(squares[: count * _FRAME].reshape(count, _FRAME).mean(axis=1) if count else squares.mean(keepdims=True))
