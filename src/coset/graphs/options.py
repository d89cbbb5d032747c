"""What a recipe may say about training on graphs; anything else is an error before anything starts."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from coset.core.options import Options
from coset.runs.metrics import METRICS


class TrainingOptions(Options):
    """How to train."""

    task: Literal["regression", "classification"] = "regression"
    loss: Literal["l1", "mse"] = Field("l1", description="for regression; classification uses cross-entropy")
    monitor: Literal["rmse", "mae", "r2", "auroc", "ap", "accuracy"] = Field(
        "mae", description="validation metric that chooses the best epoch"
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

    @model_validator(mode="after")
    def _monitor_fits_task(self) -> "TrainingOptions":
        if self.monitor not in METRICS[self.task]:
            raise ValueError(
                f"training.monitor={self.monitor} does not fit training.task={self.task}; "
                f"choose {', '.join(METRICS[self.task])}"
            )
        return self


class TrainerOptions(Options):
    """Passed to Lightning's ``Trainer``."""

    devices: int | Literal["auto"] = Field(1, description="processes (CPU) or GPUs")
    accelerator: Literal["auto", "cpu", "gpu"] | None = None
    num_nodes: int = Field(1, ge=1)
    strategy: str | None = Field(None, description="ddp_spawn by default when there are several devices")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accumulate_grad_batches: int = Field(1, ge=1)
    deterministic: bool = False

    @field_validator("devices")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value != "auto" and value < 1:
            raise ValueError("at least 1")
        return value
