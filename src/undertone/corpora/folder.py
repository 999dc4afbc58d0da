"""A folder of audio, with or without a manifest: the way in for everybody's own speech.

A manifest (manifest.csv or manifest.jsonl, or named in the settings) has a row per utterance with a column `file` and, where known,
`speaker`, `text`, `emotion`, `gender`, `split`, `start_s`, `end_s`. Several rows may name one file. Other columns are ignored;
columns with other names are mapped in the settings: `columns: {file: path, text: transcript}`.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from undertone import audio
from undertone.corpora.emotions import to_emotion
from undertone.corpora.plan import Planned, SplitRule, Spoken, as_split
from undertone.errors import DataError
from undertone.records import EMOTIONS, Recording, Split

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au"}  # decoded by libsndfile
    | {".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mov", ".wma"}  # by ffmpeg where it is installed
)
_COLUMNS = ("file", "speaker", "text", "emotion", "gender", "split", "start_s", "end_s")
_GENDERS = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}


class FolderCorpus(BaseModel):
    """Settings of a folder of audio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["folder"] = "folder"
    path: Path
    name: str | None = None
    manifest: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    emotions: dict[str, str] = Field(default_factory=dict)
    language: str | None = None
    licence: str | None = None
    hold_out: SplitRule = SplitRule()

    @property
    def title(self) -> str:
        """The corpus' name: given, or the folder's."""
        return self.name or self.path.resolve().name

    def plan(self, *, seed: int) -> list[Planned]:
        """One planned recording per audio file, sorted by name; `seed` is not used, a folder is what it is."""
        del seed
        planned = []
        for file, spoken, split in self.utterances():
            spec = FileSpec(path=self.path / file, utterances=spoken)
            planned.append(
                Planned(
                    corpus=self.title,
                    key=file,
                    reader="file",
                    spec=spec.model_dump_json(),
                    split=split,
                    language=self.language,
                    licence=self.licence,
                )
            )
        return planned

    def utterances(self) -> list[tuple[str, tuple[Spoken, ...], Split]]:
        """Every audio file with what is known about it and its split.

        Raises:
            DataError: The folder or its manifest is wrong; the message lists all problems of one kind.
        """
        if not self.path.is_dir():
            raise DataError(f"corpus folder {self.path} does not exist or is not a folder")
        manifest = self._manifest()
        rows = self._rows(manifest) if manifest else [{"file": name} for name in self._found()]
        if not rows:
            raise DataError(
                f"corpus folder {self.path} holds no audio: expected files ending in {', '.join(sorted(AUDIO_SUFFIXES))}"
            )
        self.hold_out.check({row["speaker"] for row in rows if row.get("speaker")})
        by_file: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            by_file[row["file"]].append(row)
        return [(file, *self._one_file(file, found)) for file, found in sorted(by_file.items())]

    def _one_file(self, file: str, rows: list[dict[str, str]]) -> tuple[tuple[Spoken, ...], Split]:
        spoken = tuple(self._spoken(row) for row in rows if len(row) > 1)
        splits = {as_split(row["split"], file) if row.get("split") else self.hold_out.of(row.get("speaker")) for row in rows}
        if len(splits) > 1:
            raise DataError(
                f"{file} holds speakers of different splits ({', '.join(sorted(splits))}); a recording is on one side only"
            )
        return spoken, splits.pop()

    def _spoken(self, row: Mapping[str, str]) -> Spoken:
        emotion = row.get("emotion")
        gender = row.get("gender")
        return Spoken(
            speaker=f"{self.title}/{row['speaker']}" if row.get("speaker") else None,
            text=row.get("text") or None,
            emotion=self._emotion(emotion) if emotion else None,
            gender=_GENDERS.get(gender.strip().lower()) if gender else None,
            start_ms=_milliseconds(row.get("start_s")),
            end_ms=_milliseconds(row.get("end_s")),
        )

    def _emotion(self, word: str) -> str:
        return to_emotion(self.emotions.get(word, word))

    def _found(self) -> list[str]:
        files = (one for one in self.path.rglob("*") if one.suffix.lower() in AUDIO_SUFFIXES and one.is_file())
        return sorted(one.relative_to(self.path).as_posix() for one in files)

    def _manifest(self) -> Path | None:
        if self.manifest is not None:
            given = self.path / self.manifest
            if not given.is_file():
                raise DataError(f"manifest {given} does not exist")
            return given
        return next((one for one in (self.path / "manifest.csv", self.path / "manifest.jsonl") if one.is_file()), None)

    def _rows(self, manifest: Path) -> list[dict[str, str]]:
        """The manifest's rows under our column names, empty values left out."""
        raw = _read(manifest)
        have = list(dict.fromkeys(name for row in raw for name in row))
        wanted = {name: self.columns.get(name, name) for name in _COLUMNS}
        absent = [
            f"{ours} (as {theirs!r})"
            for ours, theirs in wanted.items()
            if theirs not in have and (ours == "file" or ours in self.columns)
        ]
        if absent:
            raise DataError(
                f"{manifest} lacks the column {', '.join(absent)}; it has {', '.join(have)}. Name its columns in the corpus' settings: "
                "columns: {file: THEIR_NAME, text: THEIR_NAME}"
            )
        self._known_emotions(manifest, [str(row.get(wanted["emotion"]) or "") for row in raw])
        rows = [
            {ours: str(row[theirs]).strip() for ours, theirs in wanted.items() if row.get(theirs) not in (None, "")} for row in raw
        ]
        nameless = [str(number) for number, row in enumerate(rows, start=2) if "file" not in row]
        if nameless:
            raise DataError(f"{manifest} has rows without a file: lines {', '.join(nameless[:10])}")
        return rows

    def _known_emotions(self, manifest: Path, words: list[str]) -> None:
        unknown = []
        for word in sorted({one for one in words if one}):
            try:
                self._emotion(word)
            except DataError:
                unknown.append(word)
        if unknown:
            raise DataError(
                f"{manifest}: emotions {', '.join(map(repr, unknown))} are not known; expected {', '.join(EMOTIONS)} or usual words for them. "
                f"Map them in the corpus' settings: emotions: {{{unknown[0]}: neutral}}"
            )


