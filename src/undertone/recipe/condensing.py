"""Corpora, labels, condensation: from recordings to clips."""

from __future__ import annotations

import json
from collections.abc import Sequence

from undertone import settings, tables
from undertone.condense.leaks import check_splits, transcript_leakage
from undertone.condense.tune import TUNING, tune
from undertone.corpora.plan import Planned, speakers_on_both_sides
from undertone.corpora.stage import Deduplicate, ReadCorpus, plan_of
from undertone.errors import ConfigError
from undertone.execute import write_rows
from undertone.label.protocol import LABELLERS
from undertone.label.selftest import one_sided
from undertone.model.config import AFFECT_SMALL
from undertone.recipe.runs import Run, need, record
from undertone.records import Clip, Loss, Recording, Segment, content_hash
from undertone.study import Study


def corpora(run: Run) -> None:
    """Plan, read or render, and deduplicate all corpora into corpus/; warn of speakers on both sides of the split."""
    study = run.study
    planned: list[Planned] = []
    dropped: list[Loss] = []
    for corpus in study.corpora:
        plan = plan_of(corpus, seed=study.seed)
        planned += plan.rows if run.limit is None else _limited(plan.rows, run.limit)
        dropped += plan.dropped
        if plan.note:
            run.say(plan.note)
    config = {"corpora": [json.loads(one.model_dump_json()) for one in study.corpora], "limit": run.limit, "parts": study.parts}
    inputs = {"rows": content_hash(*(row.id for row in planned)), "files": content_hash(*(row.stamp or "" for row in planned))}
    rows_report = write_rows(
        run.path("corpus/plan"),
        planned,
        record=Planned,
        losses=dropped,
        fingerprint=run.fingerprint("plan", config, inputs),
        parts=study.parts,
        redo=run.again("corpus/plan"),
    )
    run.told(rows_report, "corpus/plan")
    run.stage(ReadCorpus(), ["corpus/plan"], "corpus/read")
    run.stage(Deduplicate(), ["corpus/read"], "corpus")
    _warn_of_leaks(run)


def _limited(rows: Sequence[Planned], limit: int) -> list[Planned]:
    """The first `limit` recordings of each split, so that a small run still has something to test on."""
    counts: dict[str | None, int] = {}
    kept = []
    for row in rows:
        counts[row.split] = counts.get(row.split, 0) + 1
        if counts[row.split] <= limit:
            kept.append(row)
    return kept


def _warn_of_leaks(run: Run) -> None:
    splits: dict[str, set[str]] = {}
    for row in run.table("corpus", Recording).rows():
        splits.setdefault(row.split or "none", set()).update(row.speakers)
    for speaker, where in speakers_on_both_sides(splits).items():
        run.say(f"WARNING: speaker {speaker} stands on both sides of the split ({' and '.join(where)}): scores will flatter")


def label(run: Run) -> None:
    """Ask all labellers into label/raw/ and decide what holds into label/; refuse one that has heard a test speaker."""
    check_heard(run)
    run.study.decide.check(run.study.label.made())
    run.stage(run.study.label, ["corpus"], "label/raw")
    for warning in one_sided(run.table("label/raw", Segment)):
        run.say(f"WARNING: {warning}")
    run.stage(run.study.decide, ["label/raw"], "label")


