"""The reference judge: what scores, what is wrong, and what is no score at all."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from undertone.evaluate.judges import Item, ReferenceJudge, content_f1, normalised_tokens, token_f1
from undertone.evaluate.stage import JudgeStage
from undertone.records import Answer, QAPair
from undertone.refusals import is_refusal
from undertone.stages import Context, Failed, Kept, outcomes_of

SAD = {"kind": "CE", "answer": "The speaker is sad.", "label_attribute": "emotion", "label": "sad"}
TRAIN = {"kind": "C", "answer": "She missed the train."}


def make(pair: dict[str, str], text: str) -> Item:
    common = {"clip_id": "r@0-1", "recording_id": "r", "source": "benchmark", "question": "What is it?", "generator": "test@1"}
    made = QAPair.model_validate({**common, **pair})
    return Item(pair=made, answer=Answer(subject="S10", pair_id=made.id, text=text, raw=text))


@pytest.mark.parametrize(
    ("pair", "text", "score", "mapped"),
    [
        (SAD, "She sounds sad.", 100, "sad"),
        (SAD, "Not happy but gloomy.", 100, "sad"),
        (SAD, "She sounds angry.", 0, "angry"),
        (SAD, "Angry or sad.", 0, None),
        (SAD, "She talks about the bus.", 0, None),
        (SAD, "I cannot be sure, but I would say sad.", 100, "sad"),
        (SAD, "I cannot tell exactly, but it is anger.", 0, "angry"),
        (TRAIN, "She missed the train.", 100, None),
        (TRAIN, "She missed a TRAIN!", 100, None),
        (TRAIN, "It rained.", 0, None),
        (TRAIN, "missed train", 100, None),
        (TRAIN, "She missed the bus.", 50, None),
        ({"kind": "C", "answer": "I cannot help you, sorry."}, "I cannot help you.", 80, None),
        ({"kind": "C", "answer": "She says that she cannot tell."}, "She cannot tell.", 100, None),
    ],
)
def test_scores(pair: dict[str, str], text: str, score: float, mapped: str | None) -> None:
    found = ReferenceJudge().score(make(pair, text))
    assert (found.score, found.unscored, found.mapped_label) == (pytest.approx(score), None, mapped)


@pytest.mark.parametrize(
    ("pair", "text", "reason"),
    [
        (SAD, "", "unreadable"),
        (SAD, " ... ", "unreadable"),
        (SAD, "I'm sorry, but I can\u2019t identify emotions from audio.", "refused"),
        (SAD, "As an AI language model, I cannot hear.", "refused"),
        (TRAIN, "I cannot determine what was said.", "refused"),
        (TRAIN, "", "unreadable"),
        ({**TRAIN, "answer": "..."}, "She missed the train.", "no_reference"),
        ({"kind": "DE", "answer": "Scottish.", "label_attribute": "accent", "label": "scottish"}, "Scottish", "no_label"),
    ],
)
def test_no_score_has_a_reason(pair: dict[str, str], text: str, reason: str) -> None:
    found = ReferenceJudge().score(make(pair, text))
    assert (found.score, found.unscored) == (None, reason)


@pytest.mark.parametrize(
    "text",
    [
        "I cannot determine the emotion.",
        "I can't tell.",
        "Sorry, I don't know.",
        "I'm sorry, but I can't help with that.",
        "It is impossible to tell from the recording.",
        "It cannot be determined.",
        "Unable to determine.",
        "I don't have access to the audio.",
        "There is not enough information.",
        "I'm an AI and have no ears",
        "**I am unable to identify the speaker.**",
        "Unknown",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "She says that she is sorry for the delay.",
        "He does not know where the keys are.",
        "The speaker cannot tell the twins apart.",
        "She is unable to come on Monday.",
        "An ai weiwei exhibition.",
        "The answer is a bus.",
        "I would say that she is sad.",
    ],
)
def test_content_about_not_knowing_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("At noon.", "At nine.", 0),
        ("at nine", "At nine.", 1),
        ("They leave at nine.", "At nine.", 2 / 3),
        ("the last", "The last one.", 2 / 3),
        ("After work.", "Before work.", 1 / 2),
        ("At one.", "At nine.", 0),
        ("At nine.", "At one.", 0),
        ("At one.", "At one.", 1),
        ("With sugar.", "Without sugar.", 1 / 2),
        ("They did not pay.", "They didn\u2019t pay.", 1),
        ("They paid.", "They have not paid.", 2 / 3),
        ("to him", "To her.", 1 / 2),
    ],
)
def test_content_f1_counts_content_words(answer: str, reference: str, score: float) -> None:
    assert content_f1(answer, reference) == pytest.approx(score)


def test_token_f1_is_squads() -> None:
    assert normalised_tokens("The cat\u2019s hat, an OLD one!") == ["cats", "hat", "old", "one"]
    assert token_f1("the cat sat", "a cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    assert token_f1("no no no", "no") == pytest.approx(2 * 1 / 4)
    assert token_f1("", "") == 1
    assert token_f1("", "tea") == 0


def test_stage_accounts_for_every_answer(tmp_path: Path) -> None:
    known, stray = make(SAD, "sad"), make(TRAIN, "no such pair")
    stage = JudgeStage()
    table = SimpleNamespace(rows=lambda: iter([known.pair]))
    stage.open(Context(out_dir=tmp_path, seed=0, sides={"pairs": table}))  # type: ignore[dict-item]
    kept, failed = outcomes_of(stage, [known.answer, stray.answer])
    assert isinstance(kept, Kept)
    assert [(one.id, one.score) for one in kept.rows] == [(f"reference:S10:{known.pair.id}:0", 100)]
    assert isinstance(failed, Failed)
    assert stray.pair.id in failed.error


def test_stage_is_its_configuration() -> None:
    stage = JudgeStage()
    assert JudgeStage.model_validate_json(stage.model_dump_json()) == stage
    assert stage.identity()["judge"]["kind"] == "reference"
    assert len(stage.identity()["keywords"]) == 16
