"""Use a finished run on new molecules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from coset.core.errors import CosetError
from coset.core.files import takes_paths, write_text
from coset.core.outside import escaped, read_numbers
from coset.graphs.data import datasets
from coset.graphs.data.graph_table import GraphTable, node_names
from coset.graphs.data.molecule_files import read_molecules
from coset.graphs.exported import is_exported, read_config
from coset.graphs.fitting.tasks import GraphTask
from coset.relations.kernels.threads import pytorch_threads
from coset.runs.folder import HISTORY, RunFolder
from coset.runs.predictions import column_name, prediction_columns, spread_columns
from coset.runs.results import RunResults

if TYPE_CHECKING:
    from coset.graphs.experiments import GraphRecipe


class Member(NamedTuple):
    """A trained network: of a run alone, or one of an ensemble.

    Attributes:
        folder: Of its run.
        recipe: Of its run.
        task: The trained task.
        described: An empty table of what it predicts.
    """

    folder: Path
    recipe: GraphRecipe
    task: GraphTask
    described: GraphTable


@takes_paths
def predict_file(
    members: Sequence[Member],
    data: Path,
    output: Path,
    *,
    smiles: str | None = None,
    skip_bad_rows: bool = False,
    progress: bool = False,
    draws: int | None = None,
    seed: int | None = None,
    interval: float | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Write predictions of a run, or the means of several, for a file; returns how many rows, and notes.

    A CSV of SMILES is written again with columns added; of other graphs rows are ``id`` (with nodes also ``graph`` and
    ``node``; with edges and links ``graph``, ``u``, ``v``; with cells ``graph``, ``cell``). ``prediction_<target>`` is
    followed by ``probability_<class>`` of every class, by ``spread_<target>`` (the deviation between several runs and
    between draws of roots or noise, of a class's probability if there are classes), and by ``low_<target>`` and
    ``high_<target>`` of an interval.

    Args:
        members: Several are an ensemble.
        data: The file.
        output: The CSV to write.
        smiles: Column of SMILES; by default the one the run was trained on, or ``smiles``.
        skip_bad_rows: Leave out rows whose SMILES cannot be parsed; an error otherwise.
        progress: Show progress bars.
        draws: Draws of noise, or of roots, that a prediction is the mean of; by default as in the run's recipe.
        seed: Of these draws.
        interval: Share of truths that should lie between ``low`` and ``high``, for numbers: split conformal prediction
            (Vovk, Gammerman, Shafer, 2005) on the validation rows, which all runs must share.

    Raises:
        CosetError: A run cannot be used, runs do not belong together, or the file holds something that cannot be
            predicted.
    """
    first, recipe, _, described = members[0]
    notes = [note for member in members for note in unfinished(member.recipe, member.folder)]
    for member in members:
        same = (member.described.target_names, member.described.classes) == (described.target_names, described.classes)
        if not same or _but_for_seeds(member.recipe) != _but_for_seeds(recipe):
            raise CosetError(f"{member.folder} and {first} differ in more than the seed: they are no ensemble")
    margins = None if interval is None else conformal_margins([m.folder for m in members], described, interval)
    try:
        table, molecules = _graphs_to_predict(recipe, described, data, smiles, skip_bad_rows, progress)
    except CosetError as error:
        text = str(error).replace("skip_bad_rows=true", "--skip-bad-rows").replace("smiles=COLUMN", "--smiles COLUMN")
        raise CosetError(text) from error
    # Cells are written again as they are: an identifier may be called NA.
    read = read_molecules(data, skip_bad_rows, frozenset({""})).frame if molecules else row_names(table)
    frame = read.loc[[int(row) for row in table.ids]] if molecules else read
    each, within = [], []
    for folder, own, task, _ in members:
        again = _redrawn(own, task.model, draws, seed)
        values, spread = again.predictions_with_spread(task, again.encode(table.graphs, progress), progress)
        within.append(torch.zeros_like(values) if spread is None else spread)
        wrong = ~values.isfinite().all(1)
        if wrong.any():
            row = frame.index[int(wrong.int().argmax())] if molecules else frame["id"].iloc[int(wrong.int().argmax())]
            raise CosetError(f"{folder} predicts {int(wrong.sum())} values that are not finite (row {row} first)")
        each.append(values)
    for column, found in _columns(described, torch.stack(each), torch.stack(within), margins).items():
        if column in frame:
            raise CosetError(f"{data} has a column {column!r} already; rename it first")
        frame[column] = found
    write_text(output, escaped(frame).to_csv(index=False))
    return len(frame), (*notes, *table.notes)


