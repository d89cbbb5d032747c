r"""DoRA's magnitudes as input of models: W' = m (W + s U V^T) / ||W + s U V^T|| with norms of rows.

GL(r) does not move m, so that a model may read it next to the factors. Here a magnitude is one more layer of the
adapter, the update (m - m0) 1^T of an n x 1 matrix: a GL-net takes it through a linear map into its head, a kernel by
inner products, and no model needs to know. m0, what an untrained adapter would have, is not in the files; the mean over
the adapters that a model is trained on stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coset.core.errors import CosetError
from coset.weights.lora.data.adapters import LoraAdapter
from coset.weights.lora.data.factors import Factors, Layout

SUFFIX = ".magnitude"


@dataclass(frozen=True)
class Magnitudes:
    """Magnitudes of a batch of adapters, layers of equal size stacked.

    Attributes:
        groups: For each size n the names of the layers.
        values: For each size ``[batch, layers, n]``.
    """

    groups: tuple[tuple[int, tuple[str, ...]], ...]
    values: tuple[Float[Tensor, "batch _layers _n"], ...]

    @classmethod
    def of(cls, adapters: Sequence[LoraAdapter], groups: tuple[tuple[int, tuple[str, ...]], ...]) -> Magnitudes:
        """Those of adapters.

        Raises:
            CosetError: A layer has no magnitude, or one of another size.
        """
        values = tuple(
            torch.stack([torch.stack([_magnitude(a, name, n) for name in names]) for a in adapters])
            for n, names in groups
        )
        return cls(groups, values)

    def mean(self, chosen: Tensor) -> Magnitudes:
        """Over some of the adapters: a batch of one."""
        return Magnitudes(self.groups, tuple(m[chosen].mean(0, keepdim=True) for m in self.values))

    def join(self, layout: Layout, factors: Factors, reference: Magnitudes) -> tuple[Layout, Factors]:
        """Factors with the magnitudes less the reference as further layers, named ``<layer>.magnitude``."""
        rank = factors[0][0].size(-1)
        more, groups = [], []
        for (n, names), m, m0 in zip(self.groups, self.values, reference.values, strict=True):
            u = (m - m0).unsqueeze(-1)
            more.append((F.pad(u, (0, rank - 1)), F.pad(torch.ones_like(u[..., :1, :]), (0, rank - 1))))
            groups.append(((n, 1), tuple(name + SUFFIX for name in names)))
        return Layout((*layout.groups, *groups)), (*factors, *more)

    def select(self, chosen: Tensor) -> Magnitudes:
        """Some of the adapters."""
        return Magnitudes(self.groups, tuple(m[chosen] for m in self.values))


def groups_of(sizes: Mapping[str, int]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Names of layers with magnitudes by their size n, in the order in which they come."""
    groups: dict[int, list[str]] = {}
    for name, n in sizes.items():
        groups.setdefault(n, []).append(name)
    return tuple((n, tuple(names)) for n, names in groups.items())


def _magnitude(adapter: LoraAdapter, name: str, n: int) -> Tensor:
    pair = adapter.layers.get(name)
    if pair is None or pair.magnitude is None:
        raise CosetError(f"{adapter.name}: {name} has no DoRA magnitude")
    if pair.magnitude.numel() != n:
        raise CosetError(f"{adapter.name}: the magnitude of {name} has {pair.magnitude.numel()} numbers; {n} expected")
    return pair.magnitude
