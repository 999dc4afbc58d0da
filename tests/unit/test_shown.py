"""What a system is shown: modes, dropout, noise, gaps, oracles and other clips' labels, all by seed; a gold label only where it is said."""

from __future__ import annotations

import random
from typing import get_args

import pytest
from pydantic import ValidationError

from undertone.errors import DataError
from undertone.metadata import MetadataConfig
from undertone.model.examples import SYSTEMS, Phase, System, build_examples
from undertone.model.shown import Shown, ShownLabels, human_segments
from undertone.records import Clip, Label, QAPair, Recording, Segment

CONFIG = MetadataConfig()
PHASES: tuple[Phase, ...] = get_args(Phase)
EMOTIONS = ("angry", "happy", "sad")


def label(category: str, start_ms: int, end_ms: int, labeller: str = "toy@1") -> Label:
    rest = dict.fromkeys(EMOTIONS, 0.1)
    distribution = None if labeller == "human" else rest | {category: 0.8}
    return Label(
        attribute="emotion", category=category, start_ms=start_ms, end_ms=end_ms, labeller=labeller, distribution=distribution
    )


class World:
    """Recordings of eight windows; the labeller is right in every second of them."""

    def __init__(self, count: int = 40) -> None:
        draw = random.Random(5)
        self.clips: dict[str, Clip] = {}
        self.predicted: dict[str, list[Segment]] = {}
        self.recordings: list[Recording] = []
        self.pairs: list[QAPair] = []
        for number in range(count):
            truth = [draw.choice(EMOTIONS) for _ in range(8)]
            guess = [one if index % 2 else EMOTIONS[EMOTIONS.index(one) - 1] for index, one in enumerate(truth)]
            spans = [(2_000 * index, 2_000 * index + 2_000) for index in range(8)]
            sha = f"{number:064x}"[::-1]
            recording = Recording(
                uri="",
                sha256=sha,
                rate_hz=16_000,
                samples=256_000,
                source="toy",
                references=(self.segment(sha[:16], [label(one, *span, "human") for one, span in zip(truth, spans, strict=True)]),),
            )
            self.recordings.append(recording)
            self.predicted[recording.id] = [
                self.segment(recording.id, [label(one, *span) for one, span in zip(guess, spans, strict=True)])
            ]
            clip = Clip(recording_id=recording.id, uri="", source="toy", start_ms=0, end_ms=16_000, segments=recording.references)
            self.clips[clip.id] = clip
            self.pairs += [
                QAPair(
                    clip_id=clip.id,
                    recording_id=recording.id,
                    split="train",
                    source="cpqa",
                    kind="CE",
                    question=f"How is it {time}?",
                    answer="Sad.",
                    generator="toy@1",
                )
                for time in ("now", "then")
            ]
        self.human = human_segments(self.recordings)

    @staticmethod
    def segment(recording_id: str, labels: list[Label]) -> Segment:
        return Segment(recording_id=recording_id, start_ms=0, end_ms=16_000, labels=tuple(labels))

    def shown(self, config: MetadataConfig = CONFIG, *, seed: int = 1, **labels: object) -> Shown:
        how = ShownLabels.model_validate(labels)
        return Shown(how, self.clips.values(), predicted=self.predicted, human=self.human, config=config, seed=seed)

    def windows(self, shown: Shown) -> list[list[str | None]]:
        """The label of every window of every clip."""
        made = []
        for clip in self.clips.values():
            found = shown.items(clip, "emotion")
            made.append([next((i.label for i in found if i.start_ms <= at < i.end_ms), None) for at in range(1_000, 16_000, 2_000)])
        return made

    def examples(self, system: System, phase: str = "train", *, seed: int = 1) -> list:
        return build_examples(
            self.pairs,
            self.clips,
            self.predicted,
            system,
            phase=phase,
            human=self.human,
            seed=seed,  # type: ignore[arg-type]
        )


WORLD = World()


def system(metadata: str = "train_and_inference", *, name: str = "S", weights_of: str | None = None, **labels: object) -> System:
    return System.model_validate({"name": name, "data": ["cpqa"], "metadata": metadata, "labels": labels, "weights_of": weights_of})


def different(first: list[list[str | None]], second: list[list[str | None]]) -> float:
    pairs = [(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)]
    return sum(a != b for a, b in pairs) / len(pairs)


@pytest.mark.parametrize(
    ("metadata", "phases"),
    [
        ("none", set()),
        ("inference_only", {"inference"}),
        ("train_only", {"train"}),
        ("train_and_inference", {"train", "inference"}),
    ],
)
def test_modes(metadata: str, phases: set[str]) -> None:
    for phase in ("train", "inference"):
        shows = {one.metadata is not None for one in WORLD.examples(system(metadata), phase)}
        assert shows == {phase in phases}
    if "train" in phases:
        with pytest.raises(ValidationError, match=f"means no training; metadata cannot be {metadata}"):
            system(metadata, weights_of="S30")


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_noise_spoils_its_share_of_the_windows_and_nothing_else(rate: float) -> None:
    clean, noisy = WORLD.windows(WORLD.shown()), WORLD.windows(WORLD.shown(noise=rate))
    assert different(clean, noisy) == pytest.approx(rate, abs=0.07)
    assert {name for row in noisy for name in row} <= set(EMOTIONS)


