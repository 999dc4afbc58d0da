"""The demonstration corpus: conversations "in the wild" whose every truth is known, made offline from a seed.

`plan` draws what is said, by whom, how, and where; a plan is small and plain data, so any process can `render` it to audio and
exact human-style references. Voices of group "train" speak in split train and voices of group "test" in split test; those of
group "labeller" are kept for whoever trains the labeller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from undertone.corpora import scripts, voices
from undertone.errors import ConfigError
from undertone.records import HUMAN, Emotion, Label, Segment, Word

RATE_HZ = voices.RATE_HZ
SAMPLES_PER_MS = RATE_HZ // 1000
CORPUS = "demo"

DemoSplit = Literal["train", "test"]
Noise = Literal["pink", "hum", "babble"]
_Floats = npt.NDArray[np.float64]
_Gain = Callable[[_Floats], _Floats]

# Bounds of what differs between recordings (uniform).
PAUSE_MS = (400, 1200)
"""Between turns, and before the first and after the last."""
SNR_DB = (12.0, 30.0)
"""Power of the speech where someone speaks over the power of the noise."""
GAIN_DB = (-6.0, 4.0)
"""Of the whole recording: distance to the microphone."""
SPEAKER_DB = 3.0
"""Half width of the level difference of the speakers of one recording."""


class PlannedTurn(BaseModel):
    """One utterance to be rendered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voice: str
    text: str
    emotion: Emotion
    pause_ms: int = Field(ge=0)
    """Silence before it."""
    gain_db: float
    seed: int


