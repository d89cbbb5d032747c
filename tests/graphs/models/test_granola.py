import copy
import json
from functools import partial

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch_geometric.data import Batch

from coset.core.errors import CosetError
from coset.graphs import GIN, GranolaNorm, make_norm
from coset.graphs.benches.norm_studies import depth_profile, dirichlet_energy, pairs, separation
from coset.graphs.benches.norm_training import STUDIES, degree_graphs
from coset.graphs.benches.norms import degree_survives, explained_triangles, main, random_features
from coset.graphs.data.collections import graph_from_adjacency
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.relations import IndexSet, Relation
from coset.runs.listing import names
from coset.runs.recipes import load
from coset.symmetry import verify_claims
from precisions import PRECISIONS

D = torch.float64
STATIC = ["batch", "instance", "layer-node", "layer-graph", "graph", "graph-size", "mean", "pair", "group", "identity"]
NOISE = ["granola", "rnf-norm"]


def of_networkx(graph):
    return graph_from_adjacency(networkx.to_numpy_array(graph) > 0)


def layer(**options):
    torch.manual_seed(0)
    return GranolaNorm(8, **{"init": "paper"} | options).double()


def random_graph(n, seed):
    generator = torch.Generator().manual_seed(seed)
    forward = torch.triu_indices(n, n, 1)
    forward = forward[:, torch.rand(forward.size(1), generator=generator) < 0.4]
    return torch.cat([forward, forward.flip(0)], dim=1), torch.randn(n, 8, dtype=D, generator=generator)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 99), depth=st.integers(1, 3))
def test_renumbering_nodes_and_noise_renumbers_the_rows(n, seed, depth):
    edges, x = random_graph(n, seed)
    norm = layer(depth=depth)
    noise, images = torch.randn(n, 8, dtype=D), torch.randperm(n)
    moved_x, moved_noise = torch.empty_like(x), torch.empty_like(noise)
    moved_x[images], moved_noise[images] = x, noise
    moved = norm(moved_x, images[edges], noise=moved_noise)
    torch.testing.assert_close(moved[images], norm(x, edges, noise=noise), rtol=0, atol=1e-12)


