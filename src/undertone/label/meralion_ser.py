"""The labeller `meralion-ser`: emotion, valence, arousal and dominance by MERaLiON-SER-v1, a Whisper-medium encoder with its own head.

Sailor et al. (2025), "MERaLiON-SER: Robust Speech Emotion Recognition Model for English and SEA Languages", arXiv 2511.04914. The model's
code comes with its weights, so it runs only where the configuration says `trust_remote_code: true`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from undertone.audio import Wave
from undertone.errors import ConfigError, ModelError
from undertone.label.checkpoint import WEIGHT_FILES, read_config, without_progress
from undertone.label.embedding import Embedding, in_pieces
from undertone.label.protocol import Category, Emission, Scalar, Value, category, labeller, scalar
from undertone.label.weights import Weights

CLASSES = ("Neutral", "Happy", "Sad", "Angry", "Fearful", "Disgusted", "Surprised")
"""Of the model card, in the order of `logits`; the words of the checkpoint's own `id2label` go before these."""

ORDER = ("valence", "arousal", "dominance")
"""Of `dims`, each already in 0..1 (a sigmoid)."""

_FRAME_MS = 20
"""Of Whisper's encoder."""

_MODEL = "MERaLiON/MERaLiON-SER-v1"
_REVISION = "7e3ee6fa4534dea8316e8ca43e377e2fbb58496b"  # as a public project pins it; we could not look at the hub ourselves


class _Loaded(NamedTuple):
    network: Any
    extractor: Any
    classes: tuple[str, ...]


