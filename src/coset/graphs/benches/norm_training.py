"""Two small tasks that tell what a network with a given normalisation can learn: triangles, and degrees out of range.

- *counting*: triangles at the nodes of random 3-regular graphs. To message passing all nodes of such a graph are alike,
  so without noise the best that any normalisation allows is a constant for each size: the error stays at the variance.
- *shift*: degree of regular graphs, trained on degrees 2, 3 and 5, tested on 4 and 6. Statistics over a graph turn
  every regular graph into the same features.

Errors are mean squared errors on test graphs in units of the variance of the test targets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import networkx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from coset.graphs.benches.substructures import node_counts
from coset.graphs.data.collections import graph_from_adjacency
from coset.graphs.models.gin import GIN
from coset.runs.fit import descend

WIDTH, LAYERS, BATCH, LEARNING_RATE, DRAWS = 32, 3, 50, 3e-3, 16
INPUT_NOISE = "rnf-pe"
"""No normalisation but noise at the input, beside the names of :mod:`coset.graphs.models.norms`."""


class Study(NamedTuple):
    """A task.

    Attributes:
        graphs: Seed -> graphs to train on and to test on, with ``y``.
        level: Of the predictions: ``node`` or ``graph``.
        epochs: Passes over the training graphs.
    """

    graphs: Callable[[int], tuple[list[Data], list[Data]]]
    level: str
    epochs: int


def triangle_graphs(seed: int, count: int = 1000, held: int = 200) -> tuple[list[Data], list[Data]]:
    """Random 3-regular graphs with 10 to 16 nodes; ``y`` [nodes, 1] counts the triangles at each node."""
    generator = np.random.default_rng(seed)
    graphs = [_regular(3, int(generator.choice((10, 12, 14, 16))), generator) for _ in range(count)]
    for graph in graphs:
        graph.y = node_counts(graph, "cycle3").unsqueeze(1)
    return graphs[held:], graphs[:held]


def degree_graphs(seed: int, count: int = 300, held: int = 100) -> tuple[list[Data], list[Data]]:
    """Random regular graphs with 8 to 16 nodes; ``y`` [1, 1] is the degree: 2, 3, 5 to train on, 4, 6 to test on."""
    generator = np.random.default_rng(seed)
    return tuple(  # type: ignore[return-value]
        [
            _regular(int(generator.choice(degrees)), int(generator.choice((8, 10, 12, 14, 16))), generator)
            for _ in range(n)
        ]
        for degrees, n in (((2, 3, 5), count), ((4, 6), held))
    )


def _regular(degree: int, nodes: int, generator: np.random.Generator) -> Data:
    drawn = networkx.random_regular_graph(degree, nodes, seed=int(generator.integers(2**32)))
    graph = graph_from_adjacency(networkx.to_numpy_array(drawn, nodelist=range(nodes)) > 0)
    graph.y = torch.tensor([[float(degree)]])
    return graph


STUDIES = {"counting": Study(triangle_graphs, "node", 100), "shift": Study(degree_graphs, "graph", 60)}


def network(norm: str, level: str, seed: int) -> GIN:
    """A GIN on bare graphs with one of the normalisations, or with noise at its input."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"width": WIDTH, "layers": LAYERS, "level": level, "readout": "mean"}
    if norm == INPUT_NOISE:
        return GIN(norm="identity", input_noise=WIDTH, draws=DRAWS, **options)
    return GIN(norm=norm, inner_norm=False, draws=DRAWS if norm in ("granola", "rnf-norm") else 1, **options)


def relative_error(study: Study, norm: str, seed: int, epochs: int | None = None) -> tuple[float, float]:
    """Train with Adam and a cosine schedule on the squared error; the errors on training and on test graphs.

    The error on training graphs is in units of their own variance.
    """
    train, test = study.graphs(seed)
    model, epochs = network(norm, study.level, seed), epochs or study.epochs
    targets = torch.cat([graph.y for graph in train])
    mean, scale = targets.mean(), targets.std()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def loss(rows: Tensor) -> Tensor:
        batch = Batch.from_data_list([train[int(row)] for row in rows])
        return (model(batch) - (batch.y - mean) / scale).square().mean()

    for _ in range(epochs):
        descend(optimizer, loss, torch.randperm(len(train)).split(BATCH), clip=1.0)
        schedule.step()
    return _error(model.eval(), train, mean, scale), _error(model, test, mean, scale)


@torch.no_grad()
def _error(model: GIN, graphs: list[Data], mean: Tensor, scale: Tensor) -> float:
    batch = Batch.from_data_list(graphs)
    return float((model(batch) * scale + mean - batch.y).square().mean() / batch.y.var(correction=0))
