"""A graph network as one object: ``fit``, ``predict``, ``embed``, ``save``, ``load``, in Python or a notebook.

    learner = Learner("gin", epochs=30).fit(["CCO", "CCN", ...], [1.2, 0.3, ...])
    learner.predict(["CCC"])

Behind it is a run like those of ``coset run``: its folder serves ``coset predict``, ``verify`` and ``report`` as well.
"""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.files import make_folder, write_text
from coset.graphs.prediction import embeddings, graphs_to_predict, predictions_for
from coset.runs.folder import METRICS, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.training import TrainingOptions
from coset.symmetry import EquivarianceReport

Graphs = Sequence[Data] | Sequence[str] | Sequence[nx.Graph] | str | Path
"""PyG graphs, SMILES, NetworkX graphs, or a file or folder of ``coset run graphs`` (or a CSV of SMILES)."""

Targets = Sequence[Any] | np.ndarray | torch.Tensor | pd.Series | pd.DataFrame
"""A value or class a graph, or a row of several values."""

TARGET = "y"


class Learner:
    """A model of the registry with how it is trained.

    Args:
        model: Its name, as in ``model.name``.
        task: ``regression``, ``classification`` (labels 0 and 1), ``multiclass``, or ``auto``: words and whole numbers
            are classes, other numbers are values.
        folder: Of the run, beside which graphs given as objects are kept in ``<folder>-data``; by default a temporary
            one, which ends with the object unless it is saved.
        seed: Of weights, batches and splits.
        options: Of the model (``width=32``) and of training (``epochs=30``, ``learning_rate=1e-3``).

    Raises:
        CosetError: There is no such model or option.
    """

    def __init__(
        self, model: str = "gin", *, task: str = "auto", folder: str | Path | None = None, seed: int = 0, **options: Any
    ):
        self.model, self.task, self.seed, self.options = model, task, seed, options
        if folder is None:
            place = mkdtemp(prefix="coset-")
            weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
            folder = Path(place, "run")
        self.folder = Path(folder)
        self.recipe: Recipe | None = None

    def fit(
        self,
        graphs: Graphs,
        y: Targets | None = None,
        *,
        target: str | Sequence[str] | None = None,
        split: str = "random",
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        quiet: bool = True,
    ) -> Learner:
        """Train; the best epoch on the validation part counts.

        Args:
            graphs: See :data:`Graphs`.
            y: A value or class a graph; not for PyG graphs that have theirs, or files.
            target: Column to learn, for files.
            split: ``random`` or ``stratified``; ``scaffold`` for SMILES.
            fractions: Shares of train, val and test.
            quiet: No progress bars.

        Raises:
            CosetError: The graphs or their targets cannot be learned from.
        """
        from coset.runs.recipes import load

        values = None if y is None else np.asarray(y)
        where = self.folder.absolute().with_name(f"{self.folder.name}-data")
        make_folder(where)
        recipe, data = _written(graphs, where, values)
        if target is not None:
            data["target"] = [target] if isinstance(target, str) else list(target)
        task = self._task(values, graphs)
        given = {**{f"data.{key}": value for key, value in data.items()}, "data.split": split, "training.task": task}
        given |= {"data.fractions": list(fractions), "model.name": self.model, "seed": self.seed}
        given |= {f"{'training' if k in TrainingOptions.model_fields else 'model'}.{k}": v
                  for k, v in self.options.items()}  # fmt: skip
        self.recipe = load(recipe, [f"{key}={json.dumps(value)}" for key, value in given.items()])
        self.recipe.run(self.folder, quiet=quiet)
        return self

    def predict(self, graphs: Graphs) -> np.ndarray:
        """Values [graphs] or [graphs, targets]; of several classes the likeliest name, of labels 0 and 1 the likelier.

        Nodes are rows where nodes were learned from.
        """
        probabilities, described, task = self._outputs(graphs)
        if described.classes:
            return np.asarray(described.classes, dtype=object)[probabilities.argmax(1)]
        values = (probabilities > 0.5).astype(int) if task == "classification" else probabilities
        return values[:, 0] if values.shape[1] == 1 else values

    def predict_proba(self, graphs: Graphs) -> np.ndarray:
        """Probabilities: a column a class; of labels 0 and 1 both columns.

        Raises:
            CosetError: Values were learned, not classes.
        """
        found, described, task = self._outputs(graphs)
        if task == "regression":
            raise CosetError("predict_proba: this learner predicts values, not classes; use predict")
        return found if described.classes or found.shape[1] > 1 else np.concatenate([1 - found, found], axis=1)

    def embed(self, graphs: Graphs) -> np.ndarray:
        """What the network's last layer reads, [graphs or nodes, columns]."""
        with TemporaryDirectory(prefix="coset-") as place:
            recipe, task, described = self._loaded()
            _, data = _written(graphs, Path(place), None)
            table = graphs_to_predict(recipe, described, Path(data["path"]))
            return embeddings(recipe, task, table).numpy()

    def save(self, folder: str | Path) -> Path:
        """A copy of the run's folder, which ``load`` and all commands read; returns it.

        Raises:
            CosetError: Nothing is trained yet, or the folder is there.
        """
        self._check_fitted()
        if Path(folder).exists():
            raise CosetError(f"{folder} is there already; choose another folder")
        return Path(shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(".lock")))

    @classmethod
    def load(cls, folder: str | Path) -> Learner:
        """The learner of a run's folder: one that was saved, or that ``coset run`` made.

        Raises:
            CosetError: It holds no finished run on graphs.
        """
        from coset.runs.recipes import load_run

        recipe = load_run(Path(folder))
        if recipe.kind != "graphs":
            raise CosetError(f"{folder} holds a run of kind {recipe.kind}; a Learner reads runs on graphs")
        learner = cls(recipe.model.name, task=recipe.training.task, folder=folder, seed=recipe.seed)  # type: ignore[attr-defined]
        learner.recipe = recipe
        learner._check_fitted()
        return learner

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics by split, with those of predicting the mean as ``baseline``."""
        self._check_fitted()
        return RunFolder(self.folder).metrics()

    def verify(self) -> list[EquivarianceReport]:
        """The symmetry that the trained network claims, measured on its own data."""
        from coset.runs.recipes import verify

        self._check_fitted()
        return list(verify(str(self.folder)))

    def plot(self, split: str | None = None) -> Any:
        """A figure (Plotly): predicted against true values, or what classes were taken for.

        Args:
            split: ``train``, ``val`` or ``test``; the last that there is by default.
        """
        from coset.graphs.pages.targets import classes_of, targets_of
        from coset.reports import plots
        from coset.runs.results import RunResults

        self._check_fitted()
        run = RunResults(self.folder)
        split = split or run.splits[-1]
        if run.has_classes:
            rows = run.predictions[(run.predictions["split"] == split) & (run.predictions["target"] != "")]
            return plots.confusion(rows["target"].tolist(), rows["prediction"].tolist(), classes_of(run), split).figure
        target = targets_of(run)[0]
        return plots.parity({split: target.pairs(split)}, target.name, "graphs").figure

    def __repr__(self) -> str:
        state = "not trained" if not self._fitted() else f"trained, {self.folder}"
        return f"Learner({self.model!r}, {state})"

    def _repr_html_(self) -> str:
        if not self._fitted():
            return f"<b>{self!r}</b>"
        parts = {name: self.metrics[name] for name in ("train", "val", "test") if name in self.metrics}
        return f"<b>{self.model}</b>" + pd.DataFrame(parts).to_html(float_format=lambda value: f"{value:.4g}")

    def _task(self, values: np.ndarray | None, graphs: Graphs) -> str:
        if self.task != "auto":
            return self.task
        if values is None and not isinstance(graphs, str | Path) and len(graphs) and isinstance(graphs[0], Data):
            found = [torch.as_tensor(g.y).flatten() for g in graphs if "y" in g and g.y is not None]  # type: ignore[union-attr]
            values = torch.cat(found).numpy() if found else None
        if values is None or values.dtype.kind == "f":
            return "regression"
        if values.dtype.kind in "OUS":
            return "multiclass"
        return "classification" if set(np.unique(values)) <= {0, 1} else "multiclass"

    def _outputs(self, graphs: Graphs) -> tuple[np.ndarray, Any, str]:
        with TemporaryDirectory(prefix="coset-") as place:
            recipe, task, described = self._loaded()
            _, data = _written(graphs, Path(place), None)
            table = graphs_to_predict(recipe, described, Path(data["path"]))
            return predictions_for(recipe, task, table).numpy(), described, recipe.training.task

    def _loaded(self) -> Any:
        from coset.graphs.experiments import load_task

        self._check_fitted()
        return load_task(self.folder)

    def _fitted(self) -> bool:
        return (self.folder / METRICS).is_file()

    def _check_fitted(self) -> None:
        if not self._fitted():
            raise CosetError(f"{self.folder} holds no finished run; call fit first")


def _written(graphs: Graphs, place: Path, values: np.ndarray | None) -> tuple[str, dict[str, Any]]:
    """Graphs in a file that recipes read: name of the recipe, and what it must say of its data.

    Raises:
        CosetError: They are of no known kind, or targets do not fit them.
    """
    if isinstance(graphs, str | Path):
        path = Path(graphs).absolute()
        molecules = path.is_file() and path.name.removesuffix(".gz").endswith((".csv", ".tsv"))
        return ("csv" if molecules else "graphs"), {"path": str(path)}
    given = list(graphs)
    if not given:
        raise CosetError("there are no graphs")
    if values is not None and len(values) != len(given):
        raise CosetError(f"{len(values)} targets for {len(given)} graphs")
    labels = None if values is None else _label_table(values)
    if isinstance(given[0], str):
        frame = pd.DataFrame({"smiles": given})
        frame = frame if labels is None else pd.concat([frame, labels], axis=1)
        write_text(place / "molecules.csv", frame.to_csv(index=False))
        return "csv", {"path": str(place / "molecules.csv")} | _target(labels)
    if isinstance(given[0], Data):
        torch.save(given, place / "graphs.pt")
        file = place / "graphs.pt"
    elif isinstance(given[0], nx.Graph):
        write_text(place / "graphs.json", json.dumps([nx.node_link_data(graph, edges="edges") for graph in given]))
        file = place / "graphs.json"
    else:
        raise CosetError(f"graphs are {type(given[0]).__name__}; give PyG Data, SMILES, NetworkX graphs, or a path")
    if labels is not None:
        write_text(place / "labels.csv", labels.to_csv(index=False))
    return "graphs", {"path": str(file)} | _target(labels)


def _label_table(values: np.ndarray) -> pd.DataFrame:
    columns = values.reshape(len(values), -1)
    names = [TARGET] if columns.shape[1] == 1 else [f"{TARGET}{at}" for at in range(columns.shape[1])]
    return pd.DataFrame(columns, columns=names)


def _target(labels: pd.DataFrame | None) -> dict[str, Any]:
    return {} if labels is None else {"target": [str(column) for column in labels.columns]}