def test_more_noise_spoils_what_less_noise_spoils_and_fewer_labels_are_among_more() -> None:
    clean, some, more = (WORLD.windows(WORLD.shown(noise=rate)) for rate in (0.0, 0.2, 0.6))
    for base, little, much in zip(clean, some, more, strict=True):
        for a, b, c in zip(base, little, much, strict=True):
            assert a == b or c == b  # spoiled at 0.2: spoiled alike at 0.6
    most, few = (WORLD.windows(WORLD.shown(share=share)) for share in (0.7, 0.3))
    for base, many, less in zip(clean, most, few, strict=True):
        for a, b, c in zip(base, many, less, strict=True):
            assert b in (a, None)
            assert c in (b, None)
    held = [name is not None for row in few for name in row]
    assert sum(held) / len(held) == pytest.approx(0.3, abs=0.08)


def test_a_wrong_label_is_as_sure_as_the_right_one_was() -> None:
    config = MetadataConfig(merge=False)
    clip = next(iter(WORLD.clips.values()))
    assert [one.confidence for one in WORLD.shown(config, noise=1.0).items(clip, "emotion")] == pytest.approx([0.8] * 8)


def test_all_is_by_seed_and_by_what_it_happens_to_and_not_by_order() -> None:
    for labels in ({"noise": 0.5}, {"share": 0.5}, {"of": "other_recording"}, {"of": "human", "noise": 0.3}):
        first = WORLD.windows(WORLD.shown(**labels))
        assert first == WORLD.windows(WORLD.shown(**labels))
        assert first != WORLD.windows(WORLD.shown(seed=2, **labels))
        backwards = Shown(
            ShownLabels.model_validate(labels),
            reversed(list(WORLD.clips.values())),
            predicted=dict(reversed(list(WORLD.predicted.items()))),
            human=dict(reversed(list(WORLD.human.items()))),
            config=CONFIG,
            seed=1,
        )
        assert first == WORLD.windows(backwards)


def test_noise_needs_a_class_to_confuse_with() -> None:
    only = {key: [WORLD.segment(key, [label("sad", 0, 2_000)])] for key in WORLD.predicted}
    shown = Shown(ShownLabels(noise=1.0), WORLD.clips.values(), predicted=only, config=CONFIG, seed=1)
    with pytest.raises(DataError, match="needs another class of emotion, but all labels say 'sad'"):
        shown.text(next(iter(WORLD.clips.values())))


def test_noisy_numbers_are_numbers_that_occur() -> None:
    table = {
        clip.recording_id: [
            Segment(
                recording_id=clip.recording_id,
                start_ms=0,
                end_ms=2_000,
                labels=(Label(attribute="valence", number=0.1 * (n % 4), start_ms=0, end_ms=2_000, labeller="v@1"),),
            )
        ]
        for n, clip in enumerate(WORLD.clips.values())
    }
    config = MetadataConfig(attributes=("valence",))
    shown = Shown(ShownLabels(noise=1.0), WORLD.clips.values(), predicted=table, config=config, seed=1)
    found = [one.label for clip in WORLD.clips.values() for one in shown.items(clip, "valence")]
    assert set(found) == {"0.0", "0.1", "0.2", "0.3"}
    assert [f"{0.1 * (n % 4):.1f}" for n in range(len(found))] != found


def test_dropout_is_of_training_examples_each_for_itself() -> None:
    arm = system(dropout=0.5)
    made = WORLD.examples(arm)
    hidden = [one.metadata is None for one in made]
    assert 0.3 < sum(hidden) / len(hidden) < 0.7
    assert any(a != b for a, b in zip(hidden[::2], hidden[1::2], strict=True))  # of one clip one question with and one without
    assert all(("Emotion" in one.prompt) == (one.metadata is not None) for one in made)
    assert hidden == [one.metadata is None for one in WORLD.examples(arm)]
    assert hidden != [one.metadata is None for one in WORLD.examples(arm, seed=2)]
    assert not any(one.metadata is None for one in WORLD.examples(arm, "inference"))


def test_shuffled_labels_are_those_of_a_clip_of_another_recording() -> None:
    shown = WORLD.shown(of="other_recording")
    own = {key: WORLD.shown().text(clip) for key, clip in WORLD.clips.items()}
    for key, clip in WORLD.clips.items():
        others = {text for other, text in own.items() if other != key}
        assert shown.text(clip) in others
    alone = {clip.id: clip for clip in list(WORLD.clips.values())[:1]}
    with pytest.raises(DataError, match="needs clips of two recordings with predicted labels at least"):
        Shown(ShownLabels(of="other_recording"), alone.values(), predicted=WORLD.predicted, config=CONFIG, seed=1)


