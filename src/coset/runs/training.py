"""What a recipe may say about supervised training; anything else is an error before anything starts."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from coset.core.options import Options
from coset.runs import schedules
from coset.runs.metrics import METRICS, Direction, Task, direction

USUAL: dict[Task, str] = {"regression": "mae", "classification": "auroc", "multiclass": "accuracy", "link": "auroc"}
"""Which metric chooses the best epoch unless a recipe says."""


class TrainingOptions(Options):
    """How to train."""

    task: Task = Field(
        "regression",
        description="multiclass: one of several classes; classification: labels 0 and 1; link: which nodes are joined",
    )
    loss: Literal["l1", "mse"] = Field("l1", description="for regression; classification uses cross-entropy")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: rare classes count as much")
    monitor: str = Field(
        "", description="validation metric that chooses the best epoch: mae, auroc, accuracy by default, as the task is"
    )
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0, description="AdamW if above 0, else Adam")
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    patience: int = Field(20, ge=1, description="epochs without progress before plateau halves the rate")
    warmup: int = Field(5, ge=0, description="epochs of linear warm-up for cosine")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    early_stopping: int | None = Field(None, ge=1, description="epochs without progress before training stops")
    max_minutes: float | None = Field(None, gt=0, description="stop training then; the best epoch so far counts")
    workers: int = Field(0, ge=0, description="processes that load batches")
    freeze: list[str] = Field(
        [], description="parts that are not trained: encoder,mlps.0; or body, all but the last layer"
    )

    @field_validator("freeze", mode="before")
    @classmethod
    def _listed_parts(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _usual_monitor(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("monitor") and values.get("task", "regression") in USUAL:
            return {**values, "monitor": USUAL[values.get("task", "regression")]}
        return values

    @model_validator(mode="after")
    def _monitor_fits_task(self) -> "TrainingOptions":
        if self.monitor not in METRICS[self.task]:
            raise ValueError(
                f"training.monitor={self.monitor} does not fit training.task={self.task}; "
                f"choose {', '.join(METRICS[self.task])}"
            )
        return self

    @property
    def better(self) -> Direction:
        """Which way the monitored metric is better."""
        return direction(self.monitor)

    def factor(self, epoch: int, watched: Sequence[float]) -> float:
        """By what the learning rate is multiplied in an epoch.

        Args:
            epoch: From 0.
            watched: The monitored metric after each epoch before.
        """
        return schedules.factor(self.schedule, epoch, watched, self.epochs, self.warmup, self.better, self.patience)
