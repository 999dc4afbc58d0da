"""The model card: README.md and LICENSE.md, from measured numbers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from epitome.probes import PROBES
from undertone.evaluate.epitome import MECHANISMS

PUBLISHED = {
    "emotional_reaction": {"brief": (79.43, 74.46), "rerun": (78.56, 76.38)},
    "interpretation": {"brief": (84.04, 62.60), "rerun": (84.94, 65.73)},
    "exploration": {"brief": None, "rerun": (91.06, 71.72)},
}
"""Accuracy and macro-F1 of EPITOME's RoBERTa bi-encoder on Reddit: of the paper as our task gave them (its table was not at hand to
check), and of another person's run of the authors' code on a random tenth (github.com/behavioral-data/Empathy-Mental-Health, issue 4)."""

CARD = """# epitome-small {version}

How empathetic is a reply? Levels 0 none, 1 weak, 2 strong of EPITOME's mechanisms (Sharma et al., 2020): emotional reaction, interpretation,
exploration. One linear model each over hashed n-grams of words and characters, {size_mb:.1f} MB, numpy and scipy only. Use:
`undertone.evaluate.epitome.EpitomeSmall`. Written by `recipes/epitome` together with every number below; do not edit.

**Licence note:** trained on the Reddit part of EPITOME's corpus, which its authors give for research; the posts belong to those who wrote
them. Use these weights for research only. They hold weights of hashed n-grams and no post.

## Meant for

Comparing systems whose replies were written to the same clips, by their mean levels. Not for judging one reply, and never for judging
people or for deciding about somebody in distress. English only.

## Data

{pairs:,} pairs of a post and a response ({rows:,} rows; a pair that was annotated twice counts once). {test:,} pairs are the test, chosen by a
hash of the seeker's id, so that no seeker is in two parts; the other {train:,} train, and everything was chosen on {folds} folds of them by the
same hash. (A development part of 5 % would hold about {twentieth} replies with a strong emotional reaction, too few to choose on.)

## Agreement with the annotators on the test (scored once, after everything was chosen)

{test_table}

Intervals: {resamples:,} bootstrap resamples of seekers. Majority: the level that is most frequent in training, for every reply. Published:
RoBERTa bi-encoders, on other splits; (a) the paper's figures as our task gave them, not checked against its table ("-": not given), (b)
another person's run of the authors' code on a random tenth (issue 4 of their repository). Neither is a comparison on the same replies.

{recall_table}

Weak levels are the weakest: what one annotator calls weak is rare and close to both neighbours.

## What it does not see

{sensitivity_table}

{sensitivity_words}

Replies that say next to nothing, with the levels that they get (all should be 0 0 0): {barely}. {without} of 3 replies without any word are
unscored, not 0.

**Probes**: {probe_count} replies of ours to spoken sentences, in the manner of an assistant, with the levels that we meant, written before the
model was run. Level as meant: {probe_levels}; mechanism present or absent as meant: {probe_presence}. Level 0 for
everything would be present or absent as meant in {probe_nothing}. {probe_words}

Wrong ones:

{missed}

Do not read one system's absolute level as a fact about replies; read the difference between systems on the same clips, and listen to some.

## How it was chosen

Mean macro-F1 over the mechanisms, {folds} folds of the training part. Each sentence that a rationale touches is a training text with the
level of its response, all others are texts of level 0; "weight" is theirs beside the whole response's 1 (0.5 is EPITOME's weight of its
rationale loss). "Best sentence" averages the probabilities of the whole response and of its most telling sentence.

{cv_table}

{helped}

Chosen: weight {weight:g}{with_sentences}. Also tried: a bidirectional GRU over both posts with attention from response to seeker and
EPITOME's rationale head (0.5), all mechanisms at once, words and character n-grams learned from scratch. On the first two folds it reached
macro-F1 {gru} against {linear} of the linear model, so the smaller one is shipped. EmoBank (valence, arousal, dominance of
sentences) was not used.

