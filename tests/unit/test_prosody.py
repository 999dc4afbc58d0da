"""Prosody on signals whose answer is known and on real speech; the labeller protocol; the windows of affect-small."""

import csv
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from undertone.audio import Wave, load
from undertone.errors import ConfigError, DependencyError, ModelError
from undertone.label import protocol
from undertone.label.affect_labeller import AffectLabeller
from undertone.label.prosody import pitch, prosody
from undertone.label.protocol import LABELLERS, Asked, Category, Labeller, Scalar, Value, abstain, category, labeller, scalar
from undertone.records import Label

RATE = 16_000
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def voice(hz: np.ndarray, *, gain: np.ndarray | float = 1.0) -> Wave:
    """Harmonics of a pitch contour, shape (n,)."""
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 10))
    return Wave((0.1 * gain * tone).astype(np.float32), RATE)


def measured(wave: Wave) -> dict[str, float]:
    return {one.attribute: one.number for one in LABELLERS.get("prosody").label(wave, start_ms=0) if one.number is not None}


# ---- prosody -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [80.0, 113.0, 220.0, 331.7, 450.0])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_mean_pitch_of_a_steady_voice(hz: float, noise: float):
    wave = voice(np.full(RATE, hz))
    wave = Wave(wave.samples + noise * np.random.default_rng(0).standard_normal(RATE).astype(np.float32), RATE)
    found = measured(wave)
    assert found["pitch_mean_hz"] == pytest.approx(hz, rel=0.005)
    assert found["pitch_range_st"] < 0.5


def test_pitch_range_of_a_glide():
    octave = np.geomspace(110, 220, 3 * RATE)
    assert measured(voice(octave))["pitch_range_st"] == pytest.approx(0.9 * 12, abs=0.3)


def test_a_pure_tone_and_a_missing_fundamental():
    t = np.arange(RATE) / RATE
    tone = Wave((0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32), RATE)
    assert measured(tone)["pitch_mean_hz"] == pytest.approx(200, rel=0.005)
    telephone = Wave((0.1 * sum(np.sin(2 * np.pi * 150 * k * t) for k in (3, 4, 5, 6))).astype(np.float32), RATE)
    assert measured(telephone)["pitch_mean_hz"] == pytest.approx(150, rel=0.005)


def test_noise_and_silence_have_no_pitch():
    noise = Wave(0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32), RATE)
    for wave in (noise, Wave(np.zeros(RATE, np.float32), RATE)):
        labels = {one.attribute: one for one in LABELLERS.get("prosody").label(wave, start_ms=0)}
        assert set(labels) == {"pitch_mean_hz", "pitch_range_st", "energy_db", "speech_rate_hz", "pause_share"}
        assert labels["pitch_mean_hz"].reason == "too_little_voice"
        assert labels["energy_db"].number is not None
    assert pitch(noise).voiced.mean() < 0.05


@pytest.mark.parametrize("rate_hz", [2.0, 4.0, 6.0])
def test_syllables_are_counted(rate_hz: float):
    t = np.arange(5 * RATE) / RATE
    swell = 0.51 - 0.49 * np.cos(2 * np.pi * rate_hz * t)
    assert measured(voice(np.full(len(t), 140.0), gain=swell))["speech_rate_hz"] == pytest.approx(rate_hz, abs=0.25)


def test_energy_and_pauses():
    gain = np.ones(4 * RATE)
    gain[RATE : 2 * RATE] = 0.0
    wave = voice(np.full(4 * RATE, 140.0), gain=gain)
    found = measured(wave)
    assert found["pause_share"] == pytest.approx(0.25, abs=0.03)
    assert found["energy_db"] == pytest.approx(10 * math.log10(float(np.mean(wave.samples**2))), abs=0.01)
    short = gain.copy()
    short[RATE : RATE + 1600] = 0.0
    short[RATE + 1600 : 2 * RATE] = 1.0
    assert measured(voice(np.full(4 * RATE, 140.0), gain=short))["pause_share"] == 0.0  # 100 ms is no pause


def test_thirty_times_real_time():
    wave = voice(150 + 30 * np.sin(np.arange(15 * RATE) / RATE))
    start = time.process_time()
    prosody(wave)
    assert 15 / (time.process_time() - start) > 30


