"""What is and is not told apart: the torus benchmark, the gallery, and covers."""

from collections import Counter
from itertools import pairwise
from math import gcd

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from torch_geometric.data import Batch

from coset.topology import (
    HOMP,
    CellBatch,
    Complex,
    SubcomplexRefinement,
    disjoint_union,
    homp_classes,
    natural_neighbourhoods,
    separates,
    subcomplex_classes,
    to_data,
)
from coset.topology.benches.blindspots import TorusBench, blind_pairs
from coset.topology.data.torus import configurations, klein_bottle, strip, tori, torus, torus_pairs
from coset.topology.invariants import subcomplex_refinement as refinement
from coset.topology.invariants.subcomplex_refinement import StableColours, homp_colours, renaming
from coset.topology.liftings import ring_complex
from coset.topology.liftings.marking import pair_distances


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


@pytest.mark.slow
def test_the_ablation_of_the_benchmark():
    """Binary marks of edges: whole, without the incidence term, and with the high term in place of the low one."""
    bench = TorusBench()
    for terms in (("low", "incidence"), ("low",), ("incidence", "high")):
        rule = SubcomplexRefinement((0, 1), "binary", terms)
        counts = [bench.apart(classes) for classes in subcomplex_classes(bench.data, rule, 3)]
        assert counts == [0, 179, 221, 223]


def test_two_pairs_of_the_benchmark_need_three_layers():
    bench, rule = TorusBench(), SubcomplexRefinement((0, 2), "binary")
    *_, classes = subcomplex_classes(bench.data, rule, 2)
    hard = [pair for pair, (a, b) in zip(torus_pairs(), bench.pairs) if classes[a] == classes[b]]
    assert hard == [(((3, 12),), ((3, 6), (3, 6))), (((3, 13),), ((3, 6), (3, 7)))]


# The table of what must and must not be told apart: HOMP, SCL(0, 1), SCL(0, 2), and marked vertices, SCL(0, 0), where
# the table speaks of them. A dot stands for what it leaves open.
EXPECTED = {
    "diameter": "nyy.", "components": "nyy.", "orientability": "nyy.", "twist": "nyn.",
    "rings <= 6: CL_14": "nyy.", "rings <= 6: CL_16": "nyy.", "rings <= 6: CL_10": "yyy.",
    "rings <= 6: CL_12": "yyy.", "rings <= 6: CL_7": "nyn.", "rings <= 6: CL_8": "nyn.",
    "no 2-cells: C_8": "ny..", "rings <= 3: decalin": "ny..", "rings <= 6: decalin": "yyy.",
    "no 2-cells: rook": "ny.n", "rings <= 3: rook": "nyyn",
}  # fmt: skip


@pytest.mark.parametrize(("name", "first", "second"), list(blind_pairs()), ids=lambda value: str(value)[:40])
def test_the_separation_table(name, first, second):
    expected = next(EXPECTED[key] for key in sorted(EXPECTED, key=len, reverse=True) if name.startswith(key))
    for marking in ("distance", "binary"):
        found = [separates(first, second)]
        found += [separates(first, second, SubcomplexRefinement(ranks, marking)) for ranks in ((0, 1), (0, 2), (0, 0))]
        assert all(letter in (".", "ny"[apart]) for letter, apart in zip(expected, found, strict=True)), found


def test_the_table_has_all_its_rows():
    names = [name for name, _, _ in blind_pairs()]
    assert len(names) == len(set(names)) == 22
    assert all(any(name.startswith(key) for name in names) for key in EXPECTED)


