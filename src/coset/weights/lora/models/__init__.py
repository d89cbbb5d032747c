"""Models on adapters: GL-nets and their rivals."""

from coset.weights.lora.models.glnet import FeatureModel, GLNet, LolModel

__all__ = ["FeatureModel", "GLNet", "LolModel"]
