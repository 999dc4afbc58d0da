"""Train `affect-small`, the small network that hears emotion, valence/arousal/dominance and gender.

    python recipes/affect_small.py --data ../shared/data --out models/affect-small

One file, read top to bottom: what the speakers and targets are, features (computed once, kept in a cache), the network,
the loss (MERaLiON-SER: class-weighted cross-entropy + 1 - mean CCC), training with early stopping on speakers set aside,
export to ONNX, and one evaluation of the exported file on speakers that nothing was tuned to. Every number of the model
card is written here. About half an hour on one CPU core; deterministic for one seed, one machine and one thread count.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import hashlib
import json
import math
import platform
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from sklearn.metrics import f1_score, recall_score
from torch import Tensor, nn
from torch.nn import functional

import undertone.label.features as front_end
from undertone.label.affect import HIDDEN, AffectScores, AffectSmall, probe_wave
from undertone.label.features import DB_SCALE, FEATURES, FLOOR_DB, MELS, RATE_HZ, log_mel

VERSION = "1"
LICENCE = "CC-BY-NC-SA-4.0"

# ---------------------------------------------------------------------------------------------------------------------
# Who is heard, and what the targets are

EMOTIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
GENDERS = ("female", "male")
TO_OURS = {
    "angry": "angry", "anger": "angry", "disgust": "disgusted", "fearful": "fearful", "fear": "fearful",
    "happy": "happy", "happiness": "happy", "neutral": "neutral", "calm": "neutral", "sad": "sad", "sadness": "sad",
    "surprised": "surprised", "disgusted": "disgusted",
}  # fmt: skip

TEST_SPEAKERS = frozenset({"ravdess/rav17", "ravdess/rav18", "ravdess/rav19", "ravdess/rav20", "tess/YAF"})
DEV_SPEAKERS = frozenset({"ravdess/rav13", "ravdess/rav14", "ravdess/rav15", "ravdess/rav16", "nemo/MP0"})
CORPORA = ("ravdess", "tess", "nemo")
SHARES = {"ravdess": 0.40, "tess": 0.18, "nemo": 0.42, "demo": 0.25}  # of a batch, renormalised over what is there

# Pleasure, arousal, dominance of the emotion terms in -1..1: Russell & Mehrabian (1977), Evidence for a three-factor theory
# of emotions, J. Research in Personality 11, table 3. Neutral is the origin by definition.
PAD = {
    "angry": (-0.51, 0.59, 0.25), "disgusted": (-0.60, 0.35, 0.11), "fearful": (-0.64, 0.60, -0.43),
    "happy": (0.81, 0.51, 0.46), "neutral": (0.0, 0.0, 0.0), "sad": (-0.63, -0.27, -0.33), "surprised": (0.40, 0.67, -0.13),
}  # fmt: skip
# Ours, not published: how far an acted intensity lies along the line from neutral to the norm.
INTENSITY = {"": 1.0, "normal": 0.85, "strong": 1.15}


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One spoken sentence with its targets.

    Attributes:
        corpus, speaker: where it is from; "corpus/speaker" names the voice.
        role: "train", "dev" or "test".
        emotion: index into EMOTIONS.
        gender: index into GENDERS.
        vad: valence, arousal, dominance in 0..1, or None where no norm applies.
        wave: float32 mono at 16 kHz.
    """

    corpus: str
    speaker: str
    role: str
    emotion: int
    gender: int
    vad: tuple[float, float, float] | None
    wave: np.ndarray


def vad_target(emotion: str, intensity: float) -> tuple[float, float, float]:
    """Map the norm of an emotion, scaled by intensity, to valence, arousal, dominance in 0..1."""
    v, a, d = (min(1.0, max(0.0, 0.5 + 0.5 * intensity * x)) for x in PAD[emotion])
    return v, a, d


def read_corpus(data: Path, corpus: str) -> list[Utterance]:
    """Read one acted corpus of the shared data folder."""
    utterances = []
    for row in csv.DictReader((data / corpus / "manifest.csv").open(encoding="utf-8")):
        emotion = TO_OURS[row["emotion"]]
        name = f"{corpus}/{row['speaker']}"
        role = "test" if name in TEST_SPEAKERS else "dev" if name in DEV_SPEAKERS else "train"
        # The norms know no "calm": pooled with neutral as a category, but without a V/A/D target.
        vad = None if row["emotion"] == "calm" else vad_target(emotion, INTENSITY[row["intensity"]])
        wave, rate = soundfile.read(data / corpus / row["file"], dtype="float32")
        if rate != RATE_HZ:
            raise SystemExit(f"{data / corpus / row['file']}: {rate} Hz, expected {RATE_HZ}")
        utterances.append(Utterance(corpus, row["speaker"], role, EMOTIONS.index(emotion), GENDERS.index(row["gender"]), vad, wave))
    return utterances


