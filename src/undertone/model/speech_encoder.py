"""Audio encoders of transformers as torch modules: loaded or new, their layers tapped, and run inside a model that trains them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from undertone.errors import ModelError
from undertone.model.checkpoint import quiet_bars
from undertone.model.config import AFFECT_SMALL, EncoderConfig
from undertone.model.encoders import RATE_HZ, window_s


def beside_rows(numbers: int, width: int) -> int:
    """Rows of inputs of a width that an embedding of as many numbers takes (`model.nuance.beside`)."""
    return -(-numbers // width)


def feature_extractor(config: EncoderConfig) -> Any:
    """The feature extractor of an encoder; a new Whisper's has the window that its positions hold.

    Raises:
        ModelError: It does not load.
    """
    library = _library()
    if config.name is None:
        settings = _whisper_config(config)
        # 2 mel frames of 10 ms per encoder position
        return library.WhisperFeatureExtractor(feature_size=settings.num_mel_bins, chunk_length=settings.max_source_positions // 50)
    try:
        return library.AutoFeatureExtractor.from_pretrained(config.name, return_attention_mask=False)
    except (OSError, ValueError) as error:
        raise _does_not_load(config, error) from error


def read_encoder(config: EncoderConfig, stored: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """The encoder, and the configuration of the model that it is of.

    Args:
        config: By name, or a new Whisper with random weights of seed 0.
        stored: The whole model's configuration where a checkpoint holds its weights, which are then not looked for.

    Raises:
        ModelError: It does not load.
    """
    library = _library()
    try:
        if config.name is not None and stored is None:
            with quiet_bars():
                model = library.AutoModel.from_pretrained(config.name)
        else:
            settings = _whisper_config(config) if stored is None else library.AutoConfig.for_model(**stored)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = library.AutoModel.from_config(settings)
    except (OSError, ValueError) as error:
        raise _does_not_load(config, error) from error
    return (model.get_encoder() if model.config.is_encoder_decoder else model), model.config


def tapped(model: Any, taps: tuple[int, ...], **inputs: Tensor) -> Tensor:
    """Run an encoder: its output (B, T, D), one tapped hidden state (B, T, D), or several (B, T, layers, D).

    Raises:
        ModelError: It has fewer layers than are tapped.
    """
    if not taps:
        last: Tensor = model(**inputs).last_hidden_state
        return last
    states = model(**inputs, output_hidden_states=True).hidden_states
    if max(taps) >= len(states):
        raise ModelError(f"encoder.taps names hidden state {max(taps)}, but this encoder has 0 to {len(states) - 1}")
    found = [states[tap] for tap in taps]
    return found[0] if len(found) == 1 else torch.stack(found, dim=2)


class SpeechEncoder(nn.Module):
    """An encoder inside the speech-LLM: what it reads in, time first, frames out, for training or LoRA.

    With an emotion embedding beside it (`model.nuance`), the last rows of a clip's inputs hold that embedding, which is joined to each of
    its frames behind the encoder.

    Two kinds are known: Whisper's, on log-mel windows of fixed length, and those on samples (wav2vec 2.0, HuBERT, WavLM), which are run
    clip by clip because padding changes what some of them hear.
    """

    def __init__(self, config: EncoderConfig, stored: dict[str, Any] | None = None, *, beside: int = 0) -> None:
        """Load or build the encoder.

        Args:
            config: Which one.
            stored: As for `read_encoder`.
            beside: Numbers of an embedding that travels with the inputs.

        Raises:
            ModelError: It does not load, or it is of neither kind.
        """
        super().__init__()
        self.model: Any
        self.model, whole = read_encoder(config, stored)
        self.dim = int(whole.hidden_size) + beside
        self.beside = beside
        self.whole_config: dict[str, Any] = whole.to_dict()
        self.taps, self.pool = config.taps, config.pool
        settings = self.model.config
        # Augmentation is the trainer's, from its seed; this one would draw from numpy's.
        settings.apply_spec_augment = False
        self.positions: int | None = getattr(settings, "max_source_positions", None)
        self.lengths: Any = getattr(self.model, "_get_feat_extract_output_lengths", None)
        if self.positions is not None:
            self.window: int | None = 2 * self.positions
            self.beside_rows = beside_rows(beside, settings.num_mel_bins)
        elif self.model.main_input_name == "input_values" and hasattr(settings, "conv_stride"):
            chunk = config.long_audio == "chunk"
            self.window = round(window_s(None) * RATE_HZ) if chunk else None
            self.beside_rows = beside_rows(beside, 1)
        else:
            raise ModelError(
                f"an encoder of type {settings.model_type!r} can be used frozen only; one that is trained is of Whisper's type, or reads "
                "samples as wav2vec2, hubert and wavlm do. Add 'encoder' to model.frozen and leave out encoder_lora"
            )

    def frames_of(self, inputs: int) -> int:
        """How many frames a number of inputs becomes, the rows of an embedding among them."""
        inputs = max(0, inputs - self.beside_rows)
        if self.positions is not None:
            made = len(self._sizes(inputs)) * self.positions if inputs else 0
        else:
            made = sum(int(self.lengths(torch.tensor(size))) for size in self._sizes(inputs))
        return -(-made // self.pool)

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode inputs (B, T, F) with their mask (B, T) into frames (B, T, D) or (B, T, layers, D) with theirs."""
        dtype = next(self.model.parameters()).dtype
        sizes = mask.sum(-1).tolist()
        counts = [max(0, size - self.beside_rows) for size in sizes]
        rows: list[Tensor] = []
        for row, count in zip(inputs.to(dtype), counts, strict=True):
            rows += row[:count].split(self._sizes(count)) if count else ()
        if not rows:
            raise ModelError("none of the batch's clips has inputs; drop frames from the batch where nobody hears")
        if self.positions is not None:
            full = torch.stack([self._filled(row) for row in rows])
            hidden = list(tapped(self.model, self.taps, input_features=full.transpose(1, 2)))
        else:
            hidden = [tapped(self.model, self.taps, input_values=row.squeeze(-1).unsqueeze(0))[0] for row in rows]
        made, taken = [], 0
        for count in counts:
            parts = len(self._sizes(count)) if count else 0
            frames = torch.cat(hidden[taken : taken + parts]) if parts else hidden[0][:0]
            taken += parts
            made.append(self._pooled(frames))
        if self.beside:
            ends = zip(made, inputs, counts, sizes, strict=True)
            made = [self._joined(frames, row[count:size]) for frames, row, count, size in ends]
        out = nn.utils.rnn.pad_sequence(made, batch_first=True)
        lengths = torch.tensor([len(one) for one in made], device=out.device)
        return out, torch.arange(out.shape[1], device=out.device) < lengths[:, None]

    def _joined(self, frames: Tensor, rows: Tensor) -> Tensor:
        """Frames (T, D) or (T, layers, D) with the embedding that stands in the rows behind a clip's inputs."""
        held = rows.flatten()[: self.beside].to(frames.dtype)
        if len(held) < self.beside:  # a clip without inputs
            held = frames.new_zeros(self.beside)
        return torch.cat([frames, held.expand(*frames.shape[:-1], -1)], dim=-1)

    def _sizes(self, inputs: int) -> list[int]:
        """Inputs of each window."""
        window = self.window or max(1, inputs)
        return [min(window, inputs - start) for start in range(0, inputs, window)]

    def _filled(self, row: Tensor) -> Tensor:
        """A window whose start was cut off in training, as long as all others: its last frame, silence where there is any, goes on."""
        missing = (self.window or 0) - len(row)
        return torch.cat([row, row[-1:].expand(missing, -1)]) if missing > 0 else row

    def _pooled(self, frames: Tensor) -> Tensor:
        if self.pool == 1 or not len(frames):
            return frames
        return torch.stack([part.mean(0) for part in torch.split(frames, self.pool)])


def _whisper_config(config: EncoderConfig) -> Any:
    given = config.config or {}
    if given["model_type"] != "whisper":
        raise ModelError(f"an encoder by configuration is a 'whisper', got model_type {given['model_type']!r}; give others by name")
    return _library().AutoConfig.for_model(**given)


def _does_not_load(config: EncoderConfig, error: Exception) -> ModelError:
    return ModelError(
        f"encoder {config.name!r} does not load: {error}. Expected '{AFFECT_SMALL}', a Hugging Face id or a folder with a "
        f"model and preprocessor_config.json; try: hf download {config.name}"
    )


def _library() -> Any:
    import transformers

    return transformers
