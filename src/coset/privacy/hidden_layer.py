r"""The equations of one hidden layer, written out.

    f(x) = 1/|G| sum_g sum_k v_k s(w_k g x + b_k) + o

Where training with weight decay has ended, theta - sum_j c_j grad f(x_j) = 0, whose parts are

    R_w = w_k - v_k sum_j c_j mean_g s'(z_jgk) g x_j          R_v = v_k - sum_j c_j mean_g s(z_jgk)
    R_b = b_k - v_k sum_j c_j mean_g s'(z_jgk)                 R_o = o - sum_j c_j

for those of w, b, v, o that were trained. The gradient of |R|^2 in candidates and multipliers takes five matrix
products (a search by automatic differentiation makes the same steps in three to five times the time), and the
Jacobian of R is explicit too, which is what second-order steps (:mod:`coset.privacy.second_order`) and the count of
what is not determined (:mod:`coset.privacy.information`) rest on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coset.privacy.groups import FiniteGroup, LinearGroup, group_of
from coset.privacy.models.classifiers import InvariantClassifier, ReLUNetwork, SoftplusFeatures
from coset.privacy.models.modules import OnFlatInputs

Derivatives = tuple[Tensor, Tensor, Tensor]
"""s(z), s'(z), s''(z)."""


def softplus(z: Tensor, beta: float) -> Derivatives:
    """log(1 + exp(beta z)) / beta, and its derivatives."""
    gate = torch.sigmoid(beta * z)
    return F.softplus(z, beta), gate, beta * gate * (1 - gate)


def leaky_relu(z: Tensor, slope: float, alpha: float | None) -> Derivatives:
    """max(z, slope z); with ``alpha``, derivatives of the surrogate slope + (1 - slope) sigmoid(alpha z)."""
    if alpha is None:
        return F.leaky_relu(z, slope), torch.where(z > 0, 1.0, slope).to(z), torch.zeros_like(z)
    gate = torch.sigmoid(alpha * z)
    return F.leaky_relu(z, slope), slope + (1 - slope) * gate, (1 - slope) * alpha * gate * (1 - gate)


def tanh(z: Tensor) -> Derivatives:
    """tanh z, and its derivatives."""
    value = torch.tanh(z)
    slope = 1 - value.square()
    return value, slope, -2 * value * slope


def sigmoid(z: Tensor) -> Derivatives:
    """1 / (1 + exp(-z)), and its derivatives."""
    value = torch.sigmoid(z)
    slope = value * (1 - value)
    return value, slope, slope * (1 - 2 * value)


def silu(z: Tensor) -> Derivatives:
    """z / (1 + exp(-z)), and its derivatives."""
    gate = torch.sigmoid(z)
    bend = gate * (1 - gate)
    return z * gate, gate + z * bend, bend * (2 + z * (1 - 2 * gate))


