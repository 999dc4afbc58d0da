"""Evaluation as the recipe does it: the benchmark, every system's answers, verdicts, the study table; and one question to one checkpoint."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undertone import audio, tables
from undertone.errors import DataError
from undertone.evaluate import empathy_table, study_table
from undertone.evaluate.empathy import EmpathyJudge
from undertone.evaluate.judges import LLMJudge, card_of
from undertone.evaluate.majority import SUBJECT as MAJORITY
from undertone.evaluate.majority import majority_answers
from undertone.evaluate.manner import MannerJudge
from undertone.evaluate.stage import JudgeStage
from undertone.evaluate.study_table import StudyTable
from undertone.evaluate.subjects import (
    AnySubject,
    AskStage,
    EndpointSubject,
    NativeSubject,
    TrainedSubject,
    arms,
    clips_of,
    control_names,
    examples_of,
)
from undertone.execute import write_rows
from undertone.execute.artefact import artefact_digest
from undertone.generate.stage import MergeStage
from undertone.label.one_file import labelled
from undertone.metadata import MetadataConfig
from undertone.model.examples import System, build_examples, slug
from undertone.model.shown import human_segments
from undertone.paths import Location, local_folder
from undertone.recipe.benchmarks import NATIVE, predicted_of, read_benchmark, write_figures
from undertone.recipe.condensing import check_heard, clip_tables
from undertone.recipe.generating import CHAT, asks_ahead, benchmark_stages, checks_of, pair_tables, write_pairs
from undertone.recipe.runs import RUN_FILE, Run, need, recorded_study
from undertone.recipe.training import features_of
from undertone.records import Answer, Clip, Example, QAPair, Recording, Segment, Verdict, content_hash
from undertone.train.card import with_scores
from undertone.train.job import Frames


def evaluate(run: Run) -> None:
    """Ask every system and control the benchmark's questions, judge the answers, make the study table."""
    need("torch", "transformers", extra="train", what="answering with trained systems")
    check_heard(run)
    if (named := run.study.evaluate.benchmark) is not None:
        read_benchmark(run, named)
    else:
        _ask_test_clips(run)
    pairs = list(run.table("evaluate/benchmark", QAPair).rows())
    if not pairs:
        raise DataError(
            "the benchmark is empty: no recording of split test with human labels gave a question. Hold out speakers in the corpus' "
            "settings (hold_out: {test_speakers: [...]}) and give emotions in its manifest"
        )
    subjects = arms(run.study.evaluate.subjects)
    known = given(run, pairs, human=any(one.oracle for one in (*run.study.systems, *subjects)))
    answered = [ask_system(run, system, known) for system in run.study.systems]
    answered += [_ask_subject(run, one, known) for one in subjects]
    answered.append(_ask_majority(run, pairs))
    for table, judge in judge_stages(run).items():
        judge_answers(run, judge, answered, table)
    _write_tables(run, pairs)
    if named is not None:
        write_figures(run, named, pairs, answered)


def _ask_test_clips(run: Run) -> None:
    """Ask about the study's own test clips."""
    parts = benchmark_stages(run)
    for name, (stage, about) in parts.items():
        write_pairs(run, stage, about, f"evaluate/benchmark/{name}/asked")
        run.stage(
            checks_of(run),
            [f"evaluate/benchmark/{name}/asked"],
            f"evaluate/benchmark/{name}",
            sides={"clips": about, "predicted": "label"},
        )
    run.stage(MergeStage(), [f"evaluate/benchmark/{name}" for name in parts], "evaluate/benchmark")


def judge_answers(run: Run, stage: JudgeStage, answered: Sequence[str], out: str) -> None:
    """Judge tables of answers into a table of verdicts; a judge that is an LLM is asked ahead."""
    clips = "references/utterances" if run.study.evaluate.benchmark is None else f"{NATIVE}/clips"
    sides = {"pairs": "evaluate/benchmark", "clips": clips}
    sides = {name: sides[name] for name in stage.sides}
    if asks_ahead(run, out):
        account = stage.ask_ahead(
            [run.path(one) for one in answered],
            sides={name: run.path(table) for name, table in sides.items()},
            limit=run.row_limit,
        )
        if account is not None and isinstance(stage.judge, LLMJudge):
            run.say(account.line(out, stage.judge.prices))
    run.stage(stage, answered, out, sides=sides)


