"""The verbs in plain PyTorch, on any device and in any precision: what the fused kernels are held to.

Every function takes rows of features and the expanded edges of a relation (:meth:`Relation.expand`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def scatter(message: Float[Tensor, "edges *c"], target: Int[Tensor, " edges"], rows: int, reduce: str) -> Tensor:
    """Reduce messages by target; a target without messages gets 0."""
    result = message.new_zeros(rows, *message.shape[1:])
    if reduce == "sum":
        return result.index_add(0, target, message)
    index = target.reshape(-1, *[1] * (message.dim() - 1)).expand_as(message)
    mode = {"mean": "mean", "max": "amax"}[reduce]
    return result.scatter_reduce(0, index, message, mode, include_self=False)


def propagate(
    x: Float[Tensor, "inputs c"],
    edges: tuple[Tensor, Tensor, Tensor],
    rows: int,
    edge: Float[Tensor, "edges c"] | None,
    relu: bool,
    reduce: str,
) -> Float[Tensor, "outputs c"]:
    source, target, number = edges
    message = x[source]
    if edge is not None:
        message = message + edge[number]
    return scatter(message.relu() if relu else message, target, rows, reduce)


def scores(
    kind: str,
    source: Tensor,
    target: Tensor,
    edge: Tensor | None,
    vector: Tensor | None,
    heads: int,
    slope: float,
) -> Float[Tensor, "edges heads"]:
    """Attention logits of every edge from its gathered source, target and edge terms."""

    def split(t: Tensor) -> Tensor:
        return t.unflatten(1, (heads, t.size(1) // heads))

    leaky = torch.nn.functional.leaky_relu
    if kind == "transformer":
        key = source if edge is None else source + edge
        return (split(target) * split(key)).sum(-1) / split(key).size(-1) ** 0.5
    logit = source + target if edge is None else source + target + edge
    if kind == "gat":
        return leaky(logit, slope)
    assert vector is not None
    return (split(leaky(logit, slope)) * vector).sum(-1)


def attention_weights(
    source: Tensor,
    target: Tensor,
    edges: tuple[Tensor, Tensor, Tensor],
    rows: int,
    heads: int,
    kind: str,
    edge: Tensor | None,
    vector: Tensor | None,
    slope: float,
) -> Float[Tensor, "edges heads"]:
    """The softmax over the edges that arrive at one row, for every edge."""
    row_in, row_out, number = edges
    term = None if edge is None else edge[number]
    logit = scores(kind, source[row_in], target[row_out], term, vector, heads, slope)
    top = scatter(logit.detach(), row_out, rows, "max")
    weight = (logit - top[row_out]).exp()
    return weight / scatter(weight, row_out, rows, "sum")[row_out]


def attend(
    value: Float[Tensor, "inputs hc"],
    source: Tensor,
    target: Tensor,
    edges: tuple[Tensor, Tensor, Tensor],
    rows: int,
    heads: int,
    kind: str,
    edge: Tensor | None,
    vector: Tensor | None,
    slope: float,
) -> Float[Tensor, "outputs hc"]:
    row_in, row_out, number = edges
    weight = attention_weights(source, target, edges, rows, heads, kind, edge, vector, slope)
    message = value[row_in]
    if kind == "transformer" and edge is not None:
        message = message + edge[number]
    message = message.unflatten(1, (heads, message.size(1) // heads)) * weight.unsqueeze(-1)
    return scatter(message, row_out, rows, "sum").flatten(1)
