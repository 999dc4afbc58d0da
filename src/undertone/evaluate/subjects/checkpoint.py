"""A checkpoint of ours as a subject."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from undertone.model.features import Features
from undertone.model.prompts import heard
from undertone.model.speech_llm import SpeechLLM
from undertone.records import Answer, Example


class CheckpointSubject:
    """A speech-LLM of ours, answering in batches; equal checkpoints, frames and examples give equal answers."""

    def __init__(
        self, checkpoint: Path, features: Features, *, batch_size: int = 32, max_new_tokens: int = 40, threads: int = 1
    ) -> None:
        """Store the configuration; the checkpoint is read at the first answer.

        Args:
            checkpoint: Folder that training wrote.
            features: Frames by clip id, for prompts that hear.
            batch_size: Examples at once.
            max_new_tokens: Longest answer.
            threads: torch threads.
        """
        self.checkpoint = checkpoint
        self.features = features
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.threads = threads
        self._model: SpeechLLM | None = None

    def answers(self, examples: Sequence[Example]) -> Iterator[Answer]:
        """Answer examples, those of like length together.

        Raises:
            ModelError: The checkpoint does not load.
            DataError: A clip has no frames.
        """
        torch.set_num_threads(self.threads)
        if self._model is None:
            self._model = SpeechLLM.load(self.checkpoint)
        ordered = sorted(examples, key=lambda one: (len(one.prompt), one.id))
        for start in range(0, len(ordered), self.batch_size):
            batch = ordered[start : start + self.batch_size]
            frames = [[self.features[clip] for clip in heard(one)] for one in batch]
            began = time.monotonic()
            replies = self._model.answer([one.prompt for one in batch], frames, max_new_tokens=self.max_new_tokens)
            seconds = (time.monotonic() - began) / len(batch)
            for one, reply in zip(batch, replies, strict=True):
                yield Answer(subject=one.arm, pair_id=one.pair_id, text=reply.text, raw=reply.raw, seconds=seconds)
