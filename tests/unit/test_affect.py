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
from undertone.label.affect import (
    CLIPPED_SHARE,
    FRAME_DIM,
    HIDDEN,
    Abstained,
    AffectScores,
    AffectSmall,
    clipped_share,
    find_model,
    probe_wave,
)
from undertone.label.features import FEATURES, FUNCTIONALS, MELS, functionals, log_mel

NEVER_HEARD = {"ravdess/rav17", "ravdess/rav18", "ravdess/rav19", "ravdess/rav20", "tess/YAF", "nemo/MP0"}
EMOTIONS = {"angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"}
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def model() -> AffectSmall:
    try:
        find_model()
    except DependencyError as error:
        pytest.skip(str(error))
    return AffectSmall()


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """A sentence of a synthetic voice that training never heard."""
    pytest.importorskip("espeakng_loader", reason="the voice of these tests needs the demo extra")
    from undertone.corpora.voices import VOICES, speak

    unheard = next(v for v in VOICES if v.group == "test")
    return np.asarray(speak("The clerk carried the wooden box before lunch.", unheard, "neutral", seed=3).samples, dtype=np.float32)


def tone(seconds: float, hz: float = 220.0) -> np.ndarray:
    at = np.arange(int(seconds * 16_000)) / 16_000
    return (0.1 * sum(np.sin(2 * np.pi * k * hz * at) / k for k in range(1, 9))).astype(np.float32)


def chords(seconds: float) -> np.ndarray:
    """Three plucked notes at a time, one beat every quarter of a second."""
    out = np.zeros(int(seconds * 16_000))
    at = np.arange(4_000) / 16_000
    for beat in range(int(seconds * 4)):
        for step in (0, 4, 7):
            hz = 262 * 2 ** ((step + (0, 5, 7, 9)[beat % 4]) / 12)
            note = sum(np.sin(2 * np.pi * k * hz * at) / k * np.exp(-at * (2 + k)) for k in range(1, 9))
            out[beat * 4_000 : beat * 4_000 + 4_000] += note
    return (0.1 * out).astype(np.float32)


