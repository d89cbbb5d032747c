"""``data.name=complexes``: a folder of one's own complexes or meshes, with a table of what is to be learned of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.files import make_folder, takes_paths
from coset.core.outside import check_column, read_table, read_tree
from coset.graphs.data.datasets import graph_features
from coset.graphs.data.graph_files import GRAPH, OF_FILES, labelled, table_in
from coset.graphs.data.graph_table import GraphTable, Level
from coset.graphs.data.sources import FOLDER_THERE, GRAPH_DATA
from coset.graphs.data.split_files import Split, SplitFiles, column_values, split_rows
from coset.graphs.data.targets import as_targets
from coset.runs.terminal import track
from coset.topology.data.adapters import from_toponetx, toponetx_features
from coset.topology.data.batches import to_data
from coset.topology.data.complexes import Complex
from coset.topology.data.meshes import SUFFIXES, Mesh, read_mesh
from coset.topology.files import from_toponetx_named, read_atomlist, read_complex, write_complex

ENDINGS = (".json", ".atomlist", *SUFFIXES)
RANKS = 3  # vertices, edges, faces: what the models of complexes read
FEATURES = "features"
"""Key of a JSON file: rows of numbers by rank, ``{"0": [[...], ...], "1": [...], "2": [...]}``."""


@GRAPH_DATA.add
class ComplexFiles(SplitFiles):
    """One's own complexes: JSON, TopoNetX atom lists, meshes; with ``model.lift=none``."""

    recipe: ClassVar[str] = "complexes"

    name: Literal["complexes"] = "complexes"
    path: str = Field(
        description="folder of complexes (.json, .atomlist, .off, ...) with labels.csv or cells.csv",
        json_schema_extra=FOLDER_THERE,
    )
    target: list[str] = Field(description="column of the labels to predict, or several: a,b", min_length=1)
    rank: Literal[0, 1, 2] | None = Field(
        None, description="targets are of the cells of this rank, rows of cells.csv; of whole complexes without"
    )
    repair: bool = Field(False, description="meshes: leave out faces that are there twice or have a vertex twice")

    @classmethod
    def described(cls, path: Path, target: str | None) -> GraphTable | None:
        """What ``coset data check`` is told of: a folder of complexes, meshes repaired."""
        if not path.is_dir() or table_in(path, "edges") is not None or not cls.holds(path):
            return None
        if target is None:
            graphs, notes = read_complexes(complex_files(path), repair=True)
            return GraphTable(graphs, name=path.name, notes=notes)
        return cls.model_validate({"path": str(path), "target": target, "repair": True}).load(0, False)

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
        for at, (each, complex_) in enumerate(zip(objects, complexes, strict=True)):
            assert complex_ is not None
            features = {} if isinstance(each, Complex) else toponetx_features(each)
            write_complex(folder / f"{at:06d}.json", complex_, {rank: rows for rank, (_, rows) in features.items()})
        return True

    def load(self, seed: int, progress: bool) -> GraphTable:
        folder = Path(self.path)
        files = complex_files(folder)
        wanted = "labels" if self.rank is None else "cells"
        labels = Path(self.labels) if self.labels else table_in(folder, wanted)
        if labels is None:
            each = "file" if self.rank is None else "cell (column 'cell': its vertices, such as 0 4 7)"
            raise CosetError(
                f"{folder} has no {wanted}.csv: a table with a row a {each} and a column 'graph' of names of files"
            )
        if self.rank is not None:
            graphs, notes = read_complexes(files, progress, self.repair)
            table = with_cell_targets(graphs, labels, self.target, self.rank, self.split_for(seed), self._words)
            return replace(table, name=folder.name, notes=notes)
        rows, told = labelled(pd.DataFrame({GRAPH: [file.stem for file in files]}), labels)
        for target in self.target:
            check_column([str(c) for c in rows.columns], target, labels)
        values, classes = column_values(rows, self.target, str(labels), self._words)
        if (missing := np.isnan(values).all(1)).any():
            raise CosetError(f"{labels}, row {rows.index[int(missing.argmax())]}: the target is missing")
        splits = split_rows(len(files), rows, self.split_for(seed), values[:, 0], str(labels))
        graphs, notes = read_complexes(files, progress, self.repair)
        for graph, y in zip(graphs, as_targets(values), strict=True):
            graph.y = y.unsqueeze(0)
        table = GraphTable(graphs, tuple(self.target), splits, folder.name, notes=told + notes, classes=classes)
        return replace(table, **_features_of(graphs))

    def to_predict(self, path: Path, described: GraphTable) -> GraphTable:
        """Complexes of another folder, or of one file."""
        graphs, notes = read_complexes([path] if path.is_file() else complex_files(path), repair=self.repair)
        features = _features_of(graphs)
        wanted = {key: getattr(described, key) for key in features}
        if features != wanted:
            raise CosetError(
                f"{path}: features of vertices, edges and faces are {', '.join(map(str, features.values()))} columns; "
                f"training had {', '.join(map(str, wanted.values()))}"
            )
        if self.rank is not None:
            for graph in graphs:
                graph.cell_names = cell_names(graph, self.rank)
        return GraphTable(graphs, (), {}, path.name, notes=notes, level=described.level, **features)


