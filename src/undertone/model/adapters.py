"""From encoder frames to decoder embeddings: (B, T, D), or (B, T, layers, D) of tapped layers, to (B, N, H) and their mask.

In all of them a frame that is padding changes nothing: the embeddings of a clip are the same alone and beside a longer one.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from undertone.errors import ModelError
from undertone.model.config import (
    AdapterConfig,
    AnyAdapterConfig,
    ConvAdapterConfig,
    QFormerAdapterConfig,
    TLTRAdapterConfig,
)


def build_adapter(config: AnyAdapterConfig, *, frame_dim: int, out_dim: int, layers: int = 1) -> nn.Module:
    """The adapter of a configuration, with new weights.

    Args:
        config: Which one, and its sizes.
        frame_dim: Width D of an encoder frame.
        out_dim: Width H of a decoder embedding.
        layers: Tapped layers in a frame.
    """
    match config:
        case AdapterConfig():
            return MLPAdapter(config, frame_dim=frame_dim, out_dim=out_dim)
        case ConvAdapterConfig():
            return ConvAdapter(config, frame_dim=frame_dim, out_dim=out_dim)
        case QFormerAdapterConfig():
            return QFormerAdapter(config, frame_dim=frame_dim, out_dim=out_dim, layers=layers)
        case TLTRAdapterConfig():
            return TLTRAdapter(config, frame_dim=frame_dim, out_dim=out_dim)


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


class ConvAdapter(nn.Module):
    """Convolutions of kernel 5 and stride 2 with GLU, then a residual bottleneck and layer norm (BLSP-Emo's, core-papers 4.1)."""

    def __init__(self, config: ConvAdapterConfig, *, frame_dim: int, out_dim: int) -> None:
        """Build the layers; arguments as for `MLPAdapter`."""
        super().__init__()
        hidden = config.hidden or frame_dim
        widths = [frame_dim, *[hidden] * (config.layers - 1), out_dim]
        # A GLU halves the channels.
        self.convolutions = nn.ModuleList(
            nn.Conv1d(one, 2 * other, kernel_size=5, stride=2, padding=2) for one, other in pairwise(widths)
        )
        self.bottleneck = nn.Sequential(
            nn.Linear(out_dim, config.bottleneck), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(config.bottleneck, out_dim)
        )
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, T, D) with their mask (B, T) to embeddings (B, ceil(T / 2 ** layers), H) with theirs."""
        out, mask = frames.to(self.norm.weight.dtype), frame_mask
        for convolution in self.convolutions:
            # Beyond its end each clip must see the zeros that it would see alone.
            out = nn.functional.glu(convolution((out * mask.unsqueeze(-1)).transpose(1, 2)), dim=1).transpose(1, 2)
            mask = mask[:, ::2]
        embeddings: Tensor = self.norm(out + self.bottleneck(out))
        return embeddings, mask


class QFormerAdapter(nn.Module):
    """Queries per tapped layer through shared attention blocks, summed over layers with softmax weights per query (DeSTA2)."""

    def __init__(self, config: QFormerAdapterConfig, *, frame_dim: int, out_dim: int, layers: int) -> None:
        """Build the layers; arguments as for `build_adapter`."""
        super().__init__()
        self.window = config.window
        hidden = config.hidden or frame_dim
        self.narrow = nn.Identity() if hidden == frame_dim else nn.Linear(frame_dim, hidden)
        self.memory_norm = nn.LayerNorm(hidden)
        self.queries = nn.Parameter(torch.randn(layers, config.queries, hidden) * hidden**-0.5)
        self.layer_weights = nn.Parameter(torch.zeros(config.queries, layers))
        self.blocks = nn.ModuleList(Block(hidden, config.heads, dropout=config.dropout, cross=True) for _ in range(config.depth))
        self.norm = nn.LayerNorm(hidden)
        self.project = nn.Linear(hidden, out_dim)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, T, D) or (B, T, layers, D) with their mask (B, T) to embeddings (B, windows * queries, H) with theirs."""
        frames = _layered(frames).to(self.project.weight.dtype)
        batch, length, layers, width = frames.shape
        window = self.window or length
        missing = -length % window
        frames = nn.functional.pad(frames, (0, 0, 0, 0, 0, missing)).reshape(-1, window, layers, width)
        mask = nn.functional.pad(frame_mask, (0, missing)).reshape(-1, window)
        memory = self.memory_norm(self.narrow(frames)).transpose(1, 2).flatten(0, 1)
        seen = _some(mask).repeat_interleave(layers, 0)
        out = self.queries.repeat(len(mask), 1, 1)
        for block in self.blocks:
            out = block(out, memory=memory, memory_mask=seen)
        mixed = torch.einsum("blqh,ql->bqh", out.reshape(-1, layers, *out.shape[1:]), self.layer_weights.softmax(-1))
        embeddings: Tensor = self.project(self.norm(mixed))
        heard = mask.any(-1, keepdim=True).expand(-1, embeddings.shape[1])
        return embeddings.reshape(batch, -1, embeddings.shape[-1]), heard.reshape(batch, -1)


