"""Reading, before hearing: text-only examples on which a new decoder learns the language of the study.

The paper's decoder is an LLM that reads well before it ever hears. A decoder that starts from random weights is given the same head
start: imagined clips, put together from train transcripts with emotions and genders drawn at random, are shown as text ("(sad, woman)
the train is late. (happy, man) ...", time-stamped labels beside it or alone), and questions about them are asked. Since the labels
are drawn independently of everything, nothing about any recording, and nothing about how words and emotions go together, is learnt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from undertone.errors import DataError
from undertone.lexicon import GENDER_WORDS
from undertone.metadata import MetadataConfig, render
from undertone.model import prompts
from undertone.model.config import Part, SpeechLLMConfig
from undertone.model.speech_llm import SpeechLLM
from undertone.records import EMOTIONS, Clip, Example, Label, QAPair, Segment
from undertone.train.config import TrainConfig
from undertone.train.trainer import Progress, train

IMAGINED = "imagined@1"
"""Labeller of labels that were drawn at random."""

ARM = "reading"
_GAP_MS = 400
_WINDOW_MS = 2_000
_TOLD = 0.75
_DRAWN = tuple(name for name in EMOTIONS if name not in {"other", "unknown"})


def pretrain(
    clips: Sequence[Clip],
    write: Callable[[Clip], Sequence[QAPair]],
    config: TrainConfig,
    out_dir: Path,
    *,
    model: SpeechLLMConfig,
    frame_dim: int,
    replies: Callable[[Clip], Sequence[QAPair]] | None = None,
    tokenizer_texts: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Teach a new decoder to read; `trainer.train(..., start=out_dir)` then starts each system from it.

    Args:
        clips: Train clips; only the transcripts and word times of their segments are used.
        write: A generator with train wordings.
        config: As for the systems; `reading` says how long.
        out_dir: Where the checkpoint goes.
        model: As for the systems; its decoder has no name.
        frame_dim: As for the systems.
        replies: A generator of replies to a speaker, where systems learn to reply: the decoder learns it too, as the teacher that it then is.
        tokenizer_texts: Prompts and answers of all systems: the tokeniser that they share is trained here.
        progress: Called with every line of losses.jsonl.

    Raises:
        DataError: A clip is of split test, or no clip has a transcript.
    """
    reading = config.reading
    examples = reading_examples(clips, write, count=reading.clips, seed=config.seed, metadata=model.metadata)
    if replies is not None:
        examples += reply_examples(clips, replies, count=reading.clips, seed=config.seed)
    changed = {"steps": reading.steps, "lr": reading.lr, "threads": reading.threads, "decoder_lr": 1.0, "mix": {}}
    return train(
        examples,
        {},
        config.model_copy(update=changed),
        out_dir,
        model=_bare(model),
        frame_dim=frame_dim,
        tokenizer_texts=tokenizer_texts,
        progress=progress,
    )


def with_adapter(reading: Path, out_dir: Path, config: TrainConfig, *, model: SpeechLLMConfig, frame_dim: int) -> Path:
    """The decoder of `pretrain` behind a new adapter (and whatever else a model has): what `align` and the systems start from.

    Args:
        reading: The checkpoint of `pretrain`.
        out_dir: Where the checkpoint goes.
        config: Its seed is that of the new weights.
        model: As for the systems, with the decoder that learnt to read.
        frame_dim: Width of the encoder's frames.
    """
    read = SpeechLLM.load(reading)
    torch.manual_seed(config.seed)
    made = SpeechLLM(_bare(model), read.tokenizer, frame_dim=frame_dim)
    made.decoder.load_state_dict(read.decoder.state_dict())
    made.save(out_dir)
    return out_dir


def _bare(model: SpeechLLMConfig) -> SpeechLLMConfig:
    """What learns to read and to hear words: no heads, which begin with the system that has them, so that others share the start.

    An encoder that a system trains is inside, and stays so here, where nobody hears; LoRA comes beside a decoder that can read.
    """
    frozen: tuple[Part, ...] = ("adapter",) if model.encoder_inside else ("encoder", "adapter")
    return model.model_copy(update={"frozen": frozen, "lora": None, "encoder_lora": None, "aux": None})


