"""CP-Bench (2509.16589): questions about content and voice of YouTube speech, written by people; long (30-60 s) and short (10-30 s) clips.

No row has been published in text. Expected is AudioBench's layout, which the same group uses (a row of `ytb_pqa_batch1`, from its logs):

    context       {bytes, path}
    instruction   "Why are the men arguing with each other?"
    answer        "It is because one of the men has hit his wife and the other man does not agree with his actions."

and a column with the type of the question, C, DE, DG, DS, CE, CG or CS; other names are set in `columns` and `types`.

Long: 479 clips, 1,567 pairs; short: 468 clips, 1,180 pairs. Judged by Llama-3-70B-Instruct, 0-100, mean of five runs, by a rubric for
content and paralinguistic relevance (its text is not known; ours is the wording "paralinguistic"). Reported as
UAS: the plain mean over the types of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from undertone.evaluate.benchmarks.building import Asked, Builder
from undertone.evaluate.benchmarks.protocol import Benchmark, Content
from undertone.evaluate.benchmarks.rows import Columns, NativeRows
from undertone.evaluate.benchmarks.types import kind_of, label_of
from undertone.paths import Location
from undertone.records import Kind

NO_TYPES = "no column with the type of a question was found: all count as one kind, OPEN, and there are no figures by type"


class Questions(Benchmark):
    """A set of questions that stand in its rows.

    Attributes:
        columns: Which column holds what.
        types: Names of types that the set uses -> ours.
        split: Which split is read where there are several.
        language, licence: Of the recordings, where you know them.
    """

    columns: Columns = Columns()
    types: dict[str, Kind] = Field(default_factory=dict)
    split: str = "test"
    language: str | None = None
    licence: str | None = None

    def read(self, out: Location) -> Content:
        builder = Builder(source=self.title, out=out, licence=self.licence, language=self.language)
        rows = NativeRows(self.path, columns=self.columns, split=self.split)
        untyped = 0
        for row in rows:
            clip = builder.sound(row.where, row.sound, name=row.name, transcript=row.transcript)
            if clip is None:
                continue
            untyped += row.type is None
            kind = kind_of(row.type, self.types, row.where) if row.type else "OPEN"
            answer = row.answer or ""
            attribute, label = label_of(kind, answer)
            builder.ask(row.where, clip, Asked(kind, row.question or "", answer, attribute, label))
        return builder.content(where=self.path, notes=(f"{untyped} rows: {NO_TYPES}",) if untyped else ())


class CpBench(Questions):
    """CP-Bench long or short."""

    name: Literal["cp-bench-long", "cp-bench-short"]

    ABOUT: ClassVar[str] = (
        "CP-Bench (2509.16589), long: 479 clips of 30-60 s, 1,567 pairs; short: 468 clips of 10-30 s, 1,180 pairs; seven types of question."
    )

    def figures(self) -> tuple[str, ...]:
        return ("UAS", "UAS C", "UAS DP", "UAS CP", "kinds", "overall", "classes")

    def scoring(self) -> Mapping[str, Any]:
        return {"rubric": "graded", "wording": "paralinguistic", "runs": 5}
