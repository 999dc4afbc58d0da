"""What the readers of published corpora share: walking, accounting for every file, qualified speakers, splits.

A reader of one corpus says where its audio lies and what its file names and tables mean (`_open`); everything else is here. Nothing is
decoded: a plan of 100,000 files takes seconds.

Accounting: every audio file is read or dropped with a reason, and so is every row of the corpus' label table without audio; what is
read with less than the corpus usually knows (no transcript, say) is counted too.

    hidden_file     a name that begins with a dot, such as the "._" files of macOS archives
    unknown_name    a file name that is not of the corpus' scheme
    duplicate       another file of the same utterance, in another format or folder (wav before flac before others)
    no_label        audio of which the label table knows nothing
    no_audio        a row of the label table whose audio is not there

Each corpus adds its own reasons, described in its file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.corpora.emotions import to_emotion
from undertone.corpora.folder import AUDIO_SUFFIXES, GENDERS, NAME_PATTERN, FileSpec, is_audio, read_csv
from undertone.corpora.plan import Plan, Planned, SplitRule, Spoken, stamps_of
from undertone.errors import DataError
from undertone.paths import Location, below, files_below
from undertone.records import Emotion, Loss, Split

_PREFERRED = {".wav": 0, ".flac": 1}


class Skip(Exception):
    """A file is not read: no error, it ends the description of that file.

    Attributes:
        reason: A short code (snake_case).
        detail: For people.
        key: The utterance that the file is of, where that is known, so that its label is not reported as without audio.
    """

    def __init__(self, reason: str, detail: str, *, key: str | None = None) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.key = reason, detail, key


def unknown_name(file: PurePosixPath, expected: str) -> Skip:
    """The Skip of a file whose name is not of the corpus' scheme."""
    return Skip("unknown_name", f"expected a name such as {expected}, got {file.name}")


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """What a corpus knows about one audio file.

    Attributes:
        key: Names the utterance, whatever the format or folder of the file.
        spoken: Its speaker without the corpus' name.
        split: Of the corpus' own partition; None to split by speaker.
        language: Where it differs within the corpus.
        without: What the corpus usually knows and lacks here, as codes ("no_transcript").
    """

    key: str
    spoken: Spoken
    split: Split | None = None
    language: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A corpus whose tables have been read.

    Attributes:
        describe: From an audio file's path below the corpus' folder to its utterance; raises Skip.
        labelled: Keys of all utterances in the label table, so that those without audio are told.
        losses: What else is left out, as (name, reason, detail).
    """

    describe: Callable[[PurePosixPath], Utterance]
    labelled: Iterable[str] = ()
    losses: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in a corpus' folder: `found` (path below it and utterance, by path), `losses`, and what is `without` something."""

    title: str
    found: tuple[tuple[str, Utterance], ...]
    losses: tuple[Loss, ...] = ()
    without: Mapping[str, int] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The accounting in one line."""
        read = f"{self.title}: {len(self.found)} read{_counts(self.without)}"
        return f"{read}, {len(self.losses)} skipped{_counts(Counter(one.reason for one in self.losses))}"


def _counts(reasons: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{reason} {reasons[reason]}' for reason in sorted(reasons))})" if reasons else ""


class NativeCorpus(BaseModel):
    """Base of the settings of a published corpus in its own layout.

    `emotions` maps words of the corpus to ours where the table of `corpora.emotions` is not what is wanted. `name` qualifies speakers.
    `hold_out` splits by speaker; a corpus with a partition of its own has a setting `partition`, and "official" takes that one instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Location
    name: str | None = Field(default=None, pattern=NAME_PATTERN)
    emotions: dict[str, Emotion] = Field(default_factory=dict)
    language: str | None = None
    licence: str | None = None
    hold_out: SplitRule = SplitRule()

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if getattr(self, "partition", "speaker") == "official" and self.hold_out != SplitRule():
            raise ValueError("partition: official and hold_out both split the corpus; give one of them (partition: speaker)")
        return self

    @property
    def title(self) -> str:
        """The corpus' name: given, or its usual one."""
        return self.name or str(self.kind)  # type: ignore[attr-defined]  # every reader has a kind

    def _open(self) -> Opened:
        """Read the tables and say what a file is.

        Raises:
            DataError: A table that the corpus cannot be read without is missing or wrong.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how its files are read")

    def _audio_folders(self) -> Sequence[Location]:
        """Where the audio lies."""
        return (self.path,)

    def survey(self) -> Survey:
        """Look at every audio file and every row of the label table; decodes nothing.

        Raises:
            DataError: The folder or a label table is missing or wrong, or a held-out speaker is not in the corpus.
        """
        if not self.path.is_dir():
            raise DataError(f"corpus folder {self.path} does not exist or is not a folder")
        opened = self._open()
        losses = [Loss(row_id=name, stage="plan", reason=reason, detail=detail) for name, reason, detail in opened.losses]
        found: dict[str, tuple[str, Utterance]] = {}
        met: set[str] = set()
        for file in self._audio_files():
            try:
                one = self._described(file, opened)
                if one.key in found:
                    raise Skip("duplicate", f"the same utterance as {found[one.key][0]}", key=one.key)
                found[one.key] = (file, one)
            except Skip as skip:
                losses.append(Loss(row_id=file, stage="plan", reason=skip.reason, detail=skip.detail))
                met.update([skip.key] if skip.key else [])
        unheard = sorted(set(opened.labelled) - found.keys() - met)
        losses += [
            Loss(row_id=key, stage="plan", reason="no_audio", detail="labelled, but its audio is not there") for key in unheard
        ]
        self.hold_out.check({one.spoken.speaker for _, one in found.values() if one.spoken.speaker})
        return Survey(
            title=self.title,
            found=tuple(sorted(found.values(), key=lambda pair: pair[0])),
            losses=tuple(losses),
            without=Counter(reason for _, one in found.values() for reason in one.without),
        )

    def _described(self, file: str, opened: Opened) -> Utterance:
        path = PurePosixPath(file)
        if path.name.startswith("."):
            raise Skip("hidden_file", "its name begins with a dot")
        return opened.describe(path)

    def _audio_files(self) -> list[str]:
        """Audio below the corpus' folder, the preferred format of an utterance first.

        Raises:
            DataError: There is none.
        """
        files = [
            (_PREFERRED.get(PurePosixPath(name).suffix.lower(), 2), str((below(folder, self.path) or PurePosixPath()) / name))
            for folder in self._audio_folders()
            for name in files_below(folder, follow_links=True)
            if is_audio(name)
        ]
        if not files:
            where = ", ".join(str(one) for one in self._audio_folders()) or str(self.path)
            raise DataError(
                f"{self.title}: no audio below {where}; expected the corpus as it is published, with files ending in "
                f"{', '.join(sorted(AUDIO_SUFFIXES))}. Set path to the folder that was unpacked"
            )
        return [name for _, name in sorted(files)]

    def plan_all(self) -> Plan:
        """The planned recordings and what is left out, with reasons."""
        found = self.survey()
        specs = [FileSpec(path=self.path / file, utterances=(self._qualified(one),)) for file, one in found.found]
        stamps = stamps_of([one.path for one in specs])
        rows = [
            Planned(
                corpus=self.title,
                key=file,
                reader="file",
                spec=spec.model_dump_json(exclude_defaults=True),
                split=self._split(one),
                language=one.language or self.language,
                licence=self.licence,
                stamp=stamp,
            )
            for (file, one), spec, stamp in zip(found.found, specs, stamps, strict=True)
        ]
        return Plan(rows=rows, dropped=found.losses, note=found.line)

    def plan(self, *, seed: int) -> list[Planned]:
        """One planned recording per audio file, sorted by name; `seed` is not used, a published corpus is what it is."""
        del seed
        return self.plan_all().rows

    def utterances(self) -> list[tuple[str, tuple[Spoken, ...], Split]]:
        """Every audio file that is read, what is known about it, and its split."""
        return [(file, (self._qualified(one),), self._split(one)) for file, one in self.survey().found]

    def _qualified(self, one: Utterance) -> Spoken:
        speaker = one.spoken.speaker
        return one.spoken.model_copy(update={"speaker": f"{self.title}/{speaker}"}) if speaker else one.spoken

    def _split(self, one: Utterance) -> Split:
        return one.split or self.hold_out.of(one.spoken.speaker)

    def _emotion(self, word: str) -> Emotion:
        """Our name for an emotion word of the corpus; raises DataError for one that neither the settings nor the table know."""
        return self.emotions.get(word) or to_emotion(word)

    def _shares(self, votes: Iterable[tuple[str, float]]) -> dict[str, float] | None:
        """Weighted words of several raters as shares of our emotions, greatest first; None without a vote."""
        weights: Counter[str] = Counter()
        for word, weight in votes:
            if weight > 0:
                weights[self._emotion(word)] += weight  # type: ignore[assignment]  # Counter takes fractions
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.most_common()} if total else None


def scaled(value: float, low: float, high: float) -> float | None:
    """A rating on a scale from `low` to `high` as 0..1; None for one outside the scale.

    >>> scaled(4.0, 1, 7), scaled(5.5, 1, 5)
    (0.5, None)
    """
    return round((value - low) / (high - low), 6) if low <= value <= high else None


def number(cell: str, file: Location) -> float:
    """A cell of a corpus' table as a number; raises DataError that names the file."""
    try:
        return float(cell)
    except ValueError:
        raise DataError(f"{file} holds {cell!r} where a number is expected; is it the table as published?") from None


