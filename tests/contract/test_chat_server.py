"""Client, generator and judge against transformers' own OpenAI-compatible server, with tiny checkpoints made here.

One is random, and writes what random weights write. The other says one sentence whatever it is asked: its attention and its MLP add
nothing, so that the last token alone decides the next one, and its embeddings lead from "the assistant's turn" to a token that is the
sentence, and from there to the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.contract.test_judges import item
from tests.unit.test_grammar import MIXED
from undertone.chat import ChatClient, Endpoint, Message, Reply
from undertone.errors import ServiceError
from undertone.evaluate.judges import LLMJudge
from undertone.generate.llm import LLMGenerator
from undertone.generate.strategies import STRATEGIES

pytestmark = pytest.mark.slow

HELLO = [Message(role="user", content="Hello there")]
GRADE = {"explanation": "It agrees.", "grade": 4}
PAIR = {"kind": "C", "question": "When is dinner?", "answer": "At eight.", "label": None}


def tokenizer(sentence: str = "") -> Any:
    """Bytes, the marks of a chat template, and one token that is a whole sentence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
    pieces = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet()), *([sentence.replace(" ", "Ġ")] if sentence else [])]
    made = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", additional_special_tokens=marks[2:])
    fast.chat_template = (
        "{{ bos_token }}{% for one in messages %}<|{{ one['role'] }}|>{{ one['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return fast


def network(vocabulary: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16_384,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def saved(folder: Path, net: Any, fast: Any) -> str:
    net.save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


def random_checkpoint(folder: Path) -> str:
    fast = tokenizer()
    return saved(folder, network(len(fast)), fast)


def speaking_checkpoint(folder: Path, sentence: str) -> str:
    import torch

    fast = tokenizer(sentence)
    net = network(len(fast))
    assistant, said, end = fast.convert_tokens_to_ids("<|assistant|>"), len(fast) - 1, 1
    with torch.no_grad():
        for layer in net.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        net.model.embed_tokens.weight.zero_()
        net.lm_head.weight.zero_()
        for axis, (before, after) in enumerate(((assistant, said), (said, end))):
            net.model.embed_tokens.weight[before, axis] = 1.0
            net.lm_head.weight[after, axis] = 1.0
    return saved(folder, net, fast)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "random": random_checkpoint(folder / "random"),
        "grader": speaking_checkpoint(folder / "grader", json.dumps(GRADE)),
        "writer": speaking_checkpoint(folder / "writer", json.dumps({"pairs": [PAIR]})),
    }


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve`, which loads the checkpoint that a request names."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("hub")
    program = [
        str(Path(sys.executable).parent / "transformers"),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(program, stdout=log, stderr=log, env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.5)
        else:
            raise AssertionError((home / "log").read_text())
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


class Grade(BaseModel):
    explanation: str
    grade: int


def asked(at: Endpoint, texts: list[str], *, schema: type[BaseModel] | None = None, attempt: int = 0) -> list[Reply]:
    async def go() -> list[Reply]:
        async with ChatClient(at) as chat:
            one = (chat.ask([Message(role="user", content=text)], schema=schema, attempt=attempt) for text in texts)
            return list(await asyncio.gather(*one))

    return asyncio.run(go())


def test_a_real_server_answers_counts_and_cuts(url: str, checkpoints: dict[str, str]) -> None:
    at = Endpoint(endpoint=url, model=checkpoints["random"], max_tokens=12)
    (reply,) = asked(at, ["Hello there"])
    assert (reply.kind, reply.completion_tokens, reply.cached) == ("cut", 12, False)
    assert reply.prompt_tokens == 3 + len("Hello there")  # bytes, and the three marks of the template
    assert reply.model.startswith(checkpoints["random"])


def test_several_at_a_time_get_what_each_gets_alone(url: str, checkpoints: dict[str, str]) -> None:
    at = Endpoint(endpoint=url, model=checkpoints["random"], max_tokens=8, concurrency=4)
    texts = ["one", "two", "three", "four"]
    together = asked(at, texts)
    assert [one.text for one in together] == [asked(at, [text])[0].text for text in texts]
    assert len({one.text for one in together}) > 1


def test_a_server_that_ignores_the_format_hears_it_in_words_when_asked_again(url: str, checkpoints: dict[str, str]) -> None:
    at = Endpoint(endpoint=url, model=checkpoints["random"], max_tokens=4)
    plain, formatted, again = (
        asked(at, ["Hello"], schema=schema, attempt=attempt)[0].prompt_tokens
        for schema, attempt in ((None, 0), (Grade, 0), (Grade, 1))
    )
    assert plain == formatted  # it takes `response_format` and does nothing about it
    assert again > plain + len(json.dumps(Grade.model_json_schema()))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_gibberish_is_no_pair_or_quarantined_and_kept(url: str, checkpoints: dict[str, str], strategy: str, tmp_path: Path) -> None:
    at = Endpoint(endpoint=url, model=checkpoints["random"], max_tokens=16, rereads=1)
    generator = LLMGenerator(STRATEGIES[strategy](), at=at, cache_dir=tmp_path)
    requests = len(generator.puts(MIXED, seed=0))
    assert requests
    with pytest.raises(ServiceError, match=r"wrote nothing usable about clip .* in 2 attempts: .*cut at the token limit"):
        generator.write(MIXED, seed=0)
    kept = [Reply.model_validate_json(one.read_text()) for one in tmp_path.rglob("*.json")]
    assert len(kept) == 2 * requests
    assert all(one.text and one.kind == "cut" for one in kept)


def test_a_model_that_writes_a_pair_makes_one(url: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
    at = Endpoint(endpoint=url, model=checkpoints["writer"], max_tokens=16)
    (pair,) = LLMGenerator(STRATEGIES["cpqa"](), at=at, cache_dir=tmp_path).write(MIXED, seed=0)
    assert (pair.question, pair.answer, pair.model) == (PAIR["question"], PAIR["answer"], checkpoints["writer"])
    assert pair.raw == json.dumps({"pairs": [PAIR]})


@pytest.mark.parametrize(("rubric", "score", "reason"), [("graded", 80, None), ("binary", None, "unreadable")])
def test_a_model_that_grades_is_a_judge(
    url: str, checkpoints: dict[str, str], rubric: str, score: float | None, reason: str | None
) -> None:
    found = LLMJudge(endpoint=url, model=checkpoints["grader"], rubric=rubric).score(item("She is sad."))  # type: ignore[arg-type]
    assert (found.score, found.unscored, found.raw) == (score, reason, json.dumps(GRADE))


def test_a_model_that_is_not_there_is_a_service_error(url: str) -> None:
    with pytest.raises(ServiceError, match=r"answered 5.. for model 'no-such-model'|answered 4.. for model 'no-such-model'"):
        asked(Endpoint(endpoint=url, model="no-such-model", retries=0), ["Hello"])
