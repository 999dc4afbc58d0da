"""Single files: what is content and what is not, rows that a file borrows, damage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undertone.errors import DataError
from undertone.parquet import FileSeal, content_digest, filled, read_parquet, read_sealed, seal_of, taken, write_table
from undertone.paths import open_parquet
from undertone.records import Clip, Label, Recording, Segment, Word, arrow_schema, to_arrow


def segment(number: int) -> Segment:
    label = Label(
        attribute="emotion", category="sad", start_ms=0, end_ms=900, labeller="a@1", distribution={"sad": 0.5 + number / 99}
    )
    return Segment(
        recording_id=f"r{number}", start_ms=0, end_ms=900, words=(Word(text="so", start_ms=1, end_ms=2),) * number, labels=(label,)
    )


SEGMENTS = to_arrow([segment(number) for number in range(6)], Segment)


def test_a_digest_is_of_content_and_not_of_how_it_lies_in_memory() -> None:
    digest = content_digest(SEGMENTS, Segment)
    assert len(digest) == 32
    assert content_digest(pa.concat_tables([SEGMENTS.slice(0, 1), SEGMENTS.slice(1)]), Segment) == digest
    assert content_digest(pa.concat_tables([SEGMENTS, SEGMENTS]).slice(6), Segment) == digest
    assert content_digest(SEGMENTS.take([1, 0, 2, 3, 4, 5]), Segment) != digest
    moved = [
        to_arrow([Recording(uri=uri, sha256="0" * 64, rate_hz=rate, samples=9, source="s")], Recording)
        for uri, rate in (("a", 8_000), ("b", 8_000), ("a", 16_000))
    ]
    one, same, other = (content_digest(table, Recording) for table in moved)
    assert one == same != other


def test_a_file_comes_back_and_a_seal_tells_another_from_it(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", SEGMENTS)
    with open_parquet(tmp_path / "a.parquet") as source:
        seal = seal_of(source)
    assert seal.bytes == (tmp_path / "a.parquet").stat().st_size
    assert read_sealed(tmp_path / "a.parquet", seal).equals(SEGMENTS)
    leaf = read_sealed(tmp_path / "a.parquet", seal, columns=["labels.list.element.category"])
    assert leaf.to_pylist()[0] == {"labels": [{"category": "sad"}]}
    for wrong, said in (
        (FileSeal(bytes=seal.bytes + 1, footer=seal.footer), r"a\.parquet has \d+ bytes, but _done\.json says"),
        (FileSeal(bytes=seal.bytes, footer="0" * 16), r"a\.parquet has another footer"),
    ):
        with pytest.raises(DataError, match=said):
            read_sealed(tmp_path / "a.parquet", wrong)
    with pytest.raises(DataError, match=r"b\.parquet is missing"):
        read_parquet(tmp_path / "b.parquet")


def test_strings_that_repeat_are_dictionaries_and_keys_are_not(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", SEGMENTS)
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    by_path = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert by_path["labels.list.element.labeller"].has_dictionary_page
    assert not by_path["id"].has_dictionary_page
    assert "DELTA_BINARY_PACKED" in by_path["words.list.element.start_ms"].encodings


def lend(columns: Sequence[str] | None, rows: pa.Array) -> pa.Table:
    """Rows of SEGMENTS; leaves as a file gives them."""
    found = taken(SEGMENTS, rows)
    return found if columns is None else found.select(list(dict.fromkeys(one.split(".")[0] for one in columns)))


def test_numbers_stand_for_rows_in_any_order_and_more_than_once() -> None:
    numbers = pa.table({"rows_in_source": [4, 0, 4]})
    assert filled(numbers, None, None, lend).equals(SEGMENTS.take([4, 0, 4]))
    assert filled(numbers, None, ["id"], lend).to_pydict() == {"id": ["r4@0-900", "r0@0-900", "r4@0-900"]}
    assert len(filled(numbers.slice(0, 0), None, None, lend)) == 0
    every = pa.table({"rows_in_source": range(6)})
    assert filled(every, None, None, lend) is SEGMENTS  # nothing is copied where all rows stay


def test_lists_of_numbers_stand_for_lists_of_rows_without_their_ids() -> None:
    own = pa.table({"id": ["a", "b", "c"], "start_ms": [1, 2, 3], "rows_in_source": [[5, 0], [], [2]]})
    whole = filled(own, "segments", None, lend)
    assert whole.column_names == ["id", "start_ms", "segments"]
    assert whole.schema.field("segments").equals(arrow_schema(Clip).field("segments"))
    rows = SEGMENTS.drop_columns(["id"]).to_pylist()
    assert whole["segments"].to_pylist() == [[rows[5], rows[0]], [], [rows[2]]]
    assert filled(own.slice(1), "segments", ["segments"], lend).to_pydict() == {"segments": [[], [rows[2]]]}
    some = filled(own, "segments", ["id", "segments.list.element.recording_id"], lend)
    assert some.to_pydict() == {
        "id": ["a", "b", "c"],
        "segments": [[{"recording_id": "r5"}, {"recording_id": "r0"}], [], [{"recording_id": "r2"}]],
    }

    def never(columns: Sequence[str] | None, rows: pa.Array) -> pa.Table:
        raise AssertionError("the source is not read for columns that the file has itself")

    assert filled(own, "segments", ["id"], never).to_pydict() == {"id": ["a", "b", "c"]}
