"""Text to tokens: a small BPE trained on the generated text, or the named decoder's own tokeniser. Both save as tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from undertone.errors import DependencyError, ModelError
from undertone.model.prompts import AUDIO, places

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"


class SpecialTokens(BaseModel):
    """The tokens that are not text, and what a decoder's chat template puts around a prompt.

    Attributes:
        pad: Fills a batch.
        end: Ends an answer.
        audio: Stands where a speech embedding goes; need not be in the decoder's vocabulary.
        before: Text in front of every prompt, special tokens included.
        after: Text between prompt and answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pad: str = "<pad>"
    end: str = "<eos>"
    audio: str = AUDIO
    before: str = "<bos>"
    after: str = ""


class TextTokenizer:
    """A `tokenizers.Tokenizer` and its special tokens."""

    def __init__(self, tokenizer: Tokenizer, tokens: SpecialTokens) -> None:
        """Store both."""
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.pad_id = self._id(tokens.pad)
        self.end_id = self._id(tokens.end)
        self.audio_id = self._id(tokens.audio)
        self._before = self._special(tokens.before)
        self._after = self._special(tokens.after)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def prompt_ids(self, prompt: str, *, embeddings: int | Sequence[int]) -> list[int]:
        """Tokens of a prompt, its placeholders repeated for each speech embedding of what they stand for.

        A placeholder stands at the very start or, in a dialogue, alone on a line; other special tokens, and one in a transcript or a question,
        are plain text.

        Args:
            prompt: Text of `prompts.build`.
            embeddings: How many each placeholder stands for, in their order; one number where there is one placeholder or none.

        Raises:
            ModelError: There are more placeholders than numbers, or fewer.
        """
        texts = places(prompt)
        counts = [embeddings] * (len(texts) > 1) if isinstance(embeddings, int) else list(embeddings)
        if len(counts) == 1 and prompt.startswith(AUDIO):
            texts = ["", prompt.removeprefix(AUDIO)]
        counts = counts or [0] * (len(texts) - 1)
        if len(counts) != len(texts) - 1:
            raise ModelError(
                f"the prompt has {len(texts) - 1} placeholders {AUDIO} for {len(counts)} clips; expected one each. It begins {prompt[:60]!r}"
            )
        ids = [*self._before, *self._plain(texts[0])]
        for count, text in zip(counts, texts[1:], strict=True):
            ids += [*([self.audio_id] * count), *self._plain(text)]
        return [*ids, *self._after]

    def word_ids(self, word: str) -> list[int]:
        """Tokens of a word as it stands inside a text."""
        return self._plain(f" {word}")

    def target_ids(self, target: str) -> list[int]:
        """Tokens of an answer, end token included."""
        return [*self._plain(target if self.tokens.after else f" {target}"), self.end_id]

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Text of tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=not keep_special)
        return text

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, and tokenizer_config.json for `AutoTokenizer`; the special tokens are in the checkpoint's config.json."""
        self.tokenizer.save(str(folder / FILE))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": self.tokens.pad,
            "eos_token": self.tokens.end,
            "additional_special_tokens": [self.tokens.audio],
            "clean_up_tokenization_spaces": False,
        }
        (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, tokens: SpecialTokens) -> TextTokenizer:
        """Read tokenizer.json.

        Raises:
            ModelError: The file is missing or damaged.
        """
        library = _library()
        try:
            return cls(library.Tokenizer.from_file(str(folder / FILE)), tokens)
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"{folder / FILE} does not load: {error}; the checkpoint is incomplete: train it again") from error

    def _id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ModelError(f"the tokeniser has no token {token!r}, which the checkpoint names; it has {len(self)} tokens")
        return int(found)

    def _plain(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = True
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _special(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = False
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 1500) -> TextTokenizer:
    """Train a byte-level BPE with single digits on prompts and answers; equal texts give an equal tokeniser.

    Bytes cover every text, so that there is no unknown token.
    """
    library = _library()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokens = SpecialTokens()
    tokenizer = library.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[tokens.pad, tokens.before, tokens.end, tokens.audio],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # sorted: the trainer breaks ties by order of appearance
    tokenizer.train_from_iterator(sorted({piece for text in texts for piece in places(text) if piece}), trainer)
    return TextTokenizer(tokenizer, tokens)


def decoder_tokenizer(name: str) -> TextTokenizer:
    """The tokeniser of a Hugging Face decoder, its chat template as text around the prompt.

    Raises:
        ModelError: It does not load, or has no fast version.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DependencyError('named decoders need transformers: pip install "undertone[train]"') from error
    try:
        found = AutoTokenizer.from_pretrained(name, use_fast=True)
        tokenizer = found.backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"the tokeniser of {name!r} does not load: {error}; try: hf download {name}") from error
    tokenizer.add_special_tokens([AUDIO])
    end = found.eos_token
    before, after = found.bos_token or "", ""
    if found.chat_template:
        before, after, end = _template(found, tokenizer)
    return TextTokenizer(tokenizer, SpecialTokens(pad=found.pad_token or end, end=end, before=before, after=after))


def _template(found: Any, tokenizer: Tokenizer) -> tuple[str, str, str]:
    """Text before the prompt, between prompt and answer, and the token that ends the answer, from one rendered turn each."""
    question, answer = "\u241fprompt\u241f", "\u241fanswer\u241f"
    user = [{"role": "user", "content": question}]
    before, after = found.apply_chat_template(user, tokenize=False, add_generation_prompt=True).split(question)
    whole = found.apply_chat_template([*user, {"role": "assistant", "content": answer}], tokenize=False)
    ending = tokenizer.encode(whole.split(answer)[1], add_special_tokens=False).tokens
    return before, after, ending[0] if ending else found.eos_token


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DependencyError('the speech-LLM needs tokenizers: pip install "undertone[train]"') from error
    return tokenizers
