"""Glued tetrahedra become complexes of the same manifold."""

import numpy as np
import pytest

from coset.core.errors import CosetError
from coset.topology import (
    betti_numbers,
    classify_surfaces,
    euler_characteristic,
    from_snappy,
    glued_tetrahedra,
    is_orientable,
)

# Complement of the figure-eight knot (m004 of the census of cusped manifolds), and the Gieseking manifold (m000).
FIGURE_EIGHT = (
    [[1, 1, 1, 1], [0, 0, 0, 0]],
    [
        [[0, 1, 3, 2], [1, 2, 3, 0], [2, 3, 1, 0], [2, 1, 0, 3]],
        [[0, 1, 3, 2], [3, 2, 0, 1], [3, 0, 1, 2], [2, 1, 0, 3]],
    ],
)
GIESEKING = ([[0, 0, 0, 0]], [[[1, 3, 2, 0], [3, 0, 2, 1], [2, 1, 3, 0], [3, 1, 0, 2]]])
# Two tetrahedra, every face glued to the same one of the other.
SPHERE = ([[1] * 4, [0] * 4], [[[0, 1, 2, 3]] * 4] * 2)


@pytest.mark.parametrize(
    ("gluing", "betti", "orientable", "boundary"),
    [(FIGURE_EIGHT, (1, 1, 0, 0), True, "torus"), (GIESEKING, (1, 1, 0, 0), False, "Klein bottle")],
)
def test_manifolds_with_a_cusp(gluing, betti, orientable, boundary):
    complex_, links = glued_tetrahedra(*map(np.array, gluing))
    assert betti_numbers(complex_) == betti_numbers(complex_, 2) == betti
    assert euler_characteristic(complex_) == 0
    assert is_orientable(complex_) is orientable
    assert [str(surface) for link in links for surface in classify_surfaces(link)] == [boundary]


def test_a_sphere_and_the_same_with_four_holes():
    whole, links = glued_tetrahedra(*map(np.array, SPHERE), remove_vertices=False)
    assert betti_numbers(whole) == (1, 0, 0, 1)
    assert whole.counts[3] == 2 * 576
    assert [str(classify_surfaces(link)[0]) for link in links] == ["sphere"] * 4
    assert betti_numbers(glued_tetrahedra(*map(np.array, SPHERE))[0]) == (1, 0, 3, 0)


def test_numbering_does_not_matter():
    neighbours, gluings = map(np.array, FIGURE_EIGHT)
    # The corners of tetrahedron 1 take other numbers.
    order = np.array([2, 0, 3, 1])
    back = np.argsort(order)
    moved = [[order[g] for g in gluings[0]], [gluings[1][back[f]][back] for f in range(4)]]
    first, second = (glued_tetrahedra(neighbours, np.array(g))[0] for g in (gluings, moved))
    assert first.counts == second.counts
    assert betti_numbers(first) == betti_numbers(second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, g: (n, g[:, :3]), "gluings n x 4 x 4"),
        (lambda n, g: (n, np.where(g == 3, 2, g)), "tetrahedron 0, face 0: vertices .* are no gluing"),
        (lambda n, g: (n + 1, g), "of tetrahedron 2 are no gluing"),
        (lambda n, g: (n, np.roll(g, 1, axis=1)), "does not glue back"),
    ],
)
def test_impossible_gluings_are_named(change, message):
    with pytest.raises(CosetError, match=message):
        glued_tetrahedra(*change(*map(np.array, FIGURE_EIGHT)))


def test_census():
    """Homology, orientability and cusps as SnapPy says, also with torsion."""
    snappy = pytest.importorskip("snappy")
    for name in ("m003", "m125", "m009", "m010", "m015", "x101"):
        manifold = snappy.Manifold(name)
        complex_, links = from_snappy(manifold)
        divisors = manifold.homology().elementary_divisors()
        assert betti_numbers(complex_)[1] == sum(d == 0 for d in divisors)
        assert betti_numbers(complex_, 2)[1] == sum(d % 2 == 0 for d in divisors)
        assert is_orientable(complex_) == manifold.is_orientable()
        kinds = [str(surface) for link in links for surface in classify_surfaces(link)]
        assert kinds == [cusp.topology.removesuffix(" cusp") for cusp in manifold.cusp_info()]
