"""Every adapter, encoder and decoder of the speech-LLM keeps the same promises; checkpoints are those of transformers, read strictly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tests.contract.models import (
    ANSWERS,
    DIM,
    LLAMA,
    QUESTIONS,
    SMALL,
    WAV2VEC2,
    WHISPER,
    frames,
    saved_decoder,
    saved_encoder,
    sound,
    speech_llm,
    tokenizer,
)
from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.model.adapters import build_adapter
from undertone.model.ask import ask, ask_in_pieces
from undertone.model.collate import padded, prompt_batch, training_batch
from undertone.model.config import (
    AdapterConfig,
    ConvAdapterConfig,
    DecoderConfig,
    EncoderConfig,
    LoRAConfig,
    QFormerAdapterConfig,
    SpeechLLMConfig,
    TLTRAdapterConfig,
)
from undertone.model.encode import EncodeStage
from undertone.model.encoders import load_encoder, load_inputs
from undertone.model.features import FeatureCache, encode
from undertone.model.prompts import build
from undertone.model.speech_llm import SpeechLLM, tokenizer_for

ADAPTERS: dict[str, dict[str, Any]] = {
    "mlp": {"adapter": AdapterConfig(stack=3, hidden=8, dropout=0.0)},
    "conv": {"adapter": ConvAdapterConfig(bottleneck=4)},
    "conv-2": {"adapter": ConvAdapterConfig(layers=2, hidden=10, bottleneck=4)},
    "qformer": {"adapter": QFormerAdapterConfig(queries=4, heads=2, hidden=8, dropout=0.0)},
    "qformer-taps": {"adapter": QFormerAdapterConfig(queries=3, heads=2, depth=1, dropout=0.0), "taps": 3},
    "qformer-windows": {"adapter": QFormerAdapterConfig(queries=2, window=5, heads=3, dropout=0.0), "taps": 2},
    "tltr": {"adapter": TLTRAdapterConfig(stack=4, layer_heads=2)},
    "tltr-taps": {"adapter": TLTRAdapterConfig(stack=4, layer_heads=4, hidden=8), "taps": 3},
}


def parts(name: str) -> tuple[dict[str, Any], int]:
    """Settings of a model, and how many layers it hears."""
    layers = ADAPTERS[name].get("taps", 1)
    taps = tuple(range(layers)) if layers > 1 else ()
    encoder = EncoderConfig(config=WHISPER, taps=taps)
    return {"adapter": ADAPTERS[name]["adapter"], "encoder": encoder}, layers


@pytest.fixture(params=ADAPTERS)
def heard(request: pytest.FixtureRequest) -> tuple[SpeechLLM, int]:
    settings, layers = parts(request.param)
    return speech_llm(**settings), layers


def test_an_adapter_gives_as_many_embeddings_as_it_says(heard: tuple[SpeechLLM, int]) -> None:
    model, layers = heard
    lengths = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31]
    made, mask = model.hear(*padded([frames(one, layers=layers) for one in lengths]))
    assert made.shape[:2] == mask.shape
    assert mask.sum(1).tolist() == [model.parts.adapter.embeddings(one) for one in lengths]
    # Real embeddings come first, as the audio tokens of a prompt do.
    assert torch.equal(mask, mask.int().sort(dim=1, descending=True).values > 0)


def test_padding_reaches_no_embedding(heard: tuple[SpeechLLM, int]) -> None:
    model, layers = heard
    for length in (1, 6, 13):
        alone, alone_mask = model.hear(*padded([frames(length, layers=layers)]))
        together, mask = padded([frames(length, layers=layers), frames(29, 1, layers=layers), frames(0, layers=layers)])
        together[~mask] = 9.0  # whatever stands there
        made, made_mask = model.hear(together, mask)
        torch.testing.assert_close(made[0][made_mask[0]], alone[0][alone_mask[0]], rtol=1e-5, atol=1e-6)
        assert not made_mask[2].any()


def test_every_weight_of_an_adapter_learns_and_silence_beside_speech_breaks_nothing(heard: tuple[SpeechLLM, int]) -> None:
    model, layers = heard
    pad = model.tokenizer.pad_id
    speech = model.item(build(QUESTIONS[0]), frames(30, layers=layers), target=ANSWERS[0])
    silent = model.item(build(QUESTIONS[1], speech=""), None, target=ANSWERS[1])
    output = model.on(training_batch([[speech], [silent]], pad_id=pad))
    output.loss.backward()
    for name, weight in model.adapter.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        # Softmax does not see a constant added to all keys, and over a single layer it is one whatever the weights.
        idle = ("layer_weights", "layer.attend.query", "layer.attend.key") if layers == 1 else ()
        if not name.endswith("key.bias") and not name.startswith(idle):
            assert weight.grad.abs().sum() > 0, name
    alone = [model.on(training_batch([[one]], pad_id=pad)).loss for one in (speech, silent)]
    torch.testing.assert_close(output.loss, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)


def test_batched_answers_equal_single_ones_and_streamed_ones(heard: tuple[SpeechLLM, int], tmp_path: Path) -> None:
    model, layers = heard
    prompts = [build(q, metadata=m) for q in QUESTIONS for m in (None, "Emotion: [0.0-2.0 s] sad")]
    clips = [frames(3 + 5 * index, index, layers=layers) for index in range(len(prompts))]
    together = model.answer(prompts, clips, max_new_tokens=10)
    assert len({one.raw for one in together}) > 1
    for prompt, clip, reply in zip(prompts, clips, together, strict=True):
        assert model.answer([prompt], [clip], max_new_tokens=10) == [reply]
        assert "".join(model.stream(prompt, clip, max_new_tokens=10)) == reply.text
    model.save(tmp_path)
    assert SpeechLLM.load(tmp_path).answer(prompts, clips, max_new_tokens=10) == together


def test_tapped_frames_pass_through_the_cache(tmp_path: Path) -> None:
    settings, layers = parts("qformer-taps")
    model, made = speech_llm(**settings), frames(20, layers=layers).astype(np.float16)
    cache = FeatureCache(tmp_path, encoder="toy", max_audio_s=30)
    cache.put("c", made)
    assert np.array_equal(cache["c"], made)
    prompt = [build(QUESTIONS[0])]
    assert model.answer(prompt, [cache["c"]], max_new_tokens=5) == model.answer(prompt, [made], max_new_tokens=5)


@pytest.mark.parametrize(
    ("config", "frame_dim", "layers", "out_dim", "count", "source"),
    [
        (AdapterConfig(), 1280, 1, 3584, 49_492_224, "MERaLiON v1, 49.5 M: core-papers 1.1"),
        (ConvAdapterConfig(), 2304, 1, 4096, 2 * 53_088_768 + 94_380_032 + 4_198_912 + 8_192, "RE-LLM: core-papers 4.1"),
        (QFormerAdapterConfig(heads=20), 1280, 4, 3584, None, "DeSTA2: 64 queries for each of 4 layers"),
        (TLTRAdapterConfig(), 1280, 32, 4096, None, "LTU-AS"),
    ],
    ids=["mlp", "conv", "qformer", "tltr"],
)
def test_parameters_at_the_papers_widths(
    config: Any, frame_dim: int, layers: int, out_dim: int, count: int | None, source: str
) -> None:
    with torch.device("meta"):
        made = build_adapter(config, frame_dim=frame_dim, out_dim=out_dim, layers=layers)
        out, mask = made(
            torch.zeros(1, 1500, layers, frame_dim) if layers > 1 else torch.zeros(1, 1500, frame_dim), torch.ones(1, 1500) > 0
        )
    assert out.shape == (1, config.embeddings(1500), out_dim)
    assert mask.shape == out.shape[:2]
    norm, linear = 2 * frame_dim, frame_dim * out_dim + out_dim
    attention = 4 * (frame_dim**2 + frame_dim) + norm
    feed = 2 * 4 * frame_dim**2 + 5 * frame_dim + norm
    expected = {
        "qformer": 4 * 64 * 1280 + 64 * 4 + 2 * (2 * attention + feed) + 2 * norm + linear,
        "tltr": 2 * (attention + feed) + norm + linear,
    }
    assert sum(one.numel() for one in made.parameters()) == (count or expected[config.kind]), source


def test_the_papers_shapes() -> None:
    assert AdapterConfig().embeddings(1500) == 100
    assert ConvAdapterConfig().embeddings(1500) == 188
    assert QFormerAdapterConfig().embeddings(1500) == 64
    assert QFormerAdapterConfig(window=1500).embeddings(3000) == 128
    assert TLTRAdapterConfig().embeddings(500) == 25


def test_adapters_that_cannot_work_are_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"adapter 'mlp' hears one layer, but encoder\.taps names 2; choose 'qformer' or 'tltr'"
    ):
        SpeechLLMConfig(encoder=EncoderConfig(config=WHISPER, taps=(1, 2)))
    with pytest.raises(ValidationError, match="affect-small has one output and no layers to tap"):
        EncoderConfig(name="affect-small", taps=(1,))
    with pytest.raises(ValidationError, match="taps names a layer twice"):
        EncoderConfig(config=WHISPER, taps=(1, 1))
    with pytest.raises(ValidationError, match=r"does not match any of the expected tags: 'mlp', 'conv', 'qformer', 'tltr'"):
        SpeechLLMConfig.model_validate({"adapter": {"kind": "linear"}})
    with pytest.raises(ModelError, match=r"8 heads of attention do not divide an adapter of width 6; set adapter\.hidden"):
        speech_llm(adapter=QFormerAdapterConfig())


def test_what_a_study_wrote_before_there_was_a_choice_is_written_as_it_was() -> None:
    old = {
        "encoder": {"name": "affect-small", "config": None},
        "adapter": {"kind": "mlp", "stack": 15, "hidden": None, "dropout": 0.1},
    }
    made = SpeechLLMConfig().model_dump(mode="json")
    assert {key: made[key] for key in old} == old
    assert set(made) == {"encoder", "adapter", "decoder", "frozen", "max_audio_s", "metadata"}
    assert set(made["decoder"]) == {"name", "config"}
    changed = SpeechLLMConfig(lora=LoRAConfig(), frozen=("encoder", "decoder"), stop=("\n",))
    assert SpeechLLMConfig.model_validate(changed.model_dump(mode="json")) == changed


# --- encoders ---------------------------------------------------------------------------------------------------------------------


def test_long_audio_is_cut_at_the_window_or_encoded_window_by_window(tmp_path: Path) -> None:
    name = saved_encoder(tmp_path, WHISPER)
    long = sound(2.5)
    cut = load_encoder(EncoderConfig(name=name))
    chunks = load_encoder(EncoderConfig(name=name, long_audio="chunk"))
    assert cut.fingerprint != chunks.fingerprint
    assert encode(long, cut, max_audio_s=30).shape == (50, 8)
    made = encode(long, chunks, max_audio_s=30)
    assert made.shape == (150, 8)
    for index in range(3):
        one = encode(long[16_000 * index : 16_000 * (index + 1)], cut, max_audio_s=30)
        assert np.array_equal(made[50 * index : 50 * (index + 1)], one)
    # A rest too short for a word is no window, and max_audio_s holds in both ways.
    assert encode(sound(2.05), chunks, max_audio_s=30).shape == (100, 8)
    assert encode(long, chunks, max_audio_s=1.5).shape == (100, 8)
    model = speech_llm(encoder=EncoderConfig(name=name, long_audio="chunk"), frame_dim=8, adapter=ADAPTERS["mlp"]["adapter"])
    assert model.item(build("Who?"), made).prompt.count(model.tokenizer.audio_id) == 50


def test_layers_are_tapped_and_frames_pooled() -> None:
    plain = load_encoder(EncoderConfig(config=WHISPER))
    tapped = load_encoder(EncoderConfig(config=WHISPER, taps=(0, 2, 3)))
    samples = sound(1.0)
    states, last = tapped.frames(samples), plain.frames(samples)
    assert states.shape == (50, 3, 8)
    assert np.array_equal(load_encoder(EncoderConfig(config=WHISPER, taps=(2,))).frames(samples), states[:, 1])
    assert not np.allclose(states[:, 0], states[:, 1])
    # Whisper's last hidden state is its output, after the final layer norm.
    assert np.array_equal(states[:, 2], last)
    pooled = load_encoder(EncoderConfig(config=WHISPER, taps=(0, 2, 3), pool=20)).frames(samples)
    assert pooled.shape == (3, 3, 8)
    np.testing.assert_allclose(pooled[0], states[:20].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled[2], states[40:].mean(0), rtol=1e-5, atol=1e-6)
    assert len({one.fingerprint for one in (plain, tapped)}) == 2
    with pytest.raises(ModelError, match=r"encoder\.taps names hidden state 4, but this encoder has 0 to 3"):
        load_encoder(EncoderConfig(config=WHISPER, taps=(4,))).frames(samples)


ENCODERS = {"whisper": WHISPER, "wav2vec2": WAV2VEC2}


@pytest.mark.parametrize("long_audio", ["truncate", "chunk"])
@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("adapter", ["mlp", "qformer-taps"])
def test_an_encoder_inside_hears_what_one_outside_does(tmp_path: Path, kind: str, adapter: str, long_audio: Any) -> None:
    name = saved_encoder(tmp_path, ENCODERS[kind])
    layers = ADAPTERS[adapter].get("taps", 1)
    taps = (0, 1, 2) if layers > 1 else ()
    encoder = EncoderConfig(name=name, taps=taps, long_audio=long_audio, pool=2)
    settings = {"encoder": encoder, "adapter": ADAPTERS[adapter]["adapter"]}
    reads = load_inputs(encoder)
    inside = speech_llm(frame_dim=reads.dim, frozen=(), **settings)
    outside = speech_llm(frame_dim=8, **settings)
    outside.adapter.load_state_dict(inside.adapter.state_dict())
    outside.decoder.load_state_dict(inside.decoder.state_dict())
    sounds = [sound(0.4, 1), sound(1.0, 2), sound(2.3, 3)]
    inputs, made = [reads.frames(one) for one in sounds], [load_encoder(encoder).frames(one) for one in sounds]
    assert [inside.embeddings_of(len(one)) for one in inputs] == [outside.embeddings_of(len(one)) for one in made]
    items = [inside.item(build(q), one, target=a) for q, one, a in zip(QUESTIONS, inputs, ANSWERS, strict=True)]
    others = [outside.item(build(q), one, target=a) for q, one, a in zip(QUESTIONS, made, ANSWERS, strict=True)]
    pad = inside.tokenizer.pad_id
    nll = inside.on(training_batch([[one] for one in items], pad_id=pad)).nll
    torch.testing.assert_close(nll, outside.on(training_batch([[one] for one in others], pad_id=pad)).nll, rtol=1e-4, atol=1e-4)
    assert inside.answer([build(q) for q in QUESTIONS], inputs, max_new_tokens=5) == [
        inside.answer([build(q)], [one], max_new_tokens=5)[0] for q, one in zip(QUESTIONS, inputs, strict=True)
    ]


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_inside_is_trained_stored_and_read(tmp_path: Path, kind: str) -> None:
    encoder = EncoderConfig(name=saved_encoder(tmp_path / "encoder", ENCODERS[kind]))
    reads = load_inputs(encoder)
    model = speech_llm(frame_dim=reads.dim, frozen=("decoder",), encoder=encoder, adapter=ADAPTERS["mlp"]["adapter"])
    one, silent = reads.frames(sound(1.0)), model.item(build("Who?", speech=""), None, target="A man.")
    batch = training_batch([[model.item(build("Who?"), one, target="A man.")], [silent]], pad_id=model.tokenizer.pad_id)
    model.train()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.on(batch).loss.backward()
    optimizer.step()
    moved = {name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"encoder", "adapter"}
    model.eval().save(tmp_path / "checkpoint")
    (tmp_path / "encoder").rename(tmp_path / "gone")  # all is in the checkpoint
    loaded = SpeechLLM.load(tmp_path / "checkpoint")
    assert loaded.answer([build("Who?")], [one], max_new_tokens=6) == model.answer([build("Who?")], [one], max_new_tokens=6)


def test_lora_on_the_encoder_trains_and_merges(tmp_path: Path) -> None:
    encoder = EncoderConfig(name=saved_encoder(tmp_path / "encoder", WHISPER))
    reads = load_inputs(encoder)
    lora = LoRAConfig(r=2, targets=("q_proj", "v_proj"))
    model = speech_llm(
        frame_dim=reads.dim,
        frozen=("encoder", "decoder", "adapter"),
        encoder=encoder,
        encoder_lora=lora,
        adapter=ADAPTERS["mlp"]["adapter"],
    )
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 3 * 2 * 2
    assert all(name.startswith("encoder.") and ".lora_" in name for name in trained)
    _shake(model)
    one = reads.frames(sound(1.0))
    expected = model.answer([build("Who?")], [one], max_new_tokens=6)
    model.save(tmp_path / "checkpoint")
    assert {name for name in load_file(tmp_path / "checkpoint" / "model.safetensors") if name.startswith("encoder.")} == trained
    loaded = SpeechLLM.load(tmp_path / "checkpoint")
    assert loaded.answer([build("Who?")], [one], max_new_tokens=6) == expected
    loaded.merge().save(tmp_path / "merged")
    (tmp_path / "encoder").rename(tmp_path / "gone")
    assert SpeechLLM.load(tmp_path / "merged").answer([build("Who?")], [one], max_new_tokens=6) == expected


def test_encoders_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="affect-small cannot be trained here"):
        SpeechLLMConfig(frozen=("decoder",))
    with pytest.raises(ValidationError, match="encoder_lora trains beside a frozen encoder: add 'encoder' to frozen"):
        SpeechLLMConfig(encoder=EncoderConfig(config=WHISPER), frozen=("decoder",), encoder_lora=LoRAConfig())
    tiny = {"model_type": "audio-spectrogram-transformer", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**tiny, intermediate_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="of type 'audio-spectrogram-transformer' can be used frozen only"):
        speech_llm(frozen=("decoder",), encoder=EncoderConfig(name=str(tmp_path)))


def test_a_stage_stores_inputs_for_an_encoder_inside_and_its_identity_is_what_it_was(tmp_path: Path) -> None:
    name = saved_encoder(tmp_path, WHISPER)
    stage = EncodeStage(encoder=EncoderConfig(name=name))
    encoder = load_encoder(EncoderConfig(name=name))
    identity = stage.identity()
    assert identity["encoder"] == {"name": name, "config": None}
    assert "inputs" not in identity
    assert identity["fingerprint"] == encoder.fingerprint
    other = EncodeStage(encoder=EncoderConfig(name=name), inputs=True).identity()["fingerprint"]
    assert other == load_inputs(EncoderConfig(name=name)).fingerprint != encoder.fingerprint


# --- decoders ---------------------------------------------------------------------------------------------------------------------

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": {"model_type": "mistral", "num_key_value_heads": 1, "head_dim": 8, **SMALL},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 1, **SMALL},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 8, **SMALL},
    "gemma": {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 8, **SMALL},
    "gemma2": {"model_type": "gemma2", "num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 5.0, **SMALL},
    "granite": {"model_type": "granite", "num_key_value_heads": 1, "logits_scaling": 3.0, "embedding_multiplier": 2.0, **SMALL},
    "cohere": {"model_type": "cohere", "num_key_value_heads": 1, "logit_scale": 0.5, **SMALL},
    "phi3": {"model_type": "phi3", "num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2, **SMALL},
    "olmo2": {"model_type": "olmo2", "num_key_value_heads": 1, **SMALL},
    "gpt_neox": {"model_type": "gpt_neox", **SMALL},
    "opt": {
        "model_type": "opt",
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "init_std": 0.2,
        "word_embed_proj_dim": 16,
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.2},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_decoders_gives_its_own_loss_alone_and_packed_and_batched_answers(family: str, tmp_path: Path) -> None:
    model = speech_llm(decoder=DecoderConfig(config=FAMILIES[family]), adapter=ADAPTERS["mlp"]["adapter"])
    pad = model.tokenizer.pad_id
    items = [model.item(build(q), frames(11), target=a) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    single = [model.on(training_batch([[one]], pad_id=pad)) for one in items]
    # against the whole of transformers' causal LM on the same embeddings
    batch = training_batch([[items[1]]], pad_id=pad)
    logits = model.decoder(inputs_embeds=model._embed(batch.frames, batch.frame_mask, batch.input_ids)).logits[0]
    first = len(items[1].prompt) - 1
    torch.testing.assert_close(single[1].logits, logits[first:-1], rtol=1e-4, atol=1e-5)
    packed = model.on(training_batch([items], pad_id=pad))
    torch.testing.assert_close(packed.nll, torch.cat([one.nll for one in single]), rtol=1e-4, atol=1e-4)
    prompts, clips = [build(q) for q in QUESTIONS], [frames(4 + 6 * index, index) for index in range(3)]
    together = model.answer(prompts, clips, max_new_tokens=8)
    for prompt, clip, reply in zip(prompts, clips, together, strict=True):
        assert model.answer([prompt], [clip], max_new_tokens=8) == [reply]
        assert "".join(model.stream(prompt, clip, max_new_tokens=8)) == reply.text
    model.save(tmp_path)
    assert SpeechLLM.load(tmp_path).answer(prompts, clips, max_new_tokens=8) == together


def test_a_decoder_in_half_precision_trains_and_answers(tmp_path: Path) -> None:
    model = speech_llm(
        decoder=DecoderConfig(config=LLAMA, dtype="bfloat16"), frozen=("encoder", "decoder"), adapter=ADAPTERS["mlp"]["adapter"]
    )
    assert {weight.dtype for weight in model.decoder.parameters()} == {torch.bfloat16}
    batch = training_batch([[model.item(build("Who?"), frames(9), target="A man.")]], pad_id=model.tokenizer.pad_id)
    model.on(batch).loss.backward()
    assert all(torch.isfinite(weight.grad).all() and weight.dtype == torch.float32 for weight in model.adapter.parameters())
    model.save(tmp_path)
    loaded = SpeechLLM.load(tmp_path)
    assert loaded.answer([build("Who?")], [frames(9)], max_new_tokens=4) == model.answer(
        [build("Who?")], [frames(9)], max_new_tokens=4
    )


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model = speech_llm(adapter=ADAPTERS["mlp"]["adapter"]).train()
    batch = training_batch([[model.item(build("Who?"), frames(9), target="A man.")]], pad_id=model.tokenizer.pad_id)
    model.on(batch).loss.backward()
    plain = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    model.activation_checkpointing_enable()
    calls: list[int] = []
    handle = model.decoder.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    model.on(batch).loss.backward()
    handle.remove()
    assert len(calls) == 2  # once more on the way back
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, plain[name], msg=name)
    assert model.answer([build("Who?")], [frames(9)], max_new_tokens=2)


# --- LoRA -------------------------------------------------------------------------------------------------------------------------


def _shake(model: SpeechLLM) -> None:
    """Give the updates values: they begin as nothing."""
    torch.manual_seed(9)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.5)


LORA = LoRAConfig(r=2, alpha=4, targets=("q_proj", "v_proj"))
FROZEN = ("encoder", "decoder")


@pytest.mark.parametrize("named", [False, True], ids=["new decoder", "named decoder"])
def test_lora_trains_beside_a_frozen_decoder_and_is_stored_loaded_and_merged(tmp_path: Path, named: bool) -> None:
    decoder = DecoderConfig(name=saved_decoder(tmp_path / "llm")) if named else DecoderConfig(config=LLAMA)
    model = speech_llm(decoder=decoder, lora=LORA, frozen=FROZEN, adapter=ADAPTERS["mlp"]["adapter"])
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    updates = {name for name in trained if name.startswith("decoder.")}
    assert len(updates) == 2 * 2 * 2
    assert {name for name in trained if not name.startswith("decoder.")} == {
        f"adapter.{name}" for name, _ in model.adapter.named_parameters()
    }

    prompts, clips = [build(q) for q in QUESTIONS], [frames(5 + 4 * n, n) for n in range(3)]
    plain = model.answer(prompts, clips, max_new_tokens=8)
    _shake(model)
    answers = model.answer(prompts, clips, max_new_tokens=8)
    assert answers != plain
    model.save(tmp_path / "lora")
    stored = load_file(tmp_path / "lora" / "model.safetensors")
    assert {name for name in stored if ".lora_" in name} == updates
    assert any(".base_layer." in name for name in stored) != named
    loaded = SpeechLLM.load(tmp_path / "lora")
    assert loaded.answer(prompts, clips, max_new_tokens=8) == answers

    merged = loaded.merge()
    assert merged.parts.lora is None
    assert not [name for name, _ in merged.named_modules() if "lora" in name]
    assert merged.answer(prompts, clips, max_new_tokens=8) == answers
    merged.save(tmp_path / "merged")
    if named:
        (tmp_path / "llm").rename(tmp_path / "gone")
    assert SpeechLLM.load(tmp_path / "merged").answer(prompts, clips, max_new_tokens=8) == answers


def test_updates_beside_half_precision_are_of_float32(tmp_path: Path) -> None:
    """A step of 1e-4 on a weight of 1 is less than bfloat16 can tell apart."""
    decoder = DecoderConfig(config=LLAMA, dtype="bfloat16")
    model = speech_llm(decoder=decoder, lora=LORA, frozen=FROZEN, adapter=ADAPTERS["mlp"]["adapter"])
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert {weight.dtype for name, weight in model.decoder.named_parameters() if ".lora_" not in name} == {torch.bfloat16}
    _shake(model)
    batch = training_batch([[model.item(build("Who?"), frames(9), target="A man.")]], pad_id=model.tokenizer.pad_id)
    model.on(batch).loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in trained.values())
    model.save(tmp_path)
    loaded = SpeechLLM.load(tmp_path)
    states = model.state_dict()
    assert all(torch.equal(weight, states[name]) for name, weight in loaded.state_dict().items())
    prompts, clips = [build(q) for q in QUESTIONS], [frames(7)] * 3
    assert loaded.answer(prompts, clips, max_new_tokens=4) == model.answer(prompts, clips, max_new_tokens=4)
    assert len(loaded.merge().answer(prompts, clips, max_new_tokens=4)) == 3


def test_a_lora_checkpoint_that_does_not_fit_names_every_key(tmp_path: Path) -> None:
    speech_llm(lora=LORA, frozen=FROZEN).save(tmp_path)
    path = tmp_path / "model.safetensors"
    stored = load_file(path)
    key = next(name for name in stored if ".lora_A." in name)
    save_file({name: tensor for name, tensor in stored.items() if name != key}, path)
    with pytest.raises(ModelError, match=f"missing: {key}"):
        SpeechLLM.load(tmp_path)


def test_a_system_with_lora_starts_from_a_checkpoint_without(tmp_path: Path) -> None:
    start = speech_llm(adapter=ADAPTERS["mlp"]["adapter"])
    start.save(tmp_path)
    model = speech_llm(seed=8, lora=LORA, frozen=FROZEN, adapter=ADAPTERS["mlp"]["adapter"])
    model.load_weights(tmp_path)
    prompts, clips = [build(q) for q in QUESTIONS], [frames(7)] * 3
    assert model.answer(prompts, clips, max_new_tokens=6) == start.answer(prompts, clips, max_new_tokens=6)
    # The other way round nothing is guessed.
    model.save(tmp_path / "lora")
    with pytest.raises(ModelError, match=r"does not fit config\.json: missing: decoder.*unexpected: .*lora_A"):
        start.load_weights(tmp_path / "lora")


def test_lora_that_fits_nothing_says_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"lora\.targets=\['c_attn'\] does not fit a 'llama'.*called down_proj, gate_proj"):
        speech_llm(lora=LoRAConfig(targets=("c_attn",)), frozen=FROZEN)
    with pytest.raises(ValidationError, match="lora trains beside a frozen decoder: add 'decoder' to frozen; got \\['encoder'\\]"):
        SpeechLLMConfig(lora=LORA)
    default = speech_llm(lora=LoRAConfig(), frozen=FROZEN)
    wide = speech_llm(lora=LoRAConfig(targets=("all-linear",)), frozen=FROZEN)
    count = [sum(".lora_A." in name for name, _ in one.named_parameters()) for one in (default, wide)]
    assert count == [2 * 2, 2 * 7]


# --- checkpoints as transformers has them -----------------------------------------------------------------------------------------


def test_transformers_reads_a_checkpoint_by_its_own_door(tmp_path: Path) -> None:
    model = speech_llm(adapter=ADAPTERS["conv"]["adapter"])
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.model_type, config.architectures, config.vocab_size) == ("undertone", ["SpeechLLM"], len(model.tokenizer))
    assert config.checkpoint == model.config.checkpoint
    loaded = transformers.AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, SpeechLLM)
    prompt = [build("Who?")]
    assert loaded.answer(prompt, [frames(9)], max_new_tokens=5) == model.answer(prompt, [frames(9)], max_new_tokens=5)
    held = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert held("A woman. It leaves.", add_special_tokens=False).input_ids == model.tokenizer._plain("A woman. It leaves.")
    assert (held.pad_token_id, held.eos_token_id) == (model.tokenizer.pad_id, model.tokenizer.end_id)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (generation.do_sample, generation.eos_token_id) == (False, model.tokenizer.end_id)
    bare = transformers.AutoModel.from_config(config)
    assert {name: one.shape for name, one in bare.state_dict().items()} == {
        name: one.shape for name, one in model.state_dict().items()
    }
    with pytest.raises(ModelError, match="built from a configuration, without a tokeniser"):
        bare.answer(prompt, [frames(9)])
    half = SpeechLLM.from_pretrained(tmp_path, dtype=torch.bfloat16, device_map="cpu")
    assert {one.dtype for one in half.parameters()} == {torch.bfloat16}


def test_a_large_checkpoint_is_in_shards_and_a_lost_one_is_missed(tmp_path: Path) -> None:
    model = speech_llm(adapter=ADAPTERS["mlp"]["adapter"])
    model.save(tmp_path, max_shard_size="10KB")
    shards = sorted(path.name for path in tmp_path.glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    assert not (tmp_path / "model.safetensors").exists()
    loaded = SpeechLLM.load(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    first = load_file(tmp_path / shards[0])
    gone = next(iter(first))
    save_file({name: tensor for name, tensor in first.items() if name != gone}, tmp_path / shards[0])
    with pytest.raises(ModelError, match=rf"index\.json does not fit config\.json: missing: {gone}\."):
        SpeechLLM.load(tmp_path)
    (tmp_path / shards[1]).unlink()
    with pytest.raises(ModelError, match=rf"{shards[1]} does not load: .*train this checkpoint again"):
        SpeechLLM.load(tmp_path)
    # Fewer files than before leave no old ones beside them.
    model.save(tmp_path)
    assert SpeechLLM.load(tmp_path).parts == model.parts


def test_a_checkpoint_of_format_1_is_read(tmp_path: Path) -> None:
    model = speech_llm(adapter=ADAPTERS["mlp"]["adapter"])
    model.save(tmp_path)
    old = {
        "format": 1,
        "model": model.parts.model_dump(mode="json"),
        "frame_dim": DIM,
        "tokens": model.tokenizer.tokens.model_dump(),
        "encoder_fingerprint": None,
        "system": None,
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    loaded = SpeechLLM.load(tmp_path)
    assert loaded.answer([build("Who?")], [frames(9)], max_new_tokens=5) == model.answer(
        [build("Who?")], [frames(9)], max_new_tokens=5
    )
    loaded.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["format"] == 2


def test_a_named_decoder_that_was_trained_needs_its_name_no_more(tmp_path: Path) -> None:
    decoder = DecoderConfig(name=saved_decoder(tmp_path / "llm"))
    model = SpeechLLM(SpeechLLMConfig(decoder=decoder), tokenizer_for(decoder), frame_dim=DIM).eval()
    with torch.no_grad():
        model.decoder.get_input_embeddings().weight.add_(0.1)
    model.save(tmp_path / "checkpoint")
    (tmp_path / "llm").rename(tmp_path / "gone")
    loaded = SpeechLLM.load(tmp_path / "checkpoint")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_part_that_was_thawed_is_stored(tmp_path: Path) -> None:
    decoder = DecoderConfig(name=saved_decoder(tmp_path / "llm"))
    model = SpeechLLM(SpeechLLMConfig(decoder=decoder, frozen=FROZEN), tokenizer_for(decoder), frame_dim=DIM).eval()
    model.save(tmp_path / "frozen")
    assert not [name for name in load_file(tmp_path / "frozen" / "model.safetensors") if name.startswith("decoder.")]
    model.decoder.requires_grad_(True)
    model.save(tmp_path / "thawed")
    assert [name for name in load_file(tmp_path / "thawed" / "model.safetensors") if name.startswith("decoder.")]
    assert SpeechLLM.load(tmp_path / "thawed").config.elsewhere == []


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is neither a folder nor a checkpoint on the Hub"):
        SpeechLLM.from_pretrained(str(tmp_path / "nowhere"), local_files_only=True)
    speech_llm().save(tmp_path)
    with pytest.raises(ModelError, match="knows nothing of quantization_config; leave it out"):
        SpeechLLM.from_pretrained(tmp_path, quantization_config={})


# --- where an answer ends ---------------------------------------------------------------------------------------------------------


def test_an_answer_ends_at_a_stop_text_in_every_way_of_asking(tmp_path: Path) -> None:
    prompts, clips = [build(q) for q in QUESTIONS], [frames(5 + 4 * n, n) for n in range(3)]
    free = [one.text for one in speech_llm(adapter=ADAPTERS["mlp"]["adapter"]).answer(prompts, clips, max_new_tokens=24)]
    # Two characters that stand inside what the first and the last say, over a border of tokens or not.
    stop = tuple(text[len(text) // 2 : len(text) // 2 + 2] for text in (free[0], free[2]))
    model = speech_llm(adapter=ADAPTERS["mlp"]["adapter"], stop=stop)
    stopped = model.answer(prompts, clips, max_new_tokens=24)
    for whole, reply, prompt, clip in zip(free, stopped, prompts, clips, strict=True):
        first = min((whole.index(text) for text in stop if text in whole), default=len(whole))
        assert reply.text == whole[:first].strip()
        assert model.answer([prompt], [clip], max_new_tokens=24) == [reply]
        assert "".join(model.stream(prompt, clip, max_new_tokens=24)) == reply.text
    assert len(stopped[0].text) < len(free[0])
    model.save(tmp_path)
    assert SpeechLLM.load(tmp_path).answer(prompts, clips, max_new_tokens=24) == stopped


def test_streaming_gives_more_than_one_piece_and_no_half_character() -> None:
    model = speech_llm(adapter=ADAPTERS["mlp"]["adapter"])
    spoken = model.tokenizer.target_ids("Zwei Züge fahren 日本, sagt sie.")
    model._greedy = lambda item, most: iter(spoken[:-1])  # type: ignore[method-assign]
    pieces = list(model.stream(build("Who?"), None))
    assert "".join(pieces) == "Zwei Züge fahren 日本, sagt sie."
    assert len(pieces) > 5
    assert not [piece for piece in pieces if "\ufffd" in piece]


def test_asking_leaves_a_model_in_training_as_it_was() -> None:
    model = speech_llm().train()
    list(model.stream(build("Who?"), frames(20), max_new_tokens=2))
    model.generate(prompt_batch([model.item(build("Who?"), frames(20))], pad_id=model.tokenizer.pad_id), max_new_tokens=2)
    with pytest.raises(ModelError, match="audio tokens but no frames were given"):
        model.generate(replace(prompt_batch([model.item(build("Who?"), frames(20))], pad_id=0), frames=None), max_new_tokens=2)
    assert model.training
    assert model.adapter.training


@pytest.mark.parametrize("frozen", [("encoder",), ()], ids=["outside", "inside"])
def test_a_file_is_asked_about_at_once_or_piece_by_piece(tmp_path: Path, frozen: tuple[Any, ...]) -> None:
    encoder = EncoderConfig(name=saved_encoder(tmp_path / "encoder", WHISPER), long_audio="chunk")
    reads = load_inputs(encoder) if not frozen else load_encoder(encoder)
    config = SpeechLLMConfig(
        encoder=encoder, frozen=frozen, adapter=ADAPTERS["mlp"]["adapter"], decoder=DecoderConfig(config=LLAMA)
    )
    torch.manual_seed(3)
    SpeechLLM(config, tokenizer(), frame_dim=reads.dim, encoder_fingerprint=reads.fingerprint).save(tmp_path / "checkpoint")
    wave = Wave(sound(1.6), 16_000)
    whole = ask(tmp_path / "checkpoint", wave, "Who speaks?", max_new_tokens=12)
    pieces = list(ask_in_pieces(tmp_path / "checkpoint", wave, "Who speaks?", max_new_tokens=12))
    assert whole
    assert "".join(pieces) == whole
    other = EncoderConfig(name=encoder.name)
    SpeechLLM(
        config.model_copy(update={"encoder": other}), tokenizer(), frame_dim=reads.dim, encoder_fingerprint=reads.fingerprint
    ).save(tmp_path / "other")
    with pytest.raises(ModelError, match="was trained on frames of encoder"):
        ask(tmp_path / "other", wave, "Who speaks?")
