"""The labellers `audeering-dim` and `audeering-age-gender`: wav2vec 2.0 with audEERING's own regression heads.

The weights are CC BY-NC-SA 4.0: for research, not for commercial use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax

from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.label.checkpoint import Checkpoint
from undertone.label.embedding import Embedding
from undertone.label.protocol import Category, Scalar, Value, category, labeller
from undertone.records import DIMENSIONS

DIM_MODEL = "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim"
DIM_ORDER = ("arousal", "dominance", "valence")
"""The outputs as the model card and its config.json name them; records have valence first."""

AGE_GENDER_MODEL = "audeering/wav2vec2-large-robust-24-ft-age-gender"
GENDERS = ("female", "male", "child")
"""The outputs of the gender head as audEERING's w2v2-age-gender-how-to names them. Sources differ: a comment in one stored copy of the
model card has "child, female, male". Check a voice that you know before you rely on it."""

DIM_REVISION = "6eba34a2485ea31cb03600241787c3a5edab8626"
"""Pinned by several public projects together with the digest of model.safetensors (661,375,508 bytes)."""
AGE_GENDER_REVISION = "2e430ab28549f99f3bd20c5e7514a60f64be87cf"
"""Named once in public code, as the hub's snapshot that pytorch_model.bin with both heads was loaded from."""

_LICENCE = "CC-BY-NC-SA-4.0"
_YEARS = 100.0  # the age head gives centuries


