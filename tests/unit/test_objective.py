"""What a step lessens: every loss and its gradient, missing targets, teachers, stages, and that shares of a step join to the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.autograd import gradcheck

from tests.unit.test_train import DIM, EMOTIONS, MODEL
from undertone.errors import ConfigError, DataError
from undertone.model.collate import IGNORE, training_batch
from undertone.model.config import AuxConfig, LoRAConfig, SpeechLLMConfig
from undertone.model.examples import System, build_examples
from undertone.model.shown import ShownLabels
from undertone.model.speech_llm import Output, SpeechLLM
from undertone.model.tokenizer import SpecialTokens, TextTokenizer, train_tokenizer
from undertone.records import Clip, Example, Label, QAPair, Segment, arrow_schema, from_arrow, to_arrow
from undertone.train.card import CARD_FILE
from undertone.train.config import ObjectiveConfig, TrainConfig
from undertone.train.feed import Feed
from undertone.train.objective import comparable, concordance, counts, kl, losses, squared, targets_of
from undertone.train.speech_trainer import SpeechTrainer
from undertone.train.teacher import check_tokenizer, teacher_of, without_lora
from undertone.train.trainer import HELD_OUT_FILE, LOSSES_FILE, _arguments, _start, train

ROOT = Path(__file__).parents[2]
AUX = AuxConfig(classes=("sad", "happy", "angry"), dimensions=("arousal", "valence", "dominance"))
HEADED = MODEL.model_copy(update={"aux": AUX})
REPLIES = System(name="replies", data=("replies", "asr"))
RE_LLM = ObjectiveConfig().of(HEADED)
NAN = float("nan")


class Toy:
    """Clips of one emotion, with arousal in two windows, valence, half of them with dominance; every fourth says and shows nothing.

    Each has a reply and a transcription.
    """

    def __init__(self, count: int = 12) -> None:
        draw = np.random.default_rng(0)
        self.clips: dict[str, Clip] = {}
        self.frames: dict[str, np.ndarray] = {}
        self.predicted: dict[str, list[Segment]] = {}
        self.pairs: list[QAPair] = []
        for number in range(count):
            emotion, silent = EMOTIONS[number % 3], number % 4 == 3
            spans = [("arousal", 0.2, 0, 1_500), ("arousal", 0.6, 1_500, 2_000), ("valence", number / count, 0, 2_000)]
            spans = [] if silent else spans + [("dominance", 0.4 + 0.01 * number, 0, 2_000)] * (number % 2 == 0)
            labels = [Label(attribute=name, number=value, start_ms=a, end_ms=b, labeller="toy@1") for name, value, a, b in spans]
            if not silent:
                labels.append(Label(attribute="emotion", category=emotion, start_ms=0, end_ms=2_000, labeller="toy@1"))
            segment = Segment(
                recording_id=f"r{number}", start_ms=0, end_ms=2_000, transcript="" if silent else "we left", labels=tuple(labels)
            )
            clip = Clip(recording_id=f"r{number}", uri="", source="toy", start_ms=0, end_ms=2_000, segments=(segment,))
            self.clips[clip.id], self.predicted[f"r{number}"] = clip, [segment]
            self.frames[clip.id] = draw.normal(size=(10 + number % 3, DIM)) * 0.3 + 3 * np.eye(DIM)[number % 3]
            about: dict[str, Any] = {"clip_id": clip.id, "recording_id": clip.recording_id, "generator": "toy@1", "split": "train"}
            said = {"sad": "I am sorry to hear that.", "happy": "How lovely!", "angry": "That must be hard."}[emotion]
            self.pairs += [
                QAPair(**about, source="replies", kind="REPLY", question="Reply.", answer=said),
                QAPair(**about, source="asr", kind="ASR", question="What is said?", answer="We left."),
            ]

    def examples(self, **changes: Any) -> list[Example]:
        system = REPLIES.model_copy(update=changes)
        return build_examples(self.pairs, self.clips, self.predicted, system, phase="train", targets=True)


def config(**changes: Any) -> TrainConfig:
    base = {"steps": 6, "batch_size": 8, "log_every": 3, "vocab_size": 300, "lr": 1e-2, "shift_frames": 3, "group_size": 3}
    return TrainConfig.model_validate({**base, **changes})


def fit(out: Path, settings: TrainConfig, model: SpeechLLMConfig = HEADED, **more: Any) -> Path:
    toy = Toy()
    return train(toy.examples(), toy.frames, settings, out, model=model, frame_dim=DIM, system=REPLIES, **more)


def lines(folder: Path, name: str = LOSSES_FILE) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    return SpeechLLM.load(folder).state_dict()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- each loss -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "scaled"), [(1.0, False), (2.0, False), (2.0, True), (0.7, False)])
def test_kl_is_that_of_the_teacher_from_the_student(temperature: float, scaled: bool) -> None:
    student, teacher = 3 * drawn(5, 7), 3 * drawn(5, 7, seed=1)
    p, q = ((one / temperature).softmax(-1) for one in (teacher, student))
    expected = (p * (p.log() - q.log())).sum(-1) * (temperature**2 if scaled else 1)
    torch.testing.assert_close(kl(student, teacher, temperature=temperature, scaled=scaled), expected)
    assert gradcheck(lambda one: kl(one, teacher, temperature=temperature, scaled=scaled), student.requires_grad_())
    assert kl(teacher, teacher + 4.0, temperature=temperature).abs().max() < 1e-12
    wider = torch.cat([teacher, drawn(5, 3)], dim=-1)  # padding of a vocabulary
    torch.testing.assert_close(kl(student, wider, temperature=temperature), kl(student, teacher, temperature=temperature))


def test_its_gradient_at_temperature_one_is_the_difference_of_the_distributions() -> None:
    student, teacher = drawn(4, 6).requires_grad_(), drawn(4, 6, seed=1)
    kl(student, teacher, temperature=1.0).sum().backward()
    torch.testing.assert_close(student.grad, student.detach().softmax(-1) - teacher.softmax(-1))


def test_squared_errors_leave_out_what_is_not_known() -> None:
    said = drawn(4, 3)
    wanted = torch.tensor([[0.1, 0.2, 0.3], [NAN, 0.5, NAN], [NAN, NAN, NAN], [1.0, NAN, 0.0]], dtype=torch.float64)
    values, there = squared(said, wanted)
    assert there.tolist() == [True, True, False, True]
    expected = [
        ((said[0] - wanted[0]) ** 2).mean(),
        (said[1, 1] - 0.5) ** 2,
        torch.tensor(0.0),
        ((said[3, ::2] - wanted[3, ::2]) ** 2).mean(),
    ]
    torch.testing.assert_close(values, torch.stack([one.double() for one in expected]))
    torch.testing.assert_close(squared(said[:1], wanted[:1])[0].mean(), torch.nn.functional.mse_loss(said[:1], wanted[:1]))
    assert gradcheck(lambda one: squared(one, wanted)[0], said.requires_grad_())


def test_concordance_is_lins() -> None:
    said, wanted = drawn(9, 3), drawn(9, 3, seed=1)
    x, y = said.numpy(), wanted.numpy()
    shared = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    expected = 2 * shared / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
    np.testing.assert_allclose(concordance(said, wanted).numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(concordance(wanted, wanted), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(concordance(-wanted + 2 * wanted.mean(0), wanted), -torch.ones(3, dtype=torch.float64))
    with_gaps = wanted.clone()
    with_gaps[2, 0] = with_gaps[5:, 1] = NAN
    torch.testing.assert_close(
        concordance(said, with_gaps)[0], concordance(said[[0, 1, *range(3, 9)]], wanted[[0, 1, *range(3, 9)]])[0]
    )
    torch.testing.assert_close(concordance(said, with_gaps)[1], concordance(said[:5], wanted[:5])[1])
    assert gradcheck(lambda one: 1 - concordance(one, with_gaps), said.requires_grad_())


@pytest.mark.parametrize(
    "wanted", [[[0.5, 0.1], [0.5, 0.9], [0.5, NAN]], [[0.3, 0.7]], [[NAN, NAN], [NAN, NAN]]], ids=["constant", "one", "none"]
)
def test_a_correlation_with_targets_that_do_not_differ_is_nothing_and_has_no_gradient(wanted: list[list[float]]) -> None:
    target = torch.tensor(wanted, dtype=torch.float64)
    said = drawn(len(wanted), 2).requires_grad_()
    tells = comparable(target)
    assert tells.tolist() == [False, len(wanted) == 3]
    found = concordance(said, target)
    assert (found[~tells] == 0).all()
    found.sum().backward()
    assert torch.isfinite(said.grad).all()  # type: ignore[arg-type]
    assert (said.grad[:, ~tells] == 0).all()  # type: ignore[index]
    assert gradcheck(lambda one: concordance(one, target), said.detach().requires_grad_())


OWNERS = torch.tensor([0, 0, 1, 2, 2, 2])
TARGETS: dict[str, Any] = {
    "clips": torch.tensor([1, 1, -1]),
    "category": torch.tensor([2, IGNORE, 0]),
    "dimensions": torch.tensor([[0.1, NAN, 0.3], [0.6, 0.5, NAN], [0.9, 0.9, 0.9]]),
    "taught": torch.tensor([0, 2]),
}


def said_by(logits: Tensor, category: Tensor, dimensions: Tensor) -> Output:
    nll = torch.nn.functional.cross_entropy(logits, torch.arange(6) % 4, reduction="none")
    return Output(nll.mean(), nll, logits, category, dimensions)


def whole(objective: ObjectiveConfig, *given: Tensor, teacher: Tensor | None) -> Tensor:
    found = losses(objective, said_by(*given), OWNERS, TARGETS, teacher)
    return sum((getattr(objective, name) * one.values.mean() for name, one in found.items() if len(one.items)), torch.zeros(()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "ce"},
        {"untaught": "leave_out", "reply": 0.5},
        {"dimensions_loss": "ccc", "category": 0.3, "dimensions": 2.0},
        {"scaled": True, "temperature": 3.0},
    ],
    ids=["re-llm", "ce", "leave_out", "ccc", "scaled"],
)
def test_the_gradient_of_the_whole_is_that_of_differences(changes: dict[str, Any]) -> None:
    objective = RE_LLM.model_copy(update=changes)
    given = [drawn(6, 4).requires_grad_(), drawn(2, 3, seed=1).requires_grad_(), drawn(2, 3, seed=2).requires_grad_()]
    teacher = drawn(5, 4, seed=3)
    assert gradcheck(lambda *some: whole(objective, *some, teacher=teacher), given)


def test_the_parts_are_means_over_those_questions_that_have_a_target() -> None:
    logits, category, dimensions, teacher = drawn(6, 4), drawn(2, 3, seed=1), drawn(2, 3, seed=2), drawn(5, 4, seed=3)
    output = said_by(logits, category, dimensions)
    found = losses(RE_LLM, output, OWNERS, TARGETS, teacher)
    assert {name: sorted(one.items.tolist()) for name, one in found.items()} == {
        "reply": [0, 1, 2],  # 1 has no teacher's text: by its tokens
        "category": [0],  # 1 has none, 2 hears nothing
        "dimensions": [0, 1],
    }
    each = kl(logits[OWNERS != 1], teacher, temperature=2.0)
    reply = dict(zip(found["reply"].items.tolist(), found["reply"].values.tolist(), strict=True))
    assert reply == pytest.approx({0: float(each[:2].mean()), 1: float(output.nll[2]), 2: float(each[2:].mean())})
    assert float(found["category"].values) == pytest.approx(-float(category[1].log_softmax(-1)[2]))
    target = TARGETS["dimensions"].double()
    expected = [float(((dimensions[1] - row)[~row.isnan()] ** 2).mean()) for row in target[:2]]
    assert found["dimensions"].values.tolist() == pytest.approx(expected)
    assert counts(RE_LLM, TARGETS, 3) == {"reply": 3, "category": 1, "dimensions": 2}
    left = RE_LLM.model_copy(update={"untaught": "leave_out"})
    assert losses(left, output, OWNERS, TARGETS, teacher)["reply"].items.tolist() == [0, 2]
    assert counts(left, TARGETS, 3) == {"reply": 2, "category": 1, "dimensions": 2}


def test_where_nothing_has_a_target_nothing_is_counted_and_nothing_is_no_number() -> None:
    nothing = TARGETS | {
        "category": torch.full((3,), IGNORE),
        "dimensions": torch.full((3, 3), NAN),
        "taught": torch.tensor([], dtype=torch.long),
    }
    output = said_by(drawn(6, 4), torch.full((2, 3), NAN), torch.full((2, 3), NAN))
    for kind in ("mse", "ccc"):
        objective = RE_LLM.model_copy(update={"untaught": "leave_out", "dimensions_loss": kind})
        found = losses(objective, output, OWNERS, nothing, None)
        assert {name: len(one.values) for name, one in found.items()} == {"reply": 0, "category": 0, "dimensions": 0}
        assert counts(objective, nothing, 3) == {"reply": 0, "category": 0, "dimensions": 0}


def test_one_target_alone_has_no_concordance() -> None:
    alone = TARGETS | {"dimensions": torch.tensor([[0.1, 0.2, 0.3], [NAN] * 3, [NAN] * 3])}
    objective = RE_LLM.model_copy(update={"dimensions_loss": "ccc"})
    output = said_by(drawn(6, 4), drawn(2, 3), drawn(2, 3))
    assert len(losses(objective, output, OWNERS, alone, drawn(5, 4))["dimensions"].values) == 0
    assert counts(objective, alone, 3)["dimensions"] == 0
    assert counts(RE_LLM, alone, 3)["dimensions"] == 1


def test_what_an_objective_means_for_a_model() -> None:
    assert ObjectiveConfig().of(MODEL).plain
    assert (RE_LLM.loss, RE_LLM.temperature, RE_LLM.reply, RE_LLM.category, RE_LLM.dimensions) == ("kl", 2.0, 1.0, 1.0, 1.0)
    only_category = MODEL.model_copy(update={"aux": AuxConfig(dimensions=())})
    assert ObjectiveConfig(loss="ce").of(only_category).said == "reply by ce + category by ce"
    assert RE_LLM.said.startswith(
        "reply by kl at temperature 2 (teacher: the decoder before training, told the emotion) + category by ce"
    )
    assert not ObjectiveConfig(loss="ce", reply=0.5).of(MODEL).plain
    with pytest.raises(ValidationError, match=r"all weights are 0, so that nothing would be learnt"):
        ObjectiveConfig(reply=0, category=0, dimensions=0)
    with pytest.raises(ConfigError, match=r"weighs only heads that this model does not have \(reply=0\); give model\.aux"):
        ObjectiveConfig(reply=0).of(MODEL)
    assert "objective" not in TrainConfig().model_dump()  # fingerprints of finished studies hold
    assert not TrainConfig().learns_targets(MODEL)
    assert TrainConfig().learns_targets(HEADED)
    assert config(stages=({"share": 0.5, "objective": {"loss": "kl"}}, {"share": 0.5})).learns_targets(MODEL)


# ---- targets -----------------------------------------------------------------------------------------------------------------------


def test_targets_are_the_prevailing_emotion_and_means_over_time_and_the_teacher_is_told() -> None:
    made = Toy(4).examples()
    reply, asr, silent = made[2], made[3], made[6]
    assert reply.category == "happy"
    assert reply.dimensions == pytest.approx({"valence": 0.25, "arousal": (0.2 * 1500 + 0.6 * 500) / 2000})
    assert reply.prompt == "<audio>\nReply.\nAnswer:"
    assert reply.teacher == {
        "nothing": "Transcript: we left\nReply.\nAnswer:",
        "emotion": "Transcript: (happy) we left\nReply.\nAnswer:",
    }
    assert (asr.category, asr.dimensions, asr.teacher) == (reply.category, reply.dimensions, None)
    assert (silent.category, silent.dimensions, silent.teacher) == (None, None, None)
    toy = Toy(4)
    bare = build_examples(toy.pairs, toy.clips, toy.predicted, REPLIES, phase="train")
    assert all((one.category, one.dimensions, one.teacher) == (None, None, None) for one in bare)
    assert bare[2].content == (bare[2].id, bare[2].prompt, bare[2].target)
    assert set(bare[2].content) < set(reply.content)


def test_two_emotions_that_share_a_clip_are_no_target() -> None:
    toy = Toy(1)
    (segment,) = toy.predicted["r0"]
    half = [one.model_copy(update={"end_ms": 1_000}) if one.attribute == "emotion" else one for one in segment.labels]
    half.append(Label(attribute="emotion", category="angry", start_ms=1_000, end_ms=2_000, labeller="toy@1"))
    toy.predicted["r0"] = [segment.model_copy(update={"labels": tuple(half)})]
    assert toy.examples()[0].category is None
    assert set(toy.examples()[0].teacher or ()) == {"nothing"}
    # what lies outside of the clip does not count
    (clip,) = toy.clips.values()
    toy.clips = {clip.id: clip.model_copy(update={"end_ms": 1_200})}
    toy.pairs = [pair.model_copy(update={"clip_id": f"{clip.recording_id}@0-1200"}) for pair in toy.pairs]
    toy.clips = {one.id: one for one in toy.clips.values()}
    assert toy.examples()[0].category == "sad"
    assert (toy.examples()[0].dimensions or {})["arousal"] == pytest.approx(0.2)


def test_worse_labels_for_targets_leave_the_prompt_and_spoil_more_and_more() -> None:
    toy = Toy(12)
    clean = toy.examples()
    wrong: list[set[str]] = []
    for noise in (0.0, 0.3, 0.7, 1.0):
        made = toy.examples(targets=ShownLabels(noise=noise))
        assert [one.prompt for one in made] == [one.prompt for one in clean]
        wrong.append({one.id for one, was in zip(made, clean, strict=True) if one.category != was.category})
        told = [one for one in made if one.teacher is not None and one.category is not None]
        assert all(f"({one.category})" in (one.teacher or {})["emotion"] for one in told)
    assert all(less <= more for less, more in pairwise(wrong))
    assert not wrong[0]
    assert len(wrong[-1]) == 18  # of nine clips that say something
    dropped = toy.examples(targets=ShownLabels(dropout=0.5))
    assert 0 < sum(one.category is None for one in dropped if one.clip_id != "r3@0-2000") < 22


def test_a_reply_is_told_what_it_was_written_for() -> None:
    toy = Toy(1)
    toy.pairs[0] = toy.pairs[0].model_copy(update={"label_attribute": "emotion", "label": "surprised"})
    assert [one.category for one in toy.examples()] == ["surprised", "sad"]
    assert toy.examples(targets=ShownLabels(noise=0.001))[0].category == "sad"


def test_targets_of_people_are_an_oracles() -> None:
    with pytest.raises(ValidationError, match=r"replies: is shown human labels or learns from them.*'replies oracle'"):
        System(name="replies", data=("replies",), targets=ShownLabels(of="human"))
    oracle = System(name="replies oracle", data=("replies",), targets=ShownLabels(of="human"))
    toy = Toy(3)
    human = {
        key: [one.model_copy(update={"labels": tuple(label.model_copy(update={"labeller": "human"}) for label in one.labels)})]
        for key, (one,) in toy.predicted.items()
    }
    made = build_examples(toy.pairs, toy.clips, {}, oracle, phase="train", human=human, targets=True)
    assert [one.category for one in made] == ["sad", "happy", "angry"]
    with pytest.raises(DataError, match=r"emotion is a label of human|arousal is a label of human; targets are made of predicted"):
        build_examples(toy.pairs, toy.clips, human, REPLIES, phase="train", targets=True)


def test_tables_keep_targets_and_those_of_before_are_read() -> None:
    made = Toy(4).examples()
    assert from_arrow(to_arrow(made, Example), Example) == made
    before = [name for name in arrow_schema(Example).names if name not in Example.grown]
    old = from_arrow(to_arrow(made, Example).select(before), Example)
    assert [one.prompt for one in old] == [one.prompt for one in made]
    assert {(one.category, one.teacher, one.dimensions, one.earlier) for one in old} == {(None, None, None, ())}
    with pytest.raises(DataError, match=r"missing columns prompt"):
        from_arrow(to_arrow(made, Example).drop_columns(["prompt"]), Example)


def test_targets_stand_in_the_order_of_the_heads() -> None:
    toy = Toy(4)
    examples = toy.examples()
    model = _start(examples, HEADED, config(), DIM, None, None, ())
    feed = Feed(model, examples, toy.frames, config())
    found = next(feed.whole())
    wanted = {(one.source, one.clip_id): one for one in examples}
    for index, origin in enumerate(found["origins"]):
        one = wanted[origin.source, origin.clip_id]
        told = found["targets"]
        assert int(told["category"][index]) == (IGNORE if one.category is None else AUX.classes.index(one.category))
        dimensions = one.dimensions or {}
        np.testing.assert_allclose(told["dimensions"][index], [dimensions.get(name, NAN) for name in AUX.dimensions], rtol=1e-6)
        assert (index in told["taught"].tolist()) == (one.teacher is not None)
        assert np.array_equal(found["frames"][told["clips"][index], 0], toy.frames[one.clip_id][0].astype(np.float32))


# ---- teachers ----------------------------------------------------------------------------------------------------------------------


def model_of(parts: SpeechLLMConfig) -> SpeechLLM:
    return _start(Toy(4).examples(), parts, config(), DIM, None, None, ())


def test_the_teacher_says_what_the_decoder_says_of_its_text_token_for_token() -> None:
    toy = Toy(4)
    examples = [one for one in toy.examples() if one.teacher is not None]
    model = model_of(HEADED)
    read = lambda one, text: model.item(text, None, target=one.target)  # noqa: E731
    made = targets_of([examples[:2], examples[2:]], torch.zeros(3), RE_LLM, HEADED, read=read, pad_id=model.tokenizer.pad_id)
    together = teacher_of(model, None).logits(made["teacher"])
    alone = [read(one, (one.teacher or {})["emotion"]) for one in examples]
    expected = [model.on(training_batch([[one]], pad_id=model.tokenizer.pad_id)).logits for one in alone]
    torch.testing.assert_close(together, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert [len(one) for one in expected] == [
        len(model.item(one.prompt, toy.frames[one.clip_id], target=one.target).target) for one in examples
    ]


def test_a_decoder_that_learns_is_taught_by_a_copy_of_what_it_was() -> None:
    model = model_of(HEADED)
    teacher = teacher_of(model, None)
    item = model.item("Transcript: we left\nAnswer:", None, target="Yes.")
    batch = training_batch([[item]], pad_id=model.tokenizer.pad_id)
    before = teacher.logits(batch.__dict__)
    with torch.no_grad():
        for one in model.decoder.parameters():
            one.add_(0.1)
    assert torch.equal(teacher.logits(batch.__dict__), before)
    assert not any(one.requires_grad for one in teacher.decoder.parameters())


@pytest.mark.parametrize("where", ["all", "speech"])
def test_a_frozen_decoder_teaches_itself_without_its_updates(where: str) -> None:
    lora = LoRAConfig(r=2, targets=("q_proj", "v_proj"), where=where, dropout=0.3)  # type: ignore[arg-type]
    model = model_of(HEADED.model_copy(update={"frozen": ("encoder", "decoder"), "lora": lora})).train()
    item = model.item("Transcript: we left\nAnswer:", None, target="Yes.")
    batch = training_batch([[item]], pad_id=model.tokenizer.pad_id)
    teacher = teacher_of(model, None)
    assert teacher.decoder is model.decoder
    before = teacher.logits(batch.__dict__)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    with torch.no_grad():
        for name, one in model.named_parameters():
            if ".lora_" in name:
                one.add_(0.3)
    assert torch.equal(teacher.logits(batch.__dict__), before)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == trained
    assert model.decoder.training
    if where == "all":
        model.eval()
        assert not torch.allclose(model.on(batch).logits, before)
        with without_lora(model.decoder):
            torch.testing.assert_close(model.on(batch).logits, before)


def test_a_checkpoint_may_teach_and_another_tokeniser_may_not(tmp_path: Path) -> None:
    model = model_of(MODEL)
    model.save(tmp_path / "same")
    same = teacher_of(model, str(tmp_path / "same"))
    assert not same.bare
    item = model.item("Transcript: we left\nAnswer:", None, target="Yes.")
    batch = training_batch([[item]], pad_id=model.tokenizer.pad_id)
    torch.testing.assert_close(same.logits(batch.__dict__), model.eval().on(batch).logits)
    other = SpeechLLM(MODEL, train_tokenizer(["something else was said"], vocab_size=280), frame_dim=DIM)
    other.save(tmp_path / "other")
    match = (
        r"teacher='.*other' has another tokeniser than the student: it has \d+ tokens, the student \d+\. KL is impossible.*loss=ce"
    )
    with pytest.raises(ConfigError, match=match):
        teacher_of(model, str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=match):
        fit(tmp_path / "out", config(objective={"teacher": str(tmp_path / "other")}))
    tokens = SpecialTokens(after="[/INST]")
    mine = model.tokenizer.tokenizer
    with pytest.raises(
        ConfigError, match=r"teacher='chat' has another tokeniser than the student: its after is '\[/INST\]', the student's ''"
    ):
        check_tokenizer("chat", TextTokenizer(mine, tokens), model.tokenizer)


# ---- training ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [{}, {"untaught": "leave_out", "dimensions": 0.5}, {"loss": "ce", "reply": 0.3}])
@pytest.mark.parametrize("rows", ["bucketed", "packed"])
def test_half_the_batch_twice_is_the_same_step(tmp_path: Path, objective: dict[str, Any], rows: str) -> None:
    """Each target weighs the same, whichever batch it is in and however many that batch holds."""
    toy = Toy(12)
    settings = config(objective=objective, rows=rows, shift_frames=0, batch_size=24)
    model = _start(toy.examples(), HEADED, settings, DIM, None, None, ())
    feed = Feed(model, toy.examples(), toy.frames, settings)
    whole = next(feed.plan())
    once = gradients(model, feed, [whole], tmp_path)
    halves = gradients(model, feed, [whole[:5], whole[5:]], tmp_path)
    assert any(one.abs().max() > 1e-4 for one in once)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(once, halves, strict=True))


def gradients(model: SpeechLLM, feed: Feed, parts: list[Any], place: Path) -> list[Tensor]:
    settings = feed.config.model_copy(update={"accumulate": len(parts), "save_every": 0})
    made = [feed.batch(rows, packed=settings.rows == "packed") for rows in parts]
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


def test_a_step_without_any_target_changes_nothing_but_is_one(tmp_path: Path) -> None:
    toy = Toy(4)
    silent = [one for one in toy.examples() if one.clip_id == "r3@0-2000"]
    settings = config(objective={"untaught": "leave_out"}, steps=2, weight_decay=0)
    train(silent, toy.frames, settings, tmp_path, model=HEADED, frame_dim=DIM)
    before = _start(silent, HEADED, settings, DIM, None, None, ()).state_dict()
    assert all(torch.equal(before[name], one) for name, one in weights(tmp_path).items())
    assert lines(tmp_path)[-1]["loss"] == 0


def test_parts_of_the_loss_are_logged_and_told_on_the_card(tmp_path: Path) -> None:
    fit(tmp_path, config(steps=30, log_every=10, held_out=0.2, eval_every=10, lr=2e-2))
    told = lines(tmp_path)
    assert all(set(one["by_part"]) == {"reply", "category", "dimensions"} for one in told)
    assert all(set(one["by_source"]) == {"replies", "asr"} for one in told)
    for name, share in (("reply", 0.7), ("category", 0.7), ("dimensions", 0.95)):  # these frames tell little of valence
        assert told[-1]["by_part"][name] < share * told[0]["by_part"][name]
    looks = lines(tmp_path, HELD_OUT_FILE)
    assert all(one["loss"] == pytest.approx(sum(one["by_part"].values())) for one in looks)
    card = (tmp_path / CARD_FILE).read_text()
    assert (
        "- lessened: reply by kl at temperature 2 (teacher: the decoder before training, told the emotion) + category by ce" in card
    )
    assert "with a teacher's text" in card
    assert "- last losses, unweighted: category" in card


def test_a_plain_training_says_nothing_of_parts(tmp_path: Path) -> None:
    fit(tmp_path, config(), model=MODEL)
    assert all("by_part" not in one for one in lines(tmp_path))
    assert "lessened" not in (tmp_path / CARD_FILE).read_text()


def test_a_system_that_nothing_tells_what_it_is_to_learn_is_refused(tmp_path: Path) -> None:
    toy = Toy(4)
    learnt = toy.examples()
    unrated = [one.model_copy(update={"dimensions": {"arousal": 0.5, "valence": 0.5}}) for one in learnt]
    deaf = [one.model_copy(update={"dimensions": {"arousal": 0.5}, "category": "neutral"}) for one in learnt]
    bare = [one.model_copy(update={"teacher": None}) for one in learnt]

    def go(examples: list[Example], objective: dict[str, Any], system: System | None = REPLIES) -> None:
        settings = config(steps=1, objective=objective)
        train(examples, toy.frames, settings, tmp_path, model=HEADED, frame_dim=DIM, system=system)

    with pytest.raises(
        DataError, match=r"none of 8 examples has an emotion of model\.aux\.classes \(sad, happy, angry\): label emotion"
    ):
        go(deaf, {})
    with pytest.raises(DataError, match=r"none of 8 examples has dominance for model\.aux\.dimensions: add a labeller"):
        go(unrated, {})
    with pytest.raises(
        DataError, match=r"loss=kl: none of 8 examples has a teacher's text that tells emotion; it stands with replies"
    ):
        go(bare, {"loss": "kl", "dimensions": 0})
    go(bare, {"dimensions": 0})  # by their tokens
    go(deaf, {}, system=None)


BLSP_EMO = (
    {
        "share": 0.5,
        "frozen": ("decoder", "category_head"),
        "objective": {"loss": "kl", "tells": "nothing", "category": 0, "dimensions": 0},
    },
    {"share": 0.5, "objective": {"loss": "ce"}},
)
SER_HEAD = MODEL.model_copy(update={"aux": AuxConfig(classes=AUX.classes, dimensions=())})


def test_blsp_emo_is_two_stages(tmp_path: Path) -> None:
    settings = config(steps=8, log_every=1, stages=BLSP_EMO)
    examples = Toy().examples()
    before = _start(examples, SER_HEAD, settings, DIM, None, None, ()).state_dict()
    fit(tmp_path / "both", settings, model=SER_HEAD)
    assert [set(one["by_part"]) for one in lines(tmp_path / "both")] == [{"reply"}] * 4 + [{"reply", "category"}] * 4
    first = config(steps=4, log_every=1, stages=(BLSP_EMO[0] | {"share": 1.0},))
    fit(tmp_path / "first", first, model=SER_HEAD)
    after, both = weights(tmp_path / "first"), weights(tmp_path / "both")
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"adapter"}
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], both[name])} == {
        "adapter",
        "decoder",
        "category_head",
    }


class Stopped(Exception):
    pass


def test_a_stopped_training_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """The teacher is the decoder of before the first step, also where training goes on from a later one."""

    def stop(line: Any) -> None:
        if line.step == 16:
            raise Stopped

    settings = config(
        steps=20, held_out=0.2, eval_every=6, accumulate=2, batch_size=4, log_every=4, objective={"dimensions_loss": "ccc"}
    )
    with pytest.raises(Stopped):
        fit(tmp_path / "stopped", settings, progress=stop)
    fit(tmp_path / "stopped", settings)
    fit(tmp_path / "alone", settings)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "alone")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("objective", [{}, {"dimensions_loss": "ccc", "untaught": "leave_out"}], ids=["mse", "ccc"])
def test_two_processes_are_one_with_twice_the_accumulation(tmp_path: Path, objective: dict[str, Any]) -> None:
    settings = config(steps=5, accumulate=1, objective=objective)
    alone = fit(tmp_path / "alone", settings.model_copy(update={"accumulate": 2}))
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.unit.test_objective import *\n"
        f"fit(Path(sys.argv[1]), TrainConfig.model_validate_json('''{settings.model_dump_json()}'''))\n"
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
        for kind in ("by_source", "by_part"):
            assert one[kind] == pytest.approx(other[kind], rel=1e-4)
    ours, theirs = weights(alone), weights(tmp_path / "two")
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in ours)