def gender_of(word: str) -> str | None:
    """Our name for a gender; None for "Unknown" and the like."""
    return GENDERS.get(word.strip().lower())


def table(file: Location, columns: Sequence[str], *, what: str) -> list[dict[str, str]]:
    """The rows of a corpus' own table with tidy cells; comma-separated, or tab-separated for .tsv.

    Args:
        file: The table.
        columns: Names that it must have.
        what: What it holds and where it comes from, for the message.

    Raises:
        DataError: It is missing, or lacks a column.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist; expected {what}")
    tabbed = file.suffix.lower() == ".tsv"
    rows: list[dict[str, Any]] = read_csv(file, delimiter="\t" if tabbed else ",", quoted=not tabbed)
    absent = [name for name in columns if rows and name not in rows[0]]
    if absent or not rows:
        have = f"its columns are {', '.join(map(str, rows[0]))}" if rows else "it has no rows"
        raise DataError(f"{file} is not the table of the corpus: {have}; expected {', '.join(columns)}")
    return [{name: (cell or "").strip() for name, cell in row.items()} for row in rows]


def text_of(file: Location, *encodings: str) -> str:
    """A text in the first of several encodings that it is valid in.

    Raises:
        DataError: In none of them.
    """
    raw = file.read_bytes()
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeError:
            continue
    raise DataError(f"{file} is in none of the encodings {', '.join(encodings)}; convert it to UTF-8")
