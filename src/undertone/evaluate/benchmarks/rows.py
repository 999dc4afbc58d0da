"""Rows of Hugging Face datasets in both forms in which benchmarks are published, read without the datasets package.

    FOLDER/data/test-00000-of-00001.parquet                     Dataset.push_to_hub, the "dataset viewer's" form
    FOLDER/dataset_info.json, state.json, data-00000-of-00001.arrow     Dataset.save_to_disk
    FOLDER/dataset_dict.json, test/state.json, ...              DatasetDict.save_to_disk

`load_dataset` fails on the second form where it was uploaded as it is (the CPQA set's viewer stops at the empty struct `_format_kwargs` of
state.json); here state.json only names the files. Sound is {bytes, path}, or the path alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError
from undertone.paths import Location, files_below, join, local_copy, open_parquet

AT_ONCE = 32

AUDIO = ("context.audio", "context", "audio")
QUESTION = ("instruction.text", "instruction", "question")
ANSWER = ("answer.text", "answer", "reference")
TRANSCRIPT = ("context.text",)
TYPE = tuple(
    f"{inside}{name}"
    for inside in ("", "other_attributes.")
    for name in ("question_type", "qa_type", "question_category", "category", "type", "kind")
)


class Columns(BaseModel):
    """Which column holds what, by dotted path ("context.audio"); None takes the first of the usual names that is there.

    The usual names of sound, question and answer are those that AudioBench's code reads (`context`, `instruction`, `answer`; in older sets
    structs of `audio` and `text`). Nothing is published about a column for the type of a question: its usual names are guesses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: str | None = None
    question: str | None = None
    answer: str | None = None
    transcript: str | None = None
    type: str | None = None


@dataclass(frozen=True)
class Row:
    """One row: where it stands, its sound, and its texts; None for a column that the set does not have or a cell without text."""

    where: str
    sound: bytes | Location | None
    name: str
    question: str | None
    answer: str | None
    transcript: str | None
    type: str | None


@dataclass(frozen=True)
class Found:
    """The paths of the columns that a set has."""

    audio: str
    question: str | None
    answer: str
    transcript: str | None
    type: str | None


class NativeRows:
    """A folder of such a dataset.

    Args:
        path: The folder.
        columns: Which column holds what.
        split: Which split is read where there are several.
        asks: Whether rows must have a question of their own.
    """

    def __init__(self, path: Location, *, columns: Columns, split: str = "test", asks: bool = True) -> None:
        self._path, self._columns, self._split, self._asks = path, columns, split, asks
        self.found: Found | None = None

    def __iter__(self) -> Iterator[Row]:
        if not self._path.is_dir():
            raise DataError(f"{self._path} does not exist or is not a folder; expected the benchmark as it was downloaded")
        base, files = self._files()
        for file in files:
            at = 0
            for batch in _batches(file):
                self.found = self._columns_of(file, batch.schema)
                for values in batch.to_pylist():
                    yield self._row(f"{file.name} row {at}", values, self.found, base)
                    at += 1

    def _files(self) -> tuple[Location, list[Location]]:
        """The folder that paths of sound begin in, and the files of the split."""
        names = sorted(
            name for name in files_below(self._path) if not any(one.startswith(".") for one in PurePosixPath(name).parts)
        )
        folder = self._path
        if "dataset_dict.json" in names:
            splits = _json(folder / "dataset_dict.json").get("splits") or []
            folder = folder / _chosen(self._path, splits, self._split)
        if (folder / "state.json").is_file():
            listed = _json(folder / "state.json").get("_data_files")
            if not listed:
                raise DataError(f"{folder / 'state.json'} names no data files; expected what Dataset.save_to_disk writes")
            return folder, [folder / str(one["filename"]) for one in listed]
        tables = [name for name in names if name.endswith(".parquet")]
        if not tables:
            raise DataError(
                f"{self._path} holds neither Parquet files (data/{self._split}-00000-of-00001.parquet) nor what Dataset.save_to_disk writes "
                "(state.json, data-00000-of-00001.arrow); set path to the folder of the downloaded dataset"
            )
        of_split = {name: _split_of(name) for name in tables}
        splits = sorted(set(of_split.values()))
        wanted = _chosen(self._path, splits, self._split)
        return folder, [folder / name for name in tables if of_split[name] == wanted]

    def _columns_of(self, file: Location, schema: pa.Schema) -> Found:
        paths = {path: kind for field in schema for path, kind in _paths(field.name, field.type)}

        def find(what: str, usual: tuple[str, ...], *, needed: bool) -> str | None:
            given: str | None = getattr(self._columns, what)
            # A sound is a struct; a path to it, like any text, is taken only where it is named or is no struct.
            fits = _is_sound if what == "audio" and not given else _is_plain
            found = next((one for one in ((given,) if given else usual) if one in paths and fits(paths[one])), None)
            if found is None and (needed or given):
                raise DataError(
                    f"{file} has no column of the {what} ({given or ', '.join(usual)}); it has {', '.join(paths)}. Name it in the benchmark's "
                    f"settings: columns: {{{what}: NAME}}"
                )
            return found

        return Found(
            audio=find("audio", AUDIO, needed=True) or "",
            question=find("question", QUESTION, needed=self._asks),
            answer=find("answer", ANSWER, needed=True) or "",
            transcript=find("transcript", TRANSCRIPT, needed=False),
            type=find("type", TYPE, needed=False),
        )

    def _row(self, where: str, values: Mapping[str, Any], found: Found, base: Location) -> Row:
        sound = _at(values, found.audio)
        inside = sound if isinstance(sound, dict) else {"path": sound}
        content, path = inside.get("bytes"), inside.get("path")
        texts = {what: _text(_at(values, getattr(found, what))) for what in ("question", "answer", "transcript", "type")}
        return Row(
            where=where,
            sound=content or (join(base, str(path)) if path else None),
            name=str(path or ""),
            **texts,
        )


def _batches(file: Location) -> Iterator[pa.RecordBatch]:
    try:
        if file.suffix == ".parquet":
            with open_parquet(file) as source:
                yield from pq.ParquetFile(source).iter_batches(batch_size=AT_ONCE)
            return
        with local_copy(file) as copy, pa.memory_map(str(copy)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                for start in range(0, len(batch), AT_ONCE):
                    yield batch.slice(start, AT_ONCE)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {error}; download it again") from error


def _paths(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The column and, of a struct, the columns inside it; the bytes and path of a sound are no columns."""
    yield name, kind
    if pa.types.is_struct(kind) and not _is_sound(kind):
        for child in kind:
            yield from _paths(f"{name}.{child.name}", child.type)


def _is_sound(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {child.name for child in kind} == {"bytes", "path"}


def _is_plain(kind: pa.DataType) -> bool:
    return _is_sound(kind) or not pa.types.is_nested(kind)


def _at(values: Mapping[str, Any], path: str | None) -> Any:
    found: Any = values if path is not None else None
    for part in (path or "").split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _split_of(name: str) -> str:
    """The split that a Parquet file's name says: "data/test-00000-of-00001.parquet" is of "test"."""
    return PurePosixPath(name).stem.split("-")[0]


def _chosen(path: Location, splits: list[str], wanted: str) -> str:
    if wanted in splits:
        return wanted
    if len(splits) == 1:
        return splits[0]
    raise DataError(f"{path} holds the splits {', '.join(splits) or 'none'}, not {wanted!r}; name one in the settings: split: NAME")


def _json(file: Location) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}; download it again") from error
    return found if isinstance(found, dict) else {}
