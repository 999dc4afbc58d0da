"""Training of one system: seeded, resumable to the step, the same command gives the same weights."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments

from undertone.errors import ConfigError, DataError, DependencyError, ModelError, ResumeMismatch
from undertone.model import prompts
from undertone.model.config import SpeechLLMConfig
from undertone.model.examples import System
from undertone.model.features import Features
from undertone.model.speech_llm import SpeechLLM, read_checkpoint, tokenizer_for
from undertone.model.tokenizer import TextTokenizer, train_tokenizer
from undertone.records import Example, content_hash
from undertone.train.augment import check_augment
from undertone.train.card import CARD_FILE, Facts, model_card
from undertone.train.config import TrainConfig
from undertone.train.feed import Feed
from undertone.train.mixing import hold_out
from undertone.train.optim import parameter_groups, schedule
from undertone.train.speech_trainer import COMPLETE, Means, SpeechTrainer

__all__ = ["HELD_OUT_FILE", "LAST", "LOSSES_FILE", "Progress", "deterministic", "parameter_groups", "schedule", "train"]

LOSSES_FILE = "losses.jsonl"
HELD_OUT_FILE = "held_out.jsonl"
LAST = "last"
"""Folder inside a checkpoint: the weights of the last step, where the checkpoint itself holds the best."""

STATES = "_steps"
_PLAN = "plan.json"
_AHEAD = 4
_CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if name in TrainingArguments.__dataclass_fields__
)
"""Renamed within version 5 of transformers."""


@dataclass(frozen=True)
class Progress:
    """One line of losses.jsonl: means since the line before, per source, and per part of the loss where it has several."""

    step: int
    steps: int
    lr: float
    loss: float
    by_source: dict[str, float]
    by_part: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """As JSON."""
        return json.dumps({key: value for key, value in self.__dict__.items() if key != "by_part" or value})


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
    states: Path | None = None,
    logs: Path | None = None,
    facts: Facts | None = None,
) -> Path:
    """Train one system and write its checkpoint.

    Args:
        examples: Training items of the system (`model.examples.build_examples`, phase "train").
        features: Frames by clip id; used where a prompt holds the audio placeholder.
        config: How to train.
        out_dir: Where the checkpoint, losses.jsonl and the model card go.
        model: What to train.
        frame_dim: Width of the encoder's frames.
        encoder_fingerprint: Recorded in the checkpoint.
        system: Recorded in the checkpoint.
        start: A checkpoint whose weights and tokeniser to start from (`pretrain`, `align`); None starts from new weights.
        tokenizer_texts: Texts for the tokeniser beside those of the examples; give all systems the same.
        progress: Called with every line of losses.jsonl.
        states: Where resumable states go while it is trained; if there are some, it goes on from the last. None is inside `out_dir`.
        logs: Where trackers write; None is no tracker.
        facts: What the model card says beside what is known here.

    Returns:
        `out_dir`.

    Raises:
        DataError: There is nothing to train on, a head or a teacher has nothing to teach, or a row cannot be trained on; the message names
            the pair.
        ConfigError: A setting does not fit the machine or the model.
        ModelError: The loss is not a number, memory does not suffice, or `start` does not fit.
        ResumeMismatch: `states` are of another training.
    """
    if not examples:
        name = system.name if system else "this system"
        raise DataError(f"no training example for {name}: its sources gave no pair; look at generate/ and at the system's data")
    if system is not None:  # what comes before any system, reading, learns by the answers' tokens
        _check_targets(examples, config, model)
    check_augment(config.augment, model, width=frame_dim)
    states = states if states is not None else out_dir / STATES
    with deterministic(config):
        args = _arguments(config, states, unused=_unused(examples, config, model))
        with _whole(args):
            made = _start(examples, model, config, frame_dim, encoder_fingerprint, start, tokenizer_texts)
        if system is not None:
            made.config.system = system.model_dump(mode="json")
        kept, held = hold_out(examples, config.held_out, seed=config.seed)
        plan = content_hash(
            config.of_weights().model_dump_json(),
            model.model_dump_json(),
            str(args.world_size),
            str(encoder_fingerprint),
            str(start and _digest(start)),
            *(text for one in examples for text in one.content),
        )
        with args.main_process_first(desc="look for a state"):
            resumed = _last_state(states, plan)
        reads = start is not None or model.decoder.name is not None
        run = _Run(made, args, config, out_dir, progress)
        trainer = run.trainer(kept, held, features, config.decoder_lr if reads else 1.0, _trackers(config, logs))
        run.go(trainer, resumed)
        named = Facts() if system is None else Facts(name=system.name, metadata=system.metadata)
        run.finish(trainer, states, facts or named, kept, held, model)
    return out_dir


class _Run:
    """One training from its model to its folder."""

    def __init__(
        self,
        model: SpeechLLM,
        args: TrainingArguments,
        config: TrainConfig,
        out_dir: Path,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.model, self.args, self.config, self.out_dir, self.progress = model, args, config, out_dir, progress
        self.losses, self.looks = out_dir / LOSSES_FILE, out_dir / HELD_OUT_FILE
        if args.should_save:
            out_dir.mkdir(parents=True, exist_ok=True)
            self.losses.write_bytes(b"")
            self.looks.unlink(missing_ok=True)

    def trainer(
        self,
        kept: Sequence[Example],
        held: Sequence[Example],
        features: Features,
        decoder_lr: float,
        callbacks: Sequence[TrainerCallback],
    ) -> SpeechTrainer:
        """The trainer, with torch's random numbers as they were before it was made."""
        numbers = torch.get_rng_state()
        ahead = _AHEAD if self.args.device.type == "cuda" else 0
        feed = Feed(
            self.model,
            kept,
            features,
            self.config,
            rank=self.args.process_index,
            world=self.args.world_size,
            ahead=ahead,
            begin=lambda: trainer.state.global_step,
        )
        trainer = SpeechTrainer(
            self.model,
            self.args,
            config=self.config,
            feed=feed,
            held_out=Feed(self.model, held, features, self.config) if held else None,
            decoder_lr=decoder_lr,
            told=self._told,
            looked=self._looked,
            logs=(self.losses, self.looks),
            callbacks=callbacks,
        )
        torch.set_rng_state(numbers)
        return trainer

    def go(self, trainer: SpeechTrainer, resumed: Path | None) -> None:
        """Take the steps that are left."""
        if self.args.process_index:  # each process drops out other neurons
            torch.manual_seed(self.config.seed + 1_000_003 * self.args.process_index)
        try:
            if resumed is not None and json.loads((resumed / COMPLETE).read_text())["ended"]:
                self._take_ended(trainer, resumed)
            else:
                trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            step = trainer.state.global_step + 1
            raise ModelError(
                f"out of memory at step {step} of {self.config.steps} on {self.args.device}, with {trainer.shapes}: {error}. Halve "
                f"train.batch_size={self.config.batch_size} and double train.accumulate={self.config.accumulate} (the same steps), or set "
                "train.checkpointing=true, train.precision=bfloat16, a smaller train.group_size, or model.decoder.dtype=bfloat16"
            ) from error

    def _take_ended(self, trainer: SpeechTrainer, resumed: Path) -> None:
        """A training that was killed behind its last step."""
        from transformers import TrainerState

        trainer.state = TrainerState.load_from_json(str(resumed / "trainer_state.json"))
        best = trainer.state.best_model_checkpoint
        self.model.load_weights(Path(best) if best is not None and self.config.held_out else resumed)
        trainer.take_up(resumed)

    def finish(
        self,
        trainer: SpeechTrainer,
        states: Path,
        facts: Facts,
        kept: Sequence[Example],
        held: Sequence[Example],
        parts: SpeechLLMConfig,
    ) -> None:
        """Write the checkpoint, the last weights beside the best, the card; remove the states."""
        trainer.save_model(str(self.out_dir))
        if self.args.should_save:
            self._last(trainer, states)
            lines = [json.loads(line) for line in self.losses.read_text(encoding="utf-8").splitlines()]
            looks = [json.loads(line) for line in self.looks.read_text().splitlines()] if self.looks.is_file() else []
            card = model_card(
                facts,
                config=self.config,
                parts=parts,
                examples=kept,
                held_out=held,
                losses=lines,
                looks=looks,
                model=self.model,
                processes=self.args.world_size,
            )
            (self.out_dir / CARD_FILE).write_text(card, encoding="utf-8")
            shutil.rmtree(states, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()

    def _last(self, trainer: SpeechTrainer, states: Path) -> None:
        last = states / f"checkpoint-{trainer.state.global_step}"
        if self.config.held_out and last.is_dir():
            (self.out_dir / LAST).mkdir(exist_ok=True)
            for file in sorted(last.iterdir()):
                if (self.out_dir / file.name).is_file() and file.name not in (LOSSES_FILE, HELD_OUT_FILE):
                    shutil.copyfile(file, self.out_dir / LAST / file.name)

    def _told(self, step: int, rate: float, means: Means) -> None:
        line = Progress(step, self.config.steps, rate, *means)
        with self.losses.open("a", encoding="utf-8") as log:
            log.write(line.line() + "\n")
        if self.progress is not None:
            self.progress(line)

    def _looked(self, step: int, means: Means) -> None:
        with self.looks.open("a", encoding="utf-8") as log:
            parts = {"by_part": means.by_part} if means.by_part else {}
            log.write(json.dumps({"step": step, "loss": means.loss, "by_source": means.by_source} | parts) + "\n")


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


def _arguments(config: TrainConfig, states: Path, *, unused: bool) -> TrainingArguments:
    """What transformers needs to know; order, loss and rates are ours."""
    cuda = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true"
    if config.precision == "float16" and not cuda:
        raise ConfigError("train.precision=float16 needs a GPU; on this machine set train.precision=bfloat16 or float32")
    more: dict[str, Any] = {_CHECKPOINTING: config.checkpointing, "save_strategy": "steps" if config.save_every else "no"}
    if config.save_every:
        more["save_steps"] = config.save_every
    if config.held_out:
        more |= {
            "eval_strategy": "steps",
            "eval_steps": config.eval_every,
            "save_strategy": "steps",
            "save_steps": config.eval_every,
        }
        more |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    trackers: list[str] = [one for one in config.trackers or () if one != "tensorboard"]
    args = TrainingArguments(
        output_dir=str(states),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        max_grad_norm=config.clip_norm,
        learning_rate=config.lr,
        seed=config.seed,
        bf16=config.precision == "bfloat16",
        fp16=config.precision == "float16",
        use_cpu=not cuda,
        ddp_backend="gloo" if not cuda and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        ddp_find_unused_parameters=unused,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        ignore_data_skip=True,  # the feed begins where the steps do
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=trackers or "none",
        run_name=states.parent.name,
        **more,
    )
    # Several GPUs are several processes: nn.DataParallel would split a batch between them by rows and join no losses.
    args._n_gpu = min(1, args.n_gpu)
    return args


@contextmanager
def _whole(args: TrainingArguments) -> Iterator[None]:
    """Make models whole on each process: transformers would share out each part of one as it is made (ZeRO 3), before it is read into."""
    if args.deepspeed_plugin is None:
        yield
        return
    from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        set_hf_deepspeed_config(args.deepspeed_plugin.hf_ds_config)  # type: ignore[no-untyped-call]


def _digest(start: Path) -> str:
    """Of the configuration, the tokeniser and the weights of a checkpoint."""
    digest = hashlib.sha256()
    held = [one for one in start.iterdir() if one.suffix in (".json", ".safetensors") and not one.name.startswith("_")]
    for file in sorted(held):
        with file.open("rb") as content:
            digest.update(f"{file.name}:{hashlib.file_digest(content, 'sha256').hexdigest()};".encode())
    return digest.hexdigest()


def _check_targets(examples: Sequence[Example], config: TrainConfig, model: SpeechLLMConfig) -> None:
    """Refuse to train a system on what none of its examples tells: it would end without a word, and nothing learnt."""
    objectives = [leg.objective.of(model) for leg in config.legs()]
    classes = model.aux.classes if model.aux is not None else ()
    names = model.aux.dimensions if model.aux is not None else ()
    known = {name for one in examples for name in one.dimensions or ()}
    if any(one.category for one in objectives) and not any(one.category in classes for one in examples):
        raise DataError(
            f"none of {len(examples)} examples has an emotion of model.aux.classes ({', '.join(classes)}): label emotion (label.labellers), "
            "name other classes, or set train.objective.category=0"
        )
    if any(one.dimensions for one in objectives) and (missing := [name for name in names if name not in known]):
        raise DataError(
            f"none of {len(examples)} examples has {', '.join(missing)} for model.aux.dimensions: add a labeller that gives it "
            "(label.labellers, such as affect-small), leave it out of model.aux.dimensions, or set train.objective.dimensions=0"
        )
    asked = [leg.objective for leg in config.legs() if leg.objective.loss == "kl" and leg.objective.reply]
    if silent := [one for one in asked if not any(one.tells in (example.teacher or ()) for example in examples)]:
        raise DataError(
            f"train.objective.loss=kl: none of {len(examples)} examples has a teacher's text that tells {silent[0].tells}; it stands with "
            "replies (kind REPLY, strategies continuation and dialogue) about clips with words and one prevailing emotion. Add such a source "
            "to the system's data, or set train.objective.loss=ce"
        )


def _unused(examples: Sequence[Example], config: TrainConfig, model: SpeechLLMConfig) -> bool:
    """Whether a step may leave a part without gradient, which processes that share gradients must know beforehand."""
    return bool(config.stages) or model.aux is not None or not all(prompts.heard(one) for one in examples)


def _trackers(config: TrainConfig, logs: Path | None) -> list[TrainerCallback]:
    """Tensorboard's; those of a service come with the arguments."""
    missing = [one for one in config.trackers or () if importlib.util.find_spec(one) is None]
    if missing:
        raise DependencyError(f"train.trackers names {', '.join(missing)}, not installed: pip install {' '.join(missing)}")
    wanted = config.trackers is None or "tensorboard" in config.trackers
    if logs is None or not wanted or importlib.util.find_spec("tensorboard") is None:
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(str(logs)))]  # type: ignore[no-untyped-call]


