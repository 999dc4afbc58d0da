"""The steady part: a linear model for voices unlike any corpus heard, and the distance that says when to trust it.

Trained on few corpora, the members learn how each corpus acts, which helps within these corpora and misleads outside; a
strongly regularised logistic regression over all corpora alike is the reverse. The answer moves from one to the other as the
utterance statistics leave what was heard in training.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from affect_small.augment import Bank
from affect_small.data import CLASSES, SPEECH, Clip
from undertone.label.features import FUNCTIONALS, functionals

STRENGTH = 0.0015  # C of the logistic regression, where every (corpus, emotion) weighs 100
DIRECTIONS = 100  # principal directions in which distance is measured
LEAST, MOST = 0.1, 0.65  # share of the steady part near and far from the corpora heard
WIDTH = 0.08  # how fast the share changes with distance, in units of the distance
# Columns that stay out of the linear model: regressions along loudness and pitch, which differ most between corpora.
WITHOUT = range(227, 291)


class Steady(nn.Module):
    """Functionals (B, F) -> probabilities (B, 8) of the linear model and its share (B, 1)."""

    def __init__(self, domains: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FUNCTIONALS))
        self.register_buffer("std", torch.ones(FUNCTIONALS))
        self.linear = nn.Linear(FUNCTIONALS, len(CLASSES))
        self.register_buffer("directions", torch.zeros(FUNCTIONALS, DIRECTIONS))
        self.register_buffer("centres", torch.zeros(domains, DIRECTIONS))
        self.register_buffer("whitening", torch.zeros(domains, DIRECTIONS, DIRECTIONS))
        self.register_buffer("far", torch.ones(()))

    def distance(self, statistics: Tensor) -> Tensor:
        """Mahalanobis distance to the nearest corpus, per root of the number of directions; shape (B,)."""
        scaled = ((statistics - self.mean) / self.std).clamp(-6, 6) @ self.directions
        away = torch.einsum("bdk,dkl->bdl", scaled[:, None] - self.centres, self.whitening)
        return (away.pow(2).mean(dim=2) + 1e-9).sqrt().amin(dim=1)

    def forward(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        share = LEAST + (MOST - LEAST) * torch.sigmoid((self.distance(statistics) - self.far) / WIDTH)
        scaled = ((statistics - self.mean) / self.std).clamp(-12, 12)
        return torch.softmax(self.linear(scaled), dim=1), share[:, None]


def fit_steady(clips: list[Clip], bank: Bank, chosen: list[int]) -> Steady:
    """Fit the linear model on every copy of the acted sentences, and the distance on the unchanged ones, synthetic too."""
    chosen = [i for i in chosen if clips[i].corpus in (*SPEECH, "demo")]
    table = np.stack([[functionals(bank.take(i, v).astype(np.float32)) for v in range(bank.copies + 1)] for i in chosen])
    corpora = np.array([clips[i].corpus for i in chosen])
    emotions = np.array([clips[i].emotion for i in chosen])
    acted = np.isin(corpora, SPEECH)
    part = Steady(len(set(corpora)))
    flat = table[acted].reshape(-1, FUNCTIONALS)
    mean, std = flat.mean(axis=0), flat.std(axis=0) + 1e-6
    weights = np.zeros(len(chosen))
    for corpus in set(corpora[acted]):
        for emotion in set(emotions[corpora == corpus]):
            cell = (corpora == corpus) & (emotions == emotion)
            weights[cell] = 100.0 / cell.sum() / table.shape[1]
    kept = np.setdiff1d(np.arange(FUNCTIONALS), WITHOUT)
    model = LogisticRegression(C=STRENGTH, max_iter=300)
    repeated = np.repeat(emotions[acted], table.shape[1])
    model.fit(((flat - mean) / std)[:, kept], repeated, sample_weight=np.repeat(weights[acted], table.shape[1]))
    scaled = np.clip((table[:, 0] - mean) / std, -6, 6)
    directions = np.linalg.svd(scaled[acted][::3], full_matrices=False)[2][:DIRECTIONS].T
    inside = scaled @ directions
    centres, whitening = [], []
    for corpus in sorted(set(corpora)):
        rows = inside[corpora == corpus]
        spread = np.cov(rows.T)
        spread = 0.9 * spread + 0.1 * np.diag(np.diag(spread)) + 1e-3 * np.eye(DIRECTIONS)
        centres.append(rows.mean(axis=0))
        whitening.append(np.linalg.cholesky(np.linalg.inv(spread)))
    with torch.no_grad():
        part.mean.copy_(torch.from_numpy(mean))
        part.std.copy_(torch.from_numpy(std))
        part.linear.weight.zero_()
        part.linear.bias.fill_(-30.0)  # a class that the run never hears
        part.linear.weight[torch.from_numpy(model.classes_)[:, None], torch.from_numpy(kept)] = torch.from_numpy(
            model.coef_
        ).float()
        part.linear.bias[torch.from_numpy(model.classes_)] = torch.from_numpy(model.intercept_).float()
        part.directions.copy_(torch.from_numpy(directions.copy()))
        part.centres.copy_(torch.from_numpy(np.stack(centres)))
        part.whitening.copy_(torch.from_numpy(np.stack(whitening)))
        heard = part.distance(torch.from_numpy(table[acted, 0].astype(np.float32))).numpy()
        part.far.fill_(float(np.percentile(heard, 95)))
    return part.eval()
