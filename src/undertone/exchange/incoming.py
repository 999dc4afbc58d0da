"""Other tools' datasets in: what all formats share.

A format says where the sound of each row is and what is said about it (`Found`); this module turns that into planned recordings: it
gathers rows of one file, maps emotion words and splits, checks values, and counts what it leaves out and why. Audio that lies inside
another file (a Parquet cell, a tar member) is taken out when the recording is read (`PackedSpec`).

What is read is people's data: labels of other labellers than those in `labellers` stay out, because everything that a recording's
references say is taken for the truth, and words come without the sound labels that they may carry, for the same reason.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from undertone import tables
from undertone.corpora.emotions import to_emotion
from undertone.corpora.folder import AUDIO_SUFFIXES, GENDERS, NAME_PATTERN, FileSpec, recorded
from undertone.corpora.plan import Plan, Planned, SplitRule, Spoken, stamp_of, stamps_of
from undertone.errors import AudioError, DataError
from undertone.exchange.rows import VIEW, view, without_lists
from undertone.paths import Location, files_below, join, local_copy, open_parquet, read_range
from undertone.records import EMOTIONS, HUMAN, Label, Loss, Recording, Segment, Split, Word, content_hash

UNFINISHED = ".undertone-export.unfinished"
"""Lies in a folder of an object store while an export is put there."""

SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "valid", "validation", "val"), "dev"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Usual words for our splits: those of datasets.data_files.SPLIT_KEYWORDS."""

PLAIN = tuple(name for name in Spoken.model_fields if name not in ("start_ms", "end_ms", "words"))
"""What a column can say about an utterance."""

_MEND = {
    "emotion": f"expected {', '.join(EMOTIONS)} or usual words for them. Map them in the corpus' settings: emotions: {{{{{{word}}: neutral}}}}",
    "gender": f"expected {', '.join(GENDERS)} or nothing. Change them in the dataset",
    "split": f"expected {', '.join(SPLIT_WORDS)}. Map them in the corpus' settings: splits: {{{{{{word}}: train}}}}",
}

_SEGMENT = {"start_ms", "end_ms", "speaker", "transcript", "words", "labels"}
"""What a row's segments have where they are ours."""

_TEXTS = frozenset({"speaker", "text", "emotion", "gender", "intensity"})


# ---- what is read --------------------------------------------------------------------------------------------------------------


class Cell(BaseModel):
    """Sound in a Parquet cell {bytes, path}; where it is a path only, the path is relative to `base`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    group: int
    row: int
    name: str
    base: Location


class Member(BaseModel):
    """Sound in an uncompressed tar: `size` bytes from `offset`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offset: int = Field(ge=0)
    size: int = Field(gt=0)
    name: str


class Utterance(Spoken):
    """An utterance with further labels than one for each attribute; `labels` are in the time of the file."""

    labels: tuple[Label, ...] = ()

    def segment(
        self, recording_id: str, start_ms: int, end_ms: int, *, words: Sequence[Word] | None = None, origin_ms: int = 0
    ) -> Segment:
        made = super().segment(recording_id, start_ms, end_ms, words=words, origin_ms=origin_ms)
        moved = (
            one.model_copy(update={"start_ms": one.start_ms + origin_ms, "end_ms": one.end_ms + origin_ms}) for one in self.labels
        )
        return made.model_copy(update={"labels": (*made.labels, *moved)})


class PackedSpec(FileSpec):
    """One recording of another tool's dataset: a file, or sound inside one, and the utterances in it."""

    utterances: tuple[Utterance, ...] = ()
    inside: Cell | Member | None = None

    def read(self, planned: Planned, out_dir: Location) -> Recording:
        """Take the sound out to `out_dir/audio/` where it is inside another file, and place the utterances.

        Raises:
            AudioError: The file, or what should be in it, is missing or cannot be decoded.
        """
        file: Location = self.path
        if self.inside is not None:
            content = _member(self.path, self.inside) if isinstance(self.inside, Member) else _cell(self.path, self.inside)
            if not isinstance(content, bytes):
                file = content
            else:
                file = out_dir / "audio" / (_file_name(f"{planned.corpus}-{planned.key}") + _suffix(self.inside.name, content))
                tables.write_bytes(file, content)
        return recorded(planned, file, self.model_copy(update={"path": file})._references)


