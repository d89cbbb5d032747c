from .alignment import activations, align
from .averages import average, slerp, task_arithmetic
from .encoders import Encoder, MLPEncoder, features
from .evaluation import Scores, evaluate
from .fitting import Fit, Targets, fit, fit_local, reconstruction
from .heads import fitted_heads
from .matched import align_teachers, matched_average, weight_aligned
from .operators import BlockMap, HeadMap, fold_bias, fold_weight
from .regression import regmean
from .sequential import merge_in_sequence
from .supernet import Distilled, ExplicitSuperNet, FoldedSuperNet, Student
from .teachers import FeatureEnsemble, Merged, Originals, Teacher, fold_heads
from .zipping import zipit

__all__ = [
    "BlockMap",
    "Distilled",
    "Encoder",
    "ExplicitSuperNet",
    "FeatureEnsemble",
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
