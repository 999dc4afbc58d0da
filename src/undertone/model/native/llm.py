"""One adapter over the native audio LLMs of transformers: answer, learn, be adapted by LoRA."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from undertone.audio import Wave
from undertone.errors import ConfigError, DataError, DependencyError, ModelError, UndertoneError
from undertone.model.collate import IGNORE
from undertone.model.config import LoRAConfig
from undertone.model.native.chats import Heard, Prompt, spoken
from undertone.model.native.families import LORA, Family, family_of, pad_to
from undertone.model.speech_llm import Output, Reply, item_means

ADAPTER_CONFIG = "adapter_config.json"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class NativeItem:
    """One row, read by the processor: prompt tokens, tensors of what is heard, and the answer's tokens with their end."""

    prompt: tuple[int, ...]
    features: Mapping[str, Tensor]
    target: tuple[int, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class NativeBatch:
    """Rows as tensors.

    Attributes:
        inputs: `input_ids` and `attention_mask` (B, L), and what the family hears.
        labels: (B, L); `IGNORE` outside answers.
    """

    inputs: dict[str, Tensor]
    labels: Tensor


class NativeAudioLLM(nn.Module):
    """A native audio LLM with its processor.

    As a module it takes a batch and gives `Output`: a mean over rows of the mean over a row's answer tokens, as `SpeechLLM` does.
    """

    def __init__(
        self,
        network: Any,
        processor: Any,
        family: Family,
        *,
        name: str,
        revision: str | None = None,
        long_audio: Literal["refuse", "truncate"] = "refuse",
    ) -> None:
        """Store the parts; `load` makes them."""
        super().__init__()
        self.network = network
        self.processor = processor
        self.family = family
        self.name = name
        self.revision = revision
        self.long_audio = long_audio
        self.tokenizer: Any = processor.tokenizer
        self.end_id = family.end(processor)
        padding = self.tokenizer.pad_token_id
        self.pad_id = int(self.end_id if padding is None else padding)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device_map: str | dict[str, Any] | None = None,
        long_audio: Literal["refuse", "truncate"] = "refuse",
    ) -> NativeAudioLLM:
        """Load a model with its processor, ready to answer.

        Args:
            name: A name on the hub, a folder, or a folder that `save` wrote after `add_lora`.
            revision: Commit or tag of a hub's model.
            dtype: Of the weights, such as "bfloat16"; "auto" is the checkpoint's.
            device_map: As accelerate reads it ("auto" spreads over the devices there are); None is the CPU.
            long_audio: What happens to a wave longer than the family hears: an error, or only its start is heard.

        Raises:
            ModelError: It does not load, its weights do not fit, or its kind is not supported (those that are, are listed).
            DependencyError: A package is missing.
        """
        place = str(name)
        lora = Path(place) if _holds_lora(place) else None
        if lora is not None:
            with _loading(place):
                card = json.loads((lora / ADAPTER_CONFIG).read_bytes())
                place, revision = str(card["base_model_name_or_path"]), card.get("revision") or revision
        with _loading(place):
            family = family_of(_model_type(place, revision), place)
            family.check()
            network, told = family.network(
                pretrained_model_name_or_path=place, revision=revision, dtype=dtype, device_map=device_map
            )
            _strict(place, told)
            made = cls(network, family.processor(place, revision), family, name=place, revision=revision, long_audio=long_audio)
            if lora is not None:
                made._load_lora(lora)
        return made.eval()

    def train(self, mode: bool = True) -> NativeAudioLLM:
        """As of every module, but parts that are frozen whole stay as in use: no dropout, no change of Granite's batch statistics."""
        super().train(mode)
        for part in self.network.model.children():
            if not any(one.requires_grad for one in part.parameters()):
                part.eval()
        return self

    def item(
        self, prompt: Prompt, heard: Heard, *, target: str | None = None, source: str = "", name: str = "this row"
    ) -> NativeItem:
        """Read one row.

        Args:
            prompt: A question, or messages (`dialogue`) that end with the user's.
            heard: The waves of its placeholders, mono, at the processor's rate.
            target: The answer to learn.
            source: Where the row comes from, for losses by source.
            name: Of the row, for errors.

        Raises:
            DataError: Placeholders do not fit the waves, a wave has another rate, is empty or too long, or a text holds control tokens.
        """
        said = spoken(prompt, heard, name=name)
        fitted = [type(one)(one.role, tuple(self._fit(part, name) for part in one.parts)) for one in said]
        try:
            read = self.family.read(self.processor, fitted)
        except UndertoneError as error:
            raise type(error)(f"{name}: {error}") from error
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"{name}: {self.family.title}'s processor does not take it: {error}") from error
        answer: tuple[int, ...] = ()
        if target is not None:
            # Read apart from the prompt, so that the model learns to go on from exactly the tokens that it is asked with.
            answer = (*_plain(self.tokenizer, target.strip()), self.end_id)
        return NativeItem(read.ids, self._trimmed(read.features), answer, source)

    def training_batch(self, items: Sequence[NativeItem]) -> NativeBatch:
        """Prompts and answers, padded on the right; labels are the answer's tokens and the token that ends it."""
        rows = [(*one.prompt, *one.target) for one in items]
        labels = [(*(IGNORE for _ in one.prompt), *one.target) for one in items]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad_id] * (width - len(row))] for row in rows])
        mask = torch.tensor([[*[1] * len(row), *[0] * (width - len(row))] for row in rows])
        wanted = torch.tensor([[*row, *[IGNORE] * (width - len(row))] for row in labels])
        return NativeBatch({"input_ids": ids, "attention_mask": mask, **self._features(items)}, wanted)

    def prompt_batch(self, items: Sequence[NativeItem]) -> NativeBatch:
        """Prompts alone, padded on the left so that all answers begin in the same column."""
        width = max(len(one.prompt) for one in items)
        ids = torch.tensor([[*[self.pad_id] * (width - len(one.prompt)), *one.prompt] for one in items])
        mask = torch.tensor([[*[0] * (width - len(one.prompt)), *[1] * len(one.prompt)] for one in items])
        return NativeBatch({"input_ids": ids, "attention_mask": mask, **self._features(items)}, torch.full_like(ids, IGNORE))

    def loss(self, batch: NativeBatch) -> Output:
        """Loss of a training batch's answers."""
        output: Output = self(labels=batch.labels, **batch.inputs)
        return output

    def forward(self, *, labels: Tensor, **inputs: Tensor) -> Output:
        """Loss of the answers; `inputs` and `labels` are a `NativeBatch`'s (a trainer hands a batch over as keywords).

        Raises:
            ModelError: No row has an answer.
        """
        ready = self.family.ready(self.network, self._placed(inputs))
        hidden = self.network.model(**ready, use_cache=False).last_hidden_state
        labels = labels.to(hidden.device)
        rows, columns = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
        if not len(rows):
            raise ModelError("the batch has no answer to learn: read its rows with item(..., target=...)")
        logits = self._logits(hidden[rows, columns])
        nll = nn.functional.cross_entropy(logits.float(), labels[rows, columns + 1], reduction="none")
        return Output(item_means(nll, rows).mean(), nll, logits)

    def answer(self, prompts: Sequence[Prompt], waves: Sequence[Heard], *, max_new_tokens: int = 64) -> list[Reply]:
        """Answer prompts in one batch, greedily; each is answered as it would be alone.

        What the checkpoint's generation_config.json says beside sampling, such as a repetition penalty, holds.

        Args:
            prompts: A question or a conversation each.
            waves: What each of them hears.
            max_new_tokens: Longest answer.

        Raises:
            DataError: A row does not fit (`item`).
        """
        pairs = zip(prompts, waves, strict=True)
        items = [self.item(prompt, heard, name=f"prompt {index}") for index, (prompt, heard) in enumerate(pairs)]
        replies: dict[int, Reply] = {}
        for rows in self._together(items):
            made = self.generate(self.prompt_batch([items[row] for row in rows]), max_new_tokens=max_new_tokens)
            replies |= {row: self._reply(ids) for row, ids in zip(rows, made, strict=True)}
        return [replies[index] for index in range(len(items))]

    @torch.inference_mode()
    def generate(self, batch: NativeBatch, *, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of a prompt batch, end token and padding removed."""
        was_training = self.training
        self.eval()
        try:
            ready = self.family.ready(self.network, self._placed(batch.inputs))
            ends = self._ends()
            import transformers

            # The mixin's: Granite's own switches its LoRA off where it is given embeddings.
            mixin: Any = transformers.GenerationMixin
            made = mixin.generate(
                self.network,
                **ready,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                eos_token_id=ends,
                pad_token_id=self.pad_id,
            )
        finally:
            self.train(was_training)
        skip = batch.inputs["input_ids"].shape[1] if "input_ids" in ready else 0
        return [_until(row, ends) for row in made[:, skip:].tolist()]

    def add_lora(self, config: LoRAConfig | None = None) -> None:
        """Freeze the model and add a LoRA to its LLM, on top of one that the checkpoint may have; nothing that hears is changed.

        Args:
            config: Rank, scale and targets; with no targets it is the LLM's attention.

        Raises:
            DependencyError: peft is missing.
            ModelError: No layer has such a name.
        """
        config = config or LoRAConfig()
        if config.where != "all":
            raise ConfigError("lora.where='speech' is of our own speech-LLMs; for a native audio LLM set lora.where=all")
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise DependencyError('LoRA needs peft: pip install "undertone[train]"') from error
        # A layer that the checkpoint's LoRA has wrapped goes by its own name.
        layers = [name.removesuffix(".base_layer") for name, one in self.network.named_modules() if isinstance(one, nn.Linear)]
        linear = [name for name in layers if ".lora_" not in name]
        # Whole names: peft shortens a pattern to the last part of a name for a mixture of experts, and would adapt the encoder too.
        named = {name: name.rsplit(".", 1)[-1] for name in linear if "language_model." in name}
        targets = set(named.values()) if config.targets == ("all-linear",) else set(config.targets or ATTENTION)
        if missing := sorted(targets - set(named.values())):
            known = ", ".join(sorted(set(named.values())))
            raise ModelError(
                f"lora.targets: the LLM of {self.name} has no linear layer {missing}; name some of {known}, or 'all-linear'"
            )
        found = [name for name, last in named.items() if last in targets]
        made = LoraConfig(r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=found)
        before = list(getattr(self.network, "peft_config", {}))
        self.network.requires_grad_(False)
        self.network.add_adapter(made, LORA)
        self._activate([*before, LORA])

    def save(self, folder: Path) -> None:
        """Write the LoRA (`add_lora`) in PEFT's layout; `load` and PEFT's own `from_pretrained` read it.

        Raises:
            ModelError: There is none: whole models are written by transformers (`network.save_pretrained`).
        """
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        if LORA not in getattr(self.network, "peft_config", {}):
            raise ModelError("there is no LoRA to save: call add_lora first, or network.save_pretrained for the whole model")
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(self.network, adapter_name=LORA)
        save_file(
            {f"base_model.model.{key}": one.contiguous().cpu() for key, one in state.items()}, folder / "adapter_model.safetensors"
        )
        config = self.network.peft_config[LORA]
        config.base_model_name_or_path, config.revision = self.name, self.revision
        config.save_pretrained(str(folder))

    def _load_lora(self, folder: Path) -> None:
        before = list(getattr(self.network, "peft_config", {}))
        told = self.network.load_adapter(str(folder), adapter_name=LORA)
        # It counts the weights of another LoRA as missing too.
        missing = [key for key in told.missing_keys if f".{LORA}." in key]
        unfit = {"unexpected_keys": told.unexpected_keys, "mismatched_keys": told.mismatched_keys}
        _strict(str(folder), {"missing_keys": missing, **unfit})
        self._activate([*before, LORA])

    def _activate(self, names: list[str]) -> None:
        """Switch adapters on together; only ours is trained."""
        self.network.set_adapter(names if len(names) > 1 else names[0])
        for key, one in self.network.named_parameters():
            one.requires_grad_(f".{LORA}." in key)

    def _fit(self, part: str | Wave, name: str) -> str | Wave:
        """Check a wave, cut it where that was asked for, add silence where the encoder needs it."""
        if isinstance(part, str):
            return part
        front = getattr(self.processor, "feature_extractor", None) or self.processor.audio_processor
        rate_hz = int(front.sampling_rate)
        if part.rate_hz != rate_hz:
            raise DataError(
                f"{name}: {self.family.title} hears {rate_hz} Hz, got {part.rate_hz}; load the file with rate_hz={rate_hz}"
            )
        if not len(part.samples):
            raise DataError(f"{name}: the wave is empty; expected at least a few frames of sound")
        if not np.isfinite(part.samples).all():
            raise DataError(f"{name}: the wave has samples that are no numbers; decode the file again, or leave the row out")
        shortest = int(self.family.shortest_s * rate_hz)
        if len(part.samples) < shortest:
            return Wave(np.pad(part.samples, (0, shortest - len(part.samples))), rate_hz)
        longest = None if self.family.window_s is None else int(self.family.window_s * rate_hz)
        if longest is None or len(part.samples) <= longest:
            return part
        if self.long_audio == "refuse":
            raise DataError(
                f"{name}: the wave lasts {len(part.samples) / rate_hz:.1f} s and {self.family.title} hears {self.family.window_s:g} s at "
                "once; cut it, or load the model with long_audio='truncate'"
            )
        return Wave(part.samples[:longest], rate_hz)

    def _trimmed(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the frames behind the longest wave, where the model selects frames by their mask."""
        if not self.family.trims or "feature_attention_mask" not in features:
            return features
        longest = int(features["feature_attention_mask"].sum(-1).max())
        return {key: one[..., :longest] for key, one in features.items()}

    def _features(self, items: Sequence[NativeItem]) -> dict[str, Tensor]:
        """What the rows hear, one after the other, padded to the longest."""
        keys = {key for one in items for key in one.features}
        made = {}
        for key in sorted(keys):
            found = [one.features[key] for one in items if key in one.features]
            shape = [max(sizes) for sizes in zip(*(one.shape[1:] for one in found), strict=True)]
            made[key] = torch.cat([pad_to(one, shape) for one in found])
        return made

    def _together(self, items: Sequence[NativeItem]) -> list[list[int]]:
        """Indices of rows that may share a batch."""
        if self.family.mixes():
            return [list(range(len(items)))] if items else []
        hears = [index for index, one in enumerate(items) if one.features]
        reads = [index for index, one in enumerate(items) if not one.features]
        return [rows for rows in (hears, reads) if rows]

    def _placed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """On the model's device, and features in its precision."""
        device, dtype = self.network.device, self.network.dtype
        return {key: one.to(device, dtype) if one.is_floating_point() else one.to(device) for key, one in inputs.items()}

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits at chosen positions only: the class's own forward computes them for every audio token too."""
        head = self.network.get_output_embeddings()
        logits: Tensor = head(hidden)
        config = self.network.config.get_text_config()
        # Granite's LLM was trained with scaled logits; transformers' speech class leaves the scale out (greedy answers are the same).
        logits = logits / getattr(config, "logits_scaling", 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _ends(self) -> list[int]:
        """Tokens that end an answer: the template's, and those that the checkpoint names."""
        named = self.network.generation_config.eos_token_id
        known = [] if named is None else [named] if isinstance(named, int) else list(named)
        return sorted({self.end_id, *known})

    def _reply(self, ids: list[int]) -> Reply:
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return Reply(text.strip(), str(self.tokenizer.decode(ids, skip_special_tokens=False)))


def _plain(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text, control tokens in it as plain text (mistral-common never reads any)."""
    fast = {"split_special_tokens": True} if hasattr(tokenizer, "backend_tokenizer") else {}
    return [int(one) for one in tokenizer(text, add_special_tokens=False, **fast)["input_ids"]]


def _until(row: list[int], ends: Sequence[int]) -> list[int]:
    return row[: next((index for index, token in enumerate(row) if token in ends), len(row))]


def _holds_lora(place: str) -> bool:
    """Whether a folder holds a LoRA alone; Granite's release has one beside the model."""
    return (Path(place) / ADAPTER_CONFIG).is_file() and not (Path(place) / "config.json").exists()


def _model_type(place: str, revision: str | None) -> str | None:
    from transformers import PreTrainedConfig

    found, _ = PreTrainedConfig.get_config_dict(place, revision=revision)
    if not found:
        raise OSError("there is no config.json")
    named: str | None = found.get("model_type")
    return named


@contextmanager
def _loading(place: str) -> Iterator[None]:
    """Turn what loaders of transformers raise into one error that says what to do."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise DependencyError('native audio LLMs need transformers: pip install "undertone[train]"') from error
    try:
        yield
    except ImportError as error:
        raise DependencyError(f"{place} needs a package that is missing: {error}") from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        said = f"{type(error).__name__}: {str(error).strip()[:300]}"
        raise ModelError(
            f"native audio LLM {place!r} does not load ({said}). Expected its files as the hub has them; try: hf download {place}"
        ) from error


def _strict(place: str, told: Mapping[str, Any]) -> None:
    """Refuse weights that do not fit; a model that runs on partly random weights would answer as if it were the named one."""
    wrong = {
        "missing": sorted(told["missing_keys"]),
        "unexpected": sorted(told["unexpected_keys"]),
        "of another shape": sorted(one[0] if isinstance(one, tuple) else str(one) for one in told["mismatched_keys"]),
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
        raise ModelError(f"the weights of {place} do not fit its configuration: {found}")
