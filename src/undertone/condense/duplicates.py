"""Duplicates: of segments that hold the same sound in several files, the first by id stays, whatever codec, level or cut the others have.

The fingerprints are those of the labeller `fingerprint`: 32 hashes for a segment. Copies have many in common, other takes of the same
sentence by the same speaker nearly none. On RAVDESS, TESS and nEMO (2026-11-20): 42 utterances, each copied in every way and made to begin
up to 16 ms later, and 3,512 pairs of different utterances of the same sentence and speaker (TESS: of the same carrier phrase, speaker and
emotion):

| copy | hashes in common, median (least) | found at `min_shared` = 5 |
|---|---|---|
| the same samples | 21 (11) | 100 % |
| MP3 64 kbit/s | 21 (12) | 100 % |
| 200 ms cut off, 14 dB softer, MP3 64 kbit/s | 18 (6) | 100 % |
| white noise at 20 dB | 20 (8) | 100 % |
| Opus 24 kbit/s | 14 (4) | 98 % |
| Opus 16 kbit/s | 10 (0) | 83 % |
| the first quarter cut off | 13 (2) | 95 % |
| the first half cut off | 5 (0) | 52 % |
| no copy: another take | 0 (at most 4, once) | 0 % |

So the precision on these pairs is 1 at any threshold from 5, and recall is what the table says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from undertone.condense.nested import LABEL_LEAVES, in_one_piece, labels_in, spread
from undertone.label.fingerprint import SIZE
from undertone.records import Segment
from undertone.stages import ColumnStage, Fates

_BUCKET_KEYS = 8_000_000  # hashes that are sorted at once: bounds the memory
_FIRSTS = 16  # of the segments with one hash, each is compared with so many that come first
_AT_ONCE = 50_000  # pairs compared at once

Ints = NDArray[np.int64]
Prints = NDArray[np.uint32]


class Duplicates(ColumnStage[Segment, Segment]):
    """Drop segments whose sound is that of a kept segment of another recording; of equals the first by id stays.

    Segments without a fingerprint stay. Sounds that a recording repeats itself stay too: a fingerprint is of a whole segment of speech, and
    what a diariser made of it shares it. Of each row only its id and 128 bytes are held in memory.

    Attributes:
        min_shared: So many of 32 hashes in common make a duplicate; more is stricter.
        on: Whether to look for duplicates at all.
    """

    name: ClassVar[str] = "duplicates"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Segment]] = Segment
    scope: ClassVar = "table"
    looks_at: ClassVar = ("id", "recording_id", *LABEL_LEAVES)
    borrows: ClassVar[bool] = True

    min_shared: int = Field(default=5, ge=1, le=SIZE)
    on: bool = True

    def keys(self, columns: pa.Table) -> pa.Table:
        found = labels_in(columns["labels"], "fingerprint").unique("row", keep="first", maintain_order=True)
        text = spread(found, "row", "category", len(columns))
        prints = pa.array([_packed(one) for one in text.to_pylist()], pa.binary(4 * SIZE))
        return pa.table({"id": columns["id"], "recording_id": columns["recording_id"], "print": prints})

    def fates(self, columns: pa.Table) -> Fates:
        reasons: list[str | None] = [None] * len(columns)
        details: list[str | None] = [None] * len(columns)
        if self.on:
            known = columns.append_column("row", pa.array(np.arange(len(columns)))).filter(pc.is_valid(columns["print"]))
            known = known.sort_by("id")  # so that the first by id comes first, in whatever order the parts came
            recordings = in_one_piece(known["recording_id"]).dictionary_encode().indices.to_numpy()
            for later, first in duplicates(_unpacked(known["print"]), recordings, min_shared=self.min_shared).items():
                row = known["row"][later].as_py()
                reasons[row], details[row] = "duplicate_sound", f"of {known['id'][first].as_py()}"
        return Fates(reason=pa.array(reasons, pa.string()), detail=pa.array(details, pa.string()))


def _packed(text: str | None) -> bytes | None:
    """A fingerprint's bytes; None for what is none of this labeller's, and cannot be compared."""
    return np.frombuffer(bytes.fromhex(text), ">u4").astype("<u4").tobytes() if text and len(text) == 8 * SIZE else None


def _unpacked(column: pa.ChunkedArray) -> Prints:
    """Fingerprints without nulls as hashes, shape (rows, 32); without a copy."""
    packed = in_one_piece(column)
    if not len(packed):
        return np.zeros((0, SIZE), np.uint32)
    return np.frombuffer(packed.buffers()[1], "<u4").reshape(-1, SIZE)[packed.offset : packed.offset + len(packed)]


def duplicates(prints: Prints, recordings: NDArray[np.integer], *, min_shared: int) -> dict[int, int]:
    """Which rows repeat an earlier row that is no repetition itself, and which one.

    Args:
        prints: Hashes of each row, shape (rows, 32); rows in the order in which the first stays.
        recordings: The recording of each row, shape (rows,): rows of one are not compared.
        min_shared: So many hashes in common make a duplicate.
    """
    repeated: dict[int, int] = {}
    rows = np.arange(len(prints))
    while True:
        found = [pairs[shared_hashes(prints[rows], pairs) >= min_shared] for pairs in candidates(prints[rows], recordings[rows])]
        edges = rows[np.unique(np.concatenate([*found, np.zeros((0, 2), np.int64)]), axis=0)]
        if not len(edges):
            return repeated
        for later, first in edges.tolist():  # by the later row, so that whether an earlier one stays is known
            if first not in repeated:
                repeated.setdefault(later, first)
        # Of a crowded hash only the first rows are compared: with those gone that repeat others, more may be found.
        rows = np.array([row for row in rows.tolist() if row not in repeated], dtype=np.int64)


def candidates(prints: Prints, recordings: NDArray[np.integer]) -> Iterator[Ints]:
    """Pairs (later row, earlier row) of different recordings with a hash in common, one bucket of hashes after the other.

    A hash that thousands of rows share tells little, so each row is paired with the first few of its hash only; real copies have other
    hashes in common too. A pair may come again in another bucket.
    """
    buckets = 1 << max(0, prints.size // _BUCKET_KEYS).bit_length()
    for bucket in range(buckets):
        columns = [np.flatnonzero((prints[:, place] & np.uint32(buckets - 1)) == bucket) for place in range(SIZE)]
        row = np.concatenate(columns)
        key = np.concatenate([prints[rows, place] for place, rows in enumerate(columns)])
        order = np.lexsort((row, key))
        row, key = row[order], key[order]
        place = np.arange(len(key))
        start = np.searchsorted(key, key)  # of the rows with the same hash
        for step in range(_FIRSTS):
            some = np.flatnonzero(start + step < place)
            if not len(some):
                break
            later, earlier = row[some], row[start[some] + step]
            apart = recordings[later] != recordings[earlier]
            yield np.stack([later[apart], earlier[apart]], axis=1)


def shared_hashes(prints: Prints, pairs: Ints) -> Ints:
    """How many hashes the two rows of each pair have in common, shape (pairs,)."""
    counts = [np.zeros(0, np.int64)]
    for start in range(0, len(pairs), _AT_ONCE):
        later, earlier = pairs[start : start + _AT_ONCE].T
        both = np.sort(np.concatenate([prints[later], prints[earlier]], axis=1), axis=1)
        counts.append((both[:, 1:] == both[:, :-1]).sum(axis=1))
    return np.concatenate(counts)