def _write_tables(run: Run, pairs: Sequence[QAPair]) -> None:
    """The study table of each judge of questions, the table of empathy, the judges' cards, the systems' cards."""
    subjects = [*(one.name for one in (*run.study.systems, *arms(run.study.evaluate.subjects))), MAJORITY]
    stages, asked = judge_stages(run), run.study.evaluate
    for number, (name, stage) in enumerate(stages.items(), start=1):
        if isinstance(stage.judge, EmpathyJudge):
            continue
        table = study_table.build(
            run.table(name, Verdict).rows(),
            pairs,
            subjects=subjects,
            controls=control_names(asked.subjects),
            contrasts=asked.contrasts,
            resamples=asked.resamples,
            seed=run.study.seed,
        )
        tables.write_bytes(run.path(f"evaluate/study{f'-{number}' if number > 1 else ''}.json"), table.to_json().encode())
        run.say(table.plain_text(width=100))
        if number == 1:
            _write_cards(run, table)
    if any(isinstance(stage.judge, EmpathyJudge) for stage in stages.values()):
        read = [name for name, stage in stages.items() if name == VERDICTS or isinstance(stage.judge, EmpathyJudge | MannerJudge)]
        verdicts = itertools.chain.from_iterable(run.table(name, Verdict).rows() for name in read)
        empathy = empathy_table.build(
            verdicts, pairs, baselines=asked.baselines, order=subjects, resamples=asked.resamples, seed=run.study.seed
        )
        tables.write_bytes(run.path("evaluate/empathy.json"), empathy.to_json().encode())
        run.say(empathy.plain_text())
    cards = [card_of(stage.judge).model_dump(mode="json") for stage in stages.values()]
    tables.write_bytes(run.path("evaluate/judges.json"), json.dumps(cards, indent=1).encode())


@dataclass(frozen=True)
class Given:
    """What systems are asked, and what may be shown to them: predicted labels, and to an oracle human ones, by recording.

    `below` is where the frames of the clips are: "" for the run's own.
    """

    pairs: Sequence[QAPair]
    clips: Mapping[str, Clip]
    predicted: Mapping[str, Sequence[Segment]]
    human: Mapping[str, Sequence[Segment]] | None
    below: str = ""


def given(run: Run, pairs: Sequence[QAPair], *, human: bool) -> Given:
    """What a run knows about the clips of some pairs; what people said of them only where `human` is true."""
    if run.study.evaluate.benchmark is not None:
        return Given(
            pairs=pairs,
            clips={clip.id: clip for clip in run.table(f"{NATIVE}/clips", Clip).rows()},
            predicted=predicted_of(run),
            human=human_segments(run.table(f"{NATIVE}/corpus", Recording).rows()) if human else None,
            below=f"{NATIVE}/",
        )
    return Given(
        pairs=pairs,
        clips=all_clips(run),
        predicted=predicted_segments(run),
        human=human_segments(run.table("corpus", Recording).rows()) if human else None,
    )


def checkpoint_of(run: Run, system: System, trained: str = "train") -> tuple[Location, str]:
    """The folder of the checkpoint that answers for a system, and its digest; DataError with the command that makes it."""
    checkpoint = run.path(f"{trained}/{slug(system.checkpoint)}")
    made_by = f"undertone train {run.out} --system {shlex.quote(system.checkpoint)}"
    return checkpoint, artefact_digest(checkpoint, made_by=made_by)


def trained_format(checkpoint: Location) -> MetadataConfig:
    """How metadata was written when a checkpoint was trained, whatever the study says now."""
    from undertone.model.checkpoint import read_checkpoint  # torch

    return read_checkpoint(local_folder(checkpoint)).model.metadata