@takes_paths
def unfinished(recipe: GraphRecipe, folder: Path) -> tuple[str, ...]:
    """A note that a run is not finished, whose best network so far may be a poor one.

    Raises:
        CosetError: The run failed.
    """
    run = RunFolder(folder)
    if is_exported(folder) or run.finished():
        return ()
    if run.status().get("state") == "failed":
        raise CosetError(f"{folder}: the run failed ({run.status().get('why')}); run it again before you use it")
    done = len(read_numbers(folder / HISTORY)) if (folder / HISTORY).is_file() else 0
    return (f"{folder}: the run was stopped after {done:,} of {recipe.training.epochs:,} epochs; this is its best "
            "network until then",)  # fmt: skip


def _but_for_seeds(recipe: GraphRecipe) -> dict[str, Any]:
    """What all runs of an ensemble have in common."""
    return recipe.model_dump(mode="json", include={"data", "model", "training"})


def conformal_margins(folders: Sequence[Path], described: GraphTable, share: float) -> Float[np.ndarray, " targets"]:
    """By how much predictions may be off on either side, so that such a share of new truths is inside.

    Of n absolute errors of the mean prediction on the validation rows, the ceil((n + 1) share)-th smallest. The
    validation rows chose the epoch, so that errors are a little too small: the more so, the fewer rows there are.

    Args:
        folders: Of the runs.
        described: An empty table of what they predict.
        share: Between 0 and 1.

    Raises:
        CosetError: There are classes, the runs have other validation rows, or too few of them.
    """
    if not 0 < share < 1:
        raise CosetError(f"--interval {share:g}: give a share between 0 and 1, such as 0.9")
    names = described.target_names
    if described.classes or any(_task_of(folder) != "regression" for folder in folders):
        raise CosetError("--interval: intervals are of numbers; classes have probabilities")
    if len(folders) == 1 and is_exported(folders[0]):
        kept = read_config(folders[0]).validation_errors
        return np.array([_margin(np.array(kept.get(name, [])), share) for name in names])
    runs = [RunResults(folder) for folder in folders]
    held = [run.predictions["split"] == "val" for run in runs]
    rows = [run.predictions["id"][val].tolist() for run, val in zip(runs, held, strict=True)]
    for folder, own in zip(folders, rows, strict=True):
        if own != rows[0]:
            raise CosetError(
                f"--interval: {folder} and {folders[0]} were validated on other rows; train with data.split_seed=0"
            )
    margins = []
    for name in names:
        found = [run.values("prediction", name)[val].to_numpy(float) for run, val in zip(runs, held, strict=True)]
        errors = np.abs(np.mean(found, axis=0) - runs[0].values("target", name)[held[0]].to_numpy(float))
        margins.append(_margin(errors, share))
    return np.array(margins)


def _task_of(folder: Path) -> str:
    recipe = read_config(folder).recipe if is_exported(folder) else RunResults(folder).recipe
    return str(recipe["training"]["task"])


def _margin(errors: Float[np.ndarray, " rows"], share: float) -> float:
    """The ceil((n + 1) share)-th smallest of n absolute errors, of which missing ones do not count."""
    errors = np.sort(errors[np.isfinite(errors)])
    rank = math.ceil((len(errors) + 1) * share)
    if rank > len(errors):
        raise CosetError(
            f"--interval {share:g}: {len(errors)} validation rows are too few; at least "
            f"{next(n for n in count(1) if math.ceil((n + 1) * share) <= n)} are needed"
        )
    return float(errors[rank - 1])