class FileSpec(BaseModel):
    """One audio file and the utterances in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    utterances: tuple[Spoken, ...] = ()

    def read(self, planned: Planned, out_dir: Path) -> Recording:
        """Probe the file and place its utterances.

        Raises:
            AudioError: The file cannot be decoded.
        """
        del out_dir
        probe = audio.probe(self.path)
        key = probe.sha256[:16]
        references = [one.segment(key, *self._bounds(one, probe.duration_ms)) for one in self.utterances]
        return Recording(
            uri=str(self.path),
            sha256=probe.sha256,
            rate_hz=probe.rate_hz,
            samples=probe.samples,
            channels=probe.channels,
            source=planned.corpus,
            language=planned.language,
            licence=planned.licence,
            split=planned.split,
            references=tuple(sorted(references, key=lambda one: (one.start_ms, one.end_ms))),
        )

    def _bounds(self, spoken: Spoken, duration_ms: int) -> tuple[int, int]:
        if spoken.start_ms is not None and spoken.end_ms is not None:
            if not 0 <= spoken.start_ms < spoken.end_ms <= duration_ms + 50:
                raise DataError(
                    f"{self.path}: an utterance from {spoken.start_ms} to {spoken.end_ms} ms does not lie in a file of {duration_ms} ms"
                )
            return spoken.start_ms, min(spoken.end_ms, duration_ms)
        return speech_bounds(audio.load(self.path))


def speech_bounds(wave: audio.Wave, *, below_peak_db: float = 35.0, frame_ms: int = 10) -> tuple[int, int]:
    """Where the speech of a one-utterance file begins and ends, in ms: its frames within `below_peak_db` of the loudest."""
    size = wave.rate_hz * frame_ms // 1000
    count = len(wave.samples) // size
    if count == 0:
        return 0, max(1, wave.duration_ms)
    level = np.square(wave.samples[: count * size].reshape(count, size)).mean(axis=1)
    loud = np.flatnonzero(level >= level.max() * 10 ** (-below_peak_db / 10))
    return int(loud[0]) * frame_ms, (int(loud[-1]) + 1) * frame_ms


def _milliseconds(seconds: str | None) -> int | None:
    if seconds is None:
        return None
    try:
        return round(float(seconds) * 1000)
    except ValueError as error:
        raise DataError(f"a time in the manifest is {seconds!r}, expected seconds as a number") from error


def _read(manifest: Path) -> list[dict[str, Any]]:
    if manifest.suffix == ".csv":
        with manifest.open(newline="", encoding="utf-8-sig") as handle:
            return list(csv.DictReader(handle))
    rows = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{manifest} line {number} is not JSON: {error}") from error
    return rows