@dataclass(frozen=True)
class HiddenLayer:
    """A network of one hidden layer and one output, averaged over a group.

    Attributes:
        weight: w_k.
        bias: b_k.
        value: v_k.
        offset: o.
        trained: Which of ``weight``, ``bias``, ``value``, ``offset`` obey the equations.
        activation: s and its derivatives.
        group: G.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    value: Float[Tensor, " k"]
    offset: Float[Tensor, ""]
    trained: frozenset[str]
    activation: Callable[[Tensor], Derivatives]
    group: FiniteGroup | LinearGroup

    @property
    def size(self) -> float:
        """|theta|^2 of what was trained."""
        return float(sum(getattr(self, name).square().sum() for name in self.trained))

    def to(self, dtype: torch.dtype) -> HiddenLayer:
        """The same in another precision."""
        weight, bias, value, offset = (p.to(dtype) for p in (self.weight, self.bias, self.value, self.offset))
        return HiddenLayer(weight, bias, value, offset, self.trained, self.activation, self.group)

    def visible(self, tolerance: float = 1e-6) -> Float[Tensor, "d r"]:
        """An orthonormal basis of what the weights, moved by every group element, span.

        Weights at a stationary point are sums of g x_i, so that the inputs behind them can be looked for here: what
        they have outside must be nothing, or leaves no trace. Without a group r is at most the number of training
        inputs.

        Args:
            tolerance: Least singular value that counts, as a share of the largest.
        """
        every = self.group.back(self.weight.double()).flatten(0, 1) if len(self.group) > 1 else self.weight.double()
        values, vectors = torch.linalg.eigh(every.T @ every)
        return vectors[:, values > tolerance**2 * values[-1]].flip(1)

    def on(self, basis: Float[Tensor, "d r"]) -> HiddenLayer:
        """The same network on coordinates in a basis of :meth:`visible`."""
        assert isinstance(self.group, FiniteGroup)
        group = LinearGroup(torch.eye(basis.size(1)).unsqueeze(0), "") if len(self.group) == 1 else self.group.on(basis)
        parts = (self.weight @ basis.to(self.weight), self.bias, self.value, self.offset)
        return HiddenLayer(*parts, self.trained, self.activation, group)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """f(x)."""
        gates = self.activation(F.linear(self.group.orbit(x), self.weight, self.bias))
        return (gates[0] @ self.value).mean(-1) + self.offset

    def residual(self, x: Float[Tensor, "*r m d"], c: Float[Tensor, "*r m"]) -> dict[str, Tensor]:
        """R, part by part."""
        return self._left(self._gates(x), c)

    def squares(self, x: Float[Tensor, "*r m d"], c: Float[Tensor, "*r m"]) -> Float[Tensor, "*r"]:
        """|R|^2."""
        left, batch = self.residual(x, c), c.dim() - 1
        return sum((r.square().flatten(batch).sum(-1) for r in left.values()), torch.zeros((), dtype=x.dtype))

    def gradient(
        self, x: Float[Tensor, "r m d"], c: Float[Tensor, "r m"], weighting: Float[Tensor, "d d"] | None = None
    ) -> tuple[Float[Tensor, "r m d"], Float[Tensor, "r m"], Float[Tensor, " r"]]:
        """Gradients of |R|^2 in candidates and multipliers, and |R|^2.

        Args:
            x: Candidates of each restart.
            c: Their multipliers.
            weighting: |R_w M|^2 in place of |R_w|^2 is differentiated; |R|^2 is returned without it.
        """
        gates = self._gates(x)
        orbit, s0, s1, s2 = gates
        left = self._left(gates, c)
        size = sum((r.square().flatten(1).sum(-1) for r in left.values()), torch.zeros((), dtype=x.dtype))
        share = c.repeat_interleave(len(self.group), 1) / len(self.group)
        slope, bend = torch.zeros_like(s1), torch.zeros_like(s1)
        if "weight" in left:
            along = left["weight"] if weighting is None else left["weight"] @ (weighting @ weighting.T)
            slope = torch.bmm(orbit, along.transpose(1, 2))
        if "bias" in left:
            slope = slope + left["bias"].unsqueeze(1)
        slope = slope * self.value
        to_c = (s1 * slope).sum(-1)
        if "value" in left:
            bend = s1 * left["value"].unsqueeze(1)
            to_c = to_c + (s0 @ left["value"].unsqueeze(-1)).squeeze(-1)
        to_c = -2 * to_c.view(*c.shape, len(self.group)).mean(-1)
        if "offset" in left:
            to_c = to_c - 2 * left["offset"]
        to_x = (s2 * slope + bend) @ self.weight
        if "weight" in left:
            to_x = to_x + torch.bmm(s1 * self.value, along)
        return self._folded(-2 * share.unsqueeze(-1) * to_x, x.shape), to_c, size

    def jacobian(
        self, x: Float[Tensor, "m d"], c: Float[Tensor, " m"], mixing: Float[Tensor, "q k"] | None = None
    ) -> Float[Tensor, "rows unknowns"]:
        """dR / d(x, c), a column each entry of x, then of c; rows are those of w, b, v and o.

        Args:
            x: Candidates.
            c: Multipliers.
            mixing: Combinations of neurons whose rows are wanted, in place of all of them.
        """
        order, (m, d) = len(self.group), x.shape
        orbit, s0, s1, s2 = (part.squeeze(0) for part in self._gates(x.unsqueeze(0)))
        mix = torch.eye(len(self.weight), dtype=x.dtype) if mixing is None else mixing
        q = len(mix)
        orbit, s0, s1, s2 = (part.view(m, order, -1) for part in (orbit, s0, s1, s2))
        moved = self.group.back(self.weight).transpose(0, 1)
        bent = torch.einsum("qk,mgk,gkd->mgqd", mix * self.value, s2, moved)
        open_ = torch.einsum("qk,mgk->mgq", mix * self.value, s1)
        rows = []
        if "weight" in self.trained:
            to_x = torch.einsum("mgqe,mga->qame", bent, orbit)
            to_x += torch.einsum("mgq,gae->qame", open_, self.group.matrices(x.dtype))
            to_c = torch.einsum("mgq,mga->qam", open_, orbit)
            rows.append(self._rows(to_x.reshape(q * d, m, d), to_c.reshape(q * d, m), c))
        if "bias" in self.trained:
            rows.append(self._rows(bent.sum(1).permute(1, 0, 2), open_.sum(1).T, c))
        if "value" in self.trained:
            to_x = torch.einsum("qk,mgk,gkd->qmd", mix, s1, moved)
            rows.append(self._rows(to_x, torch.einsum("qk,mgk->qm", mix, s0), c))
        if "offset" in self.trained:
            none, all_of_them = torch.zeros(1, m, d, dtype=x.dtype), torch.full((1, m), float(order), dtype=x.dtype)
            rows.append(self._rows(none, all_of_them, c))
        return torch.cat(rows)

    def products(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
        """Inner products of the gradients grad f(x_i) with each other, and with the weights."""
        order, n = len(self.group), len(x)
        orbit, s0, s1, _ = self._gates(x)
        z = F.linear(orbit, self.weight)
        slope = s1 * self.value
        gram, along = torch.zeros(n * order, n * order).to(x), torch.zeros(n * order).to(x)
        if {"weight", "bias"} & self.trained:
            inputs = (orbit @ orbit.T) * ("weight" in self.trained) + float("bias" in self.trained)
            gram += (slope @ slope.T) * inputs
            along += (slope * (z * ("weight" in self.trained) + self.bias * ("bias" in self.trained))).sum(1)
        if "value" in self.trained:
            gram += s0 @ s0.T
            along += s0 @ self.value
        if "offset" in self.trained:
            gram += 1
            along += self.offset
        return gram.view(n, order, n, order).mean((1, 3)), along.view(n, order).mean(1)

    def _rows(self, to_x: Tensor, to_c: Tensor, c: Tensor) -> Tensor:
        """Derivatives of -sum_j c_j mean_g (...) from sums over g of one sample's."""
        return -torch.cat([(to_x * c[:, None]).flatten(1), to_c], 1) / len(self.group)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Orbits [..., m |G|, d] of candidates, and s, s', s'' of all neurons on them."""
        orbit = self.group.orbit(x).flatten(-3, -2) if len(self.group) > 1 else x
        return orbit, *self.activation(F.linear(orbit, self.weight, self.bias))

    def _left(self, gates: tuple[Tensor, Tensor, Tensor, Tensor], c: Tensor) -> dict[str, Tensor]:
        orbit, s0, s1, _ = gates
        order = len(self.group)
        share = (c.repeat_interleave(order, -1) / order).unsqueeze(-1)
        left = {}
        if "weight" in self.trained:
            left["weight"] = self.weight - (share * s1 * self.value).transpose(-2, -1) @ orbit
        if "bias" in self.trained:
            left["bias"] = self.bias - (share * s1).sum(-2) * self.value
        if "value" in self.trained:
            left["value"] = self.value - (share * s0).sum(-2)
        if "offset" in self.trained:
            left["offset"] = self.offset - c.sum(-1, keepdim=True)
        return left

    def _folded(self, to_orbit: Tensor, shape: torch.Size) -> Tensor:
        """sum_g g^-1 of what belongs to g x."""
        if len(self.group) == 1:
            return to_orbit
        return self.group.folded(to_orbit.view(*shape[:2], len(self.group), shape[2]))


