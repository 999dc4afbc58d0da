"""Other voices, rooms, microphones and company: augmentation of waveforms (kept as copies) and of features (drawn anew)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr

from affect_small.data import Clip, read_wave
from undertone.label.features import DB_SCALE, FEATURES, FLOOR_DB, FRONT_END_VERSION, MELS, RATE_HZ, log_mel

Rng = np.random.Generator
BANK_VERSION = "1"  # changes whenever `augment_wave` or what it draws from does


def through_codec(wave: np.ndarray, rng: Rng) -> np.ndarray:
    """Send a wave through a telephone (300-3,400 Hz, 8 bit mu-law) or a lossy file (Vorbis at its lowest quality)."""
    if rng.random() < 0.5:
        narrow = soxr.resample(wave, RATE_HZ, 8_000, quality="QQ")
        peak = np.abs(narrow).max() + 1e-9
        coded = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow) / peak) / np.log(256)) / 127
        wide = soxr.resample(peak * np.sign(coded) * (256 ** np.abs(coded) - 1) / 255, 8_000, RATE_HZ, quality="QQ")
        return wide.astype(np.float32)
    held = io.BytesIO()
    soundfile.write(held, np.clip(wave, -1, 1), RATE_HZ, format="OGG", subtype="VORBIS", compression_level=1.0)
    held.seek(0)
    return np.asarray(soundfile.read(held, dtype="float32")[0])


def augment_wave(wave: np.ndarray, rooms: list[np.ndarray], noises: list[np.ndarray], rng: Rng) -> np.ndarray:
    """Make another speaker in another place: speed by up to 12 %, a room, noise at 3-30 dB SNR, a codec."""
    if rng.random() < 0.9:
        # Changes pitch, formants and tempo together, as a shorter vocal tract in a hurry would; 12 % keeps the gender.
        wave = soxr.resample(wave, RATE_HZ, RATE_HZ / rng.uniform(0.88, 1.13), quality="QQ").astype(np.float32)
    if rng.random() < 0.35:
        room = rooms[rng.integers(len(rooms))]
        size = 1 << int(np.ceil(np.log2(len(wave) + len(room))))
        wave = np.fft.irfft(np.fft.rfft(wave, n=size) * np.fft.rfft(room, n=size))[: len(wave)].astype(np.float32)
    if rng.random() < 0.5:
        if rng.random() < 0.3:
            noise = rng.standard_normal(len(wave))
        else:
            noise = np.resize(noises[rng.integers(len(noises))], len(wave) + RATE_HZ)
            start = rng.integers(RATE_HZ)
            noise = noise[start : start + len(wave)]
        snr = 10 ** (rng.uniform(3, 30) / 20)
        wave = wave + noise * (np.sqrt(np.mean(wave**2)) / (np.sqrt(np.mean(noise**2)) + 1e-9) / snr)
    if rng.random() < 0.15:
        wave = through_codec(wave, rng)
    return wave.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Bank:
    """Features of every clip: `take(i, v)` is copy v of clip i; copy 0 is unchanged."""

    rows: np.ndarray  # (all frames, 66) float16
    starts: np.ndarray  # (clips, copies + 2) int64, absolute; [i, v] .. [i, v + 1]
    stem: Path = Path()  # where it is kept, without the endings of the two files

    @property
    def copies(self) -> int:
        """How many copies a clip has besides the unchanged one."""
        return self.starts.shape[1] - 2

    def take(self, clip: int, copy: int) -> np.ndarray:
        """Return the features of one copy of one clip, shape (frames, 66), float16."""
        return self.rows[self.starts[clip, copy] : self.starts[clip, copy + 1]]


def feature_bank(clips: list[Clip], data: Path, *, copies: int, seed: int, cache: Path) -> Bank:
    """Compute features of all clips, unchanged and in `copies` augmented versions; kept in `cache` by content."""
    fingerprint = (BANK_VERSION, FRONT_END_VERSION, copies, seed, [(c.corpus, c.speaker, c.label, c.samples) for c in clips])
    stem = cache / f"bank-{hashlib.sha256(repr(fingerprint).encode()).hexdigest()[:16]}"
    if stem.with_suffix(".starts.npy").exists():
        return Bank(np.load(stem.with_suffix(".rows.npy"), mmap_mode="r"), np.load(stem.with_suffix(".starts.npy")), stem)
    rooms = [read_wave(file)[: RATE_HZ // 2] for file in sorted((data / "acoustics" / "rooms").iterdir())]
    rooms = [room / np.sqrt(np.sum(room**2)) for room in rooms]
    noises = [
        c.wave for c in clips if c.corpus in ("acoustics", "music") and c.label in ("music", "rain", "sea-waves", "helicopter")
    ]
    noises += [read_wave(file) for file in sorted((data / "acoustics" / "noises").iterdir())]
    parts, starts, total, began = [], np.zeros((len(clips), copies + 2), dtype=np.int64), 0, time.perf_counter()
    for i, clip in enumerate(clips):
        starts[i, 0] = total
        for v in range(1 + copies):
            rng = np.random.default_rng([seed, i, v])
            part = log_mel(clip.wave if v == 0 else augment_wave(clip.wave, rooms, noises, rng)).values.astype(np.float16)
            parts.append(part)
            total += len(part)
            starts[i, v + 1] = total
        if i % 1000 == 0:
            print(f"features: {i}/{len(clips)} clips, {time.perf_counter() - began:.0f} s", flush=True)
    print(f"features: {total / 360_000:.1f} h in {time.perf_counter() - began:.0f} s", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(stem.with_suffix(".rows.npy"), np.concatenate(parts))
    np.save(stem.with_suffix(".starts.npy"), starts)
    return Bank(np.load(stem.with_suffix(".rows.npy"), mmap_mode="r"), starts, stem)


def crop(rows: np.ndarray, frames: int, rng: Rng, strength: float) -> np.ndarray:
    """Crop to at most `frames` and change tempo, vocal tract length, pitch, tilt and level a little.

    Args:
        rows: features of one clip, shape (n, 66).
        frames: most rows to return.
        rng: source of chance.
        strength: 1 changes tempo by up to 17 %, vocal tract by 8 %, pitch by 0.15 octaves; 0 nothing.

    Returns:
        float32 of shape (at most `frames`, 66).
    """
    # Some corpora begin and end with a second of silence: a crop of nothing but that would teach the label of silence.
    loud = np.flatnonzero(rows[:, :MELS].max(axis=1) > ACTIVE_DB / DB_SCALE)
    if len(loud):
        rows = rows[max(0, loud[0] - int(rng.integers(50))) : loud[-1] + 2 + int(rng.integers(50))]
    if len(rows) < 2:
        rows = np.resize(rows, (2, FEATURES))
    tempo = 2 ** (strength * rng.uniform(-0.24, 0.24))
    span = min(len(rows) - 1, int(frames * tempo))
    start = rng.uniform(0, len(rows) - span)
    length = max(1, min(frames, int(span / tempo)))
    first = int(start)
    rows = rows[first : first + span + 2].astype(np.float32)
    at = np.minimum(start - first + np.arange(length, dtype=np.float32) * tempo, len(rows) - 1.001)
    low = at.astype(np.int64)
    part = (at - low).astype(np.float32)[:, None]
    rows = rows[low] * (1 - part) + rows[np.minimum(low + 1, len(rows) - 1)] * part
    rows[:, :MELS] = rows[:, :MELS] @ _warp(strength * rng.uniform(-0.08, 0.08))
    # Microphones and rooms differ in level and colour: a smooth random response of some decibels.
    colour = np.interp(np.arange(MELS), np.linspace(0, MELS - 1, 5), strength * rng.normal(0, 0.12, size=5))
    rows[:, :MELS] += (colour + rng.uniform(-0.1, 0.1)).astype(np.float32)
    rows[:, MELS] += strength * rng.uniform(-0.15, 0.15) * (rows[:, MELS] != 0)
    return rows


ACTIVE_DB = -12.0  # the loudest mel band of a frame that is spoken, relative to the speech level


def _warp(share: float) -> np.ndarray:
    """Vocal tract length perturbation (Jaitly & Hinton, 2013), linear along the mel axis, as a (64, 64) matrix."""
    bins = np.clip(np.arange(MELS) * (1 + share), 0, MELS - 1.001)
    low = bins.astype(np.int64)
    part = (bins - low).astype(np.float32)
    matrix = np.zeros((MELS, MELS), dtype=np.float32)
    matrix[low, np.arange(MELS)] = 1 - part
    matrix[low + 1, np.arange(MELS)] += part
    return matrix


def mix(rows: np.ndarray, other: np.ndarray, below_db: float) -> np.ndarray:
    """Add another sound `below_db` under the first, in the power domain; pitch and voicing stay those of the first."""
    count = min(len(rows), len(other))
    scale = np.float32(DB_SCALE * np.log(10) / 10)
    rows = rows.copy()
    rows[:count, :MELS] = np.logaddexp(rows[:count, :MELS] * scale, (other[:count, :MELS] - below_db / DB_SCALE) * scale) / scale
    return rows


def mask(rows: np.ndarray, rng: Rng) -> None:
    """Blank two bands and two stretches in place (SpecAugment, Park et al., 2019)."""
    filling = float(rows[:, :MELS].mean())
    for _ in range(2):
        width, first = rng.integers(0, 9), rng.integers(0, MELS - 9)
        rows[:, first : first + width] = filling
        width, first = rng.integers(0, 16), rng.integers(0, max(1, len(rows) - 16))
        rows[first : first + width, :MELS], rows[first : first + width, MELS:] = filling, 0.0


def blank(count: int, frames: int) -> np.ndarray:
    """Silence, shape (count, frames, 66)."""
    out = np.full((count, frames, FEATURES), FLOOR_DB / DB_SCALE, dtype=np.float32)
    out[:, :, MELS:] = 0.0
    return out
