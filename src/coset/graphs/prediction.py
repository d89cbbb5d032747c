"""Use a finished run on new molecules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.core.outside import escaped, read_table
from coset.graphs.data import datasets
from coset.graphs.fitting.tasks import GraphTask

if TYPE_CHECKING:
    from coset.graphs.experiments import GraphRecipe


def prediction_columns(names: tuple[str, ...], kind: str = "prediction") -> list[str]:
    """``prediction`` for one target, ``prediction_<name>`` for several."""
    return [kind] if len(names) == 1 else [f"{kind}_{name}" for name in names]


def predict_csv(
    recipe: GraphRecipe,
    task: GraphTask,
    targets: tuple[str, ...],
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
        targets: Names of what it predicts.
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
    columns = prediction_columns(targets)
    for column in columns:
        if column in frame:
            raise CosetError(f"{data} has a column {column!r} already; rename it first")
    values = recipe.predictions(task, recipe.encode(table.graphs, progress), progress)
    wrong = ~values.isfinite().all(1)
    if wrong.any():
        row = frame.index[int(wrong.int().argmax())]
        raise CosetError(
            f"{folder} predicts {int(wrong.sum())} numbers that are not finite (row {row} of {data} first)"
        )
    for index, column in enumerate(columns):
        frame[column] = values[:, index].numpy()
    write_text(output, escaped(frame).to_csv(index=False))
    return len(frame), table.notes


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
