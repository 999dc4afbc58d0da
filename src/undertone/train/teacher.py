"""The teacher of `train.objective.loss` "kl": a decoder that reads what the student hears, and does not learn."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from undertone.errors import ConfigError, ModelError
from undertone.model.checkpoint import CONFIG_FILE, MODEL_TYPE, quiet_bars
from undertone.model.collate import IGNORE
from undertone.model.speech_llm import SpeechLLM, logits_of
from undertone.model.tokenizer import TextTokenizer, decoder_tokenizer


class Teacher:
    """A decoder whose logits are matched."""

    def __init__(self, decoder: Any, *, bare: bool) -> None:
        """Store it.

        Args:
            decoder: A causal LM of transformers; the student's own, or another.
            bare: Whether it is asked without its LoRA updates, which are the student's.
        """
        self.decoder, self.bare = decoder, bare

    @torch.no_grad()
    def logits(self, read: Mapping[str, Tensor]) -> Tensor:
        """Logits (N, V) in front of the answer tokens of a text-only `collate.training_batch`, row by row."""
        ids, labels = read["input_ids"], read["labels"]
        decoder = self.decoder
        decoder.to(ids.device)
        was_training = decoder.training
        decoder.train(False)  # no dropout, and no random numbers that the student would miss
        try:
            with without_lora(decoder) if self.bare else _as_it_is():
                embeddings = decoder.get_input_embeddings()(ids)
                seen = read["attention_mask"]
                cost = torch.zeros_like(seen, dtype=embeddings.dtype).masked_fill(~seen, torch.finfo(embeddings.dtype).min)
                hidden = decoder.base_model(
                    inputs_embeds=embeddings, attention_mask=cost.unsqueeze(1), position_ids=read["position_ids"], use_cache=False
                ).last_hidden_state
                rows, columns = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
                return logits_of(decoder, hidden[rows, columns])
        finally:
            decoder.train(was_training)


def teacher_of(model: SpeechLLM, name: str | None, *, sharded: bool = False) -> Teacher:
    """The teacher of a model, as the model is now: call it before the first step, and before a state is read.

    Args:
        model: The student.
        name: `ObjectiveConfig.teacher`.
        sharded: Whether each process will hold a part of the student's weights only, so that a teacher must have its own.

    Raises:
        ConfigError: Its tokeniser is not the student's, so that their distributions are over different things.
        ModelError: It does not load.
    """
    if name is None:
        shared = "decoder" in model.parts.frozen and not sharded
        return Teacher(model.decoder if shared else _frozen(copy.deepcopy(model.decoder)), bare=True)
    if _is_ours(name):
        other = SpeechLLM.load(Path(name))
        check_tokenizer(name, other.tokenizer, model.tokenizer)
        return Teacher(_frozen(other.decoder), bare=False)
    check_tokenizer(name, decoder_tokenizer(name), model.tokenizer)
    library: Any = transformers
    try:
        with quiet_bars():
            decoder = library.AutoModelForCausalLM.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"train.objective.teacher={name!r} does not load: {error}. Expected a Hugging Face causal LM by name or folder, or a checkpoint "
            "of Undertone"
        ) from error
    return Teacher(_frozen(decoder), bare=False)


def check_tokenizer(name: str, teacher: TextTokenizer, student: TextTokenizer) -> None:
    """Refuse a teacher that writes in other tokens than the student, or stands a prompt in another template.

    Raises:
        ConfigError: As said; it offers "ce".
    """
    differs = None
    if teacher.tokens != student.tokens:
        named = [key for key, value in teacher.tokens.model_dump().items() if value != getattr(student.tokens, key)]
        differs = (
            f"its {', '.join(named)} is {getattr(teacher.tokens, named[0])!r}, the student's {getattr(student.tokens, named[0])!r}"
        )
    elif teacher.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        differs = (
            f"it has {len(teacher)} tokens, the student {len(student)}" if len(teacher) != len(student) else "it has other tokens"
        )
    elif _pieces(teacher) != _pieces(student):
        differs = "it joins pieces in another order"
    if differs is not None:
        raise ConfigError(
            f"train.objective.teacher={name!r} has another tokeniser than the student: {differs}. KL is impossible, since there is no token "
            "for which both have a distribution; set train.objective.loss=ce, which learns from replies that any LLM wrote "
            "(generate.sources), or name a teacher of the same family"
        )


@contextmanager
def without_lora(decoder: Any) -> Iterator[None]:
    """The decoder as it is without its updates; what of it is trained stays so."""
    layers = [one for one in decoder.modules() if hasattr(one, "_disable_adapters")]
    before = [one._disable_adapters for one in layers]
    for one in layers:  # PEFT's own switch would also say anew what is trained
        one._disable_adapters = True
    try:
        yield
    finally:
        for one, was in zip(layers, before, strict=True):
            one._disable_adapters = was


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def _frozen(decoder: Any) -> Any:
    decoder.requires_grad_(False)
    return decoder.train(False)


def _is_ours(name: str) -> bool:
    file = Path(name) / CONFIG_FILE
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE


def _pieces(tokenizer: TextTokenizer) -> Any:
    return json.loads(tokenizer.tokenizer.to_str())["model"].get("merges")
