"""What a study is: one YAML file that holds the settings of every stage. `recipe` runs it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from undertone import settings
from undertone.chat import Endpoint
from undertone.condense.balance import Balance
from undertone.condense.clips import ClipRule, CutClips, CutReferences
from undertone.condense.consistency import Consistency
from undertone.condense.duplicates import Duplicates
from undertone.condense.language import Language
from undertone.condense.occurrence import Occurrence
from undertone.condense.quality import Quality
from undertone.corpora.stage import Corpus
from undertone.errors import ConfigError
from undertone.evaluate.benchmarks import AnyBenchmark
from undertone.evaluate.stage import AnyJudge, JudgeStage
from undertone.evaluate.study_table import CONTROLS
from undertone.evaluate.subjects import AnySubject, TrainedSubject, arms
from undertone.evaluate.sweep import Sweep
from undertone.generate.checks import CheckStage, RepeatStage
from undertone.generate.stage import GenerateStage
from undertone.generate.strategies import STRATEGIES
from undertone.label.decide import Decide
from undertone.label.stage import LabelStage
from undertone.model.config import SpeechLLMConfig
from undertone.model.examples import SYSTEMS, System, slug
from undertone.paths import Location
from undertone.stages import Stage
from undertone.train.config import TrainConfig


class Section(BaseModel):
    """Base of the study file's sections: no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class References(Section):
    """Clips of human references: single utterances, as conventional corpora have them, and clips with a context."""

    utterances: CutReferences = CutReferences(rule=ClipRule(min_ms=500, max_ms=30_000, max_segments=1))
    context: CutReferences = CutReferences()


class Condense(Section):
    """The filters of condensation, in the order in which they run; the first three only where the study names them.

    `quality` reads the labels of the labeller `quality`, `duplicates` those of `fingerprint`: name these in `label.labellers` too. `utterances`
    makes each segment a clip of its own, for sources that are about segments.
    """

    quality: Quality | None = None
    language: Language | None = None
    duplicates: Duplicates | None = None
    consistency: Consistency = Consistency()
    utterances: CutClips = CutClips(rule=ClipRule(min_ms=500, max_ms=30_000, max_segments=1))
    clips: CutClips = CutClips()
    occurrence: Occurrence = Occurrence()
    balance: Balance = Balance()

    def named(self) -> dict[str, Stage[Any, Any]]:
        """The filters of segments that the study names, in order."""
        found = {"quality": self.quality, "language": self.language, "duplicates": self.duplicates}
        return {name: stage for name, stage in found.items() if stage is not None}


SOURCES: Mapping[str, GenerateStage] = MappingProxyType(
    {name: GenerateStage(strategy=name) for name in ("asr", "pqa", "pqa_star", "cpqa")}
)
"""The parts of the paper's training mix (2508.07273)."""


class Generate(Section):
    """The parts of the training mix, by name: those of `SOURCES`, over which a study sets its own; one that is null is left out.

    Attributes:
        llm: Who writes what an LLM can write, in sources that name no endpoint of their own.
        sources: A source's strategy is named after it unless it says otherwise.
        checks: What every pair must pass.
        repeats: What pairs that an LLM wrote must not do together.
    """

    llm: Endpoint | None = None
    sources: dict[str, GenerateStage] = Field(default_factory=lambda: dict(SOURCES))
    checks: CheckStage = CheckStage()
    repeats: RepeatStage = RepeatStage()

    @field_validator("sources", mode="before")
    @classmethod
    def _over_the_papers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        all_of_them = {**SOURCES, **value}
        kept = {name: one for name, one in all_of_them.items() if one is not None}
        return {name: {"strategy": name, **one} if isinstance(one, dict) else one for name, one in kept.items()}

    @model_validator(mode="after")
    def _trains_on_train(self) -> Self:
        for name, stage in self.sources.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in ("base", "contextual", "single"):
                raise ValueError(f"generate.sources: {name!r} cannot name a source; expected small letters, digits and _")
            if stage.frames == "test" or "test" in stage.splits:
                raise ValueError(
                    f"generate.sources.{name} may use neither test wordings nor clips of split test: they are the benchmark's"
                )
            self._made(name, stage).made()
        return self

    def made(self) -> dict[str, GenerateStage]:
        """The stages of all sources, each with its name and its endpoint."""
        return {name: self._made(name, stage) for name, stage in self.sources.items()}

    def _made(self, name: str, stage: GenerateStage) -> GenerateStage:
        llm = stage.llm or (self.llm if stage.strategy in STRATEGIES else None)
        return GenerateStage.model_validate({**stage.model_dump(), "source": name, "llm": llm})


