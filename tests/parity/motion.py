"""TracksTo4D: the losses of the official prediction, then the network and gradients through it."""

from __future__ import annotations

import torch
from torch import Tensor

from coset.motion.losses import LossWeights, losses, observed, total_loss, warm_up_loss
from coset.motion.models.trackster4d import Prediction, TracksTo4D

from .differences import SMALL_GRADIENT, Differences
from .reading import ParityFile

SMALL_SLOPE = 1e-6  # of the largest slope of a term


def trackster(file: ParityFile, found: Differences) -> None:
    tracks = file.input("tracks")
    _losses(file, found, tracks)
    # Ours looks at what is not seen only when it is told to (test_trackster4d holds the difference).
    guessed = bool(tracks[..., :2][tracks[..., 2] <= 0.5].any())
    model = file.load(TracksTo4D(**file.arguments, read_unseen=guessed))
    made = model(tracks)
    for name in Prediction._fields:
        found.compare("output", getattr(made, name), file.official(name))
    for kind, points in (("", made.points()), ("static_", made.static.unsqueeze(-2).expand(tracks.shape))):
        where, depth = observed(points, made)
        found.compare("layers", where, file.official(f"{kind}projections"))
        found.compare("layers", depth, file.official(f"{kind}depths"))
    _gradients(file, found, model, made, tracks)


def _losses(file: ParityFile, found: Differences, tracks: Tensor) -> None:
    """Of the official prediction, so that they are judged by themselves, with slopes in what is predicted."""
    given = Prediction(*(file.official(name).requires_grad_() for name in Prediction._fields))
    found.compare("warm-up", warm_up_loss(given), file.official("warm_up"))
    for term, value in losses(given, tracks).items():
        found.compare(f"L {term}", value, file.official(f"loss/{term}"))
        slopes = torch.autograd.grad(value, given, retain_graph=True, allow_unused=True)
        wanted = file.below(f"official/slope/{term}")
        least = SMALL_SLOPE * max(float(slope.abs().max()) for slope in wanted.values())
        for name, leaf, slope in zip(Prediction._fields, given, slopes, strict=True):
            if name in wanted:
                slope = torch.zeros_like(leaf) if slope is None else slope
                slope = slope[:, 1:] if name == "coefficients" else slope  # the first is 1 and no variable
                found.compare(f"slopes of L {term}", slope, wanted[name], least)


def _gradients(file: ParityFile, found: Differences, model: TracksTo4D, made: Prediction, tracks: Tensor) -> None:
    terms = losses(made, tracks)
    terms["total"] = total_loss(terms, LossWeights())
    found.compare("L total", terms["total"], file.official("loss/total"))
    for term, value in terms.items():
        model.zero_grad(set_to_none=True)
        value.backward(retain_graph=True)
        wanted = file.below(f"official/gradient_norm/{term}")
        least = SMALL_GRADIENT * max(float(norm) for norm in wanted.values())
        for part, norm in gradient_norms(model).items():
            found.compare("gradient norms", norm, wanted[part], least)
    found.gradients(model)


def gradient_norms(model: TracksTo4D) -> dict[str, Tensor]:
    """Norms of the gradients of what each head gives, and of all weights ahead of the heads."""
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    camera, point = (_rows(gradients, head) for head in ("camera_head", "point_head"))
    parts = zip(("position", "focal", "coefficients", "rotation"), camera.split([3, 1, model.basis, 6]), strict=True)
    norms = {f"camera_head.{name}": rows.norm() for name, rows in parts}
    norms |= {"point_head.basis": point[:-1].norm(), "point_head.gamma": point[-1].norm()}
    # The official attention has no bias after its heads.
    trunk = [g.flatten() for n, g in gradients.items() if "_head." not in n and not n.endswith(".out.bias")]
    return norms | {"trunk": torch.cat(trunk).norm()}


def _rows(gradients: dict[str, Tensor], head: str) -> Tensor:
    """Weights and bias of a head, a row an output."""
    return torch.cat([gradients[f"{head}.weight"].flatten(1), gradients[f"{head}.bias"][:, None]], 1)


FAMILIES = {"motion": trackster}
