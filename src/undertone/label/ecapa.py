"""The labeller `ecapa-gender`: an ECAPA-TDNN with two outputs, over the released weights of JaesungHuh/voice-gender-classifier.

The network is Desplanques et al. (2020), "ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in TDNN Based Speaker
Verification", Interspeech, with the front end that those weights were trained with. It is written here over the state dict itself, with
masks, so that several waves can be heard at once and each is heard as if alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.label.protocol import Category, Value, category, labeller
from undertone.label.weights import Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GENDERS = ("male", "female")
"""In the order of the model's outputs."""

_MODEL = "JaesungHuh/voice-gender-classifier"
_REVISION = "db1222153bd60337e900be22add7af180452adc0"  # pinned by two public projects; its model.safetensors has 61,907,512 bytes
_FILES = ("model.safetensors", "pytorch_model.bin")

RATE_HZ = 16_000
_FFT, _WINDOW, _HOP = 512, 400, 160
_MELS, _LOW_HZ, _HIGH_HZ = 80, 20.0, 7_600.0
_PARTS = 8  # Res2Net scale
_DILATIONS = {"layer1": 2, "layer2": 3, "layer3": 4}
_POOLED, _ATTENTION, _EMBEDDING = 1_536, 256, 192
_LEAST_VARIANCE = 1e-4
_MOST_MS = 120_000  # heard at once, padding included: about 1 GB


