r"""Find the inputs behind the weights of a trained network.

Haim, Vardi, Yehudai, Shamir, Irani (NeurIPS 2022) look for candidates x_j and multipliers c_j with

    theta = sum_j c_j grad f(x_j)          (stationarity of margin maximisation, or of training with weight decay)

by gradient descent on the squared difference. Elbaz, Yehudai, Galun, Maron (arXiv 2411.16458) ask the same of networks
invariant under a group: each input is then known up to its orbit only, and descent drifts towards symmetric inputs.
Three ways against that, the first two of which are our reading of the paper's proposals (we had not its formulas):
``memory`` (a candidate keeps to one representative of its orbit), ``generator`` (candidates come out of a small random
network, which commutes with no group), ``isotypic`` (ours: the symmetric and the asymmetric part of the first layer's
residual count alike). Restarts run side by side. For networks of one hidden layer the equations are written out
(:mod:`coset.privacy.hidden_layer`): descent then makes the same steps several times faster, and ``gauss-newton``
solves them to the last digit after a short descent. ReLUs have a third way, ``differences``, without a search
(:mod:`coset.privacy.neuron_differences`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jvp, vmap

from coset.core.errors import CosetError
from coset.privacy.by_parts import solve_by_parts
from coset.privacy.groups import FiniteGroup
from coset.privacy.hidden_layer import HiddenLayer, hidden_layer_of
from coset.privacy.kinks import kinked
from coset.privacy.models.classifiers import with_surrogate
from coset.privacy.neuron_differences import by_differences
from coset.privacy.second_order import solve
from coset.privacy.stationarity import Labels, flat, margins, parameters_of

METHODS = ("kkt", "gauss-newton", "by-parts", "differences", "activation")
PRECISIONS = ("float64", "float32")
MOST_UNKNOWNS = 6000
"""Of second-order steps: their matrix takes 288 MB then."""


@dataclass(frozen=True)
class Attack:
    """How to look.

    Attributes:
        method: ``kkt``; ``gauss-newton``: the same equations by second-order steps after a short descent (one hidden
            layer); ``by-parts``: the same, one part of the group's action after the other, up to ``restarts`` starts of
            each (first-layer weights averaged over a group, as many candidates as inputs); ``differences`` of neurons
            (one hidden layer of ReLUs with biases, no group; only ``candidates`` counts); ``activation``: inputs that
            the network is surest of, without multipliers.
        candidates: m, as many of each label as of the others.
        restarts: Independent starts, side by side.
        steps: Of Adam, its rate falling to nothing along a cosine.
        learning_rate: Its first rate.
        start: Deviation of the first candidates.
        isotypic: Weight of the asymmetric part of the first layer's residual; 1 changes nothing.
        memory: Weight of the distance from the representative that a candidate has kept to so far; 0: none.
        generator: Whether candidates are outputs of small networks, in place of free pixels.
        box: Least and largest entry; beyond them candidates are penalised.
        alpha: Of the surrogate that stands in for ReLUs.
        least: Multipliers below it (times their label) are penalised; None for multipliers of any sign.
        part: Candidates whose gradients are held at a time: memory then does not grow with their number. None: all.
        prune: Share of the steps after which the half of the restarts with the larger residual is given up; 1: never.
        seed: Of the starts.
        precision: ``float64``, or ``float32`` (twice as fast or more; second-order steps stay in float64).
    """

    method: str = "kkt"
    candidates: int = 20
    restarts: int = 1
    steps: int = 3000
    learning_rate: float = 0.02
    start: float = 0.01
    isotypic: float = 1.0
    memory: float = 0.0
    generator: bool = False
    box: tuple[float, float] = (-1.0, 1.0)
    alpha: float = 50.0
    least: float | None = None
    part: int | None = None
    prune: float = 1.0
    seed: int = 0
    precision: str = "float64"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise CosetError(f"method {self.method!r}: choose {', '.join(METHODS)}")
        if self.precision not in PRECISIONS:
            raise CosetError(f"precision {self.precision!r}: choose {' or '.join(PRECISIONS)}")
        if min(self.candidates, self.restarts, self.steps) < 1 or self.isotypic <= 0 or self.memory < 0:
            raise CosetError("candidates, restarts and steps must be at least 1, isotypic above 0, memory at least 0")
        if not 0 < self.prune <= 1 or (self.part is not None and self.part < 1):
            raise CosetError(f"prune={self.prune!r} must be above 0 and at most 1, part={self.part!r} at least 1")


@dataclass(frozen=True)
class Reconstruction:
    """What was found, by restart.

    Attributes:
        candidates: Inputs.
        labels: -1 or 1, or class numbers; the same in every restart.
        multipliers: c_j, of margins if there are several classes; zeros for ``activation``.
        residual: |theta - sum_j c_j grad f(x_j)|^2 / |theta|^2 at the end.
        trace: A row now and then: step, the least residual, medians over all candidates of the symmetry index and the
            self-similarity.
    """

    candidates: Float[Tensor, "restarts m d"]
    labels: Labels
    multipliers: Float[Tensor, "restarts m"]
    residual: Float[Tensor, " restarts"]
    trace: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The restart of the least residual: chosen without any training data."""
        return int(self.residual.argmin())


