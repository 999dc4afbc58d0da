"""What a checkpoint's folder holds, read strictly: config.json as transformers writes it, safetensors in one file or in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import logging

from undertone.errors import ModelError
from undertone.model.config import Part, SpeechLLMConfig
from undertone.model.examples import System
from undertone.model.tokenizer import SpecialTokens

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MODEL_TYPE = "undertone"

_THEIRS = frozenset({"auto_map", "bos_token_id", "use_cache"} | set(PreTrainedConfig().to_dict()))
"""Keys of config.json that transformers writes for itself."""


class Checkpoint(BaseModel):
    """config.json of a checkpoint.

    Attributes:
        format: Version of the checkpoint format; 1 knew nothing of the keys from `vocab_size` on.
        model: What the model is made of.
        frame_dim: Width of the encoder's frames, or of its inputs where it runs inside.
        tokens: Special tokens of tokenizer.json.
        encoder_fingerprint: The encoder whose frames it was trained on.
        system: The arm it was trained as.
        vocab_size: Of the tokeniser.
        pad_token_id: Id of `tokens.pad`.
        eos_token_id: Id of `tokens.end`.
        audio_token_id: Id of `tokens.audio`.
        elsewhere: Parts whose own weights are not in the folder, but under their name; None is what `model` leads to.
        decoder_config: Of a named decoder, so that one whose weights are in the folder needs nothing from elsewhere.
        encoder_config: The same of a named encoder inside the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2] = 2
    model: SpeechLLMConfig
    frame_dim: int
    tokens: SpecialTokens
    encoder_fingerprint: str | None = None
    system: System | None = None
    vocab_size: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | None = None
    audio_token_id: int | None = None
    elsewhere: tuple[Part, ...] | None = None
    decoder_config: dict[str, Any] | None = None
    encoder_config: dict[str, Any] | None = None


class UndertoneConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """A `Checkpoint` as transformers wants it: plain values, saved as config.json, known to `AutoConfig`."""

    model_type = MODEL_TYPE

    format: int = 2
    model: dict[str, Any] | None = None
    frame_dim: int = 0
    tokens: dict[str, Any] | None = None
    encoder_fingerprint: str | None = None
    system: dict[str, Any] | None = None
    vocab_size: int = 0
    pad_token_id: int | None = None
    eos_token_id: int | None = None
    audio_token_id: int | None = None
    elsewhere: list[str] | None = None
    decoder_config: dict[str, Any] | None = None
    encoder_config: dict[str, Any] | None = None

    @classmethod
    def of(cls, card: Checkpoint) -> UndertoneConfig:
        """From the typed form."""
        return cls(**card.model_dump(mode="json"))

    @property
    def checkpoint(self) -> Checkpoint:
        """The same, typed."""
        return Checkpoint.model_validate({name: getattr(self, name) for name in Checkpoint.model_fields})

    @property
    def hidden_size(self) -> int:
        """Width of the decoder's embeddings, which DeepSpeed sizes its buffers by."""
        held = self.decoder_config or ((self.model or {}).get("decoder") or {}).get("config") or {}
        return int(held.get("hidden_size", 0))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json of a checkpoint.

    Raises:
        ModelError: It is missing, of another format or not what a checkpoint holds.
    """
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            kind = content.get("model_type", MODEL_TYPE)
            if kind != MODEL_TYPE:
                raise ModelError(
                    f"{folder} holds a model of type {kind!r}, expected {MODEL_TYPE!r}: a folder that undertone train wrote. Name such a "
                    "model as model.decoder.name or model.encoder.name of a study"
                )
            ours = Checkpoint.model_fields
            content = {key: value for key, value in content.items() if key in ours or key not in _THEIRS}
        return Checkpoint.model_validate(content)
    except OSError as error:
        raise ModelError(
            f"{folder} is not a checkpoint: no {CONFIG_FILE} ({error}); expected a folder that training wrote"
        ) from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not a checkpoint's configuration: {error}") from error
    except ValidationError as error:
        for fault in error.errors():
            if fault["loc"] == ("format",):
                raise ModelError(
                    f"{path} has checkpoint format {fault['input']!r}, expected 1 or 2: a newer undertone may have written it; install "
                    "that one, or train this checkpoint again"
                ) from error
        raise ModelError(f"{path} is not a checkpoint's configuration: {error}") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint.

    Raises:
        ModelError: A file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / INDEX_FILE
    try:
        if not path.is_file():
            path = folder / WEIGHTS_FILE
            return dict(load_file(str(path)))
        shards = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
        found: dict[str, Tensor] = {}
        for shard in shards:
            path = folder / shard
            found |= load_file(str(path))
        return found
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path} does not load: {error}; train this checkpoint again") from error


def check_fits(folder: Path, stored: Mapping[str, Tensor], expected: Sequence[str], state: Mapping[str, Tensor]) -> None:
    """Compare what a checkpoint holds with what its model expects.

    Raises:
        ModelError: With every key that is missing, unexpected or of another shape.
    """
    problems = {
        "missing": [name for name in expected if name not in stored],
        "unexpected": [name for name in stored if name not in set(expected)],
        "other shape": [name for name in expected if name in stored and stored[name].shape != state[name].shape],
    }
    if any(problems.values()):
        found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
        path = folder / (INDEX_FILE if (folder / INDEX_FILE).is_file() else WEIGHTS_FILE)
        raise ModelError(f"{path} does not fit {CONFIG_FILE}: {found}. Expected {len(expected)} tensors, got {len(stored)}")


def snapshot(name: str, *, revision: str | None, token: str | bool | None, cache_dir: str | None, local_files_only: bool) -> Path:
    """A checkpoint's folder from the Hub.

    Raises:
        ModelError: It is not there.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise ModelError(
            f"{name} is neither a folder nor a checkpoint on the Hub: {error}; expected a folder that training wrote"
        ) from error


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without transformers' progress bars, whose lines would stand among the study's."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
