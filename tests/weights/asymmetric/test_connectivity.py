import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from coset.core.errors import CosetError
from coset.weights.asymmetric import ensembles
from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.asymmetric.classification_data import IGNORED, communities, digits, shift_and_flip
from coset.weights.asymmetric.comparison import averages, between, on_the_way, pairs_of, row
from coset.weights.asymmetric.connectivity import (
    Curve,
    combine,
    measure,
    monotonicity,
    plane,
    recalibrate,
    segment,
    simplex,
    stacked,
)
from coset.weights.asymmetric.ensembles import Ensemble, Training, initialise, train
from coset.weights.asymmetric.networks import GraphNetwork, ResNet, mlp, seeded

SIZES = [6, 10, 8, 3]


def data(rows: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(rows, 6, generator=g), torch.randint(3, (rows,), generator=g)


def states(*seeds: int) -> list[dict[str, torch.Tensor]]:
    return [seeded(lambda: mlp(SIZES), seed).state_dict() for seed in seeds]


def ensemble(*seeds: int) -> Ensemble:
    model = mlp(SIZES)
    return Ensemble(model, stacked(model, states(*seeds)))


def test_a_curve_by_hand():
    t = torch.linspace(0, 1, 5)
    curve = Curve(t, torch.tensor([1.0, 3.0, 2.5, 2.0, 2.0]), torch.tensor([0.9, 0.5, 0.6, 0.7, 0.8]))
    assert curve.barrier == pytest.approx(1.0)
    assert curve.highest == pytest.approx(1.75)
    assert curve.error_barrier == pytest.approx(0.25)
    assert curve.midpoint_accuracy == pytest.approx(0.6)


def test_monotonicity_by_hand():
    found = monotonicity(torch.tensor([3, 2, 1.5, 1.2, 1]))
    assert found.largest_rise == pytest.approx(-0.2)
    assert (found.monotone, found.local_convexity, found.global_convexity) == (True, 1, 1)
    found = monotonicity(torch.tensor([3, 2.75, 2.5, 1.5, 0]))
    assert found.monotone
    assert found.local_convexity == pytest.approx(1 / 3)
    assert found.global_convexity == 0  # a chord to the second point would give 1
    assert not monotonicity(torch.tensor([3.0, 3.5, 1.0])).monotone


def test_ends_of_a_segment_are_the_networks_and_no_barrier_lies_between_equal_ones():
    first, second = states(0, 1)
    model = mlp(SIZES)
    curve = segment(model, first, second, data(), points=5)
    x, y = data()
    for state, loss in ((first, curve.loss[0]), (second, curve.loss[-1])):
        torch.testing.assert_close(
            float(loss), float(functional.cross_entropy(functional_call(model, state, x), y)), rtol=1e-5, atol=0
        )
    assert segment(model, first, first, data(), points=3).barrier == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 1000))
def test_a_convex_loss_has_no_barrier(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 3))  # cross-entropy is convex in its weights
    curve = segment(model, {k: torch.randn_like(v) for k, v in model.state_dict().items()},
                    {k: torch.randn_like(v) for k, v in model.state_dict().items()}, data(), points=7)  # fmt: skip
    assert curve.barrier <= 1e-6
    assert curve.highest <= 1e-6


def test_together_is_the_same_as_one_by_one():
    model = mlp(SIZES).double()
    state = {k: v.double() for k, v in stacked(mlp(SIZES), states(0, 1, 2)).items()}
    x, y = data()
    found = measure(model, state, (x.double(), y), rows=7, each=2)
    for i in range(3):
        out = functional_call(model, row(state, i), (x.double(),))
        torch.testing.assert_close(found.loss[i], functional.cross_entropy(out, y))
        torch.testing.assert_close(found.accuracy[i], (out.argmax(1) == y).double().mean())


def test_mixtures_are_affine():
    state = ensemble(0, 1).state | {"count": torch.tensor([3, 4])}
    mixed = combine(state, torch.tensor([[0.25, 0.75], [2.0, -1.0]]))
    torch.testing.assert_close(mixed["0.bias"][1], 2 * state["0.bias"][0] - state["0.bias"][1])
    assert mixed["count"].tolist() == [3, 3]


