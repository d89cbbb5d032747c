r"""Group averaging: the equivariant map nearest to a given one.

For a finite group (or a compact one, with the Haar measure for the mean), the Reynolds operator

    (R f)(x) = 1/|G| sum_g g^-1 f(g x)

turns any map f into an equivariant one, and leaves equivariant maps as they are; with the trivial action on outputs
it gives an invariant map. See e.g. Yarotsky, "Universal approximations of invariant maps by neural networks", 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from coset.symmetry.actions import Action, TrivialAction
from coset.symmetry.equivariance import Claim
from coset.symmetry.values import map_tensors

MAX_ELEMENTS = 100_000


class GroupAverage(nn.Module):
    """A map averaged over a group: 1/|G| sum_g g^-1 f(g x).

    With neither ``samples`` nor ``elements`` the sum runs over the whole (finite) group and the symmetry is exact. With
    ``samples`` it is an unbiased estimate: in training mode new elements are drawn at every call from PyTorch's own
    random numbers; in evaluation mode they come from ``seed``, so that the map is a fixed one.

    Args:
        f: A module or function of one argument; its output is a floating-point tensor, or a tuple, list or dict of
            these.
        action_in: Action on the inputs.
        action_out: Action of the same elements on the outputs; an invariant map if left out.
        samples: Number of elements to draw.
        elements: The elements to average over, e.g. those of a subgroup.
        seed: Of the elements drawn in evaluation mode.

    Raises:
        ValueError: Both ``samples`` and ``elements``, or none of either; when called, an infinite or huge group
            without them.
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        action_in: Action,
        action_out: Action | None = None,
        *,
        samples: int | None = None,
        elements: Sequence[Any] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if samples is not None and elements is not None:
            raise ValueError("give samples= (how many to draw) or elements= (which ones), not both")
        if (samples is not None and samples < 1) or (elements is not None and not elements):
            raise ValueError("an average needs at least one element of the group")
        self.f = f
        self.action_in, self.action_out = action_in, action_out or TrivialAction()
        self.samples, self.listed, self.seed = samples, elements, seed

    def _elements(self, x: Any) -> Iterable[Any]:
        if self.listed is not None:
            return self.listed
        if self.samples is None:
            order = self.action_in.order(x)
            if order is not None and order > MAX_ELEMENTS:
                raise ValueError(f"{self.action_in.name} has {order} elements here: draw some of them with samples=")
            return self.action_in.elements(x)
        seed = int(torch.randint(2**62, ())) if self.training else self.seed
        generator = torch.Generator().manual_seed(seed)
        return (self.action_in.sample(x, generator) for _ in range(self.samples))

    def forward(self, x: Any) -> Any:
        total: Any = None
        count = 0
        for element in self._elements(x):
            term = self.action_out.undo(element, self.f(self.action_in.apply(element, x)))
            total = term if total is None else map_tensors(torch.add, total, term)
            count += 1
        return map_tensors(lambda t: t / count, total)

    def symmetry(self) -> tuple[Claim, ...]:
        """Exact averages claim what they were made for; estimates and averages over listed elements claim nothing."""
        if self.samples is not None or self.listed is not None:
            return ()
        return (Claim(self.action_in, self.action_out, "averaged over the whole group"),)

    def extra_repr(self) -> str:
        extent = "listed elements" if self.listed is not None else f"samples={self.samples or 'all'}"
        return f"{self.action_in.name} -> {self.action_out.name}, {extent}"


def symmetrize(
    f: Callable[[Any], Any],
    action_in: Action,
    action_out: Action | None = None,
    *,
    samples: int | None = None,
    elements: Sequence[Any] | None = None,
    seed: int = 0,
) -> GroupAverage:
    """f made equivariant by :class:`GroupAverage`, whose arguments these are."""
    return GroupAverage(f, action_in, action_out, samples=samples, elements=elements, seed=seed)
