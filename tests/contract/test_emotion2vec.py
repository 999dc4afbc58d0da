"""The labeller emotion2vec on a tiny random network of FunASR's class, saved in the layout of the release."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.contract.checkpoints import EMOTION2VEC_CONFIG, TOKENS, emotion2vec, emotion2vec_release
from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label.emotion2vec import CLASSES, Emotion2vec
from undertone.label.protocol import LABELLERS, Category

torch = pytest.importorskip("torch", reason="torch is not installed: emotion2vec is not tested")
for _package in ("omegaconf", "kaldiio", "librosa"):
    pytest.importorskip(_package, reason=f"{_package} is not installed: FunASR's emotion2vec does not import")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    _handlers = list(logging.root.handlers)
    model_module = pytest.importorskip(
        "funasr.models.emotion2vec.model", reason="funasr is not installed: emotion2vec is not tested"
    )
    logging.root.handlers[:] = _handlers

torch.set_num_threads(1)


def noise(seconds: float, seed: int = 0) -> Wave:
    samples = np.random.default_rng(seed).normal(size=int(16_000 * seconds)).cumsum()
    return Wave((0.01 * (samples - samples.mean()) + 0.2).astype(np.float32), 16_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emotion2vec_release(tmp_path_factory.mktemp("emotion2vec"), emotion2vec().state_dict())


def scores(values) -> np.ndarray:
    return np.array([list(value.distribution.values()) for value in values])


def test_the_answer_is_that_of_funasr(folder: Path) -> None:
    waves = [noise(0.4, 1), noise(1.0, 2), noise(1.0, 3)]
    tokenizer = SimpleNamespace(token_list=list(TOKENS))
    sounds = [torch.from_numpy(wave.samples) for wave in waves]
    with torch.inference_mode():
        told, _ = emotion2vec().inference(
            sounds, key=["a", "b", "c"], tokenizer=tokenizer, device="cpu", granularity="utterance", extract_embedding=False
        )
    got = [answer[0] for answer in Emotion2vec(model=str(folder)).judge_many(waves)]
    np.testing.assert_allclose(scores(got), [one["scores"] for one in told], atol=1e-5)
    assert [value.category for value in got] == [CLASSES[int(np.argmax(one["scores"]))] for one in told]
    assert np.ptp(scores(got), axis=0).max() > 1e-3, "the random network hears no difference, so this test could not fail"


def test_a_batch_says_what_each_wave_alone_says(folder: Path) -> None:
    made = Emotion2vec(model=str(folder), batch=2)
    waves = [noise(seconds, seed) for seed, seconds in enumerate((0.3, 1.0, 1.0, 1.0, 1.02, 2.5))]
    alone = scores(made.judge(wave)[0] for wave in waves)
    np.testing.assert_allclose(scores(answer[0] for answer in made.judge_many(waves)), alone, atol=1e-5)
    np.testing.assert_array_equal(alone, scores(made.judge(wave)[0] for wave in waves))
    assert not made._loaded.network.alibi_biases, "the cache of distances would grow with the longest wave"


def test_waves_of_one_length_go_through_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Emotion2vec(model=str(folder), batch=8)
    original, seen = made._loaded.network.extract_features, []
    monkeypatch.setattr(
        made._loaded.network, "extract_features", lambda source, **k: seen.append(tuple(source.shape)) or original(source, **k)
    )
    made.judge_many([noise(1.0, seed) for seed in range(5)] + [noise(20.0, 5)] * 4)
    assert seen == [(5, 16_000), (3, 320_000), (1, 320_000)], "at most a minute of sound at once"


def test_labels_through_the_registry(folder: Path) -> None:
    made = LABELLERS.get("emotion2vec", {"model": str(folder)})
    assert made.emits == [Category("emotion", CLASSES)]
    assert (made.hears, made.rate_hz, made.min_ms, made.max_ms) == ("window", 16_000, 300, 30_000)
    (label,) = made.label(noise(1.0), start_ms=2_000)
    assert (label.start_ms, label.end_ms, label.labeller) == (2_000, 3_000, "emotion2vec@1")
    assert tuple(label.distribution) == CLASSES
    assert label.category == max(label.distribution, key=label.distribution.get)
    assert sum(label.distribution.values()) == pytest.approx(1.0)
    assert label.revision.startswith("sha256:")
    assert [one.reason for one in made.label(noise(0.1), start_ms=0)] == ["too_short"]
    assert [one.reason for one in made.label(Wave(np.zeros(31 * 16_000, np.float32), 16_000), start_ms=0)] == ["too_long"]


def test_outputs_that_are_not_used_get_no_score(tmp_path: Path) -> None:
    tokens = tuple("unuse_0" if "disgusted" in token else token for token in TOKENS)
    made = Emotion2vec(model=str(emotion2vec_release(tmp_path, emotion2vec().state_dict(), tokens)))
    classes = tuple(word for word in CLASSES if word != "disgusted")
    (value,) = made.judge(noise(1.0))
    assert made.emits == [Category("emotion", classes)]
    assert tuple(value.distribution) == classes
    assert sum(value.distribution.values()) == pytest.approx(1.0)


def test_loading_leaves_no_trace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers, threads = list(logging.root.handlers), torch.get_num_threads()
    Emotion2vec(model=str(folder)).open()
    assert (logging.root.handlers, torch.get_num_threads()) == (handlers, threads)
    assert capsys.readouterr().out == ""


def test_weights_that_are_not_numbers_abstain(tmp_path: Path) -> None:
    state = emotion2vec().state_dict()
    state["proj.bias"] = torch.full((len(TOKENS),), torch.nan)
    made = LABELLERS.get("emotion2vec", {"model": str(emotion2vec_release(tmp_path, state))})
    assert [(one.attribute, one.reason) for one in made.label(noise(1.0), start_ms=0)] == [("emotion", "not_finite")]


def test_an_old_scale_of_four_axes_is_read_as_upstream_reads_it(folder: Path, tmp_path: Path) -> None:
    state = emotion2vec().state_dict()
    state["modality_encoders.AUDIO.alibi_scale"] = state["modality_encoders.AUDIO.alibi_scale"].squeeze(0)
    made = Emotion2vec(model=str(emotion2vec_release(tmp_path, state)))
    assert made.judge(noise(1.0)) == Emotion2vec(model=str(folder)).judge(noise(1.0))


@pytest.mark.parametrize("lost", ["proj.weight", "blocks.1.attn.qkv.weight", "modality_encoders.AUDIO.extra_tokens"])
def test_missing_weights_are_named(tmp_path: Path, lost: str) -> None:
    state = emotion2vec().state_dict()
    del state[lost]
    with pytest.raises(ModelError, match=f"1 of .* weights are missing or do not fit config.yaml .*: {lost}; expected"):
        Emotion2vec(model=str(emotion2vec_release(tmp_path, state))).open()


def test_a_head_of_another_size_and_a_deeper_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the 8 classes of tokens\.txt: proj\.weight, proj\.bias"):
        Emotion2vec(model=str(emotion2vec_release(tmp_path, emotion2vec().state_dict(), TOKENS[:8]))).open()
    state = emotion2vec().state_dict()
    state["blocks.2.norm1.weight"] = torch.ones(16)
    with pytest.raises(ModelError, match=r"blocks\.2\.norm1\.weight"):
        Emotion2vec(model=str(emotion2vec_release(tmp_path, state))).open()


def test_a_folder_of_another_model_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks config\.yaml, tokens\.txt, model\.pt; expected the files of the model"):
        Emotion2vec(model=str(tmp_path)).open()
    emotion2vec_release(tmp_path, emotion2vec().state_dict())
    (tmp_path / "config.yaml").write_text("model: Paraformer\nmodel_conf: {}\n")
    with pytest.raises(ModelError, match="'Paraformer', expected 'Emotion2vec'"):
        Emotion2vec(model=str(tmp_path)).open()
    with pytest.raises(ConfigError, match="nothing is there"):
        Emotion2vec(model=str(tmp_path / "no")).open()


def test_the_hub_needs_a_revision_and_its_absence_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    def offline(*_args: object, **_kwargs: object) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    made = Emotion2vec()
    assert made.emits == [Category("emotion", CLASSES)]
    assert made.revision == "emotion2vec/emotion2vec_plus_base@b318240bfe67db81a8c572ecb37ce9c3759b81c9"
    with pytest.raises(DependencyError, match=r"hf download emotion2vec/emotion2vec_plus_base .* config: \{model: DIR\}"):
        made.open()
    with pytest.raises(ConfigError, match="needs a revision"):
        Emotion2vec(model="emotion2vec/emotion2vec_plus_seed").open()


@pytest.mark.parametrize(
    "code",
    [
        "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [__import__('pathlib').Path('ran').touch() or (8, 2, 2)]",
        "__import__('os').system('touch ran')",
        "[(8, 10, 5)] * 9 ** 9 ** 9",
        "[(8, 10, 5)] * 999999999",
        "[x for x in ()]",
        "",
    ],
)
def test_a_configuration_that_funasr_would_run_as_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] + [(8, 2, 2)]"
    assert sizes in EMOTION2VEC_CONFIG
    config = EMOTION2VEC_CONFIG.replace(f"'{sizes}'", json.dumps(code))
    made = Emotion2vec(model=str(emotion2vec_release(tmp_path, emotion2vec().state_dict(), config=config)))
    with pytest.raises(ModelError, match=r"feature_encoder_spec: got .* expected sizes such as"):
        made.open()
    assert not (tmp_path / "ran").exists()
