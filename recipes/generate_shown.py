"""What the pairs of each strategy that needs no LLM are worth, in figures and in fifty of them to read.

    python recipes/generate_shown.py --data ../shared/data --out /tmp/pairs --sample docs/pairs-sample.md

Two corpora: the demonstration's synthetic conversations, and acted utterances of RAVDESS and TESS assembled into recordings (the study
`acted`). Only clips of speakers that the labeller never heard are asked about, in the wordings of training. Each strategy stands alone: its own
table, its own checks. Prints Markdown for docs/log.md; --sample writes the fifty pairs below what stands in the file before them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from undertone import recipe, tables
from undertone.execute import run_stage
from undertone.generate.checks import CheckStage, RepeatStage
from undertone.generate.measure import FILTERS, Measures, markdown, measure, silent
from undertone.generate.stage import GenerateStage
from undertone.label.protocol import LABELLERS
from undertone.model.config import AFFECT_SMALL
from undertone.records import Clip, Loss, QAPair, Recording, Segment, content_hash
from undertone.study import load_study

DRAWN = {"asr": 2, "pqa": 4, "pqa_star": 5, "cpqa": 7, "grammar": 7}
"""Strategies, and how many of their pairs of each corpus the sample has: fifty in all from two corpora."""
PAIRS_PER_KIND = {"cpqa": 4, "grammar": 4}
HEADING = "## Fifty pairs"


def clips_made(which: str, data: Path, out: Path, *, recordings: int, workers: int) -> None:
    """Read, label and condense a corpus into out/; the test speakers' clips alone."""
    settings = ["condense.clips.splits=[test]"]
    if which == "demo":
        settings += ["corpora.0.train=2", f"corpora.0.test={recordings}"]
    else:
        settings += [f"corpora.0.of.{at}.path={data / name}" for at, name in enumerate(("ravdess", "tess"))]
        settings += [f"corpora.0.recordings={{train: 2, test: {recordings}}}"]
    with recipe.running(load_study(which, settings), out, workers=workers, command=sys.argv) as run:
        recipe.corpora(run)
        recipe.label(run)
        recipe.condense(run)


def written(out: Path, strategy: str, *, seed: int) -> tuple[list[QAPair], list[QAPair], list[Loss], str]:
    """The pairs of one strategy before and after its checks, what became of the others, and the table of clips that they are about."""
    stage = GenerateStage(strategy=strategy, splits=("test",), frames="train", pairs_per_kind=PAIRS_PER_KIND.get(strategy, 2))
    about = recipe.ABOUT[stage.material]
    asked, checked = out / "generate" / strategy, out / "generate" / f"{strategy}_checked"
    run_stage(stage, [out / about], asked, seed=seed)
    run_stage(CheckStage(), [asked], checked, sides={"clips": out / about, "predicted": out / "label"}, seed=seed)
    run_stage(RepeatStage(), [checked], out / "generate" / f"{strategy}_kept", seed=seed)
    before, middle, after = (tables.open_table(out / "generate" / f"{strategy}{end}", QAPair) for end in ("", "_checked", "_kept"))
    losses = [one for table in (middle, after) for one in (*table.dropped(), *table.failed())]
    return list(before.rows()), list(after.rows()), losses, about


def by_people(clip: Clip, references: Mapping[str, Sequence[Segment]]) -> Clip:
    """The clip with the segments that people labelled in place of the labeller's."""
    inside = [one for one in references.get(clip.recording_id, ()) if one.end_ms > clip.start_ms and one.start_ms < clip.end_ms]
    return clip.model_copy(update={"segments": tuple(inside)})


def measured(out: Path, *, seed: int) -> tuple[dict[str, Measures], dict[str, list[tuple[QAPair, Clip, Clip]]]]:
    """The figures of every strategy, and its kept pairs with their clips as the generator and as people had them."""
    references = {one.id: one.references for one in tables.open_table(out / "corpus", Recording).rows()}
    predicted: dict[str, list[Segment]] = {}
    for one in tables.open_table(out / "label", Segment).rows():
        predicted.setdefault(one.recording_id, []).append(one)
    figures, pairs = {}, {}
    for strategy in DRAWN:
        asked, kept, losses, about = written(out, strategy, seed=seed)
        clips = {one.id: one for one in tables.open_table(out / about, Clip).rows()}
        people = {key: by_people(one, references) for key, one in clips.items()}
        figures[strategy] = measure(asked, kept, losses=losses, clips=clips, predicted=predicted, truth=people)
        pairs[strategy] = [(one, clips[one.clip_id], people[one.clip_id]) for one in kept]
    return figures, pairs


def drawn(pairs: Mapping[str, Sequence[tuple[QAPair, Clip, Clip]]], *, seed: int) -> Iterator[tuple[QAPair, Clip, Clip]]:
    """Some pairs of every strategy, drawn by the seed and what they say."""
    for strategy, count in DRAWN.items():
        yield from sorted(pairs[strategy], key=lambda one: content_hash(str(seed), one[0].id))[:count]


def heard(clip: Clip) -> str:
    """What people say about a clip's voices, segment by segment."""
    named = [" ".join(filter(None, (one.category("gender"), one.category("emotion")))) for one in clip.segments]
    return "; ".join(one or "no label" for one in named)


def sample(pairs: Sequence[tuple[str, QAPair, Clip, Clip]]) -> str:
    """The pairs as Markdown, numbered."""
    parts = [HEADING]
    for number, (corpus, pair, clip, people) in enumerate(pairs, start=1):
        flags = f" (flagged: {', '.join(pair.flags)})" if pair.flags else ""
        parts += [
            f"**{number}. {pair.source} {pair.kind}**, {corpus}, clip `{clip.id}`{flags}",
            f"Words: {clip.transcript}",
            "\n".join(["```text", pair.evidence or "", "```"]),
            f"People's labels: {heard(people)}",
            f"- Q: {pair.question}\n- A: {pair.answer}",
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Make clips, write pairs, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="a folder for recordings and tables")
    parser.add_argument("--sample", type=Path, help="the Markdown file that the fifty pairs are written to")
    parser.add_argument("--recordings", type=int, default=120, help="of each corpus")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    if not (told.data / "ravdess").is_dir():
        sys.exit(f"{told.data} has no folder ravdess; give the folder of the corpora with --data")
    shown: list[tuple[str, QAPair, Clip, Clip]] = []
    for which in ("demo", "acted"):
        out = told.out / which
        clips_made(which, told.data, out, recordings=told.recordings, workers=told.workers)
        unheard = {
            one for row in tables.open_table(out / "corpus", Recording).rows() if row.split == "test" for one in row.speakers
        }
        if both := sorted(unheard & LABELLERS.get(AFFECT_SMALL).heard_speakers):
            sys.exit(f"{AFFECT_SMALL} was trained on {', '.join(both)}: hold out others")
        figures, pairs = measured(out, seed=told.seed)
        print(f"\n**{which}**, {len(unheard)} speakers that the labeller never heard, seed {told.seed}\n\n{markdown(figures)}")
        idle = [one for one in silent(figures.values()) if one != FILTERS[0]]
        print(f"\nNothing stopped or flagged by: {', '.join(idle)}.")
        shown += [(which, *one) for one in drawn(pairs, seed=told.seed)]
    if told.sample:
        before = told.sample.read_text(encoding="utf-8").partition(HEADING)[0] if told.sample.exists() else "# Pairs to read\n\n"
        told.sample.write_text(before + sample(shown), encoding="utf-8")


if __name__ == "__main__":
    main()
