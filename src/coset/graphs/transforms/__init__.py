"""What is added to a graph before a network sees it: distances, spectra, product encodings, sampled roots, node sets.

All are PyG transforms and compose with ``torch_geometric.transforms.Compose``; :func:`precompute` applies them to a
whole data set, fast.
"""

from coset.graphs.transforms.coarsen import Coarsen, set_clusters, set_nodes
from coset.graphs.transforms.distances import ShortestPathDistances, distance_matrix, shortest_path_distances
from coset.graphs.transforms.eigenspaces import EigenspaceBases, Eigenspaces
from coset.graphs.transforms.equal_sizes import EqualSizeTransform, GraphStack, precompute
from coset.graphs.transforms.product_encoding import (
    ProductPositionalEncoding,
    product_eigenvectors,
    product_frequencies,
)
from coset.graphs.transforms.roots import SampleRoots, keep_roots
from coset.graphs.transforms.spectra import LaplacianEigenvectors, laplacian, laplacian_spectrum

__all__ = [
    "Coarsen",
    "EigenspaceBases",
    "Eigenspaces",
    "EqualSizeTransform",
    "GraphStack",
    "LaplacianEigenvectors",
    "ProductPositionalEncoding",
    "SampleRoots",
    "ShortestPathDistances",
    "distance_matrix",
    "keep_roots",
    "laplacian",
    "laplacian_spectrum",
    "precompute",
    "product_eigenvectors",
    "product_frequencies",
    "set_clusters",
    "set_nodes",
    "shortest_path_distances",
]
