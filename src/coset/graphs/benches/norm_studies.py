"""What normalisations do to random networks: graphs told apart by the law of the noise, and features over depth.

- *separation*: pairs of graphs that message passing cannot tell apart (a hexagon and two triangles; circulant graphs
  C(41; 1, 2) and C(41; 1, 3)), one random GRANOLA layer on constant features, mean of ReLU over the nodes: the largest
  two-sample z over the channels, over many draws of the noise. Of two independent sets of draws of one graph it is that
  of chance.
- *depth*: Dirichlet energy of features and the share of dead channels in a random GIN of 16 layers.
"""

from __future__ import annotations

from typing import Any

import networkx
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from coset.graphs.data.collections import graph_from_adjacency
from coset.graphs.models.granola import GranolaNorm
from coset.graphs.models.norms import make_norm
from coset.nn import MLP
from coset.relations import IndexSet, Relation, propagate

CHANNELS, CHUNK = 16, 500
WIDTH, LAYERS, SHOWN = 32, 16, (1, 2, 4, 8, 16)


def pairs() -> dict[str, tuple[Data, Data]]:
    """Pairs that 1-WL cannot tell apart."""
    triangle = networkx.cycle_graph(3)
    return {
        "C6, 2 C3": (_data(networkx.cycle_graph(6)), _data(networkx.disjoint_union(triangle, triangle))),
        "C(41; 1, 2), C(41; 1, 3)": tuple(_data(networkx.circulant_graph(41, [1, k])) for k in (2, 3)),
    }


@torch.no_grad()
def separation(first: Data, second: Data, noise: bool, depth: int, draws: int = 4000, seed: int = 0) -> float:
    """Largest |difference of means| / standard error over the channels; 0 if the outputs are equal constants."""
    torch.manual_seed(seed)
    norm = GranolaNorm(
        CHANNELS, depth=depth, noise_channels=None if noise else 0, init="paper", eval_seed=None
    ).double()
    a, b = (_pooled(norm, graph, draws) for graph in (first, second))
    gap = (a.mean(0) - b.mean(0)).abs()
    error = ((a.var(0) + b.var(0)) / draws).sqrt()
    return float(torch.where(gap < 1e-12, torch.zeros_like(gap), gap / error.clamp(min=1e-15)).max())


def _pooled(norm: nn.Module, graph: Data, draws: int) -> Tensor:
    """One row a draw."""
    rows = []
    for first in range(0, draws, CHUNK):
        copies = min(CHUNK, draws - first)
        batch = Batch.from_data_list([graph] * copies)
        x = torch.ones(batch.num_nodes, CHANNELS, dtype=torch.float64)
        rows.append(norm(x, batch.edge_index).relu().view(copies, -1, CHANNELS).mean(1))
    return torch.cat(rows)


@torch.no_grad()
def depth_profile(name: str, seed: int = 0) -> list[dict[str, Any]]:
    """Dirichlet energy, and share of channels that are zero at every node, after some of the layers.

    Twenty Erdős-Rényi graphs with 20 nodes and edge probability 0.2, Gaussian input, training mode.
    """
    graphs = [_data(networkx.gnp_random_graph(20, 0.2, seed=k)) for k in range(20)]
    batch = Batch.from_data_list(graphs)
    nodes = IndexSet(batch.ptr.diff())
    relation = Relation(nodes, nodes, batch.edge_index)
    torch.manual_seed(seed)
    x = torch.randn(nodes.total, WIDTH, dtype=torch.float64)
    mlps = [MLP(WIDTH, WIDTH, norm=nn.Identity).double() for _ in range(LAYERS)]  # the same for every norm
    rows = []
    for layer, mlp in enumerate(mlps, start=1):
        x = make_norm(name, WIDTH).double()(mlp(x + propagate(x, relation)), relation, nodes.batch).relu()
        if layer in SHOWN:
            energy = float(dirichlet_energy(x, batch.edge_index))
            dead = float((x == 0).all(0).double().mean())
            rows.append({"norm": name, "layer": layer, "energy": energy, "dead": dead, "size": float(x.abs().max())})
    return rows


def dirichlet_energy(x: Tensor, edge_index: Tensor) -> Tensor:
    """Sum over undirected edges of |x_i - x_j|^2, divided by the sum over nodes of |x_i|^2; 0 for x = 0.

    Args:
        x: Features [nodes, channels].
        edge_index: Every edge in both directions.
    """
    difference = (x[edge_index[0]] - x[edge_index[1]]).square().sum() / 2
    return difference / x.square().sum().clamp(min=torch.finfo(x.dtype).tiny)


def _data(graph: networkx.Graph) -> Data:
    return graph_from_adjacency(networkx.to_numpy_array(graph) > 0)
