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
import posixpath
import random
import re
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs
from pydantic import PlainSerializer, PlainValidator

from undertone.errors import ConfigError, DataError, ServiceError

SCHEMES = ("s3", "gs")
_OPTIONS = re.compile(r"\?\w+=")
_TRIES = 8
"""Requests that a store throttles or that break off are sent so often, with growing pauses (about half a minute in all)."""


class StoreError(ServiceError):
    """An object store does not answer, or refuses; the same command goes on once it does not."""


class ObjectError(DataError):
    """One object cannot be had although its store answers: its own fault, which no later try mends."""


@dataclass(frozen=True)
class Stat:
    """Size of an object in bytes and when it was written, under pathlib's names."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, order=True)
class Remote:
    """A place in an object store; `path` is bucket and key. Folders are what keys have in common, and need not be made."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str | PurePosixPath) -> Remote:
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

    def resolve(self) -> Remote:
        """Itself: addresses are absolute."""
        return self

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
        """The object's size and time.

        Raises:
            FileNotFoundError: It is not there.
        """
        info = self._info()
        if info.type != fs.FileType.File:
            raise FileNotFoundError(f"{self} is not there")
        return Stat(info.size, info.mtime_ns or 0)

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
        _forget(self)

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
        return {name: one.st_size for name, one in self.stats().items()}

    def stats(self) -> dict[str, Stat]:
        """Names, sizes and times of the objects directly in it, by one request for each thousand."""
        found = (info for info in self._below(recursive=False) if info.type == fs.FileType.File)
        return {info.base_name: Stat(info.size, info.mtime_ns or 0) for info in found}

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


