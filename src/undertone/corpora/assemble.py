"""Short acted utterances assembled into longer recordings, so that a question can have a context.

Utterances of one or two speakers of the same split follow each other with pauses, brought to one loudness, with an emotion that changes
from turn to turn where the material allows. Ground truth is exact: it is where each utterance was put.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from undertone import audio
from undertone.corpora.folder import NAME_PATTERN, FolderCorpus, ReferencesOf, recorded, speech_bounds
from undertone.corpora.plan import Planned, Spoken, rng_of, stamps_of
from undertone.errors import DataError
from undertone.paths import Location, join
from undertone.records import Recording, Split, content_hash

RATE_HZ = 16_000


class AssembledCorpus(BaseModel):
    """Settings of recordings assembled from folders of single utterances.

    `turns` and `voices` are the smallest and largest number of utterances and of speakers in a recording, `pause_ms` bounds the
    silence between two turns, `recordings` caps the number made for each split (None: until the utterances run out; each is used once).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["assembled"] = "assembled"
    name: str = Field(default="assembled", pattern=NAME_PATTERN)
    of: tuple[FolderCorpus, ...] = Field(min_length=1)
    turns: tuple[int, int] = (4, 7)
    voices: tuple[int, int] = (1, 2)
    pause_ms: tuple[int, int] = (400, 900)
    rms: float = Field(default=0.05, gt=0)
    recordings: dict[Split, int] | None = None

    @field_validator("turns", "voices", "pause_ms")
    @classmethod
    def _is_a_range(cls, value: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        smallest = 0 if info.field_name == "pause_ms" else 1
        low, high = value
        if not smallest <= low <= high:
            raise ValueError(f"got [{low}, {high}], expected [low, high] with {smallest} <= low <= high")
        return value

    @property
    def title(self) -> str:
        return self.name

    def plan(self, *, seed: int) -> list[Planned]:
        """Deal the utterances of each split into recordings; a function of the folders' manifests, the settings and the seed."""
        planned = []
        languages = sorted({one.language for one in self.of if one.language})
        licences = sorted({one.licence for one in self.of if one.licence})
        utterances = self._by_split()
        files = [turn.path for by_speaker in utterances.values() for hand in by_speaker.values() for turn in hand]
        stamps = dict(zip(files, stamps_of(files), strict=True))
        for split, by_speaker in utterances.items():
            wanted = self.recordings.get(split, 0) if self.recordings is not None else None
            for number, turns in enumerate(self._deal(by_speaker, split, seed, wanted)):
                spec = AssembledSpec(turns=tuple(turns), pause_ms=self.pause_ms, rms=self.rms, seed=seed)
                planned.append(
                    Planned(
                        corpus=self.title,
                        key=f"{split}-{number:05d}",
                        reader="assembled",
                        spec=spec.model_dump_json(),
                        split=split,
                        language=", ".join(languages) or None,
                        licence=" and ".join(licences) or None,
                        stamp=content_hash(*(stamps[turn.path] or "" for turn in turns)),
                    )
                )
        return planned

    def _by_split(self) -> dict[Split, dict[str, list[Turn]]]:
        """Utterances by split and speaker."""
        found: dict[Split, dict[str, list[Turn]]] = defaultdict(lambda: defaultdict(list))
        for corpus in self.of:
            for file, spoken, split in corpus.utterances():
                path = join(corpus.path, file)
                if len(spoken) != 1 or not spoken[0].speaker:
                    raise DataError(
                        f"{path} cannot be assembled: expected one utterance with a speaker in the manifest, found {len(spoken)}"
                    )
                found[split][spoken[0].speaker].append(Turn(path=path, spoken=spoken[0]))
        return found

    def _deal(self, by_speaker: dict[str, list[Turn]], split: Split, seed: int, wanted: int | None) -> list[list[Turn]]:
        rng = rng_of(self.title, split, seed)
        hands = {speaker: rng.sample(turns, len(turns)) for speaker, turns in sorted(by_speaker.items())}
        dealt: list[list[Turn]] = []
        while wanted is None or len(dealt) < wanted:
            count, voices = rng.randint(*self.turns), rng.randint(*self.voices)
            able = [speaker for speaker, hand in hands.items() if len(hand) * voices >= count + voices - 1]
            if not able:
                break
            speakers = rng.sample(able, min(voices, len(able)))
            if len(speakers) < voices and any(len(hands[one]) < count for one in speakers):
                break
            dealt.append(_in_turn([hands[one] for one in speakers], count))
        return dealt


class Turn(BaseModel):
    """One utterance to be placed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Location
    spoken: Spoken


def _in_turn(hands: list[list[Turn]], count: int) -> list[Turn]:
    """Take utterances from the hands in turn, preferring one whose emotion and text differ from the turn before."""
    taken: list[Turn] = []
    for number in range(count):
        hand = hands[number % len(hands)]
        before = taken[-1].spoken if taken else None
        fits = [
            index
            for index, one in enumerate(hand)
            if before is None or (one.spoken.emotion != before.emotion and one.spoken.text != before.text)
        ] or [index for index, one in enumerate(hand) if before is None or one.spoken.emotion != before.emotion]
        taken.append(hand.pop(fits[0] if fits else 0))
    return taken


class AssembledSpec(BaseModel):
    """One recording to assemble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    turns: tuple[Turn, ...]
    pause_ms: tuple[int, int]
    rms: float
    seed: int

    def read(self, planned: Planned, out_dir: Location) -> Recording:
        """Render the recording to `out_dir/audio/KEY.flac` and say where each utterance was put.

        Raises:
            AudioError: One of the utterances cannot be decoded.
        """
        rng = rng_of(planned.corpus, planned.key, self.seed)
        pieces: list[np.ndarray] = []
        placed: list[tuple[Spoken, int, int]] = []
        length = 0
        for turn in self.turns:
            pause = RATE_HZ * rng.randint(*self.pause_ms) // 1000
            wave = audio.load(turn.path, rate_hz=RATE_HZ)
            start, end = speech_bounds(wave)
            speech = wave.cut(start, end).samples
            level = float(np.sqrt(np.mean(np.square(speech)))) or 1.0
            pieces += [np.zeros(pause, np.float32), np.clip(speech * (self.rms / level), -1, 1).astype(np.float32)]
            length += pause
            placed.append((turn.spoken, length * 1000 // RATE_HZ, (length + len(speech)) * 1000 // RATE_HZ))
            length += len(speech)
        pieces.append(np.zeros(RATE_HZ * self.pause_ms[0] // 1000, np.float32))
        return written(
            out_dir, planned, np.concatenate(pieces), lambda key, _: [one.segment(key, start, end) for one, start, end in placed]
        )


def written(out_dir: Location, planned: Planned, samples: np.ndarray, references: ReferencesOf) -> Recording:
    """Write rendered audio beside the table and return its recording.

    Args:
        out_dir: The table's folder.
        planned: What was rendered.
        samples: Mono, 16 kHz, -1..1.
        references: From the recording's id and length to its reference segments.
    """
    file = out_dir / "audio" / f"{planned.corpus}-{planned.key}.flac"
    file.parent.mkdir(parents=True, exist_ok=True)
    audio.write(file, audio.Wave(samples=samples, rate_hz=RATE_HZ))
    return recorded(planned, file, references)
