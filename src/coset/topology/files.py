"""Complexes from files: JSON, TopoNetX atom lists, meshes, and graphs with a lifting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import networkx as nx
import numpy as np
from pydantic import BaseModel, Field, ValidationError

from coset.core.errors import CosetError, require
from coset.core.files import write_text
from coset.core.outside import lines_of, read_text, read_tree
from coset.topology.data.adapters import from_toponetx
from coset.topology.data.complexes import Complex
from coset.topology.data.meshes import SUFFIXES, read_mesh
from coset.topology.liftings import LIFTINGS, LiftingOptions, from_networkx

MOST_VERTICES = 10_000_000
"""Of a complex in JSON, which may claim any number with a few letters."""


class _Written(BaseModel):
    vertices: Annotated[int, Field(ge=0, le=MOST_VERTICES, strict=True)]
    cells: dict[Annotated[int, Field(ge=0, lt=64)], list[list[Annotated[int, Field(strict=True, lt=1 << 62)]]]]
    kind: Literal["combinatorial", "cell", "simplicial"] = "combinatorial"


def read_complex(source: str, lift: str = "ring", longest: int = 6, repair: bool = False) -> Complex:
    """A complex from a file or a graph6 string.

    ======================  ==========================================================================
    ``.json``               ``{"kind": ..., "vertices": n, "cells": {"1": [[0, 1], ...], "2": [...]}}``
    ``.atomlist``           TopoNetX's atom list of a ``CellComplex``; of a ``SimplicialComplex`` if the name ends with
                            ``.simplicial.atomlist``, since the file itself does not tell a square from a tetrahedron
    ``.off``, ``.obj``, ..  a mesh
    ``.g6``, a string       a graph (graph6), lifted
    ======================  ==========================================================================

    Args:
        source: Path of the file, or the graph6 string.
        lift: What becomes a cell of rank 2 of a graph: a name of :data:`coset.topology.liftings.LIFTINGS`.
        longest: Nodes of the longest ring.
        repair: Leave out doubled and flat faces of a mesh, instead of refusing it.

    Raises:
        CosetError: There is no such file, or what it holds is no complex.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (".json", ".atomlist", *SUFFIXES, ".g6") and not path.is_file():
        raise CosetError(f"{source} does not exist")
    if suffix == ".json":
        return _from_json(path)
    if suffix == ".atomlist":
        return from_toponetx_named(path, read_atomlist(path))
    if suffix in SUFFIXES:
        return read_mesh(path, repair).complex
    return LIFTINGS[lift].of(LiftingOptions(longest)).complex(from_networkx(_graph6(source)))


def write_complex(path: str | Path, complex_: Complex, features: Mapping[int, np.ndarray] | None = None) -> None:
    """Write a complex as JSON, in the form that :func:`read_complex` reads; with rows of numbers of cells by rank."""
    cells = {str(rank): [list(cell) for cell in own] for rank, own in complex_.cells.items() if rank}
    value: dict[str, Any] = {"kind": complex_.kind, "vertices": len(complex_.cells[0]), "cells": cells}
    if features:
        value["features"] = {str(rank): rows.tolist() for rank, rows in features.items()}
    write_text(Path(path), json.dumps(value, separators=(",", ":")) + "\n")


def _from_json(path: Path) -> Complex:
    value: Any = read_tree(path)
    try:
        said = _Written.model_validate(value)
        return Complex(said.vertices, dict(said.cells), said.kind)
    except ValidationError as error:
        form = 'expected {"kind": "cell", "vertices": 3, "cells": {"1": [[0, 1], ...], "2": [[0, 1, 2]]}}'
        first = error.errors()[0]
        what = (
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else f"it is a {type(value).__name__}"
        )
        raise CosetError(f"{path} holds no complex: {what}; {form}") from error
    except CosetError as error:
        raise CosetError(f"{path}: {error}") from error


def read_atomlist(path: Path) -> Any:
    """The TopoNetX complex of an atom list, with its attributes.

    Raises:
        CosetError: It is none.
    """
    require("toponetx", "topology")
    from toponetx.readwrite.atomlist import load_from_atomlist

    _check_atoms(path)
    kind = "simplicial" if path.name.lower().endswith(".simplicial.atomlist") else "cell"
    try:
        return load_from_atomlist(str(path), kind)
    except Exception as error:  # whatever the parser stumbles upon
        raise CosetError(f"{path} is no atom list of TopoNetX: {' '.join(str(error).split())}") from error


def from_toponetx_named(path: Path, source: Any) -> Complex:
    """The complex of a TopoNetX complex; mistakes are told with the name of its file."""
    try:
        return from_toponetx(source)[0]
    except CosetError as error:
        raise CosetError(f"{path}: {error}") from error


def _check_atoms(path: Path) -> None:
    """That no vertex has a number which cells up to it would not fit into memory, as TopoNetX would have it."""
    for number, line in enumerate(lines_of(path), start=1):
        wrong = next((word for word in line.split() if len(word) > 12), None)
        if wrong is not None and wrong.lstrip("-").isdigit():
            raise CosetError(f"{path}, line {number}: {wrong[:40]} is no number of a vertex")


def _graph6(source: str) -> nx.Graph:
    path = Path(source)
    try:
        text = read_text(path, encoding="ascii").strip() if path.suffix.lower() == ".g6" else source
        if "\n" in text:
            raise CosetError(f"{source} holds {len(text.splitlines())} graphs; give one")
        return nx.from_graph6_bytes(text.removeprefix(">>graph6<<").encode("ascii"))
    except (nx.NetworkXError, UnicodeError, ValueError, IndexError) as error:
        files = ", ".join((".json", ".atomlist", ".g6", *SUFFIXES))
        raise CosetError(f"{source!r} is neither a graph6 string nor a file of a complex: {files}") from error
