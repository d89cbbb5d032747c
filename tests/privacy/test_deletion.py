"""What decay deletes from the weights of averaged networks: the statements of the documentation, in float64."""

import pytest
import torch

from coset.privacy import (
    InvariantClassifier,
    ReLUNetwork,
    SoftplusFeatures,
    group_of,
    hidden_layer_of,
    isotypic_parts,
    multipliers,
    sample_gradients,
    train_to_stationarity,
)
from coset.privacy.deletion import asymmetry_bounds, instabilities, stabilisers, symmetric_neurons

D4 = group_of("d4", (4, 4))
PARTS = {part.name: part.basis for part in isotypic_parts(D4)}


def normal(*sizes, seed=0):
    return torch.randn(*sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def features(seed=0, hidden=40):
    generator = torch.Generator().manual_seed(seed)
    return InvariantClassifier(SoftplusFeatures(16, hidden, generator=generator), D4)


@pytest.mark.parametrize(("name", "seen"), [("B1", {"A1", "B1"}), ("B2", {"A1", "B2"}), ("A2", {"A1", "A2"})])
def test_a_neuron_sees_the_parts_that_its_stabiliser_leaves_vectors_in(name, seen):
    """Weights in A1 + B1 are left alone by four elements; A2, B2 and E of an input show in no gradient, no output."""
    model, x = features(), normal(3, 16, seed=1)
    with torch.no_grad():
        both = torch.cat([PARTS["A1"], PARTS[name]], 1)
        model.base.weight.copy_(model.base.weight @ both @ both.T)
    assert bool((stabilisers(hidden_layer_of(model, 16)).sum(1) == 4).all())
    for part, basis in PARTS.items():
        moved = x + normal(3, basis.size(1), seed=2) @ basis.T
        changed = float((sample_gradients(model, moved) - sample_gradients(model, x)).abs().max())
        assert (changed > 1e-4) == (part in seen)
        assert (float((model(moved) - model(x)).abs().max().detach()) > 1e-6) == (part in seen)


def test_below_the_bound_every_stationary_point_is_symmetric():
    """From four random starts; just above the decay at which the bound is 1, and not far below it."""
    x, y = 0.5 * normal(6, 16, seed=3), torch.tensor([1.0, -1, 1, -1, 1, -1], dtype=torch.float64)
    asymmetric = []
    for seed, decay in ((0, 0.02), (1, 0.02), (0, 1e-3), (1, 1e-3)):
        model = features(seed)
        with torch.no_grad():
            model.base.weight.mul_(10)
        train_to_stationarity(model, x, y, weight_decay=decay, tolerance=1e-9, iterations=1500)
        layer = hidden_layer_of(model, 16)
        with torch.no_grad():
            c = multipliers("mse", model(x), y, decay)
        below = asymmetry_bounds(layer, x, c, bend=5 / 4) < 1
        alone = stabilisers(layer).all(1)
        assert bool(alone[below].all())
        asymmetric.append((decay, int(below.sum()), int((~alone).sum())))
    assert any(count == 40 for decay, count, _ in asymmetric if decay == 0.02)
    assert all(broken > 0 for decay, _, broken in asymmetric if decay == 1e-3)


def test_symmetric_neurons_attract_what_is_below_one():
    """The second derivative of loss and decay at symmetric weights, by automatic differentiation, part by part."""
    x, y, decay = 0.5 * normal(6, 16, seed=3), torch.tensor([1.0, -1, 1, -1, 1, -1], dtype=torch.float64), 2e-3
    model = features(hidden=6)
    with torch.no_grad():
        model.base.weight.copy_(D4.centre(model.base.weight))
    train_to_stationarity(model, x, y, weight_decay=decay, tolerance=1e-8, iterations=500)
    layer = hidden_layer_of(model, 16)
    with torch.no_grad():
        c = multipliers("mse", model(x), y, decay)
    assert bool(stabilisers(layer).all())
    torch.testing.assert_close(symmetric_neurons(layer, x, c).weight, layer.weight, rtol=0, atol=1e-6)

    def loss(weight):
        out = torch.func.functional_call(model, {"base.weight": weight}, (x,))
        return (out - y).square().mean() + 0.5 * decay * weight.square().sum()

    hessian = torch.func.hessian(loss)(layer.weight)
    found = instabilities(layer, x, c, isotypic_parts(D4))
    for number, basis in enumerate(list(PARTS.values())[1:]):
        block = torch.einsum("dr,kdle,es->krls", basis, hessian, basis)
        for k in range(6):
            least = torch.linalg.eigvalsh(block[k, :, k])[0]
            torch.testing.assert_close(least, decay * (1 - found[k, number]), rtol=1e-5, atol=1e-9)
            assert float(block[k, :, (k + 1) % 6].abs().max()) < 1e-9  # no neuron sees another's asymmetry


def test_symmetric_relu_neurons_forget_small_asymmetry():
    """Its part of the weights shrinks by 1 - rate * decay a step, whatever the decay: gates are those of the centre."""
    model = InvariantClassifier(ReLUNetwork([16, 8, 1], generator=torch.Generator().manual_seed(0)), D4)
    first = model.base.layers[0]
    with torch.no_grad():
        first.weight.copy_(D4.centre(first.weight) + 1e-4 * normal(8, 16))
    x, y = normal(4, 16, seed=1), torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    before = (first.weight - D4.centre(first.weight)).detach()
    loss = (model(x) - y).square().mean() + 0.5 * 1e-3 * first.weight.square().sum()
    (slope,) = torch.autograd.grad(loss, first.weight)
    with torch.no_grad():
        first.weight.sub_(0.1 * slope)
    after = (first.weight - D4.centre(first.weight)).detach()
    torch.testing.assert_close(after, (1 - 0.1 * 1e-3) * before)
