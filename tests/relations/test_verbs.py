import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coset.relations import IndexSet, Product, Relation, attend, broadcast, marginalise, pool, propagate, use_kernels

D = torch.float64


def path3():
    """P3 = 0-1-2 and X(s, v) = 10 s + v."""
    nodes = IndexSet(torch.tensor([3]))
    relation = Relation(nodes, nodes, torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    x = (10 * torch.arange(3).view(3, 1) + torch.arange(3)).to(D).view(9, 1)
    return relation, Product(nodes, nodes), x


def random_relation(sizes, seed, loops=False):
    generator = torch.Generator().manual_seed(seed)
    nodes = IndexSet(torch.tensor(sizes))
    blocks = [
        torch.randint(0, n, (2, 2 * n), generator=generator) + int(nodes.ptr[g]) for g, n in enumerate(sizes) if n > 1
    ]
    index = torch.cat(blocks, 1) if blocks else torch.zeros(2, 0, dtype=torch.long)
    relation = Relation(nodes, nodes, index)
    return relation.with_self_loops if loops else relation


def both(function, inputs):
    """Output and gradients with fused kernels and with the reference."""
    results = []
    for kernels in (True, False):
        with use_kernels(kernels):
            out = function()
            weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
            results.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
    return zip(*results)


@pytest.mark.parametrize("kernels", [True, False])
def test_sums_on_the_path(kernels):
    relation, pairs, x = path3()
    with use_kernels(kernels):
        inside = propagate(x, relation, product=pairs, along=1).view(3, 3)
        across = propagate(x, relation, product=pairs, along=0).view(3, 3)
    assert inside.tolist() == [[1, 2, 1], [11, 22, 11], [21, 42, 21]]
    assert across.tolist() == [[10, 11, 12], [20, 22, 24], [10, 11, 12]]


@pytest.mark.parametrize("kernels", [True, False])
def test_attention_without_logits_is_the_mean(kernels):
    relation, pairs, x = path3()
    zero = x.new_zeros(9, 1)
    with use_kernels(kernels):
        inside = attend(x, zero, zero, relation.with_self_loops, heads=1, product=pairs, along=1).view(3, 3)
        across = attend(x, zero, zero, relation.with_self_loops, heads=1, product=pairs, along=0).view(3, 3)
    assert torch.allclose(inside, torch.tensor([[0.5, 1, 1.5], [10.5, 11, 11.5], [20.5, 21, 21.5]], dtype=D))
    assert torch.allclose(across, torch.tensor([[5.0, 6, 7], [10, 11, 12], [15, 16, 17]], dtype=D))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_edge", [False, True])
@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("columns", [6, 8, 48])  # 8 and 48 fill vectors
def test_propagate_equals_its_reference(reduce, relu, with_edge, along, columns):
    relation = random_relation([3, 1, 7, 0, 5], 0)
    pairs = relation.source * relation.source
    x = torch.randn(pairs.total, columns, dtype=D, requires_grad=True)
    edge = torch.randn(relation.edges, columns, dtype=D, requires_grad=True) if with_edge else None
    inputs = (x, edge) if with_edge else (x,)

    def function():
        return propagate(x, relation, product=pairs, along=along, edge=edge, relu=relu, reduce=reduce)

    for fused, reference in both(function, inputs):
        assert torch.allclose(fused, reference, atol=1e-12)


@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    channels=st.sampled_from([1, 4]),
    along=st.integers(0, 1),
    loops=st.booleans(),
    score=st.sampled_from(["gat", "gatv2", "transformer"]),
    seed=st.integers(0, 99),
)
def test_attend_equals_its_reference(sizes, heads, channels, along, loops, score, seed):
    relation = random_relation(sizes, seed, loops)
    pairs = relation.source * relation.source
    width = heads * channels
    s = heads if score == "gat" else width
    shapes = [(pairs.total, width), (pairs.total, s), (pairs.total, s), (relation.edges, s)]
    terms = [torch.randn(shape, dtype=D, requires_grad=True) for shape in shapes]
    vector = torch.randn(heads, channels, dtype=D) if score == "gatv2" else None

    def function():
        return attend(
            *terms[:3], relation, heads=heads, score=score, edge=terms[3], vector=vector, product=pairs, along=along
        )

    for fused, reference in both(function, terms):
        assert torch.allclose(fused, reference, atol=1e-12)


def test_gradients_of_attention():
    relation = random_relation([4, 1], 3)
    pairs = relation.source * relation.source
    shapes = [(pairs.total, 4), (pairs.total, 2), (pairs.total, 2), (relation.edges, 2)]
    terms = [torch.randn(shape, dtype=D, requires_grad=True) for shape in shapes]

    def function(value, source, target, edge):
        return attend(value, source, target, relation, heads=2, edge=edge, product=pairs, along=0)

    assert torch.autograd.gradcheck(function, terms)


def test_float32_attention_is_close_and_slices_need_no_copy():
    relation = random_relation([6, 9], 1, loops=True)
    pairs = relation.source * relation.source
    block = torch.randn(pairs.total, 16)
    value, source, target = block.split([8, 4, 4], dim=1)
    fused = attend(value, source, target, relation, heads=4, product=pairs)
    wide = attend(value.double(), source.double(), target.double(), relation, heads=4, product=pairs)
    assert torch.allclose(fused.double(), wide, atol=2e-6)


def test_order_of_edges_and_of_graphs_does_not_matter():
    relation = random_relation([5], 2)
    order = torch.randperm(relation.edges)
    shuffled = Relation(relation.source, relation.target, relation.index[:, order])
    x, edge = torch.randn(5, 3, dtype=D), torch.randn(relation.edges, 3, dtype=D)
    assert torch.allclose(propagate(x, relation, edge=edge), propagate(x, shuffled, edge=edge[order]), atol=1e-12)


def test_marginalise_and_broadcast_are_adjoint():
    pairs = IndexSet(torch.tensor([2, 0, 3])) * IndexSet(torch.tensor([4, 2, 1]))
    x = torch.randn(pairs.total, 2, dtype=D)
    for along in (0, 1):
        y = torch.randn(pairs.axis(1 - along).total, 2, dtype=D)
        left = (marginalise(x, pairs, along=along) * y).sum()
        assert torch.allclose(left, (x * broadcast(y, pairs, along=along)).sum())
    assert torch.allclose(pool(x, pairs).sum(0), x.sum(0))


def test_errors_say_what_is_wrong():
    relation, pairs, x = path3()
    with pytest.raises(ValueError, match=r"\[9, channels\]"):
        propagate(x[:4], relation, product=pairs)
    with pytest.raises(ValueError, match="choose sum, mean or max"):
        propagate(x, relation, product=pairs, reduce="median")
    with pytest.raises(ValueError, match="names target 7"):
        Relation(relation.source, relation.source, torch.tensor([[0], [7]]))
    two = IndexSet(torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="joins two graphs"):
        Relation(two, two, torch.tensor([[0], [1]]))
