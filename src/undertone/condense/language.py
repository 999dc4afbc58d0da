"""Language: segments of other languages than the wanted ones go, by what a recogniser heard or what the recording is said to be in."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
import pyarrow as pa
from pydantic import PrivateAttr, field_validator

from undertone.condense.nested import LABEL_LEAVES, labels_in, spread
from undertone.records import Recording, Segment
from undertone.stages import ColumnStage, Context, Fates


class Language(ColumnStage[Segment, Segment]):
    """Keep segments of the wanted languages; with none named, all.

    A label `language` of the segment (of a labeller that recognises it) counts before the language that the recording's corpus
    states. Languages are compared by their first subtag: "en" wants "en-GB" as well. A recording that states several ("en, pl") is wanted
    where all of them are, and else as good as unknown.

    Attributes:
        wanted: Language codes, such as ("en", "zh").
        unknown: What becomes of a segment whose language nobody stated; "drop" gives "unknown_language".
    """

    name: ClassVar[str] = "language"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Segment]] = Segment
    looks_at: ClassVar = ("recording_id", *LABEL_LEAVES)
    borrows: ClassVar[bool] = True
    sides: ClassVar = {"recordings": Recording}

    wanted: tuple[str, ...] = ()
    unknown: Literal["keep", "drop"] = "keep"

    _stated: pl.DataFrame = PrivateAttr()

    @field_validator("wanted")
    @classmethod
    def _are_codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [one for one in value if not _subtags(one)]:
            raise ValueError(f"got {wrong[0]!r}, expected language codes such as 'en' or 'zh-Hans'")
        return value

    def open(self, context: Context) -> None:
        self._stated = pl.DataFrame(context.sides["recordings"].arrow(columns=["id", "language"]))

    def fates(self, columns: pa.Table) -> Fates:
        if not self.wanted:
            return Fates(reason=pa.nulls(len(columns), pa.string()))
        recordings = pl.DataFrame({"id": pl.from_arrow(columns["recording_id"])})
        stated = recordings.join(self._stated, on="id", how="left", maintain_order="left")
        heard = labels_in(columns["labels"], "language").unique("row", keep="first", maintain_order=True)
        found = stated.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
        found = found.join(heard.select("row", heard="category"), on="row", how="left", maintain_order="left")
        found = found.select("row", language=pl.coalesce("heard", "language"))
        verdicts = (
            found.select("language")
            .unique()
            .with_columns(reason=pl.col("language").map_elements(self.refusal, return_dtype=pl.String, skip_nulls=False))
        )
        lost = found.join(verdicts, on="language", how="left", nulls_equal=True).drop_nulls("reason")
        shape = len(columns)
        return Fates(reason=spread(lost, "row", "reason", shape), detail=spread(lost, "row", "language", shape))

    def refusal(self, language: str | None) -> str | None:
        """Why a language is not wanted: "other_language" or "unknown_language"; None where it is."""
        if not self.wanted:
            return None
        spoken = _subtags(language or "")
        wanted = {tag for one in self.wanted for tag in _subtags(one)}
        if spoken and spoken <= wanted:
            return None
        if spoken and not spoken & wanted:
            return "other_language"
        return "unknown_language" if self.unknown == "drop" else None


def _subtags(language: str) -> set[str]:
    """The first subtags of the languages in a text: "en-GB, pl" gives en and pl."""
    words = language.casefold().replace("_", "-").replace(",", " ").replace("+", " ").split()
    return {word.split("-")[0] for word in words} - {"", "unknown", "und", "and"}
