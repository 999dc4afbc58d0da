"""The trainer against its promises: a bare loop's weights, kill and resume, two processes as one, stages, held-out loss, errors."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from tests.unit.test_train import DIM, MODEL, SYSTEM, Toy
from undertone.errors import ConfigError, DataError, DependencyError, ModelError, ResumeMismatch
from undertone.execute import write_rows
from undertone.model.collate import training_batch
from undertone.model.config import LoRAConfig, QFormerAdapterConfig, SpeechLLMConfig
from undertone.model.encode import Encoded
from undertone.model.features import FeatureCache
from undertone.model.speech_llm import SpeechLLM
from undertone.records import Clip, QAPair, Segment
from undertone.tables import Fingerprint
from undertone.train.augment import augmented, check_augment
from undertone.train.card import CARD_FILE, Facts, corpora_of, with_scores
from undertone.train.config import AugmentConfig, StageConfig, TrainConfig
from undertone.train.feed import Feed, ready
from undertone.train.job import Begin, TrainJob, Way, train_one, train_reading
from undertone.train.launched import command, shipped
from undertone.train.mixing import batches, hold_out, staged, tempered
from undertone.train.optim import parameter_groups, schedule
from undertone.train.speech_trainer import SpeechTrainer
from undertone.train.trainer import HELD_OUT_FILE, LAST, LOSSES_FILE, _arguments, _start, deterministic, train

ROOT = Path(__file__).parents[2]
DROPPING = MODEL.model_copy(update={"adapter": MODEL.adapter.model_copy(update={"dropout": 0.2})})


def config(**changes: Any) -> TrainConfig:
    base = {"steps": 6, "batch_size": 8, "log_every": 4, "vocab_size": 300, "lr": 1e-2, "shift_frames": 3}
    return TrainConfig.model_validate({**base, **changes})


def fit(toy: Toy, out: Path, settings: TrainConfig, name: str = "S30", **more: Any) -> Path:
    more.setdefault("model", DROPPING)
    return train(toy.examples(name), toy.frames, settings, out, frame_dim=DIM, system=SYSTEM[name], **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return SpeechLLM.load(folder).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lines(folder: Path, name: str = LOSSES_FILE) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def bare_loop(toy: Toy, settings: TrainConfig) -> dict[str, torch.Tensor]:
    """The few lines of torch that the trainer must be equal to."""
    examples = toy.examples("S30")
    with deterministic(settings):
        model = _start(examples, DROPPING, settings, DIM, None, None, ()).train()
        parts = ((model.adapter, 1.0), (model.decoder, 1.0))
        groups = [one for part, share in parts for one in parameter_groups(part, weight_decay=settings.weight_decay, share=share)]
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98))
        order = batches(examples, mix={}, group_size=settings.group_size, batch_size=settings.batch_size, seed=settings.seed)
        chance = random.Random(settings.seed)
        for step in range(1, settings.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * schedule(step / settings.steps, settings.warmup) * group["share"]
            rows = []
            for group in next(order):
                frames = toy.frames[examples[group[0]].clip_id]
                frames = frames[min(chance.randint(0, settings.shift_frames), len(frames) // 4) :]
                rows.append([model.item(examples[index].prompt, frames, target=examples[index].target) for index in group])
            optimizer.zero_grad(set_to_none=True)
            model.on(training_batch(rows, pad_id=model.tokenizer.pad_id)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
    return model.state_dict()


def test_weights_are_those_of_a_bare_loop(tmp_path: Path) -> None:
    """Bit for bit, dropout and cuts too: studies that were trained before there was this trainer can be trained again."""
    toy, settings = Toy(12), config(steps=9)
    assert same(weights(fit(toy, tmp_path, settings)), bare_loop(toy, settings))


class Stopped(Exception):
    pass


def test_a_stopped_training_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Between two lines of losses and two states, with half a line's losses in the state."""

    def stop(line: Any) -> None:
        if line.step == 16:
            raise Stopped

    with pytest.raises(Stopped):
        fit(Toy(12), tmp_path / "stopped", KILLED, progress=stop)
    fit(Toy(12), tmp_path / "stopped", KILLED)
    fit(Toy(12), tmp_path / "alone", KILLED)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "alone")


