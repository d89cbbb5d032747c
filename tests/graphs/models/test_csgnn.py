"""CS-GNN: the path example by hand, the group's orbits, GNN-SSWL+ as a special case, symmetry, batching, edge cases."""

import itertools
import math

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from coset.graphs import PairGraph
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.encodings.coarsening import COARSENINGS
from coset.graphs.models.bags import BagGraph
from coset.graphs.models.csgnn import CSGNN, BagBlock, BagEncoder, CSGNNOptions, SetPoint, SetSum
from coset.graphs.models.pair_layers import PairSum, PairSumBlock
from coset.graphs.models.product import PairEncoder
from coset.graphs.transforms import Coarsen, ShortestPathDistances, set_clusters, set_nodes
from coset.relations import propagate
from coset.symmetry import set_node_basis, set_node_orbits, verify_claims
from precisions import PRECISIONS

SMILES = ["CCO", "C", "c1ccccc1C(=O)O", "C.C", "CC(C)(C)C1CC1"]
FEATURES = (1, list(ATOM_SIZES), list(BOND_SIZES))
SMALL = {"width": 16, "layers": 2}
DISTANCES = ShortestPathDistances(5)


def graph_of(edges, nodes):
    ends = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    return DISTANCES(Data(edge_index=torch.cat([ends, ends.flip(0)], 1), num_nodes=nodes))


def path():
    return graph_of([(0, 1), (1, 2), (2, 3)], 4)


def halves(data=None):
    return set_clusters(data or path(), [0, 0, 1, 1])


def molecules(method="spectral"):
    steps = Compose([DISTANCES, Coarsen(method, size=3 if COARSENINGS[method].sized else None)])
    return [steps(smiles_to_data(smiles)) for smiles in SMILES]


