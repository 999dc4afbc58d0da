"""transformers' `Trainer` with what a speech-LLM needs besides: its order, its losses per question and source, stages, strict resume."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from undertone.errors import DataError, ModelError
from undertone.model import prompts
from undertone.model.collate import IGNORE
from undertone.model.config import Head, Part
from undertone.model.speech_llm import SpeechLLM, item_means
from undertone.train.config import LOSSES, ObjectiveConfig, TrainConfig
from undertone.train.feed import Feed, Inputs, Origin
from undertone.train.objective import Values, counts, losses
from undertone.train.optim import Schedule, adamw
from undertone.train.teacher import Teacher, teacher_of

COMPLETE = "_complete.json"
"""Written last into a state: what the training had logged, and whether it had ended."""


class Means(NamedTuple):
    """A loss, that of the reply for each source, and where there is more than the reply's each part without its weight."""

    loss: float
    by_source: dict[str, float]
    by_part: dict[str, float]


class _Seen(NamedTuple):
    """Losses of a batch that nobody has looked at yet."""

    loss: Tensor
    parts: dict[str, Values]
    several: bool
    origins: Sequence[Origin]


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
        heard = any(prompts.heard(one) for one in feed.examples)
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
        self._parts: dict[str, list[float]] = defaultdict(list)
        self._waiting: list[_Seen] = []
        self._counts: dict[str, int] = {}
        self._teachers = self._called(feed, held_out, sharded=self.is_fsdp_enabled or self.is_deepspeed_enabled)
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

    def _called(self, feed: Feed, held_out: Feed | None, *, sharded: bool) -> dict[str | None, Teacher]:
        """The teachers of all stages by name, as far as there is something for them to teach."""
        examples = [*feed.examples, *(held_out.examples if held_out is not None else ())]
        told = {way for one in examples for way in one.teacher or ()}
        names = [one.teacher for one in feed.objectives if one.loss == "kl" and one.reply and one.tells in told]
        return {name: teacher_of(self.model, name, sharded=sharded) for name in dict.fromkeys(names)}

    def _get_num_items_in_batch(self, batch_samples: list[Inputs], device: torch.device) -> Tensor | int:
        """Questions of the whole step, of all processes; how many of them each part of the loss is of is kept for its batches."""
        count = sum(len(one["origins"]) for one in batch_samples)
        each = [counts(one["objective"], one["targets"], len(one["origins"])) for one in batch_samples if "targets" in one]
        parts = [sum(one[name] for one in each) for name in LOSSES]
        if self.args.world_size == 1:
            self._counts = dict(zip(LOSSES, parts, strict=True))
            return count
        total: Tensor = self.accelerator.gather(torch.tensor([[count, *parts]], device=device)).sum(0)
        self._counts = dict(zip(LOSSES, total[1:].tolist(), strict=True))
        return total[0]

    def compute_loss(
        self, model: Any, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """The batch's part of each mean over questions: of the mean over their answers' tokens, and of what the heads say."""
        origins: Sequence[Origin] = inputs["origins"]
        tensors = {key: value for key, value in inputs.items() if key not in ("origins", "objective", "targets")}
        frames = inputs["frames"]
        heard = "no frames" if frames is None else f"frames of shape {tuple(frames.shape)}"
        self.shapes = f"tokens of shape {tuple(inputs['input_ids'].shape)} and {heard}"
        if "targets" in inputs:
            loss, parts = self._weighed(model, tensors, inputs, num_items_in_batch)
        else:
            output = model(**tensors)
            means = item_means(output.nll, inputs["item_ids"][:, 1:][inputs["labels"][:, 1:] != IGNORE])
            if num_items_in_batch is None or (self.args.world_size == 1 and num_items_in_batch == len(origins)):
                loss = output.loss
            else:
                loss = means.sum() * (self.args.world_size / num_items_in_batch)
            parts = {"reply": Values(means, torch.arange(len(origins)))}
        if model.training:
            held = {name: Values(one.values.detach(), one.items) for name, one in parts.items()}
            self._waiting.append(_Seen(loss.detach(), held, "targets" in inputs, origins))
            if not loss.is_cuda:  # on a GPU it is looked at with each line, so that the queue of kernels does not run empty
                self._drain()
        return (loss, parts) if return_outputs else loss

    def _weighed(
        self, model: Any, tensors: Inputs, inputs: Inputs, num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, dict[str, Values]]:
        """The weighted sum of the parts of a loss, each divided by the questions of the whole step that it is of; and the parts."""
        objective, targets = inputs["objective"], inputs["targets"]
        teacher = None
        if targets["teacher"] is not None:
            teacher = self._teachers[objective.teacher].logits(targets["teacher"])
        output = model(**tensors)
        owners = inputs["item_ids"][:, 1:][inputs["labels"][:, 1:] != IGNORE]
        parts = losses(objective, output, owners, targets, teacher)
        whole, world = (self._counts, self.args.world_size) if num_items_in_batch is not None else ({}, 1)
        total = output.loss * 0.0  # a batch without any target has a gradient of zero, not none
        for name, one in parts.items():
            if len(one.items):
                share = world / (whole[name] if whole else len(one.items))
                total = total + getattr(objective, name) * share * one.values.sum()
        return total, parts

    def _drain(self) -> None:
        """Take up the losses of the last batches.

        Raises:
            DataError: One is no number because a clip's frames are none.
            ModelError: One is no number.
        """
        for seen in self._waiting:
            value = float(seen.loss)
            of_items = {name: (one.values.tolist(), one.items.tolist()) for name, one in seen.parts.items()}
            if not math.isfinite(value):
                wrong = {item for found in of_items.values() for one, item in zip(*found, strict=True) if not math.isfinite(one)}
                self._no_number(value, [seen.origins[item] for item in sorted(wrong)])
            self._losses.append(value)
            for one, item in zip(*of_items.get("reply", ((), ())), strict=True):
                self._sums[seen.origins[item].source].append(one)
            if seen.several:
                for name, (found, _) in of_items.items():
                    self._parts[name] += found
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
        return frozenset(clip for one in self.feed.examples for clip in prompts.heard(one))

    def _since(self) -> Means:
        """Losses since the line before, of all processes."""
        self._drain()
        steps, values = len(self._losses) // self.config.accumulate, [sum(self._losses)]
        found: Iterable[tuple[dict[str, list[float]], dict[str, list[float]]]] = [(self._sums, self._parts)]
        if self.args.world_size > 1:
            from accelerate.utils import gather_object  # type: ignore[import-untyped]

            values, found = gather_object(values), gather_object([(dict(self._sums), dict(self._parts))])
        sums, parts = (_joined(some) for some in zip(*found, strict=True))
        self._losses, self._sums, self._parts = [], defaultdict(list), defaultdict(list)
        return Means(sum(values) / (len(values) * steps), _means(sums), _means(parts))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the losses since the line before, of each source, to whoever asked and to the trackers."""
        if "loss" in logs:
            means = self._since()
            logs |= {"loss": means.loss}
            logs |= {f"loss/{name}": value for name, value in (means.by_source | means.by_part).items()}
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
        parts: dict[str, list[float]] = defaultdict(list)
        objective = None
        model.eval()
        for inputs in self.held_out.whole():
            inputs = self._prepare_inputs(inputs)
            objective = inputs.get("objective")
            with torch.no_grad(), self.accelerator.autocast():
                _, found = self.compute_loss(model, inputs, return_outputs=True)
            for name, one in found.items():
                parts[name] += one.values.tolist()
            if "reply" in found:
                for item, value in zip(found["reply"].items.tolist(), found["reply"].values.tolist(), strict=True):
                    sums[inputs["origins"][item].source].append(value)
        model.train()
        means = self._held_out_means(objective, sums, parts)
        if self.is_world_process_zero():
            self._looked(self.state.global_step, means)
        metrics = {f"{metric_key_prefix}_loss": means.loss} | {
            f"{metric_key_prefix}_loss/{name}": value for name, value in (means.by_source | means.by_part).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.control.should_training_stop and (self._losses or self._waiting):
            self.log({"loss": 0.0})  # a line of losses where training ends early
        return metrics

    @staticmethod
    def _held_out_means(objective: ObjectiveConfig | None, sums: dict[str, list[float]], parts: dict[str, list[float]]) -> Means:
        by_part = _means(parts)
        if objective is None:
            values = [value for losses in sums.values() for value in losses]
            return Means(sum(values) / len(values), _means(sums), {})
        if not by_part:
            raise DataError(
                "no held-out question has a target of what is lessened (train.objective), so that no loss can choose the best weights; set "
                "train.held_out=0, or objective.untaught=ce"
            )
        return Means(sum(getattr(objective, name) * value for name, value in by_part.items()), _means(sums), by_part)

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
        pending = {"losses": self._losses, "sums": dict(self._sums), "parts": dict(self._parts)}
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
        self._parts = defaultdict(list, found.get("parts", {}))  # states of before there were parts have none
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


def _joined(some: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    made: dict[str, list[float]] = defaultdict(list)
    for one in some:
        for name, values in one.items():
            made[name] += values
    return made


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: sum(found) / len(found) for name, found in sorted(values.items()) if found}


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
        parts = {name: getattr(model, name) for name in (*get_args(Part), *get_args(Head))}
        self._trained = {
            name: [one for one in part.parameters() if one.requires_grad] for name, part in parts.items() if part is not None
        }
        learns = {name for name, found in self._trained.items() if found}
        if not self._heard:  # its loss depends on the decoder only, and there not on updates of speech positions
            lora = model.parts.lora
            bare = lora is not None and lora.where == "speech" and "decoder" in model.parts.frozen
            learns &= set() if bare else {"decoder"}
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
            f"{rests} this model only {trained} is trained, and this system hears nothing, so that an adapter, or LoRA at speech positions, is "
            "of no use to it. Train the decoder (model.lora of all positions, or leave it out of what is frozen), or leave this system out of "
            "the study's systems"
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        frozen = next(parts for end, parts in self._ends if state.global_step < end)
        if frozen != self._now:
            for name, found in self._trained.items():
                for one in found:
                    one.requires_grad_(name not in frozen)
            self._now = frozen
