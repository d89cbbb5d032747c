r"""MCN: all equivariant linear maps between features on tuples of cells. For small complexes.

Eitan et al., ICLR 2025. A multi-cellular cochain space C^k has features on tuples with k_r cells of rank r. The group
prod_r S_{n_r} permutes the cells of each rank, so the equivariant maps C^k -> C^l are products over r of the maps
between tuples of cells of rank r, and their number is prod_r Bell(k_r + l_r):

    L x = sum over products of partitions of the l_r + k_r places of w * (diagonals, means and copies)

Means take the place of sums over indices, so that features keep their size on larger complexes.

Complexes of a batch lie side by side, filled up with zeros to the largest number of cells of each rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from itertools import product as choices
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.graphs.models.options import GRAPH_MODELS
from coset.nn.norms import row_norm
from coset.relations.structure import Structure
from coset.symmetry import Claim, set_partitions
from coset.topology.data.batches import CellBatch
from coset.topology.models.homp import (
    CellEncoder,
    Cochains,
    Norm,
    Reduction,
    cell_claim,
    cell_readout,
)
from coset.topology.models.options import ComplexModel

Space = tuple[int, ...]
"""k: how many cells of each rank a tuple holds; axes come rank by rank."""

LARGEST = 6
PAIRS: tuple[tuple[int, int, int], ...] = ((1, 1, 0), (1, 0, 1), (0, 1, 1))


class MCNLinear(nn.Module):
    """The linear maps C^k -> C^l, with biases.

    Args:
        inputs: k.
        outputs: l, of as many ranks.
        channels_in: Columns in.
        channels_out: Columns out.
        bias: Add the equivariant constants, prod_r Bell(l_r) of them.

    Raises:
        ValueError: The multi-indices do not match or are too large.
    """

    def __init__(self, inputs: Space, outputs: Space, channels_in: int, channels_out: int, bias: bool = True):
        super().__init__()
        if len(inputs) != len(outputs):
            raise ValueError(f"k={inputs} and l={outputs} must count cells of the same ranks")
        if sum(inputs) + sum(outputs) > LARGEST:
            raise ValueError(f"k={inputs}, l={outputs}: more than {LARGEST} places together are too many maps")
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.patterns = _patterns(outputs, inputs)
        self.constants = _patterns(outputs, (0,) * len(outputs)) if bias else []
        self.weight = nn.Parameter(torch.empty(len(self.patterns), channels_in, channels_out))
        self.bias = nn.Parameter(torch.zeros(len(self.constants), channels_out)) if bias else None
        nn.init.normal_(self.weight, std=(len(self.patterns) * channels_in) ** -0.5)

    def forward(
        self, x: Float[Tensor, "*inputs channels"], sizes: Sequence[int]
    ) -> Float[Tensor, "*outputs channels_out"]:
        """Apply to one complex.

        Args:
            x: Axes of cells, rank by rank, then channels.
            sizes: Cells of each rank.
        """
        expected = [n for n, k in zip(sizes, self.inputs, strict=True) for _ in range(k)]
        if list(x.shape[:-1]) != expected:
            raise ValueError(f"x must have axes {expected} and channels; its shape is {tuple(x.shape)}")
        return self.batched(x.unsqueeze(0), x.new_tensor([list(sizes)]), sizes).squeeze(0)

    def batched(
        self, x: Float[Tensor, "complexes *inputs channels"], counts: Float[Tensor, "complexes ranks"],
        lengths: Sequence[int],
    ) -> Float[Tensor, "complexes *outputs channels_out"]:  # fmt: skip
        """Apply to several complexes.

        Args:
            x: Zero where a complex has no more cells.
            counts: Cells of each complex and rank, by which means are taken.
            lengths: Of the axes of each rank.

        Returns:
            What lies beyond the cells of a complex is not zero.
        """
        shape = [n for n, k in zip(lengths, self.outputs) for _ in range(k)]
        result = x.new_zeros(len(x), *shape, self.weight.size(2))
        for pattern, weight in zip(self.patterns, self.weight):
            result = result + _apply(pattern, self.outputs, self.inputs, x, counts, lengths, weight)
        if self.bias is not None:
            none = (0,) * len(self.outputs)
            for pattern, bias in zip(self.constants, self.bias):
                one = bias.expand(len(x), -1)
                result = result + _apply(pattern, self.outputs, none, one, counts, lengths)
        return result


class MCNLayer(nn.Module):
    """sigma(sum over input spaces k of L_{k -> l} H_k) for every output space l.

    Args:
        inputs: Channels of every input space.
        outputs: Channels of every output space.
    """

    def __init__(self, inputs: Mapping[Space, int], outputs: Mapping[Space, int]):
        super().__init__()
        self.outputs = dict(outputs)
        self.maps = nn.ModuleDict(
            {
                _name(source, target): MCNLinear(source, target, inputs[source], outputs[target], bias=i == 0)
                for target in outputs
                for i, source in enumerate(inputs)
            }
        )

    def forward(self, h: Mapping[Space, Tensor], sizes: Sequence[int]) -> dict[Space, Tensor]:
        counts = next(iter(h.values())).new_tensor([list(sizes)])
        found = self.batched({space: x.unsqueeze(0) for space, x in h.items()}, counts, sizes)
        return {target: x.squeeze(0).relu() for target, x in found.items()}

    def batched(
        self, h: Mapping[Space, Tensor], counts: Float[Tensor, "complexes ranks"], lengths: Sequence[int]
    ) -> dict[Space, Tensor]:
        """The sums before sigma, of several complexes: as :meth:`MCNLinear.batched`."""
        return {
            target: torch.stack([self._map(k, target).batched(x, counts, lengths) for k, x in h.items()]).sum(0)
            for target in self.outputs
        }

    def _map(self, source: Space, target: Space) -> MCNLinear:
        found = self.maps[_name(source, target)]
        assert isinstance(found, MCNLinear)
        return found


def equivariant_maps(inputs: Space, outputs: Space) -> int:
    """Dimension of the equivariant linear maps C^k -> C^l on large enough complexes: prod_r Bell(k_r + l_r)."""
    return len(_patterns(outputs, inputs))


def structure(sizes: Sequence[int], incidence: Mapping[tuple[int, int], Tensor]) -> dict[Space, Tensor]:
    """The incidence matrices of a complex as cochains of C^{e_low + e_high}, one channel."""
    ranks = range(len(sizes))
    found = {}
    for (low, high), index in incidence.items():
        matrix = torch.zeros(sizes[low], sizes[high], 1)
        matrix[index[0], index[1]] = 1
        found[tuple(int(rank in (low, high)) for rank in ranks)] = matrix
    return found


def _name(source: Space, target: Space) -> str:
    return f"{_word(source)}__{_word(target)}"


def _patterns(outputs: Space, inputs: Space) -> list[tuple[tuple[int, ...], ...]]:
    """One partition of the output and input places of every rank, in all ways."""
    return list(choices(*(list(set_partitions(out + into)) for out, into in zip(outputs, inputs))))


def _apply(
    pattern: tuple[tuple[int, ...], ...],
    outputs: Space,
    inputs: Space,
    x: Float[Tensor, "complexes *inputs channels"],
    counts: Float[Tensor, "complexes ranks"],
    lengths: Sequence[int],
    weight: Float[Tensor, "channels channels_out"] | None = None,
) -> Float[Tensor, "complexes *outputs channels_out"]:
    """Diagonals and means over input places, a linear map, copies and diagonals over output places."""
    batch, letters, given, wanted = 0, 1, list[int](), list[int]()
    rank_of: dict[int, int] = {}
    for rank, (partition, leading) in enumerate(zip(pattern, outputs)):
        names = {block: letters + i for i, block in enumerate(dict.fromkeys(partition))}
        letters += len(names)
        rank_of |= dict.fromkeys(names.values(), rank)
        wanted += [names[block] for block in partition[:leading]]
        given += [names[block] for block in partition[leading:]]
    kept = [name for name in dict.fromkeys(wanted) if name in given]
    y = torch.einsum(x, [batch, *given, letters], [batch, *kept, letters])
    summed = sorted(set(given) - set(kept))
    if summed:
        mean = counts[:, [rank_of[name] for name in summed]].prod(1).clamp(min=1).reciprocal()
        y = y * mean.reshape(-1, *[1] * (y.dim() - 1))
    y = y if weight is None else y @ weight
    blocks = list(dict.fromkeys(wanted))
    y = y.reshape(len(x), *(lengths[rank_of[b]] if b in kept else 1 for b in blocks), y.size(-1))
    y = y.expand(len(x), *(lengths[rank_of[b]] for b in blocks), y.size(-1))
    if len(blocks) == len(wanted):
        return y
    grids = torch.meshgrid(*(torch.arange(lengths[rank_of[b]], device=x.device) for b in blocks), indexing="ij")
    where: tuple[slice | Tensor, ...] = (slice(None), *(grids[blocks.index(name)] for name in wanted))
    result = y.new_zeros([len(x), *(lengths[rank_of[name]] for name in wanted), y.size(-1)])
    result[where] = y
    return result


class _Stack(Structure):
    """Complexes side by side: where their cells are, and which places are of cells.

    Args:
        cells: The batch.
    """

    def __init__(self, cells: CellBatch):
        self.cells = cells.cells
        ranks = range(len(self.cells))
        self.incidence = {pair: cells.incidence(*pair).index for pair in combinations(ranks, 2)}
        self._rows: dict[Space, Tensor] = {}
        self._matrices: dict[torch.dtype, dict[Space, Tensor]] = {}
        sizes = torch.stack([index.sizes for index in cells.cells], dim=1)
        self.sizes = sizes
        self.lengths = sizes.amax(0).tolist()
        self.of_rank = [
            torch.arange(length, device=sizes.device) < sizes[:, rank : rank + 1]
            for rank, length in enumerate(self.lengths)
        ]

    @classmethod
    def of(cls, cells: CellBatch) -> _Stack:
        """That of a batch, made once."""
        if cls not in cells.derived:
            cells.derived[cls] = cls(cells)
        return cells.derived[cls]

    def rows_of(self, space: Space) -> Int[Tensor, " tuples"]:
        """Which places of the padded axes, as one row of them, hold tuples of cells."""
        if space not in self._rows:
            self._rows[space] = self._places(space).flatten().nonzero().squeeze(1)
        return self._rows[space]

    def _places(self, space: Space) -> Bool[Tensor, "complexes ..."]:
        ranks = [rank for rank, k in enumerate(space) for _ in range(k)]
        found = torch.ones(len(self.sizes), *[1] * len(ranks), dtype=torch.bool, device=self.sizes.device)
        for axis, rank in enumerate(ranks):
            shape = [len(self.sizes), *[1] * len(ranks)]
            shape[axis + 1] = self.lengths[rank]
            found = found & self.of_rank[rank].reshape(shape)
        return found

    def stacked(self, h: Float[Tensor, "cells width"], rank: int) -> Float[Tensor, "complexes places width"]:
        """Rows of the cells of a rank, complex by complex."""
        index = self.cells[rank]
        result = h.new_zeros(len(self.sizes), self.lengths[rank], h.size(1))
        result[index.batch, index.local] = h
        return result

    def rows(self, x: Float[Tensor, "complexes places width"], rank: int) -> Float[Tensor, "cells width"]:
        """The rows of a rank again."""
        index = self.cells[rank]
        return x[index.batch, index.local]

    def structure(self, dtype: torch.dtype) -> dict[Space, Tensor]:
        """The incidence matrices of all pairs of ranks, one channel."""
        if dtype in self._matrices:
            return self._matrices[dtype]
        ranks, found = range(len(self.lengths)), {}
        for (low, high), index in self.incidence.items():
            first, second = self.cells[low], self.cells[high]
            matrix = torch.zeros(
                len(self.sizes), self.lengths[low], self.lengths[high], 1, dtype=dtype, device=index.device
            )
            matrix[first.batch[index[0]], first.local[index[0]], second.local[index[1]]] = 1
            found[tuple(int(rank in (low, high)) for rank in ranks)] = matrix
        self._matrices[dtype] = found
        return found


class MCNBlock(nn.Module):
    """ReLU(norm(sum over k of L_{k -> l} H_k)) for every space l, then dropout; incidence is among the inputs.

    Args:
        inputs: Channels of every input space, but for those of incidence.
        outputs: Output spaces.
        width: Channels of each of them.
        norm: Of the rows, a row a tuple.
        dropout: Probability.
    """

    def __init__(
        self, inputs: Mapping[Space, int], outputs: Sequence[Space], width: int, norm: Norm, dropout: float = 0.0
    ):
        super().__init__()
        read = dict(inputs)
        for space in _incidences(len(outputs[0])):
            read[space] = read.get(space, 0) + 1
        self.linear = MCNLayer(read, dict.fromkeys(outputs, width))
        self.norms = nn.ModuleDict({_word(space): row_norm(norm)(width) for space in outputs})
        self.dropout = dropout

    def settle(self, cells: CellBatch) -> None:
        """Work out what it asks of the cells (:mod:`coset.relations.structure`)."""
        stack = _Stack.of(cells)
        stack.structure(next(self.parameters()).dtype)
        for space in self.linear.outputs:
            stack.rows_of(space)

    def forward(self, h: Mapping[Space, Tensor], stack: _Stack) -> dict[Space, Tensor]:
        read = dict(h)
        for space, matrix in stack.structure(next(iter(h.values())).dtype).items():
            read[space] = torch.cat([read[space], matrix], dim=-1) if space in read else matrix
        counts = stack.sizes.to(next(iter(h.values())).dtype)
        result = {}
        for space, x in self.linear.batched(read, counts, stack.lengths).items():
            flat, places = x.flatten(0, -2), stack.rows_of(space)
            rows = self.norms[_word(space)](flat.index_select(0, places)).relu()
            rows = F.dropout(rows, self.dropout, self.training)
            result[space] = torch.zeros_like(flat).index_copy(0, places, rows).view_as(x)
        return result


class MCN(nn.Module):
    """Multi-cellular network: cells of each rank and tuples of cells, all linear maps between them, ReLU.

    Args:
        outputs: Columns out.
        features: Of each rank, as for :class:`coset.topology.CellEncoder`.
        width: Channels of every space.
        layers: How many.
        tuples: Spaces beside those of single cells.
        norm: ``batch``, ``layer`` or ``none``; of rows, a row a tuple.
        readout: ``sum`` or ``mean`` over the cells of each rank.
        dropout: After each layer and before the last map.
        rank: Predictions are of the cells of this rank; of whole complexes without.

    Raises:
        ValueError: A space counts other ranks, or is too large.
    """

    def __init__(
        self,
        outputs: int,
        features: Sequence[Sequence[int] | int | None] = (None, None, None),
        *,
        width: int = 16,
        layers: int = 3,
        tuples: Sequence[Space] = PAIRS,
        norm: Norm = "layer",
        readout: Reduction = "sum",
        dropout: float = 0.0,
        rank: int | None = None,
    ):
        super().__init__()
        self.single = [tuple(int(r == own) for r in range(len(features))) for own in range(len(features))]
        spaces = list(dict.fromkeys([*self.single, *map(tuple, tuples)]))
        self.encoder = CellEncoder(features, width)
        self.layers = nn.ModuleList(
            MCNBlock(
                dict.fromkeys(spaces if layer else self.single, width),
                spaces if layer < layers - 1 else self.single, width, norm, dropout,
            )
            for layer in range(layers)
        )  # fmt: skip
        self.readout = cell_readout(width, outputs, range(len(features)), readout, dropout, rank)

    def structure(self, data: Batch | Data) -> CellBatch:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return CellBatch.settled(data, self)

    def cochains(self, data: Batch | Data | CellBatch) -> Cochains:
        """Features of the cells of each rank after the last layer."""
        cells = CellBatch.of(data)
        stack = _Stack.of(cells)
        h = {space: stack.stacked(x, rank) for rank, (space, x) in enumerate(zip(self.single, self.encoder(cells)))}
        for layer in self.layers:
            h = layer(h, stack)
        return [stack.rows(h[space], rank) for rank, space in enumerate(self.single)]

    def forward(self, data: Batch | Data | CellBatch) -> Float[Tensor, "rows outputs"]:
        cells = CellBatch.of(data)
        return self.readout(self.cochains(cells), cells)

    def symmetry(self) -> tuple[Claim, ...]:
        return (cell_claim(self.readout),)


def _incidences(ranks: int) -> list[Space]:
    return [tuple(int(rank in pair) for rank in range(ranks)) for pair in combinations(range(ranks), 2)]


def _word(space: Space) -> str:
    return "_".join(map(str, space))


Count = Annotated[int, Field(ge=0, le=3)]


@GRAPH_MODELS.add
class MCNOptions(ComplexModel):
    """Options of :class:`MCN`."""

    makes: ClassVar[type[nn.Module]] = MCN
    whole: ClassVar[str] = "it has features of tuples of cells"
    squares: ClassVar[bool] = True

    name: Literal["mcn"] = "mcn"
    width: int = Field(16, ge=1, description="channels of each space of tuples")
    tuples: list[tuple[Count, Count, Count]] = Field(
        list(PAIRS), description="spaces beside single cells: how many vertices, edges and faces a tuple holds"
    )

    @field_validator("tuples")
    @classmethod
    def _few_places(cls, value: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        for space in value:
            if not 1 <= sum(space) <= LARGEST // 2:
                raise ValueError(f"{list(space)}: a tuple holds 1 to {LARGEST // 2} cells")
        return value
