"""The labellers on transformers checkpoints, loaded by path: tiny random models of the same architectures, written to disk here."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.checkpoints import (
    age_gender,
    asked,
    ast,
    biased,
    dim,
    lively,
    names,
    regressor,
    saved,
    wav2vec2_bert,
    wav2vec2_like,
    whisper,
)
from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label import weights
from undertone.label.audeering import DIM_MODEL, DIM_ORDER, DIM_REVISION, GENDERS
from undertone.label.events import EVENTS, FROM_SOUNDS, to_event
from undertone.label.protocol import LABELLERS, Category, Labeller
from undertone.records import Label

torch = pytest.importorskip("torch", reason="the transformers labellers need torch, which is not installed")
transformers = pytest.importorskip("transformers", reason="the transformers labellers need transformers, which is not installed")

EMOTIONS = ("angry", "happy", "neutral", "sad")
RATE_HZ = 16_000
TOLERANCE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


Make = Callable[[], tuple[Any, Any]]
CASES: dict[str, tuple[str, Make, dict[str, Any]]] = {
    "wav2vec2": ("audio-classification", lambda: wav2vec2_like("wav2vec2", EMOTIONS), {}),
    "wav2vec2-group": ("audio-classification", lambda: wav2vec2_like("wav2vec2", EMOTIONS, norm="group"), {}),
    "wavlm": (
        "audio-classification",
        lambda: wav2vec2_like("wavlm", ("female", "male")),
        {"attribute": "gender", "hears": "segment"},
    ),
    "hubert-group": ("audio-classification", lambda: wav2vec2_like("hubert", EMOTIONS, norm="group"), {}),
    "whisper": ("audio-classification", lambda: whisper(EMOTIONS), {}),
    "ast": ("audio-classification", lambda: ast(("Speech", "Music", "Laughter")), {"attribute": "event"}),
    "wav2vec2-bert": ("audio-classification", lambda: wav2vec2_bert(EMOTIONS), {}),
    "audeering-dim": ("audeering-dim", dim, {}),
    "audeering-age-gender": ("audeering-age-gender", age_gender, {}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, (_, make, _) in CASES.items():
        made[name] = saved(lively(make), tmp_path_factory.mktemp("weights") / name)
    return made


def opened(case: str, folders: Mapping[str, Path], **config: Any) -> Labeller:
    name, _, settings = CASES[case]
    return LABELLERS.get(name, {"model": str(folders[case]), **settings, **config})


def wave(seconds: float, seed: int = 0) -> Wave:
    """A harmonic tone of wandering pitch in noise: far from constant for every model."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * (120 + 40 * seed) * time + 3 * np.sin(5 * time)
    sound = sum(np.sin(k * phase) / k for k in range(1, 6)) * (0.4 + 0.3 * np.sin(9 * time + seed))
    return Wave((0.1 * sound + 0.02 * random.normal(size=len(time))).astype(np.float32), RATE_HZ)


WAVES = [wave(seconds, seed) for seed, seconds in enumerate((1.0, 0.4, 2.3, 1.0, 1.7))]


def numbers(labels: Sequence[Label]) -> np.ndarray:
    found = []
    for one in labels:
        assert one.reason is None, one
        found += [*([] if one.number is None else [one.number]), *(one.distribution or {}).values()]
    return np.array(found)


def heard(labeller: Labeller, waves: Sequence[Wave]) -> list[list[Label]]:
    return [one.labels for one in labeller.heard([asked(each, 1_000) for each in waves])]


@pytest.mark.parametrize("case", CASES)
def test_labels_every_wave(case: str, folders: dict[str, Path]) -> None:
    labeller = opened(case, folders)
    labeller.open()
    for labels, each in zip(heard(labeller, WAVES), WAVES, strict=True):
        assert {one.attribute for one in labels} == {one.attribute for one in labeller.emits}
        for one in labels:
            assert one.reason is None
            assert (one.start_ms, one.end_ms) == (1_000, 1_000 + each.duration_ms)
            assert one.labeller == f"{labeller.name}@1"
            assert one.revision is not None
            assert one.revision.startswith("sha256:")


