"""How a system is trained, as data: stands in a study file under `train`."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.errors import ConfigError
from undertone.model.config import Head, Part, SpeechLLMConfig, _Config
from undertone.model.examples import Tells

Mix = dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
"""Share of a source's items per epoch, by name."""

Tracker = Literal["tensorboard", "wandb", "trackio"]


class ReadingConfig(BaseModel):
    """How a new decoder learns to read before any system hears (`train.pretrain`).

    Attributes:
        clips: Imagined clips; 0 leaves this out, and each system starts from new weights.
        steps: Optimiser steps.
        lr: Peak learning rate.
        threads: torch threads. Two are a third faster on two idle cores, and ten times slower where anything else runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int = Field(default=2000, ge=0)
    steps: int = Field(default=1200, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    threads: int = Field(default=1, ge=1)


class AlignConfig(BaseModel):
    """How the adapter learns to hear words before any question is asked (`train.align`); shared by all systems.

    Attributes:
        steps: Optimiser steps; 0 leaves this out.
        batch_size: Clips per step.
        lr: Peak learning rate.
        threads: torch threads. Two are a third faster on two idle cores, and ten times slower where anything else runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=800, ge=0)
    batch_size: int = Field(default=48, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    threads: int = Field(default=1, ge=1)


class AugmentConfig(BaseModel):
    """What is done to speech each time it is heard in training, drawn anew from the seed; by default nothing.

    Attributes:
        time_masks: Stretches of frames that are replaced by the clip's mean (SpecAugment's time masks, on cached frames).
        time_frames: Longest stretch, in frames; never more than a quarter of the clip.
        feature_masks: Bands of features that are replaced by their mean.
        feature_width: Widest band, in features.
        noise_db: Signal-to-noise ratio of white noise, in dB, drawn between two bounds; needs an encoder inside that reads samples.
        speed: Factor of speed drawn between two bounds, by resampling; needs the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_masks: int = Field(default=0, ge=0)
    time_frames: int = Field(default=25, ge=1)
    feature_masks: int = Field(default=0, ge=0)
    feature_width: int = Field(default=8, ge=1)
    noise_db: tuple[float, float] | None = None
    speed: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None

    @property
    def samples(self) -> bool:
        """Whether it is done to samples, not to frames."""
        return self.noise_db is not None or self.speed is not None

    @property
    def anything(self) -> bool:
        """Whether it does anything."""
        return self.samples or self.time_masks > 0 or self.feature_masks > 0


LOSSES = ("reply", "category", "dimensions")
"""Names of the parts of an objective, which are those of their weights."""


class ObjectiveConfig(_Config):
    """What a step lessens: `reply` L_reply + `category` L_category + `dimensions` L_dimensions (RE-LLM, 2602.10716: all weights 1).

    Each is a mean over the questions that have a target for it, each of which counts once, however many batches and processes share the
    step. L_category is the cross-entropy of the category head, L_dimensions is of the head for valence, arousal and dominance. Where the
    model has no such head, its loss is none.

    Attributes:
        loss: Of the reply. "ce" is the cross-entropy of its tokens, "kl" the divergence of the model's distribution of each of its tokens
            from the one of a teacher that reads what the model hears. None is RE-LLM's: "kl" where the model has heads, else "ce".
        temperature: Of "kl"; both logits are divided by it (the published code's 2).
        scaled: Whether "kl" is multiplied by the temperature's square, which keeps its gradients as large whatever the temperature. The
            published code leaves it out.
        teacher: Who teaches: None is the same decoder as it is before this training, without LoRA; or a decoder's name or folder; or the
            folder of a checkpoint of Undertone. Its tokeniser must be the student's.
        tells: What the teacher's text says besides the words: the clip's emotion, or nothing (BLSP-Emo's first stage).
        untaught: What "kl" does with questions that have no teacher's text (all that are no replies, or of a clip without words or
            without one prevailing emotion): teach them by "ce", or leave them out.
        reply: Weight of the reply's loss.
        category: Weight of the category head's.
        dimensions: Weight of the dimensions head's.
        dimensions_loss: "mse", or "ccc": 1 minus the concordance correlation with the targets, over the questions of one batch.
    """

    loss: Literal["ce", "kl"] | None = None
    temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    scaled: bool = False
    teacher: str | None = None
    tells: Tells = "emotion"
    untaught: Literal["ce", "leave_out"] = "ce"
    reply: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    category: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    dimensions: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    dimensions_loss: Literal["mse", "ccc"] = "mse"

    @model_validator(mode="after")
    def _lessens_something(self) -> Self:
        if not (self.reply or self.category or self.dimensions):
            raise ValueError(
                "objective: all weights are 0, so that nothing would be learnt; give reply, category or dimensions one"
            )
        return self

    def of(self, model: SpeechLLMConfig) -> Self:
        """The same for one model: with the loss of the reply that is meant, and no weight on a head that is not there.

        Raises:
            ConfigError: Nothing is left to lessen.
        """
        aux = model.aux
        made = self.model_copy(
            update={
                "loss": self.loss or ("ce" if aux is None else "kl"),
                "category": self.category if aux is not None and aux.classes else 0.0,
                "dimensions": self.dimensions if aux is not None and aux.dimensions else 0.0,
            }
        )
        if not (made.reply or made.category or made.dimensions):
            raise ConfigError(
                f"train.objective weighs only heads that this model does not have (reply={self.reply:g}); give model.aux, or reply a weight"
            )
        return made

    @property
    def plain(self) -> bool:
        """Whether, of a model, it is the mean loss of the answers' tokens and nothing else."""
        return self.loss == "ce" and self.reply == 1 and not self.category and not self.dimensions

    @property
    def said(self) -> str:
        """In words, of a model."""
        told = "nothing" if self.tells == "nothing" else "the emotion"
        teacher = f"{self.teacher or 'the decoder before training'}, told {told}"
        reply = f"reply by kl at temperature {self.temperature:g} (teacher: {teacher})" if self.loss == "kl" else "reply by ce"
        parts = {"reply": reply, "category": "category by ce", "dimensions": f"dimensions by {self.dimensions_loss}"}
        weights = {name: getattr(self, name) for name in LOSSES}
        return " + ".join(
            f"{weight:g} x {parts[name]}" if weight != 1 else parts[name] for name, weight in weights.items() if weight
        )


class StageConfig(_Config):
    """One stage of a curriculum.

    Attributes:
        sources: Sources that are trained on, as far as a system has them; () is all.
        steps: Optimiser steps, or
        share: share of the steps of the whole training.
        mix: As `TrainConfig.mix`; None is that one.
        frozen: Parts that rest in this stage, beside `model.frozen`.
        objective: As `TrainConfig.objective`; None is that one.
    """

    grown: ClassVar[frozenset[str]] = frozenset({"objective"})

    sources: tuple[str, ...] = ()
    steps: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    mix: Mix | None = None
    frozen: tuple[Part | Head, ...] = ()
    objective: ObjectiveConfig | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.share is None):
            raise ValueError(f"give a stage either steps or share; got steps={self.steps}, share={self.share}")
        return self


class Leg(NamedTuple):
    """A stage as it is run: its seed, how many steps, of which sources in which mix, what rests, and what is lessened."""

    seed: int | str
    steps: int
    sources: tuple[str, ...]
    mix: Mix
    frozen: tuple[Part | Head, ...]
    objective: ObjectiveConfig


class TrainConfig(_Config):
    """How to train.

    Attributes:
        steps: Optimiser steps; equal for all systems of a study, so that each sees about as many items.
        batch_size: Items (questions) per batch; a step takes `accumulate` of them in each process.
        group_size: Most questions of one clip that share a row and its speech.
        lr: Peak learning rate.
        decoder_lr: The decoder's rate as a share of `lr` where it can read already (by name, or from `reading`); a small one keeps what
            it has learnt. A decoder with new weights gets the whole rate.
        warmup: Share of the steps in which the rate rises linearly; then it falls as a cosine to a tenth.
        weight_decay: AdamW's, on matrices only.
        clip_norm: Largest gradient norm.
        seed: Of weights, order and dropout.
        shift_frames: Most frames cut from the start of a clip, drawn anew each time it is heard, so that a word falls on any place of
            the adapter's stack.
        threads: torch threads; another number gives other rounding and so other weights.
        mix: Share of a source's items per epoch: of asr, pqa, pqa_star and cpqa (1 where not named), 0 or more.
        vocab_size: Of a trained tokeniser.
        log_every: Steps per line of losses.jsonl.
        temperature: Evens out the sources, as sampling by n ** (1 / temperature) of a source's n items does; 1 leaves their sizes, more
            gives small ones more. The items of an epoch stay as many, and `mix` is applied besides.
        stages: A curriculum, in this order; () is one stage of all.
        augment: What is done to speech before it is heard.
        encoder_lr: As `decoder_lr`, of an encoder that is trained.
        precision: Of the computation (autocast); weights that are trained stay as they are stored.
        accumulate: Batches per optimiser step. Half the `batch_size` with twice as many takes half the memory, for the same step.
        checkpointing: Compute activations again in the backward pass, for less memory and a third more time.
        held_out: Share of the training recordings that nobody trains on and whose loss chooses the best weights; 0 for none.
        eval_every: Steps between two looks at that loss.
        patience: Looks without a better loss after which training ends; 0 for never.
        save_every: Steps between two resumable states, 0 for none; with `held_out`, each look at that loss saves one.
        trackers: Where losses are shown beside losses.jsonl; None is tensorboard where it is installed.
        launch: Several processes: "ddp", "fsdp", "deepspeed-zero2", "deepspeed-zero3", "cpu", or a file of `accelerate config`.
        processes: How many; None is what that file says, or one per GPU.
        objective: What a step lessens.
        rows: "bucketed": a batch holds rows of like length, which are of like questions too. "packed": a batch is drawn from all lengths, and
            several clips share a row; a step costs about a fifth more, and the first hundreds teach more.
        reading: Shared first stage of a decoder without a name.
        align: Shared second stage, after reading.
    """

    grown: ClassVar[frozenset[str]] = frozenset(
        {
            *("temperature", "stages", "augment", "encoder_lr", "precision", "accumulate", "checkpointing", "held_out"),
            *("eval_every", "patience", "save_every", "trackers", "launch", "processes", "rows", "objective"),
        }
    )

    steps: int = Field(default=500, ge=1)
    batch_size: int = Field(default=32, ge=1)
    group_size: int = Field(default=8, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    decoder_lr: float = Field(default=0.1, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    seed: int = 1
    shift_frames: int = Field(default=14, ge=0)
    threads: int = Field(default=1, ge=1)
    mix: Mix = Field(default_factory=dict)
    vocab_size: int = Field(default=1500, ge=300)
    log_every: int = Field(default=20, ge=1)
    reading: ReadingConfig = ReadingConfig()
    align: AlignConfig = AlignConfig()
    temperature: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    stages: tuple[StageConfig, ...] = ()
    augment: AugmentConfig = AugmentConfig()
    encoder_lr: float = Field(default=0.1, gt=0)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: int = Field(default=1, ge=1)
    checkpointing: bool = False
    held_out: float = Field(default=0.0, ge=0, lt=1)
    eval_every: int = Field(default=100, ge=1)
    patience: int = Field(default=0, ge=0)
    save_every: int = Field(default=200, ge=0)
    trackers: tuple[Tracker, ...] | None = None
    launch: str | None = None
    processes: int | None = Field(default=None, ge=1)
    rows: Literal["bucketed", "packed"] = "bucketed"
    objective: ObjectiveConfig = ObjectiveConfig()

    @model_validator(mode="after")
    def _stages_fill_it(self) -> Self:
        if self.patience and not self.held_out:
            raise ValueError(f"patience={self.patience} ends training by the loss of what is held out: give held_out, such as 0.05")
        if not self.stages:
            return self
        by_steps = [one.steps for one in self.stages if one.steps is not None]
        if by_steps and len(by_steps) < len(self.stages):
            raise ValueError("stages: give all of them steps, or all of them share")
        if by_steps and sum(by_steps) != self.steps:
            raise ValueError(f"stages: their steps are {sum(by_steps)} in all, expected steps={self.steps}")
        total = sum(one.share or 0.0 for one in self.stages)
        if not by_steps and abs(total - 1) > 1e-6:
            raise ValueError(f"stages: their shares are {total:g} in all, expected 1")
        if any(leg.steps < 1 for leg in self.legs()):
            raise ValueError(f"stages: with steps={self.steps} some of {len(self.stages)} stages has no step")
        return self

    def legs(self) -> list[Leg]:
        """The stages with their steps; one that holds everything where there are none."""
        if not self.stages:
            return [Leg(self.seed, self.steps, (), self.mix, (), self.objective)]
        ends = [0, *accumulate(one.steps or (one.share or 0.0) * self.steps for one in self.stages)]
        return [
            Leg(
                f"{self.seed}:{number}",
                round(ends[number + 1]) - round(ends[number]),
                one.sources,
                self.mix if one.mix is None else one.mix,
                one.frozen,
                self.objective if one.objective is None else one.objective,
            )
            for number, one in enumerate(self.stages)
        ]

    def learns_targets(self, model: SpeechLLMConfig) -> bool:
        """Whether training reads more of an example than prompt and answer, so that `build_examples` must add it."""
        return model.aux is not None or any(leg.objective.loss == "kl" for leg in self.legs())

    def plain(self) -> Self:
        """Without all that makes a large training: what the stages before any system's own are trained with."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in self.grown})

    def of_weights(self) -> Self:
        """Without what weights do not depend on, for fingerprints."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in ("save_every", "trackers")})
