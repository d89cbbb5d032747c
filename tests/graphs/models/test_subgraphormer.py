import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from coset.graphs import GIN, GNNSSWLPlus, PairEncoder, PairGraph, Subgraphormer
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.transforms import ProductPositionalEncoding, SampleRoots, ShortestPathDistances
from coset.symmetry import verify_claims
from precisions import PRECISIONS

SMILES = ["CCO", "C", "c1ccccc1C(=O)O", "C.C", "CC(C)(C)C1CC1"]
STEPS = Compose([ShortestPathDistances(5), ProductPositionalEncoding(4)])
FEATURES = (1, list(ATOM_SIZES), list(BOND_SIZES))
SMALL = {"width": 24, "layers": 2}


def molecules():
    return [STEPS(smiles_to_data(smiles)) for smiles in SMILES]


def models():
    for attention in ("gat", "gatv2", "transformer"):
        yield (
            f"subgraphormer-{attention}",
            Subgraphormer(*FEATURES, heads=2, attention=attention, positional_encoding=4, **SMALL),
        )
    options = {"positional_encoding": 4, "scale_encoding": True, "flip_signs": True}
    yield "subgraphormer-scaled", Subgraphormer(*FEATURES, heads=2, **options, **SMALL)
    yield "gnn-sswl-plus-scaled", GNNSSWLPlus(*FEATURES, **options, **SMALL)
    yield "subgraphormer-linear", Subgraphormer(*FEATURES, heads=2, linear=True, residual=True, readout="mean", **SMALL)
    yield "gnn-sswl-plus", GNNSSWLPlus(*FEATURES, **SMALL)
    yield "dss", GNNSSWLPlus(*FEATURES, relations=["uL", "vG"], **SMALL)
    yield "gin", GIN(*FEATURES, **SMALL)


