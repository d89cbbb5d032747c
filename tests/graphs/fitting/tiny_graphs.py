"""A small network and small graphs that tests of training share; importable by the processes that they start."""

import torch
from torch import nn
from torch_geometric.data import Data

from coset.graphs.fitting.tasks import GraphTask


class TinyNetwork(nn.Module):
    """One round of message passing without batch statistics: a process sees of a batch nothing but its own graphs."""

    def __init__(self, outputs=1, dropout=0.0):
        super().__init__()
        self.first, self.second, self.dropout = nn.Linear(2, 16), nn.Linear(16, outputs), nn.Dropout(dropout)

    def forward(self, batch):
        x = self.first(batch.x).relu()
        x = x + torch.zeros_like(x).index_add(0, batch.edge_index[1], x[batch.edge_index[0]])
        pooled = x.new_zeros(batch.num_graphs, 16).index_add(0, batch.batch, self.dropout(x))
        return self.second(pooled)


def tiny_graphs(count=23, targets=1, missing=0.0, seed=0):
    """Rings of 3 to 6 nodes with random features; the target is a sum over nodes, far from 0 and widely spread."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for row in range(count):
        n = 3 + row % 4
        ring = torch.arange(n)
        edges = torch.stack([torch.cat([ring, (ring + 1) % n]), torch.cat([(ring + 1) % n, ring])])
        x = torch.randn(n, 2, generator=generator)
        y = 100 + 50 * x.sum(0)[:1].repeat(targets).view(1, -1)
        y[torch.rand(y.shape, generator=generator) < missing] = torch.nan
        graphs.append(Data(x=x, edge_index=edges, y=y, id=str(row)))
    return graphs


def tiny_task(graphs, task="regression", dropout=0.0, monitor="mae", kind=GraphTask, **options):
    """A task on these graphs, from one seed."""
    torch.manual_seed(0)
    targets = torch.cat([graph.y for graph in graphs])
    network = TinyNetwork(targets.size(1), dropout)
    return kind(network, task, targets, monitor=monitor, learning_rate=options.pop("learning_rate", 0.01), **options)
