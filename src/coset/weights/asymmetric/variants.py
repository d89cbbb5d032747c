"""Variants of a network in recipes: how their symmetry is broken, and what is left of it."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coset.core.options import Options
from coset.symmetry import EquivarianceReport, check_equivariance
from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec

PerLayer = int | float | list[int | float] | dict[str, int | float]


class VariantOptions(Options):
    """How the symmetry is broken, if it is.

    Attributes:
        ungated: Patterns of activations that sigma leaves as they are. The released ResNet20 of the paper's sigma row
            has fixed entries in all blocks and one gate, behind its first convolution: w+sigma with ``blocks.*`` here.
    """

    method: Literal["standard", "w", "sigma", "w+sigma"] = "standard"
    n_fix: PerLayer = 0.125
    kappa: PerLayer = 1.0
    std: PerLayer = 1.0
    divide_by_root_width: bool = False
    filters: bool = False
    ungated: list[str] = []
    learning_rate: float | None = Field(None, gt=0, description="another than that of training")
    networks: int | None = Field(None, ge=2, description="another number than the recipe's")

    def apply(self, network: nn.Module, example: Tensor, seed: int) -> nn.Module:
        """The variant of a standard network."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kappa = 0 and whole rows are wanted here
            if "w" in self.method.split("+"):
                network = asymmetrize(network, "w", n_fix=self.n_fix, kappa=self.kappa, filters=self.filters, seed=seed)
            if "sigma" in self.method.split("+"):
                network = asymmetrize(
                    network, "sigma", std=self.std, divide_by_root_width=self.divide_by_root_width, seed=seed,
                    skip=self.ungated, example=(example,),
                )  # fmt: skip
        return network


def invariance(model: nn.Module, inputs: Tensor, name: str) -> EquivarianceReport:
    """How far a network's function is from invariant under permutations of its neurons, in float64."""
    spec = permutation_spec(model)
    double = model.double().eval()
    state = dict(double.state_dict())
    x = inputs.double()
    return check_equivariance(
        lambda moved: torch.func.functional_call(double, moved, (x,)),
        state,
        NeuronPermutation(spec),
        statement=f"{name}: the function does not change under {spec}",
    )
