"""``data.name=complexes``: a folder of one's own complexes or meshes, with a table of what is to be learned of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.files import make_folder
from coset.core.outside import check_column, read_tree
from coset.graphs.data.datasets import GraphTable, as_targets, graph_features, target_values
from coset.graphs.data.graph_files import GRAPH, labelled, table_in
from coset.graphs.data.own_graphs import SplitFiles, split_rows
from coset.graphs.data.sources import GRAPH_DATA
from coset.runs.terminal import track
from coset.topology.data.adapters import from_toponetx
from coset.topology.data.batches import ComplexData, to_data
from coset.topology.data.complexes import Complex
from coset.topology.data.meshes import SUFFIXES
from coset.topology.files import read_complex, write_complex

ENDINGS = (".json", ".atomlist", *SUFFIXES)
RANKS = 3  # vertices, edges, faces: what the models of complexes read
FEATURES = "features"
"""Key of a JSON file: rows of numbers by rank, ``{"0": [[...], ...], "1": [...]}``."""


@GRAPH_DATA.add
class ComplexFiles(SplitFiles):
    """One's own complexes: JSON, TopoNetX atom lists, meshes; with ``model.lift=none``."""

    recipe: ClassVar[str] = "complexes"

    name: Literal["complexes"] = "complexes"
    path: str = Field(description="folder of complexes (.json, .atomlist, .off, .obj, ...) with labels.csv")
    target: list[str] = Field(description="column of the labels to predict, or several: a,b", min_length=1)

    @classmethod
    def holds(cls, path: Path) -> bool:
        if path.is_file():
            return path.suffix.lower() in ENDINGS and path.suffix.lower() != ".json"
        files = [file for file in path.iterdir() if file.suffix.lower() in ENDINGS]
        return bool(files) and all(file.suffix.lower() != ".json" or "cells" in read_tree(file) for file in files[:1])

    @classmethod
    def write(cls, objects: Sequence[Any], folder: Path) -> bool:
        complexes = [_complex_of(each) for each in objects]
        if any(each is None for each in complexes):
            return False
        make_folder(folder)
        for at, complex_ in enumerate(complexes):
            assert complex_ is not None
            write_complex(folder / f"{at:06d}.json", complex_)
        return True

    def load(self, seed: int, progress: bool) -> GraphTable:
        folder = Path(self.path)
        files = complex_files(folder)
        labels = Path(self.labels) if self.labels else table_in(folder, "labels")
        if labels is None:
            raise CosetError(
                f"{folder} has no labels.csv: a table with a row a file and a column 'graph' of their names"
            )
        rows = labelled(pd.DataFrame({GRAPH: [file.stem for file in files]}), labels)
        for target in self.target:
            check_column([str(c) for c in rows.columns], target, labels)
        values, classes = target_values(rows, self.target, labels)
        if (missing := np.isnan(values).all(1)).any():
            raise CosetError(f"{labels}, row {rows.index[int(missing.argmax())]}: the target is missing")
        splits = split_rows(len(files), rows, self.split_for(seed), values[:, 0], str(labels))
        graphs = read_complexes(files, progress)
        for graph, y in zip(graphs, as_targets(values), strict=True):
            graph.y = y.unsqueeze(0)
        features = graph_features(graphs, "x"), graph_features(graphs, "x_1")
        return GraphTable(graphs, tuple(self.target), splits, folder.name, *features, classes=classes)

    def to_predict(self, path: Path, described: GraphTable) -> GraphTable:
        """Complexes of another folder, or of one file."""
        graphs = read_complexes([path] if path.is_file() else complex_files(path))
        features = graph_features(graphs, "x"), graph_features(graphs, "x_1")
        if features != (described.node_features, described.edge_features):
            raise CosetError(
                f"{path}: features of vertices and edges are {features[0]} and {features[1]} columns; training had "
                f"{described.node_features} and {described.edge_features}"
            )
        return GraphTable(graphs, (), {}, path.name, *features)


def _complex_of(given: Any) -> Complex | None:
    """A complex of ours or of TopoNetX; ``None`` of anything else."""
    if isinstance(given, Complex):
        return given
    return from_toponetx(given)[0] if type(given).__module__.startswith("toponetx.") else None


def complex_files(folder: Path) -> list[Path]:
    """Files of complexes in a folder, by name.

    Raises:
        CosetError: There are none, or two have one name.
    """
    if not folder.is_dir():
        raise CosetError(f"{folder}: no such folder")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
    if not files:
        raise CosetError(f"{folder} holds no complexes: files of {', '.join(ENDINGS)}")
    stems = [file.stem for file in files]
    if (double := next((stem for stem in stems if stems.count(stem) > 1), None)) is not None:
        raise CosetError(f"{folder} has two complexes of the name {double!r}")
    return files


def read_complexes(files: list[Path], progress: bool = False) -> list[Data]:
    """Complexes with features of vertices ``x`` and of edges ``x_1``, where their files have some.

    Raises:
        CosetError: A file holds no complex, cells beyond faces, or some have features and others not.
    """
    found = [_read(file) for file in track(files, "complexes", quiet=not progress)]
    for key in ("x", "x_1"):
        widths = {data[key].size(1) if key in data else None for data in found}
        if len(widths) > 1:
            raise CosetError(f"{files[0].parent}: complexes differ in {key}: all must have equally many features")
    return found


def _read(file: Path) -> ComplexData:
    complex_ = read_complex(str(file))
    if complex_.top >= RANKS:
        raise CosetError(
            f"{file} has cells of rank {complex_.top}; models read vertices, edges and faces (ranks 0 to 2)"
        )
    given: Any = read_tree(file).get(FEATURES, {}) if file.suffix.lower() == ".json" else {}
    features: dict[str, Any] = {}
    for rank, rows in given.items() if isinstance(given, dict) else ():
        if rank not in ("0", "1"):
            raise CosetError(f"{file}: features of rank {rank}; models read those of vertices (0) and edges (1)")
        try:
            values = torch.tensor(rows, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise CosetError(f"{file}: features of rank {rank} are no rows of numbers ({error})") from None
        if values.dim() != 2 or not torch.isfinite(values).all():
            raise CosetError(f"{file}: features of rank {rank} must be rows of finite numbers")
        features["x" if rank == "0" else f"x_{rank}"] = values
    try:
        return to_data(complex_, ranks=RANKS, id=file.stem, **features)
    except CosetError as error:
        raise CosetError(f"{file}: {error}") from None
