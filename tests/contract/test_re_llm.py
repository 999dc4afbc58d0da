"""The model of RE-LLM on real classes with tiny weights: emotion encoders, fused frames, heads on pooled speech, LoRA at speech alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contract.checkpoints import (
    age_gender,
    ast,
    dim,
    emotion2vec,
    emotion2vec_release,
    lively,
    meralion_release,
    modules_elsewhere,
    saved,
    wav2vec2_like,
    whisper,
)
from tests.contract.models import (
    ANSWERS,
    LLAMA,
    QUESTIONS,
    WAV2VEC2,
    WHISPER,
    frames,
    saved_encoder,
    sound,
    speech_llm,
    tokenizer,
)
from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.label.protocol import LABELLERS
from undertone.model.ask import ask, ask_in_pieces
from undertone.model.collate import training_batch
from undertone.model.config import (
    AdapterConfig,
    AuxConfig,
    ConvAdapterConfig,
    DecoderConfig,
    EncoderConfig,
    LoRAConfig,
    NuanceConfig,
    QFormerAdapterConfig,
    SpeechLLMConfig,
    TLTRAdapterConfig,
)
from undertone.model.encoders import load_encoder, load_inputs
from undertone.model.lora import MARK
from undertone.model.nuance import EmotionEncoder, with_nuance
from undertone.model.prompts import build
from undertone.model.speech_llm import SpeechLLM
from undertone.records import Example
from undertone.train.config import TrainConfig
from undertone.train.feed import Feed, Row

RATE_HZ = 16_000
EMOTIONS = ("angry", "happy", "neutral", "sad")
MLP = AdapterConfig(stack=3, hidden=8, dropout=0.0)
FROZEN = ("encoder", "decoder")
AT_SPEECH = LoRAConfig(r=2, alpha=4, targets=("q_proj", "v_proj", "down_proj"), where="speech")


def wave(seconds: float, seed: int = 0) -> Wave:
    return Wave(sound(seconds, seed), RATE_HZ)


# --- embeddings of labellers --------------------------------------------------------------------------------------------------------

MAKERS: dict[str, tuple[str, Callable[[], tuple[Any, Any]]]] = {
    "audeering-dim": ("audeering-dim", dim),
    "audeering-age-gender": ("audeering-age-gender", age_gender),
    "wav2vec2": ("audio-classification", lambda: wav2vec2_like("wav2vec2", EMOTIONS)),
    "hubert-group": ("audio-classification", lambda: wav2vec2_like("hubert", EMOTIONS, norm="group")),
    "whisper": ("audio-classification", lambda: whisper(EMOTIONS)),
    "ast": ("audio-classification", lambda: ast(EMOTIONS)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.set_num_threads(1)
    made = {}
    for name, (_, make) in MAKERS.items():
        made[name] = str(saved(lively(make), tmp_path_factory.mktemp("weights") / name))
    return made


@pytest.mark.parametrize("name", MAKERS)
def test_an_embedding_is_what_the_head_reads(name: str, folders: dict[str, str]) -> None:
    made = LABELLERS.get(MAKERS[name][0], {"model": folders[name]})
    one = wave(1.0, 1)
    found = made.embed(one)
    assert found.utterance.dtype == np.float32
    assert found.utterance.shape == (32,)
    net = made._loaded.net
    pooled = torch.from_numpy(found.utterance)[None]
    with torch.inference_mode():
        if name.startswith("audeering"):
            heads = ["classifier"] if name.endswith("dim") else ["age", "gender"]
            said = torch.cat([net.get_submodule(head)(pooled) for head in heads], -1)
        elif name == "ast":
            said = net.classifier(pooled)
        else:
            # These two have a linear layer between states and mean, which a mean commutes with.
            said = net.classifier(net.projector(pooled))
    expected = made.outputs([one])
    if name == "whisper":  # its classifier also pools what lies behind the wave
        full = wave(3.0, 1)
        said = net.classifier(net.projector(torch.from_numpy(made.embed(full).utterance)[None]))
        expected = made.outputs([full])
    np.testing.assert_allclose(said.detach().numpy(), expected, rtol=1e-3, atol=1e-4)
    if name == "ast":
        assert found.frames is None
    else:
        assert abs(len(found.frames) - 50) <= 1
        np.testing.assert_allclose(found.frames.mean(0), found.utterance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["whisper", "ast"])
def test_a_wave_longer_than_a_window_is_embedded_in_pieces(name: str, folders: dict[str, str]) -> None:
    made = LABELLERS.get("audio-classification", {"model": folders[name]})
    long = wave(6.0, 2)
    halves = [made.embed(Wave(long.samples[start : start + 3 * RATE_HZ], RATE_HZ)) for start in (0, 3 * RATE_HZ)]
    found = made.embed(long)
    np.testing.assert_allclose(found.utterance, np.mean([one.utterance for one in halves], 0), rtol=1e-5, atol=1e-6)
    if name == "whisper":
        assert len(found.frames) == 300


def test_frames_of_patches_are_refused(folders: dict[str, str]) -> None:
    nuance = NuanceConfig(encoder="audio-classification", config={"model": folders["ast"]})
    assert EmotionEncoder(nuance).width == 32
    with pytest.raises(ModelError, match="has no embedding of frames, only of the whole"):
        EmotionEncoder(nuance.model_copy(update={"frames": True}))


def test_emotion2vec_is_embedded_as_it_decides(tmp_path: Path) -> None:
    for package in ("omegaconf", "kaldiio", "librosa", "funasr"):
        pytest.importorskip(package)
    made = LABELLERS.get("emotion2vec", {"model": str(emotion2vec_release(tmp_path, emotion2vec().state_dict()))})
    one = wave(0.8)
    found = made.embed(one)
    with torch.inference_mode():
        shares = made._loaded.network.proj(torch.from_numpy(found.utterance)).softmax(-1)
    np.testing.assert_allclose(shares.numpy(), list(made.judge(one)[0].distribution.values()), atol=1e-5)
    long = made.embed(wave(31.0))
    assert long.frames.shape[1] == found.utterance.shape[0] == 16
    # No piece is longer than what the labeller hears at once.
    assert len(long.frames) == pytest.approx(31 * 50, abs=3)


def test_meralion_ser_is_embedded_as_it_decides(tmp_path: Path) -> None:
    with modules_elsewhere(tmp_path / "modules"):
        folder = tmp_path / "release"
        folder.mkdir()
        made = LABELLERS.get("meralion-ser", {"model": str(meralion_release(folder)), "trust_remote_code": True})
        one = wave(1.5)
        found = made.embed(one)
        network = made._loaded.network
        with torch.inference_mode():
            shares = network.emotion_head(torch.from_numpy(found.utterance)).softmax(-1)
        np.testing.assert_allclose(shares.numpy(), list(made.judge(one)[0].distribution.values()), atol=1e-6)
        assert found.frames.shape == (75, 16)
        assert not [hook for module in network.modules() for hook in module._forward_hooks]


# --- fused frames -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nuance(folders: dict[str, str]) -> NuanceConfig:
    return NuanceConfig(encoder="audeering-dim", config={"model": folders["audeering-dim"]}, width=32)


@pytest.mark.parametrize("taps", [(), (0, 1, 2)], ids=["one", "taps"])
@pytest.mark.parametrize("long_audio", ["truncate", "chunk"])
def test_whispers_frames_and_an_emotion(nuance: NuanceConfig, taps: tuple[int, ...], long_audio: Any) -> None:
    config = EncoderConfig(config=WHISPER, taps=taps, long_audio=long_audio)
    samples = sound(1.6)
    alone = load_encoder(config)
    fused = with_nuance(alone, nuance.model_copy(update={"frames": True}))
    made = fused.frames(samples)
    assert fused.dim == 8 + 32 + 32
    assert made.shape == (100 if long_audio == "chunk" else 50, *((3,) if taps else ()), 72)
    np.testing.assert_array_equal(made[..., :8], alone.frames(samples))
    if taps:  # the same emotion behind each layer
        np.testing.assert_array_equal(made[:, 0, 8:], made[:, 2, 8:])
    rows = made.reshape(len(made), -1, 72)[:, 0]
    heard = samples if long_audio == "chunk" else samples[:RATE_HZ]
    labeller = LABELLERS.get("audeering-dim", nuance.config)
    np.testing.assert_allclose(rows[:, 8:40], np.tile(labeller.embed(Wave(heard, RATE_HZ)).utterance, (len(rows), 1)), rtol=1e-6)
    # Whisper's second window goes on over 0.4 s of padding, where no emotion is heard.
    assert rows[: 80 if long_audio == "chunk" else 50, 40:].any(1).all()
    assert not rows[80:, 40:].any()


ADAPTERS = {
    "mlp": MLP,
    "conv": ConvAdapterConfig(bottleneck=4),
    "qformer": QFormerAdapterConfig(queries=4, heads=2, hidden=8, dropout=0.0),
    "tltr": TLTRAdapterConfig(stack=4, layer_heads=2, hidden=8),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_hears_the_emotion(nuance: NuanceConfig, name: str) -> None:
    encoder = EncoderConfig(config=WHISPER, taps=(1, 2) if name in ("qformer", "tltr") else ())
    fused = with_nuance(load_encoder(encoder), nuance)
    model = speech_llm(encoder=encoder, adapter=ADAPTERS[name], nuance=nuance, frame_dim=fused.dim)
    made = fused.frames(sound(1.0))
    other = made.copy()
    other[..., 8:] = fused.frames(sound(1.0, 5))[..., 8:]
    told = [model.hear(torch.from_numpy(one)[None], torch.ones(1, 50, dtype=torch.bool))[0] for one in (made, other)]
    assert not torch.allclose(*told, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", [WHISPER, WAV2VEC2], ids=["whisper", "wav2vec2"])
@pytest.mark.parametrize("taps", [(), (0, 1)], ids=["one", "taps"])
def test_beside_an_encoder_inside_the_emotion_is_that_beside_one_outside(
    tmp_path: Path, nuance: NuanceConfig, kind: dict[str, Any], taps: tuple[int, ...]
) -> None:
    encoder = EncoderConfig(name=saved_encoder(tmp_path / "encoder", kind), taps=taps, pool=2, long_audio="chunk")
    adapter = ADAPTERS["qformer" if taps else "mlp"]
    settings = {"encoder": encoder, "adapter": adapter, "nuance": nuance, "aux": AuxConfig()}
    reads, hears = with_nuance(load_inputs(encoder), nuance), with_nuance(load_encoder(encoder), nuance)
    inside = speech_llm(frame_dim=reads.dim, frozen=(), **settings)
    outside = speech_llm(frame_dim=hears.dim, **settings)
    for part in ("adapter", "decoder", "category_head", "dimensions_head"):
        getattr(outside, part).load_state_dict(getattr(inside, part).state_dict())
    sounds = [sound(0.4, 1), sound(1.0, 2), sound(2.3, 3)]
    inputs, made = [reads.frames(one) for one in sounds], [hears.frames(one) for one in sounds]
    assert [inside.embeddings_of(len(one)) for one in inputs] == [outside.embeddings_of(len(one)) for one in made]
    pad = inside.tokenizer.pad_id

    def told(model: SpeechLLM, heard: list[np.ndarray]) -> Any:
        items = [model.item(build(q), one, target=a) for q, one, a in zip(QUESTIONS, heard, ANSWERS, strict=True)]
        silent = model.item(build(QUESTIONS[0], speech=""), None, target=ANSWERS[0])
        return model.on(training_batch([[one] for one in (*items, silent)], pad_id=pad))

    one, other = told(inside, inputs), told(outside, made)
    for key in ("nll", "category", "dimensions"):
        torch.testing.assert_close(getattr(one, key), getattr(other, key), rtol=1e-3, atol=1e-3, equal_nan=True)
    one.loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in inside.encoder.parameters() if weight.grad is not None)
    changed = [array.copy() for array in inputs]
    for array in changed:
        array[-inside.encoder.beside_rows :] *= -1
    assert not torch.allclose(told(inside, changed).nll, one.nll, rtol=1e-3)
    inside.save(tmp_path / "checkpoint")
    loaded = SpeechLLM.load(tmp_path / "checkpoint")
    asked = [[build(q) for q in QUESTIONS], inputs]
    assert loaded.answer(*asked, max_new_tokens=5) == inside.eval().answer(*asked, max_new_tokens=5)
    assert loaded.feelings(inputs) == inside.feelings(inputs)


def test_what_is_done_to_a_sound_leaves_the_emotion_beside_it(tmp_path: Path, nuance: NuanceConfig) -> None:
    encoder = EncoderConfig(name=saved_encoder(tmp_path / "encoder", WAV2VEC2), long_audio="chunk")
    reads = with_nuance(load_inputs(encoder), nuance)
    model = speech_llm(encoder=encoder, adapter=MLP, nuance=nuance, frame_dim=reads.dim, frozen=())
    heard = reads.frames(sound(1.0))
    about: dict[str, Any] = {"pair_id": "p", "clip_id": "c", "source": "asr", "kind": "ASR", "arm": "S"}
    example = Example(**about, prompt=build(QUESTIONS[0]), target=ANSWERS[0])
    settings = TrainConfig.model_validate({"augment": {"noise_db": (0.0, 1.0), "speed": (0.9, 0.9)}})
    feed = Feed(model, [example], {"c": heard}, settings)
    batch = feed.batch([Row([0], 7, "draw")])
    made = batch["frames"][0][batch["frame_mask"][0]].numpy()
    rows = model.beside_rows
    assert rows > 0
    np.testing.assert_array_equal(made[-rows:], heard[-rows:])
    assert len(made) > len(heard)
    assert not np.allclose(made[:1_000], heard[7:1_007])
    tiny = np.concatenate([heard[:3], heard[-rows:]])
    cut = Feed(model, [example], {"c": tiny}, TrainConfig())._heard("c", example, Row([0], 14))
    np.testing.assert_array_equal(cut, tiny)


@pytest.mark.parametrize("frozen", [("encoder",), ()], ids=["outside", "inside"])
def test_a_file_is_asked_about_with_the_checkpoints_own_emotion_encoder(
    tmp_path: Path, nuance: NuanceConfig, frozen: tuple[Any, ...]
) -> None:
    encoder = EncoderConfig(name=saved_encoder(tmp_path / "encoder", WHISPER))
    reads = with_nuance(load_encoder(encoder) if frozen else load_inputs(encoder), nuance)
    config = SpeechLLMConfig(
        encoder=encoder,
        frozen=frozen,
        adapter=MLP,
        decoder=DecoderConfig(config=LLAMA),
        nuance=nuance,
        aux=AuxConfig(dimensions=()),
    )
    torch.manual_seed(3)
    made = SpeechLLM(config, tokenizer(), frame_dim=reads.dim, encoder_fingerprint=reads.fingerprint)
    made.save(tmp_path / "checkpoint")
    heard = wave(0.9)
    whole = ask(tmp_path / "checkpoint", heard, "Who speaks?", max_new_tokens=12)
    assert whole
    assert "".join(ask_in_pieces(tmp_path / "checkpoint", heard, "Who speaks?", max_new_tokens=12)) == whole
    other = config.model_copy(update={"nuance": nuance.model_copy(update={"encoder": "affect-small", "config": {}, "width": 266})})
    wrong = SpeechLLM(other, tokenizer(), frame_dim=reads.dim, encoder_fingerprint=reads.fingerprint)
    wrong.save(tmp_path / "wrong")
    with pytest.raises(ModelError, match="was trained on frames of encoder"):
        ask(tmp_path / "wrong", heard, "Who speaks?")


# --- heads --------------------------------------------------------------------------------------------------------------------------


def batch_of(model: SpeechLLM, lengths: list[int | None]) -> Any:
    groups = []
    for number, length in enumerate(lengths):
        clip = None if length is None else frames(length, number)
        prompts = [build(q, speech="" if length is None else "<audio>") for q in QUESTIONS[:2]]
        groups.append([model.item(prompt, clip, target=ANSWERS[0]) for prompt in prompts])
    return groups


def test_heads_read_the_mean_of_a_clips_embeddings() -> None:
    model = speech_llm(aux=AuxConfig(), adapter=MLP)
    pad = model.tokenizer.pad_id
    groups = batch_of(model, [4, None, 29, 13])
    output = model.on(training_batch(groups, pad_id=pad))
    assert output.category.shape == (4, 5)
    assert output.dimensions.shape == (4, 3)
    assert output.category[1].isnan().all()
    assert output.dimensions[1].isnan().all()
    for index, length in ((0, 4), (2, 29), (3, 13)):
        made, mask = model.hear(torch.from_numpy(frames(length, index))[None], torch.ones(1, length, dtype=torch.bool))
        mean = made[0][mask[0]].mean(0)
        torch.testing.assert_close(output.category[index], model.category_head.weight @ mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.dimensions[index], model.dimensions_head.weight @ mean, rtol=1e-4, atol=1e-5)
    silent = model.on(training_batch(batch_of(model, [None, None]), pad_id=pad))
    assert silent.category.shape == (2, 5)
    assert silent.category.isnan().all()
    plain = speech_llm(adapter=MLP)
    assert plain.on(training_batch(groups, pad_id=pad))[3:] == (None, None)
    assert not [name for name in plain.state_dict() if "_head" in name and not name.startswith("decoder.")]


def test_heads_teach_the_adapter_and_not_the_decoder() -> None:
    model = speech_llm(aux=AuxConfig(), adapter=MLP)
    output = model.on(training_batch(batch_of(model, [4, None, 29]), pad_id=model.tokenizer.pad_id))
    heard = ~output.category.isnan().any(-1)
    loss = nn.functional.cross_entropy(output.category[heard], torch.tensor([1, 3])) + output.dimensions[heard].square().mean()
    loss.backward()
    assert {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None and one.grad.any()} == {
        "adapter",
        "category_head",
        "dimensions_head",
    }
    assert all(torch.isfinite(one.grad).all() for one in model.parameters() if one.grad is not None)


def test_feelings_are_the_same_alone_and_together_and_after_reading(tmp_path: Path) -> None:
    aux = AuxConfig(classes=("sad", "happy", "neutral"), dimensions=("valence", "arousal"))
    model = speech_llm(aux=aux, adapter=ConvAdapterConfig(bottleneck=4))
    clips = [frames(9, 1), frames(0), frames(30, 2)]
    found = model.train().feelings(clips)
    assert model.training
    assert found[1] is None
    assert list(found[0].category) == list(aux.classes)
    assert list(found[0].dimensions) == list(aux.dimensions)
    for one in (found[0], found[2]):
        assert sum(one.category.values()) == pytest.approx(1.0)
    assert found[0] != found[2]
    for clip, one in zip(clips, found, strict=True):
        (alone,) = model.feelings([clip])
        if one is not None:
            assert alone.category == pytest.approx(one.category, abs=1e-5)
            assert alone.dimensions == pytest.approx(one.dimensions, abs=1e-5)
    model.save(tmp_path)
    assert SpeechLLM.load(tmp_path).feelings(clips) == found
    only = speech_llm(aux=AuxConfig(dimensions=()), adapter=MLP).feelings(clips)
    assert only[0].dimensions == {}
    assert list(only[0].category) == ["neutral", "happy", "angry", "sad", "surprised"]
    with pytest.raises(ModelError, match=r"has no heads that tell the emotion; give model\.aux"):
        speech_llm(adapter=MLP).feelings(clips)


def test_heads_rest_where_they_are_named() -> None:
    model = speech_llm(aux=AuxConfig(), adapter=MLP, frozen=("encoder", "category_head"))
    assert not model.category_head.weight.requires_grad
    assert model.dimensions_head.weight.requires_grad


def test_a_model_with_heads_starts_from_a_checkpoint_without(tmp_path: Path) -> None:
    speech_llm(seed=1, adapter=MLP).save(tmp_path / "plain")
    model = speech_llm(seed=2, adapter=MLP, aux=AuxConfig())
    head = model.category_head.weight.clone()
    model.load_weights(tmp_path / "plain")
    assert torch.equal(model.category_head.weight, head)
    assert torch.equal(model.adapter.norm.weight, SpeechLLM.load(tmp_path / "plain").adapter.norm.weight)
    model.save(tmp_path / "heads")
    turned = speech_llm(adapter=MLP, aux=AuxConfig(dimensions=("arousal", "dominance", "valence")))
    with pytest.raises(
        ModelError, match=r"arousal, valence, dominance, and this model of .*arousal, dominance, valence, in this order"
    ):
        turned.load_weights(tmp_path / "heads")
    with pytest.raises(ModelError, match=r"unexpected: category_head\.weight, dimensions_head.weight"):
        speech_llm(adapter=MLP).load_weights(tmp_path / "heads")


# --- LoRA at speech -----------------------------------------------------------------------------------------------------------------


def shaken(model: SpeechLLM) -> SpeechLLM:
    """With updates that are not nothing."""
    torch.manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if MARK in name:
                weight.copy_(torch.randn_like(weight) * 0.5)
    return model


@pytest.fixture
def partial() -> SpeechLLM:
    return shaken(speech_llm(adapter=MLP, lora=AT_SPEECH, frozen=FROZEN))


@pytest.fixture
def base(partial: SpeechLLM) -> SpeechLLM:
    """The same decoder without updates."""
    made = speech_llm(adapter=MLP)
    made.adapter.load_state_dict(partial.adapter.state_dict())
    state = {name.replace(".base_layer.", "."): one for name, one in partial.decoder.state_dict().items() if MARK not in name}
    made.decoder.load_state_dict(state)
    return made


def mixed(model: SpeechLLM) -> Any:
    """Rows with speech of two lengths, one without, with two questions in each."""
    return training_batch(batch_of(model, [7, None, 22]), pad_id=model.tokenizer.pad_id)


def test_without_speech_the_decoder_is_exactly_as_it_was(partial: SpeechLLM, base: SpeechLLM) -> None:
    batch = training_batch(batch_of(base, [None, None]), pad_id=base.tokenizer.pad_id)
    assert torch.equal(partial.on(batch).logits, base.on(batch).logits)
    prompts = [build(q, speech="") for q in QUESTIONS]
    nothing = [None] * len(prompts)
    assert partial.answer(prompts, nothing, max_new_tokens=12) == base.answer(prompts, nothing, max_new_tokens=12)
    heard = mixed(base)
    assert not torch.allclose(partial.on(heard).logits, base.on(heard).logits, rtol=1e-2, atol=1e-2)


def test_updates_are_those_of_a_plain_model_whose_layers_add_them_at_speech(partial: SpeechLLM, base: SpeechLLM) -> None:
    state = partial.decoder.state_dict()
    batch = mixed(base)
    speech = (batch.input_ids == base.tokenizer.audio_id).unsqueeze(-1)
    for name, module in base.decoder.named_modules():
        if name.endswith(AT_SPEECH.targets):
            down, up = (state[f"{name}.lora_{key}.default.weight"] for key in "AB")

            def add(_: nn.Module, given: Any, made: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
                return made + torch.where(speech, given[0] @ down.T @ up.T * (AT_SPEECH.alpha / AT_SPEECH.r), 0.0)

            module.register_forward_hook(add)
    torch.testing.assert_close(partial.on(batch).logits, base.on(batch).logits, rtol=1e-4, atol=1e-4)


def test_gradients_come_from_speech_positions_alone(partial: SpeechLLM) -> None:
    batch = mixed(partial)
    speech = batch.input_ids == partial.tokenizer.audio_id
    seen: list[Tensor] = []
    for name, module in partial.decoder.named_modules():
        if name.endswith("lora_A.default") and "layers.0." in name:
            module.register_forward_hook(lambda *call: (seen.append(call[2]), call[2].retain_grad())[0])
    partial.on(batch).loss.backward()
    assert len(seen) == 3
    for one in seen:
        touched = one.grad.abs().sum(-1) > 0
        assert torch.equal(touched, speech)
    partial.zero_grad()
    silent = training_batch(batch_of(partial, [None]), pad_id=partial.tokenizer.pad_id)
    partial.on(silent).loss.backward()
    assert not any(one.grad.any() for name, one in partial.named_parameters() if MARK in name)


def test_answers_are_the_same_alone_together_streamed_and_without_a_cache(partial: SpeechLLM) -> None:
    prompts = [*(build(q) for q in QUESTIONS), build(QUESTIONS[0], speech="")]
    clips = [*(frames(5 + 6 * n, n) for n in range(3)), None]
    together = partial.answer(prompts, clips, max_new_tokens=12)
    assert len({one.raw for one in together}) > 1
    for prompt, clip, reply in zip(prompts, clips, together, strict=True):
        assert partial.answer([prompt], [clip], max_new_tokens=12) == [reply]
        assert "".join(partial.stream(prompt, clip, max_new_tokens=12)) == reply.text
        # the whole text anew for each token, as in training
        said: list[int] = []
        for _ in range(12):
            item = partial.item(prompt, clip)
            ids = torch.tensor([[*item.prompt, *said]])
            given = None if clip is None else torch.from_numpy(clip)[None]
            mask = None if clip is None else torch.ones(1, len(clip), dtype=torch.bool)
            shifted = torch.cat([ids, ids[:, :1]], 1)
            labels = torch.cat([torch.full_like(ids, -100), ids[:, :1]], 1)
            with torch.inference_mode():
                token = int(partial(given, mask, shifted, torch.ones_like(shifted), labels).logits.argmax(-1))
            if token == partial.tokenizer.end_id:
                break
            said.append(token)
        assert partial.tokenizer.decode(said).strip() == reply.text


def test_losses_of_a_shared_row_are_those_of_single_rows(partial: SpeechLLM) -> None:
    pad = partial.tokenizer.pad_id
    groups = batch_of(partial, [7, None, 22])
    alone = torch.cat([partial.on(training_batch([[one]], pad_id=pad)).nll for group in groups for one in group])
    torch.testing.assert_close(partial.on(training_batch(groups, pad_id=pad)).nll, alone, rtol=1e-4, atol=1e-4)


def enable(model: SpeechLLM) -> None:
    """Checkpointing, as this version of transformers calls it."""
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


def test_what_is_computed_again_is_told_what_it_was_told(partial: SpeechLLM) -> None:
    """Checkpointed gradients, with another pass (a teacher's) between forward and backward."""
    one, other = mixed(partial), training_batch(batch_of(partial, [None]), pad_id=partial.tokenizer.pad_id)
    partial.train()
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            enable(partial)
            assert partial.decoder.base_model.layers[0].gradient_checkpointing
        partial.zero_grad()
        loss = partial.on(one).loss
        with torch.no_grad():
            partial.on(other)
        loss.backward()
        gradients.append({name: weight.grad.clone() for name, weight in partial.named_parameters() if weight.grad is not None})
    assert any(gradient.any() for name, gradient in gradients[0].items() if MARK in name)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_keeps_where_its_updates_hold(tmp_path: Path, nuance: NuanceConfig) -> None:
    fused = with_nuance(load_encoder(EncoderConfig(config=WHISPER)), nuance)
    model = shaken(
        speech_llm(
            encoder=EncoderConfig(config=WHISPER),
            frame_dim=fused.dim,
            adapter=MLP,
            lora=AT_SPEECH,
            frozen=FROZEN,
            nuance=nuance,
            aux=AuxConfig(),
        )
    )
    clips = [fused.frames(sound(0.9, seed)) for seed in range(3)]
    prompts = [build(q) for q in QUESTIONS]
    expected = model.answer(prompts, clips, max_new_tokens=10)
    model.save(tmp_path)
    loaded = SpeechLLM.load(tmp_path)
    assert loaded.parts == model.parts
    assert loaded.answer(prompts, clips, max_new_tokens=10) == expected
    assert loaded.feelings(clips) == model.feelings(clips)
    silent = [build(q, speech="") for q in QUESTIONS]
    assert loaded.answer(silent, [None] * 3) == model.answer(silent, [None] * 3)


def test_partial_updates_are_not_merged(partial: SpeechLLM) -> None:
    before = {name: one.clone() for name, one in partial.state_dict().items()}
    with pytest.raises(ModelError, match="adds its updates at speech positions only, and merged weights would be the same at all"):
        partial.merge()
    assert all(torch.equal(one, before[name]) for name, one in partial.state_dict().items())


def test_layers_that_know_no_positions_are_refused() -> None:
    with pytest.raises(ModelError, match=r"lora\.where='speech' needs linear layers, and one of lora.targets is a Embedding"):
        speech_llm(adapter=MLP, lora=LoRAConfig(targets=("embed_tokens",), where="speech"), frozen=FROZEN)
    model = speech_llm(adapter=MLP, lora=AT_SPEECH, frozen=FROZEN)
    told = model._positions.told(torch.ones(1, 5, dtype=torch.bool))
    with told, pytest.raises(ModelError, match=r"a layer is given \(3,\) positions of a text of \(1, 5\)"):
        model.decoder.base_model.layers[0].self_attn.q_proj(torch.zeros(3, 16))


def test_dimensions_of_the_paper() -> None:
    """Whisper-large-v2 and audeering's model give 1280 + 1024 = 2304 per frame, 1500 of which become 188 embeddings."""
    adapter = ConvAdapterConfig()
    made = speech_llm(adapter=adapter, frame_dim=2304)
    assert made.adapter.convolutions[0].in_channels == 2304
    assert made.adapter.convolutions[0].out_channels == made.adapter.convolutions[1].out_channels == 2 * 2304
    assert made.embeddings_of(1500) == 188
