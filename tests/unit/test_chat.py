"""The chat client against a real server that is programmed to reply, and to fail, in every way."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from undertone.chat import Account, CacheDir, ChatClient, Endpoint, Message, Prices, Reply, as_data, json_schema, pause_s, read_json
from undertone.errors import ServiceError
from undertone.testing.fake_endpoint import FakeEndpoint, Fault, Faults, Say, Told

HELLO = [Message(role="user", content="Hello there")]


class Grade(BaseModel):
    score: int


def client(endpoint: str, *, cache_dir: Path | None = None, **options: Any) -> ChatClient:
    return ChatClient(Endpoint(endpoint=endpoint, model="m", **options), cache_dir=cache_dir)


def ask(endpoint: str, *, schema: type[BaseModel] | None = None, attempt: int = 0, **options: Any) -> Reply:
    async def go() -> Reply:
        async with client(endpoint, **options) as chat:
            return await chat.ask(HELLO, schema=schema, attempt=attempt)

    return asyncio.run(go())


def entries(cache_dir: Path) -> list[Path]:
    return [one for one in cache_dir.rglob("*") if one.is_file()]


def test_a_reply_comes_back_raw_with_its_cost() -> None:
    with FakeEndpoint(['{"score": 3']) as server:
        reply = ask(server.url, schema=Grade)
    assert (reply.text, reply.finish, reply.cached) == ('{"score": 3', "stop", False)
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 2)
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == json_schema(Grade)


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
    with pytest.raises(ValidationError, match="endpoint"):
        Endpoint(endpoint="localhost:8000", model="m")


def test_refusals_and_cut_replies_are_told_apart() -> None:
    with FakeEndpoint([Say(refusal="I will not."), Say(text='{"sc', finish="length")]) as server:
        first, second = ask(server.url), ask(server.url)
    assert (first.text, first.refusal, first.kind) == ("", "I will not.", "refused")
    assert (second.text, second.finish, second.refusal, second.kind) == ('{"sc', "length", None, "cut")


def test_a_content_filter_is_a_refusal() -> None:
    with FakeEndpoint([Say(text="It began", finish="content_filter")]) as server:
        assert ask(server.url).kind == "refused"


def test_an_endpoint_without_json_schema_is_asked_in_words_and_remembered() -> None:
    def reply(body: dict[str, Any]) -> Told:
        return Fault(status=400, message="response_format is not supported") if "response_format" in body else '{"score": 4}'

    async def go(url: str) -> None:
        async with client(url) as chat:
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
    assert [(one.suffix, one.parent.parent) for one in entries(tmp_path)] == [(".json", tmp_path)] * 4
    assert all(one.stem.startswith(one.parent.name) and len(one.parent.name) == 2 for one in entries(tmp_path))
    assert len(server.requests) == 4


def test_a_broken_cache_entry_is_asked_for_again(tmp_path: Path) -> None:
    with FakeEndpoint(["one", "two"]) as server:
        ask(server.url, cache_dir=tmp_path)
        (entry,) = entries(tmp_path)
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
    assert len(entries(tmp_path)) == 1
    assert not [one for one in entries(tmp_path) if "not-a-real-key" in one.read_text()]
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
        async with client(url, concurrency=2) as chat:
            await asyncio.gather(*(chat.ask([Message(role="user", content=str(number))]) for number in range(6)))

    with FakeEndpoint(reply) as server:
        asyncio.run(go(server.url))
    assert (len(seen), max(seen)) == (6, 2)


def test_a_server_that_ignores_the_format_is_asked_in_words_the_second_time() -> None:
    with FakeEndpoint(["I would say three.", '{"score": 3}']) as server:
        ask(server.url, schema=Grade)
        ask(server.url, schema=Grade, attempt=1)
    first, second = server.requests
    assert first["messages"][0]["content"] == "Hello there"
    assert second["messages"][0]["content"].startswith("Hello there\n\nReply with one JSON object")
    assert "response_format" in first
    assert "response_format" in second


def test_a_server_that_says_how_long_to_wait_is_heeded_and_the_retry_counted() -> None:
    async def go(url: str) -> Account:
        async with client(url, concurrency=1) as chat:
            await chat.ask(HELLO)
            return chat.account

    with FakeEndpoint([Fault(status=429, retry_after_s=0.3), "Hello."]) as server:
        began = time.monotonic()
        account = asyncio.run(go(server.url))
        assert time.monotonic() - began >= 0.3
    assert (account.replies, account.sent_again, account.failed) == (1, 1, 0)


def test_a_request_that_waits_for_its_next_attempt_holds_up_no_other() -> None:
    def reply(body: dict[str, Any]) -> Told:
        first = body["messages"][0]["content"] == "Hello there" and len(server.requests) == 1
        return Fault(status=429, retry_after_s=0.5) if first else "ok"

    async def go(url: str) -> list[str]:
        order: list[str] = []
        async with client(url, concurrency=1) as chat:

            async def one(text: str) -> None:
                await chat.ask([Message(role="user", content=text)])
                order.append(text)

            await asyncio.gather(one("Hello there"), one("second"), one("third"))
        return order

    with FakeEndpoint(reply) as server:
        assert asyncio.run(go(server.url)) == ["second", "third", "Hello there"]


def answered(status: int, **headers: str) -> BaseException:
    """The error of the SDK for an answer, as it raises it."""
    import openai

    with FakeEndpoint([Fault(status=status, retry_after_s=None)]) as server:
        raw = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        with pytest.raises(openai.APIStatusError) as caught:
            raw.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    caught.value.response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return caught.value


@pytest.mark.parametrize(
    ("status", "headers", "least", "most"),
    [
        (429, {}, 0.375, 0.5),
        (429, {"retry_after": "7"}, 7, 7),
        (429, {"retry_after_ms": "250"}, 0.25, 0.25),
        (503, {"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0),
        (429, {"retry_after": "soon"}, 0.375, 0.5),
        (503, {"retry_after": "nan"}, 0.375, 0.5),
        (408, {}, 0.375, 0.5),
        (400, {"x_should_retry": "true"}, 0.375, 0.5),
    ],
)
def test_pauses_are_those_that_the_server_asks_for_or_half_a_second(
    status: int, headers: dict[str, str], least: float, most: float
) -> None:
    wait_s = pause_s(answered(status, **headers), taken=0)
    assert wait_s is not None
    assert least <= wait_s <= most


def test_pauses_double_up_to_eight_seconds() -> None:
    error = answered(500)
    longest = [max(pause_s(error, taken=taken) or 0 for _ in range(200)) for taken in range(7)]
    assert [math.ceil(one * 2) / 2 for one in longest] == [0.5, 1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize(
    ("status", "headers"), [(400, {}), (404, {}), (429, {"retry_after": "3600"}), (500, {"x_should_retry": "false"})]
)
def test_what_will_be_the_same_next_time_is_not_asked_again(status: int, headers: dict[str, str]) -> None:
    assert pause_s(answered(status, **headers), taken=0) is None


def test_a_server_that_dribbles_is_given_up_in_time() -> None:
    with FakeEndpoint([Say(text="late", delay_s=math.inf)]) as server, pytest.raises(ServiceError, match=r"within 0\.3 s"):
        ask(server.url, retries=0, timeout_s=0.3)


def test_the_account_is_the_same_the_second_time_and_nothing_is_new(tmp_path: Path) -> None:
    async def go(url: str) -> Account:
        async with client(url, cache_dir=tmp_path) as chat:
            for text in ("one two", "three"):
                await chat.ask([Message(role="user", content=text)])
            return chat.account

    with FakeEndpoint(["a b c", Say(text="", finish="stop")]) as server:
        first, second = asyncio.run(go(server.url)), asyncio.run(go(server.url))
    assert len(server.requests) == 2
    assert (first.replies, first.cached, first.empty, first.prompt_tokens, first.completion_tokens) == (2, 0, 1, 3, 3)
    assert (second.replies, second.cached, second.prompt_tokens, second.new_prompt_tokens) == (2, 2, 3, 0)
    both = first + second
    assert (both.replies, both.new_completion_tokens) == (4, 3)
    line = both.line("cpqa", Prices(prompt=1e6, completion=0))
    assert line == "cpqa: 4 replies (2 cached), 6 + 6 tokens, 6.00 at the given prices (3.00 of it now), 2 empty"


def test_a_failed_question_is_in_the_account() -> None:
    async def go(url: str) -> Account:
        async with client(url, retries=2) as chat:
            with pytest.raises(ServiceError):
                await chat.ask(HELLO)
            return chat.account

    with FakeEndpoint([Fault(status=500)]) as server:
        account = asyncio.run(go(server.url))
    assert (account.replies, account.sent_again, account.failed) == (0, 2, 1)


def test_connections_are_kept_and_models_listed() -> None:
    with FakeEndpoint(["one"]) as server:
        connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=5)
        for _ in range(2):
            connection.request("GET", "/v1/models")
            listed = json.loads(connection.getresponse().read())
            socket = connection.sock
            assert socket is not None  # closed by a server that does not keep connections
        assert [one["id"] for one in listed["data"]] == ["fake"]
        connection.close()


def test_faults_come_in_their_shares_and_the_same_again() -> None:
    faults = Faults(p429=0.2, p500=0.1, malformed=0.1, cut=0.1, refuse=0.1)

    def kinds(seed: int) -> list[str]:
        told = replace(faults, seed=seed).around(lambda body: '{"score": 1234}')
        found = []
        for number in range(1000):
            one = told({"messages": [{"role": "user", "content": str(number)}]})
            found.append(
                str(one.status)
                if isinstance(one, Fault)
                else f"{one.finish} {one.text} {one.refusal}"
                if isinstance(one, Say)
                else one
            )
        return found

    first = kinds(0)
    counts = [first.count(name) for name in ("429", "500", 'stop {"score None', 'length {"score None')]
    assert all(abs(count - share * 1000) < 40 for count, share in zip(counts, (0.2, 0.1, 0.1, 0.1), strict=True)), counts
    assert first == kinds(0) != kinds(1)


def test_a_request_that_is_turned_away_is_not_turned_away_for_ever() -> None:
    told = Faults(p429=0.5).around(lambda body: "ok")
    body = {"messages": [{"role": "user", "content": "x"}]}
    assert {isinstance(told(body), Fault) for _ in range(20)} == {True, False}


def test_the_endpoint_runs_as_a_program_of_its_own() -> None:
    program = subprocess.Popen([sys.executable, "-m", "undertone.testing.fake_endpoint"], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        said = ask(program.stdout.readline().strip(), schema=Grade)
    finally:
        program.kill()
        program.communicate()
    assert read_json(said.text, Grade).score == 1


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("plain words, <3 and 1 < 2", "plain words, <3 and 1 < 2"),
        ("a\nb\r\nc\u2028d\x85e\x00f\tg", "a b  c d e f g"),
        ("<|im_start|>system", "< |im_start| >system"),
        ("<start_of_turn>model </s> <<SYS>> <think>", "< start_of_turn>model < /s> < < SYS>> < think>"),
        ("[INST] do [/INST] [TOOL_CALLS]", "[ INST] do [ /INST] [ TOOL_CALLS]"),
        ("<｜User｜>", "< ｜User｜ >"),
        ("[0.0-2.1 s] man, sad: no", "[0.0-2.1 s] man, sad: no"),
        ("a\u202eb\U000e0041c\u200bd", "abcd"),
        ("caf\u00e9 \u4f60\u597d \u0645\u06cc\u200c\u062e", "caf\u00e9 \u4f60\u597d \u0645\u06cc\u200c\u062e"),
    ],
)
def test_texts_of_others_lose_what_could_steer_and_nothing_else(text: str, made: str) -> None:
    assert as_data(text) == made
    assert as_data(made) == made


def test_lines_of_a_text_with_a_place_of_its_own_are_kept() -> None:
    assert as_data("one\r\ntwo <|eot|>\x00", lines=True) == "one\ntwo < |eot| > "


def test_a_cache_is_set_by_path_or_address() -> None:
    kind = TypeAdapter(CacheDir)
    for text in ("some/where", "s3://bucket/chat"):
        assert str(kind.validate_python(text)) == text
        assert kind.dump_python(kind.validate_python(text), mode="json") == text


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 2}',
        '```json\n{"score": 2}\n```',
        'Here you are: {"score": 2}. Good luck!',
        '<think>Perhaps {"score": 1}, or {x}?</think>\n{"score": 2}',
        '{"score": 2}\n\n(Grades are {0, 1, 2}.)',
        'Grades are {0, 1, 2}: {"score": 2}',
        '{"score": 2} {"score": 3}',
        '{"mark": {"score": 3}} {"score": 2}',
        '{"score": 2, }',
        '{"why": "a\nb, ]", "score": 2}',
        "[" * 100_000 + '{"score": 2}',
    ],
)
def test_json_is_read_out_of_what_surrounds_it(text: str) -> None:
    assert read_json(text, Grade).score == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no idea", "no JSON object in the reply 'no idea'"),
        ('{"score": "high"}', "does not fit Grade: score: "),
        ('{"score": 1', "no JSON"),
        ('{"score": "high"} {"score": null}', "score: .* unable to parse string"),
        ('<think>{"score": 1}', "ends before its thinking does"),
        ('[{"score": 1', "no JSON"),
        ('{"a":' * 100_000, "no JSON"),
    ],
)
def test_json_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_json(text, Grade)


class Grades(BaseModel):
    """Of which one may mend the docstring."""

    grades: list[Grade]


@pytest.mark.parametrize(
    "text",
    ['{"grades": [{"score": 1}]}', '[{"score": 1}]', 'As of [0.0 s]: ```json\n[{"score": 1},]\n```', '{"grades": [{"score": 1}]'],
)
def test_a_bare_list_does_where_it_is_all_that_is_asked_for(text: str) -> None:
    assert read_json(text, Grades).grades == [Grade(score=1)]
    if text[0] == "[":
        with pytest.raises(ValueError, match="Grade: score"):
            read_json('[1, {"score": "high"}]', Grade)


@pytest.mark.parametrize(
    "text",
    [
        'The answer says {"score": 5}. My verdict: {"score": 1}',
        '{"score": 1}\nThe answer says {"score": 5}',
        '{"why": "it says {"score": 5}", "score": 1}',
        'He writes {what I want: {"score": 5}',
    ],
)
def test_a_verdict_stands_alone(text: str) -> None:
    with pytest.raises(ValueError, match="more than one Grade, or one inside something else"):
        read_json(text, Grade, alone=True)


@pytest.mark.parametrize(
    "text",
    [
        '<think>{"score": 5}</think>{"score": 1}',
        '{"score": 1} {"score": 1}',
        '{"score": 1} of {0, 5}',
        '{"why": "{\\"score\\": 5}", "score": 1}',
    ],
)
def test_a_verdict_that_is_alone_is_read(text: str) -> None:
    assert read_json(text, Grade, alone=True).score == 1


def test_a_schema_holds_no_names_and_docstrings() -> None:
    class Titled(BaseModel):
        """A docstring."""

        title: str
        inner: Grades

    made = json_schema(Titled)
    assert made["properties"]["title"] == {"type": "string"}
    assert set(made["$defs"]) == {"Grade", "Grades"}
    assert "docstring" not in json.dumps(made)
    assert "Titled" not in json.dumps(made)


def test_importing_the_client_and_the_generators_loads_nothing_heavy() -> None:
    code = "import sys, undertone.chat, undertone.generate.stage; print([n for n in ('openai', 'torch', 'transformers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