@labeller(
    "ecapa-gender",
    version="1",
    emits=[Category("gender", GENDERS)],
    rate_hz=RATE_HZ,
    min_ms=300,
    max_ms=60_000,
    licence="MIT",
)
class EcapaGender(Weights):
    """Gender of a segment's speaker, classes "male" and "female" as the weights have them, trained on VoxCeleb2 (98.7 % on VoxCeleb1).

    Any duration works; 0.3 s and 60 s are our own bounds. The authors warn that VoxCeleb does not stand for all people.
    """

    packages = ("torch", "safetensors")
    instead = "affect-small"
    files = (_FILES,)
    revisions: ClassVar[Mapping[str, str]] = {_MODEL: _REVISION}

    def __init__(self, *, model: str = _MODEL, revision: str | None = None, device: str = "cpu", batch: int = 1) -> None:
        """Store the configuration; the weights are loaded with the first wave.

        Args:
            model: A folder with model.safetensors or pytorch_model.bin, such a file itself, or a name on the Hugging Face hub.
            revision: Commit of a hub's model; None takes the fixed one of the default model.
            device: As torch names it.
            batch: Most waves at once; on a CPU one at a time is fastest.
        """
        super().__init__(model=model, revision=revision, device=device, batch=batch)

    def load(self) -> Ecapa:
        device = self.torch_device()
        with self.fetching():
            network = Ecapa(self._state(), labeller=self.name, source=self.model)
        return network.to(device)

    def _state(self) -> dict[str, Tensor]:
        path = Path(self.place)
        if not self.local:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(self.model, _FILES[0], revision=self.pin))
        file = path if path.is_file() else next(path / name for name in _FILES if (path / name).is_file())
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        import torch

        return dict(torch.load(file, map_location="cpu", weights_only=True))

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        if not waves:
            return []
        step = max(1, min(self.batch, _MOST_MS // max(1, *(wave.duration_ms for wave in waves))))
        rows: list[list[float]] = []
        for first in range(0, len(waves), step):
            rows += self._loaded.probabilities([wave.samples for wave in waves[first : first + step]])
        return [[category("gender", dict(zip(GENDERS, row, strict=True)))] for row in rows]


class Ecapa:
    """The network over a state dict with the released names, for evaluation only.

    Args:
        weights: By name; `expected_shapes` lists them. Counters of batches and other extras are ignored.
        labeller: That it works for, for messages.
        source: Of the weights, for messages.

    Raises:
        ModelError: Weights are missing or have other shapes; the message names them.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, labeller: str, source: str) -> None:
        first = weights.get("conv1.weight")
        wanted = expected_shapes(1_024 if first is None else len(first))
        unfit = [name for name, shape in wanted.items() if name not in weights or tuple(weights[name].shape) != shape]
        if unfit:
            found = {name: tuple(weights[name].shape) if name in weights else "missing" for name in unfit}
            listed = ", ".join(f"{name} ({found[name]}, expected {wanted[name]})" for name in unfit[:4])
            raise ModelError(
                f"labeller {labeller!r}: {source} is not this ECAPA-TDNN: {len(unfit)} of {len(wanted)} weights do not fit: {listed}; "
                f"expected the state dict of {_MODEL}"
            )
        # Copied: in a mapped file weights lie anywhere, and the last digit of a product depends on their alignment.
        self._weights = {name: weights[name].clone().float() for name in wanted}

    def to(self, device: torch.device) -> Ecapa:
        """The same network with its weights on a device."""
        self._weights = {name: weight.to(device) for name, weight in self._weights.items()}
        return self

    def probabilities(self, waves: Sequence[npt.NDArray[np.float32]]) -> list[list[float]]:
        """Softmax over the two outputs for each wave, in the order of `GENDERS`."""
        import torch

        with torch.inference_mode():
            mels = [log_mel(wave) for wave in waves]
            frames = torch.tensor([mel.shape[1] for mel in mels])
            padded = torch.nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
            mask = (torch.arange(padded.shape[2])[None, None] < frames[:, None, None]).float()
            device = self._weights["fc7.weight"].device
            rows: list[list[float]] = self._logits(padded.to(device), mask.to(device)).softmax(dim=1).tolist()
        return rows

    def _logits(self, mel: Tensor, mask: Tensor) -> Tensor:
        """From log-mel frames (batch, 80, frames), zero where `mask` (batch, 1, frames) is, to (batch, 2)."""
        import torch

        x = self._norm("bn1", self._conv("conv1", mel).relu())
        layers: list[Tensor] = []
        for name, dilation in _DILATIONS.items():
            layers.append(self._block(name, sum(layers, start=x), mask, dilation))
        x = self._conv("layer4", torch.cat(layers, dim=1)).relu()
        count = mask.sum(dim=2, keepdim=True)
        mean = (x * mask).sum(dim=2, keepdim=True) / count
        variance = ((x - mean) * mask).square().sum(dim=2, keepdim=True) / (count - 1)
        spread = variance.clamp(min=_LEAST_VARIANCE).sqrt()
        score = self._conv("attention.0", torch.cat([x, mean.expand_as(x), spread.expand_as(x)], dim=1)).relu()
        score = self._conv("attention.4", self._norm("attention.2", score).tanh())
        share = score.masked_fill(mask == 0, -torch.inf).softmax(dim=2)
        centre = (x * share).sum(dim=2)
        width = ((x.square() * share).sum(dim=2) - centre.square()).clamp(min=_LEAST_VARIANCE).sqrt()
        embedding = self._norm("bn6", self._linear("fc6", self._norm("bn5", torch.cat([centre, width], dim=1))))
        return self._linear("fc7", embedding.relu())

    def _block(self, name: str, x: Tensor, mask: Tensor, dilation: int) -> Tensor:
        """Dilated Res2Net block with squeeze and excitation; what lies beyond a wave's end is zero for every wide convolution."""
        import torch

        parts = list(self._norm(f"{name}.bn1", self._conv(f"{name}.conv1", x).relu()).chunk(_PARTS, dim=1))
        for index in range(_PARTS - 1):
            heard = parts[index] if index == 0 else parts[index] + parts[index - 1]
            told = self._conv(f"{name}.convs.{index}", heard * mask, dilation=dilation).relu()
            parts[index] = self._norm(f"{name}.bns.{index}", told)
        y = self._norm(f"{name}.bn3", self._conv(f"{name}.conv3", torch.cat(parts, dim=1)).relu())
        squeezed = (y * mask).sum(dim=2, keepdim=True) / mask.sum(dim=2, keepdim=True)
        gate = self._conv(f"{name}.se.se.3", self._conv(f"{name}.se.se.1", squeezed).relu()).sigmoid()
        return y * gate + x

    def _conv(self, name: str, x: Tensor, *, dilation: int = 1) -> Tensor:
        from torch.nn import functional

        weight = self._weights[f"{name}.weight"]
        padding = dilation * (weight.shape[2] // 2)
        return functional.conv1d(x, weight, self._weights[f"{name}.bias"], padding=padding, dilation=dilation)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        from torch.nn import functional

        mean, variance, scale, shift = (self._weights[f"{name}.{one}"] for one in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, variance, scale, shift)


def expected_shapes(channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights, as released for 1,024 channels.

    >>> len(expected_shapes(1_024)), expected_shapes(1_024)["fc7.weight"]
    (202, (2, 192))
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def affine(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    def norm(name: str, size: int) -> None:
        affine(name, size)
        shapes[f"{name}.running_mean"] = shapes[f"{name}.running_var"] = (size,)

    part = channels // _PARTS
    affine("conv1", channels, _MELS, 5)
    norm("bn1", channels)
    for layer in _DILATIONS:
        for one in ("1", "3"):
            affine(f"{layer}.conv{one}", channels, channels, 1)
            norm(f"{layer}.bn{one}", channels)
        for index in range(_PARTS - 1):
            affine(f"{layer}.convs.{index}", part, part, 3)
            norm(f"{layer}.bns.{index}", part)
        affine(f"{layer}.se.se.1", 128, channels, 1)
        affine(f"{layer}.se.se.3", channels, 128, 1)
    affine("layer4", _POOLED, 3 * channels, 1)
    affine("attention.0", _ATTENTION, 3 * _POOLED, 1)
    norm("attention.2", _ATTENTION)
    affine("attention.4", _POOLED, _ATTENTION, 1)
    norm("bn5", 2 * _POOLED)
    affine("fc6", _EMBEDDING, 2 * _POOLED)
    norm("bn6", _EMBEDDING)
    affine("fc7", len(GENDERS), _EMBEDDING)
    return shapes


def mel_filters() -> npt.NDArray[np.float32]:
    """Triangles of height 1, equally spaced on the HTK mel scale from 20 to 7,600 Hz, shape (257, 80)."""
    low, high = 2595.0 * np.log10(1.0 + np.array([_LOW_HZ, _HIGH_HZ]) / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(low, high, _MELS + 2) / 2595.0) - 1.0)
    bins = np.linspace(0.0, RATE_HZ / 2, _FFT // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(samples: npt.NDArray[np.float32]) -> Tensor:
    """The front end of the training: log power in 80 mel bands every 10 ms, less each band's mean, shape (80, 1 + samples // 160).

    Pre-emphasis y[n] = x[n] - 0.97 x[n-1] with x[-1] = x[1]; 25 ms periodic Hamming windows centred in FFTs of 512, reflected ends.

    Args:
        samples: At 16 kHz, more than 256 of them.
    """
    import torch

    wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    emphasised = wave - 0.97 * torch.cat([wave[1:2], wave[:-1]])
    window = torch.hamming_window(_WINDOW)
    spectrum = torch.stft(emphasised, _FFT, _HOP, _WINDOW, window, center=True, pad_mode="reflect", return_complex=True)
    bands = (torch.from_numpy(mel_filters()).T @ spectrum.abs().square() + 1e-6).log()
    return bands - bands.mean(dim=1, keepdim=True)
