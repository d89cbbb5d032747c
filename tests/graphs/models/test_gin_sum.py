import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.graphs.models.gin_sum import _applies, gin_sum
from coset.relations import IndexSet, Relation

D = torch.float64


def case(sizes, seed, channels=8, edges=True):
    generator = torch.Generator().manual_seed(seed)
    nodes = IndexSet(torch.tensor(sizes))
    index = [torch.empty(2, 0, dtype=torch.long)]
    for first, size in zip(nodes.ptr.tolist(), sizes):  # loops and parallel edges among them
        index += [first + torch.randint(0, size, (2, 2 * size), generator=generator)] if size and edges else []
    relation = Relation(nodes, nodes, torch.cat(index, dim=1))
    u, bias = torch.randn(nodes.total, channels, generator=generator, dtype=D), torch.randn(channels, dtype=D)
    return u, relation, torch.tensor(0.3, dtype=D), bias


def by_hand(u, relation, eps, bias, edge=None):
    source, target = relation.index
    messages = u[source] if edge is None else (u[source] + edge).relu()
    return ((1 + eps) * u + torch.zeros_like(u).index_add(0, target, messages) + bias).relu()


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 99), st.booleans(), st.sampled_from([5, 8, 16])
)
def test_one_pass_is_what_the_equation_says(sizes, seed, with_edges, channels):
    u, relation, eps, bias = case(sizes, seed, channels)
    edge = torch.randn(relation.edges, channels, dtype=D) if with_edges else None
    torch.testing.assert_close(gin_sum(u, relation, eps, bias, edge), by_hand(u, relation, eps, bias, edge))


@pytest.mark.parametrize("with_edges", [False, True])
def test_gradients_are_right(with_edges):
    u, relation, eps, bias = case([3, 2], 1)
    edge = torch.randn(relation.edges, 8, dtype=D).requires_grad_() if with_edges else None
    assert _applies(u, edge, relation)
    inputs = [t.requires_grad_() for t in (u, eps, bias)]
    assert torch.autograd.gradcheck(
        lambda *given: gin_sum(given[0], relation, *given[1:]), (*inputs, *([edge] if with_edges else []))
    )


def test_no_edges_and_no_nodes():
    u, relation, eps, bias = case([2, 1], 0, edges=False)
    torch.testing.assert_close(gin_sum(u, relation, eps, bias), ((1 + eps) * u + bias).relu())
    u, relation, eps, bias = case([0], 0)
    assert gin_sum(u, relation, eps, bias).shape == (0, 8)


def test_rows_that_do_not_fit_are_explained():
    u, relation, eps, bias = case([3], 0)
    with pytest.raises(ValueError, match="one row an input"):
        gin_sum(u[:2], relation, eps, bias)
