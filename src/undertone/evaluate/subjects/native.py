"""Asking a native audio LLM: questions of like length together, every answer kept as soon as it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from undertone import tables
from undertone.audio import Wave
from undertone.errors import AudioError, DataError
from undertone.evaluate.subjects.config import NativeSubject
from undertone.evaluate.subjects.parts import parts_of, wave_of
from undertone.model.native import Message, NativeAudioLLM
from undertone.model.prompts import AUDIO
from undertone.paths import Location
from undertone.records import Answer, Clip, Example, content_hash
from undertone.stages import Failed, Kept, Outcome

FOLDER = "native"
"""Of the answers, inside the folder of the chat cache."""


class _Said(BaseModel):
    """An answer in the cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    raw: str


class _Asked(BaseModel):
    """An example as it is put to the model: `waves` stand where the text has `AUDIO`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    number: int
    key: str
    text: str
    waves: tuple[Wave, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Those of like size share a batch."""
        return sum(len(one.samples) for one in self.waves), len(self.text)


class NativeAsker:
    """Puts examples to a native audio LLM in batches; a row that does not fit (a clip too long) fails alone."""

    def __init__(self, subject: NativeSubject, clips: Mapping[str, Clip], *, cache_dir: Location | None = None) -> None:
        """Store the configuration; nothing is loaded.

        Args:
            subject: Which model, and how it is asked.
            clips: What examples hear, by id.
            cache_dir: Where answers are kept; None for nowhere.
        """
        self.subject = subject
        self.clips = clips
        self.cache_dir = cache_dir
        self._llm: NativeAudioLLM | None = None

    def open(self) -> None:
        """Load the model.

        Raises:
            ModelError: It does not load.
            DependencyError: A package is missing.
        """
        here = "auto" if torch.cuda.is_available() else None
        self._llm = NativeAudioLLM.load(
            self.subject.model,
            revision=self.subject.revision,
            dtype=self.subject.dtype,
            device_map=self.subject.device_map or here,
            long_audio=self.subject.long_audio,
        )

    def outcomes(self, examples: Sequence[Example]) -> list[Outcome[Answer]]:
        """One outcome for each example, in their order; to be called once opened."""
        found: dict[int, Outcome[Answer]] = {}
        asked: list[_Asked] = []
        identity = json.dumps(self.subject.identity(), sort_keys=True)
        for number, example in enumerate(examples):
            try:
                parts = parts_of(example, self.clips, instruction=self.subject.instruction)
                key = content_hash(identity, *(one if isinstance(one, str) else f"{AUDIO}{one.id}" for one in parts))
                said = self._read(key)
                if said is not None:
                    found[number] = _kept(example, said, None)
                    continue
                text = "\n".join(one if isinstance(one, str) else AUDIO for one in parts)
                waves = tuple(wave_of(one) for one in parts if isinstance(one, Clip))
                asked.append(_Asked(number=number, key=key, text=text, waves=waves))
            except (AudioError, DataError) as error:
                found[number] = Failed(f"{type(error).__name__}: {error}")
        asked.sort(key=lambda one: (one.size, one.key))
        for start in range(0, len(asked), self.subject.batch_size):
            found |= self._answered(asked[start : start + self.subject.batch_size], examples)
        return [found[number] for number in range(len(examples))]

    def _answered(self, batch: Sequence[_Asked], examples: Sequence[Example]) -> dict[int, Outcome[Answer]]:
        if self._llm is None:
            raise RuntimeError("NativeAsker is used before open()")
        began = time.monotonic()
        try:
            replies = self._llm.answer(
                [[Message("user", one.text)] for one in batch],
                [one.waves for one in batch],
                max_new_tokens=self.subject.max_new_tokens,
            )
        except DataError as error:
            if len(batch) == 1:
                return {batch[0].number: Failed(f"DataError: {error}")}
            alone = [self._answered([one], examples) for one in batch]
            return {number: outcome for one in alone for number, outcome in one.items()}
        seconds = (time.monotonic() - began) / len(batch)
        made: dict[int, Outcome[Answer]] = {}
        for one, reply in zip(batch, replies, strict=True):
            said = _Said(text=reply.text, raw=reply.raw)
            self._write(one.key, said)
            made[one.number] = _kept(examples[one.number], said, seconds)
        return made

    def _file(self, folder: Location, key: str) -> Location:
        return folder / FOLDER / key[:2] / f"{key}.json"

    def _read(self, key: str) -> _Said | None:
        if self.cache_dir is None:
            return None
        try:
            return _Said.model_validate_json(self._file(self.cache_dir, key).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _write(self, key: str, said: _Said) -> None:
        if self.cache_dir is not None:
            tables.write_bytes(self._file(self.cache_dir, key), said.model_dump_json().encode(), synced=False)


def _kept(example: Example, said: _Said, seconds: float | None) -> Kept[Answer]:
    return Kept((Answer(subject=example.arm, pair_id=example.pair_id, text=said.text, raw=said.raw, seconds=seconds),))
