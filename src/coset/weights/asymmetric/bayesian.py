r"""Variational training of networks with a Gaussian over each layer's weights: diagonal plus low rank.

Tomczak, Swaroop, Turner, "Efficient Low Rank Gaussian Variational Inference for Neural Networks", NeurIPS 2020, as used
by Lim et al. (arXiv 2405.20231) to ask whether symmetries make posteriors hard to fit. For weights and biases w of each
layer q(w) = N(mu, s^2 I + V V^T / K), s fixed, mu and the K columns of V learned; the prior is N(0, 1 / (p * outputs)).
Where an entry is fixed it has no variance and no part in the divergence. Activations are sampled, not weights:
y = mu(x) + s |x| e + sum_k z_k V_k(x) / sqrt(K), with e and z drawn for each row.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from coset.core.errors import CosetError
from coset.runs.fit import descend
from coset.weights.asymmetric.asymmetrize import trainable_masks

BINS = 15  # of the calibration error


class VariationalLinear(nn.Module):
    """A linear map with a Gaussian over its entries.

    Args:
        mean: The map at the mean; its fixed entries, if it has any, stay certain.
        rank: Columns K of V.
        log_variance: log s^2 of the diagonal.
        precision: The prior variance is 1 / (precision * outputs).
    """

    trainable: Tensor

    def __init__(self, mean: nn.Linear, rank: int = 4, log_variance: float = -10.0, precision: float = 0.01):
        super().__init__()
        self.mean, self.rank, self.log_variance = mean, rank, log_variance
        self.prior_variance = 1 / (precision * mean.out_features)
        own = trainable_masks(mean)
        mask = next(value for name, value in own.items() if name != "bias")
        # Half as large as the means, as in the published code.
        size = 0.5 * float(mean.weight.detach()[mask].std()) / math.sqrt(max(rank, 1)) if mask.sum() > 1 else 0.0
        self.factors = nn.Parameter(size * torch.randn(rank, *mean.weight.shape))
        self.bias_factors = nn.Parameter(0.01 * torch.randn(rank, mean.out_features))
        self.register_buffer("trainable", mask.to(self.factors), persistent=False)

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        variance = math.exp(self.log_variance) * (functional.linear(x.square(), self.trainable) + 1)
        y = self.mean(x) + variance.sqrt() * torch.randn_like(variance)
        if self.rank:
            factors = (self.factors * self.trainable).flatten(0, 1)
            shifts = functional.linear(x, factors, self.bias_factors.flatten()).unflatten(-1, (self.rank, -1))
            z = torch.randn(*x.shape[:-1], self.rank, 1).to(x) / math.sqrt(self.rank)
            y = y + (shifts * z).sum(-2)
        return y

    def entries(self) -> tuple[Float[Tensor, " d"], Float[Tensor, "rank d"]]:
        """Means and columns of V / sqrt(K) of the entries that are not fixed, biases last."""
        free = self.trainable.bool()
        mean = torch.cat([self.mean.weight[free], self.mean.bias])
        columns = torch.cat([self.factors[:, free], self.bias_factors], 1) / math.sqrt(max(self.rank, 1))
        return mean, columns

    def divergence(self) -> Float[Tensor, ""]:
        """KL(q || prior); log det by the matrix determinant lemma, on a K x K matrix."""
        mean, columns = self.entries()
        variance, prior = math.exp(self.log_variance), self.prior_variance
        trace = mean.numel() * variance + columns.square().sum()
        small = torch.eye(self.rank).to(columns) + columns @ columns.T / variance
        log_det = (
            mean.numel() * self.log_variance + torch.logdet(small) if self.rank else mean.numel() * self.log_variance
        )
        return 0.5 * ((trace + mean.square().sum()) / prior + mean.numel() * (math.log(prior) - 1) - log_det)


def variational(model: nn.Module, *, rank: int = 4, log_variance: float = -10.0, precision: float = 0.01) -> nn.Module:
    """A copy of a standard or W-asymmetric network with a Gaussian over each linear map; norms stay certain.

    Raises:
        CosetError: There is no Linear with a bias, or another module holds a matrix.
    """
    model = copy.deepcopy(model)
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name, module in found:
        if module.bias is None or not name:
            raise CosetError(
                f"{name or 'the model'}: variational training needs Linear layers with a bias, in a module"
            )
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, VariationalLinear(module, rank, log_variance, precision))
    if not found:
        raise CosetError(f"{type(model).__name__} has no Linear: variational training knows no other layers")
    return model


def divergence(model: nn.Module) -> Float[Tensor, ""]:
    """Sum over all layers."""
    return torch.stack([m.divergence() for m in model.modules() if isinstance(m, VariationalLinear)]).sum()


@dataclass(frozen=True)
class VariationalTraining:
    """How to train.

    Attributes:
        steps: Of Adam.
        batch_size: Rows of a step.
        learning_rate: Of Adam.
        multiplier: The divergence is divided by so many times the rows of the training set.
    """

    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 1e-3
    multiplier: float = 8.0


def train_variational(
    model: nn.Module, inputs: Float[Tensor, "rows inputs"], targets: Int[Tensor, " rows"], how: VariationalTraining,
    *, seed: int = 0, progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> list[float]:  # fmt: skip
    """Minimise cross-entropy + KL / (multiplier * rows), in place.

    Args:
        model: From :func:`variational`.
        inputs: All rows.
        targets: Classes.
        how: Optimisation.
        seed: Of batches and noise.
        progress: Wraps the steps.

    Returns:
        The cross-entropy of every step.

    Raises:
        CosetError: The loss is not finite.
    """
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=how.learning_rate)
    history: list[float] = []
    steps = (progress or iter)(range(how.steps))

    def bound(batch: Tensor) -> Tensor:
        loss = functional.cross_entropy(model(inputs[batch]), targets[batch])
        history.append(loss.item())
        return loss + divergence(model) / (how.multiplier * len(inputs))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        descend(optimizer, bound, _batches(steps, len(inputs), how.batch_size))
    return history


def _batches(steps: Iterable[int], rows: int, size: int) -> Iterator[Int[Tensor, " batch"]]:
    """Rows in random order, again and again; what is left of an order and makes no batch is left out."""
    order = torch.zeros(0, dtype=torch.long)
    for _ in steps:
        if len(order) < min(size, rows):
            order = torch.randperm(rows)
        batch, order = order[:size], order[size:]
        yield batch


@dataclass(frozen=True)
class Prediction:
    """What the mean of sampled class probabilities is worth.

    Attributes:
        loss: Negative log-likelihood.
        accuracy: Share of right answers.
        calibration: Expected calibration error, 15 bins.
    """

    loss: float
    accuracy: float
    calibration: float


def predict(
    model: nn.Module, inputs: Float[Tensor, "rows inputs"], targets: Int[Tensor, " rows"], *, samples: int = 25,
    seed: int = 0,
) -> Prediction:  # fmt: skip
    """Average the class probabilities of several samples, and score them."""
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        chances = torch.stack([model(inputs).softmax(-1) for _ in range(samples)]).double().mean(0)
    right = chances.argmax(1) == targets
    loss = functional.nll_loss(chances.clamp(min=1e-12).log(), targets)
    return Prediction(float(loss), float(right.double().mean()), calibration_error(chances.max(1).values, right))


def calibration_error(confidence: Float[Tensor, " rows"], right: Bool[Tensor, " rows"], bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over bins of confidence, weighted by their rows."""
    number = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64)
    gaps.index_add_(0, number, right.double() - confidence.double())
    return float(gaps.abs().sum() / len(confidence))
