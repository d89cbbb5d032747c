"""Any normalisation of :mod:`coset.graphs.models.norms` in the ``norm`` slot of a PyG model, GRANOLA among them.

PyG calls what is in such a slot with the features, and with ``batch`` if it takes that, but never with the edges.
:func:`attach_edges` lets a model tell its slots, at each pass, which edges it was called with:

>>> import torch
>>> from torch_geometric.nn import GCN
>>> model = attach_edges(GCN(16, 32, num_layers=3, out_channels=1, norm=NormSlot("granola", 32)))
>>> model(torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).shape
torch.Size([3, 1])

In training every pass draws noise anew. In evaluation mode the noise follows from a seed, the place of the slot in the
pass and the number of a node within its graph: a graph gets one result, whatever else is in its batch (give the model
``batch``). :func:`mean_over_draws` averages over several.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coset.graphs.models.granola import settled_noise
from coset.graphs.models.norms import AdaptiveNorm, make_norm
from coset.relations import IndexSet, Relation

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class _Pass:
    """What the slots of one pass of a model share."""

    edge_index: Tensor
    edge_attr: Tensor | None
    batch: Tensor | None
    slots: int = 0
    relation: Relation | None = None

    def between(self, nodes: IndexSet) -> Relation:
        """The edges, laid out for the kernels once a pass."""
        if self.relation is None or self.relation.target.total != nodes.total:
            self.relation = Relation(nodes, nodes, self.edge_index)
        return self.relation


_PASSES: ContextVar[tuple[_Pass, ...]] = ContextVar("passes", default=())
_DRAW: ContextVar[tuple[int, int]] = ContextVar("draw", default=(0, 0))


class NormSlot(nn.Module):
    """A normalisation with the call of PyG's: ``norm(x, batch)``.

    Args:
        name: One of :mod:`coset.graphs.models.norms`.
        channels: Columns of the features.
        edge_channels: Columns of the model's ``edge_attr``, for GRANOLA to read; by default it does not.
        granola: Other options of GRANOLA.

    Shape:
        ``[nodes, channels]`` -> ``[nodes, channels]``.
    """

    def __init__(self, name: str, channels: int, edge_channels: int | None = None, **granola: Any):
        super().__init__()
        self.name, self.reads_edge_attr = name, edge_channels is not None
        self.norm = make_norm(name, channels, edge_channels, **granola)

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        batch: Int[Tensor, " nodes"] | None = None,
        batch_size: int | None = None,
    ) -> Float[Tensor, "nodes channels"]:
        passes = _PASSES.get()
        if batch is None:
            batch = passes[-1].batch if passes else None
        if batch is None:
            batch = torch.zeros(x.size(0), dtype=torch.long, device=x.device)
        if not isinstance(self.norm, AdaptiveNorm):
            return self.norm(x, None, batch)
        if not passes:
            raise RuntimeError(
                f"the norm {self.name!r} needs the edges: call attach_edges(model) once, "
                "or run the model within graph_context(edge_index)"
            )
        if bool((batch[1:] < batch[:-1]).any()):
            raise ValueError("batch must be sorted: the nodes of a graph stand together, as PyG writes them")
        here = passes[-1]
        nodes = IndexSet.from_batch(batch, batch_size)
        columns, noise = self.norm.noise_channels, None
        if columns and not self.training:
            noise = settled_noise(nodes, columns, *_DRAW.get(), here.slots).to(x)
        here.slots += 1
        edge_attr = here.edge_attr if self.reads_edge_attr else None
        return self.norm(x, here.between(nodes), batch, edge_attr=edge_attr, noise=noise)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.norm.reset_parameters()

    def extra_repr(self) -> str:
        return self.name


@contextmanager
def graph_context(
    edge_index: Int[Tensor, "2 edges"],
    edge_attr: Tensor | None = None,
    batch: Int[Tensor, " nodes"] | None = None,
) -> Iterator[None]:
    """The edges that slots see within the body.

    Raises:
        TypeError: ``edge_index`` is no [2, edges] tensor.
    """
    token = _PASSES.set((*_PASSES.get(), _begun(edge_index, edge_attr, batch)))
    try:
        yield
    finally:
        _PASSES.reset(token)


def attach_edges(model: Model) -> Model:
    """Let the slots of a model see the edges it is called with; returns the model.

    ``edge_index``, ``edge_attr`` and ``batch`` are taken from the arguments of these names, or from one that has them
    (``Data``). Slots that are one and the same module (PyG's ``GPSConv`` puts what it is given in all three of its
    slots) become modules of their own with fresh weights: call it before the optimiser is made.

    Raises:
        ValueError: The model has no :class:`NormSlot`.
    """
    slots = [module for module in model.modules() if isinstance(module, NormSlot)]
    if not slots:
        raise ValueError(f"{type(model).__name__} has no NormSlot: pass norm=NormSlot(name, channels) to its layers")
    _part(model)
    model.register_forward_pre_hook(_enter, with_kwargs=True)
    model.register_forward_hook(_leave, always_call=True)
    return model


def mean_over_draws(model: nn.Module, *args: Any, draws: int = 8, seed: int = 0, **kwargs: Any) -> Tensor:
    """Mean output of a model over draws of the noise, in evaluation mode; equal seeds give equal results.

    Raises:
        ValueError: The model is in training mode, or ``draws`` below 1.
    """
    if model.training or draws < 1:
        raise ValueError(f"draws={draws}: at least 1" if draws < 1 else "call model.eval() first")
    total: Any = 0
    for draw in range(draws):
        token = _DRAW.set((seed, draw))
        try:
            total = total + model(*args, **kwargs)
        finally:
            _DRAW.reset(token)
    return total / draws


def _begun(edge_index: Any, edge_attr: Tensor | None, batch: Tensor | None) -> _Pass:
    if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided or edge_index.dim() != 2:
        raise TypeError(f"slots need edge_index as a [2, edges] tensor; got {type(edge_index).__name__}")
    return _Pass(edge_index, edge_attr, batch)


def _part(model: nn.Module) -> None:
    seen: set[int] = set()
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, NormSlot) and id(child) in seen:
                child = copy.deepcopy(child)
                child.reset_parameters()
                setattr(parent, name, child)
            seen.add(id(child))


# Functions of the module rather than closures: a model with these hooks can be copied and pickled.
def _enter(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    given = given | given.get("kwargs", {})
    if "edge_index" not in given:
        data = next((value for value in given.values() if hasattr(value, "edge_index")), None)
        if data is None:
            raise TypeError(
                f"{type(model).__name__}.forward was given no edge_index: run it within graph_context(edge_index)"
            )
        given = {key: getattr(data, key, None) for key in ("edge_index", "edge_attr", "batch")}
    _PASSES.set((*_PASSES.get(), _begun(given["edge_index"], given.get("edge_attr"), given.get("batch"))))


def _leave(model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    _PASSES.set(_PASSES.get()[:-1])