## Training

Word 1-3-grams and character 3-5-grams in {buckets:,} buckets, tf-idf, five counts, logistic regression with classes weighted alike,
C = {strength:g}. No randomness. {minutes:.0f} minutes on one thread of a busy machine, most of it cross-validation; scikit-learn {sklearn}.
Coefficients are stored as float16: levels of {rounded} of {test:,} test replies differ from those of the unrounded model.
"""

GRU = {"emotional_reaction": (0.715, 0.737), "interpretation": (0.571, 0.543), "exploration": (0.649, 0.608)}
"""Macro-F1 on folds 0 and 1 (12 epochs), measured while the recipe was written; the network is not part of it."""


def write_card(out: Path, report: dict[str, Any]) -> None:
    """Write README.md and LICENSE.md from `model.json`."""
    (out / "model.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    found, chosen = report["sensitivity"], report["chosen"]
    nothing = [sum(not one.levels[column] for one in PROBES) for column in range(len(MECHANISMS))]
    text = CARD.format(
        version=report["version"],
        size_mb=(out / "model.npz").stat().st_size / 1e6,
        test_table=_test_table(report["test"]),
        recall_table=_recall_table(report["test"]),
        sensitivity_table=_sensitivity_table(found),
        sensitivity_words=_blindness(found),
        barely="; ".join(f'"{text}" {" ".join(map(str, levels))}' for text, levels in found["barely"].items()),
        without=found["without_words_unscored"],
        probe_count=found["probes"]["count"],
        probe_levels=_counts(found["probes"]["same_level"]),
        probe_presence=_counts(found["probes"]["same_presence"]),
        probe_nothing=_counts(nothing),
        probe_words=_usable(found["probes"]["same_presence"], nothing),
        missed=_missed(found["probes"]["missed"]),
        cv_table=_cv_table(report["cross_validation"]),
        helped=_helped(report["cross_validation"]),
        weight=chosen["weight"],
        with_sentences=", with the best sentence" if chosen["by_sentence"] else ", whole response only",
        gru=", ".join(f"{sum(GRU[one]) / 2:.2f}" for one in MECHANISMS),
        linear=", ".join(f"{one:.2f}" for one in chosen["first_two_folds"]),
        **report["data"],
        **report["training"],
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    (out / "LICENSE.md").write_text(
        "The weights in this folder (`model.npz`) are for research only. They were trained on the Reddit part of EPITOME's corpus\n"
        '(Sharma et al., 2020, "A Computational Approach to Understanding Empathy Expressed in Text-Based Mental Health Support"),\n'
        "which its authors publish at github.com/behavioral-data/Empathy-Mental-Health under licences of their own; see there. The\n"
        "weights contain no post of that corpus. The code of Undertone that trains and runs them is Apache-2.0; the restriction is on\n"
        "these weights and on what is derived from them.\n",
        encoding="utf-8",
    )


def _title(mechanism: str) -> str:
    return mechanism.replace("_", " ")


def _counts(found: list[int]) -> str:
    return ", ".join(f"{_title(name)} {count}" for name, count in zip(MECHANISMS, found, strict=True))


def _test_table(test: dict[str, Any]) -> str:
    lines = [
        "| mechanism | accuracy | macro-F1 (95 %) | kappa, quadratic | majority: accuracy, macro-F1 | published (a) | published (b) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in MECHANISMS:
        one, known = test[name], PUBLISHED[name]
        low, high = one["macro_f1_interval"]
        shown = [f"{pair[0]:.2f}, {pair[1]:.2f}" if pair else "-" for pair in (known["brief"], known["rerun"])]
        lines.append(
            f"| {_title(name)} | {100 * one['accuracy']:.2f} | {100 * one['macro_f1']:.2f} ({100 * low:.1f}-{100 * high:.1f}) "
            f"| {one['kappa']:.3f} | {100 * one['majority']['accuracy']:.2f}, {100 * one['majority']['macro_f1']:.2f} "
            f"| {shown[0]} | {shown[1]} |"
        )
    return "\n".join(lines)


def _recall_table(test: dict[str, Any]) -> str:
    lines = [
        "| mechanism | recall of 0 | of 1 | of 2 | replies of each level | mean level: annotators, model | annotators' 0, 1, 2 read as 0/1/2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in MECHANISMS:
        one = test[name]
        recall = " | ".join(f"{value:.2f}" for value in one["recall"])
        table = "; ".join("/".join(map(str, row)) for row in one["confusion"])
        means = one["mean_level"]
        lines.append(
            f"| {_title(name)} | {recall} | {', '.join(map(str, one['pairs']))} "
            f"| {means['annotators']:.3f}, {means['model']:.3f} | {table} |"
        )
    return "\n".join(lines)


def _sensitivity_table(found: dict[str, Any]) -> str:
    lines = [
        "| the same test replies, with | same level as before: ER, IP, EX | mean level | kappa with the annotators |",
        "|---|---|---|---|",
        f"| nothing changed | - | {_three(found['own_mean_level'])} | - |",
    ]
    lines += [
        f"| {name} | {_three(one['same_level'])} | {_three(one['mean_level'])} | {_three(one['kappa'])} |"
        for name, one in found["changed"].items()
    ]
    return "\n".join(lines)


def _blindness(found: dict[str, Any]) -> str:
    same = min(found["changed"]["another seeker's post"]["same_level"])
    return (
        f"With another seeker's post at least {100 * same:.0f} % of the levels stay as they are: **it reads the reply and hardly looks at what "
        'it replies to.** A stock phrase earns its level everywhere, right or wrong; so a system that says "I\'m so sorry" to everybody '
        "scores high."
    )


def _usable(presence: list[int], nothing: list[int]) -> str:
    """Which mechanisms the probes speak for: those that beat level 0 for everything by a fifth of the probes or more."""
    held = {name: right - none >= len(PROBES) / 5 for name, right, none in zip(MECHANISMS, presence, nothing, strict=True)}
    kept, lost = ([_title(name) for name, one in held.items() if one is wanted] for wanted in (True, False))
    words = [f"So the probes speak for {' and '.join(kept)}."] if kept else []
    if lost:
        words.append(
            f"**They do not for {' and '.join(lost)}**: there its levels of an assistant's replies are unproven ({len(PROBES)} probes can show "
            "little), and should not stand as a result without another judge beside them."
        )
    return " ".join(words)


def _helped(rows: list[dict[str, Any]]) -> str:
    """What the sentences and what the rationales were worth, from the folds."""
    found = {(one["weight"], one["by_sentence"]): one["mean_macro_f1"] for one in rows}
    weights = sorted({weight for weight, _ in found})
    reading = sum(found[weight, True] - found[weight, False] for weight in weights) / len(weights)
    return (
        f"Reading by sentence is worth {reading:+.3f} macro-F1 on average, learning from the rationales "
        f"{found[weights[-1], True] - found[weights[0], True]:+.3f} beside it."
    )


def _three(values: list[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in values)


def _missed(rows: list[dict[str, Any]]) -> str:
    lines = ["| reply | meant ER IP EX | read |", "|---|---|---|"]
    lines += [f"| {one['response']} | {' '.join(map(str, one['meant']))} | {' '.join(map(str, one['read']))} |" for one in rows]
    return "\n".join(lines) if rows else "none."


def _cv_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| weight | best sentence | mean macro-F1 | ER, IP, EX | kappa |", "|---|---|---|---|---|"]
    for one in rows:
        measured = [one["mechanisms"][name] for name in MECHANISMS]
        lines.append(
            f"| {one['weight']:g} | {'yes' if one['by_sentence'] else 'no'} | {one['mean_macro_f1']:.3f} "
            f"| {_three([each['macro_f1'] for each in measured])} | {_three([each['kappa'] for each in measured])} |"
        )
    return "\n".join(lines)
