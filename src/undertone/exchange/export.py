"""Write a table of a run in another tool's format: whole or not at all, and with a count of what the format could not hold.

    report = export(Path("runs/mine/condense"), Path("out"), format="hf-dataset", pairs=[Path("runs/mine/generate/cpqa")])

The folder is written under another name beside `to` and renamed when it is complete. An existing folder is replaced only with
`overwrite`, and only where it is an export itself (it holds `.undertone-export.json`).
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.errors import AudioError, ConfigError, DataError
from undertone.exchange.audiofolder import AudiofolderWriter
from undertone.exchange.hf_dataset import HfWriter
from undertone.exchange.incoming import UNFINISHED
from undertone.exchange.items import Item, Placed, Tally, cut, items, referenced, relative, sizes
from undertone.exchange.label_studio import LabelStudioWriter
from undertone.exchange.lhotse_cuts import LhotseWriter
from undertone.exchange.nemo_manifest import NemoWriter
from undertone.exchange.rttm import RttmWriter
from undertone.exchange.trainers import LAYOUTS, DialogueWriter, Prompt, asked, layout_of
from undertone.exchange.webdataset_tar import WebDatasetWriter
from undertone.paths import Location, Remote, files_below, is_claim, put_folder
from undertone.records import Segment

Format = Literal[
    "hf-dataset",
    "audiofolder",
    "nemo-manifest",
    "lhotse",
    "webdataset",
    "rttm",
    "label-studio",
    "messages",
    "sharegpt",
    "nemo-salm",
    "desta",
]
FORMATS: tuple[Format, ...] = get_args(Format)
MARKER = ".undertone-export.json"

_REFERENCING: frozenset[str] = frozenset({"nemo-manifest", "lhotse", "rttm", "label-studio"})


class ExportReport(BaseModel):
    """What an export holds and what it does not.

    `items` counts clips (or recordings) in, `written` those that are there, `skipped` the others by reason; `held` counts what was
    written (segments, transcripts, words, labels, pairs), `lost` what was given and has no place in the format.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    folder: Location
    table: Location
    items: int
    written: int
    seconds: float
    held: dict[str, int]
    lost: dict[str, int]
    skipped: dict[str, int]
    problems: tuple[str, ...] = ()


class Writer(Protocol):
    """One format: takes items one at a time."""

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None: ...

    def close(self) -> None: ...


def export(
    table: Location,
    to: Location,
    *,
    format: Format,
    pairs: Sequence[Location] = (),
    prompt: Prompt | None = None,
    recordings: Location | None = None,
    audio: Literal["cut", "reference"] = "cut",
    url_prefix: str = "",
    overwrite: bool = False,
) -> ExportReport:
    """Write a finished table of clips, recordings or segments to a folder in another format.

    Args:
        table: The table's folder, such as RUN/condense, RUN/references, RUN/corpus or RUN/label.
        to: The folder to make.
        format: Which format; `FORMATS` lists them.
        pairs: Tables of question-answer pairs about the clips, such as RUN/generate/cpqa.
        prompt: Writes the question of a pair for a trainer, as `trainers.with_labels` does; None for the question alone.
        recordings: For a table of segments, the table of their recordings; `corpus/` beside it if not given.
        audio: "cut" writes each item's sound to its own file, "reference" leaves it where it is (formats with offsets only).
        url_prefix: What stands before the path of an audio file in Label Studio tasks, such as "/data/local-files/?d=mine/".
        overwrite: Replace the folder if it is an earlier export.

    Raises:
        ConfigError: An unknown format, one that cannot reference audio, a trainer's without pairs, or a prompt for another.
        DataError: `to` is in the way, a table is missing or of the wrong kind, or nothing could be written.
        DiskFull: No space is left; nothing is left behind.
    """
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is not known; expected one of {', '.join(FORMATS)}")
    if audio == "reference" and format not in _REFERENCING:
        raise ConfigError(
            f"{format} holds its audio and cannot reference it; use audio='cut', or one of {', '.join(sorted(_REFERENCING))}"
        )
    trained = format in LAYOUTS
    if trained and not pairs:
        raise ConfigError(f"{format} holds questions about clips, and none were named; name their table: --pairs RUN/generate/cpqa")
    if prompt is not None and not trained:
        raise ConfigError(f"{format} holds questions as they are; a prompt is for {', '.join(LAYOUTS)}")
    tally = Tally()
    found = items(table, recordings=recordings, pairs=pairs, tally=tally)
    if trained:
        found = asked(found, layout_of(format), prompt=prompt, tally=tally)
    with _folder(to, overwrite=overwrite) as draft:
        writer = _writer(format, draft, to, url_prefix, tally, prompt)
        problems = _write(found, writer, draft, tally, embedded=audio == "cut")
        made = ExportReport(
            format=format,
            folder=to,
            table=table,
            items=tally.seen,
            written=tally.seen - tally.skipped.total(),
            seconds=tally.milliseconds / 1000,
            held=_counts(tally.held - tally.lost),
            lost=_counts(tally.lost),
            skipped=_counts(tally.skipped),
            problems=tuple(problems),
        )
        if not made.written:
            left_out = ", ".join(f"{name} {count}" for name, count in sorted(tally.skipped.items()))
            if about_others := tally.lost["pairs_about_no_exported_clip"]:
                left_out += f"; {about_others} pairs are about clips of another table, such as RUN/references/utterances (asr, pqa)"
            raise DataError(f"nothing of {table} could be exported: {'; '.join(problems) or left_out or 'the table is empty'}")
        (draft / MARKER).write_text(made.model_dump_json(indent=1), encoding="utf-8")
    return made


