"""The equation that weights obey, the search for what is behind them, and what symmetry does to both."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coset.core.errors import CosetError
from coset.privacy import (
    Attack,
    InvariantClassifier,
    ReLUNetwork,
    SoftplusFeatures,
    SurrogateReLU,
    attribute,
    distinct_neurons,
    experiments,
    group_of,
    margins,
    multipliers,
    reconstruct,
    sample_gradients,
    score,
    stationarity_residual,
    train_to_stationarity,
    with_surrogate,
)
from coset.privacy.data.images import cifar10_vehicles_animals, digits, point_clouds
from coset.privacy.reconstruction import _Objective
from coset.privacy.scores import nearest, structural_similarity
from coset.privacy.stationarity import flat, parameters_of, weighted_gradient
from coset.runs.recipes import load
from coset.symmetry import verify_claims
from precisions import PRECISIONS

GROUPS = ("plain", "flips", "c4", "d4")


def seeded(number):
    return torch.Generator().manual_seed(number)


def network(name="d4", hidden=12, seed=0):
    return InvariantClassifier(SoftplusFeatures(9, hidden, generator=seeded(seed)), group_of(name, (3, 3)))


def normal(*sizes, seed=0):
    return torch.randn(*sizes, dtype=torch.float64, generator=seeded(seed))


class TwoNeurons(nn.Module):
    """relu(x_1) - relu(x_2)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2, dtype=torch.float64))
        self.value = nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x @ self.weight.T) @ self.value


def test_two_neurons_by_hand():
    """Two inputs, multipliers 1: the true gates solve the equation exactly, the surrogate's leave 0.5."""
    x, c = torch.eye(2, dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64)
    for model, wanted in ((TwoNeurons(), 0.0), (with_surrogate(TwoNeurons(), 60.0), 0.5)):
        parameters = parameters_of(model)
        left = flat(parameters) - flat(weighted_gradient(model, parameters, x, c))
        assert float(left.square().sum()) == pytest.approx(wanted, abs=1e-12)


class Functional(nn.Module):
    """The same two layers with ReLU as a module, as a function of either module, as a method, in place, or leaky."""

    def __init__(self, gate):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5).double(), nn.Linear(5, 1, bias=False).double()
        self.gate = gate

    def forward(self, x):
        return self.last(self.gate(self.first(x))).squeeze(-1)


@pytest.mark.parametrize(
    "gate", [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, lambda z: z.relu(), lambda z: F.relu(z, True)]
)
def test_every_way_to_write_relu_gets_the_surrogate(gate):
    """Its gates tell a candidate where to go: second derivatives of the output in input and weights are not zero."""
    torch.manual_seed(0)
    model, x = Functional(gate), normal(3, 4)
    smooth, by_hand = with_surrogate(model, 6.0), Functional(SurrogateReLU(6.0))
    by_hand.load_state_dict(model.state_dict())
    assert torch.equal(smooth(x), model(x))

    def bend(network):
        y = x.clone().requires_grad_()
        first = next(p for n, p in network.named_parameters() if n.endswith("first.bias"))
        (slope,) = torch.autograd.grad(network(y).sum(), first, create_graph=True)
        return torch.autograd.grad(slope.sum(), y)[0]

    assert float(bend(by_hand).abs().max()) > 0.1
    torch.testing.assert_close(bend(smooth), bend(by_hand))


def test_leaky_gates_get_the_surrogate():
    z = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    for gate in (nn.LeakyReLU(0.2), lambda z: F.leaky_relu(z, negative_slope=0.2), lambda z: F.leaky_relu(z, 0.2)):
        model = Functional(gate)
        model.first, model.last = nn.Identity(), nn.Identity()
        out = with_surrogate(model, 7.0)(z[:, None])
        torch.testing.assert_close(out, F.leaky_relu(z, 0.2))
        torch.testing.assert_close(torch.autograd.grad(out.sum(), z)[0], 0.2 + 0.8 * torch.sigmoid(7 * z))


