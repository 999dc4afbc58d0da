"""Voice activity detection: known bursts, silence, noise, tones, long speech, and real meetings."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from undertone.audio import AudioError, Wave, load, mix
from undertone.errors import ConfigError, DependencyError
from undertone.label import vad
from undertone.label.vad import Region

RATE = 16_000
MEETINGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "meetings"
HAS_SILERO = importlib.util.find_spec("silero_vad") is not None
METHODS = ["energy", pytest.param("silero", marks=pytest.mark.skipif(not HAS_SILERO, reason="silero-vad is not installed"))]


def buzz(seconds: float, *, level: float = 0.2, hz: float = 130.0) -> np.ndarray:
    """A voice-like sound: harmonics of a gliding pitch in syllables of 200 ms."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (hz * t + 3 * np.sin(2 * np.pi * 0.7 * t))
    tone = sum(np.sin(k * phase) / k for k in range(1, 16))
    return (level * 0.5 * tone * (0.55 + 0.45 * np.cos(2 * np.pi * 5 * t))).astype(np.float32)


def scene(*spans: tuple[float, float], total: float, noise: float = 0.001) -> Wave:
    """Bursts of `buzz` at the given seconds over white noise."""
    samples = noise * np.random.default_rng(0).standard_normal(int(total * RATE)).astype(np.float32)
    for start, end in spans:
        samples[int(start * RATE) : int(end * RATE)] += buzz(end - start)
    return Wave(samples, RATE)


def chopped(wave: Wave, chunk_ms: int) -> Iterator[Wave]:
    for start in range(0, wave.duration_ms, chunk_ms):
        yield wave.cut(start, start + chunk_ms)


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.01])
def test_energy_finds_the_bursts(noise: float):
    found = list(vad.regions([scene((1, 2.5), (4, 6), (6.1, 7), total=9, noise=noise)], pad_ms=0))
    assert len(found) == 2  # the gap of 100 ms belongs to the speech around it
    for region, (start, end) in zip(found, [(1, 2.5), (4, 7)], strict=True):
        assert abs(region.start_ms - 1000 * start) <= 60
        assert abs(region.end_ms - 1000 * end) <= 60


def test_padding_is_added_and_kept_inside_the_recording():
    wave = scene((0.02, 1.0), (2, 3), total=3)
    bare = list(vad.regions([wave], pad_ms=0))
    padded = list(vad.regions([wave], pad_ms=150))
    assert len(bare) == len(padded) == 2
    assert padded[0].start_ms == 0
    assert padded[0].end_ms == bare[0].end_ms + 150
    assert padded[1].start_ms == bare[1].start_ms - 150
    assert padded[1].end_ms == 3000


def test_a_click_is_not_speech():
    assert list(vad.regions([scene((3, 3.12), total=6)], min_speech_ms=250)) == []
    assert len(list(vad.regions([scene((3, 3.5), total=6)], min_speech_ms=250))) == 1


@pytest.mark.parametrize("method", METHODS)
def test_silence_noise_and_hum_are_not_speech(method: vad.Method):
    t = np.arange(RATE * 12) / RATE
    for name, samples in {
        "digital silence": np.zeros(RATE * 12),
        "white noise": 0.1 * np.random.default_rng(1).standard_normal(RATE * 12),
        "hum": 0.1 * np.sin(2 * np.pi * 50 * t),
        "held tone": 0.1 * np.sin(2 * np.pi * 440 * t),
    }.items():
        found = list(vad.regions([Wave(samples.astype(np.float32), RATE)], method=method))
        assert sum(one.end_ms - one.start_ms for one in found) <= 600, (name, found)


@pytest.mark.parametrize("method", METHODS)
def test_short_and_empty_input(method: vad.Method):
    assert list(vad.regions([], method=method)) == []
    assert list(vad.regions([Wave(np.zeros(0, np.float32), RATE)], method=method)) == []
    for samples in (np.zeros(1600, np.float32), buzz(0.1), np.ones(1, np.float32)):
        assert all(one.end_ms <= 100 for one in vad.regions([Wave(samples, RATE)], method=method))


