"""Who spoke when in a recording: the labeller `pyannote`, and what it shares with `resemblyzer-speakers`.

Diarisers emit the attribute "speaker", one value for each turn: the category is a name that holds within the recording only. They hear the
segments that speech detection lets through, so that what it misses they miss.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import yaml

from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label.protocol import Category, Listener, Value, labeller
from undertone.label.weights import Weights

RATE_HZ = 16_000
Floats = npt.NDArray[np.float32]

COMMUNITY_1 = "pyannote/speaker-diarization-community-1"
COMMUNITY_1_REVISION = "3533c8cf8e369892e6b79ff1bf80f7b0286a54ee"
"""Its model card's commit; the repository holds all of its models, so that one revision fixes them all (that of 3.1 does not)."""


_CONFIG = "config.yaml"
_OWN_CLASS = re.compile(r"pyannote(\.[a-z_]\w*)+\.[A-Z]\w*")


def turn(speaker: str, start_ms: int, end_ms: int) -> Value:
    """One speaker's turn, in times of the recording."""
    return Value(attribute="speaker", category=speaker, start_ms=start_ms, end_ms=end_ms)


def check_counts(name: str, **counts: int | None) -> None:
    """Raise ConfigError where a number of speakers is below 1."""
    if wrong := [f"{key}: got {value}, expected at least 1" for key, value in counts.items() if value is not None and value < 1]:
        raise ConfigError(f"labeller {name!r}: {'; '.join(wrong)}")


@labeller(
    "pyannote", version="1", emits=[Category("speaker")], hears="recording", rate_hz=RATE_HZ, licence="CC-BY-4.0 (community-1)"
)
class PyannoteLabeller(Weights):
    """Turns by a speaker-diarisation pipeline of pyannote.audio (Bredin, 2023, "pyannote.audio 2.1 speaker diarization pipeline").

    Turns of different speakers may overlap. A recording is judged in blocks of `block_minutes`, because the pipeline wants all of its
    sound at once; the speakers of different blocks are not compared and have different names, "b0/SPEAKER_00" and "b1/SPEAKER_00".
    What was not heard (no speech) is zero between the segments. A pipeline whose weights are not finite gives no turns or any turns:
    its answer carries no score that could tell. Not measured by us, because its weights are gated. Its checkpoints are pickles, which the
    package loads as such: use those that you trust.
    """

    packages = ("torch", "pyannote.audio")
    extra = "speakers"
    instead = "resemblyzer-speakers"
    files = ((_CONFIG,),)
    revisions: ClassVar[Mapping[str, str]] = {COMMUNITY_1: COMMUNITY_1_REVISION}

    def __init__(
        self,
        *,
        model: str = COMMUNITY_1,
        revision: str | None = None,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        block_minutes: float = 30.0,
        device: str = "cpu",
    ) -> None:
        """Store the configuration; the pipeline is loaded by `open` or with the first recording.

        Args:
            model: A pipeline on the hub (gated: accept its conditions there and set HF_TOKEN), or a folder or config.yaml here.
            revision: Commit of a hub's pipeline; the default model has its own.
            num_speakers: How many speakers there are, where that is known.
            min_speakers: The least.
            max_speakers: The most.
            block_minutes: Length of a block; memory is about 6 MB for each minute of it beside what the pipeline takes.
            device: Of torch.
        """
        check_counts("pyannote", num_speakers=num_speakers, min_speakers=min_speakers, max_speakers=max_speakers)
        if block_minutes <= 0:
            raise ConfigError(f"labeller 'pyannote': block_minutes: got {block_minutes}, expected above 0")
        super().__init__(model=model, revision=revision, device=device)
        self.num_speakers = num_speakers
        self.min_speakers = min_speakers
        self.max_speakers = max_speakers
        self.block_minutes = block_minutes

    def load(self) -> Any:
        os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "false")  # it reports use and durations to its makers otherwise
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about decoders of files, and we hand it sound
                pipelines = importlib.import_module("pyannote.audio").Pipeline
        except (ImportError, OSError) as error:
            raise DependencyError(
                f"labeller {self.name!r}: pyannote.audio does not import ({type(error).__name__}: {error}); pip install "
                "pyannote.audio, with a torchaudio that fits torch; or use 'resemblyzer-speakers'"
            ) from error
        device = self.torch_device()
        with self.fetching():
            self._check_classes()
            if self.local:
                pipeline = pipelines.from_pretrained(self.place)
            elif "revision" in inspect.signature(pipelines.from_pretrained).parameters:
                pipeline = pipelines.from_pretrained(self.model, revision=self.pin)
            else:  # pyannote.audio 3
                pipeline = pipelines.from_pretrained(self.revision)
            if pipeline is None:  # how the package says that a gated pipeline is closed to this user
                raise PermissionError(f"accept the conditions of {self.model} on the hub and set HF_TOKEN")
        return pipeline.to(device)

    def _check_classes(self) -> None:
        """Raise ModelError unless all classes that config.yaml names are pyannote's: it would make an object of any that imports."""
        file = Path(self.place)
        if not self.local:
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(self.model, _CONFIG, revision=self.pin))
        told = yaml.safe_load((file / _CONFIG if file.is_dir() else file).read_text(encoding="utf-8"))
        steps = [told["pipeline"], *(told.get("preprocessors") or {}).values()]
        for name in (str(step.get("name")) for step in steps if isinstance(step, dict)):
            if not _OWN_CLASS.fullmatch(name):
                raise ModelError(
                    f"labeller {self.name!r}: the configuration of {self.model} names the class {name!r}, expected one of pyannote's, such "
                    "as pyannote.audio.pipelines.SpeakerDiarization"
                )

    def diarise(self, samples: Floats) -> Iterator[tuple[float, float, str]]:
        """Turns in one block of sound at 16 kHz, shape (n,): start and end in seconds, speaker."""
        import torch

        asked = {"num_speakers": self.num_speakers, "min_speakers": self.min_speakers, "max_speakers": self.max_speakers}
        given = {key: value for key, value in asked.items() if value is not None}
        answer = self._loaded({"waveform": torch.from_numpy(samples)[None], "sample_rate": RATE_HZ, "uri": "block"}, **given)
        turns = getattr(answer, "speaker_diarization", answer)  # version 4 answers with more than the turns, version 3 with them
        for turn, _, speaker in turns.itertracks(yield_label=True):
            yield turn.start, turn.end, str(speaker)

    def listen(self) -> Listener:
        """Begin to hear a recording."""
        return _Blocks(self)