def settle(model):
    """Move weights and running statistics away from their trivial start."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith("running_mean"))):
        if tensor.dim() == 1:
            tensor.data.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model.double().eval()


@pytest.mark.parametrize(("name", "model"), list(models()), ids=lambda x: x if isinstance(x, str) else "")
def test_symmetry_batching_and_gradients(name, model):
    model = settle(model)
    graphs = molecules()
    batch = Batch.from_data_list(graphs)
    assert all(report.passed for precision in PRECISIONS for report in verify_claims(model, batch, **precision))
    together = model(batch)
    alone = torch.cat([model(Batch.from_data_list([graph])) for graph in graphs])
    assert torch.allclose(together, alone, atol=1e-10)
    backwards = model(Batch.from_data_list(graphs[::-1])).flip(0)
    assert torch.allclose(together, backwards, atol=1e-10)
    model.train()
    model(batch).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("level", ["node", "pair"])
def test_node_and_pair_outputs_permute(level, precision):
    model = settle(Subgraphormer(*FEATURES, heads=2, level=level, **SMALL))
    assert all(report.passed for report in verify_claims(model, Batch.from_data_list(molecules()), **precision))


def used(model, atoms=30, bonds=5):
    """Parameters, counting as many rows of the first atom and bond table as the published code uses on ZINC."""
    count = 0
    for name, parameter in model.named_parameters():
        if ".tables.0." in name:
            count += parameter.size(1) * (atoms if name.startswith("encoder") else bonds)
        elif ".tables." not in name:
            count += parameter.numel()
    return count


def test_parameter_counts_of_the_papers():
    assert used(Subgraphormer(*FEATURES)) == 293_095
    assert used(GNNSSWLPlus(*FEATURES)) == 386_900


def path3(roots=None):
    data = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
    data = ShortestPathDistances(5)(data)
    if roots is not None:
        data.root_index, data.num_roots = torch.tensor(roots), len(roots)
    return data


def test_point_relation_and_sampled_readout_by_hand():
    x = (10 * torch.arange(3.0).view(3, 1) + torch.arange(3.0)).view(9, 1)
    whole = PairGraph.from_batch(path3())
    assert whole.at_own_root(x).flatten().tolist() == [0, 11, 22]
    kept = PairGraph.from_batch(path3([0, 2]))
    rows = x.view(3, 3)[[0, 2]].view(6, 1)
    assert kept.at_own_root(rows).flatten().tolist() == [0, 0, 22]
    assert kept.external.edges == 0
    model = Subgraphormer(width=12, heads=2, layers=1)
    assert model._readout(rows, kept, "mean").item() == pytest.approx(11)
    assert model._readout(x, whole, "sum").item() == pytest.approx(33)
    assert PairGraph.from_batch(path3([0, 1])).external.index.tolist() == [[0, 1], [1, 0]]


def test_all_roots_sampled_is_the_whole_model():
    model = settle(Subgraphormer(*FEATURES, heads=2, positional_encoding=4, **SMALL))
    graphs = molecules()
    sampled = [SampleRoots(fraction=1.0)(graph.clone()) for graph in graphs]
    assert torch.equal(model(Batch.from_data_list(graphs)), model(Batch.from_data_list(sampled)))


def encodings(training=False, **options):
    """The product eigenvectors that a network appends to its input, [pairs, 4], for a path of three and one of two."""
    encoder = PairEncoder(list(ATOM_SIZES), 24, positional_encoding=4, **options).train(training).double()
    batch = Batch.from_data_list([STEPS(smiles_to_data(smiles)) for smiles in ("CCO", "CC")])
    return encoder(batch, PairGraph.from_batch(batch))[:, -4:]


def test_product_eigenvectors_at_the_scale_of_marks():
    """Unit vectors on 9 and on 4 pairs have root mean square 1/3 and 1/2; three of the columns exist for two nodes."""
    plain, scaled = encodings(), encodings(scale_encoding=True)
    for rows, nodes, columns in ((slice(0, 9), 3, 4), (slice(9, 13), 2, 3)):
        unit = plain[rows, :columns].square().mean(0).sqrt()
        torch.testing.assert_close(unit, torch.full_like(unit, 1 / nodes), rtol=1e-6, atol=0)
        torch.testing.assert_close(scaled[rows], nodes * plain[rows])
    assert not plain[9:, 3].any()


def test_signs_of_eigenvectors_are_drawn_in_training_only():
    plain = encodings()
    assert torch.equal(encodings(flip_signs=True), plain)
    torch.manual_seed(0)
    passes = torch.stack([encodings(training=True, flip_signs=True) for _ in range(40)])
    assert torch.equal(passes.abs(), plain.abs().expand_as(passes))
    changed = [(passes[:, rows] != plain[rows]).any(1).float().mean(0) for rows in (slice(0, 9), slice(9, 13))]
    # (0, 1), (1, 0) of a path of three, and (1, 1), whose sign is that of a square, then (0, 2).
    assert changed[0].tolist()[2] == 0
    assert all(0.2 < share < 0.8 for i, share in enumerate(changed[0].tolist()) if i != 2)
    both = (passes[:, :9] != plain[:9]).any(1) ^ (passes[:, 9:] != plain[9:]).any(1)
    assert both[:, 0].any()  # graphs of a batch flip by themselves


def test_two_triangles_against_a_hexagon():
    ring = torch.arange(6)
    hexagon = torch.stack([ring, (ring + 1) % 6])
    triangles = torch.stack([ring, torch.tensor([1, 2, 0, 4, 5, 3])])
    pair = []
    for edges in (hexagon, triangles):
        data = Data(edge_index=torch.cat([edges, edges.flip(0)], 1), num_nodes=6)
        pair.append(ShortestPathDistances(5)(data))
    batch = Batch.from_data_list(pair)
    gap = {
        "marked": settle(Subgraphormer(width=24, layers=3)),
        "unmarked": settle(Subgraphormer(width=24, layers=3, marking="none")),
        "gin": settle(GIN(width=24, layers=3)),
    }
    values = {name: model(batch).flatten().tolist() for name, model in gap.items()}
    assert abs(values["marked"][0] - values["marked"][1]) > 1e-6
    for name in ("unmarked", "gin"):
        assert values[name][0] == pytest.approx(values[name][1], rel=1e-12)


def test_errors_name_what_is_missing():
    data = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2)
    with pytest.raises(ValueError, match="ShortestPathDistances"):
        Subgraphormer(width=12, heads=2)(data)
    with pytest.raises(ValueError, match="fewer than 8 heads"):
        Subgraphormer(width=12, heads=8)


@pytest.mark.parametrize("attention", ["gat", "gatv2", "transformer"])
def test_attention_weights_are_those_of_the_forward_pass(attention):
    """Weights sum to one at every pair; with values in place of X they give what the layer's attention gives."""
    model = settle(Subgraphormer(*FEATURES, heads=1, attention=attention, **SMALL))
    data = molecules()[0]
    n, edges = data.num_nodes, data.num_edges
    found = model.attention(data)
    graph = PairGraph.from_batch(data)
    x = model.encoder(data, graph)
    loops = 0 if attention == "transformer" else n
    target = torch.cat([data.edge_index[1], torch.arange(n)])[: edges + loops]
    for axis, kind, name in ((1, "internal", "uL"), (0, "external", "vL")):
        assert found[kind].shape == (2, n, edges + loops)
        sums = torch.zeros(2, n, n, dtype=torch.float64).index_add(2, target, found[kind])
        torch.testing.assert_close(sums, torch.ones_like(sums))
        if attention == "gat":
            module = model.layers[0].gather[name]
            source = torch.cat([data.edge_index[0], torch.arange(n)])
            value = (x @ module.value.weight.t()).view(n, n, -1)
            value = value if axis else value.transpose(0, 1)  # [other, along, channels]
            mixed = torch.zeros_like(value).index_add(1, target, found[kind][0].unsqueeze(2) * value[:, source])
            mixed = (mixed if axis else mixed.transpose(0, 1)).reshape(n * n, -1) + module.bias
            torch.testing.assert_close(mixed, module(x, graph))
