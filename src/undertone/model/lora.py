"""Low-rank updates (PEFT) put into a part of the model, and merged into its weights on demand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from undertone.errors import DependencyError, ModelError
from undertone.model.config import LoRAConfig

MARK = ".lora_"
"""In the name of every tensor of an update, and of no other."""


def add_lora(part: Any, config: LoRAConfig, *, key: str) -> None:
    """Put updates beside a part's linear layers, in place: they train, all else of the part is frozen.

    They are of float32 beside weights of half precision too, which would round small steps of AdamW away.

    Args:
        part: A model of transformers.
        config: Rank, scale and targets.
        key: Of the study, for errors.

    Raises:
        ModelError: No module is called as the targets say, or PEFT knows none for the architecture.
    """
    peft = _library()
    targets: Any = list(config.targets) or None
    if config.targets == ("all-linear",):
        head = part.get_output_embeddings()
        # In a bare module PEFT does not tell the head from other layers.
        targets = sorted(name for name, one in part.named_modules() if isinstance(one, nn.Linear) and one is not head)
    made = peft.LoraConfig(r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets)
    try:
        peft.inject_adapter_in_model(made, part)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, one in part.named_modules() if isinstance(one, nn.Linear)})
        raise ModelError(
            f"{key}.targets={list(config.targets)} does not fit a {part.config.model_type!r}: {error}. Its linear layers are called "
            f"{', '.join(linear)}; name some of these, or 'all-linear'"
        ) from error
    for name, one in part.named_parameters():
        if MARK in name and one.dtype in (torch.bfloat16, torch.float16):
            one.data = one.data.float()


def merge_lora(part: Any) -> None:
    """Add the updates to the weights beside which they stand and take them away, in place."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(part.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            part.set_submodule(name, module.get_base_layer())
    if hasattr(part, "peft_config"):
        del part.peft_config


def unmarked(name: str) -> str:
    """A tensor's name as it is without updates beside it."""
    return name.replace(".base_layer.", ".")


def _library() -> Any:
    try:
        import peft
    except ImportError as error:
        raise DependencyError('LoRA needs peft: pip install "undertone[train]"') from error
    return peft
