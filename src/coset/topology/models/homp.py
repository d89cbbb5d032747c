r"""HOMP: higher-order message passing on complexes, with CIN as the reference instance.

Hajij et al. 2023; Bodnar et al., "Weisfeiler and Lehman Go Cellular" (CIN), NeurIPS 2021; as analysed in Eitan et al.,
"Topological Blindspots", ICLR 2025. Group: independent permutations of the cells of each rank.

    GIN over incidence B (from rank s to rank t):      MLP((1 + eps) h_x + sum_{y in B(x)} h_y)
    GIN over neighbours A_{r,b} with bridge cells z:   MLP((1 + eps) h_x + sum_{(x', z)} ReLU(W [h_x' | h_z] + c))

and a cell takes Linear - norm - ReLU of what all its neighbourhoods bring, side by side. Cells of higher rank see the
lower ranks already updated, as in CIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from coset.core.errors import check_choice
from coset.graphs.models.options import GRAPH_MODELS
from coset.nn import FeatureEncoder
from coset.nn.norms import row_norm
from coset.relations import pool, propagate
from coset.symmetry import Claim, TrivialAction
from coset.topology.data.batches import CellBatch
from coset.topology.data.permutations import CellPermutation, CochainPermutation
from coset.topology.models.options import ComplexModel

Cochains = list[Tensor]
"""Features of the cells of each rank, [cells, width]."""

Norm = str
"""Name of a norm that reads rows alone: :func:`coset.nn.norms.row_norm`."""
Reduction = Literal["sum", "mean"]


class Neighbourhood(NamedTuple):
    """Who a cell of rank ``target`` hears: incident cells of rank ``source``, or, if ``bridge`` is given, cells of its
    own rank that share one of rank ``bridge`` with it (adjacent if that is higher, co-adjacent if lower)."""

    target: int
    source: int
    bridge: int | None = None


def natural_neighbourhoods(top: int) -> tuple[Neighbourhood, ...]:
    """All incidences, adjacencies and co-adjacencies of ranks up to ``top``."""
    ranks = range(top + 1)
    incidences = [Neighbourhood(t, s) for t in ranks for s in ranks if s != t]
    return (*incidences, *(Neighbourhood(t, t, b) for t in ranks for b in ranks if b != t))


CIN = (Neighbourhood(0, 0, 1), Neighbourhood(1, 0), Neighbourhood(1, 1, 2), Neighbourhood(2, 1))
"""A_{0,1}, B_{0,1}, A_{1,2}, B_{1,2}: the neighbourhoods of CIN."""


def dense(inputs: int, outputs: int, norm: Norm, layers: int = 1) -> nn.Sequential:
    """(Linear - norm - ReLU), ``layers`` times."""
    parts: list[nn.Module] = []
    for layer in range(layers):
        parts += [nn.Linear(inputs if layer == 0 else outputs, outputs), row_norm(norm)(outputs), nn.ReLU()]
    return nn.Sequential(*parts)


class OwnWeight(nn.Module):
    """(1 + eps) x: how much a cell's own features count beside those it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        return (1 + self.eps) * x


class NeighbourhoodConv(nn.Module):
    """GIN over one neighbourhood, with the features of bridge cells in its messages."""

    def __init__(self, neighbourhood: Neighbourhood, width: int, norm: Norm = "layer", use_bridge: bool = True):
        super().__init__()
        self.neighbourhood = neighbourhood
        self.own = OwnWeight()
        self.mlp = dense(width, width, norm, layers=2)
        bridged = neighbourhood.bridge is not None and use_bridge
        # W [h_x' | h_z] + c is split in two: once per cell and once per bridge instead of once per message.
        self.message = nn.Linear(width, width, bias=False) if bridged else None
        self.bridge = nn.Linear(width, width) if bridged else None

    def settle(self, cells: CellBatch) -> None:
        """Work out what it asks of the cells (:mod:`coset.relations.structure`)."""
        target, source, between = self.neighbourhood
        there = cells.incident(source=source, target=target) if between is None else cells.neighbours(target, between)
        there.relation.settle()

    def forward(self, h: Cochains, cells: CellBatch) -> Float[Tensor, "cells width"]:
        target, source, between = self.neighbourhood
        if between is None:
            total = propagate(h[source], cells.incident(source=source, target=target).relation)
        else:
            relation, bridge = cells.neighbours(target, between)
            if self.message is None or self.bridge is None:
                total = propagate(h[source], relation)
            else:
                edge = self.bridge(h[between])[bridge]
                total = propagate(self.message(h[source]), relation, edge=edge, relu=True)
        return self.mlp(self.own(h[target]) + total)


