"""What merging is compared with: the teachers themselves, and their ensemble. All of them have to be kept."""

from __future__ import annotations

from collections.abc import Sequence

from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import FeatureEnsemble, Originals, Teacher


@merge_method("originals")
def originals(teachers: Sequence[Teacher]) -> Originals:
    """Each teacher with its own features."""
    return Originals(teachers)


@merge_method("ensemble")
def ensemble(teachers: Sequence[Teacher]) -> FeatureEnsemble:
    """The mean of all features."""
    return FeatureEnsemble(teachers)
