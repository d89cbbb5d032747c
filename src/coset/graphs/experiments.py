"""Recipes of kind ``graphs``: a data set of graphs, a model, and how to train it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.machine import memory_installed
from coset.core.outside import read_table
from coset.graphs.data.graph_table import GraphTable, counted
from coset.graphs.data.shards import ShardedGraphs
from coset.graphs.data.sources import GRAPH_DATA, GraphData
from coset.graphs.exported import WEIGHTS, check_state, exported_state, is_exported
from coset.graphs.fitting import matmul
from coset.graphs.fitting.engine import Fit, first_batch, fit, predict_with_spread
from coset.graphs.fitting.links import LinkView, judged, training_graphs
from coset.graphs.fitting.loaders import View
from coset.graphs.fitting.loggers import LOGS, check_installed
from coset.graphs.fitting.neighbourhoods import NodeBatches
from coset.graphs.fitting.tasks import GraphTask
from coset.graphs.fitting.trainer import TrainerOptions
from coset.graphs.fitting.training import GraphTraining
from coset.graphs.models.options import GRAPH_MODELS, GraphModel
from coset.graphs.pages.views import PAGE_VIEWS
from coset.graphs.prediction import Member, predict_file, row_names
from coset.graphs.starting import freeze, take_over
from coset.graphs.transforms import SampleRoots, precompute
from coset.relations.kernels.simd import has_bfloat16
from coset.relations.kernels.threads import pytorch_threads
from coset.runs.checkpoints import check_belongs, read_checkpoint
from coset.runs.devices import ALL, device_of
from coset.runs.folder import BEST, HISTORY, LAST, PREDICTIONS, RunFolder
from coset.runs.metrics import metrics_of
from coset.runs.objective import check_task
from coset.runs.predictions import prediction_columns, spread_columns, target_columns
from coset.runs.recipe import Recipe
from coset.runs.run import Run, write_certificate
from coset.symmetry import EquivarianceReport, verify_claims

Graphs = list[Data] | ShardedGraphs
CERTIFIED = 8  # graphs that a symmetry is measured on
MAY_CHANGE = frozenset(
    ["device", "trainer.logger", *(f"training.{key}" for key in ("epochs", "early_stopping", "max_minutes", "workers"))]
)


class GraphRecipe(Recipe):
    """A whole run on graphs."""

    may_change: ClassVar[frozenset[str]] = MAY_CHANGE
    counts_epochs: ClassVar[bool] = True
    shares_processes: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ALL

    kind: Literal["graphs"] = "graphs"
    data: Annotated[GraphData, GRAPH_DATA.choice]
    model: Annotated[GraphModel, GRAPH_MODELS.choice]
    training: GraphTraining = Field(default_factory=lambda: GraphTraining.model_validate({}))
    trainer: TrainerOptions = Field(default_factory=lambda: TrainerOptions.model_validate({}))

    @model_validator(mode="before")
    @classmethod
    def _links_are_a_task(cls, values: Any) -> Any:
        """``data.level=link`` and ``training.task=link`` mean the same: one of them is enough."""
        data, training = (values.get(key) for key in ("data", "training")) if isinstance(values, dict) else (None, None)
        if not isinstance(data, dict) or not isinstance(training, dict | None):
            return values
        training = training or {}
        if data.get("level") == "link" and "task" not in training:
            return {**values, "training": {**training, "task": "link"}}
        if training.get("task") == "link" and data.get("level", "auto") == "auto":
            return {**values, "data": {**data, "level": "link"}}
        return values

    @model_validator(mode="after")
    def _links_fit(self) -> "GraphRecipe":
        level = getattr(self.data, "level", "graph")
        if (level == "link") != (self.training.task == "link"):
            raise ValueError(f"training.task={self.training.task} does not fit data.level={level}: links are learned "
                             "by training.task=link alone")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _neighbourhoods_fit(self) -> "GraphRecipe":
        drawn, model = self.training.neighbours, self.model
        if drawn and (why := model.why_whole()):
            raise ValueError(f"training.neighbours={drawn}: {model.name} learns from whole graphs alone, for {why}; "
                             "gin with norm=batch or layer can do without")  # fmt: skip
        if drawn and len(drawn) != model.layers:
            raise ValueError(f"training.neighbours={drawn}: model.layers={model.layers}, give a number a layer")
        return self

    @model_validator(mode="after")
    def _model_can_be_built(self) -> "GraphRecipe":
        """What only the network knows, such as a width too small for the heads, is said before any data is read."""
        if not self.model.marks_roots and self.model.root_fraction < 1:
            raise ValueError(
                f"model.root_fraction={self.model.root_fraction}: {self.model.name} has no roots; leave it at 1"
            )
        if self.device != "auto" and self.trainer.accelerator is not None:
            raise ValueError(
                f"device={self.device} and trainer.accelerator={self.trainer.accelerator}: give one of them"
            )
        if self.model.votes > 1 and self.model.root_fraction == 1:
            raise ValueError(f"model.votes={self.model.votes} needs model.root_fraction below 1: all draws are equal")
        with torch.device("meta"):
            try:
                network = self.model.build(1, None, None)
            except ValueError as error:
                raise ValueError(f"model.{error}") from error
            except (RuntimeError, TypeError, OverflowError) as error:  # no memory has room for so many numbers
                raise ValueError(f"model cannot be built: {str(error).splitlines()[0][:120]}") from error
        if self.trainer.precision == "bf16":
            store_in_bfloat16(network, self.model.name)
        return self

    def load(self, progress: bool = False) -> GraphTable:
        """The data as it was read.

        Raises:
            CosetError: It is missing or malformed; options are named as a recipe names them.
        """
        try:
            return self.data.of_words(self.training.task == "multiclass").load(self.seed, progress)
        except CosetError as error:
            message = str(error)
            for option in ("skip_bad_rows=true", "drop_missing=true", "split=random", "smiles=COLUMN"):
                message = message.replace(option, f"data.{option}")
            raise CosetError(message) from error

    def encode(self, graphs: Graphs, progress: bool = False) -> Graphs:
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
        """What is drawn afresh at each access: a sample of roots, or the edges that are hidden and asked for."""
        if self.training.task == "link":
            transform = self.model.transform()
            return LinkView(lambda graphs: precompute(graphs, transform))
        fraction = self.model.root_fraction
        return None if fraction == 1 else lambda graph, seed: SampleRoots(fraction=fraction, seed=seed)(graph)

    def network(self, table: GraphTable) -> nn.Module:
        """The untrained model; its weights follow from the seed."""
        torch.manual_seed(self.seed)
        try:
            return self.model.network(
                table.outputs, table.node_features, table.edge_features, table.level, table.face_features
            )
        except ValueError as error:
            raise CosetError(f"model.name={self.model.name}: {error}") from error

    def task(self, table: GraphTable) -> GraphTask:
        """The model with loss and target scale of the training set."""
        t = self.training
        targets = table.targets[table.splits["train"]]
        return GraphTask(
            self.network(table), t.task, targets, classes=table.classes, class_weights=t.class_weights, loss=t.loss,
            learning_rate=t.learning_rate, weight_decay=t.weight_decay, schedule=t.schedule, patience=t.patience,
            warmup=t.warmup, epochs=t.epochs, monitor=t.monitor, seed=self.seed,
        )  # fmt: skip

    def start(self, task: GraphTask, table: GraphTable, folder: Path) -> str:
        """Give a task the parts of a trained one that fit it: see :func:`coset.graphs.starting.take_over`.

        Raises:
            CosetError: The folder holds no trained network, or none that fits.
        """
        _, source, described = load_task(folder)
        return take_over(task, source, table, described, str(folder))

    def identity_of(self, table: GraphTable) -> dict[str, Any]:
        """What a checkpoint carries, to be used without the data and never for another recipe."""
        return {
            "recipe": self.model_dump(mode="json"),
            "targets": list(table.target_names),
            "node_features": table.node_features,
            "edge_features": table.edge_features,
            "face_features": table.face_features,
            "classes": list(table.classes),
            "level": table.level,
            "columns": table.columns,
        }

    def certificate(self, model: nn.Module, graphs: Graphs) -> list[EquivarianceReport]:
        """The model's claims, measured on the first of these (encoded) graphs in float64."""
        if self.training.neighbours:
            some = torch.arange(min(CERTIFIED, int(graphs[0].num_nodes or 0)))
            graphs = NodeBatches(graphs[0], some, [None] * self.model.layers)[[(int(row), 0) for row in some]]
        batch = first_batch(graphs, CERTIFIED)
        return verify_claims(model, self.model.settled(model, batch))

    def folder(self, path: Path) -> RunFolder:
        return RunFolder(path, (LOGS, *(view.file for _, view in PAGE_VIEWS.items())))

    def prepare(self, run: Run) -> GraphTable:
        """Read the graphs.

        Raises:
            CosetError: They are missing or malformed, or there is nothing to learn.
        """
        device_of(self.device)
        if self.trainer.precision == "bf16" and not self._on_cpu:
            raise CosetError("trainer.precision=bf16 is for CPUs; on a GPU give bf16-mixed")
        if self.trainer.logger is not None:
            check_installed(self.trainer.logger)
        table = self.load(progress=not run.quiet)
        if not table.target_names:
            raise CosetError(f"{table.name} has no targets to learn")
        if self.training.task == "multiclass":
            table = table.with_classes()
        check_task(self.training.task, table.targets, table.classes)
        if self.training.neighbours and (table.level != "node" or len(table) != 1):
            raise CosetError(f"training.neighbours needs one graph with targets of its nodes; {table.name} has "
                             f"{counted(len(table), 'graph')} with targets of {table.level}s")  # fmt: skip
        if self.model.squares:
            check_squares(self.model, table)
        return table

    @property
    def reads(self) -> str:
        return f"{self.seed} {self.data.model_dump_json()}"

    @property
    def files(self) -> Sequence[Path]:
        named = [getattr(self.data, key, None) for key in ("path", "labels")]
        return [Path(name) for name in named if name]

    def identity(self, prepared: GraphTable) -> str:
        return prepared.identity()

    def work(self, run: Run, prepared: GraphTable) -> dict[str, Any]:
        """Encode, train, and test; the best epoch on validation counts.

        Raises:
            CosetError: The data or the recipe does not allow it.
        """
        folder, task = run.folder, self.task(prepared)
        resume = self._resumes(folder)
        if self.model.starts_from is not None and not resume:
            run.notes.append(self.start(task, prepared, self.model.starts_from))
        if self.training.freeze:
            task.frozen = freeze(task.model, self.training.freeze)
            task.train()  # Lightning keeps the mode that each module is in
        parts = ", ".join(f"{len(rows)} {split}" for split, rows in prepared.splits.items())
        size = sum(p.numel() for p in task.model.parameters())
        targets = f"{len(prepared.target_names)} target{'s' * (len(prepared.target_names) != 1)}"
        graphs = counted(len(prepared), "graph")
        run.say(f"{self.name}: {prepared.name}, {graphs} ({parts}), {targets}; {size:,} parameters")
        run.notes += prepared.notes
        table = prepared.map(lambda graphs: self.encode(graphs, progress=not run.quiet))
        train, val = self._shares(prepared, table)
        if self.trainer.precision == "bf16" and not has_bfloat16():
            run.notes.append("this CPU has neither avx512_bf16 nor amx_bf16: instead of bf16, precision is float32")
        if self.trainer.matmul_precision != "highest":
            run.notes.append(matmul.told(self.trainer.matmul_precision, "cpu" if self._on_cpu else "cuda"))
        if not val:
            run.notes.append("there is no validation split: the best epoch was chosen on the training set")
        for note in run.notes:
            run.say(f"note: {note}")
        if self.trainer.precision == "bf16" and has_bfloat16():
            store_in_bfloat16(task.model, self.model.name)
        best = fit(task, train, val or train, self._fit(table, run), folder.path, view=self.view, resume=resume)
        if not run.first:
            return {}
        run.at("predictions")
        predictions, spread = self._judged(task, prepared, table, progress=not run.quiet)
        folder.write_text(PREDICTIONS, prediction_table(table, predictions, spread).to_csv(index=False))
        write_certificate(folder, self.certificate(task.model, table.graphs))
        for _, view in PAGE_VIEWS.items():
            view.leave(folder, task.model, table)
        return metrics_by_split(task, table, predictions) | {
            "params": size,
            "best_epoch": best,
            "epochs": len(read_table(folder / HISTORY)),
        }

    def _resumes(self, folder: RunFolder) -> bool:
        """Whether the folder has a checkpoint to go on from.

        Raises:
            CosetError: It belongs to another recipe.
        """
        if not (folder / LAST).is_file():
            return False
        stored = read_checkpoint(folder / LAST).get("identity", {})
        check_belongs(folder / LAST, self.completed(stored.get("recipe", {})), self._kept())
        return True

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """The certificate of the trained model of a run, or of an untrained one, on the first of its graphs."""
        if folder is not None:
            recipe, task, described = load_task(folder)
            table, model = recipe.load(progress), task.model
            _check_same_form(table, described, folder)
        else:
            recipe, table = self, self.load(progress)
            model = recipe.network(replace(table, target_names=table.target_names or ("y",)))
        return recipe.certificate(model, recipe.encode(table.graphs[:CERTIFIED]))

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.graphs.pages.run_report import write_report

        return write_report(folder.path, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a metric, a column a split, and what predicting the mean gives on the last of them."""
        splits = [name for name in ("train", "val", "test") if name in metrics]
        last = splits[-1]
        rows = [
            [name, *(_rounded(metrics[s].get(name)) for s in splits), _rounded(metrics["baseline"][last].get(name))]
            for name in metrics[last]
        ]
        return ["metric", *splits, f"{last}, predicting the mean"], rows

    def _shares(
        self, read: GraphTable, table: GraphTable
    ) -> tuple[Sequence[Data] | NodeBatches, Sequence[Data] | NodeBatches]:
        """What to train on and what to validate on, of the graphs as they were read and as they are encoded."""
        has_val = len(table.splits.get("val", ())) > 0
        if self.training.neighbours:
            train = NodeBatches(table.graphs[0], table.splits["train"], self.training.neighbours, self.seed)
            return train, self._whole(table.graphs[0], table.splits["val"]) if has_val else []
        if table.level != "link":
            return table.subset("train"), table.subset("val") if has_val else []
        return training_graphs(read), self.encode(read.subset("val")) if has_val else []

    def _whole(self, graph: Data, rows: Tensor) -> NodeBatches:
        """Nodes with all that their predictions depend on."""
        return NodeBatches(graph, rows, [None] * self.model.layers)

    def _judged(
        self, task: GraphTask, read: GraphTable, table: GraphTable, progress: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Predictions for all rows of the table, and their spread; for links each on a graph that does not have it."""
        if table.level != "link":
            return self.predictions_with_spread(task, table.graphs, progress)
        found = torch.full((len(table.targets), task.columns), torch.nan, dtype=task.mean.dtype)
        spread, several = torch.zeros_like(found), False
        for graphs, rows in judged(read):
            found[rows], own = self.predictions_with_spread(task, self.encode(graphs), progress)
            if own is not None:
                spread[rows], several = own.to(spread), True
        return found, spread if several else None

    def predictions(self, task: GraphTask, graphs: Graphs, progress: bool = False) -> Tensor:
        """Predictions for encoded graphs; with sampled roots the mean over the votes."""
        return self.predictions_with_spread(task, graphs, progress)[0]

    def predictions_with_spread(
        self, task: GraphTask, graphs: Graphs, progress: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The same with the deviation between draws of roots or of noise, where there are several."""
        if self.training.neighbours:
            every = [self._whole(graph, torch.arange(int(graph.num_nodes or 0))) for graph in graphs]
            found = [predict_with_spread(task, nodes, progress=progress) for nodes in every]
            spreads = [spread for _, spread in found if spread is not None]
            return torch.cat([part for part, _ in found]), torch.cat(spreads) if len(spreads) == len(found) else None
        how: dict[str, Any] = {"view": self.view, "votes": self.model.votes, "seed": self.seed, "progress": progress}
        return predict_with_spread(task, graphs, **how)

    def predict(
        self, folder: RunFolder, data: Path, output: Path, *, quiet: bool = False, **options: Any
    ) -> tuple[int, Sequence[str]]:
        """See :func:`coset.graphs.prediction.predict_file`."""
        if options.pop("lossy", False):
            raise CosetError(f"--lossy: the model of {folder} reads graphs; the option is for LoRA adapters")
        members = [Member(path, *load_task(path)) for path in (folder.path, *options.pop("others", ()))]
        with pytorch_threads(self.threads):
            return predict_file(members, data, output, progress=not quiet, **options)

    def how(self) -> Fit:
        """How the recipe says to fit, with what it says of training, Lightning and threads."""
        t = self.training
        return Fit(
            epochs=t.epochs, batch_size=t.batch_size, gradient_clip=t.gradient_clip, early_stopping=t.early_stopping,
            max_minutes=t.max_minutes, workers=t.workers, seed=self.seed, trainer=self._trainer(), threads=self.threads,
            matmul_precision=self.trainer.matmul_precision, logger=self.trainer.logger, name=self.name,
        )  # fmt: skip

    def _fit(self, table: GraphTable, run: Run) -> Fit:
        if self._on_cpu and self.trainer.precision.endswith("-mixed"):
            run.say(f"trainer.precision={self.trainer.precision} makes a CPU slower (1.3 to 1.4 times), not faster")

        def told(row: Mapping[str, float]) -> None:
            run.at(f"epoch {int(row['epoch']) + 1} of {self.training.epochs}")
            if run.on_epoch is not None:
                run.on_epoch(row)

        # A process that Lightning spawns gets its callbacks pickled, which a function of this run cannot be.
        on_epoch = told if self.trainer.devices == 1 else None
        return replace(self.how(), quiet=run.quiet, identity=self.identity_of(table), on_epoch=on_epoch)

    @property
    def _on_cpu(self) -> bool:
        accelerator = self._trainer().get("accelerator", "auto")
        return (device_of("auto").type if accelerator == "auto" else accelerator) == "cpu"

    def _trainer(self) -> dict[str, Any]:
        """What Lightning's trainer is told."""
        options = self.trainer.of_lightning()
        return options if self.device == "auto" else {**options, "accelerator": self.device}

    def _kept(self) -> dict[str, Any]:
        """What must not have changed when a run goes on."""
        recipe = self.model_dump(mode="json")
        kept = {key: recipe[key] for key in ("kind", "data", "model", "seed")}
        names = {key.partition(".")[2] for key in self.may_change if key.startswith("training.")}
        return {**kept, "training": {key: value for key, value in recipe["training"].items() if key not in names}}


def check_squares(model: GraphModel, table: GraphTable) -> None:
    """Refuse a graph whose pairs of nodes fit into no memory here, before they are asked for.

    Raises:
        CosetError: There is one.
    """
    nodes = max(int(graph.num_nodes or 0) for graph in table.graphs)
    sets = getattr(model, "bag", "full")
    rows = nodes * (sets if isinstance(sets, int) else nodes)
    needed, there = 4 * rows * model.width, memory_installed()
    if 0 < there < needed:
        raise CosetError(
            f"model.name={model.name}: {model.whole}; {nodes:,} nodes are {rows:,} pairs, {needed / 1e9:,.0f} GB a "
            f"layer, and this machine has {there / 1e9:,.0f}; gin learns such graphs, by training.neighbours"
        )


@takes_paths
def _check_same_form(table: GraphTable, described: GraphTable, folder: Path) -> None:
    """Raise a CosetError unless data that are read again have the features of training."""
    for key in ("node_features", "edge_features", "face_features"):
        now, then = getattr(table, key), getattr(described, key)
        if now != then:
            raise CosetError(f"{folder}: its data have changed since training, {key.replace('_', ' ')} from "
                             f"{then or 'none'} to {now or 'none'}; train anew")  # fmt: skip


def load_task(folder: Path) -> tuple[GraphRecipe, GraphTask, GraphTable]:
    """Recipe and trained task of a run or of an exported network, and an empty table that says what its data looked
    like.

    Raises:
        CosetError: The folder holds no run with a checkpoint, or its checkpoint belongs to another recipe.
    """
    from coset.runs.recipes import load_run

    recipe = load_run(folder)
    if not isinstance(recipe, GraphRecipe):
        raise CosetError(f"{folder} holds a run of kind {recipe.kind}, which has no predictions for molecules")
    exported = is_exported(folder)
    checkpoint = folder / (WEIGHTS if exported else BEST)
    state = exported_state(folder) if exported else read_checkpoint(checkpoint)
    identity = state.get("identity", {})
    settled = recipe.model_dump(mode="json")
    wanted = {key: settled[key] for key in ("kind", "data", "model")}
    stored = recipe.completed(identity.get("recipe", {}))
    if not exported:
        check_belongs(checkpoint, stored, {**wanted, "training": {"task": settled["training"]["task"]}})
    table = GraphTable([], tuple(identity["targets"]), classes=tuple(identity.get("classes", ())))
    table = replace(
        table,
        node_features=identity["node_features"],
        edge_features=identity["edge_features"],
        face_features=identity.get("face_features"),
        level=identity.get("level", "graph"),
        columns=identity.get("columns", {}),
    )
    weights = state["state_dict"]
    wrong = next((name for name, w in weights.items() if w.is_floating_point() and not bool(w.isfinite().all())), None)
    if wrong is not None:
        raise CosetError(f"{checkpoint}: {wrong} holds numbers that are not finite; train the model again")
    dtype = weights["mean"].dtype if "mean" in weights else torch.float32
    unknown = torch.full((1, len(table.target_names)), torch.nan, dtype=dtype)
    task = GraphTask(recipe.network(table), recipe.training.task, unknown, classes=table.classes)
    if exported:
        check_state(weights, task, checkpoint)
    task.load_state_dict(weights)
    return recipe, task, table


def store_in_bfloat16(network: nn.Module, name: str) -> None:
    """Let a network keep its rows of pairs in bfloat16 while it is trained.

    Raises:
        ValueError: It cannot.
    """
    store = getattr(network, "store_in_bfloat16", None)
    try:
        if store is not None:
            store()
            return
    except ValueError:
        pass
    raise ValueError(
        f"trainer.precision=bf16: {name} with these options has no layers for it; model=subgraphormer has, with "
        "attention=gat, relations=[uL,vL,vv] and a width such as 24, 48 or 96, and model=gnn-sswl-plus, with relations "
        "of uL, vL, vv and a width that 8 divides"
    )


def prediction_table(table: GraphTable, predictions: Tensor, spread: Tensor | None = None) -> pd.DataFrame:
    """Rows of ``predictions.csv``: id, smiles, split, target and prediction of each target, and the spread of draws."""
    frame = row_names(table)
    if table.level == "graph":
        frame["smiles"] = table.smiles
    frame["split"] = table.split_of()
    names, classes = table.target_names, table.classes
    columns = [target_columns(names, classes, table.targets), prediction_columns(names, classes, predictions)]
    if not classes:  # each target beside its prediction
        pairs = zip(*(list(part.items()) for part in columns), strict=True)
        columns = [dict(pair) for pair in pairs]
    columns += [] if spread is None else [spread_columns(names, classes, spread, predictions)]
    for part in columns:
        for name, values in part.items():
            frame[name] = values
    return frame


def metrics_by_split(task: GraphTask, table: GraphTable, predictions: Tensor) -> dict[str, Any]:
    """Metrics of each split, beside those of always predicting the training mean (for a class: its share)."""
    targets = table.targets
    mean = targets[table.splits["train"]].nanmean(0).nan_to_num()
    if table.classes:
        known = targets[table.splits["train"]]
        mean = torch.bincount(known[~known.isnan()].long(), minlength=len(table.classes)).float()
        mean = mean / mean.sum()
    result: dict[str, Any] = {}
    baseline: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        rows = table.splits.get(name)
        if rows is not None and len(rows):
            result[name] = metrics_of(task.task, predictions[rows], targets[rows])
            baseline[name] = metrics_of(task.task, mean.expand(len(rows), -1), targets[rows])
    return {**result, "baseline": baseline}


def _rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
