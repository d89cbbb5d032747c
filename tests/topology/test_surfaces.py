"""Closed surfaces: the smallest triangulations, connected sums, flips and contractions that keep them, names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coset import CosetError
from coset.topology import (
    Complex,
    Surface,
    betti_numbers,
    classify_surfaces,
    closed_surface,
    disjoint_union,
    euler_characteristic,
    from_faces,
    is_orientable,
    simplify,
)
from coset.topology.data.torus import klein_bottle, strip, torus
from coset.topology.surfaces import PROJECTIVE_PLANE, TORUS, Triangulation, surface_triangles

KINDS = [(True, 0), (True, 1), (True, 2), (True, 3), (False, 1), (False, 2), (False, 3), (False, 4)]


def betti_of(surface: Surface, modulo_two: bool) -> tuple[int, int, int]:
    """What the classification of surfaces says."""
    if surface.orientable:
        return 1, 2 * surface.genus, 1
    return (1, surface.genus, 1) if modulo_two else (1, surface.genus - 1, 0)


@pytest.mark.parametrize(("orientable", "genus"), KINDS)
@pytest.mark.parametrize(("vertices", "flips"), [(None, 0), (30, 60)])
def test_surfaces_are_what_they_are_called(orientable, genus, vertices, flips):
    made = closed_surface(genus, orientable, vertices, flips, np.random.default_rng(genus))
    surface = Surface(orientable, genus)
    assert classify_surfaces(made) == [surface]
    assert euler_characteristic(made) == surface.euler
    assert is_orientable(made) is orientable
    assert betti_numbers(made) == betti_of(surface, False)
    assert betti_numbers(made, 2) == betti_of(surface, True)
    if vertices:
        assert made.counts == (30, 90 - 3 * surface.euler, 60 - 2 * surface.euler)


def test_the_smallest_triangulations():
    assert closed_surface(1).counts == (7, 21, 14)
    assert closed_surface(1, False).counts == (6, 15, 10)
    assert closed_surface(0).counts == (4, 6, 4)
    assert [len(np.unique(surface_triangles(g))) for g in (1, 2, 3)] == [7, 11, 15]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_every_move_keeps_the_surface(kind, seed):
    rng = np.random.default_rng(seed)
    orientable, genus = kind
    surface = Triangulation(surface_triangles(genus, orientable))
    for _ in range(25):
        move, edge = rng.integers(4), surface._edges[rng.integers(len(surface._edges))]
        before = surface.vertices
        if move == 0:
            surface.divide(rng)
            assert surface.vertices == before + 1
        elif move == 1:
            gone = surface.remove(edge[0])
            assert surface.vertices == before - gone
        elif move == 2:
            surface.flip(*edge)
            assert surface.vertices == before
        else:
            assert surface.contract(*edge) == (surface.vertices < before)
        assert classify_surfaces(surface.complex()) == [Surface(orientable, genus)]


def test_moves_that_would_break_the_surface_are_refused():
    sphere, plane = Triangulation(surface_triangles(0)), Triangulation(PROJECTIVE_PLANE)
    assert not sphere.flip(0, 1)
    assert not sphere.remove(0)
    assert not sphere.contract(0, 1)
    assert not any(plane.flip(*edge) for edge in list(plane.across))  # all edges are there already
    assert not any(plane.contract(*edge) for edge in list(plane.across))
    assert not Triangulation(TORUS).contract(0, 1)  # 7 vertices are the least a torus can have


def test_flipping_back_and_forth():
    surface = Triangulation(closed_surface(1, vertices=20, flips=0).cells[2].members.reshape(-1, 3))
    before = surface.triangles()
    u, v = next(edge for edge in list(surface.across) if surface.flip(*edge))
    a, b = sorted(surface.across.keys() - Triangulation(np.array(sorted(before))).across.keys())[0]
    assert surface.triangles() != before
    assert surface.flip(a, b)
    assert surface.triangles() == before
    assert (min(u, v), max(u, v)) in surface.across


@pytest.mark.parametrize(("complex_", "name"), [
    (torus(3, 4), "torus"), (klein_bottle(3, 4), "Klein bottle"), (strip(5), "cylinder"),
    (strip(5, twisted=True), "Möbius strip"), (from_faces([(0, 1, 2, 3)]), "disc"),
    (closed_surface(1, False), "projective plane"), (closed_surface(0), "sphere"),
    (closed_surface(2), "orientable surface of genus 2"),
    (closed_surface(3, False), "non-orientable surface of genus 3"),
    (from_faces(TORUS[1:]), "torus with 1 hole"),
])  # fmt: skip
def test_names(complex_, name):
    (surface,) = classify_surfaces(complex_)
    assert str(surface) == name
    assert surface.euler == euler_characteristic(complex_)


def test_components_are_named_one_by_one():
    both = disjoint_union(torus(3, 3), klein_bottle(3, 3), strip(4))
    assert list(map(str, classify_surfaces(both))) == ["torus", "Klein bottle", "cylinder"]


@pytest.mark.parametrize(
    ("complex_", "message"),
    [
        (from_faces([(0, 1, 2), (0, 1, 3), (0, 1, 4)]), r"edge \(0, 1\) lies in 3 cells: not a surface"),
        (from_faces([(0, 1, 2), (0, 3, 4)]), "at vertex 0 several sheets touch"),
        (Complex(4, {1: [(0, 1), (0, 2), (1, 2), (2, 3)], 2: [(0, 1, 2)]}, "cell"), r"edge \(2, 3\) lies in no face"),
        (Complex(4, {1: [(0, 1), (0, 2), (1, 2)], 2: [(0, 1, 2)]}, "cell"), "vertex 3 lies in no face"),
        (Complex(2, {1: [(0, 1)]}, "cell"), "ranks 0 to 2; this complex has ranks 0 to 1"),
        (Complex(3, {1: [(0, 1)], 2: [(0, 1, 2)]}), "has no boundary"),
    ],
)
def test_what_is_no_surface_is_refused(complex_, message):
    with pytest.raises(CosetError, match=message):
        classify_surfaces(complex_)


def test_a_simpler_torus_is_a_torus():
    rng = np.random.default_rng(0)
    whole = closed_surface(1, vertices=80, flips=100, generator=rng)
    simpler, places = simplify(whole.cells[2].members.reshape(-1, 3), rng.normal(size=(80, 3)), 20)
    assert simpler.counts == (20, 60, 40)
    assert places.shape == (20, 3)
    assert classify_surfaces(simpler) == [Surface(True, 1)]
    least = simplify(whole.cells[2].members.reshape(-1, 3), rng.normal(size=(80, 3)), 1)[0]
    assert classify_surfaces(least) == [Surface(True, 1)]


def test_errors():
    with pytest.raises(CosetError, match="genus=0: at least 1 for non-orientable"):
        closed_surface(0, False)
    with pytest.raises(CosetError, match="vertices=5: this surface starts with 7"):
        closed_surface(1, vertices=5)
    with pytest.raises(CosetError, match="lies in 1 triangles: not a closed surface"):
        Triangulation(TORUS[1:])
