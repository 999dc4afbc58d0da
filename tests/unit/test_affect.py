"""affect-small and its front end: shapes, abstention, batch = single, and that the shipped weights are the ones of the card."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from undertone.errors import AudioError, DependencyError, ModelError
from undertone.label.affect import FRAME_DIM, HIDDEN, AffectSmall, find_model, probe_wave
from undertone.label.features import FEATURES, MELS, log_mel

NEVER_HEARD = {"ravdess/rav17", "ravdess/rav18", "ravdess/rav19", "ravdess/rav20", "tess/YAF"}
EMOTIONS = {"angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"}
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def model() -> AffectSmall:
    try:
        find_model()
    except DependencyError as error:
        pytest.skip(str(error))
    return AffectSmall()


def tone(seconds: float, hz: float = 220.0) -> np.ndarray:
    at = np.arange(int(seconds * 16_000)) / 16_000
    return (0.1 * sum(np.sin(2 * np.pi * k * hz * at) / k for k in range(1, 9))).astype(np.float32)


@pytest.mark.parametrize("samples", [0, 159, 160, 16_000, 16_079])
def test_features_have_one_row_per_10_ms(samples: int) -> None:
    features = log_mel(tone(2)[:samples])
    assert features.values.shape == (samples // 160, FEATURES)
    assert features.values.dtype == np.float32


def test_features_do_not_depend_on_the_level() -> None:
    loud, quiet = log_mel(tone(1)), log_mel(0.1 * tone(1))
    np.testing.assert_allclose(quiet.values[:, :MELS], loud.values[:, :MELS], atol=2e-3)
    assert loud.speech_level_db - quiet.speech_level_db == pytest.approx(20.0, abs=0.01)


@pytest.mark.parametrize("hz", [90.0, 200.0, 430.0])
def test_pitch_column_is_octaves_above_200_hz(hz: float) -> None:
    rows = log_mel(tone(1, hz)).values[20:80]
    np.testing.assert_allclose(rows[:, MELS], np.log2(hz / 200.0), atol=0.03)
    assert rows[:, MELS + 1].min() > 0.9


def test_noise_is_not_voiced() -> None:
    rows = log_mel(0.1 * np.random.default_rng(0).standard_normal(16_000)).values
    assert np.median(rows[:, MELS + 1]) < 0.5


def test_front_end_refuses_stereo_and_nan() -> None:
    with pytest.raises(AudioError, match=r"got shape \(2, 100\), expected one dimension"):
        log_mel(np.zeros((2, 100)))
    with pytest.raises(AudioError, match="NaN or infinity"):
        log_mel(np.full(1600, np.nan))


@pytest.mark.parametrize("wave", [np.zeros(16_000), tone(0.1), tone(0.29), 1e-5 * tone(1), np.zeros(0)])
def test_abstains_on_silence_and_too_little(model: AffectSmall, wave: np.ndarray) -> None:
    assert model.score(wave) is None


def test_scores_are_probabilities(model: AffectSmall) -> None:
    scores = model.score(tone(0.3))
    assert scores is not None
    assert set(scores.emotion) == EMOTIONS
    assert set(scores.gender) == {"female", "male"}
    assert sum(scores.emotion.values()) == pytest.approx(1.0, abs=1e-5)
    assert sum(scores.gender.values()) == pytest.approx(1.0, abs=1e-5)
    assert all(0.0 <= x <= 1.0 for x in (scores.valence, scores.arousal, scores.dominance))


def test_batch_equals_single(model: AffectSmall) -> None:
    waves = [probe_wave(), np.zeros(8_000, dtype=np.float32), tone(0.5, 120.0), probe_wave()[:17_333]]
    assert model.score_many(waves) == [model.score(wave) for wave in waves]


def test_frames_come_at_50_hz_and_carry_the_log_mel(model: AffectSmall) -> None:
    wave = probe_wave()[:17_333]
    frames = model.frames(wave)
    assert frames.shape == (17_333 // 320, FRAME_DIM)
    assert frames.dtype == np.float32
    rows = log_mel(wave).values
    np.testing.assert_array_equal(frames[5, HIDDEN : HIDDEN + 2 * MELS], rows[10:12, :MELS].ravel())
    assert model.frames(wave[:300]).shape == (0, FRAME_DIM)
    assert model.frames(wave[:320]).shape == (1, FRAME_DIM)


def test_pickles_before_and_after_loading(model: AffectSmall) -> None:
    fresh = AffectSmall()
    before = pickle.loads(pickle.dumps(fresh)).score(probe_wave())
    assert fresh.score(probe_wave()) == before
    assert pickle.loads(pickle.dumps(fresh)).score(probe_wave()) == before


def test_scores_are_those_stored_at_export(model: AffectSmall) -> None:
    stored = json.loads((find_model() / "model.json").read_text())["probe"]
    scores = model.score(probe_wave())
    assert scores is not None
    assert scores.emotion == pytest.approx(stored["scores"]["emotion"], abs=1e-3)
    assert scores.gender == pytest.approx(stored["scores"]["gender"], abs=1e-3)
    for name in ("valence", "arousal", "dominance"):
        assert getattr(scores, name) == pytest.approx(stored["scores"][name], abs=1e-3)
    assert np.abs(model.frames(probe_wave())).mean() == pytest.approx(stored["frames_abs_mean"], rel=1e-3)


def test_card_lists_who_was_heard_and_not_the_test_speakers(model: AffectSmall) -> None:
    heard = model.heard_speakers
    assert {f"ravdess/rav{i:02d}" for i in range(1, 17)} | {"tess/OAF", "nemo/EB0", "nemo/MP0"} <= heard
    assert not heard & NEVER_HEARD
    report = json.loads((find_model() / "model.json").read_text())
    assert not heard & set(report["test_speakers"])
    scored = {speaker for result in report["test"].values() for speaker in result["speakers"]}
    assert scored == set(report["test_speakers"])
    assert (find_model() / "model.onnx").stat().st_size < 20e6


def test_a_missing_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNDERTONE_MODELS", str(tmp_path))
    with pytest.raises(DependencyError, match=r"'affect-small' are not installed \(looked in .*UNDERTONE_MODELS"):
        AffectSmall().score(probe_wave())


def test_changed_weights_are_refused(model: AffectSmall, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes((find_model() / "model.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"model\.json was written for"):
        AffectSmall(tmp_path).score(probe_wave())


def test_no_torch_is_loaded(model: AffectSmall) -> None:
    code = (
        "import sys; from undertone.label.affect import AffectSmall, probe_wave; "
        "assert AffectSmall().score(probe_wave()); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_hears_more_than_chance_in_a_voice_it_never_heard(model: AffectSmall) -> None:
    if not (DATA / "tess" / "manifest.csv").exists():
        pytest.skip(f"no {DATA}/tess: the shared corpora are not on this machine")
    import soundfile

    told = {"angry": "angry", "sad": "sad", "neutral": "neutral", "fear": "fearful"}
    right = []
    for word in ("back", "gaze", "wash", "young", "chair"):
        for heard, emotion in told.items():
            wave, _ = soundfile.read(DATA / "tess" / "audio" / f"YAF_{word}_{heard}.opus", dtype="float32")
            scores = model.score(wave)
            assert scores is not None
            right.append(max(scores.emotion, key=scores.emotion.__getitem__) == emotion)
    assert np.mean(right) > 0.3
