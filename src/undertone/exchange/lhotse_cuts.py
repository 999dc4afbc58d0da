"""lhotse cuts: a gzipped JSON line per cut.

    FOLDER/cuts_train.jsonl.gz
    FOLDER/audio/KEY.flac

Layout: "Cuts" and "Supervisions" of the lhotse documentation and `lhotse.cut.MonoCut.to_dict`: a cut of a recording with supervisions
whose times begin at the cut and whose word alignments' times begin at the recording. Labels and questions are in `custom`, where lhotse
keeps what it does not know. Read with `CutSet.from_jsonl_lazy(FILE)`; paths are absolute (`with_recording_path_prefix` moves relative
ones).
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from undertone.errors import DataError
from undertone.exchange.incoming import PLAIN, ExchangeCorpus, Found, Said, Skip, json_lines, to_ms
from undertone.exchange.items import Item, Placed
from undertone.exchange.nemo_manifest import plain_labels
from undertone.exchange.rows import pair_row, segment_row, without_lists
from undertone.paths import Location, is_address, join, local_copy, location
from undertone.records import Segment


class LhotseWriter:
    """Writes a manifest of cuts per split, line by line."""

    def __init__(self, folder: Path, final: Location) -> None:
        self._folder, self._final = folder, final
        self._files: dict[str, tuple[io.TextIOWrapper, gzip.GzipFile, io.BufferedWriter]] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        inside = placed.inside(self._folder)
        file = self._final / inside if inside else placed.file
        recording = file.stem if inside else item.recording_id
        channels = list(range(placed.channels))
        cut = {
            "id": item.key,
            "start": placed.offset_ms / 1000,
            "duration": min(placed.duration_ms / 1000, placed.samples / placed.rate_hz),
            "channel": 0 if placed.channels == 1 else channels,
            "supervisions": [
                _supervision(one, f"{item.key}-{number}", recording, placed, item.language) for number, one in enumerate(segments)
            ],
            "recording": {
                "id": recording,
                "sources": [{"type": "file" if isinstance(file, Path) else "url", "channels": channels, "source": str(file)}],
                "sampling_rate": placed.rate_hz,
                "num_samples": placed.samples,
                "duration": placed.samples / placed.rate_hz,
                "channel_ids": channels,
            },
            "custom": {
                "undertone": {
                    "source": item.source,
                    "licence": item.licence,
                    "split": item.split,
                    "recording": item.recording_id,
                    "qa": [pair_row(one) for one in item.pairs],
                }
            },
            "type": "MonoCut" if placed.channels == 1 else "MultiCut",
        }
        self._file(f"cuts_{item.split}.jsonl.gz" if item.split else "cuts.jsonl.gz").write(
            json.dumps(cut, ensure_ascii=False) + "\n"
        )

    def _file(self, name: str) -> io.TextIOWrapper:
        if name not in self._files:
            raw = (self._folder / name).open("wb")
            packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)  # equal tables give equal bytes
            self._files[name] = (io.TextIOWrapper(packed, encoding="utf-8"), packed, raw)
        return self._files[name][0]

    def close(self) -> None:
        for opened in self._files.values():
            for one in opened:
                one.close()


def _supervision(segment: Segment, key: str, recording: str, placed: Placed, language: str | None) -> dict[str, Any]:
    """A segment as a supervision, from the time of its file to the time of its cut."""
    offset = placed.offset_ms
    plain, rest = plain_labels(segment)
    row = segment_row(segment.model_copy(update={"labels": tuple(rest)}))
    made: dict[str, Any] = {
        "id": key,
        "recording_id": recording,
        "start": (segment.start_ms - offset) / 1000,
        "duration": segment.duration_ms / 1000,
        "channel": 0 if placed.channels == 1 else list(range(placed.channels)),
        "text": segment.transcript,
        "language": language,
        "speaker": segment.speaker,
        "gender": plain.pop("gender", None),
        "custom": {**plain, "undertone": {"labels": row["labels"], "words": row["words"], "offset_ms": offset}},
    }
    if segment.words:
        made["alignment"] = {
            "word": [[one.text, one.start_ms / 1000, (one.end_ms - one.start_ms) / 1000, one.confidence] for one in segment.words]
        }
    return {name: value for name, value in made.items() if value is not None}


class LhotseCorpus(ExchangeCorpus):
    """Settings of lhotse cuts: a .jsonl or .jsonl.gz file, or a folder whose files named *cuts* are read.

    Cuts of one recording become one recording. Only recordings in one file on disk are read; mixed and padded cuts are left out.
    """

    kind: Literal["lhotse"] = "lhotse"

    def _found(self) -> Iterator[Found | Skip]:
        base, names = self._files(lambda name: fnmatchcase(name, "*cuts*.jsonl*"))
        if not names:
            raise DataError(
                f"{self.path} holds no lhotse cuts; expected files such as cuts_train.jsonl.gz, or name one file as path"
            )
        for file in (base / one for one in names):
            try:
                with local_copy(file) as copy, gzip.open(copy) if copy.suffix == ".gz" else copy.open("rb") as opened:
                    for line in json_lines(file, iter(opened)):
                        yield line if isinstance(line, Skip) else self._of_cut(file, *line)
            except (OSError, EOFError) as error:
                raise DataError(f"{file} cannot be read: {error}; is it whole?") from error

    def _of_cut(self, file: Location, number: int, cut: dict[str, Any]) -> Found | Skip:
        where = f"{file.name} line {number}"
        if cut.get("type") not in ("MonoCut", "MultiCut", "Cut"):
            return Skip(where, "not_a_cut_of_one_recording", f"type is {cut.get('type')!r}, expected MonoCut or MultiCut")
        try:
            recording = cut["recording"]
            (source,) = recording["sources"]
            is_file = source["type"] == "file" or (source["type"] == "url" and is_address(str(source["source"])))
            if not is_file or recording.get("transforms"):
                return Skip(
                    where, "audio_not_in_a_file", f"source is {source['type']!r}, transforms {recording.get('transforms')!r}"
                )
            path = _audio_path(file, str(source["source"]))
            about = (cut.get("custom") or {}).get("undertone") or {}
            said = [self._of_supervision(one, cut) for one in cut.get("supervisions", ())]
            languages = {one["language"] for one in cut.get("supervisions", ()) if one.get("language")}
            return Found(
                where=where,
                key=str(recording["id"]),
                path=path,
                row=dict.fromkeys(name for one in cut.get("supervisions", ()) for name in one.get("custom") or ()),
                said=said,
                split=about.get("split") or self._split_word(PurePosixPath(file.name)),
                language=languages.pop() if len(languages) == 1 else None,
                licence=about.get("licence"),
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            return Skip(where, "bad_row", f"{type(error).__name__}: {error}")

    def _of_supervision(self, one: Mapping[str, Any], cut: Mapping[str, Any]) -> Said:
        custom = one.get("custom") or {}
        mine = custom.get("undertone") or {}
        begin = to_ms(cut["start"])
        start = begin + to_ms(one["start"])
        end = start + to_ms(one["duration"])
        plain = {name: custom.get(self.columns.get(name, name)) for name in PLAIN}
        plain |= {name: one.get(name) for name in ("speaker", "text", "gender")}
        return Said(
            plain=plain,
            start_ms=start,
            end_ms=end,
            words=_words((one.get("alignment") or {}).get("word") or (), begin, start, end),
            labels=without_lists({"labels": mine.get("labels") or ()})["labels"],
            kept=True,
        )


def _words(items: Any, begin_ms: int, start_ms: int, end_ms: int) -> list[dict[str, Any]]:
    """Words in the time of the recording.

    The documentation of `AlignmentItem` and `trim_to_alignments` count from the beginning of the recording, other parts of lhotse
    (`speakers_feature_mask`) from that of the cut: words whose first lies in the supervision only by the latter are moved.
    """
    timed = [(str(symbol), to_ms(at), to_ms(length), score[0] if score else None) for symbol, at, length, *score in items]
    shift = begin_ms if timed and not start_ms - 1 <= timed[0][1] <= end_ms else 0
    return [
        {"text": text, "start_ms": at + shift, "end_ms": at + shift + length, "confidence": score}
        for text, at, length, score in timed
    ]


def _audio_path(file: Location, name: str) -> Location:
    """The recording's file; one that was moved together with its manifest is found beside it."""
    if not is_address(name) and not Path(name).is_absolute():
        return join(file.parent, name)
    path = location(name)
    beside = file.parent / "audio" / path.name
    return beside if beside != path and not path.is_file() and beside.is_file() else path
