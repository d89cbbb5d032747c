"""Graphs that are handed over in Python, put into files as recipes read them: one way in for Python and commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.graphs.data.molecule_files import is_table_of_molecules
from coset.graphs.data.molecules import canonical_smiles
from coset.graphs.data.sources import GRAPH_DATA, GraphData

Graphs = Sequence[Data] | Sequence[str] | Sequence[nx.Graph] | Sequence[Any] | pd.DataFrame | pd.Series | str | Path
"""PyG graphs (a list or a data set), SMILES or tuples of them, molecules of RDKit, mapped reactions, NetworkX graphs,
complexes, a data frame with a column of SMILES, or a file or folder as ``coset run csv``, ``graphs`` or ``complexes``
read it."""

Targets = Sequence[Any] | np.ndarray | torch.Tensor | pd.Series | pd.DataFrame
"""A value or class a graph, or a row of several values."""

TARGET = "y"


def written(
    graphs: Graphs, place: Path, values: pd.DataFrame | None = None, smiles: str = "smiles"
) -> tuple[str, dict[str, Any]]:
    """Graphs in a file that recipes read: name of the recipe, and what it must say of its data.

    Args:
        graphs: What was given.
        place: Folder for the file.
        values: Targets, a column each; ``None`` where graphs carry theirs, or none are wanted.
        smiles: Column of SMILES of a data frame.

    Raises:
        CosetError: They are of no known kind, or targets do not fit them.
    """
    if isinstance(graphs, str | Path):
        return _of_path(Path(graphs).expanduser().absolute(), values)
    if isinstance(graphs, pd.DataFrame):
        return _table(graphs, place, values, smiles)
    given = list(graphs)
    if not given:
        raise CosetError("there are no graphs")
    if values is not None and len(values) != len(given):
        raise CosetError(f"{len(values)} targets for {len(given)} graphs")
    if any(is_molecule(graph) for graph in given):
        given = [_smiles(graph, at) for at, graph in enumerate(given)]
    if isinstance(given[0], str):
        return _table(pd.DataFrame({"smiles": given}), place, values, "smiles")
    if isinstance(given[0], tuple | list) and all(isinstance(part, str) for part in given[0]):
        columns = [f"smiles_{at}" for at in range(1, 1 + len(given[0]))]
        if any(len(row) != len(columns) for row in given):
            raise CosetError("rows of SMILES have different lengths")
        return _table(pd.DataFrame(given, columns=columns), place, values, ",".join(columns))
    if isinstance(given[0], Data):
        torch.save(given, place / "graphs.pt")
        file = place / "graphs.pt"
    elif isinstance(given[0], nx.Graph):
        networks = [nx.node_link_data(graph, edges="edges") for graph in given]
        write_text(place / "graphs.json", json.dumps(networks, default=_as_json))
        file = place / "graphs.json"
    else:
        return _of_a_source(given, place, values)
    if values is not None:
        write_text(place / "labels.csv", values.to_csv(index=False))
    return "graphs", {"path": str(file)} | _target(values)


def is_molecule(graph: object) -> bool:
    """Whether this is a molecule of RDKit, which need not be installed."""
    return any(each.__module__ == "rdkit.Chem.rdchem" and each.__name__ == "Mol" for each in type(graph).__mro__)


def _smiles(graph: object, at: int) -> str:
    if not is_molecule(graph):
        kind = "None" if graph is None else type(graph).__name__
        raise CosetError(
            f"graph {at} is {kind}, others are molecules of RDKit, which gives None for what it cannot read"
        )
    return canonical_smiles(graph)


def _as_json(value: object) -> Any:
    """Numbers and arrays of NumPy and PyTorch at nodes or edges; arrays are then left out by name, as lists are."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return value.tolist()
    raise CosetError(f"a graph has an attribute of type {type(value).__name__}; give numbers, texts or truth values")


def _of_path(path: Path, values: pd.DataFrame | None) -> tuple[str, dict[str, Any]]:
    if values is not None:
        raise CosetError(f"targets of {path} are a column of its own: fit(path, target=COLUMN)")
    if not path.exists():
        raise CosetError(f"{path} does not exist")
    if path.is_file() and is_table_of_molecules(path):
        return "csv", {"path": str(path)}
    for _, source in GRAPH_DATA.items():
        if issubclass(source, GraphData) and source.holds(path):
            return source.recipe, {"path": str(path)}
    return "graphs", {"path": str(path)}


def _table(frame: pd.DataFrame, place: Path, values: pd.DataFrame | None, smiles: str) -> tuple[str, dict[str, Any]]:
    """A data frame of molecules, with targets as further columns."""
    if values is not None:
        if len(values) != len(frame):
            raise CosetError(f"{len(values)} targets for {len(frame)} graphs")
        kept = [column for column in frame.columns if column not in values.columns]
        frame = pd.concat([frame[kept].reset_index(drop=True), values.reset_index(drop=True)], axis=1)
    file = place / "molecules.csv"
    write_text(file, frame.to_csv(index=False))
    return "csv", {"path": str(file), "smiles": smiles} | _target(values)


def _of_a_source(given: list[Any], place: Path, values: pd.DataFrame | None) -> tuple[str, dict[str, Any]]:
    """Objects that a source of another domain knows, such as complexes."""
    for _, source in GRAPH_DATA.items():
        if issubclass(source, GraphData) and source.write(given, place / "objects"):
            if values is not None:
                rows = values.assign(graph=[f"{at:06d}" for at in range(len(given))])
                write_text(place / "objects" / "labels.csv", rows.to_csv(index=False))
            return source.recipe, {"path": str(place / "objects")} | _target(values)
    raise CosetError(
        f"graphs are {type(given[0]).__name__}; give PyG Data, SMILES, molecules of RDKit, NetworkX graphs, complexes, "
        "a data frame, or a path"
    )


def label_table(values: Targets) -> pd.DataFrame:
    """Targets as a table: columns keep their names where they have some."""
    if isinstance(values, pd.DataFrame):
        return values.rename(columns=str).reset_index(drop=True)
    name = values.name if isinstance(values, pd.Series) else None
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    array = array.astype(np.int64) if array.dtype.kind == "b" else array
    columns = array if array.ndim == 2 else array.reshape(-1, 1)
    names = [f"{TARGET}{at}" for at in range(columns.shape[1])]
    if columns.shape[1] == 1:
        names = [TARGET if name is None else str(name)]
    return pd.DataFrame(columns, columns=names)


def task_for(values: np.ndarray | None) -> str:
    """What such targets are learned as: words and whole numbers are classes, other numbers are values."""
    if values is None or values.dtype.kind == "f":
        return "regression"
    if values.dtype.kind in "OUS" or values.dtype.kind == "T":
        return "multiclass"
    return "classification" if set(np.unique(values)) <= {0, 1} else "multiclass"


def targets_inside(graphs: Graphs) -> np.ndarray | None:
    """``y`` of PyG graphs, all in one row of numbers; ``None`` of anything else."""
    if isinstance(graphs, str | Path | pd.DataFrame):
        return None
    known: list[Any] = [graph for graph in graphs if isinstance(graph, Data) and "y" in graph]
    found = [torch.as_tensor(graph.y).flatten() for graph in known if graph.y is not None]
    return torch.cat(found).numpy() if found else None


def _target(values: pd.DataFrame | None) -> dict[str, Any]:
    return {} if values is None else {"target": [str(column) for column in values.columns]}
