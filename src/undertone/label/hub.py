"""Where the weights of a labeller come from: a folder on this machine, or a pinned revision on a model hub.

Every adapter of somebody else's model loads inside `fetching`, so that a missing hub, a missing file and a wrong folder all end in one
error that names the model and shows how to give a local path. Messages name a labeller by the name that it signs with; the line of a
study that they show has the name that it is registered under.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from undertone.errors import ConfigError, DependencyError, ModelError, UndertoneError

_MOVING = {"head", "latest", "main", "master"}
"""Names that stand for whatever is newest."""


def needs(labeller: str, *packages: str, extra: str, instead: str | None = None) -> None:
    """Raise DependencyError unless the packages that a labeller runs on are installed; imports none of them.

    Args:
        labeller: The name that it signs with.
        packages: As they are imported; "a.b" for a part of a namespace that several packages share.
        extra: Of undertone, that installs them.
        instead: A labeller that does without.

    >>> needs("prosody", "numpy", extra="label")
    """
    if missing := [name for name in packages if not _installed(name)]:
        way_out = f"; or use {instead!r}" if instead else ""
        raise DependencyError(f'labeller {labeller!r} needs {", ".join(missing)}: pip install "undertone[{extra}]"{way_out}')


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # what it is a part of is absent
        return False


def is_local(model: str) -> bool:
    """Whether a model is given as a path rather than by a name on a hub; "./x", "/x" and whatever exists here are paths."""
    return Path(model).exists() or model.startswith((".", "/", "~"))


def revision_of(labeller: str, model: str, revision: str | None) -> str:
    """Which weights exactly: "sha256:..." over the files of a local folder, "name@revision" for a hub.

    Hidden files and folders are no part of the digest: `hf download`, git and file managers leave some behind.

    Raises:
        ConfigError: A hub's model without a revision or with the name of a branch (it would change under the study), or a path where
            nothing is.
    """
    if is_local(model):
        path = Path(model).expanduser()
        if not path.exists():
            raise ConfigError(
                f"labeller {labeller!r}: model is {model!r}, and nothing is there; expected a folder with a checkpoint"
            )
        stamp = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path))
        return f"sha256:{_digest(path, stamp)}"
    if revision is None:
        raise ConfigError(
            f"labeller {labeller!r}: model {model!r} is on a hub and needs a revision (a commit or tag), so that it cannot change "
            "under the study; or give a local folder"
        )
    if revision.lower() in _MOVING or revision.startswith("refs/"):
        raise ConfigError(
            f"labeller {labeller!r}: revision: got {revision!r}, which moves under the study; expected a commit or a tag of {model}"
        )
    return f"{model}@{revision}"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = (file for file in path.rglob("*") if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return sorted(file for file in found if file.is_file())


@functools.lru_cache(maxsize=64)
def _digest(path: Path, stamp: tuple[tuple[int, int], ...]) -> str:
    """Over names and contents; `stamp` makes a changed file another key."""
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


@contextmanager
def fetching(labeller: str, model: str, revision: str | None, *, use: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong while weights are found and loaded into one error that says what to do.

    Args:
        labeller: The name that it signs with.
        model: A folder, or a name on a hub.
        revision: Of a hub's model.
        use: The name that the labeller is registered under, where it signs with another.

    Raises:
        DependencyError: The model is not on this machine and cannot be fetched.
        ModelError: It is a local folder, and what is in there does not load.
    """
    try:
        yield
    except (UndertoneError, MemoryError):
        raise
    except Exception as error:  # the edge: loaders of other packages fail in any way
        said = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        if is_local(model):
            raise ModelError(
                f"labeller {labeller!r}: the checkpoint in {model} does not load ({said}); expected the files of the model as its "
                "hub has them (config.json, weights, ...)"
            ) from error
        raise DependencyError(
            f"labeller {labeller!r}: the weights of {model!r} (revision {revision}) are not on this machine and could not be fetched "
            f"({said}). Fetch them where there is a network (hf download {model} --revision {revision} --local-dir DIR) and give the "
            f"folder in the study: label: {{labellers: [{{use: {use or labeller}, config: {{model: DIR}}}}]}}"
        ) from error
