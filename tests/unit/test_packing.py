"""Rows into which several clips are packed: the same losses as rows of one clip, and batches as mixed as the data."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.unit.test_train import DIM, MODEL, SYSTEM, Toy
from undertone.model.collate import IGNORE, Batch, training_batch
from undertone.model.speech_llm import SpeechLLM, item_means
from undertone.train.config import TrainConfig
from undertone.train.feed import Feed
from undertone.train.mixing import batches
from undertone.train.trainer import LOSSES_FILE, _start, deterministic, train

SETTINGS = {"steps": 4, "batch_size": 12, "group_size": 3, "log_every": 2, "vocab_size": 300, "shift_frames": 3}


def losses(model: SpeechLLM, batch: Batch) -> torch.Tensor:
    owners = batch.item_ids[:, 1:][batch.labels[:, 1:] != IGNORE]
    return item_means(model.on(batch).nll, owners)


def test_packed_questions_have_the_losses_and_gradients_that_they_have_alone() -> None:
    toy, settings = Toy(9), TrainConfig.model_validate(SETTINGS)
    examples = toy.examples("S30")
    with deterministic(settings):
        model = _start(examples, MODEL, settings, DIM, None, None, ()).eval()
    groups = [[0, 1, 2], [4, 5], [9], [12, 13, 15], [16], [20, 21]]
    rows = [
        [model.item(examples[i].prompt, toy.frames[examples[i].clip_id][: 4 + number], target=examples[i].target) for i in group]
        for number, group in enumerate(groups)
    ]
    found = []
    for packed in (False, True):
        batch = training_batch(rows, pad_id=model.tokenizer.pad_id, packed=packed)
        model.zero_grad()
        each = losses(model, batch)
        each.mean().backward()
        found.append((batch, each, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}))
    (apart, alone, gradients), (together, same, others) = found
    assert (len(apart.input_ids), len(together.input_ids)) == (6, 4)
    assert together.input_ids.shape[1] == apart.input_ids.shape[1]
    torch.testing.assert_close(same, alone)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, msg=name)


def test_rows_without_speech_are_packed_too() -> None:
    toy, settings = Toy(6), TrainConfig.model_validate(SETTINGS)
    examples = toy.examples("words only")
    with deterministic(settings):
        model = _start(examples, MODEL, settings, DIM, None, None, ()).eval()
    rows = [[model.item(one.prompt, None, target=one.target)] for one in examples[:5]]
    each = [losses(model, training_batch(rows, pad_id=model.tokenizer.pad_id, packed=packed)) for packed in (False, True)]
    torch.testing.assert_close(*each)


def test_a_mixed_batch_holds_all_lengths_and_a_bucketed_one_like_lengths() -> None:
    examples = Toy(64).examples("S30")
    examples = [
        one.model_copy(update={"prompt": one.prompt + " Well?" * (40 * (int(one.clip_id.split("-")[1].split("@")[0]) % 2))})
        for one in examples
    ]
    short = {one.prompt for one in examples if " Well?" not in one.prompt}

    def shares(mixed: bool) -> list[float]:
        made = batches(examples, mix={}, group_size=4, batch_size=32, seed=1, mixed=mixed)
        return [sum(examples[group[0]].prompt in short for group in next(made)) / 8 for _ in range(8)]

    assert set(shares(False)) == {0.0, 1.0}
    assert all(0 < one < 1 for one in shares(True))
    first = next(batches(examples, mix={}, group_size=4, batch_size=32, seed=1, mixed=True))
    found = [sum(len(examples[i].prompt) + len(examples[i].target) for i in group) for group in first]
    assert found == sorted(found, reverse=True)  # the longest first, so that packing leaves little room


def test_a_mixed_epoch_uses_each_item_once() -> None:
    examples = Toy(20).examples("S30")
    made = batches(examples, mix={}, group_size=3, batch_size=8, seed=3, mixed=True)
    seen: list[int] = []
    while len(seen) < len(examples):
        seen += [index for group in next(made) for index in group]
    assert sorted(seen) == list(range(len(examples)))


def test_training_packs_and_looks_at_what_is_held_out_unpacked(tmp_path: Path) -> None:
    toy = Toy(12)
    packed = TrainConfig.model_validate({**SETTINGS, "rows": "packed"})
    with deterministic(packed):
        model = _start(toy.examples("S30"), MODEL, packed, DIM, None, None, ())
    feed = Feed(model, toy.examples("S30"), toy.frames, packed)
    made = list(feed)
    assert [len(one["frames"]) for one in made] == [len(one) for one in feed.plan()]
    assert sum(len(one["input_ids"]) for one in made) < sum(len(one["frames"]) for one in made)
    held = next(feed.whole())
    assert len(held["input_ids"]) == len(held["frames"])
    for name, settings in (("packed", packed), ("bucketed", TrainConfig.model_validate(SETTINGS))):
        train(toy.examples("S30"), toy.frames, settings, tmp_path / name, model=MODEL, frame_dim=DIM, system=SYSTEM["S30"])
    one, other = ((tmp_path / name / LOSSES_FILE).read_text() for name in ("packed", "bucketed"))
    assert one != other


def test_bucketed_rows_are_what_finished_studies_were_trained_with() -> None:
    plain = TrainConfig()
    assert plain.rows == "bucketed"
    assert "rows" not in plain.model_dump()
    assert plain.model_copy(update={"rows": "packed"}).model_dump()["rows"] == "packed"
    assert plain.model_copy(update={"rows": "packed"}).plain() == plain