def _member(path: Location, member: Member) -> bytes:
    try:
        content = read_range(path, member.offset, member.size)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) != member.size:
        raise AudioError(f"{path}: truncated: {member.name} should have {member.size} bytes, {len(content)} are there")
    return content


def _cell(path: Location, cell: Cell) -> bytes | Location:
    try:
        found = _group(path, stamp_of(path), cell.column, cell.group)[cell.row].as_py() or {}
    except (OSError, pa.ArrowException, IndexError, KeyError) as error:
        raise AudioError(f"{path}: row {cell.row} of row group {cell.group} cannot be read: {error}") from error
    if found.get("bytes"):
        content: bytes = found["bytes"]
        return content
    if not found.get("path"):
        raise AudioError(f"{path}: row {cell.row} of row group {cell.group} has neither bytes nor path in column {cell.column!r}")
    return join(cell.base, str(found["path"]))


@functools.lru_cache(maxsize=1)
def _group(path: Location, stamp: str | None, column: str, group: int) -> pa.ChunkedArray:
    """The sound of one row group; neighbours are read next, so the last one is kept."""
    del stamp
    with open_parquet(path) as file:
        return pq.ParquetFile(file).read_row_group(group, columns=[column]).column(column)


def _file_name(text: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text)
    return safe if safe == text and len(safe) < 120 else f"{safe[:100]}-{content_hash(text)[:8]}"


_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3"}


def _suffix(name: str, content: bytes) -> str:
    """What kind of audio file some bytes are: by their beginning, else by their name."""
    known = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), None)
    given = Path(name).suffix.lower()
    return known or (given if given in AUDIO_SUFFIXES else ".mp3")


