"""Who is heard and what the targets are: the corpora, the synthetic voices, synthetic music, speaker folds."""

from __future__ import annotations

import csv
import dataclasses
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from undertone.label.features import RATE_HZ

EMOTIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
# `calm` has an output of its own in training, because ravdess tells it from neutral; the exported model adds it to neutral.
CLASSES = (*EMOTIONS, "calm")
GENDERS = ("female", "male")
EVENTS = (
    "speech", "laughter", "crying", "scream", "cough", "sneeze", "sigh", "yawn", "moan", "panting", "throat_clearing",
    "mouth_noise", "music", "noise",
)  # fmt: skip
NO_VOICE = ("music", "noise")
UNKNOWN = -1
SOME_VOICE = -2  # event target of a vocal burst whose kind its corpus does not tell: anything but music and noise

TO_OURS = {
    "angry": "angry", "anger": "angry", "disgust": "disgusted", "disgusted": "disgusted", "fearful": "fearful",
    "fear": "fearful", "happy": "happy", "happiness": "happy", "neutral": "neutral", "calm": "calm", "sad": "sad",
    "sadness": "sad", "surprised": "surprised",
}  # fmt: skip
# Vocal bursts of EmoGator that name one of our emotions; the other 20 kinds train the event output alone.
BURSTS = {
    "anger": "angry", "disgust": "disgusted", "fear": "fearful", "sadness": "sad", "neutral": "neutral",
    "elation": "happy", "ecstasy": "happy", "amusement": "happy",
    "surprise (positive)": "surprised", "surprise (negative)": "surprised",
}  # fmt: skip
SOUNDS = {
    "laughing": "laughter", "crying": "crying", "screaming": "scream", "coughing": "cough", "sneezing": "sneeze",
    "sighing": "sigh", "yawning": "yawn", "moaning": "moan", "panting": "panting", "throat-clearing": "throat_clearing",
    "lip-popping": "mouth_noise", "lip-smacking": "mouth_noise", "tongue-clicking": "mouth_noise",
    "teeth-chattering": "mouth_noise", "teeth-grinding": "mouth_noise", "nose-blowing": "mouth_noise",
}  # fmt: skip
SCENES = {"baby-cry": "crying", "person-sneeze": "sneeze"}  # every other scene is noise

# Pleasure, arousal, dominance of the emotion terms in -1..1: Russell & Mehrabian (1977), Evidence for a three-factor theory
# of emotions, J. Research in Personality 11, table 3. Neutral is the origin by definition; the norms know no "calm".
PAD = {
    "angry": (-0.51, 0.59, 0.25), "disgusted": (-0.60, 0.35, 0.11), "fearful": (-0.64, 0.60, -0.43),
    "happy": (0.81, 0.51, 0.46), "neutral": (0.0, 0.0, 0.0), "sad": (-0.63, -0.27, -0.33), "surprised": (0.40, 0.67, -0.13),
}  # fmt: skip
# Ours, not published: how far an acted intensity lies along the line from neutral to the norm.
INTENSITY = {"": 1.0, "normal": 0.85, "strong": 1.15}

SPEECH = ("ravdess", "tess", "nemo")
DOMAINS = (*SPEECH, "demo", "emogator")  # ways of acting: each has emotion outputs of its own
FOLDS = 4
NEMO_FOLDS = {"EB0": 0, "KS0": 0, "KD0": 1, "MP0": 1, "MK0": 2, "TP0": 2, "WR0": 3}  # a woman and a man each, then one man
# Never trained on by the shipped model: the studies `acted` and `demo` are scored on the first five and on the demo group "test".
SHIPPED_TEST = frozenset({"ravdess/rav17", "ravdess/rav18", "ravdess/rav19", "ravdess/rav20", "tess/YAF", "nemo/MP0"})


@dataclasses.dataclass(frozen=True)
class Clip:
    """One sound with its targets.

    Attributes:
        corpus, speaker: where it is from; "corpus/speaker" names the voice.
        emotion: index into CLASSES, or UNKNOWN.
        gender: index into GENDERS, or UNKNOWN.
        vad: valence, arousal, dominance in 0..1, or None where no norm applies.
        event: index into EVENTS, UNKNOWN or SOME_VOICE.
        wave: float32 mono at 16 kHz.
        label: the corpus's own word.
        samples: length of the wave, kept where the wave itself is dropped.
    """

    corpus: str
    speaker: str
    emotion: int
    gender: int
    vad: tuple[float, float, float] | None
    event: int
    wave: np.ndarray
    label: str = ""
    samples: int = 0

    @property
    def voice(self) -> str:
        """The speaker with the corpus: "corpus/speaker"."""
        return f"{self.corpus}/{self.speaker}"


def hashed(name: str) -> int:
    """A number of a name that is the same in every run."""
    return zlib.crc32(name.encode())


def fold_of(clip: Clip, fold: int) -> str:
    """Say whether a clip is "train" or "test" in one of the four joint speaker folds.

    TESS has two speakers, who are held out in turn; speakers without a fold of their own are dealt by a hash of the name.
    Synthetic voices are "train" or "unused" as in the shipped model.
    """
    if clip.corpus == "demo":
        return "unused" if clip.speaker.startswith("test:") else "train"
    if clip.corpus == "ravdess":
        held = (int(clip.speaker[3:]) - 1) // 5
    elif clip.corpus == "nemo":
        held = NEMO_FOLDS[clip.speaker]
    elif clip.corpus == "tess":
        held = fold if clip.speaker == ("OAF", "YAF")[fold % 2] else -1
    else:
        held = hashed(clip.voice) % FOLDS
    return "test" if held == fold else "train"


