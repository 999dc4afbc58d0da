"""Where an answer ends: at the end token, at a stop text, at the longest length; and what of it may be shown before it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from undertone.model.tokenizer import TextTokenizer

_BROKEN = "\ufffd"
"""What the bytes of an unfinished character decode to."""


class StopTexts(StoppingCriteria):
    """Ends a row of a batch as soon as one of the texts stands in what was generated."""

    def __init__(self, tokenizer: TextTokenizer, stop: Sequence[str]) -> None:
        """Store both."""
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        # A token is of one byte at least.
        self.span = max(len(text.encode()) for text in stop) + 1

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Which rows of (B, generated tokens) end with the last token."""
        tails = (self.tokenizer.decode(row) for row in input_ids[:, -self.span :].tolist())
        return torch.tensor([any(text in tail for text in self.stop) for tail in tails], device=input_ids.device)


def finished(ids: Sequence[int], tokenizer: TextTokenizer, stop: Sequence[str]) -> list[int]:
    """A generated row up to its end token (without) or its first stop text (with), whichever comes first."""
    row = list(ids)
    if tokenizer.end_id in row:
        row = row[: row.index(tokenizer.end_id)]
    if stop and cut(tokenizer.decode(row), stop) != tokenizer.decode(row):
        size = next(n for n in range(1, len(row) + 1) if any(text in tokenizer.decode(row[:n]) for text in stop))
        row = row[:size]
    return row


def cut(text: str, stop: Sequence[str]) -> str:
    """Text before the first stop text."""
    found = [text.index(one) for one in stop if one in text]
    return text[: min(found)] if found else text


def settled(text: str, stop: Sequence[str]) -> str:
    """As much of an unfinished answer as will stand whatever follows: no half character, no white space, no begun stop text."""
    text = cut(text, stop).rstrip(_BROKEN)
    begun = max((n for one in stop for n in range(1, len(one)) if text.endswith(one[:n])), default=0)
    return text[: len(text) - begun].rstrip()