def test_networks_with_other_fixed_entries_are_not_mixed():
    a, b = (asymmetrize(mlp(SIZES), seed=seed) for seed in (0, 1))
    with pytest.raises(CosetError, match=r"network 2: 0\.parametrizations\.weight\.0\.\w+ (differs|has shape)"):
        segment(a, a.state_dict(), b.state_dict(), data(), points=3)
    own = asymmetrize(mlp(SIZES), seed=0)
    before = copy.deepcopy(dict(own.named_buffers()))
    segment(own, own.state_dict(), own.state_dict(), data(), points=3)
    assert all(torch.equal(before[k], v) for k, v in own.named_buffers())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.weight"), "network 2 lacks 0.weight: it belongs to another architecture"),
        (lambda s: s.update(new=torch.ones(1)), "network 2 has new, which the model has not"),
        (lambda s: s.update({"0.bias": torch.ones(3)}), r"network 2: 0.bias has shape \(3,\), the model \(10,\)"),
    ],
)
def test_networks_that_do_not_fit(change, message):
    first, second = states(0, 1)
    change(second)
    with pytest.raises(CosetError, match=message):
        segment(mlp(SIZES), first, second, data(), points=3)
    with pytest.raises(CosetError, match="points=4 must be odd"):
        segment(mlp(SIZES), first, first, data(), points=4)


def test_simplex_and_average():
    some = ensemble(0, 1, 2)
    found, heights = simplex(some, data(), points=6)
    mean = {k: v.mean(0) for k, v in some.state.items()}
    x, y = data()
    torch.testing.assert_close(
        float(found.loss[0]), float(functional.cross_entropy(functional_call(some.model, mean, x), y))
    )
    assert heights.shape == (6,)
    assert averages(some, data(), number=3)["average_loss"] == pytest.approx(float(found.loss[0]))


def test_plane_passes_through_its_networks():
    some = ensemble(0, 1, 2)
    drawn = plane(some, data(), resolution=5)
    alone = measure(some.model, some.state, data()).loss
    vectors = torch.stack([torch.cat([v[i].flatten() for v in some.state.values()]) for i in range(3)]).double()
    torch.testing.assert_close(
        torch.cdist(drawn.corners, drawn.corners), torch.cdist(vectors, vectors), rtol=1e-5, atol=1e-4
    )
    # The corner at the origin lies on the line y = 0: interpolate between the nearest points of a fine grid.
    fine = plane(some, data(), resolution=81)
    i, j = (int((axis - 0).abs().argmin()) for axis in (fine.y, fine.x))
    assert float(fine.loss[i, j]) == pytest.approx(float(alone[0]), rel=0.02)
    with pytest.raises(CosetError, match="lie on a line"):
        plane(Ensemble(some.model, {k: v[[0, 0, 1]] for k, v in some.state.items()}), data())
    with pytest.raises(CosetError, match="needs three networks, not 2"):
        plane(some[:2], data())


