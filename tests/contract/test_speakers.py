"""Labellers that hear whole recordings: change of the speaker, d-vectors, and pyannote's pipelines.

Weights of `pyannote` are gated and the package needs torchaudio. Where it imports, a tiny pipeline with random weights is built on disk
and loaded by path. Where it does not, that one test is skipped with its reason, and the others run the adapter against an object of the
same interface: they test our blocks, times and names, and nothing of pyannote.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from tests.contract.checkpoints import resemblyzer_weights, tiny_pipeline
from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label import diarise, resemblyzer, speaker_change
from undertone.label.diarise import PyannoteLabeller
from undertone.label.protocol import Labeller, Value
from undertone.label.resemblyzer import Clusters, ResemblyzerLabeller, mel_40
from undertone.label.speaker_change import SpeakerChangeLabeller

RATE = 16_000


def voice(pitch_hz: float, formants: tuple[float, ...], seconds: float, seed: int = 0) -> Wave:
    """Pulses through resonances that wander a little, as vowels do: one "speaker" for each pitch and set of formants."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    steps = np.arange(0.0, seconds + 0.2, 0.1)
    wander = 1.0 + 0.12 * np.interp(time, steps, rng.standard_normal(len(steps)))
    sound = np.zeros(count)
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.05 * np.sin(5 * time))) / RATE
    for harmonic in range(1, int(6_000 / pitch_hz)):
        hz = harmonic * pitch_hz
        gain = sum(1.0 / (1.0 + ((hz - formant * wander) / 120.0) ** 2) for formant in formants)
        sound += gain * np.sin(harmonic * phase) / harmonic**0.5
    sound += 0.01 * rng.standard_normal(count)
    return Wave((0.3 * sound / np.abs(sound).max()).astype(np.float32), RATE)


LOW = (110.0, (500.0, 1_500.0, 2_500.0))
HIGH = (210.0, (850.0, 1_200.0, 3_300.0))


def say(labeller: Labeller, parts: list[tuple[int, Wave]]) -> list[Value]:
    listener = labeller.listen()
    for start_ms, wave in parts:
        listener.hear(wave, start_ms)
    return list(listener.finish())


def join(*waves: Wave) -> Wave:
    return Wave(np.concatenate([one.samples for one in waves]), RATE)


# ---- speaker-change ------------------------------------------------------------------------------------------------------------


def test_change_is_heard_between_and_inside_segments() -> None:
    a, again, b = voice(*LOW, 3.0), voice(*LOW, 3.0, seed=5), voice(*HIGH, 3.0, seed=2)
    parts = [(0, a), (4_000, again), (8_000, b), (12_000, join(voice(*HIGH, 2.5, seed=9), voice(*LOW, 2.5, seed=3)))]
    found = say(SpeakerChangeLabeller(threshold=4.0), parts)
    assert [one.category for one in found] == ["no", "no", "yes", "yes"]
    assert [(one.start_ms, one.end_ms) for one in found] == [(0, 3_000), (4_000, 7_000), (8_000, 11_000), (12_000, 17_000)]
    for one in found:
        assert one.distribution is not None
        assert sum(one.distribution.values()) == pytest.approx(1.0)
        assert (one.distribution["yes"] >= 0.5) == (one.category == "yes")
    signed = SpeakerChangeLabeller().signed(found, (0, 17_000), origin_ms=0).labels
    assert {label.attribute for label in signed} == {"speaker_change"}  # nothing about counts


def test_threshold_moves_the_answer_and_not_the_score() -> None:
    parts = [(0, voice(*LOW, 3.0)), (4_000, voice(*HIGH, 3.0))]
    scores = []
    for threshold in (3.0, 50.0):
        last = say(SpeakerChangeLabeller(threshold=threshold), parts)[-1]
        assert last.distribution is not None
        scores.append(threshold * last.distribution["yes"] / last.distribution["no"])
        assert last.category == ("yes" if threshold == 3.0 else "no")
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


@pytest.mark.parametrize("wave", [Wave(np.zeros(0, np.float32), RATE), Wave(np.zeros(48_000, np.float32), RATE), voice(*LOW, 0.4)])
def test_too_little_speech_abstains(wave: Wave) -> None:
    found = say(SpeakerChangeLabeller(), [(0, voice(*LOW, 3.0)), (5_000, wave)])
    assert (found[1].category, found[1].reason) == (None, "too_short")
    alone = say(SpeakerChangeLabeller(), [(0, voice(*LOW, 1.5))])  # nothing before it, and too short to be split
    assert alone[0].reason == "too_short"


