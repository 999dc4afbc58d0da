"""Which labels a system is shown, and what is done to them first: noise, gaps, another clip's, a person's.

All of it is drawn from the seed and from what it happens to (a label's recording and time, an example's pair), so it depends neither on order
nor on what else is shown: who sees half of the windows sees all that are seen by who sees a quarter, and a rate of noise of 0.4 spoils
what one of 0.2 spoils, and more.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.errors import DataError
from undertone.metadata import WITHHELD, Item, MetadataConfig, items, render
from undertone.records import HUMAN, Clip, Label, Recording, Segment, content_hash

_LOOK_AHEAD = 64
"""How many clips are looked at for one that is as long."""


class ShownLabels(BaseModel):
    """What stands in a system's prompts, where it shows metadata.

    Attributes:
        of: The labeller's labels; or those of people, an upper bound that no system reaches (an oracle: the system's name must say so); or
            the labeller's labels of a clip of another recording, which look alike and tell nothing.
        noise: Share of the labels that are replaced: a class by another that occurs in the table, a number by that of another label. The
            same label is wrong wherever it is shown, as a labeller's mistake would be.
        share: Share of the labels that are shown, of each attribute for itself.
        dropout: Share of the training examples that show none, so that one model learns to answer with labels and without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Literal["predicted", "human", "other_recording"] = "predicted"
    noise: float = Field(default=0.0, ge=0, le=1)
    share: float = Field(default=1.0, ge=0, le=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _tells_something(self) -> Self:
        if self.of == "other_recording" and self.noise:
            raise ValueError(f"labels of another recording are wrong already; leave out noise={self.noise}")
        return self

    @property
    def altered(self) -> bool:
        """Whether single labels are replaced or withheld."""
        return self.noise > 0 or self.share < 1

    def drops(self, pair_id: str, *, seed: int) -> bool:
        """Whether a training example of this pair shows no labels."""
        return self.dropout > 0 and random.Random(f"dropout:{seed}:{pair_id}").random() < self.dropout


def human_segments(recordings: Iterable[Recording]) -> dict[str, list[Segment]]:
    """What people said about recordings, by recording: for an oracle, and to measure shown labels by."""
    return {
        one.id: [
            segment.model_copy(update={"words": (), "labels": tuple(label for label in segment.labels if label.labeller == HUMAN)})
            for segment in one.references
        ]
        for one in recordings
    }


class _View(NamedTuple):
    """The segments that a clip's metadata is made of, and the span of theirs that stands for the clip."""

    segments: Sequence[Segment]
    start_ms: int
    end_ms: int


class Shown:
    """The metadata of clips, as one system sees it."""

    def __init__(
        self,
        labels: ShownLabels,
        clips: Iterable[Clip],
        *,
        predicted: Mapping[str, Sequence[Segment]],
        human: Mapping[str, Sequence[Segment]] | None = None,
        config: MetadataConfig,
        seed: int,
    ) -> None:
        """Store what is shown.

        Args:
            labels: Whose labels, and what is done to them.
            clips: All clips that the system is asked about; labels of other recordings are those of one of these.
            predicted: Segments with predicted labels by recording id, all of the table label/.
            human: Segments with human labels by recording id (`human_segments`); only an oracle needs them.
            config: Attributes and format.
            seed: Of all that is drawn.

        Raises:
            DataError: The labels are human ones, which were not passed; or those of other recordings, and there is one only; or there are
                predicted labels, but none (no abstention either) of an attribute that the format names.
        """
        self.labels = labels
        self.config = config
        self.seed = seed
        if labels.of == "human" and human is None:
            raise DataError(
                "labels: {of: human} needs what people said about the recordings, which was not passed: human=human_segments(recordings)"
            )
        self._human = labels.of == "human"
        self._table = human if labels.of == "human" and human is not None else predicted
        if not self._human:
            self._check_attributes()
        self._texts: dict[str, str | None] = {}
        self._ring = self._others(clips) if labels.of == "other_recording" else []
        self._place = {clip.id: index for index, clip in enumerate(self._ring)}

    def text(self, clip: Clip) -> str | None:
        """The metadata in the prompts about a clip; None where there is none."""
        if clip.id not in self._texts:
            view = self._view(clip)
            self._texts[clip.id] = render(
                view.segments, start_ms=view.start_ms, end_ms=view.end_ms, config=self.config, human=self._human
            )
        return self._texts[clip.id]

    def labels_of(self, clip: Clip) -> tuple[Label, ...]:
        """The labels that lie in a clip, as far as they do, abstentions left out: what a target is made of.

        Raises:
            DataError: One is a person's, and these are not the labels of an oracle.
        """
        view = self._view(clip)
        made = []
        for label in (one for segment in view.segments for one in segment.labels):
            start_ms, end_ms = max(label.start_ms, view.start_ms), min(label.end_ms, view.end_ms)
            if label.reason is not None or label.attribute not in self.config.attributes or start_ms >= end_ms:
                continue
            if (label.labeller == HUMAN) != self._human:
                raise DataError(
                    f"clip {clip.id}: {label.attribute} is a label of {label.labeller}; targets are made of "
                    f"{'human' if self._human else 'predicted'} labels only: pass "
                    f"{'model.shown.human_segments(recordings)' if self._human else 'the segments of label/'}"
                )
            made.append(label.model_copy(update={"start_ms": start_ms, "end_ms": end_ms}))
        return tuple(made)

    def items(self, clip: Clip, attribute: str) -> list[Item]:
        """What `text` says of one attribute."""
        view = self._view(clip)
        return items(view.segments, attribute, start_ms=view.start_ms, end_ms=view.end_ms, config=self.config, human=self._human)

    def _check_attributes(self) -> None:
        """A labeller gives every segment a label of each of its attributes, if only an abstention: what never occurs is misspelt."""
        missing, known = set(self.config.attributes), set[str]()
        for label in (one for rows in self._table.values() for segment in rows for one in segment.labels):
            missing.discard(label.attribute)
            known.add(label.attribute)
            if not missing:
                return
        if known:
            raise DataError(
                f"model.metadata.attributes: no predicted label is of {', '.join(sorted(missing))}, so prompts would never show any; the table "
                f"label/ has {', '.join(sorted(known))}. Name some of these, or add a labeller to label.labellers and run undertone label"
            )

    def _view(self, clip: Clip) -> _View:
        of = self._other(clip) if self.labels.of == "other_recording" else clip
        segments = self._table.get(of.recording_id, ())
        end_ms = min(of.end_ms, of.start_ms + clip.duration_ms)
        if self.labels.altered:
            near = [one for one in segments if one.start_ms < end_ms and of.start_ms < one.end_ms]
            segments = [
                one.model_copy(update={"labels": tuple(self._altered(label, of.recording_id) for label in one.labels)})
                for one in near
            ]
        return _View(segments, of.start_ms, end_ms)

    def _others(self, clips: Iterable[Clip]) -> list[Clip]:
        """The clips with labels, in an order that the seed draws."""
        able = {clip.id: clip for clip in clips if self._table.get(clip.recording_id)}
        if len({clip.recording_id for clip in able.values()}) < 2:
            raise DataError(
                "labels: {of: other_recording} needs clips of two recordings with predicted labels at least; "
                f"got {len(able)} of one, or none"
            )
        return sorted(able.values(), key=lambda clip: (content_hash("ring", str(self.seed), clip.id), clip.id))

    def _other(self, clip: Clip) -> Clip:
        """The next clip of another recording in the ring that is as long, or the longest of the next ones."""
        start = self._place.get(clip.id, 0)
        best: Clip | None = None
        seen = 0
        for step in range(1, len(self._ring) + 1):
            one = self._ring[(start + step) % len(self._ring)]
            if one.recording_id == clip.recording_id:
                continue
            seen += 1
            if best is None or one.duration_ms > best.duration_ms:
                best = one
            if best.duration_ms >= clip.duration_ms or seen == _LOOK_AHEAD:
                break
        if best is None:
            raise DataError(f"no clip of another recording than {clip.recording_id} has labels to show for clip {clip.id}")
        return best

    def _altered(self, label: Label, recording_id: str) -> Label:
        """The label, another in its place, or that it is withheld."""
        if label.reason is not None or label.attribute not in self.config.attributes:
            return label
        key = f"{self.seed}:{recording_id}:{label.attribute}:{label.start_ms}:{label.end_ms}"
        if self.labels.share < 1 and random.Random(f"share:{key}").random() >= self.labels.share:
            return label.model_copy(update={"category": None, "number": None, "distribution": None, "reason": WITHHELD})
        chance = random.Random(f"noise:{key}")
        if chance.random() >= self.labels.noise:
            return label
        if label.category is None:
            return label.model_copy(update={"number": chance.choice(self._numbers[label.attribute])})
        others = [one for one in self._classes[label.attribute] if one != label.category]
        if not others:
            raise DataError(
                f"labels: {{noise: {self.labels.noise}}} needs another class of {label.attribute}, but all labels say {label.category!r}"
            )
        wrong = chance.choice(others)
        held = label.distribution
        if held is not None:  # as sure of the wrong class as it was of its own
            held = held | {wrong: held.get(label.category, 0.0), label.category: held.get(wrong, 0.0)}
        return label.model_copy(update={"category": wrong, "distribution": held})

    @functools.cached_property
    def _classes(self) -> dict[str, list[str]]:
        """Classes that occur, by attribute: one that never does would give the noise away."""
        found: dict[str, set[str]] = {}
        for label in self._all_labels():
            if label.category is not None and label.category not in self.config.drop:
                found.setdefault(label.attribute, set()).add(label.category)
        return {attribute: sorted(names) for attribute, names in found.items()}

    @functools.cached_property
    def _numbers(self) -> dict[str, list[float]]:
        """Numbers that occur, by attribute."""
        found: dict[str, list[float]] = {}
        for label in self._all_labels():
            if label.number is not None:
                found.setdefault(label.attribute, []).append(label.number)
        return {attribute: sorted(values) for attribute, values in found.items()}

    def _all_labels(self) -> Iterable[Label]:
        wanted = set(self.config.attributes)
        return (one for rows in self._table.values() for segment in rows for one in segment.labels if one.attribute in wanted)
