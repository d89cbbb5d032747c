r"""What the weights do not see, by a small denoiser trained on *other* inputs: a learned prior used plug-and-play.

A perceptron D(y, s) is trained to give back x from y = x + s e, e standard normal, for deviations s from 1 to .05:
then D(y, s) is the mean of x given y, and D(y, s) - y is s^2 times the slope of the log density of y. With it the part
without a trace is filled in as Kadkhodaie and Simoncelli (NeurIPS 2021) fill in what linear measurements miss: noise
of a deviation that falls step by step is added, removed by D, and what the weights see is put back each time. The mean
of several such runs is taken: one run is one likely input, the mean is nearer to all of them. Up to the group: every
g x that the weights cannot tell apart is filled in, the one that D denoises best is kept (the sum over s of
|D(x + s e) - x|^2 / s^2 bounds its negative log likelihood), and moved back.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.privacy.groups import FiniteGroup

MOST, LEAST = 1.0, 0.05
"""Deviations of the noise, for inputs with entries of about -1 to 1."""
WIDTH = 256
BATCH = 128


class Denoiser(nn.Module):
    """A perceptron of two hidden layers that takes noise of a known deviation from inputs.

    What it adds to the best linear guess for inputs of one variance is what it learns (Karras et al., NeurIPS 2022):
    at every deviation its input and its output have about unit variance.

    Args:
        inputs: Of the kind that it is to know, without noise; their mean and deviation are kept.
        width: Of the hidden layers.
        seed: Of its weights.
    """

    mean: Tensor

    def __init__(self, inputs: Float[Tensor, "k d"], width: int = WIDTH, seed: int = 0):
        super().__init__()
        self.register_buffer("mean", inputs.mean(0))
        self.deviation = float((inputs - inputs.mean(0)).square().mean().sqrt())
        d = inputs.size(1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(d + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, d)
            )

    def forward(self, y: Float[Tensor, "m d"], noise: Float[Tensor, "m 1"]) -> Float[Tensor, "m d"]:
        """The mean of x given y = x + noise e."""
        own = self.deviation
        size = (noise.square() + own**2).sqrt()
        away = (y - self.mean) / size
        learned = self.layers(torch.cat([away, noise.log() / 4], 1))
        return self.mean + (own**2 * away + noise * own * learned) / size


def train_denoiser(inputs: Float[Tensor, "k d"], *, steps: int = 3000, seed: int = 0) -> Denoiser:
    """Train a denoiser on inputs, all sizes of noise equally likely on a log scale; in single precision.

    Args:
        inputs: Clean ones.
        steps: Of Adam, each on 128 inputs.
        seed: Of weights, noise and batches.
    """
    inputs, generator = inputs.float(), torch.Generator().manual_seed(seed)
    model = Denoiser(inputs, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for step in range(steps):
        x = inputs[torch.randint(len(inputs), (BATCH,), generator=generator)]
        noise = LEAST * (MOST / LEAST) ** torch.rand(BATCH, 1, generator=generator)
        y = x + noise * torch.randn(x.shape, generator=generator)
        weight = 1 / noise.square() + 1 / model.deviation**2  # of an error that is as hard to avoid at every size
        optimizer.zero_grad()
        (weight * (model(y, noise) - x).square()).mean().backward()
        optimizer.param_groups[0]["lr"] = 0.001 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    return model.eval()


@torch.no_grad()
def denoised(
    x: Float[Tensor, "m d"], visible: Float[Tensor, "d r"], model: Denoiser, group: FiniteGroup, *, steps: int = 30,
    tries: int = 8, seed: int = 0,
) -> Float[Tensor, "m d"]:  # fmt: skip
    """Fill in what is not visible by a denoiser, and touch nothing else.

    Args:
        x: Candidates.
        visible: Orthonormal basis of what the weights see; the group leaves its span as it is.
        model: Trained on inputs that the network was not trained on.
        group: Up to which candidates are known.
        steps: Sizes of noise, from the largest to the least.
        tries: Runs with noise of their own, whose mean is taken.
        seed: Of the noise.
    """
    if visible.size(1) == x.size(1):
        return x
    orbit, generator = group.orbit(x), torch.Generator().manual_seed(seed)
    every = orbit.flatten(0, 1)
    seen = (every @ visible @ visible.T).float()
    hidden = (torch.eye(x.size(1), dtype=x.dtype) - visible @ visible.T).float()
    filled = torch.zeros_like(seen)
    for _ in range(tries):
        guess = seen
        for size in _sizes(steps):
            y = guess + size * torch.randn(guess.shape, generator=generator)
            guess = seen + model(y, y.new_full((len(y), 1), size)) @ hidden
        filled += guess / tries
    best = _unlikely(model, filled, generator).view(orbit.shape[:2]).argmin(1)
    whole = filled.double().view(orbit.shape)[torch.arange(len(x)), best]
    upright = torch.stack([row[group.table[g].argsort()] for row, g in zip(whole, best.tolist(), strict=True)])
    return x @ visible @ visible.T + upright - upright @ visible @ visible.T


def _unlikely(
    model: Denoiser, x: Float[Tensor, "m d"], generator: torch.Generator, sizes: int = 8, draws: int = 8
) -> Float[Tensor, " m"]:
    """A bound of the negative log likelihood, up to a constant and a factor; the same noise for all."""
    total = x.new_zeros(len(x))
    for size in _sizes(sizes):
        for noise in size * torch.randn(draws, x.size(1), generator=generator):
            total += (model(x + noise, x.new_full((len(x), 1), size)) - x).square().sum(1) / size**2
    return total


def _sizes(steps: int) -> list[float]:
    """Deviations of noise, falling by one factor a step."""
    return [MOST * (LEAST / MOST) ** (step / max(1, steps - 1)) for step in range(steps)]
