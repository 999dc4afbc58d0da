"""The trained members: a 2-D stem, a dilated trunk, attentive pooling, a branch of utterance statistics, and the outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from affect_small.data import CLASSES, DOMAINS, EVENTS, GENDERS
from undertone.label.affect import HIDDEN
from undertone.label.features import FUNCTIONALS, MELS

STRIDE = 4  # feature rows per trunk frame: 25 frames per second


class Residual(nn.Module):
    """Dilated convolution (kernel 3), then a mixing 1x1, around a shortcut."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(width, width, 1, bias=False),
            nn.BatchNorm1d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class Member(nn.Module):
    """Features (B, T, 66), T a multiple of 4, and functionals (B, F) -> logits, V/A/D, gender, event, hidden (B, T/4, 128)."""

    def __init__(self, kind: str, *, dropout: float = 0.1, width: int = 256) -> None:
        super().__init__()
        use_trunk, use_functionals = kind != "f", kind in "fCA"
        self.centred, self.use_functionals, self.use_trunk = kind in "cC", use_functionals, use_trunk
        size = 0
        if use_trunk:
            self.stem = nn.Sequential(
                # Kernel 4, stride 2 in time keeps frame k centred on the four input frames 4k .. 4k + 3; striding at once
                # halves the cost of the whole network.
                nn.Conv2d(1, 12, (4, 5), stride=(2, 2), padding=(1, 2), bias=False),
                nn.BatchNorm2d(12),
                nn.ReLU(),
                nn.Conv2d(12, 24, (4, 3), stride=(2, 2), padding=(1, 1), bias=False),
                nn.BatchNorm2d(24),
                nn.ReLU(),
                nn.Conv2d(24, 32, 3, stride=(1, 2), padding=1, bias=False),
                nn.BatchNorm2d(32),
                nn.ReLU(),
            )
            self.enter = nn.Sequential(nn.Conv1d(32 * 8 + 8, HIDDEN, 1, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU())
            self.trunk = nn.Sequential(*(Residual(HIDDEN, dilation, dropout) for dilation in (1, 2, 3, 1)))
            self.leave = nn.BatchNorm1d(HIDDEN)
            self.attention = nn.Sequential(nn.Conv1d(HIDDEN, 64, 1), nn.Tanh(), nn.Conv1d(64, 4, 1))
            size += 2 * HIDDEN
        if use_functionals:
            self.scale = nn.BatchNorm1d(FUNCTIONALS)
            self.statistics = nn.Sequential(nn.Dropout(0.2), nn.Linear(FUNCTIONALS, width), nn.ReLU())
            # Straight to the corpora's own outputs, as a logistic regression would.
            self.direct = nn.Sequential(nn.Dropout(0.2), nn.Linear(FUNCTIONALS, len(DOMAINS) * len(CLASSES)))
            size += width
        self.embed = nn.Sequential(nn.Dropout(0.3), nn.Linear(size, width), nn.ReLU(), nn.Dropout(0.3))
        self.emotion, self.vad = nn.Linear(width, len(CLASSES)), nn.Linear(width, 3)
        self.styles, self.domain = nn.Linear(width, len(DOMAINS) * len(CLASSES)), nn.Linear(size, len(DOMAINS))
        self.gender, self.event = nn.Linear(size, len(GENDERS)), nn.Linear(size, len(EVENTS))

    def forward(self, features: Tensor, functionals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        parts, hidden = [], features
        if self.use_trunk:
            mel = features[:, :, :MELS]
            if self.centred:
                # Less the mean of the frames that sound: what the microphone, the room and much of the voice add to all frames.
                sounding = (mel.amax(dim=2, keepdim=True) > -1.0).to(mel.dtype)
                mel = mel - (mel * sounding).sum(dim=1, keepdim=True) / (sounding.sum(dim=1, keepdim=True) + 1.0)
            mel = self.stem(mel[:, None])  # (B, 32, T/4, 8)
            pitch = features[:, :, MELS:].reshape(features.shape[0], -1, 8).transpose(1, 2)  # four frames' pitch and voicing
            x = mel.permute(0, 1, 3, 2).flatten(1, 2)  # (B, 256, T/4)
            h = self.leave(self.trunk(self.enter(torch.cat([x, pitch], dim=1))))
            # Four attention heads, each weighting its own quarter of the channels (Okabe et al., 2018, multi-head).
            weight = torch.softmax(self.attention(h), dim=2)[:, :, None].expand(-1, -1, HIDDEN // 4, -1).flatten(1, 2)
            mean = (weight * h).sum(dim=2)
            spread = ((weight * h**2).sum(dim=2) - mean**2).clamp(min=1e-4).sqrt()
            parts += [mean, spread]
            hidden = h.transpose(1, 2)
        if self.use_functionals:
            scaled = self.scale(functionals).clamp(-6, 6)
            parts.append(self.statistics(scaled))
        pooled = torch.cat(parts, dim=1)
        z = self.embed(pooled)
        styles = self.styles(z)
        if self.use_functionals:
            styles = styles + self.direct(scaled)
        styles = styles.unflatten(1, (len(DOMAINS), len(CLASSES)))
        return (
            self.emotion(z),
            styles,
            self.domain(pooled),
            torch.sigmoid(self.vad(z)),
            self.gender(pooled),
            self.event(pooled),
            hidden,
        )


def members(kinds: str, *, dropout: float, width: int) -> nn.ModuleList:
    """One member per letter: `f` functionals alone, `c` centred trunk, `a` absolute trunk, `C`/`A` the same with functionals."""
    return nn.ModuleList(Member(kind, dropout=dropout, width=width) for kind in kinds)


def answers(member: nn.Module, features: Tensor, statistics: Tensor) -> dict[str, Tensor]:
    """Probabilities of one member: emotion is half its shared output and half the corpora's own, as much as it hears of each."""
    shared, styles, domain, vad, gender, event, hidden = member(features, statistics)
    mixed = (torch.softmax(domain, dim=1)[:, :, None] * torch.softmax(styles, dim=2)).sum(dim=1)
    return {
        "emotion": 0.5 * (torch.softmax(shared, dim=1) + mixed),
        "vad": vad,
        "gender": torch.softmax(gender, dim=1),
        "event": torch.softmax(event, dim=1),
        "hidden": hidden,
    }


class AffectNet(nn.Module):
    """Everything: the members' mean, the steady part by its share, and the temperature.

    Features (B, T, 66), T a multiple of 4, and functionals (B, F) -> emotion (B, 8), V/A/D (B, 3), gender (B, 2), event
    (B, 14), all but V/A/D probabilities, and hidden (B, T/4, 128) of the first member.
    """

    def __init__(self, net: nn.ModuleList, steady: nn.Module) -> None:
        super().__init__()
        self.net, self.steady = net, steady
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, features: Tensor, functionals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        each = [answers(member, features, functionals) for member in self.net]
        emotion, vad, gender, event = (
            torch.stack([one[n] for one in each]).mean(dim=0) for n in ("emotion", "vad", "gender", "event")
        )
        plain, share = self.steady(functionals)
        emotion = (1 - share) * emotion + share * plain
        return torch.softmax(torch.log(emotion + 1e-6) / self.temperature, dim=1), vad, gender, event, each[0]["hidden"]
