"""Training of models on adapters by gradients, and how they are scored."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional as F

from coset.runs import fit as runs
from coset.runs.fit import Loop, Row
from coset.weights.lora.data.factors import Factors, count, select
from coset.weights.lora.models.base import LolModel

Task = Literal["classification", "regression"]
Examples = tuple[Factors, Tensor]
"""Adapters, and targets ``[adapters, outputs]``: 0 or 1, or standardised numbers."""


def fit(
    model: LolModel, task: Task, training: Examples, validation: Examples, *, epochs: int = 30, batch_size: int = 32,
    learning_rate: float = 1e-3, weight_decay: float = 0.0, seed: int = 0,
) -> list[Row]:  # fmt: skip
    """Adam; the weights of the epoch with the smallest validation loss are kept.

    Returns:
        Training and validation loss of every epoch.

    Raises:
        CosetError: Training diverged.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        inputs, held_out = model.precompute(training[0]), model.precompute(validation[0])

    @torch.no_grad()
    def judge() -> dict[str, float]:
        model.eval()
        return {"val_loss": float(loss_of(task, model.predict(held_out), validation[1]))}

    loop = Loop(
        model,
        torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True),
        loss=lambda rows: loss_of(task, model.predict(model.batch(inputs, rows)), training[1][rows]),
        batches=lambda _: torch.randperm(len(training[1]), generator=generator).split(batch_size),
        epochs=epochs,
        seed=seed,
        judge=judge,
        monitor="val_loss",
    )
    return runs.fit(loop)


def loss_of(task: Task, prediction: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits, or mean squared error."""
    if task == "classification":
        return F.binary_cross_entropy_with_logits(prediction, target)
    return F.mse_loss(prediction, target)


@torch.no_grad()
def predict(model: nn.Module, factors: Factors, batch_size: int = 256) -> Float[Tensor, "adapters outputs"]:
    """Outputs in evaluation mode."""
    model.eval()
    starts = range(0, count(factors), batch_size)
    return torch.cat([model(select(factors, slice(i, i + batch_size))).float() for i in starts])


def score(task: Task, prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Averages over outputs. Classification: accuracy at 0, AUROC; regression: R2, Kendall's tau, RMSE."""
    from torchmetrics.functional.classification import binary_auroc

    p, t = prediction.double(), target.double()
    if task == "classification":
        result = {"accuracy": float(((p > 0) == (t > 0.5)).double().mean())}
        judged = [i for i in range(t.size(1)) if 0 < float(t[:, i].sum()) < len(t)]
        if judged:
            areas = [float(binary_auroc(torch.sigmoid(p[:, i]), t[:, i].long())) for i in judged]
            result["auroc"] = sum(areas) / len(areas)
        return result
    error, spread = (p - t).square().sum(0), (t - t.mean(0)).square().sum(0)
    taus = [float(kendalltau(p[:, i].numpy(), t[:, i].numpy()).statistic) for i in range(t.size(1))]
    return {
        "r2": float((1 - error / spread.clamp(min=1e-300)).mean()), "tau": sum(taus) / len(taus),
        "rmse": float((p - t).square().mean().sqrt()),
    }  # fmt: skip
