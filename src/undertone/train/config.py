"""How a system is trained, as data: stands in a study file under `train`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TrainConfig(BaseModel):
    """How to train.

    Attributes:
        steps: Optimiser steps; equal for all systems of a study, so that none sees more items.
        batch_size: Items (questions) per step.
        group_size: Most questions of one clip that share a row and its speech.
        lr: Peak learning rate.
        warmup: Share of the steps in which the rate rises linearly; then it falls as a cosine to a tenth.
        weight_decay: AdamW's, on matrices only.
        clip_norm: Largest gradient norm.
        seed: Of weights, order and dropout.
        threads: torch threads; another number gives other rounding and so other weights.
        mix: Share of a source's items per epoch (1 where not named).
        vocab_size: Of a trained tokeniser.
        log_every: Steps per line of losses.jsonl.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=32, ge=1)
    group_size: int = Field(default=8, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    seed: int = 1
    threads: int = Field(default=1, ge=1)
    mix: dict[str, float] = {}
    vocab_size: int = Field(default=1500, ge=300)
    log_every: int = Field(default=20, ge=1)