def _last_state(states: Path, plan: str) -> Path | None:
    """The last whole state, if any; a folder of another training is refused, and one that was begun is removed.

    Raises:
        ResumeMismatch: The states are of other examples, settings or a number of processes.
    """
    whole = {}
    for folder in states.glob("checkpoint-*"):
        if (folder / COMPLETE).is_file():
            whole[int(folder.name.rpartition("-")[2])] = folder
        else:
            shutil.rmtree(folder)
    file = states / _PLAN
    found = file.read_text(encoding="utf-8") if file.is_file() else None
    if whole and found != plan:
        raise ResumeMismatch(
            f"{states} holds the states of another training (digest {found}, now {plan}): examples, settings, start or the number of "
            f"processes differ. Remove it to begin anew: rm -r {states}"
        )
    states.mkdir(parents=True, exist_ok=True)
    file.write_text(plan, encoding="utf-8")
    return _placed(whole[max(whole)]) if whole else None


def _placed(state: Path) -> Path:
    """A state that looks for the best one beside itself: the Trainer writes a whole path, and a run may have been moved since."""
    file = state / "trainer_state.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    best = told["best_model_checkpoint"]
    if best is not None and Path(best) != state.parent / Path(best).name:
        told["best_model_checkpoint"] = str(state.parent / Path(best).name)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        draft.replace(file)
    return state


def _is_memory(error: BaseException) -> bool:
    """Whether it tells that memory does not suffice; torch's CPU allocator has no type of its own for that."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


@contextmanager
def deterministic(config: TrainConfig) -> Iterator[None]:
    """Fixed threads, seeds and deterministic kernels, all put back afterwards.

    On a GPU some kernels have no deterministic form; torch then warns and goes on.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    numbers, drawn = random.getstate(), np.random.get_state()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        random.setstate(numbers)
        np.random.set_state(drawn)
