"""The speech-LLM of 2508.07273: frames of a speech encoder -> adapter -> decoder-only LLM, loss on the answer only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from undertone.errors import ModelError
from undertone.model.adapters import build_adapter, count_of
from undertone.model.checkpoint import (
    CONFIG_FILE,
    INDEX_FILE,
    MODEL_TYPE,
    WEIGHTS_FILE,
    Checkpoint,
    UndertoneConfig,
    check_fits,
    quiet_bars,
    read_checkpoint,
    read_weights,
    snapshot,
)
from undertone.model.collate import IGNORE, Batch, FrameArray, Item, prompt_batch
from undertone.model.config import DecoderConfig, Part, SpeechLLMConfig
from undertone.model.examples import System
from undertone.model.lora import MARK, add_lora, merge_lora, unmarked
from undertone.model.speech_encoder import SpeechEncoder
from undertone.model.stopping import StopTexts, cut, finished, settled
from undertone.model.tokenizer import TextTokenizer, decoder_tokenizer

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Checkpoint",
    "Output",
    "Reply",
    "SpeechLLM",
    "item_means",
    "read_checkpoint",
    "tokenizer_for",
]


class Output(NamedTuple):
    """Result of a forward pass.

    Attributes:
        loss: Scalar: mean over items of the mean over an item's answer tokens (each question counts once, however long its answer).
        nll: (N,) negative log likelihood of each answer token of the batch, row by row.
        logits: (N, V) what `nll` was computed from.
    """

    loss: Tensor
    nll: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Reply:
    """A generated answer: `raw` with special tokens, `text` without."""

    text: str
    raw: str


class SpeechLLM(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Frames and text in, answer tokens out.

    A frozen encoder is outside: its frames are computed once per clip. One that is trained is inside, and "frames" are what it reads.

    Attributes:
        config: All that a checkpoint's config.json says.
        parts: What of that stands in a study file.
        encoder: None where it is outside.
    """

    config_class = UndertoneConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(
        self,
        config: SpeechLLMConfig | UndertoneConfig,
        tokenizer: TextTokenizer | None = None,
        *,
        frame_dim: int | None = None,
        encoder_fingerprint: str | None = None,
    ) -> None:
        """Build the model with new (or the named decoder's) weights.

        Args:
            config: Parts, with the arguments that follow; or the configuration of a checkpoint, which says all but the tokeniser.
            tokenizer: Of the decoder; `tokenizer_for` chooses it. Without one the model computes losses and tokenises nothing.
            frame_dim: Width of the encoder's frames, or of its inputs where it runs inside.
            encoder_fingerprint: Recorded in the checkpoint.
        """
        if isinstance(config, SpeechLLMConfig):
            config = _described(config, tokenizer, frame_dim, encoder_fingerprint)
        super().__init__(config)
        card = config.checkpoint
        self.parts = card.model
        self._tokenizer = tokenizer
        self.frame_dim = card.frame_dim
        self.encoder_fingerprint = card.encoder_fingerprint
        elsewhere = card.elsewhere or ()
        self.decoder: Any = _decoder(card, held=None if "decoder" in elsewhere else card.decoder_config)
        if self.parts.decoder.name is not None:
            config.decoder_config = self.decoder.config.to_dict()
        self.decoder.generation_config = self.generation_config = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, num_beams=1, eos_token_id=card.eos_token_id, pad_token_id=card.pad_token_id
        )
        self.encoder: SpeechEncoder | None = None
        if self.parts.encoder_inside:
            self.encoder = SpeechEncoder(self.parts.encoder, None if "encoder" in elsewhere else card.encoder_config)
            if self.parts.encoder.name is not None:
                config.encoder_config = self.encoder.whole_config
        self.adapter: Any = build_adapter(
            self.parts.adapter,
            frame_dim=self.frame_dim if self.encoder is None else self.encoder.dim,
            out_dim=self.decoder.get_input_embeddings().weight.shape[1],
            layers=self.parts.encoder.layers,
        )
        for name in self.parts.frozen:
            part = getattr(self, name)
            if part is not None:
                part.requires_grad_(False)
        if self.parts.lora is not None:
            add_lora(self.decoder, self.parts.lora, key="lora")
        if self.encoder is not None and self.parts.encoder_lora is not None:
            add_lora(self.encoder.model, self.parts.encoder_lora, key="encoder_lora")
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokeniser.

        Raises:
            ModelError: The model was built from a bare configuration.
        """
        if self._tokenizer is None:
            raise ModelError(
                "this model was built from a configuration, without a tokeniser; use SpeechLLM.from_pretrained(folder)"
            )
        return self._tokenizer

    def initialize_weights(self) -> None:
        """Nothing: parts come with their own weights, and LoRA's, which begin as nothing, must not be drawn again as the decoder's."""

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's; speech embeddings are of the same width."""
        embeddings: nn.Module = self.decoder.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's head."""
        head: nn.Module = self.decoder.get_output_embeddings()
        return head

    def forward(
        self,
        frames: Tensor | None,
        frame_mask: Tensor | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        *,
        position_ids: Tensor | None = None,
        item_ids: Tensor | None = None,
    ) -> Output:
        """Loss of the answers.

        Args:
            frames: (B, T, D) or (B, T, layers, D), or None where nothing is heard; an inside encoder's inputs (B, T, F).
            frame_mask: (B, T), true where a frame is real.
            input_ids: (B, L); one audio token per speech embedding.
            attention_mask: (B, L), or (B, L, L) true where a query (second axis) may see a key (third).
            labels: (B, L); `IGNORE` wherever a token is not part of an answer.
            position_ids: (B, L), needed with a three-dimensional mask.
            item_ids: (B, L); the item an answer token belongs to; None: each row is one item.

        Raises:
            ModelError: The number of audio tokens does not fit the frames.
        """
        embeddings = self._embed(frames, frame_mask, input_ids)
        if attention_mask.dim() == 3:
            # transformers takes a prepared additive mask as it is
            hidden_cost = torch.finfo(embeddings.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=embeddings.dtype).masked_fill(~attention_mask, hidden_cost)
            attention_mask = attention_mask.unsqueeze(1)
        hidden = self.decoder.base_model(
            inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        rows, columns = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
        logits = self._logits(hidden[rows, columns])
        nll = nn.functional.cross_entropy(logits.float(), labels[rows, columns + 1], reduction="none")
        owners = rows if item_ids is None else item_ids[rows, columns + 1]
        return Output(item_means(nll, owners).mean(), nll, logits)

    def on(self, batch: Batch) -> Output:
        """`forward` on a collated batch."""
        output: Output = self(
            batch.frames,
            batch.frame_mask,
            batch.input_ids,
            batch.attention_mask,
            batch.labels,
            position_ids=batch.position_ids,
            item_ids=batch.item_ids,
        )
        return output

    def hear(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Speech embeddings (B, N, H) and their mask (B, N), of frames as for `forward`."""
        if self.encoder is not None:
            frames, frame_mask = self.encoder(frames, frame_mask)
        made: tuple[Tensor, Tensor] = self.adapter(frames, frame_mask)
        return made

    @torch.inference_mode()
    def generate(self, batch: Batch, *, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of a left-padded batch (`collate.prompt_batch`), end token and padding removed.

        A row ends at its end token, with the first of `parts.stop` in its text, or with `max_new_tokens`.
        """
        tokenizer, stop = self.tokenizer, self.parts.stop
        batch = batch.to(self.device)
        was_training = self.training
        self.train(False)
        made = self.decoder.generate(
            inputs_embeds=self._embed(batch.frames, batch.frame_mask, batch.input_ids),
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            stopping_criteria=[StopTexts(tokenizer, stop)] if stop else None,
        )
        self.train(was_training)
        return [finished(row, tokenizer, stop) for row in made.tolist()]

    def answer(self, prompts: Sequence[str], frames: Sequence[FrameArray | None], *, max_new_tokens: int = 64) -> list[Reply]:
        """Answer prompts in one batch.

        Args:
            prompts: Texts of `prompts.build`.
            frames: (T, D) per prompt; None for a prompt without speech.
            max_new_tokens: Longest answer.
        """
        tokenizer = self.tokenizer
        items = [self.item(prompt, heard) for prompt, heard in zip(prompts, frames, strict=True)]
        rows = self.generate(prompt_batch(items, pad_id=tokenizer.pad_id), max_new_tokens=max_new_tokens)
        return [
            Reply(cut(tokenizer.decode(row), self.parts.stop).strip(), tokenizer.decode(row, keep_special=True)) for row in rows
        ]

    def stream(self, prompt: str, frames: FrameArray | None, *, max_new_tokens: int = 64) -> Iterator[str]:
        """Answer one prompt piece by piece: joined, the pieces are the text that `answer` gives.

        Args:
            prompt: Text of `prompts.build`.
            frames: (T, D); None for a prompt without speech.
            max_new_tokens: Longest answer.
        """
        tokenizer, stop = self.tokenizer, self.parts.stop
        ids: list[int] = []
        shown = ""
        for token in self._greedy(self.item(prompt, frames), max_new_tokens):
            ids.append(token)
            text = tokenizer.decode(ids)
            sure = settled(text, stop).lstrip()
            # A tokeniser may write what came before differently once more follows; then wait for the end.
            if len(sure) > len(shown) and sure.startswith(shown):
                yield sure[len(shown) :]
                shown = sure
            if cut(text, stop) != text:
                break
        whole = cut(tokenizer.decode(ids), stop).strip()
        if len(whole) > len(shown):
            yield whole[len(shown) :]

    def _greedy(self, item: Item, most: int) -> Iterator[int]:
        """Tokens of one answer as they come, without the end token. The model is left in eval mode until the last."""
        was_training = self.training
        self.train(False)
        batch = prompt_batch([item], pad_id=self.tokenizer.pad_id).to(self.device)
        cache: Any = None
        last = batch.input_ids
        try:
            for _ in range(most):
                # The mode is the thread's: it must not be left on while the caller has the token.
                with torch.inference_mode():
                    if cache is None:
                        step = self._embed(batch.frames, batch.frame_mask, last)
                    else:
                        step = self.decoder.get_input_embeddings()(last)
                    made = self.decoder.base_model(inputs_embeds=step, past_key_values=cache, use_cache=True)
                    last = self._logits(made.last_hidden_state[:, -1]).argmax(-1, keepdim=True)
                cache = made.past_key_values
                token = int(last)
                if token == self.tokenizer.end_id:
                    return
                yield token
        finally:
            self.train(was_training)

    def item(self, prompt: str, frames: FrameArray | None, *, target: str | None = None, source: str = "") -> Item:
        """Tokenise one prompt (and its answer), with as many audio tokens as the frames become."""
        tokenizer = self.tokenizer
        count = 0 if frames is None else self.embeddings_of(len(frames))
        answer = () if target is None else tuple(tokenizer.target_ids(target))
        return Item(frames, tuple(tokenizer.prompt_ids(prompt, embeddings=count)), answer, source)

    def embeddings_of(self, frames: int) -> int:
        """How many speech embeddings a number of frames (or of an inside encoder's inputs) becomes."""
        return self.parts.adapter.embeddings(frames if self.encoder is None else self.encoder.frames_of(frames))

    def _embed(self, frames: Tensor | None, frame_mask: Tensor | None, input_ids: Tensor) -> Tensor:
        """(B, L, H): word embeddings, and the adapter's at audio tokens."""
        heard = input_ids == self.config.audio_token_id
        # the audio token may lie outside a named decoder's vocabulary
        embeddings: Tensor = self.decoder.get_input_embeddings()(input_ids.masked_fill(heard, self.config.pad_token_id))
        if frames is None or frame_mask is None:
            if heard.any():
                raise ModelError(f"the prompt has {int(heard.sum())} audio tokens but no frames were given")
            return embeddings
        speech, mask = self.hear(frames, frame_mask)
        if not torch.equal(count_of(mask), count_of(heard)):
            raise ModelError(
                f"audio tokens per prompt {count_of(heard).tolist()} do not fit the {count_of(mask).tolist()} speech embeddings"
            )
        return embeddings.masked_scatter(heard.unsqueeze(-1), speech[mask].to(embeddings.dtype))

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits at chosen positions only, with what some families do behind their head: Gemma 2 caps softly, two others scale."""
        logits: Tensor = self.decoder.get_output_embeddings()(hidden)
        settings = self.decoder.config
        if (divided := getattr(settings, "logits_scaling", None)) is not None:  # Granite
            logits = logits / divided
        if (scaled := getattr(settings, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scaled
        cap = getattr(settings, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def merge(self) -> SpeechLLM:
        """Add the LoRA updates to the weights beside which they stand, in place: the same answers, with nothing of PEFT left.

        The merged weights are no longer those of the parts' names, so that a checkpoint holds them from here on.
        """
        merged: list[Part] = []
        if self.parts.lora is not None:
            merge_lora(self.decoder)
            merged.append("decoder")
        if self.encoder is not None and self.parts.encoder_lora is not None:
            merge_lora(self.encoder.model)
            merged.append("encoder")
        # Without its updates a frozen encoder would be taken for one outside.
        frozen = tuple(one for one in self.parts.frozen if one != "encoder" or "encoder" not in merged)
        self.parts = self.parts.model_copy(update={"lora": None, "encoder_lora": None, "frozen": frozen})
        self.config.model = self.parts.model_dump(mode="json")
        self._hold(*merged)
        return self

    def save(self, folder: Path, *, system: System | None = None, max_shard_size: str = "50GB") -> None:
        """Write a checkpoint; what is frozen and has a name is not stored (`Checkpoint.elsewhere`).

        Args:
            folder: Where to.
            system: The arm it was trained as; None keeps what the model was loaded with.
            max_shard_size: Weights beyond this go into several files.
        """
        if system is not None:
            self.config.system = system.model_dump(mode="json")
        self.save_pretrained(folder, max_shard_size=max_shard_size)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        **kwargs: Any,
    ) -> None:
        """`PreTrainedModel.save_pretrained` with tokenizer and generation_config.json, without what is frozen and has a name."""
        # A part that was thawed since it was built is not what its name says.
        self._hold(*(part for part in self._elsewhere if any(one.requires_grad for one in self._base(part))))
        state = self.state_dict() if state_dict is None else state_dict
        names = self._stored(self._elsewhere)
        folder = Path(save_directory)
        if is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            # Of an earlier save into this folder, in shards or not.
            for name in (WEIGHTS_FILE, INDEX_FILE):
                (folder / name).unlink(missing_ok=True)
            self.generation_config.save_pretrained(folder)
            if self._tokenizer is not None:
                self._tokenizer.save(folder)
        with quiet_bars():
            super().save_pretrained(
                folder,
                is_main_process=is_main_process,
                state_dict={name: state[name] for name in names if name in state},
                push_to_hub=push_to_hub,
                max_shard_size=max_shard_size,
                save_original_format=False,
                **kwargs,
            )

    @classmethod
    def load(cls, folder: Path) -> SpeechLLM:
        """Read a checkpoint, ready to answer.

        Raises:
            ModelError: It is not a checkpoint, or its weights do not fit its configuration; all keys at fault are named.
        """
        card = read_checkpoint(folder)
        tokenizer = TextTokenizer.load(folder, card.tokens)
        config = _complete(card, tokenizer)
        # Weights that are drawn here are read over, and drawing takes minutes for a large decoder.
        with nullcontext() if config.elsewhere else no_init_weights():
            model = cls(config, tokenizer)
        model.decoder.tie_weights()
        model.load_weights(folder)
        model.train(False)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        device_map: str | torch.device | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> SpeechLLM:
        """`load` from a folder or the Hub, as users of transformers call it; strict as well.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            dtype: Of all weights; None leaves them as they are stored.
            device_map: One device for the whole model, such as "cuda".
            revision: Branch, tag or commit on the Hub.
            token: For a private repository.
            cache_dir: Where a download goes.
            local_files_only: Download nothing.
            kwargs: What `AutoModel` passes on and means nothing here.

        Raises:
            ModelError: It is not a checkpoint, it does not fit, or an argument is asked for that does nothing here.
        """
        unknown = sorted(name for name in kwargs if not name.startswith("_") and name not in _PASSED_ON)
        if unknown:
            raise ModelError(
                f"from_pretrained of a speech-LLM knows nothing of {', '.join(unknown)}; leave it out, change the model after"
            )
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = snapshot(
                str(pretrained_model_name_or_path),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        model = cls.load(folder)
        if dtype is not None:
            nn.Module.to(model, dtype=dtype)
        if device_map is not None:
            nn.Module.to(model, device=device_map)
        return model

    def load_weights(self, folder: Path) -> None:
        """Read the weights of a checkpoint into this model; strict.

        The checkpoint may have been written without LoRA where this model has it: the updates then stay new.
        """
        card = read_checkpoint(folder)
        there = card.elsewhere if card.elsewhere is not None else _elsewhere(card.model)
        stored, state = read_weights(folder), self.state_dict()
        expected = self._stored(there)
        for part, had, has in (
            ("decoder", card.model.lora, self.parts.lora),
            ("encoder", card.model.encoder_lora, self.parts.encoder_lora),
        ):
            if had is None and has is not None:
                expected = [name for name in expected if not (name.startswith(f"{part}.") and MARK in name)]
                beside = {unmarked(name): name for name in expected if name.startswith(f"{part}.")}
                stored = {beside.get(name, name): tensor for name, tensor in stored.items()}
        check_fits(folder, stored, expected, state)
        self.load_state_dict(stored, strict=False)
        self._hold(*(part for part in self._elsewhere if part not in there))

    @property
    def _elsewhere(self) -> tuple[Part, ...]:
        return tuple(self.config.elsewhere or ())

    def _hold(self, *parts: str) -> None:
        """Say that the weights of parts are not those of their names, so that checkpoints hold them."""
        self.config.elsewhere = [one for one in self._elsewhere if one not in parts]

    def _base(self, part: str) -> Iterator[nn.Parameter]:
        """Parameters of a part that are not LoRA's."""
        module = getattr(self, part)
        return (one for name, one in module.named_parameters() if MARK not in name) if module is not None else iter(())

    def _stored(self, elsewhere: Sequence[str]) -> list[str]:
        """Names of the tensors that a checkpoint holds: each tied tensor once; of parts that are elsewhere only LoRA's."""
        seen: set[int] = set()
        names = []
        for name, tensor in self.state_dict().items():
            if name.split(".", 1)[0] in elsewhere and MARK not in name:
                continue
            if tensor.data_ptr() not in seen or not tensor.data_ptr():
                seen.add(tensor.data_ptr())
                names.append(name)
        return names


_PASSED_ON = frozenset({"config", "trust_remote_code", "adapter_kwargs", "code_revision", "force_download", "subfolder"})
"""What `AutoModel` hands over although nobody asked for it."""

transformers.AutoConfig.register(MODEL_TYPE, UndertoneConfig)
transformers.AutoModel.register(UndertoneConfig, SpeechLLM)


def item_means(nll: Tensor, owners: Tensor) -> Tensor:
    """Mean per item of token values (N,) with their items (N,), ordered by item number."""
    _, index = torch.unique(owners, return_inverse=True)
    size = int(index.max()) + 1 if len(index) else 0
    onehot = nn.functional.one_hot(index, size).to(nll.dtype)
    return (nll @ onehot) / onehot.sum(0)


def tokenizer_for(decoder: DecoderConfig) -> TextTokenizer | None:
    """The tokeniser that comes with a named decoder; None for a new decoder, whose tokeniser is trained."""
    return None if decoder.name is None else decoder_tokenizer(decoder.name)


def _described(
    parts: SpeechLLMConfig, tokenizer: TextTokenizer | None, frame_dim: int | None, fingerprint: str | None
) -> UndertoneConfig:
    """The configuration of a new model."""
    if tokenizer is None or frame_dim is None:
        raise ModelError(f"a new speech-LLM needs tokenizer and frame_dim; got {tokenizer}, {frame_dim}")
    return _complete(
        Checkpoint(model=parts, frame_dim=frame_dim, tokens=tokenizer.tokens, encoder_fingerprint=fingerprint), tokenizer
    )


def _complete(card: Checkpoint, tokenizer: TextTokenizer) -> UndertoneConfig:
    """With what the tokeniser says, and what format 1 left to be concluded."""
    found = {
        "format": 2,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.end_id,
        "audio_token_id": tokenizer.audio_id,
        "elsewhere": card.elsewhere if card.elsewhere is not None else _elsewhere(card.model),
    }
    return UndertoneConfig.of(card.model_copy(update=found))


def _elsewhere(parts: SpeechLLMConfig) -> tuple[Part, ...]:
    """Parts whose own weights a name stands for."""
    found: list[Part] = ["decoder"] if parts.decoder.name is not None and "decoder" in parts.frozen else []
    if parts.encoder_inside and parts.encoder.name is not None and "encoder" in parts.frozen:
        found.append("encoder")
    return tuple(found)


def _decoder(card: Checkpoint, *, held: dict[str, Any] | None) -> Any:
    """The LLM: named weights, or new ones from torch's current seed; of a configuration that is `held`, to be read over."""
    library: Any = transformers
    config = card.model.decoder
    kind = {} if config.dtype is None else {"dtype": getattr(torch, config.dtype)}
    try:
        if config.name is not None and held is None:
            with quiet_bars():
                return library.AutoModelForCausalLM.from_pretrained(config.name, **kind)
        given = held or {**(config.config or {}), "vocab_size": card.vocab_size, "pad_token_id": card.pad_token_id}
        return library.AutoModelForCausalLM.from_config(library.AutoConfig.for_model(**given), **kind)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"decoder {config.name or config.config} does not load: {error}. Expected a Hugging Face causal LM by name, folder or config"
        ) from error
