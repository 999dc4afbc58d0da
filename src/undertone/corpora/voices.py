"""Speech with known emotion, by rule: the people of the demonstration corpus.

espeak-ng (the `espeakng-loader` wheel, extra `demo`) speaks; published prosody rules say how. The rules are the table
`PROSODY`, one row per emotion, so that what "sad" means here can be read and disputed. They come from:

- M. Schroeder, "Emotional speech synthesis: a review", Eurospeech 2001, Table 2, which collects one well recognised set
  of rules per emotion: joy and fear (F. Burkhardt and W. Sendlmeier, ISCA Workshop on Speech and Emotion 2000), sadness
  and surprise (J. Cahn, Journal of the American Voice I/O Society 8, 1990), anger (I. Murray and J. Arnott, Speech
  Communication 16, 1995).
- I. Murray and J. Arnott, "Toward the simulation of emotion in synthetic speech: A review of the literature on human vocal
  emotion", JASA 93, 1993, Table 1, for disgust.

It is a caricature of emotional speech and says nothing about how people sound. It serves to run every stage offline with a
truth that is known exactly.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import math
import re
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.records import Emotion

Samples = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.float64]
Gender = Literal["female", "male"]
Group = Literal["labeller", "train", "test"]

RATE_HZ = 16_000
NEUTRAL_DBFS = -26.0
"""RMS level of neutral speech, dB relative to full scale (ITU-T P.56 recordings are commonly set to -26 dBov)."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One synthetic person.

    Attributes:
        espeak: espeak-ng voice and variant, such as "en-us+f3"; unique, and so the voice's name.
        gender: Of the variant's formants and pitch.
        pitch: espeak base pitch, 0..99; F0 doubles every 50.
        rate_wpm: Neutral speaking rate in espeak's words per minute.
        group: Who may hear this voice: training data of the labeller, training data of the model, or the test.
    """

    espeak: str
    gender: Gender
    pitch: int
    rate_wpm: int
    group: Group

    @property
    def name(self) -> str:
        """The speaker of its segments is "demo/NAME"."""
        return self.espeak


def _group(group: Group, gender: Gender, *rows: tuple[str, int, int]) -> tuple[Voice, ...]:
    return tuple(Voice(espeak=espeak, gender=gender, pitch=pitch, rate_wpm=rate, group=group) for espeak, pitch, rate in rows)


# A variant (what stands after "+") occurs once only, so that no group hears a timbre of another. All accents that
# espeak-ng 1.52 has for English occur (en-shaw is a script, not an accent), most of them in all groups.
VOICES: tuple[Voice, ...] = (
    *_group(
        "labeller",
        "female",
        ("en-us+f1", 50, 170),
        ("en-gb-x-rp+aunty", 44, 160),
        ("en+Andrea", 40, 175),
        ("en-029+grandma", 46, 155),
        ("en-gb-scotland+Alicia", 38, 165),
    ),
    *_group(
        "labeller",
        "male",
        ("en-us+m1", 48, 170),
        ("en-gb-x-rp+m2", 54, 160),
        ("en+Alex", 42, 180),
        ("en-us-nyc+john", 52, 165),
        ("en-gb-scotland+Gene", 46, 155),
    ),
    *_group(
        "train",
        "female",
        ("en-us+f2", 48, 165),
        ("en-gb-x-rp+f3", 44, 175),
        ("en-gb-scotland+Annie", 40, 160),
        ("en-us-nyc+linda", 42, 180),
        ("en+belinda", 46, 155),
        ("en-029+steph", 52, 170),
        ("en-gb-x-gbcwmd+steph2", 45, 160),
    ),
    *_group(
        "train",
        "male",
        ("en-us+m3", 50, 165),
        ("en-gb-x-rp+m4", 46, 175),
        ("en-gb-scotland+m5", 55, 160),
        ("en-us-nyc+m6", 44, 180),
        ("en+boris", 56, 155),
        ("en-029+Michael", 48, 170),
        ("en-gb-x-gbclan+Denis", 52, 165),
    ),
    *_group(
        "test",
        "female",
        ("en-us+f4", 48, 170),
        ("en-gb-x-rp+f5", 43, 160),
        ("en+anika", 38, 165),
        ("en-029+shelby", 50, 175),
    ),
    *_group(
        "test",
        "male",
        ("en-us+m7", 50, 170),
        ("en-gb-x-rp+m8", 56, 160),
        ("en-us-nyc+Mike", 52, 175),
        ("en-gb-scotland+paul", 54, 165),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Prosody:
    """How one emotion differs from neutral at intensity 1. Ratios are to the same voice's neutral speech.

    Attributes:
        f0: Ratio of mean F0.
        f0_range: Ratio of F0 range. espeak-ng ends at 2, so larger published values are cut there.
        tempo: Ratio of speaking rate.
        level_db: Change of level.
        tilt_db: Spectral tilt, dB per octave above 500 Hz: positive is tense and brilliant, negative is lax.
        breath_db: Level of added aspiration noise relative to the voice; None adds none.
        creak: Depth 0..1 of irregular slow amplitude modulation: laryngealised, grumbling voice.
        tremor_cents: Depth of a 5 to 7 Hz tremor of F0.
        tune: Intonation contour, as the punctuation by which espeak-ng selects it: "." falls, "?" rises at the end,
            "!" is emphatic.
        source: Where the numbers are from.
    """

    f0: float = 1.0
    f0_range: float = 1.0
    tempo: float = 1.0
    level_db: float = 0.0
    tilt_db: float = 0.0
    breath_db: float | None = None
    creak: float = 0.0
    tremor_cents: float = 0.0
    tune: Literal[".", "?", "!"] = "."
    source: str


# Cahn's scales run from -10 to 10 with neutral at 0 and have no physical unit. They are read here as: F0 range 2^(n/5),
# tempo 2^(n/20), loudness 1.2 dB a step, brilliance 0.4 dB per octave a step, reference line (sadness) 2^(n/25).
PROSODY: dict[Emotion, Prosody] = {
    "neutral": Prosody(source="reference"),
    "happy": Prosody(
        f0=1.5,
        f0_range=2.0,
        tempo=1.3,
        level_db=2.0,
        tilt_db=1.0,
        source="Burkhardt & Sendlmeier 2000: F0 mean +50 %, range +100 %, tempo +30 %, modal or tense voice",
    ),
    "sad": Prosody(
        f0=0.97,
        f0_range=0.5,
        tempo=0.71,
        level_db=-6.0,
        tilt_db=-3.6,
        breath_db=-18.0,
        source="Cahn 1990: reference line -1, range -5, rate -10, loudness -5, brilliance -9, breathiness +10",
    ),
    "angry": Prosody(
        f0=1.09,
        f0_range=1.7,
        tempo=1.17,
        level_db=6.0,
        tilt_db=2.5,
        creak=0.25,
        tune="!",
        source="Murray & Arnott 1995: F0 +10 Hz (of a 110 Hz voice), range +9 semitones, +30 words/min, +6 dB, laryngealised",
    ),
    "fearful": Prosody(
        f0=2.5,
        f0_range=1.2,
        tempo=1.3,
        tilt_db=-1.0,
        tremor_cents=70.0,
        source="Burkhardt & Sendlmeier 2000: F0 mean +150 %, range +20 %, tempo +30 %, falsetto; the tremor is ours",
    ),
    "surprised": Prosody(
        f0_range=2.0,
        tempo=1.15,
        level_db=6.0,
        tilt_db=-1.2,
        tune="?",
        source="Cahn 1990: average F0 0, range +8, steeply rising contour +10, rate +4, loudness +5, brilliance -3",
    ),
    "disgusted": Prosody(
        f0=0.72,
        f0_range=1.2,
        tempo=0.65,
        level_db=-3.0,
        tilt_db=-1.0,
        creak=0.5,
        source="Murray & Arnott 1993: very much slower, very much lower, slightly wider range, lower level, grumbled chest tone",
    ),
}

# Bounds of what varies from utterance to utterance (uniform), so that emotions overlap a little, as in the wild.
STRENGTH = (0.7, 1.1)
"""Factor on the intensity."""
JITTER_F0 = 0.08
JITTER_RANGE = 0.2
JITTER_TEMPO = 0.08
"""Relative."""
JITTER_LEVEL_DB = 1.5
JITTER_TILT_DB = 0.5


class SpokenWord(NamedTuple):
    """One word of an utterance; times in ms from the start of the utterance."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Utterance:
    """Speech: float32 mono samples in -1..1, shape (samples,), and when each word is said."""

    samples: Samples
    rate_hz: int
    words: tuple[SpokenWord, ...]


