"""ReLUs whose training has ended: gates at kinks, descent in the span of the inputs, differences of neurons."""

import pytest
import torch

from coset.core.errors import CosetError
from coset.privacy import Attack, InvariantClassifier, ReLUNetwork, group_of, hidden_layer_of, multipliers, reconstruct
from coset.privacy.descent import train_by_descent
from coset.privacy.hidden_layer import HiddenLayer
from coset.privacy.information import normal_equations_of_any
from coset.privacy.kinks import determined_by_gates, kinked, stationarity_at_kinks
from coset.privacy.neuron_differences import by_differences, differences, units
from coset.privacy.stationarity import stationarity_residual
from coset.runs.recipes import load


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def normal(*sizes, seed=0):
    return torch.randn(*sizes, dtype=torch.float64, generator=seeded(seed))


def labels(n):
    return torch.where(torch.arange(n) < n // 2, -1.0, 1.0).double()


def layer_of(rows, value, x_size):
    """ReLUs with u_k = (w_k, b_k) / v_k given."""
    weight = rows * value[:, None]
    network = ReLUNetwork([x_size, len(rows), 1], generator=seeded())
    network.layers[2].weight.requires_grad_(False)
    with torch.no_grad():
        network.layers[0].weight.copy_(weight[:, :-1])
        network.layers[0].bias.copy_(weight[:, -1])
        network.layers[2].weight.copy_(value[None])
    layer = hidden_layer_of(network, x_size)
    assert isinstance(layer, HiddenLayer)
    return network, layer


def test_a_gate_at_a_kink_may_be_anything_between():
    """w = c1 (1, 0) + g c2 (0, 1) with w (0, 1) = 0 asks for g = 0; moved off by a hair its sign says 1."""
    network = ReLUNetwork([2, 1, 1], bias=False)
    network.layers[2].weight.requires_grad_(False)
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.tensor([[1.0, 1e-12]]))
        network.layers[2].weight.fill_(1.0)
    layer = hidden_layer_of(network, 2)
    x, c = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    found = stationarity_at_kinks(layer, x, c)
    assert found.by_sign == pytest.approx(1.0)
    assert found.residual < 1e-12
    assert found.kinks == 0.5
    assert stationarity_at_kinks(layer, x, c, width=1e-14).residual == pytest.approx(1.0)
    # half a gate: Clarke's subdifferential holds every mean of the two sides
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
    half = stationarity_at_kinks(hidden_layer_of(network, 2), torch.tensor([[0.5, 0.5], [1.0, -1.0]]).double(), c)
    assert half.kinks == 0  # neither is at a kink, and none of the two sums is w
    assert half.residual == half.by_sign == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rows", "offset", "undetermined"),
    [
        ([[1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 0, 1]], True, 0),
        ([[1, 1, 0], [1, 1, 1], [0, 0, 1]], True, 4),  # inputs 0 and 1 go together, so that their sum is known
        ([[1, 0, 0], [0, 1, 0]], True, 3),  # no neuron lets input 2 through; its multiplier is what is left of the sum
        ([[1, 0, 0], [0, 1, 0]], False, 4),
    ],
)
def test_what_gates_determine_is_the_null_space_of_the_jacobian(rows, offset, undetermined):
    """Three inputs at e_j: gate patterns are the signs of weights."""
    gates = torch.tensor(rows).double()
    first, last = torch.nn.Linear(3, len(rows)), torch.nn.Linear(len(rows), 1)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), last, torch.nn.Flatten(0)).double()
    with torch.no_grad():
        first.weight.copy_((gates - 0.5) * (1 + 0.1 * normal(*gates.shape).abs()))
        first.bias.zero_()
        last.weight.copy_(1 + 0.1 * normal(1, len(rows)))
    last.bias.requires_grad_(offset)
    layer = hidden_layer_of(network, 3)
    x, c = torch.eye(3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5]).double()
    found = determined_by_gates(layer, gates, c)
    values = torch.linalg.eigvalsh(normal_equations_of_any(network, x, c))
    assert found.rank == torch.linalg.matrix_rank(gates)
    assert found.undetermined == int((values < 1e-10 * values[-1]).sum()) == undetermined
    sizes = torch.linalg.svdvals(last.weight.detach().T * gates * c)
    assert found.condition == pytest.approx(float(sizes[0] / sizes[found.rank - 1]))


def test_gates_of_networks_with_a_group_are_refused():
    model = InvariantClassifier(ReLUNetwork([4, 3, 1], generator=seeded()), group_of("c4", (2, 2)))
    with pytest.raises(CosetError, match="without a group"):
        determined_by_gates(hidden_layer_of(model, 4), torch.ones(3, 2).double(), torch.ones(2).double())


def test_only_relus_have_kinks():
    for gate, expected in ((torch.nn.ReLU(), True), (torch.nn.LeakyReLU(0.1), True), (torch.nn.Tanh(), False),
                           (torch.nn.Softplus(5.0), False), (torch.nn.SiLU(), False)):  # fmt: skip
        parts = torch.nn.Sequential(torch.nn.Linear(3, 4), gate, torch.nn.Linear(4, 1), torch.nn.Flatten(0)).double()
        layer = hidden_layer_of(parts, 3)
        assert layer is None or kinked(layer) == expected


