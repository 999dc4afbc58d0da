"""What the trainer costs and saves, in one run.

python benchmarks/bench_train.py [--run RUN] [--steps N] [--rows packed|bucketed] [--seed N] [--only NAME ...]
    On this machine: tokens per second of the trainer, of a bare loop over the same batches, and of a plain script: transformers'
    Trainer on padded batches, one question per row, in random order. The same data, model, optimiser, rates, cuts and questions per step;
    tokens are those of the questions one by one (speech, prompt, answer). The loss at the end is of the same held-out questions.
    They take turns of ten steps, so that what else the machine does hits all of them alike, by the clock too.
    --run: a finished study's S30; without it, drawn data of the same shape.

python benchmarks/bench_train.py --gpu SHAPE [--batch N] [--steps N] [--peak TFLOPS] [--checkpointing] [--tiny]
    On a GPU, with random weights in bfloat16: seconds per step, memory and the share of the GPU's peak. SHAPE is one of frozen, lora,
    inside, qwen2-audio, or all. --tiny runs the same code with a few thousand weights, to see that it runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from undertone.model.collate import training_batch
from undertone.model.config import AdapterConfig, DecoderConfig, EncoderConfig, LoRAConfig, SpeechLLMConfig
from undertone.model.features import Features
from undertone.model.prompts import AUDIO, build
from undertone.model.speech_llm import SpeechLLM
from undertone.model.tokenizer import train_tokenizer
from undertone.records import Example
from undertone.train.config import TrainConfig
from undertone.train.feed import Feed
from undertone.train.mixing import batches, hold_out
from undertone.train.optim import Schedule, adamw
from undertone.train.speech_trainer import SpeechTrainer
from undertone.train.trainer import _arguments, _start, deterministic

QUESTIONS = (
    "What is said in the recording, word for word?",
    "Which emotion does the first speaker show?",
    "Is the first speaker a man or a woman?",
    "How many people speak here?",
    "How does the speaker feel while the train is mentioned?",
    "Why might the voice change towards the end?",
    "What mood is the second sentence said in?",
    "Who sounds more excited, the first voice or the second?",
)
EMOTIONS = ("sad", "happy", "angry", "afraid", "calm")
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0}
"""Dense bfloat16 of the makers' data sheets (SXM where there are several)."""


TURN = 10
"""Steps of a turn."""


@dataclass
class Runner:
    """One of those that take turns: seconds of each turn by the clock and of the processor, tokens of each, and the loss in the end."""

    name: str
    run: Callable[[Callable[[], None], Callable[[int], None]], SpeechLLM]
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    loss: float = 0.0


class Turns:
    """Lets several trainings go on side by side, one at a time, each with torch's random numbers as it left them."""

    def __init__(self, runners: Sequence[Runner], config: TrainConfig, judge: Callable[[SpeechLLM], float]) -> None:
        self.runners, self.config, self.judge = runners, config, judge
        self.here = threading.Condition()
        self.turn = 0
        self.left = set(range(len(runners)))
        self.broken: BaseException | None = None

    def go(self) -> None:
        """Run all of them to their end."""
        threads = [threading.Thread(target=self._one, args=(index,)) for index in self.left]
        with deterministic(self.config):
            for one in threads:
                one.start()
            for one in threads:
                one.join()
        if self.broken is not None:
            raise self.broken

    def _one(self, index: int) -> None:
        runner = self.runners[index]
        steps = 0

        def stepped() -> None:
            nonlocal steps
            steps += 1
            if steps % TURN == 0 and steps < self.config.steps:
                numbers = torch.get_rng_state()
                stop()
                self._pass(index)
                self._wait(index)
                torch.set_rng_state(numbers)
                start()

        def start() -> None:
            runner.tokens.append(0)
            self.began = (time.perf_counter(), time.process_time())

        def stop() -> None:
            runner.wall.append(time.perf_counter() - self.began[0])
            runner.processor.append(time.process_time() - self.began[1])

        def took(tokens: int) -> None:
            runner.tokens[-1] += tokens

        self._wait(index)
        try:
            torch.set_num_threads(self.config.threads)  # each thread has its own number
            torch.manual_seed(self.config.seed)
            start()
            model = runner.run(stepped, took)
            stop()
            runner.loss = self.judge(model)
        except BaseException as error:  # noqa: BLE001 - raised again by `go`
            self.broken = self.broken or error
        with self.here:
            self.left.discard(index)
        self._pass(index)

    def _wait(self, index: int) -> None:
        with self.here:
            self.here.wait_for(lambda: self.turn == index or self.broken is not None)

    def _pass(self, index: int) -> None:
        with self.here:
            after = sorted(self.left, key=lambda one: (one <= index, one))
            self.turn = after[0] if after else -1
            self.here.notify_all()