def test_a_training_that_had_ended_is_only_written_again(tmp_path: Path) -> None:
    def stop(line: Any) -> None:
        if line.step == 8:
            raise Stopped

    settings = config(steps=8, save_every=8, log_every=3)
    with pytest.raises(Stopped):
        fit(Toy(12), tmp_path / "x", settings, progress=stop)
    fit(Toy(12), tmp_path / "ended", settings)
    states = tmp_path / "ended" / "_steps"
    assert not states.exists()
    fit(Toy(12), tmp_path / "x", settings)
    assert contents(tmp_path / "x") == contents(tmp_path / "ended")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """kill -9 between two lines of losses and two states: weights, losses and all other files are those of a run that was left alone."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.contract.test_trainer import *\n"
        "import undertone.train.speech_trainer as ours\n"
        "class Killer(ours._LastLine):\n"
        "    def on_step_begin(self, args, state, control, **kwargs):\n"
        "        if state.global_step == 13:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "ours._LastLine = Killer\n"
        "fit(Toy(12), Path(sys.argv[1]), KILLED)\n"
    )
    killed = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, str(script), str(killed)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert sorted(one.name for one in (killed / "_steps").glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-6"]
    (killed / "_steps" / "checkpoint-12" / "_complete.json").unlink()  # as if it had been killed while it wrote this one
    fit(Toy(12), killed, KILLED)
    fit(Toy(12), tmp_path / "alone", KILLED)
    files = contents(tmp_path / "alone")
    assert contents(killed) == files
    assert {"model.safetensors", LOSSES_FILE, HELD_OUT_FILE, CARD_FILE} <= set(files)
    assert [one["step"] for one in lines(killed)] == [4, 8, 12, 16, 20]


KILLED = config(steps=20, held_out=0.2, eval_every=6, accumulate=2, batch_size=4)


def test_a_training_whose_folder_was_moved_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """The best state is looked for beside the last one, and not where it was once."""

    def stop(line: Any) -> None:
        if line.step == 16:
            raise Stopped

    # What it learns last makes it worse at the rest, so that an early state is the best.
    settings = config(**{**KILLED.model_dump(), "lr": 0.1, "stages": [{"steps": 12}, {"steps": 8, "sources": ["asr"]}]})
    with pytest.raises(Stopped):
        fit(Toy(12), tmp_path / "stopped", settings, progress=stop)
    (tmp_path / "stopped").rename(tmp_path / "moved")
    fit(Toy(12), tmp_path / "moved", settings)
    fit(Toy(12), tmp_path / "alone", settings)
    looks = [one["loss"] for one in lines(tmp_path / "alone", HELD_OUT_FILE)]
    assert looks.index(min(looks)) == 1
    assert contents(tmp_path / "moved") == contents(tmp_path / "alone")
    # The same behind the last step, where nothing is evaluated any more: what is left is to read the best weights and to write.
    (tmp_path / "ended" / CARD_FILE).mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        fit(Toy(12), tmp_path / "ended", settings)
    (tmp_path / "ended").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / CARD_FILE).rmdir()
    fit(Toy(12), tmp_path / "elsewhere", settings)
    assert contents(tmp_path / "elsewhere") == contents(tmp_path / "alone")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_in_half_precision_are_not_trained_in_full(tmp_path: Path, precision: str) -> None:
    half = MODEL.model_copy(update={"decoder": MODEL.decoder.model_copy(update={"dtype": "bfloat16"})})
    with pytest.raises(
        ConfigError,
        match=r"the decoder is trained in full, but its weights are stored in bfloat16.*set model\.decoder\.dtype=float32, or name decoder in "
        r"model\.frozen.*model\.lora",
    ):
        fit(Toy(6), tmp_path / "half", config(precision=precision), model=half)
    assert not (tmp_path / "half/model.safetensors").exists()
    for update in (
        {"frozen": ("encoder", "decoder")},
        {"lora": LoRAConfig(r=2, targets=("q_proj",)), "frozen": ("encoder", "decoder")},
    ):
        fit(Toy(6), tmp_path / next(iter(update)), config(steps=1, precision=precision), model=half.model_copy(update=update))


def test_states_of_another_training_are_refused(tmp_path: Path) -> None:
    toy = Toy(6)
    (tmp_path / "_steps/checkpoint-2").mkdir(parents=True)
    (tmp_path / "_steps/checkpoint-2/_complete.json").write_text("{}")
    (tmp_path / "_steps/plan.json").write_text("of another")
    with pytest.raises(
        ResumeMismatch, match=r"_steps holds the states of another training \(digest of another, now [0-9a-f]+\).*rm -r"
    ):
        fit(toy, tmp_path, config())


def test_states_from_another_start_are_refused(tmp_path: Path) -> None:
    def stop(line: Any) -> None:
        if line.step == 5:
            raise Stopped

    toy, settings = Toy(6), config(save_every=2, log_every=1)
    start = fit(toy, tmp_path / "start", config(steps=1))
    with pytest.raises(Stopped):
        fit(toy, tmp_path / "out", settings, start=start, progress=stop)
    fit(toy, start, config(steps=2))  # the same kind of model with other weights
    with pytest.raises(ResumeMismatch, match=r"holds the states of another training .*start"):
        fit(toy, tmp_path / "out", settings, start=start)


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(tmp_path: Path) -> None:
    settings = config(steps=5, accumulate=1, group_size=3)
    alone = fit(Toy(12), tmp_path / "alone", settings.model_copy(update={"accumulate": 2}), model=MODEL)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.contract.test_trainer import *\n"
        f"fit(Toy(12), Path(sys.argv[1]), TrainConfig.model_validate_json('''{settings.model_dump_json()}'''), model=MODEL)\n"
    )
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        str(tmp_path / "two"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for one, other in zip(lines(alone), lines(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["by_source"] == pytest.approx(other["by_source"], rel=1e-4)
    ours, theirs = weights(alone), weights(tmp_path / "two")
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in ours)


def test_half_the_batch_twice_is_the_same_step(tmp_path: Path) -> None:
    """Each question weighs the same, whichever batch it is in and however many that batch holds."""
    toy = Toy(12)
    model = _start(toy.examples("S30"), MODEL, config(), DIM, None, None, ())
    feed = Feed(model, toy.examples("S30"), toy.frames, config(group_size=3, shift_frames=0))
    rows = next(feed.plan())
    whole = fit_once(model, feed, [rows], tmp_path)
    halves = fit_once(model, feed, [rows[:1], rows[1:]], tmp_path)
    assert len(feed.batch(rows[:1])["origins"]) != len(feed.batch(rows[1:])["origins"])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(whole, halves, strict=True))


def fit_once(model: SpeechLLM, feed: Feed, parts: list[Any], place: Path) -> list[torch.Tensor]:
    """Gradients after the batches of one step, by the trainer's own loss."""
    settings = config(accumulate=len(parts), save_every=0)
    made = [feed.batch(rows) for rows in parts]
    trainer = SpeechTrainer(
        model,
        _arguments(settings, place, unused=False),
        config=settings,
        feed=feed,
        held_out=None,
        decoder_lr=1.0,
        told=lambda *_: None,
        looked=lambda *_: None,
    )
    trainer.create_optimizer()
    trainer.create_scheduler(6)
    model.zero_grad()
    count = trainer._get_num_items_in_batch(made, torch.device("cpu"))
    for one in made:
        trainer.training_step(model, one, count)
    return [one.grad.clone() for one in model.parameters() if one.grad is not None]


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"checkpointing": True}, {"accumulate": 2}])
def test_it_learns_in_each_mode(tmp_path: Path, changes: dict[str, Any]) -> None:
    fit(Toy(12), tmp_path, config(steps=40, log_every=10, **changes), model=MODEL)
    found = [line["loss"] for line in lines(tmp_path)]
    assert found[-1] < 0.5 * found[0]
    assert {one.dtype for one in weights(tmp_path).values()} == {torch.float32}


