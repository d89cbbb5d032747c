"""3-manifolds of SnapPy's censuses as complexes: homology, orientability and boundary against SnapPy's own.

    python benchmarks/manifolds.py [how many of each census]

SnapPy (pip install snappy) computes homology from the fundamental group; here it is that of the second barycentric
subdivision, rational and modulo 2. Closed manifolds are compared before their vertices are removed.
"""

import sys
import time
from collections.abc import Iterator
from itertools import islice

import snappy

from coset.topology import Complex, betti_numbers, classify_surfaces, from_snappy, is_orientable


def first_betti(manifold: snappy.Manifold) -> tuple[int, int]:
    """Of H_1, rationally and modulo 2; a divisor of 0 is a copy of Z."""
    divisors = manifold.homology().elementary_divisors()
    return sum(d == 0 for d in divisors), sum(d % 2 == 0 for d in divisors)


def cases(most: int) -> Iterator[tuple[str, snappy.Manifold, bool]]:
    for census in ("OrientableCuspedCensus", "NonorientableCuspedCensus"):
        for manifold in islice(getattr(snappy, census)(), most):
            yield census, manifold, False
    for manifold in islice(snappy.OrientableClosedCensus(), most):
        yield "OrientableClosedCensus", manifold, True


def agrees(manifold: snappy.Manifold, closed: bool) -> tuple[bool, Complex]:
    made = manifold.filled_triangulation() if closed else manifold
    complex_, links = from_snappy(made, remove_vertices=not closed)
    rational, modulo = betti_numbers(complex_), betti_numbers(complex_, 2)
    kinds = [str(surface) for link in links for surface in classify_surfaces(link)]
    right = (rational[1], modulo[1]) == first_betti(manifold) and rational[0] == 1
    right &= is_orientable(complex_) == manifold.is_orientable()
    if closed:
        return right and rational == rational[::-1] and set(kinds) == {"sphere"}, complex_
    cusps = sorted(cusp.topology.removesuffix(" cusp") for cusp in manifold.cusp_info())
    return right and sorted(kinds) == cusps, complex_


def main(most: int) -> None:
    found: dict[str, list[bool]] = {}
    began, cells = time.process_time(), 0
    for census, manifold, closed in cases(most):
        right, complex_ = agrees(manifold, closed)
        cells = max(cells, sum(complex_.counts))
        found.setdefault(census, []).append(right)
        if not right:
            print(f"{manifold} of {census} differs")
    for census, results in found.items():
        print(f"{census}: {sum(results)} of {len(results)} agree")
    print(f"{time.process_time() - began:.0f} CPU s; the largest complex has {cells:,} cells")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
