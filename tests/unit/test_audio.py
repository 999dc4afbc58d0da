"""The audio layer: round trips, cuts, streaming, and every kind of file that is not what it claims to be."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from undertone.audio import AudioError, Wave, load, mix, normalise, probe, rms_db, stream, write

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
LOSSLESS = (".wav", ".flac")


def speech_like(seconds: float, rate_hz: int = 16_000, seed: int = 0) -> np.ndarray:
    """A gliding tone with noise and syllable-like swells: every second differs from every other."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    tone = np.sin(2 * np.pi * (150 + 20 * np.sin(t)) * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3.3 * t))
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * tone + 0.01 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ten seconds in every format that can be written."""
    folder = tmp_path_factory.mktemp("audio")
    made = {suffix: folder / f"a{suffix}" for suffix in SUFFIXES}
    for path in made.values():
        write(path, Wave(speech_like(10), 16_000))
    return made


# ---- waves ---------------------------------------------------------------------------------------------------------------------


def test_wave_refuses_what_is_not_mono_float32():
    for wrong in (np.zeros((2, 3), np.float32), np.zeros(3)):
        with pytest.raises(AudioError, match="float32 samples of shape"):
            Wave(wrong, 16_000)
    with pytest.raises(AudioError, match="rate above 0; got 0"):
        Wave(np.zeros(3, np.float32), 0)


def test_cut_takes_the_named_milliseconds():
    wave = Wave(np.arange(16_000, dtype=np.float32) / 16_000, 16_000)
    assert wave.duration_ms == 1000
    part = wave.cut(250, 500)
    assert len(part.samples) == 4000
    assert part.samples[0] == np.float32(0.25)
    assert wave.cut(900, 5000).duration_ms == 100
    with pytest.raises(AudioError, match="no sound between 1000 and 2000 ms; the wave is 1000 ms long"):
        wave.cut(1000, 2000)


def test_levels():
    sine = Wave(np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000).astype(np.float32), 16_000)
    assert rms_db(sine) == pytest.approx(-3.0103, abs=1e-3)
    assert rms_db(normalise(sine, rms=0.1)) == pytest.approx(-20, abs=1e-3)
    click = np.zeros(16_000, np.float32)
    click[5] = 0.5
    assert np.abs(normalise(Wave(click, 16_000), rms=0.5).samples).max() == pytest.approx(1.0)
    silence = Wave(np.zeros(100, np.float32), 16_000)
    assert rms_db(silence) == -120
    assert rms_db(normalise(silence)) == -120


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_mix_has_the_asked_ratio(snr_db: float):
    speech = Wave(speech_like(2) * 0.3, 16_000)
    noise = Wave(0.1 * np.random.default_rng(1).standard_normal(5_000).astype(np.float32), 16_000)
    mixed = mix(speech, noise, snr_db)
    assert len(mixed.samples) == len(speech.samples)
    gain = float(mixed.samples @ speech.samples / (speech.samples @ speech.samples))
    residue = mixed.samples / gain - speech.samples
    assert 10 * np.log10(np.mean(speech.samples**2) / np.mean(residue**2)) == pytest.approx(snr_db, abs=0.3)
    assert np.abs(mixed.samples).max() <= 1


def test_mix_refuses_two_rates():
    with pytest.raises(AudioError, match="cannot mix 16000 Hz with 8000 Hz"):
        mix(Wave(np.ones(4, np.float32), 16_000), Wave(np.ones(4, np.float32), 8_000), 0)


# ---- reading and writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(files: dict[str, Path], suffix: str):
    source = speech_like(10)
    back = load(files[suffix])
    assert len(back.samples) == len(source)
    if suffix in LOSSLESS:
        assert np.abs(back.samples - source).max() <= 1 / 32768
    else:
        assert np.corrcoef(back.samples, source)[0, 1] > 0.99
    found = probe(files[suffix])
    assert (found.rate_hz, found.samples, found.channels, found.duration_ms) == (16_000, 160_000, 1, 10_000)
    assert found.sha256 == hashlib.sha256(files[suffix].read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_write_gives_equal_bytes_and_leaves_nothing_else(files: dict[str, Path], tmp_path: Path, suffix: str):
    script = f"import numpy, sys; from undertone.audio import *; write(sys.argv[1], load({str(files['.wav'])!r}))"
    for name in ("one", "two"):  # two processes: the random serial of an Ogg stream is drawn anew in each
        subprocess.run([sys.executable, "-c", script, str(tmp_path / f"{name}{suffix}")], check=True, timeout=60)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    assert sorted(os.listdir(tmp_path)) == [f"one{suffix}", f"two{suffix}"]


def test_write_replaces_and_cleans_up_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.flac"
    write(path, Wave(speech_like(0.5), 16_000))
    before = path.read_bytes()

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write(path, Wave(speech_like(0.2), 16_000))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.flac"]


@pytest.mark.parametrize(
    ("name", "wave", "message"),
    [
        ("a.xyz", Wave(np.ones(9, np.float32), 16_000), "cannot write '.xyz', expected one of .wav, .flac"),
        ("a.wav", Wave(np.zeros(0, np.float32), 16_000), "a wave of 0 samples"),
        ("a.wav", Wave(np.array([0, np.nan], np.float32), 1000), r"NaN or infinity \(at 0.001 s\)"),
        ("a.ogg", Wave(np.ones(9, np.float32), 22_050), "Opus has no 22050 Hz"),
        ("a.mp3", Wave(np.ones(9, np.float32), 192_000), "MP3 cannot hold 192000 Hz"),
    ],
)
def test_write_refuses(tmp_path: Path, name: str, wave: Wave, message: str):
    with pytest.raises(AudioError, match=message):
        write(tmp_path / name, wave)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (192_000, 2), (44_100, 6), (11_025, 2)])
def test_any_rate_and_channels_become_16_khz_mono(tmp_path: Path, rate_hz: int, channels: int):
    source = speech_like(3.217, rate_hz)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([source * (1 + c) / channels for c in range(channels)], axis=1), rate_hz, subtype="FLOAT")
    wave = load(path)
    assert abs(len(wave.samples) - len(source) * 16_000 / rate_hz) <= 1
    assert probe(path).channels == channels
    expected = speech_like(3.217, 16_000) * (channels + 1) / 2 / channels
    count = min(len(expected), len(wave.samples))
    assert np.corrcoef(wave.samples[:count], expected[:count])[0, 1] > 0.99


def test_one_loud_channel_of_opposite_phase_is_the_mean(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.array([[0.5, -0.25]] * 100, dtype=np.float32), 16_000, subtype="FLOAT")
    assert np.allclose(load(tmp_path / "a.wav").samples, 0.125)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
def test_a_cut_equals_the_same_part_of_the_whole(files: dict[str, Path], suffix: str, rate_hz: int):
    whole = load(files[suffix], rate_hz=rate_hz)
    tolerance = 1e-2 if suffix == ".ogg" else 1e-6
    for start, end in ((0, 700), (999, 1001), (1234, 5678), (2000, 3000), (7777, None), (9000, 99_000)):
        part = load(files[suffix], rate_hz=rate_hz, start_ms=start, end_ms=end)
        expected = whole.cut(start, end)
        assert part.samples.shape == expected.samples.shape, (start, end)
        assert np.abs(part.samples - expected.samples).max() <= tolerance, (start, end)


def test_a_cut_decodes_only_its_neighbourhood(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    read = 0
    original = soundfile.SoundFile.read

    def counting(self: soundfile.SoundFile, *args: object, **kwargs: object) -> np.ndarray:
        nonlocal read
        block: np.ndarray = original(self, *args, **kwargs)
        read += len(block)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    load(files[".flac"], start_ms=5_000, end_ms=5_500)
    assert 0 < read <= 3 * 16_000


def test_cut_outside_the_file(files: dict[str, Path]):
    with pytest.raises(AudioError, match=r"nothing at 59 s, the file is 10.000 s long"):
        load(files[".flac"], start_ms=60_000)
    with pytest.raises(AudioError, match="start_ms 10500 lies beyond the end"):
        load(files[".flac"], start_ms=10_500, end_ms=11_000)
    with pytest.raises(AudioError, match="cannot cut from 300 to 300 ms"):
        load(files[".flac"], start_ms=300, end_ms=300)


# ---- files that are not what they claim ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".aiff", ".au", ".w64", ".caf", ".rf64"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.99])
def test_a_truncated_file_is_never_taken_for_the_whole(tmp_path: Path, suffix: str, share: float):
    path = tmp_path / f"a{suffix}"
    if suffix in SUFFIXES:
        write(path, Wave(speech_like(10), 16_000))
    else:
        soundfile.write(path, speech_like(10), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(AudioError, match=r"truncated|damaged|cannot be decoded"):
        load(path)
    with pytest.raises(AudioError):
        list(stream(path, chunk_ms=1000))
    if suffix != ".flac":  # a FLAC header stays intact; probe says so in its docstring
        with pytest.raises(AudioError):
            probe(path)


def test_an_ogg_cut_between_pages_is_truncated(files: dict[str, Path], tmp_path: Path):
    content = files[".ogg"].read_bytes()
    path = tmp_path / "a.ogg"
    path.write_bytes(content[: content.rfind(b"OggS")])
    with pytest.raises(AudioError, match="last Ogg page"):
        probe(path)


def test_a_wav_written_to_a_pipe_is_whole(files: dict[str, Path], tmp_path: Path):
    content = bytearray(files[".wav"].read_bytes())
    for at in (4, 40):
        struct.pack_into("<I", content, at, 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(content)
    assert len(load(tmp_path / "a.wav").samples) == 160_000


def test_an_mp3_whose_length_libsndfile_guesses_too_short_is_refused_without_ffmpeg(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = files[".mp3"].read_bytes()
    path = tmp_path / "a.mp3"
    path.write_bytes(content[content.find(content[:2], 4) :])  # without its first frame, which states the length
    assert soundfile.info(path).frames < 120_000
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"MP3 that does not state its length needs the ffmpeg program.*apt install ffmpeg"):
        load(path)


def test_messages_for_what_is_not_audio(tmp_path: Path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not a sound\n" * 100)
    (tmp_path / "a.raw").write_bytes(b"0" * 1000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0] * 24_000 + [np.nan] * 5, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "inf.wav", np.array([np.inf] + [0.0] * 99, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "integers.wav", 20_000 * speech_like(0.1), 16_000, subtype="FLOAT")
    expected = {
        "missing.wav": "no such file",
        ".": "a folder",
        "empty.wav": r"empty file \(0 bytes\)",
        "text.wav": "cannot be decoded: Format not recognised",
        "a.raw": "cannot be decoded",
        "silent.wav": "holds no sound",
        "nan.wav": "NaN or infinity at 1.500 s",
        "inf.wav": "NaN or infinity at 0.000 s",
        "integers.wav": "divide by 32768",
    }
    for name, message in expected.items():
        with pytest.raises(AudioError, match=message) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    for name in ("missing.wav", ".", "empty.wav", "text.wav", "silent.wav"):
        with pytest.raises(AudioError, match=expected[name]):
            probe(tmp_path / name)


def test_a_name_that_is_not_ascii(tmp_path: Path):
    path = tmp_path / "żółć 声.flac"
    write(path, Wave(speech_like(0.2), 16_000))
    assert probe(str(path)).samples == 3200


# ---- ffmpeg --------------------------------------------------------------------------------------------------------------------


def fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, *, code: int = 0, says: str = "") -> None:
    """A program that speaks ffmpeg's part of the pipe: two seconds of stereo at 24 kHz as AU."""
    program = folder / "ffmpeg"
    program.write_text(
        textwrap.dedent(f"""\
        #!{sys.executable}
        import struct, sys
        assert sys.argv[1:].count("-i") == 1 and sys.argv[sys.argv.index("-i") + 1].startswith("file:")
        sys.stdout.buffer.write(struct.pack(">4s5I8x", b".snd", 32, 0xFFFFFFFF, 6, 24000, 2))
        sys.stdout.buffer.write(struct.pack(">2f", 0.5, 0.25) * 48000)
        sys.stderr.write({says!r})
        sys.exit({code})
        """)
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_m4a_goes_through_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.m4a"
    path.write_bytes(b"anything")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"a\.m4a: this format needs the ffmpeg program.*brew install ffmpeg"):
        load(path)
    fake_ffmpeg(tmp_path, monkeypatch)
    wave = load(path)
    assert len(wave.samples) == 32_000
    assert np.allclose(wave.samples[1000:-1000], 0.375, atol=1e-3)
    assert (probe(path).samples, probe(path).rate_hz, probe(path).channels) == (48_000, 24_000, 2)


