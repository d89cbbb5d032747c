from .attribution import Attribution, attribute, explained_by_shuffled_labels, membership_auc
from .audit import Audit, audit
from .groups import FiniteGroup, group_of
from .models.classifiers import (
    CircularConvolution,
    InvariantClassifier,
    PointSetNetwork,
    ReLUNetwork,
    SoftplusFeatures,
    SurrogateReLU,
    with_surrogate,
)
from .reconstruction import Attack, Reconstruction, reconstruct
from .scores import Scores, score
from .stationarity import (
    distinct_neurons,
    first_layer,
    homogeneity,
    margins,
    multipliers,
    sample_gradients,
    stationarity_residual,
    train_to_margin,
    train_to_stationarity,
)

__all__ = [
    "Attack",
    "Attribution",
    "Audit",
    "CircularConvolution",
    "FiniteGroup",
    "InvariantClassifier",
    "PointSetNetwork",
    "ReLUNetwork",
    "Reconstruction",
    "Scores",
    "SoftplusFeatures",
    "SurrogateReLU",
    "attribute",
    "audit",
    "distinct_neurons",
    "explained_by_shuffled_labels",
    "first_layer",
    "group_of",
    "homogeneity",
    "margins",
    "membership_auc",
    "multipliers",
    "reconstruct",
    "sample_gradients",
    "score",
    "stationarity_residual",
    "train_to_margin",
    "train_to_stationarity",
    "with_surrogate",
]
