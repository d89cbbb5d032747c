import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform, Compose, ToUndirected

from coset.core.errors import CosetError
from coset.graphs.transforms import (
    GraphStack,
    LaplacianEigenvectors,
    ProductPositionalEncoding,
    SampleRoots,
    ShortestPathDistances,
    equal_sizes,
    precompute,
)


def random_graph(n, probability, seed):
    generator = torch.Generator().manual_seed(seed)
    upper = torch.rand(n, n, generator=generator).triu(1) > 1 - probability
    x = torch.arange(n).unsqueeze(1)
    return Data(x=x, edge_index=(upper | upper.t()).nonzero().t().contiguous(), id=f"{n}-{seed}")


def assert_same(left, right):
    assert left.keys() == right.keys()
    for key in left.keys():  # noqa: SIM118
        if isinstance(left[key], torch.Tensor):
            assert left[key].dtype == right[key].dtype
            torch.testing.assert_close(left[key], right[key], equal_nan=True, rtol=0, atol=1e-6)
        else:
            assert left[key] == right[key]


GRAPHS = [random_graph(n, p, seed) for seed, p in enumerate((0.0, 0.2, 0.5)) for n in (1, 2, 5, 9, 5, 1)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cells", [1, 60, 1 << 17])
def test_precompute_is_the_same_as_one_by_one(cells, threads, monkeypatch):
    monkeypatch.setattr(equal_sizes, "MAX_CELLS", cells)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    transform = Compose([ShortestPathDistances(2), ProductPositionalEncoding(3)])
    done = precompute(GRAPHS, transform)
    assert [data.id for data in done] == [data.id for data in GRAPHS]
    for data, original in zip(done, GRAPHS):
        assert_same(data, transform(original))
        assert "pair_distance" not in original


def test_no_transforms_and_no_graphs():
    assert precompute([], ShortestPathDistances()) == []
    assert_same(precompute(GRAPHS)[3], GRAPHS[3])


def test_foreign_transforms_go_one_by_one_and_may_change_edges():
    class DropEdges(BaseTransform):
        def forward(self, data):
            data.edge_index = data.edge_index[:, :0]
            return data

    before, after = (
        precompute([GRAPHS[-2]], ShortestPathDistances())[0],
        precompute([GRAPHS[-2]], ShortestPathDistances(), DropEdges(), ShortestPathDistances())[0],
    )
    assert (before.pair_distance == 1).any()
    assert sorted(after.pair_distance.unique().tolist()) == [0, 6]


def test_random_transforms_draw_in_the_order_of_the_graphs():
    done = precompute(GRAPHS, ShortestPathDistances(), SampleRoots(fraction=0.5, seed=3))
    sample = SampleRoots(fraction=0.5, seed=3)
    assert [data.root_index.tolist() for data in done] == [sample(data).root_index.tolist() for data in GRAPHS]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_left_as_it_was(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        precompute(GRAPHS, LaplacianEigenvectors(2))
        with pytest.raises(CosetError, match="no reverse"):
            precompute([Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)], LaplacianEigenvectors(2))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_directed_edges_are_errors_that_name_the_graph():
    bad = Data(x=torch.zeros(5, 1), edge_index=torch.tensor([[0, 1, 3], [1, 0, 4]]), id="bad")
    with pytest.raises(CosetError, match=r"graph 'bad': edge 3 -> 4 has no reverse.*ToUndirected"):
        precompute([*GRAPHS, bad], ShortestPathDistances())
    assert ToUndirected()(bad).num_edges == 4
    with pytest.raises(CosetError, match="graph 0: edge_index names a node outside 0 to 1"):
        ShortestPathDistances()(Data(edge_index=torch.tensor([[0, 2], [2, 0]]), num_nodes=2))


def test_self_loops_and_multiple_edges_do_not_count():
    edges = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 1, 0, 1]])
    stack = GraphStack([Data(edge_index=edges, num_nodes=2)])
    assert stack.adjacency.tolist() == [[[False, True], [True, False]]]


