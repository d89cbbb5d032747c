r"""GRANOLA: normalisation whose affine part is predicted, node by node, from the graph and from random features.

Eliasof, Bevilacqua, Schönlieb, Maron, "GRANOLA: Adaptive Normalization for Graph Neural Networks", NeurIPS 2024
(equations 6 and 8 to 10). Group: S_n on the nodes. For features H [nodes, C] and noise R ~ N(0, I) [nodes, K], drawn
anew at every pass:

    Z = GNN(A, [H | R])        gamma = f1(Z)        beta = f2(Z)
    mu_n = mean_c H_nc         sigma_n^2 = mean_c (H_nc - mu_n)^2
    out_n = gamma_n (H_n - mu_n) / sqrt(sigma_n^2 + 1e-5) + beta_n

Renumbering nodes and noise together renumbers the rows exactly; since noise is exchangeable, the layer is equivariant
in distribution, and its mean over the noise is equivariant. Without noise (``noise_channels=0``) it adapts to a graph
but cannot tell apart what message passing cannot. The inner network needs at least two layers for the noise to tell
triangles: after one, every node of a regular graph has the same distribution.

The same mathematics in fewer passes over the nodes: the first linear map of the inner GNN acts before its neighbours
are summed, on H and R apart, so that C columns move instead of C + K; its last linear map and the first one of f1 and
f2, with nothing between them, are multiplied out once a pass; f1 and f2 share one matrix product; sums over neighbours,
own share, bias and ReLU are one operation (:mod:`coset.graphs.models.gin_sum`).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.errors import check_choice
from coset.graphs.models.gin_sum import gin_sum
from coset.relations import IndexSet, Relation


class GranolaNorm(nn.Module):
    """A drop-in normalisation for message-passing networks; it wants the edges as well.

    Args:
        channels: Columns C.
        depth: Layers of the inner GNN (GIN, or GINE if there are edge features).
        noise_channels: Columns K of the noise; ``None`` for C as in the paper, 0 for none ("GRANOLA-NO-RNF").
        edge_channels: Columns of real edge features, or ``None``.
        noise_scale: Of the weights that the noise enters with, at the start. By default noise of deviation .58 meets
            whatever deviation the features have; .1 lets it in slowly.
        message_passing: Without it the inner network sees each node alone, noise but no structure ("RNF-NORM").
        init: ``identity`` starts as a plain layer norm (gamma = 1 + f1, both heads zero); ``paper`` is gamma = f1 with
            the ordinary initialisation.
        eval_seed: In evaluation mode the noise of a pass follows from this number, so that one batch gives one
            result; ``None`` draws afresh as in training.

    Shape:
        ``[nodes, C]`` and ``edge_index`` [2, edges] (or a :class:`coset.relations.Relation`) -> ``[nodes, C]``.
    """

    def __init__(
        self,
        channels: int,
        *,
        depth: int = 2,
        noise_channels: int | None = None,
        noise_scale: float = 1.0,
        edge_channels: int | None = None,
        message_passing: bool = True,
        init: str = "identity",
        eval_seed: int | None = 0,
    ):
        super().__init__()
        if channels < 2:
            raise ValueError(f"channels={channels}: a node is normalised over its channels, so it takes at least 2")
        if depth < 1:
            raise ValueError(f"depth={depth}: the inner network needs at least one layer")
        check_choice("init", init, ("identity", "paper"))
        noise_channels = channels if noise_channels is None else noise_channels
        self.channels, self.noise_channels, self.message_passing = channels, noise_channels, message_passing
        self.eval_seed, self.init, self.noise_scale = eval_seed, init, noise_scale
        self.first = nn.ModuleList(nn.Linear(channels, channels) for _ in range(depth))
        self.second = nn.ModuleList(nn.Linear(channels, channels) for _ in range(depth))
        self.noise = nn.Linear(noise_channels, channels, bias=False) if noise_channels else None
        edge_channels = edge_channels or 0 if message_passing else 0
        self.edges = nn.ModuleList(nn.Linear(edge_channels, channels) for _ in range(depth) if edge_channels)
        self.eps = nn.Parameter(torch.zeros(depth))
        self.hidden = nn.Linear(channels, 2 * channels)
        self.scale, self.shift = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.around = 1.0 if init == "identity" else 0.0
        self._start()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()
        nn.init.zeros_(self.eps)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """What differs from the ordinary initialisation."""
        if self.noise is not None:
            self.noise.weight.mul_(self.noise_scale)
        if self.init == "identity":
            for head in (self.scale, self.shift):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        edges: Relation | Int[Tensor, "2 edges"],
        *,
        edge_attr: Float[Tensor, "rows k"] | None = None,
        edge_row: Int[Tensor, " edges"] | None = None,
        noise: Float[Tensor, "nodes noise"] | None = None,
    ) -> Float[Tensor, "nodes channels"]:
        """Normalise.

        Args:
            x: Features.
            edges: Who sends to whom; all graphs of a batch at once.
            edge_attr: Features of the edges, if the layer was made with ``edge_channels``.
            edge_row: The row of ``edge_attr`` of each edge, where many edges share one (kinds of bonds); by default
                edge e has row e.
            noise: To be used instead of a fresh draw: makes the pass a function of its arguments.

        Raises:
            ValueError: Shapes do not fit what the layer was made for.
        """
        self._check(x, edge_attr, noise)
        if isinstance(edges, Tensor):
            nodes = IndexSet(torch.tensor([x.size(0)], device=x.device))
            edges = Relation(nodes, nodes, edges)
        inside = self._inner(x, edges, edge_attr, edge_row, noise)
        last = self.second[-1]
        assert isinstance(last, nn.Linear)
        weight = self.hidden.weight @ last.weight
        bias = torch.addmv(self.hidden.bias, self.hidden.weight, last.bias)
        both = F.linear(inside, weight, bias).relu_()
        left, right = both.chunk(2, dim=1)
        gamma, beta = F.linear(left, self.scale.weight, self.scale.bias + self.around), self.shift(right)
        return torch.addcmul(beta, gamma, F.layer_norm(x, (self.channels,)))

    def _inner(
        self, x: Tensor, relation: Relation, edge_attr: Tensor | None, edge_row: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Z, but for the last linear map."""
        z = x
        for layer, (first, second) in enumerate(zip(self.first, self.second)):
            assert isinstance(first, nn.Linear)
            u = F.linear(z, first.weight)
            if layer == 0 and self.noise is not None:
                noise = self.draw(x) if noise is None else noise.to(x.dtype)
                u = torch.addmm(u, noise, self.noise.weight.t())
            if self.message_passing:
                edge = self.edges[layer](edge_attr) if self.edges else None
                edge = edge if edge is None or edge_row is None else F.embedding(edge_row, edge)
                z = gin_sum(u, relation, self.eps[layer], first.bias, edge)
            else:
                z = torch.addcmul(first.bias, u, 1 + self.eps[layer]).relu_()
            if layer + 1 < len(self.first):
                z = second(z).relu_()
        return z

    def draw(self, x: Float[Tensor, "nodes channels"]) -> Float[Tensor, "nodes noise"]:
        """Noise for these nodes, in their precision."""
        shape = (x.size(0), self.noise_channels)
        if self.training or self.eval_seed is None:
            return torch.randn(shape, dtype=x.dtype, device=x.device)
        generator = torch.Generator(x.device).manual_seed(self.eval_seed)
        return torch.randn(shape, dtype=x.dtype, device=x.device, generator=generator)

    def _check(self, x: Tensor, edge_attr: Tensor | None, noise: Tensor | None) -> None:
        if x.dim() != 2 or x.size(1) != self.channels:
            raise ValueError(f"x must have shape [nodes, {self.channels}]; got {tuple(x.shape)}")
        if self.message_passing and bool(self.edges) != (edge_attr is not None):
            have = "was made with" if self.edges else "was made without"
            raise ValueError(f"this layer {have} edge features (edge_channels), the call does not fit")
        if noise is not None and tuple(noise.shape) != (x.size(0), self.noise_channels):
            raise ValueError(f"noise must have shape [{x.size(0)}, {self.noise_channels}]; got {tuple(noise.shape)}")

    def extra_repr(self) -> str:
        return f"{self.channels}, depth={len(self.first)}, noise_channels={self.noise_channels}"


def settled_noise(nodes: IndexSet, columns: int, *seed: int) -> Float[Tensor, "nodes columns"]:
    """Gaussian noise that follows from whole numbers: row i of one table for node i of every graph.

    So a graph gets the same in any batch; different seeds give independent tables.
    """
    most = int(nodes.sizes.max()) if nodes.graphs else 0
    # NumPy's stream: unlike PyTorch's, its first rows do not depend on how many follow.
    table = np.random.default_rng(seed).standard_normal((most, columns), dtype=np.float32)
    return torch.from_numpy(table).to(nodes.sizes.device)[nodes.local]
