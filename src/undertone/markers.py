"""What a folder of the path says of itself: the fingerprint that made it, its parts, what became of its rows. One JSON file each, sealed.

`tables` and `execute.artefact` decide when such a marker is written and what follows from it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from undertone.errors import DataError, ResumeMismatch
from undertone.parquet import FileSeal
from undertone.paths import Location

M = TypeVar("M", bound=BaseModel)


class Fingerprint(BaseModel):
    """What a table is a function of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: str
    seed: int
    config: dict[str, Any]
    inputs: dict[str, str]
    limit: int | None = None

    @property
    def digest(self) -> str:
        """16 hex digits of sha256 over all of it: what a part says of what made it."""
        return hashlib.sha256(json.dumps(json.loads(self.model_dump_json()), sort_keys=True).encode()).hexdigest()[:16]

    def flat(self) -> dict[str, str]:
        """Dotted keys to printable values, for the comparison of two fingerprints."""
        found: dict[str, str] = {}

        def walk(prefix: str, value: Any) -> None:
            if isinstance(value, dict) and value:
                for key, one in value.items():
                    walk(f"{prefix}.{key}" if prefix else str(key), one)
            else:
                found[prefix] = json.dumps(value, sort_keys=True)

        walk("", json.loads(self.model_dump_json()))
        return found


class _Sealed(BaseModel):
    """A marker that carries a digest of itself, so that one changed by hand or by a disk does not pass for another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seal: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        content = json.loads(self.model_dump_json(exclude={"seal", *_NOT_SEALED}))
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        if self.seal and self.seal != digest:
            raise ValueError("its content is not what was written")
        object.__setattr__(self, "seal", digest)
        return self


_NOT_SEALED = ("bytes", "footer")


class Source(BaseModel):
    """The part of another table whose rows a part borrows.

    Attributes:
        folder: The table, seen from the folder of the one that borrows; an address where the two are in different stores.
        file: The part.
        digest: What its content was.
        inside: The column whose lists the rows are elements of, such as a clip's segments; None where they are the rows themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    file: str
    digest: str
    inside: str | None = None


class PartInfo(_Sealed):
    """What one part holds: input rows and their fates, output rows, content digest; size and footer as in `FileSeal`.

    `made_by` is the digest of the fingerprint that it was written under, `source` where its rows are if it holds their numbers only.
    """

    file: str
    inputs: int
    kept: int
    dropped: int
    failed: int
    rows: int
    digest: str
    bytes: int = 0
    footer: str = ""
    made_by: str = ""
    source: Source | None = None

    @model_serializer(mode="wrap")
    def _without_what_it_lacks(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Tables that were written before there were these fields are sealed without them."""
        return {name: value for name, value in dump(self).items() if value or name not in ("made_by", "source")}


class Counts(BaseModel):
    """Fates of a table's input rows; `kept + dropped + failed == inputs` always. `rows` counts output rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int
    kept: int
    dropped: int
    failed: int
    rows: int
    reasons: dict[str, int] = Field(default_factory=dict)


class Done(_Sealed):
    """The content of `_done.json`; `losses` are the seals of dropped.parquet and failed.parquet."""

    record: str
    fingerprint: Fingerprint
    counts: Counts
    digest: str
    parts: tuple[PartInfo, ...]
    losses: dict[str, FileSeal] = Field(default_factory=dict)


class Begun(BaseModel):
    """What every `_done.json` tells, that of an artefact too."""

    fingerprint: Fingerprint


def read_marker(marker: Location, model: type[M]) -> M | None:
    """A marker's content, None where it is not there."""
    try:
        return model.model_validate_json(marker.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{marker} is damaged: {error}. Delete {marker.parent} and run the same command again") from error


def refuse_other(folder: Location, before: Fingerprint, now: Fingerprint, *, redo_hint: str) -> None:
    """Raise ResumeMismatch, naming the keys, unless the two fingerprints are equal."""
    old, new = before.flat(), now.flat()
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not differ:
        return
    shown = "; ".join(f"{key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in differ[:3])
    more = f" and {len(differ) - 3} more keys" if len(differ) > 3 else ""
    raise ResumeMismatch(f"{folder} was written with {shown}{more}. Choose a new --out, or {redo_hint}")


def _short(value: str | None) -> str:
    return "(absent)" if value is None else value if len(value) <= 60 else value[:28] + "..." + value[-28:]
