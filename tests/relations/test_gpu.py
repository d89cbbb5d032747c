"""Triton's kernels against the PyTorch reference: through its interpreter, or on a GPU where there is one."""

import importlib
import importlib.util

import pytest
import torch

from coset.core.errors import CosetError
from coset.relations import IndexSet, Product, Relation, attend, gpu, propagate, use_kernels

if importlib.util.find_spec("triton") is None:
    pytest.skip('Triton is not installed: pip install "coset[gpu]"', allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
with pytest.MonkeyPatch.context() as patch:  # how a kernel is run is settled when its module is imported
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    importlib.import_module("coset.relations.gpu.attention")
    importlib.import_module("coset.relations.gpu.propagation")


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    """Triton imports parts of itself at the first call, and they ask again."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


SETS = {"source": (3, 1, 0, 2), "target": (2, 2, 1, 3), "other": (2, 1, 3, 0)}
EDGES = ((0, 0), (1, 0), (1, 0), (2, 0), (3, 3), (5, 5), (5, 7), (4, 7))  # one twice; four targets have none


def structure(along):
    """A relation between two sets, and the product with a third that it acts on."""
    source, target, other = (IndexSet(torch.tensor(sizes, device=DEVICE)) for sizes in SETS.values())
    relation = Relation(source, target, torch.tensor(EDGES, device=DEVICE).t())
    if along is None:
        return relation, None, 1, source.total, target.total
    product = Product(other, source) if along else Product(source, other)
    return relation, product, along, product.total, product.replace(along, target).total


def numbers(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]


def compare(function, tensors, bound=2e-6):
    """Outputs and gradients by Triton, in the precision given, against the reference in float64."""
    results = []
    for kernels, dtype in (("triton", tensors[0].dtype), (False, torch.float64)):
        with use_kernels(kernels):
            inputs = [tensor.to(dtype).requires_grad_() for tensor in tensors]
            out = function(*inputs)
            weight = torch.linspace(-1, 1, out.numel(), dtype=dtype, device=DEVICE).view_as(out)
            results.append((out, *torch.autograd.grad(out, inputs, weight)))
    for found, wanted in zip(*results, strict=True):
        assert found.dtype == tensors[0].dtype
        assert found.shape == wanted.shape
        assert (found.double() - wanted).abs().max() <= bound * wanted.abs().max().clamp(min=1)


@pytest.mark.parametrize(
    ("reduce", "relu", "with_edge", "along", "columns"),
    [
        ("sum", True, True, 1, 5), ("sum", False, False, 0, 33), ("mean", True, True, 0, 3),
        ("mean", False, True, None, 4), ("max", True, True, 1, 3), ("max", False, False, 0, 2),
    ],
)  # fmt: skip
def test_propagate(reduce, relu, with_edge, along, columns):
    relation, product, axis, rows, _ = structure(along)
    shapes = [(rows, columns), (relation.edges, columns)]

    def function(x, edge=None):
        return propagate(x, relation, product=product, along=axis, edge=edge, relu=relu, reduce=reduce)

    compare(function, numbers(*shapes[: 1 + with_edge]))


def attention(score, heads, channels, with_edge, along):
    """The verb, and shapes of its terms."""
    relation, product, axis, rows, outputs = structure(along)
    width = heads * channels
    s = heads if score == "gat" else width
    shapes = [(rows, width), (rows, s), (outputs, s)]
    shapes += [(relation.edges, s)] * with_edge + [(heads, channels)] * (score == "gatv2")

    def function(value, source, target, *others):
        rest = list(others)
        edge = rest.pop(0) if with_edge else None
        vector = rest.pop() if rest else None
        options = {"heads": heads, "score": score, "product": product, "along": axis}
        return attend(value, source, target, relation, edge=edge, vector=vector, **options)

    return function, shapes


@pytest.mark.parametrize(
    ("score", "heads", "channels", "with_edge", "along"),
    [
        ("gat", 4, 3, True, 1), ("gat", 1, 5, False, 0), ("gat", 3, 1, True, None), ("gatv2", 2, 3, True, 0),
        ("transformer", 2, 3, True, 1), ("transformer", 1, 4, False, 0),
    ],
)  # fmt: skip
def test_attend(score, heads, channels, with_edge, along):
    function, shapes = attention(score, heads, channels, with_edge, along)
    compare(function, numbers(*shapes))


def test_double_precision_is_not_lost():
    function, shapes = attention("gatv2", 1, 3, True, 1)
    compare(function, numbers(*shapes, dtype=torch.float64), bound=1e-13)


def test_half_precision_is_added_up_in_single():
    function, shapes = attention("gat", 2, 2, True, 0)
    compare(function, numbers(*shapes, dtype=torch.bfloat16), bound=2**-8)


def test_slices_of_columns_are_read_where_they_are():
    relation, product, axis, rows, outputs = structure(1)
    (block,) = numbers((rows, 9))
    own, (target,) = block.split([6, 2, 1], dim=1), numbers((outputs, 2))
    with use_kernels("triton"):
        out = attend(own[0], own[1], target, relation, heads=2, product=product, along=axis)
        copied = attend(own[0].clone(), own[1].clone(), target, relation, heads=2, product=product, along=axis)
    assert torch.equal(out, copied)


def test_settled_it_asks_nothing_of_a_batch(monkeypatch):
    """On the device of shapes alone, where a question whose answer depends on data is an error."""
    monkeypatch.setattr(gpu, "available", lambda: True)
    relation, product, axis, rows, outputs = structure(1)
    own = Product(product.left, relation.target)
    settled = Relation(relation.source, relation.target, relation.index).settle(product, axis)
    assert not settled._expansions
    settled = settled.to("meta")
    ((product, _),) = settled._gatherings
    x, target = (torch.empty(count, 6, device="meta", requires_grad=True) for count in (rows, outputs))
    edge = torch.empty(relation.edges, 6, device="meta", requires_grad=True)
    vector = torch.empty(2, 3, device="meta", requires_grad=True)
    sent = propagate(x, settled, product=product, along=axis, edge=edge, relu=True)
    seen = attend(x, x, target, settled, heads=2, score="gatv2", edge=edge, vector=vector, product=product, along=axis)
    (sent + seen).sum().backward()
    assert sent.shape == seen.shape == (own.total, 6)
    assert all(tensor.grad.shape == tensor.shape for tensor in (x, target, edge, vector))


@pytest.mark.skipif(DEVICE == "cuda", reason="kernels are compiled here")
def test_who_asks_for_it_on_a_cpu_is_told_how(monkeypatch):
    import triton

    from coset.relations.gpu import propagation

    monkeypatch.setattr(triton, "JITFunction", type(propagation.forward))
    with pytest.raises(CosetError, match="TRITON_INTERPRET=1"):
        gpu.check_runs(torch.zeros(1))