def test_a_batch_equals_its_graphs_one_by_one():
    graphs = [random_graph(n, n) for n in (3, 1, 6)]
    noise = [torch.randn(len(x), 8, dtype=D) for _, x in graphs]
    offsets = torch.tensor([0, 3, 4])
    edges = torch.cat([e + o for (e, _), o in zip(graphs, offsets)], dim=1)
    norm = layer()
    together = norm(torch.cat([x for _, x in graphs]), edges, noise=torch.cat(noise))
    alone = torch.cat([norm(x, e, noise=r) for (e, x), r in zip(graphs, noise)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_it_starts_as_a_layer_norm_whatever_the_noise():
    edges, x = random_graph(6, 0)
    norm = GranolaNorm(8).double()
    torch.testing.assert_close(norm(x, edges), F.layer_norm(x, (8,)))
    norm(x, edges).square().sum().backward()
    assert norm.scale.weight.grad.abs().sum() > 0
    assert norm.first[0].weight.grad.abs().sum() == 0  # behind heads that are still zero


def test_hand_computed_statistics_and_affine():
    x = torch.tensor([[1.0, 2, 3, 6]], dtype=D)
    norm = GranolaNorm(4).double()
    none = torch.empty(2, 0, dtype=torch.long)
    expected = torch.tensor([[-1.06904, -0.53452, 0, 1.60357]], dtype=D)
    torch.testing.assert_close(norm(x, none), expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        norm.scale.bias.copy_(torch.tensor([0.0, 1, 0, -0.5]))  # gamma = 1 + f1
        norm.shift.bias.copy_(torch.tensor([0.0, 0, 1, 0]))
    expected = torch.tensor([[-1.06904, -1.06904, 1, 0.80179]], dtype=D)
    torch.testing.assert_close(norm(x, none), expected, rtol=0, atol=1e-5)


def test_projecting_before_the_sum_is_the_sum_projected():
    edges, x = random_graph(7, 3)
    norm, noise = layer(depth=1), torch.randn(7, 8, dtype=D)
    joined = torch.cat([x, noise], dim=1)
    summed = torch.zeros_like(joined).index_add(0, edges[1], joined[edges[0]]) + (1 + norm.eps) * joined
    weight = torch.cat([norm.first[0].weight, norm.noise.weight], dim=1)
    z = norm.second[0]((F.linear(summed, weight, norm.first[0].bias)).relu())
    gamma, beta = (head(part) for head, part in zip((norm.scale, norm.shift), norm.hidden(z).relu().chunk(2, dim=1)))
    expected = gamma * F.layer_norm(x, (8,)) + beta
    torch.testing.assert_close(norm(x, edges, noise=noise), expected)


def test_edge_features_enter_as_in_gine_and_gradients_are_right():
    edges, x = random_graph(4, 5)
    norm = layer(edge_channels=3)
    edge_attr = torch.randn(edges.size(1), 3, dtype=D)
    noise = torch.randn(4, 8, dtype=D)
    without = norm(x, edges, edge_attr=0 * edge_attr, noise=noise)
    assert not torch.allclose(norm(x, edges, edge_attr=edge_attr, noise=noise), without)
    x, edge_attr = x.requires_grad_(), edge_attr.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, e: norm(x, edges, edge_attr=e, noise=noise), (x, edge_attr))


def test_noise_is_fresh_in_training_and_settled_in_evaluation():
    edges, x = random_graph(5, 1)
    norm = layer()
    assert not torch.equal(norm(x, edges), norm(x, edges))
    norm.eval()
    assert torch.equal(norm(x, edges), norm(x, edges))
    again = copy.deepcopy(norm)
    again.load_state_dict(norm.state_dict())
    assert torch.equal(again(x, edges), norm(x, edges))
    fresh = layer(eval_seed=None).eval()
    assert not torch.equal(fresh(x, edges), fresh(x, edges))


def test_the_noise_enters_at_the_scale_that_is_asked_for():
    """The same draw of weights, those of the noise times the scale; a scale of 0 at the start is no noise yet."""
    edges, x = random_graph(6, 0)
    noise = torch.randn(6, 8, dtype=D)
    plain, quiet = layer(), layer(noise_scale=0.1)
    torch.testing.assert_close(quiet.noise.weight, 0.1 * plain.noise.weight)
    torch.testing.assert_close(quiet(x, edges, noise=noise), plain(x, edges, noise=0.1 * noise))
    torch.manual_seed(1)
    plain.reset_parameters()
    torch.manual_seed(1)
    quiet.reset_parameters()
    torch.testing.assert_close(quiet.noise.weight, 0.1 * plain.noise.weight)
    assert torch.equal(quiet.hidden.weight, plain.hidden.weight)
    silent = layer(noise_scale=0.0)
    assert torch.equal(silent(x, edges, noise=noise), silent(x, edges, noise=0 * noise))
    assert make_norm("granola", 8, noise_scale=0.1).norm.noise_scale == 0.1


def test_batch_norms_inside_the_mlps_and_in_the_head_beside_the_norm():
    """As in the authors' other networks: both are there whatever stands in the slot, and neither by default."""

    def batch_norms(**options):
        model = GIN(1, list(ATOM_SIZES), list(BOND_SIZES), width=8, layers=2, norm="granola", **options)
        return [name for name, part in model.named_modules() if isinstance(part, torch.nn.BatchNorm1d)]

    assert batch_norms() == []
    assert batch_norms(inner_norm=True, head_norm=True) == ["mlps.0.norm", "mlps.1.norm", "head.1"]


def test_recipes_and_leagues_have_the_batch_norms_of_the_authors_networks():
    granola = [name for name in names() if name.startswith("granola/")]
    assert len(granola) == 11
    for name in granola:
        recipe = load(name)
        models = [recipe.model] if recipe.kind == "graphs" else [trial.recipe.model for trial in recipe.trials()]
        assert all(model.inner_norm and model.head_norm for model in models), name


def test_a_graph_by_itself_in_training_takes_the_running_statistics_of_the_head():
    torch.manual_seed(0)
    model = GIN(1, list(ATOM_SIZES), list(BOND_SIZES), width=8, layers=2, head_norm=True).double().train()
    two = Batch.from_data_list([smiles_to_data(smiles) for smiles in ("CCO", "CC(C)C")])
    model(two).sum().backward()
    mean = model.head[1].running_mean.clone()
    assert mean.any()
    one = Batch.from_data_list([smiles_to_data("c1ccccc1")])
    assert model(one).isfinite().all()
    assert torch.equal(model.head[1].running_mean, mean)


def test_only_noise_separates_a_hexagon_from_two_triangles():
    triangle = networkx.cycle_graph(3)
    graphs = [of_networkx(networkx.cycle_graph(6)), of_networkx(networkx.disjoint_union(triangle, triangle))]
    batch = Batch.from_data_list(graphs)
    without = random_features("granola-no-rnf", batch, 1, 2, 0)
    assert without.abs().max() < 1e-5  # all twelve nodes alike
    copies = 4000
    edges = (batch.edge_index[:, None] + 12 * torch.arange(copies)[:, None]).reshape(2, -1)
    norm = layer(eval_seed=None)
    torch.manual_seed(1)
    with torch.no_grad():
        out = norm(torch.ones(12 * copies, 8, dtype=D), edges).relu()
    draws = out.view(copies, 2, 6, -1).mean(2)
    gap = draws[:, 0] - draws[:, 1]
    z = gap.mean(0).abs() / (gap.std(0) / len(gap) ** 0.5 + 1e-12)
    assert z.max() > 6


@pytest.mark.parametrize("name", STATIC)
def test_static_norms_cannot_see_triangles(name):
    assert abs(explained_triangles(name)) < 0.02


@pytest.mark.slow
def test_granola_sees_triangles_from_depth_two_on():
    assert explained_triangles("granola-no-rnf") < 0.02
    assert explained_triangles("granola", depth=1) < 0.1
    assert explained_triangles("granola", draws=512) > 0.6


def test_which_norms_keep_the_degree_of_regular_graphs():
    kept = {name: degree_survives(name) for name in [*STATIC, "granola", "granola-no-rnf"]}
    erased = {"instance", "graph", "mean", "pair", "layer-node", "layer-graph"}
    assert {name for name, survives in kept.items() if not survives} == erased


def test_batch_statistics_merge_two_degrees():
    """P3 and K6 in one batch: degrees 1 and 2 both fall below the mean, and ReLU makes them one."""
    degrees = torch.tensor([1.0, 2, 1, 5, 5, 5, 5, 5, 5], dtype=D)[:, None]
    out = make_norm("batch", 1).double().train()(degrees, None, None)
    torch.testing.assert_close(out[[0, 1, 3], 0], torch.tensor([-1.5875, -1.0160, 0.6985], dtype=D), rtol=0, atol=1e-4)
    assert out.relu()[0] == out.relu()[1] == 0


@pytest.mark.parametrize("norm", [*STATIC, *NOISE, "granola-no-rnf"])
def test_gin_with_any_norm_is_invariant(norm):
    torch.manual_seed(0)
    model = GIN(1, list(ATOM_SIZES), list(BOND_SIZES), width=16, layers=2, norm=norm).double()
    batch = Batch.from_data_list([smiles_to_data(s) for s in ("CCO", "C", "c1ccccc1C(=O)O", "C.C")])
    model(batch)  # running statistics
    noisy = model.eval().with_noise(batch)
    assert all(report.passed for precision in PRECISIONS for report in verify_claims(model, noisy, **precision))
    assert model(batch).isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "granola"])
