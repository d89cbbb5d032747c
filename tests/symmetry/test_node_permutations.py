"""Renumbering the nodes of PyG graphs: small cases by hand, and batch against one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from coset.symmetry import NodePermutation, NodeRelabelling, NodeRowPermutation, PairRowPermutation

CYCLE = torch.tensor([1, 2, 0])  # 0 -> 1 -> 2 -> 0


def relabelling(images, *sizes):
    return NodeRelabelling(torch.as_tensor(images), torch.tensor(sizes))


def path():
    """0 - 1 - 2 with everything a graph may carry; pair (s, v) holds 10 s + v."""
    return Data(
        x=torch.tensor([[10], [20], [30]]),
        edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        edge_attr=torch.tensor([[1], [1], [2], [2]]),
        y=torch.tensor([[0.5]]),
        smiles="CCO",
        pair_distance=torch.tensor([0, 1, 2, 10, 11, 12, 20, 21, 22]),
        laplacian_eigenvectors=torch.tensor([[0.1, 1.0], [0.2, 2.0], [0.3, 3.0]]),
        laplacian_eigenvalues=torch.tensor([[1.0, 3.0]]),
        product_frequencies=torch.tensor([[[0, 0], [0, 1]]]),
    )


def random_graph(nodes, roots, seed):
    """A graph whose attributes name the nodes they belong to, so that a renumbering can be read back from them."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(nodes, generator=generator)[:roots].sort().values
    names = torch.randperm(10_000, generator=generator)[:nodes]
    edges = torch.randint(nodes, (2, 2 * nodes), generator=generator)
    return Data(
        x=names,
        edge_index=edges,
        edge_attr=names[edges[0]] * 10_000 + names[edges[1]],
        root_index=kept,
        num_roots=roots,
        root_name=names[kept],
        pair_name=(names[kept][:, None] * 10_000 + names).flatten(),
    )


def assert_names_agree(data):
    """Every edge and pair still carries the names of its ends."""
    assert torch.equal(data.x[data.edge_index[0]] * 10_000 + data.x[data.edge_index[1]], data.edge_attr)
    expected = data.x[data.root_index][:, None] * 10_000 + data.x
    assert torch.equal(data.pair_name.reshape(expected.shape), expected)
    assert torch.equal(data.root_index, data.root_index.sort().values)


def test_a_path_by_hand():
    moved = NodePermutation().apply(relabelling(CYCLE, 3), path())
    assert moved.x.flatten().tolist() == [30, 10, 20]
    assert moved.edge_index.tolist() == [[1, 2, 2, 0], [2, 1, 0, 2]]
    assert moved.edge_attr.flatten().tolist() == [1, 1, 2, 2]
    assert moved.pair_distance.tolist() == [22, 20, 21, 2, 0, 1, 12, 10, 11]  # new (0, 0) was (2, 2)
    torch.testing.assert_close(moved.laplacian_eigenvectors[:, 1], torch.tensor([3.0, 1.0, 2.0]))
    for unchanged in ("y", "smiles", "laplacian_eigenvalues", "product_frequencies"):
        assert moved[unchanged] is path()[unchanged] or torch.equal(moved[unchanged], path()[unchanged])


def test_kept_roots_are_sorted_again_and_pair_rows_follow():
    data = path()
    data.root_index, data.num_roots = torch.tensor([0, 2]), 2
    data.pair_distance = torch.tensor([0, 1, 2, 20, 21, 22])
    moved = NodePermutation().apply(relabelling(CYCLE, 3), data)
    assert moved.root_index.tolist() == [0, 1]  # 2 -> 0 and 0 -> 1
    assert moved.pair_distance.tolist() == [22, 20, 21, 2, 0, 1]