def test_change_keeps_statistics_and_no_sound() -> None:
    listener = SpeakerChangeLabeller(memory_ms=5_000).listen()
    wave = voice(*LOW, 3.0)
    for number in range(12):
        listener.hear(wave, 4_000 * number)
    before = listener._before  # type: ignore[attr-defined]
    assert before.frames <= 500
    assert before.outer.shape == (12, 12)
    assert len(pickle.dumps(listener._before)) < 3_000  # type: ignore[attr-defined]


def test_ratio_is_that_of_the_likelihoods() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((300, 12)), rng.standard_normal((200, 12)) * 2 + 1

    def log_likelihood(frames: np.ndarray) -> float:
        covariance = np.cov(frames.T, bias=True) + 1e-3 * np.eye(12)
        return -0.5 * len(frames) * float(np.linalg.slogdet(covariance)[1])

    gain = log_likelihood(first) + log_likelihood(second) - log_likelihood(np.concatenate([first, second]))
    expected = gain / (0.5 * (12 + 78) * np.log(500))
    assert speaker_change.ratio(*map(speaker_change.statistics, (first, second))) == pytest.approx(expected, rel=1e-9)
    same = speaker_change.ratio(speaker_change.statistics(first[:150]), speaker_change.statistics(first[150:]))
    assert same < 1 < expected


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"least_ms": 10}, {"memory_ms": 100}])
def test_change_refuses_wrong_configuration(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="speaker-change"):
        SpeakerChangeLabeller(**wrong)


# ---- resemblyzer-speakers ------------------------------------------------------------------------------------------------------


PARTS = [(1_000, voice(*LOW, 3.0)), (5_000, voice(*HIGH, 3.0)), (9_000, voice(*LOW, 0.2)), (10_000, voice(*LOW, 0.6))]


def test_random_weights_cover_the_speech_with_turns(tmp_path: Path) -> None:
    labeller = ResemblyzerLabeller(model=str(resemblyzer_weights(tmp_path / "any.pt")), num_speakers=2)
    labeller.open()
    found = say(labeller, PARTS)
    assert found == say(labeller, PARTS)
    labels = labeller.signed(found, (0, 12_000), origin_ms=0).labels
    covered = sorted((label.start_ms, label.end_ms, label.reason) for label in labels)
    assert [one for one in covered if one[2]] == [(9_000, 9_200, "too_short")]
    spoken = np.zeros(12_000, int)
    for start, end, _ in covered:
        spoken[start:end] += 1
    expected = np.zeros(12_000, int)
    for start, wave in PARTS:
        expected[start : start + wave.duration_ms] = 1
    np.testing.assert_array_equal(spoken, expected)
    assert {label.category for label in labels} == {None, "speaker_0", "speaker_1"}
    assert labels[0].revision == labeller.revision
    assert labeller.revision.startswith("sha256:")
    again = pickle.loads(pickle.dumps(labeller))
    assert "_loaded" not in again.__dict__
    assert say(again, PARTS) == found


@pytest.mark.parametrize(("ms", "speakers"), [(200, {None}), (320, {"speaker_0"}), (450, {"speaker_0"})])
def test_a_segment_under_half_a_second_has_a_turn_from_300_ms_on(tmp_path: Path, ms: int, speakers: set[str | None]) -> None:
    labeller = ResemblyzerLabeller(model=str(resemblyzer_weights(tmp_path / "any.pt")))
    alone = say(labeller, [(1_000, voice(*LOW, ms / 1000))])
    beside = say(labeller, [(0, voice(*LOW, 3.0)), (4_000, voice(*LOW, ms / 1000))])
    for value, start_ms in ((alone[-1], 1_000), (beside[-1], 4_000)):
        assert {value.category} == speakers
        assert (value.start_ms, value.end_ms) == (start_ms, start_ms + ms)


def test_weights_that_are_not_finite_abstain(tmp_path: Path) -> None:
    labeller = ResemblyzerLabeller(model=str(resemblyzer_weights(tmp_path / "any.pt", value=float("nan"))))
    found = say(labeller, PARTS[:2])
    assert {one.reason for one in found} == {"not_finite"}
    assert labeller.signed(found, (0, 9_000), origin_ms=0).labels[0].reason == "not_finite"


def test_checkpoint_that_does_not_fit_names_what_is_missing(tmp_path: Path) -> None:
    path = resemblyzer_weights(tmp_path / "any.pt", spoil="lstm.weight_hh_l2")
    with pytest.raises(ModelError, match="weight_hh_l2"):
        ResemblyzerLabeller(model=str(path)).open()
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="does not load"):
        ResemblyzerLabeller(model=str(path)).open()
    with pytest.raises(ConfigError, match="nothing is there"):
        ResemblyzerLabeller(model=str(tmp_path / "absent.pt")).open()


