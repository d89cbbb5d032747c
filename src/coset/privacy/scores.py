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
        held_out: max over candidates and group elements, of each held-out input.
        symmetry: Median symmetry index of the candidates.
        data_symmetry: The same of the training inputs.
    """

    correlation: Float[Tensor, " n"]
    candidate: Int[Tensor, " n"]
    element: Int[Tensor, " n"]
    ssim: Float[Tensor, " n"]
    null: Float[Tensor, " sets"]
    held_out: Float[Tensor, " k"]
    symmetry: float
    data_symmetry: float

    @property
    def mean(self) -> float:
        """Mean best correlation."""
        return float(self.correlation.mean())

    @property
    def p_value(self) -> float:
        """How often held-out inputs are matched as well on average: (1 + sets as good) / (1 + sets)."""
        return float((1 + (self.null >= self.mean).sum()) / (1 + len(self.null)))

    def recognised(self, least: float = FOUND) -> int:
        """Training inputs with a candidate of at least this correlation."""
        return int((self.correlation >= least).sum())

    @property
    def matched(self) -> tuple[int, int]:
        """Held-out inputs with a candidate of correlation 0.9 or more, which chance gave them, and all of them."""
        return int((self.held_out >= FOUND).sum()), len(self.held_out)

    @property
    def chance(self) -> float:
        """How often chance gives the training inputs as many of all matches at 0.9, held-out ones counted."""
        return by_chance(len(self.correlation), self.recognised(), *self.matched)

    def summary(self) -> dict[str, float | None]:
        """The numbers of a row of a table; ``ssim`` is ``None`` of inputs that are no pictures."""
        ssim = float(self.ssim.mean())
        return {
            "correlation": self.mean, "recognised": float(self.recognised()), "exact": float(self.recognised(0.99)),
            "null": float(self.null.mean()),
            "null_largest": float(self.null.max()), "p_value": self.p_value, "chance": self.chance,
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
    check_held_out(n, len(held_out))
    best, which, element = _best(candidates, train, group)
    others = [_best(candidates, part, group)[0] for part in held_out.split(n)]
    null = torch.stack([part.mean() for part in others if len(part) == n])
    moved = torch.stack([group.apply(int(g), candidates[j]) for j, g in zip(which, element, strict=True)])
    if shape is None or min(shape) < WINDOW // 2 + 1:
        ssim = torch.full((n,), float("nan"))
    else:
        ssim = structural_similarity(moved, train, shape)
    return Scores(
        best, which, element, ssim, null, torch.cat(others),
        float(group.symmetry_index(candidates).median()), float(group.symmetry_index(train).median()),
    )  # fmt: skip


def check_held_out(members: int, held_out: int) -> None:
    """At least as many held-out inputs as members, or a ``CosetError``."""
    if held_out < members:
        raise CosetError(f"{held_out} held-out inputs: at least the {members} of training are needed to judge by")


def by_chance(members: int, recovered: int, matched: int, held_out: int) -> float:
    """How often as many of all matches, or more, fall on members, if matches choose among records at random: the
    upper tail of the hypergeometric distribution (Fisher's exact test).

    Args:
        members: Training inputs.
        recovered: Of them, matched.
        matched: Held-out inputs that are matched.
        held_out: All of these.

    >>> by_chance(members=5, recovered=5, matched=0, held_out=5) == 1 / 252
    True
    >>> by_chance(members=6, recovered=1, matched=0, held_out=54)
    0.1
    """
    hits = recovered + matched
    several = range(recovered, min(members, hits) + 1)
    return sum(math.comb(members, i) * math.comb(held_out, hits - i) for i in several) / math.comb(
        members + held_out, hits
    )


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
