from .alignment import activations, align
from .baselines import (
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
from .encoders import Encoder, MLPEncoder, features
from .evaluation import Scores, evaluate
from .fitting import Fit, Targets, fit, fit_local, reconstruction
from .operators import BlockMap, HeadMap, fold_bias, fold_weight
from .sequential import merge_in_sequence
from .supernet import Distilled, ExplicitSuperNet, FoldedSuperNet, Student

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
