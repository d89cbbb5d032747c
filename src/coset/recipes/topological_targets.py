"""Topological properties of real molecules, and of surfaces, as things to learn."""

from dataclasses import replace
from typing import Literal

import torch
from rich.progress import track
from torch_geometric.data import Data

from coset.graphs.datasets import GraphTable
from coset.topology import RingLift, betti_numbers, cross_diameter

Property = Literal["cross_diameter", "betti2"]


def ring_property(table: GraphTable, wanted: Property, longest: int, progress: bool = False) -> GraphTable:
    """The same molecules as bare graphs, atom and bond types hidden, with a property of their ring complex to predict.

    ``cross_diameter`` is the largest distance of an atom from a ring, ``betti2`` the second Betti number modulo 2.
    Molecules without rings are left out.

    Args:
        table: Molecules with splits.
        wanted: The property.
        longest: Atoms of the longest cycle that counts as a ring.
        progress: Show a progress bar.
    """
    lift = RingLift(longest)
    graphs: list[Data] = []
    number: dict[int, int] = {}
    for row, graph in enumerate(track(table.graphs, wanted, disable=not progress, transient=True)):
        complex_ = lift.complex(graph)
        if not complex_.cells[2]:
            continue
        value = cross_diameter(complex_) if wanted == "cross_diameter" else betti_numbers(complex_, 2)[2]
        number[row] = len(graphs)
        kept = {key: graph[key] for key in ("id", "smiles") if key in graph}
        y = torch.tensor([[float(value or 0)]])
        graphs.append(Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes, y=y, **kept))
    splits = {
        name: torch.tensor([number[row] for row in rows.tolist() if row in number], dtype=torch.long)
        for name, rows in table.splits.items()
    }
    left_out = len(table) - len(graphs)
    return replace(
        table, graphs=graphs, target_names=(wanted,), splits=splits, name=f"{wanted} of {table.name}",
        node_features=None, edge_features=None,
        notes=(*table.notes, f"{left_out} molecules without rings were left out"),
    )  # fmt: skip
