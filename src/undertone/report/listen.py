"""The clips of the page: sound, strips of labels over time, transcript, and a table of what every system answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undertone.audio import AudioError, load
from undertone.records import EMOTIONS, Segment
from undertone.report.inputs import AnswerView, ClipView
from undertone.report.sound import mp3_data_uri

SOUND_BUDGET = 4_500_000
"""Characters of sound on a page; a dozen clips of a minute come to about 4.8 million."""
_JOIN_MS = 250
"""Neighbouring labels of one emotion with less time than this between them are drawn as one."""
_SIGNS = {"right": "✓", "wrong": "✗", "partly": "◐", "unscored": "–"}
KIND_NAMES = {
    "ASR": "transcription",
    "C": "content",
    "DE": "direct emotion",
    "DG": "direct gender",
    "DS": "direct speakers",
    "CE": "contextual emotion",
    "CG": "contextual gender",
    "CS": "contextual speakers",
    "OPEN": "instruction",
    "REPLY": "reply",
}


@dataclass(frozen=True)
class Span:
    """One block of a strip; `left` and `width` are per cent of the clip."""

    left: str
    width: str
    text: str
    title: str
    css: str


@dataclass(frozen=True)
class Tick:
    """One mark of the time axis."""

    left: str
    text: str


@dataclass(frozen=True)
class Line:
    """One segment of the transcript; times in seconds from the start of the clip."""

    start: str
    end: str
    speaker: str
    text: str


@dataclass(frozen=True)
class Question:
    """The head of one column of the table of answers."""

    kind: str
    kind_name: str
    question: str
    reference: str


@dataclass(frozen=True)
class Cell:
    """One answer with its mark."""

    text: str
    mark: str
    sign: str
    note: str


@dataclass(frozen=True)
class Row:
    """What one system answered to each of the clip's questions."""

    system: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Listen:
    """One clip as the template draws it."""

    source: str
    seconds: float
    language: str | None
    licence: str | None
    sound: str | None
    silent: str
    reference: tuple[Span, ...]
    predicted: tuple[Span, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    questions: tuple[Question, ...]
    answers: tuple[Row, ...]


def listen(views: Sequence[ClipView], *, systems: Sequence[str], budget: int = SOUND_BUDGET) -> tuple[Listen, ...]:
    """Turn clips into what the template draws, with sound until the page's budget is spent.

    Args:
        views: The clips.
        systems: The order of the rows in the tables of answers; systems that it does not name follow by name.
        budget: Characters of sound at most; clips beyond it say that theirs was left out.
    """
    made = []
    for view in views:
        sound, silent = _sound(view, budget)
        budget -= len(sound or "")
        made.append(_listen(view, sound, silent, systems))
    return tuple(made)


def _sound(view: ClipView, budget: int) -> tuple[str | None, str]:
    """The clip's sound, or why there is none."""
    try:
        sound = mp3_data_uri(load(view.clip.uri, start_ms=view.clip.start_ms, end_ms=view.clip.end_ms))
    except AudioError as error:
        return None, f"No sound: {error}"
    if len(sound) > budget:
        return None, "The sound of this clip was left out to keep the page small."
    return sound, ""


def _listen(view: ClipView, sound: str | None, silent: str, systems: Sequence[str]) -> Listen:
    clip = view.clip
    answered = {one.answer.subject for question in view.questions for one in question.answers}
    order = [one for one in systems if one in answered] + sorted(answered - set(systems))
    by_system = [{one.answer.subject: one for one in question.answers} for question in view.questions]
    return Listen(
        source=clip.source,
        seconds=clip.duration_ms / 1000,
        language=clip.language,
        licence=clip.licence,
        sound=sound,
        silent=silent,
        reference=_spans(clip.segments, clip.start_ms, clip.end_ms),
        predicted=_spans(view.predicted, clip.start_ms, clip.end_ms),
        ticks=_ticks(clip.duration_ms),
        lines=_lines(view),
        questions=tuple(
            Question(kind=one.pair.kind, kind_name=KIND_NAMES[one.pair.kind], question=one.pair.question, reference=one.pair.answer)
            for one in view.questions
        ),
        answers=tuple(Row(system=name, cells=tuple(_cell(some.get(name)) for some in by_system)) for name in order),
    )


def _lines(view: ClipView) -> tuple[Line, ...]:
    """The transcript line by line; from the human references, or from the labeller's segments where those have no words."""
    start_ms = view.clip.start_ms
    spoken = [one for one in view.clip.segments if one.transcript] or [one for one in view.predicted if one.transcript]
    return tuple(
        Line(
            start=f"{(one.start_ms - start_ms) / 1000:.2f}",
            end=f"{(one.end_ms - start_ms) / 1000:.2f}",
            speaker=(one.speaker or "").rpartition("/")[2],
            text=one.transcript or "",
        )
        for one in spoken
    )


def _spans(segments: Sequence[Segment], start_ms: int, end_ms: int) -> tuple[Span, ...]:
    """The emotion labels of segments as blocks within the clip; equal neighbours are joined, abstentions drawn as such."""
    labels = sorted(
        (one for segment in segments for one in segment.labels if one.attribute == "emotion"), key=lambda one: one.start_ms
    )
    joined: list[tuple[int, int, str, bool]] = []
    for one in labels:
        first, last = max(one.start_ms, start_ms), min(one.end_ms, end_ms)
        if last <= first:
            continue
        name, abstained = one.category or (one.reason or "").replace("_", " "), one.reason is not None
        if joined and joined[-1][2:] == (name, abstained) and first - joined[-1][1] < _JOIN_MS:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]), name, abstained)
        else:
            joined.append((first, last, name, abstained))
    length = end_ms - start_ms
    return tuple(
        Span(
            left=f"{100 * (first - start_ms) / length:.3f}",
            width=f"{100 * (last - first) / length:.3f}",
            text="no label" if abstained else name,
            title=f"{'no label: ' if abstained else ''}{name}, {(first - start_ms) / 1000:.1f}–{(last - start_ms) / 1000:.1f} s",
            css="abstained" if abstained else f"e-{name if name in EMOTIONS else 'unknown'}",
        )
        for first, last, name, abstained in joined
    )


def _ticks(duration_ms: int) -> tuple[Tick, ...]:
    """Round seconds, at most seven of them; none where its text would hang over the end."""
    every = next((one for one in (1, 2, 5, 10, 20, 30, 60) if duration_ms / 1000 / one <= 7), 300)
    last = int(0.97 * duration_ms / 1000)
    return tuple(Tick(left=f"{100_000 * at / duration_ms:.3f}", text=f"{at} s") for at in range(0, last + 1, every))


def _cell(view: AnswerView | None) -> Cell | None:
    if view is None:
        return None
    note = {"partly": f"{view.score:.0f}" if view.score is not None else "", "unscored": view.why}.get(view.mark, "")
    return Cell(text=view.answer.text, mark=view.mark, sign=_SIGNS[view.mark], note=note)