def reading_examples(
    clips: Sequence[Clip],
    write: Callable[[Clip], Sequence[QAPair]],
    *,
    count: int,
    seed: int,
    metadata: MetadataConfig | None = None,
) -> list[Example]:
    """Examples for `trainer.train` with no features; start the systems from its checkpoint.

    Args:
        clips: Train clips; only the transcripts and word times of their segments are used.
        write: A generator with train wordings.
        count: Imagined clips.
        seed: Of what is drawn.
        metadata: Format of the time-stamped labels; None is the default one.

    Raises:
        DataError: A clip is of split test, or no clip has a transcript.
    """
    config = metadata or MetadataConfig()
    made = []
    for clip in imagine(clips, count=count, seed=seed):
        chance = random.Random(f"{seed}:{clip.id}")
        tagged, timed = chance.choice(((True, False), (True, False), (True, True), (False, True)))
        line = render(clip.segments, start_ms=clip.start_ms, end_ms=clip.end_ms, config=config) if timed else None
        speech = prompts.words(_tagged(clip) if tagged else clip.transcript)
        for pair in write(clip):
            prompt = prompts.build(pair.question, metadata=line, place=config.place, speech=speech)
            made.append(
                Example(
                    arm=ARM,
                    pair_id=pair.id,
                    clip_id=clip.id,
                    source=pair.source,
                    kind=pair.kind,
                    metadata=line,
                    prompt=prompt,
                    target=pair.answer,
                )
            )
    return made


def reply_examples(clips: Sequence[Clip], write: Callable[[Clip], Sequence[QAPair]], *, count: int, seed: int) -> list[Example]:
    """Replies to imagined utterances; three of four readers are told the emotion, as a teacher is (`TrainConfig.objective`).

    Args:
        clips: As for `reading_examples`.
        write: A generator of replies.
        count: Imagined utterances.
        seed: Of what is drawn.

    Raises:
        DataError: A clip is of split test, or no clip has a transcript.
    """
    made = []
    for clip in imagine(clips, count=count, seed=seed, segments=(1, 1)):
        told = random.Random(f"{seed}:{clip.id}:told").random() < _TOLD
        speech = prompts.told(clip.transcript, clip.segments[0].category("emotion") if told else None)
        made += [
            Example(
                arm=ARM,
                pair_id=pair.id,
                clip_id=clip.id,
                source=pair.source,
                kind=pair.kind,
                prompt=prompts.build(pair.question, speech=speech),
                target=pair.answer,
            )
            for pair in write(clip)
        ]
    return made


def imagine(clips: Sequence[Clip], *, count: int, seed: int, segments: tuple[int, int] = (2, 4)) -> Iterator[Clip]:
    """Clips of some train segments (the least, the most) in random order, with random emotions and one or two random voices.

    Raises:
        DataError: A clip is of split test, or no clip has a transcript.
    """
    foreign = next((clip for clip in clips if clip.split == "test"), None)
    if foreign is not None:
        raise DataError(f"clip {foreign.id} is of split test; a decoder learns to read from train transcripts only")
    said = [segment for clip in clips for segment in clip.segments if segment.transcript]
    if not said:
        raise DataError(f"none of {len(clips)} clips has a transcript to learn reading from; set train.reading.clips=0")
    chance = random.Random(seed)
    for number in range(count):
        genders = chance.sample(sorted(GENDER_WORDS), 2) if chance.random() < 0.5 else [chance.choice(sorted(GENDER_WORDS))] * 2
        laid: list[Segment] = []
        at_ms = 0
        for segment in chance.sample(said, min(len(said), chance.randint(*segments))):
            laid.append(_laid(segment, f"imagined-{seed}-{number}", at_ms, chance.choice(_DRAWN), chance.choice(genders)))
            at_ms = laid[-1].end_ms + _GAP_MS
        yield Clip(
            recording_id=laid[0].recording_id,
            uri="",
            source="imagined",
            split="train",
            start_ms=0,
            end_ms=laid[-1].end_ms,
            segments=tuple(laid),
        )


def _laid(segment: Segment, recording_id: str, at_ms: int, emotion: str, gender: str) -> Segment:
    """A segment moved to another time and given labels, emotion in windows as a labeller gives it."""
    move = at_ms - segment.start_ms
    end_ms = segment.end_ms + move
    words = tuple(word.moved(move) for word in segment.words)
    spans = [(start, min(start + _WINDOW_MS, end_ms)) for start in range(at_ms, end_ms, _WINDOW_MS)]
    labels = [Label(attribute="emotion", category=emotion, start_ms=a, end_ms=b, labeller=IMAGINED) for a, b in spans]
    labels.append(Label(attribute="gender", category=gender, start_ms=at_ms, end_ms=end_ms, labeller=IMAGINED))
    return Segment(
        recording_id=recording_id,
        start_ms=at_ms,
        end_ms=end_ms,
        speaker=f"imagined/{gender}",
        transcript=segment.transcript,
        words=words,
        labels=tuple(labels),
    )


def _tagged(clip: Clip) -> str:
    """The words with how they are said in front of each segment: "(sad, woman) The train is late."."""
    parts = []
    for segment in clip.segments:
        gender = GENDER_WORDS[segment.category("gender") or ""][0]
        parts.append(f"({segment.category('emotion')}, {gender}) {segment.transcript}")
    return " ".join(parts)
