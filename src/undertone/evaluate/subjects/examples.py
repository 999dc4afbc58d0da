"""What a subject is asked: the examples of `model.examples`, for whatever it hears and is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from undertone.errors import DataError
from undertone.evaluate.subjects.config import Asked, Hears
from undertone.metadata import MetadataConfig
from undertone.model.examples import System, build_examples
from undertone.model.shown import ShownLabels
from undertone.records import Clip, Example, QAPair, Segment, Split, content_hash

_LOOK_AHEAD = 64
"""How many clips are looked at for one of as many speakers' turns."""

_AS_TRAINED: Mapping[Hears, Literal["speech", "words", "nothing"]] = {
    "speech": "speech",
    "other_speech": "speech",
    "words": "words",
    "recognised_words": "words",
    "nothing": "nothing",
}


def examples_of(
    subject: Asked,
    pairs: Sequence[QAPair],
    clips: Mapping[str, Clip],
    predicted: Mapping[str, Sequence[Segment]],
    *,
    metadata: MetadataConfig | None = None,
    human: Mapping[str, Sequence[Segment]] | None = None,
    seed: int = 0,
) -> list[Example]:
    """One example for each pair, in their order.

    Where another clip is heard, `clip_id` and `earlier` name the clips that are heard, and nothing else of the example changes.

    Args:
        subject: What is heard and shown.
        pairs: The questions.
        clips: Their clips by id.
        predicted: Segments of label/ by recording: predicted labels, and recognised words.
        metadata: How labels are written, where the subject does not say.
        human: Segments with human labels by recording (`shown.human_segments`); only an oracle needs them.
        seed: Of the clips that are heard instead, and of labels that are drawn.

    Raises:
        DataError: What `build_examples` raises; nothing was recognised; there is no other recording to hear.
    """
    # A system of no data: examples of the phase "inference" take all pairs.
    system = System(
        name=subject.name,
        data=("benchmark",),
        metadata="none" if subject.labels is None else "inference_only",
        labels=subject.labels or ShownLabels(),
        hears=_AS_TRAINED[subject.hears],
    )
    known = recognised(clips, predicted) if subject.hears == "recognised_words" else clips
    config = subject.metadata or metadata
    made = build_examples(pairs, known, predicted, system, phase="inference", metadata=config, human=human, seed=seed)
    if subject.hears != "other_speech":
        return made
    instead = other_speech(clips_of(pairs, clips), seed=seed)
    return [
        one.model_copy(update={"clip_id": instead[one.clip_id], "earlier": tuple(instead[clip] for clip in one.earlier)})
        for one in made
    ]


def clips_of(pairs: Iterable[QAPair], clips: Mapping[str, Clip]) -> list[Clip]:
    """The clips that pairs and their dialogues are about, each once, by id: all that a subject may hear.

    Raises:
        DataError: One is not there.
    """
    named = {one for pair in pairs for one in (pair.clip_id, *(turn.clip_id for turn in pair.history)) if one is not None}
    if missing := sorted(named - clips.keys()):
        raise DataError(f"clip {missing[0]} is asked about, but is not among the {len(clips)} clips passed")
    return [clips[one] for one in sorted(named)]


def other_speech(clips: Sequence[Clip], *, seed: int) -> dict[str, str]:
    """For each clip one of another recording of the same split, by id: what the control hears that should not profit from listening.

    The clips of a split stand in a ring that the seed draws, and each hears the next of another recording; among the next ones it is one that
    is a single utterance too, or none too, since a dialogue in place of an utterance could be told from the question. So each is heard
    about once, and who hears what does not depend on the order of the clips.

    Raises:
        DataError: A split has one recording only.
    """
    splits: dict[Split | None, list[Clip]] = {}
    for clip in clips:
        splits.setdefault(clip.split, []).append(clip)
    found: dict[str, str] = {}
    for split, some in splits.items():
        ring = sorted(some, key=lambda clip: (content_hash("other speech", str(seed), clip.id), clip.id))
        for place, clip in enumerate(ring):
            found[clip.id] = _next(ring, place, clip, split).id
    return found


def _next(ring: Sequence[Clip], place: int, clip: Clip, split: Split | None) -> Clip:
    first: Clip | None = None
    seen = 0
    for step in range(1, len(ring)):
        one = ring[(place + step) % len(ring)]
        if one.recording_id == clip.recording_id:
            continue
        if (len(one.segments) > 1) == (len(clip.segments) > 1):
            return one
        first = first or one
        seen += 1
        if seen == _LOOK_AHEAD:
            break
    if first is None:
        raise DataError(
            f"hears: other_speech needs clips of two recordings of split {split or 'none'} at least; got {len(ring)} of one. Ask about "
            "more recordings, or leave the control out"
        )
    return first


def recognised(clips: Mapping[str, Clip], predicted: Mapping[str, Sequence[Segment]]) -> dict[str, Clip]:
    """The clips with the words that the study's labellers recognised in place of the corpus' own.

    Of a segment with words, those count whose middle lies in the clip; of one with a bare transcript, all where most of it lies in the clip.

    Raises:
        DataError: Nothing was recognised anywhere.
    """
    heard = {key: sorted(rows, key=lambda one: one.start_ms) for key, rows in predicted.items()}
    if clips and not any(one.transcript or one.words for rows in heard.values() for one in rows):
        raise DataError(
            "hears: recognised_words needs transcripts in label/, which has none; add a labeller that transcribes to label.labellers "
            "(`undertone labellers` lists them), or take hears: words, the corpus' own texts"
        )
    return {key: _with_words(clip, heard.get(clip.recording_id, ())) for key, clip in clips.items()}


def _with_words(clip: Clip, rows: Sequence[Segment]) -> Clip:
    said = [text for one in rows if (text := _said(one, clip.start_ms, clip.end_ms))]
    whole = Segment(recording_id=clip.recording_id, start_ms=clip.start_ms, end_ms=clip.end_ms, transcript=" ".join(said) or None)
    return clip.model_copy(update={"segments": (whole,)})


def _said(segment: Segment, start_ms: int, end_ms: int) -> str:
    if segment.words:
        inside = (one.text for one in segment.words if 2 * start_ms <= one.start_ms + one.end_ms < 2 * end_ms)
        return " ".join(inside)
    overlap_ms = min(end_ms, segment.end_ms) - max(start_ms, segment.start_ms)
    return segment.transcript or "" if 2 * overlap_ms > segment.duration_ms else ""
