"""What a study's training job makes of its tables: with targets where the training reads them, and only of clips that were encoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.test_objective import DIM, HEADED, REPLIES, Toy, config
from undertone.errors import ModelError
from undertone.execute import write_rows
from undertone.generate.grammar import GrammarGenerator
from undertone.model.checkpoint import read_weights
from undertone.model.config import LoRAConfig, NuanceConfig, SpeechLLMConfig
from undertone.model.encode import Encoded
from undertone.model.examples import build_examples
from undertone.records import Clip, Example, QAPair, Record, Segment, Turn
from undertone.tables import Fingerprint, open_table
from undertone.train.card import CARD_FILE
from undertone.train.job import Frames, TrainJob, Way, train_one, training_examples
from undertone.train.pretrain import pretrain
from undertone.train.trainer import LOSSES_FILE, train

ENCODER = "toy@1"


def table(folder: Path, rows: Sequence[Any], record: type[Record]) -> Path:
    made = Fingerprint(stage="toy", version="1", seed=1, config={}, inputs={})
    write_rows(folder, rows, record=record, fingerprint=made)
    return folder


def job_of(folder: Path, toy: Toy, model: SpeechLLMConfig, *, pairs: Sequence[QAPair] | None = None) -> TrainJob:
    segments = [one for found in toy.predicted.values() for one in found]
    encoded = [Encoded(clip_id=one, frames=len(made), width=DIM, encoder=ENCODER) for one, made in toy.frames.items()]
    way = Way(model=model, train=config(), features=table(folder / "features", encoded, Encoded))
    return TrainJob(
        pairs=(table(folder / "pairs", pairs or toy.pairs, QAPair),),
        clips=(table(folder / "clips", list(toy.clips.values()), Clip),),
        label=table(folder / "label", segments, Segment),
        out=folder / "train",
        starts=folder / "train",
        systems=(REPLIES,),
        ways={REPLIES.name: way},
        seed=1,
    )


@pytest.mark.parametrize("headed", [True, False])
def test_a_job_gives_a_system_the_targets_that_its_training_reads_and_no_others(tmp_path: Path, headed: bool) -> None:
    toy = Toy()
    model = HEADED if headed else HEADED.model_copy(update={"aux": None})
    made = training_examples(job_of(tmp_path, toy, model), REPLIES, frozenset(toy.clips))
    by_id = {one.id: one for one in toy.examples()}
    assert len(made) == len(by_id)
    assert any(one.teacher for one in by_id.values())
    for one in made:
        told = (one.category, one.dimensions, one.teacher)
        expected = by_id[one.id]
        assert told == ((expected.category, expected.dimensions, expected.teacher) if headed else (None, None, None))


def test_a_trained_system_lessens_all_parts(tmp_path: Path) -> None:
    toy = Toy()
    job = job_of(tmp_path, toy, HEADED)
    cache = Frames.of(job.ways[REPLIES.name]).cache
    for name, one in toy.frames.items():
        cache.put(name, one)
    train_one(job, REPLIES.name)
    lines = [json.loads(line) for line in (job.out / "replies" / LOSSES_FILE).read_text(encoding="utf-8").splitlines()]
    assert {name for line in lines for name in line["by_part"]} == {"reply", "category", "dimensions"}
    rows = list(open_table(job.out / "examples" / "replies", Example).rows())
    assert sum(one.category is not None for one in rows) == sum(one.category is not None for one in toy.examples())


def test_a_dialogue_of_which_a_turn_was_not_encoded_is_left_out(tmp_path: Path) -> None:
    toy = Toy(4)
    first, second = list(toy.clips)[:2]
    history = (Turn(question="Reply.", answer="I see.", clip_id=first),)
    spoken = next(one for one in toy.pairs if one.clip_id == second).model_copy(update={"history": history})
    job = job_of(tmp_path, toy, HEADED, pairs=[spoken])
    assert [one.earlier for one in training_examples(job, REPLIES, frozenset(toy.clips))] == [(first,)]
    assert not training_examples(job, REPLIES, frozenset(toy.clips) - {first})


def test_the_card_names_the_emotion_encoder_and_the_heads(tmp_path: Path) -> None:
    toy = Toy()
    model = HEADED.model_copy(update={"nuance": NuanceConfig()})
    train(toy.examples(), toy.frames, config(steps=1), tmp_path, model=model, frame_dim=DIM, system=REPLIES)
    card = (tmp_path / CARD_FILE).read_text(encoding="utf-8")
    assert "- emotion encoder: affect-small, frozen" in card
    assert "- heads: sad, happy, angry, arousal, valence, dominance" in card


def test_a_clip_without_a_frame_has_no_target_of_the_heads(tmp_path: Path) -> None:
    toy = Toy(8)
    toy.frames[next(iter(toy.clips))] = np.zeros((0, DIM))
    train(toy.examples(), toy.frames, config(steps=3), tmp_path, model=HEADED, frame_dim=DIM, system=REPLIES)
    assert len((tmp_path / LOSSES_FILE).read_text(encoding="utf-8").splitlines()) == 1


def test_a_system_that_reads_cannot_learn_by_updates_of_speech_positions(tmp_path: Path) -> None:
    toy, reads = Toy(), REPLIES.model_copy(update={"hears": "words"})
    made = build_examples(toy.pairs, toy.clips, toy.predicted, reads, phase="train")
    lora = LoRAConfig(r=2, targets=("q_proj",), where="speech")
    model = HEADED.model_copy(update={"aux": None, "frozen": ("encoder", "decoder"), "lora": lora})
    with pytest.raises(ModelError, match="LoRA at speech positions, is of no use"):
        train(made, {}, config(), tmp_path / "speech", model=model, frame_dim=DIM, system=reads)
    everywhere = model.model_copy(update={"lora": lora.model_copy(update={"where": "all"})})
    train(made, {}, config(steps=1), tmp_path / "all", model=everywhere, frame_dim=DIM, system=reads)


def test_what_learns_to_read_has_no_heads(tmp_path: Path) -> None:
    """A system's heads change nothing of the decoder that all systems start from."""
    toy, asr = Toy(3), GrammarGenerator(strategy="asr")
    found = []
    for name, model in (("headed", HEADED), ("plain", HEADED.model_copy(update={"aux": None}))):
        settings = config(reading={"clips": 4, "steps": 2})
        clips = [one.model_copy(update={"split": "train"}) for one in toy.clips.values()]
        pretrain(clips, lambda clip: asr.write(clip, seed=1), settings, tmp_path / name, model=model, frame_dim=DIM)
        found.append(read_weights(tmp_path / name))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
