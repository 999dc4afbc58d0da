"""RTTM: who spoke when, a line per turn.

    FOLDER/speakers.rttm    SPEAKER KEY 1 0.400 1.900 <NA> <NA> SPEAKER_NAME <NA> <NA>
    FOLDER/audio/KEY.flac

Layout: "Rich Transcription Time Marked" of the NIST evaluation plans (RT-09, appendix; ten fields separated by blanks: type, file,
channel, begin, duration, orthography, speaker type, speaker name, confidence, look-ahead), of which diarisation tools read SPEAKER lines
and take the file field for the audio file's name without suffix. There is no room for words, transcripts and labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from undertone.corpora.folder import is_audio
from undertone.errors import DataError
from undertone.exchange.incoming import ExchangeCorpus, Found, Said, Skip
from undertone.exchange.items import Item, Placed, Tally, sizes
from undertone.paths import Location, local_copy
from undertone.records import Segment


class RttmWriter:
    """Writes one RTTM for all recordings."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._folder, self._tally = folder, tally
        self._file: IO[str] = (folder / "speakers.rttm").open("w", encoding="utf-8")
        self._named: dict[str, Location] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        name = _word(placed.file.stem)
        if self._named.setdefault(name, placed.file) != placed.file:
            raise DataError(f"{placed.file} and {self._named[name]} would both be {name!r} in RTTM; export with audio='cut'")
        for one in segments:
            if one.speaker is None:
                self._tally.lost["segments_without_speaker"] += 1
                self._tally.lost["segments"] += 1
                continue
            speaker = _word(one.speaker)
            self._tally.lost["speaker_names_with_blanks"] += speaker != one.speaker
            self._file.write(
                f"SPEAKER {name} 1 {one.start_ms / 1000:.3f} {one.duration_ms / 1000:.3f} <NA> <NA> {speaker} <NA> <NA>\n"
            )
        said = sizes(segments)
        self._tally.lost.update({kind: said[kind] for kind in ("transcripts", "words", "labels")} | {"pairs": len(item.pairs)})

    def close(self) -> None:
        self._file.close()


def _word(text: str) -> str:
    """Text without blanks, which separate RTTM's fields."""
    return re.sub(r"\s+", "_", text.strip()) or "_"


class RttmCorpus(ExchangeCorpus):
    """Settings of a folder with RTTM files and the recordings that they name."""

    kind: Literal["rttm"] = "rttm"

    def _found(self) -> Iterator[Found | Skip]:
        there = self._below()
        files = [one for one in there if one.suffix == ".rttm"]
        if not files:
            raise DataError(f"{self.path} holds no .rttm file; expected a folder with RTTM and the audio files that it names")
        sounds: dict[str, list[PurePosixPath]] = {}
        for one in there:
            if is_audio(one.name):
                sounds.setdefault(_word(one.stem), []).append(one)
        for file in files:
            with local_copy(self.path / file) as copy, copy.open(encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, start=1):
                    found = self._of_line(f"{file.name} line {number}", line.split(), sounds)
                    if found is not None:
                        yield found

    def _of_line(self, where: str, cells: list[str], sounds: dict[str, list[PurePosixPath]]) -> Found | Skip | None:
        if not cells or cells[0].startswith(";;"):
            return None
        if len(cells) < 8:
            return Skip(where, "bad_row", f"{len(cells)} fields, expected 10 (9 in older RTTM)")
        if cells[0] != "SPEAKER":
            return Skip(where, "not_a_speaker_line", f"type is {cells[0]}")
        try:
            start, length = float(cells[3]) * 1000, float(cells[4]) * 1000
        except ValueError as error:
            return Skip(where, "bad_row", str(error))
        if not (math.isfinite(start) and math.isfinite(length)) or start < 0 or round(start + length) <= round(start):
            return Skip(where, "bad_row", f"begin {cells[3]}, duration {cells[4]}; expected begin >= 0 and a duration above 0")
        files = sounds.get(cells[1], [])
        if len(files) != 1:
            return Skip(where, "no_audio" if not files else "two_files", f"{len(files)} audio files are called {cells[1]}")
        name = files[0]
        return Found(
            where=where,
            key=name.as_posix(),
            path=self.path / name,
            said=(Said(plain={"speaker": cells[7]}, start_ms=round(start), end_ms=round(start + length)),),
            split=self._split_word(name, by_folder=True),
        )
