"""HOMP and SMCN: hand-computed terms, symmetry in float64, batches, covers, and the bag written out in full."""

import copy

import pytest
import torch
from torch_geometric.data import Batch

from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES
from coset.runs.recipes import load
from coset.symmetry import check_equivariance, verify_claims
from coset.topology import (
    HOMP,
    SCL,
    SMCN,
    CellBatch,
    CellPermutation,
    CochainPermutation,
    Complex,
    HOMPLayer,
    MarkPairs,
    disjoint_union,
    natural_neighbourhoods,
    to_data,
)
from coset.topology.data.torus import klein_bottle, strip, tori, torus

TWO_TRIANGLES = to_data(Complex(4, {1: [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 2: [(0, 1, 2), (1, 2, 3)]}, "cell"))
COMPLEXES = [torus(3, 4), strip(5, twisted=True), tori(((3, 3), (3, 3))), klein_bottle(4, 4)]
EMPTY = Complex(2, {1: [(0, 1)]})
DATA = [to_data(c, ranks=3) for c in (*COMPLEXES, EMPTY, Complex(1, {}))]
ALL = ("low", "inc", "high", "row", "column", "total")

MODELS = {
    "homp": lambda: HOMP(3, width=8),
    "homp natural": lambda: HOMP(3, width=8, layers=2, neighbourhoods=natural_neighbourhoods(2)),
    "smcn 01": lambda: SMCN(3, width=8, ranks=(0, 1), after=1),
    "smcn 02 binary": lambda: SMCN(3, width=8, ranks=(0, 2), marking="binary", reduce="mean", readout="mean"),
    "smcn 00": lambda: SMCN(3, width=8, ranks=(0, 0), before=0),
    "smcn 12": lambda: SMCN(3, width=8, ranks=(1, 2)),
    "smcn all terms": lambda: SMCN(3, width=8, ranks=(0, 2), terms=ALL, norm="batch"),
    "smcn of ZINC": lambda: SMCN(3, width=8, ranks=(0, 1), norm="batch", merge="sum", fresh_marks=True),
    "smcn narrow pairs": lambda: SMCN(3, width=8, pair_width=6, ranks=(0, 1), after=1, merge="sum", fresh_marks=True),
    "smcn narrow pairs 00": lambda: SMCN(3, width=8, pair_width=6, ranks=(0, 0)),
    "smcn fresh marks": lambda: SMCN(3, width=8, ranks=(0, 2), marking="binary", fresh_marks=True),
}


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().double().eval()


def test_terms_of_two_triangles():
    cells = CellBatch(TWO_TRIANGLES)
    layer = SCL(1, (0, 2), use_bridge=False)
    marks = torch.tensor([[1, 0], [1, 1], [1, 1], [0, 1]], dtype=torch.double)
    x, product = marks.reshape(-1, 1), cells.pairs(0, 2)
    low = (x + layer.term("low", x, [], cells, product)).reshape(4, 2)
    assert low.T.tolist() == [[3, 3, 3, 2], [2, 3, 3, 3]]
    incidence = (x + layer.term("inc", x, [], cells, product)).reshape(4, 2)
    assert incidence.tolist() == [[2, 1], [3, 3], [3, 3], [1, 2]]


def test_the_sum_of_terms_and_fresh_marks_by_hand():
    """The layer of the published network for ZINC on two triangles: MLPs that do nothing, marks of 100 in, 10 out."""
    cells = CellBatch(TWO_TRIANGLES)
    layer = SCL(1, (0, 2), norm="none", use_bridge=False, merge="sum", marking="binary")
    with torch.no_grad():
        for linear in (module for module in layer.mlps.modules() if isinstance(module, torch.nn.Linear)):
            linear.weight.fill_(1)
            linear.bias.fill_(0)
        layer.marks.weight.copy_(torch.tensor([[10.0], [100.0]]))
    x = torch.tensor([[1.0, 0], [1, 1], [1, 1], [0, 1]]).reshape(-1, 1)
    low, inc = torch.tensor([[3, 2], [3, 3], [3, 3], [2, 3]]), torch.tensor([[2, 1], [3, 3], [3, 3], [1, 2]])
    marks = torch.tensor([[100, 10], [100, 100], [100, 100], [10, 100]])
    assert layer(x, [], cells).reshape(4, 2).tolist() == (low + inc + marks).tolist()


def test_fresh_marks_beside_terms_that_are_joined():
    layer = SCL(4, (0, 2), marking="distance")
    assert layer.head[0].in_features == 12
    assert layer.marks.weight.shape == (12, 4)
    assert SCL(4, (0, 2)).marks is None
    assert SCL(4, (0, 2), merge="sum").head is None
    with pytest.raises(ValueError, match="choose concat or sum"):
        SCL(4, (0, 2), merge="mean")


@pytest.mark.parametrize("name", MODELS)
def test_predictions_do_not_change_with_the_numbering(name, precision):
    reports = verify_claims(made(name), Batch.from_data_list(DATA), **precision)
    assert all(report.passed and report.moved for report in reports), reports


@pytest.mark.parametrize("ranks", [(0, 1), (0, 2), (1, 2), (0, 0)])
def test_pairs_move_with_the_cells(ranks):
    model = SMCN(3, width=8, ranks=ranks, terms=ALL)

    def pairs(data):
        return model.double().eval().bag_features(data)[0]

    report = check_equivariance(pairs, Batch.from_data_list(DATA), CellPermutation(), CochainPermutation(*ranks))
    assert report.passed, str(report)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_cochains_move_with_the_cells(rank):
    model = made("homp natural")
    report = check_equivariance(
        lambda data: model.cochains(data)[rank], Batch.from_data_list(DATA), CellPermutation(), CochainPermutation(rank)
    )
    assert report.passed, str(report)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_complexes_one_by_one(name):
    model = made(name)
    together = model(Batch.from_data_list(DATA))
    assert torch.allclose(together, torch.cat([model(data) for data in DATA]), atol=1e-10)
    backwards = model(Batch.from_data_list(DATA[::-1])).flip(0)
    assert torch.allclose(together, backwards, atol=1e-10)


def test_stored_marks_are_those_computed_on_the_way():
    model = made("smcn 01")
    marked = [MarkPairs((0, 1))(copy.copy(data)) for data in DATA]
    assert torch.equal(model(Batch.from_data_list(DATA)), model(Batch.from_data_list(marked)))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_and_reach_every_weight_that_matters(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    model(Batch.from_data_list(DATA)).square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)
    assert sum(bool(g.abs().sum() > 0) for g in gradients) > 0.7 * len(list(model.parameters()))


def test_gradcheck_of_a_subcomplex_layer():
    cells = CellBatch(TWO_TRIANGLES)
    torch.manual_seed(0)
    layer = SCL(2, (0, 2), terms=ALL, norm="none").double()
    h = [torch.randn(index.total, 2, dtype=torch.double, requires_grad=True) for index in cells.cells]
    x = torch.randn(8, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *h: layer(x, list(h), cells), (x, *h))


def test_a_saved_model_gives_the_same(tmp_path):
    model = made("smcn 01")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    twin = MODELS["smcn 01"]().double().eval()
    twin.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    batch = Batch.from_data_list(DATA)
    assert torch.equal(model(batch), twin(batch))


@pytest.mark.parametrize("term", ["low", "high"])
def test_messages_equal_those_on_a_bag_written_out(term):
    """A (x) I as explicit edges between rows, and the bridge's linear map on [X | h] whole."""
    cells = CellBatch(Batch.from_data_list(DATA))
    torch.manual_seed(0)
    layer = SCL(4, (0, 2), terms=(term,)).double()
    product = cells.pairs(0, 2)
    h = [torch.randn(index.total, 4, dtype=torch.double) for index in cells.cells]
    x = torch.randn(product.total, 4, dtype=torch.double)
    rank, between, along = layer.between[term]
    relation, bridge = cells.neighbours(rank, between)
    source, target, edge = relation.expand(product, along)
    weight = torch.cat([layer.messages[term].weight, layer.bridges[term].weight], 1)
    message = torch.cat([x[source], h[between][bridge[edge]]], 1) @ weight.T + layer.bridges[term].bias
    expected = torch.zeros_like(x).index_add(0, target, message.relu())
    assert torch.allclose(layer.term(term, x, h, cells, product), expected, atol=1e-12)


def test_message_passing_is_constant_on_the_fibres_of_a_cover():
    model = made("homp natural")
    below, above = (model.cochains(to_data(c))[0] for c in (torus(3, 4), torus(3, 8)))
    where = torch.tensor([a * 4 + b % 4 for a in range(3) for b in range(8)])
    assert torch.allclose(above, below[where], atol=1e-10)
    edge, twist = (model.cochains(to_data(c))[2] for c in (strip(10), strip(5, twisted=True)))
    assert torch.allclose(edge, twist[torch.arange(10) % 5], atol=1e-10)


def test_copies_are_alike_to_a_mean_and_not_to_marked_copies():
    one, two = to_data(torus(3, 4)), to_data(disjoint_union(torus(3, 4), torus(3, 4)))
    torch.manual_seed(0)
    homp, smcn = (m.double().eval() for m in (HOMP(3, readout="mean"), SMCN(3, readout="mean", reduce="mean")))
    assert torch.allclose(homp(one), homp(two), atol=1e-12)
    assert (smcn(one) - smcn(two)).abs().max() > 1e-4


def test_networks_see_what_refinement_says():
    def gap(model, a, b):
        return float((model(to_data(a)) - model(to_data(b))).detach().abs().max())

    cylinder, moebius = strip(5), strip(5, twisted=True)
    assert gap(made("homp natural"), cylinder, moebius) < 1e-9
    assert gap(made("smcn 02 binary"), cylinder, moebius) < 1e-9
    assert gap(made("smcn 01"), cylinder, moebius) > 1e-4


def test_one_neighbourhood_is_gin():
    """HOMP over A_{0,1} without bridges is MLP((1 + eps) h_v + sum of the neighbours) on the graph."""
    from coset.topology import Neighbourhood

    torch.manual_seed(0)
    layer = HOMPLayer(4, [Neighbourhood(0, 0, 1)], norm="none", use_bridge=False).double()
    h = [torch.randn(n, 4, dtype=torch.double) for n in (4, 5, 2)]
    adjacency = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]], dtype=torch.double)
    conv = layer.convs[0][0]  # type: ignore[index]
    expected = layer.heads[0](conv.mlp(h[0] + adjacency @ h[0]))
    found = layer(h, CellBatch(TWO_TRIANGLES))
    assert torch.allclose(found[0], expected)
    assert found[1] is h[1]