def _write_cards(run: Run, table: StudyTable) -> None:
    """The trained systems' model cards with their scores: beside the evaluation, because a checkpoint's digest covers its own card."""
    for system in run.study.systems:
        card = run.path(f"train/{slug(system.name)}") / "README.md"
        row = table.row(system.name)
        if row is not None and system.weights_of is None and card.is_file():
            cells = {"all": row.overall, **row.kinds}
            scores = {name: f"{cell.score.mean:.1f}" for name, cell in cells.items() if cell.score.mean is not None}
            text = with_scores(card.read_text(encoding="utf-8"), scores)
            tables.write_bytes(run.path(f"evaluate/cards/{slug(system.name)}.md"), text.encode())


def ask_system(run: Run, system: System, given: Given, *, trained: str = "train", into: str = "evaluate") -> str:
    """Write a system's examples and let its checkpoint (a folder in `trained`) answer them; the name of the answers' table."""
    checkpoint, _ = checkpoint_of(run, system, trained)
    shown = build_examples(
        given.pairs,
        given.clips,
        given.predicted,
        system,
        phase="inference",
        metadata=trained_format(checkpoint),
        human=given.human,
        seed=run.study.seed,
    )
    examples = _write_examples(run, system.name, shown, {"system": system.model_dump(mode="json")}, into=into)
    return _answered_by(run, system, examples, below=given.below, trained=trained)


def _write_examples(run: Run, name: str, shown: Sequence[Example], config: dict[str, Any], *, into: str = "evaluate") -> str:
    examples = f"{into}/examples/{slug(name)}"
    inputs = {"rows": content_hash(*(text for one in shown for text in one.content))}
    made = run.fingerprint("examples", config, inputs)
    write_rows(run.path(examples), shown, record=Example, fingerprint=made, parts=4, smallest=64, redo=run.again(examples))
    return examples


def _answered_by(run: Run, system: System, examples: str, *, below: str, trained: str = "train") -> str:
    """Let a system's checkpoint answer a table of examples; the name of the answers' table."""
    from undertone.evaluate.answer import AnswerStage  # torch

    checkpoint, digest = checkpoint_of(run, system, trained)
    model = run.study.model_of(next((one for one in run.study.systems if one.name == system.checkpoint), system))
    frames = Frames(run.path(f"{below}{features_of(run, model)}"), max_audio_s=model.max_audio_s)
    stage = AnswerStage(
        checkpoint=checkpoint,
        checkpoint_digest=digest,
        features=frames.cache.folder.parent,
        encoder=frames.encoder,
        max_audio_s=model.max_audio_s,
        max_new_tokens=run.study.evaluate.max_new_tokens,
    )
    answers = examples.replace("/examples/", "/answers/")
    run.stage(stage, [examples], answers)
    return answers


def _ask_subject(run: Run, subject: AnySubject, given: Given) -> str:
    """Write a subject's examples and ask it; the name of the answers' table."""
    systems = {one.name: one for one in run.study.systems}
    trained = systems[subject.system] if isinstance(subject, TrainedSubject) else None
    shown = examples_of(
        subject,
        given.pairs,
        given.clips,
        given.predicted,
        metadata=trained_format(checkpoint_of(run, trained)[0]) if trained else run.study.model.metadata,
        human=given.human,
        seed=run.study.seed,
    )
    # The inputs of examples name no clips, and one control hears others.
    heard = content_hash(*(clip for one in shown for clip in (one.clip_id, *one.earlier)))
    examples = _write_examples(run, subject.name, shown, {"heard": heard})
    if isinstance(subject, TrainedSubject):
        return _answered_by(run, systems[subject.system], examples, below=given.below)
    return _asked(run, subject, examples, given)


