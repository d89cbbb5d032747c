"""Permutations of neurons: which change nothing, and which one aligns a network with another."""

from coset.weights.permutations.groups import NeuronPermutation, permutation_spec, permute, surviving_symmetries

__all__ = ["NeuronPermutation", "permutation_spec", "permute", "surviving_symmetries"]
