"""Layers on complexes: SMCN's bag, subcomplex layer and pools, and the CIN block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from coset import topology
from coset.relations import marginalise
from coset.topology import SCL, to_data
from coset.topology.data.batches import CellBatch
from coset.topology.data.complexes import Complex
from coset.topology.models.smcn import BagInit

from .differences import Differences, absolute_error
from .reading import ParityFile

RANKS = 3
SIDES = {"left": 1, "right": 0}  # the official names of the cells that are left, and the axis that is summed over


def subcomplex_layer(file: ParityFile, found: Differences) -> None:
    """Bag, layer and pools, one complex at a time: the official broadcast takes wrong rows on batches."""
    a = file.arguments
    bag = BagInit(a["width"], a["ranks"], a["marking"], a["norm"])
    layer = SCL(**{key: value for key, value in a.items() if key != "marking"})
    model = file.load(nn.ModuleDict({"bag": bag, "layer": layer}))
    losses = [_one_complex(file, found, j, bag, layer) for j in range(int(file.input("complexes")))]
    loss = torch.stack(losses).sum()
    found.compare("loss", loss, file.official("loss"))
    loss.backward()
    found.gradients(model)
    found.running_statistics(model)


def _one_complex(file: ParityFile, found: Differences, j: int, bag: BagInit, layer: SCL) -> Tensor:
    cells, h = CellBatch.of(complex_data(file, j)), features(file, j)
    pairs = file.input(f"{j}/pairs").requires_grad_()
    product = cells.pairs(*bag.ranks)
    found.compare("marks", bag._marks(cells, product).double(), file.official(f"{j}/marks").double())
    first, y = bag(h, cells), layer(pairs, h, cells)
    found.compare("layers", first, file.official(f"{j}/bag"))
    found.compare("output", y, file.official(f"{j}/layer"))
    for side, along in SIDES.items():
        for reduce in ("sum", "mean"):
            pooled = marginalise(pairs, product, along=along, reduce=reduce)
            found.compare("pools", pooled, file.official(f"{j}/pool_{side}_{reduce}"))
    loss = absolute_error(first, file.input(f"{j}/t_bag")) + absolute_error(y, file.input(f"{j}/t_layer"))
    (slope,) = torch.autograd.grad(loss, pairs, retain_graph=True)
    found.compare("gradients", slope, file.official(f"{j}/grad_pairs"))
    return loss


def cin_block(file: ParityFile, found: Differences) -> None:
    """All complexes in one batch."""
    model = file.load(getattr(topology, file.class_name)(**file.arguments))
    count = range(int(file.input("complexes")))
    cells = CellBatch.of(Batch.from_data_list([complex_data(file, j) for j in count]))
    h = model([torch.cat(rank) for rank in zip(*(features(file, j) for j in count), strict=True)], cells)
    for r in range(RANKS):
        found.compare("output", h[r], file.official(f"rank_{r}"))
    loss = torch.stack([absolute_error(h[r], file.input(f"t_{r}")) for r in range(RANKS)]).sum()
    found.compare("loss", loss, file.official("loss"))
    loss.backward()
    found.gradients(model)
    found.running_statistics(model)


def complex_data(file: ParityFile, j: int) -> Data:
    """Complex j, incidence by inclusion."""
    cells = {1: [tuple(cell) for cell in file.input(f"{j}/cells_1").tolist()]}
    sizes = file.input(f"{j}/sizes_2").tolist()
    if sizes:
        cells[2] = [tuple(cell.tolist()) for cell in file.input(f"{j}/cells_2").split(sizes)]
    return to_data(Complex(int(file.input(f"{j}/vertices")), cells, "combinatorial"), ranks=RANKS)


def features(file: ParityFile, j: int) -> list[Tensor]:
    return [file.input(f"{j}/x_{r}") for r in range(RANKS)]


FAMILIES = {"scl": subcomplex_layer, "cin": cin_block}