def _given(value: object) -> Path | Remote:
    """A setting's value as a place; pydantic wants ValueError."""
    if isinstance(value, str):
        try:
            return location(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
    if not isinstance(value, Path | Remote):
        raise ValueError("expected a local path, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER")
    return value


Location: TypeAlias = Annotated[Path | Remote, PlainValidator(_given), PlainSerializer(str, return_type=str)]
"""A place, as a type and as a field of settings and tables, where it is written as its address."""


def location(text: str | Path | Remote) -> Location:
    """A local path, or the place that an address of an object store names.

    Raises:
        ConfigError: An address of another kind, or one without a bucket.
    """
    if not isinstance(text, str):
        return text
    if "://" not in text:
        return Path(text)
    scheme, _, path = text.partition("://")  # not urlsplit: "#" and "%" are letters of a key
    if scheme not in SCHEMES or path.startswith("/") or not path or _OPTIONS.search(path):
        raise ConfigError(f"{text}: expected a local path, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER (endpoints: AWS_ENDPOINT_URL)")
    return Remote(scheme, str(PurePosixPath(path)))


def is_address(name: str) -> bool:
    """Whether a name is the address of an object, rather than a path."""
    return name.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def join(folder: Location, name: str) -> Location:
    """The file that a manifest in a folder names: below the folder, or where an absolute path or an address says."""
    if is_address(name):
        return location(name)
    if isinstance(folder, Path) or name.startswith("/"):
        return (folder if isinstance(folder, Path) else Path()) / name
    normal = posixpath.normpath(f"{folder.path}/{name}")
    return Remote(folder.scheme, normal) if normal.startswith(f"{folder.path.partition('/')[0]}/") else folder / name


def below(file: Location, folder: Location) -> PurePosixPath | None:
    """A file's path below a folder, with slashes; None where it does not lie there."""
    if isinstance(file, Path) and isinstance(folder, Path):
        return PurePosixPath(file.relative_to(folder).as_posix()) if file.is_relative_to(folder) else None
    inside = str(file).startswith(f"{folder}/") and isinstance(folder, Remote)
    return PurePosixPath(str(file)[len(str(folder)) + 1 :]) if inside else None


def files_below(folder: Location, *, follow_links: bool = False) -> list[str]:
    """The files anywhere below a folder, as paths below it with slashes, by name.

    Args:
        folder: Where to look; a file gives nothing.
        follow_links: Whether links to folders are gone into.
    """
    if isinstance(folder, Remote):
        found = [info.path for info in folder._below(recursive=True) if info.type == fs.FileType.File]
        return sorted(one[len(folder.path) + 1 :] for one in found)
    made = []
    for where, _, names in os.walk(folder, followlinks=follow_links):
        inside = Path(where).relative_to(folder).as_posix()
        made += [name if inside == "." else f"{inside}/{name}" for name in names]
    return sorted(made)


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


def read_range(file: Location, offset: int, size: int) -> bytes:
    """Some bytes of a file, fewer where it ends before.

    Raises:
        FileNotFoundError: It is not there.
        StoreError: The store does not give it.
    """
    with open_parquet(file) as opened, _told(f"read {file}"):
        content: bytes = opened.read_at(max(0, min(size, opened.size() - offset)), offset)
        return content


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


# ---- between an object store and this machine's disk, for libraries that open files ---------------------------------------------

_COPIES: OrderedDict[Remote, Path] = OrderedDict()
_COPIES_KEPT = 2
_COPIES_IN_USE: Counter[Remote] = Counter()
_COPY_LOCK = threading.Lock()
_BLOCK = 16 << 20
_AT_ONCE = 8
"""Objects that are fetched or put at a time where there are many: small ones are waited for rather than carried."""


@contextmanager
def local_copy(file: Location) -> Iterator[Path]:
    """A file on this machine's disk: itself, or a copy of an object.

    Each process keeps the last two copies, so that cuts of one recording fetch it once; one that is in use stays.

    Raises:
        FileNotFoundError: It is not there.
        ObjectError: It cannot be had, while the store answers.
        StoreError: The store does not answer.
        OSError: The disk is full.
    """
    if isinstance(file, Path):
        yield file
        return
    with _COPY_LOCK:
        if file not in _COPIES:
            copy = _copies_folder() / f"{uuid4().hex}{file.suffix}"
            _fetch_alone(file, copy)
            _COPIES[file] = copy
        _COPIES.move_to_end(file)
        copy = _COPIES[file]
        _COPIES_IN_USE[file] += 1
        for old in [one for one in _COPIES if not _COPIES_IN_USE[one]][: max(0, len(_COPIES) - _COPIES_KEPT)]:
            _COPIES.pop(old).unlink(missing_ok=True)
    try:
        yield copy
    finally:
        with _COPY_LOCK:
            _COPIES_IN_USE.subtract([file])
            if not _COPIES_IN_USE[file]:
                del _COPIES_IN_USE[file]


def _fetch_alone(file: Remote, copy: Path) -> None:
    """Fetch an object; tell the fault of one object from that of a store, which would fail every recording of a run."""
    try:
        fetch(file, copy)
    except StoreError:
        file.parent.exists()  # raises where the store is gone
        try:
            fetch(file, copy)  # it may just have come back
        except StoreError as error:
            raise ObjectError(f"{file} cannot be read, though its store answers: {error.__cause__}") from error


def fetch(file: Remote, copy: Path) -> None:
    """Copy an object to this machine's disk, whole or not at all, in bounded memory.

    Raises:
        FileNotFoundError: It is not there.
        StoreError: The store does not give it.
        OSError: The disk is full.
    """
    with _told(f"read {file}"):
        source = _filesystem(file.scheme).open_input_file(file.path)
    try:
        with source, copy.open("wb") as target:
            left = source.size()
            while left:
                with _told(f"read {file}"):
                    block = source.read(min(left, _BLOCK))
                    if not block:
                        raise OSError(f"the last {left} bytes did not come")
                target.write(block)
                left -= len(block)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise


def put(file: Path, to: Remote) -> None:
    """Copy a file of this machine into an object store, whole or not at all, in bounded memory.

    Raises:
        StoreError: The store does not take it.
    """
    with file.open("rb") as source, _told(f"write {to}"):
        stream = _filesystem(to.scheme).open_output_stream(to.path, compression=None)
        while block := source.read(_BLOCK):
            stream.write(block)
        stream.close()  # by hand, as in write_bytes
    _forget(to)


def put_folder(folder: Path, to: Remote) -> None:
    """Copy all files below a folder into an object store; what says that they are complete is for the caller to put last.

    Raises:
        StoreError: The store does not take one.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: put(folder / name, to / name), files_below(folder)))


def local_folder(folder: Location) -> Path:
    """A folder that libraries open by themselves (a checkpoint): itself, or a copy of the files in it under the same name.

    The copy lasts as long as this process, and is taken again where the folder has changed.

    Raises:
        FileNotFoundError: A file vanished meanwhile.
        StoreError: The store does not give one.
        OSError: The disk is full.
    """
    if isinstance(folder, Path):
        return folder
    return _folder_copy(folder, tuple((name, one) for name, one in sorted(folder.stats().items()) if not name.startswith(_CLAIM)))


@functools.lru_cache(maxsize=16)
def _folder_copy(folder: Remote, stats: tuple[tuple[str, Stat], ...]) -> Path:
    copy = _copies_folder() / uuid4().hex / folder.name
    copy.mkdir(parents=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: fetch(folder / name, copy / name), [name for name, _ in stats]))
    return copy


def _forget(file: Remote) -> None:
    """An object that this process writes anew is no longer what was fetched of it."""
    with _COPY_LOCK:
        if not _COPIES_IN_USE[file] and file in _COPIES:
            _COPIES.pop(file).unlink(missing_ok=True)


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
