"""EPNN in both forms: its equations, what it is invariant to, and what it says about wrong input."""

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from coset.core.errors import CosetError
from coset.graphs.data.collections import graph_from_adjacency
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.models.epnn import EPNN, EPNNLayer
from coset.graphs.models.grit import GRIT, random_walk_features
from coset.graphs.models.spectral_encoders import ImplicitEncoder, ProductEncoder
from coset.graphs.models.spectral_filter import SpectralBatch, filtered_messages, spectral_filter
from coset.graphs.transforms import EigenspaceBases, Eigenspaces, precompute
from coset.symmetry import NodePermutation, PairRowPermutation, TrivialAction, check_equivariance, verify_claims

D = torch.float64
SMILES = ("CCO", "C", "c1ccccc1C(=O)O", "C.C", "c1ccc2ccccc2c1", "C1CC1.c1ccccc1")
MODELS = {
    "epnn": lambda **more: EPNN(2, ATOM_SIZES, BOND_SIZES, width=12, layers=3, **more),
    "epnn-plain": lambda: EPNN(2, ATOM_SIZES, None, width=12, layers=2, norm=False, residual=True, readout="sum"),
    "grit": lambda: GRIT(2, ATOM_SIZES, BOND_SIZES, width=12, heads=3, layers=2, channels=8),
    "grit-product": lambda: GRIT(2, ATOM_SIZES, BOND_SIZES, width=12, heads=3, layers=2, encoder="product"),
    "grit-alone": lambda: GRIT(2, ATOM_SIZES, BOND_SIZES, width=12, heads=3, layers=2, encoder="none"),
}


def molecules(matrix="normalized"):
    return precompute([smiles_to_data(smiles) for smiles in SMILES], Eigenspaces(matrix))


def bare(graph, matrix="normalized"):
    return Eigenspaces(matrix)(graph_from_adjacency(networkx.to_numpy_array(graph) > 0))


def model(name):
    torch.manual_seed(0)
    made = MODELS[name]().double()
    for _ in range(3):
        made(Batch.from_data_list(molecules()))  # running statistics
    return made.eval()


def test_the_filter_is_a_function_of_the_matrix():
    graphs = [bare(networkx.cycle_graph(5)), bare(networkx.star_graph(3)), bare(networkx.empty_graph(1))]
    batch = SpectralBatch.of(Batch.from_data_list(graphs), D)
    powers = batch.values.unsqueeze(1) ** torch.arange(4)
    found = spectral_filter(powers, batch).split((batch.nodes.sizes**2).tolist())
    for graph, rows in zip(graphs, found):
        n = graph.num_nodes
        a = torch.zeros(n, n, dtype=D)
        a[graph.edge_index[0], graph.edge_index[1]] = 1
        scale = a.sum(1).clamp(min=1).rsqrt()
        normalized = scale.unsqueeze(1) * a * scale
        for k in range(4):
            expected = torch.linalg.matrix_power(normalized, k)
            torch.testing.assert_close(rows[:, k].view(n, n), expected, rtol=0, atol=1e-12)


def test_messages_are_the_sum_of_the_published_equation():
    data = Batch.from_data_list(molecules())
    batch = SpectralBatch.of(data, D)
    h, phi = torch.randn(batch.nodes.total, 3, dtype=D), torch.randn(batch.nodes.total, 3, dtype=D)
    bond = torch.randn(data.edge_index.size(1), 3, dtype=D)
    expected, start = torch.zeros_like(h), 0
    for vectors in batch.vectors:
        n = len(vectors)
        rows = slice(start, start + n)
        e = torch.einsum("uk,kc,vk->uvc", vectors, phi[rows], vectors)
        for edge, (source, target) in enumerate(data.edge_index.T.tolist()):
            if start <= source < start + n:
                e[target - start, source - start] += bond[edge]
        expected[rows] = (h[rows].unsqueeze(0) + e).relu().sum(1)
        start += n
    torch.testing.assert_close(filtered_messages(h, phi, batch, bond), expected, rtol=0, atol=1e-12)


def test_gradients_written_by_hand_are_right():
    data = Batch.from_data_list(molecules()[:4])
    batch = SpectralBatch.of(data, D)
    generator = torch.Generator().manual_seed(1)
    h, phi, bond = (
        torch.randn(rows, 2, dtype=D, generator=generator).requires_grad_()
        for rows in (batch.nodes.total, batch.nodes.total, data.edge_index.size(1))
    )
    assert torch.autograd.gradcheck(lambda phi: spectral_filter(phi, batch), (phi,))
    assert torch.autograd.gradcheck(lambda *inputs: filtered_messages(*inputs[:2], batch, inputs[2]), (h, phi, bond))
    assert torch.autograd.gradcheck(lambda *inputs: filtered_messages(*inputs, batch), (h, phi))


def test_product_encoder_is_the_sum_over_eigenspaces():
    graph = bare(networkx.complete_graph(4), "adjacency")
    batch = SpectralBatch.of(graph, D)
    torch.manual_seed(0)
    encoder = ProductEncoder(5).double()
    f = lambda x: encoder.of_value_linear(x) + encoder.of_value(x).exp()  # noqa: E731
    g = lambda x: encoder.of_entry_linear(x) + torch.nn.functional.silu(encoder.of_entry(x))  # noqa: E731
    one = lambda x: torch.tensor([x], dtype=D)  # noqa: E731
    own = f(one(3.0)) * g(one(0.25)) + f(one(-1.0)) * g(one(0.75))
    other = f(one(3.0)) * g(one(0.25)) + f(one(-1.0)) * g(one(-0.25))
    for checkpointed in (True, False):
        encoder.checkpointed = checkpointed
        rows = encoder(batch).view(4, 4, 5)
        torch.testing.assert_close(rows[2, 2], own, rtol=0, atol=1e-12)
        torch.testing.assert_close(rows[0, 3], other, rtol=0, atol=1e-12)


