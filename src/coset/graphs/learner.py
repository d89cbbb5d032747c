"""A graph network as one object: ``fit``, ``predict``, ``embed``, ``save``, ``load``, in Python or a notebook.

    learner = Learner("gin", epochs=30).fit(["CCO", "CCN", ...], [1.2, 0.3, ...])
    learner.predict(["CCC"])

Behind it is a run like those of ``coset run``: its folder serves ``coset predict``, ``verify`` and ``report`` as well.
It is shaped as scikit-learn's estimators are, so that ``cross_val_score``, ``GridSearchCV`` and pipelines take it.
"""

from __future__ import annotations

import json
import re
import shutil
import weakref
from collections.abc import Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import pandas as pd

from coset.core.errors import CosetError, require
from coset.core.files import make_folder
from coset.core.metrics import r2
from coset.graphs.data.graph_table import class_name
from coset.graphs.exported import CARD, WEIGHTS, export, is_exported, read_config
from coset.graphs.given import Graphs, Targets, label_table, targets_inside, task_for, written
from coset.graphs.hub import Pretrained, downloaded
from coset.graphs.prediction import embeddings, graphs_to_predict, predictions_for, row_names
from coset.runs.folder import CONFIG, METRICS, RunFolder
from coset.runs.predictions import prediction_columns
from coset.runs.recipe import Recipe
from coset.runs.training import TrainingOptions
from coset.symmetry import EquivarianceReport

MEASURED = 8  # graphs that a symmetry is measured on
OWN = ("model", "task", "folder", "seed")
"""Parameters that are no options of the model or of training."""


