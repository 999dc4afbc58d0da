"""Properties of replies over random conversations: usable, right about the emotion, reproducible, and dialogues that hang together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_generate_properties import babble, talks
from undertone.generate.askable import dominant_emotion
from undertone.generate.checks import CHECKS
from undertone.generate.stage import GenerateStage
from undertone.generate.strategies import think
from undertone.generate.strategies.base import usable_reply
from undertone.generate.strategies.dialogue import Dialogue, one_turn
from undertone.records import Clip, QAPair

names = st.sampled_from(["continuation", "dual_think", "dialogue"])
clips = talks | babble()


def written(strategy: str, about: Clip, seed: int) -> list[QAPair]:
    return GenerateStage(strategy=strategy, frames="test").made().write(about, seed=seed)


@given(names, clips, st.integers(0, 99))
def test_every_reply_is_usable_labelled_as_heard_and_passes_every_check(strategy: str, about: Clip, seed: int) -> None:
    utterances = {one.id: one_turn(about, one) for one in about.segments}
    for pair in written(strategy, about, seed):
        heard = utterances[pair.clip_id] if strategy == "dialogue" else about
        assert pair.label == dominant_emotion(heard)
        said = think.split(pair.answer).reply
        assert usable_reply(said) == said
        assert [name for name, check in CHECKS.items() if check(pair, heard) is not None] == []


@given(names, clips, st.integers(0, 99))
def test_replies_are_a_function_of_clip_and_seed(strategy: str, about: Clip, seed: int) -> None:
    assert written(strategy, about, seed) == written(strategy, about, seed)


@given(clips, st.integers(0, 99), st.integers(2, 4), st.integers(2, 4))
def test_dialogues_are_runs_of_two_to_four_turns_of_one_split_and_none_shares_a_turn(
    about: Clip, seed: int, one: int, other: int
) -> None:
    strategy = Dialogue(min_turns=min(one, other), max_turns=max(one, other))
    held = strategy.dialogues(about, seed=seed)
    assert all(list(run) == list(range(run[0], run[-1] + 1)) for run in held)
    assert all(strategy.min_turns <= len(run) <= strategy.max_turns for run in held)
    turns = [at for run in held for at in run]
    assert len(turns) == len(set(turns))
    made = GenerateStage(strategy="dialogue", settings={"min_turns": min(one, other), "max_turns": max(one, other)}).made()
    pairs = made.write(about, seed=seed)
    assert len(pairs) == len(turns)
    ids = [segment.id for segment in about.segments]
    for pair in pairs:
        order = [ids.index(clip_id) for clip_id in (*(turn.clip_id or "" for turn in pair.history), pair.clip_id)]
        assert order == sorted(set(order))
        assert pair.split == about.split
        voices = {about.segments[at].speaker for at in order} - {None}
        assert len(voices) < 2


@given(st.text(max_size=300))
def test_any_answer_can_be_split(answer: str) -> None:
    thought, said = think.split(answer)
    assert said in answer
    assert thought is None or answer.strip().lower().startswith(think.BEGIN)


@given(
    st.text(min_size=1, max_size=60),
    st.sampled_from([think.BEGIN, "<THINK>", " <think>"]),
    st.sampled_from([think.END, "</think>", ""]),
)
def test_any_thought_can_be_split(inside: str, begin: str, end: str) -> None:
    thought, said = think.split(f"{begin}{inside}{end}Oh no.")
    if end and not isinstance(thought, think.Unreadable):
        assert said.endswith("Oh no.")
    assert thought is not None
