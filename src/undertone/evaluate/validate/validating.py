"""From rows to a validation: which figures there are, and what is to be said about them."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from undertone.errors import DataError
from undertone.evaluate import agreement
from undertone.evaluate.validate import checks
from undertone.evaluate.validate.checks import Draws
from undertone.evaluate.validate.labels import labelled
from undertone.evaluate.validate.result import (
    ALL,
    FEW_SYSTEMS,
    Calibration,
    RankAgreement,
    RaterAgreement,
    Validation,
    WholeAgreement,
    WholeSet,
)
from undertone.evaluate.validate.rows import Header, Judged, JudgedTable, Rater

_UNREAD_WARNING = 0.01


def validate(table: JudgedTable, *, attribute: str | None = None, resamples: int = 1000, seed: int = 0) -> Validation:
    """Check judges against right and wrong answers, against each other, against people and against themselves.

    Args:
        table: What was read.
        attribute: What the references are classes of, for tables without labels; None goes by the sets' names and questions.
        resamples: Bootstrap resamples of whole recordings.
        seed: Of the draws.

    Raises:
        ConfigError: There are no keywords for `attribute`.
        DataError: There are no verdicts, or one rater judged an answer twice in one run.
    """
    if not table.rows:
        raise DataError(f"{table.source}: no verdicts in it")
    # In one order, so that the order of files does not move an interval.
    found = labelled(sorted(table.rows, key=lambda row: (row.key, row.rater, row.run)), attribute)
    rows, draws = found.rows, Draws(resamples=resamples, seed=seed)
    _refuse_twice(rows, table.source)
    sets = checks.by_set(rows)
    about = {dataset: _attribute(some) for dataset, some in sets.items()}
    ranks: list[RankAgreement] = []
    calibration: list[Calibration] = []
    agreements: list[RaterAgreement] = []
    consistency = []
    for dataset, some in sets.items():
        for rater, mine in checks.by_rater(some).items():
            consistency.append(checks.consistency(rater, dataset, mine, draws))
            if about[dataset]:
                known = [row for row in mine if row.right is not None]
                curve = checks.calibration(rater, dataset, about[dataset], known, draws)
                calibration += [curve] if curve is not None else []
                # Systems over all sets: not every system was asked in every set, and sets differ in how hard they are.
                ranks += checks.ranks(rater, dataset, about[dataset], known, draws) if dataset != ALL else []
        agreements += checks.agreements(some, dataset, draws)
    logs: defaultdict[tuple[str, str, Rater], list[Judged]] = defaultdict(list)
    for row in rows:
        logs[row.dataset, row.system, row.rater].append(row)
    whole = tuple(_whole(header, logs[header.dataset, header.system, header.rater]) for header in table.headers)
    return Validation(
        source=table.source,
        format=table.format,
        seed=seed,
        resamples=resamples,
        verdicts=len(rows),
        answers=len({row.key for row in rows}),
        recordings=len({row.cluster for row in rows}),
        systems=tuple(sorted({row.system for row in rows})),
        datasets=tuple(one for one in sets if one != ALL),
        attributes={dataset: one for dataset, one in about.items() if one and dataset != ALL},
        judges=tuple(checks.facts(rater, mine, draws) for rater, mine in checks.by_rater(rows).items()),
        ranks=tuple(ranks),
        calibration=tuple(calibration),
        agreement=tuple(agreements),
        consistency=tuple(one for one in consistency if one is not None),
        whole=whole,
        whole_agreement=tuple(_over_headers(whole, seed)),
        warnings=tuple(_warnings(rows, ranks, agreements, whole)),
        notes=(*table.notes, *_unread(found.unread), *_unlabelled(about)),
    )


def _refuse_twice(rows: Sequence[Judged], source: str) -> None:
    seen = set()
    for row in rows:
        mark = (row.rater, row.run, row.key)
        if mark in seen:
            raise DataError(
                f"{source}: {row.rater} judged one answer of {row.system} to item {row.item} of {row.dataset} twice in run {row.run}; "
                "number repetitions in a column run, or give each prompt its own name in a column prompt"
            )
        seen.add(mark)


def _attribute(rows: Sequence[Judged]) -> str:
    """What the answers of a set are classes of; "" where no answer is known to be right or wrong."""
    return ", ".join(sorted({row.attribute or "right or wrong" for row in rows if row.right is not None}))


# ---- headers ---------------------------------------------------------------------------------------------------------------------


def _whole(header: Header, mine: Sequence[Judged]) -> WholeSet:
    counted = [row.counted_as if row.counted_as is not None else row.score for row in mine]
    return WholeSet(
        dataset=header.dataset,
        system=header.system,
        judge=header.judge,
        prompt=header.prompt,
        score=header.score,
        honest=header.honest,
        success_rate=header.success_rate,
        n=header.n,
        n_multiple_of=header.n_multiple_of,
        kept=header.kept,
        kept_score=_mean(counted),
        kept_honest=_mean([row.score for row in mine]),
        right=_mean([None if row.right is None else 100.0 * row.right for row in mine]),
        order=header.order,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


def _over_headers(whole: Sequence[WholeSet], seed: int) -> Iterator[WholeAgreement]:
    """Two judges' headers over systems and sets; and within one judge, headers beside what the kept rows say."""
    judges = sorted({one.judge for one in whole})
    for first, second in itertools.combinations(judges, 2):
        # Headers over other rows, or by another rubric, say nothing about how two judges agree.
        cells: defaultdict[tuple[str, str, str, int], dict[str, float]] = defaultdict(dict)
        for one in whole:
            cells[one.dataset, one.system, one.prompt, one.order][one.judge] = one.score
        both = {key: one for key, one in cells.items() if {first, second} <= one.keys()}
        for dataset in (ALL, *sorted({key[0] for key in both})):
            pairs = [(one[first], one[second]) for key, one in both.items() if dataset in (ALL, key[0])]
            if len(pairs) >= (2 if dataset == ALL else 3):
                yield _cells(dataset, f"{first}, whole set", f"{second}, whole set", pairs, seed)
    for judge, prompt in sorted({(one.judge, one.prompt) for one in whole}):
        name = f"{judge} ({prompt})" if prompt else judge
        mine = [one for one in whole if (one.judge, one.prompt) == (judge, prompt)]
        sides: tuple[tuple[str, Callable[[WholeSet], float | None]], ...] = (
            ("same, kept rows", lambda one: one.kept_score),
            ("share right by class, kept rows", lambda one: one.right),
        )
        for title, side in sides:
            for dataset in (ALL, *sorted({one.dataset for one in mine})):
                pairs = [(one.score, value) for one in mine if dataset in (ALL, one.dataset) and (value := side(one)) is not None]
                if len(pairs) >= 3:
                    yield _cells(dataset, f"{name}, whole set", title, pairs, seed)


