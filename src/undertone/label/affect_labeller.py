"""The labeller `affect-small`: emotion, valence, arousal and dominance of every two seconds, gender of the segment.

Windows and their context follow the condensation of 2505.13338: 2 s each, heard with 1 s on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undertone.audio import Wave
from undertone.errors import ConfigError
from undertone.label.protocol import Category, Labeller, Scalar, Value, abstain, category, labeller, scalar
from undertone.records import DIMENSIONS, EMOTIONS

if TYPE_CHECKING:
    from undertone.label.affect import AffectScores, AffectSmall

_GENDERS = ("female", "male")


@labeller(
    "affect-small",
    emits=[
        Category("emotion", EMOTIONS),
        *(Scalar(name, low=0.0, high=1.0) for name in DIMENSIONS),
        Category("gender", _GENDERS),
    ],
    min_ms=300,
)
class AffectLabeller(Labeller):
    """Labels each window of a segment; version and licence are those of the weights."""

    def __init__(self, *, window_ms: int = 2_000, context_ms: int = 1_000, path: str | None = None) -> None:
        """Store the configuration; the weights are loaded with the first wave.

        Args:
            window_ms: Length of a window; what remains at the end joins the last window if it is shorter than half of this.
            context_ms: Sound before and after a window that is heard with it, as far as the segment has it.
            path: Folder of the model; None takes the installed one.
        """
        if window_ms <= 0 or context_ms < 0:
            raise ConfigError(f"affect-small: got window_ms {window_ms}, context_ms {context_ms}; expected above 0 and at least 0")
        self.window_ms = window_ms
        self.context_ms = context_ms
        self.path = path

    @cached_property
    def _model(self) -> AffectSmall:
        from undertone.label.affect import AffectSmall

        return AffectSmall(Path(self.path) if self.path is not None else None)

    @property
    def version(self) -> str:  # type: ignore[override]
        """The version of the weights."""
        return self._model.card.version

    @property
    def licence(self) -> str:  # type: ignore[override]
        """The licence of the weights."""
        return self._model.card.licence

    @property
    def heard_speakers(self) -> frozenset[str]:
        """The speakers that the weights were trained on."""
        return self._model.heard_speakers

    @property
    def card(self) -> Path:
        """README.md beside the weights."""
        from undertone.label.affect import find_model

        return find_model(self._model.path) / "README.md"

    def judge(self, wave: Wave) -> Sequence[Value]:
        spans = windows(wave.duration_ms, window_ms=self.window_ms)
        heard = [wave.cut(max(0, start - self.context_ms), end + self.context_ms).samples for start, end in spans]
        values: list[Value] = []
        genders = []
        for (start, end), scores in zip(spans, self._model.score_many(heard), strict=True):
            values += _of_window(scores, start, end)
            if scores is not None:
                genders.append(scores.gender)
        if not genders:
            return [*values, abstain("gender", "no_voice")]
        mean = {name: float(np.mean([one[name] for one in genders])) for name in genders[0]}
        return [*values, category("gender", mean)]


def _of_window(scores: AffectScores | None, start_ms: int, end_ms: int) -> list[Value]:
    if scores is None:
        return [abstain(name, "no_voice", start_ms=start_ms, end_ms=end_ms) for name in ("emotion", *DIMENSIONS)]
    numbers = zip(DIMENSIONS, (scores.valence, scores.arousal, scores.dominance), strict=True)
    return [
        category("emotion", scores.emotion, start_ms=start_ms, end_ms=end_ms),
        *(scalar(name, number, start_ms=start_ms, end_ms=end_ms) for name, number in numbers),
    ]


def windows(total_ms: int, *, window_ms: int) -> list[tuple[int, int]]:
    """Cut a duration into windows without gaps; a remainder shorter than half a window joins the last one."""
    count = max(1, total_ms // window_ms + (2 * (total_ms % window_ms) >= window_ms))
    edges = [index * window_ms for index in range(count)]
    return list(zip(edges, [*edges[1:], total_ms], strict=True))