def speak(text: str, voice: Voice, emotion: str, *, intensity: float = 1.0, seed: int = 0) -> Utterance:
    """Says a text in a voice and an emotion.

    The same arguments give equal bytes, in any process and after any other utterance.

    Args:
        text: English, one or more sentences. The full stop at the end is where the emotion's tune goes; "?" and "!"
            stay.
        voice: Who speaks.
        emotion: A key of `PROSODY`.
        intensity: 0 is neutral, 1 is the published rule.
        seed: Chooses the variation within the bounds above.

    Returns:
        The utterance at 16 kHz, without silence before the first and after the last sound.

    Raises:
        ConfigError: An emotion without a rule, an empty text, a negative intensity.
        DependencyError: espeakng-loader is not installed.
    """
    rule = PROSODY.get(emotion)  # type: ignore[call-overload]  # any string may ask
    if rule is None:
        raise ConfigError(f"no prosody rule for emotion {emotion!r}; expected one of {', '.join(sorted(PROSODY))}")
    if not re.search(r"\w", text):
        raise ConfigError(f"nothing to say in {text!r}; expected a text with at least one word")
    if not intensity >= 0:
        raise ConfigError(f"intensity: got {intensity}, expected >= 0")
    rng = np.random.default_rng([seed, zlib.crc32(f"{voice.name}/{emotion}/{text}".encode())])
    strength = intensity * rng.uniform(*STRENGTH)
    f0 = rule.f0**strength * (1 + rng.uniform(-JITTER_F0, JITTER_F0))
    f0_range = rule.f0_range**strength * (1 + rng.uniform(-JITTER_RANGE, JITTER_RANGE))
    tempo = rule.tempo**strength * (1 + rng.uniform(-JITTER_TEMPO, JITTER_TEMPO))
    level_db = NEUTRAL_DBFS + strength * rule.level_db + rng.uniform(-JITTER_LEVEL_DB, JITTER_LEVEL_DB)
    tilt_db = strength * rule.tilt_db + rng.uniform(-JITTER_TILT_DB, JITTER_TILT_DB)

    tune = rule.tune if strength > 0 else "."
    body = text.rstrip()
    spoken = body if body.endswith(("?", "!")) else body.rstrip(".") + tune
    raw = _espeak(
        spoken,
        voice.espeak,
        pitch=_clip(voice.pitch + 50 * math.log2(f0), 0, 99),
        pitch_range=_clip(50 * f0_range, 0, 99),
        rate_wpm=_clip(voice.rate_wpm * tempo, 80, 400),
    )
    wave = raw.samples
    if rule.tremor_cents:
        wave = _tremor(wave, raw.rate_hz, cents=strength * rule.tremor_cents, rng=rng)
    if rule.creak:
        wave = _creak(wave, raw.rate_hz, depth=min(0.9, strength * rule.creak), rng=rng)
    wave = soxr.resample(wave, raw.rate_hz, RATE_HZ, quality="HQ")
    wave = _tilt(wave, db_per_octave=tilt_db)
    if rule.breath_db is not None and strength > 0:
        wave = _breath(wave, db=rule.breath_db + 20 * math.log10(strength), rng=rng)
    first, last = _sounding(wave)
    wave = _set_level(wave[first:last], level_db)
    return Utterance(wave, RATE_HZ, _words(text, raw, offset=first, total=last - first))


