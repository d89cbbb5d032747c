"""Train a LoL model: build it by name, fit it, score it."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from jaxtyping import Float
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional as F

from coset.weights.lora.data.factors import Factors, Layout, count, select
from coset.weights.lora.models.base import LolModel
from coset.weights.lora.models.features import Alignment, FeatureModel, flat, products, spectra
from coset.weights.lora.models.glnet import GLNet
from coset.weights.lora.models.kernel import KernelRidge
from coset.weights.lora.models.tokens import FactorTransformer, TripleTransformer

Task = Literal["classification", "regression"]
MODELS = ("flat", "transformer", "o_align", "balanced", "svd", "w2t", "dense", "glnet", "glnet2", "kernel")
"""glnet has one equivariant layer, glnet2 two with a gate between."""
ANY_RANK = ("w2t", "dense", "glnet", "glnet2", "kernel")
"""Models without a weight that depends on the rank of adapters; the others take ranks up to that of training."""


def build(
    name: str, layout: Layout, training: Factors, outputs: int, *, width: int = 16, hidden: int = 128,
    dense_hidden: int = 32, token_width: int = 64, norm: bool = False, head: str = "full", gate: str = "sign",
    dropout: float = 0.0, seed: int = 0,
) -> LolModel:  # fmt: skip
    """An untrained model; its weights, and the template of an aligning one, follow from the seed."""
    torch.manual_seed(seed)
    template = select(training, torch.randint(count(training), (1,)))
    if name == "glnet" or name == "glnet2":
        layers = 2 if name == "glnet2" else 1
        return GLNet(
            layout, training, width, layers, hidden, outputs, norm=norm, head=head, gate=gate, dropout=dropout
        )  # fmt: skip
    if name == "transformer":
        return FactorTransformer(layout, training, token_width, hidden, outputs)
    if name == "w2t":
        return TripleTransformer(layout, training, token_width, hidden, outputs)
    if name == "dense":
        return FeatureModel(products, training, dense_hidden, outputs, 10.0)
    if name == "svd":
        return FeatureModel(spectra, training, hidden, outputs, 10.0)
    if name == "flat":
        return FeatureModel(flat, training, hidden, outputs, None)
    if name in ("o_align", "balanced"):
        balance = name == "balanced"
        return FeatureModel(Alignment(template, balance), training, hidden, outputs, 10.0 if balance else 1.0)
    raise ValueError(f"model {name!r} is unknown; choose from {', '.join(MODELS)}")


def fit(
    model: LolModel,
    task: Task,
    training: tuple[Factors, Tensor],
    validation: tuple[Factors, Tensor],
    *,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Adam; the weights of the epoch with the smallest validation loss are kept.

    Targets are ``[adapters, outputs]``: 0 or 1, or standardised numbers.

    Returns:
        Training and validation loss of every epoch.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    with torch.no_grad():
        inputs, held_out = model.precompute(training[0]), model.precompute(validation[0])
    best, kept, history = float("inf"), copy.deepcopy(model.state_dict()), []
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(training[1]), generator=generator).split(batch_size):
            loss = loss_of(task, model.predict(model.batch(inputs, rows)), training[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        model.eval()
        with torch.no_grad():
            value = float(loss_of(task, model.predict(held_out), validation[1]))
        history.append({"epoch": epoch, "train_loss": total / len(training[1]), "val_loss": value})
        if value < best:
            best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return history


def loss_of(task: Task, prediction: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits, or mean squared error."""
    if task == "classification":
        return F.binary_cross_entropy_with_logits(prediction, target)
    return F.mse_loss(prediction, target)


def fit_kernel(task: Task, training: tuple[Factors, Tensor], validation: tuple[Factors, Tensor]) -> KernelRidge:
    """Kernel ridge regression; labels become -1 and 1, so that its sign decides."""
    (x, y), (x_val, y_val) = training, validation
    if task == "classification":
        y, y_val = 2 * y - 1, 2 * y_val - 1
    return KernelRidge(x, y, (x_val, y_val))


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
