"""Supervised learning on graphs, nodes, edges and links: values, labels and classes, missing ones masked."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from coset.core.errors import CosetError
from coset.graphs.fitting.loaders import place, share
from coset.relations.structure import Structure
from coset.runs import schedules
from coset.runs.metrics import Task, direction, metrics_of
from coset.runs.objective import balanced_weights, check_outputs, check_task, standard, summed_loss
from coset.runs.optimiser import adam
from coset.runs.seeds import seed_everything


class GraphTask(pl.LightningModule):
    """A graph network with its loss, target scaling and optimiser.

    Targets of a regression are standardised with the training set's mean and deviation inside the module, so
    predictions come out in the user's units and a checkpoint carries the scale with it.

    Args:
        model: PyG batch -> ``[graphs, targets]``.
        task: ``regression``, ``classification`` (one logit a target) or ``multiclass`` (one logit a class).
        targets: Training targets ``[graphs, targets]``, for the scale; NaN marks missing ones.
        classes: Names of the classes of a multiclass task, whose numbers the targets are.
        class_weights: ``balanced``: rare labels of one target count as much as common ones in the loss.
        loss: ``l1`` or ``mse`` for regression; classification always uses cross-entropy.
        learning_rate: Of the optimiser, before the schedule.
        weight_decay: AdamW if above 0, else Adam.
        schedule: ``constant``, ``plateau`` (halves when validation stalls) or ``cosine`` (with a linear warm-up).
        patience: Epochs without progress before ``plateau`` halves the rate.
        warmup: Epochs of warm-up for ``cosine``.
        epochs: Length of the cosine.
        monitor: Validation metric that the plateau watches.
        seed: Randomness of epoch e derives from (seed, e), so a resumed run repeats an uninterrupted one.

    Raises:
        CosetError: The targets are not such as the task learns.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        targets: Float[Tensor, "graphs targets"],
        *,
        classes: Sequence[str] = (),
        class_weights: Literal["none", "balanced"] = "none",
        loss: Literal["l1", "mse"] = "l1",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Literal["constant", "plateau", "cosine"] = "constant",
        patience: int = 20,
        warmup: int = 5,
        epochs: int = 100,
        monitor: str = "mae",
        seed: int = 0,
    ):
        super().__init__()
        self.model, self.task, self.loss, self.monitor, self.seed = model, task, loss, monitor, seed
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.schedule, self.patience, self.warmup, self.epochs = schedule, patience, warmup, epochs
        check_task(task, targets, classes)
        self.columns = len(classes) or targets.size(1)
        """Of a prediction."""
        weights = None
        if class_weights == "balanced":
            if task == "regression" or targets.size(1) > 1:
                raise CosetError("training.class_weights=balanced weighs the labels of one target that has labels")
            weights = balanced_weights(targets, len(classes) or 2)
        self.register_buffer("weights", weights, persistent=False)
        mean, scale = standard(targets) if task == "regression" else (targets.new_zeros(1), targets.new_ones(1))
        self.register_buffer("mean", mean.expand(targets.size(1)).clone())
        self.register_buffer("scale", scale.expand(targets.size(1)).clone())
        self.watched: list[float] = []
        """The monitored metric after each epoch: all that the plateau needs to know."""
        self.identity: dict[str, Any] = {}
        """Stored in every checkpoint: what it was made with."""
        self.frozen: list[nn.Module] = []
        """Parts of the model that training leaves as they are: they stay in evaluation mode."""
        self.losses: list[Tensor] = []
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def train(self, mode: bool = True) -> "GraphTask":
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def structure_for(self, device: torch.device) -> Callable[[Batch], Structure] | None:
        """What settles the structure of batches that are to go to a device, as part of loading them.

        On the CPU nothing is gained: the model works it out when it gets there.
        """
        return None if device.type == "cpu" else getattr(self.model, "structure", None)

    def forward(self, batch: Batch) -> Float[Tensor, "rows columns"]:
        """Predictions: values in the target's units, or probabilities."""
        return self._told(self._rows(self.model(batch), batch))

    def with_draws(self, batch: Batch) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "draws rows columns"]]:
        """Predictions as of :meth:`forward`, and those of each draw of the network's own noise."""
        if not getattr(self.model, "noisy", False):
            found = self(batch)
            return found, found.unsqueeze(0)
        out = self._rows(self.model.each_draw(batch), batch)  # type: ignore[operator]
        return self._told(out.mean(0)), self._told(out)

    @staticmethod
    def _rows(out: Tensor, batch: Batch) -> Tensor:
        """Outputs [..., rows, columns]; of a neighbourhood those of the nodes that it is of."""
        return out[..., batch.seed_index, :] if "seed_index" in batch else out

    def _told(self, out: Tensor) -> Tensor:
        """Outputs [..., rows, columns] in units of the targets, or as probabilities."""
        if self.task == "regression":
            return out * self.scale + self.mean
        return out.softmax(-1) if self.task == "multiclass" else out.sigmoid()

    def loss_of(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean loss over the known labels of a batch; with several processes, over those of all of them."""
        out = self._rows(self.model(batch), batch).float()
        check_outputs(self.model, out, len(batch.y), self.columns)
        total = summed_loss(self.task, self.loss, out, ((batch.y - self.mean) / self.scale).float(), self.weights)
        count, processes = (~batch.y.isnan()).sum(), place()[1]
        if processes > 1:  # gradients are averaged over processes, whatever the number of labels each has
            torch.distributed.all_reduce(count)
        return total * processes / count.clamp(min=1)

    def learning_rate_at(self, epoch: int) -> float:
        """What the schedule says, given the validation so far."""
        return self.learning_rate * schedules.factor(
            self.schedule, epoch, self.watched, self.epochs, self.warmup, direction(self.monitor), self.patience
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adam(self.parameters(), self.learning_rate, self.weight_decay)

    def on_train_epoch_start(self) -> None:
        self.losses = []
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate_at(self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Once an epoch is not enough: whether a loader draws from the stream after that depends on a resume.
        seed_everything(self.seed, self.current_epoch, batch_idx, place()[0])

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.loss_of(batch)
        if not torch.isfinite(loss):
            raise CosetError(
                f"training diverged in epoch {self.current_epoch}: the loss is {float(loss.detach())}; "
                "lower training.learning_rate or set training.gradient_clip"
            )
        self.losses.append(loss.detach())
        if self.trainer.loggers:
            self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=batch.num_graphs)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._outputs = []

    def validation_step(self, batch: Batch, _: int) -> None:
        of_graphs = batch._slice_dict["y"].diff()
        rows = torch.ones(len(batch.y), dtype=torch.long) if "seed_index" in batch else of_graphs
        self._outputs.append((self(batch).to(self.mean.dtype), batch.y.to(self.mean.dtype), rows))

    def on_validation_epoch_end(self) -> None:
        own = len(share(len(self.trainer.val_dataloaders.dataset)))  # type: ignore[union-attr]
        prediction, target = _from_all_processes(self._outputs, own)
        metrics = metrics_of(self.task, prediction, target)
        for name, value in metrics.items():
            # Every process has computed the same value; saying so (sync_dist) keeps Lightning from warning.
            exact = torch.float32 if self.device.type == "mps" else torch.float64  # of targets beyond float32
            self.log(f"val_{name}", torch.tensor(value, dtype=exact), prog_bar=name == self.monitor, sync_dist=True)
        self.watched.append(metrics[self.monitor])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"watched": list(self.watched), "identity": self.identity}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.watched = list(checkpoint.get("watched", []))


def _from_all_processes(outputs: Iterable[tuple[Tensor, Tensor, Tensor]], own: int) -> tuple[Tensor, Tensor]:
    """Each row once: those of the first ``own`` graphs of this process, and those of the others.

    Outputs are predictions, targets, and how many rows each graph has.
    """
    *columns, rows = (torch.cat(column).cpu() for column in zip(*outputs, strict=True))
    prediction, target = (column[: int(rows[:own].sum())] for column in columns)
    processes = place()[1]
    if processes == 1:
        return prediction, target
    parts: list[Any] = [None] * processes
    torch.distributed.all_gather_object(parts, (prediction, target))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
