"""Merging networks: FS-Merge and its baselines."""

from coset.weights.merging.alignment import activations, align
from coset.weights.merging.baselines import (
    Ensemble,
    Merged,
    Originals,
    Teacher,
    align_teachers,
    average,
    fitted_heads,
    fold_heads,
    matched_average,
    regmean,
    slerp,
    task_arithmetic,
    weight_aligned,
    zipit,
)
from coset.weights.merging.encoders import Encoder, MLPEncoder, features
from coset.weights.merging.evaluation import Scores, evaluate
from coset.weights.merging.fitting import Fit, Targets, fit, fit_local, reconstruction
from coset.weights.merging.operators import BlockMap, HeadMap, fold_bias, fold_weight
from coset.weights.merging.sequential import merge_in_sequence
from coset.weights.merging.supernet import Distilled, ExplicitSuperNet, FoldedSuperNet, Student

__all__ = [
    "BlockMap",
    "Distilled",
    "Encoder",
    "Ensemble",
    "ExplicitSuperNet",
    "Fit",
    "FoldedSuperNet",
    "HeadMap",
    "MLPEncoder",
    "Merged",
    "Originals",
    "Scores",
    "Student",
    "Targets",
    "Teacher",
    "activations",
    "align",
    "align_teachers",
    "average",
    "evaluate",
    "features",
    "fit",
    "fit_local",
    "fitted_heads",
    "fold_bias",
    "fold_heads",
    "fold_weight",
    "matched_average",
    "merge_in_sequence",
    "reconstruction",
    "regmean",
    "slerp",
    "task_arithmetic",
    "weight_aligned",
    "zipit",
]
