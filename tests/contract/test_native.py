"""Native audio LLMs on tiny random configurations of transformers' own classes, saved to a folder and loaded as a user would."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: native audio LLMs are not tested")
pytest.importorskip("transformers", reason="transformers is not installed: native audio LLMs are not tested")
pytest.importorskip("peft", reason="peft is not installed: native audio LLMs are not tested")

from tests.contract.native_llms import MAKERS, qwen3_omni_thinker, qwen25_omni_thinker  # noqa: E402
from undertone.audio import Wave  # noqa: E402
from undertone.errors import DataError, DependencyError, ModelError  # noqa: E402
from undertone.model import prompts  # noqa: E402
from undertone.model.collate import IGNORE  # noqa: E402
from undertone.model.config import LoRAConfig  # noqa: E402
from undertone.model.native import FAMILIES, Message, NativeAudioLLM, NativeItem, dialogue, without_marker  # noqa: E402
from undertone.model.native.chats import spoken  # noqa: E402
from undertone.model.native.families import Voxtral  # noqa: E402
from undertone.records import Turn  # noqa: E402

AUDIO_TOKENS = {
    "Qwen2-Audio": "<|AUDIO|>",
    "Qwen2.5-Omni": "<|AUDIO|>",
    "Qwen3-Omni": "<|AUDIO|>",
    "Voxtral": "[AUDIO]",
    "Granite Speech": "<|audio|>",
    "Gemma 3n": "<audio_soft_token>",
}
QUESTION, ANSWER = "How does she feel?", "She is sad."
HISTORY = [Turn(question="Who speaks?", answer="A woman.")]


def noise(seconds: float, seed: int) -> Wave:
    return Wave((0.1 * np.random.default_rng(seed).normal(size=int(16_000 * seconds))).astype(np.float32), 16_000)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "Voxtral":
        pytest.importorskip("mistral_common", reason="mistral-common is not installed: Voxtral is not tested")
    path = tmp_path_factory.mktemp("native") / request.param.replace(" ", "-")
    path.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MAKERS[request.param](path)


@pytest.fixture(scope="module")
def llm(folder: Path) -> NativeAudioLLM:
    return NativeAudioLLM.load(folder)


@pytest.fixture
def fresh(folder: Path) -> NativeAudioLLM:
    return NativeAudioLLM.load(folder)


def rows(llm: NativeAudioLLM) -> list[NativeItem]:
    """Short and long, with a history, without sound, with two waves."""
    two = dialogue("Which one is louder?", waves=2)
    system = None if llm.family.title == "Voxtral" else "Be brief."  # mistral-common takes none beside sound
    return [
        llm.item(QUESTION, noise(0.7, 0), target=ANSWER),
        llm.item(dialogue(QUESTION, history=HISTORY, system=system), noise(2.3, 1), target="He is glad."),
        llm.item("What is the capital of Peru?", None, target="Lima."),
        llm.item(two, [noise(0.9, 2), noise(1.6, 3)], target="The second."),
    ]


def audio_token(llm: NativeAudioLLM) -> int:
    return int(llm.tokenizer.convert_tokens_to_ids(AUDIO_TOKENS[llm.family.title]))


def test_every_family_is_tested() -> None:
    assert {one.title for one in FAMILIES} == set(MAKERS) == set(AUDIO_TOKENS)


def test_prompt_and_answer_are_what_the_chat_template_makes_of_the_whole(llm: NativeAudioLLM) -> None:
    wave = noise(1.0, 0)
    item = llm.item(dialogue(QUESTION, history=HISTORY), wave, target=f" {ANSWER}\n")
    said = [*spoken(dialogue(QUESTION, history=HISTORY), wave), *spoken([Message("user", ANSWER)], None)]
    said[-1] = type(said[-1])("assistant", said[-1].parts)
    if llm.family.title == "Granite Speech":
        text = llm.processor.apply_chat_template([llm.family.written(llm.processor, said)], tokenize=False)
        whole = llm.processor(text=text, audio=[wave.samples], return_tensors="pt")["input_ids"][0].tolist()
    elif llm.family.title == "Voxtral":
        finetuning = type(llm.tokenizer)(Path(llm.name) / "tekken.json", mode="finetuning")
        whole = finetuning.apply_chat_template(llm.family.chat(said))["input_ids"]
    else:
        made = llm.processor.apply_chat_template([llm.family.chat(said)], tokenize=True, return_dict=True)
        whole = list(made["input_ids"][0])
    ours = [*item.prompt, *item.target]
    assert whole[: len(ours)] == ours
    assert item.target[-1] == llm.end_id
    assert len(whole) - len(ours) <= 1, "only a line break may stand behind the end of the answer"


def test_the_loss_is_that_of_the_answers_alone(llm: NativeAudioLLM) -> None:
    alone = llm.family.title == "Granite Speech"  # there, transformers pads two waves to one length, and hears the padding
    for item in rows(llm)[: 3 if alone else 4]:
        batch = llm.training_batch([item])
        assert batch.labels[0].tolist() == [*[IGNORE] * len(item.prompt), *item.target]
        with torch.inference_mode():
            output = llm.loss(batch)
            inputs = {key: one for key, one in batch.inputs.items() if key != "frame_count"}
            logits = llm.network(**inputs).logits[0, len(item.prompt) - 1 : -1]
        logits = logits / getattr(llm.network.config.get_text_config(), "logits_scaling", 1.0)
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(item.target), reduction="none")
        torch.testing.assert_close(output.nll, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(output.loss, expected.mean(), atol=1e-4, rtol=1e-4)


def test_a_batch_loses_and_answers_what_each_row_does_alone(llm: NativeAudioLLM) -> None:
    items = rows(llm)
    with torch.inference_mode():
        sound = [item for item in items if item.features] if not llm.family.mixes() else items
        alone = [llm.loss(llm.training_batch([item])) for item in sound]
        together = llm.loss(llm.training_batch(sound))
    torch.testing.assert_close(together.nll, torch.cat([one.nll for one in alone]), atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(together.loss, torch.stack([one.loss for one in alone]).mean(), atol=2e-4, rtol=1e-4)

    asked = [QUESTION, dialogue("And he?", history=HISTORY), "Peru?", dialogue("Which?", waves=2)]
    waves = [noise(0.7, 0), [noise(2.3, 1)], None, [noise(0.9, 2), noise(1.6, 3)]]
    batched = llm.answer(asked, waves, max_new_tokens=6)
    singly = [llm.answer([one], [wave], max_new_tokens=6)[0] for one, wave in zip(asked, waves, strict=True)]
    assert batched == singly
    assert all(one.raw for one in batched)


def test_what_is_heard_and_said_before_counts(llm: NativeAudioLLM) -> None:
    heard = [
        (QUESTION, noise(1.0, 0)),
        (QUESTION, noise(1.0, 1)),
        (dialogue(QUESTION, history=HISTORY), noise(1.0, 0)),
        (dialogue(QUESTION, waves=2), [noise(1.0, 0), noise(1.0, 1)]),
        (dialogue(QUESTION, waves=2), [noise(1.0, 1), noise(1.0, 0)]),
    ]
    with torch.inference_mode():
        items = [llm.item(prompt, wave, target=ANSWER) for prompt, wave in heard]
        losses = [float(llm.loss(llm.training_batch([item])).loss) for item in items]
    assert len({round(one, 5) for one in losses}) == len(losses), losses
    once, twice = (sum(token == audio_token(llm) for token in items[index].prompt) for index in (0, 3))
    assert once > 0
    assert twice == 2 * once


def test_a_wave_of_a_few_samples_is_heard_and_answered(llm: NativeAudioLLM) -> None:
    for samples in (1, 160, 800):
        item = llm.item(QUESTION, Wave(noise(0.1, 0).samples[:samples], 16_000), target=ANSWER)
        assert item.prompt.count(audio_token(llm)) > 0
        assert torch.isfinite(llm.loss(llm.training_batch([item])).loss)
        assert len(llm.answer([QUESTION], [Wave(noise(0.1, 0).samples[:samples], 16_000)], max_new_tokens=2)) == 1


def test_a_control_token_that_somebody_wrote_is_text_or_refused(llm: NativeAudioLLM) -> None:
    token = AUDIO_TOKENS[llm.family.title]
    written = f"What does {token} mean?"
    if llm.family.title == "Voxtral":  # mistral-common reads texts as texts
        plain, odd = (llm.item(text, noise(1.0, 0)).prompt for text in (QUESTION, written))
        assert odd.count(audio_token(llm)) == plain.count(audio_token(llm)) > 0
    else:
        with pytest.raises(DataError, match=re.escape(f"row 7: the text {written!r} contains the model's control token {token!r}")):
            llm.item(written, noise(1.0, 0), name="row 7")
    answer = llm.item(QUESTION, noise(1.0, 0), target=f"It is {token}.").target
    assert audio_token(llm) not in answer


def test_a_lora_learns_and_comes_back(fresh: NativeAudioLLM, folder: Path, tmp_path: Path) -> None:
    frozen = {name: one.clone() for name, one in fresh.network.state_dict().items()}
    fresh.add_lora(LoRAConfig(r=4, alpha=16))
    trained = {name: one for name, one in fresh.named_parameters() if one.requires_grad}
    assert trained
    assert all("language_model" in name and "lora" in name for name in trained), list(trained)
    optimizer = torch.optim.AdamW(trained.values(), lr=0.02)
    items = [one for one in rows(fresh) if one.features]
    losses = []
    fresh.train()
    for _ in range(15):
        optimizer.zero_grad()
        loss = fresh.loss(fresh.training_batch(items)).loss
        loss.backward()
        assert all(one.grad is not None for one in trained.values())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0], losses
    after = {name.replace(".base_layer", ""): one for name, one in fresh.network.state_dict().items()}
    assert [name for name, one in frozen.items() if not torch.equal(one, after[name])] == []

    fresh.eval()
    fresh.save(tmp_path / "lora")
    again = NativeAudioLLM.load(tmp_path / "lora")
    with torch.inference_mode():
        batch = fresh.training_batch(items)
        torch.testing.assert_close(again.loss(batch).nll, fresh.loss(batch).nll)
    assert again.answer([QUESTION], [noise(1.0, 0)], max_new_tokens=6) == fresh.answer(
        [QUESTION], [noise(1.0, 0)], max_new_tokens=6
    )

    from peft import PeftModel

    base = NativeAudioLLM.load(folder)
    base.network = PeftModel.from_pretrained(base.network, str(tmp_path / "lora")).base_model.model
    with torch.inference_mode():
        torch.testing.assert_close(base.loss(batch).nll, fresh.loss(batch).nll)


def test_a_lora_without_a_tensor_is_refused(fresh: NativeAudioLLM, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    fresh.add_lora(LoRAConfig(r=2))
    fresh.save(tmp_path)
    state = load_file(tmp_path / "adapter_model.safetensors")
    gone = sorted(state)[0]
    del state[gone]
    save_file(state, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"do not fit its configuration: missing: .*lora_A"):
        NativeAudioLLM.load(tmp_path)
    for text in ("{}", "not JSON"):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(ModelError, match=r"does not load \((KeyError|JSONDecodeError): .*Expected its files"):
            NativeAudioLLM.load(tmp_path)


def test_precision_and_device_are_as_asked(folder: Path) -> None:
    llm = NativeAudioLLM.load(folder, dtype="bfloat16", device_map="cpu")
    assert llm.network.dtype == torch.bfloat16
    item = llm.item(QUESTION, noise(1.0, 0), target=ANSWER)
    with torch.inference_mode():
        assert torch.isfinite(llm.loss(llm.training_batch([item])).loss)
    assert llm.answer([QUESTION], [noise(1.0, 0)], max_new_tokens=3)[0].raw


def test_waves_that_the_model_cannot_hear_are_refused(llm: NativeAudioLLM, folder: Path) -> None:
    title = llm.family.title
    with pytest.raises(DataError, match=f"prompt 1: {title} hears 16000 Hz, got 8000; load the file with rate_hz=16000"):
        llm.answer([QUESTION, QUESTION], [noise(1.0, 0), Wave(np.zeros(8000, np.float32), 8000)])
    with pytest.raises(DataError, match="row 3: the wave is empty"):
        llm.item(QUESTION, Wave(np.zeros(0, np.float32), 16_000), name="row 3")
    if llm.family.window_s is None:
        return
    long = noise(llm.family.window_s + 1, 0)
    with pytest.raises(
        DataError, match=rf"lasts {llm.family.window_s + 1:.1f} s and {title} hears {llm.family.window_s:g} s at once"
    ):
        llm.item(QUESTION, long)
    cut = NativeAudioLLM.load(folder, long_audio="truncate").item(QUESTION, long)
    whole = llm.item(QUESTION, long.cut(0, int(llm.family.window_s * 1000)))
    assert cut.prompt == whole.prompt
    assert all(torch.equal(one, whole.features[key]) for key, one in cut.features.items())


def test_placeholders_fit_the_waves() -> None:
    with pytest.raises(DataError, match=r"row 2: the user's messages have 2 <audio> for 1 waves; expected one each"):
        spoken("<audio><audio>Which?", noise(1.0, 0), name="row 2")
    with pytest.raises(DataError, match="the user speaks last in a prompt, got 'assistant'"):
        spoken([Message("user", "Hm?"), Message("assistant", "Yes.")], None)
    first, second = noise(1.0, 0), noise(1.0, 1)
    messages = [
        Message("system", "Listen."),
        Message("user", "<audio>Who?"),
        Message("assistant", "Ann."),
        Message("user", "<audio>\nAnd?"),
    ]
    placed = spoken(messages, [first, second])
    assert [one.parts for one in placed] == [("Listen.",), (first, "Who?"), ("Ann.",), (second, "And?")]
    assert spoken("Who?", first)[0].parts == (first, "Who?")


def test_our_prompts_become_messages() -> None:
    prompt = without_marker(prompts.build(QUESTION, metadata="[0-2 s] sad"))
    assert prompt == f"<audio>\n[0-2 s] sad\n{QUESTION}"
    wave = noise(1.0, 0)
    assert spoken(prompt, wave)[0].parts == (wave, f"[0-2 s] sad\n{QUESTION}")
    assert [one.content for one in dialogue("And he?", history=HISTORY)] == ["<audio>Who speaks?", "A woman.", "And he?"]


def test_other_models_are_refused_with_a_list(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError) as caught:
        NativeAudioLLM.load(tmp_path)
    assert "model_type 'llama'" in str(caught.value)
    assert all(one.title in str(caught.value) and one.types[0] in str(caught.value) for one in FAMILIES)


def test_a_folder_without_a_model_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not load \(OSError: there is no config.json\). Expected its files"):
        NativeAudioLLM.load(tmp_path)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("native") / "qwen"
    path.mkdir()
    return MAKERS["Qwen2-Audio"](path)


def test_weights_that_do_not_fit_are_named(qwen: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(qwen / "model.safetensors")
    head = next(name for name in state if name.endswith("lm_head.weight"))
    conv = next(name for name in state if name.endswith("conv1.weight"))
    changed = {**state, "audio_tower.nobody": torch.zeros(2), conv: torch.zeros(3)}
    del changed[head]
    shutil.copytree(qwen, tmp_path / "bad")
    save_file(changed, tmp_path / "bad" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        NativeAudioLLM.load(tmp_path / "bad")
    said = str(caught.value)
    assert "missing: lm_head.weight" in said
    assert "nobody" in said.split("unexpected:")[1].split(";")[0]
    assert "conv1.weight" in said.split("of another shape:")[1]


def test_lora_targets_and_rows_without_answers_are_checked(qwen: Path, tmp_path: Path) -> None:
    llm = NativeAudioLLM.load(qwen)
    with pytest.raises(ModelError, match="there is no LoRA to save"):
        llm.save(tmp_path)
    with pytest.raises(ModelError, match=r"lora.targets: .* has no linear layer \['nobody'\]; name some of .*q_proj"):
        llm.add_lora(LoRAConfig(targets=("nobody",)))
    llm.add_lora(LoRAConfig(targets=("all-linear",)))
    trained = {name.split(".")[-4] for name, one in llm.named_parameters() if one.requires_grad}
    assert trained == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    with pytest.raises(ModelError, match=r"no answer to learn: read its rows with item\(\.\.\., target=\.\.\.\)"):
        llm.loss(llm.training_batch([llm.item(QUESTION, noise(1.0, 0))]))


def test_voxtral_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r'pip install "mistral-common\[audio\]"'):
        Voxtral().check()


@pytest.mark.parametrize(
    ("maker", "name", "talking"),
    [(qwen25_omni_thinker, "Qwen2_5Omni", "token2wav"), (qwen3_omni_thinker, "Qwen3OmniMoe", "code2wav")],
)
def test_of_a_whole_omni_model_the_thinker_is_loaded(maker: Any, name: str, talking: str, tmp_path: Path) -> None:
    import transformers
    from safetensors.torch import load_file, save_file

    thinker, whole = tmp_path / "thinker", tmp_path / "whole"
    thinker.mkdir()
    maker(thinker)
    config = json.loads((thinker / "config.json").read_text())
    settings = getattr(transformers, f"{name}Config")(thinker_config=config, enable_audio_output=False)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(settings)
    model.save_pretrained(whole)
    file = whole / "model.safetensors"
    talker = {"talker.model.codec_head.weight": torch.ones(2), f"{talking}.conv.weight": torch.ones(2)}
    save_file({**load_file(file), **talker}, file, {"format": "pt"})
    shutil.copytree(thinker, whole, ignore=shutil.ignore_patterns("config.json", "*.safetensors"), dirs_exist_ok=True)
    llm = NativeAudioLLM.load(whole)
    expected = model.thinker.state_dict()
    assert expected.keys() == llm.network.state_dict().keys()
    assert all(torch.equal(one, expected[key]) for key, one in llm.network.state_dict().items())
    assert llm.answer([QUESTION], [noise(1.0, 0)], max_new_tokens=3)[0].raw


def test_qwen25_omni_hears_what_its_processor_makes_of_300_s(tmp_path: Path) -> None:
    llm = NativeAudioLLM.load(qwen25_omni_thinker(tmp_path))
    for seconds in (0.31234, 1.0, 7.77):
        wave = noise(seconds, 0)
        item = llm.item(QUESTION, wave)
        text = llm.processor.apply_chat_template(
            [llm.family.chat(spoken(QUESTION, wave))], tokenize=False, add_generation_prompt=True
        )
        released = llm.processor(text=text, audio=[wave.samples], return_tensors="pt")
        assert item.prompt == tuple(released["input_ids"][0].tolist())
        real = released["feature_attention_mask"][0].bool()
        assert len(real) == 30_000
        torch.testing.assert_close(item.features["input_features"][0], released["input_features"][0][:, real])


@pytest.fixture
def granite(tmp_path: Path) -> Path:
    """A release with a LoRA of its own beside the model, as granite-speech-3.3."""
    from peft import LoraConfig
    from transformers import GraniteSpeechForConditionalGeneration

    torch.manual_seed(0)
    plain = tmp_path / "plain"
    plain.mkdir()
    MAKERS["Granite Speech"](plain)
    model = GraniteSpeechForConditionalGeneration.from_pretrained(plain)
    model.add_adapter(LoraConfig(r=2, target_modules=r".*language_model\..*\.(q|v)_proj"))
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora" in name:
                one.normal_(0, 0.5)
    release = tmp_path / "release"
    model.save_pretrained(str(release))
    # transformers 5.23 writes the base weights under the names that they have inside the LoRA; the release has their own names.
    shutil.copy(plain / "model.safetensors", release)
    shutil.copytree(plain, release, ignore=shutil.ignore_patterns("config.json", "*.safetensors"), dirs_exist_ok=True)
    return release


def test_granites_own_lora_is_on_where_something_is_heard(granite: Path) -> None:
    with_lora, without = NativeAudioLLM.load(granite), NativeAudioLLM.load(granite.parent / "plain")
    assert with_lora.network._hf_peft_config_loaded

    def losses(llm: NativeAudioLLM) -> list[float]:
        items = [llm.item(QUESTION, wave, target=ANSWER) for wave in (noise(1.0, 0), None, noise(1.0, 0))]
        with torch.inference_mode():
            return [round(float(llm.loss(llm.training_batch([item])).loss), 4) for item in items]

    heard, read, again = losses(with_lora)
    assert heard == again != losses(without)[0]
    assert read == losses(without)[1]
    pairs = [(QUESTION, noise(1.0, 0)), ("Peru?", None)]
    batched = with_lora.answer([one for one, _ in pairs], [wave for _, wave in pairs], max_new_tokens=5)
    released = with_lora.network.generate  # the class's own, which switches the LoRA by itself
    for reply, (prompt, wave) in zip(batched, pairs, strict=True):
        inputs = with_lora.prompt_batch([with_lora.item(prompt, wave)]).inputs
        inputs.pop("frame_count", None)
        made = released(**inputs, max_new_tokens=5, do_sample=False, eos_token_id=with_lora.end_id, pad_token_id=with_lora.pad_id)
        ids = made[0, inputs["input_ids"].shape[1] :].tolist()
        assert with_lora.tokenizer.decode(ids).removesuffix("<|end_of_text|>") == reply.raw


def test_base_weights_beside_a_lora_are_checked_too(granite: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(granite / "model.safetensors")
    gone = next(name for name in state if name.endswith("q_proj.weight"))
    save_file({name: one for name, one in state.items() if name != gone}, granite / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"missing: .*q_proj"):
        NativeAudioLLM.load(granite)


def test_a_lora_comes_on_top_of_granites_own(granite: Path, tmp_path: Path) -> None:
    llm = NativeAudioLLM.load(granite)
    item = llm.item(QUESTION, noise(1.0, 0), target=ANSWER)
    batch = llm.training_batch([item])
    before = llm.loss(batch).loss.detach()
    llm.add_lora(LoRAConfig(r=2))
    read = llm.training_batch([llm.item("Peru?", None, target="Lima.")])
    llm.loss(read).loss.backward()  # where nothing is heard, ours learns and the release's is off
    assert {name.split(".")[-2] for name, one in llm.network.named_parameters() if one.grad is not None} == {"undertone"}
    torch.testing.assert_close(llm.loss(batch).loss.detach(), before)  # a new LoRA adds nothing, the release's stays on
    trained = [one for one in llm.parameters() if one.requires_grad]
    own = {name: one.clone() for name, one in llm.network.named_parameters() if ".default." in name}
    optimizer = torch.optim.AdamW(trained, lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        llm.loss(batch).loss.backward()
        optimizer.step()
    after = dict(llm.network.named_parameters())
    assert own
    assert all(torch.equal(one, after[name]) for name, one in own.items())
    assert float(llm.loss(batch).loss.detach()) < float(before)
    llm.save(tmp_path / "ours")
    again = NativeAudioLLM.load(tmp_path / "ours")
    torch.testing.assert_close(again.loss(batch).loss, llm.loss(batch).loss)


def test_granites_front_end_is_the_log_mel_of_its_definition() -> None:
    from undertone.model.native.granite import GraniteFeatures

    samples = noise(1.3, 0).samples.astype(np.float64)
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(samples, 256, mode="reflect")
    frames = np.stack([padded[start : start + 512] * window for start in range(0, len(samples) + 1, 160)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    top_mel = 2595 * np.log10(1 + 8000 / 700)
    edges = 700 * (10 ** (np.linspace(0, top_mel, 82) / 2595) - 1)
    hz = np.linspace(0, 8000, 257)[:, None]
    rising, falling = (hz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hz) / np.diff(edges)[1:]
    log = np.log10(np.maximum(power @ np.maximum(0, np.minimum(rising, falling)), 1e-10))
    log = np.maximum(log, log.max() - 8) / 4 + 1
    made = GraniteFeatures()([samples.astype(np.float32)])
    expected = log[: len(log) // 2 * 2].reshape(-1, 160)
    np.testing.assert_allclose(made["input_features"][0].numpy(), expected, atol=1e-4)
    assert made["audio_embed_sizes"] == [int(np.ceil(len(expected) / 15)) * 3]