def test_functional_gates_are_searched_through():
    """A search through F.relu is the search through nn.ReLU, step for step."""
    torch.manual_seed(0)
    models = [Functional(nn.ReLU()), Functional(F.relu)]
    models[1].load_state_dict(models[0].state_dict())
    one, other = (reconstruct(m, 4, Attack(candidates=4, steps=10, start=0.3)).candidates for m in models)
    torch.testing.assert_close(one, other)


def test_multipliers_by_hand():
    one = torch.ones(1)
    assert float(multipliers("mse", 0.8 * one, one, 0.1)) == pytest.approx(4)
    torch.testing.assert_close(multipliers("logistic", torch.zeros(2), torch.ones(2), 0.5), torch.full((2,), 0.5))
    with pytest.raises(CosetError, match="loss 'hinge': choose mse, logistic, ce"):
        multipliers("hinge", one, one, 0.1)


def test_the_surrogate_is_relu_with_another_derivative():
    z = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    out = SurrogateReLU(7.0)(z)
    assert torch.equal(out, F.relu(z))
    (first,) = torch.autograd.grad(out.sum(), z, create_graph=True)
    torch.testing.assert_close(first, torch.sigmoid(7 * z))
    (second,) = torch.autograd.grad(first.sum(), z)
    gate = torch.sigmoid(7 * z)
    torch.testing.assert_close(second, 7 * gate * (1 - gate))


@pytest.mark.parametrize("name", GROUPS)
def test_classifiers_are_invariant_and_the_average_is_one_over_the_orbit(name):
    model, x = network(name), normal(4, 9)
    assert all(report.passed for precision in PRECISIONS for report in verify_claims(model, x, **precision))
    every = [model.base(model.group.apply(g, x)) for g in range(len(model.group))]
    torch.testing.assert_close(model(x), torch.stack(every).mean(0))
    torch.testing.assert_close(torch.cat([model(row[None]) for row in x]), model(x))
    if name == "plain":
        assert not verify_claims(model, x, claims=network("d4").symmetry())[0].passed


def test_deep_relu_networks_are_homogeneous():
    """<theta, grad f> = L f for weights of L layers, biases in the first only (Euler)."""
    model = ReLUNetwork([5, 7, 6, 1], generator=seeded(0))
    x = normal(3, 5)
    found = sample_gradients(model, x) @ flat(parameters_of(model))
    torch.testing.assert_close(found, 3 * model(x).detach())


@pytest.mark.parametrize("loss", ["mse", "logistic"])
@pytest.mark.parametrize("name", ["plain", "d4"])
def test_trained_weights_are_a_sum_over_the_training_inputs(name, loss):
    model, x = network(name), normal(4, 9, seed=1)
    y = torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    assert stationarity_residual(model, x, y, loss=loss) > 1e-3
    assert train_to_stationarity(model, x, y, loss=loss, tolerance=1e-7) <= 1e-7
    assert stationarity_residual(model, x, y, loss=loss) < 1e-12


