"""Hearing words, before any question: the adapter's embeddings are drawn to the embeddings of the words spoken under them.

The paper's encoder is Whisper, whose frames are close to text. The frames of `affect-small` are not, and a toy study has too little
speech to find the words by transcription alone (token F1 on unseen voices stayed at chance, see docs/log.md). So the words' times,
which a corpus with transcripts has, supervise the adapter directly: the embedding of each stack of frames is classified among the
decoder's own token embeddings. All systems of a study start from the same aligned adapter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from undertone.errors import DataError, ModelError
from undertone.model.collate import IGNORE, padded
from undertone.model.config import SpeechLLMConfig
from undertone.model.features import Features
from undertone.model.speech_llm import SpeechLLM
from undertone.model.tokenizer import TextTokenizer
from undertone.records import Clip
from undertone.train.config import TrainConfig
from undertone.train.trainer import deterministic, parameter_groups, schedule

FRAME_MS = 20
"""Both kinds of encoder give 50 frames per second."""

_TEMPERATURE = 0.05
_LENGTH_WEIGHT = 0.1


def embedding_frames(parts: SpeechLLMConfig) -> int:
    """Frames under one embedding of a model's adapter.

    Raises:
        ModelError: Its embeddings have no place in time.
    """
    if parts.adapter.frames_each is None:
        raise ModelError(
            f"an adapter of kind {parts.adapter.kind!r} has no embedding per stretch of time to align with words; set "
            "train.align.steps=0"
        )
    return parts.adapter.frames_each


class Spoken(NamedTuple):
    """When tokens begin in a clip, in ms from its start, ascending; `IGNORE` where a word has ended and none begins."""

    starts_ms: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]


def spoken_tokens(clip: Clip, tokenizer: TextTokenizer) -> Spoken:
    """The tokens of a clip's words with their times; the tokens of one word share its time evenly."""
    found: list[tuple[float, int]] = []
    for word in (word for segment in clip.segments for word in segment.words):
        ids = tokenizer.word_ids(word.text.strip(".,;:!?"))
        each = (word.end_ms - word.start_ms) / max(1, len(ids))
        found += [(word.start_ms + index * each - clip.start_ms, token) for index, token in enumerate(ids)]
        found.append((word.end_ms - clip.start_ms, IGNORE))
    # Stable: where a word begins as another ends, the one that begins counts.
    found.sort(key=lambda one: one[0])
    return Spoken(np.array([time for time, _ in found]), np.array([token for _, token in found], dtype=np.int64))


def tokens_under(spoken: Spoken, *, embeddings: int, stack: int, cut: int) -> npt.NDArray[np.int64]:
    """The token spoken at the middle of each embedding, `IGNORE` where none is.

    Args:
        spoken: The clip's tokens.
        embeddings: Number of embeddings.
        stack: Frames in one.
        cut: Frames cut off the clip's start.
    """
    if not len(spoken.tokens):
        return np.full(embeddings, IGNORE)
    middle_ms = (cut + (np.arange(embeddings) + 0.5) * stack) * FRAME_MS
    index = np.searchsorted(spoken.starts_ms, middle_ms, side="right") - 1
    return np.where(index >= 0, spoken.tokens[np.maximum(index, 0)], IGNORE)


def align(
    checkpoint: Path,
    clips: Sequence[Clip],
    features: Features,
    config: TrainConfig,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> Path:
    """Align the adapter of a checkpoint, in place; the decoder stays as it is.

    Args:
        checkpoint: Written by `pretrain`.
        clips: Train clips with words.
        features: Their frames.
        config: `align` says how long; seed and `shift_frames` are the systems'.
        progress: Called with step and loss.

    Raises:
        DataError: No clip has words, or one is of split test.
        ModelError: The adapter's embeddings have no place in time.
    """
    foreign = next((clip for clip in clips if clip.split == "test"), None)
    if foreign is not None:
        raise DataError(f"clip {foreign.id} is of split test; the adapter is aligned on train clips only")
    with deterministic(config.model_copy(update={"threads": config.align.threads})):
        model = SpeechLLM.load(checkpoint)
        each = embedding_frames(model.parts)
        model.adapter.requires_grad_(True)  # it was frozen while the decoder learnt to read
        spoken = {clip.id: spoken_tokens(clip, model.tokenizer) for clip in clips}
        named = sorted(clip_id for clip_id, found in spoken.items() if len(found.tokens))
        if not named:
            raise DataError(f"none of {len(clips)} clips has words to align with; set train.align.steps=0")
        optimizer = torch.optim.AdamW(parameter_groups(model.adapter, weight_decay=config.weight_decay), lr=config.align.lr)
        chance = random.Random(config.seed)
        model.train()
        for step in range(1, config.align.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = config.align.lr * schedule(step / config.align.steps, config.warmup)
            some = chance.sample(named, min(len(named), config.align.batch_size))
            loss = _loss(model, [(spoken[one], features[one], chance.randint(0, config.shift_frames)) for one in some], each)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.adapter.parameters(), config.clip_norm)
            optimizer.step()
            if progress is not None and (step % config.log_every == 0 or step == config.align.steps):
                progress(step, float(loss.detach()))
        model.save(checkpoint)
    return checkpoint


def _loss(model: SpeechLLM, batch: Sequence[tuple[Spoken, npt.NDArray[np.floating], int]], each: int) -> Tensor:
    """Cross-entropy of each embedding over all token embeddings by cosine, both centred; and a pull to their usual length."""
    # An inside encoder's inputs are of another rate, and it hears words at any place.
    cuts = [0 if model.encoder is not None else min(cut, len(frames) // 4) for _, frames, cut in batch]
    frames, mask = padded([heard[cut:] for (_, heard, _), cut in zip(batch, cuts, strict=True)])
    made, real = model.hear(frames, mask)
    pool = model.parts.encoder.pool
    wanted = torch.full(made.shape[:2], IGNORE)
    for row, ((spoken, _, _), cut) in enumerate(zip(batch, cuts, strict=True)):
        count = int(real[row].sum())
        wanted[row, :count] = torch.from_numpy(tokens_under(spoken, embeddings=count, stack=each * pool, cut=cut * pool))
    # Through the module, because some decoders scale what they look up.
    embeddings: Any = model.get_input_embeddings()
    words = embeddings(torch.arange(embeddings.weight.shape[0])).detach()
    centre = words.mean(0)
    made, wanted = made[wanted != IGNORE] - centre, wanted[wanted != IGNORE]
    # Trained token embeddings share a large common part; without it they can be told apart by their angle.
    cosine = nn.functional.normalize(made, dim=-1) @ nn.functional.normalize(words - centre, dim=-1).T
    length = made.norm(dim=-1) / (words - centre).norm(dim=-1).mean()
    loss: Tensor = nn.functional.cross_entropy(cosine / _TEMPERATURE, wanted) + _LENGTH_WEIGHT * (length - 1).square().mean()
    return loss
