"""Dialogues with speech in each turn: where each clip is heard, and that batches, shared rows and streams say what single ones say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tests.unit.test_train import MODEL
from undertone.errors import DataError, ModelError
from undertone.model import prompts
from undertone.model.collate import Item, prompt_batch, training_batch
from undertone.model.config import AuxConfig, SpeechLLMConfig
from undertone.model.examples import System, build_examples
from undertone.model.speech_llm import SpeechLLM
from undertone.model.tokenizer import train_tokenizer
from undertone.records import Clip, Example, Label, QAPair, Segment, Turn, from_arrow, to_arrow
from undertone.train.config import TrainConfig
from undertone.train.feed import Feed, Row
from undertone.train.trainer import train

DIM = 8
HEADED = MODEL.model_copy(update={"aux": AuxConfig(classes=("sad", "happy"), dimensions=())})
HEARS = System(name="hears", data=("dialogues",))
READS_BEFORE = System(name="reads before", data=("dialogues",), history="text")
READS = System(name="reads", data=("dialogues",), hears="words")
QUESTION = "Reply to the speaker."


def clip(number: int) -> Clip:
    label = Label(attribute="emotion", category=("sad", "happy")[number % 2], start_ms=0, end_ms=1_000, labeller="toy@1")
    segment = Segment(recording_id=f"r{number}", start_ms=0, end_ms=1_000, transcript=f"line {number}", labels=(label,))
    return Clip(recording_id=f"r{number}", uri="", source="toy", start_ms=0, end_ms=1_000, segments=(segment,))


CLIPS = {one.id: one for one in map(clip, range(6))}
IDS = list(CLIPS)
PREDICTED = {one.recording_id: list(one.segments) for one in CLIPS.values()}
FRAMES = {name: np.random.default_rng(at).normal(size=(6 + 5 * at, DIM)).astype(np.float32) for at, name in enumerate(IDS)}


def pair(*numbers: int, question: str = QUESTION, answer: str | None = None) -> QAPair:
    """A dialogue whose user speaks these clips; the last is to be answered."""
    *before, last = numbers
    turns = [Turn(question=QUESTION, answer=f"I hear {number}.", clip_id=IDS[number]) for number in before]
    about = {"clip_id": IDS[last], "recording_id": f"r{last}", "source": "dialogues", "kind": "REPLY", "generator": "toy@1"}
    return QAPair.model_validate(
        {**about, "split": "train", "question": question, "answer": answer or f"I hear {last}.", "history": turns}
    )


def examples(*pairs: QAPair, system: System = HEARS, **more: Any) -> list[Example]:
    return build_examples(pairs, CLIPS, PREDICTED, system, phase="train", **more)


def model_of(parts: SpeechLLMConfig = MODEL) -> SpeechLLM:
    texts = [prompts.build(QUESTION), *(f"I hear {number}. Transcript: line {number}" for number in range(6))]
    torch.manual_seed(2)
    return SpeechLLM(parts, train_tokenizer(texts, vocab_size=300), frame_dim=DIM).eval()


def item(model: SpeechLLM, example: Example, **more: Any) -> Item:
    return model.item(example.prompt, [FRAMES[name] for name in prompts.heard(example)], **more)


def test_each_turn_has_its_speech_before_its_question() -> None:
    (heard,), (before,), (read,) = (examples(pair(0, 1, 2), system=system) for system in (HEARS, READS_BEFORE, READS))
    assert heard.prompt == (
        "<audio>\nReply to the speaker.\nAnswer: I hear 0.\n<audio>\nReply to the speaker.\nAnswer: I hear 1.\n<audio>\n"
        "Reply to the speaker.\nAnswer:"
    )
    assert before.prompt == (
        "Transcript: line 0\nReply to the speaker.\nAnswer: I hear 0.\nTranscript: line 1\nReply to the speaker.\nAnswer: I hear 1.\n"
        "<audio>\nReply to the speaker.\nAnswer:"
    )
    assert read.prompt == before.prompt.replace("<audio>", "Transcript: line 2")
    assert [prompts.heard(one) for one in (heard, before, read)] == [(IDS[0], IDS[1], IDS[2]), (IDS[2],), ()]
    assert from_arrow(to_arrow([heard], Example), Example) == [heard]


def test_a_dialogue_about_one_clip_is_as_it_was() -> None:
    asked = pair(3).model_copy(update={"history": (Turn(question="Who?", answer="A man."),)})
    (made,) = examples(asked)
    assert made.prompt == "<audio>\nWho?\nAnswer: A man.\nReply to the speaker.\nAnswer:"
    assert prompts.heard(made) == (IDS[3],)


def test_the_teacher_is_told_the_emotion_of_each_turn() -> None:
    (made,) = examples(pair(0, 1), targets=True)
    told = made.teacher or {}
    assert told["emotion"].startswith(
        "Transcript: (sad) line 0\nReply to the speaker.\nAnswer: I hear 0.\nTranscript: (happy) line 1\n"
    )
    assert told["nothing"] == told["emotion"].replace("(sad) ", "").replace("(happy) ", "")
    assert made.category == "happy"


def test_ids_tell_dialogues_apart() -> None:
    spoken = pair(0, 1)
    written = spoken.model_copy(update={"history": tuple(one.model_copy(update={"clip_id": None}) for one in spoken.history)})
    assert len({spoken.id, written.id, pair(2, 1).id, pair(1).id}) == 4


def test_dialogues_that_end_with_the_assistant_are_refused() -> None:
    answered = pair(0, 1).model_copy(update={"question": "", "clip_id": IDS[0]})
    with pytest.raises(DataError, match=rf"pair .* the dialogue ends with the assistant: clip {IDS[0]} is answered already"):
        examples(answered)
    turns = [Turn(question="Who?", answer="A man.")]
    with pytest.raises(
        DataError, match=r"this dialogue ends with the assistant \('A man\.'\), so that there is nothing to answer; end it with"
    ):
        prompts.build("", history=turns)
    spoken = [Turn(question="Who?", answer="A man.", clip_id=IDS[0])]
    with pytest.raises(DataError, match="ends with the assistant"):
        prompts.build("", history=spoken, speech="", spoken=lambda turn: prompts.AUDIO)
    assert prompts.build("", history=spoken, spoken=lambda turn: prompts.AUDIO).endswith("A man.\n<audio>\nAnswer:")
    with pytest.raises(DataError, match="say with spoken="):
        prompts.build("What?", history=spoken)
    with pytest.raises(DataError, match=r"an earlier turn was spoken in clip nowhere, which is not among the 6 clips"):
        examples(pair(0, 1).model_copy(update={"history": (Turn(question="a", answer="b", clip_id="nowhere"),)}))


def test_audio_tokens_stand_where_their_clips_are_heard() -> None:
    model = model_of()
    (made,) = examples(pair(0, 3, 1))
    found = item(model, made)
    counts = [model.embeddings_of(len(FRAMES[IDS[number]])) for number in (0, 3, 1)]
    assert [stop - start for start, stop in found.spans] == counts
    audio = model.tokenizer.audio_id
    assert [index for index, one in enumerate(found.prompt) if one == audio] == [at for span in found.spans for at in range(*span)]
    assert all(before[1] < after[0] for before, after in zip(found.spans, found.spans[1:], strict=False))
    with pytest.raises(
        ModelError, match=r"the prompt has 3 placeholders <audio> for 2 clips; expected one each\. It begins '<audio>"
    ):
        model.item(made.prompt, [FRAMES[IDS[0]], FRAMES[IDS[1]]])


def test_text_that_looks_like_a_placeholder_is_text() -> None:
    model = model_of()
    asked = "What is\n<audio>\nhere?"
    forged = prompts.build(
        asked, history=[Turn(question="<audio>", answer="a\n<audio>", clip_id=IDS[0])], spoken=lambda turn: "<audio>"
    )
    assert len(prompts.places(forged)) == 3  # the two that are heard
    assert model.item(forged, [FRAMES[IDS[0]], FRAMES[IDS[1]]]).prompt.count(model.tokenizer.audio_id) > 0
    alone = model.item(f"<audio>\n{asked}\nAnswer:", FRAMES[IDS[0]])  # not by `build`
    assert len(alone.spans) == 1


@pytest.mark.parametrize("system", [HEARS, READS_BEFORE, READS], ids=lambda one: one.name)
def test_batched_answers_equal_single_ones(system: System) -> None:
    model = model_of()
    made = examples(pair(0, 1), pair(2), pair(3, 4, 5), pair(1, 0, 2, 4), pair(5), system=system)
    heard = [[FRAMES[name] for name in prompts.heard(one)] for one in made]
    together = model.answer([one.prompt for one in made], heard, max_new_tokens=10)
    assert len({one.raw for one in together}) > 1
    for one, frames, reply in zip(made, heard, together, strict=True):
        assert model.answer([one.prompt], [frames], max_new_tokens=10) == [reply]
        assert "".join(model.stream(one.prompt, frames, max_new_tokens=10)) == reply.text


@pytest.mark.parametrize("packed", [False, True])
def test_rows_that_dialogues_share_lose_what_single_rows_lose(packed: bool) -> None:
    """Same clips before, another clip before, another turn between, the last clip alone, and one twice."""
    model = model_of(HEADED)
    said = [pair(0, 1, 2), pair(0, 1, 2, question="Now?"), pair(3, 1, 2), pair(4, 2), pair(2), pair(2, 2), pair(0, 2)]
    group = examples(*said)
    shared = [item(model, one, target=one.target) for one in group]
    others = [[item(model, one, target=one.target)] for one in examples(pair(5), pair(1, 5))]
    pad = model.tokenizer.pad_id
    batch = training_batch([shared, *others], pad_id=pad, packed=packed)
    items = [*shared, *(one for row in others for one in row)]
    single = [model.on(training_batch([[one]], pad_id=pad)) for one in items]
    output = model.on(batch)
    torch.testing.assert_close(output.nll, torch.cat([one.nll for one in single]), rtol=1e-4, atol=1e-5)
    assert batch.input_ids.shape[1] < sum(len(one.prompt) + len(one.target) for one in shared)
    # heads hear the last turn
    category, clips = output.category, batch.item_clips
    assert category is not None
    assert clips is not None
    alone = model.feelings([FRAMES[one.clip_id] for one in (*group, *examples(pair(5), pair(1, 5)))])
    for at, feeling in zip(clips.tolist(), alone, strict=True):
        assert feeling is not None
        np.testing.assert_allclose(category[at].softmax(-1).detach(), list(feeling.category.values()), rtol=1e-4)


def test_clips_are_not_taken_for_each_other_because_their_tokens_are_alike() -> None:
    model = model_of()
    (one,), (other,) = examples(pair(0, 2)), examples(pair(1, 2))
    assert one.prompt.replace("0", "1") == other.prompt
    same_length = [FRAMES[IDS[0]], FRAMES[IDS[0]][::-1].copy()]
    last = FRAMES[IDS[2]]
    items = [model.item(one.prompt, [first, last], target="Yes.") for first in same_length]
    assert items[0].prompt == items[1].prompt
    pad = model.tokenizer.pad_id
    together = model.on(training_batch([items], pad_id=pad)).nll
    alone = [model.on(training_batch([[each]], pad_id=pad)).nll for each in items]
    assert not torch.allclose(alone[0], alone[1])
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_the_rows_is_refused() -> None:
    model = model_of()
    made = [item(model, one, target=one.target) for one in examples(pair(0, 1), pair(2))]
    batch = training_batch([[one] for one in made], pad_id=model.tokenizer.pad_id)
    assert batch.frames is not None
    assert batch.frame_mask is not None
    order = [0, 2, 1]
    with pytest.raises(ModelError, match="do not fit"):
        model._embed(batch.frames[order], batch.frame_mask[order], batch.input_ids)


def test_rows_without_speech_stand_beside_dialogues() -> None:
    model = model_of()
    spoken, silent = examples(pair(0, 1))[0], examples(pair(2), system=READS)[0]
    items = [item(model, one, target=one.target) for one in (silent, spoken, silent)]
    batch = training_batch([[one] for one in items], pad_id=model.tokenizer.pad_id)
    assert batch.item_clips is not None
    assert batch.item_clips.tolist() == [-1, 1, -1]
    single = [model.on(training_batch([[one]], pad_id=model.tokenizer.pad_id)).nll for one in items]
    torch.testing.assert_close(model.on(batch).nll, torch.cat(single), rtol=1e-4, atol=1e-5)
    assert prompt_batch(items, pad_id=0).frames is not None


def test_dialogues_are_trained_on_and_asked(tmp_path: Path) -> None:
    from undertone.evaluate.subjects.checkpoint import CheckpointSubject

    said = [pair(0, 1), pair(0, 1, 2), pair(3), pair(3, 4), pair(5, 4, 3, 2)]
    content = {
        "steps": 60,
        "batch_size": 5,
        "log_every": 20,
        "lr": 1e-2,
        "vocab_size": 300,
        "shift_frames": 0,
        "objective": {"loss": "ce"},
    }
    settings = TrainConfig.model_validate(content)
    made = examples(*said, targets=True)
    train(made, FRAMES, settings, tmp_path, model=HEADED, frame_dim=DIM, system=HEARS)
    answers = {one.pair_id: one.text for one in CheckpointSubject(tmp_path, FRAMES, batch_size=3).answers(made)}
    assert answers == {one.pair_id: one.target for one in made}


def test_all_clips_of_a_row_are_cut_and_each_is_read_once() -> None:
    class Counted(dict[str, np.ndarray]):
        read: ClassVar[list[str]] = []

        def __getitem__(self, name: str) -> np.ndarray:
            self.read.append(name)
            return super().__getitem__(name)

    frames = Counted(FRAMES)
    model = model_of()
    made = examples(pair(4, 5), pair(3, 5), pair(5))
    feed = Feed(model, made, frames, TrainConfig(group_size=3))
    batch = feed.batch([Row([0, 1, 2], 2)])
    assert sorted(frames.read) == [IDS[3], IDS[4], IDS[5]]
    lengths = batch["frame_mask"].sum(1).tolist()
    assert sorted(set(lengths)) == sorted(len(FRAMES[IDS[number]]) - 2 for number in (3, 4, 5))
    with pytest.raises(DataError, match=rf"pair .* cannot be heard: .*{IDS[4]}"):
        Feed(model, made, {name: one for name, one in FRAMES.items() if name != IDS[4]}, TrainConfig()).batch([Row([0], 0)])
