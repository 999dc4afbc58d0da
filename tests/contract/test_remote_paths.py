"""Tables, speech, exports and whole runs in an object store, against a package's S3 server on loopback, with faults between it and us."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("moto", reason="the S3 server of these tests is not installed: pip install 'undertone[dev]'")
pytest.importorskip("flask_cors", reason="the S3 server of these tests is not installed: pip install 'undertone[dev]'")

from tests.contract import test_exchange as exchange
from tests.contract.test_exchange import run as small_run  # noqa: F401 - a fixture
from tests.object_store import Fault, FaultyProxy, Harm, gs_server, make_bucket, s3_server
from tests.toy import Cut, recordings, source
from tests.unit import test_native_corpora as trees
from undertone import audio, paths, tables
from undertone.audio import AudioError, Wave
from undertone.corpora.folder import FolderCorpus
from undertone.corpora.native import (
    CremaDCorpus,
    EsdCorpus,
    IemocapCorpus,
    MeldCorpus,
    MspPodcastCorpus,
    NativeCorpus,
)
from undertone.corpora.plan import Planned
from undertone.corpora.stage import ReadCorpus
from undertone.errors import ConfigError, DataError, ResumeMismatch
from undertone.exchange import PackedSpec, export
from undertone.execute import StageReport, run_stage, write_rows
from undertone.model.ask import shows_metadata
from undertone.paths import Claim, Location, Remote, StoreError, location
from undertone.records import Clip, Recording, Segment
from undertone.study import load_study
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
    assert str(location("s3://bucket/take #2, 50%20?.wav")) == "s3://bucket/take #2, 50%20?.wav"
    assert [paths.is_address(one) for one in ("s3", "s3:/x", "gs://b/x", "http://b/x")] == [False, False, True, False]
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
        with paths.local_copy(folder / f"{number}.wav") as copy:
            assert copy.read_bytes() == bytes([number]) * 100
    kept = [one for one in paths._copies_folder().iterdir() if one.is_file()]
    assert len(kept) == paths._COPIES_KEPT


def test_a_copy_in_use_stays_and_one_that_was_written_over_is_forgotten(folder: Remote) -> None:
    for number in range(4):
        (folder / f"{number}.wav").write_bytes(bytes([number]) * 100)
    with paths.local_copy(folder / "0.wav") as first:
        for number in range(1, 4):
            with paths.local_copy(folder / f"{number}.wav"):
                pass
        assert first.read_bytes() == bytes(100)
    (folder / "3.wav").write_bytes(b"new")
    with paths.local_copy(folder / "3.wav") as copy:
        assert copy.read_bytes() == b"new"


def test_names_in_a_manifest_are_beside_it_or_where_they_say(tmp_path: Path) -> None:
    for at in (location("s3://bucket/speech"), tmp_path):
        assert paths.join(at, "deep/a.wav") == at / "deep" / "a.wav"
        assert paths.join(at, "gs://other/a.wav") == Remote("gs", "other/a.wav")
        assert paths.join(at, "/here/a.wav") == Path("/here/a.wav")
    assert paths.join(location("s3://bucket/speech/train"), "../a.wav") == location("s3://bucket/speech/a.wav")


def test_a_place_travels_to_other_processes() -> None:
    import pickle

    place = Remote("s3", "bucket/x")
    assert pickle.loads(pickle.dumps(place)) == place
    assert dataclasses.replace(place, path="bucket/y") == Remote("s3", "bucket/y")
    for path in (place, Path("here/x")):
        made = FolderCorpus(path=path)
        assert FolderCorpus.model_validate(made.model_dump()) == FolderCorpus.model_validate_json(made.model_dump_json()) == made
        assert made.model_dump(mode="json")["path"] == str(path)
    with pytest.raises(
        ConfigError, match=r"corpora\.0\.path: got 's3:///x', s3:///x: expected a local path, s3://BUCKET/FOLDER or gs"
    ):
        load_study("demo", ["corpora=[{kind: folder, path: 's3:///x'}]"])


# ---- speech in a bucket --------------------------------------------------------------------------------------------------------


def read(corpus: FolderCorpus | NativeCorpus, out: Location, **more: Any) -> StageReport:
    write_rows(out / "plan", corpus.plan(seed=0), record=Planned, fingerprint=MARK, smallest=1)
    return run_stage(ReadCorpus(), [out / "plan"], out / "read", **more)


def rows_of(out: Location) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"uri"}) for row in tables.open_table(out / "read", Recording).rows()]


MANIFESTS = {
    None: "",
    "manifest.csv": "file,speaker,text,emotion,split\na.wav,p1,so it is,happy,train\ndeep/b.flac,p2,no,sad,test\n",
    "manifest.jsonl": '{"file": "a.wav", "speaker": "p1"}\n{"file": "deep/c.wav", "start_s": 0.2, "end_s": 0.9}\n',
}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_speech_in_a_bucket_is_read_like_speech_on_a_disk(
    proxy: FaultyProxy, folder: Remote, tmp_path: Path, manifest: str | None
) -> None:
    trees.say(tmp_path / "speech", "a.wav", "deep/b.flac", "deep/c.wav", "deep/take #2, 50%20 ü?.wav")
    trees.write(tmp_path / "speech", manifest or "notes.txt", MANIFESTS[manifest])
    paths.put_folder(tmp_path / "speech", folder / "speech")
    here = FolderCorpus(path=tmp_path / "speech")
    there = FolderCorpus.model_validate({"path": f"{folder}/speech"})
    assert FolderCorpus.model_validate_json(there.model_dump_json()) == there
    assert there.title == "speech"
    proxy.seen.clear()
    planned = there.plan(seed=0)
    assert [(row.key, row.split) for row in planned] == [(row.key, row.split) for row in here.plan(seed=0)]
    assert all(row.stamp for row in planned)
    if manifest is None:  # folders are listed, files are not asked for one by one
        assert not [one for one in proxy.seen if "deep%2F" in one and (".wav" in one or ".flac" in one)]
    read(here, tmp_path / "run")
    assert read(there, folder / "run", workers=1 if manifest else 2).counts.failed == 0
    assert rows_of(folder / "run") == rows_of(tmp_path / "run")
    uris = [row.uri for row in tables.open_table(folder / "run" / "read", Recording).rows()]
    assert all(one.startswith(f"{folder}/speech/") for one in uris)
    audio.write(folder / "speech" / "a.wav", Wave(np.full(999, 0.1, np.float32), 16_000))
    assert [old.stamp != new.stamp for old, new in zip(planned, there.plan(seed=0), strict=True)] == [
        row.key == "a.wav" for row in planned
    ]


def test_a_local_manifest_may_name_objects(folder: Remote, tmp_path: Path) -> None:
    trees.say(tmp_path / "here", "a.wav")
    (folder / "a.wav").write_bytes((tmp_path / "here" / "a.wav").read_bytes()[:-2])
    (tmp_path / "here" / "manifest.csv").write_text(f"file,speaker\na.wav,p1\n{folder}/a.wav,p2\n")
    assert read(FolderCorpus(path=tmp_path / "here"), tmp_path / "run").counts.failed == 1  # an object cut by a sample
    audio.write(folder / "a.wav", audio.load(tmp_path / "here" / "a.wav", end_ms=500))
    assert read(FolderCorpus(path=tmp_path / "here"), tmp_path / "again").counts.kept == 2


def test_speech_that_is_not_there_is_said(folder: Remote, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus folder s3://bucket/.*/none does not exist"):
        FolderCorpus(path=folder / "none").plan(seed=0)
    (folder / "speech" / "notes.txt").write_bytes(b"x")
    with pytest.raises(DataError, match=r"corpus folder s3://bucket/.*/speech holds no audio"):
        FolderCorpus(path=folder / "speech").plan(seed=0)
    with pytest.raises(ConfigError, match=r"s3://bucket/.*/none: nothing lies there; expected a folder of speech"):
        undertone("label", f"{folder}/none", "--out", str(tmp_path))


def undertone(*args: str) -> str:
    """Run a command; its errors are raised as what they are."""
    ran = subprocess.run([sys.executable, "-m", "undertone.cli", *args], capture_output=True, text=True, check=False)
    if ran.returncode == 2:
        raise ConfigError(ran.stderr)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_bucket_folder_is_labelled_by_one_command(folder: Remote, tmp_path: Path) -> None:
    trees.say(tmp_path, "a.wav", "deep/b.flac")
    paths.put_folder(tmp_path, folder / "speech")
    out = folder / "run"
    said = undertone("label", f"{folder}/speech", "--out", str(out), "--until", "corpus", "--workers", "1")
    assert "corpus/read: 2 in = 2 kept" in said
    assert {row.uri for row in tables.open_table(out / "corpus", Recording).rows()} == {
        f"{folder}/speech/a.wav",
        f"{folder}/speech/deep/b.flac",
    }


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(paths, "_TRIES", 2)
    paths._filesystem.cache_clear()
    yield
    paths._filesystem.cache_clear()


@pytest.mark.usefixtures("impatient")
def test_what_happens_to_one_object_costs_one_recording(proxy: FaultyProxy, folder: Remote, tmp_path: Path) -> None:
    trees.say(tmp_path, "a.wav", "busy.wav", "cut.wav", "gone.wav", "refused.wav", "slow.wav", "z.wav")
    whole = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    paths.put_folder(tmp_path, folder / "speech")
    proxy.faults[:] = [
        Fault("404", where=r"^(HEAD|GET) .*gone\.wav", times=999),  # listed, and removed before it is read
        Fault("503", where=r"^GET .*refused\.wav", times=999),
        Fault("503", where=r"^GET .*busy\.wav", times=1),
        Fault("truncated", where=r"^GET .*/a\.wav", times=1),
        Fault("slow", where=r"^GET .*slow\.wav", times=1),
    ]
    report = read(FolderCorpus(path=folder / "speech"), tmp_path / "run", max_failed_share=1)
    assert (report.counts.kept, report.counts.failed) == (4, 3)
    told = {one.detail or "" for one in tables.open_table(tmp_path / "run" / "read", Recording).failed()}
    for name, cause in (
        ("cut", "truncated: its data end"),
        ("gone", "no such object, expected an audio file"),
        ("refused", r"cannot be read, though its store answers: "),
    ):
        assert [one for one in told if f"/{name}.wav" in one and cause in one], told


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_gone_ends_the_run_and_fails_no_recording(proxy: FaultyProxy, folder: Remote, tmp_path: Path) -> None:
    trees.say(tmp_path, *(f"{name}.wav" for name in "abcd"))
    paths.put_folder(tmp_path, folder / "speech")
    corpus = FolderCorpus(path=folder / "speech")
    write_rows(tmp_path / "plan", corpus.plan(seed=0), record=Planned, fingerprint=MARK, smallest=1)
    first = [Fault("503", where=r"c\.wav", times=999)]
    all_of_it = Fault("503", where=r"prefix=|/speech( |$|\?)", times=999)
    proxy.faults[:] = [*first, all_of_it]
    with pytest.raises(StoreError, match="Check the endpoint and the credentials"):
        run_stage(ReadCorpus(), [tmp_path / "plan"], tmp_path / "read")
    proxy.faults.clear()
    proxy.seen.clear()
    report = run_stage(ReadCorpus(), [tmp_path / "plan"], tmp_path / "read")
    assert (report.counts.kept, report.counts.failed, report.resumed) == (4, 0, 2)


READERS: dict[type[NativeCorpus], Callable[[Path], Path]] = {
    CremaDCorpus: trees.crema_d,
    EsdCorpus: trees.esd,
    IemocapCorpus: trees.iemocap,
    MeldCorpus: trees.meld,
    MspPodcastCorpus: trees.msp_podcast,
}


@pytest.mark.parametrize("reader", READERS, ids=lambda one: one.__name__)
def test_a_published_corpus_in_a_bucket_is_the_one_on_a_disk(folder: Remote, tmp_path: Path, reader: type[NativeCorpus]) -> None:
    root = READERS[reader](tmp_path / "tree")
    for empty in [one for one in root.iterdir() if one.is_dir() and not any(one.iterdir())]:
        empty.rmdir()  # a bucket has none
    paths.put_folder(root, folder)
    here, there = reader(path=root), reader(path=folder)
    assert there.survey() == here.survey()
    assert [row.key for row in there.plan(seed=0)] == [row.key for row in here.plan(seed=0)]
    assert all(row.stamp for row in there.plan(seed=0))
    assert read(there, tmp_path / "there", max_failed_share=1).counts == read(here, tmp_path / "here", max_failed_share=1).counts
    assert rows_of(tmp_path / "there") == rows_of(tmp_path / "here")


# ---- other tools' formats ------------------------------------------------------------------------------------------------------


def imported(format_: str, path: Location, out: Location) -> list[Recording]:
    return [
        PackedSpec.model_validate_json(one.spec).read(one, out)
        for one in exchange.CORPORA[format_](path=path, name="x").plan(seed=0)
    ]


@pytest.fixture(scope="module")
def bucket_run(proxy: FaultyProxy, small_run: Path) -> Remote:  # noqa: F811
    """A run whose tables, and the speech that they name, lie in a bucket."""
    run, to = small_run, Remote("s3", "bucket/run of an export")
    paths.put_folder(run / "speech", to / "speech")
    for name, record in (("corpus", Recording), ("clips", Clip)):
        rows = list(tables.open_table(run / name, record).rows())
        new = [row.model_copy(update={"uri": f"{to}/speech/{Path(row.uri).name}"}) for row in rows]
        write_rows(to / name, new, record=record, fingerprint=MARK, parts=2)
    return to


@pytest.mark.parametrize("format_", list(exchange.CORPORA))
def test_exports_go_to_a_bucket_and_come_back(
    proxy: FaultyProxy,
    folder: Remote,
    tmp_path: Path,
    small_run: Path,  # noqa: F811
    bucket_run: Remote,
    format_: Any,
) -> None:
    here = export(small_run / "clips", tmp_path / "out", format=format_)
    proxy.faults[:] = [
        Fault("503", where=rf"^PUT .*{folder.name}/out/"),
        Fault("truncated", where=r"^GET .*speech/c\.wav"),
    ]
    there = export(bucket_run / "clips", folder / "out", format=format_)
    assert (there.written, there.held, there.lost) == (here.written, here.held, here.lost)
    assert paths.files_below(folder / "out") == paths.files_below(tmp_path / "out")
    same = [
        one for one in paths.files_below(tmp_path / "out") if not one.startswith((".undertone", "cuts_"))
    ]  # these hold addresses
    for name in same:
        assert (folder / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    rows = imported(format_, folder / "out", tmp_path / "there") if format_ != "label-studio" else []
    assert [one.model_dump(exclude={"uri"}) for one in rows] == [
        one.model_dump(exclude={"uri"}) for one in (imported(format_, tmp_path / "out", tmp_path / "here") if rows else [])
    ]
    whole = export(bucket_run / "corpus", folder / "out", format=format_, overwrite=True)
    assert whole.written == 3
    back = imported(format_, folder / "out", folder / "read")
    known = {row.id for row in tables.open_table(small_run / "corpus", Recording).rows()}
    assert {row.id for row in back} <= known
    assert len(back) == (2 if format_ in ("rttm", "label-studio") else 3)
    with pytest.raises(DataError, match=r"exists already; choose another folder, or say overwrite"):
        export(bucket_run / "clips", folder / "out", format=format_)
    with pytest.raises(DataError, match=r"is not an export of undertone"):
        export(bucket_run / "clips", bucket_run, format=format_, overwrite=True)


@pytest.mark.parametrize("format_", ["nemo-manifest", "lhotse", "label-studio"])
def test_speech_in_a_bucket_may_stay_there(folder: Remote, tmp_path: Path, bucket_run: Remote, format_: Any) -> None:
    export(bucket_run / "clips", tmp_path / "out", format=format_, audio="reference")
    assert not list((tmp_path / "out").rglob("*.flac"))
    clips = tables.open_table(bucket_run / "clips", Clip).rows()
    assert {row.uri for row in imported(format_, tmp_path / "out", tmp_path / "read")} == {clip.uri for clip in clips}


@pytest.mark.usefixtures("impatient")
def test_an_export_that_broke_off_is_no_dataset(proxy: FaultyProxy, folder: Remote, small_run: Path) -> None:  # noqa: F811
    proxy.faults[:] = [Fault("503", where=r"^PUT .*out/data/test", times=999)]
    with pytest.raises(StoreError, match=r"cannot write s3://bucket/.*/out/data/test"):
        export(small_run / "clips", folder / "out", format="hf-dataset")
    proxy.faults.clear()
    with pytest.raises(DataError, match="was not written to its end"):
        exchange.CORPORA["hf-dataset"](path=folder / "out").plan(seed=0)
    assert export(small_run / "clips", folder / "out", format="hf-dataset").written == 4
    assert len(exchange.CORPORA["hf-dataset"](path=folder / "out").plan(seed=0)) == 4


# ---- whole runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_whole_study_in_a_bucket_is_the_study_on_a_disk(proxy: FaultyProxy, folder: Remote, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the demonstration corpus needs the extra demo")
    pytest.importorskip("torch", reason="training needs the extra train")
    from tests.golden import test_study as golden
    from undertone import recipe

    small = ("corpora.0.train=3", "corpora.0.test=2", "parts=2", "evaluate.max_new_tokens=4")
    short = ("train.steps=3", "train.reading.clips=6", "train.reading.steps=2", "train.align.steps=2")
    study = golden.study(*small, *short)
    golden.run(tmp_path / "run", study)
    proxy.faults[:] = [
        Fault("503", where=r"^PUT .*train/.*safetensors", times=3),
        Fault("lost_reply", where=r"^PUT .*train/S30/config", times=1),
        Fault("reset", where=r"^GET .*train/start/", times=2),
        Fault("truncated", where=r"^GET .*safetensors", times=2),
        Fault("truncated", where=r"^GET .*\.npy", times=2),
        Fault("500", where=r"^PUT .*report/", times=2),
        Fault("truncated", where=r"^GET .*\.flac", times=2),
    ]
    golden.run(folder, study, workers=2)  # type: ignore[arg-type]
    assert [fault.where for fault in proxy.faults if not fault.met] == []
    for name, record in golden.TABLES.items():
        assert tables.open_table(folder / name, record).digest == tables.open_table(tmp_path / "run" / name, record).digest, name
    for name in paths.files_below(tmp_path / "run" / "train" / "S32"):
        if not name.startswith("_"):
            assert (folder / "train" / "S32" / name).read_bytes() == (tmp_path / "run" / "train" / "S32" / name).read_bytes(), name
    assert (folder / "report" / "index.html").stat().st_size > 10_000
    assert not list(folder.rglob("_lock-*"))

    proxy.seen.clear()
    golden.run(folder, study)  # type: ignore[arg-type]
    assert not [one for one in proxy.seen if one.startswith("PUT") and ("part-" in one or "safetensors" in one)]

    local = Path(next(iter(tables.open_table(tmp_path / "run" / "corpus", Recording).rows())).uri)
    there = location(next(iter(tables.open_table(folder / "corpus", Recording).rows())).uri)
    assert shows_metadata(folder / "train" / "S32")
    for system in ("S30", "S32"):
        asked = [
            "".join(recipe.ask(checkpoint / "train" / system, file, "How does the speaker feel?"))
            for checkpoint, file in ((tmp_path / "run", local), (folder, there))
        ]
        assert asked[0] == asked[1]