@labeller(
    "meralion-ser",
    version="1",
    emits=None,
    hears="window",
    rate_hz=16_000,
    min_ms=300,
    max_ms=30_000,
    licence="MERaLiON Public Licence (SER V1)",
)
class MeralionSer(Weights):
    """Seven emotions and the three dimensions of a window of up to 30 s, to which every wave is padded; 0.3 s is our own lower bound.

    English, Mandarin, Malay, Tamil, and to a lesser degree other languages of South-East Asia.
    """

    packages = ("torch", "transformers", "safetensors")
    instead = "affect-small"
    files = (("config.json",), WEIGHT_FILES)
    revisions: ClassVar[Mapping[str, str]] = {_MODEL: _REVISION}

    def __init__(
        self,
        *,
        model: str = _MODEL,
        revision: str | None = None,
        trust_remote_code: bool = False,
        whisper: str | None = None,
        device: str = "cpu",
        batch: int = 1,
    ) -> None:
        """Store the configuration; code and weights are loaded with the first wave.

        Args:
            model: A folder as the hub has it (config.json, preprocessor_config.json, weights, Python files), or a name on the hub.
            revision: Commit of a hub's model, for weights and code; None takes the fixed one of the default model.
            trust_remote_code: Whether the Python files of the model may run; the model does not load without.
            whisper: Folder with the config.json of openai/whisper-medium, which the released code otherwise asks the hub for.
            device: As torch names it.
            batch: Most waves at once.
        """
        super().__init__(model=model, revision=revision, device=device, batch=batch)
        self.trust_remote_code = trust_remote_code
        self.whisper = whisper

    @cached_property
    def emits(self) -> Sequence[Emission]:  # type: ignore[override]
        """The classes of config.json, and the dimensions; runs no code of the model."""
        config = read_config(self)
        named = {int(index): str(word) for index, word in (config.get("id2label") or {}).items()}
        if any(word.startswith("LABEL_") for word in named.values()):
            named = {}
        classes = tuple(named[index] for index in sorted(named)) or CLASSES
        return [Category("emotion", classes), *(Scalar(name, low=0.0, high=1.0) for name in ORDER)]

    def check(self) -> None:
        if not self.trust_remote_code:
            raise ConfigError(
                f"labeller {self.name!r}: {self.model} brings Python code of its own, and trust_remote_code is false; read that code, then "
                f"allow it: label: {{labellers: [{{use: {type(self).name}, config: {{trust_remote_code: true}}}}]}}"
            )
        super().check()

    def load(self) -> _Loaded:
        device = self.torch_device()
        (emotion, *_dimensions) = self.emits
        with self.fetching(), without_progress(), _logspace_on_cpu():
            network, extractor = self._fetched()
        return _Loaded(network.to(device).eval(), extractor, emotion.classes if isinstance(emotion, Category) else ())

    def _fetched(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        pin = None if self.local else self.pin
        asked: dict[str, Any] = {"trust_remote_code": True, "revision": pin, "code_revision": pin}
        network, told = AutoModelForAudioClassification.from_pretrained(
            self.place,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed, and refused below
            **asked,
            **({} if self.whisper is None else {"whisper_name": self.whisper}),
        )
        unfit = sorted({*told["missing_keys"], *(name for name, *_shapes in told["mismatched_keys"])})
        if unfit:
            raise ModelError(
                f"labeller {self.name!r}: in the checkpoint of {self.model}, {len(unfit)} weights are missing or have another shape: "
                f"{', '.join(unfit[:4])}; expected the files of one MERaLiON-SER release"
            )
        untyped: Any = AutoFeatureExtractor
        return network, untyped.from_pretrained(self.place, **asked)

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        return [answer for first in range(0, len(waves), self.batch) for answer in self._judged(waves[first : first + self.batch])]

    def _judged(self, waves: Sequence[Wave]) -> list[list[Value]]:
        told, classes = self._told(waves), self._loaded.classes
        rows = zip(told["logits"].softmax(dim=-1).tolist(), told["dims"].tolist(), strict=True)
        return [
            [
                category("emotion", dict(zip(classes, chances, strict=True))),
                *(scalar(name, number) for name, number in zip(ORDER, dims, strict=True)),
            ]
            for chances, dims in rows
        ]

    def embed(self, wave: Wave) -> Embedding:
        """What the layer that gives the classes reads, and the states of the Whisper encoder, 50 a second. Beyond `max_ms` in pieces.

        The released code names neither in its outputs: they are read where they pass by, so that another release may name its layers
        as it likes.
        """
        return in_pieces(wave, self._embedded, longest_ms=self.max_ms)

    def _embedded(self, wave: Wave) -> Embedding:
        from torch import nn
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        network = self._loaded.network
        read: list[tuple[Any, Any]] = []
        states: list[Any] = []
        hooks = []
        for one in network.modules():
            if isinstance(one, WhisperEncoder):
                hooks.append(one.register_forward_hook(lambda _module, _given, made: states.append(made[0])))
            elif isinstance(one, nn.Linear):
                hooks.append(one.register_forward_hook(lambda _module, given, made: read.append((given[0], made))))
        try:
            logits = self._told([wave])["logits"]
        finally:
            for hook in hooks:
                hook.remove()
        found = [given for given, made in read if made.shape == logits.shape and bool((made == logits).all())]
        if not found:
            raise ModelError(
                f"labeller {self.name!r}: {self.model} has no linear layer that gives its classes, so that nobody knows what its embedding "
                "is; expected a release of MERaLiON-SER. For embeddings use another labeller, such as audeering-dim"
            )
        frames = None
        if states:
            # Behind the wave the encoder heard padding; 20 ms each.
            frames = states[-1][0, : -(-wave.duration_ms // _FRAME_MS)].float().cpu().numpy()
        return Embedding(found[-1][0].float().cpu().numpy(), frames)

    def _told(self, waves: Sequence[Wave]) -> Any:
        """The network's outputs."""
        import torch

        network, extractor, classes = self._loaded
        # Padding to the full 30 s, whatever the others in the batch are: pooling sees all frames, so their number must not vary.
        inputs = extractor(
            [wave.samples for wave in waves],
            sampling_rate=self.rate_hz,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            told = network(
                input_features=inputs["input_features"].to(self.device), attention_mask=inputs["attention_mask"].to(self.device)
            )
            shapes = {name: tuple(told[name].shape) if name in told else None for name in ("logits", "dims")}
            wanted = {"logits": (len(waves), len(classes)), "dims": (len(waves), len(ORDER))}
            if shapes != wanted:
                raise ModelError(f"labeller {self.name!r}: {self.model} gave outputs of shapes {shapes}, expected {wanted}")
        return told


@contextmanager
def _logspace_on_cpu() -> Iterator[None]:
    """The released code reads numbers out of `torch.logspace` while transformers 5 builds models without data.

    Transformers does the same for `torch.linspace` (`initialization.meta_device_safe_creation_ops`).
    """
    import torch

    original = torch.logspace

    def on_cpu(*args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.setdefault("device", "cpu")
        made: torch.Tensor = original(*args, **kwargs)
        return made

    torch.logspace = on_cpu
    try:
        yield
    finally:
        torch.logspace = original
