"""When a transcript is not believed, and the two scores that are computed from its text."""

import pytest
from pydantic import ValidationError

from undertone.label.transcripts import Hallucination, compression_ratio, repeated_share
from undertone.records import Label


def heard(text: str | None = "we met at noon", **scores: float) -> Label:
    return Label(
        attribute="transcript",
        category=text,
        reason=None if text is not None else "no_words",
        distribution=scores or None,
        start_ms=0,
        end_ms=1000,
        labeller="x@1",
    )


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"compression_ratio": 2.4, "no_speech": 0.1, "mean_logprob": -0.2, "repeated": 0.3}, None),
        ({"compression_ratio": 2.41}, "compressible"),
        ({"repeated": 0.31}, "repeats"),
        ({"repeated": 0.31, "compression_ratio": 9.0}, "repeats"),
        ({"no_speech": 0.9, "mean_logprob": -0.9}, None),  # Whisper: a probable text is believed although it may be no speech
        ({"no_speech": 0.5, "mean_logprob": -3.0}, None),
        ({"no_speech": 0.61, "mean_logprob": -1.01}, "no_speech"),
        ({"no_speech": 0.9}, None),
        ({"mean_logprob": -3.0}, None),
        ({"posterior": 0.29}, "unsure"),
        ({"posterior": 0.3}, None),
        ({"posterior": 0.1, "repeated": 0.9}, "repeats"),
        ({}, None),
    ],
)
def test_a_transcript_is_refused_for_its_scores_and_for_nothing_that_is_not_scored(scores: dict[str, float], reason: str) -> None:
    assert Hallucination().refusal(heard(**scores)) == reason


def test_an_abstention_is_not_refused() -> None:
    assert Hallucination().refusal(heard(None, repeated=1.0)) is None


def test_thresholds_are_configuration_and_none_turns_one_off() -> None:
    loop = heard(repeated=0.5, compression_ratio=3.0)
    assert Hallucination(max_repeated=0.5).refusal(loop) == "compressible"
    assert Hallucination(max_repeated=None, max_compression_ratio=None).refusal(loop) is None
    silent = heard(no_speech=1.0, mean_logprob=-5.0)
    assert Hallucination(max_no_speech=None).refusal(silent) is None
    assert Hallucination(min_mean_logprob=None).refusal(silent) is None
    assert Hallucination(min_posterior=None).refusal(heard(posterior=0.0)) is None
    with pytest.raises(ValidationError, match="max_repeat"):
        Hallucination(max_repeat=0.5)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="max_no_speech"):
        Hallucination(max_no_speech=60)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("...", 0.0),
        ("one two three four", 0.0),
        ("no no", 0.0),
        ("No, no. NO!", 1.0),
        ("so it is so it is", 0.0),
        ("a b a b a b", 1.0),
        ("a b a b a b a", 1.0),  # the run goes on into a half n-gram
        ("x a b a b a b y", 6 / 8),
        ("a a b b a a b b a a b b", 1.0),  # a loop whose n-gram repeats itself
        ("go go go and stop stop stop now", 6 / 8),
        ("the cat the dog the cow", 0.0),
        ("don't don’t do", 0.0),
    ],
)
def test_repeated_share(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


def test_whisper_s_ratio_tells_a_long_loop_from_a_sentence() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("My fellow Americans, ask not what your country can do for you.") < 1.2
    assert compression_ratio("Thank you for watching. " * 10) > 2.4
    assert compression_ratio("bye bye bye") < 1.0  # why the share of repeated words is checked as well