@pytest.mark.skipif(not (DATA / "read-speech").is_dir(), reason="no ../shared/data/read-speech here")
def test_real_read_speech_is_plausible():
    rows = [row for row in csv.DictReader((DATA / "read-speech/manifest.csv").open()) if "LJ" in row["file"]]
    assert len(rows) >= 5
    for row in rows:
        found = measured(load(DATA / "read-speech" / row["file"]))
        assert 180 < found["pitch_mean_hz"] < 280, row  # one woman reading
        assert 6 < found["pitch_range_st"] < 17, row
        assert 2.5 < found["speech_rate_hz"] < 6, row
        assert found["pause_share"] < 0.3, row


@pytest.mark.skipif(not (DATA / "nemo").is_dir(), reason="no ../shared/data/nemo here")
def test_real_women_speak_higher_than_men():
    rows = list(csv.DictReader((DATA / "nemo/manifest.csv").open()))[::120]
    by_gender: dict[str, list[float]] = {"female": [], "male": []}
    for row in rows:
        by_gender[row["gender"]].append(measured(load(DATA / "nemo" / row["file"]))["pitch_mean_hz"])
    assert min(map(len, by_gender.values())) >= 5
    assert 85 < np.median(by_gender["male"]) < 160 < np.median(by_gender["female"]) < 280


# ---- the protocol --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def forget() -> Iterator[None]:
    yield
    LABELLERS.remove("test-labeller")