def test_shuffled_labels_come_from_as_long_a_clip_and_end_with_the_clip() -> None:
    short = [clip.model_copy(update={"end_ms": 6_000}) for clip in list(WORLD.clips.values())[:20]]
    clips = [*short, *list(WORLD.clips.values())[20:]]
    shown = Shown(ShownLabels(of="other_recording"), clips, predicted=WORLD.predicted, config=CONFIG, seed=1)
    for clip in clips:
        assert max(one.end_ms for one in shown.items(clip, "emotion")) == clip.duration_ms


def test_an_oracle_is_shown_what_people_said_and_its_name_says_so() -> None:
    truth = WORLD.windows(WORLD.shown(of="human"))
    assert truth == [[one.category for one in rows[0].of("emotion")] for rows in WORLD.human.values()]
    assert different(truth, WORLD.windows(WORLD.shown())) == 0.5
    made = WORLD.examples(system(name="S32 oracle", of="human"))
    assert {one.arm for one in made} == {"S32 oracle"}
    assert made[0].metadata == WORLD.shown(of="human").text(WORLD.clips[made[0].clip_id])
    with pytest.raises(ValidationError, match=r"its name must hold the word 'oracle', so that every table says so: 'S32 oracle'"):
        system(name="S32", of="human")


def test_no_other_system_is_shown_anything_of_what_people_said() -> None:
    flipped = {
        key: [
            one.model_copy(update={"labels": tuple(x.model_copy(update={"category": "surprised"}) for x in one.labels)})
            for one in rows
        ]
        for key, rows in WORLD.human.items()
    }
    arms = [*SYSTEMS, system(noise=0.5, share=0.5), system(of="other_recording"), system("train_only", dropout=0.3)]
    for arm in arms:
        for phase in ("train", "inference"):
            given = [
                build_examples(WORLD.pairs, WORLD.clips, WORLD.predicted, arm, phase=phase, human=human, seed=1)  # type: ignore[arg-type]
                for human in (WORLD.human, flipped, None)
            ]
            assert given[0] == given[1] == given[2]


def test_an_oracle_without_human_labels_and_one_of_predicted_ones_are_refused() -> None:
    oracle = system(name="oracle", of="human")
    with pytest.raises(DataError, match=r"needs what people said about the recordings, which was not passed"):
        build_examples(WORLD.pairs, WORLD.clips, WORLD.predicted, oracle, phase="train")
    with pytest.raises(DataError, match="an oracle is made of human labels only"):
        build_examples(WORLD.pairs, WORLD.clips, WORLD.predicted, oracle, phase="train", human=WORLD.predicted)
    for labels in ({}, {"noise": 0.5}, {"of": "other_recording"}):
        with pytest.raises(DataError, match="carries the human label emotion="):
            build_examples(WORLD.pairs, WORLD.clips, WORLD.human, system(**labels), phase="train", human=WORLD.human)


def test_settings_that_do_nothing_or_contradict_are_refused() -> None:
    with pytest.raises(ValidationError, match="labels says which labels are shown, but metadata is none"):
        system("none", noise=0.2)
    with pytest.raises(ValidationError, match=r"labels\.dropout=0\.2 is of training examples, but metadata is inference_only"):
        system("inference_only", dropout=0.2)
    with pytest.raises(ValidationError, match=r"wrong already; leave out noise=0\.1"):
        system(of="other_recording", noise=0.1)


def test_the_systems_of_finished_studies_are_written_as_they_were() -> None:
    assert [set(one.model_dump(mode="json")) for one in SYSTEMS] == [{"name", "data", "metadata", "hears", "weights_of"}] * 7
    noisy = system(noise=0.5)
    assert noisy.model_dump(mode="json")["labels"] == {"of": "predicted", "noise": 0.5, "share": 1.0, "dropout": 0.0}
    assert System.model_validate_json(noisy.model_dump_json()) == noisy


def test_an_attribute_that_no_labeller_gives_is_told_instead_of_never_shown() -> None:
    s32 = next(one for one in SYSTEMS if one.name == "S32")
    for name in ("emotoin", "gender"):
        wanted = MetadataConfig(attributes=("emotion", name))
        for phase in PHASES:
            with pytest.raises(
                DataError, match=rf"model\.metadata\.attributes: no predicted label is of {name}, .* has emotion\. Name"
            ):
                build_examples(WORLD.pairs, WORLD.clips, WORLD.predicted, s32, phase=phase, metadata=wanted)
    s30 = next(one for one in SYSTEMS if one.name == "S30")
    assert build_examples(WORLD.pairs, WORLD.clips, WORLD.predicted, s30, phase="train", metadata=wanted)  # shows none anyway
