"""The page of generated pairs: what each source wrote and kept, and for every filter and every kind some pairs to read and to hear.

    pairs_page(Path("runs/mine"))  # -> runs/mine/report/pairs.html

Which examples are shown is a matter of their ids, which are hashes of what they say: nobody chose them, and the same run shows the same. A clip
that is on the page already goes before others, up to a point, because sound is what makes the page large.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from markupsafe import Markup

from undertone import tables
from undertone.audio import AudioError, load
from undertone.generate.checks import ALL_CHECKS, METADATA_LEAK, REPEAT_CHECKS, WORDS_ONLY
from undertone.generate.measure import FAILED
from undertone.generate.written import Account, Written
from undertone.paths import Location
from undertone.records import Clip, QAPair
from undertone.report.listen import KIND_NAMES
from undertone.report.shipped import rendered, shipped
from undertone.report.sound import mp3_data_uri

PAGE = "pairs.html"
SOUND_BUDGET = 2_400_000
"""Characters of sound on the page, of some 3 million in all."""
EXAMPLES = 3
"""For each filter and each kind, from as many sources as there are."""
_OFTEN = 4
"""A clip goes before others until it is shown so often."""

FILTERS: Mapping[str, str] = {
    "schema": "No question, no answer, more than one line, or a label that does not fit the kind of question.",
    "other_language": "Question or answer is in another language than is wanted.",
    "answer_in_question": "The question tells its answer.",
    "presupposes_transcript": "The question or the answer speaks of a text, which a listener does not have.",
    "mentions_labels": "The question or the answer speaks of labels, scores or other metadata.",
    "too_long": "The question or the answer has too many words.",
    "unanswerable_phrase": "The answer says that it cannot be told.",
    "unsupported": "Label or answer do not agree with the labels of the clip.",
    WORDS_ONLY: "Answered right from the words alone: it needs no voice.",
    METADATA_LEAK: "Answered right from the string of predicted labels alone, which the explicit method shows: the confound of 2508.07273.",
    "duplicate_in_clip": "The same question about the same clip again.",
    "paraphrase_in_clip": "The same question about the same clip in other words.",
    "paraphrase_in_corpus": "The same question, about something that is said or heard at one point, of many clips.",
    "why_flood": "One of too many that ask why somebody feels something.",
    FAILED: "Could not be checked: the check's LLM did not answer.",
}
"""What each filter takes away. A filter that is not named here is shown all the same, without a sentence."""

_ALIKE = re.compile(r"like ([0-9a-f]{16})")


@dataclass(frozen=True)
class Player:
    """One clip of the page: its sound stands there once, however often it is shown."""

    number: int
    sound: str | None
    silent: str


@dataclass(frozen=True)
class Example:
    """One pair as the page shows it; `why` is empty for one that stayed."""

    pair: QAPair
    clip: Clip | None
    player: Player
    why: str
    kind_name: str

    @property
    def seconds(self) -> str:
        """Where the clip lies in its recording."""
        return f"{self.clip.start_ms / 1000:.1f}–{self.clip.end_ms / 1000:.1f} s" if self.clip else ""


@dataclass(frozen=True)
class Group:
    """A filter or a kind: how many pairs by source, and examples."""

    name: str
    what: str
    counts: tuple[tuple[str, int], ...]
    examples: tuple[Example, ...]

    @property
    def total(self) -> int:
        return sum(count for _, count in self.counts)


@dataclass(frozen=True)
class Pick:
    """A pair that was chosen to be shown, and the filter's words about it."""

    id: str
    clip_id: str
    detail: str = ""


def pairs_page(out: Location) -> Location | None:
    """Write report/pairs.html of a run and return its path; None where the run has no pairs.

    The same tables give the same page. Of the audio, only the clips that are shown are read; one that cannot be says why.

    Args:
        out: The run's folder.
    """
    written = Written(out)
    if not written.sources:
        return None
    page = out / "report" / PAGE
    tables.write_bytes(page, render(written).encode())
    return page