def _clip(value: float, low: int, high: int) -> int:
    return min(high, max(low, round(value)))


# ---- words -----------------------------------------------------------------------------------------------------------


def _words(text: str, raw: _Raw, *, offset: int, total: int) -> tuple[SpokenWord, ...]:
    """Word times in the utterance.

    espeak-ng says where a word begins; it ends where the next begins or the sound ends. Pairs such as "in the" are one
    unit in its dictionary and have one event: their span is divided by letters.

    Args:
        text: As given to `speak`.
        raw: What espeak-ng returned.
        offset: Samples at 16 kHz cut off at the start.
        total: Samples at 16 kHz kept.
    """
    tokens = [(match.start(), match.group().strip(".,;:!?\"'()-")) for match in re.finditer(r"\S+", text)]
    tokens = [(at, word) for at, word in tokens if word]
    begins: list[float | None] = []
    bounds = [at for at, _ in tokens[1:]] + [len(text) + 1]
    for (at, _), end in zip(tokens, bounds, strict=True):
        inside = [begin for position, begin in raw.events if at <= position < end]
        begins.append(min(inside) * RATE_HZ / raw.rate_hz - offset if inside else None)
    starts = _fill([0.0, *begins[1:]], [len(word) for _, word in tokens], float(total))
    edges = [min(max(0, round(1000 * start / RATE_HZ)), 1000 * total // RATE_HZ) for start in [*starts, float(total)]]
    edges = list(np.maximum.accumulate(edges))
    return tuple(SpokenWord(word, int(edges[i]), int(edges[i + 1])) for i, (_, word) in enumerate(tokens))


def _fill(starts: list[float | None], letters: list[int], total: float) -> list[float]:
    """Divides the span of a start among the words after it that have none, in proportion to their letters."""
    filled: list[float] = []
    known = [i for i, start in enumerate(starts) if start is not None]
    for here, after in zip(known, [*known[1:], len(starts)], strict=True):
        begin = starts[here] or 0.0
        end = (starts[after] or 0.0) if after < len(starts) else total
        weights = np.cumsum([0, *letters[here:after]])
        filled += [begin + (end - begin) * float(weight / weights[-1]) for weight in weights[:-1]]
    return filled


# ---- voice quality ---------------------------------------------------------------------------------------------------


def _tremor(wave: Samples, rate_hz: int, *, cents: float, rng: np.random.Generator) -> Samples:
    """Modulates F0 at 5 to 7 Hz by +-cents and level by 15 %: reads the wave at a time that sways (by less than 2 ms)."""
    hz, phase = rng.uniform(5.0, 7.0), rng.uniform(0, 2 * math.pi)
    index = np.arange(len(wave), dtype=np.float64)
    angle = 2 * math.pi * hz * index / rate_hz + phase
    sway = (2 ** (cents / 1200) - 1) * rate_hz / (2 * math.pi * hz)
    read = np.clip(index + sway * np.sin(angle), 0, len(wave) - 1)
    return (np.interp(read, index, wave) * (1 + 0.15 * np.sin(angle))).astype(np.float32)


def _creak(wave: Samples, rate_hz: int, *, depth: float, rng: np.random.Generator) -> Samples:
    """Modulates the amplitude by irregular pulses at 35 to 60 Hz, below the voice's own F0."""
    hz = rng.uniform(35.0, 60.0)
    knots = np.arange(0, len(wave) / rate_hz + 1, 0.05)
    speed = hz * (1 + 0.3 * rng.standard_normal(len(knots)))
    phase = np.cumsum(np.interp(np.arange(len(wave)) / rate_hz, knots, speed)) / rate_hz
    return (wave * (1 - depth * (0.5 + 0.5 * np.cos(2 * math.pi * phase)))).astype(np.float32)


def _tilt(wave: Samples, *, db_per_octave: float) -> Samples:
    """Tilts the spectrum above 500 Hz, zero phase, at most 15 dB in all."""
    size = 1 << (len(wave) + 512).bit_length()  # padded, so that the circular convolution does not wrap into the speech
    hz = np.fft.rfftfreq(size, 1 / RATE_HZ)
    gain_db = np.clip(db_per_octave * np.log2(np.maximum(hz, 500.0) / 500.0), -15.0, 15.0)
    tilted: _Floats = np.fft.irfft(np.fft.rfft(wave, size) * 10 ** (gain_db / 20), size)
    return tilted[: len(wave)].astype(np.float32)


def _breath(wave: Samples, *, db: float, rng: np.random.Generator) -> Samples:
    """Adds noise above 1.5 kHz that follows the envelope of the voice."""
    power = np.convolve(wave.astype(np.float64) ** 2, np.full(320, 1 / 320), mode="same")
    noise = rng.standard_normal(len(wave))
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(wave), 1 / RATE_HZ) < 1500.0] = 0
    noise = np.fft.irfft(spectrum, len(wave)).astype(np.float64)
    breath: _Floats = 10 ** (db / 20) * np.sqrt(np.maximum(power, 0)) * noise / noise.std()
    return (wave + breath).astype(np.float32)


