"""Where files are: a `pathlib.Path`, or an object of S3 or Google Cloud Storage that answers to the same few methods.

Local paths stay what they are. `location("s3://bucket/run")` is a `Remote`, whose methods have the names and meanings of pathlib's, so
that code which reads and writes folders serves both. The filesystems are pyarrow's: they come with a package that is needed anyhow,
speak to both stores, retry what a store refuses for a moment, and are safe between threads. fsspec would bring two packages that pin
its version in lockstep, and an event loop.

Credentials and the region come from where each vendor's own tools look (AWS_ACCESS_KEY_ID, ~/.aws, GOOGLE_APPLICATION_CREDENTIALS, ...);
another endpoint is named by AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and STORAGE_EMULATOR_HOST. Addresses carry no settings, because they
stand in tables.

An object is written by one PUT (above 10 MB by one multipart upload), which shows it whole or not at all. Uploads that a kill broke off
stay invisible and cost storage until the bucket's lifecycle rule for incomplete uploads removes them.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from undertone.errors import ConfigError, DataError, ServiceError

SCHEMES = ("s3", "gs")
_TRIES = 8
"""Requests that a store throttles or that break off are sent so often, with growing pauses (about half a minute in all)."""


class StoreError(ServiceError):
    """An object store does not answer, or refuses; the same command goes on once it does not."""


@dataclass(frozen=True)
class Stat:
    """Size of an object in bytes, under pathlib's name."""

    st_size: int


