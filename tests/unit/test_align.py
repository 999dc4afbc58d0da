"""The adapter learns to hear words: times become targets, targets are learnt, test clips are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from undertone.errors import DataError  # noqa: E402
from undertone.model.collate import IGNORE  # noqa: E402
from undertone.model.config import AdapterConfig, DecoderConfig, SpeechLLMConfig  # noqa: E402
from undertone.model.speech_llm import SpeechLLM  # noqa: E402
from undertone.model.tokenizer import train_tokenizer  # noqa: E402
from undertone.records import Clip, Segment, Word  # noqa: E402
from undertone.train.align import align, spoken_tokens, tokens_under  # noqa: E402
from undertone.train.config import AlignConfig, TrainConfig  # noqa: E402

WORDS = ("cat", "dog", "tree")
STACK, WIDTH = 5, 6
DECODER = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def clip(number: int, words: list[str], *, split: str = "train") -> Clip:
    """Words of 100 ms each (one stack of five frames), from 1 s on."""
    times = [(1_000 + 100 * index, 1_100 + 100 * index) for index in range(len(words))]
    spoken = tuple(Word(text=word, start_ms=start, end_ms=end) for word, (start, end) in zip(words, times, strict=True))
    about = {"recording_id": f"r{number}", "start_ms": 1_000, "end_ms": times[-1][1]}
    segment = Segment(**about, transcript=" ".join(words), words=spoken)
    return Clip.model_validate({**about, "uri": "a.wav", "source": "s", "split": split, "segments": (segment,)})


def frames(words: list[str], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    codes = np.eye(len(WORDS), WIDTH)[[WORDS.index(word) for word in words]]
    return (codes.repeat(STACK, axis=0) + 0.1 * rng.standard_normal((STACK * len(words), WIDTH))).astype(np.float32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tokenizer = train_tokenizer([f" {word}" for word in WORDS] * 20, vocab_size=400)
    model = SpeechLLMConfig(
        decoder=DecoderConfig(config=DECODER), adapter=AdapterConfig(stack=STACK), frozen=("encoder", "adapter")
    )
    torch.manual_seed(0)
    SpeechLLM(model, tokenizer, frame_dim=WIDTH).save(tmp_path)
    return tmp_path


def test_tokens_stand_at_their_words_times(checkpoint: Path) -> None:
    tokenizer = SpeechLLM.load(checkpoint).tokenizer
    spoken = spoken_tokens(clip(0, ["cat", "tree."]), tokenizer)
    (cat,), (tree,) = tokenizer.word_ids("cat"), tokenizer.word_ids("tree")
    assert tokens_under(spoken, embeddings=3, stack=5, cut=0).tolist() == [cat, tree, IGNORE]
    assert tokens_under(spoken, embeddings=2, stack=5, cut=5).tolist() == [tree, IGNORE]
    silent = clip(0, ["cat"]).model_copy(update={"segments": ()})
    assert tokens_under(spoken_tokens(silent, tokenizer), embeddings=2, stack=5, cut=0).tolist() == [IGNORE, IGNORE]


def test_the_adapter_learns_the_words_and_the_decoder_stays(checkpoint: Path) -> None:
    rng = np.random.default_rng(1)
    texts = [list(rng.choice(WORDS, 4)) for _ in range(40)]
    clips = [clip(number, words) for number, words in enumerate(texts)]
    heard = {one.id: frames(words, number) for number, (one, words) in enumerate(zip(clips, texts, strict=True))}
    before = {name: tensor.clone() for name, tensor in SpeechLLM.load(checkpoint).decoder.state_dict().items()}
    losses: list[float] = []
    config = TrainConfig(shift_frames=0, log_every=1, align=AlignConfig(steps=80, batch_size=8, lr=1e-2, threads=1))
    align(checkpoint, clips[:30], heard, config, progress=lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.3 * losses[0]
    model = SpeechLLM.load(checkpoint).eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.decoder.state_dict().items())
    vectors = model.decoder.get_input_embeddings().weight.detach()
    for one, words in zip(clips[30:], texts[30:], strict=True):
        with torch.no_grad():
            made, _ = model.adapter(torch.from_numpy(heard[one.id])[None], torch.ones(1, 4 * STACK, dtype=torch.bool))
        nearest = (
            torch.nn.functional.normalize(made[0] - vectors.mean(0), dim=-1)
            @ torch.nn.functional.normalize(vectors - vectors.mean(0), dim=-1).T
        )
        assert nearest.argmax(-1).tolist() == [model.tokenizer.word_ids(word)[0] for word in words]


def test_weight_decay_shrinks_matrices_only(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **rest: seen.extend(groups) or adamw(groups, **rest))
    words = [clip(number, ["cat", "dog"]) for number in range(2)]
    heard = {one.id: frames(["cat", "dog"], 0) for one in words}
    align(checkpoint, words, heard, TrainConfig(weight_decay=0.25, align=AlignConfig(steps=1, threads=1)))
    assert {(one.dim() > 1, group["weight_decay"]) for group in seen for one in group["params"]} == {(True, 0.25), (False, 0.0)}
    adapter = SpeechLLM.load(checkpoint).adapter
    assert sum(len(group["params"]) for group in seen) == len(list(adapter.parameters()))


def test_test_clips_and_wordless_clips_are_refused(checkpoint: Path) -> None:
    with pytest.raises(DataError, match="is of split test; the adapter is aligned on train clips only"):
        align(checkpoint, [clip(0, ["cat"], split="test")], {}, TrainConfig())
    silent = clip(0, ["cat"]).model_copy(update={"segments": ()})
    with pytest.raises(DataError, match=r"none of 1 clips has words to align with; set train\.align\.steps=0"):
        align(checkpoint, [silent], {}, TrainConfig())
