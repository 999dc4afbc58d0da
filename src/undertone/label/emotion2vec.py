"""The labeller `emotion2vec`: the nine emotions of emotion2vec+ (seed, base, large), through FunASR's own model class.

Ma et al. (2024), "emotion2vec: Self-Supervised Pre-Training for Speech Emotion Representation", Findings of ACL. What happens around the
network is that of FunASR's inference at granularity "utterance": the wave is normalised as a whole, frames are averaged, then projected.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.label.embedding import Embedding, in_pieces, mean_of
from undertone.label.protocol import Category, Emission, Value, category, labeller
from undertone.label.weights import Weights

CLASSES = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown")
"""As the model card lists them; tokens.txt has "生气/angry", ..., "<unk>", of which we keep the English words."""

REVISIONS = {
    "emotion2vec/emotion2vec_plus_base": "b318240bfe67db81a8c572ecb37ce9c3759b81c9",
    "emotion2vec/emotion2vec_plus_large": "6c303ba987b86b93193de93e34bb2b077a6bedc4",
}
"""Commits on the Hugging Face hub, after the correction of tokens.txt in June 2024; none is known to us for the seed model."""

_CONFIG, _TOKENS, _WEIGHTS = "config.yaml", "tokens.txt", "model.pt"
_LAYER = r"\(\s*\d{1,5}\s*,\s*\d{1,5}\s*,\s*\d{1,5}\s*\)"
_LAYERS = rf"\[\s*{_LAYER}(?:\s*,\s*{_LAYER})*\s*\](?:\s*\*\s*\d{{1,2}})?"
_SIZES = re.compile(rf"\s*{_LAYERS}(?:\s*\+\s*{_LAYERS})*\s*")
"""How a release writes the layers of its feature encoder: "[(512, 10, 5)] + [(512, 3, 2)] * 4"."""
_MOST_MS = 60_000  # heard at once: attention needs heads * frames^2 numbers a wave


class _Loaded(NamedTuple):
    network: Any
    words: list[str | None]  # of each output; None for an output that is not used


@labeller(
    "emotion2vec",
    version="1",
    emits=None,
    hears="window",
    rate_hz=16_000,
    min_ms=300,
    max_ms=30_000,
    licence="model-license (FunASR Model Open Source License Agreement 1.1)",
)
class Emotion2vec(Weights):
    """Emotion of a window. Waves are never padded: the position encoding is a convolution that does not know padding.

    FunASR hears one wave at a time; with `batch` above 1, waves of exactly the same length (most windows) go together. The network takes
    any duration from 25 ms; 0.3 s and 30 s are our own bounds, the upper one for memory.
    """

    packages = ("torch", "funasr", "omegaconf", "kaldiio", "librosa")
    extra = "emotion2vec"
    instead = "affect-small"
    files = ((_CONFIG,), (_TOKENS,), (_WEIGHTS,))
    revisions: ClassVar[Mapping[str, str]] = REVISIONS

    def __init__(
        self,
        *,
        model: str = "emotion2vec/emotion2vec_plus_base",
        revision: str | None = None,
        device: str = "cpu",
        batch: int = 1,
    ) -> None:
        """Store the configuration; FunASR and the weights are loaded with the first wave.

        Args:
            model: A folder with config.yaml, tokens.txt and model.pt as ModelScope (iic/emotion2vec_plus_*) and the Hugging Face hub
                have them, or a name on the latter.
            revision: Commit of a hub's model; None takes the fixed one of plus_base and plus_large.
            device: As torch names it.
            batch: Most waves at once; on a CPU one at a time is fastest.
        """
        super().__init__(model=model, revision=revision, device=device, batch=batch)

    @property
    def emits(self) -> Sequence[Emission]:  # type: ignore[override]
        """The classes of tokens.txt in a local folder, without outputs marked "unuse"; the nine of the card for a hub's model."""
        tokens = Path(self.model).expanduser() / _TOKENS
        words = _words(tokens) if tokens.is_file() else CLASSES
        return [Category("emotion", tuple(word for word in words if word is not None))]

    def load(self) -> _Loaded:
        device = self.torch_device()
        with self.fetching():
            folder = Path(self.place)
            if not self.local:
                from huggingface_hub import snapshot_download

                folder = Path(snapshot_download(self.model, revision=self.pin, allow_patterns=[_CONFIG, _TOKENS, _WEIGHTS]))
            words = _words(folder / _TOKENS)
            network = _network(self.name, folder, outputs=len(words))
        return _Loaded(network.to(device), words)

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        answers: list[list[Value]] = []
        for _, group in itertools.groupby(waves, key=lambda wave: len(wave.samples)):
            equal = list(group)
            step = max(1, min(self.batch, _MOST_MS // max(1, equal[0].duration_ms)))
            for first in range(0, len(equal), step):
                answers += self._judged(equal[first : first + step])
        return answers

    def _judged(self, equal: Sequence[Wave]) -> list[list[Value]]:
        """Answers for waves of one length."""
        import torch

        network, words = self._loaded
        with torch.inference_mode():
            logits = network.proj(self._frames(equal).mean(dim=1))
            logits[:, [index for index, word in enumerate(words) if word is None]] = -torch.inf
            rows = logits.softmax(dim=-1).tolist()
        return [[category("emotion", {word: p for word, p in zip(words, row, strict=True) if word is not None})] for row in rows]

    def embed(self, wave: Wave) -> Embedding:
        """Frames, 50 a second, and their mean; beyond `max_ms` in pieces."""

        def embedded(piece: Wave) -> Embedding:
            return mean_of(self._frames([piece])[0].float().cpu().numpy())

        return in_pieces(wave, embedded, longest_ms=self.max_ms)

    def _frames(self, equal: Sequence[Wave]) -> Any:
        """Features (waves, T, D) of waves of one length."""
        import torch
        from torch.nn.functional import layer_norm

        network, _ = self._loaded
        with torch.inference_mode():
            source = torch.from_numpy(np.stack([wave.samples for wave in equal])).to(self.device)
            if network.cfg.normalize:
                source = layer_norm(source, source.shape[1:])
            frames = network.extract_features(source, padding_mask=None)["x"]
            network.alibi_biases.clear()  # a cache that would keep the largest square of frames ever heard
        return frames


def _words(tokens: Path) -> list[str | None]:
    lines = [line.strip() for line in tokens.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [None if line.startswith("unuse") else "unknown" if line == "<unk>" else line.split("/")[-1] for line in lines]


def _network(labeller: str, folder: Path, *, outputs: int) -> Any:
    """FunASR's model of a released folder, with every weight from its checkpoint, in evaluation mode.

    FunASR's own loader leaves random what a checkpoint lacks, and prints; here it is an error.
    """
    import torch

    config = importlib.import_module("omegaconf").OmegaConf.load(folder / _CONFIG)
    if config.get("model") != "Emotion2vec" or "model_conf" not in config:
        raise ModelError(f"labeller {labeller!r}: {folder / _CONFIG} is of model {config.get('model')!r}, expected 'Emotion2vec'")
    _check_sizes(labeller, folder / _CONFIG, config.model_conf)
    with _quietly():
        network = importlib.import_module("funasr.models.emotion2vec.model").Emotion2vec(
            model_conf=config.model_conf, vocab_size=outputs
        )
    encoder = network.modality_encoders["AUDIO"]
    encoder.remove_pretraining_modules()
    stored = torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):
        stored = stored.get(key, stored)
    state = {name.removeprefix("d2v_model."): tensor for name, tensor in stored.items()}
    encoder.upgrade_state_dict_named(state, "modality_encoders.AUDIO")
    wanted = network.state_dict()
    unfit = [name for name, tensor in wanted.items() if name not in state or state[name].shape != tensor.shape]
    unfit += [name for name in state if name.startswith("blocks.") and name not in wanted]  # deeper than its configuration says
    if unfit:
        raise ModelError(
            f"labeller {labeller!r}: in {folder}, {len(unfit)} of {len(wanted)} weights are missing or do not fit {_CONFIG} and the "
            f"{outputs} classes of {_TOKENS}: {', '.join(unfit[:4])}; expected the three files of one emotion2vec+ release"
        )
    network.load_state_dict({name: state[name] for name in wanted})
    return network.eval()


def _check_sizes(labeller: str, file: Path, settings: Any) -> None:
    """Raise ModelError where the sizes of the feature encoder are anything but numbers: FunASR runs them as Python."""
    sizes = settings.get("modalities", {}).get("audio", {}).get("feature_encoder_spec")
    if not isinstance(sizes, str) or not _SIZES.fullmatch(sizes):
        raise ModelError(
            f"labeller {labeller!r}: {file}: feature_encoder_spec: got {str(sizes)[:80]!r}, expected sizes such as "
            "'[(512, 10, 5)] + [(512, 3, 2)] * 4'; FunASR would run it as code"
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """FunASR imports all of its modules at once, prints what each of them lacks, and gives the root logger a handler."""
    handlers = list(logging.root.handlers)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.root.handlers[:] = handlers
