"""Normalisations of node features by name, all called alike: the static ones of PyG, and GRANOLA.

==================  ====================================================================================
``batch``           mean and deviation of a channel over all nodes of all graphs
``instance``        of a channel over the nodes of one graph
``layer-node``      of a node over its channels
``layer-graph``     of a graph over its nodes and channels
``graph``           GraphNorm: ``instance`` with a learnt share of the mean (Cai et al. 2021)
``graph-size``      divides by the square root of the number of nodes (Dwivedi et al. 2020)
``mean``            takes a graph's mean off (Yang et al. 2020)
``pair``            PairNorm: takes it off and fixes the total variance (Zhao, Akoglu 2020)
``layer``           ``layer-node`` as PyTorch has it
``group``           DiffGroupNorm: batch norms of ten soft groups of nodes (Zhou et al. 2020)
``identity``        nothing; also called ``none``
``granola``         :class:`coset.graphs.models.granola.GranolaNorm`
``granola-no-rnf``  the same without random features
``rnf-norm``        the same without message passing: noise, but no structure
==================  ====================================================================================

All take graphs as they come: one node (the statistics of a graph are then its node's own, so ``instance``, ``mean``
and ``pair`` give their shift, 0 unless learnt), no edges, loops and parallel edges (each counts), several components
(of one graph in the batch: one set of statistics), directed edges (messages follow the arrows), graphs without nodes
between others. In training ``batch`` and ``group`` need two nodes in the whole batch, and say so.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import norm as pyg

from coset.graphs.models.granola import GranolaNorm
from coset.nn.norms import NORMS, register_norm
from coset.relations import Relation

register_norm("instance", lambda channels: pyg.InstanceNorm(channels, affine=True), "graphs")
register_norm("layer-node", lambda channels: pyg.LayerNorm(channels, mode="node"))
register_norm("layer-graph", lambda channels: pyg.LayerNorm(channels, mode="graph"), "graphs")
register_norm("graph", pyg.GraphNorm, "graphs")
register_norm("graph-size", lambda channels: pyg.GraphSizeNorm(), "graphs")
register_norm("mean", lambda channels: pyg.MeanSubtractionNorm(), "graphs")
register_norm("pair", lambda channels: pyg.PairNorm(), "graphs")
register_norm("group", lambda channels: pyg.DiffGroupNorm(channels, 10), over_rows=True)
register_norm("granola", GranolaNorm, "edges")
register_norm("granola-no-rnf", lambda channels, **o: GranolaNorm(channels, **{**o, "noise_channels": 0}), "edges")
register_norm("rnf-norm", lambda channels, **o: GranolaNorm(channels, **{**o, "message_passing": False}), "edges")


class StaticNorm(nn.Module):
    """A normalisation that does not look at the edges."""

    def __init__(self, name: str, channels: int):
        super().__init__()
        self.norm = NORMS[name].build(channels)
        self.name, self.reads_batch = name, NORMS[name].reads == "graphs"
        self.reads_number = self.reads_batch and len(signature(self.norm.forward).parameters) > 2

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        edges: Relation | Int[Tensor, "2 edges"] | None,
        batch: Int[Tensor, " nodes"] | None,
        *,
        edge_attr: Tensor | None = None,
        edge_row: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Float[Tensor, "nodes channels"]:
        if not x.size(0):
            return x
        if NORMS[self.name].over_rows and self.training and x.size(0) < 2:
            raise ValueError(f"norm={self.name!r} takes statistics over nodes: a batch for training needs at least two")
        if not self.reads_batch:
            return self.norm(x)
        if self.reads_number and isinstance(edges, Relation):  # else it counts the graphs, which a GPU waits for
            return self.norm(x, batch, edges.target.graphs)
        return self.norm(x, batch)

    def reset_parameters(self) -> None:
        """Start anew."""
        _reset(self.norm)


class AdaptiveNorm(nn.Module):
    """A normalisation that reads the edges, such as GRANOLA, behind the call that all share."""

    def __init__(self, name: str, channels: int, **options: Any):
        super().__init__()
        self.norm = NORMS[name].build(channels, **options)

    @property
    def noise_channels(self) -> int:
        """Columns of noise that it reads; 0 for one without."""
        return int(getattr(self.norm, "noise_channels", 0))

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        edges: Relation | Int[Tensor, "2 edges"],
        batch: Int[Tensor, " nodes"] | None,
        *,
        edge_attr: Tensor | None = None,
        edge_row: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Float[Tensor, "nodes channels"]:
        return self.norm(x, edges, edge_attr=edge_attr, edge_row=edge_row, noise=noise)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        _reset(self.norm)


def _reset(norm: nn.Module) -> None:
    reset = getattr(norm, "reset_parameters", None)
    if callable(reset):
        reset()


def make_norm(name: str, channels: int, edge_channels: int | None = None, **granola: Any) -> StaticNorm | AdaptiveNorm:
    """A normalisation, called as ``norm(x, edges, batch, edge_attr=, edge_row=, noise=)``.

    Args:
        name: One of the table above.
        channels: Columns of the features.
        edge_channels: Columns of encoded edge features, for GRANOLA; the others do not read them.
        granola: ``depth``, ``noise_channels``, ``noise_scale``, ``init``, ``eval_seed`` of GRANOLA.

    Raises:
        ValueError: The name is unknown, or options were given to a norm that has none.
    """
    if name not in NORMS:
        raise ValueError(f"norm={name!r}: choose {', '.join(NORMS)}")
    if NORMS[name].reads != "edges":
        return StaticNorm(name, channels)
    return AdaptiveNorm(name, channels, edge_channels=edge_channels, **granola)