@pytest.mark.parametrize("case", CASES)
def test_a_wave_gets_the_same_answer_in_a_batch_and_alone(case: str, folders: dict[str, Path]) -> None:
    together = heard(opened(case, folders, batch=5), WAVES)
    alone = [heard(opened(case, folders, batch=1), [each])[0] for each in WAVES]
    by_wave = [numbers(one) for one in alone]
    assert max(np.abs(a - b).max() for a in by_wave for b in by_wave) > 100 * TOLERANCE, "all waves sound alike to this model"
    for one, other in zip(together, by_wave, strict=True):
        np.testing.assert_allclose(numbers(one), other, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["wav2vec2", "wav2vec2-group"])
def test_only_models_that_mask_share_a_batch_between_lengths(case: str, folders: dict[str, Path]) -> None:
    labeller: Any = opened(case, folders, batch=3)
    lengths = [len(one.samples) for one in WAVES]
    assert labeller._groups(lengths) == ([[1, 0, 3], [4, 2]] if case == "wav2vec2" else [[1], [0, 3], [4], [2]])


@pytest.mark.parametrize("case", CASES)
def test_says_the_same_twice(case: str, folders: dict[str, Path]) -> None:
    labeller = opened(case, folders)
    assert heard(labeller, WAVES) == heard(labeller, WAVES) == heard(opened(case, folders), WAVES)


@pytest.mark.parametrize("case", CASES)
def test_travels_to_another_process(case: str, folders: dict[str, Path]) -> None:
    labeller = opened(case, folders)
    before = heard(labeller, WAVES[:1])
    sent = pickle.dumps(labeller)
    assert len(sent) < 4_096, "the weights travel along"
    assert heard(pickle.loads(sent), WAVES[:1]) == before


@pytest.mark.parametrize("case", CASES)
def test_a_tenth_of_a_second_is_too_short(case: str, folders: dict[str, Path]) -> None:
    short = heard(opened(case, folders), [wave(0.1), WAVES[0]])
    assert {one.reason for one in short[0]} == {"too_short"}
    assert {one.reason for one in short[1]} == {None}


@pytest.mark.parametrize("case", [name for name, (labeller, _, _) in CASES.items() if labeller == "audio-classification"])
def test_a_tenth_of_a_second_can_be_asked_for(case: str, folders: dict[str, Path]) -> None:
    assert numbers(heard(opened(case, folders, min_ms=100), [wave(0.1), WAVES[0]])[0]).sum() > 0


@pytest.mark.parametrize("case", CASES)
def test_silence_has_an_answer(case: str, folders: dict[str, Path]) -> None:
    assert np.isfinite(numbers(heard(opened(case, folders), [Wave(np.zeros(RATE_HZ, np.float32), RATE_HZ)])[0])).all()


