"""One row per item, as the table formats have it: plain columns for people and peers, `segments` and `qa` for everything.

`segments` is a list of our Segment records without their recording, `qa` of our QAPair records; a label's `distribution` is a list of
(category, share), because a column of mappings with differing keys has no type in these formats. The plain columns are a view of
`segments` and are checked against it when read back, so that an edit of one of the two never goes unnoticed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from undertone.exchange.items import Item
from undertone.records import DIMENSIONS, QAPair, Segment, arrow_schema, category_shares

AUDIO = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""How datasets stores embedded audio: `datasets.Audio.pa_type`."""

VIEW = ("text", "speaker", "emotion", "gender", *DIMENSIONS)
"""Columns that are computed from `segments`."""


def row_of(item: Item, segments: Sequence[Segment], *, duration_ms: int) -> dict[str, Any]:
    """The row of an item.

    Args:
        item: What is exported.
        segments: Its segments in the time of its file.
        duration_ms: Length of its file.
    """
    said = [segment_row(one) for one in segments]
    return {
        "id": item.key,
        **view(said),
        "language": item.language,
        "licence": item.licence,
        "source": item.source,
        "recording": item.recording_id,
        "offset_s": item.start_ms / 1000,
        "duration_s": duration_ms / 1000,
        "split": item.split,
        "segments": said,
        "qa": [pair_row(one) for one in item.pairs],
    }


def segment_row(segment: Segment) -> dict[str, Any]:
    """A segment as plain values, without its recording."""
    made = segment.model_dump(mode="json", exclude={"recording_id"})
    for label in made["labels"]:
        shares = label["distribution"]
        label["distribution"] = None if shares is None else [{"category": name, "share": one} for name, one in shares.items()]
    return made


def pair_row(pair: QAPair) -> dict[str, Any]:
    """A question-answer pair as plain values, without its clip, which is the row."""
    return pair.model_dump(mode="json", exclude={"clip_id", "recording_id", "split"})


def view(segments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The plain columns of some segment rows; None where they do not agree on a speaker, or nothing is known."""
    records = [Segment(recording_id="", **without_lists(one)) for one in segments]
    speakers = {one.speaker for one in records}
    made: dict[str, Any] = {
        "text": " ".join(one.transcript for one in records if one.transcript) or None,
        "speaker": speakers.pop() if len(speakers) == 1 else None,
    }
    for name in ("emotion", "gender"):
        shares = category_shares(records, name)
        made[name] = max(shares, key=lambda key, found=shares: found[key]) if shares else None  # type: ignore[misc]
    for name in DIMENSIONS:
        values = [(one.number(name), one.duration_ms) for one in records]
        known = [(value, length) for value, length in values if value is not None]
        made[name] = sum(value * length for value, length in known) / sum(length for _, length in known) if known else None
    return made


def without_lists(segment: Mapping[str, Any]) -> dict[str, Any]:
    """A segment row with its distributions as mappings again."""
    labels = []
    for label in segment.get("labels") or ():
        shares = label.get("distribution")
        labels.append({**label, "distribution": {one["category"]: one["share"] for one in shares} if shares is not None else None})
    return {**segment, "labels": labels, "words": segment.get("words") or []}


def _listed(kind: pa.DataType) -> pa.DataType:
    """An Arrow type with every mapping as a list of (category, share)."""
    if pa.types.is_map(kind):
        return pa.list_(pa.struct([pa.field("category", pa.string()), pa.field("share", kind.item_type)]))
    if pa.types.is_list(kind):
        return pa.list_(_listed(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(one.name, _listed(one.type)) for one in kind])
    return kind


def _struct(record: type[Segment | QAPair], without: set[str]) -> pa.DataType:
    fields = [one for one in arrow_schema(record) if one.name not in {"id", *without}]
    return pa.struct([pa.field(one.name, _listed(one.type)) for one in fields])


@functools.cache
def row_schema() -> pa.Schema:
    """The Arrow schema of a row, its audio left out."""
    text = ("id", "text", "speaker", "emotion", "gender")
    about = ("language", "licence", "source", "recording")
    return pa.schema(
        [
            *((name, pa.string()) for name in text),
            *((name, pa.float64()) for name in DIMENSIONS),
            *((name, pa.string()) for name in about),
            ("offset_s", pa.float64()),
            ("duration_s", pa.float64()),
            ("split", pa.string()),
            ("segments", pa.list_(_struct(Segment, {"recording_id"}))),
            ("qa", pa.list_(_struct(QAPair, {"clip_id", "recording_id", "split"}))),
        ]
    )
