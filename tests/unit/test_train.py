"""Training: what each system is shown, mixing, the same command the same weights, and that it learns to hear and to read."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from undertone.errors import DataError, ModelError
from undertone.model.config import AdapterConfig, DecoderConfig, SpeechLLMConfig
from undertone.model.examples import SYSTEMS, System, build_examples
from undertone.model.speech_llm import SpeechLLM, read_checkpoint
from undertone.records import Clip, Label, QAPair, Segment
from undertone.train.card import CARD_FILE
from undertone.train.config import ReadingConfig, TrainConfig
from undertone.train.mixing import batches
from undertone.train.pretrain import imagine, pretrain, reading_examples
from undertone.train.trainer import LOSSES_FILE, Progress, train

DIM = 8
EMOTIONS = ("sad", "happy", "angry")
SYSTEM = {one.name: one for one in SYSTEMS}
MODEL = SpeechLLMConfig(
    adapter=AdapterConfig(stack=5, hidden=16, dropout=0.0),
    decoder=DecoderConfig(
        config={
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "initializer_range": 0.15,
        }
    ),
)


class Toy:
    """Clips of one segment whose emotion is a direction in its frames, and whose words tell nothing."""

    def __init__(self, count: int = 30, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.clips: dict[str, Clip] = {}
        self.frames: dict[str, np.ndarray] = {}
        self.predicted: dict[str, list[Segment]] = {}
        self.pairs: list[QAPair] = []
        for number in range(count):
            emotion = EMOTIONS[number % len(EMOTIONS)]
            recording = f"r{seed}-{number}"
            label = Label(attribute="emotion", category=emotion, start_ms=0, end_ms=2_000, labeller="toy@1")
            segment = Segment(recording_id=recording, start_ms=0, end_ms=2_000, transcript="we left", labels=(label,))
            clip = Clip(recording_id=recording, uri="", source="toy", start_ms=0, end_ms=2_000, segments=(segment,))
            self.clips[clip.id] = clip
            self.predicted[recording] = [segment]
            noise = draw.normal(size=(10 + number % 3, DIM)) * 0.3
            self.frames[clip.id] = noise + 3 * np.eye(DIM)[EMOTIONS.index(emotion)]
            self.pairs += [
                self.pair(clip, "asr", "ASR", "What is said?", "We left."),
                self.pair(clip, "pqa", "DE", "Which emotion?", f"{emotion.capitalize()}."),
                self.pair(clip, "pqa_star", "DE", "Say how it sounds.", f"It sounds {emotion}."),
                self.pair(clip, "cpqa", "CE", "How do they feel as they leave?", f"They feel {emotion}."),
            ]

    @staticmethod
    def pair(clip: Clip, source: str, kind: str, question: str, answer: str) -> QAPair:
        return QAPair.model_validate(
            {"clip_id": clip.id, "recording_id": clip.recording_id, "source": source, "kind": kind}
            | {"question": question, "answer": answer, "generator": "toy@1", "split": "train"}
        )

    def examples(self, name: str, phase: str = "train") -> list:
        return build_examples(self.pairs, self.clips, self.predicted, SYSTEM[name], phase=phase)  # type: ignore[arg-type]


def fit(toy: Toy, name: str, out: Path, **changes: object) -> list[Progress]:
    config = TrainConfig.model_validate({"steps": 3, "batch_size": 8, "log_every": 1, "vocab_size": 300, "lr": 1e-2, **changes})
    lines: list[Progress] = []
    train(toy.examples(name), toy.frames, config, out, model=MODEL, frame_dim=DIM, system=SYSTEM[name], progress=lines.append)
    return lines


@pytest.mark.parametrize(
    ("name", "sources", "train_prompt", "inference_prompt"),
    [
        ("S10", {"asr", "pqa"}, "<audio>\n{q}", "<audio>\n{q}"),
        ("S20", {"asr", "pqa", "pqa_star"}, "<audio>\n{q}", "<audio>\n{q}"),
        ("S30", {"asr", "pqa", "pqa_star", "cpqa"}, "<audio>\n{q}", "<audio>\n{q}"),
        ("S31", {"asr", "pqa", "pqa_star", "cpqa"}, "<audio>\n{q}", "<audio>\n{m}\n{q}"),
        ("S32", {"asr", "pqa", "pqa_star", "cpqa"}, "<audio>\n{m}\n{q}", "<audio>\n{m}\n{q}"),
        ("words only", {"asr", "pqa", "pqa_star", "cpqa"}, "Transcript: we left\n{q}", "Transcript: we left\n{q}"),
        ("metadata only", {"asr", "pqa", "pqa_star", "cpqa"}, "{m}\n{q}", "{m}\n{q}"),
    ],
)
def test_each_system_is_shown_what_the_study_says(name: str, sources: set[str], train_prompt: str, inference_prompt: str) -> None:
    toy = Toy(3)
    made = toy.examples(name)
    assert {one.source for one in made} == sources
    assert len(made) == 3 * len(sources)
    fill = {"q": "What is said?\nAnswer:", "m": "Emotion: [0.0-2.0 s] sad"}
    assert made[0].prompt == train_prompt.format(**fill)
    asked = toy.examples(name, "inference")
    assert len(asked) == len(toy.pairs)
    assert asked[0].prompt == inference_prompt.format(**fill)
    assert {one.arm for one in asked} == {name}
    assert {(one.metadata is None) for one in asked} == {"{m}" not in inference_prompt}
    assert [one.target for one in made if one.source == "asr"] == ["We left."] * 3


def test_the_seven_systems_need_six_trainings() -> None:
    assert len(SYSTEMS) == 7
    assert [one.name for one in SYSTEMS if one.weights_of] == ["S31"]
    assert SYSTEM["S31"].checkpoint == SYSTEM["S30"].checkpoint == "S30"
    with pytest.raises(ValidationError, match="weights_of='S30' means no training; metadata cannot be train_and_inference"):
        System(name="x", data=("asr",), weights_of="S30", metadata="train_and_inference")


def test_examples_refuse_test_pairs_gold_labels_and_unknown_clips() -> None:
    toy = Toy(2)
    leaked = [toy.pairs[0].model_copy(update={"split": "test"})]
    with pytest.raises(DataError, match="is of split test and must not train S32"):
        build_examples(leaked, toy.clips, toy.predicted, SYSTEM["S32"], phase="train")
    assert build_examples(leaked, toy.clips, toy.predicted, SYSTEM["S32"], phase="inference")
    with pytest.raises(DataError, match=r"asks about clip r0-0@0-2000, which is not among the 0 clips"):
        build_examples(toy.pairs, {}, toy.predicted, SYSTEM["S10"], phase="train")
    gold = {
        name: [one.model_copy(update={"labels": tuple(label.model_copy(update={"labeller": "human"}) for label in one.labels)})]
        for name, (one,) in toy.predicted.items()
    }
    with pytest.raises(DataError, match="human label"):
        build_examples(toy.pairs, toy.clips, gold, SYSTEM["S32"], phase="train")
    assert build_examples(toy.pairs, toy.clips, gold, SYSTEM["S30"], phase="train")


def test_gold_labels_of_clips_do_not_reach_any_prompt() -> None:
    toy = Toy(6)
    flipped = Toy(6)
    for clip_id, clip in flipped.clips.items():
        (segment,) = clip.segments
        gold = segment.labels[0].model_copy(update={"category": "surprised", "labeller": "human"})
        flipped.clips[clip_id] = clip.model_copy(update={"segments": (segment.model_copy(update={"labels": (gold,)}),)})
    for name in SYSTEM:
        for phase in ("train", "inference"):
            assert toy.examples(name, phase) == flipped.examples(name, phase)


def test_an_epoch_uses_each_item_once_and_weights_change_how_often() -> None:
    examples = Toy(20).examples("S30")
    settings = {"group_size": 3, "batch_size": 8, "seed": 1}

    def epoch(mix: dict[str, float], items: int) -> Counter[str]:
        counts: Counter[int] = Counter()
        for batch in batches(examples, mix=mix, **settings):  # type: ignore[arg-type]
            for group in batch:
                assert len(group) <= 3
                assert len({examples[index].clip_id for index in group}) == 1
                counts.update(group)
            if counts.total() >= items:
                break
        assert counts.total() == items
        if not mix:
            assert set(counts.values()) == {1}
        return Counter(source for index, times in counts.items() for source in [examples[index].source] * times)

    assert epoch({}, 80) == {"asr": 20, "pqa": 20, "pqa_star": 20, "cpqa": 20}
    assert epoch({"asr": 0.25, "cpqa": 2.5, "pqa": 0.0}, 75) == {"asr": 5, "pqa_star": 20, "cpqa": 50}


def test_a_mix_that_leaves_nothing_is_an_error_and_not_an_endless_loop() -> None:
    examples = Toy(3).examples("S10")
    with pytest.raises(
        DataError, match=r"train\.mix=\{'asr': 0\.0, 'pqa': 0\.1\} leaves none of 6 examples, whose sources are: asr, pqa;"
    ):
        next(batches(examples, mix={"asr": 0.0, "pqa": 0.1}, group_size=4, batch_size=8, seed=1))


@pytest.mark.parametrize("mix", [{"asr": -0.5}, {"asr": float("inf")}, {"asr": float("nan")}])
def test_a_mix_has_weights_of_zero_or_more(mix: dict[str, float]) -> None:
    assert TrainConfig(mix={"asr": 0, "pqa_star": 2.5}).mix == {"asr": 0, "pqa_star": 2.5}
    with pytest.raises(ValidationError, match="mix"):
        TrainConfig(mix=mix)


def test_the_order_is_the_seeds(tmp_path: Path) -> None:
    examples = Toy(20).examples("S30")

    def first(seed: int) -> list[list[list[int]]]:
        return list(islice(batches(examples, mix={}, group_size=4, batch_size=8, seed=seed), 25))

    assert first(1) == first(1) != first(2)
    random.seed(9)  # the global generator plays no part
    assert first(1) == first(1)


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    toy = Toy(6)
    before = torch.random.get_rng_state()
    for name in ("a", "b"):
        fit(toy, "S32", tmp_path / name)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    fit(toy, "S32", tmp_path / "c", seed=2)
    a, b, c = ({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())} for name in "abc")
    assert {"config.json", "model.safetensors", "tokenizer.json", CARD_FILE, LOSSES_FILE} <= set(a)
    assert "_steps" not in a
    assert a == b
    assert a["model.safetensors"] != c["model.safetensors"]
    assert a["tokenizer.json"] == c["tokenizer.json"]


def test_losses_are_logged_per_source_and_the_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    lines = fit(Toy(6), "S20", tmp_path, steps=5, log_every=2)
    written = [json.loads(line) for line in (tmp_path / LOSSES_FILE).read_text().splitlines()]
    assert [line["step"] for line in written] == [2, 4, 5] == [line.step for line in lines]
    assert set(written[0]["by_source"]) == {"asr", "pqa", "pqa_star"}
    assert written[0] == json.loads(lines[0].line())
    card = read_checkpoint(tmp_path)
    assert (card.system, card.model, card.frame_dim) == (SYSTEM["S20"], MODEL, DIM)


def test_it_learns_to_hear_and_to_read_metadata(tmp_path: Path) -> None:
    """The same questions about unseen clips: S30 answers from the frames, metadata only from the line, words only cannot."""
    toy, unseen = Toy(30), Toy(12, seed=5)
    right = {}
    for name in ("S30", "metadata only", "words only"):
        fit(toy, name, tmp_path / name, steps=120, batch_size=16, log_every=60)
        model = SpeechLLM.load(tmp_path / name)
        asked = [one for one in unseen.examples(name, "inference") if one.kind == "CE"]
        frames = [unseen.frames[one.clip_id] if name == "S30" else None for one in asked]
        replies = model.answer([one.prompt for one in asked], frames, max_new_tokens=12)
        right[name] = sum(reply.text == one.target for one, reply in zip(asked, replies, strict=True))
    assert right["S30"] >= 11
    assert right["metadata only"] >= 11
    assert right["words only"] <= 5


def test_a_start_gives_decoder_and_tokeniser_and_frozen_parts_stay(tmp_path: Path) -> None:
    toy = Toy(6)
    fit(toy, "words only", tmp_path / "start")
    frozen = MODEL.model_copy(update={"frozen": ("encoder", "decoder")})
    config = TrainConfig(steps=2, batch_size=8, vocab_size=300)
    train(toy.examples("S30"), toy.frames, config, tmp_path / "s30", model=frozen, frame_dim=DIM, start=tmp_path / "start")
    start, made = SpeechLLM.load(tmp_path / "start").state_dict(), SpeechLLM.load(tmp_path / "s30").state_dict()
    assert (tmp_path / "s30/tokenizer.json").read_bytes() == (tmp_path / "start/tokenizer.json").read_bytes()
    assert all(torch.equal(start[name], made[name]) for name in start if name.startswith("decoder."))
    assert not torch.equal(start["adapter.pool.0.weight"], made["adapter.pool.0.weight"])
    with pytest.raises(ModelError, match=r"is not a checkpoint: no config\.json"):
        train(toy.examples("S30"), toy.frames, config, tmp_path / "x", model=frozen, frame_dim=DIM, start=tmp_path / "none")


def test_nothing_to_train_on_and_a_loss_that_is_no_number_are_errors(tmp_path: Path) -> None:
    toy = Toy(6)
    with pytest.raises(DataError, match="no training example for S30: its sources gave no pair"):
        train([], {}, TrainConfig(), tmp_path, model=MODEL, frame_dim=DIM, system=SYSTEM["S30"])
    with pytest.raises(
        ModelError, match=r"the loss is (nan|inf) at step [23] of 3 \(learning rate .*\); .*try train\.lr=3\.3e\+18"
    ):
        fit(toy, "S30", tmp_path, lr=1e19, clip_norm=1e30)
    assert not (tmp_path / "model.safetensors").exists()


def spoken(count: int = 6, split: str = "train") -> list[Clip]:
    def segment(number: int) -> Segment:
        gold = Label(attribute="emotion", category="sad", start_ms=0, end_ms=2_500, labeller="human")
        return Segment(recording_id=f"r{number}", start_ms=0, end_ms=2_500, transcript=f"Line {number}.", labels=(gold,))

    return [
        Clip.model_validate(
            {"recording_id": f"r{number}", "uri": "", "source": "toy", "split": split}
            | {"start_ms": 0, "end_ms": 2_500, "segments": (segment(number),)}
        )
        for number in range(count)
    ]


def write(clip: Clip) -> list[QAPair]:
    emotion = clip.segments[0].category("emotion")
    return [Toy.pair(clip, "cpqa", "CE", "How does the first line sound?", f"It sounds {emotion}.")]


def test_imagined_clips_keep_the_words_and_draw_the_labels() -> None:
    made = list(imagine(spoken(), count=200, seed=1))
    assert made == list(imagine(spoken(), count=200, seed=1))
    assert made != list(imagine(spoken(), count=200, seed=2))
    assert len({clip.id for clip in made}) == 200
    by_words: dict[str, Counter[str]] = {}
    for clip in made:
        assert 2 <= len(clip.segments) <= 4
        assert all(one.end_ms < other.start_ms for one, other in zip(clip.segments, clip.segments[1:], strict=False))
        for segment in clip.segments:
            assert {label.labeller for label in segment.labels} == {"imagined@1"}
            assert [(label.start_ms - segment.start_ms, label.end_ms - segment.start_ms) for label in segment.of("emotion")] == [
                (0, 2_000),
                (2_000, 2_500),
            ]
            by_words.setdefault(segment.transcript or "", Counter())[segment.category("emotion") or ""] += 1
    assert len(by_words) == 6
    for counts in by_words.values():  # seven emotions, evenly, whatever the words and the human label
        assert len(counts) == 7
        assert max(counts.values()) < 0.35 * counts.total()


def test_reading_examples_show_tags_times_or_both_and_never_test_clips() -> None:
    made = reading_examples(spoken(), write, count=60, seed=1)
    shapes = Counter(("(" in one.prompt, one.metadata is not None) for one in made)
    assert set(shapes) == {(True, False), (True, True), (False, True)}
    for one in made:
        assert one.prompt.startswith("Transcript: ")
        assert one.prompt.endswith("How does the first line sound?\nAnswer:")
        emotion = one.target.removeprefix("It sounds ").removesuffix(".")
        assert emotion in one.prompt
    with pytest.raises(DataError, match="is of split test; a decoder learns to read from train transcripts only"):
        reading_examples(spoken(split="test"), write, count=1, seed=1)
    silent = [clip.model_copy(update={"segments": ()}) for clip in spoken(2)]
    with pytest.raises(DataError, match=r"none of 2 clips has a transcript to learn reading from; set train\.reading\.clips=0"):
        reading_examples(silent, write, count=1, seed=1)


def test_systems_start_from_the_decoder_that_learnt_to_read(tmp_path: Path) -> None:
    toy = Toy(6)
    config = TrainConfig(steps=2, batch_size=8, vocab_size=300, reading=ReadingConfig(clips=8, steps=2, threads=1))
    texts = [one.prompt for one in toy.examples("S32")]
    pretrain(spoken(), write, config, tmp_path / "reading", model=MODEL, frame_dim=DIM, tokenizer_texts=texts)
    for name in ("S30", "metadata only"):
        examples, out = toy.examples(name), tmp_path / name
        train(examples, toy.frames, config, out, model=MODEL, frame_dim=DIM, start=tmp_path / "reading", system=SYSTEM[name])
        assert (out / "tokenizer.json").read_bytes() == (tmp_path / "reading/tokenizer.json").read_bytes()
        assert read_checkpoint(out).model == MODEL
