"""Embedders: texts in, vectors out. One small and offline, one for any checkpoint of the Hugging Face hub.

`Characters` sees spelling alone. It finds a class whose keyword was misspelt or inflected and knows no synonyms; `Checkpoint` finds
paraphrases, as well as its model does.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from undertone.errors import DependencyError, ModelError

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors whose cosine says how alike they are."""

    @property
    def unit(self) -> Literal["word", "text"]:
        """What is worth embedding: each word of an answer, or the answer as a whole."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text, shape (texts, dimensions); they need not be of length 1."""
        ...


class Characters(BaseModel):
    """Counts of letter pairs and triples, hashed; word ends are letters too. Alike are words that are spelt alike.

    Fields:
        dimensions: Length of the vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["characters"] = "characters"
    dimensions: int = Field(default=4096, ge=256)

    @property
    def unit(self) -> Literal["word", "text"]:
        """Words: a sentence shares letters with everything."""
        return "word"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text."""
        made = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            marked = f"<{text.casefold()}>"
            grams = Counter(marked[at : at + size] for size in (2, 3) for at in range(len(marked) - size + 1))
            for gram, count in grams.items():
                made[row, zlib.crc32(gram.encode()) % self.dimensions] += count
        return made


class Checkpoint(BaseModel):
    """A text encoder of the Hugging Face hub or of a folder: mean of its last hidden states over the words, padding left out.

    That is how sentence-transformers checkpoints with a mean pooling layer embed ("sentence-transformers/all-MiniLM-L6-v2" and its kin).

    Fields:
        model: Name on the hub, or a folder.
        revision: Commit of the checkpoint; None for the newest.
        prefix: Put before each text, where the model wants one ("query: " for E5).
        batch: Texts at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["checkpoint"] = "checkpoint"
    model: str
    revision: str | None = None
    prefix: str = ""
    batch: int = Field(default=32, ge=1)

    _loaded: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def unit(self) -> Literal["word", "text"]:
        """The whole answer."""
        return "text"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text.

        Raises:
            DependencyError: transformers or torch is not installed.
            ModelError: The checkpoint cannot be loaded.
        """
        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        parts = [
            self._pooled([self.prefix + one for one in texts[at : at + self.batch]]) for at in range(0, len(texts), self.batch)
        ]
        return np.concatenate(parts)

    def _pooled(self, texts: list[str]) -> Vectors:
        self._load()
        import torch

        given = self._loaded["tokenizer"](texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden = self._loaded["model"](**given).last_hidden_state
        mask = given["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return np.asarray(pooled.float().numpy(), dtype=np.float32)

    def _load(self) -> None:
        if self._loaded:
            return
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise DependencyError("embedder 'checkpoint' needs transformers: pip install \"undertone[train]\"") from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model, revision=self.revision)
            model = AutoModel.from_pretrained(self.model, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"embedder: cannot load {self.model!r}: {error}; expected a text encoder's folder or name on the hub"
            ) from error
        self._loaded.update(tokenizer=tokenizer, model=model.eval())


AnyEmbedder = Annotated[Characters | Checkpoint, Field(discriminator="kind")]
"""The embedders that a configuration can name; from Python anything with `Embedder`'s two members will do."""
