"""Use a finished run on new molecules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.core.outside import escaped, read_table
from coset.graphs.data import datasets
from coset.graphs.data.datasets import GraphTable, node_names
from coset.graphs.fitting.tasks import GraphTask
from coset.runs.predictions import prediction_columns

if TYPE_CHECKING:
    from coset.graphs.experiments import GraphRecipe


def predict_csv(
    recipe: GraphRecipe,
    task: GraphTask,
    described: GraphTable,
    folder: Path,
    data: Path,
    output: Path,
    smiles: str | None = None,
    skip_bad_rows: bool = False,
    progress: bool = False,
    draws: int | None = None,
    seed: int | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Write a CSV of SMILES again with columns of predictions added; returns how many rows, and notes.

    Args:
        recipe: Of the run.
        task: Its trained task.
        described: An empty table of what it predicts.
        folder: Of the run, for messages.
        data: The CSV.
        output: The CSV to write.
        smiles: Column of SMILES; by default the one the run was trained on, or ``smiles``.
        skip_bad_rows: Leave out rows whose SMILES cannot be parsed; an error otherwise.
        progress: Show progress bars.
        draws: Draws of noise, or of roots, that a prediction is the mean of; by default as in the run's recipe.
        seed: Of these draws.

    Raises:
        CosetError: The run cannot be used, or the file holds something that cannot be predicted.
    """
    if recipe.data.not_smiles:
        raise CosetError(f"{folder} was trained on {recipe.data.title}, {recipe.data.not_smiles}")
    recipe = _redrawn(recipe, task.model, draws, seed)
    smiles = smiles or recipe.data.smiles_column
    try:
        table = datasets.csv(data, smiles, (), split=None, skip_bad_rows=skip_bad_rows, progress=progress)
    except CosetError as error:
        raise CosetError(str(error).replace("skip_bad_rows=true", "--skip-bad-rows")) from error
    frame = read_table(data).loc[[int(row) for row in table.ids]]
    names, classes = described.target_names, described.classes
    for column in prediction_columns(names, classes, torch.empty(0, described.outputs)):
        if column in frame:
            raise CosetError(f"{data} has a column {column!r} already; rename it first")
    values = recipe.predictions(task, recipe.encode(table.graphs, progress), progress)
    wrong = ~values.isfinite().all(1)
    if wrong.any():
        row = frame.index[int(wrong.int().argmax())]
        raise CosetError(f"{folder} predicts {int(wrong.sum())} values that are not finite (row {row} first)")
    for column, found in prediction_columns(names, classes, values).items():
        frame[column] = found
    write_text(output, escaped(frame).to_csv(index=False))
    return len(frame), table.notes


def predict_graphs(
    recipe: GraphRecipe,
    task: GraphTask,
    described: GraphTable,
    table: GraphTable,
    output: Path,
    progress: bool = False,
    draws: int | None = None,
    seed: int | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Write predictions for graphs, a row a graph or a node; returns how many rows, and notes.

    Args:
        recipe: Of the run.
        task: Its trained task.
        described: An empty table of what it predicts.
        table: The graphs.
        output: The CSV to write: ``id`` (with nodes also ``graph`` and ``node``), then predictions.
        progress: Show progress bars.
        draws: As of :func:`predict_csv`.
        seed: Of these draws.
    """
    recipe = _redrawn(recipe, task.model, draws, seed)
    values = recipe.predictions(task, recipe.encode(table.graphs, progress), progress)
    frame = row_names(table)
    for column, found in prediction_columns(described.target_names, described.classes, values).items():
        frame[column] = found
    write_text(output, frame.to_csv(index=False))
    return len(frame), table.notes


def graphs_to_predict(
    recipe: GraphRecipe,
    described: GraphTable,
    data: Path,
    smiles: str | None = None,
    skip_bad_rows: bool = False,
    progress: bool = False,
) -> GraphTable:
    """Graphs of a file that a run can predict for: of the form it was trained on, or a table of SMILES.

    Raises:
        CosetError: The file holds something that cannot be predicted.
    """
    table = recipe.data.to_predict(data, described)
    if table is not None:
        return table
    if recipe.data.not_smiles:
        raise CosetError(f"{recipe.name} was trained on {recipe.data.title}, {recipe.data.not_smiles}")
    smiles = smiles or recipe.data.smiles_column
    return datasets.csv(data, smiles, (), split=None, skip_bad_rows=skip_bad_rows, progress=progress)


def predictions_for(recipe: GraphRecipe, task: GraphTask, table: GraphTable, progress: bool = False) -> Tensor:
    """Predictions [rows, columns] for graphs as they were read."""
    return recipe.predictions(task, recipe.encode(table.graphs, progress), progress)


@torch.inference_mode()
def embeddings(recipe: GraphRecipe, task: GraphTask, table: GraphTable, batch_size: int = 64) -> Tensor:
    """What the last linear layer of the network reads, [rows, columns]; of several draws of noise the mean."""
    task.eval()
    last: list[tuple[nn.Module, Tensor]] = []
    linear = [module for module in task.model.modules() if isinstance(module, nn.Linear)]
    hooks = [m.register_forward_pre_hook(lambda module, given: last.append((module, given[0]))) for m in linear]
    graphs, parts = recipe.encode(table.graphs), []
    try:
        for start in range(0, len(graphs), batch_size):
            last.clear()
            task(Batch.from_data_list([graphs[at] for at in range(start, min(start + batch_size, len(graphs)))]))
            final = last[-1][0]
            parts.append(torch.stack([given for module, given in last if module is final]).mean(0))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(parts)


def row_names(table: GraphTable) -> pd.DataFrame:
    """What rows of predictions are called: ``id``; of nodes also ``graph`` and ``node``."""
    if table.level == "graph":
        return pd.DataFrame({"id": table.ids})
    graphs = np.repeat(np.asarray(table.ids, dtype=object), table.rows_of_graphs)
    nodes = np.asarray([name for graph in table.graphs for name in node_names(graph)], dtype=object)
    ids = [f"{graph}/{node}" for graph, node in zip(graphs, nodes, strict=True)]
    return pd.DataFrame({"id": ids, "graph": graphs, "node": nodes})


def _redrawn(recipe: GraphRecipe, model: nn.Module, draws: int | None, seed: int | None) -> GraphRecipe:
    """The recipe with other draws of roots; noise is set in the model itself."""
    if draws is None and seed is None:
        return recipe
    if recipe.model.redrawn(model, draws, seed):
        return recipe
    if recipe.view is None:
        raise CosetError(f"--draws and --seed: the model of {recipe.name} has neither noise nor sampled roots to draw")
    votes = recipe.model.votes if draws is None else draws
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"votes": votes}),
            "seed": recipe.seed if seed is None else seed,
        }
    )