def test_each_graph_of_a_batch_has_its_own_permutation():
    batch = Batch.from_data_list([path(), path()])
    moved = NodePermutation().apply(relabelling([1, 2, 0, 3, 5, 4], 3, 3), batch)
    first, second = moved.to_data_list()
    assert first.x.flatten().tolist() == [30, 10, 20]
    assert second.x.flatten().tolist() == [10, 30, 20]
    assert second.edge_index.tolist() == [[0, 2, 2, 1], [2, 0, 1, 2]]
    assert second.pair_distance.tolist() == [0, 2, 1, 20, 22, 21, 10, 12, 11]
    assert moved.batch.tolist() == [0, 0, 0, 1, 1, 1]
    assert moved.smiles == ["CCO", "CCO"]
    assert type(moved) is type(batch)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(
        st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), min_size=1, max_size=4
    ),
    seed=st.integers(0, 1000),
)
def test_what_belongs_to_a_node_stays_with_it(sizes, seed):
    action = NodePermutation(fixed=["root_name"])
    batch = Batch.from_data_list([random_graph(n, k, seed + i) for i, (n, k) in enumerate(sizes)])
    element = action.sample(batch, torch.Generator().manual_seed(seed))
    moved = action.apply(element, batch)
    for before, after, (n, k) in zip(batch.to_data_list(), moved.to_data_list(), sizes, strict=True):
        assert_names_agree(after)
        assert after.x.sort().values.equal(before.x.sort().values)
        assert after.x[after.root_index].sort().values.equal(before.root_name.sort().values)
        assert after.pair_name.numel() == n * k
    assert PairRowPermutation().apply(element, batch.pair_name).equal(moved.pair_name)
    assert NodeRowPermutation().apply(element, batch.x).equal(moved.x)


def test_rows_of_outputs_follow_the_inputs():
    element = relabelling([1, 0, 2], 2, 1)
    assert NodeRowPermutation().apply(element, torch.tensor([[1], [2], [3]])).flatten().tolist() == [2, 1, 3]
    pairs = torch.tensor([0, 1, 10, 11, 99])
    assert PairRowPermutation().apply(element, pairs).tolist() == [11, 10, 1, 0, 99]
    with pytest.raises(ValueError, match="should have 5 rows"):
        PairRowPermutation().apply(element, torch.zeros(4))
    with pytest.raises(ValueError, match="draw elements with NodePermutation"):
        NodeRowPermutation().sample(pairs, torch.Generator())


def test_sizes_that_mislead_are_overruled():
    data = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2, y=torch.tensor([1.0, 2.0]), weight=torch.ones(3, 2))
    swap = relabelling([1, 0], 2)
    assert NodePermutation().apply(swap, data).y.tolist() == [2, 1]
    assert NodePermutation(fixed=["y"]).apply(swap, data).y.tolist() == [1, 2]
    with pytest.raises(ValueError, match="weight should have 4 rows"):
        NodePermutation(pairs=["weight"]).apply(swap, data)
    table = Data(num_nodes=2, scores=torch.arange(4))
    assert NodePermutation().apply(swap, table).scores.tolist() == [3, 2, 1, 0]
    assert (
        NodePermutation(nodes=["edge_ends"]).apply(swap, Data(num_nodes=2, edge_ends=torch.arange(2))).edge_ends[0] == 1
    )


def test_what_cannot_be_renumbered_is_refused():
    with pytest.raises(ValueError, match=r"renumbers \[3\] nodes, the data has \[2\]"):
        NodePermutation().apply(relabelling(CYCLE, 3), Data(x=torch.zeros(2, 1)))
    with pytest.raises(ValueError, match="sparse tensor"):
        NodePermutation().apply(relabelling([0, 1], 2), Data(num_nodes=2, adjacency=torch.eye(2).to_sparse()))
    with pytest.warns(UserWarning, match="num_nodes"), pytest.raises(ValueError, match="number of nodes"):
        NodePermutation().sample(Data(), torch.Generator())


def test_a_batch_vector_is_enough_to_tell_graphs_apart():
    data = Data(x=torch.arange(5), batch=torch.tensor([0, 0, 0, 1, 1]))
    for seed in range(5):
        moved = NodePermutation().apply(NodePermutation().sample(data, torch.Generator().manual_seed(seed)), data)
        assert set(moved.x[:3].tolist()) == {0, 1, 2}


def test_the_order_is_a_product_of_factorials():
    assert NodePermutation().order(Batch.from_data_list([path(), path()])) == 36
    assert len(list(NodePermutation().elements(path()))) == 6
