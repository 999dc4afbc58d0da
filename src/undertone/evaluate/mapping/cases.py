"""The hand-labelled answers that the mapping is measured on, and the measurement.

447 answers in the manner of speech models, written for the purpose and labelled by the same author: 177 for development and 270 held out,
split before the rules were fitted to the first. Columns: attribute; text; label (a class, a number in 0..1, or "unmapped"); note (what the
answer is an example of); given (classes that the question offers, joined by ";", or its scale, as "1..5").
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from undertone.evaluate import mapping
from undertone.evaluate.mapping.nearest import Nearest
from undertone.evaluate.mapping.values import UNIT, Scale
from undertone.evaluate.metrics import UNMAPPED
from undertone.records import DIMENSIONS

Part = Literal["development", "held_out"]

_NEAR = 0.01
"""A value read from an answer is right within this."""


@dataclass(frozen=True)
class Case:
    """One labelled answer."""

    attribute: str
    text: str
    label: str
    note: str
    among: tuple[str, ...] | None
    scale: Scale

    def read(self, nearest: Nearest | None = None) -> str:
        """What the mapping makes of the answer, in the terms of `label`."""
        if self.attribute in DIMENSIONS:
            value = mapping.to_value(self.text, self.attribute, scale=self.scale).value
            return UNMAPPED if value is None else f"{value:g}"
        return mapping.to_label(self.text, self.attribute, among=self.among, nearest=nearest).label or UNMAPPED

    def right(self, nearest: Nearest | None = None) -> bool:
        """Whether that is what the label says."""
        said = self.read(nearest)
        if self.attribute in DIMENSIONS and UNMAPPED not in (said, self.label):
            return abs(float(said) - float(self.label)) <= _NEAR
        return said == self.label


@dataclass(frozen=True)
class Accuracy:
    """How many answers of an attribute are read as labelled; `wrong` counts those read as another class, the worst kind of error."""

    attribute: str
    n: int
    right: int
    wrong: int
    missed: int

    @property
    def share(self) -> float:
        """Right of all."""
        return self.right / self.n


def cases(part: Part) -> list[Case]:
    """The labelled answers of one part."""
    source = (resources.files("undertone.evaluate.mapping") / f"{part}.csv").read_text(encoding="utf-8")
    return [_case(row) for row in csv.DictReader(source.splitlines())]


def accuracy(some: Sequence[Case], *, nearest: Nearest | None = None) -> list[Accuracy]:
    """Accuracy for each attribute in order of appearance, and for "all" at last."""
    tally: dict[str, list[int]] = {}
    for case in some:
        said, right = case.read(nearest), case.right(nearest)
        for name in (case.attribute, "all"):
            row = tally.setdefault(name, [0, 0, 0, 0])
            row[0] += 1
            row[1] += right
            row[2] += not right and said != UNMAPPED
            row[3] += not right and said == UNMAPPED
    return [Accuracy(name, *tally[name]) for name in sorted(tally, key=lambda name: name == "all")]


def _case(row: dict[str, str]) -> Case:
    given = row["given"]
    scale, among = UNIT, None
    if ".." in given:
        low, high = given.split("..")
        scale = (float(low), float(high))
    elif given:
        among = tuple(given.split(";"))
    return Case(row["attribute"], row["text"], row["label"], row["note"], among, scale)