def wave_of(ms: int, rate_hz: int = RATE) -> Wave:
    return Wave(np.full(ms * rate_hz // 1000, 0.1, np.float32), rate_hz)


@pytest.mark.usefixtures("forget")
def test_a_function_becomes_a_labeller():
    @labeller("test-labeller", version="3", emits=[Scalar("x"), Category("y"), Scalar("z")], min_ms=50, max_ms=2000)
    def measure(wave: Wave, *, factor: float = 1.0) -> list[Value]:
        return [
            scalar("x", factor * len(wave.samples)),
            category("y", {"a": 0.2, "b": 0.8}, start_ms=10, end_ms=20),
            abstain("z", "why"),
        ]

    made = LABELLERS.get("test-labeller", {"factor": 2})
    assert made.label(wave_of(1000), start_ms=5000) == [
        Label(attribute="x", number=32_000, start_ms=5000, end_ms=6000, labeller="test-labeller@3"),
        Label(
            attribute="y", category="b", distribution={"a": 0.2, "b": 0.8}, start_ms=5010, end_ms=5020, labeller="test-labeller@3"
        ),
        Label(attribute="z", reason="why", start_ms=5000, end_ms=6000, labeller="test-labeller@3"),
    ]
    assert [one.reason for one in made.label(wave_of(49), start_ms=0)] == ["too_short"] * 3
    assert [one.reason for one in made.label(wave_of(2001), start_ms=0)] == ["too_long"] * 3
    assert made.label(wave_of(1000, 8000), start_ms=0)[0].number == 32_000  # resampled to the declared rate
    with pytest.raises(ConfigError, match=r"does not take this configuration.*'wrong'"):
        LABELLERS.get("test-labeller", {"wrong": 1})
    with pytest.raises(ConfigError, match="registered twice"):
        labeller("test-labeller", version="1", emits=[])(measure)


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("value", [scalar("x", math.nan), scalar("x", math.inf), category("x", {"a": math.nan, "b": 0.1})])
def test_scores_that_are_not_finite_are_abstentions(value: Value):
    @labeller("test-labeller", version="1", emits=[Scalar("x"), Scalar("forgotten")])
    def broken(wave: Wave) -> list[Value]:
        return [value]

    found = LABELLERS.get("test-labeller").label(wave_of(100), start_ms=0)
    assert [(one.attribute, one.reason, one.number, one.distribution) for one in found] == [
        ("x", "not_finite", None, None),
        ("forgotten", "no_value", None, None),
    ]


@pytest.mark.usefixtures("forget")
def test_a_class_comes_by_the_same_door():
    @labeller("test-labeller", version="7", emits=[Scalar("x")], licence="MIT")
    class Heavy(Labeller):
        def __init__(self, *, bias: float = 0.0) -> None:
            self.bias = bias

        def judge(self, wave: Wave) -> Sequence[Value]:
            return [scalar("x" if self.bias < 9 else "other", self.bias)]

    made = LABELLERS.get("test-labeller", {"bias": 1.5})
    assert isinstance(made, Heavy)
    assert (made.name, made.version, made.licence, made.rate_hz) == ("test-labeller", "7", "MIT", 16_000)
    assert made.label(wave_of(100), start_ms=0)[0].number == 1.5
    with pytest.raises(ModelError, match="'test-labeller' gave other; it declares x"):
        LABELLERS.get("test-labeller", {"bias": 9}).label(wave_of(100), start_ms=0)


def test_unknown_names_are_listed_with_a_suggestion():
    assert {"prosody", "affect-small"} <= set(LABELLERS.names())
    with pytest.raises(ConfigError, match=r"got 'prosodi', did you mean 'prosody'\? expected one of affect-small, .*prosody, "):
        LABELLERS.get("prosodi")


@pytest.mark.usefixtures("forget")
def test_plugins_come_by_entry_points(monkeypatch: pytest.MonkeyPatch):
    def load_it() -> Any:
        @labeller("test-labeller", version="1", emits=[Scalar("x")])
        def plugged(wave: Wave) -> list[Value]:
            return [scalar("x", 1)]

        return plugged

    class Entries(list[Any]):
        names = ("test-labeller", "broken")

    def fail() -> None:
        raise ImportError("no module named 'sound'")

    found = {
        "test-labeller": SimpleNamespace(load=load_it, dist=None, value="package:it"),
        "broken": SimpleNamespace(load=fail, dist=SimpleNamespace(name="some-package"), value=""),
    }
    monkeypatch.setattr(protocol, "entry_points", lambda *, group, name=None: Entries([found[name]] if name in found else []))
    assert "test-labeller" in LABELLERS.names()
    assert LABELLERS.get("test-labeller").label(wave_of(100), start_ms=0)[0].number == 1
    with pytest.raises(DependencyError, match="'broken' of some-package does not load: ImportError: no module named 'sound'"):
        LABELLERS.get("broken")


# ---- affect-small --------------------------------------------------------------------------------------------------------------


def test_affect_says_what_the_network_heard_and_why_it_heard_nothing():
    from undertone.label.affect import Abstained, AffectScores

    heard = AffectScores(
        emotion={"happy": 0.7, "sad": 0.3},
        valence=0.8,
        arousal=0.6,
        dominance=0.5,
        gender={"female": 0.2, "male": 0.8},
        event={"speech": 0.9, "laughter": 0.1},
    )
    nothing = Abstained("no_voice", {"music": 0.9, "speech": 0.1})
    made = LABELLERS.get("affect-small")
    assert isinstance(made, AffectLabeller)
    card = SimpleNamespace(version="9", licence="NC", sha256="ab" * 32)
    made.__dict__["_model"] = SimpleNamespace(
        score_many=lambda samples: [heard, nothing, Abstained("silence", None)][: len(samples)], card=card
    )
    asked = [Asked(wave_of(2000), start, (start, start + 2000)) for start in (10_000, 12_000, 14_000)]
    first, second, third = made.heard(asked)
    assert {one.attribute: one.category if one.number is None else one.number for one in first.labels} == {
        "emotion": "happy",
        "valence": 0.8,
        "arousal": 0.6,
        "dominance": 0.5,
        "gender": "male",
        "event": "speech",
    }
    assert {(one.labeller, one.revision, one.start_ms, one.end_ms) for one in first.labels} == {
        ("affect-small@9", "sha256:" + "ab" * 8, 10_000, 12_000)
    }
    assert {one.attribute: one.reason or one.category for one in second.labels} == {
        **dict.fromkeys(("emotion", "valence", "arousal", "dominance", "gender"), "no_voice"),
        "event": "music",
    }
    # Where nothing ran, nothing was heard of events either.
    assert {one.attribute: one.reason for one in third.labels} == {
        **dict.fromkeys(("emotion", "valence", "arousal", "dominance", "gender"), "silence"),
        "event": "silence",
    }
    assert made.licence == "NC"