def test_checkpointing_changes_nothing(tmp_path: Path) -> None:
    toy = Toy(6)
    kept = weights(fit(toy, tmp_path / "kept", config(), model=MODEL))
    again = weights(fit(toy, tmp_path / "again", config(checkpointing=True), model=MODEL))
    assert all(torch.allclose(kept[name], again[name], atol=1e-6) for name in kept)


def test_lora_trains_beside_a_frozen_decoder(tmp_path: Path) -> None:
    tuned = MODEL.model_copy(update={"frozen": ("encoder", "decoder"), "lora": LoRAConfig(r=2, targets=("q_proj", "v_proj"))})
    toy = Toy(6)
    with deterministic(config()):
        before = _start(toy.examples("S30"), tuned, config(), DIM, None, None, ()).state_dict()
    after = weights(fit(toy, tmp_path, config(), model=tuned))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".lora_" in name for name in moved)
    assert all(".lora_" in name or name.startswith("adapter.") for name in moved)


def test_stages_take_their_steps_sources_and_parts(tmp_path: Path) -> None:
    toy = Toy(12)
    stages = (
        {"sources": ("asr",), "steps": 4, "frozen": ("decoder",)},
        {"sources": ("cpqa", "pqa"), "steps": 3, "frozen": ("adapter",)},
    )
    settings = config(steps=7, log_every=1, stages=stages)
    with deterministic(settings):
        start = _start(toy.examples("S30"), MODEL, settings, DIM, None, None, ()).state_dict()
    fit(toy, tmp_path / "half", config(steps=7, log_every=1, stages=stages), model=MODEL)
    assert [set(line["by_source"]) for line in lines(tmp_path / "half")] == [{"asr"}] * 4 + [{"cpqa", "pqa"}] * 3
    only = config(steps=4, log_every=1, stages=({"sources": ("asr",), "share": 1.0, "frozen": ("decoder",)},))
    first = weights(fit(toy, tmp_path / "first", only, model=MODEL))
    both = weights(tmp_path / "half")
    for name in start:
        if name.startswith("decoder."):
            assert torch.equal(start[name], first[name])
    assert any(not torch.equal(start[name], first[name]) for name in start if name.startswith("adapter."))
    assert any(not torch.equal(start[name], both[name]) for name in start if name.startswith("decoder."))


