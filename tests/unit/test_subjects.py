"""A checkpoint as a subject: one answer per example, the same in every batch size, and `ask` for one file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from undertone.audio import Wave
from undertone.errors import DataError, ModelError
from undertone.evaluate.subjects import CheckpointSubject
from undertone.model import ask as asking
from undertone.model.ask import ask, shows_metadata
from undertone.model.config import AdapterConfig, DecoderConfig, SpeechLLMConfig
from undertone.model.examples import SYSTEMS, System
from undertone.model.features import FeatureCache
from undertone.model.speech_llm import SpeechLLM
from undertone.model.tokenizer import train_tokenizer
from undertone.records import Example, Label, Segment

DIM = 4
SYSTEM = {one.name: one for one in SYSTEMS}
CONFIG = SpeechLLMConfig(
    adapter=AdapterConfig(stack=5, hidden=8, dropout=0.1),
    decoder=DecoderConfig(
        config={
            "model_type": "llama",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
        }
    ),
)
QUESTIONS = ("How does it sound?", "Who speaks?", "What is said about the train that leaves?")


class ToyEncoder:
    dim = DIM
    fingerprint = "toy"

    def frames(self, samples: np.ndarray) -> np.ndarray:
        return np.asarray(samples[: len(samples) // 320 * 320].reshape(-1, 320)[:, :DIM], dtype=np.float32)


def checkpoint(folder: Path, system: System | None) -> Path:
    torch.manual_seed(1)
    tokenizer = train_tokenizer([*QUESTIONS, "Emotion: [0.0-1.0 s] sad\nAnswer:"], vocab_size=300)
    SpeechLLM(CONFIG, tokenizer, frame_dim=DIM, encoder_fingerprint="toy").save(folder, system=system)
    return folder


def example(number: int, *, hears: bool = True) -> Example:
    prompt = ("<audio>\n" if hears else "") + f"{QUESTIONS[number % 3]}\nAnswer:"
    return Example(
        arm="S30", pair_id=f"p{number}", clip_id=f"c{number % 4}", source="benchmark", kind="DE", prompt=prompt, target="Sad."
    )


@pytest.fixture
def features(tmp_path: Path) -> FeatureCache:
    cache = FeatureCache(tmp_path / "features", encoder="toy", max_audio_s=30)
    for number in range(4):
        cache.put(f"c{number}", np.random.default_rng(number).normal(size=(7 + 6 * number, DIM)))
    return cache


def test_one_answer_per_example_whatever_the_batch(tmp_path: Path, features: FeatureCache) -> None:
    folder = checkpoint(tmp_path / "S30", SYSTEM["S30"])
    examples = [example(number, hears=number % 5 > 0) for number in range(11)]
    found = {}
    for size in (1, 4, 32):
        answers = list(CheckpointSubject(folder, features, batch_size=size, max_new_tokens=6).answers(examples))
        assert sorted(one.pair_id for one in answers) == sorted(one.pair_id for one in examples)
        assert {one.subject for one in answers} == {"S30"}
        assert all(one.seconds is not None and one.seconds > 0 for one in answers)
        found[size] = {one.pair_id: (one.text, one.raw) for one in answers}
    assert found[1] == found[4] == found[32]
    assert len(set(found[1].values())) > 1


def test_a_clip_without_frames_is_an_error_that_names_it(tmp_path: Path, features: FeatureCache) -> None:
    folder = checkpoint(tmp_path / "S30", SYSTEM["S30"])
    features.path("c1").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"no frames of clip c1 in .*c1\.npy"):
        list(CheckpointSubject(folder, features).answers([example(1)]))


def predicted() -> list[Segment]:
    label = Label(attribute="emotion", category="sad", start_ms=0, end_ms=1_000, labeller="toy@1")
    return [Segment(recording_id="r", start_ms=0, end_ms=1_000, labels=(label,))]


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `ask` shows the model."""
    seen: list[str] = []
    monkeypatch.setattr(asking, "load_encoder", lambda config: ToyEncoder())

    answer: Any = SpeechLLM.answer
    monkeypatch.setattr(
        SpeechLLM, "answer", lambda self, shown, *rest, **named: seen.extend(shown) or answer(self, shown, *rest, **named)
    )
    return seen


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("S30", "<audio>\nWho speaks?\nAnswer:"),
        ("S32", "<audio>\nEmotion: [0.0-1.0 s] sad\nWho speaks?\nAnswer:"),
        ("metadata only", "Emotion: [0.0-1.0 s] sad\nWho speaks?\nAnswer:"),
    ],
)
def test_ask_shows_what_the_system_was_trained_with(tmp_path: Path, prompts: list[str], name: str, shown: str) -> None:
    folder = checkpoint(tmp_path, SYSTEM[name])
    wave = Wave(np.random.default_rng(0).normal(size=16_000).astype(np.float32), 16_000)
    assert shows_metadata(folder) == ("Emotion" in shown)
    text = ask(folder, wave, "Who speaks?", predicted())
    assert isinstance(text, str)
    assert prompts == [shown]
    assert ask(folder, wave, "Who speaks?", predicted()) == text


def test_ask_answers_as_long_as_it_is_told(tmp_path: Path, prompts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[int] = []
    generate: Any = SpeechLLM.generate
    monkeypatch.setattr(
        SpeechLLM,
        "generate",
        lambda self, batch, *, max_new_tokens: longest.append(max_new_tokens) or generate(self, batch, max_new_tokens=1),
    )
    folder, wave = checkpoint(tmp_path, SYSTEM["S30"]), Wave(np.zeros(16_000, dtype=np.float32), 16_000)
    ask(folder, wave, "Who speaks?")
    ask(folder, wave, "Who speaks?", max_new_tokens=3)
    assert longest == [40, 3]


def test_ask_refuses_what_cannot_be_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = Wave(np.zeros(16_000, dtype=np.float32), 16_000)
    words = checkpoint(tmp_path / "words", SYSTEM["words only"])
    with pytest.raises(ModelError, match="reads transcripts and cannot hear a file; choose a system that hears speech"):
        ask(words, wave, "Who speaks?")
    with pytest.raises(ModelError, match=r"is not a checkpoint: no config\.json"):
        ask(tmp_path / "none", wave, "Who speaks?")
    folder = checkpoint(tmp_path / "S30", SYSTEM["S30"])
    with pytest.raises(ModelError, match="needs 16000 Hz, got 8000"):
        ask(folder, Wave(wave.samples, 8_000), "Who speaks?")
    other = ToyEncoder()
    other.fingerprint = "retrained"
    monkeypatch.setattr(asking, "load_encoder", lambda config: other)
    with pytest.raises(ModelError, match="was trained on frames of encoder toy, but affect-small here is retrained"):
        ask(folder, wave, "Who speaks?")


def test_evaluation_does_not_import_training() -> None:
    code = "import sys, undertone.evaluate.subjects; sys.exit(any(name.startswith('undertone.train') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    light = (
        "import sys, undertone.model, undertone.train, undertone.model.config, undertone.model.examples, undertone.train.config;"
        "sys.exit(bool({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
