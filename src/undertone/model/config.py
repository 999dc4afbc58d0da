"""What a speech-LLM is made of, as data: stored in its checkpoint, written in a study file.

The toy and the real model differ in names only: `EncoderConfig(name="openai/whisper-large-v3")` and
`DecoderConfig(name="google/gemma-2-9b-it")` give the model of 2508.07273.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from undertone.metadata import MetadataConfig
from undertone.records import DIMENSIONS, EMOTIONS

AFFECT_SMALL = "affect-small"
Part = Literal["encoder", "adapter", "decoder"]
Head = Literal["category_head", "dimensions_head"]


class _Config(BaseModel):
    """Frozen and strict.

    Fields in `grown` came after studies had been run: where they have their default they are not written, so that the fingerprints of
    those studies hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    grown: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _as_it_was(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {key: value for key, value in made.items() if key not in self.grown or getattr(self, key) != fields[key].default}


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

    A new one has random weights from a fixed seed. Where it is frozen its frames are computed once per clip.

    Attributes:
        name: One of these three, or
        config: the configuration of a new Whisper.
        taps: Hidden states to keep, as transformers counts them: 0 is what enters the first layer, n what leaves the n-th. None at all
            is the encoder's output. Two or more give frames (T, layers, D), for the adapters "qformer" and "tltr".
        pool: Frames averaged into one before they are stored. All 32 layers of Whisper large take 123 MB per 30 s clip, a twentieth
            with 20; divide the adapter's `stack` and `train.shift_frames` by as much.
        long_audio: What becomes of audio longer than the encoder's window (Whisper: 30 s; 30 s for all others too, which have none):
            "truncate" leaves the choice to `max_audio_s`, and Whisper hears no more than its window; "chunk" encodes each window for
            itself and puts the frames in a row.
    """

    grown: ClassVar[frozenset[str]] = frozenset({"taps", "pool", "long_audio"})

    taps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    pool: int = Field(default=1, ge=1)
    long_audio: Literal["truncate", "chunk"] = "truncate"

    @classmethod
    def affect_small(cls) -> Self:
        """The small encoder that ships with the source."""
        return cls(name=AFFECT_SMALL)

    @property
    def layers(self) -> int:
        """Layers in a frame."""
        return max(1, len(self.taps))

    @model_validator(mode="after")
    def _tappable(self) -> Self:
        if len(set(self.taps)) < len(self.taps):
            raise ValueError(f"taps names a layer twice: {list(self.taps)}")
        if self.taps and self.name == AFFECT_SMALL:
            raise ValueError(f"{AFFECT_SMALL} has one output and no layers to tap; leave out taps={list(self.taps)}")
        return self


class _Adapter(_Config):
    """From frames to decoder embeddings."""

    def embeddings(self, frames: int) -> int:
        """How many embeddings a number of frames becomes."""
        raise NotImplementedError

    @property
    def frames_each(self) -> int | None:
        """Frames under one embedding, in the order of time; None where an embedding has no place in time."""
        return None


class AdapterConfig(_Adapter):
    """An MLP on stacked frames (MERaLiON-AudioLLM v1).

    Attributes:
        kind: "mlp".
        stack: Consecutive frames that become one embedding; 15 turns Whisper's 1500 frames into 100.
        hidden: Width of the first stage; None is the encoder's width. The second is four times as wide.
        dropout: After each activation.
    """

    kind: Literal["mlp"] = "mlp"
    stack: int = Field(default=15, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def embeddings(self, frames: int) -> int:
        """The last one may be part padding."""
        return -(-frames // self.stack)

    @property
    def frames_each(self) -> int | None:
        """The stack."""
        return self.stack


class ConvAdapterConfig(_Adapter):
    """Strided convolutions and a bottleneck (BLSP, BLSP-Emo): 1500 frames -> 188.

    Attributes:
        kind: "conv".
        layers: Convolutions of kernel 5 and stride 2, each with a GLU; three shorten eight times.
        hidden: Channels between them; None is the encoder's width.
        bottleneck: Width inside the residual Linear, GELU, Linear.
        dropout: After the GELU; the published one has none.
    """

    kind: Literal["conv"] = "conv"
    layers: int = Field(default=3, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    bottleneck: int = Field(default=512, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def embeddings(self, frames: int) -> int:
        """Halved, rounding up, by each layer."""
        return -(-frames >> self.layers)

    @property
    def frames_each(self) -> int | None:
        """Two to the number of layers; an embedding also hears a little to both sides."""
        return 1 << self.layers


class QFormerAdapterConfig(_Adapter):
    """Learned queries that attend to each tapped layer, mixed by softmax weights over layers (DeSTA2): 1500 frames -> 64.

    Attributes:
        kind: "qformer".
        queries: Embeddings per window; each has its own queries for each layer.
        window: Frames that one set of queries looks at; None is the whole clip. Give 1500 beside `long_audio: chunk` of a Whisper.
        depth: Blocks of self-attention, cross-attention and feed-forward.
        heads: Of attention.
        hidden: Width of the blocks; None is the encoder's.
        dropout: Inside the blocks.
    """

    kind: Literal["qformer"] = "qformer"
    queries: int = Field(default=64, ge=1)
    window: int | None = Field(default=None, ge=1)
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=8, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def embeddings(self, frames: int) -> int:
        """The queries of each window that has a frame."""
        windows = min(frames, 1) if self.window is None else -(-frames // self.window)
        return self.queries * windows


class TLTRAdapterConfig(_Adapter):
    """A transformer over time inside each layer, then one over layers at each time (LTU-AS): 500 frames of 32 layers -> 25.

    Attributes:
        kind: "tltr".
        stack: Frames averaged into one before; 1 where the encoder's `pool` does it already.
        time_heads: Heads of the block over time.
        layer_heads: Heads of the block over layers.
        hidden: Width of the blocks; None is the encoder's.
        dropout: Inside the blocks.
    """

    kind: Literal["tltr"] = "tltr"
    stack: int = Field(default=20, ge=1)
    time_heads: int = Field(default=1, ge=1)
    layer_heads: int = Field(default=8, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def embeddings(self, frames: int) -> int:
        """One per stack; the last stack may be shorter."""
        return -(-frames // self.stack)

    @property
    def frames_each(self) -> int | None:
        """The stack."""
        return self.stack


def _kind(given: Any) -> Any:
    return given.get("kind", "mlp") if isinstance(given, dict) else getattr(given, "kind", "mlp")


AnyAdapterConfig = Annotated[
    Annotated[AdapterConfig, Tag("mlp")]
    | Annotated[ConvAdapterConfig, Tag("conv")]
    | Annotated[QFormerAdapterConfig, Tag("qformer")]
    | Annotated[TLTRAdapterConfig, Tag("tltr")],
    Discriminator(_kind),
]


class LoRAConfig(_Config):
    """Low-rank updates beside frozen weights (PEFT).

    Attributes:
        r: Rank.
        alpha: The update is scaled by alpha / r.
        dropout: Before the first matrix.
        targets: Ends of module names, such as q_proj; () is what PEFT knows for the architecture, ("all-linear",) every linear layer
            but the head.
        where: At which positions the updates are added: "all", or at those of "speech" alone (partial LoRA: RE-LLM's). Then what is
            written without speech is written by the decoder as it was, and the updates cannot be merged into its weights.
    """

    grown: ClassVar[frozenset[str]] = frozenset({"where"})

    r: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
    where: Literal["all", "speech"] = "all"


class NuanceConfig(_Config):
    """A frozen emotion encoder whose embeddings are joined to the frames of the speech encoder, channel by channel, before the adapter.

    RE-LLM (2602.10716): 1024 numbers of audeering's model of the whole utterance, repeated over all frames, behind Whisper's 1280.

    Attributes:
        encoder: A labeller that has embeddings, by the name that it is registered under: "affect-small", "audeering-dim",
            "audeering-age-gender", "audio-classification", "emotion2vec", "meralion-ser", or a plugin's. It stays as it is.
        config: Its configuration, as in a study's `label.labellers`: model, revision, device.
        utterance: Join the embedding of the whole, the same at every frame.
        frames: Join its embedding of each frame as well, brought to the speech encoder's rate (beyond the paper).
        width: Numbers in the embedding of the whole that are expected; another width is an error. None takes what comes, except where
            the speech encoder is trained inside the model, which must know it beforehand.
        span: What "the whole" is: all that the speech encoder "heard", or each "window" of `encoder.long_audio: chunk` for itself.
    """

    encoder: str = Field(default=AFFECT_SMALL, min_length=1)
    config: dict[str, Any] = Field(default_factory=dict)
    utterance: bool = True
    frames: bool = False
    width: int | None = Field(default=None, ge=1)
    span: Literal["heard", "window"] = "heard"

    @model_validator(mode="after")
    def _joins_something(self) -> Self:
        if not self.utterance and not self.frames:
            raise ValueError("utterance and frames are both false: nothing would be joined; leave nuance out, or set one of them")
        if not self.utterance and self.width is not None:
            raise ValueError(f"width={self.width} is of the embedding of the utterance, and utterance is false; leave width out")
        return self


class AuxConfig(_Config):
    """Heads beside the decoder that tell the emotion from what it is about to hear: one mean of a clip's speech embeddings.

    What is pooled is what the adapter gives (RE-LLM's fused embeddings E_f, e = mean_t E_f), in the decoder's width; each head is one
    linear layer without bias, and nothing squashes the numbers. What they learn from is `train.objective`.

    Attributes:
        classes: Of the category head, in its order; () is no such head. The default is that of RE-LLM's code.
        dimensions: Of the second head, in its order; () is no such head. The default is the order of RE-LLM's targets; its emotion encoder
            says arousal, dominance, valence, and records have valence first. Here all are taken by name.
    """

    classes: tuple[str, ...] = ("neutral", "happy", "angry", "sad", "surprised")
    dimensions: tuple[str, ...] = ("arousal", "valence", "dominance")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if not self.classes and not self.dimensions:
            raise ValueError("classes and dimensions are both empty: there would be no head; leave aux out")
        if len(self.classes) == 1:
            raise ValueError(f"classes: got {list(self.classes)}, expected two at least, or none")
        for key, given, known in (("classes", self.classes, EMOTIONS), ("dimensions", self.dimensions, DIMENSIONS)):
            if len(set(given)) < len(given):
                raise ValueError(f"{key} names one twice: {list(given)}")
            if strange := [one for one in given if one not in known]:
                raise ValueError(f"{key}: got {strange[0]!r}, expected some of {', '.join(known)}")
        return self


class DecoderConfig(_NameOrConfig):
    """The decoder-only LLM: by name or folder with its own tokeniser, or a new one by its configuration (`AutoConfig.for_model`).

    The vocabulary of a new one is the tokeniser's.

    Attributes:
        name: Hugging Face id or folder, or
        config: the configuration of a new one.
        dtype: Of its weights; None is what a named one was stored in, and float32 for a new one.
    """

    grown: ClassVar[frozenset[str]] = frozenset({"dtype"})

    dtype: Literal["float32", "bfloat16", "float16"] | None = None


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
        frozen: Parts that training leaves alone. The paper's model freezes encoder and decoder. An encoder that is not frozen runs
            inside the model, on inputs instead of frames (`encoder_inside`). Of `aux` "category_head" and "dimensions_head".
        max_audio_s: Speech beyond this is not heard: a longer clip is cut to its first seconds (as AudioBench does).
        metadata: How metadata is written where a system shows it.
        lora: Low-rank updates of the decoder, which is then frozen.
        encoder_lora: Low-rank updates of the encoder, which is then frozen and runs inside the model.
        stop: Texts that end an answer, beside the end token; not part of it.
        nuance: A frozen emotion encoder beside the speech encoder.
        aux: Heads that tell the emotion; with or without `nuance`.
    """

    grown: ClassVar[frozenset[str]] = frozenset({"lora", "encoder_lora", "stop", "nuance", "aux"})

    encoder: EncoderConfig = EncoderConfig(name=AFFECT_SMALL)
    adapter: AnyAdapterConfig = AdapterConfig()
    decoder: DecoderConfig = TOY_DECODER
    frozen: tuple[Part | Head, ...] = ("encoder",)
    max_audio_s: float = Field(default=30.0, gt=0)
    metadata: MetadataConfig = MetadataConfig()
    lora: LoRAConfig | None = None
    encoder_lora: LoRAConfig | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    nuance: NuanceConfig | None = None
    aux: AuxConfig | None = None

    @property
    def encoder_inside(self) -> bool:
        """Whether the encoder is part of what is trained, so that the model is given the encoder's inputs, not its frames."""
        return "encoder" not in self.frozen or self.encoder_lora is not None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.encoder_inside and self.encoder.name == AFFECT_SMALL:
            raise ValueError(
                f"frozen must contain 'encoder' and encoder_lora be left out: {AFFECT_SMALL} cannot be trained here; got frozen="
                f"{list(self.frozen)}. Name another encoder, such as openai/whisper-small"
            )
        for key, update, part in (("lora", self.lora, "decoder"), ("encoder_lora", self.encoder_lora, "encoder")):
            if update is not None and part not in self.frozen:
                raise ValueError(f"{key} trains beside a frozen {part}: add {part!r} to frozen; got {list(self.frozen)}")
        if self.encoder_lora is not None and self.encoder_lora.where != "all":
            raise ValueError(f"encoder_lora.where={self.encoder_lora.where!r} is of a decoder: all that an encoder hears is speech")
        heads = {"category_head": self.aux and self.aux.classes, "dimensions_head": self.aux and self.aux.dimensions}
        if absent := [one for one in self.frozen if one in heads and not heads[one]]:
            raise ValueError(f"frozen names {', '.join(absent)}, which this model does not have; leave it out, or give aux")
        self._check_nuance()
        if self.encoder.layers > 1 and self.adapter.kind in ("mlp", "conv"):
            raise ValueError(
                f"adapter {self.adapter.kind!r} hears one layer, but encoder.taps names {self.encoder.layers}; choose 'qformer' or "
                "'tltr', or tap one"
            )
        return self

    def _check_nuance(self) -> None:
        nuance = self.nuance
        if nuance is None:
            return
        if nuance.span == "window" and self.encoder.long_audio != "chunk":
            raise ValueError(
                "nuance.span='window' is of the windows of encoder.long_audio='chunk', which is 'truncate'; leave out one of the two"
            )
        if not self.encoder_inside:
            return
        if nuance.frames or nuance.span != "heard":
            raise ValueError(
                f"nuance.frames={nuance.frames} and nuance.span={nuance.span!r} need frames of a frozen encoder; beside one that is trained "
                "only the embedding of the whole travels: leave both out, or add 'encoder' to frozen"
            )
        if nuance.width is None:
            raise ValueError(
                "nuance.width is needed where the encoder is trained inside the model: the adapter must be as wide. Give the numbers in an "
                f"embedding of {nuance.encoder}; audeering-dim has 1024, {AFFECT_SMALL} 266"
            )
