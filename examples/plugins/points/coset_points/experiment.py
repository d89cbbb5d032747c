"""Runs on sets of points: an NPZ file of ``points [sets, points, columns]`` and, to learn from, ``labels [sets]``."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from coset import CosetError
from coset.runs.supervised import Examples, SupervisedRecipe
from coset_points.model import DeepSets


class PointsRecipe(SupervisedRecipe):
    """Learn a number, or a label 0 or 1, of each set."""

    kind: Literal["points"] = "points"
    path: str
    width: int = 32

    def examples(self, path: str | None = None) -> Examples:
        file = Path(path or self.path)
        if not file.is_file():
            raise CosetError(f"{file}: no such file")
        with np.load(file, allow_pickle=False) as arrays:
            points = torch.from_numpy(arrays["points"]).float()
            labels = torch.from_numpy(arrays["labels"]).float()[:, None] if "labels" in arrays else None
        names = ("label",) if labels is not None else ()
        labels = torch.zeros(len(points), 0) if labels is None else labels
        return Examples(points, labels, names, tuple(map(str, range(len(points)))))

    def network(self, examples: Examples) -> DeepSets:
        return DeepSets(examples.inputs[0].size(-1), max(1, len(examples.target_names)), self.width)
