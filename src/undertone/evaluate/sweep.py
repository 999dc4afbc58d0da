"""The quality sweep: how good must labels be before it helps to show them? (2508.07273 shows those of one labeller and leaves this open.)

One trained system is asked the same questions with labels of falling quality: those of people, the same with some replaced, the labeller's,
the same with some replaced or left out, another clip's, and none. How good labels are is measured on the clips of the questions, as the share
of their time that says what people said; what they are worth is the score over the system that is shown none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import ConfigError, DataError
from undertone.evaluate import metrics
from undertone.evaluate.metrics import Difference, Floats, Interval
from undertone.metadata import MetadataConfig
from undertone.model.examples import System
from undertone.model.shown import Shown, ShownLabels
from undertone.records import Clip, QAPair, Segment, Verdict

Family = Literal["none", "oracle", "oracle noise", "predicted", "noise", "partial", "shuffled"]
FAMILIES: tuple[Family, ...] = get_args(Family)
HUMAN_FAMILIES = frozenset({"oracle", "oracle noise"})
"""Shown what people said: bounds, no systems."""

WHOLE_FAMILIES = ("oracle", "oracle noise", "predicted", "noise")
"""All of a clip is labelled, well or badly: among these a quality is looked for that suffices."""

OVERALL, UNFLAGGED = "overall", "unflagged"

_NO_CLASS = frozenset({"other", "unknown"})

Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Condition(NamedTuple):
    """One kind of labels; `labels` is None where none are shown."""

    name: str
    family: Family
    labels: ShownLabels | None


class Arm(BaseModel):
    """A system of the sweep.

    Attributes:
        curve: What is swept: the system whose weights answer, or "NAME anew" where each point is trained with its own labels.
        condition: Name of its labels.
        family: Kind of its labels.
        system: What it is asked with, and what it trains with where it has weights of its own.
        baseline: Name of the arm that is shown none, which the score is compared with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    curve: str
    condition: str
    family: Family
    system: System
    baseline: str

    @property
    def subject(self) -> str:
        """Its name in answers and verdicts."""
        return self.system.name