# Sentences without emotion in the words, for the synthetic voices.
WHO = ("The teacher", "My neighbour", "A driver", "Her cousin", "The clerk", "Someone", "The whole team", "Your brother")
DID = ("moved", "opened", "found", "ordered", "painted", "returned", "carried", "sold", "forgot", "counted")
WHAT = ("the wooden box", "two tickets", "a green chair", "the morning paper", "some old letters", "the kitchen table", "a map")
WHEN = ("before lunch", "on Tuesday", "at the station", "last week", "near the river", "after the meeting", "this morning")


def synthetic(count: int, *, group: str, role: str, seed: int) -> list[Utterance]:
    """Let one group of the espeak voices say neutral sentences in all emotions, in turn, at intensity 0.7 to 1.2."""
    from undertone.corpora.voices import VOICES, speak  # late: only this step needs the `demo` extra

    rng = random.Random(seed)
    voices = [voice for voice in VOICES if voice.group == group]
    utterances = []
    for i in range(count):
        voice, emotion = voices[i % len(voices)], EMOTIONS[i // len(voices) % len(EMOTIONS)]
        text = f"{rng.choice(WHO)} {rng.choice(DID)} {rng.choice(WHAT)} {rng.choice(WHEN)}."
        intensity = rng.uniform(0.7, 1.2)
        wave = np.asarray(speak(text, voice, emotion, intensity=intensity, seed=seed * 100_000 + i).samples, dtype=np.float32)
        gender, vad = GENDERS.index(voice.gender), vad_target(emotion, intensity)
        utterances.append(Utterance("demo", voice.name, role, EMOTIONS.index(emotion), gender, vad, wave))
    return utterances


# ---------------------------------------------------------------------------------------------------------------------
# Features: computed once per utterance and waveform-augmented copy, kept in memory as float16


def augment_wave(wave: np.ndarray, rooms: list[np.ndarray], noises: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Make another speaker in another place: resample by up to 12 %, add a room, add noise at 5-30 dB SNR."""
    if rng.random() < 0.8:
        # Changes pitch, formants and tempo together, as a shorter vocal tract in a hurry would; 12 % keeps the gender.
        wave = soxr.resample(wave, RATE_HZ, RATE_HZ / rng.uniform(0.89, 1.12), quality="QQ").astype(np.float32)
    if rng.random() < 0.35:
        room = rooms[rng.integers(len(rooms))]
        wet = np.fft.irfft(np.fft.rfft(wave, n=len(wave) + len(room)) * np.fft.rfft(room, n=len(wave) + len(room)))
        wave = wet[: len(wave)].astype(np.float32)
    if rng.random() < 0.6:
        if rng.random() < 0.3:
            noise = rng.standard_normal(len(wave))
        else:
            noise = np.resize(noises[rng.integers(len(noises))], len(wave) + RATE_HZ)
            start = rng.integers(RATE_HZ)
            noise = noise[start : start + len(wave)]
        snr = 10 ** (rng.uniform(5, 30) / 20)
        wave = wave + noise * (np.sqrt(np.mean(wave**2)) / (np.sqrt(np.mean(noise**2)) + 1e-9) / snr)
    return wave.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Bank:
    """Features of every utterance: `take(i, v)` is copy v of utterance i; copy 0 is unchanged."""

    rows: np.ndarray  # (all frames, 66) float16
    starts: np.ndarray  # (utterances, copies + 1) int64, absolute; [i, v] .. [i, v + 1]

    def take(self, utterance: int, copy: int) -> np.ndarray:
        """Return the features of one copy of one utterance, shape (frames, 66)."""
        return self.rows[self.starts[utterance, copy] : self.starts[utterance, copy + 1]]


def read_folder(folder: Path) -> list[np.ndarray]:
    """Read every sound in a folder at 16 kHz mono."""
    sounds = []
    for file in sorted(folder.iterdir()):
        wave, rate = soundfile.read(file, dtype="float32", always_2d=True)
        sounds.append(soxr.resample(wave.mean(axis=1), rate, RATE_HZ).astype(np.float32))
    return sounds


def feature_bank(utterances: list[Utterance], data: Path, copies: int, seed: int, cache: Path) -> Bank:
    """Compute features of all utterances, the training ones also in `copies` augmented versions; cached by content."""
    key = hashlib.sha256(Path(front_end.__file__).read_bytes() + Path(__file__).read_bytes().split(b"\nclass Batches")[0])
    key.update(repr((copies, seed, [(u.corpus, u.speaker, u.role, len(u.wave)) for u in utterances])).encode())
    file = cache / f"bank-{key.hexdigest()[:16]}.npz"
    if file.exists():
        stored = np.load(file)
        return Bank(stored["rows"], stored["starts"])
    rooms = [room[: RATE_HZ // 2] / np.sqrt(np.sum(room**2)) for room in read_folder(data / "acoustics" / "rooms")]
    noises = read_folder(data / "acoustics" / "noises")
    parts, starts, total, began = [], np.zeros((len(utterances), copies + 2), dtype=np.int64), 0, time.perf_counter()
    for i, utterance in enumerate(utterances):
        starts[i, :] = total
        for v in range(1 + (copies if utterance.role == "train" else 0)):
            rng = np.random.default_rng([seed, i, v])
            wave = utterance.wave if v == 0 else augment_wave(utterance.wave, rooms, noises, rng)
            part = log_mel(wave).values.astype(np.float16)
            parts.append(part)
            total += len(part)
            starts[i, v + 1 :] = total
    bank = Bank(np.concatenate(parts), starts)
    print(f"features: {total / 360_000:.1f} h in {time.perf_counter() - began:.0f} s")
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(file, rows=bank.rows, starts=bank.starts)
    return bank


ACTIVE_DB = -12.0  # the loudest mel band of a frame that is spoken, relative to the speech level


class Batches:
    """Endless random crops, balanced over corpora and emotions, augmented in the feature domain."""

    def __init__(self, utterances: list[Utterance], bank: Bank, copies: int, batch: int, seed: int) -> None:
        self.utterances, self.bank, self.copies, self.batch = utterances, bank, copies, batch
        self.rng = np.random.default_rng(seed)
        cells: dict[tuple[str, int], list[int]] = {}
        for i, u in enumerate(utterances):
            if u.role == "train":
                cells.setdefault((u.corpus, u.emotion), []).append(i)
        self.cells = list(cells.values())
        per_corpus: dict[str, int] = {}
        for corpus, _ in cells:
            per_corpus[corpus] = per_corpus.get(corpus, 0) + 1
        weights = np.array([SHARES[corpus] / per_corpus[corpus] for corpus, _ in cells])
        self.weights = weights / weights.sum()
        drawn = np.zeros(len(EMOTIONS))
        for (_, emotion), weight in zip(cells, self.weights, strict=True):
            drawn[emotion] += weight
        # Inverse of how often a class is drawn; a class that a leave-one-out run never draws gets no weight.
        self.class_weights = np.where(drawn > 0, drawn[drawn > 0].mean() / np.maximum(drawn, 1e-9), 0.0)

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw features (B, T, 66), emotion (B,), V/A/D (B, 3), V/A/D mask (B,), gender (B,)."""
        rng = self.rng
        frames = 2 * int(rng.uniform(55, 160))  # 1.1 to 3.2 s
        out = np.full((self.batch, frames, FEATURES), FLOOR_DB / DB_SCALE, dtype=np.float32)
        out[:, :, MELS:] = 0.0
        chosen = [self.cells[c][rng.integers(len(self.cells[c]))] for c in rng.choice(len(self.cells), self.batch, p=self.weights)]
        for row, i in enumerate(chosen):
            rows = augment_rows(self.bank.take(i, int(rng.integers(self.copies + 1))).astype(np.float32), frames, rng)
            at = rng.integers(frames - len(rows) + 1)
            out[row, at : at + len(rows)] = rows
        # A random noise floor: how deep the pauses are is a property of the recording, not of the voice.
        floor = rng.uniform(FLOOR_DB, FLOOR_DB + 25, size=(self.batch, 1, 1)).astype(np.float32) / DB_SCALE
        out[:, :, :MELS] = np.maximum(out[:, :, :MELS], floor)
        items = [self.utterances[i] for i in chosen]
        return (
            torch.from_numpy(out),
            torch.tensor([u.emotion for u in items]),
            torch.tensor([u.vad or (0.5, 0.5, 0.5) for u in items]),
            torch.tensor([float(u.vad is not None) for u in items]),
            torch.tensor([u.gender for u in items]),
        )


def augment_rows(rows: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Crop to at most `frames`, change tempo, vocal tract length, pitch and level a little, mask (SpecAugment)."""
    tempo = rng.uniform(0.87, 1.15)
    # Some corpora begin and end with a second of silence: a crop of nothing but that would teach the label of silence.
    loud = np.flatnonzero(rows[:, :MELS].max(axis=1) * DB_SCALE > ACTIVE_DB)
    if len(loud):
        rows = rows[max(0, loud[0] - int(rng.integers(50))) : loud[-1] + 2 + int(rng.integers(50))]
    span = min(len(rows) - 1, int(frames * tempo))
    start = rng.uniform(0, len(rows) - span)
    length = min(frames, int(span / tempo))
    at = np.minimum(start + np.arange(length) * tempo, len(rows) - 1.001)
    low = at.astype(np.int64)
    part = (at - low).astype(np.float32)[:, None]
    rows = rows[low] * (1 - part) + rows[low + 1] * part
    warp = rng.uniform(-0.05, 0.05)  # vocal tract length perturbation (Jaitly & Hinton, 2013), linear along the mel axis
    bins = np.clip(np.arange(MELS) * (1 + warp), 0, MELS - 1.001)
    low = bins.astype(np.int64)
    part = (bins - low).astype(np.float32)
    mel = rows[:, low] * (1 - part) + rows[:, low + 1] * part + rng.uniform(-0.15, 0.15)
    # Tilt: microphones differ in their high frequencies by some decibels.
    mel = mel + (rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, MELS)).astype(np.float32)
    pitch = rows[:, MELS:].copy()
    pitch[:, 0] += rng.uniform(-0.12, 0.12) * (pitch[:, 0] != 0)
    filling = float(mel.mean())
    for _ in range(2):
        width, first = rng.integers(0, 7), rng.integers(0, MELS - 7)
        mel[:, first : first + width] = filling
        width, first = rng.integers(0, 12), rng.integers(0, max(1, length - 12))
        mel[first : first + width], pitch[first : first + width] = filling, 0.0
    return np.concatenate([mel, pitch], axis=1).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# Network: 2-D stem to 20 ms frames, dilated residual 1-D trunk, attentive statistics pooling, three heads


class Residual(nn.Module):
    """Dilated convolution (kernel 5), then a mixing 1x1, around a shortcut."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(width, width, 1, bias=False),
            nn.BatchNorm1d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class AffectNet(nn.Module):
    """Features (B, T, 66), T even -> emotion logits (B, 7), V/A/D (B, 3), gender logits (B, 2), hidden (B, T/2, 128)."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            # Kernel 4, stride 2 in time keeps frame k centred on the pair of input frames 2k, 2k + 1; striding at once
            # halves the cost of the whole network.
            nn.Conv2d(1, 12, (4, 5), stride=(2, 2), padding=(1, 2), bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=(1, 2), padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=(1, 2), padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.enter = nn.Sequential(nn.Conv1d(32 * 8 + 4, HIDDEN, 1, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU())
        self.trunk = nn.Sequential(*(Residual(HIDDEN, dilation, dropout) for dilation in (1, 2, 4, 6, 1)))
        self.leave = nn.BatchNorm1d(HIDDEN)
        self.attention = nn.Sequential(nn.Conv1d(HIDDEN, 64, 1), nn.Tanh(), nn.Conv1d(64, 4, 1))
        self.embed = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * HIDDEN, 128), nn.ReLU(), nn.Dropout(0.3))
        self.emotion, self.vad, self.gender = nn.Linear(128, len(EMOTIONS)), nn.Linear(128, 3), nn.Linear(2 * HIDDEN, 2)
        self.register_buffer("temperature", torch.ones(()))  # of the emotion softmax, fitted on dev after training

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mel = self.stem(features[:, None, :, :MELS])  # (B, 32, T/2, 8)
        pitch = features[:, :, MELS:].reshape(features.shape[0], -1, 4).transpose(1, 2)  # two frames' pitch and voicing
        x = mel.permute(0, 1, 3, 2).flatten(1, 2)  # (B, 256, T/2)
        hidden = self.leave(self.trunk(self.enter(torch.cat([x, pitch], dim=1))))
        # Four attention heads, each weighting its own quarter of the channels (Okabe et al., 2018, multi-head).
        weight = torch.softmax(self.attention(hidden), dim=2)[:, :, None].expand(-1, -1, HIDDEN // 4, -1).flatten(1, 2)
        mean = (weight * hidden).sum(dim=2)
        spread = ((weight * hidden**2).sum(dim=2) - mean**2).clamp(min=1e-4).sqrt()
        pooled = torch.cat([mean, spread], dim=1)
        z = self.embed(pooled)
        return self.emotion(z) / self.temperature, torch.sigmoid(self.vad(z)), self.gender(pooled), hidden.transpose(1, 2)


# ---------------------------------------------------------------------------------------------------------------------
# Loss and training


def one_minus_ccc(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - concordance correlation coefficient (Lin, 1989), mean over V, A, D; rows with mask 0 do not count."""
    weight = mask[:, None] / mask.sum().clamp(min=1.0)
    mean_p, mean_t = (weight * predicted).sum(0), (weight * target).sum(0)
    var_p, var_t = (weight * (predicted - mean_p) ** 2).sum(0), (weight * (target - mean_t) ** 2).sum(0)
    covariance = (weight * (predicted - mean_p) * (target - mean_t)).sum(0)
    return (1 - 2 * covariance / (var_p + var_t + (mean_p - mean_t) ** 2 + 1e-6)).mean()


def predict(net: AffectNet, bank: Bank, items: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Emotion logits (N, 7), V/A/D (N, 3), gender logits (N, 2) of whole unchanged utterances."""
    net.eval()
    found = []
    with torch.no_grad():
        for i in items:
            rows = bank.take(i, 0).astype(np.float32)
            found.append([x[0].numpy() for x in net(torch.from_numpy(rows[None, : len(rows) // 2 * 2]))[:3]])
    emotion, vad, gender = zip(*found, strict=True)
    return np.stack(emotion), np.stack(vad), np.stack(gender)


def unweighted_recall(truth: np.ndarray, guess: np.ndarray) -> float:
    """UAR: recall averaged over the classes that occur in `truth`."""
    return float(recall_score(truth, guess, labels=sorted(set(truth.tolist())), average="macro", zero_division=0))


def running_average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Exponential average of weights with a memory that grows to about 300 steps, so that short runs work too."""
    decay = min(0.997, (1 + int(count)) / (10 + int(count)))
    return averaged + (1 - decay) * (current - averaged)


def train(
    utterances: list[Utterance], bank: Bank, *, copies: int, steps: int, batch: int, seed: int, rate: float = 2e-3
) -> tuple[AffectNet, dict[str, float]]:
    """Train with AdamW and a cosine schedule; keep the averaged weights of the best dev score.

    Returns:
        The network in eval mode, and its dev UAR per corpus with the step it was taken from.
    """
    torch.manual_seed(seed)
    net = AffectNet()
    averaged = torch.optim.swa_utils.AveragedModel(net, avg_fn=running_average, use_buffers=True)
    batches = Batches(utterances, bank, copies, batch, seed)
    class_weights = torch.tensor(batches.class_weights, dtype=torch.float32)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=rate)
    warm = min(100, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / warm if s < warm else 0.5 + 0.5 * math.cos(math.pi * (s - warm) / (steps - warm))
    )
    dev = {c: [i for i, u in enumerate(utterances) if u.role == "dev" and u.corpus == c] for c in CORPORA}
    dev = {c: items for c, items in dev.items() if items}
    best, best_score, best_state, losses, began = {}, -1.0, copy.deepcopy(net.state_dict()), [], time.perf_counter()
    for step in range(1, steps + 1):
        net.train()
        features, emotion, vad, mask, gender = batches.draw()
        emotion_logits, vad_guess, gender_logits, _ = net(features)
        loss = functional.cross_entropy(emotion_logits, emotion, weight=class_weights, label_smoothing=0.05)
        loss = loss + one_minus_ccc(vad_guess, vad, mask) + 0.5 * functional.cross_entropy(gender_logits, gender)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(net)
        losses.append(loss.item())
        if step % 200 == 0 or step == steps:
            uar = {}
            for corpus, items in dev.items():
                logits, _, gender_guess = predict(averaged.module, bank, items)
                uar[corpus] = unweighted_recall(np.array([utterances[i].emotion for i in items]), logits.argmax(1))
                uar[corpus + "_gender"] = float(np.mean(gender_guess.argmax(1) == [utterances[i].gender for i in items]))
            score = float(np.mean([uar[c] for c in dev])) if dev else float(step)
            if score > best_score:
                best, best_score, best_state = {"step": step, **uar}, score, copy.deepcopy(averaged.module.state_dict())
            said = " ".join(f"{c} {x:.3f}" for c, x in uar.items())
            print(f"step {step:5d} loss {np.mean(losses[-200:]):.3f} dev {said} {time.perf_counter() - began:.0f} s", flush=True)
    net.load_state_dict(best_state)
    return net.eval(), best


def fit_temperature(net: AffectNet, utterances: list[Utterance], bank: Bank) -> None:
    """Scale the emotion logits so that confidence matches accuracy on dev (Guo et al., 2017)."""
    items = [i for i, u in enumerate(utterances) if u.role == "dev"]
    logits = torch.from_numpy(predict(net, bank, items)[0])
    truth = torch.tensor([utterances[i].emotion for i in items])
    grid = torch.linspace(0.4, 3.0, 53)
    net.temperature.fill_(min(grid, key=lambda t: float(functional.cross_entropy(logits / t, truth))))


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation: always of the exported file, through the code that users run


def measure(model: AffectSmall, utterances: list[Utterance], *, seconds: float | None = None) -> dict[str, Any]:
    """Score utterances with the exported model and compare with their targets.

    Args:
        model: the exported model.
        utterances: what to score.
        seconds: score only the middle part of this length; None scores whole utterances.

    Returns:
        Numbers for `model.json`: counts, accuracy (wa), unweighted average recall (uar), macro F1, recall per emotion,
        confusion counts (rows truth, columns answer, order of EMOTIONS), gender accuracy, CCC of the derived V/A/D targets.
    """
    pairs: list[tuple[Utterance, AffectScores]] = []
    for utterance in utterances:
        wave = utterance.wave
        if seconds is not None and len(wave) > seconds * RATE_HZ:
            start = (len(wave) - int(seconds * RATE_HZ)) // 2
            wave = wave[start : start + int(seconds * RATE_HZ)]
        scores = model.score(wave)
        if scores is not None:
            pairs.append((utterance, scores))
    truth = np.array([u.emotion for u, _ in pairs])
    guess = np.array([int(np.argmax([s.emotion[e] for e in EMOTIONS])) for _, s in pairs])
    present = sorted(set(truth.tolist()))
    confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)), dtype=int)
    np.add.at(confusion, (truth, guess), 1)
    vad = [(u.vad, (s.valence, s.arousal, s.dominance)) for u, s in pairs if u.vad is not None]
    gender = [s.gender[GENDERS[u.gender]] > 0.5 for u, s in pairs]
    wanted, said = torch.tensor([pair[0] for pair in vad]), torch.tensor([pair[1] for pair in vad])
    everyone = torch.ones(len(vad))
    ccc = [1 - float(one_minus_ccc(said[:, [d]], wanted[:, [d]], everyone)) for d in range(3)]
    return {
        "utterances": len(utterances),
        "abstained": len(utterances) - len(pairs),
        "speakers": sorted({f"{u.corpus}/{u.speaker}" for u in utterances}),
        "emotion_wa": round(float(np.mean(truth == guess)), 4),
        "emotion_uar": round(unweighted_recall(truth, guess), 4),
        "emotion_f1": round(float(f1_score(truth, guess, labels=present, average="macro", zero_division=0)), 4),
        "emotion_recall": {EMOTIONS[c]: round(float(np.mean(guess[truth == c] == c)), 4) for c in present},
        "emotion_confusion": confusion.tolist(),
        "gender_accuracy": round(float(np.mean(gender)), 4),
        "derived_vad_ccc": {n: round(x, 4) for n, x in zip(("valence", "arousal", "dominance"), ccc, strict=True)},
    }


