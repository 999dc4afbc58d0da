"""What is exported: a stream of items, each a stretch of audio with its segments and the questions about it.

A Clip becomes one item, a Recording one, and all segments of a recording in a Segment table one. Items come one at a time in the order
of the table, so that memory does not grow with it (the pairs' text and, for segments, a line per recording are held).
"""

from __future__ import annotations

import functools
import itertools
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa

from undertone import audio, tables
from undertone.corpora.plan import stamp_of
from undertone.errors import AudioError, DataError
from undertone.paths import Location, ObjectError, below, local_copy, location
from undertone.records import Clip, Label, QAPair, Recording, Segment, Split, Word, from_arrow

COPIED_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
"""Whole files of these kinds are copied byte for byte: every peer's decoder reads them. Others become FLAC."""

Timed = TypeVar("Timed", Word, Label)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One stretch of one audio file. `end_ms` is None for the whole file; segments are in the file's time until `relative`.

    `key` is made of letters, digits, "-" and "_", so that it can be a file name, a tar key and an RTTM id.
    `by_people` is true for a recording's references, which people gave; where the segments of a clip are from is told by their labels.
    """

    key: str
    uri: Location
    start_ms: int = 0
    end_ms: int | None = None
    recording_id: str
    source: str
    language: str | None
    licence: str | None
    split: Split | None
    segments: tuple[Segment, ...]
    pairs: tuple[QAPair, ...] = ()
    by_people: bool = False


@dataclass
class Tally:
    """What became of an export's input: `held` counts what was given to the format, `lost` what it has no room for, `skipped` whole items.

    `seen` counts items, `milliseconds` is the sound of those written.
    """

    seen: int = 0
    milliseconds: int = 0
    held: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Placed:
    """Where an item's sound is: a file, where the item begins in it and how long it is. `samples` counts the whole file."""

    file: Location
    offset_ms: int
    duration_ms: int
    rate_hz: int
    samples: int
    channels: int

    @property
    def cut(self) -> Path:
        """The file, where it was written for this export."""
        if not isinstance(self.file, Path):
            raise DataError(f"{self.file} was not cut; this format holds its audio")
        return self.file

    def inside(self, folder: Path) -> PurePosixPath | None:
        """The file's path below the folder of the export; None where it is left where it is."""
        return below(self.file, folder)


def items(table: Location, *, recordings: Location | None, pairs: Sequence[Location], tally: Tally) -> Iterator[Item]:
    """Every item of a finished table of clips, recordings or segments.

    Args:
        table: The table's folder.
        recordings: For segments, the table of their recordings; None for `corpus/` beside the table.
        pairs: Tables of question-answer pairs about the clips.
        tally: Counts what cannot become an item.

    Raises:
        DataError: The table is not finished or of another kind, or a table that it needs is missing.
    """
    done = tables.finished(table)
    if done is None:
        tables.open_table(table, Clip)  # raises with the reason
        raise DataError(f"{table} is not a finished table")
    asked = _Pairs(pairs)
    match done.record:
        case "Clip":
            found: Iterator[Item] = (_of_clip(one, asked) for one in tables.open_table(table, Clip).rows())
        case "Recording":
            found = (_of_recording(one, one.references, by_people=True) for one in tables.open_table(table, Recording).rows())
        case "Segment":
            found = _of_segments(table, recordings or table.parent / "corpus", tally)
        case other:
            raise DataError(
                f"{table} holds {other} rows; expected a table of Clip, Recording or Segment rows, such as RUN/condense"
            )
    return _once(found, asked, tally)


def _once(found: Iterator[Item], asked: _Pairs, tally: Tally) -> Iterator[Item]:
    """Each key once: two items of one key would be one file."""
    seen: set[str] = set()
    for item in found:
        tally.seen += 1
        if item.key in seen:
            tally.skipped["same_key"] += 1
            continue
        seen.add(item.key)
        yield item
    if asked.left:
        tally.lost["pairs_about_no_exported_clip"] += asked.left


class _Pairs:
    """Pairs by clip: their text stays in Arrow, and a clip's pairs become records when the clip comes by."""

    def __init__(self, folders: Sequence[Location]) -> None:
        opened = [tables.open_table(one, QAPair).arrow() for one in folders]
        self._table: pa.Table | None = pa.concat_tables(opened) if opened else None
        self._rows: dict[str, list[int]] = {}
        for index, clip in enumerate(self._table.column("clip_id").to_pylist() if self._table is not None else ()):
            self._rows.setdefault(clip, []).append(index)

    def about(self, clip_id: str) -> tuple[QAPair, ...]:
        rows = self._rows.pop(clip_id, None)
        return tuple(from_arrow(self._table.take(rows), QAPair)) if rows and self._table is not None else ()

    @property
    def left(self) -> int:
        return sum(map(len, self._rows.values()))


def _of_clip(clip: Clip, asked: _Pairs) -> Item:
    return Item(
        key=_key(clip.id),
        uri=location(clip.uri),
        start_ms=clip.start_ms,
        end_ms=clip.end_ms,
        recording_id=clip.recording_id,
        source=clip.source,
        language=clip.language,
        licence=clip.licence,
        split=clip.split,
        segments=clip.segments,
        pairs=asked.about(clip.id),
    )


