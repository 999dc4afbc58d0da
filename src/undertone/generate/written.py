"""What a run's folder tells of its pairs: who wrote them, what became of each, and which of them stayed.

A table below `generate/` that stage "generate" made holds pairs as they were written; every other one holds what some filter left of them. So
a study may name its sources as it likes and check in as many steps as it likes. Columns are read, and records made only of what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import Any, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.generate.checks import REPEAT_CHECKS, CheckStage, RepeatStage
from undertone.generate.measure import FAILED, FILTERS
from undertone.generate.stage import GenerateStage
from undertone.paths import Location
from undertone.records import Clip, QAPair, Record, from_arrow
from undertone.tables import Table

R = TypeVar("R", bound=Record)

FINAL = ("generate/base", "generate/contextual", "generate/single")
"""The tables that are trained on; others may lie inside their folders."""
PREDICTED = ("condense", "condense/utterances")
ABOUT = (*PREDICTED, "references/utterances", "references")
"""The tables of clips, predicted ones first."""

_LOSS = {"row_id": pl.String, "stage": pl.String, "reason": pl.String, "detail": pl.String}


class Account(BaseModel):
    """What became of the clips and the pairs of one source: clips = asked + passed over + failed, written = kept + lost.

    Attributes:
        source, strategy: Its name in the study, and what it writes.
        model: The LLM that was asked; None for the grammar.
        predicted: Whether its clips' labels are the labeller's; False for people's, None where that cannot be told.
        clips, asked, failed: Clips that it was given, that it wrote about, and that it could not ask about (an endpoint's errors).
        passed_over: The other clips by reason.
        written, kept: Pairs that it wrote, and that passed every check.
        lost: The others by reason, in the order of the checks.
        flagged: Pairs that stayed with a flag, by flag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    strategy: str
    model: str | None
    predicted: bool | None
    clips: int
    asked: int
    failed: int
    passed_over: dict[str, int]
    written: int
    kept: int
    lost: dict[str, int]
    flagged: dict[str, int]

    @property
    def acceptance(self) -> float | None:
        """Share of the written pairs that were kept, 0..1; None of nothing."""
        return self.kept / self.written if self.written else None


class Written:
    """The tables of pairs of one run, as far as they are finished."""

    def __init__(self, out: Location) -> None:
        """Look at a run's folder; read nothing but its markers.

        Args:
            out: The run's folder.
        """
        self.out = out
        every = {name: one for name in _folders(out) if (one := _opened(out / name, QAPair))}
        self.sources = {name: one for name, one in every.items() if one.done.fingerprint.stage == GenerateStage.name}
        self.steps = {name: one for name, one in every.items() if name not in self.sources}
        self.final = {name: every[name] for name in FINAL if name in every}
        self.clips = {name: clips for name in ABOUT if (clips := _opened(out / name, Clip))}

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Every pair that was written: id, source, kind, clip_id, stays."""
        found = [
            pl.DataFrame(table.arrow(columns=["id", "kind", "clip_id"])).with_columns(source=pl.lit(name.rpartition("/")[2]))
            for name, table in self.sources.items()
        ]
        made = pl.concat(found) if found else pl.DataFrame(schema=dict.fromkeys(("id", "kind", "clip_id", "source"), pl.String))
        kept = self.kept.select("id", stays=pl.lit(True))
        return made.join(kept, on="id", how="left").with_columns(pl.col("stays").fill_null(False))

    @cached_property
    def kept(self) -> pl.DataFrame:
        """Every pair that passed all checks: id, flags."""
        found = [pl.DataFrame(table.arrow(columns=["id", "flags"])) for table in self.final.values()]
        return pl.concat(found) if found else pl.DataFrame(schema={"id": pl.String, "flags": pl.List(pl.String)})

    @cached_property
    def losses(self) -> pl.DataFrame:
        """Every pair that a step dropped, or could not check (`measure.FAILED`): id, kind, clip_id, source, stage, reason, detail."""
        kinds: Sequence[Any] = ("dropped", "failed")
        found = [pl.DataFrame(table.losses(kind, list(_LOSS))) for table in self.steps.values() for kind in kinds]
        losses = pl.concat([pl.DataFrame(schema=_LOSS), *found]).rename({"row_id": "id"})
        return losses.join(self.pairs.drop("stays"), on="id", how="inner")

    @cached_property
    def flagged(self) -> pl.DataFrame:
        """Every pair that stays with a flag, once for each flag: id, kind, clip_id, source, reason."""
        flags = self.kept.explode("flags").drop_nulls().rename({"flags": "reason"})
        return flags.join(self.pairs.drop("stays"), on="id", how="inner")

    def accounts(self) -> tuple[Account, ...]:
        """What became of everything, source by source, in the order of their names."""
        lost, flagged = _by_source(self.losses), _by_source(self.flagged)
        stays = dict(self.pairs.group_by("source").agg(pl.col("stays").sum()).iter_rows())
        made = []
        for folder, table in self.sources.items():
            name, counts = folder.rpartition("/")[2], table.done.counts
            config = table.done.fingerprint.config
            made.append(
                Account(
                    source=name,
                    strategy=config["strategy"],
                    model=(config.get("llm") or {}).get("model"),
                    predicted=self._predicted(table),
                    clips=counts.inputs,
                    asked=counts.kept,
                    failed=counts.failed,
                    passed_over=dict(counts.reasons),
                    written=counts.rows,
                    kept=stays.get(name, 0),
                    lost=_in_order(lost.get(name, {})),
                    flagged=_in_order(flagged.get(name, {})),
                )
            )
        return tuple(made)

    def made(self, check: str) -> bool:
        """Whether any step made a check, which is to say that it had it not "off"."""
        stage = RepeatStage.name if check in REPEAT_CHECKS else CheckStage.name
        prints = [one.done.fingerprint for one in self.steps.values()]
        return any(check not in one.config.get("off", ()) for one in prints if one.stage == stage)

    def _predicted(self, table: Table[QAPair]) -> bool | None:
        read = set(table.done.fingerprint.inputs.values())
        return next((name in PREDICTED for name, clips in self.clips.items() if clips.digest in read), None)

    def read(self, ids: Set[str]) -> dict[str, QAPair]:
        """Pairs by id, as they stayed or else as they were written."""
        found: dict[str, QAPair] = {}
        for table in (*self.final.values(), *self.sources.values()):
            found.update((one.id, one) for one in rows_with(table, "id", ids - found.keys()))
        return found

    def clips_of(self, ids: Set[str]) -> dict[str, Clip]:
        """Clips by id; where a predicted and a reference clip have the same bounds, the predicted one."""
        found: dict[str, Clip] = {}
        for table in self.clips.values():
            found.update((one.id, one) for one in rows_with(table, "id", ids - found.keys()))
        return found


def rows_with(table: Table[R], column: str, values: Set[str]) -> Iterator[R]:
    """The rows with one of some values in a column; records are made of no others."""
    wanted = pa.array(sorted(values), pa.string())
    if not values:
        return
    for part in table.done.parts:
        mask = pc.is_in(table.read(part, [column])[column], value_set=wanted)
        if pc.any(mask).as_py():
            yield from from_arrow(table.read(part).filter(mask), table.record)


def _folders(out: Location) -> list[str]:
    markers: Iterable[Location] = (*(out / "generate").glob("*/_done.json"), *(out / "generate").glob("*/*/_done.json"))
    return sorted(str(one.parent)[len(str(out)) :].strip("/") for one in markers)


def _opened(folder: Location, record: type[R]) -> Table[R] | None:
    return tables.open_table(folder, record) if (folder / "_done.json").exists() else None


def _by_source(frame: pl.DataFrame) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for source, reason, count in frame.group_by("source", "reason").len().iter_rows():
        found.setdefault(source, {})[reason] = count
    return found


def _in_order(reasons: Mapping[str, int]) -> dict[str, int]:
    """In the order of the checks; what is no check stands last."""
    order = {name: at for at, name in enumerate((*FILTERS, FAILED))}
    return dict(sorted(reasons.items(), key=lambda one: (order.get(one[0], len(order)), one[0])))
