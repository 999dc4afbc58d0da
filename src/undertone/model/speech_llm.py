"""The speech-LLM of 2508.07273: frames of a speech encoder -> adapter -> decoder-only LLM, loss on the answer only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
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
from undertone.model.collate import IGNORE, Batch, FrameArray, Item, padded, prompt_batch
from undertone.model.config import DecoderConfig, NuanceConfig, Part, SpeechLLMConfig
from undertone.model.examples import System
from undertone.model.lora import MARK, SpeechPositions, add_lora, merge_lora, unmarked
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
    "logits_of",
    "read_checkpoint",
    "tokenizer_for",
]


Heard: TypeAlias = FrameArray | Sequence[FrameArray] | None
"""The frames of a prompt's placeholder, or of each of them where there are several."""


class Output(NamedTuple):
    """Result of a forward pass.

    Attributes:
        loss: Scalar: mean over items of the mean over an item's answer tokens (each question counts once, however long its answer).
        nll: (N,) negative log likelihood of each answer token of the batch, row by row.
        logits: (N, V) what `nll` was computed from.
        category: (B, classes) logits of the category head, in the order of `parts.aux.classes`, one row per row of `frames`, not a number
            where a row holds no speech; None where the model has no such head.
        dimensions: (B, dimensions) of the other head, in the order of `parts.aux.dimensions`; likewise.
    """

    loss: Tensor
    nll: Tensor
    logits: Tensor
    category: Tensor | None = None
    dimensions: Tensor | None = None


