"""Predicted labels in the question, as the explicit method shows them (2508.07273), for a model that another tool trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from undertone import tables
from undertone.errors import DataError
from undertone.exchange.trainers.dialogue import Prompt
from undertone.metadata import MetadataConfig, render
from undertone.paths import Location
from undertone.records import Clip, QAPair, Segment


def with_labels(clips: Iterable[Clip], predicted: Mapping[str, Sequence[Segment]], config: MetadataConfig | None = None) -> Prompt:
    """A prompt that puts a clip's predicted labels on lines of their own before (or after) the question.

    Args:
        clips: The clips that pairs ask about.
        predicted: Segments with predicted labels by recording id (the table label/).
        config: How they are written; None is the default.

    Returns:
        What writes a pair's question; where nothing was predicted about a clip, the question alone. It raises DataError for a clip
        that is not among these, and for labels that people gave.
    """
    chosen = config or MetadataConfig()
    known = {one.id: one for one in clips}
    shown: dict[str, str | None] = {}

    def prompt(pair: QAPair) -> str:
        clip = known.get(pair.clip_id)
        if clip is None:
            raise DataError(f"pair {pair.id} asks about clip {pair.clip_id}, which is not among the {len(known)} clips passed")
        if clip.id not in shown:
            segments = predicted.get(clip.recording_id, ())
            shown[clip.id] = render(segments, start_ms=clip.start_ms, end_ms=clip.end_ms, config=chosen)
        parts = (shown[clip.id], pair.question) if chosen.place == "before" else (pair.question, shown[clip.id])
        return "\n".join(part for part in parts if part)

    return prompt


def with_labels_of(clips: Location, labels: Location, config: MetadataConfig | None = None) -> Prompt:
    """`with_labels` from finished tables, such as RUN/condense and RUN/label. Only labels of the clips' recordings are held.

    Raises:
        DataError: A table is missing, unfinished or of another kind.
    """
    known = list(tables.open_table(clips, Clip).rows())
    predicted: dict[str, list[Segment]] = {one.recording_id: [] for one in known}
    for segment in tables.open_table(labels, Segment).rows():
        if segment.recording_id in predicted:
            predicted[segment.recording_id].append(segment.model_copy(update={"words": (), "transcript": None}))
    return with_labels(known, predicted, config)