class TwoOutputs(nn.Module):
    """(0, f): its margins are those of the network f of one output."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        out = self.base(x)
        return torch.stack([torch.zeros_like(out), out], -1)


@pytest.mark.parametrize("method", ["kkt", "activation"])
def test_two_classes_are_one_output(method):
    base, options = network("plain"), {"candidates": 4, "steps": 15, "start": 0.3, "least": 0.2, "method": method}
    one, two = (reconstruct(model, 9, Attack(**options)) for model in (base, TwoOutputs(base)))
    torch.testing.assert_close(two.candidates, one.candidates)
    torch.testing.assert_close(two.labels * 2.0 - 1, one.labels.float())
    torch.testing.assert_close(two.multipliers * one.labels, one.multipliers)
    in_parts = reconstruct(TwoOutputs(base), 9, Attack(part=3, **options))
    torch.testing.assert_close(in_parts.candidates, one.candidates)


def test_margins_of_several_classes_by_hand():
    out = torch.tensor([[2.0, 1.0, -1.0], [2.0, 1.0, -1.0]])
    torch.testing.assert_close(margins(out, torch.tensor([0, 2])), torch.tensor([1.0, -3.0]))


def test_networks_of_several_classes_are_sums_over_their_inputs():
    """At a stationary point of cross-entropy with decay: multipliers of every output, one minus share."""
    model = ReLUNetwork([9, 8, 3], generator=seeded(0))
    model.layers[1] = nn.Softplus(beta=5)
    x, y = normal(6, 9, seed=1), torch.tensor([0, 0, 1, 1, 2, 2])
    train_to_stationarity(model, x, y, loss="ce", weight_decay=1e-2)
    assert stationarity_residual(model, x, y, loss="ce", weight_decay=1e-2) < 1e-10
    found = attribute(model, x, y)
    assert found.explained > 0.8  # one multiplier a sample, for the runner-up only
    assert found.explained > attribute(model, normal(6, 9, seed=2), y).explained + 0.2
    assert reconstruct(model, 9, Attack(candidates=6, steps=5)).labels.tolist() == [0, 0, 1, 1, 2, 2]


def objective(model, attack, shape=9):
    labels = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    return _Objective(model, shape, attack, labels, model.group, 1.0)


def test_the_loss_does_not_see_the_group_candidate_by_candidate():
    model = network()
    value = objective(model, Attack(candidates=3, isotypic=10.0))
    x, c = normal(3, 9), normal(3, seed=2)
    whole = value({"x": x, "c": c}, x)[0]
    moved = torch.stack([model.group.apply(g, row) for g, row in zip((1, 5, 7), x, strict=True)])
    torch.testing.assert_close(value({"x": moved, "c": c}, moved)[0], whole)


def test_a_multiplier_may_be_split_over_the_orbit():
    model = network()
    parameters, x, c = parameters_of(model), normal(2, 9), normal(2, seed=3)
    split = torch.cat([model.group.orbit(x[0]), x[1:]])
    shares = torch.cat([c[:1].expand(8) / 8, c[1:]])
    whole, parts = (flat(weighted_gradient(model, parameters, *pair)) for pair in ((x, c), (split, shares)))
    torch.testing.assert_close(parts, whole)
    base = flat(weighted_gradient(model.base, parameters_of(model.base), split, shares))
    expanded = torch.cat([model.group.orbit(x[0]), model.group.orbit(x[1])])
    torch.testing.assert_close(
        flat(weighted_gradient(model.base, parameters_of(model.base), expanded, (c / 8).repeat_interleave(8))), whole
    )
    assert not torch.allclose(base, whole)


def test_only_the_centre_of_an_orbit_shows_through_open_gates():
    """f = (relu(w x) + relu(w P x)) / 2 for the swap P: (3, 1) and (2, 2) leave the same gradient at w = (1, 1)."""
    swap = group_of("flips", (1, 2))
    base = ReLUNetwork([2, 1], generator=seeded(0))
    base.layers.append(nn.ReLU())
    model = InvariantClassifier(base, swap)
    with torch.no_grad():
        base.layers[0].bias.zero_()
        for weight, gradients in (((1.0, 1.0), ((2, 2), (2, 2))), ((1.0, -1.0), ((1.5, 0.5), (1.5, 0.5)))):
            base.layers[0].weight.copy_(torch.tensor([weight]))
            inputs = torch.tensor([[3.0, 1.0], [2.0, 2.0] if weight == (1.0, 1.0) else [1.0, 3.0]]).double()
            found = sample_gradients(model, inputs)[:, :2].abs()
            torch.testing.assert_close(found, torch.tensor(gradients).double())


def test_gradients_of_the_loss_by_finite_differences():
    value = objective(network(), Attack(candidates=3, isotypic=5.0, memory=0.3, least=0.5))
    x, c, target = normal(3, 9).requires_grad_(), normal(3, seed=2).requires_grad_(), normal(3, 9, seed=4)
    assert torch.autograd.gradcheck(lambda x, c: value({"x": x, "c": c}, target)[0], (x, c))


def test_penalties_by_hand():
    value = objective(network(), Attack(method="activation", candidates=3))
    x = torch.zeros(3, 9, dtype=torch.float64)
    inside = value({"x": x, "c": normal(3)}, x)[0]
    x[0, 0], x[1, 0] = 1.5, -2.0
    outside = value({"x": x, "c": normal(3)}, x)[0]
    model = network()
    gain = (value.labels * (model(x) - model(torch.zeros_like(x)))).mean()
    torch.testing.assert_close(outside - inside + gain, torch.tensor(1.25, dtype=torch.float64))


@pytest.mark.parametrize("name", ["flips", "c4", "d4"])
def test_symmetric_candidates_stay_symmetric(name):
    """Descent never leaves the fixed inputs of a subgroup: the mechanism behind the drift."""
    model = network(name)
    start = model.group.centre(normal(1, 4, 9))
    found = reconstruct(model, 9, Attack(candidates=4, steps=50), group=model.group, start=start)
    torch.testing.assert_close(model.group.centre(found.candidates), found.candidates, rtol=0, atol=1e-10)
    assert float((found.candidates - start).abs().max()) > 0.05


def test_restarts_side_by_side_are_those_one_by_one():
    model = network()
    start = normal(3, 4, 9, seed=5)
    attack = Attack(candidates=4, steps=20, restarts=3, memory=0.1)
    together = reconstruct(model, 9, attack, group=model.group, start=start)
    for number in range(3):
        one = Attack(candidates=4, steps=20, memory=0.1)
        alone = reconstruct(model, 9, one, group=model.group, start=start[number : number + 1])
        torch.testing.assert_close(alone.candidates[0], together.candidates[number])
        torch.testing.assert_close(alone.residual[0], together.residual[number])
    again = reconstruct(model, 9, attack, group=model.group, start=start)
    assert torch.equal(again.candidates, together.candidates)


@pytest.mark.parametrize("generator", [False, True])
def test_a_search_in_parts_is_the_search_as_a_whole(generator):
    model, options = network(), {"candidates": 5, "steps": 15, "restarts": 2, "generator": generator}
    options |= {"isotypic": 7.0, "memory": 0.1, "least": 0.5, "start": 0.3}
    whole = reconstruct(model, 9, Attack(**options), group=model.group)
    for part in (1, 2, 5):
        cut = reconstruct(model, 9, Attack(part=part, **options), group=model.group)
        torch.testing.assert_close(cut.candidates, whole.candidates, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(cut.residual, whole.residual)


def test_the_worse_half_of_the_restarts_is_given_up():
    """The other half goes on as if nothing had happened."""
    model = network()
    options = {"candidates": 4, "steps": 20, "restarts": 5, "memory": 0.1, "start": 0.3}
    every = reconstruct(model, 9, Attack(**options), group=model.group)
    fewer = reconstruct(model, 9, Attack(prune=0.5, **options), group=model.group)
    assert fewer.candidates.shape == (3, 4, 9)
    assert fewer.multipliers.shape == (3, 4)
    for number in range(3):
        same = (every.candidates - fewer.candidates[number]).abs().amax((1, 2)) < 1e-9
        assert int(same.sum()) == 1
    with pytest.raises(CosetError, match=r"prune=0\.0 must be above 0"):
        Attack(prune=0.0)


def test_plain_networks_give_their_training_images_away():
    """A1 of the specification, shortened: ten digits, most of which come out; held-out ones are not matched."""
    images, group = digits(10, 200), group_of("plain", (8, 8))
    model = InvariantClassifier(SoftplusFeatures(64, 100, generator=seeded(0)), group)
    train_to_stationarity(model, images.train, images.labels)
    with torch.no_grad():
        c = multipliers("mse", model(images.train), images.labels, 1e-3)
    attack = Attack(candidates=20, steps=600)
    found = reconstruct(model, 64, attack, scale=float(c.abs().mean()) / 2)
    scores = score(found.candidates[0], images.train, images.held_out, group, (8, 8))
    assert scores.mean > 0.85
    assert float(scores.null.max()) < scores.mean - 0.2
    assert scores.p_value == pytest.approx(1 / 21)


def test_activation_maximisation_finds_symmetric_inputs():
    """A3: in a network that is invariant, inputs of largest output are symmetric; in a plain one they are not."""
    for name, low, high in (("d4", 0.99, 1.01), ("plain", 0.0, 0.5)):
        group = group_of("d4", (8, 8))
        model = InvariantClassifier(SoftplusFeatures(64, 60, generator=seeded(0)), group_of(name, (8, 8)))
        images = digits(6, 6)
        train_to_stationarity(model, images.train, images.labels)
        attack = Attack(method="activation", candidates=6, steps=300, start=1e-4)
        found = reconstruct(model, 64, attack, group=group).candidates[0]
        assert low <= float(group.symmetry_index(found).median()) <= high


def test_a_generator_does_not_drift():
    model = network()
    attack = Attack(candidates=4, steps=50, learning_rate=0.005, generator=True)
    found = reconstruct(model, 9, attack, group=model.group)
    free = reconstruct(model, 9, Attack(candidates=4, steps=50, start=1e-4), group=model.group)
    assert max(row["symmetry"] for row in found.trace) < 0.7
    assert free.trace[-1]["symmetry"] > 0.9
    assert float(found.candidates.abs().max()) <= 1


def test_attribution_tells_members_from_others():
    images = digits(10, 40)
    model = InvariantClassifier(SoftplusFeatures(64, 100, generator=seeded(0)), group_of("plain", (8, 8)))
    train_to_stationarity(model, images.train, images.labels)
    theirs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(20)
    members, others = attribute(model, images.train, images.labels), attribute(model, images.held_out[:10], theirs[:10])
    assert members.explained == pytest.approx(1, abs=1e-6)
    assert others.explained < members.explained - 0.2
    more = attribute(model, torch.cat([images.train, images.held_out]), torch.cat([images.labels, theirs]))
    assert more.explained >= members.explained - 1e-9
    assert bool((more.multipliers >= 0).all())


def test_collapsed_neurons_are_counted():
    weight = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(5, 1), torch.tensor([[0.0, 2.0], [0.0, 1e-9]])])
    assert distinct_neurons(weight) == 2


def test_similarity_of_images_is_one_for_equals_and_finite_for_constants():
    image = normal(2, 64)
    torch.testing.assert_close(structural_similarity(image, image, (8, 8)), torch.ones(2))
    assert bool(structural_similarity(torch.zeros(2, 64).double(), image, (8, 8)).isfinite().all())


def test_the_nearest_input_is_moved_onto_what_was_found():
    group, inputs = group_of("d4", (3, 3)), normal(5, 9)
    turned = torch.stack([group.apply(g, inputs[j]) for g, j in ((1, 2), (6, 0), (3, 4))])
    torch.testing.assert_close(nearest(turned, inputs, group), turned)


def test_data_are_balanced_and_apart():
    for images in (digits(6, 30), point_clouds(6, 30)):
        assert images.labels.sum() == 0
        assert images.train.shape[1] == images.held_out.shape[1]
        assert float(torch.cdist(images.train, images.held_out).min()) > 0
    with pytest.raises(CosetError, match="count=5: an even number"):
        digits(5, 10)
    with pytest.raises(CosetError, match="are needed to train and to judge by"):
        digits(10, 10_000)
    with pytest.raises(CosetError, match="cifar10_small"):
        cifar10_vehicles_animals(4, 4, "/nowhere.npz")


def test_vehicles_and_animals_as_grey_images(tmp_path):
    """Half of each label; an airplane (class 0) is a vehicle; 2 x 2 pixels and three channels become one number."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    file = tmp_path / "cifar10_small.npz"
    np.savez(file, train_images=pixels, train_labels=np.arange(40, dtype=np.uint8) % 10)
    images = cifar10_vehicles_animals(4, 8, str(file))
    assert images.train.shape == (4, 256)
    assert images.shape == images.picture == (16, 16)
    every = torch.from_numpy(pixels.reshape(40, 16, 2, 16, 2, 3).mean((2, 4, 5)).reshape(40, -1) / 255)
    # What was taken away is one mean image, so differences of training images are differences of averaged pixels.
    steps = (images.train[0] - images.train[1:])[:, None, None] - (every[:, None] - every[None])[None]
    pairs = (steps.abs().amax(-1) < 1e-12).nonzero()
    first, others = pairs[:, 1], pairs[:, 2]
    assert len(pairs) == 3
    assert len(first.unique()) == 1
    vehicle = torch.isin(torch.cat([first[:1], others]) % 10, torch.tensor([0, 1, 8, 9]))
    assert torch.equal(vehicle, images.labels < 0)
    np.savez(file, x_train=pixels)
    with pytest.raises(CosetError, match="lacks the array 'train_images': it holds x_train"):
        cifar10_vehicles_animals(4, 8, str(file))