# ---- what a format finds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a dataset says about one stretch. `plain` is by the names of `PLAIN`, in the dataset's own words; times in ms of the file.

    `words` and `labels` are records as plain values. `kept` is true for a stretch that stays an utterance though nothing is said in it.
    """

    plain: Mapping[str, Any] = field(default_factory=dict)
    start_ms: int | None = None
    end_ms: int | None = None
    words: Sequence[Mapping[str, Any]] = ()
    labels: Sequence[Mapping[str, Any]] = ()
    kept: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """One row of a dataset. Rows of equal `key` are about one recording.

    `row` is read by `said_of_row` unless `said` is given; its keys are what `columns` may name.
    """

    where: str
    key: str
    path: Location
    inside: Cell | Member | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    said: Sequence[Said] | None = None
    split: str | None = None
    language: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Skip:
    """A row that is left out: where, a short reason, and for people what is wrong."""

    where: str
    reason: str
    detail: str


def said_of_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Said, ...]:
    """What a row of a table says: our `segments`, or one utterance from plain columns.

    Raises:
        ValueError: A value is not what it should be, or the plain columns of our own row were edited beside its segments.
    """
    segments = row.get("segments")
    if segments and isinstance(segments, list) and all(isinstance(one, dict) and one.keys() >= _SEGMENT for one in segments):
        now = view(segments)
        edited = [name for name in VIEW if name in row and not _same(row[name], now[name])]
        if edited:
            raise ValueError(
                f"{', '.join(edited)} differ from segments: edit segments, or remove that column to use the plain ones"
            )
        return tuple(said_of_segment(one) for one in segments)
    plain = {name: row.get(columns.get(name, name)) for name in PLAIN}
    start, end = (_milliseconds(row.get(columns.get(name, name)), name) for name in ("start_s", "end_s"))
    if (start is None) != (end is None):
        raise ValueError("a row has only one of start_s and end_s; give both or none")
    return (Said(plain=plain, start_ms=start, end_ms=end),)


def said_of_segment(segment: Mapping[str, Any]) -> Said:
    """What one of our own segments says, as `rows.segment_row` writes it."""
    clean = without_lists(segment)
    return Said(
        plain={"speaker": clean.get("speaker"), "text": clean.get("transcript")},
        start_ms=clean["start_ms"],
        end_ms=clean["end_ms"],
        words=clean["words"],
        labels=clean["labels"],
        kept=True,
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, abs_tol=1e-9)
    return bool((a or None) == (b or None))


def _milliseconds(seconds: Any, name: str) -> int | None:
    if seconds is None or seconds == "":
        return None
    found = float(seconds) * 1000
    if not math.isfinite(found):
        raise ValueError(f"{name} is {seconds!r}, expected seconds")
    return round(found)


def to_ms(seconds: Any) -> int:
    """Seconds as whole milliseconds.

    Raises:
        ValueError: Not a finite number.
    """
    found = _milliseconds(seconds, "a time")
    if found is None:
        raise ValueError("a time is missing")
    return found


def json_lines(file: Location, lines: Iterator[bytes] | None = None) -> Iterator[tuple[int, dict[str, Any]] | Skip]:
    """The objects of a file of JSON lines with their line numbers; lines that hold none are skips. One line is held at a time."""
    with ExitStack() as held:
        if lines is None:
            lines = held.enter_context(held.enter_context(local_copy(file)).open("rb"))
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Skip(f"{file.name} line {number}", "not_json", str(error))
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                yield Skip(f"{file.name} line {number}", "not_an_object", repr(row)[:60])


# ---- from what is found to what is planned -------------------------------------------------------------------------------------


@dataclass
class _Group:
    """The rows of one recording so far."""

    first: Found
    utterances: dict[str, Utterance] = field(default_factory=dict)
    splits: set[Split] = field(default_factory=set)


@dataclass
class _Survey:
    """What went by while a dataset was read."""

    groups: dict[str, _Group] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    speakers: set[str] = field(default_factory=set)
    unknown: dict[str, Counter[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def strange(self, kind: str, word: str) -> None:
        self.unknown.setdefault(kind, Counter())[word] += 1


class ExchangeCorpus(BaseModel):
    """Settings that all formats share.

    `columns` maps our names to the dataset's ({text: sentence}), `emotions` its emotion words to ours, `splits` its splits to ours.
    `labellers` says whose labels are taken for the truth. Where `hold_out` holds speakers out, it decides the split, else the dataset.
    A speaker's name is prefixed by the corpus' unless it has a "/" and so is prefixed already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Location
    name: str | None = Field(default=None, pattern=NAME_PATTERN)
    columns: dict[str, str] = Field(default_factory=dict)
    emotions: dict[str, str] = Field(default_factory=dict)
    splits: dict[str, Split] = Field(default_factory=dict)
    labellers: tuple[str, ...] = (HUMAN,)
    language: str | None = None
    licence: str | None = None
    hold_out: SplitRule = SplitRule()

    @property
    def title(self) -> str:
        """The corpus' name: given, or the folder's."""
        return self.name or _file_name(self.path.resolve().name)

    def plan(self, *, seed: int) -> list[Planned]:
        """One planned recording per audio file, sorted by key; `seed` is not used."""
        del seed
        return self.plan_all().rows

    def plan_all(self) -> Plan:
        """What will be read, and what is left out and why.

        Raises:
            DataError: The dataset is missing or of another kind, a column of the settings is in none of its rows, a word for an emotion,
                a gender or a split is not known, or no row is usable.
        """
        if not self.path.exists():
            raise DataError(f"{self.path} does not exist; expected a dataset of kind {type(self).model_fields['kind'].default}")
        if (self.path / UNFINISHED).exists():
            raise DataError(f"{self.path} was not written to its end ({UNFINISHED} lies in it); export into it again")
        survey = _Survey()
        for found in self._found():
            if isinstance(found, Skip):
                survey.skips.append(found)
                continue
            survey.columns.update(dict.fromkeys(found.row))
            self._take(found, survey)
        self._check(survey)
        groups = sorted(survey.groups.items())
        stamps = stamps_of([group.first.path for _, group in groups])
        planned = ((key, group, stamp) for (key, group), stamp in zip(groups, stamps, strict=True))
        rows = [row for one in planned if (row := self._planned(*one, survey))]
        if not rows:
            reasons = "; ".join(f"{one.where}: {one.reason} ({one.detail})" for one in survey.skips[:5]) or "it is empty"
            raise DataError(f"{self.path} holds no usable row: {reasons}")
        dropped = tuple(Loss(row_id=one.where, stage="plan", reason=one.reason, detail=one.detail) for one in survey.skips)
        return Plan(rows=rows, dropped=dropped, note=self._note(survey))

    def _found(self) -> Iterator[Found | Skip]:
        raise NotImplementedError(f"{type(self).__name__} does not say what it finds")

    def _below(self) -> list[PurePosixPath]:
        """The files of the dataset's folder, as paths below it."""
        return [PurePosixPath(one) for one in files_below(self.path)]

    def _files(self, wanted: Callable[[str], bool]) -> tuple[Location, list[PurePosixPath]]:
        """The folder that the dataset's own files lie in, and those whose names are wanted as paths below it."""
        if self.path.is_file():
            return self.path.parent, [PurePosixPath(self.path.name)]
        return self.path, [one for one in self._below() if wanted(one.name)]

    def _take(self, found: Found, survey: _Survey) -> None:
        try:
            said = said_of_row(found.row, self.columns) if found.said is None else found.said
            utterances = [self._utterance(one, survey) for one in said]
            split = self._split(found, said, survey)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            detail = _first(error) if isinstance(error, ValidationError) else str(error)
            survey.skips.append(Skip(found.where, "bad_row", detail))
            return
        before = survey.groups.get(found.key)
        if before is not None and (before.first.path, before.first.inside) != (found.path, found.inside):
            survey.skips.append(Skip(found.where, "same_key", f"{before.first.where} has the key {found.key}, too"))
            return
        group = survey.groups.setdefault(found.key, _Group(dataclasses.replace(found, row={}, said=None)))
        # Clips overlap: what two of them say about one stretch in the same words is one utterance.
        group.utterances.update({one.model_dump_json(): one for one in utterances if one is not None})
        if split is not None:
            group.splits.add(split)

    def _utterance(self, said: Said, survey: _Survey) -> Utterance | None:
        plain = {name: clean for name, value in said.plain.items() if (clean := _clean(name, value)) is not None}
        if "emotion" in plain:
            plain["emotion"] = self._emotion(plain["emotion"], survey)
        if "gender" in plain:
            gender = GENDERS.get(plain["gender"].lower())
            if gender is None:
                survey.strange("gender", plain["gender"])
            plain["gender"] = gender
        if "speaker" in plain:
            survey.speakers.add(_bare(plain["speaker"]))
            plain["speaker"] = plain["speaker"] if "/" in plain["speaker"] else f"{self.title}/{plain['speaker']}"
        labels = []
        for one in said.labels:
            if one["labeller"] in self.labellers:
                labels.append(Label.model_validate(one))
            else:
                survey.left_out[one["labeller"]] += 1
        if not plain and not said.words and not said.labels and not said.kept:
            return None
        words = tuple(Word(**{name: one.get(name) for name in ("text", "start_ms", "end_ms", "confidence")}) for one in said.words)
        made = Utterance(**plain, start_ms=said.start_ms, end_ms=said.end_ms, words=words, labels=tuple(labels))
        if made.start_ms is not None and made.end_ms is not None and not 0 <= made.start_ms < made.end_ms:
            raise ValueError(f"an utterance from {made.start_ms} to {made.end_ms} ms; expected 0 <= start < end")
        return made

    def _emotion(self, word: str, survey: _Survey) -> str | None:
        try:
            return to_emotion(self.emotions.get(word, word))
        except DataError:
            survey.strange("emotion", word)
            return None

    def _split(self, found: Found, said: Sequence[Said], survey: _Survey) -> Split | None:
        if self.hold_out != SplitRule():
            speakers = {_bare(str(one.plain["speaker"])) for one in said if one.plain.get("speaker")}
            splits = {self.hold_out.of(one) for one in speakers} or {self.hold_out.of(None)}
            if len(splits) > 1:
                raise ValueError(
                    f"holds speakers of different splits ({', '.join(sorted(splits))}); a recording is on one side only"
                )
            return splits.pop()
        if not found.split:
            return None
        split = self.splits.get(found.split) or SPLIT_WORDS.get(found.split.lower())
        if split is None:
            survey.strange("split", found.split)
        return split

    def _split_word(self, name: PurePosixPath, *, by_folder: bool = False) -> str | None:
        """The split that a file is named after, by its folders or a word of its name."""
        candidates = [*name.parts[:-1], *(() if by_folder else re.split(r"[-_.]", name.name))]
        return next((one for one in candidates if one in self.splits or one.lower() in SPLIT_WORDS), None)

    def _check(self, survey: _Survey) -> None:
        absent = [f"{ours} (as {theirs!r})" for ours, theirs in self.columns.items() if theirs not in survey.columns]
        if absent and survey.columns:
            raise DataError(
                f"{self.path} lacks the column {', '.join(absent)}; it has {', '.join(survey.columns)}. Mend columns in the corpus' settings"
            )
        for kind, words in survey.unknown.items():
            shown = ", ".join(f"{word!r} ({count} rows)" for word, count in words.most_common(10))
            raise DataError(f"{self.path}: {kind}s {shown} are not known; {_MEND[kind].format(word=next(iter(words)))}")
        self.hold_out.check(survey.speakers)

    def _planned(self, key: str, group: _Group, stamp: str | None, survey: _Survey) -> Planned | None:
        if len(group.splits) > 1:
            survey.skips.append(Skip(group.first.where, "two_splits", f"{key} is in {' and '.join(sorted(group.splits))}"))
            return None
        found = group.first
        spec = PackedSpec(path=found.path, inside=found.inside, utterances=tuple(group.utterances.values()))
        return Planned(
            corpus=self.title,
            key=key,
            reader="packed",
            spec=spec.model_dump_json(exclude_defaults=True),
            split=next(iter(group.splits), "train"),
            language=found.language or self.language,
            licence=found.licence or self.licence,
            stamp=stamp,
        )

    def _note(self, survey: _Survey) -> str:
        parts = []
        if survey.skips:
            counted = Counter(one.reason for one in survey.skips)
            parts.append(
                f"{len(survey.skips)} rows left out: " + ", ".join(f"{count} {reason}" for reason, count in counted.most_common())
            )
        if survey.left_out:
            names = ", ".join(f"{count} of {name}" for name, count in survey.left_out.most_common())
            parts.append(f"labels left out, because labellers does not name their labeller: {names}")
        return "; ".join(parts)


def _clean(name: str, value: Any) -> Any:
    """A value of a plain column; None for what says nothing (empty text, NaN)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if name in _TEXTS or isinstance(value, str):
        return str(value).strip() or None
    return value


def _bare(speaker: str) -> str:
    return speaker.rsplit("/", 1)[-1]


def _first(error: ValidationError) -> str:
    one = error.errors()[0]
    return f"{'.'.join(map(str, one['loc']))}: got {one.get('input')!r}, {one['msg']}"
