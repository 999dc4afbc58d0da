"""The labeller `audio-classification`: any audio classifier of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.special import expit, softmax

from undertone.audio import Wave
from undertone.errors import ConfigError, ModelError
from undertone.label.checkpoint import Checkpoint, Floats
from undertone.label.embedding import Embedding, in_pieces, mean_of
from undertone.label.protocol import Category, Value, abstain, category, labeller

Activation = Literal["softmax", "sigmoid"]
_WHISPER_MS = 20


@labeller("audio-classification", version="1", emits=None, hears="window", min_ms=300)
class AudioClassification(Checkpoint):
    """What a Wav2Vec2, WavLM, HuBERT, Whisper, AST or other `AutoModelForAudioClassification` says, in its own class words.

    Label set: the `id2label` of config.json. Scale: probabilities, over all classes (softmax) or of each by itself (sigmoid). Valid
    duration: from `min_ms`; up to what the feature extractor hears, where that is bounded (Whisper 30 s, AST 10 s), abstaining above.
    Licence: that of the model chosen; say it in `licence`.

    Sounds and vocal events: AST on the 527 classes of AudioSet, e.g. model "MIT/ast-finetuned-audioset-10-10-0.4593" (BSD-3-Clause) at
    revision "f826b80d28226b62986cc218e5cec390b1096902" with attribute "event". PANNs are trained on the same classes, but their CNNs are
    no transformers checkpoints and do not load here. AST's features come from transformers' own numpy code where torchaudio is absent.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        attribute: str = "emotion",
        activation: Activation | None = None,
        hears: Literal["window", "segment"] = "window",
        rate_hz: int = 16_000,
        min_ms: int = 300,
        licence: str | None = None,
        device: str = "cpu",
        batch: int = 8,
    ) -> None:
        """Store the configuration.

        Args:
            model: A folder or a name on the hub.
            revision: Commit or tag, needed for a name.
            attribute: What the classes are of: "emotion", "gender", "age", "accent", "event", ...
            activation: How outputs become probabilities; None takes sigmoid where the configuration says that several classes can hold at
                once (problem_type) or the model is an AST of AudioSet (trained so, though its configuration does not say it).
            hears: "window", or "segment" for what does not change while one person speaks (gender, age).
            rate_hz: The model's sampling rate.
            min_ms: Shorter waves are abstained on; 25 at least, one frame of all these models.
            licence: Of the weights.
            device: Of torch.
            batch: How many waves run at once.
        """
        super().__init__(model=model, revision=revision, device=device, batch=batch)
        if min_ms < 25:
            raise ConfigError(f"labeller {self.name!r}: min_ms: got {min_ms}, expected at least 25")
        self.attribute = attribute
        self.activation = activation
        self.hears = hears
        self.rate_hz = rate_hz
        self.min_ms = min_ms
        self.licence = licence

    def architecture(self) -> Any:
        from transformers import AutoModelForAudioClassification

        return AutoModelForAudioClassification

    @property
    def emits(self) -> Sequence[Category]:  # type: ignore[override]
        """The model's classes, in the order of its outputs."""
        return [Category(self.attribute, self._classes)]

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        # transformers leaves the two default names out of config.json.
        names: Mapping[str, str] = self.model_config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
        classes = tuple(names[key] for key in sorted(names, key=int))
        if len(classes) < 2 or len(set(classes)) < len(classes) or self.model_config.get("problem_type") == "regression":
            raise ModelError(
                f"labeller {self.name!r}: {self.model} is no classifier of different classes (problem_type "
                f"{self.model_config.get('problem_type')}, id2label {', '.join(classes)}); expected two classes at least, each named once"
            )
        return classes

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        reach_ms = self._reach_ms
        outputs = iter(self.outputs([wave for wave in waves if reach_ms is None or wave.duration_ms <= reach_ms]))
        return [
            [
                abstain(self.attribute, "too_long")
                if reach_ms is not None and wave.duration_ms > reach_ms
                else self._value(next(outputs))
            ]
            for wave in waves
        ]

    def embed(self, wave: Wave) -> Embedding:
        """The last hidden states under the classifier and their mean; of an AST what it pools, and no frames, for its patches lie in time
        and in frequency.
        """
        return in_pieces(wave, self._embedded, longest_ms=self._reach_ms)

    def _embedded(self, wave: Wave) -> Embedding:
        net, _ = self._loaded
        whisper = net.config.model_type == "whisper"
        heard = self.passed(net.encoder if whisper else net.base_model, wave)
        if net.config.model_type == "audio-spectrogram-transformer":
            return Embedding(heard.pooler_output[0].float().cpu().numpy())
        states = heard.last_hidden_state[0].float().cpu().numpy().astype(np.float32)
        # Whisper's reach beyond the wave, over what it is padded with; 20 ms each.
        return mean_of(states[: -(-wave.duration_ms // _WHISPER_MS)] if whisper else states)

    @property
    def _reach_ms(self) -> int | None:
        """What lies beyond is cut off by the feature extractor: a label would claim sound that nobody heard."""
        extractor, kind = self._loaded.extractor, self.model_config["model_type"]
        if kind == "whisper":
            return int(1000 * extractor.chunk_length)
        return 10 * int(extractor.max_length) if kind == "audio-spectrogram-transformer" else None  # frames of 10 ms

    def _value(self, output: Floats) -> Value:
        scores = expit(output) if self._independent else softmax(output)
        return category(self.attribute, dict(zip(self._classes, scores.tolist(), strict=True)))

    @cached_property
    def _independent(self) -> bool:
        """Whether each class has a probability of its own."""
        if self.activation is not None:
            return self.activation == "sigmoid"
        audioset = self.model_config["model_type"] == "audio-spectrogram-transformer" and {"Speech", "Music"} <= set(self._classes)
        return audioset or self.model_config.get("problem_type") == "multi_label_classification"