@dataclass(frozen=True, order=True)
class Remote:
    """A place in an object store; `path` is bucket and key. Folders are what keys have in common, and need not be made."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> Remote:
        return Remote(self.scheme, str(PurePosixPath(self.path) / name))

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        """The last part's suffix, dot included."""
        return PurePosixPath(self.path).suffix

    @property
    def parent(self) -> Remote:
        """What it lies in; of a bucket, itself."""
        up = PurePosixPath(self.path).parent
        return self if str(up) == "." else Remote(self.scheme, str(up))

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        return bool(self._info().type != fs.FileType.NotFound)

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return bool(self._info().type == fs.FileType.Directory)

    def stat(self) -> Stat:
        """The object's size.

        Raises:
            FileNotFoundError: It is not there.
        """
        info = self._info()
        if info.type != fs.FileType.File:
            raise FileNotFoundError(f"{self} is not there")
        return Stat(info.size)

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: It is not there.
            StoreError: The store does not give it.
        """
        with _told(f"read {self}"), _filesystem(self.scheme).open_input_file(self.path) as file:
            content: bytes = file.read()
            if len(content) != file.size():
                raise OSError(f"{len(content)} of {file.size()} bytes came")
            return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Put an object, which readers see whole or not at all.

        Raises:
            StoreError: The store does not take it.
        """
        with _told(f"write {self}"):
            stream = _filesystem(self.scheme).open_output_stream(self.path, compression=None)
            stream.write(content)
            stream.close()  # by hand: leaving a `with` on an error would commit what was written until then

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            with _told(f"remove {self}"):
                _filesystem(self.scheme).delete_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do: folders come with their objects."""

    def iterdir(self) -> Iterator[Remote]:
        """What lies directly in it, by name."""
        return iter(sorted(Remote(self.scheme, info.path.rstrip("/")) for info in self._below(recursive=False)))

    def glob(self, pattern: str) -> Iterator[Remote]:
        """What lies in it under names that match, by name; "*" does not match "/"."""
        parts = pattern.split("/")
        for one in sorted(info.path.rstrip("/") for info in self._below(recursive=len(parts) > 1)):
            names = one[len(self.path) + 1 :].split("/")
            if len(names) == len(parts) and all(map(fnmatchcase, names, parts)):
                yield Remote(self.scheme, one)

    def rglob(self, pattern: str) -> Iterator[Remote]:
        """What lies anywhere below it under a name that matches, by name."""
        for one in sorted(info.path.rstrip("/") for info in self._below(recursive=True)):
            if fnmatchcase(one.rsplit("/", 1)[-1], pattern):
                yield Remote(self.scheme, one)

    def sizes(self) -> dict[str, int]:
        """Names and sizes of the objects directly in it, by one request for each thousand."""
        return {info.base_name: info.size for info in self._below(recursive=False) if info.type == fs.FileType.File}

    def remove_tree(self) -> None:
        """Remove all that lies below it, a thousand objects by one request."""
        with suppress(FileNotFoundError), _told(f"remove {self}"):
            _filesystem(self.scheme).delete_dir(self.path)

    def _info(self) -> fs.FileInfo:
        with _told(f"look at {self}"):
            return _filesystem(self.scheme).get_file_info(self.path)

    def _below(self, *, recursive: bool) -> list[fs.FileInfo]:
        with _told(f"list {self}"):
            found = _filesystem(self.scheme).get_file_info(fs.FileSelector(self.path, recursive=recursive, allow_not_found=True))
        return [info for info in found if info.path.rstrip("/") != self.path]


Location: TypeAlias = Path | Remote


def location(text: str | Path | Remote) -> Location:
    """A local path, or the place that an address of an object store names.

    Raises:
        ConfigError: An address of another kind, or one without a bucket.
    """
    if not isinstance(text, str):
        return text
    if "://" not in text:
        return Path(text)
    at = urlsplit(text)
    if at.scheme not in SCHEMES or not at.netloc or at.query or at.fragment:
        raise ConfigError(f"{text}: expected a local path, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER (endpoints: AWS_ENDPOINT_URL)")
    return Remote(at.scheme, str(PurePosixPath(at.netloc + at.path)))


def remove_tree(folder: Location) -> None:
    """Remove a folder and all in it; nothing where it is not there."""
    if isinstance(folder, Remote):
        folder.remove_tree()
    elif folder.exists():
        shutil.rmtree(folder)


def open_parquet(file: Location) -> Any:
    """What pyarrow.parquet reads a file from, in ranges; to be closed by the caller.

    Raises:
        FileNotFoundError: It is not there.
        StoreError: The store does not give it.
    """
    if isinstance(file, Path):
        return pa.OSFile(str(file), "rb")
    with _told(f"read {file}"):
        return _filesystem(file.scheme).open_input_file(file.path)


@functools.cache
def _filesystem(scheme: str) -> fs.FileSystem:
    """The client of a store; one in each process."""
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options = {} if not endpoint else {"endpoint_override": urlsplit(endpoint).netloc, "scheme": urlsplit(endpoint).scheme}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return fs.S3FileSystem(
            # With the delay a small object is one PUT rather than a multipart upload of three requests.
            allow_delayed_open=True,
            background_writes=False,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
            connect_timeout=5,
            request_timeout=60,
            **({"region": region} if region else {}),
            **options,
        )
    from datetime import timedelta

    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    limit = timedelta(seconds=60)
    if emulator:
        at = urlsplit(emulator if "://" in emulator else f"http://{emulator}")
        return fs.GcsFileSystem(anonymous=True, scheme=at.scheme, endpoint_override=at.netloc, retry_time_limit=limit)
    return fs.GcsFileSystem(retry_time_limit=limit)


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Errors of a store as ours; a missing object stays FileNotFoundError, as on a disk."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot {doing}: {error}. Check the endpoint and the credentials, then run the same command again: finished parts are kept"
        ) from error


# ---- local copies, for libraries that open files --------------------------------------------------------------------------------

_COPIES: OrderedDict[Remote, Path] = OrderedDict()
_COPIES_KEPT = 2
_COPY_LOCK = threading.Lock()


def local_copy(remote: Remote) -> Path:
    """A copy of an object on this machine's disk; each process keeps the last two, so that cuts of one recording fetch it once.

    Raises:
        FileNotFoundError: It is not there.
        StoreError: The store does not give it.
        OSError: The disk is full.
    """
    with _COPY_LOCK:
        if remote in _COPIES:
            _COPIES.move_to_end(remote)
            return _COPIES[remote]
        file = _copies_folder() / f"{uuid4().hex}{remote.suffix}"
        with _told(f"read {remote}"):
            source = _filesystem(remote.scheme).open_input_file(remote.path)
        with source, file.open("wb") as copy:
            left = source.size()
            while left:
                with _told(f"read {remote}"):
                    block = source.read(min(left, 16 << 20))
                    if not block:
                        raise OSError(f"the last {left} bytes did not come")
                copy.write(block)
                left -= len(block)
        while len(_COPIES) >= _COPIES_KEPT:
            _COPIES.popitem(last=False)[1].unlink(missing_ok=True)
        _COPIES[remote] = file
        return file


def local_folder(folder: Location) -> Path:
    """A folder that libraries open by themselves (a checkpoint): itself, or a copy of it that lasts as long as this process."""
    if isinstance(folder, Path):
        return folder
    copy = _copies_folder() / f"{uuid4().hex}-{folder.name}"
    copy.mkdir()
    for name in folder.sizes():
        (copy / name).write_bytes((folder / name).read_bytes())
    return copy


@functools.cache
def _copies_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="undertone-copies-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


# ---- one writer for a folder of an object store ---------------------------------------------------------------------------------

CLAIM_LIFE_S = 300.0
CLAIM_RENEWED_S = 60.0
_CLAIM = "_lock-"


class Claim:
    """A writer's claim on a folder of an object store: an object of its own that is renewed, and believed for five minutes.

    Announce, then look: a writer puts its claim, then lists all claims, and holds the folder if no other forbids it; two that start at
    once both step back and try again after a random pause. Both stores list what was put before (S3 since December 2020), so of two
    writers at least one sees the other. A conditional PUT of one lock object (If-None-Match) would do for single writers; pyarrow has
    none, not every S3-compatible store has, it does not know shared writers, and it cannot be broken safely when it is stale without a
    second condition. Ages are differences of times that the store itself wrote, so that clocks of machines do not matter.

    A claim that was not renewed for its life, or whose process is known to be dead on this machine, is removed by whoever comes next.
    Its writer, should it wake up, sees that and ends before it commits.
    """

    def __init__(self, folder: Remote, *, shared: bool) -> None:
        self.folder, self.shared, self.is_lost = folder, shared, False
        self._file = folder / f"{_CLAIM}{'shared' if shared else 'alone'}-{uuid4().hex}"
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._renewed_s = time.monotonic()

    def take(self, *, tries: int = 4) -> None:
        """Take the folder, and keep it until `release`.

        Raises:
            DataError: Another process is writing into it.
        """
        for left in reversed(range(tries)):
            self._put()
            others = self._others()
            if not others:
                threading.Thread(target=self._renew, daemon=True).start()
                return
            self._file.unlink(missing_ok=True)
            if left:
                time.sleep(random.uniform(0.1, 0.5) * 2 ** (tries - left))
        raise DataError(
            f"{self.folder} is being written by another run ({_owner_of(others[0])}); wait for it, or choose a new --out. Of a run that was "
            f"killed elsewhere, the claim ends {CLAIM_LIFE_S:.0f} s after its last renewal"
        )

    def release(self) -> None:
        """Give the folder free."""
        with self._guard:  # after a renewal that is on its way, which would put the claim back
            self._ended.set()
            self._file.unlink(missing_ok=True)

    def _put(self) -> None:
        self._renewed_s = time.monotonic()
        owner = {
            "machine": _machine(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": time.strftime("%FT%TZ", time.gmtime()),
        }
        self._file.write_bytes(json.dumps(owner).encode())

    def _others(self) -> list[Remote]:
        """Claims that forbid this one; dead ones are removed."""
        found = {info.base_name: info for info in self.folder._below(recursive=False) if info.base_name.startswith(_CLAIM)}
        own = found.pop(self._file.name, None)
        if own is None:
            raise DataError(
                f"{self.folder}: the store does not list what was just put, so writers cannot be kept apart; use another store"
            )
        kept = []
        for name, info in sorted(found.items()):
            other = self.folder / name
            if (own.mtime - info.mtime).total_seconds() > CLAIM_LIFE_S or _is_dead(other):
                other.unlink(missing_ok=True)
            elif not (self.shared and name.startswith(f"{_CLAIM}shared-")):
                kept.append(other)
        return kept

    def _renew(self) -> None:
        while not self._ended.wait(CLAIM_RENEWED_S):
            with self._guard, suppress(StoreError):  # tried again until half its life is over
                # What is in flight must arrive before others may think this writer dead.
                if time.monotonic() - self._renewed_s > CLAIM_LIFE_S / 2 or not self._file.is_file():
                    self.is_lost = True
                if self.is_lost or self._ended.is_set():
                    return
                self._put()


def is_claim(file: Location) -> bool:
    """Whether a file is a writer's claim on the folder that it lies in."""
    return isinstance(file, Remote) and file.name.startswith(_CLAIM)


def _owner(claim: Remote) -> dict[str, Any]:
    with suppress(OSError, StoreError, ValueError):
        found = json.loads(claim.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _owner_of(claim: Remote) -> str:
    owner = _owner(claim)
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, last heard of at {owner.get('time', '?')}"


def _is_dead(claim: Remote) -> bool:
    owner = _owner(claim)
    if not owner or owner.get("machine") != _machine() or not _machine():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, ValueError):
        return False
    return False


@functools.cache
def _machine() -> str:
    """What says that a process number here means this machine and container; empty where that cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