class Speech(NamedTuple):
    """What the decoder is about to hear: embeddings (B, N, H), and a mask (B, N) that is true where one is real."""

    embeddings: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Feeling:
    """What the heads beside the decoder say of a clip.

    Attributes:
        category: Probability per class of `parts.aux.classes`; they sum to 1.
        dimensions: A number per name of `parts.aux.dimensions`, as the head gives it: about 0..1, as what it learnt from.
    """

    category: dict[str, float]
    dimensions: dict[str, float]


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
        category_head, dimensions_head: Of `parts.aux`, on the mean of a clip's speech embeddings; None where there is none.
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
            held = None if "encoder" in elsewhere else card.encoder_config
            self.encoder = SpeechEncoder(self.parts.encoder, held, beside=_beside(self.parts.nuance))
            if self.parts.encoder.name is not None:
                config.encoder_config = self.encoder.whole_config
        width = self.decoder.get_input_embeddings().weight.shape[1]
        self.adapter: Any = build_adapter(
            self.parts.adapter,
            frame_dim=self.frame_dim if self.encoder is None else self.encoder.dim,
            out_dim=width,
            layers=self.parts.encoder.layers,
        )
        aux = self.parts.aux
        self.category_head = nn.Linear(width, len(aux.classes), bias=False) if aux is not None and aux.classes else None
        self.dimensions_head = nn.Linear(width, len(aux.dimensions), bias=False) if aux is not None and aux.dimensions else None
        for name in self.parts.frozen:
            part = getattr(self, name)
            if part is not None:
                part.requires_grad_(False)
        if self.parts.lora is not None:
            add_lora(self.decoder, self.parts.lora, key="lora")
        at_speech = self.parts.lora is not None and self.parts.lora.where == "speech"
        self._positions = SpeechPositions(self.decoder) if at_speech else None
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

    def _set_gradient_checkpointing(  # type: ignore[override]
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **more: Any
    ) -> None:
        if self._positions is not None:
            gradient_checkpointing_func = partial(gradient_checkpointing_func, context_fn=self._positions.remembered)
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **more)

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
        speech = self._speech(frames, frame_mask)
        embeddings = self._joined(speech, input_ids)
        if attention_mask.dim() == 3:
            # transformers takes a prepared additive mask as it is
            hidden_cost = torch.finfo(embeddings.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=embeddings.dtype).masked_fill(~attention_mask, hidden_cost)
            attention_mask = attention_mask.unsqueeze(1)
        with self._reading(input_ids):
            hidden = self.decoder.base_model(
                inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
            ).last_hidden_state
        rows, columns = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
        logits = self._logits(hidden[rows, columns])
        nll = nn.functional.cross_entropy(logits.float(), labels[rows, columns + 1], reduction="none")
        owners = rows if item_ids is None else item_ids[rows, columns + 1]
        rows_heard = len(input_ids) if frames is None else len(frames)
        category = self._told(self.category_head, speech, rows_heard)
        return Output(item_means(nll, owners).mean(), nll, logits, category, self._told(self.dimensions_head, speech, rows_heard))

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
    def feelings(self, frames: Sequence[FrameArray]) -> list[Feeling | None]:
        """What the heads say of clips; None of one that has no frames.

        Args:
            frames: (T, D) per clip, or what an inside encoder reads.

        Raises:
            ModelError: The model has no such heads.
        """
        aux = self.parts.aux
        if aux is None:
            raise ModelError("this model has no heads that tell the emotion; give model.aux and train it, or ask it a question")
        most = max(map(len, frames), default=0)
        if not most:
            return [None] * len(frames)
        was_training = self.training
        self.train(False)
        try:
            given, mask = (one.to(self.device) for one in padded(frames))
            speech = Speech(*self.hear(given, mask))
            shares, numbers = (self._told(one, speech, len(frames)) for one in (self.category_head, self.dimensions_head))
        finally:
            self.train(was_training)
        nothing: list[list[float]] = [[] for _ in frames]
        rows = zip(
            count_of(speech.mask).tolist(),
            nothing if shares is None else shares.softmax(-1).tolist(),
            nothing if numbers is None else numbers.tolist(),
            strict=True,
        )
        return [
            Feeling(dict(zip(aux.classes, share, strict=False)), dict(zip(aux.dimensions, number, strict=False))) if count else None
            for count, share, number in rows
        ]

    @torch.inference_mode()
    def generate(self, batch: Batch, *, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of a left-padded batch (`collate.prompt_batch`), end token and padding removed.

        A row ends at its end token, with the first of `parts.stop` in its text, or with `max_new_tokens`.
        """
        tokenizer, stop = self.tokenizer, self.parts.stop
        batch = batch.to(self.device)
        was_training = self.training
        self.train(False)
        try:
            embeddings = self._embed(batch.frames, batch.frame_mask, batch.input_ids)
            with self._reading(batch.input_ids):
                made = self.decoder.generate(
                    inputs_embeds=embeddings,
                    attention_mask=batch.attention_mask,
                    max_new_tokens=max_new_tokens,
                    stopping_criteria=[StopTexts(tokenizer, stop)] if stop else None,
                )
        finally:
            self.train(was_training)
        return [finished(row, tokenizer, stop) for row in made.tolist()]

    def answer(self, prompts: Sequence[str], frames: Sequence[Heard], *, max_new_tokens: int = 64) -> list[Reply]:
        """Answer prompts in one batch.

        Args:
            prompts: Texts of `prompts.build`.
            frames: (T, D) per prompt, or one for each of its placeholders; None for a prompt without speech.
            max_new_tokens: Longest answer.
        """
        tokenizer = self.tokenizer
        items = [self.item(prompt, heard) for prompt, heard in zip(prompts, frames, strict=True)]
        rows = self.generate(prompt_batch(items, pad_id=tokenizer.pad_id), max_new_tokens=max_new_tokens)
        return [
            Reply(cut(tokenizer.decode(row), self.parts.stop).strip(), tokenizer.decode(row, keep_special=True)) for row in rows
        ]

    def stream(self, prompt: str, frames: Heard, *, max_new_tokens: int = 64) -> Iterator[str]:
        """Answer one prompt piece by piece: joined, the pieces are the text that `answer` gives.

        Args:
            prompt: Text of `prompts.build`.
            frames: (T, D), or one for each placeholder; None for a prompt without speech.
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
                    with self._reading(last):
                        made = self.decoder.base_model(inputs_embeds=step, past_key_values=cache, use_cache=True)
                    last = self._logits(made.last_hidden_state[:, -1]).argmax(-1, keepdim=True)
                cache = made.past_key_values
                token = int(last)
                if token == self.tokenizer.end_id:
                    return
                yield token
        finally:
            self.train(was_training)

    def item(self, prompt: str, frames: Heard, *, target: str | None = None, source: str = "") -> Item:
        """Tokenise one prompt (and its answer), with as many audio tokens as the frames of each placeholder become."""
        tokenizer = self.tokenizer
        clips: tuple[FrameArray, ...] = () if frames is None else (frames,) if isinstance(frames, np.ndarray) else tuple(frames)
        counts = [self.embeddings_of(len(one)) for one in clips]
        ids = tokenizer.prompt_ids(prompt, embeddings=counts)
        answer = () if target is None else tuple(tokenizer.target_ids(target))
        at = [index for index, one in enumerate(ids) if one == tokenizer.audio_id]
        spans: list[tuple[int, int]] = []
        for count, end in zip(counts, accumulate(counts), strict=True):
            before = spans[-1][1] if spans else 0
            spans.append((at[end - count], at[end - 1] + 1) if count else (before, before))
        return Item(clips, tuple(ids), answer, source, tuple(spans))

    def embeddings_of(self, frames: int) -> int:
        """How many speech embeddings a number of frames (or of an inside encoder's inputs) becomes."""
        return self.parts.adapter.embeddings(frames if self.encoder is None else self.encoder.frames_of(frames))

    def _speech(self, frames: Tensor | None, frame_mask: Tensor | None) -> Speech | None:
        return None if frames is None or frame_mask is None else Speech(*self.hear(frames, frame_mask))

    @property
    def beside_rows(self) -> int:
        """Rows behind a clip's inputs that hold no speech but the emotion embedding of `parts.nuance`, of an encoder inside."""
        return 0 if self.encoder is None else self.encoder.beside_rows

    def _embed(self, frames: Tensor | None, frame_mask: Tensor | None, input_ids: Tensor) -> Tensor:
        return self._joined(self._speech(frames, frame_mask), input_ids)

    def _joined(self, speech: Speech | None, input_ids: Tensor) -> Tensor:
        """(B, L, H): word embeddings, and the adapter's at audio tokens."""
        heard = input_ids == self.config.audio_token_id
        # the audio token may lie outside a named decoder's vocabulary
        embeddings: Tensor = self.decoder.get_input_embeddings()(input_ids.masked_fill(heard, self.config.pad_token_id))
        if speech is None:
            if heard.any():
                raise ModelError(f"the prompt has {int(heard.sum())} audio tokens but no frames were given")
            return embeddings
        made, mask = speech
        # A row of a dialogue or of a packed batch holds several clips: where it ends, one of them ends.
        ends, wanted = nn.functional.pad(count_of(mask).cumsum(0), (1, 0)), count_of(heard).cumsum(0)
        if ends[-1] != wanted[-1] or not torch.isin(wanted, ends).all():
            raise ModelError(
                f"audio tokens per prompt {count_of(heard).tolist()} do not fit the {count_of(mask).tolist()} speech embeddings"
            )
        return embeddings.masked_scatter(heard.unsqueeze(-1), made[mask].to(embeddings.dtype))

    def _reading(self, input_ids: Tensor) -> AbstractContextManager[None]:
        """Around the decoder's pass over these tokens (B, L); updates of `LoRAConfig.where` "speech" must know which are speech."""
        return nullcontext() if self._positions is None else self._positions.told(input_ids == self.config.audio_token_id)

    def _told(self, head: nn.Linear | None, speech: Speech | None, rows: int) -> Tensor | None:
        """A head on the mean of each row's speech embeddings, (rows, outputs); not a number where there are none."""
        if head is None:
            return None
        if speech is None:
            return head.weight.new_full((rows, head.out_features), torch.nan)
        count = count_of(speech.mask).unsqueeze(-1)
        # What stands at padding may be anything.
        summed = speech.embeddings.masked_fill(~speech.mask.unsqueeze(-1), 0.0).sum(1)
        made: Tensor = head((summed / count.clamp(min=1)).to(head.weight.dtype))
        return made.masked_fill(count == 0, torch.nan)

    def _logits(self, hidden: Tensor) -> Tensor:
        return logits_of(self.decoder, hidden)

    def merge(self) -> SpeechLLM:
        """Add the LoRA updates to the weights beside which they stand, in place: the same answers, with nothing of PEFT left.

        The merged weights are no longer those of the parts' names, so that a checkpoint holds them from here on.

        Raises:
            ModelError: The updates are of speech positions only.
        """
        if self._positions is not None:
            raise ModelError(
                "lora.where='speech' adds its updates at speech positions only, and merged weights would be the same at all; leave this model "
                "as it is, or train one with lora.where=all"
            )
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

        The checkpoint may have been written without LoRA, or without heads, where this model has them: these then stay new.
        """
        card = read_checkpoint(folder)
        there = card.elsewhere if card.elsewhere is not None else _elsewhere(card.model)
        stored, state = read_weights(folder), self.state_dict()
        expected = self._stored(there)
        has_heads = card.model.aux
        if has_heads is None:
            expected = [name for name in expected if not name.startswith(_HEADS)]
        elif self.parts.aux is not None and has_heads != self.parts.aux:
            raise ModelError(
                f"{folder} has heads of {', '.join((*has_heads.classes, *has_heads.dimensions))}, and this model of "
                f"{', '.join((*self.parts.aux.classes, *self.parts.aux.dimensions))}, in this order; expected the same model.aux"
            )
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
        # The parameters themselves: shards of tied ones (FSDP) share no address.
        for name, tensor in self.state_dict(keep_vars=True).items():
            if name.split(".", 1)[0] in elsewhere and MARK not in name:
                continue
            if id(tensor) not in seen:
                seen.add(id(tensor))
                names.append(name)
        return names


_HEADS = ("category_head.", "dimensions_head.")

_PASSED_ON = frozenset({"config", "trust_remote_code", "adapter_kwargs", "code_revision", "force_download", "subfolder"})
"""What `AutoModel` hands over although nobody asked for it."""

transformers.AutoConfig.register(MODEL_TYPE, UndertoneConfig)
transformers.AutoModel.register(UndertoneConfig, SpeechLLM)


def logits_of(decoder: Any, hidden: Tensor) -> Tensor:
    """Logits at chosen positions only, with what some families do behind their head: Gemma 2 caps softly, two others scale."""
    logits: Tensor = decoder.get_output_embeddings()(hidden)
    settings = decoder.config
    if (divided := getattr(settings, "logits_scaling", None)) is not None:  # Granite
        logits = logits / divided
    if (scaled := getattr(settings, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scaled
    cap = getattr(settings, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


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


def _beside(nuance: NuanceConfig | None) -> int:
    """Width of the emotion embedding that travels with an inside encoder's inputs."""
    return 0 if nuance is None or not nuance.utterance else nuance.width or 0


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
