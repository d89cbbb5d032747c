r"""Transformers on adapters, as baselines: a token a layer from raw factors, or a token a singular triple.

- :class:`FactorTransformer`: the further baseline of the paper's final version; it sees (vec U, vec V), no symmetry.
- :class:`TripleTransformer`: after W2T (Weight2Token, 2026). U V^T = sum_i sigma_i a_i b_i^T; each (a_i, sigma_i, b_i)
  is a token. What GL(r) leaves open is the common sign of a_i and b_i, so that tokens are even functions of it; where
  singular values coincide the triples are not unique and the map jumps.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from coset.symmetry import Claim
from coset.weights.lora.data.adapters import balanced
from coset.weights.lora.data.factors import Factors, Layout
from coset.weights.lora.models.base import EPSILON, LolModel, invariance
from coset.weights.lora.models.equivariant import GLLinear
from coset.weights.lora.models.heads import Head, sinusoids, transformer, with_reader
from coset.weights.lora.models.registry import Setting, lora_model


class SwiGLU(nn.Module):
    """silu(W x) * (W' x) with weights of its own for each layer of the adapter."""

    def __init__(self, layers: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(layers, inputs, 2 * outputs) / inputs**0.5)

    def forward(self, x: Float[Tensor, "batch layers inputs"]) -> Float[Tensor, "batch layers outputs"]:
        opened, kept = torch.einsum("bli,lio->blo", x, self.weight).chunk(2, -1)
        return F.silu(opened) * kept


class FactorTransformer(LolModel):
    """Tokens are layers of the adapter, each embedded from all its entries; all tokens side by side give the answer.

    Args:
        layout: Layers of the adapters.
        training: Factors of the training set; entries are divided by their deviation in each layer.
        width: Of tokens.
        hidden: Width of the head.
        outputs: Columns out.
        blocks: Of the transformer.
    """

    def __init__(self, layout: Layout, training: Factors, width: int, hidden: int, outputs: int, blocks: int = 2):
        super().__init__()
        self.layout = layout
        count, rank = len(layout.names), training[0][0].size(-1)
        self.embed = nn.ModuleList(SwiGLU(len(names), (n + m) * rank, width) for (n, m), names in layout.groups)
        for i, (u, v) in enumerate(training):
            for side, t in (("u", u), ("v", v)):
                size = t.square().mean((0, 2, 3), keepdim=True)[0].sqrt().clamp(min=EPSILON)
                self.register_buffer(f"size_{side}_{i}", size)
        self.register_buffer("positions", sinusoids(count, width), persistent=False)
        self.body = transformer(width, blocks)
        self.head = Head(count * width, hidden, outputs)

    def predict(self, prepared: Factors) -> Float[Tensor, "batch outputs"]:
        self.layout.check(prepared)
        parts = []
        for i, ((u, v), embed) in enumerate(zip(prepared, self.embed, strict=True)):
            both = torch.cat([u / self.get_buffer(f"size_u_{i}"), v / self.get_buffer(f"size_v_{i}")], -2)
            parts.append(embed(both.flatten(2)))
        tokens = torch.cat(parts, 1) + self.get_buffer("positions")
        return self.head(self.body(tokens).flatten(1))

    def symmetry(self) -> tuple[Claim, ...]:
        return ()


class TripleTransformer(LolModel):
    """Tokens are singular triples of all layers; triples of value 0 are not seen, so that ranks do not matter.

    Args:
        layout: Layers of the adapters.
        training: Factors of the training set, which standardise the logarithms of singular values.
        width: Of tokens.
        hidden: Width of the head.
        outputs: Columns out.
        blocks: Of the transformer.
    """

    def __init__(self, layout: Layout, training: Factors, width: int, hidden: int, outputs: int, blocks: int = 2):
        super().__init__()
        self.layout = layout
        count = len(layout.names)
        self.sides = GLLinear(layout, width)
        with torch.no_grad():
            # Singular vectors have length 1 whatever their dimension; this keeps what is made of them near 1.
            for weight in self.sides.parameters():
                weight.mul_(weight.size(-1) ** 0.5)
        self.bias = nn.Parameter(torch.randn(width))
        self.even = nn.Linear(width, width)
        self.value = nn.Linear(1, width)
        self.layer = nn.Parameter(0.1 * torch.randn(count, width))
        self.read = nn.Parameter(torch.zeros(width))
        self.body = transformer(width, blocks)
        self.head = Head(width, hidden, outputs)
        self.centre: Tensor
        self.spread: Tensor
        values = triples(self.precompute(training))[1]
        logs = values[values > 0].log()
        self.register_buffer("centre", logs.mean() if len(logs) else torch.zeros(()))
        self.register_buffer("spread", logs.std().clamp(min=1e-3) if len(logs) > 1 else torch.ones(()))

    def precompute(self, factors: Factors) -> Factors:
        """A S^(1/2) and B S^(1/2): both hold the triples, each up to a sign."""
        self.layout.check(factors)
        return tuple(balanced(u, v) for u, v in factors)

    def tokens(self, prepared: Factors) -> tuple[Float[Tensor, "batch tokens width"], Bool[Tensor, "batch tokens"]]:
        """Tokens of all layers, and which of them stand for a value above 0."""
        units, values = triples(prepared)
        u, v = self.sides(units)
        odd = (u + v).transpose(-2, -1)
        even = self.even(torch.relu(odd + self.bias) + torch.relu(self.bias - odd))
        logs = (values.clamp(min=EPSILON).log() - self.centre) / self.spread
        tokens = even + self.value(logs.unsqueeze(-1)) + self.layer[:, None]
        return tokens.flatten(1, 2), (values > 0).flatten(1)

    def predict(self, prepared: Factors) -> Float[Tensor, "batch outputs"]:
        tokens, seen = self.tokens(prepared)
        hidden = F.pad(~seen, (1, 0), value=False)
        return self.head(self.body(with_reader(self.read, tokens), src_key_padding_mask=hidden)[:, 0])

    def symmetry(self) -> tuple[Claim, ...]:
        return invariance(10.0)


@lora_model("transformer")
def factor_transformer(setting: Setting) -> FactorTransformer:
    """A token a layer."""
    s = setting.sizes
    return FactorTransformer(setting.layout, setting.training, s.token_width, s.hidden, setting.outputs)


@lora_model("w2t", any_rank=True)
def triple_transformer(setting: Setting) -> TripleTransformer:
    """A token a singular triple."""
    s = setting.sizes
    return TripleTransformer(setting.layout, setting.training, s.token_width, s.hidden, setting.outputs)


def triples(prepared: Factors) -> tuple[Factors, Float[Tensor, "batch layers r"]]:
    """Unit singular vectors, up to a common sign, and singular values, out of A S^(1/2) and B S^(1/2).

    Values that are rounding errors beside the largest one of their layer count as 0.
    """
    units, values = [], []
    for u, v in prepared:
        sigma = u.square().sum(-2)
        sigma = sigma * (sigma > 1e-6 * sigma.amax(-1, keepdim=True))
        root = sigma.clamp(min=EPSILON).sqrt().unsqueeze(-2)
        units.append((u / root, v / root))
        values.append(sigma)
    return tuple(units), torch.cat(values, 1)
