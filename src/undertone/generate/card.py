"""What generation hands on: the pairs as JSON lines, and the data set's card.

    write_outputs(Path("runs/mine"), name="mine", seed=1, code_version="0.1.0")  # -> generate/pairs.jsonl, generate/DATASET.md

Both are functions of the run's tables alone: no date, no machine. The licences are those of the clips that the kept pairs are about.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl
import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, Field

from undertone import tables
from undertone.generate.checks import ALL_CHECKS, REPEAT_CHECKS
from undertone.generate.written import Account, Written
from undertone.parquet import atomic
from undertone.paths import Location

K = TypeVar("K", str, tuple[str, str, str, str])

JSONL, CARD = "generate/pairs.jsonl", "generate/DATASET.md"

_FIELDS = (
    *("id", "source", "kind", "split", "question", "answer", "history", "label_attribute", "label", "evidence", "generator"),
    *("model", "prompt_digest", "checks", "flags"),
)
"""Columns of a pair that a line has beside those of its clip; the raw reply stays in the table."""
_OF_CLIP = ("id", "recording_id", "uri", "start_ms", "end_ms", "source", "language", "licence")
_BATCH = 20_000  # pairs that are joined with their clips at once


class Ingredient(BaseModel):
    """A corpus, labeller or model that went in, and under what licence; hours are of the clips that are asked about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    licence: str
    used_for: str
    clips: int | None = Field(default=None, ge=0)
    hours: float | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class Outputs:
    """What was written."""

    jsonl: Location
    card: Location
    pairs: int


