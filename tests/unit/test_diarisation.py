"""The diarisation error rate against cases worked out by hand, and what holds for any turns."""

from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertone.errors import DataError
from undertone.evaluate.diarisation import Turn, changes, diarisation_error, matches, read_rttm, total

TURN = st.tuples(st.integers(0, 60), st.integers(1, 30), st.sampled_from("abcd")).map(lambda t: Turn(t[0], t[0] + t[1], t[2]))
TURNS = st.lists(TURN, max_size=7)
COLLAR = st.sampled_from([0, 1, 4])


def test_each_kind_of_error_is_counted_in_speaker_time() -> None:
    reference = [Turn(0, 10, "a"), Turn(10, 20, "b"), Turn(15, 20, "a")]
    found = [Turn(0, 8, "x"), Turn(10, 14, "x"), Turn(14, 20, "y"), Turn(25, 28, "y")]
    error = diarisation_error(reference, found)
    assert error.speech_ms == 25
    assert error.missed_ms == 2 + 5  # 8-10, and one of two speakers in 15-20
    assert error.false_alarm_ms == 3
    assert error.confusion_ms == 4  # 10-14 is x, who is a
    assert error.rate == pytest.approx(14 / 25)
    assert (error.speakers, error.found, error.count_error) == (2, 2, 0)


def test_collar_leaves_out_both_sides_of_reference_boundaries_only() -> None:
    reference = [Turn(100, 200, "a"), Turn(200, 300, "b")]
    found = [Turn(90, 205, "x"), Turn(205, 310, "y")]
    assert diarisation_error(reference, found, collar_ms=10).rate == 0
    assert diarisation_error(reference, found, collar_ms=10).speech_ms == 200 - 4 * 10
    assert diarisation_error(reference, found).rate == pytest.approx((10 + 5 + 10) / 200)


def test_touching_turns_of_one_speaker_have_no_boundary() -> None:
    whole, cut = [Turn(0, 100, "a")], [Turn(0, 50, "a"), Turn(50, 100, "a"), Turn(70, 70, "ghost")]
    assert diarisation_error(whole, whole, collar_ms=5) == diarisation_error(cut, cut, collar_ms=5).model_copy(
        update={"speakers": 1, "found": 1}
    )
    assert diarisation_error(cut, whole, collar_ms=5).speech_ms == 90


def test_without_reference_speech_there_is_no_rate() -> None:
    error = diarisation_error([], [Turn(0, 10, "x")])
    assert (error.rate, error.false_alarm_ms, error.count_error) == (None, 10, 1)
    assert diarisation_error([], []).rate is None


def test_total_weighs_by_time() -> None:
    parts = [
        diarisation_error([Turn(0, 10, "a")], []),
        diarisation_error([Turn(0, 30, "a")], [Turn(0, 30, "x")]),
        diarisation_error([], []),
    ]
    joined = total(parts)
    assert (joined.rate, joined.recordings, joined.speakers, joined.found, joined.count_error) == (0.25, 3, 2, 1, 1)
    assert total([]).rate is None


@settings(max_examples=150, deadline=None)
@given(TURNS, TURNS, COLLAR)
def test_rate_is_the_brute_force_minimum(reference: list[Turn], found: list[Turn], collar: int) -> None:
    error = diarisation_error(reference, found, collar_ms=collar)
    edges = [e for t in _plain(reference) for e in t]
    frames = [f for f in range(95) if not any(e - collar <= f < e + collar for e in edges)]
    here = [{t.speaker for t in reference if t.start_ms <= f < t.end_ms} for f in frames]
    there = [{t.speaker for t in found if t.start_ms <= f < t.end_ms} for f in frames]
    names, guesses = "abcd", "abcd"
    best = min(
        sum(max(len(h), len(t)) - len(h & {mapping[guesses.index(g)] for g in t}) for h, t in zip(here, there, strict=True))
        for mapping in permutations(names)
    )
    assert error.missed_ms + error.false_alarm_ms + error.confusion_ms == best
    assert error.speech_ms == sum(map(len, here))


def _plain(turns: list[Turn]) -> list[tuple[int, int]]:
    """Stretches of each speaker, joined millisecond by millisecond."""
    made = []
    for name in {t.speaker for t in turns}:
        on = [any(t.start_ms <= f < t.end_ms for t in turns if t.speaker == name) for f in range(96)]
        starts = [f for f in range(96) if on[f] and (f == 0 or not on[f - 1])]
        ends = [f for f in range(1, 96) if not on[f] and on[f - 1]]
        made += list(zip(starts, ends, strict=True))
    return made


@settings(max_examples=100, deadline=None)
@given(TURNS, TURNS, st.permutations("abcd"), COLLAR)
def test_names_do_not_matter(reference: list[Turn], found: list[Turn], names: list[str], collar: int) -> None:
    renamed = [turn._replace(speaker="z" + names["abcd".index(turn.speaker)]) for turn in found]
    assert diarisation_error(reference, renamed, collar_ms=collar) == diarisation_error(reference, found, collar_ms=collar)


@settings(max_examples=100, deadline=None)
@given(TURNS, TURNS, COLLAR)
def test_parts_are_bounded_and_perfect_is_zero(reference: list[Turn], found: list[Turn], collar: int) -> None:
    error = diarisation_error(reference, found, collar_ms=collar)
    assert min(error.missed_ms, error.false_alarm_ms, error.confusion_ms) >= 0
    assert error.missed_ms + error.confusion_ms <= error.speech_ms
    perfect = diarisation_error(reference, reversed(reference), collar_ms=collar)
    assert perfect.rate in (0.0, None)
    assert perfect.count_error == 0


def test_changes_are_where_another_speaker_begins() -> None:
    turns = [Turn(0, 10, "a"), Turn(12, 20, "a"), Turn(18, 30, "b"), Turn(25, 27, "a"), Turn(40, 50, "a")]
    assert changes(turns) == (18, 25)
    assert changes([]) == ()


def test_matches_count_moments_and_spans() -> None:
    found = matches([100, 500, 900], [(0, 80), (480, 520), (600, 700)], tolerance_ms=20)
    assert (found.moments_found, found.spans_right) == (2, 2)
    assert found.precision == found.recall == found.f1 == pytest.approx(2 / 3)
    assert matches([], [(0, 1)], tolerance_ms=0).f1 == 0
    assert matches([], [], tolerance_ms=0).f1 is None
    assert matches([5], [], tolerance_ms=0).f1 == 0


def test_rttm_is_read_and_bad_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "some.rttm"
    file.write_text(
        "SPKR-INFO one 1 <NA> <NA> <NA> unknown É1 <NA> <NA>\n\nSPEAKER one 1 2.5 0.75 <NA> <NA> É1 <NA> <NA>\n"
        "SPEAKER two 1 0 1 <NA> <NA> B <NA>\nSPEAKER one 1 0.1004 1 <NA> <NA> B <NA> <NA>\n",
        encoding="utf-8",
    )
    assert read_rttm(file) == {"one": (Turn(100, 1100, "B"), Turn(2500, 3250, "É1")), "two": (Turn(0, 1000, "B"),)}
    for line in ("SPEAKER one 1 x 1 <NA> <NA> B", "SPEAKER one 1 0 1 <NA>", "SPEAKER one 1 inf 1 <NA> <NA> B"):
        file.write_text(f"SPEAKER two 1 0 1 <NA> <NA> B\n{line}\n")
        with pytest.raises(DataError, match="line 2: got 'SPEAKER one"):
            read_rttm(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_rttm(tmp_path / "absent.rttm")