def scored(model: AffectSmall, wave: np.ndarray) -> AffectScores:
    scores = model.score(wave)
    assert isinstance(scores, AffectScores), scores
    return scores


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


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 13, 30, 400])
@pytest.mark.parametrize("kind", ["zeros", "random", "tone"])
def test_functionals_are_finite_for_any_input(rows: int, kind: str) -> None:
    values = {
        "zeros": np.zeros((rows, FEATURES), dtype=np.float32),
        "random": np.random.default_rng(rows).normal(0, 2, (rows, FEATURES)).astype(np.float32),
        "tone": log_mel(tone(rows / 100)).values,
    }[kind]
    found = functionals(values)
    assert found.shape == (FUNCTIONALS,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros(0), "too_short"),
        (tone(0.1), "too_short"),
        (tone(0.29), "too_short"),
        (np.zeros(16_000), "silence"),
        (1e-5 * tone(1), "silence"),
        (np.sign(tone(1)) * 0.9, "clipped"),
        (np.clip(100 * tone(1), -1, 1), "clipped"),
    ],
)
def test_abstains_without_running_the_network(model: AffectSmall, wave: np.ndarray, reason: str) -> None:
    assert model.score(wave) == Abstained(reason, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("wave", [0.05 * np.random.default_rng(1).standard_normal(48_000), chords(3)], ids=["white noise", "music"])
def test_abstains_on_noise_and_music_and_says_what_it_heard(model: AffectSmall, wave: np.ndarray) -> None:
    found = model.score(wave)
    assert isinstance(found, Abstained)
    assert found.reason == "no_voice"
    assert found.event is not None
    assert found.event["music"] + found.event["noise"] > model.card.no_voice_above


def test_loud_speech_is_not_clipped_and_overdriven_speech_is(model: AffectSmall, voice: np.ndarray) -> None:
    loud = voice / np.abs(voice).max()
    assert clipped_share(loud) < 0.001
    assert clipped_share(np.clip(2 * loud, -1, 1)) < CLIPPED_SHARE  # 6 dB over: a few peaks are cut
    assert isinstance(model.score(loud), AffectScores)
    assert model.score(np.clip(30 * loud, -1, 1)) == Abstained("clipped", None)


def test_scores_are_probabilities(model: AffectSmall, voice: np.ndarray) -> None:
    scores = scored(model, voice)
    assert set(scores.emotion) == EMOTIONS
    assert set(scores.gender) == {"female", "male"}
    assert {"speech", "laughter", "music", "noise"} <= set(scores.event)
    for values in (scores.emotion, scores.gender, scores.event):
        assert sum(values.values()) == pytest.approx(1.0, abs=1e-4)
        assert min(values.values()) >= 0.0
    assert all(0.0 <= x <= 1.0 for x in (scores.valence, scores.arousal, scores.dominance))
    assert max(scores.event, key=scores.event.__getitem__) == "speech"


def test_short_stretches_and_any_length_run(model: AffectSmall, voice: np.ndarray) -> None:
    middle = len(voice) // 2
    for samples in (4_800, 4_960, 5_119, 16_001):
        assert isinstance(model.score(voice[middle : middle + samples]), AffectScores | Abstained)


def test_batch_equals_single(model: AffectSmall, voice: np.ndarray) -> None:
    waves = [voice, np.zeros(8_000, dtype=np.float32), voice[:17_333], chords(1), voice[:17_333], voice]
    together = model.score_many(waves)
    assert together == [model.score(wave) for wave in waves]
    assert together[2] == together[4]
    assert together[0] == together[5]


def test_the_level_changes_nothing_that_matters(model: AffectSmall, voice: np.ndarray) -> None:
    loud, quiet = scored(model, voice), scored(model, 0.1 * voice)
    assert quiet.emotion == pytest.approx(loud.emotion, abs=0.02)


def test_frames_come_at_50_hz_and_carry_the_log_mel(model: AffectSmall) -> None:
    wave = probe_wave()[:17_333]
    frames = model.frames(wave)
    assert frames.shape == (17_333 // 320, FRAME_DIM)
    assert frames.dtype == np.float32
    rows = log_mel(wave).values
    np.testing.assert_array_equal(frames[5, HIDDEN : HIDDEN + 2 * MELS], rows[10:12, :MELS].ravel())
    for samples in (300, 320, 640, 959, 960, 1_600):
        assert model.frames(wave[:samples]).shape == (samples // 320, FRAME_DIM)


def test_pickles_before_and_after_loading(model: AffectSmall, voice: np.ndarray) -> None:
    fresh = AffectSmall()
    before = pickle.loads(pickle.dumps(fresh)).score(voice)
    assert fresh.score(voice) == before
    assert pickle.loads(pickle.dumps(fresh)).score(voice) == before


def test_scores_are_those_stored_at_export(model: AffectSmall) -> None:
    stored = json.loads((find_model() / "model.json").read_text())["probe"]
    found = model.score(probe_wave())
    assert found.event == pytest.approx(stored["scores"]["event"], abs=1e-3)
    if isinstance(found, AffectScores):
        assert found.emotion == pytest.approx(stored["scores"]["emotion"], abs=1e-3)
    assert np.abs(model.frames(probe_wave())).mean() == pytest.approx(stored["frames_abs_mean"], rel=1e-3)


def test_card_lists_who_was_heard_and_not_the_test_speakers(model: AffectSmall) -> None:
    heard = model.heard_speakers
    assert {f"ravdess/rav{i:02d}" for i in range(1, 17)} | {"tess/OAF", "nemo/EB0", "nemo/WR0"} <= heard
    assert not heard & NEVER_HEARD
    assert {v.split("/")[0] for v in heard} == {"ravdess", "tess", "nemo", "demo", "emogator", "deeply-nonverbal"}
    report = json.loads((find_model() / "model.json").read_text())
    assert not heard & set(report["test_speakers"])
    scored_speakers = {speaker for result in report["test"].values() for speaker in result["speakers"]}
    assert scored_speakers == set(report["test_speakers"])
    assert report["parameters"] <= 4_000_000
    assert (find_model() / "model.onnx").stat().st_size < 20e6


def test_synthetic_test_voices_were_not_heard(model: AffectSmall) -> None:
    from undertone.corpora.voices import VOICES

    assert {f"demo/{v.name}" for v in VOICES if v.group == "train"} <= model.heard_speakers
    assert not {f"demo/{v.name}" for v in VOICES if v.group == "test"} & model.heard_speakers


def test_the_cards_numbers_come_from_model_json(model: AffectSmall) -> None:
    report = json.loads((find_model() / "model.json").read_text())
    card = (find_model() / "README.md").read_text()
    for name, result in report["test"].items():
        row = f"| {name} | {result['utterances']} | {result['abstained']} | {result['emotion_wa']:.3f} | {result['emotion_uar']:.3f} |"
        assert row in card
        recalls = " | ".join(f"{r:.2f}" for r in result["emotion_recall"].values())
        assert all(f"{r:.2f}" in card for r in result["emotion_recall"].values()), recalls
    assert f"{report['parameters']:,} numbers" in card
    compared = find_model() / "benchmark" / "affect.md"
    if compared.exists():
        assert compared.read_text().strip() in card


def test_a_missing_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNDERTONE_MODELS", str(tmp_path))
    with pytest.raises(DependencyError, match=r"'affect-small' are not installed \(looked in .*UNDERTONE_MODELS"):
        AffectSmall().score(chords(1))


def test_changed_weights_are_refused(model: AffectSmall, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes((find_model() / "model.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"model\.json was written for"):
        AffectSmall(tmp_path).score(chords(1))


def test_no_torch_is_loaded(model: AffectSmall) -> None:
    code = (
        "import sys; from undertone.label.affect import AffectSmall, probe_wave; "
        "assert AffectSmall().score(probe_wave()); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_two_processes_give_the_same_bits(model: AffectSmall, voice: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "voice.npy", voice)
    code = (
        "import sys, numpy as np; from undertone.label.affect import AffectSmall; "
        "print(repr(AffectSmall().score(np.load(sys.argv[1]))))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "voice.npy")], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == repr(model.score(voice))


def test_hears_more_than_chance_in_a_voice_it_never_heard(model: AffectSmall) -> None:
    if not (DATA / "tess" / "manifest.csv").exists():
        pytest.skip(f"no {DATA}/tess: the shared corpora are not on this machine")
    import soundfile

    told = {"angry": "angry", "sad": "sad", "neutral": "neutral", "fear": "fearful"}
    right = []
    for word in ("back", "gaze", "wash", "young", "chair"):
        for heard, emotion in told.items():
            wave, _ = soundfile.read(DATA / "tess" / "audio" / f"YAF_{word}_{heard}.opus", dtype="float32")
            scores = scored(model, wave)
            right.append(max(scores.emotion, key=scores.emotion.__getitem__) == emotion)
    assert np.mean(right) > 0.5


def test_hears_voices_in_meetings_and_none_in_rain(model: AffectSmall) -> None:
    if not (DATA / "meetings").exists():
        pytest.skip(f"no {DATA}/meetings: the shared corpora are not on this machine")
    import soundfile

    def abstained(folder: str, pattern: str) -> list[bool]:
        found = []
        for file in sorted((DATA / folder).glob(pattern)):
            wave, _ = soundfile.read(file, dtype="float32")
            found += [
                isinstance(model.score(wave[at : at + 64_000]), Abstained) for at in range(0, max(1, len(wave) - 64_000), 64_000)
            ]
        return found

    meetings, rain = abstained("meetings", "*.opus"), abstained("acoustics/scenes", "rain-*.opus")
    assert len(meetings) >= 90
    assert len(rain) >= 6
    assert np.mean(meetings) < 0.2
    assert np.mean(rain) > 0.7
