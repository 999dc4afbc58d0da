"""The labeller meralion-ser on a tiny random model whose code lies in its folder, with the outputs and the habits of the released one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.contract.checkpoints import MERALION_WORDS as WORDS
from tests.contract.checkpoints import meralion_release, modules_elsewhere
from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label.meralion_ser import CLASSES, ORDER, MeralionSer
from undertone.label.protocol import LABELLERS, Category, Scalar

torch = pytest.importorskip("torch", reason="torch is not installed: MERaLiON-SER is not tested")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: MERaLiON-SER is not tested")

torch.set_num_threads(1)


def noise(seconds: float, seed: int = 0) -> Wave:
    rng = np.random.default_rng(seed)
    return Wave((rng.uniform(0.01, 0.3) * rng.normal(size=int(16_000 * seconds))).astype(np.float32), 16_000)


@pytest.fixture(scope="module", autouse=True)
def place_of_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with modules_elsewhere(tmp_path_factory.mktemp("modules")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meralion_release(tmp_path_factory.mktemp("meralion"))


@pytest.fixture(scope="module")
def made(folder: Path) -> MeralionSer:
    return MeralionSer(model=str(folder), trust_remote_code=True)


def numbers(answer) -> np.ndarray:
    emotion, *dims = answer
    return np.array([*emotion.distribution.values(), *(one.number for one in dims)])


def test_the_answer_is_that_of_the_model(folder: Path, made: MeralionSer) -> None:
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    reference = made._loaded.network
    wave = noise(1.5, 3)
    inputs = extractor(wave.samples, sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="pt")
    assert inputs["attention_mask"].sum() == 150, "10 ms frames of 1.5 s"
    with torch.inference_mode():
        told = reference(inputs["input_features"], attention_mask=inputs["attention_mask"])
    expected = [*told["logits"].softmax(dim=-1)[0].tolist(), *told["dims"][0].tolist()]
    np.testing.assert_allclose(numbers(made.judge(wave)), expected, atol=1e-6)
    assert not reference.training


def test_the_weights_are_those_of_the_checkpoint(folder: Path, made: MeralionSer) -> None:
    stored = pytest.importorskip("safetensors.torch").load_file(folder / "model.safetensors")
    loaded = made._loaded.network.state_dict()
    assert set(stored) == set(loaded)
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    assert [conv.kernel_size for conv in made._loaded.network.convs] == [(1,), (3,), (10,)]


def test_a_batch_says_what_each_wave_alone_says(folder: Path) -> None:
    made = MeralionSer(model=str(folder), trust_remote_code=True, batch=3)
    waves = [noise(seconds, seed) for seed, seconds in enumerate((0.3, 1.0, 2.2, 4.0))]
    alone = np.array([numbers(made.judge(wave)) for wave in waves])
    np.testing.assert_allclose([numbers(answer) for answer in made.judge_many(waves)], alone, atol=1e-5)
    np.testing.assert_array_equal(alone, [numbers(made.judge(wave)) for wave in waves])
    assert np.ptp(alone, axis=0).max() > 1e-2, "the random network hears no difference, so this test could not fail"


def test_labels_through_the_registry(folder: Path) -> None:
    made = LABELLERS.get("meralion-ser", {"model": str(folder), "trust_remote_code": True})
    assert made.emits == [Category("emotion", WORDS), *(Scalar(name, low=0.0, high=1.0) for name in ORDER)]
    assert (made.hears, made.rate_hz, made.min_ms, made.max_ms) == ("window", 16_000, 300, 30_000)
    emotion, *dims = made.label(noise(1.0), start_ms=2_000)
    assert (emotion.start_ms, emotion.end_ms, emotion.labeller) == (2_000, 3_000, "meralion-ser@1")
    assert tuple(emotion.distribution) == WORDS
    assert emotion.category == max(emotion.distribution, key=emotion.distribution.get)
    assert [one.attribute for one in dims] == ["valence", "arousal", "dominance"]
    assert all(0.0 <= one.number <= 1.0 for one in dims)
    assert emotion.revision.startswith("sha256:")
    assert {one.reason for one in made.label(noise(0.1), start_ms=0)} == {"too_short"}
    assert {one.reason for one in made.label(noise(31.0), start_ms=0)} == {"too_long"}


def test_code_of_others_does_not_run_unless_it_may(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "tiny_ser_code_ran", raising=False)
    made = MeralionSer(model=str(folder))
    assert [one.attribute for one in made.emits] == ["emotion", *ORDER]
    for asked in (made.check, made.open, lambda: made.judge(noise(1.0))):
        with pytest.raises(ConfigError, match=r"trust_remote_code is false; .* config: \{trust_remote_code: true\}"):
            asked()
    assert not hasattr(sys, "tiny_ser_code_ran")


def test_the_whisper_configuration_can_be_given(tmp_path: Path) -> None:
    meralion_release(tmp_path, whisper_name="/nowhere/whisper-medium")
    with pytest.raises(ModelError, match="does not load"):
        MeralionSer(model=str(tmp_path), trust_remote_code=True).open()
    MeralionSer(model=str(tmp_path), trust_remote_code=True, whisper=str(tmp_path / "whisper")).open()


def test_a_checkpoint_without_class_names_has_those_of_the_card(tmp_path: Path) -> None:
    made = MeralionSer(model=str(meralion_release(tmp_path, id2label=None, label2id=None)), trust_remote_code=True)
    assert made.judge(noise(1.0))[0].category in CLASSES
    assert made.emits[0] == Category("emotion", CLASSES)
    assert [word.lower() for word in CLASSES] == list(WORDS)


def test_loading_restores_logspace(folder: Path) -> None:
    before = torch.logspace
    MeralionSer(model=str(folder), trust_remote_code=True).open()
    assert torch.logspace is before


def rewrite(folder: Path, change) -> None:
    tools = pytest.importorskip("safetensors.torch")
    weights = tools.load_file(folder / "model.safetensors")
    change(weights)
    tools.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_not_numbers_abstain(tmp_path: Path) -> None:
    rewrite(meralion_release(tmp_path), lambda weights: weights["convs.0.bias"].fill_(torch.nan))
    made = LABELLERS.get("meralion-ser", {"model": str(tmp_path), "trust_remote_code": True})
    assert {one.attribute: one.reason for one in made.label(noise(1.0), start_ms=0)} == dict.fromkeys(
        ("emotion", *ORDER), "not_finite"
    )


def test_missing_weights_are_named(tmp_path: Path) -> None:
    rewrite(meralion_release(tmp_path), lambda weights: weights.pop("dim_head.0.weight"))
    with pytest.raises(ModelError, match=r"1 weights are missing or have another shape: dim_head\.0\.weight; expected"):
        MeralionSer(model=str(tmp_path), trust_remote_code=True).open()


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    def widen(weights: dict) -> None:
        weights["emotion_head.weight"] = torch.zeros(8, 16)

    rewrite(meralion_release(tmp_path), widen)
    with pytest.raises(ModelError, match=r"missing or have another shape: emotion_head\.weight; expected"):
        MeralionSer(model=str(tmp_path), trust_remote_code=True).open()


def test_outputs_that_are_not_those_of_the_model_are_refused(tmp_path: Path) -> None:
    labels = {str(index): word for index, word in enumerate(WORDS[:6])}
    made = MeralionSer(model=str(meralion_release(tmp_path, id2label=labels)), trust_remote_code=True)
    with pytest.raises(ModelError, match=r"'logits': \(1, 7\).*expected .*'logits': \(1, 6\)"):
        made.judge(noise(1.0))


def test_a_folder_without_files_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks config\.json, model\.safetensors or .*; expected the files of the model"):
        MeralionSer(model=str(tmp_path), trust_remote_code=True).open()
    with pytest.raises(ConfigError, match="nothing is there"):
        MeralionSer(model=str(tmp_path / "no"), trust_remote_code=True).open()


def test_the_hub_needs_a_revision_and_its_absence_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    def offline(*_args: object, **_kwargs: object) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    made = MeralionSer(trust_remote_code=True)
    assert made.revision == "MERaLiON/MERaLiON-SER-v1@7e3ee6fa4534dea8316e8ca43e377e2fbb58496b"
    with pytest.raises(DependencyError, match=r"hf download MERaLiON/MERaLiON-SER-v1 .* config: \{model: DIR\}"):
        made.open()
    with pytest.raises(ConfigError, match="needs a revision"):
        MeralionSer(model="someone/else", trust_remote_code=True).open()
