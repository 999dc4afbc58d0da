"""The training loop: small, seeded, the same command gives the same weights."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from undertone.errors import DataError, ModelError
from undertone.model.collate import Item, training_batch
from undertone.model.config import SpeechLLMConfig
from undertone.model.examples import System
from undertone.model.features import Features
from undertone.model.prompts import AUDIO
from undertone.model.speech_llm import SpeechLLM, item_means, read_checkpoint, tokenizer_for
from undertone.model.tokenizer import TextTokenizer, train_tokenizer
from undertone.records import Example
from undertone.train.config import TrainConfig
from undertone.train.mixing import batches

LOSSES_FILE = "losses.jsonl"


@dataclass(frozen=True)
class Progress:
    """One line of losses.jsonl: means since the line before, per source."""

    step: int
    steps: int
    lr: float
    loss: float
    by_source: dict[str, float]


def train(
    examples: Sequence[Example],
    features: Features,
    config: TrainConfig,
    out_dir: Path,
    *,
    model: SpeechLLMConfig,
    frame_dim: int,
    encoder_fingerprint: str | None = None,
    system: System | None = None,
    start: Path | None = None,
    tokenizer_texts: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train one system and write its checkpoint.

    Args:
        examples: Training items of the system (`model.examples.build_examples`, phase "train").
        features: Frames by clip id; used where a prompt holds the audio placeholder.
        config: How to train.
        out_dir: Where config.json, model.safetensors, tokenizer.json and losses.jsonl go.
        model: What to train.
        frame_dim: Width of the encoder's frames.
        encoder_fingerprint: Recorded in the checkpoint.
        system: Recorded in the checkpoint.
        start: A checkpoint whose weights and tokeniser to start from (`pretrain`, `align`); None starts from new weights.
        tokenizer_texts: Texts for the tokeniser beside those of the examples; give all systems the same.
        progress: Called with every line of losses.jsonl.

    Returns:
        `out_dir`.

    Raises:
        DataError: There is nothing to train on.
        ModelError: The loss is not a number, or `start` does not fit.
    """
    if not examples:
        name = system.name if system else "this system"
        raise DataError(f"no training example for {name}: its sources gave no pair; look at generate/ and at the system's data")
    with deterministic(config):
        made = _start(examples, model, config, frame_dim, encoder_fingerprint, start, tokenizer_texts)
        out_dir.mkdir(parents=True, exist_ok=True)
        with (out_dir / LOSSES_FILE).open("w", encoding="utf-8", buffering=1) as log:
            reads = start is not None or model.decoder.name is not None
            for line in _loop(made, examples, features, config, decoder_lr=config.decoder_lr if reads else 1.0):
                log.write(json.dumps(line.__dict__) + "\n")
                if progress is not None:
                    progress(line)
        made.save(out_dir, system=system)
    return out_dir


def _start(
    examples: Sequence[Example],
    model: SpeechLLMConfig,
    config: TrainConfig,
    frame_dim: int,
    encoder_fingerprint: str | None,
    start: Path | None,
    tokenizer_texts: Sequence[str],
) -> SpeechLLM:
    """The model before the first step."""
    if start is not None:
        tokenizer: TextTokenizer | None = TextTokenizer.load(start, read_checkpoint(start).tokens)
    else:
        tokenizer = tokenizer_for(model.decoder)
    if tokenizer is None:
        texts = [*tokenizer_texts, *(text for one in examples for text in (one.prompt, f" {one.target}"))]
        tokenizer = train_tokenizer(texts, vocab_size=config.vocab_size)
    torch.manual_seed(config.seed)
    made = SpeechLLM(model, tokenizer, frame_dim=frame_dim, encoder_fingerprint=encoder_fingerprint)
    if start is not None:
        made.load_weights(start)
    return made


def _loop(
    model: SpeechLLM, examples: Sequence[Example], features: Features, config: TrainConfig, *, decoder_lr: float
) -> Iterator[Progress]:
    """Take the steps; yield a line every `log_every` steps and at the last."""
    model.train()
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            *parameter_groups(model.adapter, weight_decay=config.weight_decay),
            *parameter_groups(model.decoder, weight_decay=config.weight_decay, share=decoder_lr),
        ],
        lr=config.lr,
        betas=(0.9, 0.98),
    )
    order = batches(examples, mix=config.mix, group_size=config.group_size, batch_size=config.batch_size, seed=config.seed)
    chance = random.Random(config.seed)
    sums: dict[str, list[float]] = defaultdict(list)
    losses: list[float] = []
    for step in range(1, config.steps + 1):
        rate = config.lr * schedule(step / config.steps, config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        cuts = ((group, chance.randint(0, config.shift_frames)) for group in next(order))
        rows = [_items(model, [examples[index] for index in group], features, cut) for group, cut in cuts]
        batch = training_batch(rows, pad_id=model.tokenizer.pad_id)
        output = model.on(batch)
        loss = float(output.loss.detach())
        if not math.isfinite(loss):
            lower = f"train.lr={config.lr / 3:.2g}"
            raise ModelError(f"the loss is {loss} at step {step} of {config.steps} (learning rate {rate:.2g}); try {lower}")
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        losses.append(loss)
        owners = batch.item_ids[:, 1:][batch.labels[:, 1:] != -100]
        for item, value in zip(
            (item for row in rows for item in row), item_means(output.nll.detach(), owners).tolist(), strict=True
        ):
            sums[item.source].append(value)
        if step % config.log_every == 0 or step == config.steps:
            yield Progress(step, config.steps, rate, _mean(losses), {name: _mean(found) for name, found in sorted(sums.items())})
            sums, losses = defaultdict(list), []


def _items(model: SpeechLLM, examples: Sequence[Example], features: Features, cut: int) -> list[Item]:
    heard = features[examples[0].clip_id] if examples[0].prompt.startswith(AUDIO) else None
    if heard is not None:
        heard = heard[min(cut, len(heard) // 4) :]
    return [model.item(one.prompt, heard, target=one.target, source=one.source) for one in examples]


def parameter_groups(part: torch.nn.Module, *, weight_decay: float, share: float = 1.0) -> list[dict[str, Any]]:
    """What is trained of a part of the model: matrices with weight decay, vectors without; `share` scales the learning rate."""
    trained = [one for one in part.parameters() if one.requires_grad]
    matrices, vectors = [one for one in trained if one.dim() > 1], [one for one in trained if one.dim() <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "share": share},
        {"params": vectors, "weight_decay": 0.0, "share": share},
    ]


def schedule(done: float, warmup: float) -> float:
    """Share of the peak rate after a share of the steps: linear up, cosine down to a tenth."""
    if done < warmup:
        return done / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@contextmanager
def deterministic(config: TrainConfig) -> Iterator[None]:
    """Fixed threads, seed and deterministic kernels, all put back afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
