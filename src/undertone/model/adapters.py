"""From encoder frames to decoder embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from undertone.model.config import AdapterConfig


def embeddings_of(frames: int, stack: int) -> int:
    """How many embeddings a number of frames becomes; the last one may be part padding."""
    return -(-frames // stack)


class MLPAdapter(nn.Module):
    """Stacks frames and maps them in two stages to the decoder's width, as released MERaLiON-AudioLLM v1 does.

    Layer norm, then [stack, Linear, SiLU, dropout], then [Linear, SiLU, dropout, Linear].
    """

    def __init__(self, config: AdapterConfig, *, frame_dim: int, out_dim: int) -> None:
        """Build the layers.

        Args:
            config: Stack, width, dropout.
            frame_dim: Width D of an encoder frame.
            out_dim: Width H of a decoder embedding.
        """
        super().__init__()
        hidden = config.hidden or frame_dim
        self.stack = config.stack
        self.norm = nn.LayerNorm(frame_dim)
        self.pool = nn.Sequential(nn.Linear(frame_dim * config.stack, hidden), nn.SiLU(), nn.Dropout(config.dropout))
        self.project = nn.Sequential(
            nn.Linear(hidden, 4 * hidden), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(4 * hidden, out_dim)
        )

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames to embeddings.

        Args:
            frames: (B, T, D).
            frame_mask: (B, T), true where a frame is real; real frames come first.

        Returns:
            Embeddings (B, ceil(T / stack), H) and their mask.
        """
        missing = -frames.shape[1] % self.stack
        normed = self.norm(frames.to(self.norm.weight.dtype)) * frame_mask.unsqueeze(-1)
        normed = nn.functional.pad(normed, (0, 0, 0, missing))
        mask = nn.functional.pad(frame_mask, (0, missing))
        batch, length, width = normed.shape
        stacked = normed.reshape(batch, length // self.stack, width * self.stack)
        out: Tensor = self.project(self.pool(stacked))
        return out, mask.reshape(batch, -1, self.stack).any(-1)


def count_of(mask: Tensor) -> Tensor:
    """Real entries per row of a (B, N) mask."""
    return mask.sum(-1).to(torch.long)
