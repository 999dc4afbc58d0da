"""Properties of the checks over arbitrary text: total, idempotent, and without regard to the order of what they look at."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.strategies import clips, segments, timelines
from undertone.execute import run_stage, write_rows
from undertone.generate.checks import ALL_CHECKS, CHECKS, CheckStage, Limits, MetadataLeak, RepeatStage, WordsOnly
from undertone.generate.checks.minhash import candidates, jaccard
from undertone.lexicon import LABEL_WORDS
from undertone.records import Clip, Kind, QAPair, Record, Segment, Turn
from undertone.refusals import is_refusal, is_refused_reply
from undertone.stages import Dropped, Kept
from undertone.tables import Fingerprint, open_table

PIECES = (
    "Why ",
    "does she feel ",
    "sad",
    "happy",
    "?",
    "\n",
    "the text",
    "I'm sorry",
    "\u200b",
    "他",
    "0.3",
    "train ",
    "a man ",
    " ",
)
text = st.text(min_size=1, max_size=40) | st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
storable = text.filter(lambda one: one.isprintable() or "\n" in one)
some_clip = st.sampled_from(["c0", "c1", "c2"])
honest = st.sampled_from(
    ["How does it end?", "How does it end", "Describe the mood.", "In a sad voice.", "They sound happy.", "Twice."]
)
kinds = st.sampled_from(get_args(Kind))
attributes = st.none() | st.sampled_from([*LABEL_WORDS, "event"])


@st.composite
def pairs(draw: st.DrawFn, of: st.SearchStrategy[str] = text, about: st.SearchStrategy[str] = some_clip) -> QAPair:
    turns = draw(st.lists(st.builds(Turn, question=of, answer=of), max_size=2))
    return QAPair(
        clip_id=draw(about),
        recording_id="r0",
        source="cpqa",
        kind=draw(kinds),
        question=draw(of),
        answer=draw(of),
        label_attribute=draw(attributes),
        label=draw(st.none() | st.sampled_from(["sad", "happy", "male", "2", "x"])),
        history=tuple(turns),
        generator="x@1",
        model=draw(st.none() | st.just("m")),
    )


@given(
    pairs(),
    clips()
    | st.builds(lambda one: Clip(recording_id="r0", uri="a", source="x", start_ms=0, end_ms=1, segments=(one,)), segments()),
)
def test_every_check_is_total_and_says_the_same_twice(pair: QAPair, about: Clip) -> None:
    assert len(CHECKS) >= 8
    for check in CHECKS.values():
        for limits in (Limits(), Limits(language="zh"), Limits(language="de"), Limits(language="tlh")):
            found = check(pair, about, limits)
            assert found is None or found.strip()
            assert check(pair, about, limits) == found


@given(pairs(), clips(), timelines())
def test_who_cannot_hear_guesses_a_class_of_what_is_asked_or_none(pair: QAPair, about: Clip, heard: list) -> None:  # type: ignore[type-arg]
    for asked in (WordsOnly().asked(pair, about), MetadataLeak().asked(pair, about, heard)):
        assert asked is None or asked.guess is None or asked.guess in {*LABEL_WORDS[asked.attribute], "surprised"}


@given(text)
def test_a_refused_reply_is_read_in_any_text(said: str) -> None:
    assert is_refusal(said) in (True, False)
    if is_refused_reply(said):
        assert is_refused_reply(f'"{said}"')


@given(st.lists(pairs(), max_size=12, unique_by=lambda one: one.id), st.randoms())
def test_repeats_are_the_same_in_any_order_and_gone_at_once(rows: list[QAPair], rng: object) -> None:
    stage = RepeatStage(copies=1, similarity=0.5)

    def left(of: list[QAPair]) -> list[QAPair]:
        outcomes = stage.process(of)
        assert all(one.model is not None for one, end in zip(of, outcomes, strict=True) if isinstance(end, Dropped))
        return [one for one, end in zip(of, outcomes, strict=True) if isinstance(end, Kept)]

    once = left(rows)
    assert left(once) == once
    mixed = list(rows)
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    assert {one.id for one in left(mixed)} == {one.id for one in once}


@given(st.lists(st.frozensets(st.integers(0, 30), max_size=6), max_size=20))
def test_equal_sets_are_candidates_and_no_set_is_its_own(sets: list[frozenset[int]]) -> None:
    found = set(candidates(sets))
    assert all(earlier < later for later, earlier in found)
    equal = {(later, earlier) for later, one in enumerate(sets) for earlier in range(later) if one and one == sets[earlier]}
    assert equal <= found
    assert all(0 <= jaccard(sets[later], sets[earlier]) <= 1 for later, earlier in found)


@settings(max_examples=15)
@given(st.data())
def test_what_passed_passes_again_with_the_same_marks(data: st.DataObject) -> None:
    about = data.draw(clips())
    rows = data.draw(st.lists(pairs(storable | honest, st.just(about.id)), max_size=8, unique_by=lambda one: one.id))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds_of: list[tuple[str, Sequence[Record], type[Record]]] = [
            ("clips", [about], Clip),
            ("raw", rows, QAPair),
            ("predicted", about.segments, Segment),
        ]
        for table, content, record in kinds_of:
            made = Fingerprint(stage=table, version="1", seed=0, config={}, inputs={})
            write_rows(folder / table, content, record=record, fingerprint=made, parts=1)
        sides = {"clips": folder / "clips", "predicted": folder / "predicted"}
        first = run_stage(CheckStage(), [folder / "raw"], folder / "once", sides=sides)
        assert first.counts.kept + first.counts.dropped == len(rows)
        again = run_stage(CheckStage(), [folder / "once"], folder / "twice", sides=sides)
        assert again.counts.dropped == again.counts.failed == 0
        once = list(open_table(folder / "once", QAPair).rows())
        assert list(open_table(folder / "twice", QAPair).rows()) == once
        assert all({*one.checks, *one.flags} == set(ALL_CHECKS) for one in once)
