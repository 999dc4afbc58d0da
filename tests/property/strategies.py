"""Random records."""

from __future__ import annotations

from hypothesis import strategies as st

from undertone.records import EMOTIONS, Clip, Label, Segment, Word

TEXT = st.text(max_size=12)
MS = st.integers(0, 10_000)


@st.composite
def labels(draw: st.DrawFn, *, labeller: str = "random@1") -> Label:
    start = draw(MS)
    end = start + draw(st.integers(1, 4_000))
    match draw(st.sampled_from(["emotion", "valence", "abstained"])):
        case "emotion":
            scores = {name: draw(st.floats(0, 1)) for name in draw(st.sets(st.sampled_from(EMOTIONS), max_size=3))}
            chosen = draw(st.sampled_from(EMOTIONS))
            return Label(
                attribute="emotion", category=chosen, distribution=scores or None, start_ms=start, end_ms=end, labeller=labeller
            )
        case "valence":
            return Label(attribute="valence", number=draw(st.floats(0, 1)), start_ms=start, end_ms=end, labeller=labeller)
        case _:
            return Label(attribute="emotion", reason="too_short", start_ms=start, end_ms=end, labeller=labeller)


@st.composite
def segments(draw: st.DrawFn, *, recording_id: str = "r0") -> Segment:
    start = draw(MS)
    words = tuple(Word(text=text, start_ms=start, end_ms=start + 1) for text in draw(st.lists(TEXT, max_size=3)))
    return Segment(
        recording_id=recording_id,
        start_ms=start,
        end_ms=start + draw(st.integers(1, 8_000)),
        speaker=draw(st.none() | TEXT),
        transcript=draw(st.none() | TEXT),
        words=words,
        labels=tuple(draw(st.lists(labels(), max_size=4))),
    )


@st.composite
def timelines(draw: st.DrawFn, *, recording_id: str = "r0", max_size: int = 12) -> list[Segment]:
    """Segments of one recording, one after the other, each with one emotion and one valence over its whole span."""
    made, at = [], 0
    for _ in range(draw(st.integers(1, max_size))):
        start = at + draw(st.integers(0, 3_000))
        at = start + draw(st.integers(200, 6_000))
        about = {"start_ms": start, "end_ms": at, "labeller": "random@1"}
        emotion = Label(attribute="emotion", category=draw(st.sampled_from(EMOTIONS)), **about)
        valence = Label(attribute="valence", number=draw(st.floats(0, 1)), **about)
        made.append(Segment(recording_id=recording_id, start_ms=start, end_ms=at, labels=(emotion, valence)))
    return made


@st.composite
def clips(draw: st.DrawFn, *, recording_id: str = "r0") -> Clip:
    run = draw(timelines(recording_id=recording_id, max_size=4))
    return Clip(
        recording_id=recording_id,
        uri="a.wav",
        source="random",
        split=draw(st.sampled_from(["train", "test", None])),
        start_ms=run[0].start_ms,
        end_ms=run[-1].end_ms,
        segments=tuple(run),
    )
