"""Blocks that several domains share."""

from coset.nn.mlp import MLP, CategoricalEncoder, FeatureEncoder, norm_of_repeated, norm_relu_linear

__all__ = ["MLP", "CategoricalEncoder", "FeatureEncoder", "norm_of_repeated", "norm_relu_linear"]