def test_a_curriculum_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"their steps are 5 in all, expected steps=6"):
        config(stages=({"steps": 5},))
    with pytest.raises(ValidationError, match=r"their shares are 0\.9 in all, expected 1"):
        config(stages=({"share": 0.4}, {"share": 0.5}))
    with pytest.raises(ValidationError, match="give a stage either steps or share"):
        StageConfig()
    with pytest.raises(ValidationError, match=r"patience=2 ends training by the loss of what is held out"):
        config(patience=2)
    toy = Toy(6)
    match = (
        r"stage 1 of train\.stages has sources nonsense, but the examples' sources are: asr, cpqa, pqa, pqa_star; give this stage"
    )
    with pytest.raises(DataError, match=match):
        fit(toy, tmp_path, config(stages=({"share": 1.0, "sources": ("nonsense",)},)))
    with pytest.raises(ModelError, match=r"stage 1 freezes adapter, decoder; of this model only adapter, decoder is trained"):
        fit(toy, tmp_path, config(stages=({"share": 1.0, "frozen": ("adapter", "decoder")},)))


@pytest.mark.parametrize(
    ("changes", "frozen", "match"),
    [
        (
            {},
            ("encoder", "decoder"),
            r"model\.frozen leaves nothing to learn: of this model only adapter is trained, and this system hears",
        ),
        (
            {"stages": ({"share": 1.0, "frozen": ("decoder",)},)},
            ("encoder",),
            r"stage 1 freezes decoder; .* hears nothing.*model\.lora",
        ),
    ],
)
def test_a_system_that_hears_nothing_needs_a_decoder_that_learns(
    tmp_path: Path, changes: dict[str, Any], frozen: tuple[Any, ...], match: str
) -> None:
    model = MODEL.model_copy(update={"frozen": frozen})
    with pytest.raises(ModelError, match=match):
        fit(Toy(6), tmp_path / "words", config(**changes), "words only", model=model)
    tuned = MODEL.model_copy(update={"frozen": ("encoder", "decoder"), "lora": LoRAConfig(r=2, targets=("q_proj",))})
    fit(Toy(6), tmp_path / "tuned", config(), "words only", model=tuned)


def test_stages_split_the_steps_and_keep_their_order() -> None:
    examples = Toy(20).examples("S30")
    settings = config(steps=10, stages=({"share": 0.3, "sources": ("asr",)}, {"share": 0.7, "mix": {"asr": 0.0}}))
    made = list(staged(examples, settings, per_step=2))
    assert made == list(staged(examples, settings, per_step=2))
    sources = [{examples[index].source for group in batch for index in group} for batch in made]
    assert len(made) == 20
    assert all(one == {"asr"} for one in sources[:6])
    assert all("asr" not in one for one in sources[6:])


def test_one_curriculum_serves_systems_of_fewer_sources(tmp_path: Path) -> None:
    settings = config(
        log_every=1, stages=({"share": 0.5, "sources": ("asr",)}, {"share": 0.5, "sources": ("pqa", "pqa_star", "cpqa")})
    )
    fit(Toy(12), tmp_path, settings, "S10")
    assert [set(line["by_source"]) for line in lines(tmp_path)] == [{"asr"}] * 3 + [{"pqa"}] * 3


