"""Properties of evidence: every form reads back what it shows at its rounding, whatever was said, and keeps to its budget."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import segments
from tests.unit.test_grammar import clip
from undertone.errors import DataError
from undertone.generate.evidence import (
    FORMS,
    Evidence,
    Gap,
    Line,
    Tone,
    Voice,
    escape,
    escape_label,
    estimated_tokens,
    fitted,
    gather,
    parse,
    render,
    unescape,
)
from undertone.generate.evidence.levels import LEVELS
from undertone.records import EMOTIONS, Clip, Segment, Word

ANY = st.text(max_size=20)
HOSTILE = st.lists(
    st.sampled_from(
        [
            *(
                "[",
                "]",
                "(",
                ")",
                ":",
                ",",
                " ",
                "\n",
                "\r",
                "\t",
                "\\",
                '"',
                "'",
                "<",
                ">",
                "|",
                "=",
                "===",
                "```",
                "...",
                "…",
                "-",
            ),
            *(
                "\\n",
                "\\u{5b}",
                "[0.0-2.0 s] ",
                "[00:00-00:09] ",
                " (Emotion: sad)",
                "(no words)",
                "words: ",
                "emotion: happy",
                "[INST]",
            ),
            *("[... 9.0 s of speech left out]", "no labels", "speaker 2, ", "man", "sad", "valence 0.10", "intensity strong"),
            *("😀", "👩‍👩‍👧", "مرحبا", "שלום", "\u202e", "\u200f", "\u2028", "\x85", "\x00", "\x1c", "\U000e0061", "a", "0", "é"),
        ]
    ),
    max_size=8,
).map("".join)
SAID = ANY | HOSTILE
LABEL = st.sampled_from([*EMOTIONS, "male", "female"]) | SAID
UNIT = st.floats(0, 1)
LEVEL = st.sampled_from(LEVELS)
VOICE = st.builds(
    Voice,
    pitch_hz=st.none() | st.floats(50, 600),
    pitch=st.none() | LEVEL,
    pitch_in_gender=st.none() | LEVEL,
    pitch_range_st=st.none() | st.floats(0, 40),
    volume_db=st.none() | st.floats(-120, 3),
    volume=st.none() | LEVEL,
    speed_hz=st.none() | st.floats(0, 12),
    speed=st.none() | LEVEL,
    pause_share=st.none() | UNIT,
)
TONE = st.builds(Tone, *(st.none() | LABEL for _ in range(2)), *(st.none() | UNIT for _ in range(3)))
LINES = st.builds(
    lambda start, length, speaker, tone, voice, text: Line(
        start_ms=start, end_ms=start + length, speaker=speaker, tone=tone, voice=voice, text=text
    ),
    st.integers(0, 4_000_000),
    st.integers(0, 60_000),
    st.none() | st.integers(1, 12),
    TONE,
    VOICE,
    st.none() | SAID,
)
GAPS = st.builds(Gap, ms=st.integers(0, 100_000), neutral=st.booleans())
EVIDENCE = st.builds(lambda parts: Evidence(parts=tuple(parts)), st.lists(LINES | GAPS, max_size=5))
NAMES = st.sampled_from(["words", "dimensional", "seed", "metadata"])


def to(step: int, ms: int) -> int:
    return math.floor(ms / step + 0.5) * step


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}f}")


def in_words(line: Line) -> Line:
    tone = Tone(line.tone.emotion, line.tone.gender)
    return Line(start_ms=to(100, line.start_ms), end_ms=to(100, line.end_ms), speaker=line.speaker, tone=tone, text=line.text)


def in_dimensional(line: Line) -> Line:
    numbers = (rounded(one, 2) for one in (line.tone.valence, line.tone.arousal, line.tone.dominance))
    return in_words(line).model_copy(update={"tone": Tone(line.tone.emotion, line.tone.gender, *numbers)})


def in_seed(line: Line) -> Line:
    voice = Voice(pitch=line.voice.pitch_in_gender or line.voice.pitch, volume=line.voice.volume, speed=line.voice.speed)
    times = {"start_ms": line.start_ms // 1000 * 1000, "end_ms": math.ceil(line.end_ms / 1000) * 1000}
    return in_words(line).model_copy(update={**times, "voice": voice})


def in_metadata(line: Line) -> Line:
    said = line.voice
    voice = Voice(
        pitch_hz=rounded(said.pitch_hz, 0),
        pitch=said.pitch if said.pitch_hz is not None else None,
        pitch_in_gender=said.pitch_in_gender if said.pitch_hz is not None else None,
        pitch_range_st=rounded(said.pitch_range_st, 1),
        volume_db=rounded(said.volume_db, 0),
        volume=said.volume if said.volume_db is not None else None,
        speed_hz=rounded(said.speed_hz, 1),
        speed=said.speed if said.speed_hz is not None else None,
        pause_share=None if said.pause_share is None else float(f"{100 * said.pause_share:.0f}") / 100,
    )
    return in_words(line).model_copy(update={"voice": voice})


SHOWN: dict[str, Callable[[Line], Line]] = {
    "words": in_words,
    "dimensional": in_dimensional,
    "seed": in_seed,
    "metadata": in_metadata,
}


def test_every_form_is_tested_here() -> None:
    assert set(SHOWN) == set(FORMS)


@given(EVIDENCE, NAMES)
def test_a_form_reads_back_what_it_shows(evidence: Evidence, form: str) -> None:
    text = FORMS[form].text(evidence)
    parts = tuple(
        SHOWN[form](one) if isinstance(one, Line) else one.model_copy(update={"ms": to(100, one.ms)}) for one in evidence.parts
    )
    assert parse(text, form) == Evidence(parts=parts)


@given(segments().map(clip), NAMES)
def test_a_clip_is_read_back_from_its_text(about: Clip, form: str) -> None:
    assert parse(render(about, form), form).lines == tuple(SHOWN[form](one) for one in gather(about, form).lines)


@given(HOSTILE | st.text(alphabet="[]().: 0123456789-sd,manh\n\\", max_size=40), NAMES)
def test_what_is_read_is_exactly_what_would_be_written(text: str, form: str) -> None:
    try:
        evidence = parse(text, form)
    except DataError:
        return
    assert FORMS[form].text(evidence) == text


@given(SAID)
def test_escapes_are_undone_and_leave_nothing_unseen(said: str) -> None:
    for escaped in (escape(said), escape_label(said)):
        assert unescape(escaped) == said
        assert not any(unicodedata.category(one) in ("Cc", "Zl", "Zp") for one in escaped)
        assert not any(
            unicodedata.bidirectional(one) in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI") for one in escaped
        )
        assert len(escaped.splitlines()) <= 1


@given(st.lists(SAID, max_size=3), NAMES)
def test_no_words_change_the_number_of_lines(said: list[str], form: str) -> None:
    def about(texts: list[str]) -> Clip:
        words = tuple(Word(text=one, start_ms=10 * at, end_ms=10 * at + 9) for at, one in enumerate(texts))
        return clip(Segment(recording_id="r0", start_ms=0, end_ms=900, transcript=" ".join(texts), words=words))

    assert len(render(about(said), form).splitlines()) == len(render(about(["a"] * len(said)), form).splitlines())


@given(EVIDENCE, NAMES, st.integers(12, 200))
def test_what_is_left_keeps_to_the_budget_and_the_rest_is_told(evidence: Evidence, form: str, budget: int) -> None:
    short = fitted(evidence, FORMS[form], budget)
    assert estimated_tokens(FORMS[form].text(short)) <= budget
    assert short.left_out_ms + sum(one.duration_ms for one in short.lines) == evidence.left_out_ms + sum(
        one.duration_ms for one in evidence.lines
    )
    whole = [one for one in short.lines if one in evidence.lines]
    cut = [one for one in short.lines if one not in evidence.lines]
    assert len(cut) <= (not whole)
    assert all(any((old.text or "").startswith(one.text or "") for old in evidence.lines) for one in cut)
    before = iter(evidence.lines)
    assert all(one in before for one in whole)  # in their order
    if estimated_tokens(FORMS[form].text(evidence)) <= budget:
        assert short == evidence


@given(EVIDENCE, NAMES, st.integers(12, 200))
def test_a_colourless_stretch_stays_only_where_every_coloured_one_does(evidence: Evidence, form: str, budget: int) -> None:
    short = fitted(evidence, FORMS[form], budget)
    plain = {None, "neutral", "other", "unknown"}
    if any(one.tone.emotion in plain for one in short.lines) and any(one.tone.emotion not in plain for one in evidence.lines):
        assert [one for one in short.lines if one.tone.emotion not in plain] == [
            one for one in evidence.lines if one.tone.emotion not in plain
        ]
