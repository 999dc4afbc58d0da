"""A real browser for tests of pages.

Chromium is driven over its debugging pipe (file descriptors 3 and 4, JSON between null bytes), so that the page is the shipped one.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


class Browser:
    """One tab, and the events that it sent."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive = send, os.fdopen(receive, "rb", buffering=0)
        self.numbers, self.pending, self.session = itertools.count(1), b"", {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        os.write(self.send, json.dumps({"id": number, "method": method, "params": params, **self.session}).encode() + b"\0")
        while True:
            message = self.read()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def read(self) -> dict[str, Any]:
        while b"\0" not in self.pending:
            part = self.receive.read(1 << 20)
            assert part, "chromium closed its pipe"
            self.pending += part
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, *, width: int, scheme: str = "light") -> None:
        """Open a page of this width in pixels and wait until it is loaded; forget the events of the one before."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", media="screen", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri())
        while not any(one["method"] == "Page.loadEventFired" for one in self.events):
            self.events.append(self.read())

    def evaluated(self, script: str) -> Any:
        """The value of a script, or of what it promises."""
        return self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"]["value"]

    def complaints(self) -> list[str]:
        """What stands in the console."""
        console = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(one["params"]) for one in self.events if one["method"] in console]

    def requests(self) -> list[str]:
        """What the page asked for, beside itself and the data in it."""
        sent = [one["params"]["request"]["url"] for one in self.events if one["method"] == "Network.requestWillBeSent"]
        return [one for one in sent if not one.startswith(("data:", "file:"))]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    (theirs, ours), (mine, yours) = os.pipe(), os.pipe()
    # Far from 3 and 4, so that neither end overwrites the other on its way there.
    theirs_high, yours_high = (fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (theirs, yours))

    def place() -> None:
        os.dup2(theirs_high, 3)
        os.dup2(yours_high, 4)

    command = [str(CHROMIUM), "--headless", "--no-sandbox", *QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=place)
    for one in (theirs, yours, theirs_high, yours_high):
        os.close(one)
    try:
        yield Browser(ours, mine)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(ours)