def hidden_layer_of(model: nn.Module, inputs: int, alpha: float | None = None) -> HiddenLayer | None:
    """The equations of a network that has one hidden layer and one output; None of any other.

    Read are :class:`SoftplusFeatures`, :class:`ReLUNetwork` and ``Sequential(Flatten?, Linear, activation, Linear)``,
    alone, on flat inputs, or averaged over a group; what was read is held against the model on random inputs.

    Args:
        model: The network.
        inputs: d.
        alpha: Of the surrogate derivative of ReLUs; None for their own.
    """
    group = group_of("plain", (inputs,))
    base = model
    if isinstance(base, InvariantClassifier):
        if base.average:
            group = base.group
        base = base.base
    if isinstance(base, OnFlatInputs):
        base = base.model
    if isinstance(base, nn.Sequential) and len(parts := _computing(base)) == 1:
        base = parts[0]
    found = _of_features(base, group) if isinstance(base, SoftplusFeatures) else _of_layers(base, group, alpha)
    if found is None or found.weight.size(1) != inputs:
        return None
    x = torch.randn(5, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(found.weight)
    with torch.no_grad():
        out = model(x)
        same = out.shape == (5,) and torch.allclose(out, found.forward(x), rtol=1e-5, atol=1e-6)
    return found if same else None


def _of_features(base: SoftplusFeatures, group: FiniteGroup) -> HiddenLayer:
    trained = frozenset({"weight"}) if base.weight.requires_grad else frozenset[str]()
    weight = base.weight.detach()
    return HiddenLayer(
        weight, base.bias, base.value, weight.new_zeros(()), trained, partial(softplus, beta=base.beta), group
    )


def _of_layers(base: nn.Module, group: FiniteGroup, alpha: float | None) -> HiddenLayer | None:
    layers = base.layers if isinstance(base, ReLUNetwork) else base
    if not isinstance(layers, nn.Sequential):
        return None
    parts = _computing(layers)
    if len(parts) != 3 or not isinstance(parts[0], nn.Linear) or not isinstance(parts[2], nn.Linear):
        return None
    activation = _activation(parts[1], alpha)
    if activation is None or parts[2].out_features != 1:
        return None
    first, last = parts[0], parts[2]
    given = {"weight": first.weight, "bias": first.bias, "value": last.weight, "offset": last.bias}
    trained = frozenset(name for name, p in given.items() if p is not None and p.requires_grad)
    weight = first.weight.detach()
    bias = weight.new_zeros(len(weight)) if first.bias is None else first.bias.detach()
    offset = weight.new_zeros(()) if last.bias is None else last.bias.detach()[0]
    return HiddenLayer(weight, bias, last.weight.detach()[0], offset, trained, activation, group)


def _computing(layers: nn.Sequential) -> list[nn.Module]:
    """Those that do something to flat inputs."""
    return [layer for layer in layers if not isinstance(layer, nn.Flatten | nn.Identity)]


def _activation(module: nn.Module, alpha: float | None) -> Callable[[Tensor], Derivatives] | None:
    if isinstance(module, nn.Softplus):
        return partial(softplus, beta=module.beta)
    if isinstance(module, nn.ReLU | nn.LeakyReLU):
        slope = module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0
        return partial(leaky_relu, slope=slope, alpha=alpha)
    known: dict[type[nn.Module], Callable[[Tensor], Derivatives]] = {
        nn.Tanh: tanh, nn.Sigmoid: sigmoid, nn.SiLU: silu,
    }  # fmt: skip
    return known.get(type(module))
