"""What a training is fed with: batches of tensors from examples and frames, the same at each start, from any step on."""

from __future__ import annotations

import queue
import random
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from undertone.errors import DataError
from undertone.model import prompts
from undertone.model.collate import Item, training_batch
from undertone.model.features import Features
from undertone.model.speech_llm import SpeechLLM
from undertone.records import Example
from undertone.train.augment import Heard, augmented
from undertone.train.config import ObjectiveConfig, TrainConfig
from undertone.train.mixing import in_order, staged
from undertone.train.objective import targets_of

T = TypeVar("T")
Inputs = dict[str, Any]
"""Arguments of `SpeechLLM.forward` by name, "origins": an `Origin` per item, in the order of `item_ids`; and where more is lessened than
the mean loss of the answers, "objective" and "targets" (`objective.targets_of`)."""


@dataclass(frozen=True)
class Origin:
    """Where an item comes from."""

    source: str
    pair_id: str
    clip_id: str


class Row(NamedTuple):
    """Questions about one clip, how many frames are cut off its start, and the seed of its augmentation."""

    group: list[int]
    cut: int
    draw: str | None = None


class Feed:
    """Batches for one process of a training; iterating begins at the step that `begin` tells."""

    def __init__(
        self,
        model: SpeechLLM,
        examples: Sequence[Example],
        features: Features,
        config: TrainConfig,
        *,
        rank: int = 0,
        world: int = 1,
        ahead: int = 0,
        begin: Callable[[], int] = lambda: 0,
    ) -> None:
        """Store the arguments.

        Args:
            model: Tokenises, knows how many embeddings a clip becomes, and what its heads are.
            examples: Training items.
            features: Frames by clip id.
            config: Order, mix, sizes, cuts, augmentation, and what is lessened.
            rank: This process takes each `world`-th batch from this one on, so that several processes see at one step what one
                process sees with as many times the `accumulate`.
            world: Processes.
            ahead: Batches that a thread makes ready while the model computes, in pinned memory; 0 on a CPU, which is busy.
            begin: Optimiser steps that are done already.
        """
        self.model, self.examples, self.features, self.config = model, examples, features, config
        self.rank, self.world, self.ahead, self.begin = rank, world, ahead, begin
        self._most = getattr(model.decoder.config, "max_position_embeddings", None)
        legs = config.legs()
        self._objectives = [leg.objective.of(model.parts) for leg in legs]
        self._ends = list(accumulate(leg.steps for leg in legs))

    @property
    def objectives(self) -> Sequence[ObjectiveConfig]:
        """What each stage lessens."""
        return self._objectives

    def __iter__(self) -> Iterator[Inputs]:
        made = self._batches(self.begin())
        return ready(made, self.ahead) if self.ahead else made

    def plan(self) -> Iterator[list[Row]]:
        """The rows of each batch of all processes, from the first step on."""
        config = self.config
        # Cuts are drawn in the order of rows, whoever takes them.
        chance = random.Random(config.seed)
        for number, groups in enumerate(staged(self.examples, config, per_step=config.accumulate * self.world)):
            yield [
                Row(
                    group,
                    chance.randint(0, config.shift_frames),
                    f"{config.seed}:{number}:{index}" if config.augment.anything else None,
                )
                for index, group in enumerate(groups)
            ]

    def whole(self) -> Iterator[Inputs]:
        """Each example once, nothing cut and nothing augmented, with the targets of the last stage."""
        for groups in in_order(self.examples, group_size=self.config.group_size, batch_size=self.config.batch_size):
            yield self.batch([Row(group, 0) for group in groups])

    def batch(self, rows: Sequence[Row], *, packed: bool = False, stage: int = -1) -> Inputs:
        """Tensors of some rows, several of them put into one if `packed`, with the targets of a stage, counted from 0.

        Raises:
            DataError: A row cannot be trained on; the message names its pair.
        """
        items = [self._items(row) for row in rows]
        batch = training_batch(items, pad_id=self.model.config.pad_token_id, packed=packed)
        origins = [self._origin(index) for row in rows for index in row.group]
        made = {**batch.__dict__, "origins": origins}
        clips, objective = made.pop("item_clips"), self._objectives[stage]
        if not objective.plain:
            groups = [[self.examples[index] for index in row.group] for row in rows]
            pad_id, parts = self.model.config.pad_token_id, self.model.parts
            targets = targets_of(groups, clips, objective, parts, read=self._read, pad_id=pad_id)
            made |= {"objective": objective, "targets": targets}
        return made

    def _batches(self, begin: int) -> Iterator[Inputs]:
        first = begin * self.config.accumulate * self.world
        for number, rows in enumerate(self.plan()):
            if number >= first and number % self.world == self.rank:
                step = number // (self.config.accumulate * self.world)
                made = self.batch(rows, packed=self.config.rows == "packed", stage=bisect_right(self._ends, step))
                if self.ahead and torch.cuda.is_available():
                    made = {key: one.pin_memory() if isinstance(one, torch.Tensor) else one for key, one in made.items()}
                yield made

    def _items(self, row: Row) -> list[Item]:
        examples = [self.examples[index] for index in row.group]
        clips: dict[str, Heard] = {}  # of a row that hears a clip twice both are one array, so that the questions share it
        return [self._item(one, [self._clip(clip, one, row, clips) for clip in prompts.heard(one)]) for one in examples]

    def _clip(self, clip_id: str, example: Example, row: Row, clips: dict[str, Heard]) -> Heard:
        if clip_id not in clips:
            clips[clip_id] = self._heard(clip_id, example, row)
        return clips[clip_id]

    def _heard(self, clip_id: str, example: Example, row: Row) -> Heard:
        try:
            heard = self.features[clip_id]
        except (KeyError, DataError) as error:
            raise DataError(f"pair {example.pair_id} ({example.source}) cannot be heard: {error}") from error
        width = heard.shape[-1] if heard.ndim > 1 else 0
        if width != self.model.frame_dim:
            raise DataError(
                f"pair {example.pair_id} ({example.source}): the frames of clip {clip_id} are of shape {heard.shape}, expected "
                f"the width {self.model.frame_dim}; encode the clips again with this model's encoder"
            )
        # The rows that hold an emotion embedding (`SpeechLLM.beside_rows`) are no sound: nothing is cut of them and nothing done to them.
        sound = max(0, len(heard) - self.model.beside_rows)
        cut = heard[min(row.cut, sound // 4) :]
        if row.draw is None or not sound:
            return cut
        draw = row.draw if clip_id == example.clip_id else f"{row.draw}:{clip_id}"
        end = len(cut) - self.model.beside_rows
        made = augmented(cut[:end], self.config.augment, draw)
        return np.concatenate([made, cut[end:]]) if end < len(cut) else made

    def _read(self, example: Example, text: str) -> Item:
        """An answer behind what a teacher reads."""
        return self._fitting(example, self.model.item(text, None, target=example.target, source=example.source))

    def _item(self, example: Example, heard: Sequence[Heard]) -> Item:
        if not example.target.strip():
            raise DataError(f"pair {example.pair_id} ({example.source}) has an empty answer; drop it from its table")
        return self._fitting(example, self.model.item(example.prompt, heard, target=example.target, source=example.source))

    def _fitting(self, example: Example, item: Item) -> Item:
        size = len(item.prompt) + len(item.target)
        if self._most is not None and size > self._most:
            raise DataError(
                f"pair {example.pair_id} ({example.source}) about clip {example.clip_id} has {size} tokens, more than the {self._most} "
                "positions of the decoder; drop it, or lower model.max_audio_s"
            )
        return item

    def _origin(self, index: int) -> Origin:
        example = self.examples[index]
        return Origin(example.source, example.pair_id, example.clip_id)


def ready(made: Iterator[T], size: int) -> Iterator[T]:
    """The same, made by a thread up to `size` ahead; its error is raised where its item would stand."""
    ended = object()
    waiting: queue.Queue[Any] = queue.Queue(maxsize=size)
    left = threading.Event()

    def give(one: Any) -> bool:
        while not left.is_set():
            try:
                waiting.put(one, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for one in made:
                if not give((one, None)):
                    return
            give((ended, None))
        except BaseException as error:  # noqa: BLE001 - it is raised again by who takes it
            give((None, error))

    thread = threading.Thread(target=work, daemon=True, name="undertone-feed")
    thread.start()
    try:
        while True:
            one, error = waiting.get()
            if error is not None:
                raise error
            if one is ended:
                return
            yield one
    finally:
        left.set()
        thread.join()