def test_a_temperature_evens_out_the_sources() -> None:
    toy = Toy(40)
    examples = [one for one in toy.examples("S30") if one.source != "cpqa"] + toy.examples("S30")[3:16:4]

    def epoch(temperature: float) -> Counter[str]:
        weight = tempered(examples, {}, temperature)
        counts = Counter(one.source for one in examples)
        made = islice(batches(examples, mix=weight, group_size=4, batch_size=len(examples), seed=1), 1)
        found = Counter(examples[index].source for batch in made for group in batch for index in group)
        assert sum(weight[name] * count for name, count in counts.items()) == pytest.approx(len(examples))
        return found

    assert epoch(1.0)["cpqa"] == 4
    assert 4 < epoch(2.0)["cpqa"] < epoch(1e6)["cpqa"]
    assert max(epoch(1e6).values()) - min(epoch(1e6).values()) <= 1


def test_held_out_recordings_choose_the_weights(tmp_path: Path) -> None:
    toy = Toy(20)
    settings = config(steps=30, held_out=0.25, eval_every=5, lr=0.3, warmup=0.0)  # a rate at which it gets worse again
    fit(toy, tmp_path, settings, model=MODEL)
    looks = lines(tmp_path, HELD_OUT_FILE)
    assert [one["step"] for one in looks] == [5, 10, 15, 20, 25, 30]
    best = min(looks, key=lambda one: one["loss"])
    _, held = hold_out(toy.examples("S30"), 0.25, seed=settings.seed)
    assert len({one.clip_id for one in held}) == 5
    for folder, expected in ((tmp_path, best), (tmp_path / LAST, looks[-1])):
        model = SpeechLLM.load(folder)
        found = []
        for inputs in Feed(model, held, toy.frames, settings).whole():
            inputs.pop("origins")
            with torch.no_grad():
                output = model(**inputs)
            found.append((float(output.loss), int(inputs["item_ids"].max()) + 1))
        assert sum(loss * count for loss, count in found) / sum(count for _, count in found) == pytest.approx(
            expected["loss"], rel=1e-4
        )


def test_training_ends_when_the_held_out_loss_does_not_fall(tmp_path: Path) -> None:
    settings = config(steps=60, held_out=0.25, eval_every=2, patience=2, lr=0.5, warmup=0.0, log_every=40)
    fit(Toy(12), tmp_path, settings, model=MODEL)
    looks = [one["loss"] for one in lines(tmp_path, HELD_OUT_FILE)]
    assert len(looks) < 30
    assert min(looks[-2:]) >= min(looks[:-2])
    last = 2 * len(looks)
    assert lines(tmp_path)[-1]["step"] == last
    assert f"- steps: {last} of 60, 8 questions each" in (tmp_path / CARD_FILE).read_text()


def test_hold_out_is_by_recording_and_not_by_order() -> None:
    examples = Toy(40).examples("S30")
    kept, held = hold_out(examples, 0.1, seed=1)
    recordings = [{one.clip_id.split("@")[0] for one in side} for side in (kept, held)]
    assert not recordings[0] & recordings[1]
    assert len(recordings[1]) == 4
    assert {one.id for one in hold_out(examples[::-1], 0.1, seed=1)[1]} == {one.id for one in held}
    assert {one.id for one in hold_out(examples, 0.1, seed=2)[1]} != {one.id for one in held}
    with pytest.raises(DataError, match=r"train\.held_out=0\.5 leaves nothing to train on: the examples are of 1 recordings"):
        hold_out([one for one in examples if one.clip_id == examples[0].clip_id], 0.5, seed=1)


def test_masks_hide_frames_and_are_the_seeds() -> None:
    heard = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float16)
    settings = AugmentConfig(time_masks=2, time_frames=10, feature_masks=1, feature_width=3)
    made = augmented(heard, settings, "1:2:3")
    assert np.array_equal(made, augmented(heard, settings, "1:2:3"))
    drawn = [augmented(heard, settings, f"1:2:{number}") for number in range(50)]
    assert len({one.tobytes() for one in drawn}) > 40
    for one in drawn:
        assert one.shape == heard.shape
        rows = (one != heard).all(-1).sum()
        assert rows <= 20
        assert np.isclose(
            one[one != heard], np.broadcast_to(heard.mean(0, dtype=np.float32), heard.shape)[one != heard], atol=1e-3
        ).all()
    layered = np.random.default_rng(0).normal(size=(80, 3, 6)).astype(np.float16)
    assert augmented(layered, settings, "1").shape == layered.shape


