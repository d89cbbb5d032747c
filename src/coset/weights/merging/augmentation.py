"""More unlabelled samples, made of the few that are given.

The published protocol trains on 16 or 100 pictures of a task and 800 made of them: cut and moved, then mixed in pairs
(Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412). No labels
are needed: what a teacher says of a mixture is asked of the merged network. Of a text, words are hidden.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coset.core.errors import CosetError
from coset.core.options import Options
from coset.weights.merging.encoders import Inputs, count_samples, join, take


class AugmentationOptions(Options):
    """How many samples are made of those given, and how."""

    made: int = Field(0, ge=0, description="samples of each task beside those given, e.g. 800")
    crop: float = Field(0.8, gt=0, le=1, description="pictures: smallest side that is cut out, as a share")
    shift: float = Field(0.125, ge=0, lt=1, description="pictures: largest shift, as a share of the side")
    mixup: float = Field(0.8, ge=0, description="pictures: mixed in pairs with shares from Beta(a, a); 0 mixes nothing")
    drop: float = Field(0.15, ge=0, lt=1, description="texts: share of words that are hidden")


def augmented(inputs: Inputs, options: AugmentationOptions, seed: int) -> Inputs:
    """Samples, and after them those made of them.

    Args:
        inputs: Pictures ``[samples, channels, height, width]`` (alone, or as ``pixel_values``), or texts, ``input_ids``
            with an ``attention_mask``.
        options: How many, and how.
        seed: Of what is drawn.

    Raises:
        CosetError: They are neither.
    """
    if not options.made:
        return inputs
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(count_samples(inputs), (options.made,), generator=generator)
    if isinstance(inputs, Tensor):
        return torch.cat([inputs, made_pictures(inputs, rows, options, generator)])
    if "pixel_values" in inputs:
        if len(inputs) > 1:
            raise CosetError(f"samples with {', '.join(inputs)} cannot be augmented: pixel_values alone can")
        pictures = inputs["pixel_values"]
        return {"pixel_values": torch.cat([pictures, made_pictures(pictures, rows, options, generator)])}
    return join([inputs, _with_hidden_words(take(inputs, rows), options.drop, generator)])


def made_pictures(
    pictures: Float[Tensor, "samples channels height width"], rows: Tensor, options: AugmentationOptions,
    generator: torch.Generator,
) -> Float[Tensor, "made channels height width"]:  # fmt: skip
    """Pictures of these rows, each cut and moved; then x <- a x + (1 - a) x' with another of them.

    Raises:
        CosetError: They are no pictures.
    """
    if pictures.dim() != 4:
        shape = tuple(pictures.shape)
        raise CosetError(
            f"samples of shape {shape} cannot be augmented: pictures are [samples, channels, height, width]"
        )
    made = _cut_and_moved(pictures[rows], options, generator)
    if not options.mixup:
        return made
    drawn = np.random.default_rng(generator.initial_seed()).beta(options.mixup, options.mixup, len(made))
    shares = torch.from_numpy(drawn).to(made).view(-1, 1, 1, 1)
    return shares * made + (1 - shares) * made[torch.randperm(len(made), generator=generator)]


def _cut_and_moved(
    pictures: Float[Tensor, "made channels height width"], options: AugmentationOptions, generator: torch.Generator
) -> Float[Tensor, "made channels height width"]:
    """A square part of each, stretched to the whole: corners repeat where it leaves the picture."""
    count = len(pictures)
    size = options.crop + (1 - options.crop) * torch.rand(count, generator=generator)
    shift = 2 * options.shift * (2 * torch.rand(count, 2, generator=generator) - 1)
    room = (1 - size)[:, None] * (2 * torch.rand(count, 2, generator=generator) - 1)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = size
    affine[:, :, 2] = shift + room
    grid = F.affine_grid(affine.to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _with_hidden_words(texts: Inputs, share: float, generator: torch.Generator) -> Inputs:
    """The same with some words out of everybody's sight, but never the first, which a pooler reads, nor the last, which
    decoders read.

    Raises:
        CosetError: There is no mask of attention.
    """
    assert not isinstance(texts, Tensor)
    if "attention_mask" not in texts:
        raise CosetError(f"texts need an attention_mask to be augmented; there is {', '.join(texts)}")
    mask = texts["attention_mask"]
    hidden = torch.rand(mask.shape, generator=generator) < share
    last = (mask.long() * torch.arange(mask.size(1))).argmax(1)
    hidden[:, 0] = hidden[torch.arange(len(mask)), last] = False
    return texts | {"attention_mask": mask * ~hidden}