def _asked(run: Run, subject: NativeSubject | EndpointSubject, examples: str, given: Given) -> str:
    clips, about = "evaluate/clips", clips_of(given.pairs, given.clips)
    made = run.fingerprint("clips", {}, {"rows": content_hash(*(one.id for one in about))})
    write_rows(run.path(clips), about, record=Clip, fingerprint=made, redo=run.again(clips))
    stage, answers = AskStage(subject=subject, cache_dir=run.path(CHAT)), examples.replace("/examples/", "/answers/")
    if asks_ahead(run, answers):
        told, total = run.progress, len(run.table(examples, Example))
        account = stage.ask_ahead(
            run.path(examples),
            clips=run.path(clips),
            limit=run.row_limit,
            told=(lambda done: told(f"{answers}: replies", done, total, done)) if told else (lambda done: None),
        )
        if account is not None and isinstance(subject, EndpointSubject):
            run.say(account.line(answers, subject.prices))
    run.stage(stage, [examples], answers, sides={"clips": clips})
    return answers


def _ask_majority(run: Run, pairs: Sequence[QAPair]) -> str:
    name = "evaluate/answers/majority-answer"
    rows = majority_answers(training_pairs(run), pairs)
    inputs = {one: run.table(one, QAPair).digest for one in (*pair_tables(run.study), "evaluate/benchmark")}
    made = run.fingerprint("majority", {}, inputs)
    run.told(write_rows(run.path(name), rows, record=Answer, fingerprint=made, redo=run.again(name)), name)
    return name


VERDICTS = "evaluate/verdicts"


def judge_stages(run: Run) -> dict[str, JudgeStage]:
    """The judges by the table of their verdicts; the first is the one of the study table."""
    others = (JudgeStage(judge=one) for one in run.study.evaluate.judges)
    return {VERDICTS: judge_stage(run)} | {
        f"{VERDICTS}-{number}": _remembering(run, one) for number, one in enumerate(others, start=2)
    }


def judge_stage(run: Run) -> JudgeStage:
    """The judge of the study table."""
    stage = run.study.evaluate.judge
    if (named := run.study.evaluate.benchmark) is not None:
        stage = stage.model_copy(update={"judge": named.judge(stage.judge)})
    return _remembering(run, stage)


def _remembering(run: Run, stage: JudgeStage) -> JudgeStage:
    """A judge; one that is an LLM with the run's cache of replies."""
    if not isinstance(stage.judge, LLMJudge) or stage.judge.cache_dir:
        return stage
    return stage.model_copy(update={"judge": stage.judge.model_copy(update={"cache_dir": run.path(CHAT)})})


def all_clips(run: Run) -> dict[str, Clip]:
    """All clips by id; where a predicted and a reference clip have the same bounds, the reference."""
    return {clip.id: clip for name in clip_tables(run.study) for clip in run.table(name, Clip).rows()}


def training_pairs(run: Run) -> list[QAPair]:
    """All checked training pairs."""
    return [pair for name in pair_tables(run.study) for pair in run.table(name, QAPair).rows()]


def predicted_segments(run: Run) -> dict[str, list[Segment]]:
    """Segments with predicted labels by recording."""
    found: dict[str, list[Segment]] = {}
    for segment in run.table("label", Segment).rows():
        found.setdefault(segment.recording_id, []).append(segment)
    return found


def ask(checkpoint: Location, file: Location, question: str) -> Iterator[str]:
    """Answer one question about one audio file, piece by piece; it is labelled first where the checkpoint's prompts hold predicted labels."""
    need("torch", "transformers", "tokenizers", "safetensors", extra="train", what="asking a checkpoint")
    from undertone.model.ask import ask_in_pieces as answer  # torch
    from undertone.model.ask import shows_metadata

    predicted: tuple[Segment, ...] = ()
    if shows_metadata(checkpoint):
        out = checkpoint.resolve().parent.parent  # RUN/train/SYSTEM; a checkpoint that was copied away is asked with the defaults
        study = recorded_study(out) if (out / RUN_FILE).is_file() else None
        predicted = labelled(file, label=study.label, decide=study.decide) if study else labelled(file)
    yield from answer(checkpoint, audio.load(file, rate_hz=16_000), question, predicted)
