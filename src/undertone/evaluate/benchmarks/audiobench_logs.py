r"""AudioBench's own arithmetic on its logs, and ours on the same replies: what a log's header covers, what its rows give, and what differs.

>>> read_compat("Explanation: ...\n\nRating: 4"), read_compat("Rating: 4 (Explanation: mostly right.)")
((4.0, True), (0.0, False))
>>> read_strict("Rating: 4 (Explanation: mostly right.)", top=5), read_strict("Rating: 4", top=1)
(4, None)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from undertone.errors import DataError
from undertone.paths import Location

_RATING = re.compile(r"\brating\b\W{0,4}(-?\d+)(?![\d.]*\d)", re.IGNORECASE)
_BINARY, _GRADED = 1, 5


def read_compat(reply: str) -> tuple[float, bool]:
    """The grade as AudioBench reads it, and whether it could: the last word as a number, 0 where that fails."""
    try:
        return float(reply.split()[-1]), True
    except (ValueError, IndexError):
        return 0.0, False


def read_strict(reply: str, *, top: int) -> int | None:
    """The offered grade (0 to `top`) that a reply gives after "Rating"; None where it gives none, another, or several different ones."""
    found = {int(one) for one in _RATING.findall(reply)}
    return next(iter(found)) if len(found) == 1 and 0 <= min(found) <= top else None


class LogCheck(BaseModel):
    """One log, read again.

    Attributes:
        name: Of the file.
        judge: As the log names it.
        header: The header's score, over the whole set.
        success_rate: The header's.
        sizes: Numbers of rows up to 20,000 that header and success rate are possible for, the smallest few.
        kept: Rows in the log.
        same: Rows whose grade and success come out as the log has them when its replies are read by its own rule.
        top: The best grade: 5, or 1 where no kept row has more (a graded log of weak rows looks so as well).
        compat: Mean over the kept rows as AudioBench counts, 0..100.
        strict: Mean over those of them with an offered grade.
        failed: Rows that AudioBench counts 0 because it could not read them.
        recovered: Those of them that do give a grade.
        not_offered: Rows that AudioBench takes a grade from which is not offered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    judge: str
    header: float
    success_rate: float
    sizes: tuple[int, ...]
    kept: int
    same: int
    top: int
    compat: float
    strict: float | None
    failed: int
    recovered: int
    not_offered: int


def check_log(file: Location, *, top: int | None = None) -> LogCheck:
    """Read a log's replies again.

    Args:
        file: A `..._judge_score.json`.
        top: The best grade of its rubric; None to take it from the rows.

    Raises:
        DataError: It is not such a log.
    """
    judge, header, rows = _opened(file)
    read = [read_compat(str(row["judge_response"] or "")) for row in rows]
    same = sum((score, ok) == (row["rate_score"], bool(row["success"])) for (score, ok), row in zip(read, rows, strict=True))
    best = top or (_GRADED if any(score > _BINARY for score, _ in read) else _BINARY)
    ours = [read_strict(str(row["judge_response"] or ""), top=best) for row in rows]
    given = [one for one in ours if one is not None]
    return LogCheck(
        name=f"{file.parent.name}/{file.name}",
        judge=judge,
        header=header["judge_score"],
        success_rate=header["success_rate"],
        sizes=_sizes(header["judge_score"], header["success_rate"], points=100 / best),
        kept=len(rows),
        same=same,
        top=best,
        compat=sum(score for score, _ in read) / len(read) * 100 / best,
        strict=sum(given) / len(given) * 100 / best if given else None,
        failed=sum(not ok for _, ok in read),
        recovered=sum(not ok and one is not None for (_, ok), one in zip(read, ours, strict=True)),
        not_offered=sum(ok and not (score.is_integer() and 0 <= score <= best) for score, ok in read),
    )


def plain_text(checks: Iterable[LogCheck]) -> str:
    """Several logs for a terminal."""
    lines = []
    for one in checks:
        strict = "none" if one.strict is None else f"{one.strict:.1f}"
        lines.append(
            f"{one.name}: header {one.header:.2f} over {' or '.join(map(str, one.sizes)) or 'an unknown number of'} rows; {one.kept} kept, "
            f"{one.same} read as the log has them; these give {one.compat:.1f} its way, {strict} ours; {one.failed} unread there, "
            f"{one.recovered} of them give a grade, {one.not_offered} grades not offered"
        )
    return "\n".join(lines) + "\n"


def _opened(file: Location) -> tuple[str, dict[str, float], list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows = content["details"]
        judge = next(name for name in content if name != "details")
        header = {name: float(content[judge][name]) for name in ("judge_score", "success_rate")}
        for row in rows:
            row["judge_response"], row["rate_score"], row["success"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise DataError(
            f"{file} is no AudioBench log with a judge's replies ({type(error).__name__}: {error}); expected *_judge_score.json with a header "
            "(judge_score, success_rate) and details"
        ) from error
    if not rows:
        raise DataError(f"{file} keeps no rows; expected details with judge_response, rate_score and success")
    return judge, header, rows


def _sizes(score: float, success_rate: float, *, points: float, most: int = 20_000, few: int = 3) -> tuple[int, ...]:
    """Numbers of rows for which the sum of grades and the number of successes are whole."""
    found: list[int] = []
    for n in range(1, most + 1):
        grades, read = score / points * n, success_rate * n
        if abs(grades - round(grades)) < 1e-6 and abs(read - round(read)) < 1e-6 and math.isfinite(grades):
            found.append(n)
            if len(found) == few:
                break
    return tuple(found)
