"""Which items are trained on, in which order: sources in their weights, a clip's questions together, rows of like length together."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from undertone.errors import DataError
from undertone.records import Example, content_hash
from undertone.train.config import TrainConfig

Group = list[int]
"""Indices of examples about one clip."""


def batches(
    examples: Sequence[Example],
    *,
    mix: Mapping[str, float],
    group_size: int,
    batch_size: int,
    seed: int | str,
    temperature: float = 1.0,
    mixed: bool = False,
) -> Iterator[list[Group]]:
    """Batches of groups, epoch after epoch without end; equal arguments give equal batches.

    Args:
        examples: Training items.
        mix: Share of a source's items used in each epoch; above 1 they recur. Sources not named have 1.
        group_size: Most items of one clip that share a row.
        batch_size: A batch is closed when it holds this many items.
        seed: Of the order.
        temperature: See `tempered`.
        mixed: Draw each batch from all lengths, the longest groups first, for rows into which several groups are packed; otherwise a batch
            holds groups of like length, which for want of other lengths are of like questions too.

    Raises:
        DataError: At the first batch: `mix` leaves nothing of these examples.
    """
    chance = random.Random(seed)
    weights = mix if temperature == 1 else tempered(examples, mix, temperature)
    while True:
        groups = _groups(examples, _epoch(examples, weights, chance), group_size, chance)
        if not groups:
            raise DataError(
                f"train.mix={dict(mix)} leaves none of {len(examples)} examples, whose sources are: {_held(examples)}; "
                "give one of these sources a larger weight"
            )
        made = list(_batches(groups, examples, batch_size, mixed=mixed))
        chance.shuffle(made)
        yield from made


def staged(examples: Sequence[Example], config: TrainConfig, *, per_step: int) -> Iterator[list[Group]]:
    """The batches of a whole training, stage after stage.

    Args:
        examples: Training items; indices count through all of them.
        config: Its stages, mix and sizes.
        per_step: Batches that one optimiser step takes, of all processes together.

    Raises:
        DataError: A stage names only sources that no example has, or its mix leaves nothing.
    """
    for number, leg in enumerate(config.legs(), start=1):
        # The stages are of all systems, and S10 has not all of S32's sources.
        chosen = [index for index, one in enumerate(examples) if not leg.sources or one.source in leg.sources]
        if not chosen:
            raise DataError(
                f"stage {number} of train.stages has sources {', '.join(leg.sources)}, but the examples' sources are: {_held(examples)}; give "
                "this stage one that every system has"
            )
        made = batches(
            [examples[index] for index in chosen],
            mix=leg.mix,
            group_size=config.group_size,
            batch_size=config.batch_size,
            seed=leg.seed,
            temperature=config.temperature,
            mixed=config.rows == "packed",
        )
        for groups in islice(made, leg.steps * per_step):
            yield [[chosen[index] for index in group] for group in groups]


def in_order(examples: Sequence[Example], *, group_size: int, batch_size: int) -> list[list[Group]]:
    """Each example once, in an order of its own: for a loss that is compared between steps."""
    groups = _groups(examples, list(range(len(examples))), group_size, random.Random(0))
    return list(_batches(groups, examples, batch_size))


def tempered(examples: Sequence[Example], mix: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Weights of sources, such that they are used as n ** (1 / temperature) of their n items is, by as many items in all.

    Args:
        examples: Training items.
        mix: Weights that the result is multiplied with before it is brought to as many items as `mix` alone gives.
        temperature: 1 leaves `mix` as it is; a very large one makes equally weighted sources equally frequent.
    """
    counts = Counter(one.source for one in examples)
    raw = {source: mix.get(source, 1.0) * count ** (1 / temperature - 1) for source, count in counts.items()}
    before = sum(mix.get(source, 1.0) * count for source, count in counts.items())
    after = sum(raw[source] * count for source, count in counts.items())
    return {source: weight * before / after for source, weight in raw.items()} if after else raw


def hold_out(examples: Sequence[Example], share: float, *, seed: int) -> tuple[list[Example], list[Example]]:
    """Training items and those held out, by recording: no recording is on both sides, and the choice does not depend on the order.

    Args:
        examples: Training items of one system.
        share: Of their recordings; at least one of them, where there are two.
        seed: Of the choice.

    Raises:
        DataError: There is one recording only.
    """
    if not share:
        return list(examples), []
    recordings = sorted({_recording(one) for one in examples}, key=lambda name: content_hash("held out", str(seed), name))
    count = max(1, round(share * len(recordings)))
    if count >= len(recordings):
        raise DataError(
            f"train.held_out={share:g} leaves nothing to train on: the examples are of {len(recordings)} recordings; set train.held_out=0"
        )
    kept_out = set(recordings[:count])
    return [one for one in examples if _recording(one) not in kept_out], [one for one in examples if _recording(one) in kept_out]


def _recording(example: Example) -> str:
    """A clip's id is its recording's, an at sign and its bounds (`Clip.id`)."""
    return example.clip_id.rpartition("@")[0] or example.clip_id


def _held(examples: Sequence[Example]) -> str:
    return ", ".join(sorted({one.source for one in examples})) or "none"


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


def _batches(
    groups: Sequence[Group], examples: Sequence[Example], batch_size: int, *, mixed: bool = False
) -> Iterator[list[Group]]:
    """Close a batch at `batch_size` items; windows of 16 batches are sorted by text length, so that rows need little padding."""
    lengths = [sum(len(examples[i].prompt) + len(examples[i].target) for i in group) for group in groups]
    order: list[int] = []
    window = 1 if mixed else max(1, 16 * batch_size * len(groups) // max(1, sum(map(len, groups))))
    for start in range(0, len(groups), window):
        order += sorted(range(start, min(start + window, len(groups))), key=lambda index: lengths[index])
    batch: list[int] = []
    for index in order:
        batch.append(index)
        if sum(len(groups[one]) for one in batch) >= batch_size:
            yield _closed(batch, groups, lengths, mixed=mixed)
            batch = []
    if batch:
        yield _closed(batch, groups, lengths, mixed=mixed)


def _closed(batch: Sequence[int], groups: Sequence[Group], lengths: Sequence[int], *, mixed: bool) -> list[Group]:
    """Groups of a batch; a mixed one begins with the longest, so that packing leaves little room."""
    return [groups[one] for one in (sorted(batch, key=lambda one: -lengths[one]) if mixed else batch)]
