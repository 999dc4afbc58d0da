"""WebDataset: tar files whose members of one name are one sample.

    FOLDER/train-000000.tar    KEY.flac, KEY.json, KEY.flac, KEY.json, ...

Layout: "The WebDataset Format" of the webdataset documentation: consecutive members that agree up to the first dot of their file name
are a sample, the rest is the field's name; shards are numbered with six digits. The JSON is the row of `rows.py`, with every key in
every sample, because datasets takes the columns from the first samples.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from undertone.corpora.folder import AUDIO_SUFFIXES
from undertone.errors import DataError
from undertone.exchange.incoming import ExchangeCorpus, Found, Member, Skip
from undertone.exchange.items import Item, Placed
from undertone.exchange.rows import row_of
from undertone.paths import Location, local_copy
from undertone.records import Segment

SHARD_BYTES = 1 << 30
SHARD_ITEMS = 10_000
_TEXT_BYTES = 16 << 20
"""A JSON or text member larger than this is no row of metadata."""

_SAMPLE = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""Key and field of a member's name, as webdataset splits it (`base_plus_ext`)."""


class WebDatasetWriter:
    """Writes numbered tars per split; sound goes from file to tar."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[tarfile.TarFile, int]] = {}
        self._shards: dict[str, int] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        split = item.split or "data"
        tar, count = self._open.get(split, (None, 0))
        if tar is None or count >= SHARD_ITEMS or tar.offset >= SHARD_BYTES:
            if tar is not None:
                tar.close()
            number = self._shards.get(split, 0)
            self._shards[split] = number + 1
            name = self._folder / f"{split}-{number:06d}.tar"
            tar, count = tarfile.open(name, "w", format=tarfile.GNU_FORMAT), 0  # noqa: SIM115 - open until the shard is full
        row = json.dumps(row_of(item, segments, duration_ms=placed.duration_ms), ensure_ascii=False).encode()
        with placed.cut.open("rb") as sound:
            tar.addfile(_member(f"{item.key}{placed.file.suffix}", placed.cut.stat().st_size), sound)
        tar.addfile(_member(f"{item.key}.json", len(row)), io.BytesIO(row))
        self._open[split] = (tar, count + 1)
        placed.cut.unlink()

    def close(self) -> None:
        for tar, _ in self._open.values():
            tar.close()


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A member without owner and time, so that equal tables give equal bytes."""
    made = tarfile.TarInfo(name)
    made.size = size
    return made


class WebDatasetCorpus(ExchangeCorpus):
    """Settings of WebDataset tars: one tar, or a folder of them; a split is told from a tar's name.

    `json_field` and `text_field` are the fields that hold what is said; the sound is the first field that is an audio format's suffix.
    """

    kind: Literal["webdataset"] = "webdataset"
    json_field: str = "json"
    text_field: str = "txt"

    def _found(self) -> Iterator[Found | Skip]:
        base, names = self._files(lambda name: ".tar" in name)
        if not names:
            raise DataError(f"{self.path} holds no tar; expected WebDataset shards such as train-000000.tar")
        for name in names:
            yield from self._of_tar(base, name)

    def _of_tar(self, base: Location, inside: PurePosixPath) -> Iterator[Found | Skip]:
        split, file = self._split_word(inside), base / inside
        try:
            with local_copy(file) as copy, tarfile.open(copy, "r:") as tar:
                for key, members in itertools.groupby(self._members(tar), key=lambda one: one[0]):
                    where = f"{file.name} {key}" if key is not None else file.name
                    yield self._of_sample(file, inside, split, where, tar, {field: member for _, field, member in members}, key)
                    tar.members = []  # type: ignore[attr-defined]  # the list that tarfile keeps of all it has seen
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(
                f"{file} cannot be read as an uncompressed tar: {error}. Copy it again, or unpack its compression first: gunzip {file.name}"
            ) from error

    def _members(self, tar: tarfile.TarFile) -> Iterator[tuple[str | None, str, tarfile.TarInfo]]:
        for member in tar:
            if member.isfile():
                parts = _SAMPLE.match(member.name)
                yield (parts[1], parts[2], member) if parts else (None, member.name, member)

    def _of_sample(
        self,
        file: Location,
        inside: PurePosixPath,
        split: str | None,
        where: str,
        tar: tarfile.TarFile,
        fields: dict[str, tarfile.TarInfo],
        key: str | None,
    ) -> Found | Skip:
        sound = next((one for field, one in fields.items() if f".{field.rsplit('.', 1)[-1].lower()}" in AUDIO_SUFFIXES), None)
        if key is None or sound is None:
            return Skip(where, "no_audio", f"fields are {', '.join(fields) or 'none'}; expected one such as flac, wav or mp3")
        if not sound.size:
            return Skip(where, "no_audio", f"{sound.name} is empty")
        row: Any = {}
        try:
            if self.json_field in fields:
                row = json.loads(_text(tar, fields[self.json_field]))
            if not isinstance(row, dict):
                raise ValueError(f"its JSON is a {type(row).__name__}, expected an object")
            if self.text_field in fields:
                row.setdefault("text", _text(tar, fields[self.text_field]))
        except (ValueError, RecursionError) as error:
            return Skip(where, "bad_row", str(error))
        return Found(
            where=where,
            key=f"{inside.with_suffix('')}/{key}",
            path=file,
            inside=Member(offset=sound.offset_data, size=sound.size, name=sound.name),
            row=row,
            split=row.get("split") or split,
            language=row.get("language"),
            licence=row.get("licence"),
        )


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _TEXT_BYTES:
        raise ValueError(f"{member.name} has {member.size} bytes, expected a row of metadata")
    opened = tar.extractfile(member)
    return opened.read().decode("utf-8") if opened is not None else ""
