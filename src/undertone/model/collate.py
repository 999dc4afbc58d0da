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
    """One tokenised example.

    Attributes:
        frames: (T, D) or (T, layers, D) of each clip that is heard, in the order of the prompt's placeholders.
        prompt: Tokens.
        target: Tokens of the answer.
        source: Where it comes from.
        spans: Where the audio tokens of each clip begin and end in the prompt.
    """

    frames: tuple[FrameArray, ...]
    prompt: tuple[int, ...]
    target: tuple[int, ...]
    source: str = ""
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Batch:
    """Input of `SpeechLLM.forward`.

    Attributes:
        frames: (B, T, D) or (B, T, layers, D) and `frame_mask` (B, T), or None where nobody hears. Where a row of tokens holds several clips
            (a dialogue, a packed batch), a row per clip in the order of their audio tokens.
        input_ids: (B, L).
        attention_mask: (B, L), or (B, L, L): query, key.
        position_ids: (B, L).
        labels: (B, L); `IGNORE` outside answers.
        item_ids: (B, L); the item, counted through the batch, that an answer token belongs to, else -1.
        item_clips: (N,) the row of `frames` that holds an item's clip, the last one it hears; -1 where it hears nothing.
    """

    frames: Tensor | None
    frame_mask: Tensor | None
    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    item_ids: Tensor
    item_clips: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in held.items() if value is not None})


def training_batch(groups: Sequence[Sequence[Item]], *, pad_id: int, packed: bool = False) -> Batch:
    """One row per group of items about one clip: their common prompt prefix once, then each item's rest as a block of its own.

    A block sees the prefix and itself, at the positions it would have alone; each item's loss is what it would be alone, for a
    fraction of the work.

    Args:
        groups: Items; of a group those that hear the same are the same arrays.
        pad_id: Token that fills rows on the right.
        packed: Put groups one behind the other into a row for as long as it stays no longer than the longest group; none sees another.
            `frames` then has more rows than `input_ids`: one per group, in the order in which their audio tokens come.
    """
    each = [_row(group) for group in groups]
    rows = _packed(each) if packed else [[one] for one in each]
    length = max(sum(len(one.ids) for one in row) for row in rows)
    ids, labels = torch.full((len(rows), length), pad_id), torch.full((len(rows), length), IGNORE)
    blocks, item_ids = torch.full((len(rows), length), -1), torch.full((len(rows), length), -1)
    positions, owners = torch.zeros((len(rows), length), dtype=torch.long), torch.full((len(rows), length), -1)
    first = number = 0
    for index, row in enumerate(rows):
        start = 0
        for one in row:
            part = slice(start, start + len(one.ids))
            ids[index, part] = torch.tensor(one.ids)
            labels[index, part] = torch.tensor(one.labels)
            blocks[index, part] = torch.tensor(one.blocks)
            positions[index, part] = torch.tensor(one.positions)
            owners[index, part] = number
            item_ids[index, part] = torch.where(labels[index, part] != IGNORE, blocks[index, part] - 1 + first, -1)
            first += len(groups[number])
            start, number = part.stop, number + 1
    key, query = blocks.unsqueeze(1), blocks.unsqueeze(2)
    seen = ((key == 0) | (key == query)) & torch.ones(length, length, dtype=torch.bool).tril()
    if packed:
        seen &= owners.unsqueeze(1) == owners.unsqueeze(2)
    frames, frame_mask, firsts = _frames([one.frames for one in each])
    clips = [-1 if at < 0 else base + at for base, one in zip(firsts, each, strict=True) for at in one.clips]
    return Batch(frames, frame_mask, ids, seen, positions, labels, item_ids, torch.tensor(clips))


