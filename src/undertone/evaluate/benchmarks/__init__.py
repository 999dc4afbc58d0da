"""Published benchmarks as definitions: one file each, opening with a row of its native format.

    benchmark = made({"name": "cp-bench-long", "path": "data/cp-bench-long"})
    content = benchmark.read(out)                      # recordings, clips and pairs, as a study's own
    judge = benchmark.judge(LLMJudge(endpoint="...", model="..."))
    print(summary(benchmark, content.pairs, answers, verdicts).plain_text())

A study names one in place of the questions about its own test clips: `evaluate: {benchmark: {name: ..., path: ...}}`. A new one is a class
with `read`, `figures` and, where it differs, `scoring` (protocol.py), added to `AnyBenchmark`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from undertone.errors import ConfigError
from undertone.evaluate.benchmarks.audiobench import AudioBench
from undertone.evaluate.benchmarks.class_judge import ClassJudge
from undertone.evaluate.benchmarks.cp_bench import CpBench
from undertone.evaluate.benchmarks.cpqa import Cpqa
from undertone.evaluate.benchmarks.esd import Esd
from undertone.evaluate.benchmarks.figures import Summary, summary
from undertone.evaluate.benchmarks.iemocap import Iemocap
from undertone.evaluate.benchmarks.msp_podcast import MspPodcast
from undertone.evaluate.benchmarks.protocol import Benchmark, Content

__all__ = [
    "BENCHMARKS",
    "AnyBenchmark",
    "AudioBench",
    "Benchmark",
    "ClassJudge",
    "Content",
    "CpBench",
    "Cpqa",
    "Esd",
    "Iemocap",
    "MspPodcast",
    "Summary",
    "describe",
    "made",
    "summary",
]

AnyBenchmark = Annotated[Cpqa | CpBench | AudioBench | Iemocap | Esd | MspPodcast, Field(discriminator="name")]
"""A benchmark as a study names it."""

_ADAPTER: TypeAdapter[Benchmark] = TypeAdapter(AnyBenchmark)

BENCHMARKS: Mapping[str, type[Benchmark]] = {
    name: one
    for one in (Cpqa, CpBench, AudioBench, Iemocap, Esd, MspPodcast)
    for name in get_args(one.model_fields["name"].annotation)
}
"""Every definition by name."""


def made(settings: Mapping[str, Any]) -> Benchmark:
    """A definition from its settings.

    Raises:
        ConfigError: There is none of that name, or a setting is wrong.
    """
    name = settings.get("name")
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    try:
        return _ADAPTER.validate_python(dict(settings))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'settings'}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"benchmark {name}: {problems}") from error


def describe(name: str) -> str:
    """What a definition says, and how a study names it.

    Raises:
        ConfigError: There is none of that name.
    """
    one = made({"name": name, "path": f"data/{name}"})
    return f"{one.describe()}\nIn a study: evaluate: {{benchmark: {{name: {name}, path: FOLDER}}}}"
