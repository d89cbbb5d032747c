"""M and U of FS-Merge, and folding, against cases worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.core.errors import CosetError
from coset.weights.merging import BlockMap, HeadMap, fold_bias, fold_weight
from coset.weights.merging.operators import fold

KINDS = ("diagonal", "low_rank", "diagonal_and_low_rank", "full")


def random_map(widths, width, kind="diagonal_and_low_rank", rank=2, seed=0):
    made = HeadMap(widths, width, 2) if kind == "heads" else BlockMap(widths, width, kind, rank)
    generator = torch.Generator().manual_seed(seed)
    for p in made.double().parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return made


def dense(blocks):
    made = BlockMap([len(b) for b in blocks], len(blocks[0][0]), "full").double()
    with torch.no_grad():
        for p, b in zip(made.full, blocks, strict=True):
            p.copy_(torch.tensor(b))
    return made


def test_folding_by_hand():
    weights = [torch.tensor([[1.0, 2], [3, 4]]).double(), torch.tensor([[5.0, 6], [7, 8]]).double()]
    biases = [torch.tensor([1.0, 1]).double(), torch.tensor([2.0, 4]).double()]
    merge = dense([[[1.0, 0], [0, 1]], [[0.5, 0], [0, 0.5]]])
    unmerge = dense([[[1.0, 0], [0, 1]], [[0.0, 1], [1, 0]]])  # transposed blocks of U = [[1,0,0,1],[0,1,1,0]]
    w, b = fold_weight(merge, weights, unmerge), fold_bias(merge, biases)
    assert w.tolist() == [[4, 4.5], [7, 7.5]]
    assert b.tolist() == [2, 3]
    x = torch.tensor([1.0, -1]).double()
    before = [W @ unmerge.spread(i, x) + c for i, (W, c) in enumerate(zip(weights, biases, strict=True))]
    assert torch.cat(before).tolist() == [0, 0, 3, 5]
    assert torch.equal(x @ w.mT + b, torch.tensor([1.5, 2.5]).double())


def test_folding_of_scalars():
    weights = [torch.tensor([[2.0]]).double(), torch.tensor([[3.0]]).double()]
    half = dense([[[0.5]], [[0.5]]])
    assert fold_weight(half, weights, dense([[[1.0]], [[1.0]]])).item() == 2.5
    assert fold_weight(half, weights, dense([[[2.0]], [[-1.0]]])).item() == 0.5


@pytest.mark.parametrize("kind", [*KINDS, "heads"])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("raw_input", [False, True])
def test_structured_folding_is_the_dense_formula(kind, k, raw_input):
    merge, unmerge = random_map([6] * k, 6, kind), random_map([6] * k, 6, kind, seed=1)
    weights = [torch.randn(6, 6, dtype=torch.float64) for _ in range(k)]
    want = sum(merge.dense(i).mT @ (w if raw_input else w @ unmerge.dense(i)) for i, w in enumerate(weights))
    got = fold_weight(merge, weights, None if raw_input else unmerge)
    assert torch.allclose(got, want, atol=1e-12)


@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_gather_and_spread_are_the_matrix_and_its_transpose(k, width, own, kind):
    widths = [own + i for i in range(k)]
    made = random_map(widths, width, kind, rank=1)
    for i, d in enumerate(widths):
        x, y = torch.randn(3, d, dtype=torch.float64), torch.randn(3, width, dtype=torch.float64)
        assert torch.allclose(made.gather(i, x), x @ made.dense(i))
        assert torch.allclose(made.spread(i, y), y @ made.dense(i).mT)


STRUCTURED = ("diagonal", "diagonal_and_low_rank")


@pytest.mark.parametrize("merging", STRUCTURED)
@pytest.mark.parametrize("unmerging", [*STRUCTURED, None])
def test_gradients_of_folding(merging, unmerging):
    """Of W* and b*, by finite differences."""
    weights = [torch.randn(4, 3, dtype=torch.float64) for _ in range(2)]
    biases = [torch.randn(4, dtype=torch.float64) for _ in range(2)]
    merge = random_map([4, 4], 4, merging)
    unmerge = random_map([3, 3], 3, unmerging, seed=1) if unmerging else None
    names = [(m, n) for m in (merge, unmerge) if m is not None for n in dict(m.named_parameters())]
    values = [m.get_parameter(n).detach().clone().requires_grad_() for m, n in names]

    def folded(*given):
        for (m, n), value in zip(names, given, strict=True):
            m._parameters[n] = value
        return fold(merge, lambda i: weights[i], biases, unmerge)

    assert torch.autograd.gradcheck(folded, values)
    want = sum(merge.dense(i).mT @ (w @ unmerge.dense(i) if unmerge else w) for i, w in enumerate(weights))
    assert torch.allclose(folded(*values)[0], want)
    assert torch.allclose(folded(*values)[1], fold_bias(merge, biases))


def test_numbers_of_parameters():
    def count(kind, d, rank=0, k=2):
        return sum(p.numel() for p in BlockMap([d] * k, d, kind, rank).parameters())

    assert count("diagonal", 32) == 64
    assert count("diagonal_and_low_rank", 32, 4) == 448
    assert count("full", 32) == 2048
    heads = [HeadMap([768] * 2, 768, 12, shared=s) for s in (False, True)]
    # Each teacher has its own table of mixing: k H^2 numbers.
    assert [sum(p.numel() for p in h.parameters()) for h in heads] == [98304 + 288, 49152 + 288]


def test_starts():
    generator = torch.Generator().manual_seed(0)
    for kind in ("diagonal", "diagonal_and_low_rank", "full"):
        m, u = BlockMap([4, 4], 4, kind, 2), BlockMap([4, 4], 4, kind, 2)
        m.start("first", "merge", generator)
        u.start("first", "unmerge", generator)
        assert torch.equal(m.dense(0), torch.eye(4))
        assert not m.dense(1).any()
        assert torch.equal(u.dense(0), torch.eye(4))
        assert torch.equal(u.dense(1), torch.eye(4))
        m.start("average", "merge", generator)
        assert torch.equal(m.dense(1), torch.eye(4) / 2)
    h = HeadMap([8, 8], 8, 2)
    h.start("first", "merge", generator)
    assert torch.equal(h.dense(0), torch.eye(8))
    assert not h.dense(1).any()
    assert all(p.stride(-1) == 1 and 0 not in p.stride() for p in h.parameters())


def test_wrong_maps_are_refused():
    with pytest.raises(CosetError, match="rank=0 must be at least 1"):
        BlockMap([4, 6], 6, "low_rank", 0)
    with pytest.raises(CosetError, match="init='first' must be 'random'"):
        BlockMap([4], 4, "low_rank", 2).start("first", "merge", torch.Generator())
    with pytest.raises(CosetError, match="needs equal widths"):
        HeadMap([4, 6], 4, 2)
