import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coset.nn import MLP, CategoricalEncoder, mlp, norm_of_repeated, norm_relu_linear


@pytest.mark.parametrize("training", [True, False])
def test_norm_relu_linear_equals_its_parts(training):
    torch.manual_seed(0)
    x = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    norm, linear = nn.BatchNorm1d(5).double().train(training), nn.Linear(5, 3).double()
    other = nn.BatchNorm1d(5).double().train(training)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    other.load_state_dict(norm.state_dict())
    results = []
    for function, n in ((lambda: norm_relu_linear(x, norm, linear), norm), (lambda: linear(F.relu(other(x))), other)):
        out = function()
        grads = torch.autograd.grad(out.square().sum(), [x, n.weight, n.bias, linear.weight, linear.bias])
        results.append((out, *grads, n.running_mean, n.running_var))
    for ours, reference in zip(*results):
        assert torch.allclose(ours, reference, atol=1e-12)


def test_gradcheck():
    norm, linear = nn.BatchNorm1d(3).double(), nn.Linear(3, 2).double()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: norm_relu_linear(x, norm, linear), x)


def test_one_row_in_training_is_refused():
    with pytest.raises(ValueError, match="at least two rows"):
        MLP(3, 2)(torch.randn(1, 3))


def test_category_outside_its_table_is_named():
    with pytest.raises(ValueError, match="column 1 holds 0 to 9, but its table has categories 0 to 3"):
        CategoricalEncoder([2, 4], 8)(torch.tensor([[0, 0], [1, 9]]))


@pytest.mark.parametrize("training", [True, False])
def test_norm_of_rows_that_repeat(training):
    """The same rows, gradients and running statistics as with the rows written down as often as they count."""
    torch.manual_seed(0)
    times = torch.tensor([3, 1, 4])
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 5, dtype=torch.float64)
    results = []
    for repeated in (True, False):
        norm = nn.BatchNorm1d(5).double().train(training)
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        if repeated:
            y = norm(x.repeat_interleave(times, dim=0))[[0, 3, 4]]
        else:
            y = norm_of_repeated(norm, x, times, int(times.sum()))
        gradients = torch.autograd.grad((y * weight).sum(), [x, norm.weight, norm.bias])
        results.append((y, *gradients, *norm.buffers()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_norm_of_one_row_once():
    with pytest.raises(ValueError, match="at least two rows"):
        norm_of_repeated(nn.BatchNorm1d(2), torch.ones(1, 2), torch.tensor([1]), 1)


@pytest.mark.parametrize(("device", "kept"), [("cpu", "_NormReLULinearBackward"), ("cuda", "AddmmBackward0")])
def test_autocast_is_asked_of_the_tensors_own_device(device, kept, monkeypatch):
    """Under CUDA's autocast, norm and linear map stay apart for a tensor that says it is there, and only then."""
    x = torch.randn(5, 4, requires_grad=True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(mlp, "_device_type", lambda tensor: device)
    assert type(norm_relu_linear(x, nn.BatchNorm1d(4), nn.Linear(4, 3)).grad_fn).__name__ == kept
