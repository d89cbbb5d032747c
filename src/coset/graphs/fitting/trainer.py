"""What a recipe may pass to Lightning's trainer."""

from typing import Any, Literal

from pydantic import Field, field_validator

from coset.core.options import Options

MatmulPrecision = Literal["highest", "high", "medium"]


class TrainerOptions(Options):
    """Passed to Lightning's ``Trainer``."""

    devices: int | Literal["auto"] = Field(1, description="processes (CPU) or GPUs")
    accelerator: Literal["auto", "cpu", "gpu"] | None = None
    num_nodes: int = Field(1, ge=1)
    strategy: str | None = Field(None, description="ddp_spawn by default when there are several devices")
    precision: Literal["32-true", "bf16", "bf16-mixed", "16-mixed"] = Field(
        "32-true",
        description="bf16: on a CPU that has it, rows of pairs are stored and multiplied in bfloat16 (subgraphormer, "
        "gnn-sswl-plus); *-mixed are for GPUs",
    )
    matmul_precision: MatmulPrecision = Field(
        "highest",
        description="of products of float32 matrices while training: high and medium let processors that can multiply "
        "in TF32 or bfloat16, and their error is told",
    )
    accumulate_grad_batches: int = Field(1, ge=1)
    deterministic: bool = False
    logger: Literal["csv", "tensorboard", "wandb", "mlflow"] | None = Field(
        None, description="where metrics go beside history.csv: into the run's folder logs, or to a server of these"
    )

    def of_lightning(self) -> dict[str, Any]:
        """What its ``Trainer`` takes, to whom ``bf16`` is no concern of its own: weights are float32."""
        options = self.model_dump(exclude_none=True, exclude={"logger", "matmul_precision"})
        return options | ({"precision": "32-true"} if self.precision == "bf16" else {})

    @field_validator("devices")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value != "auto" and value < 1:
            raise ValueError("at least 1")
        return value
