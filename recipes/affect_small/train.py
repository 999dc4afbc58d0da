"""Balanced batches, the loss, and one training run of all members together."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from affect_small.augment import Bank, blank, crop, mask, mix
from affect_small.data import CLASSES, DOMAINS, EVENTS, NO_VOICE, SOME_VOICE, UNKNOWN, Clip
from affect_small.network import STRIDE, AffectNet, members
from affect_small.steady import fit_steady
from undertone.label.features import DB_SCALE, FLOOR_DB, MELS, functionals

SHARES = {  # of a batch, renormalised over what is there
    "ravdess": 0.30, "tess": 0.16, "nemo": 0.30, "demo": 0.08, "emogator": 0.05, "deeply-nonverbal": 0.07, "acoustics": 0.02,
    "music": 0.015, "noise": 0.015,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a training run is a function of, besides its clips; all chosen on fold 0 and on TESS left out.

    Attributes:
        kinds: the members, one letter each (`affect_small.network.members`).
        steps, batch, rate, decay, dropout, width, smoothing, seed: of the optimiser and the members.
        shortest, longest: seconds of a crop.
        strength, copies: how far crops are changed, and how often a copy that was augmented as a waveform is taken.
        few_strength, few_copies: the same for TESS, which has one speaker to learn from.
        mixing: how often another sound is laid under a crop.
    """

    kinds: str = "Cff"
    steps: int = 1200
    batch: int = 32
    rate: float = 2e-3
    decay: float = 0.05
    dropout: float = 0.1
    width: int = 256
    smoothing: float = 0.05
    seed: int = 0
    shortest: float = 1.1
    longest: float = 3.2
    strength: float = 0.2
    copies: float = 0.2
    few_strength: float = 1.0
    few_copies: float = 0.67
    mixing: float = 0.05


class Batches:
    """Endless random crops, balanced over corpora, emotions or kinds of sound, and speakers."""

    def __init__(self, clips: list[Clip], bank: Bank, chosen: list[int], settings: Settings) -> None:
        self.clips, self.bank, self.settings = clips, bank, settings
        self.rng = np.random.default_rng(settings.seed)
        cells: dict[tuple[str, str], dict[str, list[int]]] = {}
        for i in chosen:
            c = clips[i]
            kind = CLASSES[c.emotion] if c.corpus in ("ravdess", "tess", "nemo", "demo") else c.label
            cells.setdefault((c.corpus, kind), {}).setdefault(c.speaker, []).append(i)
        self.cells = [list(speakers.values()) for speakers in cells.values()]
        per_corpus: dict[str, int] = {}
        for corpus, _ in cells:
            per_corpus[corpus] = per_corpus.get(corpus, 0) + 1
        weights = np.array([SHARES[corpus] / per_corpus[corpus] for corpus, _ in cells])
        self.weights = weights / weights.sum()
        drawn, events = np.zeros((len(DOMAINS), len(CLASSES))), np.zeros(len(EVENTS))
        for cell, weight in zip(self.cells, self.weights, strict=True):
            one = clips[cell[0][0]]
            if one.emotion >= 0:
                drawn[DOMAINS.index(one.corpus), one.emotion] += weight
            if one.event >= 0:
                events[one.event] += weight
        # Inverse of how often a class is drawn from its corpus (events: of its root); what is never drawn gets no weight.
        mean = drawn.sum(axis=1, keepdims=True) / np.maximum((drawn > 0).sum(axis=1, keepdims=True), 1)
        self.class_weights = np.where(drawn > 0, mean / np.maximum(drawn, 1e-9), 0.0).astype(np.float32)
        roots = np.sqrt(events)
        self.event_weights = np.where(events > 0, roots[events > 0].mean() / np.maximum(roots, 1e-9), 0.0).astype(np.float32)

    def _pick(self) -> int:
        cell = self.cells[self.rng.choice(len(self.cells), p=self.weights)]
        speaker = cell[self.rng.integers(len(cell))]
        return speaker[self.rng.integers(len(speaker))]

    def draw(self) -> dict[str, Tensor]:
        """Draw features (B, T, 66), functionals (B, F), emotion, V/A/D with mask, gender and event (B,)."""
        rng, size = self.rng, self.settings.batch
        low, high = self.settings.shortest, self.settings.longest
        frames = 4 * int(rng.uniform(25 * low, 25 * high))
        out, chosen = blank(size, frames), [self._pick() for _ in range(size)]
        # How deep the pauses are is a property of the recording, not of the voice: a random noise floor.
        floor = rng.uniform(FLOOR_DB, FLOOR_DB + 25, size=size).astype(np.float32) / np.float32(DB_SCALE)
        statistics = []
        for row, i in enumerate(chosen):
            few = self.clips[i].corpus == "tess"
            often = self.settings.few_copies if few else self.settings.copies
            copy = 1 + int(rng.integers(self.bank.copies)) if rng.random() < often else 0
            rows = crop(self.bank.take(i, copy), frames, rng, self.settings.few_strength if few else self.settings.strength)
            if rng.random() < self.settings.mixing:
                rows = mix(rows, crop(self.bank.take(self._pick(), 0), frames, rng, 1.0), rng.uniform(8, 25))
            np.maximum(rows[:, :MELS], floor[row], out=rows[:, :MELS])
            statistics.append(functionals(rows))
            mask(rows, rng)
            at = rng.integers(frames - len(rows) + 1)
            out[row, :, :MELS] = floor[row]
            out[row, at : at + len(rows)] = rows
        items = [self.clips[i] for i in chosen]
        return {
            "features": torch.from_numpy(out),
            "functionals": torch.from_numpy(np.stack(statistics)),
            "emotion": torch.tensor([c.emotion for c in items]),
            "domain": torch.tensor([DOMAINS.index(c.corpus) if c.emotion >= 0 else UNKNOWN for c in items]),
            "vad": torch.tensor([c.vad or (0.5, 0.5, 0.5) for c in items]),
            "vad_mask": torch.tensor([float(c.vad is not None and c.emotion >= 0) for c in items]),
            "gender": torch.tensor([c.gender for c in items]),
            "event": torch.tensor([c.event for c in items]),
        }


