"""Topological properties of real molecules, and of surfaces, as things to learn."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.graphs.data.graph_table import GraphTable
from coset.runs.terminal import track
from coset.topology import (
    Complex,
    RingLift,
    betti_numbers,
    cross_diameter,
    euler_characteristic,
    is_orientable,
    to_data,
)
from coset.topology.data.meshes import Mesh, cgal_meshes, triangulated
from coset.topology.data.torus import klein_bottle, torus
from coset.topology.surfaces import classify_surfaces, closed_surface, simplify

Property = Literal["cross_diameter", "betti2"]


def ring_property(table: GraphTable, wanted: Property, longest: int, progress: bool = False) -> GraphTable:
    """The same molecules as bare graphs, atom and bond types hidden, with a property of their ring complex to predict.

    ``cross_diameter`` is the largest distance of an atom from a ring, ``betti2`` the second Betti number modulo 2.
    Molecules without rings are left out.

    Args:
        table: Molecules with splits.
        wanted: The property.
        longest: Atoms of the longest cycle that counts as a ring.
        progress: Show a progress bar.
    """
    lift = RingLift(longest)
    graphs: list[Data] = []
    number: dict[int, int] = {}
    for row, graph in enumerate(track(table.graphs, wanted, quiet=not progress)):
        complex_ = lift.complex(graph)
        if not complex_.cells[2]:
            continue
        value = cross_diameter(complex_) if wanted == "cross_diameter" else betti_numbers(complex_, 2)[2]
        number[row] = len(graphs)
        kept = {key: graph[key] for key in ("id", "smiles") if key in graph}
        y = torch.tensor([[float(value or 0)]])
        graphs.append(Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes, y=y, **kept))
    splits = {
        name: torch.tensor([number[row] for row in rows.tolist() if row in number], dtype=torch.long)
        for name, rows in table.splits.items()
    }
    left_out = len(table) - len(graphs)
    return replace(
        table, graphs=graphs, target_names=(wanted,), splits=splits, name=f"{wanted} of {table.name}",
        node_features=None, edge_features=None,
        notes=(*table.notes, f"{left_out} molecules without rings were left out"),
    )  # fmt: skip


SURFACES = [(True, 0), (True, 1), (True, 2), (True, 3), (False, 1), (False, 2), (False, 3), (False, 4)]
"""Orientable or not, and genus: Euler characteristics from 2 down to -4."""

LARGEST_MESH = 4_000  # faces of a mesh that is simplified for the test
SIMPLIFIED = 50  # vertices that are left of it


def random_surfaces(
    property: Literal["euler", "orientable"],
    count: int,
    vertices: tuple[int, int],
    test_vertices: tuple[int, int],
    flips: int,
    meshes: bool,
    seed: int,
    progress: bool = False,
) -> GraphTable:
    """Closed surfaces triangulated at random, with what they are to be predicted.

    Every surface is the connected sum of small tori or projective planes, grown to a random number of vertices and
    changed by bistellar flips, which keep what it is. To predict ``orientable``, surfaces come in pairs of equal Euler
    characteristic (torus and Klein bottle; two handles and four cross-caps) and equally many cells of every rank.

    Args:
        property: What to predict.
        count: Surfaces to train on; a quarter as many validate, half as many test.
        vertices: Least and most vertices of those to train on and to validate with.
        test_vertices: The same for the test: other sizes than those seen.
        flips: Edge flips of each.
        meshes: Add the closed connected meshes of CGAL's examples to the test, simplified to 50 vertices by
            contractions of edges that keep the surface.
        seed: Of everything random.
        progress: Show a progress bar.
    """
    rng = np.random.default_rng(seed)
    graphs: list[Data] = []
    splits: dict[str, torch.Tensor] = {}
    for split, size, (low, high) in (
        ("train", count, vertices), ("val", count // 4, vertices), ("test", count // 2, test_vertices)
    ):  # fmt: skip
        start = len(graphs)
        for i in track(range(size), f"surfaces to {split}", quiet=not progress):
            if i % 2 == 0 or property == "euler":
                vertex_count = int(rng.integers(low, high + 1))
            kinds = SURFACES if property == "euler" else [SURFACES[j] for j in ((1, 5), (2, 7))[i // 2 % 2]]
            orientable, genus = kinds[i % len(kinds)]
            made = closed_surface(genus, orientable, vertex_count, flips, rng)
            graphs.append(_surface_data(made, property, f"{split} {i}: {classify_surfaces(made)[0]}"))
        splits[split] = torch.arange(start, len(graphs))
    notes: list[str] = []
    if meshes:
        real = [_surface_data(made, property, f"mesh {name}", pos) for name, made, pos in real_surfaces(progress)]
        splits["test"] = torch.arange(int(splits["test"][0]), len(graphs) + len(real))
        graphs += real
        notes.append(f"{len(real)} of the {len(splits['test'])} test surfaces are meshes of CGAL's examples")
    return GraphTable(graphs, (property,), splits, name=f"random surfaces ({property})", notes=tuple(notes))


def grid_surfaces(sizes: tuple[int, int], test_sizes: tuple[int, int], seed: int) -> GraphTable:
    """Tori and Klein bottles of r x R squares, to be told apart: sizes of one range to train on, larger ones to test.

    A torus and a Klein bottle of equal size share a cover and have equally many cells, so message passing on cells
    cannot tell them apart, whatever its weights. One size in five validates.

    Args:
        sizes: Least and largest side in training.
        test_sizes: The same for the test; at least one side lies beyond ``sizes``.
        seed: Of the sizes that validate.
    """
    low, high = sizes
    seen = [(r, R) for r in range(low, high + 1) for R in range(low, high + 1)]
    beyond = range(test_sizes[0], test_sizes[1] + 1)
    new = [(r, R) for r in beyond for R in beyond if max(r, R) > high]
    if not new:
        raise CosetError(f"test_sizes={list(test_sizes)}: no side is above {high}, the largest trained on")
    order = np.random.default_rng(seed).permutation(len(seen))
    cut = max(1, len(seen) // 5)
    parts = {"train": order[cut:], "val": order[:cut], "test": np.arange(len(new))}
    graphs: list[Data] = []
    splits: dict[str, torch.Tensor] = {}
    for split, chosen in parts.items():
        start = len(graphs)
        for i in chosen:
            r, R = (new if split == "test" else seen)[i]
            graphs.append(_surface_data(torus(r, R), "orientable", f"{split}: torus {r} x {R}"))
            graphs.append(_surface_data(klein_bottle(r, R), "orientable", f"{split}: Klein bottle {r} x {R}"))
        splits[split] = torch.arange(start, len(graphs))
    return GraphTable(graphs, ("orientable",), splits, name="tori and Klein bottles of squares")


def real_surfaces(progress: bool = False) -> Iterator[tuple[str, Complex, np.ndarray]]:
    """The closed connected meshes of CGAL's examples with at most 4,000 faces, simplified to 50 vertices, or as many
    as their genus needs: name, complex, positions."""
    for name, read in track(list(cgal_meshes()), "meshes", quiet=not progress):
        if not isinstance(read, Mesh) or len(read.complex.cells[2]) > LARGEST_MESH:
            continue
        try:
            kinds = classify_surfaces(read.complex)
        except CosetError:
            continue
        if len(kinds) > 1 or kinds[0].boundaries:
            continue
        whole = triangulated(read)
        yield name, *simplify(whole.complex.cells[2].members.reshape(-1, 3), whole.positions, SIMPLIFIED)


def _surface_data(surface: Complex, property: str, name: str, positions: np.ndarray | None = None) -> Data:
    value = euler_characteristic(surface) if property == "euler" else int(is_orientable(surface))
    data = to_data(surface, id=name, y=torch.tensor([[float(value)]]))
    if positions is not None:
        data.pos = torch.from_numpy(positions).float()
    return data
