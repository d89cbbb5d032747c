r"""Descent with weight decay for wide ReLU networks, in the space that their inputs span.

A stationary point has its first layer in the span of the inputs, because w_k = v_k sum_j c_j g_kj x_j, and decay takes
what the start has outside to nothing. The first layer is therefore trained on coordinates of the inputs there, which
is the same path: 49 numbers an image in place of 784 for fifty images of MNIST.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.privacy.models.classifiers import InvariantClassifier, ReLUNetwork
from coset.privacy.stationarity import LOSSES, Labels, homogeneity, known_loss, length_of, margins, milestone


def train_by_descent(
    model: nn.Module,
    x: Float[Tensor, "n d"],
    y: Labels,
    *,
    loss: str = "logistic",
    weight_decay: float = 1e-3,
    steps: int = 6000,
    learning_rate: float = 1.0,
    momentum: float = 0.9,
    progress: Callable[[], object] = lambda: None,
) -> list[dict[str, float]]:
    """Full-batch momentum descent on loss + (wd / 2) |theta|^2, rates falling to nothing along a cosine.

    ReLU networks end at kinks, where quasi-Newton steps stop and small steps settle. How near the end is, gates at
    kinks counted as they are, is what :func:`coset.privacy.stationarity_residual` tells.

    Args:
        model: Changed in place.
        x: All training inputs, one batch.
        y: -1 or 1; class numbers for ``ce``.
        loss: ``mse``, ``logistic`` or ``ce``.
        weight_decay: wd.
        steps: In all.
        learning_rate: Of the first step.
        momentum: Share of the last step that the next one keeps.
        progress: Called after each hundredth of the steps.

    Returns:
        A row for each hundredth of the steps: step, loss, the smallest margin; of homogeneous networks that margin over
        |theta|^degree, too.
    """
    objective, network = LOSSES[known_loss(loss)], _plain_network(model)
    trained, inputs, basis = (model, x, None) if network is None else _on_span(network, x)
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    trace: list[dict[str, float]] = []
    every, degree = max(1, steps // 100), homogeneity(trained, inputs)
    for step in range(steps + 1):
        out = trained(inputs)
        value = objective(out, y)
        if step % every == 0 or step == steps:
            least = float(margins(out.detach(), y).min())
            trace.append(milestone(step, float(value.detach()), least, length_of(parameters), degree))
            progress()
        if step == steps:
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / (steps + 1)))
        optimizer.step()
    if network is not None and basis is not None:
        _take_back(network, trained, basis)
    return trace


def _plain_network(model: nn.Module) -> ReLUNetwork | None:
    """The ReLU network behind a model without a group, all of whose first layer is trained."""
    if isinstance(model, InvariantClassifier) and len(model.group) == 1:
        model = model.base
    return model if isinstance(model, ReLUNetwork) and model.layers[0].weight.requires_grad else None


def _on_span(network: ReLUNetwork, x: Float[Tensor, "n d"]) -> tuple[nn.Module, Tensor, Tensor]:
    """The network on coordinates, the coordinates of the inputs, and the basis of their span."""
    _, sizes, vectors = torch.linalg.svd(x, full_matrices=False)
    basis = vectors[sizes > 1e-10 * sizes[0]].T
    linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    widths = [basis.size(1), *(layer.out_features for layer in linear)]
    small = ReLUNetwork(widths, bias=linear[0].bias is not None).to(x.dtype)
    state = dict(network.state_dict())
    state["layers.0.weight"] = state["layers.0.weight"] @ basis
    small.load_state_dict(state)
    for own, given in zip(small.parameters(), network.parameters(), strict=True):
        own.requires_grad_(given.requires_grad)
    return small, x @ basis, basis


def _take_back(network: ReLUNetwork, small: nn.Module, basis: Tensor) -> None:
    state = dict(small.state_dict())
    state["layers.0.weight"] = state["layers.0.weight"] @ basis.T
    network.load_state_dict(state)
