"""The strategies that an LLM carries out, by name; what the grammar writes by itself stands in `grammar.STRATEGY_KINDS`.

Those that are `offline` are carried out by `offline.OfflineGenerator` where no LLM is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from undertone.generate.protocol import Strategy
from undertone.generate.strategies.continuation import Continuation
from undertone.generate.strategies.cpqa import CPQA, Benchmark, PQAStar
from undertone.generate.strategies.dialogue import Dialogue
from undertone.generate.strategies.dual_think import DualThinkStrategy
from undertone.generate.strategies.multi_turn import MultiTurn
from undertone.generate.strategies.self_generated import SelfGenerated

STRATEGIES: Mapping[str, type[Strategy]] = MappingProxyType(
    {one.name: one for one in (CPQA, PQAStar, Benchmark, SelfGenerated, Continuation, DualThinkStrategy, Dialogue, MultiTurn)}
)
"""Name in a study -> strategy; the first line of its docstring says what it is."""
