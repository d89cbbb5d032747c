"""Networks that predict from the weights of classifiers how accurate those are: metanetworks (arXiv 2405.20231).

None of them is equivariant: what a permutation of neurons does to their input they have to learn, or it does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional

from coset.runs.fit import Loop, fit
from coset.weights.asymmetric.networks import seeded

LARGEST = 5.0  # of a standardised feature


def flat_mlp(inputs: int) -> nn.Module:
    """Linear, ReLU, LayerNorm, Linear, on all entries."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 1))


def statistics_mlp(inputs: int) -> nn.Module:
    """Two hidden layers of 256, on statistics of each parameter."""
    return nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))


class DeepSets(nn.Module):
    """Every entry by itself to 64 channels, their mean, an MLP: permutations of all entries do not show."""

    def __init__(self, inputs: int):
        super().__init__()
        self.each = nn.Sequential(nn.Linear(1, 64), nn.LayerNorm(64), nn.ReLU())
        self.all = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: Float[Tensor, "networks entries"]) -> Float[Tensor, "networks 1"]:
        return self.all(self.each(x[..., None]).mean(1))


class Standardise(nn.Module):
    """Mean 0 and deviation 1 on some rows, at most LARGEST beyond them.

    Args:
        x: The rows.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, x: Float[Tensor, "rows features"]):
        super().__init__()
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("deviation", x.std(0).clamp(min=1e-6))

    def forward(self, x: Float[Tensor, "networks features"]) -> Float[Tensor, "networks features"]:
        return ((x - self.mean) / self.deviation).clamp(-LARGEST, LARGEST)


@dataclass(frozen=True)
class Score:
    """On networks that were not trained on.

    Attributes:
        r2: Coefficient of determination.
        tau: Kendall's rank correlation.
        rate: The learning rate that was best on the validation part.
    """

    r2: float
    tau: float
    rate: float


def fit_metanet(
    build: Callable[[int], nn.Module],
    features: Float[Tensor, "networks features"],
    accuracy: Float[Tensor, " networks"],
    *,
    rates: Sequence[float] = (1e-4, 1e-3, 1e-2),
    epochs: int = 50,
    batch_size: int = 128,
    seed: int = 0,
) -> tuple[Score, nn.Module, Tensor]:
    """Train on half of the networks, choose rate and epoch on a quarter, score on the last quarter.

    Features are standardised by the training part and cut off at five deviations. AdamW with weight decay 0.01, squared
    error.

    Returns:
        The score, the metanetwork (it takes features as they are given here), and the test rows.
    """
    g = torch.Generator().manual_seed(seed)
    number = len(accuracy)
    order = torch.randperm(number, generator=g)
    train, val, test = order.split([number // 2, number // 4, number - number // 2 - number // 4])
    x, y = features.float(), accuracy.float()
    scale = Standardise(x[train])
    best: tuple[float, float, nn.Module] = (-torch.inf, 0.0, nn.Identity())
    for rate in rates:
        model = nn.Sequential(scale, seeded(lambda: build(x.size(1)), seed))
        value = _fit_at(rate, model, (x[train], y[train]), (x[val], y[val]), g, epochs, batch_size)
        if value > best[0]:
            best = (value, rate, model)
    with torch.no_grad():
        answer = best[2](x[test]).squeeze(1)
    return Score(r2(answer, y[test]), tau(answer, y[test]), best[1]), best[2], test


def _fit_at(
    rate: float, model: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], g: torch.Generator,
    epochs: int, batch_size: int,
) -> float:  # fmt: skip
    """Train at one rate, in place: the epoch with the best R2 on the validation part, which is returned, counts."""
    (x, y), (x_val, y_val) = train, val

    @torch.no_grad()
    def judge() -> dict[str, float]:
        return {"r2": r2(model(x_val).squeeze(1), y_val)}

    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01),
        loss=lambda rows: functional.mse_loss(model(x[rows]).squeeze(1), y[rows]),
        batches=lambda _: torch.randperm(len(y), generator=g).split(batch_size),
        epochs=epochs,
        judge=judge,
        monitor="r2",
        better="max",
    )
    return max(row["r2"] for row in fit(loop))


def r2(answer: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
    """1 - squared error over that of the mean."""
    return float(1 - (answer - truth).square().sum() / (truth - truth.mean()).square().sum().clamp(min=1e-12))


def tau(answer: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
    """Kendall's tau-b; 0 where one of both is constant."""
    found = kendalltau(answer.numpy(), truth.numpy()).statistic
    return float(found) if found == found else 0.0
