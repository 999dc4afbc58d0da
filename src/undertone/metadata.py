"""Explicit metadata: predicted labels with their times as one line of prompt text (2508.07273, section on the explicit method)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.errors import DataError
from undertone.records import HUMAN, Label, Segment


class MetadataConfig(BaseModel):
    """How predicted labels are written into a prompt; stored in the checkpoint that was trained with it.

    Attributes:
        attributes: Label attributes, one line each in this order.
        merge: Whether neighbours with equal labels become one item, also across segments.
        merge_gap_ms: Longest gap between neighbours that merge; across a longer one nothing was heard, so the first ends before it.
        drop: Categories that are not written; one between two equal labels keeps them apart.
        item: Format of one item; `start` and `end` are seconds from the start of the clip, `label` is the category (or the number
            with one decimal).
        place: Before or after the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: tuple[str, ...] = Field(default=("emotion",), min_length=1)
    merge: bool = True
    merge_gap_ms: int = Field(default=500, ge=0)
    drop: tuple[str, ...] = ("unknown", "other")
    item: str = "[{start:.1f}-{end:.1f} s] {label}"
    place: Literal["before", "after"] = "before"

    @model_validator(mode="after")
    def _formats(self) -> Self:
        try:
            self.item.format(start=0.0, end=1.0, label="sad")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"item may use {{start}}, {{end}} and {{label}} only; got {self.item!r} ({error!r})") from error
        return self


class Item(NamedTuple):
    """A stretch of a clip, in ms from its start, and the label that is written for it."""

    start_ms: int
    end_ms: int
    label: str


def render(segments: Sequence[Segment], *, start_ms: int, end_ms: int, config: MetadataConfig) -> str | None:
    """Write the labels that overlap a clip as text, such as "Emotion: [0.0-2.0 s] sad [2.0-6.0 s] happy".

    Equal neighbours merge into one item where at most `merge_gap_ms` lies between them and no dropped category does: no time is written
    over a longer gap or over what was labelled otherwise.

    Args:
        segments: Segments of the clip's recording with predicted labels, in any order; those outside the clip are ignored.
        start_ms: Start of the clip in the recording.
        end_ms: End of the clip in the recording.
        config: Attributes and format.

    Returns:
        One line per attribute, or None where no label overlaps the clip.

    Raises:
        DataError: A label was given by a person: gold labels never enter metadata.
    """
    lines = []
    for attribute in config.attributes:
        found = items(segments, attribute, start_ms=start_ms, end_ms=end_ms, config=config)
        if found:
            written = (config.item.format(start=i.start_ms / 1000, end=i.end_ms / 1000, label=i.label) for i in found)
            lines.append(f"{attribute.capitalize()}: {' '.join(written)}")
    return "\n".join(lines) or None


def items(segments: Sequence[Segment], attribute: str, *, start_ms: int, end_ms: int, config: MetadataConfig) -> list[Item]:
    """What `render` writes of one attribute, item by item.

    Raises:
        DataError: A label was given by a person: gold labels never enter metadata.
    """
    for segment in segments:
        for label in segment.labels:
            if label.labeller == HUMAN:
                raise DataError(
                    f"segment {segment.id} carries the human label {label.attribute}={label.category or label.number}; metadata is "
                    f"made of predicted labels only: pass the segments of label/, not those of references/"
                )
    labels = [label for segment in segments for label in segment.of(attribute)]
    return list(_items(labels, start_ms, end_ms, config))


def _items(labels: Sequence[Label], start_ms: int, end_ms: int, config: MetadataConfig) -> Iterator[Item]:
    """The labels inside the span, in time order whatever order they came in, clipped to it and merged."""
    held: Item | None = None
    for label in sorted(labels, key=lambda one: (one.start_ms, one.end_ms, one.labeller, _text(one))):
        text = _text(label)
        start, end = max(label.start_ms, start_ms) - start_ms, min(label.end_ms, end_ms) - start_ms
        if end <= start:
            continue
        if text in config.drop:
            if held:
                yield held
            held = None
        elif held and config.merge and held.label == text and start - held.end_ms <= config.merge_gap_ms:
            held = held._replace(end_ms=max(held.end_ms, end))
        else:
            if held:
                yield held
            held = Item(start, end, text)
    if held:
        yield held


def _text(label: Label) -> str:
    return label.category if label.category is not None else f"{label.number:.1f}"
