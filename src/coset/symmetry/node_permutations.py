"""Renumbering the nodes of PyG graphs: S_n, for each graph of a batch apart.

A renumbering is stored by its images: node v becomes sigma(v), (sigma x)(sigma v) = x(v), edge (u, v) becomes
(sigma u, sigma v) in the same column of ``edge_index``. Rows of pairs (root s, node v), flattened as s n + v, follow
both.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from coset.symmetry.actions import Action
from coset.symmetry.axes import all_permutations

if TYPE_CHECKING:  # importing PyG takes longer than all of this
    from torch_geometric.data import Data


@dataclass(frozen=True, eq=False)
class NodeRelabelling:
    """A permutation of the nodes of each graph of a batch.

    Attributes:
        images: New global number of every node.
        sizes: Nodes of each graph.
        roots: Sorted global numbers of the roots kept in the data it was drawn for; ``None`` if every node is a root.
        root_counts: Roots of each graph.
    """

    images: Int[Tensor, " nodes"]
    sizes: Int[Tensor, " graphs"]
    roots: Int[Tensor, " roots"] | None = None
    root_counts: Int[Tensor, " graphs"] | None = None

    def pair_images(self) -> Int[Tensor, " pairs"]:
        """New row of every pair (root, node).

        Roots stay sorted by number, so a kept root moves to the rank of its new number among the roots of its graph.
        """
        roots, counts = (
            (torch.arange(self.images.numel()), self.sizes) if self.roots is None else (self.roots, self.root_counts)
        )
        assert counts is not None
        moved = self.images[roots].argsort().argsort()  # graphs are contiguous: ranks of the batch are ranks in order
        graph_of_root = torch.repeat_interleave(torch.arange(counts.numel()), counts)
        width = self.sizes[graph_of_root]  # nodes paired with each root
        first_row = _starts(counts * self.sizes)[graph_of_root]
        rank = moved - _starts(counts)[graph_of_root]
        first_node = _starts(self.sizes)[graph_of_root]
        root = torch.repeat_interleave(torch.arange(roots.numel()), width)
        node = torch.arange(root.numel()) - _starts(width)[root] + first_node[root]
        return first_row[root] + rank[root] * width[root] + self.images[node] - first_node[root]


class _Relabelling(Action):
    """The algebra of renumberings, whatever they act on."""

    def compose(self, g: NodeRelabelling, h: NodeRelabelling) -> NodeRelabelling:
        return replace(h, images=g.images[h.images])

    def inverse(self, g: NodeRelabelling) -> NodeRelabelling:
        roots = None if g.roots is None else g.images[g.roots].sort().values
        return replace(g, images=g.images.argsort(), roots=roots)


class NodePermutation(_Relabelling):
    """S_n on the nodes of a PyG ``Data``, and S_n1 x S_n2 x ... on a ``Batch``.

    What moves: entries of ``edge_index`` and other ``*index*`` attributes (PyG's rule for node numbers;
    ``root_index`` is sorted again); rows of attributes with one row a node; rows of ``pair_*`` and other attributes
    with one row a pair (root, node). The order of edges, attributes with ``edge`` in their name, and everything else
    (targets of a graph, eigenvalues, strings) stays. Where sizes mislead, e.g. graph targets ``y`` [T] with as many
    entries as nodes, name the attribute:

    Args:
        nodes: Attributes with a row a node, whatever their size suggests.
        pairs: Attributes with a row a pair.
        fixed: Attributes that do not move.
    """

    name = "S_n on nodes"

    def __init__(self, *, nodes: Sequence[str] = (), pairs: Sequence[str] = (), fixed: Sequence[str] = ()):
        self.nodes, self.pairs, self.fixed = frozenset(nodes), frozenset(pairs), frozenset(fixed)

    def _identity(self, value: Data) -> NodeRelabelling:
        sizes = node_counts(value)
        images = torch.arange(int(sizes.sum()))
        if "root_index" not in value:
            return NodeRelabelling(images, sizes)
        counts = torch.as_tensor(value.num_roots if "num_roots" in value else value.root_index.numel())
        return NodeRelabelling(images, sizes, value.root_index.cpu(), counts.cpu().reshape(-1))

    def sample(self, value: Data, generator: torch.Generator) -> NodeRelabelling:
        identity = self._identity(value)
        shuffled = [torch.randperm(int(size), generator=generator) for size in identity.sizes]
        return replace(identity, images=_joined(shuffled, identity.sizes))

    def apply(self, element: NodeRelabelling, value: Data) -> Data:
        if not torch.equal(element.sizes, node_counts(value)):
            raise ValueError(
                f"{self.name}: renumbers {_brief(element.sizes)} nodes, the data has {_brief(node_counts(value))}"
            )
        here = replace(self._identity(value), images=element.images)
        # How rows of pairs move depends on the roots of this value, not on those of the value it was drawn for.
        pair_images = here.pair_images()
        moved = copy.copy(value)
        for key, attribute in value.to_dict().items():
            kind = self._kind(key, attribute, here.images.numel(), pair_images.numel())
            if kind == "numbers":
                numbers = here.images.to(attribute.device)[attribute]
                moved[key] = numbers.sort().values if key == "root_index" else numbers
            elif kind == "node":
                moved[key] = _rows(attribute, here.images, key)
            elif kind == "pair":
                moved[key] = _rows(attribute, pair_images, key)
        return moved

    def _kind(self, key: str, attribute: Any, nodes: int, pairs: int) -> str:
        if not isinstance(attribute, Tensor) or key in self.fixed or key in ("batch", "ptr", "num_roots"):
            return "fixed"
        if attribute.layout != torch.strided:
            raise ValueError(f"{self.name}: {key} is a sparse tensor; give the graph as edge_index")
        if key in self.nodes:
            return "node"
        if key in self.pairs or key.startswith("pair_"):
            return "pair"
        if "index" in key and not attribute.is_floating_point():
            return "numbers"
        if "edge" in key or attribute.dim() == 0:
            return "fixed"
        return {nodes: "node", pairs: "pair"}.get(attribute.size(0), "fixed")

    def order(self, value: Data) -> int:
        return math.prod(math.factorial(int(size)) for size in node_counts(value))

    def elements(self, value: Data) -> Iterator[NodeRelabelling]:
        identity = self._identity(value)
        for parts in itertools.product(*(all_permutations(int(size)) for size in identity.sizes)):
            yield replace(identity, images=_joined(parts, identity.sizes))


class NodeRowPermutation(_Relabelling):
    """What a renumbering of the nodes does to outputs with a row a node, [sum n, ...].

    Rows alone do not tell the graphs apart, so elements come from :class:`NodePermutation` on the inputs.
    """

    name = "S_n on node rows"

    def sample(self, value: Any, generator: torch.Generator) -> NodeRelabelling:
        raise ValueError(f"{self.name}: rows alone do not tell the graphs apart; draw elements with NodePermutation")

    def apply(self, element: NodeRelabelling, value: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "rows ..."]:
        return _rows(value, element.images, "the output")


class PairRowPermutation(NodeRowPermutation):
    """What a renumbering of the nodes does to outputs with a row a pair (root s, node v), [sum k n, ...].

    Every node is a root (k = n) unless the inputs kept some of them in ``root_index``.
    """

    name = "S_n on pair rows"

    def apply(self, element: NodeRelabelling, value: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "rows ..."]:
        return _rows(value, element.pair_images(), "the output")


def node_counts(value: Data) -> Int[Tensor, " graphs"]:
    """Number of nodes of each graph of PyG data, on the CPU."""
    if "ptr" in value:
        return value.ptr.diff().cpu()
    if "batch" in value and value.batch is not None:
        return torch.bincount(value.batch).cpu()
    if value.num_nodes is None:
        raise ValueError("the data does not tell its number of nodes: set num_nodes")
    return torch.tensor([value.num_nodes])


def _starts(sizes: Int[Tensor, " sets"]) -> Int[Tensor, " sets"]:
    return sizes.cumsum(0) - sizes


def _joined(parts: Sequence[Int[Tensor, " _n"]], sizes: Int[Tensor, " graphs"]) -> Int[Tensor, " nodes"]:
    """Permutations of the graphs as one of the batch."""
    starts = _starts(sizes).tolist()
    return torch.cat([part + start for part, start in zip(parts, starts, strict=True)] or [sizes.new_zeros(0)])


def _rows(rows: Tensor, images: Int[Tensor, " rows"], what: str) -> Tensor:
    if rows.dim() == 0 or rows.size(0) != images.numel():
        raise ValueError(f"{what} should have {images.numel()} rows to renumber; its shape is {tuple(rows.shape)}")
    return rows.index_select(0, images.argsort().to(rows.device))


def _brief(sizes: Int[Tensor, " graphs"]) -> str:
    listed = ", ".join(str(int(size)) for size in sizes[:6])
    return f"[{listed}{', ...' if sizes.numel() > 6 else ''}]"
