"""The chat client against a real server that is programmed to reply, and to fail, in every way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from undertone.chat import ChatClient, Message, Reply, read_json
from undertone.errors import ConfigError, ServiceError
from undertone.testing.fake_endpoint import FakeEndpoint, Fault, Say, Told

HELLO = [Message(role="user", content="Hello there")]


class Grade(BaseModel):
    score: int


def ask(endpoint: str, *, schema: type[BaseModel] | None = None, attempt: int = 0, **options: Any) -> Reply:
    async def go() -> Reply:
        async with ChatClient(endpoint=endpoint, model="m", **options) as chat:
            return await chat.ask(HELLO, schema=schema, attempt=attempt)

    return asyncio.run(go())


def test_a_reply_comes_back_raw_with_its_cost() -> None:
    with FakeEndpoint(['{"score": 3']) as server:
        reply = ask(server.url, schema=Grade)
    assert (reply.text, reply.finish, reply.cached) == ('{"score": 3', "stop", False)
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 2)
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == Grade.model_json_schema()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_is_retried(status: int) -> None:
    with FakeEndpoint([Fault(status=status), Fault(status=status), "Hello."]) as server:
        assert ask(server.url).text == "Hello."
    assert len(server.requests) == 3


def test_a_body_cut_on_the_way_is_an_error_and_no_reply() -> None:
    with (
        FakeEndpoint([Fault(status=200, body=json.dumps({"choices": []}) + " " * 400, truncate=True)]) as server,
        pytest.raises(ServiceError, match="does not answer") as caught,
    ):
        ask(server.url, retries=1)
    assert f"curl {server.url}/models" in str(caught.value)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (Fault(status=500, message="out of memory"), "answered 500 for model 'm': .*out of memory.*curl http"),
        (Fault(status=404, message="no model m"), "answered 404 for model 'm': .*no model m.*curl http"),
        (Fault(status=401), "refuses the key .*export UNDERTONE_API_KEY="),
        (Fault(status=200, body='{"choices": [{"mess'), "something that is no "),
        (Fault(status=200, body='{"hello": 1}'), "no chat completion.*curl http"),
        (Fault(status=200, body='"hello"'), "no chat completion.*curl http"),
        (Say(text="late", delay_s=0.6), r"did not answer within 0\.2 s"),
    ],
)
def test_a_lasting_fault_is_a_service_error_with_url_and_command(told: Told, message: str) -> None:
    with FakeEndpoint([told]) as server, pytest.raises(ServiceError, match=message) as caught:
        ask(server.url, retries=1, timeout_s=0.2)
    assert server.url in str(caught.value)
    assert caught.value.exit_code == 5


def test_nobody_there_is_a_service_error() -> None:
    with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:9/v1 does not answer .*curl http://127\.0\.0\.1:9/v1/models"):
        ask("http://127.0.0.1:9/v1", retries=0)


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="endpoint: got 'localhost:8000', expected a base URL"):
        ChatClient(endpoint="localhost:8000", model="m")


def test_refusals_and_cut_replies_are_told_apart() -> None:
    with FakeEndpoint([Say(refusal="I will not."), Say(text='{"sc', finish="length")]) as server:
        first, second = ask(server.url), ask(server.url)
    assert (first.text, first.refusal) == ("", "I will not.")
    assert (second.text, second.finish, second.refusal) == ('{"sc', "length", None)


def test_an_endpoint_without_json_schema_is_asked_in_words_and_remembered() -> None:
    def reply(body: dict[str, Any]) -> Told:
        return Fault(status=400, message="response_format is not supported") if "response_format" in body else '{"score": 4}'

    async def go(url: str) -> None:
        async with ChatClient(endpoint=url, model="m") as chat:
            for text in ("one", "two"):
                said = await chat.ask([Message(role="user", content=text)], schema=Grade)
                assert read_json(said.text, Grade).score == 4

    with FakeEndpoint(reply) as server:
        asyncio.run(go(server.url))
    assert ["response_format" in one for one in server.requests] == [True, False, False]
    words = server.requests[1]["messages"]
    assert len(words) == 1  # strict chat templates take no two user messages in a row
    assert words[0]["content"].startswith("one\n\nReply with one JSON object")
    assert "score" in words[0]["content"]


def test_a_bad_request_for_another_reason_stays_one() -> None:
    with (
        FakeEndpoint([Fault(status=400, message="prompt too long")]) as server,
        pytest.raises(ServiceError, match="prompt too long"),
    ):
        ask(server.url, schema=Grade)


def test_what_was_asked_once_is_read_from_the_cache(tmp_path: Path) -> None:
    with FakeEndpoint(["one", "two", "three", "four"]) as server:
        assert ask(server.url, cache_dir=tmp_path).text == "one"
        again = ask(server.url, cache_dir=tmp_path)
        assert (again.text, again.cached) == ("one", True)
        assert ask(server.url, cache_dir=tmp_path, attempt=1).text == "two"
        assert ask(server.url, cache_dir=tmp_path, temperature=0.5).text == "three"
        assert ask(server.url, cache_dir=tmp_path, schema=Grade).text == "four"
    assert sorted(one.suffix for one in tmp_path.iterdir()) == [".json"] * 4
    assert len(server.requests) == 4


def test_a_broken_cache_entry_is_asked_for_again(tmp_path: Path) -> None:
    with FakeEndpoint(["one", "two"]) as server:
        ask(server.url, cache_dir=tmp_path)
        (entry,) = tmp_path.iterdir()
        entry.write_text(entry.read_text()[:10])
        assert ask(server.url, cache_dir=tmp_path).text == "two"


def test_errors_are_not_cached(tmp_path: Path) -> None:
    with FakeEndpoint([Fault(status=404), "back"]) as server:
        with pytest.raises(ServiceError):
            ask(server.url, cache_dir=tmp_path)
        assert ask(server.url, cache_dir=tmp_path).text == "back"


def test_the_key_is_sent_but_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERTONE_API_KEY", "not-a-real-key")
    with FakeEndpoint(["one"]) as server:
        ask(server.url, cache_dir=tmp_path)
    assert not [one for one in tmp_path.iterdir() if "not-a-real-key" in one.read_text()]
    assert "not-a-real-key" not in json.dumps(server.requests)


def test_no_more_requests_at_a_time_than_allowed() -> None:
    running: list[int] = []
    seen: list[int] = []

    def reply(body: dict[str, Any]) -> Told:
        running.append(1)
        seen.append(len(running))
        time.sleep(0.05)
        running.pop()
        return "ok"

    async def go(url: str) -> None:
        async with ChatClient(endpoint=url, model="m", concurrency=2) as chat:
            await asyncio.gather(*(chat.ask([Message(role="user", content=str(number))]) for number in range(6)))

    with FakeEndpoint(reply) as server:
        asyncio.run(go(server.url))
    assert (len(seen), max(seen)) == (6, 2)


@pytest.mark.parametrize("text", ['{"score": 2}', '```json\n{"score": 2}\n```', 'Here you are: {"score": 2}. Good luck!'])
def test_json_is_read_out_of_what_surrounds_it(text: str) -> None:
    assert read_json(text, Grade).score == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no idea", "no JSON object in the reply 'no idea'"),
        ('{"score": "high"}', "does not fit Grade: score: "),
        ('{"score": 1', "no JSON"),
    ],
)
def test_json_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_json(text, Grade)


def test_importing_the_client_and_the_generators_loads_nothing_heavy() -> None:
    code = "import sys, undertone.chat, undertone.generate.stage; print([n for n in ('openai', 'torch', 'transformers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
