"""Recipes of kind ``graphs``: a data set of graphs, a model, and how to train it."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from coset.errors import CosetError
from coset.graphs import datasets
from coset.graphs.datasets import GraphTable
from coset.graphs.models import GINOptions, GNNSSWLPlusOptions, SubgraphormerOptions
from coset.graphs.transforms import SampleRoots, precompute
from coset.symmetry import EquivarianceReport, verify_claims
from coset.training import run_directory
from coset.training.engine import Fit, first_batch, fit, predict
from coset.training.tasks import GraphTask, metrics_of

ModelOptions = Annotated[SubgraphormerOptions | GNNSSWLPlusOptions | GINOptions, Field(discriminator="name")]


class DataOptions(BaseModel):
    """Which graphs, and how they are split."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["freesolv", "esol", "zinc12k", "hiv", "csv", "pyg"]
    path: str | None = Field(None, description="file or folder of the data")
    dataset: str | None = Field(None, description="for pyg: ZINC, MoleculeNet:ESOL, TUDataset:MUTAG, ...")
    smiles: str = "smiles"
    target: list[str] = []
    id: str | None = None
    split: Literal["random", "scaffold", "column"] = "random"
    split_column: str = "split"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_seed: int | None = Field(None, description="seed of the split; the run's seed by default")
    skip_bad_rows: bool = False
    drop_missing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _names(cls, values: Any) -> Any:
        """``data.target=a,b`` names two columns."""
        if isinstance(values, dict) and isinstance(values.get("target"), str):
            values = {**values, "target": [name.strip() for name in values["target"].split(",")]}
        return values

    def load(self, seed: int, progress: bool) -> GraphTable:
        """Read the graphs."""
        seed = seed if self.split_seed is None else self.split_seed
        where: dict[str, Any] = {"split": self.split, "fractions": self.fractions, "seed": seed, "progress": progress}
        if self.name == "freesolv":
            return datasets.freesolv(**where)
        if self.name in ("esol", "hiv"):
            return getattr(datasets, self.name)(self.path, **where)
        if self.name == "zinc12k":
            return datasets.zinc12k(self.path, progress=progress)
        if self.name == "pyg":
            if self.dataset is None:
                raise CosetError("data.dataset is missing: name a PyG data set, e.g. data.dataset=ZINC")
            return datasets.from_pyg(self.dataset, self.path or "data", seed=seed)
        if self.path is None or not self.target:
            missing = "data.path" if self.path is None else "data.target"
            raise CosetError(
                f"{missing} is missing: coset run csv data.path=FILE data.smiles=COLUMN data.target=COLUMN"
            )
        return datasets.csv(
            self.path, self.smiles, self.target, id=self.id, split_column=self.split_column,
            skip_bad_rows=self.skip_bad_rows, drop_missing=self.drop_missing, **where,
        )  # fmt: skip


