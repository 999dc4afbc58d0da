"""One contract for every registered labeller: what a study and a run may rely on, whoever wrote the adapter.

Where weights are somebody else's and cannot be had here, they are random, in the architecture and the files of the release.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.contract import checkpoints
from tests.contract.checkpoints import asked
from undertone.audio import Wave
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label.catalogue import about, overview
from undertone.label.protocol import LABELLERS, Category, Heard, Labeller, Scalar, Value, labeller
from undertone.label.weights import Weights

RATE_HZ = 16_000
BATCH_TOLERANCE = 1e-4


class Case(NamedTuple):
    """How a labeller is built here: the packages that this takes, and from an empty folder its configuration."""

    packages: tuple[str, ...] = ()
    build: Callable[[Path], dict[str, Any]] = lambda _: {}


def _transformers(make: Callable[[], tuple[Any, Any]]) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"model": str(checkpoints.saved(checkpoints.lively(make), folder))}


def _emotion2vec(folder: Path) -> dict[str, Any]:
    return {"model": str(checkpoints.emotion2vec_release(folder, checkpoints.emotion2vec().state_dict()))}


def _ecapa(folder: Path) -> dict[str, Any]:
    importlib.import_module("safetensors.torch").save_file(checkpoints.ecapa_weights(), folder / "model.safetensors")
    return {"model": str(folder)}


def _whisper(folder: Path) -> dict[str, Any]:
    return {"model": str(checkpoints.make_whisper(folder)), "compute_type": "float32", "beam_size": 1, "language": "en"}


_HF = ("torch", "transformers")
CASES = {
    "affect-small": Case(("onnxruntime",)),
    "audeering-age-gender": Case(_HF, _transformers(checkpoints.age_gender)),
    "audeering-dim": Case(_HF, _transformers(checkpoints.dim)),
    "audio-classification": Case(_HF, _transformers(lambda: checkpoints.wav2vec2_like("wav2vec2", ("angry", "happy", "sad")))),
    "ecapa-gender": Case(("torch", "safetensors"), _ecapa),
    "emotion2vec": Case(("torch", "funasr", "omegaconf", "kaldiio", "librosa"), _emotion2vec),
    "faster-whisper": Case(("faster_whisper", "ctranslate2", "torch", "transformers", "tokenizers"), _whisper),
    "meralion-ser": Case(_HF, lambda folder: {"model": str(checkpoints.meralion_release(folder)), "trust_remote_code": True}),
    "pocketsphinx": Case(("pocketsphinx",)),
    "pyannote": Case(("torch", "pyannote.audio"), lambda folder: {"model": str(checkpoints.tiny_pipeline(folder))}),
    "resemblyzer-speakers": Case(
        ("torch",), lambda folder: {"model": str(checkpoints.resemblyzer_weights(folder / "pretrained.pt"))}
    ),
}
"""Those that need something to be built; all others are tested as they come."""
NAMES = LABELLERS.names()


def case(name: str) -> Case:
    return CASES.get(name, Case())


def tone(seconds: float, seed: int = 0, rate_hz: int = RATE_HZ) -> Wave:
    """Pulses of wandering pitch with a little noise, below 4 kHz, so that it is the same sound at any rate."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * (130 + 30 * seed) * time + 3 * np.sin(5 * time)
    sound = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.5 + 0.4 * np.sin(9 * time + seed))
    sound += sum(0.02 * np.sin(2 * np.pi * hz * time) for hz in (317.0, 977.0, 1_931.0, 3_137.0))
    return Wave((0.1 * sound).astype(np.float32), rate_hz)


def samples(values: np.ndarray) -> Wave:
    return Wave(values.astype(np.float32), RATE_HZ)


SOUNDS = {
    "tenth": tone(0.1),
    "silence": samples(np.zeros(2 * RATE_HZ)),
    "noise": samples(0.1 * np.random.default_rng(0).normal(size=2 * RATE_HZ)),
    "clipped": samples(np.clip(30 * tone(2.0).samples, -1.0, 1.0)),
    "speech-like": tone(2.0),
}
WAVES = [tone(seconds, seed) for seed, seconds in enumerate((1.0, 0.4, 2.3, 1.0, 1.7))]


def _absent(packages: tuple[str, ...]) -> list[str]:
    def there(package: str) -> bool:
        try:
            return importlib.util.find_spec(package) is not None
        except ModuleNotFoundError:
            return False

    return [package for package in packages if not there(package)]


