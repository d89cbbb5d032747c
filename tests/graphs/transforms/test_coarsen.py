import pickle

import pytest
import torch
from torch_geometric.data import Batch, Data

from coset.core.errors import CosetError
from coset.graphs.models.bags import BagGraph
from coset.graphs.transforms import Coarsen, precompute, set_clusters, set_nodes


def path(nodes=4):
    line = torch.arange(nodes - 1)
    edges = torch.stack([line, line + 1])
    return Data(edge_index=torch.cat([edges, edges.flip(0)], 1), num_nodes=nodes)


def test_what_is_stored():
    data = Coarsen("merge", size=2)(path())
    assert data.set_sizes.tolist() == [2, 2]
    assert data.set_member_index.tolist() == [0, 1, 2, 3]
    assert data.num_sets == 2


def test_batches_and_data_sets():
    graphs = precompute([path(4), path(6), path(1)], Coarsen("edges"))
    batch = Batch.from_data_list(graphs)
    assert batch.num_sets.tolist() == [3, 5, 0]
    assert batch.set_member_index.tolist()[:8] == [0, 1, 1, 2, 2, 3, 4, 5]
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.set_member_index, batch.set_member_index)
    alone = [Coarsen("random", size=2, seed=5)(path(6)).set_member_index for _ in range(2)]
    assert torch.equal(*alone)


def test_sets_of_ones_own():
    data = set_nodes(path(), [[1, 0], [2, 1, 3]])
    graph = BagGraph.from_batch(data)
    assert graph.inside.view(2, 4).tolist() == [[1, 1, 0, 0], [0, 1, 1, 1]]
    assert not graph.is_partition
    clusters = BagGraph.from_batch(set_clusters(path(), ["b", "a", "b", "c"]))
    assert clusters.inside.view(3, 4).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def test_invariance_is_told():
    assert Coarsen("rings").invariant
    assert not Coarsen("spectral", size=3).invariant
    assert repr(Coarsen("spectral", size=3)) == "Coarsen('spectral', size=3)"


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ([[0], []], "set 1 is empty"),
        ([[4]], "set 0 names node 4, but nodes are 0 to 3"),
        ([[0, 0]], "set 0 names a node twice"),
    ],
)
def test_wrong_sets(family, message):
    with pytest.raises(CosetError, match=message):
        set_nodes(path(), family)


def test_wrong_arguments():
    with pytest.raises(CosetError, match="3 cluster labels for 4 nodes"):
        set_clusters(path(), [0, 1, 2])
    with pytest.raises(ValueError, match="needs the number of sets"):
        Coarsen("spectral")
    with pytest.raises(ValueError, match="no size="):
        Coarsen("rings", size=3)
    with pytest.raises(ValueError, match="size=0"):
        Coarsen("spectral", size=0)
    with pytest.raises(ValueError, match="coarsening='louvain': choose"):
        Coarsen("louvain", size=2)
    with pytest.raises(CosetError, match="no reverse"):
        Coarsen("spectral", size=2)(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=3))
    with pytest.raises(CosetError, match="at least one node"):
        Coarsen("spectral", size=2)(Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=0))
