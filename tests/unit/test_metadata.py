"""Metadata lines: merged, clipped to the clip, in time order, and never from a person."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from undertone.errors import DataError
from undertone.metadata import MetadataConfig, render
from undertone.model import prompts
from undertone.records import Label, Segment

CONFIG = MetadataConfig()


def segment(start_ms: int, end_ms: int, *labels: tuple[str, int, int], labeller: str = "affect-small@1") -> Segment:
    made = tuple(
        Label(attribute="emotion", category=name, start_ms=start, end_ms=end, labeller=labeller) for name, start, end in labels
    )
    return Segment(recording_id="r", start_ms=start_ms, end_ms=end_ms, labels=made)


def test_times_count_from_the_clip_and_equal_neighbours_merge() -> None:
    segments = [
        segment(10_000, 16_000, ("sad", 10_000, 12_000), ("sad", 12_000, 14_000), ("happy", 14_000, 16_000)),
        segment(16_500, 18_500, ("happy", 16_500, 18_500)),
    ]
    made = render(segments, start_ms=10_000, end_ms=20_000, config=CONFIG)
    assert made == "Emotion: [0.0-4.0 s] sad [4.0-8.5 s] happy"
    apart = render(segments, start_ms=10_000, end_ms=20_000, config=MetadataConfig(merge=False))
    assert apart == "Emotion: [0.0-2.0 s] sad [2.0-4.0 s] sad [4.0-6.0 s] happy [6.5-8.5 s] happy"


def test_labels_are_clipped_to_the_span_and_those_outside_left_out() -> None:
    segments = [segment(0, 9_000, ("sad", 0, 2_000), ("angry", 2_000, 4_000), ("happy", 4_000, 6_000), ("fearful", 6_000, 9_000))]
    # sad ends where the clip begins, fearful begins where it ends
    assert render(segments, start_ms=2_000, end_ms=6_000, config=CONFIG) == "Emotion: [0.0-2.0 s] angry [2.0-4.0 s] happy"
    assert render(segments, start_ms=3_000, end_ms=4_550, config=CONFIG) == "Emotion: [0.0-1.0 s] angry [1.0-1.6 s] happy"


def test_order_of_segments_and_labels_does_not_matter_even_for_ties() -> None:
    labels = [("sad", 0, 2_000), ("happy", 0, 2_000), ("happy", 2_000, 3_000), ("angry", 2_000, 4_000)]
    expected = render([segment(0, 4_000, *sorted(labels))], start_ms=0, end_ms=4_000, config=CONFIG)
    assert expected == "Emotion: [0.0-2.0 s] happy [0.0-2.0 s] sad [2.0-3.0 s] happy [2.0-4.0 s] angry"
    for seed in range(10):
        mixed = labels[:]
        random.Random(seed).shuffle(mixed)
        assert render([segment(0, 4_000, *mixed)], start_ms=0, end_ms=4_000, config=CONFIG) == expected
        halves = [segment(0, 4_000, *mixed[:2]), segment(0, 3_999, *mixed[2:])]
        assert render(halves, start_ms=0, end_ms=4_000, config=CONFIG) == expected


def test_nothing_to_say_is_none_and_not_an_empty_line() -> None:
    assert render([], start_ms=0, end_ms=1_000, config=CONFIG) is None
    dropped = [segment(0, 1_000, ("unknown", 0, 500), ("other", 500, 1_000))]
    assert render(dropped, start_ms=0, end_ms=1_000, config=CONFIG) is None
    abstained = Label(attribute="emotion", reason="too_short", start_ms=0, end_ms=200, labeller="affect-small@1")
    silent = Segment(recording_id="r", start_ms=0, end_ms=1_000, labels=(abstained,))
    assert render([silent], start_ms=0, end_ms=1_000, config=CONFIG) is None
    assert prompts.build("Who?", metadata=None) == "<audio>\nWho?\nAnswer:"


def test_a_dropped_label_between_equal_ones_parts_them() -> None:
    segments = [segment(0, 6_000, ("sad", 0, 2_000), ("unknown", 2_000, 4_000), ("sad", 4_000, 6_000))]
    assert render(segments, start_ms=0, end_ms=6_000, config=CONFIG) == "Emotion: [0.0-2.0 s] sad [4.0-6.0 s] sad"


@pytest.mark.parametrize(
    ("gap_ms", "merge_gap_ms", "written"),
    [
        (500, 500, "[0.0-4.5 s] sad"),
        (501, 500, "[0.0-2.0 s] sad [2.5-4.5 s] sad"),
        (0, 0, "[0.0-4.0 s] sad"),
        (100, 0, "[0.0-2.0 s] sad [2.1-4.1 s] sad"),
        (8_000, 9_000, "[0.0-12.0 s] sad"),
    ],
)
def test_equal_labels_merge_over_a_short_gap_only(gap_ms: int, merge_gap_ms: int, written: str) -> None:
    later = 2_000 + gap_ms
    segments = [segment(0, 2_000, ("sad", 0, 2_000)), segment(later, later + 2_000, ("sad", later, later + 2_000))]
    config = MetadataConfig(merge_gap_ms=merge_gap_ms)
    assert render(segments, start_ms=0, end_ms=20_000, config=config) == f"Emotion: {written}"
    with pytest.raises(ValidationError, match="merge_gap_ms"):
        MetadataConfig(merge_gap_ms=-1)


def test_further_attributes_have_their_own_line_numbers_one_decimal() -> None:
    valence = Label(attribute="valence", number=0.32, start_ms=0, end_ms=2_000, labeller="affect-small@1")
    base = segment(0, 2_000, ("sad", 0, 2_000))
    both = base.model_copy(update={"labels": (*base.labels, valence)})
    config = MetadataConfig(attributes=("emotion", "valence"), item="{label} from {start:.0f} to {end:.0f}")
    assert render([both], start_ms=0, end_ms=2_000, config=config) == "Emotion: sad from 0 to 2\nValence: 0.3 from 0 to 2"


def test_gold_labels_never_enter() -> None:
    gold = segment(0, 2_000, ("sad", 0, 2_000), labeller="human")
    with pytest.raises(DataError, match=r"human label emotion=sad; metadata is made of predicted labels only"):
        render([gold], start_ms=0, end_ms=2_000, config=CONFIG)
    with pytest.raises(DataError, match="human label"):
        render([gold], start_ms=0, end_ms=2_000, config=MetadataConfig(attributes=("gender",)))


def test_a_bad_item_format_is_refused_when_it_is_written() -> None:
    with pytest.raises(ValidationError, match=r"item may use \{start\}, \{end\} and \{label\} only; got '\{begin\}'"):
        MetadataConfig(item="{begin}")


def test_metadata_stands_before_or_after_the_question() -> None:
    line = "Emotion: [0.0-2.0 s] sad"
    assert prompts.build("Who?", metadata=line) == f"<audio>\n{line}\nWho?\nAnswer:"
    assert prompts.build("Who?", metadata=line, place="after") == f"<audio>\nWho?\n{line}\nAnswer:"
    assert prompts.build("Who?", metadata=line, speech=prompts.words("we left")) == f"Transcript: we left\n{line}\nWho?\nAnswer:"
