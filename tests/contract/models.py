"""Tiny models of the real classes with random weights, for the contract tests of the speech-LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from undertone.model.config import DecoderConfig, SpeechLLMConfig
from undertone.model.prompts import build
from undertone.model.speech_llm import SpeechLLM
from undertone.model.tokenizer import TextTokenizer, train_tokenizer

DIM = 6
QUESTIONS = ("How does the speaker sound?", "What is said about the train?", "Who speaks here, and in which mood, would you say?")
ANSWERS = ("Sad.", "It leaves at nine today.", "A woman.")

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.2}
LLAMA: dict[str, Any] = {"model_type": "llama", "num_key_value_heads": 2, "tie_word_embeddings": True, **SMALL}

WHISPER: dict[str, Any] = {
    "model_type": "whisper",
    "d_model": 8,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "num_mel_bins": 16,
    "max_source_positions": 50,  # a window of one second
    "init_std": 0.3,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}

WAV2VEC2: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [8, 8, 5],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "initializer_range": 0.3,
}


def tokenizer() -> TextTokenizer:
    return train_tokenizer([*map(build, QUESTIONS), *ANSWERS, "Emotion: [0.0-2.0 s] sad"], vocab_size=320)


def speech_llm(seed: int = 3, frame_dim: int = DIM, **parts: Any) -> SpeechLLM:
    """A model in eval mode; its decoder is a Llama unless told otherwise."""
    torch.manual_seed(seed)
    config = SpeechLLMConfig.model_validate({"decoder": DecoderConfig(config=LLAMA), **parts})
    return SpeechLLM(config, tokenizer(), frame_dim=frame_dim).eval()


def frames(length: int, seed: int = 0, *, layers: int = 1, dim: int = DIM) -> np.ndarray:
    shape = (length, dim) if layers == 1 else (length, layers, dim)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).normal(size=int(seconds * 16_000))).astype(np.float32)


def saved_encoder(folder: Path, config: dict[str, Any]) -> str:
    """A folder as a user would name it: a model and its feature extractor."""
    torch.manual_seed(1)
    transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)).save_pretrained(folder)
    if config["model_type"] == "whisper":
        extractor = transformers.WhisperFeatureExtractor(feature_size=config["num_mel_bins"], chunk_length=1)
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    extractor.save_pretrained(folder)
    return str(folder)


def saved_decoder(folder: Path) -> str:
    """A folder with a causal LM and its tokeniser."""
    import json

    torch.manual_seed(2)
    held = tokenizer()
    settings = transformers.AutoConfig.for_model(**LLAMA, vocab_size=len(held), pad_token_id=held.pad_id)
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    held.save(folder)
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return str(folder)
