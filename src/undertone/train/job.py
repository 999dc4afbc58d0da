"""Training the systems of a study side by side: one process and one thread each, every checkpoint a verified artefact."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.errors import DataError
from undertone.execute import write_rows
from undertone.execute.artefact import build_artefact
from undertone.model.config import SpeechLLMConfig
from undertone.model.encode import Encoded
from undertone.model.examples import System, build_examples, slug
from undertone.model.features import FeatureCache
from undertone.model.shown import human_segments
from undertone.paths import Location, local_folder
from undertone.records import Clip, Example, QAPair, Recording, Segment, content_hash
from undertone.tables import Fingerprint
from undertone.train.config import TrainConfig

LOSSES = "losses.jsonl"
LOGS = "logs"
"""Folder of trackers' files, beside the systems': they hold times and names of machines, and are no part of a checkpoint."""


class Begin(NamedTuple):
    """Names of the folders in which a new decoder learns to read, and of the checkpoint that systems start from."""

    reading: str
    start: str


class Way(BaseModel):
    """How one system is made.

    Attributes:
        model: What it is made of.
        train: How it is trained.
        features: Encoded clips, with their frames beside the table.
        begin: What it starts from; None is the named decoder as it is, or new weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: SpeechLLMConfig
    train: TrainConfig
    features: Location
    begin: Begin | None = None


