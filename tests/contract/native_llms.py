"""Tiny random native audio LLMs of transformers' own classes, saved in the layout of the releases."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 32, "intermediate_size": 48}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 16,
    "max_source_positions": 150,
}

QWEN = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'audio' %}AUDIO{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GRANITE = (
    "{% for message in messages %}<|start_of_role|>{{ message['role'] }}<|end_of_role|>{{ message['content'] }}<|end_of_text|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<audio_soft_token>{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def byte_tokenizer(special: list[str], *, named: dict[str, str], template: str | None, **settings: str) -> Any:
    """One token per byte, and control tokens; `named` are those that the processor asks for by attribute."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=named, chat_template=template, padding_side="left", **settings
    )


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    # Far from zero, so that a token more or less, or another wave, changes what is said.
    with torch.no_grad():
        for name, one in model.named_parameters():
            if one.dim() > 1 and "norm" not in name:
                one.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def qwen2_audio(folder: Path) -> Path:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    # The template is the processor's own.
    tokenizer = byte_tokenizer(special, named={}, template=None, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **WHISPER, "max_source_positions": 1500},
        text_config={"model_type": "qwen2", **LAYERS, "vocab_size": len(tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    return _save(Qwen2AudioForConditionalGeneration(config), tokenizer, folder)


OMNI = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
OMNI += ["<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>"]


def _omni_tokenizer() -> Any:
    named = {
        "image_token": "<|IMAGE|>",
        "audio_token": "<|AUDIO|>",
        "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    }
    template = QWEN.replace("AUDIO", "<|audio_bos|><|AUDIO|><|audio_eos|>")
    return byte_tokenizer(OMNI, named=named, template=template, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _omni_tokens(tokenizer: Any) -> dict[str, int]:
    return {
        "audio": tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        "image": tokenizer.convert_tokens_to_ids("<|IMAGE|>"),
        "video": tokenizer.convert_tokens_to_ids("<|VIDEO|>"),
        "start": tokenizer.convert_tokens_to_ids("<|audio_bos|>"),
        "end": tokenizer.convert_tokens_to_ids("<|audio_eos|>"),
    }


def qwen25_omni_thinker(folder: Path) -> Path:
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor

    tokenizer = _omni_tokenizer()
    at = _omni_tokens(tokenizer)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={**WHISPER, "output_dim": 32, "n_window": 20},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32},
        text_config={**LAYERS, "vocab_size": len(tokenizer), "rope_parameters": rope},
        audio_token_index=at["audio"],
        image_token_index=at["image"],
        video_token_index=at["video"],
        audio_start_token_id=at["start"],
        audio_end_token_id=at["end"],
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_bos|>"),
    )
    WhisperFeatureExtractor(feature_size=16, chunk_length=300).save_pretrained(folder)
    return _save(Qwen2_5OmniThinkerForConditionalGeneration(config), tokenizer, folder)


def qwen3_omni_thinker(folder: Path) -> Path:
    from transformers import Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeThinkerForConditionalGeneration, WhisperFeatureExtractor

    tokenizer = _omni_tokenizer()
    at = _omni_tokens(tokenizer)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0, "mrope_interleaved": True}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 16}
    config = Qwen3OmniMoeThinkerConfig(
        audio_config={**WHISPER, "output_dim": 32, "n_window": 50, "downsample_hidden_size": 8},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
        },
        text_config={**LAYERS, **experts, "vocab_size": len(tokenizer), "rope_parameters": rope},
        audio_token_id=at["audio"],
        image_token_id=at["image"],
        video_token_id=at["video"],
        audio_start_token_id=at["start"],
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_bos|>"),
    )
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    return _save(Qwen3OmniMoeThinkerForConditionalGeneration(config), tokenizer, folder)


def granite_speech(folder: Path) -> Path:
    from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

    special = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"]
    tokenizer = byte_tokenizer(special, named={}, template=GRANITE, eos_token="<|end_of_text|>", pad_token="<|end_of_text|>")
    qformer = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = GraniteSpeechConfig(
        text_config={"model_type": "granite", **LAYERS, "vocab_size": len(tokenizer), "logits_scaling": 4.0},
        encoder_config={"input_dim": 160, "num_layers": 2, "hidden_dim": 16, "num_heads": 2, "output_dim": 6, "context_size": 20},
        projector_config={"model_type": "blip_2_qformer", **qformer, "encoder_hidden_size": 16},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
    )
    front = {
        "feature_extractor_type": "GraniteSpeechFeatureExtractor",
        "melspec_kwargs": {"hop_length": 160, "n_fft": 512, "n_mels": 80, "sample_rate": 16_000, "win_length": 400},
        "projector_downsample_rate": 5,
        "projector_window_size": 15,
        "sampling_rate": 16_000,
    }
    made = _save(GraniteSpeechForConditionalGeneration(config), tokenizer, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(front))
    return made