@pytest.mark.parametrize("case", CASES)
def test_weights_that_are_not_numbers_abstain(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    name, make, settings = CASES[case]
    net, extractor = make()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if "bias" in key and ("classifier" in key or key.startswith(("age", "gender"))):
                parameter.fill_(float("nan"))
    broken = LABELLERS.get(name, {"model": str(saved((net, extractor), tmp_path)), **settings})
    assert {one.reason for one in heard(broken, WAVES[:2])[0]} == {"not_finite"}


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_without_its_head_is_refused(case: str, folders: dict[str, Path], tmp_path: Path) -> None:
    name, make, settings = CASES[case]
    net, extractor = make()
    weights = {key: value for key, value in net.state_dict().items() if not key.startswith(("classifier", "gender"))}
    net.save_pretrained(tmp_path, state_dict=weights)
    extractor.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lacks \d+ of the model's tensors \((classifier|gender)\."):
        LABELLERS.get(name, {"model": str(tmp_path), **settings}).open()


def test_a_head_of_another_size_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = saved(wav2vec2_like("wav2vec2", EMOTIONS), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "angry", "1": "calm", "2": "sad"}, "label2id": {"angry": 0, "calm": 1, "sad": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not load"):
        LABELLERS.get("audio-classification", {"model": str(folder)}).open()


def test_another_architecture_is_no_audeering_model(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"lacks .* \(age\.dense\.bias, .* does not use \(classifier\."):
        LABELLERS.get("audeering-age-gender", {"model": str(folders["audeering-dim"])}).open()
    with pytest.raises(ModelError, match=r"angry, happy, neutral, sad .*expected arousal, dominance, valence"):
        LABELLERS.get("audeering-dim", {"model": str(folders["wav2vec2"])}).open()


def test_reads_old_checkpoints(folders: dict[str, Path], tmp_path: Path) -> None:
    """The age and gender weights are a pytorch_model.bin whose weight norms have the names that torch gave them before version 2."""
    net, extractor = lively(age_gender)
    old = {
        key.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v"): value
        for key, value in net.state_dict().items()
        if key != "wav2vec2.masked_spec_embed"
    }
    assert sum(key.endswith(("weight_g", "weight_v")) for key in old) == 2
    net.config.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    torch.save(old, tmp_path / "pytorch_model.bin")
    read = heard(LABELLERS.get("audeering-age-gender", {"model": str(tmp_path)}), WAVES[:1])
    expected = heard(opened("audeering-age-gender", folders), WAVES[:1])
    np.testing.assert_allclose(numbers(read[0]), numbers(expected[0]), atol=TOLERANCE)


def test_classes_are_those_of_the_configuration_and_need_no_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folders["wavlm"] / "config.json").read_text())
    labeller = LABELLERS.get("audio-classification", {"model": str(tmp_path), "attribute": "gender"})
    assert list(labeller.emits) == [Category("gender", ("female", "male"))]
    config = json.loads((tmp_path / "config.json").read_text())
    del config["id2label"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    unnamed = LABELLERS.get("audio-classification", {"model": str(tmp_path), "attribute": "gender"})
    assert list(unnamed.emits) == [Category("gender", ("LABEL_0", "LABEL_1"))]


def test_emits_loads_neither_torch_nor_transformers(folders: dict[str, Path]) -> None:
    code = (
        "import sys; from undertone.label.protocol import LABELLERS\n"
        f"one = LABELLERS.get('audio-classification', {{'model': {str(folders['wavlm'])!r}}}); print(one.emits[0].classes)\n"
        "import undertone.label.audeering, undertone.label.events\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "('female', 'male')" in ran.stdout


def test_the_class_that_a_head_prefers_has_its_name(tmp_path: Path) -> None:
    net, extractor = wav2vec2_like("wavlm", ("zebra", "apple", "mango"))
    biased(net.classifier, 0.0, 2.0, 1.0)
    labeller = LABELLERS.get("audio-classification", {"model": str(saved((net, extractor), tmp_path)), "attribute": "accent"})
    (label,) = heard(labeller, WAVES[:1])[0]
    assert label.category == "apple"
    assert label.distribution == pytest.approx({"zebra": 0.0900, "apple": 0.6652, "mango": 0.2447}, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "settings", "config", "independent"),
    [
        (lambda: ast(("Speech", "Music", "Cough")), {}, {}, True),  # AudioSet, whose configuration does not say so
        (lambda: ast(("yes", "no", "stop")), {}, {}, False),
        (lambda: ast(("Speech", "Music", "Cough")), {"activation": "softmax"}, {}, False),
        (lambda: wav2vec2_like("wav2vec2", ("a", "b", "c")), {}, {"problem_type": "multi_label_classification"}, True),
        (lambda: wav2vec2_like("wav2vec2", ("a", "b", "c")), {"activation": "sigmoid"}, {}, True),
        (lambda: wav2vec2_like("wav2vec2", ("a", "b", "c")), {}, {}, False),
    ],
)
def test_probabilities_of_each_class_or_over_all(
    make: Make, settings: dict[str, Any], config: dict[str, Any], independent: bool, tmp_path: Path
) -> None:
    net, extractor = make()
    biased(net.classifier if hasattr(net.classifier, "weight") else net.classifier.dense, 0.0, 2.0, 1.0)
    net.config.update(config)
    labeller = LABELLERS.get("audio-classification", {"model": str(saved((net, extractor), tmp_path)), **settings})
    (label,) = heard(labeller, WAVES[:1])[0]
    expected = [0.5, 0.8808, 0.7311] if independent else [0.0900, 0.6652, 0.2447]
    assert list((label.distribution or {}).values()) == pytest.approx(expected, abs=1e-4)


def test_dimensions_come_in_our_order_and_scale(tmp_path: Path) -> None:
    net, extractor = dim()
    biased(net.classifier.out_proj, 0.8, -0.1, 1.25)  # arousal, dominance, valence
    labeller = LABELLERS.get("audeering-dim", {"model": str(saved((net, extractor), tmp_path))})
    labels = heard(labeller, WAVES[:1])[0]
    assert [one.attribute for one in labels] == ["valence", "arousal", "dominance"]
    assert [one.number for one in labels] == pytest.approx([1.0, 0.8, 0.0], abs=1e-6)
    assert [(one.distribution or {})["raw"] for one in labels] == pytest.approx([1.25, 0.8, -0.1], abs=1e-6)


def test_dimensions_in_another_order_are_refused(tmp_path: Path) -> None:
    made = regressor({"classifier": 3}, **names(("valence", "arousal", "dominance")))
    with pytest.raises(ModelError, match=r"are valence, arousal, dominance .*expected arousal, dominance, valence"):
        LABELLERS.get("audeering-dim", {"model": str(saved(made, tmp_path))}).open()


def test_age_in_years_and_gender_by_name(tmp_path: Path) -> None:
    net, extractor = age_gender()
    biased(net.age.out_proj, 0.34)
    biased(net.gender.out_proj, 1.0, 2.0, 0.0)
    labeller = LABELLERS.get("audeering-age-gender", {"model": str(saved((net, extractor), tmp_path))})
    age, gender = heard(labeller, WAVES[:1])[0]
    assert (age.attribute, age.number) == ("age", pytest.approx(34.0, abs=1e-3))
    assert age.distribution == {"raw": pytest.approx(0.34, abs=1e-5)}
    assert (gender.category, tuple(gender.distribution or {})) == ("male", GENDERS)
    assert sum((gender.distribution or {}).values()) == pytest.approx(1.0)


def test_the_head_is_the_published_formula(folders: dict[str, Path]) -> None:
    """Mean over time of the encoder's last layer, dense, tanh, projection, on a wave of mean 0 and variance 1: in numpy."""
    weights = {key: value.numpy() for key, value in dim_weights(folders["audeering-dim"]).items()}
    encoder = transformers.Wav2Vec2Model.from_pretrained(folders["audeering-dim"]).eval()
    samples = WAVES[0].samples
    normal = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    with torch.inference_mode():
        pooled = encoder(torch.from_numpy(normal)[None]).last_hidden_state.mean(dim=1)[0].numpy()
    hidden = np.tanh(weights["classifier.dense.weight"] @ pooled + weights["classifier.dense.bias"])
    expected = weights["classifier.out_proj.weight"] @ hidden + weights["classifier.out_proj.bias"]
    raw = {one.attribute: (one.distribution or {})["raw"] for one in heard(opened("audeering-dim", folders), WAVES[:1])[0]}
    assert [raw[name] for name in DIM_ORDER] == pytest.approx(expected.tolist(), abs=1e-5)


def dim_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("case", ["whisper", "ast"])
def test_what_the_model_does_not_hear_to_the_end_it_does_not_label(case: str, folders: dict[str, Path]) -> None:
    long, fits = heard(opened(case, folders), [wave(3.2), wave(3.0)])
    assert [one.reason for one in long] == ["too_long"]
    assert [one.reason for one in fits] == [None]


def test_the_classes_of_a_model_on_the_hub_want_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DependencyError, match="nobody/no-such-model"):
        _ = LABELLERS.get("audio-classification", {"model": "nobody/no-such-model", "revision": "v1"}).emits


