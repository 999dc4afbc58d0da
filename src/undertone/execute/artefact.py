"""Folders that are no tables (checkpoints, features, reports) under the same law: presence means complete, and other work is refused."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from undertone import tables
from undertone.errors import DataError
from undertone.paths import Location, Remote, files_below, put_folder
from undertone.tables import Fingerprint


class Artefact(BaseModel):
    """The content of an artefact's `_done.json`; `digest` is over its files, those whose name begins with "_" left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: Fingerprint
    digest: str


def build_artefact(
    out: Location, fingerprint: Fingerprint, build: Callable[[Path], None], *, redo: bool = False
) -> tuple[Artefact, bool]:
    """Let `build` fill a folder, once; a folder that was begun and not finished is begun again.

    Args:
        out: The folder.
        fingerprint: What it is a function of.
        build: Writes the files into the folder it is given.
        redo: Build again although it is there.

    Returns:
        The artefact, and whether it was there already.

    Raises:
        ResumeMismatch: The folder holds the work of another fingerprint.
    """
    with tables.locked(out):
        if redo:
            tables.clear(out)
        tables.begin(out, fingerprint, redo_hint=f"start it over with --redo {out.name}")
        marker = out / "_done.json"
        if marker.exists():
            return Artefact.model_validate_json(marker.read_text()), True
        digest = _build_there(out, build) if isinstance(out, Remote) else _build_here(out, build)
        done = Artefact(fingerprint=fingerprint, digest=digest)
        tables.write_bytes(marker, done.model_dump_json(indent=1).encode())
        return done, False


def _build_here(out: Path, build: Callable[[Path], None]) -> str:
    """Build beside the place and move the files there; returns their digest."""
    draft = out / "_draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    build(draft)
    digest = files_digest(draft)
    for file in sorted(draft.iterdir()):
        target = out / file.name
        if target.is_dir():
            shutil.rmtree(target)
        file.replace(target)
    draft.rmdir()
    return digest


def _build_there(out: Remote, build: Callable[[Path], None]) -> str:
    """Build on this machine's disk, then put the files; a run that is killed before begins again. Returns their digest."""
    with tempfile.TemporaryDirectory(prefix="undertone-") as name:
        build(Path(name))
        put_folder(Path(name), out)
        return files_digest(Path(name))


def files_digest(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's files; names that begin with "_" are the machinery's and left out."""
    digest = hashlib.sha256()
    for name in files_below(folder):
        if not any(part.startswith("_") for part in name.split("/")):
            with (folder / name).open("rb") as file:
                digest.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def artefact_digest(folder: Location, *, made_by: str) -> str:
    """The digest of a finished artefact.

    Args:
        folder: The artefact.
        made_by: The command that makes it, for the message.

    Raises:
        DataError: It is not finished.
    """
    marker = folder / "_done.json"
    if not marker.exists():
        raise DataError(f"{folder} is not there or not finished; make it with: {made_by}")
    return Artefact.model_validate_json(marker.read_text()).digest
