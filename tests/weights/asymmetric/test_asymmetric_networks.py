"""Fixed entries and gates, permutations read off networks, matching, and what lies between two networks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from coset import CosetError
from coset.weights.asymmetric.asymmetrize import asymmetrize, deasymmetrize
from coset.weights.asymmetric.connectivity import combine, measure, monotonicity, segment
from coset.weights.asymmetric.ensembles import Training, initialise, train
from coset.weights.asymmetric.networks import ResidualBlock, mlp, seeded
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec, permute, surviving_symmetries
from coset.weights.permutations.matching import objective, weight_matching

SIZES = (6, 16, 16, 3)


def network(seed=0, norm=True):
    return seeded(lambda: mlp(SIZES, norm=norm), seed)


def blobs(rows=240):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(rows) % 3
    centres = 3 * torch.randn(3, 6, generator=generator)
    return centres[targets] + torch.randn(rows, 6, generator=generator), targets


@pytest.mark.parametrize("norm", [True, False])
def test_permuted_neurons_compute_the_same_and_are_found_again(norm):
    model = network(norm=norm).double().eval()
    spec, x = permutation_spec(model), torch.randn(5, 6, dtype=torch.float64)
    assert sorted(group.size for group in spec.groups) == [16, 16]
    action = NeuronPermutation(spec)
    orders = action.sample(model.state_dict(), torch.Generator().manual_seed(1))
    moved = copy.deepcopy(model)
    moved.load_state_dict(permute(spec, model.state_dict(), orders))
    assert not torch.equal(moved[0].weight, model[0].weight)
    torch.testing.assert_close(moved(x), model(x), rtol=0, atol=1e-12)
    found = weight_matching(spec, model.state_dict(), moved.state_dict())
    back = permute(spec, moved.state_dict(), found)
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())


def test_matching_never_makes_networks_less_alike():
    first, second = network(0).state_dict(), network(1).state_dict()
    spec = permutation_spec(network())
    matched = permute(spec, second, weight_matching(spec, first, second))
    assert objective(spec, first, matched) > objective(spec, first, second)


@pytest.mark.parametrize("method", ["w", "sigma"])
def test_asymmetric_networks_follow_from_the_seed_and_export_to_plain_modules(method):
    x = torch.randn(4, 6)
    options = {"example": (x,)} if method == "sigma" else {}
    first, again, other = (asymmetrize(network(), method, n_fix=3, seed=seed, **options).eval() for seed in (0, 0, 1))
    assert torch.equal(first(x), again(x))
    assert not torch.allclose(first(x), other(x))
    plain = deasymmetrize(first)
    assert all("coset" not in type(module).__module__ for module in plain.modules())
    torch.testing.assert_close(plain(x), first(x))
    restored = asymmetrize(network(5), method, n_fix=3, seed=1, **options).eval()
    restored.load_state_dict(first.state_dict())
    assert torch.equal(restored(x), first(x))


def test_fixed_entries_stay_while_the_others_train():
    model = asymmetrize(network(), "w", n_fix=3, kappa=1.0)
    before = deasymmetrize(model)[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(8, 6)).square().sum().backward()
    optimizer.step()
    same = (deasymmetrize(model)[0].weight == before).sum(1)
    assert (same == 3).all()


def test_fixed_entries_leave_no_permutation_and_a_standard_network_keeps_all():
    spec = permutation_spec(network())
    assert len(surviving_symmetries(network(), spec)) == 2
    assert surviving_symmetries(asymmetrize(network(), "w", n_fix=3), spec) == []


def test_a_permuted_asymmetric_network_is_another_function():
    model = asymmetrize(network(norm=False), "w", n_fix=3).double().eval()
    x = torch.randn(4, 6, dtype=torch.float64)
    plain = deasymmetrize(model)
    spec = permutation_spec(plain)
    orders = NeuronPermutation(spec).sample(plain.state_dict(), torch.Generator().manual_seed(0))
    trainable = permute(spec, plain.state_dict(), orders)
    moved = copy.deepcopy(model)
    for name in ("0", "2", "4"):  # the constants stay where they are
        part = moved.get_submodule(name) if name in dict(moved.named_modules()) else None
        if isinstance(part, nn.Linear):
            part.weight = trainable[f"{name}.weight"]
    assert (moved(x) - model(x)).abs().max() > 1e-3


def test_many_networks_train_at_once_as_each_would_alone():
    inputs, targets = blobs()
    build, how = lambda: mlp(SIZES, norm=False), Training(epochs=3, batch_size=40, learning_rate=3e-3)
    model = build()
    both = train(model, initialise(build, model, [0, 1]), inputs, targets, how, seeds=[0, 1])
    alone = train(model, initialise(build, model, [1]), inputs, targets, how, seeds=[1])
    for name, value in alone.state.items():
        torch.testing.assert_close(both.state[name][1], value[0], rtol=1e-4, atol=1e-5)
    assert (both.history[-1] < both.history[0]).all()
    assert measure(model, both.state, (inputs, targets)).accuracy.min() > 0.6


def test_barriers_of_a_network_with_itself_permuted():
    """No barrier to itself; one to its own permuted copy, which matching takes away."""
    inputs, targets = blobs()
    build, how = lambda: mlp(SIZES, norm=False), Training(epochs=30, batch_size=40, learning_rate=3e-3)
    model = build()
    trained = train(model, initialise(build, model, [0]), inputs, targets, how, seeds=[0])
    state = trained.network(0).state_dict()
    assert abs(segment(model, state, state, (inputs, targets), points=5).barrier) < 1e-6
    spec = permutation_spec(model)
    orders = NeuronPermutation(spec).sample(state, torch.Generator().manual_seed(3))
    moved = permute(spec, state, orders)
    assert segment(model, state, moved, (inputs, targets), points=5).barrier > 0.01
    back = permute(spec, moved, weight_matching(spec, state, moved))
    assert abs(segment(model, state, back, (inputs, targets), points=5).barrier) < 1e-6


def test_monotonicity_by_hand():
    found = monotonicity(torch.tensor([4.0, 2.0, 1.0, 1.5]))
    assert found.largest_rise == pytest.approx(0.5)
    assert not found.monotone
    assert found.local_convexity == 1.0
    assert monotonicity(torch.tensor([3.0, 2.0, 1.0])).monotone


def test_affine_combinations():
    state = {"w": torch.tensor([[1.0, 2.0], [3.0, 6.0]]), "count": torch.tensor([4, 9])}
    mixed = combine(state, torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert torch.equal(mixed["w"], torch.tensor([[2.0, 4.0], [1.0, 2.0]]))
    assert mixed["count"].tolist() == [4, 4]


def test_mistakes_are_explained():
    with pytest.raises(CosetError, match="choose w or sigma"):
        asymmetrize(network(), "v")
    state = network().state_dict()
    with pytest.raises(CosetError, match="must be odd"):
        segment(network(), state, state, blobs(), points=4)


def test_the_shortcut_of_a_residual_block_is_a_strided_convolution():
    block = ResidualBlock(6, 12, 2).double()
    x = torch.randn(4, 6, 9, 9, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    convolution, norm = block.shortcut
    strided = norm(functional.conv2d(x, convolution.weight, stride=2))
    rest = block.norm2(block.conv2(block.act1(block.norm1(block.conv1(x)))))
    torch.testing.assert_close(block(x), (rest + strided).relu())
