"""Training without weight decay to the largest margin, and networks that are invariant by construction."""

import json

import pytest
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.privacy import (
    CircularConvolution,
    InvariantClassifier,
    PointSetNetwork,
    ReLUNetwork,
    attribute,
    explained_by_shuffled_labels,
    group_of,
    homogeneity,
    train_to_margin,
)
from coset.privacy.stationarity import first_layer
from coset.runs.recipes import load
from coset.symmetry import verify_claims
from precisions import PRECISIONS


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def normal(*sizes, seed=0):
    return torch.randn(*sizes, dtype=torch.float64, generator=seeded(seed))


NETWORKS = {
    "sets": lambda: InvariantClassifier(
        PointSetNetwork(4, 2, [6, 5], generator=seeded()), group_of("sets", (4, 2)), average=False
    ),
    "shifts": lambda: InvariantClassifier(
        CircularConvolution((4, 2), 5, generator=seeded()), group_of("shifts", (4, 2)), average=False
    ),
    "relu": lambda: InvariantClassifier(ReLUNetwork([8, 6, 5, 1], generator=seeded()), group_of("plain", (4, 2))),
}


@pytest.mark.parametrize(("name", "degree"), [("sets", 3), ("shifts", 2), ("relu", 3)])
def test_networks_are_homogeneous_and_invariant_by_construction(name, degree):
    model, x = NETWORKS[name](), normal(3, 8)
    assert homogeneity(model, x) == degree
    assert all(report.passed for precision in PRECISIONS for report in verify_claims(model, x, **precision))
    moved = x.roll(1, 1)  # neither a shift of the image nor an order of points
    assert (model(moved) - model(x)).abs().max() > 1e-4


def test_a_convolution_by_hand():
    """One filter that reads the pixel in the middle of its window: the mean of positive pixels."""
    model = CircularConvolution((2, 3), 1)
    with torch.no_grad():
        filters, head = model.filters.layers[0], model.head.layers[0]
        filters.weight.copy_(torch.eye(9)[4:5])
        filters.bias.zero_()
        head.weight.fill_(2.0)
    x = torch.tensor([[1.0, -1.0, 2.0, 0.0, -3.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(model(x), torch.tensor([2.0], dtype=torch.float64))


def test_one_sample_by_hand():
    """f = v relu(w x), x = 2: the largest margin at a given length has |w| = |v|, and lambda x (v, w) = (w, v)."""
    model = ReLUNetwork([1, 1, 1], bias=False)
    with torch.no_grad():
        model.layers[0].weight.fill_(0.3)
        model.layers[2].weight.fill_(0.5)
    x, y = torch.tensor([[2.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    trace = train_to_margin(model, x, y, steps=2000)
    w, v = model.layers[0].weight.item(), model.layers[2].weight.item()
    assert w == pytest.approx(v, rel=0.02)  # 0.3 and 0.5 at the start
    assert trace[-1]["relative"] == pytest.approx(1.0, rel=1e-3)  # f / |theta|^2 = 2 w v / (w^2 + v^2)


def test_trained_weights_are_made_of_the_training_inputs():
    x = normal(6, 8, seed=3)
    y = torch.tensor([1.0, -1, 1, -1, 1, -1], dtype=torch.float64)
    model = ReLUNetwork([8, 20, 1], first=0.01, generator=seeded())
    before = attribute(model, x, y).explained
    trace = train_to_margin(model, x, y, steps=4000, learning_rate=0.03)
    found = attribute(model, x, y)
    assert found.explained > 0.9 > before + 0.3
    assert attribute(model, normal(6, 8, seed=4), y).explained < found.explained - 0.1
    shuffled = explained_by_shuffled_labels(model, x, y, draws=10)
    assert shuffled.min() < found.explained - 0.3
    assert shuffled.max() <= found.explained + 1e-9
    assert trace[-1]["margin"] > 1
    assert trace[-1]["relative"] > trace[len(trace) // 2]["relative"] > 0


def test_networks_outside_the_theory_are_refused():
    torch.manual_seed(0)  # a ReLU that is dead on all inputs would leave a constant
    x, y = normal(4, 3), torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    for layer in (nn.Linear(2, 1), nn.LayerNorm(2)):
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), layer).double()
        assert homogeneity(model, x) is None
        with pytest.raises(CosetError, match=r"homogeneous.*weight decay"):
            train_to_margin(model, x, y)
    with pytest.raises(CosetError, match=r"after 2 steps.*misclassified"):
        train_to_margin(ReLUNetwork([3, 2, 1], generator=seeded()), x, y, steps=2)


def test_the_first_layer_has_its_biases_beside_it():
    assert first_layer(ReLUNetwork([3, 5, 1])).shape == (5, 4)
    assert first_layer(NETWORKS["shifts"]()).shape == (5, 10)
    with pytest.raises(CosetError, match="no layer of weights"):
        first_layer(nn.ReLU())


@pytest.mark.parametrize(
    ("data", "network", "message"),
    [
        ("digits", {"name": "deepsets", "group": "d4"}, "invariant under 'sets'"),
        ("digits", {"name": "convolution", "group": "shifts", "hidden": [3, 4]}, "one hidden layer"),
    ],
)
def test_recipes_say_what_does_not_go_together(data, network, message):
    with pytest.raises(CosetError, match=message):
        load("reconstruction/digits-plain", [f"data.name={data}", *(f"network.{k}={v}" for k, v in network.items())])


def test_point_clouds_from_end_to_end(tmp_path):
    recipe = load("reconstruction/pointclouds-deepsets", ["training.steps=1000"])
    few = recipe.attacks["kkt"].model_copy(update={"steps": 20})
    recipe = recipe.model_copy(update={"attacks": {"few steps": few}})
    recipe.run(tmp_path / "run", quiet=True)
    curves = json.loads((tmp_path / "run" / "curves.json").read_text())
    assert curves["margin"][-1]["margin"] > 0
    assert "Margin in training" in recipe.report(tmp_path / "run").read_text()
    assert all(report.passed for report in recipe.verify())
