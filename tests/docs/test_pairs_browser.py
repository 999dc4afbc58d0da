"""The page of pairs in a real browser: no console message, no request, every player has its clip's sound, nothing hangs over the edge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.browser import CHROMIUM, Browser
from tests.unit.test_pairs_page import example
from undertone.report.pairs import pairs_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")

PROBE = """
(async () => {
  const players = [...document.querySelectorAll("audio")];
  const event = (target, name) => new Promise((done) => target.addEventListener(name, done, {once: true}));
  for (const one of players) if (!one.readyState) await event(one, "loadedmetadata");
  let silenced = 0;
  for (const one of players) one.pause = () => { silenced += 1; };
  players[0].dispatchEvent(new Event("play"));  // a headless browser has no device to play to

  return JSON.stringify({
    seconds: players.map((one) => one.duration),
    expected: players.map((one) => Number(one.dataset.seconds)),
    over: document.documentElement.scrollWidth - innerWidth,
    cut: [...document.querySelectorAll(".pair")].filter((one) => one.scrollWidth > one.clientWidth + 1).length,
    silenced: silenced,
    raw: document.body.innerText.includes("data:audio"),
  });
})()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = example(tmp_path_factory.mktemp("pairs") / "run", model="a-model-with-a-name-that-is-far-too-long-to-stand-in-one-line")
    made = pairs_page(out)
    assert isinstance(made, Path)
    return made


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_page_works_offline_and_its_sounds_play_one_at_a_time(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width=width, scheme=scheme)
    seen = json.loads(browser.evaluated(PROBE))
    assert browser.complaints() == []
    assert browser.requests() == []
    assert len(seen["seconds"]) > 20
    assert seen["seconds"] == pytest.approx(seen["expected"], abs=0.15)
    assert seen["over"] <= 0, "the page itself must not scroll sideways, only its tables"
    assert seen["cut"] == 0
    assert seen["silenced"] == len(seen["seconds"]) - 1
    assert not seen["raw"]


def test_on_paper_everything_is_open_and_inside_the_edge(browser: Browser, page: Path) -> None:
    browser.open(page, width=690)  # A4 less 14 mm on either side, in CSS pixels
    browser.call("Emulation.setEmulatedMedia", media="print")
    script = """
    dispatchEvent(new Event("beforeprint"));
    [document.documentElement.scrollWidth <= document.documentElement.clientWidth, document.querySelectorAll("details:not([open])").length]
    """
    assert browser.evaluated(script) == [True, 0]