def test_components():
    first = Data(edge_index=torch.tensor([[0, 2, 1, 3], [2, 0, 3, 1]]), num_nodes=4)
    second = Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=4)
    labels = GraphStack([first, second]).components
    assert labels.tolist() == [[0, 1, 0, 1], [4, 5, 6, 7]]


def test_components_of_long_paths_with_shuffled_nodes():
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    forward = torch.stack([order[:-1], order[1:]])
    forward = forward[:, (torch.arange(199) + 1) % 100 != 0]  # two paths of 100 nodes
    labels = GraphStack([Data(edge_index=torch.cat([forward, forward.flip(0)], dim=1), num_nodes=200)]).components[0]
    assert labels.unique().tolist() == sorted([int(order[:100].min()), int(order[100:].min())])
    assert labels[order[:100]].unique().tolist() == [int(order[:100].min())]


def test_batches_keep_every_attribute_in_order():
    transform = Compose([ShortestPathDistances(), ProductPositionalEncoding(2), SampleRoots(fraction=0.5, seed=0)])
    done = [transform(data) for data in GRAPHS]
    batch = next(iter(DataLoader(done, batch_size=len(done))))
    sizes = torch.tensor([data.num_nodes for data in done])
    assert batch.num_roots.tolist() == [max(1, round(0.5 * n)) for n in sizes.tolist()]
    assert batch.laplacian_eigenvectors.shape == (int(sizes.sum()), 3)
    assert batch.laplacian_eigenvalues.shape == (len(done), 3)
    assert batch.product_frequencies.shape == (len(done), 2, 2)
    assert batch.pair_distance.numel() == int((batch.num_roots * sizes).sum())
    assert batch.pair_distance.dtype == torch.uint8
    graph_of_root = batch.batch[batch.root_index]
    assert graph_of_root.bincount(minlength=len(done)).tolist() == batch.num_roots.tolist()
    # Row r, column v of a graph's block is the distance from its r-th root to its node v; its own column holds 0.
    block = 0
    for graph, n in enumerate(sizes.tolist()):
        roots = batch.root_index[graph_of_root == graph] - batch.ptr[graph]
        rows = batch.pair_distance[block : block + len(roots) * n].view(len(roots), n)
        assert torch.equal((rows == 0).nonzero()[:, 1], roots)
        block += rows.numel()
    for data, original in zip(batch.to_data_list(), done):
        assert torch.equal(data.root_index, original.root_index)
        assert torch.equal(data.pair_distance, original.pair_distance)


def test_workers_see_the_same():
    done = precompute(GRAPHS, ShortestPathDistances(), LaplacianEigenvectors(2))
    loader = DataLoader(done, batch_size=4, num_workers=1)
    seen = torch.cat([batch.pair_distance for batch in loader])
    assert torch.equal(seen, torch.cat([data.pair_distance for data in done]))


def test_a_graph_does_not_carry_its_neighbours_in_the_stack():
    many = [random_graph(12, 0.3, seed) for seed in range(50)]
    for data in precompute(many, ShortestPathDistances(), ProductPositionalEncoding(4)):
        for key in ("pair_distance", "laplacian_eigenvectors", "laplacian_eigenvalues", "product_frequencies"):
            assert data[key].untyped_storage().nbytes() == data[key].nbytes


def test_renumbering_nodes_renumbers_the_rows():
    data = random_graph(9, 0.4, 5)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    moved = Data(x=data.x[order], edge_index=place[data.edge_index])
    first, second = (ShortestPathDistances()(graph).pair_distance.view(9, 9) for graph in (data, moved))
    assert torch.equal(second, first[order][:, order])


def test_single_graphs_and_batches_of_one_agree():
    data = ShortestPathDistances()(GRAPHS[3])
    assert torch.equal(Batch.from_data_list([data]).pair_distance, data.pair_distance)