def left_out(clip: Clip, corpus: str) -> str:
    """Say whether a clip is "train", "test" or "unused" where one speech corpus is left out; other sounds as in fold 0."""
    if clip.corpus in SPEECH:
        return "test" if clip.corpus == corpus else "train"
    return "unused" if fold_of(clip, 0) == "test" else fold_of(clip, 0)


def shipped(clip: Clip) -> str:
    """Say whether a clip is "train" or "test" for the shipped model."""
    if clip.corpus == "demo":
        return "test" if clip.speaker.startswith("test:") else "train"
    if clip.corpus in SPEECH:
        return "test" if clip.voice in SHIPPED_TEST else "train"
    return "test" if hashed(clip.voice) % 8 == 0 else "train"


def vad_target(emotion: str, intensity: float) -> tuple[float, float, float] | None:
    """Map the norm of an emotion, scaled by intensity, to valence, arousal, dominance in 0..1."""
    if emotion not in PAD:
        return None
    v, a, d = (min(1.0, max(0.0, 0.5 + 0.5 * intensity * x)) for x in PAD[emotion])
    return v, a, d


def read_wave(file: Path) -> np.ndarray:
    """Read any sound file as 16 kHz mono."""
    wave, rate = soundfile.read(file, dtype="float32", always_2d=True)
    mono = wave.mean(axis=1)
    return mono if rate == RATE_HZ else soxr.resample(mono, rate, RATE_HZ).astype(np.float32)


def read_corpora(data: Path) -> Iterator[Clip]:
    """Read the speech and voice corpora of the shared data folder."""
    for corpus in (*SPEECH, "emogator", "deeply-nonverbal"):
        for row in csv.DictReader((data / corpus / "manifest.csv").open(encoding="utf-8")):
            emotion = (TO_OURS if corpus in SPEECH else BURSTS).get(row["emotion"])
            kind = "speech" if corpus in SPEECH else SOUNDS.get(row["emotion"])
            yield Clip(
                corpus,
                row["speaker"],
                UNKNOWN if emotion is None else CLASSES.index(emotion),
                GENDERS.index(row["gender"]) if row["gender"] in GENDERS else UNKNOWN,
                vad_target(emotion, INTENSITY.get(row["intensity"], 1.0)) if emotion else None,
                EVENTS.index(kind) if kind else SOME_VOICE,
                read_wave(data / corpus / row["file"]),
                row["emotion"],
            )


def read_acoustics(data: Path) -> Iterator[Clip]:
    """Read noises and scenes as events."""
    for folder in ("noises", "scenes"):
        for file in sorted((data / "acoustics" / folder).iterdir()):
            kind = file.stem.rsplit("-", 1)[0]
            event = SCENES.get(kind, "noise") if folder == "scenes" else "noise"
            yield Clip("acoustics", file.stem, UNKNOWN, UNKNOWN, None, EVENTS.index(event), read_wave(file), kind)


# Sentences without emotion in the words, for the synthetic voices.
WHO = ("The teacher", "My neighbour", "A driver", "Her cousin", "The clerk", "Someone", "The whole team", "Your brother")
DID = ("moved", "opened", "found", "ordered", "painted", "returned", "carried", "sold", "forgot", "counted")
WHAT = ("the wooden box", "two tickets", "a green chair", "the morning paper", "some old letters", "the kitchen table", "a map")
WHEN = ("before lunch", "on Tuesday", "at the station", "last week", "near the river", "after the meeting", "this morning")


def synthetic_voices(count: int, *, group: str, seed: int) -> Iterator[Clip]:
    """Let one group of the espeak voices say neutral sentences in all emotions, in turn, at intensity 0.7 to 1.2."""
    from undertone.corpora.voices import VOICES, speak  # late: only this step needs the `demo` extra

    rng = random.Random(seed)
    voices = [voice for voice in VOICES if voice.group == group]
    for i in range(count):
        voice, emotion = voices[i % len(voices)], EMOTIONS[i // len(voices) % len(EMOTIONS)]
        text = f"{rng.choice(WHO)} {rng.choice(DID)} {rng.choice(WHAT)} {rng.choice(WHEN)}."
        intensity = rng.uniform(0.7, 1.2)
        wave = np.asarray(speak(text, voice, emotion, intensity=intensity, seed=seed * 100_000 + i).samples, dtype=np.float32)
        name = voice.name if group == "train" else f"test:{voice.name}"
        yield Clip(
            "demo", name, EMOTIONS.index(emotion), GENDERS.index(voice.gender), vad_target(emotion, intensity), 0, wave, emotion
        )


def read_everything(data: Path, *, seed: int) -> list[Clip]:
    """Everything that the recipe trains on and measures, in a fixed order."""
    from affect_small.sounds import music, noises

    voices = [*synthetic_voices(1500, group="train", seed=seed), *synthetic_voices(300, group="test", seed=seed + 1)]
    clips = [*read_corpora(data), *read_acoustics(data), *voices, *music(240, seed=seed), *noises(120, seed=seed)]
    return [dataclasses.replace(clip, samples=len(clip.wave)) for clip in clips]
