"""The four verbs on features indexed by sets and products: propagate, attend, marginalise, broadcast.

On the CPU in float32 and float64 they run fused kernels (:mod:`coset.relations.operators`); on CUDA ``propagate`` and
``attend`` run Triton's, if it is installed (:mod:`coset.relations.gpu`); elsewhere the readable
:mod:`coset.relations.reference`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coset.relations import gpu, operators, reference
from coset.relations.index_sets import IndexSet, Product
from coset.relations.relation import Relation

Score = Literal["gat", "gatv2", "transformer"]
Reduction = Literal["sum", "mean", "max"]

Kernels = bool | Literal["triton"]

GPUS = ("cuda", "meta")
"""Where Triton's kernels run; on the device of shapes alone, as if it were one."""

_kernels: Kernels = True  # no ContextVar: torch.compile cannot read one


@contextmanager
def use_kernels(which: Kernels) -> Iterator[None]:
    """Choose how verbs are computed inside a ``with`` block, by all threads (for tests and debugging).

    Args:
        which: ``True``: by fused kernels, those of the CPU or of the GPU where ``x`` lives. ``False``: by the PyTorch
            reference. ``"triton"``: by the GPU's, wherever ``x`` lives; on a CPU ``TRITON_INTERPRET=1`` must be set.
    """
    global _kernels
    before, _kernels = _kernels, which
    try:
        yield
    finally:
        _kernels = before


def kernels_apply(x: Tensor) -> bool:
    """Whether fused kernels for the CPU are wanted, and made for where ``x`` lives."""
    return _kernels is True and x.device.type == "cpu"


def _triton_applies(x: Tensor) -> bool:
    if _kernels == "triton":
        gpu.check_runs(x)
        return True
    return _kernels is True and x.device.type in GPUS and gpu.available()


def _check_rows(name: str, x: Tensor, rows: int, where: str) -> None:
    if x.dim() != 2 or x.size(0) != rows:
        raise ValueError(f"{name} must have shape [{rows}, channels] ({where}); got {tuple(x.shape)}")


def _sizes(relation: Relation, product: Product | None, along: int) -> tuple[int, int]:
    """Number of input and of output rows."""
    if product is None:
        return relation.source.total, relation.target.total
    if product.axis(along) is not relation.source and not torch.equal(product.axis(along).sizes, relation.source.sizes):
        raise ValueError(f"the relation starts from another set than axis {along} of the product")
    return product.total, product.replace(along, relation.target).total


def _common(*tensors: Any) -> tuple[Any, ...]:
    """Bring all to one precision that the kernels know: float64 if any is, else float32."""
    wide = any(t is not None and t.dtype == torch.float64 for t in tensors)
    dtype = torch.float64 if wide else torch.float32
    return tuple(None if t is None else t.to(dtype) for t in tensors)


def propagate(
    x: Float[Tensor, "inputs channels"],
    relation: Relation,
    *,
    product: Product | None = None,
    along: int = 1,
    edge: Float[Tensor, "edges channels"] | None = None,
    relu: bool = False,
    reduce: Reduction = "sum",
) -> Float[Tensor, "outputs channels"]:
    """Send features along the edges of a relation and reduce them at the targets.

    out[i] = reduce over edges e = (k, i) of phi(x[k] + edge[e]), phi the identity or ReLU (Xu et al. 2019,
    Hu et al. 2020).
    On a product the relation acts on axis ``along`` and every index of the other axis is carried along.

    Args:
        x: Features of the source set, or of the product.
        relation: Where messages go.
        product: The product that ``x`` lives on; ``None`` if it lives on the source set itself.
        along: Axis of the product on which the relation acts.
        edge: Term added to the messages, one row an edge of the relation (not of the product).
        relu: Apply ReLU to each message.
        reduce: How messages meet. A target without edges gets 0.

    Raises:
        ValueError: Shapes do not fit the sets, or ``reduce`` is unknown.
    """
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f"reduce={reduce!r}: choose sum, mean or max")
    rows_in, rows_out = _sizes(relation, product, along)
    _check_rows("x", x, rows_in, "one row an input")
    if edge is not None:
        _check_rows("edge", edge, relation.edges, "one row an edge of the relation")
    if _triton_applies(x):
        from coset.relations.gpu import propagate as by_triton

        return by_triton.propagate(x, edge, relation.gathering(product, along), along, rows_out, relu, reduce)
    if not kernels_apply(x):
        return reference.propagate(x, relation.expand(product, along), rows_out, edge, relu, reduce)
    dtype = x.dtype
    x_, edge_ = _common(x, edge)
    return operators.propagate(x_, edge_, relation, product, along, rows_out, relu, reduce).to(dtype)


