"""Structure of a batch as a whole: moved with all that was derived, shared parts staying shared."""

import torch
from torch_geometric.data import Batch, Data

from coset.relations import IndexSet, Product, Relation, propagate, use_kernels


def settled():
    nodes = IndexSet(torch.tensor([3, 0, 2]))
    product = Product(nodes, nodes)
    relation = Relation(nodes, nodes, torch.tensor([[0, 1, 3, 4], [1, 2, 4, 3]]))
    relation.settle(product, 0).expand(product, 0)  # which is settled where there are no kernels for a GPU
    return relation, product


def test_a_copy_has_what_was_derived_and_what_was_shared():
    relation, product = settled()
    copy = relation.apply(torch.clone)
    assert copy.source is copy.target
    ((kept, along),) = copy._expansions
    assert along == 0
    assert kept.left is copy.source
    assert kept is not product
    for mine, yours in zip(copy.expand(kept, 0), relation.expand(product, 0), strict=True):
        assert mine is not yours
        torch.testing.assert_close(mine, yours)
    with use_kernels(False):
        x = torch.randn(13, 2, dtype=torch.float64)
        torch.testing.assert_close(
            propagate(x, copy, product=kept, along=0), propagate(x, relation, product=product, along=0)
        )


def test_it_goes_where_its_batch_goes():
    relation, _ = settled()
    batch = Batch.from_data_list([Data(x=torch.ones(2, 1), num_nodes=2)])
    batch.structure = relation
    there = batch.to("meta").structure
    assert there.index.device.type == there.source.batch.device.type == "meta"
    assert there.source.total == 5
    assert relation.index.device.type == "cpu"
