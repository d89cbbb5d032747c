"""What a model of one's own gives away of the data it was trained on, in one call.

The weights come as safetensors. A network is described in words (its sizes and group), so that nothing has to be
unpickled: :class:`ReLUNetwork` averaged over a group. Any other ``nn.Module`` with one output goes through
:func:`audit` in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.outside import read_arrays, read_tensors
from coset.privacy.attribution import Attribution, attribute, explained_by_shuffled_labels, membership_auc
from coset.privacy.groups import FiniteGroup, group_of
from coset.privacy.models.classifiers import InvariantClassifier, ReLUNetwork
from coset.privacy.reconstruction import Attack, Reconstruction, reconstruct
from coset.privacy.scores import Scores, score
from coset.privacy.stationarity import distinct_neurons, first_layer, margins, stationarity_residual


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        scores: Of the best restart's candidates against training and held-out inputs.
        found: The reconstruction.
        attribution: Multipliers of training, then held-out inputs.
        explained: Share of the weights that the training inputs explain alone; ``held_out``: as many others;
            ``shuffled``: the training inputs with their labels in 20 random orders, the largest.
        membership: AUC of multipliers, and of the loss, at telling training from held-out inputs.
        residual: How far the weights are from a stationary point on the training data, if the weight decay is known.
        warnings: Why the numbers may say less than they seem to.
    """

    scores: Scores
    found: Reconstruction
    attribution: Attribution
    explained: dict[str, float]
    membership: dict[str, float]
    residual: float | None
    warnings: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, float]:
        """The main ones, with what they say."""
        return {
            "training inputs recognised (correlation above 0.9)": float(self.scores.recognised()),
            "mean best correlation": self.scores.mean, "the same, of held-out inputs": float(self.scores.null.mean()),
            "p-value": self.scores.p_value, "weights explained by the training inputs": self.explained["train"],
            "by as many held-out inputs": self.explained["held_out"],
            "by training inputs with shuffled labels (largest of 20)": self.explained["shuffled"],
            "membership AUC, multipliers": self.membership["multipliers"],
            "membership AUC, loss": self.membership["loss"],
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Numbers and warnings."""
        return {
            "reconstruction": self.scores.summary(), "membership_auc": self.membership,
            "explained": self.explained, "residual_of_the_truth": self.residual,
            "reconstruction_residual": float(self.found.residual.min()),
            "warnings": self.warnings,
        }  # fmt: skip


def audit(
    model: nn.Module,
    train: tuple[Float[Tensor, "n d"], Shaped[Tensor, " n"]],
    held_out: tuple[Float[Tensor, "k d"], Shaped[Tensor, " k"]],
    *,
    group: FiniteGroup | None = None,
    loss: str = "logistic",
    weight_decay: float | None = None,
    attack: Attack | None = None,
    picture: tuple[int, int] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Audit:
    """Reconstruct, attribute, and judge both against inputs that the model never saw.

    Args:
        model: One output, or one for each class; in evaluation mode, float64 is used.
        train: Inputs and labels that it was trained on: -1 or 1, or class numbers (integers) with several outputs.
        held_out: The same of the same kind that it never saw, at least as many.
        group: Under which it is invariant; checked.
        loss: ``mse``, ``logistic`` or ``ce`` (several outputs).
        weight_decay: If it was trained with some.
        attack: How to look; two candidates a training input and 3,000 steps by default.
        picture: Height and width, if inputs are images.
        progress: Called now and then.

    Raises:
        CosetError: The model is outside of what the theory covers, or the group is none of its symmetries.
    """
    model = model.double()
    classes = None if train[1].is_floating_point() else 1 + int(torch.cat([train[1], held_out[1]]).max())
    warnings = examine(model, train[0], group, classes)
    group = group or group_of("plain", (train[0].size(1),))
    attack = attack or Attack(candidates=2 * len(train[0]), least=0.1)
    warnings += _too_few_neurons(model, train[0])
    found = reconstruct(
        model, train[0].size(1), attack, group=group, scale=_scale(model, train, attack), progress=progress
    )
    scores = score(found.candidates[found.best], train[0], held_out[0], group, picture)
    everything = torch.cat([train[0], held_out[0]]), torch.cat([train[1], held_out[1]])
    attribution = attribute(model, *everything)
    residual = None
    if weight_decay:
        residual = stationarity_residual(model, *train, loss=loss, weight_decay=weight_decay)
        warnings += _not_stationary(residual)
    membership = _membership(model, everything, attribution, len(train[0]))
    return Audit(scores, found, attribution, _explained(model, train, held_out), membership, residual, warnings)


def _too_few_neurons(model: nn.Module, x: Float[Tensor, "n d"]) -> list[str]:
    first = first_layer(model)
    neurons = distinct_neurons(first)
    if neurons * first.size(1) >= len(x) * (x.size(1) + 1):
        return []
    return [
        f"{neurons} distinct neurons are too few equations for {len(x)} inputs: a small residual of the reconstruction "
        "means little"
    ]


def _not_stationary(residual: float) -> list[str]:
    if residual <= 0.01:
        return []
    return [
        f"the weights are no stationary point on the training data (relative residual {residual:.2g}): training "
        "stopped early, used Adam, or the weight decay is another; the attack's premise fails"
    ]


def _membership(model: nn.Module, inputs: tuple[Tensor, Tensor], attribution: Attribution, n: int) -> dict[str, float]:
    """AUC of multipliers and of the loss at telling the first n inputs from the others."""
    with torch.no_grad():
        margin = margins(model(inputs[0]), inputs[1])
    return {
        "multipliers": membership_auc(attribution.multipliers[:n], attribution.multipliers[n:]),
        "loss": membership_auc(margin[:n], margin[n:]),
    }


def _explained(model: nn.Module, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Share of the weights that the training inputs explain, as many held-out ones, and shuffled labels."""
    n = len(train[0])
    return {
        "train": attribute(model, *train).explained,
        "held_out": attribute(model, held_out[0][:n], held_out[1][:n]).explained,
        "shuffled": float(explained_by_shuffled_labels(model, *train).max()),
    }


def examine(
    model: nn.Module, x: Float[Tensor, "n d"], group: FiniteGroup | None, classes: int | None = None
) -> list[str]:
    """Warnings about a model on the edge of the theory.

    Args:
        model: The model.
        x: Some inputs.
        group: Under which it is said to be invariant.
        classes: The least number of outputs that labels ask for; None for one output a sample.

    Raises:
        CosetError: It is beyond it; the message says what would be right.
    """
    _check_mode(model)
    with torch.no_grad():
        out = model(x)
    _check_outputs(model, out, len(x), classes)
    with torch.no_grad():
        bent = (model(2 * x) - 2 * out + model(torch.zeros_like(x))).abs().max()
    if float(bent) <= 1e-9 * (1 + float(out.abs().max())):
        raise CosetError("the model is affine in its inputs: without gates its weights hold one sum of all of them")
    if group is not None:
        with torch.no_grad():
            worst = max(float((model(group.apply(g, x)) - out).abs().max()) for g in range(len(group)))
        if worst > 1e-6 * (1 + float(out.abs().max())):
            raise CosetError(f"the model is not invariant under {group.name}: its outputs change by {worst:.2g}")
    return _on_the_edge(model)


def _check_mode(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise CosetError(f"{name} drops out at random: call model.eval() before an audit")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise CosetError(f"{name} takes statistics of its batch: call model.eval() before an audit")


def _check_outputs(model: nn.Module, out: Tensor, count: int, classes: int | None) -> None:
    if classes is not None and (out.dim() != 2 or out.size(1) < max(2, classes)):
        raise CosetError(
            f"the model gives outputs of shape {tuple(out.shape)}; labels up to {classes - 1} need at least "
            f"({count}, {max(2, classes)})"
        )
    if classes is None and out.shape != (count,):
        raise CosetError(
            f"the model gives outputs of shape {tuple(out.shape)}; an audit with labels -1 and 1 needs one number a "
            f"sample, ({count},)"
        )
    if not bool(torch.isfinite(out).all()) or not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise CosetError("the model has weights or outputs that are not finite")


def _on_the_edge(model: nn.Module) -> list[str]:
    warnings = []
    normed = [n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm | nn.LayerNorm)]
    if normed:
        warnings.append(
            f"{normed[0]} normalises: the network is not homogeneous, the theory holds with weight decay only"
        )
    deep = [n for n, _ in model.named_parameters() if n.endswith("bias")][1:]
    if deep:
        warnings.append(f"{deep[0]}: biases beyond the first layer; the theory then holds with weight decay only")
    return warnings


def load_network(weights: Path, group: str, shape: tuple[int, ...]) -> tuple[InvariantClassifier, FiniteGroup]:
    """A ReLU network averaged over a group, its sizes read off a safetensors file.

    Args:
        weights: Two-dimensional weights in the order of their names, a bias for the first or none.
        group: A key of :data:`coset.privacy.groups.ACTIONS`.
        shape: Of one input.

    Raises:
        CosetError: The file cannot be read, or its layers do not fit together or the inputs.
    """
    state = read_tensors(weights)
    for name, value in state.items():
        if value.is_complex() or not bool(value.isfinite().all()):
            raise CosetError(f"{weights}: {name} holds numbers that are not finite")
    matrices = [value for _, value in sorted(state.items()) if value.dim() == 2]
    biases = [value for _, value in sorted(state.items()) if value.dim() == 1]
    sizes = [matrices[0].size(1), *(m.size(0) for m in matrices)] if matrices else []
    d = int(np.prod(shape))
    fits = bool(matrices) and all(a.size(0) == b.size(1) for a, b in pairwise(matrices))
    if not fits or sizes[0] != d or len(biases) > 1:
        found = " - ".join(map(str, sizes)) or "(none)"
        raise CosetError(
            f"{weights}: layers {found} with {len(biases)} biases; expected {d} - ... with a bias in the first layer "
            "or none (other networks: --model FILE.py:NAME, which makes it)"
        )
    base = ReLUNetwork(sizes)
    linear = [layer for layer in base.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, matrix in zip(linear, matrices, strict=True):
            layer.weight.copy_(matrix)
        linear[0].bias.copy_(biases[0] if biases else torch.zeros(sizes[1]))
    table = group_of(group, shape)
    return InvariantClassifier(base, table).eval(), table


def load_inputs(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[int, ...]]:
    """Training and held-out inputs of an NPZ: ``x_train``, ``y_train``, ``x_test``, ``y_test``; and the inputs' shape.

    Labels -1 and 1, or 0 and 1, become -1 and 1; class numbers up to more than 1 stay integers.

    Raises:
        CosetError: An array is missing or misshapen, or labels are none.
    """
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = read_arrays(path, names)
    for name in names:
        if arrays[name].dtype.kind not in "biuf" or not arrays[name].ndim:
            raise CosetError(f"{path}: {name} has type {arrays[name].dtype}; an array of numbers was expected")
        if not np.isfinite(arrays[name]).all():
            raise CosetError(f"{path}: {name} holds numbers that are not finite")
    parts = {name: arrays[name].astype(np.float64) for name in names}
    shape = parts["x_train"].shape[1:]
    several = any((parts[f"y_{kind}"] > 1).any() for kind in ("train", "test"))
    pairs = []
    for kind in ("train", "test"):
        x, y = parts[f"x_{kind}"], parts[f"y_{kind}"].reshape(-1)
        if x.shape[1:] != shape or len(x) != len(y):
            raise CosetError(f"{path}: x_{kind} {x.shape} does not go with y_{kind} {y.shape} and inputs of {shape}")
        if not (y == y.round()).all() or y.min(initial=0) < -1 or (y.min(initial=0) < 0 and not set(y) <= {-1.0, 1.0}):
            raise CosetError(f"{path}: y_{kind} must hold -1 and 1, 0 and 1, or class numbers from 0")
        labels = y.astype(np.int64) if several else np.where(y > 0, 1.0, -1.0)
        pairs.append((torch.from_numpy(x.reshape(len(x), -1)), torch.from_numpy(labels)))
    return pairs[0], pairs[1], shape


def _scale(model: nn.Module, train: tuple[Tensor, Tensor], attack: Attack) -> float:
    """Size of multipliers that would explain the weights: the owner of the data can know it."""
    return max(float(attribute(model, *train).multipliers.sum()) / attack.candidates, 1e-6)
