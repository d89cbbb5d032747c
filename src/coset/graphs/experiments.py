"""Recipes of kind ``graphs``: a data set of graphs, a model, and how to train it."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from omegaconf import OmegaConf
from pydantic import Field, model_validator
from rich.console import Console
from torch import Tensor, nn
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.files import write_json, write_text
from coset.graphs import GIN, Subgraphormer
from coset.graphs.data.datasets import GraphTable
from coset.graphs.data.shards import ShardedGraphs
from coset.graphs.fitting.engine import Fit, first_batch, fit, predict
from coset.graphs.fitting.loaders import View
from coset.graphs.fitting.tasks import GraphTask
from coset.graphs.options import DataOptions, ModelOptions, TrainerOptions, TrainingOptions
from coset.graphs.transforms import SampleRoots, precompute
from coset.reports import (
    AttentionRecord,
    CellRecord,
    attention_record,
    cell_record,
    skeleton,
    write_attention,
    write_cells,
    write_report,
)
from coset.runs import folder as run_directory
from coset.runs.checkpoints import LAST, check_belongs, read_checkpoint
from coset.runs.launch import processes
from coset.runs.metrics import metrics_of
from coset.runs.recipe import Recipe
from coset.symmetry import EquivarianceReport, verify_claims
from coset.topology import HOMP, SMCN
from coset.topology.data.pictures import drawing, pair_relevance

CERTIFIED = 8  # graphs that a symmetry is measured on
LARGEST_COMPLEX = 80  # vertices of a complex that the report shows
SHOWN, LARGEST_SHOWN = 12, 40  # molecules whose attention the report shows, and the most atoms of one
MAY_CHANGE = {"epochs", "early_stopping", "max_minutes", "workers"}  # of training, when a run is resumed
OnEpoch = Callable[[Mapping[str, float]], None]
PACKAGES = ("coset", "torch", "torch_geometric", "pytorch-lightning", "torchmetrics", "numba", "numpy", "rdkit")


class GraphRecipe(Recipe):
    """A whole run on graphs."""

    kind: Literal["graphs"] = "graphs"
    data: DataOptions
    model: ModelOptions
    training: TrainingOptions = Field(default_factory=lambda: TrainingOptions.model_validate({}))
    trainer: TrainerOptions = Field(default_factory=lambda: TrainerOptions.model_validate({}))

    @model_validator(mode="after")
    def _model_can_be_built(self) -> "GraphRecipe":
        """What only the network knows, such as a width too small for the heads, is said before any data is read."""
        if self.model.name == "gin" and self.model.root_fraction < 1:
            raise ValueError(f"model.root_fraction={self.model.root_fraction}: gin has no roots; leave it at 1")
        if self.model.votes > 1 and self.model.root_fraction == 1:
            raise ValueError(f"model.votes={self.model.votes} needs model.root_fraction below 1: all draws are equal")
        with torch.device("meta"):
            try:
                self.model.build(1, None, None)
            except ValueError as error:
                raise ValueError(f"model.{error}") from error
        return self

    def load(self, progress: bool = False) -> GraphTable:
        """The data as it was read.

        Raises:
            CosetError: It is missing or malformed; options are named as a recipe names them.
        """
        try:
            return self.data.load(self.seed, progress)
        except CosetError as error:
            message = str(error)
            for option in ("skip_bad_rows=true", "drop_missing=true", "split=random"):
                message = message.replace(option, f"data.{option}")
            raise CosetError(message) from error

    def encode(self, graphs: list[Data], progress: bool = False) -> list[Data]:
        """The graphs with everything added that the model needs.

        Raises:
            CosetError: They are shards that were made for another model.
        """
        if isinstance(graphs, ShardedGraphs):
            made, wanted = (
                " ".join(text.split()) for text in (graphs.about["transform"], repr(self.model.transform()))
            )
            if made != wanted:
                raise CosetError(
                    f"{graphs.folder} was made with {made}, but model={self.model.name} needs {wanted}: "
                    "make shards for it with coset preprocess --recipe"
                )
            return graphs
        return precompute(graphs, self.model.transform(), progress=progress)

    @property
    def view(self) -> View | None:
        """A fresh sample of roots at each access, if roots are sampled."""
        fraction = self.model.root_fraction
        return None if fraction == 1 else lambda graph, seed: SampleRoots(fraction=fraction, seed=seed)(graph)

    def network(self, table: GraphTable) -> nn.Module:
        """The untrained model; its weights follow from the seed."""
        torch.manual_seed(self.seed)
        return self.model.build(len(table.target_names), table.node_features, table.edge_features)

    def task(self, table: GraphTable) -> GraphTask:
        """The model with loss and target scale of the training set."""
        t = self.training
        targets = table.targets[table.splits["train"]]
        return GraphTask(
            self.network(table), t.task, targets, loss=t.loss, learning_rate=t.learning_rate,
            weight_decay=t.weight_decay, schedule=t.schedule, patience=t.patience, warmup=t.warmup, epochs=t.epochs,
            monitor=t.monitor, seed=self.seed,
        )  # fmt: skip

    def identity(self, table: GraphTable) -> dict[str, Any]:
        """What a checkpoint carries, to be used without the data and never for another recipe."""
        return {
            "recipe": self.model_dump(mode="json"),
            "targets": list(table.target_names),
            "node_features": table.node_features,
            "edge_features": table.edge_features,
        }

    def certificate(self, model: nn.Module, graphs: list[Data]) -> list[EquivarianceReport]:
        """The model's claims, measured on the first of these (encoded) graphs in float64."""
        batch = first_batch(graphs, CERTIFIED)
        return verify_claims(model, model.with_noise(batch) if isinstance(model, GIN) else batch)

    def run(
        self,
        folder: Path,
        *,
        resume: bool = False,
        quiet: bool = False,
        table: GraphTable | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> dict[str, Any]:
        """Train, test and write the run's folder; returns the metrics.

        Args:
            folder: Of the run.
            resume: Go on from the folder's last checkpoint.
            quiet: Print nothing.
            table: What :meth:`load` returned before, not to read it again.
            on_epoch: Called after each epoch with its row of ``history.csv``.

        Raises:
            CosetError: The data or the recipe does not allow it.
        """
        started = time.monotonic()
        table = table or self.load(progress=not quiet)
        _need_targets(table)
        task = self.task(table)
        if not quiet:
            _announce(self.name, table, task, folder)
        if resume:
            stored = read_checkpoint(folder / LAST).get("identity", {})
            check_belongs(folder / LAST, stored.get("recipe", {}), self._kept())
        table = table.map(lambda graphs: self.encode(graphs, progress=not quiet))
        val, notes = table.subset("val") if len(table.splits.get("val", ())) else [], list(table.notes)
        if not val:
            notes.append("there is no validation split: the best epoch was chosen on the training set")
            val = table.subset("train")
        if not resume and processes.is_first():
            run_directory.begin(folder, self.to_yaml())
        how = replace(self._fit(table, quiet), on_epoch=on_epoch)
        best = fit(task, table.subset("train"), val, how, folder, view=self.view, resume=resume)
        if not processes.is_first():
            return {}
        predictions = self.predict(task, table.graphs, progress=not quiet)
        metrics = metrics_by_split(task, table, predictions) | {
            "params": sum(p.numel() for p in task.model.parameters()),
            "seconds": round(time.monotonic() - started, 1),
            "best_epoch": best,
            "epochs": len(pd.read_csv(folder / "history.csv")),
            "seed": self.seed,
            "recipe": self.name,
            "notes": notes,
            "versions": versions(),
            "machine": {"cpu_count": os.cpu_count(), "threads": torch.get_num_threads()},
        }
        self._write(folder, table, task, predictions, metrics)
        return metrics

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """The certificate of the trained model of a run, or of an untrained one, on the first of its graphs."""
        recipe, model = self, None
        if folder is not None:
            recipe, task, _ = load_task(folder)
            model = task.model
        table = recipe.load(progress)
        if model is None:
            model = recipe.network(replace(table, target_names=table.target_names or ("y",)))
        return recipe.certificate(model, recipe.encode(table.graphs[:CERTIFIED]))

    def report(self, folder: Path) -> Path:
        return write_report(folder)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a metric, a column a split, and what predicting the mean gives on the last of them."""
        splits = [name for name in ("train", "val", "test") if name in metrics]
        last = splits[-1]
        rows = [
            [name, *(_rounded(metrics[s].get(name)) for s in splits), _rounded(metrics["baseline"][last].get(name))]
            for name in metrics[last]
        ]
        return ["metric", *splits, f"{last}, predicting the mean"], rows

    def predict(self, task: GraphTask, graphs: list[Data], progress: bool = False) -> Tensor:
        """Predictions for encoded graphs; with sampled roots the mean over the votes."""
        return predict(task, graphs, view=self.view, votes=self.model.votes, seed=self.seed, progress=progress)

    def _fit(self, table: GraphTable, quiet: bool) -> Fit:
        t = self.training
        options = self.trainer.model_dump(exclude_none=True)
        return Fit(
            epochs=t.epochs, batch_size=t.batch_size, gradient_clip=t.gradient_clip, early_stopping=t.early_stopping,
            max_minutes=t.max_minutes, workers=t.workers, seed=self.seed, trainer=options, quiet=quiet,
            identity=self.identity(table),
        )  # fmt: skip

    def _kept(self) -> dict[str, Any]:
        """What must not have changed when a run is resumed."""
        recipe = self.model_dump(mode="json")
        training = {key: value for key, value in recipe["training"].items() if key not in MAY_CHANGE}
        return {**{key: recipe[key] for key in ("kind", "data", "model", "seed")}, "training": training}

    def _write(
        self, folder: Path, table: GraphTable, task: GraphTask, predictions: Tensor, metrics: dict[str, Any]
    ) -> None:
        """metrics.json comes last: where it is, the run is whole."""
        write_text(folder / "predictions.csv", prediction_table(table, predictions).to_csv(index=False))
        certificate = [report.to_dict() for report in self.certificate(task.model, table.graphs)]
        write_json(folder / "certificate.json", certificate)
        records = attention_records(task.model, table)
        if records:
            write_attention(folder, records)
        complexes = cell_records(task.model, table)
        if complexes:
            write_cells(folder, complexes)
        write_json(folder / "metrics.json", metrics)


def run_together(recipe: str, name: str, folder: str, resume: bool) -> None:
    """The part of one process in a run of several, which Ray Train calls in each.

    Args:
        recipe: The resolved recipe, as YAML.
        name: Of the recipe.
        folder: Of the run, claimed already.
        resume: Go on from its last checkpoint; what this launch has saved itself is always gone on from.
    """
    from coset.runs.recipes import check

    values = OmegaConf.to_container(OmegaConf.create(recipe))
    assert isinstance(values, dict)
    place = Path(folder)
    check(values, name).run(place, resume=resume or processes.was_stopped(place / LAST), quiet=True)


def attention_records(model: nn.Module, table: GraphTable) -> list[AttentionRecord]:
    """Where the model looks in the first molecules of the last split that are small enough to draw; none if it has no
    attention, or the graphs are no molecules."""
    if not isinstance(model, Subgraphormer):
        return []
    split = next(name for name in ("test", "val", "train") if len(table.splits.get(name, ())))
    chosen = [int(i) for i in table.splits[split] if table.smiles[i] and 1 < table.graphs[i].num_nodes <= LARGEST_SHOWN]
    model.eval()
    return [_attention_record(model, table, i) for i in chosen[:SHOWN]]


def cell_records(model: nn.Module, table: GraphTable) -> list[CellRecord]:
    """Complexes of the last split that are small enough to draw, with what SMCN attends to in them."""
    if not isinstance(model, HOMP | SMCN):
        return []
    split = next(name for name in ("test", "val", "train") if len(table.splits.get(name, ())))
    small = [int(i) for i in table.splits[split] if 2 < table.graphs[i].num_nodes <= LARGEST_COMPLEX]
    return [_cell_record(model, table, i) for i in (*small[: SHOWN // 2], *small[SHOWN // 2 :][-(SHOWN // 2) :])]


def _cell_record(model: nn.Module, table: GraphTable, i: int) -> CellRecord:
    data, smiles = table.graphs[i], table.smiles[i]
    flat = skeleton(smiles) if smiles else {}
    drawn = drawing(data, flat.get("positions"))
    weights = pair_relevance(model, data) if isinstance(model, SMCN) else None
    ranks = model.ranks if isinstance(model, SMCN) else ()
    return cell_record(
        id=table.ids[i], ranks=ranks, weights=weights, symbols=flat.get("symbols", ()), **drawn._asdict()
    )


def _attention_record(model: Subgraphormer, table: GraphTable, i: int) -> AttentionRecord:
    weights = {kind: value.numpy() for kind, value in model.attention(table.graphs[i]).items()}
    internal, external = weights.get("internal"), weights.get("external")
    drawing, smiles, edge_index = skeleton(table.smiles[i]), table.smiles[i], table.graphs[i].edge_index.numpy()
    return attention_record(
        id=table.ids[i], smiles=smiles, edge_index=edge_index, internal=internal, external=external, **drawing
    )


def load_task(folder: Path) -> tuple[GraphRecipe, GraphTask, GraphTable]:
    """Recipe and trained task of a run, and an empty table that says what its data looked like.

    Raises:
        CosetError: The folder holds no run with a checkpoint, or its checkpoint belongs to another recipe.
    """
    from coset.runs.recipes import load_run

    recipe = load_run(folder)
    if not isinstance(recipe, GraphRecipe):
        raise CosetError(f"{folder} holds a run of kind {recipe.kind}, which has no predictions for molecules")
    checkpoint = folder / "checkpoint.ckpt"
    state = read_checkpoint(checkpoint)
    identity = state.get("identity", {})
    settled = recipe.model_dump(mode="json")
    wanted = {key: settled[key] for key in ("kind", "data", "model")}
    check_belongs(checkpoint, identity.get("recipe", {}), {**wanted, "training": {"task": settled["training"]["task"]}})
    table = GraphTable([], tuple(identity["targets"]))
    table = replace(table, node_features=identity["node_features"], edge_features=identity["edge_features"])
    task = GraphTask(recipe.network(table), recipe.training.task, torch.full((1, len(table.target_names)), torch.nan))
    task.load_state_dict(state["state_dict"])
    return recipe, task, table


def prediction_columns(names: tuple[str, ...], kind: str = "prediction") -> list[str]:
    """``prediction`` for one target, ``prediction_<name>`` for several."""
    return [kind] if len(names) == 1 else [f"{kind}_{name}" for name in names]


def prediction_table(table: GraphTable, predictions: Tensor) -> pd.DataFrame:
    """Rows of ``predictions.csv``: id, smiles, split, and target and prediction of each target."""
    frame = pd.DataFrame({"id": table.ids, "smiles": table.smiles, "split": table.split_of()})
    names, targets = table.target_names, table.targets
    for column, (target, prediction) in enumerate(
        zip(prediction_columns(names, "target"), prediction_columns(names), strict=True)
    ):
        frame[target] = targets[:, column].numpy()
        frame[prediction] = predictions[:, column].numpy()
    return frame


def metrics_by_split(task: GraphTask, table: GraphTable, predictions: Tensor) -> dict[str, Any]:
    """Metrics of each split, beside those of always predicting the training mean (for a class: its share)."""
    targets = table.targets
    mean = targets[table.splits["train"]].nanmean(0).nan_to_num()
    result: dict[str, Any] = {}
    baseline: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        rows = table.splits.get(name)
        if rows is not None and len(rows):
            result[name] = metrics_of(task.task, predictions[rows], targets[rows])
            baseline[name] = metrics_of(task.task, mean.expand(len(rows), -1), targets[rows])
    return {**result, "baseline": baseline}


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _need_targets(table: GraphTable) -> None:
    if not table.target_names:
        raise CosetError(f"{table.name} has no targets to learn")


def _announce(name: str, table: GraphTable, task: GraphTask, folder: Path) -> None:
    parts = ", ".join(f"{len(rows)} {split}" for split, rows in table.splits.items())
    targets = f"{len(table.target_names)} target{'s' * (len(table.target_names) != 1)}"
    size = sum(p.numel() for p in task.model.parameters())
    console = Console(stderr=True, highlight=False)
    summary = f"{name}: {table.name}, {len(table)} graphs ({parts}), {targets}; {size:,} parameters -> {folder}"
    for line in (summary, *(f"note: {note}" for note in table.notes)):
        console.print(line, markup=False, soft_wrap=True)