def gemma3n(folder: Path) -> Path:
    """Without the vision tower, as it is loaded: timm, which it runs on, is not installed."""
    from transformers import Gemma3nAudioFeatureExtractor, Gemma3nConfig

    from undertone.model.native.gemma import hearing_gemma

    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    pictures = ["<start_of_image>", "<image_soft_token>", "<end_of_image>"]
    sounds = ["<start_of_audio>", "<audio_soft_token>", "<end_of_audio>"]
    named = {
        "image_token": pictures[1],
        "boi_token": pictures[0],
        "eoi_token": pictures[2],
        "audio_token": sounds[1],
        "boa_token": sounds[0],
        "eoa_token": sounds[2],
    }
    settings = {"eos_token": "<eos>", "bos_token": "<bos>", "pad_token": "<pad>"}
    tokenizer = byte_tokenizer([*special, *pictures, *sounds], named=named, template=GEMMA, **settings)
    at = tokenizer.convert_tokens_to_ids
    config = Gemma3nConfig(
        text_config={
            **LAYERS,
            "head_dim": 16,
            "vocab_size": len(tokenizer),
            "vocab_size_per_layer_input": at("<start_of_image>"),
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            "laurel_rank": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "activation_sparsity_pattern": [0.0, 0.0],
            "pad_token_id": at("<pad>"),
            "eos_token_id": at("<eos>"),
            "bos_token_id": at("<bos>"),
        },
        audio_config={
            "vocab_size": 3,
            "vocab_offset": at("<start_of_audio>"),
            "input_feat_size": 32,
            "hidden_size": 16,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 2,
            "sscp_conv_channel_size": (8, 4),
        },
        vision_config={"hidden_size": 16, "vocab_size": 3, "vocab_offset": at("<start_of_image>"), "label_names": ["a", "b"]},
        audio_token_id=at("<audio_soft_token>"),
        image_token_id=at("<image_soft_token>"),
        boa_token_id=at("<start_of_audio>"),
        eoa_token_id=at("<end_of_audio>"),
        boi_token_id=at("<start_of_image>"),
        eoi_token_id=at("<end_of_image>"),
    )
    Gemma3nAudioFeatureExtractor(feature_size=32).save_pretrained(folder)
    return _save(hearing_gemma()(config), tokenizer, folder)


VOXTRAL_CONTROL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
VOXTRAL_CONTROL += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"]
VOXTRAL_CONTROL += ["[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "<SPECIAL_20>", "<SPECIAL_21>"]
VOXTRAL_CONTROL += ["<SPECIAL_22>", "<SPECIAL_23>", "[AUDIO]", "[BEGIN_AUDIO]"]


def voxtral(folder: Path) -> Path:
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor

    names = [*VOXTRAL_CONTROL, *(f"<SPECIAL_{index}>" for index in range(len(VOXTRAL_CONTROL), 40))]
    names[34] = "[TRANSCRIBE]"
    tekken = {
        "config": {
            "pattern": "[^\\s]+|\\s+",
            "num_vocab_tokens": 256,
            "default_vocab_size": 296,
            "default_num_special_tokens": 40,
            "version": "v7",
        },
        "vocab": [
            {"rank": one, "token_bytes": base64.b64encode(bytes([one])).decode(), "token_str": chr(one) if one < 128 else None}
            for one in range(256)
        ],
        "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 16, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
        "version": 1,
        "type": "tekken",
    }
    config = VoxtralConfig(
        audio_config={
            "model_type": "voxtral_encoder",
            "num_mel_bins": 16,
            "hidden_size": 16,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        text_config={"model_type": "llama", **LAYERS, "vocab_size": 296, "head_dim": 16, "max_position_embeddings": 4096},
        audio_token_id=24,
    )
    model = VoxtralForConditionalGeneration(config)
    with torch.no_grad():
        for one in model.parameters():
            if one.dim() > 1:
                one.normal_(0, 0.3)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(tekken))
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "Qwen2-Audio": qwen2_audio,
    "Qwen2.5-Omni": qwen25_omni_thinker,
    "Qwen3-Omni": qwen3_omni_thinker,
    "Voxtral": voxtral,
    "Granite Speech": granite_speech,
    "Gemma 3n": gemma3n,
}
