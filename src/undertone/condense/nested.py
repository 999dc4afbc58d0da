"""Labels inside rows, as flat frames: what the rules of condensation look at, without records."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]

LEAVES = ("attribute", "category", "number", "start_ms", "end_ms", "labeller", "reason")
"""Taken by name: `distribution` is a map, which polars does not know."""

LABEL_LEAVES = tuple(f"labels.list.element.{name}" for name in LEAVES)
"""What `labels_in` gives of segments, as a stage's `looks_at` names it; of clips, `CLIP_LABEL_LEAVES`."""

CLIP_LABEL_LEAVES = tuple(f"segments.list.element.{leaf}" for leaf in LABEL_LEAVES)

HELD_LEAVES = tuple(
    f"segments.list.element.labels.list.element.{name}" for name in ("attribute", "category", "start_ms", "end_ms", "reason")
)
"""What `clip_labels` must find for `time_held`: no strings that say who judged, which take a third of the time that reading takes."""


def labels_in(labels: pa.ListArray | pa.ChunkedArray, *attributes: str, abstentions: bool = False) -> pl.DataFrame:
    """The labels of some attributes that carry a value, one row each.

    Args:
        labels: A column `labels` of segments, or some leaves of it: what was not read is not in the frame.
        attributes: "emotion", "valence", ...
        abstentions: With those that carry a reason why they have no value.

    Returns:
        row (of the segment), index (of the label in all lists laid end to end), attribute, category, number, start_ms, end_ms, labeller,
        reason; by row and in the order of `Segment.of`.
    """
    lists = in_one_piece(labels)
    flat = lists.flatten()
    wanted = pc.is_in(pc.struct_field(flat, "attribute"), pa.array(attributes))
    index = pc.indices_nonzero(wanted if abstentions else pc.and_(wanted, pc.is_null(pc.struct_field(flat, "reason"))))
    leaves = {name: pc.struct_field(flat, name).take(index) for name in LEAVES if flat.type.get_field_index(name) >= 0}
    row = pc.list_parent_indices(lists).take(index).cast(pa.int64())
    found = pl.DataFrame(pa.table({"row": row, "index": index, **leaves}))
    return found.sort("row", *(name for name in ("start_ms", "end_ms", "labeller") if name in leaves), maintain_order=True)


def clip_labels(segments: pa.ListArray | pa.ChunkedArray, *attributes: str) -> pl.DataFrame:
    """`labels_in` for a column `segments` of clips; `row` is the clip's."""
    lists = in_one_piece(segments)
    clip = pc.list_parent_indices(lists).to_numpy()
    found = labels_in(pc.struct_field(lists.flatten(), "labels"), *attributes)
    return found.with_columns(row=clip[found["row"].to_numpy()])


def time_held(labels: pl.DataFrame) -> pl.DataFrame:
    """The time that each category holds of each row, and its share of the row's labelled time: `records.category_shares` for columns.

    Args:
        labels: Of one attribute, from `labels_in`. One without extent counts as 1 ms.

    Returns:
        row, category, ms, share; by row, what holds most of it first, ties in the order of the alphabet.
    """
    length_ms = (pl.col("end_ms") - pl.col("start_ms")).clip(lower_bound=1)
    held = labels.drop_nulls("category").group_by("row", "category").agg(ms=length_ms.sum())
    shares = held.with_columns(share=pl.col("ms") / pl.col("ms").sum().over("row"))
    return shares.sort("row", "ms", "category", descending=[False, True, False])


def spread(frame: pl.DataFrame, key: str, value: str, length: int) -> pa.Array:
    """Strings by row: those of column `value` at the places in column `key`, which are different from each other; null elsewhere."""
    place = np.full(length, -1)
    place[frame[key].to_numpy()] = np.arange(len(frame))
    strings = in_one_piece(frame[value].to_arrow()).cast(pa.string())
    return strings.take(pa.array(place, mask=place < 0))


def with_fields(column: pa.ListArray | pa.ChunkedArray, **fields: pa.Array) -> pa.ListArray:
    """A list<struct> column in which some fields of the structs have other values; everything else is passed on untouched.

    Args:
        column: The column, without null lists.
        fields: New values, for all lists laid end to end.
    """
    lists = in_one_piece(column)
    flat = lists.flatten()
    kinds = list(lists.type.value_type)
    values = [fields[kind.name] if kind.name in fields else pc.struct_field(flat, kind.name) for kind in kinds]
    return as_lists(pa.StructArray.from_arrays(values, fields=kinds), pc.list_value_length(lists).to_numpy(), lists.type)


def as_lists(values: pa.Array, lengths: NDArray[np.integer], kind: pa.DataType) -> pa.ListArray:
    """Lists of some lengths, one after the other."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, type=kind)


def in_one_piece(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column without chunks."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies even one
    return column