def test_noise_and_speed_are_of_samples_only() -> None:
    wave = np.sin(np.arange(16_000) / 20).astype(np.float32)[:, None]
    noisy = augmented(wave, AugmentConfig(noise_db=(10, 10)), "1")
    ratio = 10 * np.log10(np.square(wave).mean() / np.square(noisy - wave).mean())
    assert ratio == pytest.approx(10, abs=0.3)
    assert len(augmented(wave, AugmentConfig(speed=(1.25, 1.25)), "1")) == pytest.approx(12_800, abs=2)
    with pytest.raises(
        ConfigError, match=r"train\.augment: .* change samples, but this model is given frames that were encoded before"
    ):
        check_augment(AugmentConfig(speed=(0.9, 1.1)), MODEL, width=1)
    inside = MODEL.model_copy(update={"frozen": ()})  # a band of the one feature that a sample has would be the whole clip
    with pytest.raises(ConfigError, match=r"train\.augment: time_masks=0 and feature_masks=1 are of frames, but .* given samples"):
        check_augment(AugmentConfig(feature_masks=1), inside, width=1)
    check_augment(AugmentConfig(feature_masks=1), inside, width=80)
    check_augment(AugmentConfig(speed=(0.9, 1.1)), inside, width=1)


def test_masked_training_differs_from_unmasked_and_repeats(tmp_path: Path) -> None:
    toy, masked = Toy(6), config(augment={"time_masks": 1, "time_frames": 4})
    runs = {name: weights(fit(toy, tmp_path / name, one)) for name, one in (("a", masked), ("b", masked), ("c", config()))}
    assert same(runs["a"], runs["b"])
    assert not same(runs["a"], runs["c"])


def test_bad_rows_are_named(tmp_path: Path) -> None:
    def broken(change: Any) -> Toy:
        toy = Toy(6)
        change(toy)
        return toy

    victim = Toy(6).pairs[5]

    def not_finite(toy: Toy) -> None:
        toy.frames[victim.clip_id] = toy.frames[victim.clip_id] * np.nan

    def narrow(toy: Toy) -> None:
        toy.frames[victim.clip_id] = toy.frames[victim.clip_id][:, :3]

    def missing(toy: Toy) -> None:
        del toy.frames[victim.clip_id]

    for change, text in (
        (not_finite, rf"the frames of clip {victim.clip_id} hold numbers that are not finite"),
        (narrow, rf"pair \w+ \(\w+\): the frames of clip {victim.clip_id} are of shape \(\d+, 3\), expected the width 8"),
        (missing, rf"pair \w+ \(\w+\) cannot be heard: .*{victim.clip_id}"),
    ):
        with pytest.raises(DataError, match=text):
            fit(broken(change), tmp_path / change.__name__, config(steps=8))
    toy = Toy(6)
    examples = [one.model_copy(update={"target": " "}) if one.pair_id == victim.id else one for one in toy.examples("S30")]
    with pytest.raises(DataError, match=rf"pair {victim.id} \({victim.source}\) has an empty answer"):
        train(examples, toy.frames, config(steps=8), tmp_path / "e", model=MODEL, frame_dim=DIM)
    examples = [
        one.model_copy(update={"prompt": one.prompt * 400}) if one.pair_id == victim.id else one for one in toy.examples("S30")
    ]
    with pytest.raises(
        DataError, match=rf"pair {victim.id} \({victim.source}\) about clip .* has \d+ tokens, more than the 2048 positions"
    ):
        train(examples, toy.frames, config(steps=8), tmp_path / "l", model=MODEL, frame_dim=DIM)


def test_memory_that_does_not_suffice_names_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        torch.empty(2**58)  # torch's own error, of more memory than there is anywhere

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(
        ModelError,
        match=r"out of memory at step 1 of 6 on cpu, with tokens of shape \(\d+, \d+\) and frames of shape .*train\.batch_size=8",
    ):
        fit(Toy(6), tmp_path, config())


def test_settings_that_this_machine_cannot_do_are_refused(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"train\.precision=float16 needs a GPU"):
            fit(Toy(6), tmp_path, config(precision="float16"))
    with pytest.raises(DependencyError, match=r"train\.trackers names trackio, not installed: pip install trackio"):
        fit(Toy(6), tmp_path, config(trackers=("trackio",)))