def settle(model):
    """Move weights and running statistics away from their trivial start."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith("running_mean"))):
        tensor.data.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model.double().eval()


X = torch.tensor([0.0, 1, 2, 3, 10, 11, 12, 13], dtype=torch.float64).unsqueeze(1)


class TestPathByHand:
    graph = BagGraph.from_batch(halves())

    def test_relations(self):
        assert self.graph.external.index.tolist() == [[0, 1], [1, 0]]
        inner = propagate(X, self.graph.internal, product=self.graph.pairs, along=1)
        outer = propagate(X, self.graph.external, product=self.graph.pairs, along=0)
        assert inner.flatten().tolist() == [1, 2, 4, 2, 11, 22, 24, 12]
        assert outer.flatten().tolist() == [10, 11, 12, 13, 0, 1, 2, 3]
        assert 2 * self.graph.internal.edges == 12
        assert 4 * self.graph.external.edges == 8

    def test_a_square_has_two_crossing_bonds_and_one_coarse_edge(self):
        square = halves(graph_of([(0, 1), (1, 2), (2, 3), (3, 0)], 4))
        assert BagGraph.from_batch(square).external.edges == 4
        assert BagGraph.from_batch(square, "once").external.index.tolist() == [[0, 1], [1, 0]]
        assert BagGraph.from_batch(square).external_edges.numel() == 4

    def test_point_term(self):
        point = SetPoint(1, "identity").double()
        for table in point.tables:
            torch.nn.init.zeros_(table.weight)
        assert point.gather(X, self.graph).flatten().tolist() == [0, 1, 12, 13] * 2

    def test_published_orbit_attributes(self):
        orbits, orbit_of = self.graph.orbits
        assert orbits[orbit_of].view(2, 4, 4)[0].tolist() == [[2, 2, 2, 1]] * 2 + [[2, 2, 0, 0]] * 2
        point = SetPoint(1)
        for k, table in enumerate(point.tables):  # entry j of table k is j * 100^k: the sum spells the attributes
            table.weight.data = torch.arange(len(table.weight)).double().unsqueeze(1) * 100**k
        spelled = {int(v): None for v in point.orbit_vectors(orbits).flatten()}
        attributes = [[value // 100**k % 100 for k in range(6)] for value in spelled]
        assert sorted(attributes) == [[0, 1, 1, 0, 2, 1], [0, 1, 1, 2, 0, 0]]

    def test_marks(self):
        encoder = BagEncoder(None, 4, marking="learned", nearest=2)
        assert self.graph.inside.view(2, 4).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
        assert encoder._nearest(halves(), self.graph).view(2, 4).tolist() == [[0, 0, 1, 2], [2, 1, 0, 0]]
        counts = encoder.histogram(halves(), self.graph).view(2, 4, 8)
        distances = [[d for d, count in enumerate(row) for _ in range(count)] for row in counts[0].tolist()]
        assert distances == [[0, 1], [0, 1], [1, 2], [2, 3]]
        assert torch.equal(counts[1], counts[0].flip(0))

    @pytest.mark.parametrize(("readout", "value"), [("sum", 26.0), ("mean", 6.5)])
    def test_readout(self, readout, value):
        model = CSGNN(width=1, layers=0, readout=readout).double()
        model.encoder.forward = lambda data, graph: X
        model.head = torch.nn.Identity()
        assert model(halves()).item() == value


def test_learned_marks_add_up_the_nearest_distances():
    encoder = settle(BagEncoder(None, 3, marking="learned"))
    table = encoder.marks.weight
    data = set_nodes(graph_of([(0, 1), (1, 2), (3, 4)], 5), [[1], [0, 2, 3]])
    rows = encoder(data, BagGraph.from_batch(data)).view(2, 5, 3) - encoder.nodes.weight
    torch.testing.assert_close(rows[0, 0], table[1] + 9 * table[7])
    torch.testing.assert_close(rows[0, 4], table[6] + 9 * table[7])
    torch.testing.assert_close(rows[1, 0], table[0] + table[2] + table[6] + 7 * table[7])
    many = DISTANCES(Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=12))
    whole = set_nodes(many, [range(12)])
    torch.testing.assert_close(
        encoder(whole, BagGraph.from_batch(whole))[0] - encoder.nodes.weight[0], table[0] + 9 * table[6]
    )


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_point_term_is_made_of_orbits_of_the_group(n):
    """On all non-empty subsets: M = sum over point orbits of L X + (L 1) b, with L from generators of S_n."""
    torch.manual_seed(n)
    basis, width = set_node_basis(n), 3
    data = set_nodes(graph_of([], n), [[i for i in range(n) if s >> i & 1] for s in range(1, 2**n)])
    graph = BagGraph.from_batch(data)
    point = settle(SetPoint(width, "identity"))
    x = torch.randn(graph.pairs.total, width, dtype=torch.float64)
    padded = torch.cat([torch.zeros(n, width, dtype=torch.float64), x])  # the empty set is no row of a bag
    sets = [[i for i in range(n) if s >> i & 1] for s in range(2**n)]
    rows = list(itertools.product(range(2**n), range(n)))
    number_of = {}
    for a, (s, i) in enumerate(rows):
        for b, (t, j) in enumerate(rows):
            if s and i == j and i in sets[t]:
                shared = len(set(sets[s]) & set(sets[t]))
                number_of[int(basis.labels[a, b])] = (len(sets[s]), len(sets[t]), shared, int(i in sets[s]))
    wanted = sum(1 for orbit in set_node_orbits(n) if orbit.is_point and orbit.output_size)
    assert len(number_of) == len(set(number_of.values())) == wanted
    assert len(graph.orbits[0]) == wanted
    total = torch.zeros_like(padded)
    ones = torch.ones(len(rows), 1, dtype=torch.float64)
    for number, orbit in number_of.items():
        vector = point.orbit_vectors(torch.tensor([orbit]))
        total += basis.apply(number, padded) + basis.apply(number, ones) @ vector
    torch.testing.assert_close(point.gather(x, graph), total[n:])


@pytest.mark.parametrize("marking", ["simple", "size", "minimum", "learned"])
def test_where_marks_begin(marking):
    """Scaled: as small as the tables of atoms begin; unit: at N(0, 1); missing distances at zero but as published."""
    for start in ("scaled", "unit", "published"):
        torch.manual_seed(0)
        encoder = BagEncoder([119], 96, marking=marking, start=start)
        deviation = math.sqrt(2 / (len(encoder.marks.weight) + 96)) if start == "scaled" else 1.0
        assert float(encoder.marks.weight[:-1].detach().std()) == pytest.approx(deviation, rel=0.15)
        assert encoder.marks.weight[-1].eq(0).all() == (marking == "learned" and start != "published")
    with pytest.raises(ValueError, match="choose scaled, unit or published"):
        BagEncoder([119], 96, start="small")


@pytest.mark.parametrize(
    ("options", "deviation"),
    [({}, 1.0), ({"bag": 4}, 0.2), ({"coarsening": "singletons"}, 1.0), ({"coarsening": "edges"}, 0.2)]
    + [({"bag": 4, "start": "published"}, 1.0), ({"start": "scaled"}, 0.2)],
    ids=str,
)
def test_single_nodes_begin_as_gnn_sswl_plus_does(options, deviation):
    model = CSGNNOptions(width=32, layers=1, **options).build(1, [119], [5])
    assert float(model.encoder.marks.weight[:-1].detach().std()) == pytest.approx(deviation, rel=0.2)


def test_sets_of_all_sizes_begin_with_marks_no_larger_than_atoms():
    """The mean of X(S, v), which is the same for all pairs; as published it is 40 at five sets, and the atoms drown."""
    torch.manual_seed(0)
    molecule = smiles_to_data("CC(C)CC(C)CC(C)CC(C)CC(C)CC(C)CC")
    for size in (1, 5, 20):
        batch = Batch.from_data_list([Coarsen("spectral", size=size)(DISTANCES(molecule))])
        graph = BagGraph.from_batch(batch)
        offset = {}
        for start in ("scaled", "published"):
            encoder = BagEncoder(list(ATOM_SIZES), 96, start=start)
            offset[start] = float(encoder(batch, graph).detach().mean(0).norm())
            atoms = float(encoder.nodes(batch.x).detach().norm(dim=1).mean())
        assert offset["scaled"] < 3 * atoms < offset["published"]


def test_vectors_of_bonds_are_cut_off_at_zero():
    """ReLU(x + ReLU(e)), as published, where GNN-SSWL+ has ReLU(x + e): a bond of -5 hides nothing here."""
    data = halves()
    data.edge_attr = torch.zeros(6, 1, dtype=torch.long)
    graph = BagGraph.from_batch(data)
    for kind, wanted in ((SetSum, [1, 2, 4, 2]), (PairSum, [0, 0, 0, 0])):
        term = kind(1, 1, [1]).double()
        torch.nn.init.constant_(term.edge_encoder.encoder.tables[0].weight, -5)
        edge = term.encode_edges(graph.edge_features)
        sums = propagate(X, graph.internal, product=graph.pairs, along=1, edge=edge, relu=True)
        assert sums.flatten()[:4].tolist() == wanted
    real = SetSum(1, 1, 2).double()
    features = torch.randn(6, 2, dtype=torch.float64)
    assert torch.equal(real.encode_edges(features), real.edge_encoder(features))


def test_sizes_are_told_apart_up_to_eleven():
    """The published tables are read at clamp(size - 1, 0, 10), and at clamp(shared nodes, 0, 10)."""
    sizes = (9, 10, 11, 12)
    whole = [Coarsen("whole")(graph_of([(i, i + 1) for i in range(size - 1)], size)) for size in sizes]
    orbits, orbit_of = BagGraph.from_batch(Batch.from_data_list(whole)).orbits
    firsts = [0, 9, 19, 30]
    assert orbits[orbit_of[firsts]].tolist() == [[9, 9, 9, 1], [10, 10, 10, 1], [11, 11, 10, 1], [11, 11, 10, 1]]
    point = SetPoint(1).double()
    for table in point.tables:
        table.weight.data.copy_(torch.arange(len(table.weight)).unsqueeze(1))
    assert point.orbit_vectors(orbits).flatten().tolist() == [8 + 8 + 9, 9 + 9 + 10, 10 + 10 + 10]


def copied(block, layer):
    """The weights of a GNN-SSWL+ layer put into one of CS-GNN, which cuts vectors of bonds off at zero."""
    for relation in ("uL", "vL"):
        for table in layer.gather[relation].edge_encoder.parameters():
            table.data.abs_()
    for mine, theirs in (("internal", "uL"), ("external", "vL")):
        block.gather[mine].load_state_dict(layer.gather[theirs].state_dict())
    block.gather["point"].mlp.load_state_dict(layer.gather["vv"].mlp.state_dict())
    block.gather["point"].eps.data.copy_(layer.gather["vv"].eps.data)
    block.norm.load_state_dict(layer.norm.state_dict())
    for table in block.gather["point"].tables:
        torch.nn.init.zeros_(table.weight)
    return block


@pytest.mark.parametrize("method", ["singletons", "spectral"])
def test_singletons_are_gnn_sswl_plus(method):
    """T = n: encoder and layers coincide with copied weights, forward and backward, in float64."""
    torch.manual_seed(0)
    steps = Coarsen(method, size=50 if method == "spectral" else None)
    batch = Batch.from_data_list([steps(DISTANCES(smiles_to_data(smiles))) for smiles in SMILES])
    pairs, bag = PairGraph.from_batch(batch), BagGraph.from_batch(batch)
    theirs = settle(PairEncoder(list(ATOM_SIZES), 16))
    mine = BagEncoder(list(ATOM_SIZES), 16).double()
    mine.nodes.load_state_dict(theirs.nodes.state_dict())
    mine.marks.weight.data = torch.cat([theirs.distances.weight.data, torch.zeros(1, 16).double()])
    torch.testing.assert_close(mine(batch, bag), theirs(batch, pairs), rtol=0, atol=1e-12)
    layer = settle(PairSumBlock(16, edge_features=list(BOND_SIZES)))
    block = copied(BagBlock(16, list(BOND_SIZES), coupling="identity").double(), layer)
    for mode in (False, True):
        block.train(mode)
        layer.train(mode)
        x = theirs(batch, pairs).detach().requires_grad_()
        y = x.detach().clone().requires_grad_()
        out, same = block(x, bag), layer(y, pairs)
        torch.testing.assert_close(out, same, rtol=0, atol=1e-10)
        out.square().sum().backward()
        same.square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-9)


def test_without_sets_every_node_is_one():
    model = settle(CSGNN(*FEATURES, **SMALL))
    bare = Batch.from_data_list([DISTANCES(smiles_to_data(smiles)) for smiles in SMILES])
    assert torch.equal(model(bare), model(Batch.from_data_list(molecules("singletons"))))


def variants():
    for updates, coupling in (("point", "mlp"), ("point", "relu"), ("full", "mlp"), ("none", "mlp")):
        yield {"updates": updates, "coupling": coupling}
    yield from ({"marking": marking} for marking in ("simple", "size", "minimum"))
    yield from ({"attention": attention, "residual": True} for attention in ("gat", "gatv2", "transformer"))
    yield {"crossing": "once", "readout": "mean"}
    yield {"level": "node"}


@pytest.mark.parametrize("options", list(variants()), ids=str)
@pytest.mark.parametrize("method", ["spectral", "balls"])
def test_symmetry_batching_and_gradients(options, method):
    if options.get("updates") == "full" and method == "balls":
        pytest.skip("the eighteen maps are those of a partition")
    torch.manual_seed(0)
    model = settle(CSGNN(*FEATURES, **SMALL, **options))
    graphs = molecules(method)
    batch = Batch.from_data_list(graphs)
    for precision in PRECISIONS:
        reports = verify_claims(model, batch, **precision)
        assert len(reports) == 2
        assert all(report.passed and report.moved for report in reports)
    together = model(batch)
    alone = torch.cat([model(Batch.from_data_list([graph])) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(model(graphs[2]), model(Batch.from_data_list(graphs[2:3])))
    model.train()
    model(batch).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_order_of_members_changes_nothing():
    model = settle(CSGNN(**SMALL))
    first, second = set_nodes(path(), [[0, 1, 3], [2]]), set_nodes(path(), [[0, 1, 3], [2]])
    second.set_member_index = torch.tensor([3, 0, 1, 2])
    torch.testing.assert_close(model(first), model(second))


def test_overlapping_sets_add_up_in_the_point_term():
    data = set_nodes(path(), [[0, 1], [1, 2], [0, 1, 2, 3]])
    graph = BagGraph.from_batch(data)
    point = SetPoint(1, "identity").double()
    for table in point.tables:
        torch.nn.init.zeros_(table.weight)
    ones = torch.ones(12, 1, dtype=torch.float64)
    assert point.gather(ones, graph).view(3, 4).tolist() == [[2, 3, 2, 1]] * 3


def test_families_that_leave_graphs_without_sets():
    model = settle(CSGNN(*FEATURES, **SMALL))
    out = model(Batch.from_data_list(molecules("edges")))
    assert out.isfinite().all()
    alone = model(Batch.from_data_list([molecules("edges")[1]]))  # methane: no edge, no set
    torch.testing.assert_close(alone, out[1:2])


def test_small_and_edgeless_graphs():
    for marking, nodes in itertools.product(("simple", "size", "minimum", "learned"), (1, 2)):
        model = settle(CSGNN(marking=marking, **SMALL))
        data = Coarsen("spectral", size=5)(graph_of([], nodes))
        assert data.num_sets == nodes
        assert model(data).isfinite().all()
        whole = Coarsen("whole")(graph_of([], nodes))
        assert BagGraph.from_batch(whole).external.edges == 0
        assert model(whole).isfinite().all()


def test_external_sums_over_several_bonds_have_right_gradients():
    square = halves(graph_of([(0, 1), (1, 2), (2, 3), (3, 0)], 4))
    graph = BagGraph.from_batch(square)
    torch.manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    edge = torch.randn(graph.external.edges, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: propagate(a, graph.external, product=graph.pairs, along=0, edge=b, relu=True), (x, edge)
    )


def test_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model, other = settle(CSGNN(*FEATURES, **SMALL)), CSGNN(*FEATURES, **SMALL).double().eval()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    batch = Batch.from_data_list(molecules())
    assert torch.equal(model(batch), other(batch))


def test_parameter_count_of_the_paper():
    """ZINC, six layers of width 96, with the embedding rows that the authors count: 30 atoms, 5 bonds."""
    count = 0
    for name, parameter in CSGNN(*FEATURES).named_parameters():
        table = ".tables." in name and "gather.point" not in name
        if not table:
            count += parameter.numel()
        elif ".tables.0." in name:
            count += parameter.size(1) * (30 if name.startswith("encoder") else 5)
    assert count == 449_587


def hexagon_and_triangles():
    ring = [(i, (i + 1) % 6) for i in range(6)]
    return graph_of(ring, 6), graph_of([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)], 6)


@pytest.mark.parametrize(
    ("method", "marking", "apart"),
    [("whole", "simple", False), ("whole", "size", False), ("whole", "minimum", False), ("whole", "learned", True)]
    + [("singletons", "simple", True), ("singletons", "learned", True)],
)
def test_one_set_with_simple_marks_is_message_passing(method, marking, apart):
    torch.manual_seed(0)
    model = settle(CSGNN(width=16, layers=3, marking=marking))
    values = [model(Coarsen(method)(graph)).item() for graph in hexagon_and_triangles()]
    gap = abs(values[0] - values[1]) / abs(values[0])
    assert gap > 1e-6 if apart else gap < 1e-12


def test_node_and_set_features():
    model = settle(CSGNN(*FEATURES, **SMALL))
    batch = Batch.from_data_list(molecules())
    assert model.node_features(batch).shape == (batch.num_nodes, 16)
    assert model.set_features(batch).shape == (int(batch.num_sets.sum()), 16)


def test_errors_name_what_is_missing_or_wrong():
    bare = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2)
    with pytest.raises(ValueError, match="ShortestPathDistances"):
        CSGNN(**SMALL)(bare)
    broken = halves()
    broken.set_member_index = broken.set_member_index[:3]
    with pytest.raises(ValueError, match="add up to 4, but 3 members"):
        CSGNN(**SMALL)(broken)
    crossed = Batch.from_data_list([halves(), halves()])
    crossed.set_member_index = crossed.set_member_index.flip(0)
    with pytest.raises(ValueError, match="another graph"):
        CSGNN(**SMALL)(crossed)
    sampled = path()
    sampled.root_index, sampled.num_roots = torch.tensor([0]), 1
    with pytest.raises(ValueError, match="sampled roots"):
        CSGNN(**SMALL)(sampled)
    for options, message in (
        ({"marking": "spd"}, "marking='spd': choose simple"),
        ({"updates": "all"}, "updates='all'"),
        ({"coupling": "tanh"}, "coupling='tanh'"),
        ({"crossing": "twice"}, "crossing='twice'"),
        ({"attention": "gat", "heads": 3}, "width=16 is not a multiple of heads=3"),
    ):
        with pytest.raises(ValueError, match=message):
            CSGNN(**SMALL, **options)
