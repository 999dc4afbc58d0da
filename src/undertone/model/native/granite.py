"""The front end of Granite Speech without torchaudio, whose wheels do not load beside a CPU build of torch.

The same numbers as `GraniteSpeechFeatureExtractor` of transformers: HTK mel filters on the power spectrum of a 25 ms Hann window every
10 ms, log10, floored 8 below the loudest, two frames stacked into one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank

_WINDOW = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80}
"""Of granite-speech-3.3, in samples and filters; a checkpoint's own `melspec_kwargs` go before."""


class GraniteFeatures(SequenceFeatureExtractor):
    """Waves to stacked log-mel frames and how many embeddings the projector makes of each."""

    model_input_names = ("input_features",)

    def __init__(self, **settings: Any) -> None:
        """Read the settings of a checkpoint's preprocessor_config.json."""
        mel = {**_WINDOW, **(settings.get("melspec_kwargs") or {})}
        self.window = {key: int(mel[key]) for key in _WINDOW}
        self.projector_window_size = int(settings.get("projector_window_size") or 15)
        self.projector_downsample_rate = int(settings.get("projector_downsample_rate") or 5)
        rate_hz = int(settings.get("sampling_rate") or mel.get("sample_rate") or 16_000)
        super().__init__(feature_size=self.window["n_mels"], sampling_rate=rate_hz, padding_value=0.0)

    def __call__(self, audios: Sequence[Any], device: str = "cpu") -> dict[str, Any]:
        """Frames (A, T, 2 x filters) of A waves, zero after a shorter one's end, how many are real, and the embeddings of each."""
        del device  # computed where the samples are; the model moves them
        made = [self.frames(torch.as_tensor(one)) for one in audios]
        sizes = [self._embeddings(len(one)) for one in audios]
        return {
            "input_features": torch.nn.utils.rnn.pad_sequence(made, batch_first=True),
            "frame_count": [len(one) for one in made],
            "audio_embed_sizes": sizes,
            "input_features_mask": torch.arange(max(sizes)).unsqueeze(0) < torch.tensor(sizes).unsqueeze(1),
        }

    def frames(self, samples: Tensor) -> Tensor:
        """Frames (T, 2 x filters) of one wave (n,)."""
        size = self.window
        window = torch.hann_window(size["win_length"])
        spectrum = torch.stft(
            samples.float(), size["n_fft"], size["hop_length"], size["win_length"], window, pad_mode="reflect", return_complex=True
        )
        bank = _bank(size["n_fft"], size["n_mels"], self.sampling_rate)
        mel = (spectrum.abs().square().T @ bank).clamp(min=1e-10).log10()
        mel = torch.maximum(mel, mel.max() - 8.0) / 4 + 1
        return mel[: len(mel) // 2 * 2].reshape(-1, 2 * size["n_mels"])

    def _embeddings(self, samples: int) -> int:
        frames = (samples // self.window["hop_length"] + 1) // 2
        blocks = math.ceil(frames / self.projector_window_size)
        return blocks * (self.projector_window_size // self.projector_downsample_rate)


@functools.cache
def _bank(n_fft: int, n_mels: int, rate_hz: int) -> Tensor:
    """HTK mel filters (n_fft / 2 + 1, n_mels), of height 1."""
    made = mel_filter_bank(
        num_frequency_bins=n_fft // 2 + 1,
        num_mel_filters=n_mels,
        min_frequency=0.0,
        max_frequency=rate_hz / 2,
        sampling_rate=rate_hz,
        norm=None,
        mel_scale="htk",
    )
    return torch.from_numpy(np.asarray(made, dtype=np.float32))