@pytest.mark.parametrize("squares", [3, 4, 5, 6, 8])
def test_marked_squares_do_not_show_the_twist_to_edges_either(squares):
    for bridge in (0, 2):
        rule = SubcomplexRefinement((1, 2), bridge=bridge)
        assert not separates(strip(squares), strip(squares, twisted=True), rule)


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
    cells = {1: [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 2: [(0, 1, 2), (1, 2, 3)]}
    data = to_data(Complex(4, cells, "cell"))
    assert pair_distances(CellBatch(data), 0, 2).tolist() == [0, 1, 0, 0, 0, 0, 1, 0]
    split = to_data(tori(((3, 3), (3, 3))))
    marks = pair_distances(CellBatch(split), 0, 2).reshape(18, 18)
    assert (marks[:9, 9:] == 11).all()
    assert marks[:9, :9].max() < 11
    assert pair_distances(CellBatch(to_data(torus(3, 30))), 0, 2).max() == 10


@pytest.mark.parametrize("ranks", [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)])
def test_marks_are_the_least_hops_to_what_a_cell_holds(ranks):
    cells = CellBatch(Batch.from_data_list([to_data(tori(((3, 3), (3, 26)))), to_data(strip(5, twisted=True))]))
    edges = cells.neighbours(ranks[0], ranks[0] + 1).relation.index.numpy()
    size = (cells.cells[ranks[0]].total,) * 2
    hops = shortest_path(csr_matrix((np.ones(edges.shape[1]), tuple(edges)), shape=size), unweighted=True)
    held, holder = cells.incidence(*ranks).index.numpy()
    wanted = np.full((size[0], cells.cells[ranks[1]].total), np.inf)
    for s in range(wanted.shape[1]):
        wanted[:, s] = hops[held[holder == s]].min(0, initial=np.inf)
    x, s = cells.pairs(*ranks).coordinates
    marks = np.where(np.isinf(wanted), 11, np.minimum(wanted, 10))[x.numpy(), s.numpy()]
    assert pair_distances(cells, *ranks).tolist() == marks.astype(int).tolist()
    assert {0, 10, 11} <= set(marks.tolist())


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


def random_cover(seed: int) -> tuple[Complex, Complex, int]:
    """A random complex of vertices, edges and chordless rings, a random k-sheeted cover of it, and k.

    Every edge gets a permutation of the sheets. A ring is a cell if going around it leads back to the same sheet from
    all of them, and then lifts to k rings. Chordless rings hold no cells but those on their rim, so the neighbourhoods
    of a lifted cell are those of the cell below it.
    """
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(3, 8)), int(rng.integers(2, 4))
    graph = nx.gnp_random_graph(n, 0.6, seed=seed)
    sheets = [np.arange(k), np.roll(np.arange(k), 1)]  # mostly the first, so that many rings close up
    turn = {(u, v): sheets[int(rng.random() < 0.3)] for u, v in graph.edges}
    turn |= {(v, u): np.argsort(p) for (u, v), p in turn.items()}
    rings = []
    for ring in nx.chordless_cycles(graph, length_bound=6):
        around = np.arange(k)
        for u, v in zip(ring, (*ring[1:], ring[0])):
            around = turn[u, v][around]
        if (around == np.arange(k)).all():
            rings.append(ring)
    edges = [(u * k + i, v * k + int(turn[u, v][i])) for u, v in graph.edges for i in range(k)]
    lifted = []
    for ring in rings:
        for sheet in range(k):
            walk = [ring[0] * k + sheet]
            for u, v in pairwise(ring):
                walk.append(v * k + int(turn[u, v][walk[-1] % k]))
            lifted.append(walk)
    base = Complex(n, {1: list(graph.edges), 2: rings}, "cell")
    return base, Complex(n * k, {1: edges, 2: lifted}, "cell"), k


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_homp_is_blind_to_covers(seed):
    """The covering theorem: colours are those of the cells below, so k copies of a complex and a k-sheeted cover are
    alike, to colour refinement and to a network."""
    base, cover, k = random_cover(seed)
    colours = homp_colours([to_data(base, ranks=3), to_data(cover, ranks=3)])
    for own, size in zip(colours, base.counts):
        assert np.array_equal(own[size:], np.repeat(own[:size], k))
    copies = disjoint_union(*[base] * k)
    assert not separates(copies, cover)
    torch.manual_seed(seed % 1000)
    model = HOMP(2, width=4, layers=2, neighbourhoods=natural_neighbourhoods(2)).double().eval()
    with torch.no_grad():
        assert torch.allclose(model(to_data(copies, ranks=3)), model(to_data(cover, ranks=3)), atol=1e-9)


def test_some_covers_are_told_apart_by_marks():
    """The theorem would say nothing here if the covers were copies."""
    told = 0
    for seed in range(12):
        base, cover, k = random_cover(seed)
        told += separates(disjoint_union(*[base] * k), cover, SubcomplexRefinement((0, 1)))
    assert told >= 3