def test_package_weights_tell_two_voices_apart() -> None:
    pytest.importorskip("torch", reason="torch is not installed").set_num_threads(1)
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer, whose wheel carries the weights, is not installed")
    parts = [(0, voice(*LOW, 4.0)), (5_000, voice(*HIGH, 4.0)), (10_000, voice(*LOW, 4.0, seed=4)), (15_000, voice(*LOW, 0.5))]
    found = say(ResemblyzerLabeller(), parts)
    assert [one.category for one in found] == ["speaker_0", "speaker_1", "speaker_0", "speaker_0"]
    assert "resemblyzer" not in sys.modules  # it wants librosa, which is not needed


def test_absent_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "resemblyzer" else found(name, *rest))
    with pytest.raises(DependencyError, match=r"'resemblyzer-speakers' needs resemblyzer: pip install \"undertone\[speakers\]\""):
        ResemblyzerLabeller().open()


def test_clusters_are_those_of_average_linkage() -> None:
    rng = np.random.default_rng(3)
    centres = np.abs(rng.standard_normal((4, 16)))
    raw = (centres[rng.integers(4, size=60)] + 0.35 * np.abs(rng.standard_normal((60, 16)))).astype(np.float32)
    vectors = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    clusters = Clusters(pool=100)
    numbers = [clusters.add(vector) for vector in vectors]
    clusters.merge(0.85, least=1)
    mine = [clusters.of(number) for number in numbers]
    theirs = fcluster(linkage(vectors, "average", metric="cosine"), 0.15, "distance")
    assert len(set(mine)) == len(set(theirs)) > 1
    assert len(set(zip(mine, theirs, strict=True))) == len(set(mine))


def test_clusters_stay_within_their_pool() -> None:
    rng = np.random.default_rng(4)
    clusters = Clusters(pool=10)
    numbers = []
    for index in range(200):
        vector = np.zeros(8, np.float32)
        vector[index % 2] = 1.0
        vector += 0.05 * np.abs(rng.standard_normal(8)).astype(np.float32)
        numbers.append(clusters.add(vector / np.linalg.norm(vector)))
        assert len(clusters.names) <= 10
    clusters.merge(0.6, least=1)
    assert len(clusters.names) == 2
    assert {clusters.of(one) for one in numbers[::2]} != {clusters.of(one) for one in numbers[1::2]}
    lost = clusters.names[0]
    clusters.dissolve(lost)
    assert {clusters.of(one) for one in numbers} == set(clusters.names)