def test_mistakes_are_named():
    with pytest.raises(CosetError, match="method 'gan': choose kkt, gauss-newton, by-parts, differences, activation"):
        Attack(method="gan")
    with pytest.raises(CosetError, match="need the group"):
        reconstruct(network("plain"), 9, Attack(isotypic=10.0))
    with pytest.raises(CosetError, match="needs a first layer that reads the 4 entries"):
        reconstruct(network(), 4, Attack(isotypic=10.0), group=group_of("d4", (2, 2)))
    with pytest.raises(CosetError, match="3 held-out inputs: at least the 4"):
        score(normal(2, 9), normal(4, 9), normal(3, 9), group_of("d4", (3, 3)))


FEW = ["data.count=4", "network.hidden=[20]", "attacks.gauss-newton.steps=20", "attacks.gauss-newton.restarts=1"]


def test_recipe_from_end_to_end(tmp_path):
    changes = [*FEW, "attacks.kkt.steps=20", "attacks.activation.steps=10"]
    recipe = load("reconstruction/digits-c4", changes)
    metrics = recipe.run(tmp_path, quiet=True)
    page = recipe.report(tmp_path).read_text()
    assert "private data" in page
    assert set(metrics["attacks"]) == {"gauss-newton", "kkt", "activation"}
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["network"]["residual of the truth"] < 1e-10
    assert set(written["network"]["information"]["weights"]) == {"A", "B", "E"}
    assert written["attacks"]["kkt"]["undetermined"] >= 0
    assert written["attacks"]["activation"]["undetermined"] is None
    assert "share of the first layer" in page
    with np.load(tmp_path / "reconstructions.npz") as arrays:
        assert arrays["kkt"].shape == arrays["truth"].shape == arrays["kkt, held out"].shape == (4, 64)
    assert len(recipe.summary(metrics)[1]) == 3
    assert all(report.passed for report in recipe.verify())
    with pytest.raises(CosetError, match="softplus has one hidden layer"):
        load("reconstruction/digits-c4", ["network.hidden=[5,5]"])


