"""The model card of a checkpoint (README.md), written from the run: what it is, what it heard, how it was asked, how it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from undertone import __version__
from undertone.model.config import SpeechLLMConfig
from undertone.records import Clip, Example
from undertone.train.config import TrainConfig

CARD_FILE = "README.md"
NO_SCORES = "None yet: `undertone evaluate` asks it the benchmark's questions.\n"


class Corpus(BaseModel):
    """Speech that was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recordings: int
    clips: int
    licence: str | None = None
    languages: tuple[str, ...] = ()


class Facts(BaseModel):
    """What a card says of the data, beside what training knows by itself.

    Attributes:
        name: Of the system.
        metadata: When predicted labels stand in the prompt (`System.metadata`).
        corpora: The speech.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "speech-LLM"
    metadata: str = "none"
    corpora: tuple[Corpus, ...] = ()


def corpora_of(clips: Sequence[Clip], examples: Sequence[Example]) -> tuple[Corpus, ...]:
    """The corpora that some examples are about, with the licences that their clips name."""
    asked = {one.clip_id for one in examples}
    found: dict[tuple[str, str | None], list[Clip]] = {}
    for clip in clips:
        if clip.id in asked:
            found.setdefault((clip.source, clip.licence), []).append(clip)
    return tuple(
        Corpus(
            name=name,
            licence=licence,
            recordings=len({clip.recording_id for clip in some}),
            clips=len({clip.id for clip in some}),
            languages=tuple(sorted({clip.language for clip in some if clip.language})),
        )
        for (name, licence), some in sorted(found.items(), key=lambda one: (one[0][0], one[0][1] or ""))
    )


def model_card(
    facts: Facts,
    *,
    config: TrainConfig,
    parts: SpeechLLMConfig,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    losses: Sequence[Mapping[str, Any]],
    looks: Sequence[Mapping[str, Any]],
    model: Any,
    processes: int = 1,
) -> str:
    """The card's text; equal trainings give equal cards.

    Args:
        facts: Data and name.
        config: How it was trained.
        parts: What it is made of.
        examples: What it was trained on.
        held_out: What its best weights were chosen on.
        losses: Lines of losses.jsonl.
        looks: Lines of held_out.jsonl.
        model: For its parameters.
        processes: That shared each step.
    """
    counts = [sum(one.numel() for one in model.parameters() if one.requires_grad), sum(one.numel() for one in model.parameters())]
    sections = [
        _front(facts, parts),
        f"# {facts.name}\n\nA speech-LLM trained with Undertone {__version__}: it hears speech and answers questions about what is said "
        "and how.\n",
        "## Model\n\n" + _list(_model(parts, counts)),
        "## Data\n\n" + _data(facts, examples, held_out),
        "## Prompts\n\n" + _prompts(facts, parts, examples),
        "## Training\n\n" + _list(_training(config, losses, looks, processes) | _lessened(config, parts, examples, losses)),
        f"## Scores\n\n{NO_SCORES}",
        '## Use\n\n```sh\nundertone ask FOLDER FILE.wav "How does the speaker feel?"\n```\n\n```python\nfrom pathlib import Path\n\nfrom '
        'undertone.model.speech_llm import SpeechLLM\n\nmodel = SpeechLLM.load(Path("FOLDER"))\n```\n',
    ]
    return "\n".join(sections)


def with_scores(card: str, scores: Mapping[str, str]) -> str:
    """A card whose section "Scores" holds these, in this order."""
    rows = "".join(f"| {name} | {text} |\n" for name, text in scores.items())
    return card.replace(NO_SCORES, f"| questions | score |\n|---|---|\n{rows}", 1)


def _front(facts: Facts, parts: SpeechLLMConfig) -> str:
    """What the Hub reads."""
    named = [one.name for one in (parts.encoder, parts.decoder) if one.name and "/" in one.name]
    front: dict[str, Any] = {
        "library_name": "undertone",
        "pipeline_tag": "audio-text-to-text",
        "tags": ["speech", "emotion", "speech-llm"],
        "license": "other",
    }
    if named:
        front["base_model"] = named
    if languages := sorted({name for one in facts.corpora for name in one.languages}):
        front["language"] = languages
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"


def _model(parts: SpeechLLMConfig, counts: Sequence[int]) -> dict[str, str]:
    encoder = parts.encoder.name or f"a new {(parts.encoder.config or {}).get('model_type')}"
    decoder = parts.decoder.name or f"a new {(parts.decoder.config or {}).get('model_type')}"
    made = {
        "encoder": encoder + (", run inside the model" if parts.encoder_inside else ", frozen"),
        "adapter": parts.adapter.kind,
        "decoder": decoder,
        "frozen": ", ".join(parts.frozen) or "nothing",
    }
    if parts.nuance is not None:
        made["emotion encoder"] = f"{parts.nuance.encoder}, frozen"
    if parts.aux is not None:
        made["heads"] = ", ".join((*parts.aux.classes, *parts.aux.dimensions))
    for key, update in (("LoRA of the decoder", parts.lora), ("LoRA of the encoder", parts.encoder_lora)):
        if update is not None:
            where = ", at speech positions only" if update.where == "speech" else ""
            made[key] = f"rank {update.r}, alpha {update.alpha}{where}"
    return made | {
        "parameters": f"{counts[1]:,} in the model, of which {counts[0]:,} were trained",
        "longest audio": f"{parts.max_audio_s:g} s",
    }


def _data(facts: Facts, examples: Sequence[Example], held_out: Sequence[Example]) -> str:
    used, aside = Counter(one.source for one in examples), Counter(one.source for one in held_out)
    text = "| source of pairs | trained on | held out |\n|---|---:|---:|\n"
    text += "".join(f"| {name} | {used[name]:,} | {aside[name]:,} |\n" for name in sorted(used | aside))
    if facts.corpora:
        text += "\n| corpus | recordings | clips | licence |\n|---|---:|---:|---|\n"
        text += "".join(
            f"| {one.name} | {one.recordings:,} | {one.clips:,} | {one.licence or 'not recorded'} |\n" for one in facts.corpora
        )
        text += "\nWhat a licence above forbids of the speech may hold for these weights too.\n"
    return text


def _prompts(facts: Facts, parts: SpeechLLMConfig, examples: Sequence[Example]) -> str:
    """One real prompt of each source."""
    first: dict[str, Example] = {}
    for one in examples:
        first.setdefault(one.source, one)
    shown = f"Predicted labels in the prompt: {facts.metadata.replace('_', ' ')}.\n"
    return shown + "".join(f"\n`{name}`\n\n```text\n{one.prompt} {one.target}\n```\n" for name, one in sorted(first.items()))


def _training(
    config: TrainConfig, losses: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]], processes: int
) -> dict[str, str]:
    each = config.batch_size * config.accumulate * processes
    made = {
        "steps": f"{losses[-1]['step'] if losses else 0:,} of {config.steps:,}, {each} questions each",
        "optimiser": f"AdamW, peak rate {config.lr:g} (decoder {config.decoder_lr:g} of it), weight decay {config.weight_decay:g}",
        "precision": config.precision,
        "seed": str(config.seed),
    }
    if losses:
        made["last losses"] = ", ".join(f"{name} {value:.3f}" for name, value in losses[-1]["by_source"].items())
    if looks:
        best = min(looks, key=lambda one: float(one["loss"]))
        made["best loss of what was held out"] = f"{best['loss']:.4f}, at step {best['step']}: these weights"
    return made


def _lessened(
    config: TrainConfig, parts: SpeechLLMConfig, examples: Sequence[Example], losses: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """What was lessened, where that is more than the loss of the answers' tokens."""
    found = [leg.objective.of(parts) for leg in config.legs()]
    if all(one.plain for one in found):
        return {}
    kinds = {
        "a teacher's text": sum(any(leg.tells in (one.teacher or ()) for leg in found) for one in examples),
        "an emotion": sum(one.category is not None for one in examples),
        "valence, arousal or dominance": sum(one.dimensions is not None for one in examples),
    }
    made = {
        "lessened": "; then ".join(dict.fromkeys(one.said for one in found)),
        "questions with targets": ", ".join(f"{count:,} with {name}" for name, count in kinds.items()),
    }
    if losses and losses[-1].get("by_part"):
        made["last losses, unweighted"] = ", ".join(f"{name} {value:.3f}" for name, value in losses[-1]["by_part"].items())
    return made


def _list(rows: Mapping[str, str]) -> str:
    return "".join(f"- {name}: {text}\n" for name, text in rows.items())
