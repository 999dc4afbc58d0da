"""Explicit metadata: labels with their times as lines of prompt text (2508.07273, section on the explicit method)."""

from __future__ import annotations

import bisect
import itertools
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from undertone.errors import DataError
from undertone.records import HUMAN, Label, Segment

WITHHELD = "withheld"
"""Reason of a label that was there and is not shown; nothing merges across it."""


class Scale(BaseModel):
    """Words for a number: `words[i]` from `thresholds[i - 1]` on; a value that equals a threshold is on its upper side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    words: tuple[str, ...] = ("very low", "low", "medium", "high", "very high")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.words) != len(self.thresholds) + 1 or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(
                f"a scale has ascending thresholds and one word more than thresholds; got thresholds {list(self.thresholds)} and "
                f"words {list(self.words)}"
            )
        return self

    def word(self, value: float) -> str:
        """The word for a value."""
        return self.words[bisect.bisect_right(self.thresholds, value)]


VAD_SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "valence": Scale(words=("very negative", "negative", "neutral", "positive", "very positive")),
        "arousal": Scale(),
        "dominance": Scale(),
    }
)
"""Fifths of the scale 0..1, so that a word means the same whatever labeller or corpus the number is of."""


class MetadataConfig(BaseModel):
    """How labels are written into a prompt; stored in the checkpoint that was trained with it.

    Attributes:
        attributes: Label attributes in this order: emotion, valence, arousal, dominance, gender, event or any other that labellers give.
        merge: Whether neighbours with equal labels become one item, also across segments.
        merge_gap_ms: Longest gap between neighbours that merge; across a longer one nothing was heard, so the first ends before it.
        drop: Categories that are not written; one between two equal labels keeps them apart.
        item: Format of one item; `start` and `end` are seconds from the start of the clip, `label` is the category (or the number
            with one decimal, or its word).
        place: Before or after the question.
        layout: A line for each attribute, or one list in which each item has all that is known of its stretch.
        line: Format of a line; `name` is the attribute with a capital, `items` are its items.
        names: Other names of attributes, such as {emotion: tone of voice}.
        granularity: One item for each window of the labeller, or for each segment or the whole clip: there the category that fills most
            of the time (ties to the earlier) and the mean of numbers.
        numbers: As decimals, or as words for the attributes that have a scale.
        scales: Those of `numbers: words`, over `VAD_SCALES`.
        confidence: Whether the labeller's probability of its class stands behind it, where it gave one: "sad (82 %)".
        min_confidence: Classes of which the labeller was less sure are not written; those of unknown confidence are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    # What came after studies had been run is not written where it has its default, so that the fingerprints of those studies hold.
    grown: ClassVar[frozenset[str]] = frozenset(
        {"layout", "line", "names", "granularity", "numbers", "scales", "confidence", "min_confidence"}
    )

    attributes: tuple[str, ...] = Field(default=("emotion",), min_length=1)
    merge: bool = True
    merge_gap_ms: int = Field(default=500, ge=0)
    drop: tuple[str, ...] = ("unknown", "other")
    item: str = "[{start:.1f}-{end:.1f} s] {label}"
    place: Literal["before", "after"] = "before"
    layout: Literal["lines", "together"] = "lines"
    line: str = "{name}: {items}"
    names: dict[str, str] = {}
    granularity: Literal["window", "segment", "clip"] = "window"
    numbers: Literal["decimals", "words"] = "decimals"
    scales: dict[str, Scale] = {}
    confidence: bool = False
    min_confidence: float = Field(default=0.0, ge=0, le=1)

    @model_serializer(mode="wrap")
    def _as_it_was(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {key: value for key, value in made.items() if key not in self.grown or getattr(self, key) != fields[key].default}

    @field_validator("item")
    @classmethod
    def _items(cls, value: str) -> str:
        return _checked("item", value, {"start": 0.0, "end": 1.0, "label": "sad"}, needs="label")

    @field_validator("line")
    @classmethod
    def _lines(cls, value: str) -> str:
        return _checked("line", value, {"name": "Emotion", "items": "sad"}, needs="items")

    def name(self, attribute: str) -> str:
        """What an attribute is called in a prompt."""
        return self.names.get(attribute, attribute)

    def written(self, label: Label) -> str:
        """What is written for a label that has a value."""
        return label.category if label.category is not None else self.number(label.attribute, label.number or 0.0)

    def number(self, attribute: str, value: float) -> str:
        """What is written for a number."""
        scale = self.scales.get(attribute) or VAD_SCALES.get(attribute) if self.numbers == "words" else None
        return f"{value:.1f}" if scale is None else scale.word(value)


def _checked(field: str, value: str, slots: Mapping[str, Any], *, needs: str) -> str:
    """A format that uses no other slots than these, and the one that it needs."""
    try:
        value.format(**slots)
        used = {name for _, name, _, _ in string.Formatter().parse(value)}
    except (KeyError, IndexError, ValueError) as error:
        *names, last = (f"{{{name}}}" for name in slots)
        raise ValueError(f"{field} may use {', '.join(names)} and {last} only; got {value!r} ({error!r})") from error
    if needs not in used:
        raise ValueError(f"{field} needs {{{needs}}}, or nothing of the labels is written; got {value!r}")
    return value


class Item(NamedTuple):
    """A stretch of a clip, in ms from its start, and the label that is written for it.

    `confidence` is the mean probability that the labeller gave the label; None where it gave none.
    """

    start_ms: int
    end_ms: int
    label: str
    confidence: float | None = None


def render(segments: Sequence[Segment], *, start_ms: int, end_ms: int, config: MetadataConfig, human: bool = False) -> str | None:
    """Write the labels that overlap a clip as text, such as "Emotion: [0.0-2.0 s] sad [2.0-6.0 s] happy".

    Equal neighbours merge into one item where at most `merge_gap_ms` lies between them and no dropped category does: no time is written
    over a longer gap or over what was labelled otherwise.

    Args:
        segments: Segments of the clip's recording with predicted labels, in any order; those outside the clip are ignored.
        start_ms: Start of the clip in the recording.
        end_ms: End of the clip in the recording.
        config: Attributes and format.
        human: The labels are those of people, for an oracle: then none may be predicted.

    Returns:
        One line per attribute (or one for all), or None where no label overlaps the clip.

    Raises:
        DataError: A label was given by a person: gold labels never enter metadata, but for a system that says so.
    """
    found = {one: items(segments, one, start_ms=start_ms, end_ms=end_ms, config=config, human=human) for one in config.attributes}
    known = {attribute: stretches for attribute, stretches in found.items() if stretches}
    if not known:
        return None
    if config.layout == "together":
        return _line(", ".join(config.name(one) for one in config.attributes), _together(known, segments, config), config)
    return "\n".join(_line(config.name(attribute), stretches, config) for attribute, stretches in known.items())


def _line(name: str, found: Iterable[Item], config: MetadataConfig) -> str:
    written = (config.item.format(start=i.start_ms / 1000, end=i.end_ms / 1000, label=_surely(i, config)) for i in found)
    return config.line.format(name=name[:1].upper() + name[1:], items=" ".join(written))


def _surely(item: Item, config: MetadataConfig) -> str:
    if not config.confidence or item.confidence is None:
        return item.label
    return f"{item.label} ({100 * item.confidence:.0f} %)"


def items(
    segments: Sequence[Segment], attribute: str, *, start_ms: int, end_ms: int, config: MetadataConfig, human: bool = False
) -> list[Item]:
    """What `render` writes of one attribute, item by item.

    Raises:
        DataError: A label was given by a person, or with `human` by none.
    """
    for segment in segments:
        for label in segment.labels:
            if (label.labeller == HUMAN) != human:
                raise _not_these(segment, label)
    groups = [
        [one for label in segment.labels if label.attribute == attribute and (one := _span(label, start_ms, end_ms, config))]
        for segment in sorted(segments, key=lambda one: (one.start_ms, one.end_ms))
    ]
    if config.granularity == "window":
        spans = sorted(itertools.chain.from_iterable(groups), key=_order)
    else:
        whole = groups if config.granularity == "segment" else [list(itertools.chain.from_iterable(groups))]
        spans = [_reduced(sorted(group, key=_order), config) for group in whole if group]
    return list(_merged(spans, config))


def _not_these(segment: Segment, label: Label) -> DataError:
    said = f"{label.attribute}={label.category or label.number}"
    if label.labeller == HUMAN:
        return DataError(
            f"segment {segment.id} carries the human label {said}; metadata is made of predicted labels only: pass the segments of "
            "label/, not those of references/, or give the system labels: {of: human}"
        )
    return DataError(
        f"segment {segment.id} carries the label {said} of {label.labeller}; an oracle is made of human labels only: pass "
        "model.shown.human_segments(recordings)"
    )


class _Span(NamedTuple):
    """A label inside a clip, in ms from its start; `text` is None for one that is not written."""

    start_ms: int
    end_ms: int
    text: str | None
    confidence: float | None
    label: Label

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms


def _order(span: _Span) -> tuple[int, int, str, str]:
    """In time, whatever order the labels came in."""
    label = span.label
    return label.start_ms, label.end_ms, label.labeller, label.category or f"{label.number}"


def _span(label: Label, start_ms: int, end_ms: int, config: MetadataConfig) -> _Span | None:
    """The part of a label inside the clip; None where there is none, and for an abstention."""
    start, end = max(label.start_ms, start_ms) - start_ms, min(label.end_ms, end_ms) - start_ms
    if end <= start or label.reason not in (None, WITHHELD):
        return None
    sure = _confidence(label)
    text = None if label.reason == WITHHELD or (sure is not None and sure < config.min_confidence) else config.written(label)
    return _Span(start, end, None if text in config.drop else text, sure, label)


def _confidence(label: Label) -> float | None:
    return (label.distribution or {}).get(label.category) if label.category is not None else None


def _reduced(spans: Sequence[_Span], config: MetadataConfig) -> _Span:
    """All labels of a stretch as one: the category that fills most of its time, or the mean number."""
    said = [one for one in spans if one.text is not None]
    if not said:
        return spans[0]
    first, label = said[0], said[0].label
    # Where one labeller gives classes of an attribute and another numbers, those of the first kind count: the two have no mean.
    said = [one for one in said if (one.label.category is None) == (label.category is None)]
    if label.category is None:
        total = sum(one.length_ms for one in said)
        mean = sum((one.label.number or 0.0) * one.length_ms for one in said) / total
        best, sure = config.number(label.attribute, mean), None
    else:
        held: dict[str, int] = {}
        for one in said:
            held[one.text or ""] = held.get(one.text or "", 0) + one.length_ms
        best = max(held, key=lambda text: held[text])
        sure = _mean_confidence([one for one in said if one.text == best])
    return _Span(first.start_ms, max(one.end_ms for one in said), best, sure, label)


def _mean_confidence(spans: Sequence[_Span]) -> float | None:
    known = [(one.confidence, one.length_ms) for one in spans if one.confidence is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _merged(spans: Iterable[_Span], config: MetadataConfig) -> Iterator[Item]:
    """Spans in time order as items."""
    held: list[_Span] = []
    end_ms = 0
    for one in spans:
        joins = config.merge and held and held[0].text == one.text and one.start_ms - end_ms <= config.merge_gap_ms
        if held and not joins:
            yield _item(held, end_ms)
            held = []
        if one.text is not None:
            end_ms = max(end_ms, one.end_ms) if held else one.end_ms
            held.append(one)
    if held:
        yield _item(held, end_ms)


def _item(spans: Sequence[_Span], end_ms: int) -> Item:
    return Item(spans[0].start_ms, end_ms, spans[0].text or "", _mean_confidence(spans))


def _together(known: Mapping[str, Sequence[Item]], segments: Sequence[Segment], config: MetadataConfig) -> list[Item]:
    """One list for all attributes, cut wherever any of them changes.

    A stretch of at most `merge_gap_ms` that says nothing which the one before it did not say is left out: attributes have gaps of their own,
    which are no news.
    """
    numeric = {label.attribute for segment in segments for label in segment.labels if label.number is not None}
    cuts = sorted({at for stretches in known.values() for one in stretches for at in (one.start_ms, one.end_ms)})
    made: list[tuple[int, int, tuple[str, ...]]] = []
    for start, end in itertools.pairwise(cuts):
        said = tuple(
            f"{config.name(attribute)} {_surely(one, config)}" if attribute in numeric else _surely(one, config)
            for attribute, stretches in known.items()
            for one in stretches
            if one.start_ms < end and start < one.end_ms
        )
        before = made[-1] if made and made[-1][1] == start else None
        if before and said == before[2] and config.merge:
            made[-1] = (before[0], end, said)
        elif said and not (before and end - start <= config.merge_gap_ms and set(said) < set(before[2])):
            made.append((start, end, said))
    return [Item(start, end, ", ".join(said)) for start, end, said in made]
