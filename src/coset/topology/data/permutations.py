"""S_n0 x S_n1 x ...: independent permutations of the cells of each rank, and what they do to complexes and features."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch_geometric.data import Data

from coset.symmetry import Action
from coset.topology.data.batches import CellBatch, feature_rank, incidence_ranks, marking_ranks


@dataclass(frozen=True)
class CellRelabelling:
    """images[rank][i] is the new number of cell i of a rank; ``cells`` says which cells belong together."""

    images: list[Int[Tensor, " _cells"]]
    cells: CellBatch

    def pair_images(self, first: int, second: int) -> Int[Tensor, " pairs"]:
        """The new row of every pair (x, s)."""
        product = self.cells.pairs(first, second)
        x, s = product.coordinates
        return product.rows(self.images[first][x], self.images[second][s])


class CellPermutation(Action):
    """Independent permutations of the cells of each rank of :class:`ComplexData` (or of a batch, within complexes).

    Incidence, features ``x``, ``x_1``, ..., ``edge_index`` and marks of pairs move; everything else stays.
    """

    name = "S_n0 x S_n1 x ... on cells"

    def sample(self, value: Data, generator: torch.Generator) -> CellRelabelling:
        cells = CellBatch(value)
        images = []
        for index in cells.cells:
            keys = torch.rand(index.total, generator=generator, dtype=torch.float64) + index.batch.cpu()
            images.append(keys.argsort().argsort())
        return CellRelabelling(images, cells)

    def apply(self, element: CellRelabelling, value: Data) -> Data:
        moved = copy.copy(value)
        for key, attribute in value.to_dict().items():
            if not isinstance(attribute, Tensor):
                continue
            between, rank, marked = incidence_ranks(key), feature_rank(key), marking_ranks(key)
            if between is not None:
                low, high = between
                moved[key] = torch.stack([element.images[low][attribute[0]], element.images[high][attribute[1]]])
            elif key == "edge_index":
                moved[key] = element.images[0][attribute]
            elif rank is not None:
                moved[key] = attribute[element.images[rank].argsort()]
            elif marked is not None:
                moved[key] = attribute[element.pair_images(*marked).argsort()]
        return moved

    def compose(self, g: CellRelabelling, h: CellRelabelling) -> CellRelabelling:
        return CellRelabelling([a[b] for a, b in zip(g.images, h.images, strict=True)], h.cells)

    def inverse(self, g: CellRelabelling) -> CellRelabelling:
        return CellRelabelling([images.argsort() for images in g.images], g.cells)


class CochainPermutation(CellPermutation):
    """What :class:`CellPermutation` does to rows of features: of cells (one rank) or of pairs of cells (two).

    Args:
        ranks: ``(r,)`` for a row a cell of rank r, ``(r1, r2)`` for a row a pair.
    """

    def __init__(self, *ranks: int):
        self.ranks = ranks
        self.name = (
            f"S_n on rows of {'pairs of ' if len(ranks) > 1 else ''}cells of rank {' and '.join(map(str, ranks))}"
        )

    def sample(self, value: Any, generator: torch.Generator) -> CellRelabelling:
        raise ValueError(f"{self.name}: rows alone do not tell the complexes apart; draw elements with CellPermutation")

    def apply(self, element: CellRelabelling, value: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "rows ..."]:
        images = element.images[self.ranks[0]] if len(self.ranks) == 1 else element.pair_images(*self.ranks)
        return value[images.argsort().to(value.device)]