def _sounding(wave: Samples) -> tuple[int, int]:
    """First and last sample (half open) louder than 40 dB below the loudest 10 ms."""
    frame = RATE_HZ // 100
    padded = np.pad(wave, (0, -len(wave) % frame)).reshape(-1, frame)
    power = (padded.astype(np.float64) ** 2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 1e-4)
    return int(loud[0]) * frame, min(len(wave), (int(loud[-1]) + 1) * frame)


def _set_level(wave: Samples, dbfs: float) -> Samples:
    """Scales to an RMS level; where the peak would clip, to that peak."""
    rms = math.sqrt(float((wave.astype(np.float64) ** 2).mean()))
    gain = min(10 ** (dbfs / 20) / rms, 0.98 / float(np.abs(wave).max()))
    return (wave * gain).astype(np.float32)


# ---- espeak-ng -------------------------------------------------------------------------------------------------------


class _Raw(NamedTuple):
    """What espeak-ng said: samples at its own rate, and (character, sample) where each word begins."""

    samples: Samples
    rate_hz: int
    events: tuple[tuple[int, int], ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h, API revision 12."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))

# Constants of speak_lib.h.
_SYNCHRONOUS, _DONT_EXIT, _POS_CHARACTER, _CHARS_UTF8 = 2, 0x8000, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_LIST_TERMINATED, _WORD = 0, 1

_lock = threading.Lock()


@functools.cache
def _library() -> tuple[str, str]:
    """Path of a copy of the library that is ours alone, and of its data.

    A copy, because `_fresh` must unload it, and another package in this process (phonemizer, say) may hold the
    original.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise DependencyError('the demonstration voice needs espeakng-loader: pip install "undertone[demo]"') from error
    folder = Path(tempfile.mkdtemp(prefix="undertone-espeak-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    original = Path(str(espeakng_loader.get_library_path()))
    return str(shutil.copy(original, folder / f"undertone-{original.name}")), str(espeakng_loader.get_data_path())


@contextlib.contextmanager
def _fresh() -> Iterator[tuple[ctypes.CDLL, int]]:
    """The library as if no one had ever spoken, and its sample rate in Hz.

    Its static state (phase of the flutter, noise generator) runs on from one utterance to the next and no call resets
    it, so it is unloaded after each (about 5 ms). It seeds its noise from the clock; we seed it anew.
    """
    path, data = _library()
    with _lock:
        library = ctypes.CDLL(path)
        try:
            rate_hz = int(library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT))
            if rate_hz <= 0:
                raise ModelError(f"espeak-ng did not start with the data in {data}: reinstall espeakng-loader")
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            yield library, rate_hz
        finally:
            library.espeak_Terminate()
            _unload(library._handle)


def _unload(handle: int) -> None:
    import _ctypes  # the only door to dlclose; ctypes itself never unloads

    if sys.platform == "win32":
        _ctypes.FreeLibrary(handle)
    else:
        _ctypes.dlclose(handle)


def _espeak(text: str, voice: str, *, pitch: int, pitch_range: int, rate_wpm: int) -> _Raw:
    """Runs espeak-ng once. Raises ModelError where it does not know the voice."""
    blocks: list[npt.NDArray[np.int16]] = []
    events: list[tuple[int, int]] = []

    def collect(wave: Any, count: int, event: Any) -> int:
        if wave and count > 0:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while event[index].type != _LIST_TERMINATED:
            if event[index].type == _WORD:
                events.append((event[index].text_position - 1, event[index].sample))
            index += 1
        return 0

    with _fresh() as (library, rate_hz):
        callback = _Callback(collect)
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ModelError(f"espeak-ng has no voice {voice!r}; VOICES lists the ones in use")
        for parameter, value in ((_RATE, rate_wpm), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        raw = text.encode()
        library.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
    if not blocks:
        raise ModelError(f"espeak-ng said nothing for {text!r} in voice {voice!r}")
    samples = (np.concatenate(blocks) / 32768.0).astype(np.float32)
    return _Raw(samples, rate_hz, tuple(events))