def test_a_name_on_the_hub_needs_a_revision_and_a_path_a_checkpoint() -> None:
    with pytest.raises(ConfigError, match="needs a revision"):
        _ = LABELLERS.get("audio-classification", {"model": "someone/model"}).emits
    with pytest.raises(ConfigError, match="nothing is there"):
        LABELLERS.get("audeering-dim", {"model": "./no/such/folder"}).open()


def test_code_that_comes_with_a_checkpoint_does_not_run(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does transformers ask on the terminal whether it may; here somebody would say yes."""
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": questions.append(question) or "y")
    folder = Path(shutil.copytree(folders["wav2vec2"], tmp_path / "checkpoint"))
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {name: f"own.{name}" for name in ("AutoConfig", "AutoModelForAudioClassification")}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"does not load \(ValueError: .*contains custom code"):
        LABELLERS.get("audio-classification", {"model": str(folder)}).open()
    assert not ran.exists()
    assert questions == []


def test_the_digest_is_of_the_model_and_is_made_once(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(folders["wav2vec2"], tmp_path / "checkpoint"))
    plain = LABELLERS.get("audio-classification", {"model": str(folder)}).revision
    for hidden in (".cache/huggingface/download/config.json.metadata", ".git/HEAD", ".DS_Store", "sub/.DS_Store"):
        (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
        (folder / hidden).write_text("when it was fetched")
    labeller = LABELLERS.get("audio-classification", {"model": str(folder)})
    assert labeller.revision == plain
    before = heard(labeller, WAVES[:1])
    monkeypatch.setattr(weights, "revision_of", lambda *_: pytest.fail("the folder is read again"))
    assert heard(labeller, WAVES[:1]) == before
    monkeypatch.undo()
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert LABELLERS.get("audio-classification", {"model": str(folder)}).revision != plain


@pytest.mark.parametrize("branch", ["main", "master", "refs/heads/x", "HEAD"])
def test_a_branch_is_no_revision(branch: str) -> None:
    with pytest.raises(ConfigError, match=rf"revision: got '{branch}', which moves .* expected a commit or a tag of someone/model"):
        LABELLERS.get("audio-classification", {"model": "someone/model", "revision": branch}).check()


def test_the_default_models_are_pinned() -> None:
    assert LABELLERS.get("audeering-dim").revision == f"{DIM_MODEL}@{DIM_REVISION}"
    with pytest.raises(ConfigError, match="needs a revision"):
        _ = LABELLERS.get("audeering-dim", {"model": "someone/else"}).revision


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"batch": 0}, "batch: got 0"),
        ({"activation": "relu"}, "config.activation: got 'relu'"),
        ({"min_ms": 5}, "min_ms: got 5, expected at least 25"),
        ({"hears": "recording"}, "config.hears: got 'recording'"),
    ],
)
def test_configuration_is_checked(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LABELLERS.get("audio-classification", {"model": "x", **config})


def test_the_rate_is_the_models(tmp_path: Path) -> None:
    net, _ = wav2vec2_like("wav2vec2", EMOTIONS)
    saved((net, transformers.Wav2Vec2FeatureExtractor(sampling_rate=8_000)), tmp_path)
    with pytest.raises(ModelError, match="wants 8000 Hz, got rate_hz 16000"):
        LABELLERS.get("audio-classification", {"model": str(tmp_path)}).open()
    resampled = LABELLERS.get("audio-classification", {"model": str(tmp_path), "rate_hz": 8_000})
    assert numbers(heard(resampled, WAVES[:1])[0]).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("classes", "settings"), [(("same", "same"), {}), (("age",), {}), (EMOTIONS, {"problem_type": "regression"})]
)
def test_what_is_no_classifier_is_refused(classes: Sequence[str], settings: dict[str, str], tmp_path: Path) -> None:
    config = {"model_type": "wav2vec2", "id2label": {str(index): name for index, name in enumerate(classes)}, **settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is no classifier of different classes"):
        _ = LABELLERS.get("audio-classification", {"model": str(tmp_path)}).emits


def test_events_have_one_meaning_each() -> None:
    assert tuple(FROM_SOUNDS) == EVENTS
    words = [word for row in FROM_SOUNDS.values() for word in row]
    assert len(words) == len(set(words))
    assert len(words) > 90
    for event, row in FROM_SOUNDS.items():
        assert {to_event(word) for word in (event, *row)} == {event}, f"a word of {event} is not written as it is looked up"


@pytest.mark.parametrize(
    ("word", "event"),
    [
        ("Chuckle, chortle", "laughter"),
        ("Baby cry, infant cry", "crying"),
        ("teeth-chattering", "mouth_noise"),
        ("throat-clearing", "throat_clearing"),
        ("nose-blowing", "mouth_noise"),
        (" Screaming ", "scream"),
        ("Speech", None),
        ("Male speech, man speaking", None),
        ("Gasp", None),
        ("Dog", None),
        ("", None),
    ],
)
def test_sounds_in_our_words(word: str, event: str | None) -> None:
    assert to_event(word) == event


def test_every_non_verbal_sound_of_the_shared_corpus_is_an_event(shared_data: Path) -> None:
    rows = (shared_data / "deeply-nonverbal" / "manifest.csv").read_text().splitlines()
    kinds = {row.split(",")[5] for row in rows[1:]}
    assert len(kinds) == 16
    assert None not in {to_event(kind) for kind in kinds}
