"""Who spoke when, scored: the diarisation error rate, the number of speakers, and moments at which the speaker changes.

The error rate is that of the NIST Rich Transcription evaluations ("The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation
Plan", section on speaker diarisation): wrong speaker time over reference speaker time, where overlapped speech counts once for each of
its speakers, under the one-to-one mapping of speakers that is best for the system. Its optional collar leaves out the time around
every boundary of the reference. One difference: the mapping is chosen on the time that is scored, so that the rate is the least
possible; md-eval chooses it before it leaves out collars.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import linear_sum_assignment

from undertone.errors import DataError

COLLAR_MS = 250
"""The collar of the NIST evaluations, on each side of a boundary."""


class Turn(NamedTuple):
    """Milliseconds in which one speaker talks; a speaker's own turns may touch or overlap."""

    start_ms: int
    end_ms: int
    speaker: str


class DiarisationError(BaseModel):
    """Wrong and reference time of one or more recordings, in milliseconds of speaker time.

    `speakers` and `found` count the speakers of the reference and of the system; summed over recordings where several are scored, and
    then `count_error` is summed too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    speech_ms: int
    missed_ms: int
    false_alarm_ms: int
    confusion_ms: int
    speakers: int
    found: int
    count_error: int
    recordings: int = 1

    @property
    def rate(self) -> float | None:
        """(missed + false alarm + confusion) / reference speech; may be above 1; None where the reference holds no speech."""
        wrong = self.missed_ms + self.false_alarm_ms + self.confusion_ms
        return wrong / self.speech_ms if self.speech_ms else None


class Matches(BaseModel):
    """How well found spans and true moments cover each other; a share of nothing is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    moments: int
    moments_found: int
    spans: int
    spans_right: int

    @property
    def precision(self) -> float | None:
        """Share of the spans that hold a moment."""
        return self.spans_right / self.spans if self.spans else None

    @property
    def recall(self) -> float | None:
        """Share of the moments that lie in a span."""
        return self.moments_found / self.moments if self.moments else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two; None where there is neither a moment nor a span."""
        if not self.moments and not self.spans:
            return None
        precision, recall = self.precision or 0.0, self.recall or 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def read_rttm(path: Path) -> dict[str, tuple[Turn, ...]]:
    """The turns of each recording in a file of the NIST RTTM format, in time order; lines of other types than SPEAKER are passed over.

    Raises:
        DataError: A SPEAKER line without a start, a duration or a name; the message names the line.
    """
    found: dict[str, list[Turn]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as RTTM ({error}); expected text lines 'SPEAKER file channel start duration ...'"
        ) from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start_s, length_s, speaker = float(fields[3]), float(fields[4]), fields[7]
            turn = Turn(round(start_s * 1000), round((start_s + length_s) * 1000), speaker)
        except (IndexError, ValueError, OverflowError) as error:
            raise DataError(
                f"{path}, line {number}: got {line!r}; expected 'SPEAKER file channel start duration <NA> <NA> speaker <NA> <NA>'"
            ) from error
        found.setdefault(fields[1], []).append(turn)
    return {name: tuple(sorted(turns)) for name, turns in found.items()}


def diarisation_error(reference: Iterable[Turn], found: Iterable[Turn], *, collar_ms: int = 0) -> DiarisationError:
    """Score the turns that a system found in one recording.

    Args:
        reference: The true turns, of any number of speakers, overlapping where they spoke at once.
        found: The system's turns; names of speakers need not be those of the reference.
        collar_ms: Time on both sides of each reference boundary that is not scored; 0, or `COLLAR_MS` as NIST does.
    """
    truth, guess = _joined(reference), _joined(found)
    edges = {edge for turn in (*truth, *guess) for edge in turn[:2]}
    collars = [(edge - collar_ms, edge + collar_ms) for turn in truth for edge in turn[:2]] if collar_ms > 0 else []
    cuts = np.array(sorted(edges.union(*collars)), dtype=np.int64)
    length = np.diff(cuts) if len(cuts) > 1 else np.zeros(0, np.int64)
    scored = ~_active([Turn(start, end, "") for start, end in collars], cuts).any(axis=0)
    length = np.where(scored, length, 0)
    here, there = _active(truth, cuts), _active(guess, cuts)  # (speakers, stretches)
    together = (here * length) @ there.T.astype(np.int64)
    rows, columns = linear_sum_assignment(together, maximize=True)
    right_ms = int(together[rows, columns].sum())
    said, heard = here.sum(axis=0), there.sum(axis=0)
    names = {turn.speaker for turn in truth}, {turn.speaker for turn in guess}
    return DiarisationError(
        speech_ms=int((said * length).sum()),
        missed_ms=int((np.maximum(said - heard, 0) * length).sum()),
        false_alarm_ms=int((np.maximum(heard - said, 0) * length).sum()),
        confusion_ms=int((np.minimum(said, heard) * length).sum()) - right_ms,
        speakers=len(names[0]),
        found=len(names[1]),
        count_error=abs(len(names[1]) - len(names[0])),
    )


def total(errors: Iterable[DiarisationError]) -> DiarisationError:
    """Several recordings as one: times and counts are summed, so that long recordings weigh more."""
    rows = list(errors)
    return DiarisationError(**{name: sum(getattr(row, name) for row in rows) for name in DiarisationError.model_fields})


def changes(turns: Iterable[Turn]) -> tuple[int, ...]:
    """Moments in ms at which another speaker begins than the one who began last; the first turn is none."""
    ordered = sorted(_joined(turns))
    return tuple(after.start_ms for before, after in itertools.pairwise(ordered) if after.speaker != before.speaker)


def matches(moments: Sequence[int], spans: Sequence[tuple[int, int]], *, tolerance_ms: int) -> Matches:
    """Match moments with spans of time that claim to hold at least one, each span widened by the tolerance on both sides."""
    inside = np.zeros((len(moments), len(spans)), bool)
    for column, (start_ms, end_ms) in enumerate(spans):
        inside[:, column] = [start_ms - tolerance_ms <= moment <= end_ms + tolerance_ms for moment in moments]
    return Matches(
        moments=len(moments),
        moments_found=int(inside.any(axis=1).sum()),
        spans=len(spans),
        spans_right=int(inside.any(axis=0).sum()),
    )


def _joined(turns: Iterable[Turn]) -> list[Turn]:
    """One turn where a speaker's own turns touch or overlap; empty turns are nothing."""
    made: list[Turn] = []
    for turn in sorted((turn for turn in turns if turn.end_ms > turn.start_ms), key=lambda one: (one.speaker, one.start_ms)):
        if made and made[-1].speaker == turn.speaker and turn.start_ms <= made[-1].end_ms:
            made[-1] = made[-1]._replace(end_ms=max(made[-1].end_ms, turn.end_ms))
        else:
            made.append(turn)
    return made


def _active(
    turns: Sequence[Turn], cuts: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Who is active between consecutive cuts: shape (speakers, cuts - 1), speakers in order of their names."""
    names = sorted({turn.speaker for turn in turns})
    active = np.zeros((len(names), max(0, len(cuts) - 1)), bool)
    for turn in turns:
        start, end = np.searchsorted(cuts, [turn.start_ms, turn.end_ms])
        active[names.index(turn.speaker), start:end] = True
    return active
