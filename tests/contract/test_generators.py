"""What every generator must do, whatever writes the questions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.test_grammar import DEMO, MIXED, clip, segment, spoken
from undertone.chat import Endpoint
from undertone.errors import ConfigError, ServiceError
from undertone.evaluate.mapping import to_label
from undertone.generate.grammar import STRATEGY_KINDS, GrammarGenerator
from undertone.generate.llm import LLMGenerator
from undertone.generate.offline import OfflineGenerator
from undertone.generate.protocol import Generator
from undertone.generate.stage import GenerateStage
from undertone.generate.strategies import STRATEGIES
from undertone.lexicon import ATTRIBUTE_OF_KIND, LABEL_WORDS
from undertone.records import QAPair
from undertone.testing.fake_endpoint import FakeEndpoint, Fault, Say, Told

CLIPS = [
    MIXED,
    spoken((DEMO[2], "angry", "female")).model_copy(update={"recording_id": "a" * 16}),
    spoken(("Say the word gaze.", "sad", "male"), ("Say the word hall.", "angry", "female")).model_copy(
        update={"recording_id": "b" * 16}
    ),
    clip(segment("Hm", 0, None, None)).model_copy(update={"recording_id": "c" * 16}),
]


def written(body: dict[str, Any]) -> str:
    """A model that reads its prompt and gives what it asks for: about the first line's emotion and gender, and of the kinds that it names."""
    prompt = body["messages"][0]["content"]
    emotion = next((one for one in LABEL_WORDS["emotion"] if f", {one}: " in prompt), None)
    gender = "female" if "] woman" in prompt else "male"
    answers = {"E": ("They sound " + str(emotion) + ".", emotion), "G": (f"The voice is {gender}.", gender)}

    def pair(kind: str) -> dict[str, Any]:
        answer, label = answers.get(kind[-1], ("At eight.", None))
        return {"kind": kind, "question": f"What about it, {kind}?", "answer": answer, "label": label}

    kinds = re.findall(r"^- (\w+) \(", prompt, re.MULTILINE)
    if '{"pairs"' in prompt:
        return json.dumps({"pairs": [pair(kind) for kind in kinds]})
    if '{"turns"' in prompt:
        return f"```json\n{json.dumps({'turns': [pair('CE'), pair('C')]})}\n```"
    if '{"replies"' in prompt:
        turns = re.findall(r"^\d+\. \(", prompt, re.MULTILINE)
        return json.dumps({"replies": [f"Oh, I see. What comes after {at}?" for at, _ in enumerate(turns, 1)]})
    if "reply_emotion" in prompt:
        return json.dumps({"reply_emotion": "Joyful", "reply": "I'm so sorry to hear that. What will you do now?"})
    return "Oh, I see. And when will it be?"


def asking(
    server: FakeEndpoint, strategy: str = "cpqa", *, at: Mapping[str, Any] = MappingProxyType({}), **settings: Any
) -> LLMGenerator:
    options = {"endpoint": server.url, "model": "fake", "retries": 1, **at}
    cache_dir = settings.pop("cache_dir", None)
    return LLMGenerator(STRATEGIES[strategy](**settings), at=Endpoint(**options), cache_dir=cache_dir)


OFFLINE = [name for name, kind in STRATEGIES.items() if kind.offline]


@pytest.fixture(
    params=[
        *(f"grammar:{one}" for one in STRATEGY_KINDS),
        *(f"offline:{one}" for one in OFFLINE),
        *(f"llm:{one}" for one in STRATEGIES),
    ]
)
def generator(request: pytest.FixtureRequest) -> Iterator[Generator]:
    how, strategy = request.param.split(":")
    if how == "grammar":
        yield GrammarGenerator(strategy=strategy)
        return
    if how == "offline":
        yield OfflineGenerator(STRATEGIES[strategy]())
        return
    with FakeEndpoint(written) as server:
        yield asking(server, strategy)


def test_pairs_are_complete_and_about_their_clip(generator: Generator) -> None:
    made = [(about, one) for about in CLIPS for one in generator.write(about, seed=1)]
    assert made
    for about, one in made:
        assert (one.recording_id, one.split) == (about.recording_id, about.split)
        turns = [segment.id for segment in about.segments] if one.source == "dialogue" else []
        assert one.clip_id in (turns or [about.id])
        by = generator.strategy if isinstance(generator, LLMGenerator) else generator
        assert one.generator == f"{by.name}@{by.version}"
        assert (one.model, one.raw is None) == (("fake", False) if isinstance(generator, LLMGenerator) else (None, True))
        assert one.evidence
        assert one.prompt_digest
        assert (one.label is None) == (one.label_attribute is None)
        if one.label_attribute is not None:
            assert one.label in LABEL_WORDS[one.label_attribute]


def test_pairs_do_not_depend_on_the_other_clips_or_their_order(generator: Generator) -> None:
    alone = [generator.write(one, seed=1) for one in CLIPS]
    assert generator.write_many(CLIPS, seed=1) == alone
    assert generator.write_many(CLIPS[::-1], seed=1) == alone[::-1]


