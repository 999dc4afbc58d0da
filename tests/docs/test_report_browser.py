"""The report in a real browser: no console message, no request, every sound has its duration, the play head follows."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tests.docs.browser import CHROMIUM, Browser
from undertone.report.build import build

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
    seen = json.loads(browser.evaluated(PROBE))
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
    assert browser.evaluated(script) == [True, []]


def test_nothing_hangs_over_the_edge_of_the_paper(browser: Browser, page: Path) -> None:
    browser.open(page, width=690)  # A4 less 14 mm on either side, in CSS pixels
    browser.call("Emulation.setEmulatedMedia", media="print")
    script = """
    dispatchEvent(new Event("beforeprint"));
    [document.documentElement.scrollWidth <= document.documentElement.clientWidth, document.querySelectorAll("details:not([open])").length]
    """
    assert browser.evaluated(script) == [True, 0]


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
    assert "taken over" not in browser.evaluated("document.title")