def prompt_batch(items: Sequence[Item], *, pad_id: int) -> Batch:
    """One row per item, prompt only, padded on the left so that all answers begin in the same column."""
    length = max(len(item.prompt) for item in items)
    ids = torch.full((len(items), length), pad_id)
    mask = torch.zeros((len(items), length), dtype=torch.long)
    for index, item in enumerate(items):
        ids[index, length - len(item.prompt) :] = torch.tensor(item.prompt)
        mask[index, length - len(item.prompt) :] = 1
    frames, frame_mask, _ = _frames([item.frames for item in items])
    nothing = torch.full_like(ids, -1)
    return Batch(frames, frame_mask, ids, mask, (mask.cumsum(1) - 1).clamp(min=0), torch.full_like(ids, IGNORE), nothing)


@dataclass(frozen=True)
class _Row:
    """`frames` are the clips of a row in the order of their tokens, `clips` which of them is each item's own."""

    ids: list[int]
    labels: list[int]
    blocks: list[int]
    positions: list[int]
    frames: tuple[FrameArray, ...]
    clips: list[int]


def _row(group: Sequence[Item]) -> _Row:
    prefix = _common(group)
    ids, labels = list(group[0].prompt[:prefix]), [IGNORE] * prefix
    blocks, positions = [0] * prefix, list(range(prefix))
    shared = sum(stop <= prefix for _, stop in group[0].spans)
    frames, clips = list(group[0].frames[:shared]), []
    for number, item in enumerate(group, start=1):
        rest = [*item.prompt[prefix:], *item.target]
        ids += rest
        labels += [IGNORE] * (len(item.prompt) - prefix) + list(item.target)
        blocks += [number] * len(rest)
        positions += range(prefix, prefix + len(rest))
        frames += item.frames[shared:]
        own = (len(frames) if len(item.frames) > shared else shared) - 1
        clips.append(own if own >= 0 and len(frames[own]) else -1)  # a clip without a frame is not heard
    return _Row(ids, labels, blocks, positions, tuple(frames), clips)


def _packed(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows one behind the other, in their order, none longer than the longest."""
    most, made = max(len(row.ids) for row in rows), list[list[_Row]]()
    room = 0
    for row in rows:
        if len(row.ids) > room:
            made.append([])
            room = most
        made[-1].append(row)
        room -= len(row.ids)
    return made


def _common(group: Sequence[Item]) -> int:
    """Length of the common prefix; each item keeps a last prompt token, because that one predicts its answer's first."""
    limit = min(len(item.prompt) for item in group) - 1
    first = group[0].prompt
    # Audio tokens are all alike: what differs before the words do is the clip that they stand for.
    for item in group[1:]:
        for one, other, span, another in zip(group[0].frames, item.frames, group[0].spans, item.spans, strict=False):
            if one is not other:
                limit = min(limit, span[0], another[0])
    for index in range(limit):
        if any(item.prompt[index] != first[index] for item in group):
            return index
    return limit


def _frames(rows: Sequence[tuple[FrameArray, ...]]) -> tuple[Tensor | None, Tensor | None, list[int]]:
    """Padded frames with a row for each row, or for each clip where one has several; and which of these is the first of each row."""
    single = all(len(arrays) <= 1 for arrays in rows)
    heard = [array for arrays in rows for array in arrays]
    firsts = list(range(len(rows))) if single else [sum(map(len, rows[:index])) for index in range(len(rows))]
    if not any(map(len, heard)):
        return None, None, firsts
    if not single:
        return *padded(heard), firsts
    nothing = np.zeros((0, *heard[0].shape[1:]), np.float32)
    return *padded([arrays[0] if arrays else nothing for arrays in rows]), firsts


def padded(arrays: Sequence[FrameArray]) -> tuple[Tensor, Tensor]:
    """Frames of several clips, each (T, D) or (T, layers, D), as one padded tensor (B, longest T, ...) and their mask (B, longest T)."""
    frames = torch.zeros(len(arrays), max(map(len, arrays)), *arrays[0].shape[1:])
    mask = torch.zeros(frames.shape[:2], dtype=torch.bool)
    for index, array in enumerate(arrays):
        frames[index, : len(array)] = torch.from_numpy(array.astype(np.float32))
        mask[index, : len(array)] = True
    return frames, mask
