"""A real HTTP server on the loopback interface that speaks chat completions and replies as it is told, faults included.

>>> with FakeEndpoint(["Hello.", Fault(status=429), "Again."]) as endpoint:
...     endpoint.url  # hand it to ChatClient  # doctest: +SKIP

Sound in messages (`input_audio`) must be what it says it is, or the reply is a 400, as real servers give; `heard` decodes it.

It keeps connections alive, as inference servers do, and lists its model under GET /v1/models. Each connection has a thread, so that a
function that replies may block. For trials without a model, and for benchmarks that must not share a process with the client:

    python -m undertone.testing.fake_endpoint --latency-s 0.2 --p429 0.05 --p500 0.02 --malformed 0.03 --hang 0.01

prints its URL and serves until it is ended; GET /counts says how many requests came and how many of them had been answered before.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import io
import json
import math
import re
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile

from undertone.audio import Wave
from undertone.records import content_hash


@dataclass(frozen=True, kw_only=True)
class Say:
    """A reply with HTTP status 200.

    Attributes:
        text: What the assistant says; None with a refusal.
        finish: "stop", or "length" for a reply that was cut at the token limit.
        refusal: The refusal text of servers that have a field for it.
        delay_s: Seconds before the server answers; `math.inf` for a request that hangs until the client gives up.
    """

    text: str | None = None
    finish: str = "stop"
    refusal: str | None = None
    delay_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A reply that is none: an HTTP error, or with status 200 a body that is not what it should be.

    Attributes:
        status: HTTP status.
        message: Of the error object.
        body: The raw body in its place, for instance malformed JSON.
        truncate: Announce the whole body, send half of it and hang up.
        delay_s: Seconds before the server answers.
        retry_after_s: What the server asks to wait; None for nothing. Short, so that a client that heeds it costs a test no time.
    """

    status: int
    message: str = "programmed fault"
    body: str | None = None
    truncate: bool = False
    delay_s: float = 0.0
    retry_after_s: float | None = 0.005


Told = str | Say | Fault
Replies = Callable[[dict[str, Any]], Told]


class FakeEndpoint:
    """The server; a context manager.

    Attributes:
        requests: The JSON bodies received so far, in order.
        answered: How often each body (as `content_of` names it) has been answered in full with status 200.
        repeated: How many requests came that had been answered before.
    """

    def __init__(self, replies: Sequence[Told] | Replies, *, port: int = 0) -> None:
        """Program the replies: one after the other, the last one for ever; or a function of the request's body.

        Args:
            replies: See above.
            port: To listen on; 0 for any that is free.
        """
        self.requests: list[dict[str, Any]] = []
        self.answered: Counter[str] = Counter()
        self.repeated = 0
        self._replies = replies
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The base URL, as clients want it."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def reply_to(self, body: dict[str, Any]) -> Told:
        """The programmed reply to a request, which is recorded."""
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
            self.repeated += content_of(body) in self.answered
        return self._replies(body) if callable(self._replies) else self._replies[min(number, len(self._replies)) - 1]

    def delivered(self, body: dict[str, Any]) -> None:
        """Note that a request was answered in full."""
        with self._lock:
            self.answered[content_of(body)] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def content_of(body: dict[str, Any]) -> str:
    """A name that two requests share when they ask the same."""
    return content_hash(json.dumps(body, sort_keys=True))