class Sweep(BaseModel):
    """What is swept.

    Attributes:
        systems: Names of systems; none are those that hear speech and show the labeller's labels when they are asked.
        attribute: Whose quality is measured.
        noise: Shares of the labeller's labels that are replaced by wrong ones.
        oracle: Whether human labels are shown as well.
        oracle_noise: Shares of the human labels that are replaced by wrong ones.
        partial: Shares of the labeller's labels that are shown.
        shuffled: Whether the labeller's labels of another recording are shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    systems: tuple[str, ...] = ()
    attribute: str = "emotion"
    noise: tuple[Rate, ...] = (0.25, 0.5, 0.75)
    oracle: bool = True
    oracle_noise: tuple[Rate, ...] = (0.2, 0.4, 0.6, 0.8)
    partial: tuple[Share, ...] = (0.75, 0.5, 0.25)
    shuffled: bool = True

    def conditions(self) -> list[Condition]:
        """Without labels, then from the best labels to the worst."""
        made = [Condition("none", "none", None)]
        if self.oracle:
            made.append(Condition("oracle", "oracle", ShownLabels(of="human")))
        made += [
            Condition(f"oracle noise {rate:g}", "oracle noise", ShownLabels(of="human", noise=rate)) for rate in self.oracle_noise
        ]
        made.append(Condition("predicted", "predicted", ShownLabels()))
        made += [Condition(f"noise {rate:g}", "noise", ShownLabels(noise=rate)) for rate in self.noise]
        made += [Condition(f"partial {share:g}", "partial", ShownLabels(share=share)) for share in self.partial]
        if self.shuffled:
            made.append(Condition("shuffled", "shuffled", ShownLabels(of="other_recording")))
        return made

    def arms(self, systems: Sequence[System], *, anew: bool = False) -> list[Arm]:
        """The arms of all curves, an arm of two curves in both.

        Args:
            systems: Those of the study.
            anew: Also train a system for each kind of labels, where a chosen one trains with labels. One that trains without labels, and
                the chosen one itself, are there already.

        Raises:
            ConfigError: No system can be swept, or one that is named is not there or cannot.
        """
        chosen = self._chosen(systems)
        made = [one for base in chosen for one in self._asked(base, systems)]
        if anew:
            again = [base for base in chosen if base.shows_metadata("train") and base.shows_metadata("inference")]
            if not again:
                raise ConfigError(
                    f"--anew: of {', '.join(one.name for one in chosen)} none trains with labels; choose one with metadata: "
                    "train_and_inference, such as S32"
                )
            made += [one for base in again for one in self._trained(base, systems)]
        return made

    def _chosen(self, systems: Sequence[System]) -> list[System]:
        able = {one.name: one for one in systems if one.hears != "words" and one.labels.of == "predicted"}
        strange = sorted(set(self.systems) - able.keys())
        if strange:
            raise ConfigError(
                f"the sweep's systems: {', '.join(strange)} cannot be swept; expected some of {', '.join(able) or 'none'} "
                "(one that does not read transcripts, and is not shown other labels than the labeller's by itself)"
            )
        named = [able[name] for name in self.systems]
        found = named or [one for one in able.values() if one.hears == "speech" and one.shows_metadata("inference")]
        if not found:
            raise ConfigError(
                "no system of the study shows labels when it is asked; name one for the sweep, such as --system S30: its prompts then "
                "hold labels that it was not trained with"
            )
        return found

    def _asked(self, base: System, systems: Sequence[System]) -> Iterator[Arm]:
        """The weights of a system as they are, asked with each kind of labels."""
        baseline = _baseline(base, systems) or base.checkpoint
        if baseline != base.checkpoint:
            yield _arm(base, "none", "none", None, curve=base.name, weights_of=baseline, baseline=baseline)
        for name, family, labels in self.conditions():
            yield _arm(base, name, family, labels, curve=base.name, weights_of=base.checkpoint, baseline=baseline)

    def _trained(self, base: System, systems: Sequence[System]) -> Iterator[Arm]:
        """A system for each kind of labels, trained and asked with them."""
        baseline = _baseline(base, systems)
        curve = f"{base.name} anew"
        for name, family, shown in self.conditions():
            labels = shown and shown.model_copy(update={"dropout": base.labels.dropout})
            there = baseline if labels is None else base.checkpoint if labels == base.labels else None
            if labels is not None and there is not None:
                labels = shown  # nothing trains, so nothing is dropped
            # The chosen system with its own labels is asked in the other curve already, and is that arm.
            named = base.name if there == base.checkpoint else curve
            made = _arm(base, name, family, labels, curve=named, weights_of=there, baseline=baseline or curve)
            yield made.model_copy(update={"curve": curve})


def _baseline(base: System, systems: Sequence[System]) -> str | None:
    """The system that learnt in the same way from the same data and is never shown labels."""
    made = next((one for one in systems if one.name == base.checkpoint), base)

    def like(one: System) -> bool:
        heard = (one.data, one.hears, one.history) == (base.data, base.hears, base.history)
        return heard and (one.model, one.train, one.targets) == (made.model, made.train, made.targets)

    return next((one.name for one in systems if one.metadata == "none" and one.weights_of is None and like(one)), None)


def _arm(
    base: System, name: str, family: Family, labels: ShownLabels | None, *, curve: str, weights_of: str | None, baseline: str
) -> Arm:
    # Without labels a system is its weights and nothing else, so that curves share the arm.
    subject = f"{weights_of or curve} none" if labels is None else f"{curve} {name}"
    shows: Literal["none", "inference_only", "train_and_inference"] = "inference_only" if weights_of else "train_and_inference"
    return Arm(
        curve=curve,
        condition=name,
        family=family,
        baseline=f"{baseline} none",
        system=System(
            name=subject,
            data=base.data,
            hears=base.hears,
            history=base.history,
            weights_of=weights_of,
            # Of one that trains itself; where weights are another system's, so is all that made them.
            targets=ShownLabels() if weights_of else base.targets,
            model={} if weights_of else base.model,
            train={} if weights_of else base.train,
            metadata="none" if labels is None else shows,
            labels=labels or ShownLabels(),
        ),
    )


def unique(arms: Iterable[Arm]) -> list[System]:
    """The systems of all arms, each once."""
    return list({one.subject: one.system for one in arms}.values())


# ---- how good labels are ---------------------------------------------------------------------------------------------------------


class LabelQuality(BaseModel):
    """How well the labels that are shown agree with what people said.

    Attributes:
        accuracy: Share of the labelled time of known truth that says what people said; None where nothing is labelled.
        coverage: Share of the time of known truth that is labelled.
        human_ms: Time of known truth: human labels that name a class.
        clips: Clips that have any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float | None
    coverage: float
    human_ms: int
    clips: int


