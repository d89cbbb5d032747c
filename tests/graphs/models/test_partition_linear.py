"""The eighteen maps of a partition against the orbits of S_n, entry by entry."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from coset.graphs.models.bags import BagGraph
from coset.graphs.models.partition_linear import MAPS, PartitionEquivariantLinear, quantities
from coset.graphs.transforms import set_clusters
from coset.symmetry import set_node_basis, set_node_orbit, subsets_of_size


def bare(nodes):
    return Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=nodes)


def bag(labels):
    return BagGraph.from_batch(set_clusters(bare(len(labels)), labels))


def matrices(graph):
    """Every map as a dense matrix on the pairs."""
    rows = graph.pairs.total
    layer = PartitionEquivariantLinear(rows, rows, bias=False).double()
    found = []
    for k in range(len(MAPS)):
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[k] = torch.eye(rows)
            found.append(layer(torch.eye(rows, dtype=torch.float64), graph))
    return found


def by_invariants(labels):
    """Label of every quadruple (S, i; S', i'): its orbit without the sizes."""
    sets = [{i for i, c in enumerate(labels) if c == cluster} for cluster in dict.fromkeys(labels)]
    pairs = list(itertools.product(sets, range(len(labels))))
    orbits = [[set_node_orbit(*out, *into) for into in pairs] for out in pairs]
    return [[(o.shared > 0, o.same, o.output_region, o.input_region) for o in row] for row in orbits]


def test_sums_of_the_paths_example():
    graph = bag([0, 0, 1, 1])
    x = torch.tensor([0.0, 1, 2, 3, 10, 11, 12, 13]).unsqueeze(1)
    found = {name: value.flatten().tolist() for name, value in quantities(x, graph).items()}
    assert found["dia"] == [0, 1, 12, 13]
    assert (found["in"], found["tot"], found["col"]) == ([1, 25], [6, 46], [10, 12, 14, 16])
    assert found["blk c"] == [1, 5, 21, 25]
    assert found["IN"] == [26]


def test_each_map_is_an_orbit_of_the_group():
    labels = [0, 0, 1, 1, 2, 2]
    basis = set_node_basis(6, 2, 2)
    numbers = subsets_of_size(6, 2).tolist()
    chosen = torch.tensor([numbers.index(n) for n in (0b11, 0b1100, 0b110000)])
    rows = (chosen.unsqueeze(1) * 6 + torch.arange(6)).flatten()
    orbits = basis.labels[rows][:, rows]
    found = matrices(bag(labels))
    assert len(orbits.unique()) == len(found) == 18
    orbit_of = []
    for matrix in found:
        assert matrix.unique().tolist() == [0, 1]
        here = orbits[matrix > 0].unique()
        assert here.numel() == 1
        assert torch.equal(matrix, (orbits == here).double())
        orbit_of.append(int(here))
    assert len(set(orbit_of)) == 18


@pytest.mark.parametrize(("labels", "maps"), [([0] * 3, 2), ([0, 0, 1, 1], 12), ([0, 1, 2, 3], 15), ([0, 1, 2], 14)])
def test_fewer_clusters_or_smaller_ones_have_fewer_maps(labels, maps):
    assert sum(bool(matrix.any()) for matrix in matrices(bag(labels))) == maps


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_any_partition_against_the_loop_over_quadruples(labels):
    wanted = by_invariants(labels)
    kinds = {kind for row in wanted for kind in row}
    masks = {kind: torch.tensor([[kind == w for w in row] for row in wanted]).double() for kind in kinds}
    found = [matrix for matrix in matrices(bag(labels)) if matrix.any()]
    assert len(found) == len(masks)
    for matrix in found:
        assert sum(torch.equal(matrix, mask) for mask in masks.values()) == 1


def test_batches_gradients_and_families():
    torch.manual_seed(0)
    parts = [[0, 0, 1, 2, 2], [0], [0, 1, 0]]
    batch = BagGraph.from_batch(Batch.from_data_list([set_clusters(bare(len(p)), p) for p in parts]))
    layer = PartitionEquivariantLinear(3, 2).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(batch.pairs.total, 3, dtype=torch.float64, requires_grad=True)
    alone = [layer(rows, bag(p)) for p, rows in zip(parts, x.split(batch.pairs.sizes.tolist()))]
    torch.testing.assert_close(layer(x, batch), torch.cat(alone))
    assert torch.autograd.gradcheck(lambda t: layer(t, batch), x)
    overlapping = BagGraph.from_batch(
        Data(
            edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2, set_sizes=torch.tensor([2, 1]),
            set_member_index=torch.tensor([0, 1, 1]), num_sets=2,
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="exactly one set"):
        layer(torch.zeros(4, 3).double(), overlapping)


def test_the_bias_knows_size_and_side():
    layer = PartitionEquivariantLinear(1, 1).double()
    with torch.no_grad():
        layer.bias.copy_(torch.arange(22.0).view(2, 11, 1))
    out = layer(torch.zeros(8, 1).double(), bag([0, 1, 1, 1]))
    assert out.flatten().tolist() == [12, 1, 1, 1, 3, 14, 14, 14]
