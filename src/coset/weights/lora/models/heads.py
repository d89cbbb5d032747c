"""What reads invariants: small MLPs, and transformers whose tokens are layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Sequential):
    """Linear - LayerNorm - ReLU - Linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__(
            nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )  # fmt: skip


class JoinedHead(nn.Module):
    """The invariants of all layers side by side, then :class:`Head`: the head of the paper."""

    def __init__(self, layers: int, features: int, hidden: int, outputs: int):
        super().__init__()
        self.mlp = Head(layers * features, hidden, outputs)

    def forward(self, invariants: Float[Tensor, "batch *layers features"]) -> Float[Tensor, "batch outputs"]:
        return self.mlp(invariants.flatten(1))


class SharedHead(nn.Module):
    """One linear map for the invariants of every layer, LayerNorm, ReLU; then all layers side by side."""

    def __init__(self, layers: int, features: int, hidden: int, outputs: int):
        super().__init__()
        self.each = nn.Sequential(nn.Linear(features, hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.last = nn.Linear(layers * hidden, outputs)

    def forward(self, invariants: Float[Tensor, "batch layers features"]) -> Float[Tensor, "batch outputs"]:
        return self.last(self.each(invariants).flatten(1))


class TransformerHead(nn.Module):
    """The invariants of a layer of the adapter are a token; the answer is read from a token of its own."""

    def __init__(self, layers: int, features: int, hidden: int, outputs: int, blocks: int = 2):
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, hidden))
        self.register_buffer("positions", sinusoids(layers, hidden), persistent=False)
        self.read = nn.Parameter(torch.zeros(hidden))
        self.body = transformer(hidden, blocks)
        self.last = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, outputs))

    def forward(self, invariants: Float[Tensor, "batch layers features"]) -> Float[Tensor, "batch outputs"]:
        tokens = self.embed(invariants) + self.get_buffer("positions")
        return self.last(self.body(with_reader(self.read, tokens))[:, 0])


HEADS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "full": JoinedHead, "mean": JoinedHead, "shared": SharedHead, "transformer": TransformerHead,
}  # fmt: skip
"""full, shared and transformer take the k x k products of each layer, mean the average of each."""


def transformer(width: int, blocks: int, heads: int = 8) -> nn.TransformerEncoder:
    """Blocks of attention and an MLP, normalised first; as many heads as asked for and as divide the width."""
    heads = next(h for h in range(min(heads, width), 0, -1) if width % h == 0)
    block = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)


def with_reader(
    reader: Float[Tensor, " width"], tokens: Float[Tensor, "batch tokens width"]
) -> Float[Tensor, "batch tokens+1 width"]:
    """A learnt token in front, from which the answer is read."""
    return torch.cat([reader.expand(tokens.size(0), 1, -1), tokens], 1)


def sinusoids(positions: int, width: int) -> Float[Tensor, "positions width"]:
    """Sines and cosines of Vaswani et al. (2017)."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
