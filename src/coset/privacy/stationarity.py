r"""Train to a stationary point of loss + (wd / 2) |theta|^2, and measure how close a network is to one.

There, whatever the network, theta = sum_i c_i grad f(x_i) with c_i = -loss'(f(x_i), y_i) / (n wd): the weights are a
sum over the training inputs, which is what a reconstruction takes apart. Labels y are -1 and 1 for networks of one
output, and class numbers (integers) for networks of several; margins are y f(x), and f_y(x) - max_{k != y} f_k(x)
(Buzaglo et al., "Deconstructing Data Reconstruction", NeurIPS 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from coset.core.errors import CosetError
from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.kinks import kinked, stationarity_at_kinks

Labels = Shaped[Tensor, " n"]
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda out, y: (out - y).square().mean(),
    "logistic": lambda out, y: F.softplus(-y * out).mean(),
    "ce": lambda out, y: F.cross_entropy(out, y),
}
"""Means over samples, of outputs and labels; ``ce`` for several outputs, the others for one."""


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """What was trained: only these obey the equation."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def flat(parameters: dict[str, Tensor]) -> Float[Tensor, " parameters"]:
    """All of them in one vector."""
    return torch.cat([p.reshape(-1) for p in parameters.values()])


def margins(out: Float[Tensor, "n ..."], y: Labels) -> Float[Tensor, " n"]:
    """By how much outputs are on the side of their labels.

    >>> margins(torch.tensor([[2.0, 1.0, -1.0], [2.0, 1.0, -1.0]]), torch.tensor([0, 2]))
    tensor([ 1., -3.])
    """
    if out.dim() == 1:
        return y * out
    own = torch.arange(out.size(-1), device=out.device) == y.unsqueeze(-1)
    return (out * own).sum(-1) - out.masked_fill(own, -torch.inf).amax(-1)


def closeness(loss: str, out: Float[Tensor, "n ..."], y: Labels) -> Float[Tensor, " n"]:
    """A number a sample that is the larger the smaller its loss is, and tells losses apart that round to 0.

    The margin of the logistic loss, f_y(x) - log sum_{k != y} exp f_k(x) of ``ce``: both losses are log(1 + exp(-it)).

    >>> closeness("mse", torch.tensor([3.0, 0.5]), torch.ones(2))
    tensor([-4.0000, -0.2500])
    """
    if known_loss(loss) == "mse":
        return -(out - y).square()
    if loss == "logistic":
        return margins(out, y)
    own = torch.arange(out.size(-1), device=out.device) == y.unsqueeze(-1)
    return (out * own).sum(-1) - out.masked_fill(own, -torch.inf).logsumexp(-1)