def _of_recording(recording: Recording, segments: Sequence[Segment], *, by_people: bool = False) -> Item:
    return Item(
        key=_key(recording.id),
        uri=location(recording.uri),
        recording_id=recording.id,
        source=recording.source,
        language=recording.language,
        licence=recording.licence,
        split=recording.split,
        segments=tuple(segments),
        by_people=by_people,
    )


def _of_segments(table: Location, recordings: Location, tally: Tally) -> Iterator[Item]:
    try:
        # Without what was said: only a line per recording is held.
        known = {one.id: one.model_copy(update={"references": ()}) for one in tables.open_table(recordings, Recording).rows()}
    except DataError as error:
        raise DataError(f"segments need the table of their recordings: {error}. Name it: recordings=RUN/corpus") from error
    for recording_id, group in itertools.groupby(tables.open_table(table, Segment).rows(), key=lambda one: one.recording_id):
        segments = list(group)
        if recording_id not in known:
            tally.seen += 1
            tally.skipped["unknown_recording"] += 1
            tally.lost["segments_of_unknown_recordings"] += len(segments)
            continue
        yield _of_recording(known[recording_id], segments)


def _key(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)


# ---- times ---------------------------------------------------------------------------------------------------------------------


def relative(item: Item, *, offset_ms: int, end_ms: int, tally: Tally) -> tuple[Segment, ...]:
    """An item's segments in the time of the file that it is placed in.

    Args:
        item: The item.
        offset_ms: What is 0 in that file.
        end_ms: Where the item ends in its recording; times beyond it, or before `offset_ms`, are clipped and counted.
        tally: Counts them.
    """
    made = []
    for one in item.segments:
        start, end = max(one.start_ms, offset_ms), min(one.end_ms, end_ms)
        if end <= start:
            tally.lost["segments_outside_the_audio"] += 1
            continue
        # A cut is up to a sample shorter than its whole milliseconds.
        tally.lost["times_clipped"] += (start - one.start_ms > 1) + (one.end_ms - end > 1)
        made.append(
            one.model_copy(
                update={
                    "start_ms": start - offset_ms,
                    "end_ms": end - offset_ms,
                    "words": tuple(_moved(word, offset_ms, end_ms, tally) for word in one.words),
                    "labels": tuple(_moved(label, offset_ms, end_ms, tally) for label in one.labels),
                }
            )
        )
    return tuple(made)


def _moved(one: Timed, offset_ms: int, end_ms: int, tally: Tally) -> Timed:
    start = min(max(one.start_ms, offset_ms), end_ms)
    end = min(max(one.end_ms, start), end_ms)
    tally.lost["times_clipped"] += (abs(start - one.start_ms) > 1) + (abs(end - one.end_ms) > 1)
    return one.model_copy(update={"start_ms": start - offset_ms, "end_ms": end - offset_ms})


# ---- sound ---------------------------------------------------------------------------------------------------------------------


def _probed(uri: Location) -> audio.Probe:
    """What a file is; probing reads all of it, and a recording's clips follow each other."""
    return _probe_of(uri, stamp_of(uri))


@functools.lru_cache(maxsize=16)
def _probe_of(uri: Location, stamp: str | None) -> audio.Probe:
    del stamp
    return audio.probe(uri)


def cut(item: Item, stem: Path) -> Placed:
    """Write an item's own audio file: a whole file is copied where every peer reads its kind, all else becomes 16-bit mono FLAC.

    Args:
        item: The item.
        stem: The new file without its suffix.

    Raises:
        AudioError: The item's file cannot be decoded.
    """
    probe = _probed(item.uri)
    if item.end_ms is None and item.uri.suffix.lower() in COPIED_SUFFIXES:
        file = stem.with_name(stem.name + item.uri.suffix.lower())
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with local_copy(item.uri) as whole:
                shutil.copyfile(whole, file)
        except (FileNotFoundError, ObjectError) as error:  # gone since it was probed
            raise AudioError(f"{item.uri}: {error}") from error
        return Placed(file, 0, probe.duration_ms, probe.rate_hz, probe.samples, probe.channels)
    wave = audio.load(item.uri, rate_hz=probe.rate_hz, start_ms=item.start_ms, end_ms=item.end_ms)
    file = stem.with_name(stem.name + ".flac")
    file.parent.mkdir(parents=True, exist_ok=True)
    audio.write(file, wave)
    return Placed(file, 0, wave.duration_ms, wave.rate_hz, len(wave.samples), 1)


def referenced(item: Item) -> Placed:
    """An item's place in the file where it is."""
    probe = _probed(item.uri)
    end_ms = probe.duration_ms if item.end_ms is None else min(item.end_ms, probe.duration_ms)
    return Placed(item.uri.resolve(), item.start_ms, end_ms - item.start_ms, probe.rate_hz, probe.samples, probe.channels)


def sizes(segments: Sequence[Segment]) -> Mapping[str, int]:
    """How much is said about some segments, by kind."""
    return {
        "segments": len(segments),
        "transcripts": sum(bool(one.transcript) for one in segments),
        "words": sum(len(one.words) for one in segments),
        "labels": sum(len(one.labels) for one in segments),
    }
