"""A folder of audio, with or without a manifest: the way in for everybody's own speech.

A manifest (manifest.csv or manifest.jsonl, or named in the settings) has a row per utterance with a column `file` and, where known,
`speaker`, `text`, `emotion`, `gender`, `split`, `start_s`, `end_s`. Several rows may name one file. Other columns are ignored;
columns with other names are mapped in the settings: `columns: {file: path, text: transcript}`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from undertone import audio
from undertone.corpora.emotions import to_emotion
from undertone.corpora.plan import Planned, SplitRule, Spoken, as_split, stamps_of
from undertone.errors import DataError
from undertone.paths import Location, files_below, join
from undertone.records import EMOTIONS, Recording, Segment, Split

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au"}  # decoded by libsndfile
    | {".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mov", ".wma"}  # by ffmpeg where it is installed
)


def is_audio(name: str) -> bool:
    """Whether a file's name says that it is audio."""
    return PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a corpus may be called: names become file names."""

_COLUMNS = ("file", "speaker", "text", "emotion", "gender", "split", "start_s", "end_s")
GENDERS = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}


class FolderCorpus(BaseModel):
    """Settings of a folder of audio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["folder"] = "folder"
    path: Location
    name: str | None = Field(default=None, pattern=NAME_PATTERN)
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
        found = self.utterances()
        specs = [FileSpec(path=join(self.path, file), utterances=spoken) for file, spoken, _ in found]
        stamps = stamps_of([one.path for one in specs])
        planned = []
        for (file, _, split), spec, stamp in zip(found, specs, stamps, strict=True):
            planned.append(
                Planned(
                    corpus=self.title,
                    key=file,
                    reader="file",
                    spec=spec.model_dump_json(exclude_defaults=True),
                    split=split,
                    language=self.language,
                    licence=self.licence,
                    stamp=stamp,
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
        start, end = row.get("start_s"), row.get("end_s")
        if (start is None) != (end is None):
            raise DataError(f"{row['file']}: a row has start_s {start!r} and end_s {end!r}; give both or none")
        return Spoken(
            speaker=f"{self.title}/{row['speaker']}" if row.get("speaker") else None,
            text=row.get("text") or None,
            emotion=self._emotion(emotion) if emotion else None,
            gender=GENDERS[gender.lower()] if gender else None,
            start_ms=_milliseconds(start, row["file"]),
            end_ms=_milliseconds(end, row["file"]),
        )

    def _emotion(self, word: str) -> str:
        return to_emotion(self.emotions.get(word, word))

    def _found(self) -> list[str]:
        return [one for one in files_below(self.path) if is_audio(one)]

    def _manifest(self) -> Location | None:
        if self.manifest is not None:
            given = self.path / self.manifest
            if not given.is_file():
                raise DataError(f"manifest {given} does not exist")
            return given
        return next((one for one in (self.path / "manifest.csv", self.path / "manifest.jsonl") if one.is_file()), None)

    def _rows(self, manifest: Location) -> list[dict[str, str]]:
        """The manifest's rows under our column names, empty values left out."""
        raw = _read(manifest)
        if not raw:
            raise DataError(
                f"{manifest} has no rows; expected a row per utterance with a column 'file'. "
                "Add rows, or remove the manifest to take every audio file of the folder as raw speech"
            )
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
        rows = [{ours: cell for ours, theirs in wanted.items() if (cell := _cell(row.get(theirs)))} for row in raw]
        self._known_emotions(manifest, {row["emotion"] for row in rows if "emotion" in row})
        _known_genders(manifest, {row["gender"] for row in rows if "gender" in row})
        nameless = [str(number) for number, row in enumerate(rows, start=2) if "file" not in row]
        if nameless:
            raise DataError(f"{manifest} has rows without a file: lines {', '.join(nameless[:10])}")
        return rows

    def _known_emotions(self, manifest: Location, words: set[str]) -> None:
        unknown = []
        for word in sorted(words):
            try:
                self._emotion(word)
            except DataError:
                unknown.append(word)
        if unknown:
            raise DataError(
                f"{manifest}: emotions {', '.join(map(repr, unknown))} are not known; expected {', '.join(EMOTIONS)} or usual words for them. "
                f"Map them in the corpus' settings: emotions: {{{unknown[0]}: neutral}}"
            )


ReferencesOf = Callable[[str, int], Sequence[Segment]]
"""From a recording's id and its length in ms to its reference segments."""


def recorded(planned: Planned, file: Location, references: ReferencesOf) -> Recording:
    """The recording that an audio file is.

    Args:
        planned: What it was planned as.
        file: The audio.
        references: What people said about it.

    Raises:
        AudioError: The file cannot be decoded.
    """
    probe = audio.probe(file)
    return Recording(
        uri=str(file),
        sha256=probe.sha256,
        rate_hz=probe.rate_hz,
        samples=probe.samples,
        channels=probe.channels,
        source=planned.corpus,
        language=planned.language,
        licence=planned.licence,
        split=planned.split,
        references=tuple(references(probe.sha256[:16], probe.duration_ms)),
    )


class FileSpec(BaseModel):
    """One audio file and the utterances in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Location
    utterances: tuple[Spoken, ...] = ()

    def read(self, planned: Planned, out_dir: Location) -> Recording:
        """Probe the file and place its utterances.

        Raises:
            AudioError: The file cannot be decoded.
        """
        del out_dir
        return recorded(planned, self.path, self._references)

    def _references(self, recording_id: str, duration_ms: int) -> list[Segment]:
        found = [one.segment(recording_id, *self._bounds(one, duration_ms)) for one in self.utterances]
        return sorted(found, key=lambda one: (one.start_ms, one.end_ms))

    def _bounds(self, spoken: Spoken, duration_ms: int) -> tuple[int, int]:
        if spoken.start_ms is not None and spoken.end_ms is not None:
            if not 0 <= spoken.start_ms < spoken.end_ms <= duration_ms + 50:
                raise DataError(
                    f"{self.path}: an utterance from {spoken.start_ms} to {spoken.end_ms} ms does not lie in a file of {duration_ms} ms"
                )
            return spoken.start_ms, min(spoken.end_ms, duration_ms)
        start_ms, end_ms = speech_bounds_of(audio.stream(self.path))
        if not spoken.words:
            return start_ms, end_ms
        # A quiet first word lies below the level that the bounds are found by, and a sigh outside the words.
        return min(start_ms, spoken.words[0].start_ms), min(max(end_ms, spoken.words[-1].end_ms), duration_ms)


def speech_bounds(wave: audio.Wave, *, below_peak_db: float = 35.0, frame_ms: int = 10) -> tuple[int, int]:
    """Where the speech of a one-utterance file begins and ends, in ms: its frames within `below_peak_db` of the loudest."""
    return speech_bounds_of([wave], below_peak_db=below_peak_db, frame_ms=frame_ms)


def speech_bounds_of(waves: Iterable[audio.Wave], *, below_peak_db: float = 35.0, frame_ms: int = 10) -> tuple[int, int]:
    """`speech_bounds` of a file that comes in chunks of one rate; only a level per frame is held, and frames may cross chunks."""
    levels = [np.zeros(0, np.float32)]
    rest = np.zeros(0, np.float32)
    duration_ms = 0
    for wave in waves:
        size = wave.rate_hz * frame_ms // 1000
        samples = np.concatenate([rest, wave.samples])
        count = len(samples) // size
        levels.append(np.square(samples[: count * size].reshape(count, size)).mean(axis=1))
        rest = samples[count * size :]
        duration_ms = len(rest) * 1000 // wave.rate_hz
    level = np.concatenate(levels)
    if not len(level):
        return 0, max(1, duration_ms)
    loud = np.flatnonzero(level >= level.max() * 10 ** (-below_peak_db / 10))
    return int(loud[0]) * frame_ms, (int(loud[-1]) + 1) * frame_ms


def _cell(value: object) -> str:
    return "" if value is None else str(value).strip()


def _known_genders(manifest: Location, words: set[str]) -> None:
    unknown = sorted(word for word in words if word.lower() not in GENDERS)
    if unknown:
        raise DataError(
            f"{manifest}: genders {', '.join(map(repr, unknown))} are not known; expected {', '.join(GENDERS)} or an empty cell. "
            "Change them in the manifest"
        )


def _milliseconds(seconds: str | None, file: str) -> int | None:
    if seconds is None:
        return None
    try:
        found = float(seconds) * 1000
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{file}: a time in the manifest is {seconds!r}, expected seconds as a finite number")
    return round(found)


def _read(manifest: Location) -> list[dict[str, Any]]:
    return read_csv(manifest) if manifest.suffix.lower() == ".csv" else _read_jsonl(manifest, utf8_text(manifest))


def utf8_text(file: Location) -> str:
    """The text of a file in UTF-8, a byte order mark left out.

    Raises:
        DataError: It is in another encoding.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}; expected text in UTF-8. "
            f"Convert it, from Windows for example: iconv -f WINDOWS-1252 -t UTF-8 {file.name}"
        ) from error