def label_quality(shown: Shown, clips: Iterable[Clip], human: Mapping[str, Sequence[Segment]], *, attribute: str) -> LabelQuality:
    """Measure the labels that a system is shown about clips.

    Where two labels are shown of the same time each counts, so contradicting what is right costs accuracy. Time that two people were heard in
    counts for each.

    Args:
        shown: What the system is shown.
        clips: The clips, each counted once.
        human: Segments with human labels by recording id.
        attribute: Whose quality.

    Raises:
        DataError: People said nothing of the attribute about these clips.
    """
    total = covered = labelled = right = held = 0
    for clip in {one.id: one for one in clips}.values():
        truths = list(_truths(clip, human.get(clip.recording_id, ()), attribute))
        if not truths:
            continue
        held += 1
        items = shown.items(clip, attribute)
        for start, end, truth in truths:
            overlaps = [
                (max(start, one.start_ms), min(end, one.end_ms), one.label == truth)
                for one in items
                if one.start_ms < end and start < one.end_ms
            ]
            total += end - start
            labelled += sum(to - since for since, to, _ in overlaps)
            right += sum(to - since for since, to, same in overlaps if same)
            covered += _union_ms([(since, to) for since, to, _ in overlaps])
    if not total:
        raise DataError(
            f"the quality of shown labels is measured by human ones, and no recording of these clips has a human {attribute}; give them in "
            "the corpus' manifest, or choose another attribute for the sweep"
        )
    return LabelQuality(accuracy=right / labelled if labelled else None, coverage=covered / total, human_ms=total, clips=held)


def _truths(clip: Clip, segments: Iterable[Segment], attribute: str) -> Iterator[tuple[int, int, str]]:
    """Human labels inside a clip, in ms from its start."""
    for segment in segments:
        for label in segment.of(attribute):
            start, end = max(label.start_ms, clip.start_ms), min(label.end_ms, clip.end_ms)
            if start < end and label.category is not None and label.category not in _NO_CLASS:
                yield start - clip.start_ms, end - clip.start_ms, label.category


def _union_ms(spans: Sequence[tuple[int, int]]) -> int:
    total = reach = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reach))
        reach = max(reach, end)
    return total


def quality_of(
    system: System,
    pairs: Sequence[QAPair],
    clips: Mapping[str, Clip],
    predicted: Mapping[str, Sequence[Segment]],
    human: Mapping[str, Sequence[Segment]],
    *,
    config: MetadataConfig,
    attribute: str,
    seed: int,
) -> LabelQuality | None:
    """The quality of what `build_examples` shows a system about the questions' clips; None for one that is shown nothing.

    Raises:
        ConfigError: The prompts' format does not hold the attribute.
    """
    if not system.shows_metadata("inference"):
        return None
    if attribute not in config.attributes:
        raise ConfigError(f"evaluate.sweep.attribute: {attribute!r} is not in model.metadata.attributes {list(config.attributes)}")
    about = [clips[pair.clip_id] for pair in pairs]
    shown = Shown(system.labels, about, predicted=predicted, human=human, config=config, seed=seed)
    return label_quality(shown, about, human, attribute=attribute)


# ---- what they are worth ---------------------------------------------------------------------------------------------------------


class Panel(BaseModel):
    """One score of one arm; `gain` is its paired difference to the arm without labels, None for that arm itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Interval
    gain: Difference | None
    unscored: int


class SweepPoint(BaseModel):
    """One arm: how good its labels are, and its scores by panel. `human` marks an oracle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curve: str
    condition: str
    family: Family
    subject: str
    baseline: str
    human: bool
    labels: LabelQuality | None
    panels: dict[str, Panel]