def heard(body: dict[str, Any]) -> list[Wave]:
    """The sounds in the messages of a request, in their order.

    Raises:
        ValueError: One is no sound file in base64, or no WAV or MP3, or has several channels.
    """
    found = []
    for part in (part for one in body.get("messages", []) if isinstance(one.get("content"), list) for part in one["content"]):
        if part.get("type") != "input_audio":
            continue
        given = part.get("input_audio") or {}
        try:
            raw = base64.b64decode(given["data"], validate=True)
            samples, rate_hz = soundfile.read(io.BytesIO(raw), dtype="float32")
            kind = soundfile.info(io.BytesIO(raw)).format
        except (KeyError, TypeError, binascii.Error, soundfile.LibsndfileError) as error:
            raise ValueError(f"input_audio cannot be decoded: {error!r}") from error
        if given.get("format") not in ("wav", "mp3") or kind not in ("WAV", "WAVEX", "MP3") or samples.ndim != 1:
            raise ValueError(
                f"input_audio is {kind} in {samples.ndim} dimensions and says {given.get('format')!r}; expected mono wav or mp3"
            )
        found.append(Wave(np.ascontiguousarray(samples), rate_hz))
    return found


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What real endpoints do, drawn for each request by its content and by how often it came before, so that a run can be repeated.

    Attributes:
        latency_s: Of every reply but a 429, which a server sends at once.
        p429: Share that is turned away.
        p500: Share that fails on the server.
        malformed: Share whose text is cut in half, so that it is no JSON.
        hang: Share that never gets an answer.
        cut: Share whose text is cut in half and says so (finish "length").
        refuse: Share that is refused through the server's own field.
        retry_after_s: What a 429 asks to wait; None for nothing, so that the client decides.
        seed: Of the draws.
    """

    latency_s: float = 0.0
    p429: float = 0.0
    p500: float = 0.0
    malformed: float = 0.0
    hang: float = 0.0
    cut: float = 0.0
    refuse: float = 0.0
    retry_after_s: float | None = None
    seed: int = 0

    def around(self, reply: Replies) -> Replies:
        """The same replies with these faults among them."""
        seen: Counter[str] = Counter()
        lock = threading.Lock()

        def told(body: dict[str, Any]) -> Told:
            content = content_of(body)
            with lock:
                seen[content] += 1
            left = int(content_hash(str(self.seed), content, str(seen[content])), 16) / 16**16
            for name in ("p429", "p500", "malformed", "hang", "cut", "refuse"):
                left -= getattr(self, name)
                if left < 0:
                    return self._fault(name, reply(body))
            return _slower(reply(body), self.latency_s)

        return told

    def _fault(self, name: str, said: Told) -> Told:
        text = said if isinstance(said, str) else (said.text or "") if isinstance(said, Say) else ""
        half = text[: len(text) // 2]
        drawn: dict[str, Told] = {
            "p429": Fault(status=429, message="too many requests", retry_after_s=self.retry_after_s),
            "p500": Fault(status=500, message="out of memory", retry_after_s=None, delay_s=self.latency_s),
            "malformed": Say(text=half, delay_s=self.latency_s),
            "hang": Say(delay_s=math.inf),
            "cut": Say(text=half, finish="length", delay_s=self.latency_s),
            "refuse": Say(refusal="I cannot help with that.", delay_s=self.latency_s),
        }
        return drawn[name]


def _slower(told: Told, latency_s: float) -> Told:
    if isinstance(told, Say):
        return Say(text=told.text, finish=told.finish, refusal=told.refusal, delay_s=told.delay_s + latency_s)
    return told if isinstance(told, Fault) else Say(text=told, delay_s=latency_s)


def by_schema(body: dict[str, Any]) -> Told:
    """A reply that needs no model: the smallest object of the JSON schema that is asked for, else a sentence.

    Every string in it ends in the mark of the clip that the prompt shows (else in a digest of the messages), so that whoever gets it can tell
    whose it is.
    """
    said = json.dumps(body["messages"])
    clip = re.search(r"=== clip ([0-9a-f]{16}) ===", said)
    mark = clip[1] if clip else content_hash(said)
    asked = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return f"This is reply {mark}." if asked is None else json.dumps(_filled(asked, asked.get("$defs", {}), "value", mark))


def _filled(schema: dict[str, Any], known: dict[str, Any], name: str, mark: str) -> Any:
    if "$ref" in schema:
        return _filled(known[schema["$ref"].rsplit("/", 1)[-1]], known, name, mark)
    if "anyOf" in schema:
        options = schema["anyOf"]
        return None if {"type": "null"} in options else _filled(options[0], known, name, mark)
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if schema.get("type") == "object":
        return {key: _filled(one, known, key, mark) for key, one in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [_filled(schema["items"], known, name, mark) for _ in range(max(1, schema.get("minItems", 1)))]
    plain: dict[str, Any] = {
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 0.5),
        "boolean": True,
        "null": None,
    }
    return plain.get(schema.get("type", "string"), f"Here is the {name} {mark}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A client may open all its connections at once.
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that hang up, as those do that are killed in a test."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler(endpoint: FakeEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes; held back, the second would wait for the client's acknowledgement.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                listed = [{"id": "fake", "object": "model", "created": 0, "owned_by": "undertone"}]
                self._send(200, json.dumps({"object": "list", "data": listed}))
            elif self.path == "/counts":
                self._send(200, json.dumps({"requests": len(endpoint.requests), "repeated": endpoint.repeated}))
            else:
                self._send(404, json.dumps({"error": {"message": f"no such path: {self.path}"}}))

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            raw = self.rfile.read(length)
            if len(raw) < length:  # the client was killed while it sent
                self.close_connection = True
                return
            if self.path != "/v1/chat/completions":
                self._send(404, json.dumps({"error": {"message": f"no such path: {self.path}"}}))
                return
            body = json.loads(raw)
            try:
                heard(body)
            except ValueError as fault:
                self._send(400, json.dumps({"error": {"message": str(fault), "type": "fake"}}))
                return
            told = endpoint.reply_to(body)
            if isinstance(told, Fault):
                time.sleep(told.delay_s)
                error = json.dumps({"error": {"message": told.message, "type": "fake"}})
                headers = {} if told.retry_after_s is None else {"retry-after-ms": f"{told.retry_after_s * 1000:g}"}
                self._send(told.status, error if told.body is None else told.body, headers, truncate=told.truncate)
                return
            say = Say(text=told) if isinstance(told, str) else told
            if math.isinf(say.delay_s):
                select.select([self.connection], [], [])  # readable when the client hangs up
                self.close_connection = True
                return
            time.sleep(say.delay_s)
            if self._send(200, json.dumps(_completion(say, body))):
                endpoint.delivered(body)

        def _send(self, status: int, text: str, headers: dict[str, str] | None = None, *, truncate: bool = False) -> bool:
            raw = text.encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": len(raw), **(headers or {})}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(raw[: len(raw) // 2] if truncate else raw)
            except OSError:  # the client gave up waiting
                self.close_connection = True
                return False
            self.close_connection = self.close_connection or truncate
            return True

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent; `requests` is the log."""

    return Handler


def _completion(say: Say, body: dict[str, Any]) -> dict[str, Any]:
    prompt = sum(len(str(one.get("content") or "").split()) for one in body.get("messages", []))
    said = len((say.text or "").split())
    return {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "fake"),
        "choices": [
            {
                "index": 0,
                "finish_reason": say.finish,
                "message": {"role": "assistant", "content": say.text, "refusal": say.refusal},
            }
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said},
    }


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 for any that is free")
    for one in fields(Faults):
        kind = int if one.name == "seed" else float
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, default=one.default)
    options = vars(parser.parse_args())
    with FakeEndpoint(
        Faults(**{name: options[name] for name in options if name != "port"}).around(by_schema), port=options["port"]
    ) as served:
        print(served.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