def test_the_answer_says_the_label_in_words_that_the_evaluation_reads(generator: Generator) -> None:
    told = [
        one for about in CLIPS for one in generator.write(about, seed=1) if ATTRIBUTE_OF_KIND.get(one.kind) in ("emotion", "gender")
    ]
    told = [one for one in told if one.label is not None]
    silent = {
        "asr",
        "self_generated",
        "continuation",
        "dual_think",
        "dialogue",
    }  # they transcribe, or write no answer to a question with a label
    assert isinstance(generator, GrammarGenerator | OfflineGenerator | LLMGenerator)
    strategy = generator.strategy if isinstance(generator, GrammarGenerator) else generator.strategy.name
    assert told or strategy in silent
    for one in told:
        assert to_label(one.answer, one.label_attribute).label == one.label, one.answer  # type: ignore[arg-type]


# ---- the LLM generator, against what endpoints do --------------------------------------------------------------------------------

GOOD = json.dumps({"pairs": [{"kind": "C", "question": "When is dinner?", "answer": "At eight.", "label": None}]})


@pytest.mark.parametrize(
    "first",
    [Fault(status=429), Fault(status=500), "I think that", '{"pairs": [{"kind": "C"}]}', Say(refusal="no"), Say(text=GOOD[:20])],
)
def test_one_bad_reply_is_asked_again(first: Told) -> None:
    with FakeEndpoint([first, GOOD]) as server:
        (pair,) = asking(server).write(MIXED, seed=0)
    assert (pair.question, pair.answer, pair.raw, pair.source) == ("When is dinner?", "At eight.", GOOD, "cpqa")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("I think that", r"wrote nothing usable about clip r{16}@.* in 2 attempts: no JSON object in the reply 'I think that'"),
        (Say(text='{"pairs": [', finish="length"), r"cut at the token limit"),
        (Say(refusal="I will not."), r"it refused: I will not\."),
        (Fault(status=500), r"answered 500"),
    ],
)
def test_lasting_nonsense_is_a_service_error(told: Told, message: str) -> None:
    with FakeEndpoint([told]) as server, pytest.raises(ServiceError, match=message):
        asking(server).write(MIXED, seed=0)


def test_one_clip_that_fails_costs_no_other() -> None:
    def reply(body: dict[str, Any]) -> Told:
        return "nonsense" if "gaze" in body["messages"][0]["content"] else GOOD

    with FakeEndpoint(reply) as server:
        results = asking(server).write_many(CLIPS, seed=0)
    assert [isinstance(one, ServiceError) for one in results] == [False, False, True, False]


def test_each_clip_and_each_attempt_has_a_seed_of_its_own_and_the_same_again() -> None:
    def seeds(seed: int) -> list[int]:
        with FakeEndpoint(["nonsense", GOOD]) as server:
            for one in CLIPS[:2]:
                asking(server, at={"concurrency": 1}).write(one, seed=seed)
        return [one["seed"] for one in server.requests]

    assert len(set(seeds(0))) == 3
    assert seeds(0) == seeds(0) != seeds(1)


def test_a_cached_run_asks_nobody(tmp_path: Path) -> None:
    with FakeEndpoint(written) as server:
        first = asking(server, cache_dir=tmp_path).write(MIXED, seed=0)
        assert asking(server, cache_dir=tmp_path).write(MIXED, seed=0) == first
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("label", "read"), [("sad", "sad"), ("Sadness", "sad"), ("very unhappy", "sad"), ("bittersweet", None), ("happy or sad", None)]
)
def test_labels_are_read_as_classes_or_not_at_all(label: str, read: str | None) -> None:
    said = json.dumps({"pairs": [{"kind": "CE", "question": "How?", "answer": "So.", "label": label}]})
    with FakeEndpoint([said]) as server:
        (pair,) = asking(server).write(MIXED, seed=0)
    assert (pair.label, pair.label_attribute) == (read, "emotion" if read else None)


def test_kinds_that_were_not_asked_for_are_left_out() -> None:
    pairs = [{"kind": kind, "question": f"How {at}?", "answer": "So."} for at, kind in enumerate(("C", "CE", "CS", "C", "C"))]
    with FakeEndpoint([json.dumps({"pairs": pairs})]) as server:
        kept: list[QAPair] = asking(server, kinds=("C", "CE")).write(MIXED, seed=0)
    assert [(one.kind, one.question) for one in kept] == [("C", "How 0?"), ("CE", "How 1?"), ("C", "How 3?")]


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ("asr", {}, r"strategy 'asr' is written without an LLM"),
        ("cpqa", {"kinds": ["ASR"]}, r"strategy cpqa has 1 problem: kinds: got .*an LLM cannot be asked for ASR"),
        ("cpqa", {"proportions": {"OPEN": 1}}, r"strategy cpqa has .*proportions"),
        ("cpqa", {"evidence_form": "seeds"}, r"did you mean 'seed'\?"),
        ("continuation", {"mode": "sing"}, r"mode: got 'sing', expected 'reply' or 'continue'"),
        ("multi_turn", {"turn": 3}, r"turn: unknown key"),
    ],
)
def test_settings_are_checked_before_anything_is_asked(strategy: str, settings: dict[str, Any], message: str) -> None:
    llm = {"endpoint": "http://127.0.0.1:9/v1", "model": "fake"}
    with pytest.raises((ConfigError, ValidationError), match=message):
        GenerateStage(strategy=strategy, llm=llm, settings=settings)