class TrainingOptions(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid")

    task: Literal["regression", "classification"] = "regression"
    loss: Literal["l1", "mse"] = "l1"
    monitor: Literal["rmse", "mae", "r2", "auroc", "ap", "accuracy"] = "mae"
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    patience: int = Field(20, ge=1)
    warmup: int = Field(5, ge=0)
    gradient_clip: float | None = Field(None, gt=0)
    early_stopping: int | None = Field(None, ge=1)
    max_minutes: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> "TrainingOptions":
        regression = self.monitor in ("rmse", "mae", "r2")
        if regression != (self.task == "regression"):
            right = "rmse, mae or r2" if self.task == "regression" else "auroc, ap or accuracy"
            raise ValueError(f"monitor={self.monitor} does not fit task={self.task}; choose {right}")
        return self


class GraphRecipe(BaseModel):
    """A whole run on graphs."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["graphs"] = "graphs"
    name: str
    description: str = ""
    data: DataOptions
    model: ModelOptions
    training: TrainingOptions = TrainingOptions()  # type: ignore[call-arg]
    trainer: dict[str, Any] = Field({}, description="passed to Lightning's Trainer, e.g. devices: 2")
    seed: int = Field(0, ge=0)

    def table(self, progress: bool) -> GraphTable:
        """The data, with everything added that the model needs."""
        table = self.data.load(self.seed, progress)
        return table.map(lambda graphs: precompute(graphs, self.model.transform(), progress=progress))

    def view(self, seed: int) -> Callable | None:
        """A fresh sample of roots at each access, if roots are sampled."""
        return SampleRoots(fraction=self.model.root_fraction) if self.model.root_fraction < 1 else None

    def network(self, table: GraphTable, outputs: int) -> nn.Module:
        """The untrained model."""
        torch.manual_seed(self.seed)
        return self.model.build(outputs, table.node_features, table.edge_features)

    def task(self, table: GraphTable) -> GraphTask:
        """The model with loss and target scale of the training set."""
        t = self.training
        targets = torch.cat([graph.y for graph in table.subset("train")])
        return GraphTask(
            self.network(table, targets.size(1)), t.task, targets, loss=t.loss, learning_rate=t.learning_rate,
            weight_decay=t.weight_decay, schedule=t.schedule, patience=t.patience, warmup=t.warmup, epochs=t.epochs,
            monitor=t.monitor, seed=self.seed,
        )  # fmt: skip

    def certificate(self, model: nn.Module, table: GraphTable) -> list[EquivarianceReport]:
        """The model's claims, measured on the first graphs of the data in float64."""
        return verify_claims(model, first_batch(table.graphs))

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """Train, test and write the run's folder; returns the metrics."""
        started = time.monotonic()
        run_directory.write_text(folder / "recipe.yaml", OmegaConf.to_yaml(self.model_dump(mode="json")))
        table = self.table(progress=not quiet)
        task = self.task(table)
        t = self.training
        view = self.view(self.seed)
        how = Fit(t.epochs, t.batch_size, t.gradient_clip, t.early_stopping, t.max_minutes, self.trainer)
        val = table.subset("val") or table.subset("train")
        best = fit(task, table.subset("train"), val, how, folder, view=view, seed=self.seed, resume=resume, quiet=quiet)
        torch.manual_seed(self.seed)
        predictions = predict(task, table.graphs, view=view, votes=self.model.votes)
        run_directory.write_text(folder / "predictions.csv", _prediction_table(table, predictions).to_csv(index=False))
        certificate = [report.to_dict() for report in self.certificate(task.model, table)]
        run_directory.write_json(folder / "certificate.json", certificate)
        metrics = _metrics(t.task, table, predictions)
        metrics |= {
            "params": sum(p.numel() for p in task.model.parameters()),
            "seconds": round(time.monotonic() - started, 1),
            "best_epoch": best,
            "epochs": len(pd.read_csv(folder / "history.csv")),
            "seed": self.seed,
            "recipe": self.name,
            "notes": list(table.notes),
            "versions": _versions(),
            "machine": {"cpu_count": os.cpu_count(), "threads": torch.get_num_threads()},
        }
        run_directory.write_json(folder / "metrics.json", metrics)
        return metrics


def _prediction_table(table: GraphTable, predictions: Tensor) -> pd.DataFrame:
    frame = pd.DataFrame({"id": table.ids, "smiles": table.smiles, "split": table.split_of()})
    names = list(table.target_names) or [str(i) for i in range(predictions.size(1))]
    for column, name in enumerate(names):
        suffix = "" if len(names) == 1 else f"_{name}"
        frame[f"target{suffix}"] = table.targets[:, column].numpy()
        frame[f"prediction{suffix}"] = predictions[:, column].numpy()
    return frame


def _metrics(task: Any, table: GraphTable, predictions: Tensor) -> dict[str, Any]:
    """Metrics of each split, beside those of always predicting the training mean."""
    splits = pd.Series(table.split_of())
    rows = {name: torch.tensor((splits == name).to_numpy()) for name in ("train", "val", "test")}
    mean = table.targets[rows["train"]].nanmean(0)
    result: dict[str, Any] = {"baseline": {}}
    for name, chosen in rows.items():
        if bool(chosen.any()):
            target = table.targets[chosen]
            result[name] = metrics_of(task, predictions[chosen], target)
            result["baseline"][name] = metrics_of(task, mean.expand_as(target), target)
    return result


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        name: version(name) for name in ("coset", "torch", "torch_geometric", "pytorch-lightning", "numba", "numpy")
    }
