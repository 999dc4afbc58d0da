"""inspect_ai: logs as .eval (a zip of header.json and samples/ID_epoch_N.json) or as one .json.

    {"id": 1, "epoch": 1, "input": "What is the average temperature ...?", "target": "About 10 F",
     "output": {"model": "gpt-4o-mini", "choices": [{"message": {"role": "assistant", "content": "Around 10 F."}}]},
     "scores": {"model_graded_qa": {"value": "C", "answer": "Around 10 F.", "explanation": "... GRADE: C", "metadata": {"grading": []}}},
     "role_usage": {"grader": {"total_tokens": 431}}, "metadata": {}}

All rows are there, each scorer is a judge. C is 100, P 50, I 0; N (no answer, or declined) counts as 0 in accuracy and is
unscored here. NaN is inspect's own mark for a grade that was not found; logs of older versions wrote I with "Grade not found in
model output" for it. Numbers are taken as shares, grades to 5, to 10 or to 100 by the largest that the scorer gave. A sample that
ended in an error has no scores.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import pyarrow as pa

from undertone.errors import DataError
from undertone.evaluate.validate.readers.files import json_object, text_of
from undertone.evaluate.validate.rows import Judged, JudgedTable, Reason
from undertone.paths import Location

NAME = "inspect"
LIKE = "TIME_TASK_ID.eval, or .json"

_LETTERS = {"C": 100.0, "P": 50.0, "I": 0.0}
_NOT_FOUND = "Grade not found in model output"
_ZSTD = 93


def mine(file: Location) -> bool:
    """Whether a file is such a log, by its ending or its keys."""
    if file.suffix == ".eval":
        return True
    if file.suffix != ".json":
        return False
    try:
        return {"eval", "samples", "status"} <= json_object(file).keys()
    except DataError:
        return False


def read(files: Sequence[Location], source: str) -> JudgedTable:
    """All scored samples.

    Raises:
        DataError: A file is damaged, or no sample has a score.
    """
    rows: list[Judged] = []
    notes = ["inspect's logs name no recordings: each sample counts as one of its own."]
    for file in files:
        header, samples = _opened(file)
        found = list(_rows(header["eval"], samples, str(file)))
        rows += found
        errors = sum(bool(sample.get("error")) for sample in samples)
        if errors:
            notes.append(f"{file.name}: {errors} samples ended in an error and have no scores.")
    if not rows:
        raise DataError(f"{source}: no sample has a score; inspect score LOG adds them")
    return JudgedTable(source=source, format=NAME, rows=rows, notes=notes)


def _opened(file: Location) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if file.suffix == ".json":
        whole = json_object(file)
        return whole, list(whole["samples"])
    content = file.read_bytes()
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            header = json.loads(_member(archive, content, archive.getinfo("header.json")))
            names = sorted(one.filename for one in archive.infolist() if one.filename.startswith("samples/"))
            return header, [json.loads(_member(archive, content, archive.getinfo(name))) for name in names]
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError, pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: no whole log of inspect ({error}); is the evaluation still running?") from None


def _member(archive: zipfile.ZipFile, content: bytes, member: zipfile.ZipInfo) -> bytes:
    """A file of the zip; Zstandard, which inspect writes since 2025 and Python reads from 3.14 on, by way of Arrow."""
    if member.compress_type != _ZSTD:
        return archive.read(member)
    name, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
    start = member.header_offset + 30 + name + extra
    with pa.input_stream(pa.BufferReader(content[start : start + member.compress_size]), compression="zstd") as stream:
        return bytes(stream.read())


def _rows(about: dict[str, Any], samples: Sequence[dict[str, Any]], where: str) -> Iterator[Judged]:
    largest: dict[str, float] = {}
    for sample in samples:
        for scorer, score in (sample.get("scores") or {}).items():
            if isinstance(score.get("value"), (int, float)) and math.isfinite(score["value"]):
                largest[scorer] = max(largest.get(scorer, 0.0), float(score["value"]))
    points = {scorer: next((100 / top for top in (1, 5, 10, 100) if most <= top), math.nan) for scorer, most in largest.items()}
    grader = ((about.get("model_roles") or {}).get("grader") or {}).get("model")
    for sample in samples:
        scores = sample.get("scores") or {}
        for scorer, score in scores.items():
            value = score.get("value")
            if isinstance(value, (dict, list)):
                continue  # several values in one score: none of them is the verdict
            scored, reason, counted = _value(value, str(score.get("explanation") or ""), points.get(scorer, 1.0))
            if scored is not None and not 0 <= scored <= 100:
                raise DataError(
                    f"{where}: sample {sample.get('id')}: {scorer}: got {value!r}, expected a letter or a number from 0 to 100"
                )
            epoch = int(sample.get("epoch", 1))
            used = (sample.get("role_usage") or {}).get("grader") or {}
            yield Judged(
                dataset=str(about.get("task", "task")),
                item=str(sample["id"]) if epoch == 1 else f"{sample['id']}#{epoch}",
                recording=str(sample["id"]),
                system=str(about.get("model", "model")),
                judge=f"{scorer}:{grader}" if grader and scorer.startswith("model_graded") else scorer,
                question=_asked(sample.get("input")),
                reference=text_of(sample.get("target")),
                answer=str(score.get("answer") or _completion(sample)),
                score=scored,
                unscored=reason,
                counted_as=counted,
                tokens=used.get("total_tokens") if len(scores) == 1 else None,
                raw=score.get("explanation"),
            )


def _value(value: Any, explanation: str, points: float) -> tuple[float | None, Reason | None, float | None]:
    """Score, reason, and what inspect counts for an unscored row."""
    if explanation.startswith(_NOT_FOUND):
        return None, "unreadable", 0.0 if value == "I" else None
    if value is True or value is False:
        return 100.0 * value, None, None
    if isinstance(value, (int, float)):
        return (None, "unreadable", None) if not math.isfinite(value) else (float(value) * points, None, None)
    if value in _LETTERS:
        return _LETTERS[value], None, None
    return (None, "refused", 0.0) if value == "N" else (None, "unreadable", None)


def _asked(given: Any) -> str:
    """The question of a sample: a text, or the last message of a user."""
    if isinstance(given, list):
        return next((_said(one) for one in reversed(given) if one.get("role") == "user"), "")
    return str(given or "")


def _completion(sample: dict[str, Any]) -> str:
    choices = (sample.get("output") or {}).get("choices") or [{}]
    return _said(choices[0].get("message") or {})


def _said(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    return str(content or "")
