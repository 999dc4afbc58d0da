"""Subjects that are not ours: an endpoint with audio on the loopback interface, and tiny native audio LLMs, asked by the stage."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undertone import audio, tables
from undertone.audio import Wave
from undertone.chat import AudioPart, ChatClient, Endpoint, InputAudio, Message, TextPart
from undertone.errors import ModelError, ServiceError
from undertone.evaluate import study_table
from undertone.evaluate.judges import Item, LLMJudge, ReferenceJudge
from undertone.evaluate.stage import JudgeStage
from undertone.evaluate.subjects import Asked, AskStage, EndpointSubject, NativeSubject, examples_of
from undertone.evaluate.subjects.endpoint import EndpointAsker
from undertone.execute import run_stage, write_rows
from undertone.records import Answer, Clip, Example, QAPair, Segment, Verdict
from undertone.stages import Failed, Kept
from undertone.tables import Fingerprint
from undertone.testing.fake_endpoint import FakeEndpoint, Fault, Say, Told, heard

MADE = Fingerprint(stage="test", version="1", seed=0, config={}, inputs={})


def sound(number: int) -> Wave:
    """A second of a tone of its own, and another one."""
    at = np.arange(32_000) / 16_000
    return Wave((0.4 * np.sin(2 * np.pi * (200 + 50 * number + 300 * (at >= 1)) * at)).astype(np.float32), 16_000)


def clips_in(folder: Path, count: int) -> dict[str, Clip]:
    """Clips of the second second of as many files."""
    made = []
    for number in range(count):
        file = folder / f"r{number}.wav"
        audio.write(file, sound(number))
        words = (Segment(recording_id=f"r{number}", start_ms=1_000, end_ms=2_000, transcript=f"Line {number}."),)
        bounds = {"start_ms": 1_000, "end_ms": 2_000, "segments": words}
        made.append(Clip(recording_id=f"r{number}", uri=str(file), source="toy", split="test", **bounds))  # type: ignore[arg-type]
    return {one.id: one for one in made}


def question(clip: Clip) -> str:
    return f"How does the speaker of {clip.recording_id} feel?"


def pairs_about(clips: dict[str, Clip]) -> list[QAPair]:
    common = {"source": "benchmark", "kind": "DE", "generator": "t@1", "label_attribute": "emotion"}
    return [
        QAPair(
            clip_id=one.id,
            recording_id=one.recording_id,
            question=question(one),
            answer="The speaker is sad.",
            label="sad",
            **common,
        )  # type: ignore[arg-type]
        for one in clips.values()
    ]


def written(folder: Path, clips: dict[str, Clip], how: Asked) -> list[Example]:
    """The tables that the stage reads."""
    made = examples_of(how, pairs_about(clips), clips, {})
    write_rows(folder / "examples", made, record=Example, fingerprint=MADE)
    write_rows(folder / "clips", list(clips.values()), record=Clip, fingerprint=MADE)
    return made


def subject(endpoint: FakeEndpoint | str, **more: Any) -> EndpointSubject:
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    return EndpointSubject(**{"name": "E", "endpoint": url, "model": "fake", "retries": 0, **more})


def texts(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "|".join(one.get("text", one["type"]) for one in content)


def outcomes(said: list[Told], tmp_path: Path, **more: Any) -> list[Any]:
    clips = clips_in(tmp_path, len(said))
    examples = examples_of(Asked(name="E"), pairs_about(clips), clips, {})
    with FakeEndpoint(lambda body: said[int(texts(body).split(" of r")[1][0])]) as endpoint:
        return list(EndpointAsker(subject(endpoint, concurrency=1, **more), clips).outcomes(examples))


# ---- endpoints -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hears", ["speech", "other_speech"])
def test_an_endpoint_hears_the_samples_of_the_clip_that_the_example_names(tmp_path: Path, hears: Any) -> None:
    clips = clips_in(tmp_path, 4)
    examples = examples_of(Asked(name="E", hears=hears), pairs_about(clips), clips, {}, seed=1)
    with FakeEndpoint(["Sad."]) as endpoint:
        found = EndpointAsker(subject(endpoint, concurrency=1), clips).outcomes(examples)
    assert [one.rows[0].pair_id for one in found if isinstance(one, Kept)] == [one.pair_id for one in examples]
    sent = {texts(body): heard(body) for body in endpoint.requests}
    assert len(sent) == len(endpoint.requests) == 4
    for example, pair in zip(examples, pairs_about(clips), strict=True):
        assert (example.clip_id == pair.clip_id) == (hears == "speech")
        (told,) = sent[f"input_audio|{pair.question}"]
        wave = sound(int(example.clip_id[1])).cut(1_000)
        assert told.rate_hz == 16_000
        assert np.abs(told.samples - wave.samples).max() <= 1 / 32_768


def test_a_cascade_sends_text_alone(tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 2)
    predicted = {
        one.recording_id: [Segment(recording_id=one.recording_id, start_ms=0, end_ms=2_000, transcript="Lime.")]
        for one in clips.values()
    }
    how = Asked(name="E", hears="recognised_words")
    examples = examples_of(how, pairs_about(clips), clips, predicted)
    shorter = {key: one.model_copy(update={"start_ms": 0}) for key, one in clips.items()}
    whole = examples_of(how, pairs_about(clips), shorter, predicted)
    with FakeEndpoint(["Sad."]) as endpoint:
        EndpointAsker(subject(endpoint, instruction="Answer in one word."), clips).outcomes([examples[0], whole[0]])
    said = sorted(body["messages"][-1]["content"] for body in endpoint.requests)
    asked = f"{question(clips[examples[0].clip_id])}\nAnswer in one word."
    assert said == [f"Transcript: \n{asked}", f"Transcript: Lime.\n{asked}"]


def test_refusals_are_counted_as_refusals_and_never_as_wrong_answers(tmp_path: Path) -> None:
    plain, field, odd, filtered = outcomes(
        [
            "I cannot determine that from the audio.",
            Say(refusal="I'm sorry, I can't help with that."),
            Say(refusal="Voices of people are off limits."),
            Say(text="", finish="content_filter"),
        ],
        tmp_path,
    )
    pair = pairs_about(clips_in(tmp_path, 1))[0]
    for one in (plain, field):
        (answer,) = one.rows
        assert ReferenceJudge().score(Item(pair=pair, answer=answer)).unscored == "refused"
    assert field.rows[0].text == field.rows[0].raw == "I'm sorry, I can't help with that."
    for one, raw in ((odd, "Voices of people are off limits."), (filtered, "content_filter")):
        (answer,) = one.rows
        assert (answer.unanswered, answer.text, answer.raw) == ("refused", "", raw)
        assert ReferenceJudge().score(Item(pair=pair, answer=answer)).unscored == "refused"


def test_answers_keep_what_was_said(tmp_path: Path) -> None:
    thought, cut, empty = outcomes(["<think>Low and slow.</think> Sad.", Say(text="He is s", finish="length"), ""], tmp_path)
    assert (thought.rows[0].text, thought.rows[0].raw) == ("Sad.", "<think>Low and slow.</think> Sad.")
    assert cut.rows[0].text == "He is s"
    assert empty.rows[0].text == ""
    assert all(one.rows[0].seconds > 0 for one in (thought, cut, empty))


def test_time_outs_and_errors_are_typed(tmp_path: Path) -> None:
    (late,) = outcomes([Say(delay_s=float("inf"))], tmp_path, timeout_s=0.5)
    (answer,) = late.rows
    assert (answer.unanswered, answer.text) == ("timed_out", "")
    assert "did not answer within 0.5 s" in answer.raw
    wrong, answered = outcomes([Fault(status=400, message="no audio here"), "Sad."], tmp_path)
    assert isinstance(wrong, Failed)
    assert "no audio here" in wrong.error
    assert isinstance(answered, Kept)


def test_the_study_table_counts_who_declined_and_who_was_silent_as_such(tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 4)
    written(tmp_path, clips, Asked(name="E"))
    pairs = pairs_about(clips)
    write_rows(tmp_path / "pairs", pairs, record=QAPair, fingerprint=MADE)
    said = [Say(refusal="Voices of people are off limits."), Say(delay_s=float("inf")), Fault(status=400), "Sad."]
    with FakeEndpoint(lambda body: said[int(texts(body).split(" of r")[1][0])]) as endpoint:
        stage = AskStage(subject=subject(endpoint, timeout_s=0.5))
        run_stage(stage, [tmp_path / "examples"], tmp_path / "answers", sides={"clips": tmp_path / "clips"})
        for runs in (1, 2):
            judge = LLMJudge(endpoint="http://127.0.0.1:9/v1", model="down", runs=2, retries=0) if runs == 2 else ReferenceJudge()
            out = tmp_path / f"verdicts-{runs}"
            run_stage(JudgeStage(judge=judge), [tmp_path / "answers"], out, sides={"pairs": tmp_path / "pairs"}, max_failed_share=1)
    table = study_table.build(tables.open_table(tmp_path / "verdicts-1", Verdict).rows(), pairs, subjects=("E",), resamples=50)
    (row,) = table.rows
    assert row.overall.unscored == {"missing": 1, "refused": 1, "timed_out": 1}
    assert (row.overall.score.mean, row.overall.strict_mean, row.classes["emotion"].wa) == (100.0, 25.0, 0.25)
    asked = tables.open_table(tmp_path / "verdicts-2", Verdict)
    assert sorted((one.run, one.unscored) for one in asked.rows()) == [
        (0, "refused"),
        (0, "timed_out"),
        (1, "refused"),
        (1, "timed_out"),
    ], "a judge is not asked about what never came"
    assert (asked.dropped(), len(asked.failed())) == ([], 1)


@pytest.mark.parametrize(("fault", "concurrency"), [(Say(delay_s=float("inf")), 20), (Fault(status=500), 1)])
def test_a_broken_run_goes_on_although_all_that_is_left_fails_again(tmp_path: Path, fault: Told, concurrency: int) -> None:
    clips = clips_in(tmp_path, 20)
    written(tmp_path, clips, Asked(name="E"))
    with FakeEndpoint(lambda body: fault if int(texts(body).split(" of r")[1].split()[0]) > 10 else "Sad.") as endpoint:
        stage = AskStage(subject=subject(endpoint, timeout_s=0.5, concurrency=concurrency), cache_dir=tmp_path / "chat")
        for cached in (0, 11):
            account = stage.ask_ahead(tmp_path / "examples", clips=tmp_path / "clips")
            assert account is not None
            assert (account.replies, account.cached, account.failed) == (11, cached, 9)
    gone = AskStage(subject=subject("http://127.0.0.1:9/v1"), cache_dir=tmp_path / "chat")
    with pytest.raises(ServiceError, match="does not answer"):
        gone.ask_ahead(tmp_path / "examples", clips=tmp_path / "clips")


def test_a_clip_that_cannot_be_decoded_fails_alone(tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 3)
    (tmp_path / "r1.wav").write_bytes(b"RIFF")
    examples = examples_of(Asked(name="E"), pairs_about(clips), clips, {})
    with FakeEndpoint(["Sad."]) as endpoint:
        first, second, third = EndpointAsker(subject(endpoint), clips).outcomes(examples)
    assert isinstance(first, Kept)
    assert isinstance(second, Failed)
    assert "r1.wav" in second.error
    assert isinstance(third, Kept)
    assert len(endpoint.requests) == 2


def test_what_was_asked_ahead_is_asked_once(tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 9)
    examples = written(tmp_path, clips, Asked(name="E"))
    with FakeEndpoint(["Sad."]) as endpoint:
        stage = AskStage(subject=subject(endpoint), cache_dir=tmp_path / "chat")
        done: list[int] = []
        account = stage.ask_ahead(tmp_path / "examples", clips=tmp_path / "clips", told=done.append)
        report = run_stage(stage, [tmp_path / "examples"], tmp_path / "answers", sides={"clips": tmp_path / "clips"})
    assert account is not None
    assert (account.replies, account.cached, done[-1], len(endpoint.requests)) == (9, 0, 9, 9)
    rows = list(tables.open_table(tmp_path / "answers", Answer).rows())
    assert report.counts.kept == 9
    assert {one.pair_id for one in rows} == {one.pair_id for one in examples}
    assert {(one.subject, one.text) for one in rows} == {("E", "Sad.")}
    assert AskStage(subject=subject("http://127.0.0.1:9/v1")).ask_ahead(tmp_path / "examples", clips=tmp_path / "clips") is None


ASKING = """
import sys
from pathlib import Path
from undertone.evaluate.subjects import AskStage, EndpointSubject
folder = Path(sys.argv[1])
who = EndpointSubject(name="E", endpoint=sys.argv[2], model="fake", concurrency=4)
AskStage(subject=who, cache_dir=folder / "chat").ask_ahead(folder / "examples", clips=folder / "clips")
"""


def test_after_a_kill_no_answered_question_is_asked_again(tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 60)
    written(tmp_path, clips, Asked(name="E"))
    with FakeEndpoint(lambda body: Say(text="Sad.", delay_s=0.05)) as endpoint:
        killed = subprocess.Popen([sys.executable, "-c", ASKING, str(tmp_path), endpoint.url])
        while len(endpoint.requests) < 24:
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        before, kept = len(endpoint.requests), len(list((tmp_path / "chat").rglob("*.json")))
        stage = AskStage(subject=subject(endpoint, concurrency=4), cache_dir=tmp_path / "chat")
        account = stage.ask_ahead(tmp_path / "examples", clips=tmp_path / "clips")
        report = run_stage(stage, [tmp_path / "examples"], tmp_path / "answers", sides={"clips": tmp_path / "clips"})
    assert account is not None
    assert before < 60
    assert kept >= before - 4
    assert (account.replies, account.cached, report.counts.kept) == (60, kept, 60)
    assert len(endpoint.requests) == before + 60 - kept
    assert endpoint.repeated <= 4


def test_an_endpoint_that_is_down_is_told_soon(tmp_path: Path) -> None:
    written(tmp_path, clips_in(tmp_path, 40), Asked(name="E"))
    with FakeEndpoint([Fault(status=500)]) as endpoint:
        stage = AskStage(subject=subject(endpoint, concurrency=2), cache_dir=tmp_path / "chat")
        with pytest.raises(ServiceError, match="500"):
            stage.ask_ahead(tmp_path / "examples", clips=tmp_path / "clips")
    assert len(endpoint.requests) < 20


@pytest.mark.parametrize("data", ["no base64!", "UklGRg=="])
def test_nothing_that_is_no_sound_is_taken_for_some(data: str) -> None:
    # The fake endpoint is as strict as real ones, or the tests above would prove little.
    async def ask(url: str) -> None:
        async with ChatClient(Endpoint(endpoint=url, model="fake", retries=0)) as chat:
            part = AudioPart(input_audio=InputAudio(data=data, format="wav"))
            await chat.ask([Message(role="user", content=(part, TextPart(text="?")))])

    with FakeEndpoint(["Sad."]) as endpoint, pytest.raises(ServiceError, match="input_audio cannot be decoded"):
        asyncio.run(ask(endpoint.url))
    assert endpoint.requests == []


# ---- native audio LLMs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="torch is not installed: native audio LLMs are not asked")
    pytest.importorskip("peft", reason="peft is not installed: native audio LLMs are not asked")
    from tests.contract.native_llms import qwen2_audio

    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("native") / "Qwen2-Audio"
    path.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return qwen2_audio(path)


def native(model: Path, **more: Any) -> NativeSubject:
    return NativeSubject(**{"name": "Q", "model": str(model), "max_new_tokens": 6, "batch_size": 2, **more})


def answers(folder: Path, stage: AskStage, out: str) -> dict[str, Answer]:
    run_stage(stage, [folder / "examples"], folder / out, sides={"clips": folder / "clips"})
    return {one.pair_id: one for one in tables.open_table(folder / out, Answer).rows()}


def test_a_native_model_answers_what_it_would_alone_and_is_asked_once(tmp_path: Path, model: Path) -> None:
    from undertone.model.native import NativeAudioLLM

    clips = clips_in(tmp_path, 3)
    examples = written(tmp_path, clips, Asked(name="Q"))
    found = answers(tmp_path, AskStage(subject=native(model), cache_dir=tmp_path / "chat"), "answers")
    llm = NativeAudioLLM.load(model)
    for one in examples:
        wave = audio.load(clips[one.clip_id].uri, rate_hz=16_000, start_ms=1_000, end_ms=2_000)
        reply = llm.answer([f"<audio>{question(clips[one.clip_id])}"], [wave], max_new_tokens=6)[0]
        assert (found[one.pair_id].text, found[one.pair_id].raw) == (reply.text, reply.raw)
    assert len({one.raw for one in found.values()}) > 1
    kept = sorted((tmp_path / "chat").rglob("*.json"))
    assert len(kept) == 3
    for file in kept:
        file.write_text(json.dumps({"text": "Kept.", "raw": "kept"}))
    again = answers(tmp_path, AskStage(subject=native(model, batch_size=1), cache_dir=tmp_path / "chat"), "again")
    assert {(one.text, one.seconds) for one in again.values()} == {("Kept.", None)}
    longer = answers(tmp_path, AskStage(subject=native(model, max_new_tokens=2), cache_dir=tmp_path / "chat"), "longer")
    assert "Kept." not in {one.text for one in longer.values()}


def test_a_native_model_with_a_lora_answers_as_it_was_saved(tmp_path: Path, model: Path) -> None:
    import torch

    from undertone.model.config import LoRAConfig
    from undertone.model.native import NativeAudioLLM

    llm = NativeAudioLLM.load(model)
    llm.add_lora(LoRAConfig(r=2, dropout=0.0))
    with torch.no_grad():
        for name, one in llm.network.named_parameters():
            if ".lora_B." in name:
                one.normal_(0, 1, generator=torch.Generator().manual_seed(1))
    llm.save(tmp_path / "lora")
    clips = clips_in(tmp_path, 2)
    written(tmp_path, clips, Asked(name="Q"))
    base = AskStage(subject=native(model), cache_dir=tmp_path / "chat")
    tuned = AskStage(subject=native(tmp_path / "lora"), cache_dir=tmp_path / "chat")
    assert base.identity() != tuned.identity()
    plain, found = answers(tmp_path, base, "base"), answers(tmp_path, tuned, "tuned")
    assert {key: one.raw for key, one in found.items()} != {key: one.raw for key, one in plain.items()}
    waves = [audio.load(one.uri, rate_hz=16_000, start_ms=1_000, end_ms=2_000) for one in clips.values()]
    replies = llm.eval().answer([question(one) for one in clips.values()], waves, max_new_tokens=6)
    assert [one.raw for one in replies] == [found[pair.id].raw for pair in pairs_about(clips)]


def test_a_clip_that_is_too_long_fails_alone_or_is_cut(tmp_path: Path, model: Path) -> None:
    clips = clips_in(tmp_path, 2)
    first = next(iter(clips.values()))
    audio.write(first.uri, Wave(np.tile(sound(0).samples, 16), 16_000))
    long = first.model_copy(update={"start_ms": 0, "end_ms": 31_000})
    clips = {one.id: one for one in (long, *list(clips.values())[1:])}
    written(tmp_path, clips, Asked(name="Q"))
    found = answers(tmp_path, AskStage(subject=native(model)), "answers")
    assert [one.clip_id for one in pairs_about(clips) if one.id not in found] == [long.id]
    cut = answers(tmp_path, AskStage(subject=native(model, long_audio="truncate")), "cut")
    assert len(cut) == 2


def test_a_model_that_does_not_load_ends_the_command(tmp_path: Path, model: Path) -> None:
    written(tmp_path, clips_in(tmp_path, 2), Asked(name="Q"))
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match="none' does not load"):
        answers(tmp_path, AskStage(subject=native(tmp_path / "none")), "answers")
