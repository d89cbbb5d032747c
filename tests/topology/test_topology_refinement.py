"""What is and is not told apart: the torus benchmark, the gallery, and covers."""

from collections import Counter
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.topology import CellBatch, SubcomplexRefinement, homp_classes, separates, subcomplex_classes, to_data
from coset.topology.blindspots import TorusBench, blind_pairs
from coset.topology.marking import pair_distances
from coset.topology.refinement import homp_colours
from coset.topology.torus import configurations, klein_bottle, strip, tori, torus, torus_pairs


def test_the_benchmark_has_its_223_pairs_and_75_complexes():
    pairs = torus_pairs()
    assert len(pairs) == 223
    assert len({c for pair in pairs for c in pair}) == 75
    sizes = Counter(sum(r * R for r, R in a) for a, _ in pairs)
    assert sizes == {18: 1, 21: 1, 24: 6, 25: 1, 27: 6, 28: 1, 30: 15, 32: 3, 33: 21, 34: 3, 35: 1, 36: 66, 37: 6,
                     38: 1, 39: 55, 40: 36}  # fmt: skip
    assert Counter(tuple(sorted((len(a), len(b)))) for a, b in pairs) == {
        (1, 1): 6, (1, 2): 57, (1, 3): 22, (2, 2): 56, (2, 3): 71, (3, 3): 11
    }  # fmt: skip
    assert len(set(configurations(36))) == len(configurations(36)) == 12


def test_exact_counts_of_the_benchmark():
    bench = TorusBench()
    assert bench.apart(homp_classes(bench.data)) == 0
    for rule, layers, counts in (
        (SubcomplexRefinement((0, 1)), 0, [223]),
        (SubcomplexRefinement((0, 2)), 0, [223]),
        (SubcomplexRefinement((0, 2), "binary"), 3, [0, 179, 221, 223]),
        (SubcomplexRefinement((0, 1), "binary", ("incidence",)), None, [0]),
    ):
        assert [bench.apart(classes) for classes in subcomplex_classes(bench.data, rule, layers)] == counts


# Which of HOMP, SCL(0,1), SCL(0,2) tell a pair apart; where the table names several, all of that family.
EXPECTED = {
    "diameter": "nyy", "components": "nyy", "orientability": "nyy", "twist": "nyn",
    "rings <= 6: CL_14": "nyy", "rings <= 6: CL_16": "nyy", "rings <= 6: CL_10": "yyy", "rings <= 6: CL_12": "yyy",
    "rings <= 6: CL_7": "nyn", "rings <= 6: CL_8": "nyn", "no 2-cells": "nyn", "rings <= 3": "nyy",
}  # fmt: skip


@pytest.mark.parametrize(("name", "first", "second"), list(blind_pairs()), ids=lambda value: str(value)[:40])
def test_the_gallery(name, first, second):
    expected = next(EXPECTED[key] for key in sorted(EXPECTED, key=len, reverse=True) if name.startswith(key))
    found = [separates(first, second)]
    found += [separates(first, second, SubcomplexRefinement((0, s))) for s in (1, 2)]
    assert found == [letter == "y" for letter in expected]


def test_binary_marks_see_the_twist_from_edges_only():
    pair = strip(5), strip(5, twisted=True)
    assert separates(*pair, SubcomplexRefinement((0, 1), "binary"))
    assert not separates(*pair, SubcomplexRefinement((0, 2), "binary"))
    assert not separates(*pair, SubcomplexRefinement((1, 2)))


def test_classes_of_a_strip():
    colours = homp_colours([to_data(strip(5))])
    assert [len(set(own.tolist())) for own in colours] == [1, 2, 1]
    assert sorted(Counter(colours[1].tolist()).values()) == [5, 10]


def test_marks_of_two_triangles():
    from coset.topology import Complex

    cells = {1: [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 2: [(0, 1, 2), (1, 2, 3)]}
    data = to_data(Complex(4, cells, "cell"))
    assert pair_distances(CellBatch(data), 0, 2).tolist() == [0, 1, 0, 0, 0, 0, 1, 0]
    split = to_data(tori(((3, 3), (3, 3))))
    marks = pair_distances(CellBatch(split), 0, 2).reshape(18, 18)
    assert (marks[:9, 9:] == 11).all()
    assert marks[:9, :9].max() < 11
    assert pair_distances(CellBatch(to_data(torus(3, 30))), 0, 2).max() == 10


@settings(max_examples=15)
@given(st.integers(3, 5), st.integers(3, 4), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_complexes_with_a_common_cover_are_alike_to_homp(r, R, a, b, klein):
    """T(a r, R) and T(r, b R), in as many copies as give equal numbers of vertices, share the cover T(a r, b R)."""
    common = a * b // gcd(a, b)
    first, second = (((a * r, R),) * (common // a), ((r, b * R),) * (common // b))
    classes = homp_classes([to_data(tori(first)), to_data(tori(second))])
    assert classes[0] == classes[1]
    if klein:  # the Klein bottle has a torus over it, twice as long
        assert not separates(klein_bottle(r, R), torus(r, R))


def test_bad_rules_are_refused():
    with pytest.raises(ValueError, match="choose from low, incidence, high"):
        SubcomplexRefinement(terms=("up",))
    with pytest.raises(ValueError, match="choose distance or binary"):
        SubcomplexRefinement(marking="none")