def drawn(count: int, *, frames: int, width: int, seed: int = 0) -> tuple[list[Example], dict[str, np.ndarray]]:
    """Clips of which eight questions are asked; the answer to some is a direction in the frames."""
    chance, random_frames = random.Random(seed), np.random.default_rng(seed)
    examples, features = [], {}
    for number in range(count):
        clip, emotion = f"r{number}@0-1", chance.choice(EMOTIONS)
        length = chance.randint(frames // 2, frames) if frames > 10 else frames
        features[clip] = random_frames.standard_normal((length, width), dtype=np.float32).astype(np.float16)
        features[clip][:, EMOTIONS.index(emotion)] += 3
        for index, question in enumerate(QUESTIONS):
            answer = f"It sounds {emotion}, and the train is late." if index else "The train to the north is late again today."
            kind = "CE" if index else "ASR"
            source = ("asr", "pqa", "pqa_star", "cpqa")[min(3, index)]
            prompt = build(question)
            examples.append(
                Example(
                    arm="S30", pair_id=f"{number}-{index}", clip_id=clip, source=source, kind=kind, prompt=prompt, target=answer
                )
            )
    return examples, features


def of_run(run: Path) -> tuple[list[Example], Features, int]:
    """A finished study's S30."""
    from undertone.tables import open_table
    from undertone.train.job import Frames

    frames = Frames(run / "train/features", max_audio_s=30.0)
    return list(open_table(run / "train/examples/S30", Example).rows()), frames.near(), frames.width


def held_out_loss(model: SpeechLLM, held: Sequence[Example], features: Features, config: TrainConfig) -> float:
    model.eval()
    found = []
    with torch.no_grad():
        for inputs in Feed(model, held, features, config).whole():
            count = len(inputs.pop("origins"))
            found.append((float(model(**inputs).loss), count))
    return sum(loss * count for loss, count in found) / sum(count for _, count in found)


class Questions(torch.utils.data.Dataset[Any]):
    """The plain script's data set: a question, its speech, its answer."""

    def __init__(self, model: SpeechLLM, examples: Sequence[Example], features: Features, *, cut: int = 0) -> None:
        self.model, self.examples, self.features, self.cut = model, examples, features, cut
        self.chance = random.Random(0)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        one = self.examples[index]
        heard = self.features[one.clip_id] if one.prompt.startswith(AUDIO) else None
        heard = None if heard is None else heard[min(self.chance.randint(0, self.cut), len(heard) // 4) :]
        return self.model.item(one.prompt, heard, target=one.target)


def size(item: Any) -> int:
    """Tokens of a question by itself."""
    return len(item.prompt) + len(item.target)


def padded_rows(items: Sequence[Any], pad_id: int) -> dict[str, Any]:
    """One question per row, padded on the right."""
    made = training_batch([[one] for one in items], pad_id=pad_id)
    real = (torch.arange(made.input_ids.shape[1]) < torch.tensor([[size(one)] for one in items])).long()
    return {
        "frames": made.frames, "frame_mask": made.frame_mask, "input_ids": made.input_ids, "labels": made.labels, "attention_mask": real,
    }  # fmt: skip


Taken = Callable[[int], None]
Stepped = Callable[[], None]


class Tells(TrainerCallback):
    """Tells that a step is done."""

    def __init__(self, stepped: Stepped) -> None:
        self.stepped = stepped

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stepped()


def plain_script(
    model: SpeechLLM, examples: Sequence[Example], features: Features, config: TrainConfig, stepped: Stepped, took: Taken
) -> SpeechLLM:
    """What one writes first: Trainer, a data set of questions, a collator that pads."""
    data = Questions(model, examples, features, cut=config.shift_frames)

    def collate(items: Sequence[Any]) -> dict[str, Any]:
        took(sum(map(size, items)))
        return padded_rows(items, model.config.pad_token_id)

    with tempfile.TemporaryDirectory() as place:
        args = TrainingArguments(
            output_dir=place, max_steps=config.steps, per_device_train_batch_size=config.batch_size, max_grad_norm=config.clip_norm,
            logging_steps=config.log_every, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            remove_unused_columns=False, seed=config.seed, label_names=["labels"],
        )  # fmt: skip
        optimizer = adamw(model, config, decoder_lr=1.0)
        pair: Any = (optimizer, Schedule(optimizer, config))
        trainer = Trainer(
            model=model, args=args, train_dataset=data, data_collator=collate, optimizers=pair, callbacks=[Tells(stepped)]
        )
        trainer.log = lambda logs, start_time=None: None  # type: ignore[method-assign]
        trainer.train()
    return model


def bare_loop(
    model: SpeechLLM, examples: Sequence[Example], features: Features, config: TrainConfig, stepped: Stepped, took: Taken
) -> SpeechLLM:
    """The fewest lines that take the same steps."""
    model.train()
    optimizer = adamw(model, config, decoder_lr=1.0)
    rates = Schedule(optimizer, config)
    trained = [one for one in model.parameters() if one.requires_grad]
    packed = config.rows == "packed"
    order = batches(examples, mix={}, group_size=config.group_size, batch_size=config.batch_size, seed=config.seed, mixed=packed)
    chance = random.Random(config.seed)
    for _ in range(config.steps):
        rows = []
        for group in next(order):
            asked = [examples[index] for index in group]
            cut = chance.randint(0, config.shift_frames)
            heard = features[asked[0].clip_id] if asked[0].prompt.startswith(AUDIO) else None
            heard = None if heard is None else heard[min(cut, len(heard) // 4) :]
            rows.append([model.item(one.prompt, heard, target=one.target) for one in asked])
        took(sum(size(one) for row in rows for one in row))
        loss = model.on(training_batch(rows, pad_id=model.config.pad_token_id, packed=packed)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        rates.step()
        loss.item()
        stepped()
    return model


class Counted(Feed):
    """A feed that tells the tokens of its questions."""

    took: Taken = staticmethod(lambda tokens: None)

    def _items(self, row: Any) -> Any:
        items = super()._items(row)
        self.took(sum(map(size, items)))
        return items


def ours(model: SpeechLLM, feed: Feed, config: TrainConfig, callbacks: Sequence[TrainerCallback] = ()) -> SpeechTrainer:
    """The trainer."""
    numbers = torch.get_rng_state()
    with tempfile.TemporaryDirectory() as place:
        trainer = SpeechTrainer(
            model, _arguments(config, Path(place), unused=False), config=config, feed=feed, held_out=None, decoder_lr=1.0,
            told=lambda *_: None, looked=lambda *_: None, callbacks=callbacks,
        )  # fmt: skip
        torch.set_rng_state(numbers)
        trainer.train()
    return trainer


def on_this_machine(given: argparse.Namespace) -> None:
    if given.run:
        examples, features, width = of_run(Path(given.run))
    else:
        width = 96
        examples, features = drawn(80, frames=1_000, width=width)
    config = TrainConfig(steps=given.steps, save_every=0, rows=given.rows, seed=given.seed)
    kept, held = hold_out(examples, 0.1, seed=1)

    def new() -> SpeechLLM:
        return _start(kept, SpeechLLMConfig(), config, width, None, None, ())

    def trainer(stepped: Stepped, took: Taken) -> SpeechLLM:
        model = new()
        feed = Counted(model, kept, features, config)
        feed.took = took
        ours(model, feed, config, [Tells(stepped)])
        return model

    known = {
        "trainer": trainer,
        "bare loop": lambda stepped, took: bare_loop(new(), kept, features, config, stepped, took),
        "plain script": lambda stepped, took: plain_script(new(), kept, features, config, stepped, took),
    }
    runners = [Runner(name, run) for name, run in known.items() if name in (given.only or known)]
    Turns(runners, config, lambda model: held_out_loss(model, held, features, config)).go()
    print(f"{config.steps} steps of about {config.batch_size} questions, rows {config.rows}, seed {config.seed}, one thread")
    for one in runners:
        clock, busy = (sum(one.tokens) / sum(seconds) for seconds in (one.wall, one.processor))
        print(f"{one.name:14} tokens/s: {clock:7,.0f} by the clock, {busy:7,.0f} of processor time; held-out loss {one.loss:.4f}")
    by_name = {one.name: one for one in runners}
    if "trainer" in by_name and "plain script" in by_name:
        compare("trainer over plain script", by_name["trainer"], by_name["plain script"])
    if "trainer" in by_name and "bare loop" in by_name:
        compare("trainer over bare loop", by_name["trainer"], by_name["bare loop"])


def compare(title: str, one: Runner, other: Runner) -> None:
    """Tokens per second of one over those of another, of all and of the turns between the first and the last, where nothing begins or ends."""
    said = []
    for name in ("wall", "processor"):
        mine, theirs = getattr(one, name), getattr(other, name)
        whole = sum(one.tokens) / sum(mine) / (sum(other.tokens) / sum(theirs))
        inner = [(a / x) / (b / y) for a, x, b, y in list(zip(one.tokens, mine, other.tokens, theirs, strict=True))[1:-1]]
        said.append(f"{whole:.3f} {name}" + (f" (median of inner turns {statistics.median(inner):.3f})" if inner else ""))
    print(f"{title}: {', '.join(said)}")


GEMMA2_9B = {
    "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "max_position_embeddings": 8192,
}  # fmt: skip
QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "max_position_embeddings": 8192,
}  # fmt: skip
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
WHISPER = {
    "model_type": "whisper", "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
    "num_mel_bins": 128, "max_source_positions": 1500, "decoder_layers": 1, "decoder_attention_heads": 20, "decoder_ffn_dim": 1280,
}  # fmt: skip
TINY_WHISPER = {
    "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
}  # fmt: skip
LORA = LoRAConfig(r=16, alpha=32, targets=("all-linear",))


def shape(name: str, *, tiny: bool) -> tuple[SpeechLLMConfig, int, int]:
    """Parts, frames (or inputs) per clip and their width."""
    qwen = name == "qwen2-audio"
    decoder = {**(QWEN_7B if qwen else GEMMA2_9B), **(TINY if tiny else {})}
    whisper = {**WHISPER, **(TINY_WHISPER if tiny else {})}
    if name not in ("frozen", "lora", "inside", "qwen2-audio"):
        raise SystemExit(f"--gpu {name}: expected frozen, lora, inside, qwen2-audio or all")
    inside = name in ("inside", "qwen2-audio")
    parts = SpeechLLMConfig(
        encoder=EncoderConfig(config=whisper),
        adapter=AdapterConfig(stack=2 if qwen else 15),
        decoder=DecoderConfig(config=decoder, dtype="bfloat16"),
        frozen=("encoder", "decoder"),
        lora=None if name == "frozen" else LORA,
        encoder_lora=LoRAConfig(r=8, targets=("q_proj", "v_proj")) if inside else None,
    )
    return (parts, 3_000, whisper["num_mel_bins"]) if inside else (parts, 1_500, whisper["d_model"])


class Clock(TrainerCallback):
    """Seconds of each step, the queue of kernels empty at both ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = self._now()
        if self._began:
            self.seconds.append(now - self._began)
        self._began = now


class Fixed(dict[str, np.ndarray]):
    """Frames of all clips alike: their content costs nothing."""

    def __init__(self, frames: np.ndarray) -> None:
        super().__init__()
        self._frames = frames

    def __getitem__(self, clip_id: str) -> np.ndarray:
        return self._frames


def on_a_gpu(given: argparse.Namespace) -> None:
    names = ("frozen", "lora", "inside", "qwen2-audio") if given.gpu == "all" else (given.gpu,)
    for name in names:
        print(json.dumps(measure(name, given)), flush=True)
        gc.collect()
        torch.cuda.empty_cache()


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One shape: seconds per step, memory, share of the peak."""
    from torch.utils.flop_counter import FlopCounterMode

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    parts, frames, width = shape(name, tiny=given.tiny)
    examples, _ = drawn(64, frames=2, width=8)
    features = Fixed(np.random.default_rng(0).standard_normal((frames, width), dtype=np.float32).astype(np.float16))
    config = TrainConfig(
        steps=given.steps, batch_size=given.batch, save_every=0, lr=1e-4, log_every=given.steps, shift_frames=0, threads=4,
        precision="bfloat16", checkpointing=given.checkpointing,
    )  # fmt: skip
    tokenizer = train_tokenizer((text for one in examples for text in (one.prompt, one.target)), vocab_size=300)
    with deterministic(config), device:
        model = SpeechLLM(parts, tokenizer, frame_dim=width)
    if not given.deterministic:
        torch.use_deterministic_algorithms(False)
    if model.encoder is not None:
        for one in model.encoder.parameters():
            if not one.requires_grad:
                one.data = one.data.to(torch.bfloat16)
    feed = Feed(model, examples, features, config, ahead=4 if cuda else 0)
    inputs = next(iter(feed))
    moved = {key: one.to(device) if isinstance(one, torch.Tensor) else one for key, one in inputs.items() if key != "origins"}
    model.train()
    with FlopCounterMode(display=False) as counter, torch.autocast(device.type, torch.bfloat16):
        model(**moved).loss.backward()
    model.zero_grad(set_to_none=True)
    flops = counter.get_total_flops()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    ours(model, feed, config, [clock])
    seconds = statistics.median(clock.seconds[2:] or clock.seconds)
    machine = torch.cuda.get_device_name() if cuda else "cpu"
    peak = given.peak or next((value for key, value in PEAK_TFLOPS.items() if key in machine), None)
    done = flops / seconds / 1e12
    return {
        "shape": name,
        "device": machine,
        "questions per step": len(inputs["origins"]),
        "tokens per step, padding too": inputs["input_ids"].numel(),
        "parameters": sum(one.numel() for one in model.parameters()),
        "trained": sum(one.numel() for one in model.parameters() if one.requires_grad),
        "seconds per step": round(seconds, 4),
        "GiB": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
        "TFLOP per step": round(flops / 1e12, 3),
        "TFLOP/s": round(done, 3),
        "share of peak": round(done / peak, 3) if peak else None,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rows", choices=("packed", "bucketed"), default="packed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=("trainer", "bare loop", "plain script"))
    parser.add_argument("--gpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peak", type=float)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--deterministic", action="store_true", help="deterministic kernels, as train() asks for")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    asked = arguments()
    on_a_gpu(asked) if asked.gpu else on_this_machine(asked)
