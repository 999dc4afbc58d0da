"""Hugging Face datasets: Parquet with embedded audio, as `Dataset.push_to_hub` leaves it.

    FOLDER/data/train-00000-of-00001.parquet    columns: audio {bytes, path}, and the row of `rows.py`

Layout: "Structure your repository" of the datasets documentation (`data/SPLIT-00000-of-00001.parquet`); the column's type is the key
"huggingface" of the schema's metadata, as `datasets.Features.arrow_schema` writes it. Read with
`load_dataset(FOLDER)`, without torchcodec `.cast_column("audio", Audio(decode=False))`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from undertone.errors import DataError
from undertone.exchange.incoming import Cell, ExchangeCorpus, Found, Skip
from undertone.exchange.items import Item, Placed
from undertone.exchange.rows import AUDIO, row_of, row_schema
from undertone.paths import Location, open_parquet
from undertone.records import Segment

SPLITS = {"train": "train", "dev": "validation", "test": "test", None: "train"}
"""Our splits under datasets' names (datasets.data_files.SPLIT_KEYWORDS)."""

ROW_GROUP_BYTES = 32 << 20
SHARD_BYTES = 500 << 20


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """The datasets features of a row schema, as its JSON has them."""

    def one(kind: pa.DataType) -> Any:
        if kind.equals(AUDIO):
            return {"_type": "Audio"}
        if pa.types.is_struct(kind):
            return {child.name: one(child.type) for child in kind}
        if pa.types.is_list(kind):
            return {"feature": one(kind.value_type), "_type": "List"}
        return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}

    return {name: one(kind) for name, kind in zip(schema.names, schema.types, strict=True)}


class HfWriter:
    """Writes shards of Parquet per split; holds one row group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "data"
        schema = pa.schema([pa.field("audio", AUDIO), *row_schema()])
        metadata = json.dumps({"info": {"features": features_of(schema)}})
        self._schema = schema.with_metadata({"huggingface": metadata})
        self._splits: dict[str, _Shards] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        row = row_of(item, segments, duration_ms=placed.duration_ms)
        row["audio"] = {"bytes": placed.cut.read_bytes(), "path": placed.file.name}
        placed.cut.unlink()
        name = SPLITS[item.split]
        self._splits.setdefault(name, _Shards(self._folder, name, self._schema)).add(row)

    def close(self) -> None:
        for shards in self._splits.values():
            shards.close()


class _Shards:
    """The files of one split; their number is known, and put into their names, at the end."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        self._folder, self._split, self._schema = folder, split, schema
        self._rows: list[dict[str, Any]] = []
        self._held = self._in_file = 0
        self._files: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._held += len(row["audio"]["bytes"])
        if self._held >= ROW_GROUP_BYTES or len(self._rows) >= 100:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files.append(self._folder / f"{self._split}-{len(self._files):05d}")
            self._writer = pq.ParquetWriter(self._files[-1], self._schema, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._in_file += self._held
        self._rows, self._held = [], 0
        if self._in_file >= SHARD_BYTES:
            self._end_file()

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_file = None, 0

    def close(self) -> None:
        self._flush()
        self._end_file()
        for index, file in enumerate(self._files):
            file.rename(self._folder / f"{self._split}-{index:05d}-of-{len(self._files):05d}.parquet")


class HfDatasetCorpus(ExchangeCorpus):
    """Settings of a folder of Parquet files with audio: a downloaded dataset repository, or `Dataset.to_parquet`.

    `audio` is the column of the sound. A row whose audio is a path and not bytes is read from the folder. A class label is taken by
    its name.
    """

    kind: Literal["hf-dataset"] = "hf-dataset"
    audio: str = Field(default="audio", min_length=1)

    def _found(self) -> Iterator[Found | Skip]:
        base, names = self._files(lambda name: name.endswith(".parquet"))
        names = [one for one in names if base != self.path or not any(part.startswith(".") for part in one.parts)]
        if not names:
            raise DataError(
                f"{self.path} holds no Parquet file; expected a dataset as Hugging Face stores it: data/train-00000-of-00001.parquet"
            )
        for name in names:
            try:
                with open_parquet(base / name) as source:
                    yield from self._of_file(base, name, pq.ParquetFile(source))
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{base / name} cannot be read as Parquet: {error}") from error

    def _of_file(self, base: Location, inside: PurePosixPath, opened: pq.ParquetFile) -> Iterator[Found | Skip]:
        file = base / inside
        schema = opened.schema_arrow
        if self.audio not in schema.names:
            raise DataError(
                f"{file} has no column {self.audio!r}; it has {', '.join(schema.names)}. Name the column of the sound in the corpus' settings: "
                "audio: NAME"
            )
        if not pa.types.is_struct(schema.field(self.audio).type):
            raise DataError(
                f"{file}: column {self.audio!r} is {schema.field(self.audio).type}, expected {{bytes, path}} as datasets stores audio"
            )
        classes = _class_names(schema)
        columns = [name for name in schema.names if name != self.audio]
        split = self._split_word(inside)
        for group in range(opened.num_row_groups):
            names = opened.read_row_group(group, columns=[f"{self.audio}.path"]).column(self.audio)
            rows = opened.read_row_group(group, columns=columns).to_pylist() if columns else [{} for _ in range(len(names))]
            for index, (row, name) in enumerate(zip(rows, names.to_pylist(), strict=True)):
                number = f"{inside.with_suffix('')}-{group:05d}-{index:05d}"
                for column, words in classes.items():
                    value = row.get(column)
                    row[column] = words[value] if isinstance(value, int) and 0 <= value < len(words) else None
                yield Found(
                    where=f"{inside} row group {group} row {index}",
                    key=number,
                    path=file,
                    inside=Cell(column=self.audio, group=group, row=index, name=(name or {}).get("path") or "", base=base),
                    row=row,
                    split=row.get("split") or split,
                    language=row.get("language"),
                    licence=row.get("licence"),
                )


def _class_names(schema: pa.Schema) -> Mapping[str, list[str]]:
    """The words of ClassLabel columns, which hold numbers."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: one["names"] for name, one in features.items() if isinstance(one, dict) and one.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError):
        return {}
