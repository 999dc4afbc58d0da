"""Which items are trained on, in which order: sources in their weights, a clip's questions together, rows of like length together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from undertone.errors import DataError
from undertone.records import Example

Group = list[int]
"""Indices of examples about one clip."""


def batches(
    examples: Sequence[Example], *, mix: Mapping[str, float], group_size: int, batch_size: int, seed: int
) -> Iterator[list[Group]]:
    """Batches of groups, epoch after epoch without end; equal arguments give equal batches.

    Args:
        examples: Training items.
        mix: Share of a source's items used in each epoch; above 1 they recur. Sources not named have 1.
        group_size: Most items of one clip that share a row.
        batch_size: A batch is closed when it holds this many items.
        seed: Of the order.

    Raises:
        DataError: At the first batch: `mix` leaves nothing of these examples.
    """
    chance = random.Random(seed)
    while True:
        groups = _groups(examples, _epoch(examples, mix, chance), group_size, chance)
        if not groups:
            held = ", ".join(sorted({one.source for one in examples})) or "none"
            raise DataError(
                f"train.mix={dict(mix)} leaves none of {len(examples)} examples, whose sources are: {held}; "
                "give one of these sources a larger weight"
            )
        made = list(_batches(groups, examples, batch_size))
        chance.shuffle(made)
        yield from made


def _epoch(examples: Sequence[Example], mix: Mapping[str, float], chance: random.Random) -> list[int]:
    by_source: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        by_source[example.source].append(index)
    chosen: list[int] = []
    for source in sorted(by_source):
        indices, weight = by_source[source], mix.get(source, 1.0)
        whole = int(weight)
        part = round((weight - whole) * len(indices))
        chosen += indices * whole + chance.sample(indices, part)
    chance.shuffle(chosen)
    return chosen


def _groups(examples: Sequence[Example], chosen: Sequence[int], size: int, chance: random.Random) -> list[Group]:
    by_clip: dict[str, list[int]] = defaultdict(list)
    for index in chosen:
        by_clip[examples[index].clip_id].append(index)
    groups = [found[start : start + size] for found in by_clip.values() for start in range(0, len(found), size)]
    chance.shuffle(groups)
    return groups


def _batches(groups: Sequence[Group], examples: Sequence[Example], batch_size: int) -> Iterator[list[Group]]:
    """Close a batch at `batch_size` items; windows of 16 batches are sorted by text length, so that rows need little padding."""
    lengths = [sum(len(examples[i].prompt) + len(examples[i].target) for i in group) for group in groups]
    order: list[int] = []
    window = max(1, 16 * batch_size * len(groups) // max(1, sum(map(len, groups))))
    for start in range(0, len(groups), window):
        order += sorted(range(start, min(start + window, len(groups))), key=lambda index: lengths[index])
    batch: list[Group] = []
    for index in order:
        batch.append(groups[index])
        if sum(map(len, batch)) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
