"""Music and noise made here, because the data folder has no music: tones, chords, arpeggios, drums; hum, hiss, clicks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from affect_small.data import EVENTS, UNKNOWN, Clip
from undertone.label.features import RATE_HZ

Rng = np.random.Generator


def _note(rng: Rng, hz: float, seconds: float, timbre: int) -> np.ndarray:
    """One note: plucked, bowed, organ, bell or square, by `timbre`."""
    at = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    partials = np.arange(1, max(2, min(14, int(7000 / hz))))
    if timbre == 0:  # plucked: high partials die first
        wave = sum(np.sin(2 * np.pi * k * hz * at) / k * np.exp(-at * (2 + 1.5 * k)) for k in partials)
    elif timbre == 1:  # bowed: slow attack, vibrato
        phase = 2 * np.pi * hz * at + rng.uniform(0, 3) * np.sin(2 * np.pi * rng.uniform(4, 6) * at)
        wave = sum(np.sin(k * phase) / k for k in partials) * np.minimum(1, at / 0.08)
    elif timbre == 2:  # organ: octaves and a fifth
        wave = sum(np.sin(2 * np.pi * k * hz * at) for k in (1, 2, 3, 4) if k * hz < 7000)
    elif timbre == 3:  # bell: inharmonic partials (frequency modulation)
        wave = np.sin(2 * np.pi * hz * at + 4 * np.exp(-3 * at) * np.sin(2 * np.pi * 1.41 * hz * at)) * np.exp(-3 * at)
    else:
        wave = np.sign(np.sin(2 * np.pi * hz * at)) * np.exp(-at)
    ends = np.minimum(1, np.minimum(at, at[::-1]) / 0.005)
    return np.asarray(wave * ends / (np.abs(wave).max() + 1e-9))


def _melody(rng: Rng, seconds: float, voices: int) -> np.ndarray:
    """Notes of a scale on a beat, `voices` at a time: a melody, or chords."""
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10])
    root, beat, timbre = rng.uniform(36, 72), rng.choice([0.125, 0.25, 0.375, 0.5, 1.0]), int(rng.integers(5))
    out = np.zeros(int((seconds + 2) * RATE_HZ))
    degree = int(rng.integers(7))
    for start in np.arange(0, seconds, beat):
        degree = int(np.clip(degree + rng.integers(-3, 4), 0, 13))
        for voice in range(voices):
            step = degree + 2 * voice
            hz = 440 * 2 ** ((root + scale[step % 7] + 12 * (step // 7) - 69) / 12)
            note = _note(rng, hz, beat * rng.uniform(0.7, 1.5), timbre)
            out[int(start * RATE_HZ) :][: len(note)] += note[: len(out) - int(start * RATE_HZ)]
    return out[: int(seconds * RATE_HZ)]


def _drums(rng: Rng, seconds: float) -> np.ndarray:
    """Kick, snare and hat on a pattern drawn once."""
    beat = rng.uniform(0.11, 0.2)
    pattern = rng.random((3, 8)) < np.array([[0.35], [0.25], [0.7]])
    pattern[0, 0] = True
    out = np.zeros(int((seconds + 1) * RATE_HZ))
    at = np.arange(int(0.25 * RATE_HZ)) / RATE_HZ
    for i, start in enumerate(np.arange(0, seconds, beat)):
        hits = [
            np.sin(2 * np.pi * (50 * at + 6 * (1 - np.exp(-20 * at)))) * np.exp(-14 * at),
            rng.standard_normal(len(at)) * np.exp(-18 * at) * 0.6,
            np.diff(rng.standard_normal(len(at) + 1)) * np.exp(-60 * at) * 0.3,
        ]
        for hit, struck in zip(hits, pattern[:, i % 8], strict=True):
            if struck:
                out[int(start * RATE_HZ) :][: len(hit)] += hit
    return out[: int(seconds * RATE_HZ)]


def music(count: int, *, seed: int) -> Iterator[Clip]:
    """Synthetic music of 2-5 s: a melody, chords, drums, and chords with drums, in turn."""
    for i in range(count):
        rng = np.random.default_rng([seed, 77, i])
        seconds = rng.uniform(2, 5)
        wave = _drums(rng, seconds) if i % 4 >= 2 else np.zeros(int(seconds * RATE_HZ))
        if i % 4 != 2:
            wave = wave + _melody(rng, seconds, 1 if i % 4 == 0 else 3)
        wave = 10 ** rng.uniform(-2, -0.5) * wave / (np.abs(wave).max() + 1e-9)
        yield Clip("music", f"piece{i}", UNKNOWN, UNKNOWN, None, EVENTS.index("music"), wave.astype(np.float32), "music")


def noises(count: int, *, seed: int) -> Iterator[Clip]:
    """Coloured noise, mains hum, clicks and beeps of 1-4 s."""
    for i in range(count):
        rng = np.random.default_rng([seed, 78, i])
        size = int(rng.uniform(1, 4) * RATE_HZ)
        at = np.arange(size) / RATE_HZ
        if i % 4 < 2:  # power falls by 0-2 octaves per octave
            spectrum = np.fft.rfft(rng.standard_normal(size)) / np.maximum(np.fft.rfftfreq(size), 1e-3) ** rng.uniform(0, 1)
            wave = np.fft.irfft(spectrum, n=size) * (1 + rng.uniform(0, 0.8) * np.sin(2 * np.pi * rng.uniform(0.1, 3) * at))
        elif i % 4 == 2:
            hz = rng.choice([50.0, 60.0, 100.0, 440.0, 1000.0]) * rng.uniform(0.98, 1.02)
            wave = sum(rng.random() * np.sin(2 * np.pi * k * hz * at) for k in range(1, 8) if k * hz < 7900)
            wave = wave + rng.uniform(0, 0.3) * rng.standard_normal(size)
        else:
            wave = rng.standard_normal(size) * (np.convolve(rng.random(size) < 3 / RATE_HZ, np.exp(-np.arange(400) / 60))[:size])
            wave = wave + rng.uniform(0.001, 0.05) * rng.standard_normal(size)
        wave = 10 ** rng.uniform(-2.5, -0.5) * wave / (np.abs(wave).max() + 1e-9)
        yield Clip("noise", f"noise{i}", UNKNOWN, UNKNOWN, None, EVENTS.index("noise"), wave.astype(np.float32), "noise")
