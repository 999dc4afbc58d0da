"""The speech-LLM of 2508.07273: frames of a frozen encoder -> MLP adapter -> decoder-only LLM, loss on the answer only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from undertone.errors import ModelError
from undertone.model.adapters import MLPAdapter, count_of, embeddings_of
from undertone.model.collate import IGNORE, Batch, FrameArray, Item, prompt_batch
from undertone.model.config import DecoderConfig, SpeechLLMConfig
from undertone.model.examples import System
from undertone.model.tokenizer import SpecialTokens, TextTokenizer, decoder_tokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Checkpoint(BaseModel):
    """config.json of a checkpoint.

    Attributes:
        format: Version of the checkpoint format.
        model: What the model is made of.
        frame_dim: Width of the encoder's frames.
        tokens: Special tokens of tokenizer.json.
        encoder_fingerprint: The encoder whose frames it was trained on.
        system: The arm it was trained as.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model: SpeechLLMConfig
    frame_dim: int
    tokens: SpecialTokens
    encoder_fingerprint: str | None = None
    system: System | None = None


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


class SpeechLLM(nn.Module):
    """Frames and text in, answer tokens out. The encoder is outside: its frames are computed once per clip."""

    def __init__(
        self, config: SpeechLLMConfig, tokenizer: TextTokenizer, *, frame_dim: int, encoder_fingerprint: str | None = None
    ) -> None:
        """Build the model with new (or the named decoder's) weights.

        Args:
            config: Parts.
            tokenizer: Of the decoder; `tokenizer_for` chooses it.
            frame_dim: Width of the encoder's frames.
            encoder_fingerprint: Recorded in the checkpoint.
        """
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.frame_dim = frame_dim
        self.encoder_fingerprint = encoder_fingerprint
        self.decoder: Any = _decoder(config.decoder, vocab_size=len(tokenizer), pad_id=tokenizer.pad_id)
        width = self.decoder.get_input_embeddings().weight.shape[1]
        self.adapter = MLPAdapter(config.adapter, frame_dim=frame_dim, out_dim=width)
        if "adapter" in config.frozen:
            self.adapter.requires_grad_(False)
        if "decoder" in config.frozen:
            self.decoder.requires_grad_(False)

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
            frames: (B, T, D), or None where nothing is heard.
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

    @torch.inference_mode()
    def generate(self, batch: Batch, *, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of a left-padded batch (`collate.prompt_batch`), end token and padding removed."""
        was_training = self.training
        self.eval()
        made = self.decoder.generate(
            inputs_embeds=self._embed(batch.frames, batch.frame_mask, batch.input_ids),
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=self.tokenizer.end_id,
            pad_token_id=self.tokenizer.pad_id,
        )
        self.train(was_training)
        rows: list[list[int]] = made.tolist()
        return [row[: row.index(self.tokenizer.end_id)] if self.tokenizer.end_id in row else row for row in rows]

    def answer(self, prompts: Sequence[str], frames: Sequence[FrameArray | None], *, max_new_tokens: int = 64) -> list[Reply]:
        """Answer prompts in one batch.

        Args:
            prompts: Texts of `prompts.build`.
            frames: (T, D) per prompt; None for a prompt without speech.
            max_new_tokens: Longest answer.
        """
        items = [self.item(prompt, heard) for prompt, heard in zip(prompts, frames, strict=True)]
        rows = self.generate(prompt_batch(items, pad_id=self.tokenizer.pad_id), max_new_tokens=max_new_tokens)
        return [Reply(self.tokenizer.decode(row).strip(), self.tokenizer.decode(row, keep_special=True)) for row in rows]

    def item(self, prompt: str, frames: FrameArray | None, *, target: str | None = None, source: str = "") -> Item:
        """Tokenise one prompt (and its answer), with as many audio tokens as the frames become."""
        count = 0 if frames is None else embeddings_of(len(frames), self.config.adapter.stack)
        answer = () if target is None else tuple(self.tokenizer.target_ids(target))
        return Item(frames, tuple(self.tokenizer.prompt_ids(prompt, embeddings=count)), answer, source)

    def _embed(self, frames: Tensor | None, frame_mask: Tensor | None, input_ids: Tensor) -> Tensor:
        """(B, L, H): word embeddings, and the adapter's at audio tokens."""
        heard = input_ids == self.tokenizer.audio_id
        # the audio token may lie outside a named decoder's vocabulary
        embeddings: Tensor = self.decoder.get_input_embeddings()(input_ids.masked_fill(heard, self.tokenizer.pad_id))
        if frames is None or frame_mask is None:
            if heard.any():
                raise ModelError(f"the prompt has {int(heard.sum())} audio tokens but no frames were given")
            return embeddings
        speech, mask = self.adapter(frames, frame_mask)
        if not torch.equal(count_of(mask), count_of(heard)):
            raise ModelError(
                f"audio tokens per prompt {count_of(heard).tolist()} do not fit the {count_of(mask).tolist()} speech embeddings"
            )
        return embeddings.masked_scatter(heard.unsqueeze(-1), speech[mask].to(embeddings.dtype))

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits at chosen positions only; Gemma 2 caps them softly, which its head alone does not."""
        logits: Tensor = self.decoder.get_output_embeddings()(hidden)
        cap = getattr(self.decoder.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def save(self, folder: Path, *, system: System | None = None) -> None:
        """Write config.json, model.safetensors and tokenizer.json; a frozen named decoder is not stored."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        save_file({name: state[name].contiguous() for name in self._stored()}, str(folder / WEIGHTS_FILE))
        self.tokenizer.save(folder)
        card = Checkpoint(
            model=self.config,
            frame_dim=self.frame_dim,
            tokens=self.tokenizer.tokens,
            encoder_fingerprint=self.encoder_fingerprint,
            system=system,
        )
        (folder / CONFIG_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> SpeechLLM:
        """Read a checkpoint, ready to answer.

        Raises:
            ModelError: It is not a checkpoint, or its weights do not fit its configuration; all keys at fault are named.
        """
        card = read_checkpoint(folder)
        tokenizer = TextTokenizer.load(folder, card.tokens)
        model = cls(card.model, tokenizer, frame_dim=card.frame_dim, encoder_fingerprint=card.encoder_fingerprint)
        model.load_weights(folder)
        return model.eval()

    def load_weights(self, folder: Path) -> None:
        """Read model.safetensors of a checkpoint into this model; strict."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / WEIGHTS_FILE
        try:
            stored = load_file(str(path))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} does not load: {error}; train this checkpoint again") from error
        state, expected = self.state_dict(), self._stored()
        problems = {
            "missing": [name for name in expected if name not in stored],
            "unexpected": [name for name in stored if name not in expected],
            "other shape": [name for name in expected if name in stored and stored[name].shape != state[name].shape],
        }
        if any(problems.values()):
            found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
            raise ModelError(f"{path} does not fit {CONFIG_FILE}: {found}. Expected {len(expected)} tensors, got {len(stored)}")
        self.load_state_dict(stored, strict=False)

    def _stored(self) -> list[str]:
        """Names of the tensors that a checkpoint holds: each tied tensor once, no frozen named decoder."""
        named = "decoder" in self.config.frozen and self.config.decoder.name is not None
        seen: set[int] = set()
        names = []
        for name, tensor in self.state_dict().items():
            if not (named and name.startswith("decoder.")) and tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                names.append(name)
        return names


def item_means(nll: Tensor, owners: Tensor) -> Tensor:
    """Mean per item of token values (N,) with their items (N,), ordered by item number."""
    _, index = torch.unique(owners, return_inverse=True)
    size = int(index.max()) + 1 if len(index) else 0
    onehot = nn.functional.one_hot(index, size).to(nll.dtype)
    return (nll @ onehot) / onehot.sum(0)


def tokenizer_for(decoder: DecoderConfig) -> TextTokenizer | None:
    """The tokeniser that comes with a named decoder; None for a new decoder, whose tokeniser is trained."""
    return None if decoder.name is None else decoder_tokenizer(decoder.name)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json of a checkpoint.

    Raises:
        ModelError: It is missing, of another format or not what a checkpoint holds.
    """
    path = folder / CONFIG_FILE
    try:
        return Checkpoint.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{folder} is not a checkpoint: no {CONFIG_FILE} ({error}); expected a folder that training wrote"
        ) from error
    except ValidationError as error:
        for fault in error.errors():
            if fault["loc"] == ("format",):
                raise ModelError(
                    f"{path} has checkpoint format {fault['input']!r}, expected 1: a newer undertone may have written it; install that one, "
                    "or train this checkpoint again"
                ) from error
        raise ModelError(f"{path} is not a checkpoint's configuration: {error}") from error


def _decoder(config: DecoderConfig, *, vocab_size: int, pad_id: int) -> Any:
    """The LLM: named weights, or new ones from torch's current seed."""
    import transformers

    library: Any = transformers

    try:
        if config.name is not None:
            return library.AutoModelForCausalLM.from_pretrained(config.name)
        settings = library.AutoConfig.for_model(**{**(config.config or {}), "vocab_size": vocab_size, "pad_token_id": pad_id})
        return library.AutoModelForCausalLM.from_config(settings)
    except (OSError, ValueError, TypeError) as error:
        given = config.name or config.config
        raise ModelError(
            f"decoder {given} does not load: {error}. Expected a Hugging Face causal LM by name, folder or config"
        ) from error
