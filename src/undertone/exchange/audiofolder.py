"""audiofolder of Hugging Face datasets: audio files and a table of metadata beside them.

    FOLDER/train/metadata.parquet    column file_name, and the row of `rows.py`
    FOLDER/train/audio/KEY.flac

Layout: "Create an audio dataset" of the datasets documentation: metadata.csv, metadata.jsonl or metadata.parquet with a column file_name
relative to it; folders named after splits; without metadata, the folder's name is the label. We write Parquet, because datasets takes a
JSONL file's types from its first rows. Read with `load_dataset("audiofolder", data_dir=FOLDER)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from undertone.corpora.folder import is_audio, read_csv
from undertone.errors import DataError
from undertone.exchange.hf_dataset import SPLITS
from undertone.exchange.incoming import ExchangeCorpus, Found, Skip, json_lines
from undertone.exchange.items import Item, Placed
from undertone.exchange.rows import row_of, row_schema
from undertone.paths import Location, join, open_parquet
from undertone.records import Segment

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_ROWS = 1_000


class AudiofolderWriter:
    """Writes a folder per split, its metadata by the thousand rows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._schema = pa.schema([pa.field("file_name", pa.string()), *row_schema()])
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        split = SPLITS[item.split]
        file = self._folder / split / "audio" / placed.file.name
        file.parent.mkdir(parents=True, exist_ok=True)
        placed.cut.rename(file)
        rows = self._rows.setdefault(split, [])
        rows.append({"file_name": f"audio/{file.name}", **row_of(item, segments, duration_ms=placed.duration_ms)})
        if len(rows) >= _ROWS:
            self._flush(split)

    def _flush(self, split: str) -> None:
        if split not in self._writers:
            self._writers[split] = pq.ParquetWriter(self._folder / split / "metadata.parquet", self._schema, compression="zstd")
        self._writers[split].write_table(pa.Table.from_pylist(self._rows[split], schema=self._schema))
        self._rows[split] = []

    def close(self) -> None:
        for split in self._rows:
            self._flush(split)
            self._writers[split].close()


class AudiofolderCorpus(ExchangeCorpus):
    """Settings of an audiofolder. Without metadata, the name of a file's folder is its `label`: columns: {emotion: label}."""

    kind: Literal["audiofolder"] = "audiofolder"

    def _found(self) -> Iterator[Found | Skip]:
        metadata = [one for one in self._below() if one.name in METADATA]
        yield from (one for file in metadata for one in self._of_metadata(file)) if metadata else self._of_folders()

    def _of_metadata(self, metadata: PurePosixPath) -> Iterator[Found | Skip]:
        folder, file = metadata.parent, self.path / metadata
        for number, row in enumerate(_rows(file), start=1):
            where = f"{metadata} row {number}"
            if isinstance(row, Skip):
                yield row
                continue
            if "file_name" not in row:
                raise DataError(f"{file} has no column file_name; it has {', '.join(row)}. Expected metadata of an audiofolder")
            name = row["file_name"]
            if not isinstance(name, str) or not name.strip():
                yield Skip(where, "no_file", f"file_name is {name!r}")
                continue
            yield Found(
                where=where,
                key=(folder / name).as_posix(),
                path=join(file.parent, name),
                row=row,
                split=row.get("split") or self._split_word(folder / name, by_folder=True),
                language=row.get("language"),
                licence=row.get("licence"),
            )

    def _of_folders(self) -> Iterator[Found | Skip]:
        for name in self._below():
            if not is_audio(name.name):
                continue
            yield Found(
                where=name.as_posix(),
                key=name.as_posix(),
                path=self.path / name,
                row={"label": name.parent.name},
                split=self._split_word(name, by_folder=True),
            )


def _rows(file: Location) -> Iterator[dict[str, Any] | Skip]:
    if file.suffix == ".csv":
        yield from read_csv(file)
    elif file.suffix == ".jsonl":
        yield from (one if isinstance(one, Skip) else one[1] for one in json_lines(file))
    else:
        try:
            with open_parquet(file) as opened:
                for batch in pq.ParquetFile(opened).iter_batches(batch_size=_ROWS):
                    yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file} cannot be read as Parquet: {error}") from error