class ConversationPlan(BaseModel):
    """Everything that makes one recording; JSON in, the same audio out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    split: DemoSplit
    turns: tuple[PlannedTurn, ...] = Field(min_length=1)
    tail_ms: int = Field(ge=0)
    noise: Noise
    snr_db: float
    gain_db: float
    seed: int


@dataclass(frozen=True)
class Rendered:
    """A recording and its truth.

    Attributes:
        samples: float32 mono in -1..1, shape (samples,), at `RATE_HZ`.
        references: One segment per turn, in time order; their `recording_id` is the plan's name, because the real one is the
            hash of a file that is not written yet (see `references_for`).
        split: Of the plan.
    """

    samples: voices.Samples
    references: tuple[Segment, ...]
    split: DemoSplit

    def references_for(self, recording_id: str) -> tuple[Segment, ...]:
        """The references of the recording once it is a file with an id."""
        return tuple(one.model_copy(update={"recording_id": recording_id}) for one in self.references)


def plan(*, seed: int, recordings_per_split: Mapping[str, int]) -> list[ConversationPlan]:
    """Draws the recordings of a corpus, train first.

    The first n of a split are the same whatever its size and the other split's. Voices are dealt like cards, so that all of a
    group are heard about equally often.

    Args:
        seed: All randomness is from here.
        recordings_per_split: How many recordings, such as {"train": 60, "test": 20}.

    Raises:
        ConfigError: An unknown split or a negative number.
    """
    problems = [
        f"recordings_per_split.{split}: got {count}, expected >= 0" if split in get_args(DemoSplit) else f"unknown split {split!r}"
        for split, count in recordings_per_split.items()
        if split not in get_args(DemoSplit) or count < 0
    ]
    if problems:
        raise ConfigError(f"demo corpus: {'; '.join(problems)}; splits are train and test")
    made = []
    for number, split in enumerate(get_args(DemoSplit)):
        deck = _deck(split, np.random.default_rng([seed, number]))
        for index in range(recordings_per_split.get(split, 0)):
            rng = np.random.default_rng([seed, number, index])
            speakers = int(rng.integers(1, 3))
            cast = [next(deck)]
            while len(cast) < speakers:
                cast += [one for one in [next(deck)] if one not in cast]
            made.append(_draw(f"{CORPUS}-{split}-{index:05d}", split, tuple(cast), rng))
    return made


def _deck(split: DemoSplit, rng: np.random.Generator) -> Iterator[str]:
    """Deals the voices of a split without end, reshuffled after each round."""
    names = [voice.name for voice in voices.VOICES if voice.group == split]
    while True:
        yield from (names[i] for i in rng.permutation(len(names)))


def _draw(name: str, split: DemoSplit, cast: tuple[str, ...], rng: np.random.Generator) -> ConversationPlan:
    count = int(rng.integers(scripts.MIN_LINES, scripts.MAX_LINES + 1))
    speaker_db = rng.uniform(-SPEAKER_DB, SPEAKER_DB, size=len(cast))
    turns = tuple(
        PlannedTurn(
            voice=cast[turn.speaker_index],
            text=turn.line.text,
            emotion=turn.emotion,
            pause_ms=_pause(rng),
            gain_db=round(float(speaker_db[turn.speaker_index]), 2),
            seed=int(rng.integers(2**31)),
        )
        for turn in scripts.conversation(rng, lines=count, speakers=len(cast))
    )
    kinds: tuple[Noise, ...] = get_args(Noise)
    return ConversationPlan(
        name=name,
        split=split,
        turns=turns,
        tail_ms=_pause(rng),
        noise=kinds[int(rng.integers(len(kinds)))],
        snr_db=round(float(rng.uniform(*SNR_DB)), 2),
        gain_db=round(float(rng.uniform(*GAIN_DB)), 2),
        seed=int(rng.integers(2**31)),
    )


def _pause(rng: np.random.Generator) -> int:
    return int(rng.integers(PAUSE_MS[0], PAUSE_MS[1] + 1))


def render(plan: ConversationPlan) -> Rendered:
    """Renders a plan; the same plan gives equal bytes in any process.

    Raises:
        ConfigError: The plan names a voice that does not exist.
        DependencyError: espeakng-loader is not installed.
    """
    parts: list[_Floats] = []
    references: list[Segment] = []
    speech_power, spoken, at_ms = 0.0, 0, 0
    for turn in plan.turns:
        voice = _voice(turn.voice)
        said = voices.speak(turn.text, voice, turn.emotion, seed=turn.seed)
        wave = said.samples.astype(np.float64) * 10 ** (turn.gain_db / 20)
        at_ms += turn.pause_ms
        references.append(_reference(plan.name, turn, voice, said, at_ms))
        speech_power, spoken = speech_power + float((wave**2).sum()), spoken + len(wave)
        # Turns begin on a whole millisecond, so that times in ms are exact.
        padded = math.ceil(len(wave) / SAMPLES_PER_MS) * SAMPLES_PER_MS
        parts += [np.zeros(turn.pause_ms * SAMPLES_PER_MS), np.pad(wave, (0, padded - len(wave)))]
        at_ms += padded // SAMPLES_PER_MS
    speech = np.concatenate([*parts, np.zeros(plan.tail_ms * SAMPLES_PER_MS)])
    noise = _noise(plan.noise, len(speech), np.random.default_rng(plan.seed))
    noise *= math.sqrt(speech_power / spoken / float((noise**2).mean())) * 10 ** (-plan.snr_db / 20)
    mixed = speech + noise
    gain = min(10 ** (plan.gain_db / 20), 0.98 / float(np.abs(mixed).max()))
    return Rendered((mixed * gain).astype(np.float32), tuple(references), plan.split)


def _voice(name: str) -> voices.Voice:
    for voice in voices.VOICES:
        if voice.name == name:
            return voice
    raise ConfigError(f"no voice {name!r}; expected one of {', '.join(voice.name for voice in voices.VOICES)}")


def _reference(recording: str, turn: PlannedTurn, voice: voices.Voice, said: voices.Utterance, at_ms: int) -> Segment:
    """The truth about one turn that begins at `at_ms` of the recording."""
    end_ms = at_ms + said.words[-1].end_ms
    return Segment(
        recording_id=recording,
        start_ms=at_ms,
        end_ms=end_ms,
        speaker=f"{CORPUS}/{voice.name}",
        transcript=turn.text,
        words=tuple(
            Word(text=word.text, start_ms=at_ms + word.start_ms, end_ms=at_ms + word.end_ms, confidence=1.0) for word in said.words
        ),
        labels=tuple(
            Label(attribute=attribute, category=category, start_ms=at_ms, end_ms=end_ms, labeller=HUMAN)
            for attribute, category in (("emotion", turn.emotion), ("gender", voice.gender))
        ),
    )


# ---- noise -------------------------------------------------------------------------------------------------------------


def _noise(kind: Noise, count: int, rng: np.random.Generator) -> _Floats:
    """Background noise of any power, shape (count,)."""
    if kind == "pink":
        return _coloured(count, rng, lambda hz: 1 / np.sqrt(np.maximum(hz, 20.0)))
    if kind == "hum":
        return _hum(count, rng)
    return _babble(count, rng)


def _coloured(count: int, rng: np.random.Generator, gain: _Gain) -> _Floats:
    """Gaussian noise with an amplitude response over frequency, unit variance."""
    size = 1 << (count - 1).bit_length()  # transforms of other lengths can be ten times slower
    hz = np.fft.rfftfreq(size, 1 / RATE_HZ).astype(np.float64)
    shaped: _Floats = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * gain(hz), size)[:count]
    return shaped / float(shaped.std())


def _hum(count: int, rng: np.random.Generator) -> _Floats:
    """Mains hum (50 or 60 Hz with falling harmonics) over pink noise 6 dB below it."""
    base = float(rng.choice([50.0, 60.0]))
    seconds = np.arange(count) / RATE_HZ
    tone = np.zeros(count)
    for harmonic in range(1, 8):
        tone += np.sin(2 * math.pi * base * harmonic * seconds + rng.uniform(0, 2 * math.pi)) / harmonic
    return tone / float(tone.std()) + 0.5 * _noise("pink", count, rng)


def _babble(count: int, rng: np.random.Generator) -> _Floats:
    """Twelve streams of noise with the spectrum of speech, each swelling at the pace of syllables.

    Not real speech, so that no voice is heard outside its group. The spectrum is flat to 500 Hz and falls by 9 dB per octave
    above, near the long-term average of Byrne et al. (JASA 96, 1994); 3 to 6 Hz is the peak of speech's modulation spectrum
    (Houtgast & Steeneken, JASA 77, 1985).
    """
    seconds = np.arange(count) / RATE_HZ
    total = np.zeros(count)
    for _ in range(12):
        swell = 0.5 + 0.5 * np.sin(2 * math.pi * rng.uniform(3.0, 6.0) * seconds + rng.uniform(0, 2 * math.pi))
        total += swell * _coloured(count, rng, lambda hz: (hz > 100) * np.maximum(hz / 500.0, 1.0) ** -1.5)
    return total
