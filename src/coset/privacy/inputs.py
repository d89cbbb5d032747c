"""What an audit is told of the data: inputs and labels of training, and others that the model never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.outside import read_arrays


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
