"""Supervised learning on whole graphs: regression, binary and multi-label classification, missing labels masked."""

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error, r2_score

Task = Literal["regression", "classification"]
MONITOR: dict[str, Literal["min", "max"]] = {
    "rmse": "min",
    "mae": "min",
    "r2": "max",
    "auroc": "max",
    "ap": "max",
    "accuracy": "max",
    "loss": "min",
}


def metrics_of(
    task: Task, prediction: Float[Tensor, "graphs targets"], target: Float[Tensor, "graphs targets"]
) -> dict[str, float]:
    """Metrics averaged over targets; NaN is left out, and targets that a metric cannot judge are skipped.

    Regression: rmse, mae, r2 in the units of the target.
    Classification (predictions are probabilities): auroc, ap, accuracy.
    """
    collected: dict[str, list[float]] = {}
    for p, t in zip(prediction.T, target.T):
        known = ~t.isnan()
        p, t = p[known], t[known]
        for name, value in (_regression(p, t) if task == "regression" else _classification(p, t)).items():
            collected.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in collected.items()}


def _regression(p: Tensor, t: Tensor) -> dict[str, float]:
    if not len(t):
        return {}
    p, t = p.double(), t.double()
    result = {"rmse": float(mean_squared_error(p, t, squared=False)), "mae": float(mean_absolute_error(p, t))}
    if len(t) > 1 and float(t.var()) > 0:
        result["r2"] = float(r2_score(p, t))
    return result


def _classification(p: Tensor, t: Tensor) -> dict[str, float]:
    if not len(t):
        return {}
    result = {"accuracy": float(((p > 0.5) == (t > 0.5)).double().mean())}
    if 0 < float(t.sum()) < len(t):
        result |= {"auroc": float(binary_auroc(p, t.long())), "ap": float(binary_average_precision(p, t.long()))}
    return result


class GraphTask(pl.LightningModule):
    """A graph network with its loss, target scaling and optimiser.

    Targets of a regression are standardised with the training set's mean and deviation inside the module, so
    predictions come out in the user's units and a checkpoint carries the scale with it.

    Args:
        model: PyG batch -> ``[graphs, targets]``.
        task: ``regression`` or ``classification`` (one logit a target).
        targets: Training targets ``[graphs, targets]``, for the scale; NaN marks missing ones.
        loss: ``l1`` or ``mse`` for regression; classification always uses cross-entropy.
        learning_rate, weight_decay: Of AdamW (Adam when the decay is 0).
        schedule: ``constant``, ``plateau`` (halves when validation stalls) or ``cosine`` (with a linear warm-up).
        patience: Epochs without progress before ``plateau`` halves the rate.
        warmup: Epochs of warm-up for ``cosine``.
        epochs: Length of the cosine.
        monitor: Validation metric that the plateau watches.
        seed: Randomness of epoch e derives from (seed, e), so a resumed run repeats an uninterrupted one.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        targets: Float[Tensor, "graphs targets"],
        *,
        loss: str = "l1",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        patience: int = 20,
        warmup: int = 5,
        epochs: int = 100,
        monitor: str = "mae",
        seed: int = 0,
    ):
        super().__init__()
        self.model, self.task, self.loss, self.monitor, self.seed = model, task, loss, monitor, seed
        self.optimiser: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
        self.schedule, self.patience, self.warmup, self.epochs = schedule, patience, warmup, epochs
        mean, scale = torch.zeros(targets.size(1)), torch.ones(targets.size(1))
        if task == "regression":
            mean = targets.double().nanmean(0).nan_to_num().float()
            spread = ((targets - mean) ** 2).double().nanmean(0).sqrt().float()
            scale = torch.where(spread > 0, spread, torch.ones_like(spread)).nan_to_num(1.0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self._outputs: list[tuple[Tensor, Tensor]] = []
        self.losses: list[Tensor] = []

    def forward(self, batch: Batch) -> Float[Tensor, "graphs targets"]:
        """Predictions: values in the target's units, or probabilities."""
        out = self.model(batch)
        return out * self.scale + self.mean if self.task == "regression" else out.sigmoid()

    def _loss(self, batch: Batch) -> Tensor:
        known: Bool[Tensor, "graphs targets"] = ~batch.y.isnan()
        out = self.model(batch)[known]
        target = ((batch.y - self.mean) / self.scale)[known]
        if not len(target):
            return self.model(batch).sum() * 0
        if self.task == "classification":
            return F.binary_cross_entropy_with_logits(out, target)
        return F.l1_loss(out, target) if self.loss == "l1" else F.mse_loss(out, target)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.seed * 100_003 + self.current_epoch)
        self.losses = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self._loss(batch)
        self.losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train_loss", torch.stack(self.losses).mean(), sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        self._outputs = []

    def validation_step(self, batch: Batch, _: int) -> None:
        self._outputs.append((self(batch), batch.y))

    def on_validation_epoch_end(self) -> None:
        prediction, target = (torch.cat(column) for column in zip(*self._outputs))
        if self.trainer.world_size > 1:
            prediction, target = (torch.cat(list(self.all_gather(t))) for t in (prediction, target))
        for name, value in metrics_of(self.task, prediction.float(), target.float()).items():
            self.log(f"val_{name}", value, prog_bar=name == self.monitor, rank_zero_only=False, sync_dist=True)

    def configure_optimizers(self) -> Any:
        kind = torch.optim.AdamW if self.optimiser["weight_decay"] else torch.optim.Adam
        optimiser = kind(self.parameters(), **self.optimiser)
        if self.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser, MONITOR[self.monitor], factor=0.5, patience=self.patience, min_lr=1e-6
            )
            return {
                "optimizer": optimiser,
                "lr_scheduler": {"scheduler": plateau, "monitor": f"val_{self.monitor}", "strict": False},
            }
        if self.schedule == "cosine":
            return {"optimizer": optimiser, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimiser, self._cosine)}
        return optimiser

    def _cosine(self, epoch: int) -> float:
        if epoch < self.warmup:
            return (epoch + 1) / (self.warmup + 1)
        progress = (epoch - self.warmup) / max(1, self.epochs - self.warmup)
        return 0.5 * (1 + float(torch.cos(torch.tensor(min(progress, 1.0) * torch.pi))))
