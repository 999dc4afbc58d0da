"""Metadata lines: merged, clipped to the clip, in time order, and never from a person."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from undertone.errors import DataError
from undertone.metadata import WITHHELD, MetadataConfig, Scale, items, render
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


def numbers(attribute: str, *values: tuple[float, int, int]) -> tuple[Label, ...]:
    return tuple(
        Label(attribute=attribute, number=value, start_ms=start, end_ms=end, labeller="vad@1") for value, start, end in values
    )


def told(start_ms: int, end_ms: int, *labels: Label) -> Segment:
    return Segment(recording_id="r", start_ms=start_ms, end_ms=end_ms, labels=labels)


def sure(name: str, start: int, end: int, probability: float | None) -> Label:
    distribution = None if probability is None else {name: probability, "disgusted": 1 - probability}
    return Label(attribute="emotion", category=name, start_ms=start, end_ms=end, labeller="e@1", distribution=distribution)


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.0, "very negative"), (0.19, "very negative"), (0.2, "negative"), (0.5, "neutral"), (0.8, "very positive")],
)
def test_numbers_as_words_have_a_table_and_a_threshold_belongs_to_its_upper_side(value: float, word: str) -> None:
    config = MetadataConfig(attributes=("valence",), numbers="words")
    made = render([told(0, 1_000, *numbers("valence", (value, 0, 1_000)))], start_ms=0, end_ms=1_000, config=config)
    assert made == f"Valence: [0.0-1.0 s] {word}"


def test_a_study_may_have_scales_of_its_own_and_what_has_none_stays_a_number() -> None:
    labels = (*numbers("arousal", (0.3, 0, 1_000), (0.4, 1_000, 2_000)), *numbers("pitch_hz", (180.0, 0, 2_000)))
    scale = Scale(thresholds=(0.35,), words=("calm", "excited"))
    config = MetadataConfig(attributes=("arousal", "pitch_hz"), numbers="words", scales={"arousal": scale})
    made = render([told(0, 2_000, *labels)], start_ms=0, end_ms=2_000, config=config)
    assert made == "Arousal: [0.0-1.0 s] calm [1.0-2.0 s] excited\nPitch_hz: [0.0-2.0 s] 180.0"
    plain = MetadataConfig(attributes=("arousal",), numbers="words")
    # Both are "low" in fifths of the scale, so they merge: 0.4 is the first that is not.
    assert (
        render([told(0, 2_000, *labels)], start_ms=0, end_ms=2_000, config=plain) == "Arousal: [0.0-1.0 s] low [1.0-2.0 s] medium"
    )
    with pytest.raises(ValidationError, match=r"one word more than thresholds; got thresholds \[0.5\] and words \['low'\]"):
        Scale(thresholds=(0.5,), words=("low",))
    with pytest.raises(ValidationError, match="ascending thresholds"):
        Scale(thresholds=(0.5, 0.2), words=("a", "b", "c"))


def test_granularity_windows_segments_clip() -> None:
    segments = [
        segment(0, 6_000, ("sad", 0, 2_000), ("angry", 2_000, 4_000), ("sad", 4_000, 6_000)),
        segment(8_000, 12_000, ("happy", 8_000, 10_000), ("angry", 10_000, 12_000)),
    ]

    def made(granularity: str, start_ms: int = 0) -> str | None:
        return render(
            segments, start_ms=start_ms, end_ms=12_000, config=MetadataConfig.model_validate({"granularity": granularity})
        )

    assert made("window") == "Emotion: [0.0-2.0 s] sad [2.0-4.0 s] angry [4.0-6.0 s] sad [8.0-10.0 s] happy [10.0-12.0 s] angry"
    assert made("segment") == "Emotion: [0.0-6.0 s] sad [8.0-12.0 s] happy"  # of equal shares the earlier
    assert made("clip") == "Emotion: [0.0-12.0 s] sad"
    assert made("clip", start_ms=3_000) == "Emotion: [0.0-9.0 s] angry"  # only what lies in the clip votes


def test_numbers_and_classes_of_one_attribute_are_not_averaged_together() -> None:
    number = Label(attribute="arousal", number=0.6, start_ms=0, end_ms=2_000, labeller="a@1")
    word = Label(attribute="arousal", category="high", start_ms=0, end_ms=2_000, labeller="b@1")
    config = MetadataConfig(attributes=("arousal",), granularity="clip")
    for labels in ((number, word), (word, number)):
        both = Segment(recording_id="r", start_ms=0, end_ms=2_000, labels=labels)
        assert render([both], start_ms=0, end_ms=2_000, config=config) == "Arousal: [0.0-2.0 s] 0.6"


def test_granularity_of_numbers_is_their_mean_by_time() -> None:
    rows = [told(0, 4_000, *numbers("valence", (0.2, 0, 3_000), (0.6, 3_000, 4_000)))]
    config = MetadataConfig(attributes=("valence",), granularity="segment")
    assert render(rows, start_ms=0, end_ms=4_000, config=config) == "Valence: [0.0-4.0 s] 0.3"
    config = MetadataConfig(attributes=("valence",), granularity="clip", numbers="words")
    assert render(rows, start_ms=0, end_ms=4_000, config=config) == "Valence: [0.0-4.0 s] negative"


def test_confidence_shown_is_the_mean_over_what_merged_and_unknown_is_left_out() -> None:
    rows = [told(0, 6_000, sure("sad", 0, 2_000, 0.9), sure("sad", 2_000, 3_000, 0.6), sure("happy", 3_000, 6_000, None))]
    config = MetadataConfig(confidence=True)
    assert render(rows, start_ms=0, end_ms=6_000, config=config) == "Emotion: [0.0-3.0 s] sad (80 %) [3.0-6.0 s] happy"
    assert items(rows, "emotion", start_ms=0, end_ms=6_000, config=CONFIG)[0].confidence == pytest.approx(0.8)


def test_labels_below_a_confidence_are_not_written_and_part_what_they_stand_between() -> None:
    rows = [told(0, 5_000, sure("sad", 0, 2_000, 0.9), sure("happy", 2_000, 2_400, 0.3), sure("sad", 2_400, 5_000, 0.5))]
    assert (
        render(rows, start_ms=0, end_ms=5_000, config=MetadataConfig(min_confidence=0.5))
        == "Emotion: [0.0-2.0 s] sad [2.4-5.0 s] sad"
    )
    assert render(rows, start_ms=0, end_ms=5_000, config=MetadataConfig(min_confidence=0.95)) is None


def test_what_is_withheld_parts_its_neighbours_and_an_abstention_does_not() -> None:
    gap = {"attribute": "emotion", "start_ms": 2_000, "end_ms": 2_400, "labeller": "e@1"}
    for reason, written in ((WITHHELD, "[0.0-2.0 s] sad [2.4-4.0 s] sad"), ("too_short", "[0.0-4.0 s] sad")):
        rows = [told(0, 4_000, sure("sad", 0, 2_000, None), Label(reason=reason, **gap), sure("sad", 2_400, 4_000, None))]
        assert render(rows, start_ms=0, end_ms=4_000, config=CONFIG) == f"Emotion: {written}"


def test_one_list_for_all_attributes_is_cut_where_any_of_them_changes() -> None:
    gender = Label(attribute="gender", category="female", start_ms=0, end_ms=6_000, labeller="g@1")
    laugh = Label(attribute="event", category="laughter", start_ms=5_000, end_ms=5_400, labeller="v@1")
    labels = (
        *(sure("sad", 0, 2_000, None), sure("happy", 2_300, 6_000, None), gender, laugh),
        *numbers("arousal", (0.3, 0, 2_000), (0.7, 2_300, 6_000)),
    )
    config = MetadataConfig(attributes=("emotion", "arousal", "gender", "event"), layout="together", numbers="words")
    # Between 2.0 and 2.3 s only the gender is known, which is no news; the laugh is as short and is some.
    assert render([told(0, 6_000, *labels)], start_ms=0, end_ms=6_000, config=config) == (
        "Emotion, arousal, gender, event: [0.0-2.0 s] sad, arousal low, female [2.3-5.0 s] happy, arousal high, female "
        "[5.0-5.4 s] happy, arousal high, female, laughter [5.4-6.0 s] happy, arousal high, female"
    )


def test_one_list_without_merging_keeps_the_windows_of_the_labeller() -> None:
    gender = Label(attribute="gender", category="female", start_ms=0, end_ms=4_000, labeller="g@1")
    rows = [told(0, 4_000, sure("sad", 0, 2_000, None), sure("sad", 2_000, 2_400, None), sure("sad", 2_400, 4_000, None), gender)]

    def made(merge: bool) -> str | None:
        config = MetadataConfig(attributes=("emotion", "gender"), layout="together", merge=merge)
        return render(rows, start_ms=0, end_ms=4_000, config=config)

    assert made(True) == "Emotion, gender: [0.0-4.0 s] sad, female"
    assert made(False) == "Emotion, gender: [0.0-2.0 s] sad, female [2.0-2.4 s] sad, female [2.4-4.0 s] sad, female"


def test_wording_is_configurable_and_checked() -> None:
    config = MetadataConfig(line="<{name}> {items} </{name}>", names={"emotion": "tone of voice"}, item="{label}@{start:.0f}")
    assert (
        render([segment(0, 2_000, ("sad", 0, 2_000))], start_ms=0, end_ms=2_000, config=config)
        == "<Tone of voice> sad@0 </Tone of voice>"
    )
    with pytest.raises(ValidationError, match=r"line may use \{name\} and \{items\} only; got '\{names\}'"):
        MetadataConfig(line="{names}")
    with pytest.raises(ValidationError, match=r"line needs \{items\}, or nothing of the labels is written; got '\{name\}'"):
        MetadataConfig(line="{name}")


def test_an_oracle_is_rendered_of_human_labels_only() -> None:
    gold, guess = segment(0, 2_000, ("sad", 0, 2_000), labeller="human"), segment(0, 2_000, ("happy", 0, 2_000))
    assert render([gold], start_ms=0, end_ms=2_000, config=CONFIG, human=True) == "Emotion: [0.0-2.0 s] sad"
    with pytest.raises(
        DataError, match=r"carries the label emotion=happy of affect-small@1; an oracle is made of human labels only"
    ):
        render([gold, guess], start_ms=0, end_ms=2_000, config=CONFIG, human=True)


def test_what_came_later_is_not_in_the_fingerprint_of_a_study_that_does_not_use_it() -> None:
    before = {"attributes", "merge", "merge_gap_ms", "drop", "item", "place"}
    assert set(CONFIG.model_dump(mode="json")) == before
    rich = MetadataConfig(numbers="words", confidence=True, scales={"pitch_hz": Scale(thresholds=(200.0,), words=("low", "high"))})
    assert set(rich.model_dump(mode="json")) == before | {"numbers", "confidence", "scales"}
    assert MetadataConfig.model_validate_json(rich.model_dump_json()) == rich