class _Blocks(Listener):
    """Keeps one block of speech as 16-bit samples."""

    def __init__(self, owner: PyannoteLabeller) -> None:
        self._owner = owner
        self._held: list[tuple[int, npt.NDArray[np.int16]]] = []
        self._end_ms = 0
        self._blocks = 0
        self._values: list[Value] = []

    def hear(self, wave: Wave, start_ms: int) -> None:
        end_ms = start_ms + wave.duration_ms
        if self._held and end_ms - self._held[0][0] > self._owner.block_minutes * 60_000:
            self._judge()
        self._held.append((start_ms, np.round(np.clip(wave.samples, -1.0, 1.0) * 32_767).astype(np.int16)))
        self._end_ms = end_ms

    def finish(self) -> Sequence[Value]:
        if self._held:
            self._judge()
        return self._values

    def _judge(self) -> None:
        begin_ms = self._held[0][0]
        places = [((start_ms - begin_ms) * RATE_HZ // 1000, samples) for start_ms, samples in self._held]
        block = np.zeros(max(at + len(samples) for at, samples in places), np.float32)
        for at, samples in places:
            block[at : at + len(samples)] = samples.astype(np.float32) / 32_767
        self._held = []
        for start_s, end_s, speaker in self._owner.diarise(block):
            start_ms, end_ms = (min(max(begin_ms, begin_ms + round(1000 * s)), self._end_ms) for s in (start_s, end_s))
            if end_ms > start_ms:
                self._values.append(turn(f"b{self._blocks}/{speaker}", start_ms, end_ms))
        self._blocks += 1
