"""Deep Sets (Zaheer et al. 2017): S_n acts on the points of a set."""

from typing import Any

import torch
from torch import Tensor, nn

from coset.symmetry import Action, Claim, TrivialAction


class PointPermutation(Action):
    """S_n on the points of ``[sets, points, columns]``."""

    name = "S_n on points"

    def sample(self, value: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randperm(value.size(1), generator=generator)

    def apply(self, element: Tensor, value: Tensor) -> Tensor:
        return value[:, element]

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return h[g]

    def inverse(self, g: Tensor) -> Tensor:
        return g.argsort()


class DeepSets(nn.Module):
    """rho(mean over points of phi(point))."""

    def __init__(self, columns: int, outputs: int, width: int = 32):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.rho = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Any:
        return self.rho(self.phi(x).mean(1))

    def symmetry(self) -> tuple[Claim, ...]:
        return (Claim(PointPermutation(), TrivialAction(), "the order of the points changes nothing"),)