class HOMPLayer(nn.Module):
    """One round of message passing over some neighbourhoods; ranks that none of them reaches keep their features.

    Args:
        width: Columns of all features.
        neighbourhoods: Who hears whom.
        norm: ``batch``, ``layer`` or ``none``.
        use_bridge: Features of the cells between neighbours enter the messages.
        dropout: Of the updated features.
    """

    def __init__(
        self,
        width: int,
        neighbourhoods: Sequence[Neighbourhood] = CIN,
        norm: Norm = "layer",
        use_bridge: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.targets = sorted({n.target for n in neighbourhoods})
        heard = [[n for n in neighbourhoods if n.target == rank] for rank in self.targets]
        self.convs = nn.ModuleList(
            nn.ModuleList(NeighbourhoodConv(n, width, norm, use_bridge) for n in group) for group in heard
        )
        self.heads = nn.ModuleList(dense(len(group) * width, width, norm) for group in heard)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Cochains, cells: CellBatch) -> Cochains:
        h = list(h)
        for rank, convs, head in zip(self.targets, self.convs, self.heads):
            assert isinstance(convs, nn.ModuleList)
            brought = [conv(h, cells) for conv in convs]
            h[rank] = self.dropout(head(torch.cat(brought, dim=1)))
        return h


class CellEncoder(nn.Module):
    """Features of each rank to one width: tables or linear maps where there are features; otherwise one learned row for
    vertices and edges, and for cells of rank 2 and above the sum over their vertices.

    Args:
        features: Of each rank, as for :class:`coset.nn.FeatureEncoder`; ``None`` where there are none.
        width: Columns out.
    """

    def __init__(self, features: Sequence[Sequence[int] | int | None], width: int):
        super().__init__()
        self.features = tuple(features)
        self.encoders = nn.ModuleList(
            FeatureEncoder(f, width) if f is not None else (nn.Embedding(1, width) if rank < 2 else nn.Identity())
            for rank, f in enumerate(self.features)
        )

    def settle(self, cells: CellBatch) -> None:
        """Work out what it asks of the cells (:mod:`coset.relations.structure`)."""
        for rank, features in enumerate(self.features):
            if features is None and 2 <= rank <= cells.top:
                cells.incidence(0, rank).settle()

    def forward(self, cells: CellBatch) -> Cochains:
        if cells.top + 1 != len(self.features):
            raise ValueError(f"this model was made for ranks 0 to {len(self.features) - 1}; got 0 to {cells.top}")
        h: Cochains = []
        for rank, (features, encoder) in enumerate(zip(self.features, self.encoders)):
            key = "x" if rank == 0 else f"x_{rank}"
            if features is not None:
                if key not in cells.data or cells.data[key] is None:
                    raise ValueError(f"this model was made with features of rank {rank}, but the data has no {key}")
                h.append(encoder(cells.data[key]))
            elif rank < 2:
                h.append(encoder(cells.cells[rank].sizes.new_zeros(cells.cells[rank].total)))
            else:
                h.append(propagate(h[0], cells.incidence(0, rank)))
        return h


