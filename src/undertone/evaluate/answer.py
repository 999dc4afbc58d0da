"""Asking as a stage: examples in, a system's answers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import PrivateAttr

from undertone.evaluate.subjects.checkpoint import CheckpointSubject
from undertone.model.features import FeatureCache
from undertone.paths import Location, local_folder
from undertone.records import Answer, Example
from undertone.stages import Context, Failed, Kept, Outcome, Stage


class AnswerStage(Stage[Example, Answer]):
    """Let a checkpoint answer examples; one whose clip was not encoded fails alone.

    `checkpoint_digest` says which weights answer: folders may move, the identity stays.
    """

    name: ClassVar[str] = "answer"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Example]] = Example
    writes: ClassVar[type[Answer]] = Answer
    scope: ClassVar = "part"
    heavy: ClassVar[bool] = True

    checkpoint: Location
    checkpoint_digest: str
    features: Location
    encoder: str
    max_audio_s: float
    max_new_tokens: int = 40

    _subject: CheckpointSubject = PrivateAttr()
    _cache: FeatureCache = PrivateAttr()

    def identity(self) -> dict[str, Any]:
        return {key: value for key, value in super().identity().items() if key not in ("checkpoint", "features")}

    def open(self, context: Context) -> None:
        self._cache = FeatureCache(self.features, encoder=self.encoder, max_audio_s=self.max_audio_s)
        self._subject = CheckpointSubject(local_folder(self.checkpoint), self._cache, max_new_tokens=self.max_new_tokens)

    def process(self, rows: Sequence[Example]) -> Sequence[Outcome[Answer]]:
        able = [row for row in rows if all(clip in self._cache for clip in (*row.earlier, row.clip_id))]
        answers = {answer.pair_id: answer for answer in self._subject.answers(able)}
        lost = Failed(
            "the clip, or one of an earlier turn, was not encoded: its audio failed, see failed.parquet beside its frames"
        )
        return [Kept((answers[row.pair_id],)) if row.pair_id in answers else lost for row in rows]
