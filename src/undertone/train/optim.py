"""What steps the weights: which parameters, how strongly, at which rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from undertone.train.config import TrainConfig


def parameter_groups(part: nn.Module, *, weight_decay: float, share: float = 1.0) -> list[dict[str, Any]]:
    """What is trained of a part of the model: matrices with weight decay, vectors without; `share` scales the learning rate."""
    trained = [one for one in part.parameters() if one.requires_grad]
    matrices, vectors = [one for one in trained if one.dim() > 1], [one for one in trained if one.dim() <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "share": share},
        {"params": vectors, "weight_decay": 0.0, "share": share},
    ]


def adamw(model: Any, config: TrainConfig, *, decoder_lr: float) -> torch.optim.AdamW:
    """AdamW over all that is trained; `model` is a speech-LLM, or what wraps one.

    Args:
        model: With parts `adapter`, `decoder` and, inside or None, `encoder`.
        config: Rates and weight decay.
        decoder_lr: The decoder's rate as a share of `config.lr`.
    """
    parts = [(model.adapter, 1.0), (model.decoder, decoder_lr)]
    if model.encoder is not None:
        parts.append((model.encoder, config.encoder_lr))
    groups = [group for part, share in parts for group in parameter_groups(part, weight_decay=config.weight_decay, share=share)]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def schedule(done: float, warmup: float) -> float:
    """Share of the peak rate after a share of the steps: linear up, cosine down to a tenth."""
    if done < warmup:
        return done / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


class Schedule(LRScheduler):
    """`schedule` for an optimiser whose groups have a `share`."""

    def __init__(self, optimizer: Any, config: TrainConfig) -> None:
        """Set the rate of the first step."""
        self.peak, self.warmup, self.steps = config.lr, config.warmup, config.steps
        super().__init__(optimizer)

    def rate(self, step: int) -> float:
        """Rate of a step, counted from 1, of a group whose share is 1."""
        return self.peak * schedule(min(1.0, step / self.steps), self.warmup)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Of the step that comes next."""
        return [self.rate(self.last_epoch + 1) * group["share"] for group in self.optimizer.param_groups]
