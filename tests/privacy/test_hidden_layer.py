"""One hidden layer written out: the steps of automatic differentiation, second-order ones, and what they find."""

import pytest
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.privacy import (
    Attack,
    InvariantClassifier,
    ReLUNetwork,
    SoftplusFeatures,
    group_of,
    multipliers,
    reconstruct,
    score,
    train_to_stationarity,
)
from coset.privacy.data.images import digits
from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.models.classifiers import with_surrogate
from coset.privacy.models.modules import OnFlatInputs
from coset.privacy.reconstruction import _Objective
from coset.privacy.second_order import merged, normal_equations, refine, solve


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def normal(*sizes, seed=0):
    return torch.randn(*sizes, dtype=torch.float64, generator=seeded(seed))


def layered(gate, bias=True):
    torch.manual_seed(0)
    return OnFlatInputs(nn.Sequential(nn.Flatten(), nn.Linear(9, 7), gate, nn.Linear(7, 1, bias=bias)).double(), (3, 3))


NETWORKS = {
    "softplus": lambda: SoftplusFeatures(9, 7, generator=seeded()),
    "relu": lambda: ReLUNetwork([9, 7, 1], generator=seeded()),
    "leaky": lambda: layered(nn.LeakyReLU(0.2)),
    "tanh": lambda: layered(nn.Tanh(), bias=False),
    "sigmoid": lambda: layered(nn.Sigmoid()),
    "silu": lambda: layered(nn.SiLU()),
}


def network(name, group):
    return InvariantClassifier(NETWORKS[name](), group_of(group, (3, 3)))


def columns(layer, x, c):
    """All equations in one vector, in the order of the Jacobian's rows."""
    left = layer.residual(x, c)
    return torch.cat([left[name].reshape(-1) for name in ("weight", "bias", "value", "offset") if name in left])


@pytest.mark.parametrize("group", ["plain", "d4"])
@pytest.mark.parametrize("name", NETWORKS)
def test_descent_makes_the_steps_of_automatic_differentiation(name, group):
    model = network(name, group)
    attack = Attack(candidates=4, least=2.0, isotypic=1.0 if group == "plain" else 5.0, memory=0.3, alpha=5.0)
    labels = torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)
    objective = _Objective(with_surrogate(model, 5.0).eval(), 9, attack, labels, model.group, 1.5)
    layer = hidden_layer_of(model, 9, alpha=5.0)
    assert layer is not None
    state, target = {"x": normal(2, 4, 9), "c": normal(2, 4, seed=1)}, normal(2, 4, 9, seed=2)
    ours, residual = objective.written_out(layer, state, target)
    theirs, wanted = objective.whole(state, target)
    for part in ("x", "c"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(residual, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("group", ["plain", "d4"])
@pytest.mark.parametrize("name", ["softplus", "tanh", "silu", "sigmoid"])
def test_jacobian_and_normal_equations_are_those_of_automatic_differentiation(name, group):
    layer = hidden_layer_of(network(name, group), 9)
    x, c = normal(3, 9), normal(3, seed=1)
    to_x, to_c = torch.func.jacrev(lambda x, c: columns(layer, x, c), (0, 1))(x, c)
    wanted = torch.cat([to_x.flatten(1), to_c], 1)
    torch.testing.assert_close(layer.jacobian(x, c), wanted)
    torch.testing.assert_close(normal_equations(layer, x, c), wanted.T @ wanted)


def test_a_search_in_the_space_of_the_weights_is_one_in_all_dimensions():
    model = network("softplus", "d4")
    with torch.no_grad():  # of all parts but A1 nothing
        model.base.weight.copy_(model.group.centre(model.base.weight))
    layer = hidden_layer_of(model, 9)
    basis = layer.visible()
    assert basis.shape == (9, 3)
    inside, c = normal(4, 3), normal(4, seed=1)
    less = layer.on(basis)
    torch.testing.assert_close(less.forward(inside), layer.forward(inside @ basis.T))
    torch.testing.assert_close(less.squares(inside, c), layer.squares(inside @ basis.T, c))


def test_half_the_digits_give_the_same_search_to_their_precision():
    model = network("softplus", "d4")
    attack = {"candidates": 4, "steps": 20, "start": 0.3}
    exact, fast = (reconstruct(model, 9, Attack(precision=p, **attack)) for p in ("float64", "float32"))
    torch.testing.assert_close(fast.candidates, exact.candidates, rtol=0, atol=2e-3)
    with pytest.raises(CosetError, match="precision 'bf16': choose float64 or float32"):
        Attack(precision="bf16")


def test_networks_of_other_forms_are_left_to_the_general_search():
    deep = InvariantClassifier(ReLUNetwork([9, 5, 5, 1], generator=seeded()), group_of("plain", (9,)))
    assert hidden_layer_of(deep, 9) is None
    assert (
        hidden_layer_of(InvariantClassifier(ReLUNetwork([9, 5, 3], generator=seeded()), group_of("plain", (9,))), 9)
        is None
    )
    assert hidden_layer_of(layered(nn.GELU()), 9) is None
    assert hidden_layer_of(network("relu", "plain"), 4) is None
    with pytest.raises(CosetError, match="gauss-newton is for networks of one hidden layer"):
        reconstruct(deep, 9, Attack(method="gauss-newton", candidates=4))
    with pytest.raises(CosetError, match="1000 candidates in 7 dimensions has 8000 unknowns"):
        reconstruct(network("relu", "plain"), 9, Attack(method="gauss-newton", candidates=1000))


def test_doubles_become_one_candidate_with_the_sum_of_their_multipliers():
    layer = hidden_layer_of(network("softplus", "d4"), 9)
    x, c = normal(2, 9), torch.tensor([2.0, -1.0], dtype=torch.float64)
    turned = layer.group.orbit(x[0])[3]
    found, weights = merged(
        layer, torch.stack([x[0], turned, x[1], x[1]]), torch.tensor([1.5, 0.5, -1, 1e-5], dtype=torch.float64)
    )
    torch.testing.assert_close(found, x)
    torch.testing.assert_close(weights, c)


@pytest.fixture(scope="module")
def plain():
    images, group = digits(10, 200), group_of("plain", (8, 8))
    model = InvariantClassifier(SoftplusFeatures(64, 100, generator=seeded()), group)
    train_to_stationarity(model, images.train, images.labels)
    with torch.no_grad():
        return images, model, multipliers("mse", model(images.train), images.labels, 1e-3)


def test_second_order_steps_stay_at_the_truth_and_come_back_to_it(plain):
    images, model, c = plain
    layer = hidden_layer_of(model, 64)
    found = refine(layer.on(basis := layer.visible()), (images.train + 0.02 * normal(10, 64)) @ basis, 1.05 * c)
    assert found.residual[-1] < 1e-13 < 1e-5 < found.residual[0]
    torch.testing.assert_close(found.x @ basis.T, images.train, rtol=0, atol=1e-4)
    assert solve(layer, [(images.train, c)]).residual[-1] < 1e-14


def test_plain_networks_give_all_of_their_training_images_away(plain):
    """Ten of ten at .99, from twice as many candidates in a space of nine dimensions: the mean has been taken away."""
    images, model, c = plain
    attack = Attack(method="gauss-newton", candidates=20, steps=400, restarts=2)
    found = reconstruct(model, 64, attack, group=model.group, scale=float(c.abs().mean()) / 2)
    scores = score(found.candidates[found.best], images.train, images.held_out, model.group, (8, 8))
    assert scores.recognised(0.99) == 10
    assert float(found.residual[0]) < 1e-8
