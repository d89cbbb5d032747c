r"""What a graph's matrices say about pairs of nodes, free of any choice of eigenvectors.

Zhang, Zhao, Maron, "On the Expressive Power of Spectral Invariant Graph Neural Networks", ICML 2024. A symmetric
matrix M of a graph is sum_lambda lambda P_lambda over its *distinct* eigenvalues, with P_lambda = V_lambda V_lambda^T.
Group: S_n on the nodes, and O(dim V_lambda) on the basis of every eigenspace, under which P_lambda does not move. So
any function phi of the matrix, phi(M)(u, v) = sum_lambda phi(lambda) P_lambda(u, v), is an invariant of the pair
(u, v), and needs no grouping of eigenvalues: it equals V diag(phi(lambda)) V^T over all n eigenpairs, because equal
eigenvalues get equal phi. The distances below are such functions:

    resistance^2 = sum_{lambda>0} 1/lambda   [P(u,u) + P(v,v) - 2 P(u,v)]   of L (biharmonic: 1/lambda^2)
    diffusion^2  = sum exp(-2 t lambda)      [P(u,u) + P(v,v) - 2 P(u,v)]   of L
    walks        = sqrt(d_v / d_u) sum phi(mu) P(u,v)                       of D^-1/2 A D^-1/2

where resistance^2 stands for the resistance distance itself, the square of a Euclidean distance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_geometric.data import Data

from coset.core.errors import CosetError

MATRICES = ("adjacency", "laplacian", "normalized")


def graph_matrix(weights: Float[Tensor, "... n n"], matrix: str = "normalized") -> Float[Tensor, "... n n"]:
    """A, D - A or D^(-1/2) A D^(-1/2) in float64. Isolated nodes have zero rows in all three.

    Args:
        weights: Symmetric adjacency matrices; a diagonal entry is a self-loop and counts once in the degree.
        matrix: One of :data:`MATRICES`.

    Raises:
        CosetError: The weights are not symmetric or not finite, or negative where a square root of degrees is needed.
        ValueError: No such matrix.
    """
    if matrix not in MATRICES:
        raise ValueError(f"matrix={matrix!r}: choose {', '.join(MATRICES)}")
    weights = weights.double()
    if not weights.isfinite().all():
        raise CosetError("the adjacency matrix holds NaN or infinite weights")
    if not torch.equal(weights, weights.mT):
        *_, u, v = (weights != weights.mT).nonzero()[0].tolist()
        raise CosetError(f"weight of ({u}, {v}) differs from that of ({v}, {u}): spectra are of undirected graphs")
    degree = weights.sum(-1)
    if matrix == "adjacency":
        return weights
    if matrix == "laplacian":
        return torch.diag_embed(degree) - weights
    if (weights < 0).any():
        raise CosetError("matrix=normalized takes square roots of degrees: weights must not be negative")
    scale = torch.where(degree > 0, degree, 1).rsqrt()
    return scale.unsqueeze(-1) * weights * scale.unsqueeze(-2)


def grouping_tolerance(values: Float[Tensor, " n"]) -> float:
    """Largest gap between float64 eigenvalues that rounding explains: max(1e-9, 64 n eps) max(1, ||M||)."""
    n, norm = values.numel(), float(values.abs().max()) if values.numel() else 0.0
    return max(1e-9, 64 * n * torch.finfo(torch.float64).eps) * max(1.0, norm)


def eigenspace_sizes(values: Float[Tensor, " n"], tolerance: float | None = None) -> list[int]:
    """Multiplicities of sorted eigenvalues: neighbours closer than ``tolerance`` are one eigenvalue.

    Raises:
        CosetError: The eigenvalues are not float64, or a gap between one and a hundred tolerances leaves it open
            whether two eigenvalues are equal.
    """
    if values.dtype != torch.float64:
        kind = str(values.dtype).removeprefix("torch.")
        raise CosetError(f"eigenvalues in {kind} cannot be grouped: rounding splits eigenspaces; keep them in float64")
    tolerance = grouping_tolerance(values) if tolerance is None else tolerance
    gaps = values.diff()
    open_gaps = ((gaps > tolerance) & (gaps < 100 * tolerance)).nonzero().flatten()
    if open_gaps.numel():
        at = int(open_gaps[0])
        raise CosetError(
            f"eigenvalues {float(values[at]):.12g} and the next differ by {float(gaps[at]):.1e}, within 100 times the "
            f"tolerance {tolerance:.1e}: equal or not is a guess; set another tolerance, or use the implicit filter"
        )
    edges = [0, *((gaps > tolerance).nonzero().flatten() + 1).tolist(), values.numel()]
    return [after - before for before, after in itertools.pairwise(edges)] if values.numel() else []


@dataclass(frozen=True)
class Spectrum:
    """Eigenpairs of one symmetric matrix: n + n x n numbers.

    Attributes:
        values: Eigenvalues, ascending.
        vectors: Orthonormal eigenvectors as columns.
    """

    values: Float[Tensor, " n"]
    vectors: Float[Tensor, "n n"]

    @classmethod
    def of(cls, matrix: Float[Tensor, "n n"]) -> Spectrum:
        """Eigenpairs in float64."""
        return cls(*torch.linalg.eigh(matrix.double()))

    def function(self, phi: Callable[[Tensor], Tensor]) -> Float[Tensor, "n n"]:
        """phi(M) = V diag(phi(lambda)) V^T."""
        return (self.vectors * phi(self.values)) @ self.vectors.mT

    def projections(self, tolerance: float | None = None) -> tuple[Float[Tensor, " m"], Float[Tensor, "m n n"]]:
        """Distinct eigenvalues (the mean of each group) and the projections on their eigenspaces.

        Raises:
            CosetError: It is open which eigenvalues are equal (:func:`eigenspace_sizes`).
        """
        sizes = eigenspace_sizes(self.values, tolerance)
        values = torch.stack([part.mean() for part in self.values.split(sizes)]) if sizes else self.values
        spaces = [part @ part.mT for part in self.vectors.split(sizes, dim=1)] if sizes else []
        return values, torch.stack(spaces) if spaces else self.vectors.new_zeros(0, 0, 0)


@dataclass(frozen=True, eq=False)
class GraphSpectra:
    """The spectra of one graph, each computed when it is first asked for.

    Attributes:
        weights: Symmetric adjacency matrix, float64.
    """

    weights: Float[Tensor, "n n"]

    @classmethod
    def of(cls, graph: Data | Tensor) -> GraphSpectra:
        """From PyG data (simple graph: loops and repetitions of ``edge_index`` do not count) or a dense matrix.

        Raises:
            CosetError: An edge has no reverse, or a dense matrix is not symmetric.
        """
        if isinstance(graph, Tensor):
            return cls(graph_matrix(graph, "adjacency"))
        n = int(graph.num_nodes or 0)
        weights = torch.zeros(n, n, dtype=torch.float64)
        if graph.edge_index is not None:
            weights[graph.edge_index[0].cpu(), graph.edge_index[1].cpu()] = 1
        return cls(graph_matrix(weights.fill_diagonal_(0), "adjacency"))

    @cached_property
    def degree(self) -> Float[Tensor, " n"]:
        return self.weights.sum(-1)

    @cached_property
    def adjacency(self) -> Spectrum:
        return Spectrum.of(self.weights)

    @cached_property
    def laplacian(self) -> Spectrum:
        return Spectrum.of(graph_matrix(self.weights, "laplacian"))

    @cached_property
    def normalized(self) -> Spectrum:
        return Spectrum.of(graph_matrix(self.weights, "normalized"))

    @cached_property
    def together(self) -> Bool[Tensor, "n n"]:
        """Whether two nodes lie in one component: where the projection on the kernel of L is not zero."""
        kernel = self.laplacian.function(lambda values: (~_positive(values)).double())
        return kernel > 0.5 / max(1, len(self.degree))


def resistance_distances(graph: GraphSpectra) -> Float[Tensor, "n n"]:
    """Effective resistance between nodes if every edge is a resistor of conductance w; infinite across components."""
    return _gap(graph.laplacian, _inverse_power(1)).masked_fill(~graph.together, torch.inf)


def biharmonic_distances(graph: GraphSpectra) -> Float[Tensor, "n n"]:
    """Lipman, Rustamov, Funkhouser 2010; infinite across components."""
    return _gap(graph.laplacian, _inverse_power(2)).sqrt().masked_fill(~graph.together, torch.inf)


def heat_kernel(graph: GraphSpectra, time: float = 1.0) -> Float[Tensor, "n n"]:
    """exp(-t L)."""
    return graph.laplacian.function(lambda values: (-time * values).exp())


def diffusion_distances(graph: GraphSpectra, time: float = 1.0) -> Float[Tensor, "n n"]:
    """Euclidean distance of rows of exp(-t L) (Coifman, Lafon 2006)."""
    return _gap(graph.laplacian, lambda values: (-2 * time * values).exp()).sqrt()


def personalized_pagerank(graph: GraphSpectra, restart: float = 0.15) -> Float[Tensor, "n n"]:
    """Probability that a walk from u is at v when it stops, if it stops with probability ``restart`` at each step.

    A walk cannot leave an isolated node: its row is ``restart`` there and 0 elsewhere.
    """
    if not 0 < restart <= 1:
        raise ValueError(f"restart={restart}: a probability above 0")
    return _walk(graph, lambda mu: restart / (1 - (1 - restart) * mu))


def random_walks(graph: GraphSpectra, steps: int) -> Float[Tensor, "n n steps"]:
    """(D^-1 A)^k for k = 0 to steps - 1: the relative random-walk probabilities (RRWP) of GRIT."""
    powers = [_walk(graph, lambda mu, k=k: mu**k) for k in range(steps)]  # type: ignore[misc]
    return torch.stack(powers, dim=-1)


def hitting_times(graph: GraphSpectra) -> Float[Tensor, "n n"]:
    """Expected steps of a random walk from u until it is at v first.

    Raises:
        CosetError: The graph is not connected.
    """
    if not bool(graph.together.all()):
        raise CosetError("hitting times are infinite between components: the graph must be connected")
    kernel = graph.normalized.function(lambda mu: torch.where(_positive(1 - mu), 1 / (1 - mu), 0))
    root = graph.degree.sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    scaled = kernel / root.unsqueeze(-1) / root
    return graph.degree.sum() * (scaled.diagonal() - scaled)


def commute_times(graph: GraphSpectra) -> Float[Tensor, "n n"]:
    """Expected steps from u to v and back: the sum of weights times the resistance; infinite across components."""
    return graph.degree.sum() * resistance_distances(graph)


def shortest_paths(graph: GraphSpectra) -> Int[Tensor, "n n"]:
    """min{k : A^k(u, v) != 0}; -1 across components.

    Powers of A in floating point cannot tell 0 from rounding, but the edges, A = sum lambda P_lambda, can be read off
    safely: their paths are then counted exactly.
    """
    edges = (graph.adjacency.function(lambda values: values).abs() > 1e-6).double().fill_diagonal_(0)
    lengths = torch.full_like(edges, -1).fill_diagonal_(0)
    reached = torch.eye(len(edges), dtype=torch.float64)
    for step in range(1, len(edges)):
        new = (reached @ edges > 0) & (lengths < 0)
        if not new.any():
            break
        lengths[new] = step
        reached = new.double()
    return lengths.long()


def _positive(values: Tensor) -> Tensor:
    return values > grouping_tolerance(values)


def _inverse_power(power: int) -> Callable[[Tensor], Tensor]:
    return lambda values: torch.where(_positive(values), values, torch.inf) ** -power


def _gap(spectrum: Spectrum, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """sum phi(lambda) [P(u,u) + P(v,v) - 2 P(u,v)], the squared distance of rows u and v of V phi^(1/2)."""
    kernel = spectrum.function(phi)
    own = kernel.diagonal()
    return (own.unsqueeze(-1) + own - 2 * kernel).clamp(min=0).fill_diagonal_(0)


def _walk(graph: GraphSpectra, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """phi(D^-1 A) = D^-1/2 phi(D^-1/2 A D^-1/2) D^1/2."""
    root = torch.where(graph.degree > 0, graph.degree, 1).sqrt()
    return graph.normalized.function(phi) / root.unsqueeze(-1) * root
