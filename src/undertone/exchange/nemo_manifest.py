"""NeMo manifests: a JSON line per utterance.

    FOLDER/train_manifest.json     {"audio_filepath": "audio/KEY.flac", "offset": 0.4, "duration": 1.9, "text": ..., "speaker": ..., ...}
    FOLDER/conversations.json      a line per question: NeMo's multimodal conversations
    FOLDER/audio/KEY.flac

Layout: "Datasets" of the NeMo ASR documentation (audio_filepath, absolute or relative to the manifest; duration; text; optionally offset,
speaker; one manifest per split) and of its Lhotse dataloading documentation (`type: multimodal_conversation`: id, conversations of
{from, value, type, duration, offset}). Any further key is allowed and passed on; ours hold one value for each attribute that the whole
utterance has, and `undertone` the words and labels that are more than that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from undertone.errors import DataError
from undertone.exchange.incoming import ExchangeCorpus, Found, Said, Skip, json_lines, said_of_row, to_ms
from undertone.exchange.items import Item, Placed
from undertone.exchange.rows import pair_row, segment_row, without_lists
from undertone.paths import Location, join
from undertone.records import DIMENSIONS, HUMAN, Label, Segment

PLAIN_LABELS = ("emotion", "gender", "intensity", *DIMENSIONS, "age")
"""Attributes that a line may have as a plain key: those that `corpora.plan.Spoken` knows."""


def plain_labels(segment: Segment) -> tuple[dict[str, str | float], list[Label]]:
    """A segment's labels as plain values where a person gave one for all of it, and all others as they are."""
    plain: dict[str, str | float] = {}
    rest = []
    named = [one.attribute for one in segment.labels]
    for one in segment.labels:
        value = one.category if one.category is not None else one.number
        whole = (one.start_ms, one.end_ms) == (segment.start_ms, segment.end_ms)
        alone = named.count(one.attribute) == 1 and one.labeller == HUMAN and one.distribution is None and one.revision is None
        if whole and alone and value is not None and one.attribute in PLAIN_LABELS:
            plain[one.attribute] = value
        else:
            rest.append(one)
    return plain, rest


class NemoWriter:
    """Writes a manifest per split, line by line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[str]] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        audio = str(placed.inside(self._folder) or placed.file)
        about = {"id": item.key, "lang": item.language, "licence": item.licence, "source": item.source}
        about = {name: value for name, value in about.items() if value is not None}
        name = f"{item.split}_manifest.json" if item.split else "manifest.json"
        for one in segments:
            self._line(name, {"audio_filepath": audio, **_line_of(one), **about})
        if not segments:
            whole = {"offset": placed.offset_ms / 1000, "duration": placed.duration_ms / 1000, "text": ""}
            self._line(name, {"audio_filepath": audio, **whole, **about})
        for pair in item.pairs:
            sound = {
                "from": "user",
                "value": audio,
                "type": "audio",
                "offset": placed.offset_ms / 1000,
                "duration": placed.duration_ms / 1000,
            }
            turns = [
                sound,
                {"from": "user", "value": pair.question, "type": "text"},
                {"from": "assistant", "value": pair.answer, "type": "text"},
            ]
            about_pair = {"clip": item.key, "split": item.split, **pair_row(pair)}
            self._line("conversations.json", {"id": pair.id, "conversations": turns, "undertone": about_pair})

    def _line(self, name: str, row: Mapping[str, Any]) -> None:
        if name not in self._files:
            self._files[name] = (self._folder / name).open("w", encoding="utf-8")
        self._files[name].write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _line_of(segment: Segment) -> dict[str, Any]:
    plain, rest = plain_labels(segment)
    row = segment_row(segment.model_copy(update={"labels": tuple(rest)}))
    made = {
        "offset": segment.start_ms / 1000,
        "duration": segment.duration_ms / 1000,
        "text": segment.transcript or "",
        "speaker": segment.speaker,
        **plain,
        "undertone": {name: row[name] for name in ("words", "labels") if row[name]},
    }
    return {name: value for name, value in made.items() if value is not None}


class NemoManifestCorpus(ExchangeCorpus):
    """Settings of NeMo manifests: one file, or a folder whose files named *manifest* are read; a split is told from the file's name."""

    kind: Literal["nemo-manifest"] = "nemo-manifest"

    def _found(self) -> Iterator[Found | Skip]:
        base, names = self._files(lambda name: fnmatchcase(name, "*manifest*.json*"))
        if not names:
            raise DataError(
                f"{self.path} holds no NeMo manifest; expected files such as train_manifest.json, or name one file as path"
            )
        for file in (base / one for one in names):
            lines, good = 0, 0
            first: Skip | None = None
            for line in json_lines(file):
                found = line if isinstance(line, Skip) else self._of_line(file, *line)
                lines, good = lines + 1, good + isinstance(found, Found)
                first = first or (found if isinstance(found, Skip) else None)
                yield found
            if lines and not good and first is not None:
                raise DataError(
                    f"{file} is not a NeMo manifest: {first.where}: {first.detail}; expected JSON lines with audio_filepath"
                )

    def _of_line(self, file: Location, number: int, row: dict[str, Any]) -> Found | Skip:
        where = f"{file.name} line {number}"
        name = row.get("audio_filepath")
        if not isinstance(name, str) or not name:
            return Skip(where, "no_audio_filepath", f"audio_filepath is {name!r}")
        try:
            said = self._said(row)
        except (ValueError, TypeError, AttributeError) as error:
            return Skip(where, "bad_row", str(error))
        plain = {key: value for key, value in row.items() if key not in ("undertone", "audio_filepath", "offset", "duration")}
        return Found(
            where=where,
            key=name,
            path=join(file.parent, name),
            row=plain,
            said=said,
            split=row.get("split") or self._split_word(PurePosixPath(file.name)),
            language=row.get("lang") or row.get("language"),
            licence=row.get("licence"),
        )

    def _said(self, row: Mapping[str, Any]) -> tuple[Said, ...]:
        (one,) = said_of_row({name: value for name, value in row.items() if name not in ("segments", "qa")}, self.columns)
        more = row.get("undertone")
        start = to_ms(row.get("offset") or 0)
        # Without an offset the line is about its whole file, whose speech is then looked for.
        timed = ("offset" in row or more is not None) and row.get("duration") is not None
        return (
            Said(
                plain=one.plain,
                start_ms=start if timed else None,
                end_ms=start + to_ms(row["duration"]) if timed else None,
                words=(more or {}).get("words", ()),
                labels=_mapped(more),
                kept=more is not None,
            ),
        )


def _mapped(more: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    labels: list[dict[str, Any]] = without_lists({"labels": (more or {}).get("labels", ())})["labels"]
    return labels