@pytest.fixture(scope="module", autouse=True)
def place_of_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if _absent(_HF):
        yield
        return
    importlib.import_module("torch").set_num_threads(1)
    with checkpoints.modules_elsewhere(tmp_path_factory.mktemp("modules")):
        yield


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The configuration of a labeller, its weights built once."""

    @functools.cache
    def build(name: str) -> dict[str, Any]:
        return case(name).build(tmp_path_factory.mktemp(name))

    def config(name: str) -> dict[str, Any]:
        if absent := _absent(case(name).packages):
            pytest.skip(f"labeller {name!r} is not tested: {', '.join(absent)} not installed")
        return build(name)

    return config


@pytest.fixture
def made(request: pytest.FixtureRequest, configured: Callable[[str], dict[str, Any]]) -> Labeller:
    return LABELLERS.get(request.param, configured(request.param))


every = pytest.mark.parametrize("made", NAMES, indirect=True)


def say(one: Labeller, waves: list[Wave], *, gap_ms: int = 500) -> list[Heard]:
    """What it says about each wave; a labeller of recordings hears them one after the other in one."""
    if one.hears != "recording":
        return one.heard([asked(wave, 1_000) for wave in waves])
    listener, at_ms = one.listen(), 1_000
    for wave in waves:
        listener.hear(one.at_rate(wave), at_ms)
        at_ms += wave.duration_ms + gap_ms
    return [one.signed(listener.finish(), (1_000, at_ms), origin_ms=0)]


def scores(heard: Heard) -> dict[str, float]:
    found: dict[str, float] = {}
    for label in heard.labels:
        key = f"{label.attribute} {label.start_ms}"
        found |= {f"{key} {name}": number for name, number in (label.distribution or {}).items()}
        found |= {} if label.number is None else {key: label.number}
    return found


def test_every_case_is_a_labeller() -> None:
    assert set(CASES) <= set(NAMES)
    assert {"prosody", "speaker-change"} <= set(NAMES)


@every
def test_declares_what_a_study_must_know(made: Labeller) -> None:
    assert made.version
    assert made.hears in ("window", "segment", "recording")
    names = [one.attribute for one in made.emits]
    assert names
    assert len(set(names)) == len(names)
    if made.revision is not None and not isinstance(made, Weights):
        assert made.licence, "weights of its own, so their licence is known"
    maker = LABELLERS.maker(type(made).name if isinstance(made, Weights) else made.name)
    if isinstance(made, Weights) and type(made).revisions:
        assert getattr(maker, "licence", None), "weights by default, so their licence is known"


@every
def test_the_constructor_loads_nothing_and_the_labeller_travels(made: Labeller) -> None:
    fresh = pickle.dumps(made)
    assert len(fresh) < 4_096
    before = say(made, WAVES[:1])
    packed = pickle.dumps(made)
    assert len(packed) < 8_192, "the weights travel along"
    assert say(pickle.loads(packed), WAVES[:1]) == before


def test_constructors_import_no_framework() -> None:
    code = (
        "import sys; from undertone.label.protocol import LABELLERS\n"
        "for name in LABELLERS.names():\n"
        "    LABELLERS.get(name, {'model': 'x'} if name == 'audio-classification' else {})\n"
        "heavy = {'torch', 'transformers', 'funasr', 'faster_whisper', 'ctranslate2', 'pocketsphinx', 'pyannote.audio', 'resemblyzer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "[]", ran.stderr


@every
@pytest.mark.parametrize("sound", SOUNDS)
def test_any_sound_has_an_answer_in_what_is_declared(made: Labeller, sound: str) -> None:
    wave = SOUNDS[sound]
    (heard,) = say(made, [wave])
    declared = {one.attribute: one for one in made.emits}
    assert {label.attribute for label in heard.labels} == set(declared)
    for label in heard.labels:
        assert (label.number is None and label.category is None) == (label.reason is not None)
        assert 1_000 <= label.start_ms <= label.end_ms <= 1_500 + wave.duration_ms
        assert label.labeller == f"{made.name}@{made.version}"
        assert label.revision == made.revision
        assert all(np.isfinite([*(label.distribution or {}).values(), label.number or 0.0]))
        emission = declared[label.attribute]
        if isinstance(emission, Category) and emission.classes and label.category is not None:
            assert label.category in emission.classes
        if isinstance(emission, Scalar) and label.number is not None:
            low, high = (-np.inf if emission.low is None else emission.low), (np.inf if emission.high is None else emission.high)
            assert low <= label.number <= high
    if wave.duration_ms < made.min_ms:
        assert {label.reason for label in heard.labels} == {"too_short"}


@every
def test_says_the_same_twice(made: Labeller, configured: Callable[[str], dict[str, Any]]) -> None:
    first = say(made, WAVES)
    assert say(made, WAVES) == first
    assert say(LABELLERS.get(made.name, configured(made.name)), WAVES) == first


@every
def test_a_wave_gets_the_same_answer_beside_others_and_alone(made: Labeller) -> None:
    if made.hears == "recording":
        pytest.skip("it hears whole recordings, one at a time")
    made.batch = 3
    together = [scores(one) for one in say(made, WAVES)]
    made.batch = 1
    alone = [scores(say(made, [wave])[0]) for wave in WAVES]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=BATCH_TOLERANCE)


@every
def test_another_rate_is_the_same_sound(made: Labeller) -> None:
    """Through `at_rate`: resampling moves scores a little, hearing 48 kHz as 16 kHz would change duration, pitch and speed."""
    high = tone(2.0, rate_hz=48_000)
    assert made.at_rate(high).rate_hz == made.rate_hz
    (heard,) = say(made, [high])
    (own,) = say(made, [made.at_rate(high)])
    assert heard == own
    if "pitch_mean_hz" in {one.attribute for one in made.emits}:
        (plain,) = say(made, [tone(2.0)])
        assert scores(heard)["pitch_mean_hz 1000"] == pytest.approx(scores(plain)["pitch_mean_hz 1000"], rel=0.02)


@every
def test_what_it_runs_on_is_there(made: Labeller) -> None:
    made.check()
    made.open()


NO_HUB = [
    name
    for name in NAMES
    if isinstance(LABELLERS.maker(name), type) and issubclass(LABELLERS.maker(name), Weights) and name != "resemblyzer-speakers"
]


@pytest.mark.parametrize("name", NO_HUB)
def test_weights_that_are_not_here_are_named_before_any_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if absent := _absent(("huggingface_hub", *case(name).packages)):
        pytest.skip(f"{', '.join(absent)} not installed")
    constants = importlib.import_module("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    allowed = {"trust_remote_code": True} if name == "meralion-ser" else {}
    given = {"model": "nobody/none", "revision": "v1"} if name == "audio-classification" else {}
    one = LABELLERS.get(name, {**allowed, **given}, sign="mine")
    assert isinstance(one, Weights)
    with pytest.raises(DependencyError) as error:
        one.check()
    assert f"labeller 'mine': the weights of '{one.model}' (revision {one.pin})" in str(error.value)
    assert f"{{use: {name}, config: {{model: DIR}}}}" in str(error.value), "the study needs the name that is registered"


@pytest.mark.parametrize("name", [name for name in NAMES if case(name).packages and name != "affect-small"])
def test_absent_packages_are_named_before_any_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    config = {"model": str(tmp_path)} if name == "audio-classification" else {}
    config |= {"trust_remote_code": True} if name == "meralion-ser" else {}
    with pytest.raises(
        DependencyError, match=r"labeller 'mine' needs .*pip install \"undertone\[(label|asr|speakers|emotion2vec)\]\""
    ):
        LABELLERS.get(name, config, sign="mine").check()


@pytest.mark.parametrize("name", [name for name in NO_HUB if name != "faster-whisper"])
def test_a_device_that_is_not_there(name: str, configured: Callable[[str], dict[str, Any]]) -> None:
    config = configured(name)
    if importlib.import_module("torch").cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ModelError, match=rf"labeller {name!r}: device: got 'cuda', but torch sees no CUDA device"):
        LABELLERS.get(name, {**config, "device": "cuda"}).open()
    with pytest.raises(ConfigError, match=r"device: got 'graphics', expected cpu, cuda or cuda:N"):
        LABELLERS.get(name, {**config, "device": "graphics"}).open()


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_configuration_is_an_error_of_the_study(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"labeller {name!r} does not take this configuration: .*'no_such_key'"):
        LABELLERS.get(name, {"no_such_key": 1})


@every
def test_loading_and_hearing_say_nothing_on_the_terminal(made: Labeller, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    made.open()
    say(made, WAVES[:2])
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


# ---- undertone labellers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_says_what_a_user_must_know(name: str) -> None:
    text = about(name)
    assert text.startswith(f"{name}: ")
    for fact in ("version  ", "hears  ", "gives  ", "licence  ", f"{{use: {name}, config: {{...}}}}"):
        assert fact in text
    maker = LABELLERS.maker(name)
    for model, revision in getattr(maker, "revisions", {}).items():
        assert f"{model}@{revision}" in text


def test_the_overview_has_a_line_for_each() -> None:
    lines = list(overview())
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert next(line for line in lines if line.startswith("audio-classification")).split()[1] == "window"
    assert "where none is given" in about("audeering-dim")


@pytest.fixture
def wanting() -> Iterator[str]:
    @labeller("wanting", version="3", emits=[Scalar("gain", unit="dB")], hears="window")
    def wanting(wave: Wave, *, reference: float, floor: float = 0.5) -> list[Value]:
        """Wants a reference."""
        return []

    yield "wanting"
    LABELLERS.remove("wanting")


def test_a_function_that_wants_configuration_is_shown(wanting: str) -> None:
    text = about(wanting)
    assert "wanting: Wants a reference." in text
    assert "hears      a window" in text
    assert "gives      gain: a number in dB" in text
    assert "reference: float, needed" in text
    assert "floor: float, 0.5 by default" in text
    assert any(line.startswith("wanting") and "gain" in line for line in overview())


@pytest.mark.parametrize("name", ["prosody", "audeering-dim"])
def test_the_command_shows_it(name: str) -> None:
    environment = {**os.environ, "COLUMNS": "200"}
    ran = subprocess.run(
        [sys.executable, "-m", "undertone.cli", "labellers", name], capture_output=True, text=True, timeout=120, env=environment
    )
    assert f"{name}: " in ran.stdout, ran.stderr
