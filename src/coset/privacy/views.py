r"""The equations of an averaged network in what its neurons see: fewer rows, and an orbit shortened to what differs.

A neuron that the subgroup H leaves as it is sees x through the vectors y_g = B^T g x alone, B an orthonormal basis of
what H leaves as it is, and elements g that differ by H on the left give the same y_g. With w = B^T w_k its equations
are

    w - v_k sum_j c_j mean_g s'(w y_jg + b_k) y_jg = 0,         g over one element of each coset

dim B equations in place of d, and |G| / |H| elements in place of |G|. Most neurons of networks trained with decay are
symmetric (:mod:`coset.privacy.deletion`): steps of second order then take a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.privacy.deletion import stabilisers
from coset.privacy.hidden_layer import Derivatives, HiddenLayer
from coset.privacy.irreps import Part

SEEN = 1e-6
"""Length of a projection below which a neuron, or the weights, do not see a part."""


@dataclass(frozen=True)
class View:
    """Neurons with one stabiliser H.

    Attributes:
        parts: Numbers of the parts of the action that have vectors fixed under H.
        weight: B^T w_k.
        bias: b_k.
        value: v_k.
        moved: B^T g, of one g of each coset.
        activation: s and its derivatives.
    """

    parts: frozenset[int]
    weight: Float[Tensor, "k r"]
    bias: Float[Tensor, " k"]
    value: Float[Tensor, " k"]
    moved: Float[Tensor, "cosets r d"]
    activation: Callable[[Tensor], Derivatives]

    def residual(self, x: Float[Tensor, "m d"], c: Float[Tensor, " m"]) -> Float[Tensor, "k r"]:
        """R_w in the coordinates of B."""
        seen = torch.einsum("grd,md->mgr", self.moved, x)
        gates = self.activation(seen @ self.weight.T + self.bias)[1]
        return self.weight - self.value[:, None] * torch.einsum("m,mgk,mgr->kr", c / len(self.moved), gates, seen)

    def jacobian(
        self, x: Float[Tensor, "m d"], c: Float[Tensor, " m"], basis: Float[Tensor, "d e"]
    ) -> tuple[Float[Tensor, "rows m_e"], Float[Tensor, "rows m"]]:
        """dR / dx along a basis, and dR / dc; a row each neuron and coordinate of B."""
        seen, moved = torch.einsum("grd,md->mgr", self.moved, x), self.moved @ basis
        _, gates, bends = self.activation(seen @ self.weight.T + self.bias)
        (k, r), e, m = self.weight.shape, basis.size(1), len(x)
        share = -self.value / len(self.moved)
        # s'' y_jg (w B^T g)  +  s' B^T g, summed over g
        along = torch.einsum("mgk,gke->mkge", bends * share, torch.einsum("kr,gre->gke", self.weight, moved))
        to_x = torch.matmul(seen.transpose(1, 2).unsqueeze(1), along)  # m, k, r, e
        to_x += ((gates * share).transpose(1, 2).reshape(m * k, -1) @ moved.flatten(1)).view(m, k, r, e)
        to_c = torch.einsum("mgk,mgr->krm", gates * share, seen)
        return (to_x * c[:, None, None, None]).permute(1, 2, 0, 3).reshape(k * r, m * e), to_c.reshape(k * r, m)


def views_of(layer: HiddenLayer, parts: Sequence[Part]) -> list[View]:
    """All neurons of a network whose first layer's weights alone were trained, by what they see.

    Args:
        layer: The equations, over a finite group.
        parts: Of its action.
    """
    fixed = stabilisers(layer).double()
    patterns, which = (fixed / fixed.sum(1, keepdim=True)).unique(dim=0, return_inverse=True)
    matrices = layer.group.matrices()
    found = []
    for number, mean in enumerate(torch.einsum("kg,gab->kab", patterns, matrices)):
        vectors, sizes, _ = torch.linalg.svd(mean)
        basis, rows = vectors[:, sizes > 0.5], which == number
        seen = frozenset(p for p, part in enumerate(parts) if float((mean @ part.basis).norm()) > SEEN)
        moved = basis.T @ matrices
        found.append(
            View(seen, layer.weight[rows] @ basis, layer.bias[rows], layer.value[rows], moved[_cosets(moved)],
                 layer.activation)
        )  # fmt: skip
    return found


def _cosets(moved: Float[Tensor, "order r d"]) -> Bool[Tensor, " order"]:
    """The first element of each coset: those whose matrices are unlike all before."""
    flat = moved.flatten(1)
    same = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") < SEEN
    return ~same.tril(-1).any(1)


def squares(views: Sequence[View], x: Float[Tensor, "m d"], c: Float[Tensor, " m"]) -> float:
    """|R|^2 of some neurons."""
    return sum(float(view.residual(x, c).square().sum()) for view in views)


def normal_equations(
    views: Sequence[View], x: Float[Tensor, "m d"], c: Float[Tensor, " m"], basis: Float[Tensor, "d e"],
    scale: float | None = None,
) -> tuple[Float[Tensor, "unknowns unknowns"], Float[Tensor, " unknowns"]]:  # fmt: skip
    """J^T J and J^T R in the coordinates of all x in a basis, and with a scale in multipliers of that unit as well."""
    unknowns = len(x) * (basis.size(1) + (scale is not None))
    matrix, slope = x.new_zeros(unknowns, unknowns), x.new_zeros(unknowns)
    for view in views:
        to_x, to_c = view.jacobian(x, c, basis)
        rows = to_x if scale is None else torch.cat([to_x, scale * to_c], 1)
        matrix.addmm_(rows.T, rows)
        slope.addmv_(rows.T, view.residual(x, c).flatten())
    return matrix, slope