def test_gin_with_norms_inside_and_in_the_head_is_invariant(norm):
    torch.manual_seed(0)
    options = {"inner_norm": True, "head_norm": True, "granola": {"noise_scale": 0.1} if norm == "granola" else None}
    model = GIN(1, list(ATOM_SIZES), list(BOND_SIZES), width=8, layers=2, norm=norm, **options)
    batch = Batch.from_data_list([smiles_to_data(smiles) for smiles in ("CCO", "C", "c1ccccc1C(=O)O")])
    model(batch).sum().backward()  # running statistics that are not at their start
    model = model.double().eval()
    assert all(report.passed for report in verify_claims(model, model.with_noise(batch)))


def test_a_prediction_is_the_mean_over_draws():
    torch.manual_seed(0)
    model = GIN(norm="granola", granola={"init": "paper"}, width=16, layers=2, draws=3).eval()
    batch = Batch.from_data_list([of_networkx(networkx.cycle_graph(n)) for n in (3, 5)])
    passes = []
    for draw in range(3):
        data = copy.copy(batch)
        rows = torch.from_numpy(np.random.default_rng((0, draw)).standard_normal((5, 32), dtype=np.float32))
        data.noise = torch.cat([rows[:3], rows])
        passes.append(model(data))
    torch.testing.assert_close(model(batch), torch.stack(passes).mean(0))


