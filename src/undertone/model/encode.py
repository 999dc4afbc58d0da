"""The frozen half of the model, once per clip: clips in, frames on disk, shared by all systems of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from undertone.model.config import EncoderConfig, NuanceConfig
from undertone.model.encoders import Encoder, load_encoder, load_inputs
from undertone.model.features import FeatureCache, clip_frames
from undertone.model.nuance import with_nuance
from undertone.records import Clip, Record
from undertone.stages import Context, Kept, Outcome, Stage


class Encoded(Record):
    """A clip's frames are on disk: `frames` rows of `width` numbers, made by `encoder` (its fingerprint)."""

    clip_id: str
    frames: int = Field(ge=0)
    width: int = Field(gt=0)
    encoder: str

    @property
    def id(self) -> str:
        return f"{self.clip_id}:{self.encoder}"


class EncodeStage(Stage[Clip, Encoded]):
    """Encode every clip; the frames go beside the table, under `FeatureCache`'s layout.

    `inputs` is `SpeechLLMConfig.encoder_inside`: what the encoder reads is stored in place of frames, for a model that trains it. With
    `nuance` an emotion encoder's embeddings stand beside either.
    """

    name: ClassVar[str] = "encode"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Clip]] = Clip
    writes: ClassVar[type[Encoded]] = Encoded
    batch_rows: ClassVar[int] = 1
    heavy: ClassVar[bool] = True

    encoder: EncoderConfig = EncoderConfig.affect_small()
    max_audio_s: float = Field(default=30.0, gt=0)
    inputs: bool = False
    nuance: NuanceConfig | None = None

    _encoder: Encoder = PrivateAttr()
    _cache: FeatureCache = PrivateAttr()

    def open(self, context: Context) -> None:
        self._encoder = self._load()
        self._cache = FeatureCache(context.out_dir, encoder=self._encoder.fingerprint, max_audio_s=self.max_audio_s)

    def identity(self) -> dict[str, Any]:
        # The name of a local model says nothing of its content.
        # `inputs` and `nuance` are left to it, so that frames that were made before there was a choice stay valid.
        rest = {key: value for key, value in super().identity().items() if key not in ("inputs", "nuance")}
        return {**rest, "fingerprint": self._load().fingerprint}

    def process(self, rows: Sequence[Clip]) -> Sequence[Outcome[Encoded]]:
        return [Kept((self._encode(row),)) for row in rows]

    def _load(self) -> Encoder:
        return with_nuance(load_inputs(self.encoder) if self.inputs else load_encoder(self.encoder), self.nuance)

    def _encode(self, clip: Clip) -> Encoded:
        if clip.id not in self._cache:
            self._cache.put(clip.id, clip_frames(clip, self._encoder, max_audio_s=self.max_audio_s))
        frames = self._cache[clip.id]
        return Encoded(clip_id=clip.id, frames=frames.shape[0], width=self._encoder.dim, encoder=self._encoder.fingerprint)
