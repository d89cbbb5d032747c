"""Groups of matrices: signs and bases of eigenspaces, GL(r) on low-rank factors, rotations of space.

Elements are drawn in float64 and cast to the value's dtype where they act.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from coset.symmetry.actions import Action
from coset.symmetry.node_permutations import node_counts

if TYPE_CHECKING:  # importing PyG takes longer than all of this
    from torch_geometric.data import Data


class _EigenvectorAction(Action):
    """What acts on columns of eigenvectors [..., n, k], or of that attribute of PyG data, for each graph apart."""

    attribute = "laplacian_eigenvectors"

    def _vectors(self, value: Tensor | Data) -> Float[Tensor, "... n k"]:
        if isinstance(value, Tensor):
            return value
        if self.attribute not in value:
            raise ValueError(f"{self.name}: the data has no {self.attribute}")
        return value[self.attribute]

    def _replaced(self, value: Tensor | Data, vectors: Tensor) -> Tensor | Data:
        if isinstance(value, Tensor):
            return vectors
        moved = copy.copy(value)
        moved[self.attribute] = vectors
        return moved

    def _per_row(self, value: Tensor | Data, element: Tensor) -> Tensor:
        """The element that acts on each row: one for all of a tensor, that of its graph for a node of PyG data."""
        vectors = self._vectors(value)
        element = element.to(vectors.device, vectors.dtype)
        if isinstance(value, Tensor):
            return element
        return element.repeat_interleave(node_counts(value).to(element.device), dim=0)


class SignFlip(_EigenvectorAction):
    """Z_2^k on eigenvectors [..., n, k]: an eigenvector is as good as its negative.

    An element holds the sign of each column: [k] for a tensor, [graphs, k] for PyG data, where it acts on
    ``attribute``.
    """

    name = "signs of eigenvectors"

    def __init__(self, attribute: str = "laplacian_eigenvectors"):
        self.attribute = attribute

    def _shape(self, value: Tensor | Data) -> tuple[int, ...]:
        columns = self._vectors(value).size(-1)
        return (columns,) if isinstance(value, Tensor) else (node_counts(value).numel(), columns)

    def sample(self, value: Tensor | Data, generator: torch.Generator) -> Float[Tensor, "*shape"]:
        return 1.0 - 2.0 * torch.randint(2, self._shape(value), generator=generator).double()

    def apply(self, element: Float[Tensor, "*shape"], value: Tensor | Data) -> Tensor | Data:
        return self._replaced(value, self._vectors(value) * self._per_row(value, element))

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g * h

    def inverse(self, g: Tensor) -> Tensor:
        return g

    def order(self, value: Tensor | Data) -> int:
        return 2 ** math.prod(self._shape(value))

    def elements(self, value: Tensor | Data) -> Iterator[Tensor]:
        shape = self._shape(value)
        for signs in itertools.product((1.0, -1.0), repeat=math.prod(shape)):
            yield torch.tensor(signs, dtype=torch.float64).reshape(shape)


class OrthogonalBasis(_EigenvectorAction):
    """O(m_1) x O(m_2) x ... on eigenvectors [..., n, k]: V -> V Q, with Q orthogonal within each eigenspace.

    Args:
        eigenvalues: Sorted eigenvalues, one a column; left out for PyG data, which carries ``eigenvalue_attribute``.
            Columns whose eigenvalue is NaN (padding) do not move.
        tolerance: Neighbours closer than this (times the largest magnitude, if above 1) are one eigenvalue.
        attribute: Eigenvectors of PyG data.
        eigenvalue_attribute: Eigenvalues of PyG data, [graphs, k].
    """

    name = "bases of eigenspaces"

    def __init__(
        self,
        eigenvalues: Float[Tensor, " k"] | None = None,
        *,
        tolerance: float = 1e-5,
        attribute: str = "laplacian_eigenvectors",
        eigenvalue_attribute: str = "laplacian_eigenvalues",
    ):
        self.eigenvalues, self.tolerance = eigenvalues, tolerance
        self.attribute, self.eigenvalue_attribute = attribute, eigenvalue_attribute

    def sample(self, value: Tensor | Data, generator: torch.Generator) -> Float[Tensor, "... k k"]:
        columns = self._vectors(value).size(-1)
        if not isinstance(value, Tensor):
            rows = value[self.eigenvalue_attribute].reshape(node_counts(value).numel(), columns)
            return torch.stack([self._rotation(row, generator) for row in rows])
        if self.eigenvalues is None:
            raise ValueError("OrthogonalBasis on a tensor needs eigenvalues=, one a column")
        if self.eigenvalues.numel() != columns:
            raise ValueError(f"OrthogonalBasis has {self.eigenvalues.numel()} eigenvalues for {columns} columns")
        return self._rotation(self.eigenvalues, generator)

    def _rotation(self, eigenvalues: Float[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, "k k"]:
        rotation = torch.eye(eigenvalues.numel(), dtype=torch.float64)
        start = 0
        for size in eigenspace_sizes(eigenvalues, self.tolerance):
            space = slice(start, start + size)
            if not eigenvalues[start].isnan():
                rotation[space, space] = random_orthogonal(size, generator)
            start += size
        return rotation

    def apply(self, element: Float[Tensor, "... k k"], value: Tensor | Data) -> Tensor | Data:
        rotation = self._per_row(value, element)
        return self._replaced(value, (self._vectors(value).unsqueeze(-2) @ rotation).squeeze(-2))

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return h @ g

    def inverse(self, g: Tensor) -> Tensor:
        return g.mT


class GeneralLinear(Action):
    """GL(r) on the factors of a low-rank matrix U V^T: (U, V) -> (U g, V g^-T), which leaves the product as it is.

    Values are pairs of U [..., n, r] and V [..., m, r]; leading axes (layers, examples) get elements of their own.

    Args:
        condition: Largest condition number of an element that is drawn; 1 draws from O(r) only.
    """

    name = "GL(r) on low-rank factors"

    def __init__(self, condition: float = 10.0):
        if condition < 1:
            raise ValueError(f"condition={condition}: a condition number is at least 1")
        self.condition = condition

    def sample(
        self, value: tuple[Float[Tensor, "... n r"], Float[Tensor, "... m r"]], generator: torch.Generator
    ) -> Float[Tensor, "... r r"]:
        u, v = value
        if u.shape[:-2] != v.shape[:-2] or u.size(-1) != v.size(-1):
            raise ValueError(f"{self.name}: U [..., n, r] and V [..., m, r]; got {tuple(u.shape)}, {tuple(v.shape)}")
        *lead, _, rank = u.shape
        spread = torch.rand(*lead, 1, rank, generator=generator, dtype=torch.float64) - 0.5
        left, right = (random_orthogonal(rank, generator, tuple(lead)) for _ in range(2))
        return left * (math.log(self.condition) * spread).exp() @ right

    def apply(
        self, element: Float[Tensor, "... r r"], value: tuple[Float[Tensor, "... n r"], Float[Tensor, "... m r"]]
    ) -> tuple[Float[Tensor, "... n r"], Float[Tensor, "... m r"]]:
        u, v = value
        g = element.to(u.device)
        return u @ g.to(u.dtype), v @ torch.linalg.inv(g).mT.to(v.dtype)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return h @ g

    def inverse(self, g: Tensor) -> Tensor:
        return torch.linalg.inv(g)


class Rotation3(Action):
    """SO(3), or O(3) with reflections, on points [..., 3]: x -> R x."""

    def __init__(self, reflections: bool = False):
        self.reflections = reflections
        self.name = "O(3) on points" if reflections else "SO(3) on points"

    def sample(self, value: Shaped[Tensor, "... 3"], generator: torch.Generator) -> Float[Tensor, "3 3"]:
        rotation = random_orthogonal(3, generator)
        return rotation if self.reflections else rotation * torch.linalg.det(rotation).sign()

    def apply(self, element: Float[Tensor, "3 3"], value: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        if value.size(-1) != 3:
            raise ValueError(f"{self.name}: the last axis holds x, y, z; got {tuple(value.shape)}")
        return value @ element.mT.to(value.device, value.dtype)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        return g.mT


def random_orthogonal(
    size: int, generator: torch.Generator, lead: tuple[int, ...] = ()
) -> Float[Tensor, "... size size"]:
    """Orthogonal matrices drawn from the uniform (Haar) measure on O(size), in float64.

    The factor Q of a Gaussian matrix is uniform once the signs of R's diagonal are fixed (Mezzadri 2007).
    """
    gaussian = torch.randn(*lead, size, size, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return q * signs.unsqueeze(-2)


def eigenspace_sizes(eigenvalues: Float[Tensor, " k"], tolerance: float) -> list[int]:
    """Multiplicities of sorted eigenvalues; each NaN counts apart."""
    if eigenvalues.numel() == 0:
        return []
    scale = max(1.0, float(eigenvalues.nan_to_num(0).abs().max()))
    # The negation is true next to NaN as well, so padding never joins a space.
    breaks: Bool[Tensor, " k-1"] = ~(eigenvalues.diff() <= tolerance * scale)
    edges = [0, *(breaks.nonzero().flatten() + 1).tolist(), eigenvalues.numel()]
    return [after - before for before, after in itertools.pairwise(edges)]
