"""The dataset card of the generated questions: what was counted, what was dropped, what went in and under which licence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import yaml
from pydantic import BaseModel, ConfigDict, Field

from undertone.errors import ConfigError
from undertone.records import Loss, QAPair
from undertone.report.inputs import SourceRow


class CardFacts(BaseModel):
    """The counts behind a dataset card; `CardFacts.count` makes them from records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int = Field(ge=0)
    clips: int = Field(ge=0)
    by_kind: dict[str, int] = {}
    by_source: dict[str, int] = {}
    by_emotion: dict[str, int] = {}
    by_split: dict[str, int] = {}
    passed: dict[str, int] = {}
    dropped: dict[str, int] = {}
    generators: dict[str, int] = {}
    prompts: dict[str, int] = {}

    @classmethod
    def count(cls, pairs: Iterable[QAPair], losses: Iterable[Loss] = ()) -> CardFacts:
        """Count pairs by kind, source, emotion, split, check, generator and prompt digest, in one pass.

        Args:
            pairs: The published pairs.
            losses: What generation and checks dropped; counted as "stage: reason".
        """
        names = ("kind", "source", "emotion", "split", "passed", "generator", "prompt")
        counts: dict[str, Counter[str]] = {name: Counter() for name in names}
        clips: set[str] = set()
        total = 0
        for pair in pairs:
            total += 1
            clips.add(pair.clip_id)
            counts["kind"][pair.kind] += 1
            counts["source"][pair.source] += 1
            counts["split"][pair.split or "none"] += 1
            counts["generator"][pair.generator] += 1
            if pair.label_attribute == "emotion" and pair.label:
                counts["emotion"][pair.label] += 1
            if pair.prompt_digest:
                counts["prompt"][f"{pair.generator}: {pair.prompt_digest}"] += 1
            counts["passed"].update(pair.checks)
        return cls(
            pairs=total,
            clips=len(clips),
            by_kind=_sorted(counts["kind"]),
            by_source=_sorted(counts["source"]),
            by_emotion=_sorted(counts["emotion"]),
            by_split=_sorted(counts["split"]),
            passed=_sorted(counts["passed"]),
            dropped=_sorted(Counter(f"{one.stage}: {one.reason}" for one in losses)),
            generators=_sorted(counts["generator"]),
            prompts=_sorted(counts["prompt"]),
        )


def dataset_card(facts: CardFacts, *, name: str, created: str, code_version: str, seed: int, sources: Sequence[SourceRow]) -> str:
    """Write the dataset card as Markdown with the front matter that the Hugging Face hub reads.

    Args:
        facts: The counts.
        name: The data set's name.
        created: When it was made, as text.
        code_version: Version of the code that made it.
        seed: The run's seed.
        sources: Every corpus and model that went in; at least one, because a card without licences is not a card.

    Raises:
        ConfigError: `sources` is empty.
    """
    if not sources:
        raise ConfigError(
            "a dataset card needs the licences of what went in; got no sources; pass one SourceRow per corpus and model"
        )
    licences = sorted({one.licence for one in sources})
    front = {
        "pretty_name": name,
        "license": "other",
        "license_name": " + ".join(licences),
        "task_categories": ["question-answering", "audio-classification"],
        "tags": ["speech", "paralinguistics", "emotion", "undertone"],
        "size_categories": [_size(facts.pairs)],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {_text(name)}",
        f"{facts.pairs:,} question-answer pairs about {facts.clips:,} clips of speech. Questions ask for what is said, how it is said, "
        f"and for both together. Made by Undertone {_text(code_version)} on {_text(created)} with seed {seed}; the same study file, seed and "
        "inputs give the same table.",
        "## What went in",
        _sources(sources),
        "The pairs inherit the restrictions of every row above; the strictest one decides what may be done with the whole.",
        *_counted("Pairs by kind", "kind", facts.by_kind),
        *_counted("Pairs by source", "source", facts.by_source),
        *_counted("Pairs by emotion", "emotion", facts.by_emotion),
        *_counted("Pairs by split", "split", facts.by_split),
        *_counted("Checks passed", "check", facts.passed),
        *_counted("Dropped", "stage: reason", facts.dropped),
        *_counted("Generators", "generator", facts.generators),
        *_counted("Prompts", "generator: sha256 digest", facts.prompts),
        "## Limits",
        "Emotion, gender and valence/arousal/dominance of pairs from `pqa_star` and `cpqa` are predictions of the labeller and carry its "
        "errors; those of `asr`, `pqa` and `benchmark` come from the corpora. Categories of emotion are what actors or annotators meant, "
        "not what a speaker felt; gender is the two-valued label of the corpora.",
    ]
    return "\n\n".join(parts) + "\n"


def _sorted(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first, ties by name."""
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _counted(title: str, head: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return [f"## {title}", "None."]
    rows = [f"| {_text(name)} | {count:,} |" for name, count in counts.items()]
    return [f"## {title}", "\n".join([f"| {head} | count |", "|---|---:|", *rows])]


def _sources(sources: Sequence[SourceRow]) -> str:
    rows = ["| what | used for | licence | recordings | hours |", "|---|---|---|---:|---:|"]
    for one in sources:
        name = f"[{_text(one.name)}]({one.link})" if one.link else _text(one.name)
        recordings = "" if one.recordings is None else f"{one.recordings:,}"
        hours = "" if one.hours is None else f"{one.hours:.2f}"
        rows.append(f"| {name} | {_text(one.used_for)} | {_text(one.licence)} | {recordings} | {hours} |")
    return "\n".join(rows)


def _size(count: int) -> str:
    """The hub's size category."""
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")):
        if count < limit:
            return name
    return "n>10M"


def _text(value: str) -> str:
    """Text as data in Markdown: no table bars, tags or line breaks of its own."""
    return " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