def read_csv(manifest: Location, *, delimiter: str = ",", quoted: bool = True) -> list[dict[str, Any]]:
    """The rows of a table in UTF-8 whose first line names its columns.

    Args:
        manifest: The file.
        delimiter: Between cells.
        quoted: Whether cells may stand in double quotes; without, a quote is a letter like any other.

    Raises:
        DataError: It is not such a table; the message names the lines.
    """
    lines = io.StringIO(utf8_text(manifest), newline="")
    reader = csv.DictReader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    rows, overfull = [], []
    try:
        for row in reader:
            if any(cell.strip() for cell in row.pop(None, ())):  # None is the key of the cells beyond the header
                overfull.append(str(reader.line_num))
            rows.append(row)
    except csv.Error as error:
        raise DataError(
            f"{manifest} line {reader.line_num} is not CSV: {error}; expected comma-separated cells, quotes closed"
        ) from error
    if overfull:
        raise DataError(
            f"{manifest} has rows with more cells than its header: lines {', '.join(overfull[:10])}; expected {len(reader.fieldnames or ())} "
            "cells. Put text that holds a comma into double quotes"
        )
    return rows


def _read_jsonl(manifest: Location, text: str) -> list[dict[str, Any]]:
    rows = []
    # Not splitlines: it also breaks at U+2028 and the like, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{manifest} line {number} is not JSON: {error}; expected one object per line") from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{manifest} line {number} is {line.strip()[:60]!r}; expected one JSON object per line, such as "
                    '{"file": "a.wav", "speaker": "p1"}'
                )
            rows.append(row)
    return rows
