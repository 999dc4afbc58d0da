"""Which clips and questions the page shows: spread over sources and question kinds, the same ones for the same run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from undertone.records import Answer, Clip, Kind, QAPair, Segment, Verdict, content_hash
from undertone.report.inputs import AnswerView, ClipView, QuestionView

_FIRST: tuple[Kind, ...] = ("CE", "CG", "DE", "C", "DG", "CS", "DS")
"""Contextual questions first: they are what the study is about."""


def choose_clips(
    *,
    pairs: Iterable[QAPair],
    clips: Iterable[Clip],
    predicted: Iterable[Segment],
    answers: Iterable[Answer],
    verdicts: Iterable[Verdict],
    seed: int = 0,
    limit: int = 12,
    questions: int = 3,
) -> tuple[ClipView, ...]:
    """Choose a dozen benchmark clips with a few questions each and what every system answered.

    The choice looks at clips, kinds and sources only and never at the answers, so that it cannot flatter a system.

    Args:
        pairs: The benchmark's questions.
        clips: Reference clips, with human labels; those without a question are passed over.
        predicted: Segments as the labeller saw them; the ones inside a chosen clip are shown.
        answers: Answers of all systems.
        verdicts: Verdicts on them; the mean over judges' runs is shown.
        seed: Which of the equally good choices is taken.
        limit: Clips at most.
        questions: Questions for each clip at most.
    """
    of_clip: dict[str, list[QAPair]] = defaultdict(list)
    for pair in pairs:
        of_clip[pair.clip_id].append(pair)
    chosen = _spread([clip for clip in clips if clip.id in of_clip], seed=seed, limit=limit)
    shown = {clip.id: _few(of_clip[clip.id], seed=seed, limit=questions) for clip in chosen}
    wanted = {pair.id for some in shown.values() for pair in some}
    answered: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.pair_id in wanted:
            answered[answer.pair_id].append(answer)
    judged: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.pair_id in wanted:
            judged[f"{verdict.subject}:{verdict.pair_id}"].append(verdict)
    recordings = {clip.recording_id for clip in chosen}
    heard: dict[str, list[Segment]] = defaultdict(list)
    for segment in predicted:
        if segment.recording_id in recordings:
            heard[segment.recording_id].append(segment)
    return tuple(
        ClipView(
            clip=clip,
            predicted=tuple(one for one in heard[clip.recording_id] if one.end_ms > clip.start_ms and one.start_ms < clip.end_ms),
            questions=tuple(
                QuestionView(
                    pair=pair,
                    answers=tuple(AnswerView(answer=one, verdicts=tuple(judged[one.id])) for one in answered[pair.id]),
                )
                for pair in shown[clip.id]
            ),
        )
        for clip in chosen
    )


def _spread(clips: Sequence[Clip], *, seed: int, limit: int) -> list[Clip]:
    """Take clips from the sources in turn; within a source, those with the most emotions and no recording twice come first."""
    by_source: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda one: (-_emotions(one), content_hash(str(seed), one.id))):
        by_source[clip.source].append(clip)
    for source, some in by_source.items():
        seen: dict[str, int] = defaultdict(int)
        turns = []
        for clip in some:
            turns.append(seen[clip.recording_id])
            seen[clip.recording_id] += 1
        by_source[source] = [clip for _, clip in sorted(zip(turns, some, strict=True), key=lambda one: one[0])]
    chosen: list[Clip] = []
    for turn in range(limit):
        chosen.extend(by_source[source][turn] for source in sorted(by_source) if turn < len(by_source[source]))
    return chosen[:limit]


def _emotions(clip: Clip) -> int:
    return len({segment.category("emotion") for segment in clip.segments} - {None})


def _few(pairs: Sequence[QAPair], *, seed: int, limit: int) -> list[QAPair]:
    """One question of each kind in turn, contextual kinds first."""
    by_kind: dict[str, list[QAPair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda one: content_hash(str(seed), one.id)):
        by_kind[pair.kind].append(pair)
    kinds = sorted(by_kind, key=lambda kind: _FIRST.index(kind) if kind in _FIRST else len(_FIRST))
    chosen: list[QAPair] = []
    for turn in range(limit):
        chosen.extend(by_kind[kind][turn] for kind in kinds if turn < len(by_kind[kind]))
    return chosen[:limit]
