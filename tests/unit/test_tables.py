"""Tables: presence means complete, content decides digests, other work is refused."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from undertone import parquet, tables
from undertone.errors import DataError, ResumeMismatch
from undertone.execute import write_rows
from undertone.markers import PartInfo, Source
from undertone.records import Answer, Label, Loss, Recording, Segment, Verdict, arrow_schema, from_arrow, to_arrow
from undertone.tables import Fingerprint


def recording(number: int, *, uri: str = "a.wav") -> Recording:
    return Recording(uri=uri, sha256=f"{number:064x}", rate_hz=16_000, samples=16_000, source="here")


def fingerprint(**changes: object) -> Fingerprint:
    given = {
        "stage": "corpus",
        "version": "1",
        "seed": 1,
        "config": {"path": "x", "split": {"test": 1}},
        "inputs": {"source0": "d"},
    }
    return Fingerprint.model_validate(given | changes)


def test_written_rows_come_back_in_order_over_several_parts(tmp_path: Path) -> None:
    rows = [recording(number) for number in range(10)]
    report = write_rows(tmp_path / "t", rows, record=Recording, fingerprint=fingerprint(), parts=3, smallest=1)
    table = tables.open_table(tmp_path / "t", Recording)
    assert list(table.rows()) == rows
    assert len(table.done.parts) == 3
    assert report.counts.inputs == report.counts.kept == len(table) == 10


def test_digest_ignores_volatile_fields_and_nothing_else(tmp_path: Path) -> None:
    def digest(name: str, row: Recording) -> str:
        return write_rows(tmp_path / name, [row], record=Recording, fingerprint=fingerprint()).digest

    assert digest("a", recording(1, uri="/one/a.wav")) == digest("b", recording(1, uri="/two/b.wav"))
    assert digest("c", recording(1)) != digest("d", recording(1).model_copy(update={"source": "there"}))


def test_other_fingerprint_is_refused_and_names_the_key(tmp_path: Path) -> None:
    write_rows(tmp_path / "t", [recording(1)], record=Recording, fingerprint=fingerprint())
    with pytest.raises(ResumeMismatch, match=r"config\.split\.test 1, now 2\. Choose a new --out, or start it over with --redo t"):
        write_rows(
            tmp_path / "t", [recording(1)], record=Recording, fingerprint=fingerprint(config={"path": "x", "split": {"test": 2}})
        )


def test_redo_starts_over(tmp_path: Path) -> None:
    write_rows(tmp_path / "t", [recording(1)], record=Recording, fingerprint=fingerprint())
    write_rows(tmp_path / "t", [recording(2)], record=Recording, fingerprint=fingerprint(seed=2), redo=True)
    assert [row.id for row in tables.open_table(tmp_path / "t", Recording).rows()] == [recording(2).id]


def test_redo_leaves_the_tables_below_alone(tmp_path: Path) -> None:
    write_rows(tmp_path / "t" / "below", [recording(1)], record=Recording, fingerprint=fingerprint())
    write_rows(tmp_path / "t", [recording(1)], record=Recording, fingerprint=fingerprint())
    write_rows(tmp_path / "t", [recording(2)], record=Recording, fingerprint=fingerprint(seed=2), redo=True)
    assert len(tables.open_table(tmp_path / "t" / "below", Recording)) == 1


def test_unfinished_and_absent_tables_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        tables.open_table(tmp_path / "none", Recording)
    write_rows(tmp_path / "t", [recording(1)], record=Recording, fingerprint=fingerprint())
    (tmp_path / "t" / "_done.json").unlink()
    with pytest.raises(DataError, match="is not finished; run the same command again"):
        tables.open_table(tmp_path / "t", Recording)


def test_a_table_of_another_record_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "t", [recording(1)], record=Recording, fingerprint=fingerprint())
    with pytest.raises(DataError, match="holds Recording rows, expected Segment"):
        tables.open_table(tmp_path / "t", Segment)


@pytest.mark.parametrize("harm", ["truncate", "delete"])
def test_a_part_changed_by_hand_is_noticed(tmp_path: Path, harm: str) -> None:
    write_rows(tmp_path / "t", [recording(1)], record=Recording, fingerprint=fingerprint())
    part = tmp_path / "t" / "part-00000.parquet"
    if harm == "delete":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"part-00000\.parquet (is missing|has \d+ bytes).*changed by hand"):
        list(tables.open_table(tmp_path / "t", Recording).rows())


def test_a_row_edited_by_hand_is_noticed() -> None:
    table = to_arrow([recording(1)], Recording)
    forged = table.set_column(0, arrow_schema(Recording).field(0), [["f" * 16]])
    with pytest.raises(DataError, match="its content gives"):
        from_arrow(forged, Recording)


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from undertone import tables\n"
        "with tables.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(30)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "t")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="is being written by another run"), tables.locked(tmp_path / "t"):
            pass
    finally:
        other.kill()
        other.wait()
    with tables.locked(tmp_path / "t"):
        pass  # the lock ended with its process


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_tables import fingerprint, recording
from undertone.execute import write_rows
from undertone.records import Recording
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
rows = [recording(i, uri="x" * 10 + str(i)) for i in range(8)] + [recording(9, uri="".join(str(hash((i, 'r'))) for i in range(30000)))]
write_rows(Path(sys.argv[1]), rows, record=Recording, fingerprint=fingerprint(), parts=9, smallest=1)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limits here")
def test_a_full_disk_keeps_what_was_finished_and_says_what_to_do(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "t"), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "Free some space and run the same command again" in ran.stderr
    assert len(list((tmp_path / "t").glob("part-*.parquet"))) == 8
    assert not list((tmp_path / "t").glob(".*draft"))
    assert not (tmp_path / "t" / "_done.json").exists()


def test_atomic_leaves_no_draft_on_error(tmp_path: Path) -> None:
    def fill_the_disk() -> None:
        with parquet.atomic(tmp_path / "f") as draft:
            draft.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DataError, match="No space left"):
        fill_the_disk()
    assert list(tmp_path.iterdir()) == []


def test_losses_must_add_up(tmp_path: Path) -> None:
    loss = Loss(row_id="a", stage="s", reason="r")
    with pytest.raises(DataError, match="1 kept \\+ 1 dropped \\+ 0 failed is not 3 input rows"):
        tables.write_part(tmp_path, 0, record=Recording, rows=[recording(1)], inputs=3, kept=1, losses=[(False, loss)])


def test_done_marker_tells_counts_reasons_and_parts(tmp_path: Path) -> None:
    losses = [
        (False, Loss(row_id="a", stage="s", reason="quiet")),
        (True, Loss(row_id="b", stage="s", reason="error", detail="boom")),
    ]
    tables.begin(tmp_path, fingerprint(), redo_hint="x")
    tables.write_part(tmp_path, 0, record=Recording, rows=[recording(1)], inputs=3, kept=1, losses=losses)
    tables.finish(tmp_path, fingerprint(), record=Recording, parts=1)
    done = json.loads((tmp_path / "_done.json").read_text())
    assert done["counts"] == {"inputs": 3, "kept": 1, "dropped": 1, "failed": 1, "rows": 1, "reasons": {"error": 1, "quiet": 1}}
    table = tables.open_table(tmp_path, Recording)
    assert [one.reason for one in table.dropped()] == ["quiet"]
    assert [one.detail for one in table.failed()] == ["boom"]
    assert not (tmp_path / "_work").exists()


def test_markers_that_were_sealed_before_parts_said_what_made_them_are_whole_still() -> None:
    held = {"file": "part-00000.parquet", "inputs": 3, "kept": 1, "dropped": 1, "failed": 1, "rows": 2, "digest": "d"}
    before = PartInfo.model_validate({**held, "seal": "2fec968f710c7057"})  # as the version without these fields sealed it
    assert "made_by" not in json.loads(before.model_dump_json())
    now = PartInfo.model_validate({**held, "made_by": fingerprint().digest, "source": Source(folder="../in", file="f", digest="d")})
    assert PartInfo.model_validate_json(now.model_dump_json()) == now
    assert now.seal != before.seal
    forged = now.model_dump_json().replace('"../in"', '"../on"')
    with pytest.raises(ValidationError, match="its content is not what was written"):
        PartInfo.model_validate_json(forged)


def test_a_part_of_an_older_run_in_an_unfinished_table_is_made_again(tmp_path: Path) -> None:
    tables.begin(tmp_path, fingerprint(), redo_hint="")
    for made_by in ("", fingerprint(seed=2).digest):
        tables.write_part(tmp_path, 0, record=Recording, rows=[recording(1)], inputs=1, kept=1, losses=[], made_by=made_by)
        assert tables.finished_part(tmp_path, 0, record=Recording) is not None
        assert tables.finished_part(tmp_path, 0, record=Recording, made_by=fingerprint().digest) is None
        assert not (tmp_path / "part-00000.parquet").exists()


def test_records_refuse_what_they_cannot_be() -> None:
    with pytest.raises(ValidationError, match="exactly one of category, number"):
        Label(attribute="emotion", start_ms=0, end_ms=1, labeller="x")
    with pytest.raises(ValidationError, match="a segment ends after it starts"):
        Segment(recording_id="r", start_ms=5, end_ms=5)
    with pytest.raises(ValidationError, match="either a score or a reason"):
        Verdict(judge="j", subject="s", pair_id="p")
    with pytest.raises(ValidationError, match="finite"):
        Label(attribute="valence", number=float("nan"), start_ms=0, end_ms=1, labeller="x")


def test_answers_of_before_are_read_and_one_that_is_none_has_no_text() -> None:
    made = [Answer(subject="S", pair_id="p", text="", raw="", unanswered="timed_out")]
    assert from_arrow(to_arrow(made, Answer), Answer) == made
    (old,) = from_arrow(to_arrow(made, Answer).drop_columns(["unanswered"]), Answer)
    assert old.unanswered is None
    with pytest.raises(ValueError, match=r"an answer that is none \(refused\) has no text, got 'Sad.'"):
        Answer(subject="S", pair_id="p", text="Sad.", raw="", unanswered="refused")