def test_a_run_that_was_stopped_goes_on_from_what_it_had(tmp_path, monkeypatch):
    changes = [*FEW, "attacks.kkt.steps=20", "attacks.activation.steps=10"]
    recipe = load("reconstruction/digits-c4", changes)
    whole = recipe.run(tmp_path / "whole", quiet=True)
    done = []

    def stopped_in_the_second(*arguments, **options):
        done.append(arguments)
        if len(done) == 2:
            raise KeyboardInterrupt
        return reconstruct(*arguments, **options)

    monkeypatch.setattr(experiments, "reconstruct", stopped_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        recipe.run(tmp_path / "cut", quiet=True)
    assert recipe.folder(tmp_path / "cut").resumable()
    monkeypatch.setattr(experiments, "train_to_stationarity", None)  # trained it is already
    gone_on = recipe.run(tmp_path / "cut", quiet=True)
    assert len(done) == 4
    for metrics in (whole, gone_on):
        for attack in metrics["attacks"].values():
            del attack["cpu_seconds"]
    assert gone_on["attacks"] == whole["attacks"]
    assert gone_on["network"] == whole["network"]
    one, other = (np.load(tmp_path / name / "reconstructions.npz") for name in ("whole", "cut"))
    with one, other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)
    assert not (tmp_path / "cut" / "parts").exists()
