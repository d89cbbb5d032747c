from .attribution import Attribution, attribute, explained_by_shuffled_labels, membership_auc
from .audit import Audit, audit
from .groups import FiniteGroup, group_of
from .hidden_layer import HiddenLayer, hidden_layer_of
from .information import Information, information_of, null_space
from .irreps import Part, energies, isotypic_parts
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
    "HiddenLayer",
    "Information",
    "InvariantClassifier",
    "Part",
    "PointSetNetwork",
    "ReLUNetwork",
    "Reconstruction",
    "Scores",
    "SoftplusFeatures",
    "SurrogateReLU",
    "attribute",
    "audit",
    "distinct_neurons",
    "energies",
    "explained_by_shuffled_labels",
    "first_layer",
    "group_of",
    "hidden_layer_of",
    "homogeneity",
    "information_of",
    "isotypic_parts",
    "margins",
    "membership_auc",
    "multipliers",
    "null_space",
    "reconstruct",
    "sample_gradients",
    "score",
    "stationarity_residual",
    "train_to_margin",
    "train_to_stationarity",
    "with_surrogate",
]