def one_minus_ccc(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - concordance correlation coefficient (Lin, 1989), mean over V, A, D; rows with mask 0 do not count."""
    weight = mask[:, None] / mask.sum().clamp(min=1.0)
    mean_p, mean_t = (weight * predicted).sum(0), (weight * target).sum(0)
    var_p, var_t = (weight * (predicted - mean_p) ** 2).sum(0), (weight * (target - mean_t) ** 2).sum(0)
    covariance = (weight * (predicted - mean_p) * (target - mean_t)).sum(0)
    return (1 - 2 * covariance / (var_p + var_t + (mean_p - mean_t) ** 2 + 1e-6)).mean()


def emotion_loss(
    shared: Tensor, styles: Tensor, domain: Tensor, batch: dict[str, Tensor], weights: Tensor, smoothing: float
) -> Tensor:
    """Class-weighted cross-entropy of the shared output, of the output of the clip's own corpus, and of which corpus it is."""
    known = batch["emotion"] >= 0
    emotion, home = batch["emotion"][known], batch["domain"][known]
    weight = weights[home, emotion]
    own = styles[known, home]
    losses = [functional.cross_entropy(x, emotion, reduction="none", label_smoothing=smoothing) for x in (shared[known], own)]
    loss = 0.5 * (weight * (losses[0] + losses[1])).sum() / weight.sum()
    return loss + 0.2 * functional.cross_entropy(domain[known], home)


def event_loss(logits: Tensor, event: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy where the kind is known; -log(1 - P(music or noise)) where only "some voice" is."""
    loss = functional.cross_entropy(logits, event.clamp(min=0), weight=weights, reduction="none") * (event >= 0)
    silent = torch.softmax(logits, dim=1)[:, [EVENTS.index(name) for name in NO_VOICE]].sum(dim=1)
    loss = loss - torch.log((1 - silent).clamp(min=1e-4)) * (event == SOME_VOICE)
    return loss.mean()


def running_average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Exponential average of weights with a memory that grows to about 300 steps, so that short runs work too."""
    decay = min(0.997, (1 + int(count)) / (10 + int(count)))
    return averaged + (1 - decay) * (current - averaged)


def train(clips: list[Clip], bank: Bank, chosen: list[int], settings: Settings) -> AffectNet:
    """Train all members on the same batches with AdamW and a cosine schedule, a fixed number of steps; nothing is chosen on the way.

    Args:
        clips: all clips.
        bank: their features.
        chosen: indices of the clips to train on.
        settings: everything else.

    Returns:
        The members with averaged weights and the steady part in eval mode.
    """
    torch.manual_seed(settings.seed)
    net = members(settings.kinds, dropout=settings.dropout, width=settings.width)
    averaged = torch.optim.swa_utils.AveragedModel(net, avg_fn=running_average, use_buffers=True)
    batches = Batches(clips, bank, chosen, settings)
    class_weights, event_weights = torch.from_numpy(batches.class_weights), torch.from_numpy(batches.event_weights)
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": settings.decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.rate)
    steps, warm = settings.steps, min(100, settings.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / warm if s < warm else 0.5 + 0.5 * math.cos(math.pi * (s - warm) / (steps - warm))
    )
    losses: list[float] = []
    began = time.perf_counter()
    for step in range(1, steps + 1):
        net.train()
        batch = batches.draw()
        optimizer.zero_grad()
        for member in net:
            shared, styles, domain, vad, gender, event, _ = member(batch["features"], batch["functionals"])
            loss = emotion_loss(shared, styles, domain, batch, class_weights, settings.smoothing)
            loss = loss + one_minus_ccc(vad, batch["vad"], batch["vad_mask"])
            loss = loss + 0.3 * functional.cross_entropy(gender, batch["gender"], ignore_index=UNKNOWN)
            loss = loss + 0.5 * event_loss(event, batch["event"], event_weights)
            loss.backward()
            losses.append(loss.item())
        nn.utils.clip_grad_norm_(net.parameters(), 2.0 * len(net) ** 0.5)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(net)
        if step % 500 == 0 or step == steps:
            seconds = time.perf_counter() - began
            print(f"step {step:5d} loss {np.mean(losses[-200 * len(net) :]):.3f} {seconds:.0f} s", flush=True)
    return AffectNet(averaged.module, fit_steady(clips, bank, chosen)).eval()


def predict(model: nn.Module, bank: Bank, items: list[int]) -> dict[str, np.ndarray]:
    """Answers of an `AffectNet` for whole unchanged clips, each of shape (N, outputs)."""
    names = ("emotion", "vad", "gender", "event")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with torch.no_grad():
        for i in items:
            rows = bank.take(i, 0).astype(np.float32)
            statistics = torch.from_numpy(functionals(rows))[None]
            rows = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % STRIDE, axis=0)])
            outputs = model(torch.from_numpy(rows)[None], statistics)
            for name, values in zip(names, outputs, strict=False):
                found[name].append(values[0].numpy())
    return {name: np.stack(values) for name, values in found.items()}