def test_walks_of_the_transformer():
    graph = bare(networkx.path_graph(3))
    walks = random_walk_features(SpectralBatch.of(graph, D), torch.tensor([1.0, 2, 1], dtype=D), 3).view(3, 3, 3)
    step = torch.tensor([[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]], dtype=D)
    torch.testing.assert_close(walks[..., 1], step, rtol=0, atol=1e-12)
    torch.testing.assert_close(walks[..., 2], step @ step, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_claims_hold_in_float64(name):
    batch = Batch.from_data_list([*molecules()])
    reports = verify_claims(model(name), batch)
    assert all(report.passed and report.moved for report in reports)
    assert len(reports) == 2


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 99), matrix=st.sampled_from(["adjacency", "laplacian", "normalized"]))
def test_pairs_follow_the_nodes_and_not_the_basis(n, seed, matrix):
    graph = bare(networkx.gnp_random_graph(n, 0.4, seed=seed), matrix)
    torch.manual_seed(seed)
    for encoder in (ImplicitEncoder(4, norm=torch.nn.Identity), ProductEncoder(4)):
        encoder = encoder.double()
        read = lambda data, encoder=encoder: encoder(SpectralBatch.of(data, D))  # noqa: E731
        assert check_equivariance(read, graph, NodePermutation(), PairRowPermutation(), seed=seed).passed
        assert check_equivariance(read, graph, EigenspaceBases(), TrivialAction(), seed=seed).passed


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_equals_its_graphs_one_by_one(name):
    made, graphs = model(name), molecules()
    together = made(Batch.from_data_list(graphs))
    torch.testing.assert_close(together, torch.cat([made(graph) for graph in graphs]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_it_predicts_the_same(name, tmp_path):
    made, batch = model(name), Batch.from_data_list(molecules())
    torch.save(made.state_dict(), tmp_path / "weights.pt")
    again = MODELS[name]().double().eval()
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(made(batch), again(batch))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_weight_and_are_finite(name):
    torch.manual_seed(0)
    made = MODELS[name]()
    made(Batch.from_data_list(molecules())).square().sum().backward()
    for parameter in made.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_node_level_rows_follow_the_nodes():
    torch.manual_seed(0)
    made = MODELS["epnn"](level="node").double()
    batch = Batch.from_data_list(molecules())
    made(batch)
    assert all(report.passed for report in verify_claims(made.eval(), batch))
    assert made(batch).shape == (batch.num_nodes, 2)


def test_a_disjoint_copy_adds_rows_and_changes_none():
    torch.manual_seed(0)
    cycle = networkx.cycle_graph(5)
    layer = EPNNLayer(4, norm=False).double()
    h = torch.rand(5, 4, dtype=D)
    alone = spectral_filter(layer.phi(bare(cycle).eigenvalues), SpectralBatch.of(bare(cycle), D)).view(5, 5, 4)
    twice = bare(networkx.disjoint_union(cycle, cycle))
    both = spectral_filter(layer.phi(twice.eigenvalues), SpectralBatch.of(twice, D)).view(10, 10, 4)
    torch.testing.assert_close(both[:5, :5], alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(both[5:, 5:], alone, rtol=0, atol=1e-12)
    assert both[:5, 5:].abs().max() < 1e-12
    assert layer(h, SpectralBatch.of(bare(cycle), D)).shape == (5, 4)


def test_it_sees_what_message_passing_cannot():
    triangle = networkx.cycle_graph(3)
    graphs = [bare(networkx.cycle_graph(6)), bare(networkx.disjoint_union(triangle, triangle))]
    torch.manual_seed(0)
    for made in (EPNN(width=16, layers=2), GRIT(width=16, heads=4, layers=2)):
        first, second = made.double().eval()(Batch.from_data_list(graphs))
        assert (first - second).abs() > 1e-8


def test_edgeless_and_single_nodes():
    graphs = [bare(networkx.empty_graph(n)) for n in (1, 3)]
    for made in (EPNN(width=8, layers=2), GRIT(width=8, heads=2, layers=2)):
        assert made.double().eval()(Batch.from_data_list(graphs)).isfinite().all()


def test_mistakes_are_explained():
    plain = smiles_to_data("CCO")
    with pytest.raises(ValueError, match="Eigenspaces first"):
        MODELS["epnn"]()(plain)
    with pytest.raises(ValueError, match="do not fit"):
        SpectralBatch.of(Data(edge_index=plain.edge_index, num_nodes=3, eigenvalues=torch.zeros(2),
                              pair_eigenvectors=torch.zeros(4)), D)  # fmt: skip
    with pytest.raises(CosetError, match="has no reverse"):
        Eigenspaces()(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2))
    single = Eigenspaces(dtype=torch.float32)(smiles_to_data("CCO"))
    with pytest.raises(CosetError, match="keep them in float64"):
        MODELS["grit-product"]()(single)
    for call, message in (
        (lambda: EPNN(readout="max"), "choose sum or mean"),
        (lambda: EPNN(level="cell"), "choose graph, node, edge or link"),
        (lambda: GRIT(encoder="sum"), "choose implicit, product or none"),
        (lambda: GRIT(width=10, heads=4), "multiple of heads"),
        (lambda: GRIT(encoder="none", walk_steps=0), "nothing to tell pairs apart"),
        (lambda: Eigenspaces("signless"), "choose adjacency"),
        (lambda: EPNN(edge_features=3)(bare(networkx.path_graph(3))), "no edge_attr"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