def _cells(dataset: str, first: str, second: str, pairs: Sequence[tuple[float, float]], seed: int) -> WholeAgreement:
    left, right = np.array([one for one, _ in pairs]), np.array([two for _, two in pairs])
    return WholeAgreement(
        dataset=dataset,
        first=first,
        second=second,
        n=len(pairs),
        spearman=agreement.spearman(left, right),
        kendall=agreement.kendall(left, right),
        pearson=agreement.pearson(left, right),
        p=checks.spearman_p(left, right, seed=seed),
        gap=float((left - right).mean()),
        spread=float((left - right).std(ddof=1)) if len(pairs) > 1 else None,
    )


# ---- what is to be said ----------------------------------------------------------------------------------------------------------


def _warnings(
    rows: Sequence[Judged], ranks: Sequence[RankAgreement], agreements: Sequence[RaterAgreement], whole: Sequence[WholeSet]
) -> Iterator[str]:
    for one in ranks:
        if one.measure == "WA" and len(one.agreement.systems) < FEW_SYSTEMS:
            yield (
                f"{one.dataset}, {one.judge}: {len(one.agreement.systems)} systems only; with fewer than {FEW_SYSTEMS} a rank agreement "
                "says next to nothing, however many questions there are."
            )
    systems = {row.system for row in rows}
    if len(systems) < 3:
        yield f"{len(systems)} system(s): no agreement over systems can be found; give results of at least {FEW_SYSTEMS}."
    rubrics: defaultdict[tuple[str, str], defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        rubrics[row.dataset, row.judge][row.prompt].add(row.system)
    for (dataset, judge), prompts in sorted(rubrics.items()):
        everyone = set().union(*prompts.values())
        if len(prompts) > 1 and any(some != everyone for some in prompts.values()):
            told = "; ".join(f"{prompt}: {', '.join(sorted(some))}" for prompt, some in sorted(prompts.items()))
            yield f"{dataset}: {judge} graded some systems by another prompt than others ({told}); its scores of these do not compare."
    yield from _other_words(agreements)
    for name, judged in checks.by_rater(rows).items():
        lost = sum(row.score is None for row in judged)
        if lost > _UNREAD_WARNING * len(judged):
            yield f"{name}: {lost} of {len(judged)} verdicts have no score; see what that does to its mean."
        scores = {row.score for row in judged if row.score is not None}
        if len(scores) == 1 and len(judged) > 1:
            yield f"{name}: every score is {scores.pop():g}; nothing can agree with a judge that never varies."
    counted = [one for one in whole if one.honest is not None and not math.isclose(one.honest, one.score)]
    if counted:
        worst = max(counted, key=lambda one: (one.honest or 0.0) - one.score)
        yield (
            f"{len(counted)} of {len(whole)} headers count unread verdicts as 0; most of all {worst.judge} on {worst.system}, {worst.dataset}: "
            f"{worst.score:.2f} instead of {worst.honest:.2f}."
        )


def _other_words(agreements: Sequence[RaterAgreement]) -> Iterator[str]:
    """Of each two raters, what they cannot be compared on."""
    pairs: defaultdict[tuple[str, str], list[RaterAgreement]] = defaultdict(list)
    for one in agreements:
        if one.dataset != ALL and one.other_answers:
            pairs[one.first, one.second].append(one)
    for (first, second), found in pairs.items():
        told = ", ".join(f"{one.dataset} {one.other_answers} of {one.other_answers + one.n}" for one in found)
        yield (
            f"{first} and {second} judged other words of a system, or another wording of the question, where the item is the same; these rows "
            f"say nothing about their agreement and are left out, and so a gap between their means may not be the judges': {told}."
        )


def _unread(unread: dict[tuple[str, str], int]) -> Iterator[str]:
    for (dataset, attribute), count in sorted(unread.items()):
        yield f"{dataset}: no class of {attribute} could be read from {count} references; these rows have no label."


def _unlabelled(about: dict[str, str]) -> Iterator[str]:
    without = [dataset for dataset, attribute in about.items() if not attribute and dataset != ALL]
    if without:
        yield (
            "Without labels nothing is known about right and wrong: "
            f"{', '.join(without)}. If the references of a table are classes, --attribute says of what."
        )