def _features_of(graphs: list[Data]) -> dict[str, Any]:
    keys = {"node_features": "x", "edge_features": "x_1", "face_features": "x_2"}
    return {name: graph_features(graphs, key) for name, key in keys.items()}


def cell_names(complex_: Data, rank: int) -> list[str]:
    """The cells of a rank by their vertices in ascending order, as in ``0 4 7``."""
    if rank == 0:
        return [str(vertex) for vertex in range(int(complex_.num_nodes or 0))]
    vertex, cell = complex_[f"incidence_0_{rank}"]
    order = torch.argsort(cell * int(complex_.num_nodes or 0) + vertex)
    sizes = torch.bincount(cell, minlength=int(complex_.num_cells[0, rank])).tolist()
    return [" ".join(map(str, part.tolist())) for part in vertex[order].split(sizes)]


def with_cell_targets(
    graphs: list[Data], file: Path, targets: list[str], rank: int, split: Split, words: bool = False
) -> GraphTable:
    """Complexes with a row of targets for each cell of a rank: NaN for those that the table does not name.

    Args:
        graphs: The complexes.
        file: Table with columns ``graph``, ``cell`` and the targets.
        targets: Columns of it.
        rank: Of the cells.
        split: Of one complex its cells are split, of several whole complexes, unless a column says.
        words: As of :func:`coset.graphs.data.targets.target_values`.

    Raises:
        CosetError: It names a complex or a cell that is not there, or one twice; or a target is wrong.
    """
    rows = read_table(file)
    folded = {str(column).lower(): str(column) for column in rows.columns}
    spelling = next((folded[s] for s in OF_FILES if s in folded), None)
    for column in ("graph" if spelling is None else spelling, "cell", *targets):
        check_column([str(c) for c in rows.columns], column, file)
    values, classes = column_values(rows, targets, str(file), words)
    at = _cells_of(rows, spelling or GRAPH, graphs, rank, file)
    counts = [int(graph.num_cells[0, rank]) for graph in graphs]
    whole = np.full((sum(counts), len(targets)), np.nan)
    whole[at] = values
    usable = np.flatnonzero(~np.isnan(values).all(1))
    if len(graphs) > 1 and split.kind not in ("column", "time"):
        of_rows = np.repeat(np.arange(len(graphs)), counts)[at[usable]]
        labelled_ones = np.unique(of_rows)  # others would leave parts smaller than asked for, or empty
        parts = {name: np.flatnonzero(np.isin(of_rows, labelled_ones[part]))
                 for name, part in split_rows(len(labelled_ones), None, split, None, str(file)).items()}  # fmt: skip
    else:
        chosen = split_rows(len(usable), rows.iloc[usable], split, values[usable, 0], str(file))
        parts = {name: part.numpy() for name, part in chosen.items()}
    splits = {name: torch.from_numpy(np.sort(at[usable[part]])) for name, part in parts.items()}
    for graph, y in zip(graphs, as_targets(whole).split(counts), strict=True):
        graph.y, graph.cell_names = y.clone(), cell_names(graph, rank)
    levels: tuple[Level, ...] = ("cell0", "cell1", "cell2")
    table = GraphTable(graphs, tuple(targets), splits, classes=classes, level=levels[rank])
    return replace(table, **_features_of(graphs))


def _cells_of(rows: pd.DataFrame, named: str, graphs: list[Data], rank: int, file: Path) -> np.ndarray:
    """Which cell of a rank, counted over all complexes, each row of a table is of."""
    places = _places(graphs, rank)
    at = np.empty(len(rows), dtype=np.int64)
    for number, (row, name, cell) in enumerate(zip(rows.index, rows[named], rows["cell"], strict=True)):
        stem = str(name).strip()
        stem = stem if stem in places else Path(stem).stem
        if stem not in places:
            raise CosetError(f"{file}, row {row}: there is no complex {name!r}")
        found = places[stem].get(_key(str(cell)), [])
        if len(found) != 1:
            raise CosetError(f"{file}, row {row}: {name} has {len(found) or 'no'} cells {cell!r} of rank {rank}; name "
                             "one by its vertices, such as 0 4 7")  # fmt: skip
        at[number] = found[0]
    if (double := pd.Series(at).duplicated().to_numpy()).any():
        raise CosetError(f"{file}, row {rows.index[int(double.argmax())]}: the cell is there twice")
    return at


