"""What a training is fed with: batches of tensors from examples and frames, the same at each start, from any step on."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch

from undertone.errors import DataError
from undertone.model.collate import Item, training_batch
from undertone.model.features import Features
from undertone.model.prompts import AUDIO
from undertone.model.speech_llm import SpeechLLM
from undertone.records import Example
from undertone.train.augment import Heard, augmented
from undertone.train.config import TrainConfig
from undertone.train.mixing import in_order, staged

T = TypeVar("T")
Inputs = dict[str, Any]
"""Arguments of `SpeechLLM.forward` by name, and "origins": an `Origin` per item, in the order of `item_ids`."""


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
            model: Tokenises, and knows how many embeddings a clip becomes.
            examples: Training items.
            features: Frames by clip id.
            config: Order, mix, sizes, cuts and augmentation.
            rank: This process takes each `world`-th batch from this one on, so that several processes see at one step what one
                process sees with as many times the `accumulate`.
            world: Processes.
            ahead: Batches that a thread makes ready while the model computes, in pinned memory; 0 on a CPU, which is busy.
            begin: Optimiser steps that are done already.
        """
        self.model, self.examples, self.features, self.config = model, examples, features, config
        self.rank, self.world, self.ahead, self.begin = rank, world, ahead, begin
        self._most = getattr(model.decoder.config, "max_position_embeddings", None)

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
        """Each example once, nothing cut and nothing augmented."""
        for groups in in_order(self.examples, group_size=self.config.group_size, batch_size=self.config.batch_size):
            yield self.batch([Row(group, 0) for group in groups])

    def batch(self, rows: Sequence[Row]) -> Inputs:
        """Tensors of some rows.

        Raises:
            DataError: A row cannot be trained on; the message names its pair.
        """
        items = [self._items(row) for row in rows]
        batch = training_batch(items, pad_id=self.model.config.pad_token_id)
        origins = [self._origin(index) for row in rows for index in row.group]
        return {**batch.__dict__, "origins": origins}

    def _batches(self, begin: int) -> Iterator[Inputs]:
        first = begin * self.config.accumulate * self.world
        for number, rows in enumerate(self.plan()):
            if number >= first and number % self.world == self.rank:
                made = self.batch(rows)
                if self.ahead and torch.cuda.is_available():
                    made = {key: one.pin_memory() if isinstance(one, torch.Tensor) else one for key, one in made.items()}
                yield made

    def _items(self, row: Row) -> list[Item]:
        examples = [self.examples[index] for index in row.group]
        heard = self._heard(examples[0], row) if examples[0].prompt.startswith(AUDIO) else None
        return [self._item(one, heard) for one in examples]

    def _heard(self, example: Example, row: Row) -> Heard:
        try:
            heard = self.features[example.clip_id]
        except (KeyError, DataError) as error:
            raise DataError(f"pair {example.pair_id} ({example.source}) cannot be heard: {error}") from error
        width = heard.shape[-1] if heard.ndim > 1 else 0
        if width != self.model.frame_dim:
            raise DataError(
                f"pair {example.pair_id} ({example.source}): the frames of clip {example.clip_id} are of shape {heard.shape}, expected "
                f"the width {self.model.frame_dim}; encode the clips again with this model's encoder"
            )
        heard = heard[min(row.cut, len(heard) // 4) :]
        return augmented(heard, self.config.augment, row.draw) if row.draw is not None and len(heard) else heard

    def _item(self, example: Example, heard: Heard | None) -> Item:
        if not example.target.strip():
            raise DataError(f"pair {example.pair_id} ({example.source}) has an empty answer; drop it from its table")
        item = self.model.item(example.prompt, heard, target=example.target, source=example.source)
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
