"""Write and read trainers' files: a line per pair, a file per split, the sound of each clip once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from undertone.errors import DataError
from undertone.exchange.incoming import UNFINISHED, Skip, json_lines
from undertone.exchange.items import Item, Placed, Tally, sizes
from undertone.exchange.trainers.dialogue import Dialogue, Prompt, of_pair
from undertone.exchange.trainers.layouts import Layout, layout_of
from undertone.paths import Location
from undertone.records import QAPair, Segment

INDEX = "dataset_info.json"


def asked(found: Iterable[Item], layout: Layout, *, prompt: Prompt | None, tally: Tally) -> Iterator[Item]:
    """The items that something is asked about, with the pairs that a format can hold: no others' sound is cut.

    Args:
        found: All items.
        layout: The format.
        prompt: Writes a pair's question; None for the question alone.
        tally: Counts items without a question, pairs without one (the speech says all), pairs whose earlier turns were spoken too (a line
            has one sound), and pairs with text that the trainer would take for a place of its own.
    """
    for item in found:
        usable = []
        for one in item.pairs:
            fault = _fault(item, one, layout, prompt)
            if fault is None:
                usable.append(one)
            else:
                tally.lost[fault] += 1
        if usable:
            yield replace(item, pairs=tuple(usable))
        else:
            tally.skipped["no_usable_question" if item.pairs else "no_question"] += 1


def _fault(item: Item, pair: QAPair, layout: Layout, prompt: Prompt | None) -> str | None:
    if any(turn.clip_id is not None for turn in pair.history):
        return "pairs_with_several_sounds"
    if not pair.question:
        return "pairs_without_a_question"
    return "pairs_with_a_placeholder_in_their_text" if _reserved(item, pair, layout, prompt) else None


def _reserved(item: Item, pair: QAPair, layout: Layout, prompt: Prompt | None) -> bool:
    one = of_pair(item, pair, prompt=prompt, audio=item.key, duration_ms=None, transcript=None)
    return any(mark in text for text in one.texts() for mark in layout.reserved)


class DialogueWriter:
    """Writes a file of JSON lines per split: the pair's, else the clip's; `data.jsonl` where neither has one."""

    def __init__(self, folder: Path, tally: Tally, *, layout: Layout, prompt: Prompt | None = None) -> None:
        self._folder, self._tally, self._layout, self._prompt = folder, tally, layout, prompt
        self._files: dict[str, IO[str]] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        audio = placed.cut.relative_to(self._folder).as_posix()
        transcript = " ".join(one.transcript for one in segments if one.transcript) or None
        for pair in item.pairs:
            one = of_pair(item, pair, prompt=self._prompt, audio=audio, duration_ms=placed.duration_ms, transcript=transcript)
            self._line(f"{pair.split or item.split or 'data'}.jsonl", one)
        said = sizes(segments)
        no_room = ("segments", "words", "labels", *(() if self._layout.transcripts else ("transcripts",)))
        self._tally.lost.update({kind: said[kind] for kind in no_room})

    def _line(self, name: str, one: Dialogue) -> None:
        if name not in self._files:
            self._files[name] = (self._folder / name).open("w", encoding="utf-8")
        self._files[name].write(json.dumps(self._layout.row(one), ensure_ascii=False) + "\n")

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        index = self._layout.index(sorted(self._files))
        if index is not None:
            (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def dialogues(path: Location, *, format: str) -> Iterator[Dialogue]:
    """Read a trainer's file of JSON lines, or all of a folder in the order of their names.

    Args:
        path: The file or the folder.
        format: Which format; `LAYOUTS` lists them.

    Raises:
        ConfigError: An unknown format.
        DataError: There is no such file, the export broke off, or a line is no dialogue about one sound; it names the line.
    """
    layout = layout_of(format)
    if (path / UNFINISHED).exists():
        raise DataError(f"{path} was not written to its end ({UNFINISHED} lies in it); export into it again")
    files = sorted(one for one in path.iterdir() if one.suffix == ".jsonl") if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(
            f"{path} holds no .jsonl file; expected the folder of an export, such as undertone export --format {format} makes"
        )
    for file in files:
        for line in json_lines(file):
            if isinstance(line, Skip):
                raise DataError(f"{line.where}: {line.detail}; expected a line of {format}")
            number, row = line
            try:
                yield layout.dialogue(row)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                raise DataError(f"{file.name} line {number} is not a line of {format}: {reason}") from error