def test_tensorboard_gets_the_losses_of_each_source(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(Toy(6), tmp_path / "out", config(), logs=tmp_path / "logs")
    found = accumulator.EventAccumulator(str(tmp_path / "logs"))
    found.Reload()
    assert {f"train/loss/{name}" for name in ("asr", "pqa", "pqa_star", "cpqa")} <= set(found.Tags()["scalars"])
    written = [one["loss"] for one in lines(tmp_path / "out")]
    assert [one.value for one in found.Scalars("train/loss")] == pytest.approx(written, rel=1e-5)


def test_every_shipped_launch_file_is_one_of_accelerates() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    files = shipped()
    assert set(files) == {"cpu", "ddp", "deepspeed-zero2", "deepspeed-zero3", "fsdp"}
    for name, file in files.items():
        parsed = load_config_from_file(str(file))
        content = yaml.safe_load(file.read_text())
        assert str(parsed.distributed_type).rpartition(".")[2] == content["distributed_type"]
        assert parsed.use_cpu is (name == "cpu")
    from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

    settings = yaml.safe_load(files["fsdp"].read_text())["fsdp_config"]
    fields = FullyShardedDataParallelPlugin.__dataclass_fields__
    renamed = {
        "auto_wrap_policy",
        "cpu_ram_efficient_loading",
        "reshard_after_forward",
        "state_dict_type",
        "activation_checkpointing",
    }
    assert {key.removeprefix("fsdp_") for key in settings} - {"version", "offload_params"} == renamed <= set(fields)
    for name in ("deepspeed-zero2", "deepspeed-zero3"):
        stage = yaml.safe_load(files[name].read_text())["deepspeed_config"]["zero_stage"]
        assert name.endswith(str(stage))
        assert "zero_stage" in DeepSpeedPlugin.__dataclass_fields__


def test_a_launch_is_a_shipped_name_or_a_file(tmp_path: Path) -> None:
    assert command("ddp", 4, tmp_path / "task.json")[1:5] == [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(shipped()["ddp"]),
    ]
    assert "--nproc-per-node=2" in command("cpu", None, tmp_path / "task.json")
    with pytest.raises(
        ConfigError, match=r"train\.launch='dpp' is no file of accelerate config; expected one, or: cpu, ddp, deepspeed-zero2"
    ):
        command("dpp", None, tmp_path / "task.json")
    fsdp = yaml.safe_load(shipped()["fsdp"].read_text()) | {"use_cpu": True}
    (tmp_path / "sharded.yaml").write_text(yaml.safe_dump(fsdp))
    with pytest.raises(ConfigError, match=r"on a CPU accelerate takes FSDP for plain copies.*expected distributed_type: MULTI_CPU"):
        command(str(tmp_path / "sharded.yaml"), 2, tmp_path / "task.json")
    zero = yaml.safe_load(shipped()["deepspeed-zero2"].read_text()) | {"use_cpu": True}
    (tmp_path / "zero.yaml").write_text(yaml.safe_dump(zero))
    assert "accelerate.commands.launch" in command(str(tmp_path / "zero.yaml"), 2, tmp_path / "task.json")


def test_batches_made_ahead_are_the_same_and_so_are_their_errors() -> None:
    assert list(ready(iter(range(100)), 3)) == list(range(100))

    def failing() -> Any:
        yield 1
        raise DataError("pair x has an empty answer")

    made = ready(failing(), 2)
    assert next(made) == 1
    with pytest.raises(DataError, match="pair x"):
        next(made)
    left = ready(iter(range(10**9)), 2)
    assert next(left) == 0
    left.close()


def test_new_settings_leave_the_fingerprints_of_finished_studies() -> None:
    before = {
        *("steps", "batch_size", "group_size", "lr", "decoder_lr", "warmup", "weight_decay", "clip_norm", "seed", "shift_frames"),
        *("threads", "mix", "vocab_size", "log_every", "reading", "align"),
    }
    assert set(json.loads(TrainConfig().model_dump_json())) == before
    changed = config(save_every=7, trackers=("wandb",), held_out=0.1)
    assert set(json.loads(changed.of_weights().model_dump_json())) == before | {"held_out"}
    assert set(json.loads(changed.plain().model_dump_json())) == before
    assert TrainConfig.model_validate_json(changed.model_dump_json()) == changed


def test_the_card_tells_data_licences_prompts_and_losses(tmp_path: Path) -> None:
    toy = Toy(6)
    clips = [Clip.model_validate({**one.model_dump(), "licence": "CC BY 4.0", "language": "en"}) for one in toy.clips.values()]
    facts = Facts(name="S32", metadata="train_and_inference", corpora=corpora_of(clips, toy.examples("S32")))
    fit(toy, tmp_path, config(), "S32", facts=facts)
    card = (tmp_path / CARD_FILE).read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["language"] == ["en"]
    assert "| toy | 6 | 6 | CC BY 4.0 |" in card
    assert "| cpqa | 6 | 0 |" in card
    assert "Predicted labels in the prompt: train and inference." in card
    assert toy.examples("S32")[0].prompt in card
    assert f"cpqa {lines(tmp_path)[-1]['by_source']['cpqa']:.3f}" in card
    scored = with_scores(card, {"direct": "61.2 [58.0, 64.1]"})
    assert "| direct | 61.2 [58.0, 64.1] |" in scored
    assert "None yet" in card
    assert "None yet" not in scored


def job_of(folder: Path, settings: TrainConfig, *, model: SpeechLLMConfig = MODEL, begin: Begin | None = None) -> TrainJob:
    """A study's tables of the toy, finished."""
    toy = Toy(6)

    def table(name: str, rows: list[Any], record: type[Any]) -> Path:
        made = Fingerprint(stage=name, version="1", seed=1, config={}, inputs={})
        write_rows(folder / name, rows, record=record, fingerprint=made)
        return folder / name

    features = table(
        "features", [Encoded(clip_id=name, frames=len(one), width=DIM, encoder="toy") for name, one in toy.frames.items()], Encoded
    )
    cache = FeatureCache(features, encoder="toy", max_audio_s=MODEL.max_audio_s)
    for name, frames in toy.frames.items():
        cache.put(name, frames)
    return TrainJob(
        pairs=(table("pairs", toy.pairs, QAPair),),
        clips=(table("clips", list(toy.clips.values()), Clip),),
        label=table("label", [one for found in toy.predicted.values() for one in found], Segment),
        out=folder / "train",
        starts=folder / "train",
        systems=tuple(SYSTEM.values()),
        ways={name: Way(model=model, train=settings, features=features, begin=begin) for name in SYSTEM},
        seed=1,
    )


def test_an_adapter_that_cannot_be_aligned_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    queries = MODEL.model_copy(update={"adapter": QFormerAdapterConfig(queries=2, heads=2)})
    job = job_of(tmp_path, config(), model=queries, begin=Begin("reading", "start"))
    with pytest.raises(ModelError, match=r"kind 'qformer' has no embedding per stretch of time.*train\.align\.steps=0"):
        train_reading(job, "reading")
    assert not list(tmp_path.glob(f"train/**/{LOSSES_FILE}"))


def test_a_studys_system_goes_on_from_its_states_and_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(steps=8, save_every=3)
    train_one(job_of(tmp_path / "alone", settings), "S30")
    real = SpeechTrainer.log

    def stop(self: SpeechTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        real(self, logs, start_time)
        if self.state.global_step == 4:
            raise Stopped

    job = job_of(tmp_path / "again", settings)
    monkeypatch.setattr(SpeechTrainer, "log", stop)
    with pytest.raises(Stopped):
        train_one(job, "S30")
    assert [one.name for one in (job.out / "S30/_steps").glob("checkpoint-*")] == ["checkpoint-3"]
    begun: list[int] = []
    plain = Feed._batches
    monkeypatch.setattr(SpeechTrainer, "log", real)
    monkeypatch.setattr(Feed, "_batches", lambda self, begin: begun.append(begin) or plain(self, begin))
    train_one(job, "S30")
    assert begun == [3]
    left = {path.name for path in (job.out / "S30").iterdir()}
    assert not {"_steps", "_draft"} & left
    assert {"README.md", "_done.json", "losses.jsonl", "model.safetensors"} <= left
    for name in ("model.safetensors", "losses.jsonl", "README.md"):
        assert (job.out / "S30" / name).read_bytes() == (tmp_path / "alone/train/S30" / name).read_bytes()
    train_one(
        job_of(tmp_path / "again", settings.model_copy(update={"save_every": 5, "trackers": ()})), "S30"
    )  # what weights do not depend on may change
    assert begun == [3]


@pytest.mark.slow
def test_a_study_trains_on_two_processes(tmp_path: Path) -> None:
    alone, two = (
        job_of(tmp_path / name, config(steps=4, log_every=2, **changes))
        for name, changes in (("alone", {"accumulate": 2}), ("two", {"launch": "cpu"}))
    )
    for job in (alone, two):
        train_one(job, "S30")
    for one, other in zip(lines(alone.out / "S30"), lines(two.out / "S30"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
