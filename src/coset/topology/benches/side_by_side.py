"""Many networks of one architecture in one pass, each on its own equal share of the rows.

``torch.func.vmap`` needs rectangular tensors; complexes are ragged, and their relations are index sets. Here a batch
stays one batch: its complexes come network by network, every network has equally many cells of each rank, and only
modules with weights know that there are several networks.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coset.topology.models.homp import OwnWeight


def side_by_side(model: nn.Module, count: int) -> nn.Module:
    """``count`` copies of a network as one module, their weights stacked: parameters become [count, ...].

    Rows of all ranks must come network by network, equally many for each.

    Raises:
        ValueError: A module with weights that is not known here, such as BatchNorm.
    """
    made = _STACKED.get(type(model))
    if made is not None:
        return made(model, count)
    if any(True for own in (model.parameters, model.buffers) for _ in own(recurse=False)):
        known = ", ".join(kind.__name__ for kind in _STACKED)
        raise ValueError(f"{type(model).__name__} cannot run side by side: modules with weights may be {known}")
    stacked = copy.copy(model)
    stacked._modules = {
        name: child if child is None else side_by_side(child, count) for name, child in model._modules.items()
    }
    return stacked


def _stack(weight: Tensor, count: int) -> nn.Parameter:
    return nn.Parameter(weight.detach().expand(count, *weight.shape).clone())


class _Linear(nn.Module):
    def __init__(self, plain: nn.Linear, count: int):
        super().__init__()
        self.weight = _stack(plain.weight, count)
        self.bias = None if plain.bias is None else _stack(plain.bias, count)

    def forward(self, x: Tensor) -> Tensor:
        shares, transposed = x.unflatten(0, (self.weight.size(0), -1)), self.weight.mT
        if self.bias is None:
            return torch.bmm(shares, transposed).flatten(0, 1)
        return torch.baddbmm(self.bias.unsqueeze(1), shares, transposed).flatten(0, 1)


class _LayerNorm(nn.Module):
    def __init__(self, plain: nn.LayerNorm, count: int):
        super().__init__()
        self.shape, self.eps = plain.normalized_shape, plain.eps
        self.weight, self.bias = _stack(plain.weight, count), _stack(plain.bias, count)

    def forward(self, x: Tensor) -> Tensor:
        shares = F.layer_norm(x, self.shape, eps=self.eps).unflatten(0, (self.weight.size(0), -1))
        return torch.addcmul(self.bias.unsqueeze(1), shares, self.weight.unsqueeze(1)).flatten(0, 1)


class _Embedding(nn.Module):
    def __init__(self, plain: nn.Embedding, count: int):
        super().__init__()
        self.weight = _stack(plain.weight, count)

    def forward(self, index: Tensor) -> Tensor:
        count, entries, _ = self.weight.shape
        first = torch.arange(count, device=index.device).unsqueeze(1) * entries
        return F.embedding((index.unflatten(0, (count, -1)) + first).flatten(), self.weight.flatten(0, 1))


class _OwnWeight(nn.Module):
    def __init__(self, plain: OwnWeight, count: int):
        super().__init__()
        self.eps = _stack(plain.eps, count)

    def forward(self, x: Tensor) -> Tensor:
        shares = x.unflatten(0, (self.eps.size(0), -1))
        return ((1 + self.eps).unsqueeze(1) * shares).flatten(0, 1)


_STACKED = {nn.Linear: _Linear, nn.LayerNorm: _LayerNorm, nn.Embedding: _Embedding, OwnWeight: _OwnWeight}
