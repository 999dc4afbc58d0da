"""Balance: which clips stay so that emotions (and voices, corpora, ...) come in the shares that are wanted, within a budget of hours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from undertone.condense.nested import HELD_LEAVES, clip_labels, in_one_piece, spread, time_held
from undertone.errors import DataError
from undertone.records import Clip
from undertone.stages import ColumnStage, Context, Fates

CellOf = Literal["emotion", "gender", "age", "accent", "source", "language", "licence"]
_COLUMNS = ("source", "language", "licence")
_LEAVES = (*(f"segments.list.element.{name}" for name in ("speaker", "start_ms", "end_ms")), *HELD_LEAVES)
_MS_PER_HOUR = 3_600_000

Counts = NDArray[np.int64]


class Balance(ColumnStage[Clip, Clip]):
    """Keep so many clips of each joint cell that the cells come near their target shares.

    A cell keeps at most `max_ratio` times what the median cell could keep at its target share; one that has less keeps all it has. With the
    defaults: no emotion outnumbers the median emotion by more than a half. Which clips go is drawn by a hash of seed and clip, so it
    depends neither on order nor on shards, and what stays would all stay if it were balanced again.

    Attributes:
        cells: What makes a cell: attributes of labels (the category that fills most of the clip) and columns of clips.
        target: Shares of clips by cell. "uniform": all cells equal; "natural": as they come; or shares by name, `{sad/female: 2, ...}`, whose
            sum does not matter; cells that are not named go.
        max_ratio: See above. The median of an even number of cells is the lower of the two in the middle.
        exact: Meet the target exactly: no cell keeps more than the scarcest one allows. `max_ratio` is not used.
        neutral_max: Largest share of the clips that stay that may be neutral.
        hours: Largest total length; less is kept of all cells alike.
        clips_per_recording: Most clips of one recording. Drawn before anything is balanced, as are those of speakers.
        clips_per_speaker: Most clips of one speaker, the one who holds most of the clip. Speech of unknown speakers is not capped.
    """

    name: ClassVar[str] = "balance"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Clip]] = Clip
    writes: ClassVar[type[Clip]] = Clip
    scope: ClassVar = "table"
    looks_at: ClassVar = ("id", "recording_id", *_COLUMNS, "start_ms", "end_ms", *_LEAVES)

    cells: tuple[CellOf, ...] = Field(default=("emotion",), min_length=1)
    target: Literal["uniform", "natural"] | dict[str, Annotated[float, Field(gt=0)]] = "uniform"
    max_ratio: float = Field(default=1.5, ge=1)
    exact: bool = False
    neutral_max: float | None = Field(default=None, ge=0, lt=1)
    hours: float | None = Field(default=None, gt=0)
    clips_per_recording: int | None = Field(default=None, ge=1)
    clips_per_speaker: int | None = Field(default=None, ge=1)

    _seed: int = PrivateAttr(default=0)

    def open(self, context: Context) -> None:
        self._seed = context.seed

    def keys(self, columns: pa.Table) -> pa.Table:
        emotion = _most(columns, "emotion")
        parts = [emotion if name == "emotion" else _most(columns, name) for name in self.cells]
        nobody = pa.nulls(len(columns), pa.string())
        return pa.table(
            {
                "draw": pa.array(_draws(str(self._seed), columns["id"].to_pylist())),
                "ms": pc.subtract(columns["end_ms"], columns["start_ms"]),
                "cell": pc.binary_join_element_wise(*parts, "/"),
                "neutral": pc.equal(emotion, "neutral"),
                "recording": columns["recording_id"] if self.clips_per_recording else nobody,
                "speaker": _speaker(columns) if self.clips_per_speaker else nobody,
            }
        )

    def fates(self, columns: pa.Table) -> Fates:
        clips = pl.DataFrame(columns).with_columns(row=pl.int_range(pl.len()), reason=pl.lit(None, pl.String)).sort("draw")
        for of, most in (("recording", self.clips_per_recording), ("speaker", self.clips_per_speaker)):
            if most is not None:
                counts = pl.col("reason").is_null() & pl.col(of).is_not_null()
                beyond = counts & (counts.cum_sum().over(of) > most)
                clips = clips.with_columns(reason=pl.when(beyond).then(pl.lit(f"{of}_cap")).otherwise("reason"))
        left = clips.filter(pl.col("reason").is_null()).sort("cell", "draw")
        chosen = left.with_columns(reason=self._choice(left)) if len(left) else left
        lost = pl.concat([clips.drop_nulls("reason"), chosen.drop_nulls("reason")])
        return Fates(reason=spread(lost, "row", "reason", len(columns)), detail=spread(lost, "row", "cell", len(columns)))

    def _choice(self, clips: pl.DataFrame) -> pl.Series:
        """Why each clip goes (null: it stays); clips of one cell stand side by side, those drawn first in front."""
        cells = clips.group_by("cell", maintain_order=True).agg(pl.len().alias("clips"), pl.col("neutral").first())
        number, neutral = cells["clips"].to_numpy().astype(np.int64), cells["neutral"].to_numpy()
        begin = np.cumsum(number) - number
        passed_ms = np.concatenate([[0], np.cumsum(clips["ms"].to_numpy())])
        plan = _Plan(
            number=number, weight=self._weights(cells["cell"].to_list(), number), neutral=neutral & (self.neutral_max is not None)
        )
        level = plan.level(exact=self.exact, max_ratio=self.max_ratio)
        by_target = plan.quotas(level)
        by_neutral = plan.quotas(level, neutral_max=self.neutral_max)
        by_hours = by_neutral
        if self.hours is not None:
            budget_ms = self.hours * _MS_PER_HOUR

            def fits(tried: float) -> bool:
                quotas = plan.quotas(tried, neutral_max=self.neutral_max)
                return bool((passed_ms[begin + quotas] - passed_ms[begin]).sum() <= budget_ms)

            by_hours = plan.quotas(_largest(fits, level), neutral_max=self.neutral_max)
        rank = np.arange(len(clips)) - np.repeat(begin, number)
        told = (("surplus", by_target), ("neutral", by_neutral), ("over_budget", by_hours))
        beyond = [pl.when(pl.Series(rank >= np.repeat(quotas, number))).then(pl.lit(name)) for name, quotas in told]
        return clips.select(reason=pl.coalesce(beyond)).to_series()

    def _weights(self, names: list[str], number: Counts) -> NDArray[np.float64]:
        if isinstance(self.target, str):
            return np.ones(len(names)) if self.target == "uniform" else number.astype(float)
        weights = np.array([self.target.get(name, 0.0) for name in names])
        if not weights.any():
            raise DataError(
                f"no clip is in a cell of condense.balance.target ({', '.join(sorted(self.target)[:5])}). "
                f"The cells ({'/'.join(self.cells)}) of this table are {', '.join(names[:12])}"
            )
        return weights


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Cells: the number of clips in each, its weight in the target, and whether it is one of those that `neutral_max` holds down."""

    number: Counts
    weight: NDArray[np.float64]
    neutral: NDArray[np.bool_]

    def level(self, *, exact: bool, max_ratio: float) -> float:
        """Clips that a cell of weight 1 keeps, if it has them."""
        # Without the cells held down: what stays would be balanced to another level the next time.
        judged = (self.weight > 0) & ~self.neutral
        if not judged.any():
            judged = self.weight > 0
        could = self.number[judged] / self.weight[judged]
        return float(could.min() if exact else max_ratio * median_low(could.tolist()))

    def quotas(self, level: float, *, neutral_max: float | None = None) -> Counts:
        """Clips that each cell keeps. Rounded up, so that a share of few clips is not none."""
        wanted = np.ceil(level * self.weight - 1e-9).astype(np.int64)
        quotas = np.minimum(self.number, wanted)
        neutral = int(quotas[self.neutral].sum())
        if neutral_max is None or neutral == 0:
            return quotas
        allowed = min(neutral, int(neutral_max / (1 - neutral_max) * quotas[~self.neutral].sum() + 1e-9))
        return np.where(self.neutral, quotas * allowed // neutral, quotas)


def _largest(fits: Callable[[float], bool], most: float) -> float:
    """The largest level that fits, to a part in 2**50."""
    if fits(most):
        return most
    low, high = 0.0, most
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _draws(seed: str, ids: list[str]) -> NDArray[np.uint64]:
    """`records.content_hash` of seed and id, as numbers; that function takes three times as long, and this is done for every clip."""
    start = f"{len(seed.encode())}:{seed}".encode()
    raw = (one.encode() for one in ids)
    digests = b"".join(hashlib.sha256(b"%b%d:%b" % (start, len(one), one)).digest()[:8] for one in raw)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def _most(columns: pa.Table, name: str) -> pa.Array:
    """What a clip is in one respect: a column of it, or the category that holds most of its time; "unknown" without one."""
    if name in _COLUMNS:
        return pc.fill_null(in_one_piece(columns[name]), "unknown")
    held = time_held(clip_labels(columns["segments"], name)).unique("row", keep="first", maintain_order=True)
    return pc.fill_null(spread(held, "row", "category", len(columns)), "unknown")


def _speaker(columns: pa.Table) -> pa.Array:
    """The speaker who holds most of each clip; null where nobody is known."""
    lists = in_one_piece(columns["segments"])
    flat = lists.flatten()
    fields = {"category": "speaker", "start_ms": "start_ms", "end_ms": "end_ms"}
    row = pc.list_parent_indices(lists).cast(pa.int64())
    spoken = pl.DataFrame(pa.table({"row": row, **{name: pc.struct_field(flat, field) for name, field in fields.items()}}))
    return spread(time_held(spoken).unique("row", keep="first", maintain_order=True), "row", "category", len(columns))