def test_statistics_are_those_of_a_fresh_cumulative_pass():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    x, _ = data(40)
    state = {k: torch.stack([v, v]) for k, v in model.state_dict().items()}
    state["1.running_mean"] += 7
    found = recalibrate(model, state, x, batch_size=20)
    hidden = [model[0](part) for part in x.split(20)]
    torch.testing.assert_close(found["1.running_mean"][1], torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(found["1.running_var"][0], torch.stack([h.var(0) for h in hidden]).mean(0))
    assert state["1.running_mean"].min() > 6  # the original is left alone


def test_networks_trained_together_are_those_trained_alone():
    x, y = data(60)
    for model in (mlp(SIZES), asymmetrize(mlp(SIZES))):
        how = Training(epochs=3, batch_size=16, learning_rate=[0.01, 0.02], weight_decay=0.1)
        both = train(model, initialise(lambda: mlp(SIZES), model, [5, 6]), x, y, how, seeds=[5, 6])
        alone = train(
            model, initialise(lambda: mlp(SIZES), model, [6]), x, y,
            Training(epochs=3, batch_size=16, learning_rate=0.02, weight_decay=0.1), seeds=[6],
        )  # fmt: skip
        for name in both.state:
            torch.testing.assert_close(both.state[name][1], alone.state[name][0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("large", [ensembles.LARGE, 0])
def test_training_is_that_of_pytorch(large, monkeypatch):
    monkeypatch.setattr(ensembles, "LARGE", large)  # 0: one by one
    x, y = data(60)
    y[::7] = IGNORED
    how = Training(epochs=2, batch_size=60, learning_rate=0.01, weight_decay=0.1, label_smoothing=0.1)
    found = train(mlp(SIZES), initialise(lambda: mlp(SIZES), mlp(SIZES), [3]), x, y, how, seeds=[3])
    model = seeded(lambda: mlp(SIZES), 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y, label_smoothing=0.1, ignore_index=IGNORED).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found.state[name][0], value, atol=1e-5, rtol=1e-4)
    assert found.history.shape == (2, 1)
    assert torch.equal(found.network(0).state_dict()["0.bias"], found.state["0.bias"][0])


def test_convolutions_and_running_statistics_train_network_by_network():
    images, labels = torch.randn(12, 3, 8, 8), torch.randint(10, (12,))
    build = lambda: ResNet(4, 1)  # noqa: E731
    found = train(build(), initialise(build, build(), [0, 1]), images, labels,
                  Training(epochs=1, batch_size=6), seeds=[0, 1], augment=shift_and_flip)  # fmt: skip
    assert all(v.isfinite().all() for v in found.state.values())
    graph = communities(nodes=80)
    build = lambda: GraphNetwork(16, 8, 5, graph.edge_index)  # noqa: E731
    found = train(
        build(), initialise(build, build(), [0, 1]), *graph.train, Training(epochs=2, batch_size=0), seeds=[0, 1]
    )
    assert found.state["norms.0.num_batches_tracked"].tolist() == [2, 2]
    pairs = between(found, [(0, 1)], graph.test, graph.train, points=3, statistics=graph.train[0])
    assert len(pairs.test[0].loss) == 3


def test_divergence_names_the_seed():
    x, y = data()
    with pytest.raises(CosetError, match=r"training diverged in epoch 1 \(seeds \[7\]\)"):
        train(
            mlp(SIZES),
            initialise(lambda: mlp(SIZES), mlp(SIZES), [7]),
            x * float("inf"),
            y,
            Training(epochs=1),
            seeds=[7],
        )


def test_barriers_on_digits_fall_without_symmetry():
    rows = digits()
    barriers = {}
    for name, model in {
        "standard": mlp([64, 64, 64, 64, 10]),
        "w": asymmetrize(mlp([64, 64, 64, 64, 10]), n_fix=[8, 8, 8, 32], kappa=[1, 1, 0.5, 0.25]),
    }.items():
        state = initialise(lambda: mlp([64, 64, 64, 64, 10]), model, [0, 1])
        found = train(model, state, *rows.train, Training(epochs=15), seeds=[0, 1])
        barriers[name] = segment(model, row(found.state, 0), row(found.state, 1), rows.test, points=3).barrier
        _, way = on_the_way(found, rows.train, points=11)
        assert len(way) == 2
    assert barriers["standard"] > 0.4
    assert barriers["w"] < 0.3 * barriers["standard"]


def test_pairs():
    assert pairs_of(5) == [(0, 1), (2, 3)]
    assert pairs_of(3, every=True) == [(0, 1), (0, 2), (1, 2)]


def test_a_graph_with_communities():
    found = communities(nodes=300, seed=1)
    (_, train_classes), (_, test_classes) = found.train, found.test
    assert ((train_classes == IGNORED) != (test_classes == IGNORED)).all()
    source, target = found.edge_index
    classes = torch.maximum(train_classes, test_classes)
    assert 0.5 < float((classes[source] == classes[target]).double().mean()) < 0.8
    assert torch.equal(found.edge_index, communities(nodes=300, seed=1).edge_index)


def test_images_are_moved_and_mirrored():
    x = torch.arange(2 * 8 * 8.0).view(2, 1, 8, 8) + 1
    moved = shift_and_flip(x, torch.Generator().manual_seed(1))
    assert moved.shape == x.shape
    assert not torch.equal(moved, x)
    assert set(moved.unique().tolist()) <= {0.0, *x.flatten().tolist()}