def multipliers(loss: str, out: Float[Tensor, "n ..."], y: Labels, weight_decay: float) -> Float[Tensor, "n ..."]:
    """c_i = -loss'(f(x_i), y_i) / (n wd) of a stationary point, one of each output.

    >>> multipliers("mse", torch.tensor([0.8]), torch.tensor([1.0]), 0.1)
    tensor([4.0000])
    >>> multipliers("logistic", torch.zeros(2), torch.ones(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    known_loss(loss)
    if loss == "ce":
        slope = F.one_hot(y, out.size(-1)) - out.softmax(-1)
    else:
        slope = 2 * (y - out) if loss == "mse" else y * torch.sigmoid(-y * out)
    return slope / (len(y) * weight_decay)


def train_to_stationarity(
    model: nn.Module,
    x: Float[Tensor, "n d"],
    y: Labels,
    *,
    loss: str = "mse",
    weight_decay: float = 1e-3,
    tolerance: float = 1e-7,
    iterations: int = 20_000,
) -> float:
    """L-BFGS until the gradient is ``tolerance`` of the decay term; returns the relative gradient reached.

    Args:
        model: Changed in place.
        x: All training inputs, one batch.
        y: -1 or 1; class numbers for ``ce``.
        loss: ``mse``, ``logistic`` or ``ce``.
        weight_decay: wd.
        tolerance: Of |gradient| / (wd |theta|).
        iterations: The most.
    """
    objective = LOSSES[known_loss(loss)]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(
        trained, max_iter=100, history_size=30, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = objective(model(x), y) + 0.5 * weight_decay * torch.stack([p.square().sum() for p in trained]).sum()
        total.backward()
        return total

    reached = float("inf")
    for _ in range(max(1, iterations // 100)):
        optimizer.step(closure)
        closure()
        norm = torch.stack([p.grad.square().sum() for p in trained if p.grad is not None]).sum().sqrt()
        reached = float(norm / (weight_decay * torch.stack([p.detach().square().sum() for p in trained]).sum().sqrt()))
        if reached <= tolerance:
            break
    optimizer.zero_grad()
    return reached


def train_to_margin(
    model: nn.Module,
    x: Float[Tensor, "n d"],
    y: Labels,
    *,
    steps: int = 6000,
    learning_rate: float = 0.01,
    sharpness: float = 100.0,
    progress: Callable[[], object] = lambda: None,
) -> list[dict[str, float]]:
    """Descent from a small start without weight decay, until the margin is as large as the weights' length allows.

    Homogeneous networks end, in direction, at weights that are a sum over the inputs of smallest margin (Lyu and Li,
    ICLR 2020); plain descent takes forever to get there, because gradients vanish with the loss. Two things keep the
    path and shorten the way: steps follow the gradient of the *logarithm* of the loss, and once every margin has
    reached ``sharpness`` the length of the weights is held, with rates falling to nothing. Where that ends,
    theta = sum_i c_i y_i grad f(x_i) with all c_i > 0.

    Args:
        model: Changed in place; homogeneous in its parameters.
        x: All training inputs, one batch.
        y: -1 or 1; class numbers with several outputs.
        steps: In all.
        learning_rate: Of the first step; it shrinks with the square of the weights' length.
        sharpness: Margin at which the length of the weights is held.
        progress: Called after each hundredth of the steps.

    Returns:
        A row for each hundredth of the steps: step, loss, the smallest margin, and that margin over
        |theta|^degree, which only grows where the theory holds.

    Raises:
        CosetError: The network is not homogeneous, or did not learn its training inputs.
    """
    degree = homogeneity(model, x)
    if degree is None:
        raise CosetError(
            "the network is not homogeneous in its parameters (biases beyond the first layer, normalisation, or gates "
            "other than ReLU): train it with weight decay"
        )
    trained = [p for p in model.parameters() if p.requires_grad]
    first = length = length_of(trained)
    held: float | None = None
    trace, every = [], max(1, steps // 100)
    for step in range(steps + 1):
        margin = margins(model(x), y)
        # log softplus(-m), which is -m where softplus would run out of digits
        each = torch.where(margin > 30, -margin, F.softplus(-margin.clamp(max=30)).log())
        objective = torch.logsumexp(each, 0) - math.log(len(y))
        least = float(margin.detach().min())
        if step % every == 0 or step == steps:
            trace.append(milestone(step, float(objective.detach().exp()), least, length, degree))
            progress()
        gradients = torch.autograd.grad(objective, trained)
        rate = learning_rate * (first / length) ** 2 * min(1.0, 2 * (1 - step / steps))
        with torch.no_grad():
            for p, g in zip(trained, gradients, strict=True):
                p.sub_(rate * g)
            length = length_of(trained)
            if held is None and least >= sharpness:
                held = length
            if held is not None:
                for p in trained:
                    p.mul_(held / length)
                length = held
    if trace[-1]["margin"] <= 0:
        raise CosetError(
            f"after {steps} steps some training inputs are misclassified: take more steps or a wider network"
        )
    return trace


def homogeneity(model: nn.Module, x: Float[Tensor, "n d"]) -> int | None:
    """L with f(a theta) = a^L f(theta) for a > 0; None if there is none."""
    parameters = parameters_of(model)
    with torch.no_grad():
        once, twice = (functional_call(model, {k: a * p for k, p in parameters.items()}, (x,)) for a in (1.0, 2.0))
    size = float(once.abs().max())
    if size == 0:
        return None
    degree = round(math.log2(max(float(twice.abs().max()) / size, 0.5)))
    close = torch.allclose(twice, 2.0**degree * once, rtol=1e-6, atol=1e-6 * size * 2.0**degree)
    return degree if degree > 0 and close else None


def milestone(step: int, loss: float, margin: float, length: float, degree: int | None) -> dict[str, float]:
    """A row of training's trace; ``relative``, the margin over |theta|^degree, of homogeneous networks alone.

    >>> milestone(60, 0.5, 4.0, 2.0, 2)
    {'step': 60, 'loss': 0.5, 'margin': 4.0, 'relative': 1.0}
    """
    row = {"step": step, "loss": loss, "margin": margin}
    return row if degree is None else row | {"relative": margin / length**degree}


def length_of(parameters: list[nn.Parameter]) -> float:
    """|theta|."""
    return float(torch.stack([p.detach().square().sum() for p in parameters]).sum().sqrt())


def stationarity_residual(
    model: nn.Module, x: Float[Tensor, "n d"], y: Labels, *, loss: str = "mse", weight_decay: float = 1e-3
) -> float:
    """|theta - sum_i c_i grad f(x_i)|^2 / |theta|^2 with the multipliers of the loss: 0 where training ended.

    Of one hidden layer of ReLUs the least over gates of inputs at kinks (:mod:`coset.privacy.kinks`).
    """
    parameters = parameters_of(model)
    with torch.no_grad():
        c = multipliers(loss, model(x), y, weight_decay)
    layer = hidden_layer_of(model, x.size(1)) if c.dim() == 1 else None
    if layer is not None and kinked(layer):
        return stationarity_at_kinks(layer, x, c).residual
    left = flat(parameters) - flat(weighted_gradient(model, parameters, x, c))
    return float(left.square().sum() / flat(parameters).square().sum())


def weighted_gradient(
    model: nn.Module, parameters: dict[str, Tensor], x: Float[Tensor, "m d"], c: Float[Tensor, "m ..."]
) -> dict[str, Tensor]:
    """sum_j c_j grad f(x_j), over outputs too if there are several, by one backward pass."""
    return grad(lambda p: (c * functional_call(model, p, (x,))).sum())(parameters)


def sample_gradients(
    model: nn.Module, x: Float[Tensor, "n d"], y: Labels | None = None
) -> Float[Tensor, "n parameters"]:
    """grad f(x_i) of every sample, a row each; with labels, of its margin."""
    parameters = parameters_of(model)

    def value(p: dict[str, Tensor], sample: Tensor, label: Tensor | None) -> Tensor:
        out = functional_call(model, p, (sample.unsqueeze(0),))
        return (out if label is None else margins(out, label.unsqueeze(0))).squeeze(0)

    rows = vmap(grad(value), in_dims=(None, 0, None if y is None else 0))(parameters, x, y)
    return torch.cat([rows[name].reshape(len(x), -1) for name in parameters], 1).detach()


def first_layer(model: nn.Module) -> Float[Tensor, "neurons inputs"]:
    """Weights of the first trained layer, a row each neuron, with its biases as a last column if it has any.

    Raises:
        CosetError: No parameter of the network is a matrix.
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.dim() >= 2:
            rows = weight.detach().flatten(1)
            bias = getattr(model.get_submodule(name.rpartition(".")[0]), "bias", None)
            return rows if bias is None else torch.cat([rows, bias.detach()[:, None].to(rows)], 1)
    raise CosetError("the network has no layer of weights")


def distinct_neurons(weight: Float[Tensor, "neurons inputs"], tolerance: float = 1e-3) -> int:
    """Directions among the rows of a first layer (biases as a column), rows of next to no length left out.

    Few of them mean few equations: zero reconstruction loss then says nothing about the inputs found.
    """
    length = weight.norm(dim=1)
    rows = weight[length > tolerance * length.max()]
    rows = rows / rows.norm(dim=1, keepdim=True)
    kept: list[Tensor] = []
    for row in rows:
        if all((row - other).norm() > 30 * tolerance for other in kept):
            kept.append(row)
    return len(kept)


def known_loss(loss: str) -> str:
    """The name of a loss, or a ``CosetError``."""
    if loss not in LOSSES:
        raise CosetError(f"loss {loss!r}: choose {', '.join(LOSSES)}")
    return loss
