import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from coset.core.errors import CosetError
from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.asymmetric.bayesian import (
    VariationalLinear,
    VariationalTraining,
    calibration_error,
    divergence,
    predict,
    train_variational,
    variational,
)
from coset.weights.asymmetric.networks import mlp, seeded


def layer(rank: int, fixed: bool = False) -> VariationalLinear:
    linear = nn.Sequential(nn.Linear(2, 2))
    if fixed:
        linear = asymmetrize(linear, n_fix=1, kappa=5.0)
    return VariationalLinear(linear[0], rank, log_variance=-2.0, precision=0.5).double()


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_divergence_is_that_of_dense_gaussians(rank):
    found = layer(rank)
    mean, columns = found.entries()
    assert mean.numel() == 6
    identity = torch.eye(6, dtype=torch.float64)
    posterior = MultivariateNormal(mean, math.exp(-2) * identity + columns.T @ columns)
    wanted = kl_divergence(posterior, MultivariateNormal(torch.zeros_like(mean), identity / (0.5 * 2)))
    torch.testing.assert_close(found.divergence(), wanted, rtol=1e-6, atol=1e-9)


def test_a_divergence_by_hand():
    # One weight and one bias, means 0, s^2 = 1, prior variance 1: nothing. Means (1, 2): (1 + 4) / 2.
    linear = nn.Linear(1, 1)
    found = VariationalLinear(linear, 0, log_variance=0.0, precision=1.0)
    linear.weight.data.zero_()
    linear.bias.data.zero_()
    assert float(found.divergence().detach()) == pytest.approx(0)
    linear.weight.data.fill_(1)
    linear.bias.data.fill_(2)
    assert float(found.divergence().detach()) == pytest.approx(2.5)


def test_outputs_have_the_moments_of_the_posterior():
    torch.manual_seed(0)
    found = layer(2, fixed=True)
    x = torch.tensor([0.7, -1.3], dtype=torch.float64)
    y = found(x.expand(200_000, 2))
    free = found.trainable
    columns = [
        torch.cat([(v * free).flatten(), b]) / math.sqrt(2)
        for v, b in zip(found.factors, found.bias_factors, strict=True)
    ]
    dense = math.exp(-2) * torch.diag(torch.cat([free.flatten(), torch.ones(2)])) + sum(
        torch.outer(c, c) for c in columns
    )
    design = torch.cat([torch.kron(torch.eye(2, dtype=torch.float64), x[None]), torch.eye(2, dtype=torch.float64)], 1)
    torch.testing.assert_close(y.mean(0), found.mean(x), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(y.T), design @ dense @ design.T, atol=0.02, rtol=0.02)


def test_fixed_entries_have_no_variance():
    found = layer(2, fixed=True)
    assert found.entries()[0].numel() == 4  # of 6
    found.log_variance = -60.0
    found.bias_factors.data.zero_()
    with torch.no_grad():
        found.factors.copy_(1e3 * (1 - found.trainable))  # all of V where entries are fixed
        x = torch.randn(5, 2, dtype=torch.float64)
        torch.testing.assert_close(found(x), found.mean(x), atol=1e-9, rtol=0)


def test_without_variance_it_is_the_network():
    model = asymmetrize(mlp([6, 8, 3]), n_fix=2)
    x = torch.randn(6, 6)
    torch.testing.assert_close(variational(model, rank=0, log_variance=-60)(x), model(x))
    assert not any(isinstance(m, VariationalLinear) for m in model.modules())  # the original is left alone


def test_training_learns_repeats_itself_and_keeps_fixed_entries():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 3
    x = 3 * torch.eye(6)[y] + torch.randn(120, 6, generator=generator)
    build = lambda: variational(asymmetrize(mlp([6, 16, 3]), n_fix=3), rank=2)  # noqa: E731
    first, second = seeded(build, 0), seeded(build, 0)
    before = first.get_submodule("0").mean.weight[first.get_submodule("0").trainable == 0].clone()
    how = VariationalTraining(steps=150, batch_size=32, learning_rate=0.01)
    history = train_variational(first, x, y, how, seed=1)
    assert history == train_variational(second, x, y, how, seed=1)
    assert all(p.grad.isfinite().all() for p in first.parameters())
    assert torch.equal(first.get_submodule("0").mean.weight[first.get_submodule("0").trainable == 0], before)
    found = predict(first, x, y, samples=5)
    assert found.accuracy > 0.9
    assert found == predict(first, x, y, samples=5)
    assert 0 <= found.calibration <= 1
    assert float(divergence(first).detach()) > 0
    with pytest.raises(CosetError, match="diverged in step 1"):
        train_variational(first, x * torch.inf, y, how)


def test_calibration_by_hand():
    # One bin: two answers at confidence 0.8, one right: |1 - 1.6| / 2. Another: one at 1.0, right.
    found = calibration_error(torch.tensor([0.8, 0.8, 1.0]), torch.tensor([True, False, True]))
    assert found == pytest.approx(0.6 / 3)


def test_networks_that_cannot_be_variational():
    with pytest.raises(CosetError, match="has no Linear"):
        variational(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(CosetError, match="0: variational training needs Linear layers with a bias"):
        variational(nn.Sequential(nn.Linear(3, 3, bias=False)))