class SweepTable(BaseModel):
    """All that a sweep found. `panels` are: all questions, those without a flag (where any has one), and each kind about the attribute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: str
    judge: str
    resamples: int
    seed: int
    recordings: int
    panels: dict[str, int]
    points: tuple[SweepPoint, ...]

    @property
    def curves(self) -> tuple[str, ...]:
        """What was swept."""
        return tuple(dict.fromkeys(one.curve for one in self.points))

    def to_json(self) -> str:
        """The table as JSON; `from_json` reads it back to an equal object."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A table from its JSON."""
        return cls.model_validate_json(text)

    def plain_text(self) -> str:
        """The table for a terminal."""
        from undertone.evaluate.sweep_text import plain_text

        return plain_text(self)


def build(
    arms: Sequence[Arm],
    verdicts: Iterable[Verdict],
    pairs: Sequence[QAPair],
    qualities: Mapping[str, LabelQuality | None],
    *,
    attribute: str,
    resamples: int = 2000,
    seed: int = 0,
) -> SweepTable:
    """Compute the sweep's table from the verdicts of one judge; several runs are averaged per answer first.

    Args:
        arms: Those that were asked.
        verdicts: On their answers.
        pairs: The benchmark.
        qualities: Of the labels that each subject was shown.
        attribute: Whose quality.
        resamples: Bootstrap resamples of recordings.
        seed: Seed of the bootstrap.

    Raises:
        DataError: The verdicts are of several judges or about other questions.
    """
    judge, scores = _scores(verdicts, pairs)
    missing = np.full(len(pairs), np.nan)
    clusters = [pair.recording_id for pair in pairs]
    masks = _masks(pairs, attribute)
    points: dict[tuple[str, str], SweepPoint] = {}
    for one in arms:
        own, other = scores.get(one.subject, missing), scores.get(one.baseline, missing)
        panels = {}
        for name, mask in masks.items():
            column = np.where(mask, own, np.nan)
            panels[name] = Panel(
                score=metrics.bootstrap_means(column, clusters, resamples=resamples, seed=seed)[0],
                gain=None
                if one.subject == one.baseline
                else metrics.paired_difference(column, other, clusters, resamples=resamples, seed=seed),
                unscored=int((mask & np.isnan(own)).sum()),
            )
        points[one.curve, one.subject] = SweepPoint(
            curve=one.curve,
            condition=one.condition,
            family=one.family,
            subject=one.subject,
            baseline=one.baseline,
            human=one.system.oracle,
            labels=qualities.get(one.subject),
            panels=panels,
        )
    return SweepTable(
        attribute=attribute,
        judge=judge,
        resamples=resamples,
        seed=seed,
        recordings=len(set(clusters)),
        panels={name: int(mask.sum()) for name, mask in masks.items()},
        points=tuple(points.values()),
    )


def _scores(verdicts: Iterable[Verdict], pairs: Sequence[QAPair]) -> tuple[str, dict[str, Floats]]:
    """The judge, and an array of shape (pairs,) for each subject, NaN where unscored."""
    place = {pair.id: index for index, pair in enumerate(pairs)}
    held: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    judges = set()
    for one in verdicts:
        judges.add(one.judge)
        if one.pair_id not in place:
            raise DataError(
                f"verdict {one.id} is about pair {one.pair_id}, which is not in the benchmark: it is of another run; "
                "start the sweep over with --redo sweep"
            )
        if one.score is not None:
            held[one.subject][place[one.pair_id]].append(one.score)
    if len(judges) > 1:
        raise DataError(
            f"one sweep is of one judge, but the verdicts are by {', '.join(sorted(judges))}; use --redo sweep/verdicts"
        )
    made = {}
    for subject, found in held.items():
        made[subject] = np.full(len(pairs), np.nan)
        for index, given in found.items():
            made[subject][index] = np.mean(given)
    return next(iter(judges), ""), made


def _masks(pairs: Sequence[QAPair], attribute: str) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """The questions of each panel."""
    made = {OVERALL: np.ones(len(pairs), dtype=bool)}
    clean = np.array([not pair.flags for pair in pairs], dtype=bool)
    if not clean.all():
        made[UNFLAGGED] = clean
    for kind in sorted({pair.kind for pair in pairs if pair.label_attribute == attribute}, reverse=True):
        made[kind] = np.array([pair.kind == kind for pair in pairs], dtype=bool)
    return made
