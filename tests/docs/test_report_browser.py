"""The report in a real browser: no console message, no request, every sound has its duration, the play head follows.

Chromium is driven over its debugging pipe (file descriptors 3 and 4, JSON between null bytes), so that the page is the shipped one.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from undertone.report.build import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
PROBE = """
(async () => {
  const sounds = [...document.querySelectorAll("audio")];
  const event = (target, name) => new Promise((done) => target.addEventListener(name, done, {once: true}));
  for (const sound of sounds) if (!sound.readyState) await event(sound, "loadedmetadata");
  const clip = document.querySelector(".clip"), first = sounds[0], moved = event(first, "seeked");
  first.currentTime = first.duration / 2;
  await moved;
  return JSON.stringify({
    seconds: sounds.map((sound) => sound.duration),
    expected: sounds.map((sound) => Number(sound.closest(".clip").dataset.seconds)),
    head: parseFloat(clip.querySelector(".head").style.left),
    now: clip.querySelectorAll(".transcript .now").length,
    page: document.documentElement.scrollWidth - innerWidth,
    dark: getComputedStyle(document.body).backgroundColor,
  });
})()
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")


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

    def probe(self) -> dict[str, Any]:
        return json.loads(self.call("Runtime.evaluate", expression=PROBE, awaitPromise=True)["result"]["value"])

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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made
        made.receive.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    example = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "test_report.py"))["example"]
    return build(example(folder / "audio", clips=5), folder)


@pytest.mark.parametrize(
    ("width", "scheme", "background"), [(1300, "light", "rgb(252, 251, 249)"), (400, "dark", "rgb(22, 24, 27)")]
)
def test_the_page_works_offline_and_its_sounds_play(browser: Browser, page: Path, width: int, scheme: str, background: str) -> None:
    browser.open(page, width=width, scheme=scheme)
    seen = browser.probe()
    assert browser.complaints() == []
    assert browser.requests() == []
    assert len(seen["seconds"]) == 5
    assert seen["seconds"] == pytest.approx(seen["expected"], abs=0.15)
    assert seen["head"] == pytest.approx(50, abs=1)
    assert seen["now"] == 1
    assert seen["page"] <= 0, "the page itself must not scroll sideways, only its tables"
    assert seen["dark"] == background


def test_no_word_of_a_figure_is_cut_off(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    script = """
    const words = [...document.querySelectorAll("svg.figure text")];
    const cut = words.filter((word) => {
      const inside = word.getBoundingClientRect(), whole = word.closest("svg").getBoundingClientRect();
      return inside.left < whole.left - 1 || inside.right > whole.right + 1 || inside.bottom > whole.bottom + 1;
    });
    [words.length > 100, cut.map((word) => word.textContent)]
    """
    assert browser.call("Runtime.evaluate", expression=script, returnByValue=True)["result"]["value"] == [True, []]


def test_nothing_hangs_over_the_edge_of_the_paper(browser: Browser, page: Path) -> None:
    browser.open(page, width=690)  # A4 less 14 mm on either side, in CSS pixels
    browser.call("Emulation.setEmulatedMedia", media="print")
    script = """
    dispatchEvent(new Event("beforeprint"));
    [document.documentElement.scrollWidth <= document.documentElement.clientWidth, document.querySelectorAll("details:not([open])").length]
    """
    assert browser.call("Runtime.evaluate", expression=script, returnByValue=True)["result"]["value"] == [True, 0]


def test_the_checks_see_a_request_and_the_page_refuses_a_strange_script(browser: Browser, page: Path, tmp_path: Path) -> None:
    strange = '<img src="http://127.0.0.1:9/x.png"><script>document.title = "taken over"</script></body>'
    text = page.read_text(encoding="utf-8").replace("</body>", strange)
    (tmp_path / "open.html").write_text(text.replace("Content-Security-Policy", "x-none"), encoding="utf-8")
    browser.open(tmp_path / "open.html", width=1300)
    assert browser.requests() == ["http://127.0.0.1:9/x.png"]
    assert browser.complaints()
    (tmp_path / "closed.html").write_text(text, encoding="utf-8")
    browser.open(tmp_path / "closed.html", width=1300)
    assert browser.complaints()
    assert "taken over" not in browser.call("Runtime.evaluate", expression="document.title")["result"]["value"]
