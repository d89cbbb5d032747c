"""What a merge file may say, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from coset.core.errors import CosetError
from coset.core.options import Options
from coset.core.outside import read_settings
from coset.weights.merging.augmentation import AugmentationOptions
from coset.weights.merging.methods import MERGE_METHODS, MergeMethod, Output
from coset.weights.merging.operators import Kind
from coset.weights.merging.trained import Init


class ModelOptions(Options):
    """One model to merge."""

    model: str = Field(description="folder of a checkpoint")
    name: str | None = Field(None, description="of its task; that of the folder by default")
    inputs: str | None = Field(None, description="unlabelled samples: .safetensors, .npz, or .txt with a line a text")
    test: str | None = Field(None, description="samples to measure on, with a tensor `labels` if they are known")

    @property
    def task(self) -> str:
        return self.name or Path(self.model).name


class Parameters(Options):
    """What methods take; each uses what it knows."""

    weights: list[float] | None = Field(None, description="linear: one a model")
    t: float = Field(0.5, ge=0, le=1, description="slerp")
    scale: float = Field(1.0, description="task_arithmetic")
    alpha: float = Field(0.7, ge=0, le=1, description="regmean")
    rank: int = Field(12, ge=1)
    kind: Kind = "diagonal_and_low_rank"
    init: Init = "first"
    width: int | None = Field(None, description="of the merged network")
    steps: int = Field(400, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = 1e-3
    batch_size: int | None = Field(32, ge=1)
    cross: float = Field(0.0, ge=0)
    output: Output | None = Field(
        None, description="maps from merged features to the models': trained (free) or none (tied)"
    )
    augmentation: AugmentationOptions = Field(default_factory=lambda: AugmentationOptions.model_validate({}))
    tokens: int = Field(64, ge=2, description="texts are cut there")
    low_memory: bool | None = Field(
        None, description="fs_merge: models stay on disk, each layer is folded where it is used; by default if large"
    )


class MergeFile(Options):
    """A merge, settled and checked."""

    merge_method: str
    models: list[ModelOptions] = Field(min_length=2)
    base_model: str | None = Field(None, description="task_arithmetic: where the models began")
    parameters: Parameters = Field(default_factory=lambda: Parameters.model_validate({}))
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_shard_size: str = "5GB"
    output: str = "merged"
    seed: int = Field(0, ge=0)

    @field_validator("merge_method")
    @classmethod
    def _known(cls, value: str) -> str:
        known = sorted(name for name, method in MERGE_METHODS.items() if method.files)
        if value not in known:
            raise ValueError(f"choose from {', '.join(known)}")
        return value

    @property
    def method(self) -> MergeMethod:
        """What is to be done."""
        return MERGE_METHODS[self.merge_method]

    @field_validator("models")
    @classmethod
    def _distinct(cls, value: list[ModelOptions]) -> list[ModelOptions]:
        names = [m.task for m in value]
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise ValueError(f"two models are named {twice[0]!r}: give each a name")
        return value


def load(path: Path) -> MergeFile:
    """Read a merge file; folders and files in it are relative to where it lies.

    Raises:
        CosetError: It is missing, or says something that cannot be.
    """
    if not path.is_file():
        raise CosetError(f"merge file {path} does not exist")
    try:
        made = MergeFile.model_validate(read_settings(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise CosetError(f"{path}: {where}: {first['msg']}, not {first['input']!r}") from error
    here = path.parent

    def place(name: str | None) -> str | None:
        return None if name is None else str(here / name)

    models = [
        m.model_copy(update={"model": place(m.model), "inputs": place(m.inputs), "test": place(m.test), "name": m.task})
        for m in made.models
    ]
    update = {"models": models, "output": place(made.output), "base_model": place(made.base_model)}
    return made.model_copy(update=update)
