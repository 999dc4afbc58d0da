"""Examples to tensors: several questions about one clip share its prefix in training; left padding for answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IGNORE = -100
"""Label of a token that is not part of an answer (the convention of torch and transformers)."""

FrameArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Item:
    """One tokenised example. `frames` (T, D) or (T, layers, D) are None where the system does not hear."""

    frames: FrameArray | None
    prompt: tuple[int, ...]
    target: tuple[int, ...]
    source: str = ""


@dataclass(frozen=True)
class Batch:
    """Input of `SpeechLLM.forward`.

    Attributes:
        frames: (B, T, D) or (B, T, layers, D) and `frame_mask` (B, T), or None where nobody hears.
        input_ids: (B, L).
        attention_mask: (B, L), or (B, L, L): query, key.
        position_ids: (B, L).
        labels: (B, L); `IGNORE` outside answers.
        item_ids: (B, L); the item, counted through the batch, that an answer token belongs to, else -1.
    """

    frames: Tensor | None
    frame_mask: Tensor | None
    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    item_ids: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in held.items() if value is not None})


def training_batch(groups: Sequence[Sequence[Item]], *, pad_id: int) -> Batch:
    """One row per group of items about one clip: their common prompt prefix once, then each item's rest as a block of its own.

    A block sees the prefix and itself, at the positions it would have alone; each item's loss is what it would be alone, for a
    fraction of the work.

    Args:
        groups: Items; those of a group have the same frames.
        pad_id: Token that fills rows on the right.
    """
    rows = [_row(group) for group in groups]
    length = max(len(row.ids) for row in rows)
    ids, labels = torch.full((len(rows), length), pad_id), torch.full((len(rows), length), IGNORE)
    blocks, item_ids = torch.full((len(rows), length), -1), torch.full((len(rows), length), -1)
    positions = torch.zeros((len(rows), length), dtype=torch.long)
    first = 0
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, :size] = torch.tensor(row.ids)
        labels[index, :size] = torch.tensor(row.labels)
        blocks[index, :size] = torch.tensor(row.blocks)
        positions[index, :size] = torch.tensor(row.positions)
        answers = labels[index] != IGNORE
        item_ids[index, answers] = blocks[index, answers] - 1 + first
        first += len(groups[index])
    key, query = blocks.unsqueeze(1), blocks.unsqueeze(2)
    seen = ((key == 0) | (key == query)) & torch.ones(length, length, dtype=torch.bool).tril()
    frames, frame_mask = _frames([group[0].frames for group in groups])
    return Batch(frames, frame_mask, ids, seen, positions, labels, item_ids)


def prompt_batch(items: Sequence[Item], *, pad_id: int) -> Batch:
    """One row per item, prompt only, padded on the left so that all answers begin in the same column."""
    length = max(len(item.prompt) for item in items)
    ids = torch.full((len(items), length), pad_id)
    mask = torch.zeros((len(items), length), dtype=torch.long)
    for index, item in enumerate(items):
        ids[index, length - len(item.prompt) :] = torch.tensor(item.prompt)
        mask[index, length - len(item.prompt) :] = 1
    frames, frame_mask = _frames([item.frames for item in items])
    nothing = torch.full_like(ids, -1)
    return Batch(frames, frame_mask, ids, mask, (mask.cumsum(1) - 1).clamp(min=0), torch.full_like(ids, IGNORE), nothing)


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    labels: list[int]
    blocks: list[int]
    positions: list[int]


def _row(group: Sequence[Item]) -> _Row:
    prefix = _common(group)
    ids, labels = list(group[0].prompt[:prefix]), [IGNORE] * prefix
    blocks, positions = [0] * prefix, list(range(prefix))
    for number, item in enumerate(group, start=1):
        rest = [*item.prompt[prefix:], *item.target]
        ids += rest
        labels += [IGNORE] * (len(item.prompt) - prefix) + list(item.target)
        blocks += [number] * len(rest)
        positions += range(prefix, prefix + len(rest))
    return _Row(ids, labels, blocks, positions)


def _common(group: Sequence[Item]) -> int:
    """Length of the common prefix; each item keeps a last prompt token, because that one predicts its answer's first."""
    limit = min(len(item.prompt) for item in group) - 1
    first = group[0].prompt
    for index in range(limit):
        if any(item.prompt[index] != first[index] for item in group):
            return index
    return limit


def _frames(arrays: Sequence[FrameArray | None]) -> tuple[Tensor | None, Tensor | None]:
    heard = [array for array in arrays if array is not None]
    longest = max((len(array) for array in heard), default=0)
    if longest == 0:
        return None, None
    nothing = np.zeros((0, *heard[0].shape[1:]), np.float32)
    return padded([nothing if array is None else array for array in arrays])


def padded(arrays: Sequence[FrameArray]) -> tuple[Tensor, Tensor]:
    """Frames of several clips, each (T, D) or (T, layers, D), as one padded tensor (B, longest T, ...) and their mask (B, longest T)."""
    frames = torch.zeros(len(arrays), max(map(len, arrays)), *arrays[0].shape[1:])
    mask = torch.zeros(frames.shape[:2], dtype=torch.bool)
    for index, array in enumerate(arrays):
        frames[index, : len(array)] = torch.from_numpy(array.astype(np.float32))
        mask[index, : len(array)] = True
    return frames, mask
