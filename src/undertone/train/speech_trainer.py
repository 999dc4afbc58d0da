"""transformers' `Trainer` with what a speech-LLM needs besides: its order, its loss per question, losses per source, stages, strict resume."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from undertone.errors import DataError, ModelError
from undertone.model.collate import IGNORE
from undertone.model.prompts import AUDIO
from undertone.model.speech_llm import SpeechLLM, item_means
from undertone.train.config import TrainConfig
from undertone.train.feed import Feed, Inputs, Origin
from undertone.train.optim import Schedule, adamw

COMPLETE = "_complete.json"
"""Written last into a state: what the training had logged, and whether it had ended."""


class Means(NamedTuple):
    """A loss, and the same of each source."""

    loss: float
    by_source: dict[str, float]


class SpeechTrainer(Trainer):
    """Trains a `SpeechLLM` on a `Feed`; who makes it decides what a line of losses becomes."""

    model: Any
    lr_scheduler: Any
    state: Any

    def __init__(
        self,
        model: SpeechLLM,
        args: TrainingArguments,
        *,
        config: TrainConfig,
        feed: Feed,
        held_out: Feed | None,
        decoder_lr: float,
        told: Callable[[int, float, Means], None],
        looked: Callable[[int, Means], None],
        logs: Sequence[Path] = (),
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Make it ready; nothing is trained yet.

        Args:
            model: What is trained, on the CPU.
            args: As `trainer.arguments` makes them.
            config: How to train.
            feed: Batches of this process.
            held_out: What the best weights are chosen on.
            decoder_lr: The decoder's rate as a share of the rate.
            told: Called by the first process with step, rate and losses since the call before.
            looked: Called by the first process with the losses of what is held out.
            logs: Files that `told` and `looked` write, kept with each state.
            callbacks: Further ones.
        """
        heard = any(one.prompt.startswith(AUDIO) for one in feed.examples)
        own = [_Stages(config, heard=heard), _LastLine(), *callbacks]
        if config.patience:
            own.append(EarlyStoppingCallback(config.patience))
        super().__init__(
            model=model,
            args=args,
            train_dataset=feed,
            eval_dataset=held_out,
            callbacks=own,
        )
        self.remove_callback(PrinterCallback)
        # The loss of a batch is divided by the questions of the whole step, here and not in the model.
        self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = True
        self.config, self.feed, self.held_out = config, feed, held_out
        self._decoder_lr, self._told, self._looked, self._logs = decoder_lr, told, looked, logs
        self._losses: list[float] = []
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._waiting: list[tuple[Tensor, Tensor, Sequence[Origin]]] = []
        self.shapes = "no batch yet"

    def get_train_dataloader(self) -> Any:
        """The feed: it shares out batches between processes by itself."""
        return self.feed

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a rate per part."""
        if self.optimizer is None:
            self.optimizer = adamw(model if model is not None else self.model, self.config, decoder_lr=self._decoder_lr)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of all studies."""
        if self.lr_scheduler is None:
            self.lr_scheduler = Schedule(optimizer if optimizer is not None else self.optimizer, self.config)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_num_items_in_batch(self, batch_samples: list[Inputs], device: torch.device) -> Tensor | int:
        """Questions of the whole step, of all processes."""
        count = sum(len(one["origins"]) for one in batch_samples)
        if self.args.world_size == 1:
            return count
        total: Tensor = self.accelerator.gather(torch.tensor([count], device=device)).sum()
        return total

    def compute_loss(
        self, model: Any, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """The batch's part of the mean over questions of the mean over their answers' tokens."""
        origins: Sequence[Origin] = inputs["origins"]
        tensors = {key: value for key, value in inputs.items() if key != "origins"}
        frames = inputs["frames"]
        heard = "no frames" if frames is None else f"frames of shape {tuple(frames.shape)}"
        self.shapes = f"tokens of shape {tuple(inputs['input_ids'].shape)} and {heard}"
        output = model(**tensors)
        means = item_means(output.nll, inputs["item_ids"][:, 1:][inputs["labels"][:, 1:] != IGNORE])
        if num_items_in_batch is None or (self.args.world_size == 1 and num_items_in_batch == len(origins)):
            loss = output.loss
        else:
            loss = means.sum() * (self.args.world_size / num_items_in_batch)
        if model.training:
            self._waiting.append((loss.detach(), means.detach(), origins))
            if not loss.is_cuda:  # on a GPU it is looked at with each line, so that the queue of kernels does not run empty
                self._drain()
        return (loss, {"means": means}) if return_outputs else loss

    def _drain(self) -> None:
        """Take up the losses of the last batches.

        Raises:
            DataError: One is no number because a clip's frames are none.
            ModelError: One is no number.
        """
        for loss, means, origins in self._waiting:
            values, value = means.tolist(), float(loss)
            if not math.isfinite(value):
                self._no_number(value, [origin for origin, one in zip(origins, values, strict=True) if not math.isfinite(one)])
            self._losses.append(value)
            for origin, one in zip(origins, values, strict=True):
                self._sums[origin.source].append(one)
        self._waiting = []

    def _no_number(self, value: float, at_fault: Sequence[Origin]) -> None:
        for one in at_fault:
            frames = self.feed.features[one.clip_id] if one.clip_id in self.heard else None
            if frames is not None and not torch.from_numpy(frames).isfinite().all():
                raise DataError(
                    f"pair {one.pair_id} ({one.source}): the frames of clip {one.clip_id} hold numbers that are not finite; encode it "
                    "again, or drop it"
                )
        rate, step = self._get_learning_rate(), self.state.global_step + 1
        pairs = ", ".join(f"{one.pair_id} ({one.source})" for one in at_fault[:4]) or "none by itself"
        raise ModelError(
            f"the loss is {value} at step {step} of {self.config.steps} (learning rate {rate:.2g}); pairs without a number: {pairs}; try "
            f"train.lr={self.config.lr / 3:.2g}"
        )

    @property
    def heard(self) -> frozenset[str]:
        """Clips that some example hears."""
        return frozenset(one.clip_id for one in self.feed.examples if one.prompt.startswith(AUDIO))

    def _since(self) -> Means:
        """Losses since the line before, of all processes."""
        self._drain()
        steps, values = len(self._losses) // self.config.accumulate, [sum(self._losses)]
        found: Iterable[dict[str, list[float]]] = [self._sums]
        if self.args.world_size > 1:
            from accelerate.utils import gather_object  # type: ignore[import-untyped]

            values, found = gather_object(values), gather_object([dict(self._sums)])
        sums: dict[str, list[float]] = defaultdict(list)
        for one in found:
            for source, losses in one.items():
                sums[source] += losses
        self._losses, self._sums = [], defaultdict(list)
        loss = sum(values) / (len(values) * steps)
        return Means(loss, {name: sum(losses) / len(losses) for name, losses in sorted(sums.items())})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the losses since the line before, of each source, to whoever asked and to the trackers."""
        if "loss" in logs:
            means = self._since()
            logs |= {"loss": means.loss} | {f"loss/{name}": value for name, value in means.by_source.items()}
            if self.is_world_process_zero():
                self._told(self.state.global_step, self.lr_scheduler.rate(self.state.global_step), means)
        super().log(logs, start_time)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Loss of what is held out, each question once.

        Every process takes all of it: with shards of weights on each, one that had fewer batches would keep the others waiting.
        """
        if self.held_out is None:
            raise ModelError("nothing is held out to evaluate on; set train.held_out, such as 0.05")
        model: Any = self.model_wrapped if self.is_fsdp_enabled else self.model
        sums: dict[str, list[float]] = defaultdict(list)
        model.eval()
        for inputs in self.held_out.whole():
            inputs = self._prepare_inputs(inputs)
            with torch.no_grad(), self.accelerator.autocast():
                _, found = self.compute_loss(model, inputs, return_outputs=True)
            for origin, value in zip(inputs["origins"], found["means"].tolist(), strict=True):
                sums[origin.source].append(value)
        model.train()
        values = [value for losses in sums.values() for value in losses]
        means = Means(sum(values) / len(values), {name: sum(found) / len(found) for name, found in sorted(sums.items())})
        if self.is_world_process_zero():
            self._looked(self.state.global_step, means)
        metrics = {f"{metric_key_prefix}_loss": means.loss} | {
            f"{metric_key_prefix}_loss/{name}": value for name, value in means.by_source.items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.control.should_training_stop and (self._losses or self._waiting):
            self.log({"loss": 0.0})  # a line of losses where training ends early
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """A checkpoint as training ends with, and nothing of the Trainer's beside it."""
        if self.args.should_save:
            whole = self.accelerator.unwrap_model(self.model)
            whole.save_pretrained(output_dir or self.args.output_dir, state_dict=state_dict)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A state from which training goes on exactly; a marker that comes last says that it is whole."""
        self._drain()
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        pending = {"losses": self._losses, "sums": dict(self._sums)}
        (folder / f"pending-{self.args.process_index}.json").write_text(json.dumps(pending), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            for file in self._logs:
                if file.is_file():
                    shutil.copyfile(file, folder / file.name)
            ended = self.control.should_training_stop or self.state.global_step >= self.config.steps
            draft = folder / f"{COMPLETE}.draft"
            draft.write_text(json.dumps({"step": self.state.global_step, "ended": ended}), encoding="utf-8")
            draft.replace(folder / COMPLETE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights and what had been logged; strict, unless shards are read."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.model.load_weights(Path(resume_from_checkpoint))
        self.take_up(Path(resume_from_checkpoint))

    def take_up(self, folder: Path) -> None:
        """What had been logged when a state was written."""
        found = json.loads((folder / f"pending-{self.args.process_index}.json").read_text(encoding="utf-8"))
        self._losses, self._sums = found["losses"], defaultdict(list, found["sums"])
        if self.args.should_save:
            for file in self._logs:
                if (folder / file.name).is_file():
                    shutil.copyfile(folder / file.name, file)

    def _load_best_model(self) -> None:
        """The weights of the least loss on what is held out; strict, unless shards are read."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self.model.load_weights(Path(self.state.best_model_checkpoint))

    def floating_point_ops(self, inputs: Inputs) -> int:
        """Not counted: the Trainer would count all parameters anew at each step, for a number that nobody reads."""
        return 0


class _LastLine(TrainerCallback):
    """A line of losses at the last step, wherever the steps end."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True


class _Stages(TrainerCallback):
    """Parts rest and wake as the curriculum says."""

    def __init__(self, config: TrainConfig, *, heard: bool) -> None:
        self._heard = heard
        self._ends: list[tuple[int, frozenset[str]]] = []
        end = 0
        for leg in config.legs():
            end += leg.steps
            self._ends.append((end, frozenset(leg.frozen)))
        self._trained: dict[str, list[torch.nn.Parameter]] = {}
        self._now: frozenset[str] = frozenset()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        parts = {name: getattr(model, name) for name in ("encoder", "adapter", "decoder")}
        self._trained = {
            name: [one for one in part.parameters() if one.requires_grad] for name, part in parts.items() if part is not None
        }
        # The loss of a system that hears nothing depends on the decoder only.
        learns = {name for name, found in self._trained.items() if found and (self._heard or name == "decoder")}
        for number, (_, frozen) in enumerate(self._ends, start=1):
            if not learns - frozen:
                raise ModelError(self._nothing(number, frozen))

    def _nothing(self, number: int, frozen: frozenset[str]) -> str:
        trained = ", ".join(name for name, found in self._trained.items() if found) or "nothing"
        rests = (
            f"train.stages: stage {number} freezes {', '.join(sorted(frozen))}; of"
            if frozen
            else "model.frozen leaves nothing to learn: of"
        )
        if self._heard:
            return f"{rests} this model only {trained} is trained"
        return (
            f"{rests} this model only {trained} is trained, and this system hears nothing, so that an adapter is of no use to it. Train the "
            "decoder (model.lora, or leave it out of what is frozen), or leave this system out of the study's systems"
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        frozen = next(parts for end, parts in self._ends if state.global_step < end)
        if frozen != self._now:
            for name, found in self._trained.items():
                for one in found:
                    one.requires_grad_(name not in frozen)
            self._now = frozen
