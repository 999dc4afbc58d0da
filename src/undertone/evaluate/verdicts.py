"""The verdicts of an evaluated run: a table for each judge, in the order in which evaluate/judges.json names them."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import TypeAdapter

from undertone import tables
from undertone.evaluate.judges import JudgeCard
from undertone.paths import Location
from undertone.records import Verdict

_OF_REPLIES = frozenset({"epitome", "manner"})
"""Kinds of judges that score replies and no questions."""


def verdicts_on_questions(folder: Location) -> Iterator[Verdict]:
    """All verdicts of the judges that score questions, the study table's first.

    What is left of a study that named more judges is not read.
    """
    listed = folder / "evaluate" / "judges.json"
    names = ["verdicts"]
    if listed.is_file():
        cards = TypeAdapter(list[JudgeCard]).validate_json(listed.read_bytes())
        names += [f"verdicts-{number}" for number, card in enumerate(cards, start=1) if number > 1 and card.kind not in _OF_REPLIES]
    for name in names:
        yield from tables.open_table(folder / "evaluate" / name, Verdict).rows()
