"""Planned recordings become recordings: the first stage of every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Protocol

from pydantic import BaseModel, Field, PrivateAttr

from undertone.corpora.assemble import AssembledCorpus, AssembledSpec
from undertone.corpora.demo_corpus import DemoCorpus, DemoSpec
from undertone.corpora.folder import FileSpec, FolderCorpus
from undertone.corpora.native import (
    CremaDCorpus,
    EmodbCorpus,
    EsdCorpus,
    IemocapCorpus,
    MeldCorpus,
    MspPodcastCorpus,
    NativeCorpus,
    NemoCorpus,
    RavdessCorpus,
    TessCorpus,
)
from undertone.corpora.plan import Plan, Planned
from undertone.exchange import (
    AudiofolderCorpus,
    ExchangeCorpus,
    HfDatasetCorpus,
    LabelStudioCorpus,
    LhotseCorpus,
    NemoManifestCorpus,
    PackedSpec,
    RttmCorpus,
    WebDatasetCorpus,
)
from undertone.paths import Location
from undertone.records import Recording
from undertone.stages import Context, Dropped, Kept, Outcome, Stage

Corpus = Annotated[
    FolderCorpus
    | AssembledCorpus
    | DemoCorpus
    | CremaDCorpus
    | EmodbCorpus
    | EsdCorpus
    | IemocapCorpus
    | MeldCorpus
    | MspPodcastCorpus
    | NemoCorpus
    | RavdessCorpus
    | TessCorpus
    | AudiofolderCorpus
    | HfDatasetCorpus
    | LabelStudioCorpus
    | LhotseCorpus
    | NemoManifestCorpus
    | RttmCorpus
    | WebDatasetCorpus,
    Field(discriminator="kind"),
]


def plan_of(corpus: Corpus, *, seed: int) -> Plan:
    """What a corpus will be read as, and what of it is left out and why."""
    return corpus.plan_all() if isinstance(corpus, NativeCorpus | ExchangeCorpus) else Plan(rows=corpus.plan(seed=seed))


class Spec(Protocol):
    """What a planned recording needs to become one: reads or renders, and says who said what where."""

    def read(self, planned: Planned, out_dir: Location) -> Recording: ...


_SPECS: dict[str, type[BaseModel]] = {"file": FileSpec, "assembled": AssembledSpec, "demo": DemoSpec, "packed": PackedSpec}


class ReadCorpus(Stage[Planned, Recording]):
    """Read or render every planned recording; one that cannot be decoded fails alone."""

    name: ClassVar[str] = "corpus"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Planned]] = Planned
    writes: ClassVar[type[Recording]] = Recording
    batch_rows: ClassVar[int] = 1
    heavy: ClassVar[bool] = True

    _out_dir: Location = PrivateAttr()

    def open(self, context: Context) -> None:
        self._out_dir = context.out_dir

    def process(self, rows: Sequence[Planned]) -> Sequence[Outcome[Recording]]:
        return [Kept((self._read(row),)) for row in rows]

    def _read(self, planned: Planned) -> Recording:
        spec: Spec = _SPECS[planned.reader].model_validate_json(planned.spec)  # type: ignore[assignment]
        return spec.read(planned, self._out_dir)


class Deduplicate(Stage[Recording, Recording]):
    """Drop recordings whose bytes were there before: they would have one id, and could stand on both sides of a split."""

    name: ClassVar[str] = "deduplicate"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Recording]] = Recording
    scope: ClassVar = "table"

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Recording]]:
        first: dict[str, str] = {}
        outcomes: list[Outcome[Recording]] = []
        for row in rows:
            if row.id in first:
                outcomes.append(Dropped("duplicate_audio", f"{row.uri} has the same bytes as {first[row.id]}"))
            else:
                first[row.id] = row.uri
                outcomes.append(Kept((row,)))
        return outcomes
