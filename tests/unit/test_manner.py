"""Which emotion a reply of the grammar replies to: read back from its words."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from undertone.evaluate.judges import Item
from undertone.evaluate.manner import MannerJudge, manner_of
from undertone.generate.frames.replies import MANNERS
from undertone.generate.replies import write_reply
from undertone.records import Answer, Clip, QAPair, Segment


def clip() -> Clip:
    spoken = Segment(recording_id="r", start_ms=0, end_ms=900, transcript="My sister missed the train.")
    return Clip(recording_id="r", uri="r.wav", source="toy", start_ms=0, end_ms=900, segments=(spoken,))


def judged(text: str, label: str | None = "sad") -> tuple[float | None, str | None, str | None]:
    pair = QAPair(
        clip_id="r@0-900", recording_id="r", source="t", kind="REPLY", question="", answer="Oh no.", label=label, generator="t@1"
    )
    found = MannerJudge().score(Item(pair=pair, answer=Answer(subject="m", pair_id=pair.id, text=text, raw=text)))
    return found.score, found.unscored, found.mapped_label


def test_a_reply_that_never_came_is_not_scored() -> None:
    pair = QAPair(
        clip_id="r@0-900", recording_id="r", source="t", kind="REPLY", question="", answer="Oh no.", label="sad", generator="t@1"
    )
    silent = Answer(subject="m", pair_id=pair.id, text="", raw="", unanswered="refused")
    assert MannerJudge().score(Item(pair=pair, answer=silent)).unscored == "refused"


@pytest.mark.parametrize("frames", ["train", "test"])
@pytest.mark.parametrize("emotion", sorted(MANNERS["train"]))
def test_what_the_grammar_writes_for_an_emotion_reads_as_that_emotion(emotion: str, frames: str) -> None:
    rng = random.Random(3)
    read = Counter(manner_of(write_reply(clip(), emotion, rng, frames=frames).text) for _ in range(60))  # type: ignore[arg-type]
    assert read[emotion] >= 54, read
    assert set(read) <= {emotion, None}, read


def test_a_reply_to_another_emotion_is_wrong_and_no_reply_is_no_score() -> None:
    wording = MANNERS["train"]["sad"].reaction.strong[0]
    assert judged(f"{wording}.") == (100.0, None, "sad")
    assert judged(f"{wording}.", label="angry") == (0.0, None, "sad")
    assert judged("The weather is nice today.") == (0.0, None, None)
    assert judged(" ...") == (None, "unreadable", None)
    assert judged(f"{wording}.", label=None)[:2] == (None, "no_label")


def test_as_many_wordings_of_two_emotions_claim_neither() -> None:
    sad, angry = (MANNERS["train"][one].reaction.strong[0] for one in ("sad", "angry"))
    assert manner_of(f"{sad}. {angry}.") is None


def test_of_an_answer_that_thinks_the_reply_alone_is_read() -> None:
    sad, angry = (MANNERS["train"][one].reaction.strong[0] for one in ("sad", "angry"))
    assert judged(f"<think>Words: {angry}<think end>{sad}.")[2] == "sad"