def test_marked_vertices_are_gnn_sswl_plus():
    """Rank pair (0, 0): low is a sum inside the copy, high across copies, and the point term is X(v, v)."""
    cells = CellBatch(TWO_TRIANGLES)
    layer = SCL(1, (0, 0), terms=("low", "high", "inc"), use_bridge=False)
    product = cells.pairs(0, 0)
    x = torch.randn(16, 1, dtype=torch.double)
    grid = x.reshape(4, 4)
    adjacency = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]], dtype=torch.double)
    assert torch.allclose(layer.term("low", x, [], cells, product).reshape(4, 4), adjacency @ grid)
    assert torch.allclose(layer.term("high", x, [], cells, product).reshape(4, 4), grid @ adjacency)
    assert torch.equal(layer.term("inc", x, [], cells, product).reshape(4, 4), grid.diagonal()[:, None].expand(4, 4))


def test_errors():
    with pytest.raises(ValueError, match="choose from low, inc"):
        SCL(4, (0, 2), terms=("up",))
    with pytest.raises(ValueError, match="choose distance or binary"):
        SMCN(1, marking="colour")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ranks 0 to 2"):
        SMCN(1, ranks=(0, 3))
    with pytest.raises(ValueError, match="choose batch, layer"):
        HOMP(1, norm="instance")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose sum or mean"):
        HOMP(1, readout="concatenate")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no x_1"):
        HOMP(1, (None, [3], None))(TWO_TRIANGLES)
    with pytest.raises(ValueError, match="made for ranks 0 to 1"):
        HOMP(1, (None, None))(TWO_TRIANGLES)


@pytest.mark.parametrize("task", ["cross-diameter", "betti2"])
def test_the_papers_network_has_its_parameters(task):
    """502,093 with a table of 12 marks (two occur), and without an epsilon in each of 12 terms."""
    model = load(f"smcn/{task}-paper", []).model.build(1, None, None)
    count = sum(p.numel() for p in model.parameters())
    assert count + (12 - 2) * 108 - 12 == 502_093


def test_the_published_network_for_zinc_has_its_widths():
    """85 on cells and 70 on pairs, within the budget of half a million; published 500,114 with another head."""
    model = load("smcn/zinc-paper", []).model.build(1, list(ATOM_SIZES), list(BOND_SIZES))
    assert sum(p.numel() for p in model.parameters()) == 488_354
    assert [layer.head for layer in model.layers] == [None] * 5
    assert {layer.marks.weight.shape for layer in model.layers} == {(12, 70)}
    assert model.layers[0].bridges["low"].weight.shape == (70, 85)
    assert model.before[0].heads[0][0].weight.shape == (85, 85)
