"""The demonstration scripts: facts stand in the text, and nothing but the voice tells the emotion."""

from __future__ import annotations

import collections
import itertools
import re

import numpy as np
import pytest
from scipy import stats

from undertone.corpora import scripts
from undertone.corpora.scripts import SPOKEN_EMOTIONS, TOPICS, Turn, conversation, facts_of
from undertone.errors import ConfigError

LINES = [line for topic in TOPICS for line in scripts.lines(topic)]
# Words that would tell how the speaker feels.
TELLING = set(
    re.findall(
        r"\w+",
        """happy sad angry afraid glad sorry love hate awful terrible great wonderful nice bad good fear scared surprise sudden
        unfortunately luckily finally cry laugh shout disgusting dirty lost broken died dead win won fail failed prize gift""",
    )
)


def drawn(count: int) -> list[Turn]:
    rng = np.random.default_rng(5)
    return [turn for _ in range(count) for turn in conversation(rng, lines=int(rng.integers(4, 10)), speakers=2)]


def test_size_of_the_grammar() -> None:
    words = {word for line in LINES for word in re.findall(r"[a-z]+", line.text.lower())}
    assert len(TOPICS) == 14
    assert all(len(scripts.lines(topic)) >= 24 for topic in TOPICS)
    assert 250 <= len(words) <= 500
    assert not words & TELLING
    assert len({line.text for line in LINES}) == len(LINES)


def test_sentences_are_short_and_name_their_topic() -> None:
    for line in LINES:
        assert 5 <= len(line.text.split()) <= 10, line.text
        assert re.fullmatch(r"[A-Z][A-Za-z ]+\.", line.text), line.text
        assert line.topic in line.text.lower()
        others = {topic.split()[-1].rstrip("s") for topic in TOPICS if topic != line.topic}
        assert not others & {word.rstrip("s") for word in re.findall(r"\w+", line.text.lower())}, line.text


def test_facts_stand_in_the_text_and_not_in_their_question() -> None:
    for line in LINES:
        assert line.facts
        for fact in line.facts:
            assert fact.answer.lower() in line.text.lower()
            assert not re.search(rf"\b{fact.answer}\b", fact.question_stem, re.IGNORECASE)
            assert len(scripts.alternatives(fact)) == 2
            assert re.fullmatch(r"[a-z][A-Za-z ]+", fact.question_stem)


def test_a_question_belongs_to_one_template() -> None:
    stems = [stem for templates in scripts._GRAMMAR.values() for _, *own in templates for stem in own]
    assert len(set(stems)) == len(stems) >= 14 * 9
    assert all(len(line.facts) == text.count("{") for line, text in zip(LINES, _templates(), strict=True))


def _templates() -> list[str]:
    return [text for topic in TOPICS for text, *_ in scripts._GRAMMAR[topic] for _ in range(3 ** text.count("{"))]


def test_facts_are_recovered_from_transcripts() -> None:
    coast = scripts.Fact("when does the train to the coast leave", "at nine")
    assert facts_of("The train to the coast leaves at nine.") == (coast,)
    two = facts_of("My aunt works in the library every day. Someone from Dublin joins the meeting.")
    assert [fact.answer for fact in two] == ["my aunt", "every day", "Dublin"]
    assert facts_of("The train to the coast leaves at eleven.") == ()
    assert facts_of("") == ()
    for line in LINES:
        assert facts_of(line.text) == line.facts


def test_topics_do_not_repeat_and_speakers_alternate() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        turns = conversation(rng, lines=int(rng.integers(4, 10)), speakers=2)
        assert len({turn.line.topic for turn in turns}) == len(turns)
        assert all(a.speaker_index != b.speaker_index for a, b in itertools.pairwise(turns))
    assert {turn.speaker_index for turn in conversation(rng, lines=5, speakers=1)} == {0}


@pytest.mark.parametrize("of", ["topic", "speaker", "previous"])
def test_emotion_is_independent(of: str) -> None:
    turns = drawn(2000)
    other = {
        "topic": [turn.line.topic for turn in turns],
        "speaker": [turn.speaker_index for turn in turns],
        "previous": [turns[i - 1].emotion for i in range(len(turns))],
    }[of]
    rows = sorted(set(other), key=str)
    counts = np.zeros((len(rows), len(SPOKEN_EMOTIONS)))
    for value, turn in zip(other, turns, strict=True):
        counts[rows.index(value), SPOKEN_EMOTIONS.index(turn.emotion)] += 1
    assert counts.min() > 5
    assert stats.chi2_contingency(counts).pvalue > 0.01


def test_neutral_is_over_represented() -> None:
    share = collections.Counter(turn.emotion for turn in drawn(1500))
    total = share.total()
    assert share["neutral"] / total == pytest.approx(0.35, abs=0.02)
    assert all(share[one] / total == pytest.approx(0.65 / 6, abs=0.015) for one in SPOKEN_EMOTIONS if one != "neutral")


def test_deterministic_by_seed() -> None:
    one, two, other = (conversation(np.random.default_rng(seed), lines=6, speakers=2) for seed in (3, 3, 4))
    assert one == two
    assert one != other


def test_errors_give_the_bounds() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"lines: got 3, expected 4\.\.9"):
        conversation(rng, lines=3, speakers=1)
    with pytest.raises(ConfigError, match="speakers: got 3, expected 1 or 2"):
        conversation(rng, lines=4, speakers=3)
    with pytest.raises(ConfigError, match="no sentences about 'the moon'; expected one of the train"):
        scripts.lines("the moon")
