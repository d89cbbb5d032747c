import pytest
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.graphs.data.validation import validate_graph


def path(**changes):
    """0 - 1 - 2, one categorical column each for nodes and edges."""
    data = Data(
        x=torch.tensor([[0], [1], [2]]),
        edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        edge_attr=torch.tensor([[0], [0], [1], [1]]),
        id="path",
    )
    return data.update(changes)


def test_a_good_graph_is_returned_as_it_is():
    data = path()
    assert validate_graph(data, [3], [2]) is data


def test_self_loops_and_duplicates_are_dropped_with_a_count():
    index = torch.tensor([[0, 1, 1, 2, 0, 1, 2], [1, 0, 2, 1, 0, 0, 1]])
    features = torch.tensor([[0], [0], [1], [1], [5], [6], [7]])
    with pytest.warns(UserWarning, match="path: dropped 1 self-loops and 2 duplicate edges"):
        data = validate_graph(path(edge_index=index, edge_attr=features))
    assert data.edge_index.tolist() == path().edge_index.tolist()
    assert data.edge_attr.tolist() == path().edge_attr.tolist()


def test_unsorted_edges_are_sorted_with_their_features():
    order = torch.tensor([3, 0, 2, 1])
    data = validate_graph(path(edge_index=path().edge_index[:, order], edge_attr=path().edge_attr[order]))
    assert data.edge_index.tolist() == path().edge_index.tolist()
    assert data.edge_attr.tolist() == path().edge_attr.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"edge_index": torch.tensor([[0, 1, 1], [1, 0, 2]]), "edge_attr": torch.zeros(3, 1)},
            "edge 1 -> 2 has no reverse",
        ),
        ({"edge_index": torch.tensor([[0, 3, 1, 0], [3, 0, 0, 1]])}, "names node 3, but nodes are 0 to 2"),
        ({"edge_index": torch.tensor([[0, -1, 1, 0], [-1, 0, 0, 1]])}, "names node -1"),
        ({"edge_attr": torch.zeros(3, 1)}, "edge_attr has 3 rows for 4 edges"),
        ({"x": torch.tensor([[0], [3], [1]])}, r"x\[1, 0\] = 3, but column 0 has ids 0 to 2"),
        ({"x": torch.tensor([[0], [-1], [1]])}, r"x\[1, 0\] = -1"),
        ({"x": torch.zeros(3, 2, dtype=torch.long)}, r"x is \[3, 2\]; 1 columns are expected"),
        ({"edge_attr": torch.tensor([[0], [0], [2], [1]])}, r"edge_attr\[2, 0\] = 2"),
    ],
)
def test_malformed_graphs_are_named(changes, message):
    with pytest.raises(CosetError, match=f"path: .*{message}|path: {message}"):
        validate_graph(path(**changes), [3], [2])


def test_no_nodes():
    with pytest.raises(CosetError, match="at least one node"):
        validate_graph(Data(x=torch.empty(0, 1), edge_index=torch.empty(2, 0, dtype=torch.long)))


def test_one_node():
    data = Data(x=torch.zeros(1, 1, dtype=torch.long), edge_index=torch.empty(2, 0, dtype=torch.long))
    assert validate_graph(data, [1], [2]) is data