def render(written: Written, *, budget: int = SOUND_BUDGET) -> str:
    """The page as text; what came from data is escaped by the template.

    Args:
        written: The run's tables of pairs.
        budget: Characters of sound at most.
    """
    shown: Counter[str] = Counter()
    dropped = {name: _picked(rows, shown) for name, rows in _groups(written.losses, "reason", list(FILTERS))}
    flagged = {name: _picked(rows, shown) for name, rows in _groups(written.flagged, "reason", list(FILTERS))}
    stayed = written.pairs.filter("stays").with_columns(detail=pl.lit(None, pl.String))
    accepted = {name: _picked(rows, shown) for name, rows in _groups(stayed, "kind", list(KIND_NAMES))}
    picks = [one for group in (dropped, flagged, accepted) for some in group.values() for one in some]
    alike = {key for one in picks for key in _ALIKE.findall(one.detail)}
    pairs = written.read({one.id for one in picks} | alike)
    clips = written.clips_of({one.clip_id for one in picks})
    players = _players(dict.fromkeys(one.clip_id for one in picks), clips, budget)

    def groups(frame: pl.DataFrame, column: str, chosen: Mapping[str, Sequence[Pick]], about: Mapping[str, str]) -> list[Group]:
        return [
            Group(
                name=name,
                what=about.get(name, ""),
                counts=_counts(frame.filter(pl.col(column) == name)),
                examples=tuple(_example(one, pairs, clips, players) for one in some if one.id in pairs),
            )
            for name, some in chosen.items()
        ]

    accounts = written.accounts()
    script = shipped("pairs.js")
    file = written.out / "run.json"
    values = {
        "run": json.loads(file.read_text(encoding="utf-8")) if file.exists() else None,
        "css": Markup(shipped("page.css") + shipped("pairs.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        "accounts": accounts,
        "reasons": _reasons(accounts),
        "over": _over(accounts),
        "kinds": _kinds(stayed),
        "dropped": groups(written.losses, "reason", dropped, FILTERS),
        "flagged": groups(written.flagged, "reason", flagged, FILTERS),
        "accepted": groups(stayed, "kind", accepted, KIND_NAMES),
        "idle": [one for one in (*ALL_CHECKS, *REPEAT_CHECKS) if one not in dropped and one not in flagged and written.made(one)],
        "unmade": [one for one in (*ALL_CHECKS, *REPEAT_CHECKS) if not written.made(one)],
        "checked": bool(written.final),
        "players": list(players.values()),
    }
    return rendered("pairs.html.jinja", values)


def _groups(frame: pl.DataFrame, column: str, order: Sequence[str]) -> list[tuple[str, pl.DataFrame]]:
    """The rows of each value of a column, in the given order; values that it does not name stand last, by name."""
    there = frame[column].unique().to_list()
    names = [*(one for one in order if one in there), *sorted(set(there) - set(order))]
    return [(name, frame.filter(pl.col(column) == name)) for name in names]


def _picked(rows: pl.DataFrame, shown: Counter[str]) -> tuple[Pick, ...]:
    """Up to `EXAMPLES` rows, the sources in turn; `shown` counts how often each clip is on the page."""
    left = {source: _first(of_one) for source, of_one in _groups(rows, "source", ())}
    made: list[Pick] = []
    while len(made) < EXAMPLES and any(left.values()):
        for some in left.values():
            if some and len(made) < EXAMPLES:
                pick = min(some, key=lambda one: (not 0 < shown[one.clip_id] < _OFTEN, one.id))
                some.remove(pick)
                shown[pick.clip_id] += 1
                made.append(pick)
    return tuple(made)


def _first(rows: pl.DataFrame, at_most: int = 200) -> list[Pick]:
    """Some rows to choose from: ids are hashes, so the lowest of them are as good as drawn."""
    some = rows.sort("id").head(at_most)
    return [Pick(id=key, clip_id=clip, detail=detail or "") for key, clip, detail in _cells(some)]


def _cells(rows: pl.DataFrame) -> Iterable[tuple[str, str, str | None]]:
    has = "detail" in rows.columns
    return (rows if has else rows.with_columns(detail=pl.lit(None, pl.String))).select("id", "clip_id", "detail").iter_rows()


def _players(ids: Iterable[str], clips: Mapping[str, Clip], budget: int) -> dict[str, Player]:
    made = {}
    for number, key in enumerate(ids, start=1):
        sound, silent = None, "No sound: the clip is in none of this run's tables."
        if clip := clips.get(key):
            try:
                sound = mp3_data_uri(load(clip.uri, start_ms=clip.start_ms, end_ms=clip.end_ms))
            except AudioError as error:
                silent = f"No sound: {error}"
        if sound is not None and len(sound) > budget:
            sound, silent = None, "The sound of this clip was left out to keep the page small."
        budget -= len(sound or "")
        made[key] = Player(number, sound, silent)
    return made


def _example(pick: Pick, pairs: Mapping[str, QAPair], clips: Mapping[str, Clip], players: Mapping[str, Player]) -> Example:
    pair = pairs[pick.id]
    # The detail of a loss repeats the question, so that a table of losses can be read by itself.
    why = pick.detail.removeprefix(pair.question).strip()
    why = why[1:-1] if why.startswith("(") and why.endswith(")") else why
    for key in _ALIKE.findall(why):
        if key in pairs:
            why = why.replace(key, f"“{pairs[key].question}”")
    return Example(pair, clips.get(pick.clip_id), players[pick.clip_id], why, KIND_NAMES.get(pair.kind, ""))


def _counts(rows: pl.DataFrame) -> tuple[tuple[str, int], ...]:
    return tuple(rows.group_by("source").len().sort("source").iter_rows())


def _reasons(accounts: Sequence[Account]) -> list[str]:
    """The reasons for which pairs were lost in any source, in the order of the checks."""
    there = {reason for one in accounts for reason in one.lost}
    return [*(one for one in FILTERS if one in there), *sorted(there - set(FILTERS))]


def _over(accounts: Sequence[Account]) -> list[str]:
    return sorted({reason for one in accounts for reason in one.passed_over})


def _kinds(stayed: pl.DataFrame) -> list[tuple[str, dict[str, int]]]:
    """For each source the number of kept pairs by kind."""
    made: dict[str, dict[str, int]] = {}
    for source, kind, count in stayed.group_by("source", "kind").len().sort("source", "kind").iter_rows():
        made.setdefault(source, {})[kind] = count
    return list(made.items())
