"""What steps the weights: which parameters, how strongly, at which rate."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from undertone.errors import ConfigError
from undertone.model.config import Head, Part
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
        model: With parts `adapter`, `decoder`, heads or None, and, inside or None, `encoder`.
        config: Rates and weight decay.
        decoder_lr: The decoder's rate as a share of `config.lr`.

    Raises:
        ConfigError: A trained part is stored in half precision.
    """
    for name in (*get_args(Part), *get_args(Head)):
        _check_precision(name, getattr(model, name))
    parts = [(model.adapter, 1.0), (model.decoder, decoder_lr)]
    parts += [(head, 1.0) for name in get_args(Head) if (head := getattr(model, name)) is not None]
    if model.encoder is not None:
        parts.append((model.encoder, config.encoder_lr))
    groups = [group for part, share in parts for group in parameter_groups(part, weight_decay=config.weight_decay, share=share)]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def _check_precision(name: str, part: nn.Module | None) -> None:
    """A step of 1e-4 on a weight of 1 is less than bfloat16 can tell apart, so that most steps of AdamW would be rounded away."""
    trained = [] if part is None else [one for one in part.parameters() if one.requires_grad]
    half = next((one.dtype for one in trained if one.dtype in (torch.bfloat16, torch.float16)), None)
    if half is None:
        return
    stored = str(half).removeprefix("torch.")
    lora = "model.encoder_lora" if name == "encoder" else "model.lora"
    # Of an encoder no precision can be asked for: its weights are as they were published.
    whole = "set model.decoder.dtype=float32, or " if name == "decoder" else ""
    raise ConfigError(
        f"the {name} is trained in full, but its weights are stored in {stored}, in which small steps are rounded away; {whole}name {name} in "
        f"model.frozen, and let updates of float32 learn beside it: {lora}={{r: 16, alpha: 32}}. (train.precision={stored} computes in half "
        "precision all the same)"
    )


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
