"""Records: Arrow round trips, ids that are functions of content."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import clips, segments, timelines
from undertone import tables
from undertone.records import Clip, Segment, content_hash, from_arrow, to_arrow
from undertone.tables import content_digest


@given(st.lists(segments(), max_size=5))
def test_segments_survive_arrow(rows: list[Segment]) -> None:
    assert from_arrow(to_arrow(rows, Segment), Segment) == rows


@given(st.lists(clips(), max_size=3))
def test_clips_survive_arrow_and_json(rows: list[Clip]) -> None:
    assert from_arrow(to_arrow(rows, Clip), Clip) == rows
    assert [Clip.model_validate_json(row.model_dump_json()) for row in rows] == rows


@given(st.lists(segments(), min_size=1, max_size=5), st.integers(1, 4))
def test_digest_depends_on_content_not_on_chunks(rows: list[Segment], size: int) -> None:
    whole = to_arrow(rows, Segment)
    chunked = pa.concat_tables([whole.slice(start, size) for start in range(0, len(rows), size)])
    assert content_digest(whole, Segment) == content_digest(chunked, Segment)
    other = [*rows[1:], rows[0].model_copy(update={"end_ms": rows[0].end_ms + 1})]
    assert content_digest(whole, Segment) != content_digest(to_arrow(other, Segment), Segment)


@given(st.lists(st.text(max_size=4), min_size=2, max_size=4))
def test_content_hash_tells_where_a_part_ends(parts: list[str]) -> None:
    joined = ["".join(parts[:2]), *parts[2:]]
    assert content_hash(*parts) != content_hash(*joined)


@given(timelines())
def test_a_segment_says_the_category_that_fills_most_of_it(run: list[Segment]) -> None:
    joined = run[0].model_copy(update={"end_ms": run[-1].end_ms, "labels": tuple(label for one in run for label in one.labels)})
    held: dict[str, int] = {}
    for label in joined.of("emotion"):
        held[label.category or ""] = held.get(label.category or "", 0) + label.end_ms - label.start_ms
    assert held[joined.category("emotion") or ""] == max(held.values())
    number = joined.number("valence")
    assert number is not None
    assert 0 <= number <= 1 + 1e-9


@given(segments())
def test_a_digest_is_of_the_content_and_survives_a_file(one: Segment) -> None:
    """What lies in memory under a null (the number of a category, say) is no content, and files put other things there."""
    rows = [one, one.model_copy(update={"start_ms": 0, "end_ms": one.end_ms + 1, "labels": (), "words": ()})]
    made = to_arrow(rows, Segment)
    with TemporaryDirectory() as name:
        file = Path(name) / "part.parquet"
        tables.write_table(file, made)
        read = tables.read_parquet(file)
    assert tables.content_digest(read, Segment) == tables.content_digest(made, Segment)
    assert tables.content_digest(read.slice(0, 1), Segment) != tables.content_digest(made, Segment)
    halves = pa.concat_tables([made.slice(0, 1), made.slice(1)])
    assert tables.content_digest(halves, Segment) == tables.content_digest(made, Segment)