def leave_one_corpus_out(
    utterances: list[Utterance], bank: Bank, *, copies: int, steps: int, batch: int, seed: int
) -> dict[str, Any]:
    """Train on two corpora, score the third on the emotions that all of them have; never touches the test speakers."""
    found: dict[str, Any] = {}
    for left_out in CORPORA:
        kept = [u if u.corpus in CORPORA and u.corpus != left_out else dataclasses.replace(u, role="unused") for u in utterances]
        net, _ = train(kept, bank, copies=copies, steps=steps, batch=batch, seed=seed)
        items = [i for i, u in enumerate(utterances) if u.corpus == left_out and u.role in ("train", "dev")]
        common = sorted(
            {u.emotion for u in utterances if u.corpus == left_out}.intersection(
                *({u.emotion for u in utterances if u.corpus == c} for c in CORPORA)
            )
        )
        items = [i for i in items if utterances[i].emotion in common]
        logits, _, gender = predict(net, bank, items)
        guess = np.array(common)[logits[:, common].argmax(1)]
        truth = np.array([utterances[i].emotion for i in items])
        found[left_out] = {
            "utterances": len(items),
            "emotions": [EMOTIONS[c] for c in common],
            "steps": steps,
            "emotion_wa": round(float(np.mean(truth == guess)), 4),
            "emotion_uar": round(unweighted_recall(truth, guess), 4),
            "emotion_recall": {EMOTIONS[c]: round(float(np.mean(guess[truth == c] == c)), 4) for c in common},
            "gender_accuracy": round(float(np.mean(gender.argmax(1) == [utterances[i].gender for i in items])), 4),
        }
        print(f"left out {left_out}: {found[left_out]}", flush=True)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Export and card


