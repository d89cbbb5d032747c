r"""Encoders of what the spectrum says about a pair of nodes: the implicit filter, and the grouped product encoder.

    implicit:  e(u, v) = sum_k phi(lambda_k) V(u, k) V(v, k)                        linear in the projections
    product:   e(u, v) = sum over distinct lambda of f(lambda) * g(P_lambda(u, v))  (EPNN's published encoder)

Both are invariant to the basis of every eigenspace; the second only if eigenvalues are grouped rightly, which is why it
reads float64 eigenvalues and refuses to guess. In distinguishing power they are equal: one generic phi already carries
all of the pairs (lambda, P_lambda(u, v)) (Gai et al., ICLR 2025, Lemma 3.17).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from coset.graphs.encodings.spectra import eigenspace_sizes
from coset.graphs.models.spectral_filter import SpectralBatch, spectral_filter
from coset.nn import MLP


class SpectralFunctions(nn.Module):
    """phi: R -> R^c, evaluated at eigenvalues: Linear - BatchNorm - ReLU - Linear.

    Args:
        channels: Number c of functions.
        hidden: Width between; ``channels`` by default.
        norm: Normalisation of the hidden layer, over all eigenvalues of the batch.
    """

    def __init__(self, channels: int, hidden: int | None = None, norm: Callable[[int], nn.Module] = nn.BatchNorm1d):
        super().__init__()
        self.mlp = MLP(1, channels, hidden or channels, norm)

    def forward(self, values: Float[Tensor, " eigenvalues"]) -> Float[Tensor, "eigenvalues c"]:
        return self.mlp(values.to(self.mlp.first.weight.dtype).unsqueeze(1))


class ImplicitEncoder(nn.Module):
    """The spectral filter as an encoder of pairs: no grouping, 2 n^3 c operations and n^2 c numbers a graph."""

    def __init__(self, channels: int, hidden: int = 128, norm: Callable[[int], nn.Module] = nn.BatchNorm1d):
        super().__init__()
        self.phi = SpectralFunctions(channels, hidden, norm)

    def forward(self, batch: SpectralBatch) -> Float[Tensor, "pairs c"]:
        return spectral_filter(self.phi(batch.values), batch)


class ProductEncoder(nn.Module):
    """sum over distinct eigenvalues of f(lambda) * g(P(u, v)), f(x) = a x + exp(MLP(x)), g(x) = a x + SiLU(MLP(x)).

    Args:
        channels: Columns out.
        hidden: Hidden width of f; that of g is ``channels``.
        checkpointed: Compute g again in the backward pass, one eigenspace at a time: n^2 c numbers a graph are kept
            instead of m n^2 c times the layers of g.
        tolerance: Largest gap within an eigenspace; by default
            :func:`coset.graphs.encodings.spectra.grouping_tolerance`.
    """

    def __init__(self, channels: int, hidden: int = 128, checkpointed: bool = True, tolerance: float | None = None):
        super().__init__()
        self.of_value, self.of_value_linear = _ActFirst(channels, hidden), nn.Linear(1, channels)
        self.of_entry, self.of_entry_linear = _ActFirst(channels, channels), nn.Linear(1, channels)
        self.checkpointed, self.tolerance = checkpointed, tolerance
        for name, parameter in self.named_parameters():
            if "linear" in name and name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, batch: SpectralBatch) -> Float[Tensor, "pairs c"]:
        """Encode all pairs.

        Raises:
            CosetError: Eigenvalues are not in float64, or it is open which of them are equal.
        """
        sizes = batch.nodes.sizes.tolist()
        graphs = zip(batch.values.split(sizes), batch.vectors)
        return torch.cat([self._graph(values, vectors).flatten(0, 1) for values, vectors in graphs])

    def _graph(self, values: Tensor, vectors: Tensor) -> Float[Tensor, "n n c"]:
        values, order = values.sort()
        spaces = eigenspace_sizes(values, self.tolerance)
        distinct = torch.stack([part.mean() for part in values.split(spaces)]).to(vectors.dtype).unsqueeze(1)
        weights = self.of_value_linear(distinct) + self.of_value(distinct).exp()
        bases = vectors[:, order].split(spaces, dim=1)
        if not self.checkpointed:
            entries = torch.stack([basis @ basis.mT for basis in bases]).unsqueeze(-1)
            return torch.einsum("mc,muvc->uvc", weights, self._entries(entries))
        total = vectors.new_zeros(())
        for weight, basis in zip(weights, bases):
            total = total + checkpoint(self._space, weight, basis, use_reentrant=False)
        return total

    def _space(self, weight: Float[Tensor, " c"], basis: Float[Tensor, "n m"]) -> Float[Tensor, "n n c"]:
        return weight * self._entries((basis @ basis.mT).unsqueeze(-1))

    def _entries(self, entries: Tensor) -> Tensor:
        return self.of_entry_linear(entries) + F.silu(self.of_entry(entries))


class _ActFirst(nn.Module):
    """Three linear maps with a SiLU before each, the first one on the bare number."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(1, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, channels)])

    def forward(self, x: Float[Tensor, "*shape 1"]) -> Float[Tensor, "*shape c"]:
        for linear in self.maps:
            x = linear(F.silu(x))
        return x
