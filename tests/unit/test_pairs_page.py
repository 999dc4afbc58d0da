"""The page of pairs, the JSON lines and the card, from a run whose LLM writes one pair for every filter to stop."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.unit.test_report import ATTACK, make_clip
from undertone.chat import Endpoint
from undertone.execute import run_stage, write_rows
from undertone.generate.card import Ingredient, write_outputs
from undertone.generate.checks import ALL_CHECKS, REPEAT_CHECKS, CheckStage, RepeatStage
from undertone.generate.stage import GenerateStage
from undertone.generate.written import Written
from undertone.records import Clip, QAPair, Record, Segment
from undertone.report.pairs import FILTERS, pairs_page, render
from undertone.tables import Fingerprint, open_table
from undertone.testing.fake_endpoint import FakeEndpoint

GOOD = ("What does the speaker do at the station?", f"They run there {ATTACK}.")
BAD = {
    "schema": ("The mood of the speaker.", "Tense."),
    "other_language": ("Wie klingt die Person am Anfang?", "Sie ist traurig."),
    "answer_in_question": ("Does the river come up when the river comes up?", "The river comes up."),
    "presupposes_transcript": ("What does the transcript say about boxes?", "They are by the door."),
    "mentions_labels": ("What is the valence score of the first part?", "It is low."),
    "too_long": ("What is said about the meeting?", "It was moved, and then moved again. " * 20),
    "unanswerable_phrase": ("Where did the train come from?", "It cannot be determined from the audio."),
    "duplicate_in_clip": (GOOD[0].upper(), "Run."),
    "paraphrase_in_clip": ("At the station, what does the speaker do?", "They run."),
    "why_flood": ("Why does the speaker feel sad?", "The train had left."),
}


def table(folder: Path, rows: Sequence[Record], record: type[Record]) -> Path:
    made = Fingerprint(stage="made", version="1", seed=0, config={}, inputs={"rows": str(len(rows))})
    write_rows(folder, rows, record=record, fingerprint=made)
    return folder


def example(out: Path, *, clips: int = 6, model: str = "tiny-llm") -> Path:
    """A run's folder with the sources `grammar` and `cpqa`, the second written by a model that makes all mistakes, and checked twice."""
    rng = np.random.default_rng(5)
    (out / "audio").mkdir(parents=True)
    made = [make_clip(index, out / "audio", rng) for index in range(clips)]
    references = [clip for clip, _ in made]
    heard = [clip.model_copy(update={"segments": tuple(segments)}) for clip, segments in made]
    table(out / "references", references, Clip)
    table(out / "condense", heard, Clip)
    table(out / "label", [one for _, segments in made for one in segments], Segment)
    pairs = [{"kind": "C", "question": question, "answer": answer} for question, answer in (GOOD, *BAD.values())]
    splits = ("test",)
    with FakeEndpoint([json.dumps({"pairs": pairs})]) as server:
        at = Endpoint(endpoint=server.url, model=model, retries=0)
        settings = {"kinds": ["C"], "pairs_per_kind": len(pairs)}
        cpqa = GenerateStage(strategy="cpqa", llm=at, settings=settings, splits=splits)
        run_stage(cpqa, [out / "condense"], out / "generate" / "cpqa")
    grammar = GenerateStage(strategy="grammar", splits=splits, frames="train")
    run_stage(grammar, [out / "condense"], out / "generate" / "grammar")
    sides = {"clips": out / "condense", "predicted": out / "label"}
    sources = [out / "generate" / name for name in ("cpqa", "grammar")]
    run_stage(CheckStage(off=("words_only",)), sources, out / "generate" / "contextual" / "checked", sides=sides)
    run_stage(RepeatStage(copies=2), [out / "generate" / "contextual" / "checked"], out / "generate" / "contextual")
    facts = {"study": {"name": f"pairs {ATTACK}"}, "created": "2026-01-01", "seed": 1, "undertone": "0"}
    (out / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example(tmp_path_factory.mktemp("pairs") / "run")


def section(page: str, name: str) -> str:
    return re.findall(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)[0]


def test_every_clip_and_pair_is_accounted_for(run: Path) -> None:
    accounts = Written(run).accounts()
    assert [one.source for one in accounts] == ["cpqa", "grammar"]
    for one in accounts:
        assert one.clips == one.asked + one.failed + sum(one.passed_over.values()) == 6
        assert one.written == one.kept + sum(one.lost.values()) == len(open_table(run / "generate" / one.source, QAPair))
    assert sum(one.kept for one in accounts) == len(open_table(run / "generate" / "contextual", QAPair))
    llm, grammar = accounts
    assert (llm.model, llm.predicted, grammar.model) == ("tiny-llm", True, None)
    assert list(llm.lost) == [one for one in (*ALL_CHECKS, *REPEAT_CHECKS) if one in BAD or one == "paraphrase_in_corpus"]


def test_the_page_shows_dropped_pairs_of_every_filter_and_kept_ones_of_every_kind(run: Path) -> None:
    page = render(Written(run))
    dropped, kept = section(page, "dropped"), section(page, "kept")
    shown = re.findall(r"<h3><code>(\w+)</code></h3>(.*?)</div>\n</div>", dropped, re.DOTALL)
    assert {name for name, _ in shown} == {*BAD, "paraphrase_in_corpus"}
    for name, text in shown:
        count = len([one for one in Written(run).losses["reason"].to_list() if one == name])
        assert f"{count} pair" in text
        assert text.count("<article") == min(3, count)
        # Of pairs that are alike the first by id stays, which need not be the one that is meant to.
        assert name.startswith("paraphrase") or BAD[name][0] in text
    assert "reads like the language &#39;de&#39;" in dropped
    assert re.search(r"like “[^”<]*station", dropped), "a paraphrase stands beside what it repeats"
    assert not re.search(r"like [0-9a-f]{16}", dropped), "and not beside a hash"
    kinds = {one.kind for one in open_table(run / "generate" / "contextual", QAPair).rows()}
    assert kinds >= {"C", "CE"}
    assert set(re.findall(r'<h3><span class="kind">(\w+)</span>', kept)) == kinds
    assert "Not made in this run: words_only." in dropped
    assert "Made, and found nothing: " in dropped


def test_data_are_escaped_and_sounds_stand_there_once(run: Path) -> None:
    page = render(Written(run))
    assert ATTACK not in page
    assert "&lt;script&gt;alert" in page
    sounds = dict(re.findall(r'<span id="sound-(\d+)">(data:audio/mpeg;base64,[^<]+)</span>', page))
    assert page.count("data:audio/mpeg") == len(sounds) <= 6
    played = re.findall(r'data-clip="(\d+)"', page)
    assert set(played) == set(sounds)
    assert len(played) > len(sounds)
    assert page.count("<summary>evidence</summary>") == page.count("<article")
    assert "raw reply" in page


def test_the_same_tables_give_the_same_page_wherever_they_lie(run: Path) -> None:
    first = pairs_page(run)
    assert first == run / "report" / "pairs.html"
    text = first.read_text(encoding="utf-8")
    again = pairs_page(run)
    assert again is not None
    assert again.read_text(encoding="utf-8") == text
    assert len(text) < 3_000_000


def test_a_page_over_its_budget_says_which_sounds_it_leaves_out(run: Path) -> None:
    page = render(Written(run), budget=150_000)
    assert 0 < page.count('<span id="sound-') < 6
    assert "left out to keep the page small" in page
    assert sum(map(len, re.findall(r"data:audio/mpeg;base64,[^<]+", page))) <= 150_000


def test_a_sound_that_is_gone_and_a_folder_without_pairs(tmp_path: Path) -> None:
    out = example(tmp_path / "run", clips=1)
    for file in (out / "audio").glob("*.wav"):
        file.unlink()
    assert "No sound: " in render(Written(out))
    assert pairs_page(tmp_path) is None
    assert write_outputs(tmp_path, name="x", seed=1, code_version="0") is None


def test_every_filter_has_its_sentence() -> None:
    assert set(FILTERS) == {*ALL_CHECKS, *REPEAT_CHECKS, "error"}


def test_a_run_that_was_not_checked_yet_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    clip, _ = make_clip(0, tmp_path, rng)
    table(tmp_path / "condense", [clip], Clip)
    stage = GenerateStage(strategy="cpqa", splits=("test",), frames="train")
    run_stage(stage, [tmp_path / "condense"], tmp_path / "generate" / "cpqa")
    page = render(Written(tmp_path))
    assert "not checked yet" in page
    assert "No pair was kept." in page


# ---- what generation hands on ----------------------------------------------------------------------------------------------------


def test_the_lines_are_the_kept_pairs_with_their_clips(run: Path) -> None:
    made = write_outputs(run, name="mine", seed=1, code_version="0")
    assert made is not None
    lines = [json.loads(one) for one in made.jsonl.read_text(encoding="utf-8").splitlines()]
    pairs = list(open_table(run / "generate" / "contextual", QAPair).rows())
    clips = {one.id: one for one in open_table(run / "condense", Clip).rows()}
    assert made.pairs == len(lines) == len(pairs) > 6
    for line, pair in zip(lines, pairs, strict=True):
        clip = clips[pair.clip_id]
        assert QAPair.model_validate({name: line.get(name) for name in QAPair.model_fields if name != "raw"}).id == pair.id
        assert (line["audio"], line["start_ms"], line["end_ms"]) == (clip.uri, clip.start_ms, clip.end_ms)
        assert (line["corpus"], line["licence"]) == (clip.source, "CC0-1.0")


def test_the_card_says_what_went_in_what_was_dropped_and_who_wrote(run: Path) -> None:
    labeller = Ingredient(name="affect|small", licence="CC BY-NC-SA 4.0", used_for="labels")
    made = write_outputs(run, name="mine", seed=1, code_version="0", labellers=[labeller])
    assert made is not None
    card = made.card.read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["license_name"] == "CC BY-NC-SA 4.0 + CC0-1.0 + not known to Undertone: see its terms"
    assert front["configs"][0]["data_files"] == made.jsonl.name
    assert "| affect\\|small | labels | CC BY-NC-SA 4.0 |" in card
    assert re.search(r"\| demo \| speech and words \| CC0-1.0 \| 3 \| 0\.0\d \|", card)
    account = Written(run).accounts()[0]
    row = next(one for one in card.splitlines() if one.startswith("| cpqa | predicted |"))
    assert (
        row == f"| cpqa | predicted | 6 | 6 | {account.written} | {' | '.join(map(str, account.lost.values()))} | {account.kept} |"
    )
    digest = next(one.prompt_digest for one in open_table(run / "generate" / "cpqa", QAPair).rows())
    assert f"| tiny-llm | {digest} |" in card
    assert "Not made: words_only." in card
    assert "`tiny-llm` wrote from text and never heard the speech." in card
    write_outputs(run, name="mine", seed=1, code_version="0", labellers=[labeller])
    assert made.card.read_text(encoding="utf-8") == card