class Answers(nn.Module):
    """What the ONNX file computes: probabilities instead of logits."""

    def __init__(self, net: AffectNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        emotion, vad, gender, hidden = self.net(features)
        return torch.softmax(emotion, dim=1), vad, torch.softmax(gender, dim=1), hidden


def export(net: AffectNet, file: Path) -> float:
    """Write the ONNX file (features (1, T, 66) with T even) and return how far onnxruntime is from torch at another T."""
    half = torch.export.Dim("half", min=15, max=100_000)
    answers = Answers(net).eval()
    torch.onnx.export(
        answers,
        (torch.zeros(1, 200, FEATURES),),
        file,
        input_names=["features"],
        output_names=["emotion", "vad", "gender", "hidden"],
        dynamic_shapes={"features": {1: 2 * half}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for frames in (30, 178, 412):
        rows = torch.randn(1, frames, FEATURES, generator=torch.Generator().manual_seed(frames))
        with torch.no_grad():
            expected = answers(rows)
        for mine, theirs in zip(expected, session.run(None, {"features": rows.numpy()}), strict=True):
            worst = max(worst, float(np.abs(mine.numpy() - theirs).max()))
    if worst > 1e-3:
        raise SystemExit(f"export: onnxruntime differs from torch by {worst}")
    return worst


def throughput(model: AffectSmall) -> float:
    """Seconds of audio scored per second on one thread, in windows of 4 s, front end included."""
    wave = np.tile(probe_wave(), 2)
    model.score(wave)
    began = time.perf_counter()
    for _ in range(25):
        model.score(wave)
    return round(100.0 / (time.perf_counter() - began), 1)


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Render measured sets as a Markdown table."""
    lines = [
        "| set | clips | WA | UAR | macro F1 | gender | V, A, D (CCC with derived targets) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        ccc = ", ".join(f"{x:.2f}" for x in r["derived_vad_ccc"].values())
        lines.append(
            f"| {name} | {r['utterances']} | {r['emotion_wa']:.3f} | {r['emotion_uar']:.3f} | {r['emotion_f1']:.3f} "
            f"| {r['gender_accuracy']:.3f} | {ccc} |"
        )
    return "\n".join(lines)


def recall_table(results: dict[str, dict[str, Any]]) -> str:
    """Render recall per emotion as a Markdown table."""
    lines = ["| recall | " + " | ".join(EMOTIONS) + " |", "|---|" + "---|" * len(EMOTIONS)]
    for name, r in results.items():
        cells = (f"{r['emotion_recall'][e]:.2f}" if e in r["emotion_recall"] else "-" for e in EMOTIONS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


CARD = """# affect-small {version}

Hears emotion (7 classes), valence/arousal/dominance and gender in 0.3 s and more of one voice, 16 kHz mono;
{parameters:,} parameters, {size_mb:.1f} MB ONNX, {speed:.0f}x real time on one CPU thread. Use:
`undertone.label.affect.AffectSmall`. Written by `recipes/affect_small.py` together with every number below; do not
edit.

**Licence: {licence}** (attribution, non-commercial, share alike), because it learned from corpora under that licence;
TESS is CC BY-NC-ND 4.0.

## Meant for

Labelling acted or expressive speech in research, tests and demonstrations, and as frozen frame encoder of a toy
speech-LLM (50 frames/s, 260 dims: 128 hidden, 128 log-mel, 4 pitch). Not for judging real people: it learned from
{train_speakers} acted and synthetic voices, and says what an actor would have meant. It knows no "other" and no
"unknown"; it abstains only on silence and below 0.3 s.

## Data

{data_table}

Emotion words are mapped to ours (ravdess `calm` counts as neutral). Synthetic speech is espeak-ng by
`undertone.corpora.voices`. **Valence, arousal and dominance targets are derived, not annotated:** the mean ratings of
the emotion term (Russell & Mehrabian, 1977, table 3), scaled for ravdess by intensity (normal 0.85, strong 1.15: our
choice) and mapped to 0..1; `calm` has none. Their CCC therefore measures recognition of the category on a scale, not
agreement with listeners.

## Results on speakers that were never heard (scored after training; nothing was chosen on them)

{test_table}

"2 s" scores only the middle two seconds of each clip. {chance}

{test_recall}

Weakest: {weakest}. Check the classes that matter to you before you trust this model with them.

Dev speakers (early stopping and temperature were chosen on them, so these numbers flatter):

{dev_table}

## Another corpus than it was trained on

Trained on two of the three corpora ({loco_steps} steps, no synthetic speech), scored on the third (its training and
dev speakers), on the six emotions that all three have:

{loco_table}

A voice, a room and an acting style it has not heard cost a lot: expect numbers nearer to these than to the ones above
on your own data.

## Training

Log-mel and pitch front end (`undertone.label.features`); class-weighted cross-entropy + (1 - mean CCC) (MERaLiON-SER)
+ gender cross-entropy, masked where a target is missing; {steps} steps of {batch} crops of 1.1-3.2 s, AdamW, cosine;
averaged weights of step {best_step}. Augmentation: speed, room, noise, level, tilt, tempo, vocal tract length, pitch,
noise floor, masks. Seed {seed}, {minutes:.0f} minutes on {threads} CPU thread(s), torch {torch}.
"""


def data_table(utterances: list[Utterance]) -> str:
    """Render who is in which part, with clips and hours."""
    licences = {"ravdess": "CC BY-NC-SA 4.0", "tess": "CC BY-NC-ND 4.0", "nemo": "CC BY-NC-SA 4.0", "demo": "synthetic"}
    lines = ["| corpus | part | speakers | clips | hours | licence |", "|---|---|---|---|---|---|"]
    for corpus, licence in licences.items():
        for role in ("train", "dev", "test"):
            part = [u for u in utterances if u.corpus == corpus and u.role == role]
            if part:
                names = ", ".join(sorted({u.speaker for u in part}))
                hours = sum(len(u.wave) for u in part) / RATE_HZ / 3600
                lines.append(f"| {corpus} | {role} | {names} | {len(part)} | {hours:.2f} | {licence} |")
    return "\n".join(lines)


def write_card(out: Path, report: dict[str, Any], utterances: list[Utterance]) -> None:
    """Write model.json, README.md from the same numbers, and LICENSE.md."""
    (out / "model.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    weakest = [(x, e, n) for n, r in report["test"].items() if "2 s" not in n for e, x in r["emotion_recall"].items()]
    weakest.sort()
    loco = report["leave_one_corpus_out"]
    loco_lines = ["| left out | clips | WA | UAR | gender |", "|---|---|---|---|---|"]
    loco_lines += [
        f"| {c} | {r['utterances']} | {r['emotion_wa']:.3f} | {r['emotion_uar']:.3f} | {r['gender_accuracy']:.3f} |"
        for c, r in loco.items()
    ]
    training = report["training"]
    text = CARD.format(
        version=report["version"],
        parameters=report["parameters"],
        size_mb=(out / "model.onnx").stat().st_size / 1e6,
        speed=report["x_real_time_one_thread"],
        licence=LICENCE,
        train_speakers=len({(u.corpus, u.speaker) for u in utterances if u.role == "train"}),
        data_table=data_table(utterances),
        test_table=results_table(report["test"]),
        chance="Guessing gives a UAR of 0.143 (one seventh).",
        test_recall=recall_table(report["test"]),
        weakest=", ".join(f"{emotion} in {name} (recall {recall:.2f})" for recall, emotion, name in weakest[:4]),
        dev_table=results_table(report["dev"]),
        loco_steps=max((r["steps"] for r in loco.values()), default=0),
        loco_table="\n".join(loco_lines) if loco else "Not measured in this run.",
        best_step=training["best"]["step"],
        **{k: training[k] for k in ("steps", "batch", "seed", "minutes", "threads", "torch")},
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    (out / "LICENSE.md").write_text(
        f"The weights in this folder (`model.onnx`) are under {LICENCE},\n"
        "https://creativecommons.org/licenses/by-nc-sa/4.0/, because they were trained on RAVDESS (Livingstone & Russo, 2018;\n"
        "CC BY-NC-SA 4.0), nEMO (Christop, 2024; CC BY-NC-SA 4.0) and TESS (Pichora-Fuller & Dupuis, 2020; CC BY-NC-ND 4.0).\n"
        "They contain no audio of these corpora. The code of Undertone that trains and runs them is Apache-2.0; the restriction\n"
        "is on these weights and on what is derived from them.\n",
        encoding="utf-8",
    )


def main() -> None:
    """Train, export, evaluate once, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the shared data folder (ravdess/, tess/, nemo/, acoustics/)")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.onnx, model.json, README.md, LICENSE.md")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/affect-cache"), help="where features are kept between runs")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--loco-steps", type=int, default=300, help="steps of each leave-one-corpus-out training; 0 skips them")
    parser.add_argument("--loco-only", action="store_true", help="only add leave-one-corpus-out to the model already in --out")
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--copies", type=int, default=3, help="waveform-augmented copies of each training utterance")
    parser.add_argument("--synthetic", type=int, default=1500, help="synthetic training utterances; 0 trains on people only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.perf_counter()

    utterances = [u for corpus in CORPORA for u in read_corpus(args.data, corpus)]
    if args.synthetic:
        utterances += synthetic(args.synthetic, group="labeller", role="train", seed=args.seed)
        utterances += synthetic(args.synthetic // 5, group="test", role="test", seed=args.seed + 1)
    bank = feature_bank(utterances, args.data, args.copies, args.seed, args.cache)

    loco: dict[str, Any] = {}
    if args.loco_steps:
        loco = leave_one_corpus_out(utterances, bank, copies=args.copies, steps=args.loco_steps, batch=args.batch, seed=args.seed)
    if args.loco_only:
        report = json.loads((args.out / "model.json").read_text())
        report["leave_one_corpus_out"] = loco
        write_card(args.out, report, utterances)
        return
    net, best = train(utterances, bank, copies=args.copies, steps=args.steps, batch=args.batch, seed=args.seed)
    fit_temperature(net, utterances, bank)

    # The card comes before the scores, because the model reads it; it is completed below.
    args.out.mkdir(parents=True, exist_ok=True)
    difference = export(net, args.out / "model.onnx")
    report: dict[str, Any] = {
        "name": "affect-small",
        "version": VERSION,
        "licence": LICENCE,
        "sha256": hashlib.sha256((args.out / "model.onnx").read_bytes()).hexdigest(),
        "emotions": EMOTIONS,
        "genders": GENDERS,
        "heard_speakers": sorted({f"{u.corpus}/{u.speaker}" for u in utterances if u.role in ("train", "dev")}),
        "test_speakers": sorted({f"{u.corpus}/{u.speaker}" for u in utterances if u.role == "test"}),
        "parameters": sum(p.numel() for p in net.parameters()),
        "temperature": round(float(net.temperature), 3),
        "onnx_minus_torch": difference,
        "derived_targets": {"vad": {e: vad_target(e, 1.0) for e in EMOTIONS}, "source": "Russell & Mehrabian 1977, table 3"},
    }
    (args.out / "model.json").write_text(json.dumps(report))
    model = AffectSmall(args.out)
    roles = {role: [u for u in utterances if u.role == role] for role in ("dev", "test")}
    report["dev"] = {c: measure(model, [u for u in roles["dev"] if u.corpus == c]) for c in ("ravdess", "nemo")}
    report["test"] = {}
    for corpus in (*CORPORA, "demo"):
        if part := [u for u in roles["test"] if u.corpus == corpus]:
            report["test"][f"{corpus}"] = measure(model, part)
            report["test"][f"{corpus}, 2 s"] = measure(model, part, seconds=2.0)
    report["leave_one_corpus_out"] = loco
    report["x_real_time_one_thread"] = throughput(model)
    scores = model.score(probe_wave())
    if scores is None:
        raise SystemExit("the exported model abstains on the probe")
    report["probe"] = {"scores": dataclasses.asdict(scores), "frames_abs_mean": float(np.abs(model.frames(probe_wave())).mean())}
    report["training"] = {
        "utterances": sum(u.role == "train" for u in utterances),
        "steps": args.steps, "batch": args.batch, "copies": args.copies, "seed": args.seed,
        "synthetic": args.synthetic, "threads": args.threads, "best": best, "torch": torch.__version__,
        "machine": platform.platform(), "minutes": round((time.perf_counter() - began) / 60, 1),
    }  # fmt: skip
    write_card(args.out, report, utterances)
    for name, result in {**report["dev"], **report["test"]}.items():
        print(f"{name:14s} UAR {result['emotion_uar']:.3f} WA {result['emotion_wa']:.3f} gender {result['gender_accuracy']:.3f}")


if __name__ == "__main__":
    main()