def check_heard(run: Run) -> None:
    """Raise ConfigError where a labeller or the encoder was trained on a test speaker; warn where that cannot be told."""
    models = [run.study.model, *map(run.study.model_of, run.study.systems)]
    learned = [
        *run.study.label.made(),
        *(LABELLERS.get(AFFECT_SMALL) for one in models if one.encoder.name == AFFECT_SMALL),
        *(LABELLERS.get(one.nuance.encoder, one.nuance.config) for one in models if one.nuance is not None),
    ]
    heard = frozenset(speaker for one in learned for speaker in one.heard_speakers)
    rows = [row for row in run.table("corpus", Recording).rows() if row.split == "test"]
    tested = {one for row in rows for one in row.speakers}
    nameless = sum(not row.speakers for row in rows)
    if nameless and heard:
        run.say(
            f"WARNING: {nameless} test recordings have no speaker in their manifest: whether the labeller has heard them cannot be told"
        )
    both = sorted(heard & tested)
    if not both:
        bare = sorted({one.split("/")[-1] for one in heard} & {one.split("/")[-1] for one in tested})
        if bare:
            run.say(
                f"WARNING: test speakers {', '.join(bare[:5])} have names that the labeller was trained on in a corpus of another name; "
                "if it is the same corpus, give it the name that the labeller's card uses"
            )
        return
    message = f"the labeller was trained on {len(both)} test speakers of this study ({', '.join(both[:5])}), so its labels of them are too good"
    if not run.study.allow_heard_test_speakers:
        raise ConfigError(f"{message}. Hold out other speakers, use another labeller, or set allow_heard_test_speakers: true")
    run.say(f"WARNING: {message}")


def check_installed(study: Study) -> None:
    """Raise DependencyError before any work is done where a labeller's weights or the demonstration's voices are not installed."""
    study.label.check()
    labellers = study.label.made()
    for one in labellers:
        one.version, one.revision  # noqa: B018 - reads the card of the weights
    study.decide.check(labellers)
    if any(corpus.kind == "demo" for corpus in study.corpora):
        need("espeakng_loader", extra="demo", what="the demonstration corpus")


CLIP_TABLES = ("condense", "references/utterances", "references")
UTTERANCES = "condense/utterances"
"""Each segment that the filters left as a clip of its own; there where a source of the study is about segments."""


def clip_tables(study: Study) -> tuple[str, ...]:
    """The tables of clips that a study asks about."""
    single = any(one.by_segment for one in study.generate.sources.values())
    return (CLIP_TABLES[0], UTTERANCES, *CLIP_TABLES[1:]) if single else CLIP_TABLES


def condense(run: Run) -> None:
    """Cut clips from references; filter predicted segments and the clips made of them into condense/."""
    steps = run.study.condense
    run.stage(run.study.references.utterances, ["corpus"], "references/utterances")
    run.stage(run.study.references.context, ["corpus"], "references")
    check_splits(run.table("corpus", Recording), *(run.table(name, Clip) for name in CLIP_TABLES[1:]))
    for leak in transcript_leakage(run.table("corpus", Recording)):
        run.say(leak.line())
    segments = "label"
    for name, stage in steps.named().items():
        run.stage(stage, [segments], f"condense/{name}", sides=dict.fromkeys(stage.sides, "corpus"))
        segments = f"condense/{name}"
    run.stage(steps.consistency, [segments], "condense/consistency")
    if UTTERANCES in clip_tables(run.study):
        run.stage(steps.utterances, ["condense/consistency"], UTTERANCES, sides={"recordings": "corpus"})
    run.stage(steps.clips, ["condense/consistency"], "condense/clips", sides={"recordings": "corpus"})
    run.stage(steps.occurrence, ["condense/clips"], "condense/occurrence")
    run.stage(steps.balance, ["condense/occurrence"], "condense")


def tune_consistency(run: Run) -> None:
    """Search the consistency filter's thresholds against human labels, and go on with the best (2505.13338, fig. 3): tune.json, run.json."""
    if run.execution.shards is not None:
        raise ConfigError("--tune and --shards: the search is over all rows. Run --tune once, then the shards without it")
    heard = frozenset(speaker for one in run.study.label.made() for speaker in one.heard_speakers)
    found = tune(
        run.table("label", Segment), run.table("corpus", Recording), consistency=run.study.condense.consistency, heard=heard
    )
    tables.write_bytes(run.path(TUNING), found.model_dump_json(indent=1).encode())
    run.say(found.line())
    content = settings.override(run.study.model_dump(mode="json"), found.settings())
    run.study = settings.validated(Study, content, where="the tuned study")
    run.redo = (*run.redo, "condense/consistency", UTTERANCES, "condense/clips", "condense/occurrence", "condense/.")
    record(run)  # at once: whatever ends this command, the folder's study is the one that its tables are begun with
