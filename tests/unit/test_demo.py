"""The demonstration corpus: the truth fits the audio, the audio fits the plan, and no one speaks in both splits."""

from __future__ import annotations

import collections
import functools
import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from undertone.corpora import demo, scripts
from undertone.corpora.demo import ConversationPlan, Rendered
from undertone.corpora.voices import VOICES
from undertone.errors import ConfigError

pytest.importorskip("espeakng_loader")


@functools.cache
def plans() -> list[ConversationPlan]:
    return demo.plan(seed=1, recordings_per_split={"train": 9, "test": 3})


@functools.cache
def rendered(index: int) -> Rendered:
    return demo.render(plans()[index])


def level_db(rendered: Rendered, start_ms: int, end_ms: int) -> float:
    return 10 * float(np.log10((rendered.samples[start_ms * 16 : end_ms * 16].astype(float) ** 2).mean()))


def test_speech_is_where_the_truth_says() -> None:
    for index, plan in enumerate(plans()):
        one = rendered(index)
        edges = [0, *itertools.chain.from_iterable((seg.start_ms, seg.end_ms) for seg in one.references), len(one.samples) // 16]
        gaps = [level_db(one, start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        speech = [level_db(one, seg.start_ms, seg.end_ms) for seg in one.references]
        assert max(gaps) - min(gaps) < 6, "between turns there is only noise"
        assert np.mean(speech) - np.mean(gaps) > plan.snr_db - 5
        assert min(speech) > max(gaps)


def test_every_turn_begins_and_ends_with_sound() -> None:
    """Without noise, 15 ms outside a segment are silent and 30 ms inside are not."""
    quiet = plans()[0].model_copy(update={"snr_db": 200.0})
    one = demo.render(quiet)
    for seg in one.references:
        assert level_db(one, seg.start_ms - 15, seg.start_ms) < -100
        assert level_db(one, seg.end_ms + 1, seg.end_ms + 15) < -100
        assert level_db(one, seg.start_ms, seg.start_ms + 30) > -80
        assert level_db(one, seg.end_ms - 30, seg.end_ms) > -80


def test_words_partition_their_segment() -> None:
    for index in range(len(plans())):
        for seg in rendered(index).references:
            assert [word.text for word in seg.words] == str(seg.transcript).rstrip(".").split()
            assert seg.words[0].start_ms == seg.start_ms
            assert seg.words[-1].end_ms == seg.end_ms
            assert all(a.end_ms == b.start_ms < b.end_ms for a, b in itertools.pairwise(seg.words))


def test_references_say_what_the_plan_says() -> None:
    genders = {f"demo/{voice.name}": voice.gender for voice in VOICES}
    for index, plan in enumerate(plans()):
        one = rendered(index)
        assert one.split == plan.split
        assert len(one.references) == len(plan.turns)
        for turn, seg in zip(plan.turns, one.references, strict=True):
            assert (seg.speaker, seg.transcript) == (f"demo/{turn.voice}", turn.text)
            assert seg.category("emotion") == turn.emotion
            assert seg.category("gender") == genders[str(seg.speaker)]
            assert {label.labeller for label in seg.labels} == {"human"}
            assert scripts.facts_of(turn.text)
        bound = one.references_for("0123456789abcdef")
        assert {seg.recording_id for seg in bound} == {"0123456789abcdef"}
        assert bound[0].words == one.references[0].words


def test_no_speaker_in_both_splits_and_all_are_heard() -> None:
    heard: dict[str, collections.Counter[str]] = {"train": collections.Counter(), "test": collections.Counter()}
    for plan in demo.plan(seed=3, recordings_per_split={"train": 40, "test": 24}):
        heard[plan.split].update({turn.voice for turn in plan.turns})
        assert 1 <= len({turn.voice for turn in plan.turns}) <= 2
    groups = {voice.name: voice.group for voice in VOICES}
    for split, voices in heard.items():
        assert {groups[name] for name in voices} == {split}
        assert set(voices) == {name for name, group in groups.items() if group == split}
        assert max(voices.values()) - min(voices.values()) <= 2


def test_rendering_is_deterministic_across_processes_through_json() -> None:
    plan = plans()[1]
    code = (
        "import hashlib, sys; from undertone.corpora import demo\n"
        "r = demo.render(demo.ConversationPlan.model_validate_json(sys.stdin.read()))\n"
        "print(hashlib.sha256(r.samples.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], input=plan.model_dump_json(), capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256(rendered(1).samples.tobytes()).hexdigest()
    assert ConversationPlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_plan_is_the_same_whatever_its_size() -> None:
    small = demo.plan(seed=1, recordings_per_split={"test": 2})
    assert small == [one for one in plans() if one.split == "test"][:2]
    assert demo.plan(seed=2, recordings_per_split={"test": 2}) != small


def test_pauses_levels_and_noise_stay_in_bounds() -> None:
    many = demo.plan(seed=4, recordings_per_split={"train": 60})
    assert {plan.noise for plan in many} == {"pink", "hum", "babble"}
    assert all(12 <= plan.snr_db <= 30 for plan in many)
    assert all(400 <= turn.pause_ms <= 1200 for plan in many for turn in plan.turns)
    for index in range(len(plans())):
        assert 0.01 < np.abs(rendered(index).samples).max() <= 0.98


def test_errors_name_all_problems() -> None:
    with pytest.raises(ConfigError, match=r"recordings_per_split\.train: got -1, expected >= 0; unknown split 'dev'; splits are"):
        demo.plan(seed=0, recordings_per_split={"train": -1, "dev": 3})
    turn = plans()[0].turns[0].model_copy(update={"voice": "nobody"})
    with pytest.raises(ConfigError, match=r"no voice 'nobody'; expected one of en-us\+f1"):
        demo.render(plans()[0].model_copy(update={"turns": (turn,)}))
    with pytest.raises(ValidationError):
        plans()[0].name = "x"  # type: ignore[misc]
