"""Randomness that follows from a seed and from where one is, not from how one got there."""

import random

import numpy as np
import torch


def derived_seed(*parts: int) -> int:
    """One seed from several numbers, e.g. (seed, epoch, row); neighbours give unrelated streams."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_everything(*parts: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    seed = derived_seed(*parts)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (for transforms of others that draw from NumPy's global stream)
    torch.manual_seed(seed)