class CellReadout(nn.Module):
    """Pool each rank, Linear - ReLU to twice the width, add the ranks up, and a last linear map."""

    def __init__(self, width: int, outputs: int, ranks: Sequence[int], reduce: Reduction = "sum", dropout: float = 0.0):
        super().__init__()
        check_choice("readout", reduce, ("sum", "mean"))
        self.ranks, self.reduce = tuple(ranks), reduce
        self.maps = nn.ModuleList(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU()) for _ in self.ranks)
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, outputs))

    def forward(self, h: Cochains, cells: CellBatch) -> Float[Tensor, "complexes outputs"]:
        pooled = [layer(pool(h[rank], cells.cells[rank], self.reduce)) for rank, layer in zip(self.ranks, self.maps)]
        return self.last(torch.stack(pooled).sum(0))


class RankHead(nn.Module):
    """Predictions for every cell of one rank: Linear - ReLU to twice the width, and a last linear map."""

    def __init__(self, width: int, outputs: int, rank: int, dropout: float = 0.0):
        super().__init__()
        self.rank = rank
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, outputs)
        )

    def forward(self, h: Cochains, cells: CellBatch) -> Float[Tensor, "cells outputs"]:
        return self.layers(h[self.rank])


def cell_readout(
    width: int, outputs: int, ranks: Sequence[int], reduce: Reduction, dropout: float, rank: int | None
) -> CellReadout | RankHead:
    """What ends a network on complexes: predictions for all of these ranks at once, or for every cell of one."""
    whole = CellReadout(width, outputs, ranks, reduce, dropout)
    return whole if rank is None else RankHead(width, outputs, rank, dropout)


def cell_claim(readout: nn.Module) -> Claim:
    """What renumbering the cells does to the predictions that a readout gives."""
    if isinstance(readout, RankHead):
        statement = f"renumbering the cells of each rank renumbers the rows of rank {readout.rank}"
        return Claim(CellPermutation(), CochainPermutation(readout.rank), statement)
    return Claim(CellPermutation(), TrivialAction(), "renumbering the cells of each rank changes no prediction")


class HOMP(nn.Module):
    """A HOMP network: encoder, layers, readout over all ranks.

    Args:
        outputs: Columns out.
        features: Of each rank, as for :class:`CellEncoder`; their number fixes the ranks.
        width: Columns of the features.
        layers: Rounds of message passing.
        neighbourhoods: Who hears whom; those of CIN by default.
        norm: ``batch``, ``layer`` or ``none``.
        readout: ``sum`` or ``mean``.
        dropout: After each layer and before the last map.
        rank: Predictions are of the cells of this rank; of whole complexes without.
    """

    def __init__(
        self,
        outputs: int,
        features: Sequence[Sequence[int] | int | None] = (None, None, None),
        *,
        width: int = 64,
        layers: int = 3,
        neighbourhoods: Sequence[Neighbourhood] = CIN,
        norm: Norm = "layer",
        readout: Reduction = "sum",
        dropout: float = 0.0,
        rank: int | None = None,
    ):
        super().__init__()
        self.encoder = CellEncoder(features, width)
        self.layers = nn.ModuleList(HOMPLayer(width, neighbourhoods, norm, dropout=dropout) for _ in range(layers))
        self.readout = cell_readout(width, outputs, range(len(features)), readout, dropout, rank)

    def structure(self, data: Batch | Data) -> CellBatch:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return CellBatch.settled(data, self)

    def cochains(self, data: Batch | Data | CellBatch) -> Cochains:
        """Features of the cells of each rank after the last layer."""
        cells = CellBatch.of(data)
        h = self.encoder(cells)
        for layer in self.layers:
            h = layer(h, cells)
        return h

    def forward(self, data: Batch | Data | CellBatch) -> Float[Tensor, "rows outputs"]:
        cells = CellBatch.of(data)
        return self.readout(self.cochains(cells), cells)

    def symmetry(self) -> tuple[Claim, ...]:
        return (cell_claim(self.readout),)


@GRAPH_MODELS.add
class HOMPOptions(ComplexModel):
    """Options of :class:`HOMP`."""

    makes: ClassVar[type[nn.Module]] = HOMP

    name: Literal["homp"] = "homp"
