"""What a recipe's model needs added to a graph, without the recipe's data."""

from collections.abc import Sequence

from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError
from coset.core.outside import read_settings
from coset.graphs.experiments import GraphRecipe
from coset.runs.recipes import check, path_of


def transform_of(recipe: str, changes: Sequence[str] = ()) -> BaseTransform:
    """The transform of the model of a recipe.

    Args:
        recipe: A name, or a YAML file.
        changes: Of its model, e.g. ``model.positional_encoding=16``.

    Raises:
        CosetError: It is no recipe of kind ``graphs``, or a change is wrong.
    """
    values = read_settings(path_of(recipe), changes)
    kind = values.get("kind")
    if kind != "graphs":
        raise CosetError(f"{recipe} is of kind {kind}: structure is added for models of kind graphs")
    # What the graphs will be read from has no say here, and need not be there yet.
    checked = check({**values, "data": {"name": "shards", "path": "."}}, recipe)
    assert isinstance(checked, GraphRecipe)
    return checked.model.transform()