class Learner(Pretrained, library_name="coset"):
    """A model of the registry with how it is trained.

    Args:
        model: Its name, as in ``model.name``.
        task: ``regression``, ``classification`` (labels 0 and 1), ``multiclass``, or ``auto``: words and whole numbers
            are classes, other numbers are values.
        folder: Of the run, beside which graphs given as objects are kept in ``<folder>-data``; by default a temporary
            one for every ``fit``, which ends with the object unless it is saved.
        seed: Of weights, batches and splits.
        options: Of the model (``width=32``) and of training (``epochs=30``, ``learning_rate=1e-3``).

    Raises:
        CosetError: There is no such model or option.
    """

    def __init__(
        self, model: str = "gin", *, task: str = "auto", folder: str | Path | None = None, seed: int = 0, **options: Any
    ):
        self.model, self.task, self.seed, self.options = model, task, seed, options
        self.folder = None if folder is None else Path(folder)
        self.recipe: Recipe | None = None
        self._place: Path | None = None
        self._labels: dict[str, Any] = {}
        self._runs = 0

    def fit(
        self,
        graphs: Graphs,
        y: Targets | None = None,
        *,
        target: str | Sequence[str] | None = None,
        smiles: str = "smiles",
        split: str = "random",
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        quiet: bool = True,
    ) -> Learner:
        """Train; the best epoch on the validation part counts.

        Args:
            graphs: See :data:`coset.graphs.given.Graphs`.
            y: A value or class a graph; not for PyG graphs that have theirs, or files.
            target: Column to learn, or several, of a file or a data frame.
            smiles: Column of SMILES of a file or a data frame.
            split: ``random`` or ``stratified``; ``scaffold`` for SMILES.
            fractions: Shares of train, val and test.
            quiet: No progress bars.

        Raises:
            CosetError: The graphs or their targets cannot be learned from.
        """
        from coset.runs.recipes import load

        values = None if y is None else label_table(y)
        folder = self._new_folder()
        where = folder.absolute().with_name(f"{folder.name}-data")
        make_folder(where)
        recipe, data = written(graphs, where, values, smiles)
        if recipe == "csv":
            data.setdefault("smiles", smiles)
        if target is not None:
            data["target"] = [target] if isinstance(target, str) else list(target)
        learned, task = self._values(graphs, values, data.get("target")), self.task
        if task == "auto":
            task = task_for(learned)
        labels = _labels_by_name(learned) if task == "multiclass" else {}
        given = {**{f"data.{key}": value for key, value in data.items()}, "data.split": split, "training.task": task}
        given |= {"data.fractions": list(fractions), "model.name": self.model, "seed": self.seed}
        given |= {f"{'training' if k in TrainingOptions.model_fields else 'model'}.{k}": v
                  for k, v in self.options.items()}  # fmt: skip
        self.recipe = load(recipe, [f"{key}={json.dumps(value, default=str)}" for key, value in given.items()])
        self.recipe.run(folder, quiet=quiet)
        self._place, self._labels = folder, labels
        return self

    def predict(self, graphs: Graphs) -> np.ndarray:
        """Values [graphs] or [graphs, targets]; of several classes the likeliest, of labels 0 and 1 the likelier.

        Classes are as they were given to :meth:`fit`; those of a file, and of a learner that was loaded, whole numbers
        where all of them are, else texts. Nodes are rows where nodes were learned from.
        """
        probabilities, described, task = self._outputs(graphs)
        if described.classes:
            return self._as_classes(described.classes)[probabilities.argmax(1)]
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

    def predict_frame(self, graphs: Graphs) -> pd.DataFrame:
        """Predictions with names, as ``coset predict`` writes them: ``prediction_<target>``, ``probability_<class>``.

        A row a graph; rows of nodes, pairs and cells begin with what they are of.
        """
        recipe, task, described = self._loaded()
        with TemporaryDirectory(prefix="coset-") as place:
            table = self._table(graphs, Path(place), recipe, described)
            found = predictions_for(recipe, task, table)
        columns = prediction_columns(described.target_names, described.classes, found)
        return pd.concat([row_names(table), pd.DataFrame(columns)], axis=1)

    def embed(self, graphs: Graphs) -> np.ndarray:
        """What the network's last layer reads, [graphs or nodes, columns]."""
        recipe, task, described = self._loaded()
        with TemporaryDirectory(prefix="coset-") as place:
            return embeddings(recipe, task, self._table(graphs, Path(place), recipe, described)).numpy()

    def score(self, graphs: Graphs, y: Targets | None = None) -> float:
        """R2 of values, the share of classes that are right; of several targets the mean of theirs.

        Args:
            graphs: As of :meth:`fit`.
            y: What is true; by default the ``y`` of PyG graphs. Missing values (NaN) do not count. Classes may be of
                another type than in :meth:`fit`: 1, 1.0 and "1" are one.

        Raises:
            CosetError: There is nothing to compare with.
        """
        true = targets_inside(graphs) if y is None else label_table(y).to_numpy()
        if true is None:
            raise CosetError("score: give y, what is true of these graphs")
        outputs, described, task = self._outputs(graphs)
        if described.classes:
            return _share_right(true.reshape(len(outputs)), np.asarray(described.classes)[outputs.argmax(1)])
        true = true.reshape(outputs.shape).astype(float)
        known = ~np.isnan(true)
        if not known.any():
            raise CosetError("score: all of y is missing")
        if task == "classification":
            return float((true == (outputs > 0.5))[known].mean())
        each = [r2(outputs[k, at], true[k, at]) or 0.0 for at, k in enumerate(known.T)]  # 0 of a constant target
        return float(np.mean(each))

    def save(self, folder: str | Path) -> Path:
        """A copy of the run's folder, which ``load`` and all commands read; returns it.

        ``save_pretrained`` writes less: what is needed to use the network.

        Raises:
            CosetError: Nothing is trained yet, or the folder is there.
        """
        place = self._check_fitted()
        if Path(folder).exists():
            raise CosetError(f"{folder} is there already; choose another folder")
        return Path(shutil.copytree(place, folder, ignore=shutil.ignore_patterns(".lock")))

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
        learner.recipe, learner._place = recipe, Path(folder)
        learner._check_fitted()
        return learner

    def _save_pretrained(self, save_directory: Path) -> None:
        """What ``save_pretrained`` writes: see :func:`coset.graphs.exported.export`."""
        export(self._check_fitted(), save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Learner:
        """What ``from_pretrained`` reads: a folder, or the name of a repository on the hub."""
        return cls.load(downloaded(model_id, [CONFIG, WEIGHTS, CARD], **options))

    @property
    def run_folder(self) -> Path:
        """Of the run behind this object.

        Raises:
            CosetError: Nothing is trained yet.
        """
        return self._check_fitted()

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics by split, with those of predicting the mean as ``baseline``."""
        place = self._check_fitted()
        return read_config(place).metrics if is_exported(place) else RunFolder(place).metrics()

    @property
    def classes_(self) -> np.ndarray:
        """The classes, in the order of the columns of :meth:`predict_proba`.

        Raises:
            AttributeError: Values were learned (so that scikit-learn sees none).
        """
        recipe, _, described = self._loaded()
        if recipe.training.task == "regression":
            raise AttributeError("this learner predicts values, not classes")
        return self._as_classes(described.classes) if described.classes else np.array([0, 1])

    def verify(self, graphs: Graphs | None = None) -> list[EquivarianceReport]:
        """The symmetry that the trained network claims, measured on the first of these graphs, or on its own data.

        Raises:
            CosetError: Its own data are not there, as for a network that was exported.
        """
        from coset.runs.recipes import verify

        place = self._check_fitted()
        if graphs is None:
            if is_exported(place):
                raise CosetError(f"verify: {place} holds no data; give some graphs")
            return list(verify(str(place)))
        recipe, task, described = self._loaded()
        with TemporaryDirectory(prefix="coset-") as folder:
            table = self._table(graphs, Path(folder), recipe, described)
            return list(recipe.certificate(task.model, recipe.encode(table.graphs[:MEASURED])))

    def plot(self, split: str | None = None) -> Any:
        """A figure (Plotly): predicted against true values, or what classes were taken for.

        Args:
            split: ``train``, ``val`` or ``test``; the last that there is by default.
        """
        from coset.graphs.pages.targets import class_pairs, classes_of, targets_of
        from coset.reports import plots
        from coset.runs.results import RunResults

        run = RunResults(self._check_fitted())
        split = split or run.splits[-1]
        if run.has_classes:
            true, likeliest = class_pairs(run, split)
            return plots.confusion(true.tolist(), likeliest.tolist(), classes_of(run), split).figure
        target = targets_of(run)[0]
        return plots.parity({split: target.pairs(split)}, target.name, "graphs").figure

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters by name, as scikit-learn asks for them."""
        return {"model": self.model, "task": self.task, "folder": self.folder, "seed": self.seed, **self.options}

    def set_params(self, **parameters: Any) -> Learner:
        """Change parameters, of which the next :meth:`fit` learns; returns itself."""
        for name, value in parameters.items():
            if name == "folder":
                self.folder = None if value is None else Path(value)
            elif name in OWN:
                setattr(self, name, value)
            else:
                self.options[name] = value
        return self

    def __sklearn_clone__(self) -> Learner:
        """An untrained copy, which keeps its runs in folders of its own."""
        return Learner(**{**self.get_params(), "folder": None})

    def __sklearn_tags__(self) -> Any:
        utils = require("sklearn.utils", "weights")
        kinds = {"regression": "regressor", "classification": "classifier", "multiclass": "classifier"}
        kind = kinds.get(self.task)
        tags = utils.Tags(estimator_type=kind, target_tags=utils.TargetTags(required=False))
        if kind == "classifier":
            tags.classifier_tags = utils.ClassifierTags()
        elif kind == "regressor":
            tags.regressor_tags = utils.RegressorTags()
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted()

    def __repr__(self) -> str:
        state = f"trained, {self._place}" if self._fitted() else "not trained"
        return f"Learner({self.model!r}, {state})"

    def _repr_html_(self) -> str:
        from coset.graphs.pages.notebook import table_and_picture

        if not self._fitted() or is_exported(self._check_fitted()):
            return f"<b>{escape(repr(self))}</b>"
        return table_and_picture(self.model, self._check_fitted())

    def _values(self, graphs: Graphs, values: pd.DataFrame | None, target: list[str] | None) -> np.ndarray | None:
        """What is to be learned, where it is at hand: words and whole numbers are classes."""
        if isinstance(graphs, pd.DataFrame) and values is None and target:
            values = graphs[[column for column in target if column in graphs]]
        return targets_inside(graphs) if values is None else values.to_numpy()

    def _outputs(self, graphs: Graphs) -> tuple[np.ndarray, Any, str]:
        recipe, task, described = self._loaded()
        with TemporaryDirectory(prefix="coset-") as place:
            table = self._table(graphs, Path(place), recipe, described)
            return predictions_for(recipe, task, table).numpy(), described, recipe.training.task

    def _table(self, graphs: Graphs, place: Path, recipe: Any, described: Any) -> Any:
        _, data = written(graphs, place, None, recipe.data.smiles_column)
        smiles = None if isinstance(graphs, str | Path) else data.get("smiles")
        return graphs_to_predict(recipe, described, Path(data["path"]), smiles)

    def _as_classes(self, names: Sequence[str]) -> np.ndarray:
        """Classes as they were given; where that is not known whole numbers if all of them are, else their names."""
        if all(name in self._labels for name in names):
            labels = [self._labels[name] for name in names]
            texts = any(isinstance(label, str) for label in labels)
            return np.asarray(labels, dtype=object if texts else None)
        if all(re.fullmatch(r"0|-?[1-9]\d*", name) for name in names):
            return np.array([int(name) for name in names])
        return np.asarray(names, dtype=object)

    def _loaded(self) -> Any:
        from coset.graphs.experiments import load_task

        return load_task(self._check_fitted())

    def _new_folder(self) -> Path:
        """Of the next run: the one that was asked for, or a temporary one of its own."""
        if self.folder is not None:
            return self.folder
        if not hasattr(self, "_temporary"):
            self._temporary = mkdtemp(prefix="coset-")
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        self._runs += 1
        return Path(self._temporary, f"run-{self._runs}")

    def _fitted(self) -> bool:
        return self._place is not None and ((self._place / METRICS).is_file() or is_exported(self._place))

    def _check_fitted(self) -> Path:
        if not self._fitted():
            raise CosetError(f"{self._place or 'this learner'} holds no finished run; call fit first")
        assert self._place is not None
        return self._place


def _labels_by_name(given: np.ndarray | None) -> dict[str, Any]:
    """Classes as they were given, by the name that a run knows them by.

    Raises:
        CosetError: Two of them have one name.
    """
    labels: dict[str, Any] = {}
    for label in () if given is None else given.flat:
        if not _is_missing(label) and labels.setdefault(name := class_name(str(label)), label) != label:
            raise CosetError(f"y: the classes {labels[name]!r} and {label!r} are both called {name!r}; rename one")
    return labels


def _share_right(true: np.ndarray, predicted: np.ndarray) -> float:
    """Share of classes that are right, by their names, among those that are known."""
    known = [at for at, label in enumerate(true) if not _is_missing(label)]
    if not known:
        raise CosetError("score: all of y is missing")
    return float(np.mean([class_name(str(true[at])) == predicted[at] for at in known]))


def _is_missing(label: object) -> bool:
    return bool(pd.isna(label)) or not str(label).strip()  # type: ignore[call-overload]
