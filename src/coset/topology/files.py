"""Complexes from files: JSON, TopoNetX atom lists, meshes, and graphs with a lifting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from coset.core.errors import CosetError, require
from coset.core.files import write_text
from coset.topology.data.adapters import from_toponetx
from coset.topology.data.complexes import Complex
from coset.topology.data.meshes import SUFFIXES, read_mesh
from coset.topology.liftings import LIFTINGS, LiftingOptions, from_networkx


def read_complex(source: str, lift: str = "ring", longest: int = 6) -> Complex:
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
        return _from_atomlist(path)
    if suffix in SUFFIXES:
        return read_mesh(path).complex
    return LIFTINGS[lift].of(LiftingOptions(longest)).complex(from_networkx(_graph6(source)))


def write_complex(path: str | Path, complex_: Complex) -> None:
    """Write a complex as JSON, in the form that :func:`read_complex` reads."""
    cells = {str(rank): [list(cell) for cell in own] for rank, own in complex_.cells.items() if rank}
    value = {"kind": complex_.kind, "vertices": len(complex_.cells[0]), "cells": cells}
    write_text(Path(path), json.dumps(value, separators=(",", ":")) + "\n")


def _from_json(path: Path) -> Complex:
    form = 'expected {"kind": "cell", "vertices": 3, "cells": {"1": [[0, 1], ...], "2": [[0, 1, 2]]}}'
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CosetError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, Mapping) or not isinstance(value.get("cells"), Mapping):
        raise CosetError(f"{path} holds no complex: {form}")
    try:
        cells = {int(rank): own for rank, own in value["cells"].items()}
        return Complex(int(value["vertices"]), cells, value.get("kind", "combinatorial"))
    except (KeyError, TypeError, ValueError) as error:
        raise CosetError(f"{path} holds no complex: {form}") from error
    except CosetError as error:
        raise CosetError(f"{path}: {error}") from error


def _from_atomlist(path: Path) -> Complex:
    require("toponetx", "topology")
    from toponetx.readwrite.atomlist import load_from_atomlist

    kind = "simplicial" if path.name.lower().endswith(".simplicial.atomlist") else "cell"
    try:
        return from_toponetx(load_from_atomlist(str(path), kind))[0]
    except CosetError as error:
        raise CosetError(f"{path}: {error}") from error
    except Exception as error:  # whatever the parser stumbles upon
        raise CosetError(f"{path} is no atom list of TopoNetX: {' '.join(str(error).split())}") from error


def _graph6(source: str) -> nx.Graph:
    path = Path(source)
    try:
        text = path.read_text(encoding="ascii").strip() if path.suffix.lower() == ".g6" else source
        if "\n" in text:
            raise CosetError(f"{source} holds {len(text.splitlines())} graphs; give one")
        return nx.from_graph6_bytes(text.removeprefix(">>graph6<<").encode("ascii"))
    except (nx.NetworkXError, UnicodeError, ValueError, IndexError) as error:
        files = ", ".join((".json", ".atomlist", ".g6", *SUFFIXES))
        raise CosetError(f"{source!r} is neither a graph6 string nor a file of a complex: {files}") from error