class Counted(BaseModel):
    """The kept pairs by what they have in common, most frequent first; `written_by` is by (source, generator, model, prompt digest)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    clips: int
    by: dict[str, dict[str, int]]
    written_by: dict[tuple[str, str, str, str], int]


def write_outputs(
    out: Location, *, name: str, seed: int, code_version: str, labellers: Sequence[Ingredient] = ()
) -> Outputs | None:
    """Write generate/pairs.jsonl and generate/DATASET.md of a run; None where no table of checked pairs is finished.

    A line of the JSONL is one kept pair with its clip: `audio` is the recording's URI, `start_ms` and `end_ms` say where in it. Memory grows
    with the clips and not with the pairs' texts.

    Args:
        out: The run's folder.
        name: Of the data set.
        seed: The run's.
        code_version: Of Undertone.
        labellers: What else went in beside the clips and the LLMs, which the tables name.
    """
    written = Written(out)
    if not written.final:
        return None
    count = 0
    with atomic(out / JSONL) as draft, draft.open("w", encoding="utf-8") as file:
        for line in _lines(written):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    text = dataset_card(
        counted(written),
        written.accounts(),
        [*_speech(written), *labellers],
        name=name,
        seed=seed,
        code_version=code_version,
        off=[one for one in (*ALL_CHECKS, *REPEAT_CHECKS) if not written.made(one)],
    )
    tables.write_bytes(out / CARD, text.encode())
    return Outputs(jsonl=out / JSONL, card=out / CARD, pairs=count)


def _lines(written: Written) -> Iterator[dict[str, object]]:
    clips = _clips(written).rename({"id": "clip_id", "uri": "audio", "source": "corpus"})
    for table in written.final.values():
        for part in table.columns(("clip_id", *_FIELDS)):
            for start in range(0, len(part), _BATCH):
                rows = pl.DataFrame(part.slice(start, _BATCH))
                joined = rows.join(clips, on="clip_id", how="left", maintain_order="left")
                yield from joined.select("id", pl.exclude("id")).iter_rows(named=True)


def _clips(written: Written) -> pl.DataFrame:
    """Every clip that a kept pair is about, once; where a predicted and a reference clip have the same bounds, the predicted one."""
    asked = [pl.DataFrame(part) for table in written.final.values() for part in table.columns(["clip_id"])]
    ids = pl.concat([pl.DataFrame(schema={"clip_id": pl.String}), *asked]).unique().rename({"clip_id": "id"})
    found = [
        pl.DataFrame(part)
        .join(ids, on="id", how="semi")
        .select(_OF_CLIP)  # a table that borrows its rows has them in its own order
        for table in written.clips.values()
        for part in table.columns(_OF_CLIP)
    ]
    empty = pl.DataFrame({name: pa.array([], pa.int64() if name.endswith("_ms") else pa.string()) for name in _OF_CLIP})
    return pl.concat([empty, *found]).unique("id", keep="first", maintain_order=True)


def _speech(written: Written) -> Iterator[Ingredient]:
    hours = ((pl.col("end_ms") - pl.col("start_ms")).sum() / 3_600_000).alias("hours")
    by = _clips(written).group_by("source", pl.col("licence").fill_null("not stated")).agg(pl.len().alias("clips"), hours)
    for row in by.sort("source", "licence").iter_rows(named=True):
        yield Ingredient(
            name=row["source"], licence=row["licence"], used_for="speech and words", clips=row["clips"], hours=row["hours"]
        )


def counted(written: Written) -> Counted:
    """Count the kept pairs in one pass over columns."""
    by: dict[str, Counter[str]] = {one: Counter() for one in ("kind", "source", "emotion", "gender", "split", "flag")}
    made: Counter[tuple[str, str, str, str]] = Counter()
    clips: set[str] = set()
    names = ("clip_id", "source", "kind", "split", "label_attribute", "label", "generator", "model", "prompt_digest", "flags")
    for table in written.final.values():
        for part in table.columns(names):
            for clip, source, kind, split, attribute, label, generator, model, digest, flags in zip(
                *(part[name].to_pylist() for name in names), strict=True
            ):
                clips.add(clip)
                by["kind"][kind] += 1
                by["source"][source] += 1
                by["split"][split or "none"] += 1
                by["flag"].update(flags)
                made[source, generator, model or "", digest or ""] += 1
                if attribute in ("emotion", "gender") and label:
                    by[attribute][label] += 1
    return Counted(
        pairs=made.total(),
        clips=len(clips),
        by={name: dict(_sorted(counts)) for name, counts in by.items()},
        written_by=dict(_sorted(made)),
    )


def dataset_card(
    counts: Counted,
    accounts: Sequence[Account],
    ingredients: Sequence[Ingredient],
    *,
    name: str,
    seed: int,
    code_version: str,
    off: Sequence[str] = (),
) -> str:
    """The card as Markdown with the front matter that the Hugging Face hub reads.

    Args:
        counts: Of the kept pairs.
        accounts: What became of all others.
        ingredients: What went in; the LLMs that wrote are added.
        name: Of the data set.
        seed: The run's.
        code_version: Of Undertone.
        off: Checks that were not made.
    """
    models = sorted({model for _, _, model, _ in counts.written_by if model})
    every = [
        *ingredients,
        *(
            Ingredient(name=one, licence="not known to Undertone: see its terms", used_for="wrote questions and answers")
            for one in models
        ),
    ]
    licences = sorted({one.licence for one in every}) or ["not stated"]
    front = {
        "pretty_name": name,
        "license": "other",
        "license_name": " + ".join(licences),
        "task_categories": ["question-answering", "audio-classification"],
        "tags": ["speech", "paralinguistics", "emotion", "undertone"],
        "configs": [{"config_name": "default", "data_files": JSONL.rpartition("/")[2]}],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {_text(name)}",
        f"{counts.pairs:,} question-answer pairs about {counts.clips:,} clips of speech, written and checked by Undertone "
        f"{_text(code_version)} with seed {seed}. They ask for what is said, how it is said, and for both together. `pairs.jsonl` has one "
        "pair a line; `audio`, `start_ms` and `end_ms` say where its clip lies. The recordings themselves are not part of it.",
        "## What went in",
        _table(
            ("what", "used for", "licence", "clips", "hours"),
            (
                (
                    one.name,
                    one.used_for,
                    one.licence,
                    "" if one.clips is None else f"{one.clips:,}",
                    "" if one.hours is None else f"{one.hours:.2f}",
                )
                for one in every
            ),
            words=3,
        ),
        "The pairs inherit the restrictions of every row above; the strictest one decides what may be done with the whole."
        + (" The terms of some hosted models forbid to train other models on what they write." if models else ""),
        *_counted("Pairs by kind", "kind", counts.by["kind"]),
        *_counted("Pairs by emotion", "emotion", counts.by["emotion"]),
        *_counted("Pairs by gender", "gender", counts.by["gender"]),
        *_counted("Pairs by split", "split", counts.by["split"]),
        "## Sources and filters",
        _filters(accounts),
        _made(off),
        *(_counted("Flags", "flag", counts.by["flag"]) if counts.by["flag"] else []),
        "## Who wrote them",
        _table(
            ("source", "generator", "model", "digest of its prompt or wordings", "pairs"),
            ((*(one or "–" for one in key), f"{count:,}") for key, count in counts.written_by.items()),
            words=4,
        ),
        "## Limits",
        "\n".join(f"- {one}" for one in _limits(accounts, models, counts)),
    ]
    return "\n\n".join(parts) + "\n"


def _filters(accounts: Sequence[Account]) -> str:
    """One row for each source: clips in, pairs written, lost by reason, kept."""
    reasons = list(dict.fromkeys(reason for one in accounts for reason in one.lost))
    return _table(
        ("source", "labels of its clips", "clips", "asked about", "pairs written", *reasons, "kept"),
        (
            (
                one.source,
                _WHOSE[one.predicted],
                *(f"{count:,}" for count in (one.clips, one.asked, one.written)),
                *(f"{one.lost.get(reason, 0):,}" for reason in reasons),
                f"{one.kept:,}",
            )
            for one in accounts
        ),
        words=2,
    )


def _made(off: Sequence[str]) -> str:
    made = [one for one in (*ALL_CHECKS, *REPEAT_CHECKS) if one not in off]
    text = f"Checks made: {', '.join(made) or 'none'}."
    return f"{text} Not made: {', '.join(off)}." if off else text


def _limits(accounts: Sequence[Account], models: Sequence[str], counts: Counted) -> Iterator[str]:
    predicted = [one.source for one in accounts if one.predicted]
    people = [one.source for one in accounts if one.predicted is False]
    if predicted:
        yield (
            f"Emotion, gender and valence/arousal/dominance behind {_names(predicted)} are a labeller's predictions and carry its errors: "
            "the checks ask whether an answer agrees with these labels, not whether the labels are right."
        )
    if people:
        yield f"Labels behind {_names(people)} are those of the corpora."
    yield (
        "Categories of emotion are what actors or annotators meant, not what a speaker felt; gender is the two-valued label of the corpora."
    )
    if models:
        yield (
            f"{_names(models)} wrote from text and never heard the speech. Questions may rest on the words alone in ways that the checks "
            "do not see, and reasons that an answer gives for a feeling are guesses."
        )
    if any(one.model is None for one in accounts):
        yield "The grammar's questions are wordings of a fixed table: many of them, but their number is finite and their style one."
    if counts.by["flag"]:
        yield "Flagged pairs are part of the data; leave them out where models are shown predicted labels."


_WHOSE = {True: "predicted", False: "people's", None: "not known"}


def _names(some: Sequence[str]) -> str:
    return ", ".join(f"`{_text(one)}`" for one in some)


def _sorted(counts: Counter[K]) -> list[tuple[K, int]]:
    """Most frequent first, ties by name."""
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def _counted(title: str, head: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return [f"## {title}", "None."]
    return [f"## {title}", _table((head, "pairs"), ((name, f"{count:,}") for name, count in counts.items()), words=1)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """A Markdown table whose first columns are words and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    lines = [[_text(one) for one in row] for row in (head, *rows)]
    return "\n".join([f"| {' | '.join(lines[0])} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(one)} |" for one in lines[1:])])


def _text(value: str) -> str:
    """Text as data in Markdown: no table bars, tags or line breaks of its own."""
    return " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
