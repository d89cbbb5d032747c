"""What a model of one's own gives away of the data it was trained on, in one call.

The weights come as safetensors, or as tensors that ``torch.save`` wrote. A network is described in words (its sizes and
group), so that nothing has to be unpickled: :class:`ReLUNetwork` averaged over a group, or linear layers with biases
and ReLUs between them. Any other ``nn.Module`` goes through :func:`audit` in Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.privacy.attribution import (
    Attribution,
    attribute,
    explained_by_shuffled_labels,
    membership_auc,
    true_positives,
)
from coset.privacy.canaries import Canaries, planted, private_control
from coset.privacy.groups import FiniteGroup, group_of
from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.information import Information, information_of
from coset.privacy.kinks import kinked, stationarity_at_kinks
from coset.privacy.models.classifiers import InvariantClassifier, ReLUNetwork
from coset.privacy.models.linear_layers import Layer, layers_of
from coset.privacy.models.modules import SAVED, OnFlatInputs, read_state
from coset.privacy.neuron_differences import enough_units
from coset.privacy.reconstruction import Attack, Reconstruction, reconstruct
from coset.privacy.scores import FOUND, Scores, check_held_out, score
from coset.privacy.stationarity import (
    closeness,
    distinct_neurons,
    first_layer,
    known_loss,
    multipliers,
    stationarity_residual,
)
from coset.privacy.verdict import Verdict, enough_held_out, judge
from coset.relations.kernels.threads import pytorch_threads

ENOUGH = 0.01
"""Relative residual up to which the equations are taken to hold."""
MOST_AT_ONCE = 3000
"""Unknowns up to which an audit takes second-order steps of itself."""


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
        verdict: The whole in plain words.
        told: Share of members told by multipliers, and by the loss, at a false positive rate of 1 %, with intervals.
        known: What the weights determine at all, if it could be computed.
        controls: ``canaries`` and ``private``: what the same attack finds in networks where it is known what there is.
        warnings: Why the numbers may say less than they seem to.
    """

    scores: Scores
    found: Reconstruction
    attribution: Attribution
    explained: dict[str, float]
    membership: dict[str, float]
    residual: float | None
    verdict: Verdict
    told: dict[str, tuple[float, float, float]]
    known: Information | None = None
    controls: dict[str, Canaries] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, float]:
        """The main ones, with what they say."""
        known = {} if self.known is None else {
            "its ceiling without a prior": float(self.known.ceiling.mean()),
            "unknowns that the weights do not determine": float(self.known.undetermined),
            "of unknowns": float(self.known.unknowns),
        }  # fmt: skip
        matched, others = self.scores.matched
        return {
            "training inputs recognised (correlation above 0.9)": float(self.scores.recognised()),
            "held-out inputs recognised": float(matched), "of held-out inputs": float(others),
            "p-value of the inputs recognised": self.scores.chance, "mean best correlation": self.scores.mean,
            "the same, of held-out inputs": float(self.scores.null.mean()), "p-value of the mean": self.scores.p_value,
            **known,
            "weights explained by the training inputs": self.explained["train"],
            "by as many held-out inputs": self.explained["held_out"],
            "by training inputs with shuffled labels (largest of 20)": self.explained["shuffled"],
            "membership AUC, multipliers": self.membership["multipliers"],
            "membership AUC, loss": self.membership["loss"],
            "members told at 1 % false positives, multipliers": self.told["multipliers"][0],
            "members told at 1 % false positives, loss": self.told["loss"][0],
        }  # fmt: skip

    def records(self) -> list[dict[str, float | None]]:
        """A row each training input: what was found of it, what could be, and its share of the weights."""
        c = self.attribution.multipliers
        n = len(self.scores.correlation)
        above = (c[:n, None] > c[None, n:]).double().mean(1)
        ceiling = [None] * n if self.known is None else self.known.ceiling.tolist()
        return [
            {
                "record": i, "correlation": float(self.scores.correlation[i]), "ceiling": ceiling[i],
                "multiplier": float(c[i]), "above held out": float(above[i]),
            }
            for i in range(n)
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Numbers and warnings."""
        return {
            "verdict": {"kind": self.verdict.kind, "text": self.verdict.text},
            "information": None if self.known is None else self.known.numbers(),
            "controls": {name: control.numbers() for name, control in self.controls.items()},
            "told_at_1_percent": {name: list(value) for name, value in self.told.items()}, "records": self.records(),
            "recognised": {
                "training": self.scores.recognised(), "held_out": self.scores.matched[0],
                "of_held_out": self.scores.matched[1], "p_value": self.scores.chance,
            },
            "reconstruction": self.scores.summary(), "membership_auc": self.membership,
            "explained": self.explained, "residual_of_the_truth": self.residual,
            "reconstruction_residual": float(self.found.residual.min()),
            "warnings": self.warnings,
        }  # fmt: skip


@pytorch_threads()
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
    plant: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> Audit:
    """Reconstruct, attribute, and judge both against inputs that the model never saw.

    Args:
        model: One output, or one for each class; in evaluation mode, float64 is used.
        train: Inputs and labels that it was trained on: -1 or 1, or class numbers (integers) with several outputs.
        held_out: The same of the same kind that it never saw, at least as many; nine times as many to tell one
            recovered input from chance.
        group: Under which it is invariant; checked.
        loss: ``mse``, ``logistic`` or ``ce`` (several outputs).
        weight_decay: If it was trained with some.
        attack: How to look; that of :func:`default_attack` if None.
        picture: Height and width, if inputs are images.
        plant: Whether to train and attack the controls, which takes three times as long.
        progress: Called now and then.

    Raises:
        CosetError: The model is outside of what the theory covers, the group is none of its symmetries, or the loss is
            none of these, or of other labels.
    """
    check_held_out(len(train[0]), len(held_out[0]))
    _check_training(loss, weight_decay)
    model = model.double()
    classes = None if train[1].is_floating_point() else 1 + int(torch.cat([train[1], held_out[1]]).max())
    warnings = [*_too_few_held_out(len(train[0]), len(held_out[0])), *examine(model, train[0], group, classes)]
    _check_labels(loss, classes)
    group = group or group_of("plain", (train[0].size(1),))
    attack = attack or default_attack(model, train[0])
    warnings += _too_few_neurons(model, train[0])
    found = reconstruct(
        model, train[0].size(1), attack, group=group, scale=_scale(model, train, attack), progress=progress
    )
    scores = score(found.candidates[found.best], train[0], held_out[0], group, picture)
    everything = torch.cat([train[0], held_out[0]]), torch.cat([train[1], held_out[1]])
    attribution = attribute(model, *everything)
    residual = stationarity_residual(model, *train, loss=loss, weight_decay=weight_decay) if weight_decay else None
    left = _unexplained(model, *train) if residual is None else residual
    premise = _premise(left)
    warnings += [] if premise is None else [premise]
    known = None if premise else _known(model, train, group, loss, weight_decay, left)
    planted_too = controls(model, held_out, len(train[0]), attack, group, loss, weight_decay, progress) if plant else {}
    canaries = planted_too.get("canaries")
    verdict = judge(
        members=len(train[0]), recovered=scores.recognised(), p_value=scores.chance,
        recoverable=None if known is None else int((known.ceiling >= FOUND).sum()),
        canaries=None if canaries is None else (canaries.recovered, len(canaries.correlation)), premise=premise,
        held_out=scores.matched,
    )  # fmt: skip
    membership, told = _membership(model, everything, attribution, len(train[0]), loss)
    return Audit(
        scores, found, attribution, _explained(model, train, held_out), membership, residual, verdict, told, known,
        planted_too, warnings,
    )  # fmt: skip


def default_attack(model: nn.Module, x: Float[Tensor, "n d"], **options: Any) -> Attack:
    """Differences of neurons for one hidden layer of ReLUs, second-order steps for one of other gates whose equations
    are few enough; descent for other networks."""
    layer = hidden_layer_of(model, x.size(1))
    candidates = 2 * len(x)
    if layer is not None and kinked(layer) and enough_units(layer, candidates):
        return Attack(method="differences", candidates=candidates, **options)
    if layer is not None and candidates * (layer.to(torch.float64).visible().size(1) + 1) <= MOST_AT_ONCE:
        return Attack(method="gauss-newton", candidates=candidates, steps=400, **options)
    # Descent in single precision is as good at telling images apart, and takes half the time.
    return Attack(candidates=candidates, least=0.1, precision="float32", **options)


def controls(
    model: nn.Module, held_out: tuple[Tensor, Tensor], count: int, attack: Attack, group: FiniteGroup, loss: str,
    weight_decay: float | None, progress: Callable[[], object] = lambda: None,
) -> dict[str, Canaries]:  # fmt: skip
    """Networks of the model's form, trained on as many held-out inputs as there are members: to where the equations
    hold, and with differential privacy. Those that cannot be trained are left out."""
    x, y = held_out[0][-count:], held_out[1][-count:]
    made = {"private": private_control(model, x, y, attack, group, loss=loss, progress=progress)}
    try:
        made["canaries"] = planted(model, x, y, attack, group, loss=loss, weight_decay=weight_decay, progress=progress)
    except CosetError:  # not homogeneous, or too small for the canaries
        return made
    return made


def _unexplained(model: nn.Module, x: Float[Tensor, "n d"], y: Shaped[Tensor, " n"]) -> float:
    """Share of the weights that no multipliers of the training inputs explain, gates at kinks counted as they are."""
    found, layer = attribute(model, x, y), hidden_layer_of(model, x.size(1))
    if layer is None or not kinked(layer) or not y.is_floating_point():
        return 1 - found.explained
    return stationarity_at_kinks(layer, x, y * found.multipliers).residual


def _known(
    model: nn.Module, train: tuple[Tensor, Tensor], group: FiniteGroup, loss: str, weight_decay: float | None,
    residual: float,
) -> Information | None:  # fmt: skip
    """What the weights determine of the training inputs; None of several outputs, or of too many unknowns."""
    x, y = train
    if not y.is_floating_point():
        return None
    with torch.no_grad():
        c = multipliers(loss, model(x), y, weight_decay) if weight_decay else y * attribute(model, x, y).multipliers
    return information_of(model, x, c, group, residual=residual)


def _too_few_held_out(members: int, others: int) -> list[str]:
    least = enough_held_out(members)
    if others >= least:
        return []
    return [
        f"{others} held-out records: one training record that is recovered could not be told from chance, which takes "
        f"{least}"
    ]


def _too_few_neurons(model: nn.Module, x: Float[Tensor, "n d"]) -> list[str]:
    first = first_layer(model)
    neurons = distinct_neurons(first)
    if neurons * first.size(1) >= len(x) * (x.size(1) + 1):
        return []
    return [
        f"{neurons} distinct neurons are too few equations for {len(x)} inputs: a small residual of the reconstruction "
        "means little"
    ]


def _premise(left: float) -> str | None:
    """Why the equations do not hold; None if they do."""
    if left <= ENOUGH:
        return None
    return (
        f"the weights are no stationary point on the training data (relative residual {left:.2g}): training stopped "
        "early, used Adam, or the weight decay is another"
    )


def _membership(
    model: nn.Module, inputs: tuple[Tensor, Tensor], attribution: Attribution, n: int, loss: str
) -> tuple[dict[str, float], dict[str, tuple[float, float, float]]]:
    """AUC of multipliers and of the loss at telling the first n inputs from the others, and shares told at 1 %."""
    with torch.no_grad():
        near = closeness(loss, model(inputs[0]), inputs[1])
    values = {"multipliers": attribution.multipliers, "loss": near}
    auc = {name: membership_auc(value[:n], value[n:]) for name, value in values.items()}
    return auc, {name: true_positives(value[:n], value[n:]) for name, value in values.items()}


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


def _check_training(loss: str, weight_decay: float | None) -> None:
    known_loss(loss)
    if weight_decay is not None and not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise CosetError(f"weight decay {weight_decay:g}: a number of 0 or more was expected")


def _check_labels(loss: str, classes: int | None) -> None:
    if classes is None and loss == "ce":
        raise CosetError("loss 'ce' needs an output for each class: networks of one output have mse or logistic")
    if classes is not None and loss != "ce":
        raise CosetError(f"loss {loss!r} goes with labels -1 and 1: class numbers need 'ce'")


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


@takes_paths
def load_network(weights: Path, group: str, shape: tuple[int, ...]) -> tuple[InvariantClassifier, FiniteGroup]:
    """A ReLU network averaged over a group, its sizes read off its weights.

    Args:
        weights: Weights and biases of linear layers and nothing else, as :func:`layers_of` puts them in order.
        group: A key of :data:`coset.privacy.groups.ACTIONS`.
        shape: Of one input.

    Raises:
        CosetError: The file cannot be read, holds other tensors too, or layers that do not fit together or the inputs,
            or do so in several orders.
    """
    ordered = weights.suffix in SAVED  # safetensors sort their tensors
    layers = layers_of(read_state(weights), int(np.prod(shape)), weights, ordered=ordered)
    sizes = [layers[0][0].size(1), *(weight.size(0) for weight, _ in layers)]
    table = group_of(group, shape)
    base = _linear_layers(layers) if any(bias is not None for _, bias in layers[1:]) else _homogeneous(sizes, layers)
    return InvariantClassifier(base, table).eval(), table


def _homogeneous(sizes: list[int], layers: list[Layer]) -> ReLUNetwork:
    base = ReLUNetwork(sizes)
    linear = [layer for layer in base.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, (weight, _) in zip(linear, layers, strict=True):
            layer.weight.copy_(weight)
        bias = layers[0][1]
        linear[0].bias.copy_(torch.zeros(sizes[1]) if bias is None else bias)
    return base


def _linear_layers(layers: list[Layer]) -> OnFlatInputs:
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.size(1), weight.size(0), bias=bias is not None, dtype=torch.float64)
        linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        modules += [linear, nn.ReLU()]
    return OnFlatInputs(nn.Sequential(*modules[:-1]), (layers[0][0].size(1),))


@takes_paths
def _scale(model: nn.Module, train: tuple[Tensor, Tensor], attack: Attack) -> float:
    """Size of multipliers that would explain the weights: the owner of the data can know it."""
    return max(float(attribute(model, *train).multipliers.sum()) / attack.candidates, 1e-6)