def pooled_regressor(heads: Mapping[str, int]) -> Any:
    """The class of these checkpoints: wav2vec 2.0, the mean of its last layer over time, and a dense-tanh-projection head for each name.

    Wagner et al. (2023), "Dawn of the transformer era in speech emotion recognition: closing the valence gap", arXiv 2203.07378; keys are
    those of the model cards: wav2vec2.*, and dense and out_proj under each head's name.

    Args:
        heads: Number of outputs by head; the outputs stand one after the other in `logits`, shape (waves, outputs).
    """
    import torch
    from transformers import Wav2Vec2Model, Wav2Vec2PreTrainedModel

    class Head(torch.nn.Module):
        def __init__(self, size: int, outputs: int) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(size, size)
            self.out_proj = torch.nn.Linear(size, outputs)

        def forward(self, pooled: torch.Tensor) -> Any:
            return self.out_proj(torch.tanh(self.dense(pooled)))

    class PooledRegressor(Wav2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.wav2vec2 = Wav2Vec2Model(config)
            for name, outputs in heads.items():
                self.add_module(name, Head(config.hidden_size, outputs))
            self.post_init()  # type: ignore[no-untyped-call]

        def forward(self, input_values: torch.Tensor, attention_mask: torch.LongTensor | None = None) -> SimpleNamespace:
            states = self.wav2vec2(input_values, attention_mask=attention_mask).last_hidden_state
            if attention_mask is None:
                pooled = states.mean(dim=1)
            else:
                frames = self._get_feature_vector_attention_mask(states.shape[1], attention_mask).unsqueeze(-1)
                pooled = (states * frames).sum(dim=1) / frames.sum(dim=1)
            logits = torch.cat([self.get_submodule(name)(pooled) for name in heads], dim=-1)
            return SimpleNamespace(logits=logits, pooled=pooled, states=states)

    return PooledRegressor


def _embedded(labeller: Checkpoint, wave: Wave) -> Embedding:
    """The last layer's states, and their mean, which the heads read."""
    heard = labeller.passed(labeller._loaded.net, wave)
    return Embedding(heard.pooled[0].float().cpu().numpy(), heard.states[0].float().cpu().numpy())


def _bounded(attribute: str, raw: float, unit: float = 1.0) -> Value:
    """The output times its unit, within the scale; the output itself is kept as `distribution` {"raw": ...}."""
    # np.clip lets what is not a number through, to be refused as such; min and max would make it a bound.
    return Value(attribute=attribute, number=float(np.clip(raw, 0.0, 1.0)) * unit, distribution={"raw": raw})


@labeller(
    "audeering-dim",
    version="1",
    emits=[Scalar(name, low=0.0, high=1.0) for name in DIMENSIONS],
    hears="window",
    min_ms=300,
    licence=_LICENCE,
)
class AudeeringDim(Checkpoint):
    """Valence, arousal and dominance by wav2vec2-large-robust (12 layers) tuned on MSP-Podcast 1.7.

    The model gives arousal, dominance and valence (`DIM_ORDER`, checked against config.json), each about 0..1 for MSP's 1..7; clipped
    to 0..1 here, the output before that in `distribution` {"raw": ...}. 16 kHz; trained on utterances of some 3 to 11 s, heard here from
    0.3 s.
    """

    revisions: ClassVar[Mapping[str, str]] = {DIM_MODEL: DIM_REVISION}

    def __init__(self, *, model: str = DIM_MODEL, revision: str | None = None, device: str = "cpu", batch: int = 8) -> None:
        """Store the configuration.

        Args:
            model: A folder or a name on the hub.
            revision: Commit or tag; None takes the pinned one for the default model.
            device: Of torch.
            batch: How many waves run at once.
        """
        super().__init__(model=model, revision=revision, device=device, batch=batch)

    def architecture(self) -> Any:
        return pooled_regressor({"classifier": len(self._order)})

    @property
    def _order(self) -> tuple[str, ...]:
        names = self.model_config.get("id2label") or {}
        order = tuple(names[key] for key in sorted(names, key=int))
        if order != DIM_ORDER:
            raise ModelError(
                f"labeller {self.name!r}: the outputs of {self.model} are {', '.join(order) or 'not named'} (id2label in config.json); "
                f"expected {', '.join(DIM_ORDER)}"
            )
        return order

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        heard = [dict(zip(DIM_ORDER, output.tolist(), strict=True)) for output in self.outputs(waves)]
        return [[_bounded(name, raw[name]) for name in DIMENSIONS] for raw in heard]

    def embed(self, wave: Wave) -> Embedding:
        """1024 numbers of the whole, and as many 50 times a second: the emotion embedding of RE-LLM (2602.10716)."""
        return _embedded(self, wave)


@labeller(
    "audeering-age-gender",
    version="1",
    emits=[Scalar("age", unit="years", low=0.0, high=_YEARS), Category("gender", GENDERS)],
    hears="segment",
    min_ms=300,
    licence=_LICENCE,
)
class AudeeringAgeGender(Checkpoint):
    """Age in years and gender (female, male, child) by wav2vec2-large-robust (24 layers; the variant with 6 loads too).

    The age head gives about 0..1 for 0..100 years; clipped, the output before that in `distribution` {"raw": ...}. The gender head
    gives logits in the order of `GENDERS`, softmax over them here. 16 kHz, heard from 0.3 s. Burkhardt et al. (2023), "Speech-based age
    and gender prediction with transformers", arXiv 2306.16962: mean error 7 to 11 years.
    """

    revisions: ClassVar[Mapping[str, str]] = {AGE_GENDER_MODEL: AGE_GENDER_REVISION}

    def __init__(self, *, model: str = AGE_GENDER_MODEL, revision: str | None = None, device: str = "cpu", batch: int = 4) -> None:
        """Store the configuration.

        Args:
            model: A folder or a name on the hub.
            revision: Commit or tag; None takes the pinned one for the default model.
            device: Of torch.
            batch: How many waves run at once.
        """
        super().__init__(model=model, revision=revision, device=device, batch=batch)

    def architecture(self) -> Any:
        return pooled_regressor({"age": 1, "gender": len(GENDERS)})

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        made = []
        for age, *gender in self.outputs(waves).tolist():
            genders = dict(zip(GENDERS, softmax(gender).tolist(), strict=True))
            made.append([_bounded("age", age, _YEARS), category("gender", genders)])
        return made

    def embed(self, wave: Wave) -> Embedding:
        """1024 numbers of the whole, and as many 50 times a second."""
        return _embedded(self, wave)