def attend(
    value: Float[Tensor, "inputs columns"],
    source: Float[Tensor, "inputs s"],
    target: Float[Tensor, "outputs s"],
    relation: Relation,
    *,
    heads: int,
    score: Score = "gat",
    edge: Float[Tensor, "edges s"] | None = None,
    vector: Float[Tensor, "{heads} columns/{heads}"] | None = None,
    slope: float = 0.2,
    product: Product | None = None,
    along: int = 1,
) -> Float[Tensor, "outputs columns"]:
    """Softmax attention over the incoming edges of every target, heads side by side.

    ===============  ==================================================================  =========================
    ``score``        logit of edge e = (k, i), per head                                  message
    ===============  ==================================================================  =========================
    ``gat``          leaky(source[k] + target[i] + edge[e]),   s = heads                 value[k]
    ``gatv2``        vector . leaky(source[k] + target[i] + edge[e]),  s = heads * c     value[k]
    ``transformer``  target[i] . (source[k] + edge[e]) / sqrt(c),  s = heads * c         value[k] + edge[e]
    ===============  ==================================================================  =========================

    (Velickovic et al. 2018; Brody et al. 2022; Shi et al. 2021.) A target without edges gets 0.

    Args:
        value: What is averaged.
        source: Terms of the sending side: logits for ``gat``, keys for ``transformer``.
        target: Terms of the receiving side: logits for ``gat``, queries for ``transformer``.
        relation: Who looks at whom; add loops with :attr:`Relation.with_self_loops`.
        heads: Number of heads; ``value`` has ``heads * c`` columns.
        score: Kind of attention.
        edge: Terms of the relation's own edges (not of the product's).
        vector: The weight vector of ``gatv2``.
        slope: Negative slope of the leaky ReLU.
        product: The product that rows live on; ``None`` for the relation's own sets.
        along: Axis of the product on which the relation acts.

    Raises:
        ValueError: Shapes do not fit, or ``score`` is unknown.
    """
    if score not in ("gat", "gatv2", "transformer"):
        raise ValueError(f"score={score!r}: choose gat, gatv2 or transformer")
    if value.size(1) % heads:
        raise ValueError(f"value has {value.size(1)} columns, which {heads} heads do not divide")
    rows_in, rows_out = _sizes(relation, product, along)
    columns = heads if score == "gat" else value.size(1)
    for name, tensor, rows in (("value", value, rows_in), ("source", source, rows_in), ("target", target, rows_out)):
        _check_rows(name, tensor, rows, f"for {relation}")
    for name, term in (("source", source), ("target", target), ("edge", edge)):
        if term is not None and term.size(1) != columns:
            raise ValueError(f"{name} must have {columns} columns for score={score!r}; got {term.size(1)}")
    if edge is not None:
        _check_rows("edge", edge, relation.edges, "one row an edge of the relation")
    if (vector is not None) != (score == "gatv2"):
        raise ValueError("vector goes with score='gatv2', and only with it")
    if _triton_applies(value):
        from coset.relations.gpu import attend as by_triton

        terms = (value, source, target, edge, vector)
        return by_triton.attend(terms, relation.gathering(product, along), along, heads, score, slope)
    if not kernels_apply(value) or not operators.covers(score, value.size(1)):
        return reference.attend(
            value, source, target, relation.expand(product, along), rows_out, heads, score, edge, vector, slope
        )
    dtype = value.dtype
    value, source, target, edge, vector = _common(value, source, target, edge, vector)
    terms = (value, source, target, edge, vector)
    return operators.attend(terms, relation, product, along, rows_out, heads, score, slope).to(dtype)


def marginalise(
    x: Float[Tensor, "pairs channels"], product: Product, *, along: int, reduce: Reduction = "sum"
) -> Float[Tensor, "elements channels"]:
    """Pool axis ``along`` of a product away: rows of the other axis remain.

    ``along=1`` sums over v and leaves one row for every s; ``along=0`` sums over s and leaves one for every v.
    """
    _check_rows("x", x, product.total, "one row a pair")
    kept = product.axis(1 - along)
    return reference.scatter(x, product.coordinates[1 - along], kept.total, reduce)


def broadcast(
    x: Float[Tensor, "elements channels"], product: Product, *, along: int
) -> Float[Tensor, "pairs channels"]:
    """Repeat features of one axis over axis ``along`` of a product; the adjoint of :func:`marginalise` with ``sum``.

    ``along=0`` repeats a feature of v for every s.
    """
    _check_rows("x", x, product.axis(1 - along).total, f"one row an element of axis {1 - along}")
    return x.index_select(0, product.coordinates[1 - along])


def pool(x: Float[Tensor, "elements channels"], index_set: IndexSet | Product, reduce: Reduction = "sum") -> Tensor:
    """Reduce the rows of every graph to one row a graph."""
    _check_rows("x", x, index_set.total, "one row an element")
    return reference.scatter(x, index_set.batch, index_set.graphs, reduce)
