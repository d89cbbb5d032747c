"""Models on adapters: GL-nets and their rivals."""

from coset.weights.lora.models.base import LolModel
from coset.weights.lora.models.features import FeatureModel
from coset.weights.lora.models.glnet import GLNet

__all__ = ["FeatureModel", "GLNet", "LolModel"]
