"""MinHash (Broder, 1997): which sets of words are alike, without comparing all with all.

A set's signature is, for each of many hash functions, the least hash of its words; two sets share one of these with the probability of
their Jaccard similarity. Sets whose signatures agree in one whole band are candidates, which are then compared exactly. With 16 bands of
4 hashes, 1 - (1 - s^4)^16 of the sets of similarity s become candidates: 99.98 % at 0.8, 64 % at 0.5, 12 % at 0.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BANDS, ROWS = 16, 4
_PRIME = np.uint64((1 << 31) - 1)
_FIRSTS = 32  # of the sets in a crowded bucket each is compared with so many that come first

Words = frozenset[int]


def word_hashes(words: Iterable[str]) -> Words:
    """Words as numbers below 2**31 - 1, the same in every process."""
    hashed = (int.from_bytes(hashlib.blake2b(one.encode(), digest_size=4).digest(), "little") for one in words)
    return frozenset(one % int(_PRIME) for one in hashed)


def jaccard(one: Words, other: Words) -> float:
    """What two sets have in common of what either has, 0..1; of two empty sets 0, for nothing is no likeness."""
    return len(one & other) / len(one | other) if one or other else 0.0


def signatures(sets: Sequence[Words]) -> NDArray[np.uint64]:
    """The signature of each set, none of them empty; shape (sets, 64)."""
    drawn = np.random.default_rng(0).integers(1, int(_PRIME), size=(2, BANDS * ROWS), dtype=np.uint64)
    flat = np.fromiter((word for one in sets for word in sorted(one)), dtype=np.uint64)
    starts = np.cumsum([0, *(len(one) for one in sets[:-1])])
    made = np.empty((len(sets), BANDS * ROWS), np.uint64)
    for column, (factor, offset) in enumerate(drawn.T):
        made[:, column] = np.minimum.reduceat((flat * factor + offset) % _PRIME, starts)
    return made


def candidates(sets: Sequence[Words]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of sets that may be alike; one may come again in another band. Empty sets are like none."""
    known = np.array([index for index, one in enumerate(sets) if one], dtype=np.int64)
    if len(known) < 2:
        return
    signed = signatures([sets[index] for index in known.tolist()])
    for band in range(BANDS):
        _, bucket = np.unique(signed[:, band * ROWS : (band + 1) * ROWS], axis=0, return_inverse=True)
        bucket = bucket.reshape(-1)
        order = np.argsort(bucket, kind="stable")
        place, start = np.arange(len(order)), np.searchsorted(bucket[order], bucket[order])
        for step in range(_FIRSTS):
            some = np.flatnonzero(start + step < place)
            if not len(some):
                break
            yield from zip(known[order[some]].tolist(), known[order[start[some] + step]].tolist(), strict=True)