def test_descent_in_the_span_is_descent():
    """More entries than inputs: coordinates in their span give the same path from a start that lies in it."""
    x, y = normal(6, 20), labels(6)
    start = ReLUNetwork([20, 12, 1], generator=seeded(1))
    span = torch.linalg.svd(x, full_matrices=False)[2]
    with torch.no_grad():
        start.layers[0].weight.copy_(start.layers[0].weight @ span.T @ span)
    state = {name: value.clone() for name, value in start.state_dict().items()}
    rows = train_by_descent(start, x, y, steps=300, learning_rate=0.3)
    other = ReLUNetwork([20, 12, 1])
    other.load_state_dict(state)
    wrapped = torch.nn.Sequential(other)  # not taken apart
    same = train_by_descent(wrapped, x, y, steps=300, learning_rate=0.3)
    torch.testing.assert_close(start.layers[0].weight, other.layers[0].weight, rtol=1e-8, atol=1e-10)
    assert rows[-1]["margin"] == pytest.approx(same[-1]["margin"])
    assert rows[-1]["relative"] > 0


def test_descent_ends_at_kinks_where_the_equations_hold():
    x, y = normal(10, 30) / 5, labels(10)
    model = InvariantClassifier(ReLUNetwork([30, 100, 1], first=0.1, generator=seeded()), group_of("plain", (30,)))
    train_by_descent(model, x, y, steps=4000)
    with torch.no_grad():
        c = multipliers("logistic", model(x), y, 1e-3)
    found = stationarity_at_kinks(hidden_layer_of(model, 30), x, c)
    assert found.residual < 1e-3
    assert found.residual == stationarity_residual(model, x, y, loss="logistic")
    assert found.by_sign > 5 * found.residual  # what the sign of rounding errors would have said


def test_neurons_that_differ_in_one_input_give_it():
    """Every pattern of four inputs but the empty one, as sums of what they let through."""
    x, c = normal(4, 6, seed=2), torch.tensor([-0.5, -0.3, 0.4, 0.6], dtype=torch.float64)
    both = torch.cat([x, torch.ones(4, 1, dtype=torch.float64)], 1)
    patterns = torch.tensor([[k >> j & 1 for j in range(4)] for k in range(1, 16)], dtype=torch.float64)
    _, layer = layer_of((patterns * c) @ both, torch.ones(15, dtype=torch.float64), 6)
    found = units(layer)
    assert len(found.rows) == 15
    away = differences(found)
    for truth in both:
        assert (away - truth).norm(dim=1).min() < 1e-9


def test_inputs_out_of_neurons_alone():
    """Corners of a simplex: neurons that are sums of some of them let exactly these through, and give all eight."""
    corners = torch.linalg.svd(torch.eye(8, dtype=torch.float64) - 1 / 8)[0][:, :7]
    x = 4 * corners / corners.norm(dim=1, keepdim=True)  # inner products -16 / 7 + 1 < 0, biases included
    x = x @ torch.linalg.qr(normal(12, 7))[0].T
    c = torch.linspace(0.3, 0.6, 8, dtype=torch.float64)
    patterns = (torch.rand(80, 8, generator=seeded()) < 0.5).double()
    patterns = patterns[(patterns.sum(1) > 1) & (patterns.sum(1) < 8)].unique(dim=0)
    both = torch.cat([x, torch.ones(8, 1, dtype=torch.float64)], 1)
    rows = (patterns * c) @ both
    assert ((rows @ both.T > 0) == (patterns > 0)).all()
    network, _ = layer_of(rows, torch.rand(len(rows), generator=seeded(), dtype=torch.float64) + 0.5, 12)
    found = reconstruct(network, 12, Attack(method="differences", candidates=16))
    order = found.multipliers[0].argsort(descending=True)[:8]
    away = torch.cdist(x, found.candidates[0][order]).amin(1) / x.norm(dim=1)
    assert away.max() < 0.1
    assert found.residual.item() < 0.1
    assert (found.labels.diff() >= 0).all()


def test_differences_are_refused_elsewhere():
    smooth = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1), torch.nn.Flatten(0))
    with pytest.raises(CosetError, match="hidden layer of ReLUs"):
        reconstruct(smooth.double(), 4, Attack(method="differences", candidates=2))
    with pytest.raises(CosetError, match="trained biases"):
        reconstruct(ReLUNetwork([4, 5, 1], bias=False), 4, Attack(method="differences", candidates=2))
    _, layer = layer_of(normal(2, 5), torch.ones(2, dtype=torch.float64), 4)
    with pytest.raises(CosetError, match="different neurons"):
        by_differences(layer, 2)


def test_a_recipe_from_end_to_end(tmp_path):
    changes = ["data.name=digits", "data.count=4", "network.hidden=[20]", "training.steps=50"]
    recipe = load("reconstruction/mnist-relu", changes)
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert metrics["network"]["residual of the truth"] > 0
    assert metrics["attacks"]["differences"]["candidates"] <= 8
    page = recipe.report(tmp_path / "run").read_text()
    assert "Margin in training" in page
    assert "Residual of the weights" not in page  # a single point is no curve
