"""Use a finished run on new molecules."""

from pathlib import Path

from coset.errors import CosetError
from coset.files import write_text
from coset.graphs import datasets
from coset.recipes.graphs import load_task, prediction_columns
from coset.recipes.schema import CSV, TU, PyG


def predict_csv(
    folder: Path,
    data: Path,
    output: Path,
    smiles: str | None = None,
    skip_bad_rows: bool = False,
    progress: bool = False,
) -> tuple[int, tuple[str, ...]]:
    """Write a CSV of SMILES again with columns of predictions added; returns how many rows, and notes.

    Args:
        folder: Of the run.
        data: The CSV.
        output: The CSV to write.
        smiles: Column of SMILES; by default the one the run was trained on, or ``smiles``.
        skip_bad_rows: Leave out rows whose SMILES cannot be parsed; an error otherwise.
        progress: Show progress bars.

    Raises:
        CosetError: The run cannot be used, or the file holds something that cannot be predicted.
    """
    recipe, task, described = load_task(folder)
    if isinstance(recipe.data, PyG):
        raise CosetError(
            f"{folder} was trained on PyG's {recipe.data.dataset}, whose features cannot be had from SMILES; "
            "train on a CSV to predict for one"
        )
    if isinstance(recipe.data, TU):
        raise CosetError(f"{folder} was trained on {recipe.data.name}, whose graphs are no molecules in SMILES")
    smiles = smiles or (recipe.data.smiles if isinstance(recipe.data, CSV) else "smiles")
    try:
        table = datasets.csv(data, smiles, (), split=None, skip_bad_rows=skip_bad_rows, progress=progress)
    except CosetError as error:
        raise CosetError(str(error).replace("skip_bad_rows=true", "--skip-bad-rows")) from error
    frame = datasets.read_rows(data).loc[[int(row) for row in table.ids]]
    columns = prediction_columns(described.target_names)
    for column in columns:
        if column in frame:
            raise CosetError(f"{data} has a column {column!r} already; rename it first")
    values = recipe.predict(task, recipe.encode(table.graphs, progress), progress)
    for index, column in enumerate(columns):
        frame[column] = values[:, index].numpy()
    write_text(output, frame.to_csv(index=False))
    return len(frame), table.notes