def reconstruct(
    model: nn.Module,
    shape: int,
    attack: Attack,
    *,
    group: FiniteGroup | None = None,
    scale: float = 1.0,
    start: Float[Tensor, "restarts m d"] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Reconstruction:
    """Candidates for the training inputs of a classifier with one output, or one for each class.

    Args:
        model: In evaluation mode; left alone.
        shape: d, entries of an input.
        attack: How.
        group: Under which the model is invariant; needed by ``isotypic`` and ``memory``.
        scale: Size of multipliers to start from.
        start: First candidates, in place of random ones.
        progress: Called after each hundredth of the steps.

    Raises:
        CosetError: ``isotypic`` or ``memory`` without a group, a model without a first layer on d inputs, or
            ``gauss-newton`` on anything but one hidden layer, ``differences`` on anything but one of ReLUs.
    """
    if attack.method == "by-parts":
        return _by_parts(model, shape, attack, group, scale, progress)
    if attack.method == "differences":
        return _from_neurons(model, shape, attack, group, progress)
    if attack.method == "gauss-newton":
        return _solved(model, shape, attack, group, scale, start, progress)
    if group is None and (attack.isotypic != 1 or attack.memory):
        raise CosetError("isotypic and memory need the group under which the model is invariant")
    if attack.isotypic != 1 and _first_layer(parameters_of(model), shape) is None:
        raise CosetError(f"isotypic needs a first layer that reads the {shape} entries of an input; there is none")
    labels = _labels(model, shape, attack.candidates)
    smooth = with_surrogate(model, attack.alpha).eval().to(getattr(torch, attack.precision))
    objective = _Objective(smooth, shape, attack, labels, group, scale)
    state = _start(attack, shape, objective.signs, start)
    optimizer = torch.optim.Adam(state.values(), lr=attack.learning_rate)
    step_of = objective.fastest(hidden_layer_of(model, shape, attack.alpha))
    anchor = _Anchor(group, attack) if group is not None and attack.memory else None
    trace, every = [], max(1, attack.steps // 100)
    for step in range(attack.steps + 1):
        x = objective.inputs(state).detach()
        target = x if anchor is None else anchor.representatives(x)
        gradients, residual = step_of({name: value.detach() for name, value in state.items()}, target)
        if step % every == 0 or step == attack.steps:
            trace.append(_row(step, x, residual, group))
            progress()
        if step == attack.steps:
            break
        for name, value in state.items():
            value.grad = gradients[name]
        for part in optimizer.param_groups:
            part["lr"] = attack.learning_rate * 0.5 * (1 + math.cos(math.pi * step / attack.steps))
        optimizer.step()
        if step + 1 == round(attack.prune * attack.steps) and attack.prune < 1:
            kept = residual.nan_to_num(torch.inf).argsort()[: (len(residual) + 1) // 2].sort().values
            state, optimizer = _keep(kept, state, optimizer)
            if anchor is not None and anchor.kept is not None:
                anchor.kept = anchor.kept[kept]
    c = objective.coefficients(state).detach() if attack.method == "kkt" else torch.zeros(x.shape[:2])
    return Reconstruction(x.double(), labels, c.double(), residual.detach().double(), trace)


def _by_parts(
    model: nn.Module, d: int, attack: Attack, group: FiniteGroup | None, scale: float, progress: Callable[[], object]
) -> Reconstruction:
    """Second-order steps part by part: one set of candidates."""
    layer = hidden_layer_of(model, d)
    if layer is None:
        raise CosetError("by-parts is for networks of one hidden layer and one output: choose kkt for others")
    found = solve_by_parts(
        layer.to(torch.float64), attack.candidates, scale, starts=attack.restarts, seed=attack.seed, progress=progress
    )
    rows = [_row(step, found.x, torch.tensor(value), group) for step, value in enumerate(found.residual)]
    labels = torch.where(found.c > 0, 1.0, -1.0).double()
    residual = torch.tensor(found.residual[-1:], dtype=torch.float64)
    return Reconstruction(found.x.unsqueeze(0), labels, found.c.unsqueeze(0), residual, rows)


def _from_neurons(
    model: nn.Module, d: int, attack: Attack, group: FiniteGroup | None, progress: Callable[[], object]
) -> Reconstruction:
    """Differences of neurons: one set of candidates, those of label -1 first."""
    layer = hidden_layer_of(model, d)
    if layer is None or not kinked(layer):
        raise CosetError("differences are for networks of one hidden layer of ReLUs and one output: choose kkt")
    x, c = by_differences(layer.to(torch.float64), attack.candidates)
    smooth = hidden_layer_of(model, d, attack.alpha)
    assert smooth is not None
    residual = smooth.to(torch.float64).squares(x.unsqueeze(0), c.unsqueeze(0)) / layer.size
    progress()
    labels = torch.where(c > 0, 1.0, -1.0).double()
    return Reconstruction(x.unsqueeze(0), labels, c.unsqueeze(0), residual, [_row(0, x, residual, group)])


def _solved(
    model: nn.Module, d: int, attack: Attack, group: FiniteGroup | None, scale: float, start: Tensor | None,
    progress: Callable[[], object],
) -> Reconstruction:  # fmt: skip
    """Descent, then second-order steps from the restarts in the order of their residuals: the best of them alone."""
    layer = hidden_layer_of(model, d, attack.alpha)
    if layer is None:
        raise CosetError("gauss-newton is for networks of one hidden layer and one output: choose kkt for others")
    layer = layer.to(torch.float64)
    basis = layer.visible()
    unknowns = attack.candidates * (basis.size(1) + 1)
    if unknowns > MOST_UNKNOWNS:
        raise CosetError(
            f"gauss-newton for {attack.candidates} candidates in {basis.size(1)} dimensions has {unknowns} unknowns, "
            f"more than {MOST_UNKNOWNS}: ask for fewer candidates, or choose kkt"
        )
    warm = reconstruct(
        model, d, replace(attack, method="kkt"), group=group, scale=scale, start=start, progress=progress
    )
    order = warm.residual.argsort().tolist()
    found = solve(layer.on(basis), [(warm.candidates[r] @ basis, warm.multipliers[r]) for r in order])
    x, c = found.x @ basis.T, found.c
    rows = [_row(attack.steps + n, x, torch.tensor(value), group) for n, value in enumerate(found.residual, start=1)]
    residual = torch.tensor(found.residual[-1:], dtype=torch.float64)
    return Reconstruction(
        x.unsqueeze(0), torch.where(c > 0, 1.0, -1.0).double(), c.unsqueeze(0), residual, warm.trace + rows
    )


class _Objective:
    """What is made small, of one restart: a scalar, and the relative residual beside it."""

    def __init__(
        self, model: nn.Module, d: int, attack: Attack, labels: Tensor, group: FiniteGroup | None, scale: float
    ):
        dtype = getattr(torch, attack.precision)
        self.model, self.attack, self.scale = model, attack, scale
        self.labels = labels.to(dtype) if labels.is_floating_point() else labels
        # Multipliers of margins are positive; with one output, c_j has the sign of its label.
        self.signs = self.labels if labels.is_floating_point() else torch.ones(len(labels), dtype=dtype)
        self.parameters = parameters_of(model)
        self.size = flat(self.parameters).square().sum()
        self.first = _first_layer(self.parameters, d)
        self.weighting: Tensor | None = None
        if attack.isotypic != 1:
            assert group is not None
            symmetric = group.projector().to(dtype)
            self.weighting = symmetric + attack.isotypic**0.5 * (torch.eye(d, dtype=dtype) - symmetric)

    def __call__(self, state: dict[str, Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
        x, c = self.inputs(state), self.coefficients(state)
        total = self.penalties(x, c, target)
        if self.attack.method == "activation":
            out = functional_call(self.model, self.parameters, (x,))
            return total - margins(out, self.labels).mean(), torch.ones_like(total)
        found = grad(self.combined)(self.parameters, x, c, self.labels)
        left = {name: p - found[name] for name, p in self.parameters.items()}
        return total + self.weighed(left), _squares(left) / self.size

    def combined(self, parameters: dict[str, Tensor], x: Tensor, c: Tensor, labels: Tensor) -> Tensor:
        """sum_j c_j f(x_j), or of margins, whose gradient is to be the weights."""
        out = functional_call(self.model, parameters, (x,))
        return (c * (out if out.dim() == 1 else margins(out, labels))).sum()

    def penalties(self, x: Tensor, c: Tensor, target: Tensor) -> Tensor:
        """Of leaving the box, of multipliers that are too small, of leaving the representative kept to."""
        low, high = self.attack.box
        total = (x - high).relu().square().sum() + (low - x).relu().square().sum()
        if self.attack.memory:
            total = total + self.attack.memory * (x - target).square().sum()
        if self.attack.least is not None and self.attack.method == "kkt":
            total = total + 5 * (self.attack.least * self.scale - self.signs * c).relu().square().sum()
        return total

    def weighed(self, left: dict[str, Tensor]) -> Tensor:
        """|R|^2 of what is left of the weights, the asymmetric part of the first layer counted ``isotypic`` times."""
        residual = _squares(left)
        if self.weighting is None:
            return residual
        assert self.first is not None
        first = left[self.first]
        return residual - first.square().sum() + (first @ self.weighting).square().sum()

    def fastest(self, layer: HiddenLayer | None) -> Callable[[dict[str, Tensor], Tensor], Any]:
        """How steps are taken: by the equations of a hidden layer if there is one, a part of the candidates at a time
        if that was asked for, by differentiation of the whole otherwise."""
        if self.attack.method == "activation":
            return self.whole
        if self.attack.part is not None:
            return self.in_parts
        return (
            self.whole if layer is None else partial(self.written_out, layer.to(getattr(torch, self.attack.precision)))
        )

    def written_out(
        self, layer: HiddenLayer, state: dict[str, Tensor], target: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients and relative residuals of all restarts, by the equations of one hidden layer."""
        x, c = self.inputs(state), self.coefficients(state)
        to_x, to_c, squares = layer.gradient(x, c, self.weighting)
        low, high = self.attack.box
        to_x = to_x + 2 * (x - high).relu() - 2 * (low - x).relu() + 2 * self.attack.memory * (x - target)
        if self.attack.least is not None:
            to_c = to_c - 10 * self.signs * (self.attack.least * self.scale - self.signs * c).relu()
        gradients = {"x": to_x, "c": self.scale * to_c}
        if "x" not in state:
            leaves = {name: value.detach().requires_grad_() for name, value in state.items() if name != "c"}
            back = torch.autograd.grad(self.inputs(leaves), list(leaves.values()), to_x)
            gradients = dict(zip(leaves, back, strict=True)) | {"c": gradients["c"]}
        return gradients, squares / self.size

    def whole(self, state: dict[str, Tensor], target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients and relative residuals of all restarts, in one pass."""
        gradients, (_, residual) = vmap(grad_and_value(self, has_aux=True), in_dims=(0, 0))(state, target)
        return gradients, residual

    def in_parts(self, state: dict[str, Tensor], target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The same, a part of the candidates at a time.

        R = theta - sum_j c_j grad f(x_j) is summed up first, without a graph. With D = d|R|^2 / dR held fixed, the
        gradients of |R|^2 are those of -D . sum_j c_j grad f(x_j), a derivative of f along D, candidate by candidate.
        """
        assert self.attack.part is not None
        leaves = {name: value.detach().requires_grad_() for name, value in state.items()}
        x, c = self.inputs(leaves), self.coefficients(leaves)
        size = self.attack.part
        cuts = zip(x.detach().split(size, 1), c.detach().split(size, 1), self.labels.split(size), strict=True)
        parts = list(cuts)
        one = partial(grad(self.combined), self.parameters)
        left = {name: p.expand(len(x), *p.shape).clone() for name, p in self.parameters.items()}
        for part in parts:
            for name, value in vmap(one, in_dims=(0, 0, None))(*part).items():
                left[name] -= value.detach()
        slope = vmap(grad(self.weighed))(left)
        along = vmap(grad(self._along, argnums=(1, 2)), in_dims=(0, 0, 0, None))
        to_x, to_c = zip(*(along(slope, *part) for part in parts), strict=True)
        total = self.penalties(x, c, target) - (x * torch.cat(to_x, 1)).sum() - (c * torch.cat(to_c, 1)).sum()
        found = torch.autograd.grad(total, list(leaves.values()))
        return dict(zip(leaves, found, strict=True)), vmap(_squares)(left) / self.size

    def _along(self, direction: dict[str, Tensor], x: Tensor, c: Tensor, labels: Tensor) -> Tensor:
        return jvp(lambda p: self.combined(p, x, c, labels), (self.parameters,), (direction,))[1]

    def inputs(self, state: dict[str, Tensor]) -> Tensor:
        """Candidates [..., m, d] of a state."""
        if "x" in state:
            return state["x"]
        hidden = torch.einsum("...mi,...mij->...mj", state["z"], state["inner"])
        low, high = self.attack.box
        out = torch.einsum("...mj,...mjd->...md", torch.nn.functional.leaky_relu(hidden, 0.2), state["outer"])
        return low + (high - low) * torch.sigmoid(out)

    def coefficients(self, state: dict[str, Tensor]) -> Tensor:
        """c_j."""
        return self.scale * state["c"]


def _first_layer(parameters: dict[str, Tensor], d: int) -> str | None:
    return next((n for n, p in parameters.items() if p.dim() == 2 and p.size(1) == d), None)


def _labels(model: nn.Module, d: int, candidates: int) -> Tensor:
    """-1 and 1 with one output, class numbers with several; as many of each as of the others."""
    with torch.no_grad():
        out = model(torch.zeros(2, d, dtype=torch.float64))
    if out.dim() == 1:
        return torch.where(torch.arange(candidates) < candidates // 2, -1.0, 1.0).double()
    return torch.arange(candidates) * out.size(1) // candidates


def _squares(left: dict[str, Tensor]) -> Tensor:
    return torch.stack([r.square().sum() for r in left.values()]).sum()


def _keep(
    restarts: Tensor, state: dict[str, Any], optimizer: torch.optim.Adam
) -> tuple[dict[str, Any], torch.optim.Adam]:
    """State and optimiser of some of the restarts."""
    fewer = {name: value.detach()[restarts].clone().requires_grad_() for name, value in state.items()}
    other = torch.optim.Adam(fewer.values(), lr=optimizer.param_groups[0]["lr"])
    for name, value in state.items():
        moments = optimizer.state[value]
        other.state[fewer[name]] = {k: m[restarts].clone() if m.dim() else m for k, m in moments.items()}
    return fewer, other


class _Anchor:
    """A moving average of each candidate, over the representatives of its orbit nearest to it so far."""

    def __init__(self, group: FiniteGroup, attack: Attack, decay: float = 0.9):
        self.group, self.decay = group, decay
        self.inverse = torch.stack([row.argsort() for row in group.table])
        self.kept: Tensor | None = None

    def representatives(self, x: Float[Tensor, "restarts m d"]) -> Float[Tensor, "restarts m d"]:
        """g^-1 a for the g that brings x nearest to its anchor a, which then moves towards g x."""
        if self.kept is None:
            self.kept = x.clone()
            return x
        orbit = self.group.orbit(x)
        g = (orbit * self.kept.unsqueeze(-2)).sum(-1).argmax(-1)
        target = self.kept.gather(-1, self.inverse[g])
        moved = orbit.gather(-2, g[..., None, None].expand(*g.shape, 1, x.size(-1))).squeeze(-2)
        self.kept = self.decay * self.kept + (1 - self.decay) * moved
        return target


def _start(attack: Attack, d: int, signs: Tensor, start: Tensor | None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(attack.seed)
    shape, dtype = (attack.restarts, attack.candidates), getattr(torch, attack.precision)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*shape, *sizes, generator=generator, dtype=torch.float64).to(dtype)

    if attack.generator:
        code, hidden = 32, 64
        state = {"inner": normal(code, hidden) * code**-0.5, "outer": normal(hidden, d) * hidden**-0.5}
        state["z"] = normal(code)
    else:
        state = {"x": attack.start * normal(d) if start is None else start.to(dtype, copy=True)}
    state["c"] = signs.expand(shape).clone()
    return {name: value.requires_grad_() for name, value in state.items()}


def _row(step: int, x: Tensor, residual: Tensor, group: FiniteGroup | None) -> dict[str, float]:
    row = {"step": float(step), "residual": float(residual.min())}
    if group is not None and len(group) > 1:
        row["symmetry"] = float(group.symmetry_index(x).median())
        row["self_similarity"] = float(group.self_similarity(x).median())
    return row
