"""An S3-compatible server of a package (moto) on loopback, and a proxy of ours before it that breaks what it is told to break."""

from __future__ import annotations

import http.client
import http.server
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Harm = Literal["404", "500", "503", "reset", "slow", "truncated", "lost_reply"]
SLOW_S = 2.0


@dataclass
class Fault:
    """Harm the next `times` requests whose "METHOD /path" matches `where`."""

    harm: Harm
    where: str = "."
    times: int = 1
    met: int = 0


@dataclass
class FaultyProxy:
    """Forwards to the server, but for what `faults` says; `seen` is every request that came."""

    server: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                proxy.handle(self)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.lock = threading.Lock()
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def next_harm(self, request: str) -> Harm | None:
        with self.lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.met < fault.times and re.search(fault.where, request):
                    fault.met += 1
                    return fault.harm
        return None

    def handle(self, client: http.server.BaseHTTPRequestHandler) -> None:
        content = _body(client)
        harm = self.next_harm(f"{client.command} {client.path}")
        if harm == "reset":
            _reset(client)
            return
        if harm in ("404", "500", "503"):
            code = {"404": "NoSuchKey", "500": "InternalError", "503": "SlowDown"}[harm]
            _answer(client, int(harm), f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode(), {})
            return
        if harm == "slow":
            time.sleep(SLOW_S)
        status, headers, reply = self.forward(client, content)
        if harm == "lost_reply":  # the store did what it was asked, and nobody hears of it
            _reset(client)
            return
        _answer(client, status, reply, headers, keep=len(reply) // 2 if harm == "truncated" else None)

    def forward(self, client: http.server.BaseHTTPRequestHandler, content: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.server).netloc, timeout=60)
        headers = {key: value for key, value in client.headers.items() if key.lower() not in ("content-length", "expect")}
        headers.pop("Transfer-Encoding", None)
        connection.request(client.command, client.path, body=content, headers=headers)
        got = connection.getresponse()
        reply = got.read()
        return got.status, dict(got.getheaders()), reply


def _body(client: http.server.BaseHTTPRequestHandler) -> bytes:
    if client.headers.get("Transfer-Encoding", "").lower() == "chunked":
        content = b""
        while size := int(client.rfile.readline().split(b";")[0], 16):
            content += client.rfile.read(size)
            client.rfile.readline()
        while client.rfile.readline().strip():
            pass
        return content
    return client.rfile.read(int(client.headers.get("Content-Length") or 0))


def _answer(
    client: http.server.BaseHTTPRequestHandler, status: int, reply: bytes, headers: dict[str, str], *, keep: int | None = None
) -> None:
    client.send_response_only(status)
    for key, value in headers.items():
        if key.lower() not in ("content-length", "transfer-encoding", "connection"):
            client.send_header(key, value)
    length = headers.get("Content-Length", str(len(reply))) if client.command == "HEAD" else str(len(reply))
    client.send_header("Content-Length", length)
    client.end_headers()
    if client.command != "HEAD":
        client.wfile.write(reply if keep is None else reply[:keep])
    if keep is not None:
        client.wfile.flush()
        _reset(client)


def _reset(client: http.server.BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.connection.close()
    client.close_connection = True
    client.rfile = client.wfile = open(os.devnull, "r+b")  # noqa: SIM115 - what the base class flushes and closes


@contextmanager
def s3_server() -> Iterator[str]:
    """The server's address; its content ends with it."""
    port = _free_port()
    with _served(["moto_server", "-H", "127.0.0.1", "-p", str(port)], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def gs_server(bucket: str) -> Iterator[str]:
    """The address of an emulator of Google Cloud Storage that has a bucket."""
    port = _free_port()
    options = ["--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={bucket}"]
    with _served(["gcp-storage-emulator", "start", *options], port):
        yield f"http://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _served(command: list[str], port: int) -> Iterator[None]:
    program = os.path.join(os.path.dirname(sys.executable), command[0])
    process = subprocess.Popen([program, *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start within 90 s")
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def make_bucket(server: str, name: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
    connection.request(
        "PUT", f"/{name}", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
    )
    assert connection.getresponse().status == 200
