"""The speech-LLM: loss on the answer only, packing that changes nothing, batched answers equal to single ones, strict checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from undertone.errors import ModelError
from undertone.model.collate import IGNORE, prompt_batch, training_batch
from undertone.model.config import AdapterConfig, DecoderConfig, EncoderConfig, SpeechLLMConfig
from undertone.model.encoders import load_encoder
from undertone.model.features import FeatureCache, encode
from undertone.model.prompts import build
from undertone.model.speech_llm import CONFIG_FILE, WEIGHTS_FILE, SpeechLLM
from undertone.model.tokenizer import SpecialTokens, TextTokenizer, decoder_tokenizer, train_tokenizer

QUESTIONS = ["How does the speaker sound?", "What is said about the train?", "Who speaks here, and in which mood, would you say?"]
ANSWERS = ["Sad.", "It leaves at nine today.", "A woman."]
DIM = 6
LLAMA = {"model_type": "llama", "num_key_value_heads": 2}
GEMMA = {"model_type": "gemma2", "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 64, "final_logit_softcapping": 5.0}


def config(extra: dict[str, object] | None = None, **changes: object) -> SpeechLLMConfig:
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.2}
    decoder = DecoderConfig(config={**small, "tie_word_embeddings": True, **(extra or LLAMA)})
    return SpeechLLMConfig.model_validate({"adapter": AdapterConfig(stack=3, hidden=8, dropout=0.0), "decoder": decoder, **changes})


def tokenizer() -> TextTokenizer:
    return train_tokenizer([*map(build, QUESTIONS), *ANSWERS, "Emotion: [0.0-2.0 s] sad"], vocab_size=320)


@pytest.fixture(params=[LLAMA, GEMMA], ids=["llama", "gemma2"])
def model(request: pytest.FixtureRequest) -> SpeechLLM:
    torch.manual_seed(3)
    return SpeechLLM(config(request.param), tokenizer(), frame_dim=DIM).eval()


def frames(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, DIM)).astype(np.float32)


def test_loss_is_on_answer_tokens_only(model: SpeechLLM) -> None:
    item = model.item(build(QUESTIONS[0]), frames(7), target=ANSWERS[0])
    batch = training_batch([[item]], pad_id=model.tokenizer.pad_id)
    answer = list(item.target)
    assert batch.labels[0].tolist() == [IGNORE] * len(item.prompt) + answer
    assert answer[-1] == model.tokenizer.end_id

    # against the plain causal LM of transformers on the same embeddings, all positions
    output = model.on(batch)
    embeddings = model._embed(batch.frames, batch.frame_mask, batch.input_ids)
    logits = model.decoder(inputs_embeds=embeddings).logits[0].detach().requires_grad_()
    targets = batch.input_ids[0, 1:].clone()
    first = len(item.prompt) - 1
    expected = torch.nn.functional.cross_entropy(logits[first:-1], targets[first:])
    torch.testing.assert_close(output.loss, expected)
    assert len(output.nll) == len(answer)


def test_prompt_targets_change_nothing_and_answer_targets_do(model: SpeechLLM) -> None:
    item = model.item(build(QUESTIONS[0]), frames(7), target=ANSWERS[0])
    batch = training_batch([[item]], pad_id=model.tokenizer.pad_id)

    def loss(labels: torch.Tensor) -> float:
        out = model(batch.frames, batch.frame_mask, batch.input_ids, batch.attention_mask, labels, position_ids=batch.position_ids)
        return float(out.loss.detach())

    base, start = loss(batch.labels), len(item.prompt)
    for column in range(batch.labels.shape[1]):
        changed = batch.input_ids.clone()
        changed[0, column] = (changed[0, column] + 1) % len(model.tokenizer)
        labels = torch.where(batch.labels == IGNORE, batch.labels, changed)
        assert (loss(labels) != base) == (column >= start)


def test_no_gradient_reaches_logits_of_the_prompt(model: SpeechLLM) -> None:
    """The hidden states in front of prompt tokens get a gradient only through attention; directly from the loss they get none."""
    item = model.item(build(QUESTIONS[1]), frames(7), target=ANSWERS[1])
    batch = training_batch([[item]], pad_id=model.tokenizer.pad_id)
    seen: list[torch.Tensor] = []
    handle = model.decoder.base_model.norm.register_forward_hook(lambda *call: seen.append(call[2]) or call[2].retain_grad())
    model.on(batch).loss.backward()
    handle.remove()
    touched = (seen[0].grad[0].abs().sum(-1) > 0).nonzero().flatten().tolist()
    assert touched == list(range(len(item.prompt) - 1, len(item.prompt) + len(item.target) - 1))


def test_questions_about_one_clip_share_a_row_and_their_losses_are_those_of_single_rows(model: SpeechLLM) -> None:
    heard, line = frames(11), "Emotion: [0.0-2.0 s] sad"
    asked = zip(QUESTIONS, ANSWERS, strict=True)
    items = [model.item(build(q, metadata=line), heard, target=a) for q, a in asked]
    other = model.item(build(QUESTIONS[0]), frames(4, seed=1), target=ANSWERS[2])
    pad = model.tokenizer.pad_id
    packed = training_batch([items, [other]], pad_id=pad)
    single = [model.on(training_batch([[one]], pad_id=pad)) for one in (*items, other)]
    output = model.on(packed)
    assert packed.input_ids.shape[1] < sum(len(one.prompt) + len(one.target) for one in items) - len(heard) // 3
    torch.testing.assert_close(output.nll, torch.cat([one.nll for one in single]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.loss, torch.stack([one.loss for one in single]).mean())


def test_batched_answers_equal_single_ones(model: SpeechLLM) -> None:
    torch.manual_seed(5)
    prompts = [build(q, metadata=m) for q in QUESTIONS for m in (None, "Emotion: [0.0-2.0 s] sad")]
    heard = [frames(3 + 4 * index, seed=index) for index in range(len(prompts))]
    together = model.answer(prompts, heard, max_new_tokens=12)
    assert len({one.raw for one in together}) > 1
    for prompt, one_heard, reply in zip(prompts, heard, together, strict=True):
        assert model.answer([prompt], [one_heard], max_new_tokens=12) == [reply]


def test_hearing_matters_and_systems_that_do_not_hear_need_no_frames(model: SpeechLLM) -> None:
    def nll(heard: np.ndarray | None, speech: str) -> float:
        item = model.item(build(QUESTIONS[0], speech=speech), heard, target=ANSWERS[0])
        return float(model.on(training_batch([[item]], pad_id=model.tokenizer.pad_id)).loss.detach())

    assert nll(frames(9, 1), "<audio>") != nll(frames(9, 2), "<audio>")
    assert nll(None, "Transcript: we left") > 0
    assert nll(None, "") > 0


def test_audio_tokens_must_fit_the_frames(model: SpeechLLM) -> None:
    batch = prompt_batch([model.item(build(QUESTIONS[0]), frames(7))], pad_id=model.tokenizer.pad_id)
    assert (batch.input_ids == model.tokenizer.audio_id).sum() == 3  # 7 frames in stacks of 3
    with pytest.raises(ModelError, match=r"audio tokens per prompt \[3\] do not fit the \[2\] speech embeddings"):
        model._embed(torch.zeros(1, 5, DIM), torch.ones(1, 5, dtype=torch.bool), batch.input_ids)
    with pytest.raises(ModelError, match="3 audio tokens but no frames were given"):
        model._embed(None, None, batch.input_ids)


def test_padding_frames_do_not_reach_the_embeddings(model: SpeechLLM) -> None:
    short = torch.from_numpy(frames(5)).unsqueeze(0)
    long = torch.cat([short, torch.full((1, 4, DIM), 9.0)], dim=1)
    alone, _ = model.adapter(short, torch.ones(1, 5, dtype=torch.bool))
    padded, mask = model.adapter(long, torch.arange(9).unsqueeze(0) < 5)
    assert mask.tolist() == [[True, True, False]]
    torch.testing.assert_close(padded[:, :2], alone)


def test_save_and_load_round_trip(model: SpeechLLM, tmp_path: Path) -> None:
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }
    loaded = SpeechLLM.load(tmp_path)
    assert loaded.parts == model.parts
    assert loaded.config.checkpoint == model.config.checkpoint
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    prompts, heard = [build(QUESTIONS[0])], [frames(8)]
    assert loaded.answer(prompts, heard, max_new_tokens=6) == model.answer(prompts, heard, max_new_tokens=6)


def test_a_checkpoint_that_does_not_fit_names_every_key(model: SpeechLLM, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model.save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors["adapter.norm.extra"] = tensors.pop("adapter.norm.weight")
    tensors["adapter.norm.bias"] = torch.zeros(DIM + 1)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    text = (
        r"missing: adapter\.norm\.weight; unexpected: adapter\.norm\.extra; other shape: adapter\.norm\.bias\. Expected \d+ tensors"
    )
    with pytest.raises(ModelError, match=text):
        SpeechLLM.load(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"cut")
    with pytest.raises(ModelError, match=r"model\.safetensors does not load: .*train this checkpoint again"):
        SpeechLLM.load(tmp_path)


def test_what_is_no_checkpoint_is_said_so(model: SpeechLLM, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a checkpoint: no config\.json"):
        SpeechLLM.load(tmp_path)
    model.save(tmp_path)
    held = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**held, "surprise": 1}))
    with pytest.raises(ModelError, match="surprise"):
        SpeechLLM.load(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**held, "surprise": 1, "format": 3}))
    with pytest.raises(ModelError, match="has checkpoint format 3, expected 1 or 2: a newer undertone may have written it"):
        SpeechLLM.load(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match=r"holds a model of type 'llama', expected 'undertone'.*as model\.decoder\.name"):
        SpeechLLM.load(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(ModelError, match="is not a checkpoint's configuration"):
        SpeechLLM.load(tmp_path)
    model.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json does not load: .*the checkpoint is incomplete"):
        SpeechLLM.load(tmp_path)


def test_a_named_decoder_keeps_its_tokeniser_and_is_not_stored_when_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    named = tmp_path / "llm"
    held = tokenizer()
    source = SpeechLLM(config(), held, frame_dim=DIM)
    source.decoder.save_pretrained(named)
    held.save(named)
    template = (
        "<bos>{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"
    )
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    (named / "tokenizer_config.json").write_text(json.dumps({**names, "chat_template": template}))

    own = decoder_tokenizer(str(named))
    assert own.tokens == SpecialTokens(before="<bos>[user]", after="<eos>[model]")
    settings = config().model_copy(update={"decoder": DecoderConfig(name=str(named)), "frozen": ("encoder", "decoder")})
    model = SpeechLLM(settings, own, frame_dim=DIM).eval()
    assert torch.equal(model.decoder.get_input_embeddings().weight, source.decoder.get_input_embeddings().weight)
    assert {name.split(".")[0] for name, one in model.named_parameters() if one.requires_grad} == {"adapter"}
    model.save(tmp_path / "checkpoint")
    from safetensors.torch import load_file

    assert {name.split(".")[0] for name in load_file(tmp_path / "checkpoint" / WEIGHTS_FILE)} == {"adapter"}
    loaded = SpeechLLM.load(tmp_path / "checkpoint")
    assert loaded.answer([build("Who?")], [frames(9)], max_new_tokens=5) == model.answer(
        [build("Who?")], [frames(9)], max_new_tokens=5
    )


def test_models_that_do_not_load_say_which(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    settings = config().model_copy(update={"decoder": DecoderConfig(name=missing)})
    with pytest.raises(ModelError, match=f"decoder {missing} does not load"):
        SpeechLLM(settings, tokenizer(), frame_dim=DIM)
    with pytest.raises(ModelError, match=f"the tokeniser of '{missing}' does not load"):
        decoder_tokenizer(missing)
    with pytest.raises(ModelError, match=rf"encoder '{missing}' does not load: .*hf download"):
        load_encoder(EncoderConfig(name=missing))
    with pytest.raises(ModelError, match="is a 'whisper', got model_type 'hubert'"):
        load_encoder(EncoderConfig(config={"model_type": "hubert"}))


def test_configurations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="give either name or config"):
        DecoderConfig(name="x", config={"model_type": "llama"})
    with pytest.raises(ValidationError, match="config needs a model_type"):
        EncoderConfig(config={"d_model": 8})
    with pytest.raises(ValidationError, match="frozen must contain 'encoder'"):
        SpeechLLMConfig(frozen=("decoder",))


WHISPER = {
    "model_type": "whisper",
    "d_model": 8,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "num_mel_bins": 80,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def test_a_whisper_by_folder_or_configuration_gives_1500_frames_and_100_embeddings(tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    held = transformers.WhisperModel(transformers.AutoConfig.for_model(**WHISPER))
    held.save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    encoder = load_encoder(EncoderConfig(name=str(tmp_path)))
    samples = np.sin(np.arange(16_000) * 0.1).astype(np.float32)
    made = encode(samples, encoder, max_audio_s=30)
    assert (made.shape, made.dtype, encoder.dim) == ((1500, 8), np.float16, 8)
    assert np.array_equal(made, encode(samples, load_encoder(EncoderConfig(name=str(tmp_path))), max_audio_s=30))
    model = SpeechLLM(SpeechLLMConfig(decoder=config().decoder), tokenizer(), frame_dim=encoder.dim)
    assert model.item(build("Who?"), made).prompt.count(model.tokenizer.audio_id) == 100

    new = load_encoder(EncoderConfig(config=WHISPER))
    assert new.frames(samples).shape == (1500, 8)
    assert new.fingerprint == load_encoder(EncoderConfig(config=WHISPER)).fingerprint != encoder.fingerprint


class Loudness:
    dim = 1
    fingerprint = "loudness"

    def frames(self, samples: np.ndarray) -> np.ndarray:
        return np.abs(samples[: len(samples) // 320 * 320].reshape(-1, 320)).mean(1, keepdims=True).astype(np.float32)


def test_long_audio_is_cut_and_the_cache_returns_what_was_stored(tmp_path: Path) -> None:
    samples = np.linspace(0, 1, 16_000 * 3).astype(np.float32)
    made = encode(samples, Loudness(), max_audio_s=2.0)
    assert made.shape == (100, 1)
    cache = FeatureCache(tmp_path, encoder="loudness", max_audio_s=2.0)
    assert "r@0-3000" not in cache
    cache.put("r@0-3000", made)
    assert "r@0-3000" in cache
    assert list(cache) == ["r@0-3000"]
    assert np.array_equal(cache["r@0-3000"], made)
    assert "r@0-3000" not in FeatureCache(tmp_path, encoder="other", max_audio_s=2.0)
    assert "r@0-3000" not in FeatureCache(tmp_path, encoder="loudness", max_audio_s=3.0)


def test_the_tokeniser_is_deterministic_splits_digits_and_loses_nothing(tmp_path: Path) -> None:
    texts = [*map(build, QUESTIONS), *ANSWERS]
    made = train_tokenizer(texts, vocab_size=330)
    again = train_tokenizer(reversed(texts), vocab_size=330)
    assert made.tokenizer.to_str() == again.tokenizer.to_str()
    for text in ["It leaves at 12.45, über 日本!", " two  spaces\nand a line", "<eos> and <audio> in a transcript"]:
        ids = made.target_ids(text)
        assert made.decode(ids) == f" {text}"
        assert ids.count(made.end_id) == 1
        assert made.audio_id not in ids
    pieces = [made.decode([one]) for one in made.target_ids("1234")]
    assert [piece.strip() for piece in pieces] == ["", "1", "2", "3", "4", ""]
    made.save(tmp_path)
    assert TextTokenizer.load(tmp_path, made.tokens).target_ids(ANSWERS[1]) == made.target_ids(ANSWERS[1])
    with pytest.raises(ModelError, match="no token '<stop>'"):
        TextTokenizer.load(tmp_path, SpecialTokens(end="<stop>"))
