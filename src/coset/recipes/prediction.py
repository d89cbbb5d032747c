"""Use a finished run: predict for new molecules, and certify the symmetry of its model."""

from pathlib import Path

import torch

from coset.errors import CosetError
from coset.graphs import datasets
from coset.graphs.datasets import GraphTable
from coset.graphs.transforms import precompute
from coset.recipes.graphs import GraphRecipe
from coset.recipes.registry import load
from coset.symmetry import EquivarianceReport
from coset.training.engine import predict
from coset.training.run_directory import existing, write_text
from coset.training.tasks import GraphTask


def load_run(folder: Path, table: GraphTable, targets: int) -> tuple[GraphRecipe, GraphTask]:
    """The recipe and the trained task of a run.

    Raises:
        CosetError: The folder holds no finished run, or its checkpoint belongs to another recipe.
    """
    recipe = load(str(existing(folder) / "recipe.yaml"))
    checkpoint = folder / "checkpoint.ckpt"
    if not checkpoint.is_file():
        raise CosetError(f"{folder} holds no checkpoint.ckpt: its run has not finished an epoch")
    task = GraphTask(recipe.network(table, targets), recipe.training.task, torch.zeros(2, targets))
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    try:
        task.load_state_dict(state)
    except RuntimeError as error:
        raise CosetError(f"{checkpoint} belongs to another recipe than {folder / 'recipe.yaml'}") from error
    return recipe, task


def _target_columns(folder: Path) -> list[str]:
    """Names of the prediction columns that the run wrote."""
    header = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    return [name for name in header if name.startswith("prediction")]


def predict_csv(folder: Path, data: Path, output: Path, smiles: str = "smiles", skip_bad_rows: bool = False) -> int:
    """Write predictions for a CSV of SMILES; returns how many."""
    names = _target_columns(existing(folder))
    table = datasets.csv(data, smiles, (), split=None, skip_bad_rows=skip_bad_rows)
    recipe, task = load_run(folder, table, len(names))
    graphs = precompute(table.graphs, recipe.model.transform())
    torch.manual_seed(recipe.seed)
    values = predict(task, graphs, view=recipe.view(recipe.seed), votes=recipe.model.votes)
    import pandas as pd

    frame = pd.DataFrame({"id": table.ids, "smiles": table.smiles})
    for column, name in enumerate(names):
        frame[name] = values[:, column].numpy()
    write_text(output, frame.to_csv(index=False))
    return len(frame)


def certificate(target: str) -> list[EquivarianceReport]:
    """Measure what the model of a recipe (untrained) or of a run (trained) claims."""
    if (Path(target) / "recipe.yaml").is_file():
        folder = Path(target)
        recipe = load(str(folder / "recipe.yaml"))
        table = recipe.table(progress=False)
        return recipe.certificate(load_run(folder, table, table.targets.size(1))[1].model, table)
    recipe = load(target)
    table = recipe.table(progress=False)
    return recipe.certificate(recipe.network(table, table.targets.size(1)), table)