ODD_GRAPHS = {
    "single node": ([1], []),
    "no edges": ([3, 2], []),
    "loops": ([2, 2], [(0, 0), (0, 1), (1, 0), (3, 3)]),
    "parallel edges": ([2, 2], [(0, 1), (0, 1), (1, 0), (1, 0), (2, 3), (3, 2)]),
    "components": ([4, 2], [(0, 1), (1, 0), (2, 3), (3, 2)]),
    "directed": ([3, 2], [(0, 1), (1, 2), (3, 4)]),
    "graphs without nodes": ([0, 2, 0, 3, 0], [(0, 1), (1, 0), (2, 3), (3, 2)]),
    "no graphs": ([], []),
}


@pytest.mark.parametrize("odd", ODD_GRAPHS)
@pytest.mark.parametrize("norm", [*STATIC, *NOISE, "granola-no-rnf"])
def test_odd_graphs(norm, odd):
    sizes, edges = ODD_GRAPHS[odd]
    nodes = IndexSet(torch.tensor(sizes, dtype=torch.long))
    relation = Relation(nodes, nodes, torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t())
    torch.manual_seed(0)
    made = make_norm(norm, 8, **({"init": "paper"} if norm in (*NOISE, "granola-no-rnf") else {})).double()
    x = torch.randn(nodes.total, 8, dtype=D, requires_grad=True)
    if nodes.total == 1 and norm in ("batch", "group"):
        with pytest.raises(ValueError, match="needs at least two"):
            made(x, relation, nodes.batch)
        made.eval()
    out = made(x, relation, nodes.batch)
    assert out.shape == x.shape
    assert out.isfinite().all()
    out.square().sum().backward()
    assert x.grad.isfinite().all()


def test_loops_and_parallel_edges_count_as_often_as_they_are_given():
    norm, (edges, x) = layer(noise_channels=0), random_graph(4, 2)
    once = norm(x, edges)
    assert not torch.allclose(norm(x, torch.cat([edges, edges], dim=1)), once)
    loops = torch.arange(4).expand(2, -1)
    with torch.no_grad():
        looped = norm(x, torch.cat([edges, loops], dim=1))
        norm.eps += 1  # a loop at every node is one more of oneself
    torch.testing.assert_close(looped, norm(x, edges))


def test_messages_follow_the_arrows():
    norm, x = layer(noise_channels=0, depth=1), random_graph(3, 2)[1]
    arrow, none = torch.tensor([[0], [1]]), torch.empty(2, 0, dtype=torch.long)
    changed = (norm(x, arrow) - norm(x, none)).abs().amax(1) > 1e-9
    assert changed.tolist() == [False, True, False]


def test_without_message_passing_it_is_the_layer_on_a_graph_without_edges():
    edges, x = random_graph(6, 4)
    norm, alone = layer(), layer(message_passing=False)
    alone.load_state_dict(norm.state_dict())
    noise = torch.randn(6, 8, dtype=D)
    torch.testing.assert_close(alone(x, edges, noise=noise), norm(x, edges[:, :0], noise=noise), rtol=0, atol=1e-12)


def test_equivariant_in_distribution():
    """With other noise after renumbering one pass differs, means over many passes agree within their standard error."""
    edges, x = random_graph(5, 7)
    norm, images, draws = layer(eval_seed=None), torch.tensor([3, 0, 4, 1, 2]), 4000
    moved = torch.empty_like(x)
    moved[images] = x

    def sample(x, edges):
        copies = (edges[:, None] + len(x) * torch.arange(draws)[:, None]).reshape(2, -1)
        with torch.no_grad():
            return norm(x.repeat(draws, 1), copies).view(draws, *x.shape)

    torch.manual_seed(1)
    ours, theirs = sample(x, edges), sample(moved, images[edges])[:, images]
    assert (ours[0] - theirs[0]).abs().max() > 0.01
    error = ((ours.var(0) + theirs.var(0)) / draws).sqrt()
    z = (ours.mean(0) - theirs.mean(0)) / error
    assert z.abs().max() < 5
    spread = (ours.var(0) / theirs.var(0)).log()
    assert spread.abs().max() < 0.3


