"""Real meshes: what surface each is, checked against trimesh and GUDHI, and how long the invariants take.

    python benchmarks/meshes.py [most faces]
    python benchmarks/meshes.py speed [mesh]

The meshes are CGAL's examples (Debian's package libcgal-demo). trimesh counts the Euler characteristic of the same
triangles on its own; GUDHI computes Betti numbers modulo 2 and 11 from a simplex tree.
"""

import resource
import sys
import time
from collections import Counter

import numpy as np

from coset import CosetError
from coset.topology import (
    betti_numbers,
    classify_surfaces,
    components,
    cross_diameter,
    diameter,
    euler_characteristic,
    is_orientable,
)
from coset.topology.data.meshes import Mesh, cgal_meshes, triangulated


def gudhi_betti(complex_, prime: int) -> list[int]:
    import gudhi

    tree = gudhi.SimplexTree()
    for rank in range(3):
        tree.insert_batch(np.array(list(complex_.cells[rank])).T, np.zeros(complex_.counts[rank]))
    tree.compute_persistence(homology_coeff_field=prime, min_persistence=-1, persistence_dim_max=True)
    return (tree.betti_numbers() + [0] * 3)[:3]


def survey(most: int = 60_000) -> None:
    import trimesh

    kinds: Counter[str] = Counter()
    agree = total = 0
    for name, read in cgal_meshes():
        if not isinstance(read, Mesh):
            kinds["no complex: " + str(read).split(": ", 1)[1].split(" ")[0]] += 1
            print(f"{name:28s} {read}")
            continue
        faces = len(read.complex.cells[2])
        if faces > most:
            kinds["left out: more faces"] += 1
            continue
        try:
            surfaces = classify_surfaces(read.complex)
        except CosetError as error:
            kinds["no surface"] += 1
            print(f"{name:28s} {faces:6d} faces  {error}")
            continue
        cut = triangulated(read)
        euler = euler_characteristic(read.complex)
        theirs = trimesh.Trimesh(cut.positions, cut.complex.cells[2].members.reshape(-1, 3), process=False)
        ours, rational = betti_numbers(cut.complex, 2), betti_numbers(cut.complex)
        same = euler == theirs.euler_number == sum(s.euler for s in surfaces)
        same &= list(ours) == gudhi_betti(cut.complex, 2) and list(rational) == gudhi_betti(cut.complex, 11)
        agree, total = agree + same, total + 1
        what = Counter(map(str, surfaces))
        kinds["closed" if not any(s.boundaries for s in surfaces) else "with boundary"] += 1
        text = " + ".join(f"{n} x {s}" if n > 1 else s for s, n in what.items())
        print(
            f"{name:28s} {faces:6d} faces  chi {euler:5d}  Betti {ours}  {'agrees' if same else 'DIFFERS'}  {text[:60]}"
        )
    print(f"{agree} of {total} surfaces agree with trimesh and GUDHI; {dict(kinds)}")


def speed(name: str = "pig") -> None:
    found = dict(cgal_meshes({name, "cube_quad"}))
    read, cube = found[name], found["cube_quad"]
    assert isinstance(read, Mesh)
    assert isinstance(cube, Mesh)
    made, what = triangulated(read).complex, {}
    print(name, made)
    measures = {
        "Betti numbers, rational": betti_numbers,
        "Betti numbers, modulo 2": lambda c: betti_numbers(c, 2),
        "GUDHI, modulo 2": lambda c: gudhi_betti(c, 2),
        "Euler characteristic": euler_characteristic,
        "orientable": is_orientable,
        "surface": lambda c: list(map(str, classify_surfaces(c))),
        "components": components,
        "diameter": diameter,
        "cross-diameter": cross_diameter,
    }
    small = triangulated(cube).complex
    for measure in measures.values():
        measure(small)  # compile
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for measured, function in measures.items():
        started = time.process_time()
        what[measured] = function(made)
        print(f"{measured:26s} {what[measured]!s:30s} {time.process_time() - started:.3f} CPU s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"peak memory grew by {grown:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["speed"]:
        speed(*sys.argv[2:])
    else:
        survey(*map(int, sys.argv[1:]))