def test_bad_rules_are_refused():
    with pytest.raises(ValueError, match="choose from low, incidence, high"):
        SubcomplexRefinement(terms=("up",))
    with pytest.raises(ValueError, match="choose distance or binary"):
        SubcomplexRefinement(marking="none")


def renamed(complex_, order):
    """The same complex: vertex v is called order[v], and cells come in another order."""
    cells = {
        rank: [[order[v] for v in cell] for cell in reversed(list(cells))]
        for rank, cells in complex_.cells.items()
        if rank
    }
    return Complex(complex_.counts[0], cells, complex_.kind)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_complex_is_found_again_under_other_names(seed):
    draw = np.random.default_rng(seed)
    n = int(draw.integers(4, 12))
    complex_ = ring_complex(nx.gnp_random_graph(n, 0.4, seed=int(seed % 1000)), 6)
    other = renamed(complex_, draw.permutation(n).tolist())
    found = renaming(to_data(complex_, ranks=3), to_data(other, ranks=3))
    assert found is not None
    for rank in range(1, complex_.top + 1):
        cells = {frozenset(found[list(cell)].tolist()) for cell in complex_.cells[rank]}
        assert cells == {frozenset(cell) for cell in other.cells[rank]}


def test_what_is_not_equal_has_no_renaming():
    six, threes = nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    for a, b in ((torus(4, 6), torus(3, 8)), (torus(6, 6), klein_bottle(6, 6))):
        assert renaming(to_data(a, ranks=3), to_data(b, ranks=3)) is None
    graphs = [Complex(6, {1: list(graph.edges)}) for graph in (six, threes)]
    assert homp_classes([to_data(c, ranks=2) for c in graphs]).tolist() == [0, 0]
    assert renaming(*(to_data(c, ranks=2) for c in graphs)) is None


@given(st.lists(st.lists(st.integers(-3, 3), max_size=40), min_size=1, max_size=12), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_multisets_are_numbered_as_they_are(sets, seed):
    draw = np.random.default_rng(seed)
    values = np.array([value for held in sets for value in held], dtype=np.int64)
    target = np.repeat(np.arange(len(sets)), [len(held) for held in sets])
    order = draw.permutation(len(values))
    codes = refinement._multisets(values[order], target[order], len(sets))
    known = [tuple(sorted(held)) for held in sets]
    assert all((codes[i] == codes[j]) == (known[i] == known[j]) for i in range(len(sets)) for j in range(len(sets)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_messages_between_pairs_are_those_of_the_edges_written_out(seed, kinds):
    draw = np.random.default_rng(seed)
    graphs = [nx.gnp_random_graph(int(draw.integers(3, 9)), 0.5, seed=int(draw.integers(999))) for _ in range(3)]
    graphs.append(nx.star_graph(40))
    stable = StableColours.of([to_data(ring_complex(graph, 6), ranks=3) for graph in graphs])
    for term, ranks in (("low", (0, 2)), ("low", (1, 1)), ("high", (0, 1)), ("high", (1, 2))):
        rule = SubcomplexRefinement(ranks, terms=(term,))
        product = stable.batch.pairs(*ranks)
        if not product.total:
            continue
        colours = draw.integers(0, kinds, product.total).astype(np.int32)
        along = 0 if term == "low" else 1
        rank, between = (ranks[0], ranks[0] + 1) if term == "low" else (ranks[1], ranks[1] - 1)
        relation, bridge = stable.batch.neighbours(rank, between)
        source, target, edge = (part.tolist() for part in relation.expand(product, along))
        held = [[] for _ in range(product.total)]
        for s, t, e in zip(source, target, edge, strict=True):
            held[t].append((int(colours[s]), int(stable.cells[between][bridge[e]])))
        known = [tuple(sorted(entries)) for entries in held]
        codes = refinement._messages(stable, rule, term, colours).tolist()
        assert len(set(codes)) == len(set(known)) == len(set(zip(codes, known, strict=True)))
        assert sorted(set(codes)) == list(range(len(set(codes))))


@given(st.lists(st.tuples(st.integers(-9, 2**40), st.integers(-(2**50), 3), st.integers(0, 2)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_rows_are_numbered_in_their_order(rows):
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    codes = refinement._number(*columns).tolist()
    known = {row: number for number, row in enumerate(sorted(set(rows)))}
    assert codes == [known[row] for row in rows]