class TLTRAdapter(nn.Module):
    """Time and layer transformer (LTU-AS): frames averaged, a block over time in each layer, a block over layers at each time, mean."""

    def __init__(self, config: TLTRAdapterConfig, *, frame_dim: int, out_dim: int) -> None:
        """Build the layers; arguments as for `MLPAdapter`."""
        super().__init__()
        self.stack = config.stack
        hidden = config.hidden or frame_dim
        self.narrow = nn.Identity() if hidden == frame_dim else nn.Linear(frame_dim, hidden)
        self.time = Block(hidden, config.time_heads, dropout=config.dropout)
        self.layer = Block(hidden, config.layer_heads, dropout=config.dropout)
        self.norm = nn.LayerNorm(hidden)
        self.project = nn.Linear(hidden, out_dim)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, T, D) or (B, T, layers, D) with their mask (B, T) to embeddings (B, ceil(T / stack), H) with theirs."""
        frames = _layered(frames).to(self.project.weight.dtype) * frame_mask[:, :, None, None]
        batch, length, layers, width = frames.shape
        missing = -length % self.stack
        stacked = nn.functional.pad(frames, (0, 0, 0, 0, 0, missing)).reshape(batch, -1, self.stack, layers, width)
        real = nn.functional.pad(frame_mask, (0, missing)).reshape(batch, -1, self.stack).sum(-1)
        mask = real > 0
        out = self.narrow(stacked.sum(2) / real.clamp(min=1)[:, :, None, None])
        out = self.time(out.transpose(1, 2).flatten(0, 1), mask=_some(mask).repeat_interleave(layers, 0))
        out = self.layer(out.reshape(batch, layers, *out.shape[1:]).transpose(1, 2).flatten(0, 1))
        embeddings: Tensor = self.project(self.norm(out.mean(1)).reshape(batch, -1, out.shape[-1]))
        return embeddings, mask


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, cross-attention if asked for, feed-forward of four times the width."""

    def __init__(self, width: int, heads: int, *, dropout: float, cross: bool = False) -> None:
        """Build the layers.

        Raises:
            ModelError: The heads do not divide the width.
        """
        super().__init__()
        if width % heads:
            raise ModelError(
                f"{heads} heads of attention do not divide an adapter of width {width}; set adapter.hidden to a multiple"
            )
        self.attend = Attention(width, heads)
        self.cross = Attention(width, heads) if cross else None
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, out: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Map (B, N, D) to the same shape; `mask` (B, N) and `memory_mask` (B, S) are true where a place may be seen."""
        out = out + self.dropout(self.attend(out, None, mask))
        if self.cross is not None:
            out = out + self.dropout(self.cross(out, memory, memory_mask))
        fed: Tensor = out + self.dropout(self.feed(out))
        return fed


class Attention(nn.Module):
    """Layer norm, then multi-head attention to itself or to a memory."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the projections."""
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, asking: Tensor, memory: Tensor | None, mask: Tensor | None) -> Tensor:
        """Attend from (B, N, D) to itself or to a memory (B, S, D), where the mask (B, S) is true."""
        asking = self.norm(asking)
        memory = asking if memory is None else memory
        query, key, value = (
            made.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for made in (self.query(asking), self.key(memory), self.value(memory))
        )
        seen = None if mask is None else mask[:, None, None, :]
        out: Tensor = self.out(
            nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)
        )
        return out


def count_of(mask: Tensor) -> Tensor:
    """Real entries per row of a (B, N) mask."""
    return mask.sum(-1).to(torch.long)


def _layered(frames: Tensor) -> Tensor:
    """(B, T, D) as one layer of (B, T, 1, D)."""
    return frames.unsqueeze(2) if frames.dim() == 3 else frames


def _some(mask: Tensor) -> Tensor:
    """The mask, but all true in rows that have nothing: attention to no place at all is not a number. Nobody reads these rows."""
    return mask | ~mask.any(-1, keepdim=True)