def test_long_speech_is_cut_at_quiet_points():
    wave = scene((0.5, 41), total=42)
    samples = wave.samples.copy()
    dips = [9.3, 21.6, 33.1]
    for at in dips:  # 120 ms, too short to end a region
        samples[int(at * RATE) : int((at + 0.12) * RATE)] *= 0.01
    found = list(vad.regions([Wave(samples, RATE)], max_segment_ms=15_000))
    assert found[0].start_ms == pytest.approx(400, abs=60)
    assert found[-1].end_ms == pytest.approx(41_100, abs=60)
    assert all(1000 <= one.end_ms - one.start_ms <= 15_000 for one in found)
    assert [one.end_ms for one in found[:-1]] == [one.start_ms for one in found[1:]]
    for at in dips:
        assert any(at * 1000 <= one.end_ms <= (at + 0.12) * 1000 for one in found), (at, found)


@pytest.mark.parametrize("method", METHODS)
def test_segments_carry_their_sound_whatever_the_chunks(method: vad.Method):
    wave = mix(scene((1, 2.5), (4, 18), (20, 21.3), total=23.456), scene(total=23.456, noise=0.01), 20)
    whole = list(vad.segments([wave], method=method, max_segment_ms=6000))
    assert [region for region, _ in whole] == list(vad.regions([wave], method=method, max_segment_ms=6000))
    if method == "energy":
        assert len(whole) >= 5
    for chunk_ms in (1000, 7000, 30_000):
        other = list(vad.segments(chopped(wave, chunk_ms), method=method, max_segment_ms=6000))
        assert [region for region, _ in other] == [region for region, _ in whole]
        for region, part in other:
            assert np.array_equal(part.samples, wave.cut(region.start_ms, region.end_ms).samples)


def test_memory_does_not_grow_with_the_recording(monkeypatch: pytest.MonkeyPatch):
    longest = 0
    original = np.concatenate

    def watched(arrays: list[np.ndarray], *args: object, **kwargs: object) -> np.ndarray:
        nonlocal longest
        made: np.ndarray = original(arrays, *args, **kwargs)
        longest = max(longest, made.nbytes)
        return made

    monkeypatch.setattr(np, "concatenate", watched)
    minute = scene((1, 58), total=60)
    found = list(vad.segments((part for _ in range(5) for part in chopped(minute, 5000)), max_segment_ms=15_000))
    assert len(found) >= 20
    assert longest < 25 * RATE * 4  # one segment and the look-ahead, not five minutes


def test_errors():
    with pytest.raises(AudioError, match="got 8000 Hz, expected 16000"):
        list(vad.regions([Wave(np.zeros(8000, np.float32), 8000)]))
    with pytest.raises(ConfigError, match=r"pad_ms: got 200, expected 0 to half of min_silence_ms \(300\); max_segment_ms: got 5"):
        vad.regions([], pad_ms=200, max_segment_ms=5)
    with pytest.raises(ConfigError, match="got 'loud', expected 'energy' or 'silero'"):
        vad.regions([], method="loud")  # type: ignore[arg-type]


def test_silero_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DependencyError, match="pip install --no-deps silero-vad"):
        vad.regions([], method="silero")


@pytest.mark.skipif(not HAS_SILERO, reason="silero-vad is not installed")
def test_silero_does_not_import_its_package():
    script = "import sys; from undertone.label import vad; vad._detector('silero'); print('silero_vad' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.skipif(not MEETINGS.is_dir(), reason="no ../shared/data/meetings here")
@pytest.mark.parametrize(("method", "least_f1"), [("energy", 0.78), ("silero", 0.90)])
def test_real_meetings(method: vad.Method, least_f1: float):
    if method == "silero" and not HAS_SILERO:
        pytest.skip("silero-vad is not installed")
    spoken: dict[str, list[Region]] = {}
    for line in (MEETINGS / "speakers.rttm").read_text().splitlines():
        field = line.split()
        start, length = (round(float(one) * 1000) for one in field[3:5])
        spoken.setdefault(field[1], []).append(Region(start, start + length))
    hits = heard = said = 0
    files = sorted(MEETINGS.glob("*.opus"))
    for path in files:
        wave = load(path)
        truth, found = np.zeros((2, wave.duration_ms // 10), bool)
        for one in spoken[path.stem]:
            truth[one.start_ms // 10 : one.end_ms // 10] = True
        for one in vad.regions([wave], method=method):
            found[one.start_ms // 10 : one.end_ms // 10] = True
        hits, heard, said = hits + int((truth & found).sum()), heard + int(found.sum()), said + int(truth.sum())
    assert len(files) >= 14
    assert 2 * hits / (heard + said) >= least_f1