class TrainJob(BaseModel):
    """All that the training of any system of a study needs; paths are folders of finished tables.

    Attributes:
        pairs: Checked training pairs.
        clips: The clips that they are about.
        label: Predicted segments.
        corpus: Recordings with what people said of them; only an oracle is shown any of it.
        out: Where systems go, one folder each; examples go into `out/examples/SYSTEM`.
        starts: Where the ways' `reading` and `start` lie.
        systems: Who is trained.
        ways: How, by name.
        redo: Names of systems, and of what they start from, to train again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: tuple[Location, ...]
    clips: tuple[Location, ...]
    label: Location
    corpus: Location | None = None
    out: Location
    starts: Location
    systems: tuple[System, ...]
    ways: dict[str, Way]
    seed: int
    redo: tuple[str, ...] = ()

    def system(self, name: str) -> System:
        """A system by name."""
        return next(one for one in self.systems if one.name == name)

    def way_of(self, folder: str) -> tuple[Way, Begin]:
        """The first way that starts from a folder, or whose decoder learns to read in it."""
        return next((one, one.begin) for one in self.ways.values() if one.begin is not None and folder in one.begin)


class Frames:
    """Frames by clip id of one encoded table, with what the table says of them."""

    def __init__(self, folder: Location, *, max_audio_s: float) -> None:
        rows = list(tables.open_table(folder, Encoded).rows())
        if not rows:
            raise DataError(f"{folder} holds no encoded clip: nothing can be trained or asked. Look at its failed.parquet")
        self.width, self.encoder = rows[0].width, rows[0].encoder
        self.clips = frozenset(row.clip_id for row in rows)
        self.max_audio_s = max_audio_s
        self.cache = FeatureCache(folder, encoder=self.encoder, max_audio_s=max_audio_s)

    @classmethod
    def of(cls, way: Way) -> Self:
        """Those of one way."""
        return cls(way.features, max_audio_s=way.model.max_audio_s)

    def near(self) -> FeatureCache:
        """The same on this machine's disk: training takes every clip's frames many times."""
        return FeatureCache(local_folder(self.cache.folder).parent, encoder=self.encoder, max_audio_s=self.max_audio_s)


def training_examples(job: TrainJob, system: System, clips: frozenset[str]) -> list[Example]:
    """A system's training items, as far as their clips, those of a dialogue's earlier turns too, are encoded."""
    pairs = [pair for folder in job.pairs for pair in tables.open_table(folder, QAPair).rows() if clips.issuperset(pair.clips)]
    about = {clip.id: clip for folder in job.clips for clip in tables.open_table(folder, Clip).rows()}
    predicted: dict[str, list[Segment]] = {}
    for segment in tables.open_table(job.label, Segment).rows():
        predicted.setdefault(segment.recording_id, []).append(segment)
    human = human_segments(tables.open_table(job.corpus, Recording).rows()) if system.oracle and job.corpus is not None else None
    way = job.ways[system.name]
    return build_examples(
        pairs,
        about,
        predicted,
        system,
        phase="train",
        metadata=way.model.metadata,
        human=human,
        seed=job.seed,
        targets=way.train.learns_targets(way.model),
    )


def at_once(config: TrainConfig) -> int:
    """Trainings at a time where nobody says how many: one for each core, or one where systems share GPUs."""
    import torch  # late: needed where something is trained

    return 1 if config.launch is not None or torch.cuda.is_available() else os.cpu_count() or 1


READING = "reading"
START = "start"


def train_reading(job: TrainJob, name: str) -> None:
    """Let a new decoder learn to read, into `job.starts/NAME`; what is heard makes no difference to it. Runs in a worker."""
    from undertone.generate.frames import digest as wordings
    from undertone.generate.grammar import GrammarGenerator
    from undertone.generate.offline import OfflineGenerator
    from undertone.generate.strategies.continuation import Continuation
    from undertone.train.align import embedding_frames  # torch
    from undertone.train.pretrain import pretrain

    for one in job.ways.values():
        if one.begin is not None and one.train.align.steps:
            embedding_frames(one.model)  # before minutes of learning to read
    way, _ = job.way_of(name)
    frames = Frames.of(way)
    clips = _train_clips(job)
    shown = [one for system in job.systems for one in training_examples(job, system, Frames.of(job.ways[system.name]).clips)]
    texts = [text for one in shown for text in (one.prompt, f" {one.target}")]
    # A curriculum, precision or accumulation is the systems'; what they start from is the same without.
    plain = way.train.plain()
    config = {"decoder": _plain(way.model.decoder), "metadata": _plain(way.model.metadata), "train": _plain(_unaligned(plain))}
    inputs = _clip_digests(job) | {"texts": content_hash(*texts), "wordings": wordings(), "grammar": GrammarGenerator.version}
    replies, replying = OfflineGenerator(Continuation()), any(one.kind == "REPLY" for one in shown)
    inputs |= {"replies": replies.digest} if replying else {}
    fingerprint = Fingerprint(stage="reading", version="1", seed=job.seed, config=config, inputs=inputs)
    generators = [GrammarGenerator(strategy="asr"), GrammarGenerator(strategy="cpqa")]

    def write(clip: Clip) -> list[QAPair]:
        return [pair for one in generators for pair in one.write(clip, seed=job.seed)]

    def reply(clip: Clip) -> list[QAPair]:
        return replies.write(clip, seed=job.seed)

    def build(folder: Path) -> None:
        pretrain(
            clips,
            write,
            plain.model_copy(update={"save_every": 0}),
            folder,
            model=way.model,
            frame_dim=frames.width,
            replies=reply if replying else None,
            tokenizer_texts=texts,
        )

    build_artefact(job.starts / name, fingerprint, build, redo=name in job.redo)


def train_start(job: TrainJob, name: str) -> None:
    """Make a checkpoint that systems start from: a decoder that reads, an adapter that hears words. Runs in a worker."""
    from undertone.train.align import align  # torch
    from undertone.train.pretrain import with_adapter

    way, begin = job.way_of(name)
    frames = Frames.of(way)
    clips = _train_clips(job)
    plain = way.train.plain()
    reading = job.starts / begin.reading
    inputs = _clip_digests(job) | {"features": tables.open_table(way.features, Encoded).digest, "reading": _digest(reading)}
    config = {"model": _plain(_headless(way.model)), "train": _plain(plain)}
    fingerprint = Fingerprint(stage="start", version="2", seed=job.seed, config=config, inputs=inputs)

    def build(folder: Path) -> None:
        with_adapter(local_folder(reading), folder, plain, model=way.model, frame_dim=frames.width)
        if plain.align.steps:
            heard = [clip for clip in clips if clip.id in frames.clips]
            # Single utterances hold all the words of the longer clips, and a step costs a quarter.
            align(folder, [clip for clip in heard if len(clip.segments) == 1] or heard, frames.near(), plain)

    build_artefact(job.starts / name, fingerprint, build, redo=name in job.redo)


def starts_of(model: SpeechLLMConfig, train: TrainConfig, usual: tuple[SpeechLLMConfig, TrainConfig]) -> Begin | None:
    """Names of the folders in which a system's decoder learns to read and from which it starts; None where the decoder can read.

    Systems that differ in nothing that matters there share them; those of a study's usual way have no suffix.
    """
    if model.decoder.name is not None or not train.reading.clips:
        return None

    def named(kind: str, *parts: Callable[[SpeechLLMConfig, TrainConfig], BaseModel]) -> str:
        own, others = (content_hash(*(part(*one).model_dump_json() for part in parts)) for one in ((model, train), usual))
        return kind if own == others else f"{kind}-{own[:8]}"

    reading = named(READING, lambda m, _: m.decoder, lambda m, _: m.metadata, lambda _, t: _unaligned(t.plain()))
    return Begin(reading, named(START, lambda m, _: _headless(m), lambda _, t: t.plain()))


def _headless(model: SpeechLLMConfig) -> SpeechLLMConfig:
    heads = ("category_head", "dimensions_head")
    return model.model_copy(update={"aux": None, "frozen": tuple(one for one in model.frozen if one not in heads)})


def _unaligned(train: TrainConfig) -> TrainConfig:
    return train.model_copy(update={"align": type(train).model_fields["align"].default})


def _train_clips(job: TrainJob) -> list[Clip]:
    return [clip for folder in job.clips for clip in tables.open_table(folder, Clip).rows() if clip.split == "train"]


def _clip_digests(job: TrainJob) -> dict[str, str]:
    return {f"clips{index}": tables.open_table(folder, Clip).digest for index, folder in enumerate(job.clips)}


def _digest(artefact: Location) -> str:
    digest: str = json.loads((artefact / "_done.json").read_text())["digest"]
    return digest


def train_one(job: TrainJob, name: str) -> None:
    """Train one system into `job.out/NAME`, unless it is there already. Runs in a worker.

    A training that was killed goes on from its last state, where `job.out` is on this machine.
    """
    system, way = job.system(name), job.ways[name]
    frames = Frames.of(way)
    examples = training_examples(job, system, frames.clips)
    rows = content_hash(*(text for one in examples for text in one.content))
    made = Fingerprint(stage="examples", version="1", seed=job.seed, config=_plain(system), inputs={"rows": rows})
    redo = name in job.redo
    report = write_rows(job.out / "examples" / slug(name), examples, record=Example, fingerprint=made, redo=redo)
    config = {"system": _plain(system), "model": _plain(way.model), "train": _plain(way.train.of_weights())}
    inputs = {"examples": report.digest, "features": tables.open_table(way.features, Encoded).digest}
    inputs |= {} if way.begin is None else {"start": _digest(job.starts / way.begin.start)}
    fingerprint = Fingerprint(stage="train", version="1", seed=job.seed, config=config, inputs=inputs)
    out = job.out / slug(name)

    def build(folder: Path) -> None:
        # Beside the draft, which is begun anew each time; names with "_" are no part of the artefact.
        states = (out if isinstance(out, Path) else folder) / "_steps"
        logs = job.out / LOGS / slug(name) if isinstance(job.out, Path) else None
        if way.train.launch is None:
            fit(job, name, folder, states=states, logs=logs)
        else:
            from undertone.train.launched import Task, launch

            launch(Task(job=job, name=name, folder=folder, states=states, logs=logs))

    build_artefact(out, fingerprint, build, redo=redo)


def fit(job: TrainJob, name: str, folder: Path, *, states: Path, logs: Path | None) -> None:
    """Train one system into a folder: the whole of it, or the part of one of several processes."""
    from undertone.train.card import Facts, corpora_of
    from undertone.train.trainer import train  # torch: only where training happens

    system, way = job.system(name), job.ways[name]
    frames = Frames.of(way)
    examples = training_examples(job, system, frames.clips)
    clips = [clip for table in job.clips for clip in tables.open_table(table, Clip).rows()]
    train(
        examples,
        frames.near(),
        way.train,
        folder,
        model=way.model,
        frame_dim=frames.width,
        encoder_fingerprint=frames.encoder,
        system=system,
        start=None if way.begin is None else local_folder(job.starts / way.begin.start),
        states=states,
        logs=logs,
        facts=Facts(name=name, metadata=system.metadata, corpora=corpora_of(clips, examples)),
    )


def _plain(model: BaseModel) -> dict[str, object]:
    plain: dict[str, object] = json.loads(model.model_dump_json())
    return plain


def steps_done(out: Location, names: Sequence[str]) -> int:
    """Optimiser steps that the systems have logged so far, finished or under way."""
    total = 0
    for name in names:
        for file in (out / slug(name) / LOSSES, out / slug(name) / "_draft" / LOSSES):
            if file.is_file() and (lines := file.read_text(encoding="utf-8").splitlines()):
                with contextlib.suppress(json.JSONDecodeError, KeyError):  # a line that is being written
                    total += int(json.loads(lines[-1])["step"])
                break
    return total
