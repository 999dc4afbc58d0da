"""What differs between the native audio LLMs; one small class each, all else is common.

Every family goes through transformers' processor and the checkpoint's own chat template. Parts that hear nothing (image and video
processors, the vision tower of Gemma 3n) are left out, so that torchvision and timm are not needed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import soundfile
import torch
from torch import Tensor, nn

from undertone.audio import Wave
from undertone.errors import DataError, DependencyError, ModelError
from undertone.model.native.chats import Said

Chat = list[dict[str, Any]]
"""A conversation as transformers' chat templates take it."""

LORA = "undertone"
"""The name of our adapter inside a model; a checkpoint may have one of its own beside it."""

_TEXT_KEYS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
_SENTINEL = "\u241fanswer\u241f"


class Read(NamedTuple):
    """A prompt as the processor reads it: its tokens, and the tensors of what is heard, first axis the waves (or their chunks)."""

    ids: tuple[int, ...]
    features: dict[str, Tensor]


class Family:
    """A kind of native audio LLM.

    Attributes:
        title: As people call it.
        types: `model_type` of the checkpoints that it reads.
        model_class: Of transformers.
        processor_class: Of transformers.
        window_s: The longest wave that is heard whole; None where there is no such limit.
        shortest_s: A shorter wave is followed by silence up to this: of a few frames some encoders make no embedding at all, and others fail.
        trims: Whether frames behind the longest wave of a batch may be cut off, because the model selects frames by their mask.
    """

    title: ClassVar[str]
    types: ClassVar[tuple[str, ...]]
    model_class: ClassVar[str]
    processor_class: ClassVar[str]
    window_s: ClassVar[float | None] = None
    shortest_s: ClassVar[float] = 0.1
    trims: ClassVar[bool] = False

    def check(self) -> None:
        """Raise DependencyError where a package is missing that the family needs beside transformers."""

    def network(self, **asked: Any) -> tuple[Any, Mapping[str, Any]]:
        """The model, and what `from_pretrained` says of missing, unexpected and unfitting weights."""
        model, told = self.network_class().from_pretrained(output_loading_info=True, ignore_mismatched_sizes=True, **asked)
        return model, told

    def network_class(self) -> Any:
        """The class to load."""
        return _of_transformers(self.model_class)

    def processor(self, name: str, revision: str | None) -> Any:
        """The processor, without the parts that see."""
        front, words = _of_transformers("AutoFeatureExtractor"), _of_transformers("AutoTokenizer")
        made = _hearing(_of_transformers(self.processor_class))
        settings, _ = made.get_processor_dict(name, revision=revision)
        tokenizer = words.from_pretrained(name, revision=revision)
        parts = {"tokenizer": tokenizer, "feature_extractor": front.from_pretrained(name, revision=revision)}
        settings = {**settings, "chat_template": settings.get("chat_template") or tokenizer.chat_template}
        return made.from_args_and_dict([parts.get(one) for one in made.get_attributes()], settings)

    def read(self, processor: Any, said: Sequence[Said]) -> Read:
        """One conversation to tokens and features, alone, so that no other row of a batch can change it.

        Raises:
            DataError: Somebody wrote a control token, which could not be told from the template's.
        """
        _without_control(processor, said)
        made = processor.apply_chat_template(
            [self.chat(said)],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs=self.settings(processor, said),
        )
        return _read(made)

    def settings(self, processor: Any, said: Sequence[Said]) -> dict[str, Any]:
        """Settings of the processor for one conversation."""
        del processor, said
        return {}

    def chat(self, said: Sequence[Said]) -> Chat:
        """The conversation with waves as arrays."""
        return [{"role": one.role, "content": _content(one)} for one in said]

    def end(self, processor: Any) -> int:
        """The token that the chat template puts behind an answer."""
        tokenizer = processor.tokenizer
        chat = self.chat([Said("user", ("?",)), Said("assistant", (_SENTINEL,))])
        whole = self.render(processor, chat)
        after = tokenizer(whole.split(_SENTINEL)[1], add_special_tokens=False)["input_ids"]
        special = [one for one in after if one in set(tokenizer.all_special_ids) or one in tokenizer.added_tokens_decoder]
        found = special[0] if special else tokenizer.eos_token_id
        if found is None:
            raise ModelError(f"{self.title}: neither the chat template nor the tokeniser has a token that ends an answer")
        return int(found)

    def render(self, processor: Any, chat: Chat) -> str:
        """A whole conversation as the template writes it."""
        text: str = processor.apply_chat_template([chat], tokenize=False)[0]
        return text

    def ready(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs as the model takes them."""
        del model
        return inputs

    def mixes(self) -> bool:
        """Whether prompts with and without sound may share a batch."""
        return True


class Qwen2Audio(Family):
    """Whisper large-v3's encoder, pooled to 25 embeddings per second, and Qwen-7B; 30 s per wave, several waves."""

    title = "Qwen2-Audio"
    types = ("qwen2_audio",)
    model_class = "Qwen2AudioForConditionalGeneration"
    processor_class = "Qwen2AudioProcessor"
    window_s = 30.0


class Qwen25Omni(Family):
    """The thinker of Qwen2.5-Omni, without the talker: 25 embeddings per second, 300 s per wave."""

    title = "Qwen2.5-Omni"
    types = ("qwen2_5_omni", "qwen2_5_omni_thinker")
    model_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    processor_class = "Qwen2_5OmniProcessor"
    window_s = 300.0
    trims = True

    def settings(self, processor: Any, said: Sequence[Said]) -> dict[str, Any]:
        """Pad to the longest wave instead of 300 s: the same frames (tested) for a fraction of the work."""
        front = processor.feature_extractor
        waves = [len(part.samples) for one in said for part in one.parts if isinstance(part, Wave)]
        # Two windows of silence behind, so that the last frames see no mirrored edge.
        samples = max(waves, default=0) + 2 * front.n_fft
        whole = -(-samples // front.hop_length) * front.hop_length
        return {"audio_kwargs": {"max_length": min(whole, front.n_samples)}} if waves else {}


class Qwen3Omni(Family):
    """The thinker of Qwen3-Omni, a mixture of experts, without the talker: about 13 embeddings per second.

    Its encoder convolves chunks of 1 s, padded to the longest chunk of the batch, so that a shorter wave would sound different alone.
    """

    title = "Qwen3-Omni"
    types = ("qwen3_omni_moe", "qwen3_omni_moe_thinker")
    model_class = "Qwen3OmniMoeThinkerForConditionalGeneration"
    processor_class = "Qwen3OmniMoeProcessor"
    shortest_s = 1.0
    trims = True


class Voxtral(Family):
    """Whisper large-v3's encoder on chunks of 30 s and a Mistral LLM; its tokeniser is mistral-common's, which has no template text."""

    title = "Voxtral"
    types = ("voxtral",)
    model_class = "VoxtralForConditionalGeneration"
    processor_class = "VoxtralProcessor"

    def check(self) -> None:
        from importlib.util import find_spec

        if find_spec("mistral_common") is None:
            raise DependencyError('Voxtral reads its prompts with mistral-common: pip install "mistral-common[audio]"')

    def processor(self, name: str, revision: str | None) -> Any:
        return _of_transformers(self.processor_class).from_pretrained(name, **({} if revision is None else {"revision": revision}))

    def read(self, processor: Any, said: Sequence[Said]) -> Read:
        return _read(processor.apply_chat_template([self.chat(said)]))

    def chat(self, said: Sequence[Said]) -> Chat:
        return [{"role": one.role, "content": _content(one, encoded=True)} for one in said]

    def end(self, processor: Any) -> int:
        return int(processor.tokenizer.eos_token_id)


class GraniteSpeech(Family):
    """A conformer, a window Q-Former and a Granite LLM, whose own LoRA is on only where something is heard."""

    title = "Granite Speech"
    types = ("granite_speech",)
    model_class = "GraniteSpeechForConditionalGeneration"
    processor_class = "GraniteSpeechProcessor"

    def network(self, **asked: Any) -> tuple[Any, Mapping[str, Any]]:
        """As everywhere, but with a LoRA beside the model `from_pretrained` tells of the LoRA's weights alone."""
        cls = self.network_class()
        told: list[Any] = []

        class Watched(cls):  # type: ignore[misc,valid-type]
            @classmethod
            def _load_pretrained_model(cls, *args: Any, **settings: Any) -> Any:
                made = super()._load_pretrained_model(*args, **settings)
                told.append(made[0])
                return made

        Watched.__name__ = cls.__name__
        model = Watched.from_pretrained(ignore_mismatched_sizes=True, **asked)
        keys = ("missing_keys", "unexpected_keys", "mismatched_keys")
        return model, {key: {name for one in told for name in getattr(one, key)} for key in keys}

    def processor(self, name: str, revision: str | None) -> Any:
        from transformers import AutoTokenizer, SequenceFeatureExtractor

        from undertone.model.native.granite import GraniteFeatures

        cls = _of_transformers(self.processor_class)
        settings, _ = cls.get_processor_dict(name, revision=revision)
        front = settings.pop("audio_processor", None)
        if front is None:
            front, _ = SequenceFeatureExtractor.get_feature_extractor_dict(name, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        settings = {**settings, "chat_template": settings.get("chat_template") or tokenizer.chat_template}
        return cls.from_args_and_dict([GraniteFeatures(**front), tokenizer], settings)

    def read(self, processor: Any, said: Sequence[Said]) -> Read:
        _without_control(processor, said)
        text = processor.apply_chat_template([self.written(processor, said)], tokenize=False, add_generation_prompt=True)
        waves = [part.samples for one in said for part in one.parts if isinstance(part, Wave)]
        return _read(processor(text=text, audio=waves or None, return_tensors="pt"))

    def written(self, processor: Any, said: Sequence[Said]) -> Chat:
        """The conversation as texts alone: the released template takes no parts, the audio token stands in the text."""
        audio = str(processor.audio_token)
        texts = ["".join(audio if isinstance(part, Wave) else part for part in one.parts) for one in said]
        return [{"role": one.role, "content": text} for one, text in zip(said, texts, strict=True)]

    def ready(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Embed each wave alone: the conformer has no padding mask, so that a longer neighbour would change a shorter wave's frames."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        _switch(model, heard="input_features" in inputs)
        if "input_features" not in inputs:
            return {"inputs_embeds": model.get_input_embeddings()(ids), "attention_mask": mask}
        rows = zip(inputs["input_features"], inputs["frame_count"].tolist(), inputs["input_features_mask"], strict=True)
        heard = [
            model.get_audio_features(frames[:count].unsqueeze(0), return_dict=True).pooler_output[0, : int(real.sum())]
            for frames, count, real in rows
        ]
        embeds = model.model.get_merged_audio_embeddings(input_ids=ids, audio_features=torch.cat(heard))
        return {"inputs_embeds": embeds, "attention_mask": mask}

    def mixes(self) -> bool:
        return False


class Gemma3n(Family):
    """The universal speech model's conformer and Gemma 3n: 188 embeddings for every wave of up to 30 s."""

    title = "Gemma 3n"
    types = ("gemma3n",)
    model_class = "Gemma3nForConditionalGeneration"
    processor_class = "Gemma3nProcessor"
    window_s = 30.0

    def network_class(self) -> Any:
        from undertone.model.native.gemma import hearing_gemma

        return hearing_gemma()


FAMILIES: tuple[Family, ...] = (Qwen2Audio(), Qwen25Omni(), Qwen3Omni(), Voxtral(), GraniteSpeech(), Gemma3n())


def family_of(model_type: str | None, name: str) -> Family:
    """The family that reads a `model_type`.

    Raises:
        ModelError: There is none; those that there are, are listed.
    """
    for one in FAMILIES:
        if model_type in one.types:
            return one
    known = "; ".join(f"{one.title} ({', '.join(one.types)})" for one in FAMILIES)
    raise ModelError(
        f"{name} has model_type {model_type!r}, which is none of the native audio LLMs that are supported: {known}. Other models can "
        "be asked behind an endpoint, and other decoders joined to an encoder with SpeechLLM"
    )


def _of_transformers(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _switch(model: Any, *, heard: bool) -> None:
    """Where nothing is heard, the LoRA of the checkpoint is off, and ours alone is on; which weights are trained stays as it is."""
    adapters = list(getattr(model, "peft_config", {}))
    if not getattr(model, "_hf_peft_config_loaded", False):
        return
    wanted = [one for one in adapters if heard or one == LORA]
    trained = [(one, one.requires_grad) for one in model.parameters()]
    if wanted:
        model.enable_adapters()
        model.set_adapter(wanted)
    else:
        model.disable_adapters()
    for one, learns in trained:
        one.requires_grad_(learns)


def _hearing(cls: Any) -> Any:
    """A processor class of which parts may be None."""

    class Hearing(cls):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    Hearing.__name__ = cls.__name__
    return Hearing


def _without_control(processor: Any, said: Sequence[Said]) -> None:
    """Refuse a conversation in which somebody wrote a control token.

    Ordinary added tokens (Gemma has some for line breaks and HTML) may stand in a text.
    """
    control = [str(one) for one in processor.tokenizer.added_tokens_decoder.values() if one.special]
    for text in (part for one in said for part in one.parts if isinstance(part, str)):
        if found := next((token for token in control if token in text), None):
            raise DataError(f"the text {text[:60]!r} contains the model's control token {found!r}; remove it, or leave the row out")


def _content(one: Said, *, encoded: bool = False) -> str | list[dict[str, Any]]:
    """A message's content: plain text where nothing is heard, else its parts."""
    if all(isinstance(part, str) for part in one.parts):
        return "".join(part for part in one.parts if isinstance(part, str))
    return [_sound(part, encoded) if isinstance(part, Wave) else {"type": "text", "text": part} for part in one.parts]


def _sound(wave: Wave, encoded: bool) -> dict[str, Any]:
    if not encoded:
        return {"type": "audio", "audio": wave.samples}
    file = io.BytesIO()
    soundfile.write(file, wave.samples, wave.rate_hz, format="WAV", subtype="FLOAT")
    return {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()}


def _read(made: Mapping[str, Any]) -> Read:
    ids = tuple(int(one) for one in made["input_ids"][0])
    return Read(ids, {key: torch.as_tensor(value) for key, value in made.items() if key not in _TEXT_KEYS})


def pad_to(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Zeros (or false) behind every axis but the first, up to a shape."""
    behind = [(0, wanted - have) for have, wanted in zip(tensor.shape[1:], shape, strict=True)]
    return nn.functional.pad(tensor, [one for pair in reversed(behind) for one in pair])