def _writer(name: Format, draft: Path, to: Location, url_prefix: str, tally: Tally, prompt: Prompt | None) -> Writer:
    match name:
        case "hf-dataset":
            return HfWriter(draft)
        case "audiofolder":
            return AudiofolderWriter(draft)
        case "webdataset":
            return WebDatasetWriter(draft)
        case "nemo-manifest":
            return NemoWriter(draft)
        case "lhotse":
            return LhotseWriter(draft, to.resolve())
        case "rttm":
            return RttmWriter(draft, tally)
        case "label-studio":
            return LabelStudioWriter(draft, url_prefix, tally)
        case "messages" | "sharegpt" | "nemo-salm" | "desta":
            return DialogueWriter(draft, tally, layout=layout_of(name), prompt=prompt)


def _write(found: Iterator[Item], writer: Writer, draft: Path, tally: Tally, *, embedded: bool) -> list[str]:
    """Write every item; returns the first problems in words."""
    problems: list[str] = []
    for item in found:
        try:
            placed = cut(item, draft / "audio" / item.key) if embedded else referenced(item)
        except AudioError as error:
            tally.skipped["unreadable_audio"] += 1
            problems.append(str(error))
            continue
        begin_ms = item.start_ms if embedded else 0
        segments = relative(item, offset_ms=begin_ms, end_ms=item.start_ms + placed.duration_ms, tally=tally)
        writer.add(item, placed, segments)
        tally.milliseconds += placed.duration_ms
        tally.held.update({**sizes(segments), "pairs": len(item.pairs)})
    writer.close()
    sound = draft / "audio"
    if sound.is_dir() and not any(sound.iterdir()):  # formats that embed it have taken it out
        sound.rmdir()
    return problems[:10]


def _counts(counter: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(counter.items()) if count}


def _folder(to: Location, *, overwrite: bool) -> AbstractContextManager[Path]:
    """A draft folder that becomes `to` on success and vanishes on error."""
    _may_be_written(to, overwrite=overwrite)
    return _remote_folder(to, overwrite=overwrite) if isinstance(to, Remote) else _local_folder(to)


def _may_be_written(to: Location, *, overwrite: bool) -> None:
    there = any(not is_claim(one) for one in to.iterdir()) if isinstance(to, Remote) else to.exists()
    if not there or (to / UNFINISHED).exists():
        return
    if not overwrite:
        raise DataError(f"{to} exists already; choose another folder, or say overwrite to replace an earlier export")
    if not (to / MARKER).is_file():
        raise DataError(f"{to} is not an export of undertone (it holds no {MARKER}) and is not replaced; choose another folder")


@contextmanager
def _remote_folder(to: Remote, *, overwrite: bool) -> Iterator[Path]:
    """A draft on this machine's disk, then put. An object store renames nothing: until the end, a mark says that files are missing."""
    with tempfile.TemporaryDirectory(prefix="undertone-") as name:
        try:
            yield Path(name)
        except OSError as error:
            if error.errno in tables.DISK_FULL:
                raise tables.disk_full(Path(name), error) from error
            raise
        with tables.locked(to):
            _may_be_written(to, overwrite=overwrite)  # another may have come before
            (to / UNFINISHED).write_bytes(b"")
            for old in files_below(to):
                if old != UNFINISHED and not is_claim(to / old):
                    (to / old).unlink(missing_ok=True)
            put_folder(Path(name), to)
            (to / UNFINISHED).unlink()


@contextmanager
def _local_folder(to: Path) -> Iterator[Path]:
    draft = to.with_name(f".{to.name}.{os.getpid()}.draft")
    old = to.with_name(f".{to.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        if to.exists():
            to.rename(old)
        draft.rename(to)
    except OSError as error:
        if old.exists() and not to.exists():
            old.rename(to)
        if error.errno in tables.DISK_FULL:
            raise tables.disk_full(to, error) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise DataError(f"cannot write {to}: {error.strerror}. Choose another folder") from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if to.exists():
            shutil.rmtree(old, ignore_errors=True)
