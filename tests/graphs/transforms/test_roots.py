import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from coset.core.errors import CosetError
from coset.graphs.transforms import SampleRoots, ShortestPathDistances, keep_roots


def path(n):
    edges = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    return Data(x=torch.arange(n).unsqueeze(1), edge_index=torch.cat([edges, edges.flip(0)], dim=1))


def test_path_of_three_with_its_ends_as_roots():
    data = keep_roots(ShortestPathDistances()(path(3)), torch.tensor([2, 0]))
    assert data.root_index.tolist() == [0, 2]
    assert data.num_roots == 2
    assert data.pair_distance.view(2, 3).tolist() == [[0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize(
    ("options", "n", "kept"),
    [
        ({"fraction": 0.5}, 6, 3),
        ({"fraction": 0.05}, 6, 1),
        ({"fraction": 1.0}, 6, 6),
        ({"fraction": 0.3}, 1, 1),
        ({"count": 4}, 6, 4),
        ({"count": 9}, 6, 6),
    ],
)
def test_number_of_roots(options, n, kept):
    data = SampleRoots(**options, seed=0)(path(n))
    assert data.num_roots == len(data.root_index) == kept
    assert bool((data.root_index.diff() > 0).all())
    assert int(data.root_index[-1]) < n


def test_all_roots_in_their_order():
    data = SampleRoots(fraction=1)(ShortestPathDistances()(path(4)))
    assert data.root_index.tolist() == [0, 1, 2, 3]
    assert torch.equal(data.pair_distance, ShortestPathDistances()(path(4)).pair_distance)


def test_order_of_transforms_does_not_matter():
    first = Compose([ShortestPathDistances(), SampleRoots(count=2, seed=4)])(path(7))
    second = Compose([SampleRoots(count=2, seed=4), ShortestPathDistances()])(path(7))
    assert torch.equal(first.root_index, second.root_index)
    assert torch.equal(first.pair_distance, second.pair_distance)


def test_samples_are_fresh_reproducible_and_leave_the_graph_alone():
    data = ShortestPathDistances()(path(20))

    def draw(transform):
        return [transform(data).root_index.tolist() for _ in range(5)]

    first = draw(SampleRoots(count=3, seed=1))
    assert len({tuple(roots) for roots in first}) > 1
    assert first == draw(SampleRoots(count=3, seed=1))
    assert "root_index" not in data
    assert data.pair_distance.numel() == 400
    torch.manual_seed(5)
    third = draw(SampleRoots(count=3))
    torch.manual_seed(5)
    assert third == draw(SampleRoots(count=3))


def test_every_node_is_chosen_equally_often():
    sample = SampleRoots(fraction=0.4, seed=0)
    counts = torch.cat([sample(path(5)).root_index for _ in range(3000)]).bincount(minlength=5)
    assert bool(((counts / 3000 - 0.4).abs() < 0.05).all())


def test_batching_offsets_the_roots():
    graphs = [keep_roots(path(3), torch.tensor([0, 2])), keep_roots(path(4), torch.tensor([1]))]
    batch = Batch.from_data_list(graphs)
    assert batch.root_index.tolist() == [0, 2, 4]
    assert batch.num_roots.tolist() == [2, 1]


def test_impossible_arguments():
    with pytest.raises(ValueError, match="either fraction= or count="):
        SampleRoots()
    with pytest.raises(ValueError, match="either fraction= or count="):
        SampleRoots(fraction=0.5, count=2)
    with pytest.raises(ValueError, match=r"fraction=1.5"):
        SampleRoots(fraction=1.5)
    with pytest.raises(ValueError, match="at least one root"):
        SampleRoots(count=0)


@pytest.mark.parametrize("roots", [[], [0, 0], [3], [-1]])
def test_impossible_roots(roots):
    with pytest.raises(CosetError, match="distinct nodes of 0 to 2"):
        keep_roots(path(3), torch.tensor(roots, dtype=torch.long))


def test_roots_are_chosen_once():
    with pytest.raises(CosetError, match="chosen already"):
        SampleRoots(count=1)(SampleRoots(count=2)(path(3)))


def test_repr():
    assert repr(SampleRoots(fraction=0.2)) == "SampleRoots(fraction=0.2)"
    assert repr(SampleRoots(count=3, seed=1)) == "SampleRoots(count=3, seed=1)"