def _key(cell: str) -> str:
    return " ".join(sorted(cell.split(), key=lambda word: (len(word), word)))


def _places(graphs: list[Data], rank: int) -> dict[str, dict[str, list[int]]]:
    """By complex and name of a cell, the rows (of all complexes) that have it."""
    places: dict[str, dict[str, list[int]]] = {}
    row = 0
    for graph in graphs:
        own = places.setdefault(graph.id, {})
        for name in cell_names(graph, rank):
            own.setdefault(_key(name), []).append(row)
            row += 1
    return places


def _complex_of(given: Any) -> Complex | None:
    """A complex of ours or of TopoNetX; ``None`` of anything else."""
    if isinstance(given, Complex):
        return given
    return from_toponetx(given)[0] if type(given).__module__.startswith("toponetx.") else None


@takes_paths
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


def read_complexes(
    files: list[Path], progress: bool = False, repair: bool = False
) -> tuple[list[Data], tuple[str, ...]]:
    """Complexes with features of vertices ``x``, edges ``x_1`` and faces ``x_2``, where files have some; and what was
    repaired.

    Args:
        files: Of complexes.
        progress: Show a progress bar.
        repair: Of meshes, leave out faces that are doubled or flat.

    Raises:
        CosetError: A file holds no complex, cells beyond faces, or some have features and others not.
    """
    found: list[Data] = []
    left_out: dict[str, tuple[int, int]] = {}
    for file in track(files, "complexes", quiet=not progress):
        complex_, features, faces = _read(file, repair)
        if any(faces):
            left_out[file.name] = faces
        try:
            found.append(to_data(complex_, ranks=RANKS, id=file.stem, **features))
        except CosetError as error:
            raise CosetError(f"{file}: {error}") from None
    for key in ("x", "x_1", "x_2"):
        widths = {data[key].size(1) if key in data else None for data in found}
        if len(widths) > 1:
            raise CosetError(f"{files[0].parent}: complexes differ in {key}: all must have equally many features")
    if not left_out:
        return found, ()
    flat, doubled = (sum(faces[at] for faces in left_out.values()) for at in (0, 1))
    return found, (
        f"{len(left_out)} meshes were repaired (data.repair=true; {next(iter(left_out))} first): left out {flat} faces "
        f"without three different corners and {doubled} that were there before",
    )


def _mesh_of(file: Path, repair: bool) -> Mesh:
    """A mesh; where it is refused for what a repair would leave out, the message says so."""
    try:
        return read_mesh(file, repair)
    except CosetError as error:
        refused = str(error)
    read_mesh(file, repair=True)
    raise CosetError(f"{refused} (data.repair=true leaves such faces out)")


def _read(file: Path, repair: bool) -> tuple[Complex, dict[str, Any], tuple[int, int]]:
    """A complex, its features, and how many faces a repair has left out: flat ones, doubled ones."""
    left_out, kind = (0, 0), file.suffix.lower()
    given: Any = {}
    if kind == ".atomlist":
        source = read_atomlist(file)
        complex_ = from_toponetx_named(file, source)
        given = {str(rank): rows.tolist() for rank, (_, rows) in toponetx_features(source).items() if rank < RANKS}
    elif kind in SUFFIXES:
        mesh = _mesh_of(file, repair)
        complex_, left_out = mesh.complex, mesh.left_out
    else:
        complex_ = read_complex(str(file))
        given = read_tree(file).get(FEATURES, {})
    if complex_.top >= RANKS:
        raise CosetError(
            f"{file} has cells of rank {complex_.top}; models read vertices, edges and faces (ranks 0 to 2)"
        )
    features: dict[str, Any] = {}
    for rank, rows in given.items() if isinstance(given, dict) else ():
        if rank not in ("0", "1", "2"):
            raise CosetError(f"{file}: features of rank {rank}; models read those of ranks 0 to 2")
        try:
            values = torch.tensor(rows, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise CosetError(f"{file}: features of rank {rank} are no rows of numbers ({error})") from None
        if values.dim() != 2 or not torch.isfinite(values).all():
            raise CosetError(f"{file}: features of rank {rank} must be rows of finite numbers")
        features["x" if rank == "0" else f"x_{rank}"] = values
    return complex_, features, left_out
