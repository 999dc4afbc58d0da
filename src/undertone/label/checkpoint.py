"""What adapters of transformers models share: where the weights are, how they are loaded and checked, what may share a batch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.label.weights import Weights

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Any of which a transformers checkpoint has."""

_FIXED = ("audio-spectrogram-transformer", "whisper")
"""Their feature extractors bring every wave to one length."""
_MASKED = ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")
"""Their layers see nothing of the padding behind a mask, provided that the first ones normalise each frame by itself."""


class Loaded(NamedTuple):
    """A model in inference mode and the feature extractor that belongs to it."""

    net: Any
    extractor: Any


def read_config(labeller: Weights) -> dict[str, Any]:
    """The config.json of a transformers checkpoint, read without its weights."""
    labeller.found(("config.json",))
    with labeller.fetching():
        file = Path(labeller.place) / "config.json"
        if not labeller.local:
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(labeller.model, "config.json", revision=labeller.pin))
        return dict(json.loads(file.read_text(encoding="utf-8")))


@contextmanager
def without_progress() -> Iterator[None]:
    """Transformers loads without progress bars, reports and advice: the terminal is the user's, and what matters becomes an error."""
    from transformers.utils import logging as told

    logging: Any = told
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class Checkpoint(Weights):
    """Base of labellers that run a transformers model on waves: how it is loaded and checked, what may share a batch.

    A subclass gives the model's class (`architecture`) and implements `judge_many` with `outputs`. Code that comes with a checkpoint
    does not run.
    """

    packages = ("torch", "transformers")
    files = (("config.json",), WEIGHT_FILES)

    @cached_property
    def model_config(self) -> Mapping[str, Any]:
        """The model's config.json, read without its weights."""
        return read_config(self)

    def architecture(self) -> Any:
        """The class whose `from_pretrained` loads the weights."""
        raise NotImplementedError

    def load(self) -> Loaded:
        device = self.torch_device()
        with self.fetching(), without_progress():
            import torch
            from transformers import AutoFeatureExtractor

            asked: dict[str, Any] = {"trust_remote_code": False}  # or else transformers asks on the terminal
            asked |= {} if self.local else {"revision": self.pin}
            extractor = AutoFeatureExtractor.from_pretrained(self.place, **asked)  # type: ignore[no-untyped-call]
            net, report = self.architecture().from_pretrained(self.place, dtype=torch.float32, output_loading_info=True, **asked)
            self._check(extractor, report)
        return Loaded(net.to(device).eval(), extractor)

    def _check(self, extractor: Any, report: Mapping[str, Any]) -> None:
        # The embedding of masked frames is used in training only, and many checkpoints come without it.
        missing = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))
        if missing:
            unread = sorted(report["unexpected_keys"])
            raise ModelError(
                f"labeller {self.name!r}: {self.model} lacks {len(missing)} of the model's tensors ({', '.join(missing[:4])}"
                f"{', ...' if len(missing) > 4 else ''}) and has {len(unread)} that it does not use ({', '.join(unread[:4]) or 'none'}); "
                "expected a checkpoint trained for this task, head included"
            )
        if extractor.sampling_rate != self.rate_hz:
            raise ModelError(f"labeller {self.name!r}: {self.model} wants {extractor.sampling_rate} Hz, got rate_hz {self.rate_hz}")

    def outputs(self, waves: Sequence[Wave]) -> Floats:
        """The model's raw outputs, shape (waves, outputs), the same for a wave whatever else is in its batch."""
        import torch

        net, _ = self._loaded
        rows: dict[int, Floats] = {}
        with torch.inference_mode():
            for group in self._groups([len(wave.samples) for wave in waves]):
                heard: torch.Tensor = net(**self._inputs([waves[index].samples for index in group])).logits
                rows.update(zip(group, heard.double().cpu().numpy(), strict=True))
        return np.array([rows[index] for index in range(len(waves))])

    def passed(self, module: Any, wave: Wave) -> Any:
        """What the model, or a module of it that reads the same, makes of one wave."""
        import torch

        with torch.inference_mode():
            return module(**self._inputs([wave.samples]))

    @property
    def _masks(self) -> bool:
        """Whether waves of different lengths may share a batch behind a mask."""
        config = self._loaded.net.config
        # Normalised over time ("group"), the first layer of a short wave would hear the silence that it is padded with.
        framewise = getattr(config, "feat_extract_norm", None) == "layer" and not getattr(config, "conv_pos_batch_norm", False)
        return config.model_type in _MASKED and framewise

    def _groups(self, lengths: Sequence[int]) -> list[list[int]]:
        order = sorted(range(len(lengths)), key=lambda index: lengths[index])
        mixed = self._masks or self._loaded.net.config.model_type in _FIXED
        runs = [order] if mixed else [list(run) for _, run in itertools.groupby(order, key=lambda index: lengths[index])]
        return [run[start : start + self.batch] for run in runs for start in range(0, len(run), self.batch)]

    def _inputs(self, samples: list[npt.NDArray[np.float32]]) -> Any:
        net, extractor = self._loaded
        settings: dict[str, Any] = {} if net.config.model_type in _FIXED else {"padding": True}
        if self._masks:
            settings["return_attention_mask"] = True
        return extractor(samples, sampling_rate=self.rate_hz, return_tensors="pt", **settings).to(self.device)
