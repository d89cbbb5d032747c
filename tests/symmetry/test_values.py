"""Trees of tensors: what a map takes or gives."""

from typing import NamedTuple

import torch
from torch_geometric.data import Data

from coset.symmetry.values import cast, map_tensors, tensors


class Cloud(NamedTuple):
    points: torch.Tensor
    label: str


def test_every_tensor_is_mapped_and_the_rest_stays():
    value = {"a": [torch.tensor(1), (torch.tensor(2), "text")], "b": None, "c": Cloud(torch.tensor(3), "cat")}
    doubled = map_tensors(lambda t: 2 * t, value)
    assert doubled == {
        "a": [torch.tensor(2), (torch.tensor(4), "text")],
        "b": None,
        "c": Cloud(torch.tensor(6), "cat"),
    }
    assert isinstance(doubled["c"], Cloud)


def test_two_trees_are_combined_by_place_and_not_by_order_of_keys():
    left, right = {"a": torch.tensor(1), "b": torch.tensor(2)}, {"b": torch.tensor(20), "a": torch.tensor(10)}
    assert map_tensors(torch.add, left, right) == {"a": torch.tensor(11), "b": torch.tensor(22)}


def test_tensors_are_named_by_their_place():
    value = {"b": torch.tensor(2), "a": (torch.tensor(1), {"c": torch.tensor(3)})}
    assert list(tensors(value)) == [("a[0]", 1), ("a[1].c", 3), ("b", 2)]


def test_cast_copies_and_leaves_whole_numbers_alone():
    data = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]]), smiles="CC")
    copied = cast(data, torch.float64)
    assert copied.x.dtype == torch.float64
    assert copied.edge_index.dtype == torch.long
    assert copied.smiles == "CC"
    copied.edge_index[0, 0] = 9
    assert data.edge_index[0, 0] == 0
    assert data.x.dtype == torch.float32
