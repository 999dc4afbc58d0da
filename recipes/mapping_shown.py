"""How well free-text answers are read as labels: on the hand-labelled set, and against the judges of AudioBench.

    python recipes/mapping_shown.py --logs ../shared/data/audiobench-logs

The first table is of `evaluate/mapping`'s own labelled answers. The second reads the answers to AudioBench's emotion and gender questions
as classes (emotion among those that the question lists, gender as that of several speakers), compares them with the reference read alike,
and sets that beside the binary verdict of each judge in the logs. Where the two differ the answer falls into a class of disagreement,
found by rule. The logs are non-commercial: nothing of them is printed, and the examples are paraphrases.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.metrics import cohen_kappa_score

from undertone.evaluate.mapping import Mapped, cases, to_label

SETS = {"emotion": "iemocap_emotion_test", "genders": "imda_gr_dialogue"}
"""What is asked about -> the AudioBench set."""

DISAGREEMENTS = {
    "several, the right one among them": "reference anger; answer names anger and frustration alike, which is no answer here",
    "a neighbouring class": "reference anger; answer frustration (or excited and happiness); both are offered as classes of their own",
    "no class named": "answer says that the clip does not tell; the judge calls it right (as neutral, where the reference is)",
    "another class": "reference and answer name plainly different classes",
    "order of speakers not said": "reference a man first and a woman second; answer 'a woman and a man', whose order may mean nothing",
    "one speaker named of two": "reference both are women; answer 'a woman'",
    "same class, other words": "reference a man; answer names the class in an odd form ('male_masculine')",
    "not explained": "none of the above",
}
"""Class of disagreement -> a paraphrased example."""


@dataclass(frozen=True)
class Row:
    """One judged answer."""

    about: str
    judge: str
    verdict: int
    right: bool
    reason: str | None


def rows(logs: Path) -> Iterator[Row]:
    """The judged answers of both sets, all subjects and judges."""
    for about, name in SETS.items():
        for path in sorted(logs.glob(f"*/{name}_*_judge_score.json")):
            held = json.loads(path.read_text(encoding="utf-8"))
            judge = next(key for key in held if key != "details").removesuffix("_judge")
            for one in held["details"]:
                if one["success"] == 1:
                    yield _row(about, judge, one)


def _row(about: str, judge: str, one: dict[str, Any]) -> Row:
    offered = re.search(r"\(([^()]*,[^()]*)\)", one["question"]) if about == "emotion" else None
    among = tuple(offered[1].split(", ")) if offered else None
    wanted, said = (to_label(one[key], about, among=among) for key in ("reference", "model_prediction"))
    if wanted.label is None:
        raise SystemExit(f"the reference {one['reference']!r} was read as no class of {about}")
    right = said.label == wanted.label or (
        about == "genders" and _mixed(said) and _mixed(wanted) and "both" in (said.label, wanted.label)
    )
    verdict = int(one["rate_score"])
    reason = None if right == bool(verdict) else _why(about, right, wanted, said)
    return Row(about, judge, verdict, right, reason)


def _mixed(said: Mapped) -> bool:
    """Whether a woman and a man are named, in order or not."""
    return said.label == "both" or ", " in (said.label or "")


def _why(about: str, right: bool, wanted: Mapped, said: Mapped) -> str:
    """The class of disagreement; `right` is what the mapping found."""
    named = {one.label for one in said.matches if one.role in ("main", "claimed", "hedged")}
    if about == "genders":
        if right and said.label == "both" and wanted.label != "both":
            return "order of speakers not said"
        if right and len(said.matches) == 1:
            return "one speaker named of two"
        if right:
            return "same class, other words"
        return "no class named" if said.label is None else "another class"
    if right:
        return "not explained"
    if said.label is None:
        return (
            "several, the right one among them"
            if wanted.label in named
            else "no class named"
            if not said.matches
            else "not explained"
        )
    ours = {to_label(one, "emotion").label for one in (said.label, wanted.label or "")}
    return "a neighbouring class" if len(ours) == 1 else "another class"


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=Path, help="folder of AudioBench's logs; without it only the labelled answers are measured")
    given = parser.parse_args()
    for part in ("development", "held_out"):
        print(f"\n| {part} | answers | right | wrong class | missed |\n|---|---|---|---|---|")
        for one in cases.accuracy(cases.cases(part)):
            print(f"| {one.attribute} | {one.n} | {100 * one.share:.1f} % | {one.wrong} | {one.missed} |")
    if given.logs is None:
        return
    found = list(rows(given.logs))
    if not found:
        raise SystemExit(
            f"no judged answers under {given.logs}; expected folders of subjects with {SETS['emotion']}_*_judge_score.json"
        )
    print("\n| set | judge | answers | agree | kappa | right by the mapping | right by the judge |\n|---|---|---|---|---|---|---|")
    for about, judge in sorted({(one.about, one.judge) for one in found}):
        here = [one for one in found if (one.about, one.judge) == (about, judge)]
        kappa = cohen_kappa_score([one.right for one in here], [bool(one.verdict) for one in here])
        shares = [
            sum(values) / len(here) for values in zip(*((one.reason is None, one.right, one.verdict) for one in here), strict=True)
        ]
        agree, mapped, judged = (f"{100 * share:.1f} %" for share in shares)
        print(f"| {SETS[about]} | {judge} | {len(here)} | {agree} | {kappa:.2f} | {mapped} | {judged} |")
    print(
        "\n| set | judge | mapping | judge says | disagreement | answers | example (paraphrased) |\n|---|---|---|---|---|---|---|"
    )
    tally = Counter((one.about, one.judge, one.right, one.reason) for one in found if one.reason)
    for (about, judge, right, reason), count in sorted(tally.items(), key=lambda item: (item[0][:3], -item[1])):
        sides = ("right", "wrong") if right else ("wrong", "right")
        print(f"| {SETS[about]} | {judge} | {sides[0]} | {sides[1]} | {reason} | {count} | {DISAGREEMENTS[reason]} |")


if __name__ == "__main__":
    main()
