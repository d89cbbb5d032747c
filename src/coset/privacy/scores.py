"""How near reconstructions come to training inputs, up to the group, against what chance would give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coset.core.errors import CosetError
from coset.privacy.groups import FiniteGroup, standardise

FOUND = 0.9
"""Correlation from which an input counts as recovered."""
WINDOW = 5  # pixels of the Gaussian window that torchmetrics takes for a deviation of half a pixel


@dataclass(frozen=True)
class Scores:
    """Of each training input, its best candidate.

    Attributes:
        correlation: max over candidates and group elements.
        candidate: Which one.
        element: Which group element moves it onto the input.
        ssim: Structural similarity of that pair, both standardised; NaN if inputs are no images, or too small for it.
        null: The mean best correlation of the same candidates with sets of held-out inputs, one each.
        symmetry: Median symmetry index of the candidates.
        data_symmetry: The same of the training inputs.
    """

    correlation: Float[Tensor, " n"]
    candidate: Int[Tensor, " n"]
    element: Int[Tensor, " n"]
    ssim: Float[Tensor, " n"]
    null: Float[Tensor, " sets"]
    symmetry: float
    data_symmetry: float

    @property
    def mean(self) -> float:
        """Mean best correlation."""
        return float(self.correlation.mean())

    @property
    def p_value(self) -> float:
        """How often held-out inputs are matched as well as the training inputs: (1 + sets as good) / (1 + sets)."""
        return float((1 + (self.null >= self.mean).sum()) / (1 + len(self.null)))

    def recognised(self, least: float = FOUND) -> int:
        """Training inputs with a candidate of at least this correlation."""
        return int((self.correlation >= least).sum())

    def summary(self) -> dict[str, float | None]:
        """The numbers of a row of a table; ``ssim`` is ``None`` of inputs that are no pictures."""
        ssim = float(self.ssim.mean())
        return {
            "correlation": self.mean, "recognised": float(self.recognised()), "exact": float(self.recognised(0.99)),
            "null": float(self.null.mean()),
            "null_largest": float(self.null.max()), "p_value": self.p_value,
            "ssim": ssim if math.isfinite(ssim) else None,
            "symmetry": self.symmetry, "data_symmetry": self.data_symmetry,
        }  # fmt: skip


def score(
    candidates: Float[Tensor, "m d"],
    train: Float[Tensor, "n d"],
    held_out: Float[Tensor, "k d"],
    group: FiniteGroup,
    shape: tuple[int, int] | None = None,
) -> Scores:
    """Match every training input with its best candidate.

    Args:
        candidates: Reconstructions.
        train: The inputs that the network was trained on.
        held_out: Inputs of the same kind that it never saw, at least as many as in ``train``; cut into sets of n.
        group: Up to which inputs are compared.
        shape: Height and width, if inputs are images.

    Raises:
        CosetError: Too few held-out inputs to compare with.
    """
    n = len(train)
    if len(held_out) < n:
        raise CosetError(f"{len(held_out)} held-out inputs: at least the {n} of training are needed to judge by")
    best, which, element = _best(candidates, train, group)
    sets = [held_out[i : i + n] for i in range(0, len(held_out) - n + 1, n)]
    null = torch.stack([_best(candidates, other, group)[0].mean() for other in sets])
    moved = torch.stack([group.apply(int(g), candidates[j]) for j, g in zip(which, element, strict=True)])
    if shape is None or min(shape) < WINDOW // 2 + 1:
        ssim = torch.full((n,), float("nan"))
    else:
        ssim = structural_similarity(moved, train, shape)
    return Scores(
        best, which, element, ssim, null,
        float(group.symmetry_index(candidates).median()), float(group.symmetry_index(train).median()),
    )  # fmt: skip


def aligned(candidates: Float[Tensor, "m d"], scores: Scores, group: FiniteGroup) -> Float[Tensor, "n d"]:
    """The best candidate of each training input, moved onto it."""
    pairs = zip(scores.candidate.tolist(), scores.element.tolist(), strict=True)
    return torch.stack([group.apply(g, candidates[j]) for j, g in pairs])


def nearest(found: Float[Tensor, "n d"], inputs: Float[Tensor, "k d"], group: FiniteGroup) -> Float[Tensor, "n d"]:
    """The input most like each reconstruction, moved onto it: what chance would call a match, for held-out inputs."""
    _, which, element = _best(inputs, found, group)
    return torch.stack([group.apply(int(g), inputs[j]) for j, g in zip(which, element, strict=True)])


def structural_similarity(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], shape: tuple[int, int]
) -> Float[Tensor, " n"]:
    """SSIM with a Gaussian window of deviation 0.5, of images scaled to mean 0 and deviation 1 (Wang et al. 2004)."""
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    images = [standardise(part).view(-1, 1, *shape).float() for part in (x, y)]
    found = measure(images[0], images[1], sigma=0.5, kernel_size=3, data_range=4.0, reduction="none")
    assert isinstance(found, Tensor)
    return found.reshape(-1)


def _best(candidates: Tensor, inputs: Tensor, group: FiniteGroup) -> tuple[Tensor, Tensor, Tensor]:
    correlation, element = group.correlation(candidates, inputs)
    best, which = correlation.max(0)
    return best, which, element[which, torch.arange(len(inputs))]