@pytest.mark.parametrize(("code", "says"), [(1, "moov atom not found"), (0, "File ended prematurely")])
def test_ffmpeg_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, says: str):
    path = tmp_path / "a.webm"
    path.write_bytes(b"anything")
    fake_ffmpeg(tmp_path, monkeypatch, code=code, says=says)
    with pytest.raises(AudioError, match=rf"ffmpeg stops at 2.000 s with code {code}: {says}"):
        load(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg program on PATH")
@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".mkv"])
def test_real_ffmpeg(files: dict[str, Path], tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(files[".wav"]), str(path)], check=True, timeout=60)
    whole = load(path)
    assert abs(len(whole.samples) - 160_000) <= 2048  # AAC comes in frames of 1,024 samples
    assert np.corrcoef(whole.samples[:159_000], speech_like(10)[:159_000])[0, 1] > 0.95
    part = load(path, start_ms=4321, end_ms=5678)
    at, core = 4321 * 16, part.samples[1000:-1000]
    shifts = [np.abs(core - whole.samples[at + 1000 + k : at + 1000 + k + len(core)]).max() for k in range(-320, 321)]
    assert min(shifts) < 1e-3
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError):
        load(path)


# ---- memory --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_hour_streams_in_bounded_memory(tmp_path: Path):
    path = tmp_path / "hour.flac"
    minute = speech_like(60, 44_100)
    with soundfile.SoundFile(path, "w", 44_100, 2, subtype="PCM_16") as file:
        for _ in range(60):
            file.write(np.stack([minute, minute], axis=1))
    script = """
    import json, resource, sys
    from undertone.audio import stream
    next(stream(sys.argv[1], chunk_ms=30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(len(wave.samples) for wave in stream(sys.argv[1], chunk_ms=30_000))
    print(json.dumps([total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, check=True, timeout=300)
    total, grown = json.loads(done.stdout)
    assert total == 3600 * 16_000
    unit = 1024 if sys.platform == "darwin" else 1
    assert grown / unit < 20_000, f"peak memory grew by {grown / unit:.0f} KiB; the decoded hour is 225,000"
