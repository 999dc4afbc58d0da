"""Tables and audio in an object store, against a package's S3 server on loopback, with faults between it and us."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moto", reason="the S3 server of these tests is not installed: pip install 'undertone[dev]'")
pytest.importorskip("flask_cors", reason="the S3 server of these tests is not installed: pip install 'undertone[dev]'")

from tests.object_store import Fault, FaultyProxy, Harm, gs_server, make_bucket, s3_server
from tests.toy import Cut, recordings, source
from undertone import audio, paths, tables
from undertone.audio import AudioError, Wave
from undertone.errors import ConfigError, DataError, ResumeMismatch
from undertone.execute import run_stage
from undertone.paths import Claim, Remote, StoreError, location
from undertone.records import Recording, Segment
from undertone.tables import Fingerprint

MARK = Fingerprint(stage="toy", version="1", seed=0, config={}, inputs={})
HARMS: list[Harm] = ["500", "503", "reset", "truncated", "lost_reply", "slow"]


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyProxy]:
    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # moto does not know the trailers that the SDK would send
    }
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        made = FaultyProxy(server)
        make_bucket(server, "bucket")
        for key, value in (settings | {"AWS_ENDPOINT_URL": made.url}).items():
            patch.setenv(key, value)
        paths._filesystem.cache_clear()
        yield made
        made.http.shutdown()
        paths._filesystem.cache_clear()


@pytest.fixture
def folder(proxy: FaultyProxy, request: pytest.FixtureRequest) -> Iterator[Remote]:
    proxy.faults.clear()
    made = location(f"s3://bucket/{request.node.name.replace('[', '-').rstrip(']')}")
    assert isinstance(made, Remote)
    yield made
    proxy.faults.clear()


def write(folder: Remote | Path, rows: list[Recording], *, parts: int = 3) -> tables.Done:
    size = -(-len(rows) // parts)
    with tables.locked(folder):
        tables.begin(folder, MARK, redo_hint="")
        done = tables.finished(folder)
        if done is not None:
            return done
        for index in range(parts):
            piece = rows[index * size : (index + 1) * size]
            if tables.finished_part(folder, index, record=Recording) is None:
                tables.write_part(folder, index, record=Recording, rows=piece, inputs=len(piece), kept=len(piece), losses=[])
        return tables.finish(folder, MARK, record=Recording, parts=parts)


def test_addresses() -> None:
    run = location("s3://bucket/run")
    assert isinstance(run, Remote)
    assert str(run / "label" / "part.parquet") == "s3://bucket/run/label/part.parquet"
    assert ((run / "a.tar.gz").name, (run / "a.gz").suffix, (run / "a.gz").stem, run.parent.name) == (
        "a.tar.gz",
        ".gz",
        "a",
        "bucket",
    )
    assert location("runs/demo") == Path("runs/demo")
    assert location(run) is run
    assert location(str(run)) == run
    for wrong in ("http://host/x", "s3:///x", "s3://bucket/x?endpoint_override=y"):
        with pytest.raises(ConfigError, match="expected a local path, s3://BUCKET/FOLDER or gs://"):
            location(wrong)


def test_a_remote_place_answers_like_a_path(folder: Remote, tmp_path: Path) -> None:
    for root in (folder, tmp_path / "here"):
        root.mkdir(parents=True, exist_ok=True)
        assert not (root / "a").exists()
        for name in ("a.txt", "b.txt", "deep/c.txt", "deep/er/a.txt"):
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())
        assert [one.name for one in sorted(root.iterdir())] == ["a.txt", "b.txt", "deep"]
        assert [one.name for one in sorted(root.glob("*.txt"))] == ["a.txt", "b.txt"]
        assert [one.parent.name for one in sorted(root.glob("*/c.txt"))] == ["deep"]
        assert len(list(root.rglob("a.txt"))) == 2
        assert ((root / "deep").is_dir(), (root / "deep").is_file(), (root / "a.txt").is_file()) == (True, False, True)
        assert (root / "deep/c.txt").read_text() == "deep/c.txt"
        assert (root / "a.txt").stat().st_size == 5
        for missing in ((root / "no").read_bytes, (root / "no").stat, (root / "no").unlink):
            with pytest.raises(FileNotFoundError):
                missing()
        (root / "no").unlink(missing_ok=True)
        (root / "a.txt").unlink()
        assert not (root / "a.txt").exists()
        paths.remove_tree(root / "deep")
        paths.remove_tree(root / "deep")
        assert [one.name for one in root.iterdir()] == ["b.txt"]


def test_a_table_in_a_bucket_is_the_table_on_a_disk(proxy: FaultyProxy, folder: Remote, tmp_path: Path) -> None:
    rows = recordings(20)
    proxy.seen.clear()
    there, here = write(folder, rows), write(tmp_path / "t", rows)
    assert (there.digest, there.counts) == (here.digest, here.counts)
    assert list(tables.open_table(folder, Recording).rows()) == rows
    assert tables.open_table(folder, Recording).dropped() == []
    puts = [one for one in proxy.seen if one.startswith("PUT") and "part-" in one]
    assert len(puts) == 3  # a part is one PUT
    assert [one for one in proxy.seen if one.startswith("PUT") and "/_lock" not in one][-1].endswith(("_done.json", "/"))
    assert sorted(folder.sizes()) == sorted([one.name for one in (tmp_path / "t").iterdir() if one.name != "_lock"])
    assert not (folder / "_work").exists()


@pytest.mark.parametrize("harm", HARMS)
def test_a_store_that_stumbles_costs_time_and_nothing_else(proxy: FaultyProxy, folder: Remote, harm: Harm) -> None:
    rows = recordings(6)
    for where in (
        r"^PUT .*part-00000",
        r"^GET .*part-00000",
        r"^PUT .*_done",
        r"^PUT .*_lock-",
        r"^GET .*prefix",
        r"^HEAD .*part-00001",
    ):
        proxy.faults.append(Fault(harm, where=where, times=1 if harm == "slow" else 2))
    write(folder, rows, parts=2)
    assert list(tables.open_table(folder, Recording).rows()) == rows
    assert not [one for one in folder.sizes() if one.startswith("_lock-")]
    assert {fault.where for fault in proxy.faults if fault.met} >= {r"^PUT .*part-00000", r"^GET .*part-00000", r"^PUT .*_lock-"}


def test_a_store_that_stays_down_ends_the_run_and_the_next_goes_on(
    proxy: FaultyProxy, folder: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_TRIES", 2)
    paths._filesystem.cache_clear()
    rows = recordings(6)
    for where in (r"^PUT .*part-00001", r"^PUT .*dropped\.parquet$", r"^PUT .*_done\.json"):
        proxy.faults[:] = [Fault("503", where=where, times=100)]
        with pytest.raises(StoreError, match=r"cannot write s3://bucket/.*Check the endpoint and the credentials"):
            write(folder, rows, parts=2)
        with pytest.raises(DataError, match=r"is not finished|does not exist"):
            tables.open_table(folder, Recording)
    proxy.faults.clear()
    proxy.seen.clear()
    assert list(tables.open_table(folder, Recording).rows()) == rows if write(folder, rows, parts=2) else False
    assert not [one for one in proxy.seen if one.startswith("PUT") and "part-00000" in one]  # it was there
    paths._filesystem.cache_clear()


def test_a_stage_between_two_buckets_with_workers(folder: Remote, tmp_path: Path) -> None:
    here = run_stage(Cut(), [source(tmp_path / "in", 20)], tmp_path / "out", seed=3, max_failed_share=1)
    write(folder / "in", recordings(20), parts=4)
    out = folder / "out"
    report = run_stage(Cut(), [folder / "in"], out, seed=3, workers=2, max_failed_share=1)  # type: ignore[list-item, arg-type]
    assert report.counts == here.counts
    table = tables.open_table(out, Segment)
    assert list(table.rows()) == list(tables.open_table(tmp_path / "out", Segment).rows())
    with pytest.raises(ResumeMismatch, match=r"config\.length_ms 100, now 200"):
        run_stage(Cut(length_ms=200), [folder / "in"], out, seed=3)  # type: ignore[list-item, arg-type]


@pytest.mark.parametrize("harm", ["delete", "cut", "flip"])
def test_an_object_harmed_by_hand_is_refused_by_name(folder: Remote, harm: str) -> None:
    write(folder, recordings(6), parts=2)
    part = folder / "part-00001.parquet"
    content = part.read_bytes()
    if harm == "delete":
        part.unlink()
    else:
        part.write_bytes(content[:-9] if harm == "cut" else content[:40] + bytes([content[40] ^ 1]) + content[41:])
    with pytest.raises(DataError, match=r"s3://bucket/.*part-00001\.parquet"):
        list(tables.open_table(folder, Recording).rows())
    if harm != "flip":
        with pytest.raises(DataError, match=r"s3://bucket/.*part-00001\.parquet"):
            write(folder, recordings(6), parts=2)


def test_clearing_leaves_the_tables_below_and_the_claim(folder: Remote) -> None:
    write(folder, recordings(4), parts=1)
    write(folder / "below", recordings(4), parts=1)
    with tables.locked(folder):
        tables.clear(folder)
        assert [one.name for one in folder.iterdir() if not one.name.startswith("_lock-")] == ["below"]
        assert any(one.name.startswith("_lock-") for one in folder.iterdir())
    assert len(tables.open_table(folder / "below", Recording)) == 4


def test_google_cloud_storage_serves_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcp_storage_emulator", reason="the emulator is not installed: pip install 'undertone[dev]'")
    with gs_server("bucket") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
        paths._filesystem.cache_clear()
        table = location("gs://bucket/run/t")
        assert isinstance(table, Remote)
        write(table, recordings(20))
        assert list(tables.open_table(table, Recording).rows()) == recordings(20)
        with tables.locked(table), pytest.raises(DataError, match="being written by another run"):
            Claim(table, shared=True).take(tries=1)
        with pytest.raises(FileNotFoundError):
            (table / "no").read_bytes()
        paths.remove_tree(table)
        assert not table.exists()
    paths._filesystem.cache_clear()


# ---- claims --------------------------------------------------------------------------------------------------------------------


def test_a_bucket_folder_has_one_writer_or_several_that_share(folder: Remote) -> None:
    with tables.locked(folder), pytest.raises(DataError, match=rf"being written by another run \(process {os.getpid()} on"):
        Claim(folder, shared=True).take(tries=1)
    with tables.locked(folder, shared=True):
        Claim(folder, shared=True).take(tries=1)
        with pytest.raises(DataError, match="being written by another run"):
            Claim(folder, shared=False).take(tries=1)


def test_of_many_that_start_at_once_at_most_one_writes(folder: Remote) -> None:
    holding, most, held = set[int](), [0], [0]

    def contend(number: int) -> None:
        claim = Claim(folder, shared=False)
        try:
            claim.take(tries=6)
        except DataError:
            return
        holding.add(number)
        held[0] += 1
        most[0] = max(most[0], len(holding))
        time.sleep(0.05)
        holding.discard(number)
        claim.release()

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most[0] == 1
    assert held[0] >= 1


def test_the_claim_of_a_killed_run_ends_with_its_process(folder: Remote) -> None:
    code = (
        "import sys, time; from undertone import paths, tables\n"
        "with tables.locked(paths.location(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(DataError, match=rf"process {other.pid} on"):
        Claim(folder, shared=False).take(tries=1)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with tables.locked(folder):
        pass
    assert not folder.sizes()


def test_a_claim_from_another_machine_is_believed_while_it_is_renewed(folder: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CLAIM_LIFE_S", 3.0)
    monkeypatch.setattr(paths, "CLAIM_RENEWED_S", 0.5)
    first = Claim(folder, shared=False)
    first.take()
    monkeypatch.setattr(paths, "_machine", lambda: "another")
    time.sleep(4)
    with pytest.raises(DataError, match="last renewal"):
        Claim(folder, shared=False).take(tries=1)
    first._ended.set()  # it hangs, or its machine is gone
    time.sleep(5)
    second = Claim(folder, shared=False)
    second.take()
    second.release()


def test_a_run_whose_claim_was_broken_does_not_commit(folder: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CLAIM_RENEWED_S", 0.2)

    def lose() -> None:
        with tables.locked(folder):
            tables.begin(folder, MARK, redo_hint="")
            rows = recordings(2)
            tables.write_part(folder, 0, record=Recording, rows=rows, inputs=2, kept=2, losses=[])
            next(one for one in folder.iterdir() if paths.is_claim(one)).unlink()
            time.sleep(1)
            tables.finish(folder, MARK, record=Recording, parts=1)

    with pytest.raises(DataError, match="was taken over by another run"):
        lose()
    assert tables.finished(folder) is None


# ---- audio ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".mp3", ".ogg"])
def test_audio_in_a_bucket_is_heard_like_audio_on_a_disk(proxy: FaultyProxy, folder: Remote, tmp_path: Path, suffix: str) -> None:
    tone = Wave((0.3 * np.sin(np.arange(48_000) / 20)).astype(np.float32), 16_000)
    there, here = folder / f"a{suffix}", tmp_path / f"a{suffix}"
    audio.write(there, tone)
    audio.write(here, tone)
    assert there.read_bytes() == here.read_bytes()
    proxy.faults[:] = [Fault("truncated", where=rf"^GET .*a\{suffix}", times=1)]
    proxy.seen.clear()
    assert audio.probe(str(there)) == audio.probe(here)
    for bounds in ({}, {"start_ms": 500, "end_ms": 1_500}):
        assert np.array_equal(audio.load(str(there), **bounds).samples, audio.load(here, **bounds).samples)
    joined = np.concatenate([one.samples for one in audio.stream(there, chunk_ms=700)])
    assert np.array_equal(joined, audio.load(here).samples)
    assert len([one for one in proxy.seen if one.startswith("GET")]) == 2  # fetched once, and once again after the fault


def test_damaged_and_missing_audio_is_named_by_its_address(folder: Remote, tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", Wave(np.full(16_000, 0.1, np.float32), 16_000))
    (folder / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-500])
    with pytest.raises(AudioError, match=r"^s3://bucket/.*/cut\.wav: truncated"):
        audio.load(str(folder / "cut.wav"))
    with pytest.raises(AudioError, match=r"^s3://bucket/.*/none\.wav: no such object"):
        audio.probe(folder / "none.wav")


def test_local_copies_are_bounded(folder: Remote) -> None:
    for number in range(4):
        (folder / f"{number}.wav").write_bytes(bytes([number]) * 100)
        assert paths.local_copy(folder / f"{number}.wav").read_bytes() == bytes([number]) * 100
    kept = list(paths._copies_folder().iterdir())
    assert len(kept) == paths._COPIES_KEPT


def test_a_place_travels_to_other_processes() -> None:
    import pickle

    place = Remote("s3", "bucket/x")
    assert pickle.loads(pickle.dumps(place)) == place
    assert dataclasses.replace(place, path="bucket/y") == Remote("s3", "bucket/y")
