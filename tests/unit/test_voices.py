"""The rule-based voices: the same bytes every time, every cue in the cited direction, voices that stay in their group."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from undertone.corpora import voices
from undertone.corpora.voices import PROSODY, VOICES, Utterance, speak
from undertone.errors import ConfigError, DependencyError

pytest.importorskip("espeakng_loader")

TEXTS = (
    "My sister keeps the old letters in the kitchen drawer.",
    "The train to the coast leaves at nine.",
    "We park the car behind the library now.",
)
SAMPLE = tuple(
    voice for voice in VOICES if voice.name in {"en-us+f1", "en-us+m1", "en-gb-x-rp+f3", "en-us-nyc+m6", "en+anika", "en-us+m7"}
)


def f0_st(utterance: Utterance) -> np.ndarray:
    """F0 track in semitones re 1 Hz: autocorrelation over 40 ms, first peak near the highest, voiced frames only."""
    wave, size = utterance.samples.astype(float), 640
    floor = 0.4 * np.sqrt((wave**2).mean())
    found = []
    for at in range(0, len(wave) - size, 160):
        frame = wave[at : at + size] - wave[at : at + size].mean()
        if np.sqrt((frame**2).mean()) < floor:
            continue
        spectrum = np.fft.rfft(frame, 2048)
        lags = np.fft.irfft(np.abs(spectrum) ** 2)[:size]
        lags = lags / lags[0] / (1 - np.arange(size) / size)
        low, high = 16_000 // 550, 16_000 // 50
        best = lags[low:high].max()
        peaks = [k for k in range(low, high) if lags[k] > 0.9 * best and lags[k - 1] <= lags[k] >= lags[k + 1]]
        if best > 0.6 and peaks:
            found.append(12 * np.log2(16_000 / peaks[0]))
    return np.array(found)


@functools.cache
def cues(emotion: str) -> dict[str, float]:
    """Mean cues of an emotion over voices and texts."""
    rows = []
    for voice in SAMPLE:
        for seed, text in enumerate(TEXTS):
            said = speak(text, voice, emotion, seed=seed)
            pitch, wave = f0_st(said), said.samples.astype(float)
            power, hz = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(len(wave), 1 / 16_000)
            rows.append(
                {
                    "f0": pitch.mean(),
                    "range": np.percentile(pitch, 90) - np.percentile(pitch, 10),
                    "rise": pitch[-6:].mean() - pitch.mean(),
                    "rate": sum(map(str.isalpha, text)) / (len(wave) / 16_000),
                    "level": 10 * np.log10((wave**2).mean()),
                    "bright": 10 * np.log10(power[hz > 1000].sum() / power[hz <= 1000].sum()),
                }
            )
    return {cue: float(np.mean([row[cue] for row in rows])) for cue in rows[0]}


@pytest.mark.parametrize(
    ("emotion", "cue", "least"),
    [
        ("happy", "f0", 4.0),  # +50 % is 7 semitones
        ("happy", "range", 0.5),
        ("happy", "rate", 2.0),
        ("fearful", "f0", 7.0),
        ("fearful", "rate", 2.0),
        ("angry", "f0", 0.5),
        ("angry", "rate", 1.0),
        ("angry", "level", 4.0),
        ("angry", "bright", 2.0),
        ("surprised", "range", 1.0),
        ("surprised", "rise", 1.5),
        ("surprised", "rate", 0.5),
        ("surprised", "level", 4.0),
        ("sad", "range", -0.5),
        ("sad", "rate", -2.5),
        ("sad", "level", -4.0),
        ("sad", "bright", -2.0),
        ("disgusted", "f0", -2.0),
        ("disgusted", "rate", -3.0),
        ("disgusted", "level", -1.5),
    ],
)
def test_each_cue_moves_as_cited(emotion: str, cue: str, least: float) -> None:
    moved = cues(emotion)[cue] - cues("neutral")[cue]
    assert moved * np.sign(least) >= abs(least), f"{emotion} {cue} moved {moved:+.2f} against neutral"


def test_same_arguments_give_equal_bytes_whatever_was_said_before() -> None:
    for voice in SAMPLE:
        first = speak(TEXTS[0], voice, "fearful", seed=3)
        speak(TEXTS[1], SAMPLE[0], "angry", seed=1)
        again = speak(TEXTS[0], voice, "fearful", seed=3)
        assert first.samples.tobytes() == again.samples.tobytes()
        assert first.words == again.words


def test_same_arguments_give_equal_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from undertone.corpora.voices import PROSODY, VOICES, speak\n"
        "h = hashlib.sha256()\n"
        "for i, v in enumerate(VOICES):\n"
        "    h.update(speak('The train leaves at nine.', v, list(PROSODY)[i % 7], seed=i).samples.tobytes())\n"
        "print(h.hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = hashlib.sha256()
    for i, voice in enumerate(VOICES):
        here.update(speak("The train leaves at nine.", voice, list(PROSODY)[i % 7], seed=i).samples.tobytes())
    assert there == here.hexdigest()


def test_seed_and_intensity_matter() -> None:
    said = {speak(TEXTS[0], SAMPLE[0], "sad", seed=seed).samples.tobytes() for seed in range(4)}
    assert len(said) == 4
    assert (
        abs(len(speak(TEXTS[0], SAMPLE[0], "sad", intensity=0).samples) / len(speak(TEXTS[0], SAMPLE[0], "neutral").samples) - 1)
        < 0.2
    )


def test_every_voice_says_every_emotion_with_forward_word_times() -> None:
    text = "The key of the shed hangs in the hall, next to the map."
    for voice in VOICES:
        for emotion in PROSODY:
            said = speak(text, voice, emotion)
            assert said.samples.dtype == np.float32
            assert said.rate_hz == 16_000
            assert 0.02 < np.abs(said.samples).max() < 1
            assert [word.text for word in said.words] == text.replace(",", "").replace(".", "").split()
            assert said.words[0].start_ms == 0
            assert said.words[-1].end_ms == len(said.samples) * 1000 // 16_000
            assert all(word.start_ms < word.end_ms for word in said.words)
            assert all(a.end_ms == b.start_ms for a, b in zip(said.words, said.words[1:], strict=False))


def test_a_word_is_where_its_sound_is() -> None:
    said = speak("Stop, please stop.", SAMPLE[1], "neutral")
    first = said.words[0]
    part = said.samples[: (first.end_ms - first.start_ms) * 16]
    assert (part**2).mean() > 0.1 * (said.samples**2).mean()


def test_groups_are_disjoint_and_balanced() -> None:
    assert len(VOICES) >= 30
    assert len({voice.name for voice in VOICES}) == len(VOICES)
    variants = [voice.espeak.partition("+")[2] for voice in VOICES]
    assert len(set(variants)) == len(VOICES), "a variant in two groups would let one group hear another's timbre"
    for group, least in (("labeller", 10), ("train", 14), ("test", 8)):
        members = [voice for voice in VOICES if voice.group == group]
        assert len(members) >= least
        assert sum(voice.gender == "female" for voice in members) * 2 == len(members)


def test_women_speak_higher_than_men() -> None:
    mean = {voice.name: (f0_st(speak(TEXTS[0], voice, "neutral")).mean(), voice.gender) for voice in VOICES}
    assert min(pitch for pitch, gender in mean.values() if gender == "female") > max(
        pitch for pitch, gender in mean.values() if gender == "male"
    )


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no prosody rule for emotion 'bored'; expected one of angry, disgusted"):
        speak("Hello.", VOICES[0], "bored")
    with pytest.raises(ConfigError, match=r"nothing to say in '\.\.\.'"):
        speak("...", VOICES[0], "sad")
    with pytest.raises(ConfigError, match="intensity: got -1"):
        speak("Hello.", VOICES[0], "sad", intensity=-1)
    voices._library.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DependencyError, match=r'needs espeakng-loader: pip install "undertone\[demo\]"'):
        speak("Hello.", VOICES[0], "sad")
