"""Where networks differ from the released code on purpose: what that code does, and that ours does something else.

The pages under docs/ list each with its reason. The released code is not here: what it does is written out by hand.
"""

import networkx
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import from_networkx

from coset.core.errors import CosetError
from coset.graphs import CSGNN, EPNN, GIN, BagGraph, GranolaNorm, PairGraph, Subgraphormer
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.encodings.spectra import eigenspace_sizes
from coset.graphs.models.csgnn import BagEncoder, SetPoint
from coset.graphs.models.product import product_encoding
from coset.graphs.transforms import (
    Coarsen,
    Eigenspaces,
    ProductPositionalEncoding,
    ShortestPathDistances,
)
from coset.graphs.transforms.roots import keep_roots
from coset.topology import SMCN, CliqueLift, RingLift

TABLES = (1, list(ATOM_SIZES), list(BOND_SIZES))


def path(n: int) -> Data:
    return from_networkx(networkx.path_graph(n))


# Subgraphormer


def test_the_mean_of_sampled_roots_reads_all_of_the_bag():
    """The released code takes the first k^2 of the k n pairs, in chunks of k, and divides by k n."""
    graph = PairGraph.from_batch(keep_roots(path(3), torch.tensor([0, 2])))
    pairs = torch.tensor([[0.0], [1], [2], [20], [21], [22]])  # X(s, v) = 10 s + v
    official = float(pairs[:4].sum()) / 6
    ours = Subgraphormer(width=12, heads=2, layers=1)._readout(pairs, graph, "mean").item()
    assert (official, ours) == (pytest.approx(23 / 6), pytest.approx(11))


def test_product_eigenvectors_are_those_of_smallest_eigenvalue():
    """The released code multiplies eigenvectors 2 to 5 with each other: eigenvalues 2, 4, 4, 6 on a path of three."""
    values = torch.tensor([0.0, 1.0, 3.0])
    official = sorted(float(a + b) for a in values[1:] for b in values[1:])
    frequencies = ProductPositionalEncoding(4)(path(3)).product_frequencies[0]
    assert official == [2, 4, 4, 6]
    assert values[frequencies].sum(1).tolist() == [1, 1, 2, 3]


def test_signs_never_change_a_prediction_and_squares_keep_theirs():
    """The released code draws a sign for every column of every batch, in evaluation too, that of u_i u_i among them."""
    graph = ProductPositionalEncoding(4)(path(3))
    pairs = PairGraph.from_batch(graph)
    flipped = product_encoding(
        graph, pairs, 4, torch.tensor([[1.0, -1, -1, 1, 1]])[:, : graph.laplacian_eigenvectors.size(1)]
    )
    plain = product_encoding(graph, pairs, 4)
    square = [i for i, (a, b) in enumerate(graph.product_frequencies[0].tolist()) if a == b]
    assert torch.equal(flipped[:, square], plain[:, square])
    assert not torch.equal(flipped, plain)
    model = Subgraphormer(width=12, heads=2, layers=1, positional_encoding=4, flip_signs=True).eval()
    data = ShortestPathDistances(5)(graph)
    assert torch.equal(model(data), model(data))


def test_every_column_of_a_bond_has_a_table_of_its_own():
    """The released code looks all three up in the table of bond types: columns could be exchanged."""
    torch.manual_seed(0)
    for model in (Subgraphormer(*TABLES, width=12, heads=2, layers=1).eval(), GIN(*TABLES, width=12, layers=1).eval()):
        data = ShortestPathDistances(5)(smiles_to_data("CC=CO"))
        exchanged = data.clone()
        data.edge_attr, exchanged.edge_attr = torch.zeros(6, 3).long(), torch.zeros(6, 3).long()
        data.edge_attr[:, 0], exchanged.edge_attr[:, 2] = 1, 1
        assert not torch.allclose(model(data), model(exchanged))


def test_a_bond_that_is_listed_twice_joins_neighbours():
    """The released code adds matrix entries up and takes 2 for a distance."""
    once = torch.tensor([[0, 1], [1, 0]])
    doubled = Data(edge_index=once.repeat(1, 2), num_nodes=2)
    assert int(ShortestPathDistances(5)(doubled).pair_distance.max()) == 1


# CS-GNN


def test_missing_distances_begin_at_nothing():
    """The released code begins all entries at N(0, 1), which ``start="published"`` does."""
    torch.manual_seed(0)
    starts = {
        start: BagEncoder(None, 96, start=start).marks.weight.detach() for start in ("scaled", "unit", "published")
    }
    assert not starts["scaled"][-1].any()
    assert not starts["unit"][-1].any()
    assert starts["published"][-1].std() == pytest.approx(1, abs=0.3)
    assert starts["unit"][:-1].std() == pytest.approx(1, abs=0.2)