def _columns(
    described: GraphTable,
    each: Float[Tensor, "members rows columns"],
    within: Float[Tensor, "members rows columns"],
    margins: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Predictions, with their spread and their intervals.

    The variance is that between the members and the mean of those of their draws (the law of total variance).
    """
    names, mean = described.target_names, each.double().mean(0)
    found = prediction_columns(names, described.classes, mean.to(each.dtype))
    if len(each) > 1 or bool(within.any()):
        between = each.double().var(0) if len(each) > 1 else torch.zeros_like(mean)
        spread = (between + (within.double() ** 2).mean(0)).sqrt()
        found |= spread_columns(names, described.classes, spread, mean)
    for at, name in enumerate(names if margins is not None else ()):
        assert margins is not None
        for word, sign in (("low", -1), ("high", 1)):
            found[column_name(word, name)] = mean[:, at].numpy() + sign * margins[at]
    return found


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
    return _graphs_to_predict(recipe, described, data, smiles, skip_bad_rows, progress)[0]


def _graphs_to_predict(
    recipe: GraphRecipe, described: GraphTable, data: Path, smiles: str | None, skip_bad_rows: bool, progress: bool
) -> tuple[GraphTable, bool]:
    """The graphs, and whether they are those of a table of SMILES."""
    table = recipe.data.to_predict(data, described)
    if table is not None:
        return table, False
    if recipe.data.not_smiles:
        raise CosetError(f"{recipe.name} was trained on {recipe.data.title}, {recipe.data.not_smiles}")
    smiles = smiles or recipe.data.smiles_column
    read = datasets.csv(data, smiles, (), split=None, skip_bad_rows=skip_bad_rows, progress=progress)
    table = recipe.data.as_trained(read)
    if (table.node_features, table.edge_features) != (described.node_features, described.edge_features):
        raise CosetError(
            f"{data} has other graphs than {recipe.name} was trained on: molecules, mixtures of so many parts, and "
            "reactions each need a network of their own"
        )
    return table, True


def predictions_for(recipe: GraphRecipe, task: GraphTask, table: GraphTable, progress: bool = False) -> Tensor:
    """Predictions [rows, columns] for graphs as they were read."""
    with pytorch_threads(recipe.threads):
        return recipe.predictions(task, recipe.encode(table.graphs, progress), progress)


@pytorch_threads()
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
    """What rows are called: ``id``; of nodes also ``graph`` and ``node``, of pairs ``graph``, ``u`` and ``v``."""
    if table.level == "graph":
        return pd.DataFrame({"id": table.ids})
    graphs = np.asarray(table.ids, dtype=object)[table.graph_of_rows.numpy()]
    if table.level.startswith("cell"):
        cells = np.asarray([name for graph in table.graphs for name in graph.cell_names], dtype=object)
        ids = [f"{graph}/{cell}" for graph, cell in zip(graphs, cells, strict=True)]
        return pd.DataFrame({"id": ids, "graph": graphs, "cell": cells})
    if table.level != "node":
        ends = np.concatenate([_names_of_ends(graph) for graph in table.graphs], axis=1)
        ids = [f"{graph}/{u}-{v}" for graph, u, v in zip(graphs, *ends, strict=True)]
        return pd.DataFrame({"id": ids, "graph": graphs, "u": ends[0], "v": ends[1]})
    nodes = np.asarray([name for graph in table.graphs for name in node_names(graph)], dtype=object)
    ids = [f"{graph}/{node}" for graph, node in zip(graphs, nodes, strict=True)]
    return pd.DataFrame({"id": ids, "graph": graphs, "node": nodes})


def _names_of_ends(graph: Data) -> np.ndarray:
    """Names of the nodes at both ends of the pairs of a graph [2, rows]."""
    return np.asarray(node_names(graph), dtype=object)[graph.edge_label_index.numpy()]


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
