"""How a system is trained, as data: stands in a study file under `train`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ReadingConfig(BaseModel):
    """How a new decoder learns to read before any system hears (`train.pretrain`).

    Attributes:
        clips: Imagined clips; 0 leaves this out, and each system starts from new weights.
        steps: Optimiser steps.
        lr: Peak learning rate.
        threads: torch threads. Two are a third faster on two idle cores, and ten times slower where anything else runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int = Field(default=2000, ge=0)
    steps: int = Field(default=1200, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    threads: int = Field(default=1, ge=1)


class AlignConfig(BaseModel):
    """How the adapter learns to hear words before any question is asked (`train.align`); shared by all systems.

    Attributes:
        steps: Optimiser steps; 0 leaves this out.
        batch_size: Clips per step.
        lr: Peak learning rate.
        threads: torch threads. Two are a third faster on two idle cores, and ten times slower where anything else runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=800, ge=0)
    batch_size: int = Field(default=48, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    threads: int = Field(default=1, ge=1)


class TrainConfig(BaseModel):
    """How to train.

    Attributes:
        steps: Optimiser steps; equal for all systems of a study, so that each sees about as many items.
        batch_size: Items (questions) per step.
        group_size: Most questions of one clip that share a row and its speech.
        lr: Peak learning rate.
        decoder_lr: The decoder's rate as a share of `lr` where it can read already (by name, or from `reading`); a small one keeps what
            it has learnt. A decoder with new weights gets the whole rate.
        warmup: Share of the steps in which the rate rises linearly; then it falls as a cosine to a tenth.
        weight_decay: AdamW's, on matrices only.
        clip_norm: Largest gradient norm.
        seed: Of weights, order and dropout.
        shift_frames: Most frames cut from the start of a clip, drawn anew each time it is heard, so that a word falls on any place of
            the adapter's stack.
        threads: torch threads; another number gives other rounding and so other weights.
        mix: Share of a source's items per epoch: of asr, pqa, pqa_star and cpqa (1 where not named), 0 or more.
        vocab_size: Of a trained tokeniser.
        log_every: Steps per line of losses.jsonl.
        reading: Shared first stage of a decoder without a name.
        align: Shared second stage, after reading.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=500, ge=1)
    batch_size: int = Field(default=32, ge=1)
    group_size: int = Field(default=8, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    decoder_lr: float = Field(default=0.1, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    seed: int = 1
    shift_frames: int = Field(default=14, ge=0)
    threads: int = Field(default=1, ge=1)
    mix: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    vocab_size: int = Field(default=1500, ge=300)
    log_every: int = Field(default=20, ge=1)
    reading: ReadingConfig = ReadingConfig()
    align: AlignConfig = AlignConfig()