def test_predictions_do_not_depend_on_what_else_is_in_the_batch():
    torch.manual_seed(0)
    model = GIN(norm="granola", granola={"init": "paper"}, width=16, layers=2, input_noise=4, draws=3).double().eval()
    graphs = [of_networkx(networkx.cycle_graph(n)) for n in (3, 5, 4)]
    together = model(Batch.from_data_list(graphs))
    alone = torch.cat([model(graph) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    model.noise_seed = 1
    assert not torch.allclose(model(graphs[0]), alone[0])


def test_kinds_of_bonds_are_encoded_once():
    torch.manual_seed(0)
    batch = Batch.from_data_list([smiles_to_data(s) for s in ("CC=O", "c1ccccc1C(=O)O")])
    model = GIN(1, list(ATOM_SIZES), list(BOND_SIZES), width=8, layers=1)
    kinds, kind = model._kinds_of_edges(batch)
    assert torch.equal(kinds[kind], batch.edge_attr)
    assert len(kinds) == len(batch.edge_attr.unique(dim=0))
    batch.edge_attr[0, 0] = 99
    with pytest.raises(ValueError, match="column 0 holds 0 to 99"):
        model(batch)


def test_mixed_precision():
    edges, x = random_graph(5, 1)
    norm = GranolaNorm(8, init="paper", edge_channels=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = norm(x.float(), edges, edge_attr=torch.randn(edges.size(1), 3))
    out.float().square().sum().backward()
    assert out.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in norm.parameters())


def test_mistakes_are_explained():
    edges, x = random_graph(3, 0)
    for call, message in (
        (lambda: GranolaNorm(1), "at least 2"),
        (lambda: GranolaNorm(8, depth=0), "at least one layer"),
        (lambda: GranolaNorm(8, init="ones"), "choose identity or paper"),
        (lambda: layer()(x[:, :4], edges), r"\[nodes, 8\]"),
        (lambda: layer()(x, edges, edge_attr=torch.ones(1, 2)), "without edge features"),
        (lambda: layer()(x, edges, noise=x[:2]), "noise must have shape"),
        (lambda: make_norm("batchnorm", 8), "choose batch"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert layer()(x[:0], edges[:, :0]).shape == (0, 8)


def test_bench_as_json(capsys):
    main(json=True, norms="batch,granola-no-rnf")
    found = json.loads(capsys.readouterr().out)
    assert [(row["norm"], row["regular graphs"], row["one batch"]) for row in found["rows"]] == [
        ("batch", True, False),
        ("granola-no-rnf", True, True),
    ]


def test_noise_separates_pairs_from_depth_two_on():
    first, second = pairs()["C6, 2 C3"]
    assert separation(first, second, noise=False, depth=2, draws=10) == 0
    assert separation(first, second, noise=True, depth=1, draws=1000) < 4
    assert separation(first, second, noise=True, depth=2, draws=1000) > 6
    assert separation(first, first, noise=True, depth=2, draws=1000) < 4


def test_untrained_granola_is_a_layer_norm_at_any_depth():
    ours, theirs = depth_profile("granola"), depth_profile("layer-node")
    assert [row["energy"] for row in ours] == [row["energy"] for row in theirs]


def test_dirichlet_energy_by_hand():
    edges = torch.tensor([[0, 1], [1, 0]])
    assert dirichlet_energy(torch.tensor([[1.0], [3.0]]), edges) == pytest.approx(4 / 10)
    assert dirichlet_energy(torch.ones(2, 3), edges) == 0


def test_scores_of_trained_networks_are_kept_and_taken_again(tmp_path, capsys, monkeypatch):
    few = partial(degree_graphs, count=12, held=4)
    monkeypatch.setitem(STUDIES, "shift", STUDIES["shift"]._replace(graphs=few, epochs=2))
    file = tmp_path / "scores.csv"
    main(json=True, study="shift", norms="identity", scores=str(file))
    first = json.loads(capsys.readouterr().out)
    monkeypatch.setattr("coset.graphs.benches.norms.relative_error", None)  # nothing is trained twice
    main(json=True, study="shift", norms="identity", scores=str(file))
    assert json.loads(capsys.readouterr().out) == first
    assert list(first["statements"]) == ["identity: error below 5 % of the variance"]
    with pytest.raises(CosetError, match="no study 'shifts'"):
        main(study="shifts")