def test_sets_without_a_bond_between_them_hear_nothing_from_outside():
    """The released code then uses the bonds inside a second time as those between sets."""
    graph = BagGraph.from_batch(Coarsen("whole")(path(4)))
    assert (graph.internal.edges, graph.external.edges) == (6, 0)


def test_as_many_clusters_as_nodes_are_the_nodes():
    """The released code runs k-means, which puts twins together and leaves sets empty; its seed is not fixed either."""
    family = Coarsen("spectral", size=6)(from_networkx(networkx.star_graph(5)))
    assert family.set_sizes.tolist() == [1] * 6
    graph = from_networkx(networkx.random_labeled_tree(23, seed=0))
    first, second = (Coarsen("spectral", size=5)(graph.clone()).set_member_index for _ in range(2))
    assert torch.equal(first, second)


def test_point_terms_are_sums_beside_attention_too():
    """The released code attends there as well, and from receiver to sender."""
    layer = CSGNN(1, width=12, layers=1, attention="gat").layers[0]
    assert isinstance(layer.gather["point"], SetPoint)


def test_widths_are_kept():
    """The released code takes the multiple of 12 below."""
    assert CSGNN(1, width=50, layers=1).layers[0].norm.num_features == 50


# GRANOLA


def test_granola_begins_as_a_layer_norm():
    """The paper's gamma is f1(Z), near zero at the start: ``init="paper"`` has it."""
    torch.manual_seed(0)
    x, edges = torch.randn(5, 16), path(5).edge_index
    plain = torch.nn.functional.layer_norm(x, (16,))
    assert torch.allclose(GranolaNorm(16)(x, edges), plain)
    published = GranolaNorm(16, init="paper")(x, edges)
    assert published.abs().mean() < plain.abs().mean() / 2


def test_noise_in_evaluation_follows_from_a_seed():
    """The paper draws afresh in evaluation, so that two predictions of one graph differ: ``eval_seed=None`` does."""
    torch.manual_seed(0)
    x, edges = torch.randn(5, 16), path(5).edge_index
    settled, drawn = (GranolaNorm(16, init="paper", eval_seed=seed).eval() for seed in (0, None))
    assert torch.equal(settled(x, edges), settled(x, edges))
    assert not torch.equal(drawn(x, edges), drawn(x, edges))


# SMCN


def test_marked_cells_of_a_batch_have_features_of_their_own():
    """The released code repeats features a batch and indexes them a complex: all but the first get those of others."""
    torch.manual_seed(0)
    model = SMCN(*TABLES[:1], (TABLES[1], TABLES[2], None), ranks=(0, 1), width=8, layers=1).double().eval()
    data = [RingLift()(smiles_to_data(smiles)) for smiles in ("C#N", "c1ccccc1", "CC=O")]
    one_by_one = torch.cat([model(Batch.from_data_list([complex])) for complex in data])
    assert torch.allclose(model(Batch.from_data_list(data)), one_by_one)


def test_triangles_of_larger_cliques_are_cells():
    """The released lifting leaves cliques out that are larger than a triangle: none of the four of K4."""
    assert len(CliqueLift().complex(from_networkx(networkx.complete_graph(4))).cells[2]) == 4


def test_a_reduction_by_an_unknown_name_is_refused():
    """The released code takes any name but "sum" for a mean."""
    with pytest.raises(ValueError, match="choose sum or mean"):
        SMCN(1, readout="concatenate")  # type: ignore[arg-type]


# EPNN


def test_equal_eigenvalues_are_never_guessed():
    """The released code begins a new eigenvalue 1e-6 after the first of the last one, in float32 (rounding: 2e-6)."""
    rounded = torch.tensor([-1.0, 1 / 3 - 1e-6, 1 / 3 + 1e-6, 1.0])
    official = 1 + int((rounded.diff() >= 1e-6).sum())
    assert official == 4
    with pytest.raises(CosetError, match="keep them in float64"):
        eigenspace_sizes(rounded)
    third = torch.tensor(1 / 3, dtype=torch.float64)
    assert eigenspace_sizes(torch.stack([-3 * third, third - 1e-13, third + 1e-13, 3 * third])) == [1, 2, 1]


def test_all_eigenspaces_count():
    """The released code keeps the lowest 50 (10 for peptides) of a graph, and is blind to the others."""
    graph = Eigenspaces()(path(60))
    assert graph.eigenvalues.numel() == 60
    torch.manual_seed(0)
    model = EPNN(width=32, layers=2).double().eval()
    changed = graph.clone()
    changed.eigenvalues = changed.eigenvalues.clone()
    index = int(changed.eigenvalues.argmin())  # the highest frequency of the normalised matrix
    changed.eigenvalues[index] += 0.1
    assert float((model(graph) - model(changed)).detach().abs().max()) > 1e-9