def test_front_end_is_that_of_the_package() -> None:
    """Slaney mel bands against the filters of transformers; the spectrogram against a transform written out."""
    utils = pytest.importorskip("transformers.audio_utils", reason="transformers is not installed")
    filters = utils.mel_filter_bank(201, 40, 0.0, 8_000.0, RATE, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(resemblyzer._mel_filters(), filters, atol=1e-9)
    samples = voice(*LOW, 0.5).samples
    frame = np.pad(samples, 200)[7 * 160 : 7 * 160 + 400] * np.hanning(401)[:-1]
    power = np.abs(np.fft.fft(frame)[:201]) ** 2
    np.testing.assert_allclose(mel_40(samples)[7], power @ filters, rtol=1e-3, atol=1e-7)
    assert mel_40(samples).shape == (51, 40)


@pytest.mark.parametrize("make", [PyannoteLabeller, ResemblyzerLabeller])
def test_silence_has_no_turns_and_no_weights_are_loaded_for_it(make: Any) -> None:
    assert say(make(), []) == []


# ---- pyannote ------------------------------------------------------------------------------------------------------------------


class Turns:
    """What pyannote.core's Annotation has of use here."""

    def __init__(self, rows: list[tuple[float, float, str]]) -> None:
        self.rows = rows

    def itertracks(self, *, yield_label: bool) -> Iterator[tuple[Any, str, str]]:
        assert yield_label
        for number, (start, end, name) in enumerate(self.rows):
            yield types.SimpleNamespace(start=start, end=end), str(number), name


class FakePipeline:
    """Says that A speaks wherever there is sound, from a tenth of a second before it, and B in the first half second."""

    loaded: tuple[Any, ...] = ()
    heard: list[tuple[dict[str, Any], dict[str, Any]]]
    full = True

    def __init__(self) -> None:
        self.heard = []

    @classmethod
    def from_pretrained(cls, checkpoint: Any, revision: str | None = None) -> FakePipeline | None:
        cls.loaded = (checkpoint, revision)
        return None if "gated" in str(checkpoint) else cls()

    def to(self, device: Any) -> FakePipeline:
        self.device = device
        return self

    def __call__(self, file: dict[str, Any], **asked: Any) -> Any:
        self.heard.append((file, asked))
        loud = np.flatnonzero(np.abs(file["waveform"][0].numpy()) > 1e-4)
        cuts = np.flatnonzero(np.diff(loud) > 1_600)
        edges = zip([loud[0], *loud[cuts + 1]], [*loud[cuts], loud[-1]], strict=True)
        turns = Turns(
            [(a / RATE - 0.1, b / RATE, "SPEAKER_00") for a, b in edges] + [(0.0, 0.5, "SPEAKER_01"), (0.2, 0.2, "SPEAKER_02")]
        )
        return types.SimpleNamespace(speaker_diarization=turns) if self.full else turns


PIPELINE = "pipeline: {name: pyannote.audio.pipelines.SpeakerDiarization}\n"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> type[FakePipeline]:
    """Stands where pyannote.audio would be: for what of the adapter is ours; every pipeline of the hub has one configuration."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    config = tmp_path_factory.mktemp("hub") / "config.yaml"
    config.write_text(PIPELINE)
    for name in ("try_to_load_from_cache", "hf_hub_download"):
        monkeypatch.setattr(hub, name, lambda *_args, **_kwargs: str(config))
    pytest.importorskip("torch", reason="torch is not installed")
    for name in ("pyannote", "pyannote.audio"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        monkeypatch.setitem(sys.modules, name, module)
    made = type("Pipeline", (FakePipeline,), {})
    monkeypatch.setattr(sys.modules["pyannote.audio"], "Pipeline", made, raising=False)
    monkeypatch.delenv("PYANNOTE_METRICS_ENABLED", raising=False)
    return made


def tone(seconds: float) -> Wave:
    return Wave(np.full(int(seconds * RATE), 0.5, np.float32), RATE)


@pytest.mark.parametrize("full", [True, False])
def test_blocks_stand_at_their_true_place(fake: type[FakePipeline], tmp_path: Path, full: bool) -> None:
    fake.full = full  # type: ignore[misc]
    (tmp_path / "config.yaml").write_text(PIPELINE)
    labeller = PyannoteLabeller(model=str(tmp_path), block_minutes=0.2, num_speakers=2, max_speakers=3)
    found = say(labeller, [(2_000, tone(3)), (8_000, tone(2)), (13_000, tone(4)), (30_000, tone(1))])
    turns = [(one.category, one.start_ms, one.end_ms) for one in found]
    assert turns == [
        ("b0/SPEAKER_00", 2_000, 5_000),
        ("b0/SPEAKER_00", 7_900, 10_000),
        ("b0/SPEAKER_01", 2_000, 2_500),
        ("b1/SPEAKER_00", 13_000, 17_000),
        ("b1/SPEAKER_01", 13_000, 13_500),
        ("b2/SPEAKER_00", 30_000, 31_000),
        ("b2/SPEAKER_01", 30_000, 30_500),
    ]
    pipeline = labeller._loaded
    assert [file["waveform"].shape for file, _ in pipeline.heard] == [(1, 8 * RATE), (1, 4 * RATE), (1, RATE)]
    assert all(file["sample_rate"] == RATE and asked == {"num_speakers": 2, "max_speakers": 3} for file, asked in pipeline.heard)
    np.testing.assert_allclose(pipeline.heard[0][0]["waveform"][0, :RATE], 0.5, atol=1e-4)
    assert not pipeline.heard[0][0]["waveform"][0, 3 * RATE : 6 * RATE].any()
    labels = labeller.signed(found, (0, 31_000), origin_ms=0).labels
    assert labels[0].revision == labeller.revision
    assert "_loaded" not in pickle.loads(pickle.dumps(labeller)).__dict__
    assert os.environ["PYANNOTE_METRICS_ENABLED"] == "false"


def test_held_sound_is_16_bit_and_of_one_block(fake: type[FakePipeline], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(PIPELINE)
    listener = PyannoteLabeller(model=str(tmp_path), block_minutes=0.2).listen()
    for number in range(20):
        listener.hear(tone(3), 4_000 * number)
        held = listener._held  # type: ignore[attr-defined]
        assert sum(samples.nbytes for _, samples in held) <= 0.2 * 60 * RATE * 2
        assert all(samples.dtype == np.int16 for _, samples in held)


def test_default_pipeline_has_its_commit_and_others_need_one(fake: type[FakePipeline]) -> None:
    labeller = PyannoteLabeller()
    assert labeller.revision == f"{diarise.COMMUNITY_1}@{diarise.COMMUNITY_1_REVISION}"
    labeller.open()
    assert fake.loaded == (diarise.COMMUNITY_1, diarise.COMMUNITY_1_REVISION)
    with pytest.raises(ConfigError, match="needs a revision"):
        PyannoteLabeller(model="pyannote/speaker-diarization-3.1").open()

    def third(cls: type[FakePipeline], checkpoint_path: str, use_auth_token: str | None = None) -> FakePipeline:
        cls.loaded = (checkpoint_path,)
        return cls()

    fake.from_pretrained = classmethod(third)  # type: ignore[assignment]
    PyannoteLabeller(model="some/pipeline", revision="abc").open()
    assert fake.loaded == ("some/pipeline@abc",)


@pytest.mark.parametrize(
    "told",
    [
        "pipeline: {name: subprocess.Popen, params: {args: [true]}}",
        "pipeline: {name: pyannote.audio.core.model.import_module}",
        "pipeline: {name: Popen}",
        "pipeline: {name: pyannote.audio.pipelines.SpeakerDiarization}\npreprocessors: {x: {name: os.system, params: {}}}",
    ],
)
def test_a_configuration_may_name_pyannote_s_classes_only(fake: type[FakePipeline], tmp_path: Path, told: str) -> None:
    (tmp_path / "config.yaml").write_text(told)
    for model in (tmp_path, tmp_path / "config.yaml"):
        with pytest.raises(
            ModelError, match=r"names the class '(subprocess.Popen|pyannote.*import_module|Popen|os.system)', expected"
        ):
            PyannoteLabeller(model=str(model)).open()
    assert fake.loaded == ()


def test_gated_pipeline_says_what_to_do(fake: type[FakePipeline]) -> None:
    with pytest.raises(DependencyError, match="accept the conditions of some/gated") as error:
        PyannoteLabeller(model="some/gated", revision="abc").open()
    assert "hf download some/gated --revision abc" in str(error.value)


@pytest.mark.parametrize("parent", [True, False])
def test_absent_pyannote_says_what_to_install(monkeypatch: pytest.MonkeyPatch, parent: bool) -> None:
    found = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        if name == "pyannote.audio" and not parent:
            raise ModuleNotFoundError("No module named 'pyannote'")
        return None if name == "pyannote.audio" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(DependencyError, match=r"needs pyannote\.audio: pip install \"undertone\[speakers\]\"; or use 'resemblyzer"):
        PyannoteLabeller().open()


def test_pyannote_that_does_not_import_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch, fake: type[FakePipeline]) -> None:
    def broken(name: str) -> Any:
        raise OSError("Could not load this library: _torchaudio.abi3.so")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(DependencyError, match=r"pyannote\.audio does not import \(OSError: Could not load"):
        PyannoteLabeller().open()


@pytest.mark.parametrize("wrong", [{"num_speakers": 0}, {"block_minutes": 0.0}, {"min_speakers": -1}])
def test_pyannote_refuses_wrong_configuration(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="pyannote"):
        PyannoteLabeller(**wrong)


def test_real_pipeline_with_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYANNOTE_METRICS_ENABLED", "false")
    try:
        importlib.import_module("pyannote.audio")
    except (ImportError, OSError) as error:
        pytest.skip(f"pyannote.audio does not import here: {type(error).__name__}: {error}")
    labeller = PyannoteLabeller(model=str(tiny_pipeline(tmp_path / "tiny")), block_minutes=0.15)
    parts = [(1_000, voice(*LOW, 4.0)), (6_000, voice(*HIGH, 3.0)), (20_000, voice(*LOW, 3.0))]
    found = say(labeller, parts)
    assert found == say(labeller, parts)
    labels = labeller.signed(found, (0, 23_000), origin_ms=0).labels
    assert {str(label.category).split("/")[0] for label in labels} == {"b0", "b1"}
    assert all(1_000 <= label.start_ms < label.end_ms <= 23_000 and label.reason is None for label in labels)
    one = PyannoteLabeller(model=labeller.model, num_speakers=1)
    assert {value.category for value in say(one, parts)} == {"b0/SPEAKER_00"}
    (tmp_path / "tiny" / "segmentation" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="does not load"):
        PyannoteLabeller(model=labeller.model).open()
