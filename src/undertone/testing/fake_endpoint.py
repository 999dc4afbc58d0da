"""A real HTTP server on the loopback interface that speaks chat completions and replies as it is told, faults included.

>>> with FakeEndpoint(["Hello.", Fault(status=429), "Again."]) as endpoint:
...     endpoint.url  # hand it to ChatClient  # doctest: +SKIP
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Say:
    """A reply with HTTP status 200.

    Attributes:
        text: What the assistant says; None with a refusal.
        finish: "stop", or "length" for a reply that was cut at the token limit.
        refusal: The refusal text of servers that have a field for it.
        delay_s: Seconds before the server answers.
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
    """

    status: int
    message: str = "programmed fault"
    body: str | None = None
    truncate: bool = False


Told = str | Say | Fault


class FakeEndpoint:
    """The server; a context manager.

    Attributes:
        requests: The JSON bodies received so far, in order.
    """

    def __init__(self, replies: Sequence[Told] | Callable[[dict[str, Any]], Told]) -> None:
        """Program the replies: one after the other, the last one for ever; or a function of the request's body."""
        self.requests: list[dict[str, Any]] = []
        self._replies = replies
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
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
        return self._replies(body) if callable(self._replies) else self._replies[min(number, len(self._replies)) - 1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(endpoint: FakeEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self._send(404, json.dumps({"error": {"message": f"no such path: {self.path}"}}))
                return
            told = endpoint.reply_to(body)
            if isinstance(told, Fault):
                error = json.dumps({"error": {"message": told.message, "type": "fake"}})
                self._send(told.status, error if told.body is None else told.body, truncate=told.truncate)
                return
            say = Say(text=told) if isinstance(told, str) else told
            time.sleep(say.delay_s)
            self._send(200, json.dumps(_completion(say, body)))

        def _send(self, status: int, text: str, *, truncate: bool = False) -> None:
            raw = text.encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                # So that a client that retries does not spend a test's time on waiting.
                self.send_header("retry-after-ms", "5")
                self.end_headers()
                self.wfile.write(raw[: len(raw) // 2] if truncate else raw)
            except OSError:
                pass  # the client gave up waiting
            self.close_connection = True

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
