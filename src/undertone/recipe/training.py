"""Training as the recipe does it: encode, read, hear words, then every system of the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from undertone.errors import ConfigError
from undertone.execute.pool import Stopped, run_units
from undertone.model.config import SpeechLLMConfig
from undertone.model.encode import EncodeStage
from undertone.model.examples import System, slug
from undertone.paths import Location
from undertone.recipe.condensing import clip_tables
from undertone.recipe.generating import pair_tables
from undertone.recipe.runs import Run, need
from undertone.records import content_hash
from undertone.train.job import TrainJob, Way, at_once, starts_of, steps_done, train_one, train_reading, train_start

FEATURES = "train/features"


def train(run: Run, only: Sequence[str] = ()) -> None:
    """Encode all clips once, then train every system that has weights of its own into train/SYSTEM/.

    Args:
        run: The run.
        only: Names of systems; all if empty.

    Raises:
        ConfigError: A name in `only` is no system that trains.
    """
    need("torch", "transformers", "tokenizers", "safetensors", extra="train", what="training")
    names = _trained(run, only)
    encodings = {features_of(run, model): model for model in map(run.study.model_of, run.study.systems)}
    for table, model in encodings.items():
        run.stage(encoding(model), clip_tables(run.study), table)
    if run.execution.shards is not None:
        raise Stopped(
            "features are there; training is not shared by parts: run the same command without --shards (--system NAME for one job per system)"
        )
    job = train_job(run, names)
    begins = [begin for name in names if (begin := job.ways[name].begin) is not None]
    if begins:
        reading, starts = (list(dict.fromkeys(one)) for one in zip(*begins, strict=True))
        run.say("train/reading: a new decoder learns to read; train/start: an adapter to hear words; all systems start from it")
        total = sum(job.way_of(one)[0].train.reading.steps for one in reading)
        tick = _ticker(run, "train/reading", job.starts, reading, total)
        run_units(train_reading, job, reading, workers=run.workers or len(reading), told=lambda _: None, tick=tick)
        run_units(train_start, job, starts, workers=run.workers or at_once(run.study.train), told=lambda _: None, tick=lambda: None)
    train_all(run, job, names, "train")


def train_all(run: Run, job: TrainJob, names: Sequence[str], out: str) -> None:
    """Train systems of a job side by side, told as those of a folder of the run."""
    steps = {name: job.ways[name].train.steps for name in names}
    each = " or ".join(str(one) for one in sorted(set(steps.values())))
    run.say(f"{out}: {', '.join(names)}, {each} steps each")
    run_units(
        train_one,
        job,
        names,
        workers=run.workers or min(at_once(one.train) for one in job.ways.values()),
        told=lambda name: run.say(f"{out}/{slug(name)}: done"),
        tick=_ticker(run, out, job.out, names, sum(steps.values())),
    )


def train_job(run: Run, names: Sequence[str], *, systems: tuple[System, ...] = (), out: str = "train") -> TrainJob:
    """What trains systems (the study's, if none are given) into a folder of the run."""
    trained = systems or tuple(one for one in run.study.systems if one.weights_of is None)
    ways = {one.name: _way(run, one) for one in trained}
    folders = [one for way in ways.values() for one in way.begin or ()]
    return TrainJob(
        pairs=tuple(run.path(name) for name in pair_tables(run.study)),
        clips=tuple(run.path(name) for name in clip_tables(run.study)),
        label=run.path("label"),
        corpus=run.path("corpus"),
        out=run.path(out),
        starts=run.path("train"),
        systems=trained,
        ways=ways,
        seed=run.study.seed,
        redo=tuple(name for name in dict.fromkeys((*folders, *names)) if run.again(f"{out}/{slug(name)}")),
    )


def features_of(run: Run, model: SpeechLLMConfig) -> str:
    """The table of clips as a model's encoder hears them; that of the study's model has no suffix."""
    own, usual = (content_hash(encoding(one).model_dump_json()) for one in (model, run.study.model))
    return FEATURES if own == usual else f"{FEATURES}-{own[:8]}"


def encoding(model: SpeechLLMConfig) -> EncodeStage:
    """The stage that encodes clips for a model."""
    return EncodeStage(encoder=model.encoder, max_audio_s=model.max_audio_s, inputs=model.encoder_inside, nuance=model.nuance)


def _way(run: Run, system: System) -> Way:
    model, train = run.study.model_of(system), run.study.train_of(system)
    usual = run.study.model, run.study.train.model_copy(update={"seed": run.study.seed})
    return Way(model=model, train=train, features=run.path(features_of(run, model)), begin=starts_of(model, train, usual))


def _ticker(run: Run, what: str, out: Location, names: Sequence[str], total: int) -> Callable[[], None]:
    """Tells the progress of trainings by what they have logged."""

    def tick() -> None:
        if run.progress is not None:
            run.progress(what, min(total, steps_done(out, names)), total, 0)

    return tick


def _trained(run: Run, only: Sequence[str]) -> list[str]:
    trained = [one.name for one in run.study.systems if one.weights_of is None]
    unknown = sorted(set(only) - set(trained))
    if unknown:
        raise ConfigError(f"--system {', '.join(unknown)}: expected some of {', '.join(trained)}")
    return [name for name in trained if not only or name in only]
