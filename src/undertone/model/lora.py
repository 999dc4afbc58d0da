"""Low-rank updates (PEFT) put into a part of the model, at all positions or those of speech, and merged into its weights on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

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


class SpeechPositions:
    """At which positions a decoder's updates are added (`LoRAConfig.where` "speech"): told before each pass, forgotten behind it.

    Where nothing was told no position is speech: so it is with the tokens that are written one by one after a prompt.
    """

    def __init__(self, decoder: Any) -> None:
        """Put a gate behind the second matrix of every update of a decoder.

        Raises:
            ModelError: An update is not of a linear layer, whose positions are those of the text.
        """
        self._mask: Tensor | None = None
        for layer in lora_layers(decoder):
            if not layer.lora_B or not all(isinstance(one, nn.Linear) for one in layer.lora_B.values()):
                raise ModelError(
                    f"lora.where='speech' needs linear layers, and one of lora.targets is a {type(layer.get_base_layer()).__name__}; name "
                    "others, or set lora.where=all"
                )
            for one in layer.lora_B.values():
                one.register_forward_hook(self._gate)
        decoder.base_model.register_forward_hook(self._forget)

    @contextmanager
    def told(self, mask: Tensor | None) -> Iterator[None]:
        """Within it the decoder's next pass is over positions of which the mask (B, L) is true where there is speech."""
        before, self._mask = self._mask, mask
        try:
            yield
        finally:
            self._mask = before

    def remembered(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For `torch.utils.checkpoint`: what is computed again in the backward pass is told what it was told the first time."""
        return nullcontext(), self.told(self._mask)

    def _gate(self, module: nn.Module, given: Any, made: Tensor) -> Tensor:
        mask = self._mask
        if mask is None:
            return torch.zeros_like(made)
        if made.shape[:-1] not in (mask.shape, (mask.numel(),)):
            raise ModelError(
                f"lora.where='speech': a layer is given {tuple(made.shape[:-1])} positions of a text of {tuple(mask.shape)}, so that nobody "
                "knows which are speech (experts of a mixture are such layers); name others in lora.targets, or set lora.where=all"
            )
        return made.masked_fill(~mask.reshape(made.shape[:-1]).unsqueeze(-1).to(made.device), 0.0)

    def _forget(self, module: nn.Module, given: Any, made: Any) -> None:
        self._mask = None


def lora_layers(part: Any) -> list[Any]:
    """The layers of a part that have updates beside them."""
    from peft.tuners.lora import LoraLayer

    return [module for module in part.modules() if isinstance(module, LoraLayer)]


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
