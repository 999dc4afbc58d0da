"""What a speech-LLM is made of, as data: stored in its checkpoint, written in a study file.

The toy and the real model differ in names only: `EncoderConfig(name="openai/whisper-large-v3")` and
`DecoderConfig(name="google/gemma-2-9b-it")` give the model of 2508.07273.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from undertone.metadata import MetadataConfig

AFFECT_SMALL = "affect-small"
Part = Literal["encoder", "adapter", "decoder"]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _NameOrConfig(_Config):
    """A part given by name (Hugging Face id or local folder) or by the configuration of a new one."""

    name: str | None = None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.config is None):
            raise ValueError(f"give either name or config; got name={self.name!r}, config={self.config!r}")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError(f"config needs a model_type, such as 'llama' or 'whisper'; got keys {sorted(self.config)}")
        return self


class EncoderConfig(_NameOrConfig):
    """The speech encoder: "affect-small", an audio model of Hugging Face by name or folder, or a new Whisper by its configuration.

    A new one has random weights from a fixed seed. It is never trained: its frames are computed once per clip.
    """

    @classmethod
    def affect_small(cls) -> Self:
        """The small encoder that ships with the source."""
        return cls(name=AFFECT_SMALL)


class AdapterConfig(_Config):
    """The MLP between encoder and decoder (MERaLiON-AudioLLM v1).

    Attributes:
        kind: "mlp" is the only one so far.
        stack: Consecutive frames that become one embedding; 15 turns Whisper's 1500 frames into 100.
        hidden: Width of the first stage; None is the encoder's width. The second is four times as wide.
        dropout: After each activation.
    """

    kind: Literal["mlp"] = "mlp"
    stack: int = Field(default=15, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class DecoderConfig(_NameOrConfig):
    """The decoder-only LLM: by name or folder with its own tokeniser, or a new one by its configuration (`AutoConfig.for_model`).

    The vocabulary of a new one is the tokeniser's.
    """


TOY_DECODER = DecoderConfig(
    config={
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "initializer_range": 0.08,  # about width ** -0.5; the 0.02 of wide models takes three times as long to learn
    }
)
"""0.9 M parameters: learns the demonstration's grammar in minutes on one core."""


class SpeechLLMConfig(_Config):
    """A whole speech-LLM.

    Attributes:
        encoder: The speech encoder.
        adapter: Frames to embeddings.
        decoder: The LLM.
        frozen: Parts that training leaves alone. The encoder always is; the paper's model also freezes the decoder.
        max_audio_s: Speech beyond this is not heard: a longer clip is cut to its first seconds (as AudioBench does).
        metadata: How metadata is written where a system shows it.
    """

    encoder: EncoderConfig = EncoderConfig(name=AFFECT_SMALL)
    adapter: AdapterConfig = AdapterConfig()
    decoder: DecoderConfig = TOY_DECODER
    frozen: tuple[Part, ...] = ("encoder",)
    max_audio_s: float = Field(default=30.0, gt=0)
    metadata: MetadataConfig = MetadataConfig()

    @model_validator(mode="after")
    def _encoder_frozen(self) -> Self:
        if "encoder" not in self.frozen:
            raise ValueError(f"frozen must contain 'encoder': frames are computed once per clip; got {self.frozen}")
        return self