class Evaluate(Section):
    """The benchmark's questions, the judge, and the statistics of the study table.

    `direct` asks about single utterances (like IEMOCAP's questions in the paper), `context` about clips with a context. Of the many utterances
    a share is drawn, so that contextual questions keep their weight in the overall score. `replies` asks for a reply to each utterance (or in
    spoken dialogues, strategy `dialogue`); None for no such questions. `sweep` says what `undertone sweep` asks.
    `benchmark` names a published one (docs/benchmarks.md), asked in place of all these.

    `judge` makes the study table. Each of `judges` scores the same answers besides: one that scores questions has a table of its own, those of
    `kind: epitome` share the table of empathy, in which `baselines` gives systems a role ("text only") that others are compared with.
    `contrasts` is which systems are compared: the paper's ("named"), "all", or a list of pairs.

    `subjects` are asked beside the systems: models that the study does not train, and controls of these and of systems.
    """

    direct: GenerateStage = GenerateStage(strategy="benchmark", splits=("test",), kinds=("DE", "DG"), share=0.3)
    context: GenerateStage = GenerateStage(strategy="benchmark", splits=("test",), kinds=("C", "CE", "CG"))
    replies: GenerateStage | None = None
    subjects: tuple[AnySubject, ...] = ()
    judge: JudgeStage = JudgeStage()
    judges: tuple[AnyJudge, ...] = ()
    baselines: dict[str, str] = Field(default_factory=dict)
    contrasts: Literal["named", "all"] | tuple[tuple[str, str], ...] = "named"
    resamples: int = Field(default=2000, ge=100)
    max_new_tokens: int = Field(default=40, ge=1)
    sweep: Sweep = Sweep()
    benchmark: AnyBenchmark | None = None

    @field_validator("direct", "context", mode="before")
    @classmethod
    def _is_the_benchmark(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, dict):
            return value
        direct = info.field_name == "direct"
        own = {"kinds": ("DE", "DG"), "share": 0.3} if direct else {"kinds": ("C", "CE", "CG")}
        return {"strategy": "benchmark", "splits": ("test",), **own, **value}

    @field_validator("replies", mode="before")
    @classmethod
    def _asks_for_replies(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        own = {"strategy": "continuation", "source": "benchmark", "splits": ("test",), "frames": "test", **value}
        return {"about": "clips" if own["strategy"] == "dialogue" else "utterances", **own}

    @model_validator(mode="after")
    def _tests_replies_on_test(self) -> Self:
        asked = self.replies
        if asked is None:
            return self
        if asked.strategy not in ("continuation", "dual_think", "dialogue"):
            raise ValueError(f"evaluate.replies: got strategy {asked.strategy!r}, expected continuation, dual_think or dialogue")
        if asked.frames != "test" or asked.splits != ("test",) or asked.material == "segments":
            raise ValueError(
                "evaluate.replies asks about human references of split test in test wordings: expected no other frames, splits or about"
            )
        asked.made()
        return self

    @model_validator(mode="after")
    def _tests_on_test(self) -> Self:
        for name in ("direct", "context"):
            stage = getattr(self, name)
            if stage.strategy != "benchmark" or stage.frames == "train" or stage.splits != ("test",):
                raise ValueError(
                    f"evaluate.{name} asks clips of split test in test wordings: expected no other strategy, frames or splits"
                )
            stage.made()
        return self


class Study(Section):
    """A whole study: one YAML file. Same file, same seed, same inputs: same tables."""

    name: str = Field(default="study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=1, ge=0)
    parts: int = Field(default=32, ge=1)
    max_failed_share: float = Field(default=0.5, ge=0, le=1)
    allow_heard_test_speakers: bool = False
    corpora: tuple[Corpus, ...] = Field(min_length=1)
    label: LabelStage = LabelStage()
    decide: Decide = Decide()
    references: References = References()
    condense: Condense = Condense()
    generate: Generate = Generate()
    model: SpeechLLMConfig = SpeechLLMConfig()
    train: TrainConfig = TrainConfig()
    systems: tuple[System, ...] = SYSTEMS
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _filters_have_their_labellers(self) -> Self:
        asked = {one.use for one in self.label.labellers}
        for name, labeller in (("quality", "quality"), ("duplicates", "fingerprint")):
            if name in self.condense.named() and labeller not in asked:
                raise ValueError(f"condense.{name} needs the labeller {labeller!r}; add it to label.labellers")
        return self

    @model_validator(mode="after")
    def _systems_can_be_made(self) -> Self:
        for index, one in enumerate(self.systems):
            try:
                self.model_of(one), self.train_of(one)
            except ConfigError as error:
                raise ValueError(f"systems.{index} ({one.name}): {error}") from None
        return self

    @model_validator(mode="after")
    def _systems_can_learn(self) -> Self:
        for one in self.systems:
            if one.weights_of is not None:
                continue
            model, train = self.model_of(one), self.train_of(one)
            begins = model.decoder.name is None and train.reading.clips > 0
            if begins and train.align.steps and model.adapter.frames_each is None:
                raise ValueError(
                    f"systems: {one.name} has an adapter of kind {model.adapter.kind!r}, which has no embedding per stretch of time to align "
                    "with words; set train.align.steps=0"
                )
            if one.hears == "speech":
                continue
            resting = next((number for number, leg in enumerate(train.legs(), start=1) if "decoder" in leg.frozen), None)
            frozen = "decoder" in model.frozen and (model.lora is None or model.lora.where == "speech")
            if frozen or resting is not None:
                where = "model.frozen names" if frozen else f"stage {resting} of train.stages freezes"
                raise ValueError(
                    f"systems: {one.name} hears nothing, so that only its decoder can learn, but {where} the decoder; set model.lora (of all "
                    "positions), let the decoder learn, or leave this system out"
                )
        return self

    def model_of(self, system: System) -> SpeechLLMConfig:
        """The model of one system: the study's, with what differs."""
        if not system.model:
            return self.model
        content = settings.merged(self.model.model_dump(mode="json"), system.model)
        return settings.validated(SpeechLLMConfig, content, where="model")

    def train_of(self, system: System) -> TrainConfig:
        """How one system is trained: as the study says, with what differs, and with the study's seed."""
        content = settings.merged(self.train.model_dump(mode="json"), system.train)
        made = settings.validated(TrainConfig, content, where="train") if system.train else self.train
        return made.model_copy(update={"seed": self.seed})

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, names in (
            ("corpora", [one.title for one in self.corpora]),
            ("systems and evaluate.subjects", [slug(one.name) for one in (*self.systems, *arms(self.evaluate.subjects))]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: the name {twice[0]!r} stands twice; give one of them another")
        asked = arms(self.evaluate.subjects)
        taken = sorted(
            {slug(one.name) for one in (*self.systems, *asked)}
            & {"start", "reading", "logs", "examples", "features", "majority-answer"}
        )
        if taken:
            raise ValueError(f"systems: the name {taken[0]!r} is a folder of the run itself; give the system another")
        known = ", ".join(self.generate.sources)
        for config in (self.train, *(self.train_of(one) for one in self.systems if one.train)):
            staged = {name for one in config.stages for name in (*one.sources, *(one.mix or {}))}
            for where, named in (("train.mix", set(config.mix)), ("train.stages", staged)):
                if strange := sorted(named - self.generate.sources.keys()):
                    raise ValueError(f"{where} names {', '.join(strange)}; expected some of generate.sources: {known}")
        for one in self.systems:
            missing = [name for name in one.data if name not in self.generate.sources]
            if missing:
                raise ValueError(f"systems: {one.name} is trained on {', '.join(missing)}, but generate.sources has {known}")
        there = {one.name for one in self.systems}
        for index, subject in enumerate(self.evaluate.subjects):
            if isinstance(subject, TrainedSubject) and subject.system not in there:
                raise ValueError(
                    f"evaluate.subjects.{index} asks system {subject.system!r}; systems are {', '.join(sorted(there))}"
                )
        there |= {one.name for one in asked}
        compared = self.evaluate.contrasts if not isinstance(self.evaluate.contrasts, str) else ()
        named_there: dict[str, Iterable[str]] = {
            "baselines": self.evaluate.baselines.values(),
            "contrasts": (one for pair in compared for one in pair),
        }
        for where, called in named_there.items():
            if strangers := sorted(set(called) - there - set(CONTROLS)):
                raise ValueError(f"evaluate.{where} names {', '.join(strangers)}; systems are {', '.join(sorted(there))}")
        trained = {one.name for one in self.systems if one.weights_of is None}
        for one in self.systems:
            if one.weights_of is not None and one.weights_of not in trained:
                raise ValueError(
                    f"systems: {one.name} uses the weights of {one.weights_of!r}; trained are {', '.join(sorted(trained))}"
                )
        return self


def load_study(which: str, overrides: Sequence[str] = ()) -> Study:
    """A study from a YAML file, or a shipped one by name ("demo").

    Args:
        which: Path, or the name of a shipped study.
        overrides: `key=value` settings of the command line.

    Raises:
        ConfigError: With all problems at once.
    """
    shipped = resources.files("undertone") / "configs" / f"{which}.yaml"
    if not which.endswith((".yaml", ".yml")) and shipped.is_file():
        content = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    else:
        content = settings.read_yaml(Path(which))
    return settings.validated(Study, settings.override(content, overrides), where=Path(which).name)


def study_of_folder(folder: Location, overrides: Sequence[str] = ()) -> Study:
    """The study of one folder of audio with default settings.

    Raises:
        ConfigError: A setting of the command line is wrong.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "-", folder.resolve().name).lstrip("-._") or "speech"
    content = {"name": name, "corpora": [{"kind": "folder", "path": str(folder)}]}
    return settings.validated(Study, settings.override(content, overrides), where=f"the study of {folder}")


def shipped_studies() -> list[str]:
    """Names of the study files inside the package."""
    folder = resources.files("undertone") / "configs"
    return sorted(one.name.removesuffix(".yaml") for one in folder.iterdir() if one.name.endswith(".yaml"))


def shipped_text(name: str) -> str:
    """The YAML of a shipped study."""
    file = resources.files("undertone") / "configs" / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"no shipped study {name!r}; there are {', '.join(shipped_studies())}")
    return file.read_text(encoding="utf-8")
