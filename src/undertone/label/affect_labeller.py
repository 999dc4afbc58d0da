"""The labeller `affect-small`: emotion, valence, arousal, dominance, gender and vocal events of a window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from undertone.audio import Wave
from undertone.label.protocol import Category, Labeller, Scalar, Value, abstain, category, labeller, scalar
from undertone.records import DIMENSIONS, EMOTIONS

if TYPE_CHECKING:
    from undertone.label.affect import Abstained, AffectScores, AffectSmall
    from undertone.label.embedding import Embedding


@labeller(
    "affect-small",
    emits=[
        Category("emotion", EMOTIONS),
        *(Scalar(name, low=0.0, high=1.0) for name in DIMENSIONS),
        Category("gender", ("female", "male")),
        Category("event"),
    ],
    hears="window",
)
class AffectLabeller(Labeller):
    """The network that is trained by recipes/affect_small; version, revision and licence are those of its weights."""

    def __init__(self, *, path: str | None = None) -> None:
        """Store the configuration; the weights are loaded with the first wave.

        Args:
            path: Folder of the model; None takes the installed one.
        """
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
    def revision(self) -> str:
        """The digest of the weights."""
        return f"sha256:{self._model.card.sha256[:16]}"

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
        return self.judge_many([wave])[0]

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        return [_values(scores) for scores in self._model.score_many([wave.samples for wave in waves])]

    def embed(self, wave: Wave) -> Embedding:
        """See `AffectSmall.embed`."""
        return self._model.embed(wave.samples)


def _values(scores: AffectScores | Abstained) -> list[Value]:
    from undertone.label.affect import Abstained

    if isinstance(scores, Abstained):
        heard = category("event", scores.event) if scores.event else abstain("event", scores.reason)
        return [*(abstain(name, scores.reason) for name in ("emotion", *DIMENSIONS, "gender")), heard]
    numbers = zip(DIMENSIONS, (scores.valence, scores.arousal, scores.dominance), strict=True)
    return [
        category("emotion", scores.emotion),
        *(scalar(name, number) for name, number in numbers),
        category("gender", scores.gender),
        category("event", scores.event),
    ]
